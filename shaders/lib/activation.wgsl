// Activations of hidden units and their slopes: the formulas of `activate_body` and `slope_body` in src/op/lib/mlp.rs,
// fused where the AVX variants fuse. `kind` is a constant wherever these are called, so that one branch stays.

#import lib/trig

// tanh as the rational function of Eigen's `ptanh` (coefficients from there).
fn tanh_ratio(x: f32) -> f32 {
    // beyond 7.905311 the function is 1 to the last bit; the square is held by a minimum, the factor keeps a NaN
    let square = x * x;
    let t = select(x, with_sign(7.905311, x), square > 62.493942);
    let z = min(square, 62.493942);
    var p = fma(z, -2.7607685e-16, 2.0001879e-13);
    p = fma(z, p, -8.604672e-11);
    p = fma(z, p, 5.1222971e-8);
    p = fma(z, p, 1.4857224e-5);
    p = fma(z, p, 6.3726193e-4);
    p = fma(z, p, 4.8935246e-3);
    var q = fma(z, 1.1982584e-6, 1.1853471e-4);
    q = fma(z, q, 2.2684346e-3);
    q = fma(z, q, 4.8935252e-3);
    return t * p / q;
}

fn sigmoid(x: f32) -> f32 {
    return fma(0.5, tanh_ratio(0.5 * x), 0.5);
}

// Distribution function of the standard normal by Abramowitz and Stegun 26.2.17.
fn normal_cdf(x: f32) -> f32 {
    let a = abs(x);
    let t = 1.0 / fma(0.2316419, a, 1.0);
    let p = t * fma(t, fma(t, fma(t, fma(t, 1.3302744, -1.821256), 1.7814779), -0.35656378), 0.31938153);
    let tail = 0.39894228 * exp_of(-0.5 * a * a) * p;
    return select(tail, 1.0 - tail, x > 0.0);
}

// Whether a slope needs the value before the activation; the others read it off the value after.
fn needs_input(kind: u32) -> bool {
    return kind == ACTIVATIONS_GELU || kind == ACTIVATIONS_SILU;
}

// A hidden unit's value.
fn activate(kind: u32, x: f32) -> f32 {
    switch kind {
        case ACTIVATIONS_TANH: { return tanh_ratio(x); }
        case ACTIVATIONS_RELU: { return select(0.0, x, x > 0.0); }
        case ACTIVATIONS_LEAKY_RELU: { return select(SLOPES_LEAK * x, x, x > 0.0); }
        case ACTIVATIONS_ELU: { return select(exp_of(x) - 1.0, x, x > 0.0); }
        case ACTIVATIONS_SELU: { return select(SLOPES_SELU_LOW * (exp_of(x) - 1.0), SLOPES_SELU_SCALE * x, x > 0.0); }
        case ACTIVATIONS_GELU: { return x * normal_cdf(x); }
        case ACTIVATIONS_SILU: { return x * sigmoid(x); }
        case ACTIVATIONS_SIGMOID: { return sigmoid(x); }
        default: { return x; }
    }
}

// Its slope, from the value after (`y`), or before where `needs_input`.
fn slope(kind: u32, y: f32) -> f32 {
    switch kind {
        case ACTIVATIONS_TANH: { return fma(-y, y, 1.0); }
        case ACTIVATIONS_RELU: { return select(0.0, 1.0, y > 0.0); }
        case ACTIVATIONS_LEAKY_RELU: { return select(SLOPES_LEAK, 1.0, y > 0.0); }
        case ACTIVATIONS_ELU: { return select(y + 1.0, 1.0, y > 0.0); }
        case ACTIVATIONS_SELU: { return select(y + SLOPES_SELU_LOW, SLOPES_SELU_SCALE, y > 0.0); }
        case ACTIVATIONS_GELU: { return fma(y, 0.39894228 * exp_of(-0.5 * y * y), normal_cdf(y)); }
        case ACTIVATIONS_SILU: {
            let s = sigmoid(y);
            return s * fma(y, 1.0 - s, 1.0);
        }
        case ACTIVATIONS_SIGMOID: { return y * (1.0 - y); }
        default: { return 1.0; }
    }
}
