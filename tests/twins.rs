//! Do the twins in `kernels/` say of themselves what the Rust side says of them? Structs of arguments and of shapes
//! against the declarations, constants of environments against theirs: text against values, so no compiler is needed.

mod common;

use std::collections::BTreeMap;

use common::cuda::{self, Member};
use slm_fast::device::{Dtype, Kernel};
use slm_fast::op::{self, Arg, Role};

/// All kernels in one text.
fn kernels() -> String {
    cuda::texts(&common::root().join("kernels"), &[".cu", ".cuh"]).into_values().collect()
}

/// `MinibatchGrad` for `minibatch_grad`.
fn camel(name: &str) -> String {
    let upper = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').map(upper).collect()
}

/// A struct that has to be there once.
fn the_struct(text: &str, name: &str) -> Result<Vec<Member>, String> {
    match text.matches(&format!("struct {name} {{")).count() {
        1 => Ok(cuda::members(text, name).expect("counted")),
        n => Err(format!("struct {name} is there {n} times")),
    }
}

/// Sizes that a comment `// [T, N] what` gives; none where it does not begin with a shape.
fn dims(comment: &str) -> Option<usize> {
    let inside = comment.strip_prefix('[')?;
    let (mut depth, mut commas) = (0, 0);
    for (at, letter) in inside.char_indices() {
        match letter {
            '[' | '(' => depth += 1,
            ']' if depth == 0 => return Some(if inside[..at].trim().is_empty() { 0 } else { commas + 1 }),
            ']' | ')' => depth -= 1,
            ',' if depth == 0 => commas += 1,
            _ => {}
        }
    }
    None
}

/// What is wrong with `struct <Op>Args`.
fn args_differ(text: &str, op: &str, args: &[Arg]) -> Result<(), String> {
    let name = format!("{}Args", camel(op));
    let members = the_struct(text, &name)?;
    let declared = |arg: &Arg| {
        let role = match arg.role {
            Role::Read => "Read",
            Role::Write => "Write",
            Role::Update => "Update",
        };
        let word = match arg.dtype {
            Dtype::F32 => "float",
            Dtype::U32 => "u32",
        };
        format!("{role}<{word}> {}", arg.name)
    };
    let wanted: Vec<String> = args.iter().map(declared).chain(["Update<float> scratch".into()]).collect();
    let found: Vec<String> = members.iter().map(|member| format!("{} {}", member.of, member.name)).collect();
    if found != wanted {
        return Err(format!("struct {name}\n has   {}\n wants {}", found.join("; "), wanted.join("; ")));
    }
    for (member, arg) in members.iter().zip(args) {
        if dims(&member.comment) != Some(arg.dims.len()) {
            return Err(format!(
                "struct {name}: `{}` wants a comment like {}, has `{}`",
                arg.name, arg.shape, member.comment
            ));
        }
    }
    Ok(())
}

/// 32-bit words of a type; none where it is a parameter of a template, whose size depends on the entry.
fn words(text: &str, of: &str) -> Option<usize> {
    match of {
        "u32" | "float" => Some(1),
        _ => cuda::members(text, of)?.iter().map(|member| Some(words(text, &member.of)? * count(text, member))).sum(),
    }
}

/// How many a member has: a number, or a constant by its name.
fn count(text: &str, member: &Member) -> usize {
    let Some(written) = &member.count else { return 1 };
    let name = written.rsplit("::").next().expect("a name");
    let constant = format!("constexpr u32 {name} = ");
    let value = text.split(&constant).nth(1).and_then(|rest| rest.split("u;").next());
    written.parse().or_else(|_| value.unwrap_or_default().parse()).unwrap_or_else(|_| panic!("[{written}]: how many?"))
}

/// What is wrong with `struct <Op>Shape`, for one kernel of one case.
fn shape_differs(text: &str, op: &str, kernel: &Kernel) -> Result<(), String> {
    let name = format!("{}Shape", camel(op));
    let members = the_struct(text, &name)?;
    let wanted: Vec<&str> = kernel.shape.iter().map(|field| field.name).collect();
    let found: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    if found != wanted {
        return Err(format!("struct {name}\n has   {}\n wants {}", found.join("; "), wanted.join("; ")));
    }
    for (member, field) in members.iter().zip(&kernel.shape) {
        let has = words(text, &member.of).map(|words| words * count(text, member));
        if has.is_some_and(|has| has != field.words.len()) {
            return Err(format!("struct {name}: `{}` has {has:?} words, wants {}", member.name, field.words.len()));
        }
    }
    Ok(())
}

/// What is wrong with an environment's struct of constants, given the Rust struct of the same name.
fn env_differs(cuda_text: &str, rust: &str) -> Result<(), String> {
    let name = rust.split("pub struct ").nth(1).and_then(|rest| rest.split(" {").next()).ok_or("no struct")?;
    let body = rust.split(&format!("pub struct {name} {{")).nth(1).and_then(|rest| rest.split("\n}").next());
    let field = |line: &str| Some(line.trim().strip_prefix("pub ")?.trim_end_matches(',').to_string());
    let wanted: Vec<String> = body.expect("a struct ends").lines().filter_map(field).collect();
    let word = |of: &str| match of {
        "float" => "f32".to_string(),
        other => other.to_string(),
    };
    let found: Vec<String> =
        the_struct(cuda_text, name)?.iter().map(|member| format!("{}: {}", member.name, word(&member.of))).collect();
    if found == wanted { Ok(()) } else { Err(format!("struct {name}\n has   {found:?}\n wants {wanted:?}")) }
}

/// Text of each environment by the name of its file.
fn envs(folder: &str, ending: &str) -> BTreeMap<String, String> {
    let texts = cuda::texts(&common::root().join(folder), &[ending]);
    texts.into_iter().map(|(name, text)| (name.trim_end_matches(ending).to_string(), text)).collect()
}

#[test]
fn structs_are_those_of_the_declarations() {
    let text = kernels();
    for op in op::ALL {
        for case in 0..(op.cases)() {
            for kernel in (op.kernels)(case) {
                let fine = args_differ(&text, op.name, &(op.args)(case));
                let fine = fine.and_then(|()| shape_differs(&text, op.name, &kernel));
                fine.unwrap_or_else(|why| panic!("{}, case {case}, {}: {why}", op.name, kernel.entry));
            }
        }
    }
}

#[test]
fn constants_of_environments_are_in_rust_order() {
    let rust = envs("src/env", ".rs");
    for (name, text) in envs("kernels/env", ".cuh") {
        let rust = rust.get(&name).unwrap_or_else(|| panic!("kernels/env/{name}.cuh has no src/env/{name}.rs"));
        env_differs(&text, rust).unwrap_or_else(|why| panic!("kernels/env/{name}.cuh: {why}"));
    }
}

/// The declaration and a kernel of the op that the wrong texts below are about.
fn schedule() -> (Vec<Arg>, Kernel) {
    let op = op::ALL.iter().find(|op| op.name == "schedule").expect("an op");
    ((op.args)(0), (op.kernels)(0).remove(0))
}

#[test]
fn wrong_arguments_are_found() {
    let (args, _) = schedule();
    let right = "struct ScheduleArgs {\n    Read<float> hyper;  // [LEN + f(1, 2)] numbers\n    Read<u32> clock;  // [4]\n    \
                 Read<float> params;  // [params]\n    Write<float> schedule;  // [3]\n    Update<float> scratch;\n};\n";
    assert_eq!(args_differ(right, "schedule", &args), Ok(()));
    let wrong = [
        ("Read<u32> clock", "Update<u32> clock"),
        ("Read<u32> clock", "Read<float> clock"),
        ("Read<u32> clock;  // [4]\n", ""),
        ("clock", "time"),
        ("// [4]", "// [T, N]"),
        ("// [4]", ""),
        ("    Update<float> scratch;\n", ""),
        ("ScheduleArgs", "Arguments"),
    ];
    for (from, to) in wrong {
        let text = right.replace(from, to);
        assert!(text != right && args_differ(&text, "schedule", &args).is_err(), "{from} -> {to}");
    }
    let swapped = right.replace("hyper", "x").replace("schedule;", "hyper;").replace(" x;", " schedule;");
    assert!(args_differ(&swapped, "schedule", &args).is_err());
    assert!(args_differ(&format!("{right}{right}"), "schedule", &args).is_err(), "twice");
}

#[test]
fn wrong_shapes_are_found() {
    let (_, kernel) = schedule();
    let right = "struct Two {\n    u32 a, b;\n    u32 f() const { return a; }\n};\nconstexpr u32 MANY = 2u;\n\
                 struct ScheduleShape {\n    u32 t;\n    float n;\n    u32 groups;\n    u32 learned;\n    \
                 u32 log_alpha;\n};\n";
    assert_eq!(shape_differs(right, "schedule", &kernel), Ok(()));
    let wrong = [
        ("u32 t;", "Two t;"),
        ("u32 t;", "u32 t[2];"),
        ("u32 t;", "u32 t[X::MANY];"),
        ("    u32 t;\n", ""),
        ("float n;", "float n, m;"),
        ("groups", "sets"),
    ];
    for (from, to) in wrong {
        let text = right.replace(from, to);
        assert!(text != right && shape_differs(&text, "schedule", &kernel).is_err(), "{from} -> {to}");
    }
}

#[test]
fn wrong_environments_are_found() {
    let rust = "pub struct Cart {\n    /// m\n    pub length: f32,\n    pub limit: u32,\n}\n";
    let right = "struct Cart {\n    static constexpr u32 STATE = 4;\n\n    float length;\n    u32 limit;\n    float f() {}\n};\n";
    assert_eq!(env_differs(right, rust), Ok(()));
    for (from, to) in [("float length", "u32 length"), ("    u32 limit;\n", ""), ("length", "width"), ("Cart", "Car")] {
        let text = right.replace(from, to);
        assert!(text != right && env_differs(&text, rust).is_err(), "{from} -> {to}");
    }
    let swapped = right.replace("float length;\n    u32 limit;", "u32 limit;\n    float length;");
    assert!(swapped != right && env_differs(&swapped, rust).is_err());
}
