//! The pairs of floats and the 64-bit integers of `shaders/lib/wide.wgsl`, on the first adapter there is, against f64 and
//! u64.
#![cfg(feature = "wgpu")]

mod common;

use common::wgpu::is_required;
use slm_fast::op::Draw;
use std::path::PathBuf;

/// Words of a case: two pairs of floats, which are two 64-bit integers as well; then its results.
const INPUTS: usize = 8;
const OUTPUTS: usize = 32;
const CASES: usize = 4096;
const THREADS: usize = 64;

/// A lane per case.
const MAIN: &str = "
const THREADS = 64u;
fn save(at: u32, x: vec2<u32>) { arena[at / 4u][at % 4u] = x.x; arena[at / 4u][at % 4u + 1u] = x.y; }
fn save_wide(at: u32, x: Wide) { save(at, bitcast<vec2<u32>>(x)); }
@compute @workgroup_size(THREADS)
fn all(@builtin(global_invocation_id) id: vec3<u32>) {
    let case_at = id.x * 40u;
    let a = bitcast<Wide>(arena[case_at / 4u].xy);
    let b = bitcast<Wide>(arena[case_at / 4u].zw);
    let x = arena[case_at / 4u + 1u].xy;
    let y = arena[case_at / 4u + 1u].zw;
    let to = case_at + 8u;
    save_wide(to, wide_add(a, b));
    save_wide(to + 2u, wide_sub(a, b));
    save_wide(to + 4u, wide_mul(a, b));
    save_wide(to + 6u, wide_div(a, b));
    save_wide(to + 8u, wide_sqrt(select(a, -a, a.x < 0.0)));
    save_wide(to + 10u, wide_add_f32(a, b.x));
    save_wide(to + 12u, wide_mul_f32(a, b.x));
    save_wide(to + 14u, wide_max(a, b));
    save_wide(to + 16u, wide_of_u32(x.x));
    save_wide(to + 18u, wide_of_u64(vec2<u32>(x.x, x.y & 0xffffu)));
    save(to + 20u, u64_add(x, y));
    save(to + 22u, u64_sub(x, y));
    save(to + 24u, u64_of_product(x.x, y.x));
    save(to + 26u, u64_rem(x, vec2<u32>(y.x, y.y & 0x7fffffffu)));
    save(to + 28u, vec2<u32>(u32(u64_less(x, y)), u32(wide_less(a, b))));
    save_wide(to + 30u, two_product(a.x, b.x));
}
";

/// A file below `shaders/lib` without its imports.
fn library(name: &str) -> String {
    let folder = std::env::var_os("SLM_FAST_SHADERS").map_or_else(|| common::root().join("shaders"), Into::into);
    let path: PathBuf = folder.join(format!("lib/{name}.wgsl"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().filter(|line| !line.starts_with("#import ")).map(|line| format!("{line}\n")).collect()
}

/// Runs the shader on the words of all cases, in place; none where there is no adapter.
fn run(words: &mut [u32]) -> Option<()> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    let adapter = match pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())) {
        Ok(adapter) => adapter,
        Err(error) => {
            assert!(!is_required("wgpu"), "SLM_REQUIRE asks for wgpu: {error}");
            println!("skipped: no wgpu device: {error}");
            return None;
        }
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let source = ["constants", "core", "wide"].map(library).concat() + MAIN;
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let buffer = |bytes: u64, usage: wgpu::BufferUsages| {
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false })
    };
    let (storage, to) = (wgpu::BufferUsages::STORAGE, wgpu::BufferUsages::COPY_DST);
    let bytes = 4 * words.len() as u64;
    let arena = buffer(bytes, storage | to | wgpu::BufferUsages::COPY_SRC);
    let sessions = buffer(16, storage | to);
    let back = buffer(bytes, to | wgpu::BufferUsages::MAP_READ);
    queue.write_buffer(&arena, 0, bytemuck::cast_slice(words));
    queue.write_buffer(&sessions, 0, bytemuck::cast_slice(&[1u32, 0, 0, 0]));
    let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: arena.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: sessions.as_entire_binding() },
        ],
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &bindings, &[]);
    pass.dispatch_workgroups((CASES / THREADS) as u32, 1, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(&arena, 0, &back, 0, bytes);
    queue.submit([encoder.finish()]);
    back.slice(..).map_async(wgpu::MapMode::Read, |mapped| mapped.unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    words.copy_from_slice(bytemuck::cast_slice(&back.slice(..).get_mapped_range().unwrap()));
    Some(())
}

/// A number of 48 bits between 2^-20 and 2^20, either sign, as a pair.
fn pair(draw: &mut Draw) -> [f32; 2] {
    let size = f64::from(draw.range(-20.0, 20.0)).exp2();
    let x = f64::from(draw.range(-1.0, 1.0)) * size * (1.0 + f64::from(draw.range(-1.0, 1.0)) * 1e-7);
    halves(x)
}

/// The nearest pair, whose sum is an f64 again.
fn halves(x: f64) -> [f32; 2] {
    [x as f32, (x - f64::from(x as f32)) as f32]
}

fn sum([high, low]: [f32; 2]) -> f64 {
    f64::from(high) + f64::from(low)
}

fn whole([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[test]
fn equal_f64_and_u64() {
    let mut draw = Draw::new(4);
    let mut words = vec![0u32; CASES * (INPUTS + OUTPUTS)];
    for (case, words) in words.chunks_exact_mut(INPUTS + OUTPUTS).enumerate() {
        let a = pair(&mut draw);
        let mut b = pair(&mut draw);
        // nearly equal numbers, whose difference is what the lower halves say
        if case % 4 == 0 {
            b = halves(sum([a[0], a[1] * draw.range(-1.0, 1.0)]));
        }
        words[..4].copy_from_slice(&[a[0], a[1], b[0], b[1]].map(f32::to_bits));
        // a divisor of every size, and words whose sum carries
        let size = draw.below(33);
        let high = if size == 32 { 0 } else { draw.word() >> size };
        words[4..INPUTS].copy_from_slice(&[draw.word(), draw.word(), draw.word() | 1, high]);
    }
    if run(&mut words).is_none() {
        return;
    }
    for (case, words) in words.chunks_exact(INPUTS + OUTPUTS).enumerate() {
        let of = |at: usize| [words[at], words[at + 1]];
        let (a, b) = (of(0).map(f32::from_bits), of(2).map(f32::from_bits));
        let (x, y) = (of(4), of(6));
        let near = |what: &str, at: usize, right: f64, bits: i32| {
            let found = of(INPUTS + at).map(f32::from_bits);
            let off = (sum(found) - right).abs();
            assert!(
                off <= right.abs() * 2f64.powi(-bits) && found[0] == sum(found) as f32,
                "case {case}: {what} of {a:?} and {b:?} is {right:e}, found {found:?}, {off:e} off"
            );
        };
        near("sum", 0, sum(a) + sum(b), 45);
        near("difference", 2, sum(a) - sum(b), 45);
        near("product", 4, sum(a) * sum(b), 44);
        near("quotient", 6, sum(a) / sum(b), 42);
        near("root", 8, sum(a).abs().sqrt(), 42);
        // half a unit of the lower part of what is added, not of the sum
        let off = (sum(of(INPUTS + 10).map(f32::from_bits)) - (sum(a) + f64::from(b[0]))).abs();
        assert!(off <= (sum(a).abs() + f64::from(b[0]).abs()) * 2f64.powi(-46), "case {case}: {a:?} + {}", b[0]);
        near("product with a float", 12, sum(a) * f64::from(b[0]), 45);
        near("larger", 14, sum(a).max(sum(b)), 60);
        near("word", 16, f64::from(x[0]), 60);
        near("48 bits", 18, whole([x[0], x[1] & 0xffff]) as f64, 60);
        near("exact product", 30, f64::from(a[0]) * f64::from(b[0]), 60);
        let found = |at: usize| whole(of(INPUTS + at));
        assert_eq!(found(20), whole(x).wrapping_add(whole(y)), "case {case}: {x:?} + {y:?}");
        assert_eq!(found(22), whole(x).wrapping_sub(whole(y)), "case {case}: {x:?} - {y:?}");
        assert_eq!(found(24), u64::from(x[0]) * u64::from(y[0]), "case {case}: {} * {}", x[0], y[0]);
        assert_eq!(found(26), whole(x) % whole([y[0], y[1] & 0x7fff_ffff]), "case {case}: {x:?} % {y:?}");
        assert_eq!(of(INPUTS + 28), [u32::from(whole(x) < whole(y)), u32::from(sum(a) < sum(b))], "case {case}: order");
    }
}
