#!/usr/bin/env python3
"""Make a tree of archives as Binance Vision has them, with invented values.

Writes DIR/data/... for tests/origin to serve, and DIR/manifest.json, which
says of each archive what its CSV is. The same arguments give the same bytes
wherever zip and zlib are the same. Further runs into the same DIR add to it.

Not affiliated with Binance; no real data in it.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from typing import Optional

sys.dont_write_bytecode = True  # no litter in the source tree
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import containers  # noqa: E402
import defects  # noqa: E402
import hazards  # noqa: E402
import keys  # noqa: E402
import rows  # noqa: E402

CHINESE = "币安人生USDT"


@dataclass
class Job:
    """One archive to make. `defect` and `hazard` name what is wrong in it."""
    archive: keys.Archive
    seed: int
    rows: Optional[int] = None
    since: int = 0
    checksum: bool = True
    defect: Optional[str] = None
    hazard: Optional[str] = None
    options: dict = field(default_factory=dict)


def make(root, job):
    """Write one archive and return its entry in the manifest."""
    archive = job.archive
    path = os.path.join(root, archive.key)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    when = containers.published(archive)
    if job.hazard:
        entry = hazards.write(job.hazard, path, archive, job.seed, when)
    else:
        entry = write_plain(path, job, when)
    containers.set_times(path, when)
    return {
        "key": archive.key,
        **{k: v for k, v in asdict(archive).items()},
        "csv": archive.name + ".csv",
        **entry,
        **containers.file_digest(path).as_dict("zip"),
        "checksum": os.path.exists(path + ".CHECKSUM"),
        "hazard": job.hazard,
        "defect": job.defect,
    }


def write_plain(path, job, when):
    archive = job.archive
    lines = rows.lines_of(archive, job.seed, job.rows, job.since)
    found = None
    if job.defect:
        lines, found = defects.spoil(job.defect, list(lines), archive,
                                     job.seed)
    tally = containers.Tally()
    writer = (containers.write_python if archive.market == "spot"
              else containers.write_infozip)
    writer(path, archive.name + ".csv", containers.chunks(lines), when, tally)
    if job.checksum:
        containers.write_checksum(path, archive.market)
    return {"expect": "ok", **tally.as_dict("csv"), "defect_lines": found}


def sample_jobs(seed):
    """Every dataset, small, with the odd names and files of the real tree."""

    def add(market, dataset, symbol, interval, *dates, **more):
        for archive in keys.expand(market, dataset, symbol, interval, *dates):
            jobs.append(Job(archive, seed, **more))

    jobs = []
    # spot: the change to microseconds; a month that days cover in part (its
    # other days are in the month only) and one that no day covers
    add("spot", "klines", "BTCUSDT", "1m", "2020-01-01..2020-01-03",
        "2024-11-29..2024-11-30", "2024-12-30..2025-01-02",
        "2024-11")
    # from the first candle there is
    add("spot", "klines", "BTCUSDT", "1m", "2017-08", since=1502942400_000)
    for interval in keys.INTERVALS:
        if interval not in ("1m", "3d", "1w", "1mo"):
            add("spot", "klines", "BTCUSDT", interval, "2025-01-01")
        if interval not in ("1s", "1m"):
            add("spot", "klines", "BTCUSDT", interval, "2024-12")
        if interval in ("1h", "12h", "1d", "3d", "1w", "1mo"):
            add("spot", "klines", "BTCUSDT", interval, "2025-01")
    add("spot", "klines", "ETHUSDT", "1h", "2024-12-31..2025-01-02",
        "2024-11", "2024-12")
    add("spot", "klines", "ETHUSDT", "1d", "2023-01", "2023-02", "2023-04")
    add("spot", "klines", "1INCHUSDT", "1d", "2024-01", "2024-02")
    add("spot", "klines", "4USDT", "1h", "2025-12-01..2025-12-02")
    add("spot", "klines", CHINESE, "1m", "2025-11-01..2025-11-02")
    add("spot", "klines", CHINESE, "1h", "2025-10", "2025-11")
    # a month of one-second candles would be large: one listed at its end
    add("spot", "klines", "牛来USDT", "1s", "2025-10",
        since=1761948000_000)
    add("spot", "klines", "ADABKRW", "1d", "2020-8", checksum=False)
    add("spot", "klines", "ADABKRW", "1d", "2020-09")
    add("spot", "klines", "FILBNB", "1d", "2021-07", checksum=False)
    for dataset in ("aggTrades", "trades"):
        add("spot", dataset, "BTCUSDT", None, "2024-12-31..2025-01-02",
            "2024-11")
        add("spot", dataset, "BTCUSDT", None, "2024-12", rows=3100)
        add("spot", dataset, "ETHBTC", None, "2025-01-01")
        add("spot", dataset, CHINESE, None, "2025-11-01")
        add("spot", dataset, "BNBBTC", None, "2017-08", rows=2000)
    jobs.append(Job(keys.Archive("spot", "monthly", "aggTrades", "ETHUSDT",
                                 None, "2018-01"), seed,
                    hazard="two_members"))

    add("um", "klines", "BTCUSDT", "1m", "2021-12-31..2022-01-01",
        "2023-04-15")
    add("um", "klines", "BTCUSDT", "1h", "2022-01-31..2022-02-01",
        "2021-12", "2022-01", "2022-02")
    add("um", "klines", "BTCUSDT", "1mo", "2024-01", "2024-02")
    add("um", "klines", "BTCUSDT_240329", "1h", "2024-03-28..2024-03-29",
        "2024-02")
    add("um", "klines", "ICPUSDT_SETTLED", "1d", "2022-09")
    add("um", "klines", "CVCUSDTSETTLED", "1d", "2022-10")
    add("um", "klines", "1000SHIBUSDT", "1h", "2024-01-01")
    add("um", "klines", CHINESE, "1h", "2025-11-01..2025-11-02", "2025-10")
    add("cm", "klines", "BTCUSD_PERP", "1m", "2023-09-01..2023-09-02")
    add("cm", "klines", "BTCUSD_PERP", "1h", "2023-10", "2023-11")
    add("cm", "klines", "ADAUSD_200925", "1h", "2020-09-24..2020-09-25",
        "2020-08")
    for market, symbol in (("um", "BTCUSDT"), ("cm", "BTCUSD_PERP")):
        pair = "BTCUSD" if market == "cm" else symbol
        for dataset, name in (("markPriceKlines", symbol),
                              ("indexPriceKlines", pair),
                              ("premiumIndexKlines", symbol)):
            add(market, dataset, name, "1m", "2024-01-01..2024-01-02")
            add(market, dataset, name, "1h", "2022-06-01", "2022-05",
                "2022-06", "2024-01")
        for dataset in ("aggTrades", "trades"):
            add(market, dataset, symbol, None, "2022-08-10..2022-08-11",
                "2026-05-08", "2022-07", "2022-08")
        add(market, "fundingRate", symbol, None, "2026-03", "2026-04")
        add(market, "metrics", symbol, None, "2020-09-01", "2024-02-16",
            "2026-09-12")
        add(market, "bookDepth", symbol, None, "2023-01-01", "2026-01-14",
            "2026-01-16", rows=2400)
        add(market, "bookTicker", symbol, None, "2024-03-29..2024-03-30")
        add(market, "bookTicker", symbol, None, "2024-02", rows=6000)
    add("um", "fundingRate", "ETHUSDT", None, "2020-01", "2026-04")
    add("um", "aggTrades", "ETHUSDT_240329", None, "2024-03-29")
    add("um", "aggTrades", CHINESE, None, "2025-11-01")
    add("cm", "aggTrades", "ADAUSD_200925", None, "2020-09-25")
    add("cm", "liquidationSnapshot", "BTCUSD_PERP", None,
        "2023-06-25..2023-06-27")
    add("cm", "liquidationSnapshot", "ADAUSD_PERP", None, "2023-06-26")
    add("option", "BVOLIndex", "BTCBVOLUSDT", None, "2025-04-30")
    add("option", "BVOLIndex", "ETHBVOLUSDT", None, "2025-04-30")
    for symbol in ("BTCUSDT", "ETHUSDT", "XRPUSDT"):
        add("option", "EOHSummary", symbol, None, "2023-10-20..2023-10-21")
    return jobs


def write_junk(root, seed):
    """What a Spark job left behind: no symbol, no date, no member's name."""
    archive = next(keys.expand("um", "aggTrades", "BTCUSDT", None, "2022-07"))
    name = "part-00000-0fae7358-a956-4804-a6d4-1682c07a5127-c000"
    key = f"{os.path.dirname(archive.key)}/{name}.zip"
    path = os.path.join(root, key)
    when = containers.published(archive)
    tally = containers.Tally()
    containers.write_infozip(
        path, name + ".csv",
        containers.chunks(rows.lines_of(archive, seed, rows=200)), when,
        tally)
    containers.write_checksum(path, "um")
    containers.set_times(path, when)
    return {"key": key, "csv": name + ".csv", "expect": "ok",
            **tally.as_dict("csv"),
            **containers.file_digest(path).as_dict("zip"),
            "checksum": True, "hazard": "junk_key", "defect": None}


def crowd_jobs(seed, symbols, days):
    """Folders of many symbols and of many days; tiny archives."""
    for i in range(symbols):
        for archive in keys.expand("spot", "klines", f"S{i:05d}USDT", "1d",
                                   "2024-01-01"):
            yield Job(archive, seed)
    first = keys.datetime.date(2017, 8, 17)
    for i in range(days):
        day = first + keys.datetime.timedelta(i)
        for archive in keys.expand("spot", "klines", "DAYSUSDT", "1d",
                                   day.isoformat()):
            yield Job(archive, seed)


def hazard_jobs(seed, names):
    for name in names:
        symbol = name.replace("_", "").upper() + "USDT"
        for archive in keys.expand("spot", "klines", symbol, "1m",
                                   "2024-01-01"):
            yield Job(archive, seed, hazard=name)


def defect_jobs(seed, names):
    for name in names:
        symbol = name.replace("_", "").upper() + "USDT"
        for market, dataset, interval in (
                ("spot", "klines", "1m"), ("um", "klines", "1m"),
                ("spot", "aggTrades", None), ("um", "aggTrades", None)):
            for archive in keys.expand(market, dataset, symbol, interval,
                                       "2024-01-01"):
                yield Job(archive, seed, defect=name)


def parse_arguments():
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir", help="where data/ and manifest.json go")
    p.add_argument("--sample", action="store_true",
                   help="a small sample of every dataset")
    p.add_argument("--hazards", action="store_true",
                   help="archives that are odd, damaged or hostile: "
                   + ", ".join(hazards.NAMES))
    p.add_argument("--huge", action="store_true",
                   help="a member of more than 4 GiB (some MB as a zip)")
    p.add_argument("--defect", action="append", default=[],
                   choices=[*defects.NAMES, "all"],
                   help="archives with this wrong in their rows")
    p.add_argument("--symbols", type=int, default=0, metavar="N",
                   help="N more spot symbols with one day each")
    p.add_argument("--days", type=int, default=0, metavar="N",
                   help="a symbol DAYSUSDT with N days from 2017-08-17")
    p.add_argument("--archive", action="append", default=[], metavar="KEY",
                   help="the archive of this key; data/....zip")
    p.add_argument("--rows", type=int, metavar="N",
                   help="rows of each --archive (a grid of time may end "
                   "before)")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    args.dir = os.path.abspath(args.dir)  # zip runs in another folder
    if not (args.sample or args.hazards or args.huge or args.defect
            or args.symbols or args.days or args.archive):
        p.error("nothing to make; --sample is a good start")
    return args


def jobs_of(args):
    jobs = []
    if args.huge:  # the longest first
        jobs += hazard_jobs(args.seed, ["huge"])
    if args.sample:
        jobs += sample_jobs(args.seed)
    if args.hazards:
        jobs += hazard_jobs(args.seed, hazards.NAMES)
    if args.defect:
        jobs += defect_jobs(args.seed, defects.NAMES if "all" in args.defect
                            else sorted(set(args.defect)))
    jobs += crowd_jobs(args.seed, args.symbols, args.days)
    jobs += [Job(keys.parse(key), args.seed, rows=args.rows)
             for key in args.archive]
    return jobs


def write_manifest(root, seed, entries):
    path = os.path.join(root, "manifest.json")
    known = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            known = {e["key"]: e for e in json.load(f)["archives"]}
    known.update((e["key"], e) for e in entries)
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump({"seed": seed,
                   "archives": [known[key] for key in sorted(known)]},
                  f, ensure_ascii=False, indent=1)
        f.write("\n")
    os.replace(path + ".new", path)


def main():
    args = parse_arguments()
    if not shutil.which("zip"):
        sys.exit("generate.py: the program zip is missing (package zip)")
    try:
        jobs = jobs_of(args)
    except ValueError as e:
        sys.exit(f"generate.py: {e}")
    os.makedirs(args.dir, exist_ok=True)
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        entries = list(pool.map(make, [args.dir] * len(jobs), jobs,
                                chunksize=max(1, min(64, len(jobs) // 64))))
    if args.sample:
        entries.append(write_junk(args.dir, args.seed))
    write_manifest(args.dir, args.seed, entries)


if __name__ == "__main__":
    main()
