//! A plan as a person reads it: what `check` prints.

use super::{Plan, imitation, off_policy};
use crate::device::Precision;
use crate::device::cpu::Isa;
use crate::op::lib::mlp::Mlp;
use crate::spec;
use std::fmt;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = &self.spec;
        let mlp = |net: &Mlp| {
            let hidden: String = net.hidden.iter().map(|h| format!(" {h} {:?} ->", net.activation)).collect();
            format!("{} ->{hidden} {} ({} parameters)", net.input, net.output, net.len())
        };
        let net = |net: &Mlp| match &self.nets.body {
            None => mlp(net),
            Some(body) => {
                let layers: String =
                    body.front.hidden.iter().map(|h| format!(" {h} {:?} ->", body.front.activation)).collect();
                let parameters = body.len() + net.len();
                format!(
                    "{} ->{layers} {} {} -> {} ({parameters} parameters)",
                    body.front.input,
                    body.cell.name(),
                    body.hidden,
                    net.output
                )
            }
        };
        let (iterations, tail) = self.iterations();
        writeln!(
            f,
            "  environment   {} x {}, observations [{}], actions {:?}",
            self.num_envs, self.env.name, self.env.obs_len, self.env.action_space
        )?;
        writeln!(f, "  time limit    {} steps", self.time_limit())?;
        writeln!(f, "  algorithm     {}, policy {:?}", spec.agent.algorithm.name(), self.nets.policy)?;
        if self.nets.shared() {
            writeln!(f, "  shared net    {}", net(&self.nets.actor))?;
        } else {
            writeln!(f, "  actor         {}", net(&self.nets.actor))?;
        }
        if let Some(critic) = &self.nets.critic {
            writeln!(f, "  critic        {}", net(critic))?;
        }
        if let Some(critic) = &self.critics {
            writeln!(f, "  two critics   {}", mlp(critic.mlp()))?;
            if let Some(net) = critic.renorm() {
                writeln!(
                    f,
                    "                Batch Renormalisation behind each hidden layer, {} parameters more, open after {} updates",
                    2 * net.units(),
                    net.warmup
                )?;
            }
        }
        if let Some(off_policy) = &self.off_policy {
            write!(f, "{}", off_policy::Outline(off_policy, self.num_envs as usize))?;
        } else {
            writeln!(f, "  rollout       {} vector steps = {} frames", self.horizon, self.rows())?;
            writeln!(
                f,
                "  learning      {} epochs x {} minibatches of {} rows",
                self.epochs,
                self.minibatches(),
                self.minibatch
            )?;
        }
        if let Some(imitation) = &self.imitation {
            write!(f, "{}", imitation::Outline(imitation, self.num_envs as usize))?;
        }
        write!(f, "  run           {} frames = {iterations} iterations", self.max_frame)?;
        if tail > 0 {
            write!(f, ", then {tail} vector steps that are not trained on")?;
        }
        writeln!(f, "; {} opt steps", self.opt_steps())?;
        let overshoot = self.steps() * u64::from(self.num_envs) - self.max_frame;
        if overshoot > 0 {
            writeln!(
                f,
                "  note          `env.max_frame` is no multiple of `env.num_envs`: the run ends {overshoot} frames later"
            )?;
        }
        if let Some(why) = self.learns_nothing() {
            writeln!(f, "  note          {why}")?;
        }
        writeln!(f, "  log rows      every {} frames", self.log_frequency)?;
        let device = match spec.meta.device {
            spec::DeviceChoice::Cpu => format!("the cpu ({})", Isa::detect().name()),
            spec::DeviceChoice::Auto => format!("cuda, else the cpu ({})", Isa::detect().name()),
            other => other.to_string(),
        };
        write!(f, "  sessions      {}, in one cohort, on {device}", self.max_session)?;
        let slow = spec.meta.device == spec::DeviceChoice::Cpu && !Isa::detect().multiplies_bf16();
        let note = if slow { " (no faster than f32: this cpu has no AVX-512 BF16)" } else { "" };
        match self.nets.precision() {
            Precision::F32 => Ok(()),
            Precision::Bf16 => write!(f, ", matrix products in bf16{note}"),
        }
    }
}
