//! Who the series are and how their values move: as a Kubernetes cluster looks to Prometheus.
//!
//! A *target* is a container of a pod with [`SERIES_PER_TARGET`] series, in the proportions of a usual service:
//!
//! | places | what |
//! | --- | --- |
//! | 0..96 | `http_request_duration_seconds_bucket`: 8 handlers, 12 values of `le` |
//! | 96..120 | `http_client_request_duration_seconds_bucket`: 2 handlers |
//! | 120..140 | `_count` and `_sum` of these ten histograms |
//! | 140..156 | `grpc_server_handled_total`: 4 codes, 4 methods |
//! | 156..160 | counters of the container: CPU, network, requests sent |
//! | 160..178 | `kafka_consumer_group_lag`: 3 topics, 6 partitions |
//! | 178..190 | gauges: memory, pools |
//! | 190..200 | constants: `kube_deployment_spec_replicas_info` |
//!
//! Ten targets are the pods of a deployment, which is a `job`; a namespace has every tenth deployment. The buckets of a histogram
//! are cumulative over `le` at every scrape, its count is the last of them, its sum fits them.
//!
//! A series has nine or ten labels and about 215 bytes of label text, 296 bytes as protobuf with its
//! sample. Everything follows from the index of the series and its generation (how often its pod has been replaced), so that any
//! two runs push the same.

use std::collections::BTreeSet;

/// Series of one container.
pub(crate) const SERIES_PER_TARGET: u64 = 200;
/// Targets of one deployment.
const TARGETS_PER_DEPLOYMENT: u64 = 10;
/// What the label `cluster` of every series says: a selector of all of them.
pub(crate) const CLUSTER: &str = "eu-1";

const BUCKETS: [&str; 12] = [
    "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf",
];
/// Which of five random bits count for a bucket: the most requests take some 50 ms, the fewest ten seconds.
const BUCKET_MASKS: [u64; 12] = [1, 3, 7, 31, 15, 7, 7, 3, 1, 1, 0, 0];
/// Milliseconds that a request of a bucket takes, for the sum.
const BUCKET_MS: [i64; 12] = [3, 8, 18, 37, 75, 170, 370, 750, 1700, 3700, 7500, 15000];
const HANDLERS: [&str; 8] = [
    "/api/v1/orders",
    "/api/v1/orders/{id}",
    "/api/v1/carts",
    "/api/v1/carts/{id}/items",
    "/api/v1/payments",
    "/api/v1/customers",
    "/healthz",
    "/metrics",
];
const CODES: [&str; 4] = ["OK", "NotFound", "Unavailable", "InvalidArgument"];
const METHODS: [&str; 4] = ["Get", "List", "Update", "Watch"];
const SERVICES: [&str; 10] = [
    "checkout",
    "payments",
    "inventory",
    "shipping",
    "customers",
    "catalogue",
    "recommender",
    "notification",
    "reporting",
    "frontend",
];
const COMPONENTS: [&str; 5] = ["api", "worker", "gateway", "batch", "cache"];
const COUNTERS: [&str; 4] = [
    "container_cpu_usage_seconds_total",
    "container_network_receive_bytes_total",
    "container_network_transmit_bytes_total",
    "http_client_requests_sent_total",
];
const TOPICS: [&str; 3] = ["orders.created", "payments.settled", "mails.requested"];
const GAUGES: [&str; 6] = [
    "container_memory_working_set_bytes",
    "container_memory_rss_bytes",
    "process_resident_memory_bytes",
    "jvm_memory_heap_used_bytes",
    "database_pool_active_connections",
    "node_filesystem_avail_ratio_percent",
];

/// How the values of a series move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Motion {
    /// Cumulative count of a histogram bucket.
    Bucket(usize),
    /// Sum of what a histogram has observed, in seconds.
    Sum,
    /// Integers that grow by up to so much.
    Counter(u64),
    /// Seconds of CPU time.
    CpuSeconds,
    /// Small integers that rise and are worked off.
    Lag,
    /// Whole pages of memory.
    Memory,
    /// Wanders, two decimals.
    Gauge,
    /// Never changes.
    Constant,
}

/// A bijection that scatters: every run sees the same "chance".
pub(crate) fn scatter(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

/// What the series at place `within` of a target is.
fn motion(within: u64) -> Motion {
    match within {
        0..120 => Motion::Bucket((within % 12) as usize),
        120..130 => Motion::Bucket(BUCKETS.len() - 1),
        130..140 => Motion::Sum,
        140..156 => Motion::Counter(5000),
        156 => Motion::CpuSeconds,
        157..160 => Motion::Counter(3_000_000),
        160..178 => Motion::Lag,
        178..186 => Motion::Memory,
        186..190 => Motion::Gauge,
        _ => Motion::Constant,
    }
}

/// The histogram of a target that the series at place `within` belongs to.
fn histogram(within: u64) -> Option<u64> {
    match within {
        0..120 => Some(within / 12),
        120..140 => Some(within % 10),
        _ => None,
    }
}

/// Labels of a series, sorted by name.
pub(crate) type SeriesLabels = Vec<(&'static str, String)>;

/// The labels of a series in one of its generations.
pub(crate) fn labels(index: u64, generation: u64) -> SeriesLabels {
    let target = index / SERIES_PER_TARGET;
    let within = index % SERIES_PER_TARGET;
    let pick = |list: &[&'static str], by: u64| list[(by % list.len() as u64) as usize];
    let number = target / TARGETS_PER_DEPLOYMENT;
    let namespace = pick(&SERVICES, number);
    let component = pick(&COMPONENTS, number / 10);
    let deployment = match number / 50 {
        0 => format!("{namespace}-{component}"),
        copy => format!("{namespace}-{component}-{}", copy + 1),
    };
    // A replica set's hash, a pod's suffix and its address: new ones with every generation of the pod.
    let birth = scatter(target << 16 | generation);
    let node = scatter(target / 30) % 250;
    let pod = format!(
        "{deployment}-{:08x}-{:05x}",
        scatter(number) >> 32,
        birth >> 44
    );
    let instance = format!(
        "10.{}.{}.{}:8080",
        64 + (birth >> 8 & 63),
        birth >> 16 & 255,
        birth >> 24 & 255
    );
    let mut labels = vec![
        ("cluster", CLUSTER.to_owned()),
        ("container", component.to_owned()),
        ("instance", instance),
        ("job", format!("{namespace}/{deployment}")),
        ("namespace", namespace.to_owned()),
        ("node", format!("ip-10-12-{}-{}", node / 16, node)),
        ("pod", pod),
    ];
    let mut put = |name, value: String| labels.push((name, value));
    if let Some(histogram) = histogram(within) {
        let (client, handler) = (histogram >= 8, pick(&HANDLERS, histogram));
        put("handler", handler.to_owned());
        let suffix = match within {
            0..120 => "bucket",
            120..130 => "count",
            _ => "sum",
        };
        let of = if client { "http_client" } else { "http" };
        put(
            "__name__",
            format!("{of}_request_duration_seconds_{suffix}"),
        );
    }
    match within {
        0..120 => put("le", pick(&BUCKETS, within).to_owned()),
        120..140 => {}
        140..156 => {
            put("__name__", "grpc_server_handled_total".to_owned());
            put("grpc_code", pick(&CODES, within).to_owned());
            put("grpc_method", pick(&METHODS, within / 4).to_owned());
        }
        156..160 => {
            put("__name__", pick(&COUNTERS, within).to_owned());
            put(
                "image",
                format!("registry.internal/{deployment}:v1.{number}"),
            );
            put("interface", "eth0".to_owned());
        }
        160..178 => {
            put("__name__", "kafka_consumer_group_lag".to_owned());
            put("partition", (within % 6).to_string());
            put("topic", pick(&TOPICS, within / 6).to_owned());
        }
        178..190 => {
            put("__name__", pick(&GAUGES, (within - 178) / 2).to_owned());
            put(
                "image",
                format!("registry.internal/{deployment}:v1.{number}"),
            );
            put("pool", format!("pool-{}", within % 2));
        }
        _ => {
            put("__name__", "kube_deployment_spec_replicas_info".to_owned());
            put("deployment", format!("{deployment}-v{}", within % 10));
            put("revision", format!("{:012x}", scatter(number) >> 16));
        }
    }
    labels.sort_unstable_by_key(|(name, _)| *name);
    labels
}

/// The names of all metrics.
pub(crate) fn metric_names() -> BTreeSet<String> {
    let name = |(name, value): (&str, String)| (name == "__name__").then_some(value);
    let names = (0..SERIES_PER_TARGET).flat_map(|index| labels(index, 0));
    names.filter_map(name).collect()
}

/// Milliseconds by which the scrapes of a target are later than the first moment of an interval: Prometheus spreads its targets
/// over the interval. Never 0, so that no window that begins at such a moment has a sample on its edge, where servers differ.
pub(crate) fn scrape_offset_ms(index: u64, interval_ms: i64) -> i64 {
    1 + (scatter(index / SERIES_PER_TARGET) % (interval_ms as u64 - 1).max(1)) as i64
}

/// What a histogram has counted that has been running for long, by the shares of its buckets.
fn running(shares: &[i64], state: u64) -> i64 {
    shares.iter().sum::<i64>() * (1000 + state % 100_000) as i64
}

/// The value of a series, scrape by scrape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values {
    motion: Motion,
    state: u64,
    /// Integers, or hundredths, thousandths or pages.
    level: i64,
}

impl Values {
    pub(crate) fn new(index: u64, generation: u64) -> Values {
        let within = index % SERIES_PER_TARGET;
        let motion = motion(within);
        // The series of a histogram see the same chance.
        let chance = match histogram(within) {
            Some(histogram) => (index - within) | histogram << 32,
            None => index | 1 << 62,
        };
        let state = scatter(chance ^ generation << 40);
        let level = match motion {
            Motion::Constant => 1 + (state % 5) as i64,
            Motion::Gauge => (state % 1_000_000) as i64,
            Motion::Memory => 10_000 + (state % 100_000) as i64,
            Motion::Lag => (state % 300) as i64,
            // A pod that replaces another begins at nothing, the first ones have been running for long. (Servers differ in
            // what the rate of a counter was before its first sample, and the less, the further that is from zero.)
            _ if generation > 0 => 0,
            Motion::Counter(most) => (most * (100 + state % 1000)) as i64,
            Motion::CpuSeconds => (state % 1_000_000_000) as i64 + 100_000_000,
            Motion::Bucket(last) => running(&BUCKET_MASKS.map(|mask| mask as i64)[..=last], state),
            Motion::Sum => {
                let ms = |bucket: usize| BUCKET_MASKS[bucket] as i64 * BUCKET_MS[bucket];
                running(&std::array::from_fn::<i64, 12, _>(ms), state)
            }
        };
        Values {
            motion,
            state,
            level,
        }
    }

    /// The next value.
    pub(crate) fn next(&mut self) -> f64 {
        self.state = scatter(self.state);
        let state = self.state;
        let requests = |bucket: usize| (state >> (5 * bucket) & BUCKET_MASKS[bucket]) as i64;
        let chance = state >> 32;
        match self.motion {
            Motion::Bucket(last) => self.level += (0..=last).map(requests).sum::<i64>(),
            Motion::Sum => {
                self.level += (0..BUCKETS.len())
                    .map(|bucket| requests(bucket) * BUCKET_MS[bucket])
                    .sum::<i64>();
                return self.level as f64 / 1000.0;
            }
            // A third of the counters does not move between two scrapes.
            Motion::Counter(_) if chance.is_multiple_of(3) => {}
            Motion::Counter(most) => self.level += (chance % most) as i64,
            Motion::CpuSeconds => {
                self.level += (chance % 150_000) as i64;
                return self.level as f64 / 10_000.0;
            }
            Motion::Lag => self.level = (self.level + (chance % 41) as i64 - 20).max(0),
            Motion::Memory => {
                self.level = (self.level + (chance % 129) as i64 - 64).max(1000);
                return (self.level * 4096) as f64;
            }
            Motion::Gauge => {
                self.level += (chance % 2001) as i64 - 1000;
                return self.level as f64 / 100.0;
            }
            Motion::Constant => {}
        }
        self.level as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::workload::put_sample;

    #[test]
    fn a_series_has_nine_or_ten_labels_and_about_215_bytes_of_text() {
        let count = 20_000u64;
        let (mut text, mut request) = (0, Vec::new());
        for index in 0..count {
            let labels = labels(index, 0);
            assert!((9..=10).contains(&labels.len()));
            text += labels
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>();
            put_sample(&mut request, &labels, 1_700_000_000_000, 1.0);
        }
        let text = text as f64 / count as f64;
        assert!((205.0..225.0).contains(&text), "{text} bytes of label text");
        let sample = request.len() as f64 / count as f64;
        assert!(
            (286.0..306.0).contains(&sample),
            "{sample} bytes of protobuf a sample"
        );
    }

    #[test]
    fn no_two_series_and_no_two_generations_are_the_same() {
        let mut seen = HashSet::new();
        for index in 0..50_000 {
            for generation in [0, 1] {
                let labels = labels(index, generation);
                assert!(labels.is_sorted_by(|a, b| a.0 < b.0));
                assert!(
                    seen.insert(labels),
                    "series {index} generation {generation}"
                );
            }
        }
    }

    #[test]
    fn counters_never_fall_and_constants_stay() {
        for index in 0..SERIES_PER_TARGET {
            let mut values = Values::new(index, 0);
            let column: Vec<f64> = (0..50).map(|_| values.next()).collect();
            match motion(index) {
                Motion::Bucket(_) | Motion::Sum | Motion::Counter(_) | Motion::CpuSeconds => {
                    assert!(column.is_sorted(), "{index}");
                }
                Motion::Constant => assert!(column.iter().all(|v| *v == column[0])),
                Motion::Gauge | Motion::Lag | Motion::Memory => {
                    assert!(!column.is_sorted() && column.iter().all(|v| v.is_finite()));
                }
            }
        }
    }

    #[test]
    fn the_buckets_of_a_histogram_are_cumulative_and_its_count_is_the_last() {
        let mut values: Vec<Values> = (0..SERIES_PER_TARGET).map(|i| Values::new(i, 3)).collect();
        for _ in 0..20 {
            let now: Vec<f64> = values.iter_mut().map(Values::next).collect();
            for histogram in 0..10 {
                let buckets = &now[histogram * 12..][..12];
                assert!(buckets.is_sorted(), "{buckets:?}");
                assert!(buckets[11] > 0.0);
                assert_eq!(now[120 + histogram], buckets[11]);
                let mean = now[130 + histogram] / buckets[11];
                assert!((0.005..5.0).contains(&mean), "{mean} s a request");
            }
        }
    }

    #[test]
    fn the_sizes_that_the_query_set_counts_on() {
        let mut by_name: HashMap<String, u64> = HashMap::new();
        let (mut jobs, mut namespaces) = (HashSet::new(), HashSet::new());
        for index in 0..100_000 {
            for (name, value) in labels(index, 0) {
                match name {
                    "__name__" => *by_name.entry(value).or_default() += 1,
                    "job" => drop(jobs.insert(value)),
                    "namespace" => drop(namespaces.insert(value)),
                    _ => {}
                }
            }
        }
        assert_eq!((jobs.len(), namespaces.len()), (50, 10));
        assert_eq!(by_name["http_request_duration_seconds_bucket"], 48_000);
        assert_eq!(by_name["grpc_server_handled_total"], 500 * 16);
        assert_eq!(by_name["kafka_consumer_group_lag"], 9000);
    }
}
