//! What a dataset holds: its revision, the folders of runs, the files of one.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::client::{Hub, Payload};
use super::{BRANCH, DATA, escaped, hex};
use crate::error::{Error, Result};

/// A dataset's name, `user/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo(String);

impl std::str::FromStr for Repo {
    type Err = Error;

    fn from_str(text: &str) -> Result<Repo> {
        let is_name = |part: &str| {
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && !part.starts_with(['-', '.'])
                && !part.contains("..")
        };
        match text.split_once('/') {
            Some((user, name)) if is_name(user) && is_name(name) => Ok(Repo(text.to_string())),
            _ => Err(Error::new("", format!("`{text}` is no repository")).hint("write it as `user/name`")),
        }
    }
}

impl std::fmt::Display for Repo {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Repo {
    /// Owner and name.
    pub(super) fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').expect("checked where it was made")
    }
}

/// What the hub promises of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hash {
    /// Git's id of the file.
    Blob(String),
    /// SHA-256, of files that git keeps elsewhere.
    Large(String),
}

impl Hash {
    /// The same hash of some bytes.
    pub fn of(&self, bytes: &[u8]) -> Hash {
        match self {
            Hash::Blob(_) => Hash::Blob(blob_id(bytes)),
            Hash::Large(_) => Hash::Large(hex(&Sha256::digest(bytes))),
        }
    }
}

/// Git's id of a file.
fn blob_id(bytes: &[u8]) -> String {
    let mut sha = Sha1::new();
    sha.update(format!("blob {}\0", bytes.len()));
    sha.update(bytes);
    hex(&sha.finalize())
}

/// A file of a run on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// Below the run's folder.
    pub path: PathBuf,
    /// In the repository.
    pub full: String,
    pub size: u64,
    pub hash: Hash,
}

/// The commit that the branch is at; none where there is no such dataset, or none that we may see.
pub(super) fn revision(hub: &Hub, repo: &Repo) -> Result<Option<String>> {
    let url = hub.api(&format!("datasets/{repo}/revision/{BRANCH}"));
    let (status, json, _) = hub.json("GET", &url, Payload::Nothing, &[404])?;
    match json["sha"].as_str() {
        _ if status == 404 => Ok(None),
        // a new dataset has no commit to name
        sha => Ok(Some(sha.unwrap_or(BRANCH).to_string())),
    }
}

/// The revision of a dataset that has to be there.
pub(super) fn known_revision(hub: &Hub, repo: &Repo) -> Result<String> {
    revision(hub, repo)?.ok_or_else(|| {
        Error::new(hub.page(&repo.to_string()), "there is no such dataset, or it is private")
            .hint("check the name; a private one needs HF_TOKEN")
    })
}

/// The entries below a folder of a repository; none where there is no such folder.
fn entries(hub: &Hub, repo: &Repo, revision: &str, path: &str, deep: bool) -> Result<Vec<Value>> {
    let query = if deep { "?recursive=true" } else { "" };
    let mut next = Some(hub.api(&format!("datasets/{repo}/tree/{}/{}{query}", escaped(revision), escaped(path))));
    let mut found = Vec::new();
    while let Some(url) = next {
        let (_, json, link) = hub.json("GET", &url, Payload::Nothing, &[404])?;
        found.extend(json.as_array().cloned().unwrap_or_default());
        next = link.filter(|link| hub.owns(link));
    }
    Ok(found)
}

/// The runs of a dataset whose folder's name holds `pattern`, sorted.
///
/// # Errors
/// As every request: no network, no such dataset, no right to see it.
pub fn folders(hub: &Hub, repo: &Repo, pattern: &str) -> Result<Vec<String>> {
    let revision = known_revision(hub, repo)?;
    let mut found: Vec<String> = entries(hub, repo, &revision, DATA, false)?
        .iter()
        .filter(|entry| entry["type"] == "directory")
        .filter_map(|entry| entry["path"].as_str()?.strip_prefix("data/").map(str::to_string))
        .filter(|name| name.contains(pattern) && is_plain(name))
        .collect();
    found.sort();
    Ok(found)
}

/// Whether a name is one part of a path on every system, and leads nowhere else.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', ':', '\0'])
}

/// The files of a run on the hub.
///
/// # Errors
/// As every request; a path that leads out of the folder, a file without size or hash.
pub(super) fn files(hub: &Hub, repo: &Repo, revision: &str, folder: &str) -> Result<Vec<Remote>> {
    let root = format!("{DATA}/{folder}");
    let read = |entry: Value| -> Result<Remote> {
        let full = entry["path"].as_str().unwrap_or_default().to_string();
        let refuse = |what: &str| Error::new(hub.page(&repo.to_string()), format!("{what}: `{}`", full.escape_debug()));
        let inner = full.strip_prefix(&root).and_then(|rest| rest.strip_prefix('/'));
        let inner = inner.filter(|inner| inner.split('/').all(is_plain));
        let path = inner.ok_or_else(|| refuse("a file's path leads out of the run's folder"))?;
        let path = Path::new(path).to_path_buf();
        let large = entry["lfs"]["oid"].as_str().map(|oid| Hash::Large(oid.to_string()));
        let hash = large.or(entry["oid"].as_str().map(|oid| Hash::Blob(oid.to_string())));
        let size = entry["lfs"]["size"].as_u64().or(entry["size"].as_u64());
        match (hash, size) {
            (Some(hash), Some(size)) => Ok(Remote { path, full, size, hash }),
            _ => Err(refuse("the hub says neither size nor hash of a file")),
        }
    };
    let all = entries(hub, repo, revision, &root, true)?;
    all.into_iter().filter(|entry| entry["type"] == "file").map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["user/name", "SLM-Lab/benchmark_dev.2"] {
            assert_eq!(name.parse::<Repo>().unwrap().to_string(), name);
        }
        for name in ["name", "a/b/c", "../x", "a/..", "a/", "/b", "a/b c", "-a/b"] {
            assert!(name.parse::<Repo>().is_err(), "{name}");
        }
        assert!(!is_plain("..") && !is_plain("a/b") && !is_plain("C:") && is_plain("ppo_x_2026_01_31_120000"));
    }

    #[test]
    fn a_blob_has_the_id_that_git_gives_it() {
        // `printf 'hello\n' | git hash-object --stdin`
        assert_eq!(blob_id(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}
