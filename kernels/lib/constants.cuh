// Numbers that kernels share with src/op: written by `SLM_FAST_WRITE=1 cargo test constants` from
// src/op/constants.rs, which a test holds this file to. Do not edit.
#pragma once

namespace Hyper {
constexpr u32 GAMMA = 0u;
constexpr u32 LAM = 1u;
constexpr u32 VAL_LOSS_COEF = 2u;
constexpr u32 POLICY_LOSS_COEF = 3u;
constexpr u32 REWARD_SCALE = 4u;
constexpr u32 REWARD_CLIP_LOW = 5u;
constexpr u32 REWARD_CLIP_HIGH = 6u;
constexpr u32 OBS_CLIP_LOW = 7u;
constexpr u32 OBS_CLIP_HIGH = 8u;
constexpr u32 CLIP_EPS = 9u;
constexpr u32 ENTROPY_COEF = 14u;
constexpr u32 EXPLORE = 19u;
constexpr u32 BETA = 24u;
constexpr u32 TARGET_ENTROPY = 29u;
constexpr u32 PRIORITY_ALPHA = 34u;
constexpr u32 PRIORITY_EPSILON = 35u;
constexpr u32 POLYAK = 36u;
constexpr u32 UPDATE_FREQUENCY = 37u;
constexpr u32 LOG_ALPHA_LOW = 38u;
constexpr u32 LOG_ALPHA_HIGH = 39u;
constexpr u32 ENTROPY_PENALTY = 40u;
constexpr u32 LEN = 41u;
constexpr u32 KIND = 0u;
constexpr u32 START_VAL = 1u;
constexpr u32 END_VAL = 2u;
constexpr u32 START_STEP = 3u;
constexpr u32 END_STEP = 4u;
constexpr float NO_DECAY = 0e0f;
constexpr float LINEAR_DECAY = 1e0f;
constexpr float RATE_DECAY = 2e0f;
constexpr float PERIODIC_DECAY = 3e0f;
constexpr u32 LR = 0u;
constexpr u32 B1 = 1u;
constexpr u32 B2 = 2u;
constexpr u32 EPS = 3u;
constexpr u32 WEIGHT_DECAY = 4u;
constexpr u32 MOMENTUM = 5u;
constexpr u32 CLIP_NORM = 6u;
constexpr u32 LR_KIND = 7u;
constexpr u32 LR_FRAMES = 8u;
constexpr u32 LR_MIN_FACTOR = 9u;
constexpr u32 GROUP_LEN = 10u;
constexpr float LR_CONSTANT = 0e0f;
constexpr float LR_LINEAR_TO_MIN = 1e0f;
}  // namespace Hyper

namespace Clock {
constexpr u32 CLOCK_STEP = 0u;
constexpr u32 CLOCK_OPT = 1u;
constexpr u32 CLOCK_ITER = 2u;
constexpr u32 CLOCK_EPISODES = 3u;
constexpr u32 CLOCK_RING = 4u;
}  // namespace Clock

namespace Sums {
constexpr u32 POLICY = 0u;
constexpr u32 VALUE = 1u;
constexpr u32 ENTROPY = 2u;
constexpr u32 KL = 3u;
constexpr u32 CLIP_FRAC = 4u;
constexpr u32 LOSSES = 5u;
constexpr u32 LOSS = 5u;
constexpr u32 GRAD_NORM = 6u;
constexpr u32 COUNT = 7u;
constexpr u32 EXPLAINED_VAR = 8u;
constexpr u32 LEN = 9u;
}  // namespace Sums

namespace Fault {
constexpr u32 OP = 0u;
constexpr u32 STEP = 1u;
constexpr u32 OPT = 2u;
constexpr u32 GROUP = 3u;
constexpr u32 LEN = 4u;
constexpr u32 GRADIENT = 1u;
constexpr u32 PARAMS = 2u;
}  // namespace Fault

namespace Scheduled {
constexpr u32 CLIP_EPS = 0u;
constexpr u32 ENTROPY_COEF = 1u;
constexpr u32 EXPLORE = 2u;
constexpr u32 BETA = 3u;
constexpr u32 TARGET_ENTROPY = 4u;
constexpr u32 LEN = 5u;
}  // namespace Scheduled

namespace Moments {
constexpr u32 COUNT = 0u;
constexpr u32 MEAN = 1u;
constexpr u32 M2 = 2u;
constexpr u32 SCALE = 3u;
constexpr u32 LOW = 0u;
constexpr u32 HIGH = 1u;
constexpr u32 SEEN = 2u;
constexpr float PERCENTILE_KEEP = 9.9e-1f;
constexpr double LOW_QUANTILE = 5e-2;
constexpr double HIGH_QUANTILE = 9.5e-1;
constexpr double EPSILON = 1e-8;
}  // namespace Moments

namespace Modes {
constexpr u32 GAE = 0u;
constexpr u32 N_STEP = 1u;
constexpr u32 RETURNS = 2u;
}  // namespace Modes

namespace Feistel {
constexpr u32 ROUNDS = 12u;
constexpr u32 KEY_STEP = 2654435769u;
constexpr u32 FIRST_FACTOR = 2246822507u;
constexpr u32 SECOND_FACTOR = 3266489909u;
}  // namespace Feistel

namespace Normalizes {
constexpr u32 STANDARDIZE = 0u;
constexpr u32 PERCENTILE = 1u;
constexpr u32 NONE = 2u;
}  // namespace Normalizes

namespace Standardize {
constexpr double EPSILON = 1e-8;
}  // namespace Standardize

namespace Optimizers {
constexpr u32 ADAM = 0u;
constexpr u32 ADAM_W = 1u;
constexpr u32 RMS_PROP = 2u;
constexpr u32 SGD = 3u;
constexpr u32 NESTEROV = 4u;
constexpr u32 GROUPS = 4u;
}  // namespace Optimizers

namespace ClipNorm {
constexpr double EPSILON = 1e-6;
}  // namespace ClipNorm

namespace Normalizer {
constexpr double EPSILON = 1e-8;
}  // namespace Normalizer

namespace Rows {
constexpr u32 WINDOW = 100u;
constexpr u32 INTS = 4u;
constexpr u32 NUMS = 13u;
}  // namespace Rows

namespace Purpose {
constexpr u32 RESET = 0u;
constexpr u32 ACTION = 1u;
constexpr u32 SHUFFLE = 2u;
constexpr u32 SAMPLE = 5u;
constexpr u32 NEXT_ACTION = 6u;
constexpr u32 ACTOR_ACTION = 7u;
}  // namespace Purpose

namespace Ended {
constexpr u32 TERMINATED = 1u;
constexpr u32 TRUNCATED = 2u;
}  // namespace Ended

namespace Policies {
constexpr u32 CATEGORICAL = 0u;
constexpr u32 GAUSSIAN = 1u;
constexpr u32 OUTPUTS = 64u;
constexpr float LOG_STD_LOW = -5e0f;
constexpr float LOG_STD_HIGH = 2e0f;
constexpr float LOG_RATIO = 2e1f;
constexpr float HALF_LN_2PI = 9.189385e-1f;
}  // namespace Policies

namespace Losses {
constexpr u32 MSE = 0u;
constexpr u32 SMOOTH_L1 = 1u;
constexpr float TARGET_MAX = 1e1f;
}  // namespace Losses

namespace Activations {
constexpr u32 TANH = 0u;
constexpr u32 RELU = 1u;
constexpr u32 LEAKY_RELU = 2u;
constexpr u32 ELU = 3u;
constexpr u32 SELU = 4u;
constexpr u32 GELU = 5u;
constexpr u32 SILU = 6u;
constexpr u32 SIGMOID = 7u;
constexpr u32 IDENTITY = 8u;
}  // namespace Activations

namespace Slopes {
constexpr float LEAK = 1e-2f;
constexpr float SELU_SCALE = 1.050701e0f;
constexpr float SELU_LOW = 1.7580993e0f;
}  // namespace Slopes

namespace Fused {
constexpr u32 WIDTH = 64u;
constexpr u32 STRIDE = 68u;
constexpr u32 HALF_STRIDE = 72u;
}  // namespace Fused

namespace Nets {
constexpr u32 LAYERS = 16u;
}  // namespace Nets
