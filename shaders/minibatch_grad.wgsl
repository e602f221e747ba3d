// Gradient of one minibatch: gather, forward, losses, backward. Twin of src/op/minibatch_grad.rs.
//
// WAY is `minibatch_grad_fused` where the nets' hidden layers fit workgroup memory, and `minibatch_grad_layered`, which
// has all other nets, layer by layer.

#import lib/activation
#import lib/core
#import lib/minibatch
#import WAY

struct Shape {
    actor: Net,
    critic: Net,
    policy: Policy,
    obs: u32,
    len: u32,
    tile_rows: u32,
    clipped: bool,
    distance: u32,
    beta: f32,
    clip_value: bool,
    symlog: bool,
    normalize_targets: bool,
    one_sided: bool,
    normalize_obs: bool,
    // of the fused kernel: rows of a weight that it has in workgroup memory
    weight_rows: u32,
    // of the others: words per row of scratch before the losses, [LOSSES, len]
    losses: u32,
}

struct Args {
    index: ReadU,          // [epochs * M]
    moments: ReadF,        // [epochs * minibatches, 2]
    obs: ReadF,            // [M, O]
    normalizer: ReadF,     // [2, O]
    action: ReadF,         // [M, A]
    log_prob: ReadF,       // [M]
    value: ReadF,          // [M + N]
    advantage: ReadF,      // [M]
    returns: ReadF,        // [M]
    value_moments: ReadF,  // [4]
    hyper: ReadF,          // [LEN + groups * GROUP_LEN]
    schedule: ReadF,       // [LEN + groups]
    params: ReadF,         // [P]
    partial: WriteF,       // [tiles, P]
    partial_loss: WriteF,  // [tiles, LOSSES]
    scratch: UpdateF,
}

// Parameters of the actor, and of both nets.
const ACTOR_PARAMS = d.actor.params + FREE;
const PARAMS = ACTOR_PARAMS + d.critic.params;

// Both nets have one activation function as a rule: then the choice is a constant.
const ONE_ACTIVATION = !SEPARATE || d.actor.activation == d.critic.activation;

fn activation_of(z: u32) -> u32 {
    if (ONE_ACTIVATION || z == 0u) { return d.actor.activation; }
    return d.critic.activation;
}

fn unit_of(z: u32, x: f32) -> f32 {
    if (ONE_ACTIVATION) { return activate(d.actor.activation, x); }
    if (z == 0u) { return activate(d.actor.activation, x); }
    return activate(d.critic.activation, x);
}

fn unit_slope(z: u32, y: f32) -> f32 {
    if (ONE_ACTIVATION) { return slope(d.actor.activation, y); }
    if (z == 0u) { return slope(d.actor.activation, y); }
    return slope(d.critic.activation, y);
}

// The rollout's row that is row `i` of the minibatch.
fn row_of(s: u32, i: u32) -> u32 {
    return get_u(a.index.at + s * a.index.stride + launch.start + i);
}
