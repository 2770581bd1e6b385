//! The bounds of what is read, with their reasons.

/// Largest body of a push, packed and unpacked alike. Source: Cortex, `-distributor.max-recv-msg-size`.
pub const RECV_BYTES_MAX: usize = 100 << 20;

/// Most bytes that one byte of snappy can stand for, rounded up. The densest element is a copy of 64 bytes in 3; a length header that
/// claims more than this many times the body is a lie, and is refused before a buffer is made for it.
pub const SNAPPY_EXPANSION_MAX: usize = 22;

/// Deepest nesting of (deprecated) protobuf groups that is skipped. Real senders send none.
pub const GROUP_DEPTH_MAX: u32 = 32;

/// Spans, buckets or bounds of one side of a native histogram: what the log and chunks hold, far beyond what senders make.
pub const HISTOGRAM_PARTS_MAX: usize = 1 << 16;

/// Answers are cut into pieces of about this size: large enough for a full socket buffer, small enough that a matrix of
/// any size costs a constant amount of memory beside the value itself.
pub const JSON_PIECE_BYTES: usize = 64 << 10;

const _: () = assert!(SNAPPY_EXPANSION_MAX * 3 > 64, "three bytes can become 64");
const _: () = assert!(
    RECV_BYTES_MAX < u32::MAX as usize,
    "offsets into a body are kept as u32"
);
