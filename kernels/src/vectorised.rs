//! One source, compiled for several instruction sets; the widest that the processor has is taken as the program runs.

/// An instruction set that functions are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of this architecture has.
    Baseline,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512.
    Avx512,
}

impl Level {
    /// The widest one that this processor has.
    #[inline]
    pub fn here() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            // Each is one load: the standard library remembers what it found.
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                return Level::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Level::Avx2;
            }
        }
        Level::Baseline
    }
}

/// Compiles a function once for every [`Level`], and calls the widest. Whatever it calls must be `#[inline(always)]` to be
/// compiled with it.
macro_rules! vectorised {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        $vis fn $name($($argument: $type),*) $(-> $output)? {
            #[inline(always)]
            fn baseline($($argument: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $output)? {
                baseline($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($argument: $type),*) $(-> $output)? {
                baseline($($argument),*)
            }

            match $crate::vectorised::Level::here() {
                // SAFETY: the processor has what the level names.
                #[cfg(target_arch = "x86_64")]
                $crate::vectorised::Level::Avx512 => unsafe { avx512($($argument),*) },
                // SAFETY: the same.
                #[cfg(target_arch = "x86_64")]
                $crate::vectorised::Level::Avx2 => unsafe { avx2($($argument),*) },
                _ => baseline($($argument),*),
            }
        }
    )*};
}

/// `a * b + c`, rounded once; in WebAssembly, which has no such instruction, rounded twice.
#[inline(always)]
pub fn fused(a: f32, b: f32, c: f32) -> f32 {
    match cfg!(target_arch = "wasm32") {
        true => a * b + c,
        false => a.mul_add(b, c),
    }
}
