//! Where steps of an environment are shown: a window, an animation, both or neither.

use std::path::Path;

use slm_fast::error::Result;
use slm_fast::lab::cohort::Step;
use slm_fast::render::{Canvas, GifWriter, HEIGHT, WIDTH, Window, caption, draw, frames_per_second};

/// A picture of one environment, and who sees it.
pub struct Screen {
    env: &'static str,
    canvas: Canvas,
    window: Option<Window>,
    gif: Option<GifWriter>,
}

impl Screen {
    /// Opens a window where `window` is set, and starts an animation where `record` names a file.
    ///
    /// # Errors
    /// No display, or a file that cannot be made.
    pub fn open(env: &'static str, window: bool, record: Option<&Path>) -> Result<Screen> {
        let (size, fps) = ((WIDTH, HEIGHT), frames_per_second(env));
        Ok(Screen {
            env,
            canvas: Canvas::new(WIDTH, HEIGHT, [255; 3]),
            window: window.then(|| Window::open(&format!("slm-fast: {env}"), size, fps)).transpose()?,
            gif: record.map(|path| GifWriter::create(path, size, fps)).transpose()?,
        })
    }

    /// Shows what a step came to; `false` once the window was closed.
    ///
    /// # Errors
    /// The display or the disk.
    pub fn show(&mut self, step: &Step, text: &str) -> Result<bool> {
        if self.window.is_none() && self.gif.is_none() {
            return Ok(true);
        }
        draw(self.env, &step.state, Some(&step.action), &mut self.canvas);
        caption(&mut self.canvas, text);
        if let Some(gif) = &mut self.gif {
            gif.frame(&self.canvas)?;
        }
        self.window.as_mut().map_or(Ok(true), |window| window.show(&self.canvas))
    }

    /// Gives the animation its name.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(self) -> Result<()> {
        self.gif.map_or(Ok(()), GifWriter::finish)
    }
}
