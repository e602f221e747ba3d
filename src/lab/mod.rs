//! The lab: Session, Trial and the cohort that carries a trial's sessions through one program.

pub mod benchmark;
pub mod cohort;
pub mod device;
pub mod enjoy;
pub mod progress;
pub mod provenance;
pub mod reproduce;
pub mod resume;
mod run;
pub mod search;
pub mod session;
pub mod trial;
