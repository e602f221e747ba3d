//! A target net: parameters that follow those that learn, by copies now and then or a little at every update.

use crate::device::{Cx, Kernel, Limits, Shader};
use crate::op::{Draw, Shape, hyper};

/// How a target net follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Copied whenever `hyper[UPDATE_FREQUENCY]` frames have passed (Mnih et al. 2015).
    Replace,
    /// Moved by `hyper[POLYAK]` of the way (Lillicrap et al. 2016).
    Polyak,
}

/// Sizes and choices of [`Target`].
#[derive(Debug, Clone)]
pub struct TargetShape {
    /// All parameters of the session, and its groups.
    pub params: usize,
    pub groups: usize,
    /// The parameters that are followed: `len` from `from` on.
    pub from: usize,
    pub len: usize,
    pub follow: Follow,
    /// Environments; vector steps since the clock that are done; how many of them since this op ran last.
    pub n: usize,
    pub at: usize,
    pub every: usize,
}

impl Shape for TargetShape {
    fn flops(&self) -> f64 {
        3.0 * self.len as f64
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::target::kernels(self)
    }

    fn shaders(&self, _: &Limits) -> Vec<Shader> {
        super::shaders::target::shaders(self)
    }

    fn cases() -> Vec<Self> {
        let case =
            |params, from, len, follow| TargetShape { params, groups: 1, from, len, follow, n: 4, at: 1, every: 1 };
        vec![
            case(300, 0, 300, Follow::Polyak),
            TargetShape { groups: 4, ..case(77, 31, 45, Follow::Polyak) },
            case(77, 31, 45, Follow::Replace),
            TargetShape { n: 1, at: 3, every: 2, ..case(20_000, 7, 19_000, Follow::Replace) },
        ]
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        if arg == "hyper" {
            hyper::sample(words, draw);
        }
        arg == "hyper"
    }
}

crate::op! {
    /// Moves the target's parameters, or leaves them where nothing is due. Bound by memory: 12 bytes a parameter.
    Target(d: TargetShape) = "target", within 1e-6, run = run {
        read params: f32[d.params] in -1.0..1.0;
        read hyper: f32[hyper::len(d.groups)];
        read clock: u32[hyper::CLOCK_LEN] in 0.0..100.0;
        update target: f32[d.len] in -1.0..1.0;
    }
}

/// Whether a copy is due: a multiple of `UPDATE_FREQUENCY` frames lies between the last time and now.
fn is_due(d: &TargetShape, hyper: &[f32], clock: &[u32]) -> bool {
    let now = u64::from(clock[hyper::CLOCK_STEP]) + d.at as u64;
    let every = hyper[hyper::UPDATE_FREQUENCY] as u64;
    let frames = |step: u64| step * d.n as u64;
    frames(now) / every > frames(now - d.every as u64) / every
}

fn define(d: &TargetShape, a: Args) {
    let weight = f64::from(a.hyper[hyper::POLYAK]);
    let due = is_due(d, a.hyper, a.clock);
    for (to, &from) in a.target.iter_mut().zip(&a.params[d.from..]) {
        *to = match d.follow {
            Follow::Replace if due => from,
            Follow::Replace => *to,
            Follow::Polyak => (f64::from(*to) + weight * (f64::from(from) - f64::from(*to))) as f32,
        };
    }
}

fn run(d: &TargetShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    // SAFETY: one tile
    let target = unsafe { a.target.all() };
    let params = &a.params[d.from..d.from + d.len];
    match d.follow {
        Follow::Replace if is_due(d, a.hyper, a.clock) => target.copy_from_slice(params),
        Follow::Replace => {}
        Follow::Polyak => blend(cx.isa, params, target, a.hyper[hyper::POLYAK]),
    }
}

crate::per_isa! {
    fn blend(params: &[f32], target: &mut [f32], weight: f32) {
        for (to, from) in target.iter_mut().zip(params) {
            *to += weight * (*from - *to);
        }
    }
}
