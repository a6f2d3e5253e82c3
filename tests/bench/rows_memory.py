"""Rows about how much memory the daemon takes at most."""

from measure import Result, row

MIB = 2**20
LIMIT = "<= 160"
CROWD_READS = 40


def check_memory(s):
    m = s.tickfs("memory", memory="64M")
    keys = s.data.many()
    pairs = [f"{m.csv(key)}={s.data.plain(key)}" for key in keys]
    s.probe("random", 10, 1, *pairs)
    for _, key in s.data.growing():
        s.output("cmp", m.csv(key), s.data.plain(key))
    s.done_with(m)


@row("memory", check_memory)
def memory(s):
    keys, growing = s.data.many(), s.data.growing()
    m = s.tickfs("memory", memory="64M")
    for key in keys + [key for _, key in growing]:
        s.output("head", "-c1", m.csv(key))
    yield Result(
        f"peak memory of admitting {len(keys) + len(growing)} archives",
        "MiB",
        [m.memory("VmHWM") / MIB],
    )
    yield from crowd(s, m, keys)
    yield from one_reader(s, m, growing)
    s.done_with(m)


def crowd(s, m, keys):
    peaks = []
    for seed in range(s.sizes.runs):
        m.remount()
        s.probe("random", CROWD_READS, seed, *map(m.csv, keys))
        peaks.append(m.memory("VmHWM") / MIB)
    yield Result(
        f"peak memory, {len(keys)} readers of {len(keys)} members of "
        f"{s.sizes.many_bytes // 10**6} MB, at random",
        "MiB",
        peaks,
        LIMIT,
    )


def one_reader(s, m, growing):
    """Sequential and at random, of members of growing size, in turn."""
    peaks = {size: [] for size, _ in growing}
    for seed in range(s.sizes.runs):
        for size, key in growing:
            m.remount()
            s.timed("cat", m.csv(key))
            # Else a small member is read from the kernel's cache.
            s.drop(m.csv(key))
            s.probe("random", CROWD_READS, seed, m.csv(key))
            peaks[size].append(m.memory("VmHWM") / MIB)
    for size, values in peaks.items():
        yield Result(
            f"peak memory, one reader of {name_of(size)}",
            "MiB",
            values,
            LIMIT,
        )
    s.curves["memory"] = [(size, max(values)) for size, values in peaks.items()]
    largest = growing[-1][0]
    middle = max(size for size in peaks if size <= 10**9)
    yield Result(
        f"peak memory, {name_of(largest)} / {name_of(middle)}",
        "×",
        [large / less for large, less in zip(peaks[largest], peaks[middle])],
        "<= 1.1",
    )


def name_of(size):
    if size % 2**30 == 0:
        return f"{size // 2**30} GiB"
    return f"{size // 10**6} MB"
