#!/usr/bin/env python3
"""Fills the tables of BENCHMARKS.md from CSV files of runs.

    python3 tools/tables.py benches/runs/2026-11-21-mymachine.csv benches/runs/2026-11-21-mymachine-classic.md

A Markdown file is the table of `slm-fast benchmark`, any other file one of `cargo bench`. A table is the text between
`<!-- NAME -->` and `<!-- /NAME -->`; a table without a file stays as it is. Where a figure is in a file twice, the later
row counts. Needs nothing but Python.
"""

import csv
import pathlib
import re
import sys

PAGE = pathlib.Path(__file__).parents[1] / "BENCHMARKS.md"

def table(head, rows):
    """Markdown; every column after the first is right-aligned."""
    rule = [":--"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rows])


def number(value):
    """Thousands with commas, three digits of what is small."""
    value = float(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def figures(rows):
    """name -> unit -> value."""
    found = {}
    for row in rows:
        found.setdefault(row["name"], {})[row["unit"]] = float(row["value"])
    return found


def ops(found):
    """One line per launch."""
    lines = []
    for name, units in found.items():
        if "ns" in units:
            share = f"{units['share'] * 100:.1f} %" if "share" in units else ""
            flops = f"{units['GFLOP/s']:.1f}" if "GFLOP/s" in units else ""
            lines.append([f"`{name}`", number(units["ns"]), f"{units['GB/s']:.2f}", flops, share])
    return table(["op and shape", "ns a launch", "GB/s", "GFLOP/s", "of the FMA peak"], lines)


def of_kind(found, kind, units):
    """One line per figure whose name starts with `kind`."""
    lines = []
    for name, values in found.items():
        if name.startswith(f"{kind}."):
            cells = [number(values[unit]) if unit in values else "" for unit in units]
            lines.append([f"`{name.removeprefix(kind + '.')}`", *cells])
    return table(["", *units], lines)


def ceilings(found):
    """One line per ceiling, each with its own unit."""
    lines = []
    for name, values in found.items():
        if name.startswith("ceiling."):
            lines += [[f"`{name.removeprefix('ceiling.')}`", f"{number(value)} {unit}"] for unit, value in values.items()]
    return table(["ceiling", "best of 10"], lines)


def fill(page, name, text):
    """Puts a table between its two comments."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(page):
        sys.exit(f"{PAGE.name} has no place <!-- {name} --> .. <!-- /{name} -->")
    return pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)


def source(path, rows):
    """Says where the figures of a table come from."""
    commits = ", ".join(dict.fromkeys(row["sha"] for row in rows))
    place = f"[{path.name}]({path.resolve().relative_to(PAGE.resolve().parent)})"
    return f"{rows[0]['date']}, {rows[0]['machine']}, commit {commits}: {place}\n\n"


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    page = PAGE.read_text()
    for path in map(pathlib.Path, sys.argv[1:]):
        if path.suffix == ".md":
            page = fill(page, "scores", path.read_text().rstrip())
            continue
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            sys.exit(f"{path} holds no rows")
        found = figures(rows)
        page = fill(page, "ceilings", source(path, rows) + ceilings(found))
        page = fill(page, "ops", ops(found))
        page = fill(page, "envs", of_kind(found, "env_step", ["steps/s"]))
        units = ["frames/s", "frames/CPU-s", "s", "final total_reward"]
        page = fill(page, "trainings", of_kind(found, "training", units))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
