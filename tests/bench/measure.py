"""What a row is, and how one measure becomes a line of the table."""

import dataclasses
import statistics
from typing import Callable, Optional


@dataclasses.dataclass
class Result:
    """One line: the values of all runs, and what they should be."""

    what: str
    unit: str  # "×" for a ratio
    values: list
    target: Optional[str] = None  # "<= 1.2"; None: for information
    ours: Optional[float] = None  # medians a ratio was made of, and their unit
    theirs: Optional[float] = None
    sides: str = ""
    note: str = ""
    failed: bool = False

    @property
    def median(self):
        return statistics.median(self.values)

    @property
    def met(self):
        """None where there is nothing to meet."""
        if not self.target or not self.values:
            return None
        relation, number = self.target.split()
        if relation == "<=":
            return self.median <= float(number)
        return self.median >= float(number)


def skipped(what, why, target=None):
    return Result(what, "", [], target, note="skipped: " + why)


def failed(what, error):
    return Result(what, "", [], note=f"failed: {error}", failed=True)


@dataclasses.dataclass
class Row:
    name: str
    measure: Callable  # of a session: yields results
    check: Callable  # of a session: raises where bytes differ


ROWS = []


def row(name, check):
    """Marks a generator of results as the measure of a row."""

    def mark(measure):
        ROWS.append(Row(name, measure, check))
        return measure

    return mark


def side_by_side(runs, *sides):
    """The values of each side, taken in turn, so that what else the machine
    does hits them all."""
    values = [[] for _ in sides]
    for _ in range(runs):
        for value, side in zip(values, sides):
            value.append(side())
    return values


def ratio(what, numerators, denominators, target, ours, theirs, sides="s"):
    """A line of the ratios of runs that stood side by side; which side is
    above the line is the caller's to choose."""
    return Result(
        what,
        "×",
        [n / d for n, d in zip(numerators, denominators)],
        target,
        statistics.median(ours),
        statistics.median(theirs),
        sides,
    )


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]

