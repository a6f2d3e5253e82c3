#!/usr/bin/env python3
"""What generate.py writes, by other tools: zipfile, unzip, sha256sum.

Numbers of the containers are those of section 5.1 of the reference; with
TICKFS_REALDATA set they are compared with real archives too.
"""

import csv
import datetime
import filecmp
import glob
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True  # no litter in the source tree
sys.path.insert(0, HERE)

import defects  # noqa: E402
import hazards  # noqa: E402
import keys  # noqa: E402
import sample  # noqa: E402


def manifest(folder):
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as f:
        return json.load(f)["archives"]


def generate(folder, *args):
    subprocess.run([sys.executable, os.path.join(HERE, "generate.py"),
                    folder, *args], check=True)
    return manifest(folder)


def read(path):
    with open(path, "rb") as f:
        return f.read()


class Container:
    """The headers of a zip with one member, read from its bytes."""

    def __init__(self, path):
        data = read(path)
        end = struct.unpack_from("<4s4H2IH", data, len(data) - 22)
        assert end[0] == b"PK\5\6" and end[7] == 0
        central = struct.unpack_from("<4s6H3I5H2I", data, end[6])
        local = struct.unpack_from("<4s5H3I2H", data, 0)
        assert central[0] == b"PK\1\2" and local[0] == b"PK\3\4"
        name_len, extra_len = central[10:12]
        at = end[6] + 46 + name_len
        self.members = end[4]
        self.made_by, self.needed = central[1], central[2]
        self.flags = local[2], central[3]
        self.method = local[3], central[4]
        self.sums = local[6:9], central[7:10]
        self.external, self.offset = central[15], central[16]
        self.central_extra = data[at:at + extra_len]
        at = 30 + local[9]
        self.local_extra = data[at:at + local[10]]

    def shape(self):
        """All that does not hang on the content."""
        ids = [[(i, n) for i, n, _ in fields(extra)]
               for extra in (self.local_extra, self.central_extra)]
        return (self.members, self.made_by, self.needed, self.flags,
                self.method, self.external, self.offset, ids)


def fields(extra):
    while extra:
        kind, size = struct.unpack_from("<2H", extra)
        yield kind, size, extra[4:4 + size]
        extra = extra[4 + size:]


def member(z, name):
    """The ZipInfo of a name. The program zip writes UTF-8 without the flag
    that says so, which zipfile takes for code page 437."""
    for info in z.infolist():
        raw = info.orig_filename
        if not info.flag_bits & 0x800:
            raw = raw.encode("cp437").decode()
        if raw == name:
            return info
    raise KeyError(name)


class Sample(unittest.TestCase):
    """The sample as all tests read it, of this generator."""

    @classmethod
    def setUpClass(cls):
        cls.root = sample.sample()
        cls.archives = {a["key"]: a for a in manifest(cls.root)}

    def path(self, key):
        return os.path.join(self.root, key)

    def rows(self, key):
        text = subprocess.run(["unzip", "-p", self.path(key)], check=True,
                              capture_output=True).stdout.decode()
        self.assertTrue(text.endswith("\n"))
        return list(csv.reader(io.StringIO(text)))

    def of(self, market, **more):
        for a in self.archives.values():
            if a.get("market") == market and not a["hazard"] and all(
                    a[k] == v for k, v in more.items()):
                yield a

    def test_has_every_dataset_and_cadence(self):
        for market, datasets in keys.TREE.items():
            for dataset, cadences in datasets.items():
                found = {a["cadence"][0]
                         for a in self.of(market, dataset=dataset)}
                self.assertEqual(found, set(cadences), (market, dataset))

    def test_has_every_interval(self):
        for cadence, absent in (("daily", {"3d", "1w", "1mo"}),
                                ("monthly", set())):
            found = {a["interval"] for a in self.of(
                "spot", dataset="klines", cadence=cadence)}
            self.assertEqual(found, set(keys.INTERVALS) - absent)

    def test_has_the_odd_names(self):
        for part in ("ADABKRW-1d-2020-8.zip", "FILBNB-1d-2021-07.zip",
                     "/part-00000-", "/币安人生USDT/", "_SETTLED/",
                     "/BTCUSDT_240329/", "/BTCUSD_PERP/",
                     "/indexPriceKlines/BTCUSD/", "/1000SHIBUSDT/"):
            self.assertTrue(any(part in key for key in self.archives), part)
        for part, there in (("ADABKRW-1d-2020-8.zip", False),
                            ("ADABKRW-1d-2020-09.zip", True),
                            ("FILBNB-1d-2021-07.zip", False)):
            key = next(k for k in self.archives if k.endswith(part))
            self.assertEqual(os.path.exists(self.path(key) + ".CHECKSUM"),
                             there)

    def test_has_months_with_and_without_days(self):
        folders = {}
        for a in self.of("spot", dataset="klines", interval="1m",
                         symbol="BTCUSDT"):
            folders.setdefault(a["cadence"], set()).add(a["date"][:7])
        self.assertTrue(folders["monthly"] & folders["daily"])
        self.assertTrue(folders["monthly"] - folders["daily"])
        self.assertTrue(folders["daily"] - folders["monthly"])

    def test_is_small(self):
        size = sum(os.path.getsize(p) for p in glob.glob(
            self.root + "/data/**/*", recursive=True) if os.path.isfile(p))
        self.assertLess(size, 22_000_000)

    def test_unzip_finds_no_error(self):
        for key in self.archives:
            subprocess.run(["unzip", "-tqq", self.path(key)], check=True)

    def test_sha256sum_accepts_checksums(self):
        for path in glob.glob(self.root + "/data/**/*.CHECKSUM",
                              recursive=True):
            subprocess.run(["sha256sum", "--quiet", "--strict", "-c",
                            os.path.basename(path)], check=True,
                           cwd=os.path.dirname(path))

    def test_checksum_ends_as_the_market_has_it(self):
        for key in self.archives:
            path = self.path(key) + ".CHECKSUM"
            if os.path.exists(path):
                lf = b"" if key.startswith("data/spot/") else b"\n"
                name = os.path.basename(key).encode()
                self.assertEqual(read(path)[64:], b"  " + name + lf)

    def test_manifest_tells_the_csv(self):
        for key, a in self.archives.items():
            with zipfile.ZipFile(self.path(key)) as z:
                info = member(z, a["csv"])
                data = z.read(info)
            self.assertEqual(f"{info.CRC:08x}", a["csv_crc32"])
            self.assertEqual(len(data), a["csv_size"])
            self.assertEqual(hashlib.sha256(data).hexdigest(),
                             a["csv_sha256"])
            self.assertEqual(hashlib.sha256(read(self.path(key))).hexdigest(),
                             a["zip_sha256"])

    def test_manifest_lists_every_file(self):
        found = {os.path.relpath(p, self.root) for p in glob.glob(
            self.root + "/data/**/*.zip", recursive=True)}
        self.assertEqual(found, set(self.archives))

    def test_spot_containers(self):
        for a in self.of("spot"):
            c = Container(self.path(a["key"]))
            utf8 = 0 if a["symbol"].isascii() else 0x800
            self.assertEqual(
                c.shape(), (1, 3 << 8 | 20, 20, (utf8, utf8), (8, 8),
                            0x81A40000, 0, [[], []]), a["key"])
            self.assertEqual(c.sums[0], c.sums[1])

    def test_other_containers(self):
        for market in ("um", "cm", "option"):
            for a in self.of(market, symbol="BTCUSDT"):
                c = Container(self.path(a["key"]))
                self.assertEqual(
                    c.shape(), (1, 3 << 8 | 30, 20, (0, 0), (8, 8),
                                0x81A40000, 0,
                                [[(0x5455, 9), (0x7875, 11)],
                                 [(0x5455, 5), (0x7875, 11)]]), a["key"])
                self.assertEqual(len(c.local_extra), 28)
                self.assertEqual(len(c.central_extra), 24)
                self.assertEqual(c.sums[0], c.sums[1])
                self.assertEqual(c.local_extra[-11:], bytes.fromhex(
                    "0104e103000004dd030000"))  # uid 993, gid 989
                self.assertEqual(c.central_extra[-11:], c.local_extra[-11:])

    def test_dos_times_are_utc(self):
        for a in self.of("um", dataset="klines", symbol="BTCUSDT"):
            with zipfile.ZipFile(self.path(a["key"])) as z:
                info = z.infolist()[0]
            stamp, = struct.unpack_from("<I", info.extra, 5)
            when = datetime.datetime.fromtimestamp(stamp,
                                                   datetime.timezone.utc)
            self.assertEqual(when.timetuple()[:6], info.date_time)

    @unittest.skipUnless(os.environ.get("TICKFS_REALDATA"),
                         "TICKFS_REALDATA is not set")
    def test_containers_are_as_the_real_ones(self):
        shapes = {}
        for path in glob.glob(os.environ["TICKFS_REALDATA"]
                              + "/**/*.zip", recursive=True):
            market = "spot" if "/spot/" in path else "futures"
            shapes.setdefault(market, set()).add(
                repr(Container(path).shape()))
        for market, market_shapes in shapes.items():
            a = next(self.of("um" if market == "futures" else market,
                             symbol="BTCUSDT"))
            self.assertEqual({repr(Container(self.path(a["key"])).shape())},
                             market_shapes)

    def test_headers_follow_their_history(self):
        cases = {
            "spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-01": False,
            "spot/daily/trades/BTCUSDT/BTCUSDT-trades-2025-01-01": False,
            "futures/um/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2021-12-31": False,
            "futures/um/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2022-01-01": True,
            "futures/um/daily/trades/BTCUSDT/BTCUSDT-trades-2022-08-10":
                False,
            "futures/um/daily/trades/BTCUSDT/BTCUSDT-trades-2022-08-11": True,
            "futures/cm/daily/metrics/BTCUSD_PERP/BTCUSD_PERP-metrics-"
            "2020-09-01": True,
        }
        for part, there in cases.items():
            first = self.rows(f"data/{part}.zip")[0]
            self.assertEqual(not first[0].isdigit(), there, part)

    def test_spot_changes_to_microseconds_in_2025(self):
        folder = "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-"
        self.assertEqual(self.rows(folder + "2024-12-31.zip")[-1][6],
                         "1735689599999")
        first = self.rows(folder + "2025-01-01.zip")[0]
        self.assertEqual((first[0], first[6]),
                         ("1735689600000000", "1735689659999999"))

    def test_columns_and_rows(self):
        columns = {"klines": 12, "markPriceKlines": 12,
                   "indexPriceKlines": 12, "premiumIndexKlines": 12,
                   "bookTicker": 7, "bookDepth": 4, "metrics": 8,
                   "fundingRate": 3, "liquidationSnapshot": 10,
                   "BVOLIndex": 5, "EOHSummary": 26}
        for a in self.archives.values():
            if "market" not in a:
                continue
            spot = a["market"] == "spot"
            n = columns.get(a["dataset"]) or {
                "aggTrades": 8 if spot else 7, "trades": 7 if spot else 6
            }[a["dataset"]]
            with zipfile.ZipFile(self.path(a["key"])) as z:
                lines = z.read(member(z, a["csv"])).decode().splitlines()
            self.assertEqual({line.count(",") + 1 for line in lines}, {n},
                             a["key"])
        for part, rows in (("1m/BTCUSDT-1m-2020-01-01", 1440),
                           ("1s/BTCUSDT-1s-2025-01-01", 86400),
                           ("1d/BTCUSDT-1d-2025-01-01", 1)):
            self.assertEqual(len(self.rows(
                f"data/spot/daily/klines/BTCUSDT/{part}.zip")), rows)
        for interval, rows in (("3d", 10), ("1w", 5), ("1mo", 1)):
            # Mondays of December 2024: 2, 9, 16, 23, 30
            self.assertIn(len(self.rows(
                f"data/spot/monthly/klines/BTCUSDT/{interval}/"
                f"BTCUSDT-{interval}-2024-12.zip")), (rows, rows + 1))

    def test_candles_hold_together(self):
        for a in self.archives.values():
            if a.get("dataset") not in keys.KLINES:
                continue
            last = 0
            for row in self.rows(a["key"]):
                if not row[0].isdigit():
                    continue
                first, high, low, close = map(float, row[1:5])
                self.assertLessEqual(low, min(first, close), a["key"])
                self.assertGreaterEqual(high, max(first, close), a["key"])
                self.assertLessEqual(float(row[9]), float(row[5]))
                self.assertGreater(int(row[0]), last)
                self.assertGreater(int(row[6]), int(row[0]))
                last = int(row[0])

    def test_a_month_holds_its_days(self):
        folder = "data/spot/{}/klines/BTCUSDT/1m/BTCUSDT-1m-2024-11{}.zip"
        month = read_csv(self.path(folder.format("monthly", "")))
        days = b"".join(read_csv(self.path(folder.format("daily", day)))
                        for day in ("-29", "-30"))
        self.assertTrue(month.endswith(days))

    def test_two_members_one_nested(self):
        key = ("data/spot/monthly/aggTrades/ETHUSDT/"
               "ETHUSDT-aggTrades-2018-01.zip")
        with zipfile.ZipFile(self.path(key)) as z:
            nested, root = z.namelist()
            self.assertEqual(os.path.basename(nested), root)
            self.assertNotEqual(z.read(nested), z.read(root))
        self.assertEqual(self.archives[key]["csv"], root)

    def test_a_file_of_a_header_only(self):
        self.assertEqual(len(self.rows(
            "data/futures/cm/daily/liquidationSnapshot/ADAUSD_PERP/"
            "ADAUSD_PERP-liquidationSnapshot-2023-06-26.zip")), 1)


def read_csv(path):
    with zipfile.ZipFile(path) as z:
        return z.read(z.namelist()[0])


class Hazards(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.root = cls.folder.name
        cls.archives = {a["hazard"]: a
                        for a in generate(cls.root, "--hazards")}

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def path(self, name):
        return os.path.join(self.root, self.archives[name]["key"])

    def test_all_are_there(self):
        self.assertEqual(set(self.archives), set(hazards.NAMES))

    def test_sound_ones_read_right(self):
        for name, a in self.archives.items():
            if a["expect"] != "ok" or name in hazards.UNZIP_REFUSES:
                continue
            out = subprocess.run(
                ["unzip", "-p", self.path(name), a["csv"]],
                capture_output=True, check=False)
            self.assertIn(out.returncode, (0, 1), name)
            self.assertEqual(hashlib.sha256(out.stdout).hexdigest(),
                             a["csv_sha256"], name)

    def test_damaged_ones_do_not(self):
        for name, a in self.archives.items():
            if (a["expect"] != "EBADMSG" or name in hazards.OWN_CHECKSUM
                    or name == "size_too_large"):
                continue
            with self.assertRaises((zipfile.BadZipFile, EOFError,
                                    zipfile.zlib.error), msg=name):
                with zipfile.ZipFile(self.path(name)) as z:
                    z.read(a["csv"])
        with zipfile.ZipFile(self.path("size_too_large")) as z:
            info = z.infolist()[0]
            self.assertEqual(len(z.read(info)), info.file_size - 1000)

    def test_an_empty_zip_is_one(self):
        self.assertEqual(self.archives["empty_zip"]["expect"], "ENOENT")
        with zipfile.ZipFile(self.path("empty_zip")) as z:
            self.assertEqual(z.namelist(), [])

    def test_lost_signature_leaves_the_data(self):
        """Only the four bytes are wrong: with them put back all is right."""
        data = read(self.path("bad_local"))
        self.assertEqual(data[:4], b"JUNK")
        with self.assertRaises(zipfile.BadZipFile):
            read_csv(self.path("bad_local"))
        mended = read_csv(io.BytesIO(b"PK\3\4" + data[4:]))
        self.assertEqual(hashlib.sha256(mended).hexdigest(),
                         self.archives["bad_local"]["csv_sha256"])

    def test_only_those_on_checksums_fail_sha256sum(self):
        for name in self.archives:
            path = self.path(name) + ".CHECKSUM"
            if not os.path.exists(path):
                self.assertEqual(name, "no_checksum")
                continue
            out = subprocess.run(
                ["sha256sum", "--status", "-c", os.path.basename(path)],
                cwd=os.path.dirname(path), check=False, capture_output=True)
            self.assertEqual(out.returncode == 0,
                             name not in hazards.OWN_CHECKSUM, name)

    def test_zip64_extras(self):
        for name in ("zip64", "zip64_infozip"):
            data = read(self.path(name))
            at, name_len = 30, struct.unpack_from("<H", data, 26)[0]
            extra_len, = struct.unpack_from("<H", data, 28)
            ids = [kind for kind, *_ in fields(
                data[at + name_len:at + name_len + extra_len])]
            self.assertIn(1, ids, name)
        self.assertIn(b"PK\6\6", read(self.path("zip64")))
        self.assertIn(b"PK\6\7", read(self.path("zip64")))

    def test_methods_and_flags(self):
        for name, method, flags in (
                ("stored", 0, 0), ("empty_stored", 0, 0), ("bzip2", 12, 0),
                ("lzma", 14, 2), ("encrypted", 8, 1), ("zip64", 8, 0),
                ("data_descriptor", 8, 8), ("fixed_huffman", 8, 0)):
            with zipfile.ZipFile(self.path(name)) as z:
                info = z.infolist()[0]
            self.assertEqual((info.compress_type, info.flag_bits),
                             (method, flags), name)

    def test_password_opens_the_encrypted(self):
        with zipfile.ZipFile(self.path("encrypted")) as z:
            rows = z.read(z.namelist()[0], pwd=hazards.PASSWORD)
        self.assertEqual(rows.count(b"\n"), 100)

    def test_first_blocks_are_of_their_kind(self):
        # RFC 1951 section 3.2.3: bits 1 and 2 of a block's first byte
        for name, kind in (("stored_blocks", 0), ("fixed_huffman", 1),
                           ("infozip", 2)):
            data = read(self.path(name))
            at = 30 + sum(struct.unpack_from("<2H", data, 26))
            self.assertEqual(data[at] >> 1 & 3, kind, name)

    def test_directories_reach_beyond_64_kib(self):
        data = read(self.path("many_members"))
        size, at = struct.unpack_from("<2I", data, len(data) - 10)
        self.assertGreater(size, 65_578)
        self.assertEqual(data[at:at + 4], b"PK\1\2")
        with zipfile.ZipFile(self.path("comment")) as z:
            self.assertEqual(len(z.comment), 65535)

    def test_hostile_names_are_there(self):
        with zipfile.ZipFile(self.path("hostile_names")) as z:
            found = {info.orig_filename for info in z.infolist()}
        self.assertEqual(found - {self.archives["hostile_names"]["csv"]},
                         set(hazards.HOSTILE_NAMES))


class Runs(unittest.TestCase):
    ARCHIVES = [
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01-01.zip",
        "data/spot/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2024-01-01.zip",
        "data/futures/um/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01-01.zip",
        "data/futures/um/daily/aggTrades/BTCUSDT/"
        "BTCUSDT-aggTrades-2024-01-01.zip",
    ]

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name

    def make(self, name, *args):
        folder = os.path.join(self.root, name)
        return folder, generate(folder, *args)

    def keys_of(self):
        return [arg for key in self.ARCHIVES for arg in ("--archive", key)]

    def test_same_seed_same_bytes(self):
        args = ["--hazards", "--defect", "all", *self.keys_of()]
        one, entries = self.make("one", *args)
        two, _ = self.make("two", *args)
        for entry in entries:
            for key in (entry["key"], entry["key"] + ".CHECKSUM"):
                paths = [os.path.join(root, key) for root in (one, two)]
                if not os.path.exists(paths[0]):
                    continue
                self.assertTrue(filecmp.cmp(*paths, shallow=False), key)
                self.assertEqual(*map(os.path.getmtime, paths))
        self.assertTrue(filecmp.cmp(f"{one}/manifest.json",
                                    f"{two}/manifest.json", shallow=False))

    def test_folder_may_be_relative(self):
        """zip(1) runs in a folder of its own."""
        key = self.ARCHIVES[2]
        subprocess.run(
            [sys.executable, os.path.join(HERE, "generate.py"), "here",
             "--archive", key], check=True, cwd=self.root)
        self.assertTrue(os.path.exists(f"{self.root}/here/{key}"))

    def test_other_seed_other_bytes(self):
        entries = [self.make(seed, *self.keys_of(), "--seed", seed)[1]
                   for seed in ("1", "2")]
        for one, two in zip(*entries):
            self.assertEqual(one["key"], two["key"])
            self.assertNotEqual(one["csv_sha256"], two["csv_sha256"])

    def test_rows_are_as_many_as_asked(self):
        folder, _ = self.make("rows", "--archive", self.ARCHIVES[1],
                              "--rows", "12345")
        data = read_csv(os.path.join(folder, self.ARCHIVES[1]))
        self.assertEqual(data.count(b"\n"), 12345)

    def test_refuses_what_is_no_archive(self):
        for key in ("data/spot/daily/klines/BTCUSDT/BTCUSDT-1m-2024-01-01.zip",
                    "data/spot/daily/metrics/BTCUSDT/"
                    "BTCUSDT-metrics-2024-01-01.zip",
                    "data/spot/monthly/trades/A/A-trades-2024-01-01.zip",
                    "../x.zip"):
            with self.assertRaises(ValueError):
                keys.parse(key)
        for key in self.ARCHIVES:
            self.assertEqual(keys.parse(key).key, key)

    def test_crowds(self):
        folder, entries = self.make("crowd", "--symbols", "30", "--days",
                                    "40")
        self.assertEqual(len(entries), 70)
        klines = os.path.join(folder, "data/spot/daily/klines")
        self.assertEqual(len(os.listdir(klines)), 31)
        days = sorted(os.listdir(klines + "/DAYSUSDT/1d"))
        self.assertEqual(len(days), 80)
        self.assertEqual(days[0], "DAYSUSDT-1d-2017-08-17.zip")
        self.assertEqual(days[-2], "DAYSUSDT-1d-2017-09-25.zip")

    def test_runs_add_to_the_manifest(self):
        self.make("both", "--archive", self.ARCHIVES[0])
        _, entries = self.make("both", "--archive", self.ARCHIVES[1])
        self.assertEqual({e["key"] for e in entries},
                         set(self.ARCHIVES[:2]))

    def test_defects_show_on_their_lines(self):
        folder, entries = self.make("defects", "--defect", "all")
        self.assertEqual({e["defect"] for e in entries}, set(defects.NAMES))
        by = {}
        for e in entries:
            lines = read_csv(os.path.join(folder, e["key"])).decode()
            by[e["defect"], e["market"], e["dataset"]] = (
                lines.split("\n")[:-1], e["defect_lines"])
        for (name, market, dataset), (lines, at) in by.items():
            with self.subTest(name=name, market=market, dataset=dataset):
                self.check_defect(name, dataset, lines, at)

    def check_defect(self, name, dataset, lines, at):
        line, before = lines[at[0] - 1], lines[at[0] - 2]
        first = [int(text.split(",")[0]) for text in (before, line)
                 if name not in ("malformed", "negative")]
        step = 60_000 if dataset == "klines" else 1
        if name == "duplicate":
            self.assertEqual(line, before)
        elif name == "gap":
            self.assertGreater(first[1] - first[0], step)
        elif name == "disorder":
            self.assertLess(first[1], first[0])
        elif name == "malformed":
            self.assertEqual(len(at), 4)
            self.assertIn("1.2.3", line)
            self.assertEqual(lines[at[3] - 1], "")
            commas = lines[0].count(",")
            self.assertEqual(lines[at[1] - 1].count(","), commas - 1)
            self.assertEqual(lines[at[2] - 1].count(","), commas + 1)
        elif name == "negative":
            self.assertTrue(line.split(",")[1].startswith("-"))
        elif name == "crossed" and dataset == "klines":
            high, low = map(float, line.split(",")[2:4])
            self.assertLess(high, low)
        elif name == "crossed":
            self.assertEqual(float(line.split(",")[2]), 0)
        elif name == "unit_mixed":
            column = 0 if dataset == "klines" else 5
            self.assertEqual(len(line.split(",")[column]),
                             len(before.split(",")[column]) + 3)
        elif name == "frozen":
            self.assertEqual(line.split(",")[1:3], before.split(",")[1:3])
        else:
            self.assertEqual(name, "cut_short")
            self.assertEqual(at, [len(lines)])


class Tap(unittest.TextTestResult):
    """One line a test, as scripts/test counts them; what went wrong before
    it."""

    def __init__(self, stream, descriptions, verbosity):
        super().__init__(stream, descriptions, 0)

    def say(self, verdict, test, why=""):
        print(f"{verdict} {self.testsRun} - "
              f"{test.id().removeprefix('__main__.')}{why}", flush=True)

    def comment(self, text):
        for line in text.rstrip().splitlines():
            print("# " + line)

    def addSuccess(self, test):
        self.say("ok", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.say("ok", test, f" # SKIP {reason}")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.comment(self._exc_info_to_string(err, test))
        self.say("not ok", test)

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.comment(self._exc_info_to_string(err, test))
            self.say("not ok", subtest)

    def printErrors(self):
        pass  # said already


if __name__ == "__main__":
    unittest.main(testRunner=unittest.TextTestRunner(resultclass=Tap))
