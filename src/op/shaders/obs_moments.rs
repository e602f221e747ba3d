//! Launches of `shaders/obs_moments.wgsl`: one block where it can see everything, else by tiles of rows.

use crate::device::{Limits, Shader};
use crate::op::gpu::word;
use crate::op::obs_moments::ObsMomentsShape;

const THREADS: usize = 256;
/// Words that one block may read alone, and least words of a tile.
const ONE_BLOCK_WORDS: usize = 16 << 10;
const TILE_WORDS: usize = 4 << 10;
/// Most tiles.
const TILES: usize = 512;
/// Columns of a block of `obs_join`.
const JOINED: usize = THREADS / 32;

/// Columns of a block and rows of a tile.
fn cut(d: &ObsMomentsShape) -> (usize, usize) {
    let (rows, columns) = (d.t * d.n, d.o.min(THREADS));
    let tile =
        if rows * d.o <= ONE_BLOCK_WORDS { rows } else { TILE_WORDS.div_ceil(columns).max(rows.div_ceil(TILES)) };
    (columns, tile)
}

pub fn shaders(d: &ObsMomentsShape, limits: &Limits) -> Vec<Shader> {
    let ((columns, tile), rows) = (cut(d), d.t * d.n);
    let (tiles, parts) = (rows.div_ceil(tile), d.o.div_ceil(columns));
    let shape =
        vec![word("rows", rows), word("o", d.o), word("columns", columns), word("tile", tile), word("tiles", tiles)];
    let shader = |entry: &str, tiles: usize, parts: usize| Shader {
        entry: entry.into(),
        swaps: super::lanes(limits),
        tiles: tiles as u32,
        parts: parts as u32,
        threads: THREADS as u32,
        shape: shape.clone(),
    };
    let mut all = vec![shader("obs_tile", tiles, parts)];
    if tiles * parts > 1 {
        all.push(shader("obs_join", d.o.div_ceil(JOINED), 1));
    }
    all
}

/// The count, then mean and squares of every tile and column.
pub fn scratch(d: &ObsMomentsShape) -> usize {
    let ((columns, tile), rows) = (cut(d), d.t * d.n);
    if tile >= rows && columns >= d.o { 0 } else { 4 * (1 + rows.div_ceil(tile) * d.o) }
}
