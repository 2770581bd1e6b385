//! The bounds of a chunk, and that they fit together.

/// Samples of one chunk: the count is a `u16` on disk. The memtable cuts long before (at about 120 samples).
pub const SAMPLES_MAX: u16 = u16::MAX;

/// Bytes before the payload of a sealed chunk: encoding 1, count 2, checksum 4.
pub const HEADER_LEN: usize = 1 + 2 + 4;

/// Bits of the longest sample: control 3, width of the time 2, time 64, value control 2, window 11, value 64.
pub(crate) const SAMPLE_BITS_MAX: u32 = 3 + 2 + 64 + 2 + 11 + 64;

/// Bytes of the first time at the start of a payload (a zigzag varint).
pub(crate) const FIRST_TIME_LEN_MAX: usize = 10;

/// Bytes of the longest sealed chunk; a reader may refuse to allocate more.
pub const SEALED_LEN_MAX: usize =
    HEADER_LEN + FIRST_TIME_LEN_MAX + (SAMPLES_MAX as usize * SAMPLE_BITS_MAX as usize).div_ceil(8);

// The bit length of an open chunk is a `u32`.
const _: () = assert!((SAMPLES_MAX as u64) * (SAMPLE_BITS_MAX as u64) < u32::MAX as u64);
