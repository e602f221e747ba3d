#!/usr/bin/env python3
"""Does a device learn as another one does? Learning curves of the same sessions on each, within the noise of seeds.

    cargo build --release
    python3 tools/gpu_curves.py --devices cpu cuda cuda/bf16 wgpu --sessions 10 specs/ppo/ppo_cartpole.json

A device may have a number format behind it (`meta.precision`). Every session has random numbers of its own, so --sessions
is the number of seeds. Per spec and device: mean and deviation of the final `total_reward_ma` over sessions, and, for all
but the first device, the share of log points at which its mean `total_reward` and that of the first one are further apart
than two standard errors of their difference; of equal curves that is about 5 in 100, with neighboring points alike. Exit
code 1 where more than --most of the points are. `--out` receives the runs, and one graph per spec with all devices in it.
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


def run(words):
    """Runs a command, and ends with what it printed if it fails."""
    words = [str(word) for word in words]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")


def train(args, spec, device, data):
    """(folder of the run, frame -> total_reward of every session, total_reward_ma of every session)."""
    name, _, precision = device.partition("/")
    words = [args.program, "train", spec, "--device", name, "--seed", args.seed, "--data", data, "--quiet",
             "--set", f"meta.max_session={args.sessions}", "--set", f"meta.precision={precision or 'f32'}"]
    run(words + [word for pair in args.set for word in ("--set", pair)])
    (folder,) = data.iterdir()
    curve = {}
    for path in folder.glob("info/*_session_df_train.csv"):
        with path.open() as file:
            for row in csv.DictReader(file):
                if row["total_reward"] not in ("", "NaN", "nan"):
                    curve.setdefault(int(float(row["frame"])), []).append(float(row["total_reward"]))
    scalars = folder.glob("info/*_session_metrics_scalar_train.json")
    return folder, curve, [json.loads(path.read_text())["total_reward_ma"] for path in scalars]


def apart(one, two):
    """(log points at which two curves are apart by two standard errors, all points)."""
    found, points = 0, 0
    for frame in sorted(one.keys() & two.keys()):
        a, b = one[frame], two[frame]
        if min(len(a), len(b)) < 3:
            continue
        error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
        points += 1
        found += abs(statistics.fmean(a) - statistics.fmean(b)) > 2.0 * error
    return found, points


def compare(args, out, spec):
    """Prints a line per device and draws the graph; whether all are alike."""
    stem, alike, folders, first = pathlib.Path(spec).stem, True, [], None
    for device in args.devices:
        data = out / stem / device.replace("/", "_").replace(":", "_")
        data.mkdir(parents=True)
        folder, curve, ends = train(args, spec, device, data)
        folders.append(folder)
        line = f"{stem:28} {device:12} {statistics.fmean(ends):9.2f} +- {statistics.stdev(ends):.2f} of {len(ends)} seeds"
        if first is not None:
            found, points = apart(first, curve)
            share = found / points if points else 1.0
            alike &= share <= args.most
            line += f"; {share:.0%} of {points} points apart from {args.devices[0]} by two standard errors"
        first = first or curve
        print(line, flush=True)
    title = f"{stem}, {args.sessions} seeds"
    run([args.program, "plot", *folders, "--legends", ",".join(args.devices), "--title", title, "--output", out / stem])
    return alike


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="+")
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda", "cuda/bf16", "wgpu"], metavar="DEVICE[/FORMAT]")
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", default="target/release/slm-fast")
    parser.add_argument("--most", type=float, default=0.3, help="share of points apart (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, help="an empty or new folder for runs and graphs (default: none are kept)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to `slm-fast train`")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or pathlib.Path(temporary)
        # every spec is compared, whatever the others gave
        alike = [compare(args, out, spec) for spec in args.specs]
    sys.exit(0 if all(alike) else 1)


if __name__ == "__main__":
    main()
