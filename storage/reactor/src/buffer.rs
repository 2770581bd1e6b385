//! Aligned memory for I/O, owned by the operation while it is in flight.
//!
//! A [`Buffer`] moves into an [`Op`](crate::Op) and comes back with its result, so safe code cannot
//! touch, move or free memory that the kernel is reading or writing. It is aligned to
//! [`DIRECT_ALIGNMENT`] so that O_DIRECT accepts it, and its heap address does not change when the
//! struct is moved.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::limits::{BUFFER_BYTES_MAX, DIRECT_ALIGNMENT, POOL_BUFFERS_MAX, POOL_BYTES_MAX};

/// Aligned bytes on the heap; derefs to the whole of them.
pub struct Buffer {
    /// Start of an allocation of `layout(capacity)`, owned by this struct alone.
    start: NonNull<u8>,
    /// A multiple of [`DIRECT_ALIGNMENT`], not zero.
    capacity: usize,
}

impl Buffer {
    /// Zeroed memory of at least `bytes`, rounded up to [`DIRECT_ALIGNMENT`].
    ///
    /// Panics above [`BUFFER_BYTES_MAX`]. Cost: one allocation; prefer [`crate::Reactor::buffer`].
    pub fn new(bytes: usize) -> Buffer {
        assert!(
            bytes <= BUFFER_BYTES_MAX,
            "a buffer of {bytes} bytes is beyond the bound"
        );
        let capacity = bytes.max(1).next_multiple_of(DIRECT_ALIGNMENT);
        let layout = Buffer::layout(capacity);
        // SAFETY: the layout has a size above zero: `capacity` is at least DIRECT_ALIGNMENT by the
        // line before the last.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        assert!(start.as_ptr().addr().is_multiple_of(DIRECT_ALIGNMENT));
        Buffer { start, capacity }
    }

    /// Bytes held; the same as `len()` of the slice.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The first byte, for the kernel.
    pub(crate) fn as_raw(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, DIRECT_ALIGNMENT).expect("capacity is bounded")
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is the start of `capacity` bytes, initialised by `alloc_zeroed` and owned
        // by `self` (kept by `new`, the only constructor). The kernel does not write them now: it
        // got them only from an operation that owned this struct and has completed (kept by the
        // worlds, which hold the struct until then).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.capacity) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the slice the only access.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout (capacity never changes), freed once, as
        // drop runs once. No operation uses it: an operation in flight owns its buffer.
        unsafe { dealloc(self.start.as_ptr(), Buffer::layout(self.capacity)) }
    }
}

// SAFETY: a Buffer is the only owner of plain bytes on the heap, like a Box<[u8]>; nothing in it is
// tied to a thread.
unsafe impl Send for Buffer {}
// SAFETY: a shared Buffer only gives out shared slices of plain bytes.
unsafe impl Sync for Buffer {}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.capacity)
    }
}

/// A few buffers kept for reuse, so that a commit does not allocate.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Vec<Buffer>,
    bytes: usize,
}

impl Pool {
    /// A buffer of at least `bytes`: the smallest kept one that fits without wasting more than
    /// three quarters of it, else a new one. A reused one still holds its old content.
    pub(crate) fn take(&mut self, bytes: usize) -> Buffer {
        let wanted = bytes.max(1).next_multiple_of(DIRECT_ALIGNMENT);
        let fits = |buffer: &Buffer| (wanted..=wanted.saturating_mul(4)).contains(&buffer.capacity);
        let best = (0..self.free.len())
            .filter(|&index| fits(&self.free[index]))
            .min_by_key(|&index| self.free[index].capacity);
        match best {
            Some(index) => {
                let buffer = self.free.swap_remove(index);
                self.bytes -= buffer.capacity;
                buffer
            }
            None => Buffer::new(bytes),
        }
    }

    /// Keeps the buffer for reuse, or frees it where the pool is full.
    pub(crate) fn give(&mut self, buffer: Buffer) {
        if self.free.len() < POOL_BUFFERS_MAX && self.bytes + buffer.capacity <= POOL_BYTES_MAX {
            self.bytes += buffer.capacity;
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_rounded_up() {
        for bytes in [0, 1, 4095, 4096, 4097, 1 << 20] {
            let mut buffer = Buffer::new(bytes);
            assert!(buffer.len() >= bytes.max(1));
            assert!(buffer.len().is_multiple_of(DIRECT_ALIGNMENT));
            assert!(buffer.as_ptr().addr().is_multiple_of(DIRECT_ALIGNMENT));
            assert!(buffer.iter().all(|&byte| byte == 0));
            let end = buffer.len() - 1;
            buffer[end] = 7;
            let moved = buffer;
            assert_eq!(moved[end], 7);
        }
    }

    #[test]
    fn the_pool_gives_back_what_fits_and_keeps_no_more_than_its_bound() {
        let mut pool = Pool::default();
        let buffer = pool.take(8192);
        let address = buffer.as_ptr();
        pool.give(buffer);
        let again = pool.take(5000);
        assert_eq!(again.as_ptr(), address);
        pool.give(again);
        pool.give(Buffer::new(1 << 20));
        assert_eq!(pool.take(4096).capacity(), 8192, "the smallest that fits");
        assert_eq!(pool.take(4096).capacity(), 4096, "a MiB is too much waste");
        for _ in 0..100 {
            pool.give(Buffer::new(1 << 20));
        }
        assert!(pool.bytes <= POOL_BYTES_MAX);
        assert_eq!(
            pool.bytes,
            pool.free
                .iter()
                .map(|buffer| buffer.capacity)
                .sum::<usize>()
        );
    }
}
