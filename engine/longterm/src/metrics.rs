//! What uploads and reads of the bucket are watched by.

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) oldest_pending: Gauge,
    pub(crate) pending: IntGauge,
    pub(crate) uploads: IntCounter,
    pub(crate) uploaded_bytes: IntCounter,
    pub(crate) passes: IntCounter,
    pub(crate) failures: IntCounter,
    pub(crate) last_success: Gauge,
    pub(crate) index_writes: IntCounter,
    pub(crate) removed_local: IntCounter,
    pub(crate) unreadable: IntGauge,
    pub(crate) marked: IntCounter,
    pub(crate) deleted: IntCounter,
    pub(crate) orphans: IntCounter,
    pub(crate) parts_swept: IntCounter,
    pub(crate) requests: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) index_bytes: IntGauge,
    pub(crate) header_hits: IntCounter,
    pub(crate) header_misses: IntCounter,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let number = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Metrics {
            oldest_pending: gauge(
                "myelin_uploader_oldest_pending_seconds",
                "Age of the oldest block that is due for the bucket and not in it; alarm on more than an hour.",
            )?,
            pending: number(
                "myelin_uploader_pending_blocks",
                "Blocks that are due for the bucket and not in it.",
            )?,
            uploads: counter(
                "myelin_uploader_uploads_total",
                "Blocks uploaded and verified.",
            )?,
            uploaded_bytes: counter(
                "myelin_uploader_uploaded_bytes_total",
                "Bytes of these blocks.",
            )?,
            passes: counter(
                "myelin_uploader_passes_total",
                "Looks for what is to be done, whatever came of them.",
            )?,
            failures: counter(
                "myelin_uploader_failures_total",
                "Passes that were ended by the bucket, and blocks that could not be uploaded.",
            )?,
            last_success: gauge(
                "myelin_uploader_last_success_timestamp_seconds",
                "When a pass last did all that was to be done.",
            )?,
            index_writes: counter(
                "myelin_uploader_index_writes_total",
                "Indexes of tenants written to the bucket.",
            )?,
            removed_local: counter(
                "myelin_uploader_local_removed_total",
                "Blocks removed from the disk because the bucket has them.",
            )?,
            unreadable: number(
                "myelin_uploader_unreadable_blocks",
                "Blocks of the disk that cannot be read to be uploaded.",
            )?,
            marked: counter(
                "myelin_bucket_blocks_marked_total",
                "Blocks of the bucket taken out of an index, by compaction or retention.",
            )?,
            deleted: counter(
                "myelin_bucket_blocks_deleted_total",
                "Blocks deleted from the bucket.",
            )?,
            orphans: counter(
                "myelin_bucket_orphans_deleted_total",
                "Objects deleted because no index named them.",
            )?,
            parts_swept: counter(
                "myelin_bucket_unfinished_uploads_swept_total",
                "Uploads in parts that nobody finished, removed.",
            )?,
            requests: counter(
                "myelin_bucket_query_requests_total",
                "Requests to the bucket that queries made.",
            )?,
            retries: counter(
                "myelin_bucket_query_retries_total",
                "Looks repeated with a fresh index because a block was gone.",
            )?,
            index_bytes: number(
                "myelin_bucket_index_cache_bytes",
                "Bytes of tenants' indexes in memory.",
            )?,
            header_hits: counter(
                "myelin_bucket_header_hits_total",
                "Indexes of blocks found on the local disk.",
            )?,
            header_misses: counter(
                "myelin_bucket_header_misses_total",
                "Indexes of blocks fetched from the bucket.",
            )?,
        })
    }
}
