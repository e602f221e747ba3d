//! The commit that a program is compiled from, asked of git while the compiler runs.
//!
//! A build script would do, but whenever one runs again, as it must after each commit, cargo compiles everything of its
//! package again. A macro is expanded where it stands: after a commit the program's own few files are compiled, and the
//! library is not.

use std::path::Path;
use std::process::Command;

use proc_macro::TokenStream;

/// What a change of goes into the program; git is asked about nothing else, so a run's data never makes a tree dirty.
const SOURCES: [&str; 7] = ["src", "commit", "kernels", "shaders", "assets", "Cargo.toml", "Cargo.lock"];

/// Expands to `(sha, dirty): (&str, Option<bool>)`: the commit's full id, and whether a tracked source file differed from
/// it; `commit!("benches")` asks about one more folder. Without git the ones that cargo packed with the sources;
/// `("unknown", None)` where nothing knows.
#[proc_macro]
pub fn commit(more: TokenStream) -> TokenStream {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&root);
    let more = more.to_string();
    let text = match of_tree(root, more.trim_matches('"')) {
        // the compiler looks again whenever this file changes
        Some((sha, dirty, Some(watched))) => {
            format!("{{ const _: &[u8] = include_bytes!({watched:?}); ({sha:?}, Some({dirty})) }}")
        }
        Some((sha, dirty, None)) => format!("({sha:?}, Some({dirty}))"),
        None => match of_package(root) {
            Some((sha, dirty)) => format!("({sha:?}, Some({dirty}))"),
            None => r#"("unknown", None)"#.to_string(),
        },
    };
    text.parse().expect("an expression of strings")
}

/// Of a git working tree whose root is `root`: the commit, whether sources differ, and the file that grows with every
/// commit and checkout.
fn of_tree(root: &Path, more: &str) -> Option<(String, bool, Option<String>)> {
    let git = |args: &[&str]| {
        // looking must not write into the repository
        let output = Command::new("git").arg("--no-optional-locks").args(args).current_dir(root).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
        output.status.success().then_some(text)
    };
    // a folder of sources that was unpacked inside of another repository is not of its commit
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() || git(&["ls-files", "Cargo.toml"])?.is_empty() {
        return None;
    }
    let sha = git(&["rev-parse", "--verify", "HEAD"])?;
    let more = (!more.is_empty()).then_some(more);
    let sources: Vec<&str> = SOURCES.into_iter().chain(more).collect();
    let changed = git(&[&["status", "--porcelain", "--untracked-files=no", "--"], &sources[..]].concat())?;
    let log = root.join(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    let watched = log.is_file().then(|| log.to_str().map(str::to_string)).flatten();
    Some((sha, !changed.is_empty(), watched))
}

/// Of a package that cargo made: what it noted of the working tree.
fn of_package(root: &Path) -> Option<(String, bool)> {
    let text = std::fs::read_to_string(root.join(".cargo_vcs_info.json")).ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    let sha = rest.split('"').nth(1)?;
    let is_id = sha.len() >= 40 && sha.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| (sha.to_string(), text.contains("\"dirty\": true")))
}
