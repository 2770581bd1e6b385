//! Counters of the HTTP server. Names of Cortex, so that its dashboards find them.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntGauge, Registry};

/// Registered once per gateway.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: HistogramVec,
    /// Of `requests`, pushes that went well, by path and version: their labels are not looked up for each.
    pushes: [OnceLock<Histogram>; 4],
    /// Of the query API, without the wait for a turn.
    queries: HistogramVec,
    request_bytes: HistogramVec,
    response_bytes: HistogramVec,
    /// Of these two, pushes by path.
    push_bytes: [[OnceLock<Histogram>; 2]; 2],
    pub(crate) inflight: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) panics: IntCounter,
    shutdowns: HistogramVec,
}

impl Metrics {
    /// Registers everything. Panics when a name is taken.
    pub(crate) fn new(registry: &Registry) -> Metrics {
        let requests = HistogramOpts::new(
            "cortex_request_duration_seconds",
            "Time from the head of a request to the head of its answer.",
        )
        .buckets(vec![
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0,
        ]);
        let labels = ["method", "route", "status_code", "ws"];
        let queries = HistogramOpts::new(
            "cortex_querier_request_duration_seconds",
            "Time of requests of the query API, the wait for a turn not counted.",
        )
        .buckets(vec![
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0,
        ]);
        let bytes = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(256.0, 8.0, 7).expect("valid buckets");
            let opts = HistogramOpts::new(name, help).buckets(buckets);
            HistogramVec::new(opts, &["method", "route"]).expect("a valid metric")
        };
        let metrics = Metrics {
            requests: HistogramVec::new(requests, &labels).expect("a valid metric"),
            pushes: Default::default(),
            push_bytes: Default::default(),
            queries: HistogramVec::new(queries, &labels).expect("a valid metric"),
            request_bytes: bytes(
                "cortex_request_message_bytes",
                "Bytes of the bodies of requests, as their length was told.",
            ),
            response_bytes: bytes(
                "cortex_response_message_bytes",
                "Bytes of the bodies of answers, as they were sent.",
            ),
            inflight: IntGauge::new("cortex_inflight_requests", "HTTP requests at work.")
                .expect("a valid metric"),
            connections: IntGauge::new("cortex_tcp_connections", "HTTP connections.")
                .expect("a valid metric"),
            shutdowns: {
                let buckets = prometheus::exponential_buckets(1.0, 3.0, 8).expect("valid buckets");
                let opts = HistogramOpts::new(
                    "cortex_shutdown_duration_seconds",
                    "How long it took to bring memory into blocks when the node was told to shut down (/ingester/shutdown).",
                );
                HistogramVec::new(opts.buckets(buckets), &["op", "status"]).expect("a valid metric")
            },
            panics: IntCounter::new(
                "myelin_gateway_panics_total",
                "HTTP requests on which the server panicked.",
            )
            .expect("a valid metric"),
        };
        for collector in [
            Box::new(metrics.requests.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(metrics.queries.clone()),
            Box::new(metrics.request_bytes.clone()),
            Box::new(metrics.response_bytes.clone()),
            Box::new(metrics.inflight.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.panics.clone()),
            Box::new(metrics.shutdowns.clone()),
        ] {
            registry
                .register(collector)
                .expect("each metric is registered once");
        }
        metrics
    }

    /// Counts one request. `method` and `route` are from a fixed set: what a client invents is no label.
    pub(crate) fn request(&self, method: &str, route: &str, status: u16, duration: Duration) {
        let digits = digits(status);
        let status = std::str::from_utf8(&digits).expect("digits");
        let labels = [method, route, status, "false"];
        let seconds = duration.as_secs_f64();
        let resolve = || self.requests.with_label_values(&labels);
        let often = match (route, status) {
            ("api_v1_push", "200") => &self.pushes[0],
            ("api_v1_push", "204") => &self.pushes[1],
            ("api_prom_push", "200") => &self.pushes[2],
            ("api_prom_push", "204") => &self.pushes[3],
            _ => return resolve().observe(seconds),
        };
        // Only POST is answered so on these paths.
        often.get_or_init(resolve).observe(seconds);
    }

    /// Memory was brought into blocks, or was not, because the node was told to shut down.
    pub(crate) fn shutdown(&self, is_done: bool, took: Duration) {
        let status = if is_done { "success" } else { "failure" };
        let labels = ["flush", status];
        let shutdowns = self.shutdowns.with_label_values(&labels);
        shutdowns.observe(took.as_secs_f64());
    }

    /// Counts one request of the query API, without its wait.
    pub(crate) fn query_request(&self, method: &str, route: &str, status: u16, busy: Duration) {
        let digits = digits(status);
        let status = std::str::from_utf8(&digits).expect("digits");
        let labels = [method, route, status, "false"];
        let histogram = self.queries.with_label_values(&labels);
        histogram.observe(busy.as_secs_f64());
    }

    /// Counts the bytes of a request's body.
    pub(crate) fn request_bytes(&self, method: &str, route: &str, bytes: u64) {
        let [of_pushes, _] = &self.push_bytes;
        observe_bytes(&self.request_bytes, of_pushes, (method, route), bytes);
    }

    /// Counts the bytes of an answer's body.
    pub(crate) fn response_bytes(&self, method: &str, route: &str, bytes: u64) {
        let [_, of_pushes] = &self.push_bytes;
        observe_bytes(&self.response_bytes, of_pushes, (method, route), bytes);
    }
}

fn observe_bytes(
    all: &HistogramVec,
    of_pushes: &[OnceLock<Histogram>; 2],
    (method, route): (&str, &str),
    bytes: u64,
) {
    let resolve = || all.with_label_values(&[method, route]);
    match (method, route) {
        ("POST", "api_v1_push") => of_pushes[0].get_or_init(resolve).observe(bytes as f64),
        ("POST", "api_prom_push") => of_pushes[1].get_or_init(resolve).observe(bytes as f64),
        _ => resolve().observe(bytes as f64),
    }
}

/// A status without an allocation.
fn digits(status: u16) -> [u8; 3] {
    let mut digits = [b'0'; 3];
    for (at, power) in [100, 10, 1].into_iter().enumerate() {
        digits[at] = b'0' + (status / power % 10) as u8;
    }
    digits
}
