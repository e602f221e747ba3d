#!/usr/bin/env python3
"""Fills the tables of BENCHMARKS.md from CSV files of runs.

    python3 tools/tables.py benches/runs/2026-11-21-mymachine.csv benches/runs/2026-11-21-mymachine-scores.csv

A file that ends in -scores.csv is one of tools/scores.py, any other one of `cargo bench`. A table is the text between
`<!-- NAME -->` and `<!-- /NAME -->`; a table without a file stays as it is. Where a figure is in a file twice, the later
row counts. Needs nothing but Python.
"""

import csv
import pathlib
import re
import statistics
import sys

PAGE = pathlib.Path(__file__).parents[1] / "BENCHMARKS.md"

# SLM Lab 5.3.0, docs/BENCHMARKS.md: total_reward_ma of its `*_arc` spec of the same hyperparameters, 4 sessions, one run
PUBLISHED = {
    "ppo_cartpole": 498.94, "a2c_cartpole": 496.68, "reinforce_cartpole": 483.31, "reinforce_cartpole_tuned": 483.31,
    "ppo_acrobot": -81.28, "a2c_acrobot": -83.99, "ppo_pendulum": -174.87, "a2c_pendulum": -820.74,
}


def table(head, rows):
    """Markdown; every column after the first is right-aligned."""
    rule = [":--"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rows])


def number(value):
    """Thousands with commas, three digits of what is small."""
    value = float(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def scores(rows):
    """One line per spec: a trial is the mean of its sessions."""
    latest = {(row["spec"], int(row["seed"]), int(row["session"])): row for row in rows}
    lines = []
    for spec in dict.fromkeys(spec for spec, _, _ in latest):
        trials = {}
        for (name, seed, _), row in latest.items():
            if name == spec:
                trials.setdefault(seed, []).append(row)
        reached = {seed: statistics.fmean(float(row["total_reward_ma"]) for row in trials[seed]) for seed in trials}
        sessions = [float(row["total_reward_ma"]) for trial in trials.values() for row in trial]
        mean, published = statistics.fmean(reached.values()), PUBLISHED.get(spec)
        # of a negative score the smaller one is better
        ratio = "" if published is None else f"{mean / published if published > 0 else published / mean:.3f}"
        any_row = next(iter(trials.values()))[0]
        lines.append([
            f"`{spec}`", any_row["env"], f"{int(any_row['frame']):,}",
            " / ".join(f"{reached[seed]:.2f}" for seed in sorted(reached)), f"{mean:.2f}",
            f"{statistics.stdev(sessions):.2f}" if len(sessions) > 1 else "",
            f"{min(sessions):.1f} .. {max(sessions):.1f}", "" if published is None else f"{published:.2f}", ratio,
        ])
    seeds = " / ".join(str(seed) for seed in sorted({seed for _, seed, _ in latest}))
    head = ["spec", "environment", "frames", f"`total_reward_ma` of seeds {seeds}", "mean", "std of sessions",
            "worst .. best session", "SLM Lab", "ratio"]
    return table(head, lines)


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
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            sys.exit(f"{path} holds no rows")
        if path.name.endswith("-scores.csv"):
            page = fill(page, "scores", source(path, rows) + scores(rows))
            continue
        found = figures(rows)
        page = fill(page, "ceilings", source(path, rows) + ceilings(found))
        page = fill(page, "ops", ops(found))
        page = fill(page, "envs", of_kind(found, "env_step", ["steps/s"]))
        units = ["frames/s", "frames/CPU-s", "s", "final total_reward"]
        page = fill(page, "trainings", of_kind(found, "training", units))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
