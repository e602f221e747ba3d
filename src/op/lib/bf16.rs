//! Matrix products of operands rounded to bfloat16, to nearest even, with sums in f32.
//!
//! Two numbers that follow one another along the sum share a word, the earlier one in its low half: a multiply-add of
//! AVX-512 BF16 takes both, which is twice the rate of f32. Machines without it round alike and multiply in f32.

use super::simd::{Base, Init, Mat, Simd, gemm_body};
use crate::device::Precision;
use crate::device::cpu::Isa;

/// A number rounded to bfloat16, in the upper half of a word.
#[inline(always)]
fn upper(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
    // rounding must not carry a NaN to a number
    (if x.is_nan() { bits | 0x40_0000 } else { rounded }) & 0xFFFF_0000
}

/// A number rounded to bfloat16.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    f32::from_bits(upper(x))
}

/// Tolerance of a gradient whose products are in that format. Where operands are rounded, one of about ten thousand lies so
/// near the middle of two numbers of 8 bits that the definition, which sums in f64, rounds it the other way: that moves an
/// operand by 2^-8 of its size.
pub(in crate::op) fn tolerance(precision: Precision, declared: f64) -> f64 {
    if precision == Precision::Bf16 { 2e-3 } else { declared }
}

/// One word of two numbers.
#[inline(always)]
fn word(low: f32, high: f32) -> f32 {
    f32::from_bits(upper(low) >> 16 | upper(high))
}

/// Vectors of words of two numbers, whose [`Simd::madd`] adds both products.
trait Words: Simd {
    /// Words of `n` numbers that follow one another; the last of an odd number of them is paired with 0.
    ///
    /// # Safety
    /// `n` numbers are readable, half as many words (rounded up) are writable, and the instruction set is present.
    #[inline(always)]
    unsafe fn along(from: *const f32, n: usize, to: *mut f32) {
        // SAFETY: inside of what the caller promised
        unsafe {
            for i in 0..n / 2 {
                *to.add(i) = word(*from.add(2 * i), *from.add(2 * i + 1));
            }
            if n % 2 == 1 {
                *to.add(n / 2) = word(*from.add(n - 1), 0.0);
            }
        }
    }

    /// Words of the `n` numbers of two rows; without a second one, of 0.
    ///
    /// # Safety
    /// Rows of `n` numbers are readable, `n` words are writable, and the instruction set is present.
    #[inline(always)]
    unsafe fn across(low: *const f32, high: Option<*const f32>, n: usize, to: *mut f32) {
        // SAFETY: inside of what the caller promised
        unsafe {
            match high {
                Some(high) => (0..n).for_each(|i| *to.add(i) = word(*low.add(i), *high.add(i))),
                None => (0..n).for_each(|i| *to.add(i) = word(*low.add(i), 0.0)),
            }
        }
    }
}

/// Both halves of words, multiplied one after the other.
#[derive(Clone, Copy)]
struct Split;

impl Simd for Split {
    type V = [f32; 4];
    const W: usize = 4;
    const ROWS: usize = 4;
    const VECS: usize = 2;
    const FUSED: bool = Base::FUSED;
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: forwarded
        unsafe { Base::load(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: forwarded
        unsafe { Base::store(p, v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn madd(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let low = |x: f32| f32::from_bits(x.to_bits() << 16);
        let high = |x: f32| f32::from_bits(x.to_bits() & 0xFFFF_0000);
        std::array::from_fn(|i| Self::fma(high(a[i]), high(b[i]), Self::fma(low(a[i]), low(b[i]), c[i])))
    }
}

impl Words for Split {}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Simd, Words};
    use crate::op::lib::simd::{Avx2, Avx512};
    use std::arch::x86_64::*;

    /// [`super::Split`] eight words at a time.
    #[derive(Clone, Copy)]
    pub struct Split8;

    impl Simd for Split8 {
        type V = __m256;
        const W: usize = 8;
        const ROWS: usize = 4;
        const VECS: usize = 2;
        const FUSED: bool = true;
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self::V {
            // SAFETY: forwarded
            unsafe { Avx2::load(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: Self::V) {
            // SAFETY: forwarded
            unsafe { Avx2::store(p, v) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            // SAFETY: forwarded
            unsafe { Avx2::splat(x) }
        }
        #[inline(always)]
        unsafe fn madd(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: forwarded
            unsafe {
                let low = |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(x)));
                let high = |x| _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0xFFFF_0000_u32 as i32)));
                _mm256_fmadd_ps(high(a), high(b), _mm256_fmadd_ps(low(a), low(b), c))
            }
        }
    }

    impl Words for Split8 {}

    /// AVX-512 BF16.
    #[derive(Clone, Copy)]
    pub struct Dot;

    impl Simd for Dot {
        type V = __m512;
        const W: usize = 16;
        const ROWS: usize = 6;
        const VECS: usize = 4;
        const FUSED: bool = true;
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self::V {
            // SAFETY: forwarded
            unsafe { Avx512::load(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: Self::V) {
            // SAFETY: forwarded
            unsafe { Avx512::store(p, v) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            // SAFETY: forwarded
            unsafe { Avx512::splat(x) }
        }
        #[inline(always)]
        unsafe fn turn(from: (*const f32, usize), to: (*mut f32, usize)) {
            // SAFETY: forwarded
            unsafe { Avx512::turn(from, to) }
        }
        #[inline(always)]
        unsafe fn madd(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: the same bits, as words of two numbers; the instruction set is present
            unsafe {
                let [a, b] = std::mem::transmute::<[__m512; 2], [__m512bh; 2]>([a, b]);
                _mm512_dpbf16_ps(c, a, b)
            }
        }
    }

    /// The lanes of a vector that are below `n`.
    fn below(n: usize) -> u16 {
        if n < 16 { (1 << n) - 1 } else { u16::MAX }
    }

    impl Words for Dot {
        #[inline(always)]
        unsafe fn along(from: *const f32, n: usize, to: *mut f32) {
            // SAFETY: masked lanes are not touched
            unsafe {
                for i in (0..n).step_by(32) {
                    let (here, next) = (n - i, (n - i).saturating_sub(16));
                    let low = _mm512_maskz_loadu_ps(below(here), from.add(i));
                    let high = _mm512_maskz_loadu_ps(below(next), from.wrapping_add(i + 16));
                    let words = std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low));
                    _mm512_mask_storeu_ps(to.add(i / 2), below(here.div_ceil(2)), words);
                }
            }
        }

        #[inline(always)]
        unsafe fn across(low: *const f32, high: Option<*const f32>, n: usize, to: *mut f32) {
            // SAFETY: masked lanes are not touched
            unsafe {
                // a number of the lower half, then its neighbour of the upper one
                let both = _mm512_or_si512(
                    _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                    _mm512_slli_epi32::<16>(_mm512_set_epi32(
                        31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16,
                    )),
                );
                for i in (0..n).step_by(16) {
                    let mask = below(n - i);
                    let low = _mm512_maskz_loadu_ps(mask, low.add(i));
                    let high = match high {
                        Some(high) => _mm512_maskz_loadu_ps(mask, high.add(i)),
                        None => _mm512_setzero_ps(),
                    };
                    let numbers = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                    let words = _mm512_permutexvar_epi16(both, numbers);
                    _mm512_mask_storeu_ps(to.add(i), mask, _mm512_castsi512_ps(words));
                }
            }
        }
    }
}

/// Compiles a body, generic over [`Words`], for every instruction set and picks at run time.
macro_rules! per_words {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $t:ty),* $(,)?) = $body:ident;) => {
        $(#[$doc])*
        $vis unsafe fn $name(isa: Isa, $($arg: $t),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
                #[inline(never)]
                unsafe fn dot($($arg: $t),*) {
                    // SAFETY: the function's own promise
                    unsafe { $body::<x86::Dot>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                #[inline(never)]
                unsafe fn split8($($arg: $t),*) {
                    // SAFETY: the function's own promise
                    unsafe { $body::<x86::Split8>($($arg),*) }
                }
                match isa {
                    // SAFETY: this machine has both; the rest is the function's own promise
                    Isa::Avx512 if isa.multiplies_bf16() => return unsafe { dot($($arg),*) },
                    // SAFETY: `Isa` names only what this machine has; the rest as above
                    Isa::Avx512 | Isa::Avx2 => return unsafe { split8($($arg),*) },
                    Isa::Base => {}
                }
            }
            let _ = isa;
            // SAFETY: the function's own promise
            unsafe { $body::<Split>($($arg),*) }
        }
    };
}

/// The right operand of [`gemm`]: where it starts, and words from row to row.
#[derive(Clone, Copy)]
pub(super) enum Right {
    /// Numbers, a row for each step of the sum.
    Numbers(*const f32, usize),
    /// Words, a row for two steps of the sum.
    Words(*const f32, usize),
}

/// Words of room that [`gemm`] needs for a product of this size.
pub(super) const fn room(m: usize, n: usize, k: usize) -> usize {
    (m + n) * k.div_ceil(2)
}

per_words! {
    /// `c[m, n] = init + a[m, k] b[k, n]` as [`super::simd::gemm`], of operands rounded to bfloat16. One of the strides of
    /// `a` is 1.
    ///
    /// # Safety
    /// All matrices are readable, and `c` is writable memory of its own. `room` has [`room`] words, fewer by those of `b`
    /// where it is words already.
    pub(super) unsafe fn gemm(
        size: [usize; 3],
        a: Mat,
        b: Right,
        c: (*mut f32, usize),
        init: Init,
        room: &mut [f32],
    ) = product;
}

#[inline(always)]
unsafe fn product<I: Words>(
    [m, n, k]: [usize; 3],
    a: Mat,
    b: Right,
    c: (*mut f32, usize),
    init: Init,
    room: &mut [f32],
) {
    let half = k.div_ceil(2);
    let numbers = if let Right::Numbers(..) = b { n } else { 0 };
    assert!(room.len() >= (m + numbers) * half);
    let room = room.as_mut_ptr();
    // SAFETY: inside of the matrices and of the room
    unsafe {
        let left = if a.col == 1 {
            for i in 0..m {
                I::along(a.start.add(i * a.row), k, room.add(i * half));
            }
            Mat { start: room, row: half, col: 1 }
        } else {
            straight::<I>(a.start, [k, m], a.col, room, m);
            Mat { start: room, row: 1, col: m }
        };
        let right = match b {
            Right::Words(start, row) => (start, row),
            Right::Numbers(start, row) => {
                let to = room.add(m * half);
                straight::<I>(start, [k, n], row, to, n);
                (to.cast_const(), n)
            }
        };
        gemm_body::<I>([m, n, half], left, right, c, init);
    }
}

per_words! {
    /// Lays a matrix of `rows` rows of `cols` numbers, `row` apart, out as right operand: words of two rows, `wide` of them
    /// to a row, of which those from `cols` on are 0.
    ///
    /// # Safety
    /// The matrix is readable; half as many rows of `wide` words are writable.
    pub(super) unsafe fn lay_out(from: *const f32, size: [usize; 2], row: usize, to: *mut f32, wide: usize) = straight;
}

#[inline(always)]
unsafe fn straight<I: Words>(from: *const f32, [rows, cols]: [usize; 2], row: usize, to: *mut f32, wide: usize) {
    // SAFETY: inside of both matrices
    unsafe {
        for p in 0..rows.div_ceil(2) {
            let (low, to) = (from.add(2 * p * row), to.add(p * wide));
            I::across(low, if 2 * p + 1 < rows { Some(low.add(row)) } else { None }, cols, to);
            std::slice::from_raw_parts_mut(to.add(cols), wide - cols).fill(0.0);
        }
    }
}

per_words! {
    /// The same of the matrix turned: words of two columns, `wide` of them to a row, of which those from `rows` on are 0.
    ///
    /// # Safety
    /// The matrix is readable; half as many rows as it has columns, of `wide` words, are writable. `wide` is a multiple of
    /// 16.
    pub(super) unsafe fn turn(from: *const f32, size: [usize; 2], row: usize, to: *mut f32, wide: usize) = turned;
}

/// Squares of this many rows and words are turned in registers.
const SIDE: usize = 16;

#[inline(always)]
unsafe fn turned<I: Words>(from: *const f32, [rows, cols]: [usize; 2], row: usize, to: *mut f32, wide: usize) {
    let (mut square, mut last) = ([[0.0; SIDE]; SIDE], [[0.0; SIDE]; SIDE]);
    // SAFETY: inside of both matrices
    unsafe {
        for i in (0..wide).step_by(SIDE) {
            for col in (0..cols).step_by(2 * SIDE) {
                let n = (cols - col).min(2 * SIDE);
                for (r, words) in square.iter_mut().enumerate() {
                    if i + r < rows {
                        I::along(from.add((i + r) * row + col), n, words.as_mut_ptr());
                    } else {
                        words.fill(0.0);
                    }
                }
                let to = to.add(col / 2 * wide + i);
                if n == 2 * SIDE {
                    I::turn((square.as_ptr().cast(), SIDE), (to, wide));
                } else {
                    I::turn((square.as_ptr().cast(), SIDE), (last.as_mut_ptr().cast(), SIDE));
                    for (j, words) in last.iter().take(n.div_ceil(2)).enumerate() {
                        to.add(j * wide).cast::<[f32; SIDE]>().write_unaligned(*words);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Draw;

    #[test]
    fn rounding_is_to_nearest_even() {
        let bits = |x: u32| round(f32::from_bits(x)).to_bits();
        // below, on and above the middle of two numbers; the last of an exponent; both signs
        assert_eq!(
            [0x3F80_7FFF, 0x3F80_8000, 0x3F81_8000, 0x3F80_8001].map(bits),
            [0x3F80, 0x3F80, 0x3F82, 0x3F81].map(|x: u32| x << 16)
        );
        assert_eq!([0x3FFF_FFFF, 0xBFFF_FFFF, 0x7F7F_FFFF].map(bits), [0x4000, 0xC000, 0x7F80].map(|x: u32| x << 16));
        assert_eq!([0.0, -0.0, f32::INFINITY].map(|x| round(x).to_bits()), [0, 1 << 31, 0x7F80_0000]);
        assert!(
            [0x7FC0_0000, 0x7FFF_FFFF, 0xFFFF_FFFF, 0x7F80_0001].iter().all(|&x| round(f32::from_bits(x)).is_nan())
        );
    }

    /// Products of odd sizes from every layout of both operands, against sums in f64 of operands that were rounded before.
    #[test]
    fn products_are_those_of_rounded_operands_on_every_instruction_set() {
        let mut draw = Draw::new(7);
        for [m, n, k] in [[1, 16, 1], [6, 64, 2], [7, 80, 33], [13, 112, 64], [64, 48, 31], [3, 32, 5]] {
            let mut numbers = |len: usize| -> Vec<f32> { (0..len).map(|_| draw.range(-2.0, 2.0)).collect() };
            let (a, b, bias) = (numbers(m * k), numbers(k * n), numbers(n));
            let of = |start: &[f32], i: usize| f64::from(round(start[i]));
            let turned: Vec<f32> = (0..k * m).map(|at| a[at % m * k + at / m]).collect();
            let back: Vec<f32> = (0..n * k).map(|at| b[at % k * n + at / k]).collect();
            for isa in Isa::available() {
                let half = k.div_ceil(2);
                let (mut laid, mut found) = (vec![f32::NAN; half * n], vec![f32::NAN; half * n]);
                // SAFETY: vectors of these sizes
                unsafe {
                    lay_out(isa, b.as_ptr(), [k, n], n, laid.as_mut_ptr(), n);
                    turn(isa, back.as_ptr(), [n, k], k, found.as_mut_ptr(), n);
                }
                assert!(laid == found, "{}: {n} x {k} turned", isa.name());
                let lefts = [Mat { start: a.as_ptr(), row: k, col: 1 }, Mat { start: turned.as_ptr(), row: 1, col: m }];
                for (left, right) in lefts.into_iter().flat_map(|left| {
                    [Right::Words(laid.as_ptr(), n), Right::Numbers(b.as_ptr(), n)].map(|right| (left, right))
                }) {
                    let (mut c, mut space) = (vec![f32::NAN; m * n], vec![f32::NAN; room(m, n, k)]);
                    let to = (c.as_mut_ptr(), n);
                    // SAFETY: as above
                    unsafe { gemm(isa, [m, n, k], left, right, to, Init::Bias(bias.as_ptr()), &mut space) };
                    for (at, &c) in c.iter().enumerate() {
                        let (i, j) = (at / n, at % n);
                        let sum: f64 = (0..k).map(|p| of(&a, i * k + p) * of(&b, p * n + j)).sum();
                        let sum = sum + f64::from(bias[j]);
                        assert!((f64::from(c) - sum).abs() < 1e-5 * (1.0 + sum.abs()), "{}: {c}, {sum}", isa.name());
                    }
                }
            }
        }
    }
}
