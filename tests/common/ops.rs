//! What tests of ops share: inputs of a case, and how far a result is from its definition.

use super::recorded::Recorded;
use slm_fast::device::{Dtype, Layout, Queue};
use slm_fast::op::{Arg, Draw, Entry, Role};

/// A NaN that no op computes.
pub const POISON: u32 = 0x7FD5_5555;

/// The words of one session's buffers, in the order of arguments.
pub type Buffers = Vec<Vec<u32>>;

/// Inputs drawn from the declaration, outputs poisoned.
pub fn inputs(entry: &Entry, case: usize, args: &[Arg], seed: usize) -> Buffers {
    let mut draw = Draw::new(1 + 1_000 * case as u32 + seed as u32);
    let mut buffers = (entry.sample)(case, &mut draw);
    for (arg, words) in args.iter().zip(&mut buffers) {
        assert_eq!(arg.len(), words.len());
        if arg.role == Role::Write {
            words.fill(POISON);
        }
    }
    buffers
}

/// A queue with a case's launch alone.
pub fn queue(entry: &Entry, case: usize, layout: &mut Layout) -> Queue {
    let mut queue = Queue::default();
    queue.push(Recorded { call: (entry.launch)(case, layout).into(), hard: true });
    queue
}

/// The largest `|a - b| / (1 + |b|)`, infinite where one is a number and the other is not.
pub fn distance(dtype: Dtype, a: u32, b: u32) -> f64 {
    if a == b {
        return 0.0;
    }
    let (x, y) = (f64::from(f32::from_bits(a)), f64::from(f32::from_bits(b)));
    match dtype {
        Dtype::U32 => f64::INFINITY,
        Dtype::F32 if x.is_nan() && y.is_nan() && a != POISON && b != POISON => 0.0,
        Dtype::F32 if x == y => 0.0,
        Dtype::F32 if x.is_nan() || y.is_nan() => f64::INFINITY,
        Dtype::F32 => (x - y).abs() / (1.0 + y.abs()),
    }
}
