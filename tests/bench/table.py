"""The results as a table, as Markdown, as JSON and as pictures."""

import dataclasses
import json
import os
import platform
import shutil
import subprocess

HEAD = ("what", "min", "median", "max", "target", "", "tickfs", "other")


def number(value, unit=""):
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}" + (f" {unit}" if unit else "")


def verdict(result):
    if not result.values:
        return "-"
    return {None: "", True: "pass", False: "MISS"}[result.met]


def cells(result):
    if not result.values:
        return (result.what, "", "", "", result.target or "", "-", "", "")
    unit = "" if result.unit == "×" else result.unit
    return (
        result.what,
        number(min(result.values)),
        number(result.median, unit),
        number(max(result.values)),
        result.target or "",
        verdict(result),
        number(result.ours, result.sides),
        number(result.theirs, result.sides),
    )


def notes(results):
    """Each note once, with the lines it is about."""
    about = {}
    for r in results:
        if r.note:
            about.setdefault(r.note, []).append(r.what)
    return [f"{note}: {'; '.join(lines)}" for note, lines in about.items()]


def as_text(results, head=True):
    lines = ([HEAD] if head else []) + [cells(r) for r in results]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    text = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    ]
    return "\n".join(text + (notes(results) if head else [])) + "\n"


def as_markdown(results, about):
    lines = [f"{about['machine']}; {about['date']}; `{about['command']}`; "
             f"commit {about['commit']}; runs: {about['runs']}.", ""]
    lines.append("| " + " | ".join(HEAD) + " |")
    lines.append("|---|" + "---:|" * (len(HEAD) - 1))
    lines += ["| " + " | ".join(cells(r)) + " |" for r in results]
    if notes(results):
        lines.append("")
        lines += ["- " + note for note in notes(results)]
    return "\n".join(lines) + "\n"


def as_json(results, about, curves):
    return json.dumps(
        {
            **about,
            "results": [
                {
                    **dataclasses.asdict(r),
                    "median": r.median if r.values else None,
                    "met": r.met,
                }
                for r in results
            ],
            "curves": curves,
        },
        indent=1,
        ensure_ascii=False,
    )


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        models = [
            line.split(":")[1].strip() for line in f if "model name" in line
        ]
    with open("/proc/meminfo", encoding="utf-8") as f:
        kib = int(f.readline().split()[1])
    return (
        f"{len(models)} cores {models[0] if models else platform.machine()}, "
        f"{round(kib / 2**20)} GiB, Linux {platform.release().split('-')[0]}"
    )


def commit(top):
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=top,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or "unknown"


# ---- pictures ----

GNUPLOT = """
set terminal svg size 720,420 font 'sans-serif,13' background '#ffffff'
set output '{out}'
set title '{title}'
set xlabel '{x}'
set ylabel '{y}'
set yrange [0:]
set grid
set key outside right
{more}
"""


def gnuplot(script):
    """False where there is no gnuplot."""
    if not shutil.which("gnuplot"):
        return False
    subprocess.run(
        ["gnuplot"], input=script, text=True, check=True, timeout=60
    )
    return True


def plot_offsets(folder, curves):
    """Speed in each tenth of a member."""
    points = os.path.join(folder, "offsets.dat")
    with open(points, "w", encoding="ascii") as f:
        for tenth in range(10):
            row = [5 + 10 * tenth] + [c[tenth] for c in curves.values()]
            f.write(" ".join(f"{v:.4g}" for v in row) + "\n")
    plots = [
        f"'{points}' using 1:{column} title '{name}' with linespoints"
        for column, name in enumerate(curves, 2)
    ]
    return gnuplot(
        GNUPLOT.format(
            out=os.path.join(folder, "offsets.svg"),
            title="Speed over the offset in a member, pages dropped",
            x="offset, % of the member",
            y="MB/s of what was asked for",
            more="set xrange [0:100]\nset logscale y\nset yrange [1:2000]",
        )
        + "plot " + ", ".join(plots) + "\n"
    )


def plot_memory(folder, curve):
    points = os.path.join(folder, "memory.dat")
    with open(points, "w", encoding="ascii") as f:
        for size, mib in curve:
            f.write(f"{size / 1e6:.6g} {mib:.4g}\n")
    return gnuplot(
        GNUPLOT.format(
            out=os.path.join(folder, "memory.svg"),
            title="Peak memory of the daemon over the size of the file read",
            x="CSV, MB",
            y="MiB",
            more="set logscale x\nset yrange [0:200]",
        )
        + f"plot '{points}' title 'tickfs, memory=64M' with linespoints,"
        " 160 title 'limit' dashtype 2\n"
    )


def write(folder, results, about, curves):
    """bench.md, bench.json and the pictures there is data for."""
    with open(os.path.join(folder, "bench.md"), "w", encoding="utf-8") as f:
        f.write(as_markdown(results, about))
    with open(os.path.join(folder, "bench.json"), "w", encoding="utf-8") as f:
        f.write(as_json(results, about, curves))
    offsets = {k: v for k, v in curves.items() if k != "memory"}
    if len(offsets) > 1:
        plot_offsets(folder, offsets)
    if "memory" in curves:
        plot_memory(folder, curves["memory"])
