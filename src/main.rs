//! The command line of slm-fast, and the only reader of environment variables.

mod cli;

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let started = Instant::now();
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    // other systems than Linux and the BSDs always have a desktop, or say so when a window is opened
    let has_display = !cfg!(all(unix, not(target_os = "macos"))) || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY");
    // without a desktop Mesa's chooser of GPUs complains on stderr that it cannot ask the desktop
    if cfg!(target_os = "linux") && !is_set("XDG_RUNTIME_DIR") {
        // SAFETY: no other thread has been started
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
    cli::run(&cli::Surroundings { started, has_display })
}
