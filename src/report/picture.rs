//! A picture of lines, bands, dots and texts: one list of shapes, rendered to SVG and to PNG.

use std::fmt::Write;

use super::raster;

/// Red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Colour(pub u8, pub u8, pub u8);

/// Where a text's `x` is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// What a picture is made of; both renderers draw the same list. Points are pixels from the upper left.
#[derive(Debug, Clone)]
pub enum Shape {
    /// A line with round joins; a point alone is a dot.
    Line { points: Vec<(f32, f32)>, width: f32, colour: Colour },
    /// `(x, top, bottom)`, x ascending, filled at an opacity of [`BAND_ALPHA`].
    Band { points: Vec<(f32, f32, f32)>, colour: Colour },
    /// `y` is the baseline; `upwards` is turned a quarter against the clock around `(x, y)`.
    Text { at: (f32, f32), size: f32, anchor: Anchor, upwards: bool, colour: Colour, text: String },
}

/// Opacity of a band.
pub const BAND_ALPHA: f32 = 0.2;

/// Shapes on white, the first lowest.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Width and height in pixels.
    pub size: (usize, usize),
    /// In the order of drawing.
    pub shapes: Vec<Shape>,
}

impl Picture {
    /// The picture as an anti-aliased PNG file.
    pub fn to_png(&self) -> Vec<u8> {
        raster::png(self.size, &self.shapes)
    }

    /// The picture as an SVG file of the same look.
    pub fn to_svg(&self) -> String {
        let (w, h) = self.size;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
             font-family=\"Inter, system-ui, sans-serif\">\n<rect width=\"{w}\" height=\"{h}\" fill=\"#fff\"/>\n"
        );
        for shape in &self.shapes {
            push_svg(&mut svg, shape).expect("a String takes any text");
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Text that is read from left to right.
pub fn text(at: (f32, f32), size: f32, anchor: Anchor, colour: Colour, text: &str) -> Shape {
    Shape::Text { at, size, anchor, upwards: false, colour, text: text.to_string() }
}

/// The end of a text that would be wider than `width`: of a dotted key that is what tells it from others.
pub(super) fn fit(text: &str, width: f32, size: f32) -> String {
    let letters = (width / (0.56 * size)) as usize;
    let n = text.chars().count();
    if n <= letters {
        return text.to_string();
    }
    let tail: String = text.chars().skip(n - letters.saturating_sub(2)).collect();
    format!("..{tail}")
}

fn push_svg(svg: &mut String, shape: &Shape) -> std::fmt::Result {
    let hex = |Colour(r, g, b): &Colour| format!("#{r:02x}{g:02x}{b:02x}");
    match shape {
        Shape::Line { points, width, colour } => {
            if let [(x, y)] = points[..] {
                let r = width / 2.0;
                return writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\" fill=\"{}\"/>", hex(colour));
            }
            write!(svg, "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\" ", hex(colour))?;
            svg.push_str("stroke-linejoin=\"round\" stroke-linecap=\"round\" points=\"");
            for (i, (x, y)) in points.iter().enumerate() {
                write!(svg, "{}{x:.1},{y:.1}", if i == 0 { "" } else { " " })?;
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

    #[test]
    fn a_long_key_keeps_its_end() {
        assert_eq!(fit("agent.net.lr", 200.0, 14.0), "agent.net.lr");
        let cut = fit("agent.net.actor_optim_spec.lr", 100.0, 16.0);
        assert!(cut.starts_with("..") && cut.ends_with("spec.lr") && cut.len() < 14, "{cut}");
    }
}
