//! The nets of an agent as one parameter vector: the actor's net, its free log standard deviations, then the critic's
//! net; a shared net carries the value as its last output. Behind the parameters of a net that stands on a recurrent
//! body lie those of the body.

use super::mlp::{self, Mlp};
use super::policy::{LANES, Lanes, OUTPUTS, Policy};
use super::recurrent::Body;
use crate::device::Precision;
use crate::device::cpu::Isa;
use std::ops::Range;

/// Sizes of an agent's nets.
#[derive(Debug, Clone, PartialEq)]
pub struct Nets {
    pub actor: Mlp,
    /// A net of its own for the value; without one the value is the actor's last output, or there is none.
    pub critic: Option<Mlp>,
    pub policy: Policy,
    /// What a recurrent agent has below each of the nets above, which are then linear heads on the body's output.
    pub body: Option<Body>,
}

impl Nets {
    /// Words of an observation, `O`.
    pub fn obs(&self) -> usize {
        self.body.as_ref().map_or(self.actor.input, |body| body.front.input)
    }

    /// Where the free log standard deviations lie in the parameters.
    pub fn free(&self) -> Range<usize> {
        self.actor.len()..self.actor.len() + self.policy.free_len()
    }

    /// Bodies that carry a state from step to step: none, the actor's (and a shared net's), and the critic's.
    pub fn bodies(&self) -> usize {
        self.body.as_ref().map_or(0, |_| self.groups())
    }

    /// Where the parameters of body number `b` lie.
    pub fn body_at(&self, b: usize) -> Range<usize> {
        let len = self.body_len();
        let end = if b == 0 { self.actor_len() } else { self.len() };
        end - len..end
    }

    /// Words of what one environment's bodies carry from step to step.
    pub fn state_len(&self) -> usize {
        self.bodies() * self.body.as_ref().map_or(0, Body::state_len)
    }

    fn body_len(&self) -> usize {
        self.body.as_ref().map_or(0, Body::len)
    }

    /// Whether one net gives both the policy and the value.
    pub fn shared(&self) -> bool {
        self.critic.is_none() && self.actor.output > self.policy.outputs()
    }

    /// Whether there is a value at all (REINFORCE has none).
    pub fn has_value(&self) -> bool {
        self.critic.is_some() || self.shared()
    }

    /// Parameter groups with an optimiser of their own: the actor with its free parameters, and the critic.
    pub fn groups(&self) -> usize {
        1 + usize::from(self.critic.is_some())
    }

    /// Parameters of the actor, free log standard deviations and its body included.
    pub fn actor_len(&self) -> usize {
        self.free().end + self.body_len()
    }

    /// All parameters, `P`.
    pub fn len(&self) -> usize {
        self.actor_len() + self.critic.as_ref().map_or(0, |critic| critic.len() + self.body_len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Of the products of all nets.
    pub fn precision(&self) -> Precision {
        self.actor.precision
    }

    /// The same nets with products of that format.
    pub fn with_precision(mut self, precision: Precision) -> Nets {
        std::iter::once(&mut self.actor).chain(&mut self.critic).for_each(|net| net.precision = precision);
        self
    }

    /// The same nets with products in f32.
    pub fn in_f32(self) -> Nets {
        self.with_precision(Precision::F32)
    }

    /// Multiply-adds of one row forward through all nets.
    pub fn madds(&self) -> usize {
        let bodies = self.bodies() * self.body.as_ref().map_or(0, Body::madds);
        self.actor.madds() + self.critic.as_ref().map_or(0, Mlp::madds) + bodies
    }

    /// Definition: the policy's outputs with the free parameters behind them, and the value, of one observation.
    pub fn define(&self, params: &[f64], x: &[f64]) -> (Vec<f64>, f64) {
        self.define_on(params, x, x)
    }

    /// Definition: as [`Nets::define`], where actor and critic see inputs of their own.
    pub fn define_on(&self, params: &[f64], x: &[f64], x_critic: &[f64]) -> (Vec<f64>, f64) {
        let mut out = self.actor.define_forward(params, x).0.pop().expect("a net has an output layer");
        let value = match &self.critic {
            Some(critic) => critic.define_forward(&params[self.actor_len()..], x_critic).0.pop().expect("as above")[0],
            None if self.shared() => out.pop().expect("the value is the last output"),
            None => 0.0,
        };
        out.extend_from_slice(&params[self.free()]);
        (out, value)
    }

    /// Scratch words of a [`Packed`].
    pub fn packed_len(&self) -> usize {
        self.each().map(PackedNet::words).sum()
    }

    fn each(&self) -> impl Iterator<Item = &Mlp> {
        std::iter::once(&self.actor).chain(&self.critic)
    }
}

/// One net in scratch: packed parameters, activations, outputs.
pub struct PackedNet<'a> {
    pub packed: &'a mut [f32],
    pub acts: &'a mut [f32],
    /// Rows of `mlp.out_pad()` words.
    pub out: &'a mut [f32],
}

impl<'a> PackedNet<'a> {
    /// Scratch words of a net.
    pub fn words(net: &Mlp) -> usize {
        net.packed_len() + net.acts_len() + mlp::ROWS * net.out_pad()
    }

    /// Lays `params` out in `scratch`; outputs start finite, so lanes without a row stay harmless.
    #[inline(always)]
    pub fn new(isa: Isa, net: &Mlp, params: &[f32], scratch: &mut &'a mut [f32]) -> PackedNet<'a> {
        let packed = cut(scratch, net.packed_len());
        mlp::pack(isa, net, params, packed);
        PackedNet::around(net, packed, scratch)
    }

    /// The same for a net that only goes forward.
    #[inline(always)]
    pub fn ahead(isa: Isa, net: &Mlp, params: &[f32], scratch: &mut &'a mut [f32]) -> PackedNet<'a> {
        let packed = cut(scratch, net.packed_len());
        mlp::pack_forward(isa, net, params, packed);
        PackedNet::around(net, packed, scratch)
    }

    #[inline(always)]
    fn around(net: &Mlp, packed: &'a mut [f32], scratch: &mut &'a mut [f32]) -> PackedNet<'a> {
        let acts = cut(scratch, net.acts_len());
        let out = cut(scratch, mlp::ROWS * net.out_pad());
        out.fill(0.0);
        PackedNet { packed, acts, out }
    }

    /// Output `j` of 16 rows from `row` on.
    #[inline(always)]
    pub fn lanes(&self, net: &Mlp, row: usize, j: usize) -> Lanes {
        let pad = net.out_pad();
        std::array::from_fn(|i| self.out[(row + i) * pad + j])
    }
}

/// The nets of an agent in scratch.
pub struct Packed<'a> {
    pub actor: PackedNet<'a>,
    pub critic: Option<PackedNet<'a>>,
}

/// Cuts the first `len` words off a scratch.
#[inline(always)]
pub fn cut<'a>(scratch: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (head, tail) = std::mem::take(scratch).split_at_mut(len);
    *scratch = tail;
    head
}

impl<'a> Packed<'a> {
    /// Lays `params` out in `scratch`.
    #[inline(always)]
    pub fn new(isa: Isa, nets: &Nets, params: &[f32], scratch: &mut &'a mut [f32]) -> Packed<'a> {
        let actor = PackedNet::new(isa, &nets.actor, &params[..nets.actor.len()], scratch);
        let critic = nets.critic.as_ref().map(|net| PackedNet::new(isa, net, &params[nets.actor_len()..], scratch));
        Packed { actor, critic }
    }

    /// Policy outputs of 16 rows from `row` on, one lane each, with the free parameters behind them.
    #[inline(always)]
    pub fn policy_lanes(&self, nets: &Nets, params: &[f32], row: usize, lanes: &mut [Lanes; OUTPUTS]) {
        let (n, pad) = (nets.policy.outputs(), nets.actor.out_pad());
        for (j, lane) in lanes[..n].iter_mut().enumerate() {
            for i in 0..LANES {
                lane[i] = self.actor.out[(row + i) * pad + j];
            }
        }
        let free = &params[nets.free()];
        for (lane, &value) in lanes[n..].iter_mut().zip(free) {
            *lane = [value; LANES];
        }
    }

    /// Values of 16 rows from `row` on; zeros where there is no critic.
    #[inline(always)]
    pub fn value_lanes(&self, nets: &Nets, row: usize) -> Lanes {
        let (out, pad, at) = match (&self.critic, &nets.critic) {
            (Some(critic), Some(mlp)) => (&*critic.out, mlp.out_pad(), 0),
            _ if nets.shared() => (&*self.actor.out, nets.actor.out_pad(), nets.policy.outputs()),
            _ => return [0.0; LANES],
        };
        std::array::from_fn(|i| out[(row + i) * pad + at])
    }
}

/// `(x - mean) * scale`, clipped: an observation as the nets see it. `normalizer` is `[2, O]`.
#[inline(always)]
pub fn normalize(x: f32, o: usize, normalizer: &[f32], clip: (f32, f32)) -> f32 {
    let n = normalizer.len() / 2;
    super::trig::clamp((x - normalizer[o]) * normalizer[n + o], clip.0, clip.1)
}
