//! Tests of normalised nets: numbers worked out by hand, the opening of the bounds, and evaluation mode.

use super::super::activation::Activation;
use super::*;
use crate::device::Precision;
use crate::op::Draw;

/// One input, one unit, one output.
fn tiny() -> Renorm {
    let mlp = Mlp { input: 1, hidden: vec![1], activation: Activation::Identity, output: 1, precision: Precision::F32 };
    Renorm { mlp, momentum: 0.1, eps: 1.0, warmup: 0, r_max: 1.2, d_max: 0.25 }
}

/// weight, bias, scale, shift; weight and bias of the output.
const PARAMS: [f32; 6] = [2.0, 5.0, 2.0, 0.5, 1.0, 0.0];
/// Mean and variance.
const NORM: [f32; 2] = [4.0, 3.0];
const X: [f32; 3] = [-1.0, -1.0, 2.0];

fn near(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} for {want:?}");
}

// Sums 3, 3, 9: mean 5, variance 8, deviation sqrt(8 + 1) = 3, so z = -2/3, -2/3, 4/3. The running deviation is
// sqrt(3 + 1) = 2, so r = 3/2, held at 1.2, and d = (5 - 4) / 2, held at 0.25. Outputs are 2 (1.2 z + 0.25) + 0.5.
const OUT: [f64; 3] = [-0.6, -0.6, 4.2];
// Running moments move by a tenth of the way: to 4 + 0.1 and 3 + 0.5.
const AFTER: [f64; 2] = [4.1, 3.5];
// With a slope of 1 at the first row alone: its sum is 1 and along z -2/3. Rows keep 1 - (1 + 4/9) / 3 = 14/27,
// -(1 + 4/9) / 3 = -13/27 and -(1 - 8/9) / 3 = -1/27, times scale r / std = 0.8; x takes them to 0.8 (-3/27).
const GRAD: [f64; 6] = [-0.8 / 9.0, 0.0, 1.2 * -2.0 / 3.0 + 0.25, 1.0, -0.6, 1.0];

#[test]
fn the_definition_gives_what_a_hand_works_out() {
    let net = tiny();
    let params = PARAMS.map(f64::from);
    let x: Vec<Vec<f64>> = X.iter().map(|&x| vec![x.into()]).collect();
    let batch = net.define_forward(&params, &x, |unit, mean, std| net.correction(&NORM, 0, unit, mean, std));
    near(&batch.out.concat(), &OUT);
    let mut norm = NORM;
    net.define_running(&mut norm, &batch.moments);
    near(&norm.map(f64::from), &AFTER);
    let mut grad = [0.0; 6];
    net.define_backward(&params, &batch, &[vec![1.0], vec![0.0], vec![0.0]], &mut grad);
    near(&grad, &GRAD);
}

#[test]
fn the_fast_variant_gives_what_a_hand_works_out() {
    let net = tiny();
    for isa in Isa::available() {
        let mut packed = vec![0.0; net.mlp.packed_len()];
        pack(Isa::Base, &net, &PARAMS, &mut packed);
        let mut x = vec![0.0; 3 * net.in_pad()];
        (0..3).for_each(|row| x[row * net.in_pad()] = X[row]);
        let (mut norm, pad) = (NORM, net.mlp.out_pad());
        let (mut kept, mut out) = (vec![f32::NAN; net.batch_len(3)], vec![f32::NAN; 3 * pad]);
        forward(isa, &net, (&packed, &PARAMS), &x, 3, (&mut norm, 0), &mut kept, &mut out, &mut []);
        near(&[0, 1, 2].map(|row| f64::from(out[row * pad])), &OUT);
        near(&norm.map(f64::from), &AFTER);
        let mut d_out = vec![0.0; pad];
        d_out[0] = 1.0;
        let (mut scratch, mut grad) = (vec![f32::NAN; net.slopes_len(3)], [f32::NAN; 6]);
        backward(isa, &net, &packed, &x, (3, 1), &mut kept, &d_out, &mut scratch, &mut grad);
        near(&grad.map(f64::from), &GRAD);
    }
}

#[test]
fn bounds_open_over_the_warm_up() {
    let net = Renorm { warmup: 200, r_max: 3.0, d_max: 5.0, ..tiny() };
    assert_eq!([0, 50, 100, 200, 1_000].map(|n| net.bounds(n).0), [1.0, 1.5, 2.0, 3.0, 3.0]);
    assert_eq!([0, 50, 100, 200, 1_000].map(|n| net.bounds(n).1), [0.0, 1.25, 2.5, 5.0, 5.0]);
    assert_eq!(net.correction(&NORM, 0, 0, 9.0, 0.1), (1.0, 0.0), "plain batch normalisation at the start");
}

/// With bounds that hold nothing, `r z + d` is the distance from the running mean in running deviations: what
/// evaluation mode computes, of every row alone.
#[test]
fn a_folded_net_is_the_net_in_evaluation_mode() {
    let mut draw = Draw::new(11);
    for net in crate::op::lib::cases::renorms(5, 3) {
        let net = Renorm { warmup: 0, r_max: 1e9, d_max: 1e9, ..net };
        let params: Vec<f32> = (0..net.len()).map(|_| draw.range(-0.7, 0.7)).collect();
        let mut norm = vec![0; net.norm_len()];
        crate::op::lib::cases::sample_norm(&net, &mut norm, &mut draw);
        let norm: &[f32] = bytemuck::cast_slice(&norm);
        let x: Vec<Vec<f64>> = (0..7).map(|_| (0..5).map(|_| f64::from(draw.range(-2.0, 2.0))).collect()).collect();
        let wide: Vec<f64> = params.iter().map(|&p| p.into()).collect();
        let plain: Vec<f64> = net.define_fold(&params, norm).iter().map(|&p| p.into()).collect();
        assert_eq!(plain.len(), net.mlp.len());
        let trained = net.define_forward(&wide, &x, |unit, mean, std| net.correction(norm, 0, unit, mean, std)).out;
        for (x, trained) in x.iter().zip(trained) {
            let folded = net.mlp.define_forward(&plain, x).0.pop().expect("a net has outputs");
            let off = folded.iter().zip(&trained).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(off < 1e-5, "{:?}: off by {off:e}", net.mlp.hidden);
        }
    }
}

#[test]
fn every_parameter_has_one_place() {
    for net in crate::op::lib::cases::renorms(5, 3) {
        let mut at = 0;
        for (l, y) in net.places().enumerate() {
            let last = l == net.mlp.hidden.len();
            assert_eq!((y.weight, y.bias), (at, at + y.input * y.output));
            at = if last { y.bias + y.output } else { y.shift + y.output };
            assert!(last || (y.scale, y.shift) == (y.bias + y.output, y.bias + 2 * y.output));
        }
        assert_eq!(at, net.len());
    }
}
