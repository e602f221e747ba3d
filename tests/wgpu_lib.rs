//! Do the functions that shaders share give what they should: Philox the words of Random123, elementary functions and
//! activations what f64 says? Through the device, on the first adapter there is.
#![cfg(feature = "wgpu")]

mod common;

use common::wgpu::{Probe, is_required};
use slm_fast::device::wgpu::read_shaders_from;
use slm_fast::device::{Buf, Device, Field, Keep, Layout, Queue, Shader};
use slm_fast::op::lib::activation::Activation;
use slm_fast::op::lib::trig;
use std::f64::consts::{LN_2, TAU};

/// A kernel that hands every input to every function.
const PROBE: &str = "
#import lib/core
#import lib/rng
#import lib/activation

struct Shape { n: u32, columns: u32 }
struct Args { x: ReadF, counter: ReadU, drawn: WriteU, y: WriteF, scratch: UpdateF }

@compute @workgroup_size(THREADS)
fn probe(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let i = block.x * THREADS + lane;
    let counter = a.counter.at + s * a.counter.stride;
    if (i < 3u) {
        let words = counter + i * 6u;
        let ctr = vec4<u32>(get_u(words), get_u(words + 1u), get_u(words + 2u), get_u(words + 3u));
        let four = philox(ctr, vec2<u32>(get_u(words + 4u), get_u(words + 5u)));
        for (var w = 0u; w < 4u; w++) { put_u(a.drawn.at + s * a.drawn.stride + i * 4u + w, four[w]); }
    }
    if (i >= d.n) { return; }
    let x = get_f(a.x.at + s * a.x.stride + i);
    let y = a.y.at + s * a.y.stride + i * d.columns;
    let turn = sin_cos(x);
    put(y, turn.x);
    put(y + 1u, turn.y);
    put(y + 2u, wrap_angle(x));
    put(y + 3u, exp_of(x));
    put(y + 4u, ln_of(x));
    put(y + 5u, tanh_of(x));
    put(y + 6u, hold(x, -1.0, 2.0));
    put(y + 7u, unit(bitcast<u32>(x)));
    for (var kind = 0u; kind < 9u; kind++) {
        let value = activate(kind, x);
        put(y + 8u + 2u * kind, value);
        put(y + 9u + 2u * kind, slope(kind, select(value, x, needs_input(kind))));
    }
}
";

/// Numbers that the kernel writes for each input.
const COLUMNS: usize = 8 + 2 * Activation::ALL.len();
const THREADS: usize = 64;

/// The drawn words, and every row of numbers.
fn probe(x: &[f32], counters: &[u32]) -> Option<(Vec<u32>, Vec<Vec<f32>>)> {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = std::env::var_os("SLM_FAST_SHADERS").map_or_else(|| common::root().join("shaders"), Into::into);
    std::fs::create_dir(folder.path().join("lib")).expect("a folder");
    for file in std::fs::read_dir(ours.join("lib")).expect("our shaders") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), folder.path().join("lib").join(file.file_name())).expect("a copy");
    }
    std::fs::write(folder.path().join("probe.wgsl"), PROBE).expect("a file");
    read_shaders_from(folder.path().to_path_buf());
    let device = match Device::wgpu(0) {
        Ok(device) => device,
        Err(error) if is_required("wgpu") => panic!("SLM_REQUIRE asks for wgpu: {error}"),
        Err(error) => {
            println!("skipped: {}", error.what);
            return None;
        }
    };
    let mut layout = Layout::on(device.kind(), 1);
    let n = x.len();
    let given: Buf<f32> = layout.buf("x", &[n], Keep::Saved);
    let counter: Buf<u32> = layout.buf("counter", &[counters.len()], Keep::Saved);
    let drawn: Buf<u32> = layout.buf("drawn", &[12], Keep::Saved);
    let y: Buf<f32> = layout.buf("y", &[n, COLUMNS], Keep::Saved);
    let word = |name, x: usize| Field { name, words: vec![x as u32] };
    let shader = Shader {
        entry: "probe".into(),
        swaps: Vec::new(),
        tiles: n.div_ceil(THREADS) as u32,
        parts: 1,
        threads: THREADS as u32,
        shape: vec![word("n", n), word("columns", COLUMNS)],
    };
    let call = Probe { shader, args: vec![given.id(), counter.id(), drawn.id(), y.id()] };
    let mut queue = Queue::default();
    queue.push(call);
    let mut memory = layout.allocate_on(&device).expect("device memory");
    memory.write(given, 0).copy_from_slice(x);
    memory.write(counter, 0).copy_from_slice(counters);
    queue.replay(&device, &mut memory, &[0]).expect("a replay");
    let rows = memory.read(y, 0).chunks_exact(COLUMNS).map(<[f32]>::to_vec).collect();
    Some((memory.read(drawn, 0).to_vec(), rows))
}

/// Numbers of every size and sign, then the ends of the range.
fn inputs() -> Vec<f32> {
    let even = (-40_000..=40_000).map(|i| i as f32 * 2e-3);
    let small = (-200..=200).map(|i| i as f32 * 1e-5);
    let decades = (0x0080_0000..0x7F80_0000).step_by(300_007).map(f32::from_bits);
    let ends = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 88.8, -150.0, 1e30, -1e30];
    even.chain(small).chain(decades).chain(ends).collect()
}

/// `|x - want| <= most (1 + |want|)`, or both NaN, or equal.
fn near(x: f32, want: f64, most: f64) -> bool {
    let x = f64::from(x);
    x == want || (x.is_nan() && want.is_nan()) || (x - want).abs() <= most * (1.0 + want.abs())
}

#[test]
fn functions_are_what_f64_says_and_words_those_of_random123() {
    let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344, 0xa409_3822, 0x299f_31d0];
    let counters: Vec<u32> = [[0; 6], [!0; 6], pi].concat();
    let inputs = inputs();
    let Some((drawn, rows)) = probe(&inputs, &counters) else { return };
    let known = [
        [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
    ];
    assert_eq!(drawn, known.concat(), "Philox");

    for (&x, row) in inputs.iter().zip(&rows) {
        let exact = f64::from(x);
        let check = |name: &str, column: usize, want: f64, most: f64| {
            assert!(near(row[column], want, most), "{name} of {x:e} is {:e}, not {want:e}", row[column]);
        };
        if exact.abs() <= 1e4 {
            check("sin", 0, exact.sin(), 2e-7);
            check("cos", 1, exact.cos(), 2e-7);
            check("wrap", 2, exact - TAU * (exact / TAU).round(), 1e-6);
        }
        // what is beyond f32 is infinite in f32
        check("exp", 3, if exact > 128.0 * LN_2 { f64::INFINITY } else { exact.exp() }, 3e-7);
        check("ln", 4, exact.ln(), 3e-7);
        check("tanh", 5, exact.tanh(), 6e-7);
        check("hold", 6, f64::from(trig::clamp(x, -1.0, 2.0)), 0.0);
        check("unit", 7, f64::from(slm_fast::op::lib::rng::unit(x.to_bits())), 0.0);
        if exact.abs() > 80.0 || x.is_nan() {
            continue;
        }
        for (kind, activation) in Activation::ALL.into_iter().enumerate() {
            let (value, slope) = activation.define(exact);
            // the sigmoid is right to 2e-7 of 1, which the input of SiLU multiplies
            let most = if activation == Activation::Silu { 3e-7 * (1.0 + exact.abs()) } else { 1e-6 };
            check(&format!("{activation:?}"), 8 + 2 * kind, value, most);
            check(&format!("slope of {activation:?}"), 9 + 2 * kind, slope, 3.0 * most);
        }
    }
    let nan = inputs.iter().position(|x| x.is_nan()).expect("it is in the list");
    for column in [0, 1, 2, 3, 4, 5, 6, 8, 10 + 2 * 2] {
        assert!(rows[nan][column].is_nan(), "a NaN must be seen, not hidden: column {column}");
    }
}
