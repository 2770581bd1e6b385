//! Prometheus remote write.
//!
//! [`v1`] walks a `prometheus.WriteRequest` and [`v2`] an `io.prometheus.write.v2.Request` without copying anything; [`histogram`] and
//! [`exemplar`] decode what is rare into `model` types when asked; [`encode`] writes requests of either version, for the load tool, tests
//! and the node's own metrics.

use crate::Malformed;

pub mod encode;
pub mod exemplar;
pub mod histogram;
mod sample;
pub mod v1;
pub mod v2;

/// Which message a body holds. The same series is never the same bytes in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// `prometheus.WriteRequest`.
    V1 = 1,
    /// `io.prometheus.write.v2.Request`.
    V2 = 2,
}

/// Where and why a body is not a write request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode the write request: {what} (in the record at byte {at})")]
pub struct Error {
    /// Byte of the unpacked body at which the broken record begins.
    pub at: usize,
    /// What is wrong in it.
    pub what: Malformed,
}

#[cfg(test)]
mod tests;
