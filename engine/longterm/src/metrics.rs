//! What uploads and reads of the bucket are watched by.

use std::collections::BTreeSet;

use model::TenantId;
use prometheus::{Gauge, GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use crate::index::TenantIndex;

/// Tenants with numbers of their own: a tenant is whatever a client says it is.
const TENANTS_MAX: usize = 10_000;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) oldest_pending: Gauge,
    /// The same as a time.
    pub(crate) oldest_pending_time: Gauge,
    /// When a cleanup last did all that was due.
    pub(crate) cleaned: Gauge,
    /// By tenant: when its index was last found to be as it should, and blocks in it and to be deleted.
    index_updated: GaugeVec,
    blocks: IntGaugeVec,
    blocks_leaving: IntGaugeVec,
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
        let by_tenant = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["user"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        Ok(Metrics {
            oldest_pending_time: gauge(
                "cortex_ingester_shipper_oldest_unshipped_block_timestamp_seconds",
                "When the oldest block was made that is due for the bucket and not in it; 0: there is none.",
            )?,
            cleaned: gauge(
                "cortex_compactor_block_cleanup_last_successful_run_timestamp_seconds",
                "When all that was due was last removed from the bucket.",
            )?,
            index_updated: {
                let opts = Opts::new(
                    "cortex_bucket_index_last_successful_update_timestamp_seconds",
                    "When the index of a tenant was last looked through, and written if anything was to be changed.",
                );
                let gauges = GaugeVec::new(opts, &["user"])?;
                registry.register(Box::new(gauges.clone()))?;
                gauges
            },
            blocks: by_tenant(
                "cortex_bucket_blocks_count",
                "Blocks that the index of a tenant names.",
            )?,
            blocks_leaving: by_tenant(
                "cortex_bucket_blocks_marked_for_deletion_count",
                "Blocks that have left the index of a tenant and are to be deleted.",
            )?,
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

    /// An index has been looked through. `shown` are the tenants that have numbers; those of one whose blocks are all gone go.
    pub(crate) fn show_index(
        &self,
        shown: &mut BTreeSet<TenantId>,
        tenant: &TenantId,
        index: &TenantIndex,
        now_ms: i64,
    ) {
        let user = [tenant.as_str()];
        if index.blocks.is_empty() && index.deletions.is_empty() {
            if shown.remove(tenant) {
                // Nothing to remove is fine.
                let _ = self.index_updated.remove_label_values(&user);
                let _ = self.blocks.remove_label_values(&user);
                let _ = self.blocks_leaving.remove_label_values(&user);
            }
            return;
        }
        if !shown.contains(tenant) {
            if shown.len() >= TENANTS_MAX {
                return;
            }
            shown.insert(tenant.clone());
        }
        let updated = self.index_updated.with_label_values(&user);
        updated.set(now_ms as f64 / 1000.0);
        self.blocks
            .with_label_values(&user)
            .set(index.blocks.len() as i64);
        self.blocks_leaving
            .with_label_values(&user)
            .set(index.deletions.len() as i64);
    }
}
