//! What one tenant may do, as values. Read from configuration by `gateway`; enforced where each limit is met.
//!
//! Zero means unlimited wherever Cortex says so (`docs/config.md`). The two sets of defaults differ on purpose:
//! without tenants nobody is limited, with tenants the numbers of Cortex apply.

use std::time::Duration;

use crate::{QueryPriority, QueryRejection, RelabelConfig};

/// When a push is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ack {
    /// When the log is synced: a power cut loses nothing acknowledged.
    #[default]
    Durable,
    /// When the log is written to the page cache: `kill -9` loses nothing acknowledged, a power cut may.
    Written,
}

/// How a rate is meant where several distributors share a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RateStrategy {
    /// Each distributor grants the whole rate.
    #[default]
    Local,
    /// All distributors together grant it.
    Global,
}

/// Which names metrics and labels may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NameScheme {
    /// Any text that is not empty.
    #[default]
    Utf8,
    /// Letters of ASCII, digits and `_`, not a digit first; metrics also `:`.
    Legacy,
}

impl NameScheme {
    /// Whether a label may be called so.
    pub fn takes_label(self, name: &str) -> bool {
        self.takes(name, |byte| byte == b'_')
    }

    /// Whether a metric may be called so.
    pub fn takes_metric(self, name: &str) -> bool {
        self.takes(name, |byte| byte == b'_' || byte == b':')
    }

    fn takes(self, name: &str, is_letter: fn(u8) -> bool) -> bool {
        let is_letter = |byte: u8| byte.is_ascii_alphabetic() || is_letter(byte);
        let Some((first, rest)) = name.as_bytes().split_first() else {
            return false;
        };
        let mut rest = rest.iter();
        self == NameScheme::Utf8
            || is_letter(*first) && rest.all(|byte| is_letter(*byte) || byte.is_ascii_digit())
    }
}

/// What is answered to a push of which a series is beyond a limit of the tenant's series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SeriesLimitStatus {
    /// 400: its sender goes on with the next.
    #[default]
    BadRequest,
    /// 429, as Cortex once did.
    TooManyRequests,
}

/// Limits of one tenant. Durations of zero and counts of zero are "no limit" unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantLimits {
    /// Samples and metadata a second; infinite is unlimited. 429.
    pub ingestion_rate: f64,
    /// Largest push that may pass at once, and the depth of the bucket. 429.
    pub ingestion_burst_size: u64,
    /// How the rate holds over several distributors; on a node of its own both mean the same.
    pub ingestion_rate_strategy: RateStrategy,
    /// Native histograms a second, beside `ingestion_rate`; infinite is unlimited. 429, but the floats of the push are stored.
    pub native_histogram_ingestion_rate: f64,
    /// See `native_histogram_ingestion_rate`.
    pub native_histogram_ingestion_burst_size: u64,
    /// Series in memory of the tenant. 400.
    pub max_series_per_user: u64,
    /// Series in memory of one metric name. 400.
    pub max_series_per_metric: u64,
    /// As `max_series_per_user`, over the whole cluster.
    pub max_global_series_per_user: u64,
    /// As `max_series_per_metric`, over the whole cluster.
    pub max_global_series_per_metric: u64,
    /// Whether what these four refuse is answered 400 or 429.
    pub series_limit_status: SeriesLimitStatus,
    /// Which names are taken. 400.
    pub name_scheme: NameScheme,
    /// Labels of one series, `__name__` included. 400.
    pub max_label_names_per_series: u32,
    /// Bytes of a label's name. 400.
    pub max_label_name_length: u32,
    /// Bytes of a label's value, the metric name included. 400.
    pub max_label_value_length: u32,
    /// Bytes of all names and values of a series. 400.
    pub max_labels_size_bytes: u32,
    /// Bytes of metric name, help or unit of a metadata record; longer ones are dropped.
    pub max_metadata_length: u32,
    /// Metadata records kept of the tenant.
    pub max_metadata_per_user: u32,
    /// Metadata records kept of one metric.
    pub max_metadata_per_metric: u32,
    /// As `max_metadata_per_user`, over the whole cluster.
    pub max_global_metadata_per_user: u32,
    /// As `max_metadata_per_metric`, over the whole cluster.
    pub max_global_metadata_per_metric: u32,
    /// Exemplars kept of the tenant on this node, the oldest leave first; zero keeps none.
    pub max_exemplars: u32,
    /// Whether a zero is stored where a sender says that a counter began.
    pub enable_start_timestamp: bool,
    /// Whether native histograms are stored; else they are passed over.
    pub enable_native_histograms: bool,
    /// Buckets of one native histogram; its resolution is halved until it fits. 400 where it cannot. Zero is no limit.
    pub max_native_histogram_buckets: u32,
    /// Bytes of one native histogram, as sent. 400.
    pub max_native_histogram_sample_size_bytes: u32,
    /// Whether a series must have a valid `__name__`. 400.
    pub enforce_metric_name: bool,
    /// Whether metadata must name its metric; else such records are passed over without an error.
    pub enforce_metadata_metric_name: bool,
    /// Whether samples older than `reject_old_samples_max_age` are refused. 400.
    pub reject_old_samples: bool,
    /// See `reject_old_samples`.
    pub reject_old_samples_max_age: Duration,
    /// How far ahead of the clock a sample may be; zero here means not at all ahead of the clock. 400.
    pub creation_grace_period: Duration,
    /// How far behind the newest sample of its series a sample may be; zero here means not at all. 400.
    pub out_of_order_time_window: Duration,
    /// Attributes of an OTLP resource that are labels of its series.
    pub promote_resource_attributes: Vec<String>,
    /// Labels removed from every series.
    pub drop_labels: Vec<String>,
    /// Relabelling of every series, before the labels above are removed.
    pub metric_relabel_configs: Vec<RelabelConfig>,
    /// Whether replicas of a cluster are told apart and only the elected one's samples taken. 202 for the others.
    pub accept_ha_samples: bool,
    /// The label that names the cluster.
    pub ha_cluster_label: String,
    /// The label that names the replica; removed where it is elected.
    pub ha_replica_label: String,
    /// Clusters of the tenant. 400.
    pub ha_max_clusters: u64,
    /// How long the elected replica has to be silent before another is.
    pub ha_tracker_failover_timeout: Duration,
    /// When a push is acknowledged.
    pub ack: Ack,
    /// How much sample time is kept, counted back from the tenant's newest sample.
    pub retention: Duration,
    /// Longest time range of a query: of a range query itself 400, of what its selectors reach over 422.
    pub max_query_length: Duration,
    /// How far back a query may look; earlier starts are moved.
    pub max_query_lookback: Duration,
    /// Results for times younger than this are not kept.
    pub max_cache_freshness: Duration,
    /// How long results are kept; zero: as long as there is room.
    pub results_cache_ttl: Duration,
    /// Bytes of a regular expression in a matcher. 422.
    pub max_regex_pattern_length: u64,
    /// Values of a label that a regular expression may be run over. 422.
    pub max_label_cardinality_for_unoptimized_regex: u64,
    /// Bytes of the values of a label that a regular expression may be run over. 422.
    pub max_total_label_value_length_for_unoptimized_regex: u64,
    /// Bytes of the answer to a query, before compression. 422.
    pub max_query_response_size: u64,
    /// Which queries are refused. 422.
    pub query_rejection: QueryRejection,
    /// Which queries of the tenant go before others of it.
    pub query_priority: QueryPriority,
    /// Series that one query may select. 422.
    pub max_fetched_series_per_query: u64,
    /// Bytes of chunks that one query may fetch. 422.
    pub max_fetched_chunk_bytes_per_query: u64,
    /// Chunks that one query may fetch. 422.
    pub max_fetched_chunks_per_query: u64,
    /// Bytes of labels and chunks that one query may fetch. 422.
    pub max_fetched_data_bytes_per_query: u64,
    /// Bytes that one query may hold, from the first chunk to the last byte of its answer. 422.
    pub max_estimated_memory_consumption_per_query: u64,
    /// Queries of the tenant at work at once; further ones wait.
    pub max_concurrent_queries: usize,
    /// Queries of the tenant that may wait for their turn. 429.
    pub max_outstanding_requests_per_tenant: usize,
    /// Whether queries may use what is experimental in Prometheus. 400.
    pub promql_experimental_functions_enabled: bool,
    /// Shards into which the series of a range query are divided where that is possible; below 2: none.
    pub query_vertical_shard_size: u64,
    /// Samples that one query may hold or touch per step, as Prometheus counts them. 422.
    pub max_samples_per_query: u64,
}

impl TenantLimits {
    /// How long samples are kept, milliseconds; a retention of zero is for ever.
    pub fn retention_ms(&self) -> i64 {
        match i64::try_from(self.retention.as_millis()) {
            Ok(0) | Err(_) => i64::MAX,
            Ok(retention) => retention,
        }
    }

    /// Series of the tenant on this node: the smaller of what is meant for a node and, as this one is its whole cluster, for a cluster.
    pub fn series_per_user(&self) -> u64 {
        smaller(self.max_series_per_user, self.max_global_series_per_user)
    }

    /// As [`TenantLimits::series_per_user`], of one metric.
    pub fn series_per_metric(&self) -> u64 {
        let global = self.max_global_series_per_metric;
        smaller(self.max_series_per_metric, global)
    }

    /// As [`TenantLimits::series_per_user`], of metric names with metadata.
    pub fn metadata_per_user(&self) -> u32 {
        let (local, global) = (
            self.max_metadata_per_user,
            self.max_global_metadata_per_user,
        );
        smaller(local.into(), global.into()) as u32
    }

    /// As [`TenantLimits::series_per_user`], of metadata of one metric.
    pub fn metadata_per_metric(&self) -> u32 {
        let (local, global) = (
            self.max_metadata_per_metric,
            self.max_global_metadata_per_metric,
        );
        smaller(local.into(), global.into()) as u32
    }

    /// What a query may that reads the data of both tenants: of each limit of queries the one that allows less.
    #[must_use]
    pub fn most_restrictive(&self, other: &TenantLimits) -> TenantLimits {
        let count = |of: fn(&TenantLimits) -> u64| smaller(of(self), of(other));
        let places = |of: fn(&TenantLimits) -> usize| {
            let (one, two) = (of(self) as u64, of(other) as u64);
            usize::try_from(smaller(one, two)).unwrap_or(usize::MAX)
        };
        let time = |of: fn(&TenantLimits) -> Duration| match (of(self), of(other)) {
            (Duration::ZERO, limit) | (limit, Duration::ZERO) => limit,
            (one, two) => one.min(two),
        };
        TenantLimits {
            max_query_length: time(|l| l.max_query_length),
            max_query_lookback: time(|l| l.max_query_lookback),
            max_regex_pattern_length: count(|l| l.max_regex_pattern_length),
            max_label_cardinality_for_unoptimized_regex: count(|l| {
                l.max_label_cardinality_for_unoptimized_regex
            }),
            max_total_label_value_length_for_unoptimized_regex: count(|l| {
                l.max_total_label_value_length_for_unoptimized_regex
            }),
            max_query_response_size: count(|l| l.max_query_response_size),
            query_rejection: self.query_rejection.and(&other.query_rejection),
            max_fetched_series_per_query: count(|l| l.max_fetched_series_per_query),
            max_fetched_chunk_bytes_per_query: count(|l| l.max_fetched_chunk_bytes_per_query),
            max_fetched_chunks_per_query: count(|l| l.max_fetched_chunks_per_query),
            max_fetched_data_bytes_per_query: count(|l| l.max_fetched_data_bytes_per_query),
            max_estimated_memory_consumption_per_query: count(|l| {
                l.max_estimated_memory_consumption_per_query
            }),
            max_concurrent_queries: places(|l| l.max_concurrent_queries),
            max_outstanding_requests_per_tenant: places(|l| l.max_outstanding_requests_per_tenant),
            promql_experimental_functions_enabled: self.promql_experimental_functions_enabled
                && other.promql_experimental_functions_enabled,
            query_vertical_shard_size: count(|l| l.query_vertical_shard_size),
            max_samples_per_query: count(|l| l.max_samples_per_query),
            ..self.clone()
        }
    }

    /// Whether labels that passed under these limits pass under the others, and come out the same.
    pub fn same_labels(&self, other: &TenantLimits) -> bool {
        let of = |limits: &TenantLimits| {
            (
                limits.max_label_names_per_series,
                limits.max_label_name_length,
                limits.max_label_value_length,
                limits.max_labels_size_bytes,
                limits.enforce_metric_name,
                limits.name_scheme,
            )
        };
        let ha = |limits: &TenantLimits| {
            (
                limits.accept_ha_samples,
                limits.ha_cluster_label.clone(),
                limits.ha_replica_label.clone(),
            )
        };
        of(self) == of(other)
            && self.drop_labels == other.drop_labels
            && self.metric_relabel_configs == other.metric_relabel_configs
            && ha(self) == ha(other)
    }

    /// For `auth_enabled: false` without a file: nothing is limited that protects tenants from each other; what protects
    /// the node (label counts and lengths, query samples) stays as in Cortex.
    pub fn unlimited() -> TenantLimits {
        TenantLimits {
            ingestion_rate: f64::INFINITY,
            ingestion_burst_size: 0,
            max_series_per_user: 0,
            max_series_per_metric: 0,
            max_outstanding_requests_per_tenant: 0,
            max_fetched_chunks_per_query: 0,
            ..TenantLimits::cortex()
        }
    }

    /// The defaults of Cortex, but that exemplars are kept, as many as Prometheus keeps, and that samples may come ten minutes late. Source: `pkg/util/validation/limits.go`.
    pub fn cortex() -> TenantLimits {
        TenantLimits {
            ingestion_rate: 25_000.0,
            ingestion_burst_size: 50_000,
            ingestion_rate_strategy: RateStrategy::Local,
            native_histogram_ingestion_rate: f64::INFINITY,
            native_histogram_ingestion_burst_size: 0,
            max_series_per_user: 5_000_000,
            max_series_per_metric: 50_000,
            max_global_series_per_user: 0,
            max_global_series_per_metric: 0,
            series_limit_status: SeriesLimitStatus::BadRequest,
            name_scheme: NameScheme::Utf8,
            max_label_names_per_series: 30,
            max_label_name_length: 1024,
            max_label_value_length: 2048,
            max_labels_size_bytes: 0,
            max_metadata_length: 1024,
            max_metadata_per_user: 8000,
            max_metadata_per_metric: 10,
            max_global_metadata_per_user: 0,
            max_global_metadata_per_metric: 0,
            max_exemplars: 100_000,
            enable_start_timestamp: false,
            enable_native_histograms: true,
            max_native_histogram_buckets: 0,
            max_native_histogram_sample_size_bytes: 0,
            enforce_metric_name: true,
            enforce_metadata_metric_name: true,
            reject_old_samples: false,
            reject_old_samples_max_age: Duration::from_secs(14 * 86_400),
            creation_grace_period: Duration::from_secs(600),
            out_of_order_time_window: Duration::from_secs(600),
            promote_resource_attributes: Vec::new(),
            drop_labels: Vec::new(),
            metric_relabel_configs: Vec::new(),
            accept_ha_samples: false,
            ha_cluster_label: "cluster".to_owned(),
            ha_replica_label: "__replica__".to_owned(),
            ha_max_clusters: 0,
            ha_tracker_failover_timeout: Duration::from_secs(30),
            ack: Ack::Durable,
            retention: Duration::from_secs(86_400),
            max_query_length: Duration::ZERO,
            max_query_lookback: Duration::ZERO,
            max_cache_freshness: Duration::from_secs(60),
            results_cache_ttl: Duration::ZERO,
            max_regex_pattern_length: 0,
            max_label_cardinality_for_unoptimized_regex: 0,
            max_total_label_value_length_for_unoptimized_regex: 0,
            max_query_response_size: 0,
            query_rejection: QueryRejection::default(),
            query_priority: QueryPriority::default(),
            max_fetched_series_per_query: 0,
            max_fetched_chunk_bytes_per_query: 0,
            max_fetched_chunks_per_query: 2_000_000,
            max_fetched_data_bytes_per_query: 0,
            max_estimated_memory_consumption_per_query: 0,
            max_concurrent_queries: 0,
            max_outstanding_requests_per_tenant: 100,
            promql_experimental_functions_enabled: true,
            query_vertical_shard_size: 0,
            max_samples_per_query: 50_000_000,
        }
    }
}

/// The smaller of two limits of which zero is none.
fn smaller(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, limit) | (limit, 0) => limit,
        (a, b) => a.min(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_names_are_those_that_need_no_quotes() {
        let legacy = NameScheme::Legacy;
        for (name, label, metric) in [
            ("up", true, true),
            ("_a1", true, true),
            ("job:up:rate5m", false, true),
            ("1a", false, false),
            ("a.b", false, false),
            ("größe", false, false),
            ("", false, false),
        ] {
            assert_eq!(legacy.takes_label(name), label, "{name}");
            assert_eq!(legacy.takes_metric(name), metric, "{name}");
            assert_eq!(NameScheme::Utf8.takes_label(name), !name.is_empty());
        }
    }

    #[test]
    fn a_query_over_two_tenants_may_what_both_may() {
        let one = TenantLimits {
            max_query_lookback: Duration::from_secs(5),
            max_fetched_series_per_query: 0,
            max_concurrent_queries: 7,
            ..TenantLimits::cortex()
        };
        let two = TenantLimits {
            max_query_lookback: Duration::ZERO,
            max_fetched_series_per_query: 3,
            max_concurrent_queries: 2,
            promql_experimental_functions_enabled: false,
            ..TenantLimits::cortex()
        };
        for both in [one.most_restrictive(&two), two.most_restrictive(&one)] {
            assert_eq!(both.max_query_lookback, Duration::from_secs(5));
            assert_eq!(both.max_fetched_series_per_query, 3);
            assert_eq!(both.max_concurrent_queries, 2);
            assert!(!both.promql_experimental_functions_enabled);
        }
    }

    #[test]
    fn of_two_limits_the_smaller_holds_and_zero_is_none() {
        let limits = |local, global| TenantLimits {
            max_series_per_user: local,
            max_global_series_per_user: global,
            ..TenantLimits::cortex()
        };
        for (local, global, wanted) in [(0, 0, 0), (5, 0, 5), (0, 7, 7), (5, 7, 5), (7, 5, 5)] {
            assert_eq!(limits(local, global).series_per_user(), wanted);
        }
    }
}
