#!/usr/bin/env python3
"""An hour of mixed load on one mount: every byte compared, memory and
descriptors sampled and judged flat.

    tests/mount/soak.py [SECONDS]      (3600)

Readers of any offset and of whole files, listings, look-ups of what is not
there, evictions, republished archives, and an origin that now and then
answers 503 or cuts a body. Prints a report of figures and ends with
"ok - ..." or "not ok - ...".
"""

import errno
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
sys.dont_write_bytecode = True

import harness  # noqa: E402
from archives import Tree, rows  # noqa: E402

FOLDER = "spot/klines/BTCUSDT/1m"
READERS = 6
SAMPLES = 60  # in all, however long it takes


def versions(tree, date, number):
    """Two CSVs that take turns under one name."""
    csvs = [rows(15000 + 1997 * number, f"{date} {v}") for v in (0, 1)]
    tree.klines(date, csvs[0])
    return csvs


def read_at_random(path, csvs, rng):
    """Words for a wrong byte, or None."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        true = [c for c in csvs if len(c) == size]
        if not true:
            return f"size {size}"
        csv = true[0]
        if rng.randrange(2):  # from the cache's own decoder
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for _ in range(rng.randrange(1, 30)):
            off = rng.randrange(size)
            if os.pread(fd, 30000, off) != csv[off : off + 30000]:
                return f"at {off} of {size}"
    finally:
        os.close(fd)
    return None


def work(point, csvs, seed, seconds):
    rng = random.Random(seed)
    dates = sorted(csvs)
    done = dict.fromkeys(("random", "whole", "list", "absent"), 0)
    refused = {}  # (operation, errno): count
    wrong = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and not wrong:
        date = rng.choice(dates)
        path = f"{point}/{FOLDER}/{date}.csv"
        kind = rng.choice(("random", "random", "whole", "list", "absent"))
        try:
            if kind == "random":
                why = read_at_random(path, csvs[date], rng)
                if why:
                    wrong.append(f"{date}: {why}")
            elif kind == "whole":
                if harness.read(path) not in csvs[date]:
                    wrong.append(f"{date}: whole")
            elif kind == "list":
                os.listdir(f"{point}/{FOLDER}")
                harness.attr(point, "cache.bytes")
                harness.attr(path, "cache.state")
            else:
                number = rng.randrange(1 << 30)
                what = f"{point}/spot/klines/NO{number}/1m/2024-01-01.csv"
                if harness.errno_of(os.stat, what) is None:
                    wrong.append(f"NO{number} is there")
            done[kind] += 1
        except OSError as e:
            what = (kind, errno.errorcode.get(e.errno, str(e.errno)))
            refused[what] = refused.get(what, 0) + 1
    return done, refused, wrong


def sample(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        status = dict(line.split(":", 1) for line in f)
    return (
        int(status["VmRSS"].split()[0]),
        len(os.listdir(f"/proc/{pid}/fd")),
        int(status["Threads"]),
    )


def flat(values, slack):
    """Is the last quarter where the second was? (The first warms up.)"""
    quarter = max(1, len(values) // 4)
    before = statistics.median(values[quarter : 2 * quarter])
    after = statistics.median(values[-quarter:])
    return after <= before * 1.05 + slack, before, after


def soak(t, seconds):
    tree = Tree(t.folder("origin"))
    csvs = {
        date: versions(tree, date, day)
        for day in range(1, 29)
        for date in [f"2024-01-{day:02}"]
    }
    origin = t.origin()
    origin.rules(
        {"probability": 0.01, "status": 503},
        {"kind": "object", "key": "*.zip", "cut_after": 200000,
         "probability": 0.05},
    )
    # The catalog counts, too: of 48M its log takes 4 and the ledger, which gets
    # 80,000 lines in an hour, 5.
    m = t.mount(origin, quota="48M", memory="32M", listing_ttl="20s",
                revalidate="10s", negative_ttl="5s", log_level="warn",
                integrity="lenient")
    jobs = [
        t.job(work, m.point, csvs, f"soak {i}", seconds)
        for i in range(READERS)
    ]
    samples = []
    rng = random.Random(9)
    begin = time.monotonic()
    turned = 0
    while time.monotonic() - begin < seconds:
        time.sleep(seconds / SAMPLES)
        samples.append(sample(m.process.pid))
        date = rng.choice(sorted(csvs))
        turned += 1
        tree.klines(date, csvs[date][turned % 2])
        assert m.process.poll() is None, "the daemon ended"
    total = {}
    refused = {}
    wrong = []
    for job in jobs:
        done, no, words = job.result(120)
        wrong += words
        for sums, counts in ((total, done), (refused, no)):
            for what, count in counts.items():
                sums[what] = sums.get(what, 0) + count
    return report(m, samples, total, refused, wrong, turned, seconds)


def report(m, samples, total, refused, wrong, turned, seconds):
    rss, descriptors, threads = zip(*samples)
    # No reason is known for any of them to be refused.
    good = not wrong and total["whole"] > 0 and not refused
    print(f"# {seconds} s, {READERS} readers, "
          + ", ".join(f"{n} {kind}" for kind, n in total.items())
          + f", {turned} archives republished")
    for (kind, name), count in sorted(refused.items()):
        print(f"# {kind}: {count} times {name}")
    for name in ("cache.evictions", "cache.hit_rate", "fetch.requests",
                 "fetch.retries", "fetch.resumes", "read.bytes"):
        print(f"# {name} {harness.attr(m.point, name)}")
    for name, values, slack in (
        ("RSS in KiB", rss, 4096),
        ("descriptors", descriptors, 8),
        ("threads", threads, 1),
    ):
        even, before, after = flat(values, slack)
        good = good and even
        print(f"# {name}: {min(values)} to {max(values)}; second quarter "
              f"{before}, last quarter {after}: "
              + ("flat" if even else "GROWS"))
    for words in wrong[:10]:
        print(f"# wrong: {words}")
    return good


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 3600
    tmp = os.path.realpath(tempfile.mkdtemp(prefix="tickfs-soak."))
    t = harness.Bench(tmp)
    good = False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        good = soak(t, seconds)
        t.close()
    except Exception as e:
        good = False
        print("# " + harness.report(e).replace("\n", "\n# "))
    finally:
        harness.end_all(tmp)
        if not harness.mounts_below(tmp):
            shutil.rmtree(tmp, ignore_errors=True)
    print(("ok" if good else "not ok") + f" - {seconds} s of mixed load")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
