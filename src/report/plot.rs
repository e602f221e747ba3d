//! Graphs: lines with a band of one standard deviation, laid out once as a list of shapes and rendered to PNG and SVG.

use super::axis::Axis;
use super::picture::{Anchor, Colour, Picture, Shape, fit, text};

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
    /// Drawn in order, in the colours of a palette of eight.
    pub series: Vec<Series>,
}

/// Size of a graph in pixels.
pub const SIZE: (usize, usize) = (1000, 700);

/// Inner edges of the axes: left, right, top, bottom.
const FRAME: (f32, f32, f32, f32) = (120.0, 965.0, 84.0, 604.0);
/// Names side by side in a legend, and the height of a row of them.
const LEGEND_COLUMNS: usize = 4;
const LEGEND_ROW: f32 = 26.0;
const PALETTE: [Colour; 8] = [
    Colour(0x1b, 0x7f, 0x8c),
    Colour(0xd9, 0x6c, 0x2c),
    Colour(0x5b, 0x5f, 0xc7),
    Colour(0xb8, 0x3a, 0x6b),
    Colour(0x6a, 0x8f, 0x2a),
    Colour(0x7a, 0x5c, 0x45),
    Colour(0x2f, 0x74, 0xc0),
    Colour(0x9a, 0x6f, 0xb0),
];
pub(super) const INK: Colour = Colour(0x2b, 0x2f, 0x36);
pub(super) const FAINT: Colour = Colour(0x6b, 0x72, 0x7d);
pub(super) const GRID: Colour = Colour(0xe6, 0xe9, 0xed);

/// A row of a series in pixels.
#[derive(Debug, Clone, Copy)]
struct Point {
    x: f32,
    y: f32,
    /// Of the band.
    top: f32,
    bottom: f32,
}

impl Graph {
    /// The graph as an anti-aliased PNG file, 1000 x 700 pixels.
    pub fn to_png(&self) -> Vec<u8> {
        self.picture().to_png()
    }

    /// The graph as an SVG file of the same look.
    pub fn to_svg(&self) -> String {
        self.picture().to_svg()
    }

    /// The graph laid out.
    pub fn picture(&self) -> Picture {
        Picture { size: SIZE, shapes: self.shapes() }
    }

    /// Axes, bands below lines, texts.
    fn shapes(&self) -> Vec<Shape> {
        let (left, right, top, bottom) = FRAME;
        let legend_rows = if self.series.len() > 1 { self.series.len().div_ceil(LEGEND_COLUMNS) } else { 1 };
        let top = top + LEGEND_ROW * (legend_rows - 1) as f32;
        let mut shapes = Vec::new();
        let x_axis = Axis::new(self.series.iter().flat_map(|s| s.x.iter().copied()), left..right, 0.0);
        let y_axis = Axis::new(self.series.iter().flat_map(Series::extent), bottom..top, 0.04);

        for (x, label) in x_axis.marks() {
            shapes.push(Shape::Line { points: vec![(x, top), (x, bottom)], width: 1.0, colour: GRID });
            shapes.push(text((x, bottom + 30.0), 20.0, Anchor::Middle, FAINT, &label));
        }
        for (y, label) in y_axis.marks() {
            shapes.push(Shape::Line { points: vec![(left, y), (right, y)], width: 1.0, colour: GRID });
            shapes.push(text((left - 12.0, y + 7.0), 20.0, Anchor::End, FAINT, &label));
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
            let columns = self.series.len().min(LEGEND_COLUMNS);
            let step = (right - left) / columns as f32;
            for (i, (series, &colour)) in self.series.iter().zip(PALETTE.iter().cycle()).enumerate() {
                let (x, y) = (left + step * (i % columns) as f32, 67.0 + LEGEND_ROW * (i / columns) as f32);
                shapes.push(Shape::Line { points: vec![(x, y), (x + 26.0, y)], width: 4.0, colour });
                let name = fit(&series.name, step - 44.0, 18.0);
                shapes.push(text((x + 36.0, y + 6.0), 18.0, Anchor::Start, INK, &name));
            }
        }
        shapes
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(svg.matches("stroke-width=\"2.6\"").count(), 1);
        assert_eq!(svg.matches("<circle").count(), 1, "a row alone is a dot");
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
