// Acrobot-v1. Twin of src/env/acrobot.rs: same words, same order.

#import lib/trig

const ENV_STATE = 4u;
const ENV_OBS = 6u;
const ENV_ACTION = 1u;

struct Env {
    gravity: f32,
    link_length_1: f32,
    link_mass_1: f32,
    link_mass_2: f32,
    link_com_1: f32,
    link_com_2: f32,
    link_moi: f32,
    torque: f32,
    max_vel_1: f32,
    max_vel_2: f32,
    dt: f32,
    goal_height: f32,
    reset_bound: f32,
}

fn env_reset(uniforms: vec4<f32>) -> State {
    let x = (2.0 * uniforms - 1.0) * d.env.reset_bound;
    return State(x.x, x.y, x.z, x.w);
}

// Time derivative of the state under a torque.
fn derivative(state: vec4<f32>, torque: f32) -> vec4<f32> {
    let vel1 = state.z;
    let vel2 = state.w;
    let m1 = d.env.link_mass_1;
    let m2 = d.env.link_mass_2;
    let l1 = d.env.link_length_1;
    let lc1 = d.env.link_com_1;
    let lc2 = d.env.link_com_2;
    let moi = d.env.link_moi;
    let g = d.env.gravity;
    let turn1 = sin_cos(state.x);
    let turn2 = sin_cos(state.y);
    let sin1 = turn1.x;
    let sin2 = turn2.x;
    let cos2 = turn2.y;
    let sin12 = sin1 * cos2 + turn1.y * sin2;
    let coupling = m2 * l1 * lc2;

    let inertia22 = m2 * lc2 * lc2 + moi;
    let d1 = (m1 * lc1 * lc1 + m2 * l1 * l1 + moi) + inertia22 + 2.0 * coupling * cos2;
    let d2 = inertia22 + coupling * cos2;
    let phi2 = m2 * lc2 * g * sin12;
    let phi1 = (m1 * lc1 + m2 * l1) * g * sin1 + phi2 - coupling * sin2 * vel2 * (vel2 + 2.0 * vel1);
    let ratio = d2 / d1;
    let acc2 = (torque + ratio * phi1 - coupling * vel1 * vel1 * sin2 - phi2) / (inertia22 - d2 * ratio);
    let acc1 = -(d2 * acc2 + phi1) / d1;
    return vec4<f32>(vel1, vel2, acc1, acc2);
}

fn env_step(state: State, action: Taken) -> Stepped {
    let torque = (action[0] - 1.0) * d.env.torque;
    let dt = d.env.dt;
    // classical Runge-Kutta of order 4
    let start = vec4<f32>(state[0], state[1], state[2], state[3]);
    let k1 = derivative(start, torque);
    let k2 = derivative(start + 0.5 * dt * k1, torque);
    let k3 = derivative(start + 0.5 * dt * k2, torque);
    let k4 = derivative(start + dt * k3, torque);
    let end = start + dt * (1.0 / 6.0) * ((k1 + 2.0 * k2) + (k4 + 2.0 * k3));

    let theta1 = wrap_angle(end.x);
    let theta2 = wrap_angle(end.y);
    let next = State(
        theta1,
        theta2,
        hold(end.z, -d.env.max_vel_1, d.env.max_vel_1),
        hold(end.w, -d.env.max_vel_2, d.env.max_vel_2),
    );
    let terminated = -sin_cos(theta1).y - sin_cos(theta1 + theta2).y > d.env.goal_height;
    return Stepped(next, select(-1.0, 0.0, terminated), terminated);
}

fn env_observe(state: State) -> Obs {
    let turn1 = sin_cos(state[0]);
    let turn2 = sin_cos(state[1]);
    return Obs(turn1.y, turn1.x, turn2.y, turn2.x, state[2], state[3]);
}
