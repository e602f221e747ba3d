//! Which source a run was started from: the commit of the working folder, and whether files differed from it.

use std::path::Path;

/// The state of a git working tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The commit's full id; `unknown` outside of a repository, or before its first commit.
    pub sha: String,
    /// Whether a tracked file differed from that commit; none where the id is unknown.
    pub dirty: Option<bool>,
}

impl Source {
    /// Looks at the repository that holds `folder`. Reading the status of a large tree takes a while: call it beside
    /// the work, not before it.
    pub fn of(folder: &Path) -> Source {
        read(folder).unwrap_or(Source { sha: "unknown".to_string(), dirty: None })
    }
}

fn read(folder: &Path) -> Result<Source, git2::Error> {
    let repository = git2::Repository::discover(folder)?;
    let sha = repository.head()?.peel_to_commit()?.id().to_string();
    let mut options = git2::StatusOptions::new();
    options.include_untracked(false).include_ignored(false).exclude_submodules(true).update_index(false);
    let dirty = repository.statuses(Some(&mut options)).ok().map(|changes| !changes.is_empty());
    Ok(Source { sha, dirty })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(repository: &git2::Repository) -> git2::Oid {
        let mut index = repository.index().unwrap();
        index.add_path(Path::new("a.txt")).unwrap();
        index.write().unwrap();
        let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
        let who = git2::Signature::now("someone", "someone@example.org").unwrap();
        repository.commit(Some("HEAD"), &who, &who, "first", &tree, &[]).unwrap()
    }

    #[test]
    fn commit_and_changes_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let repository = git2::Repository::init(folder.path()).unwrap();
        assert_eq!(Source::of(folder.path()).sha, "unknown");
        std::fs::write(folder.path().join("a.txt"), "one").unwrap();
        let id = commit(&repository).to_string();
        assert_eq!(Source::of(folder.path()), Source { sha: id.clone(), dirty: Some(false) });
        std::fs::write(folder.path().join("untracked.txt"), "x").unwrap();
        assert_eq!(Source::of(folder.path()).dirty, Some(false));
        std::fs::write(folder.path().join("a.txt"), "two, longer").unwrap();
        assert_eq!(Source::of(folder.path()), Source { sha: id, dirty: Some(true) });
    }
}
