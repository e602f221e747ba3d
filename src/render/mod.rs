//! Pictures of environments: a small canvas, a scene for each environment, a GIF anywhere, a window where a display is.

mod canvas;
mod font;
mod recording;
mod scene;
mod window;

pub use canvas::{Canvas, Color};
pub use recording::GifWriter;
pub use scene::{caption, draw, frames_per_second};
pub use window::Window;

/// Width of a picture that looks right on a screen and in a README, px.
pub const WIDTH: usize = 600;

/// Height of the same, px.
pub const HEIGHT: usize = 400;
