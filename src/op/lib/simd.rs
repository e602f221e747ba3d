//! The vector instructions that hand-written kernels need, on three instruction sets, and the one matrix product of the
//! project.
//!
//! Every sum over `k` of [`gemm`] runs in order in one lane, so the width of a vector never changes a bit; only whether a
//! multiply-add rounds once (AVX-512, AVX2, NEON) or twice (SSE2) does.

/// A vector of `W` f32 lanes.
pub trait Simd: Copy + 'static {
    type V: Copy;
    const W: usize;
    /// Rows and vectors of the widest register tile.
    const ROWS: usize;
    const VECS: usize;
    /// Whether [`Simd::madd`] rounds once.
    const FUSED: bool;
    /// # Safety
    /// `W` words are readable at `p`, and the instruction set is present (all functions).
    unsafe fn load(p: *const f32) -> Self::V;
    /// # Safety
    /// `W` words are writable at `p`.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// # Safety
    /// The instruction set is present.
    unsafe fn splat(x: f32) -> Self::V;
    /// a * b + c
    /// # Safety
    /// The instruction set is present.
    unsafe fn madd(a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// Turns a square of 16 rows of 16 words: rows of `from` and `to` are so many words apart.
    /// # Safety
    /// Both squares are in memory of their own, and the instruction set is present.
    #[inline(always)]
    unsafe fn turn(from: (*const f32, usize), to: (*mut f32, usize)) {
        for j in 0..16 {
            // SAFETY: inside of the squares
            let row: [f32; 16] = std::array::from_fn(|i| unsafe { *from.0.add(i * from.1 + j) });
            // SAFETY: as above
            unsafe { to.0.add(j * to.1).cast::<[f32; 16]>().write_unaligned(row) };
        }
    }

    /// Scalar `a * b + c`, rounded as [`Simd::madd`] rounds; vectorises inside kernels of this instruction set.
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        if Self::FUSED { a.mul_add(b, c) } else { a * b + c }
    }
}

/// The instructions that the target always has, four lanes at a time.
#[derive(Clone, Copy)]
pub struct Base;

impl Simd for Base {
    type V = [f32; 4];
    const W: usize = 4;
    const ROWS: usize = 4;
    const VECS: usize = 2;
    const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 4] {
        // SAFETY: forwarded
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 4]) {
        // SAFETY: forwarded
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn madd(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| Self::fma(a[i], b[i], c[i]))
    }
}

/// AVX2 with FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Simd for Avx2 {
    type V = std::arch::x86_64::__m256;
    const W: usize = 8;
    const ROWS: usize = 6;
    const VECS: usize = 2;
    const FUSED: bool = true;
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: forwarded
        unsafe { std::arch::x86_64::_mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: forwarded
        unsafe { std::arch::x86_64::_mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        // SAFETY: forwarded
        unsafe { std::arch::x86_64::_mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn madd(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: forwarded
        unsafe { std::arch::x86_64::_mm256_fmadd_ps(a, b, c) }
    }
}

/// AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Simd for Avx512 {
    type V = std::arch::x86_64::__m512;
    const W: usize = 16;
    const ROWS: usize = 6;
    const VECS: usize = 4;
    const FUSED: bool = true;
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: forwarded
        unsafe { std::arch::x86_64::_mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: forwarded
        unsafe { std::arch::x86_64::_mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        // SAFETY: forwarded
        unsafe { std::arch::x86_64::_mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn madd(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: forwarded
        unsafe { std::arch::x86_64::_mm512_fmadd_ps(a, b, c) }
    }
    // in four rounds: words of two rows side by side, then of four, of eight, of all sixteen
    #[inline(always)]
    unsafe fn turn(from: (*const f32, usize), to: (*mut f32, usize)) {
        use std::arch::x86_64::*;
        // SAFETY: inside of the squares
        unsafe {
            let row = |i: usize| _mm512_loadu_ps(from.0.add(i * from.1));
            let mut x: [__m512; 16] = std::array::from_fn(|_| _mm512_setzero_ps());
            for i in (0..16).step_by(4) {
                let [a, b, c, d] = [row(i), row(i + 1), row(i + 2), row(i + 3)];
                let double = |x| _mm512_castps_pd(x);
                let [low, high] = [_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)].map(double);
                let [next, after] = [_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)].map(double);
                x[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, next));
                x[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, next));
                x[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, after));
                x[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, after));
            }
            for j in 0..4 {
                let [a, b, c, d] = [x[j], x[4 + j], x[8 + j], x[12 + j]];
                let [even, odd] = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b)];
                let [next, after] = [_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xDD>(c, d)];
                _mm512_storeu_ps(to.0.add(j * to.1), _mm512_shuffle_f32x4::<0x88>(even, next));
                _mm512_storeu_ps(to.0.add((4 + j) * to.1), _mm512_shuffle_f32x4::<0x88>(odd, after));
                _mm512_storeu_ps(to.0.add((8 + j) * to.1), _mm512_shuffle_f32x4::<0xDD>(even, next));
                _mm512_storeu_ps(to.0.add((12 + j) * to.1), _mm512_shuffle_f32x4::<0xDD>(odd, after));
            }
        }
    }
}

/// Compiles one `#[inline(always)]` body, generic over [`Simd`], for every instruction set and picks at run time.
#[macro_export]
macro_rules! per_simd {
    ($(#[$doc:meta])* $vis:vis fn $($rest:tt)*) => {
        $crate::per_simd!(@ [$(#[$doc])* $vis] [] $($rest)*);
    };
    ($(#[$doc:meta])* $vis:vis unsafe fn $($rest:tt)*) => {
        $crate::per_simd!(@ [$(#[$doc])* $vis] [unsafe] $($rest)*);
    };
    (
        @ [$($head:tt)*] [$($unsafe:tt)?]
        $name:ident $(<$g:ident: $bound:path>)? ($($arg:ident: $t:ty),* $(,)?) = $body:ident;
    ) => {
        $($head)* $($unsafe)? fn $name $(<$g: $bound>)? (isa: $crate::device::cpu::Isa, $($arg: $t),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[inline(never)]
            $($unsafe)? fn avx512 $(<$g: $bound>)? ($($arg: $t),*) {
                $crate::per_simd!(@call [$($unsafe)?] $body::<$crate::op::lib::simd::Avx512 $(, $g)?>($($arg),*))
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[inline(never)]
            $($unsafe)? fn avx2 $(<$g: $bound>)? ($($arg: $t),*) {
                $crate::per_simd!(@call [$($unsafe)?] $body::<$crate::op::lib::simd::Avx2 $(, $g)?>($($arg),*))
            }
            #[inline(never)]
            $($unsafe)? fn base $(<$g: $bound>)? ($($arg: $t),*) {
                $crate::per_simd!(@call [$($unsafe)?] $body::<$crate::op::lib::simd::Base $(, $g)?>($($arg),*))
            }
            match isa {
                // SAFETY: `Isa` names only what this machine has
                #[cfg(target_arch = "x86_64")]
                $crate::device::cpu::Isa::Avx512 => unsafe { avx512 $(::<$g>)? ($($arg),*) },
                // SAFETY: as above
                #[cfg(target_arch = "x86_64")]
                $crate::device::cpu::Isa::Avx2 => unsafe { avx2 $(::<$g>)? ($($arg),*) },
                // SAFETY: what the caller promised, where it had to promise anything
                _ => $crate::per_simd!(@call [$($unsafe)?] base $(::<$g>)? ($($arg),*)),
            }
        }
    };
    // SAFETY: the function's own promise
    (@call [unsafe] $($call:tt)*) => { unsafe { $($call)* } };
    (@call [] $($call:tt)*) => { $($call)* };
}

/// A matrix in memory: element (i, j) is at `start + i * row + j * col`.
#[derive(Clone, Copy)]
pub struct Mat {
    pub start: *const f32,
    pub row: usize,
    pub col: usize,
}

/// What the result of [`gemm`] starts from.
#[derive(Clone, Copy)]
pub enum Init {
    Zero,
    /// The same `n` words in every row.
    Bias(*const f32),
    /// What is in `c`.
    Add,
}

crate::per_simd! {
    /// `c[m, n] = init + a[m, k] b[k, n]`, where `n` is a multiple of 16 and the rows of `b` and `c` are contiguous
    /// (start, words from row to row). Compiled once per instruction set: a call costs nothing beside the product.
    ///
    /// # Safety
    /// All matrices are readable, and `c` is writable memory of its own.
    pub unsafe fn gemm(size: [usize; 3], a: Mat, b: (*const f32, usize), c: (*mut f32, usize), init: Init) = gemm_body;
}

#[inline(always)]
pub(super) unsafe fn gemm_body<I: Simd>(
    size: [usize; 3],
    a: Mat,
    b: (*const f32, usize),
    c: (*mut f32, usize),
    init: Init,
) {
    let [m, n, k] = size;
    let mut j = 0;
    // SAFETY: tiles stay inside m x n
    unsafe {
        while j + I::W * I::VECS <= n {
            if I::VECS == 4 {
                columns::<I, 4>(m, k, a, b, c, init, j)
            } else {
                columns::<I, 2>(m, k, a, b, c, init, j)
            }
            j += I::W * I::VECS;
        }
        while j + I::W * 2 <= n {
            columns::<I, 2>(m, k, a, b, c, init, j);
            j += I::W * 2;
        }
        while j < n {
            columns::<I, 1>(m, k, a, b, c, init, j);
            j += I::W;
        }
    }
}

#[inline(always)]
unsafe fn columns<I: Simd, const NV: usize>(
    m: usize,
    k: usize,
    a: Mat,
    b: (*const f32, usize),
    c: (*mut f32, usize),
    init: Init,
    j: usize,
) {
    let mut i = 0;
    // SAFETY: forwarded
    unsafe {
        while i + I::ROWS <= m {
            if I::ROWS == 6 {
                tile::<I, 6, NV>(k, a, b, c, init, i, j)
            } else {
                tile::<I, 4, NV>(k, a, b, c, init, i, j)
            }
            i += I::ROWS;
        }
        if i + 4 <= m {
            tile::<I, 4, NV>(k, a, b, c, init, i, j);
            i += 4;
        }
        if i + 2 <= m {
            tile::<I, 2, NV>(k, a, b, c, init, i, j);
            i += 2;
        }
        if i < m {
            tile::<I, 1, NV>(k, a, b, c, init, i, j);
        }
    }
}

/// One register tile: `MR` rows of `NV` vectors stay in registers over the whole sum.
#[inline(always)]
unsafe fn tile<I: Simd, const MR: usize, const NV: usize>(
    k: usize,
    a: Mat,
    b: (*const f32, usize),
    c: (*mut f32, usize),
    init: Init,
    i: usize,
    j: usize,
) {
    // SAFETY: forwarded
    unsafe {
        let mut sum = [[I::splat(0.0); NV]; MR];
        match init {
            Init::Zero => {}
            Init::Bias(bias) => {
                for v in 0..NV {
                    let bias = I::load(bias.add(j + v * I::W));
                    for r in 0..MR {
                        sum[r][v] = bias;
                    }
                }
            }
            Init::Add => {
                for r in 0..MR {
                    for v in 0..NV {
                        sum[r][v] = I::load(c.0.add((i + r) * c.1 + j + v * I::W));
                    }
                }
            }
        }
        let mut a_at = a.start.add(i * a.row);
        let mut b_at = b.0.add(j);
        for _ in 0..k {
            let mut right = [I::splat(0.0); NV];
            for v in 0..NV {
                right[v] = I::load(b_at.add(v * I::W));
            }
            for r in 0..MR {
                let left = I::splat(*a_at.add(r * a.row));
                for v in 0..NV {
                    sum[r][v] = I::madd(left, right[v], sum[r][v]);
                }
            }
            a_at = a_at.wrapping_add(a.col);
            b_at = b_at.wrapping_add(b.1);
        }
        for r in 0..MR {
            for v in 0..NV {
                I::store(c.0.add((i + r) * c.1 + j + v * I::W), sum[r][v]);
            }
        }
    }
}

/// Sum of 16 lanes as a fixed tree, the same on every instruction set.
#[inline(always)]
pub fn sum16(lanes: &[f32; 16]) -> f32 {
    let mut x = *lanes;
    let mut half = 8;
    while half > 0 {
        for i in 0..half {
            x[i] += x[i + half];
        }
        half /= 2;
    }
    x[0]
}
