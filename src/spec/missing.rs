//! What a spec asks for that this version does not do yet.

use std::fmt;

use super::algorithm::{ActionPolicy, Algorithm, Pdtype};
use super::{
    Agent, CellType, Distributed, Env, Loss, LrScheduler, Memory, Net, NetType, Optim, Precision, Spec, UpdateType, arc,
};
use crate::error::{Error, Result};

/// Something a spec asks for that is not built yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Dotted place inside the spec.
    pub place: String,
    /// What is not built, and what is.
    pub what: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl Spec {
    /// Everything the spec asks for that is not built; empty for a spec that runs. `envs`: the environments built.
    pub fn missing(&self, envs: &[&str]) -> Vec<Missing> {
        let mut list = List(Vec::new());
        list.algorithm(&self.agent.algorithm);
        list.memory(&self.agent.algorithm, &self.agent.memory);
        list.net("agent.net", &self.agent.net);
        if self.agent.net.kind == NetType::RecurrentNet {
            list.remembering(&self.agent);
        }
        list.critics(&self.agent);
        if self.agent.net.kind == NetType::RecurrentNet && self.meta.precision == Precision::Bf16 {
            list.add("meta.precision", "bf16 is not built yet for RecurrentNet");
        }
        if self.agent.net.kind == NetType::DuelingMLPNet && !is_q(&self.agent.algorithm) {
            list.add("agent.net.type", "a dueling net belongs to a Q net; MLPNet is for the others");
        }
        if learns_from_transitions(&self.agent.algorithm) {
            let what = format!("is not built yet for {}", self.agent.algorithm.name());
            for (place, on) in
                [("env.normalize_obs", self.env.normalize_obs), ("env.normalize_reward", self.env.normalize_reward)]
            {
                if on {
                    list.add(place, &what);
                }
            }
        }
        if let Algorithm::SoftActorCritic(_) | Algorithm::CrossQ(_) = self.agent.algorithm {
            let (net, name) = (&self.agent.net, self.agent.algorithm.name());
            if net.shared {
                list.add("agent.net.shared", "one body for an actor and two critics is not built; `false` is");
            }
            if net.log_std_init.is_some() {
                list.add("agent.net.log_std_init", format!("is not built for {name}, whose net gives the deviation"));
            }
        }
        if let Algorithm::SoftActorCritic(_) = self.agent.algorithm
            && self.agent.net.update_type.is_some_and(|update| update != UpdateType::Polyak)
        {
            list.add("agent.net.update_type", "target critics that are replaced are not built; `polyak` is");
        }
        list.env(&self.env, envs);
        if self.meta.rigorous_eval != 0 {
            list.add("meta.rigorous_eval", "evaluation apart from training is not built yet; 0 is");
        }
        if self.meta.distributed != Distributed::No {
            list.add("meta.distributed", "nets shared between sessions are not built yet; `false` is");
        }
        list.0
    }

    /// Refuses a spec that asks for what is not built, naming all of it.
    ///
    /// # Errors
    /// One error that lists [`Spec::missing`].
    pub fn require_built(&self, envs: &[&str]) -> Result<()> {
        let missing = self.missing(envs);
        if missing.is_empty() {
            return Ok(());
        }
        let lines: String = missing.iter().map(|m| format!("\n  {m}")).collect();
        Err(Error::new(&self.name, format!("asks for what is not built yet:{lines}")))
    }
}

/// Whether the algorithm learns the values of actions alone.
fn is_q(algorithm: &Algorithm) -> bool {
    use Algorithm::{DQN, DQNBase, DoubleDQN, SARSA, VanillaDQN};
    matches!(algorithm, SARSA(_) | VanillaDQN(_) | DQNBase(_) | DQN(_) | DoubleDQN(_))
}

/// Whether it learns from transitions rather than from whole rollouts.
fn learns_from_transitions(algorithm: &Algorithm) -> bool {
    is_q(algorithm) || matches!(algorithm, Algorithm::SoftActorCritic(_) | Algorithm::CrossQ(_))
}

/// Whether it draws them out of a replay memory.
fn learns_from_replay(algorithm: &Algorithm) -> bool {
    learns_from_transitions(algorithm) && !matches!(algorithm, Algorithm::SARSA(_))
}

struct List(Vec<Missing>);

impl List {
    fn add(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.0.push(Missing { place: place.into(), what: what.into() });
    }

    fn algorithm(&mut self, algorithm: &Algorithm) {
        use Algorithm::{ActorCritic, CrossQ, PPO, Reinforce, SoftActorCritic};
        let on_policy = &*algorithm.on_policy();
        if !matches!(on_policy, Reinforce(_) | ActorCritic(_) | PPO(_) | SoftActorCritic(_) | CrossQ(_))
            && !is_q(algorithm)
        {
            let name = algorithm.name();
            let built =
                "Reinforce, ActorCritic, PPO, SARSA, VanillaDQN, DQN, DoubleDQN, SoftActorCritic, CrossQ, SIL, PPOSIL";
            self.add("agent.algorithm.name", format!("{name} is not built yet (planned); this version trains {built}"));
        }
        let pdtype = algorithm.action_pdtype();
        let fits = match pdtype {
            Pdtype::Default | Pdtype::Categorical | Pdtype::Normal | Pdtype::NormalTanh => true,
            Pdtype::Argmax => is_q(algorithm),
            Pdtype::GumbelSoftmax => matches!(algorithm, SoftActorCritic(_)),
            _ => false,
        };
        if !fits {
            self.add(
                "agent.algorithm.action_pdtype",
                format!(
                    "{pdtype:?} is not built yet for {}; Categorical, Normal, NormalTanh, for Q nets Argmax and for \
                     SoftActorCritic GumbelSoftmax are",
                    algorithm.name()
                ),
            );
        }
        if algorithm.action_policy() != ActionPolicy::Default && !is_q(algorithm) {
            self.add("agent.algorithm.action_policy", "only `default`, sampling from the distribution, is built yet");
        }
        if let SoftActorCritic(a) | CrossQ(a) = algorithm {
            if a.entropy_penalty_coef != 0.0 {
                self.add("agent.algorithm.entropy_penalty_coef", "a penalty on moves of the entropy is not built yet");
            }
            if a.spectral_norm {
                self.add("agent.algorithm.spectral_norm", "spectral normalisation is not built yet");
            }
        }
        if let ActorCritic(a) = on_policy
            && a.lam.is_none()
            && a.num_step_returns.is_none()
        {
            self.add(
                "agent.algorithm.lam",
                "returns of whole episodes are not built yet; set `lam` or `num_step_returns`",
            );
        }
    }

    /// Who learns with a recurrent net, and from which memory.
    fn remembering(&mut self, agent: &Agent) {
        use Algorithm::{ActorCritic, DQN, DQNBase, DoubleDQN, PPO, Reinforce, VanillaDQN};
        match &agent.algorithm {
            Reinforce(_) | ActorCritic(_) | PPO(_) => {}
            VanillaDQN(_) | DQNBase(_) | DQN(_) | DoubleDQN(_) => match &agent.memory {
                Memory::PrioritizedReplay(_) => {
                    let what = "priorities of sequences are not built yet; for a RecurrentNet Replay is";
                    self.add("agent.memory.name", what);
                }
                Memory::Replay(a) if a.use_cer => {
                    let what = "the newest sequences in every batch are not built yet; for a RecurrentNet `false` is";
                    self.add("agent.memory.use_cer", what);
                }
                _ => {}
            },
            other => {
                let built = "Reinforce, ActorCritic, PPO, VanillaDQN, DQN and DoubleDQN";
                let what = format!("RecurrentNet is not built yet for {}; for {built} it is", other.name());
                self.add("agent.net.type", what);
            }
        }
    }

    /// Critics with a section of their own, and Batch Renormalisation, are CrossQ's.
    fn critics(&mut self, agent: &Agent) {
        let crossq = matches!(agent.algorithm, Algorithm::CrossQ(_));
        if agent.net.batch_renorm.is_some() {
            self.add("agent.net.batch_renorm", "Batch Renormalisation is built in the critics of CrossQ alone");
        }
        let Some(critic) = &agent.critic_net else {
            if crossq {
                self.add("agent.critic_net", "CrossQ without critics of its own, with `batch_renorm`, is not built");
            }
            return;
        };
        self.net("agent.critic_net", critic);
        if !crossq {
            self.add(
                "agent.critic_net",
                "critics with a section of their own are built for CrossQ alone; `critic_` keys in agent.net are",
            );
        } else if critic.kind == NetType::MLPNet && critic.batch_renorm.is_none() {
            self.add("agent.critic_net.batch_renorm", "critics of CrossQ without Batch Renormalisation are not built");
        }
    }

    fn memory(&mut self, algorithm: &Algorithm, memory: &Memory) {
        let (built, fits) = if learns_from_replay(algorithm) {
            ("Replay and PrioritizedReplay are", matches!(memory, Memory::Replay(_) | Memory::PrioritizedReplay(_)))
        } else {
            ("OnPolicyBatchReplay is", matches!(memory, Memory::OnPolicyBatchReplay(_)))
        };
        if !fits {
            let (name, algorithm) = (memory.name(), algorithm.name());
            self.add("agent.memory.name", format!("{name} is not built yet for {algorithm}; {built}"));
        }
    }

    fn net(&mut self, place: &str, net: &Net) {
        match net.kind {
            NetType::MLPNet | NetType::DuelingMLPNet => {}
            NetType::TorchArcNet => {
                let arcs = [("arc", &net.arc), ("actor_arc", &net.actor_arc), ("critic_arc", &net.critic_arc)];
                for (key, arc) in arcs {
                    if let Some(Err(what)) = arc.as_ref().map(arc::chain) {
                        let built = "chains of linear layers with one activation are";
                        self.add(format!("{place}.{key}"), format!("{what} is not built yet; {built}"));
                    }
                }
                if arcs.iter().all(|(_, arc)| arc.is_none()) {
                    self.add(format!("{place}.arc"), "a TorchArcNet without `arc` has no layers");
                }
            }
            NetType::RecurrentNet => self.recurrent_net(place, net),
            other => {
                self.add(format!("{place}.type"), format!("{other:?} is not built yet; MLPNet and RecurrentNet are"));
            }
        }
        for (key, on) in [("layer_norm", net.layer_norm), ("batch_norm", net.batch_norm), ("normalize", net.normalize)]
        {
            if on == Some(true) {
                self.add(format!("{place}.{key}"), "not built yet");
            }
        }
        if net.out_layer_activation.is_some() {
            self.add(format!("{place}.out_layer_activation"), "not built yet; the last layer is linear");
        }
        if !matches!(net.loss_spec, Loss::MSELoss(_) | Loss::SmoothL1Loss(_)) {
            let name = net.loss_spec.name();
            self.add(
                format!("{place}.loss_spec.name"),
                format!("{name} is not built yet; MSELoss and SmoothL1Loss are"),
            );
        }
        for (key, optim) in net.optims() {
            if !matches!(optim, Optim::Adam(_) | Optim::AdamW(_) | Optim::RMSprop(_) | Optim::SGD(_)) {
                let built = "Adam, AdamW, RMSprop and SGD are";
                self.add(format!("{place}.{key}.name"), format!("{} is not built yet; {built}", optim.name()));
            }
            if matches!(optim, Optim::RMSprop(a) if a.centered) {
                self.add(format!("{place}.{key}.centered"), "centered RMSprop is not built yet; `false` is");
            }
            if matches!(optim, Optim::SGD(a) if a.dampening != 0.0) {
                self.add(format!("{place}.{key}.dampening"), "dampened momentum is not built yet; 0 is");
            }
        }
        for (key, lr_scheduler) in net.lr_schedulers() {
            if !matches!(lr_scheduler, LrScheduler::LinearToZero(_) | LrScheduler::LinearToMin(_)) {
                let built = "LinearToZero and LinearToMin are";
                self.add(format!("{place}.{key}.name"), format!("{} is not built yet; {built}", lr_scheduler.name()));
            }
        }
    }

    fn recurrent_net(&mut self, place: &str, net: &Net) {
        if net.cell_type == Some(CellType::RNN) {
            self.add(format!("{place}.cell_type"), "cells without gates are not built; GRU and LSTM are");
        }
        if net.rnn_num_layers.is_some_and(|layers| layers != 1) {
            self.add(format!("{place}.rnn_num_layers"), "cells on top of each other are not built yet; 1 is");
        }
        if net.bidirectional == Some(true) {
            let what = "a cell that reads the future is not built: an agent that acts has not seen it";
            self.add(format!("{place}.bidirectional"), what);
        }
        for (key, own) in [
            ("actor_hid_layers", net.actor_hid_layers.is_some()),
            ("critic_hid_layers", net.critic_hid_layers.is_some()),
            ("actor_hid_layers_activation", net.actor_hid_layers_activation.is_some()),
            ("critic_hid_layers_activation", net.critic_hid_layers_activation.is_some()),
        ] {
            if own {
                let what = "recurrent bodies of two shapes are not built yet; `fc_hid_layers` is for both";
                self.add(format!("{place}.{key}"), what);
            }
        }
    }

    fn env(&mut self, env: &Env, envs: &[&str]) {
        if !envs.contains(&env.name.as_str()) {
            let near =
                |built: &&&str| strsim::damerau_levenshtein(&env.name.to_lowercase(), &built.to_lowercase()) <= 2;
            self.add(
                "env.name",
                match envs.iter().find(near) {
                    Some(near) => format!("{} is not built; did you mean `{near}`?", env.name),
                    None => format!("{} is not built yet; {} are", env.name, envs.join(", ")),
                },
            );
        }
        for key in env.arguments() {
            self.add(format!("env.{key}"), format!("{} does not take this argument yet", env.name));
        }
    }
}
