//! `slm-fast devices`: what this machine can run on.

use slm_fast::device::cpu::Isa;

use super::{Ending, say};

/// Lists the devices, one line each.
pub fn list() -> Ending {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut line = format!("cpu   {cores} core{}, {}", if cores == 1 { "" } else { "s" }, Isa::detect().name());
    if let Some(gib) = memory_gib() {
        line += &format!(", {gib:.1} GiB memory");
    }
    if let Some(model) = cpu_model() {
        line += &format!(" ({model})");
    }
    say(&line);
    cuda();
    wgpu();
    Ending::Success
}

/// A line per wgpu adapter, or why there is none.
#[cfg(feature = "wgpu")]
fn wgpu() {
    use slm_fast::device::human_bytes;
    use slm_fast::device::wgpu::{Facts, survey};
    match survey() {
        Err(reason) => say(&format!("wgpu  none: {reason}")),
        Ok(adapters) => adapters.into_iter().for_each(|facts| {
            let Facts { ordinal, name, backend, driver, is_software, most_bytes, shared_bytes, threads, subgroups } = facts;
            let subgroups = match subgroups {
                Some((few, most)) if few == most => format!("subgroups of {most}"),
                Some((few, most)) => format!("subgroups of {few} to {most}"),
                None => "no subgroups".to_string(),
            };
            say(&format!(
                "wgpu:{ordinal}  {name}{}, {backend}, {driver}; at most {} a cohort, {} of workgroup memory, {threads} threads a \
                 workgroup, {subgroups}",
                if is_software { " (software)" } else { "" },
                human_bytes(most_bytes as usize),
                human_bytes(shared_bytes as usize),
            ));
        }),
    }
}

/// The program was built without it.
#[cfg(not(feature = "wgpu"))]
fn wgpu() {
    say("wgpu  not built into this version");
}

/// A line per cuda device, or why there is none.
#[cfg(feature = "cuda")]
fn cuda() {
    use slm_fast::device::cuda::{Ceilings, Cuda, Facts, survey};
    use slm_fast::device::human_bytes;
    let speed = |ordinal| match Cuda::open(ordinal).and_then(|device| device.ceilings()) {
        Ok(Ceilings { copy, fma, mma }) => {
            format!("copies {copy:.0} GB/s, f32 {:.1} TFLOP/s, bf16 {:.0} TFLOP/s", fma / 1e3, mma / 1e3)
        }
        Err(error) => error.what,
    };
    let line = |Facts { ordinal, name, free, total, driver, capability: (major, minor), processors }| {
        let (free, total) = (human_bytes(free), human_bytes(total));
        format!(
            "cuda:{ordinal}  {name}, {free} of {total} free, {processors} SMs, compute capability {major}.{minor}, driver \
             for CUDA {driver}; {}",
            speed(ordinal)
        )
    };
    match survey() {
        Err(reason) => say(&format!("cuda  none: {reason}")),
        Ok(devices) => devices.into_iter().for_each(|device| match device {
            Ok(facts) => say(&line(facts)),
            Err(reason) => say(&format!("cuda  cannot be used: {reason}")),
        }),
    }
}

/// The program was built without it.
#[cfg(not(feature = "cuda"))]
fn cuda() {
    say("cuda  not built into this version");
}

/// Physical memory, where the system tells it as Linux does.
fn memory_gib() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: f64 =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib / (1024.0 * 1024.0))
}

/// The processor's name, where the system tells it as Linux does.
fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}
