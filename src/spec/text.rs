//! From the text of a file to plain JSON: JSON or YAML, `${var}` placeholders, `--set`, and numbers written as text.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Reads a file as JSON, or as YAML where its name ends so.
pub(super) fn parse(path: &Path, text: &str) -> Result<Value> {
    let place = path.display().to_string();
    let is_yaml = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"));
    if is_yaml {
        return serde_saphyr::from_str(text).map_err(|err| {
            let at = err.location().map_or(String::new(), |l| format!(" line {} column {}", l.line(), l.column()));
            let what = err.to_string();
            Error::new(place, format!("not YAML{at}: {}", what.lines().next().unwrap_or_default()))
        });
    }
    serde_json::from_str(&quote_placeholders(text)).map_err(|err| {
        let what = err.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        Error::new(place, format!("not JSON, line {} column {}: {what}", err.line(), err.column()))
    })
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
pub(super) fn set(spec: &mut Value, key: &str, value: Value) -> Result<()> {
    let mut here = spec;
    let mut walked = String::new();
    for part in key.split('.') {
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
        && text.chars().all(|c| c.is_ascii_digit() || "+-.eE_".contains(c));
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
