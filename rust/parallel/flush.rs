//! Denormal numbers flushed to zero for the length of a job.

use std::marker::PhantomData;

/// While it lives, the calling thread reads and writes denormal numbers as zeros; dropped, it puts
/// the mode back if it was this guard that set it.
///
/// A state that decays towards zero passes through denormals (below 1.2e-38 in float32), which cost
/// x86 cores some hundred cycles an operation and change no result that anybody looks at. Does
/// nothing on processors other than x86-64 and AArch64.
///
/// The compiler knows of no mode but the default: it may compute ahead of time what denormals give,
/// or move arithmetic in or out. Nothing relies on where exactly the mode begins and ends, and no
/// bound nor address comes from a float.
pub struct FlushDenormals {
    before: u64,
    /// The mode belongs to the thread, so the guard must not leave it.
    _on_this_thread: PhantomData<*const ()>,
}

impl FlushDenormals {
    /// Sets the mode; inside another guard, where it is set already, nothing is written.
    #[must_use = "the mode lasts as long as the guard"]
    pub fn begin() -> Self {
        let before = mode::read();
        if before & mode::FLUSH != mode::FLUSH {
            mode::write(before | mode::FLUSH);
        }
        Self {
            before,
            _on_this_thread: PhantomData,
        }
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        if self.before & mode::FLUSH != mode::FLUSH {
            mode::write(mode::read() & !mode::FLUSH | self.before & mode::FLUSH);
        }
    }
}

/// The register that holds the thread's floating-point mode: MXCSR.
#[cfg(target_arch = "x86_64")]
mod mode {
    use std::arch::asm;

    /// Flush-to-zero (bit 15) and denormals-are-zero (bit 6).
    pub const FLUSH: u64 = 1 << 15 | 1 << 6;

    pub fn read() -> u64 {
        let mut value = 0_u32;
        // SAFETY: stores the 4 bytes of MXCSR into `value`, and every x86-64 processor has it.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        u64::from(value)
    }

    pub fn write(value: u64) {
        let value = value as u32;
        // SAFETY: `value` is what `read` gave but for the two FLUSH bits: exceptions stay
        // masked and rounding as it was, and what denormals become may be either (see the type).
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags))
        };
    }
}

/// The register that holds the thread's floating-point mode: FPCR.
#[cfg(target_arch = "aarch64")]
mod mode {
    use std::arch::asm;

    /// FZ (bit 24): flushes denormal inputs and results.
    pub const FLUSH: u64 = 1 << 24;

    pub fn read() -> u64 {
        let value: u64;
        // SAFETY: reads a register that user code may read.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }

    pub fn write(value: u64) {
        // SAFETY: `value` is what `read` gave but for the FLUSH bit: exceptions stay
        // masked and rounding as it was, and what denormals become may be either (see the type).
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags)) };
    }
}

/// No mode that we know of.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod mode {
    pub const FLUSH: u64 = 0;

    pub fn read() -> u64 {
        0
    }

    pub fn write(_value: u64) {}
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use crate::parallel::run;

    #[test]
    fn guards_that_end_in_any_order_leave_the_mode_as_it_was() {
        let halved = || std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5);
        let (first, second) = (
            super::FlushDenormals::begin(),
            super::FlushDenormals::begin(),
        );
        assert_eq!(halved(), 0.0);
        drop(first);
        drop(second);
        assert!(halved() > 0.0);
    }

    #[test]
    fn denormals_are_flushed_inside_and_kept_outside() {
        use std::hint::black_box;
        let halved = || black_box(f32::MIN_POSITIVE) * black_box(0.5);
        let doubled = || black_box(f32::from_bits(1)) * black_box(2.0);
        for workers in [1, 4] {
            run(workers, |_| {
                run(1, |_| assert_eq!(halved(), 0.0));
                // The mode is still on where a job inside has ended.
                assert_eq!(halved(), 0.0);
                assert_eq!(doubled(), 0.0);
            });
            assert!(halved() > 0.0);
            assert!(doubled() > 0.0);
        }
    }
}
