//! Are gradients gradients? The definition of every differentiable op against central differences of what it minimises, in
//! f32: rounded operands make steps of it.

use slm_fast::device::Precision;
use slm_fast::op::actor_grad::{self, ActorGrad, ActorGradShape};
use slm_fast::op::critic_grad::{self, CriticGrad, CriticGradShape};
use slm_fast::op::crossq_grad::{self, CrossqGrad, CrossqShape};
use slm_fast::op::minibatch_grad::{self, GradShape, MinibatchGrad};
use slm_fast::op::sequence_grad::{self, SequenceGrad, SequenceShape};
use slm_fast::op::sequence_td_grad::{self, SequenceTdGrad, SequenceTdShape};
use slm_fast::op::td_grad::{self, TdGrad, TdShape};
use slm_fast::op::{Draw, Entry, Shape};

/// A case of an op with its definition's outputs.
struct Case {
    names: Vec<&'static str>,
    words: Vec<Vec<u32>>,
}

impl Case {
    fn new(entry: &Entry, case: usize) -> Case {
        let mut words = (entry.sample)(case, &mut Draw::new(7 + case as u32));
        (entry.define)(case, &mut words);
        Case { names: (entry.args)(case).iter().map(|arg| arg.name).collect(), words }
    }

    fn u(&self, name: &str) -> &[u32] {
        &self.words[self.names.iter().position(|&arg| arg == name).expect("a declared argument")]
    }

    fn f(&self, name: &str) -> &[f32] {
        bytemuck::cast_slice(self.u(name))
    }

    /// The sum over tiles of the gradient of `p` parameters.
    fn gradient(&self, p: usize) -> Vec<f64> {
        let mut grad = vec![0.0f64; p];
        for tile in self.f("partial").chunks_exact(p) {
            grad.iter_mut().zip(tile).for_each(|(sum, &g)| *sum += f64::from(g));
        }
        grad
    }
}

/// Arguments of an op: words and numbers of the case by their names, and outputs, which an objective does not write.
macro_rules! args {
    ($op:ident, $case:ident, u [$($word:ident),*], f [$($number:ident),*], out [$($nowhere:ident),*]
        $(, $output:ident: $to:expr)*) => {
        $op::Args {
            $($word: $case.u(stringify!($word)),)*
            $($number: $case.f(stringify!($number)),)*
            $($nowhere: &mut [],)*
            $($output: $to,)*
        }
    };
}

/// Holds a gradient against central differences of what is minimised at `at`: every parameter of small nets, a spread of
/// those of large ones.
fn check(name: &str, grad: &[f64], at: &[f32], objective: impl Fn(&[f64]) -> f64) {
    let (step, p) = (1e-6, grad.len());
    let exact: Vec<f64> = at.iter().map(|&p| p.into()).collect();
    let every = (p / 60).max(1);
    let mut moving = 0;
    for i in (0..p).step_by(every).chain(p.saturating_sub(3)..p) {
        let mut moved = exact.clone();
        moved[i] += step;
        let up = objective(&moved);
        moved[i] -= 2.0 * step;
        let want = (up - objective(&moved)) / (2.0 * step);
        assert!((grad[i] - want).abs() <= 2e-6 * (1.0 + want.abs()), "{name}, parameter {i}: {} for {want}", grad[i]);
        moving += usize::from(want.abs() > 1e-5);
    }
    assert!(moving > 5, "{name}: too few parameters move the objective");
}

#[test]
fn critic_grad_is_the_slope_of_its_objective() {
    for (case, shape) in CriticGradShape::cases().iter().enumerate().filter(|(_, d)| d.precision() == Precision::F32) {
        let c = Case::new(&CriticGrad::ENTRY, case);
        let args = args!(
            critic_grad,
            c,
            u [index, last, seed, clock],
            f [returns, discount, weight, obs, next_obs, action, normalizer, hyper, schedule, params, target],
            out [partial, partial_loss, error]
        );
        let critics = &c.f("params")[shape.nets.critic_at(0)..];
        let objective = |critics: &[f64]| critic_grad::objective(shape, &args, critics);
        check(&format!("critic_grad case {case}"), &c.gradient(critics.len()), critics, objective);
    }
}

#[test]
fn actor_grad_is_the_slope_of_its_objective() {
    for (case, shape) in ActorGradShape::cases().iter().enumerate().filter(|(_, d)| d.precision() == Precision::F32) {
        let c = Case::new(&ActorGrad::ENTRY, case);
        let args = args!(
            actor_grad,
            c,
            u [index, seed, clock],
            f [obs, normalizer, hyper, schedule, params, target],
            out [partial, partial_loss]
        );
        let moved = &c.f("params")[..shape.moved()];
        let objective = |moved: &[f64]| actor_grad::objective(shape, &args, moved);
        check(&format!("actor_grad case {case}"), &c.gradient(moved.len()), moved, objective);
    }
}

#[test]
fn minibatch_grad_is_the_slope_of_its_objective() {
    let entry = MinibatchGrad::ENTRY;
    for (case, shape) in GradShape::cases().iter().enumerate().filter(|(_, d)| d.precision() == Precision::F32) {
        let c = Case::new(&entry, case);
        let args = args!(
            minibatch_grad,
            c,
            u [index],
            f [moments, obs, normalizer, action, log_prob, value, advantage, returns, value_moments, hyper,
                schedule, params],
            out [partial, partial_loss]
        );
        let objective = |params: &[f64]| minibatch_grad::objective(shape, &args, params);
        check(&format!("minibatch_grad case {case}"), &c.gradient(shape.nets.len()), c.f("params"), objective);
    }
}

#[test]
fn sequence_grad_is_the_slope_of_its_objective_through_time() {
    for (case, shape) in SequenceShape::cases().iter().enumerate() {
        let c = Case::new(&SequenceGrad::ENTRY, case);
        let args = args!(
            sequence_grad,
            c,
            u [index, ended],
            f [moments, obs, normalizer, first_state, action, log_prob, value, advantage, returns, value_moments,
                hyper, schedule, params],
            out [partial, partial_loss]
        );
        let params = c.f("params");
        let objective = |params: &[f64]| sequence_grad::objective(shape, &args, params);
        check(&format!("sequence_grad case {case}"), &c.gradient(params.len()), params, objective);
    }
}

/// Targets are constants of the gradient.
#[test]
fn td_grad_is_the_slope_of_its_objective() {
    for (case, shape) in TdShape::cases().iter().enumerate().filter(|(_, d)| d.precision() == Precision::F32) {
        let c = Case::new(&TdGrad::ENTRY, case);
        let args = args!(
            td_grad,
            c,
            u [index, last],
            f [returns, discount, weight, obs, next_obs, action, normalizer, hyper, params, target],
            out [partial, partial_loss, error]
        );
        let params = c.f("params");
        let objective = |params: &[f64]| td_grad::objective(shape, &args, params);
        check(&format!("td_grad case {case}"), &c.gradient(params.len()), params, objective);
    }
}

/// Targets, and the states that a burn-in ends in, are constants of the gradient.
#[test]
fn sequence_td_grad_is_the_slope_of_its_objective_through_time() {
    for (case, shape) in SequenceTdShape::cases().iter().enumerate() {
        let c = Case::new(&SequenceTdGrad::ENTRY, case);
        let args = args!(
            sequence_td_grad,
            c,
            u [index, last, ended],
            f [returns, discount, weight, obs, next_obs, first_state, action, normalizer, hyper, params, target],
            out [partial, partial_loss, error]
        );
        let params = c.f("params");
        let objective = |params: &[f64]| sequence_td_grad::objective(shape, &args, params);
        check(&format!("sequence_td_grad case {case}"), &c.gradient(params.len()), params, objective);
    }
}

/// Targets and the corrections of the normalisation are constants of the gradient: they are held where they were.
#[test]
fn crossq_grad_is_the_slope_of_its_objective() {
    for (case, shape) in CrossqShape::cases().iter().enumerate().filter(|(_, d)| d.precision() == Precision::F32) {
        let mut c = Case::new(&CrossqGrad::ENTRY, case);
        let (partial, running) = (c.f("partial").to_vec(), c.f("norm").to_vec());
        // the moments before the batch
        c.words = (CrossqGrad::ENTRY.sample)(case, &mut Draw::new(7 + case as u32));
        let (mut again, mut partial_loss) = (vec![0.0; partial.len()], c.f("partial_loss").to_vec());
        let (mut error, mut norm, mut batches) = (c.f("error").to_vec(), c.f("norm").to_vec(), c.u("batches").to_vec());
        let args = args!(
            crossq_grad,
            c,
            u [index, last, seed, clock],
            f [returns, discount, weight, obs, next_obs, action, normalizer, hyper, schedule, params],
            out [], partial: &mut again, partial_loss: &mut partial_loss, error: &mut error, norm: &mut norm,
            batches: &mut batches
        );
        let held = crossq_grad::define_held(shape, args);
        assert_eq!((&again, &norm), (&partial, &running), "what is held is what the definition used");
        let grad: Vec<f64> = partial.iter().map(|&g| g.into()).collect();
        let critics = &c.f("params")[shape.critics()..];
        let objective = |critics: &[f64]| crossq_grad::objective(shape, &held, critics);
        check(&format!("crossq_grad case {case}"), &grad, critics, objective);
    }
}
