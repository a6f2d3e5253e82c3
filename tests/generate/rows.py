"""Rows of every dataset, in the shape of section 5 of the reference.

A day's rows depend on seed, market, dataset, symbol, interval and day alone,
and prices are a function of seed, symbol and time: so a monthly archive holds
its daily ones, and opens and closes agree between intervals and datasets.
"""

import calendar
import datetime
import functools
import math
import random

from keys import DAY_MS, INTERVALS_MS, KLINES

KLINE_HEADER = ("open_time,open,high,low,close,volume,close_time,"
                "quote_volume,count,taker_buy_volume,"
                "taker_buy_quote_volume,ignore")

HEADERS = {
    "aggTrades": "agg_trade_id,price,quantity,first_trade_id,last_trade_id,"
                 "transact_time,is_buyer_maker",
    "trades": "id,price,qty,quote_qty,time,is_buyer_maker",
    "bookTicker": "update_id,best_bid_price,best_bid_qty,best_ask_price,"
                  "best_ask_qty,transaction_time,event_time",
    "bookDepth": "timestamp,percentage,depth,notional",
    "metrics": "create_time,symbol,sum_open_interest,"
               "sum_open_interest_value,count_toptrader_long_short_ratio,"
               "sum_toptrader_long_short_ratio,count_long_short_ratio,"
               "sum_taker_long_short_vol_ratio",
    "fundingRate": "calc_time,funding_interval_hours,last_funding_rate",
    "liquidationSnapshot": "time,side,order_type,time_in_force,"
                           "original_quantity,price,average_price,"
                           "order_status,last_fill_quantity,"
                           "accumulated_fill_quantity",
    "BVOLIndex": "calc_time,symbol,base_asset,quote_asset,index_value",
    "EOHSummary": "date,hour,symbol,underlying,type,strike,open,high,low,"
                  "close,volume_contracts,volume_usdt,best_bid_price,"
                  "best_ask_price,best_bid_qty,best_ask_qty,best_buy_iv,"
                  "best_sell_iv,mark_price,mark_iv,delta,gamma,vega,theta,"
                  "openinterest_contracts,openinterest_usdt",
}

# price at the start, digits of price and quantity in futures
COINS = {"BTC": (61_000, 2, 3), "ETH": (3_100, 2, 3), "BNB": (560, 2, 2),
         "ADA": (0.45, 4, 0), "XRP": (0.6, 4, 1), "ICP": (9.0, 3, 0)}

MICROSECONDS_FROM = datetime.date(2025, 1, 1)


def decimal(units, digits, pad=0):
    """units * 10**-digits as text, with zeros up to `pad` digits."""
    sign = "-" if units < 0 else ""
    if not digits:
        return f"{sign}{abs(units)}" + ("." + "0" * pad if pad else "")
    whole, rest = divmod(abs(units), 10 ** digits)
    return f"{sign}{whole}.{rest:0{digits}d}" + "0" * max(0, pad - digits)


def header_of(archive):
    """The first line, or None where the real file has none."""
    market, dataset, day = archive.market, archive.dataset, archive.first_day
    if market == "spot":
        return None
    if dataset in KLINES:
        if market == "cm":
            mixed = day.year == 2023 and day.month == 9
            present = day >= datetime.date(2023, 10, 1) or (
                mixed and day.day % 2 == 0)
        else:
            present = day >= datetime.date(2022, 1, 1)
        if not present:
            return None
        if dataset != "klines" and day < datetime.date(2023, 1, 1):
            return ("open_time,open,high,low,close,ignore,close_time,"
                    "ignore,ignore,ignore,ignore,ignore")
        return KLINE_HEADER
    if dataset in ("aggTrades", "trades"):
        if day < datetime.date(2022, 8, 11):
            return None
        if market == "cm" and dataset == "trades":
            return HEADERS[dataset].replace("quote_qty", "base_qty")
    return HEADERS[dataset]


class Market:
    """Prices of one symbol, and how its numbers are written."""

    def __init__(self, seed, market, symbol):
        coin = next((c for c in COINS
                     if symbol.startswith((c + "USD", c + "BVOL"))), None)
        rng = random.Random(f"{seed}/price/{coin or symbol}")
        base, price_digits, qty_digits = COINS.get(
            coin, (rng.uniform(0.02, 40), 4, 0))
        self.base = base
        self.second = self.level = None
        self.waves = [(a, w, rng.uniform(0, 6.3)) for a, w in (
            (.3, 1 / 97), (.06, 1 / 11), (.012, 2.1), (.003, 41.3),
            (.0007, 611.), (.0002, 9001.))]
        self.market = market
        if market == "spot":
            self.price_digits = 2 if base > 100 else 6
            self.qty_digits, self.pad = 5, 8
        elif market == "cm":
            self.price_digits, self.qty_digits, self.pad = 1, 0, 0
            if base < 100:
                self.price_digits = 5
        else:
            self.price_digits, self.qty_digits = price_digits, qty_digits
            self.pad = 0

    def at(self, ms):
        """The price in units of its last digit."""
        x = ms / DAY_MS
        wave = sum(a * math.sin(x * w + p) for a, w, p in self.waves)
        return max(1, round(self.base * math.exp(wave)
                            * 10 ** self.price_digits))

    def near(self, ms):
        """at() of the second, which many trades may share."""
        if ms // 1000 != self.second:
            self.second = ms // 1000
            self.level = self.at(self.second * 1000)
        return self.level

    def price(self, units):
        return decimal(units, self.price_digits, self.pad)

    def qty(self, units):
        return decimal(units, self.qty_digits, self.pad)

    def value(self, price, qty):
        """price * qty in 10**-8."""
        return (price * qty * 10 ** 8
                // 10 ** (self.price_digits + self.qty_digits))


def midnight(day):
    return calendar.timegm(day.timetuple()) * 1000


def unit_of(archive, day):
    """What a millisecond counts as in the file's time columns."""
    return (1000 if archive.market == "spot" and day >= MICROSECONDS_FROM
            else 1)


def stamp(ms):
    return datetime.datetime.fromtimestamp(
        ms / 1000, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def kline_opens(archive, day):
    """Open and close (ms, exclusive) of the candles that open on a day."""
    start = midnight(day)
    if archive.interval == "1mo":
        if day.day == 1:
            length = calendar.monthrange(day.year, day.month)[1]
            yield start, start + length * DAY_MS
        return
    step = INTERVALS_MS[archive.interval]
    if archive.interval == "1w":
        if day.weekday() == 0:
            yield start, start + step
    elif step >= DAY_MS:
        if start % step == 0:
            yield start, start + step
    else:
        for t in range(start, start + DAY_MS, step):
            yield t, t + step


def klines(archive, day, market, rng, rows, since=0):
    unit = unit_of(archive, day)
    last = None
    derived = archive.dataset in ("markPriceKlines", "indexPriceKlines")
    for start, end in kline_opens(archive, day):
        if start < since:
            continue
        first, last = last or market.at(start), market.at(end)
        seconds = (end - start) // 1000
        spread = max(2, int(first * seconds ** .5 / 30000))
        high = max(first, last) + rng.randrange(spread)
        low = max(1, min(first, last) - rng.randrange(spread))
        times = start * unit, end * unit - 1
        prices = ",".join(map(market.price, (first, high, low, last)))
        if derived:
            yield f"{times[0]},{prices},0,{times[1]},0,{seconds},0,0,0"
            continue
        volume = int(rng.expovariate(1) * 40 * 10 ** market.qty_digits
                     * seconds / 60)
        taken = int(volume * rng.random())
        mean = rng.randint(low, high)
        if archive.market == "cm":
            # contracts of 100 USD; the "quote" columns count the coin
            scale = 100 * 10 ** (8 + market.price_digits)
            quote, taken_quote = (n * scale // mean for n in (volume, taken))
            contracts = str(volume), str(taken)
        else:
            quote = market.value(mean, volume)
            taken_quote = market.value(mean, taken)
            contracts = market.qty(volume), market.qty(taken)
        if archive.market == "um":
            quote_text, taken_text = (decimal(n // 1000, 5)
                                      for n in (quote, taken_quote))
        else:
            quote_text, taken_text = (decimal(n, 8)
                                      for n in (quote, taken_quote))
        count = 0 if not volume else 1 + int(volume ** .5)
        yield (f"{times[0]},{prices},{contracts[0]},{times[1]},{quote_text},"
               f"{count},{contracts[1]},{taken_text},0")


def premium_klines(archive, day, market, rng, rows):
    level = 0
    for start, end in kline_opens(archive, day):
        points = [level] + [level // 2 + rng.randint(-9000, 9000)
                            for _ in range(3)]
        prices = ",".join(decimal(p, 8) for p in (
            level, max(points), min(points), points[3]))
        level = points[3]
        yield f"{start},{prices},0,{end - 1},0,12,0,0,0"


def times_of(day, rng, rows):
    """`rows` ascending times (ms) over a day."""
    start, step = midnight(day), DAY_MS / rows
    for i in range(rows):
        yield start + int(i * step + rng.random() * step)


def time_text(archive, day, rng, ms):
    """A time as the file has it; real microseconds are not round."""
    unit = unit_of(archive, day)
    return ms * unit + (rng.randrange(unit) if unit > 1 else 0)


def per_day(archive, rows, default):
    """Rows of one day of an archive that is to have `rows` in all."""
    return max(1, -(-rows // len(archive.days))) if rows else default


def trade_of(market, rng, ms):
    price = max(1, market.near(ms) + rng.randint(-3, 3))
    if market.market == "cm":
        return price, rng.randint(1, 900)
    return price, 1 + int(rng.expovariate(1) * 10 ** market.qty_digits / 20)


def bool_of(archive, value):
    return str(value) if archive.market == "spot" else str(value).lower()


def agg_trades(archive, day, market, rng, rows):
    number = midnight(day) // DAY_MS * 1_000_003
    trade = number * 3
    for ms in times_of(day, rng, per_day(archive, rows, 500)):
        price, qty = trade_of(market, rng, ms)
        last = trade + int(rng.random() ** 3 * 6)
        qty_text = f"{qty}.0" if archive.market == "cm" else market.qty(qty)
        maker = bool_of(archive, rng.random() < .5)
        best = ",True" if archive.market == "spot" else ""
        yield (f"{number},{market.price(price)},{qty_text},{trade},{last},"
               f"{time_text(archive, day, rng, ms)},{maker}{best}")
        number += 1
        trade = last + 1


def trades(archive, day, market, rng, rows):
    number = midnight(day) // DAY_MS * 3_000_009
    for ms in times_of(day, rng, per_day(archive, rows, 500)):
        price, qty = trade_of(market, rng, ms)
        maker = bool_of(archive, rng.random() < .5)
        if archive.market == "cm":
            other = decimal(qty * 100 * 10 ** (8 + market.price_digits)
                            // price, 8)
        else:
            other = decimal(market.value(price, qty), 8)
            if archive.market == "um":
                other = other[:-6]
        best = ",True" if archive.market == "spot" else ""
        yield (f"{number},{market.price(price)},{market.qty(qty)},{other},"
               f"{time_text(archive, day, rng, ms)},{maker}{best}")
        number += 1


def book_ticker(archive, day, market, rng, rows):
    number = midnight(day) // DAY_MS * 70_000_017
    for ms in times_of(day, rng, per_day(archive, rows, 800)):
        price, bid = trade_of(market, rng, ms)
        ask = trade_of(market, rng, ms)[1]
        number += rng.randint(1, 400)
        yield (f"{number},{market.price(price)},{market.qty(bid)},"
               f"{market.price(price + 1)},{market.qty(ask)},"
               f"{ms},{ms + rng.randint(1, 9)}")


def book_depth(archive, day, market, rng, rows):
    bands = [-5, -4, -3, -2, -1, 1, 2, 3, 4, 5]
    if day >= datetime.date(2026, 1, 15):
        bands[5:5] = [-.2, .2]
    form = "{:.2f}" if day.year >= 2026 else "{}"
    snapshots = max(1, (rows or 2880) // len(bands))
    for ms in times_of(day, rng, snapshots):
        for band in bands:
            depth = 100 * abs(band) * rng.uniform(3, 5)
            price = market.at(ms) / 10 ** market.price_digits
            yield (f"{stamp(ms)},{form.format(band)},{depth:.8f},"
                   f"{depth * price * (1 + band / 200):.8f}")


# section 5.5: the largest hole of the real files
HOLE_DAY, HOLE_MINUTES = datetime.date(2024, 2, 16), range(815, 1440)


def metrics(archive, day, market, rng, rows):
    lines = []
    interest = rng.uniform(70_000, 90_000)
    for minute in range(0, 1440, 5):
        if day == HOLE_DAY and minute in HOLE_MINUTES:
            continue
        ms = midnight(day) + minute * 60_000
        interest *= 1 + rng.uniform(-.001, .001)
        price = market.at(ms) / 10 ** market.price_digits
        ratios = [f"{rng.uniform(.7, 2.5):.8f}" for _ in range(4)]
        if archive.market == "cm":
            ratios[:3] = ['""'] * 3
        lines.append(f"{stamp(ms)},{archive.symbol},{interest:.16f},"
                     f"{interest * price:.16f},{','.join(ratios)}")
    if day < datetime.date(2021, 5, 21):
        lines = [line for line in lines for _ in range(2)]
    if day.year >= 2026:
        rng.shuffle(lines)
    return lines[:rows]


def funding_rate(archive, day, market, rng, rows):
    for hour in (0, 8, 16):
        ms = midnight(day) + hour * 3_600_000 + int(rng.random() ** 4 * 9)
        yield f"{ms},8,{decimal(rng.randint(-9000, 10000), 8)}"


def liquidations(archive, day, market, rng, rows):
    if archive.symbol.startswith("ADA"):
        return  # a quiet one: its file is a header
    for ms in times_of(day, rng, rows or 40):
        price, qty = trade_of(market, rng, ms)
        side = rng.choice(("BUY", "SELL"))
        line = (f"{ms},{side},LIMIT,IOC,{qty},{market.price(price)},"
                f"{market.price(price + rng.randint(0, 20))},FILLED,"
                f"{qty},{qty}")
        yield line
        yield line  # as the real ones do


def bvol_index(archive, day, market, rng, rows):
    level = 48_0000
    base = archive.symbol[:-4]
    for second in range(min(86_400, rows or 86_400)):
        level = max(10_0000, level + rng.randint(-60, 60))
        yield (f"{midnight(day) + second * 1000 + 1},{archive.symbol},"
               f"{base},USDT,{decimal(level, 4)}")


def eoh_summary(archive, day, market, rng, rows):
    coin = archive.symbol[:-4]
    expiry = (day + datetime.timedelta(6)).strftime("%y%m%d")
    spot = market.at(midnight(day)) / 10 ** market.price_digits
    digits = max(0, 3 - int(math.log10(spot))) if spot < 1000 else 0
    lines = []
    for strike in range(-9, 10):
        price = f"{spot * (1 + strike / 40):.{digits}f}"
        for kind in "CP":
            for hour in range(24):
                lines.append((hour, price, kind))
    rng.shuffle(lines)
    for hour, price, kind in lines[:rows]:
        value = rng.uniform(1, 900)
        volume = rng.choice((0, 0, rng.uniform(0, 9)))
        eights = [f"{v:.8f}" if v else "0E-8" for v in (
            value, value * 1.1, value * .8, value, volume, volume * value,
            rng.choice((0, value * .9)), value * 1.2,
            rng.choice((0, volume)), rng.uniform(0, 9))]
        ivs = [rng.choice(('""', f"{rng.random():.8f}")) for _ in range(2)]
        greeks = [f"{rng.uniform(-1, 1):.8f}" for _ in range(6)]
        yield ",".join([
            day.isoformat(), f"{hour:02d}", f"{coin}-{expiry}-{price}-{kind}",
            archive.symbol, kind, f"{expiry}-{price}", *eights, *ivs,
            f"{value:.8f}", *greeks[:5], f"{rng.uniform(0, 99):.8f}",
            f"{rng.uniform(0, 99999):.8f}"])


MAKERS = {
    "klines": klines, "markPriceKlines": klines, "indexPriceKlines": klines,
    "premiumIndexKlines": premium_klines, "aggTrades": agg_trades,
    "trades": trades, "bookTicker": book_ticker, "bookDepth": book_depth,
    "metrics": metrics, "fundingRate": funding_rate,
    "liquidationSnapshot": liquidations, "BVOLIndex": bvol_index,
    "EOHSummary": eoh_summary,
}


def lines_of(archive, seed=0, rows=None, since=0):
    """All lines of an archive's CSV, the header too, without their LF.

    rows: of the whole archive; datasets on a grid of time just end there.
    since: no candle before (ms), as for a symbol listed amid a month.
    """
    header = header_of(archive)
    if header:
        yield header
    market = Market(seed, archive.market, archive.symbol)
    maker = MAKERS[archive.dataset]
    if since:
        maker = functools.partial(maker, since=since)
    written = 0
    for day in archive.days:
        if midnight(day) + DAY_MS <= since:
            continue
        rng = random.Random(
            f"{seed}/{archive.market}/{archive.dataset}/{archive.symbol}/"
            f"{archive.interval}/{day}")
        for line in maker(archive, day, market, rng, rows):
            if written == rows:
                return
            yield line
            written += 1
