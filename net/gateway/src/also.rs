//! Metrics that are known by another name too: what Cortex and its dashboards call what we measure under our own.
//!
//! Names are made when somebody looks. Only what means the same has a second name; the page `docs/metrics.md` lists what of Cortex' names
//! is here and what is not.

use prometheus::proto::{LabelPair, MetricFamily};

/// A name and a value.
type Pair = (&'static str, &'static str);

/// Ours, theirs, and a label that theirs has besides.
const ALSO: &[(&str, &str, Option<Pair>)] = &[
    ("myelin_build_info", "cortex_build_info", None),
    ("myelin_query_at_work", "prometheus_engine_queries", None),
    (
        "cortex_max_concurrent_queries",
        "prometheus_engine_queries_concurrent_max",
        None,
    ),
    (
        "myelin_results_cache_bytes",
        "querier_cache_memory_bytes",
        Some(("cache", "results")),
    ),
    (
        "myelin_results_cache_entries",
        "querier_cache_entries",
        Some(("cache", "results")),
    ),
    (
        "cortex_ingester_wal_corruptions_total",
        "cortex_ingester_tsdb_wal_corruptions_total",
        None,
    ),
    (
        "cortex_ingester_checkpoint_creations_total",
        "cortex_ingester_tsdb_checkpoint_creations_total",
        None,
    ),
    (
        "cortex_ingester_checkpoint_creations_failed_total",
        "cortex_ingester_tsdb_checkpoint_creations_failed_total",
        None,
    ),
    (
        "myelin_cuts_total",
        "cortex_ingester_tsdb_compactions_total",
        None,
    ),
    (
        "myelin_cuts_failed_total",
        "cortex_ingester_tsdb_compactions_failed_total",
        None,
    ),
    (
        "myelin_uploader_uploads_total",
        "cortex_ingester_shipper_uploads_total",
        None,
    ),
    (
        "myelin_uploader_failures_total",
        "cortex_ingester_shipper_upload_failures_total",
        None,
    ),
    (
        "myelin_uploader_passes_total",
        "cortex_ingester_shipper_dir_syncs_total",
        None,
    ),
    (
        "myelin_bucket_operations_total",
        "thanos_objstore_bucket_operations_total",
        Some(("component", "longterm")),
    ),
    (
        "myelin_bucket_operation_failures_total",
        "thanos_objstore_bucket_operation_failures_total",
        Some(("component", "longterm")),
    ),
    (
        "myelin_bucket_operation_duration_seconds",
        "thanos_objstore_bucket_operation_duration_seconds",
        Some(("component", "longterm")),
    ),
    (
        "myelin_bucket_blocks_marked_total",
        "cortex_compactor_blocks_marked_for_deletion_total",
        None,
    ),
];

/// Adds the families that have a second name under it.
pub(crate) fn with_other_names(mut families: Vec<MetricFamily>) -> Vec<MetricFamily> {
    let mut more = Vec::new();
    for family in &families {
        let of = ALSO.iter().filter(|(ours, ..)| *ours == family.name());
        more.extend(of.map(|(_, theirs, label)| renamed(family, theirs, *label)));
    }
    families.append(&mut more);
    families
}

fn renamed(family: &MetricFamily, name: &str, label: Option<Pair>) -> MetricFamily {
    let mut other = family.clone();
    other.set_name(name.to_owned());
    if let Some((name, value)) = label {
        for metric in other.mut_metric() {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            let mut labels = metric.take_label();
            labels.push(pair);
            metric.set_label(labels);
        }
    }
    other
}

#[cfg(test)]
mod tests {
    use prometheus::{IntGauge, Registry};

    use super::*;

    #[test]
    fn a_metric_with_another_name_is_there_under_both() {
        let registry = Registry::new();
        let gauge = IntGauge::new("myelin_results_cache_bytes", "Bytes.").unwrap();
        gauge.set(7);
        registry.register(Box::new(gauge)).unwrap();
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&with_other_names(registry.gather()))
            .unwrap();
        for line in [
            "myelin_results_cache_bytes 7",
            "querier_cache_memory_bytes{cache=\"results\"} 7",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
