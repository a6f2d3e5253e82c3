"""Design section 2: exact sizes, any offset, every way to read a file."""

import hashlib
import mmap
import os
import random
import threading
import time
import zipfile
import zlib

from archives import (
    Compressor,
    Repeating,
    Tree,
    csv_name,
    klines_key,
    member,
    rows,
)
from harness import (
    SANITIZED,
    Skip,
    alone,
    attr,
    drop_page_cache,
    errno_of,
    limit,
    read,
    run,
    sha256,
    sha256_of,
    smoke,
    unzip,
    wait_until,
)

FOLDER = "spot/klines/BTCUSDT/1m"
DATE = "2024-01-01"
PATH = f"{FOLDER}/{DATE}.csv"


def one(t, csv, **how):
    """A mount with one archive; its path."""
    Tree(t.folder("origin")).klines(DATE, csv, **how)
    return t.mount(t.origin()) / PATH


def many_rows(count=40000, seed=1):
    """About 5 MB: several spans of a checkpoint index, many pieces."""
    return rows(count, seed)


def pread_all(path, ranges, reference):
    fd = os.open(path, os.O_RDONLY)
    try:
        for off, length in ranges:
            got = os.pread(fd, length, off)
            assert got == reference[off : off + length], (off, length)
    finally:
        os.close(fd)


def random_ranges(size, count, seed):
    rng = random.Random(seed)
    edges = [0, 4095, 4096, 65535, 65536, (1 << 20) - 1, 1 << 20, size - 1]
    for _ in range(count):
        if rng.random() < 0.3:
            off = max(0, rng.choice(edges) + rng.randrange(-3, 4))
        else:
            off = rng.randrange(size)
        yield off, rng.choice((1, 100, 4096, 65536, 200001))


@smoke
def test_reading__size_is_exact_before_the_first_byte(t):
    csv = many_rows(3000)
    origin_tree = Tree(t.folder("origin"))
    origin_tree.klines(DATE, csv)
    origin = t.origin()
    m = t.mount(origin)
    assert os.stat(m / PATH).st_size == len(csv)
    assert origin.requests("object") <= 1  # the CHECKSUM at most
    fd = os.open(m / PATH, os.O_RDONLY)
    assert os.fstat(fd).st_size == len(csv)
    assert os.lseek(fd, 0, os.SEEK_END) == len(csv)
    os.close(fd)


@smoke
def test_reading__any_offset_equals_the_reference(t):
    csv = many_rows()
    path = one(t, csv)
    pread_all(path, random_ranges(len(csv), 300, 2), csv)
    for seed in range(3):
        drop_page_cache(path)
        pread_all(path, random_ranges(len(csv), 60, seed), csv)
    assert sha256_of(path) == sha256(csv)


@smoke
def test_reading__many_threads_at_many_offsets(t):
    csv = many_rows()
    path = one(t, csv)
    read(path)
    drop_page_cache(path)
    wrong = []

    def reader(seed):
        try:
            pread_all(path, random_ranges(len(csv), 80, seed), csv)
        except BaseException as e:
            wrong.append(e)

    threads = [threading.Thread(target=reader, args=(s,)) for s in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]


@smoke
def test_reading__mmap_sendfile_splice(t):
    csv = many_rows(20000)
    path = one(t, csv)
    # As the first use of the file: a size that was not known before.
    with open(path, "rb") as f, open(t.file("sent"), "wb") as out:
        sent = 0
        while n := os.sendfile(out.fileno(), f.fileno(), sent, 1 << 20):
            sent += n
    assert sha256_of(t.file("sent")) == sha256(csv)
    fd = os.open(path, os.O_RDONLY)
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
        assert len(mapped) == len(csv)
        assert mapped[:] == csv
    read_end, write_end = os.pipe()
    parts, off = [], 0
    while n := os.splice(fd, write_end, 65536, offset_src=off):
        off += n
        parts.append(os.read(read_end, n))
        assert len(parts[-1]) == n
    assert b"".join(parts) == csv
    os.close(fd)


def test_reading__sendfile_of_a_file_never_looked_at(t):
    csv = many_rows(5000)
    path = one(t, csv)
    fd = os.open(path, os.O_RDONLY)
    out = os.open(t.file("out"), os.O_RDWR | os.O_CREAT)
    sent = 0
    while n := os.sendfile(out, fd, sent, 1 << 20):
        sent += n
    os.close(fd)
    os.close(out)
    assert sent == len(csv)
    assert sha256_of(t.file("out")) == sha256(csv)


def test_reading__holes_and_data_as_in_a_plain_file(t):
    csv = b"1,2,3\n" + bytes(300000) + b"4,5,6\n"
    path = one(t, csv)
    fd = os.open(path, os.O_RDONLY)
    assert os.lseek(fd, 0, os.SEEK_DATA) == 0
    assert os.lseek(fd, 0, os.SEEK_HOLE) == len(csv)
    assert os.lseek(fd, 0, os.SEEK_END) == len(csv)
    assert errno_of(os.lseek, fd, len(csv), os.SEEK_DATA) == "ENXIO"
    os.close(fd)


def test_reading__tar_cp_dd_tail_and_friends(t):
    csv = many_rows(20000, 4)
    path = one(t, csv)
    out = t.folder("out")
    plain = os.path.join(out, "plain")
    with open(plain, "wb") as f:
        f.write(csv)
    run("tar", "-S", "-cf", out + "/t.tar", "-C", os.path.dirname(path), ".")
    run("tar", "-xf", out + "/t.tar", "-C", out)
    run("cmp", plain, f"{out}/{DATE}.csv")
    for how in ("auto", "always", "never"):
        run("cp", "--sparse=" + how, path, f"{out}/{how}")
        run("cmp", plain, f"{out}/{how}")
    for size in (1, 511, 4097, 131071, 1000003):
        count = 1 + min(len(csv), 2000 * size) // size
        command = ["dd", f"bs={size}", f"count={count}", "status=none"]
        got = run(*command, f"if={path}")
        assert got == csv[: count * size], size
    got = run("dd", "bs=7", "skip=100001", "count=9", "status=none",
              f"if={path}")
    assert got == csv[700007:700070]
    for command in (["tail", "-n", "3"], ["tail", "-c", "100"],
                    ["head", "-n", "2"], ["wc"], ["tac"], ["sort"]):
        assert run(*command, path).split()[:-1] == (
            run(*command, plain).split()[:-1]
        ), command
    run("cmp", plain, path)


def stream_cases():
    text = rows(20000, 8)
    return {
        "stored": (text, {"stored": True}),
        "empty": (b"", {}),
        "empty stored": (b"", {"stored": True}),
        "one byte": (b"1", {}),
        "fixed Huffman": (
            text,
            {"compressor": lambda: Compressor(6, zlib.Z_FIXED)},
        ),
        "Huffman only": (
            text,
            {"compressor": lambda: Compressor(6, zlib.Z_HUFFMAN_ONLY)},
        ),
        "stored blocks": (text, {"compressor": lambda: Compressor(0)}),
        "fastest": (text, {"compressor": lambda: Compressor(1)}),
        "no structure": (random.Random(1).randbytes(3 << 20), {}),
        "very compressible": (b"0,0,0,0\n" * (3 << 18), {}),
    }


@smoke
def test_reading__every_kind_of_stream(t):
    tree = Tree(t.folder("origin"))
    cases = stream_cases()
    for day, (csv, how) in enumerate(cases.values(), 1):
        tree.klines(f"2024-01-{day:02}", csv, **how)
    m = t.mount(t.origin())
    for day, (name, (csv, _)) in enumerate(cases.items(), 1):
        path = f"{m.point}/{FOLDER}/2024-01-{day:02}.csv"
        assert os.stat(path).st_size == len(csv), name
        assert sha256(read(path)) == sha256(csv), name
        key = klines_key(f"2024-01-{day:02}")
        assert unzip(tree.path(key)) == csv, name
        if csv:
            drop_page_cache(path)
            pread_all(path, random_ranges(len(csv), 40, day), csv)


def test_reading__zip64_layouts(t):
    """Small members in zip64 form, as Python writes it for unknown sizes."""
    tree = Tree(t.folder("origin"))
    key = klines_key(DATE)
    csv = many_rows(2000)
    tree.put(key, b"")
    with zipfile.ZipFile(tree.path(key), "w") as archive:
        member(archive, csv_name(key), [csv])
    tree.checksum(key)
    m = t.mount(t.origin())
    assert read(m / PATH) == csv


def test_reading__unknown_method_is_eopnotsupp(t):
    tree = Tree(t.folder("origin"))
    key = klines_key(DATE)
    tree.put(key, b"")
    with zipfile.ZipFile(tree.path(key), "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(csv_name(key), rows(100))
    tree.checksum(key)
    m = t.mount(t.origin())
    assert errno_of(read, m / PATH) == "EOPNOTSUPP"
    with open(tree.path(key), "rb") as f:
        assert read(m / key) == f.read()


class Huge:
    """4.3 GiB of known content in a zip of a few MB: equal blocks, each
    preceded by a line that says where it is."""

    BLOCK = 32 << 20
    COUNT = 138
    LABEL = 64

    def __init__(self):
        self.block = b"0.00000000,1\n" * (self.BLOCK // 13 + 1)
        self.block = self.block[: self.BLOCK]
        self.step = self.LABEL + self.BLOCK
        self.size = self.COUNT * self.step

    def label(self, i):
        return (b"block %d of %d " % (i, self.COUNT)).ljust(self.LABEL, b".")

    def blocks(self):
        for i in range(self.COUNT):
            yield self.label(i)
            yield self.block

    def at(self, off, length):
        parts = []
        end = min(off + length, self.size)
        while off < end:
            i, rest = divmod(off, self.step)
            piece = (self.label(i) + self.block)[rest : rest + end - off]
            parts.append(piece)
            off += len(piece)
        return b"".join(parts)


@limit(300)
def test_reading__member_over_4_gib(t):
    if SANITIZED:
        raise Skip("4 GiB under a sanitizer take too long")
    tree = Tree(t.folder("origin"))
    huge = Huge()
    key = klines_key("2024-01")
    tree.put(key, b"")
    with zipfile.ZipFile(tree.path(key), "w") as archive:
        member(archive, csv_name(key), huge.blocks(), Repeating())
    tree.checksum(key)
    m = t.mount(t.origin())
    path = m / FOLDER + "/2024-01.csv"
    assert os.stat(path).st_size == huge.size > 1 << 32
    fd = os.open(path, os.O_RDONLY)
    rng = random.Random(4)
    offsets = [0, (1 << 31) - 50, (1 << 32) - 50, (1 << 32) + 1,
               huge.size - 100]
    offsets += [i * huge.step - 100 for i in rng.sample(range(1, 138), 20)]
    offsets += [rng.randrange(huge.size) for _ in range(30)]
    for off in offsets:
        assert os.pread(fd, 5000, off) == huge.at(off, 5000), off
    os.close(fd)
    assert run("tail", "-c", "300", path) == huge.at(huge.size - 300, 300)


@smoke
def test_reading__origin_that_ignores_ranges(t):
    csv = many_rows(20000, 6)
    small = rows(20, 7)
    tree = Tree(t.folder("origin"))
    tree.klines(DATE, csv)
    tree.klines("2024-01-02", small)
    origin = t.origin()
    origin.rules({"kind": ["object", "range"], "ignore_range": True})
    m = t.mount(origin)
    assert os.stat(m / FOLDER + "/2024-01-02.csv").st_size == len(small)
    assert os.stat(m / PATH).st_size == len(csv)
    assert sha256(read(m / PATH)) == sha256(csv)
    assert read(m / FOLDER + "/2024-01-02.csv") == small


@smoke
def test_reading__many_openers_one_download(t):
    csv = many_rows(10000)
    Tree(t.folder("origin")).klines(DATE, csv)
    key = klines_key(DATE)
    origin = t.origin()
    origin.rules({"kind": "object", "key": key, "hold": "zip"})
    m = t.mount(origin)
    jobs = [t.job(lambda: sha256_of(m / PATH)) for _ in range(24)]
    origin.wait_held(1)
    time.sleep(0.3)  # gives a second download time to show itself
    origin.release("zip")
    for job in jobs:
        assert job.result() == sha256(csv)
    assert origin.requests("object", key) == 1


@smoke
def test_reading__page_cache_outlives_the_handle(t):
    """Verified archives keep their pages: a second open reads no more."""
    csv = many_rows(20000)
    path = one(t, csv)
    m = t.mounts[0]
    assert sha256(read(path)) == sha256(csv)
    before = int(attr(m.point, "read.bytes"))
    assert sha256(read(path)) == sha256(csv)
    assert int(attr(m.point, "read.bytes")) == before


def threads(path, csv, count):
    """Each reads a part of its own by one handle, in pieces."""
    fd = os.open(path, os.O_RDONLY)
    part = len(csv) // count + 1
    wrong = []

    def work(i):
        for off in range(i * part, min((i + 1) * part, len(csv)), 40000):
            got = os.pread(fd, min(40000, (i + 1) * part - off), off)
            if got != csv[off : off + len(got)] or not got:
                wrong.append(off)

    try:
        crowd = [threading.Thread(target=work, args=(i,)) for i in range(count)]
        for one_of_them in crowd:
            one_of_them.start()
        for one_of_them in crowd:
            one_of_them.join()
    finally:
        os.close(fd)
    assert not wrong, wrong


def interleaved(path, csv):
    """Two handles from both ends of the file at once."""
    a, b = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
    try:
        for off in range(0, len(csv), 100000):
            for fd, at in ((a, off), (b, max(0, len(csv) - off - 100000))):
                assert os.pread(fd, 100000, at) == csv[at : at + 100000]
    finally:
        os.close(a)
        os.close(b)


@alone
@smoke
def test_reading__nothing_is_inflated_twice(t):
    """In whatever order a file is read that the pool can hold."""
    csv = many_rows(80000)
    path = one(t, csv)
    m = t.mounts[0]
    pieces = range(0, len(csv), 65536)
    orders = {
        "forward": lambda: pread_all(path, ((o, 65536) for o in pieces), csv),
        "backward": lambda: pread_all(
            path, ((o, 65536) for o in reversed(pieces)), csv),
        "strided": lambda: pread_all(
            path, ((o, 65536) for first in range(8)
                   for o in pieces[first::8]), csv),
        "random": lambda: pread_all(
            path, ((o, 65536) for o in random.Random(1).sample(
                pieces, len(pieces))), csv),
        "two handles": lambda: interleaved(path, csv),
        "64 threads": lambda: threads(path, csv, 64),
    }

    def one_pass(reading):
        """How many bytes were inflated, and how many the kernel asked for."""
        drop_page_cache(path)
        # The last handle is released a little after close(2).
        wait_until(lambda: attr(m.point, "pool.used_bytes") == "0", "empty")
        names = ("pool.decoded_bytes", "read.bytes")
        before = [int(attr(m.point, name)) for name in names]
        # One handle stays open: what was inflated goes with the last.
        with open(path, "rb"):
            reading()
            after = [int(attr(m.point, name)) for name in names]
        return (b - a for a, b in zip(before, after))

    for order, reading in orders.items():
        # Where readers meet, what comes next for one was read by the other,
        # and may have been given up by then: a wrong guess, three MiB long.
        # That both of them guess so far happens once in some twenty passes.
        meet = order in ("two handles", "64 threads")
        guessed = 3 << 20 if meet else 0
        for tries_left in (2, 1, 0):
            decoded, asked = one_pass(reading)
            assert decoded >= len(csv), (order, decoded)
            if decoded <= len(csv) + guessed:
                break
            # The kernel drops pages without need (DAMON), and asks again: of
            # that pass nothing can be said.
            again = meet or asked > len(csv)
            assert again and tries_left, (order, decoded, asked)


@limit(180)
def test_reading__memory_stays_under_its_limit(t):
    if SANITIZED:
        raise Skip("sanitizers have memory of their own")
    tree = Tree(t.folder("origin"))
    csvs = {}
    for day in range(1, 9):
        date = f"2024-01-{day:02}"
        csvs[date] = tree.klines(date, many_rows(120000, day))
    m = t.mount(t.origin(), memory="16M")
    digests = {d: hashlib.sha256(c).hexdigest() for d, c in csvs.items()}

    def reader(date):
        return sha256_of(f"{m.point}/{FOLDER}/{date}.csv")

    for _ in range(2):
        jobs = {d: t.job(reader, d) for d in csvs}
        for date, job in jobs.items():
            assert job.result(90) == digests[date]
            drop_page_cache(f"{m.point}/{FOLDER}/{date}.csv")
    with open(f"/proc/{m.process.pid}/status", encoding="ascii") as f:
        status = f.read()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    # 120 MB were decoded at once through a pool of 16: code, libraries,
    # SQLite's and TLS's caches and thread stacks are the rest.
    assert peak < 96 << 20, peak
