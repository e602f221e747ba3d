//! Keys that SLM Lab's files hold and that nothing reads: they are taken out with a warning that says so.

use schemars::JsonSchema;
use serde_json::{Map, Value};

use super::algorithm as alg;

/// Keys of SLM Lab's earlier versions, and what they are called now.
const RENAMED: [(&str, &str); 7] = [
    ("clip_val_loss", "clip_vloss"),
    ("clip_eps", "clip_eps_spec"),
    ("entropy_coef", "entropy_coef_spec"),
    ("explore_var", "explore_var_spec"),
    ("clip_grad", "clip_grad_val"),
    ("lr_anneal_timestep", "lr_scheduler_spec"),
    ("lr_decay_frequency", "lr_scheduler_spec"),
];

/// Keys of the memory that an algorithm imitates itself from.
const SECOND: [&str; 7] = ["sil_replay_name", "batch_size", "max_size", "use_cer", "alpha", "epsilon", "beta_spec"];

/// Takes out the keys that are typed but mean nothing in this spec.
pub(super) fn take_out(spec: &mut Value, warnings: &mut Vec<String>) {
    let algorithm = text(spec, "/agent/algorithm/name");
    let memory = text(spec, "/agent/memory/name");
    let family = Family::of(&algorithm);
    fill_ins_of_saved_specs(spec, family, &algorithm);

    if memory.starts_with("OnPolicy") && family != Family::SelfImitation {
        let why = format!("{memory} keeps no second memory for {algorithm}");
        drop_keys(spec, "agent.memory", &SECOND, &why, warnings);
    }
    drop_keys(spec, "meta", &["num_gpus"], "SLM Lab does not read it", warnings);

    for section in ["agent.net", "agent.critic_net"] {
        let net_type = text(spec, &format!("/{}/type", section.replace('.', "/")));
        let targets = ["update_type", "update_frequency", "polyak_coef"];
        match family {
            Family::OnPolicy | Family::SelfImitation => {
                drop_keys(spec, section, &targets, &format!("{algorithm} has no target net"), warnings);
            }
            Family::SoftActorCritic | Family::OneNet => {
                let why = format!("{algorithm} has no net that actor and critic could share");
                drop_keys(spec, section, &["shared", "use_same_optim"], &why, warnings);
            }
            Family::Unknown => {}
        }
        if algorithm == "Reinforce" {
            drop_keys(spec, section, &["shared", "use_same_optim"], "Reinforce has one net", warnings);
        }
        if net_type != "RecurrentNet" {
            let why = format!("{net_type} has no state to bring up to date");
            drop_keys(spec, section, &["burn_in"], &why, warnings);
        }
        match net_type.as_str() {
            "MLPNet" => {
                let why = "MLPNet does not scale observations; see env.normalize_obs";
                drop_keys(spec, section, &["normalize"], why, warnings);
            }
            "TorchArcNet" => {
                let why = "TorchArcNet has the layers of its `arc` alone";
                drop_keys(spec, section, &["batch_norm", "layer_norm"], why, warnings);
                let layers = object(spec, section).and_then(|net| net.get("hid_layers").and_then(Value::as_array));
                if layers.is_some_and(|l| !l.is_empty()) {
                    drop_keys(spec, section, &["hid_layers"], why, warnings);
                }
            }
            "RecurrentNet" => {
                if family != Family::OneNet {
                    let why = "states are carried through rollouts, and sequences are as long as the rollout";
                    drop_keys(spec, section, &["seq_len", "burn_in"], why, warnings);
                }
                let layers = object(spec, section).and_then(|net| net.get("hid_layers").and_then(Value::as_array));
                if layers.is_some_and(|l| !l.is_empty()) {
                    let why = "RecurrentNet has the layers of `fc_hid_layers` before its cell, and none behind";
                    drop_keys(spec, section, &["hid_layers"], why, warnings);
                }
            }
            _ => {}
        }
        if let Some(net) = object(spec, section) {
            let frames = net.get("update_frequency").and_then(Value::as_f64);
            if frames.is_some_and(|f| f.fract() != 0.0) {
                let why = "it is not a number of frames; `polyak_coef` takes fractions";
                drop_keys(spec, section, &["update_frequency"], why, warnings);
            }
        }
    }
}

/// A saved spec states every default, also those that its algorithm has no use for; they are no user's words.
fn fill_ins_of_saved_specs(spec: &mut Value, family: Family, algorithm: &str) {
    let one_net = matches!(family, Family::SoftActorCritic | Family::OneNet) || algorithm == "Reinforce";
    if !one_net || spec.pointer("/meta/spec_version").is_none() {
        return;
    }
    for section in ["agent.net", "agent.critic_net"] {
        if let Some(net) = object(spec, section) {
            net.retain(|key, value| {
                !(matches!(key.as_str(), "shared" | "use_same_optim") && *value == Value::Bool(false))
            });
        }
    }
}

/// Why a key that nothing reads at `place` may be dropped; `None` where it is a mistake.
pub(super) fn reason(place: &str, key: &str, algorithm: &str) -> Option<String> {
    let key = key.strip_prefix("actor_").or(key.strip_prefix("critic_")).unwrap_or(key);
    if let Some((_, now)) = RENAMED.iter().find(|(old, _)| *old == key) {
        return Some(format!("SLM Lab does not read it; the key is `{now}`"));
    }
    (place == "agent.algorithm" && keys_of_any_algorithm(key)).then(|| format!("{algorithm} does not use it"))
}

/// Why a key of `search` that nothing reads may be dropped.
pub(super) fn search_reason(full_key: &str, args: &Value) -> Option<String> {
    let (path, distribution) = full_key.rsplit_once("__").unwrap_or((full_key, ""));
    let key = path.rsplit('.').next().unwrap_or(path);
    if let Some((_, now)) = RENAMED.iter().find(|(old, _)| *old == key) {
        return Some(format!("SLM Lab does not read it; the key is `{now}`"));
    }
    let fraction = |v: &Value| v.as_f64().is_some_and(|f| f.fract() != 0.0);
    if key == "update_frequency" && args.as_array().is_some_and(|a| a.iter().any(fraction)) {
        return Some("it is not a number of frames; `polyak_coef` takes fractions".into());
    }
    let misnamed = distribution.is_empty() && (args.is_array() && key.ends_with("_choice"));
    misnamed.then(|| "the distribution stands behind two underscores, `__choice`".into())
}

/// The warning about a key that was taken out.
pub(super) fn warning(place: &str, key: &str, why: &str) -> String {
    format!("{place}.{key}: ignored; {why}")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    OnPolicy,
    SelfImitation,
    SoftActorCritic,
    OneNet,
    Unknown,
}

impl Family {
    fn of(algorithm: &str) -> Self {
        match algorithm {
            "Reinforce" | "ActorCritic" | "PPO" => Family::OnPolicy,
            "SIL" | "PPOSIL" => Family::SelfImitation,
            "SoftActorCritic" | "CrossQ" => Family::SoftActorCritic,
            "SARSA" | "VanillaDQN" | "DQNBase" | "DQN" | "DoubleDQN" | "HydraDQN" => Family::OneNet,
            _ => Family::Unknown,
        }
    }
}

fn keys_of_any_algorithm(key: &str) -> bool {
    fn has<T: JsonSchema>(key: &str) -> bool {
        schemars::schema_for!(T).pointer(&format!("/properties/{key}")).is_some()
    }
    has::<alg::Reinforce>(key)
        || has::<alg::ActorCritic>(key)
        || has::<alg::Ppo>(key)
        || has::<alg::Dqn>(key)
        || has::<alg::SoftActorCritic>(key)
        || has::<alg::PpoSil>(key)
}

fn drop_keys(spec: &mut Value, place: &str, keys: &[&str], why: &str, warnings: &mut Vec<String>) {
    let Some(map) = object(spec, place) else { return };
    for key in keys {
        if map.shift_remove(*key).is_some() {
            warnings.push(warning(place, key, why));
        }
    }
}

/// The object at a dotted place.
pub(super) fn object<'a>(spec: &'a mut Value, place: &str) -> Option<&'a mut Map<String, Value>> {
    let pointer = if place.is_empty() { String::new() } else { format!("/{}", place.replace('.', "/")) };
    spec.pointer_mut(&pointer)?.as_object_mut()
}

fn text(spec: &Value, pointer: &str) -> String {
    spec.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string()
}
