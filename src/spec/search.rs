//! The `search` section: dotted key, two underscores and a distribution, with the distribution's arguments.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// A distribution that a searched value is drawn from, after `ray.tune`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// One of the listed values.
    Choice,
    /// `[low, high]`.
    Uniform,
    /// `[low, high, step]`.
    Quniform,
    /// `[low, high]`, uniform in the logarithm.
    Loguniform,
    /// `[low, high, step]`, uniform in the logarithm.
    Qloguniform,
    /// `[mean, std]`.
    Randn,
    /// `[mean, std, step]`.
    Qrandn,
    /// `[low, high)`, whole numbers.
    Randint,
    /// `[low, high]`, whole multiples of a step.
    Qrandint,
    /// `[low, high)`, whole numbers uniform in the logarithm.
    Lograndint,
    /// `[low, high]`, whole multiples of a step uniform in the logarithm.
    Qlograndint,
    /// `[mean, std]`: another name of `randn`.
    Normal,
    /// Every one of the listed values, with every one of the other lists: the grid is run as often as there are trials.
    GridSearch,
}

impl Distribution {
    /// Every distribution with its name and the least and greatest number of its arguments.
    pub const ALL: [(&'static str, Distribution, usize, usize); 13] = [
        ("choice", Distribution::Choice, 1, usize::MAX),
        ("uniform", Distribution::Uniform, 2, 2),
        ("quniform", Distribution::Quniform, 3, 3),
        ("loguniform", Distribution::Loguniform, 2, 3),
        ("qloguniform", Distribution::Qloguniform, 3, 4),
        ("randn", Distribution::Randn, 0, 2),
        ("qrandn", Distribution::Qrandn, 3, 3),
        ("randint", Distribution::Randint, 2, 2),
        ("qrandint", Distribution::Qrandint, 2, 3),
        ("lograndint", Distribution::Lograndint, 2, 3),
        ("qlograndint", Distribution::Qlograndint, 3, 4),
        ("normal", Distribution::Normal, 2, 2),
        ("grid_search", Distribution::GridSearch, 1, usize::MAX),
    ];

    /// Its name in specs.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// One searched key.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchParam {
    /// Dotted place in the spec, for example `agent.net.optim_spec.lr`.
    pub key: String,
    /// What its value is drawn from.
    pub distribution: Distribution,
    /// The distribution's arguments; for `choice` the values themselves.
    pub args: Vec<Value>,
}

impl SearchParam {
    /// The listed values, or the bounds: what a drawn value lies between.
    pub fn samples(&self) -> &[Value] {
        match self.distribution {
            Distribution::Choice | Distribution::GridSearch => &self.args,
            Distribution::Randn | Distribution::Qrandn | Distribution::Normal => &[],
            _ => &self.args[..2],
        }
    }
}

impl SearchParam {
    /// What is wrong with the arguments, if anything is.
    fn fault(&self) -> Option<String> {
        use Distribution as D;
        if matches!(self.distribution, D::Choice | D::GridSearch) {
            return None;
        }
        let numbers: Option<Vec<f64>> = self.args.iter().map(Value::as_f64).collect();
        let Some(numbers) = numbers else {
            return Some("takes numbers alone".to_string());
        };
        let is_whole = |x: &f64| x.fract() == 0.0;
        match self.distribution {
            D::Randn | D::Normal if numbers.get(1).is_some_and(|std| *std < 0.0) => {
                Some("its deviation is negative".to_string())
            }
            D::Qrandn if numbers[1] < 0.0 || numbers[2] <= 0.0 => {
                Some("needs a deviation and a step above 0".to_string())
            }
            D::Randn | D::Normal | D::Qrandn => None,
            _ if numbers[0] >= numbers[1] => Some(format!("{} is not below {}", numbers[0], numbers[1])),
            D::Loguniform | D::Qloguniform | D::Lograndint | D::Qlograndint if numbers[0] <= 0.0 => {
                Some("takes bounds above 0, being logarithmic".to_string())
            }
            D::Quniform | D::Qloguniform | D::Qrandint | D::Qlograndint
                if numbers.get(2).is_some_and(|step| *step <= 0.0) =>
            {
                Some("needs a step above 0".to_string())
            }
            D::Randint | D::Qrandint | D::Lograndint | D::Qlograndint if !numbers.iter().all(is_whole) => {
                Some("takes whole numbers".to_string())
            }
            _ => None,
        }
    }
}

/// The `search` section, in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Search(pub Vec<SearchParam>);

impl Serialize for Search {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|p| (format!("{}__{}", p.key, p.distribution.name()), &p.args)))
    }
}

impl<'de> Deserialize<'de> for Search {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut params = Vec::new();
        flatten("", &Map::deserialize(deserializer)?, &mut params).map_err(serde::de::Error::custom)?;
        Ok(Search(params))
    }
}

impl JsonSchema for Search {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Search".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let names: Vec<&str> = Distribution::ALL.iter().map(|(name, ..)| *name).collect();
        schemars::json_schema!({
            "description": "Dotted key, two underscores and a distribution, with its arguments; objects may nest.",
            "type": "object",
            "patternProperties": { format!("__({})$", names.join("|")): { "type": "array" } },
            "additionalProperties": { "type": "object" }
        })
    }
}

/// Joins nested objects to dotted keys.
fn flatten(place: &str, map: &Map<String, Value>, params: &mut Vec<SearchParam>) -> Result<(), String> {
    use super::by_name::PLACE_END;
    for (key, value) in map {
        let full = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        match value {
            Value::Object(inner) => flatten(&full, inner, params)?,
            Value::Array(args) => {
                let (path, name) = full
                    .rsplit_once("__")
                    .ok_or_else(|| format!("{full}{PLACE_END}no distribution; write `{full}__choice` or another"))?;
                let (_, distribution, least, most) =
                    Distribution::ALL.into_iter().find(|(known, ..)| *known == name).ok_or_else(|| {
                        let known: Vec<String> = Distribution::ALL.iter().map(|(n, ..)| format!("`{n}`")).collect();
                        format!("{full}{PLACE_END}unknown variant `{name}`, expected one of {}", known.join(", "))
                    })?;
                if args.len() < least || args.len() > most {
                    let range = if least == most { least.to_string() } else { format!("{least} or more") };
                    return Err(format!("{full}{PLACE_END}`{name}` takes {range} arguments, found {}", args.len()));
                }
                let param = SearchParam { key: path.to_string(), distribution, args: args.clone() };
                if let Some(fault) = param.fault() {
                    return Err(format!("{full}{PLACE_END}`{name}` {fault}"));
                }
                params.push(param);
            }
            other => return Err(format!("{full}{PLACE_END}invalid type: {other}, expected a list of arguments")),
        }
    }
    Ok(())
}
