//! Does every file in `specs/` load; do the shapes of SLM Lab's own files; do wrong ones say what is wrong and where?

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};
use slm_fast::plan::Plan;
use slm_fast::spec::{self, Activation, Algorithm, Loaded, NetType, Optim, Spec};

const ENVS: [&str; 5] = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/specs").join(name)
}

fn sets(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

/// Every spec file of the repository.
fn shipped() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(root().join("specs")).expect("specs/") {
        let folder = folder.expect("an entry").path();
        if folder.ends_with("suites") {
            continue;
        }
        for file in std::fs::read_dir(folder).expect("a folder of specs") {
            files.push(file.expect("an entry").path());
        }
    }
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    files
}

/// A whole valid spec, as JSON.
fn valid() -> Value {
    let text = std::fs::read_to_string(root().join("specs/ppo/ppo_cartpole.json")).expect("the first spec");
    serde_json::from_str::<Value>(&text).expect("JSON")["ppo_cartpole"].clone()
}

/// Reads a file of this text, and gives the error with the file's folder taken off.
fn complaint_of(file: &str, text: &str, name: Option<&str>, pairs: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(file);
    std::fs::write(&path, text).expect("a file");
    let err = spec::load(&path, name, &sets(pairs)).expect_err("an error");
    err.to_string().replace(&format!("{}/", folder.path().display()), "")
}

/// The error for a valid spec with one place changed; `Value::Null` for a key that is taken out.
fn complaint(place: &str, value: Option<Value>) -> String {
    let mut spec = valid();
    let (parent, key) = place.rsplit_once('.').unwrap_or(("", place));
    let pointer = if parent.is_empty() { String::new() } else { format!("/{}", parent.replace('.', "/")) };
    let map = spec.pointer_mut(&pointer).and_then(Value::as_object_mut).expect("an object");
    match value {
        Some(value) => map.insert(key.into(), value),
        None => map.shift_remove(key),
    };
    complaint_of("x.json", &json!({ "ppo_cartpole": spec }).to_string(), None, &[])
}

fn load(path: &Path, name: Option<&str>, pairs: &[(&str, &str)]) -> Loaded {
    spec::load(path, name, &sets(pairs)).unwrap_or_else(|err| panic!("{err}"))
}

#[test]
fn shipped_specs_load_run_and_fit_the_schema() {
    let schema = jsonschema::validator_for(&spec::schema()).expect("a schema");
    for path in shipped() {
        let loaded = load(&path, None, &[]);
        assert_eq!(loaded.warnings, [] as [String; 0], "{}", path.display());
        assert_eq!(loaded.spec.missing(&ENVS), [], "{}", path.display());
        assert_eq!(Some(loaded.spec.name.as_str()), path.file_stem().and_then(|s| s.to_str()));
        let text = std::fs::read_to_string(&path).expect("a spec file");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let errors: Vec<String> = schema.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert_eq!(errors, [] as [String; 0], "{}", path.display());
        let saved = json!({ "saved": loaded.spec });
        let errors: Vec<String> = schema.iter_errors(&saved).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert_eq!(errors, [] as [String; 0], "saved {}", path.display());
    }
}

#[test]
fn the_schema_refuses_what_the_loader_refuses() {
    let schema = jsonschema::validator_for(&spec::schema()).expect("a schema");
    for (place, value) in [
        ("/agent/algorithm/lamm", json!(0.9)),
        ("/agent/algorithm/name", json!("PPOO")),
        ("/agent/algorithm/gamma", json!("high")),
        ("/agent/net/actor_optim_spec/learning_rate", json!(0.1)),
        ("/env/max_frame", json!(-1)),
        ("/meta/device", json!("tpu")),
        ("/surplus", json!({})),
    ] {
        let mut spec = valid();
        let (parent, key) = place.rsplit_once('/').expect("a pointer");
        spec.pointer_mut(parent).expect("an object")[key] = value;
        assert!(!schema.is_valid(&json!({ "x": spec })), "{place}");
    }
}

#[test]
fn yaml_with_anchors_is_the_spec_it_spells() {
    let plain = load(&fixture("anchors.yaml"), Some("plain"), &[]);
    assert_eq!(plain.warnings.len(), 1, "{:?}", plain.warnings);
    assert!(plain.warnings[0].starts_with("agent.algorithm.clip_val_loss: ignored"), "{:?}", plain.warnings);
    let net = &plain.spec.agent.net;
    assert_eq!(net.actor().hid_layers, [32, 16]);
    assert_eq!(net.critic().activation, Activation::Tanh);
    let Optim::Adam(adam) = net.critic().optim else { panic!("{net:?}") };
    assert_eq!((adam.lr, adam.eps), (3e-4, 1e-5));
    assert_eq!(plain.spec.env.max_frame, 100_000);
    let Algorithm::PPO(ppo) = &plain.spec.agent.algorithm else { panic!("{:?}", plain.spec.agent.algorithm) };
    let entropy = ppo.entropy_coef_spec.as_ref().expect("a schedule");
    assert_eq!([0, 50_000, 100_000, 200_000].map(|f| entropy.at(f)), [0.01, 0.005, 0.0, 0.0]);

    let merged = load(&fixture("anchors.yaml"), Some("merged"), &[("env", "Pendulum-v1"), ("max_frame", "2e5")]).spec;
    assert_eq!(merged.name, "merged_pendulum");
    assert_eq!((merged.env.name.as_str(), merged.env.max_frame), ("Pendulum-v1", 200_000));
    assert_eq!(merged.env.clip_obs.map(|c| c.bounds()), Some((-10.0, 10.0)));
    assert_eq!((merged.agent.algorithm.gamma(), ppo.gamma), (0.9, 0.99));
    let (actor, critic) = (merged.agent.net.actor(), merged.agent.net.critic());
    assert_eq!((actor.hid_layers, critic.hid_layers), (&[8][..], &[32, 16][..]));
    assert_eq!((actor.activation, critic.activation), (Activation::Silu, Activation::Tanh));
    assert_eq!(actor.lr_scheduler.expect("a schedule").factor(199_999), 0.033);
    let keys: Vec<&str> = merged.search.iter().flat_map(|s| &s.0).map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["agent.algorithm.gamma", "agent.net.optim_spec.lr", "agent.net.hid_layers"]);
}

#[test]
fn saved_specs_load_and_hold_every_default() {
    let loaded = load(&fixture("saved_spec.json"), None, &[]);
    insta::assert_snapshot!(loaded.warnings.join("\n"), @r"
    agent.memory.batch_size: ignored; OnPolicyBatchReplay keeps no second memory for ActorCritic
    meta.num_gpus: ignored; SLM Lab does not read it
    agent.net.normalize: ignored; MLPNet does not scale observations; see env.normalize_obs
    ");
    assert_eq!(loaded.spec.name, "a2c_saved");
    assert_eq!(loaded.spec.meta.git_sha.as_deref(), Some("1234567890123456789012345678901234567890"));
    assert_eq!(loaded.spec.agent.net.actor().activation, Activation::LeakyRelu);

    let saved = serde_json::to_value(&loaded.spec).expect("JSON");
    for default in
        ["/agent/algorithm/action_pdtype", "/agent/net/optim_spec/betas", "/meta/random_seed", "/meta/device"]
    {
        assert!(saved.pointer(default).is_some(), "{default}");
    }
    let again = spec::from_value(saved, "a2c_saved", &[]).expect("its own output");
    assert_eq!(again, Loaded { spec: loaded.spec, warnings: vec![] });
}

#[test]
fn what_is_not_built_is_named_in_full() {
    let spec = load(&fixture("anchors.yaml"), Some("unbuilt"), &[]).spec;
    let err = spec.require_built(&ENVS).expect_err("not built");
    insta::assert_snapshot!(err, @r"
    unbuilt: asks for what is not built yet:
      env.name: ALE/Pong-v5 is not built yet; CartPole-v1, Acrobot-v1, MountainCar-v0, MountainCarContinuous-v0, Pendulum-v1 are
      env.life_loss_info: ALE/Pong-v5 does not take this argument yet
      meta.distributed: nets shared between sessions are not built yet; `false` is
    ");
}

#[test]
fn critics_of_crossq_are_normalised_and_those_of_others_have_no_section() {
    let file = fixture("anchors.yaml");
    let crossq = load(&file, Some("unbuilt"), &[]).spec;
    let critic = crossq.agent.critic_net.as_ref().expect("a section of their own");
    assert_eq!(
        (critic.kind, &critic.hid_layers, critic.critic().activation),
        (NetType::MLPNet, &vec![256], Activation::Relu)
    );
    let renorm = critic.batch_renorm.expect("read from the arc");
    assert_eq!((renorm.momentum, renorm.eps, renorm.warmup_steps), (0.01, 1e-3, 5_000));
    assert_eq!((renorm.r_max, renorm.d_max), (3.0, 5.0));
    let lines = |change: &dyn Fn(&mut spec::Spec)| {
        let mut spec = crossq.clone();
        change(&mut spec);
        let all = spec.missing(&ENVS).into_iter().filter(|missing| missing.place.contains("net"));
        all.map(|missing| missing.to_string()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(lines(&|_| {}), "");
    insta::assert_snapshot!(lines(&|spec| spec.agent.net.batch_renorm = Some(renorm)), @"agent.net.batch_renorm: Batch Renormalisation is built in the critics of CrossQ alone");
    insta::assert_snapshot!(lines(&|spec| spec.agent.critic_net = None), @"agent.critic_net: CrossQ without critics of its own, with `batch_renorm`, is not built");
    insta::assert_snapshot!(lines(&|spec| spec.agent.critic_net.as_mut().expect("above").batch_renorm = None), @"agent.critic_net.batch_renorm: critics of CrossQ without Batch Renormalisation are not built");
    let ppo = load(&file, Some("plain"), &[]).spec.agent.algorithm;
    insta::assert_snapshot!(lines(&|spec| spec.agent.algorithm = ppo.clone()), @"agent.critic_net: critics with a section of their own are built for CrossQ alone; `critic_` keys in agent.net are");
    for (key, value) in [("momentum", 1.5), ("eps", 0.0), ("r_max", 0.5), ("d_max", -1.0)] {
        let place = format!("agent.critic_net.batch_renorm.{key}");
        assert_eq!(crossq.with(&[(place.clone(), json!(value))]).expect_err("out of range").place, place);
    }
}

#[test]
fn names_are_those_of_specs() {
    assert_eq!(spec::names(&fixture("anchors.yaml")).expect("names"), ["plain", "merged", "unbuilt"]);
    assert_eq!(spec::names(&fixture("saved_spec.json")).expect("names"), ["a2c_saved"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x.json");
    std::fs::write(&path, json!({ "$schema": "spec.schema.json", "only": valid() }).to_string()).expect("a file");
    assert_eq!(load(&path, None, &[]).spec.name, "only");
}

/// Only where an actor of discrete actions has critics that see one of them.
#[test]
fn gumbel_softmax_is_for_soft_actor_critic_with_discrete_actions() {
    let gumbel = load(&root().join("specs/sac/sac_gumbel_cartpole.json"), None, &[]).spec;
    let plan = Plan::new(&gumbel).expect("a plan");
    let critic = plan.critics.as_ref().expect("two critics").mlp();
    assert_eq!((critic.input, critic.output, plan.nets.actor.output), (4 + 2, 1, 2));
    let exact = Plan::new(&load(&root().join("specs/sac/sac_cartpole.json"), None, &[]).spec).expect("a plan");
    let critic = exact.critics.as_ref().expect("two critics").mlp();
    assert_eq!((critic.input, critic.output), (4, 2));

    let set = [("agent.algorithm.action_pdtype", "GumbelSoftmax")];
    for (file, name) in [("crossq/crossq_cartpole.json", "CrossQ"), ("ppo/ppo_cartpole.json", "PPO")] {
        let missing = load(&root().join("specs").join(file), None, &set).spec.missing(&["CartPole-v1"]);
        let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
        let start = format!("agent.algorithm.action_pdtype: GumbelSoftmax is not built yet for {name}; ");
        assert!(lines.len() == 1 && lines[0].starts_with(&start), "{lines:?}");
    }
    let real = load(&root().join("specs/sac/sac_pendulum.json"), None, &set).spec;
    let error = Plan::new(&real).expect_err("real actions");
    assert_eq!(error.place, "agent.algorithm.action_pdtype");
    assert!(error.what.contains("does not fit Pendulum-v1"), "{error}");
}

#[test]
fn set_overrides_any_dotted_key() {
    let path = root().join("specs/ppo/ppo_cartpole.json");
    let pairs = [
        ("env.num_envs", "8"),
        ("env.max_frame", "4e5"),
        ("agent.net.hid_layers", "[32]"),
        ("agent.net.hid_layers_activation", "relu"),
        ("agent.net.lr_scheduler_spec.name", "LinearToZero"),
        ("agent.net.lr_scheduler_spec.frame", "400000"),
        ("meta.random_seed", "7"),
    ];
    let spec = load(&path, Some("ppo_cartpole"), &pairs).spec;
    assert_eq!((spec.env.num_envs, spec.env.max_frame, spec.meta.random_seed), (8, 400_000, Some(7)));
    assert_eq!(spec.agent.net.critic().hid_layers, [32]);
    assert_eq!(spec.agent.net.actor().activation, Activation::Relu);
    assert_eq!(spec.agent.net.actor().lr_scheduler.expect("a schedule").factor(200_000), 0.5);
}

#[test]
fn names_stay_inside_the_data_folder() {
    assert_eq!(spec::from_value(valid(), "x", &sets(&[("name", "y.2-b")])).expect("a name").spec.name, "y.2-b");
    for name in ["../x", "a/b", "a\\b", "", " ", "a\nb"] {
        let err = spec::from_value(valid(), name, &[]).expect_err(name);
        assert!(err.what.ends_with("cannot name a folder"), "{err}");
        assert!(spec::from_value(valid(), "x", &sets(&[("name", name)])).is_err(), "{name}");
    }
}

#[test]
fn what_nothing_would_read_is_refused() {
    let pairs = [("meta.rigorous_eval", "8"), ("env.name", "cartpole-v1")];
    let spec = spec::from_value(valid(), "x", &sets(&pairs)).expect("words that are known").spec;
    insta::assert_snapshot!(spec.require_built(&ENVS).expect_err("not built"), @r"
    x: asks for what is not built yet:
      env.name: cartpole-v1 is not built; did you mean `CartPole-v1`?
      meta.rigorous_eval: evaluation apart from training is not built yet; 0 is
    ");
}

#[test]
fn n_step_returns_are_as_long_as_the_batch() {
    let mut value = valid();
    value["agent"]["algorithm"] = json!({ "name": "ActorCritic", "gamma": 0.9, "num_step_returns": 5 });
    let load = |value: &Value| spec::from_value(value.clone(), "x", &[]).expect("a spec");
    let loaded = load(&value);
    assert_eq!(loaded.warnings, [] as [String; 0]);
    let Algorithm::ActorCritic(a2c) = loaded.spec.agent.algorithm else { panic!("an ActorCritic") };
    assert_eq!(a2c.training_frequency, 5);
    value["agent"]["algorithm"]["training_frequency"] = json!(7);
    assert_eq!(
        load(&value).warnings,
        ["agent.algorithm.training_frequency: ignored; n-step returns take batches of `num_step_returns`, 5"]
    );
}

#[test]
fn how_much_is_learnt_from_a_frame_is_said_once() {
    let text = std::fs::read_to_string(root().join("specs/dqn/dqn_cartpole.json")).expect("a spec");
    let said = |pairs: &[(&str, &str)]| complaint_of("x.json", &text, None, pairs);
    let (iter, ratio) = ("agent.algorithm.training_iter", "agent.algorithm.update_to_data");
    insta::assert_snapshot!(said(&[(ratio, "1")]), @r"
    x.json: dqn_cartpole.agent.algorithm.update_to_data: and `training_iter` say the same in two ways
      hint: leave one of them out
    ");
    insta::assert_snapshot!(said(&[(iter, "null")]), @r"
    x.json: dqn_cartpole.agent.algorithm.training_iter: is missing
      hint: batches of one training; or give `update_to_data`, gradient steps for each frame
    ");
    insta::assert_snapshot!(said(&[(iter, "null"), (ratio, "-1")]), @r"
    x.json: dqn_cartpole.agent.algorithm.update_to_data: -1 is no ratio
      hint: a number above 0, such as 1 or 0.25
    ");
    let path = root().join("specs/dqn/dqn_cartpole.json");
    let spec = load(&path, None, &[(iter, "null"), (ratio, "0.25"), ("env.num_envs", "3")]).spec;
    let plan = Plan::new(&spec).expect("a plan").off_policy.expect("a ring");
    assert_eq!((plan.updates, plan.repeats, plan.every), (3, 2, 8), "24 frames, 6 gradient steps");
}

#[test]
fn dead_keys_are_taken_out_with_a_reason() {
    let mut value = valid();
    value["agent"]["algorithm"]["clip_val_loss"] = json!(true);
    value["agent"]["algorithm"]["sil_val_loss_coef"] = json!(0.1);
    value["agent"]["net"]["normalize"] = json!(true);
    value["agent"]["net"]["update_frequency"] = json!(1);
    value["meta"]["num_gpus"] = json!(1);
    let loaded = spec::from_value(value, "x", &[]).expect("warnings alone");
    insta::assert_snapshot!(loaded.warnings.join("\n"), @r"
    meta.num_gpus: ignored; SLM Lab does not read it
    agent.net.update_frequency: ignored; PPO has no target net
    agent.net.normalize: ignored; MLPNet does not scale observations; see env.normalize_obs
    agent.algorithm.clip_val_loss: ignored; SLM Lab does not read it; the key is `clip_vloss`
    agent.algorithm.sil_val_loss_coef: ignored; PPO does not use it
    ");
}

#[test]
fn wrong_files_say_where() {
    let two = json!({ "ppo_a": valid(), "ppo_b": valid(), "_c": {} }).to_string();
    insta::assert_snapshot!(complaint_of("x.json", "{\n  \"a\": {,\n}", None, &[]), @"x.json: not JSON, line 2 column 9: key must be a string");
    insta::assert_snapshot!(complaint_of("x.json", "{\n  \"a\": 1,\n  \"a\": 2\n}", None, &[]), @"x.json: not JSON, line 3 column 5: the key `a` stands twice in one object");
    insta::assert_snapshot!(complaint_of("x.yaml", "a: 1\nb: 2\na: 3\n", None, &[]), @"x.yaml: not YAML, line 3 column 1: duplicate mapping key: a");
    insta::assert_snapshot!(complaint_of("x.yaml", "a:\n  b: [1, 2\n", None, &[]), @"x.yaml: not YAML, line 2 column 6: unclosed bracket '['");
    insta::assert_snapshot!(complaint_of("x.json", "{\n  // a\n  \"a\": 1\n}", None, &[]), @r"
    x.json: not JSON, line 2 column 3: key must be a string
      hint: JSON has no comments; YAML has
    ");
    insta::assert_snapshot!(complaint_of("x.json", " \n", None, &[]), @r"
    x.json: the file is empty
      hint: a spec file is an object of name and spec
    ");
    insta::assert_snapshot!(complaint_of("x.yaml", "---\na: 1\n---\nb: 2\n", None, &[]), @"x.yaml: not YAML, line 4 column 1: multiple YAML documents detected");
    assert!(complaint_of("x.json", "\u{feff}{}", None, &[]).contains("holds no spec"));
    insta::assert_snapshot!(complaint_of("x.json", &two, Some("ppo_a"), &[("env..name", "8")]), @"x.json: --set env..name: a part of this place is empty");
    insta::assert_snapshot!(complaint_of("x.json", "[]", None, &[]), @"x.json: a spec file is an object of name and spec");
    insta::assert_snapshot!(complaint_of("x.json", "{}", None, &[]), @r"
    x.json: holds no spec
      hint: a spec file is an object of name and spec
    ");
    insta::assert_snapshot!(complaint_of("x.json", &two, None, &[]), @r"
    x.json: holds 2 specs: ppo_a, ppo_b
      hint: name one of them after the file
    ");
    insta::assert_snapshot!(complaint_of("x.json", &two, Some("ppo_aa"), &[]), @r"
    x.json: holds no spec `ppo_aa`
      hint: did you mean `ppo_a`?
    ");
    insta::assert_snapshot!(complaint_of("x.json", &two, Some("ppo_a"), &[("num_envs", "8")]), @r"
    x.json: --set num_envs: there is no `${num_envs}` in the spec
      hint: write the whole place, for example `--set env.num_envs=8`
    ");
    insta::assert_snapshot!(complaint_of("x.json", &two, Some("ppo_a"), &[("env.num_env", "8")]), @r"
    x.json: ppo_a.env.num_env: unknown key
      hint: did you mean `num_envs`?
    ");
    insta::assert_snapshot!(complaint_of("x.json", &two, Some("ppo_a"), &[("env.name.x", "8")]), @"x.json: --set env.name.x: `env.name` is not an object, so it has no `x`");
    let open = two.replace("\"CartPole-v1\"", "${env}").replace("200000", "\"${max_frame}\"");
    insta::assert_snapshot!(complaint_of("x.json", &open, Some("ppo_b"), &[("env", "Acrobot-v1")]), @r"
    x.json: ppo_b.env.max_frame: placeholders without a value: `${max_frame}` at env.max_frame
      hint: add --set max_frame=VALUE
    ");
    let err = spec::load(Path::new("no/such.json"), None, &[]).expect_err("no file");
    insta::assert_snapshot!(err, @r"
    no/such.json: cannot read the spec: No such file or directory (os error 2)
      hint: check the path
    ");
}

#[test]
fn wrong_specs_say_where_and_what() {
    insta::assert_snapshot!(complaint("agent.algorithm.lamm", Some(json!(0.9))), @r"
    x.json: ppo_cartpole.agent.algorithm.lamm: unknown key
      hint: did you mean `lam`?
    ");
    insta::assert_snapshot!(complaint("agent.algorithm.gamma", None), @r"
    x.json: ppo_cartpole.agent.algorithm.gamma: missing key
      hint: add it; it has no default
    ");
    insta::assert_snapshot!(complaint("agent.algorithm.gamma", Some(json!(1.5))), @"x.json: ppo_cartpole.agent.algorithm.gamma: must be between 0 and 1, found 1.5");
    insta::assert_snapshot!(complaint("agent.algorithm.gamma", Some(json!("high"))), @r#"x.json: ppo_cartpole.agent.algorithm.gamma: expected a number, found the text "high""#);
    insta::assert_snapshot!(complaint("agent.algorithm.name", Some(json!("PPPO"))), @r"
    x.json: ppo_cartpole.agent.algorithm.name: unknown value `PPPO`
      hint: did you mean `PPO`?
    ");
    insta::assert_snapshot!(complaint("agent.algorithm.name", Some(json!(3))), @"x.json: ppo_cartpole.agent.algorithm.name: expected one of `Reinforce`, `ActorCritic`, `PPO`, `SARSA`, `VanillaDQN`, `DQNBase`, `DQN`, `DoubleDQN`, `HydraDQN`, `SoftActorCritic`, `CrossQ`, `SIL`, `PPOSIL`, `Random`, found 3");
    insta::assert_snapshot!(complaint("agent.algorithm.name", None), @r"
    x.json: ppo_cartpole.agent.algorithm.name: missing key
      hint: add it; it has no default
    ");
    insta::assert_snapshot!(complaint("agent.algorithm.action_pdtype", Some(json!("Gaussian"))), @r"
    x.json: ppo_cartpole.agent.algorithm.action_pdtype: unknown value `Gaussian`
      hint: one of: default, Categorical, Normal, NormalTanh, Argmax, GumbelSoftmax, MultiCategorical, Bernoulli, Beta, Gumbel, LogNormal, MultivariateNormal
    ");
    insta::assert_snapshot!(complaint("agent.algorithm.minibatch_size", Some(json!(0))), @"x.json: ppo_cartpole.agent.algorithm.minibatch_size: must be at least 1, found 0");
    insta::assert_snapshot!(complaint("agent.algorithm.time_horizon", Some(json!(2.5))), @"x.json: ppo_cartpole.agent.algorithm.time_horizon: expected a whole number of at least 0, found 2.5");
    insta::assert_snapshot!(complaint("agent.algorithm.clip_eps_spec.name", Some(json!("linear"))), @r"
    x.json: ppo_cartpole.agent.algorithm.clip_eps_spec.name: unknown value `linear`
      hint: did you mean `linear_decay`?
    ");
    insta::assert_snapshot!(complaint("agent.algorithm.clip_eps_spec.start", Some(json!(0))), @r"
    x.json: ppo_cartpole.agent.algorithm.clip_eps_spec.start: unknown key
      hint: did you mean `start_val`?
    ");
    let decay = json!({ "name": "linear_decay", "start_val": 1, "end_val": 0, "start_step": 10, "end_step": 10 });
    insta::assert_snapshot!(complaint("agent.algorithm.entropy_coef_spec", Some(decay)), @r"
    x.json: ppo_cartpole.agent.algorithm.entropy_coef_spec.end_step: 10 is not behind `start_step` 10
      hint: write the frame at which `end_val` is reached, or `no_decay`
    ");
    insta::assert_snapshot!(complaint("agent.memory.name", Some(json!("OnPolicyBatch"))), @r"
    x.json: ppo_cartpole.agent.memory.name: unknown value `OnPolicyBatch`
      hint: did you mean `OnPolicyBatchReplay`?
    ");
    insta::assert_snapshot!(complaint("agent.net", Some(json!([64, 64]))), @"x.json: ppo_cartpole.agent.net: expected an object, found a list");
    insta::assert_snapshot!(complaint("agent.net.hid_layers", Some(json!([64, "wide"]))), @r#"x.json: ppo_cartpole.agent.net.hid_layers[1]: expected a whole number of at least 0, found the text "wide""#);
    insta::assert_snapshot!(complaint("agent.net.hid_layers", Some(json!([64, 0]))), @"x.json: ppo_cartpole.agent.net.hid_layers[1]: must be at least 1, found 0");
    insta::assert_snapshot!(complaint("agent.net.hid_layers", Some(json!([1e12]))), @"x.json: ppo_cartpole.agent.net.hid_layers[0]: must be at most 1048576, found 1000000000000");
    insta::assert_snapshot!(complaint("meta.max_session", Some(json!(4e9))), @"x.json: ppo_cartpole.meta.max_session: must be at most 65536, found 4000000000");
    insta::assert_snapshot!(complaint("agent.net.hid_layers", None), @r"
    x.json: ppo_cartpole.agent.net.hid_layers: missing key
      hint: an MLPNet states the widths of its hidden layers, for example `[64, 64]`
    ");
    insta::assert_snapshot!(complaint("agent.net.hid_layers_activation", Some(json!("tahn"))), @r"
    x.json: ppo_cartpole.agent.net.hid_layers_activation: unknown value `tahn`
      hint: did you mean `tanh`?
    ");
    insta::assert_snapshot!(complaint("agent.net.actor_optim_spec.momentum", Some(json!(0.9))), @r"
    x.json: ppo_cartpole.agent.net.actor_optim_spec.momentum: unknown key
      hint: keys known here: lr, betas, eps, weight_decay
    ");
    insta::assert_snapshot!(complaint("agent.net.actor_optim_spec.betas", Some(json!([0.9]))), @"x.json: ppo_cartpole.agent.net.actor_optim_spec.betas: expected a list of length 2, found a list of length 1");
    insta::assert_snapshot!(complaint("agent.net.actor_optim_spec.betas", Some(json!([0.9, 1.0]))), @"x.json: ppo_cartpole.agent.net.actor_optim_spec.betas[1]: must be at least 0 and below 1, found 1");
    insta::assert_snapshot!(complaint("agent.net.loss_spec", Some(json!("MSELoss"))), @r#"x.json: ppo_cartpole.agent.net.loss_spec: expected an object, found "MSELoss""#);
    insta::assert_snapshot!(complaint("env.max_frame", Some(json!(-5))), @"x.json: ppo_cartpole.env.max_frame: expected a whole number of at least 0, found -5");
    insta::assert_snapshot!(complaint("env.clip_reward", Some(json!("one"))), @"x.json: ppo_cartpole.env.clip_reward: expected a number or [low, high]");
    insta::assert_snapshot!(complaint("env.clip_obs", Some(json!([5, -5]))), @"x.json: ppo_cartpole.env.clip_obs: the bounds 5 and -5 enclose nothing");
    insta::assert_snapshot!(complaint("env", Some(json!([{ "name": "CartPole-v1" }]))), @r"
    x.json: ppo_cartpole.env: expected an object, found a list
      hint: this is the layout of SLM Lab 4; write `agent` and `env` as objects, not lists
    ");
    insta::assert_snapshot!(complaint("meta", None), @r"
    x.json: ppo_cartpole.meta: missing key
      hint: add it; it has no default
    ");
    insta::assert_snapshot!(complaint("meta.spec_version", Some(json!(9))), @r"
    x.json: ppo_cartpole.meta.spec_version: the spec is of version 9, this program reads up to 1
      hint: install a newer slm-fast
    ");
    insta::assert_snapshot!(complaint("meta.distributed", Some(json!(true))), @"x.json: ppo_cartpole.meta.distributed: expected false, `shared` or `synced`, found true");
    insta::assert_snapshot!(complaint("meta.random_seed", Some(json!(-1))), @"x.json: ppo_cartpole.meta.random_seed: expected a whole number of at least 0, found -1");
    insta::assert_snapshot!(complaint("meta.max_sesion", Some(json!(4))), @r"
    x.json: ppo_cartpole.meta.max_sesion: unknown key
      hint: did you mean `max_session`?
    ");
    insta::assert_snapshot!(complaint("searches", Some(json!({}))), @r"
    x.json: ppo_cartpole.searches: unknown key
      hint: did you mean `search`?
    ");
    let search = |key: &str, args: Value| complaint("search", Some(json!({ key: args })));
    insta::assert_snapshot!(search("agent.algorithm.gamma", json!([0.9])), @"x.json: ppo_cartpole.search.agent.algorithm.gamma: no distribution; write `agent.algorithm.gamma__choice` or another");
    insta::assert_snapshot!(search("agent.algorithm.gamma__unifrom", json!([0.9, 1.0])), @r"
    x.json: ppo_cartpole.search.agent.algorithm.gamma__unifrom: unknown value `unifrom`
      hint: did you mean `uniform`?
    ");
    insta::assert_snapshot!(search("agent.algorithm.gamma__uniform", json!([0.9])), @"x.json: ppo_cartpole.search.agent.algorithm.gamma__uniform: `uniform` takes 2 arguments, found 1");
    insta::assert_snapshot!(search("agent.algorithm.gamma__uniform", json!([0.9, 1.1])), @"x.json: ppo_cartpole.search.agent.algorithm.gamma__uniform: 1.1: must be between 0 and 1, found 1.1");
    insta::assert_snapshot!(search("agent.algorithm.gama__choice", json!([0.9])), @r"
    x.json: ppo_cartpole.search.agent.algorithm.gama__choice: 0.9: unknown key
      hint: did you mean `gamma`?
    ");
}

#[test]
fn numbers_of_off_policy_algorithms_are_checked() {
    for (path, key, wrong, why) in [
        ("sac/sac_pendulum", "agent.algorithm.fixed_alpha", "-0.1", "must be at least 0, found -0.1"),
        ("sac/sac_pendulum", "agent.algorithm.alpha_lr", "-0.001", "must be at least 0, found -0.001"),
        ("crossq/crossq_cartpole", "agent.algorithm.log_alpha_max", "-6", "must be at least -5, found -6"),
        ("crossq/crossq_cartpole", "agent.algorithm.policy_delay", "0", "must be at least 1, found 0"),
        ("ddqn/ddqn_per_cartpole", "agent.algorithm.num_step_returns", "0", "must be at least 1, found 0"),
        ("ddqn/ddqn_per_cartpole", "agent.algorithm.training_batch_iter", "0", "must be at least 1, found 0"),
        ("ddqn/ddqn_per_cartpole", "agent.algorithm.training_iter", "0", "must be at least 1, found 0"),
        ("dqn/dqn_cartpole", "agent.memory.batch_size", "0", "must be at least 1, found 0"),
    ] {
        let text = std::fs::read_to_string(root().join("specs").join(path).with_extension("json")).expect("a spec");
        let name = path.split_once('/').expect("a folder and a name").1;
        let said = complaint_of("x.json", &text, None, &[(key, wrong)]);
        assert_eq!(said.lines().next(), Some(&*format!("x.json: {name}.{key}: {why}")), "{said}");
    }
}

/// Any JSON, a few levels deep, with the keys of specs among its keys.
fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        "[a-z_.${}]{0,12}",
        prop::sample::select(vec![
            "agent",
            "env",
            "meta",
            "search",
            "name",
            "algorithm",
            "memory",
            "net",
            "type",
            "arc",
            "modules",
            "gamma",
            "hid_layers",
            "clip_eps_spec",
            "start_val",
            "optim_spec",
            "lr__uniform",
            "max_frame",
        ])
        .prop_map(str::to_string),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[-+.eE0-9]{0,6}".prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["PPO", "MLPNet", "TorchArcNet", "Adam", "no_decay", "${env}", "Random"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// The places of all objects' keys in a spec.
fn places(value: &Value, place: &str, out: &mut Vec<String>) {
    for (key, inner) in value.as_object().into_iter().flatten() {
        out.push(format!("{place}/{key}"));
        places(inner, &format!("{place}/{key}"), out);
    }
}

/// A valid spec with numbers drawn from their ranges.
fn any_spec() -> impl Strategy<Value = Value> {
    let numbers = (0.0..=1.0f64, 0.0..=1.0f64, 1..5000usize, 1..5000usize, 0.0..1.0f64, 1..10_000_000u64);
    (numbers, prop::collection::vec(1..512usize, 0..4), 0..Activation::NAMES.len(), any::<[bool; 3]>()).prop_map(
        |((gamma, lam, time_horizon, minibatch_size, lr, max_frame), layers, activation, switches)| {
            let mut spec = valid();
            spec["agent"]["algorithm"]["gamma"] = gamma.into();
            spec["agent"]["algorithm"]["lam"] = lam.into();
            spec["agent"]["algorithm"]["time_horizon"] = time_horizon.into();
            spec["agent"]["algorithm"]["minibatch_size"] = minibatch_size.into();
            spec["agent"]["algorithm"]["clip_vloss"] = switches[0].into();
            spec["agent"]["net"]["hid_layers"] = layers.into();
            spec["agent"]["net"]["hid_layers_activation"] = Activation::NAMES[activation].0.into();
            spec["agent"]["net"]["shared"] = switches[1].into();
            spec["agent"]["net"]["actor_optim_spec"]["lr"] = lr.into();
            spec["env"]["max_frame"] = max_frame.into();
            spec["env"]["normalize_obs"] = switches[2].into();
            spec
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(json in any_json(), text in "\\PC{0,80}") {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let written = json.to_string();
        for (file, text) in [("a.json", &written), ("b.json", &text), ("a.yaml", &written), ("b.yaml", &text)] {
            let path = folder.path().join(file);
            std::fs::write(&path, text).expect("a file");
            let _ = spec::names(&path);
            if let Err(err) = spec::load(&path, None, &[]) {
                prop_assert!(err.place.contains(file), "{err}");
                prop_assert!(!err.what.is_empty());
            }
        }
    }

    #[test]
    fn any_json_in_any_place_is_read_or_refused(json in any_json(), index in any::<prop::sample::Index>()) {
        let mut spec = valid();
        let mut all = Vec::new();
        places(&spec, "", &mut all);
        let place: &String = index.get(&all);
        *spec.pointer_mut(place).expect("a place") = json;
        let _ = spec::from_value(spec, "x", &[]);
    }

    #[test]
    fn valid_specs_come_back_the_same(value in any_spec()) {
        let loaded = spec::from_value(value, "x", &[]).map_err(|err| TestCaseError::fail(err.to_string()))?;
        let text = serde_json::to_string_pretty(&loaded.spec).expect("JSON");
        let typed: Spec = serde_json::from_str(&text).expect("its own output");
        prop_assert_eq!(&typed, &loaded.spec);
        let again = spec::from_value(serde_json::from_str(&text).expect("JSON"), "x", &[]).expect("its own output");
        prop_assert_eq!(again, loaded);
    }

    #[test]
    fn a_changed_key_is_named(index in any::<prop::sample::Index>(), added in "[a-z]{1,3}") {
        let mut spec = valid();
        let mut all = Vec::new();
        places(&spec, "", &mut all);
        let place = index.get(&all).clone();
        let (parent, key) = place.rsplit_once('/').expect("a pointer");
        let map = spec.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        let value = map.shift_remove(key).expect("a key");
        let wrong = format!("{key}{added}");
        map.insert(wrong.clone(), value);
        let err = spec::from_value(spec, "x", &[]).expect_err("a wrong key");
        // Where the key was required, that it is gone may be said first.
        let (place, missing) = (err.place.as_str(), err.what.contains("missing"));
        prop_assert!(place.ends_with(&wrong) || (missing && place.ends_with(key)), "{}", err);
    }
}
