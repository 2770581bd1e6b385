//! Random data with native histograms, random queries over them: the engine against the naive evaluator, a range against its instants and
//! against its parts, one thread against four.

use std::collections::BTreeMap;

use model::{CUSTOM_BUCKETS_SCHEMA, CounterReset, STALE_NAN_BITS, Span};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Scrapes of 15 s.
const SCRAPES: i64 = 80;

/// Widths of zero buckets: bounds of buckets at all resolutions here, so that no bucket is cut and the order of a sum does not matter.
const WIDTHS: [f64; 3] = [0.0625, 0.0625, 0.25];
const SCHEMAS: [i32; 4] = [1, 1, 0, 3];
const BOUNDS: [&[f64]; 4] = [
    &[0.5, 1.0, 10.0],
    &[0.5, 1.0, 10.0],
    &[1.0, 2.0, 10.0],
    &[-1.0, 1.0, 10.0],
];

/// What a series is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nature {
    pub(super) custom: bool,
    pub(super) gauge: bool,
    /// Floats among the histograms.
    pub(super) floats: bool,
    /// Counts are quarters rather than whole.
    pub(super) quarters: bool,
}

/// Where a counter stands: counts by index of the bucket, which cross resolutions by being made anew.
#[derive(Clone)]
struct Counter {
    layout: (i32, f64, &'static [f64]),
    zero: f64,
    sum: f64,
    positive: BTreeMap<i32, f64>,
    negative: BTreeMap<i32, f64>,
}

impl Counter {
    fn new(rng: &mut StdRng, custom: bool) -> Counter {
        Counter {
            layout: match custom {
                true => (CUSTOM_BUCKETS_SCHEMA, 0.0, BOUNDS[rng.random_range(0..4)]),
                false => (
                    SCHEMAS[rng.random_range(0..4)],
                    WIDTHS[rng.random_range(0..3)],
                    &[],
                ),
            },
            zero: 0.0,
            sum: 0.0,
            positive: BTreeMap::new(),
            negative: BTreeMap::new(),
        }
    }

    fn observe(&mut self, rng: &mut StdRng, unit: f64) {
        let custom = self.layout.0 == CUSTOM_BUCKETS_SCHEMA;
        for _ in 0..rng.random_range(0..4) {
            let count = f64::from(rng.random_range(1..9)) * unit;
            self.sum += count;
            match rng.random_range(0..6) {
                0 if !custom => self.zero += count,
                1 if !custom => {
                    *self.negative.entry(rng.random_range(0..5)).or_default() += count;
                }
                _ => {
                    let index = rng.random_range(0..if custom { 4 } else { 9 });
                    *self.positive.entry(index).or_default() += count;
                }
            }
        }
    }

    fn histogram(&self, counter_reset: CounterReset) -> FloatHistogram {
        let side = |buckets: &BTreeMap<i32, f64>| {
            let mut next = 0;
            let spans = buckets.keys().map(|index| {
                let offset = index - next;
                next = index + 1;
                Span { offset, length: 1 }
            });
            (spans.collect(), buckets.values().copied().collect())
        };
        let (positive_spans, positive_counts): (_, Vec<f64>) = side(&self.positive);
        let (negative_spans, negative_counts): (_, Vec<f64>) = side(&self.negative);
        let counts = positive_counts.iter().chain(&negative_counts);
        FloatHistogram {
            counter_reset,
            schema: self.layout.0,
            zero_threshold: self.layout.1,
            zero_count: self.zero,
            count: self.zero + counts.sum::<f64>(),
            sum: self.sum,
            positive_spans,
            positive_counts,
            negative_spans,
            negative_counts,
            custom_values: self.layout.2.to_vec(),
        }
    }
}

pub(super) fn series(rng: &mut StdRng, labels: Labels, nature: Nature) -> Raw {
    let mut raw = Raw {
        labels,
        times: Vec::new(),
        values: Vec::new(),
        histograms: Vec::new(),
    };
    let jitter = rng.random_range(0..9_000);
    let unit = if nature.quarters { 0.25 } else { 1.0 };
    let mut counter = Counter::new(rng, nature.custom);
    let mut float = 0.0;
    for n in 0..SCRAPES {
        let mut says = match nature.gauge {
            true => CounterReset::Gauge,
            false => CounterReset::Unknown,
        };
        match rng.random_range(0..40) {
            0 | 1 => continue,
            2 => counter = Counter::new(rng, nature.custom),
            3 => {
                let layout = counter.layout;
                counter = Counter::new(rng, nature.custom);
                counter.layout = layout;
                says = CounterReset::Yes;
            }
            _ => {}
        }
        if nature.gauge && rng.random_range(0..3) == 0 {
            let layout = counter.layout;
            counter = Counter::new(rng, nature.custom);
            counter.layout = layout;
        }
        counter.observe(rng, unit);
        float = match rng.random_range(0..20) {
            0 => 0.0,
            _ => float + f64::from(rng.random_range(0..5)),
        };
        let (stale, is_float) = (
            rng.random_range(0..30) == 0,
            nature.floats && rng.random_range(0..3) == 0,
        );
        if !is_float {
            let mut histogram = counter.histogram(says);
            if stale {
                histogram = FloatHistogram {
                    sum: f64::from_bits(STALE_NAN_BITS),
                    ..FloatHistogram::default()
                };
            }
            raw.histograms.push((raw.times.len() as u32, histogram));
        }
        raw.times.push(n * 15_000 + jitter);
        raw.values.push(if stale { stale_nan() } else { float });
    }
    raw
}

fn random(seed: u64) -> Data {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut data = Data::default();
    for (i, name) in ["foo", "bar", "baz"].into_iter().enumerate() {
        for (j, (a, job)) in [("a", "x"), ("b", "x"), ("", "y"), ("a", "y")]
            .into_iter()
            .enumerate()
        {
            let labels = Labels::from_pairs([("__name__", name), ("a", a), ("job", job)]).unwrap();
            let nature = Nature {
                custom: i == 1 || i == 2 && j == 0,
                gauge: j == 3 || rng.random_range(0..8) == 0,
                floats: i == 2 || rng.random_range(0..6) == 0,
                quarters: j == 2,
            };
            data.0.push(Arc::new(series(&mut rng, labels, nature)));
        }
    }
    data
}

fn query() -> impl Strategy<Value = String> {
    let selector = prop_oneof![
        Just("foo"),
        Just("bar"),
        Just("baz"),
        Just("foo{job=\"x\"}"),
        Just("bar{a=\"a\"}"),
        Just("{a=\"b\"}"),
        Just("{job=\"y\"}"),
        Just("{__name__=~\"fo+|baz\"}"),
    ];
    let shift = prop_oneof![
        6 => Just(""),
        1 => Just(" offset 1m"),
        1 => Just(" offset -47s"),
        1 => Just(" @ 600"),
    ];
    let leaf = (selector.clone(), shift.clone()).prop_map(|(s, shift)| format!("{s}{shift}"));
    leaf.prop_recursive(4, 16, 3, move |inner| {
        let ranged = prop_oneof![
            3 => (selector.clone(), 20..400u32, shift.clone())
                .prop_map(|(s, n, shift)| format!("{s}[{n}s]{shift}")),
            1 => (inner.clone(), 2..6u32, shift.clone())
                .prop_map(|(s, n, shift)| format!("({s})[{n}m:50s]{shift}")),
        ];
        let range_function = prop::sample::select(vec![
            "rate",
            "increase",
            "delta",
            "irate",
            "idelta",
            "resets",
            "changes",
            "sum_over_time",
            "avg_over_time",
            "count_over_time",
            "present_over_time",
            "first_over_time",
            "last_over_time",
            "ts_of_first_over_time",
            "ts_of_last_over_time",
            "min_over_time",
            "max_over_time",
            "stddev_over_time",
            "deriv",
        ]);
        let function = prop::sample::select(vec![
            "abs",
            "sqrt",
            "-",
            "+",
            "histogram_count",
            "histogram_sum",
            "histogram_avg",
            "histogram_stddev",
            "histogram_stdvar",
            "histogram_quantile(0.31731, ",
            "histogram_quantile(0.86371, ",
            "histogram_fraction(0.3, 1.7, ",
        ]);
        let aggregation = prop::sample::select(vec![
            "sum", "sum", "avg", "count", "group", "min", "max", "stddev", "stdvar",
        ]);
        let by = prop::sample::select(vec![
            "",
            " by (job)",
            " by (a)",
            " without (a)",
            " by (__name__)",
        ]);
        let operator = prop::sample::select(vec![
            "+", "-", "*", "/", "==", "!=", ">", "== bool", "!= bool", "<= bool", ">/", "</", "^",
        ]);
        let number = prop::sample::select(vec!["2", "-1.5", "0.25", "3"]);
        let matching = prop::sample::select(vec![
            "",
            "ignoring (__name__)",
            "on (a, job)",
            "on (job, a) group_left ()",
            "on (job) group_left (a)",
            "on (job) group_right ()",
        ]);
        let set = prop::sample::select(vec!["and", "or", "unless"]);
        let on = prop::sample::select(vec!["", "on (a)", "ignoring (job)", "on (a, job)"]);
        prop_oneof![
            4 => (range_function, ranged).prop_map(|(f, e)| format!("{f}({e})")),
            3 => (function, inner.clone()).prop_map(|(f, e)| match f.contains('(') {
                true => format!("{f}{e})"),
                false => format!("{f}({e})"),
            }),
            4 => (aggregation, by, inner.clone())
                .prop_map(|(op, by, e)| format!("{op}{by} ({e})")),
            2 => (inner.clone(), operator.clone(), number.clone())
                .prop_map(|(e, op, n)| format!("(({e}) {op} {n})")),
            1 => (inner.clone(), operator.clone(), number)
                .prop_map(|(e, op, n)| format!("({n} {op} ({e}))")),
            4 => (inner.clone(), operator, matching, inner.clone())
                .prop_map(|(a, op, m, b)| format!("(({a}) {op} {m} ({b}))")),
            2 => (inner.clone(), set, on, inner)
                .prop_map(|(a, op, on, b)| format!("(({a}) {op} {on} ({b}))")),
        ]
    })
}

/// Samples by series and time; floats and histograms as text that tells their bits.
type Points = BTreeMap<(String, i64), String>;

fn points(value: QueryValue) -> Points {
    let histogram = |h: &FloatHistogram| format!("{h:?}");
    let float = |v: f64| format!("{v:?}");
    let mut points = Points::new();
    match value {
        QueryValue::Vector(samples) => {
            for s in &samples {
                let text = match &s.value {
                    SeriesValue::Float(v) => float(*v),
                    SeriesValue::Histogram(h) => histogram(h),
                };
                assert_eq!(points.insert((s.labels.to_string(), s.t), text), None);
            }
        }
        QueryValue::Matrix(series) => {
            for s in &series {
                let floats = s.floats.iter().map(|p| (p.t, float(p.v)));
                let histograms = s.histograms.iter().map(|p| (p.t, histogram(&p.h)));
                for (t, text) in floats.chain(histograms) {
                    assert_eq!(points.insert((s.labels.to_string(), t), text), None);
                }
            }
        }
        other => panic!("{other:?} is no vector"),
    }
    points
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_engine_and_a_naive_evaluator_agree_about_histograms(
        text in query(), seed in any::<u64>(), time in 100_000..1_400_000i64,
    ) {
        let data = random(seed);
        // Naive, so subqueries within subqueries would take minutes.
        if text.matches(":50s").count() > 2 {
            return Ok(());
        }
        let expected = data.reference().evaluate(&parse(&text).unwrap(), time);
        agree(&text, expected, run(&data, &text, Params::instant(time)))?;
    }

    #[test]
    fn a_range_over_histograms_is_its_instants_its_parts_and_the_same_on_four_threads(
        text in query(), seed in any::<u64>(), start in 100_000..900_000i64, step in 1_000..90_000i64, count in 2..8i64, cut in 1..8i64,
    ) {
        let data = random(seed);
        let params = |from: i64, until: i64| {
            Params::range(start + step * from, start + step * (until - 1), step)
        };
        let whole = run(&data, &text, params(0, count)).map(|found| points(found.value));
        let four = run_on(&data, &text, params(0, count), &Threads(4), SAMPLES_MAX)
            .map(|found| points(found.value));
        prop_assert_eq!(
            whole.as_ref().ok(), four.as_ref().ok(), "four threads: {}", text
        );
        // Names are dropped late. A series that has its name from one side of `or` at some steps and is about to lose it on the other side
        // at others is one series in a range, two in instants; in Prometheus as well.
        if text.contains(" or ") {
            return Ok(());
        }
        let cut = cut.min(count - 1);
        let parts: Vec<Params> = vec![params(0, cut), params(cut, count)];
        let instants = (0..count).map(|i| Params::instant(start + step * i)).collect();
        for pieces in [parts, instants] {
            let mut joined = Some(Points::new());
            for piece in pieces {
                match (run(&data, &text, piece), &mut joined) {
                    (Ok(found), Some(joined)) => joined.extend(points(found.value)),
                    _ => joined = None,
                }
            }
            prop_assert_eq!(whole.as_ref().ok(), joined.as_ref(), "{}", text);
        }
    }
}

/// The laws above would hold of nothing as well.
#[test]
fn most_generated_queries_are_known_to_the_naive_evaluator_and_many_have_histograms() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut known, mut with_histograms) = (0, 0);
    for seed in 0..200 {
        let text = query().new_tree(&mut runner).unwrap().current();
        let data = random(seed);
        if text.matches(":50s").count() > 2 {
            continue;
        }
        if let Ok(found) = data.reference().evaluate(&parse(&text).unwrap(), 900_000) {
            known += 1;
            let histogram = |(_, datum): &(String, Datum)| matches!(datum, Datum::Histogram(_));
            with_histograms += usize::from(found.iter().any(histogram));
        }
    }
    assert!(
        known > 100 && with_histograms > 30,
        "{known} {with_histograms}"
    );
}

#[test]
fn samples_that_do_not_go_together_are_no_match_too_many() {
    // Found by the law above: a histogram and a float on the left had one partner, a histogram, which can be added to one of them only.
    let mut data = Data::default()
        .with(&[("__name__", "a"), ("i", "1")], &[(0, 1.0)])
        .with(&[("__name__", "a"), ("i", "2")], &[(0, 2.0)])
        .with(&[("__name__", "b"), ("i", "1")], &[(0, 3.0)]);
    let mut histogram = |name: &str, i: &str| {
        let mut rng = StdRng::seed_from_u64(7);
        data.0.push(Arc::new(Raw {
            labels: Labels::from_pairs([("__name__", name), ("i", i)]).unwrap(),
            times: vec![0],
            values: vec![0.0],
            histograms: vec![(0, Counter::new(&mut rng, false).histogram(CounterReset::No))],
        }));
    };
    histogram("a", "3");
    histogram("c", "1");
    let count = |text: &str| {
        let found = run(&data, text, Params::instant(0)).map_err(|error| error.to_string())?;
        Ok(points(found.value).len())
    };
    assert_eq!(count("a + on () c"), Ok(1));
    assert_eq!(count("a{i=~'1|3'} + on () b"), Ok(1));
    assert!(count("a + on () b").is_err_and(|e: String| e.contains("must be explicit")));
    // One that has only such partners has none, so the value given for that comes in; a number and a histogram can be multiplied only.
    assert_eq!(count("a{i='1'} + on () fill_left (5) c"), Ok(0));
    assert_eq!(count("a{i='3'} + on () fill_left (5) b"), Ok(1));
}
