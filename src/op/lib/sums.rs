//! Sums and moments in a fixed order that depends on lengths alone.

/// Partial sums kept side by side, so that loops vectorise without reordering anything.
const LANES: usize = 8;

#[inline(always)]
fn lanes(len: usize, term: impl Fn(usize) -> f64) -> f64 {
    let mut sums = [0.0f64; LANES];
    let whole = len / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    for at in whole..len {
        sums[at - whole] += term(at);
    }
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
}

/// Mean and sum of squared deviations of `term(0..len)`, in two passes; (0, 0) of nothing.
#[inline(always)]
pub fn mean_m2(len: usize, term: impl Fn(usize) -> f64) -> (f64, f64) {
    if len == 0 {
        return (0.0, 0.0);
    }
    let mean = lanes(len, &term) / len as f64;
    let squares = lanes(len, |at| {
        let off = term(at) - mean;
        off * off
    });
    (mean, squares)
}

/// Joins the moments (count, mean, sum of squared deviations) of two sets (Chan et al. 1979).
#[inline(always)]
pub fn merge(a: (f64, f64, f64), b: (f64, f64, f64)) -> (f64, f64, f64) {
    let count = a.0 + b.0;
    if count == 0.0 {
        return a;
    }
    let delta = b.1 - a.1;
    (count, a.1 + delta * (b.0 / count), a.2 + b.2 + delta * delta * (a.0 * b.0 / count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_parts_join_to_those_of_the_whole() {
        let x: Vec<f64> = (0..37).map(|i| 100.0 + f64::from(i * i % 11)).collect();
        let of = |part: &[f64]| {
            let (mean, m2) = mean_m2(part.len(), |i| part[i]);
            (part.len() as f64, mean, m2)
        };
        let (whole, joined) = (of(&x), merge(of(&x[..5]), of(&x[5..])));
        assert_eq!(whole.0, joined.0);
        assert!((whole.1 - joined.1).abs() < 1e-12 && (whole.2 - joined.2).abs() < 1e-9);
        let plain = x.iter().map(|v| (v - whole.1).powi(2)).sum::<f64>();
        assert!((whole.2 - plain).abs() < 1e-9);
        assert_eq!(merge((0.0, 0.0, 0.0), whole), whole);
    }
}
