//! Does every op, on every instruction set, equal its definition? Is a session the same bits alone and in a cohort, on
//! one thread and on three?

mod common;

use common::ops::{Buffers, POISON, distance, inputs, queue};
use slm_fast::device::cpu::{Cpu, Isa};
use slm_fast::device::{Device, Kind, Layout};
use slm_fast::op::{ALL, Arg, Entry, Role};

/// More than the threads of some runs and fewer than those of others, so that both ways of sharing work are met.
const SESSIONS: usize = 3;
fn device(isa: Isa, threads: usize) -> Device {
    Device::Cpu(Cpu::new(threads, isa))
}

/// Runs a case for sessions that start from `inputs`, in one cohort.
fn replay(entry: &Entry, case: usize, device: &Device, inputs: &[&Buffers]) -> Vec<Buffers> {
    let mut layout = Layout::new(inputs.len());
    let queue = queue(entry, case, &mut layout);
    let mut memory = layout.allocate().unwrap();
    for (s, buffers) in inputs.iter().enumerate() {
        for (id, words) in buffers.iter().enumerate() {
            memory.words_mut(id, s).copy_from_slice(words);
        }
    }
    let sessions: Vec<usize> = (0..inputs.len()).collect();
    queue.replay(device, &mut memory, &sessions).unwrap();
    assert_eq!(memory.overrun(), None, "{} case {case} writes past the end of a buffer", entry.name);
    let session = |s| inputs[0].iter().enumerate().map(|(id, _)| memory.words(id, s).to_vec()).collect();
    sessions.into_iter().map(session).collect()
}

fn check(entry: &Entry, case: usize, isa: Isa) -> Vec<Buffers> {
    let (args, tolerance) = ((entry.args)(case), (entry.tolerance)(case));
    let place =
        |s: usize, arg: &Arg| format!("{} case {case}, {}, session {s}, `{}`", entry.name, isa.name(), arg.name);
    let given: Vec<Buffers> = (0..SESSIONS).map(|s| inputs(entry, case, &args, s)).collect();
    let cohort: Vec<&Buffers> = given.iter().collect();
    let got = replay(entry, case, &device(isa, 1), &cohort);
    for (s, got) in got.iter().enumerate() {
        let mut expected = given[s].clone();
        (entry.define)(case, &mut expected);
        for (a, arg) in args.iter().enumerate() {
            if arg.role == Role::Read {
                assert_eq!(got[a], given[s][a], "{}: an input has changed", place(s, arg));
                assert_eq!(expected[a], given[s][a], "{}: the definition changes an input", place(s, arg));
            } else {
                for (i, (x, y)) in got[a].iter().zip(&expected[a]).enumerate() {
                    let off = distance(arg.dtype, *x, *y);
                    let shown = (f32::from_bits(*x), f32::from_bits(*y));
                    assert!(off <= tolerance, "{}[{i}]: {shown:?} ({x:#x}, {y:#x}), off {off:e}", place(s, arg));
                    assert!(arg.role != Role::Write || *x != POISON, "{}[{i}] was not written", place(s, arg));
                }
            }
        }
    }
    for threads in [1, 2, 3, 4] {
        let device = device(isa, threads);
        let again = replay(entry, case, &device, &cohort);
        assert!(again == got, "{} case {case}, {}: other bits on {threads} threads", entry.name, isa.name());
        let alone = replay(entry, case, &device, &[&given[1]]).swap_remove(0);
        assert!(alone == got[1], "{} case {case}, {}: other bits when alone", entry.name, isa.name());
    }
    got
}

#[test]
fn every_op_equals_its_definition() {
    for entry in ALL {
        for case in (0..(entry.cases)()).filter(|&case| (entry.on)(case, Kind::Cpu)) {
            for isa in Isa::available() {
                check(entry, case, isa);
            }
        }
    }
}

#[test]
fn ops_without_nets_give_the_same_bits_on_every_instruction_set() {
    // nets may fuse multiply-adds where the machine has them
    let exact = ["schedule", "log", "advantage", "shuffle", "optimize", "obs_moments"];
    for entry in ALL.iter().filter(|entry| exact.contains(&entry.name)) {
        for case in (0..(entry.cases)()).filter(|&case| (entry.on)(case, Kind::Cpu)) {
            let bits: Vec<Vec<Buffers>> = Isa::available().into_iter().map(|isa| check(entry, case, isa)).collect();
            assert!(bits.windows(2).all(|pair| pair[0] == pair[1]), "{} case {case}", entry.name);
        }
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = ALL.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
}
