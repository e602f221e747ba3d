//! From the text of a file to plain JSON: JSON or YAML, `${var}` placeholders, `--set`, and numbers written as text.

use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::Error;

/// Reads a file as JSON, or as YAML where its name ends so.
pub(super) fn parse(path: &Path, text: &str) -> Result<Value, Error> {
    let place = path.display().to_string();
    // Some editors of Windows begin a file with a mark of its encoding.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(Error::new(place, "the file is empty").hint("a spec file is an object of name and spec"));
    }
    let is_yaml = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"));
    if is_yaml {
        return serde_saphyr::from_str(text).map_err(|err| {
            let at = err.location().map_or(String::new(), |l| format!(", line {} column {}", l.line(), l.column()));
            let what = err.to_string();
            // The parser repeats the place in front of its sentence and draws the line below it.
            let what = what.lines().next().unwrap_or_default();
            let what = what.strip_prefix("error: ").unwrap_or(what);
            let what = if what.starts_with("line ") { what.split_once(": ").map_or(what, |(_, w)| w) } else { what };
            // Advice for programmers stands behind it.
            let what = [", set DuplicateKeyPolicy", "; use from_str"]
                .iter()
                .fold(what, |what, advice| what.split(advice).next().unwrap_or(what));
            Error::new(place, format!("not YAML{at}: {what}"))
        });
    }
    serde_json::from_str::<Once>(&quote_placeholders(text)).map(|once| once.0).map_err(|err| {
        let what = err.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        let error = Error::new(place, format!("not JSON, line {} column {}: {what}", err.line(), err.column()));
        let rest =
            text.lines().nth(err.line().saturating_sub(1)).and_then(|line| line.get(err.column().saturating_sub(1)..));
        match rest {
            Some(rest) if rest.starts_with(['/', '#']) => error.hint("JSON has no comments; YAML has"),
            _ => error,
        }
    })
}

/// JSON whose objects hold every key once.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Once)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Once(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` stands twice in one object")));
            }
            let Once(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

/// Puts quotes around `${var}` outside of strings, where SLM Lab's substitution makes it JSON.
fn quote_placeholders(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped, mut in_placeholder) = (false, false, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !in_string && !in_placeholder && c == '$' && chars.peek() == Some(&'{') {
            in_placeholder = true;
            out.push('"');
        }
        out.push(c);
        if in_placeholder && c == '}' {
            in_placeholder = false;
            out.push('"');
        }
        match c {
            '"' if !escaped && !in_placeholder => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && c == '\\' && !escaped;
    }
    out
}

/// Fills `${key}` in every text of the tree; a whole text that becomes a number is one. Returns whether any was there.
pub(super) fn fill(value: &mut Value, key: &str, with: &str) -> bool {
    match value {
        Value::String(text) => {
            let placeholder = format!("${{{key}}}");
            if !text.contains(&placeholder) {
                return false;
            }
            let filled = text.replace(&placeholder, with);
            *value = number(&filled).unwrap_or(Value::String(filled));
            true
        }
        Value::Array(items) => items.iter_mut().fold(false, |any, item| fill(item, key, with) | any),
        Value::Object(map) => map.values_mut().fold(false, |any, item| fill(item, key, with) | any),
        _ => false,
    }
}

/// The places of the placeholders that are left, with their names.
pub(super) fn unfilled(place: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => {
            for part in text.split("${").skip(1) {
                if let Some((name, _)) = part.split_once('}') {
                    found.push((place.to_string(), name.to_string()));
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| unfilled(&format!("{place}[{i}]"), item, found));
        }
        Value::Object(map) => map.iter().for_each(|(k, item)| unfilled(&format!("{place}.{k}"), item, found)),
        _ => {}
    }
}

/// Sets a dotted key, making the objects on its way.
pub(super) fn set(spec: &mut Value, key: &str, value: Value) -> Result<(), Error> {
    let mut here = spec;
    let mut walked = String::new();
    for part in key.split('.') {
        if part.is_empty() {
            return Err(Error::new(format!("--set {key}"), "a part of this place is empty"));
        }
        if here.is_null() {
            *here = Value::Object(Map::new());
        }
        let Value::Object(map) = here else {
            return Err(Error::new(
                format!("--set {key}"),
                format!("`{walked}` is not an object, so it has no `{part}`"),
            ));
        };
        if !walked.is_empty() {
            walked.push('.');
        }
        walked.push_str(part);
        here = map.entry(part.to_string()).or_insert(Value::Null);
    }
    *here = value;
    Ok(())
}

/// A `--set` value: JSON where it is JSON, else a number, else the text itself.
pub(super) fn set_value(text: &str) -> Value {
    serde_json::from_str(text).ok().or_else(|| number(text)).unwrap_or_else(|| Value::String(text.to_string()))
}

/// Turns numbers written as text, and whole numbers written as `1e6`, into plain numbers.
///
/// YAML 1.1 reads `3e-4` as text, and a filled placeholder stands in quotes.
pub(super) fn plain_numbers(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(n) = number(text) {
                *value = n;
            }
        }
        Value::Number(n) => {
            if let Some(whole) = n.as_f64().filter(|_| n.is_f64()).and_then(whole) {
                *value = whole;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plain_numbers),
        Value::Object(map) => {
            for (key, item) in map.iter_mut() {
                // Names, times and hashes may look like numbers and stay text.
                let is_text =
                    matches!(key.as_str(), "name" | "git_sha" | "experiment_ts" | "predir") || key.ends_with("prepath");
                if !is_text {
                    plain_numbers(item);
                }
            }
        }
        _ => {}
    }
}

/// The number a text is, in plain decimal or exponent form.
fn number(text: &str) -> Option<Value> {
    let looks = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    if !looks {
        return None;
    }
    if let Ok(n) = text.parse::<i64>() {
        return Some(n.into());
    }
    let n = text.parse::<f64>().ok().filter(|n| n.is_finite())?;
    whole(n).or_else(|| serde_json::Number::from_f64(n).map(Value::Number))
}

/// A float without a fraction as a whole number, where that is exact.
fn whole(n: f64) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (n.fract() == 0.0 && n.abs() <= EXACT).then(|| Value::from(n as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_written_as_text_are_numbers() {
        let cases = [
            ("3e-4", json!(3e-4)),
            ("1e7", json!(10_000_000)),
            ("-2", json!(-2)),
            ("0.5", json!(0.5)),
            ("10e6", json!(10_000_000)),
        ];
        for (text, expected) in cases {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        for text in ["", "inf", "NaN", "e5", "1_000", "CartPole-v1", "--1", "1e999"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn names_and_hashes_stay_text() {
        let mut value =
            json!({ "name": "12", "git_sha": "12e4", "prepath": "1", "lr": "12", "frames": [1e6, "2e3", 0.5] });
        plain_numbers(&mut value);
        assert_eq!(
            value,
            json!({ "name": "12", "git_sha": "12e4", "prepath": "1", "lr": 12, "frames": [1_000_000, 2000, 0.5] })
        );
    }

    #[test]
    fn placeholders_stand_with_and_without_quotes() {
        let text = r#"{ "a": ${n}, "b": "${n}", "c": "x \" ${n}", "d": "${m}" }"#;
        let mut value = parse(Path::new("x.json"), text).expect("JSON");
        assert!(fill(&mut value, "n", "1e3"));
        assert!(!fill(&mut value, "n", "1e3"));
        assert_eq!(value, json!({ "a": 1000, "b": 1000, "c": "x \" 1e3", "d": "${m}" }));
        let mut left = Vec::new();
        unfilled("", &value, &mut left);
        assert_eq!(left, [(".d".to_string(), "m".to_string())]);
    }

    #[test]
    fn set_makes_its_way_and_stops_at_values() {
        let mut value = json!({ "env": { "name": "x" }, "meta": null });
        set(&mut value, "meta.random_seed", set_value("7")).expect("a new key");
        set(&mut value, "env.clip_reward", set_value("[-1, 1]")).expect("a new key");
        assert_eq!(value, json!({ "env": { "name": "x", "clip_reward": [-1, 1] }, "meta": { "random_seed": 7 } }));
        assert!(set(&mut value, "env.name.x", json!(1)).is_err());
    }
}
