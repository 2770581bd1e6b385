//! Asking for memory before it is needed.
//!
//! The tables of the write path (aliases, rows, chunk buffers) are larger than the caches. Where the order of a body is not the order in
//! memory, every sample waits for one miss after another; told some samples ahead, the processor fetches them side by side. Loops of
//! independent loads overlap too, but only as far as the processor looks ahead, a few hundred instructions.
//!
//! The one place outside of `storage/reactor` and `storage/chunk` with unsafe code, a single instruction.

/// Begins to fetch the cache lines that a value lies in: its first, its last, and the one 64 bytes in. Never changes what a program means.
///
/// Cost: up to three instructions that wait for nothing; a line that is there already costs nothing more. Nothing on other processors than x86-64.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    let first: *const u8 = std::ptr::from_ref(value).cast();
    line(first);
    if size_of::<T>() > 64 {
        line(first.wrapping_add(64));
    }
    if size_of::<T>() > 1 {
        line(first.wrapping_add(size_of::<T>() - 1));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "there is no safe prefetch; measured in docs/performance.md"
)]
fn line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of every x86-64. A prefetch reads nothing that the program sees and never faults, whatever the address;
    // here it is one of a live value anyway, which `prefetch` holds a reference to.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn line(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_size_may_be_asked_for() {
        prefetch(&());
        prefetch(&1u8);
        prefetch(&[7u64; 100]);
        let empty: [u64; 0] = [];
        prefetch(&empty);
    }
}
