//! Gradient of one minibatch of a recurrent agent: whole sequences forward from the states at the rollout's beginning,
//! losses, and back through time.
//!
//! The losses are those of `minibatch_grad`. A state becomes 0 where an episode ended, forward and on the way back, so
//! nothing goes from one episode to another.

use super::hyper::{self, update};
use super::lib::losses::{Numbers, Records, Row, Work, define_loss, define_slopes};
use super::lib::mlp::{ROWS, forward, unpack_grad};
use super::lib::nets::{Nets, Packed, cut, normalize};
use super::lib::policy::LANES;
use super::lib::recurrent::{Body, Trace, add_gradient, slopes_below, unpack_body};
use super::lib::sequences::{Rows, Run, Sequences, clear};
use super::minibatch_grad::GradShape;
use super::{Draw, Shape, gpu, schedule};
use crate::device::{Cx, Kernel, Kind, Limits, Shader};

/// What is fixed when a minibatch of sequences is recorded.
#[derive(Debug, Clone)]
pub struct SequenceShape {
    /// Vector steps of the rollout, `T`: rows of a sequence.
    pub t: usize,
    /// The losses, and the minibatch counted in rows: `start` and `len` are multiples of T. Its nets have a body. Its
    /// `tile_rows` mean nothing here.
    pub rows: GradShape,
    /// Environments of a tile: [`tile`] of the device kind.
    pub tile: usize,
}

/// Environments of a tile on the cpu: their gates at all steps lie in scratch, and a step's product fills the registers.
const TILE: usize = 32;

/// Environments of a tile of a minibatch of so many: each kind of device cuts as its cores like it.
pub fn tile(kind: Kind, envs: usize) -> usize {
    if kind == Kind::Cuda { gpu::sequence_grad::tile(envs) } else { TILE }
}

impl SequenceShape {
    pub(super) fn nets(&self) -> &Nets {
        &self.rows.nets
    }

    pub(super) fn body(&self) -> &Body {
        self.nets().body.as_ref().expect("a recurrent agent has a body")
    }

    /// Places in `index` of this minibatch's environments: the first one, and how many.
    pub(super) fn envs(&self) -> (usize, usize) {
        (self.rows.start / self.t, self.rows.len / self.t)
    }

    /// Most environments of a tile of this minibatch.
    fn most(&self) -> usize {
        self.tile.min(self.envs().1)
    }
}

impl Shape for SequenceShape {
    fn tiles(&self) -> usize {
        self.envs().1.div_ceil(self.tile)
    }

    fn scratch_words(&self) -> usize {
        let (nets, body, envs) = (self.nets(), self.body(), self.most());
        let heads: usize = std::iter::once(&nets.actor)
            .chain(&nets.critic)
            .map(|head| head.packed_grad_len() + ROWS * head.out_pad())
            .sum();
        nets.packed_len()
            + heads
            + nets.bodies() * Run::words(body, self.t, envs)
            + body.front.slopes_len()
            + ROWS * self.rows.obs
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::sequence_grad::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::sequence_grad::scratch(self)
    }

    fn flops(&self) -> f64 {
        // forward once and the layers in front twice, backward twice as much
        2.0 * self.rows.len as f64 * (4 * self.nets().madds()) as f64
    }

    fn kernels(&self) -> Vec<Kernel> {
        gpu::sequence_grad::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        gpu::sequence_grad::scratch(self)
    }

    fn cases() -> Vec<SequenceShape> {
        super::lib::cases::sequence_shapes()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        match arg {
            "index" => words.iter_mut().for_each(|word| *word = draw.below(self.rows.envs as u32)),
            // an episode in seven ends: inside a sequence, and one step after another
            "ended" => words.iter_mut().for_each(|word| *word = [0, 0, 0, 0, 0, 0, 1, 2][draw.below(8) as usize]),
            _ => return super::lib::cases::sample_grad(&self.rows, arg, words, draw),
        }
        true
    }
}

crate::op! {
    /// Partial gradients and losses of one minibatch of whole sequences, as `minibatch_grad` gives them.
    SequenceGrad(d: SequenceShape) = "sequence_grad", within 2e-5, run = run {
        read index: u32[d.rows.epochs * d.rows.envs];
        read moments: f32[d.rows.epochs * d.rows.minibatches, 2] in 0.5..1.5;
        read obs: f32[d.rows.rows, d.rows.obs] in -2.0..2.0;
        read normalizer: f32[2, d.rows.obs] in 0.5..1.5;
        read ended: u32[d.rows.rows];
        // the state at the rollout's beginning
        read first_state: f32[d.rows.envs, d.nets().state_len()] in -1.0..1.0;
        read action: f32[d.rows.rows, d.nets().policy.action_len()] in -1.0..1.0;
        read log_prob: f32[d.rows.rows] in -1.5..-0.2;
        read value: f32[d.rows.rows + d.rows.envs] in -1.0..1.0;
        read advantage: f32[d.rows.rows] in -2.0..2.0;
        read returns: f32[d.rows.rows] in -3.0..3.0;
        read value_moments: f32[4] in 0.2..1.0;
        read hyper: f32[hyper::len(d.nets().groups())];
        read schedule: f32[schedule::LEN + d.nets().groups()] in 0.05..0.3;
        read params: f32[d.nets().len()] in -0.5..0.5;
        write partial: f32[d.tiles(), d.nets().len()];
        write partial_loss: f32[d.tiles(), update::LOSSES];
    }
}

/// One step of one sequence, as the definition sees it.
struct Step<'a> {
    /// Of every body.
    traces: Vec<Trace>,
    row: Row<'a>,
    /// The policy's outputs and the value.
    out: Vec<f64>,
    value: f64,
    /// Whether the episode goes on behind this step.
    goes_on: bool,
}

/// Definition: one environment's sequence forward.
fn forward_sequence<'a>(d: &SequenceShape, a: &Args<'a>, params: &[f64], env: usize) -> Vec<Step<'a>> {
    let (nets, body) = (d.nets(), d.body());
    let clip = (a.hyper[hyper::OBS_CLIP_LOW], a.hyper[hyper::OBS_CLIP_HIGH]);
    let Args { action, log_prob, value, advantage, returns, .. } = *a;
    let records = Records { action, log_prob, value, advantage, returns };
    let first = &a.first_state[env * nets.state_len()..][..nets.state_len()];
    let mut states: Vec<Vec<f64>> =
        first.chunks(body.state_len()).map(|state| state.iter().map(|&x| x.into()).collect()).collect();
    let step = |t: usize| {
        let m = t * d.rows.envs + env;
        let seen = |(o, &x): (usize, &f32)| {
            f64::from(if d.rows.normalize_obs { normalize(x, o, a.normalizer, clip) } else { x })
        };
        let x: Vec<f64> = a.obs[m * d.rows.obs..][..d.rows.obs].iter().enumerate().map(seen).collect();
        let traces: Vec<Trace> =
            states.iter().enumerate().map(|(b, state)| body.define(&params[nets.body_at(b)], &x, state)).collect();
        let h = |trace: &Trace| trace.state[..body.hidden].to_vec();
        let (actor, critic) = (h(&traces[0]), h(&traces[traces.len() - 1]));
        let (out, value) = nets.define_on(params, &actor, &critic);
        let goes_on = a.ended[m] == 0;
        for (state, trace) in states.iter_mut().zip(&traces) {
            *state = if goes_on { trace.state.clone() } else { vec![0.0; body.state_len()] };
        }
        Step { traces, row: records.row(nets.policy, m), out, value, goes_on }
    };
    (0..d.t).map(step).collect()
}

fn numbers(d: &SequenceShape, a: &Args<'_>) -> Numbers {
    Numbers::new(&d.rows, a.hyper, a.schedule, a.moments, a.value_moments)
}

/// Definition of what is minimised: the mean over the minibatch's rows, as a function of the parameters. The gradient test
/// differentiates this numerically.
pub fn objective(d: &SequenceShape, a: &Args<'_>, params: &[f64]) -> f64 {
    let n = numbers(d, a);
    let (first, count) = d.envs();
    let total: f64 = a.index[first..first + count]
        .iter()
        .flat_map(|&env| forward_sequence(d, a, params, env as usize))
        .map(|step| define_loss(&d.rows, n, &step.row, &step.out, step.value))
        .sum();
    total / d.rows.len as f64
}

/// The plain definition: sequences one by one, in f64.
fn define(d: &SequenceShape, a: Args<'_>) {
    let (nets, body, n) = (d.nets(), d.body(), numbers(d, &a));
    let params: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
    let (first, count) = d.envs();
    for (tile, envs) in a.index[first..first + count].chunks(d.tile).enumerate() {
        let mut grad = vec![0.0; nets.len()];
        let mut sums = [0.0; update::LOSSES];
        for &env in envs {
            let steps = forward_sequence(d, &a, &params, env as usize);
            // the slopes at the states that the step before has left
            let mut d_states = vec![vec![0.0; body.state_len()]; nets.bodies()];
            for step in steps.iter().rev() {
                let slopes = define_slopes(&d.rows, n, &step.row, (&step.out, step.value), &mut grad, &mut sums);
                let (d_out, d_value) = (slopes.0, [slopes.1]);
                let heads = std::iter::once((&nets.actor, 0, &d_out[..]))
                    .chain(nets.critic.as_ref().map(|critic| (critic, nets.actor_len(), &d_value[..])));
                for (b, (head, at, d_out)) in heads.enumerate() {
                    let trace = &step.traces[b];
                    if !step.goes_on {
                        d_states[b].fill(0.0);
                    }
                    let row = (vec![trace.state[..body.hidden].to_vec()], Vec::new());
                    head.define_backward(&params[at..], &row, d_out, &mut grad[at..]);
                    for (o, d_out) in d_out.iter().enumerate() {
                        let weight = &params[at + o * head.input..][..head.input];
                        d_states[b].iter_mut().zip(weight).for_each(|(d, w)| *d += d_out * w);
                    }
                    let at = nets.body_at(b);
                    d_states[b] = body.define_backward(&params[at.clone()], trace, &d_states[b], &mut grad[at]);
                }
            }
        }
        let to_f32 = |(to, from): (&mut f32, &f64)| *to = *from as f32;
        a.partial[tile * nets.len()..][..nets.len()].iter_mut().zip(&grad).for_each(to_f32);
        a.partial_loss[tile * update::LOSSES..][..update::LOSSES].iter_mut().zip(&sums).for_each(to_f32);
    }
}

fn run(d: &SequenceShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    let (isa, tile, nets, body) = (cx.isa, cx.tile, d.nets(), d.body());
    let (p, loss) = (nets.len(), update::LOSSES);
    // SAFETY: every tile has its own rows of both outputs
    let (partial, partial_loss) =
        unsafe { (a.partial.part(tile * p..(tile + 1) * p), a.partial_loss.part(tile * loss..(tile + 1) * loss)) };
    let n = Numbers::new(&d.rows, a.hyper, a.schedule, a.moments, a.value_moments);
    let (first, count) = d.envs();
    let envs = &a.index[first + tile * d.tile..first + count.min((tile + 1) * d.tile)];
    let q = Sequences {
        body,
        steps: d.t,
        count: envs.len(),
        rows: Rows { index: envs, next: [0, d.rows.envs] },
        obs: a.obs,
        ended: a.ended,
        normalizer: d.rows.normalize_obs.then_some(a.normalizer),
        clip: (a.hyper[hyper::OBS_CLIP_LOW], a.hyper[hyper::OBS_CLIP_HIGH]),
    };
    let mut scratch = &mut *cx.scratch;
    let mut heads = Packed::new(isa, nets, a.params, &mut scratch);
    let x = cut(&mut scratch, ROWS * d.rows.obs);
    let state_at = |b: usize| b * body.state_len()..(b + 1) * body.state_len();
    let of_env = |i: usize| &a.first_state[envs[i] as usize * nets.state_len()..][..nets.state_len()];
    let mut one = |b: usize| {
        let mut run = Run::new(isa, body, &a.params[nets.body_at(b)], d.t, q.count, &mut scratch);
        run.forward(isa, &q, |i| &of_env(i)[state_at(b)], x);
        run
    };
    let mut actor = one(0);
    let mut critic = (nets.bodies() > 1).then(|| one(1));

    let mut zeros = |len: usize| {
        let words = cut(&mut scratch, len);
        words.fill(0.0);
        words
    };
    let (grad_actor, d_actor) = (zeros(nets.actor.packed_grad_len()), zeros(ROWS * nets.actor.out_pad()));
    let (grad_critic, d_critic) = match &nets.critic {
        Some(head) => (zeros(head.packed_grad_len()), zeros(ROWS * head.out_pad())),
        None => (zeros(0), zeros(0)),
    };
    let Tile { action, log_prob, value, advantage, returns, .. } = a;
    let records = Records { action, log_prob, value, advantage, returns };
    let (state, mut w, mut index) = (body.state_pad(), Work::new(), [0; ROWS]);
    for row in (0..q.len()).step_by(ROWS) {
        let rows = q.block(row, q.len(), &mut index);
        let block = row * state..(row + rows) * state;
        let h = &mut actor.after[block.clone()];
        forward(isa, &nets.actor, heads.actor.packed, (h, state), rows, heads.actor.acts, heads.actor.out);
        if let (Some(head), Some(packed), Some(run)) = (&nets.critic, &mut heads.critic, &critic) {
            forward(isa, head, packed.packed, (&run.after[block.clone()], state), rows, packed.acts, packed.out);
        }
        for first in (0..rows).step_by(LANES) {
            heads.policy_lanes(nets, a.params, first, &mut w.out);
            w.value = heads.value_lanes(nets, first);
            let index = &index[first..(first + LANES).min(rows)];
            w.judge(isa, &d.rows, n, records, index, first, d_actor, d_critic);
        }
        add_gradient(isa, [nets.actor.input, nets.actor.output], (h, state), rows, d_actor, grad_actor);
        clear(body, h);
        slopes_below(isa, &nets.actor, heads.actor.packed, rows, d_actor, (h, state));
        if let (Some(head), Some(packed), Some(run)) = (&nets.critic, &heads.critic, &mut critic) {
            let h = &mut run.after[block];
            add_gradient(isa, [head.input, head.output], (h, state), rows, d_critic, grad_critic);
            clear(body, h);
            slopes_below(isa, head, packed.packed, rows, d_critic, (h, state));
        }
    }
    unpack_grad(&nets.actor, grad_actor, partial);
    if let Some(head) = &nets.critic {
        unpack_grad(head, grad_critic, &mut partial[nets.actor_len()..]);
    }
    for (b, run) in std::iter::once(&mut actor).chain(&mut critic).enumerate() {
        run.backward(isa, &q, 0..d.t, x, scratch);
        unpack_body(body, run.grad, &mut partial[nets.body_at(b)]);
    }
    w.finish(nets, partial, partial_loss);
}
