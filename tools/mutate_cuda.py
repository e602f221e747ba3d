#!/usr/bin/env python3
"""Plants one fault at a time in CUDA kernels and in the cuda device's host code, and expects the tests to fail.

    python3 tools/mutate_cuda.py                 # all; tens of minutes
    python3 tools/mutate_cuda.py --only kernels  # or host
    python3 tools/mutate_cuda.py --fault barrier # those with this word in their name
    python3 tools/mutate_cuda.py --list

Works on a copy of the sources in a temporary folder; the tree is not touched. Needs cargo and g++. Kernels are compiled
by the tests when they run, so a fault there needs no build; one in the host code does, and these tests run once without
a fault too. Prints a table, and ends with 1 if a fault is not caught or its text is no longer in the file.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# what is wrong, file, right text, wrong text, op whose test must fail
KERNELS = [
    ("the session axis is dropped", "lib/core.cuh", "const T* of(u32 s) const { return at + u64(s) * stride; }",
     "const T* of(u32 s) const { return at; }", "schedule"),
    ("sessions by place, not by table", "lib/core.cuh", "s = table[1 + y];", "s = y;", "schedule"),
    ("schedules at the rollout's start", "schedule.cu", "(step + d.t) * d.n", "step * d.n", "schedule"),
    ("a learning rate below its least", "schedule.cu", "left > least ? left : least", "left", "schedule"),
    ("a learnt weight as its logarithm", "schedule.cu", "trig::exp(a.params.of(s)[d.log_alpha])",
     "a.params.of(s)[d.log_alpha]", "schedule"),
    ("nine rounds of Philox", "lib/rng.cuh", "round < 10", "round < 9", "rollout"),
    ("gravity typed into the dynamics", "env/cartpole.cuh", "gravity * sin - cos", "9.8f * sin - cos", "rollout"),
    ("no limit on the torque", "env/pendulum.cuh", "trig::clamp(action[0], -max_torque, max_torque)", "action[0]",
     "rollout"),
    ("a time limit one step late", "lib/episodes.cuh", "live.steps >= d.limit", "live.steps > d.limit", "rollout"),
    ("a reset drawn from the step before", "lib/episodes.cuh", "{n, to.step + t + 1, Purpose::RESET, 0}",
     "{n, to.step + t, Purpose::RESET, 0}", "rollout"),
    ("observations without their shift", "lib/episodes.cuh", "(obs[i] - normalizer[i]) * ", "obs[i] * ", "rollout"),
    ("no bound on log deviations", "lib/policy.cuh",
     "return trig::clamp(raw, Policies::LOG_STD_LOW, Policies::LOG_STD_HIGH);", "return raw;", "minibatch_grad"),
    ("a memory of the episode before", "recurrent_rollout.cu", "if (there && over[column] != 0) *word = 0.0f;", "",
     "recurrent_rollout"),
    ("slopes from the next episode", "lib/sequences.cuh", "(goes_on ? d_h[at] : 0.0f)", "d_h[at]", "sequence_grad"),
    ("a barrier missing behind a step's slopes", "lib/sequences.cuh",
     "        __syncthreads();\n        // what went through", "        // what went through", "sequence_grad"),
    ("values of the next episode behind an end", "sequence_td_grad.cu", "a.ended.of(s)[n] != 0 || last", "last",
     "sequence_td_grad"),
    ("a sequence cut at the ring's seam", "sequence_td_grad.cu", "(n >= m ? n - m : n + d.rows - m)",
     "(n >= m ? n - m : 0)", "sequence_td_grad"),
    ("slopes of steps that none is learned from", "sequence_td_grad.cu",
     "    clear(d, scratch.gates(d, 0), wide, first + d.learned * d.tile, first + scratch.tile_learned);\n", "",
     "sequence_td_grad"),
    ("a step aside from the cell before", "sequence_td_grad.cu",
     "c = fmaf(open[d.hidden], scratch.cells(d, z)[r * units + word], open[0] * open[2 * d.hidden]);",
     "c = scratch.cells(d, z)[r * units + word];", "sequence_td_grad"),
    ("a barrier missing before a step aside", "sequence_td_grad.cu",
     "x[at % depth * row + at / depth] = seen[at];\n    __syncthreads();", "x[at % depth * row + at / depth] = seen[at];",
     "sequence_td_grad"),
    ("the next episode's value behind an end", "advantage.cu", "(end == 0 ? value[at + d.n] : over)",
     "value[at + d.n]", "advantage"),
    ("lambda left out", "advantage.cu", "gae ? gamma * hyper[Hyper::LAM] : gamma", "gamma", "advantage"),
    ("a barrier missing before the recursion", "advantage.cu",
     "        __syncthreads();\n        if (recursive && threadIdx.x < envs) {",
     "        if (recursive && threadIdx.x < envs) {", "advantage"),
    ("three keys for four rounds", "lib/order.cuh", "keys.at[round % 4]", "keys.at[round % 3]", "shuffle"),
    ("a biased deviation", "lib/order.cuh", "m2 / double(rows - 1)", "m2 / double(rows)", "shuffle"),
    ("gradients scaled up to the bound", "optimize.cu", "float(clip < 1.0 ? clip : 1.0)", "float(clip)", "optimize"),
    ("bias correction one step late", "optimize.cu", "t = a.steps.of(s)[at] + 1;",
     "t = a.steps.of(s)[at] + 2;", "optimize"),
    ("a barrier missing before the steps", "optimize.cu",
     "for (u32 g = 0; g < Optimizers::GROUPS; g++) squares[g] = float(square[g]);\n    }\n    __syncthreads();",
     "for (u32 g = 0; g < Optimizers::GROUPS; g++) squares[g] = float(square[g]);\n    }", "optimize"),
    ("a fault that moves the clock", "optimize.cu", "if (bad != NO_GROUP) return;\n    float* sums",
     "float* sums", "optimize"),
    ("half the slope of the value", "lib/losses.cuh", "d_error = 2.0f * e;", "d_error = e;",
     "minibatch_grad"),
    ("values above their targets pulled down", "lib/losses.cuh", "d.one_sided && e > 0.0f", "d.one_sided && e > 9e9f",
     "minibatch_grad"),
    ("returns that go on behind a truncation", "episode_returns.cu", "how == Ended::TRUNCATED ? bootstrap", "how == 9 ? bootstrap",
     "episode_returns"),
    ("episodes of earlier rollouts without a return", "episode_returns.cu", "back >= d.t && (how != 0 || !inside)",
     "back >= d.t", "episode_returns"),
    ("rows imitated that were no better", "imitate.cu", "better = over > 0.0f ? over : 0.0f", "better = over", "imitate"),
    ("a layer's units of the rows before", "imitate.cu", "float* swap = from;", "float* swap = to;", "imitate"),
    ("entropy punished", "lib/losses.cuh", "d_log_prob * of_log_prob - bonus * of_entropy",
     "d_log_prob * of_log_prob + bonus * of_entropy", "minibatch_grad"),
    ("slopes through a held ratio", "lib/losses.cuh", "slope = inside ? -free : 0.0f;", "slope = -free;",
     "minibatch_grad"),
    ("biases of hidden layers left out", "lib/mlp.cuh", "copy_word(weights + col, params + y.bias + col);",
     "weights[col] = 0.0f;", "minibatch_grad"),
    ("biases of outputs from another tile", "lib/layered_bf16.cuh", "if (outputs != nullptr) {",
     "if (outputs == outputs + len) {", "minibatch_grad"),
    ("a barrier missing before rounded slopes", "lib/layered_bf16.cuh",
     "        __syncthreads();\n        each(tile, [](float& word, float sum) { word = operand",
     "        each(tile, [](float& word, float sum) { word = operand", "minibatch_grad"),
    ("a barrier missing before the way back", "minibatch_grad.cu",
     "        __syncthreads();\n        backward<ROWS, LANES>", "        backward<ROWS, LANES>", "minibatch_grad"),
    ("the log one episode behind", "log.cu", "count - 1 - (count - 1 - slot) % Rows::WINDOW",
     "count - (count - slot) % Rows::WINDOW", "log"),
    ("deviations for variances", "obs_moments.cu", "sqrt(joined.m2 / joined.count + Normalizer::EPSILON)",
     "sqrt(joined.m2 + Normalizer::EPSILON)", "obs_moments"),
]

# tests of tests/cuda_device.rs
OPS = "every_op_equals_its_definition_through_the_driver"
GROWS = "a_queue_that_grows_is_recorded_again"

# what is wrong, file below src/device, right text, wrong text, test that must fail
HOST = [
    ("a grid of one session", "cuda/launch.rs", "grid: [kernel.tiles, layout.sessions as u32, kernel.parts]",
     "grid: [kernel.tiles, 1, kernel.parts]", OPS),
    ("read-backs that nobody waits for", "cuda/arena.rs", "landed.wait()?;", "let _ = &landed;", OPS),
    ("what the host writes stays there", "remote.rs", "self.any_dirty = true;", "self.any_dirty = false;", OPS),
    ("slices strided by their length", "cuda/launch.rs", "word(&what, entry.stride)?", "word(&what, entry.len)?", OPS),
    ("a queue that grew is not recorded again", "cuda/launch.rs",
     "&& self.recorded[number].calls.len() == queue.calls().len()",
     "&& self.recorded[number].calls.len() <= usize::MAX", GROWS),
    ("no room asked for shared memory", "cuda/launch.rs", "if bytes <= SHARED_BYTES {", "if bytes <= usize::MAX {",
     OPS),
]


def run(command, **more):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)


def test_binary(name):
    """Builds a test and gives the path of its executable."""
    built = subprocess.run(["cargo", "test", "--release", "--no-run", "--message-format=json", "--test", name],
                           cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True)
    messages = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    found = [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == name]
    return found[-1]


def planted(path, right, wrong):
    text = path.read_text()
    if right not in text:
        return False
    path.write_text(text.replace(right, wrong, 1))
    return True


def verdict(result):
    """Which test failed and the first line of what it saw, or why nothing is proven."""
    if result.returncode == 0:
        return "passed" if "skipped:" not in result.stdout else "skipped"
    if "does not compile" in result.stdout or "could not compile" in result.stdout:
        return "not planted: it does not compile"
    lines = result.stdout.splitlines()
    # a kernel that writes where it may not takes the whole program down
    if result.returncode < 0:
        return f"caught: the tests were killed by signal {-result.returncode}"
    # a test in a child shows all that the child wrote, once more with names and panics
    failed = list(dict.fromkeys(line.split()[1] for line in lines
                                if line.startswith("test ") and line.endswith("... FAILED")))
    if not failed:
        return f"no test has failed: {lines[-1] if lines else result.returncode}"
    said = [next((line.strip() for line in lines[at + 1:] if line.strip()), "")
            for at, line in enumerate(lines) if "panicked at" in line]
    said = next((line for line in said if not line.startswith("running ")), "")
    return f"caught by {failed[0]}{f' and {len(failed) - 1} more' if failed[1:] else ''}: {said[:110]}"


def kernel_faults(folder, faults):
    binary = test_binary("cuda_kernels")
    shutil.copytree(ROOT / "tests/cuda_sim", folder / "tests/cuda_sim")
    (folder / "target").symlink_to(ROOT / "target")
    environment = {**os.environ, "SLM_FAST_ROOT": str(folder), "SLM_REQUIRE": "cuda-sim"}
    for what, file, right, wrong, op in faults:
        shutil.rmtree(folder / "kernels", ignore_errors=True)
        shutil.copytree(ROOT / "kernels", folder / "kernels", ignore=shutil.ignore_patterns("ptx"))
        if not planted(folder / "kernels" / file, right, wrong):
            yield what, f"kernels/{file}", "not planted: the text has changed"
            continue
        test = f"{op}::equals_its_definition"
        yield what, f"kernels/{file}", verdict(run([binary, "--exact", test], cwd=folder, env=environment))


def host_faults(folder, faults):
    copy = folder / "tree"
    ignored = shutil.ignore_patterns("target", ".git", "data")
    # with times of now: cargo would take what an earlier run has built, with its fault, for that of older files
    shutil.copytree(ROOT, copy, ignore=ignored, copy_function=shutil.copy)
    environment = {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "target/mutate"), "SLM_REQUIRE": "cuda-sim"}
    (copy / "target").symlink_to(ROOT / "target")

    def tested(*tests):
        return run(["cargo", "test", "--test", "cuda_device", "--", "--exact", *tests], cwd=copy, env=environment)

    # a test that fails anyway catches nothing
    sound = tested(*{fault[-1] for fault in faults})
    if verdict(sound) != "passed":
        raise SystemExit(f"{sound.stdout}\nwithout a fault: {verdict(sound)}")
    for what, file, right, wrong, test in faults:
        path = copy / "src/device" / file
        text = path.read_text()
        found = verdict(tested(test)) if planted(path, right, wrong) else "not planted: the text has changed"
        path.write_text(text)
        yield what, f"src/device/{file}", found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["kernels", "host"], help="one half of the faults")
    parser.add_argument("--fault", default="", metavar="WORDS", help="those with these words in their name")
    parser.add_argument("--list", action="store_true", help="print the faults and plant none")
    options = parser.parse_args()
    halves = {"kernels": (KERNELS, kernel_faults), "host": (HOST, host_faults)}
    chosen = [halves[options.only]] if options.only else list(halves.values())
    chosen = [([fault for fault in faults if options.fault in fault[0]], plant) for faults, plant in chosen]
    if options.list:
        for faults, _ in chosen:
            for fault in faults:
                print(f"{fault[0]}: {fault[1]}")
        return 0
    survived, count, start = 0, 0, time.time()
    print("| fault | file | tests |\n|---|---|---|", flush=True)
    for faults, plant in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for what, file, found in plant(Path(folder), faults) if faults else ():
                count += 1
                survived += not found.startswith("caught")
                print(f"| {what} | `{file}` | {found.replace('|', '/')} |", flush=True)
    print(f"\n{count - survived} of {count} faults caught in {time.time() - start:.0f} s")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
