//! Steps against PyTorch, clipping and losses of groups, and faults.

use super::*;
use crate::device::cpu::{Cpu, Isa};
use crate::device::{Buf, Device, Keep, Layout, Memory, Queue};

/// A recorded step on one session, with its buffers.
struct Bench {
    queue: Queue,
    memory: Memory,
    device: Device,
    partial: Buf<f32>,
    loss: Buf<f32>,
    hyper: Buf<f32>,
    schedule: Buf<f32>,
    params: Buf<f32>,
    clock: Buf<u32>,
    update: Buf<f32>,
    fault: Buf<u32>,
}

impl Bench {
    fn new(shape: OptimizeShape) -> Bench {
        let (mut layout, mut queue) = (Layout::new(1), Queue::default());
        let groups = shape.groups.len();
        let partial = layout.buf("partial", &[shape.tiles, shape.p], Keep::Scratch);
        let loss = layout.buf("partial_loss", &[shape.tiles, update::LOSSES], Keep::Scratch);
        let hyper = layout.buf("hyper", &[hyper::len(groups)], Keep::Saved);
        let schedule = layout.buf("schedule", &[schedule::LEN + groups], Keep::Scratch);
        let params = layout.buf("params", &[shape.p], Keep::Saved);
        let slots = layout.buf("slots", &[2, shape.p], Keep::Saved);
        let steps = layout.buf("steps", &[groups], Keep::Saved);
        let clock = layout.buf("clock", &[hyper::CLOCK_LEN], Keep::Saved);
        let update = layout.buf("update", &[update::LEN], Keep::Saved);
        let fault = layout.buf("fault", &[fault::LEN], Keep::Saved);
        let op = Optimize {
            shape,
            partial,
            partial_loss: loss,
            hyper,
            schedule,
            params,
            slots,
            steps,
            clock,
            update,
            fault,
        };
        op.record(&mut layout, &mut queue);
        let memory = layout.allocate().unwrap();
        let device = Device::Cpu(Cpu::new(1, Isa::detect()));
        Bench { queue, memory, device, partial, loss, hyper, schedule, params, clock, update, fault }
    }

    fn set(&mut self, group: usize, word: usize, value: f32) {
        self.memory.write(self.hyper, 0)[hyper::group(group) + word] = value;
    }

    fn step(&mut self, partial: &[f32]) {
        self.memory.write(self.partial, 0).copy_from_slice(partial);
        self.queue.replay(&self.device, &mut self.memory, &[0]).unwrap();
    }
}

/// Two parameters from (1, -2) after three fixed gradients.
fn three_steps(kind: Kind, momentum: f32, weight_decay: f32) -> [f32; 2] {
    let mut bench = Bench::new(OptimizeShape::new(2, 1, 4, vec![Group::new(0..2, kind)]));
    bench.memory.write(bench.params, 0).copy_from_slice(&[1.0, -2.0]);
    for (word, value) in [(hyper::B1, 0.875), (hyper::B2, 0.96875), (hyper::EPS, 1e-3)] {
        bench.set(0, word, value);
    }
    bench.set(0, hyper::MOMENTUM, momentum);
    bench.set(0, hyper::WEIGHT_DECAY, weight_decay);
    bench.set(0, hyper::CLIP_NORM, f32::INFINITY);
    bench.memory.write(bench.schedule, 0)[schedule::LEN] = 0.1;
    for grad in [[0.5, -1.0], [0.25, 2.0], [-0.125, 0.5]] {
        bench.step(&grad);
    }
    assert_eq!(bench.memory.read(bench.clock, 0)[hyper::CLOCK_OPT], 3);
    bench.memory.read(bench.params, 0).try_into().unwrap()
}

#[test]
fn steps_are_those_of_pytorch() {
    // from the update rules in PyTorch's documentation, evaluated apart in double precision
    let sgd = |nesterov| Kind::Sgd { nesterov };
    for (kind, momentum, decay, expected) in [
        (Kind::Adam, 0.0, 0.0, [0.752_201_8, -1.980_406]),
        (Kind::Adam, 0.0, 0.5, [0.715_218_1, -1.846_305_8]),
        (Kind::AdamW, 0.0, 0.5, [0.623_955_8, -1.703_009_2]),
        (Kind::RmsProp, 0.0, 0.0, [0.654_851_8, -2.040_295_1]),
        (Kind::RmsProp, 0.5, 0.25, [0.292_496_7, -1.829_55]),
        (sgd(false), 0.0, 0.0, [0.937_5, -2.15]),
        (sgd(false), 0.5, 0.25, [0.788_078_1, -1.969_906_2]),
        (sgd(true), 0.5, 0.0, [0.881_25, -2.237_5]),
    ] {
        let got = three_steps(kind, momentum, decay);
        let off = got.iter().zip(expected).map(|(x, y): (&f32, f32)| (x - y).abs()).fold(0.0, f32::max);
        assert!(off < 1e-6, "{kind:?} {momentum} {decay}: {got:?}, expected {expected:?}");
    }
}

fn two_groups() -> Bench {
    let sgd = |range| Group::new(range, Kind::Sgd { nesterov: false });
    let mut bench = Bench::new(OptimizeShape::new(5, 2, 2, vec![sgd(0..2), sgd(2..4)]));
    bench.set(0, hyper::CLIP_NORM, 1.0);
    bench.set(1, hyper::CLIP_NORM, 100.0);
    bench.memory.write(bench.schedule, 0).copy_from_slice(&[0.2, 0.5, 0.0, 0.0, 0.0, 1.0, 1.0]);
    bench.memory.write(bench.loss, 0).copy_from_slice(&[1., 2., 3., 4., 5., 1., 4., 1., 0., 1.]);
    bench.memory.write(bench.hyper, 0)[hyper::POLICY_LOSS_COEF] = 2.0;
    bench.memory.write(bench.hyper, 0)[hyper::VAL_LOSS_COEF] = 0.5;
    bench
}

#[test]
fn groups_are_clipped_apart_and_losses_are_means() {
    let mut bench = two_groups();
    // groups (3, 4) and (0, 12) in two tiles; the last parameter is in no group
    bench.step(&[1.0, 1.0, 0.0, 6.0, 9.0, 2.0, 3.0, 0.0, 6.0, 9.0]);
    let params = bench.memory.read(bench.params, 0);
    assert!((params[0] + 0.6).abs() < 1e-6 && (params[1] + 0.8).abs() < 1e-6, "{params:?}");
    assert_eq!(params[2..], [0.0, -12.0, 0.0]);
    // means 1 3 2 2 3; loss 2 * 1 + 0.5 * 3 - 0.5 * 2
    assert_eq!(bench.memory.read(bench.update, 0), [1.0, 3.0, 2.0, 2.0, 3.0, 2.5, 13.0, 1.0, 0.0]);
    assert_eq!(bench.memory.read(bench.clock, 0)[hyper::CLOCK_OPT], 2);
    assert_eq!(bench.memory.read(bench.fault, 0)[fault::OP], 0);
}

#[test]
fn the_first_number_that_is_not_finite_stops_the_session() {
    let fine = [1.0; 10];
    let mut bench = two_groups();
    bench.memory.write(bench.clock, 0)[hyper::CLOCK_STEP] = 70;
    bench.step(&fine);
    let before = bench.memory.read(bench.params, 0).to_vec();
    let mut bad = fine;
    bad[3] = f32::INFINITY;
    for grad in [bad, fine] {
        bench.step(&grad);
        assert_eq!(bench.memory.read(bench.params, 0), before);
        assert_eq!(bench.memory.read(bench.fault, 0), [fault::GRADIENT, 70, 2, 1]);
        assert_eq!(bench.memory.read(bench.clock, 0)[hyper::CLOCK_OPT], 2);
    }
    // a loss
    let mut bench = two_groups();
    bench.memory.write(bench.loss, 0)[1] = f32::NAN;
    bench.step(&fine);
    assert_eq!(bench.memory.read(bench.fault, 0)[fault::OP], fault::GRADIENT);
    assert_eq!(bench.memory.read(bench.params, 0), [0.0; 5]);
    // a step too large
    let mut bench = two_groups();
    bench.memory.write(bench.schedule, 0)[schedule::LEN + 1] = f32::MAX;
    bench.step(&[2.0; 10]);
    assert_eq!(bench.memory.read(bench.fault, 0)[fault::OP], fault::PARAMS);
    assert_eq!(bench.memory.read(bench.fault, 0)[fault::GROUP], 1);
}
