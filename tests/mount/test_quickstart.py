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
