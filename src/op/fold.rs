//! CrossQ's critics in evaluation mode: plain nets with the normalisation in their weights, for the actor's update.

use super::lib::renorm::{self, Renorm};
use super::{Draw, Shape};
use crate::device::{Cx, Kernel, Limits, Shader};

/// Sizes of [`Fold`].
#[derive(Debug, Clone)]
pub struct FoldShape {
    /// Each of the two critics.
    pub critic: Renorm,
    /// All parameters, and where the first critic's begin; the second's follow it.
    pub p: usize,
    pub at: usize,
}

impl Shape for FoldShape {
    fn tiles(&self) -> usize {
        2
    }

    fn flops(&self) -> f64 {
        2.0 * self.critic.mlp.len() as f64
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::fold::kernels(self)
    }

    fn shaders(&self, _: &Limits) -> Vec<Shader> {
        super::shaders::fold::shaders(self)
    }

    fn cases() -> Vec<FoldShape> {
        let critics = super::lib::cases::renorms(3, 2).into_iter().enumerate();
        critics.map(|(i, critic)| FoldShape { p: 2 * critic.len() + 5 * i, at: 3 * i, critic }).collect()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        arg == "norm" && super::lib::cases::sample_norm(&self.critic, words, draw)
    }
}

crate::op! {
    /// Folds scale, shift and running moments of every hidden unit into its weights and bias. One tile per critic; bound
    /// by memory.
    Fold(d: FoldShape) = "fold", within 2e-6, run = run {
        read params: f32[d.p] in -0.7..0.7;
        read norm: f32[2, d.critic.norm_len()];
        write target: f32[2, d.critic.mlp.len()];
    }
}

fn define(d: &FoldShape, a: Args<'_>) {
    let critics = a.params[d.at..].chunks_exact(d.critic.len());
    for (critic, (params, target)) in critics.zip(a.target.chunks_exact_mut(d.critic.mlp.len())).enumerate() {
        let norm = &a.norm[critic * d.critic.norm_len()..][..d.critic.norm_len()];
        target.copy_from_slice(&d.critic.define_fold(params, norm));
    }
}

fn run(d: &FoldShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    let (len, plain, norm) = (d.critic.len(), d.critic.mlp.len(), d.critic.norm_len());
    let params = &a.params[d.at + cx.tile * len..][..len];
    // SAFETY: every tile has its own critic
    let target = unsafe { a.target.part(cx.tile * plain..(cx.tile + 1) * plain) };
    renorm::fold(cx.isa, &d.critic, params, &a.norm[cx.tile * norm..][..norm], target);
}
