// The nets of an agent ahead, side by side, on the few rows of a block: a phase computes one layer of actor and critic, so
// a pass has as many barriers as the deeper net has layers. Twin of `forward` in src/op/lib/mlp.rs for few rows.
//
// Rows come in fours (`QUADS` of them), one `vec4` of activations each; lane j computes unit j for all rows, so a weight is
// read once per block, neighboring lanes read neighboring words, and every lane reads the same activation. Weights are
// packed by four inputs: hidden layers [input / 4, output] of `vec4`, then the bias; the last [output, input / 4], then the
// bias. Inputs are padded with zeros, so no loop has a rest. Sums run over inputs in order within a lane; a last layer's sum
// is cut in `d.parts` and joined in their order by who reads it.
//
// The op has `d.actor` and `d.critic`, and `d.actor_wide`, `d.critic_wide`: units of the widest hidden layer in fours;
// `d.actor_acts`, `d.critic_acts`: units of the two buffers that layers take in turns, or of the one that a single layer
// needs; `d.seen`: inputs in fours; `d.spilled`: activations are in scratch.

#import lib/activation

const QUADS = d.envs / 4u;
const ROWS = QUADS * 4u;
const LAST_OUTPUTS = d.actor_outputs + d.critic_outputs;

// Activations [net][layer in turns][quad][unit], four rows each.
var<workgroup> acts: array<vec4<f32>, select(QUADS * (d.actor_acts + d.critic_acts), 1u, d.spilled) + 1u>;
// What the nets see [which][input][row]: of this step, and of environments whose episode was cut. Lanes write single rows,
// which a vector would not keep apart.
var<workgroup> seen: array<f32, 2u * d.seen * ROWS + 1u>;
// Sums of the last layers [output][part][quad]; the critic's output is behind the actor's.
var<workgroup> sums: array<vec4<f32>, LAST_OUTPUTS * d.parts * QUADS + 1u>;

// Where a session's packed weights and a block's spilled activations begin, in fours of words.
struct Place {
    packed: u32,
    spill: u32,
}

fn fours(words: u32) -> u32 {
    return (words + 3u) / 4u;
}

// Packed words of a layer, in fours.
fn packed_layer(y: Layer) -> u32 {
    return fours(y.input) * y.output + fours(y.output);
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

// What of a net every layer's code needs: number of layers, activation, where its activations begin and how many units a
// row of four has there, and where the sums of its last layer go.
struct Part {
    layers: u32,
    kind: u32,
    acts: u32,
    wide: u32,
    sums: u32,
}

const ACTOR = Part(d.actor.layers, d.actor.activation, 0u, d.actor_wide, 0u);
const CRITIC = Part(
    d.critic.layers, d.critic.activation, QUADS * d.actor_acts, d.critic_wide, d.actor_outputs * d.parts * QUADS);

// Input `k` of four rows: of the first layer what the nets see, from `at` on, of the others activations from `at` on.
fn input_at(p: Place, first: bool, at: u32, wide: u32, k: u32, q: u32) -> vec4<f32> {
    if (first) {
        let i = at + k * ROWS + q * 4u;
        return vec4<f32>(seen[i], seen[i + 1u], seen[i + 2u], seen[i + 3u]);
    }
    return acts_at(p, at + q * wide + k);
}

fn activate4(kind: u32, x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(activate(kind, x.x), activate(kind, x.y), activate(kind, x.z), activate(kind, x.w));
}

// A hidden layer with its weights at `weights` (in fours), from `at` on into activations from `to` on.
fn hidden(lane: u32, p: Place, net: Part, y: Layer, first: bool, at: u32, weights: u32, to: u32) {
    let inputs = fours(y.input);
    for (var unit = lane; unit < y.output; unit += THREADS) {
        let bias = get_f((weights + inputs * y.output) * 4u + unit);
        var sum: array<vec4<f32>, QUADS>;
        for (var q = 0u; q < QUADS; q++) { sum[q] = vec4<f32>(bias); }
        for (var k = 0u; k < inputs; k++) {
            let w = get4((weights + k * y.output + unit) * 4u);
            for (var q = 0u; q < QUADS; q++) {
                sum[q] = fma(input_at(p, first, at, net.wide, k * 4u, q), vec4<f32>(w.x), sum[q]);
                sum[q] = fma(input_at(p, first, at, net.wide, k * 4u + 1u, q), vec4<f32>(w.y), sum[q]);
                sum[q] = fma(input_at(p, first, at, net.wide, k * 4u + 2u, q), vec4<f32>(w.z), sum[q]);
                sum[q] = fma(input_at(p, first, at, net.wide, k * 4u + 3u, q), vec4<f32>(w.w), sum[q]);
            }
        }
        for (var q = 0u; q < QUADS; q++) { acts_put(p, to + q * net.wide + unit, activate4(net.kind, sum[q])); }
    }
}

// A last layer: a lane takes a part of the inputs of four rows.
fn last(lane: u32, p: Place, net: Part, y: Layer, first: bool, at: u32, weights: u32) {
    let inputs = fours(y.input);
    for (var task = lane; task < y.output * d.parts * QUADS; task += THREADS) {
        let q = task % QUADS;
        let part = task / QUADS % d.parts;
        let output = task / (QUADS * d.parts);
        let bias = get_f((weights + inputs * y.output) * 4u + output);
        var sum = vec4<f32>(select(0.0, bias, part == 0u));
        for (var k = part; k < inputs; k += d.parts) {
            let w = get4((weights + output * inputs + k) * 4u);
            sum = fma(input_at(p, first, at, net.wide, k * 4u, q), vec4<f32>(w.x), sum);
            sum = fma(input_at(p, first, at, net.wide, k * 4u + 1u, q), vec4<f32>(w.y), sum);
            sum = fma(input_at(p, first, at, net.wide, k * 4u + 2u, q), vec4<f32>(w.z), sum);
            sum = fma(input_at(p, first, at, net.wide, k * 4u + 3u, q), vec4<f32>(w.w), sum);
        }
        sums[net.sums + task] = sum;
    }
}

// Output `i` of row `e`: the actor's, then the critic's.
fn output_at(i: u32, e: u32) -> f32 {
    var sum = sums[i * d.parts * QUADS + e / 4u][e % 4u];
    for (var part = 1u; part < d.parts; part++) { sum += sums[(i * d.parts + part) * QUADS + e / 4u][e % 4u]; }
    return sum;
}

// Layer `l` of a net, where it has one; the first reads what is seen from `shown` on.
fn layer(lane: u32, p: Place, net: Part, y: Layer, l: u32, first: bool, shown: u32, weights: u32) {
    let at = select(net.acts + ((l + 1u) & 1u) * QUADS * net.wide, shown, first);
    if (l + 1u < net.layers) {
        hidden(lane, p, net, y, first, at, weights, net.acts + (l & 1u) * QUADS * net.wide);
    } else if (l + 1u == net.layers) {
        last(lane, p, net, y, first, at, weights);
    }
}

fn synchronize() {
    workgroupBarrier();
    if (d.spilled) { storageBarrier(); }
}

// Sends what is seen from `shown` on through both nets, or through the critic alone where it is a net of its own. All lanes
// of the block call this together; the caller synchronizes before, the sums are visible to the block after.
fn ahead(lane: u32, p: Place, shown: u32, with_actor: bool) {
    var actor = p.packed;
    var critic = p.packed + d.actor_packed;
    if (with_actor) { layer(lane, p, ACTOR, d.actor.layer[0], 0u, true, shown, actor); }
    layer(lane, p, CRITIC, d.critic.layer[0], 0u, true, shown, critic);
    synchronize();
    for (var l = 1u; l < max(d.actor.layers, d.critic.layers); l++) {
        actor += packed_layer(d.actor.layer[l - 1u]);
        critic += packed_layer(d.critic.layer[l - 1u]);
        if (with_actor) { layer(lane, p, ACTOR, d.actor.layer[l], l, false, shown, actor); }
        layer(lane, p, CRITIC, d.critic.layer[l], l, false, shown, critic);
        synchronize();
    }
}

// Packs a net from its parameters at word `params`; `lane` counts `lanes` lanes from 0.
fn pack(lane: u32, lanes: u32, net: Part, y: Layer, l: u32, params: u32, packed: u32) {
    let hidden = l + 1u < net.layers;
    let inputs = fours(y.input);
    for (var i = lane; i < inputs * y.output; i += lanes) {
        // hidden: [input / 4, output], from [input, output]; last: [output, input / 4], from [output, input]
        let k = select(i % inputs, i / y.output, hidden) * 4u;
        let unit = select(i / inputs, i % y.output, hidden);
        let step = select(1u, y.output, hidden);
        let from_word = params + y.weight + select(unit * y.input + k, k * y.output + unit, hidden);
        var w = vec4<f32>();
        for (var j = 0u; j < 4u; j++) {
            if (k + j < y.input) { w[j] = get_f(from_word + j * step); }
        }
        put4((packed + i) * 4u, w);
    }
    for (var i = lane; i < fours(y.output); i += lanes) {
        var bias = vec4<f32>();
        for (var j = 0u; j < 4u; j++) {
            if (i * 4u + j < y.output) { bias[j] = get_f(params + y.bias + i * 4u + j); }
        }
        put4((packed + inputs * y.output + i) * 4u, bias);
    }
}
