//! Turns serde's messages into errors that name the place, what was expected and what was found, and a way out.

use serde_json::Value;

use super::by_name::PLACE_END;
use crate::error::Error;

/// A typed read that failed, before it is known whether the program or the user is to settle it.
#[derive(Debug)]
pub(super) struct Fault {
    /// Dotted place inside the spec.
    pub place: String,
    /// What serde said about it.
    pub kind: Kind,
}

/// What a typed read can fail with.
#[derive(Debug)]
pub(super) enum Kind {
    /// A key that nothing reads; the keys that are read there.
    UnknownKey(Vec<String>),
    /// A key that must be there.
    MissingKey,
    /// A word out of a list, and that list.
    UnknownWord(String, Vec<String>),
    /// Anything else, as a sentence.
    Other(String),
}

/// Reads a typed value out of JSON.
pub(super) fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|err| Fault::new(&err.path().to_string(), &err.inner().to_string()))
}

impl Fault {
    fn new(path: &str, message: &str) -> Self {
        // An object read by name reports its inner places in front of the message.
        let (inner, message) = message.rsplit_once(PLACE_END).unwrap_or(("", message));
        let mut places: Vec<&str> = std::iter::once(path)
            .chain(inner.split(PLACE_END))
            .flat_map(|p| p.split('.'))
            .filter(|p| !p.is_empty() && *p != "?")
            .collect();
        let quoted = quoted(message);
        let first = quoted.first().map_or("", String::as_str).to_string();
        let kind = if message.starts_with("unknown field") {
            if places.last() != Some(&first.as_str()) {
                places.push(&first);
            }
            Kind::UnknownKey(quoted[1..].to_vec())
        } else if message.starts_with("missing field") {
            places.push(&first);
            Kind::MissingKey
        } else if message.starts_with("unknown variant") {
            Kind::UnknownWord(first.clone(), quoted[1..].to_vec())
        } else if let Some((found, expected)) = message
            .strip_prefix("invalid type: ")
            .or(message.strip_prefix("invalid value: "))
            .and_then(|m| m.split_once(", expected "))
        {
            Kind::Other(format!("expected {}, found {}", expected_words(expected), found_words(found)))
        } else if let Some((found, expected)) =
            message.strip_prefix("invalid length ").and_then(|m| m.split_once(", expected "))
        {
            Kind::Other(format!("expected {}, found a list of length {found}", expected_words(expected)))
        } else {
            Kind::Other(message.to_string())
        };
        Fault { place: places.join(".").replace(".[", "["), kind }
    }

    /// The place of the object that holds the key, and the key.
    pub fn parent_and_key(&self) -> (&str, &str) {
        self.place.rsplit_once('.').unwrap_or(("", &self.place))
    }

    /// The message for a user.
    pub fn into_error(self) -> Error {
        let key = self.parent_and_key().1.to_string();
        match self.kind {
            Kind::UnknownKey(known) => {
                Error::new(self.place, "unknown key").hint(hint_for(&key, &known, "keys known here"))
            }
            Kind::MissingKey => Error::new(self.place, "missing key").hint("add it; it has no default"),
            Kind::UnknownWord(word, known) => {
                Error::new(self.place, format!("unknown value `{word}`")).hint(hint_for(&word, &known, "one of"))
            }
            Kind::Other(what) => Error::new(self.place, what),
        }
    }
}

/// `did you mean X?` where something known is near, else the list of what is known.
pub(super) fn hint_for(word: &str, known: &[String], list: &str) -> String {
    let near = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&word.to_lowercase(), &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= 1 + word.len().max(k.len()) / 4)
        .min_by_key(|(distance, _)| *distance);
    // A word cut short or run on, such as `act_policy` or `training_epochs_num`, is near as well.
    let near = near.map(|(_, k)| k).or_else(|| {
        let alike = known.iter().map(|k| (strsim::jaro_winkler(word, k), k)).max_by(|a, b| a.0.total_cmp(&b.0));
        alike.filter(|(score, _)| *score > 0.85).map(|(_, k)| k)
    });
    match near {
        Some(k) => format!("did you mean `{k}`?"),
        None if known.is_empty() => "this object takes no other key".into(),
        None => format!("{list}: {}", known.join(", ")),
    }
}

/// Every word between backquotes.
fn quoted(message: &str) -> Vec<String> {
    message.split('`').skip(1).step_by(2).map(str::to_string).collect()
}

fn expected_words(expected: &str) -> String {
    match expected {
        "usize" | "u64" | "u32" => "a whole number of at least 0".into(),
        "i64" => "a whole number".into(),
        "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a string" => "a text".into(),
        "a sequence" => "a list".into(),
        "a map" => "an object".into(),
        other if other.starts_with("struct ") => "an object".into(),
        other if other.starts_with("an array of length") => other.replace("an array of length", "a list of length"),
        other if other.starts_with("one of") || other.starts_with('`') => other.to_string(),
        other => other.to_string(),
    }
}

fn found_words(found: &str) -> String {
    match found {
        "map" => "an object".into(),
        "sequence" => "a list".into(),
        "null" | "unit value" => "null".into(),
        other => match other.split_once(' ') {
            Some(("integer" | "boolean" | "floating", _)) => quoted(other).first().cloned().unwrap_or(other.into()),
            Some(("string", text)) => format!("the text {text}"),
            _ => other.to_string(),
        },
    }
}
