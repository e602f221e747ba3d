//! Is the committed PTX the one that the sources give, and does it fit what the host launches? Needs no CUDA: compilers
//! and assemblers are the part of `tools/build_ptx.py`.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::cuda::{self, Module};
use sha2::{Digest, Sha256};
use slm_fast::op;

/// The same words are in `tools/build_ptx.py`.
const COMPILER: &str = "nvrtc 12.0.140";
const OPTIONS: &str = "--gpu-architecture=compute_80 --std=c++17 --fmad=false";

/// Entries that belong to no op: the measurements of `slm-fast devices` and of the benches.
const MEASUREMENTS: [&str; 3] = ["ceiling_copy", "ceiling_fma", "ceiling_mma"];

/// First line of a module's PTX.
fn header(sources: &BTreeMap<String, String>, module: &Module) -> String {
    let flags = [OPTIONS].into_iter().chain(module.defines.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    let mut digest = Sha256::new();
    digest.update(format!("{COMPILER}; {flags}\n"));
    for (name, text) in sources {
        digest.update(format!("{name} {}\n", text.len()));
        digest.update(text);
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("// source-sha256: {digest}; {COMPILER}; {flags}")
}

/// What is wrong with the folder `ptx/`, given all texts of `kernels/` by their paths.
fn stale(texts: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let modules = cuda::modules(&texts["variants.txt"]);
    for module in &modules {
        let path = format!("ptx/{}.ptx", module.name);
        match (cuda::sources(texts, &module.source), texts.get(&path)) {
            (Err(error), _) => wrong.push(error),
            (Ok(_), None) => wrong.push(format!("kernels/{path} is missing; run tools/build_ptx.py")),
            (Ok(sources), Some(ptx)) if ptx.lines().next() != Some(&header(&sources, module)) => {
                let names: Vec<String> = sources.keys().map(|name| format!("kernels/{name}")).collect();
                wrong.push(format!("{} changed; run tools/build_ptx.py", names.join(" or ")));
            }
            _ => {}
        }
    }
    let names: BTreeSet<String> = modules.iter().map(|module| format!("ptx/{}.ptx", module.name)).collect();
    if names.len() < modules.len() {
        wrong.push("kernels/variants.txt: two modules of one name".into());
    }
    let lost = texts.keys().filter(|name| name.starts_with("ptx/") && !names.contains(*name));
    wrong
        .extend(lost.map(|name| format!("kernels/{name} has no line in kernels/variants.txt; run tools/build_ptx.py")));
    wrong
}

/// All texts that the tests here are about.
fn texts() -> BTreeMap<String, String> {
    cuda::texts(&common::root().join("kernels"), &[".cu", ".cuh", ".ptx", "variants.txt"])
}

/// Every entry point, with the file that has it.
fn entries(texts: &BTreeMap<String, String>) -> Vec<(&str, cuda::EntryPoint)> {
    let ptx = texts.iter().filter(|(name, _)| name.starts_with("ptx/"));
    ptx.flat_map(|(name, ptx)| cuda::entries(ptx).into_iter().map(move |entry| (name.as_str(), entry))).collect()
}

#[test]
fn ptx_is_of_these_sources() {
    let wrong = stale(&texts());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_changed_a_lost_and_a_foreign_file_are_found() {
    let texts = texts();
    let change = |edit: &dyn Fn(&mut BTreeMap<String, String>)| {
        let mut texts = texts.clone();
        edit(&mut texts);
        stale(&texts).join("\n")
    };
    let append = |texts: &mut BTreeMap<String, String>, name: &str| texts.get_mut(name).expect(name).push('\n');
    assert!(
        change(&|texts| append(texts, "schedule.cu")).contains("kernels/schedule.cu changed; run tools/build_ptx.py")
    );
    // an include of an include
    assert!(change(&|texts| append(texts, "lib/constants.cuh")).contains("changed; run tools/build_ptx.py"));
    let define = change(&|texts| {
        let variants = texts["variants.txt"].replace("schedule.cu", "schedule.cu -DMORE=1");
        texts.insert("variants.txt".into(), variants);
    });
    assert!(define.contains("kernels/schedule.cu changed"), "{define}");
    let lost = change(&|texts| drop(texts.remove("ptx/schedule.ptx")));
    assert!(lost.contains("kernels/ptx/schedule.ptx is missing"), "{lost}");
    let foreign = change(&|texts| drop(texts.insert("ptx/foreign.ptx".into(), String::new())));
    assert!(foreign.contains("kernels/ptx/foreign.ptx has no line"), "{foreign}");
    let gone = change(&|texts| drop(texts.remove("lib/core.cuh")));
    assert!(gone.contains("kernels/lib/core.cuh: no such file"), "{gone}");
}

#[test]
fn entry_names_are_unique() {
    let texts = texts();
    let mut seen = BTreeMap::new();
    for (file, entry) in entries(&texts) {
        if let Some(other) = seen.insert(entry.name.clone(), file) {
            panic!("kernels/{file} and kernels/{other} both have an entry `{}`", entry.name);
        }
    }
}

/// What is wrong with an entry point for a kernel that the host launches with `args` buffers.
fn misfit(entry: &cuda::EntryPoint, kernel: &slm_fast::device::Kernel, args: usize) -> Option<String> {
    let words: usize = kernel.shape.iter().map(|field| field.words.len()).sum();
    // a slice is a pointer, a stride and a length; one more than the arguments is the scratch
    let params = [words * 4, 8, (args + 1) * 16];
    if entry.params != params {
        return Some(format!("its parameters have {:?} bytes, the host gives {params:?}", entry.params));
    }
    let threads = kernel.threads as usize;
    (threads > entry.threads || !threads.is_multiple_of(32))
        .then(|| format!("the host launches {threads} threads, __launch_bounds__ has {}", entry.threads))
}

#[test]
fn every_launch_has_its_entry() {
    let texts = texts();
    let entries: BTreeMap<String, cuda::EntryPoint> =
        entries(&texts).into_iter().map(|(_, entry)| (entry.name.clone(), entry)).collect();
    let mut launched = BTreeSet::new();
    for op in op::ALL {
        for case in 0..(op.cases)() {
            for kernel in (op.kernels)(case) {
                let entry =
                    entries.get(&kernel.entry).unwrap_or_else(|| panic!("{}: no entry {}", op.name, kernel.entry));
                if let Some(why) = misfit(entry, &kernel, (op.args)(case).len()) {
                    panic!("{}, case {case}, {}: {why}", op.name, kernel.entry);
                }
                launched.insert(kernel.entry);
            }
        }
    }
    let idle: Vec<&String> =
        entries.keys().filter(|name| !launched.contains(*name) && !MEASUREMENTS.contains(&&name[..])).collect();
    assert!(idle.is_empty(), "no case of any op launches {idle:?}");
}

#[test]
fn a_wrong_launch_is_found() {
    let entry = cuda::EntryPoint { name: "schedule".into(), params: vec![20, 8, 80], threads: 32 };
    let op = op::ALL.iter().find(|op| op.name == "schedule").expect("an op");
    let kernel = (op.kernels)(0).remove(0);
    assert_eq!(misfit(&entry, &kernel, 4), None);
    assert!(misfit(&entry, &kernel, 5).is_some(), "an argument more");
    let mut longer = kernel.clone();
    longer.shape.push(slm_fast::device::Field { name: "more", words: vec![0] });
    assert!(misfit(&entry, &longer, 4).is_some(), "a word more");
    let wider = slm_fast::device::Kernel { threads: 64, ..kernel };
    assert!(misfit(&entry, &wider, 4).is_some(), "more threads");
}

/// Results are the same on every GPU only without approximations, which differ between them.
#[test]
fn no_instruction_is_approximate() {
    for (name, ptx) in texts().iter().filter(|(name, _)| name.starts_with("ptx/")) {
        for line in ptx.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let inexact = [".approx", ".ftz", ".full."].iter().any(|word| line.contains(word));
            assert!(!inexact, "kernels/{name}: {}", line.trim());
        }
    }
}
