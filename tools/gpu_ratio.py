#!/usr/bin/env python3
"""Ratio of the wgpu device to the cuda device, for every figure of a benches' CSV that both have.

    python3 tools/gpu_ratio.py benches/runs/2026-01-31-h200.csv
"""

import csv
import sys


def main():
    figures = {}
    with open(sys.argv[1], newline="") as file:
        for row in csv.DictReader(file):
            if row["unit"] in ("ns", "frames/s", "gradient steps/s", "steps/s"):
                figures[row["name"], row["unit"]] = float(row["value"])
    shared = [(name, unit) for name, unit in figures if ".cuda" in name and (name.replace(".cuda", ".wgpu"), unit) in figures]
    print("| figure | cuda | wgpu | wgpu's speed / cuda's |\n| :-- | --: | --: | --: |")
    for name, unit in shared:
        cuda, wgpu = figures[name, unit], figures[name.replace(".cuda", ".wgpu"), unit]
        ratio = cuda / wgpu if unit == "ns" else wgpu / cuda
        print(f"| {name.replace('.cuda', '')} | {cuda:,.0f} {unit} | {wgpu:,.0f} {unit} | {ratio:.3f} |")
    print(f"{len(shared)} figures of both devices")
    return 0 if shared else 1


if __name__ == "__main__":
    sys.exit(main())
