//! What the tests of every gpu share: parity of an op through the device, and trainings that must end in certain bits.

use super::ops::{Buffers, POISON, distance, inputs, queue};
use super::small_spec;
use slm_fast::device::{Device, Layout};
use slm_fast::lab::cohort::{COLUMNS, Cohort, Row, Tensor};
use slm_fast::op::{Arg, Entry, Role};
use slm_fast::plan::Plan;

/// Sessions of a cohort.
const SESSIONS: usize = 3;
/// Replays a case several times, each time with new inputs and other sessions: launch by launch, then as a graph.
pub fn check(entry: &Entry, case: usize, device: &Device) {
    let (args, tolerance) = ((entry.args)(case), (entry.tolerance)(case));
    let mut layout = Layout::on(device.kind(), SESSIONS);
    let queue = queue(entry, case, &mut layout);
    let mut memory = layout.allocate_on(device).expect("device memory");
    for (round, sessions) in [&[0, 1, 2][..], &[0, 1, 2], &[2, 0], &[1]].into_iter().enumerate() {
        let place =
            |s: usize, arg: &Arg| format!("{} case {case}, replay {round}, session {s}, `{}`", entry.name, arg.name);
        let given: Vec<Buffers> = (0..SESSIONS).map(|s| inputs(entry, case, &args, 10 * round + s)).collect();
        for (s, buffers) in given.iter().enumerate() {
            for (id, words) in buffers.iter().enumerate() {
                memory.words_mut(id, s).copy_from_slice(words);
            }
        }
        queue.replay(device, &mut memory, sessions).expect("a replay");
        for (s, given) in given.iter().enumerate() {
            let mut expected = given.clone();
            if sessions.contains(&s) {
                (entry.define)(case, &mut expected);
            }
            for (id, arg) in args.iter().enumerate() {
                let got = memory.words(id, s);
                let fixed = arg.role == Role::Read || !sessions.contains(&s);
                for (i, (&x, &y)) in got.iter().zip(&expected[id]).enumerate() {
                    let limit = if fixed { 0.0 } else { tolerance };
                    assert!(distance(arg.dtype, x, y) <= limit, "{}[{i}]: {x:#x}, expected {y:#x}", place(s, arg));
                    assert!(fixed || arg.role == Role::Update || x != POISON, "{}[{i}] is not written", place(s, arg));
                }
            }
        }
    }
    assert_eq!(memory.overrun(), None, "{} case {case} writes past the end of a buffer", entry.name);
}

/// A number format that the device does not have is refused before anything runs.
pub fn refuses_bf16(plan: &Plan, open: impl Fn() -> Device) {
    let error = Cohort::new(plan, 1, &[0], open()).err().expect("products in f32 alone");
    assert_eq!(error.place, "meta.precision", "{error}");
    assert!(error.hint.contains("--device cpu"), "{error}");
}

/// CartPole with nets of 16 x 16.
pub fn plan(max_frame: u64, set: &[(&str, &str)]) -> Plan {
    plan_of(&small_spec(max_frame, 3, Some(11)), set)
}

/// Double Q-learning on CartPole, with priorities, a dueling net and a ring that goes round.
pub fn q_plan(max_frame: u64, set: &[(&str, &str)]) -> Plan {
    let mut spec = small_spec(max_frame, 3, Some(11));
    spec["small"]["agent"] = serde_json::json!({
        "name": "DoubleDQN",
        "algorithm": {
            "name": "DoubleDQN",
            "action_pdtype": "Argmax",
            "action_policy": "epsilon_greedy",
            "explore_var_spec":
                { "name": "linear_decay", "start_val": 1.0, "end_val": 0.1, "start_step": 0, "end_step": max_frame / 2 },
            "gamma": 0.98,
            "training_batch_iter": 1,
            "training_iter": 2,
            "training_frequency": 8,
            "training_start_step": 64,
        },
        "memory": {
            "name": "PrioritizedReplay", "alpha": 0.6, "epsilon": 1e-4, "batch_size": 20, "max_size": 400, "use_cer": true,
        },
        "net": {
            "type": "DuelingMLPNet",
            "hid_layers": [24],
            "hid_layers_activation": "selu",
            "clip_grad_val": 0.5,
            "loss_spec": { "name": "SmoothL1Loss" },
            "optim_spec": { "name": "Adam", "lr": 0.003 },
            "update_type": "replace",
            "update_frequency": 40,
        },
    });
    spec["small"]["env"]["normalize_obs"] = false.into();
    plan_of(&spec, set)
}

/// Soft Actor-Critic or CrossQ, of real actions or of discrete ones.
pub fn soft_plan(max_frame: u64, algorithm: &str, env: &str) -> Plan {
    soft_plan_with(max_frame, algorithm, env, &[])
}

/// Soft Actor-Critic that samples its discrete actions by Gumbel-softmax.
pub fn gumbel_plan(max_frame: u64) -> Plan {
    soft_plan_with(max_frame, "SoftActorCritic", "CartPole-v1", &[("agent.algorithm.action_pdtype", "GumbelSoftmax")])
}

fn soft_plan_with(max_frame: u64, algorithm: &str, env: &str, set: &[(&str, &str)]) -> Plan {
    let mut spec = small_spec(max_frame, 3, Some(11));
    spec["small"]["agent"] = serde_json::json!({
        "name": algorithm,
        "algorithm": {
            "name": algorithm,
            "gamma": 0.98,
            "training_frequency": 16,
            "training_iter": 2,
            "training_start_step": 64,
            "policy_delay": 2,
        },
        "memory": { "name": "Replay", "batch_size": 33, "max_size": 400 },
        "net": {
            "type": "MLPNet",
            "hid_layers": [24, 20],
            "hid_layers_activation": "relu",
            "clip_grad_val": 0.5,
            "optim_spec": { "name": "Adam", "lr": 0.003 },
            "update_type": "polyak",
            "polyak_coef": 0.05,
            "update_frequency": 1,
        },
    });
    if algorithm == "CrossQ" {
        let net = &mut spec["small"]["agent"]["net"];
        for key in ["update_type", "polyak_coef", "update_frequency"] {
            net.as_object_mut().expect("an object").remove(key);
        }
        let mut critic = net.clone();
        critic["batch_renorm"] = serde_json::json!({ "momentum": 0.01, "eps": 0.001, "warmup_steps": 20 });
        spec["small"]["agent"]["critic_net"] = critic;
    }
    spec["small"]["env"]["name"] = env.into();
    spec["small"]["env"]["normalize_obs"] = false.into();
    plan_of(&spec, set)
}

/// PPO that imitates itself, from a memory of these keys.
pub fn imitating_plan(max_frame: u64, memory: &serde_json::Value) -> Plan {
    let mut spec = small_spec(max_frame, 3, Some(11));
    let agent = &mut spec["small"]["agent"];
    agent["memory"] = serde_json::json!({ "name": "OnPolicyBatchReplay", "batch_size": 33, "max_size": 400 });
    for (section, more) in [
        ("memory", memory),
        (
            "algorithm",
            &serde_json::json!({
                "name": "PPOSIL",
                "sil_policy_loss_coef": 0.8,
                "sil_val_loss_coef": 0.1,
                "training_iter": 2,
                "training_batch_iter": 2,
            }),
        ),
    ] {
        for (key, value) in more.as_object().expect("an object") {
            agent[section][key] = value.clone();
        }
    }
    plan_of(&spec, &[])
}

/// Memories that it may imitate itself from.
pub fn imitated() -> [serde_json::Value; 2] {
    [
        serde_json::json!({ "sil_replay_name": "Replay", "use_cer": true }),
        serde_json::json!({ "sil_replay_name": "PrioritizedReplay", "alpha": 0.6, "epsilon": 1e-3 }),
    ]
}

/// An agent with a GRU that both heads share, or with two LSTMs; an MLP in front of the one, the observation before the
/// other.
pub fn recurrent_plan(max_frame: u64, algorithm: &str, env: &str, shared: bool) -> Plan {
    let mut spec = small_spec(max_frame, 3, Some(11));
    let cell = if shared { "GRU" } else { "LSTM" };
    let layers: &[usize] = if shared { &[9] } else { &[] };
    let net = &mut spec["small"]["agent"]["net"];
    net.as_object_mut().expect("an object").remove("hid_layers");
    for (key, value) in [
        ("type", serde_json::json!("RecurrentNet")),
        ("shared", shared.into()),
        ("cell_type", cell.into()),
        ("fc_hid_layers", layers.into()),
        ("rnn_hidden_size", 10.into()),
    ] {
        net[key] = value;
    }
    if shared {
        let net = net.as_object_mut().expect("an object");
        let optim = net.remove("actor_optim_spec").expect("as `small_spec` writes it");
        net.retain(|key, _| key != "critic_optim_spec" && key != "use_same_optim");
        net.insert("optim_spec".into(), optim);
    }
    spec["small"]["agent"]["algorithm"] = match algorithm {
        "PPO" => serde_json::json!({
            "name": algorithm, "gamma": 0.98, "lam": 0.92, "time_horizon": 16, "minibatch_size": 48, "training_epoch": 2,
            "clip_eps_spec": spec["small"]["agent"]["algorithm"]["clip_eps_spec"],
        }),
        _ => serde_json::json!({ "name": algorithm, "gamma": 0.98, "training_frequency": 16 }),
    };
    spec["small"]["agent"]["name"] = algorithm.into();
    if algorithm == "ActorCritic" {
        spec["small"]["agent"]["algorithm"]["lam"] = 0.92.into();
    }
    spec["small"]["env"]["name"] = env.into();
    if env == "CartPole-v1" {
        spec["small"]["env"]["normalize_obs"] = false.into();
        spec["small"]["env"]["hide_obs"] = serde_json::json!([1, 3]);
    }
    plan_of(&spec, &[])
}

/// `specs/dqn/dqn_gru_cartpole_masked.json` with fewer frames and other keys.
pub fn recurrent_q_plan(max_frame: u64, set: &[(&str, &str)]) -> Plan {
    let path = super::root().join("specs/dqn/dqn_gru_cartpole_masked.json");
    let frames = max_frame.to_string();
    let all = [&[("env.max_frame", frames.as_str()), ("meta.log_frequency", "100")], set].concat();
    let set: Vec<(String, String)> = all.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Plan::new(&slm_fast::spec::load(&path, None, &set).expect("a spec").spec).expect("a plan")
}

/// Keys that make it a small one, whose ring goes round.
pub const SMALL_RECURRENT_Q: [(&str, &str); 8] = [
    ("agent.memory", r#"{ "name": "Replay", "batch_size": 5, "max_size": 240, "use_cer": false }"#),
    ("agent.algorithm.training_start_step", "96"),
    ("agent.algorithm.training_frequency", "16"),
    ("agent.algorithm.num_step_returns", "2"),
    ("agent.net.fc_hid_layers", "[9]"),
    ("agent.net.rnn_hidden_size", "10"),
    ("agent.net.seq_len", "6"),
    ("agent.net.burn_in", "3"),
];

fn plan_of(spec: &serde_json::Value, set: &[(&str, &str)]) -> Plan {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(super::write_spec(folder.path(), spec));
    let set: Vec<(String, String)> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Plan::new(&slm_fast::spec::load(&path, None, &set).expect("a spec").spec).expect("a plan")
}

/// What a training leaves: rows by session, and everything that the next iteration would read.
#[derive(PartialEq)]
pub struct Trained {
    pub rows: Vec<Vec<[u64; COLUMNS.len()]>>,
    pub state: Vec<Tensor>,
}

impl Trained {
    /// One session's rows, and its part of every tensor.
    pub fn session(&self, s: usize) -> (Vec<[u64; COLUMNS.len()]>, Vec<Vec<u32>>) {
        let part = |tensor: &Tensor| {
            let len = tensor.words.len() / self.rows.len();
            tensor.words[s * len..][..len].to_vec()
        };
        (self.rows[s].clone(), self.state.iter().map(part).collect())
    }

    /// `total_reward` of a session's last row.
    pub fn total_reward(&self, s: usize) -> f64 {
        let column = COLUMNS.iter().position(|name| *name == "total_reward").expect("a column");
        f64::from_bits(self.rows[s].last().expect("a row")[column])
    }

    /// Bits as one number.
    pub fn digest(&self) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.rows.hash(&mut hasher);
        self.state.iter().for_each(|tensor| tensor.words.hash(&mut hasher));
        format!("digest {:016x}", hasher.finish())
    }
}

/// Trains a cohort from where it is, at most `iterations`.
pub fn train(cohort: &mut Cohort, sessions: usize, iterations: usize) -> Trained {
    let mut rows = vec![Vec::new(); sessions];
    for _ in 0..iterations {
        if cohort.done() {
            break;
        }
        cohort.iterate().expect("an iteration");
        for (s, rows) in rows.iter_mut().enumerate() {
            assert_eq!(cohort.fault(s), None, "session {s}");
            rows.extend(cohort.rows(s).iter().map(|row: &Row| row.map(f64::to_bits)));
        }
    }
    Trained { rows, state: cohort.snapshot().expect("a snapshot") }
}

/// A cohort of the plan's seed.
pub fn cohort(plan: &Plan, sessions: &[u32], device: Device) -> Cohort {
    Cohort::new(plan, 11, sessions, device).expect("memory")
}

/// A whole training.
pub fn trained(plan: &Plan, sessions: &[u32], device: Device) -> Trained {
    train(&mut cohort(plan, sessions, device), sessions.len(), usize::MAX)
}

/// A training ends in the same bits again, alone, in other company, and resumed in the middle.
pub fn ends_in_the_same_bits(open: impl Fn() -> Device) {
    // ends within an iteration, so that the shorter last one runs too
    ends_in_the_same_bits_with(&plan(1400, &[]), open);
}

/// The same with a plan that takes more than four iterations.
pub fn ends_in_the_same_bits_with(plan: &Plan, open: impl Fn() -> Device) {
    let together = trained(plan, &[0, 1, 2], open());
    assert!(together == trained(plan, &[0, 1, 2], open()), "again");
    for s in 0..3 {
        assert!(trained(plan, &[s as u32], open()).session(0) == together.session(s), "session {s} alone");
    }
    let turned = trained(plan, &[2, 7, 0], open());
    assert!(turned.session(0) == together.session(2) && turned.session(2) == together.session(0), "other company");
    assert!(turned.session(1) != together.session(1), "sessions differ");

    let mut stopped = cohort(plan, &[0, 1, 2], open());
    let before = train(&mut stopped, 3, 4);
    let mut resumed = cohort(plan, &[0, 1, 2], open());
    // what is overwritten has been somewhere else
    train(&mut resumed, 3, 2);
    resumed.restore(&before.state).expect("a snapshot of the same plan");
    let after = train(&mut resumed, 3, usize::MAX);
    assert!(after.state == together.state, "resumed");
    for s in 0..3 {
        assert!([&before.rows[s][..], &after.rows[s]].concat() == together.rows[s], "rows of session {s}, resumed");
    }
}

/// Cohorts in threads of their own do not disturb each other.
pub fn trains_side_by_side(open: impl Fn() -> Device) {
    let plan = plan(700, &[]);
    let alone: Vec<Trained> = [0, 1].map(|s| trained(&plan, &[s], open())).into();
    // made here, trained there
    let mut cohorts = [0, 1].map(|s| cohort(&plan, &[s], open()));
    let together: Vec<Trained> = std::thread::scope(|scope| {
        let train = |cohort| scope.spawn(move || train(cohort, 1, usize::MAX));
        let threads: Vec<_> = cohorts.iter_mut().map(train).collect();
        threads.into_iter().map(|thread| thread.join().expect("a training")).collect()
    });
    assert!(alone == together);
}

/// After one iteration everything that the next one reads is what the cpu has.
pub fn begins_as_the_cpu(open: impl Fn() -> Device) {
    for set in [
        &[][..],
        &[("agent.net.shared", "true")],
        &[("env.normalize_reward", "true"), ("agent.algorithm.training_epoch", "1")],
    ] {
        after_some_iterations_as_the_cpu(&plan(10_000, set), 1, &open);
    }
}

/// After so many iterations everything that the next one reads is what the cpu has.
pub fn after_some_iterations_as_the_cpu(plan: &Plan, iterations: usize, open: impl Fn() -> Device) {
    // as many sessions as elsewhere: a shader knows where the slices of a cohort lie, and is compiled for it
    let cpu = train(&mut cohort(plan, &[0, 1, 2], Device::cpu(1)), 3, iterations);
    let gpu = train(&mut cohort(plan, &[0, 1, 2], open()), 3, iterations);
    for (ours, theirs) in gpu.state.iter().zip(&cpu.state) {
        let off = |(x, y): (&u32, &u32)| distance(ours.dtype, *x, *y);
        let worst = ours.words.iter().zip(&theirs.words).map(off).fold(0.0, f64::max);
        assert!(worst < 1e-4, "`{}`: off {worst:e}", ours.name);
    }
}

/// CartPole is learnt as well as on the cpu.
pub fn learns_as_the_cpu(open: impl Fn() -> Device) {
    let plan = plan(12_000, &[]);
    let mean = |device: Device| {
        let ended = trained(&plan, &[0, 1], device);
        (ended.total_reward(0) + ended.total_reward(1)) / 2.0
    };
    let (cpu, gpu) = (mean(Device::cpu(1)), mean(open()));
    println!("total_reward {cpu:.1} on the cpu, {gpu:.1} on the gpu");
    assert!(cpu > 60.0 && gpu > 60.0, "{cpu} on the cpu, {gpu} on the gpu; random actions have 22");
}
