//! Random files against maps: what is written is read, selected and merged as a `BTreeMap` would.

use std::collections::BTreeMap;

use ::model::{FloatHistogram, Histogram, HistogramSample, Labels, MatchOp, Matcher, TenantId};
use chunk::HistogramAppender;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Content, Sealed, build, info, options};
use crate::{
    Block, Builder, Drops, Effort, FileKind, Index, Input, Memory, Run, Source, Tombstone, merge,
    verify,
};

const SEEDS: u64 = 120;

fn random_labels(rng: &mut SmallRng, variety: u32) -> Labels {
    let names = ["__name__", "job", "le", "pod", "Zone"];
    let mut pairs = Vec::new();
    for name in names {
        if rng.random_bool(0.7) {
            pairs.push((name, format!("v{}", rng.random_range(0..variety))));
        }
    }
    Labels::from_pairs(pairs).unwrap()
}

fn random_value(rng: &mut SmallRng) -> f64 {
    match rng.random_range(0..7) {
        0 => f64::from_bits(rng.random()),
        1 => ::model::stale_nan(),
        2 => -0.0,
        3 => rng.random_range(-1000..1000) as f64 / 100.0,
        _ => rng.random_range(0..50) as f64,
    }
}

fn random_content(rng: &mut SmallRng, variety: u32) -> Content {
    let mut content = Content::default();
    for _ in 0..rng.random_range(0..60) {
        let labels = random_labels(rng, variety);
        let regular = rng.random_bool(0.5);
        let constant = rng.random_bool(0.3);
        let value = random_value(rng);
        let start = rng.random_range(0..1000);
        for i in 0..rng.random_range(1..60) {
            let time = if regular {
                start + i * 15
            } else {
                rng.random_range(0..2000)
            };
            let value = if constant { value } else { random_value(rng) };
            content.put(&labels, time, value);
        }
        if rng.random_bool(0.1) {
            let labels = match rng.random() {
                true => random_labels(rng, variety),
                false => labels,
            };
            let mut chunks = Vec::new();
            let mut time = rng.random_range(0..500);
            for _ in 0..rng.random_range(1..4) {
                let count = rng.random_range(1..20);
                let times: Vec<i64> = (0..count)
                    .map(|_| {
                        time += rng.random_range(1..90);
                        time
                    })
                    .collect();
                chunks.push(histograms(&times, rng));
            }
            content.sealed.insert(labels, chunks);
        }
    }
    // A series has a float or a histogram at a time.
    let mut taken = Vec::new();
    for_each_sample(&content, &mut |labels, time, told| {
        if !matches!(told, Told::Float(_)) {
            taken.push((labels.clone(), time));
        }
    });
    for (labels, time) in taken {
        if let Some(samples) = content.floats.get_mut(&labels) {
            samples.remove(&time);
        }
    }
    content.floats.retain(|_, samples| !samples.is_empty());
    content
}

/// A sealed chunk of histograms, told apart by their counts; of floats now and then.
fn histograms(times: &[i64], rng: &mut SmallRng) -> Sealed {
    let float = rng.random_bool(0.3);
    let histogram = |count: u32| match float {
        false => HistogramSample::Int(Histogram {
            count: u64::from(count),
            ..Histogram::default()
        }),
        true => HistogramSample::Float(FloatHistogram {
            count: f64::from(count),
            ..FloatHistogram::default()
        }),
    };
    let mut appender = HistogramAppender::for_kind_of(&histogram(0));
    for &time in times {
        appender.append(time, &histogram(rng.random()));
    }
    let (first, last) = (appender.first_time(), appender.last_time());
    (first, last, times.len() as u64, appender.seal())
}

/// A sample in a few bits: a float's, or the count of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Float(u64),
    Int(u64),
    Floats(u64),
}

/// All samples of a content, one after the other; histograms of their chunks.
fn for_each_sample(content: &Content, each: &mut dyn FnMut(&Labels, i64, Told)) {
    for (labels, samples) in &content.floats {
        for (&time, &bits) in samples {
            each(labels, time, Told::Float(bits));
        }
    }
    for (labels, chunks) in &content.sealed {
        for (_, _, count, bytes) in chunks {
            let (mut times, mut decoded) = (Vec::new(), Vec::new());
            chunk::decode_histograms(bytes, i64::MIN, i64::MAX, &mut times, &mut decoded).unwrap();
            assert_eq!(times.len() as u64, *count);
            for (time, histogram) in times.into_iter().zip(decoded) {
                let told = match histogram {
                    HistogramSample::Int(histogram) => Told::Int(histogram.count),
                    HistogramSample::Float(histogram) => Told::Floats(histogram.count.to_bits()),
                };
                each(labels, time, told);
            }
        }
    }
}

fn random_matcher(rng: &mut SmallRng) -> Matcher {
    let name = ["__name__", "job", "le", "pod", "Zone", "absent"][rng.random_range(0..6)];
    let op = [
        MatchOp::Equal,
        MatchOp::NotEqual,
        MatchOp::Regex,
        MatchOp::NotRegex,
    ][rng.random_range(0..4)];
    let value =
        ["v1", "v2|v3", "v.*", "", ".+", "v[0-3]", "nothing", "v4|"][rng.random_range(0..8)];
    Matcher::new(op, name, value).unwrap()
}

fn check_queries(
    rng: &mut SmallRng,
    source: &mut dyn Source,
    index: &mut Index,
    content: &Content,
) {
    let series = content.series();
    for _ in 0..12 {
        let matchers: Vec<Matcher> = (0..rng.random_range(0..4))
            .map(|_| random_matcher(rng))
            .collect();
        let passes = |labels: &Labels| {
            matchers
                .iter()
                .all(|m| m.matches(labels.get(m.name()).unwrap_or("")))
        };
        let expected: Vec<Labels> = series.iter().filter(|l| passes(l)).cloned().collect();
        let selected = index.select(source, &matchers).unwrap();
        assert_eq!(
            index.labels(source, &selected).unwrap(),
            expected,
            "{matchers:?}"
        );
        let (min, max) = (rng.random_range(-10..1500), rng.random_range(0..2500));
        let mut found = Content::default();
        index
            .read(source, &selected, (min, max), &mut |number, run| {
                found.take(&series[number as usize], &run);
            })
            .unwrap();
        let mut wanted = Content::default();
        for labels in &expected {
            let samples = content.floats.get(labels).into_iter().flatten();
            for (&time, &bits) in samples.filter(|&(&t, _)| min <= t && t <= max) {
                wanted.put(labels, time, f64::from_bits(bits));
            }
            if let Some(sealed) = content.sealed.get(labels) {
                let overlaps = |c: &Sealed| c.0 <= max && c.1 >= min;
                let some: Vec<_> = sealed.iter().filter(|&c| overlaps(c)).cloned().collect();
                if !some.is_empty() {
                    wanted.sealed.insert(labels.clone(), some);
                }
            }
        }
        assert_eq!(found, wanted, "{matchers:?} {min}..={max}");
    }
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for labels in &series {
        for (name, value) in labels.iter() {
            values
                .entry(name.to_owned())
                .or_default()
                .push(value.to_owned());
        }
    }
    let names: Vec<String> = values.keys().cloned().collect();
    assert_eq!(index.label_names(source).unwrap(), names);
    for (name, mut all) in values {
        all.sort();
        all.dedup();
        assert_eq!(index.label_values(source, &name).unwrap(), all);
    }
    assert!(index.label_values(source, "absent").unwrap().is_empty());
}

#[test]
fn a_file_answers_as_a_map_does() {
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(seed);
        let contents: Vec<Content> = (0..3).map(|_| random_content(&mut rng, 6)).collect();
        let tenants: Vec<(&str, &Content)> = ["a", "b", "c"].into_iter().zip(&contents).collect();
        let effort = [Effort::Fast, Effort::Best][rng.random_range(0..2)];
        // From a page for every run to one page for all.
        let page_bytes = 1 << rng.random_range(0..14);
        let written = info(u128::from(seed), FileKind::Cut, 1);
        let (bytes, built) = build(&tenants, written, options(page_bytes, effort));
        let mut source = Memory::new("model", bytes);
        let block = Block::open(&mut source).unwrap();
        assert_eq!(*block.meta(), built.meta);
        let verified = verify(&mut source).unwrap();
        assert_eq!(verified.codings, built.codings, "seed {seed}");
        for (tenant, content) in tenants {
            let tenant = TenantId::new(tenant).unwrap();
            assert_eq!(
                Content::read(&mut source, &tenant).unwrap(),
                *content,
                "seed {seed}"
            );
            let index = block.index(&mut source, &tenant).unwrap();
            assert_eq!(index.is_none(), content.series().is_empty());
            if let Some(mut index) = index {
                check_queries(&mut rng, &mut source, &mut index, content);
            }
        }
    }
}

#[test]
fn a_merge_holds_what_its_inputs_held_the_later_logged_winning() {
    let mut replaced = 0;
    let (mut dropped, mut opened) = (0, 0);
    for seed in 0..SEEDS {
        let mut rng = SmallRng::seed_from_u64(1000 + seed);
        let tenant = TenantId::fake();
        let count = rng.random_range(1..6);
        let contents: Vec<Content> = (0..count).map(|_| random_content(&mut rng, 2)).collect();
        let keep_from = rng.random_bool(0.3).then(|| rng.random_range(0..800));
        let tombstones: Vec<Tombstone> = (0..rng.random_range(0..3))
            .map(|_| {
                let min_time = rng.random_range(0..1500);
                Tombstone {
                    matchers: vec![random_matcher(&mut rng)],
                    min_time,
                    max_time: min_time + rng.random_range(0..500),
                    order: rng.random_range(0..7),
                }
            })
            .collect();
        let mut expected: BTreeMap<Labels, BTreeMap<i64, Told>> = BTreeMap::new();
        let mut files = Vec::new();
        for (order, content) in contents.iter().enumerate() {
            let order = order as u64 + 1;
            let mut here: BTreeMap<(Labels, i64), Told> = BTreeMap::new();
            for_each_sample(content, &mut |labels, time, told| {
                let deleted = tombstones.iter().any(|t| {
                    order < t.order
                        && (t.min_time..=t.max_time).contains(&time)
                        && t.matchers
                            .iter()
                            .all(|m| m.matches(labels.get(m.name()).unwrap_or("")))
                });
                if !deleted && keep_from.is_none_or(|from| time >= from) {
                    let series = expected.entry(labels.clone()).or_default();
                    series.insert(time, told);
                    let twice = here.insert((labels.clone(), time), told);
                    assert!(twice.is_none(), "a file has a time once");
                }
            });
            let written = info(u128::from(order), FileKind::Cut, order);
            let page_bytes = 1 << rng.random_range(0..14);
            let (bytes, _) = build(
                &[("fake", content)],
                written,
                options(page_bytes, Effort::Fast),
            );
            files.push(Memory::new("input", bytes));
        }
        let mut inputs: Vec<Input<'_>> = files
            .iter_mut()
            .filter_map(|file| Input::open(file, &tenant).unwrap())
            .collect();
        if rng.random() {
            inputs.reverse();
        }
        let drops = Drops {
            keep_from,
            tombstones,
        };
        let written = info(99, FileKind::Block, count);
        let mut builder = Builder::new(written, options(2000, Effort::Best)).unwrap();
        builder.tenant(&tenant).unwrap();
        let merged = merge(&mut inputs, &drops, &mut builder, &mut |_, _| Ok(())).unwrap();
        builder.finish();
        let mut source = Memory::new("merged", builder.take());
        let verified = verify(&mut source).unwrap();
        assert_eq!(
            (verified.series, verified.samples),
            (merged.series, merged.samples)
        );
        let read = Content::read(&mut source, &tenant).unwrap();
        let mut found: BTreeMap<Labels, BTreeMap<i64, Told>> = BTreeMap::new();
        for_each_sample(&read, &mut |labels, time, told| {
            let twice = found.entry(labels.clone()).or_default().insert(time, told);
            assert!(twice.is_none(), "seed {seed}: {labels} has {time} twice");
        });
        assert_eq!(found, expected, "seed {seed}");
        opened += read.sealed.len();
        replaced += merged.replaced;
        dropped += merged.dropped;
    }
    assert!(replaced > 100 && dropped > 100, "{replaced} {dropped}");
    assert!(opened > 100, "{opened} series of histograms");
}

#[test]
fn sealed_chunks_pass_a_merge_as_they_are_and_twice_is_once() {
    let labels = super::labels(&[("__name__", "h")]);
    let file = |order: u64, chunks: &[(i64, i64, u64, u8)]| {
        let mut content = Content::default();
        let chunks = chunks
            .iter()
            .map(|&(a, b, n, byte)| (a, b, n, vec![byte; 9]));
        content.sealed.insert(labels.clone(), chunks.collect());
        let written = info(u128::from(order), FileKind::Cut, order);
        let (bytes, _) = build(&[("fake", &content)], written, options(1, Effort::Fast));
        Memory::new("input", bytes)
    };
    let mut files = [
        file(1, &[(0, 9, 3, 1), (10, 19, 3, 2)]),
        file(2, &[(10, 19, 3, 2), (30, 39, 2, 4)]),
    ];
    let mut inputs: Vec<Input<'_>> = files
        .iter_mut()
        .filter_map(|file| Input::open(file, &TenantId::fake()).unwrap())
        .collect();
    let mut builder =
        Builder::new(info(9, FileKind::Block, 2), options(100, Effort::Best)).unwrap();
    builder.tenant(&TenantId::fake()).unwrap();
    let drops = Drops {
        keep_from: Some(10),
        tombstones: Vec::new(),
    };
    let merged = merge(&mut inputs, &drops, &mut builder, &mut |_, _| Ok(())).unwrap();
    assert_eq!((merged.samples, merged.replaced, merged.dropped), (5, 3, 3));
    builder.finish();
    let mut source = Memory::new("merged", builder.take());
    let block = Block::open(&mut source).unwrap();
    let index = block
        .index(&mut source, &TenantId::fake())
        .unwrap()
        .unwrap();
    let mut starts = Vec::new();
    index
        .read(&mut source, &[0], (0, 100), &mut |_, run| match run {
            Run::Sealed(sealed) => starts.push((sealed.min_time, sealed.bytes[0])),
            Run::Floats { .. } => panic!("there are none"),
        })
        .unwrap();
    assert_eq!(starts, [(10, 2), (30, 4)]);
}
