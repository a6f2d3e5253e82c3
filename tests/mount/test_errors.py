"""The table of errnos of design section 2, row by row."""

import os
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
