//! Graphs: lines with a band of one standard deviation, laid out once as a list of shapes and rendered to PNG and SVG.

use std::fmt::Write;
use std::ops::Range;

use super::raster;

/// One line of a graph.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// Shown in the legend where a graph has several series.
    pub name: String,
    /// `[N]`, ascending.
    pub x: Vec<f64>,
    /// `[N]`; the line breaks where it is not finite.
    pub mean: Vec<f64>,
    /// `[N]`, the half width of the band around the line.
    pub std: Option<Vec<f64>>,
}

/// A graph.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Above the graph.
    pub title: String,
    /// Below the horizontal axis.
    pub x_label: String,
    /// Along the vertical axis.
    pub y_label: String,
    /// Drawn in order, in the colours of a palette of six.
    pub series: Vec<Series>,
}

/// Size of a graph in pixels.
pub const SIZE: (usize, usize) = (1000, 700);

/// Inner edges of the axes: left, right, top, bottom.
const FRAME: (f32, f32, f32, f32) = (120.0, 965.0, 84.0, 604.0);
const PALETTE: [Colour; 6] = [
    Colour(0x1b, 0x7f, 0x8c),
    Colour(0xd9, 0x6c, 0x2c),
    Colour(0x5b, 0x5f, 0xc7),
    Colour(0xb8, 0x3a, 0x6b),
    Colour(0x6a, 0x8f, 0x2a),
    Colour(0x7a, 0x5c, 0x45),
];
const INK: Colour = Colour(0x2b, 0x2f, 0x36);
const FAINT: Colour = Colour(0x6b, 0x72, 0x7d);
const GRID: Colour = Colour(0xe6, 0xe9, 0xed);

/// Red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Colour(pub u8, pub u8, pub u8);

/// Where a text's `x` is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// What a graph is made of; both renderers draw the same list. Points are pixels from the upper left.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// A line with round joins.
    Line { points: Vec<(f32, f32)>, width: f32, colour: Colour },
    /// `(x, top, bottom)`, x ascending, filled at an opacity of [`BAND_ALPHA`].
    Band { points: Vec<(f32, f32, f32)>, colour: Colour },
    /// `y` is the baseline; `upwards` is turned a quarter against the clock around `(x, y)`.
    Text { at: (f32, f32), size: f32, anchor: Anchor, upwards: bool, colour: Colour, text: String },
}

/// A row of a series in pixels.
#[derive(Debug, Clone, Copy)]
struct Point {
    x: f32,
    y: f32,
    /// Of the band.
    top: f32,
    bottom: f32,
}

/// Opacity of a band.
pub(super) const BAND_ALPHA: f32 = 0.2;

impl Graph {
    /// The graph as an anti-aliased PNG file, 1000 x 700 pixels.
    pub fn to_png(&self) -> Vec<u8> {
        raster::png(&self.shapes())
    }

    /// The graph as an SVG file of the same look.
    pub fn to_svg(&self) -> String {
        let (w, h) = SIZE;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
             font-family=\"Inter, system-ui, sans-serif\">\n<rect width=\"{w}\" height=\"{h}\" fill=\"#fff\"/>\n"
        );
        for shape in &self.shapes() {
            push_svg(&mut svg, shape).expect("a String takes any text");
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// Axes, bands below lines, texts.
    fn shapes(&self) -> Vec<Shape> {
        let (left, right, top, bottom) = FRAME;
        let mut shapes = Vec::new();
        let x_axis = Axis::new(self.series.iter().flat_map(|s| s.x.iter().copied()), left..right, 0.0);
        let y_axis = Axis::new(self.series.iter().flat_map(Series::extent), bottom..top, 0.04);

        for tick in x_axis.ticks() {
            let x = x_axis.place(tick);
            shapes.push(Shape::Line { points: vec![(x, top), (x, bottom)], width: 1.0, colour: GRID });
            shapes.push(text((x, bottom + 30.0), 20.0, Anchor::Middle, FAINT, &x_axis.label(tick)));
        }
        for tick in y_axis.ticks() {
            let y = y_axis.place(tick);
            shapes.push(Shape::Line { points: vec![(left, y), (right, y)], width: 1.0, colour: GRID });
            shapes.push(text((left - 12.0, y + 7.0), 20.0, Anchor::End, FAINT, &y_axis.label(tick)));
        }

        let lines: Vec<(Vec<Point>, Colour)> = self
            .series
            .iter()
            .zip(PALETTE.iter().cycle())
            .flat_map(|(series, &colour)| {
                series.runs(&x_axis, &y_axis).into_iter().map(move |points| (points, colour)).collect::<Vec<_>>()
            })
            .collect();
        for (points, colour) in &lines {
            if points.iter().any(|p| p.bottom > p.top) {
                shapes.push(Shape::Band { points: band(points), colour: *colour });
            }
        }
        for (points, colour) in lines {
            shapes.push(Shape::Line { points: thin(&points), width: 2.6, colour });
        }

        let corner = vec![(left, top), (left, bottom), (right, bottom)];
        shapes.push(Shape::Line { points: corner, width: 1.6, colour: INK });
        let middle = (left + right) / 2.0;
        shapes.push(text((middle, 44.0), 26.0, Anchor::Middle, INK, &self.title));
        shapes.push(text((middle, bottom + 72.0), 22.0, Anchor::Middle, INK, &self.x_label));
        shapes.push(Shape::Text {
            at: (34.0, (top + bottom) / 2.0),
            size: 22.0,
            anchor: Anchor::Middle,
            upwards: true,
            colour: INK,
            text: self.y_label.clone(),
        });
        if self.series.iter().all(|series| series.extent().next().is_none()) {
            shapes.push(text((middle, (top + bottom) / 2.0), 22.0, Anchor::Middle, FAINT, "no data yet"));
        }
        if self.series.len() > 1 {
            let step = (right - left) / self.series.len() as f32;
            for (i, (series, &colour)) in self.series.iter().zip(PALETTE.iter().cycle()).enumerate() {
                let x = left + step * i as f32;
                shapes.push(Shape::Line { points: vec![(x, 67.0), (x + 26.0, 67.0)], width: 4.0, colour });
                shapes.push(text((x + 36.0, 73.0), 18.0, Anchor::Start, INK, &series.name));
            }
        }
        shapes
    }
}

fn text(at: (f32, f32), size: f32, anchor: Anchor, colour: Colour, text: &str) -> Shape {
    Shape::Text { at, size, anchor, upwards: false, colour, text: text.to_string() }
}

impl Series {
    /// Half width of the band at row i.
    fn half(&self, i: usize) -> f64 {
        self.std.as_ref().and_then(|std| std.get(i)).copied().filter(|std| std.is_finite()).unwrap_or(0.0)
    }

    /// Rows that can be drawn.
    fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.x.len().min(self.mean.len())).filter(|&i| self.x[i].is_finite() && self.mean[i].is_finite())
    }

    /// Every height that the axis has to hold.
    fn extent(&self) -> impl Iterator<Item = f64> + '_ {
        self.rows().flat_map(|i| [self.mean[i] - self.half(i), self.mean[i] + self.half(i)])
    }

    /// Unbroken runs of rows.
    fn runs(&self, x_axis: &Axis, y_axis: &Axis) -> Vec<Vec<Point>> {
        let mut runs: Vec<Vec<Point>> = Vec::new();
        let mut last = None;
        for i in self.rows() {
            let (mean, half) = (self.mean[i], self.half(i));
            let y = |value| y_axis.place(value);
            let point = Point { x: x_axis.place(self.x[i]), y: y(mean), top: y(mean + half), bottom: y(mean - half) };
            match runs.last_mut() {
                Some(run) if last.is_some_and(|last| last + 1 == i) => run.push(point),
                _ => runs.push(vec![point]),
            }
            last = Some(i);
        }
        runs
    }
}

/// Ranges of points within the same pixel column.
fn columns(points: &[Point]) -> impl Iterator<Item = &[Point]> {
    points.chunk_by(|a, b| a.x.floor() == b.x.floor())
}

/// The line's points, at most four to a pixel column (first, highest, lowest, last): a long run draws as fast as a short.
fn thin(points: &[Point]) -> Vec<(f32, f32)> {
    let mut thinned = Vec::new();
    for column in columns(points) {
        if column.len() <= 4 {
            thinned.extend(column.iter().map(|p| (p.x, p.y)));
            continue;
        }
        let by_height = |&a: &usize, &b: &usize| column[a].y.total_cmp(&column[b].y);
        let mut keep = [
            0,
            (0..column.len()).min_by(by_height).unwrap_or(0),
            (0..column.len()).max_by(by_height).unwrap_or(0),
            column.len() - 1,
        ];
        keep.sort_unstable();
        thinned.extend(keep.iter().map(|&i| (column[i].x, column[i].y)));
    }
    thinned
}

/// The band's points, one to a pixel column.
fn band(points: &[Point]) -> Vec<(f32, f32, f32)> {
    let column = |column: &[Point]| {
        let top = column.iter().map(|p| p.top).fold(f32::INFINITY, f32::min);
        (column[0].x, top, column.iter().map(|p| p.bottom).fold(f32::NEG_INFINITY, f32::max))
    };
    columns(points).map(column).collect()
}

/// A linear axis.
struct Axis {
    low: f64,
    high: f64,
    /// Distance of ticks: 1, 2, 2.5 or 5 times a power of ten.
    step: f64,
    /// Pixels of `low` and `high`.
    pixels: Range<f32>,
}

impl Axis {
    /// An axis that holds `numbers`, with a part of its length left free at both ends.
    fn new(numbers: impl Iterator<Item = f64>, pixels: Range<f32>, free: f64) -> Axis {
        let (low, high) = numbers
            .filter(|x| x.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
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
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .map(|factor| factor * 10f64.powf(((high - low) / 6.0).log10().floor()))
            .into_iter()
            .find(|step| (high - low) / step <= 6.0)
            .unwrap_or(high - low);
        Axis { low, high, step, pixels }
    }

    /// Pixel of a number.
    fn place(&self, x: f64) -> f32 {
        let share = ((x - self.low) / (self.high - self.low)) as f32;
        self.pixels.start + share * (self.pixels.end - self.pixels.start)
    }

    fn ticks(&self) -> Vec<f64> {
        // a little tolerance keeps a tick at the very end
        let first = (self.low / self.step - 1e-6).ceil() as i64;
        let last = (self.high / self.step + 1e-6).floor() as i64;
        (first..=last).map(|i| i as f64 * self.step).collect()
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
        if tick == 0.0 {
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

fn push_svg(svg: &mut String, shape: &Shape) -> std::fmt::Result {
    let hex = |Colour(r, g, b): &Colour| format!("#{r:02x}{g:02x}{b:02x}");
    match shape {
        Shape::Line { points, width, colour } => {
            write!(svg, "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\" ", hex(colour))?;
            svg.push_str("stroke-linejoin=\"round\" stroke-linecap=\"round\" points=\"");
            for (i, (x, y)) in points.iter().enumerate() {
                write!(svg, "{}{x:.1},{y:.1}", if i == 0 { "" } else { " " })?;
            }
            // a point alone is a dot
            if let [(x, y)] = points[..] {
                write!(svg, " {x:.1},{y:.1}")?;
            }
        }
        Shape::Band { points, colour } => {
            write!(svg, "<polygon fill=\"{}\" fill-opacity=\"{BAND_ALPHA}\" points=\"", hex(colour))?;
            let upper = points.iter().map(|p| (p.0, p.1));
            let lower = points.iter().rev().map(|p| (p.0, p.2));
            for (i, (x, y)) in upper.chain(lower).enumerate() {
                write!(svg, "{}{x:.1},{y:.1}", if i == 0 { "" } else { " " })?;
            }
        }
        Shape::Text { at: (x, y), size, anchor, upwards, colour, text } => {
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            let turn = if *upwards { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let colour = hex(colour);
            return writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" \
                 fill=\"{colour}\"{turn}>{text}</text>"
            );
        }
    }
    svg.push_str("\"/>\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(numbers: &[f64]) -> Vec<String> {
        let axis = Axis::new(numbers.iter().copied(), 0.0..100.0, 0.0);
        axis.ticks().into_iter().map(|tick| axis.label(tick)).collect()
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
    fn a_gap_breaks_the_line_and_text_is_escaped() {
        let series = Series {
            x: vec![1.0, 2.0, 3.0, 4.0],
            mean: vec![1.0, f64::NAN, 2.0, 3.0],
            std: Some(vec![0.0, 0.0, 0.5, f64::NAN]),
            ..Series::default()
        };
        let graph = Graph { title: "a<b & c".into(), series: vec![series], ..Graph::default() };
        let svg = graph.to_svg();
        assert_eq!(svg.matches("stroke-width=\"2.6\"").count(), 2);
        assert_eq!(svg.matches("<polygon").count(), 1);
        assert!(svg.contains("a&lt;b &amp; c"));
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn a_long_run_is_thinned_and_keeps_its_spikes() {
        let point = |i| Point { x: i as f32 * 0.01, y: if i == 5_005 { 9.0 } else { 1.0 }, top: 0.0, bottom: 0.0 };
        let points: Vec<Point> = (0..10_000).map(point).collect();
        let thinned = thin(&points);
        assert!(thinned.len() <= 400);
        assert!(thinned.iter().any(|p| p.1 == 9.0));
        assert_eq!(band(&points).len(), 100);
    }
}
