//! Loading: a file, the spec chosen in it, placeholders and overrides filled in, read strictly.

use std::path::Path;

use serde_json::Value;

use super::fault::{self, Kind, hint_for};
use super::{SPEC_VERSION, Search, Spec, arc, check, dead, text};
use crate::error::{Error, Result};

/// A spec that was read, and what the reader should know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The spec, with every default filled in.
    pub spec: Spec,
    /// One line for each key that was ignored or read as something else, with its place.
    pub warnings: Vec<String>,
}

/// Reads one spec of a JSON or YAML file.
///
/// `name` chooses among several specs of a file; a saved spec (`{name}_spec.json`) stands alone. `sets` are `--set`
/// pairs: a key that stands as `${key}` in the spec fills that placeholder, any other is a dotted place to override.
///
/// # Errors
/// The file cannot be read or parsed, no such spec, a placeholder without a value, an unknown or missing key, or a
/// value of the wrong kind or out of its range; each with file and place.
pub fn load(path: &Path, name: Option<&str>, sets: &[(String, String)]) -> Result<Loaded> {
    let file = read_file(path)?;
    let (key, spec) = choose(&file, name, path).map_err(|err| err.within(&path.display().to_string()))?;
    from_value(spec.clone(), &key, sets).map_err(|err| {
        let err =
            if err.place.starts_with("--set") { err } else { Error { place: format!("{key}.{}", err.place), ..err } };
        Error { place: err.place.trim_end_matches('.').to_string(), ..err }.within(&path.display().to_string())
    })
}

/// The names of the specs in a file, in its order.
///
/// # Errors
/// The file cannot be read or parsed.
pub fn names(path: &Path) -> Result<Vec<String>> {
    let file = read_file(path)?;
    Ok(if is_spec(&file) { vec![own_name(&file, path)] } else { spec_names(&file) })
}

/// Reads one spec that is already JSON; places in errors start at its sections.
///
/// # Errors
/// As [`load`], without the file.
pub fn from_value(mut value: Value, name: &str, sets: &[(String, String)]) -> Result<Loaded> {
    let mut name = name.to_string();
    let mut warnings = Vec::new();
    if !value.is_object() {
        return Err(Error::new("", format!("a spec is an object, found {value}")));
    }
    for (key, with) in sets {
        if text::fill(&mut value, key, with) {
            // Runs of one spec in several environments get folders of their own, named as SLM Lab names them.
            if key == "env" {
                name = format!("{name}_{}", short_env(with));
            }
        } else if key == "name" {
            name.clone_from(with);
        } else if key.contains('.') {
            text::set(&mut value, key, text::set_value(with))?;
        } else {
            return Err(Error::new(format!("--set {key}"), format!("there is no `${{{key}}}` in the spec"))
                .hint("write the whole place, for example `--set env.num_envs=8`"));
        }
    }
    name_is_a_file_name(&name)?;
    placeholders_filled(&value)?;
    text::plain_numbers(&mut value);
    sections_are_objects(&value)?;
    version_known(&value)?;
    dead::take_out(&mut value, &mut warnings);
    defaults_of_context(&mut value);
    layers_stated(&value)?;
    constants_agree(&value, &mut warnings);
    let search = value.as_object_mut().and_then(|map| map.shift_remove("search"));

    let mut spec = typed(&mut value, &mut warnings)?;
    if let Some(search) = search.filter(|s| !s.is_null()) {
        spec.search = Some(searched(search, &value, &mut warnings)?);
    }
    spec.name = name;
    Ok(Loaded { spec, warnings })
}

impl Spec {
    /// This spec with other values at dotted places, read as strictly as a file; without its `search` section.
    ///
    /// # Errors
    /// A place that does not exist, a value of the wrong kind or out of its range.
    pub fn with(&self, values: &[(String, Value)]) -> Result<Spec> {
        let bare = Spec { search: None, ..self.clone() };
        let mut value = serde_json::to_value(&bare)
            .map_err(|err| Error::new("", format!("the spec cannot be expressed in JSON: {err}")))?;
        for (key, with) in values {
            text::set(&mut value, key, with.clone())?;
        }
        from_value(value, &self.name, &[]).map(|loaded| loaded.spec)
    }
}

/// Reads the sections, setting aside keys that are known to mean nothing.
fn typed(value: &mut Value, warnings: &mut Vec<String>) -> Result<Spec> {
    loop {
        let fault = match fault::read::<Spec>(value) {
            Ok(spec) => {
                check::in_range(&spec)?;
                return Ok(spec);
            }
            Err(fault) => fault,
        };
        let (place, key) = fault.parent_and_key();
        let algorithm = value.pointer("/agent/algorithm/name").and_then(Value::as_str).unwrap_or_default().to_string();
        let reason = matches!(fault.kind, Kind::UnknownKey(_)).then(|| dead::reason(place, key, &algorithm)).flatten();
        let taken = reason.filter(|_| dead::object(value, place).is_some_and(|m| m.shift_remove(key).is_some()));
        match taken {
            Some(why) => warnings.push(dead::warning(place, key, &why)),
            None => return Err(with_layout_hint(value, fault.into_error())),
        }
    }
}

/// SLM Lab 4 wrote `agent` and `env` as lists of one object.
fn with_layout_hint(value: &Value, err: Error) -> Error {
    let old = ["agent", "env"].iter().any(|k| value.get(k).is_some_and(Value::is_array));
    if old { err.hint("this is the layout of SLM Lab 4; write `agent` and `env` as objects, not lists") } else { err }
}

/// Reads `search`, and tries every listed value and bound in the spec.
fn searched(mut search: Value, value: &Value, warnings: &mut Vec<String>) -> Result<Search> {
    drop_stale(&mut search, "", warnings);
    let search: Search = fault::read(&search).map_err(|fault| {
        let err = fault.into_error();
        Error { place: format!("search.{}", err.place), ..err }
    })?;
    for param in &search.0 {
        for sample in param.samples() {
            let mut changed = value.clone();
            let tried =
                text::set(&mut changed, &param.key, sample.clone()).and_then(|()| typed(&mut changed, &mut Vec::new()));
            if let Err(err) = tried {
                let place = format!("search.{}__{}", param.key, param.distribution.name());
                if err.place != param.key {
                    // One value of a search may not go with the file's values of other keys.
                    warnings.push(format!("{place}: with {sample}, {}: {}", err.place, err.what));
                    continue;
                }
                return Err(Error::new(place, format!("{sample}: {}", err.what)).hint(err.hint));
            }
        }
    }
    Ok(search)
}

/// Takes keys of SLM Lab's earlier versions out of `search`.
fn drop_stale(search: &mut Value, place: &str, warnings: &mut Vec<String>) {
    let Value::Object(map) = search else { return };
    map.retain(|key, args| {
        let why = dead::search_reason(key, args);
        if let Some(why) = &why {
            warnings.push(dead::warning(&format!("search{place}"), key, why));
        }
        why.is_none()
    });
    for (key, inner) in map.iter_mut() {
        drop_stale(inner, &format!("{place}.{key}"), warnings);
    }
}

/// Defaults that depend on other keys, and nets written as lists of layers.
fn defaults_of_context(value: &mut Value) {
    let plays_randomly = value.pointer("/agent/algorithm/name").and_then(Value::as_str) == Some("Random");
    if let Some(env) = dead::object(value, "env") {
        for (switch, clip) in [("normalize_obs", "clip_obs"), ("normalize_reward", "clip_reward")] {
            if env.get(switch) == Some(&Value::Bool(true)) && !env.contains_key(clip) {
                env.insert(clip.into(), 10.into());
            }
        }
    }
    let keys = dead::object(value, "agent.algorithm").into_iter().flat_map(|map| map.iter_mut());
    for (_, schedule) in keys.filter(|(key, _)| key.ends_with("_spec")) {
        let Some(schedule) = schedule.as_object_mut().filter(|s| s.contains_key("start_val")) else { continue };
        let start_val = schedule["start_val"].clone();
        let start_step = schedule.entry("start_step").or_insert(0.into()).clone();
        for (key, default) in [("end_val", start_val), ("end_step", start_step)] {
            if schedule.get(key).is_none_or(Value::is_null) {
                schedule.insert(key.into(), default);
            }
        }
    }
    // SLM Lab's n-step returns are as long as the batch, whatever `training_frequency` says.
    if let Some(keys) = dead::object(value, "agent.algorithm")
        && keys.get("name").and_then(Value::as_str) == Some("ActorCritic")
        && keys.get("lam").is_none_or(Value::is_null)
        && let Some(steps) = keys.get("num_step_returns").filter(|steps| !steps.is_null()).cloned()
    {
        keys.entry("training_frequency").or_insert(steps);
    }
    for section in ["agent.net", "agent.critic_net"] {
        let Some(net) = dead::object(value, section) else { continue };
        let nested = net.get("hid_layers").and_then(Value::as_array).is_some_and(|l| l.iter().any(Value::is_array));
        if nested
            && net.get("type").and_then(Value::as_str) == Some("HydraMLPNet")
            && let Some(layers) = net.shift_remove("hid_layers")
        {
            net.insert("hydra_layers".into(), layers);
        }
        if plays_randomly && !net.contains_key("type") {
            net.insert("type".into(), "MLPNet".into());
        }
        arc::to_mlp(net);
    }
}

/// Warns of numbers that another key overrules: the `end_val` of `no_decay` (SLM Lab reads that one and not
/// `start_val`; here `start_val` is the value), and the `training_frequency` of n-step returns.
fn constants_agree(value: &Value, warnings: &mut Vec<String>) {
    let keys = value.pointer("/agent/algorithm").and_then(Value::as_object);
    if let Some(keys) = keys.filter(|keys| keys.get("name").and_then(Value::as_str) == Some("ActorCritic"))
        && keys.get("lam").is_none_or(Value::is_null)
        && let Some(steps) = keys.get("num_step_returns").filter(|steps| !steps.is_null())
        && keys.get("training_frequency").is_some_and(|frequency| frequency != steps)
    {
        let what = format!("ignored; n-step returns take batches of `num_step_returns`, {steps}");
        warnings.push(format!("agent.algorithm.training_frequency: {what}"));
    }
    for (key, schedule) in keys.into_iter().flatten() {
        if schedule.get("name").and_then(Value::as_str) == Some("no_decay")
            && schedule["start_val"] != schedule["end_val"]
        {
            let (start, end) = (&schedule["start_val"], &schedule["end_val"]);
            warnings
                .push(format!("agent.algorithm.{key}: no_decay stays at `start_val` {start}; `end_val` {end} ignored"));
        }
    }
}

/// An MLPNet states its layers, a RecurrentNet its cell's units; for other nets, and for none, they have a default.
fn layers_stated(value: &Value) -> Result<()> {
    let Some(net) = value.pointer("/agent/net").and_then(Value::as_object) else { return Ok(()) };
    let plays_randomly = value.pointer("/agent/algorithm/name").and_then(Value::as_str) == Some("Random");
    let kind = net.get("type").and_then(Value::as_str);
    if kind == Some("RecurrentNet") && !net.contains_key("rnn_hidden_size") {
        return Err(Error::new("agent.net.rnn_hidden_size", "missing key")
            .hint("a RecurrentNet states the units of its cell, for example `64`"));
    }
    if plays_randomly || kind != Some("MLPNet") {
        return Ok(());
    }
    for key in ["hid_layers", "hid_layers_activation"] {
        let split = net.contains_key(&format!("actor_{key}")) && net.contains_key(&format!("critic_{key}"));
        if !net.contains_key(key) && !split {
            return Err(Error::new(format!("agent.net.{key}"), "missing key").hint(match key {
                "hid_layers" => "an MLPNet states the widths of its hidden layers, for example `[64, 64]`",
                _ => "an MLPNet states its activation, for example `tanh`",
            }));
        }
    }
    Ok(())
}

/// Refuses lists and words where an object belongs; a typed read would take a list for an object's values in order.
fn sections_are_objects(value: &Value) -> Result<()> {
    let refuse = |place: &str, found: Option<&Value>| match found {
        None | Some(Value::Null | Value::Object(_)) => Ok(()),
        Some(Value::Array(_)) => Err(Error::new(place, "expected an object, found a list")),
        Some(other) => Err(Error::new(place, format!("expected an object, found {other}"))),
    };
    for section in ["agent", "env", "meta"] {
        refuse(section, value.get(section)).map_err(|err| with_layout_hint(value, err))?;
    }
    for (section, keys) in [
        ("agent", &["algorithm", "memory", "net", "critic_net"][..]),
        ("meta", &["search_resources", "search_scheduler"][..]),
    ] {
        for key in keys {
            refuse(&format!("{section}.{key}"), value[section].get(key))?;
        }
    }
    for section in ["algorithm", "net", "critic_net"] {
        let keys = value.pointer(&format!("/agent/{section}")).and_then(Value::as_object).into_iter().flatten();
        for (key, found) in keys.filter(|(key, _)| key.ends_with("_spec") || *key == "entropy_anneal") {
            refuse(&format!("agent.{section}.{key}"), Some(found))?;
        }
    }
    Ok(())
}

/// Folders and files of a run are called by the spec's name, so it must not lead out of the data folder.
fn name_is_a_file_name(name: &str) -> Result<()> {
    let leads_out = |c: char| matches!(c, '/' | '\\') || c.is_control();
    if name.trim().is_empty() || name.contains(leads_out) {
        return Err(Error::new("name", format!("`{}` cannot name a folder", name.escape_debug()))
            .hint("a spec's name is the name of its run's folder; use letters, digits, `_`, `-` and `.`"));
    }
    Ok(())
}

fn version_known(value: &Value) -> Result<()> {
    match value.pointer("/meta/spec_version").and_then(Value::as_u64) {
        Some(v) if v > u64::from(SPEC_VERSION) => Err(Error::new(
            "meta.spec_version",
            format!("the spec is of version {v}, this program reads up to {SPEC_VERSION}"),
        )
        .hint("install a newer slm-fast")),
        _ => Ok(()),
    }
}

fn placeholders_filled(value: &Value) -> Result<()> {
    let mut found = Vec::new();
    text::unfilled("", value, &mut found);
    let Some((first, _)) = found.first() else { return Ok(()) };
    let mut names: Vec<&str> = Vec::new();
    for (_, name) in &found {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let places: Vec<String> =
        found.iter().map(|(place, name)| format!("`${{{name}}}` at {}", place.trim_start_matches('.'))).collect();
    let sets: Vec<String> = names.iter().map(|n| format!("--set {n}=VALUE")).collect();
    Err(Error::new(first.trim_start_matches('.'), format!("placeholders without a value: {}", places.join(", ")))
        .hint(format!("add {}", sets.join(" "))))
}

fn read_file(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(|err| Error::io(path, "cannot read the spec", &err))?;
    let content = String::from_utf8(bytes).map_err(|_| Error::new(path.display().to_string(), "not a text file"))?;
    text::parse(path, &content)
}

/// The spec of a file that is meant, with its name.
fn choose<'a>(file: &'a Value, name: Option<&str>, path: &Path) -> Result<(String, &'a Value)> {
    let Value::Object(map) = file else {
        return Err(Error::new("", "a spec file is an object of name and spec"));
    };
    if is_spec(file) {
        let own = own_name(file, path);
        return match name {
            Some(asked) if asked != own => {
                Err(Error::new("", format!("holds the one spec `{own}`, not `{asked}`")).hint("leave the name out"))
            }
            _ => Ok((own, file)),
        };
    }
    let names = spec_names(file);
    match (name, names.as_slice()) {
        (_, []) => Err(Error::new("", "holds no spec").hint("a spec file is an object of name and spec")),
        (None, [only]) => Ok((only.clone(), &map[only])),
        (None, _) => Err(Error::new("", format!("holds {} specs: {}", names.len(), names.join(", ")))
            .hint("name one of them after the file")),
        (Some(asked), _) if names.iter().any(|n| n == asked) => Ok((asked.to_string(), &map[asked])),
        (Some(asked), _) => {
            Err(Error::new("", format!("holds no spec `{asked}`")).hint(hint_for(asked, &names, "specs in this file")))
        }
    }
}

/// A saved spec stands alone, without a name above it.
fn is_spec(file: &Value) -> bool {
    ["agent", "env", "meta"].iter().all(|k| file.get(k).is_some())
}

fn own_name(file: &Value, path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    file.get("name").and_then(Value::as_str).map_or(stem, str::to_string)
}

/// Keys that begin with `_` hold YAML anchors, and `$schema` is for editors.
fn spec_names(file: &Value) -> Vec<String> {
    file.as_object().into_iter().flat_map(|m| m.keys()).filter(|k| !k.starts_with(['_', '$'])).cloned().collect()
}

/// `ALE/Pong-v5` is `pong`.
fn short_env(env: &str) -> String {
    let game = env.rsplit('/').next().unwrap_or(env);
    game.split('-').next().unwrap_or(game).to_lowercase()
}
