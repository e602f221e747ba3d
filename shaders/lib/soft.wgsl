// What the ops of Soft Actor-Critic share: the actor and two critics ahead and back, layer by layer through scratch,
// and samples that gradients go through, of a squashed Gaussian or of a Gumbel-softmax. Twin of src/op/lib/soft.rs.
//
// The op has `d.actor`, `d.critic`, `d.policy`, `d.batch`, `d.learned`, `d.normalize_obs`, and where its matrices begin
// in scratch, in words per row: first what the actor sees, then what critics see (`d.critic_inputs` kinds of it), then
// `d.actor_at` and `d.critics_at`: the layers of the actor and of each critic, `d.critic_words` apart; `d.actor_before`
// and `d.critics_before`: units before the activation. `critic_params(s, z)`: where the parameters of critic `z` begin.
// `d.joint`: critics see rows and their successors as one batch, and keep sums of hidden units, which the op normalizes
// and activates; their words per row are of both.

#import lib/activation
#import lib/core
#import lib/layers
#import lib/matrix
#import lib/policy
#import lib/rng
#import lib/seen
#import lib/trig

struct Launch {
    // the first of this batch among the rows that were drawn
    start: u32,
    // tiles side by side; of a gradient, tiles of all of it
    across: u32,
    // bit 0: this is the last layer; bit 1: this launch adds up the losses of tiles; bit 2: the layer is the actor's
    flags: u32,
    // of a layer: sizes, and its first parameter
    input: u32,
    output: u32,
    weight: u32,
    // words per row of scratch: of the layers before the one below and before this one, of units before the activation
    below: u32,
    here: u32,
    before: u32,
}

const OBS = d.actor.layer[0].input;
// Words that a critic sees: an observation, with the action behind it where one is sampled.
const WIDTH = d.critic.layer[0].input;
const DISCRETE = d.policy.kind == POLICIES_CATEGORICAL;
// Whether critics value every action, so that expectations are exact; otherwise discrete ones are one-hot vectors.
const VALUES_ALL = DISCRETE && WIDTH == OBS;
// Words of an action that critics see; one where they see none, because an array cannot be empty.
const SEEN = max(WIDTH - OBS, 1u);
const ACTOR_OUTPUT = d.actor.layer[d.actor.layers - 1u];
const CRITIC_OUTPUT = d.critic.layer[d.critic.layers - 1u];

// Both nets have one activation function as a rule: then the choice is a constant.
const ONE_ACTIVATION = d.actor.activation == d.critic.activation;

fn is_of_actor() -> bool {
    return (launch.flags & 4u) != 0u;
}

fn activation_of(z: u32) -> u32 {
    if (ONE_ACTIVATION || is_of_actor()) { return d.actor.activation; }
    return d.critic.activation;
}

fn unit_of(z: u32, x: f32) -> f32 {
    if (d.joint && !is_of_actor()) { return x; }
    if (ONE_ACTIVATION) { return activate(d.actor.activation, x); }
    if (is_of_actor()) { return activate(d.actor.activation, x); }
    return activate(d.critic.activation, x);
}

fn unit_slope(z: u32, y: f32) -> f32 {
    if (ONE_ACTIVATION) { return slope(d.actor.activation, y); }
    if (is_of_actor()) { return slope(d.actor.activation, y); }
    return slope(d.critic.activation, y);
}

// First word of what lies in scratch behind `skipped` words per row.
fn scratch_of(s: u32, skipped: u32) -> u32 {
    return a.scratch.at + s * a.scratch.stride + d.batch * skipped;
}

fn params_of(s: u32) -> u32 {
    return a.params.at + s * a.params.stride;
}

// Rows of a net's batch.
fn rows_of_net() -> u32 {
    return select(d.batch, 2u * d.batch, d.joint && !is_of_actor());
}

// What critic `z` sees: every two of them see the same.
fn critic_input(s: u32, z: u32) -> u32 {
    return scratch_of(s, OBS + z / 2u * WIDTH);
}

// The layer that this launch is about, of the actor or of critic `z`.
fn side_of(s: u32, z: u32) -> Side {
    var side: Side;
    side.input = launch.input;
    side.output = launch.output;
    // the first layer reads what its net sees
    let first = launch.weight == 0u;
    if (is_of_actor()) {
        side.weight = params_of(s) + launch.weight;
        side.below = scratch_of(s, select(d.actor_at + launch.below, 0u, first));
        side.here = scratch_of(s, d.actor_at + launch.here);
        side.before = scratch_of(s, d.actor_before + launch.before);
    } else {
        let layers = d.critics_at + z * d.critic_words;
        side.weight = critic_params(s, z) + launch.weight;
        side.below = select(scratch_of(s, layers + launch.below), critic_input(s, z), first);
        side.here = scratch_of(s, layers + launch.here);
        side.before = scratch_of(s, d.critics_before + z * d.critic_words + launch.before);
    }
    side.bias = side.weight + side.input * side.output;
    side.last = (launch.flags & 1u) == 1u;
    side.out_row = side.output;
    side.centred = d.joint && !is_of_actor() && !side.last;
    return side;
}

@compute @workgroup_size(THREADS)
fn soft_forward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    layer_forward(block.z, side_of(s, block.z), rows_of_net(), row, col, lane);
}

@compute @workgroup_size(THREADS)
fn soft_outputs(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    layer_outputs(side_of(s, block.z), rows_of_net(), block.x * SIDE, lane);
}

@compute @workgroup_size(THREADS)
fn soft_backward(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    let row = block.x / launch.across * SIDE;
    let col = block.x % launch.across * SIDE;
    layer_backward(block.z, side_of(s, block.z), rows_of_net(), row, col, lane);
}

// Where the outputs of a row, or their slopes, begin.
fn actor_outputs(s: u32, row: u32) -> u32 {
    return scratch_of(s, d.actor_at + d.actor_words - ACTOR_OUTPUT.output) + row * ACTOR_OUTPUT.output;
}

fn critic_outputs(s: u32, z: u32, row: u32) -> u32 {
    let words = CRITIC_OUTPUT.output * select(1u, 2u, d.joint);
    let skipped = d.critics_at + (z + 1u) * d.critic_words - words;
    return scratch_of(s, skipped) + row * CRITIC_OUTPUT.output;
}

// The actor's outputs of a row, with their bias.
fn load_actor(s: u32, row: u32, out: ptr<function, Outputs>) {
    let here = actor_outputs(s, row);
    let bias = params_of(s) + ACTOR_OUTPUT.bias;
    for (var j = 0u; j < POLICY_WORDS; j++) { (*out)[j] = get_f(here + j) + get_f(bias + j); }
}

// Value `j` that critic `z` gives a row.
fn value_of(s: u32, z: u32, row: u32, j: u32) -> f32 {
    return get_f(critic_outputs(s, z, row) + j) + get_f(critic_params(s, z) + CRITIC_OUTPUT.bias + j);
}

// Word `o` of row `m` of observations that begin at `obs`, normalized where asked.
fn seen_word(s: u32, obs: u32, m: u32, o: u32) -> f32 {
    return seen_of(s, get_f(obs + m * OBS + o), o, OBS);
}

// The weight of the entropy: exp(log_alpha) where it is learnt, else what the schedule says.
fn alpha_of(s: u32) -> f32 {
    if (d.learned) { return exp_of(get_f(params_of(s) + d.actor.params)); }
    return get_f(a.schedule.at + s * a.schedule.stride + SCHEDULED_ENTROPY_COEF);
}

// The key of what a session draws, and the optimiser call that it is drawn at.
fn key_of(s: u32) -> vec2<u32> {
    let seed = a.seed.at + s * a.seed.stride;
    return vec2<u32>(get_u(seed), get_u(seed + 1u));
}

fn call_of(s: u32) -> u32 {
    return get_u(a.clock.at + s * a.clock.stride + CLOCK_OPT);
}

// Samples the squashed action of a row and returns its log-probability; `offset`: how far the sample lies from the mean
// before it is squashed, which is its slope by the log deviation.
fn sample_squashed(s: u32, purpose: u32, row: u32, out: ptr<function, Outputs>, action: ptr<function, Action>,
                   offset: ptr<function, Action>) -> f32 {
    let key = key_of(s);
    let clock = call_of(s);
    var log_prob = 0.0;
    var words: vec4<u32>;
    for (var j = 0u; j < POLICY_ACTION; j++) {
        if (j % 4u == 0u) { words = philox(vec4<u32>(row, clock, purpose, j / 4u), key); }
        let second = j % 4u >= 2u;
        let turn = sin_cos(unit(select(words.y, words.w, second)) * TAU);
        let radius = sqrt(-2.0 * ln_of(unit(select(words.x, words.z, second))));
        let normal = radius * select(turn.x, turn.y, j % 2u == 0u);
        let log_std = clamped_log_std((*out)[d.policy.n + j]);
        let away = exp_of(log_std) * normal;
        let x = (*out)[j] + away;
        (*offset)[j] = away;
        (*action)[j] = tanh_of(x);
        log_prob += fma(-0.5 * normal, normal, -log_std - POLICIES_HALF_LN_2PI) - ln_tanh_slope(x);
    }
    return log_prob;
}

// Samples a discrete action of a row, the greatest sum of a logit and a Gumbel number, and returns it; `soft` gets its
// relaxation, the softmax of the sums.
fn sample_relaxed(s: u32, purpose: u32, row: u32, out: ptr<function, Outputs>, soft: ptr<function, Outputs>) -> u32 {
    let key = key_of(s);
    let clock = call_of(s);
    var words: vec4<u32>;
    var best = 0u;
    for (var j = 0u; j < POLICY_WORDS; j++) {
        if (j % 4u == 0u) { words = philox(vec4<u32>(row, clock, purpose, j / 4u), key); }
        (*soft)[j] = (*out)[j] - ln_of(-ln_of(unit(words[j % 4u])));
        if ((*soft)[j] > (*soft)[best]) { best = j; }
    }
    let sums = log_sum_exp(soft);
    for (var j = 0u; j < POLICY_WORDS; j++) { (*soft)[j] = exp_of((*soft)[j] - sums.x - sums.y); }
    return best;
}
