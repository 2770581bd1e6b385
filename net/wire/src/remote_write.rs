//! Prometheus remote write.
//!
//! [`v1`] walks a `prometheus.WriteRequest` without copying anything; [`histogram`] and [`exemplar`] decode what is rare into
//! `model` types when asked; [`encode`] writes requests, for the load tool, tests and the node's own metrics. Version 2
//! (`io.prometheus.write.v2.Request`) shares histograms and exemplars with version 1 and gets its own walk beside it.

pub mod encode;
pub mod exemplar;
pub mod histogram;
pub mod v1;

/// Which message a body holds. The same series is never the same bytes in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// `prometheus.WriteRequest`.
    V1 = 1,
    /// `io.prometheus.write.v2.Request`.
    V2 = 2,
}

#[cfg(test)]
mod tests;
