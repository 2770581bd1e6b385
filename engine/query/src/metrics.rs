//! Counters of the read path. Names of Cortex where the meaning is the same.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// Registered once per engine.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) queries: IntCounterVec,
    pub(crate) fetched_series: IntCounterVec,
    pub(crate) fetched_bytes: IntCounterVec,
    pub(crate) samples: IntCounterVec,
    pub(crate) failed: IntCounterVec,
    pub(crate) panics: IntCounter,
    pub(crate) at_work: IntGauge,
    pub(crate) waiting: IntGauge,
    pub(crate) waited: Histogram,
    pub(crate) stages: HistogramVec,
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
        let waited = HistogramOpts::new(
            "cortex_query_frontend_queue_duration_seconds",
            "Time that requests waited for their turn.",
        );
        Metrics {
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
            waiting: gauge(
                "cortex_query_frontend_queue_length",
                "Requests that wait for their turn.",
            ),
            waited: registered(
                registry,
                Histogram::with_opts(waited.buckets(buckets.clone())).expect("a valid metric"),
            ),
            stages: registered(
                registry,
                HistogramVec::new(stages.buckets(buckets), &["stage"]).expect("a valid metric"),
            ),
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
