// What the kernels of minibatch_grad and sequence_grad share: the numbers of a minibatch and its losses. The op has in
// its shape `actor` and `critic`, nets that end in the policy's outputs and the value.

#import lib/core
#import lib/losses
#import lib/seen
#import lib/trig

// Parameters of the policy behind the actor's net.
const FREE = d.policy.n * d.policy.free_std;
const SEPARATE = d.critic.layers > 0u;
const ACTOR_OUTPUTS = d.actor.layer[d.actor.layers - 1u].output;
// Whether the actor's net gives the value, behind the policy's outputs.
const SHARED_VALUE = !SEPARATE && ACTOR_OUTPUTS > POLICY_OUTPUTS;

// Whether a block, which works for the critic or for the actor, has that column of `partial_loss`: all are the actor's,
// but for the value's where the critic is a net of its own.
fn owns(is_critic: bool, column: u32) -> bool {
    return is_critic == (SEPARATE && column == SUMS_VALUE);
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

// Word `o` of row `m`'s observation, normalized where asked.
fn observation(s: u32, m: u32, o: u32) -> f32 {
    let x = get_f(a.obs.at + s * a.obs.stride + m * d.obs + o);
    return seen_of(s, x, o, d.obs);
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

// Losses of row `m` of the rollout, whose outputs without their bias lie from word `mine` on, and become their slopes.
// The bias lies from word `bias` on; the losses go to columns `d.len` words apart, the first one at word `losses_at`.
fn judge_row(s: u32, is_critic: bool, m: u32, mine: u32, bias: u32, losses_at: u32) {
    let n = numbers_of(s);
    var losses = LossSums();
    if (is_critic) {
        put(mine, value_row(s, m, n, get_f(mine) + get_f(bias), &losses));
    } else {
        var out: Outputs;
        var slopes: Outputs;
        for (var j = 0u; j < POLICY_OUTPUTS; j++) { out[j] = get_f(mine + j) + get_f(bias + j); }
        load_free(s, &out);
        actor_row(s, m, n, &out, &slopes, &losses);
        if (SHARED_VALUE) {
            let value = get_f(mine + POLICY_OUTPUTS) + get_f(bias + POLICY_OUTPUTS);
            put(mine + POLICY_OUTPUTS, value_row(s, m, n, value, &losses));
        }
        for (var j = 0u; j < POLICY_WORDS; j++) { put(mine + place(j), slopes[j]); }
    }
    for (var c = 0u; c < SUMS_LOSSES; c++) {
        if (owns(is_critic, c)) { put(losses_at + c * d.len, losses[c]); }
    }
}
