// Action distributions of one row: sampling, log-probability, entropy and their slopes. Twin of src/op/lib/policy.rs.
//
// The policy is `d.policy` of the op's shape, a constant, so every choice and every loop here is unrolled.

#import lib/rng
#import lib/trig

// Words of `Outputs` and of an action; one where there is no policy, because an array cannot be empty.
const POLICY_WORDS = max(d.policy.n * (1u + d.policy.kind), 1u);
const POLICY_ACTION = max(d.policy.n * d.policy.kind, 1u);
// Outputs that the net gives; the others are parameters of their own.
const POLICY_OUTPUTS = d.policy.n * (1u + d.policy.kind * (1u - d.policy.free_std));
// Philox words that an action takes: one for each of its own, rounded up to whole blocks.
const POLICY_DRAWN = (POLICY_ACTION + 3u) / 4u * 4u;

// Logits; or means, then log standard deviations as they come from the net or from parameters of their own, not
// clamped.
alias Outputs = array<f32, POLICY_WORDS>;
alias Action = array<f32, POLICY_ACTION>;
alias Drawn = array<u32, POLICY_DRAWN>;

// Maximum of the logits, and ln(sum(exp(x - max))).
fn log_sum_exp(out: ptr<function, Outputs>) -> vec2<f32> {
    var top = (*out)[0];
    for (var j = 1u; j < d.policy.n; j++) { top = select(top, (*out)[j], (*out)[j] > top); }
    var sum = 0.0;
    for (var j = 0u; j < d.policy.n; j++) { sum += exp_of((*out)[j] - top); }
    return vec2<f32>(top, ln_of(sum));
}

// ln(1 - tanh(x)^2), stable for large |x|.
fn ln_tanh_slope(x: f32) -> f32 {
    let a = abs(x);
    return 2.0 * (0.6931472 - a - ln_of(1.0 + exp_of(-2.0 * a)));
}

fn clamped_log_std(raw: f32) -> f32 {
    return hold(raw, POLICIES_LOG_STD_LOW, POLICIES_LOG_STD_HIGH);
}

// The words of an action, from the counter (env, step, ACTION, block).
fn draw_action(env: u32, step: u32, key: vec2<u32>) -> Drawn {
    var words: Drawn;
    for (var block = 0u; block < POLICY_DRAWN / 4u; block++) {
        let drawn = philox(vec4<u32>(env, step, PURPOSE_ACTION, block), key);
        for (var w = 0u; w < 4u; w++) { words[block * 4u + w] = drawn[w]; }
    }
    return words;
}

// Samples an action (`greedy`: the most likely one) and returns its log-probability.
fn sample(
    out: ptr<function, Outputs>, words: ptr<function, Drawn>, greedy: bool, action: ptr<function, Action>
) -> f32 {
    if (d.policy.kind == POLICIES_CATEGORICAL) {
        let sums = log_sum_exp(out);
        var best = 0u;
        var chosen = (*out)[0];
        if (greedy) {
            for (var j = 1u; j < d.policy.n; j++) {
                let more = (*out)[j] > chosen;
                best = select(best, j, more);
                chosen = select(chosen, (*out)[j], more);
            }
        } else {
            // the first action whose cumulative probability passes u; the last one takes what rounding leaves
            let u = unit((*words)[0]);
            var sum = 0.0;
            for (var j = 0u; j + 1u < d.policy.n; j++) {
                sum += exp_of((*out)[j] - sums.x - sums.y);
                // cumulative probabilities only grow, so `best` grows by one at a time
                let passed = u > sum;
                best = select(best, j + 1u, passed);
                chosen = select(chosen, (*out)[j + 1u], passed);
            }
        }
        (*action)[0] = f32(best);
        return chosen - sums.x - sums.y;
    }
    var log_prob = 0.0;
    var radius = 0.0;
    var turn = vec2<f32>();
    for (var j = 0u; j < POLICY_ACTION; j++) {
        let log_std = clamped_log_std((*out)[d.policy.n + j]);
        if (j % 2u == 0u) {
            // Box and Muller 1958: two normals from two uniforms
            turn = sin_cos(unit((*words)[j + 1u]) * TAU);
            radius = sqrt(-2.0 * ln_of(unit((*words)[j])));
        }
        let z = select(radius * select(turn.x, turn.y, j % 2u == 0u), 0.0, greedy);
        (*action)[j] = fma(exp_of(log_std), z, (*out)[j]);
        log_prob += fma(-0.5 * z, z, -log_std - POLICIES_HALF_LN_2PI);
        if (d.policy.squashed != 0u) { log_prob -= ln_tanh_slope((*action)[j]); }
    }
    return log_prob;
}

// What is known of a row and its action: enough to tell every slope.
struct Judged {
    log_prob: f32,
    entropy: f32,
    top: f32,
    ln_sum: f32,
}

// Log-probability of a stored action, and the entropy.
fn judge(out: ptr<function, Outputs>, action: ptr<function, Action>) -> Judged {
    var row = Judged();
    if (d.policy.kind == POLICIES_CATEGORICAL) {
        let sums = log_sum_exp(out);
        row.top = sums.x;
        row.ln_sum = sums.y;
        for (var j = 0u; j < d.policy.n; j++) {
            let log_p = (*out)[j] - sums.x - sums.y;
            row.log_prob += select(0.0, log_p, (*action)[0] == f32(j));
            row.entropy -= exp_of(log_p) * log_p;
        }
        return row;
    }
    for (var j = 0u; j < POLICY_ACTION; j++) {
        let log_std = clamped_log_std((*out)[d.policy.n + j]);
        let z = ((*action)[j] - (*out)[j]) * exp_of(-log_std);
        row.log_prob += fma(-0.5 * z, z, -log_std - POLICIES_HALF_LN_2PI);
        row.entropy += 0.5 + POLICIES_HALF_LN_2PI + log_std;
        if (d.policy.squashed != 0u) {
            let slope = ln_tanh_slope((*action)[j]);
            row.log_prob -= slope;
            row.entropy += slope;
        }
    }
    return row;
}

// Slopes of (log-probability, entropy) with respect to word j of the outputs.
fn judge_slope(out: ptr<function, Outputs>, action: ptr<function, Action>, row: Judged, j: u32) -> vec2<f32> {
    if (d.policy.kind == POLICIES_CATEGORICAL) {
        let log_p = (*out)[j] - row.top - row.ln_sum;
        let p = exp_of(log_p);
        return vec2<f32>(select(0.0, 1.0, (*action)[0] == f32(j)) - p, p * -(log_p + row.entropy));
    }
    let word = select(j - d.policy.n, j, j < d.policy.n);
    let raw = (*out)[d.policy.n + word];
    let inv_std = exp_of(-clamped_log_std(raw));
    let z = ((*action)[word] - (*out)[word]) * inv_std;
    if (j < d.policy.n) { return vec2<f32>(z * inv_std, 0.0); }
    let inside = select(0.0, 1.0, raw > POLICIES_LOG_STD_LOW && raw < POLICIES_LOG_STD_HIGH);
    return vec2<f32>(inside * fma(z, z, -1.0), inside);
}
