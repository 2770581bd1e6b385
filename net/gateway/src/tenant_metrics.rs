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
        let descriptions = by_tenant.iter().flat_map(Collector::desc);
        let descriptions = descriptions.chain(count.desc());
        TenantMetrics {
            descriptions: descriptions.cloned().collect(),
            series,
            metadata,
        }
    }
}

/// Series, and active ones.
fn gauges() -> ([IntGaugeVec; 2], IntGauge) {
    let by_tenant = |name: &str, help: &str| {
        IntGaugeVec::new(Opts::new(name, help), &["user"]).expect("a valid metric")
    };
    let count = IntGauge::new(
        "cortex_ingester_memory_metadata",
        "Metrics with metadata in memory.",
    );
    (
        [
            by_tenant("myelin_tenant_series", "Series in memory, by tenant."),
            by_tenant(
                "cortex_ingester_active_series",
                "Series in memory with a sample within the last ten minutes, by tenant; looked at once a minute.",
            ),
        ],
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
        for (tenant, series, active) in tenants.iter().take(TENANTS_MAX) {
            for (gauges, count) in by_tenant.iter().zip([series, active]) {
                let count = i64::try_from(*count).unwrap_or(i64::MAX);
                gauges.with_label_values(&[tenant.as_str()]).set(count);
            }
        }
        count.set(i64::try_from(self.metadata.count()).unwrap_or(i64::MAX));
        let by_tenant = by_tenant.iter().flat_map(Collector::collect);
        by_tenant.chain(count.collect()).collect()
    }
}
