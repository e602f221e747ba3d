//! What leaves the program: data frames, JSON, TensorBoard events, graphs, text logs and checkpoints.
//!
//! Everything here takes plain data (numbers, strings, JSON values), never a device buffer. A file is written whole or
//! not at all ([`files::write_whole`]); logs and TensorBoard events, which grow, are append-only.

mod axis;
pub mod checkpoint;
pub mod events;
pub mod experiment;
pub mod files;
pub mod frame;
pub mod html;
pub mod json;
pub mod list;
pub mod log;
pub mod overlay;
mod panels;
pub mod picture;
pub mod plot;
mod raster;
pub mod runs;
mod thread;
pub mod writer;
