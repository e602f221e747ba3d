// Acrobot-v1. Twin of src/env/acrobot.rs, bit for bit: same words, same order, nothing fused.
#pragma once

#include "../lib/trig.cuh"

struct Acrobot {
    static constexpr u32 STATE = 4, OBS = 6, ACTION = 1;

    float gravity;
    float link_length_1;
    float link_mass_1;
    float link_mass_2;
    float link_com_1;
    float link_com_2;
    float link_moi;
    float torque;
    float max_vel_1;
    float max_vel_2;
    float dt;
    float goal_height;
    float reset_bound;

    __device__ __forceinline__ void reset(const float (&uniforms)[4], float (&state)[STATE]) const {
#pragma unroll
        for (u32 i = 0; i < 4; i++) state[i] = (2.0f * uniforms[i] - 1.0f) * reset_bound;
    }

    // Time derivative of the state under a torque.
    __device__ __forceinline__ void derivative(const float (&state)[4], float torque, float (&slope)[4]) const {
        float vel1 = state[2], vel2 = state[3];
        float m1 = link_mass_1, m2 = link_mass_2, l1 = link_length_1;
        float lc1 = link_com_1, lc2 = link_com_2, moi = link_moi, g = gravity;
        float sin1, cos1, sin2, cos2;
        trig::sin_cos(state[0], sin1, cos1);
        trig::sin_cos(state[1], sin2, cos2);
        float sin12 = sin1 * cos2 + cos1 * sin2;
        float coupling = m2 * l1 * lc2;

        float inertia22 = m2 * lc2 * lc2 + moi;
        float d1 = (m1 * lc1 * lc1 + m2 * l1 * l1 + moi) + inertia22 + 2.0f * coupling * cos2;
        float d2 = inertia22 + coupling * cos2;
        float phi2 = m2 * lc2 * g * sin12;
        float phi1 = (m1 * lc1 + m2 * l1) * g * sin1 + phi2 - coupling * sin2 * vel2 * (vel2 + 2.0f * vel1);
        float ratio = d2 / d1;
        float acc2 = (torque + ratio * phi1 - coupling * vel1 * vel1 * sin2 - phi2) / (inertia22 - d2 * ratio);
        float acc1 = -(d2 * acc2 + phi1) / d1;
        slope[0] = vel1, slope[1] = vel2, slope[2] = acc1, slope[3] = acc2;
    }

    // a + h b, word by word
    __device__ __forceinline__ void along(const float (&a)[4], float h, const float (&b)[4], float (&c)[4]) const {
#pragma unroll
        for (u32 i = 0; i < 4; i++) c[i] = a[i] + h * b[i];
    }

    __device__ __forceinline__ float step(float (&state)[STATE], const float (&action)[ACTION],
                                             bool& terminated) const {
        float applied = (action[0] - 1.0f) * torque;
        // classical Runge-Kutta of order 4
        float at[4], k1[4], k2[4], k3[4], k4[4];
        derivative(state, applied, k1);
        along(state, 0.5f * dt, k1, at);
        derivative(at, applied, k2);
        along(state, 0.5f * dt, k2, at);
        derivative(at, applied, k3);
        along(state, dt, k3, at);
        derivative(at, applied, k4);
        along(k1, 2.0f, k2, k1);
        along(k4, 2.0f, k3, k4);
        along(k1, 1.0f, k4, k1);
        along(state, dt * (1.0f / 6.0f), k1, at);

        float theta1 = trig::wrap_angle(at[0]);
        float theta2 = trig::wrap_angle(at[1]);
        state[0] = theta1;
        state[1] = theta2;
        state[2] = trig::clamp(at[2], -max_vel_1, max_vel_1);
        state[3] = trig::clamp(at[3], -max_vel_2, max_vel_2);

        terminated = -trig::cos(theta1) - trig::cos(theta1 + theta2) > goal_height;
        return terminated ? 0.0f : -1.0f;
    }

    __device__ __forceinline__ void observe(const float (&state)[STATE], float (&obs)[OBS]) const {
        trig::sin_cos(state[0], obs[1], obs[0]);
        trig::sin_cos(state[1], obs[3], obs[2]);
        obs[4] = state[2];
        obs[5] = state[3];
    }
};
