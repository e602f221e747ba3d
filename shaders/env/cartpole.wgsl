// CartPole-v1. Twin of src/env/cartpole.rs: same words, same order.

#import lib/trig

const ENV_STATE = 4u;
const ENV_OBS = 4u;
const ENV_ACTION = 1u;

struct Env {
    gravity: f32,
    masscart: f32,
    masspole: f32,
    length: f32,
    force_mag: f32,
    tau: f32,
    theta_threshold: f32,
    x_threshold: f32,
    reset_bound: f32,
}

fn env_reset(uniforms: vec4<f32>) -> State {
    let x = (2.0 * uniforms - 1.0) * d.env.reset_bound;
    return State(x.x, x.y, x.z, x.w);
}

fn env_step(state: State, action: Taken) -> Stepped {
    let x_dot = state[1];
    let theta = state[2];
    let theta_dot = state[3];
    let per_mass = 1.0 / (d.env.masscart + d.env.masspole);
    let pole_moment = d.env.masspole * d.env.length;
    let force = select(-d.env.force_mag, d.env.force_mag, action[0] > 0.5);
    let turn = sin_cos(theta);
    let sin = turn.x;
    let cos = turn.y;

    let push = (force + pole_moment * theta_dot * theta_dot * sin) * per_mass;
    let theta_acc =
        (d.env.gravity * sin - cos * push) / (d.env.length * ((4.0 / 3.0) - d.env.masspole * cos * cos * per_mass));
    let x_acc = push - pole_moment * theta_acc * cos * per_mass;

    // Euler: positions move with the old velocities
    let next = State(
        state[0] + d.env.tau * x_dot,
        x_dot + d.env.tau * x_acc,
        theta + d.env.tau * theta_dot,
        theta_dot + d.env.tau * theta_acc,
    );
    let terminated = abs(next[0]) > d.env.x_threshold || abs(next[2]) > d.env.theta_threshold;
    return Stepped(next, 1.0, terminated);
}

fn env_observe(state: State) -> Obs {
    return state;
}
