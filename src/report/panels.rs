//! The pictures of a search: metrics against variables, all trials over each other, parallel coordinates.
//!
//! Everywhere a trial has the colour of its strength, and the strongest is drawn last.

use super::axis::Axis;
use super::experiment::{Experiment, METRICS, TrialRow, Value};
use super::picture::{Anchor, Colour, Picture, Shape, fit, text};
use super::plot::{FAINT, GRID, INK};
use super::runs::Curve;

/// Colours of the least, the middle and the greatest strength.
const SCALE: [Colour; 3] = [Colour(0xc6, 0xd0, 0xda), Colour(0x2a, 0x9d, 0x9f), Colour(0x3f, 0x1d, 0x6e)];
/// A trial without a strength.
const NO_STRENGTH: Colour = Colour(0xe0, 0xe4, 0xe9);
/// Behind a label.
const PAPER: Colour = Colour(0xff, 0xff, 0xff);
/// Room for the scale of colours at the right, in pixels.
const SCALE_WIDTH: f32 = 110.0;
/// Lowest number that is drawn of the two metrics that have no lower end: where strength is near zero they divide by it.
const CUT: f64 = -1.0;

/// The colour of a share from 0 to 1.
fn colour(share: Option<f64>) -> Colour {
    let Some(share) = share else { return NO_STRENGTH };
    let (from, to, t) = if share < 0.5 { (0, 1, share * 2.0) } else { (1, 2, share * 2.0 - 1.0) };
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * t).round() as u8;
    let (a, b) = (SCALE[from], SCALE[to]);
    Colour(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// Each metric (a row of panels) against each searched variable (a column of panels).
pub(super) fn scatter(title: &str, experiment: &Experiment) -> Picture {
    let columns = experiment.variables.len().max(1);
    let (left, top, wide, high, gap) = (100.0, 90.0, (680.0 / columns as f32).max(260.0), 140.0, 26.0);
    let width = left + columns as f32 * (wide + gap) + SCALE_WIDTH;
    let height = top + METRICS.len() as f32 * (high + gap) + 60.0;
    let mut shapes = vec![text((width / 2.0, 44.0), 26.0, Anchor::Middle, INK, title)];
    let (order, shares) = (experiment.by_strength(), experiment.shares());
    for (r, metric) in METRICS.iter().enumerate() {
        let y0 = top + r as f32 * (high + gap);
        let cuts = matches!(*metric, "stability" | "consistency");
        let number = |row: &TrialRow| if cuts { row.metrics[r].max(CUT) } else { row.metrics[r] };
        // `max` of NaN is the other number
        let number = |row: &TrialRow| if row.metrics[r].is_finite() { number(row) } else { f64::NAN };
        let is_cut = cuts && experiment.rows.iter().any(|row| row.metrics[r] < CUT);
        let y_axis = Axis::new(experiment.rows.iter().map(number), (y0 + high)..y0, 0.06);
        let name = if is_cut { format!("{metric} (cut at \u{2212}1)") } else { metric.to_string() };
        shapes.push(text((left, y0 - 7.0), 15.0, Anchor::Start, INK, &name));
        for (c, variable) in experiment.variables.iter().enumerate() {
            let x0 = left + c as f32 * (wide + gap);
            let values = experiment.rows.iter().map(|row| &row.values[c]);
            let x_axis = Axis::of_values(values, x0..x0 + wide, 0.05);
            let is_last = r + 1 == METRICS.len();
            for (x, label) in x_axis.marks() {
                shapes.push(Shape::Line { points: vec![(x, y0), (x, y0 + high)], width: 1.0, colour: GRID });
                if is_last {
                    shapes.push(text(
                        (x, y0 + high + 20.0),
                        13.0,
                        Anchor::Middle,
                        FAINT,
                        &fit(&label, wide / 3.0, 13.0),
                    ));
                }
            }
            for (y, label) in every_other(y_axis.marks()) {
                shapes.push(Shape::Line { points: vec![(x0, y), (x0 + wide, y)], width: 1.0, colour: GRID });
                if c == 0 {
                    shapes.push(text((x0 - 8.0, y + 5.0), 13.0, Anchor::End, FAINT, &label));
                }
            }
            shapes.push(frame_line(x0, y0, wide, high));
            if is_last {
                let label = fit(variable, wide, 16.0);
                shapes.push(text((x0 + wide / 2.0, y0 + high + 46.0), 16.0, Anchor::Middle, INK, &label));
            }
            for &i in &order {
                let row = &experiment.rows[i];
                let x = x_axis.place_value(&row.values[c], jitter(row.trial));
                if let (Some(x), true) = (x, number(row).is_finite()) {
                    let dot = vec![(x, y_axis.place(number(row)))];
                    shapes.push(Shape::Line { points: dot, width: 8.0, colour: colour(shares[i]) });
                }
            }
        }
    }
    shapes.extend(colour_scale(experiment, width - SCALE_WIDTH + 16.0, top, (height - 160.0).min(360.0)));
    Picture { size: (width as usize, height as usize), shapes }
}

/// The mean returns of all trials over frames, raw or as their moving average.
pub(super) fn multi_trial(title: &str, experiment: &Experiment, curves: &[Curve], ma: bool) -> Picture {
    let (width, height) = (1110.0, 700.0);
    let (left, right, top, bottom) = (110.0, width - SCALE_WIDTH - 16.0, 84.0, 604.0);
    let y_of = |curve: &'_ Curve| if ma { curve.total_reward_ma.clone() } else { curve.total_reward.clone() };
    let x_axis = Axis::new(curves.iter().flat_map(|curve| curve.frames.iter().copied()), left..right, 0.0);
    let y_axis = Axis::new(curves.iter().flat_map(y_of), bottom..top, 0.04);
    let middle = (left + right) / 2.0;
    let mut shapes = vec![text((middle, 44.0), 26.0, Anchor::Middle, INK, title)];
    for (x, label) in x_axis.marks() {
        shapes.push(Shape::Line { points: vec![(x, top), (x, bottom)], width: 1.0, colour: GRID });
        shapes.push(text((x, bottom + 30.0), 20.0, Anchor::Middle, FAINT, &label));
    }
    for (y, label) in y_axis.marks() {
        shapes.push(Shape::Line { points: vec![(left, y), (right, y)], width: 1.0, colour: GRID });
        shapes.push(text((left - 12.0, y + 7.0), 20.0, Anchor::End, FAINT, &label));
    }
    let shares = experiment.shares();
    for i in experiment.by_strength() {
        let Some(curve) = curves.iter().find(|curve| curve.trial == experiment.rows[i].trial) else { continue };
        let points: Vec<(f64, f64)> = curve.frames.iter().copied().zip(y_of(curve)).collect();
        // a gap breaks the line
        for run in points.split(|point| !point.0.is_finite() || !point.1.is_finite()).filter(|run| !run.is_empty()) {
            let points = run.iter().map(|&(x, y)| (x_axis.place(x), y_axis.place(y))).collect();
            shapes.push(Shape::Line { points, width: 2.0, colour: colour(shares[i]) });
        }
    }
    shapes.push(frame_line(left, top, right - left, bottom - top));
    shapes.push(text((middle, bottom + 72.0), 22.0, Anchor::Middle, INK, "frames"));
    shapes.push(Shape::Text {
        at: (34.0, (top + bottom) / 2.0),
        size: 22.0,
        anchor: Anchor::Middle,
        upwards: true,
        colour: INK,
        text: if ma { "mean_returns_ma" } else { "mean_returns" }.to_string(),
    });
    if curves.is_empty() {
        shapes.push(text((middle, (top + bottom) / 2.0), 22.0, Anchor::Middle, FAINT, "no data yet"));
    }
    shapes.extend(colour_scale(experiment, width - SCALE_WIDTH + 16.0, top, 360.0));
    Picture { size: (width as usize, height as usize), shapes }
}

/// One line per trial through its values of every variable, to its strength and its score.
pub(super) fn parallel(title: &str, experiment: &Experiment) -> Picture {
    let results = ["strength", "total_reward_ma"];
    let axes = experiment.variables.len() + results.len();
    let (left, top, bottom) = (110.0, 120.0, 600.0);
    let apart = (820.0 / (axes - 1) as f32).max(190.0);
    let width = left + apart * (axes - 1) as f32 + 120.0;
    let mut shapes = vec![text((width / 2.0, 44.0), 26.0, Anchor::Middle, INK, title)];
    let (mut places, mut labels): (Vec<Vec<Option<f32>>>, Vec<Shape>) = (Vec::new(), Vec::new());
    for a in 0..axes {
        let values: Vec<Value> = match a.checked_sub(experiment.variables.len()) {
            None => experiment.rows.iter().map(|row| row.values[a].clone()).collect(),
            Some(r) => experiment.rows.iter().map(|row| Value::Number(row.metric(results[r]))).collect(),
        };
        let name = experiment.variables.get(a).map_or_else(|| results[a - experiment.variables.len()], String::as_str);
        let axis = Axis::of_values(values.iter(), bottom..top, 0.03);
        let x = left + apart * a as f32;
        shapes.push(text((x, top - 22.0), 15.0, Anchor::Middle, INK, &fit(name, apart - 10.0, 15.0)));
        shapes.push(Shape::Line { points: vec![(x, top), (x, bottom)], width: 1.6, colour: FAINT });
        for (y, label) in axis.marks() {
            let label = fit(&label, 0.45 * apart, 13.0);
            // on paper of its own, above the lines
            let long = 0.56 * 13.0 * label.chars().count() as f32;
            labels.push(Shape::Line { points: vec![(x - 10.0 - long, y), (x - 10.0, y)], width: 17.0, colour: PAPER });
            labels.push(text((x - 9.0, y + 5.0), 13.0, Anchor::End, INK, &label));
        }
        let place = |(row, value): (&TrialRow, &Value)| axis.place_value(value, jitter(row.trial));
        places.push(experiment.rows.iter().zip(&values).map(place).collect());
    }
    let shares = experiment.shares();
    for i in experiment.by_strength() {
        let x_of = |a: usize| left + apart * a as f32;
        let points: Vec<(f32, f32)> = (0..axes).filter_map(|a| Some((x_of(a), places[a][i]?))).collect();
        if points.len() > 1 {
            shapes.push(Shape::Line { points, width: 1.8, colour: colour(shares[i]) });
        }
    }
    shapes.extend(labels);
    Picture { size: (width as usize, 650), shapes }
}

/// The lower left corner of a panel.
fn frame_line(x: f32, y: f32, wide: f32, high: f32) -> Shape {
    let points = vec![(x, y), (x, y + high), (x + wide, y + high)];
    Shape::Line { points, width: 1.6, colour: INK }
}

/// A bar with every colour and the strengths at its ends; nothing where no trial has one.
fn colour_scale(experiment: &Experiment, x: f32, top: f32, high: f32) -> Vec<Shape> {
    let (low, most) = experiment.strengths();
    if low > most {
        return Vec::new();
    }
    let pieces = 60;
    let y_of = |piece: usize| top + 24.0 + (high - 24.0) * (1.0 - piece as f32 / pieces as f32);
    let piece = |piece: usize| {
        let points = vec![(x, y_of(piece)), (x + 14.0, y_of(piece))];
        let colour = colour(Some(piece as f64 / pieces as f64));
        Shape::Line { points, width: 1.2 * (high - 24.0) / pieces as f32, colour }
    };
    let mut shapes: Vec<Shape> = (0..=pieces).map(piece).collect();
    shapes.push(text((x - 6.0, top + 4.0), 15.0, Anchor::Start, INK, "strength"));
    for (y, strength) in [(y_of(pieces), most), (y_of(0), low)] {
        let label = format!("{strength:.1}").replace('-', "\u{2212}");
        shapes.push(text((x + 24.0, y + 5.0), 14.0, Anchor::Start, FAINT, &label));
    }
    shapes
}

/// Marks of a low panel: at most four.
fn every_other(marks: Vec<(f32, String)>) -> Vec<(f32, String)> {
    let step = if marks.len() > 4 { 2 } else { 1 };
    marks.into_iter().step_by(step).collect()
}

/// A number in -1..1 that is a trial's own: places trials with the same name beside each other.
fn jitter(trial: u32) -> f64 {
    // the golden ratio spreads consecutive numbers evenly
    (f64::from(trial) * 0.618_033_988_75).fract() * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_from_the_weakest_to_the_strongest() {
        assert_eq!([0.0, 0.5, 1.0].map(|share| colour(Some(share))), SCALE);
        assert_eq!(colour(None), NO_STRENGTH);
    }
}
