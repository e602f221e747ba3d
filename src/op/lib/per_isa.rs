//! One body, compiled once per instruction set.

/// Defines `fn name(isa, args..)` whose body exists once per [`Isa`](crate::device::cpu::Isa) and is chosen at run time.
///
/// The body is plain loops over slices that the compiler vectorises; it fuses no multiply-add, so all variants give the
/// same bits. `isa` must come from `Isa::available`.
#[macro_export]
macro_rules! per_isa {
    ($( $(#[$doc:meta])* $vis:vis fn $name:ident $(<$g:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block )*) => { $(
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$g: $bound>)? (isa: $crate::device::cpu::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<$g: $bound>)? ($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$g: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    body $(::<$g>)? ($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$g: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    body $(::<$g>)? ($($arg),*)
                }
                match isa {
                    // SAFETY: an `Isa` is made by detection
                    $crate::device::cpu::Isa::Avx512 => return unsafe { avx512 $(::<$g>)? ($($arg),*) },
                    // SAFETY: as above
                    $crate::device::cpu::Isa::Avx2 => return unsafe { avx2 $(::<$g>)? ($($arg),*) },
                    $crate::device::cpu::Isa::Base => {}
                }
            }
            let _ = isa;
            body $(::<$g>)? ($($arg),*)
        }
    )* };
}
