"""The rule of design section 2: a wait for one file never delays another."""

import os
import signal
import subprocess
import time

from archives import Tree, klines_key, rows
from harness import (
    SANITIZED,
    alone,
    attr,
    drop_page_cache,
    limit,
    read,
    sha256,
    smoke,
    wait_until,
)

FOLDER = "spot/klines/BTCUSDT/1m"
READY = "2024-01-01"
# The issue's own bound; sanitizers slow everything down by their own factor.
BOUND = 1.0 if SANITIZED else 0.1


def day(i):
    return f"2023-{1 + i // 28:02}-{1 + i % 28:02}"


def slow_folder(t, count, csv_of=lambda i: rows(3, i)):
    """A mount whose folder holds one cached file and many that never come."""
    tree = Tree(t.folder("origin"))
    ready = rows(30000, 1)
    tree.klines(READY, ready)
    csvs = [tree.klines(day(i), csv_of(i)) for i in range(count)]
    origin = t.origin()
    m = t.mount(origin)
    assert read(m / f"{FOLDER}/{READY}.csv") == ready
    return origin, m, ready, csvs


def open_and_read(path):
    return sha256(read(path))


def fresh_name(m):
    """The kernel keeps what it looked up; so look up what it has not."""
    path = m / f"{FOLDER}/{READY}.csv"
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("2\n")
    return path


def each_within_bound(m, ready):
    path = m / f"{FOLDER}/{READY}.csv"
    drop_page_cache(path)
    if os.geteuid() == 0:
        fresh_name(m)
    begin = time.monotonic()
    size = os.stat(path).st_size
    looked_up = time.monotonic()
    fd = os.open(path, os.O_RDONLY)
    got = os.pread(fd, 100000, 500000)
    have_read = time.monotonic()
    state = attr(path, "cache.state")
    have_attr = time.monotonic()
    os.close(fd)
    names = os.listdir(m / FOLDER)
    have_listed = time.monotonic()
    assert size == len(ready)
    assert got == ready[500000:600000]
    assert state == "verified"
    assert f"{READY}.csv" in names
    took = {
        "stat": looked_up - begin,
        "read": have_read - looked_up,
        "getxattr": have_attr - have_read,
        "readdir": have_listed - have_attr,
    }
    assert max(took.values()) < BOUND, took


@alone
@smoke
@limit(120)
def test_waiting__getattr_opendir_and_256_opens_delay_nobody(t):
    count = 256
    origin, m, ready, csvs = slow_folder(t, count + 1)
    Tree(t.file("origin")).klines("2024-01-01", symbol="ETHUSDT")
    # Sizes of all but the last first, so that what waits is OPEN itself.
    paths = [m / f"{FOLDER}/{day(i)}.csv" for i in range(count + 1)]
    for path, csv in zip(paths[:count], csvs):
        assert os.stat(path).st_size == len(csv)
    os.listdir(m / FOLDER)
    origin.rules({"kind": ["object", "range", "list"], "hold": "all"})
    late = m / "data/spot/monthly/klines/XRPUSDT/1m/XRPUSDT-1m-2020-01.csv"
    jobs = [t.job(open_and_read, path) for path in paths[:count]]
    getattr_job = t.job(os.stat, late)
    opendir_job = t.job(os.listdir, m / "um/klines")
    origin.wait_held(1)
    time.sleep(1)  # long enough for every one of them to be parked
    assert not any(job.done() for job in jobs)
    for _ in range(5):
        each_within_bound(m, ready)
    assert not any(job.done() for job in jobs)
    assert not getattr_job.done() and not opendir_job.done()
    origin.rules()
    origin.release("all")
    for job, csv in zip(jobs, csvs):
        assert job.result(60) == sha256(csv)
    assert getattr_job.error() == "ENOENT"
    assert opendir_job.error() in (None, "ENOENT")


@alone
@limit(120)
def test_waiting__64_reads_delay_no_ready_file(t):
    """serve=early comes later; so reads wait for decoding only. Keep all
    decoders busy with 64 readers at cold offsets and read a warm file."""
    count = 64
    big = rows(40000, 99)
    origin, m, ready, _ = slow_folder(t, 8, lambda i: rows(40000, i))
    paths = [m / f"{FOLDER}/{day(i)}.csv" for i in range(8)]
    for path in paths:
        read(path)
    assert len(big) > 4 << 20

    def churn(number):
        path = paths[number % 8]
        end = time.monotonic() + 4
        fd = os.open(path, os.O_RDONLY)
        size = os.fstat(fd).st_size
        off = number * 131072
        while time.monotonic() < end:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(fd, 131072, off % size)
            off += 1 << 20
        os.close(fd)

    warm = m / f"{FOLDER}/{READY}.csv"
    read(warm)
    jobs = [t.job(churn, i) for i in range(count)]
    time.sleep(0.5)
    slowest = 0
    while not jobs[0].done():
        begin = time.monotonic()
        with open(warm, "rb", buffering=0) as f:
            f.read(4096)
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.05)
    for job in jobs:
        job.result()
    # 64 processes on two cores: the scheduler alone takes its share.
    assert slowest < BOUND * 5, slowest


def waiting_reader(t, m, origin, held):
    """`cat` on a file that does not come, and the proof that it waits."""
    process = subprocess.Popen(
        ["cat", m / f"{FOLDER}/{day(0)}.csv"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    t.note(process.pid)
    origin.wait_held(held)
    time.sleep(0.2)
    assert process.poll() is None
    return process


@alone
@smoke
def test_waiting__kill_and_ctrl_c_end_a_waiting_reader_at_once(t):
    origin, m, ready, csvs = slow_folder(t, 1)
    os.stat(m / f"{FOLDER}/{day(0)}.csv")
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        key = klines_key(day(0))
        gate = f"zip {number}"
        origin.rules({"kind": "object", "key": key, "hold": gate})
        process = waiting_reader(t, m, origin, 1)
        begin = time.monotonic()
        process.send_signal(number)
        process.wait(10)
        assert time.monotonic() - begin < 0.5
        assert process.returncode == -number
        each_within_bound(m, ready)
        origin.rules()
        origin.release(gate)
        wait_until(lambda: not origin.held(), "nothing held")
    # None of this harmed the file.
    assert read(m / f"{FOLDER}/{day(0)}.csv") == csvs[0]


@alone
@smoke
def test_waiting__one_gives_up_the_other_gets_the_file(t):
    origin, m, _, csvs = slow_folder(t, 1)
    path = m / f"{FOLDER}/{day(0)}.csv"
    key = klines_key(day(0))
    origin.rules({"kind": "object", "key": key, "hold": "zip"})
    jobs = [t.job(open_and_read, path) for _ in range(3)]
    origin.wait_held(1)
    time.sleep(0.3)
    assert jobs[0].kill() < 0.5
    assert jobs[2].kill(signal.SIGINT) < 0.5
    origin.release("zip")
    assert jobs[1].result() == sha256(csvs[0])
    assert origin.requests("object", key) == 1


@alone
@smoke
def test_waiting__unmount_ends_who_waits(t):
    origin, m, _, _ = slow_folder(t, 1)
    path = m / f"{FOLDER}/{day(0)}.csv"
    key = klines_key(day(0))
    origin.rules({"kind": "object", "key": key, "hold": "zip"})
    job = t.job(open_and_read, path)
    origin.wait_held(1)
    begin = time.monotonic()
    m.process.send_signal(signal.SIGTERM)
    assert m.process.wait(15) == 0
    assert time.monotonic() - begin < 10
    m.process = None
    assert job.error() is not None
    m.check_sanitizers()


def test_waiting__progress_is_in_attributes_and_log(t):
    csv = rows(60000, 5)
    tree = Tree(t.folder("origin"))
    tree.klines(READY, csv)
    key = klines_key(READY)
    total = os.path.getsize(tree.path(key))
    origin = t.origin()
    half = total // 2
    origin.rules(
        {"kind": "object", "key": key, "hold": "zip", "hold_after": half}
    )
    m = t.mount(origin)
    path = m / f"{FOLDER}/{READY}.csv"
    assert attr(path, "cache.state") == "absent"
    job = t.job(open_and_read, path)
    origin.wait_held(1)
    wait_until(
        lambda: int(attr(path, "fetch.bytes_done")) >= half // 2, "progress"
    )
    assert int(attr(path, "fetch.bytes_done")) <= half
    assert int(attr(path, "fetch.bytes_total")) == total
    time.sleep(5.5)  # the log speaks every 5 s
    waiting = [
        e for e in m.events() if e["context"].get("key") == key
        and "wait" in e["message"]
    ]
    assert waiting, sorted({e["message"] for e in m.events()})
    origin.release("zip")
    assert job.result() == sha256(csv)
    assert attr(path, "cache.state") == "verified"
