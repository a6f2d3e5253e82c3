"""Rows about requests that carry few bytes: names, attributes, listings."""

import contextlib
import os
import shutil
import statistics

import archives
import data
import harness
from measure import quantile, ratio, Result, row, side_by_side, skipped
from session import PASSTHROUGH, PROBE

ATTRIBUTE = "user.tickfs.cache.state"
VALUE = "verified"
LOAD_KEYS = [
    f"data/spot/monthly/trades/LOADUSDT/LOADUSDT-trades-20{year}-01.zip"
    for year in range(10, 40)
]
# A run takes a fifth of a second, and by which processor a thread is woken makes
# as much of a difference as what is compared.
RUNS_FACTOR = 3
# How often each file is asked: a round takes 30 ms, in which a load that goes up
# and down within a second is either there or not. What the first question about
# a file costs is seen without one.
ROUNDS = {"idle": 1, "busy": 20}
# Of each of the ranges in which a large archive comes at once, four of them.
LOAD_BYTES_PER_SECOND = 5_000_000


def opened_days(s):
    """The mount with the first days of a folder cached; their names."""
    keys = s.data.days()[: s.sizes.small]
    m = s.warm()
    names = [archives.csv_name(key) for key in keys]
    folder = m / data.DAYS
    s.output(
        "xargs",
        "-P8",
        "-n20",
        "cat",
        text="".join(f"{folder}/{name}\n" for name in names).encode(),
    )
    return m, names


def check_small(s):
    m, names = opened_days(s)
    folder = s.data.extracted_days(ATTRIBUTE, VALUE.encode())
    text = "".join(name + "\n" for name in names).encode()
    s.drop_names()
    s.probe("opens", m / data.DAYS, text=text)
    for name in names:
        path = m / f"{data.DAYS}/{name}"
        s.output("cmp", path, os.path.join(folder, name))
    first = m / f"{data.DAYS}/{names[0]}"
    value = s.output("getfattr", "--only-values", "-n", ATTRIBUTE, first)
    assert value == VALUE.encode(), value


@contextlib.contextmanager
def busy(s, m):
    """Downloads, one after the other, and two decodes in a mount's daemon."""
    big = s.data.zip(s.data.big(0))
    for key in LOAD_KEYS:
        path = s.data.zip(key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.exists(path):
            os.link(big, path)
            s.data.tree.checksum(key)
    origin = s.origin_of_data()
    origin.rules({"key": "*LOADUSDT*.zip", "throttle": LOAD_BYTES_PER_SECOND})
    burns = [[PROBE, "burn", m.csv(s.data.big(n))] for n in (0, 1)]
    try:
        with s.running(*burns, ["cat", *(m / key for key in LOAD_KEYS)]):
            yield
    finally:
        origin.rules()


@row("small", check_small)
def small(s):
    calls = {
        "lookup, getattr, open, close": lambda load: ("opens",),
        "getxattr": lambda load: ("xattrs", ATTRIBUTE, ROUNDS[load]),
    }
    if not os.path.exists(PASSTHROUGH):
        for call in calls:
            yield skipped(call, "no passthrough_ll.c in libfuse3-dev")
        return
    if not s.drop_names():
        for call in calls:
            yield skipped(call, "only root makes the kernel forget names")
        return
    source = s.data.extracted_days(ATTRIBUTE, VALUE.encode())
    m, names = opened_days(s)
    other = s.passthrough(source)
    text = "".join(name + "\n" for name in names).encode()
    for load in ("idle", "busy"):
        with busy(s, m) if load == "busy" else contextlib.nullcontext():
            for call, probe in calls.items():
                folders = m / data.DAYS, other.point
                yield from small_lines(
                    s, f"{call}, {load}", probe(load), *folders, text
                )
    s.done_with(other)


def small_lines(s, what, probe, ours, theirs, text):
    def side(folder):
        def measure():
            s.drop_names()
            lines = s.probe(probe[0], folder, *probe[1:], text=text)
            return [int(line) / 1e3 for line in lines.split()]

        return measure

    runs = RUNS_FACTOR * s.sizes.runs
    a, b = side_by_side(runs, side(ours), side(theirs))
    for name, pick, target in (
        ("median", statistics.median, "<= 1.3"),
        ("p99", lambda v: quantile(v, 0.99), None),
    ):
        x, y = [pick(v) for v in a], [pick(v) for v in b]
        yield ratio(
            f"{what}: {name} / passthrough_ll", x, y, target, x, y, "µs"
        )


# ---- folders ----


def check_folders(s):
    m = s.warm()
    folder = m / "spot/klines/DAYSUSDT/1d"
    want = sorted(
        os.path.basename(key)[len("DAYSUSDT-1d-") : -4] + ".csv"
        for key in s.data.days()
    )
    assert s.output("ls", folder).decode().split() == want
    for line in s.output("ls", "-l", folder).decode().splitlines()[1:]:
        assert int(line.split()[4]) > 0, line


@row("folders", check_folders)
def folders(s):
    s.data.days()
    m = s.warm()
    folder = m / "spot/klines/DAYSUSDT/1d"
    s.output("ls", "-l", folder)
    for command, target in ((["ls"], "<= 30"), (["ls", "-l"], "<= 80")):
        what = f"{' '.join(command)} of {s.sizes.days} days"
        runs = 2 * s.sizes.runs + 1
        if s.drop_names():
            values = []
            for _ in range(runs):
                s.drop_names()
                values.append(1e3 * s.timed(*command, folder))
            yield Result(what + ", new to the kernel", "ms", values, target)
        yield Result(
            what + ", again",
            "ms",
            [1e3 * s.timed(*command, folder) for _ in range(runs)],
            target,
        )


# ---- the start ----


def check_start(s):
    cache = shutil.copytree(s.data.known(), s.file("cache-known"))
    os.chmod(cache, 0o700)
    m = s.tickfs("known", offline=True)
    names = s.output("ls", m / "data/spot/daily/klines/K000000USDT/1m")
    listed = min(1000, s.sizes.known)
    # Each zip has its CSV beside it.
    assert len(names.split()) == 2 * listed, len(names.split())
    s.done_with(m)


@row("start", check_start)
def start(s):
    known = shutil.copytree(s.data.known(), s.file("cache-known"))
    os.chmod(known, 0o700)
    m = s.tickfs("known", offline=True)
    none = s.folder("cache-none")
    os.chmod(none, 0o700)
    m.unmount()

    def foreground(cache):
        m.options["cache"] = cache
        process, seconds = s.ready_after(m.command(), m.point)
        m.process = process
        rss = m.memory("VmRSS")
        m.unmount()
        return 1e3 * seconds, rss / 2**20

    def background(cache):
        m.options["cache"] = cache
        seconds = s.timed(*(word for word in m.command() if word != "-f"))
        pid = int(harness.read_text(os.path.join(cache, "lock")))
        s.note(pid)
        harness.unmount(m.point)
        harness.wait_until(lambda: not harness.start_time(pid), "the end")
        return 1e3 * seconds

    with_known, without = side_by_side(
        s.sizes.runs, lambda: foreground(known), lambda: foreground(none)
    )
    yield Result(
        f"start, {s.sizes.known:,} objects known, until it answers",
        "ms",
        [ms for ms, _ in with_known],
        "<= 200",
    )
    yield Result(
        "start, nothing known, until it answers",
        "ms",
        [ms for ms, _ in without],
    )
    yield Result(
        "start: memory more than with nothing known",
        "MiB",
        [a[1] - b[1] for a, b in zip(with_known, without)],
        "<= 16",
    )
    yield Result(
        f"start in the background, {s.sizes.known:,} objects known",
        "ms",
        [background(known) for _ in range(s.sizes.runs)],
        "<= 200",
    )
    s.mounts.remove(m)
    shutil.rmtree(known)
