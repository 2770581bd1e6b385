//! Answers do not change by a flush nor by a compaction: a node that moves what it holds into blocks at random moments, and merges these all the while, is compared with
//! a twin that never does.

#[path = "harness/node.rs"]
mod node;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use compactor::{Compaction, Compactor};
use model::{
    CoreId, Labels, MatchOp, Matcher, Projection, QueryValue, SeriesValue, TenantId, TenantLimits,
    Windows,
};
use prometheus::Registry;
use query::{Caller, Engine, Lookup, Options, Query, ReadSelector, Selection, Times};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use shard::{Cores, Flush, Message};

const HOUR: i64 = 3_600_000;

/// Cores, an engine over them, and the directory they live in.
struct Node {
    cores: Cores,
    engine: Engine,
    dir: tempfile::TempDir,
    compaction: Option<Compaction>,
    /// Files that merges have written in all lives.
    merged: u64,
    merges: Registry,
}

/// Keeps everything.
struct Keep;

impl compactor::Policy for Keep {
    fn retention_ms(&self, _: &TenantId) -> i64 {
        i64::MAX
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn stored(&self, _: &TenantId) -> Option<Vec<compactor::Place>> {
        Some(Vec::new())
    }
}

impl Node {
    fn start() -> Node {
        Node::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(dir: tempfile::TempDir) -> Node {
        let cpus = shard::topology::cores(Some(1), None).unwrap();
        let options = shard::Options {
            chunk_samples_max: 20,
            retention: Duration::from_secs(30 * 24 * 3600),
            ..shard::Options::new(dir.path(), cpus)
        };
        let cores = Cores::start(options, |_| {}).unwrap();
        let registry = Registry::new();
        let engine = Engine::start(Options::new(2), cores.mailboxes().clone(), &registry);
        Node {
            cores,
            engine,
            dir,
            compaction: None,
            merged: 0,
            merges: Registry::new(),
        }
    }

    /// Merges as often as it can from now on.
    fn compact(&mut self) {
        let interval = Duration::from_millis(5);
        let options = compactor::Options {
            interval,
            own_file_bytes: 2000,
            ..compactor::Options::new(shard::blocks_directory(self.dir.path()))
        };
        self.merges = Registry::new();
        let catalog = self.cores.mailboxes().blocks().clone();
        let compactor = Compactor::new(options, catalog, Box::new(Keep), &self.merges).unwrap();
        let started = Compaction::start(compactor, interval, reactor::IoMode::Auto);
        self.compaction = Some(started.unwrap());
    }

    /// Files that merges have written.
    fn merged(&self) -> u64 {
        let name = "myelin_compactor_files_written_total";
        self.merged + counter(&self.merges, name) as u64
    }

    fn stop(self) -> (tempfile::TempDir, u64) {
        let merged = self.merged();
        assert_eq!(
            counter(&self.merges, "cortex_compactor_runs_failed_total"),
            0.0
        );
        drop(self.engine);
        self.compaction.into_iter().for_each(Compaction::stop);
        self.cores.stop();
        (self.dir, merged)
    }

    fn restart(self) -> Node {
        let (dir, merged) = self.stop();
        let mut node = Node::start_in(dir);
        node.merged = merged;
        node.compact();
        node
    }

    fn push(&self, tenant: &TenantId, labels: &Labels, samples: &[(i64, f64)]) {
        node::push(&self.cores, tenant, keeping(), labels, samples);
    }

    fn flush(&self) {
        let (sender, receiver) = channel();
        for core in 0..self.cores.count() {
            let sender = sender.clone();
            let reply = Box::new(move |result| sender.send(result).unwrap());
            let flush = Message::Flush(Flush::all(reply));
            self.cores.mailboxes().send(CoreId(core), flush);
        }
        for _ in 0..self.cores.count() {
            receiver.recv().unwrap().unwrap();
        }
    }

    fn blocks(&self) -> u64 {
        self.cores.mailboxes().blocks().summary().blocks
    }

    /// Whatever can be asked about one range, as text. Sums are of whole numbers alone: others depend on the order of their terms.
    async fn answers(&self, caller: &Caller, (start, end): (i64, i64)) -> Vec<String> {
        let mut answers = Vec::new();
        for text in [
            "up",
            "max by (job) (rate(http_total[20m]))",
            "sum by (i) (count_over_time(up[40m]))",
            "max_over_time(up{job!=\"a\"}[1h:7m])",
            "count(count_over_time({__name__=~\".+\"}[30m])) by (job)",
            "quantile(0.5, up) or absent(nothing)",
        ] {
            let step = ((end - start) / 40).max(1000);
            let query = node::query(text, Times::Range { start, end, step });
            let answer = self.engine.query(caller, query).await.unwrap();
            answers.push(format!("{text}: {:?} {:?}", answer.value, answer.warnings));
            let query = node::query(text, Times::Instant(end));
            let answer = self.engine.query(caller, query).await.unwrap();
            // The samples of an instant have no order.
            let QueryValue::Vector(samples) = answer.value else {
                panic!("{text} is a vector");
            };
            let mut samples: Vec<String> = samples.iter().map(|s| format!("{s:?}")).collect();
            samples.sort();
            answers.push(format!("{text}: {samples:?}"));
        }
        let matchers = vec![(MatchOp::Regex, "job".to_owned(), "a|b".to_owned())];
        let selector = ReadSelector {
            start,
            end,
            matchers,
        };
        let mut cursor = self.engine.read(caller, vec![selector]).await.unwrap();
        let mut read = Vec::new();
        while let Some(series) = cursor.advance().unwrap() {
            let bits: Vec<u64> = series.values.iter().map(|v| v.to_bits()).collect();
            read.push(format!("{} {:?} {bits:?}", series.labels, series.times));
        }
        read.sort();
        answers.extend(read);
        answers
    }

    /// Labels over all time: a chunk of a head that overlaps a range need not have a sample in it, so shorter ranges may tell more before a flush.
    async fn labels(&self, caller: &Caller) -> Vec<String> {
        let lookup = |selectors: &[&str]| Lookup {
            selectors: selectors.iter().map(|s| (*s).to_owned()).collect(),
            start: i64::MIN,
            end: i64::MAX,
            limit: 0,
        };
        let engine = &self.engine;
        let mut all = engine.label_names(caller, lookup(&[])).await.unwrap().texts;
        for name in ["job", "i", "__name__", "none"] {
            let values = engine.label_values(caller, name, lookup(&[])).await;
            all.extend(values.unwrap().texts);
            let some = lookup(&["{job=\"b\"}", "up{i=~\"[12]\"}"]);
            all.extend(engine.label_values(caller, name, some).await.unwrap().texts);
        }
        let sets = engine
            .series(caller, lookup(&["{job!=\"\"}"]))
            .await
            .unwrap();
        all.extend(sets.sets.iter().map(|set| set.to_string()));
        all
    }
}

fn counter(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.into_iter().flat_map(|family| family.get_metric());
    metrics.map(|m| m.get_counter().get_value()).sum()
}

/// Limits of a tenant who keeps everything.
fn keeping() -> TenantLimits {
    TenantLimits {
        retention: Duration::ZERO,
        ..TenantLimits::unlimited()
    }
}

fn caller(tenant: &str, now_ms: i64) -> Caller {
    Caller {
        now_ms,
        client: std::sync::Arc::default(),
        ..node::caller(tenant)
    }
}

fn series(rng: &mut SmallRng) -> Labels {
    let name = *["up", "http_total"].choose(rng).unwrap();
    let job = *["a", "b", "c"].choose(rng).unwrap();
    let i = rng.random_range(0..4).to_string();
    Labels::from_pairs([("__name__", name), ("i", &i), ("job", job)]).unwrap()
}

/// Selectors of deletions.
const DELETES: [&[&str]; 4] = [
    &["up{i=\"2\"}"],
    &["http_total", "{job=~\"a|c\",i!=\"1\"}"],
    &["{__name__=~\".+\"}"],
    &["nothing"],
];

#[tokio::test]
async fn answers_do_not_change_by_a_flush_a_compaction_and_a_restart() {
    // The twin has all in its heads, where what is deleted is taken out at once; here blocks have it for a while.
    let mut rng = SmallRng::seed_from_u64(7);
    // In the past of the wall clock, on which the limit of a cut depends.
    let begin = 1_700_000_000_000 / HOUR * HOUR;
    let (mut cut, twin) = (Node::start(), Node::start());
    cut.compact();
    let callers = [caller("t", begin), caller("u", begin)];
    let mut now = begin;
    let mut lasts: HashMap<(TenantId, Labels), i64> = HashMap::new();
    let (mut compared, mut deletes) = (0, 0);
    for step in 0..60 {
        now += rng.random_range(0..HOUR);
        for caller in &callers {
            for _ in 0..rng.random_range(1..8) {
                let labels = series(&mut rng);
                let last = lasts.entry((caller.tenant.clone(), labels.clone()));
                let last = last.or_insert(i64::MIN);
                let from = now.max(last.saturating_add(60_000));
                // Whole minutes, values with and without many digits, staleness now and then.
                let count = rng.random_range(1..40);
                let samples: Vec<(i64, f64)> = (0..count)
                    .map(|n| {
                        let value = match rng.random_range(0..20) {
                            0 => f64::from_bits(0x7ff0_0000_0000_0002),
                            1..5 => rng.random(),
                            _ => f64::from(rng.random_range(0..100)),
                        };
                        (from + n * 60_000, value)
                    })
                    .collect();
                *last = from + (count - 1) * 60_000;
                cut.push(&caller.tenant, &labels, &samples);
                twin.push(&caller.tenant, &labels, &samples);
            }
        }
        if rng.random_bool(0.3) {
            cut.flush();
        }
        if rng.random_bool(0.3) {
            let caller = callers.choose(&mut rng).unwrap();
            let one = *DELETES.choose(&mut rng).unwrap();
            let all = rng.random_bool(0.3);
            let end = rng.random_range(begin..now + HOUR);
            let start = end - rng.random_range(0..8 * HOUR);
            for node in [&cut, &twin] {
                let deleted = match all {
                    true => node.engine.delete_tenant(&caller.tenant).await,
                    false => {
                        let selectors = one.iter().map(|text| (*text).to_owned()).collect();
                        let times = (start, end);
                        node.engine
                            .delete_series(&caller.tenant, selectors, times)
                            .await
                    }
                };
                deleted.unwrap();
            }
            deletes += 1;
        }
        if step == 30 {
            cut = cut.restart();
        }
        if rng.random_bool(0.3) {
            let end = rng.random_range(begin..now + HOUR);
            let range = (end - rng.random_range(HOUR / 2..12 * HOUR), end);
            for caller in &callers {
                let expected = twin.answers(caller, range).await;
                let found = cut.answers(caller, range).await;
                assert_eq!(found, expected, "step {step}, {range:?}");
                assert_eq!(cut.labels(caller).await, twin.labels(caller).await);
                compared += expected.len();
            }
        }
    }
    let merged = cut.merged();
    assert!(merged > 10 && twin.blocks() == 0, "{merged} files merged");
    let moved = counter(cut.cores.registry(), "myelin_cut_chunks_total");
    assert!(moved > 50.0, "{moved} chunks left the head");
    assert!(compared > 100 && deletes > 10, "{compared}, {deletes}");
    cut.stop();
    twin.stop();
}

/// Labels, time and value of all points of an answer, sorted.
fn points(value: QueryValue) -> Vec<(String, i64, u64)> {
    let mut all = Vec::new();
    match value {
        QueryValue::Matrix(series) => {
            for one in series {
                assert!(one.histograms.is_empty());
                let labels = one.labels.to_string();
                let floats = one.floats.iter();
                all.extend(floats.map(|p| (labels.clone(), p.t, p.v.to_bits())));
            }
        }
        QueryValue::Vector(samples) => {
            for one in samples {
                let SeriesValue::Float(value) = one.value else {
                    panic!("no histograms were stored");
                };
                all.push((one.labels.to_string(), one.t, value.to_bits()));
            }
        }
        other => panic!("{other:?}"),
    }
    all.sort();
    all
}

impl Node {
    /// A range query, and the same step by step: what lies between steps is left out of one, and cannot be of the other.
    async fn both_ways(
        &self,
        caller: &Caller,
        query: &Query,
    ) -> [Result<Vec<(String, i64, u64)>, String>; 2] {
        let Times::Range { start, end, step } = query.times else {
            panic!("a range query");
        };
        let whole = self.engine.query(caller, query.clone()).await;
        let mut steps = Ok(Vec::new());
        let mut time = start;
        while time <= end {
            let times = Times::Instant(time);
            let one = Query {
                times,
                ..query.clone()
            };
            let answer = self.engine.query(caller, one).await;
            match (&mut steps, answer) {
                (Ok(steps), Ok(answer)) => steps.extend(points(answer.value)),
                (steps, Err(error)) => *steps = Err(error.to_string()),
                (Err(_), _) => {}
            }
            time += step;
        }
        if let Ok(steps) = &mut steps {
            steps.sort();
        }
        let whole = whole.map(|answer| points(answer.value));
        [whole.map_err(|error| error.to_string()), steps]
    }
}

/// Samples in memory and in several blocks, some of them late, some twice with other values, some deleted.
#[tokio::test]
async fn steps_far_apart_are_answered_as_they_are_one_by_one() {
    let begin = 1_700_000_000_000 / HOUR * HOUR;
    let mut rng = SmallRng::seed_from_u64(12);
    let mut node = Node::start();
    node.compact();
    let limits = TenantLimits {
        out_of_order_time_window: Duration::from_secs(48 * 3600),
        ..keeping()
    };
    let mut caller = caller("t", begin);
    let mut now = begin;
    let (mut compared, mut late) = (0, 0);
    for round in 0..60 {
        now += rng.random_range(0..2 * HOUR);
        for _ in 0..rng.random_range(1..6) {
            let labels = series(&mut rng);
            let from = match rng.random_bool(0.3) {
                true => now - rng.random_range(0..24 * HOUR),
                false => now,
            };
            // On whole minutes or not, so that some of those before are met again.
            let from = from - from % 60_000 + [0, 0, 17][rng.random_range(0..3)];
            let interval = [20_000, 60_000][rng.random_range(0..2)];
            let samples: Vec<(i64, f64)> = (0..rng.random_range(1..200))
                .map(|n| {
                    let value = match rng.random_range(0..20) {
                        0 => f64::from_bits(0x7ff0_0000_0000_0002),
                        _ => f64::from(rng.random_range(0..100)),
                    };
                    (from + n * interval, value)
                })
                .collect();
            let (cores, tenant) = (&node.cores, &caller.tenant);
            let outcome = node::send(cores, tenant, limits.clone(), &labels, &samples);
            late += u64::from(from < now && outcome.stored > 0);
        }
        if rng.random_bool(0.3) {
            node.flush();
        }
        if rng.random_bool(0.1) {
            let end = rng.random_range(begin..now + HOUR);
            let times = (end - rng.random_range(0..4 * HOUR), end);
            let selectors = DELETES.choose(&mut rng).unwrap().iter();
            let selectors = selectors.map(|text| (*text).to_owned()).collect();
            let deleted = node.engine.delete_series(&caller.tenant, selectors, times);
            deleted.await.unwrap();
        }
        if round == 40 {
            node = node.restart();
        }
        caller.now_ms = now;
        for text in [
            "up",
            "sum by (job) (http_total)",
            "rate(http_total[5m])",
            "max_over_time(up[20m] offset 13m)",
            "up offset -7m or up @ 1700000000",
            "count(count_over_time({__name__=~\".+\"}[30m])) by (job)",
            "max_over_time(up[6h:40m]) + sum_over_time(up[40m])",
            "sum(up) or absent(nothing)",
            "up * on (i, job) http_total",
            "rate(http_total[5m] anchored)",
        ] {
            if rng.random_bool(0.5) {
                continue;
            }
            let step = rng.random_range(60_000..3 * HOUR);
            let start = now - rng.random_range(0..30 * HOUR);
            let end = start + step * rng.random_range(1..20) + rng.random_range(0..step);
            let lookback = [
                None,
                Some(Duration::from_secs(37)),
                Some(Duration::from_secs(3600)),
            ];
            let query = Query {
                lookback: lookback[rng.random_range(0..3)],
                ..node::query(text, Times::Range { start, end, step })
            };
            let [whole, steps] = node.both_ways(&caller, &query).await;
            assert_eq!(whole, steps, "round {round}: {query:?}");
            compared += whole.map_or(0, |points| points.len());
        }
    }
    assert!(late > 20 && node.blocks() > 1, "{late} late");
    assert!(compared > 1000, "{compared} points");
    node.stop();
}

#[tokio::test]
async fn a_query_that_looks_at_little_decodes_little() {
    const DAY: i64 = 24 * HOUR;
    let begin = 1_700_000_000_000 / DAY * DAY;
    let node = Node::start();
    let caller = caller("t", begin + 20 * DAY);
    let (minutes, all) = (20 * 24 * 60, 3 * 20 * 24 * 60);
    for i in ["1", "2", "3"] {
        let labels = Labels::from_pairs([("__name__", "up"), ("i", i)]).unwrap();
        let samples: Vec<(i64, f64)> = (0..minutes)
            .map(|n| (begin + n * 60_000, (n * n % 1009) as f64))
            .collect();
        for some in samples.chunks(900) {
            node.push(&caller.tenant, &labels, some);
        }
    }
    node.flush();
    assert!(node.blocks() > 0);
    let times = Times::Range {
        start: begin + HOUR,
        end: begin + 20 * DAY,
        step: DAY,
    };
    for (text, least, most) in [
        ("sum(up)", 3 * 20 * 5, all / 20),
        ("sum(rate(up[30m]))", 3 * 20 * 30, all / 20),
        ("sum(count_over_time(up[1d]))", all - 3 * 24 * 60, all),
    ] {
        let query = node::query(text, times);
        let [whole, steps] = node.both_ways(&caller, &query).await;
        assert_eq!(whole, steps, "{text}");
        assert_eq!(whole.unwrap().len(), 20, "{text}");
        let explained = node.engine.explain(&caller, query, true).await.unwrap();
        let samples = explained.selectors[0].decoded.unwrap().samples as i64;
        assert!(
            (least..=most).contains(&samples),
            "{text}: {samples} of {all}"
        );
    }
    // And so does a node that asks this one.
    let windows = Windows::new(begin + HOUR, DAY, 300_000).unwrap();
    let selection = Selection {
        matchers: Arc::from([Matcher::equal("__name__", "up")]),
        min_time: begin,
        max_time: begin + 20 * DAY,
        with_chunks: true,
        with_exemplars: false,
        newest: false,
        windows: Some(windows),
        projection: Projection::All,
        bounds: [0; 4],
    };
    let selected = node.engine.select_here(&caller, selection).await.unwrap();
    let (mut sent, mut wanted) = (0, BTreeSet::new());
    for one in selected.series {
        for chunk in one.chunks {
            let (mut times, mut values) = (Vec::new(), Vec::new());
            chunk::decode(&chunk.bytes.read().unwrap(), &mut times, &mut values).unwrap();
            sent += times.len() as i64;
            times.retain(|time| windows.contains(*time));
            wanted.extend(times.into_iter().map(|time| (one.id, time)));
        }
    }
    assert_eq!(wanted.len(), 3 * 20 * 5);
    assert!(sent < all / 20, "{sent} of {all}");
    node.stop();
}

#[expect(clippy::disallowed_methods, reason = "it damages a file")]
#[tokio::test]
async fn a_damaged_block_is_named_and_fails_only_what_needs_it() {
    let begin = 1_700_000_000_000 / HOUR * HOUR;
    let node = Node::start();
    let caller = caller("t", begin);
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]).unwrap();
    for hours in [0, 6] {
        let from = begin + hours * HOUR;
        let samples: Vec<(i64, f64)> = (0..300).map(|n| (from + n * 60_000, n as f64)).collect();
        node.push(&caller.tenant, &labels, &samples);
        node.flush();
    }
    let list = node.cores.mailboxes().blocks().list();
    let old = list
        .iter()
        .min_by_key(|block| block.meta().parts[0].min_time)
        .unwrap();
    let path = old.path().to_owned();
    // A byte of its first page, behind header and frame.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[80] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let ask = async |end: i64| {
        let query = Query {
            text: "count_over_time(up[1h])".to_owned(),
            times: Times::Instant(end),
            timeout: None,
            lookback: None,
            per_step: false,
            uncached: false,
            waited: std::time::Duration::ZERO,
        };
        node.engine.query(&caller, query).await
    };
    let error = ask(begin + 2 * HOUR).await.unwrap_err().to_string();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(
        error.contains(name) && error.contains("corrupt at offset"),
        "{error}"
    );
    ask(begin + 8 * HOUR).await.unwrap();
    node.stop();
}
