// What every kernel shares: the words of a cohort, the slices of an op's arguments, the running sessions, nets and policies.
//
// Behind a kernel's text the host writes `const d = Shape(..)`, `const a = Args(..)` and `const THREADS`: every size, offset
// and choice is known when the driver compiles it.
#import lib/constants

// Every buffer of the cohort, then the scratch that kernels of one op share.
@group(0) @binding(0) var<storage, read_write> arena: array<vec4<u32>>;
// The sessions that run: their number, then their positions in the cohort.
@group(0) @binding(1) var<storage, read> sessions: array<u32>;

// An argument of an op: one slice of `len` words per session, `stride` words apart, the first at word `at` of the arena. The
// name says what the op may do: read it, write it whole and never read it before, or both; F holds f32, U holds u32.
struct ReadF { at: u32, stride: u32, len: u32 }
struct ReadU { at: u32, stride: u32, len: u32 }
struct WriteF { at: u32, stride: u32, len: u32 }
struct WriteU { at: u32, stride: u32, len: u32 }
struct UpdateF { at: u32, stride: u32, len: u32 }
struct UpdateU { at: u32, stride: u32, len: u32 }

// Word `i` of the arena.
fn get_u(i: u32) -> u32 {
    return arena[i >> 2u][i & 3u];
}

fn get_f(i: u32) -> f32 {
    return bitcast<f32>(arena[i >> 2u][i & 3u]);
}

fn put_u(i: u32, x: u32) {
    arena[i >> 2u][i & 3u] = x;
}

fn put(i: u32, x: f32) {
    arena[i >> 2u][i & 3u] = bitcast<u32>(x);
}

// Words i to i + 3, where i is a multiple of four.
fn get4(i: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(arena[i >> 2u]);
}

fn put4(i: u32, x: vec4<f32>) {
    arena[i >> 2u] = bitcast<vec4<u32>>(x);
}

// The same number, which no compiler knows: it can neither be fused with what follows nor be cancelled against its terms.
// The highest bit of the number of sessions is 0.
fn keep(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) | (sessions[0] >> 31u));
}

// Neither infinite nor NaN, by its bits: a compiler may take any number for finite.
fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

// One layer of a net; offsets from the net's first parameter. Hidden weights are [input, output], the last is
// [output, input].
struct Layer {
    input: u32,
    output: u32,
    weight: u32,
    bias: u32,
}

// Sizes of one net; no layers where there is none.
struct Net {
    layers: u32,
    activation: u32,
    params: u32,
    layer: array<Layer, NETS_LAYERS>,
}

// A family of distributions over actions: `n` actions, or `n` action words.
struct Policy {
    kind: u32,
    n: u32,
    free_std: u32,
    squashed: u32,
}
