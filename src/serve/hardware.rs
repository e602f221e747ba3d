//! How busy the machine is: processor and memory as Linux counts them, GPUs as `nvidia-smi` does.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

/// Time between two questions to `nvidia-smi`.
const ASK_EVERY: Duration = Duration::from_secs(2);
const QUERY: [&str; 2] =
    ["--query-gpu=name,utilization.gpu,memory.used,memory.total,temperature.gpu", "--format=csv,noheader,nounits"];

/// What is known of the machine, and since when.
#[derive(Default)]
pub struct Hardware {
    /// Busy and all time of the processors when it was last looked at, and their use since.
    cpu: Mutex<Option<(u64, u64, f64)>>,
    gpu: Arc<Mutex<Gpu>>,
}

/// The last answer of `nvidia-smi`.
#[derive(Default)]
struct Gpu {
    /// Why there is none, where there is none.
    answer: Option<Result<Vec<Json>, String>>,
    asked: Option<Instant>,
    is_asking: bool,
}

impl Hardware {
    /// The use of everything now, as the page shows it.
    pub fn now(&self) -> Json {
        let (gpus, why) = match self.gpus() {
            Some(Ok(gpus)) => (Some(gpus), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, Some("nvidia-smi is being asked".to_string())),
        };
        let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text));
        json!({
            "cpu_percent": self.cpu_percent(),
            "cores": std::thread::available_parallelism().ok().map(usize::from),
            "memory_used": memory.map(|(used, _)| used),
            "memory_total": memory.map(|(_, total)| total),
            "gpus": gpus,
            "no_gpu": why,
        })
    }

    /// Share of the processors' time that was used since the last look; none elsewhere than on Linux.
    fn cpu_percent(&self) -> Option<f64> {
        let (busy, all) = ticks(&std::fs::read_to_string("/proc/stat").ok()?)?;
        let mut last = self.cpu.lock().unwrap_or_else(PoisonError::into_inner);
        let (busy_then, all_then, percent_then) = last.unwrap_or((0, 0, 0.0));
        // several viewers look within one tick
        if all < all_then + 20 {
            return Some(percent_then);
        }
        let percent = 100.0 * busy.saturating_sub(busy_then) as f64 / (all - all_then) as f64;
        let percent = (percent * 10.0).round() / 10.0;
        *last = Some((busy, all, percent));
        Some(percent)
    }

    /// The last answer; a new one is asked for beside, since the driver may take seconds.
    fn gpus(&self) -> Option<Result<Vec<Json>, String>> {
        let mut gpu = self.gpu.lock().unwrap_or_else(PoisonError::into_inner);
        if !gpu.is_asking && gpu.asked.is_none_or(|asked| asked.elapsed() > ASK_EVERY) {
            gpu.is_asking = true;
            let shared = Arc::clone(&self.gpu);
            std::thread::spawn(move || {
                let answer = ask();
                let mut gpu = shared.lock().unwrap_or_else(PoisonError::into_inner);
                *gpu = Gpu { answer: Some(answer), asked: Some(Instant::now()), is_asking: false };
            });
        }
        gpu.answer.clone()
    }
}

/// Asks `nvidia-smi`.
fn ask() -> Result<Vec<Json>, String> {
    let output = Command::new("nvidia-smi").args(QUERY).stdin(Stdio::null()).output();
    let output = output.map_err(|_| "nvidia-smi is not installed".to_string())?;
    if !output.status.success() {
        return Err("nvidia-smi finds no GPU".to_string());
    }
    Ok(gpus(&String::from_utf8_lossy(&output.stdout)))
}

/// A line of `nvidia-smi` per GPU; a cell that is no number (`[N/A]`) is null.
fn gpus(text: &str) -> Vec<Json> {
    let gpu = |line: &str| {
        // a name may hold a comma, a number does not
        let mut cells = line.rsplitn(5, ',').map(str::trim);
        let mut next = || cells.next().and_then(|cell| cell.parse::<f64>().ok());
        let (temperature, total, used, percent) = (next(), next(), next(), next());
        let mib = |mib: Option<f64>| mib.map(|mib| mib * f64::from(1 << 20));
        json!({
            "name": cells.next().unwrap_or_default(),
            "percent": percent,
            "memory_used": mib(used),
            "memory_total": mib(total),
            "temperature_c": temperature,
        })
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(gpu).collect()
}

/// Busy and all ticks of all processors since the machine started, from `/proc/stat`.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let cells = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    // user, nice, system, idle, iowait, irq, softirq, steal; guest time is in user's
    let numbers: Vec<u64> = cells.take(8).filter_map(|cell| cell.parse().ok()).collect();
    let all: u64 = numbers.iter().sum();
    let idle = numbers.get(3)? + numbers.get(4)?;
    Some((all - idle, all))
}

/// Used and all bytes of memory, from `/proc/meminfo`.
fn memory(info: &str) -> Option<(u64, u64)> {
    let bytes = |name: &str| -> Option<u64> {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
    };
    let total = bytes("MemTotal")?;
    Some((total.saturating_sub(bytes("MemAvailable")?), total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(ticks("cpu  10 1 9 70 10 0 0 0 5 0\ncpu0 1\n"), Some((20, 100)));
        assert_eq!(ticks("intr 5"), None);
        let info = "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    400 kB\n";
        assert_eq!(memory(info), Some((600 << 10, 1000 << 10)));
        let found = gpus("NVIDIA H200, 97, 1024, 143771, 54\nX, Y, [N/A], 1, 2, [N/A]\n");
        assert_eq!((&found[0]["name"], &found[0]["percent"]), (&json!("NVIDIA H200"), &json!(97.0)));
        assert_eq!(found[0]["memory_used"], json!(1024.0 * 1048576.0));
        assert_eq!((&found[1]["name"], &found[1]["percent"]), (&json!("X, Y"), &Json::Null));
    }
}
