#!/usr/bin/env python3
"""Stable-Baselines3's PPO and slm-fast on the same CartPole training, one after the other, several times.

    python3 -m venv /tmp/sb3 && /tmp/sb3/bin/pip install stable-baselines3
    cargo build --release
    /tmp/sb3/bin/python tools/peers/ppo_sb3.py

Both train with the settings of benches/ppo_cartpole_purejaxrl.json: 4 environments x 128 steps, 4 minibatches, 4 epochs,
separate 2x64 tanh nets, Adam 2.5e-4 falling to 0. Rates are trained frames per second of wall clock and of CPU. SB3 is
timed from the first to the last frame, without its imports; slm-fast from process start to process end, with every file
that it writes. Remaining differences: SB3 steps actor and critic with one optimiser and clips their gradients together.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

SPEC = pathlib.Path(__file__).parents[2] / "benches/ppo_cartpole_purejaxrl.json"


def sb3(spec, frames, seed, threads):
    """Seconds of wall clock and of CPU, and the mean return of the last 100 episodes."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    torch.set_num_threads(threads)
    algorithm, net, env = spec["agent"]["algorithm"], spec["agent"]["net"], spec["env"]
    rate, decay = net["optim_spec"]["lr"], net["lr_scheduler_spec"]["frame"]
    clip = algorithm["clip_eps_spec"]["start_val"]
    layers = net["hid_layers"]
    agent = PPO(
        "MlpPolicy", make_vec_env(env["name"], env["num_envs"], seed=seed), device="cpu", seed=seed,
        learning_rate=lambda left: rate * max(0.0, 1 - (1 - left) * frames / decay),
        n_steps=algorithm["time_horizon"], batch_size=algorithm["minibatch_size"], n_epochs=algorithm["training_epoch"],
        gamma=algorithm["gamma"], gae_lambda=algorithm["lam"], clip_range=clip, clip_range_vf=clip,
        ent_coef=algorithm["entropy_coef_spec"]["start_val"], vf_coef=algorithm["val_loss_coef"],
        max_grad_norm=net["clip_grad_val"],
        policy_kwargs={"net_arch": {"pi": layers, "vf": layers}, "activation_fn": torch.nn.Tanh},
    )
    wall, cpu = time.perf_counter(), time.process_time()
    agent.learn(frames)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, statistics.fmean(episode["r"] for episode in agent.ep_info_buffer)


def slm_fast(program, frames, seed, threads):
    """Seconds of wall clock and of CPU, and the last `total_reward` (the mean of the last 100 episodes)."""
    def used():
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime
    with tempfile.TemporaryDirectory() as data:
        command = [program, "train", SPEC, "--seed", seed, "--threads", threads, "--data", data, "--quiet",
                   "--set", f"env.max_frame={frames}"]
        wall, cpu = time.perf_counter(), used()
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        wall, cpu = time.perf_counter() - wall, used() - cpu
        (table,) = pathlib.Path(data).glob("*/info/*_session_df_train.csv")
        head, *_, last = table.read_text().splitlines()
        return wall, cpu, float(last.split(",")[head.split(",").index("total_reward")])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/slm-fast")
    parser.add_argument("--frames", type=int, default=100_000, help="frames of each training (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch and of slm-fast (default: %(default)s)")
    args = parser.parse_args()
    (spec,) = json.loads(SPEC.read_text()).values()
    rates = {"sb3": [], "slm-fast": []}
    for seed in range(args.repeats):
        for name in rates:
            if name == "sb3":
                wall, cpu, last = sb3(spec, args.frames, seed, args.threads)
            else:
                wall, cpu, last = slm_fast(args.program, args.frames, seed, args.threads)
            rates[name].append((args.frames / wall, args.frames / cpu))
            print(f"{name:9} seed {seed}: {args.frames / wall:10,.0f} frames/s {args.frames / cpu:10,.0f} frames/CPU-s"
                  f"  last 100 episodes {last:.1f}", flush=True)
    middle = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in rates.items()}
    wall, cpu = (ours / theirs for ours, theirs in zip(middle["slm-fast"], middle["sb3"]))
    print(f"slm-fast / sb3, medians: {wall:.0f} x per second, {cpu:.0f} x per CPU-second")


if __name__ == "__main__":
    main()
