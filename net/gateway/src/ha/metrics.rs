//! Elections as metrics, under the names of Cortex. Those of a cluster leave with it.

use model::TenantId;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

#[derive(Debug)]
pub(super) struct Metrics {
    changes: IntCounterVec,
    timestamps: GaugeVec,
    propagation: Histogram,
    cas: IntCounterVec,
    clusters: IntGaugeVec,
    deduped: IntCounterVec,
    pub(super) cleanups: IntCounter,
    pub(super) marked: IntCounter,
    pub(super) removed: IntCounter,
    pub(super) failed: IntCounter,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        const OF_CLUSTER: [&str; 2] = ["user", "cluster"];
        let counters = |name: &str, help: &str| {
            let vec = IntCounterVec::new(Opts::new(name, help), &OF_CLUSTER)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let metrics = Metrics {
            changes: counters(
                "cortex_ha_tracker_elected_replica_changes_total",
                "Times that another replica of a cluster was elected.",
            )?,
            timestamps: GaugeVec::new(
                Opts::new(
                    "cortex_ha_tracker_elected_replica_timestamp_seconds",
                    "When the elected replica was last written down, as Unix seconds.",
                ),
                &OF_CLUSTER,
            )?,
            propagation: Histogram::with_opts(HistogramOpts::new(
                "cortex_ha_tracker_elected_replica_change_propagation_time_seconds",
                "From an election until this process knew of it.",
            ))?,
            cas: counters(
                "cortex_ha_tracker_kv_store_cas_total",
                "Questions to the store of elections.",
            )?,
            clusters: IntGaugeVec::new(
                Opts::new(
                    "cortex_ha_tracker_user_replica_group_count",
                    "Clusters of a tenant.",
                ),
                &["user"],
            )?,
            deduped: counters(
                "cortex_distributor_deduped_samples_total",
                "Samples of replicas that are not elected, which were dropped.",
            )?,
            cleanups: counter(
                "cortex_ha_tracker_replicas_cleanup_started_total",
                "Looks for elections that nobody writes any more.",
            )?,
            marked: counter(
                "cortex_ha_tracker_replicas_cleanup_marked_for_deletion_total",
                "Elections that were given up.",
            )?,
            removed: counter(
                "cortex_ha_tracker_replicas_cleanup_deleted_total",
                "Elections that were removed.",
            )?,
            failed: counter(
                "cortex_ha_tracker_replicas_cleanup_delete_failed_total",
                "Elections that could not be given up or removed, because their store had no answer. They are tried again.",
            )?,
        };
        registry.register(Box::new(metrics.timestamps.clone()))?;
        registry.register(Box::new(metrics.propagation.clone()))?;
        registry.register(Box::new(metrics.clusters.clone()))?;
        Ok(metrics)
    }

    /// The store has been asked, and this holds.
    pub(super) fn asked(
        &self,
        tenant: &TenantId,
        cluster: &str,
        received_at_ms: i64,
        clusters: usize,
    ) {
        let labels = [tenant.as_str(), cluster];
        self.cas.with_label_values(&labels).inc();
        let seconds = received_at_ms as f64 / 1000.0;
        self.timestamps.with_label_values(&labels).set(seconds);
        let of_tenant = self.clusters.with_label_values(&[tenant.as_str()]);
        of_tenant.set(clusters as i64);
    }

    pub(super) fn changed(&self, tenant: &TenantId, cluster: &str, age_ms: u64) {
        let labels = [tenant.as_str(), cluster];
        self.changes.with_label_values(&labels).inc();
        self.propagation.observe(age_ms as f64 / 1000.0);
    }

    pub(super) fn deduped(&self, tenant: &TenantId, cluster: &str, samples: u64) {
        let labels = [tenant.as_str(), cluster];
        self.deduped.with_label_values(&labels).inc_by(samples);
    }

    /// Takes a cluster off the page; the tenant has so many left.
    pub(super) fn forget(&self, tenant: &TenantId, cluster: &str, left: usize) {
        let labels = [tenant.as_str(), cluster];
        for counters in [&self.changes, &self.cas, &self.deduped] {
            // Nothing to remove is fine: not every cluster has had each.
            let _ = counters.remove_label_values(&labels);
        }
        let _ = self.timestamps.remove_label_values(&labels);
        let of_tenant = self.clusters.with_label_values(&[tenant.as_str()]);
        of_tenant.set(left as i64);
        if left == 0 {
            let _ = self.clusters.remove_label_values(&[tenant.as_str()]);
        }
    }
}
