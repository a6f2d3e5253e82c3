"""Design section 6: what the mount tells of itself."""

import errno
import json
import os
import re
import shutil
import time

from archives import Tree, klines_key, rows
from harness import (
    TOP,
    Skip,
    alone,
    attr,
    errno_of,
    read,
    run,
    smoke,
    wait_until,
)

FOLDER = "spot/klines/BTCUSDT/1m"
DATE = "2024-01-01"
PATH = f"{FOLDER}/{DATE}.csv"
KEY = klines_key(DATE)

ON_FILE = """origin.url origin.etag origin.last_modified cache.state cache.bytes
fetch.bytes_done fetch.bytes_total integrity.verdict integrity.sha256
integrity.sha256_published""".split()
ON_FOLDER = """listing.files listing.first_date listing.last_date
listing.missing_dates listing.dates_only_in_monthly listing.age_seconds
cache.files cache.bytes""".split()
ON_ROOT = """run_id version uptime_seconds cache.hits cache.misses
cache.hit_rate cache.bytes cache.quota_bytes cache.evictions fetch.bytes
fetch.speed_bytes_per_second fetch.latency_seconds_p50
fetch.latency_seconds_p99 fetch.requests fetch.errors fetch.error_rate
fetch.retries fetch.resumes fetch.connections read.bytes
read.bytes_per_second read.prefilled_bytes pool.bytes pool.used_bytes pool.decoded_bytes
pool.decoded_spans process.rss_bytes process.cpu_seconds process.inodes""".split()


def one(t, **options):
    tree = Tree(t.folder("origin"))
    csv = tree.klines(DATE, rows(500, 1), when=1689653480)
    for day in ("2024-01-02", "2024-01-04"):
        tree.klines(day)
    origin = t.origin()
    return origin, t.mount(origin, **options), csv


def names(path):
    return {
        n[len("user.tickfs.") :]
        for n in os.listxattr(path)
        if n.startswith("user.tickfs.")
    }


@smoke
def test_attributes__of_a_file(t):
    origin, m, csv = one(t)
    path = m / PATH
    assert attr(path, "cache.state") == "absent"
    assert attr(path, "origin.url") == f"{origin.url}/{KEY}"
    read(path)
    size = os.path.getsize(os.path.join(origin.root, KEY))
    expected = {
        "origin.last_modified": "2023-07-18T04:11:20Z",
        "cache.state": "verified",
        "fetch.bytes_done": str(size),
        "fetch.bytes_total": str(size),
        "integrity.verdict": "verified",
    }
    for name, value in expected.items():
        assert attr(path, name) == value, name
    md5 = run("md5sum", os.path.join(origin.root, KEY)).decode().split()[0]
    assert attr(path, "origin.etag").strip('"') == md5
    assert int(attr(path, "cache.bytes")) >= size
    assert names(path) >= set(ON_FILE), set(ON_FILE) - names(path)
    shown = run("getfattr", "--absolute-names", "-d", path).decode()
    assert 'user.tickfs.cache.state="verified"' in shown


def test_attributes__url_is_of_the_origin_that_a_cache_was_filled_from(t):
    """A mount's own origin is not that of all its cache holds."""
    first, m, csv = one(t)
    read(m / PATH)
    other = klines_key("2024-01-02")
    assert attr(m / f"{FOLDER}/2024-01-02.csv", "origin.url") == (
        f"{first.url}/{other}"
    )
    m.unmount()
    second = t.origin(first.root)
    assert second.url != first.url
    m.start(origin=second.url, listing=second.listing)
    assert read(m / PATH) == csv
    assert attr(m / PATH, "origin.url") == f"{first.url}/{KEY}"
    assert attr(m / f"data/{KEY[len('data/'):]}.CHECKSUM", "origin.url") == (
        f"{first.url}/{KEY}.CHECKSUM"
    )
    path = m / f"{FOLDER}/2024-01-02.csv"
    assert attr(path, "origin.url") == f"{second.url}/{other}"
    read(path)
    m.unmount()
    m.start(offline="yes")
    assert attr(m / PATH, "origin.url") == f"{first.url}/{KEY}"
    assert attr(path, "origin.url") == f"{second.url}/{other}"


@smoke
def test_attributes__of_a_folder(t):
    _, m, _ = one(t)
    os.listdir(m / FOLDER)
    read(m / PATH)
    folder = m / FOLDER
    assert attr(folder, "listing.files") == "3"
    assert attr(folder, "listing.first_date") == "2024-01-01"
    assert attr(folder, "listing.last_date") == "2024-01-04"
    assert attr(folder, "listing.missing_dates") == "2024-01-03"
    assert attr(folder, "cache.files") == "1"
    assert int(attr(folder, "cache.bytes")) > 0
    assert names(folder) >= set(ON_FOLDER) - {"listing.dates_only_in_monthly"}


@smoke
def test_attributes__of_the_root(t):
    _, m, csv = one(t, run_id="my-run", quota="1G", prefill="off")
    read(m / PATH)
    read(m / PATH)
    root = m.point
    assert names(root) >= set(ON_ROOT), set(ON_ROOT) - names(root)
    assert attr(root, "run_id") == "my-run"
    assert attr(root, "cache.quota_bytes") == str(1 << 30)
    assert int(attr(root, "cache.misses")) >= 1
    assert int(attr(root, "cache.hits")) >= 1
    assert 0 <= float(attr(root, "cache.hit_rate")) <= 1
    assert int(attr(root, "fetch.requests")) >= 2
    assert int(attr(root, "read.bytes")) >= len(csv)
    # 70 % of the memory, in whole spans; the one CSV was inflated once.
    assert int(attr(root, "pool.bytes")) == 89 << 19  # 70 % of 64M
    assert int(attr(root, "pool.decoded_bytes")) == len(csv)
    assert int(attr(root, "pool.decoded_spans")) == 1
    assert int(attr(root, "process.rss_bytes")) > 1 << 20
    version = run(m.command()[0], "--version").decode()
    assert attr(root, "version") in version


@smoke
def test_attributes__fetch_figures_are_what_the_origin_saw(t):
    tree = Tree(t.folder("origin"))
    csv = tree.klines(DATE, rows(3000, 1))
    other = tree.klines("2024-01-02")
    origin = t.origin()
    origin.rules(
        {"kind": "list", "status": 503, "times": 1},
        {"kind": "range", "key": KEY, "status": 503, "times": 2},
        {"kind": "object", "key": KEY, "cut_after": 5000, "times": 1},
    )
    m = t.mount(origin)
    os.listdir(m / FOLDER)
    assert os.stat(m / PATH).st_size == len(csv)
    for _ in range(3):
        assert read(m / PATH) == csv
    assert read(m / KEY[:-4] + ".csv") == csv
    assert read(m / f"{FOLDER}/2024-01-02.csv") == other
    # The last answer was read before its end is counted.
    wait_until(
        lambda: int(attr(m.point, "fetch.requests")) == origin.requests(),
        "all requests counted",
    )
    assert origin.stats()["by_status"]["503"] == 3
    expected = {
        "fetch.errors": 4,
        "fetch.retries": 4,
        "fetch.resumes": 1,
        "cache.misses": 2,
        "cache.hits": 3,
    }
    got = {name: int(attr(m.point, name)) for name in expected}
    assert got == expected, got
    rate = float(attr(m.point, "fetch.error_rate"))
    assert abs(rate - 4 / origin.requests()) < 0.001, rate
    assert float(attr(m.point, "cache.hit_rate")) == 0.6


def in_manual(heading):
    """The attributes that man/tickfs.1 describes under a heading."""
    with open(os.path.join(TOP, "man/tickfs.1"), encoding="utf-8") as f:
        text = f.read()
    section = re.search(
        rf"^\.SS {heading}\n(.*?)^\.S[SH] ", text, re.M | re.S
    )[1]
    heads = re.findall(r"^\.TP\n\.BR? (.*)$", section, re.M)
    return {name for head in heads for name in re.findall(r"[\w.]{3,}", head)}


@smoke
def test_attributes__manual_names_all_of_them(t):
    _, m, _ = one(t, budget="1G")
    read(m / PATH)
    os.listdir(m / FOLDER)
    assert names(m / PATH) == in_manual("Of a file")
    assert names(m / FOLDER) == in_manual("Of a folder")
    assert names(m.point) == in_manual("Of the mount point")
    # Files of other kinds have no others.
    for path in (KEY, KEY + ".CHECKSUM", os.path.dirname(KEY), ".tickfs",
                 ".tickfs/status.json", "spot", "data"):
        assert names(m / path) <= (
            in_manual("Of a file") | in_manual("Of a folder")
        ), path


@smoke
def test_attributes__errors_by_namespace(t):
    _, m, _ = one(t)
    for path in (m / PATH, m / FOLDER, m.point):
        get = os.getxattr
        assert errno_of(get, path, "user.tickfs.nothing") == "ENODATA"
        assert errno_of(get, path, "user.other") == "ENODATA"
        for name in ("security.capability", "system.posix_acl_access",
                     "trusted.x"):
            try:
                get(path, name)
                assert False, name
            except OSError as e:
                assert e.errno == errno.EOPNOTSUPP, (name, e)


@smoke
def test_attributes__all_listed_are_small(t):
    _, m, _ = one(t)
    read(m / PATH)
    for path in (m / PATH, m / FOLDER, m.point):
        values = [os.getxattr(path, n) for n in os.listxattr(path)]
        assert sum(map(len, values)) <= 3072


def disks(t):
    """Folders to copy to where attributes of users can be kept, and those
    where not: in that of the tests, mostly on ext4, and on a tmpfs."""
    kept, not_kept = [], []
    folders = [t.folder("out"), "/dev/shm/" + os.path.basename(t.tmp)]
    for folder in folders if os.access("/dev/shm", os.W_OK) else folders[:1]:
        os.makedirs(folder, exist_ok=True)
        good = errno_of(os.setxattr, folder, "user.test", b"") is None
        (kept if good else not_kept).append(folder)
    return kept, not_kept


def check_copied(m, csv, out, *command):
    """The folder with a file that is in the cache and one that is not."""
    before = names(m / f"{FOLDER}/2024-01-02.csv")
    run(*command, m / FOLDER, out)
    for date in (DATE, "2024-01-02"):
        path, copy = m / f"{FOLDER}/{date}.csv", f"{out}/1m/{date}.csv"
        assert read(copy) == read(path), copy
        for name in ("origin.url", "origin.etag"):
            assert attr(copy, name) == attr(path, name), copy
        # Some look at them before they read it.
        assert before <= names(copy) <= names(path), copy
    assert read(f"{out}/1m/{DATE}.csv") == csv
    assert set(ON_FILE) <= names(f"{out}/1m/{DATE}.csv")
    assert attr(f"{out}/1m/{DATE}.csv", "cache.state") == "verified"
    assert attr(f"{out}/1m", "listing.files") == "3"


def copied(t, *commands):
    _, m, csv = one(t)
    read(m / PATH)
    os.listdir(m / FOLDER)
    kept, not_kept = disks(t)
    try:
        for i, command in enumerate(commands):
            for folder in kept:
                out = os.path.join(folder, str(i))
                os.mkdir(out)
                check_copied(m, csv, out, *command)
    finally:
        for folder in kept + not_kept:
            shutil.rmtree(folder)
    if not_kept:
        raise Skip(f"no attributes of users in {', '.join(not_kept)}")


def test_attributes__cp_keeps_them(t):
    copied(t, ["cp", "-a"], ["cp", "-r", "--preserve=xattr"])


def test_attributes__rsync_keeps_them(t):
    if not shutil.which("rsync"):
        raise Skip("no rsync")
    copied(t, ["rsync", "-aX"])


@alone
def test_attributes__of_a_file_that_waits_for_nothing(t):
    """A call waits neither for network nor for decode."""
    origin, m, _ = one(t)
    origin.rules({"delay_ms": 5000})
    begin = time.monotonic()
    assert attr(m / PATH, "cache.state") == "absent"
    assert attr(m / PATH, "fetch.bytes_done") == "0"
    assert time.monotonic() - begin < 1


def test_attributes__need_neither_size_nor_network(t):
    """Offline stat(2) of it fails by design; getfattr(1) begins with that."""
    origin, m, _ = one(t)
    os.listdir(m / FOLDER)
    m.unmount()
    origin.stop()
    m.start(offline=True)
    path = m / PATH
    assert errno_of(os.stat, path) == "ENETUNREACH"
    assert attr(path, "cache.state") == "absent"
    assert attr(path, "origin.url") == f"{origin.url}/{KEY}"
    assert attr(path, "origin.last_modified") == "2023-07-18T04:11:20Z"
    assert {"origin.url", "origin.etag", "cache.state"} <= names(path)


@smoke
def test_attributes__control_files(t):
    _, m, _ = one(t, run_id="control-run")
    read(m / PATH)
    control = m / ".tickfs"
    for name in os.listdir(control):
        path = f"{control}/{name}"
        data = read(path)
        assert os.stat(path).st_size > 0, name
        assert data, name
    status = json.loads(read(control + "/status.json"))
    assert status["run_id"] == "control-run"
    assert status["cache"]["misses"] == 1
    # A handle reads what was true when it was opened, with its true size.
    fd = os.open(control + "/log.jsonl", os.O_RDONLY)
    size = os.fstat(fd).st_size
    first = os.pread(fd, 1 << 20, 0)
    assert len(first) == size
    read(m / FOLDER + "/2024-01-02.csv")
    assert os.pread(fd, 1 << 20, 0) == first
    os.close(fd)
    # Opened again it tells what is true now.
    again = json.loads(read(control + "/status.json"))
    assert again["cache"]["misses"] == 2
    assert again["fetch"]["bytes"] > status["fetch"]["bytes"]
    assert again["fetch"]["requests"] > status["fetch"]["requests"]


def check_line(line, run_id):
    event = json.loads(line)
    assert set(event) == {
        "timestamp", "level", "message", "component", "context", "run_id",
    }, line
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", event["timestamp"]
    ), line
    assert event["level"] in ("debug", "info", "warn", "error"), line
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", event["message"]), line
    assert isinstance(event["context"], dict), line
    assert event["run_id"] == run_id, line
    return event


@smoke
def test_attributes__log_is_json_lines(t):
    log = t.file("tickfs.jsonl")
    origin, m, _ = one(t, log=log, run_id="log-run")
    read(m / PATH)
    tree = Tree(origin.root)
    tree.klines("2024-01-06")
    tree.checksum(klines_key("2024-01-06"), "f" * 64)
    errno_of(read, m / FOLDER + "/2024-01-06.csv")
    errno_of(os.stat, m / "spot/klines/币安人生USDT/1m/2024-01-06.csv")
    errno_of(os.stat, os.fsencode(m.point) + b"/data/\xff\xfe\"\\.zip")
    shown = read(m / ".tickfs/log.jsonl").decode()
    m.unmount()
    with open(log, encoding="utf-8") as f:
        events = [check_line(line, "log-run") for line in f]
    for line in shown.splitlines():
        check_line(line, "log-run")
    keys = {e["context"].get("key") for e in events}
    assert KEY in keys
    completed = [
        e["context"] for e in events if e["message"] == "download_completed"
    ]
    for context in completed:
        assert context.pop("duration_ms") > 0
    assert completed == [
        {
            "key": KEY,
            "symbol": "BTCUSDT",
            "date": DATE,
            "size_mb": os.path.getsize(f"{origin.root}/{KEY}") / 1e6,
            "verdict": "verified",
        }
    ]
    assert any(e["level"] in ("warn", "error") for e in events)
    m.start()
