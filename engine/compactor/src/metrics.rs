//! What compaction tells of itself. Names of Cortex where the meaning is the same.

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) started: IntCounter,
    pub(crate) completed: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) last_success: Gauge,
    pub(crate) cleaned: IntCounter,
    pub(crate) files: IntCounter,
    pub(crate) bytes_read: IntCounter,
    pub(crate) bytes_written: IntCounter,
    pub(crate) samples: IntCounter,
    pub(crate) replaced: IntCounter,
    pub(crate) dropped: IntCounter,
    pub(crate) damaged: IntGauge,
    pub(crate) at_work: IntGauge,
}

impl Metrics {
    /// Registers everything. Panics when a name is taken: two compactors in one registry.
    pub(crate) fn register(registry: &Registry) -> Metrics {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect("a valid metric");
            let shown = Box::new(counter.clone());
            registry.register(shown).expect("registered once");
            counter
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("a valid metric");
            let shown = Box::new(gauge.clone());
            registry.register(shown).expect("registered once");
            gauge
        };
        let last_success = Gauge::new(
            "cortex_compactor_last_successful_run_timestamp_seconds",
            "When the last run of the compactor ended without a failure.",
        )
        .expect("a valid metric");
        let shown = Box::new(last_success.clone());
        registry.register(shown).expect("registered once");
        Metrics {
            started: counter(
                "cortex_compactor_runs_started_total",
                "Runs of the compactor: looks for blocks to merge.",
            ),
            completed: counter(
                "cortex_compactor_runs_completed_total",
                "Runs of the compactor that ended without a failure.",
            ),
            failed: counter(
                "cortex_compactor_runs_failed_total",
                "Runs of the compactor that a failure ended; what they had not done is tried again.",
            ),
            last_success,
            cleaned: counter(
                "cortex_compactor_blocks_cleaned_total",
                "Files of blocks removed because others have what was in them.",
            ),
            files: counter(
                "myelin_compactor_files_written_total",
                "Files that merges have written.",
            ),
            bytes_read: counter(
                "myelin_compactor_bytes_read_total",
                "Bytes of blocks that have been merged.",
            ),
            bytes_written: counter(
                "myelin_compactor_bytes_written_total",
                "Bytes of the blocks that came of it.",
            ),
            samples: counter(
                "myelin_compactor_samples_written_total",
                "Samples that merges have written.",
            ),
            replaced: counter(
                "myelin_compactor_samples_replaced_total",
                "Samples that merges met more than once; the one logged last stays.",
            ),
            dropped: counter(
                "myelin_compactor_samples_dropped_total",
                "Samples that merges left out by retention and deletions.",
            ),
            damaged: gauge(
                "myelin_compactor_damaged_parts",
                "Tenants' parts of blocks that are not merged since they cannot be read.",
            ),
            at_work: gauge(
                "myelin_compactor_running",
                "Whether the compactor is at work.",
            ),
        }
    }
}
