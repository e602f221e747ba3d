// MountainCar-v0. Twin of src/env/mountain_car.rs, bit for bit: same words, same order, nothing fused.
#pragma once

#include "../lib/trig.cuh"

struct MountainCar {
    static constexpr u32 STATE = 2, OBS = 2, ACTION = 1;

    float min_position;
    float max_position;
    float max_speed;
    float goal_position;
    float goal_velocity;
    float force;
    float gravity;
    float reset_low;
    float reset_high;

    __device__ __forceinline__ void reset(const float (&uniforms)[4], float (&state)[STATE]) const {
        state[0] = reset_low + uniforms[0] * (reset_high - reset_low);
        state[1] = 0.0f;
    }

    __device__ __forceinline__ float step(float (&state)[STATE], const float (&action)[ACTION],
                                             bool& terminated) const {
        float position = state[0], velocity = state[1];
        velocity = velocity + ((action[0] - 1.0f) * force - trig::cos(3.0f * position) * gravity);
        velocity = trig::clamp(velocity, -max_speed, max_speed);
        position = trig::clamp(position + velocity, min_position, max_position);
        // the left wall takes all speed
        velocity = (position <= min_position) & (velocity < 0.0f) ? 0.0f : velocity;
        terminated = (position >= goal_position) & (velocity >= goal_velocity);
        state[0] = position, state[1] = velocity;
        return -1.0f;
    }

    __device__ __forceinline__ void observe(const float (&state)[STATE], float (&obs)[OBS]) const {
        obs[0] = state[0];
        obs[1] = state[1];
    }
};
