//! Counters of the read path. Names of Cortex where the meaning is the same.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use model::TenantId;
use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry,
};

use crate::error::Error;

/// Tenants that have series of their own in the metrics; those that come later share one. A tenant is whatever a
/// client says it is, so there must be a bound.
const USERS_MAX: usize = 10_000;

/// The label of the tenants beyond [`USERS_MAX`]; no tenant id, since those have no such characters.
const OTHER_USERS: &str = "<other>";

/// Registered once per engine.
#[derive(Debug)]
pub(crate) struct Metrics {
    users: RwLock<HashSet<TenantId>>,
    pub(crate) queries: IntCounterVec,
    pub(crate) fetched_series: IntCounterVec,
    pub(crate) fetched_bytes: IntCounterVec,
    pub(crate) samples: IntCounterVec,
    pub(crate) fetched_data_bytes: IntCounterVec,
    pub(crate) discarded: IntCounterVec,
    pub(crate) failed: IntCounterVec,
    pub(crate) killed: IntCounter,
    pub(crate) memory_bytes: IntGauge,
    pub(crate) concurrent_max: IntGauge,
    pub(crate) panics: IntCounter,
    pub(crate) at_work: IntGauge,
    /// Under the names of both parts of Cortex that have a queue.
    pub(crate) waited: [Histogram; 2],
    pub(crate) rejected: IntCounterVec,
    /// Series, chunks and samples of a query.
    pub(crate) queried: [Histogram; 3],
    pub(crate) slow: IntCounterVec,
    /// Deletions asked for, and those that were not made.
    pub(crate) deletes: IntCounterVec,
    pub(crate) deletes_failed: IntCounterVec,
    pub(crate) seconds: CounterVec,
    pub(crate) stages: HistogramVec,
    pub(crate) split: IntCounter,
    sharded: IntCounter,
    divided: IntCounter,
    steps: IntCounterVec,
    results_bytes: IntGauge,
    results: IntGauge,
}

impl Metrics {
    /// Registers everything. Panics when a name is taken: two engines in one registry.
    pub(crate) fn new(registry: &Registry) -> Metrics {
        let by_user = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["user"]);
            registered(registry, counter.expect("a valid metric"))
        };
        let buckets = prometheus::exponential_buckets(0.000_1, 4.0, 10).expect("valid buckets");
        let counters = |name: &str, help: &str, label: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), label);
            registered(registry, counter.expect("a valid metric"))
        };
        let gauge = |name: &str, help: &str| {
            registered(registry, IntGauge::new(name, help).expect("a valid metric"))
        };
        let stages = HistogramOpts::new(
            "myelin_query_stage_duration_seconds",
            "Time of one stage of a query: parse, fetch, evaluate.",
        );
        let waited = |name: &str| {
            let waited = HistogramOpts::new(name, "Time that requests waited for their turn.");
            let waited = Histogram::with_opts(waited.buckets(buckets.clone()));
            registered(registry, waited.expect("a valid metric"))
        };
        let queried = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(10.0, 8.0, 8).expect("valid buckets");
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets));
            registered(registry, histogram.expect("a valid metric"))
        };
        Metrics {
            users: RwLock::default(),
            deletes: by_user(
                "cortex_purger_delete_requests_received_total",
                "Deletions that were asked for.",
            ),
            deletes_failed: by_user(
                "cortex_purger_delete_requests_processing_failures_total",
                "Deletions that were not made, or in part.",
            ),
            queried: [
                queried(
                    "cortex_ingester_queried_series",
                    "Series that one query has fetched.",
                ),
                queried(
                    "cortex_ingester_queried_chunks",
                    "Chunks that one query has fetched.",
                ),
                queried(
                    "cortex_ingester_queried_samples",
                    "Samples that one query has looked at.",
                ),
            ],
            queries: counters(
                "cortex_query_frontend_queries_total",
                "Requests of the query API that were admitted.",
                &["op", "user"],
            ),
            fetched_series: by_user(
                "cortex_query_fetched_series_total",
                "Series read from the cores.",
            ),
            fetched_bytes: by_user(
                "cortex_query_fetched_chunks_bytes_total",
                "Bytes of chunks read from the cores.",
            ),
            fetched_data_bytes: by_user(
                "cortex_query_fetched_data_bytes_total",
                "Bytes of labels and chunks read from the cores.",
            ),
            discarded: counters(
                "cortex_query_frontend_discarded_requests_total",
                "Requests of the query API that were refused because too many waited.",
                &["user", "priority"],
            ),
            rejected: counters(
                "cortex_rejected_queries_total",
                "Requests of the query API that were refused or given up because of a limit of their tenant.",
                &["reason", "user"],
            ),
            slow: by_user(
                "cortex_slow_queries_total",
                "Requests of the query API that took longer than frontend.log_queries_longer_than.",
            ),
            seconds: {
                let seconds = Opts::new(
                    "cortex_query_seconds_total",
                    "Time of queries from their turn to their result, seconds.",
                );
                let seconds = CounterVec::new(seconds, &["user"]).expect("a valid metric");
                registered(registry, seconds)
            },
            killed: registered(
                registry,
                IntCounter::new(
                    "myelin_query_killed_total",
                    "Requests of the query API that somebody ended.",
                )
                .expect("a valid metric"),
            ),
            memory_bytes: gauge(
                "myelin_query_memory_bytes",
                "Bytes that requests of the query API hold, answers on their way included.",
            ),
            concurrent_max: gauge(
                "cortex_max_concurrent_queries",
                "Requests of the query API that may be at work at once.",
            ),
            samples: by_user(
                "cortex_query_samples_total",
                "Samples that queries looked at.",
            ),
            failed: counters(
                "myelin_query_failures_total",
                "Requests of the query API without an answer, by kind of error.",
                &["reason"],
            ),
            panics: registered(
                registry,
                IntCounter::new(
                    "myelin_query_panics_total",
                    "Queries on which the server panicked.",
                )
                .expect("a valid metric"),
            ),
            at_work: gauge("myelin_query_at_work", "Requests of the query API at work."),
            split: registered(
                registry,
                IntCounter::new(
                    "cortex_frontend_split_queries_total",
                    "Pieces of range queries that were evaluated in more than one.",
                )
                .expect("a valid metric"),
            ),
            sharded: registered(
                registry,
                IntCounter::new(
                    "cortex_frontend_sharded_queries_total",
                    "Shards that were evaluated of queries whose series were divided.",
                )
                .expect("a valid metric"),
            ),
            divided: registered(
                registry,
                IntCounter::new(
                    "cortex_frontend_mapped_asts_total",
                    "Queries, or pieces of range queries, whose series were divided into shards.",
                )
                .expect("a valid metric"),
            ),
            steps: counters(
                "myelin_query_steps_total",
                "Steps of range queries that may be kept, by where they came from: evaluated or cache.",
                &["from"],
            ),
            results_bytes: gauge(
                "myelin_results_cache_bytes",
                "Bytes of results of range queries that are kept.",
            ),
            results: gauge(
                "myelin_results_cache_entries",
                "Range queries of which results are kept.",
            ),
            waited: [
                waited("cortex_query_frontend_queue_duration_seconds"),
                waited("cortex_query_scheduler_queue_duration_seconds"),
            ],
            stages: registered(
                registry,
                HistogramVec::new(stages.buckets(buckets), &["stage"]).expect("a valid metric"),
            ),
        }
    }

    /// Counts an error that is a bound of its tenant.
    pub(crate) fn count_rejected(&self, tenant: &TenantId, error: &Error) {
        if let Some(reason) = error.rejection() {
            let labels = [reason, self.user(tenant)];
            self.rejected.with_label_values(&labels).inc();
        }
    }

    /// Counts an evaluation in so many shards.
    pub(crate) fn count_shards(&self, shards: usize) {
        if shards > 1 {
            self.divided.inc();
            self.sharded.inc_by(shards as u64);
        }
    }

    pub(crate) fn count_steps(&self, from_cache: u64, evaluated: u64) {
        let from = |source: &str| self.steps.with_label_values(&[source]);
        from("cache").inc_by(from_cache);
        from("evaluated").inc_by(evaluated);
    }

    pub(crate) fn count_results(&self, (bytes, entries): (u64, usize)) {
        self.results_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.results.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }

    /// The label value of a tenant.
    pub(crate) fn user<'a>(&self, tenant: &'a TenantId) -> &'a str {
        if self
            .users
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(tenant)
        {
            return tenant.as_str();
        }
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        if users.len() < USERS_MAX {
            users.insert(tenant.clone());
        }
        if users.contains(tenant) {
            tenant.as_str()
        } else {
            OTHER_USERS
        }
    }
}

fn registered<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> C {
    registry
        .register(Box::new(metric.clone()))
        .expect("each metric is registered once");
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_tenants_do_not_make_series_without_end() {
        let metrics = Metrics::new(&Registry::new());
        let tenant = |n: usize| TenantId::new(&format!("t{n}")).unwrap();
        for n in 0..USERS_MAX {
            assert_eq!(metrics.user(&tenant(n)), format!("t{n}"));
        }
        assert_eq!(metrics.user(&tenant(USERS_MAX)), OTHER_USERS);
        assert_eq!(metrics.user(&tenant(7)), "t7");
    }
}
