#!/usr/bin/env python3
"""Compare the mount with the tools it replaces, side by side, in one table.

    tests/bench/run.py [--quick | --check] [--runs N] [ROW...]

Without names all rows run. --quick uses smaller archives and fewer runs;
--check times nothing: it compares the bytes of every row's workload with what
unzip extracts, and prints TAP. --list names the rows.

`make bench` builds what is needed first. Tables and pictures go to
build/bench/; so do the generated archives, which later runs use again.
docs/performance.md says what is measured and how.
"""

import argparse
import dataclasses
import datetime
import os
import shutil
import signal
import sys
import traceback

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[1:1] = [os.path.join(HERE, "..", "mount")]
sys.dont_write_bytecode = True

import data  # noqa: E402
import harness  # noqa: E402
import measure  # noqa: E402
import rows_memory  # noqa: E402, F401
import rows_open  # noqa: E402, F401
import rows_read  # noqa: E402, F401
import rows_small  # noqa: E402, F401
import session  # noqa: E402
import table  # noqa: E402

# As in the table of docs/performance.md.
ORDER = (
    "sequential two again random patterns first-open index memory small start"
    " folders"
).split()
PROGRAMS = ["curl", "sha256sum", "unzip", "igzip", "getfattr", "fusermount3"]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--runs", type=int, metavar="N")
    parser.add_argument("row", nargs="*")
    arguments = parser.parse_args()
    unknown = set(arguments.row) - {row.name for row in measure.ROWS}
    if unknown:
        parser.error("no row named " + ", ".join(sorted(unknown)))
    return arguments


def missing(programs):
    """Why nothing can be compared here, or None."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no /dev/fuse for this user"
    for program in programs:
        if not shutil.which(program):
            return f"no {program}; try scripts/setup bench"
    return None


def check(rows, why):
    print(f"1..{len(rows)}")
    bad = 0
    with_session = session.Session(data.CHECK) if not why else None
    try:
        for number, row in enumerate(rows, 1):
            line = f"{number} - bench {row.name}: the bytes are right"
            if why:
                print(f"ok {line} # SKIP {why}")
                continue
            try:
                row.check(with_session)
                print(f"ok {line}", flush=True)
            except Exception as e:
                bad += 1
                with_session.start_over()
                print(f"not ok {line}\n# {e}", flush=True)
        if with_session:
            with_session.close()
    finally:
        if with_session:
            with_session.end()
    return 1 if bad else 0


def measured(row, s):
    """The results of a row, each shown as it comes. One that fails takes no
    other with it."""
    try:
        for result in row.measure(s):
            print(table.as_text([result], head=False), end="", file=sys.stderr)
            yield result
    except Exception as e:
        traceback.print_exc()
        s.start_over()
        yield measure.failed(row.name, e)


def bench(rows, sizes, why):
    if why:
        sys.exit(f"run.py: {why}")
    about = {
        "machine": table.machine(),
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        "command": " ".join(["tests/bench/run.py", *sys.argv[1:]]),
        "commit": table.commit(harness.TOP),
        "runs": sizes.runs,
        "sizes": sizes.name,
    }
    results = []
    s = session.Session(sizes)
    try:
        for row in rows:
            results += measured(row, s)
        s.close()
    finally:
        s.end()
    table.write(data.BENCH, results, about, s.curves)
    print(table.as_text(results), end="")
    return 1 if any(r.failed for r in results) else 0


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    arguments = parse_arguments()
    rows = [
        row
        for row in sorted(measure.ROWS, key=lambda r: ORDER.index(r.name))
        if not arguments.row or row.name in arguments.row
    ]
    if arguments.list:
        print("\n".join(row.name for row in rows))
        return 0
    signal.signal(signal.SIGTERM, interrupt)
    if arguments.check:
        programs = [p for p in PROGRAMS if p != "igzip"]
        return check(rows, missing(programs))
    sizes = data.QUICK if arguments.quick else data.FULL
    if arguments.runs:
        sizes = dataclasses.replace(sizes, runs=arguments.runs)
    try:
        return bench(rows, sizes, missing(PROGRAMS))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
