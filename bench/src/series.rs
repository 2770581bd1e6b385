//! Who the series are and how their values move: as a Kubernetes cluster looks to Prometheus.
//!
//! A *target* is a container of a pod with [`SERIES_PER_TARGET`] series: histogram buckets, counters, gauges and constants in
//! the proportions of a usual service. A series has ten labels and about 215 bytes of label text, 296 bytes as protobuf with its
//! sample. Everything follows from the index of the series and its generation (how often its pod has been replaced), so that any
//! two runs push the same.

/// Series of one container.
pub(crate) const SERIES_PER_TARGET: u64 = 200;

const BUCKETS: [&str; 12] = [
    "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf",
];
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
const CODES: [&str; 5] = ["200", "201", "400", "404", "500"];
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
const COUNTERS: [&str; 8] = [
    "container_network_receive_bytes_total",
    "container_cpu_usage_seconds_total",
    "process_io_storage_written_bytes_total",
    "grpc_server_handled_messages_total",
    "jvm_gc_collection_count_total",
    "http_client_requests_sent_total",
    "kafka_consumer_records_consumed_total",
    "database_pool_acquired_connections_total",
];
const GAUGES: [&str; 8] = [
    "container_memory_working_set_bytes",
    "process_resident_memory_bytes",
    "database_pool_active_connections",
    "jvm_memory_heap_used_bytes_current",
    "http_server_active_requests_current",
    "kafka_consumer_group_lag_records",
    "go_memstats_heap_inuse_bytes",
    "node_filesystem_avail_ratio_percent",
];

/// How the values of a series move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Motion {
    /// Cumulative count of a histogram bucket: integers that grow, the slower the smaller the bucket.
    Bucket(u64),
    /// Integers that grow.
    Counter,
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

/// What the series at place `within` of a target is: 120 buckets, 40 counters, 30 gauges, 10 constants.
fn motion(within: u64) -> Motion {
    match within {
        0..120 => Motion::Bucket(within % BUCKETS.len() as u64),
        120..160 => Motion::Counter,
        160..190 => Motion::Gauge,
        _ => Motion::Constant,
    }
}

/// Labels of a series, sorted by name.
pub(crate) type SeriesLabels = Vec<(&'static str, String)>;

/// The labels of a series in one of its generations.
pub(crate) fn labels(index: u64, generation: u64) -> SeriesLabels {
    let target = index / SERIES_PER_TARGET;
    let within = index % SERIES_PER_TARGET;
    let pick = |list: &[&'static str], by: u64| list[(by % list.len() as u64) as usize];
    let service = pick(&SERVICES, target);
    // A replica set's hash, a pod's suffix and its address: new ones with every generation of the pod.
    let birth = scatter(target << 16 | generation);
    let node = scatter(target / 30) % 250;
    let pod = format!(
        "{service}-api-{:08x}-{:05x}",
        scatter(target / 10) >> 32,
        birth >> 44
    );
    let instance = format!(
        "10.{}.{}.{}:8080",
        64 + (birth >> 8 & 63),
        birth >> 16 & 255,
        birth >> 24 & 255
    );
    let (name, fourth, fourth_value, fifth, fifth_value) = match motion(within) {
        Motion::Bucket(bucket) => (
            "http_request_duration_seconds_bucket",
            "handler",
            pick(&HANDLERS, within / 24).to_owned(),
            "le",
            BUCKETS[bucket as usize].to_owned(),
        ),
        Motion::Counter => (
            pick(&COUNTERS, within),
            "code",
            pick(&CODES, within / 8).to_owned(),
            "method",
            if within.is_multiple_of(2) {
                "GET"
            } else {
                "POST"
            }
            .to_owned(),
        ),
        Motion::Gauge => (
            pick(&GAUGES, within),
            "device",
            format!("nvme{}n1p{}", within / 8 % 4, within % 3),
            "pool",
            format!("default-pool-{}", within / 16),
        ),
        Motion::Constant => (
            "kube_deployment_spec_replicas_info",
            "deployment",
            format!("{service}-api-v{}", within % 10),
            "revision",
            format!("{:012x}", scatter(target / 10) >> 16),
        ),
    };
    // `handler` belongs to two histograms of a target: requests and responses.
    let direction = if (within / 12).is_multiple_of(2) {
        "in"
    } else {
        "out"
    };
    let mut labels = vec![
        ("__name__", name.to_owned()),
        ("cluster", "prod-eu-west-1".to_owned()),
        ("container", "api".to_owned()),
        (fourth, fourth_value),
        ("direction", direction.to_owned()),
        (fifth, fifth_value),
        ("instance", instance),
        ("namespace", service.to_owned()),
        (
            "node",
            format!("ip-10-12-{}-{}.ec2.internal", node / 16, node),
        ),
        ("pod", pod),
    ];
    labels.sort_unstable_by_key(|(name, _)| *name);
    labels
}

/// The value of a series, scrape by scrape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values {
    motion: Motion,
    state: u64,
    /// Integers, or hundredths of a gauge.
    level: i64,
}

impl Values {
    pub(crate) fn new(index: u64, generation: u64) -> Values {
        let motion = motion(index % SERIES_PER_TARGET);
        let state = scatter(index ^ generation << 40);
        let level = match motion {
            Motion::Constant => 1 + (state % 5) as i64,
            Motion::Gauge => (state % 1_000_000) as i64,
            Motion::Bucket(_) | Motion::Counter => 0,
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
        let chance = self.state >> 32;
        match self.motion {
            Motion::Bucket(bucket) => self.level += (chance % (2 + 3 * bucket)) as i64,
            // A third of the counters does not move between two scrapes.
            Motion::Counter if chance.is_multiple_of(3) => {}
            Motion::Counter => self.level += (chance % 5000) as i64,
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
    use std::collections::HashSet;

    use super::*;
    use crate::workload::put_sample;

    #[test]
    fn a_series_has_ten_labels_and_about_215_bytes_of_text() {
        let count = 20_000u64;
        let (mut text, mut request) = (0, Vec::new());
        for index in 0..count {
            let labels = labels(index, 0);
            assert_eq!(labels.len(), 10);
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
                Motion::Bucket(_) | Motion::Counter => assert!(column.is_sorted(), "{index}"),
                Motion::Constant => assert!(column.iter().all(|v| *v == column[0])),
                Motion::Gauge => assert!(!column.is_sorted()),
            }
        }
    }
}
