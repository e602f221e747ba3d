// CrossQ's critics in evaluation mode: scale, shift and running moments of every hidden unit folded into weights and
// biases. Twin of src/op/fold.rs.
//
// A lane per parameter of a plain critic, the two critics side by side (z of the grid): 4 words read, one written, a
// root and a division each; bound by the launch. No sum, so no order.

#import lib/core
#import lib/renorm

struct Shape {
    // where the first critic begins
    first: u32,
    // the normalized net, and the same net with the offsets of a plain one
    critic: Net,
    plain: Net,
    // hidden units of a critic
    units: u32,
    eps: f32,
}

struct Args {
    params: ReadF,   // [P]
    norm: ReadF,     // [2, norms]
    target_: WriteF, // [2, plain]
    scratch: UpdateF,
}

@compute @workgroup_size(THREADS)
fn fold(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let p = block.x * THREADS + lane;
    if (p >= d.plain.params) { return; }
    var layers = d.plain.layer;
    var normalized = d.critic.layer;
    var l = 0u;
    var unit = 0u;
    for (var next = 1u; next < d.plain.layers; next++) {
        if (p >= layers[next].weight) {
            l = next;
            unit += layers[next - 1u].output;
        }
    }
    let from_ = normalized[l];
    let to = layers[l];
    let params = a.params.at + s * a.params.stride + d.first + block.z * d.critic.params;
    let norm = a.norm.at + s * a.norm.stride + block.z * 2u * d.units + unit;
    let is_bias = p >= to.bias;
    let i = p - select(to.weight, to.bias, is_bias);
    let o = select(i % to.output, i, is_bias);
    var x = get_f(params + select(from_.weight, from_.bias, is_bias) + i);
    if (l + 1u < d.plain.layers) {
        let scale = get_f(params + scale_of(from_.bias, from_.output) + o);
        let factor = scale / sqrt(get_f(norm + d.units + o) + d.eps);
        if (is_bias) {
            x = (x - get_f(norm + o)) * factor + get_f(params + shift_of(from_.bias, from_.output) + o);
        } else {
            x *= factor;
        }
    }
    put(a.target_.at + s * a.target_.stride + block.z * d.plain.params + p, x);
}
