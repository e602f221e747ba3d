//! Functions that ops and environments share; the same text exists in every kernel language.

pub mod cases;
pub mod envs;
pub mod mlp;
pub mod nets;
pub mod policy;
pub mod rng;
pub mod simd;
pub mod trig;
