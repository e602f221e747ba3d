//! The command line of slm-fast, and the only reader of environment variables.

mod cli;

use std::process::ExitCode;
use std::time::Instant;

/// The commit that this program is compiled from, and whether its sources differed from it.
const BUILT_FROM: (&str, Option<bool>) = slm_fast_commit::commit!();

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
    cli::run(&cli::Surroundings { started, has_display, built_from: BUILT_FROM, command: typed() })
}

/// The command line as a shell reads it.
fn typed() -> String {
    let quoted = |word: std::borrow::Cow<str>| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
        if !word.is_empty() && word.chars().all(is_plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    let words = std::env::args_os().skip(1).map(|word| quoted(word.to_string_lossy()));
    ["slm-fast".to_string()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}
