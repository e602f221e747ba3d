// Random numbers as a function of (key, counter): Philox4x32-10 (Salmon et al. 2011). Twin of src/op/lib/rng.rs, bit
// for bit.
//
// key = (seed, session), counter = (env, step, purpose, index).

// High and low word of a product. WGSL has no words of 64 bits, so halves of 16 bits are multiplied.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let a_low = a & 0xFFFFu;
    let a_high = a >> 16u;
    let b_low = b & 0xFFFFu;
    let b_high = b >> 16u;
    // neither sum can pass 2^32: a product of halves is at most 2^32 - 2^17 + 1
    let cross = a_high * b_low + ((a_low * b_low) >> 16u);
    let carry = a_low * b_high + (cross & 0xFFFFu);
    return vec2<u32>(a_high * b_high + (cross >> 16u) + (carry >> 16u), a * b);
}

// One block of Philox4x32-10.
fn philox(first: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var ctr = first;
    var k = key;
    for (var round = 0u; round < 10u; round++) {
        let p0 = wide_product(ctr.x, 0xD2511F53u);
        let p1 = wide_product(ctr.z, 0xCD9E8D57u);
        ctr = vec4<u32>(p1.x ^ ctr.y ^ k.x, p1.y, p0.x ^ ctr.w ^ k.y, p0.y);
        k = k + vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return ctr;
}

// A word as a uniform number in (0, 1), never 0 and never 1; every step is exact.
fn unit(word: u32) -> f32 {
    return (f32(word >> 9u) + 0.5) * (1.0 / 8388608.0);
}
