"""Archives as the real host published them, where a folder of them is at
hand: TICKFS_REALDATA, or ../shared/realdata beside the repository."""

import os
import shutil
import zipfile

from archives import Tree, csv_name
from harness import TOP, Skip, attr, limit, read, sha256, smoke, unzip
from test_tree import by_date, keys_of


def real_archives():
    folder = os.environ.get("TICKFS_REALDATA") or os.path.join(
        os.path.dirname(TOP), "shared", "realdata"
    )
    if not os.path.isdir(os.path.join(folder, "data")):
        raise Skip("no real archives, TICKFS_REALDATA is not set")
    return folder


@smoke
@limit(120)
def test_realdata__every_archive_equals_unzip(t):
    folder = real_archives()
    tree = Tree(t.folder("origin"))
    keys = [
        key for key in sorted(keys_of(folder))
        if key.endswith(".zip") and zipfile.is_zipfile(f"{folder}/{key}")
    ]
    assert keys
    for key in keys:
        # A link, so that none is copied; a checksum where none came along.
        os.makedirs(os.path.dirname(tree.path(key)), exist_ok=True)
        os.symlink(f"{folder}/{key}", tree.path(key))
        if os.path.exists(f"{folder}/{key}.CHECKSUM"):
            shutil.copy(f"{folder}/{key}.CHECKSUM", tree.path(key)
                        + ".CHECKSUM")
        else:
            tree.checksum(key)
    m = t.mount(t.origin())
    for key in keys:
        expected = unzip(f"{folder}/{key}", csv_name(key))
        for path in (key[:-4] + ".csv", by_date(key)):
            assert os.stat(m / path).st_size == len(expected), path
            assert sha256(read(m / path)) == sha256(expected), path
            assert attr(m / path, "integrity.verdict") == "verified", path
        with open(f"{folder}/{key}", "rb") as f:
            assert read(m / key) == f.read(), key
