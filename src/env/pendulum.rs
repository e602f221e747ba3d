//! Pendulum-v1: swing a pendulum up with a motor too weak to lift it at once, and hold it there.

use std::f32::consts::PI;

use bytemuck::{Pod, Zeroable};

use super::{ActionSpace, Dynamics, EnvSpec};
use crate::op::lib::trig;

/// The constants; the defaults are Gymnasium's.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Pendulum {
    /// m/s^2
    pub gravity: f32,
    /// kg
    pub mass: f32,
    /// m
    pub length: f32,
    /// rad/s
    pub max_speed: f32,
    /// N m
    pub max_torque: f32,
    /// Time step, s.
    pub dt: f32,
    /// Price of one squared rad/s.
    pub speed_cost: f32,
    /// Price of one squared N m.
    pub torque_cost: f32,
    /// First angles are uniform within plus and minus this, rad.
    pub reset_angle: f32,
    /// First angular velocities are uniform within plus and minus this, rad/s.
    pub reset_speed: f32,
}

impl Default for Pendulum {
    fn default() -> Self {
        Pendulum {
            gravity: 10.0,
            mass: 1.0,
            length: 1.0,
            max_speed: 8.0,
            max_torque: 2.0,
            dt: 0.05,
            speed_cost: 0.1,
            torque_cost: 0.001,
            reset_angle: PI,
            reset_speed: 1.0,
        }
    }
}

impl Dynamics for Pendulum {
    /// `[theta, theta_dot]` in rad and rad/s; theta is 0 upright and kept within `[-pi, pi]`, where Gymnasium lets it
    /// grow: the motion is the same and f32 keeps its precision.
    type State = [f32; 2];
    /// `[cos theta, sin theta, theta_dot]`
    type Obs = [f32; 3];
    type Action = [f32; 1];

    const SPEC: EnvSpec = EnvSpec {
        name: "Pendulum-v1",
        module: "pendulum",
        state_len: 2,
        state_names: &["theta", "theta_dot"],
        angles: &[0],
        obs_len: 3,
        action_space: ActionSpace::Box { low: &[-2.0], high: &[2.0] },
        max_episode_steps: 200,
        random_return: -1197.15,
        reward_threshold: None,
    };

    #[inline(always)]
    fn reset(&self, uniforms: [f32; 4]) -> Self::State {
        [(2.0 * uniforms[0] - 1.0) * self.reset_angle, (2.0 * uniforms[1] - 1.0) * self.reset_speed]
    }

    #[inline(always)]
    fn step(&self, [theta, theta_dot]: Self::State, [action]: Self::Action) -> (Self::State, f32, bool) {
        let torque = trig::clamp(action, -self.max_torque, self.max_torque);
        // the price is that of the state before the step
        let cost = theta * theta + self.speed_cost * theta_dot * theta_dot + self.torque_cost * torque * torque;
        let pull = 3.0 * self.gravity / (2.0 * self.length);
        let push = 3.0 / (self.mass * self.length * self.length);
        let theta_dot = theta_dot + (pull * trig::sin(theta) + push * torque) * self.dt;
        let theta_dot = trig::clamp(theta_dot, -self.max_speed, self.max_speed);
        let theta = trig::wrap_angle(theta + theta_dot * self.dt);
        ([theta, theta_dot], -cost, false)
    }

    #[inline(always)]
    fn observe(&self, [theta, theta_dot]: Self::State) -> Self::Obs {
        let (sin, cos) = trig::sin_cos(theta);
        [cos, sin, theta_dot]
    }
}
