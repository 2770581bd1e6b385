//! The evaluator, on well-typed queries that a small grammar makes of the fuzzer's bytes, over a few series held here.
//!
//! Three laws that must hold of any query: evaluation ends within its budget and never panics, however extreme the times; a range
//! query gives at each step what an instant query gives at that time; and how the work is cut into pieces changes nothing but the
//! last digits.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use bolero::check;
use model::{Labels, QueryValue, SeriesValue};
use promql::{Budget, Columns, Executor, Inline, Params, Plan, Shard, Shards, Source, SourceError};

use super::INPUTS;

/// The first sample; a scrape every 15 s follows.
const START: i64 = 1_700_000_000_000;
const SCRAPES: i64 = 60;

struct Row {
    labels: Labels,
    times: Vec<i64>,
    values: Vec<f64>,
}

/// Counters with resets, gauges with special values, histogram buckets, a series that went stale and came back.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |labels: &[(&str, &str)], value: &dyn Fn(i64) -> Option<f64>| {
        let samples = (0..SCRAPES).filter_map(|i| Some((START + i * 15_000, value(i)?)));
        let (times, values) = samples.unzip();
        let labels = Labels::from_pairs(labels.iter().copied()).expect("good labels");
        rows.push(Row {
            labels,
            times,
            values,
        });
    };
    for (job, instance, slope) in [("a", "1", 7), ("a", "2", 0), ("b", "1", 1000)] {
        let labels = [
            ("__name__", "requests_total"),
            ("instance", instance),
            ("job", job),
        ];
        add(&labels, &|i| Some((i % 25 * slope) as f64));
        let labels = [
            ("__name__", "temperature"),
            ("instance", instance),
            ("job", job),
        ];
        add(&labels, &|i| match (i + slope) % 11 {
            3 => Some(f64::NAN),
            5 => Some(f64::INFINITY),
            7 => Some(-0.0),
            n => Some(n as f64 * 1.5 - 4.0),
        });
        for (le, share) in [("0.1", 1), ("1", 3), ("+Inf", 4)] {
            let labels = [
                ("__name__", "latency_bucket"),
                ("instance", instance),
                ("job", job),
                ("le", le),
            ];
            add(&labels, &|i| Some((i * share * (slope + 1)) as f64));
        }
    }
    add(&[("__name__", "up"), ("job", "a")], &|i| match i {
        20 => Some(model::stale_nan()),
        21..40 => None,
        _ => Some((i % 2) as f64),
    });
    rows.sort_by(|a, b| a.labels.cmp(&b.labels));
    rows
}

/// What `query` would have fetched: of every selector the wanted labels of each series, and the series.
struct Fetched<'r>(Vec<Vec<(Labels, &'r Row)>>);

impl Fetched<'_> {
    fn of<'r>(plan: &Plan, rows: &'r [Row]) -> Fetched<'r> {
        let matches = |row: &Row, matchers: &[model::Matcher]| {
            matchers
                .iter()
                .all(|m| m.matches(row.labels.get(m.name()).unwrap_or("")))
        };
        let select = |selector: &promql::Selector| {
            rows.iter()
                .filter(|row| matches(row, &selector.matchers))
                .map(|row| (selector.projection.apply(&row.labels), row))
                .collect()
        };
        Fetched(plan.selectors().iter().map(select).collect())
    }
}

impl Source for Fetched<'_> {
    fn count(&self, selector: usize) -> usize {
        self.0[selector].len()
    }

    fn labels(&self, selector: usize, series: usize) -> &Labels {
        &self.0[selector][series].0
    }

    fn decode(
        &self,
        selector: usize,
        series: usize,
        min: i64,
        max: i64,
        out: &mut Columns,
    ) -> Result<(), SourceError> {
        out.clear();
        let row = self.0[selector][series].1;
        for (time, value) in row.times.iter().zip(&row.values) {
            if (min..=max).contains(time) {
                out.times.push(*time);
                out.values.push(*value);
            }
        }
        Ok(())
    }
}

/// Many pieces, and shards, last one first.
struct Backwards;

impl Executor for Backwards {
    fn width(&self) -> usize {
        5
    }

    fn run(&self, count: usize, piece: &(dyn Fn(usize) + Sync)) {
        (0..count).rev().for_each(piece);
    }

    fn run_shards(&self, count: usize, shard: &Shard<'_>) {
        (0..count).rev().for_each(|n| shard(n, self));
    }
}

fn run(text: &str, params: &Params, rows: &[Row], executor: &dyn Executor) -> Option<QueryValue> {
    let plan = promql::plan(&promql::parse(text).ok()?, params).ok()?;
    let source = Fetched::of(&plan, rows);
    // A deadline that is counted, not timed, so that every run is the same.
    let questions = AtomicU32::new(0);
    let expired = || questions.fetch_add(1, Relaxed) > 20_000;
    let canceled = AtomicBool::new(false);
    // With one worker there are none.
    let shards = Shards {
        count: 3,
        cells_min: 0,
    };
    let budget = Budget {
        shards,
        ..Budget::new(200_000, &expired, &canceled)
    };
    promql::evaluate(&plan, &source, executor, &budget)
        .ok()
        .map(|evaluated| evaluated.value)
}

/// Floats by labels and time.
type Points = BTreeMap<(String, i64), f64>;

/// The floats of a result; `None` of a string.
fn floats(value: QueryValue) -> Option<Points> {
    let mut all = BTreeMap::new();
    match value {
        QueryValue::Scalar { t, v } => {
            all.insert((Labels::empty().to_string(), t), v);
        }
        QueryValue::String { .. } => return None,
        QueryValue::Vector(samples) => {
            for sample in samples {
                if let SeriesValue::Float(v) = sample.value {
                    all.insert((sample.labels.to_string(), sample.t), v);
                }
            }
        }
        QueryValue::Matrix(series) => {
            for row in series {
                for point in &row.floats {
                    all.insert((row.labels.to_string(), point.t), point.v);
                }
            }
        }
    }
    Some(all)
}

fn close(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// Panics with the points that differ.
fn assert_same(text: &str, names: [&str; 2], a: &Points, b: &Points) {
    let differs = |(key, value): &(&(String, i64), &f64), other: &Points| {
        other.get(key).is_none_or(|found| !close(**value, *found))
    };
    let of_a: Vec<_> = a.iter().filter(|point| differs(point, b)).take(5).collect();
    let of_b: Vec<_> = b.iter().filter(|point| differs(point, a)).take(5).collect();
    assert!(
        of_a.is_empty() && of_b.is_empty(),
        "{text}\nonly {}: {of_a:?}\nonly {}: {of_b:?}",
        names[0],
        names[1]
    );
}

/// Makes queries of bytes: each choice takes a byte, zero when there are none left, and zero always ends.
struct Grammar<'a> {
    bytes: std::slice::Iter<'a, u8>,
    depth: u32,
}

impl Grammar<'_> {
    fn pick<'t>(&mut self, choices: &[&'t str]) -> &'t str {
        choices[self.byte() % choices.len()]
    }

    fn byte(&mut self) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0))
    }

    fn selector(&mut self) -> &'static str {
        self.pick(&[
            "temperature",
            "requests_total",
            "latency_bucket",
            "up",
            "{job=\"a\"}",
            "temperature{job!~\"a|c\"}",
            "{__name__=~\".+_total|up\"}",
            "missing",
            "requests_total{instance=\"1\"}",
        ])
    }

    fn modifier(&mut self) -> &'static str {
        self.pick(&[
            "",
            "",
            "",
            " offset 1m",
            " offset -2m",
            " @ 1700000300",
            " offset 90s",
        ])
    }

    fn range(&mut self) -> String {
        let modifier = self.modifier();
        if self.byte() % 4 == 3 {
            let inner = self.vector();
            let range = self.pick(&["[2m:30s]", "[1m:]", "[5m:45s]", "[10m:1m]"]);
            return format!("({inner}){range}{modifier}");
        }
        let range = self.pick(&["[1m]", "[5m]", "[15s]", "[47s]", "[1h]", "[1ms]"]);
        format!("{}{range}{modifier}", self.selector())
    }

    fn scalar(&mut self) -> String {
        match self.byte() % 6 {
            0 => "2".to_owned(),
            1 => "-0.5".to_owned(),
            2 => "NaN".to_owned(),
            3 => "time()".to_owned(),
            4 => "Inf".to_owned(),
            _ => format!("scalar({})", self.vector()),
        }
    }

    fn vector(&mut self) -> String {
        self.depth += 1;
        if self.depth > 12 {
            return "up".to_owned();
        }
        match self.byte() % 12 {
            0 => format!("{}{}", self.selector(), self.modifier()),
            1 | 2 => {
                let function = self.pick(&[
                    "rate",
                    "irate",
                    "increase",
                    "delta",
                    "idelta",
                    "deriv",
                    "changes",
                    "resets",
                    "avg_over_time",
                    "sum_over_time",
                    "min_over_time",
                    "max_over_time",
                    "count_over_time",
                    "stddev_over_time",
                    "last_over_time",
                    "present_over_time",
                    "absent_over_time",
                    "mad_over_time",
                ]);
                format!("{function}({})", self.range())
            }
            3 => format!("quantile_over_time({}, {})", self.scalar(), self.range()),
            4 => {
                let function = self.pick(&[
                    "abs",
                    "ceil",
                    "floor",
                    "exp",
                    "ln",
                    "sqrt",
                    "sgn",
                    "timestamp",
                    "absent",
                    "minute",
                    "day_of_week",
                    "days_in_month",
                    "deg",
                    "acosh",
                    "-",
                    "+",
                    "",
                ]);
                format!("{function}({})", self.vector())
            }
            5 | 6 => {
                let operator = self.pick(&[
                    "sum", "avg", "min", "max", "count", "stddev", "stdvar", "group",
                ]);
                let by = self.pick(&["", " by (job)", " without (instance)", " by (le, job)"]);
                format!("{operator}{by} ({})", self.vector())
            }
            7 => {
                // Which of equal values `topk` keeps depends on their order, and it orders its own result by value in an
                // instant query only: so it must not stand within another one.
                let operator = match self.depth {
                    1 => self.pick(&["topk", "bottomk", "quantile"]),
                    _ => "quantile",
                };
                let by = self.pick(&["", " by (job)"]);
                format!("{operator}{by} ({}, {})", self.scalar(), self.vector())
            }
            8 => {
                let operator = self.pick(&[
                    "+", "-", "*", "/", "%", "^", "==", ">", "< bool", "!= bool", "and", "or",
                    "unless", "atan2",
                ]);
                let set = ["and", "or", "unless"].contains(&operator);
                let matching = match self.byte() % 4 {
                    0 => "",
                    1 => " on (job)",
                    2 => " ignoring (le, __name__)",
                    _ if set => " on (job, instance)",
                    _ => " on (job, instance) group_left",
                };
                format!(
                    "({}) {operator}{matching} ({})",
                    self.vector(),
                    self.vector()
                )
            }
            9 => {
                let operator = self.pick(&["+", "*", "/", "%", "^", ">", "<= bool"]);
                format!("({}) {operator} {}", self.vector(), self.scalar())
            }
            10 => format!("histogram_quantile({}, {})", self.scalar(), self.vector()),
            _ => format!(
                "label_replace({}, \"to\", \"$1\", \"job\", \"(.*)\")",
                self.vector()
            ),
        }
    }
}

fn query(bytes: &[u8]) -> String {
    Grammar {
        bytes: bytes.iter(),
        depth: 0,
    }
    .vector()
}

#[test]
fn evaluation_of_a_range_is_that_of_its_instants() {
    let rows = AssertUnwindSafe(rows());
    check!()
        .with_iterations(INPUTS / 5)
        .with_max_len(48)
        .for_each(|bytes: &[u8]| {
            let text = query(bytes);
            let start = START + 15_000 * 10 + 7;
            let step = [15_000, 60_000, 1, 100_000][bytes.len() % 4];
            let params = Params::range(start, start + 4 * step, step);
            let Some(value) = run(&text, &params, &rows, &Inline) else {
                return;
            };
            let range = floats(value).expect("a range query has a matrix");
            let pieces = run(&text, &params, &rows, &Backwards).expect("it worked in one piece");
            assert_same(
                &text,
                ["in one piece", "in five"],
                &range,
                &floats(pieces).expect("a matrix"),
            );
            let mut instants = BTreeMap::new();
            for i in 0..5 {
                let value = run(&text, &Params::instant(start + i * step), &rows, &Inline);
                let value =
                    value.unwrap_or_else(|| panic!("{text}: works as a range, not at step {i}"));
                instants.extend(floats(value).expect("vectors and scalars"));
            }
            // Names are dropped late. A series that has its name from one side of `or` at some steps and is about to lose it on the
            // other side at others is one series in a range, two in instants; in Prometheus as well.
            if text.contains(" or ") {
                return;
            }
            assert_same(&text, ["as range", "as instants"], &range, &instants);
        });
}

#[test]
fn evaluation_ends_however_extreme_the_times() {
    let rows = AssertUnwindSafe(rows());
    check!()
        .with_type::<(Vec<u8>, i64, i64, i64)>()
        .with_iterations(INPUTS / 5)
        .with_max_len(80)
        .for_each(|(bytes, start, end, step)| {
            let text = query(bytes);
            // `query` refuses more than 11,000 points before it comes to this; the evaluator has its own bounds.
            run(
                &text,
                &Params {
                    start: *start,
                    end: *end,
                    step: *step,
                    ..Params::instant(0)
                },
                &rows,
                &Inline,
            );
            run(&text, &Params::instant(*start), &rows, &Backwards);
            for extreme in [i64::MIN, i64::MAX] {
                run(&text, &Params::instant(extreme), &rows, &Inline);
            }
        });
}
