//! Functions that ops and environments share; the same text exists in every kernel language.

pub mod per_isa;
pub mod rng;
pub mod sums;
pub mod trig;
