"""What the mounted tests stand on: an imitated origin, a mount, a clean end.

Each test runs in a process of its own (run.py), so every system call on a
mount is under that process's time limit. All processes a test starts are noted
in its folder, and all its mounts lie below it: whatever happens to the test,
run.py can end the ones and undo the others with end_all().
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import os
import pickle
import pwd
import select
import signal
import subprocess
import sys
import time
import traceback
import urllib.parse
import urllib.request

TOP = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.join(TOP, os.environ.get("TICKFS_BUILD", "build"))
SANITIZED = os.path.basename(BUILD) in ("asan", "ubsan", "tsan")

sys.path.append(os.path.join(TOP, "tests/generate"))

import sample  # noqa: E402


class Skip(Exception):
    """Raised with what is missing."""


# ---- marks on tests ----


def smoke(test):
    """Also run under sanitizers by scripts/test."""
    test.smoke = True
    return test


def limit(seconds):
    """How long the test may take before it counts as hung."""

    def mark(test):
        test.limit = seconds
        return test

    return mark


def alone(test):
    """It bounds how long something takes, or disturbs the whole machine: no
    other test runs beside it."""
    test.alone = True
    return test


def root_only(test):
    @functools.wraps(test)
    def wrapped(t):
        if os.geteuid() != 0:
            raise Skip("needs root")
        test(t)

    return wrapped


def own_namespace(test):
    """Needs mounts of its own: root, and not in a bare chroot."""

    @functools.wraps(test)
    def wrapped(t):
        result = subprocess.run(
            ["unshare", "-m", "true"], capture_output=True, text=True,
            timeout=10, check=False,
        )
        if result.returncode:
            raise Skip(f"no mount namespace: {result.stderr.strip()}")
        test(t)

    return wrapped


# ---- ending things ----


def mounts_below(folder):
    """Mount points below a folder, innermost first."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        for line in f:
            point = line.split()[4].encode().decode("unicode_escape")
            point = point.encode("latin-1").decode("utf-8", "replace")
            if point == folder or point.startswith(folder + "/"):
                found.append(point)
    return sorted(found, reverse=True)


def unmount(point, lazy=False):
    if os.geteuid() == 0:
        command = ["umount"] + (["-l"] if lazy else []) + [point]
    else:
        command = ["fusermount3", "-u"] + (["-z"] if lazy else []) + [point]
    return subprocess.run(
        command, timeout=20, capture_output=True, text=True, check=False
    )


def start_time(pid):
    """Tells a process from a later one of the same number."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            fields = f.read().rpartition(")")[2].split()
            return None if fields[0] == "Z" else fields[19]
    except OSError:
        return None


def end_all(folder):
    """Kill what a test left running and undo its mounts. Returns what it
    found, in words: nothing after a test that ended as it should."""
    left = []
    for point in mounts_below(folder):
        left.append("mount " + point)
    with contextlib.suppress(OSError):
        with open(os.path.join(folder, "processes"), encoding="utf-8") as f:
            noted = [line.split() for line in f]
        for pid, started in noted:
            if start_time(pid) == started:
                with contextlib.suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
                left.append("process " + pid)
    for point in mounts_below(folder):
        with contextlib.suppress(subprocess.TimeoutExpired):
            unmount(point, lazy=True)
    return left


# ---- jobs: calls that may wait ----


class Job:
    """A function in a forked process: it may hang, be watched, be killed."""

    def __init__(self, bench, function, *args):
        read_end, write_end = os.pipe()
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read_end)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                result = (True, function(*args))
            except BaseException as e:  # the parent raises it again
                result = (False, e)
            with contextlib.suppress(BaseException):
                with os.fdopen(write_end, "wb") as f:
                    pickle.dump(result, f)
            os._exit(0)
        os.close(write_end)
        self.fd = read_end
        bench.note(self.pid)

    def done(self, within=0.0):
        return bool(select.select([self.fd], [], [], within)[0])

    def result(self, within=30.0):
        """The function's value, or its exception."""
        assert self.done(within), f"still waiting after {within} s"
        with os.fdopen(self.fd, "rb") as f:
            data = f.read()
        os.waitpid(self.pid, 0)
        self.pid = None
        assert data, "the process died"
        good, value = pickle.loads(data)
        if not good:
            raise value
        return value

    def error(self, within=30.0):
        """The errno's name it failed with, or None."""
        return errno_of(self.result, within)

    def kill(self, number=signal.SIGKILL, within=10.0):
        """Seconds until it was gone."""
        begin = time.monotonic()
        os.kill(self.pid, number)
        while time.monotonic() - begin < within:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                self.pid = None
                os.close(self.fd)
                return time.monotonic() - begin
            time.sleep(0.001)
        raise AssertionError(f"alive {within} s after signal {number}")


def errno_of(function, *args):
    """The name of the errno a call fails with; None if it does not."""
    try:
        function(*args)
    except OSError as e:
        # Linux has two names for one number.
        if e.errno == errno.EOPNOTSUPP:
            return "EOPNOTSUPP"
        return errno.errorcode[e.errno]
    return None


def wait_until(condition, what, seconds=20.0):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.01)


# ---- the imitated origin ----


class Origin:
    """build/origin over a folder; see tests/origin/rules.h for rules."""

    def __init__(self, bench, root, *args):
        log = bench.file("origin.log")
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [os.path.join(BUILD, "origin"), "--root", root, "--port", "0"]
                + list(args),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        bench.note(self.process.pid)
        self.root = root

        def address():
            assert self.process.poll() is None, read_text(log)
            for line in read_text(log).splitlines():
                if line.startswith("listening on "):
                    return line.split()[2]
            return None

        self.url = wait_until(address, "the origin's address")
        self.listing = self.url + "/data.binance.vision"

    def control(self, what, data=None):
        if isinstance(data, (list, dict)):
            data = json.dumps(data)
        request = urllib.request.Request(
            f"{self.url}/_control/{what}",
            data=None if data is None else data.encode(),
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            body = answer.read()
        return json.loads(body) if body.strip() else None

    def rules(self, *rules):
        self.control("rules", list(rules))

    def release(self, name):
        """Let go what is held under a name, now and later."""
        self.control("release?name=" + urllib.parse.quote(name), "")

    def held(self):
        return self.control("held")["held"]

    def wait_held(self, count):
        at_least = self.control(f"held?at_least={count}&timeout_ms=20000")
        assert at_least["held"] >= count, at_least

    def stats(self):
        return self.control("stats")

    def requests(self, kind=None, key=None):
        """How many requests came: of one kind, for one key."""
        return sum(
            1
            for r in self.control("log")
            if (kind is None or r["kind"] == kind)
            and (key is None or r["path"].endswith("/" + key))
        )

    def reset(self):
        self.control("reset", "")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        assert self.process.wait(10) == 0, "the origin did not end well"


# ---- the mount ----


class Mount:
    """tickfs in the foreground on a folder of its own."""

    def __init__(self, bench, origin, name="mnt", cache="cache",
                 environment=None, **options):
        self.bench = bench
        self.environment = dict(environment or {})
        if "LD_PRELOAD" in self.environment:
            # A sanitizer wants to be first; the shims do not mind.
            self.environment["ASAN_OPTIONS"] = (
                os.environ.get("ASAN_OPTIONS", "")
                + ":verify_asan_link_order=0"
            )
        self.point = bench.folder(name)
        self.cache = bench.folder(cache) if "/" not in cache else cache
        self.log = bench.file(name + ".log")
        self.options = {
            "cache": self.cache,
            "rate": "none",
            "retry_base": "20ms",
            "retry_max": "200ms",
            "min_free": "0",
            "log_level": "debug",
            # "off": whatever is read comes from the cache's own decoder.
            "prefill": os.environ.get("TICKFS_PREFILL"),
        }
        if origin:
            self.options.update(
                origin=origin.url,
                listing=origin.listing,
                mirror=origin.listing,
            )
        self.options.update(options)
        self.process = None
        self.start()

    def command(self):
        options = ",".join(
            name if value is True else f"{name}={value}"
            for name, value in self.options.items()
            if value is not None
        )
        program = os.path.join(BUILD, "tickfs")
        return [program, self.point, "-f", "-o", options]

    def start(self, **options):
        self.options.update(options)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(os.environ, TMPDIR=self.bench.tmp,
                         **self.environment),
            )
        self.bench.note(self.process.pid)

        def ready():
            assert self.process.poll() is None, (
                "tickfs ended:\n" + read_text(self.log)[-2000:]
            )
            return self.point in mounts_below(self.point)

        wait_until(ready, "mounted", 30)

    def unmount(self):
        """Unmount as users do; the daemon must end well by itself."""
        if self.process is None:
            return
        process, self.process = self.process, None
        result = unmount(self.point)
        assert result.returncode == 0, result.stderr
        assert process.wait(30) == 0, (
            f"tickfs ended with {process.returncode}:\n"
            + read_text(self.log)[-4000:]
        )
        self.check_sanitizers()

    def check_sanitizers(self):
        log = read_text(self.log)
        for word in ("Sanitizer", "runtime error:"):
            assert word not in log, log[log.index(word) - 200 :][:4000]

    def remount(self, **options):
        self.unmount()
        self.start(**options)

    def kill(self):
        """A crash: the daemon is gone, the dead mount is cleared away."""
        self.process.kill()
        self.process.wait(10)
        self.process = None
        unmount(self.point, lazy=True)
        self.check_sanitizers()

    def __truediv__(self, path):
        return os.path.join(self.point, path)

    # What the daemon said.

    def events(self, message=None):
        events = []
        for line in read_text(self.log).splitlines():
            if not line.startswith("{"):
                continue  # a sanitizer or libfuse speaks
            event = json.loads(line)
            if message is None or event["message"] == message:
                events.append(event)
        return events


# ---- one test's place ----


# /dev/fuse is the root user's alone in many a container; a folder of the
# test's own can hold another one.
AS_USER = """
set -e
mount -t tmpfs -o mode=755,dev tmpfs "$1"
mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
shift
gid=$1 script=$2
shift 2
exec setpriv --reuid=nobody --regid="$gid" --clear-groups \\
    sh -ec ': >"$HOME/began"'"$script" sh "$@"
"""


class Bench:
    """Given to each test as `t`."""

    def __init__(self, tmp):
        self.tmp = tmp
        self.mounts = []
        self.origins = []

    def note(self, pid):
        with open(self.file("processes"), "a", encoding="utf-8") as f:
            f.write(f"{pid} {start_time(pid)}\n")

    def file(self, name):
        return os.path.join(self.tmp, name)

    def folder(self, name):
        path = self.file(name)
        os.makedirs(path, exist_ok=True)
        return path

    def origin(self, root=None, *args):
        self.origins.append(Origin(self, root or self.folder("origin"), *args))
        return self.origins[-1]

    def mount(self, origin, **options):
        m = Mount(self, origin, **options)
        self.mounts.append(m)
        return m

    def job(self, function, *args):
        return Job(self, function, *args)

    @staticmethod
    def sample():
        """The generated sample of every dataset; not to be changed."""
        return sample.sample()

    # Another user; for root to call.

    def home(self):
        """The ordinary user's, who is nobody."""
        home = self.folder("home")
        self.give("home")
        return home

    def give(self, name):
        """A file or folder, and all in it, to the ordinary user."""
        try:
            user = pwd.getpwnam("nobody")
        except KeyError:
            raise Skip("no user nobody") from None
        run("chown", "-R", f"{user.pw_uid}:{user.pw_gid}", self.file(name))

    def as_ordinary_user(self, script, *args, within=60, **environment):
        """Run a script of sh(1) as who may mount with fusermount3 only, in
        mounts of its own. Returns how it ended."""
        if not os.path.lexists("/etc/mtab"):
            raise Skip("no /etc/mtab, which fusermount3 -u asks for")
        home = self.home()
        result = subprocess.run(
            ["unshare", "-m", "sh", "-c", AS_USER, "sh", self.folder("dev"),
             str(pwd.getpwnam("nobody").pw_gid), script, *args],
            capture_output=True, text=True, timeout=within, check=False,
            env=dict(os.environ, HOME=home, **environment),
        )
        if "Operation not permitted" in result.stderr and not os.path.exists(
            home + "/began"
        ):
            raise Skip("may not make a mount namespace here")
        return result

    def close(self):
        for m in self.mounts:
            m.unmount()
        for origin in self.origins:
            origin.stop()


# ---- reading ----


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def read(path):
    """All bytes through open(2) and read(2), without what Python's own file
    objects ask for beside."""
    fd = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(fd, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        while part := f.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def unzip(archive, member=None):
    """What unzip makes of a member: the reference for all we show."""
    # In a member's name unzip takes *, ? and [ for patterns.
    names = [] if member is None else [member.replace("[", "[[]")]
    return subprocess.run(
        ["unzip", "-p", archive, *names],
        check=True,
        stdout=subprocess.PIPE,
        timeout=120,
    ).stdout


def run(*command, within=120, status=0):
    """Output of a command that has to end with this status."""
    result = subprocess.run(
        command,
        timeout=within,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
        env=dict(os.environ, LC_ALL="C.UTF-8"),
    )
    assert (
        result.returncode == status
    ), f"{command}: status {result.returncode}: {result.stderr.decode()}"
    return result.stdout


def attr(path, name):
    return os.getxattr(path, "user.tickfs." + name).decode()


def elapsed(function, *args):
    begin = time.monotonic()
    function(*args)
    return time.monotonic() - begin


def drop_page_cache(path):
    """So that the next read asks the daemon."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


libc = ctypes.CDLL(None, use_errno=True)


def report(e):
    return "".join(traceback.format_exception(e))
