//! What the tests know of `kernels/` as text: modules, the files behind each, struct declarations, entries of the PTX.

use std::collections::BTreeMap;
use std::path::Path;

/// Every text below `kernels/` with one of these endings, by its path there.
pub fn texts(kernels: &Path, endings: &[&str]) -> BTreeMap<String, String> {
    let fits = |name: &String| endings.iter().any(|ending| name.ends_with(ending));
    let read = |name: String| {
        let text = std::fs::read_to_string(kernels.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, text)
    };
    super::files(kernels).into_iter().filter(fits).map(read).collect()
}

/// A line of `kernels/variants.txt`.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    pub name: String,
    pub source: String,
    pub defines: Vec<String>,
}

/// The modules of a `variants.txt`.
pub fn modules(variants: &str) -> Vec<Module> {
    let words = variants.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    words
        .filter_map(|mut words| {
            let (name, source) = (words.next()?.to_string(), words.next().expect("a module has a source").to_string());
            Some(Module { name, source, defines: words.map(str::to_string).collect() })
        })
        .collect()
}

/// The files that a source is made of: itself and what it includes, on whatever condition.
pub fn sources(texts: &BTreeMap<String, String>, source: &str) -> Result<BTreeMap<String, String>, String> {
    let (mut found, mut open) = (BTreeMap::new(), vec![source.to_string()]);
    while let Some(name) = open.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let text = texts.get(&name).ok_or_else(|| format!("kernels/{name}: no such file"))?;
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        for line in text.lines() {
            let rest = line.trim_start().strip_prefix('#').map(str::trim_start);
            if let Some(quoted) = rest.and_then(|rest| rest.strip_prefix("include")) {
                let inside =
                    quoted.split('"').nth(1).ok_or_else(|| format!("kernels/{name}: {line}: not a file here"))?;
                open.push(normal(&format!("{folder}/{inside}")));
            }
        }
        found.insert(name, text.clone());
    }
    Ok(found)
}

/// A path without `.`, `..` and empty parts.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// An entry point as its PTX declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryPoint {
    pub name: String,
    /// Bytes of each parameter.
    pub params: Vec<usize>,
    /// Most threads of a block, 0 where it does not say.
    pub threads: usize,
}

/// The entry points of a PTX text.
pub fn entries(ptx: &str) -> Vec<EntryPoint> {
    let declared = ptx.match_indices(".entry ").map(|(at, word)| &ptx[at + word.len()..]);
    declared
        .map(|text| {
            let (name, rest) = text.split_once('(').expect("an entry has parameters");
            let (params, rest) = rest.split_once(')').expect("a list of parameters ends");
            let attributes = rest.split('{').next().unwrap_or_default();
            let bounds = attributes.split(".maxntid").nth(1).and_then(|bounds| bounds.split(',').next());
            EntryPoint {
                name: name.trim().to_string(),
                params: params.split(',').map(param_bytes).collect(),
                threads: bounds.and_then(|threads| threads.trim().parse().ok()).unwrap_or(0),
            }
        })
        .collect()
}

/// Bytes of `.param .align 4 .b8 name[12]` or of `.param .u64 name`.
fn param_bytes(param: &str) -> usize {
    match param.split_once('[') {
        Some((_, count)) => count.trim_end().trim_end_matches(']').parse().expect("a number of bytes"),
        None if param.contains("64 ") => 8,
        None => 4,
    }
}

/// A member of a struct.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub of: String,
    pub name: String,
    /// How many, for `name[count]`, as written.
    pub count: Option<String>,
    /// The comment at the end of its line.
    pub comment: String,
}

/// Members of `struct name { .. }`, functions left out; none where the text has no such struct.
pub fn members(text: &str, name: &str) -> Option<Vec<Member>> {
    let start = text.match_indices(&format!("struct {name} ")).find_map(|(at, word)| {
        let rest = &text[at + word.len()..];
        rest.starts_with('{').then(|| at + word.len() + 1)
    })?;
    let mut found = Vec::new();
    let (mut depth, mut declared) = (0, String::new());
    for line in text[start..].lines() {
        let (code, comment) = line.split_once("//").unwrap_or((line, ""));
        for letter in code.chars() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => return Some(found),
                '}' => {
                    depth -= 1;
                    declared.clear();
                }
                ';' if depth == 0 => found.extend(declaration(&std::mem::take(&mut declared), comment.trim())),
                _ if depth == 0 => declared.push(letter),
                _ => {}
            }
        }
        declared.push(' ');
    }
    panic!("struct {name} does not end");
}

/// `Type a, b[3]` as members; none for a function or a constant.
fn declaration(text: &str, comment: &str) -> Vec<Member> {
    let text = text.trim();
    if text.is_empty() || text.contains(['(', '=']) || text.starts_with("static") || text.starts_with("using") {
        return Vec::new();
    }
    // a type may hold spaces and commas within `<>`
    let after = text.find('>').unwrap_or(0);
    let space = after + text[after..].find(char::is_whitespace).expect("a member has a type and a name");
    let (of, names) = text.split_at(space);
    let member = |name: &str| {
        let (name, count) = match name.trim().split_once('[') {
            Some((name, count)) => (name, Some(count.trim_end_matches(']').to_string())),
            None => (name.trim(), None),
        };
        let (of, name, comment) = (of.replace(' ', ""), name.to_string(), comment.to_string());
        Member { of, name, count, comment }
    };
    names.split(',').map(member).collect()
}
