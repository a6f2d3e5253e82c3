"""kill -9 at seeded points of a mixed load: no wrong byte, no dead cache."""

import os
import random
import shutil
import time

from archives import Tree, klines_key, rows
from harness import (
    attr,
    errno_of,
    limit,
    read,
    sha256,
    sha256_of,
    smoke,
    wait_until,
)

FOLDER = "spot/klines/BTCUSDT/1m"
KILLS = int(os.environ.get("TICKFS_KILLS", "20"))
SEED = int(os.environ.get("TICKFS_SEED", "1"))
LOST_MAX = 1 << 20  # the issue's own bound


def small(day):
    return rows(400 * day, day)


def incompressible(day):
    return random.Random(day).randbytes(3 << 20)


def wrong_at(path, csv, off, count):
    """Words for a wrong byte at an offset, or None. A read whose daemon dies
    returns what it has by then, and the next one fails; so few bytes are no
    wrong ones, but no bytes before the end are."""
    fd = os.open(path, os.O_RDONLY)
    try:
        end = min(off + count, len(csv))
        while off < end:
            got = os.pread(fd, end - off, off)
            if not got or got != csv[off : off + len(got)]:
                return f"at {off}, {len(got)} bytes of {end - off}"
            off += len(got)
    finally:
        os.close(fd)
    return None


def load(m, csvs, seed, wrong):
    """Reads and lists at random until the daemon dies. Returns wrong bytes
    as words; errors are no wrong bytes."""
    rng = random.Random(seed)
    dates = sorted(csvs)
    while True:
        date = rng.choice(dates)
        path = f"{m}/{FOLDER}/{date}.csv"
        what = rng.randrange(6)
        try:
            if what == 0:
                os.listdir(f"{m}/{FOLDER}")
            elif what == 1:
                size = os.stat(path).st_size
                if size != len(csvs[date]):
                    wrong.append(f"{date}: size {size}")
            elif what == 2:
                off = rng.randrange(len(csvs[date]))
                why = wrong_at(path, csvs[date], off, 50000)
                if why:
                    wrong.append(f"{date}: {why}")
            else:
                if sha256_of(path) != sha256(csvs[date]):
                    wrong.append(f"{date}: whole file")
        except OSError as e:
            # ENOTCONN: the daemon is dead; or the mount is gone already.
            if e.errno == 107 or not os.path.ismount(m):
                return wrong
        if wrong:
            return wrong


def mixed(t, kills, make, speed, **options):
    tree = Tree(t.folder("origin"))
    csvs = {}
    for day in range(1, 15):
        date = f"2024-01-{day:02}"
        csvs[date] = tree.klines(date, make(day))
    origin = t.origin()
    # Slow enough that kills fall into downloads, cut bodies into resumes.
    origin.rules(
        {"kind": "object", "key": "*.zip", "throttle": speed},
        {"kind": "object", "key": "*.zip", "cut_after": 50000,
         "probability": 0.2},
        {"probability": 0.02, "status": 503},
        {"delay_ms": 3},
    )
    m = t.mount(origin, **options)
    rng = random.Random(SEED)
    for number in range(kills):
        jobs = [
            t.job(load, m.point, csvs, f"{SEED} {number} {i}", [])
            for i in range(4)
        ]
        time.sleep(rng.uniform(0.02, 0.9))
        m.kill()
        for job in jobs:
            wrong = job.result(30)
            assert not wrong, (number, wrong)
        m.start(prefill=rng.choice(("off", "1G")))
        # Whatever lies there now: right bytes or an errno, never a dead file.
        date = rng.choice(sorted(csvs))
        path = f"{m.point}/{FOLDER}/{date}.csv"
        for _ in range(20):
            if errno_of(read, path) is None:
                break
        assert read(path) == csvs[date], (number, date)
    origin.rules()
    for date, csv in csvs.items():
        path = f"{m.point}/{FOLDER}/{date}.csv"
        assert sha256(read(path)) == sha256(csv), date
    # And none of it needs the origin any more.
    if "quota" not in options:
        m.unmount()
        origin.stop()
        m.start(offline=True)
        for date, csv in csvs.items():
            path = f"{m.point}/{FOLDER}/{date}.csv"
            assert sha256(read(path)) == sha256(csv), date
            key = klines_key(date)
            with open(f"{m.cache}/objects/{key}", "rb") as f:
                published = read(f"{m.cache}/objects/{key}.CHECKSUM")
                assert published.split()[0].decode() == sha256(f.read())
    left = [
        os.path.join(base, name)
        for base, _, names in os.walk(m.cache)
        for name in names
        if "damaged" in name or "/quarantine/" in base + "/"
    ]
    assert not left, left


@limit(60 + KILLS * 6)
def test_crash__kills_in_a_mixed_load(t):
    mixed(t, KILLS, small, 3 << 20)


@limit(60 + KILLS * 6)
def test_crash__kills_while_evicting(t):
    mixed(t, max(1, KILLS // 2), incompressible, 40 << 20, quota="24M")


class Interrupted:
    """One archive that takes a while to come, and a daemon that is killed
    meanwhile, again and again."""

    DATE, KEY = "2024-01-01", klines_key("2024-01-01")
    BYTES, SPEED = 12 << 20, 12 << 20

    def __init__(self, t):
        self.t = t
        tree = Tree(t.folder("origin"))
        noise = random.Random(1).randbytes(self.BYTES)
        self.csv = tree.klines(self.DATE, noise)
        self.size = os.path.getsize(tree.path(self.KEY))
        self.origin = t.origin()
        self.origin.rules({"key": self.KEY, "kind": ["object", "range"],
                           "throttle": self.SPEED})
        self.m = t.mount(self.origin)
        self.rng = random.Random(SEED)
        self.begin()

    def begin(self):
        """Nothing has come yet."""
        self.had = self.sent = self.rounds = 0

    def path(self):
        return self.m / f"{FOLDER}/{self.DATE}.csv"

    def bodies(self):
        """(from, bytes) of what the origin has sent of the archive since the
        last kill, but for the few bytes of its end that tell its size."""
        found = []
        for r in self.origin.control("log"):
            if not r["path"].endswith("/" + self.KEY) or r["kind"] not in (
                "object", "range"
            ):
                continue
            first = (r["range"] or "bytes=0-").removeprefix("bytes=")
            if not first.startswith("-"):
                found.append((int(first.split("-")[0]), int(r["bytes"])))
        return found

    def go_on(self, patience=None):
        """Opens it; True if it was killed before it was there."""
        m = self.m
        self.origin.reset()
        self.rounds += 1
        job = self.t.job(read, self.path())
        bodies = wait_until(self.bodies, "the archive is asked for")
        # What had come need not come again, but for the last of it.
        assert bodies[0][0] >= self.had - LOST_MAX, (bodies, self.had)
        come = job.done(patience or self.rng.uniform(0.02, 0.4))
        self.had = int(attr(self.path(), "fetch.bytes_done"))
        if come or self.had == self.size:
            assert sha256(job.result()) == sha256(self.csv)
            self.sent += sum(count for _, count in self.bodies())
            return False
        m.kill()
        job.error()
        self.sent += sum(count for _, count in self.bodies())
        m.start()
        return True

    def check_whole(self):
        """Of all its bytes, by the origin's own count."""
        again = self.sent - self.size
        assert again <= (self.rounds - 1) * LOST_MAX, (again, self.rounds)
        self.m.unmount()
        shutil.rmtree(self.m.cache)
        os.mkdir(self.m.cache, 0o700)
        self.m.start()


@limit(60 + KILLS * 6)
def test_crash__kills_in_downloads_lose_at_most_a_mib(t):
    it = Interrupted(t)
    resumed = 0
    for _ in range(max(2, KILLS // 3)):
        while not it.go_on():
            it.check_whole()
            it.begin()
        resumed += it.had > LOST_MAX
    # They did fall where there was something to lose.
    assert resumed > 0
    assert not it.go_on(patience=30)
    it.check_whole()


@smoke
@limit(90)
def test_crash__three_kills(t):
    mixed(t, 3, small, 3 << 20)
