#!/usr/bin/env python3
"""Does a device learn as another one does? Learning curves of the same sessions on both, within the noise of seeds.

    cargo build --release
    python3 tools/gpu_curves.py --devices cpu cuda --sessions 10 specs/ppo/ppo_cartpole.json

Every session has random numbers of its own, so --sessions is the number of seeds. Per spec: means and deviations of the
final `total_reward_ma` over sessions on both devices, and of the curve (`total_reward` at equal frames) the share of log
points at which the two means are further apart than two standard errors of their difference; of equal curves that is
about 5 in 100, with neighboring points alike. Exit code 1 where more than --most of the points are.
"""

import argparse
import csv
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile


def train(args, spec, device):
    """(frame -> total_reward of every session, total_reward_ma of every session)."""
    with tempfile.TemporaryDirectory() as data:
        words = [args.program, "train", spec, "--device", device, "--seed", str(args.seed), "--data", data, "--quiet",
                 "--set", f"meta.max_session={args.sessions}"]
        words += [word for pair in args.set for word in ("--set", pair)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
        (folder,) = pathlib.Path(data).iterdir()
        curve = {}
        for path in folder.glob("info/*_session_df_train.csv"):
            with path.open() as file:
                for row in csv.DictReader(file):
                    if row["total_reward"] not in ("", "NaN", "nan"):
                        curve.setdefault(int(float(row["frame"])), []).append(float(row["total_reward"]))
        scalars = folder.glob("info/*_session_metrics_scalar_train.json")
        return curve, [json.loads(path.read_text())["total_reward_ma"] for path in scalars]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="+")
    parser.add_argument("--devices", nargs=2, default=["cpu", "cuda"])
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", default="target/release/slm-fast")
    parser.add_argument("--most", type=float, default=0.3, help="share of points apart (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to `slm-fast train`")
    args = parser.parse_args()
    failed = False
    for spec in args.specs:
        (one, one_end), (two, two_end) = (train(args, spec, device) for device in args.devices)
        apart, points = 0, 0
        for frame in sorted(one.keys() & two.keys()):
            a, b = one[frame], two[frame]
            if min(len(a), len(b)) < 3:
                continue
            error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
            points += 1
            apart += abs(statistics.fmean(a) - statistics.fmean(b)) > 2.0 * error
        ends = [f"{device} {statistics.fmean(end):.2f} +- {statistics.stdev(end):.2f}"
                for device, end in zip(args.devices, (one_end, two_end))]
        share = apart / points if points else 1.0
        failed |= share > args.most
        print(f"{pathlib.Path(spec).stem:28} total_reward_ma of {args.sessions} seeds: {', '.join(ends)}; "
              f"{share:.0%} of {points} points apart by two standard errors", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
