//! `slm-fast devices`: what this machine can run on.

use slm_fast::device::cpu::Isa;
use slm_fast::device::{host, human_bytes};

use super::{Ending, say};

/// Lists the devices, one line each.
pub fn list() -> Ending {
    let cores = host::cores();
    let mut line = format!("cpu   {cores} core{}, {}", if cores == 1 { "" } else { "s" }, Isa::detect().name());
    if Isa::detect().multiplies_bf16() {
        line.push_str(", bf16");
    }
    if let Some(bytes) = host::memory_bytes() {
        line += &format!(", {} memory", human_bytes(bytes as usize));
    }
    if let Some(model) = host::cpu_model() {
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
