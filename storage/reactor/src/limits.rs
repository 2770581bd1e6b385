//! Bounds of the reactor, with the reasons for their values.

/// Alignment of offsets, lengths and memory for files opened `direct`, in every world.
///
/// 4096 satisfies 512- and 4096-byte devices alike; a device that wants more is reported by the
/// probe as refusing O_DIRECT. One constant keeps the worlds equal: what the simulation lets pass,
/// the kernel does too.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// What a disk writes whole or not at all; the simulation tears writes at these boundaries.
pub const SECTOR_BYTES: usize = 512;

/// Operations in flight per reactor. Submitting more is a bug of the caller (the log has one or two
/// writes in flight, a checkpoint a few reads and writes), and is asserted.
pub const OPERATIONS_MAX: usize = 1024;

/// Largest buffer. The kernel moves at most 2 GiB - 4 KiB in one call, and a core never needs more
/// than a segment.
pub const BUFFER_BYTES_MAX: usize = 1 << 30;

/// Buffers kept for reuse, in count and in bytes: two log groups and a few checkpoint pages.
pub(crate) const POOL_BUFFERS_MAX: usize = 32;
pub(crate) const POOL_BYTES_MAX: usize = 8 << 20;

/// Submission queue entries, where the caller says nothing. A turn rarely submits more than three;
/// a full queue is flushed by one more `io_uring_enter`.
pub(crate) const RING_ENTRIES: u32 = 64;
pub(crate) const RING_ENTRIES_MAX: u32 = 4096;

/// Completion queue entries: every operation in flight, the doorbell and a cancellation fit, so the
/// queue cannot overflow.
pub(crate) const RING_COMPLETIONS: u32 = 2048;

/// Kernel worker threads per ring (bounded and unbounded work each). Opens, renames and buffered
/// syncs land there; the log's writes do not.
pub(crate) const RING_WORKERS_MAX: u32 = 2;

/// How long operations that were begun together are waited for when the first of them has ended: a write of a log takes a few
/// hundred microseconds. The doorbell waits as long at most.
pub const TOGETHER: std::time::Duration = std::time::Duration::from_micros(500);

/// Helper threads of the `Threads` world, where the caller says nothing: one for the log, one that
/// a checkpoint may keep busy meanwhile.
pub(crate) const HELPERS: usize = 2;
pub(crate) const HELPERS_MAX: usize = 16;

const _: () = assert!(DIRECT_ALIGNMENT.is_power_of_two());
const _: () = assert!(DIRECT_ALIGNMENT.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(RING_COMPLETIONS as usize >= OPERATIONS_MAX + 2);
const _: () = assert!(BUFFER_BYTES_MAX < (1 << 31) - 4096);
const _: () = assert!(RING_ENTRIES <= RING_ENTRIES_MAX);
const _: () = assert!(HELPERS <= HELPERS_MAX);
