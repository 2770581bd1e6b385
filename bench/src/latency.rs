//! Latencies: every one is kept (four bytes each), so that percentiles are exact.

use serde::Serialize;
use std::time::Duration;

/// Latencies of one connection or, merged, of a run; microseconds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Latencies(Vec<u32>);

/// What is reported, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latencies {
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0
            .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn merge(&mut self, other: Latencies) {
        self.0.extend(other.0);
    }

    /// `None` without any. A percentile is the smallest latency that so many per cent do not exceed.
    pub(crate) fn percentiles(mut self) -> Option<Percentiles> {
        self.0.sort_unstable();
        let last = self.0.len().checked_sub(1)?;
        let at = |share: f64| {
            let rank = (share * self.0.len() as f64).ceil() as usize;
            f64::from(self.0[rank.saturating_sub(1).min(last)]) / 1000.0
        };
        Some(Percentiles {
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            max_ms: at(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.clone().percentiles(), None);
        for ms in (1..=100).rev() {
            latencies.record(Duration::from_millis(ms));
        }
        let expected = Percentiles {
            p50_ms: 50.0,
            p90_ms: 90.0,
            p99_ms: 99.0,
            max_ms: 100.0,
        };
        assert_eq!(latencies.percentiles(), Some(expected));
    }
}
