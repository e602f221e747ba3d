//! A live window. The display's library is opened at run time, so a machine without one builds and runs all the same.

use minifb::{Key, WindowOptions};

use super::canvas::Canvas;
use crate::error::{Error, Result};

/// A window that shows canvases of one size at a steady rate.
pub struct Window {
    window: minifb::Window,
    pixels: Vec<u32>,
}

impl Window {
    /// Opens a window for canvases of `width` x `height` px that shows at most `fps` of them per second.
    ///
    /// # Errors
    /// No display can be reached.
    pub fn open(title: &str, (width, height): (usize, usize), fps: u32) -> Result<Self> {
        let mut window = minifb::Window::new(title, width, height, WindowOptions::default()).map_err(|err| {
            Error::new("--render", format!("no window can be opened here: {err}"))
                .hint("record a GIF instead: `--record out.gif`")
        })?;
        window.set_target_fps(fps as usize);
        Ok(Window { window, pixels: Vec::with_capacity(width * height) })
    }

    /// Shows a canvas and waits for its turn; `false` once the window was closed or Escape pressed.
    ///
    /// # Errors
    /// The display went away.
    pub fn show(&mut self, canvas: &Canvas) -> Result<bool> {
        self.pixels.clear();
        self.pixels.extend(canvas.pixels().iter().map(|&[r, g, b]| u32::from_be_bytes([0, r, g, b])));
        self.window
            .update_with_buffer(&self.pixels, canvas.width(), canvas.height())
            .map_err(|err| Error::new("--render", format!("the window is gone: {err}")))?;
        Ok(self.window.is_open() && !self.window.is_key_down(Key::Escape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_display_is_told_what_to_do() {
        match Window::open("test", (60, 40), 60) {
            Ok(mut window) => assert_eq!(window.show(&Canvas::new(60, 40, [9; 3])), Ok(true)),
            Err(err) => {
                assert_eq!(err.place, "--render");
                assert!(err.hint.contains("--record out.gif"), "{err}");
            }
        }
    }
}
