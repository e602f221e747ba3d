//! Graphs: lines with a band of one standard deviation, drawn once and rendered to PNG and SVG.

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
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub series: Vec<Series>,
}

impl Graph {
    /// The graph as an anti-aliased PNG file, 1000 x 700 pixels.
    pub fn to_png(&self) -> Vec<u8> {
        todo!()
    }

    /// The graph as an SVG file of the same look.
    pub fn to_svg(&self) -> String {
        todo!()
    }
}
