//! What gradients of recurrent nets share: how kernels that go step by step are cut (`shaders/lib/through.wgsl`), and
//! where the layers before a cell lie.

use crate::device::Limits;
use crate::op::lib::recurrent::Body;

/// Lanes of a block that goes step by step.
const LEAST: usize = 32;
const MOST: usize = 256;

/// Which way a block goes through time.
#[derive(Clone, Copy, PartialEq)]
pub enum Going {
    Nowhere = 0,
    Forward = 1,
    Back = 2,
}

/// How kernels that go step by step are cut, both ways alike.
pub struct Place {
    /// Sequences of a block.
    pub block: usize,
    /// States and slopes are in scratch.
    pub spilled: bool,
    pub threads: usize,
}

impl Place {
    /// A block of as few sequences as keep a large GPU busy, as far as a block has the memory.
    pub fn new(body: &Body, sequences: usize, limits: &Limits) -> Place {
        // on the way back slopes at gates and states, forward states of two steps, which are fewer
        let kept = body.cell.gates() + body.state_len() / body.hidden;
        // fours of words, environments, and some room between them
        let bytes = |block: usize| 4 * block * (kept * body.hidden + 1) + 32;
        let most = match sequences {
            ..=512 => 4,
            513..=1024 => 8,
            _ => 16,
        };
        let fits = |&block: &usize| block <= most && bytes(block) <= limits.shared_bytes;
        let found = [16, 8, 4].into_iter().find(fits);
        let block = found.unwrap_or(4);
        let threads = (body.hidden * block / 4).next_power_of_two().clamp(LEAST, MOST.min(limits.threads));
        Place { block, spilled: found.is_none(), threads }
    }

    /// Blocks of so many sequences.
    pub fn blocks(&self, sequences: usize) -> usize {
        sequences.div_ceil(self.block)
    }
}

/// Packed words of the weights of a body's state, for both ways.
pub fn packed(body: &Body) -> usize {
    4 * body.hidden * (2 * body.hidden + 1)
}

/// Where the layers before a cell lie in the scratch of one row: hidden ones, once more where slopes need them before the
/// activation, then the gates.
pub struct Front {
    /// Before hidden layer l; behind the last one begin the units before the activation.
    hidden: Vec<usize>,
    pub gates: usize,
}

impl Front {
    pub fn new(body: &Body) -> Front {
        let mut hidden = vec![0];
        for units in &body.front.hidden {
            hidden.push(hidden[hidden.len() - 1] + units);
        }
        let units = hidden[hidden.len() - 1];
        let gates = if body.front.activation.needs_input() { 2 * units } else { units };
        Front { hidden, gates }
    }

    /// Where the outputs of layer `l` before the cell lie.
    pub fn here(&self, l: usize) -> usize {
        if l + 1 < self.hidden.len() { self.hidden[l] } else { self.gates }
    }

    /// Where hidden layer `l` lies before the activation.
    pub fn before(&self, l: usize) -> usize {
        let kept = self.hidden[self.hidden.len() - 1];
        if self.gates > kept { kept + self.hidden[l] } else { 0 }
    }
}
