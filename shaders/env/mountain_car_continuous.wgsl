// MountainCarContinuous-v0. Twin of src/env/mountain_car_continuous.rs: same words, same order.

#import lib/trig

const ENV_STATE = 2u;
const ENV_OBS = 2u;
const ENV_ACTION = 1u;

struct Env {
    min_position: f32,
    max_position: f32,
    max_speed: f32,
    goal_position: f32,
    goal_velocity: f32,
    max_action: f32,
    power: f32,
    gravity: f32,
    goal_reward: f32,
    action_cost: f32,
    reset_low: f32,
    reset_high: f32,
}

fn env_reset(uniforms: vec4<f32>) -> State {
    return State(d.env.reset_low + uniforms.x * (d.env.reset_high - d.env.reset_low), 0.0);
}

fn env_step(state: State, action: Taken) -> Stepped {
    let throttle = hold(action[0], -d.env.max_action, d.env.max_action);
    let faster = state[1] + (throttle * d.env.power - d.env.gravity * sin_cos(3.0 * state[0]).y);
    let speed = hold(faster, -d.env.max_speed, d.env.max_speed);
    let position = hold(state[0] + speed, d.env.min_position, d.env.max_position);
    // the left wall takes all speed
    let velocity = select(speed, 0.0, position <= d.env.min_position && speed < 0.0);
    let terminated = position >= d.env.goal_position && velocity >= d.env.goal_velocity;
    let prize = select(0.0, d.env.goal_reward, terminated);
    return Stepped(State(position, velocity), prize - action[0] * action[0] * d.env.action_cost, terminated);
}

fn env_observe(state: State) -> Obs {
    return state;
}
