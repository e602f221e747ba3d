//! Functions that ops and environments share; the same text exists in every kernel language.

pub mod rng;
pub mod trig;
