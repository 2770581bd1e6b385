//! The bounds of a chunk, and that they fit together.

/// Samples of one chunk: the count is a `u16` on disk. The memtable cuts long before (at about 120 samples).
pub const SAMPLES_MAX: u16 = u16::MAX;

/// Bytes before the payload of a sealed chunk: encoding 1, count 2, checksum 4.
pub const HEADER_LEN: usize = 1 + 2 + 4;

/// Bits of the longest sample: control 3, width of the time 2, time 64, value control 2, window 11, value 64.
pub(crate) const SAMPLE_BITS_MAX: u32 = 3 + 2 + 64 + 2 + 11 + 64;

/// Bytes of the first time at the start of a payload (a zigzag varint).
pub(crate) const FIRST_TIME_LEN_MAX: usize = 10;

/// Buckets of one side, spans of one side or custom bounds of a histogram. More than any sender makes (a resolution of 160 buckets is
/// usual), and as many as a record of the log holds.
pub const HISTOGRAM_PARTS_MAX: usize = 1 << 16;

/// Buckets, spans and bounds of all histograms of a chunk together: a chunk whose samples hardly differ takes few bytes however
/// large they are, and shall not take more than about 16 MiB decoded.
pub(crate) const DECODED_PARTS_MAX: usize = 1 << 20;

/// Bytes of the longest sealed chunk; a reader may refuse to allocate more. The relations below say why that is enough.
pub const SEALED_LEN_MAX: usize = 15 << 20;

// Of floats, and of histograms: no part takes more than 80 bits, what a sample has beside its parts no more than 70 bytes.
const _: () = assert!(
    SEALED_LEN_MAX
        > HEADER_LEN
            + FIRST_TIME_LEN_MAX
            + (SAMPLES_MAX as usize * SAMPLE_BITS_MAX as usize).div_ceil(8)
);
const _: () = assert!(SEALED_LEN_MAX > DECODED_PARTS_MAX * 10 + SAMPLES_MAX as usize * 70 + 64);
const _: () = assert!(DECODED_PARTS_MAX > 5 * HISTOGRAM_PARTS_MAX);

// The bit length of an open chunk is a `u32`.
const _: () = assert!((SAMPLES_MAX as u64) * (SAMPLE_BITS_MAX as u64) < u32::MAX as u64);
