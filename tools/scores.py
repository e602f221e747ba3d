#!/usr/bin/env python3
"""Trains specs with several seeds and records what they reach.

    cargo build --release
    python3 tools/scores.py --out benches/runs/2026-11-21-mymachine-scores.csv specs/*/*.json

Every (spec, seed) is one `slm-fast train`; the folder of the run is removed once its metrics are read. One CSV row per
session is appended to --out, so a second call adds specs or seeds. `tools/tables.py` makes the tables of BENCHMARKS.md
from it. Needs nothing but Python.
"""

import argparse
import csv
import datetime
import json
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

COLUMNS = ["date", "sha", "machine", "spec", "env", "seed", "session", "frame", "total_reward_ma", "final_total_reward",
           "max_total_reward", "wall_s", "frames_per_s"]


def sha():
    """Short commit of the working tree, with a `+` where it has changes."""
    def git(*words):
        return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()
    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def sessions(folder):
    """(session, last row, largest total_reward, total_reward_ma) of every session of a run."""
    found = sorted(folder.glob("info/*_session_df_train.csv"))
    for path in found:
        with path.open() as file:
            rows = list(csv.DictReader(file))
        scalars = path.with_name(path.name.replace("df_train.csv", "metrics_scalar_train.json"))
        metrics = json.loads(scalars.read_text())
        rewards = [float(row["total_reward"]) for row in rows if row["total_reward"] not in ("", "NaN", "nan")]
        number = int(re.search(r"_s(\d+)_session_df_train", path.name)[1])
        yield number, rows[-1], max(rewards), metrics["total_reward_ma"]


def train(program, spec, seed, sets):
    """Trains one spec with one seed; gives the rows of its sessions."""
    with tempfile.TemporaryDirectory() as data:
        command = [program, "train", spec, "--seed", str(seed), "--data", data, "--quiet"]
        command += [word for pair in sets for word in ("--set", pair)]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{ended.stdout}{ended.stderr}")
        (folder,) = pathlib.Path(data).iterdir()
        speed = re.search(r"frames in ([\d.]+) s, ([\d,]+) frames/s", ended.stdout + ended.stderr)
        wall, rate = (speed[1], speed[2].replace(",", "")) if speed else ("", "")
        (resolved,) = (path for path in folder.glob("*_t0_spec.json"))
        env = json.loads(resolved.read_text())["env"]["name"]
        name = resolved.name.removesuffix("_t0_spec.json")
        for number, last, largest, ma in sessions(folder):
            yield {"spec": name, "env": env, "seed": seed, "session": number, "frame": int(float(last["frame"])),
                   "total_reward_ma": ma, "final_total_reward": last["total_reward"], "max_total_reward": largest,
                   "wall_s": wall, "frames_per_s": rate}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="+", help="spec files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--program", default="target/release/slm-fast")
    parser.add_argument("--machine", default=platform.node(), help="name in the table")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="CSV file to append to")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to `slm-fast train`")
    args = parser.parse_args()

    stamp = {"date": datetime.date.today().isoformat(), "sha": sha(), "machine": args.machine}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        for spec in args.specs:
            for seed in args.seeds:
                rows = [stamp | row for row in train(args.program, spec, seed, args.set)]
                writer.writerows(rows)
                file.flush()
                mean = sum(row["total_reward_ma"] for row in rows) / len(rows)
                each = " ".join(f"{row['total_reward_ma']:.1f}" for row in rows)
                print(f"{rows[0]['spec']:28} seed {seed}: {mean:9.2f}  ({each})  {rows[0]['wall_s']} s", flush=True)


if __name__ == "__main__":
    main()
