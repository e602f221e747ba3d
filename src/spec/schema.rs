//! The JSON Schema of spec files, for editors, generated from the types.

use serde_json::{Value, json};

use super::Spec;

/// The JSON Schema of a spec file: an object of name and spec; names that begin with `_` are free.
pub fn schema() -> Value {
    let mut root = schemars::schema_for!(Spec).to_value();
    let mut definitions = root.as_object_mut().and_then(|map| map.shift_remove("$defs")).unwrap_or_else(|| json!({}));
    if let Some(spec) = root.as_object_mut() {
        spec.shift_remove("$schema");
    }
    definitions["Spec"] = root;
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "slm-fast spec file",
        "type": "object",
        "properties": { "$schema": { "type": "string" } },
        "patternProperties": { "^_": true },
        "additionalProperties": { "$ref": "#/$defs/Spec" },
        "$defs": definitions
    })
}
