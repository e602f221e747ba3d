//! The command line of slm-fast, and the only reader of environment variables.

mod cli;

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let started = Instant::now();
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    // other systems than Linux and the BSDs always have a desktop, or say so when a window is opened
    let has_display = !cfg!(all(unix, not(target_os = "macos"))) || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY");
    cli::run(&cli::Surroundings { started, has_display })
}
