// The nets of an agent ahead, side by side, on the few rows of a block: a phase computes one layer of actor and critic,
// so a pass has as many barriers as the deeper net has layers. Twin of `forward` in src/op/lib/mlp.rs for few rows.
//
// Rows come in fours, one `vec4` of activations each. A lane takes four units of a hidden layer for four rows, so that
// two reads feed 16 multiply-adds; neighboring lanes have neighboring rows, then neighboring units. Weights are packed:
// hidden layers [input, unit] of `vec4`, which holds the units u, u + U, u + 2 U, u + 3 U where U is a fourth of the
// layer, rounded up; the last layer [output, input / 4]; biases behind. What pads is zero, so no loop has a rest. Sums
// run over inputs in order within a lane; a last layer's sum is cut in `d.parts`, joined in their order by who reads
// it.
//
// The op has `d.actor` and `d.critic`; `d.actor_acts`, `d.critic_acts`: fours of units in the first and the second of
// the buffers that hidden layers take in turns; `d.kept`: activations that the op keeps behind those;
// `d.seen`: inputs, rounded up to fours; `d.spilled`: activations are in scratch.

#import lib/activation

const QUADS = d.envs / 4u;
const ROWS = QUADS * 4u;
const LAST_OUTPUTS = d.actor_outputs + d.critic_outputs;
// Activations of a net and of both, in `vec4`s, and where the second buffer of a net begins.
const ACTOR_ACTS = (d.actor_acts[0] + d.actor_acts[1]) * 4u * QUADS;
const CRITIC_ACTS = (d.critic_acts[0] + d.critic_acts[1]) * 4u * QUADS;
// What stays from step to step lies behind them.
const KEPT_AT = ACTOR_ACTS + CRITIC_ACTS;
const ACTS = KEPT_AT + d.kept * QUADS;

// Activations [net][layer in turns][unit][quad], four rows each.
var<workgroup> acts: array<vec4<f32>, max(select(ACTS, 0u, d.spilled), 1u)>;
// What the nets see [which][input][row]: of this step, and of environments whose episode was cut. Lanes write single
// rows, which a vector would not keep apart.
var<workgroup> seen: array<f32, 2u * d.seen * ROWS>;
// Sums of the last layers [output][part][quad]; the critic's output is behind the actor's.
var<workgroup> sums: array<vec4<f32>, max(LAST_OUTPUTS * d.parts * QUADS, 1u)>;

// Where a session's packed weights and a block's spilled activations begin, in fours of words.
struct Place {
    packed: u32,
    spill: u32,
}

fn fours(words: u32) -> u32 {
    return (words + 3u) / 4u;
}

// Packed words of a layer, in fours.
fn packed_layer(y: Layer, layers: u32, l: u32) -> u32 {
    let words = select(fours(y.input) * y.output, fours(y.output) * y.input, l + 1u < layers);
    return select(0u, words + fours(y.output), l < layers);
}

fn acts_at(p: Place, i: u32) -> vec4<f32> {
    if (d.spilled) { return get4((p.spill + i) * 4u); }
    return acts[i];
}

fn acts_put(p: Place, i: u32, x: vec4<f32>) {
    if (d.spilled) {
        put4((p.spill + i) * 4u, x);
    } else {
        acts[i] = x;
    }
}

// Input `k` of four rows: of the first layer what the nets see, from `at` on, of the others activations from `at` on.
fn input_at(p: Place, first: bool, at: u32, k: u32, q: u32) -> vec4<f32> {
    if (first) {
        let i = at + k * ROWS + q * 4u;
        return vec4<f32>(seen[i], seen[i + 1u], seen[i + 2u], seen[i + 3u]);
    }
    return acts_at(p, at + k * QUADS + q);
}

// The activation of the critic; of the actor where there is none, so that equal ones are one constant.
const CRITIC_ACTIVATION = select(d.critic.activation, d.actor.activation, d.critic.layers == 0u);

// What a layer of one net or the other reads and writes: activations from `at` to `to`, weights.
struct Side {
    at: u32,
    to: u32,
    weights: u32,
}

// Layer `l` of the nets for which it is a hidden one.
fn hidden(
    lane: u32, p: Place, l: u32, actor: Layer, critic: Layer, first: bool, with_actor: bool, one: Side, two: Side
) {
    let tasks_one = select(0u, fours(actor.output) * QUADS, l + 1u < d.actor.layers);
    let tasks_two = select(0u, fours(critic.output) * QUADS, l + 1u < d.critic.layers);
    let skipped = select(tasks_one, 0u, with_actor);
    for (var i = lane + skipped; i < tasks_one + tasks_two; i += THREADS) {
        let other = i >= tasks_one;
        let task = select(i, i - tasks_one, other);
        let q = task % QUADS;
        let unit = task / QUADS;
        let inputs = select(actor.input, critic.input, other);
        let wide = select(fours(actor.output), fours(critic.output), other);
        let weights = select(one.weights, two.weights, other) + unit;
        let at = select(one.at, two.at, other);
        let to = select(one.to, two.to, other) + unit * QUADS + q;
        let bias = get4((weights + inputs * wide) * 4u);
        var sum = array<vec4<f32>, 4>(
            vec4<f32>(bias.x), vec4<f32>(bias.y), vec4<f32>(bias.z), vec4<f32>(bias.w));
        for (var k = 0u; k < inputs; k++) {
            let w = get4((weights + k * wide) * 4u);
            let x = input_at(p, first, at, k, q);
            sum[0] = fma(x, vec4<f32>(w.x), sum[0]);
            sum[1] = fma(x, vec4<f32>(w.y), sum[1]);
            sum[2] = fma(x, vec4<f32>(w.z), sum[2]);
            sum[3] = fma(x, vec4<f32>(w.w), sum[3]);
        }
        let kind = select(d.actor.activation, CRITIC_ACTIVATION, other);
        for (var j = 0u; j < 4u; j++) {
            let x = sum[j];
            let y = vec4<f32>(activate(kind, x.x), activate(kind, x.y), activate(kind, x.z), activate(kind, x.w));
            acts_put(p, to + j * wide * QUADS, y);
        }
    }
}

// Layer `l` of the nets whose last it is: a lane takes a part of the inputs of four rows of an output.
fn last(
    lane: u32, p: Place, l: u32, actor: Layer, critic: Layer, first: bool, with_actor: bool, one: Side, two: Side
) {
    let pieces = d.parts * QUADS;
    let tasks_one = select(0u, actor.output * pieces, l + 1u == d.actor.layers);
    let tasks_two = select(0u, critic.output * pieces, l + 1u == d.critic.layers);
    let skipped = select(tasks_one, 0u, with_actor);
    for (var i = lane + skipped; i < tasks_one + tasks_two; i += THREADS) {
        let other = i >= tasks_one;
        let task = select(i, i - tasks_one, other);
        let q = task % QUADS;
        let part = task / QUADS % d.parts;
        let output = task / pieces;
        let inputs = fours(select(actor.input, critic.input, other));
        let outputs = select(actor.output, critic.output, other);
        let weights = select(one.weights, two.weights, other);
        let at = select(one.at, two.at, other);
        let bias = get_f((weights + inputs * outputs) * 4u + output);
        var sum = vec4<f32>(select(0.0, bias, part == 0u));
        for (var k = part; k < inputs; k += d.parts) {
            let w = get4((weights + output * inputs + k) * 4u);
            sum = fma(input_at(p, first, at, k * 4u, q), vec4<f32>(w.x), sum);
            sum = fma(input_at(p, first, at, k * 4u + 1u, q), vec4<f32>(w.y), sum);
            sum = fma(input_at(p, first, at, k * 4u + 2u, q), vec4<f32>(w.z), sum);
            sum = fma(input_at(p, first, at, k * 4u + 3u, q), vec4<f32>(w.w), sum);
        }
        sums[select(task, d.actor_outputs * pieces + task, other)] = sum;
    }
}

// Output `i` of row `e`: the actor's, then the critic's.
fn output_at(i: u32, e: u32) -> f32 {
    var sum = sums[i * d.parts * QUADS + e / 4u][e % 4u];
    for (var part = 1u; part < d.parts; part++) { sum += sums[(i * d.parts + part) * QUADS + e / 4u][e % 4u]; }
    return sum;
}

fn synchronize() {
    workgroupBarrier();
    if (d.spilled) { storageBarrier(); }
}

// Layers of the deeper net.
const DEPTH = max(d.actor.layers, d.critic.layers);

// Layer `l` of both nets, with their weights at `weights`; the first reads what is seen from `shown` on. Returns the
// weights of the next layer.
fn phase(
    lane: u32, p: Place, l: u32, actor: Layer, critic: Layer, shown: u32, with_actor: bool, weights: vec2<u32>
) -> vec2<u32> {
    let first = l == 0u;
    let odd = (l & 1u) == 1u;
    // buffers in turns: even layers write the first one
    let actor_second = d.actor_acts[0] * 4u * QUADS;
    let critic_second = ACTOR_ACTS + d.critic_acts[0] * 4u * QUADS;
    let actor_at = select(select(actor_second, 0u, odd), shown, first);
    let critic_at = select(select(critic_second, ACTOR_ACTS, odd), shown, first);
    let one = Side(actor_at, select(0u, actor_second, odd), weights.x);
    let two = Side(critic_at, select(ACTOR_ACTS, critic_second, odd), weights.y);
    hidden(lane, p, l, actor, critic, first, with_actor, one, two);
    last(lane, p, l, actor, critic, first, with_actor, one, two);
    synchronize();
    return weights + vec2<u32>(packed_layer(actor, d.actor.layers, l), packed_layer(critic, d.critic.layers, l));
}

// Sends what is seen from `shown` on through both nets, or through the critic alone where it is a net of its own. All
// lanes of the block call this together; the caller synchronizes before, the sums are visible to the block after.
fn ahead(lane: u32, p: Place, shown: u32, with_actor: bool) {
    var at = vec2<u32>(p.packed, p.packed + d.actor_packed);
    // the layers of usual nets one by one, so that their sizes are constants
    at = phase(lane, p, 0u, d.actor.layer[0], d.critic.layer[0], shown, with_actor, at);
    if (DEPTH > 1u) { at = phase(lane, p, 1u, d.actor.layer[1], d.critic.layer[1], shown, with_actor, at); }
    if (DEPTH > 2u) { at = phase(lane, p, 2u, d.actor.layer[2], d.critic.layer[2], shown, with_actor, at); }
    if (DEPTH > 3u) {
        for (var l = 3u; l < DEPTH; l++) {
            at = phase(lane, p, l, d.actor.layer[l], d.critic.layer[l], shown, with_actor, at);
        }
    }
}

// Packs layer `l` of a net of that many layers from its parameters at word `params`; `lane` counts `d.pack_lanes`
// lanes.
fn pack(lane: u32, layers: u32, y: Layer, l: u32, params: u32, packed: u32) {
    let between = l + 1u < layers;
    let wide = fours(y.output);
    let inputs = fours(y.input);
    let words = packed_layer(y, layers, l) - wide;
    for (var i = lane; i < words + wide; i += d.pack_lanes) {
        // hidden: four units of an input, or of the bias; last: four inputs of an output, or four outputs of the bias
        let bias = i >= words;
        let at = select(i, i - words, bias);
        let row = select(at / inputs, at / wide, between);
        let unit = at % wide;
        let input = at % inputs * 4u;
        var w = vec4<f32>();
        for (var j = 0u; j < 4u; j++) {
            let mine = select(select(row, at * 4u + j, bias), unit + j * wide, between);
            let k = select(input + j, row, between);
            if (mine < y.output && (bias || k < y.input)) {
                let weight = y.weight + select(mine * y.input + k, k * y.output + mine, between);
                w[j] = get_f(params + select(weight, y.bias + mine, bias));
            }
        }
        put4((packed + i) * 4u, w);
    }
}
