//! Is a replay memory what it says? Frequencies of what is drawn against the exact distribution, and a long run of
//! inserts, draws and new priorities at odd sizes against a plain copy of the priorities, with guards behind every buffer.

use slm_fast::device::{Buf, Device, Keep, Layout, Memory, Queue};
use slm_fast::op::hyper::{self, CLOCK_STEP, update};
use slm_fast::op::lib::tree;
use slm_fast::op::prioritize::{Prioritize, PrioritizeShape};
use slm_fast::op::sample::{Drawing, Sample, SampleShape};
use slm_fast::op::{Draw, schedule};

/// A ring without observations: what is drawn depends on none.
struct Ring {
    memory: Memory,
    device: Device,
    insert: Queue,
    draw: Queue,
    learn: Queue,
    clock: Buf<u32>,
    hyper: Buf<f32>,
    reward: Buf<f32>,
    ended: Buf<u32>,
    index: Buf<u32>,
    last: Buf<u32>,
    returns: Buf<f32>,
    discount: Buf<f32>,
    weight: Buf<f32>,
    error: Buf<f32>,
    tree: Buf<f32>,
    top: Buf<f32>,
}

/// Sizes of a ring and of what is drawn from it.
#[derive(Clone, Copy)]
struct Size {
    c: usize,
    n: usize,
    batch: usize,
    n_step: usize,
    newest: usize,
    drawing: Drawing,
}

impl Ring {
    fn new(s: Size) -> Ring {
        let mut layout = Layout::new(1);
        let [c, n, batch] = [s.c, s.n, s.batch];
        let seed = layout.buf("seed", &[2], Keep::Saved);
        let clock = layout.buf("clock", &[hyper::CLOCK_LEN], Keep::Saved);
        let hyper = layout.buf("hyper", &[hyper::len(1)], Keep::Saved);
        let schedule = layout.buf("schedule", &[schedule::LEN + 1], Keep::Saved);
        let reward = layout.buf("reward", &[c, n], Keep::Saved);
        let ended = layout.buf("ended", &[c, n], Keep::Saved);
        let [index, last] = ["index", "last"].map(|name| layout.buf(name, &[batch], Keep::Saved));
        let [returns, discount, weight, error] =
            ["returns", "discount", "weight", "error"].map(|name| layout.buf(name, &[batch], Keep::Saved));
        let leaves = if s.drawing == Drawing::Prioritized { tree::len(c * n) } else { 0 };
        let tree = layout.buf("tree", &[leaves], Keep::Saved);
        let top = layout.buf("top", &[1], Keep::Saved);
        let update = layout.buf("update", &[update::LEN], Keep::Saved);
        let [mut insert, mut draw, mut learn] = std::array::from_fn(|_| Queue::default());
        if leaves > 0 {
            for (queue, new, batch) in [(&mut insert, 1, 0), (&mut learn, 0, batch)] {
                let shape =
                    PrioritizeShape { c, n, groups: 1, at: 1, new, errors: s.batch, batch, start: 0, samples: s.batch };
                Prioritize { shape, hyper, clock, index, error, tree, top }.record(&mut layout, queue);
            }
        }
        let shape = SampleShape {
            c,
            n,
            groups: 1,
            at: 1,
            batch,
            batches: 1,
            first: 0,
            drawing: s.drawing,
            newest: s.newest,
            n_step: s.n_step,
            begins: true,
        };
        Sample {
            shape,
            seed,
            clock,
            hyper,
            schedule,
            reward,
            ended,
            tree,
            index,
            last,
            returns,
            discount,
            weight,
            update,
        }
        .record(&mut layout, &mut draw);
        let mut memory = layout.allocate().expect("memory");
        let table = memory.write(hyper, 0);
        (table[hyper::PRIORITY_ALPHA], table[hyper::PRIORITY_EPSILON]) = (0.7, 0.01);
        (table[hyper::GAMMA], table[hyper::REWARD_SCALE]) = (0.5, 2.0);
        (table[hyper::REWARD_CLIP_LOW], table[hyper::REWARD_CLIP_HIGH]) = (-3.0, 3.0);
        memory.write(seed, 0).copy_from_slice(&[5, 1]);
        let device = Device::cpu(1);
        Ring {
            memory,
            device,
            insert,
            draw,
            learn,
            clock,
            hyper,
            reward,
            ended,
            index,
            last,
            returns,
            discount,
            weight,
            error,
            tree,
            top,
        }
    }

    fn at(&mut self, step: usize) {
        self.memory.write(self.clock, 0)[CLOCK_STEP] = step as u32;
    }

    /// Other draws at the same step.
    fn seed(&mut self, seed: usize) {
        let key = self.memory.layout().entries().iter().position(|e| e.name == "seed").expect("it has a seed");
        self.memory.words_mut(key, 0)[1] = seed as u32;
    }

    fn draw(&mut self) -> &[u32] {
        self.draw.replay(&self.device, &mut self.memory, &[0]).expect("the cpu does not fail");
        self.memory.read(self.index, 0)
    }
}

/// Pearson's statistic of counts against weights, and what it may be: its mean and five deviations more.
fn chi_square(counts: &[u64], weights: &[f64]) -> (f64, f64) {
    let (n, sum) = (counts.iter().sum::<u64>() as f64, weights.iter().sum::<f64>());
    let terms = counts.iter().zip(weights).map(|(&count, weight)| {
        let expected = n * weight / sum;
        (count as f64 - expected).powi(2) / expected
    });
    let freedom = counts.len() as f64 - 1.0;
    (terms.sum(), freedom + 5.0 * (2.0 * freedom).sqrt())
}

#[test]
fn rows_are_drawn_as_often_as_their_priorities_say() {
    for (c, n, batch) in [(40, 3, 32), (301, 5, 17)] {
        let mut ring = Ring::new(Size { c, n, batch, n_step: 1, newest: 0, drawing: Drawing::Prioritized });
        let (leaves, levels) = (c * n, tree::levels(c * n));
        let weights: Vec<f32> = (0..leaves).map(|i| 0.05 + ((i * 37) % 11) as f32).collect();
        let tree = ring.memory.write(ring.tree, 0);
        tree[..leaves].copy_from_slice(&weights);
        (0..leaves).for_each(|leaf| tree::update(tree, &levels, leaf));
        let mut counts = vec![0; leaves];
        for step in 0..40_000 {
            ring.at(c + step);
            ring.draw().iter().for_each(|&row| counts[row as usize] += 1);
        }
        let exact: Vec<f64> = weights.iter().map(|&w| w.into()).collect();
        let (found, bound) = chi_square(&counts, &exact);
        assert!(found < bound, "{c} x {n}: {found} for at most {bound}");
        // and the statistic would see a row that is drawn a tenth too often
        let mut wrong = exact;
        wrong.iter_mut().step_by(2).for_each(|w| *w *= 1.1);
        let (found, bound) = chi_square(&counts, &wrong);
        assert!(found > bound, "{c} x {n}: {found} does not see a wrong distribution");
    }
}

#[test]
fn uniform_rows_are_drawn_equally_often_from_what_is_there() {
    let mut ring = Ring::new(Size { c: 50, n: 3, batch: 19, n_step: 1, newest: 0, drawing: Drawing::Uniform });
    // 21 vector steps are there, then all
    for (begin, rows) in [(20, 63), (1_000_000, 150)] {
        let mut counts = vec![0; rows];
        for step in 0..10_000 {
            // while the ring fills, the clock has to stand still, and the seed moves instead
            ring.at(if begin == 20 { begin } else { begin + step });
            ring.seed(step);
            ring.draw().iter().for_each(|&row| counts[row as usize] += 1);
        }
        let (found, bound) = chi_square(&counts, &vec![1.0; rows]);
        assert!(found < bound, "{found} for at most {bound}");
    }
}

#[test]
fn sequences_are_steps_of_one_environment_one_after_another_and_all_are_drawn_equally_often() {
    let (c, n, steps, sequences) = (20, 3, 6, 7);
    let drawing = Drawing::Sequences { steps };
    let mut ring = Ring::new(Size { c, n, batch: steps * sequences, n_step: 2, newest: 0, drawing });
    // 11 vector steps are there, then all, with the seam in the middle
    for (newest, filled) in [(10, 11), (1_000_006, c)] {
        let mut counts = vec![0; (filled + 1 - steps) * n];
        let oldest = newest + 1 - filled;
        for seed in 0..10_000 {
            ring.at(newest);
            ring.seed(seed);
            let index = ring.draw();
            for i in 0..sequences {
                let row = |t: usize| index[t * sequences + i] as usize;
                let start = (row(0) / n + c - oldest % c) % c;
                for t in 0..steps {
                    assert_eq!(row(t), (oldest + start + t) % c * n + row(0) % n, "step {t} behind {start}");
                }
                // a start that does not fit is out of bounds
                counts[start * n + row(0) % n] += 1;
            }
            assert!(ring.memory.read(ring.weight, 0).iter().all(|&weight| weight == 1.0));
        }
        let (found, bound) = chi_square(&counts, &vec![1.0; counts.len()]);
        assert!(found < bound, "{found} for at most {bound}");
    }
    // one step less than a sequence
    ring.at(steps - 2);
    ring.draw();
    assert!(ring.memory.read(ring.weight, 0).iter().all(|&weight| weight == 0.0));
}

#[test]
fn an_hour_of_inserts_and_draws_keeps_every_priority() {
    // SLM Lab steps CartPole 104 times a second with such a memory: an hour is 374,000 transitions
    let sizes = [(1, 7, 3, 2), (3, 41, 32, 1), (4, 1_251, 64, 5), (5, 16, 1, 3), (7, 300, 129, 1)];
    for (n, c, batch, n_step) in sizes {
        let newest = n.min(batch);
        let mut ring = Ring::new(Size { c, n, batch, n_step, newest, drawing: Drawing::Prioritized });
        let (mut draw, levels) = (Draw::new(9), tree::levels(c * n));
        let (mut plain, mut top) = (vec![0.0f32; c * n], 0.0f32);
        for step in 0..75_000 / n {
            let slot = step % c * n;
            for i in slot..slot + n {
                ring.memory.write(ring.reward, 0)[i] = draw.range(-2.0, 2.0);
                ring.memory.write(ring.ended, 0)[i] = draw.below(12).saturating_sub(8);
                plain[i] = top.max(1.0);
            }
            ring.at(step);
            ring.insert.replay(&ring.device, &mut ring.memory, &[0]).unwrap();
            let index = ring.draw().to_vec();
            let filled = (step + 1).min(c) * n;
            assert!(index.iter().all(|&row| (row as usize) < filled), "step {step}: a row that is not there yet");
            let fresh: Vec<u32> = index[batch - newest..].to_vec();
            assert!(fresh.iter().all(|&row| (slot..slot + n).contains(&(row as usize))), "the newest rows come last");
            check_returns(&ring, &index, step, Size { c, n, batch, n_step, newest, drawing: Drawing::Prioritized });
            // rows that were drawn twice have one error
            let errors: Vec<f32> = index.iter().map(|&row| (row % 17) as f32 * 0.25).collect();
            ring.memory.write(ring.error, 0).copy_from_slice(&errors);
            ring.learn.replay(&ring.device, &mut ring.memory, &[0]).unwrap();
            let table = ring.memory.read(ring.hyper, 0);
            let (alpha, epsilon) = (f64::from(table[hyper::PRIORITY_ALPHA]), f64::from(table[hyper::PRIORITY_EPSILON]));
            let tree = ring.memory.read(ring.tree, 0);
            for (&row, error) in index.iter().zip(errors) {
                let exact = (f64::from(error) + epsilon).powf(alpha);
                let has = tree[row as usize];
                assert!((f64::from(has) - exact).abs() < 1e-5 * (1.0 + exact), "{has} for {exact}");
                (plain[row as usize], top) = (has, top.max(has));
            }
            assert_eq!(ring.memory.read(ring.top, 0), [top]);
        }
        let tree = ring.memory.read(ring.tree, 0);
        assert_eq!(tree[..c * n], plain[..], "{c} x {n}: every priority is where it belongs");
        let (total, exact) = (tree::total(tree, &levels), plain.iter().map(|&p| f64::from(p)).sum::<f64>());
        assert!((f64::from(total) - exact).abs() < 1e-5 * exact, "{total} for {exact}");
        assert_eq!(ring.memory.overrun(), None);
    }
}

/// Returns of what was drawn, walked through by hand.
fn check_returns(ring: &Ring, index: &[u32], step: usize, s: Size) {
    let (reward, ended) = (ring.memory.read(ring.reward, 0), ring.memory.read(ring.ended, 0));
    for (i, &row) in index.iter().enumerate() {
        // the age of the row in vector steps: how far a return may walk
        let age = (step % s.c + s.c - row as usize / s.n) % s.c;
        let (mut sum, mut factor, mut at) = (0.0, 1.0, row as usize);
        for walked in 0..s.n_step.min(age + 1) {
            at = (row as usize + walked * s.n) % (s.c * s.n);
            sum += factor * f64::from((2.0 * reward[at]).clamp(-3.0, 3.0));
            factor *= 0.5;
            if ended[at] != 0 {
                break;
            }
        }
        let discount = if ended[at] & 1 != 0 { 0.0 } else { factor };
        let memory = &ring.memory;
        assert_eq!(memory.read(ring.last, 0)[i] as usize, at);
        assert!((f64::from(memory.read(ring.returns, 0)[i]) - sum).abs() < 1e-5);
        assert_eq!(f64::from(memory.read(ring.discount, 0)[i]), discount);
    }
}
