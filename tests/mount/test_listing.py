"""Folders of thousands, pages that lie, and how many requests it takes."""

import ctypes
import glob
import mmap
import os
import time

from archives import Tree, klines_key, rows, zip_bytes
from harness import (
    SANITIZED,
    alone,
    attr,
    elapsed,
    errno_of,
    libc,
    limit,
    read,
    run,
    smoke,
)

FOLDER = "spot/klines/BTCUSDT/1m"
DAY = 86400


def days(count):
    """Dates from 2015-01-01 on."""
    return [
        time.strftime("%Y-%m-%d", time.gmtime(1420070400 + i * DAY))
        for i in range(count)
    ]


def many_days(t, count):
    """Small but true archives; no two of one size, so no mix-up is missed."""
    tree = Tree(t.folder("origin"))
    sizes = {}
    for i, day in enumerate(days(count)):
        csv = b"%d,1.0\n" % i + b"x" * i + b"\n"
        key = klines_key(day)
        tree.put(key, zip_bytes((key.split("/")[-1][:-4] + ".csv", csv)))
        tree.checksum(key)
        sizes[day + ".csv"] = len(csv)
    return sizes


def many_symbols(t, count):
    tree = Tree(t.folder("origin"))
    names = [f"S{i:04}USDT" for i in range(count)]
    data = zip_bytes(("x.csv", b"1\n"))
    for name in names:
        tree.put(klines_key("2024-01-01", name), data)
    return names


class Dirent(ctypes.Structure):
    _fields_ = [
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("reclen", ctypes.c_uint16),
        ("type", ctypes.c_uint8),
        ("name", ctypes.c_char * 256),
    ]


libc.opendir.restype = ctypes.c_void_p
libc.opendir.argtypes = [ctypes.c_char_p]
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.readdir.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.telldir.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
libc.rewinddir.argtypes = [ctypes.c_void_p]
libc.closedir.argtypes = [ctypes.c_void_p]


def positions(folder):
    """(where, name) of each entry, then those found again by seekdir(3)."""
    d = libc.opendir(folder.encode())
    assert d
    entries = []
    while True:
        where = libc.telldir(d)
        entry = libc.readdir(d)
        if not entry:
            break
        entries.append((where, bytes(entry.contents.name)))
    again = []
    for where, _ in entries[::-37]:
        libc.seekdir(d, where)
        again.append((where, bytes(libc.readdir(d).contents.name)))
    libc.rewinddir(d)
    first = bytes(libc.readdir(d).contents.name)
    libc.closedir(d)
    return entries, again, first


def check_readers(folder, names):
    names = sorted(names)
    assert sorted(os.listdir(folder)) == names
    listed = run("ls", "-U", folder).decode().split()
    assert sorted(listed) == names
    found = run("find", folder, "-mindepth", "1", "-maxdepth", "1")
    assert len(found.splitlines()) == len(names)
    assert len(glob.glob(folder + "/*")) == len(names)
    globbed = run("sh", "-c", f"echo '{folder}'/*").decode().split()
    assert [os.path.basename(name) for name in globbed] == names
    entries, again, first = positions(folder)
    assert sorted(n.decode() for _, n in entries) == sorted(
        names + [".", ".."]
    )
    assert again == entries[::-37]
    assert first == entries[0][1]
    with os.scandir(folder) as scan:
        assert len({e.inode() for e in scan}) == len(names)


@limit(120)
def test_listing__3600_symbols_under_every_reader(t):
    names = many_symbols(t, 3600)
    m = t.mount(t.origin())
    check_readers(m / "spot/klines", names)
    check_readers(m / "data/spot/daily/klines", names)


@limit(120)
def test_listing__3300_days_under_every_reader(t):
    sizes = many_days(t, 3300)
    m = t.mount(t.origin())
    check_readers(m / FOLDER, list(sizes))


@limit(120)
def test_listing__ls_alone_asks_for_no_size(t):
    many_days(t, 1200)
    origin = t.origin()
    m = t.mount(origin)
    run("ls", m / FOLDER)
    run("find", m / FOLDER, "-type", "f")
    assert origin.requests("range") == 0
    assert origin.requests("object") == 0


def drop_names(m):
    """The kernel drops the names it does not use, of this mount alone."""
    if os.geteuid() == 0:
        flags = 32 | 2 | 4  # MS_REMOUNT, MS_NOSUID, MS_NODEV
        assert libc.mount(None, m.point.encode(), None, flags, None) == 0


def sizes_by(command, folder):
    """name -> size as printed by `ls -l` and its like."""
    lines = run(*command, folder).decode().splitlines()[1:]
    return {line.split()[-1]: int(line.split()[4]) for line in lines}


@alone
@limit(240)
def test_listing__ls_l_of_3300_days_is_one_batch(t):
    delay = 0.020
    sizes = many_days(t, 3300)
    origin = t.origin()
    m = t.mount(origin)
    run("ls", m / FOLDER)
    origin.rules({"kind": "range", "delay_ms": int(delay * 1000)})
    begin = time.monotonic()
    shown = sizes_by(["ls", "-lU"], m / FOLDER)
    took = time.monotonic() - begin
    assert shown == sizes
    # One wait each would be 66 s; eight connections make it 8.25 s.
    assert took < len(sizes) * delay / 3, took
    asked = origin.requests("range")
    assert len(sizes) <= asked <= len(sizes) + 10, asked
    # Kept for good: not one more, neither now nor after a restart.
    m.remount()
    assert sizes_by(["ls", "-lU"], m / FOLDER) == sizes
    assert origin.requests("range") == asked


@alone
@limit(120)
def test_listing__ls_l_is_one_batch_also_as_paced_by_default(t):
    sizes = many_days(t, 3300)
    origin = t.origin()
    m = t.mount(origin, rate=None)
    run("ls", m / FOLDER)
    begin = time.monotonic()
    assert sizes_by(["ls", "-lU"], m / FOLDER) == sizes
    took = time.monotonic() - begin
    # At rate=50/s after rate_burst=500 it would be 56 s.
    assert took < 40, took
    asked = origin.requests("range")
    assert len(sizes) <= asked <= len(sizes) + 10, asked


@limit(120)
def test_listing__attributes_that_come_with_names_are_whole(t):
    """READDIRPLUS: what `ls -l` shows is what each file's stat says, and who
    has one mapped keeps its pages."""
    count = 300 if SANITIZED else 1500
    sizes = many_days(t, count)
    m = t.mount(t.origin())
    folder = m / FOLDER
    some = sorted(sizes)[count // 2]
    true = read(os.path.join(folder, some))
    assert sizes_by(["ls", "-lU"], folder) == sizes
    before = os.stat(os.path.join(folder, some))
    with open(os.path.join(folder, some), "rb") as f:
        mapped = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
        for _ in range(3):
            drop_names(m)
            assert sizes_by(["ls", "-lU"], folder) == sizes
            assert mapped[:] == true
        mapped.close()
    after = os.stat(os.path.join(folder, some))
    for field in ("st_ino", "st_size", "st_blocks", "st_mtime", "st_mode"):
        assert getattr(before, field) == getattr(after, field), field
    with os.scandir(folder) as scan:
        for e in scan:
            assert e.inode() == e.stat().st_ino
    m.remount(offline=True)
    assert sizes_by(["ls", "-lU"], folder) == sizes


@alone
@limit(240)
def test_listing__colours_are_one_batch_too(t):
    delay = 0.020
    sizes = many_days(t, 3300)
    origin = t.origin()
    m = t.mount(origin)
    origin.rules({"kind": "range", "delay_ms": int(delay * 1000)})
    command = ["ls", "--color=always", m / FOLDER]
    took = elapsed(lambda: run(*command))
    assert took < len(sizes) * delay / 3, took
    assert origin.requests("range") <= len(sizes) + 10


@smoke
def test_listing__direct_open_takes_at_most_8_requests(t):
    tree = Tree(t.folder("origin"))
    for day in days(40):
        tree.klines(day)
    daily, monthly = klines_key("2024-01-01"), klines_key("2023-12")
    chinese, symbol = "币安人生USDT", "ADABKRW"
    unpadded = f"data/spot/monthly/klines/{symbol}/1d/{symbol}-1d-2020-8.zip"
    csv = {
        key: tree.add(key, rows(60, key))
        for key in (daily, monthly, klines_key("2025-11-01", chinese),
                    klines_key("2025-10", chinese), unpadded)
    }
    with open(tree.path(daily), "rb") as f:
        zipped = f.read()
    expected = {
        FOLDER + "/2024-01-01.csv": csv[daily],
        daily[:-4] + ".csv": csv[daily],
        daily: zipped,
        f"{daily}.d/{os.path.basename(daily)[:-4]}.csv": csv[daily],
        FOLDER + "/2023-12.csv": csv[monthly],
        monthly[:-4] + ".csv": csv[monthly],
        f"spot/klines/{chinese}/1m/2025-11-01.csv":
            csv[klines_key("2025-11-01", chinese)],
        f"spot/klines/{chinese}/1m/2025-10.csv":
            csv[klines_key("2025-10", chinese)],
        f"spot/klines/{symbol}/1d/2020-08.csv": csv[unpadded],
        unpadded[:-4] + ".csv": csv[unpadded],
    }
    for number, (path, content) in enumerate(expected.items()):
        origin = t.origin()
        m = t.mount(origin, name=f"mnt{number}", cache=f"cache{number}")
        assert read(m / path) == content, path
        asked = origin.requests()
        assert 0 < asked <= 8, (path, asked)
        m.unmount()
        origin.stop()


@smoke
def test_listing__web_page_is_an_error_not_an_empty_folder(t):
    tree = Tree(t.folder("origin"))
    csv = tree.klines("2024-01-01")
    origin = t.origin()
    origin.rules({"kind": "list", "html": True})
    m = t.mount(origin, retries="1")
    assert errno_of(os.listdir, m / FOLDER) in ("EPROTO", "EIO")
    assert errno_of(os.listdir, m / "data/spot") in ("EPROTO", "EIO")
    origin.rules()
    assert os.listdir(m / FOLDER) == ["2024-01-01.csv"]
    assert read(m / FOLDER + "/2024-01-01.csv") == csv


def test_listing__broken_xml_is_an_error(t):
    Tree(t.folder("origin")).klines("2024-01-01")
    origin = t.origin()
    origin.rules({"kind": "list", "bad_xml": True})
    m = t.mount(origin, retries="1")
    assert errno_of(os.listdir, m / FOLDER) in ("EPROTO", "EIO")


def test_listing__repeated_page_ends_in_an_error(t):
    many_days(t, 700)
    origin = t.origin()
    origin.rules({"kind": "list", "repeat_page": True})
    m = t.mount(origin, retries="1")
    assert errno_of(os.listdir, m / FOLDER) in ("EPROTO", "EIO")
    assert origin.requests("list") < 30


def page(prefix, keys, truncated):
    contents = "".join(
        f"<Contents><Key>{key}</Key>"
        "<LastModified>2023-07-18T04:11:20.000Z</LastModified>"
        f"<ETag>&quot;{i:032x}&quot;</ETag><Size>100</Size></Contents>"
        for i, key in enumerate(keys)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>data.binance.vision</Name><Prefix>{prefix}</Prefix>"
        f"<Marker></Marker><MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter>"
        f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{contents}"
        "</ListBucketResult>"
    )


def test_listing__goes_on_where_next_marker_is_missing(t):
    t.folder("origin")
    prefix = "data/spot/daily/klines/BTCUSDT/1m/"
    keys = [klines_key(day) for day in days(20)]
    rule = {"kind": "list", "key": prefix, "content_type": "application/xml"}
    origin = t.origin()
    origin.rules(
        dict(rule, nth=2, body=page(prefix, keys[12:], False)),
        dict(rule, nth=1, body=page(prefix, keys[:12], True)),
    )
    m = t.mount(origin)
    shown = [n for n in os.listdir(m / prefix) if n.endswith(".zip")]
    assert sorted(shown) == [os.path.basename(key) for key in keys]


@smoke
def test_listing__is_kept_and_tells_its_age(t):
    Tree(t.folder("origin")).klines("2024-01-01")
    origin = t.origin()
    m = t.mount(origin)
    os.listdir(m / FOLDER)
    asked = origin.requests("list")
    m.remount()
    assert os.listdir(m / FOLDER) == ["2024-01-01.csv"]
    assert origin.requests("list") == asked
    assert float(attr(m / FOLDER, "listing.age_seconds")) < 60
    assert attr(m / FOLDER, "listing.files") == "1"
    assert attr(m / FOLDER, "listing.first_date") == "2024-01-01"


def test_listing__old_one_is_asked_again(t):
    tree = Tree(t.folder("origin"))
    tree.klines("2024-01-01")
    m = t.mount(t.origin(), listing_ttl="1ms", negative_ttl="1ms")
    assert os.listdir(m / FOLDER) == ["2024-01-01.csv"]
    csv = tree.klines("2024-01-02", rows(5, 9))
    time.sleep(2.1)  # ages count in seconds
    assert len(os.listdir(m / FOLDER)) == 2
    assert read(m / FOLDER + "/2024-01-02.csv") == csv
