#!/usr/bin/env python3
"""Plants one fault at a time in a WGSL shader and expects the tests to fail.

    python3 tools/mutate_wgpu.py              # all; minutes
    python3 tools/mutate_wgpu.py --only log   # faults that the tests of one op should catch
    python3 tools/mutate_wgpu.py --list

Works on a copy of the shaders in a temporary folder, which the tests read instead of those built in, so that a fault
needs no build; the tree is not touched. Needs cargo and an adapter, software if need be. A fault must leave a shader
that is valid and a text that fits its declaration: one that does not is no catch. Prints a table, and ends with 1 if a
fault is not caught or its text is no longer in the file.
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

# what is wrong, file below shaders, right text, wrong text, op whose parity must fail; `wide`, `lib` and
# `lanes` are the tests of numbers, of functions that shaders share and of lanes that meet
FAULTS = [
    ("halves that are too long for exact products", "lib/wide.wgsl", "bitcast<u32>(a) & 0xfffff000u",
     "bitcast<u32>(a) & 0xffffff00u", "wide"),
    ("the error of a sum left out", "lib/wide.wgsl", "Wide(sum, keep(keep(a - of_a) + keep(b - of_b)))",
     "Wide(sum, keep(b - of_b))", "wide"),
    ("a carry lost", "lib/wide.wgsl", "a.y + b.y + u32(low < a.x)", "a.y + b.y", "wide"),
    ("a carry lost in a product", "lib/wide.wgsl",
     "return U64((right << 16u) | (low & 0xffffu), (a >> 16u) * (b >> 16u) + (left >> 16u) + (right >> 16u));",
     "return U64((right << 16u) | (low & 0xffffu), (a >> 16u) * (b >> 16u) + (left >> 16u));", "wide"),
    ("what lies between two means left out", "lib/sums.wgsl", "wide_add(wide_add(a.m2, b.m2), between)",
     "wide_add(a.m2, b.m2)", "advantage"),
    ("a barrier missing before the tree of sums", "lib/lanes.wgsl", "pair_parts[lane] = x;\n    workgroupBarrier();",
     "pair_parts[lane] = x;", "advantage"),
    ("a scan that counts its own lane", "lib/lanes.wgsl", "Scan(scan_parts[at + lane] - x,",
     "Scan(scan_parts[at + lane],", "log"),
    ("a subgroup's half left out of a sum", "lib/lanes_subgroup.wgsl",
     "for (var apart = 1u; apart < reach; apart *= 2u) { sum += subgroupShuffleXor(sum, apart); }",
     "for (var apart = 2u; apart < reach; apart *= 2u) { sum += subgroupShuffleXor(sum, apart); }", "optimize"),
    ("the parts of other subgroups' lanes", "lib/lanes_subgroup.wgsl", "sums = pair_parts[first + lane % many * span];",
     "sums = pair_parts[first + lane % many];", "advantage"),
    ("a subgroup that counts itself as before", "lib/lanes_subgroup.wgsl", "first + reach <= lane", "first <= lane",
     "log"),
    ("moments joined with themselves", "lib/lanes_subgroup.wgsl",
     "merge(choose(x, other, is_upper), choose(other, x, is_upper))",
     "merge(x, choose(other, x, is_upper))", "lanes"),
    ("half a sum where lanes are in no order", "lib/lanes_subgroup.wgsl",
     "sum = lane_parts[first] + lane_parts[first + span];", "sum = lane_parts[first];", "lanes"),
    ("neighbours that a subgroup does not hold", "lib/lanes_subgroup.wgsl", "min(size, MOST_REACH)",
     "2u * min(size, MOST_REACH)", "lanes"),
    ("a barrier missing before other subgroups' parts are read", "lib/lanes_subgroup.wgsl",
     "lane_parts[lane] = sum;\n        workgroupBarrier();", "lane_parts[lane] = sum;", "optimize"),
    ("the session axis is dropped", "schedule.wgsl", "let out = a.schedule.at + s * a.schedule.stride;",
     "let out = a.schedule.at;", "schedule"),
    ("sessions by place, not by table", "schedule.wgsl", "let s = sessions[1u + block.y];", "let s = block.y;",
     "schedule"),
    ("schedules at the rollout's start", "schedule.wgsl", "var frame = ends;", "var frame = began;", "schedule"),
    ("exploration at the rollout's end", "schedule.wgsl", "frame = began;", "frame = ends;", "schedule"),
    ("a learning rate below its least", "schedule.wgsl",
     "wide_max(left, wide(get_f(group + HYPER_LR_MIN_FACTOR)))", "left", "schedule"),
    ("a learnt weight of the first session", "schedule.wgsl", "a.params.at + s * a.params.stride + d.log_alpha",
     "a.params.at + d.log_alpha", "schedule"),
    ("the next episode's value behind an end", "advantage.wgsl", "if (gae && end == 0u) {", "if (gae) {", "advantage"),
    ("lambda left out", "advantage.wgsl", "keep_on = gamma * get_f(hyper + HYPER_LAM);", "keep_on = gamma;",
     "advantage"),
    ("a barrier missing before the recursion", "advantage.wgsl",
     "        workgroupBarrier();\n        if (recursive && lane < envs) {",
     "        if (recursive && lane < envs) {", "advantage"),
    ("percentiles of the first digits alone", "advantage.wgsl", "(key >> (shift + 8u)) == picks[k].x", "true",
     "advantage"),
    ("one count of many", "advantage.wgsl", "counter < d.counters", "counter < 1u", "advantage"),
    ("the same key in every round", "shuffle.wgsl", "low ^= hash(high, own.w)", "low ^= hash(high, own.y)", "shuffle"),
    ("a biased deviation", "shuffle.wgsl", "wide_of_u32(rows - 1u)", "wide_of_u32(rows)", "shuffle"),
    ("the log one episode behind", "log.wgsl", "count - 1u - (count - 1u - slot) % ROWS_WINDOW",
     "count - (count - slot) % ROWS_WINDOW", "log"),
    ("rows that were not due left as they were", "log.wgsl", "put(nums + worker, 0.0);", "put(nums + worker, 1.0);",
     "log"),
    ("a count that is read after it is written", "obs_moments.wgsl", "take_in(s, column, get_f(scratch), all)",
     "take_in(s, column, get_f(a.obs_moments.at + s * a.obs_moments.stride) + get_f(scratch), all)", "obs_moments"),
    ("deviations for variances", "obs_moments.wgsl", "wide_add(wide_div(joined.m2, joined.count), NORMALIZER_ROOM)",
     "wide_add(joined.m2, NORMALIZER_ROOM)", "obs_moments"),
    ("nine rounds of Philox", "lib/rng.wgsl", "round < 10u", "round < 9u", "lib"),
    ("a sine whose sign is the cosine's", "lib/trig.wgsl", "(bits & 2u) << 30u", "((bits + 1u) & 2u) << 30u", "lib"),
    ("a logarithm that takes NaN for a number", "lib/trig.wgsl", "word - 1u < 0x7F7FFFFFu", "word != 0u", "lib"),
    ("a slope without its constant", "lib/activation.wgsl",
     "case ACTIVATIONS_ELU: { return select(y + 1.0, 1.0, y > 0.0); }",
     "case ACTIVATIONS_ELU: { return select(y, 1.0, y > 0.0); }", "lib"),
    ("no bound on log deviations", "lib/policy.wgsl",
     "return hold(raw, POLICIES_LOG_STD_LOW, POLICIES_LOG_STD_HIGH);", "return raw;", "rollout"),
    ("no limit on the torque", "env/pendulum.wgsl", "hold(action[0], -d.env.max_torque, d.env.max_torque)",
     "action[0]", "rollout"),
    ("gravity typed into the dynamics", "env/cartpole.wgsl", "(d.env.gravity * sin - cos * push)",
     "(9.7 * sin - cos * push)", "rollout"),
    ("Runge and Kutta with other weights", "env/acrobot.wgsl", "(k1 + 2.0 * k2)", "(k1 + k2)", "rollout"),
    ("an action that never brakes", "env/mountain_car.wgsl", "(action[0] - 1.0) * d.env.force",
     "action[0] * d.env.force", "rollout"),
    ("the height for the slope", "env/mountain_car_continuous.wgsl", "sin_cos(3.0 * state[0]).y",
     "sin_cos(3.0 * state[0]).x", "rollout"),
    ("a time limit one step late", "rollout.wgsl", "live.steps >= d.limit", "live.steps > d.limit", "rollout"),
    ("a reset drawn from the step before", "rollout.wgsl", "step + select(0u, 1u, reset)", "step", "rollout"),
    ("observations without their shift", "rollout.wgsl", "(x - get_f(normalizer)) * ", "x * ", "rollout"),
    ("biases of hidden layers left out", "lib/net.wgsl",
     "vec4<f32>(bias.x), vec4<f32>(bias.y), vec4<f32>(bias.z), vec4<f32>(bias.w));",
     "vec4<f32>(0.0), vec4<f32>(bias.y), vec4<f32>(bias.z), vec4<f32>(bias.w));", "rollout"),
    ("half the slope of the value", "lib/distance.wgsl", "vec2<f32>(e * e, 2.0 * e)", "vec2<f32>(e * e, e)",
     "minibatch_grad"),
    ("values above their targets pulled down", "lib/losses.wgsl", "e = min(e, 0.0);", "e = min(e, 9e9);", "minibatch_grad"),
    ("episodes of earlier rollouts without a return", "episode_returns.wgsl", "(how != 0u || !inside)", "true",
     "episode_returns"),
    ("rows imitated that were no better", "imitate.wgsl", "- value, 0.0);", "- value, -9e9);", "imitate"),
    ("entropy punished", "lib/losses.wgsl", "d_log_prob * slope_pair.x - bonus", "d_log_prob * slope_pair.x + bonus",
     "minibatch_grad"),
    ("slopes through a held ratio", "lib/losses.wgsl", "free <= held && abs(raw)", "abs(raw)", "minibatch_grad"),
    ("rows of the first minibatch", "lib/minibatch.wgsl", "launch.start + i", "i", "minibatch_grad"),
    ("the upper bias has no gradient", "minibatch_grad_fused.wgsl", "bias_top += above;", "", "minibatch_grad"),
    ("hidden biases of large nets left out", "lib/layers.wgsl",
     "kept(i, lane) + get_f(side.bias + unit);", "kept(i, lane);", "minibatch_grad"),
    ("a barrier missing before the slabs are read", "lib/matrix.wgsl",
     "        workgroupBarrier();\n        for (var k = 0u; k < min(left.depth - k0, DEPTH); k++) {",
     "        for (var k = 0u; k < min(left.depth - k0, DEPTH); k++) {", "minibatch_grad"),
    ("an infinity taken for a number", "lib/core.wgsl", "!= 0x7f800000u", "!= 0x7f800001u", "optimize"),
    ("gradients scaled up to the bound", "optimize.wgsl", "is_finite(limit) && clip < 1.0", "is_finite(limit)",
     "optimize"),
    ("bias correction one step late", "optimize.wgsl", "+ of_all) + 1u", "+ of_all) + 2u", "optimize"),
    ("numbers of the first groups for those of a part", "optimize.wgsl", "let of_all = d.first_group + g;",
     "let of_all = g;", "optimize"),
    ("a log alpha without bounds", "optimize.wgsl", "if (bounded) {", "if (bounded && kind > 9u) {", "optimize"),
    ("losses of a rare step counted once", "optimize.wgsl", "losses[i] * d.share", "losses[i]", "optimize"),
    ("a fault that moves the clock", "optimize.wgsl", "    if (bad != NO_GROUP) { return; }\n", "", "optimize"),
    ("a carry lost in Philox", "lib/rng.wgsl", "+ (carry >> 16u), a * b)", ", a * b)", "lib"),
    ("a remainder that a compiler may take apart", "lib/trig.wgsl", "keep(fma(n, -0.6933594, x))",
     "fma(n, -0.6933594, x)", "lib"),
    ("a tanh that hides a NaN", "lib/activation.wgsl", "let t = select(x, with_sign(7.905311, x), square > 62.493942);",
     "let t = clamp(x, -7.905311, 7.905311);", "lib"),
    ("half a slope", "lib/activation.wgsl", "return y * (1.0 - y);", "return y;", "lib"),
    ("the value of the fresh episode where a limit cut the old one", "rollout.wgsl",
     "select(0u, final_seen, any_cut)", "0u", "rollout"),
    ("a value beyond a terminal state", "rollout.wgsl", "done.ended == ENDED_TRUNCATED",
     "(done.ended & ENDED_TRUNCATED) != 0u", "rollout"),
    ("the same random words in two steps", "rollout.wgsl", "(t + 1u) & 1u, first, step + t + 1u",
     "(t + 1u) & 1u, first, step + t", "rollout"),
    ("a critic that begins with the actor's deviations", "rollout.wgsl", "+ d.policy.free_std * d.policy.n", "",
     "rollout"),
    ("a part of the last layer left out", "lib/net.wgsl", "part < d.parts; part++", "part + 1u < d.parts; part++",
     "rollout"),
    ("blocks that step environments of the next session", "rollout.wgsl", "e < ROWS && n < d.n", "e < ROWS", "rollout"),
    ("the wall gives speed back", "env/mountain_car.wgsl", "select(speed, 0.0,", "select(speed, -speed,", "rollout"),
    ("one clamp of two", "env/acrobot.wgsl", "hold(end.w, -d.env.max_vel_2, d.env.max_vel_2)", "end.w", "rollout"),
    ("a ring that begins anew with each rollout", "rollout.wgsl", "return step % max(d.ring, 1u);",
     "return t % max(d.ring, 1u);", "rollout"),
    ("a temperature that changes nothing", "rollout.wgsl", "out[j] /= explore;", "out[j] /= 1.0;", "rollout"),
    ("one word for the coin and for the action", "rollout.wgsl", "unit(words[1]) * f32(d.actions)",
     "unit(words[0]) * f32(d.actions)", "rollout"),
    ("actions stored before they are squashed", "rollout.wgsl", "select(action[i], taken[i], d.ring > 0u)", "action[i]",
     "rollout"),
    ("random actions to learn from in the environment's units", "rollout.wgsl", "2.0 * u - 1.0, d.to_learn)",
     "2.0 * u - 1.0, false)", "rollout"),
    ("rows drawn that are not there yet", "sample.wgsl", "wide_product(word, filled * d.n).x",
     "wide_product(word, d.c * d.n).x", "sample"),
    ("a return that goes on behind an episode's end", "sample.wgsl", " || get_u(ended + at) != 0u", "", "sample"),
    ("a return that goes on behind the newest step", "sample.wgsl", " || at / d.n == newest", "", "sample"),
    ("the same rows in every batch", "sample.wgsl", "PURPOSE_SAMPLE, launch.first + k)", "PURPOSE_SAMPLE, launch.first)",
     "sample"),
    ("weights against a priority of one", "sample.wgsl", "leaf / smallest", "leaf", "sample"),
    ("sums of the last update kept", "sample.wgsl", "launch.begins != 0u", "launch.begins > 1u", "sample"),
    ("a place kept whole on the way down", "lib/tree.wgsl", "at = keep(at - below);", "at = keep(at);", "sample"),
    ("new rows without the largest priority", "prioritize.wgsl", "select(1.0, top, top > 1.0)", "1.0", "prioritize"),
    ("the highest sums left as they were", "prioritize.wgsl", "level < d.levels.count", "level + 1u < d.levels.count",
     "prioritize"),
    ("a priority without its power", "prioritize.wgsl", "get_f(hyper + HYPER_PRIORITY_ALPHA) * ln_of(raised)",
     "ln_of(raised)", "prioritize"),
    ("a copy every time", "target.wgsl", "if (!d.polyak && !is_due(s)) { return; }", "", "target"),
    ("a target that runs ahead", "target.wgsl", "old + weight * (x - old)", "old + weight * x", "target"),
    ("the best action by the target net itself", "lib/values.wgsl", "judge[j] > most", "worth[j] > most", "td_grad"),
    ("a dueling net without the mean", "lib/values.wgsl", "state + values[j] - mean", "state + values[j]", "td_grad"),
    ("the state before for the state after", "td_grad.wgsl", "select(OBS, 0u, z == 0u)", "0u", "td_grad"),
    ("slopes without importance weights", "lib/values.wgsl", "let slope_q = weight * far.y", "let slope_q = far.y",
     "td_grad"),
    ("the next episode's values behind an end", "sequence_td_grad.wgsl", " || get_u(kept_of(s, ENDS) + row) != 0u", "",
     "sequence_td_grad"),
    ("steps that bring a state up to date learnt from", "sequence_td_grad.wgsl", " + d.burn_in * count", "",
     "sequence_td_grad"),
    ("a ring that does not go round", "sequence_td_grad.wgsl", "/ d.envs + ring - record", "/ d.envs - record",
     "sequence_td_grad"),
    ("a step aside from the state before", "sequence_td_grad.wgsl", "let h = get_rows(behind, after_at(s, z)",
     "let h = get_rows(behind, before_at(s, z)", "sequence_td_grad"),
    ("a state that outlives its episode", "sequence_td_grad.wgsl", "get_u(ends + f.rows.z) == 0u", "true",
     "sequence_td_grad"),
    ("the larger of two targets", "critic_grad.wgsl", "return min(value_of(s, 2u", "return max(value_of(s, 2u",
     "critic_grad"),
    ("an entropy that costs nothing", "critic_grad.wgsl", "- get_f(scratch_of(s, d.rest + BONUS) + row)", "",
     "critic_grad"),
    ("the same noise for every four words", "lib/soft.wgsl", "purpose, j / 4u)", "purpose, 0u)", "critic_grad"),
    ("the larger of two critics", "actor_grad.wgsl", "select(1u, 0u, first <= second)", "select(0u, 1u, first <= second)",
     "actor_grad"),
    ("deviations without the entropy", "actor_grad.wgsl", "of_sample * offset[j] - alpha", "of_sample * offset[j]",
     "actor_grad"),
    ("an entropy that aims at nothing", "actor_grad.wgsl", "log_prob + f32(count) * aim", "log_prob", "actor_grad"),
    ("successors that no critic sees", "lib/soft.wgsl", "select(d.batch, 2u * d.batch, d.joint",
     "select(d.batch, d.batch, d.joint", "crossq_grad"),
    ("running moments that stand still", "crossq_grad.wgsl", "put(norm, old_mean + d.momentum * (mean - old_mean));",
     "put(norm, old_mean);", "crossq_grad"),
    ("corrections without bounds", "crossq_grad.wgsl", "hold((mean - old_mean) / running, -d_max, d_max)",
     "(mean - old_mean) / running", "crossq_grad"),
    ("bounds that are open from the start", "crossq_grad.wgsl", "1.0, batches >= d.warmup)", "1.0, true)", "crossq_grad"),
    ("slopes that leave out what moves a deviation", "crossq_grad.wgsl", " - get_f(sums + word) * along)", ")",
     "crossq_grad"),
    ("a batch that is not counted", "crossq_grad.wgsl", "get_u(batches) + 1u", "get_u(batches)", "crossq_grad"),
    ("a barrier missing before a column is added up", "lib/renorm.wgsl",
     "column_parts[lane] = x;\n    workgroupBarrier();", "column_parts[lane] = x;", "crossq_grad"),
    ("running means left in", "fold.wgsl", "(x - get_f(norm + o)) * factor", "x * factor", "fold"),
    ("variances of the units before", "fold.wgsl", "get_f(norm + d.units + o) + d.eps",
     "get_f(norm + d.units + o - unit) + d.eps", "fold"),
]

# tests that are not of an op
SHARED = {"wide": "wgpu_wide", "lib": "wgpu_lib", "lanes": "wgpu_lanes"}


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
    """The first line that says what a failed test saw."""
    if result.returncode == 0:
        return "passed" if "skipped:" not in result.stdout else "skipped"
    lines = result.stdout.splitlines()
    for at, line in enumerate(lines):
        if "panicked at" in line and at + 1 < len(lines):
            return "caught: " + lines[at + 1].strip()[:110]
    return "caught: " + (lines[-1] if lines else "")[:110]


def run(binary, test, folder, op):
    environment = {**os.environ, "SLM_FAST_SHADERS": str(folder), "SLM_REQUIRE": "wgpu", "OP": op,
                   "RUST_BACKTRACE": "0"}
    return subprocess.run([binary, *test, "--nocapture"], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


def found_by(tests, folder, op):
    if op in SHARED:
        return verdict(run(tests[SHARED[op]], [], folder, ""))
    if run(tests["shaders"], ["every_kernel_is_valid_in_every_case"], folder, op).returncode != 0:
        return "not planted: it does not validate"
    return verdict(run(tests["wgpu_device"], ["every_op_equals_its_definition"], folder, op))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="faults that one test should catch")
    parser.add_argument("--tests", type=Path, metavar="FOLDER", help="test programs that are built already")
    parser.add_argument("--list", action="store_true", help="print the faults and plant none")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only in (None, fault[4])]
    if options.list:
        for fault in faults:
            print(f"{fault[4]}: {fault[0]}: {fault[1]}")
        return 0
    built = (lambda name: str((options.tests / name).resolve())) if options.tests else test_binary
    tests = {name: built(name) for name in ("shaders", "wgpu_device", *SHARED.values())}
    # a test that fails anyway would catch everything
    for op in dict.fromkeys(fault[4] for fault in faults):
        found = found_by(tests, ROOT / "shaders", op)
        if found != "passed":
            print(f"the tests of {op} without a fault: {found}")
            return 1
    survived, start = 0, time.time()
    print("| fault | file | tests |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        shaders = Path(folder) / "shaders"
        for what, file, right, wrong, op in faults:
            shutil.rmtree(shaders, ignore_errors=True)
            shutil.copytree(ROOT / "shaders", shaders)
            fits = planted(shaders / file, right, wrong)
            found = found_by(tests, shaders, op) if fits else "not planted: the text has changed"
            survived += not found.startswith("caught")
            print(f"| {what} | `shaders/{file}` | {found.replace('|', '/')} |", flush=True)
    print(f"\n{len(faults) - survived} of {len(faults)} faults caught in {time.time() - start:.0f} s")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
