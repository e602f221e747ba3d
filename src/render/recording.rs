//! GIF files: exact flat colors, only the changed rectangle of each frame, written whole or not at all.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::gif::{Encoder, EncodingError, Frame, Repeat};
use tempfile::NamedTempFile;

use super::canvas::{Canvas, Color};
use crate::error::{Error, Result};

/// Colors of one GIF frame.
const COLORS: usize = 256;

/// Writes canvases of one size as an endless GIF. Until [`GifWriter::finish`] the file does not exist under its name.
pub struct GifWriter {
    path: PathBuf,
    encoder: Encoder<BufWriter<NamedTempFile>>,
    /// Hundredths of a second per frame.
    delay: u16,
    last: Option<Canvas>,
    width: usize,
    height: usize,
}

impl GifWriter {
    /// Starts a GIF of `width` x `height` px at `fps` frames per second (GIF knows hundredths of a second).
    ///
    /// # Errors
    /// A folder that cannot be written to; a picture of no size or of more than 65,535 px a side.
    pub fn create(path: &Path, (width, height): (usize, usize), fps: u32) -> Result<Self> {
        let (Ok(w @ 1..), Ok(h @ 1..)) = (u16::try_from(width), u16::try_from(height)) else {
            return Err(Error::new(path.display().to_string(), format!("{width} x {height} px is no size of a GIF")));
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(folder).map_err(|err| Error::io(path, "recording a GIF", &err))?;
        let failed = |err| encoding(path, err);
        let mut encoder = Encoder::new(BufWriter::new(file), w, h, &[]).map_err(failed)?;
        encoder.set_repeat(Repeat::Infinite).map_err(failed)?;
        // most viewers slow down a delay below 2
        let delay = (100 / fps.max(1)).clamp(2, 1000) as u16;
        Ok(GifWriter { path: path.to_path_buf(), encoder, delay, last: None, width, height })
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// The disk, or a canvas of another size.
    pub fn frame(&mut self, canvas: &Canvas) -> Result<()> {
        if (canvas.width(), canvas.height()) != (self.width, self.height) {
            let what = format!("a frame of {} x {} px in another GIF", canvas.width(), canvas.height());
            return Err(Error::new(self.path.display().to_string(), what));
        }
        let (left, top, width, height) = changed(self.last.as_ref(), canvas);
        let rows = canvas.pixels().chunks_exact(self.width).skip(top).take(height);
        let pixels: Vec<Color> = rows.flat_map(|row| row[left..left + width].iter().copied()).collect();
        let (palette, indices) = quantize(&pixels);
        let mut frame = Frame::from_palette_pixels(width as u16, height as u16, indices, palette, None);
        (frame.left, frame.top, frame.delay) = (left as u16, top as u16, self.delay);
        self.encoder.write_frame(&frame).map_err(|err| encoding(&self.path, err))?;
        self.last = Some(canvas.clone());
        Ok(())
    }

    /// How long one frame is shown.
    pub fn frame_time(&self) -> Duration {
        Duration::from_millis(10 * u64::from(self.delay))
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// The disk; nothing is left behind then.
    pub fn finish(self) -> Result<()> {
        let path = self.path;
        let io = |err: std::io::Error| Error::io(&path, "recording a GIF", &err);
        let writer = self.encoder.into_inner().map_err(|err| encoding(&path, err))?;
        let mut file = writer.into_inner().map_err(|err| io(err.into_error()))?;
        file.flush().and_then(|()| file.as_file().sync_all()).map_err(io)?;
        readable(file.as_file()).map_err(io)?;
        file.persist(&path).map_err(|err| io(err.error))?;
        Ok(())
    }
}

/// A temporary file is private; a result is as readable as others.
#[cfg(unix)]
fn readable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &File) -> std::io::Result<()> {
    Ok(())
}

fn encoding(path: &Path, err: EncodingError) -> Error {
    match err {
        EncodingError::Io(err) => Error::io(path, "recording a GIF", &err),
        err => Error::new(path.display().to_string(), format!("recording a GIF: {err}")),
    }
}

/// The rectangle `(left, top, width, height)` that holds all changes; one pixel where nothing changed.
fn changed(last: Option<&Canvas>, canvas: &Canvas) -> (usize, usize, usize, usize) {
    let Some(last) = last else { return (0, 0, canvas.width(), canvas.height()) };
    let pairs = last.pixels().iter().zip(canvas.pixels()).enumerate();
    let (mut left, mut top, mut right, mut bottom) = (usize::MAX, usize::MAX, 0, 0);
    for (at, _) in pairs.filter(|(_, (old, new))| old != new) {
        let (x, y) = (at % canvas.width(), at / canvas.width());
        (left, top, right, bottom) = (left.min(x), top.min(y), right.max(x), bottom.max(y));
    }
    if left == usize::MAX { (0, 0, 1, 1) } else { (left, top, right - left + 1, bottom - top + 1) }
}

/// A palette of the most frequent colors (red, green, blue, ...) and each pixel's place in it; a rare color takes the
/// nearest. Pictures here have few flat colors and their mixtures, so what is rare is an edge of an edge.
fn quantize(pixels: &[Color]) -> (Vec<u8>, Vec<u8>) {
    let mut counts: HashMap<Color, usize> = HashMap::new();
    for &pixel in pixels {
        *counts.entry(pixel).or_default() += 1;
    }
    let mut colors: Vec<(Color, usize)> = counts.into_iter().collect();
    // ties by color, so that the same pictures give the same file
    colors.sort_by_key(|&(color, count)| (std::cmp::Reverse(count), color));
    let palette: Vec<Color> = colors.iter().take(COLORS).map(|&(color, _)| color).collect();
    let nearest = |color: Color| {
        let distance = |entry: &Color| -> i32 {
            entry.iter().zip(color).map(|(&a, b)| (i32::from(a) - i32::from(b)).pow(2)).sum()
        };
        (0..palette.len()).min_by_key(|&index| distance(&palette[index])).unwrap_or(0) as u8
    };
    let places: HashMap<Color, u8> = colors
        .iter()
        .enumerate()
        .map(|(index, &(color, _))| (color, u8::try_from(index).unwrap_or_else(|_| nearest(color))))
        .collect();
    (palette.concat(), pixels.iter().map(|pixel| places[pixel]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{caption, draw};

    fn decode(path: &Path) -> Vec<Frame<'static>> {
        let mut decoder = ::gif::Decoder::new(File::open(path).expect("the GIF")).expect("a header");
        assert_eq!((decoder.width(), decoder.height()), (300, 200));
        std::iter::from_fn(|| decoder.read_next_frame().expect("a frame").cloned()).collect()
    }

    #[test]
    fn a_recording_has_its_frames_and_appears_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("out.gif");
        let mut gif = GifWriter::create(&path, (300, 200), 50).expect("a writable folder");
        let mut canvas = Canvas::new(300, 200, [0; 3]);
        for step in 0..10u16 {
            draw("CartPole-v1", &[0.0, 0.0, 0.02 * f32::from(step), 0.0], None, &mut canvas);
            caption(&mut canvas, "CartPole-v1");
            gif.frame(&canvas).expect("space");
        }
        gif.frame(&canvas).expect("space");
        assert!(!path.exists(), "no half file under the name");
        gif.finish().expect("space");
        let frames = decode(&path);
        assert_eq!(frames.len(), 11);
        assert_eq!((frames[0].width, frames[0].height, frames[0].delay), (300, 200, 2));
        assert!(frames[1].width < 200, "only what changed");
        assert_eq!((frames[10].width, frames[10].height), (1, 1), "nothing changed");
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }

    #[test]
    fn few_colors_are_exact_and_many_are_near() {
        let flat = [[1, 2, 3], [4, 5, 6], [4, 5, 6]];
        assert_eq!(quantize(&flat), (vec![4, 5, 6, 1, 2, 3], vec![1, 0, 0]));
        let many: Vec<Color> = (0..=255).flat_map(|i| [[i, 0, 0], [i, 0, 0], [i, 1, 0]]).collect();
        let (palette, indices) = quantize(&many);
        assert_eq!(palette.len(), 3 * COLORS);
        for (pixel, index) in many.iter().zip(indices) {
            assert!(palette[3 * usize::from(index)].abs_diff(pixel[0]) <= 1);
        }
    }

    #[test]
    fn an_abandoned_recording_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut gif = GifWriter::create(&folder.path().join("out.gif"), (4, 4), 30).expect("a writable folder");
        gif.frame(&Canvas::new(4, 4, [9; 3])).expect("space");
        assert!(gif.frame(&Canvas::new(5, 4, [9; 3])).is_err());
        drop(gif);
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
        let error = GifWriter::create(&folder.path().join("no/out.gif"), (4, 4), 30).err().expect("no such folder");
        assert!(error.to_string().contains("no/out.gif: recording a GIF: "), "{error}");
        assert!(GifWriter::create(&folder.path().join("out.gif"), (0, 4), 30).is_err());
    }
}
