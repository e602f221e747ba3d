//! Sequences of a tile through a recurrent body: forward from stored states, and back through time. What the layers in
//! front of a cell give does not depend on its state, so it is computed for all steps in blocks; only the cells go step by
//! step. A state becomes 0 where an episode ended, forward and on the way back.

use super::mlp::ROWS;
use super::nets::{cut, normalize};
use super::recurrent::{Body, PackedBody};
use crate::device::cpu::Isa;
use std::ops::Range;

/// Which sequences a tile has, and how their observations are seen.
pub struct Sequences<'a> {
    pub body: &'a Body,
    /// Steps, and sequences.
    pub steps: usize,
    pub count: usize,
    pub rows: Rows<'a>,
    pub obs: &'a [f32],
    pub ended: &'a [u32],
    /// Where observations are normalised.
    pub normalizer: Option<&'a [f32]>,
    pub clip: (f32, f32),
}

/// Where the rows of sequences lie in the records: sequence `i` at step `t` is row `index[t * next[0] + i] + t * next[1]`.
pub struct Rows<'a> {
    pub index: &'a [u32],
    pub next: [usize; 2],
}

impl Sequences<'_> {
    /// Rows of the tile, step after step.
    pub fn len(&self) -> usize {
        self.steps * self.count
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row in the records of sequence `i` at step `t`.
    pub fn row(&self, t: usize, i: usize) -> usize {
        self.rows.index[t * self.rows.next[0] + i] as usize + t * self.rows.next[1]
    }

    /// Places of the tile's rows of some steps.
    pub fn of_steps(&self, steps: Range<usize>) -> Range<usize> {
        steps.start * self.count..steps.end * self.count
    }

    /// Numbers in the records of [`ROWS`] rows of the tile, or what is left up to `end`, from `row` on.
    pub fn block(&self, row: usize, end: usize, index: &mut [u32; ROWS]) -> usize {
        let rows = ROWS.min(end - row);
        for (i, m) in index[..rows].iter_mut().enumerate() {
            *m = self.row((row + i) / self.count, (row + i) % self.count) as u32;
        }
        rows
    }

    /// Observations of rows as the nets see them.
    pub fn gather(&self, obs: &[f32], index: &[u32], x: &mut [f32]) {
        let o = self.body.front.input;
        for (x, &m) in x.chunks_exact_mut(o).zip(index) {
            x.copy_from_slice(&obs[m as usize * o..][..o]);
            if let Some(normalizer) = self.normalizer {
                x.iter_mut().enumerate().for_each(|(o, x)| *x = normalize(*x, o, normalizer, self.clip));
            }
        }
    }
}

/// What one body of a tile keeps of all steps, row `t * count + i`.
pub struct Run<'a> {
    pub packed: PackedBody<'a>,
    /// Gates `[rows, G]`, then the slopes at what they got from the inputs, and from the states.
    gates: &'a mut [f32],
    recurrent: &'a mut [f32],
    /// States before and after every step; the latter become the slopes there.
    before: &'a mut [f32],
    pub after: &'a mut [f32],
    /// Slopes at the states of one step.
    d_state: &'a mut [f32],
    pub grad: &'a mut [f32],
}

impl<'a> Run<'a> {
    /// Scratch words for sequences of `steps` steps.
    pub fn words(body: &Body, steps: usize, count: usize) -> usize {
        body.packed_len()
            + body.packed_grad_len()
            + steps * count * 2 * (body.gates_pad() + body.state_pad())
            + count * body.state_pad()
    }

    pub fn new(
        isa: Isa,
        body: &Body,
        params: &[f32],
        steps: usize,
        count: usize,
        scratch: &mut &'a mut [f32],
    ) -> Run<'a> {
        let (packed, rows) = (PackedBody::new(isa, body, params, scratch), steps * count);
        let mut words = |len: usize| {
            let words = cut(scratch, len);
            words.fill(0.0);
            words
        };
        Run {
            packed,
            gates: words(rows * body.gates_pad()),
            recurrent: words(rows * body.gates_pad()),
            before: words(rows * body.state_pad()),
            after: words(rows * body.state_pad()),
            d_state: words(count * body.state_pad()),
            grad: words(body.packed_grad_len()),
        }
    }

    /// All steps forward; `first` gives the state of a sequence before its first step, without padding.
    pub fn forward<'b>(&mut self, isa: Isa, q: &Sequences<'_>, first: impl Fn(usize) -> &'b [f32], x: &mut [f32]) {
        let (body, count) = (q.body, q.count);
        let (state, wide, mut index) = (body.state_pad(), body.gates_pad(), [0; ROWS]);
        for row in (0..q.len()).step_by(ROWS) {
            let rows = q.block(row, q.len(), &mut index);
            q.gather(q.obs, &index[..rows], x);
            self.packed.see(isa, body, (x, body.front.input), rows, &mut self.gates[row * wide..][..rows * wide]);
        }
        for i in 0..count {
            let parts = self.before[i * state..][..state].chunks_exact_mut(body.h_pad());
            for (to, from) in parts.zip(first(i).chunks_exact(body.hidden)) {
                to[..body.hidden].copy_from_slice(from);
            }
        }
        for t in 0..q.steps {
            let (at, gates_at) = (t * count * state, t * count * wide);
            if t > 0 {
                self.before[at..][..count * state].copy_from_slice(&self.after[at - count * state..][..count * state]);
                for i in 0..count {
                    if q.ended[q.row(t - 1, i)] != 0 {
                        self.before[at + i * state..][..state].fill(0.0);
                    }
                }
            }
            self.packed.step(
                isa,
                body,
                count,
                &self.before[at..][..count * state],
                &mut self.gates[gates_at..][..count * wide],
                &mut self.recurrent[gates_at..][..count * wide],
                &mut self.after[at..][..count * state],
            );
        }
    }

    /// Some steps back, the last of which no slope comes to from behind; `after` holds the slopes of the losses at the cell's
    /// outputs there, and 0 where no head looks.
    pub fn backward(&mut self, isa: Isa, q: &Sequences<'_>, steps: Range<usize>, x: &mut [f32], slopes: &mut [f32]) {
        let (body, count) = (q.body, q.count);
        let (state, wide, mut index) = (body.state_pad(), body.gates_pad(), [0; ROWS]);
        for t in steps.clone().rev() {
            let (at, gates_at) = (t * count * state, t * count * wide);
            for i in 0..count {
                let d_state = &mut self.d_state[i * state..][..state];
                if q.ended[q.row(t, i)] != 0 {
                    d_state.fill(0.0);
                }
                d_state.iter_mut().zip(&self.after[at + i * state..]).for_each(|(d, here)| *d += here);
            }
            self.packed.step_back(
                isa,
                body,
                count,
                &self.before[at..][..count * state],
                &mut self.gates[gates_at..][..count * wide],
                &mut self.recurrent[gates_at..][..count * wide],
                self.d_state,
            );
        }
        let all = q.of_steps(steps);
        for row in all.clone().step_by(ROWS) {
            let rows = q.block(row, all.end, &mut index);
            q.gather(q.obs, &index[..rows], x);
            self.packed.gradient(
                isa,
                body,
                (x, body.front.input),
                rows,
                &self.before[row * state..][..rows * state],
                &self.gates[row * wide..][..rows * wide],
                &self.recurrent[row * wide..][..rows * wide],
                slopes,
                self.grad,
            );
        }
    }
}

/// States that become slopes: no head looks at an LSTM's `c`.
pub fn clear(body: &Body, states: &mut [f32]) {
    if body.state_len() > body.hidden {
        states.fill(0.0);
    }
}
