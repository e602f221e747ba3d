//! Draws the shapes of a graph into an anti-aliased PNG. The text is set in Inter (`assets/README.md`).

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};

use super::picture::{Anchor, BAND_ALPHA, Colour, Shape};

/// The font of every text.
static FONT: &[u8] = include_bytes!("../../assets/inter-ascii.ttf");

/// Renders shapes, first below last, on white.
pub(super) fn png(size: (usize, usize), shapes: &[Shape]) -> Vec<u8> {
    let font = FontRef::try_from_slice(FONT).expect("the embedded font is whole");
    let mut canvas = Canvas::new(size);
    for shape in shapes {
        match shape {
            Shape::Line { points, width, colour } => canvas.line(points, *width, *colour),
            Shape::Band { points, colour } => canvas.band(points, *colour),
            Shape::Text { at, size, anchor, upwards, colour, text } => {
                canvas.text(&font, *at, *size, *anchor, *upwards, *colour, text);
            }
        }
    }
    canvas.encode()
}

/// `[H, W, 3]` bytes, and `[H, W]` coverages of the line that is being drawn.
struct Canvas {
    /// W, H.
    size: (usize, usize),
    rgb: Vec<u8>,
    cover: Vec<f32>,
}

impl Canvas {
    fn new(size: (usize, usize)) -> Canvas {
        let (w, h) = size;
        Canvas { size, rgb: vec![255; w * h * 3], cover: vec![0.0; w * h] }
    }

    /// Mixes a colour into a pixel; outside the canvas nothing happens.
    fn blend(&mut self, x: i32, y: i32, Colour(r, g, b): Colour, alpha: f32) {
        let (w, h) = self.size;
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x >= w || y >= h {
            return;
        }
        let pixel = &mut self.rgb[(y * w + x) * 3..][..3];
        for (old, new) in pixel.iter_mut().zip([r, g, b]) {
            *old = (f32::from(*old) + (f32::from(new) - f32::from(*old)) * alpha + 0.5) as u8;
        }
    }

    /// A pixel's coverage is that of the nearest segment, so joins are round and an overlap is not drawn twice.
    fn line(&mut self, points: &[(f32, f32)], width: f32, colour: Colour) {
        let (w, h) = self.size;
        let reach = width / 2.0 + 0.5;
        let bound = |x: f32, end: usize| (x.max(0.0) as usize).min(end);
        let segments = points.windows(2).map(|pair| (pair[0], pair[1]));
        // a point alone is a dot
        let dot = (points.len() == 1).then(|| (points[0], points[0]));
        let (mut first, mut last, mut left, mut right) = (h, 0, w, 0);
        for ((ax, ay), (bx, by)) in segments.chain(dot) {
            let (dx, dy) = (bx - ax, by - ay);
            let inverse = 1.0 / (dx * dx + dy * dy).max(1e-12);
            let rows = bound(ay.min(by) - reach, h)..bound(ay.max(by) + reach + 1.0, h);
            let columns = bound(ax.min(bx) - reach, w)..bound(ax.max(bx) + reach + 1.0, w);
            (first, last) = (first.min(rows.start), last.max(rows.end));
            (left, right) = (left.min(columns.start), right.max(columns.end));
            for y in rows {
                let row = &mut self.cover[y * w..][columns.clone()];
                let py = y as f32 + 0.5 - ay;
                for (x, cover) in columns.clone().zip(row) {
                    let px = x as f32 + 0.5 - ax;
                    // the nearest point of the segment
                    let t = ((px * dx + py * dy) * inverse).clamp(0.0, 1.0);
                    let (ex, ey) = (px - t * dx, py - t * dy);
                    let near = reach - (ex * ex + ey * ey).sqrt();
                    *cover = cover.max(near.clamp(0.0, 1.0));
                }
            }
        }
        for y in first..last {
            for x in left..right {
                let alpha = std::mem::take(&mut self.cover[y * w + x]);
                if alpha > 0.0 {
                    self.blend(x as i32, y as i32, colour, alpha);
                }
            }
        }
    }

    /// Column by column, top and bottom interpolated at the column's middle.
    fn band(&mut self, points: &[(f32, f32, f32)], colour: Colour) {
        for pair in points.windows(2) {
            let ((ax, atop, abottom), (bx, btop, bbottom)) = (pair[0], pair[1]);
            // a column belongs to the segment that its middle is in
            let first = (ax - 0.5).ceil() as i32;
            let end = (bx - 0.5).ceil() as i32;
            for x in first..end {
                let t = (x as f32 + 0.5 - ax) / (bx - ax);
                let (top, bottom) = (atop + t * (btop - atop), abottom + t * (bbottom - abottom));
                for y in top.floor() as i32..bottom.ceil() as i32 {
                    let inside = bottom.min(y as f32 + 1.0) - top.max(y as f32);
                    self.blend(x, y, colour, BAND_ALPHA * inside.clamp(0.0, 1.0));
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one shape")]
    fn text(
        &mut self,
        font: &FontRef<'_>,
        (x, y): (f32, f32),
        size: f32,
        anchor: Anchor,
        upwards: bool,
        colour: Colour,
        text: &str,
    ) {
        // ab_glyph scales by the height of a line, everyone else by the em
        let scale = PxScale::from(size * font.height_unscaled() / font.units_per_em().unwrap_or(1000.0));
        let scaled = font.as_scaled(scale);
        let mut pen = 0.0;
        let mut last = None;
        let glyphs: Vec<Glyph> = text
            .chars()
            .map(|c| {
                let id = font.glyph_id(c);
                pen += last.map_or(0.0, |last| scaled.kern(last, id));
                let glyph = id.with_scale_and_position(scale, point(pen, 0.0));
                pen += scaled.h_advance(id);
                last = Some(id);
                glyph
            })
            .collect();
        let shift = match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -pen / 2.0,
            Anchor::End => -pen,
        };
        let (x, y, shift) = (x.round() as i32, y.round() as i32, shift.round() as i32);
        for outlined in glyphs.into_iter().filter_map(|glyph| font.outline_glyph(glyph)) {
            let corner = outlined.px_bounds().min;
            let (gx, gy) = (corner.x as i32 + shift, corner.y as i32);
            outlined.draw(|px, py, alpha| {
                let (along, down) = (gx + px as i32, gy + py as i32);
                let (px, py) = if upwards { (x + down, y - along) } else { (x + along, y + down) };
                self.blend(px, py, colour, alpha.clamp(0.0, 1.0));
            });
        }
    }

    fn encode(&self) -> Vec<u8> {
        let (w, h) = self.size;
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, w as u32, h as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        // of the fast filters the one with the smallest files: flat areas and thin upright lines
        encoder.set_filter(png::Filter::Paeth);
        let mut writer = encoder.write_header().expect("a Vec takes any bytes");
        writer.write_image_data(&self.rgb).expect("a Vec takes any bytes");
        writer.finish().expect("a Vec takes any bytes");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(canvas: &Canvas, x: usize, y: usize) -> [u8; 3] {
        canvas.rgb[(y * canvas.size.0 + x) * 3..][..3].try_into().expect("three bytes")
    }

    #[test]
    fn a_line_covers_its_middle_and_shares_its_edges() {
        let mut canvas = Canvas::new((1000, 700));
        canvas.line(&[(10.0, 20.0), (60.0, 20.0), (110.0, 20.0)], 3.0, Colour(0, 0, 0));
        assert_eq!(pixel(&canvas, 60, 19), [0, 0, 0]);
        // rows 18.5 to 21.5 are covered: half of row 18 and half of row 21
        assert_eq!(pixel(&canvas, 40, 18), [128, 128, 128]);
        assert_eq!(pixel(&canvas, 40, 21), [128, 128, 128]);
        assert_eq!(pixel(&canvas, 40, 23), [255, 255, 255]);
        assert!(canvas.cover.iter().all(|&x| x == 0.0));
    }

    #[test]
    fn nothing_outside_the_canvas_matters() {
        let mut canvas = Canvas::new((1000, 700));
        canvas.line(&[(-50.0, -50.0), (-10.0, 9e3)], 3.0, Colour(0, 0, 0));
        canvas.band(&[(-9.0, -9.0, 9.0), (-5.0, -9.0, 9.0)], Colour(0, 0, 0));
        assert!(canvas.rgb.iter().all(|&x| x == 255));
    }

    #[test]
    fn text_leaves_ink_where_it_is_anchored() {
        let font = FontRef::try_from_slice(FONT).expect("a font");
        let dark = |canvas: &Canvas, xs: std::ops::Range<usize>, ys: std::ops::Range<usize>| {
            ys.flat_map(|y| xs.clone().map(move |x| (x, y))).filter(|&(x, y)| pixel(canvas, x, y)[0] < 128).count()
        };
        let mut canvas = Canvas::new((1000, 700));
        canvas.text(&font, (500.0, 300.0), 20.0, Anchor::End, false, Colour(0, 0, 0), "200k");
        assert!(dark(&canvas, 450..501, 280..302) > 40);
        assert_eq!(dark(&canvas, 0..450, 0..700) + dark(&canvas, 502..1000, 0..700), 0);
        let mut canvas = Canvas::new((1000, 700));
        canvas.text(&font, (500.0, 300.0), 20.0, Anchor::Start, true, Colour(0, 0, 0), "200k");
        assert!(dark(&canvas, 480..502, 250..301) > 40);
    }
}
