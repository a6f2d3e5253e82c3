"""kill -9 at seeded points of a mixed load: no wrong byte, no dead cache."""

import os
import random
import time

from archives import Tree, klines_key, rows
from harness import (
    errno_of,
    limit,
    read,
    sha256,
    sha256_of,
    smoke,
)

FOLDER = "spot/klines/BTCUSDT/1m"
KILLS = int(os.environ.get("TICKFS_KILLS", "20"))
SEED = int(os.environ.get("TICKFS_SEED", "1"))


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


@smoke
@limit(90)
def test_crash__three_kills(t):
    mixed(t, 3, small, 3 << 20)
