//! One searched key as a line of numbers: drawn from its distribution, or placed on by a sampler that learns.

use serde_json::{Number, Value};

use crate::spec::{Distribution, SearchParam};

/// Deviations to each side that a normal distribution is searched within, where a sampler needs bounds.
const NORMAL_REACH: f64 = 4.0;

/// The line of one searched key.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Dotted place in the spec.
    pub key: String,
    line: Line,
    /// Values are rounded to multiples of this; 0 for not at all.
    step: f64,
    is_whole: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Line {
    Listed {
        values: Vec<Value>,
        is_grid: bool,
    },
    Uniform {
        low: f64,
        high: f64,
    },
    /// Bounds of the logarithm.
    Log {
        low: f64,
        high: f64,
    },
    Normal {
        mean: f64,
        std: f64,
    },
}

/// The positions that an [`Axis`] has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Span {
    /// A whole number below this one.
    Listed(usize),
    /// From the first to the second.
    Numbers(f64, f64),
}

impl Axis {
    /// The line of a searched key, whose arguments the spec's reader has checked.
    pub fn new(param: &SearchParam) -> Axis {
        use Distribution as D;
        let number = |i: usize, default: f64| param.args.get(i).and_then(Value::as_f64).unwrap_or(default);
        let (a, b, c) = (number(0, 0.0), number(1, 1.0), number(2, 0.0));
        let uniform = Line::Uniform { low: a, high: b };
        let log = |low: f64, high: f64| Line::Log { low: low.ln(), high: high.ln() };
        let listed = |is_grid| Line::Listed { values: param.args.clone(), is_grid };
        // whole numbers are drawn from the real line and cut off; `q` variants round, so both bounds can be drawn
        let (line, step, is_whole) = match param.distribution {
            D::Choice => (listed(false), 0.0, false),
            D::GridSearch => (listed(true), 0.0, false),
            D::Uniform => (uniform, 0.0, false),
            D::Quniform => (uniform, c, false),
            D::Loguniform => (log(a, b), 0.0, false),
            D::Qloguniform => (log(a, b), c, false),
            D::Randn | D::Normal => (Line::Normal { mean: a, std: b }, 0.0, false),
            D::Qrandn => (Line::Normal { mean: a, std: b }, c, false),
            D::Randint => (uniform, 0.0, true),
            D::Qrandint => (uniform, c.max(1.0), true),
            D::Lograndint => (log(a, b), 0.0, true),
            D::Qlograndint => (log(a, b), c.max(1.0), true),
        };
        Axis { key: param.key.clone(), line, step, is_whole }
    }

    /// The values of a grid; none of an axis that is drawn.
    pub fn grid(&self) -> Option<&[Value]> {
        match &self.line {
            Line::Listed { values, is_grid: true } => Some(values),
            _ => None,
        }
    }

    /// The listed values, whether a grid's or a choice's.
    pub fn listed(&self) -> Option<&[Value]> {
        match &self.line {
            Line::Listed { values, .. } => Some(values),
            _ => None,
        }
    }

    /// Where positions lie.
    pub fn span(&self) -> Span {
        match self.line {
            Line::Listed { ref values, .. } => Span::Listed(values.len()),
            Line::Uniform { low, high } | Line::Log { low, high } => Span::Numbers(low, high),
            Line::Normal { mean, std } => {
                // a deviation of 0 still needs a line that has a length
                let reach = (NORMAL_REACH * std).max(f64::MIN_POSITIVE.max(mean.abs() * 1e-12));
                Span::Numbers(mean - reach, mean + reach)
            }
        }
    }

    /// A position drawn from the distribution itself, from two numbers in [0, 1).
    pub fn draw(&self, [u, v]: [f64; 2]) -> f64 {
        match self.line {
            Line::Listed { ref values, .. } => (u * values.len() as f64).floor(),
            Line::Uniform { low, high } | Line::Log { low, high } => low + (high - low) * u,
            Line::Normal { mean, std } => {
                mean + std * (-2.0 * (1.0 - u).ln()).sqrt() * (v * std::f64::consts::TAU).cos()
            }
        }
    }

    /// The value at a position.
    pub fn value(&self, position: f64) -> Value {
        let x = match &self.line {
            Line::Listed { values, .. } => {
                return values[(position.max(0.0) as usize).min(values.len() - 1)].clone();
            }
            Line::Log { low, high } => position.clamp(*low, *high).exp(),
            Line::Uniform { .. } | Line::Normal { .. } => position,
        };
        let stepped = if self.step > 0.0 { (x / self.step).round() * self.step } else { x };
        if !self.is_whole {
            return Number::from_f64(stepped).map_or(Value::Null, Value::Number);
        }
        // the upper bound of a plain integer is never drawn, however the logarithm rounds
        let (low, high) = match self.line {
            Line::Uniform { low, high } => (low, high),
            Line::Log { low, high } => (low.exp().round(), high.exp().round()),
            _ => (f64::MIN, f64::MAX),
        };
        let last = if self.step > 0.0 { high } else { high - 1.0 };
        Value::from(stepped.floor().clamp(low, last.max(low)) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn axis(distribution: Distribution, args: Value) -> Axis {
        let args = args.as_array().expect("a list").clone();
        Axis::new(&SearchParam { key: "k".into(), distribution, args })
    }

    fn drawn(axis: &Axis) -> Vec<Value> {
        (0..200).map(|i| axis.value(axis.draw([f64::from(i) / 200.0, f64::from(i * 7 % 200) / 200.0]))).collect()
    }

    #[test]
    fn values_stay_within_their_bounds_and_reach_them() {
        use Distribution as D;
        for (distribution, args, low, high) in [
            (D::Uniform, json!([0.9, 0.99]), 0.9, 0.99),
            (D::Loguniform, json!([1e-4, 1e-2]), 1e-4, 1e-2),
            (D::Randint, json!([2, 6]), 2.0, 5.0),
            (D::Lograndint, json!([1, 1000]), 1.0, 999.0),
            (D::Quniform, json!([0, 10, 2.5]), 0.0, 10.0),
            (D::Qrandint, json!([8, 64, 8]), 8.0, 64.0),
            (D::Qloguniform, json!([1, 100, 10]), 0.0, 100.0),
        ] {
            let axis = axis(distribution, args);
            let numbers: Vec<f64> = drawn(&axis).iter().map(|v| v.as_f64().expect("a number")).collect();
            let (least, most) = numbers.iter().fold((f64::MAX, f64::MIN), |(a, b), &x| (a.min(x), b.max(x)));
            assert!(least >= low && most <= high, "{distribution:?}: {least} to {most}");
            assert!(most - least > 0.8 * (high - low), "{distribution:?}: {least} to {most}");
        }
    }

    #[test]
    fn whole_numbers_are_whole_and_steps_are_steps() {
        assert!(drawn(&axis(Distribution::Randint, json!([2, 6]))).iter().all(Value::is_i64));
        let stepped = drawn(&axis(Distribution::Qrandint, json!([8, 64, 8])));
        assert!(stepped.iter().all(|v| v.as_i64().expect("whole") % 8 == 0));
        assert_eq!(axis(Distribution::Lograndint, json!([1, 8])).value(8f64.ln()), json!(7));
    }

    #[test]
    fn a_logarithmic_half_is_a_half() {
        let axis = axis(Distribution::Loguniform, json!([1e-4, 1e-2]));
        let below = drawn(&axis).iter().filter(|v| v.as_f64().expect("a number") < 1e-3).count();
        assert_eq!(below, 100);
    }

    #[test]
    fn a_normal_has_its_mean_and_deviation() {
        let axis = axis(Distribution::Normal, json!([3.0, 0.5]));
        let numbers: Vec<f64> = drawn(&axis).iter().map(|v| v.as_f64().expect("a number")).collect();
        let mean = numbers.iter().sum::<f64>() / 200.0;
        let std = (numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 199.0).sqrt();
        assert!((mean - 3.0).abs() < 0.05 && (std - 0.5).abs() < 0.05, "{mean} {std}");
        assert_eq!(axis.span(), Span::Numbers(1.0, 5.0));
    }

    #[test]
    fn listed_values_are_drawn_alike() {
        let axis = axis(Distribution::Choice, json!(["a", [1, 2], 3]));
        let values = drawn(&axis);
        for value in axis.listed().expect("listed") {
            let times = values.iter().filter(|v| *v == value).count();
            assert!((60..=70).contains(&times), "{value}: {times}");
        }
        assert_eq!(axis.span(), Span::Listed(3));
        assert_eq!(axis.grid(), None);
    }
}
