// Nets on recurrent bodies ahead, side by side, on the few rows of a block: the hidden layers before the cells and the
// heads by lib/net.wgsl, between them a phase for the cells, where a lane takes a unit of four rows. Twin of
// `Recurrent` in src/op/lib/agent.rs.
//
// A net of the op's shape is the hidden layers before the cell, then the cell (its layer has the inputs and the weight
// of the input, [gates, input]; the bias of the input, the weight and the bias of the state lie behind), then the head.
// Behind the activations of a block, and kept from step to step, lie states `h` of both turns, rounded up to fours of
// units, [turn][body][unit][quad], then the LSTM's `c` [body][unit][quad]. Packed, a cell is fours of gates: [input +
// units][unit], then biases.

#import lib/cell
#import lib/net

const BODIES = select(1u, 2u, d.critic.layers > 0u);
// Hidden layers before a cell, and where its outputs are looked at.
const HIDDEN = d.actor.layers - 2u;
const HEAD = d.actor.layers - 1u;
// Inputs of a cell, and its packed fours.
const CELL_INPUT = d.actor.layer[HIDDEN].input;
const CELL_PACKED = d.units * (CELL_INPUT + d.units + 1u);
const CELL_TASKS = d.units * QUADS;
const H_FOURS = (d.units + 3u) / 4u * 4u;
// Words of what an environment's bodies keep.
const STATES = BODIES * STATE;

// Whose episodes ended in the last step of the block, by row.
var<workgroup> forgotten: array<u32, ROWS>;

fn h_at(turn: u32, z: u32) -> u32 {
    return KEPT_AT + (turn * BODIES + z) * H_FOURS * QUADS;
}

fn c_at(z: u32) -> u32 {
    return KEPT_AT + (2u * BODIES * H_FOURS + z * d.units) * QUADS;
}

// Which of four rows still have their states.
fn remembering(q: u32) -> vec4<bool> {
    let e = 4u * q;
    return vec4<bool>(forgotten[e] == 0u, forgotten[e + 1u] == 0u, forgotten[e + 2u] == 0u, forgotten[e + 3u] == 0u);
}

// One way through the bodies.
struct Pass {
    // where states are; where new ones go is the other turn
    turn: u32,
    // states become 0 where an episode ended
    forgets: bool,
    // the body of the actor goes ahead too
    with_actor: bool,
    // the step is taken; else it is only looked at
    acts: bool,
    // word of the environments' row where states before the step are left; only in a step that is taken, if `keeps`
    keeps: bool,
    row: u32,
    // first environment of the block
    first: u32,
}

// Leaves unit `unit` of body `z` of four environments in rows of `STATES` words from word `to` on.
fn store_state(to: u32, first: u32, q: u32, z: u32, unit: u32, state: State4) {
    for (var e = 0u; e < 4u; e++) {
        let n = first + 4u * q + e;
        if (n < d.n) {
            let at = to + n * STATES + z * STATE + unit;
            put(at, state.h[e]);
            if (d.lstm) { put(at + d.units, state.c[e]); }
        }
    }
}

// A unit's state, as the next step begins with it.
fn remembered(p: Place, way: Pass, z: u32, unit: u32, q: u32) -> State4 {
    var on = vec4<bool>(true);
    if (way.forgets) { on = remembering(q); }
    var state: State4;
    state.h = select(vec4<f32>(), acts_at(p, h_at(way.turn, z) + unit * QUADS + q), on);
    if (d.lstm) { state.c = select(vec4<f32>(), acts_at(p, c_at(z) + unit * QUADS + q), on); }
    return state;
}

// All cells; inputs from `from` on, of body 0 and 1, or what is seen.
fn cells(lane: u32, p: Place, way: Pass, inputs: vec2<u32>, weights: vec2<u32>) {
    let skipped = select(CELL_TASKS, 0u, way.with_actor);
    for (var i = lane + skipped; i < BODIES * CELL_TASKS; i += THREADS) {
        let z = i / CELL_TASKS;
        let task = i % CELL_TASKS;
        let q = task % QUADS;
        let unit = task / QUADS;
        let at = select(inputs.x, inputs.y, z == 1u);
        let weight = select(weights.x, weights.y, z == 1u) + unit;
        var sums = begin_sums(get4((weight + (CELL_INPUT + d.units) * d.units) * 4u));
        for (var k = 0u; k < CELL_INPUT; k++) {
            add_input(input_at(p, HIDDEN == 0u, at, k, q), get4((weight + k * d.units) * 4u), &sums);
        }
        var on = vec4<bool>(true);
        if (way.forgets) { on = remembering(q); }
        let h = h_at(way.turn, z) + q;
        for (var k = 0u; k < d.units; k++) {
            let x = select(vec4<f32>(), acts_at(p, h + k * QUADS), on);
            add_state(x, get4((weight + (CELL_INPUT + k) * d.units) * 4u), &sums);
        }
        let before = remembered(p, way, z, unit, q);
        if (way.keeps) { store_state(way.row, way.first, q, z, unit, before); }
        let after = open_gates(before, &sums);
        acts_put(p, h_at(1u - way.turn, z) + unit * QUADS + q, after.h);
        if (d.lstm && way.acts) { acts_put(p, c_at(z) + unit * QUADS + q, after.c); }
    }
}

// Sends what is seen from `shown` on through bodies and heads; as `ahead` in lib/net.wgsl.
fn bodies_ahead(lane: u32, p: Place, shown: u32, way: Pass) {
    var at = vec2<u32>(p.packed, p.packed + d.actor_packed);
    if (HIDDEN > 0u) { at = phase(lane, p, 0u, d.actor.layer[0], d.critic.layer[0], shown, way.with_actor, at); }
    if (HIDDEN > 1u) { at = phase(lane, p, 1u, d.actor.layer[1], d.critic.layer[1], shown, way.with_actor, at); }
    if (HIDDEN > 2u) {
        for (var l = 2u; l < HIDDEN; l++) {
            at = phase(lane, p, l, d.actor.layer[l], d.critic.layer[l], shown, way.with_actor, at);
        }
    }
    // the last hidden layer has written the buffer whose turn it was
    var inputs = vec2<u32>(shown);
    if (HIDDEN > 0u) {
        let second = vec2<u32>(d.actor_acts[0] * 4u * QUADS, ACTOR_ACTS + d.critic_acts[0] * 4u * QUADS);
        inputs = select(vec2<u32>(0u, ACTOR_ACTS), second, HIDDEN % 2u == 0u);
    }
    cells(lane, p, way, inputs, at);
    synchronize();
    at += vec2<u32>(CELL_PACKED);
    let one = Side(h_at(1u - way.turn, 0u), 0u, at.x);
    let two = Side(h_at(1u - way.turn, BODIES - 1u), 0u, at.y);
    last(lane, p, HEAD, d.actor.layer[HEAD], d.critic.layer[HEAD], false, way.with_actor, one, two);
    synchronize();
}

// Packs four number `i` of a cell whose parameters begin at word `params`.
fn pack_four(y: Layer, params: u32, i: u32) -> vec4<f32> {
    let state_weight = params + y.bias + GATE_ROWS;
    let row = i / d.units;
    let unit = i % d.units;
    if (row < CELL_INPUT) { return gates_of(params + y.weight, unit, row, CELL_INPUT); }
    if (row < CELL_INPUT + d.units) { return gates_of(state_weight, unit, row - CELL_INPUT, d.units); }
    return gate_biases(params + y.bias, state_weight + GATE_ROWS * d.units, unit);
}

// Packs the net on body `z`, whose parameters begin at word `params`, from four number `to` on; returns where it ends.
fn pack_body(lane: u32, z: u32, params: u32, to: u32) -> u32 {
    var packed = to;
    // how many layers there are is kept from the compiler, which would copy all of this for each
    for (var l = 0u; l < d.actor.layers + (sessions[0] >> 31u); l++) {
        var y = d.actor.layer[l];
        if (z == 1u) { y = d.critic.layer[l]; }
        if (l == HIDDEN) {
            for (var i = lane; i < CELL_PACKED; i += d.pack_lanes) { put4((packed + i) * 4u, pack_four(y, params, i)); }
            packed += CELL_PACKED;
        } else {
            pack(lane, d.actor.layers, y, l, params, packed);
            packed += packed_layer(y, d.actor.layers, l);
        }
    }
    return packed;
}
