// A target net follows the parameters that learn. Twin of src/op/target.rs.
//
// A lane per parameter, which takes further ones `d.lanes` on: 8 bytes read and 4 written each, side by side, so bound
// by memory. No sum, so no order.

#import lib/core
#import lib/wide

struct Shape {
    // the parameters that are followed: `len` from `first` on
    first: u32,
    len: u32,
    polyak: bool,
    // environments, and vector steps since this op ran last
    n: u32,
    every: u32,
    lanes: u32,
}

struct Launch {
    // vector steps since the clock that are done
    at: u32,
}

struct Args {
    params: ReadF,   // [params]
    hyper: ReadF,    // [LEN + groups * GROUP_LEN]
    clock: ReadU,    // [4]
    target_: UpdateF, // [len]
    scratch: UpdateF,
}

// A whole number that is not negative.
fn u64_of_f32(x: f32) -> U64 {
    let high = floor(x * (1.0 / 4294967296.0));
    return U64(u32(x - high * 4294967296.0), u32(high));
}

// Whether a multiple of UPDATE_FREQUENCY frames lies between the last time and now: the frames since the last multiple
// are fewer than those since the last time.
fn is_due(s: u32) -> bool {
    let now = get_u(a.clock.at + s * a.clock.stride + CLOCK_STEP) + launch.at;
    let every = u64_of_f32(get_f(a.hyper.at + s * a.hyper.stride + HYPER_UPDATE_FREQUENCY));
    return u64_less(u64_rem(u64_of_product(now, d.n), every), u64_of_product(d.every, d.n));
}

@compute @workgroup_size(THREADS)
fn target_follow(@builtin(workgroup_id) block: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (block.y >= sessions[0]) { return; }
    let s = sessions[1u + block.y];
    if (!d.polyak && !is_due(s)) { return; }
    let params = a.params.at + s * a.params.stride + d.first;
    let followers = a.target_.at + s * a.target_.stride;
    let weight = get_f(a.hyper.at + s * a.hyper.stride + HYPER_POLYAK);
    for (var i = block.x * THREADS + lane; i < d.len; i += d.lanes) {
        let x = get_f(params + i);
        let old = get_f(followers + i);
        put(followers + i, select(x, old + weight * (x - old), d.polyak));
    }
}
