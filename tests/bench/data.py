"""Archives as large as the real ones, made once and kept in build/bench/data.

The big ones are rows that tests/bench/rows.c invents, through zlib's level 6
in one stream. Of the many and the huge ones only a block is compressed; it is
repeated, each time ended by a full flush, so that the blocks can stand behind
each other and gigabytes take seconds.
"""

import ctypes
import dataclasses
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib

import archives
import harness

HERE = os.path.dirname(os.path.realpath(__file__))
BENCH = os.path.join(harness.BUILD, "bench")
BIG = [
    f"data/spot/monthly/aggTrades/{coin}USDT/{coin}USDT-aggTrades-2025-01.zip"
    for coin in ("BTC", "ETH")
]
DAYS = "data/spot/daily/klines/DAYSUSDT/1d"
# No multiple of a span or a page, so that no block lies in one as another.
BLOCK_BYTES = 1_000_003
FLUSH_BYTES = 100_000
CHUNK = 1 << 20
MADE = 1  # to be raised when what is made here or by rows.c, known.c changes
GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Sizes:
    name: str
    runs: int
    big_bytes: int  # of CSV
    many_count: int
    many_bytes: int
    growing_bytes: tuple  # CSVs for memory over size
    known: int  # objects in the catalog
    days: int  # files of a folder
    small: int  # of these, how many are opened
    random: int  # reads


FULL = Sizes(
    name="full",
    runs=5,
    big_bytes=1_000_000_000,
    many_count=64,
    many_bytes=1_000_000_000,
    growing_bytes=(10**7, 10**8, 10**9, 5 * GIB, 20 * GIB),
    known=1_000_000,
    days=3300,
    small=1000,
    random=1000,
)
QUICK = Sizes(
    name="quick",
    runs=3,
    big_bytes=200_000_000,
    many_count=64,
    many_bytes=50_000_000,
    growing_bytes=(10**7, 10**8, 5 * GIB),
    known=50_000,
    days=3300,
    small=300,
    random=300,
)
CHECK = Sizes(
    name="check",
    runs=1,
    big_bytes=6_000_000,
    many_count=64,
    many_bytes=1_500_000,
    growing_bytes=(2_500_000, 7_000_000),
    known=3000,
    days=40,
    small=40,
    random=50,
)


def many_key(number):
    symbol = f"MANY{number:02d}USDT"
    return f"data/spot/monthly/klines/{symbol}/1s/{symbol}-1s-2024-01.zip"


def growing_key(number):
    symbol = f"GROW{number:02d}USDT"
    return f"data/spot/monthly/klines/{symbol}/1s/{symbol}-1s-2024-01.zip"


def csv_of(key):
    """The path below a mount of the CSV in the zip of this key."""
    return key[:-4] + ".csv"


# ---- zips ----


def rows_command(kind, size, seed):
    return [os.path.join(BENCH, "rows"), kind, str(size), str(seed)]


def entry(key):
    info = zipfile.ZipInfo(archives.csv_name(key), (2025, 2, 3, 2, 1, 20))
    info.external_attr = 0o100644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def write_streamed(path, key, command):
    """What a command prints as the one member of a zip."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open(entry(key), "w") as member:
                shutil.copyfileobj(process.stdout, member, CHUNK)
    if process.returncode:
        raise RuntimeError(f"{command[0]}: status {process.returncode}")


libz = ctypes.CDLL("libz.so.1")
libz.crc32_combine.restype = ctypes.c_ulong
libz.crc32_combine.argtypes = [ctypes.c_ulong, ctypes.c_ulong, ctypes.c_long]


def pack(block):
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    parts = []
    for at in range(0, len(block), FLUSH_BYTES):
        parts.append(deflate.compress(block[at : at + FLUSH_BYTES]))
        parts.append(deflate.flush(zlib.Z_FULL_FLUSH))
    return b"".join(parts)


class Repeated:
    """In place of zipfile's own compressor: what it is given counts for
    nothing, all has been compressed."""

    @staticmethod
    def compress(_):
        return b""

    @staticmethod
    def flush():
        return zlib.compressobj(6, zlib.DEFLATED, -15).flush()


def write_repeated(path, key, size, seed):
    """A zip whose CSV is a block of rows, repeated up to the size."""
    block = subprocess.run(
        rows_command("quiet", min(size, BLOCK_BYTES), seed),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    times, rest = divmod(size, len(block))
    pieces = [(block, pack(block))] * times
    if rest:
        pieces.append((block[:rest], pack(block[:rest])))
    crcs = {len(piece): zlib.crc32(piece) for piece, _ in pieces}
    crc = 0
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open(entry(key), "w", force_zip64=True) as member:
            member._compressor = Repeated
            for piece, packed in pieces:
                archive.fp.write(packed)
                crc = libz.crc32_combine(crc, crcs[len(piece)], len(piece))
            # What zipfile would have counted, had it seen the bytes.
            member._crc = crc
            member._file_size = size
            member._compress_size = len(pieces[0][1]) * times
            if rest:
                member._compress_size += len(pieces[-1][1])


def raw_deflate(path):
    """Offset and length of the first member's deflate stream, its CRC-32 and
    its size inflated."""
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[0]
        archive.fp.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", archive.fp.read(4))
        start = info.header_offset + 30 + name + extra
        return start, info.compress_size, info.CRC, info.file_size


def write_gzip(path, zip_path):
    """The deflate stream of a zip's member, byte by byte, as .gz (RFC 1952)."""
    start, left, crc, size = raw_deflate(zip_path)
    with open(path, "wb") as out, open(zip_path, "rb") as archive:
        out.write(b"\x1f\x8b\x08\0\0\0\0\0\0\x03")
        archive.seek(start)
        while left:
            chunk = archive.read(min(left, CHUNK))
            out.write(chunk)
            left -= len(chunk)
        out.write(struct.pack("<II", crc, size & 0xFFFFFFFF))


# ---- sets of them ----


class Data:
    """What the rows of one run read, each made when first asked for."""

    def __init__(self, sizes):
        self.sizes = sizes
        self.folder = os.path.join(BENCH, "data", sizes.name)
        self.root = os.path.join(self.folder, "root")
        self.tree = archives.Tree(self.root)
        os.makedirs(self.root, exist_ok=True)

    def once(self, name, make, *args):
        """Makes what is missing, or was made another way."""
        mark = os.path.join(self.folder, "made-" + name)
        sizes = dataclasses.replace(self.sizes, runs=0, random=0)
        how = f"{MADE} {sizes}"
        if harness.read_text(mark) != how:
            print(f"making {name} ({self.sizes.name})", file=sys.stderr)
            make(*args)
            with open(mark, "w", encoding="utf-8") as f:
                f.write(how)

    def zip(self, key):
        return self.tree.path(key)

    def in_tree(self, key, write, *args):
        os.makedirs(os.path.dirname(self.zip(key)), exist_ok=True)
        write(self.zip(key), key, *args)
        self.tree.checksum(key)

    def big(self, number):
        """The key of one of the two big archives."""

        def make():
            size = self.sizes.big_bytes
            command = rows_command("trades", size, number + 1)
            self.in_tree(BIG[number], write_streamed, command)

        self.once(f"big-{number}", make)
        return BIG[number]

    def gzip(self, number):
        """The same deflate stream as .gz."""
        key = self.big(number)
        path = os.path.join(self.folder, f"big-{number}.gz")
        self.once(f"gzip-{number}", write_gzip, path, self.zip(key))
        return path

    def plain(self, key):
        """The CSV of an archive as unzip extracts it."""
        name = os.path.basename(csv_of(key))

        def make():
            with open(os.path.join(self.folder, name), "wb") as out:
                subprocess.run(
                    ["unzip", "-p", self.zip(key)],
                    stdout=out,
                    check=True,
                    timeout=600,
                )

        self.once(name, make)
        return os.path.join(self.folder, name)

    def many(self):
        """The keys of many archives of one size."""
        keys = [many_key(n) for n in range(self.sizes.many_count)]

        def make():
            for n, key in enumerate(keys):
                self.in_tree(key, write_repeated, self.sizes.many_bytes, n + 1)

        self.once("many", make)
        return keys

    def growing(self):
        """(size of the CSV, key), the sizes ascending."""
        sizes = self.sizes.growing_bytes
        keys = [growing_key(n) for n in range(len(sizes))]

        def make():
            for n, (size, key) in enumerate(zip(sizes, keys)):
                self.in_tree(key, write_repeated, size, 100 + n)

        self.once("growing", make)
        return list(zip(sizes, keys))

    def days(self):
        """The keys of a folder of small archives, a day each."""
        folder = os.path.join(self.root, DAYS)

        def make():
            subprocess.run(
                [
                    sys.executable,
                    os.path.join(harness.TOP, "tests/generate/generate.py"),
                    self.root,
                    "--days",
                    str(self.sizes.days),
                ],
                check=True,
                timeout=600,
            )

        self.once("days", make)
        names = sorted(n for n in os.listdir(folder) if n.endswith(".zip"))
        return [f"{DAYS}/{name}" for name in names]

    def extracted_days(self, attribute, value):
        """A folder of the first of their CSVs, each with one attribute."""
        folder = os.path.join(self.folder, "extracted")

        def make():
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            for key in self.days()[: self.sizes.small]:
                with zipfile.ZipFile(self.zip(key)) as archive:
                    archive.extractall(folder)
                name = os.path.join(folder, archives.csv_name(key))
                os.setxattr(name, attribute, value)

        self.once("extracted", make)
        return folder

    def known(self):
        """A cache whose catalog knows many objects; a copy may be used up."""
        cache = os.path.join(self.folder, "known")

        def make():
            shutil.rmtree(cache, ignore_errors=True)
            os.makedirs(cache, mode=0o700)
            subprocess.run(
                [os.path.join(BENCH, "known"), cache, str(self.sizes.known)],
                check=True,
                timeout=1200,
            )

        self.once("known", make)
        return cache
