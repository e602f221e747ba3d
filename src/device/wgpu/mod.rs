//! The wgpu device: any GPU with a Vulkan, Metal or DX12 driver, opened at run time.
//!
//! `text` carries the shaders and makes a kernel's text, `pipelines` compiles it, `arena` is the memory of a cohort on the
//! device, `launch` turns recorded calls into dispatches, `survey` tells what adapters there are.

mod arena;
mod launch;
mod pipelines;
mod survey;
pub mod text;

pub use survey::{Facts, survey};
pub use text::read_shaders_from;

pub(super) use arena::Arena;

use super::Limits;
use crate::error::{Error, Result};
use ::wgpu as gpu;
use pipelines::Pipelines;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// One adapter, opened. Cohorts that open the same one share its queue and its pipelines.
#[derive(Clone)]
pub struct Wgpu {
    shared: Arc<Shared>,
    limits: Limits,
    one_by_one: bool,
}

/// What all users of an adapter in this process have in common.
struct Shared {
    ordinal: usize,
    info: gpu::AdapterInfo,
    device: gpu::Device,
    queue: gpu::Queue,
    pipelines: Pipelines,
    limits: Limits,
    /// Whether passes can be timed by the device's own clock.
    timestamps: bool,
    failure: Arc<Mutex<Failure>>,
}

/// What has gone wrong without anybody waiting for it, since the device was opened.
#[derive(Default)]
struct Failure {
    /// The first thing, in the driver's words.
    what: Option<String>,
    /// Whether the device is gone, and not a kernel at fault.
    is_lost: bool,
}

impl Failure {
    fn note(&mut self, what: String, is_lost: bool) {
        self.what.get_or_insert(what);
        self.is_lost |= is_lost;
    }
}

impl Shared {
    /// The device in messages.
    fn place(&self) -> String {
        format!("wgpu:{}", self.ordinal)
    }

    /// What went wrong since the device was opened, if anything did. Then nothing on it can be relied on, so it is given
    /// up.
    fn check(&self, doing: impl FnOnce() -> String) -> Result<()> {
        let what = self.failure().what.clone();
        what.map_or(Ok(()), |what| Err(self.given_up(&what, &doing())))
    }

    fn failure(&self) -> MutexGuard<'_, Failure> {
        self.failure.lock().expect("nothing panics while a failure is noted")
    }

    /// Gives the device back to the system: its memory is free, whoever computes on it gets an error, and who opens the
    /// adapter next gets a device of their own.
    fn give_up(&self, what: &str, is_lost: bool) {
        self.failure().note(what.to_string(), is_lost);
        self.device.destroy();
    }

    /// A failure of the device as a user reads it, after giving the device up.
    fn given_up(&self, what: &str, doing: &str) -> Error {
        self.give_up(what, false);
        if !self.failure().is_lost {
            return self.failed(what, &format!("{doing} failed"));
        }
        Error::new(self.place(), format!("the device was lost during {doing}: {what}"))
            .hint("the last checkpoint is kept; `--device cpu` goes on without a GPU")
    }

    /// A failed call as a user reads it.
    fn failed(&self, what: &str, doing: &str) -> Error {
        Error::new(self.place(), format!("{doing}: {what}"))
            .hint("the last checkpoint is kept; `slm-fast dev SPEC --device wgpu` waits for every kernel and names it")
    }
}

/// Adapters that are open now, so that a second cohort does not compile every kernel again.
static OPEN: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

impl Wgpu {
    /// Opens adapter number `ordinal`: GPUs first, as the system lists them, then software.
    ///
    /// # Errors
    /// No driver, no such adapter, one that cannot be opened.
    pub fn open(ordinal: usize) -> Result<Wgpu> {
        let mut open = OPEN.lock().expect("nothing panics while a device is opened");
        open.retain(|shared| shared.upgrade().is_some_and(|shared| shared.failure().what.is_none()));
        if let Some(shared) = open.iter().filter_map(Weak::upgrade).find(|shared| shared.ordinal == ordinal) {
            return Ok(Wgpu::new(shared));
        }
        let wgpu = Wgpu::apart(ordinal)?;
        open.push(Arc::downgrade(&wgpu.shared));
        Ok(wgpu)
    }

    /// Opens an adapter for one user alone, with a queue and pipelines of its own: a software driver compiles and runs kernels in
    /// the one thread of a queue.
    ///
    /// # Errors
    /// As [`Wgpu::open`].
    pub fn apart(ordinal: usize) -> Result<Wgpu> {
        let opened = survey::adapter(ordinal).and_then(|adapter| new_shared(ordinal, &adapter));
        let shared = opened.map_err(|reason| {
            Error::new("--device", format!("no wgpu device: {reason}"))
                .hint("`slm-fast devices` lists what there is; use `--device cpu`")
        })?;
        Ok(Wgpu::new(Arc::new(shared)))
    }

    fn new(shared: Arc<Shared>) -> Wgpu {
        Wgpu { limits: shared.limits, shared, one_by_one: false }
    }

    /// Gives kernels less than the adapter has, as if it were a smaller one.
    ///
    /// # Panics
    /// Where that is more than it has.
    #[must_use]
    pub fn within(self, limits: Limits) -> Wgpu {
        let has = self.shared.limits;
        assert!(limits.threads <= has.threads && limits.shared_bytes <= has.shared_bytes, "{limits:?} of {has:?}");
        assert!(has.subgroups || !limits.subgroups, "{limits:?} of {has:?}");
        Wgpu { limits, ..self }
    }

    /// Launches kernels one by one and waits for each, so that a fault names its op: for debugging.
    #[must_use]
    pub fn one_by_one(self) -> Wgpu {
        Wgpu { one_by_one: true, ..self }
    }

    /// Gives the device back to the system, as if it had been taken away: whatever is trained on it ends in an error.
    pub fn give_up(&self) {
        self.shared.give_up("it was given up", true);
    }

    /// `wgpu:0 (NVIDIA H200, Vulkan)`.
    pub fn describe(&self) -> String {
        let software = if self.is_software() { ", software" } else { "" };
        format!("{} ({}, {}{software})", self.shared.place(), self.shared.info.name, self.shared.info.backend)
    }

    /// The device's number.
    pub fn ordinal(&self) -> usize {
        self.shared.ordinal
    }

    /// The adapter's own name.
    pub fn name(&self) -> &str {
        &self.shared.info.name
    }

    /// Whether it is a program that stands in for a GPU.
    pub fn is_software(&self) -> bool {
        self.shared.info.device_type == gpu::DeviceType::Cpu
    }

    /// Whether it is a GPU with memory of its own.
    pub fn is_discrete(&self) -> bool {
        self.shared.info.device_type == gpu::DeviceType::DiscreteGpu
    }

    /// What kernels may have.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Kernels compiled so far by all users of the device, and the seconds that they took side by side.
    pub fn compiled(&self) -> (usize, f64) {
        self.shared.pipelines.compiled()
    }
}

fn new_shared(ordinal: usize, adapter: &gpu::Adapter) -> std::result::Result<Shared, String> {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    let wanted = gpu::Features::TIMESTAMP_QUERY | gpu::Features::SUBGROUP;
    let features = adapter.features() & wanted;
    let descriptor = gpu::DeviceDescriptor {
        label: Some("slm-fast"),
        required_features: features,
        // as much as there is: arenas are large
        required_limits: limits.clone(),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| error.to_string())?;
    let failure = Arc::new(Mutex::new(Failure::default()));
    let note = |failure: &Mutex<Failure>, what: String, is_lost: bool| {
        failure.lock().expect("nothing panics while a failure is noted").note(what, is_lost);
    };
    let noted = failure.clone();
    device.on_uncaptured_error(Arc::new(move |error: gpu::Error| note(&noted, error.to_string(), false)));
    let noted = failure.clone();
    device.set_device_lost_callback(move |reason, what| {
        // what this program did itself, by dropping it or because of a failure that is noted
        if reason != gpu::DeviceLostReason::Destroyed {
            note(&noted, what, true);
        }
    });
    Ok(Shared {
        ordinal,
        info,
        pipelines: Pipelines::new(&device),
        device,
        queue,
        limits: Limits {
            threads: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x) as usize,
            shared_bytes: limits.max_compute_workgroup_storage_size as usize,
            subgroups: features.contains(gpu::Features::SUBGROUP),
        },
        timestamps: features.contains(gpu::Features::TIMESTAMP_QUERY),
        failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_an_adapter_says_why() {
        match Wgpu::open(0) {
            Ok(device) => println!("skipped: this machine has {}", device.describe()),
            Err(error) => {
                let text = error.to_string();
                assert!(text.starts_with("--device: no wgpu device: "), "{text}");
                assert!(text.contains("hint: "), "{text}");
            }
        }
        let error = Wgpu::open(99).err().expect("no machine has a hundred").to_string();
        assert!(error.contains("no wgpu device: "), "{error}");
    }
}
