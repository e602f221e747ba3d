//! What an agent sees of its environment where it does not see all, and the recurrent body that remembers.

use super::{MAX_WIDTH, Plan, activation};
use crate::env::EnvSpec;
use crate::error::{Error, Result};
use crate::op::lib::recurrent::{Body, Cell};
use crate::spec::{self, Spec};

impl Plan {
    /// Whether the nets see observations through the normaliser: normalised, or with some words hidden.
    pub fn filters_obs(&self) -> bool {
        self.spec.env.normalize_obs || !self.spec.env.hide_obs.is_empty()
    }

    /// The first normaliser `[2, O]`: every word as it is, or 0 where it is hidden.
    pub fn first_normalizer(&self) -> Vec<f32> {
        let o = self.env.obs_len;
        let hidden = |word: usize| self.spec.env.hide_obs.contains(&word);
        (0..2 * o).map(|at| f32::from(u8::from(at >= o && !hidden(at - o)))).collect()
    }
}

/// Refuses to hide words that an observation does not have.
pub(super) fn hidden_words(spec: &Spec, env: &EnvSpec) -> Result<()> {
    let hidden = &spec.env.hide_obs;
    if let Some(i) = hidden.iter().position(|&word| word >= env.obs_len) {
        let what = format!("{} has {} words of observation, 0 to {}", env.name, env.obs_len, env.obs_len - 1);
        return Err(Error::new(format!("env.hide_obs[{i}]"), format!("there is no word {}: {what}", hidden[i])));
    }
    if !hidden.is_empty() && spec.env.normalize_obs {
        return Err(Error::new("env.hide_obs", "words cannot be hidden where observations are normalised")
            .hint("take `env.normalize_obs` out, or hide nothing"));
    }
    Ok(())
}

/// The recurrent body of a net that has one.
pub(super) fn body(spec: &Spec, env: &EnvSpec) -> Result<Option<Body>> {
    let net = &spec.agent.net;
    if net.kind != spec::NetType::RecurrentNet {
        return Ok(None);
    }
    let Some(hidden) = net.rnn_hidden_size else {
        return Err(Error::new("agent.net.rnn_hidden_size", "missing key"));
    };
    let cell = match net.cell_type.unwrap_or_default() {
        spec::CellType::LSTM => Cell::Lstm,
        _ => Cell::Gru,
    };
    let most = MAX_WIDTH / cell.gates();
    if hidden > most {
        return Err(Error::new(
            "agent.net.rnn_hidden_size",
            format!("{hidden} units; at most {most} fit a {}", cell.name()),
        ));
    }
    let tower = net.actor();
    Ok(Some(Body::new(env.obs_len, tower.hid_layers, activation(tower.activation), cell, hidden)))
}
