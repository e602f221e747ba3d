//! Does it learn, on the cpu, in seconds? Every algorithm at a fixed seed, on a part of the budget in `specs/`.

use slm_fast::device::Device;
use slm_fast::lab::cohort::{COLUMNS, Cohort};
use slm_fast::plan::Plan;
use std::path::Path;

/// `total_reward`, the mean of the last 100 episodes, in the first row that has it and in the last row; means over
/// two sessions.
fn learn(spec: &str, max_frame: u64) -> (f64, f64) {
    learn_with(spec, max_frame, &[])
}

/// The same with other values in the spec.
fn learn_with(spec: &str, max_frame: u64, more: &[(&str, &str)]) -> (f64, f64) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs").join(spec);
    let max_frame = max_frame.to_string();
    let set = [("env.max_frame", max_frame.as_str()), ("meta.log_frequency", "1000")];
    let set: Vec<(String, String)> = set.iter().chain(more).map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let plan = Plan::new(&slm_fast::spec::load(&path, None, &set).expect("a spec that loads").spec).expect("a plan");
    let column = COLUMNS.iter().position(|name| *name == "total_reward").expect("a column");
    let mut cohort = Cohort::new(&plan, 1, &[0, 1], Device::cpu(0)).expect("memory");
    let mut seen = [const { Vec::new() }; 2];
    while !cohort.done() {
        cohort.iterate().expect("the cpu does not fail");
        for (s, seen) in seen.iter_mut().enumerate() {
            assert_eq!(cohort.fault(s), None);
            seen.extend(cohort.rows(s).iter().map(|row| row[column]).filter(|reward| !reward.is_nan()));
        }
    }
    let mean =
        |of: fn(&[f64]) -> Option<&f64>| seen.iter().map(|x| of(x).expect("an episode ended")).sum::<f64>() / 2.0;
    let (first, last) = (mean(<[f64]>::first), mean(<[f64]>::last));
    println!("{}: {first:.1} -> {last:.1}", path.display());
    (first, last)
}

#[test]
fn ppo_balances_the_pole() {
    let (first, last) = learn("ppo/ppo_cartpole.json", 60_000);
    assert!(first < 60.0 && last > 300.0, "{first} -> {last}");
}

#[test]
fn ppo_that_imitates_itself_balances_the_pole() {
    let (first, last) = learn("ppo_sil/ppo_sil_cartpole.json", 60_000);
    assert!(first < 60.0 && last > 200.0, "{first} -> {last}");
}

#[test]
fn a2c_improves() {
    let (first, last) = learn("a2c/a2c_cartpole.json", 60_000);
    assert!(first < 60.0 && last > 120.0, "{first} -> {last}");
}

#[test]
fn reinforce_improves() {
    let (first, last) = learn("reinforce/reinforce_cartpole.json", 100_000);
    assert!(first < 60.0 && last > 100.0, "{first} -> {last}");
}

#[test]
fn recurrent_nets_remember_what_they_do_not_see() {
    let (_, without) = learn("ppo/ppo_cartpole_masked.json", 60_000);
    let (first, last) = learn("ppo/ppo_gru_cartpole_masked.json", 60_000);
    assert!(first < 60.0 && last > 130.0 && last > 2.0 * without, "{first} -> {last}, without a memory {without}");
    let (first, last) = learn("ppo/ppo_lstm_cartpole_masked.json", 60_000);
    assert!(first < 60.0 && last > 130.0 && last > 2.0 * without, "{first} -> {last}, without a memory {without}");
}

#[test]
fn a_recurrent_q_net_remembers_what_it_does_not_see() {
    let small = [
        ("agent.net.fc_hid_layers", "[16]"),
        ("agent.net.rnn_hidden_size", "32"),
        ("agent.net.seq_len", "10"),
        ("agent.net.burn_in", "4"),
        ("agent.net.optim_spec.lr", "0.002"),
        ("agent.memory.batch_size", "16"),
        ("agent.algorithm.explore_var_spec.end_step", "10000"),
    ];
    // an MLP of the same budget stays at 45
    let (first, last) = learn_with("dqn/dqn_gru_cartpole_masked.json", 30_000, &small);
    assert!(first < 60.0 && last > 90.0, "{first} -> {last}");
}

#[test]
fn ppo_swings_the_pendulum_up() {
    let (first, last) = learn("ppo/ppo_pendulum.json", 100_000);
    assert!(first < -900.0 && last > first + 300.0, "{first} -> {last}");
}

/// The nets of the specs would take minutes: a step on small ones is a fiftieth of the work.
const SMALL: [(&str, &str); 3] =
    [("agent.net.hid_layers", "[64, 64]"), ("agent.memory.batch_size", "64"), ("agent.net.optim_spec.lr", "0.001")];

#[test]
fn sac_swings_the_pendulum_up() {
    let (first, last) = learn_with("sac/sac_pendulum.json", 20_000, &SMALL);
    assert!(first < -900.0 && last > -600.0, "{first} -> {last}");
}

#[test]
fn sac_with_discrete_actions_balances_the_pole() {
    let (first, last) = learn_with("sac/sac_cartpole.json", 20_000, &SMALL);
    assert!(first < 60.0 && last > 100.0, "{first} -> {last}");
}

#[test]
fn sac_with_a_gumbel_softmax_balances_the_pole() {
    let (first, last) = learn_with("sac/sac_gumbel_cartpole.json", 20_000, &SMALL);
    assert!(first < 60.0 && last > 100.0, "{first} -> {last}");
}
