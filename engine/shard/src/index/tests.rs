//! Claims about the head index: pairs, postings, matchers.

use std::collections::BTreeMap;

use model::{Labels, MatchOp, Matcher};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::resolve::Resolution;
use super::*;

fn set(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// Resolves and filters as the reads do, in slices of one value.
pub(crate) fn select(
    index: &mut Index,
    secret: &Secret,
    pairs_of: &BTreeMap<u32, Box<[PairId]>>,
    matchers: &[Matcher],
) -> Vec<u32> {
    let mut resolution = Resolution::new(index, secret, matchers.into());
    while !resolution.step(index, 1) {}
    let mut candidates = resolution.finish(index, secret);
    let refs = std::mem::take(&mut candidates.series);
    let live = refs
        .into_iter()
        .filter(|series| pairs_of.contains_key(series));
    live.filter(|series| candidates.passes(index, &pairs_of[series]))
        .collect()
}

#[test]
fn a_label_set_comes_back_as_it_was_and_is_told_from_others() {
    let (mut index, secret) = (Index::default(), Secret::new(1));
    let up = set(&[("__name__", "up"), ("job", "node"), ("le", "1")]);
    let pairs = index.add(&secret, up.packed(), 0).unwrap();
    let mut packed = Vec::new();
    index.put_packed(&pairs, &mut packed);
    assert_eq!(packed, up.packed());
    assert!(index.same_labels(&pairs, up.packed()));
    for other in [
        set(&[("__name__", "up"), ("job", "node")]),
        set(&[("__name__", "up"), ("job", "node"), ("le", "2")]),
        set(&[("__name__", "up"), ("job", "node"), ("lf", "1")]),
        set(&[("__name__", "up"), ("job", "node"), ("le", "1"), ("x", "y")]),
        set(&[]),
    ] {
        assert!(!index.same_labels(&pairs, other.packed()), "{other}");
    }
}

#[test]
fn a_value_that_equals_a_name_or_another_names_value_is_another_pair() {
    let (mut index, secret) = (Index::default(), Secret::new(1));
    let pairs = index
        .add(
            &secret,
            set(&[("a", "x"), ("b", "x"), ("x", "a")]).packed(),
            0,
        )
        .unwrap();
    assert!(pairs[0] != pairs[1] && pairs[1] != pairs[2]);
}

/// The heart of every query: all kinds of matchers against a plain scan, while series come and leave.
#[test]
fn matchers_select_what_a_scan_selects() {
    let mut rng = SmallRng::seed_from_u64(42);
    let (mut index, secret) = (Index::default(), Secret::new(rng.random()));
    let mut model: BTreeMap<u32, Labels> = BTreeMap::new();
    let mut pairs_of: BTreeMap<u32, Box<[PairId]>> = BTreeMap::new();
    let values = ["", "a", "b", "ab", "ba", "node", "c"];
    let patterns = [
        "a|b", "a.*", ".*b", "", ".+", ".*", "a|", "no?de", "[ab]+", "(a|c)", "x",
    ];
    let ops = [
        MatchOp::Equal,
        MatchOp::NotEqual,
        MatchOp::Regex,
        MatchOp::NotRegex,
    ];
    let mut free: Vec<u32> = (0..400).collect();
    let mut compared = 0;
    for round in 0..3000 {
        let create = |rng: &mut SmallRng, series: u32| {
            let mut labels = Labels::empty();
            for name in ["__name__", "job", "pod", "le"] {
                labels = labels.with(name, values.choose(rng).unwrap());
            }
            labels.with("id", &series.to_string())
        };
        if rng.random_bool(0.6) && !free.is_empty() {
            let series = free.swap_remove(rng.random_range(0..free.len()));
            let labels = create(&mut rng, series);
            pairs_of.insert(series, index.add(&secret, labels.packed(), series).unwrap());
            model.insert(series, labels);
        }
        if round % 50 == 49 {
            let dead: Vec<u32> = model
                .keys()
                .copied()
                .filter(|_| rng.random_bool(0.3))
                .collect();
            for series in &dead {
                model.remove(series);
                let pairs = pairs_of.remove(series).unwrap();
                index.bury(*series, &pairs);
            }
            let swept = loop {
                if let Some(swept) = index.sweep(&secret, 1) {
                    break swept;
                }
                // Series come between the steps, with labels of the dead too.
                if rng.random_bool(0.1)
                    && let Some(series) = free.pop()
                {
                    let labels = create(&mut rng, series);
                    pairs_of.insert(series, index.add(&secret, labels.packed(), series).unwrap());
                    model.insert(series, labels);
                }
            };
            assert_eq!(swept, dead);
            free.extend(dead);
        }
        let matchers: Vec<Matcher> = (0..rng.random_range(0..4))
            .map(|_| {
                let op = *ops.choose(&mut rng).unwrap();
                let name = ["__name__", "job", "pod", "le", "none"]
                    .choose(&mut rng)
                    .unwrap();
                let literal = matches!(op, MatchOp::Equal | MatchOp::NotEqual);
                let text = if literal { &values[..] } else { &patterns[..] };
                Matcher::new(op, name, text.choose(&mut rng).unwrap()).unwrap()
            })
            .collect();
        let expected: Vec<u32> = model
            .iter()
            .filter(|(_, l)| {
                matchers
                    .iter()
                    .all(|m| m.matches(l.get(m.name()).unwrap_or("")))
            })
            .map(|(&series, _)| series)
            .collect();
        let found = select(&mut index, &secret, &pairs_of, &matchers);
        assert_eq!(found, expected, "round {round}: {matchers:?}");
        compared += usize::from(!expected.is_empty());
    }
    assert!(compared > 1000, "only {compared} selections had a result");
}

#[test]
fn an_index_without_series_holds_no_labels() {
    let (mut index, secret) = (Index::default(), Secret::new(3));
    let mut all = Vec::new();
    for series in 0..500 {
        let labels = set(&[("__name__", "up"), ("pod", &format!("pod-{series}"))]);
        all.push((series, index.add(&secret, labels.packed(), series).unwrap()));
    }
    let before = index.bytes();
    all.iter()
        .for_each(|(series, pairs)| index.bury(*series, pairs));
    while index.sweep(&secret, 100).is_none() {}
    assert_eq!((index.count(), index.names().count()), (0, 0));
    let name = index
        .find_name("pod")
        .expect("names are kept, they are few");
    assert_eq!(index.find_pair(&secret, name, "pod-7"), None);
    // All of it can be used again.
    for series in 0..500 {
        let labels = set(&[("__name__", "up"), ("pod", &format!("pod-x{series}"))]);
        index.add(&secret, labels.packed(), series).unwrap();
    }
    assert!(
        index.bytes() < before + before / 4,
        "{} then {}",
        before,
        index.bytes()
    );
}
