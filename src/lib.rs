//! slm-fast: a deep-RL lab whose whole training loop runs on the device in hand-written fused kernels.
//!
//! Modules only look down: `error <- spec <- plan`; `error <- device <- op <- net, env <- algorithm <- lab <- main`;
//! `metric` and `report` never touch a device buffer; `serve` shows what `report` reads. ARCHITECTURE.md says why.

pub mod algorithm;
pub mod device;
pub mod env;
pub mod error;
#[cfg(feature = "hub")]
pub mod hub;
pub mod lab;
pub mod metric;
pub mod net;
pub mod op;
pub mod plan;
pub mod render;
pub mod report;
pub mod serve;
pub mod spec;
