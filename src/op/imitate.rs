//! What an agent can learn from what it once did better than it now expects (self-imitation, Oh et al. 2018): the rows
//! that were drawn become a batch of their own, with how much better each was in the place of an advantage.

use super::hyper;
use super::lib::mlp::{Mlp, ROWS, forward};
use super::lib::nets::{Nets, PackedNet, cut, normalize};
use super::lib::policy::Policy;
use super::{Draw, Shape};
use crate::device::{Cx, Kernel, Limits, Shader};

/// Sizes and choices of [`Imitate`].
#[derive(Debug, Clone)]
pub struct ImitateShape {
    pub nets: Nets,
    /// Words of an observation, `O`, and rows of the ring.
    pub obs: usize,
    pub rows: usize,
    /// Rows that were drawn; of them this batch has `batch` from `start` on.
    pub samples: usize,
    pub start: usize,
    pub batch: usize,
    pub normalize_obs: bool,
}

/// Rows of a tile.
const TILE_ROWS: usize = 256;

impl ImitateShape {
    /// The net that gives the value, where its parameters begin, and which of its outputs that is.
    pub fn critic(&self) -> (&Mlp, usize, usize) {
        match &self.nets.critic {
            Some(critic) => (critic, self.nets.actor_len(), 0),
            None => (&self.nets.actor, 0, self.nets.policy.outputs()),
        }
    }

    /// Words of an action.
    pub fn action(&self) -> usize {
        self.nets.policy.action_len()
    }
}

impl Shape for ImitateShape {
    fn tiles(&self) -> usize {
        self.batch.div_ceil(TILE_ROWS)
    }

    fn scratch_words(&self) -> usize {
        PackedNet::words(self.critic().0) + ROWS * self.obs
    }

    fn flops(&self) -> f64 {
        2.0 * (self.batch * self.critic().0.madds()) as f64
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::imitate::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        super::gpu::imitate::scratch(self)
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::imitate::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::imitate::scratch(self)
    }

    fn cases() -> Vec<Self> {
        super::lib::cases::imitate_shapes()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        match (arg, self.nets.policy) {
            ("index", _) => words.iter_mut().for_each(|word| *word = draw.below(self.rows as u32)),
            // a row in four is left out
            ("weight", _) => words.iter_mut().for_each(|word| {
                *word = if draw.below(4) == 0 { 0.0 } else { draw.range(0.2, 1.0) }.to_bits();
            }),
            ("action", Policy::Categorical { n }) => {
                words.iter_mut().for_each(|word| *word = (draw.below(n as u32) as f32).to_bits());
            }
            ("hyper", _) => hyper::sample(words, draw),
            _ => return false,
        }
        true
    }
}

crate::op! {
    /// The batch that `minibatch_grad` learns from as from a rollout of its own, its rows in order and not standardised:
    /// `advantage` is `weight * max(R - V(s), 0)`, `target` lies that much above the value, and one below it where there
    /// is nothing to learn. With the plain policy gradient and a one-sided value loss that gives the slopes of
    /// `-weight log pi(a|s) max(R - V(s), 0)` and of `weight / 2 max(R - V(s), 0)^2`. `error` is `max(R - V(s), 0)`, from
    /// which priorities come. The value is of the parameters as they are now, in f32 whatever the precision.
    Imitate(d: ImitateShape) = "imitate", within 2e-5, run = run {
        read index: u32[d.samples];
        read weight: f32[d.samples];
        read obs: f32[d.rows, d.obs] in -2.0..2.0;
        read action: f32[d.rows, d.action()] in -1.0..1.0;
        read returns: f32[d.rows] in -2.0..2.0;
        read normalizer: f32[2, d.obs] in 0.5..1.5;
        read hyper: f32[hyper::len(d.nets.groups())];
        read params: f32[d.nets.len()] in -0.7..0.7;
        write order: u32[d.batch];
        write moments: f32[1, 2];
        write seen: f32[d.batch, d.obs];
        write taken: f32[d.batch, d.action()];
        write log_prob: f32[d.batch];
        write value: f32[d.batch];
        write advantage: f32[d.batch];
        write target: f32[d.batch];
        write error: f32[d.batch];
    }
}

fn define(d: &ImitateShape, a: Args<'_>) {
    let (net, at, output) = d.critic();
    let params: Vec<f64> = a.params[at..].iter().map(|&p| p.into()).collect();
    let clip = (a.hyper[hyper::OBS_CLIP_LOW], a.hyper[hyper::OBS_CLIP_HIGH]);
    a.moments.copy_from_slice(&[0.0, 1.0]);
    a.log_prob.fill(0.0);
    for b in 0..d.batch {
        let row = a.index[d.start + b] as usize;
        let obs = &a.obs[row * d.obs..][..d.obs];
        a.order[b] = b as u32;
        a.seen[b * d.obs..][..d.obs].copy_from_slice(obs);
        a.taken[b * d.action()..][..d.action()].copy_from_slice(&a.action[row * d.action()..][..d.action()]);
        let see = |(o, &x): (usize, &f32)| if d.normalize_obs { normalize(x, o, a.normalizer, clip) } else { x };
        let x: Vec<f64> = obs.iter().enumerate().map(|x| see(x).into()).collect();
        let value = net.define_forward(&params, &x).0.pop().expect("a net has an output layer")[output];
        let better = (f64::from(a.returns[row]) - value).max(0.0);
        let gain = f64::from(a.weight[d.start + b]) * better;
        a.value[b] = value as f32;
        a.advantage[b] = gain as f32;
        a.target[b] = if gain > 0.0 { value + gain } else { value - 1.0 } as f32;
        a.error[b] = better as f32;
    }
}

fn run(d: &ImitateShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    let (isa, len) = (cx.isa, d.action());
    let own = cx.tile * TILE_ROWS..((cx.tile + 1) * TILE_ROWS).min(d.batch);
    let words = |each: usize| own.start * each..own.end * each;
    // SAFETY: every tile has its own rows; the first alone writes what is no row
    let (moments, order, log_prob, value, advantage, target, error, seen, taken) = unsafe {
        (
            a.moments.part(if cx.tile == 0 { 0..2 } else { 0..0 }),
            a.order.part(own.clone()),
            a.log_prob.part(own.clone()),
            a.value.part(own.clone()),
            a.advantage.part(own.clone()),
            a.target.part(own.clone()),
            a.error.part(own.clone()),
            a.seen.part(words(d.obs)),
            a.taken.part(words(len)),
        )
    };
    moments.iter_mut().zip([0.0, 1.0]).for_each(|(to, x)| *to = x);
    log_prob.fill(0.0);
    let (mlp, at, output) = d.critic();
    let mut scratch = &mut *cx.scratch;
    let net = PackedNet::ahead(isa, mlp, &a.params[at..at + mlp.len()], &mut scratch);
    let x = cut(&mut scratch, ROWS * d.obs);
    let clip = (a.hyper[hyper::OBS_CLIP_LOW], a.hyper[hyper::OBS_CLIP_HIGH]);
    let drawn = d.start + own.start..d.start + own.end;
    let (index, weight) = (&a.index[drawn.clone()], &a.weight[drawn]);
    for first in (0..index.len()).step_by(ROWS) {
        let rows = ROWS.min(index.len() - first);
        for (i, x) in (first..first + rows).zip(x.chunks_exact_mut(d.obs)) {
            let row = index[i] as usize;
            x.copy_from_slice(&a.obs[row * d.obs..][..d.obs]);
            seen[i * d.obs..][..d.obs].copy_from_slice(x);
            taken[i * len..][..len].copy_from_slice(&a.action[row * len..][..len]);
            if d.normalize_obs {
                x.iter_mut().enumerate().for_each(|(o, x)| *x = normalize(*x, o, a.normalizer, clip));
            }
        }
        forward(isa, mlp, net.packed, (x, d.obs), rows, net.acts, net.out);
        for i in first..first + rows {
            let now = net.out[(i - first) * mlp.out_pad() + output];
            let over = a.returns[index[i] as usize] - now;
            let better = if over > 0.0 { over } else { 0.0 };
            let gain = weight[i] * better;
            order[i] = (own.start + i) as u32;
            value[i] = now;
            advantage[i] = gain;
            target[i] = if gain > 0.0 { now + gain } else { now - 1.0 };
            error[i] = better;
        }
    }
}
