//! HA pairs and relabelling on the way of a push: known series and new ones, whole bodies of a replica and mixed ones, both protocols.

use std::sync::atomic::{AtomicI64, Ordering};

use model::{RelabelAction, RelabelConfig};

use super::*;
use crate::ha::kv::{Changing, Entry, InMemory, Key, Kv, Waiting};
use crate::ha::{HaOptions, Tracker};

/// A rig with a clock of its own, in milliseconds after [`NOW`].
struct Pair {
    rig: Rig,
    clock: Arc<AtomicI64>,
}

fn limits() -> TenantLimits {
    TenantLimits {
        accept_ha_samples: true,
        ..TenantLimits::cortex()
    }
}

impl Pair {
    fn new(limits: TenantLimits) -> Pair {
        Pair::over(limits, Arc::new(InMemory::default()))
    }

    fn over(limits: TenantLimits, kv: Arc<dyn Kv>) -> Pair {
        let registry = Registry::new();
        let options = HaOptions {
            update_timeout: Duration::from_secs(15),
            jitter_ms: 0,
        };
        let tracker = Tracker::new(options, kv, &registry).unwrap();
        let clock = Arc::new(AtomicI64::new(NOW));
        let (cores, overrides) = (
            Arc::new(FakeCores::new(3)),
            Arc::new(Overrides::new(limits)),
        );
        let metadata = Arc::new(MetadataStore::default());
        let wall = clock.clone();
        let service = PushService::new(
            PushOptions {
                ha: Some(Arc::new(tracker)),
                ..PushOptions::default()
            },
            cores.clone(),
            overrides.clone(),
            metadata.clone(),
            &registry,
            Arc::new(move || wall.load(Ordering::Relaxed)),
        );
        let rig = Rig {
            cores,
            overrides,
            metadata,
            registry,
            service: service.unwrap(),
        };
        Pair { rig, clock }
    }

    fn after(&self, millis: i64) {
        self.clock.fetch_add(millis, Ordering::Relaxed);
    }

    /// A scrape of a replica of a cluster: two series.
    async fn scrape(&self, [cluster, replica]: [&str; 2], time: i64) -> (u16, String) {
        let labels = |job| {
            [
                ("__name__", "up"),
                ("__replica__", replica),
                ("cluster", cluster),
                ("job", job),
            ]
        };
        let (a, b) = (labels("a"), labels("b"));
        self.rig.push(&[(&a, time, 1.0), (&b, time, 2.0)]).await
    }

    fn times(&self, series: &str) -> Vec<i64> {
        let stored = self.rig.stored("a");
        let samples = stored.get(series);
        let samples = samples.unwrap_or_else(|| panic!("{series} is not among {stored:?}"));
        samples.iter().map(|(time, _)| *time).collect()
    }
}

const A: &str = r#"{__name__="up", cluster="c", job="a"}"#;

fn not_elected(replica: &str, elected: &str) -> (u16, String) {
    let text =
        format!("replicas did not match, rejecting sample: replica={replica}, elected={elected}");
    (202, text)
}

#[tokio::test]
async fn the_elected_replica_is_stored_without_its_label_and_the_other_is_dropped_with_202() {
    let pair = Pair::new(limits());
    let ok = (200, String::new());
    // The first time with labels, then by alias; each time both.
    for round in 0..3 {
        let time = 1000 * round;
        assert_eq!(pair.scrape(["c", "r1"], time).await, ok);
        let other = pair.scrape(["c", "r2"], time + 500).await;
        assert_eq!(other, not_elected("r2", "r1"));
        pair.after(5000);
    }
    assert_eq!(pair.rig.stored("a").len(), 2);
    assert_eq!(pair.times(A), [0, 1000, 2000]);
    let metric = |name, label| pair.rig.metric(name, label);
    assert_eq!(metric("cortex_distributor_samples_in_total", "a"), 12.0);
    assert_eq!(
        metric("cortex_distributor_received_samples_total", "a"),
        6.0
    );
    assert_eq!(metric("cortex_distributor_deduped_samples_total", "c"), 6.0);
    assert_eq!(
        metric("cortex_distributor_non_ha_samples_received_total", "a"),
        0.0
    );
    // All but the first two bodies were known by their aliases.
    let missed = metric("myelin_alias_lookups_total", "missed");
    assert_eq!(missed, 4.0);
    pair.rig.assert_nothing_held();
}

/// A dies, B is elected, A comes back and is passed over, B dies, A is elected: every alias that one of them left says something else by then.
#[tokio::test]
async fn replicas_take_turns_and_no_sample_of_a_passive_one_gets_in() {
    let pair = Pair::new(limits());
    let mut wanted = Vec::new();
    let mut time = 0;
    for (alive, rounds) in [("r1", 4), ("r2", 9), ("both", 4), ("r1", 9), ("both", 4)] {
        for _ in 0..rounds {
            for replica in ["r1", "r2"] {
                if alive == replica || alive == "both" {
                    time += 1;
                    let answer = pair.scrape(["c", replica], time).await;
                    if answer.0 == 200 {
                        wanted.push((time, replica));
                    }
                }
            }
            pair.after(5000);
        }
    }
    let times: Vec<i64> = wanted.iter().map(|(time, _)| *time).collect();
    assert_eq!(pair.times(A), times);
    assert_eq!(pair.rig.stored("a").len(), 2, "no second identity");
    let turns = |list: &[(i64, &str)]| {
        let mut names: Vec<String> = list.iter().map(|(_, name)| (*name).to_owned()).collect();
        names.dedup();
        names
    };
    assert_eq!(turns(&wanted), ["r1", "r2", "r1"]);
    let changes = "cortex_ha_tracker_elected_replica_changes_total";
    assert_eq!(pair.rig.metric(changes, "c"), 3.0);
}

#[tokio::test]
async fn a_mixed_body_is_judged_series_by_series() {
    let pair = Pair::new(limits());
    assert_eq!(pair.scrape(["c", "r1"], 0).await.0, 200);
    let passive = [("__name__", "up"), ("__replica__", "r2"), ("cluster", "c")];
    let other = [("__name__", "up"), ("__replica__", "r2"), ("cluster", "d")];
    let none = [("__name__", "up"), ("cluster", "c")];
    for time in [1, 2] {
        let body: &[(Pairs<'_>, i64, f64)] = &[
            (&passive, time, 1.0),
            (&other, time, 1.0),
            (&none, time, 1.0),
        ];
        assert_eq!(pair.rig.push(body).await, (200, String::new()));
    }
    let stored = pair.rig.stored("a");
    assert_eq!(stored.len(), 4);
    assert_eq!(pair.times(r#"{__name__="up", cluster="d"}"#), [1, 2]);
    assert_eq!(pair.times(r#"{__name__="up", cluster="c"}"#), [1, 2]);
    let non_ha = "cortex_distributor_non_ha_samples_received_total";
    assert_eq!(pair.rig.metric(non_ha, "a"), 2.0);
    // What is wrong beside a passive series is told.
    let bad = [("job", "nameless")];
    let (status, text) = pair.rig.push(&[(&passive, 3, 1.0), (&bad, 3, 1.0)]).await;
    assert_eq!((status, &*text), (400, "sample missing metric name"));
}

#[tokio::test]
async fn one_label_makes_no_pair_and_too_long_a_replica_is_none() {
    let pair = Pair::new(limits());
    let alone = [("__name__", "up"), ("__replica__", "r1")];
    assert_eq!(pair.rig.push(&[(&alone, 1, 1.0)]).await.0, 200);
    assert!(
        pair.rig
            .stored("a")
            .keys()
            .all(|l| l.contains("__replica__"))
    );
    let long = "x".repeat(2049);
    let (status, text) = pair.scrape(["c", &long], 1).await;
    assert!(
        status == 400 && text.starts_with("label value too long"),
        "{text}"
    );
    let (status, text) = pair.scrape([&long, "r1"], 1).await;
    assert!(
        status == 400 && text.starts_with("label value too long"),
        "{text}"
    );
    let elections = pair.rig.service.ha().unwrap();
    assert!(elections.lines(0, |_| Duration::ZERO).is_empty());
    // Tenants that do not want it are left alone.
    let off = Pair::new(TenantLimits::cortex());
    for replica in ["r1", "r2"] {
        assert_eq!(off.scrape(["c", replica], 1).await.0, 200);
    }
    assert_eq!(off.rig.stored("a").len(), 4);
}

#[tokio::test]
async fn clusters_beyond_the_limit_are_refused_until_it_is_raised() {
    let one = |max| TenantLimits {
        ha_max_clusters: max,
        ..limits()
    };
    let pair = Pair::new(one(1));
    assert_eq!(pair.scrape(["c", "r1"], 1).await.0, 200);
    for _ in 0..2 {
        let refused = pair.scrape(["d", "r1"], 1).await;
        assert_eq!(refused, (400, "too many HA clusters (limit: 1)".to_owned()));
    }
    let discarded = "cortex_discarded_samples_total";
    assert_eq!(pair.rig.metric(discarded, "too_many_ha_clusters"), 4.0);
    pair.rig.overrides.replace(one(2), []);
    assert_eq!(pair.scrape(["d", "r1"], 1).await.0, 200);
}

#[tokio::test]
async fn version_2_tells_the_sender_of_a_passive_replica_that_everything_is_written() {
    let pair = Pair::new(limits());
    assert_eq!(pair.scrape(["c", "r1"], 0).await.0, 200);
    let labels = [
        ("__name__", "up"),
        ("__replica__", "r2"),
        ("cluster", "c"),
        ("job", "a"),
    ];
    for _ in 0..2 {
        let mut request = encode::RequestV2::default();
        request.put_series(labels.into_iter(), &[(5, 1.0)], None);
        let packed = snappy::pack(&request.finish());
        let mut headers = HeaderMap::new();
        let media = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        headers.insert("content-type", media.parse().unwrap());
        let tenant = TenantId::new("a").unwrap();
        let body = Full::new(Bytes::from(packed));
        let answer = pair.rig.service.handle(&tenant, &headers, body).await;
        assert_eq!(answer.status(), 202);
        let written = &answer.headers()["x-prometheus-remote-write-samples-written"];
        assert_eq!(written, "1");
    }
    assert_eq!(pair.times(A), [0]);
}

/// Story: the replicas of a body were looked up in a list, so one with a replica of its own for every series took time that grew with the square.
#[tokio::test]
async fn a_body_of_many_replicas_is_taken_apart_in_linear_time() {
    let pair = Pair::new(limits());
    assert_eq!(pair.scrape(["c", "r"], 0).await.0, 200);
    let names: Vec<String> = (0..50_000).map(|i| format!("r{i}")).collect();
    let labels: Vec<_> = names
        .iter()
        .map(|name| [("__name__", "up"), ("__replica__", name), ("cluster", "c")])
        .collect();
    let body: Vec<(Pairs<'_>, i64, f64)> = labels.iter().map(|l| (&l[..], 1, 1.0)).collect();
    for _ in 0..2 {
        assert_eq!(pair.rig.push(&body).await, not_elected("r0", "r"));
    }
    let deduped = "cortex_distributor_deduped_samples_total";
    assert_eq!(pair.rig.metric(deduped, "c"), 100_000.0);
}

/// A KV that answers later, or fails.
#[derive(Debug, Default)]
struct Remote {
    store: InMemory,
    fails: std::sync::atomic::AtomicBool,
}

impl Kv for Remote {
    fn try_cas(&self, _: &Key, _: &mut Changing<'_>) -> bool {
        false
    }

    fn cas<'a>(&'a self, key: &'a Key, change: &'a mut Changing<'_>) -> Waiting<'a, ()> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            match self.fails.load(Ordering::Relaxed) {
                true => Err("no leader".to_owned()),
                false => self.store.cas(key, change).await,
            }
        })
    }

    fn list(&self) -> Waiting<'_, Vec<(Key, Entry)>> {
        self.store.list()
    }
}

#[tokio::test]
async fn a_store_that_has_to_be_waited_for_decides_before_anything_is_stored() {
    let kv = Arc::new(Remote::default());
    let pair = Pair::over(limits(), kv.clone());
    for time in 0..8 {
        assert_eq!(pair.scrape(["c", "r1"], time).await.0, 200);
        assert_eq!(pair.scrape(["c", "r2"], time).await.0, 202);
        pair.after(10_000);
    }
    assert_eq!(pair.times(A), [0, 1, 2, 3, 4, 5, 6, 7]);
    kv.fails.store(true, Ordering::Relaxed);
    pair.after(20_000);
    let (status, text) = pair.scrape(["c", "r2"], 9).await;
    assert_eq!(status, 500);
    assert_eq!(text, "cannot tell which replica is elected: no leader");
    assert_eq!(pair.times(A).len(), 8);
}

/// The body is unpacked again when the store has answered; meanwhile another one was where it had been unpacked to.
#[tokio::test]
async fn a_body_that_waits_for_an_election_is_still_its_own() {
    let pair = Pair::over(limits(), Arc::new(Remote::default()));
    let secret: Pairs<'_> = &[("__name__", "secret"), ("of", "somebody else")];
    let others = request(&[(secret, 7, 7.0), (secret, 8, 8.0), (secret, 9, 9.0)]);
    let (one, two) = tokio::join!(
        pair.scrape(["c", "r1"], 1),
        pair.rig.send_as("b", snappy::pack(&others)),
    );
    assert_eq!((one.0, two.0), (200, 200));
    assert_eq!(pair.times(A), [1]);
    assert_eq!(pair.rig.stored("a").len(), 2);
    assert_eq!(pair.rig.stored("b").len(), 1);
}

#[tokio::test]
async fn series_are_relabelled_before_the_replica_goes_and_what_is_dropped_is_only_counted() {
    let rule = |action, source: &str, regex: &str, target: &str| RelabelConfig {
        source_labels: vec![source.to_owned()],
        regex: regex.to_owned(),
        target_label: target.to_owned(),
        action,
        ..RelabelConfig::default()
    };
    let drop_b = rule(RelabelAction::Drop, "job", "b", "");
    let pair = Pair::new(TenantLimits {
        metric_relabel_configs: vec![
            drop_b.clone(),
            rule(RelabelAction::Replace, "__replica__", "(.*)", "seen_by"),
        ],
        drop_labels: vec!["job".to_owned()],
        ..limits()
    });
    for time in 0..3 {
        assert_eq!(pair.scrape(["c", "r1"], time).await, (200, String::new()));
    }
    let stored = r#"{__name__="up", cluster="c", seen_by="r1"}"#;
    assert_eq!(pair.times(stored), [0, 1, 2]);
    assert_eq!(pair.rig.stored("a").len(), 1);
    let discarded = "cortex_discarded_samples_total";
    assert_eq!(pair.rig.metric(discarded, "relabel_configuration"), 3.0);
    // Looked at once each: what is known to be dropped costs no parse.
    assert_eq!(pair.rig.metric("myelin_alias_lookups_total", "missed"), 2.0);
    // Other rules make every series be looked at anew.
    let other = TenantLimits {
        metric_relabel_configs: vec![drop_b],
        drop_labels: vec![
            "__name__".to_owned(),
            "cluster".to_owned(),
            "job".to_owned(),
        ],
        ..limits()
    };
    pair.rig.overrides.replace(other, []);
    assert_eq!(pair.scrape(["c", "r1"], 3).await, (200, String::new()));
    let removed = "user_label_removal_configuration";
    assert_eq!(pair.rig.metric(discarded, removed), 1.0);
    assert_eq!(pair.times(stored), [0, 1, 2]);
}

impl Pair {
    /// One sample of a series of a replica of cluster `c`.
    async fn one(&self, replica: &str, name: &str, time: i64) -> (u16, String) {
        let labels = [
            ("__name__", name),
            ("__replica__", replica),
            ("cluster", "c"),
        ];
        self.rig.push(&[(&labels, time, 1.0)]).await
    }

    /// Of tenant `a`.
    fn count(&self, metric: &str) -> f64 {
        self.rig.metric(metric, "a")
    }
}

const DISCARDED: &str = "cortex_discarded_samples_total";
const SAMPLES_IN: &str = "cortex_distributor_samples_in_total";
const NON_HA: &str = "cortex_distributor_non_ha_samples_received_total";
const DEDUPED: &str = "cortex_distributor_deduped_samples_total";

fn dropping(name: &str) -> TenantLimits {
    TenantLimits {
        metric_relabel_configs: vec![RelabelConfig {
            source_labels: vec!["__name__".to_owned()],
            regex: name.to_owned(),
            action: RelabelAction::Drop,
            ..RelabelConfig::default()
        }],
        ..limits()
    }
}

/// Story: what was remembered as refused said nothing of its replica. A replica all of whose series were dropped or refused was not heard any
/// more, lost its election, and the other one was stored beside it.
#[tokio::test]
async fn a_replica_lives_by_what_it_sends_also_where_all_of_it_is_refused() {
    let long = "x".repeat(3000);
    let bad = [
        ("__name__", "bad"),
        ("__replica__", "r1"),
        ("cluster", "c"),
        ("job", &long),
    ];
    for refused in [false, true] {
        let pair = Pair::new(dropping("dropped"));
        for time in 0..20 {
            let (status, _) = match refused {
                true => pair.rig.push(&[(&bad, time, 1.0)]).await,
                false => pair.one("r1", "dropped", time).await,
            };
            assert_eq!(status, if refused { 400 } else { 200 });
            pair.after(5000);
        }
        assert_eq!(pair.one("r2", "up", 1).await, not_elected("r2", "r1"));
        assert_eq!(pair.count(SAMPLES_IN), 21.0);
        assert_eq!(pair.count(DISCARDED), 20.0);
        assert_eq!(pair.count(NON_HA), 0.0, "refused, and yet of a replica");
        assert!(pair.rig.stored("a").is_empty());
    }
}

/// Story: the same series, remembered while their replica was elected, went on to be counted as dropped, and their sender got 200 or 400, when it
/// was passive.
#[tokio::test]
async fn what_was_refused_of_a_replica_is_passed_over_when_it_is_no_longer_elected() {
    let pair = Pair::new(dropping("dropped"));
    let bad = [("__replica__", "r1"), ("cluster", "c"), ("job", "nameless")];
    assert_eq!(pair.one("r1", "dropped", 1).await.0, 200);
    assert_eq!(pair.rig.push(&[(&bad, 1, 1.0)]).await.0, 400);
    pair.after(60_000);
    assert_eq!(pair.one("r2", "up", 1).await.0, 200);
    for time in 2..4 {
        let other = not_elected("r1", "r2");
        assert_eq!(pair.one("r1", "dropped", time).await, other);
        assert_eq!(pair.rig.push(&[(&bad, time, 1.0)]).await, other);
    }
    assert_eq!(pair.count(DISCARDED), 2.0, "only while it was elected");
    assert_eq!(pair.rig.metric(DEDUPED, "c"), 4.0);
    assert_eq!(pair.count(SAMPLES_IN), 7.0);
    assert_eq!(pair.count(NON_HA), 0.0);
    assert_eq!(
        pair.rig.metric("myelin_series_refused_again_total", ""),
        0.0
    );
}

/// Story: a cluster refused for the number of clusters stayed refused for minutes after another had gone.
#[tokio::test]
async fn a_cluster_too_many_is_taken_as_soon_as_there_is_room() {
    let pair = Pair::new(TenantLimits {
        ha_max_clusters: 1,
        ..limits()
    });
    assert_eq!(pair.scrape(["c", "r1"], 1).await.0, 200);
    for time in 1..4 {
        let refused = pair.scrape(["d", "r1"], time).await;
        assert_eq!(refused, (400, "too many HA clusters (limit: 1)".to_owned()));
    }
    // Remembered: by the first body, told by the others.
    assert_eq!(
        pair.rig.metric("myelin_series_refused_again_total", ""),
        4.0
    );
    assert_eq!(pair.count(NON_HA), 0.0);
    // Nobody has heard of the first cluster for long.
    pair.after(60 * 60_000);
    let now = pair.clock.load(Ordering::Relaxed);
    pair.rig.service.clean_elections(now).await;
    assert_eq!(pair.scrape(["d", "r1"], 5).await, (200, String::new()));
    assert_eq!(pair.times(r#"{__name__="up", cluster="d", job="b"}"#), [5]);
}

/// Story: 202 means that all of it is of a replica that is not elected; a body in which histograms beyond their rate or exemplars of others stood
/// beside that got it too, and the exemplars were lost.
#[tokio::test(start_paused = true)]
async fn nothing_but_passive_samples_is_202() {
    let pair = Pair::new(TenantLimits {
        enable_native_histograms: true,
        native_histogram_ingestion_rate: 1.0,
        native_histogram_ingestion_burst_size: 1,
        ..dropping("dropped")
    });
    assert_eq!(pair.scrape(["c", "r1"], 0).await.0, 200);
    let passive = [("__name__", "up"), ("__replica__", "r2"), ("cluster", "c")];
    let beside = |labels: &[(&str, &str)], fields: &[(u8, Vec<u8>)]| {
        let mut body = request(&[(&passive, 1, 1.0)]);
        body.extend(series_of(labels, fields));
        snappy::pack(&body)
    };
    let rig = &pair.rig;
    let other = [("__name__", "other")];
    let histograms = [3, 4].map(|time| (0x22, histogram_message(0, time)));
    for _ in 0..2 {
        let (status, text) = rig.send(beside(&other, &histograms)).await;
        assert_eq!(status, 429, "{text}");
    }
    assert_eq!(rig.stored("a").len(), 2, "no series without samples");
    let exemplar = [(0x1a, exemplar_message("t", 5))];
    let (status, text) = rig.send(beside(&other, &exemplar)).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(rig.others(), ["exemplar 5 before 0"]);
    let dropped = beside(&[("__name__", "dropped")], &[(0x12, sample(6, 1.0))]);
    assert_eq!(rig.send(dropped).await.0, 200, "not all of it is passive");
    let passive = rig.push(&[(&passive, 7, 1.0)]).await;
    assert_eq!(passive, not_elected("r2", "r1"));
}

#[tokio::test(start_paused = true)]
async fn metadata_of_a_passive_replica_is_not_counted_as_received() {
    let pair = Pair::new(limits());
    assert_eq!(pair.scrape(["c", "r1"], 0).await.0, 200);
    let help = Metadata {
        kind: MetricType::Gauge,
        help: "h".into(),
        unit: String::new(),
    };
    let passive = [("__name__", "up"), ("__replica__", "r2"), ("cluster", "c")];
    let mut body = request(&[(&passive, 1, 1.0)]);
    encode::put_metadata(&mut body, "up", &help);
    encode::put_metadata(&mut body, "", &help);
    let count = |what: &str| pair.rig.metric(what, "a");
    assert_eq!(
        pair.rig.send(snappy::pack(&body)).await,
        not_elected("r2", "r1")
    );
    assert_eq!(count("cortex_distributor_metadata_in_total"), 2.0);
    assert_eq!(count("cortex_distributor_received_metadata_total"), 0.0);
    let discarded = pair.rig.registry.gather();
    let discarded = discarded
        .iter()
        .find(|f| f.name() == "cortex_discarded_metadata_total");
    assert!(discarded.is_none_or(|family| family.get_metric().is_empty()));
}
