// CartPole-v1. Twin of src/env/cartpole.rs, bit for bit: same words, same order, nothing fused.
#pragma once

#include "../lib/trig.cuh"

struct CartPole {
    static constexpr u32 STATE = 4, OBS = 4, ACTION = 1;

    float gravity;
    float masscart;
    float masspole;
    float length;
    float force_mag;
    float tau;
    float theta_threshold;
    float x_threshold;
    float reset_bound;

    __device__ __forceinline__ void reset(const float (&uniforms)[4], float (&state)[STATE]) const {
#pragma unroll
        for (u32 i = 0; i < 4; i++) state[i] = (2.0f * uniforms[i] - 1.0f) * reset_bound;
    }

    __device__ __forceinline__ float step(float (&state)[STATE], const float (&action)[ACTION],
                                             bool& terminated) const {
        float x = state[0], x_dot = state[1], theta = state[2], theta_dot = state[3];
        float per_mass = 1.0f / (masscart + masspole);
        float pole_moment = masspole * length;
        float force = action[0] > 0.5f ? force_mag : -force_mag;
        float sin, cos;
        trig::sin_cos(theta, sin, cos);

        float push = (force + pole_moment * theta_dot * theta_dot * sin) * per_mass;
        float theta_acc =
            (gravity * sin - cos * push) / (length * ((4.0f / 3.0f) - masspole * cos * cos * per_mass));
        float x_acc = push - pole_moment * theta_acc * cos * per_mass;

        // Euler: positions move with the old velocities
        x = x + tau * x_dot;
        x_dot = x_dot + tau * x_acc;
        theta = theta + tau * theta_dot;
        theta_dot = theta_dot + tau * theta_acc;

        terminated = (fabsf(x) > x_threshold) | (fabsf(theta) > theta_threshold);
        state[0] = x, state[1] = x_dot, state[2] = theta, state[3] = theta_dot;
        return 1.0f;
    }

    __device__ __forceinline__ void observe(const float (&state)[STATE], float (&obs)[OBS]) const {
#pragma unroll
        for (u32 i = 0; i < 4; i++) obs[i] = state[i];
    }
};
