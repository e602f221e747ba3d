//! Environments: spaces, dynamics and tasks.
//!
//! An environment is three functions on a small state and a struct of physical constants: [`Dynamics::reset`],
//! [`Dynamics::step`], [`Dynamics::observe`]. They are scalar and free of branches on data, so the cpu compiler
//! vectorises them over blocks of 16 environments, and they use no fused multiply-add and no libm, so every instruction
//! set gives the same bits. Auto-reset, time limits, episode statistics and wrappers are written once, in the rollout.

mod acrobot;
mod cartpole;
mod mountain_car;
mod mountain_car_continuous;
mod pendulum;
pub mod trace;
pub mod verify;

#[cfg(test)]
mod tests;

pub use acrobot::Acrobot;
pub use cartpole::CartPole;
pub use mountain_car::MountainCar;
pub use mountain_car_continuous::MountainCarContinuous;
pub use pendulum::Pendulum;

use crate::error::{Error, Result};

/// Lanes of one block of environments; the widest vector register in f32 words.
pub const LANES: usize = 16;

/// What an agent may do.
#[derive(Debug, Clone, PartialEq)]
pub enum ActionSpace {
    /// One of `n` actions, stored as one f32 word that holds the index.
    Discrete(usize),
    /// `low.len()` real numbers within `[low, high]`.
    Box {
        /// Least value of each number.
        low: &'static [f32],
        /// Largest value of each number.
        high: &'static [f32],
    },
}

impl ActionSpace {
    /// Words of one action, `A`.
    pub const fn words(&self) -> usize {
        match self {
            ActionSpace::Discrete(_) => 1,
            ActionSpace::Box { low, .. } => low.len(),
        }
    }
}

/// What an environment is, apart from its dynamics: everything the plan needs.
#[derive(Debug, Clone)]
pub struct EnvSpec {
    /// Gymnasium's id, for example `CartPole-v1`.
    pub name: &'static str,
    /// Name of its source, here and among the kernels of gpu devices: `cartpole`.
    pub module: &'static str,
    /// Words of state per environment, `K`.
    pub state_len: usize,
    /// Names of the state's words, for messages and `verify-env`.
    pub state_names: &'static [&'static str],
    /// State words that are angles in rad, equal modulo 2 pi.
    pub angles: &'static [usize],
    /// Words of one observation, `O`.
    pub obs_len: usize,
    /// What an agent may do here.
    pub action_space: ActionSpace,
    /// Steps after which an episode is truncated.
    pub max_episode_steps: u32,
    /// Mean return of a uniformly random policy over 100 episodes (the baseline of the metric `strength`).
    pub random_return: f64,
    /// Gymnasium's `reward_threshold`, where it has one.
    pub reward_threshold: Option<f64>,
}

/// The physics of one environment, with its constants as fields: all f32, in the order in which gpu devices get them.
pub trait Dynamics: bytemuck::Pod + Default + Send + Sync + 'static {
    /// `[f32; K]`.
    type State: Copy + Default + AsRef<[f32]> + AsMut<[f32]>;
    /// `[f32; O]`.
    type Obs: Copy + Default + AsRef<[f32]> + AsMut<[f32]>;
    /// `[f32; A]`; a discrete action is one word that holds the index.
    type Action: Copy + Default + AsRef<[f32]> + AsMut<[f32]>;

    /// Name, sizes and limits.
    const SPEC: EnvSpec;

    /// A first state from four uniform numbers in (0, 1); each word is monotone in its number.
    fn reset(&self, uniforms: [f32; 4]) -> Self::State;
    /// One step: the next state, the reward, and whether the episode ended for good (never a time limit).
    fn step(&self, state: Self::State, action: Self::Action) -> (Self::State, f32, bool);
    /// What the agent sees of a state.
    fn observe(&self, state: Self::State) -> Self::Obs;
}

/// One word of [`LANES`] rows; a block of rows is a slice of these, `block[word][lane]`.
pub type Lanes = [f32; LANES];

/// One lane of a block as a row; `block` holds as many words as a row.
#[inline(always)]
pub fn gather<R: Default + AsMut<[f32]>>(block: &[Lanes], lane: usize) -> R {
    let mut row = R::default();
    let words = row.as_mut();
    assert_eq!(block.len(), words.len(), "a block holds the words of its rows");
    for (word, lanes) in words.iter_mut().zip(block) {
        *word = lanes[lane];
    }
    row
}

/// Writes a row into one lane of a block; the opposite of [`gather`].
#[inline(always)]
pub fn scatter<R: AsRef<[f32]>>(row: R, block: &mut [Lanes], lane: usize) {
    let words = row.as_ref();
    assert_eq!(block.len(), words.len(), "a block holds the words of its rows");
    for (lanes, word) in block.iter_mut().zip(words) {
        lanes[lane] = *word;
    }
}

/// One step of [`LANES`] environments in place: `state[K]`, `action[A]` -> `state[K]`, `reward`, `terminated` (1 or 0).
///
/// Give slices of arrays whose length is known where this is called (`&mut [Lanes; 4]`): then the loop over lanes is one
/// straight line of vector code for the instruction set of the caller, with the bits of [`Dynamics::step`].
#[inline(always)]
pub fn step_block<E: Dynamics>(
    env: &E,
    state: &mut [Lanes],
    action: &[Lanes],
    reward: &mut Lanes,
    terminated: &mut [u32; LANES],
) {
    for lane in 0..LANES {
        let (next, gain, end) = env.step(gather(state, lane), gather(action, lane));
        scatter(next, state, lane);
        reward[lane] = gain;
        terminated[lane] = u32::from(end);
    }
}

/// Observations of [`LANES`] environments: `state[K]` -> `obs[O]`.
#[inline(always)]
pub fn observe_block<E: Dynamics>(env: &E, state: &[Lanes], obs: &mut [Lanes]) {
    for lane in 0..LANES {
        scatter(env.observe(gather(state, lane)), obs, lane);
    }
}

/// Generic code that wants an environment by type; see [`dispatch`].
pub trait Visitor {
    /// What the visit gives back.
    type Out;
    /// Runs with the environment that was asked for.
    fn visit<E: Dynamics>(self) -> Self::Out;
}

/// The one list of environments: everything that goes by name is written from it.
macro_rules! registry {
    ($($env:ty),+ $(,)?) => {
        static SPECS: &[EnvSpec] = &[$(<$env as Dynamics>::SPEC),+];

        /// Calls `visitor` with the environment called `name`; `None` where there is none.
        pub fn dispatch<V: Visitor>(name: &str, visitor: V) -> Option<V::Out> {
            $(if name == <$env as Dynamics>::SPEC.name {
                return Some(visitor.visit::<$env>());
            })+
            None
        }
    };
}

registry!(CartPole, Acrobot, MountainCar, MountainCarContinuous, Pendulum);

/// What is known of every environment that is built, in the order of the documentation.
pub fn all() -> &'static [EnvSpec] {
    SPECS
}

/// Names of all environments that are built.
pub fn names() -> Vec<&'static str> {
    SPECS.iter().map(|spec| spec.name).collect()
}

/// The environment called `name`.
///
/// # Errors
/// An unknown name; the hint gives the nearest one, or all of them.
pub fn find(name: &str) -> Result<&'static EnvSpec> {
    SPECS.iter().find(|spec| spec.name == name).ok_or_else(|| {
        let near = |candidate: &&str| strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase());
        let best = names().into_iter().max_by(|a, b| near(a).total_cmp(&near(b))).filter(|best| near(best) > 0.8);
        let built = format!("environments built so far: {}", names().join(", "));
        let hint = best.map_or(built.clone(), |best| format!("did you mean `{best}`? {built}"));
        Error::new("", format!("no environment is called `{name}`")).hint(hint)
    })
}
