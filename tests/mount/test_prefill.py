"""What is downloaded goes into the kernel's page cache while open() waits for
it: nothing is decoded twice, and nothing unverified is ever read."""

import errno
import io
import mmap
import os
import random
import signal
import time
import zipfile

from archives import Compressor, Tree, csv_name, klines_key, rows, zip_bytes
from harness import (
    attr,
    drop_page_cache,
    errno_of,
    limit,
    read,
    smoke,
    unzip,
    wait_until,
)

FOLDER = "spot/klines/BTCUSDT/1m"
DATE = "2024-01-01"
PATH = f"{FOLDER}/{DATE}.csv"
KEY = klines_key(DATE)


def counts(m):
    """Bytes that READ was answered with, and those given before it."""
    return tuple(
        int(attr(m.point, name)) for name in ("read.bytes",
                                              "read.prefilled_bytes")
    )


def served(t, archive, csv):
    """Reads a CSV for the first time, and again by the daemon's own means.
    Once more where pages were given and then asked for: the kernel may drop
    what nobody has read yet, and some do so without need of memory (DAMON)."""
    tree = Tree(t.folder("origin"))
    tree.archive(KEY, archive)
    origin = t.origin()
    for number in range(4):
        m = t.mount(origin, name=f"m{number}", cache=f"c{number}",
                    prefill="1G")
        os.stat(m / PATH)
        assert read(m / PATH) == csv
        before = counts(m)
        drop_page_cache(m / PATH)
        assert read(m / PATH) == csv
        assert counts(m)[0] >= before[0] + len(csv)
        if before[0] == 0 or before[1] != len(csv):
            break
    return before


def blocks(csv, strategy):
    return zip_bytes((csv_name(KEY), csv),
                     compressor=lambda: Compressor(6, strategy))


@smoke
def test_prefill__nothing_is_decoded_twice(t):
    csv = rows(50000, 1)  # several spans, none of them whole pages
    assert served(t, zip_bytes((csv_name(KEY), csv)), csv) == (0, len(csv))


def test_prefill__a_whole_number_of_pages(t):
    csv = rows(3000, 2)[: 4096 * 70]
    assert served(t, zip_bytes((csv_name(KEY), csv)), csv) == (0, len(csv))


def test_prefill__less_than_a_page(t):
    assert served(t, zip_bytes((csv_name(KEY), b"1,2\n")), b"1,2\n") == (0, 4)


def test_prefill__stored(t):
    csv = rows(20000, 3)
    archive = zip_bytes((csv_name(KEY), csv), stored=True)
    assert served(t, archive, csv) == (0, len(csv))


def test_prefill__an_empty_file(t):
    assert served(t, zip_bytes((csv_name(KEY), b"")), b"") == (0, 0)


def test_prefill__behind_other_members(t):
    csv = rows(20000, 4)
    archive = zip_bytes(("notes.txt", rows(9000, 5)), (csv_name(KEY), csv),
                        ("more/notes.txt", rows(900, 6)))
    assert served(t, archive, csv) == (0, len(csv))


@smoke
def test_prefill__off_and_too_large(t):
    csv = rows(9000, 7)
    archive = zip_bytes((csv_name(KEY), csv))
    limits = ("off", "0", str(len(csv) - 1), str(len(csv)))
    given = []
    for number, prefill in enumerate(limits):
        tree = Tree(t.folder(f"origin{number}"))
        tree.archive(KEY, archive)
        origin = t.origin(tree.root)
        m = t.mount(origin, name=f"m{number}", cache=f"c{number}",
                    prefill=prefill)
        os.stat(m / PATH)
        assert read(m / PATH) == csv
        given.append(counts(m)[1])
    assert given == [0, 0, 0, len(csv)]


def test_prefill__limit_is_for_all_under_way(t):
    tree = Tree(t.folder("origin"))
    dates = [f"2024-01-{day:02}" for day in range(1, 5)]
    csvs = {date: tree.klines(date, rows(9000, date)) for date in dates}
    size = max(map(len, csvs.values()))
    origin = t.origin()
    origin.rules({"kind": "object", "key": "*.zip", "hold_after": 4000,
                  "hold": "gate"})
    m = t.mount(origin, prefill=str(2 * size + size // 2))
    for date in dates:
        os.stat(f"{m.point}/{FOLDER}/{date}.csv")
    jobs = {
        date: t.job(read, f"{m.point}/{FOLDER}/{date}.csv") for date in dates
    }
    origin.wait_held(len(dates))
    origin.release("gate")
    for date, job in jobs.items():
        assert job.result(20) == csvs[date]
    done = counts(m)[1]
    assert done in {
        len(csvs[a]) + len(csvs[b]) for a in dates for b in dates if a < b
    }, done


# ---- what must not be seen ----


def damage(csv, archive):
    """Of a stored CSV: where in the archive byte 5000 of it lies."""
    return archive.index(csv[:4096]) + 5000


@smoke
def test_prefill__damaged_bytes_are_dropped(t):
    """Whole pages of a damaged archive lie in the kernel when it is refused;
    then the origin mends it, under the same name and ETag, and nothing is
    given over what was there, since another file has taken all there is."""
    tree = Tree(t.folder("origin"))
    good = rows(9000, 8)
    archive = zip_bytes((csv_name(KEY), good), stored=True)
    tree.archive(KEY, archive)
    tree.klines("2024-01-02", rows(9000, 88))
    origin = t.origin()
    origin.rules(
        {"kind": "object", "key": KEY, "flip_at": damage(good, archive)},
        {"kind": "object", "key": "*-02.zip", "hold": "gate"},
    )
    m = t.mount(origin, prefill=str(len(good) + 500), negative_ttl="1s")
    os.stat(m / PATH)
    assert errno_of(read, m / PATH) == "EBADMSG"
    given = counts(m)[1]
    assert given > 5000
    other = f"{m.point}/{FOLDER}/2024-01-02.csv"
    os.stat(other)
    job = t.job(read, other)
    origin.wait_held(1)
    origin.rules({"kind": "object", "key": "*-02.zip", "hold": "gate"})
    wait_until(lambda: errno_of(read, m / PATH) is None, "mended")
    assert read(m / PATH) == good
    assert counts(m)[1] == given
    origin.release("gate")
    job.result(10)


def test_prefill__first_member_is_not_in_the_directory(t):
    """What is decoded before the directory is here turns out to be wrong."""
    csv = rows(20000, 16)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("deleted.csv", rows(20000, 17))
        z.writestr(csv_name(KEY), csv)
        del z.filelist[0]
    assert served(t, buffer.getvalue(), csv)[0] == 0


def test_prefill__another_source_begins_again(t):
    tree = Tree(t.folder("origin"))
    good = rows(9000, 9)
    archive = zip_bytes((csv_name(KEY), good), stored=True)
    tree.archive(KEY, archive)
    at = damage(good, archive)
    origin = t.origin()
    origin.rules({"kind": "object", "key": KEY, "flip_at": at, "nth": 1})
    m = t.mount(origin, prefill="1G")
    os.stat(m / PATH)
    assert read(m / PATH) == good
    # What was wrong, and what holds.
    assert counts(m)[1] >= 2 * len(good)


@smoke
def test_prefill__waits_for_the_verdict(t):
    """All bytes are here and in the kernel, but not the .CHECKSUM."""
    tree = Tree(t.folder("origin"))
    csv = tree.klines(DATE, rows(9000, 10))
    origin = t.origin()
    origin.rules({"key": KEY + ".CHECKSUM", "hold": "gate"})
    m = t.mount(origin, prefill="1G")
    os.stat(m / PATH)
    job = t.job(read, m / PATH)
    wait_until(lambda: counts(m)[1] == len(csv), "given")
    assert not job.done(0.3)
    origin.release("gate")
    assert job.result(10) == csv
    assert counts(m)[1] == len(csv)


def test_prefill__republished_while_it_is_downloaded(t):
    tree = Tree(t.folder("origin"))
    old, new = rows(50000, 11), rows(50000, 12)
    tree.klines(DATE, old)
    origin = t.origin()
    origin.rules(
        {"kind": "object", "key": KEY, "cut_after": 1500000, "nth": 1},
        {"kind": ["object", "range"], "key": KEY, "hold": "gate", "nth": 3},
    )  # the first of these asks for the size
    m = t.mount(origin, prefill="1G")
    os.stat(m / PATH)
    job = t.job(read, m / PATH)
    wait_until(lambda: counts(m)[1] > 0, "begun")
    origin.wait_held(1)
    tree.klines(DATE, new)
    origin.release("gate")
    try:
        assert job.result(20) == new
    except OSError as e:
        assert e.errno == errno.ESTALE, e  # told to look it up again
    assert read(m / PATH) == new
    drop_page_cache(m / PATH)
    assert read(m / PATH) == new


def test_prefill__open_handle_keeps_its_pages(t):
    """Of a file that somebody has open nothing is given, whoever else opens
    it: its archive is damaged in the cache and fetched again meanwhile."""
    tree = Tree(t.folder("origin"))
    good = rows(9000, 13)
    archive = zip_bytes((csv_name(KEY), good), stored=True)
    tree.archive(KEY, archive)
    at = damage(good, archive)
    origin = t.origin()
    m = t.mount(origin, prefill="1G")
    os.stat(m / PATH)
    with open(m / PATH, "rb", buffering=0) as f:
        with mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            given = counts(m)[1]
            with open(f"{m.cache}/objects/{KEY}", "r+b") as zip_file:
                zip_file.seek(at)
                zip_file.write(bytes([good[5000] ^ 1]))
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            origin.rules({"kind": "object", "hold": "gate"})
            healed = t.job(os.pread, f.fileno(), len(good), 0)
            origin.wait_held(1)
            opened = t.job(read, m / PATH)
            assert not opened.done(0.3)
            origin.release("gate")
            assert healed.result(10) == good
            assert opened.result(10) == good
            assert mapped[:] == good
            assert counts(m)[1] == given
    assert read(m / PATH) == good


def test_prefill__reader_that_is_killed(t):
    """The only one that waits is gone, and with it the need."""
    tree = Tree(t.folder("origin"))
    csv = tree.klines(DATE, rows(50000, 14))
    origin = t.origin()
    origin.rules({"kind": "object", "key": KEY, "hold_after": 1500000,
                  "hold": "gate", "nth": 1})
    m = t.mount(origin, prefill="1G")
    os.stat(m / PATH)
    job = t.job(read, m / PATH)
    wait_until(lambda: counts(m)[1] > 0, "begun")
    job.kill()
    origin.release("gate")
    assert read(m / PATH) == csv
    drop_page_cache(m / PATH)
    assert read(m / PATH) == csv


class Alarm(Exception):
    pass


def interrupted(path, seed, seconds):
    """Opens that give up after some hundred microseconds."""
    rng = random.Random(seed)

    def ring(*_):
        raise Alarm

    signal.signal(signal.SIGALRM, ring)
    tries = 0
    end = time.monotonic() + seconds
    while True:
        try:  # on a busy machine it rings anywhere in here
            while time.monotonic() < end:
                tries += 1
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(3e-5, 8e-4),
                                 0.05)
                os.close(os.open(path, os.O_RDONLY))
                time.sleep(1)
            signal.setitimer(signal.ITIMER_REAL, 0)
            return tries
        except Alarm:
            pass


def test_prefill__openers_that_give_up(t):
    tree = Tree(t.folder("origin"))
    csv = tree.klines(DATE, rows(50000, 18))
    origin = t.origin()
    origin.rules({"kind": "object", "key": KEY, "hold_after": 1500000,
                  "hold": "gate"})
    m = t.mount(origin, prefill="1G")
    os.stat(m / PATH)
    stays = t.job(read, m / PATH)
    origin.wait_held(1)
    jobs = [t.job(interrupted, m / PATH, seed, 3) for seed in range(6)]
    for job in jobs:
        assert job.result(20) > 100
    origin.release("gate")
    assert stays.result(10) == csv
    assert read(m / PATH) == csv


def test_prefill__bytes_in_a_pipe_stay_as_they_are(t):
    """splice() puts the pages themselves there. They are not written over when
    the archive is fetched again, damaged, after its file was closed."""
    tree = Tree(t.folder("origin"))
    csvs = {f"2024-01-{day:02}": rows(30000, day) for day in range(1, 8)}
    for date, csv in csvs.items():
        tree.klines(date, csv, stored=True)
    good = csvs[DATE]
    with open(tree.path(KEY), "rb") as f:
        at = damage(good, f.read())
    origin = t.origin()
    m = t.mount(origin, prefill="1G", negative_ttl="1s", quota="16M")
    assert read(m / PATH) == good
    fd = os.open(m / PATH, os.O_RDONLY)
    out, into = os.pipe()
    spliced = os.splice(fd, into, 32768, offset_src=0)
    os.close(fd)
    assert spliced > 5000
    for date, csv in csvs.items():
        time.sleep(1.1)  # times of use are whole seconds
        if date != DATE:
            assert read(f"{m.point}/{FOLDER}/{date}.csv") == csv
    assert attr(m / PATH, "cache.state") == "absent"
    origin.rules({"kind": "object", "key": KEY, "flip_at": at})
    assert errno_of(read, m / PATH) == "EBADMSG"
    assert os.read(out, spliced) == good[:spliced]


@limit(120)
def test_prefill__many_openers_of_a_doubtful_origin(t):
    """Damaged and good answers in turn, and many who open meanwhile."""
    tree = Tree(t.folder("origin"))
    dates = [f"2024-01-{day:02}" for day in range(1, 25)]
    csvs = {}
    for date in dates:
        csvs[date] = rows(8000, date)
        tree.archive(klines_key(date),
                     zip_bytes((csv_name(klines_key(date)), csvs[date]),
                               stored=True))
    origin = t.origin()
    origin.rules({"kind": "object", "key": "*.zip", "flip_at": 70000,
                  "probability": 0.6}, {"delay_ms": 2})
    m = t.mount(origin, prefill="1G", negative_ttl="100ms", mirror="none",
                quota="24M")

    def work(seed):
        wrong, good = [], 0
        end = time.monotonic() + 8
        turn = seed
        while time.monotonic() < end and not wrong:
            turn += 1
            date = dates[turn * 5 % len(dates)]
            try:
                if read(f"{m.point}/{FOLDER}/{date}.csv") != csvs[date]:
                    wrong.append(date)
                good += 1
            except OSError as e:
                if e.errno not in (errno.EBADMSG, errno.ESTALE):
                    wrong.append((date, e.errno))
        return wrong, good

    jobs = [t.job(work, seed) for seed in range(6)]
    for job in jobs:
        wrong, good = job.result(60)
        assert not wrong and good > 0, (wrong, good)


def test_prefill__two_names_of_one_archive(t):
    """By date and in the bucket's layout: two inodes, one download. Once more
    where more was asked for: see served()."""
    tree = Tree(t.folder("origin"))
    csv = tree.klines(DATE, rows(9000, 15))
    assert unzip(tree.path(KEY)) == csv
    origin = t.origin()
    wanted = (len(csv), len(csv) + 4096)
    for number in range(4):
        origin.rules({"kind": "object", "key": KEY, "hold_after": 90000,
                      "hold": f"gate{number}"})
        m = t.mount(origin, name=f"m{number}", cache=f"c{number}",
                    prefill="1G")
        paths = [m / PATH, m / (KEY[:-4] + ".csv")]
        for path in paths:
            os.stat(path)
        jobs = [t.job(read, path) for path in paths]
        origin.wait_held(1)
        origin.release(f"gate{number}")
        for job in jobs:
            assert job.result(10) == csv
        asked, given = counts(m)
        assert given == len(csv)
        if asked <= max(wanted):
            break
    assert asked in wanted, (asked, len(csv))


def test_prefill__zip_that_is_open_takes_no_place(t):
    """Who opens the archive itself first gets no pages, and leaves them to who
    opens its CSV."""
    tree = Tree(t.folder("origin"))
    csv = tree.klines(DATE, rows(50000, 19))
    origin = t.origin()
    origin.rules({"kind": "object", "key": KEY, "hold": "gate"})
    m = t.mount(origin, prefill="1G")
    paths = [m / KEY, m / PATH]
    jobs = []
    for path in paths:
        os.stat(path)
        jobs.append(t.job(read, path))
        origin.wait_held(1)
    assert not jobs[1].done(0.3)  # parked
    origin.release("gate")
    with open(tree.path(KEY), "rb") as f:
        assert jobs[0].result(10) == f.read()
    assert jobs[1].result(10) == csv
    assert counts(m)[1] == len(csv)
