//! MountainCar-v0: a weak car in a valley must rock itself up the hill (Moore 1990).

use bytemuck::{Pod, Zeroable};

use super::{ActionSpace, Dynamics, EnvSpec};
use crate::op::lib::trig;

/// The constants; the defaults are Gymnasium's. Positions and velocities have no unit (a step is the unit of time).
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct MountainCar {
    /// The wall on the left.
    pub min_position: f32,
    /// The right end of the track.
    pub max_position: f32,
    /// Bound on the velocity, both ways.
    pub max_speed: f32,
    /// The flag.
    pub goal_position: f32,
    /// Least velocity at the flag.
    pub goal_velocity: f32,
    /// Acceleration of action 2; action 0 gives its negative.
    pub force: f32,
    /// Pull of the slope where it is steepest.
    pub gravity: f32,
    /// First positions are uniform between these two; the first velocity is 0.
    pub reset_low: f32,
    /// See `reset_low`.
    pub reset_high: f32,
}

impl Default for MountainCar {
    fn default() -> Self {
        MountainCar {
            min_position: -1.2,
            max_position: 0.6,
            max_speed: 0.07,
            goal_position: 0.5,
            goal_velocity: 0.0,
            force: 0.001,
            gravity: 0.0025,
            reset_low: -0.6,
            reset_high: -0.4,
        }
    }
}

impl Dynamics for MountainCar {
    /// `[position, velocity]`
    type State = [f32; 2];
    type Obs = [f32; 2];
    type Action = [f32; 1];

    const SPEC: EnvSpec = EnvSpec {
        name: "MountainCar-v0",
        module: "mountain_car",
        state_len: 2,
        state_names: &["position", "velocity"],
        angles: &[],
        obs_len: 2,
        action_space: ActionSpace::Discrete(3),
        max_episode_steps: 200,
        random_return: -200.0,
        reward_threshold: Some(-110.0),
    };

    #[inline(always)]
    fn reset(&self, uniforms: [f32; 4]) -> Self::State {
        [self.reset_low + uniforms[0] * (self.reset_high - self.reset_low), 0.0]
    }

    #[inline(always)]
    fn step(&self, [position, velocity]: Self::State, [action]: Self::Action) -> (Self::State, f32, bool) {
        let velocity = velocity + ((action - 1.0) * self.force - trig::cos(3.0 * position) * self.gravity);
        let velocity = trig::clamp(velocity, -self.max_speed, self.max_speed);
        let position = trig::clamp(position + velocity, self.min_position, self.max_position);
        // the left wall takes all speed
        let velocity = if (position <= self.min_position) & (velocity < 0.0) { 0.0 } else { velocity };
        let terminated = (position >= self.goal_position) & (velocity >= self.goal_velocity);
        ([position, velocity], -1.0, terminated)
    }

    #[inline(always)]
    fn observe(&self, state: Self::State) -> Self::Obs {
        state
    }
}
