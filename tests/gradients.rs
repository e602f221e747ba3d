//! Are gradients gradients? The definition of every differentiable op against central differences of what it minimises.

use slm_fast::device::Precision;
use slm_fast::op::minibatch_grad::{Args, MinibatchGrad, objective};
use slm_fast::op::sequence_grad::{self, SequenceGrad, SequenceShape};
use slm_fast::op::{Draw, Shape, minibatch_grad::GradShape};

#[test]
fn minibatch_grad_is_the_slope_of_its_objective() {
    let entry = MinibatchGrad::ENTRY;
    // rounded operands make steps of the objective
    let smooth = |(_, shape): &(usize, &GradShape)| shape.precision == Precision::F32;
    for (case, shape) in GradShape::cases().iter().enumerate().filter(smooth) {
        let mut draw = Draw::new(7 + case as u32);
        let mut words = (entry.sample)(case, &mut draw);
        (entry.define)(case, &mut words);
        let args = (entry.args)(case);
        let at = |name: &str| args.iter().position(|a| a.name == name).expect("a declared argument");
        let f = |name: &str| bytemuck::cast_slice::<u32, f32>(&words[at(name)]).to_vec();
        let p = shape.nets.len();
        let mut grad = vec![0.0f64; p];
        for tile in f("partial").chunks_exact(p) {
            grad.iter_mut().zip(tile).for_each(|(sum, &g)| *sum += f64::from(g));
        }
        let (moments, obs, normalizer, action) = (f("moments"), f("obs"), f("normalizer"), f("action"));
        let (log_prob, value, advantage, returns) = (f("log_prob"), f("value"), f("advantage"), f("returns"));
        let (value_moments, hyper, schedule, params) = (f("value_moments"), f("hyper"), f("schedule"), f("params"));
        let args = Args {
            index: &words[at("index")],
            moments: &moments,
            obs: &obs,
            normalizer: &normalizer,
            action: &action,
            log_prob: &log_prob,
            value: &value,
            advantage: &advantage,
            returns: &returns,
            value_moments: &value_moments,
            hyper: &hyper,
            schedule: &schedule,
            params: &params,
            partial: &mut [],
            partial_loss: &mut [],
        };
        is_slope(case, &grad, &params, |moved| objective(shape, &args, moved));
    }
}

/// Holds a gradient against central differences of what it is the gradient of.
fn is_slope(case: usize, grad: &[f64], params: &[f32], objective: impl Fn(&[f64]) -> f64) {
    let exact: Vec<f64> = params.iter().map(|&p| f64::from(p)).collect();
    let slope = |i: usize| {
        let step = 1e-6;
        let mut moved = exact.clone();
        moved[i] += step;
        let up = objective(&moved);
        moved[i] -= 2.0 * step;
        (up - objective(&moved)) / (2.0 * step)
    };
    // every parameter of small nets, a spread of those of large ones
    let p = params.len();
    let every = (p / 60).max(1);
    let mut moving = 0;
    for i in (0..p).step_by(every).chain(p.saturating_sub(3)..p) {
        let want = slope(i);
        assert!(
            (grad[i] - want).abs() <= 2e-6 * (1.0 + want.abs()),
            "case {case}, parameter {i}: {} for {want}",
            grad[i]
        );
        moving += usize::from(want.abs() > 1e-5);
    }
    assert!(moving > 5, "case {case}: too few parameters move the objective");
}

#[test]
fn sequence_grad_is_the_slope_of_its_objective_through_time() {
    let entry = SequenceGrad::ENTRY;
    for (case, shape) in SequenceShape::cases().iter().enumerate() {
        let mut words = (entry.sample)(case, &mut Draw::new(7 + case as u32));
        (entry.define)(case, &mut words);
        let args = (entry.args)(case);
        let at = |name: &str| args.iter().position(|a| a.name == name).expect("a declared argument");
        let f = |name: &str| bytemuck::cast_slice::<u32, f32>(&words[at(name)]).to_vec();
        let p = shape.rows.nets.len();
        let mut grad = vec![0.0f64; p];
        for tile in f("partial").chunks_exact(p) {
            grad.iter_mut().zip(tile).for_each(|(sum, &g)| *sum += f64::from(g));
        }
        let (moments, obs, normalizer, action) = (f("moments"), f("obs"), f("normalizer"), f("action"));
        let (log_prob, value, advantage, returns) = (f("log_prob"), f("value"), f("advantage"), f("returns"));
        let (value_moments, hyper, schedule, params) = (f("value_moments"), f("hyper"), f("schedule"), f("params"));
        let args = sequence_grad::Args {
            index: &words[at("index")],
            moments: &moments,
            obs: &obs,
            normalizer: &normalizer,
            ended: &words[at("ended")],
            first_state: &f("first_state"),
            action: &action,
            log_prob: &log_prob,
            value: &value,
            advantage: &advantage,
            returns: &returns,
            value_moments: &value_moments,
            hyper: &hyper,
            schedule: &schedule,
            params: &params,
            partial: &mut [],
            partial_loss: &mut [],
        };
        is_slope(case, &grad, &params, |moved| sequence_grad::objective(shape, &args, moved));
    }
}
