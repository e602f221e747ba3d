#!/usr/bin/env python3
"""Stable-Baselines3 and slm-fast (in f32 and in bf16) on the same training, one after the other, several times.

    python3 -m venv /tmp/sb3 && /tmp/sb3/bin/pip install stable-baselines3
    cargo build --release
    /tmp/sb3/bin/python tools/peers/sb3.py ppo
    /tmp/sb3/bin/python tools/peers/sb3.py sac

ppo: CartPole by benches/ppo_cartpole_purejaxrl.json: 4 environments x 128 steps, 4 minibatches, 4 epochs, separate 2x64
tanh nets, Adam 2.5e-4 falling to 0. SB3 steps actor and critic with one optimiser and clips their gradients together.
sac: Pendulum by benches/sac_pendulum_sb3.json, SB3's defaults: 1 environment, batch 256, 2x256 relu nets, one update a
step, Adam 3e-4. SB3 halves the critics' loss, and clamps log deviations at -20 instead of -5.

Rates are trained frames per second of wall clock and of CPU. SB3 is timed from the first to the last frame, without its
imports; slm-fast from process start to process end, with every file that it writes.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

BENCHES = pathlib.Path(__file__).parents[2] / "benches"
# spec and frames of each training
TRAININGS = {"ppo": (BENCHES / "ppo_cartpole_purejaxrl.json", 100_000), "sac": (BENCHES / "sac_pendulum_sb3.json", 3_000)}


def ppo(spec, frames, seed):
    """SB3's agent with the settings of a spec of PPO."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    algorithm, net, env = spec["agent"]["algorithm"], spec["agent"]["net"], spec["env"]
    rate, decay = net["optim_spec"]["lr"], net["lr_scheduler_spec"]["frame"]
    clip = algorithm["clip_eps_spec"]["start_val"]
    layers = net["hid_layers"]
    return PPO(
        "MlpPolicy", make_vec_env(env["name"], env["num_envs"], seed=seed), device="cpu", seed=seed,
        learning_rate=lambda left: rate * max(0.0, 1 - (1 - left) * frames / decay),
        n_steps=algorithm["time_horizon"], batch_size=algorithm["minibatch_size"], n_epochs=algorithm["training_epoch"],
        gamma=algorithm["gamma"], gae_lambda=algorithm["lam"], clip_range=clip, clip_range_vf=clip,
        ent_coef=algorithm["entropy_coef_spec"]["start_val"], vf_coef=algorithm["val_loss_coef"],
        max_grad_norm=net["clip_grad_val"],
        policy_kwargs={"net_arch": {"pi": layers, "vf": layers}, "activation_fn": torch.nn.Tanh},
    )


def sac(spec, frames, seed):
    """SB3's agent with the settings of a spec of Soft Actor-Critic."""
    from stable_baselines3 import SAC
    from stable_baselines3.common.env_util import make_vec_env
    algorithm, memory, net = (spec["agent"][key] for key in ("algorithm", "memory", "net"))
    return SAC(
        "MlpPolicy", make_vec_env(spec["env"]["name"], spec["env"]["num_envs"], seed=seed), device="cpu", seed=seed,
        learning_rate=net["optim_spec"]["lr"], buffer_size=memory["max_size"], batch_size=memory["batch_size"],
        learning_starts=algorithm["training_start_step"], tau=net["polyak_coef"], gamma=algorithm["gamma"],
        train_freq=algorithm["training_frequency"], gradient_steps=algorithm["training_iter"],
        policy_kwargs={"net_arch": net["hid_layers"]},
    )


def sb3(make, spec, frames, seed, threads):
    """Seconds of wall clock and of CPU, and the mean return of the last 100 episodes."""
    import torch
    torch.set_num_threads(threads)
    agent = make(spec, frames, seed)
    wall, cpu = time.perf_counter(), time.process_time()
    agent.learn(frames)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, statistics.fmean(episode["r"] for episode in agent.ep_info_buffer)


def slm_fast(program, path, frames, seed, threads, precision):
    """Seconds of wall clock and of CPU, and the last `total_reward` (the mean of the last 100 episodes)."""
    def used():
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime
    with tempfile.TemporaryDirectory() as data:
        command = [program, "train", path, "--seed", seed, "--threads", threads, "--data", data, "--quiet",
                   "--set", f"env.max_frame={frames}", "--set", f"meta.precision={precision}"]
        wall, cpu = time.perf_counter(), used()
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        wall, cpu = time.perf_counter() - wall, used() - cpu
        (table,) = pathlib.Path(data).glob("*/info/*_session_df_train.csv")
        head, *_, last = table.read_text().splitlines()
        return wall, cpu, float(last.split(",")[head.split(",").index("total_reward")])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", choices=TRAININGS)
    parser.add_argument("--program", default="target/release/slm-fast")
    parser.add_argument("--frames", type=int, help="of each training (default: ppo 100,000, sac 3,000)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch and of slm-fast (default: %(default)s)")
    args = parser.parse_args()
    path, frames = TRAININGS[args.training]
    args.frames = args.frames or frames
    (spec,) = json.loads(path.read_text()).values()
    make = {"ppo": ppo, "sac": sac}[args.training]
    rates = {"sb3": [], "f32": [], "bf16": []}
    for seed in range(args.repeats):
        for name in rates:
            if name == "sb3":
                wall, cpu, last = sb3(make, spec, args.frames, seed, args.threads)
            else:
                wall, cpu, last = slm_fast(args.program, path, args.frames, seed, args.threads, name)
            rates[name].append((args.frames / wall, args.frames / cpu))
            print(f"{name:4} seed {seed}: {args.frames / wall:10,.0f} frames/s {args.frames / cpu:10,.0f} frames/CPU-s"
                  f"  last 100 episodes {last:.1f}", flush=True)
    middle = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in rates.items()}
    for name in ("f32", "bf16"):
        wall, cpu = (ours / theirs for ours, theirs in zip(middle[name], middle["sb3"]))
        print(f"slm-fast in {name} / sb3, medians: {wall:.1f} x per second, {cpu:.1f} x per CPU-second")


if __name__ == "__main__":
    main()
