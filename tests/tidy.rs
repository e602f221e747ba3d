//! Is the house tidy? Rules about the text of the repository that no compiler checks.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use slm_fast::op;

/// Longest file in `src/`; a longer one is two files.
const MAX_LINES: usize = 600;
/// Marks of unfinished work, put together here so that this file does not hold them.
const UNFINISHED: [&str; 8] = [
    concat!("to", "do!"),
    "unimplemented!",
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
    concat!("XX", "X"),
    "HACK",
    "dbg!",
    concat!("#[", "ignore"),
];
/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 5] = ["util", "utils", "manager", "helpers", "misc"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Name and text of every file below `folder` with one of these endings; none where there is no such folder.
fn texts(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let dir = root().join(folder);
    if !dir.is_dir() {
        return Vec::new();
    }
    let fits = |name: &String| endings.iter().any(|ending| name.ends_with(ending));
    let read = |name: String| {
        let text = std::fs::read_to_string(dir.join(&name)).unwrap_or_else(|error| panic!("{folder}/{name}: {error}"));
        (format!("{folder}/{name}"), text)
    };
    common::files(&dir).into_iter().filter(fits).map(read).collect()
}

/// Every Rust file of the repository.
fn rust() -> Vec<(String, String)> {
    ["src", "commit", "tests", "benches"].iter().flat_map(|folder| texts(folder, &[".rs"])).collect()
}

/// The documents at the top of the repository, and of its folders.
fn documents() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = std::fs::read_dir(root())
        .expect("the repository")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".md"))
        .map(|name| (name.clone(), std::fs::read_to_string(root().join(&name)).expect("readable")))
        .collect();
    for folder in ["assets", "benches", "kernels", "shaders", "specs"] {
        found.extend(texts(folder, &[".md"]));
    }
    found
}

#[test]
fn every_file_says_what_it_is_and_none_is_too_long() {
    for (name, text) in rust() {
        assert!(text.starts_with("//! "), "{name}: the first line says what the file is (`//! ...`)");
        let lines = text.lines().count();
        assert!(!name.starts_with("src/") || lines <= MAX_LINES, "{name}: {lines} lines, at most {MAX_LINES}");
    }
}

#[test]
fn nothing_is_left_unfinished() {
    for (name, text) in rust().into_iter().filter(|(name, _)| name != "tests/tidy.rs") {
        for (number, line) in text.lines().enumerate() {
            for mark in UNFINISHED {
                assert!(!line.contains(mark), "{name}:{}: `{mark}`", number + 1);
            }
        }
    }
}

#[test]
fn names_say_what_is_inside() {
    for (name, _) in rust() {
        for part in name.trim_end_matches(".rs").split('/') {
            assert!(!EMPTY_NAMES.contains(&part), "{name}: call it by what it does");
        }
    }
}

#[test]
fn no_text_names_the_machine_it_was_written_on() {
    let homes = [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    let tools = texts("tools", &[".py", ".sh", ".rs"]);
    let specs = texts("specs", &[".json", ".yaml"]);
    for (name, text) in rust().into_iter().chain(documents()).chain(tools).chain(specs) {
        for home in homes {
            assert!(!text.contains(home), "{name}: a path below `{home}`");
        }
    }
}

#[test]
fn every_op_is_in_the_list_that_tests_and_benches_go_through() {
    let mut declared = BTreeSet::new();
    for (name, text) in texts("src/op", &[".rs"]) {
        let file = name.trim_start_matches("src/op/").trim_end_matches(".rs");
        let Some((_, declaration)) = text.split_once("\ncrate::op! {") else { continue };
        let line = declaration.lines().find(|line| line.contains(") = \"")).expect("an op's header");
        let op = line.split('"').nth(1).expect("an op's name");
        assert_eq!(op, file, "{name}: an op has the name of its file");
        declared.insert(op.to_string());
    }
    let listed: Vec<&str> = op::ALL.iter().map(|entry| entry.name).collect();
    assert_eq!(listed.iter().map(|name| name.to_string()).collect::<BTreeSet<_>>(), declared);
    assert_eq!(listed.len(), declared.len(), "no op is listed twice: {listed:?}");
}

#[test]
fn every_op_and_environment_stands_in_the_architecture() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for entry in op::ALL {
        assert!(text.contains(&format!("`{}`", entry.name)), "ARCHITECTURE.md: the op `{}`", entry.name);
    }
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    for env in slm_fast::env::names() {
        assert!(readme.contains(env), "README.md: the environment {env}");
    }
}

#[test]
fn a_spec_has_the_name_of_its_file_in_the_folder_of_its_algorithm() {
    let specs = texts("specs", &[".json", ".yaml"]);
    assert!(!specs.is_empty());
    for (name, text) in specs.into_iter().filter(|(name, _)| !name.starts_with("specs/suites/")) {
        let path = Path::new(&name);
        let stem = path.file_stem().expect("a file name").to_string_lossy();
        let folder = path.parent().and_then(Path::file_name).expect("specs/<algorithm>/").to_string_lossy();
        assert!(stem.starts_with(&format!("{folder}_")), "{name}: `<algorithm>_<env>`");
        let spec: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let names: Vec<&String> = spec.as_object().expect("an object").keys().collect();
        assert_eq!(names, [stem.as_ref()], "{name}");
    }
}

/// A device column of the README's table may say `yes` only once the device is an arm of `Device`.
#[test]
fn the_readme_promises_no_device_that_is_not_built() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let device = std::fs::read_to_string(root().join("src/device/mod.rs")).expect("src/device/mod.rs");
    let arms = device.split_once("pub enum Device {").and_then(|(_, rest)| rest.split_once('}')).expect("Device").0;
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches(['|', ' ']).split('|').map(|cell| cell.trim().to_lowercase()).collect()
    };
    let mut table = readme.lines().skip_while(|line| !(line.contains("cpu") && line.starts_with('|')));
    let mut heads = cells(table.next().expect("a table with a column per device"));
    // the first column has no head
    heads.retain(|head| !head.is_empty());
    for line in table.take_while(|line| line.starts_with('|')) {
        let row = cells(line);
        for (device, cell) in heads.iter().zip(&row[row.len() - heads.len()..]) {
            let built = arms.to_lowercase().contains(&format!("{device}("));
            assert!(built || !cell.starts_with("yes"), "README.md promises {device}: {line}");
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (name, text) in documents() {
        let folder = root().join(&name).parent().expect("a file lies in a folder").to_path_buf();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.contains(' ') {
                continue;
            }
            assert!(folder.join(path).exists(), "{name}: the link to `{target}`");
        }
    }
}
