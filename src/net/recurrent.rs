//! Recurrent bodies: first parameters, and their layers by PyTorch's names.

use super::{Source, layer};
use crate::op::lib::nets::Nets;
use crate::op::lib::recurrent::Body;
use crate::spec::{Net, Tower};

/// Added to the number of a head's stream of random numbers, for that of the body below it.
const STREAM: u32 = 16;

/// Draws the bodies into the parameters of all nets.
pub(super) fn init(nets: &Nets, body: &Body, net: &Net, key: [u32; 2], params: &mut [f32]) {
    for (b, tower) in [net.actor(), net.critic()].iter().enumerate().take(nets.bodies()) {
        let mut source = Source { key, tower: STREAM + b as u32, at: 0 };
        draw(&mut source, tower, body, &mut params[nets.body_at(b)]);
    }
}

/// Draws one body. Without an init function the cell's parameters are uniform within `1 / sqrt(H)`, as PyTorch draws them;
/// with one, both its matrices are drawn as those of other layers, and its biases are 0.
fn draw(source: &mut Source, tower: &Tower<'_>, body: &Body, params: &mut [f32]) {
    let mut layers = body.front.offsets();
    let (input, rows, weight_ih, bias_ih) = layers.pop().expect("a net has an output layer");
    for (input, output, weight, bias) in layers {
        let (w, b) = layer(source, tower, output, input, None);
        for o in 0..output {
            (0..input).for_each(|i| params[weight + i * output + o] = w[o * input + i] as f32);
            params[bias + o] = b[o] as f32;
        }
    }
    let (h, weight_hh) = (body.hidden, body.recurrent_at());
    let mut put = |at: usize, values: Vec<f64>| {
        params[at..at + values.len()].iter_mut().zip(values).for_each(|(to, from)| *to = from as f32);
    };
    if tower.init_fn.is_some() {
        put(weight_ih, layer(source, tower, rows, input, None).0);
        put(weight_hh, layer(source, tower, rows, h, None).0);
        return;
    }
    let bound = 1.0 / (h as f64).sqrt();
    for (at, len) in [(weight_ih, rows * input), (weight_hh, rows * h), (bias_ih, rows), (weight_hh + rows * h, rows)] {
        put(at, (0..len).map(|_| source.uniform(-bound, bound)).collect());
    }
}

/// Every layer by name: offset, rows and columns in the parameters, and whether they are stored `[in, out]`.
pub(super) fn named(nets: &Nets, body: &Body) -> Vec<(String, usize, [usize; 2], bool)> {
    let mut all = Vec::new();
    let actor = (if nets.shared() { "net" } else { "actor" }, &nets.actor, 0);
    let critic = nets.critic.as_ref().map(|critic| ("critic", critic, nets.actor_len()));
    for (b, (name, head, head_at)) in std::iter::once(actor).chain(critic).enumerate() {
        let at = nets.body_at(b).start;
        let mut linear = |name: String, at: usize, (input, output, weight, bias), turned: bool| {
            all.push((format!("{name}.weight"), at + weight, [output, input], turned));
            all.push((format!("{name}.bias"), at + bias, [output, 0], false));
        };
        let mut layers = body.front.offsets();
        let (input, rows, weight, bias) = layers.pop().expect("a net has an output layer");
        layers.into_iter().enumerate().for_each(|(l, y)| linear(format!("{name}.fc.{l}"), at, y, true));
        head.offsets().into_iter().for_each(|y| linear(format!("{name}.head"), head_at, y, false));
        let (h, recurrent) = (body.hidden, body.recurrent_at());
        let cell = [
            ("weight_ih_l0", weight, [rows, input]),
            ("weight_hh_l0", recurrent, [rows, h]),
            ("bias_ih_l0", bias, [rows, 0]),
            ("bias_hh_l0", recurrent + rows * h, [rows, 0]),
        ];
        all.extend(cell.map(|(part, offset, shape)| (format!("{name}.rnn.{part}"), at + offset, shape, false)));
    }
    if nets.policy.free_len() > 0 {
        all.push(("log_std".to_string(), nets.free().start, [nets.policy.free_len(), 0], false));
    }
    all
}
