//! The shaders that the program carries, and how one becomes the text of a kernel: imports resolved, then every size,
//! offset and choice written behind it as a constant, so that the driver compiles for exactly this launch.

use crate::device::{Field, Shader};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Every file below `shaders/`, by its path there; a test holds the list to the folder.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        pub const FILES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../shaders/", $name, ".wgsl")))),*];
    };
}

files![
    "lib/acting",
    "lib/activation",
    "lib/bodies",
    "lib/cell",
    "lib/constants",
    "lib/core",
    "lib/distance",
    "lib/lanes",
    "lib/lanes_subgroup",
    "lib/layers",
    "lib/losses",
    "lib/matrix",
    "lib/minibatch",
    "lib/net",
    "lib/order",
    "lib/policy",
    "lib/renorm",
    "lib/rng",
    "lib/seen",
    "lib/soft",
    "lib/sums",
    "lib/through",
    "lib/tree",
    "lib/trig",
    "lib/values",
    "lib/wide",
    "env/acrobot",
    "env/cartpole",
    "env/mountain_car",
    "env/mountain_car_continuous",
    "env/pendulum",
    "actor_grad",
    "advantage",
    "critic_grad",
    "crossq_grad",
    "fold",
    "log",
    "minibatch_grad",
    "minibatch_grad_fused",
    "minibatch_grad_layered",
    "obs_moments",
    "optimize",
    "prioritize",
    "recurrent_rollout",
    "rollout",
    "sample",
    "schedule",
    "sequence_grad",
    "sequence_order",
    "sequence_td_grad",
    "shuffle",
    "target",
    "td_grad",
    "episode_returns",
    "imitate",
];

/// Where to read shaders from instead, while they are being written.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// From now on shaders come from the files of a folder, for whoever changes them and does not want to build again.
///
/// # Panics
/// When another folder was named before.
pub fn read_shaders_from(folder: PathBuf) {
    assert!(*FOLDER.get_or_init(|| folder.clone()) == folder, "shaders come from one folder");
}

/// The text of a file.
fn file(name: &str) -> Result<String, String> {
    if let Some(folder) = FOLDER.get() {
        let path = folder.join(format!("{name}.wgsl"));
        return std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()));
    }
    let found = FILES.iter().find(|(file, _)| *file == name);
    found.map(|(_, text)| text.to_string()).ok_or_else(|| format!("shaders/{name}.wgsl: no such file"))
}

/// A slice argument as the device sees it, in words of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    pub at: u32,
    /// Words from one session's slice to the next.
    pub stride: u32,
    /// Words of a slice.
    pub len: u32,
}

/// A kernel's text, and the words of its `Launch`, which differ between launches of one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Composed {
    pub text: String,
    pub launch: Vec<u32>,
}

/// Composes the text of one kernel of an op; `slices` are those of the op's arguments in order, then of its scratch.
///
/// # Errors
/// What does not fit together: a file, a struct, a member.
pub fn compose(op: &str, shader: &Shader, slices: &[Slice]) -> Result<Composed, String> {
    let mut text = String::new();
    import(op, &shader.swaps, &mut HashSet::new(), &mut text)?;
    let shape = members(&text, "Shape").ok_or("there is no struct Shape")?;
    let varying = members(&text, "Launch").unwrap_or_default();
    let is_varying = |field: &&Field| varying.iter().any(|(name, _)| *name == field.name);
    let (launch, fixed): (Vec<&Field>, Vec<&Field>) = shader.shape.iter().partition(is_varying);
    let d = construct(&text, "Shape", &shape, &fixed)?;
    // checks names and words; the values themselves go into a buffer
    construct(&text, "Launch", &varying, &launch)?;
    let a = arguments(&text, slices)?;
    if !varying.is_empty() {
        text += "\n@group(0) @binding(2) var<uniform> launch: Launch;\n";
    }
    text += &format!("\nconst THREADS = {}u;\nconst a = {a};\nconst d = {d};\n", shader.threads);
    Ok(Composed { text, launch: launch.iter().flat_map(|field| field.words.iter().copied()).collect() })
}

/// Appends a file behind everything that it imports, each once.
fn import(
    name: &str,
    swaps: &[(&'static str, &'static str)],
    seen: &mut HashSet<String>,
    text: &mut String,
) -> Result<(), String> {
    if !seen.insert(name.to_string()) {
        return Ok(());
    }
    let own = file(name)?;
    for line in own.lines() {
        if let Some(path) = line.strip_prefix("#import ") {
            let swap =
                |part: &str| swaps.iter().find(|(word, _)| *word == part).map_or(part.to_string(), |s| s.1.into());
            let path: Vec<String> = path.trim().split('/').map(swap).collect();
            import(&path.join("/"), swaps, seen, text)?;
        }
    }
    for line in own.lines().filter(|line| !line.starts_with("#import ")) {
        *text += line;
        *text += "\n";
    }
    Ok(())
}

/// Name and type of every member of `struct name { .. }`; none where the text has no such struct.
pub fn members<'a>(text: &'a str, name: &str) -> Option<Vec<(&'a str, &'a str)>> {
    let head = format!("struct {name} {{");
    let start = text.find(&head)? + head.len();
    let body = &text[start..start + text[start..].find('}')?];
    let mut found = Vec::new();
    let mut depth = 0;
    for line in body.lines() {
        let line = line.split("//").next().unwrap_or_default();
        let mut from = 0;
        // commas inside `array<T, N>` separate nothing
        for (at, letter) in line.char_indices().chain([(line.len(), ',')]) {
            match letter {
                '<' => depth += 1,
                '>' => depth -= 1,
                ',' if depth == 0 => {
                    if let Some((name, of)) = line[from..at].split_once(':') {
                        found.push((name.trim(), of.trim()));
                    }
                    from = at + 1;
                }
                _ => {}
            }
        }
    }
    Some(found)
}

/// `Name(..)` of the fields, which are the struct's members in order.
fn construct(text: &str, name: &str, members: &[(&str, &str)], fields: &[&Field]) -> Result<String, String> {
    let names = |list: &mut dyn Iterator<Item = &str>| list.collect::<Vec<_>>().join(", ");
    let (has, gets) = (names(&mut members.iter().map(|m| m.0)), names(&mut fields.iter().map(|f| f.name)));
    if has != gets {
        return Err(format!("struct {name} has {has}; it is given {gets}"));
    }
    let mut values = Vec::new();
    for ((member, of), field) in members.iter().zip(fields) {
        let mut words = field.words.iter();
        values.push(value(text, of, &mut words).map_err(|what| format!("{name}.{member}: {what}"))?);
        if words.next().is_some() {
            return Err(format!("{name}.{member}: {of} has fewer words than the {} it is given", field.words.len()));
        }
    }
    Ok(format!("{name}({})", values.join(", ")))
}

/// A constant of a type, from its words.
fn value(text: &str, of: &str, words: &mut std::slice::Iter<'_, u32>) -> Result<String, String> {
    let mut word = || words.next().copied().ok_or_else(|| format!("{of} has more words than it is given"));
    match of {
        "u32" => Ok(format!("{}u", word()?)),
        "i32" => Ok(format!("i32({})", word()? as i32)),
        "bool" => Ok(if word()? == 0 { "false" } else { "true" }.to_string()),
        "f32" => Ok(float(f32::from_bits(word()?))),
        _ => {
            if let Some(inside) = of.strip_prefix("array<").and_then(|rest| rest.strip_suffix('>')) {
                let (item, count) = inside.rsplit_once(',').ok_or("an array has a length")?;
                let count = length(text, count.trim())?;
                let items: Result<Vec<String>, String> = (0..count).map(|_| value(text, item.trim(), words)).collect();
                return Ok(format!("{of}({})", items?.join(", ")));
            }
            let members = members(text, of).ok_or_else(|| format!("{of} is no type of this text"))?;
            let items: Result<Vec<String>, String> = members.iter().map(|(_, of)| value(text, of, words)).collect();
            Ok(format!("{of}({})", items?.join(", ")))
        }
    }
}

/// The length of an array: a number, or a constant of the text.
fn length(text: &str, count: &str) -> Result<usize, String> {
    let number = |digits: &str| digits.trim_end_matches('u').parse().ok();
    let named = || {
        let head = format!("const {count} = ");
        number(text.lines().find_map(|line| line.strip_prefix(&head))?.split(';').next()?)
    };
    number(count).or_else(named).ok_or_else(|| format!("{count} is no length that the text tells"))
}

/// A number that WGSL reads back to the same bits; it has no way to write an infinity, which bounds of actions may be.
fn float(x: f32) -> String {
    format!("{:e}f", x.clamp(f32::MIN, f32::MAX))
}

/// `Args(ReadF(..), ..)`.
fn arguments(text: &str, slices: &[Slice]) -> Result<String, String> {
    let members = members(text, "Args").ok_or("there is no struct Args")?;
    if members.len() != slices.len() {
        return Err(format!("struct Args has {} members; it is given {}", members.len(), slices.len()));
    }
    let values: Vec<String> = members
        .iter()
        .zip(slices)
        .map(|((_, of), Slice { at, stride, len })| format!("{of}({at}u, {stride}u, {len}u)"))
        .collect();
    Ok(format!("Args({})", values.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "const LONG = 2u;\nstruct Pair { low: f32, high: f32 }\nstruct Shape {\n    t: u32, // steps, in all\n    \
                        on: bool,\n    pairs: array<Pair, LONG>,\n    at: i32,\n}\nstruct Args { x: ReadF, scratch: UpdateF }\n";

    fn field(name: &'static str, words: &[u32]) -> Field {
        Field { name, words: words.to_vec() }
    }

    #[test]
    fn members_are_read_as_written() {
        assert_eq!(
            members(TEXT, "Shape"),
            Some(vec![("t", "u32"), ("on", "bool"), ("pairs", "array<Pair, LONG>"), ("at", "i32")])
        );
        assert_eq!(members(TEXT, "Pair"), Some(vec![("low", "f32"), ("high", "f32")]));
        assert_eq!(members(TEXT, "Launch"), None);
    }

    #[test]
    fn fields_become_constants_of_the_members_types() {
        let bits = |x: f32| x.to_bits();
        let fields = [
            field("t", &[7]),
            field("on", &[1]),
            field("pairs", &[bits(0.1), bits(f32::INFINITY), bits(-2.0), bits(1e-30)]),
            field("at", &[u32::MAX]),
        ];
        let fields: Vec<&Field> = fields.iter().collect();
        let shape = members(TEXT, "Shape").unwrap();
        assert_eq!(
            construct(TEXT, "Shape", &shape, &fields).unwrap(),
            "Shape(7u, true, array<Pair, LONG>(Pair(1e-1f, 3.4028235e38f), Pair(-2e0f, 1e-30f)), i32(-1))"
        );
        let error = construct(TEXT, "Shape", &shape, &fields[1..]).unwrap_err();
        assert_eq!(error, "struct Shape has t, on, pairs, at; it is given on, pairs, at");
        let long = field("t", &[7, 8]);
        let error = construct(TEXT, "Shape", &shape[..1], &[&long]).unwrap_err();
        assert!(error.starts_with("Shape.t: u32 has fewer words"), "{error}");
    }

    #[test]
    fn arguments_are_slices_in_order() {
        let slice = Slice { at: 16, stride: 32, len: 20 };
        assert_eq!(arguments(TEXT, &[slice, slice]).unwrap(), "Args(ReadF(16u, 32u, 20u), UpdateF(16u, 32u, 20u))");
        assert!(arguments(TEXT, &[slice]).is_err());
    }
}
