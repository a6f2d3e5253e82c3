"""Design section 4: what lies on disk, what goes, what must not."""

import glob
import os
import random
import subprocess
import time

from archives import Tree, klines_key
from harness import (
    BUILD,
    alone,
    attr,
    drop_page_cache,
    errno_of,
    limit,
    read,
    root_only,
    run,
    sha256,
    smoke,
    unmount,
    wait_until,
)

FOLDER = "spot/klines/BTCUSDT/1m"


def noise(size, seed):
    """Does not compress: the zip is as large as its CSV."""
    return random.Random(seed).randbytes(size)


def folder_of(t, count, size):
    tree = Tree(t.folder("origin"))
    return {
        f"2024-01-{d:02}": tree.klines(f"2024-01-{d:02}", noise(size, d))
        for d in range(1, count + 1)
    }


def csv_path(m, date):
    return f"{m.point}/{FOLDER}/{date}.csv"


def cached(m):
    """Dates whose archives lie under objects/."""
    found = glob.glob(f"{m.cache}/objects/data/**/*.zip", recursive=True)
    return {os.path.basename(p)[-14:-4] for p in found}


def sizes(folder):
    return {
        os.path.relpath(os.path.join(base, name), folder):
            os.lstat(os.path.join(base, name)).st_size
        for base, _, names in os.walk(folder)
        for name in names
    }


def used(folder):
    return sum(sizes(folder).values())


@smoke
def test_cache__objects_are_a_mirror_of_the_origin(t):
    csvs = folder_of(t, 3, 30000)
    m = t.mount(t.origin(), cache=t.file("made"))
    for date, csv in csvs.items():
        assert read(csv_path(m, date)) == csv
    m.unmount()
    assert os.stat(m.cache).st_mode & 0o777 == 0o700
    # Any web server can serve it: the next mount takes it for its origin.
    again = t.mount(t.origin(f"{m.cache}/objects"), name="again", cache="c2")
    for date, csv in csvs.items():
        assert read(csv_path(again, date)) == csv
    m.start()


@smoke
def test_cache__second_read_asks_the_origin_nothing(t):
    csvs = folder_of(t, 1, 300000)
    origin = t.origin()
    m = t.mount(origin)
    path = csv_path(m, "2024-01-01")
    assert read(path) == csvs["2024-01-01"]
    asked = origin.requests()
    drop_page_cache(path)
    assert read(path) == csvs["2024-01-01"]
    m.remount()
    assert read(path) == csvs["2024-01-01"]
    assert origin.requests() == asked


def partly(t, size, cut):
    """A download of which `cut` bytes came before the daemon was killed."""
    csvs = folder_of(t, 1, size)
    key = klines_key("2024-01-01")
    origin = t.origin()
    origin.rules({"kind": "object", "key": key, "hold": "rest",
                  "hold_after": cut})
    m = t.mount(origin)
    job = t.job(read, csv_path(m, "2024-01-01"))
    origin.wait_held(1)
    wait_until(
        lambda: int(attr(csv_path(m, "2024-01-01"), "fetch.bytes_done"))
        >= cut,
        "the first part",
    )
    time.sleep(0.2)
    m.kill()
    assert job.error() is not None
    origin.rules()
    origin.release("rest")
    return origin, m, csvs["2024-01-01"], key


@smoke
@limit(120)
def test_cache__partial_download_survives_kill_9(t):
    size, cut = 12 << 20, 9 << 20
    origin, m, csv, key = partly(t, size, cut)
    origin.reset()
    m.start()
    path = csv_path(m, "2024-01-01")
    assert attr(path, "cache.state") == "partial"
    assert sha256(read(path)) == sha256(csv)
    total = os.path.getsize(os.path.join(origin.root, key))
    fetched = origin.stats()["bytes"]
    # At most 1 MiB is lost; listings, sizes, checksum are small change.
    assert fetched <= total - cut + (1 << 20) + 65536, fetched


def test_cache__partial_of_another_version_is_not_continued(t):
    origin, m, _, key = partly(t, 4 << 20, 2 << 20)
    tree = Tree(origin.root)
    new = noise(4 << 20, 77)
    tree.klines("2024-01-01", new)
    m.start(listing_ttl="1ms")
    wait_until(
        lambda: errno_of(read, csv_path(m, "2024-01-01")) is None, "the file"
    )
    assert sha256(read(csv_path(m, "2024-01-01"))) == sha256(new)


def test_cache__partial_that_lost_its_last_bytes_is_never_served(t):
    """As file systems leave it that had its size on the disk, not its bytes;
    what is fetched again is the whole."""
    size, cut, lost = 5 << 20, 4 << 20, 1 << 20
    origin, m, csv, key = partly(t, size, cut)
    partial = f"{m.cache}/staging/{key}.partial"
    with open(partial, "r+b", buffering=0) as f:
        assert os.fstat(f.fileno()).st_size == cut
        f.seek(cut - lost)
        f.write(bytes(lost))
    origin.reset()
    m.start()
    path = csv_path(m, "2024-01-01")
    assert sha256(read(path)) == sha256(csv)
    ranges = [r["range"] for r in origin.control("log")
              if r["path"].endswith(key)]
    assert f"bytes={cut}-" in ranges, ranges  # it was believed at first
    # And the origin is not blamed for it.
    assert m.events("resumed_download_damaged")
    m.remount()
    assert sha256(read(path)) == sha256(csv)
    assert not os.path.exists(f"{m.cache}/quarantine/{key}")


@smoke
def test_cache__cut_body_is_resumed_within_one_open(t):
    csvs = folder_of(t, 1, 6 << 20)
    key = klines_key("2024-01-01")
    origin = t.origin()
    origin.rules({"kind": "object", "key": key, "cut_after": 4 << 20,
                  "nth": 1})
    m = t.mount(origin)
    path = csv_path(m, "2024-01-01")
    assert sha256(read(path)) == sha256(csvs["2024-01-01"])
    total = os.path.getsize(os.path.join(origin.root, key))
    assert origin.stats()["bytes"] < total + (1 << 20)
    assert int(attr(m.point, "fetch.resumes")) >= 1


@smoke
@limit(120)
def test_cache__quota_evicts_least_recently_used(t):
    csvs = folder_of(t, 8, 4 << 20)
    dates = sorted(csvs)
    # Five of them, and 2 MB for the catalog and what its log grows by until
    # the store looks again, four times a second.
    m = t.mount(t.origin(), quota="24M")
    for date in dates[:4]:
        assert read(csv_path(m, date)) == csvs[date]
    time.sleep(1.1)  # last uses are kept to the second
    assert read(csv_path(m, dates[0])) == csvs[dates[0]]
    for date in dates[4:6]:
        time.sleep(1.1)
        assert read(csv_path(m, date)) == csvs[date]
        assert used(m.cache) <= 24 << 20, sizes(m.cache)
    assert dates[0] in cached(m)
    assert dates[1] not in cached(m)
    assert dates[5] in cached(m)
    assert int(attr(m.point, "cache.evictions")) >= 1
    for date in dates:
        assert sha256(read(csv_path(m, date))) == sha256(csvs[date])
        assert used(m.cache) <= 24 << 20, sizes(m.cache)


@smoke
def test_cache__what_a_handle_holds_is_never_evicted(t):
    csvs = folder_of(t, 6, 4 << 20)
    dates = sorted(csvs)
    m = t.mount(t.origin(), quota="16M")
    held = os.open(csv_path(m, dates[0]), os.O_RDONLY)
    for date in dates[1:]:
        assert read(csv_path(m, date)) == csvs[date]
    assert dates[0] in cached(m)
    os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(held, 1 << 20, 0) == csvs[dates[0]][: 1 << 20]
    os.close(held)


@smoke
def test_cache__held_files_that_fill_the_quota_give_enospc(t):
    csvs = folder_of(t, 6, 4 << 20)
    dates = sorted(csvs)
    m = t.mount(t.origin(), quota="16M")
    handles = []
    error = None
    for date in dates:
        try:
            handles.append(os.open(csv_path(m, date), os.O_RDONLY))
        except OSError as e:
            error = errno_of(os.open, csv_path(m, date), os.O_RDONLY)
            assert e.errno == 28, e
            break
    assert error == "ENOSPC"
    assert len(handles) >= 2
    assert used(m.cache) <= 16 << 20
    for handle, date in zip(handles, dates):
        assert os.pread(handle, 1 << 20, 0) == csvs[date][: 1 << 20]
        os.close(handle)
    # With the handles gone there is room again.
    wait_until(
        lambda: errno_of(read, csv_path(m, dates[-1])) is None, "room", 10
    )


@root_only
@limit(120)
def test_cache__full_disk_is_enospc_and_loses_nothing(t):
    csvs = folder_of(t, 14, 2 << 20)
    dates = sorted(csvs)
    disk = t.folder("disk")
    run("mount", "-t", "tmpfs", "-o", "size=20m,mode=700", "tmpfs", disk)
    m = t.mount(t.origin(), cache=disk + "/cache")
    handles, failed = [], None
    for date in dates:
        try:
            handles.append(os.open(csv_path(m, date), os.O_RDONLY))
        except OSError as e:
            failed = e.errno
            break
    assert failed == 28, failed
    assert handles
    for handle, date in zip(handles, dates):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(handle, 1 << 20, 0) == csvs[date][: 1 << 20]
        os.close(handle)
    m.unmount()
    m.start()
    for date in dates[: len(handles)]:
        assert sha256(read(csv_path(m, date))) == sha256(csvs[date])
    # What was evicted or never came: also right, room is made for it.
    for date in dates:
        assert sha256(read(csv_path(m, date))) == sha256(csvs[date])
    m.unmount()
    unmount(disk)


@root_only
@limit(120)
def test_cache__min_free_evicts_least_recently_used(t):
    csvs = folder_of(t, 8, 2 << 20)
    dates = sorted(csvs)
    disk = t.folder("disk")
    run("mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", disk)
    # The quota of 50G is far away.
    m = t.mount(t.origin(), cache=disk + "/cache", min_free="12M")
    for date in dates[:4]:
        assert read(csv_path(m, date)) == csvs[date]
    time.sleep(1.1)  # last uses are kept to the second
    assert read(csv_path(m, dates[0])) == csvs[dates[0]]
    for date in dates[4:]:
        time.sleep(1.1)
        assert read(csv_path(m, date)) == csvs[date]
        free = os.statvfs(disk)
        assert free.f_bavail * free.f_frsize >= 12 << 20, date
    assert dates[1] not in cached(m)
    assert dates[7] in cached(m)
    assert int(attr(m.point, "cache.evictions")) >= 1
    assert read(csv_path(m, dates[1])) == csvs[dates[1]]
    m.unmount()
    unmount(disk)


@root_only
def test_cache__disk_filled_by_others_is_enospc_then_heals(t):
    csvs = folder_of(t, 2, 1 << 20)
    disk = t.folder("disk")
    run("mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", disk)
    m = t.mount(t.origin(), cache=disk + "/cache")
    assert read(csv_path(m, "2024-01-01")) == csvs["2024-01-01"]
    handle = os.open(csv_path(m, "2024-01-01"), os.O_RDONLY)
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={disk}/ballast", "bs=64k"],
        stderr=subprocess.DEVNULL, check=False, timeout=30,
    )
    assert errno_of(read, csv_path(m, "2024-01-02")) == "ENOSPC"
    assert os.pread(handle, 1 << 20, 0) == csvs["2024-01-01"]
    os.close(handle)
    os.unlink(f"{disk}/ballast")
    assert read(csv_path(m, "2024-01-02")) == csvs["2024-01-02"]
    m.unmount()
    unmount(disk)


@root_only
def test_cache__disk_filled_by_others_is_evicted_from(t):
    csvs = folder_of(t, 6, 1 << 20)
    dates = sorted(csvs)
    disk = t.folder("disk")
    run("mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", disk)
    m = t.mount(t.origin(), cache=disk + "/cache")
    for date in dates[:5]:
        assert read(csv_path(m, date)) == csvs[date]
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={disk}/ballast", "bs=4k"],
        stderr=subprocess.DEVNULL, check=False, timeout=30,
    )
    time.sleep(1.1)  # last uses are kept to the second
    # A use that is to be written down before it is told who goes.
    assert read(csv_path(m, dates[0])) == csvs[dates[0]]
    assert read(csv_path(m, dates[5])) == csvs[dates[5]]
    assert dates[0] in cached(m)
    assert dates[1] not in cached(m)
    m.unmount()
    unmount(disk)


@smoke
def test_cache__second_daemon_is_refused_with_the_holders_pid(t):
    folder_of(t, 1, 1000)
    origin = t.origin()
    m = t.mount(origin)
    result = subprocess.run(
        [f"{BUILD}/tickfs", t.folder("other"), "-f", "-o",
         f"origin={origin.url},listing={origin.listing},cache={m.cache}"],
        capture_output=True, text=True, timeout=20, check=False,
    )
    assert result.returncode != 0
    assert str(m.process.pid) in result.stdout + result.stderr, result


@alone
@smoke
def test_cache__offline_serves_what_it_has_seen(t):
    csvs = folder_of(t, 3, 30000)
    origin = t.origin()
    m = t.mount(origin)
    assert read(csv_path(m, "2024-01-01")) == csvs["2024-01-01"]
    names = sorted(os.listdir(m / FOLDER))
    m.unmount()
    origin.stop()
    for options in ({"offline": True}, {"offline": None, "retries": "0"}):
        m.start(**options)
        assert sorted(os.listdir(m / FOLDER)) == names
        assert read(csv_path(m, "2024-01-01")) == csvs["2024-01-01"]
        begin = time.monotonic()
        assert errno_of(read, csv_path(m, "2024-01-02")) == "ENETUNREACH"
        # Its size was never asked for: stat fails, at once when offline.
        assert errno_of(os.stat, csv_path(m, "2024-01-03")) == "ENETUNREACH"
        if "offline" in options and options["offline"]:
            assert time.monotonic() - begin < 0.5
            assert errno_of(os.listdir, m / "um/klines") == "ENETUNREACH"
        m.unmount()
    m.start()


def test_cache__offline_serves_what_it_has_without_a_catalog(t):
    csvs = folder_of(t, 2, 30000)
    origin = t.origin()
    m = t.mount(origin)
    for date, csv in csvs.items():
        assert read(csv_path(m, date)) == csv
    m.unmount()
    origin.stop()
    for path in glob.glob(f"{m.cache}/catalog.sqlite*"):
        os.unlink(path)
    m.start(offline=True)
    for _ in range(2):
        for date, csv in csvs.items():
            assert os.stat(csv_path(m, date)).st_size == len(csv)
            assert read(csv_path(m, date)) == csv
        assert errno_of(read, csv_path(m, "2024-01-03")) == "ENETUNREACH"
        m.remount()


def test_cache__offline_from_the_first_mount_on(t):
    m = t.mount(None, offline=True)
    assert "spot" in os.listdir(m.point)
    assert errno_of(read, csv_path(m, "2024-01-01")) == "ENETUNREACH"
    assert errno_of(os.listdir, m / FOLDER) == "ENETUNREACH"


def test_cache__nothing_half_written_is_under_its_real_name(t):
    csvs = folder_of(t, 1, 2 << 20)
    key = klines_key("2024-01-01")
    origin = t.origin()
    origin.rules({"kind": "object", "key": key, "hold": "rest",
                  "hold_after": 1 << 20})
    m = t.mount(origin)
    job = t.job(read, csv_path(m, "2024-01-01"))
    origin.wait_held(1)
    assert not os.path.exists(f"{m.cache}/objects/{key}")
    wait_until(lambda: glob.glob(f"{m.cache}/staging/**/*.partial",
                                 recursive=True), "a partial file")
    origin.release("rest")
    assert job.result() == csvs["2024-01-01"]
    assert os.path.exists(f"{m.cache}/objects/{key}")
    assert not glob.glob(f"{m.cache}/staging/**/*.partial", recursive=True)


def test_cache__foreign_and_unsafe_folders_are_refused(t):
    origin_root = t.folder("origin")
    Tree(origin_root).klines("2024-01-01")
    origin = t.origin()
    unsafe = t.folder("unsafe")
    os.chmod(unsafe, 0o777)
    plain = t.file("plain")
    with open(plain, "wb"):
        pass
    for cache in (unsafe, plain, "/proc/tickfs"):
        result = subprocess.run(
            [f"{BUILD}/tickfs", t.folder("other"), "-f", "-o",
             f"origin={origin.url},listing={origin.listing},cache={cache}"],
            capture_output=True, text=True, timeout=20, check=False,
        )
        assert result.returncode != 0, cache
        assert cache in result.stdout + result.stderr, result


def unreadable(t, where, **options):
    """A cached CSV on a disk that stops giving back what lies at @where
    while the file of the switch is there."""
    tree = Tree(t.folder("origin"))
    csv = tree.klines("2024-01-01", noise(300000, 77))
    origin = t.origin()
    switch = t.file("switch")
    m = t.mount(origin, prefill="off", environment={
        "LD_PRELOAD": os.path.join(BUILD, "badread.so"),
        "BADREAD_SWITCH": switch,
        "BADREAD_PATH": where,
    })
    path = f"{m.point}/{FOLDER}/2024-01-01.csv"
    assert read(path) == csv
    m.remount(**options)
    return m, origin, path, csv, switch


def fails(path, switch, times):
    with open(switch, "w", encoding="ascii"):
        pass
    for _ in range(times):
        assert errno_of(read, path) == "EIO"


def test_cache__unreadable_disk_loses_nothing_offline(t):
    m, _, path, csv, switch = unreadable(t, "*.zip?(.partial)", offline=True)
    fails(path, switch, 3)
    m.remount()
    fails(path, switch, 2)
    os.unlink(switch)
    assert read(path) == csv
    m.remount()
    assert read(path) == csv
    assert attr(path, "cache.state") == "verified"


def test_cache__unreadable_disk_is_asked_for_no_more_than_it_helps(t):
    m, origin, path, csv, switch = unreadable(t, "*.zip?(.partial)")
    origin.reset()
    fails(path, switch, 3)
    # Each of the three might have been healed by it, twice: by the zip, its
    # .CHECKSUM, and what is asked for beyond the end of an unread partial.
    assert origin.stats()["requests"] <= 3 * 2 * 3, origin.stats()
    os.unlink(switch)
    assert read(path) == csv


def test_cache__unreadable_object_is_fetched_again(t):
    """What lies in objects/ can't be read, whatever is put there; what is
    downloaded can."""
    m, origin, path, csv, switch = unreadable(t, "*/objects/*.zip")
    fails(path, switch, 2)
    os.unlink(switch)
    assert read(path) == csv
    # And offline nothing was lost by it.
    origin.stop()
    m.remount(offline=True)
    assert read(path) == csv
