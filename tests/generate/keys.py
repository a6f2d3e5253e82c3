"""Keys of the archive: what a path says of the archive behind it.

Facts of sections 1 and 5.3 of the project's reference on Binance Vision.
"""

import calendar
import datetime
import re
from dataclasses import dataclass
from typing import Optional

DAY_MS = 86_400_000

INTERVALS_MS = {
    "1s": 1_000, "1m": 60_000, "3m": 180_000, "5m": 300_000,
    "15m": 900_000, "30m": 1_800_000, "1h": 3_600_000, "2h": 7_200_000,
    "4h": 14_400_000, "6h": 21_600_000, "8h": 28_800_000,
    "12h": 43_200_000, "1d": DAY_MS, "3d": 3 * DAY_MS, "1w": 7 * DAY_MS,
}
INTERVALS = [*INTERVALS_MS, "1mo"]

KLINES = ("klines", "markPriceKlines", "indexPriceKlines",
          "premiumIndexKlines")

# market: dataset: cadences
TREE = {
    "spot": {name: "dm" for name in ("klines", "aggTrades", "trades")},
    "um": {**{name: "dm" for name in (*KLINES, "aggTrades", "trades",
                                      "bookTicker")},
           "fundingRate": "m", "metrics": "d", "bookDepth": "d"},
    "cm": {**{name: "dm" for name in (*KLINES, "aggTrades", "trades",
                                      "bookTicker")},
           "fundingRate": "m", "metrics": "d", "bookDepth": "d",
           "liquidationSnapshot": "d"},
    "option": {"BVOLIndex": "d", "EOHSummary": "d"},
}

FOLDERS = {"spot": "spot", "um": "futures/um", "cm": "futures/cm",
           "option": "option"}

KEY = re.compile(
    r"data/(spot|futures/um|futures/cm|option)/(daily|monthly)/(\w+)/"
    r"([^/]+)/(?:([^/]+)/)?([^/]+)-([^-/]+)-(\d{4})-(\d{1,2})(?:-(\d\d))?"
    r"\.zip")


@dataclass(frozen=True)
class Archive:
    """One archive by what its key says."""
    market: str
    cadence: str
    dataset: str
    symbol: str
    interval: Optional[str]
    date: str  # as in the key

    @property
    def name(self):
        return f"{self.symbol}-{self.interval or self.dataset}-{self.date}"

    @property
    def key(self):
        parts = ["data", FOLDERS[self.market], self.cadence, self.dataset,
                 self.symbol]
        if self.interval:
            parts.append(self.interval)
        return "/".join([*parts, self.name + ".zip"])

    @property
    def first_day(self):
        part = [int(p) for p in self.date.split("-")]
        return datetime.date(part[0], part[1], part[2] if part[2:] else 1)

    @property
    def days(self):
        """The days it covers."""
        first = self.first_day
        count = 1
        if self.cadence == "monthly":
            count = calendar.monthrange(first.year, first.month)[1]
        return [first + datetime.timedelta(i) for i in range(count)]


def parse(key):
    """The Archive of a key; ValueError if it is not one."""
    match = KEY.fullmatch(key)
    if not match:
        raise ValueError(f"not the key of an archive: {key}")
    folder, cadence, dataset, symbol, interval = match.groups()[:5]
    name, kind, year, month, day = match.groups()[5:]
    market = folder.split("/")[-1]
    date = f"{year}-{month}" + (f"-{day}" if day else "")
    archive = Archive(market, cadence, dataset, symbol, interval, date)
    if (dataset not in TREE[market] or name != symbol
            or kind != (interval or dataset)
            or (dataset in KLINES) != (interval in INTERVALS)
            or (cadence == "daily") != bool(day)
            or cadence[0] not in TREE[market][dataset]):
        raise ValueError(f"no such archive in the tree: {key}")
    return archive


def expand(market, dataset, symbol, interval, *dates):
    """Archives of one folder by their dates; a ".." in one is a range."""
    for date in dates:
        first, _, last = date.partition("..")
        cadence = "daily" if first.count("-") == 2 else "monthly"
        if not last:
            yield Archive(market, cadence, dataset, symbol, interval, first)
            continue
        day = datetime.date.fromisoformat(first)
        while day <= datetime.date.fromisoformat(last):
            yield Archive(market, cadence, dataset, symbol, interval,
                          day.isoformat())
            day += datetime.timedelta(1)
