//! Gradient of one batch of temporal-difference errors of a recurrent Q net (Hausknecht & Stone 2015): sequences out of the
//! replay ring forward from the states that were stored with them, errors, and back through time.
//!
//! Stored states are as old as the parameters that made them, so the first `burn_in` steps of a sequence only bring its
//! state up to date, and no gradient goes there (Kapturowski et al. 2019). Targets and errors are those of `td_grad`. Both
//! nets, that which learns and the target net, go through the sequence from the same stored state; what the next state is
//! worth, they say one step later. Only where an episode ended, or the sequence does, a net takes one step more, aside.

use super::hyper::{self, update};
use super::lib::mlp::{ROWS, forward, unpack_grad};
use super::lib::nets::{PackedNet, cut};
use super::lib::policy::LANES;
use super::lib::recurrent::{Body, Trace, add_gradient, slopes_below, unpack_body};
use super::lib::sequences::{Rows, Run, Sequences, clear};
use super::lib::simd::sum16;
use super::td_grad::{Backup, TdShape, Work, define_slopes, define_value, define_values, losses, next_value, see};
use super::{Draw, Shape, gpu};
use crate::device::cpu::Isa;
use crate::device::{Cx, Kernel, Limits, Shader};

/// Sizes and choices of [`SequenceTdGrad`].
#[derive(Debug, Clone)]
pub struct SequenceTdShape {
    /// The linear head on the cell's output, the targets and the losses. `batch` counts the rows that are learnt from;
    /// `samples` and `start` count all rows of sequences, in the order of `sample`. Its `tile_rows` mean nothing here.
    pub td: TdShape,
    pub body: Body,
    /// Steps of a sequence: those that only bring its state up to date, those that are learnt from, and those behind them
    /// that n-step returns reach to.
    pub burn_in: usize,
    pub learned: usize,
    pub ahead: usize,
    /// Sequences of a tile: [`tile`](super::sequence_grad::tile) of the device kind.
    pub tile: usize,
}

impl SequenceTdShape {
    /// Steps of a sequence.
    pub fn steps(&self) -> usize {
        self.burn_in + self.learned + self.ahead
    }

    /// Sequences of the batch.
    pub fn count(&self) -> usize {
        self.td.batch / self.learned
    }

    /// Parameters: the head's, then the body's.
    pub fn params(&self) -> usize {
        self.td.net.len() + self.body.len()
    }

    /// Parameters of the target net that the backup asks.
    fn target(&self) -> usize {
        if matches!(self.td.backup, Backup::Target | Backup::Double) { self.params() } else { 0 }
    }

    pub(super) fn obs(&self) -> usize {
        self.body.front.input
    }

    /// Vector steps of the ring.
    fn ring(&self) -> usize {
        self.td.rows / self.td.envs
    }

    /// Steps from row `row` to row `last`, which the ring may have gone round between.
    fn between(&self, row: u32, last: u32) -> usize {
        (last as usize / self.td.envs + self.ring() - row as usize / self.td.envs) % self.ring()
    }
}

impl Shape for SequenceTdShape {
    fn tiles(&self) -> usize {
        self.count().div_ceil(self.tile)
    }

    fn scratch_words(&self) -> usize {
        let (td, body, count) = (&self.td, &self.body, self.tile.min(self.count()));
        Run::words(body, self.steps(), count)
            + PackedNet::words(&td.net)
            + td.net.packed_grad_len()
            + ROWS * td.net.out_pad()
            + body.front.slopes_len()
            + ROWS * self.obs()
            + 3 * self.steps() * count * td.net.out_pad()
            + 2 * ROWS * (body.gates_pad() + body.state_pad())
    }

    fn flops(&self) -> f64 {
        let madds = self.td.net.madds() + self.body.madds();
        let ahead = (1 + usize::from(self.target() > 0)) * self.steps();
        2.0 * (self.count() * (ahead + 3 * self.learned) * madds) as f64
    }

    fn kernels(&self) -> Vec<Kernel> {
        gpu::sequence_td_grad::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        gpu::sequence_td_grad::scratch(self)
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::sequence_td_grad::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::sequence_td_grad::scratch(self)
    }

    fn cases() -> Vec<SequenceTdShape> {
        super::lib::cases::sequence_td_shapes()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        let (td, count) = (&self.td, self.count());
        // sequence after sequence in the ring, round its seam
        let row = |at: usize| {
            let (t, i) = (at.saturating_sub(td.start) / count, at.saturating_sub(td.start) % count);
            (i * 7 + t * td.envs) % td.rows
        };
        match arg {
            "index" => words.iter_mut().enumerate().for_each(|(at, word)| *word = row(at) as u32),
            "last" => words.iter_mut().enumerate().for_each(|(at, word)| {
                *word = ((row(at) + draw.below(self.ahead as u32 + 1) as usize * td.envs) % td.rows) as u32;
            }),
            // an episode in seven ends: inside a sequence, and one step after another
            "ended" => words.iter_mut().for_each(|word| *word = [0, 0, 0, 0, 0, 0, 1, 2][draw.below(8) as usize]),
            _ => return td.sample(arg, words, draw),
        }
        true
    }
}

crate::op! {
    /// Partial gradients and losses of one batch of sequences, and the size of the error of every row that is learnt from,
    /// step after step. The loss is the mean over these rows of `weight * distance(Q(s, a) - y)`, `y = returns + discount *
    /// V(s')`; the target holds no gradient. `first_state` is the state before the step of every slot of the ring.
    SequenceTdGrad(d: SequenceTdShape) = "sequence_td_grad", within 2e-5, run = run {
        read index: u32[d.td.samples];
        read last: u32[d.td.samples];
        read returns: f32[d.td.samples] in -2.0..2.0;
        read discount: f32[d.td.samples];
        read weight: f32[d.td.samples];
        read obs: f32[d.td.rows, d.obs()] in -2.0..2.0;
        read next_obs: f32[d.td.rows, d.obs()] in -2.0..2.0;
        read ended: u32[d.td.rows];
        read first_state: f32[d.td.rows, d.body.state_len()] in -1.0..1.0;
        read action: f32[d.td.rows];
        read normalizer: f32[2, d.obs()] in 0.5..1.5;
        read hyper: f32[hyper::len(1)];
        read params: f32[d.params()] in -0.7..0.7;
        read target: f32[d.target()] in -0.7..0.7;
        write partial: f32[d.tiles(), d.params()];
        write partial_loss: f32[d.tiles(), update::LOSSES];
        write error: f32[d.td.batch];
    }
}

/// Definition: a net's traces and outputs at every step of a sequence.
type Unrolled = Vec<(Trace, Vec<f64>)>;

/// Definition: the place among the samples of step `t` of sequence `i`.
fn place(d: &SequenceTdShape, t: usize, i: usize) -> usize {
    d.td.start + t * d.count() + i
}

/// Definition: one step of a net, from a state.
fn step(d: &SequenceTdShape, a: &Args<'_>, params: &[f64], obs: &[f32], state: &[f64]) -> (Trace, Vec<f64>) {
    let trace = d.body.define(&params[d.td.net.len()..], &see(&d.td, obs, a.normalizer, a.hyper), state);
    let mut passed = d.td.net.define_forward(params, &trace.state[..d.body.hidden]).0;
    (trace, passed.pop().expect("a net has an output layer"))
}

/// Definition: sequence `i` forward, by `burnt` up to where it is learnt from, then by `params`.
fn unroll(d: &SequenceTdShape, a: &Args<'_>, burnt: &[f64], params: &[f64], i: usize) -> Unrolled {
    let (o, len) = (d.obs(), d.body.state_len());
    let first = a.index[place(d, 0, i)] as usize;
    let mut state: Vec<f64> = a.first_state[first * len..][..len].iter().map(|&x| x.into()).collect();
    let one = |t: usize| {
        let row = a.index[place(d, t, i)] as usize;
        let seen = step(d, a, if t < d.burn_in { burnt } else { params }, &a.obs[row * o..][..o], &state);
        state = if a.ended[row] == 0 { seen.0.state.clone() } else { vec![0.0; len] };
        seen
    };
    (0..d.steps()).map(one).collect()
}

/// Definition: the action values of what follows step `t` of sequence `i`.
fn behind(d: &SequenceTdShape, a: &Args<'_>, params: &[f64], run: &Unrolled, t: usize, i: usize) -> Vec<f64> {
    let (o, row) = (d.obs(), a.index[place(d, t, i)] as usize);
    if a.ended[row] == 0 && t + 1 < d.steps() {
        return define_values(&d.td, &run[t + 1].1);
    }
    define_values(&d.td, &step(d, a, params, &a.next_obs[row * o..][..o], &run[t].0.state).1)
}

/// Definition: the targets of the steps that are learnt from.
fn targets(d: &SequenceTdShape, a: &Args<'_>, i: usize) -> Vec<f64> {
    let exact = |params: &[f32]| -> Vec<f64> { params.iter().map(|&p| p.into()).collect() };
    let (own, target) = (exact(a.params), exact(a.target));
    let of_own = unroll(d, a, &own, &own, i);
    let of_target = if target.is_empty() { Vec::new() } else { unroll(d, a, &target, &target, i) };
    let one = |t: usize| {
        let at = place(d, t, i);
        let last = t + d.between(a.index[at], a.last[at]);
        let by_own = || behind(d, a, &own, &of_own, last, i);
        let value = define_value(
            &d.td,
            by_own,
            || behind(d, a, &target, &of_target, last, i),
            || unreachable!("a sequence is not followed by an action"),
        );
        f64::from(a.returns[at]) + f64::from(a.discount[at]) * value
    };
    (d.burn_in..d.burn_in + d.learned).map(one).collect()
}

/// Definition: the error at step `t` of a sequence, and the action that was taken.
fn error(d: &SequenceTdShape, a: &Args<'_>, run: &Unrolled, y: &[f64], t: usize, i: usize) -> (f64, usize) {
    let action = a.action[a.index[place(d, t, i)] as usize] as usize;
    (define_values(&d.td, &run[t].1)[action] - y[t - d.burn_in], action)
}

/// Definition of what is minimised, as a function of the parameters; targets, and the states where a sequence begins to be
/// learnt from, stay. The gradient test differentiates this numerically.
pub fn objective(d: &SequenceTdShape, a: &Args<'_>, params: &[f64]) -> f64 {
    let own: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
    let of_sequence = |i: usize| {
        let (run, y) = (unroll(d, a, &own, params, i), targets(d, a, i));
        let weight = |t: usize| f64::from(a.weight[place(d, t, i)]);
        let loss = |t: usize| weight(t) * d.td.distance.define(error(d, a, &run, &y, t, i).0).0;
        (d.burn_in..d.burn_in + d.learned).map(loss).sum::<f64>()
    };
    (0..d.count()).map(of_sequence).sum::<f64>() / d.td.batch as f64
}

/// The plain definition: sequences one by one, in f64.
fn define(d: &SequenceTdShape, a: Args<'_>) {
    let (td, body, p) = (&d.td, &d.body, d.params());
    let params: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
    for tile in 0..d.tiles() {
        let mut grad = vec![0.0; p];
        let mut sum = 0.0;
        for i in tile * d.tile..((tile + 1) * d.tile).min(d.count()) {
            let (run, y) = (unroll(d, &a, &params, &params, i), targets(d, &a, i));
            // the slopes at the state that the step before has left
            let mut d_state = vec![0.0; body.state_len()];
            for t in (d.burn_in..d.burn_in + d.learned).rev() {
                let at = place(d, t, i);
                let (error, chosen) = error(d, &a, &run, &y, t, i);
                let (loss, slope) = td.distance.define(error);
                let weight = f64::from(a.weight[at]);
                a.error[(t - d.burn_in) * d.count() + i] = error.abs() as f32;
                sum += weight * loss;
                let d_out = define_slopes(td, chosen, weight * slope / td.batch as f64);
                let trace = &run[t].0;
                if a.ended[a.index[at] as usize] != 0 {
                    d_state.fill(0.0);
                }
                let row = (vec![trace.state[..body.hidden].to_vec()], Vec::new());
                td.net.define_backward(&params, &row, &d_out, &mut grad);
                for (o, d_out) in d_out.iter().enumerate() {
                    let weight = &params[o * body.hidden..][..body.hidden];
                    d_state.iter_mut().zip(weight).for_each(|(d, w)| *d += d_out * w);
                }
                let at = td.net.len();
                d_state = body.define_backward(&params[at..], trace, &d_state, &mut grad[at..]);
            }
        }
        let partial = &mut a.partial[tile * p..][..p];
        partial.iter_mut().zip(&grad).for_each(|(to, from)| *to = *from as f32);
        let losses = &mut a.partial_loss[tile * update::LOSSES..][..update::LOSSES];
        losses.fill(0.0);
        losses[update::VALUE] = sum as f32;
    }
}

/// One net on the sequences of a tile.
struct Looking<'a> {
    run: Run<'a>,
    head: PackedNet<'a>,
}

/// Room for the steps that a net takes aside, of up to [`ROWS`] rows.
struct Aside<'a> {
    gates: &'a mut [f32],
    recurrent: &'a mut [f32],
    before: &'a mut [f32],
    after: &'a mut [f32],
}

impl Looking<'_> {
    /// All steps forward: the head's outputs at every row of the tile, and at what follows it.
    #[allow(clippy::too_many_arguments)] // what it reads, then what it writes
    fn look(
        &mut self,
        isa: Isa,
        d: &SequenceTdShape,
        q: &Sequences<'_>,
        a: &Tile<'_>,
        aside: &mut Aside<'_>,
        x: &mut [f32],
        out: &mut [f32],
        next: &mut [f32],
    ) {
        let (net, state, pad, len) = (&d.td.net, d.body.state_pad(), d.td.net.out_pad(), d.body.state_len());
        self.run.forward(isa, q, |i| &a.first_state[q.row(0, i) * len..][..len], x);
        for row in (0..q.len()).step_by(ROWS) {
            let rows = ROWS.min(q.len() - row);
            let h = (&self.run.after[row * state..(row + rows) * state], state);
            forward(isa, net, self.head.packed, h, rows, self.head.acts, &mut out[row * pad..]);
        }
        let (mut waiting, mut index, mut rows) = ([0; ROWS], [0; ROWS], 0);
        for row in 0..q.len() {
            let m = q.row(row / q.count, row % q.count);
            if a.ended[m] == 0 && row + q.count < q.len() {
                next[row * pad..][..pad].copy_from_slice(&out[(row + q.count) * pad..][..pad]);
            } else {
                (waiting[rows], index[rows]) = (row, m as u32);
                aside.before[rows * state..][..state].copy_from_slice(&self.run.after[row * state..][..state]);
                rows += 1;
            }
            if rows < ROWS && row + 1 < q.len() {
                continue;
            }
            q.gather(a.next_obs, &index[..rows], x);
            self.run.packed.see(isa, &d.body, (x, d.obs()), rows, aside.gates);
            self.run.packed.step(isa, &d.body, rows, aside.before, aside.gates, aside.recurrent, aside.after);
            forward(isa, net, self.head.packed, (aside.after, state), rows, self.head.acts, self.head.out);
            for (&row, out) in waiting[..rows].iter().zip(self.head.out.chunks_exact(pad)) {
                next[row * pad..][..pad].copy_from_slice(out);
            }
            rows = 0;
        }
    }
}

fn run(d: &SequenceTdShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    let (isa, tile, td, body, p) = (cx.isa, cx.tile, &d.td, &d.body, d.params());
    // SAFETY: every tile has its own rows of the outputs, here and below
    let (partial, partial_loss) = unsafe {
        (
            a.partial.part(tile * p..(tile + 1) * p),
            a.partial_loss.part(tile * update::LOSSES..(tile + 1) * update::LOSSES),
        )
    };
    let (first, pad, state) = (tile * d.tile, td.net.out_pad(), body.state_pad());
    let q = Sequences {
        body,
        steps: d.steps(),
        count: d.tile.min(d.count() - first),
        rows: Rows { index: &a.index[td.start + first..], next: [d.count(), 0] },
        obs: a.obs,
        ended: a.ended,
        normalizer: td.normalize_obs.then_some(a.normalizer),
        clip: (a.hyper[hyper::OBS_CLIP_LOW], a.hyper[hyper::OBS_CLIP_HIGH]),
    };
    let mut scratch = &mut *cx.scratch;
    let mut zeros = |len: usize| {
        let words = cut(&mut scratch, len);
        words.fill(0.0);
        words
    };
    let (x, grad_head, d_out) = (zeros(ROWS * d.obs()), zeros(td.net.packed_grad_len()), zeros(ROWS * pad));
    let [out, next, other] = [(); 3].map(|()| zeros(q.len() * pad));
    let mut aside = Aside {
        gates: zeros(ROWS * body.gates_pad()),
        recurrent: zeros(ROWS * body.gates_pad()),
        before: zeros(ROWS * state),
        after: zeros(ROWS * state),
    };
    if d.target() > 0 {
        // in room that the net itself takes next
        let mut scratch = &mut *scratch;
        let head = PackedNet::ahead(isa, &td.net, a.target, &mut scratch);
        let run = Run::new(isa, body, &a.target[td.net.len()..], q.steps, q.count, &mut scratch);
        Looking { run, head }.look(isa, d, &q, &a, &mut aside, x, out, other);
    }
    let head = PackedNet::new(isa, &td.net, a.params, &mut scratch);
    let run = Run::new(isa, body, &a.params[td.net.len()..], q.steps, q.count, &mut scratch);
    let mut own = Looking { run, head };
    own.look(isa, d, &q, &a, &mut aside, x, out, next);

    let (mut w, learned) = (Work::new(), d.burn_in..d.burn_in + d.learned);
    let all = q.of_steps(learned.clone());
    for row in all.clone().step_by(ROWS) {
        let rows = ROWS.min(all.end - row);
        for block in (0..rows).step_by(LANES) {
            let lanes = LANES.min(rows - block);
            w.weight = [0.0; LANES];
            for i in 0..lanes {
                let at = row + block + i;
                let sample = td.start + at / q.count * d.count() + first + at % q.count;
                (w.returns[i], w.discount[i], w.weight[i]) = (a.returns[sample], a.discount[sample], a.weight[sample]);
                w.action[i] = a.action[a.index[sample] as usize];
                let last = at + d.between(a.index[sample], a.last[sample]) * q.count;
                for j in 0..td.net.output {
                    (w.own[j][i], w.other[j][i]) = (next[last * pad + j], other[last * pad + j]);
                }
            }
            next_value(isa, td, &mut w);
            for i in 0..lanes {
                (0..td.net.output).for_each(|j| w.own[j][i] = out[(row + block + i) * pad + j]);
            }
            losses(isa, td, &mut w);
            for i in 0..lanes {
                (0..td.net.output).for_each(|j| d_out[(block + i) * pad + j] = w.d_out[j][i]);
                let at = row + block + i - all.start;
                let at = at / q.count * d.count() + first + at % q.count;
                // SAFETY: as above
                let error = unsafe { a.error.part(at..at + 1) };
                error[0] = w.error[i];
            }
        }
        let h = &mut own.run.after[row * state..(row + rows) * state];
        add_gradient(isa, [td.net.input, td.net.output], (h, state), rows, d_out, grad_head);
        clear(body, h);
        slopes_below(isa, &td.net, own.head.packed, rows, d_out, (h, state));
    }
    own.run.backward(isa, &q, learned, x, scratch);
    unpack_grad(&td.net, grad_head, partial);
    unpack_body(body, own.run.grad, &mut partial[td.net.len()..]);
    partial_loss.fill(0.0);
    partial_loss[update::VALUE] = sum16(&w.loss);
}
