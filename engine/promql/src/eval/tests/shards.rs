//! Queries in shards: the same bits, notes, counts and errors as in one.

use std::sync::Mutex;

use model::RangeSeries;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::histograms::{Nature, series};
use super::*;
use crate::Shards;

/// Several hundred series, so that there are pieces to be cut otherwise: floats of all kinds, buckets, native histograms; labels that are
/// missing here and there, and names that do not differ in anything else.
fn random(rng: &mut StdRng) -> Data {
    let mut data = Data::default();
    for name in ["m_total", "n", "o_bucket"] {
        for i in 0..rng.random_range(60..160usize) {
            let mut pairs = vec![("__name__", name.to_owned()), ("i", (i / 3).to_string())];
            pairs.push(("z", (i % 3).to_string()));
            for (label, values, missing) in [("a", 3, 9), ("b", 7, 5), ("job", 4, 12)] {
                if rng.random_range(0..missing) > 0 {
                    pairs.push((label, format!("v{}", rng.random_range(0..values))));
                }
            }
            if name == "o_bucket" {
                let le = ["0.1", "1", "10", "+Inf", "x"].choose(rng).unwrap();
                pairs.push(("le", (*le).to_owned()));
            }
            let labels = Labels::from_pairs(pairs.iter().map(|(n, v)| (*n, v.as_str()))).unwrap();
            if rng.random_range(0..12) == 0 {
                let nature = Nature {
                    custom: rng.random_range(0..2) == 0,
                    gauge: rng.random_range(0..3) == 0,
                    floats: rng.random_range(0..4) == 0,
                    quarters: true,
                };
                data.0.push(Arc::new(series(rng, labels, nature)));
                continue;
            }
            let (gaps, offset) = (rng.random_range(1..30), rng.random_range(0..15_000));
            let mut level = 0.0;
            let mut samples = Vec::new();
            for n in 0..60 {
                level = match rng.random_range(0..60) {
                    0 => 0.0,
                    1 => f64::NAN,
                    2 => f64::INFINITY,
                    3 => 1e300,
                    _ if !f64::is_finite(level) => 0.3,
                    // Tenths: sums depend on how they are put together.
                    _ => level + rng.random_range(-2.0..9.0) * 0.1,
                };
                match rng.random_range(0..30) {
                    0 => samples.push((n * 15_000 + offset, stale_nan())),
                    k if k % gaps == 0 && gaps > 3 => {}
                    _ => samples.push((n * 15_000 + offset, level)),
                }
            }
            data.0.push(Arc::new(Raw {
                labels,
                times: samples.iter().map(|s| s.0).collect(),
                values: samples.iter().map(|s| s.1).collect(),
                histograms: Vec::new(),
            }));
        }
    }
    data
}

/// Most of them can be divided; many cannot by a hair.
fn query(rng: &mut StdRng, depth: usize) -> String {
    let pick = |rng: &mut StdRng, choices: &[&'static str]| *choices.choose(rng).unwrap();
    let selector = |rng: &mut StdRng| {
        pick(
            rng,
            &[
                "m_total",
                "n",
                "o_bucket",
                "{__name__=~'m_total|n'}",
                "n{a!='v1'}",
                "m_total{b=~'v[0-4]'}",
                "{a='v2'}",
            ],
        )
    };
    let shift = |rng: &mut StdRng| {
        pick(
            rng,
            &[
                "",
                "",
                "",
                "",
                " offset 1m",
                " offset -40s",
                " @ 500",
                " @ end()",
            ],
        )
    };
    if depth == 0 {
        return format!("{}{}", selector(rng), shift(rng));
    }
    let inner = |rng: &mut StdRng| {
        let less = rng.random_range(0..depth);
        query(rng, less)
    };
    let grouping = [
        "by (a)",
        "by (a, b)",
        "by (job, a)",
        "by (i)",
        "by (b, i, __name__)",
        "by (le, a)",
        "without (i)",
        "without (z)",
        "without (a, z, le)",
        "without (nothing)",
        "by (nothing)",
        "",
    ];
    let on = [
        "on (a)",
        "on (a, b)",
        "on (i, z)",
        "on (i)",
        "on (a, __name__)",
        "ignoring (z)",
        "ignoring (a, le)",
        "ignoring (i)",
        "",
        "on ()",
    ];
    match rng.random_range(0..17) {
        0..5 => {
            let op = pick(
                rng,
                &[
                    "sum",
                    "sum",
                    "avg",
                    "avg",
                    "count",
                    "group",
                    "min",
                    "max",
                    "stddev",
                    "stdvar",
                    "topk(2,",
                    "bottomk(1,",
                    "limitk(2,",
                    "limit_ratio(0.4,",
                    "quantile(0.7,",
                    "count_values('v',",
                    "count_values('a',",
                    "topk(scalar(n{i='1',z='1'}),",
                ],
            );
            let (op, open) = match op.split_once('(') {
                Some((op, rest)) => (op, format!("({rest} ")),
                None => (op, "(".to_owned()),
            };
            format!("{op} {} {open}{})", pick(rng, &grouping), inner(rng))
        }
        5..8 => {
            let op = pick(
                rng,
                &[
                    "+", "-", "*", "/", "^", ">", "==", "!= bool", "<= bool", "and", "or", "unless",
                ],
            );
            let matching = pick(rng, &on);
            let is_set = ["and", "or", "unless"].contains(&op);
            let more = match is_set || matching.is_empty() {
                true => "",
                false => pick(
                    rng,
                    &[
                        "",
                        "group_left ()",
                        "group_left (job)",
                        "group_right (b)",
                        "group_left (x)",
                        "fill (0)",
                        "fill_left (1) fill_right (2)",
                    ],
                ),
            };
            format!("({} {op} {matching} {more} {})", inner(rng), inner(rng))
        }
        8..11 => {
            let function = pick(
                rng,
                &[
                    "rate",
                    "increase",
                    "sum_over_time",
                    "avg_over_time",
                    "max_over_time",
                    "last_over_time",
                    "deriv",
                    "count_over_time",
                ],
            );
            match rng.random_range(0..3) {
                0 => format!(
                    "{function}(({})[{}m:50s]{})",
                    inner(rng),
                    rng.random_range(1..4),
                    shift(rng)
                ),
                _ => format!(
                    "{function}({}[{}s]{})",
                    selector(rng),
                    rng.random_range(20..200),
                    shift(rng)
                ),
            }
        }
        11 | 12 => {
            let function = pick(
                rng,
                &[
                    "histogram_quantile(0.9, ",
                    "histogram_fraction(0, 2, ",
                    "histogram_quantiles(",
                    "sort(",
                    "sort_desc(",
                    "abs(",
                    "-(",
                    "timestamp(",
                    "histogram_sum(",
                    "hour(",
                    "absent(",
                    "sort_by_label(",
                ],
            );
            let more = match function {
                "histogram_quantiles(" => ", 'q', 0.5, 0.9",
                "sort_by_label(" => ", 'a'",
                _ => "",
            };
            format!("{function}{}{more})", inner(rng))
        }
        13 => {
            let rewrite = pick(
                rng,
                &[
                    "'a', '$1', 'b', '(.*)'",
                    "'z', 'same', '', ''",
                    "'x', '$1', 'a', 'v(.*)'",
                    "'__name__', 'q', '', ''",
                ],
            );
            format!("label_replace({}, {rewrite})", inner(rng))
        }
        14 => format!("label_join({}, 'j', '-', 'a', 'b')", inner(rng)),
        15 => {
            let scalar = pick(
                rng,
                &[
                    "* 2",
                    "> 1",
                    "> bool 1",
                    "+ time()",
                    "/ scalar(sum(n))",
                    "^ 0.5",
                ],
            );
            format!("({} {scalar})", inner(rng))
        }
        _ => {
            let more = pick(
                rng,
                &["vector(1)", "vector(0)", "info(n)", "absent(m_total)"],
            );
            format!("({} or {more})", inner(rng))
        }
    }
}

/// A number by its bits, and everything else as it is printed.
fn exact(series: &RangeSeries) -> String {
    let floats = series
        .floats
        .iter()
        .map(|p| format!("{}:{:x} ", p.t, p.v.to_bits()));
    let floats: String = floats.collect();
    let histogram = |p: &model::HistogramPoint| {
        let h = &p.h;
        let bits = |counts: &[f64]| counts.iter().map(|c| c.to_bits()).collect::<Vec<_>>();
        let counts = [
            bits(&h.positive_counts),
            bits(&h.negative_counts),
            bits(&[h.sum, h.count, h.zero_count]),
        ];
        format!("{}:{h:?}{counts:x?} ", p.t)
    };
    let histograms: String = series.histograms.iter().map(histogram).collect();
    format!("{} {floats}{histograms}", series.labels)
}

/// All that may not differ: series, notes, and samples looked at, by step too.
type Shown = (Vec<String>, [Vec<String>; 2], u64, Vec<u64>);

fn outcome(result: &Result<Evaluated, Error>) -> Result<Shown, String> {
    let found = result.as_ref().map_err(ToString::to_string)?;
    let QueryValue::Matrix(series) = &found.value else {
        panic!("a range query gives a matrix");
    };
    Ok((
        series.iter().map(exact).collect(),
        [found.warnings.clone(), found.infos.clone()],
        found.stats.total_samples,
        found.per_step.clone(),
    ))
}

fn in_shards(
    data: &Data,
    text: &str,
    params: Params,
    executor: &dyn Executor,
    (count, samples_max): (usize, u64),
) -> Result<Evaluated, Error> {
    let plan = plan(&parse(text)?, &params)?.with_text(text);
    let canceled = AtomicBool::new(false);
    let budget = Budget {
        shards: Shards {
            count,
            cells_min: 0,
        },
        per_step: true,
        ..Budget::new(samples_max, &|| false, &canceled)
    };
    evaluate(&plan, &Selected::new(data, &plan), executor, &budget)
}

/// One thread, which does the last shard first.
struct Backwards;

impl Executor for Backwards {
    fn width(&self) -> usize {
        2
    }

    fn run(&self, count: usize, piece: &(dyn Fn(usize) + Sync)) {
        (0..count).rev().for_each(piece);
    }

    fn run_shards(&self, count: usize, shard: &Shard<'_>) {
        (0..count).rev().for_each(|n| shard(n, self));
    }
}

#[test]
fn random_queries_in_shards_are_those_in_one_bit_for_bit() {
    let seed = std::env::var("SEED").map_or(0x5eed, |seed| seed.parse().unwrap());
    let queries = std::env::var("QUERIES").map_or(400, |count| count.parse().unwrap());
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut divided, mut failed, mut noted, mut found) = (0, 0, 0, 0);
    let mut data = random(&mut rng);
    for n in 0..queries {
        if n % 40 == 39 {
            data = random(&mut rng);
        }
        let depth = rng.random_range(1..5);
        let text = query(&mut rng, depth);
        // Subqueries within subqueries take minutes.
        if parse(&text).is_err() || text.matches(":50s").count() > 2 {
            continue;
        }
        let start = rng.random_range(60_000..600_000);
        let step = rng.random_range(1_000..60_000);
        let params = Params::range(start, start + step * rng.random_range(0..8), step);
        let whole = outcome(&in_shards(&data, &text, params, &Inline, (1, u64::MAX)));
        failed += usize::from(whole.is_err());
        noted += usize::from(whole.as_ref().is_ok_and(|w| !w.1.concat().is_empty()));
        for shards in [2, 3, 7, 16] {
            let executors: [&dyn Executor; 2] = [&Threads(3), &Backwards];
            let executor = executors[rng.random_range(0..2)];
            let result = in_shards(&data, &text, params, executor, (shards, u64::MAX));
            let is_divided = result.as_ref().is_ok_and(|found| found.shards > 1);
            divided += usize::from(is_divided);
            let outcome = outcome(&result);
            found += usize::from(is_divided && outcome.as_ref().is_ok_and(|o| !o.0.is_empty()));
            assert_eq!(
                outcome, whole,
                "SEED={seed}, query {n}: {shards} shards of {text} at {params:?}"
            );
        }
    }
    println!(
        "{divided} divided, {found} of them with a result; {failed} failed, {noted} with notes"
    );
    let least = queries / 20;
    assert!(divided > 4 * least && found > 2 * least && failed > least && noted > least);
}

/// Sums over what another operation gave are cut by group, whatever else is there.
#[test]
fn groups_of_any_size_are_folded_the_same_in_shards() {
    let mut data = Data::default();
    let mut add = |group: &str, i: usize| {
        let i_text = i.to_string();
        let labels = [("__name__", "m"), ("g", group), ("i", i_text.as_str())];
        let value = 0.1 * (i * 7919 % 1013) as f64 + 1e9 / (1.0 + i as f64);
        data.0.push(Arc::new(Raw {
            labels: Labels::from_pairs(labels).unwrap(),
            times: vec![0],
            values: vec![value],
            histograms: Vec::new(),
        }));
    };
    // Sizes around those of pieces, and the series of all groups mixed in their order.
    for i in 0..9_000 {
        add(["a", "b", "b", "c", "c", "c", "d"][i * 31 % 7], i);
    }
    (0..65).for_each(|i| add("e", i));
    (0..64).for_each(|i| add("f", i));
    add("g", 0);
    let params = Params::range(0, 60_000, 60_000);
    for op in ["sum", "avg", "stddev", "stdvar", "count", "topk by (g) (3,"] {
        for input in [
            "m",
            "m * ignoring() m",
            "max_over_time(m[1m:10s])",
            "(m or m)",
        ] {
            let text = match op.contains('(') {
                true => format!("{op} {input})"),
                false => format!("{op} by (g) ({input})"),
            };
            let whole = outcome(&in_shards(&data, &text, params, &Threads(2), (1, u64::MAX)));
            for count in [2, 5, 64] {
                let result = in_shards(&data, &text, params, &Threads(3), (count, u64::MAX));
                assert!(result.as_ref().unwrap().shards > 1);
                assert_eq!(outcome(&result), whole, "{text}");
            }
        }
    }
}

fn pods(count: usize) -> Data {
    let mut data = Data::default();
    for i in 0..count {
        let pod = format!("p{i}");
        let samples: Vec<(i64, f64)> = (0..20)
            .map(|n| (n * 15_000, (i * n as usize) as f64))
            .collect();
        for name in ["m_total", "limit"] {
            data = data.with(&[("__name__", name), ("pod", &pod)], &samples);
        }
    }
    data
}

#[test]
fn the_bounds_of_a_query_are_those_of_all_its_shards_together() {
    let data = pods(200);
    let params = Params::range(60_000, 240_000, 15_000);
    // What an operand needed is given back before the next one is evaluated.
    let text = ["max by (pod) (m_total)"; 6].join(" / on (pod) ");
    let text = &*text;
    let whole = in_shards(&data, text, params, &Backwards, (1, u64::MAX)).unwrap();
    let peak = whole.stats.peak_samples;
    for samples_max in [peak, peak - 1] {
        let in_one = in_shards(&data, text, params, &Backwards, (1, samples_max));
        for shards in [2, 16] {
            let result = in_shards(&data, text, params, &Backwards, (shards, samples_max));
            match &result {
                Ok(found) => {
                    assert!(found.stats.peak_samples <= samples_max && found.shards == shards);
                }
                Err(error) => assert!(matches!(error, Error::TooManySamples { .. }), "{error}"),
            }
        }
        assert_eq!(in_one.is_ok(), samples_max == peak);
    }
    // Far from enough for all, and enough for each.
    let least = peak / 2;
    let error = in_shards(&data, text, params, &Backwards, (16, least)).unwrap_err();
    assert!(matches!(error, Error::TooManySamples { samples_max, .. } if samples_max == least));
    // Memory is taken once for all of them, and what they hold is not more than in one.
    let taken = |count: usize| {
        let taken = Mutex::new(0);
        let memory = |bytes: u64| {
            *taken.lock().unwrap() += bytes;
            true
        };
        let plan = plan(&parse(text).unwrap(), &params).unwrap();
        let canceled = AtomicBool::new(false);
        let budget = Budget {
            memory: &memory,
            shards: Shards {
                count,
                cells_min: 0,
            },
            ..Budget::new(u64::MAX, &|| false, &canceled)
        };
        let found = evaluate(&plan, &Selected::new(&data, &plan), &Threads(4), &budget).unwrap();
        assert_eq!(found.shards, count);
        taken.into_inner().unwrap()
    };
    assert!(
        taken(16) <= taken(1) + 8 * 200 + 16 * 32,
        "{} {}",
        taken(16),
        taken(1)
    );
}

#[test]
fn a_query_that_is_too_small_or_has_nobody_to_help_is_not_divided() {
    let data = pods(100);
    let params = Params::range(60_000, 240_000, 15_000);
    let text = "sum by (pod) (m_total)";
    let shards = |executor: &dyn Executor, cells_min: u64| {
        let plan = plan(&parse(text).unwrap(), &params).unwrap();
        let canceled = AtomicBool::new(false);
        let budget = Budget {
            shards: Shards {
                count: 4,
                cells_min,
            },
            ..Budget::new(u64::MAX, &|| false, &canceled)
        };
        evaluate(&plan, &Selected::new(&data, &plan), executor, &budget)
            .unwrap()
            .shards
    };
    // 100 series at 13 steps.
    assert_eq!(shards(&Backwards, 650), 4);
    assert_eq!(shards(&Backwards, 1_300), 2);
    assert_eq!(shards(&Backwards, 1_301), 1);
    assert_eq!(shards(&Inline, 0), 1);
    // All series in one group: there is nothing to divide.
    let data = data.with(&[("__name__", "alone"), ("pod", "x")], &[(60_000, 1.0)]);
    let alone = in_shards(
        &data,
        "sum by (pod) (alone)",
        params,
        &Backwards,
        (4, u64::MAX),
    );
    assert_eq!(alone.unwrap().shards, 1);
}

#[test]
fn cancellation_and_the_deadline_end_all_shards() {
    let data = pods(300);
    let params = Params::range(60_000, 240_000, 15_000);
    let text = "sum by (pod) (m_total) * on (pod) limit";
    let plan = plan(&parse(text).unwrap(), &params).unwrap();
    let source = Selected::new(&data, &plan);
    let canceled = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    let late = || asked.fetch_add(1, Ordering::Relaxed) >= 30;
    let budget = Budget {
        shards: Shards {
            count: 8,
            cells_min: 0,
        },
        ..Budget::new(u64::MAX, &late, &canceled)
    };
    let error = evaluate(&plan, &source, &Threads(4), &budget).unwrap_err();
    assert!(matches!(error, Error::Timeout), "{error}");
    // None went on for long, and nothing was evaluated once more.
    assert!(asked.load(Ordering::Relaxed) < 30 + 8 * 2, "{asked:?}");
    let cancel = || {
        canceled.store(
            asked.fetch_add(1, Ordering::Relaxed) >= 100,
            Ordering::Relaxed,
        );
        false
    };
    let budget = Budget {
        shards: budget.shards,
        ..Budget::new(u64::MAX, &cancel, &canceled)
    };
    let error = evaluate(&plan, &source, &Threads(4), &budget).unwrap_err();
    assert!(matches!(error, Error::Canceled), "{error}");
}

/// A series whose data cannot be read, in a shard that is not the first: the error is that of the evaluation in one.
#[test]
fn a_failure_of_a_shard_is_that_of_the_query() {
    struct Damaged<'s>(&'s Selected, &'s [usize], AtomicUsize);
    impl Source for Damaged<'_> {
        fn count(&self, selector: usize) -> usize {
            self.0.count(selector)
        }
        fn labels(&self, selector: usize, series: usize) -> &Labels {
            self.0.labels(selector, series)
        }
        fn decode(
            &self,
            selector: usize,
            series: usize,
            min: i64,
            max: i64,
            out: &mut Columns,
        ) -> Result<(), SourceError> {
            self.2.fetch_add(1, Ordering::Relaxed);
            if self.1.contains(&series) {
                let (series, reason) = (model::SeriesId(series as u128), "torn".to_owned());
                return Err(SourceError { series, reason });
            }
            self.0.decode(selector, series, min, max, out)
        }
    }
    let data = pods(150);
    let params = Params::range(60_000, 240_000, 15_000);
    let plan = plan(&parse("sum by (pod) (m_total)").unwrap(), &params).unwrap();
    let selected = Selected::new(&data, &plan);
    let canceled = AtomicBool::new(false);
    let error = |damaged: &[usize], count: usize, executor: &dyn Executor| {
        let budget = Budget {
            shards: Shards {
                count,
                cells_min: 0,
            },
            ..Budget::new(u64::MAX, &|| false, &canceled)
        };
        let source = Damaged(&selected, damaged, AtomicUsize::new(0));
        let error = evaluate(&plan, &source, executor, &budget).unwrap_err();
        (error.to_string(), source.2.into_inner())
    };
    for damaged in [[149, 30], [7, 8], [64, 63]] {
        let whole = error(&damaged, 1, &Inline).0;
        for count in [2, 9] {
            assert_eq!(error(&damaged, count, &Backwards).0, whole);
            assert_eq!(error(&damaged, count, &Threads(4)).0, whole);
        }
    }
    // Each piece of the first shard fails at its first series and other shards do not begin; then each piece of all.
    let all: Vec<usize> = (0..150).collect();
    assert!(error(&all, 9, &Backwards).1 <= 3 + 3);
}

/// Two series of a shard that may not be matched at a step where the other side has series in other shards only.
#[test]
fn a_clash_is_judged_by_all_series() {
    let one = |name: &str, g: &str, x: &str, times: &[i64]| Raw {
        labels: Labels::from_pairs([("__name__", name), ("g", g), ("x", x)]).unwrap(),
        times: times.iter().map(|t| t * 60_000).collect(),
        values: vec![1.0; times.len()],
        histograms: Vec::new(),
    };
    let clash = |g: &str, left: &[i64]| {
        let mut data = Data::default();
        data.0.push(Arc::new(one("left", g, "1", left)));
        data.0.push(Arc::new(one("right", "20", "1", &[10])));
        data.0.push(Arc::new(one("right", "20", "2", &[10])));
        let params = Params::range(0, 900_000, 60_000);
        let text = "left * on (g) right";
        let run = |count| in_shards(&data, text, params, &Backwards, (count, u64::MAX));
        let whole = outcome(&run(1));
        for count in [2, 7, 16] {
            assert_eq!(outcome(&run(count)), whole);
        }
        whole.err()
    };
    for g in ["0", "1", "2", "20"] {
        // The left side has nothing when the right one is ambiguous.
        assert_eq!(clash(g, &[0]), None);
        let error = clash(g, &[10]).unwrap();
        assert!(error.contains("found duplicate series for the match group"));
    }
}

#[test]
fn buckets_that_fall_in_several_shards_are_one_note() {
    let mut data = Data::default();
    for pod in 0..40 {
        let pod = pod.to_string();
        for (le, count) in [("1", 5.0), ("2", 4.0), ("+Inf", 6.0)] {
            let labels = [("__name__", "x_bucket"), ("le", le), ("pod", &*pod)];
            data = data.with(&labels, &[(0, count)]);
        }
    }
    let params = Params::range(0, 120_000, 60_000);
    let text = "histogram_quantile(0.9, sum by (le, pod) (x_bucket))";
    let run = |count| in_shards(&data, text, params, &Backwards, (count, u64::MAX));
    let whole = outcome(&run(1));
    let infos = &whole.as_ref().unwrap().1[1];
    assert_eq!(infos.len(), 1);
    assert!(infos[0].contains("over 120 samples from"), "{infos:?}");
    let divided = run(8);
    assert_eq!(divided.as_ref().unwrap().shards, 8);
    assert_eq!(outcome(&divided), whole);
}
