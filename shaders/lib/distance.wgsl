// How far a prediction is from its target, and the slope of that. Twin of `Distance` in src/op/minibatch_grad.rs; the
// op has `d.distance` and `d.beta`.

#import lib/trig

// sign(x) ln(1 + |x|).
fn symlog(x: f32) -> f32 {
    return with_sign(ln_of(1.0 + abs(x)), x);
}

fn distance_of(e: f32) -> vec2<f32> {
    if (d.distance == LOSSES_MSE) { return vec2<f32>(e * e, 2.0 * e); }
    let near = abs(e) < d.beta;
    return vec2<f32>(select(abs(e) - 0.5 * d.beta, 0.5 * e * e / d.beta, near),
                     select(with_sign(1.0, e), e / d.beta, near));
}

// The same of two values that are compressed before they are compared; slope by the first of them.
fn symlog_distance(x: f32, goal: f32) -> vec2<f32> {
    let far = distance_of(symlog(x) - symlog(goal));
    return vec2<f32>(far.x, far.y / (1.0 + abs(x)));
}
