//! One scene for each environment: what a state looks like, and which way the action pushes.

use std::f32::consts::{FRAC_PI_2, PI};

use super::canvas::{Canvas, Color, Point};

const PAPER: Color = [247, 248, 250];
const GROUND: Color = [226, 232, 240];
const FAINT: Color = [203, 213, 225];
const GREY: Color = [148, 163, 184];
const INK: Color = [30, 41, 59];
const ORANGE: Color = [249, 115, 22];
const BLUE: Color = [59, 130, 246];
const GREEN: Color = [16, 185, 129];

/// Frames per second at which the motion looks natural (Gymnasium's `render_fps`).
pub fn frames_per_second(env: &str) -> u32 {
    match env {
        "CartPole-v1" => 50,
        "Acrobot-v1" => 15,
        _ => 30,
    }
}

/// Draws `state[K]` of environment `env` over the whole canvas; where `action[A]` is given, an arrow shows its push.
///
/// `state` and `action` are in the environment's own units. An environment without a scene leaves the paper empty.
///
/// # Panics
/// If `state` or `action` has fewer words than the environment's.
pub fn draw(env: &str, state: &[f32], action: Option<&[f32]>, canvas: &mut Canvas) {
    canvas.clear(PAPER);
    // the push as a share of the strongest one
    let push = |scale: f32, zero: f32| action.map(|action| ((action[0] - zero) / scale).clamp(-1.0, 1.0));
    match env {
        "CartPole-v1" => cartpole(state, push(0.5, 0.5), canvas),
        "Acrobot-v1" => acrobot(state, push(1.0, 1.0), canvas),
        "MountainCar-v0" => mountain_car(state, push(1.0, 1.0), 0.5, canvas),
        "MountainCarContinuous-v0" => mountain_car(state, push(1.0, 0.0), 0.45, canvas),
        "Pendulum-v1" => pendulum(state, push(2.0, 0.0), canvas),
        _ => {}
    }
}

/// Writes a line of text into the top left corner.
pub fn caption(canvas: &mut Canvas, text: &str) {
    canvas.text((16, 16), text, 2, GREY);
}

/// The canvas's middle and the length of one unit such that `units` of them fit into its height, px.
fn frame(canvas: &Canvas, units: f32) -> (f32, f32, f32) {
    let (width, height) = (canvas.width() as f32, canvas.height() as f32);
    (width / 2.0, height / 2.0, height / units)
}

/// A straight arrow from `from` along x; nothing where `push` (in -1..1) is nearly 0.
fn arrow(canvas: &mut Canvas, from: Point, push: f32, reach: f32) {
    if push.abs() > 0.02 {
        let tip = (from.0 + push * reach, from.1);
        let barb = push.signum() * 7.0;
        canvas.line(from, (tip.0 - barb * 0.5, tip.1), 4.0, BLUE);
        canvas.polygon(
            &[(tip.0 + barb * 0.6, tip.1), (tip.0 - barb, tip.1 - 6.0), (tip.0 - barb, tip.1 + 6.0)],
            1.0,
            BLUE,
        );
    }
}

/// A round arrow about `center`: `torque` (in -1..1) is positive counterclockwise.
fn round_arrow(canvas: &mut Canvas, center: Point, radius: f32, torque: f32) {
    if torque.abs() > 0.02 {
        // from the top, as far as the torque is strong
        let (from, sweep) = (-FRAC_PI_2, -torque * 1.6);
        canvas.arc(center, radius, (from, from + sweep), 4.0, BLUE);
        let (sin, cos) = (from + sweep).sin_cos();
        let turn = -torque.signum();
        let at = |along: f32, across: f32| {
            let r = radius + across;
            (center.0 + r * cos - turn * along * sin, center.1 + r * sin + turn * along * cos)
        };
        canvas.polygon(&[at(11.0, 0.0), at(-1.0, -7.0), at(-1.0, 7.0)], 1.0, BLUE);
    }
}

fn cartpole(state: &[f32], push: Option<f32>, canvas: &mut Canvas) {
    let (x, theta) = (state[0], state[2]);
    let (middle, _, unit) = frame(canvas, 3.6);
    let rail = canvas.height() as f32 * 0.74;
    let cart = (middle + x * unit, rail);

    canvas.line((middle - 2.4 * unit, rail), (middle + 2.4 * unit, rail), 4.0, FAINT);
    for end in [-2.4, 2.4] {
        canvas.line((middle + end * unit, rail - 14.0), (middle + end * unit, rail + 14.0), 4.0, FAINT);
    }
    let (half, high) = (0.26 * unit, 0.15 * unit);
    let corners =
        [(-half, -high), (half, -high), (half, high), (-half, high)].map(|(dx, dy)| (cart.0 + dx, cart.1 + dy));
    canvas.polygon(&corners, 4.0, INK);
    // the whole pole is twice the constant `length`
    let hinge = (cart.0, cart.1 - high * 0.6);
    let tip = (hinge.0 + theta.sin() * 1.6 * unit, hinge.1 - theta.cos() * 1.6 * unit);
    canvas.line(hinge, tip, 12.0, ORANGE);
    canvas.disc(hinge, 5.0, PAPER);
    if let Some(push) = push {
        arrow(canvas, (cart.0 + push * (half + 14.0), cart.1), push, 34.0);
    }
}

fn acrobot(state: &[f32], torque: Option<f32>, canvas: &mut Canvas) {
    let (theta1, theta2) = (state[0], state[1]);
    let (middle, center, unit) = frame(canvas, 5.2);
    let bar = (middle, center + 0.2 * unit);
    let end = |from: Point, angle: f32| (from.0 + angle.sin() * unit, from.1 + angle.cos() * unit);
    let elbow = end(bar, theta1);
    let tip = end(elbow, theta1 + theta2);

    let goal = bar.1 - unit;
    let color = if tip.1 < goal { GREEN } else { FAINT };
    canvas.dashed((middle - 2.5 * unit, goal), (middle + 2.5 * unit, goal), 3.0, 9.0, color);
    canvas.line(bar, elbow, 16.0, INK);
    canvas.line(elbow, tip, 16.0, ORANGE);
    canvas.disc(bar, 5.0, PAPER);
    canvas.disc(elbow, 5.0, PAPER);
    if let Some(torque) = torque {
        round_arrow(canvas, elbow, 26.0, torque);
    }
}

fn mountain_car(state: &[f32], push: Option<f32>, goal: f32, canvas: &mut Canvas) {
    let (width, height) = (canvas.width() as f32, canvas.height() as f32);
    // the track from -1.2 to 0.6 and a little of the hills beyond it
    let (left, right) = (-1.25, 0.65);
    let unit = width / (right - left);
    let hill = |x: f32| (3.0 * x).sin() * 0.45 + 0.55;
    let at = |x: f32| ((x - left) * unit, height - 30.0 - hill(x) * unit * 0.85);

    canvas.below(|px| at(left + px / unit).1, GROUND);
    let mut px = 0.0;
    while px < width {
        canvas.line(at(left + px / unit), at(left + (px + 5.0) / unit), 3.0, GREY);
        px += 5.0;
    }
    let foot = at(goal);
    canvas.line(foot, (foot.0, foot.1 - 46.0), 3.0, INK);
    canvas.polygon(
        &[(foot.0 + 2.0, foot.1 - 46.0), (foot.0 + 26.0, foot.1 - 38.0), (foot.0 + 2.0, foot.1 - 30.0)],
        1.0,
        GREEN,
    );

    // the car stands on the slope: `along` it and `up` from it
    let x = state[0];
    let wheel = at(x);
    let (ahead, behind) = (at(x + 0.01), at(x - 0.01));
    let length = (ahead.0 - behind.0).hypot(ahead.1 - behind.1);
    let (cos, sin) = ((ahead.0 - behind.0) / length, (ahead.1 - behind.1) / length);
    let car = |along: f32, up: f32| (wheel.0 + along * cos + up * sin, wheel.1 + along * sin - up * cos);
    let body = [
        (-20.0, 11.0),
        (20.0, 11.0),
        (20.0, 19.0),
        (11.0, 20.0),
        (7.0, 28.0),
        (-9.0, 28.0),
        (-14.0, 20.0),
        (-20.0, 19.0),
    ];
    canvas.polygon(&body.map(|(along, up)| car(along, up)), 2.0, ORANGE);
    for along in [-12.0, 12.0] {
        canvas.disc(car(along, 8.0), 7.0, INK);
        canvas.disc(car(along, 8.0), 2.5, PAPER);
    }
    if let Some(push) = push {
        arrow(canvas, car(0.0, 46.0), push, 40.0);
    }
}

fn pendulum(state: &[f32], torque: Option<f32>, canvas: &mut Canvas) {
    let theta = state[0];
    let (middle, center, unit) = frame(canvas, 2.7);
    let pivot = (middle, center + 4.0);
    // theta grows counterclockwise from upright
    let tip = (pivot.0 - theta.sin() * unit, pivot.1 - theta.cos() * unit);
    canvas.ring(pivot, unit, 2.0, GROUND);
    let mark = (pivot.0, pivot.1 - unit);
    canvas.disc(mark, 5.0, if theta.cos() > (PI / 30.0).cos() { GREEN } else { FAINT });
    canvas.line(pivot, tip, 18.0, ORANGE);
    canvas.disc(pivot, 6.0, INK);
    if let Some(torque) = torque {
        round_arrow(canvas, pivot, 46.0, torque);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::env::{ActionSpace, all};

    #[test]
    fn every_environment_has_a_scene_that_moves() {
        for spec in all() {
            let mut pictures = HashSet::new();
            for x in [-0.9f32, -0.2, 0.0, 0.3] {
                let mut canvas = Canvas::new(300, 200, PAPER);
                draw(spec.name, &vec![x; spec.state_len], None, &mut canvas);
                let colors: HashSet<Color> = canvas.pixels().iter().copied().collect();
                assert!(colors.len() > 20 && colors.contains(&ORANGE), "{}: a picture with smooth edges", spec.name);
                pictures.insert(canvas.pixels().to_vec());
            }
            assert_eq!(pictures.len(), 4, "{}: states look different", spec.name);
        }
    }

    #[test]
    fn actions_point_where_they_push() {
        for spec in all() {
            let blue = |action: f32| {
                let mut canvas = Canvas::new(300, 200, PAPER);
                draw(spec.name, &vec![0.0; spec.state_len], Some(&[action]), &mut canvas);
                let blue = canvas.pixels().iter().enumerate().filter(|(_, pixel)| **pixel == BLUE);
                let columns: Vec<usize> = blue.map(|(at, _)| at % 300).collect();
                columns.iter().sum::<usize>() as f32 / columns.len() as f32
            };
            let (low, high) = match spec.action_space {
                ActionSpace::Discrete(n) => (0.0, n as f32 - 1.0),
                ActionSpace::Box { low, high } => (low[0], high[0]),
            };
            // torque is positive counterclockwise, so its arrow runs to the left from the top
            let turns = ["Acrobot-v1", "Pendulum-v1"].contains(&spec.name);
            assert_eq!(blue(high) > blue(low), !turns, "{}", spec.name);
        }
    }

    #[test]
    fn states_off_the_picture_do_no_harm() {
        for spec in all() {
            for word in [1e9, -1e9, f32::NAN, f32::INFINITY] {
                draw(spec.name, &vec![word; spec.state_len], Some(&[word]), &mut Canvas::new(60, 40, PAPER));
            }
        }
    }
}
