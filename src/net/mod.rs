//! Nets as a person knows them: first parameters, and layers by name as PyTorch stores them.

mod recurrent;

use crate::device::Dtype;
use crate::op::lib::critic::Critic;
use crate::op::lib::nets::Nets;
use crate::op::lib::renorm::{Place, Renorm};
use crate::op::lib::rng::{Purpose, philox};
use crate::spec::{Activation, InitFn, Net, Tower};

/// A named array of 32-bit words that leaves or enters device memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub words: Vec<u32>,
}

impl Tensor {
    /// A tensor of f32 numbers.
    pub fn f32(name: impl Into<String>, shape: &[usize], values: &[f32]) -> Tensor {
        Tensor {
            name: name.into(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            words: values.iter().map(|x| x.to_bits()).collect(),
        }
    }

    /// The words as f32 numbers.
    pub fn values(&self) -> &[f32] {
        bytemuck::cast_slice(&self.words)
    }
}

/// Numbers for initial parameters: a counter over Philox blocks.
struct Source {
    key: [u32; 2],
    tower: u32,
    at: u32,
}

impl Source {
    /// Two uniform numbers in (0, 1), in f64.
    fn pair(&mut self) -> [f64; 2] {
        let words = philox([self.at, self.tower, Purpose::Init as u32, 0], self.key);
        self.at += 1;
        [words[0], words[1]].map(|word| (f64::from(word) + 0.5) / 4_294_967_296.0)
    }

    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.pair()[0]
    }

    fn normal(&mut self) -> f64 {
        let [u, v] = self.pair();
        (-2.0 * u.ln()).sqrt() * (v * std::f64::consts::TAU).cos()
    }

    /// An `[out, in]` matrix with orthonormal rows or columns, whichever are fewer (Saxe et al. 2014).
    fn orthogonal(&mut self, out: usize, input: usize) -> Vec<f64> {
        let (few, many) = (out.min(input), out.max(input));
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(few);
        while rows.len() < few {
            let mut row: Vec<f64> = (0..many).map(|_| self.normal()).collect();
            // twice is enough for orthogonality to rounding
            for _ in 0..2 {
                for done in &rows {
                    let dot: f64 = row.iter().zip(done).map(|(a, b)| a * b).sum();
                    row.iter_mut().zip(done).for_each(|(a, b)| *a -= dot * b);
                }
            }
            let norm = row.iter().map(|a| a * a).sum::<f64>().sqrt();
            rows.push(row.iter().map(|a| a / norm).collect());
        }
        (0..out * input)
            .map(|at| (at / input, at % input))
            .map(|(o, i)| if out <= input { rows[o][i] } else { rows[i][o] })
            .collect()
    }
}

/// PyTorch's `calculate_gain`; 1 for the activations that it does not know.
fn gain(activation: Activation) -> f64 {
    match activation {
        Activation::Tanh => 5.0 / 3.0,
        Activation::Relu => std::f64::consts::SQRT_2,
        Activation::LeakyRelu => (2.0 / (1.0 + 0.01f64.powi(2))).sqrt(),
        Activation::Selu => 0.75,
        Activation::Elu | Activation::Gelu | Activation::Silu | Activation::Sigmoid | Activation::Identity => 1.0,
    }
}

/// Weights `[out, in]` and biases of one layer. Without an init function: PyTorch's default for `Linear`, uniform within
/// `1 / sqrt(in)`. With one: SLM Lab's, the gain of the activation and zero biases.
fn layer(
    source: &mut Source,
    tower: &Tower<'_>,
    out: usize,
    input: usize,
    init_std: Option<f64>,
) -> (Vec<f64>, Vec<f64>) {
    let gain = gain(tower.init_activation);
    let (fan_in, fan_out) = (input as f64, out as f64);
    let mut fill = |f: &mut dyn FnMut(&mut Source) -> f64| (0..out * input).map(|_| f(source)).collect::<Vec<f64>>();
    if let Some(std) = init_std {
        // the head of an actor or critic: orthogonal with this gain, as CleanRL's `layer_init(std=..)`
        return (source.orthogonal(out, input).iter().map(|w| std * w).collect(), vec![0.0; out]);
    }
    let weight = match tower.init_fn {
        None => {
            let bound = 1.0 / fan_in.sqrt();
            let weight = fill(&mut |s| s.uniform(-bound, bound));
            return (weight, (0..out).map(|_| source.uniform(-bound, bound)).collect());
        }
        Some(InitFn::Orthogonal) => source.orthogonal(out, input).iter().map(|w| gain * w).collect(),
        Some(InitFn::XavierUniform) => {
            let bound = gain * (6.0 / (fan_in + fan_out)).sqrt();
            fill(&mut |s| s.uniform(-bound, bound))
        }
        Some(InitFn::XavierNormal) => fill(&mut |s| gain * (2.0 / (fan_in + fan_out)).sqrt() * s.normal()),
        Some(InitFn::KaimingUniform) => {
            let bound = gain * (3.0 / fan_in).sqrt();
            fill(&mut |s| s.uniform(-bound, bound))
        }
        Some(InitFn::KaimingNormal) => fill(&mut |s| gain / fan_in.sqrt() * s.normal()),
        Some(InitFn::Uniform) => fill(&mut |s| s.uniform(0.0, 1.0)),
        Some(InitFn::Normal) => fill(&mut Source::normal),
        Some(InitFn::TruncNormal) => fill(&mut |s| {
            loop {
                let x = s.normal();
                if x.abs() <= 2.0 {
                    return x;
                }
            }
        }),
        Some(InitFn::Ones) => vec![1.0; out * input],
        Some(InitFn::Zeros) => vec![0.0; out * input],
    };
    (weight, vec![0.0; out])
}

/// Sizes `(in, out)` of every layer and the offsets of its weight and bias.
type Layers = Vec<(usize, usize, usize, usize)>;

/// The linear layers of a normalised net.
fn linear(net: &Renorm) -> Layers {
    net.places().map(|y| (y.input, y.output, y.weight, y.bias)).collect()
}

/// Places of the hidden layers of a normalised net.
fn hidden(net: &Renorm) -> impl Iterator<Item = Place> + '_ {
    net.places().take(net.mlp.hidden.len())
}

/// First running moments of two critics: means of 0, variances of 1.
pub fn init_norm(critic: &Critic) -> Vec<f32> {
    let one = |net: &Renorm| [vec![0.0; net.units()], vec![1.0; net.units()]].concat();
    critic.renorm().map_or(Vec::new(), |net| [one(net), one(net)].concat())
}

/// First parameters of a session, `[P]`. A shared net's heads are drawn apart, so each gets its own deviation. Where two
/// critics learn beside the nets that act, they stand behind these and behind a `log_alpha` of 0.
///
/// `critic` is what the two critics are made of.
pub fn init(nets: &Nets, critics: Option<&Critic>, net: &Net, critic: &Tower<'_>, key: [u32; 2]) -> Vec<f32> {
    let mut params = vec![0.0; nets.len() + critics.map_or(0, |critic| 1 + 2 * critic.len())];
    let mut one = |layers: Layers, at: usize, tower: &Tower<'_>, number: u32, heads: &[(usize, Option<f64>)]| {
        let mut source = Source { key, tower: number, at: 0 };
        for (l, &(input, output, weight, bias)) in layers.iter().enumerate() {
            if l + 1 < layers.len() {
                let (w, b) = layer(&mut source, tower, output, input, None);
                for o in 0..output {
                    (0..input).for_each(|i| params[at + weight + i * output + o] = w[o * input + i] as f32);
                    params[at + bias + o] = b[o] as f32;
                }
                continue;
            }
            let mut row = 0;
            for &(rows, init_std) in heads {
                let (w, b) = layer(&mut source, tower, rows, input, init_std);
                (0..rows * input).for_each(|i| params[at + weight + row * input + i] = w[i] as f32);
                (0..rows).for_each(|o| params[at + bias + row + o] = b[o] as f32);
                row += rows;
            }
        }
    };
    let actor = net.actor();
    let mut heads = vec![(nets.policy.outputs(), actor.init_std)];
    if nets.shared() {
        heads.push((1, critic.init_std));
    }
    one(nets.actor.offsets(), 0, &actor, 0, &heads);
    if let Some(mlp) = &nets.critic {
        one(mlp.offsets(), nets.actor_len(), critic, 1, &[(1, critic.init_std)]);
    }
    if let Some(net) = critics {
        for k in 0..2 {
            let at = nets.len() + 1 + k * net.len();
            let layers = net.renorm().map_or_else(|| net.mlp().offsets(), linear);
            one(layers, at, critic, 1 + k as u32, &[(net.mlp().output, critic.init_std)]);
        }
        for k in 0..2 {
            let at = nets.len() + 1 + k * net.len();
            for y in net.renorm().into_iter().flat_map(hidden) {
                params[at + y.scale..at + y.shift].fill(1.0);
            }
        }
    }
    if let Some(body) = &nets.body {
        recurrent::init(nets, body, net, key, &mut params);
    }
    params[nets.free()].fill(net.log_std_init.unwrap_or(0.0) as f32);
    params
}

/// Every layer by name: offset, rows and columns in the parameters, and whether they are stored `[in, out]`.
fn named(nets: &Nets, critics: Option<&Critic>) -> Vec<(String, usize, [usize; 2], bool)> {
    if let Some(body) = &nets.body {
        return recurrent::named(nets, body);
    }
    let (mut all, mut norms) = (Vec::new(), Vec::new());
    // where `step` is 2, a normalisation stands behind each hidden layer
    let mut one = |name: &str, layers: Layers, at: usize, step: usize| {
        for (l, &(input, output, weight, bias)) in layers.iter().enumerate() {
            all.push((format!("{name}.{}.weight", step * l), at + weight, [output, input], l + 1 < layers.len()));
            all.push((format!("{name}.{}.bias", step * l), at + bias, [output, 0], false));
        }
    };
    one(if nets.shared() { "net" } else { "actor" }, nets.actor.offsets(), 0, 1);
    if let Some(critic) = &nets.critic {
        one("critic", critic.offsets(), nets.actor_len(), 1);
    }
    if let Some(critic) = critics {
        let first = nets.len() + 1;
        for (name, at) in [("critic_1", first), ("critic_2", first + critic.len())] {
            let Some(net) = critic.renorm() else {
                one(name, critic.mlp().offsets(), at, 1);
                continue;
            };
            one(name, linear(net), at, 2);
            norms.extend(hidden(net).enumerate().flat_map(|(l, y)| {
                let norm =
                    |part: &str, from: usize| (format!("{name}.{}.{part}", 2 * l + 1), at + from, [y.output, 0], false);
                [norm("weight", y.scale), norm("bias", y.shift)]
            }));
        }
        all.append(&mut norms);
        all.push(("log_alpha".to_string(), nets.len(), [1, 0], false));
    }
    if nets.policy.free_len() > 0 {
        all.push(("log_std".to_string(), nets.free().start, [nets.policy.free_len(), 0], false));
    }
    all
}

/// Parameters as named tensors: weights `[out, in]`, biases `[out]`.
pub fn to_tensors(nets: &Nets, critics: Option<&Critic>, params: &[f32]) -> Vec<Tensor> {
    let one = |(name, at, [rows, cols], turned): (String, usize, [usize; 2], bool)| {
        if cols == 0 {
            return Tensor::f32(name, &[rows], &params[at..at + rows]);
        }
        let place = |o: usize, i: usize| if turned { i * rows + o } else { o * cols + i };
        let values: Vec<f32> = (0..rows * cols).map(|n| params[at + place(n / cols, n % cols)]).collect();
        Tensor::f32(name, &[rows, cols], &values)
    };
    named(nets, critics).into_iter().map(one).collect()
}

/// The running moments of two critics as named tensors; none of plain critics.
pub fn norm_tensors(critic: &Critic, norm: &[f32]) -> Vec<Tensor> {
    let Some(net) = critic.renorm() else { return Vec::new() };
    let mut all = Vec::new();
    for (name, norm) in ["critic_1", "critic_2"].iter().zip(norm.chunks_exact(net.norm_len().max(1))) {
        for (l, y) in hidden(net).enumerate() {
            for (part, from) in [("running_mean", y.unit), ("running_var", net.units() + y.unit)] {
                all.push(Tensor::f32(
                    format!("{name}.{}.{part}", 2 * l + 1),
                    &[y.output],
                    &norm[from..from + y.output],
                ));
            }
        }
    }
    all
}

/// The opposite of [`to_tensors`] for the nets that act; what else the tensors hold is left aside.
///
/// # Errors
/// The name of the first tensor that is missing or has another shape.
pub fn from_tensors(nets: &Nets, tensors: &[Tensor]) -> Result<Vec<f32>, String> {
    let mut params = vec![0.0; nets.len()];
    for (name, at, [rows, cols], turned) in named(nets, None) {
        let shape: &[usize] = if cols == 0 { &[rows] } else { &[rows, cols] };
        let tensor = tensors.iter().find(|t| t.name == name && t.shape == shape && t.dtype == Dtype::F32);
        let values = tensor.ok_or(format!("no tensor `{name}` of shape {shape:?}"))?.values();
        for (n, &value) in values.iter().enumerate() {
            let place = if turned { (n % cols) * rows + n / cols } else { n };
            params[at + place] = value;
        }
    }
    Ok(params)
}
