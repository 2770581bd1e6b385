//! Claims about the evaluator as a whole: bounds, extremes, and that columns over many steps say the same as single steps.

mod histograms;
mod shards;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use model::{
    FloatHistogram, FloatPoint, InstantSample, Labels, QueryValue, SeriesValue, Windows, stale_nan,
};
use proptest::prelude::*;

use super::reference::{Datum, Failure, Hist, Input, Reference};
use crate::parser::generated;
use crate::{
    Budget, Columns, Error, Evaluated, Executor, Inline, Params, Plan, Profile, Shard, Source,
    SourceError, evaluate, parse, plan,
};

struct Raw {
    labels: Labels,
    times: Vec<i64>,
    values: Vec<f64>,
    /// By index into `times`.
    histograms: Vec<(u32, FloatHistogram)>,
}

impl Raw {
    /// With the newest sample up to `max` alone, which is what a core may hand out.
    fn newest(&self, max: i64) -> Raw {
        let end = self.times.partition_point(|time| *time <= max);
        let range = end.saturating_sub(1)..end;
        let histograms = self.histograms.iter();
        let newest = histograms.filter(|(at, _)| range.contains(&(*at as usize)));
        Raw {
            labels: self.labels.clone(),
            histograms: newest.map(|(_, h)| (0, h.clone())).collect(),
            times: self.times[range.clone()].to_vec(),
            values: self.values[range].to_vec(),
        }
    }

    /// With what lies in windows alone, which is what a block may hand out.
    fn within(&self, windows: &Windows) -> Raw {
        let places = (0..self.times.len()).filter(|at| windows.contains(self.times[*at]));
        let places: Vec<usize> = places.collect();
        let histogram = |(now, at): (usize, &usize)| {
            let found = self.histograms.iter().find(|(of, _)| *of as usize == *at);
            found.map(|(_, histogram)| (now as u32, histogram.clone()))
        };
        Raw {
            labels: self.labels.clone(),
            times: places.iter().map(|at| self.times[*at]).collect(),
            values: places.iter().map(|at| self.values[*at]).collect(),
            histograms: places.iter().enumerate().filter_map(histogram).collect(),
        }
    }
}

#[derive(Clone, Default)]
struct Data(Vec<Arc<Raw>>);

impl Data {
    fn with(mut self, labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Data {
        self.0.push(Arc::new(Raw {
            labels: Labels::from_pairs(labels.iter().copied()).unwrap(),
            times: samples.iter().map(|s| s.0).collect(),
            values: samples.iter().map(|s| s.1).collect(),
            histograms: Vec::new(),
        }));
        self
    }

    fn reference(&self) -> Reference<'_> {
        let inputs = self.0.iter().map(|raw| Input {
            labels: &raw.labels,
            times: &raw.times,
            values: &raw.values,
            histograms: &raw.histograms,
        });
        Reference {
            series: inputs.collect(),
        }
    }
}

/// For every selector its projected labels and series.
struct Selected(Vec<Vec<(Labels, Arc<Raw>)>>);

impl Selected {
    fn new(data: &Data, plan: &Plan) -> Selected {
        let mut selected = Vec::new();
        for selector in plan.selectors() {
            let mut series: Vec<(Labels, Arc<Raw>)> = Vec::new();
            for raw in &data.0 {
                let passes = |m: &model::Matcher| m.matches(raw.labels.get(m.name()).unwrap_or(""));
                if selector.matchers.iter().all(passes) {
                    let mut raw = Arc::clone(raw);
                    if selector.newest {
                        raw = Arc::new(raw.newest(selector.max_time));
                    }
                    if let Some(windows) = &selector.windows {
                        raw = Arc::new(raw.within(windows));
                        if raw.times.is_empty() {
                            // A block does not even find it.
                            continue;
                        }
                    }
                    series.push((raw.labels.clone(), raw));
                }
            }
            series.sort_by(|a, b| a.0.cmp(&b.0));
            for (labels, _) in &mut series {
                *labels = selector.projection.apply(labels);
            }
            selected.push(series);
        }
        Selected(selected)
    }
}

impl Source for Selected {
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
        let raw = &self.0[selector][series].1;
        let mut histograms = raw.histograms.iter().peekable();
        for (at, (time, value)) in raw.times.iter().zip(&raw.values).enumerate() {
            let histogram = histograms.next_if(|(index, _)| *index as usize == at);
            if (min..=max).contains(time) {
                if let Some((_, histogram)) = histogram {
                    out.histograms
                        .push((out.times.len() as u32, histogram.clone()));
                }
                out.times.push(*time);
                out.values.push(*value);
            }
        }
        Ok(())
    }
}

/// Real threads, so that pieces do run side by side.
struct Threads(usize);

impl Executor for Threads {
    fn width(&self) -> usize {
        self.0
    }

    fn run(&self, count: usize, piece: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= count {
                            break;
                        }
                        piece(index);
                    }
                });
            }
        });
    }

    fn run_shards(&self, count: usize, shard: &Shard<'_>) {
        self.run(count, &|n| shard(n, &Inline));
    }
}

const SAMPLES_MAX: u64 = 1_000_000;

fn run_on(
    data: &Data,
    text: &str,
    params: Params,
    executor: &dyn Executor,
    samples_max: u64,
) -> Result<Evaluated, Error> {
    let plan = plan(&parse(text)?, &params)?.with_text(text);
    let canceled = AtomicBool::new(false);
    let budget = Budget::new(samples_max, &|| false, &canceled);
    evaluate(&plan, &Selected::new(data, &plan), executor, &budget)
}

fn run(data: &Data, text: &str, params: Params) -> Result<Evaluated, Error> {
    run_on(data, text, params, &Inline, SAMPLES_MAX)
}

/// Counters and gauges with gaps, a reset, staleness and all kinds of labels.
fn mixed() -> Data {
    let mut data = Data::default();
    for (i, name) in ["foo", "bar:baz", "node_cpu_total"].into_iter().enumerate() {
        for (j, (a, job)) in [("a", "x"), ("b", "x"), ("", "y"), ("a", "y")]
            .into_iter()
            .enumerate()
        {
            let k = (i * 4 + j) as i64;
            let samples: Vec<(i64, f64)> = (0..120)
                .filter(|n| (n * 7 + k) % 11 != 0)
                .map(|n| {
                    let value = match (n + k) % 40 {
                        13 => f64::NAN,
                        39 => stale_nan(),
                        phase => phase as f64 * (k + 1) as f64 - 3.0,
                    };
                    (n * 15_000 + k * 997, value)
                })
                .collect();
            data = data.with(
                &[("__name__", name), ("a", a), ("job", job), ("le", "1")],
                &samples,
            );
        }
    }
    data
}

#[test]
fn samples_are_counted_as_prometheus_counts_them() {
    let mut data = Data::default();
    for i in 0..6 {
        let i = i.to_string();
        data = data.with(
            &[("__name__", "x"), ("i", &i)],
            &[(0, 1.0), (10_000, 2.0), (20_000, 3.0)],
        );
    }
    let total = |text: &str, params| run(&data, text, params).unwrap().stats.total_samples;
    assert_eq!(total("sum(x)", Params::instant(20_000)), 6);
    assert_eq!(total("sum(x)", Params::range(0, 20_000, 10_000)), 18);
    assert_eq!(
        total("count_over_time(x[30s])", Params::instant(20_000)),
        18
    );
    assert_eq!(total("x + x", Params::instant(20_000)), 12);
    // What a subquery computes is counted when it is looked at, not when it is computed.
    assert_eq!(
        total("max_over_time(x[20s:10s])", Params::instant(20_000)),
        12
    );
    let peak = run(&data, "sum(x)", Params::range(0, 20_000, 10_000))
        .unwrap()
        .stats
        .peak_samples;
    assert!((18..=24).contains(&peak), "{peak}");
}

#[test]
fn a_query_stops_at_its_bounds() {
    let data = mixed();
    let params = Params::range(0, 1_800_000, 1_000);
    let error = run_on(&data, "{__name__=~'.+'}", params, &Inline, 1_000).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooManySamples {
                samples_max: 1_000,
                ..
            }
        ),
        "{error}"
    );
    for hostile in [
        "vector(1)[100y:1ms]",
        "max_over_time(foo[200000m:1m])",
        "max_over_time({le='1'}[200000m:1m])",
    ] {
        let outcome = run(&data, hostile, Params::instant(1_800_000));
        let stopped = matches!(outcome, Err(Error::TooManySamples { .. }));
        // One sparse column is within bounds, twelve are not.
        assert_eq!(stopped, !hostile.contains("foo"), "{hostile}");
    }

    let plan = plan(&parse("foo").unwrap(), &params).unwrap();
    let selected = Selected::new(&data, &plan);
    for (expired, canceled) in [(true, false), (false, true)] {
        let flag = AtomicBool::new(canceled);
        let late = move || expired;
        let budget = Budget::new(SAMPLES_MAX, &late, &flag);
        let error = evaluate(&plan, &selected, &Inline, &budget).unwrap_err();
        assert_eq!(matches!(error, Error::Timeout), expired);
        assert_eq!(matches!(error, Error::Canceled), canceled);
    }
}

#[test]
fn extreme_times_give_an_answer_or_an_error_and_never_overflow() {
    let data = mixed();
    let queries = [
        "foo",
        "foo offset 290y",
        "foo offset -290y",
        "foo @ 9e15",
        "foo @ -9e15",
        "foo @ 9223372036854775 offset -290y",
        "rate(foo[290y])",
        "rate(foo[5m] smoothed)",
        "rate(foo[290y] anchored)",
        "max_over_time(foo[290y:290y])",
        "max_over_time(foo[290y:289y] offset 290y)",
        "sum_over_time(max_over_time(foo[290y:100y])[290y:100y] @ -9e15)",
        "timestamp(foo offset -290y)",
        "time() + minute() + year() + day_of_year()",
        "predict_linear(foo[290y], 1e300)",
        "absent_over_time(foo[5m] @ 9e15)",
        "foo[step()]",
        "foo offset range()",
        "info(foo offset 290y)",
    ];
    let times = [
        i64::MIN,
        i64::MIN / 2,
        -1,
        0,
        600_000,
        i64::MAX / 2,
        i64::MAX - 1,
        i64::MAX,
    ];
    for query in queries {
        for time in times {
            let _ = run(&data, query, Params::instant(time));
            for step in [1, i64::MAX / 3, i64::MAX] {
                for end in [time, time.saturating_add(step)] {
                    let _ = run(&data, query, Params::range(time, end, step));
                }
            }
        }
        let whole = Params::range(i64::MIN, i64::MAX, i64::MAX);
        let _ = run(&data, query, whole);
        assert!(run(&data, query, Params::range(i64::MIN, i64::MAX, 1)).is_err());
    }
    assert!(run(&data, "foo", Params::range(1, 0, 1)).is_err());
    assert!(run(&data, "foo", Params::range(0, 1, -1)).is_err());
}

#[test]
fn the_longest_chains_of_operators_need_little_stack() {
    let chains = [
        format!("foo{}", " + foo".repeat(999)),
        format!("foo{}", " + 1".repeat(999)),
        format!("foo{}", " + 1 - foo".repeat(499)),
        format!("1{}", " + foo".repeat(999)),
        format!("foo{}", " or foo".repeat(999)),
        format!("{}foo{}", "(".repeat(120), " + foo)".repeat(120)),
        format!("{}foo{}", "abs(-".repeat(60), ")".repeat(60)),
        format!("{}foo{}", "foo + (".repeat(60), ")".repeat(60)),
    ];
    let data = mixed();
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(move || {
            for chain in &chains {
                let result = run(&data, chain, Params::instant(600_000));
                result.unwrap_or_else(|error| panic!("{}: {error}", &chain[..40]));
                assert!(parse(chain).unwrap().to_string().starts_with(&chain[..1]));
            }
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn absence_over_time_within_an_expression_is_absence() {
    // Found against a real Prometheus: as part of a larger row program its windows were taken for the result.
    let data = Data::default().with(&[("__name__", "x")], &[(0, 1.0)]);
    let count =
        |text: &str, time| table(run(&data, text, Params::instant(time)).unwrap().value).len();
    for text in [
        "absent_over_time(x[1m])",
        "floor(absent_over_time(x[1m]))",
        "absent_over_time(x[1m]) * 2",
        "sum(absent_over_time(x[1m]))",
        "topk(1, absent_over_time(x[1m]))",
    ] {
        assert_eq!(
            (count(text, 30_000), count(text, 600_000)),
            (0, 1),
            "{text}"
        );
    }
}

#[test]
fn duplicates_are_errors_only_where_they_meet() {
    let data = Data::default()
        .with(
            &[("__name__", "one"), ("x", "a")],
            &[(0, 1.0), (10_000, stale_nan())],
        )
        .with(&[("__name__", "one"), ("x", "b")], &[(10_000, 2.0)])
        .with(&[("__name__", "many")], &[(0, 5.0), (10_000, 6.0)]);
    let fine = run(&data, "many * on() one", Params::range(0, 10_000, 10_000)).unwrap();
    let QueryValue::Matrix(series) = fine.value else {
        panic!("a matrix")
    };
    assert_eq!(
        series[0].floats,
        [
            FloatPoint { t: 0, v: 5.0 },
            FloatPoint { t: 10_000, v: 12.0 }
        ]
    );
    let data = data.with(&[("__name__", "one"), ("x", "c")], &[(10_000, 3.0)]);
    let error = run(&data, "many * on() one", Params::range(0, 10_000, 10_000)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "found duplicate series for the match group {} on the right hand-side of the operation: [{__name__=\"one\", x=\"b\"}, {__name__=\"one\", x=\"c\"}];many-to-many matching not allowed: matching labels must be unique on one side"
    );
    assert!(
        run(&data, "one * on() many", Params::instant(10_000))
            .unwrap_err()
            .to_string()
            .contains("must be explicit")
    );
    run(
        &data,
        "one * on() group_left() many",
        Params::instant(10_000),
    )
    .unwrap();
    assert!(
        run(
            &data,
            "one * on(nope) group_left(x) many",
            Params::instant(10_000)
        )
        .unwrap_err()
        .to_string()
        .contains("grouping labels must ensure unique matches")
    );
}

#[test]
fn fills_stand_in_for_partners_that_miss() {
    let data = Data::default()
        .with(&[("__name__", "a"), ("x", "1")], &[(0, 1.0)])
        .with(&[("__name__", "a"), ("x", "2")], &[(0, 2.0)])
        .with(&[("__name__", "b"), ("x", "2")], &[(0, 20.0)])
        .with(&[("__name__", "b"), ("x", "3")], &[(0, 30.0)]);
    let values = |text: &str| -> Vec<(String, f64)> {
        let QueryValue::Vector(series) = run(&data, text, Params::instant(0)).unwrap().value else {
            panic!("a vector")
        };
        let mut values: Vec<(String, f64)> = series
            .iter()
            .map(|s| (s.labels.get("x").unwrap_or("").to_owned(), float(s)))
            .collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        values
    };
    let pairs = |p: &[(&str, f64)]| -> Vec<(String, f64)> {
        p.iter().map(|(x, v)| ((*x).to_owned(), *v)).collect()
    };
    assert_eq!(values("a + b"), pairs(&[("2", 22.0)]));
    assert_eq!(
        values("a - fill(0) b"),
        pairs(&[("1", 1.0), ("2", -18.0), ("3", -30.0)])
    );
    assert_eq!(
        values("a - fill_right(5) b"),
        pairs(&[("1", -4.0), ("2", -18.0)])
    );
    assert_eq!(
        values("a - fill_left(5) b"),
        pairs(&[("2", -18.0), ("3", -25.0)])
    );
    assert_eq!(values("a - fill(0) nope"), pairs(&[("1", 1.0), ("2", 2.0)]));
}

fn float(sample: &InstantSample) -> f64 {
    match &sample.value {
        SeriesValue::Float(v) => *v,
        SeriesValue::Histogram(_) => panic!("no histograms here"),
    }
}

/// Series by labels, points by time, values by bits.
type Table = Vec<(String, Vec<(i64, u64)>)>;

fn table(value: QueryValue) -> Table {
    let mut table: Table = match value {
        QueryValue::Matrix(series) => series
            .iter()
            .map(|s| {
                let points = s.floats.iter().map(|p| (p.t, p.v.to_bits())).collect();
                (s.labels.to_string(), points)
            })
            .collect(),
        QueryValue::Vector(series) => series
            .iter()
            .map(|s| (s.labels.to_string(), vec![(s.t, float(s).to_bits())]))
            .collect(),
        other => panic!("{other:?} is no vector"),
    };
    table.sort();
    table
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The point of columns is that many steps are computed at once; so each must be what the instant query gives.
    #[test]
    fn every_step_of_a_range_is_the_instant_query_at_its_time(
        text in generated::vector(), start in 0..900_000i64, step in prop_oneof![1_000..90_000i64, 60_000..500_000i64], count in 1..6i64,
        lookback_ms in prop_oneof![Just(300_000i64), 1_000..60_000i64],
    ) {
        let data = mixed();
        let params = Params { lookback_ms, ..Params::range(start, start + step * (count - 1), step) };
        // `start()` and `end()` mean something else in an instant query.
        let text = text.replace("start()", "300").replace("end()", "900");
        let whole = run(&data, &text, params);
        let mut points: std::collections::BTreeMap<String, Vec<(i64, u64)>> = Default::default();
        let mut failed = false;
        for time in (0..count).map(|i| start + step * i) {
            match run(&data, &text, Params { lookback_ms, ..Params::instant(time) }) {
                Ok(instant) => {
                    for (labels, found) in table(instant.value) {
                        points.entry(labels).or_default().extend(found);
                    }
                }
                Err(_) => failed = true,
            }
        }
        match whole {
            Ok(whole) => {
                prop_assert!(!failed, "{}: only single steps failed", text);
                let expected: Table = points.into_iter().collect();
                prop_assert_eq!(table(whole.value), expected, "{}", text);
            }
            Err(error) => prop_assert!(failed, "{}: only the range failed: {}", text, error),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_engine_and_a_naive_evaluator_agree(text in generated::vector(), time in 0..1_900_000i64) {
        let data = mixed();
        let text = text.replace("start()", "300").replace("end()", "900");
        let reference = data.reference();
        // Naive, so subqueries within subqueries would take minutes.
        if text.matches("h:").count() > 1 {
            return Ok(());
        }
        let expected = reference.evaluate(&parse(&text).unwrap(), time);
        agree(&text, expected, run(&data, &text, Params::instant(time)))?;
    }
}

/// Whether the engine's answer to an instant query is the reference's.
fn agree(
    text: &str,
    expected: Result<Vec<(String, Datum)>, Failure>,
    found: Result<Evaluated, Error>,
) -> Result<(), TestCaseError> {
    if matches!(expected, Err(Failure::Unknown)) {
        return Ok(());
    }
    prop_assert_eq!(
        found.is_err(),
        expected.is_err(),
        "{}: {:?} {:?}",
        text,
        found,
        expected
    );
    let (Ok(found), Ok(expected)) = (found, expected) else {
        return Ok(());
    };
    let QueryValue::Vector(series) = found.value else {
        panic!("a vector")
    };
    let mut got: Vec<(String, Datum)> = series
        .iter()
        .map(|s| (s.labels.to_string(), datum(s)))
        .collect();
    got.sort_by(|a, b| a.0.cmp(&b.0));
    prop_assert_eq!(
        got.len(),
        expected.len(),
        "{}: {:?} {:?}",
        text,
        got,
        expected
    );
    for (got, want) in got.iter().zip(&expected) {
        prop_assert_eq!(&got.0, &want.0, "{}", text);
        let same = match (&got.1, &want.1) {
            // Sums are compensated in the engine only.
            (Datum::Float(got), Datum::Float(want)) => {
                (got - want).abs() <= 1e-9 * want.abs().max(1e-9)
                    || got == want
                    || (got.is_nan() && want.is_nan())
            }
            (Datum::Histogram(got), Datum::Histogram(want)) => got.same(want, 1e-9),
            _ => false,
        };
        prop_assert!(same, "{}: {:?} {:?}", text, got, want);
    }
    Ok(())
}

fn datum(sample: &InstantSample) -> Datum {
    match &sample.value {
        SeriesValue::Float(value) => Datum::Float(*value),
        SeriesValue::Histogram(histogram) => Datum::Histogram(Hist::of(histogram)),
    }
}

#[test]
fn threads_change_nothing() {
    let mut data = Data::default();
    for i in 0..1_000 {
        let (pod, node) = (format!("p{i}"), format!("n{}", i % 7));
        let samples: Vec<(i64, f64)> = (0..40)
            .map(|n| (n * 15_000, ((i * 31 + n * 17) % 101) as f64 * 0.1))
            .collect();
        data = data.with(
            &[("__name__", "m_total"), ("node", &node), ("pod", &pod)],
            &samples,
        );
    }
    let params = Params::range(60_000, 600_000, 30_000);
    for text in [
        "m_total",
        "sum by (node) (rate(m_total[2m]))",
        "avg(m_total)",
        "stddev by (node) (m_total * 2)",
        "quantile(0.9, m_total)",
        "topk by (node) (2, m_total)",
        "count_values('v', m_total)",
        "m_total / on(pod) group_left() m_total",
    ] {
        let one = run_on(&data, text, params, &Inline, u64::MAX).unwrap();
        let four = run_on(&data, text, params, &Threads(4), u64::MAX).unwrap();
        assert_eq!(table(one.value), table(four.value), "{text}");
        assert_eq!(one.stats.total_samples, four.stats.total_samples);
    }
}

/// What Prometheus counts: a selector's samples at every step, a window's samples at every step that sees them, what stands below an `@`
/// at every step although it is looked at once.
#[test]
fn samples_are_counted_for_each_step_and_add_up_to_the_total() {
    let samples: Vec<(i64, f64)> = (0..10).map(|n| (n * 60_000, n as f64)).collect();
    let data = Data::default().with(&[("__name__", "m")], &samples);
    for (text, wanted) in [
        ("m", vec![1, 1, 1]),
        ("sum_over_time(m[2m])", vec![2, 2, 2]),
        ("m @ 0 + m", vec![2, 2, 2]),
        ("sum_over_time(m[4m] @ 600)", vec![3, 3, 3]),
        ("max_over_time(m[4m:1m])", vec![4, 4, 4]),
        ("1", vec![0, 0, 0]),
    ] {
        let params = Params::range(300_000, 420_000, 60_000);
        let plan = plan(&parse(text).unwrap(), &params).unwrap();
        let canceled = AtomicBool::new(false);
        let budget = Budget {
            per_step: true,
            ..Budget::new(SAMPLES_MAX, &|| false, &canceled)
        };
        let source = Selected::new(&data, &plan);
        let evaluated = evaluate(&plan, &source, &Inline, &budget).unwrap();
        assert_eq!(evaluated.per_step, wanted, "{text}");
        let total: u64 = wanted.iter().sum();
        assert_eq!(evaluated.stats.total_samples, total, "{text}");
    }
}

#[test]
fn memory_is_asked_for_before_it_is_held_and_a_refusal_ends_the_query() {
    let samples: Vec<(i64, f64)> = (0..10).map(|n| (n * 60_000, n as f64)).collect();
    let data = Data::default().with(&[("__name__", "m")], &samples);
    let params = Params::range(0, 1_000_000, 1);
    let plan = plan(&parse("m + 1").unwrap(), &params).unwrap();
    let canceled = AtomicBool::new(false);
    for (most, fits) in [(100 << 20, true), (10 << 20, false)] {
        let taken = std::sync::atomic::AtomicU64::new(0);
        let memory =
            |more| taken.fetch_add(more, std::sync::atomic::Ordering::Relaxed) + more <= most;
        let budget = Budget {
            memory: &memory,
            ..Budget::new(SAMPLES_MAX * 10, &|| false, &canceled)
        };
        let source = Selected::new(&data, &plan);
        let result = evaluate(&plan, &source, &Inline, &budget);
        match fits {
            true => assert!(result.is_ok() && taken.into_inner() >= 8_000_000),
            false => assert!(matches!(result, Err(Error::TooMuchMemory { .. }))),
        }
    }
}

#[test]
fn a_plan_explains_itself_and_a_profile_tells_what_its_nodes_cost() {
    let samples: Vec<(i64, f64)> = (0..10).map(|n| (n * 60_000, n as f64)).collect();
    let data = Data::default().with(&[("__name__", "m")], &samples);
    let text = "sum by (a) (rate(m[5m])) / scalar(m @ 60)";
    let params = Params::range(300_000, 420_000, 60_000);
    let plan = plan(&parse(text).unwrap(), &params)
        .unwrap()
        .with_text(text);
    let tree = plan.explain();
    assert_eq!((tree.kind, tree.detail.as_str()), ("binary", "/"));
    let sum = &tree.children[0];
    assert_eq!(
        (sum.kind, sum.detail.as_str()),
        ("aggregation", "sum by (a)")
    );
    assert_eq!(sum.children[0].children[0].selector, Some(0));
    assert!(tree.children[1].once && !sum.once);
    let canceled = AtomicBool::new(false);
    let clock = || std::time::Duration::from_secs(1);
    let profile = Profile::new(&clock, plan.selectors().len());
    let budget = Budget {
        profile: Some(&profile),
        ..Budget::new(SAMPLES_MAX, &|| false, &canceled)
    };
    evaluate(&plan, &Selected::new(&data, &plan), &Inline, &budget).unwrap();
    let cost = profile.node(sum.span).unwrap();
    assert_eq!((cost.series, cost.points, cost.evaluations), (1, 3, 1));
    assert_eq!(profile.node(sum.children[0].span), None, "part of the sum");
    assert_eq!(profile.selector(0).series, 1);
    assert!(profile.selector(0).samples > 0);
}
