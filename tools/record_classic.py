#!/usr/bin/env python3
"""Records the fixtures of tests/oracle.rs: one-step transitions of Gymnasium's classic-control environments.

usage: record_classic.py FOLDER [--rows N] [--seed SEED] [--env NAME]...      (pip install gymnasium)

Writes FOLDER/classic_<Name>.npz for each environment. Rows are independent: set `state`, apply `action`, compare.
  state, next_state  f64 [N, K]   the environment's own state around the step
  action             i8 [N] or f32 [N, A]
  reward             f64 [N]
  terminated         u1 [N]       ends for good
  truncated          u1 [N]       ends by the time limit
  obs0               f32 [M, O]   observations after the step, for the first M = min(N, 500) rows
  reset_states       f64 [R, K]   first states of the episodes
Every second episode plays with a purpose (balance, pump energy), because random play never leaves the valley.
"""

import argparse
from pathlib import Path

import gymnasium
import numpy as np

IDS = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"]
OBSERVED_ROWS = 500


def purposeful(name, state, rng):
    """An action in the manner of someone who wants the goal, noisy enough to visit the surroundings of the way."""
    if name == "CartPole-v1":
        return int(state[2] + 0.3 * state[3] + 0.05 * state[0] + 0.1 * state[1] > 0)
    if name == "Acrobot-v1":
        return 2 if state[3] >= 0 else 0
    push = 1.0 if state[1] >= 0 else -1.0
    if name == "MountainCar-v0":
        return int(1 + push)
    limit = 2.0 if name == "Pendulum-v1" else 1.0
    # beyond the limit now and then: environments clip, and differ in what they charge for
    return np.array([push * limit * rng.uniform(0.5, 1.3)], np.float32)


def at_random(space, rng):
    if hasattr(space, "n"):
        return int(rng.integers(space.n))
    return (rng.uniform(-1.2, 1.2, space.shape) * space.high).astype(np.float32)


def record(name, rows, seed):
    env = gymnasium.make(name)
    rng = np.random.default_rng([seed, IDS.index(name)])
    discrete = hasattr(env.action_space, "n")
    columns = {key: [] for key in ("state", "action", "next_state", "reward", "terminated", "truncated", "obs0")}
    first_states = []
    done = True
    for row in range(rows):
        if done:
            env.reset(seed=int(rng.integers(2**31)))
            first_states.append(np.array(env.unwrapped.state, np.float64))
        state = np.array(env.unwrapped.state, np.float64)
        wander = len(first_states) % 2 == 1 or (discrete and rng.random() < 0.15)
        action = at_random(env.action_space, rng) if wander else purposeful(name, state, rng)
        obs, reward, terminated, truncated, _ = env.step(action)
        columns["state"].append(state)
        columns["action"].append(action)
        columns["next_state"].append(np.array(env.unwrapped.state, np.float64))
        columns["reward"].append(reward)
        columns["terminated"].append(terminated)
        columns["truncated"].append(truncated)
        if row < OBSERVED_ROWS:
            columns["obs0"].append(obs)
        done = terminated or truncated
    kinds = {
        "action": np.int8 if discrete else np.float32,
        "terminated": np.uint8,
        "truncated": np.uint8,
        "obs0": np.float32,
    }
    arrays = {key: np.array(column, kinds.get(key, np.float64)) for key, column in columns.items()}
    return arrays | {"reset_states": np.array(first_states)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--env", action="append", choices=IDS, help="only this one (may be repeated)")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.env or IDS:
        arrays = record(name, args.rows, args.seed)
        path = args.folder / f"classic_{name.rsplit('-v', 1)[0]}.npz"
        np.savez_compressed(path, **arrays)
        ends = int(arrays["terminated"].sum())
        print(f"{path}: {args.rows} rows, {len(arrays['reset_states'])} episodes, {ends} ended for good")


if __name__ == "__main__":
    main()
