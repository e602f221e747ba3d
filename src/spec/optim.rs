//! Optimisers, learning-rate schedules and losses, with PyTorch's names, keys and defaults.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::by_name::{Args, by_name};

/// `optim_spec`: the optimiser of one net, after `torch.optim`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "name")]
pub enum Optim {
    /// Adam (Kingma and Ba 2015); `weight_decay` is added to the gradient.
    Adam(AdamArgs),
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    AdamW(AdamWArgs),
    /// RMSprop as in `torch.optim.RMSprop`.
    RMSprop(RmsPropArgs),
    /// Stochastic gradient descent with momentum.
    SGD(SgdArgs),
    /// Not built.
    Adadelta(Args),
    /// Not built.
    Adagrad(Args),
    /// Not built.
    Adamax(Args),
    /// Not built.
    ASGD(Args),
    /// Not built.
    NAdam(Args),
    /// Not built.
    RAdam(Args),
    /// Not built.
    Rprop(Args),
    /// Not built.
    LBFGS(Args),
    /// Not built.
    Lookahead(Args),
    /// SLM Lab's Adam on shared memory, for `meta.distributed`; not built.
    GlobalAdam(Args),
    /// SLM Lab's RMSprop on shared memory, for `meta.distributed`; not built.
    GlobalRMSprop(Args),
}

by_name!(Optim {
    Adam,
    AdamW,
    RMSprop,
    SGD,
    Adadelta,
    Adagrad,
    Adamax,
    ASGD,
    NAdam,
    RAdam,
    Rprop,
    LBFGS,
    Lookahead,
    GlobalAdam,
    GlobalRMSprop,
});

impl Default for Optim {
    fn default() -> Self {
        Optim::Adam(AdamArgs::default())
    }
}

impl Optim {
    /// The learning rate before any schedule; 0 for an optimiser that is not built and states none.
    pub fn lr(&self) -> f64 {
        match self {
            Optim::Adam(a) => a.lr,
            Optim::AdamW(a) => a.lr,
            Optim::RMSprop(a) => a.lr,
            Optim::SGD(a) => a.lr,
            Optim::Adadelta(a)
            | Optim::Adagrad(a)
            | Optim::Adamax(a)
            | Optim::ASGD(a)
            | Optim::NAdam(a)
            | Optim::RAdam(a)
            | Optim::Rprop(a)
            | Optim::LBFGS(a)
            | Optim::Lookahead(a)
            | Optim::GlobalAdam(a)
            | Optim::GlobalRMSprop(a) => a.get("lr").and_then(serde_json::Value::as_f64).unwrap_or(0.0),
        }
    }
}

/// Keys of [`Optim::Adam`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamArgs {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running mean of gradients and of their squares.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Multiple of the parameters added to the gradient.
    pub weight_decay: f64,
}

impl Default for AdamArgs {
    fn default() -> Self {
        AdamArgs { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }
}

/// Keys of [`Optim::AdamW`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWArgs {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running mean of gradients and of their squares.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The parameters shrink by `lr * weight_decay` each step.
    pub weight_decay: f64,
}

impl Default for AdamWArgs {
    fn default() -> Self {
        AdamWArgs { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-2 }
    }
}

/// Keys of [`Optim::RMSprop`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RmsPropArgs {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running mean of squared gradients.
    pub alpha: f64,
    /// Added to the root of the running mean.
    pub eps: f64,
    /// Multiple of the parameters added to the gradient.
    pub weight_decay: f64,
    /// Momentum of the scaled gradient.
    pub momentum: f64,
    /// Take the running mean of gradients off the second moment.
    pub centered: bool,
}

impl Default for RmsPropArgs {
    fn default() -> Self {
        RmsPropArgs { lr: 1e-2, alpha: 0.99, eps: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false }
    }
}

/// Keys of [`Optim::SGD`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SgdArgs {
    /// Learning rate.
    pub lr: f64,
    /// Momentum of the gradient.
    pub momentum: f64,
    /// Share of the gradient kept out of the momentum buffer.
    pub dampening: f64,
    /// Multiple of the parameters added to the gradient.
    pub weight_decay: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
}

impl Default for SgdArgs {
    fn default() -> Self {
        SgdArgs { lr: 1e-3, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
}

/// `lr_scheduler_spec`: a factor on the learning rate as a function of the frame clock.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "name")]
pub enum LrScheduler {
    /// A straight line from 1 to 0 at `frame`.
    LinearToZero(LinearToZeroArgs),
    /// A straight line from 1 towards 0 at `frame`, cut off at `min_factor`.
    LinearToMin(LinearToMinArgs),
    /// Not built.
    StepLR(Args),
    /// Not built.
    MultiStepLR(Args),
    /// Not built.
    ExponentialLR(Args),
    /// Not built.
    CosineAnnealingLR(Args),
    /// Not built.
    CosineAnnealingWarmRestarts(Args),
    /// Not built.
    ReduceLROnPlateau(Args),
    /// Not built.
    CyclicLR(Args),
    /// Not built.
    LinearLR(Args),
    /// Not built.
    OneCycleLR(Args),
}

by_name!(LrScheduler {
    LinearToZero,
    LinearToMin,
    StepLR,
    MultiStepLR,
    ExponentialLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ReduceLROnPlateau,
    CyclicLR,
    LinearLR,
    OneCycleLR,
});

impl LrScheduler {
    /// The factor at a frame; 1 for a schedule that is not built.
    pub fn factor(&self, frame: u64) -> f64 {
        match self {
            LrScheduler::LinearToZero(a) => (1.0 - frame as f64 / a.frame as f64).max(0.0),
            LrScheduler::LinearToMin(a) => (1.0 - frame as f64 / a.frame as f64).max(a.min_factor),
            _ => 1.0,
        }
    }
}

/// Keys of [`LrScheduler::LinearToZero`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearToZeroArgs {
    /// Frame at which the learning rate is 0.
    pub frame: u64,
}

/// Keys of [`LrScheduler::LinearToMin`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearToMinArgs {
    /// Frame at which an uncut line would reach 0.
    pub frame: u64,
    /// Least factor.
    #[serde(default)]
    pub min_factor: f64,
}

/// `loss_spec`: the value loss, after `torch.nn`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "name")]
pub enum Loss {
    /// Mean of squared errors.
    MSELoss(NoArgs),
    /// Squared below `beta`, linear above.
    SmoothL1Loss(SmoothL1Args),
    /// Not built.
    HuberLoss(Args),
    /// Not built.
    L1Loss(Args),
    /// Not built.
    CrossEntropyLoss(Args),
    /// Not built.
    BCEWithLogitsLoss(Args),
}

by_name!(Loss { MSELoss, SmoothL1Loss, HuberLoss, L1Loss, CrossEntropyLoss, BCEWithLogitsLoss });

impl Default for Loss {
    fn default() -> Self {
        Loss::MSELoss(NoArgs {})
    }
}

/// No keys but `name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoArgs {}

/// Keys of [`Loss::SmoothL1Loss`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SmoothL1Args {
    /// Error at which the loss turns linear.
    pub beta: f64,
}

impl Default for SmoothL1Args {
    fn default() -> Self {
        SmoothL1Args { beta: 1.0 }
    }
}
