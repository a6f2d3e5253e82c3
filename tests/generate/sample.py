"""The sample, made once for all tests that only read it.

It takes 16 s of a processor. It hangs on nothing but the generator (the same
seed gives the same bytes, as test_generate.py shows), so it lies below build/
beside a digest of that, and is made anew where the digest is another.
"""

import fcntl
import glob
import hashlib
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
FOLDER = os.path.join(HERE, "..", "..", "build", "sample")


def generator():
    """Digest of all that decides on the bytes."""
    digest = hashlib.sha256(sys.version.encode())
    digest.update(subprocess.run(["zip", "-v"], capture_output=True,
                                 check=True).stdout)
    for path in sorted(glob.glob(os.path.join(HERE, "*.py"))):
        with open(path, "rb") as f:
            digest.update(f.read())
    return digest.hexdigest()


def made_by(folder):
    try:
        with open(os.path.join(folder, "complete"), encoding="ascii") as f:
            return f.read()
    except FileNotFoundError:
        return None


def make(folder, digest):
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, os.path.join(HERE, "generate.py"),
                    "--sample", os.path.join(folder, "root")],
                   check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(folder, "complete"), "w", encoding="ascii") as f:
        f.write(digest)


def sample():
    """The folder with data/ and manifest.json. Leave it as it is."""
    folder = os.path.normpath(FOLDER)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with open(folder + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = generator()
        if made_by(folder) != digest:
            make(folder, digest)
    return os.path.join(folder, "root")
