//! MountainCarContinuous-v0: the car in the valley with a continuous throttle and a price on its use.

use bytemuck::{Pod, Zeroable};

use super::{ActionSpace, Dynamics, EnvSpec};
use crate::op::lib::trig;

/// The constants; the defaults are Gymnasium's. Positions and velocities have no unit (a step is the unit of time).
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct MountainCarContinuous {
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
    /// The throttle acts clipped to plus and minus this.
    pub max_action: f32,
    /// Acceleration of full throttle.
    pub power: f32,
    /// Pull of the slope where it is steepest.
    pub gravity: f32,
    /// Reward for the goal.
    pub goal_reward: f32,
    /// Price of one squared unit of the throttle as asked for, before clipping.
    pub action_cost: f32,
    /// First positions are uniform between these two; the first velocity is 0.
    pub reset_low: f32,
    /// See `reset_low`.
    pub reset_high: f32,
}

impl Default for MountainCarContinuous {
    fn default() -> Self {
        MountainCarContinuous {
            min_position: -1.2,
            max_position: 0.6,
            max_speed: 0.07,
            goal_position: 0.45,
            goal_velocity: 0.0,
            max_action: 1.0,
            power: 0.0015,
            gravity: 0.0025,
            goal_reward: 100.0,
            action_cost: 0.1,
            reset_low: -0.6,
            reset_high: -0.4,
        }
    }
}

impl Dynamics for MountainCarContinuous {
    /// `[position, velocity]`
    type State = [f32; 2];
    type Obs = [f32; 2];
    type Action = [f32; 1];

    const SPEC: EnvSpec = EnvSpec {
        name: "MountainCarContinuous-v0",
        module: "mountain_car_continuous",
        state_len: 2,
        state_names: &["position", "velocity"],
        angles: &[],
        obs_len: 2,
        action_space: ActionSpace::Box { low: &[-1.0], high: &[1.0] },
        max_episode_steps: 999,
        random_return: -33.25,
        reward_threshold: Some(90.0),
    };

    #[inline(always)]
    fn reset(&self, uniforms: [f32; 4]) -> Self::State {
        [self.reset_low + uniforms[0] * (self.reset_high - self.reset_low), 0.0]
    }

    #[inline(always)]
    fn step(&self, [position, velocity]: Self::State, [action]: Self::Action) -> (Self::State, f32, bool) {
        let throttle = trig::clamp(action, -self.max_action, self.max_action);
        let velocity = velocity + (throttle * self.power - self.gravity * trig::cos(3.0 * position));
        let velocity = trig::clamp(velocity, -self.max_speed, self.max_speed);
        let position = trig::clamp(position + velocity, self.min_position, self.max_position);
        // the left wall takes all speed
        let velocity = if (position <= self.min_position) & (velocity < 0.0) { 0.0 } else { velocity };
        let terminated = (position >= self.goal_position) & (velocity >= self.goal_velocity);
        let prize = if terminated { self.goal_reward } else { 0.0 };
        ([position, velocity], prize - action * action * self.action_cost, terminated)
    }

    #[inline(always)]
    fn observe(&self, state: Self::State) -> Self::Obs {
        state
    }
}
