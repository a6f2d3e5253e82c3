"""Archives for one test, laid out as the origin lays them out.

Python's zipfile writes them: another implementation than the one under test.
"""

import hashlib
import io
import os
import random
import zipfile
import zlib

EPOCH = 1577836800000  # 2020-01-01T00:00:00Z in milliseconds


def rows(count, seed=0, start=EPOCH):
    """Lines that look like 1m klines, no two files alike."""
    rng = random.Random(seed)
    price = 7000 + rng.random() * 400
    lines = []
    for i in range(count):
        price += rng.gauss(0, 4)
        time = start + i * 60000
        lines.append(
            f"{time},{price:.8f},{price + 3:.8f},{price - 3:.8f},"
            f"{price + 1:.8f},{rng.random() * 90:.8f},{time + 59999},"
            f"{rng.random() * 6e5:.8f},{rng.randrange(2000)},"
            f"{rng.random() * 40:.8f},{rng.random() * 3e5:.8f},0\n"
        )
    return "".join(lines).encode()


class Compressor:
    """In place of zipfile's own, to choose how the deflate blocks are made."""

    def __init__(self, level=6, strategy=zlib.Z_DEFAULT_STRATEGY):
        self.deflate = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)

    def compress(self, data):
        return self.deflate.compress(data)

    def flush(self):
        return self.deflate.flush()


class Repeating:
    """Compresses equal blocks once: gigabytes in seconds. A full flush after
    each block makes its compressed form independent of what came before."""

    def __init__(self):
        self.known = {}

    def compress(self, block):
        packed = self.known.get(block)
        if packed is None:
            deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
            packed = deflate.compress(block) + deflate.flush(zlib.Z_FULL_FLUSH)
            if len(block) > 1 << 20:
                self.known[block] = packed
        return packed

    def flush(self):
        return zlib.compressobj(6, zlib.DEFLATED, -15).flush()


def member(archive, name, blocks, compressor=None, stored=False):
    info = zipfile.ZipInfo(name, (2020, 1, 2, 0, 13, 0))
    info.external_attr = 0o100644 << 16
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    if isinstance(blocks, bytes):
        blocks = [blocks]
        big = False
    else:
        big = True
    with archive.open(info, "w", force_zip64=big) as f:
        if compressor:
            f._compressor = compressor
        for block in blocks:
            f.write(block)


def zip_bytes(*members, compressor=None, stored=False):
    """A whole zip of (name, bytes) members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            member(archive, name, data, compressor and compressor(), stored)
    return buffer.getvalue()


def csv_name(key):
    return os.path.basename(key)[:-4] + ".csv"


class Tree:
    """The folder an imitated origin serves."""

    def __init__(self, root):
        self.root = root

    def path(self, key):
        return os.path.join(self.root, key)

    def put(self, key, data, when=None):
        """An object, replaced as a whole if it is there."""
        path = self.path(key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        new = os.path.join(os.path.dirname(path), ".new")
        with open(new, "wb") as f:
            f.write(data)
        if when is not None:
            os.utime(new, (when, when))
        os.rename(new, path)

    def checksum(self, key, digest=None):
        if digest is None:
            with open(self.path(key), "rb") as f:
                digest = hashlib.file_digest(f, "sha256").hexdigest()
        end = "" if key.startswith("data/spot/") else "\n"
        self.put(
            key + ".CHECKSUM",
            f"{digest}  {os.path.basename(key)}{end}".encode(),
        )

    def archive(self, key, data, when=None):
        """An archive of these bytes, with its checksum."""
        self.put(key, data, when)
        self.checksum(key)

    def add(self, key, csv=None, when=None, **how):
        """An archive of one CSV; returns the CSV."""
        if csv is None:
            csv = rows(60, key)
        self.archive(key, zip_bytes((csv_name(key), csv), **how), when)
        return csv

    def klines(self, date, csv=None, symbol="BTCUSDT", **how):
        """A spot 1m archive, daily or monthly by its date."""
        return self.add(klines_key(date, symbol), csv, **how)


def klines_key(date, symbol="BTCUSDT"):
    cadence = "daily" if len(date) == 10 else "monthly"
    return (
        f"data/spot/{cadence}/klines/{symbol}/1m/{symbol}-1m-{date}.zip"
    )
