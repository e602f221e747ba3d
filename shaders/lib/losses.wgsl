// Losses of one row of a minibatch and their slopes at the nets' outputs. Twin of `losses` and `value_loss` in
// src/op/minibatch_grad.rs. One lane holds one row; which losses there are is constant.

#import lib/distance
#import lib/policy
#import lib/trig

// The numbers of a session that a loss needs.
struct Numbers {
    clip_eps: f32,
    entropy_coef: f32,
    policy_coef: f32,
    value_coef: f32,
    // 1 / deviation of the targets
    target_scale: f32,
    mean: f32,
    scale: f32,
    // 1 / rows of the minibatch
    inv_len: f32,
}

// Losses so far of one lane, in the columns of `partial_loss`.
alias LossSums = array<f32, SUMS_LOSSES>;

// The policy's part: adds to the sums; `slopes` gets the slopes at the policy's outputs.
fn policy_losses(n: Numbers, out: ptr<function, Outputs>, action: ptr<function, Action>, old_log_prob: f32,
                 raw_advantage: f32, slopes: ptr<function, Outputs>, sums: ptr<function, LossSums>) {
    let row = judge(out, action);
    let advantage = (raw_advantage - n.mean) * n.scale;
    let raw = row.log_prob - old_log_prob;
    let log_ratio = hold(raw, -POLICIES_LOG_RATIO, POLICIES_LOG_RATIO);
    let ratio = exp_of(log_ratio);
    var loss = -row.log_prob * advantage;
    var slope_log_prob = -advantage;
    if (d.clipped) {
        let free = ratio * advantage;
        let held = hold(ratio, 1.0 - n.clip_eps, 1.0 + n.clip_eps) * advantage;
        loss = -select(held, free, free < held);
        slope_log_prob = select(0.0, -free, free <= held && abs(raw) < POLICIES_LOG_RATIO);
        (*sums)[SUMS_CLIP_FRAC] += select(0.0, 1.0, abs(ratio - 1.0) > n.clip_eps);
    }
    (*sums)[SUMS_POLICY] += loss;
    (*sums)[SUMS_ENTROPY] += row.entropy;
    (*sums)[SUMS_KL] += ratio - 1.0 - log_ratio;
    let d_log_prob = n.policy_coef * slope_log_prob * n.inv_len;
    let bonus = n.entropy_coef * n.inv_len;
    for (var j = 0u; j < POLICY_WORDS; j++) {
        let slope_pair = judge_slope(out, action, row, j);
        (*slopes)[j] = d_log_prob * slope_pair.x - bonus * slope_pair.y;
    }
}

// How far a value is from its target, and the slope of that.
fn value_distance(n: Numbers, value: f32, target_value: f32) -> vec2<f32> {
    let scaled = value * n.target_scale;
    var e = scaled - target_value;
    var of_value = n.target_scale;
    if (d.symlog) {
        e = symlog(scaled) - symlog(target_value);
        of_value = n.target_scale / (1.0 + abs(scaled));
    }
    if (d.one_sided) { e = min(e, 0.0); }
    let far = distance_of(e);
    return vec2<f32>(far.x, far.y * of_value);
}

// The value's part: adds to the sums and returns the slope at the value.
fn value_loss(n: Numbers, value: f32, old_value: f32, returns: f32, sums: ptr<function, LossSums>) -> f32 {
    var goal = returns;
    if (d.normalize_targets) { goal = hold(returns * n.target_scale, -LOSSES_TARGET_MAX, LOSSES_TARGET_MAX); }
    var now = value_distance(n, value, goal);
    if (d.clip_value) {
        let held_value = hold(value, old_value - n.clip_eps, old_value + n.clip_eps);
        let held = value_distance(n, held_value, goal);
        let keep = now.x >= held.x || held_value == value;
        now = 0.5 * vec2<f32>(select(held.x, now.x, keep), select(0.0, now.y, keep));
    }
    (*sums)[SUMS_VALUE] += now.x;
    return n.value_coef * now.y * n.inv_len;
}
