#!/usr/bin/env python3
"""Trains, kills and resumes again and again for a given time: does every run end in the bits of an unbroken one?

    cargo build --release
    python3 tools/gpu_soak.py --device cuda --seconds 300

One unbroken training is the reference. Every round starts the same training, kills it (SIGKILL) at random moments,
resumes it until it ends, and compares models and data frames without their clocks. Prints one line a round and the GPU
memory in use before the first and after the last one. Needs nothing but Python; exit code 1 where bits differ.
"""

import argparse
import csv
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

CLOCKS = {"fps", "wall_t"}


def command(args, *words):
    return [str(word) for word in [args.program, "train", *words, "--quiet", "--device", args.device]]


def begin(args, data):
    """The command that starts the training from nothing."""
    return command(args, args.spec, "--data", data, "--seed", args.seed, "--checkpoint-every", "0.2",
                   "--set", f"env.max_frame={args.frames}", "--set", f"meta.max_session={args.sessions}")


def outcome(folder):
    """Everything that has to repeat, by the name of its file."""
    found = {}
    for path in sorted(folder.glob("model/*.safetensors")):
        if path.name.endswith("_resume.safetensors"):
            continue
        words = path.read_bytes()
        head = 8 + int.from_bytes(words[:8], "little")
        tensors = {name: tensor for name, tensor in json.loads(words[8:head]).items() if name != "__metadata__"}
        found[path.name] = (tensors, words[head:])
    for path in sorted(folder.glob("info/*_session_df_train.csv")):
        with path.open() as file:
            found[path.name] = [[(name, x) for name, x in row.items() if name not in CLOCKS]
                                for row in csv.DictReader(file)]
    return found


def gpu_memory():
    """MiB in use, where nvidia-smi tells."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                              capture_output=True, text=True, check=True)
        return done.stdout.split()[0] + " MiB"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def broken(args, data, whole, dice):
    """One training, killed up to --kills times; its folder and the number of kills."""
    kills = 0
    while True:
        folders = sorted(data.glob("*"))
        resumable = folders and list(folders[0].glob("model/*_resume.safetensors"))
        if folders and not resumable:
            shutil.rmtree(folders[0])
        words = command(args, "--resume", folders[0], "--checkpoint-every", "0.2") if resumable else begin(args, data)
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            text, _ = process.communicate(timeout=dice.uniform(0.05, whole / 2) if kills < args.kills else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        if process.returncode != 0:
            sys.exit(f"{' '.join(words)}: exit code {process.returncode}\n{text}")
        (folder,) = data.glob("*")
        return folder, kills


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/slm-fast")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--spec", default="specs/ppo/ppo_cartpole.json")
    parser.add_argument("--frames", type=int, default=400_000)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--kills", type=int, default=4, help="most kills of one training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    dice, began, rounds, all_kills = random.Random(args.seed), time.monotonic(), 0, 0
    print(f"GPU memory in use before: {gpu_memory()}")
    with tempfile.TemporaryDirectory() as temporary:
        data = pathlib.Path(temporary, "whole")
        start = time.monotonic()
        subprocess.run(begin(args, data), check=True, stdout=subprocess.DEVNULL)
        whole = time.monotonic() - start
        (folder,) = data.glob("*")
        wanted = outcome(folder)
        print(f"unbroken: {whole:.2f} s, {len(wanted)} files compared", flush=True)
        while time.monotonic() - began < args.seconds:
            data = pathlib.Path(temporary, f"round{rounds}")
            folder, kills = broken(args, data, whole, dice)
            found = outcome(folder)
            different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            if different:
                sys.exit(f"round {rounds}, {kills} kills: other bits in {', '.join(different)}")
            print(f"round {rounds}: {kills} kills, same bits", flush=True)
            shutil.rmtree(data)
            rounds, all_kills = rounds + 1, all_kills + kills
    print(f"GPU memory in use after: {gpu_memory()}")
    print(f"{rounds} trainings, {all_kills} kills, {time.monotonic() - began:.0f} s: same bits every time")


if __name__ == "__main__":
    main()
