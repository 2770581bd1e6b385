//! An answer does not depend on where its data lies: every kind of data (floats, integer and float histograms with exponential and custom
//! buckets, both in one series, exemplars, metadata) is asked for while its chunks are open, when they are closed, when they have been flushed to blocks, after
//! `kill -9` and the replay of the log, after a stop and a start from the checkpoint, and while the blocks are merged and when they have been; on one core and on four; and when it came out of order. All answers are equal to the
//! last digit: counts are whole, so that sums are exact in any order.

use std::time::Duration;

use model::{
    CUSTOM_BUCKETS_SCHEMA, CounterReset, FloatHistogram, Histogram, HistogramSample, Metadata,
    MetricType, Span,
};
use serde_json::Value;
use tests::{Server, ServerOptions, unix_now, wait_until};
use wire::remote_write::encode;

use super::queries::metric;
use super::series::{field, push, varint};

/// Milliseconds from scrape to scrape.
pub(super) const SCRAPE: i64 = 15_000;
/// Scrapes that are asked for: fewer than a chunk holds.
pub(super) const ASKED: i64 = 100;
/// Scrapes in all: the chunks of the first ones are closed then.
pub(super) const SCRAPES: i64 = 500;

pub(super) fn integer(n: i64) -> HistogramSample {
    // A reset at scrape 40.
    let n = if n < 40 { n } else { n - 40 };
    HistogramSample::Int(Histogram {
        schema: 1,
        zero_threshold: 0.0625,
        zero_count: n as u64,
        count: 6 * n as u64,
        sum: 9.0 * n as f64,
        positive_spans: vec![
            Span {
                offset: -1,
                length: 2,
            },
            Span {
                offset: 3,
                length: 1,
            },
        ],
        positive_deltas: vec![n, 0, n],
        negative_spans: vec![Span {
            offset: 2,
            length: 1,
        }],
        negative_deltas: vec![n],
        ..Histogram::default()
    })
}

fn custom(n: i64) -> HistogramSample {
    HistogramSample::Int(Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 3 * n as u64,
        sum: 5.0 * n as f64,
        positive_spans: vec![Span {
            offset: 0,
            length: 3,
        }],
        positive_deltas: vec![n, 0, 0],
        custom_values: vec![1.0, 2.0, 5.0],
        ..Histogram::default()
    })
}

pub(super) fn fractional(n: i64) -> HistogramSample {
    let half = n as f64 / 2.0;
    HistogramSample::Float(FloatHistogram {
        counter_reset: CounterReset::Gauge,
        schema: 0,
        count: 2.0 * half,
        sum: -half,
        positive_spans: vec![Span {
            offset: 1,
            length: 2,
        }],
        positive_counts: vec![half, half],
        ..FloatHistogram::default()
    })
}

/// A remote write of some scrapes of all series, with an exemplar of the last one.
pub(super) fn request(start: i64, scrapes: std::ops::Range<i64>) -> Vec<u8> {
    let mut out = samples(start, scrapes.clone());
    for i in 0..8i64 {
        let last = scrapes.clone().rev().find(|n| scraped(i, *n));
        let last = last.expect("of so many scrapes one is there");
        let (instance, job) = (i.to_string(), format!("j{}", i % 3));
        let pairs = [
            ("__name__", "requests_total"),
            ("instance", &*instance),
            ("job", &*job),
        ];
        let time = start + last * SCRAPE + i;
        put_exemplar(&mut out, pairs.into_iter(), time, last as f64);
    }
    out
}

/// Whether a scrape of an instance succeeded.
fn scraped(instance: i64, n: i64) -> bool {
    (n + instance) % 13 != 0
}

/// The samples of some scrapes.
fn samples(start: i64, scrapes: std::ops::Range<i64>) -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..8i64 {
        let (instance, job) = (i.to_string(), format!("j{}", i % 3));
        let at = |n: &i64| start + n * SCRAPE + i;
        let present: Vec<i64> = scrapes.clone().filter(|n| scraped(i, *n)).collect();
        let labels = |name: &'static str| {
            let pairs = [("__name__", name), ("instance", &*instance), ("job", &*job)];
            pairs.into_iter()
        };
        let counter: Vec<_> = present
            .iter()
            .map(|n| (at(n), ((n * (i + 1)) % 997) as f64))
            .collect();
        encode::put_series(&mut out, labels("requests_total"), &counter);
        let of = |make: fn(i64) -> HistogramSample| -> Vec<_> {
            present.iter().map(|n| (at(n), make(*n))).collect()
        };
        encode::put_series_with(&mut out, labels("exponential"), &[], &of(integer));
        encode::put_series_with(&mut out, labels("custom"), &[], &of(custom));
        encode::put_series_with(&mut out, labels("fractional"), &[], &of(fractional));
        // One pushed after the other: of one series the wire has floats first.
        for n in &present {
            let (mut floats, mut histograms) = (Vec::new(), Vec::new());
            match n % 30 {
                0..20 => histograms.push((at(n), integer(*n))),
                29 => floats.push((at(n), model::stale_nan())),
                _ => floats.push((at(n), *n as f64)),
            }
            encode::put_series_with(&mut out, labels("mixed"), &floats, &histograms);
        }
    }
    out
}

/// A series that has an exemplar alone.
fn put_exemplar<'l>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = (&'l str, &'l str)>,
    time: i64,
    value: f64,
) {
    let put_label = |out: &mut Vec<u8>, name: &str, value: &str| {
        let mut label = Vec::new();
        field(&mut label, 1, name.as_bytes(), false);
        field(&mut label, 2, value.as_bytes(), false);
        field(out, 1, &label, false);
    };
    let mut series = Vec::new();
    for (name, value) in labels {
        put_label(&mut series, name, value);
    }
    let mut exemplar = Vec::new();
    put_label(&mut exemplar, "trace_id", &time.to_string());
    exemplar.push(0x11);
    exemplar.extend(value.to_le_bytes());
    exemplar.push(0x18);
    varint(&mut exemplar, time as u64, false);
    field(&mut series, 3, &exemplar, false);
    field(out, 1, &series, false);
}

/// What senders say again and again.
pub(super) fn metadata() -> Vec<u8> {
    let mut out = Vec::new();
    for (metric, kind) in [
        ("requests_total", MetricType::Counter),
        ("exponential", MetricType::Histogram),
    ] {
        let metadata = Metadata {
            kind,
            help: format!("help of {metric}"),
            unit: "s".to_owned(),
        };
        encode::put_metadata(&mut out, metric, &metadata);
    }
    out
}

const QUERIES: [&str; 24] = [
    "requests_total",
    "rate(requests_total[3m])",
    "sum by (job) (requests_total)",
    "topk(3, increase(requests_total[5m]))",
    "quantile_over_time(0.3, requests_total[5m])",
    "requests_total / on (instance) group_left histogram_count(exponential)",
    "exponential",
    "rate(exponential[3m])",
    "sum(exponential)",
    "sum by (job) (increase(exponential[5m]))",
    "histogram_quantile(0.7, sum by (job) (rate(exponential[5m])))",
    "resets(exponential[10m])",
    "custom",
    "histogram_quantile(0.4, custom)",
    "sum(custom) - ignoring (instance, job) custom{instance=\"3\"}",
    "fractional",
    "avg_over_time(fractional[5m])",
    "delta(fractional[4m])",
    "mixed",
    "last_over_time(mixed[2m])",
    "count_over_time(mixed[8m])",
    "changes(mixed[8m]) + resets(mixed[8m])",
    "timestamp(mixed)",
    "max_over_time(histogram_sum(exponential)[6m:20s])",
];

/// Everything that can be asked about the first scrapes, with its question.
pub(super) fn answers(server: &Server, start: i64) -> Vec<(String, Value)> {
    let api = server.api(None);
    let seconds = |n: i64| (start + n * SCRAPE) as f64 / 1000.0;
    let end = seconds(ASKED - 1);
    let mut all = Vec::new();
    for query in QUERIES {
        let found = api.query_range(query, seconds(0), end, 37.0);
        assert_ne!(found.as_array().map(Vec::len), Some(0), "{query} is empty");
        all.push((format!("range: {query}"), found));
        let mut found = api.query(query, end);
        if let Some(list) = found.as_array_mut() {
            list.sort_by_key(|one| one["metric"].to_string());
        }
        all.push((format!("instant: {query}"), found));
    }
    let mut whole = api.query("{__name__=~\".+\"}[10m]", end);
    let list = whole.as_array_mut().expect("a matrix");
    list.sort_by_key(|one| one["metric"].to_string());
    all.push(("raw samples".to_owned(), whole));
    let (from, to) = (format!("{}", seconds(0)), format!("{end}"));
    for (path, more) in [
        ("/api/v1/query_exemplars", ("query", "requests_total")),
        ("/api/v1/series", ("match[]", "{job=\"j1\"}")),
        ("/api/v1/labels", ("match[]", "mixed")),
        ("/api/v1/label/instance/values", ("match[]", "custom")),
        ("/api/v1/metadata", ("metric", "")),
    ] {
        let params = [("start", &*from), ("end", &*to), more];
        let found = api.data(path, &params);
        let empty = found.as_array().is_some_and(Vec::is_empty);
        assert!(!empty && found != serde_json::json!({}), "{path} is empty");
        all.push((path.to_owned(), found));
    }
    all
}

pub(super) fn assert_equal(place: &str, found: &[(String, Value)], wanted: &[(String, Value)]) {
    for ((question, found), (_, wanted)) in found.iter().zip(wanted) {
        assert!(
            found == wanted,
            "{place}, {question}:\n{found}\nand in open chunks:\n{wanted}"
        );
    }
}

pub(super) fn accepted(server: &Server, body: &[u8]) {
    let answer = push(server, None, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn answers_are_the_same_in_open_chunks_in_files_and_replayed_on_one_core_and_on_four() {
    let start = (unix_now() - SCRAPES * SCRAPE / 1000 - 60) * 1000;
    let mut wanted: Option<Vec<(String, Value)>> = None;
    for cores in [1, 4] {
        let options = ServerOptions {
            args: vec![format!("-cores={cores}")],
            ..ServerOptions::default()
        };
        let Some(mut server) = Server::start(options) else {
            return;
        };
        accepted(&server, &request(start, 0..ASKED));
        accepted(&server, &metadata());
        let open = answers(&server, start);
        let wanted = &*wanted.get_or_insert_with(|| open.clone());
        assert_equal(&format!("{cores} cores, open chunks"), &open, wanted);

        accepted(&server, &request(start, ASKED..SCRAPES));
        let name = |place: &str| format!("{cores} cores, {place}");
        assert_equal(&name("in closed chunks"), &answers(&server, start), wanted);
        let flushed = server.admin().get("/ingester/flush", &[("wait", "true")]);
        assert!(
            (200..300).contains(&flushed.status),
            "flush: {}",
            flushed.text()
        );
        assert!(
            metric(&server, "myelin_blocks") > 0.0,
            "nothing was flushed"
        );
        assert_equal(&name("in blocks"), &answers(&server, start), wanted);
        server.kill();
        server.restart();
        accepted(&server, &metadata());
        assert_equal(&name("replayed"), &answers(&server, start), wanted);
        server.stop();
        server.restart();
        accepted(&server, &metadata());
        let found = answers(&server, start);
        assert_equal(&name("from the checkpoint"), &found, wanted);
        server.stop();
        let often = [
            format!("-cores={cores}"),
            "-compactor.compaction-interval=1s".to_owned(),
        ];
        server.restart_with(&often.each_ref().map(String::as_str));
        accepted(&server, &metadata());
        // Copies of copies: asked while they are merged, and when they have been.
        server.admin().get("/ingester/flush", &[("wait", "true")]);
        let is_merged = || metric(&server, "cortex_compactor_blocks_cleaned_total") >= 2.0;
        wait_until("the copies to be merged", Duration::from_secs(60), || {
            assert_equal(&name("compacting"), &answers(&server, start), wanted);
            is_merged()
        });
        assert_equal(&name("compacted"), &answers(&server, start), wanted);
        assert_eq!(metric(&server, "cortex_compactor_runs_failed_total"), 0.0);
        let blocks = std::fs::read_dir(server.data().join("blocks")).unwrap();
        let blocks: Vec<_> = blocks.map(|entry| entry.unwrap().path()).collect();
        let merged = blocks
            .iter()
            .filter(|path| path.to_string_lossy().contains("merged-"));
        assert!(merged.count() > 0, "{blocks:?}");
        server.stop();
        server.restart();
        accepted(&server, &metadata());
        let found = answers(&server, start);
        assert_equal(&name("started on merged blocks"), &found, wanted);
    }
}

/// Scrapes come in any order within two minutes of each other. What comes late is a sample like any other.
#[test]
fn samples_that_came_out_of_order_give_the_answers_of_those_in_order() {
    let start = (unix_now() - SCRAPES * SCRAPE / 1000 - 60) * 1000;
    // Exemplars that come late are dropped.
    let answers = |server: &Server| {
        let mut all = answers(server, start);
        all.retain(|(question, _)| !question.contains("exemplars"));
        all
    };
    let Some(server) = Server::start(ServerOptions::default()) else {
        return;
    };
    accepted(&server, &request(start, 0..ASKED));
    accepted(&server, &metadata());
    let wanted = answers(&server);
    drop(server);

    let options = ServerOptions {
        args: vec!["-cores=2".to_owned()],
        ..ServerOptions::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    // 5 and 8 have no common divisor: every scrape once, every second one late.
    let shuffled = |scrapes: std::ops::Range<i64>| {
        let whole = scrapes.clone().step_by(8);
        let of_eight = move |from: i64| (0..8).map(move |n| from + (n * 5 + 3) % 8);
        whole
            .flat_map(of_eight)
            .filter(move |n| scrapes.contains(n))
    };
    for n in shuffled(0..ASKED) {
        accepted(&server, &samples(start, n..n + 1));
    }
    accepted(&server, &request(start, ASKED - 3..ASKED));
    let late = "cortex_ingester_tsdb_head_out_of_order_samples_appended_total";
    let count = metric(&server, late);
    assert!(count > 1000.0, "only {count} samples came late");
    accepted(&server, &metadata());
    assert_equal("shuffled", &answers(&server), &wanted);
    // Again: all of it is there already.
    for n in ASKED - 8..ASKED {
        accepted(&server, &samples(start, n..n + 1));
    }
    assert_eq!(metric(&server, late), count, "repetitions are not stored");

    for n in shuffled(ASKED..SCRAPES) {
        accepted(&server, &samples(start, n..n + 1));
    }
    assert_equal("shuffled, closed", &answers(&server), &wanted);
    server.kill();
    server.restart();
    accepted(&server, &metadata());
    assert_equal("shuffled, replayed", &answers(&server), &wanted);
    let flushed = server.admin().get("/ingester/flush", &[("wait", "true")]);
    assert!((200..300).contains(&flushed.status), "{}", flushed.text());
    assert!(
        metric(&server, "myelin_blocks") > 0.0,
        "nothing was flushed"
    );
    assert_equal("shuffled, in blocks", &answers(&server), &wanted);
    server.kill();
    server.restart();
    accepted(&server, &metadata());
    assert_equal("shuffled, behind blocks", &answers(&server), &wanted);
}
