//! Skeleton; the owner keeps these signatures.
//!
//! An *open* chunk is an appender's bitstream in memory: trusted, no checksum. A *sealed* chunk is
//! self-contained bytes: encoding byte, sample count, checksum, bitstream; every bit flip of it is an error or the same data.
#![forbid(unsafe_code)]

/// The byte that says how a chunk is coded. Numbers are part of the log's and the block's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Gorilla XOR floats, delta-of-delta times.
    Xor = 1,
    /// Native histograms, integer counts (reserved, refused by decoders until written).
    Histogram = 2,
    /// Native histograms, float counts (reserved).
    FloatHistogram = 3,
}
