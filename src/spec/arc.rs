//! SLM Lab's `arc`: a net as a list of PyTorch layers. A chain of linear layers with one activation becomes an MLP, with
//! or without Batch Renormalisation between each and its activation.

use serde_json::{Map, Value};

use super::net::{Activation, BatchRenorm};

/// What an `arc` that is a plain chain says of its hidden layers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chain {
    pub widths: Vec<usize>,
    pub activation: Activation,
    /// Behind every linear layer, or behind none.
    pub batch_renorm: Option<BatchRenorm>,
}

/// The chain that an `arc` is, or what in it is none.
pub(super) fn chain(arc: &Value) -> Result<Chain, String> {
    let modules = arc.get("modules").and_then(Value::as_object).ok_or("an `arc` without `modules`")?;
    if modules.len() != 1 {
        return Err(format!("an `arc` of {} modules", modules.len()));
    }
    let module = modules.values().next().and_then(Value::as_object).ok_or("an empty module")?;
    let layers = match module.get("Sequential") {
        Some(Value::Array(layers)) if module.len() == 1 => layers,
        _ => return Err(format!("the module {}", module.keys().cloned().collect::<Vec<_>>().join(", "))),
    };
    let (mut widths, mut activation, mut open) = (Vec::new(), None, false);
    let mut renorms: Vec<BatchRenorm> = Vec::new();
    for layer in layers {
        let (name, args) = layer_parts(layer).ok_or_else(|| format!("the layer {layer}"))?;
        if name == "LazyLinear" || name == "Linear" {
            let width = args.get("out_features").and_then(Value::as_u64).filter(|w| *w > 0);
            let others = args.keys().any(|k| k != "out_features" && k != "in_features");
            let Some(width) = width.filter(|_| !others) else {
                return Err(format!("the layer {layer}"));
            };
            if open {
                return Err("a linear layer with no activation behind it".into());
            }
            widths.push(width as usize);
            open = true;
        } else if name == "LazyBatchRenorm1d" {
            let renorm = serde_json::from_value(args.into()).map_err(|_| format!("the layer {layer}"))?;
            if !open || renorms.len() + 1 != widths.len() {
                return Err(format!("{name} elsewhere than right behind every linear layer"));
            }
            renorms.push(renorm);
        } else {
            let own = args.keys().all(|k| k == "inplace");
            let Some(found) = Activation::from_name(&name).filter(|_| own) else {
                return Err(format!("the layer {name}"));
            };
            if !open {
                return Err(format!("{name} without a linear layer in front"));
            }
            if activation.is_some_and(|a| a != found) {
                return Err("several activations in one net".into());
            }
            activation = Some(found);
            open = false;
        }
    }
    if open {
        return Err("a linear layer with no activation behind it".into());
    }
    if !renorms.is_empty() && renorms.len() < widths.len() {
        return Err("LazyBatchRenorm1d elsewhere than right behind every linear layer".into());
    }
    if renorms.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err("LazyBatchRenorm1d with several sets of numbers in one net".into());
    }
    Ok(Chain { widths, activation: activation.unwrap_or_default(), batch_renorm: renorms.pop() })
}

/// `{Name: args}` or `Name`.
fn layer_parts(layer: &Value) -> Option<(String, Map<String, Value>)> {
    match layer {
        Value::String(name) => Some((name.clone(), Map::new())),
        Value::Object(map) if map.len() == 1 => {
            let (name, args) = map.iter().next()?;
            match args {
                Value::Null => Some((name.clone(), Map::new())),
                Value::Object(args) => Some((name.clone(), args.clone())),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Rewrites a TorchArcNet whose every `arc` is a plain chain as an MLPNet with the same layers.
pub(super) fn to_mlp(net: &mut Map<String, Value>) {
    if net.get("type").and_then(Value::as_str) != Some("TorchArcNet") {
        return;
    }
    let of = |key: &str| net.get(key).filter(|v| !v.is_null()).map(chain);
    let Ok(common) = of("arc").transpose() else { return };
    let Ok(actor) = of("actor_arc").transpose() else { return };
    let Ok(critic) = of("critic_arc").transpose() else { return };
    let Some(all) = common.clone().or_else(|| actor.clone()).or_else(|| critic.clone()) else {
        return;
    };
    // `batch_renorm` holds for the whole net
    if [&actor, &critic].into_iter().flatten().any(|own| own.batch_renorm != all.batch_renorm) {
        return;
    }

    for key in ["arc", "actor_arc", "critic_arc"] {
        net.shift_remove(key);
    }
    // The layers state the activation; the key that MLPNet reads it from only chose the initial gain.
    let gain = net.get("hid_layers_activation").and_then(Value::as_str).unwrap_or("relu").to_string();
    net.insert("type".into(), "MLPNet".into());
    if net.get("normalize") == Some(&Value::Bool(false)) {
        net.shift_remove("normalize");
    }
    net.insert("hid_layers".into(), all.widths.clone().into());
    net.insert("hid_layers_activation".into(), name(all.activation));
    if Activation::from_name(&gain) != Some(all.activation) {
        net.insert("init_activation".into(), gain.into());
    }
    if let Some(renorm) = all.batch_renorm {
        net.insert("batch_renorm".into(), serde_json::to_value(renorm).expect("plain numbers"));
    }
    for (prefix, own) in [("actor", actor), ("critic", critic)] {
        if let Some(own) = own {
            if own.widths != all.widths {
                net.insert(format!("{prefix}_hid_layers"), own.widths.into());
            }
            if own.activation != all.activation {
                net.insert(format!("{prefix}_hid_layers_activation"), name(own.activation));
            }
        }
    }
}

fn name(activation: Activation) -> Value {
    let known = Activation::NAMES.iter().find(|(_, a)| *a == activation);
    Value::from(known.map_or("identity", |(n, _)| n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn arc(layers: Value) -> Value {
        json!({
            "modules": { "body": { "Sequential": layers } },
            "graph": { "input": "x", "modules": { "body": ["x"] }, "output": "body" }
        })
    }

    #[test]
    fn a_chain_of_linear_layers_is_read() {
        let layers = json!([{ "LazyLinear": { "out_features": 64 } }, { "ReLU": null }, { "Linear": { "out_features": 32 } }, "ReLU"]);
        let read = |widths, activation, batch_renorm| Ok(Chain { widths, activation, batch_renorm });
        assert_eq!(chain(&arc(layers)), read(vec![64, 32], Activation::Relu, None));
        assert_eq!(chain(&arc(json!([]))), read(vec![], Activation::Identity, None));
        let renorm = json!({ "LazyBatchRenorm1d": { "momentum": 0.02, "eps": 1e-3, "warmup_steps": 5000 } });
        let layers = json!([{ "LazyLinear": { "out_features": 9 } }, renorm, "ReLU"]);
        let numbers = BatchRenorm { momentum: 0.02, eps: 1e-3, warmup_steps: 5_000, ..BatchRenorm::default() };
        assert_eq!(chain(&arc(layers)), read(vec![9], Activation::Relu, Some(numbers)));
    }

    #[test]
    fn what_is_no_chain_is_named() {
        let linear = json!({ "LazyLinear": { "out_features": 64 } });
        let renorm = |momentum: f64| json!({ "LazyBatchRenorm1d": { "momentum": momentum } });
        let misplaced = "LazyBatchRenorm1d elsewhere than right behind every linear layer";
        for (layers, expected) in [
            (json!([{ "LazyConv2d": { "out_channels": 32, "kernel_size": 8 } }]), "the layer LazyConv2d"),
            (json!([linear, { "LayerNorm": { "normalized_shape": [64] } }, "ReLU"]), "the layer LayerNorm"),
            (json!([linear]), "a linear layer with no activation behind it"),
            (json!([linear, linear, "Tanh"]), "a linear layer with no activation behind it"),
            (json!([linear, "Tanh", linear, "ReLU"]), "several activations in one net"),
            (json!(["Tanh", linear]), "Tanh without a linear layer in front"),
            (json!([linear, "ReLU", renorm(0.1)]), misplaced),
            (json!([linear, renorm(0.1), renorm(0.1), "ReLU"]), misplaced),
            (json!([linear, renorm(0.1), "ReLU", linear, "ReLU"]), misplaced),
            (json!([linear, "ReLU", linear, renorm(0.1), "ReLU"]), misplaced),
            (
                json!([linear, renorm(0.1), "ReLU", linear, renorm(0.2), "ReLU"]),
                "LazyBatchRenorm1d with several sets of numbers in one net",
            ),
            (
                json!([linear, { "LazyBatchRenorm1d": { "affine": false } }, "ReLU"]),
                "the layer {\"LazyBatchRenorm1d\":{\"affine\":false}}",
            ),
            (
                json!([{ "LazyLinear": { "out_features": 64, "bias": false } }]),
                "the layer {\"LazyLinear\":{\"out_features\":64,\"bias\":false}}",
            ),
        ] {
            assert_eq!(chain(&arc(layers)), Err(expected.to_string()));
        }
        assert!(chain(&json!({})).is_err());
        assert!(chain(&json!({ "modules": { "a": {}, "b": {} } })).is_err());
    }

    #[test]
    fn the_gain_stays_where_it_differs_from_the_layers() {
        let layers = json!([{ "LazyLinear": { "out_features": 8 } }, "SiLU"]);
        let mut net = json!({ "type": "TorchArcNet", "hid_layers_activation": "relu", "arc": arc(layers) });
        let net = net.as_object_mut().expect("an object");
        to_mlp(net);
        assert_eq!(
            Value::from(net.clone()),
            json!({ "type": "MLPNet", "hid_layers_activation": "silu", "hid_layers": [8], "init_activation": "relu" })
        );
    }
}
