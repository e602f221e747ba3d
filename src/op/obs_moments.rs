//! Running moments of observations and the normaliser made of them.

use crate::device::{Kernel, Limits, Shader};
use crate::op::lib::sums;
use crate::op::{Draw, Shape};

/// Added to the variance under the root.
pub const EPSILON: f64 = 1e-8;

/// Sizes of [`ObsMoments`].
#[derive(Debug, Clone)]
pub struct ObsMomentsShape {
    /// Vector steps of the rollout.
    pub t: usize,
    /// Environments.
    pub n: usize,
    /// Words of an observation.
    pub o: usize,
}

impl Shape for ObsMomentsShape {
    fn flops(&self) -> f64 {
        (self.t * self.n * self.o * 5) as f64
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::obs_moments::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        super::gpu::obs_moments::scratch(self)
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::obs_moments::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::obs_moments::scratch(self)
    }

    fn cases() -> Vec<Self> {
        // the last two: several tiles of rows, and of columns, on a gpu
        [(5, 3, 4), (1, 1, 1), (33, 7, 11), (300, 11, 11), (5, 3, 300)]
            .map(|(t, n, o)| ObsMomentsShape { t, n, o })
            .to_vec()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        if arg == "obs_moments" {
            let empty = draw.below(3) == 0;
            for (i, word) in words.iter_mut().enumerate() {
                let value = match i {
                    0 => draw.below(1_000) as f32,
                    i if i <= self.o => draw.range(-3.0, 3.0),
                    _ => draw.range(0.0, 500.0),
                };
                *word = if empty { 0 } else { value.to_bits() };
            }
        }
        arg == "obs_moments"
    }
}

crate::op! {
    /// Adds a rollout's raw observations to the running moments, then writes the normaliser of the next iteration:
    /// `(obs - normalizer[0]) * normalizer[1]`. Runs last, so that a rollout and its update see the same normaliser.
    /// The count is f32: past 2^24 rows it grows in coarser steps, and the moments become a very slow moving average.
    ObsMoments(d: ObsMomentsShape) = "obs_moments", within 1e-6, run = define {
        read obs: f32[d.t, d.n, d.o] in -5.0..5.0;
        // count, mean[O], sum of squared deviations[O]
        update obs_moments: f32[1 + 2 * d.o];
        // mean[O], 1 / sqrt(variance + EPSILON)[O]
        write normalizer: f32[2, d.o];
    }
}

fn define(d: &ObsMomentsShape, a: Args) {
    let rows = d.t * d.n;
    let (count, moments) = a.obs_moments.split_first_mut().expect("the moments start with a count");
    let (means, squares) = moments.split_at_mut(d.o);
    let (shift, scale) = a.normalizer.split_at_mut(d.o);
    let mut total = 0.0;
    for o in 0..d.o {
        let (mean, m2) = sums::mean_m2(rows, |row| f64::from(a.obs[row * d.o + o]));
        let old = (f64::from(*count), f64::from(means[o]), f64::from(squares[o]));
        let new = sums::merge(old, (rows as f64, mean, m2));
        (means[o], squares[o]) = (new.1 as f32, new.2 as f32);
        shift[o] = means[o];
        scale[o] = (1.0 / (new.2 / new.0 + EPSILON).sqrt()) as f32;
        total = new.0;
    }
    *count = total as f32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rollouts_give_the_moments_of_both() {
        let d = ObsMomentsShape { t: 2, n: 1, o: 2 };
        let (mut moments, mut normalizer) = (vec![0.0; 5], vec![f32::NAN; 4]);
        for obs in [[1.0, 5.0, 3.0, 5.0], [5.0, 5.0, 7.0, 5.0]] {
            define(&d, Args { obs: &obs, obs_moments: &mut moments, normalizer: &mut normalizer });
        }
        // column 0: 1 3 5 7, mean 4, squares 9 + 1 + 1 + 9
        assert_eq!(moments, [4.0, 4.0, 5.0, 20.0, 0.0]);
        assert_eq!(normalizer, [4.0, 5.0, (1.0 / 5.0f64.sqrt()) as f32, 1e4]);
    }
}
