// Pendulum-v1. Twin of src/env/pendulum.rs: same words, same order.

#import lib/trig

const ENV_STATE = 2u;
const ENV_OBS = 3u;
const ENV_ACTION = 1u;

struct Env {
    gravity: f32,
    mass: f32,
    length: f32,
    max_speed: f32,
    max_torque: f32,
    dt: f32,
    speed_cost: f32,
    torque_cost: f32,
    reset_angle: f32,
    reset_speed: f32,
}

fn env_reset(uniforms: vec4<f32>) -> State {
    return State((2.0 * uniforms.x - 1.0) * d.env.reset_angle, (2.0 * uniforms.y - 1.0) * d.env.reset_speed);
}

fn env_step(state: State, action: Taken) -> Stepped {
    let theta = state[0];
    let torque = hold(action[0], -d.env.max_torque, d.env.max_torque);
    // the price is that of the state before the step
    let cost = theta * theta + d.env.speed_cost * state[1] * state[1] + d.env.torque_cost * torque * torque;
    let pull = 3.0 * d.env.gravity / (2.0 * d.env.length);
    let push = 3.0 / (d.env.mass * d.env.length * d.env.length);
    let faster = state[1] + (pull * sin_cos(theta).x + push * torque) * d.env.dt;
    let theta_dot = hold(faster, -d.env.max_speed, d.env.max_speed);
    return Stepped(State(wrap_angle(theta + theta_dot * d.env.dt), theta_dot), -cost, false);
}

fn env_observe(state: State) -> Obs {
    let turn = sin_cos(state[0]);
    return Obs(turn.y, turn.x, state[1]);
}
