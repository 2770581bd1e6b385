//! An answer does not depend on where its data lies: on one core or on four, in open chunks or in the files of closed ones, written
//! just now or replayed; nor on how a range is cut.
//!
//! Random queries over random series, from a fixed seed, asked of the whole read path. Where the order of additions cannot matter (one and
//! the same core, or an operation that is exact) answers are equal bit by bit, else to 1e-12.

#[path = "harness/node.rs"]
mod node;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use model::{Labels, QueryValue, SeriesValue, TenantId, TenantLimits};
use prometheus::Registry;
use query::{Caller, Engine, Options, Times};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use shard::Cores;

const SEED: u64 = 0x6d79_656c_696e;
const QUERIES: usize = 150;
const START: i64 = 1_700_000_000_000;
const SCRAPE: i64 = 15_000;
const SCRAPES: usize = 90;

struct Node {
    cores: Cores,
    engine: Engine,
}

impl Node {
    fn start(dir: &Path, cores: usize, chunk_samples_max: u16) -> Node {
        let cpus = shard::topology::cores(None, None).unwrap();
        let cpus = cpus.into_iter().cycle().take(cores).collect();
        let mut options = shard::Options::new(dir, cpus);
        options.chunk_samples_max = chunk_samples_max;
        let cores = Cores::start(options, |_| {}).unwrap();
        let engine = Engine::start(Options::new(2), cores.mailboxes().clone(), &Registry::new());
        Node { cores, engine }
    }

    fn push(&self, row: &Row, scrapes: std::ops::Range<usize>) {
        let samples: Vec<_> = row.samples[scrapes].iter().flatten().copied().collect();
        let limits = TenantLimits::unlimited();
        node::push(&self.cores, &tenant(), limits, &row.labels, &samples);
    }

    async fn points(&self, text: &str, times: Times) -> Points {
        let caller = Caller {
            tenant: tenant(),
            limits: Arc::new(TenantLimits::unlimited()),
            now_ms: START,
            client: Arc::default(),
        };
        let answer = self.engine.query(&caller, node::query(text, times)).await;
        let value = answer.unwrap_or_else(|e| panic!("{text}: {e}")).value;
        let mut points = Points::new();
        match value {
            QueryValue::Vector(samples) => {
                for sample in samples {
                    let SeriesValue::Float(value) = sample.value else {
                        panic!("{text}: no histogram was written");
                    };
                    points.insert((sample.labels.to_string(), sample.t), value);
                }
            }
            QueryValue::Matrix(series) => {
                for one in series {
                    for point in one.floats {
                        points.insert((one.labels.to_string(), point.t), point.v);
                    }
                }
            }
            other => panic!("{text}: {other:?}"),
        }
        points
    }
}

/// Values by labels and time.
type Points = BTreeMap<(String, i64), f64>;

fn tenant() -> TenantId {
    TenantId::new("a").unwrap()
}

/// A series; `None` where a scrape is missing.
struct Row {
    labels: Labels,
    samples: Vec<Option<(i64, f64)>>,
}

/// Counters of whole numbers with resets, gauges of fractions, buckets; late, missing and stale samples.
fn rows(rng: &mut SmallRng) -> Vec<Row> {
    let mut rows = Vec::new();
    for target in 0..14 {
        let (job, instance) = (format!("job-{}", target % 3), format!("host-{target}"));
        let late = rng.random_range(0..SCRAPE);
        let mut add = |name: &str, more: Option<(&str, &str)>, whole: bool| {
            let mut level = 0.0;
            let gone = rng.random_range(0..SCRAPES * 3);
            let samples = (0..SCRAPES).map(|scrape| {
                let time = START + scrape as i64 * SCRAPE + late;
                level = match (whole, rng.random_range(0..40)) {
                    (true, 0) => 0.0,
                    (true, _) => level + f64::from(rng.random_range(0..1000u32)),
                    (false, _) => level + rng.random_range(-1.0..1.0),
                };
                match scrape {
                    _ if scrape == gone => Some((time, model::stale_nan())),
                    _ if (gone..gone + 9).contains(&scrape) => None,
                    _ => (rng.random_range(0..30) != 0).then_some((time, level)),
                }
            });
            let samples = samples.collect();
            let labels = [("__name__", name), ("instance", &instance), ("job", &job)];
            let labels = Labels::from_pairs(labels.into_iter().chain(more)).unwrap();
            rows.push(Row { labels, samples });
        };
        for code in ["200", "404", "500"] {
            add("requests_total", Some(("code", code)), true);
        }
        for le in ["0.1", "1", "10", "+Inf"] {
            add("latency_bucket", Some(("le", le)), true);
        }
        add("temperature", None, false);
        add("load", Some(("mode", "idle")), false);
    }
    rows
}

/// A query, and whether its operations are exact whatever the order.
fn query(rng: &mut SmallRng) -> (String, bool) {
    let mut pick = |choices: &[&'static str]| choices[rng.random_range(0..choices.len())];
    let (selector, whole) = match pick(&["counter", "counter", "gauge", "regex"]) {
        "counter" => (
            pick(&[
                "requests_total",
                "latency_bucket",
                "requests_total{code!=\"200\"}",
            ]),
            true,
        ),
        "gauge" => (
            pick(&["temperature", "load", "temperature{job=~\"job-(0|2)\"}"]),
            false,
        ),
        _ => (
            pick(&["{__name__=~\"temp.+|load\"}", "{instance=~\"host-1.*\"}"]),
            false,
        ),
    };
    let offset = pick(&["", "", " offset 1m", " @ 1700000600"]);
    let range = pick(&["[1m]", "[5m]", "[47s]", "[10m]"]);
    let function = pick(&[
        "",
        "",
        "",
        "rate",
        "increase",
        "delta",
        "avg_over_time",
        "sum_over_time",
        "max_over_time",
        "min_over_time",
        "count_over_time",
        "last_over_time",
        "changes",
        "resets",
        "stddev_over_time",
    ]);
    let inner = match function {
        "" => format!("{selector}{offset}"),
        name => format!("{name}({selector}{range}{offset})"),
    };
    let inner = match pick(&["", "", "", "* 2", "> 3", "abs", "subquery"]) {
        "" => inner,
        "abs" => format!("abs({inner})"),
        "subquery" => format!("max_over_time(({inner})[3m:45s])"),
        scalar => format!("({inner}) {scalar}"),
    };
    let whole = whole
        && matches!(
            function,
            "" | "max_over_time" | "min_over_time" | "count_over_time" | "changes"
        );
    let by = pick(&[
        "",
        " by (job)",
        " by (job, le)",
        " without (instance)",
        " by (instance)",
    ]);
    match pick(&[
        "",
        "",
        "sum",
        "avg",
        "min",
        "max",
        "count",
        "group",
        "stddev",
        "topk",
        "quantile",
        "histogram",
        "ratio",
    ]) {
        "" => (inner, true),
        "topk" => (format!("topk{by} (3, {inner})"), true),
        "quantile" => (format!("quantile{by} (0.7, {inner})"), true),
        "histogram" => (
            format!(
                "histogram_quantile(0.9, sum by (job, le) (rate(latency_bucket{range}{offset})))"
            ),
            false,
        ),
        "ratio" => (
            format!("sum by (job) ({inner}) / on (job) group_left count by (job) ({inner})"),
            whole,
        ),
        operator => {
            let exact =
                whole && operator == "sum" || ["min", "max", "count", "group"].contains(&operator);
            (format!("{operator}{by} ({inner})"), exact)
        }
    }
}

fn assert_same(text: &str, names: [&str; 2], exact: bool, a: &Points, b: &Points) {
    let same = |a: f64, b: f64| {
        a.to_bits() == b.to_bits()
            || !exact && ((a - b).abs() <= 1e-12 * a.abs().max(b.abs()) || a.is_nan() && b.is_nan())
    };
    let keys: Vec<_> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let (one, two) = (a.get(key), b.get(key));
        let agree = one.zip(two).is_some_and(|(one, two)| same(*one, *two));
        assert!(
            agree,
            "seed {SEED}: {text}\nat {key:?}: {one:?} {}, {two:?} {}",
            names[0], names[1]
        );
    }
}

#[tokio::test]
async fn an_answer_does_not_depend_on_where_its_data_lies() {
    let mut rng = SmallRng::seed_from_u64(SEED);
    let rows = rows(&mut rng);
    let dirs: [tempfile::TempDir; 4] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let [open, four, closed, moved] = dirs.each_ref().map(|dir| dir.path());
    let filled = |dir: &Path, cores: usize, chunk_samples_max: u16| {
        let node = Node::start(dir, cores, chunk_samples_max);
        for from in (0..SCRAPES).step_by(30) {
            rows.iter().for_each(|row| node.push(row, from..from + 30));
        }
        node
    };
    filled(moved, 1, 40).cores.stop();
    filled(closed, 1, 7).cores.stop();
    // The first is what all others are compared with. Those of one core add in the same order.
    let nodes = [
        ("in open chunks", true, filled(open, 1, 120)),
        ("on four cores", false, filled(four, 4, 25)),
        (
            "replayed from small chunks",
            true,
            Node::start(closed, 1, 7),
        ),
        ("replayed on four cores", false, Node::start(moved, 4, 40)),
    ];
    let small = tempfile::tempdir().unwrap();
    let small = ("in small closed chunks", true, filled(small.path(), 1, 7));
    let mut points_seen = 0;
    for _ in 0..QUERIES {
        let (text, exact) = query(&mut rng);
        let start = START + rng.random_range(0..60) * 13_000;
        let step = [15_000, 60_000, 7_001][rng.random_range(0..3)];
        let count = rng.random_range(2..40);
        let end = start + step * (count - 1);
        let whole = Times::Range { start, end, step };
        let instant = Times::Instant(START + rng.random_range(0..100) * 15_000);
        for times in [whole, instant] {
            let (name, _, node) = &nodes[0];
            let expected = node.points(&text, times).await;
            points_seen += expected.len();
            for (other, same_order, node) in nodes[1..].iter().chain([&small]) {
                let found = node.points(&text, times).await;
                let exact = exact || *same_order;
                assert_same(&text, [name, other], exact, &expected, &found);
            }
        }
        let cut = start + step * rng.random_range(1..count);
        let node = &nodes[0].2;
        let mut cut_up = Points::new();
        for (start, end) in [(start, cut - step), (cut, end)] {
            let part = node.points(&text, Times::Range { start, end, step }).await;
            cut_up.extend(part);
        }
        let expected = node.points(&text, whole).await;
        assert_same(&text, ["in one", "cut up"], false, &expected, &cut_up);
    }
    assert!(
        points_seen > QUERIES * 20,
        "{points_seen} points say little"
    );
    for (_, _, node) in nodes.into_iter().chain([small]) {
        node.cores.stop();
    }
}
