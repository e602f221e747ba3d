//! One environment behind plain function pointers: the vector kernel for a block of 16 environments, and the scalar
//! functions that definitions use.
//!
//! Physical constants travel with the functions, as words: the scalar functions and the kernels of gpu devices read them
//! there, so a test may give others. The vector kernel has the defaults folded in and takes nothing else.

use super::rng::{Purpose, philox, unit};
use crate::device::cpu::Isa;
use crate::env::{self, ActionSpace, Dynamics, EnvSpec, LANES, Lanes, Visitor, gather, scatter};

/// Bit of `ended`: the episode reached a terminal state, beyond which nothing is worth anything.
pub const TERMINATED: u32 = 1;
/// Bit of `ended`: the time limit cut the episode; what would have followed still has a value.
pub const TRUNCATED: u32 = 2;

/// 16 environments during one step. Action in, everything else out; `state` to `returns` carry over.
pub struct Block<'a> {
    /// `[K]`
    pub state: &'a mut [Lanes],
    /// Steps of the running episode.
    pub steps: &'a mut [u32; LANES],
    /// Return of the running episode so far.
    pub returns: &'a mut Lanes,
    /// `[A]`, in the environment's own units.
    pub action: &'a [Lanes],
    pub reward: &'a mut Lanes,
    pub ended: &'a mut [u32; LANES],
    /// Return of the episode that ended here, NaN where none did.
    pub episode_return: &'a mut Lanes,
    pub episode_length: &'a mut [u32; LANES],
    /// `[16, O]`: what the agent sees next, after an auto-reset where the episode ended.
    pub obs: &'a mut [f32],
    /// `[16, O]`: what it would have seen without the reset; written only when `cut` is set, or, where `keep_final` asks
    /// for it, when an episode ended at all.
    pub final_obs: &'a mut [f32],
    pub keep_final: bool,
    /// Some lane was truncated and not terminated.
    pub cut: &'a mut bool,
    /// Number of the first environment, the step that a reset here begins, and the session's key.
    pub first: u32,
    pub step: u32,
    pub key: [u32; 2],
    /// Steps after which an episode is truncated.
    pub limit: u32,
}

/// Most physical constants of an environment.
const CONSTANTS: usize = 16;

/// A scalar step: constants, state in place, action; reward and whether it terminated.
type PlainStep = fn(&[f32], &mut [f32], &[f32]) -> (f32, bool);

/// The functions of one environment, and its physical constants.
#[derive(Clone, Copy)]
pub struct EnvFns {
    pub spec: &'static EnvSpec,
    /// One step of a block with auto-reset; for the default constants alone.
    pub step: fn(Isa, Block<'_>),
    words: [f32; CONSTANTS],
    defaults: fn() -> ([f32; CONSTANTS], usize),
    plain_step: PlainStep,
    plain_observe: fn(&[f32], &[f32], &mut [f32]),
    plain_reset: fn(&[f32], &mut [f32], [f32; 4]),
}

impl std::fmt::Debug for EnvFns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.spec.name)
    }
}

struct Functions(&'static EnvSpec);

impl Visitor for Functions {
    type Out = EnvFns;
    fn visit<E: Dynamics>(self) -> EnvFns {
        EnvFns {
            spec: self.0,
            step: step::<E>,
            words: defaults::<E>().0,
            defaults: defaults::<E>,
            plain_step: |words, state, action| {
                let (next, reward, terminated) = with::<E>(words).step(row(state), row(action));
                state.copy_from_slice(next.as_ref());
                (reward, terminated)
            },
            plain_observe: |words, state, obs| obs.copy_from_slice(with::<E>(words).observe(row(state)).as_ref()),
            plain_reset: |words, state, uniforms| state.copy_from_slice(with::<E>(words).reset(uniforms).as_ref()),
        }
    }
}

/// The default constants as words, and how many there are.
fn defaults<E: Dynamics>() -> ([f32; CONSTANTS], usize) {
    let env = [E::default()];
    let fields: &[f32] = bytemuck::cast_slice(&env);
    let mut words = [0.0; CONSTANTS];
    words[..fields.len()].copy_from_slice(fields);
    (words, fields.len())
}

fn with<E: Dynamics>(words: &[f32]) -> E {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(words))
}

fn row<R: Default + AsMut<[f32]>>(words: &[f32]) -> R {
    let mut row = R::default();
    row.as_mut().copy_from_slice(words);
    row
}

impl EnvFns {
    /// The functions of an environment that [`env::find`] knows.
    pub fn new(spec: &'static EnvSpec) -> EnvFns {
        env::dispatch(spec.name, Functions(spec)).expect("every listed environment can be dispatched")
    }

    /// The physical constants, in the order of the environment's fields.
    pub fn constants(&self) -> &[f32] {
        &self.words[..(self.defaults)().1]
    }

    /// The same environment with other constants.
    pub fn with_constants(mut self, change: impl Fn(usize, f32) -> f32) -> EnvFns {
        let len = self.constants().len();
        self.words[..len].iter_mut().enumerate().for_each(|(i, word)| *word = change(i, *word));
        self
    }

    /// Whether no constant differs from Gymnasium's.
    pub fn has_defaults(&self) -> bool {
        self.words == (self.defaults)().0
    }

    /// Scalar step in place: reward, terminated.
    pub fn plain_step(&self, state: &mut [f32], action: &[f32]) -> (f32, bool) {
        (self.plain_step)(self.constants(), state, action)
    }

    pub fn plain_observe(&self, state: &[f32], obs: &mut [f32]) {
        (self.plain_observe)(self.constants(), state, obs);
    }

    /// First state of an environment from its session's key, its number, and the step it begins at.
    pub fn plain_reset(&self, state: &mut [f32], key: [u32; 2], env: u32, step: u32) {
        let words = philox([env, step, Purpose::Reset as u32, 0], key);
        (self.plain_reset)(self.constants(), state, words.map(unit));
    }

    /// Words of one action.
    pub fn action_len(&self) -> usize {
        match self.spec.action_space {
            ActionSpace::Discrete(_) => 1,
            ActionSpace::Box { low, .. } => low.len(),
        }
    }
}

crate::per_isa! {
    fn step<E: Dynamics>(b: Block<'_>) {
        step_block::<E>(b);
    }
}

#[inline(always)]
fn step_block<E: Dynamics>(b: Block<'_>) {
    let env = E::default();
    let (k, a) = (E::State::default().as_ref().len(), E::Action::default().as_ref().len());
    // copies on the stack, of known length, so that lanes become vectors
    let mut state = [[0.0; LANES]; 16];
    state[..k].copy_from_slice(&b.state[..k]);
    let mut action = [[0.0; LANES]; 8];
    action[..a].copy_from_slice(&b.action[..a]);
    let (mut reward, mut terminated) = ([0.0; LANES], [0; LANES]);
    env::step_block(&env, &mut state[..k], &action[..a], &mut reward, &mut terminated);

    let (mut any, mut cut) = (0, 0);
    for i in 0..LANES {
        b.steps[i] += 1;
        b.returns[i] += reward[i];
        let ended = terminated[i] * TERMINATED + u32::from(b.steps[i] >= b.limit) * TRUNCATED;
        any |= ended;
        cut |= u32::from(ended == TRUNCATED);
        b.ended[i] = ended;
        b.episode_return[i] = if ended != 0 { b.returns[i] } else { f32::NAN };
        b.episode_length[i] = if ended != 0 { b.steps[i] } else { 0 };
    }
    *b.reward = reward;
    *b.cut = cut != 0;
    if cut != 0 || (b.keep_final && any != 0) {
        observe(&env, &state[..k], b.final_obs);
    }
    if any != 0 {
        for i in 0..LANES {
            let words = philox([b.first + i as u32, b.step, Purpose::Reset as u32, 0], b.key);
            let fresh = env.reset(words.map(unit));
            let old: E::State = gather(&state[..k], i);
            let mut next = E::State::default();
            let fresh_words = fresh.as_ref().iter().zip(old.as_ref());
            for (next, (fresh, old)) in next.as_mut().iter_mut().zip(fresh_words) {
                *next = if b.ended[i] != 0 { *fresh } else { *old };
            }
            scatter(next, &mut state[..k], i);
            b.steps[i] = if b.ended[i] != 0 { 0 } else { b.steps[i] };
            b.returns[i] = if b.ended[i] != 0 { 0.0 } else { b.returns[i] };
        }
    }
    b.state[..k].copy_from_slice(&state[..k]);
    observe(&env, &state[..k], b.obs);
}

/// Observations of a block as rows.
#[inline(always)]
fn observe<E: Dynamics>(env: &E, state: &[Lanes], obs: &mut [f32]) {
    let mut rows = [E::Obs::default(); LANES];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = env.observe(gather(state, i));
    }
    let o = rows[0].as_ref().len();
    for (to, row) in obs.chunks_exact_mut(o).zip(&rows) {
        to.copy_from_slice(row.as_ref());
    }
}
