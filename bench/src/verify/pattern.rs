//! The pattern: which series there are, and what each of them must be at any time.

use crate::series::{SeriesLabels, scatter};
use crate::workload::put_sample;

/// The metric of all series of all runs.
pub(super) const METRIC: &str = "myelin_verify";

/// What is written; the head of a state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Tells runs on one server apart.
    pub(super) run: u64,
    pub(super) connections: u16,
    /// Of each connection.
    pub(super) series: u32,
}

impl Pattern {
    /// The value of a label `run`.
    pub(super) fn run_label(&self) -> String {
        format!("{:016x}", self.run)
    }

    /// The labels of all series of a connection.
    pub(super) fn labels(&self, connection: u16) -> Vec<SeriesLabels> {
        let label = |series: u32| {
            vec![
                ("__name__", METRIC.to_owned()),
                ("connection", connection.to_string()),
                ("job", "myelin-bench".to_owned()),
                ("run", self.run_label()),
                ("series", series.to_string()),
            ]
        };
        (0..self.series).map(label).collect()
    }

    /// The value of a series at a time: by turns any integer, a counter, a constant, a fraction. All survive being printed.
    pub(super) fn value(&self, connection: u16, series: u32, time_ms: i64) -> f64 {
        let seed = self.run ^ u64::from(connection) << 48 ^ u64::from(series) << 24;
        let chance = scatter(scatter(seed) ^ time_ms as u64);
        match series % 4 {
            0 => (chance >> 11) as f64,
            1 => (time_ms / 10) as f64,
            2 => f64::from(series),
            // Few digits, since some servers keep decimals instead of bits.
            _ => (chance >> 40) as f64 / 64.0 - 1e5,
        }
    }

    /// A `WriteRequest` with a sample of each series of a connection.
    pub(super) fn put_body(
        &self,
        out: &mut Vec<u8>,
        labels: &[SeriesLabels],
        connection: u16,
        time_ms: i64,
    ) {
        out.clear();
        for (series, labels) in labels.iter().enumerate() {
            put_sample(
                out,
                labels,
                time_ms,
                self.value(connection, series as u32, time_ms),
            );
        }
    }
}
