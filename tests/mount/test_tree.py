"""Design section 1: what the mount shows, under data/ and by date."""

import ctypes
import json
import os
import re
import stat
import subprocess
import sys
import zipfile

from archives import Tree, csv_name, klines_key, rows, zip_bytes
from harness import (
    TOP,
    attr,
    errno_of,
    libc,
    limit,
    read,
    run,
    sha256,
    smoke,
    unzip,
)

FOLDER = "spot/klines/BTCUSDT/1m"
MARKETS = {
    "spot": "data/spot/",
    "um": "data/futures/um/",
    "cm": "data/futures/cm/",
    "option": "data/option/",
}


def by_date(key):
    """Where the reference (section 1) puts an archive in the tree by date;
    None for names that stay under data/."""
    for market, prefix in MARKETS.items():
        if not key.startswith(prefix):
            continue
        found = re.fullmatch(
            r"(?:daily|monthly)/(\w+)/([^/]+)/(?:(\w+)/)?([^/]+)\.zip",
            key[len(prefix) :],
        )
        if not found:
            return None
        dataset, symbol, interval, name = found.groups()
        date = re.fullmatch(
            re.escape(f"{symbol}-{interval or dataset}-")
            + r"(\d{4})-(\d\d?)(-\d\d)?",
            name,
        )
        if not date:
            return None
        folder = "/".join(filter(None, (market, dataset, symbol, interval)))
        return f"{folder}/{date[1]}-{int(date[2]):02}{date[3] or ''}.csv"
    return None


def keys_of(root):
    for folder, _, names in os.walk(root):
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), root)


def good_archives(root):
    """Archives of a tree whose CSV can be served: a zip with the CSV it is
    named for, and bytes that match the checksum."""
    for key in sorted(keys_of(root)):
        path = os.path.join(root, key)
        checksum = path + ".CHECKSUM"
        if not key.endswith(".zip") or not os.path.exists(checksum):
            continue
        with open(path, "rb") as f:
            data = f.read()
        with open(checksum, encoding="utf-8") as f:
            if f.read().split()[0] != sha256(data):
                continue
        if zipfile.is_zipfile(path) and csv_name(key) in members(path):
            yield key


def members(path):
    """Names as their bytes say: without the UTF-8 flag Python takes them for
    code page 437."""
    with zipfile.ZipFile(path) as archive:
        return [
            info.filename
            if info.flag_bits & 0x800
            else info.filename.encode("cp437").decode("utf-8")
            for info in archive.infolist()
        ]


def reference(root, key):
    """The CSV of an archive as unzip gives it."""
    path = os.path.join(root, key)
    if len(members(path)) == 1:
        return unzip(path)
    return unzip(path, csv_name(key))


@smoke
@limit(240)
def test_tree__every_csv_of_the_sample_equals_unzip(t):
    root = t.sample()
    m = t.mount(t.origin(root))
    with open(os.path.join(root, "manifest.json"), encoding="utf-8") as f:
        csv_digests = {
            entry["key"]: entry["csv_sha256"]
            for entry in json.load(f)["archives"]
        }
    seen = set()
    for key in good_archives(root):
        expected = sha256(reference(root, key))
        assert expected == csv_digests[key], key
        assert sha256(read(m / (key[:-4] + ".csv"))) == expected, key
        path = by_date(key)
        if path:
            assert sha256(read(m / path)) == expected, path
            seen.add(tuple(path.split("/")[:2]))
    # Reference section 1.1, less what was withdrawn.
    for market in ("um", "cm"):
        for dataset in (
            "klines aggTrades trades markPriceKlines indexPriceKlines "
            "premiumIndexKlines fundingRate metrics bookDepth bookTicker"
        ).split():
            assert (market, dataset) in seen, (market, dataset)
    for dataset in ("klines", "aggTrades", "trades"):
        assert ("spot", dataset) in seen, dataset
    assert ("cm", "liquidationSnapshot") in seen
    assert ("option", "BVOLIndex") in seen
    assert ("option", "EOHSummary") in seen


@limit(240)
def test_tree__zips_and_checksums_are_the_published_bytes(t):
    root = t.sample()
    m = t.mount(t.origin(root))
    for key in good_archives(root):
        for name in (key, key + ".CHECKSUM"):
            with open(os.path.join(root, name), "rb") as f:
                assert read(m / name) == f.read(), name


@limit(120)
def test_tree__data_shows_the_keys_of_the_sample_and_their_csvs(t):
    root = t.sample()
    m = t.mount(t.origin(root))
    keys = {key[5:] for key in keys_of(root) if key.startswith("data/")}
    csvs = {key[:-4] + ".csv" for key in keys if key.endswith(".zip")}
    assert not keys & csvs
    shown = sorted(keys_of(m.point + "/data"))
    assert shown == sorted(keys | csvs), set(shown) ^ (keys | csvs)


def shown_by_date(root, prefer):
    """What the folders by date have to list of a tree: by section 1, those of
    the one cadence, and of the other what is in no month of the first."""
    paths = set(filter(None, map(by_date, keys_of(root))))
    months = {path[:-4] for path in paths if is_month(path)}
    days = {path[:-4] for path in paths if not is_month(path)}
    if prefer == "daily":
        months -= {day[:-3] for day in days}
    else:
        days = {day for day in days if day[:-3] not in months}
    return sorted(path + ".csv" for path in months | days)


def is_month(path):
    return len(os.path.basename(path)) == len("YYYY-MM.csv")


@smoke
@limit(120)
def test_tree__by_date_lists_the_sample_and_no_more(t):
    root = t.sample()
    origin = t.origin(root)
    m = t.mount(origin)
    for prefer in ("daily", "monthly"):
        m.remount(prefer=prefer)
        expected = shown_by_date(root, prefer)
        shown = [f"{market}/{name}" for market in MARKETS
                 for name in keys_of(m / market)]
        assert sorted(shown) == expected, (
            prefer, set(shown) ^ set(expected))
        # So no month of which a day is listed is.
        days = {name[:-7] for name in shown if not is_month(name)}
        months = {name[:-4] for name in shown if is_month(name)}
        assert days and months and not days & months, prefer
    # No file was asked for.
    assert origin.requests() == origin.requests("list")


def hazards(t):
    """The manifest's entries, one a hazard."""
    subprocess.run(
        [sys.executable, os.path.join(TOP, "tests/generate/generate.py"),
         "--hazards", t.folder("origin")],
        check=True, stdout=subprocess.DEVNULL, timeout=100,
    )
    with open(t.file("origin/manifest.json"), encoding="utf-8") as f:
        return json.load(f)["archives"]


def outcome(path):
    """What open(2) and read(2) give: an errno's name, or a digest."""
    got = []
    error = errno_of(lambda: got.append(read(path)))
    return error or sha256(got[0])


def allowed(entry):
    """What may come of it."""
    expect = entry["expect"]
    if expect in ("ok", "unnamed"):
        # With one file in a zip that one is the CSV, whatever its name.
        return {entry["csv_sha256"]}
    if expect == "ambiguous":
        return {entry["csv_sha256"], "EBADMSG", "ENOENT"}
    return {expect}


@smoke
@limit(120)
def test_tree__hazards_are_as_the_manifest_says(t):
    entries = hazards(t)
    m = t.mount(t.origin())
    wrong = []
    for entry in entries:
        symbol = entry["symbol"]
        paths = [
            entry["key"][: -len(".zip")] + ".csv",
            f"spot/klines/{symbol}/1m/2024-01-01.csv",
        ]
        # The second time from the cache, or from what is known of it.
        for path in paths + paths:
            got = outcome(m / path)
            if got not in allowed(entry):
                wrong.append((entry["hazard"], entry["expect"], path, got))
        if got == entry.get("csv_sha256"):
            size = os.stat(m / path).st_size
            verdict = attr(m / path, "integrity.verdict")
            if (size, verdict) != (entry["csv_size"], "verified"):
                wrong.append((entry["hazard"], size, verdict))
    assert not wrong, "\n".join(map(str, wrong))
    # None was left out, of neither kind.
    expected = {entry["expect"] for entry in entries}
    assert {"ok", "EBADMSG", "EOPNOTSUPP", "ENOENT"} <= expected, expected


@smoke
def test_tree__all_members_are_under_zip_d(t):
    tree = Tree(t.folder("origin"))
    key = "data/spot/monthly/aggTrades/ETHUSDT/ETHUSDT-aggTrades-2018-01.zip"
    root_csv, deep_csv = rows(500, 1), rows(300, 2)
    name = csv_name(key)
    deep = "home/spark/out/" + name
    tree.archive(key, zip_bytes((name, root_csv), (deep, deep_csv)))
    m = t.mount(t.origin())
    assert read(m / key[:-4] + ".csv") == root_csv
    assert read(m / "spot/aggTrades/ETHUSDT/2018-01.csv") == root_csv
    members = m / (key + ".d")
    assert sorted(os.listdir(members)) == sorted([name, "home"])
    assert read(f"{members}/{name}") == root_csv
    assert read(f"{members}/{deep}") == deep_csv
    assert os.stat(f"{members}/{deep}").st_size == len(deep_csv)
    assert stat.S_ISDIR(os.stat(members + "/home/spark").st_mode)
    assert errno_of(os.stat, members + "/other.csv") == "ENOENT"


def test_tree__junk_keys_are_under_data_only(t):
    tree = Tree(t.folder("origin"))
    folder = "data/futures/um/monthly/aggTrades/BTCUSDT/"
    junk = "part-00000-0fae7358-a956-4804-a6d4-1682c07a5127-c000.zip"
    csv = tree.add(folder + junk)
    tree.add(folder + "BTCUSDT-aggTrades-2024-01.zip")
    m = t.mount(t.origin())
    assert junk in os.listdir(m / folder)
    assert read(m / folder + csv_name(junk)) == csv
    assert os.listdir(m / "um/aggTrades/BTCUSDT") == ["2024-01.csv"]


def test_tree__unpadded_month_is_found_without_checksum_refused(t):
    tree = Tree(t.folder("origin"))
    folder = "data/spot/monthly/klines/ADABKRW/1d/"
    csv = rows(31, 3)
    for month in ("2020-8", "2020-09"):
        key = f"{folder}ADABKRW-1d-{month}.zip"
        tree.put(key, zip_bytes((csv_name(key), csv)))
    tree.checksum(key)
    m = t.mount(t.origin(), integrity="lenient")
    assert sorted(os.listdir(m / "spot/klines/ADABKRW/1d")) == [
        "2020-08.csv",
        "2020-09.csv",
    ]
    path = m / "spot/klines/ADABKRW/1d/2020-08.csv"
    assert read(path) == csv
    assert attr(path, "integrity.verdict") == "checksum_missing"
    m.remount(integrity="strict")
    assert errno_of(read, path) == "EBADMSG"
    assert read(m / "spot/klines/ADABKRW/1d/2020-09.csv") == csv


@smoke
def test_tree__chinese_symbols(t):
    tree = Tree(t.folder("origin"))
    symbol = "币安人生USDT"
    csv = tree.klines("2025-11-01", symbol=symbol)
    m = t.mount(t.origin())
    assert os.listdir(m / "spot/klines") == [symbol]
    assert read(m / f"spot/klines/{symbol}/1m/2025-11-01.csv") == csv
    assert read(m / klines_key("2025-11-01", symbol)[:-4] + ".csv") == csv


def cadences(t):
    """January: some days and the month; February: the month alone."""
    tree = Tree(t.folder("origin"))
    days = [f"2024-01-{d:02}" for d in range(1, 32) if d != 15]
    csv = {name: tree.klines(name) for name in days + ["2024-01", "2024-02"]}
    return days, csv


@smoke
def test_tree__no_day_is_listed_twice(t):
    days, csv = cadences(t)
    m = t.mount(t.origin())
    assert sorted(os.listdir(m / FOLDER)) == [
        f"{name}.csv" for name in days + ["2024-02"]
    ]
    # Hidden from the listing, found by name, and not silently.
    assert read(m / FOLDER + "/2024-01.csv") == csv["2024-01"]
    only = attr(m / FOLDER, "listing.dates_only_in_monthly")
    assert "2024-01-15" in only
    assert "2024-01-14" not in only and "2024-01-16" not in only


def test_tree__prefer_monthly_turns_it_round(t):
    days, csv = cadences(t)
    m = t.mount(t.origin(), prefer="monthly")
    assert sorted(os.listdir(m / FOLDER)) == ["2024-01.csv", "2024-02.csv"]
    assert read(m / f"{FOLDER}/{days[3]}.csv") == csv[days[3]]


def test_tree__symbols_are_the_union_of_both_cadences(t):
    tree = Tree(t.folder("origin"))
    tree.klines("2024-01-01", symbol="AAAUSDT")
    tree.klines("2024-01", symbol="BBBUSDT")
    tree.klines("2024-01-01", symbol="CCCUSDT")
    tree.klines("2024-01", symbol="CCCUSDT")
    m = t.mount(t.origin())
    assert sorted(os.listdir(m / "spot/klines")) == [
        "AAAUSDT",
        "BBBUSDT",
        "CCCUSDT",
    ]
    assert os.listdir(m / "spot/klines/BBBUSDT") == ["1m"]


def test_tree__top_is_as_designed(t):
    Tree(t.folder("origin")).klines("2024-01-01")
    m = t.mount(t.origin())
    assert sorted(os.listdir(m.point)) == sorted(
        ["data", "spot", "um", "cm", "option", ".tickfs"]
    )


@smoke
def test_tree__what_is_not_there_is_enoent(t):
    Tree(t.folder("origin")).klines("2024-01-01")
    m = t.mount(t.origin())
    absent = [
        "nothing",
        "spot/nothing",
        "spot/metrics",  # a dataset of futures
        "spot/klines/NOSUCH/1m/2024-01-01.csv",
        f"{FOLDER}/2024-01-02.csv",
        f"{FOLDER}/2024-13-01.csv",
        f"{FOLDER}/2024-02-30.csv",
        f"{FOLDER}/2024-01-01.zip",
        "spot/klines/BTCUSDT/7m/2024-01-01.csv",
        "data/nothing/x.zip",
        klines_key("2024-01-02"),
        ".tickfs/nothing",
    ]
    for turn in ("unlisted", "listed"):
        for path in absent:
            assert errno_of(os.stat, m / path) == "ENOENT", (turn, path)
            assert errno_of(read, m / path) == "ENOENT", (turn, path)
        assert errno_of(os.listdir, m / "spot/klines/NOSUCH") == "ENOENT"
        assert os.listdir(m / FOLDER) == ["2024-01-01.csv"]


@smoke
def test_tree__stat_tells_the_truth(t):
    tree = Tree(t.folder("origin"))
    when = 1689653480  # 2023-07-18T04:11:20Z
    csv = tree.klines("2024-01-01", when=when)
    m = t.mount(t.origin())
    path = m / FOLDER + "/2024-01-01.csv"
    s = os.stat(path)
    assert s.st_size == len(csv)
    assert stat.S_IMODE(s.st_mode) == 0o444 and stat.S_ISREG(s.st_mode)
    assert (s.st_uid, s.st_gid) == (os.geteuid(), os.getegid())
    assert s.st_nlink == 1
    assert s.st_blocks == -(-len(csv) // 512)
    assert int(s.st_mtime) == when
    key = klines_key("2024-01-01")
    assert os.stat(m / key).st_size == os.path.getsize(tree.path(key))
    d = os.stat(m / FOLDER)
    assert stat.S_IMODE(d.st_mode) == 0o555 and stat.S_ISDIR(d.st_mode)
    read(path)
    run("ls", "-laR", m / "spot")
    assert os.stat(path).st_ino == s.st_ino
    listed = {e.name: e.inode() for e in os.scandir(m / FOLDER)}
    assert listed["2024-01-01.csv"] == s.st_ino


def test_tree__writing_is_erofs(t):
    Tree(t.folder("origin")).klines("2024-01-01")
    m = t.mount(t.origin())
    path = m / FOLDER + "/2024-01-01.csv"
    read(path)
    new = m / FOLDER + "/new"
    attempts = {
        "open": lambda: os.open(path, os.O_WRONLY),
        "open rw": lambda: os.open(path, os.O_RDWR),
        "create": lambda: os.open(new, os.O_WRONLY | os.O_CREAT),
        "truncate": lambda: os.truncate(path, 0),
        "unlink": lambda: os.unlink(path),
        "rename": lambda: os.rename(path, new),
        "mkdir": lambda: os.mkdir(new),
        "rmdir": lambda: os.rmdir(m / FOLDER),
        "symlink": lambda: os.symlink("x", new),
        "link": lambda: os.link(path, new),
        "chmod": lambda: os.chmod(path, 0o644),
        "utime": lambda: os.utime(path, (0, 0)),
        "setxattr": lambda: os.setxattr(path, "user.a", b"b"),
    }
    for name, attempt in attempts.items():
        assert errno_of(attempt) == "EROFS", name


def access(path, mode):
    """access(2) itself: Python's own tells no errno."""
    if libc.access(os.fsencode(path), mode):
        raise OSError(ctypes.get_errno(), path)


@smoke
def test_tree__access_confirms_what_is_asked_for(t):
    """Each in a folder of its own, since the first call lists it."""
    tree = Tree(t.folder("origin"))
    modes = {"R": os.R_OK, "W": os.W_OK, "X": os.X_OK, "F": os.F_OK}
    expected = {}
    for name, mode in modes.items():
        write = "EROFS" if name == "W" else None
        for what, error in (
            ("FILE", "EACCES" if name == "X" else write),
            ("DIR", write),
            ("ABSENT", "ENOENT"),
        ):
            tree.klines("2024-01-01", symbol=what + name)
            path = f"spot/klines/{what}{name}/1m"
            if what != "DIR":
                day = "2024-01-01" if what == "FILE" else "2024-01-02"
                path += f"/{day}.csv"
            expected[path] = (mode, error)
    m = t.mount(t.origin())
    for turn in ("unlisted", "listed"):
        for path, (mode, error) in expected.items():
            got = errno_of(access, m / path, mode)
            # Nothing is looked for to refuse a write.
            if (turn, mode, error) == ("unlisted", os.W_OK, "ENOENT"):
                assert got in ("ENOENT", "EROFS"), (path, got)
                continue
            assert got == error, (turn, path, got)
        for folder in os.listdir(m / "spot/klines"):
            os.listdir(m / f"spot/klines/{folder}/1m")
        # What was listed is kept; what the kernel has looked up is not.
        m.remount()


def test_tree__df_shows_cache_against_quota(t):
    csv = rows(2000, 5)
    Tree(t.folder("origin")).klines("2024-01-01", csv)
    m = t.mount(t.origin(), quota="1G")
    before = os.statvfs(m.point)
    assert abs(before.f_blocks * before.f_frsize - (1 << 30)) <= 1 << 20
    read(m / FOLDER + "/2024-01-01.csv")
    after = os.statvfs(m.point)
    zip_size = os.path.getsize(
        os.path.join(t.file("origin"), klines_key("2024-01-01"))
    )
    used = (before.f_bfree - after.f_bfree) * after.f_frsize
    assert used >= zip_size, used
