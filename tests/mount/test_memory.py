"""What the kernel and the daemon remember stays bounded."""

import os
import time

from archives import Tree, rows
from harness import Skip, attr, errno_of, limit, read, smoke, wait_until

FOLDER = "spot/klines/BTCUSDT/1m"
DATE = "2024-01-01"


def kernel_can_drop():
    release = os.uname().release.split("-")[0].split(".")
    return [int(n) for n in release[:2]] >= [6, 18]


def mounted(t, **options):
    if not kernel_can_drop():
        raise Skip("the kernel (before 6.18) can't be asked to drop names")
    Tree(t.folder("origin")).klines(DATE, rows(3, 1))
    return t.mount(t.origin(), log_level="info", **options)


def inodes(m):
    return int(attr(m.point, "process.inodes"))


@smoke
@limit(120)
def test_memory__absent_names_are_dropped(t):
    m = mounted(t)
    path = m / f"{FOLDER}/{DATE}.csv"
    os.stat(path)
    before = inodes(m)
    for i in range(3000):
        what = (
            m / f"spot/klines/NO{i}/1m/{DATE}.csv",
            m / f"data/spot/daily/klines/NO{i}/1m/NO{i}-1m-{DATE}.zip",
            m / f"um/NO{i}/BTCUSDT",
        )[i % 3]
        assert errno_of(os.stat, what) == "ENOENT"
    wait_until(lambda: inodes(m) < before + 10, "names dropped")
    # What exists is there still, and what does not can be asked again.
    os.stat(path)
    assert errno_of(os.stat, m / f"spot/klines/NO0/1m/{DATE}.csv") == "ENOENT"


@limit(120)
def test_memory__a_name_in_use_is_not_dropped(t):
    m = mounted(t)
    fd = os.open(m / f"spot/klines/NO/1m/{DATE}.csv", os.O_PATH)
    try:
        for _ in range(3):
            assert errno_of(os.fstat, fd) == "ENOENT"
            time.sleep(0.4)
    finally:
        os.close(fd)


@limit(300)
def test_memory__limits_what_is_found_too(t):
    m = mounted(t, memory="16M")
    # data/ shows what the listing has; here it has 20,000 symbols.
    tree = Tree(t.file("origin"))
    for i in range(20000):
        tree.put(f"data/spot/daily/trades/S{i}/a.zip", b"")
    folder = m / "data/spot/daily/trades"
    names = os.listdir(folder)
    assert len(names) == 20000
    for name in names:
        os.stat(os.path.join(folder, name))
    wait_until(lambda: inodes(m) <= 16384, "names dropped")
    assert inodes(m) > 8192


def test_memory__limits_downloads_under_way(t):
    """One for each 4 MiB, but at least 4; the origin would be asked for six."""
    tree = Tree(t.folder("origin"))
    dates = [f"2024-01-{day:02}" for day in range(1, 9)]
    csvs = {date: tree.klines(date, rows(60, date)) for date in dates}
    origin = t.origin()
    for memory, most in (("8M", 4), ("64M", 6)):
        origin.rules({"kind": "object", "key": "*.zip", "hold": memory})
        m = t.mount(origin, name=f"m{memory}", cache=f"c{memory}",
                    memory=memory, prefill="off")
        paths = [m / f"{FOLDER}/{date}.csv" for date in dates]
        for path in paths:
            os.stat(path)
        jobs = [t.job(read, path) for path in paths]
        origin.wait_held(most)
        time.sleep(0.5)  # those without bytes for 2 s count no more
        assert origin.held() == most
        origin.release(memory)
        for job, date in zip(jobs, dates):
            assert job.result(10) == csvs[date]
