// MountainCarContinuous-v0. Twin of src/env/mountain_car_continuous.rs, bit for bit: same words, order, nothing fused.
#pragma once

#include "../lib/trig.cuh"

struct MountainCarContinuous {
    static constexpr u32 STATE = 2, OBS = 2, ACTION = 1;

    float min_position;
    float max_position;
    float max_speed;
    float goal_position;
    float goal_velocity;
    float max_action;
    float power;
    float gravity;
    float goal_reward;
    float action_cost;
    float reset_low;
    float reset_high;

    __device__ __forceinline__ void reset(const float (&uniforms)[4], float (&state)[STATE]) const {
        state[0] = reset_low + uniforms[0] * (reset_high - reset_low);
        state[1] = 0.0f;
    }

    __device__ __forceinline__ float step(float (&state)[STATE], const float (&action)[ACTION],
                                             bool& terminated) const {
        float position = state[0], velocity = state[1];
        float throttle = trig::clamp(action[0], -max_action, max_action);
        velocity = velocity + (throttle * power - gravity * trig::cos(3.0f * position));
        velocity = trig::clamp(velocity, -max_speed, max_speed);
        position = trig::clamp(position + velocity, min_position, max_position);
        // the left wall takes all speed
        velocity = (position <= min_position) & (velocity < 0.0f) ? 0.0f : velocity;
        terminated = (position >= goal_position) & (velocity >= goal_velocity);
        state[0] = position, state[1] = velocity;
        float prize = terminated ? goal_reward : 0.0f;
        return prize - action[0] * action[0] * action_cost;
    }

    __device__ __forceinline__ void observe(const float (&state)[STATE], float (&obs)[OBS]) const {
        obs[0] = state[0];
        obs[1] = state[1];
    }
};
