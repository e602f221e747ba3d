//! The machine this program runs on, as far as its system tells.

use std::io::BufRead;

/// Processors that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Physical memory, where the system tells it as Linux does.
pub fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The processor's name, where the system tells it as Linux does on most processors.
pub fn cpu_model() -> Option<String> {
    // line by line, since the system asks every processor anew for its part of the file
    let file = std::io::BufReader::new(std::fs::File::open("/proc/cpuinfo").ok()?);
    let line = file.lines().map_while(Result::ok).find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// The operating system: its distribution and kernel where it tells them as Linux does, and the processor's kind.
pub fn os() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let name = read("/etc/os-release").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(line.trim_matches('"').to_string())
    });
    let kernel = read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_string());
    let known = [name, Some(std::env::consts::OS.to_string()), kernel, Some(std::env::consts::ARCH.to_string())];
    known.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
