// Gradient of one minibatch for any nets, layer by layer through scratch. Twin of src/op/minibatch_grad.rs.
//
// Kernels in order: gather; forward, once per hidden layer; outputs and losses; then for every layer from the last:
// gradient of its weights, and slopes at the units below it, in the place of their activations. Actor and critic are
// separate nets and run side by side (z of the grid). Blocks of 64 lanes make tiles of 64 x 64 numbers, sums over depth
// in order within a lane; the gradient's rows are cut into the tiles of `partial`, which is all that is summed later.
//
// Per row and weight 3 fused multiply-adds, read from workgroup memory at 16 words per 64 of them; activations pass
// through caches or device memory once per kernel. Bound by the f32 units and workgroup memory. Orders depend on shapes
// alone.

#import lib/activation
#import lib/core
#import lib/layers
#import lib/matrix
#import lib/minibatch

struct Launch {
    start: u32,
    minibatch: u32,
    // tiles side by side; of a gradient, tiles of all of it
    across: u32,
    // bit 0, 1: this layer of the actor, of the critic, is its last; bit 2: this launch adds up the losses of tiles
    flags: u32,
    // of a layer of the actor, then of the critic: sizes, first parameter, and words per row of scratch before what
    // `Side` calls so
    actor_input: u32,
    actor_output: u32,
    actor_weight: u32,
    actor_below: u32,
    actor_here: u32,
    actor_before: u32,
    critic_input: u32,
    critic_output: u32,
    critic_weight: u32,
    critic_below: u32,
    critic_here: u32,
    critic_before: u32,
}

// Layer of net `z` that this launch is about; where its matrices lie is told in words per row of the minibatch.
fn side_of(s: u32, z: u32) -> Side {
    let critic = z == 1u;
    var side: Side;
    side.input = select(launch.actor_input, launch.critic_input, critic);
    side.output = select(launch.actor_output, launch.critic_output, critic);
    side.weight = params_of(s) + select(launch.actor_weight, launch.critic_weight, critic);
    side.bias = side.weight + side.input * side.output;
    side.below = scratch_of(s, select(launch.actor_below, launch.critic_below, critic));
    side.here = scratch_of(s, select(launch.actor_here, launch.critic_here, critic));
    side.before = scratch_of(s, select(launch.actor_before, launch.critic_before, critic));
    side.last = (launch.flags >> z & 1u) == 1u;
    // free parameters of the policy lie behind the outputs
    side.out_row = side.output + select(0u, FREE, side.last && !critic);
    return side;
}

// First word of what lies in scratch behind `skipped` words per row.
fn scratch_of(s: u32, skipped: u32) -> u32 {
    return a.scratch.at + s * a.scratch.stride + d.len * skipped;
}

fn params_of(s: u32) -> u32 {
    return a.params.at + s * a.params.stride;
}

// Words that a lane gathers.
const GATHERED = 16u;

@compute @workgroup_size(THREADS)
fn minibatch_grad_gather(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let to = scratch_of(s, 0u);
    for (var i = 0u; i < GATHERED; i++) {
        let word = (block.x * GATHERED + i) * THREADS + lane;
        if (word < d.len * d.obs) { put(to + word, observation(s, row_of(s, word / d.obs), word % d.obs)); }
    }
}

@compute @workgroup_size(THREADS)
fn minibatch_grad_forward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    layer_forward(block.z, side_of(s, block.z), d.len, row, col, lane);
}

@compute @workgroup_size(THREADS)
fn minibatch_grad_losses(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let side = side_of(s, block.z);
    let is_critic = block.z == 1u;
    let row = block.x * SIDE;
    layer_outputs(side, d.len, row, lane);
    storageBarrier();

    // a lane per row
    if (row + lane >= d.len) { return; }
    let mine = side.here + (row + lane) * side.out_row;
    let losses = scratch_of(s, d.losses) + row + lane;
    judge_row(s, is_critic, row_of(s, row + lane), mine, side.bias, losses);
}

// Losses of a tile of rows, by one block.
fn add_losses(s: u32, tile: u32, lane: u32) {
    let row = tile * d.tile_rows;
    let end = min(row + d.tile_rows, d.len);
    for (var c = 0u; c < SUMS_LOSSES; c++) {
        let source = scratch_of(s, d.losses) + c * d.len;
        let sum = sum_of_words(source + row, source + end, lane);
        if (lane == 0u) { put(a.partial_loss.at + s * a.partial_loss.stride + tile * SUMS_LOSSES + c, sum); }
    }
}

@compute @workgroup_size(THREADS)
fn minibatch_grad_weights(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let side = side_of(s, block.z);
    let tile = block.x / launch.across;
    let place = block.x % launch.across;
    if ((launch.flags & 4u) != 0u && block.z == 0u && place == 0u) { add_losses(s, tile, lane); }
    if (side.output == 0u) { return; }
    let begin = tile * d.tile_rows;
    let grad = a.partial.at + s * a.partial.stride + tile * PARAMS + side.weight - params_of(s);
    layer_weights(side, begin, min(d.tile_rows, d.len - begin), place, grad, lane);
}

@compute @workgroup_size(THREADS)
fn minibatch_grad_backward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    layer_backward(block.z, side_of(s, block.z), d.len, row, col, lane);
}
