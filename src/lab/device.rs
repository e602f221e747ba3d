//! Which device a run gets: what was asked for, opened, with a line that says which and why.

use crate::device::{Device, Kind, Precision};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::spec::DeviceChoice;

/// An open device, and what to tell about it.
pub struct Opened {
    pub device: Device,
    /// For a person: the device, and why it is this one where nobody named it.
    pub line: String,
}

/// A device as a spec names it.
pub fn choice(device: &Device) -> DeviceChoice {
    match device {
        Device::Cpu(_) => DeviceChoice::Cpu,
        #[cfg(feature = "cuda")]
        Device::Cuda(cuda) => DeviceChoice::Cuda(cuda.ordinal()),
        #[cfg(feature = "wgpu")]
        Device::Wgpu(wgpu) => DeviceChoice::Wgpu(wgpu.ordinal()),
    }
}

/// Opens the device of a choice. `threads`: of the cpu, 0 for one per core. `auto` takes the first cuda device there is,
/// else the first wgpu adapter if that is a discrete GPU, else the cpu: an integrated GPU gains nothing on small nets.
///
/// # Errors
/// A device that is asked for by name and is not there.
pub fn open(choice: DeviceChoice, threads: usize) -> Result<Opened> {
    let named = |device: Device| Opened { line: device.describe(), device };
    match choice {
        DeviceChoice::Cpu => Ok(named(Device::cpu(threads))),
        DeviceChoice::Cuda(ordinal) => Device::cuda(ordinal).map(named),
        DeviceChoice::Wgpu(ordinal) => Device::wgpu(ordinal).map(named),
        DeviceChoice::Auto => Ok(auto(threads)),
    }
}

/// The fastest device there is.
fn auto(threads: usize) -> Opened {
    let chosen = |device: Device| Opened { line: format!("{} (auto)", device.describe()), device };
    let no_cuda = match Device::cuda(0) {
        Ok(device) => return chosen(device),
        Err(error) => error.what,
    };
    let no_wgpu = match Device::wgpu(0) {
        #[cfg(feature = "wgpu")]
        Ok(Device::Wgpu(wgpu)) if !wgpu.is_discrete() => format!("{} is no discrete GPU", wgpu.describe()),
        Ok(device) => return chosen(device),
        Err(error) => error.what,
    };
    Opened { device: Device::cpu(threads), line: format!("cpu (auto: {no_cuda}; {no_wgpu})") }
}

/// Bytes for cohorts on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of all cohorts together: what is free.
    pub all: usize,
    /// Of one cohort.
    pub one: usize,
}

/// Memory to plan with where the system does not tell what is free.
const UNKNOWN_ROOM: usize = 4 << 30;

/// What a device has room for now. Every cohort also takes as much of the host's memory, which is looked at as well.
pub fn room(device: &Device) -> Room {
    let host = host_bytes().unwrap_or(UNKNOWN_ROOM);
    match device {
        Device::Cpu(_) => Room { all: host, one: host },
        #[cfg(feature = "cuda")]
        Device::Cuda(cuda) => {
            let facts = crate::device::cuda::survey().ok().and_then(|all| all.into_iter().nth(cuda.ordinal())?.ok());
            let free = facts.map_or(UNKNOWN_ROOM, |facts| facts.free).min(host);
            Room { all: free, one: free }
        }
        // the API does not tell what is free; a binding's limit is what one cohort can have
        #[cfg(feature = "wgpu")]
        Device::Wgpu(wgpu) => {
            let most = crate::device::wgpu::survey().ok().and_then(|all| Some(all.get(wgpu.ordinal())?.most_bytes));
            let one = most.map_or(UNKNOWN_ROOM, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)).min(host);
            Room { all: UNKNOWN_ROOM.min(host).max(one), one }
        }
    }
}

/// Memory of the host that is available, where the system tells it as Linux does.
fn host_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<usize>().ok()? * 1024)
}

/// Whether a device has a plan's number format.
///
/// # Errors
/// bf16 on wgpu, and on cuda where minibatches come out of a replay memory.
pub fn require(plan: &Plan, device: &Device) -> Result<()> {
    let replays = plan.off_policy.is_some();
    let what = match device.kind() {
        _ if plan.nets.precision() == Precision::F32 => return Ok(()),
        Kind::Cpu => return Ok(()),
        Kind::Cuda if !replays => return Ok(()),
        Kind::Cuda => format!("for {} on the cpu device alone", plan.spec.agent.algorithm.name()),
        Kind::Wgpu => "for the devices cpu and cuda".into(),
    };
    let what = format!("bf16 is built {what}, and this run is on the {}", choice(device));
    Err(Error::new("meta.precision", what).hint("use `--device cpu`, or `--set meta.precision=f32`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_says_which_and_why() {
        let opened = open(DeviceChoice::Auto, 1).unwrap();
        assert!(opened.line.contains("(auto"), "{}", opened.line);
        if choice(&opened.device) == DeviceChoice::Cpu {
            let line = &opened.line;
            assert!(
                line.contains("no cuda device") && (line.contains("no wgpu") || line.contains("no discrete GPU")),
                "{line}"
            );
        }
        assert!(open(DeviceChoice::Wgpu(99), 1).is_err());
    }
}
