//! Same spec and seed twice: same bits? Alone or in a cohort? With one thread or two?

mod common;

use std::path::Path;

use common::{expect, only_run, small_spec, write_spec};
use slm_fast::device::Device;
use slm_fast::lab::cohort::{Cohort, Tensor};
use slm_fast::plan::Plan;
use slm_fast::report::checkpoint::Checkpoint;
use slm_fast::report::frame::{CLOCK_COLUMNS, DataFrame};

const SESSIONS: u32 = 3;

fn data_frame(run: &Path, session: u32) -> DataFrame {
    let path = run.join(format!("info/small_t0_s{session}_session_df_train.csv"));
    let text = std::fs::read_to_string(&path).expect("written");
    DataFrame::from_csv(&text, "csv").expect("as written").without(&CLOCK_COLUMNS)
}

fn model(run: &Path, session: u32, prefix: &str) -> Checkpoint {
    Checkpoint::read(&run.join(format!("model/small_t0_s{session}_{prefix}net_model.safetensors"))).expect("whole")
}

/// Trains into `data` and returns the run's folder.
fn train(folder: &Path, data: &str, more: &[&str]) -> std::path::PathBuf {
    let args: Vec<&str> = ["train", "small.json", "--quiet", "--data", data].iter().chain(more).copied().collect();
    expect(folder, &args, 0);
    only_run(&folder.join(data))
}

#[track_caller]
fn assert_same(a: &Path, b: &Path, sessions: u32, what: &str) {
    for s in 0..sessions {
        assert!(data_frame(a, s).same_bits(&data_frame(b, s)), "{what}: data frame of session {s}");
        for prefix in ["", "ckpt-best_"] {
            assert!(model(a, s, prefix).tensors == model(b, s, prefix).tensors, "{what}: {prefix}model of session {s}");
        }
    }
}

#[test]
fn equal_runs_end_in_equal_bits() {
    let folder = tempfile::tempdir().unwrap();
    write_spec(folder.path(), &small_spec(4000, SESSIONS, Some(11)));
    let first = train(folder.path(), "first", &["--threads", "1"]);
    assert_same(&first, &train(folder.path(), "again", &["--threads", "1"]), SESSIONS, "again");
    assert_same(&first, &train(folder.path(), "threads", &["--threads", "2"]), SESSIONS, "two threads");
    let every = &["--threads", "2", "--checkpoint-every", "0"];
    assert_same(&first, &train(folder.path(), "checkpoints", every), SESSIONS, "a checkpoint every iteration");
    assert_same(&first, &train(folder.path(), "alone", &["--set", "meta.max_session=1"]), 1, "alone");
    // and the comparison can fail
    assert!(!data_frame(&first, 0).same_bits(&data_frame(&first, 1)), "sessions differ");
    let other = train(folder.path(), "other", &["--seed", "12"]);
    assert!(model(&first, 0, "").tensors != model(&other, 0, "").tensors, "seeds differ");
}

/// Parameters and normalisers of every session after some iterations.
fn trained(plan: &Plan, sessions: &[u32], threads: usize) -> Vec<Vec<Tensor>> {
    let mut cohort = Cohort::new(plan, 11, sessions, Device::cpu(threads)).expect("memory");
    while !cohort.done() {
        cohort.iterate().unwrap();
    }
    (0..sessions.len()).map(|s| cohort.model(s).unwrap()).collect()
}

#[test]
fn a_session_does_not_know_its_company() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(write_spec(folder.path(), &small_spec(2000, SESSIONS, Some(11))));
    let together = ["f32", "bf16"].map(|precision| {
        let set = [("meta.precision".to_string(), precision.to_string())];
        let plan = Plan::new(&slm_fast::spec::load(&path, None, &set).unwrap().spec).unwrap();
        let together = trained(&plan, &[0, 1, 2], 1);
        for s in 0..SESSIONS {
            let alone = &trained(&plan, &[s], 1)[0];
            assert!(*alone == together[s as usize], "{precision}: session {s} alone");
        }
        let turned = trained(&plan, &[2, 7, 0, 5], 2);
        assert!(turned[0] == together[2] && turned[2] == together[0], "{precision}: other company, two threads");
        assert!(turned[1] != together[1], "{precision}: sessions differ");
        together
    });
    assert!(together[0] != together[1], "formats differ");
}

/// CrossQ's running moments belong to a session as its parameters do.
#[test]
fn crossq_ends_in_the_same_bits_alone_in_a_cohort_and_resumed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/crossq/crossq_pendulum.json");
    let kinds = [
        ("Pendulum-v1", "Normal", "null", "f32"),
        ("Pendulum-v1", "Normal", "null", "bf16"),
        ("CartPole-v1", "Categorical", "0.1", "f32"),
    ];
    for (env, pdtype, fixed_alpha, precision) in kinds {
        let set = [
            ("meta.precision", precision),
            ("env.name", env),
            ("agent.algorithm.action_pdtype", pdtype),
            ("agent.algorithm.fixed_alpha", fixed_alpha),
            ("env.max_frame", "600"),
            ("agent.algorithm.training_start_step", "100"),
            ("agent.memory.batch_size", "20"),
            ("agent.net.hid_layers", "[17]"),
            ("agent.critic_net.hid_layers", "[20, 9]"),
            ("agent.critic_net.batch_renorm.warmup_steps", "200"),
        ];
        let set = set.map(|(key, value)| (key.to_string(), value.to_string()));
        let plan = Plan::new(&slm_fast::spec::load(&path, None, &set).unwrap().spec).unwrap();
        let together = trained(&plan, &[0, 1, 2], 2);
        assert!(trained(&plan, &[1], 1)[0] == together[1], "{env}: session 1 alone");
        assert!(together[0] != together[1], "{env}: sessions differ");

        let names: Vec<&str> = together[0].iter().map(|tensor| tensor.name.as_str()).collect();
        for name in ["actor.1.weight", "log_alpha", "critic_1.0.weight", "critic_2.1.bias", "critic_2.3.running_var"] {
            assert!(names.contains(&name), "{name} of {names:?}");
        }
        let tensor = |name: &str| together[0].iter().find(|tensor| tensor.name == name).expect("named above");
        assert_eq!(tensor("critic_1.2.weight").shape, [9, 20]);
        assert_eq!(tensor("critic_2.4.bias").shape, [if env == "CartPole-v1" { 2 } else { 1 }]);
        let moved = |name: &str, from: f32| tensor(name).values().iter().all(|&x| x != from && x.is_finite());
        assert!(moved("critic_1.1.running_mean", 0.0) && moved("critic_2.3.running_var", 1.0), "{env}: moments move");
        assert!(
            moved("critic_1.1.weight", 1.0)
                && tensor("critic_1.1.weight").values().iter().all(|x| (x - 1.0).abs() < 0.2)
        );
        assert_eq!(tensor("log_alpha").values()[0] == 0.0, fixed_alpha != "null");

        let mut stopped = Cohort::new(&plan, 11, &[0, 1, 2], Device::cpu(1)).expect("memory");
        for _ in 0..4 {
            stopped.iterate().unwrap();
        }
        let mut resumed = Cohort::new(&plan, 3, &[0, 1, 2], Device::cpu(1)).expect("memory");
        resumed.restore(&stopped.snapshot().unwrap()).unwrap();
        while !resumed.done() {
            resumed.iterate().unwrap();
        }
        assert!(resumed.model(2).unwrap() == together[2], "{env}: resumed");
    }
}

#[test]
fn so_is_a_session_that_learns_from_a_replay_memory() {
    let specs = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/sac");
    for (name, delay, precision) in [
        ("sac_pendulum.json", "2", "f32"),
        ("sac_pendulum.json", "2", "bf16"),
        ("sac_cartpole.json", "1", "f32"),
        ("sac_gumbel_cartpole.json", "2", "f32"),
    ] {
        let set = [
            ("meta.precision", precision),
            ("env.max_frame", "1500"),
            ("agent.net.hid_layers", "[20, 17]"),
            ("agent.memory.batch_size", "150"),
            ("agent.memory.max_size", "800"),
            ("agent.algorithm.training_start_step", "200"),
            ("agent.algorithm.policy_delay", delay),
        ]
        .map(|(key, value)| (key.to_string(), value.to_string()));
        let plan = Plan::new(&slm_fast::spec::load(&specs.join(name), None, &set).unwrap().spec).unwrap();
        let together = trained(&plan, &[0, 1, 2], 1);
        let turned = trained(&plan, &[2, 7, 0, 5], 2);
        assert!(turned[0] == together[2] && turned[2] == together[0], "{name}: other company, two threads");
        assert!(trained(&plan, &[1], 3)[0] == together[1], "{name}: alone, threads that share its tiles");
        // from the middle of a run, through a checkpoint
        let mut whole = Cohort::new(&plan, 11, &[0], Device::cpu(1)).expect("memory");
        for _ in 0..4 {
            whole.iterate().unwrap();
        }
        assert!(!whole.done(), "{name}: in the middle of its run");
        let mut rest = Cohort::new(&plan, 11, &[0], Device::cpu(1)).expect("memory");
        rest.restore(&whole.snapshot().unwrap()).unwrap();
        while !rest.done() {
            rest.iterate().unwrap();
        }
        assert!(rest.model(0).unwrap() == together[0], "{name}: resumed");
        let names: Vec<&str> = together[0].iter().map(|tensor| tensor.name.as_str()).collect();
        for part in ["actor.0.weight", "critic_1.2.bias", "critic_2.0.weight", "log_alpha"] {
            assert!(names.contains(&part), "{name}: {part} in {names:?}");
        }
        let alpha = together[0].iter().find(|tensor| tensor.name == "log_alpha").unwrap().values()[0];
        assert!(alpha < 0.0, "{name}: log alpha {alpha} has been learnt");
    }
}
