//! The order of environments in an epoch of a recurrent agent, whose minibatches are whole sequences, and how the
//! advantages of each minibatch are normalised.

use crate::device::{Kernel, Limits, Shader};
use crate::op::lib::sums;
use crate::op::shuffle::{Normalize, bits_of, keys_of, normalization, row_at};
use crate::op::{Draw, Shape, gpu, hyper};

/// Sizes and choices of [`SequenceOrder`].
#[derive(Debug, Clone)]
pub struct OrderShape {
    /// Vector steps of the rollout: rows of a sequence.
    pub t: usize,
    /// Environments: sequences of the rollout.
    pub n: usize,
    /// Sequences of a minibatch; the last one may have fewer.
    pub minibatch: usize,
    /// Epochs of the iteration, each with its own order.
    pub epochs: usize,
    pub normalize: Normalize,
    /// Environments in their own order (one full batch needs no shuffle).
    pub ordered: bool,
}

impl OrderShape {
    fn minibatches(&self) -> usize {
        self.n.div_ceil(self.minibatch)
    }
}

impl Shape for OrderShape {
    fn flops(&self) -> f64 {
        (self.epochs * (self.n * 120 + self.t * self.n * 4)) as f64
    }

    fn kernels(&self) -> Vec<Kernel> {
        gpu::sequence_order::kernels(self)
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::sequence_order::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::sequence_order::scratch(self)
    }

    fn cases() -> Vec<Self> {
        let case =
            |t, n, minibatch, epochs, normalize, ordered| OrderShape { t, n, minibatch, epochs, normalize, ordered };
        vec![
            case(1, 1, 1, 1, Normalize::Standardize, false),
            case(7, 5, 2, 3, Normalize::Standardize, false),
            case(33, 16, 4, 10, Normalize::Standardize, false),
            case(4, 70, 33, 2, Normalize::Percentile, false),
            case(3, 6, 6, 1, Normalize::None, false),
            case(5, 11, 11, 1, Normalize::Standardize, true),
            // several blocks of a gpu for a minibatch
            case(700, 17, 13, 2, Normalize::Standardize, false),
        ]
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        if arg == "percentiles" {
            words.copy_from_slice(&[-1.0, draw.range(-1.0, 3.0), 2.0, 0.0].map(f32::to_bits));
        }
        arg == "percentiles"
    }
}

crate::op! {
    /// For each epoch a permutation of the environments, by the network of `shuffle`, and the normalisation of the advantages
    /// of each minibatch, over all steps of its environments: `(advantage - moments[0]) * moments[1]`.
    SequenceOrder(d: OrderShape) = "sequence_order", within 1e-6, run = define {
        read seed: u32[2] in 0.0..1000.0;
        read clock: u32[hyper::CLOCK_LEN] in 0.0..1000.0;
        read advantage: f32[d.t, d.n] in -3.0..5.0;
        read percentiles: f32[4];
        write index: u32[d.epochs, d.n];
        // shift and factor of each minibatch
        write moments: f32[d.epochs, d.minibatches(), 2];
    }
}

fn define(d: &OrderShape, a: Args<'_>) {
    let bits = bits_of(d.n);
    let epochs = a.index.chunks_exact_mut(d.n).zip(a.moments.chunks_exact_mut(2 * d.minibatches()));
    for (epoch, (index, moments)) in epochs.enumerate() {
        let keys = keys_of(epoch, a.seed, a.clock);
        for (i, env) in index.iter_mut().enumerate() {
            *env = if d.ordered { i as u32 } else { row_at(i as u32, d.n, bits, keys) };
        }
        for (envs, moments) in index.chunks(d.minibatch).zip(moments.chunks_exact_mut(2)) {
            let rows = d.t * envs.len();
            let row = |i: usize| a.advantage[i / envs.len() * d.n + envs[i % envs.len()] as usize];
            let (mean, m2) = sums::mean_m2(rows, |i| row(i).into());
            moments.copy_from_slice(&normalization(d.normalize, rows, mean, m2, a.percentiles));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minibatches_are_whole_sequences_with_moments_of_their_own() {
        let d = OrderShape { t: 2, n: 3, minibatch: 2, epochs: 1, normalize: Normalize::Standardize, ordered: false };
        let (mut index, mut moments) = ([9; 3], [f32::NAN; 4]);
        let advantage = [1.0, 10.0, 4.0, 3.0, 30.0, 8.0];
        define(
            &d,
            Args {
                seed: &[3, 0],
                clock: &[0; 4],
                advantage: &advantage,
                percentiles: &[0.0; 4],
                index: &mut index,
                moments: &mut moments,
            },
        );
        let mut seen = index;
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2]);
        for (envs, moments) in index.chunks(2).zip(moments.chunks(2)) {
            let x: Vec<f64> =
                envs.iter().flat_map(|&e| [advantage[e as usize], advantage[3 + e as usize]]).map(f64::from).collect();
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (x.len() - 1) as f64;
            assert_eq!(moments[0], mean as f32);
            assert!((f64::from(moments[1]) - 1.0 / variance.sqrt()).abs() < 1e-6);
        }
    }
}
