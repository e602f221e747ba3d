//! Randomness is a function of (key, counter): Philox4x32-10 (Salmon et al. 2011), pinned to the Random123 vectors.
//!
//! key = (seed, session), counter = (env, step, purpose, index). Nothing to carry, nothing to checkpoint, and the order
//! of evaluation does not matter.

/// What a random number is for: the third word of the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// First states; index counts blocks of four numbers.
    Reset = 0,
    /// Actions sampled from the policy.
    Action = 1,
    /// The order of rows in an epoch.
    Shuffle = 2,
    /// Initial parameters.
    Init = 3,
    /// Everything that tests and tools draw.
    Test = 4,
}

/// One block of Philox4x32-10.
#[inline(always)]
pub fn philox(mut ctr: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let p0 = u64::from(ctr[0]) * 0xD251_1F53;
        let p1 = u64::from(ctr[2]) * 0xCD9E_8D57;
        ctr = [(p1 >> 32) as u32 ^ ctr[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ ctr[3] ^ key[1], p0 as u32];
    }
    ctr
}

/// A word as a uniform number in (0, 1), never 0 and never 1: `((w >> 9) + 0.5) / 2^23`.
#[inline(always)]
pub fn unit(word: u32) -> f32 {
    // the shifted word fits in 23 bits, so the signed conversion (one instruction on every vector unit) is exact
    ((word >> 9) as i32 as f32 + 0.5) * (1.0 / 8_388_608.0)
}
