#!/usr/bin/env python3
"""Trains the trials of a search in one cohort, then one after another, and compares speed and bits.

    cargo build --release
    python3 tools/cohort.py specs/ppo/ppo_cartpole_search.json
    python3 tools/cohort.py specs/ppo/ppo_cartpole_search.json --device cuda --alone 4 --set meta.max_trial=64

One after another means as a person would do it: one `slm-fast train` for the saved spec of each trial. Times are those of
whole processes, files included. `--alone N` trains the first N trials alone and scales. Needs nothing but Python.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile
import time

# columns that a clock decides
CLOCKS = ("fps", "wall_t")


def run(program, *words):
    """Runs the program; the seconds that it took."""
    start = time.perf_counter()
    ended = subprocess.run([program, *words, "--quiet"], capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"{program} {' '.join(words)}\n{ended.stdout}{ended.stderr}")
    return time.perf_counter() - start


def rows(path):
    """A session's data frame without what a clock decides."""
    with path.open(newline="") as file:
        return [{key: text for key, text in row.items() if key not in CLOCKS} for row in csv.DictReader(file)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", help="a spec with a `search` section")
    parser.add_argument("--program", default="target/release/slm-fast")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--alone", type=int, metavar="N", help="trials to train alone (default: all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set in the spec")
    args = parser.parse_args()
    sets = [word for pair in args.set for word in ("--set", pair)]
    with tempfile.TemporaryDirectory() as data:
        data = pathlib.Path(data)
        together_s = run(args.program, "search", args.spec, *sets, "--device", args.device, "--data", str(data / "all"))
        (folder,) = (data / "all").iterdir()
        trials = sorted(folder.glob("*_t*_trial_metrics_scalar.json"))
        frames = sum(json.loads(path.read_text())["frame"] for path in trials)
        sessions = len(list(folder.glob("info/*_t0_s*_session_df_train.csv")))
        alone = min(args.alone or len(trials), len(trials))
        alone_s, same = 0.0, 0
        for trial in range(alone):
            (spec,) = folder.glob(f"*_t{trial}_spec.json")
            into = data / f"alone{trial}"
            alone_s += run(args.program, "train", str(spec), "--device", args.device, "--data", str(into))
            (single,) = into.iterdir()
            for path in sorted(single.glob("info/*_session_df_train.csv")):
                same += rows(path) == rows(folder / "info" / path.name.replace("_t0_", f"_t{trial}_"))
    together = frames * sessions / together_s
    one_by_one = frames * sessions / len(trials) * alone / alone_s
    print(f"{len(trials)} trials x {sessions} sessions on {args.device}: {together_s:.2f} s, {together:,.0f} frames/s")
    print(f"{alone} of them one after another: {alone_s:.2f} s, {one_by_one:,.0f} frames/s")
    print(f"{same} of {alone * sessions} sessions have the same bits both ways")
    print(f"ratio {together / one_by_one:.2f}")
    return 0 if same == alone * sessions else 1


if __name__ == "__main__":
    sys.exit(main())
