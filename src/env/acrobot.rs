//! Acrobot-v1: swing the tip of a two-link pendulum above the bar with torque on the middle joint (Sutton 1996).

use std::f32::consts::PI;

use bytemuck::{Pod, Zeroable};

use super::{ActionSpace, Dynamics, EnvSpec};
use crate::op::lib::trig;

/// The constants; the defaults are Gymnasium's. Links: 1 hangs from the bar, 2 hangs from link 1.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Acrobot {
    /// m/s^2
    pub gravity: f32,
    /// Length of link 1, m.
    pub link_length_1: f32,
    /// kg
    pub link_mass_1: f32,
    /// kg
    pub link_mass_2: f32,
    /// Centre of mass along link 1, m.
    pub link_com_1: f32,
    /// Centre of mass along link 2, m.
    pub link_com_2: f32,
    /// Moment of inertia of either link, kg m^2.
    pub link_moi: f32,
    /// Torque of action 2; action 0 gives its negative, N m.
    pub torque: f32,
    /// rad/s
    pub max_vel_1: f32,
    /// rad/s
    pub max_vel_2: f32,
    /// Time step, s.
    pub dt: f32,
    /// The episode ends when the tip (links of unit length) is higher than this above the bar.
    pub goal_height: f32,
    /// First states are uniform within plus and minus this.
    pub reset_bound: f32,
}

impl Default for Acrobot {
    fn default() -> Self {
        Acrobot {
            gravity: 9.8,
            link_length_1: 1.0,
            link_mass_1: 1.0,
            link_mass_2: 1.0,
            link_com_1: 0.5,
            link_com_2: 0.5,
            link_moi: 1.0,
            torque: 1.0,
            max_vel_1: 4.0 * PI,
            max_vel_2: 9.0 * PI,
            dt: 0.2,
            goal_height: 1.0,
            reset_bound: 0.1,
        }
    }
}

impl Acrobot {
    /// Time derivative of the state under a torque: equations of Sutton and Barto's book, not of the NIPS paper.
    #[inline(always)]
    fn derivative(&self, [theta1, theta2, vel1, vel2]: [f32; 4], torque: f32) -> [f32; 4] {
        let (m1, m2, l1) = (self.link_mass_1, self.link_mass_2, self.link_length_1);
        let (lc1, lc2, moi, g) = (self.link_com_1, self.link_com_2, self.link_moi, self.gravity);
        let (sin1, cos1) = trig::sin_cos(theta1);
        let (sin2, cos2) = trig::sin_cos(theta2);
        let sin12 = sin1 * cos2 + cos1 * sin2;
        let coupling = m2 * l1 * lc2;

        let inertia22 = m2 * lc2 * lc2 + moi;
        let d1 = (m1 * lc1 * lc1 + m2 * l1 * l1 + moi) + inertia22 + 2.0 * coupling * cos2;
        let d2 = inertia22 + coupling * cos2;
        let phi2 = m2 * lc2 * g * sin12;
        let phi1 = (m1 * lc1 + m2 * l1) * g * sin1 + phi2 - coupling * sin2 * vel2 * (vel2 + 2.0 * vel1);
        let ratio = d2 / d1;
        let acc2 = (torque + ratio * phi1 - coupling * vel1 * vel1 * sin2 - phi2) / (inertia22 - d2 * ratio);
        let acc1 = -(d2 * acc2 + phi1) / d1;
        [vel1, vel2, acc1, acc2]
    }
}

/// `a + h b`, word by word.
#[inline(always)]
fn along(a: [f32; 4], h: f32, b: [f32; 4]) -> [f32; 4] {
    [a[0] + h * b[0], a[1] + h * b[1], a[2] + h * b[2], a[3] + h * b[3]]
}

impl Dynamics for Acrobot {
    /// `[theta1, theta2, theta1_dot, theta2_dot]` in rad and rad/s; theta1 is 0 hanging down, theta2 is relative to link 1.
    type State = [f32; 4];
    /// `[cos theta1, sin theta1, cos theta2, sin theta2, theta1_dot, theta2_dot]`
    type Obs = [f32; 6];
    type Action = [f32; 1];

    const SPEC: EnvSpec = EnvSpec {
        name: "Acrobot-v1",
        module: "acrobot",
        state_len: 4,
        state_names: &["theta1", "theta2", "theta1_dot", "theta2_dot"],
        angles: &[0, 1],
        obs_len: 6,
        action_space: ActionSpace::Discrete(3),
        max_episode_steps: 500,
        random_return: -499.86,
        reward_threshold: Some(-100.0),
    };

    #[inline(always)]
    fn reset(&self, uniforms: [f32; 4]) -> Self::State {
        uniforms.map(|u| (2.0 * u - 1.0) * self.reset_bound)
    }

    #[inline(always)]
    fn step(&self, state: Self::State, [action]: Self::Action) -> (Self::State, f32, bool) {
        let torque = (action - 1.0) * self.torque;
        // classical Runge-Kutta of order 4
        let k1 = self.derivative(state, torque);
        let k2 = self.derivative(along(state, 0.5 * self.dt, k1), torque);
        let k3 = self.derivative(along(state, 0.5 * self.dt, k2), torque);
        let k4 = self.derivative(along(state, self.dt, k3), torque);
        let slope = along(along(k1, 2.0, k2), 1.0, along(k4, 2.0, k3));
        let [theta1, theta2, vel1, vel2] = along(state, self.dt * (1.0 / 6.0), slope);

        let theta1 = trig::wrap_angle(theta1);
        let theta2 = trig::wrap_angle(theta2);
        let vel1 = trig::clamp(vel1, -self.max_vel_1, self.max_vel_1);
        let vel2 = trig::clamp(vel2, -self.max_vel_2, self.max_vel_2);

        let terminated = -trig::cos(theta1) - trig::cos(theta1 + theta2) > self.goal_height;
        ([theta1, theta2, vel1, vel2], if terminated { 0.0 } else { -1.0 }, terminated)
    }

    #[inline(always)]
    fn observe(&self, [theta1, theta2, vel1, vel2]: Self::State) -> Self::Obs {
        let (sin1, cos1) = trig::sin_cos(theta1);
        let (sin2, cos2) = trig::sin_cos(theta2);
        [cos1, sin1, cos2, sin2, vel1, vel2]
    }
}
