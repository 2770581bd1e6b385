//! Chunk codecs: how a run of samples of one series becomes bytes, and columns again.
//!
//! On the way of a sample this is the last step in memory: the memtable keeps one [`XorAppender`] per series and appends in
//! place (a series of native histograms a [`HistogramAppender`]). On the way of a query it is where bytes become numbers: [`decode`] turns a
//! sealed chunk into a column of times and a column of values, many samples at a time, outside of the cores.
//!
//! Two forms. An *open* chunk is the bit stream inside an appender: trusted memory, no checksum. A *sealed* chunk is
//! self-contained bytes (`docs/formats/chunk.md`): encoding byte, count, checksum, payload. Every bit flip of a sealed chunk is
//! an error or the same data; no bytes whatever make a decoder panic, loop for long, or take more memory than
//! [`SAMPLES_MAX`] samples need.
//!
//! Beside them `prometheus`, chunks as Prometheus writes them: for remote read, and never how we keep samples.
//!
//! Read in this order: `sealed` (the envelope), `bits` (the bit stream), `xor` (floats), `xor/append`, `xor/decode`, `histogram`.
//! Deliberately absent: clocks, files, time boundaries (the memtable decides where a chunk is cut), what numbers mean.

#![forbid(unsafe_code)]

mod bits;
mod error;
mod histogram;
mod limits;
mod prometheus;
mod sealed;
mod xor;

pub use error::Error;
pub use histogram::{HistogramAppender, histogram_bytes_max, is_codable};
pub use limits::{HEADER_LEN, HISTOGRAM_PARTS_MAX, SAMPLES_MAX, SEALED_LEN_MAX};
pub use prometheus::{
    NotPrometheus, PROMETHEUS_CHUNK_SAMPLES, PrometheusHistograms, decode_prometheus_histograms,
    decode_prometheus_xor, encode_prometheus_histograms, encode_prometheus_xor,
};
pub use sealed::{
    Encoding, count, decode, decode_float_histograms, decode_histograms, decode_range, encoding,
    first_time, holds_histograms,
};
pub use xor::XorAppender;
