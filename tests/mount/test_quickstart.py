"""scripts/quickstart: what a newcomer runs first."""

import os
import re
import shutil
import subprocess

from harness import (
    TOP,
    Skip,
    limit,
    mounts_below,
    own_namespace,
    read_text,
    root_only,
    sha256_of,
    sha256,
    unzip,
    wait_until,
)

# Nothing is installed by a test.
NO_APT = """#!/bin/sh
echo "$0 $*" >>"$APT_LOG"
exit 1
"""


def clone(t):
    """The sources, and what is built of them, so that no time goes by
    building; in one's own clone there may be a quickstart in use."""
    there = t.folder("clone")
    shutil.copytree(
        TOP, there, dirs_exist_ok=True,
        ignore=lambda folder, names: [
            name for name in names
            if name in (".git", "build", "fuzz", "__pycache__")
        ],
    )
    for name in ("config", "cache", "fetch", "fs", "tests/origin",
                 "libtickfs.a", "liborigin.a", "tickfs", "origin"):
        old, new = f"{TOP}/build/{name}", f"{there}/build/{name}"
        if os.path.isdir(old):
            shutil.copytree(old, new)
        elif os.path.exists(old):
            os.makedirs(os.path.dirname(new), exist_ok=True)
            shutil.copy2(old, new)
    return there


def environment(t, path):
    """Folders of its own, and no apt."""
    for name in ("apt-get", "apt-cache", "sudo"):
        command = os.path.join(t.folder("bin"), name)
        with open(command, "w", encoding="utf-8") as f:
            f.write(NO_APT)
        os.chmod(command, 0o755)
    return {
        "PATH": f"{t.file('bin')}:{path}",
        "TMPDIR": t.folder("tmp"),
        "XDG_RUNTIME_DIR": t.folder("run"),
        "XDG_CACHE_HOME": t.folder("user-cache"),
        "APT_LOG": t.file("tmp/apt"),
    }


def processes_of(folder):
    """Of programs in it."""
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                program = os.readlink(f"/proc/{pid}/exe")
            except OSError:
                continue
            if program.startswith(folder + "/"):
                found.append(int(pid))
    return found


def installed(t, stderr):
    if "packages are missing" in stderr or "setup: installing" in stderr:
        raise Skip("not all is installed: " + stderr.strip().split("\n")[0])
    assert not os.path.exists(t.file("tmp/apt")), "it asked apt"


def check_shown(t, shown):
    """Rows of a CSV of the sample, and its attributes. Returns the path of the
    CSV and what unzip makes of its archive."""
    assert "This is a generated sample, not market data." in shown
    # What was typed and what came of it, two blanks before it.
    found = re.search(r"^\$ head -n 3 (\S+)\n((?:  .*\n)+)", shown, re.M)
    assert found, shown
    path, rows = found[1], found[2].replace("\n  ", "\n")[2:]
    point, date = re.fullmatch(
        r"(.*)/spot/klines/BTCUSDT/1m/([0-9-]+)\.csv", path
    ).groups()
    assert point.startswith(t.file("run") + "/")
    key = f"data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-{date}.zip"
    csv = unzip(f"{t.tmp}/clone/build/quickstart/sample/root/{key}")
    assert rows.count("\n") == 3
    assert csv.startswith(rows.encode()), rows
    assert 'user.tickfs.cache.state="verified"' in shown
    assert 'user.tickfs.integrity.verdict="verified"' in shown
    for name in ("data", "spot", "um", "cm", "option"):
        assert f"\n  {name}\n" in shown, name
    assert f"{t.file('clone')}/scripts/quickstart stop" in shown
    return path, csv


def nothing_left(t):
    # The daemon has its mount undone under it, and ends a little later.
    wait_until(
        lambda: not processes_of(t.file("clone")), "the end of all of it"
    )
    assert not mounts_below(t.tmp)
    assert os.listdir(t.file("run")) == [], "the folder it was mounted on"


@limit(300)
def test_quickstart__shows_rows_of_a_sample_and_stops(t):
    there = clone(t)
    how = dict(os.environ, **environment(t, os.environ["PATH"]))

    def quickstart(argument):
        result = subprocess.run(
            [f"{there}/scripts/quickstart", argument], env=how, check=False,
            capture_output=True, text=True, timeout=250,
            stdin=subprocess.DEVNULL,
        )
        for pid in processes_of(there):
            t.note(pid)
        installed(t, result.stderr)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    path, csv = check_shown(t, quickstart("--sample"))
    assert sha256_of(path) == sha256(csv)
    running = processes_of(there)
    assert len(running) == 2, "the daemon and the sample's origin"
    # Run again it shows the same mount.
    assert check_shown(t, quickstart("--sample"))[0] == path
    assert processes_of(there) == running
    assert "unmounted /" in quickstart("stop")
    nothing_left(t)
    assert "nothing is mounted" in quickstart("stop")


BY_A_USER = """
    cd "$1"
    scripts/quickstart --sample >"$HOME/shown" 2>"$HOME/said"
    read -r point <build/quickstart/state
    cat "$point/spot/klines/BTCUSDT/1m/$(
        ls "$point/spot/klines/BTCUSDT/1m" | tail -n 1)" >"$HOME/got"
    stat -c %U "$point" >"$HOME/owner"
    scripts/quickstart stop
    ! grep " $point " /proc/self/mounts
"""


@root_only
@limit(300)
@own_namespace
def test_quickstart__works_for_an_ordinary_user(t):
    clone(t)
    sample = t.folder("clone/build/quickstart/sample")
    shutil.copytree(t.sample(), sample + "/root")
    with open(sample + "/complete", "wb"):
        pass
    # The system's programs: others may lie where root alone may look.
    how = environment(t, "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    for name in ("clone", "tmp", "run", "user-cache"):
        t.give(name)
    home = t.home()
    try:
        result = t.as_ordinary_user(
            BY_A_USER, t.file("clone"), within=250, **how
        )
    finally:
        for pid in processes_of(t.file("clone")):
            t.note(pid)
    said = read_text(home + "/said")
    installed(t, said)
    assert result.returncode == 0, (
        result.stdout + result.stderr + said + read_text(home + "/shown")
    )
    _, csv = check_shown(t, read_text(home + "/shown"))
    assert sha256_of(home + "/got") == sha256(csv)
    assert read_text(home + "/owner").split() == ["nobody"]
    nothing_left(t)


# What `curl` would find: the two hosts that quickstart asks, or what is there
# in their place. tickfs, when it is to mount the public archive, is not let
# loose on it.
CURL = """#!/bin/sh
for url; do :; done
case $url in
https://data.binance.vision/) exit "$WEBSITE" ;;
https://s3-ap-northeast-1.amazonaws.com/data.binance.vision?*)
	printf '%s' "$LISTING" ;;
*) echo "asked for $url" >&2; exit 2 ;;
esac
"""
LISTING = '<?xml version="1.0"?><ListBucketResult></ListBucketResult>'
TICKFS = """#!/bin/sh
echo "$*" >"$TICKFS_LOG"
exit 1
"""


def script(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, 0o755)


def test_quickstart__takes_the_public_archive_where_it_answers(t):
    """Both hosts, and with a listing; anything else makes it the sample."""
    there = clone(t)
    how = dict(os.environ, **environment(t, os.environ["PATH"]))
    script(t.file("bin/curl"), CURL)
    # Nothing is to be built: neither what is in its place, nor the sample.
    script(t.file("bin/make"), "#!/bin/sh\n")
    os.unlink(f"{there}/build/tickfs")
    script(f"{there}/build/tickfs", TICKFS)
    os.makedirs(f"{there}/build/quickstart/sample/root")
    with open(f"{there}/build/quickstart/sample/complete", "wb"):
        pass
    how["TICKFS_LOG"] = t.file("options")

    def options(website, listing, *arguments):
        result = subprocess.run(
            [f"{there}/scripts/quickstart", *arguments],
            env=dict(how, WEBSITE=website, LISTING=listing), check=False,
            capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL,
        )
        for pid in processes_of(there):
            t.note(pid)
        installed(t, result.stderr)
        # It ends there, and undoes what it began.
        assert "tickfs did not mount" in result.stderr, result.stderr
        nothing_left(t)
        return read_text(how["TICKFS_LOG"])

    # No word of any host: its own defaults, and its own cache.
    public = options("0", LISTING)
    assert "origin=" not in public and "cache=" not in public, public
    for website, listing, *arguments in (
        ("6", LISTING),  # curl: could not resolve host
        ("0", ""),
        ("0", "<html>Sign in to this network</html>"),
        ("0", LISTING, "--sample"),
    ):
        given = options(website, listing, *arguments)
        assert "origin=http://127.0.0.1:" in given, (website, listing, given)
        assert f"cache={there}/build/quickstart/cache" in given, given


# dpkg-query knows what is in a folder; apt-get installs into it.
DPKG_QUERY = """#!/bin/sh
for name; do :; done
[ -e "$HAVE/$name" ] && echo installed
"""
APT_CACHE = """#!/bin/sh
[ ! -e "$LISTS" ] || echo "  Candidate: 1.0"
"""
APT_GET = """#!/bin/sh
echo "$*" >>"$APT_LOG"
case " $* " in
*" update "*) : >"$LISTS"; exit 0 ;;
esac
[ ! -e "$GONE" ] || { rm "$GONE"; exit 100; }
while [ "$1" != --no-install-recommends ]; do shift; done
shift
for name; do : >"$HAVE/$name"; done
"""
SUDO = """#!/bin/sh
shift
exec "$@"
"""


def words_of(name):
    """The packages of one of the lists of scripts/setup."""
    found = re.search(
        rf"^{name}_packages='([^']*)'", read_text(f"{TOP}/scripts/setup"), re.M
    )
    return [word.partition("=")[0] for word in found[1].split()]


def test_quickstart__setup_installs_what_is_missing_and_no_more(t):
    have = t.folder("have")
    for name, text in (("dpkg-query", DPKG_QUERY), ("apt-cache", APT_CACHE),
                       ("apt-get", APT_GET), ("sudo", SUDO)):
        script(t.file("bin/" + name), text)
    # Nothing else is on the path but what the script itself needs.
    for name in ("sh", "env", "id", "mktemp", "rm", "tail", "tr", "grep",
                 "sed"):
        os.symlink(shutil.which(name), t.file("bin/" + name))
    how = {"PATH": t.file("bin"), "HAVE": have, "LISTS": t.file("lists"),
           "GONE": t.file("gone"), "APT_LOG": t.file("apt"), "TMPDIR": t.tmp}

    def setup(what, status=0):
        """What apt-get was asked."""
        result = subprocess.run(
            [f"{TOP}/scripts/setup", what], env=how, check=False,
            capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert result.returncode == status, result.stderr
        asked = read_text(how["APT_LOG"]).splitlines()
        if asked:
            os.unlink(how["APT_LOG"])
        return asked

    # A bare machine, whose lists are empty.
    build = words_of("build")
    update, install = setup("build")
    assert update.endswith(" update")
    assert "--no-install-recommends" in install
    assert sorted(os.listdir(have)) == sorted(build)
    assert {"make", "gcc", "libfuse3-dev", "fuse3", "python3"} <= set(build)
    # What is there is not asked for, not even whether it is there.
    assert setup("build") == []
    (install,) = setup("test")
    assert install.split()[-len(words_of("test")):] == words_of("test")
    assert setup("test") == []
    # A program that is on the path stands for its package.
    os.unlink(have + "/unzip")
    os.unlink(have + "/zlib1g-dev")
    os.symlink(shutil.which("true"), t.file("bin/unzip"))
    (install,) = setup("test")
    assert install.split()[-2:] == ["--no-install-recommends", "zlib1g-dev"]
    # Versions that are no longer on the server: the lists anew, once more.
    os.unlink(have + "/zlib1g-dev")
    with open(how["GONE"], "wb"):
        pass
    first, update, second = setup("test")
    assert first == second and update.endswith(" update")
    assert os.path.exists(have + "/zlib1g-dev")
