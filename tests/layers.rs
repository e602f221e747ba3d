//! Does any module look up? Every `crate::` path in `src/` against the order of the house (ARCHITECTURE.md).

mod common;

use std::path::{Path, PathBuf};

/// Each module, and the paths it may name, from the ground up. A path allows everything below it.
const ALLOWED: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("spec", &["error"]),
    ("device", &["error"]),
    // plain functions of numbers, below everything that computes
    ("op::lib::rng", &[]),
    ("op::lib::trig", &[]),
    ("env", &["error", "op::lib::rng", "op::lib::trig"]),
    ("op", &["device", "env", "per_isa", "per_simd", "op"]),
    ("net", &["device::Dtype", "op", "spec"]),
    ("plan", &["device::Precision", "device::cpu::Isa", "env", "error", "op", "spec"]),
    // names ops in order: of environments it has what the plan hands through, of the device buffers and queues
    (
        "algorithm",
        &[
            "device::Buf",
            "device::Keep",
            "device::Kind",
            "device::Layout",
            "device::Queue",
            "op",
            "plan",
            "spec::Algorithm",
        ],
    ),
    ("metric", &[]),
    // plain data alone, never a buffer
    ("report", &["error", "metric", "net::Tensor", "device::Dtype", "op::log::COLUMNS", "op::log::Row"]),
    ("render", &["env", "error"]),
    ("lab", &["algorithm", "device", "env", "error", "metric", "net", "op", "plan", "report", "spec"]),
    // files of a finished run, there and back
    ("hub", &["error", "report::files::RunFolder"]),
    // shows what others read and play: nothing of how a run is trained
    ("serve", &["error", "lab::enjoy", "render", "report"]),
    // the program sees the library from outside, as `slm_fast`
    ("cli", &[]),
    ("main", &[]),
    ("lib", &[]),
];

/// The module of a file below `src/`: `op::lib::rng` for `op/lib/rng.rs`.
fn module_of(file: &Path) -> String {
    let parts: Vec<String> = file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.join("::").trim_end_matches("::mod").to_string()
}

/// Whether `path` is `root` or below it.
fn below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The text without line comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every path behind a `crate::` or `$crate::`, with `{a, b}` written out.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        tree("", &code[at + "crate::".len()..], &mut found);
    }
    found
}

/// Reads one use tree behind `prefix` and returns how many bytes it took.
fn tree(prefix: &str, text: &str, found: &mut Vec<String>) -> usize {
    let mut path = prefix.to_string();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            while !text[at..].starts_with('}') {
                let next = &text[at..];
                let gap = next.len() - next.trim_start_matches([' ', '\n', ',']).len();
                at += gap;
                if gap == 0 {
                    at += tree(&path, &text[at..], found);
                    // ` as name`
                    at += text[at..].find([',', '}']).expect("a use list ends");
                }
            }
            return at + 1;
        }
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if word > 0 && &rest[..word] != "self" {
            path = if path.is_empty() { rest[..word].to_string() } else { format!("{path}::{}", &rest[..word]) };
        }
        at += word;
        // behind a turbofish there is no path
        if word == 0 || !text[at..].starts_with("::") || text[at..].starts_with("::<") {
            found.push(path);
            return at;
        }
        at += 2;
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let src = common::root().join("src");
    let files = common::files(&src).into_iter().map(PathBuf::from);
    let rust = files.filter(|file| file.extension().is_some_and(|ext| ext == "rs"));
    rust.map(|file| (file.clone(), code(&std::fs::read_to_string(src.join(file)).expect("readable")))).collect()
}

#[test]
fn no_module_looks_up() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let module = module_of(&file);
        let row = ALLOWED.iter().filter(|(name, _)| below(&module, name)).max_by_key(|(name, _)| name.len());
        let (own, allowed) = row.unwrap_or_else(|| panic!("src/{}: give its module a row here", file.display()));
        for path in paths(&code) {
            // exported macros stand at the crate's root
            let is_macro = matches!(path.as_str(), "op" | "per_isa" | "per_simd");
            let fits = below(&path, own) || is_macro || allowed.iter().any(|root| below(&path, root));
            if !fits {
                wrong.push(format!("src/{}: `{own}` may not use `crate::{path}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn nothing_but_the_program_goes_round_through_the_library_s_name_or_a_parent() {
    for (file, code) in sources() {
        let module = module_of(&file);
        let shown = file.display();
        assert!(
            below(&module, "cli") || below(&module, "main") || !code.contains("slm_fast::"),
            "src/{shown}: `crate::`, not `slm_fast::`"
        );
        // in a module's own file `super` is the crate's root
        let outside_tests = code.split("#[cfg(test)]").next().unwrap_or_default();
        assert!(
            module.contains("::") || !outside_tests.contains("super::") || module == "cli",
            "src/{shown}: `crate::`, not `super::`"
        );
    }
}

#[test]
fn use_trees_are_read_whole() {
    let text = "use crate::a::{self, b::{C, d}, e as f,\n};\nlet x = crate::g::h::<u32>();";
    assert_eq!(paths(text), ["a", "a::b::C", "a::b::d", "a::e", "g::h"]);
    assert_eq!(module_of(Path::new("op/lib/rng.rs")), "op::lib::rng");
    assert_eq!(module_of(Path::new("op/mod.rs")), "op");
}
