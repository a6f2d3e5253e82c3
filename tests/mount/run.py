#!/usr/bin/env python3
"""Run the mounted tests and print TAP.

    tests/mount/run.py [--smoke] [--list] [-v] [-j N] [PATTERN...]

A test is a function test_FILE__behaviour of test_FILE.py; patterns are parts
of names. Each runs in a process and a folder of its own and under a limit;
one that hangs fails, and what it mounted or started is undone. -v keeps and
shows the daemon's log of every test, not only of those that fail. -j runs N
at a time: they mostly wait. Tests marked as alone, those that bound how long
something takes, come after all others and by themselves.

TICKFS_BUILD names the build to test (build), TICKFS_REALDATA a folder of real
archives, TICKFS_KILLS how often the crash tests kill, TICKFS_SEED their seed.
"""

import argparse
import glob
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
sys.dont_write_bytecode = True

import harness  # noqa: E402

LIMIT = 60 * (4 if harness.SANITIZED else 1)
PASSED, SKIPPED, FAILED = range(3)
HUNG = "hung"


def tests():
    folder = os.path.dirname(os.path.realpath(__file__))
    for path in sorted(glob.glob(os.path.join(folder, "test_*.py"))):
        name = os.path.basename(path)[:-3]
        module = importlib.import_module(name)
        for attribute, value in vars(module).items():
            if attribute.startswith(name + "__"):
                yield attribute, value


def missing():
    """Why nothing can be mounted here, or None."""
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not writable for this user"
    for program in ("unzip", "getfattr", "fusermount3"):
        if not shutil.which(program):
            return "no " + program
    return None


def in_child(test, tmp):
    """Runs in the forked process; its exit status is the verdict."""
    os.setpgid(0, 0)
    os.chdir(tmp)
    with open("output", "wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    status = FAILED
    try:
        bench = harness.Bench(tmp)
        test(bench)
        bench.close()
        status = PASSED
    except harness.Skip as e:
        with open("skip", "w", encoding="utf-8") as f:
            f.write(str(e))
        status = SKIPPED
    except BaseException as e:
        print(harness.report(e), flush=True)
    os._exit(status)


def wait(pid, seconds):
    """Exit status, or None if it did not end in time."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.005)


def comment(text):
    for line in text.splitlines():
        print("# " + line)


class Running:
    """A test under way."""

    def __init__(self, name, test):
        self.name = name
        self.test = test
        self.seconds = getattr(test, "limit", 0)
        self.seconds *= 4 if harness.SANITIZED else 1
        self.seconds = max(LIMIT, self.seconds)
        self.begin = time.monotonic()
        self.tmp = None
        self.child = None

    def start(self):
        self.tmp = os.path.realpath(tempfile.mkdtemp(prefix="tickfs-test."))
        os.chmod(self.tmp, 0o755)
        sys.stdout.flush()
        self.child = os.fork()
        if self.child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            in_child(self.test, self.tmp)

    def took(self):
        return time.monotonic() - self.begin

    def over(self):
        """None while it goes on; then its exit status or HUNG."""
        status = wait(self.child, 0)
        if status is None and self.took() > self.seconds:
            return HUNG
        return status

    def clear(self):
        """Kill the test and all it left; in words what that was."""
        if self.child:
            # First the daemons: nobody dies who waits for one.
            left = harness.end_all(self.tmp)
            try:
                os.killpg(self.child, signal.SIGKILL)
            except ProcessLookupError:
                pass
            return left
        return []

    def remove(self):
        # Never through a mount that could not be undone.
        if self.tmp and not harness.mounts_below(self.tmp):
            shutil.rmtree(self.tmp, ignore_errors=True)


class Runner:
    def __init__(self, verbose):
        self.verbose = verbose
        self.counts = [0, 0, 0]
        self.number = 0
        self.running = []
        self.slowest = []  # (seconds, name)

    def stop(self, *_):
        for running in self.running:
            running.clear()
            running.remove()
        os._exit(130)

    def say(self, verdict, name, why=""):
        self.number += 1
        self.counts[verdict] += 1
        line = "not ok" if verdict == FAILED else "ok"
        line += f" {self.number} - {name}"
        if verdict == SKIPPED:
            line += f" # SKIP {why}"
        print(line, flush=True)

    def run(self, tests, at_once):
        waiting = list(tests)
        while waiting or self.running:
            while waiting and len(self.running) < at_once:
                # Where a signal finds it before it has started anything.
                self.running.append(Running(*waiting.pop(0)))
                self.running[-1].start()
            for running in list(self.running):
                status = running.over()
                if status is not None:
                    self.end(running, status)
            time.sleep(0.005)

    def end(self, running, status):
        left = running.clear()
        if status == HUNG:
            wait(running.child, 10)
            comment(f"{running.name} hung: over {running.seconds} s")
        elif status == PASSED and left:
            comment(f"{running.name} left behind: {', '.join(left)}")
            status = FAILED
        verdict = status if status in (PASSED, SKIPPED) else FAILED
        why = harness.read_text(os.path.join(running.tmp, "skip"))
        self.say(verdict, running.name, why)
        if verdict == FAILED or self.verbose:
            self.show(running)
            comment(f"{running.took():.1f} s")
        self.slowest.append((running.took(), running.name))
        self.running.remove(running)
        running.remove()

    def show(self, running):
        comment(harness.read_text(os.path.join(running.tmp, "output")))
        for log in sorted(glob.glob(os.path.join(running.tmp, "*.log"))):
            lines = harness.read_text(log).splitlines()
            comment(f"--- {os.path.basename(log)}, {len(lines)} lines")
            comment("\n".join(lines if self.verbose else lines[-25:]))

    def show_slowest(self):
        for seconds, name in sorted(self.slowest, reverse=True)[:10]:
            comment(f"{seconds:.1f} s {name}")


def in_fixed_layout():
    with open("/proc/self/personality", encoding="ascii") as f:
        return int(f.read(), 16) & 0x40000  # ADDR_NO_RANDOMIZE


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N")
    parser.add_argument("pattern", nargs="*")
    arguments = parser.parse_args()

    chosen = [
        (name, test)
        for name, test in tests()
        if (not arguments.smoke or getattr(test, "smoke", False))
        and (
            not arguments.pattern or any(p in name for p in arguments.pattern)
        )
    ]
    if arguments.list:
        print("\n".join(name for name, _ in chosen))
        return 0
    if not chosen:
        print("no test has such a name", file=sys.stderr)
        return 2
    if os.path.basename(harness.BUILD) == "tsan" and not in_fixed_layout():
        # TSan maps its shadow where randomised mappings may already lie.
        os.execvp("setarch", ["setarch", "-R", sys.executable] + sys.argv)
    runner = Runner(arguments.verbose)
    signal.signal(signal.SIGTERM, runner.stop)
    signal.signal(signal.SIGINT, runner.stop)
    print(f"1..{len(chosen)}", flush=True)
    why = missing()
    for program in ("tickfs", "origin"):
        if not why and not os.path.exists(f"{harness.BUILD}/{program}"):
            print(f"Bail out! {harness.BUILD}/{program} is not built")
            return 1
    if why:
        for name, _ in chosen:
            runner.say(SKIPPED, name, why)
    elif arguments.jobs < 2:
        runner.run(chosen, 1)
    else:
        alone = [c for c in chosen if getattr(c[1], "alone", False)]
        runner.run([c for c in chosen if c not in alone], arguments.jobs)
        runner.run(alone, 1)
    runner.show_slowest()
    passed, skipped, failed = runner.counts
    print(f"# {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
