//! A canvas of RGB pixels with smooth shapes: every shape is a signed distance, its edge is one pixel wide.
//!
//! Coordinates are pixels, x to the right and y down, and pixel `(i, j)` covers `[i, i + 1) x [j, j + 1)`.

use super::font;

/// Red, green, blue.
pub type Color = [u8; 3];

/// A point, px.
pub type Point = (f32, f32);

/// A picture, row by row from the top left.
#[derive(Debug, Clone, PartialEq)]
pub struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Color>,
}

impl Canvas {
    /// A canvas of one color.
    pub fn new(width: usize, height: usize, color: Color) -> Self {
        Canvas { width, height, pixels: vec![color; width * height] }
    }

    /// Width, px.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height, px.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All pixels, `[height][width]`.
    pub fn pixels(&self) -> &[Color] {
        &self.pixels
    }

    /// Paints everything in one color.
    pub fn clear(&mut self, color: Color) {
        self.pixels.fill(color);
    }

    /// A line with round ends.
    pub fn line(&mut self, a: Point, b: Point, thickness: f32, color: Color) {
        let radius = thickness / 2.0;
        let (low, high) = ((a.0.min(b.0), a.1.min(b.1)), (a.0.max(b.0), a.1.max(b.1)));
        self.shape(low, high, radius, color, |p| segment(p, a, b) - radius);
    }

    /// A line of dashes, `dash` px of ink and as much of gap.
    pub fn dashed(&mut self, a: Point, b: Point, thickness: f32, dash: f32, color: Color) {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let length = dx.hypot(dy);
        let at = |s: f32| (a.0 + dx * s / length, a.1 + dy * s / length);
        let mut s = 0.0;
        while s < length {
            self.line(at(s), at((s + dash).min(length)), thickness, color);
            s += 2.0 * dash;
        }
    }

    /// A filled circle.
    pub fn disc(&mut self, center: Point, radius: f32, color: Color) {
        self.shape(center, center, radius, color, |p| distance(p, center) - radius);
    }

    /// A circle's outline.
    pub fn ring(&mut self, center: Point, radius: f32, thickness: f32, color: Color) {
        let reach = radius + thickness;
        self.shape(center, center, reach, color, |p| (distance(p, center) - radius).abs() - thickness / 2.0);
    }

    /// Part of a circle's outline from one angle to another, in rad clockwise from the right, in short lines.
    pub fn arc(&mut self, center: Point, radius: f32, (from, to): (f32, f32), thickness: f32, color: Color) {
        let at = |angle: f32| (center.0 + radius * angle.cos(), center.1 + radius * angle.sin());
        let pieces = ((to - from).abs() / 0.1).ceil().max(1.0);
        let step = (to - from) / pieces;
        for piece in 0..pieces as usize {
            let angle = from + step * piece as f32;
            self.line(at(angle), at(angle + step), thickness, color);
        }
    }

    /// A filled polygon, its corners in order; corners rounded by `round` px (the polygon grows by as much).
    pub fn polygon(&mut self, corners: &[Point], round: f32, color: Color) {
        let fold = |f: fn(f32, f32) -> f32, start: f32| {
            corners.iter().fold((start, start), |acc, &corner| (f(acc.0, corner.0), f(acc.1, corner.1)))
        };
        let (low, high) = (fold(f32::min, f32::INFINITY), fold(f32::max, f32::NEG_INFINITY));
        self.shape(low, high, round, color, |p| polygon(p, corners) - round);
    }

    /// Everything below the graph of `y(x)`.
    pub fn below(&mut self, y: impl Fn(f32) -> f32, color: Color) {
        for i in 0..self.width {
            let x = i as f32 + 0.5;
            let top = y(x);
            // distance to a steep graph is shorter than the vertical one
            let slope = y(x + 0.5) - y(x - 0.5);
            let shorten = 1.0 / (1.0 + slope * slope).sqrt();
            let first = (top - 2.0 - slope.abs()).max(0.0) as usize;
            for j in first..self.height {
                self.blend(i, j, color, 0.5 + (j as f32 + 0.5 - top) * shorten);
            }
        }
    }

    /// Text in a built-in bitmap font, `scale` px per dot (capitals are 7 dots high), from its top left corner.
    pub fn text(&mut self, (x, y): (usize, usize), text: &str, scale: usize, color: Color) {
        for (index, letter) in text.chars().enumerate() {
            for (row, bits) in (font::drop(letter)..).zip(font::glyph(letter)) {
                for column in (0..font::WIDTH).filter(|column| bits >> (font::WIDTH - 1 - column) & 1 == 1) {
                    let left = x + (index * font::ADVANCE + column) * scale;
                    let top = y + row * scale;
                    for j in top..(top + scale).min(self.height) {
                        for i in left..(left + scale).min(self.width) {
                            self.pixels[j * self.width + i] = color;
                        }
                    }
                }
            }
        }
    }

    /// Paints where `distance` is negative; `[low, high]` grown by `margin` holds the shape.
    fn shape(&mut self, low: Point, high: Point, margin: f32, color: Color, distance: impl Fn(Point) -> f32) {
        // a float to integer cast saturates, so shapes off the canvas and NaN paint nothing or clip
        let reach = margin + 1.0;
        let columns = (low.0 - reach) as usize..((high.0 + reach).ceil() as usize).min(self.width);
        let rows = (low.1 - reach) as usize..((high.1 + reach).ceil() as usize).min(self.height);
        for j in rows {
            for i in columns.clone() {
                self.blend(i, j, color, 0.5 - distance((i as f32 + 0.5, j as f32 + 0.5)));
            }
        }
    }

    /// Mixes a color in; `coverage` is the share of the pixel that it covers, held within 0 and 1.
    fn blend(&mut self, i: usize, j: usize, color: Color, coverage: f32) {
        if coverage > 0.0 {
            let share = coverage.min(1.0);
            let pixel = &mut self.pixels[j * self.width + i];
            for (channel, ink) in pixel.iter_mut().zip(color) {
                let (old, ink) = (f32::from(*channel), f32::from(ink));
                *channel = (old + (ink - old) * share).round() as u8;
            }
        }
    }
}

fn distance(a: Point, b: Point) -> f32 {
    (a.0 - b.0).hypot(a.1 - b.1)
}

/// Distance of a point to a line between two.
fn segment(p: Point, a: Point, b: Point) -> f32 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length2 = dx * dx + dy * dy;
    let along = if length2 > 0.0 { ((p.0 - a.0) * dx + (p.1 - a.1) * dy) / length2 } else { 0.0 };
    let t = along.clamp(0.0, 1.0);
    distance(p, (a.0 + t * dx, a.1 + t * dy))
}

/// Signed distance to a polygon, negative inside: the nearest edge, and the parity of edges to the right.
fn polygon(p: Point, corners: &[Point]) -> f32 {
    let mut nearest = f32::INFINITY;
    let mut inside = false;
    for (index, &a) in corners.iter().enumerate() {
        let b = corners[(index + 1) % corners.len()];
        nearest = nearest.min(segment(p, a, b));
        if (a.1 > p.1) != (b.1 > p.1) && p.0 < a.0 + (p.1 - a.1) / (b.1 - a.1) * (b.0 - a.0) {
            inside = !inside;
        }
    }
    if inside { -nearest } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHITE: Color = [255; 3];
    const BLACK: Color = [0; 3];

    /// Ink on the canvas, in pixels.
    fn ink(canvas: &Canvas) -> f32 {
        canvas.pixels().iter().map(|pixel| 1.0 - f32::from(pixel[0]) / 255.0).sum()
    }

    fn canvas(paint: impl Fn(&mut Canvas)) -> Canvas {
        let mut canvas = Canvas::new(80, 60, WHITE);
        paint(&mut canvas);
        canvas
    }

    #[test]
    fn shapes_cover_their_areas() {
        let near = |got: f32, want: f32| assert!((got - want).abs() < 0.02 * want, "{got} for {want}");
        near(ink(&canvas(|c| c.disc((40.3, 30.7), 20.0, BLACK))), 1256.6);
        near(ink(&canvas(|c| c.line((15.0, 30.2), (65.0, 30.2), 4.0, BLACK))), 212.6);
        near(ink(&canvas(|c| c.polygon(&[(10.0, 10.0), (50.0, 10.0), (50.0, 40.0)], 0.0, BLACK))), 600.0);
        near(ink(&canvas(|c| c.ring((40.0, 30.0), 20.0, 2.0, BLACK))), 251.3);
        near(ink(&canvas(|c| c.below(|x| 20.0 + x / 2.0, BLACK))), 1600.0);
    }

    #[test]
    fn edges_are_smooth_and_the_canvas_clips() {
        let disc = canvas(|c| c.disc((40.0, 30.0), 20.0, BLACK));
        assert!(disc.pixels().iter().any(|pixel| (50..200).contains(&pixel[0])));
        let outside = canvas(|c| {
            c.disc((-500.0, 30.0), 20.0, BLACK);
            c.line((200.0, -10.0), (300.0, -90.0), 5.0, BLACK);
            c.disc((f32::NAN, f32::NAN), 5.0, BLACK);
            c.text((70, 55), "clipped", 3, WHITE);
        });
        assert_eq!(ink(&outside), 0.0);
        assert!(ink(&canvas(|c| c.disc((0.0, 0.0), 20.0, BLACK))) > 300.0);
    }

    #[test]
    fn text_is_drawn() {
        let one = canvas(|c| c.text((2, 2), "1", 1, BLACK));
        assert_eq!(ink(&one), 10.0);
        assert_eq!(ink(&canvas(|c| c.text((2, 2), "11", 2, BLACK))), 80.0);
    }
}
