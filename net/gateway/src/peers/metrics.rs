//! How calls on other nodes go, under the names that dashboards of Cortex know.

use std::pin::Pin;
use std::task::{Context, Poll};

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::Service;

/// See the module; cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerMetrics {
    requests: HistogramVec,
    appends: IntCounterVec,
    append_failures: IntCounterVec,
    queries: IntCounterVec,
    query_failures: IntCounterVec,
}

/// What a push carries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Appended {
    Samples,
    Metadata,
}

impl Appended {
    fn name(self) -> &'static str {
        match self {
            Appended::Samples => "samples",
            Appended::Metadata => "metadata",
        }
    }
}

impl PeerMetrics {
    /// Of calls on so many nodes.
    ///
    /// Errors: the registry has some of these already.
    pub fn register(registry: &Registry, nodes: usize) -> Result<PeerMetrics, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let opts = HistogramOpts::new(
            "cortex_ingester_client_request_duration_seconds",
            "Time of calls on ingesters until the head of their answer; status_code is 2xx or error.",
        );
        let opts = opts.buckets(exponential_buckets(0.001, 4.0, 7)?);
        let requests = HistogramVec::new(opts, &["operation", "status_code"])?;
        let number = |name: &str, help: &str, value: i64| {
            let gauge = IntGauge::new(name, help)?;
            gauge.set(value);
            Ok::<_, prometheus::Error>(Box::new(gauge) as Box<dyn Collector>)
        };
        registry.register(Box::new(requests.clone()))?;
        registry.register(number(
            "cortex_distributor_ingester_clients",
            "Ingesters that this process writes to or reads from.",
            i64::try_from(nodes).unwrap_or(i64::MAX),
        )?)?;
        registry.register(number(
            "cortex_distributor_replication_factor",
            "Ingesters that have each series.",
            1,
        )?)?;
        Ok(PeerMetrics {
            requests,
            appends: counters(
                "cortex_distributor_ingester_appends_total",
                "Pushes to an ingester.",
                &["ingester", "type"],
            )?,
            append_failures: counters(
                "cortex_distributor_ingester_append_failures_total",
                "Those that it did not answer, or not in time.",
                &["ingester", "type"],
            )?,
            queries: counters(
                "cortex_distributor_ingester_queries_total",
                "Reads of samples from an ingester.",
                &["ingester"],
            )?,
            query_failures: counters(
                "cortex_distributor_ingester_query_failures_total",
                "Those that ended with an error.",
                &["ingester"],
            )?,
        })
    }

    /// From the start, so that an alert on a rate sees the first failure too.
    pub(super) fn begin(&self, ingester: &str) {
        for counters in [&self.queries, &self.query_failures] {
            counters.with_label_values(&[ingester]);
        }
        for what in [Appended::Samples, Appended::Metadata] {
            for counters in [&self.appends, &self.append_failures] {
                counters.with_label_values(&[ingester, what.name()]);
            }
        }
    }

    pub(super) fn appended(&self, ingester: &str, what: Appended, failed: bool) {
        let labels = [ingester, what.name()];
        self.appends.with_label_values(&labels).inc();
        if failed {
            self.append_failures.with_label_values(&labels).inc();
        }
    }

    pub(super) fn queried(&self, ingester: &str, failed: bool) {
        self.queries.with_label_values(&[ingester]).inc();
        if failed {
            self.query_failures.with_label_values(&[ingester]).inc();
        }
    }
}

/// Calls whose time is taken. One that nobody waits for any more is not counted.
#[derive(Debug, Clone)]
pub(super) struct Timed<S> {
    calls: S,
    metrics: PeerMetrics,
}

impl<S> Timed<S> {
    pub(super) fn new(calls: S, metrics: &PeerMetrics) -> Timed<S> {
        let metrics = metrics.clone();
        Timed { calls, metrics }
    }
}

impl<S, R> Service<http::Request<Body>> for Timed<S>
where
    S: Service<http::Request<Body>, Response = http::Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.calls.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // Names of methods, of which there are few.
        let operation = request.uri().path().to_owned();
        let requests = self.metrics.requests.clone();
        let begun = Instant::now();
        let answered = self.calls.call(request);
        Box::pin(async move {
            let answer = answered.await;
            let status = answer.as_ref().ok().map(|answer| {
                // An answer that is only a status has it in its head.
                answer.headers().get("grpc-status")
            });
            let went_well = status.is_some_and(|s| s.is_none_or(|s| s.as_bytes() == b"0"));
            let status = if went_well { "2xx" } else { "error" };
            let histogram = requests.with_label_values(&[&*operation, status]);
            histogram.observe(begun.elapsed().as_secs_f64());
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, ready};

    use super::*;

    /// Answers with that status in the head, or without one.
    #[derive(Clone)]
    struct Says(Option<&'static str>);

    impl Service<http::Request<Body>> for Says {
        type Response = http::Response<()>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            let mut answer = http::Response::new(());
            if let Some(status) = self.0 {
                let status = http::HeaderValue::from_static(status);
                answer.headers_mut().insert("grpc-status", status);
            }
            ready(Ok(answer))
        }
    }

    #[tokio::test]
    async fn calls_are_told_apart_by_method_and_by_whether_they_went_well() {
        let registry = Registry::new();
        let metrics = PeerMetrics::register(&registry, 3).unwrap();
        for (says, path) in [(None, "/a"), (Some("0"), "/a"), (Some("14"), "/b")] {
            let mut timed = Timed::new(Says(says), &metrics);
            let request = http::Request::builder().uri(path).body(Body::empty());
            timed.call(request.unwrap()).await.unwrap();
        }
        metrics.begin("node:1");
        metrics.appended("node:1", Appended::Samples, true);
        metrics.queried("node:1", false);
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "cortex_ingester_client_request_duration_seconds_count{operation=\"/a\",status_code=\"2xx\"} 2",
            "cortex_ingester_client_request_duration_seconds_count{operation=\"/b\",status_code=\"error\"} 1",
            "cortex_distributor_ingester_clients 3",
            "cortex_distributor_ingester_append_failures_total{ingester=\"node:1\",type=\"samples\"} 1",
            "cortex_distributor_ingester_append_failures_total{ingester=\"node:1\",type=\"metadata\"} 0",
            "cortex_distributor_ingester_queries_total{ingester=\"node:1\"} 1",
            "cortex_distributor_ingester_query_failures_total{ingester=\"node:1\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
