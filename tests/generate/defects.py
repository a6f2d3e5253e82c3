"""Wrong rows under a right checksum: what quality rules are to find."""

import random


def time_column(archive):
    return {"klines": 0, "aggTrades": 5, "trades": 4}[archive.dataset]


def gap(lines, first, rng, archive):
    """Some rows in a row are missing."""
    at = rng.randrange(first + 10, len(lines) - 30)
    del lines[at:at + rng.randint(2, 20)]
    return [at + 1]


def duplicate(lines, first, rng, archive):
    """A row comes twice, one after the other."""
    at = rng.randrange(first + 10, len(lines) - 10)
    lines.insert(at, lines[at])
    return [at + 2]


def disorder(lines, first, rng, archive):
    """Two neighbours have changed places."""
    at = rng.randrange(first + 10, len(lines) - 10)
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    return [at + 2]


def malformed(lines, first, rng, archive):
    """A field that is no number, one field less, one more, an empty line."""
    ats = sorted(rng.sample(range(first + 10, len(lines) - 10), 4))
    for at, kind in zip(ats, range(4)):
        fields = lines[at].split(",")
        if kind == 0:
            fields[1] = "1.2.3"
        elif kind == 1:
            fields.pop()
        elif kind == 2:
            fields.append("0")
        lines[at] = "" if kind == 3 else ",".join(fields)
    return [at + 1 for at in ats]


def negative(lines, first, rng, archive):
    """A price below zero."""
    at = rng.randrange(first + 10, len(lines) - 10)
    fields = lines[at].split(",")
    fields[1] = "-" + fields[1]
    lines[at] = ",".join(fields)
    return [at + 1]


def crossed(lines, first, rng, archive):
    """Klines: high and low changed places; trades: quantity zero."""
    at = rng.randrange(first + 10, len(lines) - 10)
    fields = lines[at].split(",")
    if archive.dataset == "klines":
        fields[2], fields[3] = fields[3], fields[2]
        if fields[2] == fields[3]:
            fields[2] = fields[2].replace("1", "0")
    else:
        fields[2] = "0." + "0" * len(fields[2].partition(".")[2])
    lines[at] = ",".join(fields)
    return [at + 1]


def unit_mixed(lines, first, rng, archive):
    """From a row on, times are in another unit."""
    at = rng.randrange(first + 10, len(lines) - 10)
    columns = [0, 6] if archive.dataset == "klines" else [
        time_column(archive)]
    for i in range(at, len(lines)):
        fields = lines[i].split(",")
        for column in columns:
            fields[column] += "000"
        lines[i] = ",".join(fields)
    return [at + 1]


def frozen(lines, first, rng, archive):
    """The price columns stand still for a long stretch."""
    at = rng.randrange(first + 10, len(lines) // 2)
    columns = [1, 2, 3, 4, 5] if archive.dataset == "klines" else [1, 2]
    model = lines[at].split(",")
    for i in range(at + 1, min(at + 200, len(lines))):
        fields = lines[i].split(",")
        for column in columns:
            fields[column] = model[column]
        lines[i] = ",".join(fields)
    return [at + 2]


def cut_short(lines, first, rng, archive):
    """The second half of the day is missing."""
    del lines[len(lines) // 2:]
    return [len(lines)]


KINDS = {f.__name__: f for f in (gap, duplicate, disorder, malformed,
                                 negative, crossed, unit_mixed, frozen,
                                 cut_short)}
NAMES = list(KINDS)


def spoil(name, lines, archive, seed):
    """The lines with one defect, and the numbers (from 1) of lines where it
    shows: the first after a gap, the second of a pair."""
    rng = random.Random(f"{seed}/defect/{name}/{archive.key}")
    first = 0 if lines[0][0].isdigit() else 1
    found = KINDS[name](lines, first, rng, archive)
    return lines, found
