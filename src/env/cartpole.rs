//! CartPole-v1: balance a pole on a cart by pushing the cart left or right (Barto, Sutton and Anderson 1983).

use bytemuck::{Pod, Zeroable};

use super::{ActionSpace, Dynamics, EnvSpec};
use crate::op::lib::trig;

/// The constants; the defaults are Gymnasium's.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct CartPole {
    /// m/s^2
    pub gravity: f32,
    /// kg
    pub masscart: f32,
    /// kg
    pub masspole: f32,
    /// Half the pole's length, m.
    pub length: f32,
    /// N
    pub force_mag: f32,
    /// Time step, s.
    pub tau: f32,
    /// The episode ends beyond this angle, rad (12 degrees).
    pub theta_threshold: f32,
    /// The episode ends beyond this position, m.
    pub x_threshold: f32,
    /// First states are uniform within plus and minus this.
    pub reset_bound: f32,
}

impl Default for CartPole {
    fn default() -> Self {
        CartPole {
            gravity: 9.8,
            masscart: 1.0,
            masspole: 0.1,
            length: 0.5,
            force_mag: 10.0,
            tau: 0.02,
            theta_threshold: (12.0 * std::f64::consts::PI / 180.0) as f32,
            x_threshold: 2.4,
            reset_bound: 0.05,
        }
    }
}

impl Dynamics for CartPole {
    /// `[x, x_dot, theta, theta_dot]` in m, m/s, rad, rad/s; theta is 0 upright.
    type State = [f32; 4];
    type Obs = [f32; 4];
    type Action = [f32; 1];

    const SPEC: EnvSpec = EnvSpec {
        name: "CartPole-v1",
        module: "cartpole",
        state_len: 4,
        state_names: &["x", "x_dot", "theta", "theta_dot"],
        angles: &[],
        obs_len: 4,
        action_space: ActionSpace::Discrete(2),
        max_episode_steps: 500,
        random_return: 22.97,
        reward_threshold: Some(475.0),
    };

    #[inline(always)]
    fn reset(&self, uniforms: [f32; 4]) -> Self::State {
        uniforms.map(|u| (2.0 * u - 1.0) * self.reset_bound)
    }

    #[inline(always)]
    fn step(&self, [x, x_dot, theta, theta_dot]: Self::State, [action]: Self::Action) -> (Self::State, f32, bool) {
        let per_mass = 1.0 / (self.masscart + self.masspole);
        let pole_moment = self.masspole * self.length;
        let force = if action > 0.5 { self.force_mag } else { -self.force_mag };
        let (sin, cos) = trig::sin_cos(theta);

        let push = (force + pole_moment * theta_dot * theta_dot * sin) * per_mass;
        let theta_acc =
            (self.gravity * sin - cos * push) / (self.length * ((4.0 / 3.0) - self.masspole * cos * cos * per_mass));
        let x_acc = push - pole_moment * theta_acc * cos * per_mass;

        // Euler: positions move with the old velocities
        let x = x + self.tau * x_dot;
        let x_dot = x_dot + self.tau * x_acc;
        let theta = theta + self.tau * theta_dot;
        let theta_dot = theta_dot + self.tau * theta_acc;

        // no short-circuit: both sides are lane masks
        let terminated = (x.abs() > self.x_threshold) | (theta.abs() > self.theta_threshold);
        ([x, x_dot, theta, theta_dot], 1.0, terminated)
    }

    #[inline(always)]
    fn observe(&self, state: Self::State) -> Self::Obs {
        state
    }
}
