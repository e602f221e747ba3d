//! Shapes that tests put the fused ops through: odd sizes, every activation, every policy, every loss.

use super::activation::Activation;
use super::envs::EnvFns;
use super::mlp::Mlp;
use super::nets::Nets;
use super::policy::Policy;
use super::recurrent::{Body, Cell};
use super::renorm::Renorm;
use crate::device::Precision;
use crate::env;
use crate::op::crossq_grad::CrossqShape;
use crate::op::imitate::ImitateShape;
use crate::op::minibatch_grad::{Distance, GradShape};
use crate::op::recurrent_rollout::RecurrentShape;
use crate::op::rollout::{Explore, RolloutShape, Store};
use crate::op::sequence_grad::SequenceShape;
use crate::op::sequence_td_grad::SequenceTdShape;
use crate::op::td_grad::{Backup, TdShape};
use crate::op::{Draw, hyper};

fn nets(
    input: usize,
    hidden: &[usize],
    activation: Activation,
    policy: Policy,
    critic: Option<&[usize]>,
    shared: bool,
) -> Nets {
    let mlp = |hidden: &[usize], output| Mlp {
        input,
        hidden: hidden.to_vec(),
        activation,
        output,
        precision: Precision::F32,
    };
    let outputs = policy.outputs() + usize::from(shared);
    Nets { actor: mlp(hidden, outputs), critic: critic.map(|hidden| mlp(hidden, 1)), policy, body: None }
}

/// Nets of every kind, small and odd, and the usual one.
pub fn all_nets() -> Vec<Nets> {
    let two = Policy::Categorical { n: 2 };
    let gauss = |n, free_std, squashed| Policy::Gaussian { n, free_std, squashed };
    let mut all = vec![
        nets(4, &[64, 64], Activation::Tanh, two, Some(&[64, 64]), false),
        nets(6, &[32], Activation::Relu, Policy::Categorical { n: 3 }, Some(&[17, 5]), false),
        nets(3, &[20, 7, 33], Activation::Tanh, gauss(1, false, false), None, true),
        nets(2, &[19], Activation::Tanh, gauss(3, true, false), Some(&[16]), false),
        nets(5, &[16, 16], Activation::Silu, gauss(2, false, true), None, true),
        nets(3, &[9], Activation::Elu, gauss(1, true, true), None, true),
        nets(4, &[130], Activation::Tanh, two, None, false),
        nets(4, &[], Activation::Tanh, two, Some(&[]), false),
        // edges: one unit, no whole number of vectors, as deep as a plan may be
        nets(1, &[1], Activation::Tanh, two, Some(&[1, 1]), false),
        nets(2, &[300], Activation::Relu, two, Some(&[300, 3]), false),
        nets(3, &[5; 15], Activation::LeakyRelu, gauss(1, false, false), None, true),
    ];
    all.extend(Activation::ALL.map(|activation| nets(3, &[11, 18], activation, two, None, true)));
    all
}

/// A minibatch of PPO inside a small rollout.
fn grad_base(nets: Nets) -> GradShape {
    GradShape {
        obs: nets.actor.input,
        rows: 96,
        envs: 3,
        start: 5,
        len: 71,
        minibatch: 0,
        minibatches: 2,
        epochs: 1,
        clipped: true,
        distance: Distance::Mse,
        one_sided: false,
        clip_value: false,
        symlog: false,
        normalize_targets: false,
        normalize_obs: false,
        tile_rows: 256,
        nets,
    }
}

/// Cases of `minibatch_grad`.
pub fn grad_shapes() -> Vec<GradShape> {
    let base = grad_base;
    let mut all: Vec<GradShape> = all_nets().into_iter().map(base).collect();
    let with = |change: &dyn Fn(&mut GradShape)| {
        let mut shape = base(all_nets().swap_remove(1));
        change(&mut shape);
        shape
    };
    all.push(with(&|d| d.clipped = false));
    all.push(with(&|d| d.distance = Distance::SmoothL1 { beta: 0.7 }));
    all.push(with(&|d| (d.clipped, d.one_sided) = (false, true)));
    all.push(with(&|d| (d.one_sided, d.distance) = (true, Distance::SmoothL1 { beta: 0.4 })));
    all.push(with(&|d| d.clip_value = true));
    all.push(with(&|d| d.symlog = true));
    all.push(with(&|d| d.normalize_targets = true));
    all.push(with(&|d| (d.symlog, d.normalize_targets, d.clip_value) = (true, true, true)));
    all.push(with(&|d| d.normalize_obs = true));
    all.push(with(&|d| (d.start, d.len, d.minibatch) = (0, 1, 1)));
    // a later epoch
    all.push(with(&|d| (d.epochs, d.start, d.minibatch) = (3, 2 * 96 + 25, 5)));
    // several tiles, the last one ragged
    all.push(with(&|d| (d.rows, d.envs, d.start, d.len) = (700, 7, 13, 601)));
    // as a gpu cuts: chunks of 32, 64 and 128 rows, several to a tile, ragged tiles and chunks
    let gpu = |tile_rows| with(&|d| (d.rows, d.envs, d.start, d.len, d.tile_rows) = (700, 7, 13, 601, tile_rows));
    all.extend([32, 64, 128, 384].map(gpu));
    let cut = |nets: Nets, tile_rows| GradShape { tile_rows, ..base(nets) };
    all.extend([32, 64].map(|tile_rows| cut(all_nets().swap_remove(0), tile_rows)));
    all.push(GradShape { rows: 200, len: 190, ..cut(all_nets().swap_remove(4), 128) });
    // layer by layer: several tiles of several blocks, more units than a block's tile has columns, wide observations
    let wide = |activation, critic: Option<&[usize]>, shared| {
        nets(70, &[70, 67], activation, Policy::Gaussian { n: 3, free_std: true, squashed: false }, critic, shared)
    };
    for nets in [wide(Activation::Tanh, Some(&[129]), false), wide(Activation::Gelu, None, true)] {
        all.push(GradShape { rows: 300, start: 3, len: 267, normalize_obs: true, ..cut(nets, 128) });
    }
    // on the matrix units: every net of the list, and as a gpu cuts, in one block and layer by layer
    let half = |d: &GradShape| GradShape { nets: d.nets.clone().with_precision(Precision::Bf16), ..d.clone() };
    let halves: Vec<GradShape> = all[..all_nets().len()].iter().map(half).collect();
    let cut: Vec<GradShape> = all.iter().filter(|d| d.tile_rows != 256).map(half).collect();
    all.extend(halves);
    all.extend(cut);
    all.push(half(&with(&|d| (d.clipped, d.normalize_obs) = (false, true))));
    all
}

/// Cases of `imitate`: values of nets of their own and of shared ones; a batch among several, a row, several tiles.
pub fn imitate_shapes() -> Vec<ImitateShape> {
    let case = |nets: Nets, batch| ImitateShape {
        obs: nets.actor.input,
        rows: 90,
        samples: 2 * batch + 1,
        start: batch,
        batch,
        normalize_obs: false,
        nets,
    };
    let mut all: Vec<ImitateShape> = all_nets()
        .into_iter()
        .filter(Nets::has_value)
        .enumerate()
        .map(|(i, nets)| case(nets, 1 + 23 * i % 75))
        .collect();
    for (at, batch) in [(0, 128), (2, 40), (4, 601)] {
        all.push(ImitateShape { normalize_obs: true, start: 0, ..case(all_nets().swap_remove(at), batch) });
    }
    all
}

/// Recurrent nets: linear heads on bodies with these layers in front of cells of `hidden` units.
fn recurrent(input: usize, layers: &[usize], cell: Cell, hidden: usize, policy: Policy, value: Value) -> Nets {
    let critic: &[usize] = &[];
    let heads =
        nets(hidden, &[], Activation::Tanh, policy, (value == Value::Own).then_some(critic), value == Value::Shared);
    Nets { body: Some(Body::new(input, layers, Activation::Tanh, cell, hidden)), ..heads }
}

/// Where the value of a recurrent agent comes from.
#[derive(Clone, Copy, PartialEq)]
enum Value {
    Shared,
    Own,
    None,
}

/// Recurrent nets of every kind, small and odd.
fn all_recurrent() -> Vec<Nets> {
    let discrete = |n| Policy::Categorical { n };
    let gauss = |n, free_std, squashed| Policy::Gaussian { n, free_std, squashed };
    vec![
        recurrent(4, &[9], Cell::Gru, 16, discrete(2), Value::Shared),
        recurrent(3, &[], Cell::Gru, 7, gauss(1, true, false), Value::Own),
        recurrent(5, &[20, 6], Cell::Lstm, 13, gauss(2, false, true), Value::Shared),
        recurrent(2, &[], Cell::Lstm, 17, discrete(3), Value::Own),
        recurrent(1, &[1], Cell::Gru, 1, discrete(2), Value::None),
        recurrent(4, &[3], Cell::Lstm, 1, gauss(1, true, true), Value::None),
    ]
}

/// Cases of `sequence_grad`: every kind of nets; then choices of the loss, minibatches of a later epoch, several tiles.
pub fn sequence_shapes() -> Vec<SequenceShape> {
    let case = |nets: Nets, t: usize, envs: usize, first: usize, len: usize| SequenceShape {
        t,
        tile: [32, 4, 8][len % 3],
        rows: GradShape { rows: t * envs, envs, start: t * first, len: t * len, obs: nets.obs(), ..grad_base(nets) },
    };
    let mut all: Vec<SequenceShape> =
        all_recurrent().into_iter().enumerate().map(|(i, nets)| case(nets, 3 + 4 * i, 5, i % 2, 1 + i % 4)).collect();
    let with = |nets: usize, change: &dyn Fn(&mut GradShape)| {
        let mut shape = case(all_recurrent().swap_remove(nets), 9, 4, 1, 3);
        change(&mut shape.rows);
        shape
    };
    all.push(with(0, &|d| (d.clipped, d.distance) = (false, Distance::SmoothL1 { beta: 0.7 })));
    all.push(with(1, &|d| (d.clip_value, d.symlog) = (true, true)));
    all.push(with(2, &|d| (d.normalize_targets, d.normalize_obs) = (true, true)));
    all.push(with(3, &|d| (d.epochs, d.start, d.minibatch) = (3, 9 * 9, 5)));
    // one step; several tiles, the last one ragged; as many rows as a block and one more
    all.push(case(all_recurrent().swap_remove(3), 1, 6, 2, 4));
    all.push(case(all_recurrent().swap_remove(0), 4, 70, 3, 67));
    all.push(case(all_recurrent().swap_remove(2), 5, 13, 0, 13));
    // more environments than a gpu goes through time with by fours; activations whose slopes need what they were given
    all.extend(
        [4, 5].map(|nets| SequenceShape { tile: 32, ..case(all_recurrent().swap_remove(nets), 2, 515, 0, 514) }),
    );
    // more than one tile of 64 in every matrix
    let wide = Policy::Gaussian { n: 3, free_std: true, squashed: false };
    all.push(case(recurrent(70, &[67], Cell::Lstm, 66, wide, Value::Own), 3, 9, 1, 7));
    // more units than a block of a gpu has the memory for
    all.push(case(recurrent(3, &[], Cell::Lstm, 172, Policy::Categorical { n: 2 }, Value::Shared), 2, 3, 0, 3));
    let mut before = with(2, &|_| {});
    before.rows.nets.body.as_mut().expect("a body").front.activation = Activation::Gelu;
    all.push(before);
    all
}

/// Fills the arguments of `minibatch_grad` that hang together.
pub fn sample_grad(d: &GradShape, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
    match (arg, d.nets.policy) {
        ("index", _) => words.iter_mut().for_each(|word| *word = draw.below(d.rows as u32)),
        ("action", Policy::Categorical { n }) => {
            words.iter_mut().for_each(|word| *word = (draw.below(n as u32) as f32).to_bits());
        }
        ("hyper", _) => hyper::sample(words, draw),
        _ => return false,
    }
    true
}

/// Cases of `recurrent_rollout`: every kind of nets, ragged tiles, episodes that end in the middle.
pub fn recurrent_rollout_shapes() -> Vec<RecurrentShape> {
    let discrete = |n| Policy::Categorical { n };
    let gauss = |free_std, squashed| Policy::Gaussian { n: 1, free_std, squashed };
    let case = |env: &str, policy, cell, value, t, n| {
        let env = EnvFns::new(env::find(env).expect("a built environment"));
        let nets = recurrent(env.spec.obs_len, &[11], cell, 19, policy, value);
        RecurrentShape { rollout: RolloutShape::new(env, Some(nets), t, n) }
    };
    let mut all = vec![
        case("CartPole-v1", discrete(2), Cell::Gru, Value::Shared, 6, 5),
        case("Acrobot-v1", discrete(3), Cell::Lstm, Value::Own, 5, 18),
        case("Pendulum-v1", gauss(true, true), Cell::Gru, Value::Own, 7, 70),
        case("MountainCarContinuous-v0", gauss(false, false), Cell::Lstm, Value::Shared, 3, 3),
        case("MountainCar-v0", discrete(3), Cell::Gru, Value::None, 1, 1),
        case("CartPole-v1", discrete(2), Cell::Lstm, Value::None, 4, 131),
    ];
    for (case, change) in [(0, Explore::Greedy), (1, Explore::Sample)] {
        let mut shape = all[case].clone();
        (shape.rollout.explore, shape.rollout.limit, shape.rollout.t) = (change, 4, 11);
        shape.rollout.normalize_obs = true;
        shape.rollout.nets.as_mut().and_then(|nets| nets.body.as_mut()).expect("a body").front.hidden.clear();
        let nets = shape.rollout.nets.as_ref().map_or(0, Nets::len);
        shape.rollout.params = nets;
        all.push(shape);
    }
    // more units than a block of a gpu has the memory for
    let env = all[0].rollout.env;
    let wide = recurrent(env.spec.obs_len, &[], Cell::Lstm, 172, discrete(2), Value::Own);
    all.push(RecurrentShape { rollout: RolloutShape { limit: 4, ..RolloutShape::new(env, Some(wide), 2, 3) } });
    // more environments than a gpu takes by fours; more units than a block of it has lanes for
    all.push(case("CartPole-v1", discrete(2), Cell::Gru, Value::Shared, 2, 513));
    all.push(case("Acrobot-v1", discrete(3), Cell::Lstm, Value::Own, 2, 515));
    let mut wider = all[1].clone();
    let nets = recurrent(6, &[70, 6], Cell::Lstm, 70, discrete(3), Value::Own);
    wider.rollout = RolloutShape { t: 3, n: 5, params: nets.len(), nets: Some(nets), ..wider.rollout };
    all.push(wider);
    // into a ring that the steps go round in, a part of the way into an iteration; more parameters than the nets'
    let explored = [Explore::EpsilonGreedy, Explore::Boltzmann, Explore::Greedy, Explore::Sample, Explore::Uniform];
    for (explore, case) in explored.into_iter().zip([4, 5, 1, 2, 0]) {
        let mut shape = all[case].clone();
        let (n, nets) = (shape.rollout.n, shape.rollout.nets.as_ref().expect("a recurrent agent has nets"));
        let (params, groups) = (nets.len() + 13, nets.groups() + 1);
        let store = Store::Ring { steps: 9, at: 3, of: 12 };
        shape.rollout = RolloutShape { explore, store, params, groups, t: 7, limit: 5, n: n.max(3), ..shape.rollout };
        all.push(shape);
    }
    all
}

/// Normalised nets of every kind: odd sizes, one unit, several layers and none, activations with and without inputs.
pub fn renorms(input: usize, output: usize) -> Vec<Renorm> {
    let one = |hidden: &[usize], activation, warmup| Renorm {
        mlp: Mlp { input, hidden: hidden.to_vec(), activation, output, precision: Precision::F32 },
        momentum: 0.01,
        eps: 1e-3,
        warmup,
        r_max: 3.0,
        d_max: 5.0,
    };
    vec![
        one(&[64, 64], Activation::Relu, 5_000),
        one(&[33], Activation::Tanh, 7),
        one(&[17, 5, 20], Activation::Silu, 2),
        one(&[1], Activation::Elu, 1),
        one(&[], Activation::Relu, 3),
        Renorm { momentum: 0.3, eps: 1e-2, r_max: 1.2, d_max: 0.1, ..one(&[130, 7], Activation::LeakyRelu, 0) },
    ]
}

/// Running moments as they may be.
pub fn sample_norm(net: &Renorm, words: &mut [u32], draw: &mut Draw) -> bool {
    let units = net.units();
    for (at, word) in words.iter_mut().enumerate() {
        let variance = at % (2 * units) >= units;
        *word = if variance { draw.range(0.1, 2.0) } else { draw.range(-1.0, 1.0) }.to_bits();
    }
    true
}

/// Cases of `crossq_grad`: every kind of policy and critic, one block of rows and several, a batch of one row; each in both
/// number formats.
pub fn crossq_shapes() -> Vec<CrossqShape> {
    let case = |obs, policy: Policy, critic: usize, batch| {
        let (words, outputs) = match policy {
            Policy::Categorical { n } => (0, n),
            Policy::Gaussian { n, .. } => (n, 1),
        };
        CrossqShape {
            actor: nets(obs, &[24, 10], Activation::Tanh, policy, None, false).actor,
            policy,
            critic: renorms(obs + words, outputs).swap_remove(critic),
            rows: 90,
            samples: 3 * batch + 2,
            start: batch + 1,
            batch,
            groups: 4,
            learned: true,
            distance: Distance::Mse,
            symlog: false,
            normalize_obs: false,
        }
    };
    let discrete = |n| Policy::Categorical { n };
    let gauss = |n| Policy::Gaussian { n, free_std: false, squashed: true };
    let smooth = Distance::SmoothL1 { beta: 0.7 };
    let mut all = vec![
        case(4, discrete(2), 0, 71),
        case(3, gauss(1), 0, 32),
        case(17, gauss(3), 1, 19),
        case(5, discrete(3), 2, 130),
        case(3, gauss(2), 2, 40),
        case(6, discrete(18), 3, 9),
        case(3, gauss(1), 4, 21),
        case(2, gauss(5), 5, 64),
        case(2, discrete(2), 1, 1),
        CrossqShape { learned: false, groups: 3, ..case(3, gauss(1), 1, 17) },
        CrossqShape { learned: false, symlog: true, ..case(4, discrete(4), 2, 12) },
        CrossqShape { distance: smooth, ..case(3, gauss(2), 1, 25) },
        CrossqShape { distance: smooth, symlog: true, normalize_obs: true, start: 0, ..case(3, gauss(1), 5, 33) },
        CrossqShape { normalize_obs: true, ..case(4, discrete(2), 0, 16) },
    ];
    let halves: Vec<CrossqShape> = all.iter().map(|d| d.clone().with_precision(Precision::Bf16)).collect();
    all.extend(halves);
    all
}

/// Cases of `td_grad`: every backup, both heads, several nets, ragged blocks and tiles.
pub fn td_shapes() -> Vec<TdShape> {
    let case = |input, hidden: &[usize], activation, actions, dueling, backup| TdShape {
        net: Mlp {
            input,
            hidden: hidden.to_vec(),
            activation,
            output: actions + usize::from(dueling),
            precision: Precision::F32,
        },
        actions,
        dueling,
        rows: 60,
        envs: 4,
        samples: 40,
        start: 0,
        batch: 40,
        backup,
        distance: Distance::SmoothL1 { beta: 0.7 },
        normalize_obs: false,
        tile_rows: 256,
    };
    let (relu, selu, tanh) = (Activation::Relu, Activation::Selu, Activation::Tanh);
    let mut all = vec![
        case(4, &[64, 64], selu, 2, false, Backup::Double),
        case(4, &[24], tanh, 2, false, Backup::Sarsa),
        case(6, &[17, 20], relu, 3, false, Backup::Target),
        case(2, &[19], selu, 3, false, Backup::Own),
        case(6, &[33, 7], tanh, 3, true, Backup::Double),
        case(3, &[20], relu, 2, true, Backup::Target),
        case(5, &[16, 16], tanh, 4, true, Backup::Sarsa),
        case(4, &[], tanh, 2, false, Backup::Double),
        case(1, &[1], tanh, 1, true, Backup::Own),
    ];
    let base = all[0].clone();
    all.push(TdShape { samples: 120, start: 51, batch: 17, distance: Distance::Mse, ..base.clone() });
    all.push(TdShape { normalize_obs: true, samples: 200, start: 1, batch: 199, tile_rows: 64, ..base.clone() });
    all.push(TdShape { samples: 300, batch: 300, rows: 1_000, envs: 5, tile_rows: 256, ..all[4].clone() });
    all.push(TdShape { samples: 1, batch: 1, tile_rows: 64, ..all[2].clone() });
    // wider than one block of a gpu has room for
    let wide = |hidden: &[usize], activation, dueling, backup| TdShape {
        rows: 300,
        samples: 90,
        start: 3,
        batch: 70,
        tile_rows: 64,
        ..case(6, hidden, activation, 3, dueling, backup)
    };
    all.push(wide(&[70, 130], relu, true, Backup::Double));
    all.push(wide(&[100], selu, false, Backup::Sarsa));
    all.push(TdShape { normalize_obs: true, ..wide(&[65, 20], Activation::Gelu, false, Backup::Target) });
    let half = |d: &TdShape| TdShape { net: Mlp { precision: Precision::Bf16, ..d.net.clone() }, ..d.clone() };
    let halves: Vec<TdShape> = all.iter().map(half).collect();
    all.extend(halves);
    all
}

/// Cases of `sequence_td_grad`: both cells, every backup, with and without burn-in and n-step returns, ragged tiles.
pub fn sequence_td_shapes() -> Vec<SequenceTdShape> {
    let case = |body: (usize, &[usize], Cell, usize), actions, dueling, backup, steps: [usize; 3], count| {
        let (input, layers, cell, hidden) = body;
        let rows = count * steps.iter().sum::<usize>();
        let net = Mlp {
            input: hidden,
            hidden: Vec::new(),
            activation: Activation::Tanh,
            output: actions + usize::from(dueling),
            precision: Precision::F32,
        };
        let td = TdShape {
            net,
            actions,
            dueling,
            rows: 4 * 11,
            envs: 4,
            samples: rows + 9,
            start: 5,
            batch: count * steps[1],
            backup,
            distance: Distance::SmoothL1 { beta: 0.7 },
            normalize_obs: false,
            tile_rows: 0,
        };
        let body = Body::new(input, layers, Activation::Tanh, cell, hidden);
        SequenceTdShape { td, body, burn_in: steps[0], learned: steps[1], ahead: steps[2], tile: 32 }
    };
    let mut all = vec![
        case((4, &[9], Cell::Gru, 16), 2, false, Backup::Double, [0, 7, 0], 5),
        case((3, &[], Cell::Lstm, 7), 3, false, Backup::Target, [3, 4, 0], 6),
        case((2, &[20, 6], Cell::Gru, 13), 2, false, Backup::Own, [2, 5, 2], 4),
        case((5, &[], Cell::Lstm, 17), 3, true, Backup::Double, [1, 6, 1], 3),
        case((1, &[1], Cell::Gru, 1), 1, true, Backup::Target, [0, 9, 0], 1),
        // one step; several tiles, the last one ragged, of more rows than a block
        case((4, &[3], Cell::Lstm, 1), 2, false, Backup::Own, [0, 1, 0], 9),
        case((4, &[9], Cell::Gru, 16), 2, false, Backup::Double, [2, 3, 1], 70),
        // more units than a block of a gpu has the memory for
        case((3, &[], Cell::Lstm, 172), 2, false, Backup::Target, [1, 2, 1], 3),
    ];
    let with = |case: usize, change: &dyn Fn(&mut TdShape)| {
        let mut shape = all[case].clone();
        change(&mut shape.td);
        shape
    };
    let more =
        [with(0, &|d| (d.distance, d.normalize_obs) = (Distance::Mse, true)), with(3, &|d| d.normalize_obs = true)];
    all.extend(more);
    // tiles of few sequences, the last one ragged
    let few = case((3, &[5], Cell::Gru, 6), 2, false, Backup::Double, [2, 3, 1], 11);
    all.push(SequenceTdShape { tile: 4, ..few });
    // more sequences than a gpu goes through time with by fours
    all.push(case((2, &[], Cell::Gru, 3), 2, false, Backup::Target, [1, 1, 0], 514));
    all.push(case((2, &[3], Cell::Lstm, 2), 2, false, Backup::Own, [0, 1, 1], 515));
    // more than one tile of 64 in every matrix; activations whose slopes need what they were given
    let wide = case((70, &[67], Cell::Lstm, 66), 3, true, Backup::Double, [1, 2, 1], 5);
    all.push(SequenceTdShape { tile: 4, ..wide });
    let mut before = case((3, &[9, 7], Cell::Gru, 5), 2, false, Backup::Double, [2, 4, 0], 5);
    (before.body.front.activation, before.tile) = (Activation::Gelu, 8);
    all.push(before);
    all
}

/// Cases of `rollout`: every environment, every kind of policy, ragged tiles, every way that a gpu takes.
pub fn rollout_shapes() -> Vec<RolloutShape> {
    let discrete = |n| Policy::Categorical { n };
    let gauss = |free_std, squashed| Policy::Gaussian { n: 1, free_std, squashed };
    let case = |env: &str, policy, shared: bool, t, n| {
        let env = EnvFns::new(env::find(env).expect("a built environment"));
        let critic: &[usize] = &[17, 20];
        let nets = nets(env.spec.obs_len, &[24, 10], Activation::Tanh, policy, (!shared).then_some(critic), shared);
        RolloutShape::new(env, Some(nets), t, n)
    };
    let mut all = vec![
        case("CartPole-v1", discrete(2), false, 4, 5),
        case("CartPole-v1", discrete(2), true, 3, 131),
        case("Acrobot-v1", discrete(3), true, 3, 18),
        case("MountainCar-v0", discrete(3), false, 4, 16),
        case("Pendulum-v1", gauss(false, false), false, 4, 7),
        case("Pendulum-v1", gauss(true, true), true, 4, 70),
        case("MountainCarContinuous-v0", gauss(true, false), true, 3, 3),
        case("CartPole-v1", discrete(2), true, 1, 1),
    ];
    let with = |case: usize, change: &dyn Fn(&mut RolloutShape)| {
        let mut shape = all[case].clone();
        change(&mut shape);
        shape
    };
    let sized = |case: usize, hidden: &[usize]| {
        with(case, &|d| {
            let nets = d.nets.as_mut().expect("the cases above have nets");
            nets.actor.hidden = hidden.to_vec();
            nets.critic.iter_mut().for_each(|critic| critic.hidden = hidden.to_vec());
        })
    };
    let mut more = vec![
        with(0, &|d| d.explore = Explore::Greedy),
        with(4, &|d| d.explore = Explore::Greedy),
        with(2, &|d| d.normalize_obs = true),
        with(1, &|d| d.nets = None),
        with(5, &|d| d.nets = None),
        with(0, &|d| d.limit = 9),
        // the usual nets, and nets without hidden layers
        sized(0, &[64, 64]),
        sized(5, &[]),
        sized(3, &[]),
        // as deep as a plan may be, and one layer deeper than the other net
        with(2, &|d| d.nets.as_mut().expect("has nets").actor.hidden = vec![5; 15]),
        with(0, &|d| d.nets.as_mut().expect("has nets").actor.hidden = vec![12]),
        // a critic behind free deviations
        case("Pendulum-v1", gauss(true, false), false, 3, 9),
        // no value at all
        with(4, &|d| d.nets.as_mut().expect("has nets").critic = None),
    ];
    // whole tiles of a gpu and one more or less, and many environments
    more.extend([(2, 15), (2, 17), (2, 33), (1, 2049)].map(|size| with(0, &|d| (d.t, d.n) = size)));
    // a gpu keeps neither these weights in shared memory nor, of the last, the activations
    let mut wide: Vec<RolloutShape> = [0, 2, 3, 4, 6].map(|case| sized(case, &[150, 180])).to_vec();
    wide.push(RolloutShape { n: 20, ..sized(0, &[1700]) });
    more.extend(wide);
    // other constants than Gymnasium's, everywhere, so that none can be left out or taken for another
    let bf16 = |mut d: RolloutShape| {
        d.nets = d.nets.map(|nets| nets.with_precision(Precision::Bf16));
        d
    };
    let strange = |d: &mut RolloutShape| {
        let change = |i, x| x * (1.0 + 0.01 * (i + 1) as f32) + 0.001 * (i + 1) as f32;
        d.env = d.env.with_constants(change);
        (d.t, d.limit, d.n) = (24, 11, 19);
    };
    for case in [0, 2, 3, 4, 6] {
        more.push(with(case, &strange));
        more.push(bf16(with(case, &strange)));
        more.push(with(case, &|d| {
            strange(d);
            (d.n, d.nets) = (130, None);
        }));
    }
    // on matrix units: the usual nets, uneven ones, none; both sizes of blocks; and wide ones
    let cases = [(0, &[64, 64][..], 4, 20), (5, &[], 3, 5), (2, &[33, 7, 16], 1, 2049), (4, &[24], 1, 4097)];
    more.extend(cases.map(|(case, hidden, t, n)| RolloutShape { t, n, ..bf16(sized(case, hidden)) }));
    more.extend([0, 2, 3, 4, 6].map(|case| bf16(sized(case, &[260, 200]))));
    more.push(RolloutShape { n: 20, ..bf16(sized(0, &[1700])) });
    more.push(bf16(with(0, &|d| {
        d.nets.as_mut().expect("has nets").critic.as_mut().expect("its own").hidden = vec![40, 20]
    })));
    // into a ring that the steps go round in, a part of the way into an iteration; more parameters than the actor's
    let ring = |case: usize, explore| {
        with(case, &|d| {
            (d.t, d.limit) = (7, 5);
            d.store = Store::Ring { steps: 9, at: 3, of: 12 };
            d.explore = explore;
            d.nets.as_mut().expect("has nets").critic = None;
        })
    };
    let squashed = |explore| {
        let mut d = ring(4, explore);
        d.nets.as_mut().expect("has nets").policy = gauss(false, true);
        d
    };
    more.extend([Explore::EpsilonGreedy, Explore::Boltzmann, Explore::Uniform, Explore::Greedy].map(|e| ring(0, e)));
    more.extend([Explore::EpsilonGreedy, Explore::Boltzmann].map(|e| RolloutShape { n: 70, ..ring(2, e) }));
    more.extend([ring(1, Explore::Sample), ring(3, Explore::EpsilonGreedy), ring(6, Explore::Sample)]);
    more.extend([Explore::Sample, Explore::Uniform, Explore::Greedy].map(squashed));
    more.push(RolloutShape { normalize_obs: true, t: 1, ..ring(2, Explore::Boltzmann) });
    more.push(RolloutShape { n: 33, store: Store::Ring { steps: 100, at: 0, of: 7 }, ..squashed(Explore::Sample) });
    all.extend(more);
    for d in &mut all {
        let own = d.nets.as_ref().map_or(0, Nets::len);
        (d.params, d.groups) = if d.in_ring() { (own + 13, 4) } else { (own, d.nets.as_ref().map_or(1, Nets::groups)) };
    }
    all
}
