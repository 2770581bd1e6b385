//! Reading where windows are looked at: what lies in them is the same as when all is read, and what lies in none is not touched.

use std::ops::Range;

use ::model::{Labels, TenantId, TimeRange, Windows};
use chunk::HistogramAppender;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Content, build, info, options};
use crate::values::tests::DECODED;
use crate::{Block, Coding, Effort, FileKind, FoundRun, Gone, Index, Memory, Run, Source};

const SEEDS: u64 = 300;

/// Times as they come: on time, about on time, with gaps, rare.
fn random_times(rng: &mut SmallRng) -> Vec<i64> {
    let count = match rng.random_range(0..4) {
        0 => 1,
        1 => rng.random_range(1..9000),
        _ => rng.random_range(1..500),
    };
    let interval = [1, 10, 15, 60][rng.random_range(0..4)];
    let (jitter, gaps) = (rng.random_bool(0.3), rng.random_bool(0.3));
    let mut time = rng.random_range(-2000..2000);
    let mut times = Vec::new();
    for _ in 0..count {
        let late = match jitter {
            true => rng.random_range(0..interval),
            false => 0,
        };
        times.push(time + late);
        time += interval;
        if gaps && rng.random_bool(0.01) {
            time += rng.random_range(0..5000);
        }
    }
    times
}

/// A series for each way that values are kept; the names say nothing of it.
fn random_values(rng: &mut SmallRng, count: usize) -> Vec<f64> {
    let mut level = rng.random_range(-100_000i64..100_000);
    let kind = rng.random_range(0..8);
    let words: Vec<f64> = (0..3).map(|_| f64::from_bits(rng.random())).collect();
    let (mut speed, mut sum) = (0i64, 0.0f64);
    let mut next = |rng: &mut SmallRng| match kind {
        0 => level as f64,
        1 => rng.random_range(0..4000) as f64 / 100.0,
        2 => {
            level += rng.random_range(0..50);
            level as f64
        }
        3 => {
            speed += rng.random_range(-1..=1);
            level += speed;
            level as f64 / 10.0
        }
        4 => words[rng.random_range(0..3)],
        5 => f64::from_bits(rng.random()),
        6 => {
            sum += f64::from(rng.random::<u32>()).sqrt();
            sum
        }
        _ => 1.0 + rng.random_range(0..1000) as f64 * f64::EPSILON,
    };
    let odd = rng.random_bool(0.3);
    (0..count)
        .map(|_| match odd && rng.random_bool(0.01) {
            true => ::model::stale_nan(),
            false => next(rng),
        })
        .collect()
}

fn random_range(rng: &mut SmallRng) -> TimeRange {
    let step = match rng.random_range(0..3) {
        0 => rng.random_range(2..100),
        1 => rng.random_range(100..5000),
        _ => rng.random_range(5000..200_000),
    };
    let end = rng.random_range(-300_000..300_000);
    let width = rng.random_range(1..step);
    let width = match rng.random() {
        true => width,
        false => width.min(rng.random_range(1..50)),
    };
    let (min, max) = match rng.random_range(0..3) {
        0 => (i64::MIN, i64::MAX),
        1 => (rng.random_range(-2000..5000), i64::MAX),
        _ => (
            rng.random_range(-2000..5000),
            rng.random_range(-2000..100_000),
        ),
    };
    TimeRange {
        min,
        max,
        windows: Windows::new(end, step, width),
    }
}

fn is_in(range: &TimeRange, time: i64) -> bool {
    (range.min..=range.max).contains(&time) && range.windows.is_none_or(|w| w.contains(time))
}

fn opened(bytes: Vec<u8>) -> (Memory, Index) {
    let mut source = Memory::new("test", bytes);
    let block = Block::open(&mut source).unwrap();
    let index = block.index(&mut source, &TenantId::fake()).unwrap();
    (source, index.unwrap())
}

fn found(index: &Index, source: &mut dyn Source, range: &TimeRange) -> Vec<FoundRun> {
    let all: Vec<u32> = (0..index.series_count()).collect();
    let mut runs = Vec::new();
    let each = &mut |run| runs.push(run);
    let held = index.runs(source, 1, &all, range, &mut |_| true, each);
    assert!(held.unwrap().is_some());
    runs
}

/// Series, time and value of each sample that is handed out.
fn decoded(runs: &[FoundRun], range: &TimeRange, gone: &Gone) -> Vec<(u32, i64, u64)> {
    let mut samples = Vec::new();
    for found in runs {
        let run = found.run.clone().without(&gone.clone().into());
        let decoded = run.decode(range, &mut |run| match run {
            Run::Floats { times, values } => {
                assert!(!times.is_empty() && times.len() == values.len());
                let bits = values.iter().map(|v| v.to_bits());
                let of_series = times.iter().zip(bits).map(|(t, v)| (found.series, *t, v));
                samples.extend(of_series);
            }
            Run::Sealed(sealed) => {
                let (mut times, mut values) = (Vec::new(), Vec::new());
                let (min, max) = (i64::MIN, i64::MAX);
                chunk::decode_histograms(sealed.bytes, min, max, &mut times, &mut values).unwrap();
                samples.extend(times.into_iter().map(|t| (found.series, t, 0)));
            }
        });
        decoded.unwrap();
    }
    samples
}

#[test]
fn what_is_read_of_windows_is_what_lies_in_them() {
    let mut codings: Vec<Coding> = Vec::new();
    let (mut inside, mut handed, mut all) = (0, 0, 0);
    for seed in 0..SEEDS {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let mut content = Content::default();
        let mut times = random_times(rng);
        for n in 0..rng.random_range(1..5) {
            let labels = Labels::from_pairs([("n", n.to_string())]).unwrap();
            if rng.random() {
                times = random_times(rng);
            }
            for (&time, value) in times.iter().zip(random_values(rng, times.len())) {
                content.put(&labels, time, value);
            }
            if rng.random_bool(0.2) {
                let mut appender = HistogramAppender::for_kind_of(&histogram());
                let from = rng.random_range(-3000..100_000);
                (0..5).for_each(|i| appender.append(from + i * 30, &histogram()));
                let sealed = (from, from + 120, 5, appender.seal());
                content.sealed.insert(labels, vec![sealed]);
            }
        }
        let effort = [Effort::Fast, Effort::Best][rng.random_range(0..2)];
        let page = [500, 16 << 10][rng.random_range(0..2)];
        let info = info(5, FileKind::Block, 1);
        let (bytes, built) = build(&[("fake", &content)], info, options(page, effort));
        codings.extend(built.codings.keys());
        let (mut source, index) = opened(bytes);
        let gone = match rng.random() {
            true => Gone::default(),
            false => {
                let from = rng.random_range(-2000..5000);
                Gone::of_spans(vec![(from, from + rng.random_range(0..3000))])
            }
        };
        let runs = found(&index, &mut source, &TimeRange::ALL);
        let whole = decoded(&runs, &TimeRange::ALL, &gone);
        for _ in 0..8 {
            let range = random_range(rng);
            let mut expected = whole.clone();
            expected.retain(|(_, time, _)| is_in(&range, *time));
            let runs = found(&index, &mut source, &range);
            let mut read = decoded(&runs, &range, &gone);
            handed += read.len();
            read.retain(|(_, time, _)| is_in(&range, *time));
            assert_eq!(read, expected, "seed {seed}, {range:?}");
            inside += expected.len();
            all += whole.len();
            for run in runs {
                assert!(range.overlaps(run.min_time, run.max_time), "seed {seed}");
            }
        }
    }
    codings.sort_unstable();
    codings.dedup();
    assert_eq!(codings.len(), 7, "all of {codings:?}");
    assert!(inside > 1000 && handed < all / 2, "{inside} {handed} {all}");
}

fn histogram() -> ::model::HistogramSample {
    ::model::HistogramSample::Int(::model::Histogram::default())
}

/// Counts the bytes that are read.
struct Counting(Memory, u64);

impl Source for Counting {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, crate::Error> {
        self.1 += ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum::<u64>();
        self.0.read(ranges)
    }
}

#[test]
fn runs_and_pages_that_no_window_touches_cost_nothing() {
    let mut content = Content::default();
    // 60 runs of 4,096 seconds.
    let count = 60 * crate::RUN_SAMPLES_MAX as i64;
    let labels = Labels::from_pairs([("n", "1")]).unwrap();
    let rng = &mut SmallRng::seed_from_u64(1);
    for time in 0..count {
        content.put(&labels, time * 1000, rng.random());
    }
    let info = info(5, FileKind::Block, 1);
    let (bytes, _) = build(&[("fake", &content)], info, options(16 << 10, Effort::Fast));
    let (source, index) = opened(bytes);
    let mut source = Counting(source, 0);
    let mut measure = |range: TimeRange| {
        source.1 = 0;
        let runs = found(&index, &mut source, &range);
        let before = DECODED.get();
        let samples = decoded(&runs, &range, &Gone::default());
        (runs.len(), DECODED.get() - before, samples.len(), source.1)
    };
    let (runs, unpacked, samples, read) = measure(TimeRange::ALL);
    assert_eq!((unpacked, samples as i64), (runs as u64, count));
    let range = |end, step, width| TimeRange {
        windows: Windows::new(end, step, width),
        ..TimeRange::ALL
    };
    // So far apart that what lies between is not read along.
    let (some, unpacked, samples, less) = measure(range(30_000_000, 60_000_000, 60_000));
    assert_eq!(samples, 4 * 60, "four windows in 68 hours");
    assert_eq!((some, unpacked), (4, 4), "of {runs} runs");
    assert!(less < read / 3, "{less} of {read} bytes");
    // Windows between two samples: the runs are found, and then nothing of them is unpacked.
    let (some, unpacked, samples, _) = measure(range(30_000_500, 60_000_000, 400));
    assert_eq!((some, unpacked, samples), (4, 0, 0));
    let nothing = measure(range(-1, i64::MAX, 1000));
    assert_eq!((nothing.0, nothing.1, nothing.3), (0, 0, 0));
}
