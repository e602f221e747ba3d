//! What the launches of recurrent ops share: the sizes that `kernels/lib/recurrent.cuh` and `kernels/lib/sequences.cuh` lay
//! out.

use super::nets::pad4;
use crate::op::lib::recurrent::{Body, Cell};

/// Environments of a block: few want the shortest step, many the fewest reads of weights.
const FEW: usize = 4;
const MANY: usize = 8;
/// Environments that blocks of few have on a large GPU.
const MOST_OF_FEW: usize = 512;

/// Environments of a block, where there are so many.
pub fn block(envs: usize) -> usize {
    if envs <= MOST_OF_FEW { FEW } else { MANY }
}

/// Lanes of a block that takes so many bodies together: four for every unit, within these bounds.
pub fn lanes(body: &Body, bodies: usize, least: usize, most: usize) -> usize {
    (4 * bodies * pad4(body.hidden)).next_multiple_of(32).clamp(least, most)
}

/// Words of a state of a block's environments: whole fours of units, rows of all environments and four more.
pub fn state_words(body: &Body, envs: usize) -> usize {
    pad4(body.hidden) * (envs + 4)
}

/// Whether a state has cells beside its outputs.
pub fn has_cells(body: &Body) -> bool {
    body.cell == Cell::Lstm
}

/// Words of a packed matrix that the gates get something through from `depth` words.
pub fn ahead_words(body: &Body, depth: usize) -> usize {
    pad4(depth) * body.cell.gates() * pad4(body.hidden)
}

/// Words of the packed matrix of the state for the way back.
pub fn back_words(body: &Body) -> usize {
    pad4(body.rows()) * pad4(body.hidden)
}
