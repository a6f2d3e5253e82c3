"""The program itself: options, becoming a daemon, mount(8), other users."""

import contextlib
import http.client
import http.server
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
import types

from archives import Tree, klines_key, rows
from harness import (
    BUILD,
    Skip,
    alone,
    attr,
    errno_of,
    limit,
    mounts_below,
    own_namespace,
    read,
    read_text,
    root_only,
    smoke,
    unmount,
    wait_until,
)

TICKFS = f"{BUILD}/tickfs"
PATH = "spot/klines/BTCUSDT/1m/2024-01-01.csv"


def tickfs(*arguments, within=30, **how):
    return subprocess.run(
        [TICKFS, *arguments], capture_output=True, text=True, timeout=within,
        check=False, stdin=subprocess.DEVNULL, **how,
    )


def base_options(t, origin):
    return (
        f"origin={origin.url},listing={origin.listing},"
        f"mirror={origin.listing},cache={t.file('cache')},"
        f"log={t.file('daemon.log')},min_free=0"
    )


def daemon_of(t, cache):
    """Its pid, from the cache's lock file."""
    return int(read_text(f"{cache}/lock").split()[0])


def gone(pid):
    return not os.path.exists(f"/proc/{pid}")


@smoke
def test_options__daemonises_only_when_the_mount_is_ready(t):
    csv = Tree(t.folder("origin")).klines("2024-01-01")
    origin = t.origin()
    point = t.folder("mnt")
    result = tickfs(point, "-o", base_options(t, origin))
    assert result.returncode == 0, result.stderr
    # Not a moment later: what follows the command may rely on it.
    assert read(f"{point}/{PATH}") == csv
    pid = daemon_of(t, t.file("cache"))
    t.note(pid)
    assert os.getsid(pid) != os.getsid(0)
    assert unmount(point).returncode == 0
    wait_until(lambda: gone(pid), "the daemon's end")


def test_options__a_daemon_keeps_no_stderr_but_the_journal(t):
    """JOURNAL_STREAM is inherited by all that a service starts, also by a
    shell with a terminal."""
    origin = t.origin(t.folder("origin"))
    options = base_options(t, origin).replace(
        f"log={t.file('daemon.log')},", ""
    )
    said = []
    for name in ("terminal", "journal"):
        point = t.folder(f"mnt-{name}")
        with open(t.file(name), "ab") as stderr:
            journal = os.fstat(stderr.fileno())
            stream = f"{journal.st_dev}:{journal.st_ino + (name != 'journal')}"
            result = subprocess.run(
                [TICKFS, point, "-o", options], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=stderr, timeout=30,
                env=dict(os.environ, JOURNAL_STREAM=stream), check=False,
            )
        assert result.returncode == 0, read_text(t.file(name))
        pid = daemon_of(t, t.file("cache"))
        t.note(pid)
        assert unmount(point).returncode == 0
        wait_until(lambda p=pid: gone(p), "the daemon's end")
        said.append('"unmounted"' in read_text(t.file(name)))
    assert said == [False, True]


@smoke
def test_options__sigterm_and_sigint_unmount(t):
    Tree(t.folder("origin")).klines("2024-01-01")
    m = t.mount(t.origin())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.listdir(m.point)
        m.process.send_signal(number)
        assert m.process.wait(15) == 0, number
        m.process = None
        assert not mounts_below(m.point)
        m.start()


@limit(120)
def test_options__bandwidth_bounds_all_downloads_together(t):
    """Bytes less a second of burst and the last pieces, at the rate; and what
    is small passes meanwhile."""
    tree = Tree(t.folder("origin"))
    days = [f"2024-01-0{i}" for i in range(1, 5)]
    csvs = [tree.klines(day, rows(9000, i)) for i, day in enumerate(days)]
    tree.klines("2024-01-01", symbol="ETHUSDT")
    total = sum(
        os.path.getsize(f"{t.folder('origin')}/{klines_key(day)}")
        for day in days
    )
    rate = 256 << 10
    assert total > 6 * rate
    m = t.mount(t.origin(), bandwidth="256K", stall_timeout="2s", retries="0",
                connections="4")
    paths = [f"{m.point}/spot/klines/BTCUSDT/1m/{day}.csv" for day in days]
    for path in paths:
        os.stat(path)
    begin = time.monotonic()
    jobs = [t.job(read, path) for path in paths]
    wait_until(lambda: int(attr(m.point, "fetch.bytes")) > rate, "bytes")
    assert os.listdir(m / "spot/klines/ETHUSDT/1m") == ["2024-01-01.csv"]
    assert os.stat(m / "spot/klines/ETHUSDT/1m/2024-01-01.csv").st_size
    assert not all(job.done() for job in jobs)
    assert [job.result(100) for job in jobs] == csvs
    took = time.monotonic() - begin
    assert took > (total - rate - 4 * 16384) / rate, took
    assert not m.events("request_failed")


@limit(60)
def test_options__held_by_bandwidth_an_open_and_an_unmount_end_at_once(t):
    Tree(t.folder("origin")).klines("2024-01-01", rows(60000, 1))
    m = t.mount(t.origin(), bandwidth="16K")
    job = t.job(read, m / PATH)
    wait_until(lambda: int(attr(m.point, "fetch.bytes")) > 16384, "bytes")
    job.kill(signal.SIGINT)
    wait_until(lambda: attr(m / PATH, "cache.state") == "partial", "its end")
    job = t.job(read, m / PATH)
    wait_until(lambda: m.events("download_resumed"), "the download")
    # Half a minute's worth is left; harness.Mount waits half a minute.
    begin = time.monotonic()
    m.process.send_signal(signal.SIGTERM)
    assert m.process.wait(20) == 0
    m.process = None
    m.check_sanitizers()
    assert job.error() is not None


@limit(60)
def test_options__spending_that_is_not_kept_is_told_once(t):
    tree = Tree(t.folder("origin"))
    days = [f"2024-01-0{i}" for i in range(1, 4)]
    for i, day in enumerate(days):
        tree.klines(day, rows(100, i))
    m = t.mount(t.origin(), budget="100M")
    read(f"{m.point}/spot/klines/BTCUSDT/1m/{days[0]}.csv")
    wait_until(lambda: os.path.exists(f"{m.cache}/spending"), "the file")
    os.unlink(f"{m.cache}/spending")
    os.mkdir(f"{m.cache}/spending")
    for day in days[1:]:
        read(f"{m.point}/spot/klines/BTCUSDT/1m/{day}.csv")
        time.sleep(1.5)
    assert len(m.events("spending_not_kept")) == 1
    assert not m.events("spending_kept")
    os.rmdir(f"{m.cache}/spending")
    wait_until(lambda: m.events("spending_kept"), "it")
    assert os.path.isfile(f"{m.cache}/spending")
    assert len(m.events("spending_not_kept")) == 1


WRONG = {
    "nosuch=1": "nosuch",
    "quota=lots": "quota",
    "quota=-1": "quota",
    "memory=0": "memory",
    "prefer=weekly": "prefer",
    "integrity=maybe": "integrity",
    "listing_ttl=soon": "listing_ttl",
    "connections=0": "connections",
    "origin=ftp://127.0.0.1/": "origin",
    "origin=": "origin",
    "log_level=loud": "log_level",
    "config=/nonexistent/file": "/nonexistent/file",
}


@smoke
def test_options__wrong_ones_say_which_and_fail(t):
    point = t.folder("mnt")
    for option, word in WRONG.items():
        for arguments in (["-f"], []):
            result = tickfs(point, *arguments, "-o", option)
            assert result.returncode != 0, option
            assert word in result.stderr, (option, result.stderr)
            assert "Usage: FUSE" not in result.stderr
    assert not mounts_below(point)


def test_options__no_mountpoint_is_told_at_once(t):
    Tree(t.folder("origin"))
    with open(t.file("plain"), "wb"):
        pass
    for point in (t.file("nowhere"), t.file("plain")):
        for arguments in (["-f"], []):
            result = tickfs(point, *arguments, "-o",
                            f"offline,cache={t.file('cache')}")
            assert result.returncode != 0, point
            assert result.stderr.strip(), point
    result = tickfs()
    assert result.returncode != 0 and "tickfs" in result.stderr


@smoke
def test_options__help_and_version(t):
    result = tickfs("--help")
    assert result.returncode == 0
    for option in (
        "origin listing mirror cache quota min_free memory prefer integrity "
        "listing_ttl negative_ttl revalidate connections retries retry_base "
        "retry_max connect_timeout stall_timeout deadline rate rate_burst "
        "size_burst bandwidth budget offline proxy no_proxy cacert run_id log "
        "log_level"
    ).split():
        assert option in result.stdout, option
    result = tickfs("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("tickfs ")


@smoke
def test_options__config_file_is_overruled_by_the_command_line(t):
    csv = Tree(t.folder("origin")).klines("2024-01-01")
    origin = t.origin()
    config = t.file("tickfs.conf")
    with open(config, "w", encoding="utf-8") as f:
        f.write(
            "# a test\n"
            f"origin = {origin.url}\n"
            f"listing = {origin.listing}\n"
            f"mirror = {origin.listing}\n"
            "run_id = from-file\n"
            "quota = 1G\n"
        )
    m = t.mount(None, config=config, run_id="from-line")
    assert read(m / PATH) == csv
    assert os.getxattr(m.point, "user.tickfs.run_id") == b"from-line"
    quota = os.getxattr(m.point, "user.tickfs.cache.quota_bytes")
    assert quota == b"1073741824"


# mount(8) finds its helpers' programs in a PATH of its own.
BY_MOUNT_8 = """
set -e
mount -t tmpfs tmpfs /usr/local/bin
ln -s "$1/tickfs" /usr/local/bin/tickfs
shift
point=$1 lock=$2 csv=$3 got=$4
shift 4
"$@"
cat "$lock" >"$got.pid"
cat "$point/$csv" >"$got"
grep " $point " /proc/self/mounts >"$got.line"
umount "$point"
"""


@root_only
@own_namespace
def test_options__mount_8_and_its_fstab_form(t):
    csv = Tree(t.folder("origin")).klines("2024-01-01")
    origin = t.origin()
    point = t.folder("mnt")
    if not shutil.which("mount.fuse3", path="/sbin:/usr/sbin"):
        raise Skip("no mount.fuse3")
    fstab = t.file("fstab")
    options = base_options(t, origin) + ",nofail,_netdev,x-test"
    with open(fstab, "w", encoding="utf-8") as f:
        f.write(f"tickfs {point} fuse.tickfs {options} 0 0\n")
    got = t.file("got")
    for command in (
        ["mount", "-t", "fuse.tickfs", "-o", options, "tickfs", point],
        ["mount", "--fstab", fstab, point],
    ):
        result = subprocess.run(
            ["unshare", "-m", "sh", "-c", BY_MOUNT_8, "sh", BUILD, point,
             t.file("cache/lock"), PATH, got, *command],
            capture_output=True, text=True, timeout=60, check=False,
        )
        if os.path.exists(got + ".pid"):
            with open(got + ".pid", encoding="ascii") as f:
                pid = int(f.read())
            t.note(pid)
        assert result.returncode == 0, (command, result.stderr)
        with open(got, "rb") as f:
            assert f.read() == csv
        with open(got + ".line", encoding="utf-8") as f:
            line = f.read().split()
        assert line[0] == "tickfs" and line[2] == "fuse.tickfs", line
        assert "ro" in line[3].split(","), line
        wait_until(lambda: gone(pid), "the daemon's end")


BY_A_USER = """
    cd "$HOME"
    "$1" "$HOME/mnt" -o "$2"
    cat "$HOME/mnt/$3" >got
    stat -c "%U %a" "$HOME/mnt/$3" >stat
    ls mnt >ls
    fusermount3 -u "$HOME/mnt"
    ! mountpoint -q "$HOME/mnt"
"""


@root_only
@smoke
@own_namespace
def test_options__works_for_an_ordinary_user(t):
    csv = Tree(t.folder("origin")).klines("2024-01-01")
    origin = t.origin()
    home = t.home()
    t.folder("home/mnt")
    t.give("home/mnt")
    # A copy, since the build may lie where nobody else may look.
    program = shutil.copy(TICKFS, t.file("tickfs"))
    options = (
        f"origin={origin.url},listing={origin.listing},"
        f"mirror={origin.listing},min_free=0,log={home}/log"
    )
    result = t.as_ordinary_user(BY_A_USER, program, options, PATH)
    assert result.returncode == 0, result.stderr + read_text(home + "/log")
    assert read(home + "/got") == csv
    assert read_text(home + "/stat").split() == ["nobody", "444"]
    assert "spot" in read_text(home + "/ls").split()
    cache = os.stat(home + "/.cache/tickfs")
    user = pwd.getpwnam("nobody")
    assert cache.st_uid == user.pw_uid and cache.st_mode & 0o777 == 0o700


@root_only
def test_options__allow_other_lets_others_in_and_only_then(t):
    csv = Tree(t.folder("origin")).klines("2024-01-01")
    origin = t.origin()

    def as_nobody(path):
        user = pwd.getpwnam("nobody")
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        return read(path)

    m = t.mount(origin)
    assert t.job(as_nobody, m / PATH).error() == "EACCES"
    m.remount(allow_other=True, default_permissions=True)
    assert t.job(as_nobody, m / PATH).result() == csv


def test_options__source_may_be_the_origin(t):
    csv = Tree(t.folder("origin")).klines("2024-01-01")
    origin = t.origin()
    point = t.folder("mnt")
    result = tickfs(
        origin.url, point, "-o",
        f"listing={origin.listing},mirror={origin.listing},"
        f"cache={t.file('cache')},log={t.file('log')},min_free=0",
    )
    assert result.returncode == 0, result.stderr
    t.note(daemon_of(t, t.file("cache")))
    assert read(f"{point}/{PATH}") == csv
    assert unmount(point).returncode == 0
    pid = daemon_of(t, t.file("cache"))
    wait_until(lambda: gone(pid), "the daemon's end")


def test_options__busy_mount_survives_a_refused_unmount(t):
    Tree(t.folder("origin")).klines("2024-01-01")
    m = t.mount(t.origin())
    fd = os.open(m / PATH, os.O_RDONLY)
    assert unmount(m.point).returncode != 0
    time.sleep(0.1)
    assert os.pread(fd, 10, 0)
    os.close(fd)
    assert errno_of(os.stat, m / PATH) is None


def test_options__max_read_is_the_largest_request(t):
    csv = Tree(t.folder("origin")).klines("2024-01-01", rows(30000, 1))
    origin = t.origin()
    for given, shown in ((None, 1048576), (65536, 65536)):
        m = t.mount(origin, name=f"m{shown}", cache=f"c{shown}",
                    max_read=given, prefill="off")
        with open("/proc/self/mounts", encoding="utf-8") as f:
            mine = [line for line in f if f" {m.point} " in line]
        assert f"max_read={shown}" in mine[0], mine
        assert read(m / PATH) == csv


class Proxy(http.server.ThreadingHTTPServer):
    """Asks one origin, whatever host it is asked for, and keeps the hosts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            # "GET http://host/path": what a proxy is asked.
            scheme, _, rest = self.path.partition("://")
            host, slash, path = rest.partition("/")
            self.server.asked.append((scheme, host))
            origin = http.client.HTTPConnection(self.server.origin)
            origin.request(self.command, slash + path, headers=self.headers)
            answer = origin.getresponse()
            body = answer.read()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name not in ("Content-Length", "Transfer-Encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    def __init__(self, origin):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.origin = origin.url.partition("://")[2]
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def hosts(self):
        asked, self.asked = set(self.asked), []
        return asked


def test_options__proxy_is_asked_for_all_but_no_proxy(t):
    csv = Tree(t.folder("origin")).klines("2024-01-01")
    origin = t.origin()
    proxy = Proxy(origin)
    # Never resolved here: the domain is kept free for such (RFC 2606).
    far = types.SimpleNamespace(
        url="http://files.example",
        listing="http://lists.example/data.binance.vision",
    )
    both = {("http", "files.example"), ("http", "lists.example")}

    def ask(name, **options):
        m = t.mount(far, name=name, cache="cache-" + name, retries="0",
                    **options)
        with contextlib.suppress(OSError):
            os.listdir(m / os.path.dirname(PATH))
        return m / PATH

    assert read(ask("given", proxy=proxy.url)) == csv
    assert proxy.hosts() == both
    # What curl(1) reads too; the option comes before it.
    environment = {"http_proxy": proxy.url, "no_proxy": ""}
    assert read(ask("environment", environment=environment)) == csv
    assert proxy.hosts() == both
    path = ask("none", environment=environment, proxy="")
    assert errno_of(os.stat, path) == "ENETUNREACH"
    assert proxy.hosts() == set()
    path = ask("some", proxy=proxy.url, no_proxy="files.example")
    assert errno_of(os.stat, path) == "ENETUNREACH"
    assert proxy.hosts() == {("http", "lists.example")}


@contextlib.contextmanager
def deaf_address():
    """Where no connection is made: nobody accepts, and there is room for no
    more that wait for it. Linux drops what comes then."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield "http://127.0.0.1:%d" % listener.getsockname()[1]


@alone
def test_options__connect_timeout_ends_a_try(t):
    with deaf_address() as url:
        deaf = types.SimpleNamespace(url=url, listing=url + "/lists")
        for ms in (200, 1000):
            m = t.mount(deaf, name=f"m{ms}", cache=f"c{ms}", retries="0",
                        connect_timeout=f"{ms}ms")
            begin = time.monotonic()
            assert errno_of(os.stat, m / PATH) == "ENETUNREACH"
            took = time.monotonic() - begin
            # Its default is 10 s, that of stall_timeout= 30 s.
            assert ms / 1000 <= took < ms / 1000 + 5, took
