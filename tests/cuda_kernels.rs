//! Does every CUDA kernel equal its op's definition? The unchanged sources run on the CPU (`tests/cuda_sim/`), under
//! several orders of threads and blocks, alone and in a cohort, again under AddressSanitizer, and in search of races.

mod common;

use common::cuda_sim::{self, Build, Config, Library, SCHEDULES};
use common::ops::{Buffers, POISON, distance, inputs};
use slm_fast::device::{Kernel, Kind};
use slm_fast::op::{ALL, Entry, Role};

/// Sessions of a cohort.
const SESSIONS: usize = 3;
/// A NaN that no op computes, for words that no one may touch.
const UNTOUCHED: u32 = 0x7FDA_AAAA;
/// Words that a slice's start is aligned to.
const ALIGN: usize = 16;

/// A block of device memory: exactly as long as asked for, starting on 64 bytes.
struct Block {
    start: *mut u32,
    words: usize,
}

impl Block {
    fn layout(words: usize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(words.max(1) * 4, 4 * ALIGN).expect("a small size")
    }

    fn new(words: usize, fill: u32) -> Block {
        // SAFETY: the size is not zero; every word is written before it is read
        let start = unsafe { std::alloc::alloc(Block::layout(words)) }.cast::<u32>();
        assert!(!start.is_null());
        (0..words).for_each(|i| unsafe { start.add(i).write(fill) });
        Block { start, words }
    }

    fn words(&self) -> &[u32] {
        // SAFETY: allocated and filled in `new`; no kernel runs meanwhile
        unsafe { std::slice::from_raw_parts(self.start, self.words) }
    }

    fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: as above, and `&mut self` is exclusive
        unsafe { std::slice::from_raw_parts_mut(self.start, self.words) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this very layout
        unsafe { std::alloc::dealloc(self.start.cast(), Block::layout(self.words)) }
    }
}

/// An argument's memory `[S, stride]`.
struct Slices {
    block: Block,
    len: usize,
    stride: usize,
}

impl Slices {
    fn new(sessions: usize, len: usize, fill: u32) -> Slices {
        let stride = len.next_multiple_of(ALIGN);
        Slices { block: Block::new(sessions * stride, fill), len, stride }
    }

    fn slice(&self, s: usize) -> &[u32] {
        &self.block.words()[s * self.stride..][..self.len]
    }

    fn slice_mut(&mut self, s: usize) -> &mut [u32] {
        &mut self.block.words_mut()[s * self.stride..][..self.len]
    }

    fn padding(&self, s: usize) -> &[u32] {
        &self.block.words()[s * self.stride..][self.len..self.stride]
    }

    /// As `Read`, `Write` and `Update` in `kernels/lib/core.cuh`.
    fn param(&self) -> [u32; 4] {
        let address = self.block.start as u64;
        [address as u32, (address >> 32) as u32, self.stride as u32, self.len as u32]
    }

    /// Forbids the kernels what is not theirs: padding, and slices of sessions that do not run.
    fn guard(&self, library: &Library, active: &[usize], forbidden: bool) {
        for s in 0..self.block.words / self.stride.max(1) {
            let kept = if active.contains(&s) { self.len } else { 0 };
            let start = self.block.start.wrapping_add(s * self.stride + kept);
            library.forbid(start.cast(), (self.stride - kept) * 4, forbidden);
        }
    }
}

/// How a launch differs from others that must give the same bits.
struct Variation<'a> {
    schedule: usize,
    /// Sessions that run, in the order of the table.
    active: &'a [usize],
    /// Words that nothing may depend on: outputs at the start, and scratch.
    stale: u32,
    scratch: u32,
}

/// Runs a case's kernels for a cohort that starts from `given`; what the buffers hold afterwards.
fn launch(entry: &Entry, case: usize, given: &[Buffers], how: &Variation) -> Vec<Buffers> {
    let (args, kernels, sessions) = ((entry.args)(case), (entry.kernels)(case), given.len());
    let what = format!("{} case {case}, {} schedule", entry.name, SCHEDULES[how.schedule]);
    assert!(!kernels.is_empty(), "{} case {case} has no CUDA kernels", entry.name);

    let mut slices: Vec<Slices> = args.iter().map(|arg| Slices::new(sessions, arg.len(), UNTOUCHED)).collect();
    for (a, (slices, arg)) in slices.iter_mut().zip(&args).enumerate() {
        for s in 0..sessions {
            match arg.role {
                Role::Write if how.active.contains(&s) => slices.slice_mut(s).fill(how.stale),
                _ => slices.slice_mut(s).copy_from_slice(&given[s][a]),
            }
        }
    }
    let before: Vec<Buffers> = (0..sessions).map(|s| slices.iter().map(|x| x.slice(s).to_vec()).collect()).collect();
    let scratch = Slices::new(sessions, (entry.device_scratch)(case), how.scratch);
    let mut table = Block::new(1 + sessions, u32::MAX);
    table.words_mut()[0] = how.active.len() as u32;
    for (to, s) in table.words_mut()[1..].iter_mut().zip(how.active) {
        *to = *s as u32;
    }

    for (k, kernel) in kernels.iter().enumerate() {
        let library = cuda_sim::with_entry(&kernel.entry);
        let memory = || slices.iter().chain([&scratch]);
        memory().for_each(|slices| slices.guard(library, how.active, true));
        library.forbid(table.start.wrapping_add(1 + how.active.len()).cast(), (sessions - how.active.len()) * 4, true);
        let config = config(kernel, sessions, how.schedule, (case * 7 + k) as u32);
        // SAFETY: buffers have the sizes that the op declares
        let result = unsafe { library.launch(&kernel.entry, &config, &mut params(kernel, &table, memory())) };
        memory().for_each(|slices| slices.guard(library, how.active, false));
        library.forbid(table.start.cast(), table.words * 4, false);
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    for (slices, arg) in slices.iter().zip(&args) {
        let untouched = (0..sessions).all(|s| slices.padding(s).iter().all(|&word| word == UNTOUCHED));
        assert!(untouched, "{what}: writes past the end of `{}`", arg.name);
    }
    let ends = (0..sessions).flat_map(|s| scratch.padding(s)).all(|&word| word == how.scratch);
    assert!(ends, "{what}: writes past the end of its scratch");
    let after: Vec<Buffers> = (0..sessions).map(|s| slices.iter().map(|x| x.slice(s).to_vec()).collect()).collect();
    for s in 0..sessions {
        for (a, arg) in args.iter().enumerate() {
            let fixed = arg.role == Role::Read || !how.active.contains(&s);
            assert!(!fixed || after[s][a] == before[s][a], "{what}: changes `{}` of session {s}", arg.name);
        }
    }
    after
}

fn config(kernel: &Kernel, sessions: usize, schedule: usize, seed: u32) -> Config {
    Config {
        grid: [kernel.tiles, sessions as u32, kernel.parts],
        block: [kernel.threads, 1, 1],
        shared_bytes: kernel.shared_bytes,
        schedule: schedule as u32,
        seed,
    }
}

/// The three parameters of every kernel, as words.
fn params<'a>(kernel: &Kernel, table: &Block, memory: impl Iterator<Item = &'a Slices>) -> Vec<Vec<u32>> {
    let shape = kernel.shape.iter().flat_map(|field| field.words.clone()).collect();
    let table = table.start as u64;
    vec![shape, vec![table as u32, (table >> 32) as u32], memory.flat_map(Slices::param).collect()]
}

/// Compares a session's results with what the definition makes of its inputs.
fn compare(entry: &Entry, case: usize, s: usize, given: &Buffers, got: &Buffers) {
    let (args, tolerance) = ((entry.args)(case), (entry.tolerance)(case));
    let mut expected = given.clone();
    (entry.define)(case, &mut expected);
    for (a, arg) in args.iter().enumerate().filter(|(_, arg)| arg.role != Role::Read) {
        let wrong = |i: &usize| distance(arg.dtype, got[a][*i], expected[a][*i]) > tolerance;
        let count = (0..arg.len()).filter(wrong).count();
        if let Some(i) = (0..arg.len()).find(wrong) {
            let (x, y) = (got[a][i], expected[a][i]);
            panic!(
                "{} case {case}, session {s}: `{}`{:?}[{i}] is {:?} ({x:#x}), the definition has {:?} ({y:#x}), off \
                 {:e}; {count} of {} words are wrong",
                entry.name,
                arg.name,
                arg.dims,
                f32::from_bits(x),
                f32::from_bits(y),
                distance(arg.dtype, x, y),
                arg.len()
            );
        }
        let kept = arg.role == Role::Write && got[a].contains(&POISON);
        assert!(!kept, "{} case {case}, session {s}: `{}` is not written whole", entry.name, arg.name);
    }
}

fn check(entry: &Entry, case: usize) {
    let args = (entry.args)(case);
    let given: Vec<Buffers> = (0..SESSIONS).map(|s| inputs(entry, case, &args, s)).collect();
    if Build::here() != Build::Plain {
        // what is touched hardly depends on the order: once is enough, and slow
        let how = Variation { schedule: 3, active: &[2, 0], stale: POISON, scratch: POISON };
        let got = launch(entry, case, &given, &how);
        return how.active.iter().for_each(|&s| compare(entry, case, s, &given[s], &got[s]));
    }
    let all: Vec<usize> = (0..SESSIONS).collect();
    let first = launch(entry, case, &given, &Variation { schedule: 0, active: &all, stale: POISON, scratch: POISON });
    for s in 0..SESSIONS {
        compare(entry, case, s, &given[s], &first[s]);
    }
    let written = |buffers: &Buffers| -> Buffers {
        args.iter().zip(buffers).filter(|(arg, _)| arg.role != Role::Read).map(|(_, words)| words.clone()).collect()
    };
    let same = |s: usize, got: &Buffers, why: &str| {
        assert!(written(got) == written(&first[s]), "{} case {case}, session {s}: other bits {why}", entry.name);
    };
    for schedule in 1..SCHEDULES.len() {
        let how = Variation { schedule, active: &all, stale: 0x3F80_0000, scratch: 0x0101_0101 << schedule };
        for (s, got) in launch(entry, case, &given, &how).iter().enumerate() {
            same(s, got, &format!("under the {} schedule, from other scratch", SCHEDULES[schedule]));
        }
    }
    for active in [&[2, 0][..], &[1]] {
        let how = Variation { schedule: 1, active, stale: 0, scratch: 0 };
        let got = launch(entry, case, &given, &how);
        active.iter().for_each(|&s| same(s, &got[s], &format!("when sessions {active:?} run")));
    }
    let how = Variation { schedule: 0, active: &[0], stale: POISON, scratch: u32::MAX };
    same(1, &launch(entry, case, &given[1..2], &how)[0], "when alone");
}

/// The check of an op, the same in a process where AddressSanitizer watches every access, and in one that finds races.
macro_rules! ops {
    ($($op:ident),* $(,)?) => {
        const OPS: &[&str] = &[$(stringify!($op)),*];
        $(mod $op {
            #[test]
            fn equals_its_definition() {
                super::every_case(stringify!($op));
            }

            #[test]
            fn touches_its_own_memory_only() {
                super::again(stringify!($op), super::cuda_sim::sanitized);
            }

            #[test]
            fn orders_its_threads() {
                super::again(stringify!($op), super::cuda_sim::watched);
            }
        })*
    };
}

ops!(
    schedule,
    rollout,
    recurrent_rollout,
    log,
    advantage,
    shuffle,
    sequence_order,
    minibatch_grad,
    sequence_grad,
    critic_grad,
    actor_grad,
    optimize,
    sample,
    td_grad,
    sequence_td_grad,
    crossq_grad,
    fold,
    prioritize,
    target,
    obs_moments,
    episode_returns,
    imitate
);

fn every_case(op: &str) {
    if !cuda_sim::available() {
        return;
    }
    let entry = ALL.iter().find(|entry| entry.name == op).expect("an op of the list");
    let only = std::env::var("CASE").ok().map(|case| case.parse::<usize>().expect("CASE is a number"));
    let asked = |case: &usize| only.is_none_or(|only| only == *case) && (entry.on)(*case, Kind::Cuda);
    for case in (0..(entry.cases)()).filter(asked) {
        check(entry, case);
    }
}

/// The check of an op in a child process whose kernels are built otherwise.
fn again(op: &str, child: fn(&str) -> Result<(), String>) {
    if !cuda_sim::available() || Build::here() != Build::Plain {
        return;
    }
    if let Err(text) = child(&format!("{op}::equals_its_definition")) {
        panic!("{op}:\n{text}");
    }
}

#[test]
fn every_op_is_checked() {
    assert_eq!(ALL.iter().map(|entry| entry.name).collect::<Vec<_>>(), OPS);
}
