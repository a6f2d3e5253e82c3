"""Where the rows run: mounts, tools and a clean end, on the test harness.

Nothing here touches a mount itself: what does is a process of its own under a
limit. If it hangs, the daemons are killed first, for nobody dies who waits for
one.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import data
import harness

PROBE = os.path.join(data.BENCH, "probe")
PASSTHROUGH = os.path.join(data.BENCH, "passthrough_ll")
LIMIT = 300


def kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Tickfs(harness.Mount):
    """tickfs as a user has it: the test options less those for debugging."""

    def start(self, **options):
        super().start(**{"log_level": "info", **options})

    def csv(self, key):
        return self / data.csv_of(key)

    @property
    def pid(self):
        return self.process.pid

    def memory(self, field):
        """Bytes, of the daemon: VmHWM, VmRSS."""
        for line in harness.read_text(f"/proc/{self.pid}/status").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no " + field)

    def set_read_ahead(self, kib):
        """How much the kernel asks at once for a sequential reader. False
        where that is root's to say."""
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            device = next(
                line.split()[2] for line in f if line.split()[4] == self.point
            )
        try:
            path = f"/sys/class/bdi/{device}/read_ahead_kb"
            with open(path, "w", encoding="ascii") as f:
                f.write(str(kib))
        except OSError:
            return False
        return True


class Other:
    """Another program's mount, in the foreground."""

    def __init__(self, session, name, *command):
        self.point = session.folder(name)
        with open(session.file(name + ".log"), "ab") as log:
            self.process = subprocess.Popen(
                [*command, self.point],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        session.note(self.process.pid)

        def ready():
            assert self.process.poll() is None, command
            return self.point in harness.mounts_below(self.point)

        harness.wait_until(ready, "mounted", 60)

    def unmount(self):
        if self.process:
            process, self.process = self.process, None
            result = harness.unmount(self.point)
            assert result.returncode == 0, result.stderr
            process.wait(30)


class Session(harness.Bench):
    """One run: a folder for its mounts and caches, the data, the sizes."""

    def __init__(self, sizes):
        os.makedirs(data.BENCH, exist_ok=True)
        super().__init__(tempfile.mkdtemp(prefix="run-", dir=data.BENCH))
        self.sizes = sizes
        self.data = data.Data(sizes)
        self.warm_mount = None
        self.the_origin = None
        self.curves = {}  # what the pictures show

    # ---- mounts ----

    def origin_of_data(self):
        if not self.the_origin:
            self.the_origin = self.origin(self.data.root)
        return self.the_origin

    def tickfs(self, name, **options):
        m = Tickfs(
            self, self.origin_of_data(), name, "cache-" + name, **options
        )
        self.mounts.append(m)
        return m

    def passthrough(self, source, *options):
        options = ",".join((f"source={source}", "xattr", *options))
        m = Other(self, "passthrough", PASSTHROUGH, "-f", "-o", options)
        self.mounts.append(m)
        return m

    def done_with(self, mount):
        """Unmount it and forget its cache."""
        mount.unmount()
        self.mounts.remove(mount)
        if isinstance(mount, Tickfs):
            shutil.rmtree(mount.cache)

    def warm(self):
        """A mount that has the big archives, verified."""
        if not self.warm_mount:
            keys = [self.data.big(0), self.data.big(1)]
            self.warm_mount = self.tickfs("warm")
            for key in keys:
                self.timed("cat", self.warm_mount.csv(key))
        return self.warm_mount

    # ---- programs ----

    def launch(self, command, stdout=subprocess.DEVNULL, **how):
        process = subprocess.Popen(
            command,
            stdin=how.pop("stdin", subprocess.DEVNULL),
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=dict(os.environ, LC_ALL="C"),
            start_new_session=True,  # so that kill() reaches its children
            **how,
        )
        self.note(process.pid)
        return process

    def finish(self, process, within=LIMIT, text=None):
        """What it printed; it has to end well."""
        try:
            out, err = process.communicate(text, timeout=within)
        except BaseException:
            kill(process)
            harness.end_all(self.tmp)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=10)
            raise
        if process.returncode:
            raise RuntimeError(
                f"{process.args}: status {process.returncode}: {err.decode()}"
            )
        return out

    def output(self, *command, text=None, within=LIMIT):
        process = self.launch(
            command,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
        )
        return self.finish(process, within, text)

    def probe(self, *arguments, text=None):
        return self.output(PROBE, *map(str, arguments), text=text).decode()

    def timed(self, *command, cwd=None):
        """Seconds from exec to exit."""
        begin = time.perf_counter()
        self.finish(self.launch(command, cwd=cwd))
        return time.perf_counter() - begin

    def timed_together(self, *commands):
        """Seconds until the last of them has ended."""
        begin = time.perf_counter()
        for process in [self.launch(command) for command in commands]:
            self.finish(process)
        return time.perf_counter() - begin

    @contextlib.contextmanager
    def running(self, *commands):
        """Programs that run beside what is measured."""
        processes = [self.launch(command) for command in commands]
        try:
            yield
            for process in processes:
                assert process.poll() is None, process.args
        finally:
            for process in processes:
                kill(process)
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=20)

    def ready_after(self, command, point):
        """Starts a daemon in the foreground and waits until its mount answers.
        Returns it and the seconds from exec."""
        outside = os.stat(os.path.dirname(point)).st_dev
        begin = time.perf_counter()
        process = self.launch(command)
        # If it hangs, so does stat, and nothing but its end wakes that.
        guard = threading.Timer(60, process.kill)
        guard.start()
        try:
            while os.stat(point).st_dev == outside:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.0005)
            return process, time.perf_counter() - begin
        finally:
            guard.cancel()

    # ---- the machine ----

    def drop(self, *paths):
        """Takes the pages of files from the kernel's cache: of these only, so
        that the archives below a mount stay as warm as they were."""
        left = int(self.probe("drop", *paths))
        assert left == 0, f"{left} pages of {paths} stayed in the cache"

    def warm_up(self, *paths):
        """Puts the pages of files on disk into the cache."""
        self.timed("cat", *paths)

    def drop_names(self):
        """Makes the kernel forget names and inodes. False where that is
        root's to do."""
        try:
            with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
                f.write("2")
        except OSError:
            return False
        return True

    def pool_stats(self, mount):
        """The pool's figures as the daemon shows them in status.json; None
        while it shows none."""
        status = self.output("cat", mount / ".tickfs/status.json")
        return json.loads(status).get("pool")

    # ---- the end ----

    def start_over(self):
        """Nothing is left but the data: neither mounts nor caches."""
        for point in harness.mounts_below(self.tmp):
            with contextlib.suppress(subprocess.TimeoutExpired):
                harness.unmount(point)
        harness.end_all(self.tmp)
        self.mounts, self.origins = [], []
        self.warm_mount = self.the_origin = None
        # Never through a mount that could not be undone.
        if not harness.mounts_below(self.tmp):
            for name in os.listdir(self.tmp):
                shutil.rmtree(self.file(name), ignore_errors=True)

    def end(self):
        """Whatever happened: nothing stays."""
        self.start_over()
        if not harness.mounts_below(self.tmp):
            shutil.rmtree(self.tmp, ignore_errors=True)
