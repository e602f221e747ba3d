#!/usr/bin/env python3
"""PPO on CartPole in PyTorch for a GPU: environment, rollout and update compiled, each iteration one CUDA graph.

    python3 -m pip install torch
    python3 tools/peers/ppo_torch.py                              # 4 environments x 128 steps, 1 and 256 seeds at once
    python3 tools/peers/ppo_torch.py --envs 2048 --steps 32 --frames 20000000 --seeds 1
    python3 tools/peers/ppo_torch.py --device cpu --seeds 1 2 --repeats 1
    python3 tools/peers/ppo_torch.py --device cpu --check         # the parts against plain versions of them

Own code from the published descriptions: Schulman et al. 2017 (PPO), Barto, Sutton and Anderson 1983 (CartPole), and
the settings of ppo_jax.py and benches/ppo_cartpole_purejaxrl.json: separate 2x64 tanh nets, orthogonal starts, 4 epochs
x 4 minibatches, one Adam at 2.5e-4 falling to 0, gradients clipped together at 0.5, value clipping, advantages
standardized per minibatch. Nets of many seeds are one batch of matrices, so that all seeds train in one process. Matrix
products may use TF32, as JAX's do by default. On the CPU there is no graph, and nothing is compiled unless told to.

Rates are trained frames of all seeds per second of wall clock, without and with compilation and capture. Time to 475 is
from the start of the training, without both, the median seed's: to the end of the first iteration whose ended episodes
return 475 in the mean (at 4 x 128 that is about one long episode), and to the first at which the last 100 episodes do,
to whole iterations. The same as ppo_jax.py prints.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable

import torch
import torch._inductor.config

GAMMA, LAMBDA, CLIP, ENTROPY, VALUE, NORM = 0.99, 0.95, 0.2, 0.01, 0.5, 0.5
RATE, EPOCHS, MINIBATCHES = 2.5e-4, 4, 4
LIMIT, GOAL, WINDOW = 500, 475, 100

# -- CartPole ---------------------------------------------------------------------------------------------------------


def start(noise: torch.Tensor) -> torch.Tensor:
    """Bodies of fresh episodes from numbers in 0 .. 1."""
    return noise * 0.1 - 0.05


def step(body, age, action, fresh):
    """One step with auto-reset to `fresh`: (next body, next age, ended, return of the episode if it ended).

    Every step is worth 1, so that an episode's return is its age.
    """
    x, v, angle, spin = body.unbind(-1)
    push = action * 20.0 - 10.0
    sin, cos = angle.sin(), angle.cos()
    pull = (push + 0.05 * spin * spin * sin) / 1.1
    bend = (9.8 * sin - cos * pull) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1))
    speed = pull - 0.05 * bend * cos / 1.1
    body = torch.stack([x + 0.02 * v, v + 0.02 * speed, angle + 0.02 * spin, spin + 0.02 * bend], -1)
    gain = age + 1.0
    ended = (body[..., 0].abs() > 2.4) | (body[..., 2].abs() > 12 * math.pi / 180) | (gain >= LIMIT)
    return torch.where(ended[..., None], fresh, body), torch.where(ended, 0.0, gain), ended.float(), gain


# -- nets: [2 x seeds, LENGTH], the actor and the critic of each seed -------------------------------------------------

# both heads have four columns, so that every matrix starts at a multiple of 16 bytes: the actor uses two, the critic
# one, and no gradient reaches the rest
WIDTH, HEAD = 64, 4
SHAPES = [(4, WIDTH), (1, WIDTH), (WIDTH, WIDTH), (1, WIDTH), (WIDTH, HEAD), (1, HEAD)]
SIZES = [rows * columns for rows, columns in SHAPES]
LENGTH = sum(SIZES)


def orthogonal(nets: int, rows: int, columns: int, scale: float) -> torch.Tensor:
    """Random matrices with orthogonal rows or columns, whichever are fewer."""
    q, r = torch.linalg.qr(torch.randn(nets, max(rows, columns), min(rows, columns)))
    # without the signs of r, q is not uniform
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    return scale * (q if rows >= columns else q.mT)


def first_nets(seeds: int) -> torch.Tensor:
    """First parameters, with biases of 0. On the CPU: there the many small factorizations are faster."""
    nets = 2 * seeds
    head = torch.zeros(nets, WIDTH, HEAD)
    head[0::2, :, :2] = orthogonal(seeds, WIDTH, 2, 0.01)
    head[1::2, :, :1] = orthogonal(seeds, WIDTH, 1, 1.0)
    weights = [orthogonal(nets, 4, WIDTH, 2 ** 0.5), orthogonal(nets, WIDTH, WIDTH, 2 ** 0.5), head]
    pairs = [(weight.flatten(1), torch.zeros(nets, weight.shape[2])) for weight in weights]
    return torch.cat([part for pair in pairs for part in pair], 1)


def forward(nets, obs):
    """Logits [seeds, batch, 2] and values [seeds, batch] of observations [seeds, batch, 4]."""
    w1, b1, w2, b2, w3, b3 = (part.unflatten(1, shape) for part, shape in zip(nets.split(SIZES, 1), SHAPES))
    seeds, batch, _ = obs.shape
    y = obs[:, None].expand(seeds, 2, batch, 4).reshape(2 * seeds, batch, 4)
    y = (y @ w1 + b1).tanh()
    y = (y @ w2 + b2).tanh()
    y = (y @ w3 + b3).unflatten(0, (seeds, 2))
    return y[:, 0, :, :2], y[:, 1, :, 0]


def log_prob_of(logits, action):
    """Log-probability of the actions (0.0 or 1.0), and both."""
    both = logits.log_softmax(-1)
    return torch.where(action > 0.5, both[..., 1], both[..., 0]), both


# -- an iteration in three functions, each compiled by itself; random numbers come from outside -----------------------

def interact(nets, body, age, noise, fresh):
    """One step of every environment: next body and age, and what the update needs to know."""
    logits, value = forward(nets, body)
    action = (noise < (logits[..., 1] - logits[..., 0]).sigmoid()).float()
    log_prob, _ = log_prob_of(logits, action)
    body, age, ended, gain = step(body, age, action, start(fresh))
    return body, age, action, log_prob, value, ended, gain


def judge(nets, body, value, ended, gain):
    """Advantages and targets of [seeds, steps, envs]; each seed's sum of returns and number of episodes that ended."""
    _, last = forward(nets, body)
    alive = 1.0 - ended
    later = torch.cat([value[:, 1:], last[:, None]], 1)
    # generalized advantage estimation is a linear recurrence backwards; doubling its stride takes log2(steps) rounds.
    # After a round each sum holds `stride` errors, or all to the end
    total, decay, stride = 1.0 + GAMMA * later * alive - value, GAMMA * LAMBDA * alive, 1
    while stride < value.shape[1]:
        total = torch.cat([total[:, :-stride] + decay[:, :-stride] * total[:, stride:], total[:, -stride:]], 1)
        decay = torch.cat([decay[:, :-stride] * decay[:, stride:], decay[:, -stride:]], 1)
        stride *= 2
    return total, total + value, torch.stack([(gain * ended).sum((1, 2)), ended.sum((1, 2))])


def loss(nets, obs, action, old_log_prob, old_value, advantage, target):
    """PPO's clipped loss of one minibatch of each seed, summed over the seeds: their gradients do not mix."""
    logits, value = forward(nets, obs)
    log_prob, both = log_prob_of(logits, action)
    ratio = (log_prob - old_log_prob).exp()
    deviation, mean = torch.std_mean(advantage, 1, correction=0, keepdim=True)
    advantage = (advantage - mean) / (deviation + 1e-8)
    policy = -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean(1)
    near = old_value + (value - old_value).clamp(-CLIP, CLIP)
    error = 0.5 * torch.maximum((value - target) ** 2, (near - target) ** 2).mean(1)
    entropy = -(both.exp() * both).sum(-1).mean(1)
    return (policy + VALUE * error - ENTROPY * entropy).sum()


def update(nets, first, second, count, updates, picked, obs, *columns):
    """One step of Adam, in place, on the `picked` rows [seeds, minibatch]. A seed's two nets are clipped together."""
    seeds = len(picked)
    batch = [obs.gather(1, picked[..., None].expand(-1, -1, 4))] + [column.gather(1, picked) for column in columns]
    slope = torch.func.grad(loss)(nets, *batch).view(seeds, -1)
    norm = slope.square().sum(1, keepdim=True).sqrt()
    slope = (slope * (NORM / norm).clamp(max=1.0)).view_as(nets)
    rate = RATE * (1.0 - count / updates)
    count.add_(1.0)
    first.lerp_(slope, 0.1)
    second.lerp_(slope * slope, 0.001)
    mean, spread = first / (1.0 - 0.9 ** count), second / (1.0 - 0.999 ** count)
    nets.sub_(rate * mean / (spread.sqrt() + 1e-5))


class Training:
    """Trainings of many seeds side by side: tensors at fixed addresses, as a CUDA graph wants them."""

    def __init__(self, args, seeds: int, iterations: int):
        self.seeds, self.envs, self.steps, self.device = seeds, args.envs, args.steps, args.device
        zeros = lambda *shape: torch.zeros(shape, device=args.device)
        self.nets, self.first, self.second = (zeros(2 * seeds, LENGTH) for _ in range(3))
        self.body, self.age, self.tally = zeros(seeds, args.envs, 4), zeros(seeds, args.envs), zeros(2, seeds)
        self.tallies = zeros(iterations, 2, seeds)
        # updates so far, a number on the device: a Python number would be frozen into the graph
        self.count, self.updates = zeros(1), iterations * EPOCHS * MINIBATCHES
        self.interact, self.judge, self.update = interact, judge, update
        if args.compile != "none":
            # in modes without CUDA graphs of their own, which would not nest in ours
            self.interact, self.judge, self.update = (
                torch.compile(part, fullgraph=True, dynamic=False, mode=args.compile)
                for part in (interact, judge, update))

    def reset(self, seed: int):
        """The start of a training."""
        torch.manual_seed(seed)
        self.nets.copy_(first_nets(self.seeds))
        self.body.copy_(start(torch.rand_like(self.body)))
        for zero in (self.first, self.second, self.count, self.age):
            zero.zero_()

    def iterate(self):
        """One rollout and the update of it; nothing here waits for the device."""
        noise = torch.rand(self.steps, self.seeds, self.envs, device=self.device)
        fresh = torch.rand(self.steps, self.seeds, self.envs, 4, device=self.device)
        body, age, rows = self.body, self.age, []
        for t in range(self.steps):
            following, age, *row = self.interact(self.nets, body, age, noise[t], fresh[t])
            rows.append((body, *row))
            body = following
        obs, action, log_prob, value, ended, gain = (torch.stack(column, 1) for column in zip(*rows))
        advantage, target, tally = self.judge(self.nets, body, value, ended, gain)
        columns = [column.flatten(1, 2) for column in (obs, action, log_prob, value, advantage, target)]
        order = torch.rand(EPOCHS, self.seeds, self.envs * self.steps, device=self.device).argsort(-1)
        for epoch in order:
            for picked in epoch.chunk(MINIBATCHES, 1):
                self.update(self.nets, self.first, self.second, self.count, self.updates, picked, *columns)
        self.body.copy_(body)
        self.age.copy_(age)
        self.tally.copy_(tally)

    def captured(self) -> Callable[[], None]:
        """`iterate`, ready to run: compiled, and on a GPU as the replay of a graph."""
        self.reset(0)
        if self.device != "cuda":
            self.iterate()
            return self.iterate
        # compilation, libraries' handles and workspaces have to be done with before the capture, on its stream
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.iterate()
        torch.cuda.current_stream().wait_stream(stream)
        # the default generator is registered with the graph: every replay draws new numbers, from the seed set last
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self.iterate()
        graph.replay()
        return graph.replay

    def run(self, iterate: Callable[[], None], seed: int):
        """A whole training; sums of returns and numbers of episodes that ended, each [iterations, seeds]."""
        self.reset(seed)
        for row in self.tallies:
            iterate()
            row.copy_(self.tally)
        return self.tallies.cpu().unbind(1)


def synchronize(device: str):
    """Waits for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    """Name of the GPU, or `cpu`."""
    return torch.cuda.get_device_name() if device == "cuda" else device


def first_at(means: torch.Tensor) -> list[float]:
    """Of each seed, the part of the training after which a mean of [iterations, seeds] is at the goal; inf if never."""
    hit = means >= GOAL
    return torch.where(hit.any(0), (hit.int().argmax(0) + 1) / len(hit), math.inf).tolist()


def windowed(sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Mean return of the fewest last iterations with 100 episodes, at each iteration; nan before there are as many."""
    sums, counts = (torch.nn.functional.pad(part.double().cumsum(0).T, (1, 0)) for part in (sums, counts))
    since = torch.searchsorted(counts, counts - WINDOW, right=True) - 1
    back = since.clamp(min=0)
    means = (sums - sums.gather(1, back)) / (counts - counts.gather(1, back))
    return torch.where(since < 0, math.nan, means)[:, 1:].T


def measure(args, seeds):
    """One line: a training of `seeds` seeds side by side."""
    iterations = max(1, args.frames // (args.envs * args.steps))
    frames = iterations * args.envs * args.steps * seeds
    torch.compiler.reset()
    before = time.perf_counter()
    training = Training(args, seeds, iterations)
    iterate = training.captured()
    synchronize(args.device)
    compiled = time.perf_counter() - before
    took, last, single, window = [], 0.0, [], []
    for repeat in range(args.repeats):
        synchronize(args.device)
        before = time.perf_counter()
        sums, counts = training.run(iterate, 1 + repeat)
        took.append(time.perf_counter() - before)
        # iterations without an end of an episode do not count
        last = (sums / counts)[-max(1, iterations // 20):].nanmean().item()
        single += first_at(sums / counts)
        window += first_at(windowed(sums, counts))
    best = min(took)
    # all iterations are the same work; inf where too few seeds came so far
    goals = [best * statistics.median_low(parts) for parts in (single, window)]
    result = {
        "name": f"ppo_cartpole_torch.{args.envs}x{args.steps}.{seeds}_seeds", "device": device_name(args.device),
        "torch": torch.__version__, "compile": args.compile, "frames": frames, "compile_s": compiled, "run_s": best,
        "frames_per_s": frames / best, "frames_per_s_with_compilation": frames / (best + compiled),
        "last_return": last, "to_475_s": goals[0] if goals[0] < math.inf else None,
        "to_475_of_100_s": goals[1] if goals[1] < math.inf else None,
        "reached_475_of_100": sum(part < math.inf for part in window) / len(window),
    }
    print(f"{result['name']:44} {frames / best:15,.0f} frames/s, {frames / (best + compiled):14,.0f} with compilation "
          f"({compiled:.1f} s); {best:.3f} s; {goals[0]:.3f} s to 475, {goals[1]:.3f} s of 100 episodes; "
          f"last returns {last:.1f}", flush=True)
    return result


# -- check: the parts against plain versions of them -------------------------------------------------------------------

def check(device: str):
    """Compares the environment with scalars, advantages with a loop, and updates with torch's own clipping and Adam."""
    torch.manual_seed(0)
    body = (torch.rand(3, 500, 4) * 2 - 1) * torch.tensor([3.0, 3.0, 0.3, 3.0])
    age = torch.randint(0, LIMIT, (3, 500)).float()
    age[:, ::5] = LIMIT - 1
    action, fresh = torch.randint(0, 2, (3, 500)).float(), start(torch.rand(3, 500, 4))
    got = [part.cpu() for part in step(*(part.to(device) for part in (body, age, action, fresh)))]
    endings = 0
    for i in range(3):
        for j in range(500):
            # the equations of Florian 2007, without friction, at masses of 1 and 0.1, half a pole of 0.5
            x, v, angle, spin = body[i, j].tolist()
            force = 10.0 if action[i, j] == 1 else -10.0
            mass, pole, half, gravity, tau = 1.1, 0.1, 0.5, 9.8, 0.02
            inner = (force + pole * half * spin ** 2 * math.sin(angle)) / mass
            bend = (gravity * math.sin(angle) - math.cos(angle) * inner) / (
                half * (4 / 3 - pole * math.cos(angle) ** 2 / mass))
            speed = inner - pole * half * bend * math.cos(angle) / mass
            want = [x + tau * v, v + tau * speed, angle + tau * spin, spin + tau * bend]
            ended = abs(want[0]) > 2.4 or abs(math.degrees(want[2])) > 12 or age[i, j] + 1 >= 500
            endings += ended
            assert got[2][i, j] == ended and got[3][i, j] == age[i, j] + 1
            assert got[1][i, j] == (0 if ended else age[i, j] + 1)
            for a, b in zip(got[0][i, j].tolist(), fresh[i, j].tolist() if ended else want):
                assert abs(a - b) < 1e-5, (a, b)
    assert 300 < endings < 1400, endings

    # advantages: steps that are no power of two
    nets = first_nets(3).to(device)
    value, ended, last = torch.randn(3, 37, 2), (torch.rand(3, 37, 2) < 0.1).float(), torch.randn(3, 2, 4)
    total, target, _ = (part.cpu() for part in judge(nets, *(part.to(device) for part in (last, value, ended, ended))))
    later, following = torch.zeros(3, 2), forward(nets, last.to(device))[1].cpu()
    for t in reversed(range(37)):
        alive = 1 - ended[:, t]
        later = 1 + GAMMA * following * alive - value[:, t] + GAMMA * LAMBDA * alive * later
        following = value[:, t]
        assert torch.allclose(total[:, t], later, atol=1e-4)
        assert torch.allclose(target[:, t], later + following, atol=1e-4)

    # updates: three seeds at once are what torch's own layers, clipping and Adam make of each
    rows = [torch.randn(3, 64, 4), torch.randint(0, 2, (3, 64)).float(), -torch.rand(3, 64)]
    rows += [torch.randn(3, 64) for _ in range(3)]
    # targets far off and at hand: one seed's gradients are clipped hard, another's not at all
    rows[5][1] *= 100
    logits, value = (part.cpu() for part in forward(nets, rows[0].to(device)))
    rows[2][2], rows[4][2], rows[5][2] = log_prob_of(logits, rows[1])[0][2], 1, value[2]
    norms = []
    picked = torch.rand(3, 64).argsort(-1)[:, :16]
    before = nets.clone()
    first, second, count = torch.zeros_like(nets), torch.zeros_like(nets), torch.zeros(1, device=device)
    for _ in range(3):
        update(nets, first, second, count, 4, *(part.to(device) for part in (picked, *rows)))
    for seed in range(3):
        own = torch.nn.Parameter(before[2 * seed:2 * seed + 2].clone())
        adam = torch.optim.Adam([own], lr=RATE, eps=1e-5)
        batch = [row[seed:seed + 1, picked[seed]].to(device) for row in rows]
        for done in range(3):
            adam.param_groups[0]["lr"] = RATE * (1 - done / 4)
            adam.zero_grad()
            loss(own, *batch).backward()
            norms.append(torch.nn.utils.clip_grad_norm_([own], NORM).item())
            adam.step()
        pair = slice(2 * seed, 2 * seed + 2)
        assert torch.allclose(own, nets[pair], atol=1e-5)
        assert torch.allclose(adam.state[own]["exp_avg"], first[pair], atol=1e-6)

    assert max(norms[3:6]) > 10 and max(norms[6:]) < 0.4, norms

    # first nets: rows of the hidden layers at right angles
    for layer in (0, 2):
        weight = before.split(SIZES, 1)[layer].unflatten(1, SHAPES[layer])
        product = weight @ weight.mT
        assert torch.allclose(product, 2 * torch.eye(len(product[0]), device=device).expand_as(product), atol=1e-4)
    # means over whole iterations that have 100 episodes: none yet, 2 of 60, 2 of 60, the last alone
    means = windowed(torch.tensor([[60.0, 120.0, 180.0, 1000.0]]).T, torch.tensor([[60.0, 60.0, 60.0, 200.0]]).T)[:, 0]
    assert means[0].isnan() and means[1:].tolist() == [1.5, 2.5, 5.0], means
    print(f"step ({endings} of 1500 end an episode), advantages, updates, first nets and means are as they should be")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--frames", type=int, default=500_000, help="frames of one seed (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 256], help="seeds side by side, one run for each")
    parser.add_argument("--repeats", type=int, default=3, help="the best one counts (default: %(default)s)")
    parser.add_argument("--json", help="append one line of JSON per run to this file")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", choices=["none", "default", "max-autotune-no-cudagraphs"],
                        help="torch.compile's mode (default: default on cuda, none on cpu)")
    parser.add_argument("--check", action="store_true", help="compare the parts with plain versions instead")
    args = parser.parse_args()
    args.compile = args.compile or ("default" if args.device == "cuda" else "none")
    if args.envs * args.steps % MINIBATCHES:
        parser.error(f"envs x steps has to be a multiple of {MINIBATCHES}")
    if args.check:
        return check(args.device)
    torch.set_float32_matmul_precision("high")
    # what an earlier run compiled would hide the time of compilation
    torch._inductor.config.force_disable_caches = True
    print(f"torch {torch.__version__} on {device_name(args.device)}", flush=True)
    for seeds in args.seeds:
        result = measure(args, seeds)
        if args.json:
            with open(args.json, "a") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
