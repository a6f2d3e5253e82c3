"""The table of errnos of design section 2, row by row."""

import os
import signal
import time

from archives import Tree, klines_key, rows
from harness import attr, errno_of, limit, read, smoke, wait_until

FOLDER = "spot/klines/BTCUSDT/1m"
DATE = "2024-01-01"
PATH = f"{FOLDER}/{DATE}.csv"
KEY = klines_key(DATE)
BODY = {"kind": ["object", "range", "head"], "key": KEY}


def one(t, *rules, **options):
    csv = Tree(t.folder("origin")).klines(DATE)
    origin = t.origin()
    origin.rules(*rules)
    options.setdefault("retries", "2")
    return origin, t.mount(origin, **options), csv


@smoke
def test_errors__refused_by_the_origin_is_eacces(t):
    for status in (401, 403, 451):
        Tree(t.folder("origin")).klines(DATE)
        origin = t.origin()
        origin.rules(dict(BODY, status=status))
        m = t.mount(origin, name=f"m{status}", cache=f"c{status}")
        assert errno_of(read, m / PATH) == "EACCES", status


@smoke
def test_errors__absence_is_remembered_for_negative_ttl(t):
    tree = Tree(t.folder("origin"))
    tree.klines("2024-01-02")
    origin = t.origin()
    m = t.mount(origin, negative_ttl="2s", listing_ttl="2s")
    assert errno_of(read, m / PATH) == "ENOENT"
    asked = origin.requests()
    for _ in range(20):
        assert errno_of(read, m / PATH) == "ENOENT"
    assert origin.requests() == asked
    csv = tree.klines(DATE)
    wait_until(lambda: errno_of(read, m / PATH) is None, "the file", 10)
    assert read(m / PATH) == csv


@smoke
def test_errors__unreachable_origin_is_enetunreach(t):
    origin, m, _ = one(t, retries="1")
    assert os.stat(m / PATH).st_size
    origin.stop()
    assert errno_of(read, m / PATH) == "ENETUNREACH"
    assert errno_of(os.listdir, m / "um/klines") == "ENETUNREACH"


def four(t):
    """Four archives, of which two fit into a budget of 1 MiB: 800,000 bytes
    and what lists and sizes them."""
    tree = Tree(t.folder("origin"))
    days = [f"2024-01-0{i}" for i in range(1, 5)]
    csvs = [
        tree.klines(day, rows(4000, day)[:400_000], stored=True)
        for day in days
    ]
    assert all(len(csv) == 400_000 for csv in csvs)
    return t.origin(), [f"{FOLDER}/{day}.csv" for day in days], csvs


def gets(origin):
    return sum(origin.requests("object", klines_key(f"2024-01-0{i}"))
               for i in range(1, 5))


@smoke
@limit(90)
def test_errors__budget_spent_is_edquot_also_after_a_remount(t):
    origin, paths, csvs = four(t)
    m = t.mount(origin, budget="1M")
    for path in paths:
        os.stat(m / path)
    assert [read(m / path) for path in paths[:2]] == csvs[:2]
    assert errno_of(read, m / paths[3]) == "EDQUOT"
    spent = int(attr(m.point, "fetch.budget_spent_bytes"))
    assert 800_000 < spent <= 1 << 20
    assert attr(m.point, "fetch.budget_bytes") == str(1 << 20)
    assert errno_of(read, m / paths[3]) == "EDQUOT"
    (event,) = m.events("budget_spent")
    assert event["context"]["budget_bytes"] == 1 << 20
    assert event["context"]["until"].endswith("T00:00:00Z")
    asked = gets(origin)
    assert asked == 2

    # Orderly, and by a crash.
    for stop in (m.unmount, m.kill):
        stop()
        m.start()
        assert errno_of(read, m / paths[3]) == "EDQUOT"
        assert int(attr(m.point, "fetch.budget_spent_bytes")) >= spent
        # What is cached stays readable, and folders can be listed.
        for path, csv in zip(paths[:2], csvs):
            assert read(m / path) == csv
        assert len(os.listdir(m / FOLDER)) == 4
        assert os.listdir(m / "data/spot/daily/klines") == ["BTCUSDT"]
    assert gets(origin) == asked
    m.remount(budget="100M")
    assert read(m / paths[3]) == csvs[3]
    m.remount(budget=None)
    assert errno_of(attr, m.point, "fetch.budget_bytes") == "ENODATA"


@limit(60)
def test_errors__what_is_under_way_takes_its_share_of_the_budget(t):
    origin, paths, csvs = four(t)
    m = t.mount(origin, budget="1M")
    for path in paths:
        os.stat(m / path)
    origin.rules({"kind": "object", "key": klines_key("2024-01-01"),
                  "hold": "all", "hold_after": 1000})
    # 400,000 are promised to one that does not come.
    job = t.job(read, m / paths[0])
    wait_until(lambda: m.events("download_started"), "the download")
    assert read(m / paths[1]) == csvs[1]
    assert errno_of(read, m / paths[3]) == "EDQUOT"
    # It gives up, and its share is free.
    job.kill(signal.SIGINT)
    wait_until(lambda: errno_of(read, m / paths[2]) is None, "its share")
    assert read(m / paths[2]) == csvs[2]


@limit(60)
def test_errors__damage_that_can_not_be_settled_in_budget_is_told(t):
    """A second copy of what came damaged, and one of what rots in the cache,
    have no room: no verdict, and the log says why, each time."""
    origin, paths, csvs = four(t)
    m = t.mount(origin, budget="1M")
    assert read(m / paths[1]) == csvs[1]
    origin.rules({"kind": "object", "key": klines_key("2024-01-01"),
                  "flip_at": 100_000})
    assert errno_of(read, m / paths[0]) == "EDQUOT"
    told = [(e["message"], e["context"]["key"]) for e in m.events()
            if e["message"] in ("verdict_doubted", "restart_refused")]
    assert told == [(what, klines_key("2024-01-01"))
                    for what in ("verdict_doubted", "restart_refused")]
    m.unmount()
    path = f"{m.cache}/objects/{klines_key('2024-01-02')}"
    with open(path, "r+b") as f:
        f.seek(200_000)
        f.write(b"XXXX")
    m.start()
    assert errno_of(read, m / paths[1]) == "EDQUOT"
    assert [e["context"]["key"] for e in m.events("restart_refused")] == [
        klines_key("2024-01-01"), klines_key("2024-01-02")]


@smoke
def test_errors__errors_of_the_server_are_retried_then_etimedout(t):
    origin, m, csv = one(t, dict(BODY, status=503))
    assert errno_of(read, m / PATH) == "ETIMEDOUT"
    assert int(attr(m.point, "fetch.retries")) >= 2
    origin.rules()
    wait_until(lambda: errno_of(read, m / PATH) is None, "the file", 10)
    assert read(m / PATH) == csv


@smoke
def test_errors__a_few_503_are_ridden_out(t):
    origin, m, csv = one(t, dict(BODY, status=503, times=2), retries="5")
    assert read(m / PATH) == csv


def test_errors__retry_after_is_obeyed(t):
    origin, m, csv = one(
        t, dict(BODY, status=429, retry_after=2, times=1), retries="5"
    )
    begin = time.monotonic()
    assert read(m / PATH) == csv
    assert time.monotonic() - begin >= 2


@limit(90)
def test_errors__stall_is_etimedout(t):
    origin, m, _ = one(
        t,
        {"kind": "object", "key": KEY, "stall_after": 100},
        {"kind": "range", "key": KEY, "stall_after": 0},
        stall_timeout="1s",
        retries="1",
    )
    assert errno_of(read, m / PATH) == "ETIMEDOUT"


def test_errors__connections_dropped_without_an_answer(t):
    origin, m, csv = one(t, dict(BODY, drop=True))
    assert errno_of(read, m / PATH) in ("ETIMEDOUT", "ENETUNREACH")
    origin.rules(dict(BODY, drop=True, times=1))
    wait_until(lambda: errno_of(read, m / PATH) is None, "the file", 10)
    assert read(m / PATH) == csv


def test_errors__deadline_is_etimedout(t):
    origin, m, _ = one(
        t, {"kind": "object", "key": KEY, "throttle": 100}, deadline="1s"
    )
    os.stat(m / PATH)
    begin = time.monotonic()
    assert errno_of(read, m / PATH) == "ETIMEDOUT"
    assert time.monotonic() - begin < 20


@smoke
def test_errors__cut_and_chunked_bodies(t):
    csv = rows(3000, 2)
    Tree(t.folder("origin")).klines(DATE, csv)
    origin = t.origin()
    origin.rules(
        {"kind": "object", "key": KEY, "cut_after": 1000, "times": 2},
        {"kind": ["object", "range"], "key": KEY, "chunked": True},
    )
    m = t.mount(origin)
    assert read(m / PATH) == csv


@smoke
def test_errors__every_one_leaves_the_mount_usable(t):
    origin, m, csv = one(t)
    other = Tree(origin.root).klines("2024-01-02", rows(10, 5))
    for rule in (
        {"status": 500}, {"status": 404}, {"drop": True}, {"html": True},
        {"truncate_to": 10}, {"flip_at": 100}, {"body": "x"},
        {"cut_after": 0},
    ):
        origin.rules(dict(BODY, **rule))
        assert errno_of(read, m / PATH) is not None, rule
        assert read(m / FOLDER + "/2024-01-02.csv") == other
    origin.rules()
    m.remount(negative_ttl="1ms", listing_ttl="1ms")
    wait_until(lambda: errno_of(read, m / PATH) is None, "the file", 20)
    assert read(m / PATH) == csv
