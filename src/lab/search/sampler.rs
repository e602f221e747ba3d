//! Which values the trials of a search get: every combination of a grid, draws from each distribution, or a
//! tree-structured Parzen estimator that learns from the trials that are done. All follow from the experiment's seed.

use std::convert::Infallible;

use serde_json::Value;

use super::axis::{Axis, Span};
use crate::error::{Error, Result};
use crate::op::lib::rng::philox;
use crate::spec::{SearchSampler, Spec};

/// Keys a search's random numbers apart from those of sessions, whose index is never this large.
const SEARCH: u32 = u32::MAX;
/// Trials that a sampler draws blindly before it learns from their results.
const STARTUP: usize = 16;
/// Trials that a sampler that learns draws at once, unless `meta.search_wave` says otherwise.
const WAVE: usize = 16;

/// Values of the searched keys, in the order of the axes.
pub type Values = Vec<(String, Value)>;

/// Where the trials of an experiment come from.
#[derive(Debug, Clone)]
pub struct Sampler {
    axes: Vec<Axis>,
    kind: SearchSampler,
    seed: u32,
    trials: usize,
    wave: usize,
    /// Combinations of the grid's axes; 1 where there is no grid.
    combinations: usize,
}

/// A finished trial, as the sampler learns from it: its positions on the axes and its score, more is better.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub positions: Vec<f64>,
    pub score: f64,
}

impl Sampler {
    /// The sampler that a spec with a `search` section asks for. With `grid` every list is a grid; with the others a key
    /// of `grid_search` is one, and the whole grid is run `meta.max_trial` times, as Ray Tune does.
    ///
    /// # Errors
    /// No `search` section; a grid over a key that is not a list; more trials than are numbered.
    pub fn new(spec: &Spec, seed: u32) -> Result<Sampler> {
        let Some(search) = spec.search.as_ref().filter(|search| !search.0.is_empty()) else {
            return Err(Error::new("search", "the spec has no `search` section, so there is nothing to search")
                .hint("add one, for example {\"agent.algorithm.gamma__uniform\": [0.9, 0.999]}, or use `train`"));
        };
        let axes: Vec<Axis> = search.0.iter().map(Axis::new).collect();
        let has_grid = axes.iter().any(|axis| axis.grid().is_some());
        let whole_grid = axes.iter().all(|axis| axis.listed().is_some());
        let default = if has_grid && whole_grid { SearchSampler::Grid } else { SearchSampler::Random };
        let kind = spec.meta.search_sampler.unwrap_or(default);
        if kind == SearchSampler::Grid && !whole_grid {
            let (param, _) =
                search.0.iter().zip(&axes).find(|(_, axis)| axis.listed().is_none()).expect("one is drawn");
            return Err(Error::new(
                format!("search.{}__{}", param.key, param.distribution.name()),
                "a grid has listed values alone",
            )
            .hint("use `grid_search` or `choice` for it, or the sampler `random`"));
        }
        if kind == SearchSampler::Tpe && has_grid {
            return Err(Error::new("meta.search_sampler", "`tpe` chooses values, and `grid_search` runs every one")
                .hint("use `choice` for the listed keys, or the sampler `random`"));
        }
        let lists =
            axes.iter().filter_map(|axis| if kind == SearchSampler::Grid { axis.listed() } else { axis.grid() });
        let combinations = lists.fold(1usize, |product, list| product.saturating_mul(list.len()));
        let asked = spec.meta.max_trial.unwrap_or(1);
        let trials = match kind {
            // a grid is what it is; `max_trial` cuts it short
            SearchSampler::Grid => spec.meta.max_trial.map_or(combinations, |most| most.min(combinations)),
            SearchSampler::Random => asked.saturating_mul(combinations),
            SearchSampler::Tpe => asked,
        };
        if u32::try_from(trials).is_err() {
            return Err(Error::new("search", format!("{trials} trials are more than an experiment counts"))
                .hint("lower `meta.max_trial`, or list fewer values"));
        }
        let wave = spec.meta.search_wave.unwrap_or(if kind == SearchSampler::Tpe { WAVE } else { trials });
        Ok(Sampler { axes, kind, seed, trials, wave, combinations })
    }

    /// Trials of the whole experiment.
    pub fn trials(&self) -> usize {
        self.trials
    }

    /// How trials are drawn.
    pub fn kind(&self) -> SearchSampler {
        self.kind
    }

    /// The trials that are drawn together, once those before them are done.
    pub fn waves(&self) -> Vec<std::ops::Range<u32>> {
        let starts = (0..self.trials).step_by(self.wave.max(1));
        starts.map(|start| start as u32..(start + self.wave).min(self.trials) as u32).collect()
    }

    /// The seed of a trial.
    pub fn trial_seed(&self, trial: u32) -> u32 {
        Stream::new(self.seed, trial, 0).word()
    }

    /// Positions of a trial on every axis. `told`: the trials of all waves before its own, in order.
    ///
    /// # Errors
    /// A parameter that the estimator cannot be built for.
    pub fn positions(&self, trial: u32, told: &[Told]) -> Result<Vec<f64>> {
        let mut stream = Stream::new(self.seed, trial, 1);
        // the last axis turns fastest, as nested loops in the order of the file
        let mut grid = trial as usize % self.combinations;
        let mut positions: Vec<f64> = self.axes.iter().map(|axis| axis.draw([stream.unit(), stream.unit()])).collect();
        let is_grid = |axis: &&Axis| {
            if self.kind == SearchSampler::Grid { axis.listed().is_some() } else { axis.grid().is_some() }
        };
        for (at, axis) in self.axes.iter().enumerate().rev().filter(|(_, axis)| is_grid(axis)) {
            let len = axis.listed().map_or(1, <[Value]>::len);
            positions[at] = (grid % len) as f64;
            grid /= len;
        }
        if self.kind == SearchSampler::Tpe && told.len() >= STARTUP.min(self.wave) {
            for (at, axis) in self.axes.iter().enumerate() {
                positions[at] = learned(axis, told.iter().map(|t| (t.positions[at], t.score)), &mut stream)
                    .map_err(|error| Error::new(format!("search.{}", axis.key), error.to_string()))?;
            }
        }
        Ok(positions)
    }

    /// The values at positions, with their places.
    pub fn values(&self, positions: &[f64]) -> Values {
        self.axes.iter().zip(positions).map(|(axis, &at)| (axis.key.clone(), axis.value(at))).collect()
    }
}

/// A position that promises more than those tried, by the estimator of one axis: axes are taken as independent.
fn learned(
    axis: &Axis,
    told: impl Iterator<Item = (f64, f64)>,
    stream: &mut Stream,
) -> std::result::Result<f64, Box<dyn std::error::Error>> {
    let mut optimizer = match axis.span() {
        Span::Listed(count) => tpe::TpeOptimizer::new(tpe::histogram_estimator(), tpe::categorical_range(count)?),
        Span::Numbers(low, high) => tpe::TpeOptimizer::new(tpe::parzen_estimator(), tpe::range(low, high)?),
    };
    for (position, score) in told {
        // it looks for the least; a trial without a score is the worst
        let loss = if score.is_finite() { -score } else { f64::MAX };
        let position = match axis.span() {
            Span::Numbers(low, high) => position.clamp(low, high.next_down()),
            Span::Listed(_) => position,
        };
        optimizer.tell(position, loss)?;
    }
    Ok(optimizer.ask(stream)?)
}

/// Random numbers of one trial: a counter over Philox blocks.
struct Stream {
    key: [u32; 2],
    trial: u32,
    purpose: u32,
    words: u32,
    block: [u32; 4],
}

impl Stream {
    fn new(seed: u32, trial: u32, purpose: u32) -> Stream {
        Stream { key: [seed, SEARCH], trial, purpose, words: 0, block: [0; 4] }
    }

    fn word(&mut self) -> u32 {
        if self.words.is_multiple_of(4) {
            self.block = philox([self.words / 4, self.trial, self.purpose, 0], self.key);
        }
        self.words += 1;
        self.block[(self.words as usize - 1) % 4]
    }

    /// A number in [0, 1) with 53 bits.
    fn unit(&mut self) -> f64 {
        let bits = (u64::from(self.word()) << 32 | u64::from(self.word())) >> 11;
        bits as f64 / (1u64 << 53) as f64
    }
}

impl rand::TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Infallible> {
        Ok(self.word())
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Infallible> {
        Ok(u64::from(self.word()) << 32 | u64::from(self.word()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> std::result::Result<(), Infallible> {
        for chunk in bytes.chunks_mut(4) {
            chunk.copy_from_slice(&self.word().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sampler(search: Value, meta: Value) -> Result<Sampler> {
        let spec = json!({
            "agent": {
                "algorithm": {"name": "Reinforce", "gamma": 0.9, "training_frequency": 40},
                "memory": {"name": "OnPolicyReplay"},
                "net": {"type": "MLPNet", "hid_layers": [8], "hid_layers_activation": "tanh",
                    "optim_spec": {"name": "Adam", "lr": 0.002}},
            },
            "env": {"name": "CartPole-v1", "max_frame": 500},
            "meta": meta,
            "search": search,
        });
        Sampler::new(&crate::spec::from_value(spec, "x", &[])?.spec, 7)
    }

    #[test]
    fn a_grid_is_every_combination_once() {
        let search = json!({"agent.algorithm.gamma__grid_search": [0.9, 0.99],
            "agent.net.optim_spec.lr__grid_search": [0.1, 0.2, 0.3]});
        let sampler = sampler(search, json!({})).unwrap();
        assert_eq!((sampler.kind(), sampler.trials(), sampler.waves().len()), (SearchSampler::Grid, 6, 1));
        let all: Vec<String> = (0..6)
            .map(|t| sampler.values(&sampler.positions(t, &[]).unwrap()))
            .map(|values| format!("{} {}", values[0].1, values[1].1))
            .collect();
        assert_eq!(all, ["0.9 0.1", "0.9 0.2", "0.9 0.3", "0.99 0.1", "0.99 0.2", "0.99 0.3"]);
    }

    #[test]
    fn a_grid_with_drawn_keys_is_run_as_often_as_there_are_trials() {
        let search = json!({"agent.algorithm.gamma__uniform": [0.9, 0.99],
            "agent.net.optim_spec.lr__grid_search": [0.1, 0.2]});
        let sampler = sampler(search, json!({"max_trial": 3})).unwrap();
        assert_eq!(sampler.trials(), 6);
        let values: Vec<Values> = (0..6).map(|t| sampler.values(&sampler.positions(t, &[]).unwrap())).collect();
        let lrs: Vec<&Value> = values.iter().map(|v| &v[1].1).collect();
        assert_eq!(lrs, [0.1, 0.2, 0.1, 0.2, 0.1, 0.2].map(|x| json!(x)).iter().collect::<Vec<_>>());
        let gammas: std::collections::BTreeSet<String> = values.iter().map(|v| v[0].1.to_string()).collect();
        assert_eq!(gammas.len(), 6);
    }

    #[test]
    fn trials_follow_from_the_seed_alone() {
        let search = json!({"agent.algorithm.gamma__uniform": [0.9, 0.99]});
        let one = sampler(search.clone(), json!({"max_trial": 8})).unwrap();
        let two = sampler(search, json!({"max_trial": 800})).unwrap();
        for trial in 0..8 {
            assert_eq!(one.positions(trial, &[]), two.positions(trial, &[]));
            assert_eq!(one.trial_seed(trial), two.trial_seed(trial));
        }
        let seeds: std::collections::BTreeSet<u32> = (0..800).map(|t| two.trial_seed(t)).collect();
        assert_eq!(seeds.len(), 800);
    }

    #[test]
    fn tpe_finds_what_random_draws_do_not() {
        let search = json!({"agent.algorithm.gamma__uniform": [0.0, 1.0],
            "agent.net.optim_spec.lr__loguniform": [1e-6, 1.0],
            "agent.net.hid_layers_activation__choice": ["tanh", "relu", "selu", "gelu"]});
        let sampler = sampler(search, json!({"max_trial": 96, "search_sampler": "tpe"})).unwrap();
        assert_eq!(sampler.waves().len(), 6);
        let score = |p: &[f64]| {
            let lr = p[1].exp().log10();
            -(p[0] - 0.3).powi(2) * 10.0 - (lr + 3.0).powi(2) - f64::from(p[2] != 2.0)
        };
        let mut told: Vec<Told> = Vec::new();
        for wave in sampler.waves() {
            let drawn: Vec<Vec<f64>> = wave.map(|t| sampler.positions(t, &told).unwrap()).collect();
            told.extend(drawn.into_iter().map(|positions| Told { score: score(&positions), positions }));
        }
        let mean = |told: &[Told]| told.iter().map(|t| t.score).sum::<f64>() / told.len() as f64;
        let (first, last) = (mean(&told[..16]), mean(&told[80..]));
        assert!(last > first / 4.0, "blind {first}, learned {last}");
        // a trial without a score is the worst, not an error
        told[3].score = f64::NAN;
        assert_eq!(sampler.positions(90, &told), sampler.positions(90, &told));
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        let complaint = |search, meta| sampler(search, meta).unwrap_err();
        assert_eq!(complaint(json!({}), json!({})).place, "search");
        let drawn = json!({"agent.algorithm.gamma__uniform": [0.9, 0.99]});
        let error = complaint(drawn, json!({"search_sampler": "grid"}));
        assert_eq!(error.place, "search.agent.algorithm.gamma__uniform");
        let grid = json!({"agent.algorithm.gamma__grid_search": [0.9, 0.99]});
        assert_eq!(complaint(grid, json!({"search_sampler": "tpe"})).place, "meta.search_sampler");
    }
}
