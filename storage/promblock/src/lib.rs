//! Blocks of Prometheus' TSDB, read and written: index version 2, chunks of floats and native histograms, tombstones, `meta.json`.
//!
//! ```text
//! reading   Index, tombstones, Meta, decode_chunk    read.rs
//! writing   Writer                                    write.rs
//! both      crc32c                                    crc.rs
//! ```
//!
//! Bytes in, bytes out: whoever calls reads and writes the files. The codecs of chunks are those of `chunk` that remote read has too.
//!
//! Source: Prometheus `tsdb/docs/format/` (index.md, chunks.md, tombstones.md).
//!
//! Deliberately absent: index version 1 (before Prometheus 2.3), heads and their logs, postings while reading: all series are read in their order.

#![forbid(unsafe_code)]

mod crc;
mod read;
mod write;

pub use read::{ChunkRef, Error, Index, Meta, Samples, decode_chunk, framed_len, tombstones};
pub use write::{Built, SEGMENT_BYTES_MAX, Writer, segment_name, ulid_text, ulid_value};

#[cfg(test)]
mod tests;
