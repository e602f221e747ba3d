//! Do the lanes of a block find together what they should, in workgroup memory and in subgroups, and in subgroups the same
//! bits whatever their size? Through the device, on the first adapter there is.
#![cfg(feature = "wgpu")]

mod common;

use common::wgpu::{Probe, is_required};
use slm_fast::device::wgpu::read_shaders_from;
use slm_fast::device::{Buf, Device, Field, Keep, Layout, Queue, Shader};

/// A kernel that has its lanes meet in every way.
const PROBE: &str = "
#import lib/core
#import lib/sums

struct Shape { width: u32 }
struct Args { x: ReadF, words: ReadU, floats: WriteF, counts: WriteU, scratch: UpdateF }

@compute @workgroup_size(THREADS)
fn lanes(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let x = get_f(a.x.at + s * a.x.stride + lane);
    let word = get_u(a.words.at + s * a.words.stride + lane);
    let floats = a.floats.at + s * a.floats.stride;
    let counts = a.counts.at + s * a.counts.stride + 3u * lane;
    let scan = block_scan(word >> 12u, lane);
    put_u(counts, scan.before);
    put_u(counts + 1u, scan.total);
    put_u(counts + 2u, block_min(word, lane));
    let sum = block_sum(x, lane);
    if (lane == 0u) { put(floats + 9u * THREADS, sum); }
    let pair = block_group_sums(vec4<f32>(x, 0.0, x * 0.5, 0.0), lane, d.width);
    // every third lane has nothing
    let here = lane % 3u != 1u;
    var own = no_moments();
    if (here) { own = Moments(wide(1.0), wide(x), wide(0.0)); }
    let joined = block_group_merge(own, lane, d.width);
    put(floats + 9u * lane, pair.x);
    put(floats + 9u * lane + 1u, pair.y);
    put(floats + 9u * lane + 2u, pair.z);
    put(floats + 9u * lane + 3u, joined.count.x);
    put(floats + 9u * lane + 4u, joined.mean.x);
    put(floats + 9u * lane + 5u, joined.mean.y);
    put(floats + 9u * lane + 6u, joined.m2.x);
    put(floats + 9u * lane + 7u, joined.m2.y);
    put(floats + 9u * lane + 8u, block_sums(vec4<f32>(x, 0.0, 0.0, 0.0), lane).x);
}
";

/// Stand-ins for lib/lanes.wgsl: the one for subgroups as it is, and held to fewer neighbours than the adapter has.
const SUBGROUPS: [&str; 4] = ["lanes_subgroup", "lanes_of_4", "lanes_of_2", "lanes_of_1"];

/// The shared files with stand-ins beside them, and the probe.
fn write_shaders(folder: &std::path::Path) {
    let ours = std::env::var_os("SLM_FAST_SHADERS").map_or_else(|| common::root().join("shaders"), Into::into);
    let lib = folder.join("lib");
    std::fs::create_dir(&lib).expect("a folder");
    for file in std::fs::read_dir(ours.join("lib")).expect("our shaders") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), lib.join(file.file_name())).expect("a copy");
    }
    let text = std::fs::read_to_string(lib.join("lanes_subgroup.wgsl")).expect("our shader");
    for name in &SUBGROUPS[1..] {
        let most = name.strip_prefix("lanes_of_").expect("a number");
        let held = text.replace("const MOST_REACH = 128u;", &format!("const MOST_REACH = {most}u;"));
        assert_ne!(held, text);
        std::fs::write(lib.join(format!("{name}.wgsl")), held).expect("a file");
    }
    std::fs::write(folder.join("probe.wgsl"), PROBE).expect("a file");
}

fn probe(device: &Device, file: &'static str, x: &[f32], words: &[u32], width: usize) -> (Vec<f32>, Vec<u32>) {
    let mut layout = Layout::on(device.kind(), 1);
    let threads = x.len();
    let given: Buf<f32> = layout.buf("x", &[threads], Keep::Saved);
    let given_words: Buf<u32> = layout.buf("words", &[threads], Keep::Saved);
    let floats: Buf<f32> = layout.buf("floats", &[9 * threads + 1], Keep::Saved);
    let counts: Buf<u32> = layout.buf("counts", &[3 * threads], Keep::Saved);
    let shader = Shader {
        entry: "lanes".into(),
        swaps: vec![("lanes", file)],
        tiles: 1,
        parts: 1,
        threads: threads as u32,
        shape: vec![Field { name: "width", words: vec![width as u32] }],
    };
    let call = Probe { shader, args: vec![given.id(), given_words.id(), floats.id(), counts.id()] };
    let mut queue = Queue::default();
    queue.push(call);
    let mut memory = layout.allocate_on(device).expect("device memory");
    memory.write(given, 0).copy_from_slice(x);
    memory.write(given_words, 0).copy_from_slice(words);
    queue.replay(device, &mut memory, &[0]).expect("a replay");
    (memory.read(floats, 0).to_vec(), memory.read(counts, 0).to_vec())
}

/// Sum over a tree, neighbours first.
fn tree(x: &[f32]) -> f32 {
    match x {
        [one] => *one,
        _ => tree(&x[..x.len() / 2]) + tree(&x[x.len() / 2..]),
    }
}

fn check(x: &[f32], words: &[u32], width: usize, floats: &[f32], counts: &[u32]) {
    let near = |found: f64, want: f64, most: f64| (found - want).abs() <= most * (1.0 + want.abs());
    let mut before = 0;
    let total: u32 = words.iter().map(|word| word >> 12).sum();
    let least = *words.iter().min().expect("lanes");
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).sum::<f64>();
    for (lane, (floats, counts)) in floats.chunks_exact(9).zip(counts.chunks_exact(3)).enumerate() {
        let place = format!("{} lanes by {width}, lane {lane}", x.len());
        assert_eq!(counts, [before, total, least], "{place}");
        before += words[lane] >> 12;
        let first = lane / width * width;
        let group = &x[first..first + width];
        let sum = wide(group);
        assert!(near(f64::from(floats[0]) + f64::from(floats[1]), sum, 1e-12), "{place}: {floats:?} for {sum}");
        assert!(near(f64::from(floats[2]), sum / 2.0, 1e-7), "{place}: {floats:?} for {}", sum / 2.0);
        let here: Vec<f32> = (first..first + width).filter(|lane| lane % 3 != 1).map(|lane| x[lane]).collect();
        let mean = wide(&here) / here.len() as f64;
        let squares: f64 = here.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
        assert_eq!(floats[3], here.len() as f32, "{place}");
        assert!(near(f64::from(floats[4]) + f64::from(floats[5]), mean, 1e-11), "{place}: {floats:?} for {mean}");
        assert!(near(f64::from(floats[6]) + f64::from(floats[7]), squares, 1e-11), "{place}: {floats:?} for {squares}");
        assert!(near(f64::from(floats[8]), wide(x), 1e-7), "{place}: {floats:?} for {}", wide(x));
    }
    assert!(near(f64::from(floats[9 * x.len()]), wide(x), 1e-5), "{} lanes", x.len());
}

#[test]
fn lanes_find_sums_moments_and_counts_in_the_same_bits_whatever_subgroups_there_are() {
    let folder = tempfile::tempdir().expect("a folder");
    write_shaders(folder.path());
    read_shaders_from(folder.path().to_path_buf());
    let device = match Device::wgpu(0) {
        Ok(device) => device,
        Err(error) if is_required("wgpu") => panic!("SLM_REQUIRE asks for wgpu: {error}"),
        Err(error) => return println!("skipped: {}", error.what),
    };
    let Device::Wgpu(wgpu) = &device else { unreachable!("it is wgpu's") };
    let limits = wgpu.limits();
    let mut draw = slm_fast::op::Draw::new(7);
    // the probe's workgroup memory, in bytes of a lane
    let most = limits.threads.min(limits.shared_bytes / 56);
    for threads in [32, 256, 512, 1024].into_iter().filter(|&threads| threads <= most) {
        let x: Vec<f32> = (0..threads).map(|_| 1.0 + draw.range(-3.0, 3.0)).collect();
        let words: Vec<u32> = x.iter().map(|x| x.to_bits().wrapping_mul(0x9E37_79B9)).collect();
        for width in [16, threads] {
            let (floats, counts) = probe(&device, "lanes", &x, &words, width);
            check(&x, &words, width, &floats, &counts);
            if !limits.subgroups {
                println!("skipped: {} has no subgroups", device.describe());
                continue;
            }
            let bits = |floats: &[f32]| floats.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let (first, counts) = probe(&device, SUBGROUPS[0], &x, &words, width);
            check(&x, &words, width, &first, &counts);
            assert_eq!(first[9 * threads].to_bits(), tree(&x).to_bits(), "{threads} lanes: the order of a sum");
            for file in &SUBGROUPS[1..] {
                let (floats, counts) = probe(&device, file, &x, &words, width);
                check(&x, &words, width, &floats, &counts);
                assert!(bits(&floats) == bits(&first), "{threads} lanes by {width}: {file} gives other bits");
            }
        }
    }
}
