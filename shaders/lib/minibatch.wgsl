// What the kernels of minibatch_grad share: their parameters, what a block works for, and the numbers of a row.

#import lib/activation
#import lib/core
#import lib/losses
#import lib/trig

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

// Parameters of the policy behind the actor's net, of the actor, and of both nets.
const FREE = d.policy.n * d.policy.free_std;
const ACTOR_PARAMS = d.actor.params + FREE;
const PARAMS = ACTOR_PARAMS + d.critic.params;
const SEPARATE = d.critic.layers > 0u;
const ACTOR_OUTPUTS = d.actor.layer[d.actor.layers - 1u].output;
// Whether the actor's net gives the value, behind the policy's outputs.
const SHARED_VALUE = !SEPARATE && ACTOR_OUTPUTS > POLICY_OUTPUTS;

// Whether a block, which works for the critic or for the actor, has that column of `partial_loss`: all are the actor's,
// but for the value's where the critic is a net of its own.
fn owns(is_critic: bool, column: u32) -> bool {
    return is_critic == (SEPARATE && column == SUMS_VALUE);
}

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

fn numbers_of(s: u32) -> Numbers {
    let hyper = a.hyper.at + s * a.hyper.stride;
    let schedule = a.schedule.at + s * a.schedule.stride;
    let moments = a.moments.at + s * a.moments.stride + 2u * launch.minibatch;
    var n: Numbers;
    n.clip_eps = get_f(schedule + SCHEDULED_CLIP_EPS);
    n.entropy_coef = get_f(schedule + SCHEDULED_ENTROPY_COEF);
    n.policy_coef = get_f(hyper + HYPER_POLICY_LOSS_COEF);
    n.value_coef = get_f(hyper + HYPER_VAL_LOSS_COEF);
    n.target_scale = 1.0;
    let value_moments = a.value_moments.at + s * a.value_moments.stride;
    if (d.normalize_targets) { n.target_scale = get_f(value_moments + MOMENTS_SCALE); }
    n.mean = get_f(moments);
    n.scale = get_f(moments + 1u);
    n.inv_len = 1.0 / f32(d.len);
    return n;
}

// The rollout's row that is row `i` of the minibatch.
fn row_of(s: u32, i: u32) -> u32 {
    return get_u(a.index.at + s * a.index.stride + launch.start + i);
}

// Word `o` of row `m`'s observation, normalized where asked.
fn observation(s: u32, m: u32, o: u32) -> f32 {
    let x = get_f(a.obs.at + s * a.obs.stride + m * d.obs + o);
    if (!d.normalize_obs) { return x; }
    let normalizer = a.normalizer.at + s * a.normalizer.stride + o;
    let hyper = a.hyper.at + s * a.hyper.stride;
    return hold((x - get_f(normalizer)) * get_f(normalizer + d.obs), get_f(hyper + HYPER_OBS_CLIP_LOW),
                get_f(hyper + HYPER_OBS_CLIP_HIGH));
}

// The parameters of the policy behind the outputs of the net.
fn load_free(s: u32, out: ptr<function, Outputs>) {
    for (var j = 0u; j < FREE; j++) {
        (*out)[d.policy.n + j] = get_f(a.params.at + s * a.params.stride + d.actor.params + j);
    }
}

// Losses of the policy on row `m` of the rollout, and their slopes at `out`.
fn actor_row(s: u32, m: u32, n: Numbers, out: ptr<function, Outputs>, slopes: ptr<function, Outputs>,
             sums: ptr<function, LossSums>) {
    var action: Action;
    for (var j = 0u; j < POLICY_ACTION; j++) {
        action[j] = get_f(a.action.at + s * a.action.stride + m * POLICY_ACTION + j);
    }
    policy_losses(n, out, &action, get_f(a.log_prob.at + s * a.log_prob.stride + m),
                  get_f(a.advantage.at + s * a.advantage.stride + m), slopes, sums);
}

// Loss of the value of row `m` of the rollout; its slope.
fn value_row(s: u32, m: u32, n: Numbers, value: f32, sums: ptr<function, LossSums>) -> f32 {
    return value_loss(n, value, get_f(a.value.at + s * a.value.stride + m),
                      get_f(a.returns.at + s * a.returns.stride + m), sums);
}

// Where word `j` of the policy's outputs and its slope lie in a row of the actor: outputs of the net, the value among
// them, then free parameters.
fn place(j: u32) -> u32 {
    return select(ACTOR_OUTPUTS + j - POLICY_OUTPUTS, j, j < POLICY_OUTPUTS);
}
