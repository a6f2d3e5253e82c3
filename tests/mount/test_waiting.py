"""The rule of design section 2: a wait for one file never delays another."""

import os
import signal
import subprocess
import time

from archives import Tree, klines_key, rows
from harness import (
    BUILD,
    SANITIZED,
    alone,
    attr,
    drop_page_cache,
    limit,
    read,
    read_text,
    sha256,
    smoke,
    wait_until,
)

FOLDER = "spot/klines/BTCUSDT/1m"
READY = "2024-01-01"
# The issue's own bound; sanitizers slow everything down by their own factor.
BOUND = 1.0 if SANITIZED else 0.1
# Enough where what waited for the origin would not end at all.
HELD_BOUND = 10 * BOUND


def day(i):
    return f"2023-{1 + i // 28:02}-{1 + i % 28:02}"


def slow_folder(t, count, csv_of=lambda i: rows(3, i), **options):
    """A mount whose folder holds one cached file and many that never come."""
    tree = Tree(t.folder("origin"))
    ready = rows(30000, 1)
    tree.klines(READY, ready)
    csvs = [tree.klines(day(i), csv_of(i)) for i in range(count)]
    origin = t.origin()
    m = t.mount(origin, **options)
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


def each_within_bound(m, ready, bound=BOUND):
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
    assert max(took.values()) < bound, took


@alone
@smoke
@limit(120)
def test_waiting__getattr_opendir_and_256_opens_delay_nobody(t):
    count = 256
    origin, m, ready, csvs = slow_folder(t, count + 1)
    # Sizes of all but the last first, so that what waits is OPEN itself. That
    # one's does not come, also not where it is asked for with the others.
    last = klines_key(day(count))
    origin.rules({"kind": ["object", "range"], "key": last, "hold": "all"})
    paths = [m / f"{FOLDER}/{day(i)}.csv" for i in range(count + 1)]
    for path, csv in zip(paths[:count], csvs):
        assert os.stat(path).st_size == len(csv)
    os.listdir(m / FOLDER)
    origin.rules({"kind": ["object", "range", "list"], "hold": "all"})
    jobs = [t.job(open_and_read, path) for path in paths[:count]]
    # In the very folder, and of the one above it, which was not listed yet.
    getattr_job = t.job(os.stat, paths[count])
    opendir_job = t.job(os.listdir, m / os.path.dirname(FOLDER))
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
    assert getattr_job.result().st_size == len(csvs[count])
    assert opendir_job.result() == ["1m"]


def damage(m, date):
    """Half of the bytes of a cached archive, where it lies."""
    path = f"{m.cache}/objects/{klines_key(date)}"
    with open(path, "r+b", buffering=0) as f:
        size = os.fstat(f.fileno()).st_size
        f.seek(size // 4)
        f.write(bytes(size // 2))


def open_undecoded(m, origin, paths):
    """Handles on cached files, of which nothing is in memory; the origin gives
    no archive any more."""
    for path in paths:
        read(path)
    os.listdir(m / FOLDER)
    m.remount()
    handles = [os.open(path, os.O_RDONLY) for path in paths]
    origin.rules({"kind": ["object", "range"], "hold": "all"})
    return handles


@alone
@smoke
@limit(120)
def test_waiting__64_reads_delay_no_ready_file(t):
    """READs of open files wait for the origin where the cached bytes turn out
    to be damaged, and it gives them again."""
    count = 64
    origin, m, ready, csvs = slow_folder(t, count, lambda i: rows(3000, i))
    paths = [m / f"{FOLDER}/{day(i)}.csv" for i in range(count)]
    handles = open_undecoded(m, origin, paths)
    for i in range(count):
        damage(m, day(i))

    def wait_for_bytes(i):
        os.posix_fadvise(handles[i], 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(handles[i], 100000, len(csvs[i]) // 2)

    jobs = [t.job(wait_for_bytes, i) for i in range(count)]
    origin.wait_held(1)
    time.sleep(1)  # long enough for every one of them to be parked
    for _ in range(5):
        each_within_bound(m, ready)
    assert not any(job.done() for job in jobs)
    origin.rules()
    origin.release("all")
    for job, csv in zip(jobs, csvs):
        half = len(csv) // 2
        assert job.result(60) == csv[half : half + 100000]
    for handle in handles:
        os.close(handle)


class HeldDisk:
    """Under the cache; from begin() on each sync waits to be let go."""

    def __init__(self, t):
        self.gate = t.file("gate")
        self.log = t.file("syncs")
        self.passed = 0
        self.environment = {
            "LD_PRELOAD": os.path.join(BUILD, "holdsync.so"),
            "HOLDSYNC_ROOT": t.folder("cache"),
            "HOLDSYNC_GATE": self.gate,
            "HOLDSYNC_LOG": self.log,
        }

    def let(self, count):
        """The first so many, all others wait."""
        self.passed = count
        with open(self.gate + ".new", "w", encoding="ascii") as f:
            f.write(str(count))
        os.rename(self.gate + ".new", self.gate)

    def begin(self):
        self.let(0)

    def end(self):
        os.unlink(self.gate)

    def begun(self):
        """Paths; which of them wait is a matter of let()."""
        return [
            line.split(" ", 2)[2]
            for line in read_text(self.log).splitlines()
            if line.startswith("begin ")
        ]


def at_each_sync(t, m, ready, disk, jobs):
    """While there are jobs, let one sync go after the other and see at each
    that it holds up nobody else. What waits for the disk waits in every try,
    what waits for a processor does not."""

    def some_sync_or_the_end():
        waits = len(disk.begun()) > disk.passed
        return waits or all(job.done() for job in jobs)

    while True:
        wait_until(some_sync_or_the_end, "a sync")
        if all(job.done() for job in jobs):
            return
        for tries_left in (2, 1, 0):
            try:
                t.job(each_within_bound, m, ready).result(HELD_BOUND)
                break
            except AssertionError:
                if not tries_left:
                    raise
        disk.let(disk.passed + 1)


@alone
@smoke
@limit(120)
def test_waiting__syncs_of_downloads_delay_nobody(t):
    count = 6  # more than there are threads of one kind on two processors
    disk = HeldDisk(t)
    _, m, ready, csvs = slow_folder(
        t, count, lambda i: rows(3000, i), environment=disk.environment
    )
    paths = [m / f"{FOLDER}/{day(i)}.csv" for i in range(count)]
    os.listdir(m / FOLDER)
    m.remount()  # what is cached has to be found again, by the catalog
    disk.begin()
    jobs = [t.job(open_and_read, path) for path in paths]
    at_each_sync(t, m, ready, disk, jobs)
    disk.end()
    for job, csv in zip(jobs, csvs):
        assert job.result() == sha256(csv)
    # The catalog's log, what was downloaded, its index, and their folders.
    begun = disk.begun()
    for what in ("-wal", ".zip.partial", ".zip.index.tmp", ".CHECKSUM.put",
                 "/staging", f"/objects/{os.path.dirname(klines_key(day(0)))}"):
        assert any(path.endswith(what) for path in begun), (what, begun)
    assert len(begun) > 8 * count, begun


@alone
@limit(120)
def test_waiting__64_readers_at_cold_offsets_leave_decoders_for_others(t):
    """Keep all decoders busy, with more than the pool can hold, and read a
    ready file."""
    count = 64
    _, m, ready, _ = slow_folder(
        t, 8, lambda i: rows(40000, i), memory="16M", prefill="off"
    )
    paths = [m / f"{FOLDER}/{day(i)}.csv" for i in range(8)]
    for path in paths:
        read(path)

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
    decoded = int(attr(m.point, "pool.decoded_bytes"))
    jobs = [t.job(churn, i) for i in range(count)]
    time.sleep(0.5)
    took = []
    while not took or not jobs[-1].done():
        drop_page_cache(warm)
        begin = time.monotonic()
        with open(warm, "rb", buffering=0) as f:
            assert f.read(4096) == ready[:4096]
        took.append(time.monotonic() - begin)
        time.sleep(0.05)
    for job in jobs:
        job.result()
    # Not BOUND: nothing here waits for another file, but all of it wants the
    # processors, and on two of them 64 others that never rest get their share.
    assert max(took) < BOUND * 5, took
    # They did keep the decoders busy: more than the pool holds, many times.
    decoded = int(attr(m.point, "pool.decoded_bytes")) - decoded
    assert decoded > 256 << 20, decoded


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


def end_by_signals(m, origin, ready, jobs):
    """Of two that wait for what is held at the gate "all", each is ended by a
    signal, disturbs nobody, and leaves a mount that can be unmounted even
    then."""
    origin.wait_held(1)
    time.sleep(0.2)
    assert not any(job.done() for job in jobs)
    for number, job in zip((signal.SIGKILL, signal.SIGINT), jobs, strict=True):
        assert job.kill(number) < 0.5
        each_within_bound(m, ready, HELD_BOUND)
    assert origin.held()
    m.unmount()
    origin.rules()
    origin.release("all")
    m.start()


@alone
@smoke
def test_waiting__signals_end_a_stat_that_waits_for_a_size(t):
    origin, m, ready, csvs = slow_folder(t, 2)
    paths = [m / f"{FOLDER}/{day(i)}.csv" for i in range(2)]
    os.listdir(m / FOLDER)
    origin.rules({"kind": "range", "hold": "all"})
    end_by_signals(m, origin, ready, [t.job(os.stat, p) for p in paths])
    for path, csv in zip(paths, csvs):
        assert os.stat(path).st_size == len(csv)


@alone
@smoke
def test_waiting__signals_end_a_readdir_that_waits_for_a_listing(t):
    origin, m, ready, _ = slow_folder(t, 1)
    os.listdir(m / FOLDER)
    folder = m / "spot/klines"
    origin.rules({"kind": "list", "hold": "all"})
    end_by_signals(
        m, origin, ready, [t.job(os.listdir, folder) for _ in range(2)]
    )
    assert os.listdir(folder) == ["BTCUSDT"]


@alone
@smoke
def test_waiting__signals_end_a_read_that_waits_for_a_second_copy(t):
    origin, m, ready, csvs = slow_folder(t, 2, lambda i: rows(3000, i))
    paths = [m / f"{FOLDER}/{day(i)}.csv" for i in range(2)]
    handles = open_undecoded(m, origin, paths)
    jobs = []
    for i, handle in enumerate(handles):
        damage(m, day(i))
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        jobs.append(t.job(os.pread, handle, 100000, len(csvs[i]) // 2))
    for handle in handles:
        os.close(handle)  # the jobs have theirs
    end_by_signals(m, origin, ready, jobs)
    assert [read(path) for path in paths] == csvs


@alone
@smoke
def test_waiting__access_delays_nobody(t):
    origin, m, ready, _ = slow_folder(t, 1)
    Tree(origin.root).add("data/futures/um/daily/metrics/BTCUSDT/"
                          f"BTCUSDT-metrics-{READY}.zip")
    os.listdir(m / FOLDER)
    origin.rules({"kind": ["list", "range"], "hold": "all"})
    folder = m / "um/metrics/BTCUSDT"
    jobs = [
        t.job(os.access, folder, os.R_OK | os.X_OK),
        t.job(os.access, f"{folder}/{READY}.csv", os.R_OK),
        t.job(os.access, f"{folder}/{day(0)}.csv", os.R_OK),
    ]
    origin.wait_held(1)
    time.sleep(0.2)
    each_within_bound(m, ready, HELD_BOUND)
    assert not any(job.done() for job in jobs)
    origin.rules()
    origin.release("all")
    assert [job.result() for job in jobs] == [True, True, False]


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


@alone
def test_waiting__nothing_is_answered_into_another_file(t):
    """An answer that comes while the mount ends goes nowhere."""
    other = t.file("other")
    origin, m, _, _ = slow_folder(t, 1, environment={
        "LD_PRELOAD": os.path.join(BUILD, "reusefd.so"),
        "REUSEFD_PATH": other,
        "REUSEFD_MS": "1500",
    })
    origin.rules(
        {"kind": "object", "key": klines_key(day(0)), "hold": "zip"}
    )
    job = t.job(open_and_read, m / f"{FOLDER}/{day(0)}.csv")
    origin.wait_held(1)
    m.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    origin.release("zip")
    assert m.process.wait(15) == 0
    m.process = None
    assert job.error() is not None
    assert os.path.getsize(other) == 0
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
