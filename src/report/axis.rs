//! An axis: where a number lies in pixels, and which marks stand along it. Linear, logarithmic, or a list of names.

use std::ops::Range;

use super::experiment::Value;

/// How many times the least the largest value is from which on an axis of positive numbers is logarithmic.
const LOG_FROM: f64 = 30.0;

/// An axis.
pub(super) struct Axis {
    /// Of a logarithmic axis the decimal logarithms.
    low: f64,
    high: f64,
    /// Distance of ticks: 1, 2, 2.5 or 5 times a power of ten.
    step: f64,
    /// Pixels of `low` and `high`.
    pixels: Range<f32>,
    scale: Scale,
}

/// What lies along an axis.
enum Scale {
    Linear,
    Log,
    /// Each has a slot of the same width.
    Names(Vec<String>),
}

impl Axis {
    /// An axis that holds `numbers`, with a part of its length left free at both ends.
    pub(super) fn new(numbers: impl Iterator<Item = f64>, pixels: Range<f32>, free: f64) -> Axis {
        let (low, high) = range(numbers);
        let (mut low, mut high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        if high - low <= 1e-9 * low.abs().max(high.abs()).max(1e-9) {
            // a flat line lies in the middle
            let half = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
            (low, high) = (low - half, high + half);
        }
        let above_zero = low >= 0.0;
        if above_zero && low < 0.5 * high {
            low = 0.0;
        }
        let margin = free * (high - low);
        high += margin;
        if low != 0.0 {
            low -= margin;
        }
        Axis { low, high, step: step(high - low), pixels, scale: Scale::Linear }
    }

    /// An axis of a searched variable: names where one of its values is a text, logarithmic where positive numbers lie
    /// far apart, else linear and no longer than its numbers.
    pub(super) fn of_values<'a>(
        values: impl Iterator<Item = &'a Value> + Clone,
        pixels: Range<f32>,
        free: f64,
    ) -> Axis {
        if values.clone().any(|value| matches!(value, Value::Text(_))) {
            let mut names: Vec<&Value> = values.collect();
            names.sort_by(|a, b| a.order(b));
            let mut names: Vec<String> = names.into_iter().map(Value::text).collect();
            names.dedup();
            return Axis { low: 0.0, high: names.len() as f64, step: 1.0, pixels, scale: Scale::Names(names) };
        }
        let (low, high) = range(values.filter_map(Value::number));
        if low > 0.0 && high >= LOG_FROM * low {
            let (low, high) = (low.log10(), high.log10());
            let margin = free * (high - low);
            return Axis { low: low - margin, high: high + margin, step: 1.0, pixels, scale: Scale::Log };
        }
        let axis = Axis::new([low, high].into_iter(), pixels, free);
        if low < high {
            let margin = free * (high - low);
            return Axis { low: low - margin, high: high + margin, step: step(high - low), ..axis };
        }
        axis
    }

    /// Pixel of a number.
    pub(super) fn place(&self, x: f64) -> f32 {
        let x = if matches!(self.scale, Scale::Log) { x.log10() } else { x };
        let share = ((x - self.low) / (self.high - self.low)) as f32;
        self.pixels.start + share * (self.pixels.end - self.pixels.start)
    }

    /// Pixel of a value; none where it is no number. `jitter` in -1..1 moves it inside the slot of a name.
    pub(super) fn place_value(&self, value: &Value, jitter: f64) -> Option<f32> {
        match &self.scale {
            Scale::Names(names) => {
                let text = value.text();
                let slot = names.iter().position(|name| *name == text)?;
                Some(self.place(slot as f64 + 0.5 + 0.3 * jitter))
            }
            _ => value.number().filter(|x| x.is_finite()).map(|x| self.place(x)),
        }
    }

    /// Numbers of the marks of a linear axis.
    fn ticks(&self) -> Vec<f64> {
        // a little tolerance keeps a tick at the very end
        let first = (self.low / self.step - 1e-6).ceil() as i64;
        let last = (self.high / self.step + 1e-6).floor() as i64;
        (first..=last).map(|i| i as f64 * self.step).collect()
    }

    /// Pixel and text of every mark.
    pub(super) fn marks(&self) -> Vec<(f32, String)> {
        match &self.scale {
            Scale::Linear => self.ticks().into_iter().map(|tick| (self.place(tick), self.label(tick))).collect(),
            Scale::Names(names) => (0..names.len()).map(|i| (self.place(i as f64 + 0.5), names[i].clone())).collect(),
            Scale::Log => {
                let powers = |factors: &[f64]| -> Vec<f64> {
                    let range = self.low.floor() as i32..=self.high.ceil() as i32;
                    let all = range.flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
                    all.filter(|x| (self.low - 1e-6..=self.high + 1e-6).contains(&x.log10())).collect()
                };
                let tens = powers(&[1.0]);
                let ticks = if tens.len() >= 3 { tens } else { powers(&[1.0, 3.0]) };
                ticks.into_iter().map(|x| (self.place(x), power_text(x))).collect()
            }
        }
    }

    /// A tick's number, with k, M or G where the axis is long and as many decimals as its steps need.
    fn label(&self, tick: f64) -> String {
        let largest = self.low.abs().max(self.high.abs());
        let (unit, letter) = match largest {
            x if x >= 1e9 => (1e9, "G"),
            x if x >= 1e6 => (1e6, "M"),
            x if x >= 1e4 => (1e3, "k"),
            _ => (1.0, ""),
        };
        let (tick, step) = (tick / unit, self.step / unit);
        if tick.abs() < 1e-9 * step {
            return "0".to_string();
        }
        let number = if !(1e-4..1e15).contains(&step) {
            format!("{tick:.1e}")
        } else {
            let whole = |digits: &usize| {
                let x = step * 10f64.powi(*digits as i32);
                (x - x.round()).abs() < 1e-6 * x
            };
            format!("{tick:.*}", (0..8).find(whole).unwrap_or(8))
        };
        format!("{number}{letter}").replace('-', "\u{2212}")
    }
}

/// Least and largest of the finite numbers; the wrong way round where there are none.
fn range(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = numbers.filter(|x| x.is_finite());
    finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
}

/// Distance of at most six ticks along a length.
fn step(length: f64) -> f64 {
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|factor| factor * 10f64.powf((length / 6.0).log10().floor()))
        .into_iter()
        .find(|step| length / step <= 6.0)
        .unwrap_or(length)
}

/// A mark of a logarithmic axis.
fn power_text(x: f64) -> String {
    let text = if (0.01..10_000.0).contains(&x) { format!("{}", x as f32) } else { format!("{:e}", x as f32) };
    text.replace('-', "\u{2212}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(numbers: &[f64]) -> Vec<String> {
        let axis = Axis::new(numbers.iter().copied(), 0.0..100.0, 0.0);
        axis.marks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(&[500.0, 200_000.0]), ["0", "50k", "100k", "150k", "200k"]);
        assert_eq!(labels(&[0.0, 2.5e6]), ["0", "0.5M", "1.0M", "1.5M", "2.0M", "2.5M"]);
        assert_eq!(labels(&[0.0, 500.0]), ["0", "100", "200", "300", "400", "500"]);
        assert_eq!(labels(&[-0.3, 0.6]), ["\u{2212}0.2", "0", "0.2", "0.4", "0.6"]);
        assert_eq!(labels(&[0.0, 1e-6]).last().map(String::as_str), Some("1.0e\u{2212}6"));
    }

    #[test]
    fn an_axis_holds_any_numbers() {
        for numbers in [vec![], vec![0.0], vec![500.0, 500.0], vec![f64::NAN, 1.0], vec![-1e300, 1e300], vec![1e-300]] {
            let axis = Axis::new(numbers.iter().copied(), 0.0..100.0, 0.04);
            assert!(axis.low < axis.high && axis.ticks().len() < 20, "{numbers:?}");
            assert!(numbers.iter().filter(|x| x.is_finite()).all(|&x| (-0.01..100.01).contains(&axis.place(x))));
        }
    }

    #[test]
    fn a_variable_has_the_axis_that_suits_it() {
        let texts = |values: &[Value]| -> Vec<String> {
            let axis = Axis::of_values(values.iter(), 0.0..100.0, 0.0);
            axis.marks().into_iter().map(|(_, text)| text).collect()
        };
        let numbers = |numbers: &[f64]| -> Vec<Value> { numbers.iter().copied().map(Value::Number).collect() };
        assert_eq!(texts(&numbers(&[1e-4, 1e-2])), ["1e\u{2212}4", "1e\u{2212}3", "0.01"]);
        assert_eq!(texts(&numbers(&[0.9, 0.999])), ["0.90", "0.92", "0.94", "0.96", "0.98"]);
        let names = [Value::Text("tanh".into()), Value::Number(10.0), Value::Number(9.0), Value::Text("relu".into())];
        assert_eq!(texts(&names), ["9", "10", "relu", "tanh"]);
        let axis = Axis::of_values(names.iter(), 0.0..100.0, 0.0);
        assert_eq!(axis.place_value(&names[0], 0.0), Some(87.5));
        assert_eq!(axis.place_value(&Value::Text("gelu".into()), 0.0), None);
        let axis = Axis::of_values([Value::Number(1.0), Value::Number(100.0)].iter(), 0.0..100.0, 0.0);
        assert_eq!(axis.place_value(&Value::Number(10.0), 0.5), Some(50.0));
        assert_eq!(axis.place_value(&Value::Number(f64::NAN), 0.0), None);
    }
}
