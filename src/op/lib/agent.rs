//! What acts in a rollout: nets without a state, or nets on recurrent bodies, whose states go from step to step.

use super::mlp::{ROWS, forward};
use super::nets::{Nets, Packed, cut};
use super::policy::{LANES, Lanes, OUTPUTS};
use super::recurrent::{Body, PackedBody};
use crate::device::cpu::Isa;
use crate::op::Scatter;

/// An agent in the definition: environment by environment, in f64.
pub trait Define {
    /// The policy's outputs with the free parameters behind them, and the value, of what environment `n` shows before a step.
    fn act(&mut self, n: usize, x: &[f64]) -> (Vec<f64>, f64);
    /// The value of what environment `n` shows; what the agent remembers stays as it is.
    fn value(&self, n: usize, x: &[f64]) -> f64;
    /// The episode of environment `n` has ended.
    fn forget(&mut self, n: usize);
    /// A step of environment `n` begins that is stored as row `row` of a ring, or of the rollout's records.
    fn keep(&mut self, n: usize, row: usize) {
        let _ = (n, row);
    }
}

/// An agent on the environments of a tile.
pub trait Agent {
    /// Looks at `rows` observations before a step, and writes their values where there is room for them.
    fn act(&mut self, isa: Isa, x: &[f32], rows: usize, value: &mut [f32]);
    /// The policy's outputs for 16 environments from `row` on, one lane each, with the free parameters behind them.
    fn policy(&self, row: usize, out: &mut [Lanes; OUTPUTS]);
    /// Values of observations of the environments from `row` on, on which nothing acts: what the agent remembers stays as it
    /// is. Overwrites the outputs of the first rows.
    fn value(&mut self, isa: Isa, x: &[f32], row: usize, value: &mut [f32]);
    /// What has `ended` of 16 environments from `row` on.
    fn forget(&mut self, row: usize, ended: &[u32; LANES]);
    /// A step begins that is stored as `rows` rows from `row` on of a ring, or of the rollout's records.
    #[inline(always)]
    fn keep(&mut self, row: usize, rows: usize) {
        let _ = (row, rows);
    }
}

/// The definition of nets without a state.
pub struct Definition<'a> {
    pub nets: &'a Nets,
    pub params: &'a [f64],
}

impl Define for Definition<'_> {
    fn act(&mut self, _: usize, x: &[f64]) -> (Vec<f64>, f64) {
        self.nets.define(self.params, x)
    }

    fn value(&self, _: usize, x: &[f64]) -> f64 {
        self.nets.define(self.params, x).1
    }

    fn forget(&mut self, _: usize) {}
}

/// Nets without a state.
pub struct FeedForward<'a> {
    nets: &'a Nets,
    params: &'a [f32],
    packed: Packed<'a>,
}

impl<'a> FeedForward<'a> {
    #[inline(always)]
    pub fn new(isa: Isa, nets: &'a Nets, params: &'a [f32], scratch: &mut &'a mut [f32]) -> FeedForward<'a> {
        FeedForward { nets, params, packed: Packed::new(isa, nets, params, scratch) }
    }
}

impl Agent for FeedForward<'_> {
    #[inline(always)]
    fn act(&mut self, isa: Isa, x: &[f32], rows: usize, value: &mut [f32]) {
        act_on(isa, self.nets, &mut self.packed, (x, self.nets.actor.input), rows);
        value_on(isa, self.nets, &mut self.packed, (x, self.nets.actor.input), rows, value);
    }

    #[inline(always)]
    fn policy(&self, row: usize, out: &mut [Lanes; OUTPUTS]) {
        self.packed.policy_lanes(self.nets, self.params, row, out);
    }

    #[inline(always)]
    fn value(&mut self, isa: Isa, x: &[f32], _: usize, value: &mut [f32]) {
        let (x, rows) = ((x, self.nets.actor.input), value.len());
        if self.nets.shared() {
            act_on(isa, self.nets, &mut self.packed, x, rows);
        }
        value_on(isa, self.nets, &mut self.packed, x, rows, value);
    }

    #[inline(always)]
    fn forget(&mut self, _: usize, _: &[u32; LANES]) {}
}

/// The actor's net forward; `x` is rows and the words from row to row.
#[inline(always)]
fn act_on(isa: Isa, nets: &Nets, packed: &mut Packed<'_>, x: (&[f32], usize), rows: usize) {
    let actor = &mut packed.actor;
    forward(isa, &nets.actor, actor.packed, x, rows, actor.acts, actor.out);
}

/// Values of `rows` rows: by the critic's net, or read off a shared net that has just gone forward.
#[inline(always)]
fn value_on(isa: Isa, nets: &Nets, packed: &mut Packed<'_>, x: (&[f32], usize), rows: usize, value: &mut [f32]) {
    if let (Some(mlp), Some(critic)) = (&nets.critic, &mut packed.critic) {
        forward(isa, mlp, critic.packed, x, rows, critic.acts, critic.out);
    }
    for (b, value) in value.chunks_mut(LANES).enumerate() {
        let lanes = packed.value_lanes(nets, b * LANES);
        value.copy_from_slice(&lanes[..value.len()]);
    }
}

/// The definition of nets on bodies.
pub struct RecurrentDefinition<'a> {
    pub nets: &'a Nets,
    pub body: &'a Body,
    pub params: &'a [f64],
    /// States of every environment, `[N, bodies, ..]`.
    pub state: Vec<f64>,
    /// Where steps go to a replay ring: the states before every step there, `[C, N, bodies, ..]`.
    pub ring: Option<&'a mut [f32]>,
}

impl RecurrentDefinition<'_> {
    /// Outputs, value and the next state.
    fn step(&self, n: usize, x: &[f64]) -> (Vec<f64>, f64, Vec<f64>) {
        let before = self.state[n * self.nets.state_len()..].chunks(self.body.state_len());
        let of_body = |(b, before)| self.body.define(&self.params[self.nets.body_at(b)], x, before).state;
        let after: Vec<Vec<f64>> = before.take(self.nets.bodies()).enumerate().map(of_body).collect();
        let h = |state: &Vec<f64>| state[..self.body.hidden].to_vec();
        let (actor, critic) = (h(&after[0]), h(&after[after.len() - 1]));
        let (out, value) = self.nets.define_on(self.params, &actor, &critic);
        (out, value, after.concat())
    }
}

impl Define for RecurrentDefinition<'_> {
    fn act(&mut self, n: usize, x: &[f64]) -> (Vec<f64>, f64) {
        let (out, value, after) = self.step(n, x);
        self.state[n * after.len()..][..after.len()].copy_from_slice(&after);
        (out, value)
    }

    fn value(&self, n: usize, x: &[f64]) -> f64 {
        self.step(n, x).1
    }

    fn forget(&mut self, n: usize) {
        let len = self.nets.state_len();
        self.state[n * len..][..len].fill(0.0);
    }

    fn keep(&mut self, n: usize, row: usize) {
        let len = self.nets.state_len();
        if let Some(ring) = &mut self.ring {
            let state = &self.state[n * len..][..len];
            ring[row * len..][..len].iter_mut().zip(state).for_each(|(to, &from)| *to = from as f32);
        }
    }
}

/// One body in a rollout: its states, rows of [`Body::state_pad`] words.
struct Carried<'a> {
    packed: PackedBody<'a>,
    gates: &'a mut [f32],
    recurrent: &'a mut [f32],
    state: &'a mut [f32],
    next: &'a mut [f32],
}

impl<'a> Carried<'a> {
    fn new(isa: Isa, body: &Body, params: &[f32], scratch: &mut &'a mut [f32]) -> Carried<'a> {
        let packed = PackedBody::new(isa, body, params, scratch);
        let mut words = |len: usize| {
            let words = cut(scratch, ROWS * len);
            words.fill(0.0);
            words
        };
        Carried {
            packed,
            gates: words(body.gates_pad()),
            recurrent: words(body.gates_pad()),
            state: words(body.state_pad()),
            next: words(body.state_pad()),
        }
    }

    /// From the states of the rows from `row` on to `next`, from its beginning.
    fn step(&mut self, isa: Isa, body: &Body, x: &[f32], row: usize, rows: usize) {
        self.packed.see(isa, body, (x, body.front.input), rows, self.gates);
        let before = &self.state[row * body.state_pad()..];
        self.packed.step(isa, body, rows, before, self.gates, self.recurrent, self.next);
    }
}

/// Nets on bodies.
pub struct Recurrent<'a> {
    nets: &'a Nets,
    body: &'a Body,
    params: &'a [f32],
    heads: Packed<'a>,
    actor: Carried<'a>,
    critic: Option<Carried<'a>>,
    /// Where steps go to a replay ring: the states before every step there, `[C, N, bodies, ..]`.
    ring: Option<Scatter<'a, f32>>,
}

impl<'a> Recurrent<'a> {
    /// Scratch words of nets on bodies.
    pub fn scratch_words(nets: &Nets, body: &Body) -> usize {
        let each = body.packed_len() + 2 * ROWS * (body.gates_pad() + body.state_pad());
        nets.packed_len() + nets.bodies() * each
    }

    /// An agent that remembers `state`, `[rows, bodies, ..]`, and leaves what it remembers in `ring`.
    pub fn new(
        isa: Isa,
        nets: &'a Nets,
        body: &'a Body,
        params: &'a [f32],
        state: &[f32],
        ring: Option<Scatter<'a, f32>>,
        scratch: &mut &'a mut [f32],
    ) -> Recurrent<'a> {
        let heads = Packed::new(isa, nets, params, scratch);
        let actor = Carried::new(isa, body, &params[nets.body_at(0)], scratch);
        let critic = (nets.bodies() > 1).then(|| Carried::new(isa, body, &params[nets.body_at(1)], scratch));
        let mut agent = Recurrent { nets, body, params, heads, actor, critic, ring };
        agent.parts(state.len()).for_each(|(at, words)| words.copy_from_slice(&state[at..][..words.len()]));
        agent
    }

    /// Writes what the agent remembers, `[rows, bodies, ..]`.
    pub fn store(&mut self, state: &mut [f32]) {
        self.parts(state.len()).for_each(|(at, words)| state[at..][..words.len()].copy_from_slice(words));
    }

    /// Every vector of a cell's units in the first `len` words of `[rows, bodies, ..]`, with its place there.
    fn parts(&mut self, len: usize) -> impl Iterator<Item = (usize, &mut [f32])> {
        let (row, h, h_pad) = (self.nets.state_len(), self.body.hidden, self.body.h_pad());
        let (rows, each) = (len / row, self.body.state_len() / h);
        let bodies = std::iter::once(&mut self.actor).chain(&mut self.critic).enumerate();
        bodies.flat_map(move |(b, carried)| {
            let parts = carried.state.chunks_exact_mut(h_pad).take(rows * each).enumerate();
            parts.map(move |(i, words)| (i / each * row + (b * each + i % each) * h, &mut words[..h]))
        })
    }
}

impl Agent for Recurrent<'_> {
    fn act(&mut self, isa: Isa, x: &[f32], rows: usize, value: &mut [f32]) {
        let state = self.body.state_pad();
        for carried in std::iter::once(&mut self.actor).chain(&mut self.critic) {
            carried.step(isa, self.body, x, 0, rows);
            std::mem::swap(&mut carried.state, &mut carried.next);
        }
        act_on(isa, self.nets, &mut self.heads, (self.actor.state, state), rows);
        let critic = self.critic.as_ref().unwrap_or(&self.actor);
        value_on(isa, self.nets, &mut self.heads, (critic.state, state), rows, value);
    }

    fn policy(&self, row: usize, out: &mut [Lanes; OUTPUTS]) {
        self.heads.policy_lanes(self.nets, self.params, row, out);
    }

    fn value(&mut self, isa: Isa, x: &[f32], row: usize, value: &mut [f32]) {
        let rows = value.len();
        let judge = self.critic.as_mut().unwrap_or(&mut self.actor);
        judge.step(isa, self.body, x, row, rows);
        let h = (&*judge.next, self.body.state_pad());
        if self.nets.shared() {
            act_on(isa, self.nets, &mut self.heads, h, rows);
        }
        value_on(isa, self.nets, &mut self.heads, h, rows, value);
    }

    fn forget(&mut self, row: usize, ended: &[u32; LANES]) {
        let state = self.body.state_pad();
        for carried in std::iter::once(&mut self.actor).chain(&mut self.critic) {
            for (state, ended) in carried.state[row * state..].chunks_exact_mut(state).zip(ended) {
                if *ended != 0 {
                    state.fill(0.0);
                }
            }
        }
    }

    fn keep(&mut self, row: usize, rows: usize) {
        let len = self.nets.state_len();
        if let Some(ring) = self.ring {
            // SAFETY: rows of the tile's own environments
            self.store(unsafe { ring.part(row * len..(row + rows) * len) });
        }
    }
}
