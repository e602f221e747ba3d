//! `slm-fast push` and `slm-fast pull`: runs to and from the Hugging Face hub, and the upload at the end of a run.

#[cfg(not(feature = "hub"))]
pub use absent::{after_run, pull, push};
#[cfg(feature = "hub")]
pub use present::{after_run, pull, push};

/// Whether `UPLOAD_HF` asks for an upload at the end of a run.
fn wants_upload() -> bool {
    std::env::var("UPLOAD_HF").is_ok_and(|value| ["true", "1", "yes"].contains(&value.to_lowercase().as_str()))
}

/// What says so where the program was built without it.
#[cfg(not(feature = "hub"))]
mod absent {
    use std::path::Path;

    use slm_fast::error::{Error, Result};

    use super::super::{Ending, PullArgs, PushArgs, note};

    const HOW: &str = "install it with `cargo install --path . --features hub` in a clone of slm-fast";

    fn missing() -> Error {
        Error::new("", "this program was built without the Hugging Face hub").hint(HOW)
    }

    pub fn push(_: &PushArgs) -> Result<Ending> {
        Err(missing())
    }

    pub fn pull(_: &PullArgs) -> Result<Ending> {
        Err(missing())
    }

    /// Says that nothing is uploaded, where an upload is asked for.
    pub fn after_run(folder: &Path) {
        if super::wants_upload() {
            note(&format!("warning: {} is not uploaded: {}", folder.display(), missing()));
        }
    }
}

#[cfg(feature = "hub")]
mod present {
    use std::path::{Path, PathBuf};

    use slm_fast::device::human_bytes;
    use slm_fast::error::{Error, Result};
    use slm_fast::hub::{self, Hub, PUBLIC, Pulled, Repo};

    use super::super::{Ending, PullArgs, PushArgs, note, say};

    /// A variable that is set to something.
    fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok().map(|value| value.trim().to_string()).filter(|value| !value.is_empty())
    }

    /// The token of the environment, or the one that the hub's own tools keep in a file.
    fn token() -> Option<String> {
        let cache = || {
            let home = variable("HF_HOME").map(PathBuf::from);
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            let user = std::env::home_dir().map(|home| home.join(".cache"));
            home.or(cache.or(user).map(|cache| cache.join("huggingface"))).map(|home| home.join("token"))
        };
        let file = || std::fs::read_to_string(variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(cache)?).ok();
        let kept = || file().map(|text| text.trim().to_string()).filter(|text| !text.is_empty());
        variable("HF_TOKEN").or_else(kept)
    }

    fn open() -> Result<Hub> {
        Hub::new(&variable("HF_ENDPOINT").unwrap_or_else(|| PUBLIC.to_string()), token())
    }

    /// The repository of the command line, or else of the environment.
    fn repo(named: Option<&str>) -> Result<Repo> {
        match named.map(str::to_string).or_else(|| variable("HF_REPO")) {
            Some(name) => name.parse().map_err(|error: Error| error.within("--repo")),
            None => Err(Error::new("--repo", "which dataset of the hub?")
                .hint("write `--repo user/name`, or set the variable HF_REPO")),
        }
    }

    /// Sends a run, or says what would be sent.
    pub fn push(args: &PushArgs) -> Result<Ending> {
        let repo = repo(args.repo.as_deref())?;
        let parcel = hub::pack(&args.folder, args.all)?;
        if args.dry_run {
            for item in &parcel.files {
                say(&format!("data/{}/{}  {}", parcel.folder, item.path, human_bytes(item.size as usize)));
            }
            for item in &parcel.left_out {
                say(&format!("left out: {}  {}", item.path, human_bytes(item.size as usize)));
            }
            let bytes: u64 = parcel.files.iter().map(|item| item.size).sum();
            let (files, left) = (parcel.files.len(), parcel.left_out.len());
            say(&format!(
                "{files} files, {} to {repo}; {left} left out; nothing was sent",
                human_bytes(bytes as usize)
            ));
            return Ok(Ending::Success);
        }
        send(&repo, &parcel, args.private)?;
        Ok(Ending::Success)
    }

    fn send(repo: &Repo, parcel: &hub::Parcel, private: bool) -> Result<()> {
        let pushed = hub::push(&open()?, repo, parcel, private, &mut |line| note(line))?;
        let same = if pushed.same > 0 { format!(", {} were there already", pushed.same) } else { String::new() };
        say(&format!("pushed {} files, {}{same}", pushed.files, human_bytes(pushed.bytes as usize)));
        say(&format!("see {}", pushed.page));
        Ok(())
    }

    /// Brings runs, or lists them.
    pub fn pull(args: &PullArgs) -> Result<Ending> {
        let (named, pattern) = split(args.what.as_deref().unwrap_or_default(), args.repo.is_some());
        let repo = repo(args.repo.as_deref().or(named))?;
        let hub = open()?;
        let folders = hub::folders(&hub, &repo, pattern)?;
        if folders.is_empty() {
            return Err(Error::new(repo.to_string(), format!("no run there has `{pattern}` in its name"))
                .hint(format!("`slm-fast pull --list --repo {repo}` shows all")));
        }
        if args.list {
            folders.iter().for_each(|folder| say(folder));
            return Ok(Ending::Success);
        }
        if pattern.is_empty() {
            return Err(Error::new(repo.to_string(), format!("which of its {} runs?", folders.len()))
                .hint("write a part of the folder's name; `--list` shows all"));
        }
        for folder in &folders {
            match hub::pull(&hub, &repo, folder, &args.data, &mut |line| note(line))? {
                Pulled::New { folder, files, bytes } => {
                    say(&format!("{}: {files} files, {}", folder.display(), human_bytes(bytes as usize)));
                }
                Pulled::Kept { folder } => say(&format!("{}: is here already, left as it is", folder.display())),
            }
        }
        Ok(Ending::Success)
    }

    /// `user/name/pattern` in its two parts; a pattern alone where the repository is named elsewhere.
    fn split(what: &str, is_named: bool) -> (Option<&str>, &str) {
        let slashes: Vec<usize> = what.match_indices('/').map(|(at, _)| at).collect();
        let (repo, pattern) = match slashes[..] {
            _ if is_named || slashes.is_empty() || what.starts_with("data/") => (None, what),
            [_] => (Some(what), ""),
            _ => (Some(&what[..slashes[1]]), &what[slashes[1] + 1..]),
        };
        (repo, pattern.strip_prefix("data/").unwrap_or(pattern).trim_end_matches('/'))
    }

    /// Sends the run that has just ended, where the environment asks for it. A failure is told and changes nothing else.
    pub fn after_run(folder: &Path) {
        if !super::wants_upload() {
            return;
        }
        let sent = repo(None).and_then(|repo| send(&repo, &hub::pack(folder, false)?, false));
        if let Err(error) = sent {
            note(&format!("warning: {} is not uploaded: {error}", folder.display()));
            note(&format!("it is whole here; `slm-fast push {}` sends it", folder.display()));
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_repository_may_stand_before_the_pattern() {
            assert_eq!(split("ppo_cartpole", false), (None, "ppo_cartpole"));
            assert_eq!(split("user/name", false), (Some("user/name"), ""));
            assert_eq!(split("user/name/ppo", false), (Some("user/name"), "ppo"));
            assert_eq!(split("user/name/data/ppo_2026/", false), (Some("user/name"), "ppo_2026"));
            assert_eq!(split("data/ppo", false), (None, "ppo"));
            assert_eq!(split("", true), (None, ""));
        }
    }
}
