//! Do recurrent nets remember: the same in training, after a resume, in a model file, in play? And are words hidden?

use serde_json::{Value, json};
use slm_fast::device::Device;
use slm_fast::lab::cohort::{Cohort, Player, Tensor};
use slm_fast::plan::Plan;
use slm_fast::spec::{self, Loaded};

/// A small spec: the environment, the algorithm's keys, and what the net has beside its cell.
fn small(env: &str, algorithm: &Value, net: &Value) -> Value {
    let mut spec = json!({
        "agent": {
            "algorithm": algorithm,
            "memory": { "name": "OnPolicyBatchReplay" },
            "net": {
                "type": "RecurrentNet", "shared": true, "cell_type": "GRU", "fc_hid_layers": [10],
                "hid_layers_activation": "tanh", "rnn_hidden_size": 12,
                "optim_spec": { "name": "Adam", "lr": 0.01 }
            }
        },
        "env": { "name": env, "num_envs": 5, "max_t": 60, "max_frame": 1500 },
        "meta": { "log_frequency": 100 }
    });
    merge(&mut spec["agent"]["net"], net);
    spec
}

fn merge(into: &mut Value, more: &Value) {
    for (key, value) in more.as_object().expect("an object") {
        into[key] = value.clone();
    }
}

fn ppo() -> Value {
    json!({ "name": "PPO", "gamma": 0.95, "lam": 0.9, "time_horizon": 16, "minibatch_size": 32, "training_epoch": 2,
        "clip_eps_spec": { "name": "no_decay", "start_val": 0.2 } })
}

fn a2c() -> Value {
    json!({ "name": "ActorCritic", "gamma": 0.95, "lam": 0.9, "training_frequency": 13 })
}

/// A Q net that learns from sequences out of a memory that goes round.
fn replayed(algorithm: &str, net: &Value) -> Value {
    let keys = json!({ "name": algorithm, "gamma": 0.95, "training_batch_iter": 2, "training_iter": 2,
        "training_frequency": 10, "num_step_returns": 2, "action_policy": "epsilon_greedy", "action_pdtype": "Argmax",
        "explore_var_spec": { "name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "end_step": 1000 } });
    let mut spec = small("CartPole-v1", &keys, &json!({ "seq_len": 5, "burn_in": 3, "update_frequency": 100 }));
    spec["agent"]["memory"] = json!({ "name": "Replay", "batch_size": 6, "max_size": 300 });
    spec["agent"]["net"].as_object_mut().expect("an object").remove("shared");
    merge(&mut spec["agent"]["net"], net);
    spec
}

fn load(spec: Value) -> slm_fast::error::Result<Loaded> {
    spec::from_value(spec, "small", &[])
}

fn plan(spec: Value) -> Plan {
    Plan::new(&load(spec).expect("a spec that loads").spec).expect("a plan")
}

/// Every kind of cell, body and algorithm at least once.
fn plans() -> Vec<Plan> {
    let own = json!({ "shared": false, "cell_type": "LSTM", "init_fn": "orthogonal_", "fc_hid_layers": [] });
    vec![
        plan(small("CartPole-v1", &ppo(), &json!({}))),
        plan(small("Pendulum-v1", &ppo(), &own)),
        plan(small("Acrobot-v1", &a2c(), &json!({ "cell_type": "LSTM" }))),
        plan(small(
            "CartPole-v1",
            &json!({ "name": "Reinforce", "gamma": 0.95, "training_frequency": 20 }),
            &json!({}),
        )),
        plan(replayed("DoubleDQN", &json!({}))),
        plan(replayed(
            "DQN",
            &json!({ "cell_type": "LSTM", "fc_hid_layers": [], "update_type": "polyak", "polyak_coef": 0.1 }),
        )),
        plan(replayed("VanillaDQN", &json!({ "seq_len": 1, "burn_in": 0 }))),
    ]
}

fn finish(cohort: &mut Cohort) {
    while !cohort.done() {
        cohort.iterate().expect("the cpu does not fail");
    }
}

#[test]
fn a_session_ends_in_the_same_bits_in_any_company_and_on_any_number_of_threads() {
    for plan in plans() {
        let mut together = Cohort::new(&plan, 5, &[0, 1, 2], Device::cpu(2)).expect("memory");
        finish(&mut together);
        for threads in [1, 3] {
            let mut alone = Cohort::new(&plan, 5, &[1], Device::cpu(threads)).expect("memory");
            let first = alone.model(0).expect("the cpu does not fail");
            finish(&mut alone);
            let model = alone.model(0).expect("the cpu does not fail");
            assert_eq!(model, together.model(1).expect("the cpu does not fail"));
            assert_ne!(model, together.model(2).expect("the cpu does not fail"));
            for (before, after) in first.iter().zip(&model) {
                assert_ne!(before.words, after.words, "{} learns", before.name);
            }
        }
    }
}

#[test]
fn a_checkpoint_holds_what_is_remembered_and_continues_in_the_same_bits() {
    for plan in plans() {
        let mut unbroken = Cohort::new(&plan, 9, &[0, 1], Device::cpu(1)).expect("memory");
        let mut stopped = Cohort::new(&plan, 9, &[0, 1], Device::cpu(1)).expect("memory");
        (0..4).for_each(|_| assert!(stopped.iterate().is_ok()));
        let saved = stopped.snapshot().expect("the cpu does not fail");
        let state = saved.iter().find(|tensor| tensor.name == "state").expect("the states");
        assert_eq!(state.shape, [2, 5, plan.nets.state_len()]);
        assert!(state.values().iter().any(|x| *x != 0.0) && state.values().iter().all(|x| x.is_finite()));
        let mut resumed = Cohort::new(&plan, 1, &[0, 1], Device::cpu(1)).expect("memory");
        resumed.restore(&saved).expect("the same plan");
        finish(&mut unbroken);
        finish(&mut resumed);
        assert_eq!(unbroken.snapshot().expect("as above"), resumed.snapshot().expect("as above"));
    }
}

/// A tensor of a model by name, as f64.
fn tensor(model: &[Tensor], name: &str, shape: &[usize]) -> Vec<f64> {
    let found = model.iter().find(|tensor| tensor.name == name).unwrap_or_else(|| panic!("no tensor {name}"));
    assert_eq!(found.shape, shape, "{name}");
    found.values().iter().map(|&x| f64::from(x)).collect()
}

/// A linear layer of PyTorch: `weight [out, in]`, `bias [out]`.
fn linear(model: &[Tensor], names: [&str; 2], size: [usize; 2], x: &[f64]) -> Vec<f64> {
    let (weight, bias) = (tensor(model, names[0], &size), tensor(model, names[1], &size[..1]));
    let row = |o: usize| x.iter().zip(&weight[o * size[1]..]).map(|(x, w)| x * w).sum::<f64>() + bias[o];
    (0..size[0]).map(row).collect()
}

/// Plays greedily, and holds every action against a net computed from the model's tensors by the formulas of PyTorch's
/// documentation: right names, right layouts, a state that is carried, and forgotten where an episode ends.
#[test]
fn a_player_remembers_as_the_model_file_says() {
    const H: usize = 12;
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for (cell, gates) in [("GRU", 3), ("LSTM", 4)] {
        let plan = plan(small("CartPole-v1", &ppo(), &json!({ "cell_type": cell, "shared": false })));
        let mut cohort = Cohort::new(&plan, 3, &[0], Device::cpu(1)).expect("memory");
        finish(&mut cohort);
        let model = cohort.model(0).expect("the cpu does not fail");
        let mut player = Player::new(&plan, &model, 4, true).expect("its own model");
        let (mut h, mut c, mut ends, mut both) = (vec![0.0; H], vec![0.0; H], 0, [0, 0]);
        for step in 0..400 {
            let x: Vec<f64> = player.state().iter().map(|&x| f64::from(x)).collect();
            let x = linear(&model, ["actor.fc.0.weight", "actor.fc.0.bias"], [10, 4], &x);
            let x: Vec<f64> = x.iter().map(|x| x.tanh()).collect();
            let rows = gates * H;
            let from_x = linear(&model, ["actor.rnn.weight_ih_l0", "actor.rnn.bias_ih_l0"], [rows, 10], &x);
            let from_h = linear(&model, ["actor.rnn.weight_hh_l0", "actor.rnn.bias_hh_l0"], [rows, H], &h);
            for j in 0..H {
                let both = |gate: usize| from_x[gate * H + j] + from_h[gate * H + j];
                if cell == "GRU" {
                    let (r, z) = (sigmoid(both(0)), sigmoid(both(1)));
                    let n = (from_x[2 * H + j] + r * from_h[2 * H + j]).tanh();
                    h[j] = (1.0 - z) * n + z * h[j];
                } else {
                    let (i, f, g, o) = (sigmoid(both(0)), sigmoid(both(1)), both(2).tanh(), sigmoid(both(3)));
                    c[j] = f * c[j] + i * g;
                    h[j] = o * c[j].tanh();
                }
            }
            let logits = linear(&model, ["actor.head.weight", "actor.head.bias"], [2, H], &h);
            let taken = player.step();
            let best = usize::from(logits[1] > logits[0]);
            let near = (logits[1] - logits[0]).abs() < 1e-5;
            assert!(taken.action[0] == best as f32 || near, "{cell}, step {step}: {logits:?}");
            both[taken.action[0] as usize] += 1;
            if taken.terminated || taken.truncated {
                (h, c) = (vec![0.0; H], vec![0.0; H]);
                ends += 1;
            }
        }
        assert!(ends > 3 && both[0] > 20 && both[1] > 20, "{ends} episodes, actions {both:?}");
    }
}

#[test]
fn hidden_words_reach_no_net() {
    let mut spec = small("CartPole-v1", &a2c(), &json!({ "type": "MLPNet", "hid_layers": [9], "shared": false }));
    for key in ["cell_type", "fc_hid_layers", "rnn_hidden_size"] {
        spec["agent"]["net"].as_object_mut().expect("an object").remove(key);
    }
    spec["env"]["hide_obs"] = json!([1, 3]);
    let mut recurrent = small("CartPole-v1", &ppo(), &json!({}));
    recurrent["env"]["hide_obs"] = json!([3, 1]);
    for (spec, layer, rows) in [(spec, "actor.0.weight", 9), (recurrent, "net.fc.0.weight", 10)] {
        let plan = plan(spec);
        let mut cohort = Cohort::new(&plan, 2, &[0], Device::cpu(1)).expect("memory");
        let before = tensor(&cohort.model(0).expect("the cpu does not fail"), layer, &[rows, 4]);
        finish(&mut cohort);
        let model = cohort.model(0).expect("the cpu does not fail");
        let after = tensor(&model, layer, &[rows, 4]);
        // a weight on a word that is always 0 has no gradient
        for (i, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(before == after, [1, 3].contains(&(i % 4)), "{layer}[{i}]: {before} -> {after}");
        }
        assert!(model.iter().all(|tensor| tensor.name != "normalizer"), "the spec says what is hidden");
        assert!(Player::new(&plan, &model, 1, false).is_ok());
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    let change = |place: &str, value: Value| {
        let mut spec = small("CartPole-v1", &ppo(), &json!({}));
        *spec.pointer_mut(place.rsplit_once('/').expect("a place").0).expect("a section") = {
            let (section, key) = place.rsplit_once('/').expect("a place");
            let mut section = spec.pointer(section).expect("a section").clone();
            section[key] = value;
            section
        };
        spec
    };
    for (place, value, what) in [
        ("/agent/algorithm/minibatch_size", json!(40), "40 rows are no whole sequences of the horizon, 16 steps"),
        ("/agent/net/cell_type", json!("RNN"), "agent.net.cell_type: cells without gates are not built"),
        ("/agent/net/rnn_num_layers", json!(2), "agent.net.rnn_num_layers"),
        ("/agent/net/bidirectional", json!(true), "agent.net.bidirectional"),
        ("/agent/net/actor_hid_layers", json!([3]), "agent.net.actor_hid_layers"),
        ("/agent/net/rnn_hidden_size", json!(60_000), "at most 21845 fit a GRU"),
        ("/env/hide_obs", json!([1, 4]), "env.hide_obs[1]: there is no word 4: CartPole-v1 has 4 words"),
    ] {
        let loaded = load(change(place, value)).expect("a spec that loads");
        let error = Plan::new(&loaded.spec).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    }
    let mut both = change("/env/hide_obs", json!([1]));
    both["env"]["normalize_obs"] = json!(true);
    let error = Plan::new(&load(both).expect("a spec that loads").spec).expect_err("both").to_string();
    assert!(error.contains("env.hide_obs"), "{error}");
    assert!(load(change("/agent/net/cell_type", json!("Lstm"))).is_err(), "an unknown cell");
    let mut without = change("/agent/net/cell_type", json!("LSTM"));
    without["agent"]["net"].as_object_mut().expect("an object").remove("rnn_hidden_size");
    assert_eq!(load(without).expect_err("no units").place, "agent.net.rnn_hidden_size");
    let mut half = small("CartPole-v1", &ppo(), &json!({}));
    half["meta"]["precision"] = json!("bf16");
    let error = Plan::new(&load(half).expect("a spec that loads").spec).expect_err("bf16").to_string();
    assert!(error.contains("meta.precision: bf16 is not built yet for RecurrentNet"), "{error}");
    for key in ["seq_len", "burn_in"] {
        let warnings = load(change(&format!("/agent/net/{key}"), json!(4))).expect("ignored").warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with(&format!("agent.net.{key}: ignored")), "{warnings:?}");
    }
}

#[test]
fn a_memory_without_room_for_a_sequence_is_refused_with_its_place() {
    let change = |place: &str, value: Value| {
        let mut spec = replayed("DQN", &json!({}));
        let (section, key) = place.rsplit_once('/').expect("a place");
        spec.pointer_mut(section).expect("a section")[key] = value;
        spec
    };
    let priorities =
        json!({ "name": "PrioritizedReplay", "batch_size": 6, "max_size": 300, "alpha": 0.6, "epsilon": 0.01 });
    for (place, value, what) in [
        ("/agent/net/seq_len", Value::Null, "agent.net.seq_len: missing key"),
        ("/agent/net/burn_in", json!(60), "agent.memory.max_size: 300 rows are 60 vector steps, and a sequence has 66"),
        ("/agent/net/burn_in", json!(usize::MAX), "agent.memory.batch_size"),
        ("/agent/memory/max_size", json!(40), "agent.memory.max_size: 40 rows are 8 vector steps"),
        ("/agent/algorithm/training_start_step", json!(44), "44 frames are 8 vector steps, and a sequence has 9"),
        ("/agent/memory/use_cer", json!(true), "agent.memory.use_cer"),
        ("/agent/memory", priorities, "agent.memory.name: priorities of sequences are not built yet"),
    ] {
        let loaded = load(change(place, value)).expect("a spec that loads");
        let error = Plan::new(&loaded.spec).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    }
    let mut without = replayed("DQN", &json!({ "type": "MLPNet", "hid_layers": [9] }));
    for key in ["cell_type", "fc_hid_layers", "rnn_hidden_size", "seq_len"] {
        without["agent"]["net"].as_object_mut().expect("an object").remove(key);
    }
    let warnings = load(without).expect("ignored").warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("agent.net.burn_in: ignored"), "{warnings:?}");
    assert_eq!(load(change("/agent/net/seq_len", json!(0))).expect_err("no step").place, "agent.net.seq_len");
    let plan = plan(replayed("DQN", &json!({})));
    assert_eq!(plan.warmup(), 9, "a whole sequence, where the spec does not say");
    let text = plan.to_string();
    assert!(text.contains("2 batches of 6 sequences of 5 steps behind 3 others"), "{text}");
}
