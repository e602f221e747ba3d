//! The kernels that the program carries: PTX by module, compiled by the driver when a queue first asks for one.

use super::driver::{Context, Function, Module};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

/// Every module below `kernels/ptx/`, by name; a test holds the list to the folder and to `kernels/variants.txt`.
macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        pub const MODULES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../kernels/ptx/", $name, ".ptx")))),*];
    };
}

modules![
    "ceilings",
    "schedule",
    "log",
    "advantage",
    "shuffle",
    "sequence_order",
    "optimize",
    "obs_moments",
    "sample",
    "prioritize",
    "target",
    "td_grad",
    "td_grad_layered",
    "critic_grad",
    "actor_grad",
    "crossq_grad",
    "fold",
    "episode_returns",
    "imitate",
    "minibatch_grad_32",
    "minibatch_grad_64",
    "minibatch_grad_128",
    "minibatch_grad_bf16_32",
    "minibatch_grad_bf16_64",
    "minibatch_grad_bf16_128",
    "minibatch_grad_layered",
    "minibatch_grad_layered_bf16",
    "sequence_grad",
    "sequence_td_grad",
    "rollout_cartpole",
    "rollout_cartpole_wide",
    "rollout_cartpole_bf16",
    "rollout_cartpole_bf16_wide",
    "rollout_acrobot",
    "rollout_acrobot_wide",
    "rollout_acrobot_bf16",
    "rollout_acrobot_bf16_wide",
    "rollout_mountain_car",
    "rollout_mountain_car_wide",
    "rollout_mountain_car_bf16",
    "rollout_mountain_car_bf16_wide",
    "rollout_mountain_car_continuous",
    "rollout_mountain_car_continuous_wide",
    "rollout_mountain_car_continuous_bf16",
    "rollout_mountain_car_continuous_bf16_wide",
    "rollout_pendulum",
    "rollout_pendulum_wide",
    "rollout_pendulum_bf16",
    "rollout_pendulum_bf16_wide",
    "recurrent_rollout_cartpole",
    "recurrent_rollout_acrobot",
    "recurrent_rollout_mountain_car",
    "recurrent_rollout_mountain_car_continuous",
    "recurrent_rollout_pendulum",
];

/// The module of every kernel.
fn entries() -> &'static HashMap<&'static str, usize> {
    static ENTRIES: OnceLock<HashMap<&str, usize>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let of = |(number, (_, text)): (usize, &(&'static str, &'static str))| {
            names(text).map(move |name| (name, number)).collect::<Vec<_>>()
        };
        MODULES.iter().enumerate().flat_map(of).collect()
    })
}

/// Entry points of a module's text.
fn names(ptx: &str) -> impl Iterator<Item = &str> {
    const MARK: &str = ".entry ";
    ptx.match_indices(MARK).filter_map(move |(at, _)| {
        let rest = &ptx[at + MARK.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '$')?;
        Some(&rest[..end])
    })
}

/// The modules of one device that are loaded so far.
#[derive(Default)]
pub struct Modules {
    loaded: Mutex<HashMap<usize, Module>>,
}

impl Modules {
    /// Finds kernels by name and loads their modules, several at a time: compiling for a device that the driver's cache
    /// does not know takes tenths of a second each. `place` is the device's name.
    ///
    /// # Errors
    /// Kernels that are not carried, PTX that the driver refuses (with its compiler's log).
    pub fn find(&self, context: &Arc<Context>, place: &str, kernels: &[&str]) -> Result<Vec<Function>> {
        let mut loaded = self.loaded.lock().expect("nothing panics while modules are loaded");
        let number = |kernel: &&str| {
            entries().get(kernel).copied().ok_or_else(|| {
                Error::new(place, format!("this version carries no kernel `{kernel}`")).hint("use `--device cpu`")
            })
        };
        let numbers = kernels.iter().map(number).collect::<Result<Vec<usize>>>()?;
        let mut wanted: Vec<usize> = numbers.iter().copied().filter(|n| !loaded.contains_key(n)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let load = |number: usize| {
            let (name, text) = MODULES[number];
            Module::load(context, text).map_err(|(failure, log)| {
                let log = if log.is_empty() { String::new() } else { format!("\n{log}") };
                Error::new(place, format!("the driver does not take the kernels of `{name}`: {failure}{log}"))
                    .hint("install a newer NVIDIA driver (525 or later), or use `--device cpu`")
            })
        };
        let fresh: Vec<Result<Module>> = std::thread::scope(|scope| {
            let threads: Vec<_> = wanted.iter().map(|&number| scope.spawn(move || load(number))).collect();
            threads.into_iter().map(|thread| thread.join().expect("loading a module does not panic")).collect()
        });
        for (number, module) in wanted.into_iter().zip(fresh) {
            loaded.insert(number, module?);
        }
        let function = |(kernel, number): (&&str, usize)| {
            let function = loaded[&number].function(kernel);
            function.map_err(|failure| failure.during(place, &format!("looking for the kernel `{kernel}`")))
        };
        kernels.iter().zip(numbers).map(function).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_module_of_the_folder_is_carried_and_no_kernel_twice() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let listed: BTreeSet<String> = MODULES.iter().map(|(name, _)| name.to_string()).collect();
        let found: BTreeSet<String> = std::fs::read_dir(root.join("ptx"))
            .map(|folder| folder.map(|entry| entry.unwrap().path()).collect::<Vec<_>>())
            .unwrap_or_default()
            .iter()
            .filter(|path| path.extension().is_some_and(|ext| ext == "ptx"))
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(listed, found, "`modules!` in src/device/cuda/ptx.rs lists what is in kernels/ptx");
        let mut kernels: Vec<&str> = MODULES.iter().flat_map(|(_, text)| names(text)).collect();
        kernels.sort_unstable();
        assert!(kernels.windows(2).all(|pair| pair[0] != pair[1]), "{kernels:?}");
        let variants = std::fs::read_to_string(root.join("variants.txt")).unwrap();
        let lines = variants.lines().map(|line| line.split('#').next().unwrap_or_default());
        let compiled: Vec<&str> = lines.filter_map(|line| line.split_whitespace().next()).collect();
        let listed: Vec<&str> = MODULES.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed, compiled, "modules are listed in the order of kernels/variants.txt");
    }

    #[test]
    fn entries_are_read_from_the_text() {
        let text = ".visible .entry schedule(\n.param .b8 x[12]\n)\n.func f()\n.visible .entry rollout_32$1 (";
        assert_eq!(names(text).collect::<Vec<_>>(), ["schedule", "rollout_32$1"]);
    }
}
