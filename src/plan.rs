//! Spec and spaces become a plan: every size known, every default filled in, every cross-check made, before frame 0.

mod imitation;
mod off_policy;
mod outline;
mod seen;
mod sequences;

pub use imitation::Imitation;
pub use off_policy::{Method, OffPolicy, explore};
pub use sequences::Sequence;

use crate::device::Precision;
use crate::env::{self, ActionSpace, EnvSpec};
use crate::error::{Error, Result};
use crate::op::advantage::Mode;
use crate::op::hyper;
use crate::op::lib::activation::Activation;
use crate::op::lib::critic::Critic;
use crate::op::lib::mlp::Mlp;
use crate::op::lib::nets::Nets;
use crate::op::lib::policy::{OUTPUTS, Policy};
use crate::op::minibatch_grad::Distance;
use crate::op::optimize::{Group, Kind};
use crate::op::shuffle::Normalize;
use crate::spec::{self, Algorithm, Optim, Spec};

/// What will run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub spec: Spec,
    pub env: &'static EnvSpec,
    pub env_name: &'static str,
    pub max_session: u32,
    pub max_frame: u64,
    pub num_envs: u32,
    pub log_frequency: u64,
    /// Vector steps of one rollout, `T`.
    pub horizon: usize,
    /// Rows of one minibatch; the last of an epoch may have fewer.
    pub minibatch: usize,
    pub epochs: usize,
    pub nets: Nets,
    /// Each of two critics that learn beside the nets that act, behind a `log_alpha`.
    pub critics: Option<Critic>,
    pub groups: Vec<Group>,
    pub learning: Learning,
    /// How the agent learns from a ring of transitions, where it does not learn from whole rollouts.
    pub off_policy: Option<OffPolicy>,
    /// How it imitates itself, where it does.
    pub imitation: Option<Imitation>,
    /// All parameters, `P`; those that act come first, as `nets` has them.
    pub params: usize,
    /// The per-session table of numbers, `hyper`.
    pub hyper: Vec<f32>,
}

/// What a learning step does, as far as it is fixed when it is recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learning {
    pub mode: Mode,
    pub normalize: Normalize,
    /// PPO's clipped surrogate.
    pub clipped: bool,
    pub clip_value: bool,
    pub symlog: bool,
    pub normalize_targets: bool,
    pub distance: Distance,
}

/// Hidden layers that a kernel's tables have room for.
const MAX_HIDDEN: usize = 15;
/// Most units of a hidden layer; with this, no size of a plan overflows.
const MAX_WIDTH: usize = 1 << 16;
/// Rows of a rollout stay below this, so that the kernels can number them in 32 bits.
const MAX_ROWS: usize = 1 << 31;

impl Plan {
    /// Makes the plan of a spec.
    ///
    /// # Errors
    /// Names the place of whatever is not built or does not fit together.
    pub fn new(spec: &Spec) -> Result<Plan> {
        spec.require_built(&env::names())?;
        let env = env::find(&spec.env.name).map_err(|error| error.within("env.name"))?;
        let nets = nets(spec, env)?;
        seen::hidden_words(spec, env)?;
        let off_policy = OffPolicy::new(spec)?;
        let (learning, horizon, minibatch, epochs) = learning(spec, off_policy.as_ref());
        let num_envs = spec.env.num_envs;
        let rows = horizon.checked_mul(num_envs).filter(|&rows| rows < MAX_ROWS).ok_or_else(|| {
            Error::new(
                "env.num_envs",
                format!("{num_envs} environments times a horizon of {horizon} are more rows than the kernels count"),
            )
            .hint("lower `env.num_envs` or the horizon")
        })?;
        let minibatch = minibatch.min(rows);
        if nets.body.is_some() && off_policy.is_none() && !minibatch.is_multiple_of(horizon) {
            let place = "agent.algorithm.minibatch_size";
            let what = format!("{minibatch} rows are no whole sequences of the horizon, {horizon} steps");
            return Err(Error::new(place, what).hint(format!(
                "a recurrent net learns from whole sequences: take a multiple of {horizon}, the horizon times the \
                 environments of a minibatch"
            )));
        }
        let actor = Group::new(0..nets.actor_len(), kind(spec.agent.net.actor().optim));
        let mut groups = vec![actor];
        if nets.critic.is_some() {
            groups.push(Group::new(nets.actor_len()..nets.len(), kind(spec.agent.net.critic().optim)));
        }
        let mut params = nets.len();
        let critics = off_policy.as_ref().and_then(|p| p.critic(spec, env, &nets));
        if let Some(critic) = &critics {
            let (acting, critic_kind) = (kind(spec.agent.net.actor().optim), kind(spec.agent.critic().optim));
            groups.push(Group { bounded: true, ..Group::new(params..params + 1, acting) });
            params += 1;
            for _ in 0..2 {
                groups.push(Group::new(params..params + critic.len(), critic_kind));
                params += critic.len();
            }
        }
        let plan = Plan {
            imitation: Imitation::new(spec, horizon)?,
            params,
            critics,
            off_policy,
            env,
            env_name: env.name,
            max_session: u32::try_from(spec.meta.max_session)
                .map_err(|_| Error::new("meta.max_session", "is too large"))?,
            max_frame: spec.env.max_frame,
            num_envs: num_envs as u32,
            log_frequency: spec.meta.log_frequency,
            horizon,
            minibatch,
            epochs,
            hyper: hyper_table(spec, env, groups.len()),
            nets,
            groups,
            learning,
            spec: spec.clone(),
        };
        // the clock of a session is 32-bit words
        for (what, count) in [("vector steps", plan.steps()), ("opt steps", plan.opt_steps())] {
            if u32::try_from(count).is_err() {
                return Err(Error::new("env.max_frame", format!("{count} {what} are more than a session counts"))
                    .hint("lower `env.max_frame`, or step more environments at once"));
            }
        }
        Ok(plan)
    }

    /// The same with the replay memory in every checkpoint, whatever the spec says: for trials that are put aside and taken
    /// up again, and must not notice.
    pub fn with_memory_in_checkpoint(mut self) -> Plan {
        self.off_policy.iter_mut().for_each(|off_policy| off_policy.in_checkpoint = true);
        self
    }

    /// Whether sessions of both plans go through the same launches: all that is equal but seeds, first parameters and
    /// the numbers of the table `hyper`.
    pub fn has_shape_of(&self, other: &Plan) -> bool {
        let shape = |p: &Plan| {
            (
                (p.env_name, p.max_frame, p.num_envs, p.log_frequency, p.time_limit()),
                (p.horizon, p.minibatch, p.epochs, p.learning, p.hyper.len()),
                (p.spec.env.normalize_obs, p.filters_obs(), p.spec.env.normalize_reward, p.off_policy, p.params),
                p.imitation,
                std::mem::discriminant(&p.spec.agent.algorithm),
            )
        };
        shape(self) == shape(other)
            && (&self.nets, &self.critics, &self.groups) == (&other.nets, &other.critics, &other.groups)
    }

    /// Rows of one rollout, `M = T N`.
    pub fn rows(&self) -> usize {
        self.horizon * self.num_envs as usize
    }

    /// Steps after which an episode is truncated: the environment's own limit, or `env.max_t` where that is lower.
    pub fn time_limit(&self) -> u32 {
        let own = self.env.max_episode_steps;
        self.spec.env.max_t.map_or(own, |max_t| own.min(u32::try_from(max_t).unwrap_or(own)))
    }

    /// Vector steps of the whole run: frames end at `max_frame`, rounded up to a whole vector step.
    pub fn steps(&self) -> u64 {
        self.max_frame.div_ceil(u64::from(self.num_envs))
    }

    /// The op whose gradient steps a parameter group.
    pub fn gradient_op(&self, group: usize) -> &'static str {
        match self.off_policy.map(|off_policy| off_policy.method) {
            None if self.nets.body.is_some() => "sequence_grad",
            None => "minibatch_grad",
            Some(Method::Q { .. }) if self.nets.body.is_some() => "sequence_td_grad",
            Some(Method::Q { .. }) => "td_grad",
            Some(Method::Soft { .. }) if group < 2 => "actor_grad",
            Some(Method::Soft { crossed: true, .. }) => "crossq_grad",
            Some(Method::Soft { .. }) => "critic_grad",
        }
    }

    /// Parameters that a target net follows: the last ones of the vector.
    pub fn target_len(&self) -> usize {
        self.critics.as_ref().map_or(self.params, |critic| 2 * critic.mlp().len())
    }

    /// Vector steps before the first iteration, in which nothing is learnt: a run that is shorter has no others.
    pub fn warmup(&self) -> usize {
        let warmup = self.off_policy.map_or(0, |off_policy| off_policy.warmup);
        warmup.min(usize::try_from(self.steps()).unwrap_or(usize::MAX))
    }

    /// Iterations that learn, and the vector steps of the last rollout, which is too short to learn from (or 0).
    pub fn iterations(&self) -> (u64, usize) {
        let steps = self.steps() - self.warmup() as u64;
        (steps / self.horizon as u64, (steps % self.horizon as u64) as usize)
    }

    /// Where what is replayed after `step` vector steps ends.
    pub fn next(&self, step: u64) -> u64 {
        let warmup = self.warmup() as u64;
        if step < warmup { warmup } else { (step + self.horizon as u64).min(self.steps()) }
    }

    /// Where what ended at `step` vector steps began.
    pub fn before(&self, step: u64) -> u64 {
        let (warmup, horizon) = (self.warmup() as u64, self.horizon as u64);
        if step <= warmup { 0 } else { warmup + (step - warmup - 1) / horizon * horizon }
    }

    /// Rows that gradients are taken of, for each frame.
    pub fn rows_per_frame(&self) -> f64 {
        self.off_policy.map_or(self.epochs as f64, |p| p.steps_per_frame(self.num_envs as usize) * p.batch as f64)
    }

    /// Why the run learns nothing, where it does not.
    pub fn learns_nothing(&self) -> Option<&'static str> {
        (self.iterations().0 == 0).then_some("`env.max_frame` is reached before the first training: nothing is learnt")
    }

    /// Minibatches of one epoch.
    pub fn minibatches(&self) -> usize {
        self.rows().div_ceil(self.minibatch)
    }

    /// Optimiser calls of the whole run, one per net and minibatch.
    pub fn opt_steps(&self) -> u64 {
        if let Some(off_policy) = self.off_policy {
            return self.iterations().0.saturating_mul(off_policy.gradient_steps() as u64);
        }
        let imitating = self.imitation.map_or(0, |imitation| imitation.gradient_steps());
        let steps = self.epochs.saturating_mul(self.minibatches()).saturating_add(imitating);
        self.iterations().0.saturating_mul(steps as u64).saturating_mul(self.groups.len() as u64)
    }
}

fn nets(spec: &Spec, env: &EnvSpec) -> Result<Nets> {
    let net = &spec.agent.net;
    let method = OffPolicy::new(spec)?.map(|p| p.method);
    let is_q = matches!(method, Some(Method::Q { .. }));
    let is_soft = matches!(method, Some(Method::Soft { .. }));
    let has_value = method.is_none() && !matches!(spec.agent.algorithm, Algorithm::Reinforce(_));
    let policy = match (&env.action_space, spec.agent.algorithm.action_pdtype()) {
        (
            ActionSpace::Discrete(n),
            spec::Pdtype::Default | spec::Pdtype::Categorical | spec::Pdtype::Argmax | spec::Pdtype::GumbelSoftmax,
        ) => Policy::Categorical { n: *n },
        (ActionSpace::Box { .. }, _) if is_q => {
            let what = format!(
                "{} learns the value of each action, and {} has real ones",
                spec.agent.algorithm.name(),
                env.name
            );
            return Err(Error::new("agent.algorithm.name", what).hint("use `SoftActorCritic`, `PPO` or `ActorCritic`"));
        }
        (
            ActionSpace::Box { low, .. },
            pdtype @ (spec::Pdtype::Default | spec::Pdtype::Normal | spec::Pdtype::NormalTanh),
        ) => Policy::Gaussian {
            n: low.len(),
            free_std: net.log_std_init.is_some(),
            squashed: is_soft || pdtype == spec::Pdtype::NormalTanh,
        },
        (space, pdtype) => {
            let (kind, fits) = match space {
                ActionSpace::Discrete(_) => ("discrete", "Categorical"),
                ActionSpace::Box { .. } => ("continuous", "Normal` or `NormalTanh"),
            };
            return Err(Error::new(
                "agent.algorithm.action_pdtype",
                format!("{pdtype:?} does not fit {}, whose actions are {kind}", env.name),
            )
            .hint(format!("use `default`, or `{fits}`")));
        }
    };
    let shared = net.shared && has_value;
    let body = seen::body(spec, env)?;
    let mlp = |tower: &spec::Tower<'_>, output| Mlp {
        input: body.as_ref().map_or(env.obs_len, |body| body.hidden),
        hidden: if body.is_some() { Vec::new() } else { tower.hid_layers.to_vec() },
        activation: activation(tower.activation),
        output,
        precision: match spec.meta.precision {
            spec::Precision::F32 => Precision::F32,
            spec::Precision::Bf16 => Precision::Bf16,
        },
    };
    // a dueling net gives the state's value beside those of the actions
    let value = shared || (is_q && net.kind == spec::NetType::DuelingMLPNet);
    let actor = mlp(&net.actor(), policy.outputs() + usize::from(value));
    let critic = (has_value && !shared).then(|| mlp(&net.critic(), 1));
    for net in std::iter::once(&actor).chain(&critic).chain(body.as_ref().map(|body| &body.front)) {
        if net.hidden.len() > MAX_HIDDEN {
            return Err(Error::new(
                "agent.net.hid_layers",
                format!("{} hidden layers; at most {MAX_HIDDEN} fit", net.hidden.len()),
            ));
        }
        if let Some(width) = net.hidden.iter().find(|width| **width > MAX_WIDTH) {
            return Err(Error::new("agent.net.hid_layers", format!("{width} units; at most {MAX_WIDTH} fit a layer")));
        }
    }
    if actor.output >= OUTPUTS {
        return Err(Error::new(
            "env.name",
            format!("the policy of {} needs {} outputs; fewer than {OUTPUTS} fit", env.name, actor.output),
        ));
    }
    Ok(Nets { actor, critic, policy, body })
}

fn activation(name: spec::Activation) -> Activation {
    match name {
        spec::Activation::Tanh => Activation::Tanh,
        spec::Activation::Relu => Activation::Relu,
        spec::Activation::LeakyRelu => Activation::LeakyRelu,
        spec::Activation::Elu => Activation::Elu,
        spec::Activation::Selu => Activation::Selu,
        spec::Activation::Gelu => Activation::Gelu,
        spec::Activation::Silu => Activation::Silu,
        spec::Activation::Sigmoid => Activation::Sigmoid,
        spec::Activation::Identity => Activation::Identity,
    }
}

/// The choices of an algorithm, its horizon, minibatch rows and epochs.
fn learning(spec: &Spec, off_policy: Option<&OffPolicy>) -> (Learning, usize, usize, usize) {
    let distance = match spec.agent.net.loss_spec {
        spec::Loss::SmoothL1Loss(ref a) => Distance::SmoothL1 { beta: a.beta as f32 },
        _ => Distance::Mse,
    };
    let plain = Learning {
        mode: Mode::Gae,
        normalize: Normalize::Standardize,
        clipped: false,
        clip_value: false,
        symlog: matches!(&spec.agent.algorithm, Algorithm::SoftActorCritic(a) | Algorithm::CrossQ(a) if a.symlog),
        normalize_targets: false,
        distance,
    };
    if let Some(off_policy) = off_policy {
        return (plain, off_policy.horizon(), off_policy.batch, 1);
    }
    match &*spec.agent.algorithm.on_policy() {
        Algorithm::Reinforce(a) => {
            let mode = Mode::Returns { center: a.center_return };
            (Learning { mode, ..plain }, a.training_frequency, usize::MAX, 1)
        }
        Algorithm::ActorCritic(a) => {
            // as in SLM Lab the number of steps is then the batch length too
            let horizon =
                if a.lam.is_none() { a.num_step_returns.unwrap_or(a.training_frequency) } else { a.training_frequency };
            let mode = if a.lam.is_some() { Mode::Gae } else { Mode::NStep(horizon) };
            (Learning { mode, normalize_targets: a.normalize_v_targets, ..plain }, horizon, usize::MAX, 1)
        }
        Algorithm::PPO(a) => {
            let normalize = match a.normalize_advantages {
                spec::NormalizeAdvantages::Standardize => Normalize::Standardize,
                spec::NormalizeAdvantages::Percentile => Normalize::Percentile,
                spec::NormalizeAdvantages::None => Normalize::None,
            };
            let learning = Learning {
                normalize,
                clipped: true,
                clip_value: a.clip_vloss,
                symlog: a.symlog,
                normalize_targets: a.normalize_v_targets,
                ..plain
            };
            (learning, a.time_horizon, a.minibatch_size, a.training_epoch)
        }
        other => unreachable!("`require_built` refuses {other:?}"),
    }
}

fn kind(optim: &Optim) -> Kind {
    match optim {
        Optim::AdamW(_) => Kind::AdamW,
        Optim::RMSprop(_) => Kind::RmsProp,
        Optim::SGD(a) => Kind::Sgd { nesterov: a.nesterov },
        _ => Kind::Adam,
    }
}

/// The numbers that sessions of one cohort may differ in.
fn hyper_table(spec: &Spec, own: &EnvSpec, groups: usize) -> Vec<f32> {
    let mut table = vec![0.0; hyper::len(groups)];
    let (mut clip, mut entropy) = (None, None);
    table[hyper::GAMMA] = spec.agent.algorithm.gamma() as f32;
    table[hyper::POLICY_LOSS_COEF] = 1.0;
    let algorithm = spec.agent.algorithm.on_policy();
    match &*algorithm {
        Algorithm::Reinforce(a) => {
            table[hyper::POLICY_LOSS_COEF] = a.policy_loss_coef as f32;
            entropy = a.entropy_coef_spec.as_ref();
        }
        Algorithm::ActorCritic(a) => {
            table[hyper::LAM] = a.lam.unwrap_or(1.0) as f32;
            table[hyper::POLICY_LOSS_COEF] = a.policy_loss_coef as f32;
            table[hyper::VAL_LOSS_COEF] = a.val_loss_coef as f32;
            entropy = a.entropy_coef_spec.as_ref();
        }
        Algorithm::PPO(a) => {
            table[hyper::LAM] = a.lam as f32;
            table[hyper::VAL_LOSS_COEF] = a.val_loss_coef as f32;
            (clip, entropy) = (Some(&a.clip_eps_spec), a.entropy_coef_spec.as_ref());
        }
        // what is minimised is the error of the values
        _ => table[hyper::VAL_LOSS_COEF] = 1.0,
    }
    schedule(&mut table[hyper::EXPLORE..], spec.agent.algorithm.explore_var_spec());
    if let spec::Memory::PrioritizedReplay(a) = &spec.agent.memory {
        (table[hyper::PRIORITY_ALPHA], table[hyper::PRIORITY_EPSILON]) = (a.alpha as f32, a.epsilon as f32);
        schedule(&mut table[hyper::BETA..], a.beta_spec.as_ref());
    }
    imitation::priorities(spec, &mut table);
    table[hyper::POLYAK] = spec.agent.net.polyak_coef.unwrap_or(0.0) as f32;
    table[hyper::UPDATE_FREQUENCY] = spec.agent.net.update_frequency.unwrap_or(1).max(1) as f32;
    schedule(&mut table[hyper::CLIP_EPS..], clip);
    schedule(&mut table[hyper::ENTROPY_COEF..], entropy);

    // SLM Lab clips what it normalises to +-10 unless told otherwise
    let env = &spec.env;
    let bounds = |clip: Option<spec::Clip>, normalize: bool| match clip {
        Some(clip) => clip.bounds(),
        None if normalize => (-10.0, 10.0),
        None => (f64::NEG_INFINITY, f64::INFINITY),
    };
    let (low, high) = bounds(env.clip_obs, env.normalize_obs);
    (table[hyper::OBS_CLIP_LOW], table[hyper::OBS_CLIP_HIGH]) = (low as f32, high as f32);
    let (low, high) = bounds(env.clip_reward, env.normalize_reward);
    (table[hyper::REWARD_CLIP_LOW], table[hyper::REWARD_CLIP_HIGH]) = (low as f32, high as f32);
    table[hyper::REWARD_SCALE] = env.reward_scale as f32;

    let net = &spec.agent.net;
    // the weight of an entropy is stepped as an actor is
    let (actor, critic) = (net.actor(), spec.agent.critic());
    let towers = if groups > 2 { vec![actor, actor, critic, critic] } else { vec![actor, critic] };
    for (g, tower) in towers.iter().enumerate().take(groups) {
        let group = &mut table[hyper::group(g)..][..hyper::GROUP_LEN];
        group[hyper::LR] = tower.optim.lr() as f32;
        let (b1, b2, eps, decay, momentum) = match tower.optim {
            Optim::Adam(a) => (a.betas[0], a.betas[1], a.eps, a.weight_decay, 0.0),
            Optim::AdamW(a) => (a.betas[0], a.betas[1], a.eps, a.weight_decay, 0.0),
            Optim::RMSprop(a) => (a.alpha, 0.0, a.eps, a.weight_decay, a.momentum),
            Optim::SGD(a) => (0.0, 0.0, 0.0, a.weight_decay, a.momentum),
            other => unreachable!("`require_built` refuses {other:?}"),
        };
        group[hyper::B1] = b1 as f32;
        group[hyper::B2] = b2 as f32;
        group[hyper::EPS] = eps as f32;
        group[hyper::WEIGHT_DECAY] = decay as f32;
        group[hyper::MOMENTUM] = momentum as f32;
        group[hyper::CLIP_NORM] = tower.clip_grad_val.map_or(f32::INFINITY, |clip| clip as f32);
        (group[hyper::LR_KIND], group[hyper::LR_FRAMES]) = (hyper::LR_CONSTANT, 1.0);
        if let Some(scheduler) = tower.lr_scheduler {
            let (frames, min) = match scheduler {
                spec::LrScheduler::LinearToZero(a) => (a.frame, 0.0),
                spec::LrScheduler::LinearToMin(a) => (a.frame, a.min_factor),
                other => unreachable!("`require_built` refuses {other:?}"),
            };
            group[hyper::LR_KIND] = hyper::LR_LINEAR_TO_MIN;
            (group[hyper::LR_FRAMES], group[hyper::LR_MIN_FACTOR]) = (frames as f32, min as f32);
        }
    }
    if let Algorithm::SoftActorCritic(a) | Algorithm::CrossQ(a) = &spec.agent.algorithm {
        off_policy::soft_numbers(a, own, &mut table);
    }
    table
}

/// Writes the five words of a schedule; none is a constant 0.
fn schedule(words: &mut [f32], schedule: Option<&spec::Schedule>) {
    let Some(s) = schedule else { return };
    words[hyper::KIND] = match s.name {
        spec::Decay::NoDecay => hyper::NO_DECAY,
        spec::Decay::LinearDecay => hyper::LINEAR_DECAY,
        spec::Decay::RateDecay => hyper::RATE_DECAY,
        spec::Decay::PeriodicDecay => hyper::PERIODIC_DECAY,
    };
    words[hyper::START_VAL] = s.start_val as f32;
    words[hyper::END_VAL] = s.end_val() as f32;
    words[hyper::START_STEP] = s.start_step as f32;
    words[hyper::END_STEP] = s.end_step.unwrap_or(s.start_step) as f32;
}
