"""Archives for the tests of cache/, and what they hold.

archives.py DIR [NAME...] makes, for each NAME below (or all), DIR/NAME.zip with
one member (or several), and DIR/NAME.plain with the bytes of its first member.
"""
import io
import os
import random
import struct
import sys
import zipfile
import zlib

OUT, ONLY = sys.argv[1], sys.argv[2:]
MiB = 1 << 20


def csv(rows, seed):
    r = random.Random(seed)
    trade, time, price = 2500000000, 1704067200000, 430000
    lines = []
    for _ in range(rows):
        price += r.randint(-30, 30)
        time += r.randint(0, 90)
        k = r.randint(1, 4)
        lines.append("%d,%d.%d,0.%03d,%d,%d,%d,%s\n" % (
            trade, price // 10, price % 10, r.randint(1, 999), trade * 2,
            trade * 2 + k, time, r.choice(("true", "false"))))
        trade += 1
    return "".join(lines).encode()


def deflate(data, level=6, mem=8, strategy=zlib.Z_DEFAULT_STRATEGY,
            end=zlib.Z_FINISH):
    z = zlib.compressobj(level, zlib.DEFLATED, -15, mem, strategy)
    return z.compress(data) + z.flush(end)


def put(name, data):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)


def container(members, zip64=False, flags=0, count=None, csize=None, at=None):
    """[(name, method, crc, size, raw bytes)] -> a zip, written out by the
    letter of APPNOTE.TXT 4.3, for streams that zipfile would not make.
    count, csize, at: lies about entries, raw sizes and the directory."""
    body, central = bytearray(), bytearray()
    for name, method, crc, size, raw in members:
        name = name.encode()
        raw_size = len(raw) if csize is None else csize
        extra, sizes = b"", (raw_size, size)
        if zip64:
            extra = struct.pack("<HHQQ", 1, 16, size, raw_size)
            sizes = (0xffffffff, 0xffffffff)
        where = len(body)
        common = struct.pack("<HHHHHLLLHH", 45, flags, method, 0x6000, 0x5821,
                             crc, *sizes, len(name), len(extra))
        body += b"PK\x03\x04" + common + name + extra + raw
        central += (b"PK\x01\x02" + struct.pack("<H", 45) + common +
                    struct.pack("<HHHLL", 0, 0, 0, 0, where) + name + extra)
    at = len(body) if at is None else at
    n = len(members) if count is None else count
    body += central
    if zip64:
        record = len(body)
        body += b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, n,
                                            n, len(central), at)
        body += b"PK\x06\x07" + struct.pack("<LQL", 0, record, 1)
        n, at = 0xffff, 0xffffffff
    body += b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, n, n, len(central),
                                        at, 0)
    return bytes(body)


def one(name, plain, raw, method=8):
    put(name + ".plain", plain)
    put(name + ".zip", container([(name + ".csv", method, zlib.crc32(plain),
                                   len(plain), raw)]))


def long_matches(n, seed):
    """Text of which zlib makes few symbols and so blocks of megabytes."""
    r = random.Random(seed)
    words = [r.randbytes(250) for _ in range(60)]
    return b"".join(r.choice(words) for _ in range(n // 250))


def mixed(seed, text):
    """Blocks of every kind and size, some empty, one after the other."""
    r = random.Random(seed)
    plain, raw = bytearray(), bytearray()
    while len(plain) < 6 * MiB:
        n = r.choice((0, 1, 100, 5000, 70000, 400000, 1500000))
        at = r.randrange(len(text))
        part = r.choice((lambda: text[at:at + n], lambda: r.randbytes(n),
                         lambda: bytes(n), lambda: long_matches(n, n)))()
        level = r.choice((0, 1, 6, 9))
        strategy = r.choice((zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED,
                             zlib.Z_HUFFMAN_ONLY))
        plain += part
        raw += deflate(part, level, r.choice((1, 8, 9)), strategy,
                       zlib.Z_SYNC_FLUSH)
    return bytes(plain), bytes(raw) + b"\x03\x00"


def crc_combine(a, b, n):
    """CRC-32 of two parts by their CRCs and the length of the second: a goes
    through n zero bytes, by squaring (as zlib's crc32_combine does)."""
    def times(m, v):
        out, i = 0, 0
        while v:
            if v & 1:
                out ^= m[i]
            v >>= 1
            i += 1
        return out
    m = [0xedb88320] + [1 << i for i in range(31)]
    for _ in range(3):
        m = [times(m, v) for v in m]
    while n:
        if n & 1:
            a = times(m, a)
        m = [times(m, v) for v in m]
        n >>= 1
    return a ^ b


def huge():
    """A good 4 GiB in 5 MB: 16 MiB chunks of their number, in eight bytes,
    and bytes that count from 8 to 255 and again from 0."""
    chunk, chunks = 16 * MiB, 260
    rest = (bytes(range(256)) * (chunk // 256))[8:]
    z = zlib.compressobj(9, zlib.DEFLATED, -15)
    rest_raw = z.compress(rest) + z.flush(zlib.Z_FULL_FLUSH)
    rest_crc = zlib.crc32(rest)
    raw, crc = bytearray(), 0
    for i in range(chunks):
        head = struct.pack("<Q", i)
        raw += b"\x00\x08\x00\xf7\xff" + head + rest_raw
        crc = crc_combine(zlib.crc32(head, crc), rest_crc, len(rest))
    raw += b"\x03\x00"
    put("huge.zip", container([("huge.csv", 8, crc, chunk * chunks, raw)],
                              zip64=True))


def sparse():
    """A member over 4 GiB as it is, and one behind it. Zeros that zipfile is
    only told of: they take no room on the disk."""
    size = 9 << 29
    with zipfile.ZipFile(os.path.join(OUT, "sparse.zip"), "w") as z:
        zeros = z.open("zeros.csv", "w", force_zip64=True)
        z.fp.seek(size, os.SEEK_CUR)
        zeros._file_size = size
        # head -c 4831838208 /dev/zero | gzip -1 | tail -c 8 | od -tx4
        zeros._crc = 0xe90177c6
        zeros.close()
        z.writestr("small.csv", "a,b\n")


def several():
    text = csv(3000, 7)
    put("several.plain", text)
    with zipfile.ZipFile(os.path.join(OUT, "several.zip"), "w",
                         zipfile.ZIP_DEFLATED) as z:
        stamp = (2024, 7, 3, 12, 34, 56)

        def add(name, data, method):
            info = zipfile.ZipInfo(name, stamp)
            info.compress_type = method
            z.writestr(info, data)
        add("several.csv", text, zipfile.ZIP_DEFLATED)
        add("folder/", b"", zipfile.ZIP_STORED)
        add("folder/stored.bin", random.Random(3).randbytes(2 * MiB + 77),
            zipfile.ZIP_STORED)
        add("folder/empty", b"", zipfile.ZIP_STORED)
        add("deflated-empty", b"", zipfile.ZIP_DEFLATED)
        add("other.bz2", text, zipfile.ZIP_BZIP2)
        add("\u5e01\u5b89.csv", b"a,b\n", zipfile.ZIP_DEFLATED)
    # Where each member's data begin, by its local header (APPNOTE 4.3.7).
    with open(os.path.join(OUT, "several.zip"), "rb") as f, \
            zipfile.ZipFile(f) as z:
        lines = []
        for info in z.infolist():
            f.seek(info.header_offset + 26)
            lengths = struct.unpack("<HH", f.read(4))
            lines.append("%d\n" % (info.header_offset + 30 + sum(lengths)))
    put("several.offsets", "".join(lines).encode())


class Pipe(io.RawIOBase):
    """Not seekable, so that zipfile writes data descriptors."""
    def __init__(self, f):
        self.f = f

    def writable(self):
        return True

    def write(self, b):
        return self.f.write(b)


def descriptors():
    text = csv(30000, 8)
    put("descriptor.plain", text)
    with open(os.path.join(OUT, "descriptor.zip"), "wb") as f:
        with zipfile.ZipFile(Pipe(f), "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("descriptor.csv", text)


def layouts():
    """One CSV in zips that begin in different ways."""
    text = csv(60000, 9)
    put("layout.plain", text)

    def path(name):
        return os.path.join(OUT, name + ".zip")

    def write(name, change=lambda z: None, method=zipfile.ZIP_DEFLATED,
              mode="w", zip64=False):
        with zipfile.ZipFile(path(name), mode, method) as z:
            with z.open("layout.csv", "w", force_zip64=zip64) as f:
                f.write(text)
            change(z)
        with open(path(name), "rb") as f:
            return bytearray(f.read())

    def comment(z):
        z.comment = b"as published " * 40

    def another(z):
        z.writestr("deep/layout.csv", text[:100000])

    def reverse(z):
        another(z)
        z.filelist.reverse()
    true = write("layout")
    write("layout-comment", comment)
    write("layout-stored", method=zipfile.ZIP_STORED)
    # As Python writes it from 3.11.4 on: the sizes are in the extra field alone.
    big = write("layout-zip64", zip64=True)
    big[18:26] = b"\xff" * 8
    put("layout-zip64.zip", big)
    write("layout-two", another)
    write("layout-reversed", reverse)
    put("layout-prefix.zip", b"#!/bin/sh\n" * 50)
    write("layout-prefix", mode="a")
    with open(path("layout-descriptor"), "wb") as f:
        with zipfile.ZipFile(Pipe(f), "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("layout.csv", text)
    lies = bytearray(true)
    lies[14:26] = struct.pack("<LLL", 0, len(true) // 2, len(text) // 2)
    put("layout-local.zip", lies)
    put("layout-garbage.zip", true + bytes(300))
    put("layout-cut.zip", true[:len(true) // 2])
    true[len(true) // 2] ^= 0xff
    put("layout-flipped.zip", true)


def damaged():
    plain = csv(30000, 5)
    raw, crc, n = deflate(plain), zlib.crc32(plain), len(plain)

    def bad(name, crc=crc, size=n, raw=raw, method=8):
        put(name + ".zip", container([("x.csv", method, crc, size, raw)]))
    bad("bad-crc", crc=crc ^ 1)
    bad("bad-longer", size=n - 1)
    bad("bad-shorter", size=n + 1)
    bad("bad-much-shorter", size=n + 3 * MiB)
    bad("bad-garbage", raw=raw + b"\0")
    bad("bad-cut", raw=raw[:-1])
    bad("bad-cut-early", raw=raw[:len(raw) // 2])
    bad("bad-block", raw=b"\x07" + raw)
    bad("bad-no-stream", size=0, crc=0, raw=b"")
    bad("bad-stored-size", method=0, raw=plain, size=n + 1)
    bad("bad-empty-blocks", size=2 * MiB, raw=b"\0\0\0\xff\xff" * 100000)



def lies():
    """Directories that do not tell the truth."""
    raw = deflate(b"hello\n")
    member = [("lies.csv", 8, zlib.crc32(b"hello\n"), 6, raw)]
    put("true.zip", container(member))
    put("true-zip64.zip", container(member, zip64=True))
    put("encrypted.zip", container(member, flags=1))
    put("many.zip", container([("m", 0, 0, 0, b"")] * 65537, zip64=True))
    put("lies-size.zip", container([member[0][:3] + ((1 << 63) + 5, raw)],
                                   zip64=True))
    put("lies-csize.zip", container(member, csize=1000))
    put("lies-csize64.zip", container(member, zip64=True, csize=1 << 62))
    put("lies-count.zip", container(member, count=40000))
    put("lies-count64.zip", container(member, zip64=True, count=1 << 40))
    put("lies-where.zip", container(member, at=1 << 30))
    put("lies-where64.zip", container(member, zip64=True, at=1 << 62))
    put("nothing.zip", b"")
    put("no-zip.zip", b"<html>" * 1000)


def csv_like():
    text = csv(70000, 1)
    one("csv", text, deflate(text))
    one("small-blocks", text, deflate(text, 9, 1))
    one("fixed", text, deflate(text, 6, 8, zlib.Z_FIXED))
    for i in range(3):
        one("mixed-%d" % i, *mixed(100 + i, text))
    one("one-byte", b"x", deflate(b"x"))


def stored():
    noise = random.Random(2).randbytes(3 * MiB + 12345)
    one("stored-blocks", noise, deflate(noise, 0))
    one("stored", noise, noise, method=0)
    one("whole-spans", noise[:2 * MiB], deflate(noise[:2 * MiB], 1))


def compressible():
    zeros = bytes(6 * MiB + 5)
    one("zeros", zeros, deflate(zeros, 9, 9))
    matches = long_matches(9 * MiB, 4)
    one("long-blocks", matches, deflate(matches, 9, 9))
    # One block up to beyond 512 KiB, so that the first span ends there, and a
    # window before it that begins with zeros: a case of its own for ISA-L.
    r = random.Random(21)
    words = [r.randbytes(250) + bytes(500) for _ in range(60)]
    rest = b"".join(r.choice(words) for _ in range(150))
    for i in range(4):
        plain = bytes(MiB // 2 - 32768 + 4200 + 40 * i) + rest
        one("zero-window-%d" % i, plain, deflate(plain, 9, 9))
    # Block after block with the codes of the one before.
    zeros = bytes(12 * MiB)
    one("same-codes", zeros, deflate(zeros, 6, 2))
    same = b"0.5,1,2,3\n" * 1200000
    one("same-codes-too", same, deflate(same, 6, 3))
    # And with an empty stored block between.
    raw = deflate(matches[:700000], 6, 9, end=zlib.Z_SYNC_FLUSH)
    one("same-codes-apart", matches[:700000] * 9, raw * 9 + b"\x03\x00")


def main():
    for f in (csv_like, stored, compressible, several, descriptors, layouts,
              damaged, lies, huge, sparse):
        if not ONLY or f.__name__ in ONLY:
            f()


main()
