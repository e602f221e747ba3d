//! An agent at play as an animation: one episode of a run's best model.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::lab::enjoy::Enjoy;
use crate::render::{Canvas, GifWriter, caption, draw, frames_per_second};
use crate::report::files::RunFolder;

/// Size of the pictures, px.
const SIZE: (usize, usize) = (450, 300);
/// Pictures of an animation, at most.
const PICTURES: u64 = 500;
/// The seed of the episode.
const SEED: u32 = 0;

/// The animation that was asked for last. One is made at a time: it takes a processor for a second.
#[derive(Default)]
pub struct Replay(Mutex<Option<(PathBuf, SystemTime, Vec<u8>)>>);

impl Replay {
    /// A GIF of the best model of a trial; of a search's best trial where none is named.
    ///
    /// # Errors
    /// A run without a model, a model that does not fit its spec.
    pub fn gif(&self, folder: &RunFolder, trial: Option<u32>) -> Result<Vec<u8>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut game = Enjoy::open_trial(folder.root(), trial, SEED, false)?;
        let modified = game.model.metadata().and_then(|meta| meta.modified());
        let modified = modified.map_err(|err| Error::io(&game.model, "cannot read", &err))?;
        if let Some((model, time, gif)) = &*last
            && (model, time) == (&game.model, &modified)
        {
            return Ok(gif.clone());
        }
        // the folder of the run is never written to
        let temp =
            tempfile::tempdir().map_err(|err| Error::new("", format!("cannot make a temporary folder: {err}")))?;
        let path = temp.path().join("replay.gif");
        let env = game.env.name;
        let mut gif = GifWriter::create(&path, SIZE, frames_per_second(env))?;
        let mut canvas = Canvas::new(SIZE.0, SIZE.1, [255; 3]);
        let (mut pictures, mut total) = (0, 0.0);
        game.episode(|step| {
            total += step.reward;
            pictures += 1;
            if pictures <= PICTURES {
                draw(env, &step.state, Some(&step.action), &mut canvas);
                caption(&mut canvas, &format!("step {pictures}  return {total:.1}"));
                gif.frame(&canvas)?;
            }
            Ok(())
        })?;
        gif.finish()?;
        let bytes = std::fs::read(&path).map_err(|err| Error::io(&path, "cannot read", &err))?;
        *last = Some((game.model, modified, bytes.clone()));
        Ok(bytes)
    }
}
