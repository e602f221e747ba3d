//! `slm-fast devices`: what this machine can run on.

use super::{Ending, say};

/// Lists the devices, one line each.
pub fn list() -> Ending {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut line = format!("cpu   {cores} core{}, {}", if cores == 1 { "" } else { "s" }, instruction_set());
    if let Some(gib) = memory_gib() {
        line += &format!(", {gib:.1} GiB memory");
    }
    if let Some(model) = cpu_model() {
        line += &format!(" ({model})");
    }
    say(&line);
    say("cuda  not built into this version");
    say("wgpu  not built into this version");
    Ending::Success
}

/// The widest vector instructions that the kernels will use here.
fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            "avx512"
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            "avx2"
        } else {
            "sse2"
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        "neon"
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        "scalar"
    }
}

/// Physical memory, where the system tells it as Linux does.
fn memory_gib() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: f64 = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib / (1024.0 * 1024.0))
}

/// The processor's name, where the system tells it as Linux does.
fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}
