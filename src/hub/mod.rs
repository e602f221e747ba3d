//! The Hugging Face hub: runs as folders of a dataset repository, laid out as SLM Lab does it (`data/{folder}/...`).
//!
//! This is the part of the hub's HTTP API that takes folders there and back: `client` asks and tries again, `tree` lists,
//! `push` and `pull` move files. Nothing here reads the environment, and no message holds the token or a signed address.

mod client;
mod pull;
mod push;
mod tree;

pub use client::{Hub, PUBLIC};
pub use pull::{Pulled, pull};
pub use push::{Parcel, Pushed, pack, push};
pub use tree::{Repo, folders};

/// The branch that runs are pushed to and pulled from.
const BRANCH: &str = "main";
/// Where the runs of a repository are.
const DATA: &str = "data";

/// What of a name may stand in an address as it is; the rest is written as `%XX`.
fn escaped(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// A digest as text.
fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
