//! Runs from the hub: into a temporary folder, checked, then renamed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::client::{Again, Failure, Hub, Payload};
use super::tree::{self, Hash, Remote, Repo};
use super::{escaped, hex};
use crate::error::{Error, Result};

/// What became of a run on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// It is here now.
    New { folder: PathBuf, files: usize, bytes: u64 },
    /// A folder of its name was here before, and is as it was.
    Kept { folder: PathBuf },
}

/// Brings a run into `data`. Whatever goes wrong, there is a whole run at the end or none. `see`: told of every file.
///
/// # Errors
/// As every request; a run without files, a path that leads out of its folder, bytes that are not those the hub promised.
pub fn pull(hub: &Hub, repo: &Repo, folder: &str, data: &Path, see: &mut dyn FnMut(&str)) -> Result<Pulled> {
    let target = data.join(folder);
    if target.symlink_metadata().is_ok() {
        return Ok(Pulled::Kept { folder: target });
    }
    // one commit, so that a push meanwhile does not give half of each
    let revision = tree::known_revision(hub, repo)?;
    let files = tree::files(hub, repo, &revision, folder)?;
    if files.is_empty() {
        return Err(Error::new(hub.page(&repo.to_string()), format!("there is no run `{folder}`"))
            .hint("`slm-fast pull --list` shows what there is"));
    }
    std::fs::create_dir_all(data).map_err(|error| Error::io(data, "cannot make the data folder", &error))?;
    let temporary = tempfile::Builder::new().prefix(".pulling-").tempdir_in(data);
    let temporary = temporary.map_err(|error| Error::io(data, "cannot make a folder", &error))?;
    let run = temporary.path().join(folder);
    for file in &files {
        let path = run.join(&file.path);
        let parent = path.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(parent).map_err(|error| Error::io(parent, "cannot make a folder", &error))?;
        see(&file.full);
        let url = hub.page(&format!("{repo}/resolve/{}/{}", escaped(&revision), escaped(&file.full)));
        download(hub, &url, file, &path)?;
    }
    // a rename onto an empty folder would succeed, so look once more
    if target.symlink_metadata().is_ok() {
        return Ok(Pulled::Kept { folder: target });
    }
    std::fs::rename(&run, &target).map_err(|error| Error::io(&target, "cannot make the run's folder", &error))?;
    Ok(Pulled::New { folder: target, files: files.len(), bytes: files.iter().map(|file| file.size).sum() })
}

/// Brings one file; a transfer that was cut goes on where it was, and bytes that are wrong are asked for once more.
fn download(hub: &Hub, url: &str, remote: &Remote, path: &Path) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(path, "cannot write", &error);
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path).map_err(failed)?;
    let mut wrong = 0;
    hub.tried(|| {
        let have = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let range: Vec<(String, String)> =
            (have > 0).then(|| ("range".to_string(), format!("bytes={have}-"))).into_iter().collect();
        let mut answer = hub.once("GET", url, &range, Payload::Nothing, &[])?;
        if answer.status().as_u16() != 206 && have > 0 {
            // the whole file again
            file.set_len(0).map_err(failed)?;
            file.rewind().map_err(failed)?;
        }
        // one byte more than promised is enough to know
        let most = (remote.size + 1).saturating_sub(file.stream_position().map_err(failed)?);
        let mut body = answer.body_mut().as_reader().take(most);
        let mut block = vec![0; 1 << 16];
        loop {
            match body.read(&mut block) {
                Ok(0) => break,
                Ok(n) => file.write_all(&block[..n]).map_err(failed)?,
                Err(error) => return Err(hub.lost(&hub.place(url), &format!("the transfer was cut: {error}"))),
            }
        }
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if size < remote.size {
            return Err(
                hub.lost(&hub.place(url), &format!("the transfer was cut after {size} of {} bytes", remote.size))
            );
        }
        let hash =
            if size == remote.size { Some(hash_of(&mut file, &remote.hash, size).map_err(failed)?) } else { None };
        if hash.as_ref() == Some(&remote.hash) {
            return file.sync_all().map_err(|error| failed(error).into());
        }
        wrong += 1;
        file.set_len(0).map_err(failed)?;
        let error = Error::new(hub.place(url), "the bytes are not those that the hub promised (size or hash differs)")
            .hint("try again later; if it stays so, the file on the hub is damaged");
        Err(Failure { error, again: if wrong < 2 { Again::Soon } else { Again::Never } })
    })
}

/// The hash of a whole file, of the kind that the hub promised.
fn hash_of(file: &mut File, kind: &Hash, size: u64) -> std::io::Result<Hash> {
    fn digest<D: Digest>(file: &mut File, mut sha: D) -> std::io::Result<String> {
        let mut block = vec![0; 1 << 16];
        file.rewind()?;
        loop {
            match file.read(&mut block)? {
                0 => return Ok(hex(&sha.finalize())),
                n => sha.update(&block[..n]),
            }
        }
    }
    Ok(match kind {
        Hash::Large(_) => Hash::Large(digest(file, Sha256::new())?),
        Hash::Blob(_) => Hash::Blob(digest(file, Sha1::new_with_prefix(format!("blob {size}\0")))?),
    })
}
