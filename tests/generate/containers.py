"""Zips as the archive has them (section 5.1 of the reference).

Spot archives look written by Python's zipfile, all others by Info-ZIP's zip:
so these two write them here. What depends on the machine (user and group ids)
is put to the values of the real files afterwards.
"""

import datetime
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
import zipfile
import zlib

UID, GID = 993, 989  # in the extra field 0x7875 of the real files


class Tally:
    """Size, SHA-256 and CRC-32 of bytes as they pass."""

    def __init__(self):
        self.size, self.crc, self.sha = 0, 0, hashlib.sha256()

    def add(self, data):
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)
        self.sha.update(data)
        return data

    def as_dict(self, prefix):
        return {f"{prefix}_size": self.size,
                f"{prefix}_sha256": self.sha.hexdigest(),
                f"{prefix}_crc32": f"{self.crc:08x}"}


def chunks(lines, count=4096):
    """Lines to pieces of bytes, each line with its LF."""
    piece = []
    for line in lines:
        piece.append(line)
        if len(piece) == count:
            yield ("\n".join(piece) + "\n").encode()
            piece = []
    if piece:
        yield ("\n".join(piece) + "\n").encode()


def member_info(name, when):
    """A member as zipfile writes one that was a file of mode 0644."""
    info = zipfile.ZipInfo(name, when.timetuple()[:6])
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    return info


def write_python(path, name, pieces, when, tally):
    with zipfile.ZipFile(path, "w") as z:
        with z.open(member_info(name, when), "w") as member:
            for piece in pieces:
                member.write(tally.add(piece))


def epoch(when):
    return int(when.replace(tzinfo=datetime.timezone.utc).timestamp())


def write_infozip(path, name, pieces, when, tally, options=()):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        csv = os.path.join(folder, name)
        with open(csv, "wb") as f:
            for piece in pieces:
                f.write(tally.add(piece))
        os.chmod(csv, 0o644)
        os.utime(csv, (epoch(when), epoch(when)))
        made = os.path.join(folder, "made.zip")
        subprocess.run(
            ["zip", "-q", *options, made, name], cwd=folder, check=True,
            env={"PATH": os.environ["PATH"], "TZ": "UTC",
                 "LC_ALL": "C.UTF-8"})
        set_owner(made)
        shutil.move(made, path)


def set_owner(path):
    """UID and GID in place of the ones of this machine."""
    head = b"ux\x0b\x00\x01\x04"
    here = head + struct.pack("<IBI", os.getuid(), 4, os.getgid())
    there = head + struct.pack("<IBI", UID, 4, GID)
    with open(path, "r+b") as f:
        start = f.read(4096)
        f.seek(0, os.SEEK_END)
        tail_at = max(0, f.tell() - 4096)
        f.seek(0)
        f.write(start.replace(here, there, 1))
        f.seek(tail_at)
        tail = f.read()
        f.seek(tail_at)
        f.write(tail.replace(here, there))


def published(archive):
    """When the archive was made: the member's time, in UTC."""
    last = archive.days[-1]
    after = datetime.datetime(last.year, last.month, last.day)
    after += datetime.timedelta(1)
    if archive.market != "spot":
        return after + datetime.timedelta(hours=6, minutes=13, seconds=22)
    if archive.cadence == "monthly":
        monday = after + datetime.timedelta((7 - after.weekday()) % 7)
        return monday + datetime.timedelta(hours=2, minutes=1, seconds=20)
    if after < datetime.datetime(2023, 7, 1):
        return datetime.datetime(2023, 7, 17, 7, 48, 26)  # made anew
    return after + datetime.timedelta(minutes=13, seconds=8)


def file_digest(path):
    tally = Tally()
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            tally.add(piece)
    return tally


def write_checksum(path, market, digest=None, name=None, text=None):
    """The .CHECKSUM beside a zip; spot's has no final LF."""
    if text is None:
        digest = digest or file_digest(path).sha.hexdigest()
        name = name or os.path.basename(path)
        text = f"{digest}  {name}" + ("" if market == "spot" else "\n")
    with open(path + ".CHECKSUM", "w", encoding="utf-8") as f:
        f.write(text)


def set_times(path, when):
    """A fixed mtime: some minutes after the member's, as uploads are."""
    for name, later in ((path, 600), (path + ".CHECKSUM", 601)):
        if os.path.exists(name):
            os.utime(name, (epoch(when) + later,) * 2)
