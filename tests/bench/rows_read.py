"""Rows about reading a verified archive: in order, at random, in patterns."""

import itertools
import os
import shutil
import statistics

from measure import quantile, ratio, Result, row, side_by_side, skipped
from session import Other, PASSTHROUGH, PROBE

MB = 1e6
# Of a pattern's figure: the slowest tenth of the offsets over the median one.
FLAT = ">= 0.7"
INFORMATION_RUNS = 3
BLOCK = 128 << 10
STRIDE = 256 << 10


def speed(size, seconds):
    return [size / MB / s for s in seconds]


# ---- sequential ----


def check_sequential(s):
    m, key = s.warm(), s.data.big(0)
    for kib in (1024, 128):
        m.set_read_ahead(kib)
        s.drop(m.csv(key))
        s.output("cmp", m.csv(key), s.data.plain(key))


@row("sequential", check_sequential)
def sequential(s):
    m, key, packed = s.warm(), s.data.big(0), s.data.gzip(0)
    csv = m.csv(key)

    def ours():
        s.drop(csv)
        return s.timed("cat", csv)

    def theirs():
        return s.timed("igzip", "-dc", packed)

    s.warm_up(packed, s.data.zip(key))
    for kib, target in ((1024, "<= 1.0"), (128, "<= 1.2")):
        what = f"sequential, {kib} KiB requests: time / igzip -dc"
        if not m.set_read_ahead(kib):
            yield skipped(what, "read-ahead is root's to set", target)
            continue
        a, b = side_by_side(s.sizes.runs, ours, theirs)
        yield ratio(what, a, b, target, a, b)
    m.set_read_ahead(1024)
    yield from other_tools(s, key, ours)


def other_tools(s, key, ours):
    """What else there is to read a zip with: for information."""
    path = s.data.zip(key)
    name = os.path.basename(key)[:-4] + ".csv"

    def unzip():
        return s.timed("unzip", "-p", path)

    def fuse_zip():
        m = Other(s, "fuse-zip", "fuse-zip", "-f", "-r", path)
        try:
            return s.timed("cat", os.path.join(m.point, name))
        finally:
            m.unmount()

    for tool, theirs in (("unzip -p", unzip), ("fuse-zip", fuse_zip)):
        what = f"sequential: time / {tool}"
        if not shutil.which(tool.split()[0]):
            yield skipped(what, f"no {tool.split()[0]}")
            continue
        runs = min(s.sizes.runs, INFORMATION_RUNS)
        a, b = side_by_side(runs, ours, theirs)
        yield ratio(what, a, b, None, a, b)


def check_two(s):
    m, keys = s.warm(), [s.data.big(0), s.data.big(1)]
    s.drop(*map(m.csv, keys))
    s.timed_together(*(["cmp", m.csv(k), s.data.plain(k)] for k in keys))


@row("two", check_two)
def two(s):
    m, packed = s.warm(), s.data.gzip(0)
    keys = [s.data.big(0), s.data.big(1)]
    csvs = [m.csv(key) for key in keys]
    size = s.sizes.big_bytes

    def ours():
        s.drop(*csvs)
        return s.timed_together(*(["cat", csv] for csv in csvs))

    s.warm_up(packed, *map(s.data.zip, keys))
    a, b = side_by_side(
        s.sizes.runs, ours, lambda: s.timed("igzip", "-dc", packed)
    )
    both, one = speed(2 * size, a), speed(size, b)
    yield ratio(
        "two files at once: MB/s / one igzip -dc",
        both,
        one,
        ">= 1.3",
        both,
        one,
        "MB/s",
    )


# ---- again, from the kernel's cache ----


def check_again(s):
    m, key = s.warm(), s.data.big(0)
    for _ in range(2):
        s.output("cmp", m.csv(key), s.data.plain(key))


@row("again", check_again)
def again(s):
    m, key = s.warm(), s.data.big(0)
    csv, plain = m.csv(key), s.data.plain(key)
    s.warm_up(csv, plain)
    a, b = side_by_side(
        s.sizes.runs,
        lambda: s.timed("cat", csv),
        lambda: s.timed("cat", plain),
    )
    size = s.sizes.big_bytes
    ours, theirs = speed(size, a), speed(size, b)
    yield ratio(
        "second read: MB/s / cat of the extracted file",
        ours,
        theirs,
        ">= 0.8",
        ours,
        theirs,
        "MB/s",
    )
    yield from again_by_kernel(s, plain)


def again_by_kernel(s, plain):
    """The same through another FUSE file system, whose daemon does no more
    than open: what the kernel itself makes of it. For information."""
    what = "second read, passthrough_ll: MB/s / cat of the extracted file"
    if not os.path.exists(PASSTHROUGH):
        yield skipped(what, "no passthrough_ll.c in libfuse3-dev")
        return
    other = s.passthrough(os.path.dirname(plain), "cache=always")
    path = os.path.join(other.point, os.path.basename(plain))
    s.warm_up(path)
    a, b = side_by_side(
        s.sizes.runs,
        lambda: s.timed("cat", path),
        lambda: s.timed("cat", plain),
    )
    s.done_with(other)
    size = s.sizes.big_bytes
    a, b = speed(size, a), speed(size, b)
    yield ratio(what, a, b, None, a, b, "MB/s")


# ---- at random ----


def check_random(s):
    m, key = s.warm(), s.data.big(0)
    csv = m.csv(key)
    s.drop(csv)
    s.probe("random", s.sizes.random, 1, f"{csv}={s.data.plain(key)}")


def samples(text):
    """(reader, offset, bytes, seconds) of each read."""
    for line in text.splitlines():
        reader, off, size, ns = map(int, line.split())
        yield reader, off, size, ns / 1e9


def tenths(reads, size, value):
    """A value of the reads in each tenth of the offsets."""
    groups = [[] for _ in range(10)]
    for read in reads:
        groups[min(9, read[1] * 10 // size)].append(read)
    return [value(group) for group in groups]


@row("random", check_random)
def random(s):
    m, key = s.warm(), s.data.big(0)
    csv, size = m.csv(key), s.sizes.big_bytes
    runs = []
    s.warm_up(s.data.zip(key))
    for seed in range(s.sizes.runs):
        s.drop(csv)
        text = s.probe("random", s.sizes.random, seed, csv)
        runs.append(list(samples(text)))
    for q, target in ((0.5, "<= 0.8"), (0.99, "<= 2.5")):
        yield Result(
            f"random 4 KiB read, p{q * 100:.0f}",
            "ms",
            [1e3 * quantile([r[3] for r in run], q) for run in runs],
            target,
        )
    medians = tenths(
        itertools.chain(*runs),
        size,
        lambda reads: statistics.median(r[3] for r in reads),
    )
    yield Result(
        "random: slowest tenth of offsets / median tenth, by p50",
        "×",
        [statistics.median(medians) / max(medians)],
        FLAT,
    )
    s.curves["random"] = [4096 / MB / m for m in medians]


# ---- patterns ----

PATTERNS = {
    "forward": ("forward", BLOCK),
    "backward": ("backward", BLOCK),
    "strided": ("strided", 4096, STRIDE),
    "interleaved": ("interleaved", BLOCK),
    "threads": ("threads", BLOCK, 64),
}


def check_patterns(s):
    m, key = s.warm(), s.data.big(0)
    csv = m.csv(key)
    for pattern in PATTERNS.values():
        s.drop(csv)
        s.probe(*pattern, f"{csv}={s.data.plain(key)}")


def bytes_decoded(s, m, csv, pattern):
    """How many bytes one pass of a pattern inflates; None if the daemon does
    not say."""
    before = s.pool_stats(m)
    s.drop(csv)
    s.output(PROBE, *map(str, pattern), csv)
    after = s.pool_stats(m)
    if before is None or after is None:
        return None
    return after["decoded_bytes"] - before["decoded_bytes"]


@row("patterns", check_patterns)
def patterns(s):
    m, key = s.warm(), s.data.big(0)
    csv, size = m.csv(key), s.sizes.big_bytes
    s.warm_up(s.data.zip(key))
    for name, pattern in PATTERNS.items():
        runs = []
        for _ in range(s.sizes.runs):
            s.drop(csv)
            runs.append(list(samples(s.probe(*pattern, csv))))
        yield from pattern_lines(s, name, runs, size)
        decoded = bytes_decoded(s, m, csv, pattern)
        what = f"{name}: bytes inflated / bytes there are"
        if decoded is None:
            yield skipped(what, "the daemon does not say", "<= 1.1")
        else:
            yield Result(what, "×", [decoded / size], "<= 1.1")


def pattern_lines(s, name, runs, size):
    readers = len({read[0] for read in runs[0]})

    def total(reads):
        """Of all readers together, who read at once."""
        return readers * sum(r[2] for r in reads) / sum(r[3] for r in reads)

    yield Result(f"{name}: speed", "MB/s", [total(run) / MB for run in runs])
    by_run = [tenths(run, size, total) for run in runs]
    speeds = [statistics.median(tenth) for tenth in zip(*by_run)]
    yield Result(
        f"{name}: slowest tenth of offsets / median tenth",
        "×",
        [min(speeds) / statistics.median(speeds)],
        FLAT,
    )
    s.curves[name] = [speed / MB for speed in speeds]
