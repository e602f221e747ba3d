//! Runs to the hub: what goes, and one commit after another until it is there.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::client::{Failure, Hub, Payload};
use super::tree::{self, Hash, Remote, Repo};
use super::{BRANCH, DATA, escaped, hex};
use crate::error::{Error, Result};
use crate::report::files::RunFolder;

/// Bytes of a file that the hub looks at to say how it is kept.
const SAMPLE: usize = 512;
/// Files of one question to the hub, as its own client asks.
const FILES: usize = 256;
/// Bytes within one commit; large files are not within it.
const INLINE: u64 = 32 << 20;
/// What git calls the protocol of large files.
const LARGE_FILES: &str = "application/vnd.git-lfs+json";

/// A file that goes, or stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Below the run's folder, with `/` between its parts.
    pub path: String,
    pub size: u64,
}

/// A run, packed.
#[derive(Debug)]
pub struct Parcel {
    root: PathBuf,
    /// The name of its folder, here and there.
    pub folder: String,
    pub files: Vec<Item>,
    /// Left out: checkpoints that only continue the run, and what is no finished file.
    pub left_out: Vec<Item>,
}

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Files that were sent, with their bytes.
    pub files: usize,
    pub bytes: u64,
    /// Files that were there already.
    pub same: usize,
    /// Where a person sees them.
    pub page: String,
}

/// Lists what of a run goes to the hub. `all`: with the checkpoints that continue it.
///
/// # Errors
/// A folder that is no run, or cannot be read.
pub fn pack(folder: &Path, all: bool) -> Result<Parcel> {
    let run = RunFolder::open(folder)?;
    let root = folder.canonicalize().map_err(|error| Error::io(folder, "cannot read the run's folder", &error))?;
    let name = root.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::new(folder.display().to_string(), "the folder has no name in UTF-8"))?;
    let mut parcel = Parcel { root: root.clone(), folder: name.to_string(), files: Vec::new(), left_out: Vec::new() };
    let resume = format!("{}_t", run.spec_name());
    let mut folders = vec![(root, String::new())];
    while let Some((path, prefix)) = folders.pop() {
        let failed = |error: std::io::Error| Error::io(&path, "cannot read the run's folder", &error);
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let file = entry.file_name();
            let kind = entry.file_type().map_err(failed)?;
            let name = format!("{prefix}{}", file.to_string_lossy());
            if kind.is_dir() {
                folders.push((entry.path(), format!("{name}/")));
                continue;
            }
            let item = Item { path: name, size: entry.metadata().map_err(failed)?.len() };
            let file = file.to_str().unwrap_or(".");
            let continues = file.starts_with(&resume) && file.ends_with("_resume.safetensors");
            // a link's target is no part of the run, and a hidden file is one that is being written
            let goes = kind.is_file() && !file.starts_with('.') && (all || !continues);
            if goes { parcel.files.push(item) } else { parcel.left_out.push(item) }
        }
    }
    for items in [&mut parcel.files, &mut parcel.left_out] {
        items.sort_by(|a, b| a.path.cmp(&b.path));
    }
    Ok(parcel)
}

/// A file with what the hub asks about it.
struct Ready<'a> {
    item: &'a Item,
    /// In the repository.
    full: String,
    sha256: String,
    sample: Vec<u8>,
}

/// Sends a run to a dataset, which is made where there is none. Files that are there with the same bytes are not sent
/// again, so a push that was interrupted goes on. `see`: told what happens.
///
/// # Errors
/// As every request: no network, no right, a hub that refuses. Files of commits before the error are on the hub.
pub fn push(hub: &Hub, repo: &Repo, parcel: &Parcel, private: bool, see: &mut dyn FnMut(&str)) -> Result<Pushed> {
    let there = match tree::revision(hub, repo)? {
        Some(revision) => tree::files(hub, repo, &revision, &parcel.folder)?,
        None => {
            create(hub, repo, private)?;
            see(&format!("made the dataset {repo}"));
            Vec::new()
        }
    };
    let there: HashMap<String, Remote> = there.into_iter().map(|remote| (remote.full.clone(), remote)).collect();
    let mut ready = Vec::new();
    for item in &parcel.files {
        let full = format!("{DATA}/{}/{}", parcel.folder, item.path);
        let (file, same) = read(parcel, item, full, &there)?;
        if !same {
            ready.push(file);
        }
    }
    let bytes = ready.iter().map(|file| file.item.size).sum();
    let page = hub.page(&format!("{repo}/tree/{BRANCH}/{DATA}/{}", escaped(&parcel.folder)));
    let pushed = Pushed { files: ready.len(), bytes, same: parcel.files.len() - ready.len(), page };
    let mut done = 0;
    let mut lines: Vec<Value> = Vec::new();
    let mut inline = 0;
    for part in ready.chunks(FILES) {
        let modes = modes(hub, repo, part)?;
        let large: Vec<&Ready> =
            part.iter().filter(|file| modes.get(&file.full).is_some_and(|mode| mode == "lfs")).collect();
        send_large(hub, repo, parcel, &large)?;
        for file in part {
            if modes.get(&file.full).is_some_and(|mode| mode == "lfs") {
                let value = json!({ "path": file.full, "algo": "sha256", "oid": file.sha256, "size": file.item.size });
                lines.push(json!({ "key": "lfsFile", "value": value }));
                continue;
            }
            if inline + file.item.size > INLINE && !lines.is_empty() {
                commit(hub, repo, &parcel.folder, &std::mem::take(&mut lines))?;
                inline = 0;
            }
            inline += file.item.size;
            let path = parcel.root.join(&file.item.path);
            let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, "cannot read", &error))?;
            let value = json!({ "path": file.full, "encoding": "base64", "content": STANDARD.encode(bytes) });
            lines.push(json!({ "key": "file", "value": value }));
        }
        commit(hub, repo, &parcel.folder, &std::mem::take(&mut lines))?;
        inline = 0;
        done += part.len();
        see(&format!("{done} of {} files", ready.len()));
    }
    Ok(pushed)
}

/// Reads a file once for its hash and its first bytes, and says whether the hub has it.
fn read<'a>(
    parcel: &Parcel,
    item: &'a Item,
    full: String,
    there: &HashMap<String, Remote>,
) -> Result<(Ready<'a>, bool)> {
    let path = parcel.root.join(&item.path);
    let failed = |error: std::io::Error| Error::io(&path, "cannot read", &error);
    let mut file = std::fs::File::open(&path).map_err(failed)?;
    let (mut sha, mut sample, mut block) = (Sha256::new(), Vec::new(), vec![0; 1 << 16]);
    let mut size = 0;
    loop {
        let n = file.read(&mut block).map_err(failed)?;
        if n == 0 {
            break;
        }
        sha.update(&block[..n]);
        sample.extend_from_slice(&block[..n.min(SAMPLE - sample.len())]);
        size += n as u64;
    }
    if size != item.size {
        return Err(Error::new(path.display().to_string(), "the file changed while it was read")
            .hint("push a run once it has ended"));
    }
    let sha256 = hex(&sha.finalize());
    let same = match there.get(&full).filter(|remote| remote.size == size) {
        Some(Remote { hash: Hash::Large(oid), .. }) => *oid == sha256,
        Some(Remote { hash, .. }) => hash.of(&std::fs::read(&path).map_err(failed)?) == *hash,
        None => false,
    };
    Ok((Ready { item, full, sha256, sample }, same))
}

/// Makes the dataset; one that somebody else made meanwhile is as good.
fn create(hub: &Hub, repo: &Repo, private: bool) -> Result<()> {
    let (organization, name) = repo.parts();
    let body = json!({ "type": "dataset", "name": name, "organization": organization, "private": private });
    hub.json(
        "POST",
        &hub.api("repos/create"),
        Payload::Bytes(body.to_string().as_bytes(), "application/json"),
        &[409],
    )?;
    Ok(())
}

/// How the hub keeps each file: `lfs` or `regular`.
fn modes(hub: &Hub, repo: &Repo, files: &[Ready]) -> Result<HashMap<String, String>> {
    let url = hub.api(&format!("datasets/{repo}/preupload/{BRANCH}"));
    let asked: Vec<Value> = (files.iter())
        .map(|file| json!({ "path": file.full, "size": file.item.size, "sample": STANDARD.encode(&file.sample) }))
        .collect();
    let body = json!({ "files": asked }).to_string();
    let (_, json, _) = hub.json("POST", &url, Payload::Bytes(body.as_bytes(), "application/json"), &[])?;
    let pair = |entry: &Value| Some((entry["path"].as_str()?.to_string(), entry["uploadMode"].as_str()?.to_string()));
    let mut modes: HashMap<String, String> = json["files"].as_array().into_iter().flatten().filter_map(pair).collect();
    // nothing at all cannot be kept elsewhere
    modes.retain(|path, _| files.iter().any(|file| file.full == *path && file.item.size > 0));
    Ok(modes)
}

/// Sends the large files to where the hub wants them; those it has already are not asked for.
fn send_large(hub: &Hub, repo: &Repo, parcel: &Parcel, files: &[&Ready]) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let url = hub.page(&format!("{repo}.git/info/lfs/objects/batch"));
    let objects: Vec<Value> = files.iter().map(|file| json!({ "oid": file.sha256, "size": file.item.size })).collect();
    let body = json!({ "operation": "upload", "transfers": ["basic"], "objects": objects, "hash_algo": "sha256" });
    let accept = [("accept".to_string(), LARGE_FILES.to_string())];
    let (_, json, _) =
        hub.json_with("POST", &url, &accept, Payload::Bytes(body.to_string().as_bytes(), LARGE_FILES), &[])?;
    for object in json["objects"].as_array().into_iter().flatten() {
        let Some(file) = files.iter().find(|file| object["oid"] == file.sha256.as_str()) else { continue };
        if let Some(message) = object["error"]["message"].as_str() {
            return Err(Error::new(&file.full, format!("the hub refuses this file: {message}")));
        }
        let actions = &object["actions"];
        let Some(href) = actions["upload"]["href"].as_str() else { continue };
        let (path, size) = (parcel.root.join(&file.item.path), file.item.size);
        hub.tried(|| {
            let answer = hub.once("PUT", href, &headers(&actions["upload"]), Payload::File(&path, size), &[]);
            let mut answer =
                answer.map_err(|failure| Failure { error: failure.error.within(&file.full), ..failure })?;
            let _ = answer.body_mut().read_to_vec();
            Ok(())
        })?;
        if let Some(href) = actions["verify"]["href"].as_str() {
            let body = json!({ "oid": file.sha256, "size": size }).to_string();
            let payload = Payload::Bytes(body.as_bytes(), LARGE_FILES);
            hub.json_with("POST", href, &headers(&actions["verify"]), payload, &[])?;
        }
    }
    Ok(())
}

/// The headers that an action asks for.
fn headers(action: &Value) -> Vec<(String, String)> {
    let pairs = action["header"].as_object().into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_string()))).collect()
}

/// One commit of some files.
fn commit(hub: &Hub, repo: &Repo, folder: &str, lines: &[Value]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let header = json!({ "key": "header", "value": { "summary": format!("{folder}: {} files", lines.len()) } });
    let mut text = String::new();
    for line in std::iter::once(&header).chain(lines) {
        text += &line.to_string();
        text.push('\n');
    }
    let url = hub.api(&format!("datasets/{repo}/commit/{BRANCH}"));
    let place = hub.place(&url);
    let payload = Payload::Bytes(text.as_bytes(), "application/x-ndjson");
    let (_, json, _) = hub.json("POST", &url, payload, &[])?;
    if json["success"] == false {
        return Err(Error::new(place, "the hub did not take the commit"));
    }
    Ok(())
}
