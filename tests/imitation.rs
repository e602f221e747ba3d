//! Does an agent imitate what it did, and only that? Returns of a memory of episodes against a plain record of all that
//! ever happened, what is drawn from it, and gradients against the two losses of Oh et al. 2018 as they are written.

use slm_fast::device::{Buf, Device, Keep, Layout, Memory, Precision, Queue};
use slm_fast::lab::cohort::Cohort;
use slm_fast::op::episode_returns::{EpisodeReturns, EpisodeShape};
use slm_fast::op::hyper::{self, CLOCK_STEP, update};
use slm_fast::op::imitate::{Imitate, ImitateShape};
use slm_fast::op::lib::activation::Activation;
use slm_fast::op::lib::mlp::Mlp;
use slm_fast::op::lib::nets::Nets;
use slm_fast::op::lib::policy::Policy;
use slm_fast::op::minibatch_grad::{Distance, GradShape, MinibatchGrad};
use slm_fast::op::sample::{Drawing, Sample, SampleShape};
use slm_fast::op::{Draw, advantage, schedule};
use slm_fast::plan::Plan;
use slm_fast::spec;
use std::path::Path;

const GAMMA: f64 = 0.9;

/// A step of one environment, for ever.
#[derive(Clone, Copy)]
struct Step {
    reward: f64,
    /// 0, or bits: terminated, truncated.
    ended: u32,
    bootstrap: f64,
}

/// A memory of episodes, and what draws from it.
struct Episodes {
    memory: Memory,
    device: Device,
    keep: Queue,
    draw: Queue,
    op: EpisodeBuffers,
    clock: Buf<u32>,
    index: Buf<u32>,
    weight: Buf<f32>,
}

#[derive(Clone, Copy)]
struct EpisodeBuffers {
    obs: Buf<f32>,
    reward: Buf<f32>,
    ended: Buf<u32>,
    bootstrap: Buf<f32>,
    ring_obs: Buf<f32>,
    ring_returns: Buf<f32>,
    tree: Buf<f32>,
}

const BATCH: usize = 16;

impl Episodes {
    fn new(t: usize, n: usize, c: usize, newest: usize) -> Episodes {
        let mut layout = Layout::new(1);
        let (mut keep, mut draw) = (Queue::default(), Queue::default());
        let shape = EpisodeShape { t, n, c, obs: 2, action: 1, groups: 1, prioritized: false };
        let op = EpisodeReturns::alone(shape, &mut layout);
        let (clock, hyper, tree, reward, ended) = (op.clock, op.hyper, op.tree, op.ring_reward, op.ring_ended);
        let (moments, buffers) = (
            op.reward_moments,
            EpisodeBuffers {
                obs: op.obs,
                reward: op.reward,
                ended: op.ended,
                bootstrap: op.bootstrap,
                ring_obs: op.ring_obs,
                ring_returns: op.ring_returns,
                tree: op.tree,
            },
        );
        op.record(&mut layout, &mut keep);
        let seed = layout.buf("seed", &[2], Keep::Saved);
        let [index, last] = ["index", "last"].map(|name| layout.buf(name, &[BATCH], Keep::Saved));
        let [returns, discount, weight] =
            ["returns", "discount", "weight"].map(|name| layout.buf(name, &[BATCH], Keep::Saved));
        let schedule = layout.buf("schedule", &[schedule::LEN + 1], Keep::Saved);
        let update = layout.buf("update", &[update::LEN], Keep::Saved);
        let shape = SampleShape {
            c,
            n,
            groups: 1,
            at: 0,
            batch: BATCH,
            batches: 1,
            first: 0,
            drawing: Drawing::Prioritized,
            newest,
            n_step: 1,
            begins: false,
        };
        Sample {
            shape,
            seed,
            clock,
            hyper,
            schedule,
            reward,
            ended,
            tree,
            index,
            last,
            returns,
            discount,
            weight,
            update,
        }
        .record(&mut layout, &mut draw);
        let mut memory = layout.allocate().expect("memory");
        let table = memory.write(hyper, 0);
        (table[hyper::GAMMA], table[hyper::REWARD_SCALE]) = (GAMMA as f32, 2.0);
        (table[hyper::REWARD_CLIP_LOW], table[hyper::REWARD_CLIP_HIGH]) = (-1.5, 1.5);
        memory.write(moments, 0)[advantage::SCALE] = 0.5;
        Episodes { memory, device: Device::cpu(1), keep, draw, op: buffers, clock, index, weight }
    }
}

/// The return of a step whose episode has ended, from all that happened.
fn whole_return(history: &[Step]) -> Option<f64> {
    let (mut sum, mut factor) = (0.0, 1.0);
    for step in history {
        // as the agent sees it: scaled by 0.5 x 2, clipped
        sum += factor * step.reward.clamp(-1.5, 1.5);
        factor *= GAMMA;
        if step.ended != 0 {
            // a truncated episode would have gone on
            return Some(sum + if step.ended == 2 { factor * step.bootstrap } else { 0.0 });
        }
    }
    None
}

#[test]
fn every_row_of_a_finished_episode_has_its_return_and_no_other_is_drawn() {
    for (t, n, c, rare) in [(7, 3, 19, 9), (1, 2, 40, 15), (5, 4, 5, 3), (12, 1, 30, 60), (4, 5, 64, 1_000)] {
        let mut e = Episodes::new(t, n, c, 0);
        let mut draw = Draw::new(c as u32);
        let mut history: Vec<Vec<Step>> = vec![Vec::new(); n];
        let mut drawn = 0;
        for rollout in 1..=60 {
            for i in 0..t * n {
                let ended = if draw.below(rare) == 0 { 1 + draw.below(3) } else { 0 };
                let (reward, bootstrap) = (draw.range(-2.0, 2.0), draw.range(-4.0, 4.0));
                history[i % n].push(Step { reward: reward.into(), ended, bootstrap: bootstrap.into() });
                e.memory.write(e.op.reward, 0)[i] = reward;
                e.memory.write(e.op.ended, 0)[i] = ended;
                e.memory.write(e.op.bootstrap, 0)[i] = bootstrap;
                e.memory.write(e.op.obs, 0)[2 * i..2 * i + 2].copy_from_slice(&[reward, (i % n) as f32]);
            }
            e.memory.write(e.clock, 0)[CLOCK_STEP] = (rollout * t) as u32;
            e.keep.replay(&e.device, &mut e.memory, &[0]).expect("the cpu does not fail");
            let mut finished = 0;
            for (env, steps) in history.iter().enumerate() {
                for at in (rollout * t).saturating_sub(c)..rollout * t {
                    let row = at % c * n + env;
                    let leaf = e.memory.read(e.op.tree, 0)[row];
                    assert_eq!(
                        e.memory.read(e.op.ring_obs, 0)[2 * row..2 * row + 2],
                        [steps[at].reward as f32, env as f32]
                    );
                    match whole_return(&steps[at..]) {
                        Some(exact) => {
                            let found = f64::from(e.memory.read(e.op.ring_returns, 0)[row]);
                            assert!((found - exact).abs() < 1e-5, "{t} x {n} of {c}: {found} for {exact}");
                            assert_eq!(leaf, 1.0);
                            finished += 1;
                        }
                        None => assert_eq!(leaf, 0.0, "an episode that goes on has no return yet"),
                    }
                }
            }
            e.draw.replay(&e.device, &mut e.memory, &[0]).expect("the cpu does not fail");
            let live = if finished > 0 { 1.0 } else { 0.0 };
            assert!(e.memory.read(e.weight, 0).iter().all(|&weight| weight == live), "full batches, or none");
            for &row in e.memory.read(e.index, 0) {
                assert!(finished == 0 || e.memory.read(e.op.tree, 0)[row as usize] == 1.0, "only what has a return");
                drawn += u64::from(finished > 0);
            }
        }
        assert!(rare > 100 || drawn > 300, "{drawn}");
        assert_eq!(e.memory.overrun(), None);
    }
}

#[test]
fn the_newest_rows_are_the_newest_that_have_a_return() {
    let (t, n, c) = (4, 2, 20);
    let mut e = Episodes::new(t, n, c, BATCH / 2);
    // environment 0 ends in its third step, environment 1 goes on
    e.memory.write(e.op.ended, 0)[2 * n] = 1;
    e.memory.write(e.clock, 0)[CLOCK_STEP] = t as u32;
    e.keep.replay(&e.device, &mut e.memory, &[0]).expect("the cpu does not fail");
    e.draw.replay(&e.device, &mut e.memory, &[0]).expect("the cpu does not fail");
    let index = e.memory.read(e.index, 0);
    assert!(index.iter().all(|&row| row % 2 == 0 && row < 6), "{index:?}");
    // the last eight places are those of steps 0 to 3 of both environments, where they have a return
    assert_eq!([index[9], index[11], index[13]], [0, 2, 4]);
}

fn small_nets(shared: bool, policy: Policy) -> Nets {
    let mlp = |hidden: &[usize], output| Mlp {
        input: 3,
        hidden: hidden.to_vec(),
        activation: Activation::Tanh,
        output,
        precision: Precision::F32,
    };
    let actor = mlp(&[5], policy.outputs() + usize::from(shared));
    Nets { actor, critic: (!shared).then(|| mlp(&[4], 1)), policy, body: None }
}

/// The losses of self-imitation as the paper writes them, with the weights of the batch; the advantage is a constant.
#[test]
fn a_step_that_imitates_follows_the_slope_of_both_losses() {
    let (rows, batch) = (30, 13);
    let (policy_coef, value_coef) = (0.7f32, 0.3f32);
    for (shared, policy) in [
        (false, Policy::Categorical { n: 3 }),
        (true, Policy::Categorical { n: 2 }),
        (false, Policy::Gaussian { n: 2, free_std: true, squashed: false }),
    ] {
        let nets = small_nets(shared, policy);
        let (groups, len) = (nets.groups(), policy.action_len());
        let shape =
            ImitateShape { nets: nets.clone(), obs: 3, rows, samples: batch, start: 0, batch, normalize_obs: false };
        let mut layout = Layout::new(1);
        let mut queue = Queue::default();
        let op = Imitate::alone(shape.clone(), &mut layout);
        let (index, weight, obs, action, returns) = (op.index, op.weight, op.obs, op.action, op.returns);
        let (params, own, error) = (op.params, op.hyper, op.error);
        let imitation_hyper = layout.buf("imitation_hyper", &[hyper::len(groups)], Keep::Saved);
        let schedule = layout.buf("schedule", &[schedule::LEN + groups], Keep::Saved);
        let value_moments = layout.buf("value_moments", &[4], Keep::Saved);
        let partial = layout.buf("partial", &[1, nets.len()], Keep::Saved);
        let partial_loss = layout.buf("partial_loss", &[1, update::LOSSES], Keep::Saved);
        let grad = MinibatchGrad {
            shape: GradShape {
                nets: nets.clone(),
                obs: 3,
                rows: batch,
                envs: 0,
                start: 0,
                len: batch,
                minibatch: 0,
                minibatches: 1,
                epochs: 1,
                clipped: false,
                distance: Distance::Mse,
                one_sided: true,
                clip_value: false,
                symlog: false,
                normalize_targets: false,
                normalize_obs: false,
                tile_rows: 256,
            },
            index: op.order,
            moments: op.moments,
            obs: op.seen,
            normalizer: op.normalizer,
            action: op.taken,
            log_prob: op.log_prob,
            value: op.value,
            advantage: op.advantage,
            returns: op.target,
            value_moments,
            hyper: imitation_hyper,
            schedule,
            params,
            partial,
            partial_loss,
        };
        op.record(&mut layout, &mut queue);
        grad.record(&mut layout, &mut queue);
        let mut memory = layout.allocate().expect("memory");
        let mut draw = Draw::new(4 + groups as u32);
        let inputs = Imitate::inputs(&shape, &mut draw);
        for (id, words) in [index.id(), weight.id(), obs.id(), action.id(), returns.id()].into_iter().zip(&inputs) {
            memory.words_mut(id, 0).copy_from_slice(words);
        }
        memory.words_mut(own.id(), 0).copy_from_slice(&inputs[6]);
        memory.words_mut(params.id(), 0).copy_from_slice(&inputs[7]);
        let table = memory.write(imitation_hyper, 0);
        (table[hyper::POLICY_LOSS_COEF], table[hyper::VAL_LOSS_COEF]) = (policy_coef, 0.5 * value_coef);
        queue.replay(&Device::cpu(1), &mut memory, &[0]).expect("the cpu does not fail");

        let plain: Vec<f64> = memory.read(params, 0).iter().map(|&p| p.into()).collect();
        let see = |row: usize| -> Vec<f64> { memory.read(obs, 0)[3 * row..][..3].iter().map(|&x| x.into()).collect() };
        let better = |row: usize, params: &[f64]| {
            (f64::from(memory.read(returns, 0)[row]) - nets.define(params, &see(row)).1).max(0.0)
        };
        let loss = |params: &[f64]| -> f64 {
            let of = |b: usize| {
                let row = memory.read(index, 0)[b] as usize;
                let out = nets.define(params, &see(row)).0;
                let log_prob = policy.define(&out, &memory.read(action, 0)[len * row..][..len]).0;
                let policy = -log_prob * better(row, &plain);
                let value = 0.5 * better(row, params).powi(2);
                f64::from(memory.read(weight, 0)[b]) * (f64::from(policy_coef) * policy + f64::from(value_coef) * value)
            };
            (0..batch).map(of).sum::<f64>() / batch as f64
        };
        let mut moved = 0;
        for (i, &found) in memory.read(partial, 0).iter().enumerate() {
            let side = |step: f64| {
                let mut params = plain.clone();
                params[i] += step;
                loss(&params)
            };
            let exact = (side(1e-6) - side(-1e-6)) / 2e-6;
            assert!((f64::from(found) - exact).abs() < 2e-6, "{policy:?}, parameter {i}: {found} for {exact}");
            moved += usize::from(exact.abs() > 1e-4);
        }
        assert!(moved > 10, "{moved} parameters move the losses");
        for b in 0..batch {
            let exact = better(memory.read(index, 0)[b] as usize, &plain);
            assert!((f64::from(memory.read(error, 0)[b]) - exact).abs() < 1e-5);
        }
        assert_eq!(memory.overrun(), None);
    }
}

/// A spec of SLM Lab's arc kind: the keys of its `sil_arc.yaml`.
const ARC: &str = r#"
ppo_sil_cartpole_arc:
  agent:
    name: PPOSIL
    algorithm:
      name: PPOSIL
      action_pdtype: default
      action_policy: default
      explore_var_spec: null
      gamma: 0.99
      lam: 0.95
      clip_eps_spec: {name: no_decay, start_val: 0.2, end_val: 0.2, start_step: 0, end_step: 0}
      entropy_coef_spec: {name: no_decay, start_val: 0.01, end_val: 0.01, start_step: 0, end_step: 0}
      val_loss_coef: 0.5
      sil_policy_loss_coef: 1.0
      sil_val_loss_coef: 0.01
      time_horizon: 256
      minibatch_size: 128
      training_batch_iter: 4
      training_iter: 2
      training_epoch: 10
    memory: {name: OnPolicyBatchReplay, sil_replay_name: Replay, batch_size: 128, max_size: 10000, use_cer: true}
    net:
      type: TorchArcNet
      shared: false
      arc:
        modules:
          body:
            Sequential:
              - LazyLinear: {out_features: 64}
              - Tanh:
              - LazyLinear: {out_features: 64}
              - Tanh:
        graph: {input: x, modules: {body: [x]}, output: body}
      hid_layers_activation: tanh
      clip_grad_val: 0.5
      use_same_optim: false
      loss_spec: {name: MSELoss}
      actor_optim_spec: {name: Adam, lr: 3.0e-4}
      critic_optim_spec: {name: Adam, lr: 3.0e-4}
  env: {name: CartPole-v1, num_envs: 4, max_t: null, max_frame: 200000}
  meta: {distributed: false, log_frequency: 500, eval_frequency: 256, max_session: 4, max_trial: 1}
"#;

fn arc(sets: &[(&str, &str)]) -> slm_fast::error::Result<Plan> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("sil_arc.yaml");
    std::fs::write(&path, ARC).expect("a file");
    let sets: Vec<(String, String)> = sets.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let loaded = spec::load(&path, None, &sets)?;
    assert_eq!(loaded.warnings, [] as [String; 0]);
    Plan::new(&loaded.spec)
}

#[test]
fn slm_lab_s_spec_means_what_it_says() {
    let plan = arc(&[]).expect("a plan");
    let imitation = plan.imitation.expect("it imitates");
    assert_eq!((imitation.ring, imitation.batch, imitation.updates, imitation.repeats), (2_500, 128, 2, 4));
    assert_eq!((imitation.prioritized, imitation.newest, imitation.samples()), (false, 1_024, 256));
    assert_eq!((plan.horizon, plan.minibatch, plan.epochs), (256, 128, 10));
    // 195 iterations of 80 minibatches and 8 steps that imitate, of two nets
    assert_eq!(plan.opt_steps(), 195 * 2 * (80 + 8));
    let (ppo, own) = (&plan.hyper, plan.imitation_hyper());
    assert_eq!([ppo[hyper::POLICY_LOSS_COEF], ppo[hyper::VAL_LOSS_COEF]], [1.0, 0.5]);
    assert_eq!([own[hyper::POLICY_LOSS_COEF], own[hyper::VAL_LOSS_COEF]], [1.0, 0.005]);
    assert_eq!([ppo[hyper::ENTROPY_COEF + 1], own[hyper::ENTROPY_COEF + 1]], [0.01, 0.0]);
    assert_eq!(ppo[hyper::LEN..], own[hyper::LEN..], "learning rates are the same");

    let by_priority = arc(&[
        ("agent.memory.sil_replay_name", "PrioritizedReplay"),
        ("agent.memory.alpha", "0.6"),
        ("agent.memory.epsilon", "0.001"),
        ("agent.memory.beta_spec", r#"{"name": "no_decay", "start_val": 0.1}"#),
    ])
    .expect("a plan");
    assert!(by_priority.imitation.is_some_and(|p| p.prioritized && p.samples() == 128));
    let table = &by_priority.hyper;
    assert_eq!(
        [table[hyper::PRIORITY_ALPHA], table[hyper::PRIORITY_EPSILON], table[hyper::BETA + 1]],
        [0.6, 0.001, 0.1]
    );
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    for (key, value, place) in [
        ("agent.memory.sil_replay_name", "Ring", "agent.memory.sil_replay_name"),
        ("agent.memory.sil_replay_name", "PrioritizedReplay", "agent.memory.alpha"),
        ("agent.memory.alpha", "0.6", "agent.memory.alpha"),
        ("agent.memory.batch_size", "0", "agent.memory.batch_size"),
        ("agent.memory.max_size", "1000", "agent.memory.max_size"),
        ("agent.algorithm.sil_policy_loss_coef", "-1", "agent.algorithm.sil_policy_loss_coef"),
        ("agent.algorithm.training_iter", "0", "agent.algorithm.training_iter"),
    ] {
        let text = arc(&[(key, value)]).expect_err("refused").to_string();
        assert!(text.contains(place), "{key}={value}: {text}");
    }
    let recurrent = [
        (
            "agent.net",
            r#"{"type": "RecurrentNet", "shared": true, "rnn_hidden_size": 8, "optim_spec": {"name": "Adam"}}"#,
        ),
        ("agent.algorithm.minibatch_size", "256"),
    ];
    let text = arc(&recurrent).expect_err("refused").to_string();
    assert!(text.contains("agent.net.type") && text.contains("PPOSIL"), "{text}");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/sil/sil_cartpole.json");
    let plan = Plan::new(&spec::load(&shipped, None, &[]).expect("a spec").spec).expect("a plan");
    assert!(plan.imitation.is_some_and(|p| p.prioritized) && plan.epochs == 1);
}

/// Small sessions of a shipped spec.
fn small(spec: &str, more: &[(&str, &str)]) -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs").join(spec);
    let set = [
        ("env.num_envs", "3"),
        ("env.max_frame", "700"),
        ("agent.net.hid_layers", "[20]"),
        ("agent.memory.batch_size", "20"),
        ("agent.memory.max_size", "200"),
    ];
    let set: Vec<(String, String)> = set.iter().chain(more).map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Plan::new(&spec::load(&path, None, &set).expect("a spec").spec).expect("a plan")
}

fn finish(mut cohort: Cohort) -> Cohort {
    while !cohort.done() {
        cohort.iterate().expect("the cpu does not fail");
    }
    cohort
}

#[test]
fn a_session_ends_in_the_same_bits_alone_in_a_cohort_and_resumed() {
    let short = [("agent.algorithm.time_horizon", "30"), ("agent.algorithm.minibatch_size", "40")];
    let wrapped = [short[0], short[1], ("env.normalize_obs", "true"), ("env.normalize_reward", "true")];
    let a2c = [("agent.algorithm.training_frequency", "16")];
    for plan in [small("sil/sil_cartpole.json", &a2c), small("ppo_sil/ppo_sil_cartpole.json", &wrapped)] {
        let start = |sessions: &[u32], threads| Cohort::new(&plan, 5, sessions, Device::cpu(threads)).expect("memory");
        let together = finish(start(&[0, 1, 2], 2));
        let alone = finish(start(&[1], 3));
        assert!(alone.model(0).unwrap() == together.model(1).unwrap(), "alone");
        assert!(alone.model(0).unwrap() != together.model(2).unwrap(), "sessions differ");
        let mut stopped = start(&[0, 1, 2], 1);
        for _ in 0..4 {
            stopped.iterate().unwrap();
        }
        let mut resumed = Cohort::new(&plan, 1, &[0, 1, 2], Device::cpu(1)).expect("memory");
        resumed.restore(&stopped.snapshot().unwrap()).unwrap();
        assert!(finish(resumed).snapshot().unwrap() == together.snapshot().unwrap(), "resumed");
    }
    // and imitation moves the parameters
    let without = [short[0], short[1], ("agent.algorithm.sil_policy_loss_coef", "0")];
    let model = |more: &[(&str, &str)]| {
        let plan = small("ppo_sil/ppo_sil_cartpole.json", more);
        finish(Cohort::new(&plan, 5, &[0], Device::cpu(1)).expect("memory")).model(0).unwrap()
    };
    assert!(model(&short) != model(&without));
}
