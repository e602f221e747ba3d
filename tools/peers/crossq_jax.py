#!/usr/bin/env python3
"""CrossQ on Pendulum-v1 in JAX: an independent version with automatic gradients, to hold this program's learning against.

    pip install jax
    python3 tools/peers/crossq_jax.py --frames 40000 --beta1 0.9

The numbers are those of specs/crossq/crossq_pendulum.json (SLM Lab's); `--beta1 0.5` is the paper's. Critics have Batch
Renormalisation (Ioffe 2017) in one batch of states and successors (Bhatt et al. 2024), the actor is judged by them in
evaluation mode. `--fixed-alpha 0.2` does not learn the entropy's weight. `--phantoms` trains on what Gymnasium's next-step
auto-reset gives, as SLM Lab does: a step after each episode's last one, from the last state to the next episode's first, at
a reward of 0. One thread; a line every 2,000 frames.
"""

import argparse
import os
import time

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp
import numpy as np

ENVS, BATCH, RING, HIDDEN = 4, 256, 100_000, 256
GAMMA, RATE, DELAY, START = 0.99, 3e-4, 3, 256
EPS, MOMENTUM, LOG_ALPHA, TARGET_ENTROPY = 1e-3, 0.01, (-5.0, 0.5), -1.0
TIME_LIMIT = 200


def linear(rng, inputs, outputs):
    bound = inputs**-0.5
    return [jnp.asarray(rng.uniform(-bound, bound, size), jnp.float32) for size in [(inputs, outputs), outputs]]


def init(rng, log_alpha):
    hidden = lambda inputs: linear(rng, inputs, HIDDEN) + [jnp.ones(HIDDEN), jnp.zeros(HIDDEN)]
    critic = lambda: [hidden(4), hidden(HIDDEN), linear(rng, HIDDEN, 1)]
    return {
        "actor": [linear(rng, 3, HIDDEN), linear(rng, HIDDEN, HIDDEN), linear(rng, HIDDEN, 2)],
        "critics": [critic(), critic()],
        "log_alpha": jnp.asarray(log_alpha, jnp.float32),
    }


def act(actor, obs, key):
    """Squashed actions [B, 1] and their log-probabilities [B]."""
    x = obs
    for weight, bias in actor[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    mean, log_std = jnp.split(x @ actor[-1][0] + actor[-1][1], 2, axis=-1)
    log_std, noise = jnp.clip(log_std, -5, 2), jax.random.normal(key, mean.shape)
    raw = mean + jnp.exp(log_std) * noise
    log_prob = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    log_prob -= 2 * (np.log(2) - raw - jax.nn.softplus(-2 * raw))
    return jnp.tanh(raw), log_prob.sum(-1)


def value(critic, norm, x, bounds=None):
    """Values [B] and moved running moments; `bounds` (r_max, d_max) in training mode, None in evaluation mode."""
    moved = []
    for (weight, bias, scale, shift), (mean, var) in zip(critic[:-1], norm):
        x = x @ weight + bias
        std = jnp.sqrt(var + EPS)
        if bounds is None:
            x = (x - mean) / std
        else:
            own_mean, own_var = x.mean(0), x.var(0)
            own_std = jnp.sqrt(own_var + EPS)
            r = jnp.clip(own_std / std, 1 / bounds[0], bounds[0])
            d = jnp.clip((own_mean - mean) / std, -bounds[1], bounds[1])
            x = (x - own_mean) / own_std * jax.lax.stop_gradient(r) + jax.lax.stop_gradient(d)
            moved.append((mean + MOMENTUM * (own_mean - mean), var + MOMENTUM * (own_var - var)))
        x = jax.nn.relu(scale * x + shift)
    return (x @ critic[-1][0] + critic[-1][1])[:, 0], moved


def adam(beta1, params, grads, slots, step):
    first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, slots[0], grads)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, slots[1], grads)
    move = lambda p, m, v: p - RATE * (m / (1 - beta1**step)) / (jnp.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return jax.tree.map(move, params, first, second), (first, second)


def updates(beta1, warmup, learned):
    @jax.jit
    def critics(agent, norms, slots, step, batch, key):
        obs, action, reward, next_obs = batch
        next_action, log_prob = act(agent["actor"], next_obs, key)
        both = [jnp.concatenate([obs, action], -1), jnp.concatenate([next_obs, next_action], -1)]
        x, done = jnp.concatenate(both), jnp.minimum((step - 1) / warmup, 1.0)
        bounds = (1 + 2 * done, 5 * done)
        after = [value(critic, norm, x, bounds)[0][BATCH:] for critic, norm in zip(agent["critics"], norms)]
        target = reward + GAMMA * (jnp.minimum(*after) - jnp.exp(agent["log_alpha"]) * log_prob)

        def loss(params):
            out = [value(critic, norm, x, bounds) for critic, norm in zip(params, norms)]
            return sum(((values[:BATCH] - target) ** 2).mean() for values, _ in out), [moved for _, moved in out]

        (total, norms), grads = jax.value_and_grad(loss, has_aux=True)(agent["critics"])
        moved, slots = adam(beta1, agent["critics"], grads, slots, step)
        return agent | {"critics": moved}, norms, slots, total

    @jax.jit
    def actor(agent, norms, slots, step, obs, key):
        def loss(params):
            action, log_prob = act(params, obs, key)
            x = jnp.concatenate([obs, action], -1)
            judged = [value(critic, norm, x)[0] for critic, norm in zip(agent["critics"], norms)]
            return (jnp.exp(agent["log_alpha"]) * log_prob - jnp.minimum(*judged)).mean(), log_prob.mean()

        (total, log_prob), grads = jax.value_and_grad(loss, has_aux=True)(agent["actor"])
        rise = -jnp.exp(agent["log_alpha"]) * (log_prob + TARGET_ENTROPY) * learned
        names = ["actor", "log_alpha"]
        moved, slots = adam(beta1, [agent[name] for name in names], [grads, rise], slots, step)
        moved[1] = jnp.clip(moved[1], *LOG_ALPHA)
        return agent | dict(zip(names, moved)), slots, total, -log_prob

    return critics, actor


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=40_000)
    parser.add_argument("--beta1", type=float, default=0.9)
    parser.add_argument("--warmup", type=float, default=5000)
    parser.add_argument("--fixed-alpha", type=float)
    parser.add_argument("--phantoms", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, key = np.random.default_rng(args.seed), jax.random.PRNGKey(args.seed)
    agent = init(rng, 0.0 if args.fixed_alpha is None else np.log(args.fixed_alpha))
    norms = [[(jnp.zeros(HIDDEN), jnp.ones(HIDDEN))] * 2] * 2
    blank = lambda params: (jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))
    critic_slots, actor_slots = blank(agent["critics"]), blank([agent["actor"], agent["log_alpha"]])
    critic_step, actor_step = updates(args.beta1, args.warmup, args.fixed_alpha is None)
    policy = jax.jit(lambda actor, obs, key: act(actor, obs, key)[0])
    first = lambda: np.stack([rng.uniform(-np.pi, np.pi, ENVS), rng.uniform(-1, 1, ENVS)])
    observe = lambda state: np.stack([np.cos(state[0]), np.sin(state[0]), state[1]], -1).astype(np.float32)
    ring = [np.zeros((RING, width), np.float32) for width in (3, 1, 1, 3)]
    (angle, speed), total, returns, rows = first(), np.zeros(ENVS), [], []
    steps = actor_steps = 0
    length = TIME_LIMIT + args.phantoms
    began = time.time()
    for t in range(args.frames // ENVS):
        obs, frame = observe((angle, speed)), (t + 1) * ENVS
        key, draw = jax.random.split(key)
        action = np.asarray(policy(agent["actor"], obs, draw))
        if frame <= START:
            action = rng.uniform(-1, 1, (ENVS, 1)).astype(np.float32)
        torque, off = 2 * action[:, 0], (angle + np.pi) % (2 * np.pi) - np.pi
        reward = -(off**2 + 0.1 * speed**2 + 0.001 * torque**2)
        if t % length == TIME_LIMIT:
            # the phantom step
            (angle, speed), reward = first(), np.zeros(ENVS)
        else:
            speed = np.clip(speed + (15 * np.sin(angle) + 3 * torque) * 0.05, -8, 8)
            angle = angle + speed * 0.05
        at = np.arange(frame - ENVS, frame) % RING
        for column, new in zip(ring, [obs, action, reward[:, None], observe((angle, speed))]):
            column[at] = new
        total += reward
        if (t + 1) % length == 0:
            returns.extend(total)
            total = np.zeros(ENVS)
            if not args.phantoms:
                angle, speed = first()
        for _ in range(ENVS if frame >= START else 0):
            drawn = rng.integers(0, min(frame, RING), BATCH)
            obs, action, reward, next_obs = (column[drawn] for column in ring)
            key, one, two = jax.random.split(key, 3)
            steps += 1
            batch = (obs, action, reward[:, 0], next_obs)
            agent, norms, critic_slots, loss = critic_step(agent, norms, critic_slots, float(steps), batch, one)
            if steps % DELAY == 0:
                actor_steps += 1
                agent, actor_slots, judged, entropy = actor_step(
                    agent, norms, actor_slots, float(actor_steps), obs, two
                )
                rows.append((float(loss), float(judged), float(entropy)))
        if frame % 2000 == 0:
            loss, judged, entropy = np.mean(rows, 0)
            rows, speed_now = [], steps / (time.time() - began)
            print(
                f"frame {frame}: return {np.mean(returns[-100:]):.0f}, value loss {loss:.1f}, policy loss {judged:.1f}, "
                f"entropy {entropy:.2f}, alpha {float(jnp.exp(agent['log_alpha'])):.3f}, {speed_now:.0f} updates/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
