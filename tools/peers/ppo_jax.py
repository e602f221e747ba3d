#!/usr/bin/env python3
"""PPO on CartPole wholly in JAX, in the style of PureJaxRL: environment, rollout and update in one jitted program.

    python3 -m pip install "jax[cuda12]" flax optax
    python3 tools/peers/ppo_jax.py                              # 4 environments x 128 steps, 1 and 256 seeds at once
    python3 tools/peers/ppo_jax.py --envs 2048 --steps 32 --frames 20000000 --seeds 1

Own code from the published descriptions: Schulman et al. 2017 (PPO), Barto, Sutton and Anderson 1983 (CartPole), and
the defaults of PureJaxRL (Lu et al. 2022): separate 2x64 tanh nets, orthogonal starts, 4 epochs x 4 minibatches, one
Adam at 2.5e-4 falling to 0, gradients clipped together at 0.5, value clipping, advantages standardized per minibatch.
These are the settings of benches/ppo_cartpole_purejaxrl.json. A training is one `lax.scan` under `jit`; many seeds go
side by side by `vmap`. Rates are trained frames of all seeds per second of wall clock, without and with compilation.
Time to 475 is from the start of the training, without compilation, the median seed's: to the end of the first iteration
whose ended episodes return 475 in the mean (at 4 x 128 that is about one long episode), and to the first at which the
last 100 episodes do, to whole iterations.
"""

import argparse
import functools
import json
import math
import statistics
import time
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

GAMMA, LAMBDA, CLIP, ENTROPY, VALUE, NORM = 0.99, 0.95, 0.2, 0.01, 0.5, 0.5
RATE, EPOCHS, MINIBATCHES = 2.5e-4, 4, 4
LIMIT, GOAL, WINDOW = 500, 475, 100


# -- CartPole ---------------------------------------------------------------------------------------------------------

class Cart(NamedTuple):
    """State of one environment, and its statistics."""
    body: jax.Array
    age: jax.Array
    gain: jax.Array


def start(key):
    """A fresh episode."""
    return Cart(jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05), jnp.int32(0), jnp.float32(0))


def step(key, cart, action):
    """One step with auto-reset: (next, reward, ended, return of the episode that ended)."""
    x, v, angle, spin = cart.body
    push = jnp.where(action == 1, 10.0, -10.0)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    pull = (push + 0.05 * spin * spin * sin) / 1.1
    bend = (9.8 * sin - cos * pull) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1))
    speed = pull - 0.05 * bend * cos / 1.1
    body = jnp.stack([x + 0.02 * v, v + 0.02 * speed, angle + 0.02 * spin, spin + 0.02 * bend])
    gain, age = cart.gain + 1.0, cart.age + 1
    ended = (jnp.abs(body[0]) > 2.4) | (jnp.abs(body[2]) > 12 * jnp.pi / 180) | (age >= LIMIT)
    following = jax.tree.map(lambda new, old: jnp.where(ended, new, old), start(key), Cart(body, age, gain))
    return following, jnp.float32(1.0), ended, gain


# -- agent ------------------------------------------------------------------------------------------------------------

class ActorCritic(nn.Module):
    """Two nets of two tanh layers: logits of the two actions, and the value."""

    @nn.compact
    def __call__(self, obs):
        def net(outputs, scale):
            y = obs
            for _ in range(2):
                y = jnp.tanh(nn.Dense(64, kernel_init=nn.initializers.orthogonal(2.0 ** 0.5))(y))
            return nn.Dense(outputs, kernel_init=nn.initializers.orthogonal(scale))(y)

        return net(2, 0.01), net(1, 1.0)[..., 0]


class Row(NamedTuple):
    """What the update needs of a step."""
    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    ended: jax.Array


def log_prob_of(logits, action):
    """Log-probability of the actions, and all of them."""
    every = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(every, action[..., None], -1)[..., 0], every


def advantages(rows, last):
    """Generalized advantage estimation from the last step back; a step that ended an episode cuts it."""
    def back(carry, row):
        later, following = carry
        alive = 1.0 - row.ended
        delta = row.reward + GAMMA * following * alive - row.value
        here = delta + GAMMA * LAMBDA * alive * later
        return (here, row.value), here

    return jax.lax.scan(back, (jnp.zeros_like(last), last), rows, reverse=True)[1]


def loss(params, net, row, advantage, target):
    """PPO's clipped loss of one minibatch."""
    logits, value = net.apply(params, row.obs)
    log_prob, every = log_prob_of(logits, row.action)
    ratio = jnp.exp(log_prob - row.log_prob)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    policy = -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage).mean()
    near = row.value + jnp.clip(value - row.value, -CLIP, CLIP)
    error = 0.5 * jnp.maximum((value - target) ** 2, (near - target) ** 2).mean()
    entropy = -(jnp.exp(every) * every).sum(-1).mean()
    return policy + VALUE * error - ENTROPY * entropy


def train(key, envs, steps, iterations):
    """A whole training; sum of returns and number of the episodes that ended in each iteration."""
    net = ActorCritic()
    updates = iterations * EPOCHS * MINIBATCHES
    optimizer = optax.chain(optax.clip_by_global_norm(NORM),
                            optax.adam(optax.linear_schedule(RATE, 0.0, updates), eps=1e-5))
    key, of_net, of_carts = jax.random.split(key, 3)
    params = net.init(of_net, jnp.zeros(4))
    carts = jax.vmap(start)(jax.random.split(of_carts, envs))

    def interact(carry, key, params):
        carts = carry
        of_action, of_reset = jax.random.split(key)
        logits, value = net.apply(params, carts.body)
        action = jax.random.categorical(of_action, logits)
        log_prob, _ = log_prob_of(logits, action)
        following, reward, ended, gain = jax.vmap(step)(jax.random.split(of_reset, envs), carts, action)
        row = Row(carts.body, action, log_prob, value, reward, ended.astype(jnp.float32))
        return following, (row, gain)

    def minibatch(carry, batch):
        params, memory = carry
        slopes = jax.grad(loss)(params, net, *batch)
        change, memory = optimizer.update(slopes, memory, params)
        return (optax.apply_updates(params, change), memory), None

    def iterate(carry, key):
        params, memory, carts = carry
        of_steps, of_order = jax.random.split(key)
        carts, (rows, gains) = jax.lax.scan(
            functools.partial(interact, params=params), carts, jax.random.split(of_steps, steps))
        advantage = advantages(rows, net.apply(params, carts.body)[1])
        flat = jax.tree.map(lambda x: x.reshape(envs * steps, *x.shape[2:]), (rows, advantage, advantage + rows.value))

        def epoch(carry, key):
            order = jax.random.permutation(key, envs * steps)
            batches = jax.tree.map(lambda x: x[order].reshape(MINIBATCHES, -1, *x.shape[1:]), flat)
            return jax.lax.scan(minibatch, carry, batches)

        (params, memory), _ = jax.lax.scan(epoch, (params, memory), jax.random.split(of_order, EPOCHS))
        return (params, memory, carts), ((gains * rows.ended).sum(), rows.ended.sum())

    _, tallies = jax.lax.scan(iterate, (params, optimizer.init(params), carts), jax.random.split(key, iterations))
    return tallies


def first_at(means):
    """Of each seed, the part of the training after which a mean of [seeds, iterations] is at the goal; inf if never."""
    hit = means >= GOAL
    return np.where(hit.any(1), (hit.argmax(1) + 1) / hit.shape[1], math.inf).tolist()


def windowed(sums, counts):
    """Mean return of the fewest last iterations with 100 episodes, at each iteration; nan before there are as many."""
    sums, counts = (np.pad(part.astype(float).cumsum(1), ((0, 0), (1, 0))) for part in (sums, counts))
    since = np.stack([np.searchsorted(row, row - WINDOW, side="right") for row in counts]) - 1
    back = since.clip(0)
    with np.errstate(invalid="ignore"):
        means = (sums - np.take_along_axis(sums, back, 1)) / (counts - np.take_along_axis(counts, back, 1))
    return np.where(since < 0, math.nan, means)[:, 1:]


def measure(args, seeds):
    """One line: a training of `seeds` seeds side by side."""
    iterations = max(1, args.frames // (args.envs * args.steps))
    frames = iterations * args.envs * args.steps * seeds
    run = jax.jit(jax.vmap(functools.partial(train, envs=args.envs, steps=args.steps, iterations=iterations)))
    before = time.perf_counter()
    run = run.lower(jax.random.split(jax.random.key(0), seeds)).compile()
    compiled = time.perf_counter() - before
    took, last, single, window = [], 0.0, [], []
    for repeat in range(args.repeats):
        keys = jax.block_until_ready(jax.random.split(jax.random.key(1 + repeat), seeds))
        before = time.perf_counter()
        tallies = jax.block_until_ready(run(keys))
        took.append(time.perf_counter() - before)
        sums, counts = (np.asarray(part) for part in tallies)
        # iterations without an end of an episode do not count
        means = np.divide(sums, counts, out=np.full_like(sums, math.nan), where=counts > 0)
        last = float(np.nanmean(means[:, -max(1, iterations // 20):]))
        single += first_at(means)
        window += first_at(windowed(sums, counts))
    best = min(took)
    # all iterations are the same work; inf where too few seeds came so far
    goals = [best * statistics.median_low(parts) for parts in (single, window)]
    result = {
        "name": f"ppo_cartpole_jax.{args.envs}x{args.steps}.{seeds}_seeds", "device": jax.devices()[0].device_kind,
        "jax": jax.__version__, "frames": frames, "compile_s": compiled, "run_s": best, "frames_per_s": frames / best,
        "frames_per_s_with_compilation": frames / (best + compiled), "last_return": last,
        "to_475_s": goals[0] if goals[0] < math.inf else None,
        "to_475_of_100_s": goals[1] if goals[1] < math.inf else None,
        "reached_475_of_100": sum(part < math.inf for part in window) / len(window),
    }
    print(f"{result['name']:44} {frames / best:15,.0f} frames/s, {frames / (best + compiled):14,.0f} with compilation "
          f"({compiled:.1f} s); {best:.3f} s; {goals[0]:.3f} s to 475, {goals[1]:.3f} s of 100 episodes; "
          f"last returns {last:.1f}", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--frames", type=int, default=500_000, help="frames of one seed (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 256], help="seeds side by side, one run for each")
    parser.add_argument("--repeats", type=int, default=3, help="the best one counts (default: %(default)s)")
    parser.add_argument("--json", help="append one line of JSON per run to this file")
    args = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}", flush=True)
    for seeds in args.seeds:
        result = measure(args, seeds)
        if args.json:
            with open(args.json, "a") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
