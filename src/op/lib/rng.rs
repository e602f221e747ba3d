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
    /// Rows of a batch from the replay memory; index is the batch of the iteration.
    Sample = 5,
    /// Actions that SAC takes at the next observations, for its critics' targets.
    NextAction = 6,
    /// Actions that SAC's actor is judged by.
    ActorAction = 7,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123() {
        let pi = ([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(philox(pi.0, pi.1), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn equals_the_crate_rand_philox() {
        let (mut ctr, mut key) = ([1, 2, 3, 4], [5, 6]);
        for _ in 0..1_000 {
            let block = philox(ctr, key);
            assert_eq!(block, rand_philox::philox4x32_10(ctr, key));
            (ctr, key) = (block, [block[1] ^ ctr[0], block[2] ^ ctr[3]]);
        }
    }

    #[test]
    fn unit_is_uniform_and_never_0_or_1() {
        assert!(unit(0) > 0.0 && unit(!0) < 1.0);
        let n = 1 << 16;
        let mean = (0..n).map(|i| f64::from(unit(philox([i, 0, 0, 0], [7, 0])[0]))).sum::<f64>() / f64::from(n);
        // the standard error of the mean is 1 / sqrt(12 n) = 0.0011
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
    }
}
