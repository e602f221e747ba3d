//! `agent.net`: layers, initialisation and optimisers of the nets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::optim::{Loss, LrScheduler, Optim};

/// The kind of net, `agent.net.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NetType {
    /// Linear layers, each followed by the activation.
    MLPNet,
    /// Layers as SLM Lab's `arc` lists them; a plain chain is read as [`NetType::MLPNet`].
    TorchArcNet,
    /// The same with a head for the state's value beside one for advantages (Wang et al. 2016); for Q nets.
    DuelingMLPNet,
    /// Not built.
    HydraMLPNet,
    /// Not built.
    ConvNet,
    /// Not built.
    DuelingConvNet,
    /// Linear layers, then a recurrent cell whose state is carried from step to step, then linear heads.
    RecurrentNet,
}

/// The cell of a RecurrentNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum CellType {
    /// Gated recurrent unit, as `torch.nn.GRU`.
    #[default]
    GRU,
    /// Long short-term memory, as `torch.nn.LSTM`.
    LSTM,
    /// Without gates; not built.
    RNN,
}

/// The function behind each hidden layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// tanh(x).
    Tanh,
    /// max(x, 0).
    Relu,
    /// x above 0, 0.01 x below.
    LeakyRelu,
    /// x above 0, exp(x) - 1 below.
    Elu,
    /// The self-normalising ELU (Klambauer et al. 2017).
    Selu,
    /// x times the normal distribution function.
    Gelu,
    /// x sigmoid(x).
    Silu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// x.
    #[default]
    Identity,
}

/// `torch.nn.init` functions for weights; biases are then 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InitFn {
    /// A random matrix with orthonormal rows or columns, times the activation's gain.
    #[serde(rename = "orthogonal_")]
    Orthogonal,
    /// Uniform, Glorot's bound times the activation's gain.
    #[serde(rename = "xavier_uniform_")]
    XavierUniform,
    /// Normal, Glorot's deviation times the activation's gain.
    #[serde(rename = "xavier_normal_")]
    XavierNormal,
    /// Uniform, He's bound for the activation.
    #[serde(rename = "kaiming_uniform_")]
    KaimingUniform,
    /// Normal, He's deviation for the activation.
    #[serde(rename = "kaiming_normal_")]
    KaimingNormal,
    /// Uniform in (0, 1).
    #[serde(rename = "uniform_")]
    Uniform,
    /// Standard normal.
    #[serde(rename = "normal_")]
    Normal,
    /// Standard normal within two deviations.
    #[serde(rename = "trunc_normal_")]
    TruncNormal,
    /// All 1.
    #[serde(rename = "ones_")]
    Ones,
    /// All 0.
    #[serde(rename = "zeros_")]
    Zeros,
}

/// Batch Renormalisation (Ioffe 2017) between every hidden linear layer and its activation; defaults are SLM Lab's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchRenorm {
    /// Weight of a batch's moments in the running ones.
    pub momentum: f64,
    /// Added to a variance before its root.
    pub eps: f64,
    /// Most that a deviation is corrected by, as a factor.
    pub r_max: f64,
    /// Most that a mean is corrected by, in running deviations.
    pub d_max: f64,
    /// Updates until both bounds are reached, in a straight line from 1 and 0; batch normalisation at the start.
    pub warmup_steps: u32,
}

impl Default for BatchRenorm {
    fn default() -> Self {
        BatchRenorm { momentum: 0.01, eps: 1e-5, r_max: 3.0, d_max: 5.0, warmup_steps: 10_000 }
    }
}

/// How a target net follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpdateType {
    /// Copied every `update_frequency` frames.
    #[default]
    Replace,
    /// Moved by `polyak_coef` at every update.
    Polyak,
}

/// `gpu`: SLM Lab's switch; read, and without effect beside `meta.device`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected true, false or `auto`")]
pub enum Gpu {
    /// On or off.
    Switch(bool),
    /// `auto`.
    Named(super::algorithm::Auto),
}

impl Default for Gpu {
    fn default() -> Self {
        Gpu::Named(super::algorithm::Auto::Auto)
    }
}

/// The `agent.net` section.
///
/// A key with `actor_` or `critic_` in front holds for that net alone; [`Net::actor`] and [`Net::critic`] resolve them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// The kind of net.
    #[serde(rename = "type")]
    pub kind: NetType,
    /// One body for actor and critic.
    #[serde(default)]
    pub shared: bool,
    /// Widths of the hidden layers.
    #[serde(default)]
    pub hid_layers: Vec<usize>,
    /// Widths of the actor's hidden layers; null: `hid_layers`.
    #[serde(default)]
    pub actor_hid_layers: Option<Vec<usize>>,
    /// Widths of the critic's hidden layers; null: `hid_layers`.
    #[serde(default)]
    pub critic_hid_layers: Option<Vec<usize>>,
    /// The function behind each hidden layer; null: identity.
    #[serde(default, deserialize_with = "or_identity")]
    pub hid_layers_activation: Activation,
    /// The actor's activation; null: `hid_layers_activation`.
    #[serde(default)]
    pub actor_hid_layers_activation: Option<Activation>,
    /// The critic's activation; null: `hid_layers_activation`.
    #[serde(default)]
    pub critic_hid_layers_activation: Option<Activation>,
    /// The function behind the last layer; null: none.
    #[serde(default)]
    pub out_layer_activation: Option<Activation>,
    /// Weight initialisation; null: PyTorch's default of `torch.nn.Linear`.
    #[serde(default)]
    pub init_fn: Option<InitFn>,
    /// The activation whose gain `init_fn` uses; null: the net's own. A TorchArcNet states it apart from its layers.
    #[serde(default)]
    pub init_activation: Option<Activation>,
    /// Gain of an orthogonal initialisation of the actor's last layer; null: as the other layers.
    #[serde(default)]
    pub actor_init_std: Option<f64>,
    /// Gain of an orthogonal initialisation of the critic's last layer; null: as the other layers.
    #[serde(default)]
    pub critic_init_std: Option<f64>,
    /// The actor's weight initialisation; null: `init_fn`.
    #[serde(default)]
    pub actor_init_fn: Option<InitFn>,
    /// The critic's weight initialisation; null: `init_fn`.
    #[serde(default)]
    pub critic_init_fn: Option<InitFn>,
    /// First value of a state-independent log std; null: the net gives the log std.
    #[serde(default)]
    pub log_std_init: Option<f64>,
    /// Greatest norm of one net's gradient; null: no limit.
    #[serde(default)]
    pub clip_grad_val: Option<f64>,
    /// The actor's limit; null: `clip_grad_val`.
    #[serde(default)]
    pub actor_clip_grad_val: Option<f64>,
    /// The critic's limit; null: `clip_grad_val`.
    #[serde(default)]
    pub critic_clip_grad_val: Option<f64>,
    /// The critic's optimiser and learning-rate schedule are the actor's.
    #[serde(default)]
    pub use_same_optim: bool,
    /// The value loss.
    #[serde(default)]
    pub loss_spec: Loss,
    /// The optimiser.
    #[serde(default)]
    pub optim_spec: Optim,
    /// The actor's optimiser; null: `optim_spec`.
    #[serde(default)]
    pub actor_optim_spec: Option<Optim>,
    /// The critic's optimiser; null: `optim_spec`.
    #[serde(default)]
    pub critic_optim_spec: Option<Optim>,
    /// Learning-rate schedule; null: constant.
    #[serde(default)]
    pub lr_scheduler_spec: Option<LrScheduler>,
    /// The actor's schedule; null: `lr_scheduler_spec`.
    #[serde(default)]
    pub actor_lr_scheduler_spec: Option<LrScheduler>,
    /// The critic's schedule; null: `lr_scheduler_spec`.
    #[serde(default)]
    pub critic_lr_scheduler_spec: Option<LrScheduler>,
    /// SLM Lab's device switch; `meta.device` decides.
    #[serde(default)]
    pub gpu: Gpu,

    /// Batch Renormalisation behind each hidden linear layer, in CrossQ's critics; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_renorm: Option<BatchRenorm>,
    /// LayerNorm behind each hidden linear layer; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_norm: Option<bool>,
    /// BatchNorm behind each hidden layer; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_norm: Option<bool>,
    /// Observations divided by 255; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<bool>,
    /// How a target net follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_type: Option<UpdateType>,
    /// Frames between two copies to a target net.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_frequency: Option<u64>,
    /// Weight of the new parameters in a target net.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polyak_coef: Option<f64>,
    /// A net of other layers, as SLM Lab writes it; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arc: Option<Value>,
    /// The actor's `arc`; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_arc: Option<Value>,
    /// The critic's `arc`; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critic_arc: Option<Value>,
    /// Hydra nets: heads, body and tails; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hydra_layers: Option<Value>,
    /// Rows of out channels, kernel, stride, padding, dilation; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conv_hid_layers: Option<Vec<[usize; 5]>>,
    /// RecurrentNet: widths of the linear layers before the cell; null: none. Behind convolutions: not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fc_hid_layers: Option<Vec<usize>>,
    /// RecurrentNet: the cell; null: GRU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell_type: Option<CellType>,
    /// RecurrentNet: units of the cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rnn_hidden_size: Option<usize>,
    /// RecurrentNet: cells on top of each other; 1 is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rnn_num_layers: Option<usize>,
    /// RecurrentNet: run the cell both ways; not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bidirectional: Option<bool>,
    /// RecurrentNet that learns from a replay memory: steps of a sequence that are learnt from; `batch_size` counts
    /// sequences. Not read by algorithms that learn from rollouts, whose sequences are as long as the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq_len: Option<usize>,
    /// RecurrentNet that learns from a replay memory: steps before those that are learnt from, which only bring the state
    /// that was stored with the sequence up to date; null: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burn_in: Option<usize>,
}

/// What one net (a policy, a critic, or the shared body) is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tower<'a> {
    /// Widths of the hidden layers; of a RecurrentNet, those before the cell.
    pub hid_layers: &'a [usize],
    /// The function behind each.
    pub activation: Activation,
    /// Weight initialisation; `None`: PyTorch's default.
    pub init_fn: Option<InitFn>,
    /// The activation whose gain `init_fn` uses.
    pub init_activation: Activation,
    /// Gain of an orthogonal initialisation of the last layer, where it is set apart.
    pub init_std: Option<f64>,
    /// Greatest norm of the gradient.
    pub clip_grad_val: Option<f64>,
    /// The optimiser.
    pub optim: &'a Optim,
    /// Its learning-rate schedule.
    pub lr_scheduler: Option<&'a LrScheduler>,
}

impl Net {
    /// The actor, or the only net, or (`shared`) the body with both heads.
    pub fn actor(&self) -> Tower<'_> {
        let activation = self.actor_hid_layers_activation.unwrap_or(self.hid_layers_activation);
        Tower {
            hid_layers: self.layers(self.actor_hid_layers.as_ref()),
            activation,
            init_fn: self.actor_init_fn.or(self.init_fn),
            init_activation: self.init_activation.unwrap_or(activation),
            init_std: self.actor_init_std,
            clip_grad_val: self.actor_clip_grad_val.or(self.clip_grad_val),
            optim: self.actor_optim_spec.as_ref().unwrap_or(&self.optim_spec),
            lr_scheduler: self.actor_lr_scheduler_spec.as_ref().or(self.lr_scheduler_spec.as_ref()),
        }
    }

    /// The critic; where `shared`, only its head's `init_std` is its own.
    pub fn critic(&self) -> Tower<'_> {
        let actor = self.actor();
        if self.shared {
            return Tower { init_std: self.critic_init_std, ..actor };
        }
        let activation = self.critic_hid_layers_activation.unwrap_or(self.hid_layers_activation);
        let (optim, lr_scheduler) = if self.use_same_optim {
            (actor.optim, actor.lr_scheduler)
        } else {
            let lr_scheduler = self.critic_lr_scheduler_spec.as_ref().or(self.lr_scheduler_spec.as_ref());
            (self.critic_optim_spec.as_ref().unwrap_or(&self.optim_spec), lr_scheduler)
        };
        Tower {
            hid_layers: self.layers(self.critic_hid_layers.as_ref()),
            activation,
            init_fn: self.critic_init_fn.or(self.init_fn),
            init_activation: self.init_activation.unwrap_or(activation),
            init_std: self.critic_init_std,
            clip_grad_val: self.critic_clip_grad_val.or(self.clip_grad_val),
            optim,
            lr_scheduler,
        }
    }
}

impl Net {
    /// Hidden layers, where `own` may have been given for one net alone.
    fn layers<'a>(&'a self, own: Option<&'a Vec<usize>>) -> &'a [usize] {
        match self.kind {
            NetType::RecurrentNet => self.fc_hid_layers.as_deref().unwrap_or_default(),
            _ => own.unwrap_or(&self.hid_layers),
        }
    }

    /// Every optimiser that is written down, with its key.
    pub(super) fn optims(&self) -> Vec<(&'static str, &Optim)> {
        [
            ("optim_spec", Some(&self.optim_spec)),
            ("actor_optim_spec", self.actor_optim_spec.as_ref()),
            ("critic_optim_spec", self.critic_optim_spec.as_ref()),
        ]
        .into_iter()
        .filter_map(|(key, optim)| Some((key, optim?)))
        .collect()
    }

    /// Every learning-rate schedule that is written down, with its key.
    pub(super) fn lr_schedulers(&self) -> Vec<(&'static str, &LrScheduler)> {
        [
            ("lr_scheduler_spec", &self.lr_scheduler_spec),
            ("actor_lr_scheduler_spec", &self.actor_lr_scheduler_spec),
            ("critic_lr_scheduler_spec", &self.critic_lr_scheduler_spec),
        ]
        .into_iter()
        .filter_map(|(key, lr_scheduler)| Some((key, lr_scheduler.as_ref()?)))
        .collect()
    }
}

impl Activation {
    /// Every activation with its name in specs.
    pub const NAMES: [(&'static str, Activation); 9] = [
        ("tanh", Activation::Tanh),
        ("relu", Activation::Relu),
        ("leaky_relu", Activation::LeakyRelu),
        ("elu", Activation::Elu),
        ("selu", Activation::Selu),
        ("gelu", Activation::Gelu),
        ("silu", Activation::Silu),
        ("sigmoid", Activation::Sigmoid),
        ("identity", Activation::Identity),
    ];

    /// Reads a name in any spelling PyTorch uses: `leaky_relu`, `LeakyReLU`, `leakyrelu`.
    pub fn from_name(name: &str) -> Option<Self> {
        let plain: String = name.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect();
        Self::NAMES.iter().find(|(known, _)| known.replace('_', "") == plain).map(|(_, a)| *a)
    }
}

impl<'de> Deserialize<'de> for Activation {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Activation::from_name(&name).ok_or_else(|| {
            let known: Vec<String> = Self::NAMES.iter().map(|(n, _)| format!("`{n}`")).collect();
            serde::de::Error::custom(format!("unknown variant `{name}`, expected one of {}", known.join(", ")))
        })
    }
}

fn or_identity<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Activation, D::Error> {
    Ok(Option::<Activation>::deserialize(deserializer)?.unwrap_or_default())
}
