//! Tests of all environments at once: contract, blocks, constants, first states, random play.

use super::*;
use crate::op::lib::rng::{Purpose, philox, unit};

/// Four uniform numbers, a function of two indices.
fn uniforms(a: u32, b: u32) -> [f32; 4] {
    philox([a, b, Purpose::Test as u32, 0], [1, 2]).map(unit)
}

/// An action from one uniform number: a little beyond the bounds where the space is a box.
fn action<E: Dynamics>(u: f32) -> E::Action {
    let mut action = E::Action::default();
    action.as_mut()[0] = match E::SPEC.action_space {
        ActionSpace::Discrete(n) => (u * n as f32).floor(),
        ActionSpace::Box { low, high } => 1.2 * (low[0] + u * (high[0] - low[0])),
    };
    action
}

/// A state around all that an episode visits, thresholds and walls included.
fn state<E: Dynamics>(index: u32) -> E::State {
    let reach: &[f32] = match E::SPEC.name {
        "CartPole-v1" => &[3.0, 3.0, 0.3, 3.0],
        "Acrobot-v1" => &[3.1, 3.1, 14.0, 30.0],
        "Pendulum-v1" => &[3.1, 9.0],
        _ => &[1.25, 0.08],
    };
    let mut state = E::State::default();
    for ((word, u), reach) in state.as_mut().iter_mut().zip(uniforms(index, 0)).zip(reach) {
        *word = (2.0 * u - 1.0) * reach;
    }
    state
}

struct Contract;

impl Visitor for Contract {
    type Out = ();

    fn visit<E: Dynamics>(self) {
        let spec = E::SPEC;
        assert_eq!(E::State::default().as_ref().len(), spec.state_len);
        assert_eq!(spec.state_names.len(), spec.state_len);
        assert_eq!(E::Obs::default().as_ref().len(), spec.obs_len);
        assert_eq!(E::Action::default().as_ref().len(), spec.action_space.words());
        assert!(spec.angles.iter().all(|&word| word < spec.state_len));
    }
}

#[test]
fn specs_agree_with_types() {
    for name in names() {
        assert_eq!(dispatch(name, Contract), Some(()));
        assert_eq!(find(name).map(|spec| spec.name), Ok(name));
    }
    assert_eq!(dispatch("CartPole-v0", Contract), None);
}

#[test]
fn unknown_names_get_a_suggestion() {
    let error = find("cartpole-v1").unwrap_err();
    assert_eq!(error.what, "no environment is called `cartpole-v1`");
    assert!(error.hint.starts_with("did you mean `CartPole-v1`? environments built so far: CartPole-v1, Acrobot-v1"));
    assert!(find("Zaxxon").unwrap_err().hint.starts_with("environments built so far: "));
}

/// Next states, rewards, ends and observations of 1,024 steps through blocks, as bits.
#[inline(always)]
fn blocks<E: Dynamics>(env: &E) -> Vec<u32> {
    let mut bits = Vec::new();
    for block in 0..64u32 {
        let (mut states, mut actions, mut observed) = ([[0.0; LANES]; 4], [[0.0; LANES]; 1], [[0.0; LANES]; 6]);
        let states = &mut states[..E::SPEC.state_len];
        let observed = &mut observed[..E::SPEC.obs_len];
        for lane in 0..LANES {
            let index = block * LANES as u32 + lane as u32;
            scatter(state::<E>(index), states, lane);
            scatter(action::<E>(uniforms(index, 1)[0]), &mut actions, lane);
        }
        let (mut reward, mut terminated) = ([0.0; LANES], [0; LANES]);
        step_block(env, states, &actions, &mut reward, &mut terminated);
        observe_block(env, states, observed);
        for lane in 0..LANES {
            bits.extend(states.iter().map(|lanes| lanes[lane].to_bits()));
            bits.extend([reward[lane].to_bits(), terminated[lane]]);
            bits.extend(observed.iter().map(|lanes| lanes[lane].to_bits()));
        }
    }
    bits
}

/// The same, one environment at a time.
fn scalars<E: Dynamics>(env: &E) -> Vec<u32> {
    let mut bits = Vec::new();
    for index in 0..1024 {
        let (next, reward, terminated) = env.step(state::<E>(index), action::<E>(uniforms(index, 1)[0]));
        bits.extend(next.as_ref().iter().map(|word| word.to_bits()));
        bits.extend([reward.to_bits(), u32::from(terminated)]);
        bits.extend(env.observe(next).as_ref().iter().map(|word| word.to_bits()));
    }
    bits
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn blocks_avx2<E: Dynamics>(env: &E) -> Vec<u32> {
    blocks(env)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma")]
fn blocks_avx512<E: Dynamics>(env: &E) -> Vec<u32> {
    blocks(env)
}

struct SameBits;

impl Visitor for SameBits {
    type Out = ();

    fn visit<E: Dynamics>(self) {
        let env = E::default();
        let want = scalars(&env);
        assert_eq!(blocks(&env), want, "{}: baseline", E::SPEC.name);
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the features were just detected
                assert_eq!(unsafe { blocks_avx2(&env) }, want, "{}: AVX2", E::SPEC.name);
            }
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw");
            if avx512 {
                // SAFETY: the features were just detected
                assert_eq!(unsafe { blocks_avx512(&env) }, want, "{}: AVX-512", E::SPEC.name);
            }
        }
    }
}

#[test]
fn blocks_give_the_bits_of_single_steps_on_every_instruction_set() {
    for name in names() {
        dispatch(name, SameBits).expect("registered");
    }
}

/// Draws each named constant anew, one at a time, and asks that a step or a first state comes out differently.
macro_rules! every_constant_matters {
    ($env:ident: $($field:ident),+ $(,)?) => {{
        let outcome = |env: &$env| (scalars(env), (0..64).map(|i| env.reset(uniforms(i, 2))).collect::<Vec<_>>());
        let usual = outcome(&$env::default());
        // a pattern without `..`: a new constant must be named here
        let $env { $($field: _),+ } = $env::default();
        let mut draw = 0;
        $(
            draw += 1;
            let mut env = $env::default();
            // the second term moves a constant that is 0
            env.$field = env.$field * (0.5 + 0.4 * uniforms(draw, 3)[0]) + 0.01 * uniforms(draw, 3)[1];
            assert!(outcome(&env) != usual, "{}.{} is read by nobody", stringify!($env), stringify!($field));
        )+
    }};
}

#[test]
fn every_constant_is_used() {
    every_constant_matters!(CartPole: gravity, masscart, masspole, length, force_mag, tau, theta_threshold, x_threshold,
        reset_bound);
    every_constant_matters!(Acrobot: gravity, link_length_1, link_mass_1, link_mass_2, link_com_1, link_com_2, link_moi,
        torque, max_vel_1, max_vel_2, dt, goal_height, reset_bound);
    every_constant_matters!(MountainCar: min_position, max_position, max_speed, goal_position, goal_velocity, force,
        gravity, reset_low, reset_high);
    every_constant_matters!(MountainCarContinuous: min_position, max_position, max_speed, goal_position, goal_velocity,
        max_action, power, gravity, goal_reward, action_cost, reset_low, reset_high);
    every_constant_matters!(Pendulum: gravity, mass, length, max_speed, max_torque, dt, speed_cost, torque_cost,
        reset_angle, reset_speed);
}

struct Resets;

impl Visitor for Resets {
    type Out = Vec<(f32, f32)>;

    /// Range of each word over many first states.
    fn visit<E: Dynamics>(self) -> Vec<(f32, f32)> {
        let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); E::SPEC.state_len];
        for index in 0..5_000 {
            let state = E::default().reset(uniforms(index, 4));
            for (range, &word) in ranges.iter_mut().zip(state.as_ref()) {
                *range = (range.0.min(word), range.1.max(word));
            }
        }
        ranges
    }
}

#[test]
fn first_states_fill_gymnasiums_ranges() {
    use std::f32::consts::PI;
    for (name, want) in [
        ("CartPole-v1", vec![(-0.05, 0.05); 4]),
        ("Acrobot-v1", vec![(-0.1, 0.1); 4]),
        ("MountainCar-v0", vec![(-0.6, -0.4), (0.0, 0.0)]),
        ("MountainCarContinuous-v0", vec![(-0.6, -0.4), (0.0, 0.0)]),
        ("Pendulum-v1", vec![(-PI, PI), (-1.0, 1.0)]),
    ] {
        let got = dispatch(name, Resets).expect("registered");
        for (got, want) in got.into_iter().zip(want) {
            let slack = 0.005 * (want.1 - want.0);
            assert!(got.0 >= want.0 && got.0 <= want.0 + slack, "{name}: {got:?}");
            assert!(got.1 <= want.1 && got.1 >= want.1 - slack, "{name}: {got:?}");
        }
    }
}

struct RandomPlay {
    episodes: u32,
}

impl Visitor for RandomPlay {
    type Out = f64;

    /// Mean return of uniformly random play.
    fn visit<E: Dynamics>(self) -> f64 {
        let env = E::default();
        let mut total = 0.0;
        for episode in 0..self.episodes {
            let mut state = env.reset(uniforms(episode, 5));
            for step in 0..E::SPEC.max_episode_steps {
                let u = uniforms(episode, 6 + step)[0];
                let mut act = E::Action::default();
                act.as_mut()[0] = match E::SPEC.action_space {
                    ActionSpace::Discrete(n) => (u * n as f32).floor(),
                    ActionSpace::Box { low, high } => low[0] + u * (high[0] - low[0]),
                };
                let (next, reward, terminated) = env.step(state, act);
                total += f64::from(reward);
                state = next;
                if terminated {
                    break;
                }
            }
        }
        total / f64::from(self.episodes)
    }
}

#[test]
fn random_play_returns_what_the_specs_say() {
    // about three standard errors of the 100 episodes behind the published means, and of ours
    for (name, slack) in [
        ("CartPole-v1", 4.5),
        ("Acrobot-v1", 3.0),
        ("MountainCar-v0", 0.1),
        ("MountainCarContinuous-v0", 1.0),
        ("Pendulum-v1", 100.0),
    ] {
        let want = find(name).expect("registered").random_return;
        let got = dispatch(name, RandomPlay { episodes: 400 }).expect("registered");
        assert!((got - want).abs() < slack, "{name}: {got:.2} for {want}");
    }
}
