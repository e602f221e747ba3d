// A step of a gated cell, for one unit of four environments at a time. Twin of `open_gates` and `close_gates` in
// src/op/lib/recurrent.rs. The op has `d.lstm` and `d.units`.
//
// What the gates of a unit get from one input is a word of four: of the GRU (reset, update, new, 0), of the LSTM
// (input, forget, cell, output). Packed weights are rows of inputs of such fours, one for each unit, so that
// neighboring lanes read neighboring fours and each read feeds 12 or 16 multiply-adds.

#import lib/activation
#import lib/core

const GATES = select(3u, 4u, d.lstm);
// Rows of the cell's matrices, and words of a state: `h`, then the LSTM's `c`.
const GATE_ROWS = GATES * d.units;
const STATE = select(1u, 2u, d.lstm) * d.units;

// What the gates of a unit have so far. The GRU's last one is what `new` gets from the state, which `reset` lets
// through.
alias Sums = array<vec4<f32>, 4>;

// Gates of unit `unit` by input `k`, from a matrix [gates x units, depth] at word `at`.
fn gates_of(at: u32, unit: u32, k: u32, depth: u32) -> vec4<f32> {
    var w = vec4<f32>();
    for (var g = 0u; g < GATES; g++) { w[g] = get_f(at + (g * d.units + unit) * depth + k); }
    return w;
}

// What the gates of a unit begin with: the biases of the input, at word `input`, and of the state.
fn gate_biases(input: u32, state: u32, unit: u32) -> vec4<f32> {
    let of_input = gates_of(input, unit, 0u, 1u);
    let of_state = gates_of(state, unit, 0u, 1u);
    if (d.lstm) { return of_input + of_state; }
    return vec4<f32>(of_input.xy + of_state.xy, of_input.z, of_state.z);
}

fn begin_sums(bias: vec4<f32>) -> Sums {
    return Sums(vec4<f32>(bias.x), vec4<f32>(bias.y), vec4<f32>(bias.z), vec4<f32>(bias.w));
}

// Adds what an input of the cell gives.
fn add_input(x: vec4<f32>, w: vec4<f32>, sums: ptr<function, Sums>) {
    (*sums)[0] = fma(x, vec4<f32>(w.x), (*sums)[0]);
    (*sums)[1] = fma(x, vec4<f32>(w.y), (*sums)[1]);
    (*sums)[2] = fma(x, vec4<f32>(w.z), (*sums)[2]);
    if (d.lstm) { (*sums)[3] = fma(x, vec4<f32>(w.w), (*sums)[3]); }
}

// Adds what a unit of the state gives.
fn add_state(h: vec4<f32>, w: vec4<f32>, sums: ptr<function, Sums>) {
    (*sums)[0] = fma(h, vec4<f32>(w.x), (*sums)[0]);
    (*sums)[1] = fma(h, vec4<f32>(w.y), (*sums)[1]);
    if (d.lstm) {
        (*sums)[2] = fma(h, vec4<f32>(w.z), (*sums)[2]);
        (*sums)[3] = fma(h, vec4<f32>(w.w), (*sums)[3]);
    } else {
        (*sums)[3] = fma(h, vec4<f32>(w.z), (*sums)[3]);
    }
}

fn sigmoids(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(sigmoid(x.x), sigmoid(x.y), sigmoid(x.z), sigmoid(x.w));
}

fn tanhs(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(tanh_ratio(x.x), tanh_ratio(x.y), tanh_ratio(x.z), tanh_ratio(x.w));
}

// A unit's state.
struct State4 {
    h: vec4<f32>,
    c: vec4<f32>,
}

// The state after a step; `sums` become what the gates let through (the GRU's last one stays).
fn open_gates(before: State4, sums: ptr<function, Sums>) -> State4 {
    var after: State4;
    let first = sigmoids((*sums)[0]);
    let second = sigmoids((*sums)[1]);
    if (d.lstm) {
        let fresh = tanhs((*sums)[2]);
        let shown = sigmoids((*sums)[3]);
        after.c = fma(second, before.c, first * fresh);
        after.h = shown * tanhs(after.c);
        *sums = Sums(first, second, fresh, shown);
    } else {
        let fresh = tanhs(fma(first, (*sums)[3], (*sums)[2]));
        after.h = fma(second, before.h - fresh, fresh);
        *sums = Sums(first, second, fresh, (*sums)[3]);
    }
    return after;
}

// The way back through `open_gates`: `slopes` at the state after the step become those at the state before it, but for
// what goes through the weights of the state. `gates` become the slopes at what the gates got: from the input; the
// GRU's last one is that of `new` from the state, where the LSTM's are the same for both.
fn close_gates(before: State4, gates: ptr<function, Sums>, slopes: ptr<function, State4>) {
    let one = vec4<f32>(1.0);
    let first = (*gates)[0];
    let second = (*gates)[1];
    let fresh = (*gates)[2];
    let last = (*gates)[3];
    let d_h = (*slopes).h;
    if (d.lstm) {
        let squashed = tanhs(fma(second, before.c, first * fresh));
        let d_c = (*slopes).c + d_h * last * (one - squashed * squashed);
        (*gates)[0] = d_c * fresh * (first * (one - first));
        (*gates)[1] = d_c * before.c * (second * (one - second));
        (*gates)[2] = d_c * first * (one - fresh * fresh);
        (*gates)[3] = d_h * squashed * (last * (one - last));
        (*slopes).h = vec4<f32>();
        (*slopes).c = d_c * second;
    } else {
        let d_new = d_h * (one - second) * (one - fresh * fresh);
        (*gates)[0] = d_new * last * (first * (one - first));
        (*gates)[1] = d_h * (before.h - fresh) * (second * (one - second));
        (*gates)[2] = d_new;
        (*gates)[3] = d_new * first;
        (*slopes).h = d_h * second;
    }
}
