//! What caches are watched by, under the names that dashboards and alerts of Cortex and Thanos know.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, exponential_buckets,
};

use crate::Value;

/// What is asked of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Set,
}

impl Operation {
    /// As Thanos has it.
    fn thanos(self) -> &'static str {
        match self {
            Operation::Get => "getmulti",
            Operation::Set => "set",
        }
    }

    /// As Cortex has it: of its client of memcached, and of a cache.
    fn cortex(self) -> [&'static str; 2] {
        match self {
            Operation::Get => ["Memcache.GetMulti", "fetch"],
            Operation::Set => ["Memcache.Put", "store"],
        }
    }
}

/// Those of all caches of a process, told apart by `name`.
#[derive(Debug, Clone)]
pub struct Metrics {
    operations: IntCounterVec,
    failures: IntCounterVec,
    skipped: IntCounterVec,
    seconds: HistogramVec,
    sizes: HistogramVec,
    lookups: IntCounterVec,
    lookup_failures: IntCounterVec,
    provided: IntGaugeVec,
    servers: IntGaugeVec,
    client_seconds: HistogramVec,
    cache_seconds: HistogramVec,
    cache_sizes: HistogramVec,
    fetched: IntCounterVec,
    hits: IntCounterVec,
    queue: IntGaugeVec,
    dropped: IntCounterVec,
    unsound: IntCounterVec,
    bytes: IntGaugeVec,
    entries: IntGaugeVec,
}

/// Those of one cache.
#[derive(Debug, Clone)]
pub struct Named {
    all: Metrics,
    name: &'static str,
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("a valid metric")
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid metric")
}

fn histograms(name: &str, help: &str, labels: &[&str], buckets: Vec<f64>) -> HistogramVec {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)
        .expect("a valid metric")
}

impl Metrics {
    /// Registers all of them.
    ///
    /// Errors: the registry has some already.
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let metrics = Metrics::unregistered();
        for collector in metrics.collectors() {
            registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Seen by nobody.
    pub fn unregistered() -> Metrics {
        let seconds = vec![
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
        ];
        let sizes = exponential_buckets(128.0, 4.0, 8).expect("valid buckets");
        Metrics {
            operations: counters(
                "thanos_memcached_operations_total",
                "Exchanges with memcached servers.",
                &["name", "operation"],
            ),
            failures: counters(
                "thanos_memcached_operation_failures_total",
                "Exchanges with memcached servers that failed, by reason: timeout, network-error, malformed or server-error.",
                &["name", "operation", "reason"],
            ),
            skipped: counters(
                "thanos_memcached_operation_skipped_total",
                "What was not asked of a cache, by reason: max-item-size, too-many, circuit-breaker or no-server.",
                &["name", "operation", "reason"],
            ),
            seconds: histograms(
                "thanos_memcached_operation_duration_seconds",
                "How long exchanges with memcached servers took that did not fail.",
                &["name", "operation"],
                seconds.clone(),
            ),
            sizes: histograms(
                "thanos_memcached_operation_data_size_bytes",
                "Sizes of values sent to and got from memcached servers.",
                &["name", "operation"],
                sizes,
            ),
            lookups: counters(
                "thanos_memcached_dns_lookups_total",
                "Looks for the addresses of memcached servers.",
                &["name"],
            ),
            lookup_failures: counters(
                "thanos_memcached_dns_failures_total",
                "Those that failed; the addresses known before stay.",
                &["name"],
            ),
            provided: gauges(
                "thanos_memcached_dns_provider_results",
                "Addresses that a name stood for last.",
                &["name", "addr"],
            ),
            servers: gauges(
                "cortex_memcache_client_servers",
                "Memcached servers in use.",
                &["name"],
            ),
            client_seconds: histograms(
                "cortex_memcache_request_duration_seconds",
                "How long exchanges with memcached servers took; status_code is 200, 404 where nothing was found, or 500.",
                &["name", "method", "status_code"],
                seconds.clone(),
            ),
            cache_seconds: histograms(
                "cortex_cache_request_duration_seconds",
                "The same by cache, whose name is in the method: its fetch or store.",
                &["method", "status_code"],
                seconds,
            ),
            cache_sizes: histograms(
                "cortex_cache_value_size_bytes",
                "Sizes of values sent to and got from memcached servers.",
                &["name", "method"],
                exponential_buckets(1024.0, 4.0, 7).expect("valid buckets"),
            ),
            fetched: counters(
                "cortex_cache_fetched_keys_total",
                "Keys that a cache was asked for.",
                &["name"],
            ),
            hits: counters("cortex_cache_hits_total", "Keys that it had.", &["name"]),
            queue: gauges(
                "cortex_cache_background_queue_length",
                "Values that wait to be written to memcached.",
                &["name"],
            ),
            dropped: counters(
                "cortex_cache_dropped_background_writes_total",
                "Values that were not written to memcached because too many waited.",
                &["name"],
            ),
            unsound: counters(
                "myelin_cache_unsound_values_total",
                "Values of memcached that were not whole or of another key, and were not used.",
                &["name"],
            ),
            bytes: gauges(
                "myelin_cache_bytes",
                "Bytes of a cache in this process.",
                &["name"],
            ),
            entries: gauges(
                "myelin_cache_entries",
                "Values in a cache in this process.",
                &["name"],
            ),
        }
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.operations.clone()),
            Box::new(self.failures.clone()),
            Box::new(self.skipped.clone()),
            Box::new(self.seconds.clone()),
            Box::new(self.sizes.clone()),
            Box::new(self.lookups.clone()),
            Box::new(self.lookup_failures.clone()),
            Box::new(self.provided.clone()),
            Box::new(self.servers.clone()),
            Box::new(self.client_seconds.clone()),
            Box::new(self.cache_seconds.clone()),
            Box::new(self.cache_sizes.clone()),
            Box::new(self.fetched.clone()),
            Box::new(self.hits.clone()),
            Box::new(self.queue.clone()),
            Box::new(self.dropped.clone()),
            Box::new(self.unsound.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.entries.clone()),
        ]
    }

    /// Those of the cache of this name.
    pub fn of(&self, name: &'static str) -> Named {
        let all = self.clone();
        // From the start, so that an alert on a rate sees the first of each too.
        for counters in [&all.fetched, &all.hits, &all.unsound, &all.dropped] {
            counters.with_label_values(&[name]);
        }
        Named { all, name }
    }
}

impl Named {
    pub(crate) fn found(&self, found: &[Option<Value>]) {
        let hits = found.iter().flatten().count();
        let name = [self.name];
        self.all
            .fetched
            .with_label_values(&name)
            .inc_by(found.len() as u64);
        self.all.hits.with_label_values(&name).inc_by(hits as u64);
    }

    pub(crate) fn holds(&self, bytes: u64, entries: usize) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let name = [self.name];
        self.all.bytes.with_label_values(&name).set(number(bytes));
        let entries = number(entries as u64);
        self.all.entries.with_label_values(&name).set(entries);
    }

    pub(crate) fn skipped(&self, operation: Operation, reason: &str) {
        let labels = [self.name, operation.thanos(), reason];
        self.all.skipped.with_label_values(&labels).inc();
    }

    /// An exchange has ended; `Err`: why it failed, `Ok`: whether there was anything.
    pub(crate) fn exchanged(
        &self,
        operation: Operation,
        result: Result<bool, &str>,
        took: Duration,
    ) {
        let labels = [self.name, operation.thanos()];
        self.all.operations.with_label_values(&labels).inc();
        let seconds = took.as_secs_f64();
        let status = match result {
            Ok(found) => {
                self.all.seconds.with_label_values(&labels).observe(seconds);
                if found { "200" } else { "404" }
            }
            Err(reason) => {
                let labels = [self.name, operation.thanos(), reason];
                self.all.failures.with_label_values(&labels).inc();
                "500"
            }
        };
        let [of_client, of_cache] = operation.cortex();
        let labels = [self.name, of_client, status];
        let client = self.all.client_seconds.with_label_values(&labels);
        client.observe(seconds);
        let method = format!("{}.{of_cache}", self.name);
        let cache = &self.all.cache_seconds;
        cache
            .with_label_values(&[&*method, status])
            .observe(seconds);
    }

    pub(crate) fn size(&self, operation: Operation, bytes: usize) {
        let labels = [self.name, operation.thanos()];
        let sizes = self.all.sizes.with_label_values(&labels);
        sizes.observe(bytes as f64);
        let [_, method] = operation.cortex();
        let sizes = &self.all.cache_sizes;
        sizes
            .with_label_values(&[self.name, method])
            .observe(bytes as f64);
    }

    pub(crate) fn unsound(&self) {
        self.all.unsound.with_label_values(&[self.name]).inc();
    }

    pub(crate) fn waiting(&self, count: i64) {
        self.all.queue.with_label_values(&[self.name]).add(count);
    }

    pub(crate) fn dropped(&self) {
        self.all.dropped.with_label_values(&[self.name]).inc();
    }

    pub(crate) fn looked_up(&self, address: &str, found: Option<usize>) {
        self.all.lookups.with_label_values(&[self.name]).inc();
        match found {
            Some(found) => {
                let labels = [self.name, address];
                let found = i64::try_from(found).unwrap_or(i64::MAX);
                self.all.provided.with_label_values(&labels).set(found);
            }
            None => {
                let failures = &self.all.lookup_failures;
                failures.with_label_values(&[self.name]).inc();
            }
        }
    }

    pub(crate) fn servers(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.all.servers.with_label_values(&[self.name]).set(count);
    }

    #[cfg(test)]
    pub(crate) fn counts(&self) -> [u64; 3] {
        let name = [self.name];
        [
            self.all.unsound.with_label_values(&name).get(),
            self.all.dropped.with_label_values(&name).get(),
            self.all.hits.with_label_values(&name).get(),
        ]
    }

    #[cfg(test)]
    pub(crate) fn skips(&self, operation: Operation, reason: &str) -> u64 {
        let labels = [self.name, operation.thanos(), reason];
        self.all.skipped.with_label_values(&labels).get()
    }
}
