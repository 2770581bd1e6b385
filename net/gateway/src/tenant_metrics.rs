//! How much tenants have in memory, as metrics; read when somebody looks, so that a tenant that has gone leaves nothing behind.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Opts};
use shard::SeriesCounts;

use crate::metadata::MetadataStore;

/// Tenants that have a series of their own in the metric: those with the most series. A tenant is whatever a client says it is.
const TENANTS_MAX: usize = 10_000;

/// See the module.
pub struct TenantMetrics {
    series: SeriesCounts,
    metadata: Arc<MetadataStore>,
    descriptions: Vec<Desc>,
}

impl TenantMetrics {
    /// Shows these.
    pub fn new(series: SeriesCounts, metadata: Arc<MetadataStore>) -> TenantMetrics {
        let (by_tenant, count) = gauges();
        let descriptions = by_tenant.desc().into_iter().chain(count.desc());
        TenantMetrics {
            descriptions: descriptions.cloned().collect(),
            series,
            metadata,
        }
    }
}

fn gauges() -> (IntGaugeVec, IntGauge) {
    let by_tenant = Opts::new("myelin_tenant_series", "Series in memory, by tenant.");
    let count = IntGauge::new(
        "cortex_ingester_memory_metadata",
        "Metrics with metadata in memory.",
    );
    (
        IntGaugeVec::new(by_tenant, &["user"]).expect("a valid metric"),
        count.expect("a valid metric"),
    )
}

impl Collector for TenantMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (by_tenant, count) = gauges();
        let mut tenants = self.series.all();
        tenants.sort_unstable_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        for (tenant, series) in tenants.iter().take(TENANTS_MAX) {
            let series = i64::try_from(*series).unwrap_or(i64::MAX);
            by_tenant.with_label_values(&[tenant.as_str()]).set(series);
        }
        count.set(i64::try_from(self.metadata.count()).unwrap_or(i64::MAX));
        by_tenant
            .collect()
            .into_iter()
            .chain(count.collect())
            .collect()
    }
}
