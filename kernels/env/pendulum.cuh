// Pendulum-v1. Twin of src/env/pendulum.rs, bit for bit: same words, same order, nothing fused.
#pragma once

#include "../lib/trig.cuh"

struct Pendulum {
    static constexpr u32 STATE = 2, OBS = 3, ACTION = 1;

    float gravity;
    float mass;
    float length;
    float max_speed;
    float max_torque;
    float dt;
    float speed_cost;
    float torque_cost;
    float reset_angle;
    float reset_speed;

    __device__ __forceinline__ void reset(const float (&uniforms)[4], float (&state)[STATE]) const {
        state[0] = (2.0f * uniforms[0] - 1.0f) * reset_angle;
        state[1] = (2.0f * uniforms[1] - 1.0f) * reset_speed;
    }

    __device__ __forceinline__ float step(float (&state)[STATE], const float (&action)[ACTION],
                                             bool& terminated) const {
        float theta = state[0], theta_dot = state[1];
        float torque = trig::clamp(action[0], -max_torque, max_torque);
        // the price is that of the state before the step
        float cost = theta * theta + speed_cost * theta_dot * theta_dot + torque_cost * torque * torque;
        float pull = 3.0f * gravity / (2.0f * length);
        float push = 3.0f / (mass * length * length);
        theta_dot = theta_dot + (pull * trig::sin(theta) + push * torque) * dt;
        theta_dot = trig::clamp(theta_dot, -max_speed, max_speed);
        state[0] = trig::wrap_angle(theta + theta_dot * dt);
        state[1] = theta_dot;
        terminated = false;
        return -cost;
    }

    __device__ __forceinline__ void observe(const float (&state)[STATE], float (&obs)[OBS]) const {
        trig::sin_cos(state[0], obs[1], obs[0]);
        obs[2] = state[1];
    }
};
