//! What can be wrong with the bytes of a chunk. All of it is corruption: nobody but us writes chunks.

use model::Class;

/// Why bytes are not a chunk. The caller knows file and offset and adds them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Fewer bytes than a header.
    #[error("chunk of {len} bytes is shorter than its header")]
    Short {
        /// Bytes there are.
        len: usize,
    },
    /// More bytes than the longest chunk that can be written.
    #[error("chunk of {len} bytes is longer than any chunk can be")]
    Long {
        /// Bytes there are.
        len: usize,
    },
    /// The first byte names no encoding.
    #[error("unknown chunk encoding {0}")]
    UnknownEncoding(u8),
    /// The encoding is known but holds no floats.
    #[error("chunk encoding {0:?} does not hold float samples")]
    NotFloats(crate::Encoding),
    /// The encoding is known but holds no histograms.
    #[error("chunk encoding {0:?} does not hold native histograms")]
    NotHistograms(crate::Encoding),
    /// The checksum does not fit the bytes.
    #[error("chunk checksum is {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// As stored.
        expected: u32,
        /// As computed from the bytes.
        found: u32,
    },
    /// The checksum fits but the content cannot have been written by an appender.
    #[error("malformed chunk: {0}")]
    Malformed(&'static str),
}

impl Error {
    /// Always ours.
    pub fn class(&self) -> Class {
        Class::Internal
    }
}
