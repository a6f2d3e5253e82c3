"""Zips that are odd, damaged or hostile, each under a sound name.

Each has an entry "expect" in the manifest, what a careful reader makes of it in
the strict mode of the project's design: "ok"; the errno that open() gives;
"unnamed", where no member has the zip's name, but there is only one; or
"ambiguous", where the CSV told in the manifest, or an error, but no other bytes
may come.
"""

import contextlib
import random
import struct
import warnings
import zipfile
import zlib

import containers
import keys
import rows

PASSWORD = b"secret"
HUGE_BYTES = (4 << 30) + (200 << 20)


class Pieces:
    """The CSV of an archive in pieces, counted as they are taken."""

    def __init__(self, archive, seed, count=None):
        self.tally = containers.Tally()
        self.lines = rows.lines_of(archive, seed, count)

    def __iter__(self):
        for piece in containers.chunks(self.lines):
            yield self.tally.add(piece)

    def bytes(self):
        return b"".join(self)


@contextlib.contextmanager
def patched(**names):
    """zipfile with other inner workings for a while."""
    kept = {name: getattr(zipfile, name) for name in names}
    try:
        for name, value in names.items():
            setattr(zipfile, name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(zipfile, name, value)


def put(z, name, when, data, method=zipfile.ZIP_DEFLATED, **more):
    info = containers.member_info(name, when)
    info.compress_type = method
    for key, value in more.items():
        setattr(info, key, value)
    with z.open(info, "w") as member:
        for piece in data if not isinstance(data, bytes) else [data]:
            member.write(piece)
    return info


def simple(path, archive, seed, when, **more):
    pieces = Pieces(archive, seed)
    with zipfile.ZipFile(path, "w") as z:
        put(z, archive.name + ".csv", when, pieces, **more)
    return pieces.tally


def ok(tally, **more):
    return {"expect": "ok", **tally.as_dict("csv"), **more}


def stored(path, archive, seed, when):
    """The member is not compressed."""
    return ok(simple(path, archive, seed, when, method=zipfile.ZIP_STORED))


def empty_member(path, archive, seed, when):
    """The CSV has no byte."""
    tally = containers.Tally()
    with zipfile.ZipFile(path, "w") as z:
        put(z, archive.name + ".csv", when, b"", zipfile.ZIP_DEFLATED)
    return ok(tally)


def empty_stored(path, archive, seed, when):
    """The CSV has no byte, stored."""
    tally = containers.Tally()
    with zipfile.ZipFile(path, "w") as z:
        put(z, archive.name + ".csv", when, b"", zipfile.ZIP_STORED)
    return ok(tally)


def empty_zip(path, archive, seed, when):
    """No member at all: a sound zip (APPNOTE 4.3.1 calls one that is an end
    record only an empty one), whose digest holds. There is just no CSV."""
    with zipfile.ZipFile(path, "w"):
        pass
    return {"expect": "ENOENT"}


def fixed_huffman(path, archive, seed, when):
    """Deflate blocks with fixed codes only: no dynamic block ever begins."""
    with patched(_get_compressor=lambda *args: zlib.compressobj(
            6, zlib.DEFLATED, -15, 9, zlib.Z_FIXED)):
        return ok(simple(path, archive, seed, when))


def stored_blocks(path, archive, seed, when):
    """Deflate at level 0: blocks without compression."""
    with patched(_get_compressor=lambda *args: zlib.compressobj(
            0, zlib.DEFLATED, -15)):
        return ok(simple(path, archive, seed, when))


def many_blocks(path, archive, seed, when):
    """A flush after each piece: empty blocks within the stream."""
    class Flushing:
        def __init__(self, *args):
            self.inner = zlib.compressobj(6, zlib.DEFLATED, -15)

        def compress(self, data):
            return b"".join(
                self.inner.compress(data[i:i + 1000])
                + self.inner.flush(zlib.Z_SYNC_FLUSH)
                for i in range(0, len(data), 1000))

        def flush(self):
            return self.inner.flush()

    with patched(_get_compressor=Flushing):
        return ok(simple(path, archive, seed, when))


def zip64(path, archive, seed, when):
    """Sizes in zip64 extras and a zip64 end record, though all is small."""
    with patched(ZIP64_LIMIT=0):
        pieces = Pieces(archive, seed)
        with zipfile.ZipFile(path, "w") as z:
            info = containers.member_info(archive.name + ".csv", when)
            with z.open(info, "w", force_zip64=True) as member:
                for piece in pieces:
                    member.write(piece)
    return ok(pieces.tally)


def zip64_infozip(path, archive, seed, when):
    """The same by the program zip."""
    pieces = Pieces(archive, seed)
    containers.write_infozip(path, archive.name + ".csv", pieces, when,
                             containers.Tally(), ["-fz"])
    return ok(pieces.tally)


def infozip(path, archive, seed, when):
    """A spot archive in the container of the futures."""
    pieces = Pieces(archive, seed)
    containers.write_infozip(path, archive.name + ".csv", pieces, when,
                             containers.Tally())
    return ok(pieces.tally)


def data_descriptor(path, archive, seed, when):
    """Sizes and CRC only behind the data, as written to a pipe."""
    class Pipe:
        def __init__(self, f):
            self.f = f

        def write(self, data):
            return self.f.write(data)

        def flush(self):
            self.f.flush()

    pieces = Pieces(archive, seed)
    with open(path, "wb") as f, zipfile.ZipFile(Pipe(f), "w") as z:
        put(z, archive.name + ".csv", when, pieces)
    return ok(pieces.tally)


class Repeating:
    """Compresses a piece it has seen before by saying the same again: each
    piece ends in a full flush, so none refers to what came before."""

    def __init__(self, *args):
        self.seen = {}

    @staticmethod
    def squeeze(data):
        z = zlib.compressobj(9, zlib.DEFLATED, -15)
        return z.compress(data) + z.flush(zlib.Z_FULL_FLUSH)

    def compress(self, data):
        if len(data) < 4096:
            return self.squeeze(data)
        if id(data) not in self.seen:
            self.seen[id(data)] = self.squeeze(data)
        return self.seen[id(data)]

    def flush(self):
        return zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def huge(path, archive, seed, when):
    """A member of more than 4 GiB; each part of it can be told from others
    by the numbered row before it."""
    tally = containers.Tally()
    row = next(iter(rows.lines_of(archive, seed))).encode() + b"\n"
    block = row * (1_000_003 // len(row))
    with patched(_get_compressor=Repeating):
        with zipfile.ZipFile(path, "w") as z:
            info = containers.member_info(archive.name + ".csv", when)
            info.file_size = HUGE_BYTES
            with z.open(info, "w") as member:
                number = 0
                while tally.size < HUGE_BYTES:
                    number += 1
                    time, _, rest = row.partition(b",")
                    mark = b"%d,%s" % (int(time) + number, rest)
                    member.write(tally.add(mark))
                    member.write(tally.add(block))
    return ok(tally)


def two_members(path, archive, seed, when):
    """The CSV, and another one of the same name in folders."""
    pieces = Pieces(archive, seed)
    other = Pieces(archive, seed + 1, 1000)
    nested = f"data/export/{archive.symbol}/{archive.name}.csv"
    with zipfile.ZipFile(path, "w") as z:
        put(z, nested, when, other)
        put(z, archive.name + ".csv", when, pieces)
    return ok(pieces.tally, members=[nested, archive.name + ".csv"],
              nested={nested: other.tally.as_dict("csv")})


def folder_member(path, archive, seed, when):
    """A folder as a member, then the CSV."""
    pieces = Pieces(archive, seed)
    with zipfile.ZipFile(path, "w") as z:
        z.writestr(zipfile.ZipInfo("export/", when.timetuple()[:6]), b"")
        put(z, archive.name + ".csv", when, pieces)
    return ok(pieces.tally)


def other_name(path, archive, seed, when):
    """One member, not named as the zip is."""
    pieces = Pieces(archive, seed)
    with zipfile.ZipFile(path, "w") as z:
        put(z, "export.csv", when, pieces)
    return {"expect": "unnamed", **pieces.tally.as_dict("csv"),
            "members": ["export.csv"]}


class Crypt:
    """Deflate, then the cipher of APPNOTE section 6.1, which zip -P has (with
    a header from the clock; this one is always the same)."""

    crc = 0

    def __init__(self, *args):
        self.inner = zlib.compressobj(6, zlib.DEFLATED, -15)
        self.state = [0x12345678, 0x23456789, 0x34567890]
        for byte in PASSWORD:
            self.turn(byte)
        head = random.Random(0).randbytes(11) + bytes([Crypt.crc >> 24])
        self.pending = self.encrypt(head)

    @staticmethod
    def crc_byte(crc, byte):
        return (zlib.crc32(bytes([byte]), crc ^ 0xffffffff) ^ 0xffffffff)

    def turn(self, byte):
        k = self.state
        k[0] = self.crc_byte(k[0], byte)
        k[1] = ((k[1] + (k[0] & 0xff)) * 134775813 + 1) & 0xffffffff
        k[2] = self.crc_byte(k[2], k[1] >> 24)

    def encrypt(self, data):
        out = bytearray()
        for byte in data:
            t = (self.state[2] | 2) & 0xffff
            out.append(byte ^ (t * (t ^ 1) >> 8 & 0xff))
            self.turn(byte)
        return bytes(out)

    def compress(self, data):
        out = self.pending + self.encrypt(self.inner.compress(data))
        self.pending = b""
        return out

    def flush(self):
        return self.encrypt(self.inner.flush())


def encrypted(path, archive, seed, when):
    """The member has a password ("secret")."""
    data = Pieces(archive, seed, 100).bytes()
    Crypt.crc = zlib.crc32(data)
    with patched(_get_compressor=Crypt), zipfile.ZipFile(path, "w") as z:
        info = containers.member_info(archive.name + ".csv", when)
        with z.open(info, "w") as member:
            member.write(data)
            info.flag_bits |= 1
    return {"expect": "EOPNOTSUPP"}


def bzip2(path, archive, seed, when):
    """Method 12."""
    simple(path, archive, seed, when, method=zipfile.ZIP_BZIP2)
    return {"expect": "EOPNOTSUPP"}


def lzma(path, archive, seed, when):
    """Method 14."""
    simple(path, archive, seed, when, method=zipfile.ZIP_LZMA)
    return {"expect": "EOPNOTSUPP"}


def edit(path, change):
    with open(path, "rb") as f:
        data = bytearray(f.read())
    changed = change(data)
    with open(path, "wb") as f:
        f.write(data if changed is None else changed)


def truncated(path, archive, seed, when):
    """The last third is missing, under a right checksum."""
    simple(path, archive, seed, when)
    edit(path, lambda d: d[:len(d) * 2 // 3])
    return {"expect": "EBADMSG"}


def not_a_zip(path, archive, seed, when):
    """A web page, under a right checksum."""
    with open(path, "wb") as f:
        f.write(b"<!DOCTYPE html><html><body>not found</body></html>\n" * 40)
    return {"expect": "EBADMSG"}


def no_bytes(path, archive, seed, when):
    """A zip of no bytes, under a right checksum."""
    with open(path, "wb"):
        pass
    return {"expect": "EBADMSG"}


def patch_central(path, offset, form, change):
    """Change one field of the first central record."""
    def work(d):
        at = d.rindex(b"PK\1\2") + offset
        value, = struct.unpack_from(form, d, at)
        struct.pack_into(form, d, at, change(value))
    edit(path, work)


def bad_crc(path, archive, seed, when):
    """Another CRC in the directory, under a right checksum."""
    simple(path, archive, seed, when)
    patch_central(path, 16, "<I", lambda v: v ^ 1)
    return {"expect": "EBADMSG"}


def bad_deflate(path, archive, seed, when):
    """A flipped byte amid the deflate stream, under a right checksum."""
    simple(path, archive, seed, when)

    def flip(d):
        d[len(d) // 2] ^= 0xff

    edit(path, flip)
    return {"expect": "EBADMSG"}


def size_too_small(path, archive, seed, when):
    """The directory says a smaller CSV than there is."""
    simple(path, archive, seed, when)
    patch_central(path, 24, "<I", lambda v: v - 1000)
    return {"expect": "EBADMSG"}


def size_too_large(path, archive, seed, when):
    """The directory says a larger CSV than there is."""
    simple(path, archive, seed, when)
    patch_central(path, 24, "<I", lambda v: v + 1000)
    return {"expect": "EBADMSG"}


def far_off(path, archive, seed, when):
    """The local header would lie beyond the file."""
    simple(path, archive, seed, when)
    patch_central(path, 42, "<I", lambda v: 0x7fffff00)
    return {"expect": "EBADMSG"}


def bad_local(path, archive, seed, when):
    """The local header lacks its signature. What is told of a member stands
    in the directory; the local header only says where the data begin, and that
    they do is shown by their length and CRC. With the digest, all witnesses
    speak for these bytes, though unzip and zipfile read none of them."""
    tally = simple(path, archive, seed, when)

    def wipe(d):
        d[0:4] = b"JUNK"

    edit(path, wipe)
    return ok(tally)


def comment(path, archive, seed, when):
    """The longest comment there can be."""
    tally = simple(path, archive, seed, when)
    with zipfile.ZipFile(path, "a") as z:
        z.comment = (b"a comment " * 7000)[:65535]
    return ok(tally)


def record_in_comment(path, archive, seed, when):
    """An end record of an empty zip within the comment: some readers take
    this one, though what follows it is no comment of its own."""
    tally = simple(path, archive, seed, when)
    with zipfile.ZipFile(path, "a") as z:
        fake = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)
        z.comment = b"before " + fake + b" after"
    return {"expect": "ambiguous", **tally.as_dict("csv")}


def many_members(path, archive, seed, when):
    """3000 members: a directory of more than 64 KiB."""
    pieces = Pieces(archive, seed)
    with zipfile.ZipFile(path, "w") as z:
        put(z, archive.name + ".csv", when, pieces)
        for i in range(3000):
            put(z, f"parts/part-{i:05d}.csv", when, b"%d\n" % i)
    return ok(pieces.tally)


HOSTILE_NAMES = [
    "../escape.csv", "../../../../tmp/escape.csv", "/absolute.csv",
    "a//b.csv", "./dot.csv", "a/../../up.csv", "..", ".", "a/", "a",
    "twice.csv", "twice.csv", "new\nline.csv", "back\\slash.csv",
    "C:\\drive.csv", "x" * 300 + ".csv", "y/" * 500 + "deep.csv",
    "z" * 60_000, " ", "tab\t.csv", "bidi\u202efdp.csv",
]


def hostile_names(path, archive, seed, when):
    """Member names that must not lead anywhere, beside the CSV."""
    pieces = Pieces(archive, seed)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as z:
        warnings.simplefilter("ignore", UserWarning)
        for name in HOSTILE_NAMES:
            if name.endswith("/"):
                z.writestr(zipfile.ZipInfo(name, when.timetuple()[:6]), b"")
            else:
                put(z, name, when, b"hostile\n")
        put(z, archive.name + ".csv", when, pieces)
    return ok(pieces.tally)


def same_name_twice(path, archive, seed, when):
    """Two root members, both named as the zip is, with other rows."""
    pieces, other = Pieces(archive, seed), Pieces(archive, seed + 1, 100)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as z:
        warnings.simplefilter("ignore", UserWarning)
        put(z, archive.name + ".csv", when, pieces)
        put(z, archive.name + ".csv", when, other)
    return {"expect": "ambiguous", **pieces.tally.as_dict("csv")}


def header_only(path, archive, seed, when):
    """A header and no row."""
    tally = containers.Tally()
    with zipfile.ZipFile(path, "w") as z:
        put(z, archive.name + ".csv", when,
            tally.add(rows.KLINE_HEADER.encode() + b"\n"))
    return ok(tally)


def no_final_newline(path, archive, seed, when):
    """The last line has no LF."""
    tally = containers.Tally()
    with zipfile.ZipFile(path, "w") as z:
        put(z, archive.name + ".csv", when,
            tally.add(Pieces(archive, seed).bytes().rstrip(b"\n")))
    return ok(tally)


def wrong_checksum(path, archive, seed, when):
    """A digest of other bytes: the zip itself is sound."""
    tally = simple(path, archive, seed, when)
    containers.write_checksum(path, archive.market, digest="0" * 64)
    return {"expect": "EBADMSG", **tally.as_dict("csv")}


def no_checksum(path, archive, seed, when):
    """No .CHECKSUM: the zip itself is sound."""
    tally = simple(path, archive, seed, when)
    return {"expect": "EBADMSG", **tally.as_dict("csv")}


def other_checksum(path, archive, seed, when):
    """The right digest beside another file's name."""
    tally = simple(path, archive, seed, when)
    containers.write_checksum(path, archive.market,
                              name="OTHERUSDT-1m-2024-01-01.zip")
    return {"expect": "EBADMSG", **tally.as_dict("csv")}


def junk_checksum(path, archive, seed, when):
    """A web page for a checksum."""
    tally = simple(path, archive, seed, when)
    containers.write_checksum(path, archive.market,
                              text="<html><body>sorry</body></html>\n")
    return {"expect": "EBADMSG", **tally.as_dict("csv")}


KINDS = {f.__name__: f for f in (
    stored, empty_member, empty_stored, empty_zip, fixed_huffman,
    stored_blocks, many_blocks, zip64, zip64_infozip, infozip,
    data_descriptor, two_members, folder_member, other_name, encrypted,
    bzip2, lzma, truncated, not_a_zip, no_bytes, bad_crc, bad_deflate,
    size_too_small, size_too_large, far_off, bad_local, comment,
    record_in_comment, many_members, hostile_names, same_name_twice, header_only,
    no_final_newline, wrong_checksum, no_checksum, other_checksum,
    junk_checksum)}
NAMES = list(KINDS)
UNZIP_REFUSES = {"bad_local"}
OWN_CHECKSUM = {"wrong_checksum", "no_checksum", "other_checksum",
                "junk_checksum"}


def write(name, path, archive, seed, when):
    """Write one hazard and return what the manifest says of it."""
    entry = {**KINDS, "huge": huge}[name](path, archive, seed, when)
    if name not in OWN_CHECKSUM:
        containers.write_checksum(path, archive.market)
    return entry
