//! Cohorts: the same bits alone, in company and resumed; faults; players.

use super::*;
use crate::op::lib::trig;

fn spec(json: &str) -> crate::spec::Spec {
    serde_json::from_str(json).unwrap()
}

fn small(algorithm: &str, env: &str, more_env: &str) -> Plan {
    with_memory(algorithm, r#"{"name": "OnPolicyBatchReplay"}"#, "MLPNet", env, more_env)
}

fn with_memory(algorithm: &str, memory: &str, net: &str, env: &str, more_env: &str) -> Plan {
    let text = format!(
        r#"{{"name": "small", "agent": {{"algorithm": {algorithm}, "memory": {memory},
        "net": {{"type": "{net}", "update_frequency": 30, "polyak_coef": 0.1, "hid_layers": [20], "hid_layers_activation": "tanh", "actor_init_std": 0.01,
        "init_fn": "orthogonal_", "optim_spec": {{"name": "Adam", "lr": 0.002}}}}}},
        "env": {{"name": "{env}", "num_envs": 3, "max_frame": 500{more_env}}}, "meta": {{"log_frequency": 50}}}}"#
    );
    Plan::new(&spec(&text)).unwrap()
}

const PPO: &str = r#"{"name": "PPO", "gamma": 0.9, "lam": 0.9, "time_horizon": 30, "minibatch_size": 40, "training_epoch": 2,
    "normalize_v_targets": true, "clip_eps_spec": {"name": "no_decay", "start_val": 0.2}}"#;
const A2C: &str = r#"{"name": "ActorCritic", "gamma": 0.9, "lam": 0.9, "training_frequency": 16}"#;
const DQN: &str = r#"{"name": "DoubleDQN", "gamma": 0.9, "training_batch_iter": 2, "training_iter": 3, "training_frequency": 1,
    "training_start_step": 40, "num_step_returns": 3, "action_policy": "boltzmann",
    "explore_var_spec": {"name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "end_step": 300}}"#;
const SARSA: &str = r#"{"name": "SARSA", "gamma": 0.9, "training_frequency": 16, "action_policy": "epsilon_greedy",
    "action_pdtype": "Argmax", "explore_var_spec": {"name": "no_decay", "start_val": 0.2}}"#;
const SAC: &str = r#"{"name": "SoftActorCritic", "gamma": 0.9, "training_frequency": 1, "training_iter": 2, "policy_delay": 2,
    "training_start_step": 60}"#;
const GUMBEL: &str = r#"{"name": "SoftActorCritic", "action_pdtype": "GumbelSoftmax", "gamma": 0.9, "training_frequency": 2,
    "policy_delay": 2, "training_start_step": 60}"#;
const REPLAY: &str = r#"{"name": "Replay", "batch_size": 20, "max_size": 200, "use_cer": true}"#;
const PRIORITIES: &str = r#"{"name": "PrioritizedReplay", "batch_size": 20, "max_size": 200, "alpha": 0.6,
    "epsilon": 0.01, "beta_spec": {"name": "no_decay", "start_val": 0.5}}"#;
const REINFORCE: &str = r#"{"name": "Reinforce", "gamma": 0.9, "training_frequency": 40}"#;

fn finish(cohort: &mut Cohort) -> Vec<Vec<Row>> {
    let mut rows = vec![Vec::new(); cohort.rows.len()];
    while !cohort.done() {
        cohort.iterate().unwrap();
        (0..rows.len()).for_each(|s| rows[s].extend_from_slice(cohort.rows(s)));
    }
    rows
}

fn bits(rows: &[Row]) -> Vec<[u64; COLUMNS.len()]> {
    rows.iter().map(|row| row.map(f64::to_bits)).collect()
}

#[test]
fn every_session_ends_in_the_same_bits_alone_in_a_cohort_and_on_any_number_of_threads() {
    let wrapped = r#", "normalize_obs": true, "normalize_reward": true"#;
    for plan in [
        small(PPO, "CartPole-v1", ""),
        small(PPO, "Pendulum-v1", wrapped),
        small(A2C, "Acrobot-v1", ""),
        small(REINFORCE, "MountainCar-v0", wrapped),
        small(SARSA, "Acrobot-v1", ""),
        with_memory(DQN, REPLAY, "MLPNet", "MountainCar-v0", ""),
        with_memory(DQN, PRIORITIES, "DuelingMLPNet", "CartPole-v1", ""),
        with_memory(SAC, REPLAY, "MLPNet", "Pendulum-v1", ""),
        with_memory(SAC, PRIORITIES, "MLPNet", "CartPole-v1", ""),
        with_memory(GUMBEL, REPLAY, "MLPNet", "Acrobot-v1", ""),
    ] {
        let mut together = Cohort::new(&plan, 5, &[0, 1, 2], Device::cpu(2)).unwrap();
        let rows = finish(&mut together);
        assert_eq!(together.frame(), 501, "500 frames of 3 environments end on a whole vector step");
        assert_eq!(rows[1].iter().map(|row| row[0]).collect::<Vec<_>>().last(), Some(&501.0));
        assert!(rows[1].len() >= 10 && rows[1].len() <= 12, "{}", rows[1].len());
        for threads in [1, 3] {
            let mut alone = Cohort::new(&plan, 5, &[1], Device::cpu(threads)).unwrap();
            assert_eq!(bits(&finish(&mut alone)[0]), bits(&rows[1]));
            assert_eq!(alone.model(0).unwrap(), together.model(1).unwrap());
            assert_ne!(alone.model(0).unwrap(), together.model(2).unwrap());
        }
        assert_eq!(together.memory.overrun(), None);
    }
}

/// What a row tells as the loss is what was minimised: the critics' losses and the actor's, which holds its entropy.
#[test]
fn the_entropy_counts_once_in_the_loss_of_soft_actor_critic() {
    for algorithm in [SAC, GUMBEL] {
        let fixed = algorithm.replace(r#""gamma""#, r#""fixed_alpha": 0.5, "gamma""#);
        let plan = with_memory(&fixed, REPLAY, "MLPNet", "CartPole-v1", "");
        let rows = finish(&mut Cohort::new(&plan, 5, &[0], Device::cpu(1)).unwrap()).remove(0);
        let at = |name: &str| COLUMNS.iter().position(|column| *column == name).expect("a column");
        let learned: Vec<&Row> = rows.iter().filter(|row| row[at("loss")].is_finite()).collect();
        assert!(learned.len() > 5, "{} of {} rows", learned.len(), rows.len());
        for row in learned {
            let (loss, sum) = (row[at("loss")], row[at("policy_loss")] + row[at("value_loss")]);
            assert!(row[at("entropy")] > 0.3 && row[at("entropy_coef")] == 0.5, "{row:?}");
            assert!((loss - sum).abs() < 1e-5 * (1.0 + sum.abs()), "{loss} for {sum}");
        }
    }
}

/// A row's entropy coefficient is the learnt weight that the row's iteration began with.
#[test]
fn the_learnt_weight_of_the_entropy_is_in_the_rows() {
    let plan = with_memory(SAC, REPLAY, "MLPNet", "Pendulum-v1", "");
    let mut cohort = Cohort::new(&plan, 5, &[0, 1], Device::cpu(1)).unwrap();
    let at = COLUMNS.iter().position(|column| *column == "entropy_coef").expect("a column");
    let mut seen = Vec::new();
    while !cohort.done() {
        let weights = [0, 1].map(|s| {
            let model = cohort.model(s).unwrap();
            trig::exp(model.iter().find(|tensor| tensor.name == "log_alpha").expect("a weight").values()[0])
        });
        cohort.iterate().unwrap();
        for (s, weight) in weights.into_iter().enumerate() {
            assert!(cohort.rows(s).iter().all(|row| row[at] == f64::from(weight)), "session {s}: {weight}");
            seen.extend(cohort.rows(s).iter().map(|row| (s, row[at].to_bits())));
        }
    }
    seen.dedup();
    assert!(seen.len() > 10, "{} weights in the rows of two sessions", seen.len());
}

#[test]
fn a_snapshot_continues_in_the_same_bits() {
    for (plan, iterations) in [
        (with_memory(SAC, REPLAY, "MLPNet", "Pendulum-v1", ""), 1),
        (with_memory(GUMBEL, PRIORITIES, "MLPNet", "CartPole-v1", ""), 1),
        (with_memory(DQN, PRIORITIES, "DuelingMLPNet", "CartPole-v1", ""), 4),
        (small(SARSA, "Acrobot-v1", ""), 5),
        (small(PPO, "Pendulum-v1", r#", "normalize_obs": true, "normalize_reward": true"#), 3),
    ] {
        let mut unbroken = Cohort::new(&plan, 9, &[0, 1], Device::cpu(1)).unwrap();
        let mut stopped = Cohort::new(&plan, 9, &[0, 1], Device::cpu(1)).unwrap();
        for _ in 0..iterations {
            stopped.iterate().unwrap();
        }
        let saved = stopped.snapshot().unwrap();
        let mut resumed = Cohort::new(&plan, 1, &[0, 1], Device::cpu(1)).unwrap();
        resumed.restore(&saved).unwrap();
        assert_eq!(resumed.frame(), stopped.frame());
        finish(&mut unbroken);
        finish(&mut resumed);
        assert_eq!(unbroken.snapshot().unwrap(), resumed.snapshot().unwrap());
    }

    let plan = small(PPO, "Pendulum-v1", r#", "normalize_obs": true, "normalize_reward": true"#);
    let saved = Cohort::new(&plan, 9, &[0, 1], Device::cpu(1)).unwrap().snapshot().unwrap();
    let mut resumed = Cohort::new(&plan, 1, &[0, 1], Device::cpu(1)).unwrap();
    let mut short = saved.clone();
    short.retain(|t| t.name != "slots");
    assert_eq!(resumed.restore(&short).unwrap_err().place, "slots");
    let other = small(PPO, "CartPole-v1", "");
    let error = Cohort::new(&other, 1, &[0, 1], Device::cpu(1)).unwrap().restore(&saved).unwrap_err().to_string();
    assert!(error.contains("this spec needs"), "{error}");
}

#[test]
fn a_memory_that_no_checkpoint_holds_is_filled_before_learning_goes_on() {
    let memory = r#"{"name": "PrioritizedReplay", "batch_size": 20, "max_size": 200, "alpha": 0.6, "epsilon": 0.01, "in_checkpoint": false}"#;
    let plan = with_memory(DQN, memory, "MLPNet", "CartPole-v1", "");
    let mut stopped = Cohort::new(&plan, 9, &[0, 1], Device::cpu(1)).unwrap();
    for _ in 0..4 {
        stopped.iterate().unwrap();
    }
    let saved = stopped.snapshot().unwrap();
    for lost in ["obs", "next_obs", "action", "reward", "ended", "priority_tree", "priority_top"] {
        assert!(saved.iter().all(|tensor| tensor.name != lost), "{lost} is in the checkpoint");
    }
    let resume = || {
        let mut resumed = Cohort::new(&plan, 1, &[0, 1], Device::cpu(1)).unwrap();
        resumed.restore(&saved).unwrap();
        resumed
    };
    let mut resumed = resume();
    // `training_start_step` is 39 frames of whole vector steps, less than one iteration of 48
    assert_eq!((resumed.frame(), resumed.refill_frames()), (stopped.frame(), 48));
    resumed.iterate().unwrap();
    assert_eq!(resumed.model(1).unwrap(), stopped.model(1).unwrap(), "nothing is learnt while the memory is filled");
    resumed.iterate().unwrap();
    assert_ne!(resumed.model(1).unwrap(), stopped.model(1).unwrap());
    let rows = |cohort: &Cohort| cohort.memory.read(cohort.program.buffers.replay.index, 1).to_vec();
    let begin = stopped.frame() as u32;
    let new = |row: &u32| (0..96).any(|back| (begin + back) % 201 == *row);
    assert!(rows(&resumed).iter().all(new), "{:?} are not all from behind frame {begin}", rows(&resumed));
    finish(&mut resumed);
    assert_eq!((resumed.frame(), resumed.memory.overrun()), (501, None));
    let mut again = resume();
    finish(&mut again);
    assert_eq!(again.snapshot().unwrap(), resumed.snapshot().unwrap());

    // trials of a search are put aside and must not notice
    let kept = Cohort::new(&plan.with_memory_in_checkpoint(), 9, &[0], Device::cpu(1)).unwrap();
    assert!(kept.snapshot().unwrap().iter().any(|tensor| tensor.name == "obs") && kept.refill_frames() == 0);
}

#[test]
fn a_fault_stops_one_session_and_no_other() {
    let plan = small(PPO, "CartPole-v1", "");
    let mut clean = Cohort::new(&plan, 5, &[0, 1, 2], Device::cpu(1)).unwrap();
    let mut broken = Cohort::new(&plan, 5, &[0, 1, 2], Device::cpu(1)).unwrap();
    broken.iterate().unwrap();
    let params = broken.program.buffers.params;
    broken.memory.write(params, 1)[3] = f32::NAN;
    finish(&mut clean);
    finish(&mut broken);
    let fault = broken.fault(1).expect("session 1 met a NaN");
    assert_eq!((fault.op, fault.frame), ("minibatch_grad", 180));
    assert_eq!((broken.fault(0), broken.fault(2)), (None, None));
    assert_eq!(broken.model(2).unwrap(), clean.model(2).unwrap());
    assert_eq!(broken.frame(), clean.frame());
}

#[test]
fn a_fault_between_log_points_stops_a_session_at_the_next_one() {
    let mut plan = small(PPO, "CartPole-v1", "");
    plan.log_frequency = 400;
    let breaks = || {
        let mut cohort = Cohort::new(&plan, 5, &[0, 1, 2], Device::cpu(1)).unwrap();
        assert!(!cohort.iterate().unwrap());
        let params = cohort.program.buffers.params;
        cohort.memory.write(params, 1)[3] = f32::NAN;
        (0..2).for_each(|_| assert!(!cohort.iterate().unwrap(), "frames to 270 have no row"));
        assert_eq!(cohort.fault(1), None);
        cohort
    };
    let (mut unbroken, stopped) = (breaks(), breaks());
    let mut resumed = Cohort::new(&plan, 5, &[0, 1, 2], Device::cpu(1)).unwrap();
    resumed.restore(&stopped.snapshot().unwrap()).unwrap();
    for cohort in [&mut unbroken, &mut resumed] {
        let rows = finish(cohort);
        assert_eq!(cohort.fault(1).map(|fault| (fault.op, fault.frame)), Some(("minibatch_grad", 180)));
        assert_eq!(rows[1].len(), 0, "its first row would be from after the fault");
        assert_eq!(rows[2].iter().map(|row| row[0]).collect::<Vec<_>>(), [402.0, 501.0]);
    }
    assert_eq!(unbroken.snapshot().unwrap(), resumed.snapshot().unwrap());
    // a session that has left does not come back
    let mut again = Cohort::new(&plan, 5, &[0, 1, 2], Device::cpu(1)).unwrap();
    again.restore(&unbroken.snapshot().unwrap()).unwrap();
    assert_eq!((again.fault(1), again.fault(2)), (unbroken.fault(1), None));
}

#[test]
fn a_player_repeats_itself_and_ends_episodes() {
    let plan = small(PPO, "CartPole-v1", "");
    let cohort = Cohort::new(&plan, 5, &[0], Device::cpu(1)).unwrap();
    let play = |seed, deterministic| {
        let mut player = Player::new(&plan, &cohort.model(0).unwrap(), seed, deterministic).unwrap();
        (0..200).map(|_| player.step()).collect::<Vec<_>>()
    };
    let steps = play(3, false);
    assert_eq!(steps, play(3, false));
    assert_ne!(steps, play(4, false));
    let end = steps.iter().position(|s| s.terminated).expect("an untrained policy falls within 200 steps");
    assert!(steps[end].state[0].abs() > 2.4 || steps[end].state[2].abs() > 0.209);
    assert!(steps[end + 1].state[2].abs() < 0.1, "a new episode begins upright");
    assert_eq!(Player::new(&plan, &[], 0, true).err().unwrap().place, "model");
}
