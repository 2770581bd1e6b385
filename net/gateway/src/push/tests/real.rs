//! The same over real cores and a real log in a temporary directory: acknowledged is stored, once, also across a restart.

use model::{FloatHistogram, HistogramSample, Matcher};
use shard::{LabelQuery, Message, StatsQuery, topology};
use tokio::sync::oneshot;

use super::*;

struct Node {
    cores: shard::Cores,
    service: PushService,
}

fn start(dir: &std::path::Path, count: usize) -> Node {
    // What is late is told.
    let limits = TenantLimits {
        out_of_order_time_window: std::time::Duration::ZERO,
        ..TenantLimits::unlimited()
    };
    start_with(dir, count, limits)
}

fn start_with(dir: &std::path::Path, count: usize, limits: TenantLimits) -> Node {
    let cpus = topology::cores(Some(count), None).expect("a CPU to pin to");
    let mut options = shard::Options::new(dir, cpus);
    options.segment_bytes = 1 << 20;
    let cores = shard::Cores::start(options, |_| {}).expect("the cores start");
    let service = PushService::new(
        PushOptions::default(),
        Arc::new(cores.mailboxes().clone()),
        Arc::new(Overrides::new(limits)),
        Arc::new(MetadataStore::default()),
        &Registry::new(),
        Arc::new(|| NOW),
    );
    Node {
        cores,
        service: service.unwrap(),
    }
}

impl Node {
    async fn push(&self, body: Vec<u8>) -> (u16, String) {
        let body = Full::new(Bytes::from(snappy::pack(&body)));
        let tenant = TenantId::new("a").unwrap();
        told(self.service.handle(&tenant, &HeaderMap::new(), body).await).await
    }

    /// Series and samples of the tenant, over all cores.
    async fn counts(&self) -> (u64, u64) {
        let (mut series, mut samples) = (0, 0);
        for core in 0..self.cores.count() {
            let (sender, reply) = oneshot::channel();
            let query = StatsQuery {
                tenant: TenantId::new("a").ok(),
                reply: Box::new(move |stats| drop(sender.send(stats))),
            };
            self.cores
                .mailboxes()
                .send(CoreId(core), Message::Stats(query));
            for stats in reply.await.unwrap().unwrap() {
                series += stats.series;
                samples += stats.samples;
            }
        }
        (series, samples)
    }

    async fn values(&self, name: &str, matchers: Vec<Matcher>) -> Vec<String> {
        let mut all = Vec::new();
        for core in 0..self.cores.count() {
            let (sender, reply) = oneshot::channel();
            let query = LabelQuery {
                tenant: TenantId::new("a").unwrap(),
                name: Some(name.to_owned()),
                matchers: matchers.clone().into(),
                min_time: i64::MIN,
                max_time: i64::MAX,
                hold: Arc::new(|_| true),
                canceled: Arc::default(),
                reply: Box::new(move |values| drop(sender.send(values))),
            };
            self.cores
                .mailboxes()
                .send(CoreId(core), Message::Labels(query));
            all.extend(reply.await.unwrap().unwrap());
        }
        all.sort();
        all.dedup();
        all
    }
}

fn scrape(count: usize, time: i64, padded_to: Option<usize>) -> Vec<u8> {
    let mut body = Vec::new();
    for i in 0..count {
        let (name, instance) = (format!("m{}", i % 7), i.to_string());
        let pairs = [
            ("__name__", name.as_str()),
            ("instance", instance.as_str()),
            ("job", "j"),
        ];
        match padded_to {
            None => encode::put_series(&mut body, pairs.into_iter(), &[(time, i as f64)]),
            Some(width) => body.extend(padded_series(&pairs, time, i as f64, width)),
        }
    }
    body
}

#[tokio::test]
async fn real_cores_store_each_acknowledged_sample_once_and_keep_it_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), 2);
    for k in 0..4 {
        assert_eq!(
            node.push(scrape(500, 1000 + k, None)).await,
            (200, String::new())
        );
    }
    assert_eq!(
        node.push(scrape(500, 1003, None)).await.0,
        200,
        "a retry adds nothing"
    );
    assert_eq!(
        node.push(scrape(500, 1004, Some(2))).await.0,
        200,
        "padded, the same series"
    );
    assert_eq!(node.counts().await.0, 500);
    assert_eq!(node.counts().await.1, 2500);
    node.cores.stop();

    let node = start(dir.path(), 1);
    assert_eq!(node.counts().await.0, 500);
    assert_eq!(node.push(scrape(500, 1005, None)).await.0, 200);
    assert_eq!(
        node.counts().await.0,
        500,
        "the same series after the restart"
    );
    assert_eq!(node.values("instance", vec![]).await.len(), 500);
    let (status, text) = node.push(scrape(1, 1, None)).await;
    assert_eq!(status, 400);
    assert!(
        text.starts_with("user=a: err: out of order sample. timestamp=1970-01-01T00:00:00.001Z")
    );
    let (status, text) = node.push(scrape(3, 1004, None)).await;
    assert_eq!(
        status, 200,
        "an old sample that is there with that value: {text}"
    );
    node.cores.stop();
}

#[tokio::test]
async fn histograms_beyond_their_rate_are_left_out_and_the_floats_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let limits = TenantLimits {
        native_histogram_ingestion_rate: 1e-6,
        native_histogram_ingestion_burst_size: 2,
        ..TenantLimits::unlimited()
    };
    let node = start_with(dir.path(), 2, limits);
    let body = |time: i64| {
        let mut body = Vec::new();
        for (name, floats) in [("float", 1), ("histogram", 0), ("both", 1)] {
            let floats = &[(time, 1.0)][..floats];
            let histogram = [(time + 1, HistogramSample::Float(FloatHistogram::default()))];
            let histograms = &histogram[usize::from(name == "float")..];
            let labels = [("__name__", name)].into_iter();
            encode::put_series_with(&mut body, labels, floats, histograms);
        }
        body
    };
    let told = "native histogram ingestion rate limit (1e-06) exceeded while adding 2 native histogram samples";
    assert_eq!(node.push(body(1000)).await, (200, String::new()));
    assert_eq!(node.counts().await, (3, 4));
    // Known series, then new ones.
    assert_eq!(node.push(body(2000)).await, (429, told.to_owned()));
    assert_eq!(node.counts().await, (3, 6));
    node.cores.stop();
    let dir = tempfile::tempdir().unwrap();
    let limits = TenantLimits {
        native_histogram_ingestion_rate: 1e-6,
        ..TenantLimits::unlimited()
    };
    let node = start_with(dir.path(), 2, limits);
    for time in [1000, 2000] {
        assert_eq!(node.push(body(time)).await, (429, told.to_owned()));
    }
    assert_eq!(node.counts().await, (2, 4));
    node.cores.stop();
    let dir = tempfile::tempdir().unwrap();
    let limits = TenantLimits {
        enable_native_histograms: false,
        ..TenantLimits::unlimited()
    };
    let node = start_with(dir.path(), 2, limits);
    for time in [1000, 2000] {
        assert_eq!(node.push(body(time)).await, (200, String::new()));
    }
    assert_eq!(node.counts().await, (2, 4));
    node.cores.stop();
}

/// Known series had their turn before those that came with their labels, and of one reason only the first of all was told: while aliases were
/// cold the error was that of another series than with warm ones.
#[tokio::test]
async fn the_error_is_the_first_of_the_body_whether_aliases_know_its_series_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), 1);
    const NAMES: [&str; 3] = ["float", "histogram", "late"];
    let series = |name: &str, time: i64| {
        let mut body = Vec::new();
        let histogram = [(time, HistogramSample::Float(FloatHistogram::default()))];
        let is_float = name != "histogram";
        let floats = &[(time, 1.0)][..usize::from(is_float)];
        let histograms = &histogram[usize::from(is_float)..];
        let labels = [("__name__", name)].into_iter();
        encode::put_series_with(&mut body, labels, floats, histograms);
        body
    };
    let of = |names: &[&str], time| {
        let body: Vec<u8> = names.iter().flat_map(|name| series(name, time)).collect();
        node.push(body)
    };
    assert_eq!(of(&NAMES, 2000).await.0, 200);
    for mask in 0..8 {
        let mut order = NAMES;
        for _ in 0..NAMES.len() {
            order.rotate_left(1);
            node.service.lock().aliases = crate::alias::AliasTable::new(1000);
            *node.service.counted.lock().unwrap() = crate::alias::Counts::default();
            let warm = (0..3).filter(|bit| mask >> bit & 1 == 1);
            let warm: Vec<&str> = warm.map(|bit| NAMES[bit]).collect();
            assert_eq!(of(&warm, 2000).await.0, 200, "a repeat");
            let (status, text) = of(&order, 1500).await;
            let first = format!(
                "user=a: err: out of order sample. timestamp=1970-01-01T00:00:01.5Z, series={{__name__=\"{}\"}}",
                order[0]
            );
            assert_eq!((status, text), (400, first), "known before: {warm:?}");
        }
    }
    node.cores.stop();
}
