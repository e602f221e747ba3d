// Values of the actions by a Q net in one row, what they say of the state, and what a row teaches. Twin of
// `next_value` and `losses` in src/op/td_grad.rs. One lane holds one row. The op has `d.actions`, `d.dueling`,
// `d.batch` and a distance (lib/distance.wgsl).

#import lib/core
#import lib/distance

alias Values = array<f32, d.actions>;

// Values from the outputs of a net at word `here` and their bias at word `bias`. A dueling net has one output more, the
// value of the state.
fn values_at(here: u32, bias: u32) -> Values {
    var values: Values;
    var mean = 0.0;
    for (var j = 0u; j < d.actions; j++) {
        values[j] = get_f(here + j) + get_f(bias + j);
        mean += values[j];
    }
    if (d.dueling) {
        mean *= 1.0 / f32(d.actions);
        let state = get_f(here + d.actions) + get_f(bias + d.actions);
        for (var j = 0u; j < d.actions; j++) { values[j] = state + values[j] - mean; }
    }
    return values;
}

// The worth of the action that is best as `judge` sees it; of the action that was `taken`, if that is asked.
fn value_of_next(judge: Values, worth: Values, sarsa: bool, taken: f32) -> f32 {
    var most = judge[0];
    var value = worth[0];
    for (var j = 1u; j < d.actions; j++) {
        let better = select(judge[j] > most, taken == f32(j), sarsa);
        most = select(most, judge[j], better);
        value = select(value, worth[j], better);
    }
    return value;
}

// A row whose action was `action`: leaves the size of its error at word `error_at`, its weighted loss at `loss_at`, and
// the slopes at the net's outputs from `slopes_at` on.
fn learn_row(values: Values, action: f32, goal: f32, weight: f32, error_at: u32, loss_at: u32, slopes_at: u32) {
    var q = values[0];
    for (var j = 1u; j < d.actions; j++) { q = select(q, values[j], action == f32(j)); }
    let error = q - goal;
    let far = distance_of(error);
    put(error_at, abs(error));
    put(loss_at, weight * far.x);
    let slope_q = weight * far.y * (1.0 / f32(d.batch));
    let share = select(0.0, 1.0 / f32(d.actions), d.dueling);
    for (var j = 0u; j < d.actions; j++) {
        put(slopes_at + j, slope_q * (select(0.0, 1.0, action == f32(j)) - share));
    }
    if (d.dueling) { put(slopes_at + d.actions, slope_q); }
}
