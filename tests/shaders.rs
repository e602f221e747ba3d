//! Does every WGSL kernel parse and validate in every case, within WebGPU's limits, and do its structs say what the op's
//! declaration says? Needs no adapter.
#![cfg(feature = "wgpu")]

mod common;

use common::wgpu::read_shaders;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, proc::Layouter};
use slm_fast::device::wgpu::text::{FILES, Slice, compose, members};
use slm_fast::device::{Dtype, Kind, Limits, Shader};
use slm_fast::op::{ALL, Arg, Entry, Role};
use std::collections::BTreeSet;

/// Limits that shaders are composed for: WebGPU's own, and those of a large GPU, each without subgroups and with them.
const LIMITS: [Limits; 4] = [
    Limits::WEBGPU,
    Limits { subgroups: true, ..Limits::WEBGPU },
    Limits { threads: 1024, shared_bytes: 48 << 10, subgroups: false },
    Limits { threads: 1024, shared_bytes: 48 << 10, subgroups: true },
];

/// Ops that have shaders; one op, while it is being written.
fn ops() -> impl Iterator<Item = &'static &'static Entry> {
    let only = std::env::var("OP").ok();
    ALL.iter().filter(move |entry| only.as_ref().is_none_or(|only| only == entry.name))
}

/// Slices as an arena would have them.
fn slices(args: &[Arg]) -> Vec<Slice> {
    let mut at = 16;
    let mut slice = |len: usize| {
        let stride = len.next_multiple_of(16);
        let slice = Slice { at: at as u32, stride: stride as u32, len: len as u32 };
        at += 3 * stride + 16;
        slice
    };
    let mut slices: Vec<Slice> = args.iter().map(|arg| slice(arg.len())).collect();
    slices.push(slice(1 << 20));
    slices
}

/// What a kernel may use of an adapter with such limits.
fn capabilities(limits: &Limits) -> Capabilities {
    if limits.subgroups { Capabilities::SUBGROUP } else { Capabilities::empty() }
}

fn validated(text: &str, limits: &Limits, place: &str) -> (Module, ModuleInfo) {
    let module =
        naga::front::wgsl::parse_str(text).unwrap_or_else(|error| panic!("{place}: {}", error.emit_to_string(text)));
    let mut validator = Validator::new(ValidationFlags::all(), capabilities(limits));
    let info = validator.validate(&module).unwrap_or_else(|error| panic!("{place}: {}", error.emit_to_string(text)));
    (module, info)
}

/// Bytes of workgroup variables that an entry point uses.
fn shared_bytes(module: &Module, info: &ModuleInfo, entry: &str) -> u32 {
    let number = module.entry_points.iter().position(|point| point.name == entry).expect("it is there");
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).expect("sizes are known");
    let used = module.global_variables.iter().filter(|(handle, variable)| {
        variable.space == AddressSpace::WorkGroup && !info.get_entry_point(number)[*handle].is_empty()
    });
    used.map(|(_, variable)| layouter[variable.ty].size.next_multiple_of(16)).sum()
}

/// A kernel of a case against what it may take and what it says of itself.
fn check(entry: &Entry, case: usize, shader: &Shader, limits: &Limits) {
    let place = format!("{} case {case}, `{}`, {limits:?}", entry.name, shader.entry);
    let args = (entry.args)(case);
    let composed = compose(entry.name, shader, &slices(&args)).unwrap_or_else(|what| panic!("{place}: {what}"));
    let (module, info) = validated(&composed.text, limits, &place);
    let point = module.entry_points.iter().find(|point| point.name == shader.entry);
    let point = point.unwrap_or_else(|| panic!("{place}: no such entry point"));
    assert_eq!(point.workgroup_size, [shader.threads, 1, 1], "{place}: threads of a block");
    assert!(shader.threads as usize <= limits.threads, "{place}: {} threads", shader.threads);
    let bytes = shared_bytes(&module, &info, &shader.entry);
    assert!(bytes as usize <= limits.shared_bytes, "{place}: {bytes} bytes of workgroup memory");
    let bindings: Vec<u32> =
        module.global_variables.iter().filter_map(|(_, v)| v.binding.as_ref().map(|b| b.binding)).collect();
    assert_eq!(bindings, (0..bindings.len() as u32).collect::<Vec<_>>(), "{place}: bindings");
    assert!(shader.tiles.max(shader.parts) <= 65_535, "{place}: a grid of {} x {}", shader.tiles, shader.parts);
}

/// `ReadF` for `read x: f32[..]`.
fn slice_type(arg: &Arg) -> String {
    let role = match arg.role {
        Role::Read => "Read",
        Role::Write => "Write",
        Role::Update => "Update",
    };
    format!("{role}{}", if arg.dtype == Dtype::F32 { "F" } else { "U" })
}

#[test]
fn every_kernel_is_valid_in_every_case() {
    read_shaders();
    for entry in ops() {
        for case in (0..(entry.cases)()).filter(|&case| (entry.on)(case, Kind::Wgpu)) {
            // what is valid within limits is so within higher ones
            let mut valid: Vec<Shader> = Vec::new();
            for limits in &LIMITS {
                let shaders = (entry.shaders)(case, limits);
                assert!(!shaders.is_empty(), "{} case {case} has no kernel", entry.name);
                for shader in shaders.into_iter().filter(|shader| !valid.contains(shader)).collect::<Vec<_>>() {
                    check(entry, case, &shader, limits);
                    valid.push(shader);
                }
            }
        }
    }
}

#[test]
fn lanes_that_meet_do_so_in_subgroups_where_there_are_any() {
    read_shaders();
    let meet = |entry: &Entry, limits: &Limits| {
        (0..(entry.cases)())
            .filter(|&case| (entry.on)(case, Kind::Wgpu))
            .flat_map(|case| (entry.shaders)(case, limits))
            .any(|shader| {
                let text =
                    compose(entry.name, &shader, &slices(&(entry.args)(0))).expect("it was composed before").text;
                text.contains("subgroupShuffleXor(")
            })
    };
    for limits in &LIMITS {
        let found: BTreeSet<&str> = ALL.iter().filter(|entry| meet(entry, limits)).map(|entry| entry.name).collect();
        let all = ["advantage", "log", "obs_moments", "optimize", "sequence_order", "shuffle"];
        assert_eq!(found, all.into_iter().filter(|_| limits.subgroups).collect());
    }
}

#[test]
fn arguments_are_those_of_the_declaration() {
    read_shaders();
    for entry in ops() {
        let args = (entry.args)(0);
        let shaders = (entry.shaders)(0, &Limits::WEBGPU);
        let shader = shaders.first().unwrap_or_else(|| panic!("{} has no kernel", entry.name));
        let text =
            compose(entry.name, shader, &slices(&args)).unwrap_or_else(|what| panic!("{}: {what}", entry.name)).text;
        let declared: Vec<(&str, String)> = args.iter().map(|arg| (arg.name, slice_type(arg))).collect();
        let mut has = members(&text, "Args").expect("a struct of arguments");
        assert_eq!(has.pop(), Some(("scratch", "UpdateF")), "{}", entry.name);
        // a name that WGSL keeps for itself has a line behind it
        let has: Vec<(&str, String)> =
            has.into_iter().map(|(name, of)| (name.trim_end_matches('_'), of.to_string())).collect();
        assert_eq!(has, declared, "{}", entry.name);
    }
}

#[test]
fn the_program_carries_every_file() {
    let folder = common::root().join("shaders");
    let files: BTreeSet<String> =
        common::files(&folder).into_iter().filter_map(|name| Some(name.strip_suffix(".wgsl")?.to_string())).collect();
    let carried: BTreeSet<String> = FILES.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(carried, files);
    assert_eq!(carried.len(), FILES.len(), "a file is named once");
    for entry in ALL {
        assert!(carried.contains(entry.name), "shaders/{}.wgsl is missing", entry.name);
    }
}
