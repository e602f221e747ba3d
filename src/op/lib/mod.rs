//! Functions that ops and environments share; the same text exists in every kernel language.

pub mod acting;
pub mod activation;
pub mod agent;
pub mod bf16;
pub mod cases;
pub mod critic;
pub mod envs;
pub mod input_grad;
pub mod losses;
pub mod mlp;
pub mod nets;
pub mod per_isa;
pub mod policy;
pub mod recurrent;
pub mod renorm;
pub mod rng;
pub mod sequences;
pub mod simd;
pub mod soft;
pub mod sums;
pub mod tree;
pub mod trig;
