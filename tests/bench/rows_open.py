"""Rows about the first open of an archive and what it leaves on disk."""

import os
import shutil

import data
from measure import ratio, Result, row, side_by_side

PIPELINE = """
curl -sSf -O "$1" -O "$1.CHECKSUM"
sha256sum --status -c "$(basename "$1").CHECKSUM"
unzip -q "$(basename "$1")"
cat "$(basename "$1" .zip).csv" >/dev/null
"""


def check_first_open(s):
    key = s.data.big(0)
    m = s.tickfs("first")
    s.output("cmp", m.csv(key), s.data.plain(key))
    s.done_with(m)


@row("first-open", check_first_open)
def first_open(s):
    key = s.data.big(0)
    url = f"{s.origin_of_data().url}/{key}"

    def ours():
        m = s.tickfs("first")
        try:
            os.sync()
            return s.timed("cat", m.csv(key))
        finally:
            s.done_with(m)

    def theirs():
        folder = s.folder("pipeline")
        try:
            os.sync()
            return s.timed("sh", "-euc", PIPELINE, "sh", url, cwd=folder)
        finally:
            shutil.rmtree(folder)

    s.warm_up(s.data.zip(key))
    a, b = side_by_side(s.sizes.runs, ours, theirs)
    yield ratio(
        "first open to last byte: curl, sha256sum, unzip, cat / tickfs",
        b,
        a,
        ">= 5",
        a,
        b,
    )


def index_bytes(cache):
    total = 0
    for folder, _, names in os.walk(os.path.join(cache, "index")):
        for name in names:
            total += os.stat(os.path.join(folder, name)).st_size
    return total


def check_index(s):
    assert index_bytes(s.warm().cache) > 0


@row("index", check_index)
def index(s):
    m = s.warm()
    zips = sum(os.path.getsize(s.data.zip(key)) for key in data.BIG)
    yield Result(
        "index on disk / zip",
        "%",
        [100 * index_bytes(m.cache) / zips],
        "<= 4",
    )
