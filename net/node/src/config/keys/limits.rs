//! The keys of `limits`: what a tenant may do, but for its queries ([`super::query_limits`]).

use super::super::Config;
use super::super::setting::{Rate, Setting};
use super::{Key, kind_of};

pub(super) fn keys() -> Vec<Key> {
    vec![
        Key {
            yaml: "limits.ingestion_rate",
            flag: "distributor.ingestion-rate-limit",
            kind: Rate::KIND,
            example: "1234.5",
            help: "Samples and metadata a second of one tenant; more is answered 429. 0: unlimited.",
            set: |c, text| {
                c.limits.ingestion_rate = Rate::parse(text)?.0;
                Ok(())
            },
            get: |c| Rate(c.limits.ingestion_rate).show(),
        },
        key!(
            "limits.ingestion_burst_size",
            "distributor.ingestion-burst-size",
            limits.ingestion_burst_size,
            "777",
            "Samples that may come at once within the rate. A larger push can never pass."
        ),
        key!(
            "limits.ingestion_rate_strategy",
            "distributor.ingestion-rate-limit-strategy",
            limits.ingestion_rate_strategy,
            "global",
            "Whether each distributor grants the rate (`local`) or all together (`global`). A node by itself is all of them."
        ),
        Key {
            yaml: "limits.native_histogram_ingestion_rate",
            flag: "distributor.native-histogram-ingestion-rate-limit",
            kind: Rate::KIND,
            example: "99.5",
            help: "Native histograms a second of one tenant; those of a push that goes beyond are left out, its floats stored, and it is answered 429. 0: unlimited.",
            set: |c, text| {
                c.limits.native_histogram_ingestion_rate = Rate::parse(text)?.0;
                Ok(())
            },
            get: |c| Rate(c.limits.native_histogram_ingestion_rate).show(),
        },
        key!(
            "limits.native_histogram_ingestion_burst_size",
            "distributor.native-histogram-ingestion-burst-size",
            limits.native_histogram_ingestion_burst_size,
            "55",
            "Native histograms that may come at once within their rate."
        ),
        key!(
            "limits.max_series_per_user",
            "ingester.max-series-per-user",
            limits.max_series_per_user,
            "1000",
            "Series of one tenant in memory; samples of further ones are answered 400. 0: unlimited."
        ),
        key!(
            "limits.max_series_per_metric",
            "ingester.max-series-per-metric",
            limits.max_series_per_metric,
            "100",
            "Series of one metric name in memory; samples of further ones are answered 400. 0: unlimited."
        ),
        key!(
            "limits.max_global_series_per_user",
            "ingester.max-global-series-per-user",
            limits.max_global_series_per_user,
            "2000",
            "As `max_series_per_user`, of the whole cluster. A node by itself is a cluster of one: the smaller of the two holds. 0: unlimited."
        ),
        key!(
            "limits.max_global_series_per_metric",
            "ingester.max-global-series-per-metric",
            limits.max_global_series_per_metric,
            "200",
            "The same for `max_series_per_metric`."
        ),
        key!(
            "limits.series_limit_status",
            "ingester.series-limit-status",
            limits.series_limit_status,
            "429",
            "What is answered to a push of which a series is beyond one of these limits; the rest of it is stored. With 429 a sender that repeats what is answered so repeats it for as long as the limit holds."
        ),
        key!(
            "limits.max_label_names_per_series",
            "validation.max-label-names-per-series",
            limits.max_label_names_per_series,
            "60",
            "Labels of one series, the metric name included."
        ),
        key!(
            "limits.max_label_name_length",
            "validation.max-length-label-name",
            limits.max_label_name_length,
            "64",
            "Bytes of a label name."
        ),
        key!(
            "limits.max_label_value_length",
            "validation.max-length-label-value",
            limits.max_label_value_length,
            "128",
            "Bytes of a label value, the metric name included."
        ),
        key!(
            "limits.max_labels_size_bytes",
            "validation.max-labels-size-bytes",
            limits.max_labels_size_bytes,
            "4096",
            "Bytes of all names and values of a series. 0: unlimited."
        ),
        key!(
            "limits.max_metadata_length",
            "validation.max-metadata-length",
            limits.max_metadata_length,
            "99",
            "Bytes of a metric name, help or unit in metadata; longer ones are dropped and told."
        ),
        key!(
            "limits.max_metadata_per_user",
            "ingester.max-metadata-per-user",
            limits.max_metadata_per_user,
            "11",
            "Metric names of one tenant with metadata. 0: unlimited."
        ),
        key!(
            "limits.max_metadata_per_metric",
            "ingester.max-metadata-per-metric",
            limits.max_metadata_per_metric,
            "3",
            "Metadata records of one metric name. 0: unlimited."
        ),
        key!(
            "limits.max_global_metadata_per_user",
            "ingester.max-global-metadata-per-user",
            limits.max_global_metadata_per_user,
            "22",
            "As `max_metadata_per_user`, of the whole cluster; the smaller of the two holds. 0: unlimited."
        ),
        key!(
            "limits.max_global_metadata_per_metric",
            "ingester.max-global-metadata-per-metric",
            limits.max_global_metadata_per_metric,
            "4",
            "The same for `max_metadata_per_metric`."
        ),
        key!(
            "limits.max_exemplars",
            "ingester.max-exemplars",
            limits.max_exemplars,
            "12",
            "Exemplars kept of one tenant on a node, in equal parts on its cores; the oldest leave first. 0: none are kept."
        ),
        key!(
            "limits.enable_start_timestamp",
            "distributor.enable-start-timestamp",
            limits.enable_start_timestamp,
            "true",
            "Store a zero at the time at which a counter began, where a sender of remote write 2.0 tells it. The start timestamps themselves are kept either way."
        ),
        key!(
            "limits.enable_native_histograms",
            "ingester.enable-native-histograms",
            limits.enable_native_histograms,
            "false",
            "Whether native histograms are stored. Else they are passed over without an error, and counted."
        ),
        key!(
            "limits.max_native_histogram_buckets",
            "validation.max-native-histogram-buckets",
            limits.max_native_histogram_buckets,
            "160",
            "Buckets of one native histogram. Its resolution is halved until it fits; one that cannot is refused. 0: unlimited."
        ),
        key!(
            "limits.max_native_histogram_sample_size_bytes",
            "validation.max-native-histogram-sample-size-bytes",
            limits.max_native_histogram_sample_size_bytes,
            "4096",
            "Bytes of one native histogram as it is sent; larger ones are refused. 0: unlimited."
        ),
        key!(
            "limits.enforce_metric_name",
            "validation.enforce-metric-name",
            limits.enforce_metric_name,
            "false",
            "Whether every series must have a valid metric name."
        ),
        key!(
            "limits.enforce_metadata_metric_name",
            "validation.enforce-metadata-metric-name",
            limits.enforce_metadata_metric_name,
            "false",
            "Whether metadata without a metric name is told as an error; else it is passed over."
        ),
        key!(
            "limits.reject_old_samples",
            "validation.reject-old-samples",
            limits.reject_old_samples,
            "true",
            "Whether samples older than `reject_old_samples_max_age` are refused."
        ),
        key!(
            "limits.reject_old_samples_max_age",
            "validation.reject-old-samples.max-age",
            limits.reject_old_samples_max_age,
            "1h",
            "See `reject_old_samples`."
        ),
        key!(
            "limits.creation_grace_period",
            "validation.create-grace-period",
            limits.creation_grace_period,
            "1m",
            "How far ahead of the clock a sample, or an exemplar, may be."
        ),
        key!(
            "limits.out_of_order_time_window",
            "ingester.out-of-order-time-window",
            limits.out_of_order_time_window,
            "2h",
            "How far behind the newest sample of its series a sample may be. 0: late samples are refused."
        ),
        key!(
            "limits.drop_labels",
            "distributor.drop-label",
            limits.drop_labels,
            "pod_uid,replica",
            "Labels removed from every series. The flag may be repeated."
        ),
        key!(
            "limits.metric_relabel_configs",
            "distributor.metric-relabel-configs",
            limits.metric_relabel_configs,
            "[{action: labeldrop, regex: pod_uid}]",
            "Relabelling of every series as in Prometheus, before `drop_labels`; a list of rules, as text where it is a flag. What is dropped is counted and not told."
        ),
        key!(
            "limits.accept_ha_samples",
            "distributor.ha-tracker.enable-for-all-users",
            limits.accept_ha_samples,
            "true",
            "Whether series with both labels below are those of a replica: taken if it is elected, without the replica label; else dropped, and \
             a push that has nothing else is answered 202. Needs `distributor.ha_tracker.enable_ha_tracker`."
        ),
        key!(
            "limits.ha_cluster_label",
            "distributor.ha-tracker.cluster",
            limits.ha_cluster_label,
            "prometheus",
            "The label that replicas of a cluster have in common."
        ),
        key!(
            "limits.ha_replica_label",
            "distributor.ha-tracker.replica",
            limits.ha_replica_label,
            "prometheus_replica",
            "The label that tells them apart."
        ),
        key!(
            "limits.ha_max_clusters",
            "distributor.ha-tracker.max-clusters",
            limits.ha_max_clusters,
            "12",
            "Clusters of one tenant; samples of further ones are answered 400. 0, or more than that: 10,000."
        ),
        key!(
            "limits.ha_tracker_failover_timeout",
            "distributor.ha-tracker.failover-timeout",
            limits.ha_tracker_failover_timeout,
            "45s",
            "How long the elected replica has to be silent before another is elected; at least a second more than update timeout and jitter."
        ),
        key!(
            "limits.ack",
            "limits.ack",
            limits.ack,
            "written",
            "When a push is acknowledged: `durable`, after the sync, so that a power cut loses nothing; `written`, before it, so that \
             only a crash of the process loses nothing."
        ),
    ]
}
