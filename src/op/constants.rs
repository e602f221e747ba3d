//! The numbers that the twins of an op share, once: from here they are written into `kernels/lib/constants.cuh` and
//! `shaders/lib/constants.wgsl`.

use super::lib::activation::{Activation, LEAK, SELU_ALPHA, SELU_SCALE};
use super::lib::envs::{TERMINATED, TRUNCATED};
use super::lib::policy::{HALF_LN_2PI, LOG_RATIO, LOG_STD, OUTPUTS};
use super::lib::rng::Purpose;
use super::{advantage, gpu, hyper, log, minibatch_grad, obs_moments, optimize, schedule, shuffle};
use std::fmt::Write;

/// A number of one of the types that kernels know.
#[derive(Debug, Clone, Copy)]
enum Number {
    U32(u32),
    F32(f32),
    F64(f64),
}

impl From<usize> for Number {
    fn from(x: usize) -> Number {
        Number::U32(u32::try_from(x).expect("shared numbers are 32-bit words"))
    }
}
impl From<u32> for Number {
    fn from(x: u32) -> Number {
        Number::U32(x)
    }
}
impl From<f32> for Number {
    fn from(x: f32) -> Number {
        Number::F32(x)
    }
}
impl From<f64> for Number {
    fn from(x: f64) -> Number {
        Number::F64(x)
    }
}

/// A group of numbers with the name of its namespace; upper case, so that kernels and arguments may have the lower one.
type Group = (&'static str, Vec<(&'static str, Number)>);

macro_rules! group {
    ($name:literal, $module:path: $($constant:ident),+ $(,)?) => {{
        use $module as module;
        ($name, vec![$((stringify!($constant), Number::from(module::$constant))),+])
    }};
}

fn groups() -> Vec<Group> {
    vec![
        group!("Hyper", hyper: GAMMA, LAM, VAL_LOSS_COEF, POLICY_LOSS_COEF, REWARD_SCALE, REWARD_CLIP_LOW,
            REWARD_CLIP_HIGH, OBS_CLIP_LOW, OBS_CLIP_HIGH, CLIP_EPS, ENTROPY_COEF, EXPLORE, BETA, TARGET_ENTROPY, PRIORITY_ALPHA,
            PRIORITY_EPSILON, POLYAK, UPDATE_FREQUENCY, LOG_ALPHA_LOW, LOG_ALPHA_HIGH, ENTROPY_PENALTY, LEN, KIND, START_VAL, END_VAL,
            START_STEP, END_STEP, NO_DECAY, LINEAR_DECAY, RATE_DECAY, PERIODIC_DECAY, LR, B1, B2, EPS, WEIGHT_DECAY,
            MOMENTUM, CLIP_NORM, LR_KIND, LR_FRAMES, LR_MIN_FACTOR, GROUP_LEN, LR_CONSTANT, LR_LINEAR_TO_MIN),
        group!("Clock", hyper: CLOCK_STEP, CLOCK_OPT, CLOCK_ITER, CLOCK_EPISODES, CLOCK_RING),
        group!("Sums", hyper::update: POLICY, VALUE, ENTROPY, KL, CLIP_FRAC, LOSSES, LOSS, GRAD_NORM, COUNT,
            EXPLAINED_VAR, LEN),
        group!("Fault", hyper::fault: OP, STEP, OPT, GROUP, LEN, GRADIENT, PARAMS),
        group!("Scheduled", schedule: CLIP_EPS, ENTROPY_COEF, EXPLORE, BETA, TARGET_ENTROPY, LEN),
        group!("Moments", advantage: COUNT, MEAN, M2, SCALE, LOW, HIGH, SEEN, PERCENTILE_KEEP, LOW_QUANTILE,
            HIGH_QUANTILE, EPSILON),
        group!("Modes", gpu::advantage: GAE, N_STEP, RETURNS),
        group!("Feistel", shuffle: ROUNDS, KEY_STEP, FIRST_FACTOR, SECOND_FACTOR),
        group!("Normalizes", gpu::shuffle: STANDARDIZE, PERCENTILE, NONE),
        ("Standardize", vec![("EPSILON", shuffle::EPSILON.into())]),
        group!("Optimizers", gpu::optimize: ADAM, ADAM_W, RMS_PROP, SGD, NESTEROV, GROUPS),
        ("ClipNorm", vec![("EPSILON", optimize::EPSILON.into())]),
        ("Normalizer", vec![("EPSILON", obs_moments::EPSILON.into())]),
        ("Rows", vec![("WINDOW", log::WINDOW.into()), ("INTS", log::INTS.into()), ("NUMS", log::NUMS.len().into())]),
        (
            "Purpose",
            vec![
                ("RESET", (Purpose::Reset as u32).into()),
                ("ACTION", (Purpose::Action as u32).into()),
                ("SHUFFLE", (Purpose::Shuffle as u32).into()),
                ("SAMPLE", (Purpose::Sample as u32).into()),
                ("NEXT_ACTION", (Purpose::NextAction as u32).into()),
                ("ACTOR_ACTION", (Purpose::ActorAction as u32).into()),
            ],
        ),
        ("Ended", vec![("TERMINATED", TERMINATED.into()), ("TRUNCATED", TRUNCATED.into())]),
        (
            "Policies",
            vec![
                ("CATEGORICAL", gpu::CATEGORICAL.into()),
                ("GAUSSIAN", gpu::GAUSSIAN.into()),
                ("OUTPUTS", OUTPUTS.into()),
                ("LOG_STD_LOW", LOG_STD.0.into()),
                ("LOG_STD_HIGH", LOG_STD.1.into()),
                ("LOG_RATIO", LOG_RATIO.into()),
                ("HALF_LN_2PI", (HALF_LN_2PI as f32).into()),
            ],
        ),
        (
            "Losses",
            vec![
                ("MSE", gpu::MSE.into()),
                ("SMOOTH_L1", gpu::SMOOTH_L1.into()),
                ("TARGET_MAX", minibatch_grad::TARGET_MAX.into()),
            ],
        ),
        (
            "Activations",
            Activation::ALL.iter().map(|&a| (gpu::activation_name(a), gpu::activation(a).into())).collect(),
        ),
        (
            "Slopes",
            vec![
                ("LEAK", (LEAK as f32).into()),
                ("SELU_SCALE", (SELU_SCALE as f32).into()),
                ("SELU_LOW", ((SELU_SCALE * SELU_ALPHA) as f32).into()),
            ],
        ),
        group!("Fused", gpu::nets: WIDTH, STRIDE, HALF_STRIDE),
        ("Nets", vec![("LAYERS", gpu::LAYERS.into())]),
    ]
}

/// The text of `shaders/lib/constants.wgsl`: no namespaces, so the group is part of the name; no doubles, so the rest of
/// one that is not an f32 has a name of its own.
pub fn wgsl() -> String {
    let mut text = String::from(
        "// Numbers that kernels share with src/op: written by `SLM_FAST_WRITE=1 cargo test constants` from\n\
         // src/op/constants.rs, which a test holds this file to. Do not edit.\n",
    );
    for (group, numbers) in groups() {
        let group = upper_snake(group);
        writeln!(text, "\n// {group}").expect("a string takes all");
        for (name, number) in numbers {
            let own = name.strip_prefix(&group).and_then(|rest| rest.strip_prefix('_')).unwrap_or(name);
            let name = format!("{group}_{own}");
            match number {
                Number::U32(x) => writeln!(text, "const {name} = {x}u;"),
                Number::F32(x) => writeln!(text, "const {name} = {};", float(x)),
                Number::F64(x) => {
                    let low = (x - f64::from(x as f32)) as f32;
                    writeln!(text, "const {name} = {};\nconst {name}_LOW = {};", float(x as f32), float(low))
                }
            }
            .expect("a string takes all");
        }
    }
    text
}

/// `ClipNorm` as `CLIP_NORM`.
fn upper_snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_uppercase());
    }
    snake
}

/// A float that C++ and WGSL read back to the same bits.
fn float(x: f32) -> String {
    format!("{x:e}f")
}

/// A double that C++ reads back to the same bits.
fn double(x: f64) -> String {
    format!("{x:e}")
}

/// The text of `kernels/lib/constants.cuh`.
pub fn cuda() -> String {
    let mut text = String::from(
        "// Numbers that kernels share with src/op: written by `SLM_FAST_WRITE=1 cargo test constants` from\n\
         // src/op/constants.rs, which a test holds this file to. Do not edit.\n#pragma once\n",
    );
    for (group, numbers) in groups() {
        writeln!(text, "\nnamespace {group} {{").expect("a string takes all");
        for (name, number) in numbers {
            match number {
                Number::U32(x) => writeln!(text, "constexpr u32 {name} = {x}u;"),
                Number::F32(x) => writeln!(text, "constexpr float {name} = {};", float(x)),
                Number::F64(x) => writeln!(text, "constexpr double {name} = {};", double(x)),
            }
            .expect("a string takes all");
        }
        writeln!(text, "}}  // namespace {group}").expect("a string takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn constants_of_the_kernels_are_current() {
        for (file, text) in
            [("kernels/lib/constants.cuh", super::cuda()), ("shaders/lib/constants.wgsl", super::wgsl())]
        {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            if std::env::var_os("SLM_FAST_WRITE").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let now = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(now == text, "{file} is out of date: run `SLM_FAST_WRITE=1 cargo test constants`");
        }
    }
}
