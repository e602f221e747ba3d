// Sequences through a recurrent body, forward and back, step by step: a block owns some sequences for all their steps.
//
// What the gates get from the inputs has been computed for all steps. States, or the slopes at the gates on the way
// back, are in workgroup memory (`d.spilled`: in scratch), four sequences to a vector; a lane takes a unit of four
// sequences, so that 16 bytes of weights and as many of state (of the GRU's or LSTM's slopes 3 or 4 times as many) feed
// 12 or 16 multiply-adds, neighboring lanes at neighboring units. A step costs one barrier forward, two back; it is
// bound by the latency of that chain, with many sequences by multiply-adds.
//
// The op has `d.t`, `d.sequences`, `d.block` of sequences and `d.going` (1: forward, 2: back, 0: neither), the cell
// (lib/cell.wgsl), `LEARNT_FROM` and `LEARNT_END` (the steps that are gone back through), and says where things lie:
// `rows_of(sequences, t)`, and of body z `packed_of(s, z)`, `gates_at`, `recurrent_at`, `before_at`, `c_at`, `after_at`,
// `carried_at`. `goes_on(s, f, q, t)` are those of four sequences whose episode does not end with step t, and
// `leave_after(s, z, f, unit, state)` keeps a unit's state after a step.

#import lib/cell
#import lib/core

// Fours of sequences of a block.
const FOURS = d.block / 4u;
const TASKS = FOURS * d.units;

// Forward: states [turn][unit][four]. Back: slopes at the gates [gate][unit][four].
const HELD = select(select(0u, 2u, d.going == 1u), GATES, d.going == 2u) * TASKS;
var<workgroup> held: array<vec4<f32>, max(select(HELD, 0u, d.spilled), 1u)>;
// Back: slopes at the state before the step that was last [unit][four], of `h`, then of `c`.
const CARRIED = select(0u, select(1u, 2u, d.lstm), d.going == 2u) * TASKS;
var<workgroup> carried: array<vec4<f32>, max(select(CARRIED, 0u, d.spilled), 1u)>;
// The sequences' first rows in the records.
var<workgroup> begins: array<u32, d.block>;

// Four sequences of a block at one step: their rows in scratch. Those beyond the last one read its row and write
// nothing.
struct Four {
    rows: vec4<u32>,
    live: u32,
}

// Of four things in a row from `first` on, of `count`.
fn four_of(first: u32, count: u32) -> Four {
    let each = min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
    return Four(each, min(max(count, first) - first, 4u));
}

fn four_at(first: u32, q: u32, t: u32) -> Four {
    let own = four_of(first + 4u * q, d.sequences);
    return Four(rows_of(own.rows, t), own.live);
}

// Word `at` of four rows of `wide` words.
fn get_rows(f: Four, at: u32, wide: u32) -> vec4<f32> {
    return vec4<f32>(get_f(at + f.rows.x * wide), get_f(at + f.rows.y * wide), get_f(at + f.rows.z * wide),
                     get_f(at + f.rows.w * wide));
}

fn put_rows(f: Four, at: u32, wide: u32, x: vec4<f32>) {
    if (f.live > 0u) { put(at + f.rows.x * wide, x.x); }
    if (f.live > 1u) { put(at + f.rows.y * wide, x.y); }
    if (f.live > 2u) { put(at + f.rows.z * wide, x.z); }
    if (f.live > 3u) { put(at + f.rows.w * wide, x.w); }
}

// The cell's units, kept from the compiler, which would copy the loops over them as often.
fn own_units() -> u32 {
    return d.units + (sessions[0] >> 31u);
}

fn meet() {
    workgroupBarrier();
    if (d.spilled) { storageBarrier(); }
}

// Unit `k` of the state before step `t`.
fn state_at(z: u32, s: u32, f: Four, turn: u32, k: u32, q: u32) -> vec4<f32> {
    if (d.spilled) { return get_rows(f, before_at(s, z) + k, d.units); }
    return held[turn * TASKS + k * FOURS + q];
}

// Leaves a unit's state before a step: for the way back and, in turn `turn`, for the block.
fn leave_state(z: u32, s: u32, f: Four, turn: u32, k: u32, q: u32, state: State4) {
    put_rows(f, before_at(s, z) + k, d.units, state.h);
    if (d.lstm) { put_rows(f, c_at(s, z) + k, d.units, state.c); }
    if (!d.spilled) { held[turn * TASKS + k * FOURS + q] = state.h; }
}

// What the gates of a unit got from the inputs, and their biases.
fn begin_gates(s: u32, z: u32, f: Four, unit: u32) -> Sums {
    var sums = begin_sums(get4(packed_of(s, z) + 4u * (d.units * d.units + unit)));
    for (var g = 0u; g < GATES; g++) { sums[g] += get_rows(f, gates_at(s, z) + g * d.units + unit, GATE_ROWS); }
    return sums;
}

// All steps forward of the sequences from `first` on, of body `z`. `first_state` is where a session's states of
// records begin for this body, `state_len` words apart.
fn forward_in_time(s: u32, z: u32, first: u32, first_state: u32, state_len: u32, lane: u32) {
    let packed = packed_of(s, z);
    let units = own_units();
    for (var i = lane; i < TASKS; i += THREADS) {
        let q = i / d.units;
        let unit = i % d.units;
        let at = first_state + unit;
        var state: State4;
        for (var e = 0u; e < 4u; e++) {
            state.h[e] = get_f(at + begins[4u * q + e] * state_len);
            if (d.lstm) { state.c[e] = get_f(at + begins[4u * q + e] * state_len + d.units); }
        }
        leave_state(z, s, four_at(first, q, 0u), 0u, unit, q, state);
    }
    meet();
    for (var t = 0u; t < d.t; t++) {
        let turn = t & 1u;
        for (var i = lane; i < TASKS; i += THREADS) {
            let q = i / d.units;
            let unit = i % d.units;
            let f = four_at(first, q, t);
            var sums = begin_gates(s, z, f, unit);
            for (var k = 0u; k < units; k++) {
                add_state(state_at(z, s, f, turn, k, q), get4(packed + 4u * (k * d.units + unit)), &sums);
            }
            var before: State4;
            before.h = state_at(z, s, f, turn, unit, q);
            if (d.lstm) { before.c = get_rows(f, c_at(s, z) + unit, d.units); }
            let after = open_gates(before, &sums);
            let gates = gates_at(s, z) + unit;
            for (var g = 0u; g < GATES; g++) { put_rows(f, gates + g * d.units, GATE_ROWS, sums[g]); }
            if (!d.lstm) { put_rows(f, recurrent_at(s, z) + 2u * d.units + unit, GATE_ROWS, sums[3]); }
            leave_after(s, z, f, unit, after);
            if (t + 1u < d.t) {
                let on = goes_on(s, f, q, t);
                let next = State4(select(vec4<f32>(), after.h, on), select(vec4<f32>(), after.c, on));
                leave_state(z, s, four_at(first, q, t + 1u), 1u - turn, unit, q, next);
            }
        }
        meet();
    }
}

// Slopes at a unit's state before the step that was last.
fn carried_slopes(z: u32, s: u32, first: u32, unit: u32, q: u32) -> State4 {
    var slopes: State4;
    if (d.spilled) {
        let own = four_of(first + 4u * q, d.sequences);
        slopes.h = get_rows(own, carried_at(s, z) + unit, STATE);
        if (d.lstm) { slopes.c = get_rows(own, carried_at(s, z) + d.units + unit, STATE); }
    } else {
        slopes.h = carried[unit * FOURS + q];
        if (d.lstm) { slopes.c = carried[TASKS + unit * FOURS + q]; }
    }
    return slopes;
}

fn carry_slopes(z: u32, s: u32, first: u32, unit: u32, q: u32, slopes: State4) {
    if (d.spilled) {
        let own = four_of(first + 4u * q, d.sequences);
        put_rows(own, carried_at(s, z) + unit, STATE, slopes.h);
        if (d.lstm) { put_rows(own, carried_at(s, z) + d.units + unit, STATE, slopes.c); }
    } else {
        carried[unit * FOURS + q] = slopes.h;
        if (d.lstm) { carried[TASKS + unit * FOURS + q] = slopes.c; }
    }
}

// Slope at gate `g` of unit `k`, from the state.
fn gate_slope(z: u32, s: u32, f: Four, g: u32, k: u32, q: u32) -> vec4<f32> {
    if (d.spilled) { return get_rows(f, recurrent_at(s, z) + g * d.units + k, GATE_ROWS); }
    return held[(g * d.units + k) * FOURS + q];
}

// All steps that are learnt from back, of the sequences from `first` on: gates become the slopes at what they got. `head`
// is the weight [outputs, units] of what looks at the body, whose slopes lie at `d_out`, rows of `out_row` words.
fn back_in_time(s: u32, z: u32, first: u32, head: u32, outputs: u32, d_out: u32, out_row: u32, lane: u32) {
    let packed = packed_of(s, z) + 4u * d.units * (d.units + 1u);
    let units = own_units();
    for (var left = LEARNT_END; left > LEARNT_FROM; left--) {
        let t = left - 1u;
        for (var i = lane; i < TASKS; i += THREADS) {
            let q = i / d.units;
            let unit = i % d.units;
            let f = four_at(first, q, t);
            var slopes: State4;
            if (left < LEARNT_END) {
                let on = goes_on(s, f, q, t);
                let kept = carried_slopes(z, s, first, unit, q);
                slopes = State4(select(vec4<f32>(), kept.h, on), select(vec4<f32>(), kept.c, on));
            }
            for (var o = 0u; o < outputs; o++) {
                let weight = vec4<f32>(get_f(head + o * d.units + unit));
                slopes.h = fma(get_rows(f, d_out + o, out_row), weight, slopes.h);
            }
            var gates: Sums;
            let at = gates_at(s, z) + unit;
            let recurrent = recurrent_at(s, z) + unit;
            for (var g = 0u; g < GATES; g++) { gates[g] = get_rows(f, at + g * d.units, GATE_ROWS); }
            if (!d.lstm) { gates[3] = get_rows(f, recurrent + 2u * d.units, GATE_ROWS); }
            var before: State4;
            before.h = get_rows(f, before_at(s, z) + unit, d.units);
            if (d.lstm) { before.c = get_rows(f, c_at(s, z) + unit, d.units); }
            close_gates(before, &gates, &slopes);
            carry_slopes(z, s, first, unit, q, slopes);
            for (var g = 0u; g < GATES; g++) {
                put_rows(f, at + g * d.units, GATE_ROWS, gates[g]);
                // of the GRU, what `new` got from the state went through `reset`
                if (!d.lstm && g == 2u) { gates[2] = gates[3]; }
                if (!d.lstm) { put_rows(f, recurrent + g * d.units, GATE_ROWS, gates[g]); }
                if (!d.spilled) { held[(g * d.units + unit) * FOURS + q] = gates[g]; }
            }
        }
        meet();
        if (t == LEARNT_FROM) { break; }
        for (var i = lane; i < TASKS; i += THREADS) {
            let q = i / d.units;
            let unit = i % d.units;
            let f = four_at(first, q, t);
            var slopes = carried_slopes(z, s, first, unit, q);
            for (var k = 0u; k < units; k++) {
                let w = get4(packed + 4u * (k * d.units + unit));
                slopes.h = fma(gate_slope(z, s, f, 0u, k, q), vec4<f32>(w.x), slopes.h);
                slopes.h = fma(gate_slope(z, s, f, 1u, k, q), vec4<f32>(w.y), slopes.h);
                slopes.h = fma(gate_slope(z, s, f, 2u, k, q), vec4<f32>(w.z), slopes.h);
                if (d.lstm) { slopes.h = fma(gate_slope(z, s, f, 3u, k, q), vec4<f32>(w.w), slopes.h); }
            }
            carry_slopes(z, s, first, unit, q, slopes);
        }
        meet();
    }
}

// Words of a body's packed weights of the state: for the way forward, the biases of the gates, for the way back.
const PACKED = 4u * d.units * (2u * d.units + 1u);

// Packs four number `i` of a body, whose layers before the cell end in the bias at word `input_bias`; the weight of the
// state is at word `weight`.
fn pack_cell(to: u32, i: u32, input_bias: u32, weight: u32) {
    let square = d.units * d.units;
    var w: vec4<f32>;
    if (i < square) {
        w = gates_of(weight, i % d.units, i / d.units, d.units);
    } else if (i < square + d.units) {
        w = gate_biases(input_bias, weight + GATE_ROWS * d.units, i - square);
    } else {
        let at = i - square - d.units;
        w = gates_of(weight, at / d.units, at % d.units, d.units);
    }
    put4(to + 4u * i, w);
}
