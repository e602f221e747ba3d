//! Objects whose key `name` chooses the rest of their keys, read so that errors keep the place of the inner key.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Keys of something that parses but is not built: kept as they stand.
pub type Args = Map<String, Value>;

/// Stands between an inner place and its message in the text of an error, since serde's own errors carry no place.
pub(super) const PLACE_END: char = '\u{1f}';

/// Takes `key` out of an object and returns its text.
pub(super) fn take_name<E: serde::de::Error>(map: &mut Map<String, Value>, names: &[&str]) -> Result<String, E> {
    match map.shift_remove("name") {
        Some(Value::String(name)) => Ok(name),
        Some(other) => {
            Err(E::custom(format!("name{PLACE_END}invalid type: {}, expected one of {}", shown(&other), quoted(names))))
        }
        None => Err(E::custom("missing field `name`")),
    }
}

/// Reads the keys that remain beside `name`.
pub(super) fn rest<T: DeserializeOwned, E: serde::de::Error>(map: Map<String, Value>) -> Result<T, E> {
    serde_path_to_error::deserialize(Value::Object(map))
        .map_err(|err| E::custom(format!("{}{PLACE_END}{}", err.path(), err.inner())))
}

/// The error for a `name` that no variant has.
pub(super) fn unknown_name<E: serde::de::Error>(name: &str, names: &[&str]) -> E {
    E::custom(format!("name{PLACE_END}unknown variant `{name}`, expected one of {}", quoted(names)))
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if text.chars().count() > 60 {
        text = text.chars().take(57).collect::<String>() + "...";
    }
    text
}

/// Reads an enum whose variants are chosen by the key `name`, in any case of letters.
macro_rules! by_name {
    ($kind:ident { $($variant:ident),* $(,)? }) => {
        impl $kind {
            /// Every name this key takes.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($variant)),*];

            /// The value of the key `name`.
            pub fn name(&self) -> &'static str {
                match self {
                    $($kind::$variant(_) => stringify!($variant),)*
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut map = serde_json::Map::deserialize(deserializer)?;
                let name: String = crate::spec::by_name::take_name(&mut map, Self::NAMES)?;
                $(if name.eq_ignore_ascii_case(stringify!($variant)) {
                    return crate::spec::by_name::rest(map).map($kind::$variant);
                })*
                Err(crate::spec::by_name::unknown_name(&name, Self::NAMES))
            }
        }
    };
}
pub(super) use by_name;
