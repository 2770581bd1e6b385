//! From matchers to series, in slices.
//!
//! 1. Matchers that allow only certain non-empty values (`=`, `=~"a|b"`) are look-ups: their postings, intersected, smallest
//!    first, are the candidates. Without such a matcher every series of the tenant is a candidate.
//! 2. Every other matcher is resolved on the side that is smaller. *Scan*: test all values of the label once and take the union
//!    of the postings that pass; or, where series without the label pass too, take away those that do not. *Filter*: test the
//!    value of each candidate when it is visited.
//! 3. Scans run in slices while the index goes on growing: values added meanwhile stand at the end of the list, and the last
//!    step catches up with them and intersects in one go. That moment is the read's snapshot.
//!
//! Removed pairs move values about, so a scan starts anew when any has been removed since; the collection of old data runs
//! once a minute, a scan takes milliseconds.

use std::collections::HashMap;
use std::sync::Arc;

use model::Matcher;
use model::sorted::{intersect, subtract};

use super::postings::Postings;
use super::{Index, NameId, PairId, Secret};

/// Matchers on their way to series.
pub(crate) struct Resolution {
    matchers: Arc<[Matcher]>,
    scans: Vec<Scan>,
    filters: Vec<usize>,
    sweeps: u64,
}

struct Scan {
    matcher: usize,
    name: NameId,
    /// Values tested so far.
    done: usize,
    /// Where series without the label pass: the values that do not. Else: those that do.
    hits: Vec<PairId>,
}

/// The candidates of a read, as of its snapshot, and what is left to test on each.
pub(crate) struct Candidates {
    /// Ascending; may contain dead series.
    pub(crate) series: Vec<u32>,
    filters: Vec<Filter>,
    sweeps: u64,
}

struct Filter {
    matchers: Arc<[Matcher]>,
    matcher: usize,
    /// `None`: no series has the label.
    name: Option<NameId>,
    /// What the matcher says of pairs met before.
    known: HashMap<PairId, bool>,
}

/// How many series matchers may select, by the lengths of postings alone, and how many values would be tested.
///
/// Cost: a look-up for every matcher, and for every value of one that lists them.
pub(crate) fn estimate(index: &Index, secret: &Secret, matchers: &[Matcher]) -> (usize, usize) {
    let mut candidates = index.count();
    let mut scanned = 0;
    for matcher in matchers {
        if is_lookup(matcher) {
            let pairs = exact_pairs(index, secret, matcher);
            let series = pairs.iter().map(|&pair| index.series_of(pair).count());
            candidates = candidates.min(series.sum());
        } else if let Some(name) = index.find_name(matcher.name()) {
            scanned += index.values(name).count() as usize;
        } else if !matcher.matches_empty() {
            candidates = 0;
        }
    }
    (candidates, scanned)
}

impl Resolution {
    /// Decides which matchers to scan and which to filter by. Cost: a look-up for every matcher.
    pub(crate) fn new(index: &Index, secret: &Secret, matchers: Arc<[Matcher]>) -> Resolution {
        let lookups = matchers.iter().filter(|m| is_lookup(m));
        let sizes = lookups.map(|m| {
            let pairs = exact_pairs(index, secret, m);
            pairs
                .iter()
                .map(|&pair| index.series_of(pair).count())
                .sum()
        });
        let candidates: usize = sizes.min().unwrap_or(index.count());
        let (mut scans, mut filters) = (Vec::new(), Vec::new());
        for (matcher, m) in matchers.iter().enumerate().filter(|(_, m)| !is_lookup(m)) {
            match index.find_name(m.name()) {
                Some(name) if (index.values(name).count() as usize) < candidates => {
                    scans.push(Scan {
                        matcher,
                        name,
                        done: 0,
                        hits: Vec::new(),
                    });
                }
                _ => filters.push(matcher),
            }
        }
        Resolution {
            matchers,
            scans,
            filters,
            sweeps: index.sweeps(),
        }
    }

    /// Tests up to `budget` values. True when only [`Resolution::finish`] is left to do.
    pub(crate) fn step(&mut self, index: &Index, mut budget: usize) -> bool {
        if self.sweeps != index.sweeps() {
            self.sweeps = index.sweeps();
            self.scans
                .iter_mut()
                .for_each(|scan| (scan.done, scan.hits) = (0, Vec::new()));
        }
        for scan in &mut self.scans {
            let matcher = &self.matchers[scan.matcher];
            let wanted = !matcher.matches_empty();
            let values = index.values(scan.name);
            while let run @ [_, ..] = values.run(scan.done as u32) {
                if budget == 0 {
                    return false;
                }
                let some = &run[..run.len().min(budget)];
                scan.hits.extend(
                    some.iter()
                        .filter(|&&p| matcher.matches(index.value(p)) == wanted),
                );
                scan.done += some.len();
                budget -= some.len();
            }
        }
        true
    }

    /// The candidates as of now. Cost: linear in the postings that take part.
    pub(crate) fn finish(mut self, index: &mut Index, secret: &Secret) -> Candidates {
        let caught_up = self.step(index, usize::MAX);
        assert!(caught_up, "an unbounded step tests everything");
        let mut unions: Vec<Vec<PairId>> = Vec::new();
        for matcher in self.matchers.iter().filter(|m| is_lookup(m)) {
            unions.push(exact_pairs(index, secret, matcher));
        }
        let (mut keep, mut drop) = (Vec::new(), Vec::new());
        for scan in self.scans {
            let subtracts = self.matchers[scan.matcher].matches_empty();
            if subtracts { &mut drop } else { &mut keep }.push(scan.hits);
        }
        unions.append(&mut keep);
        let size = |index: &Index, pairs: &[PairId]| -> usize {
            pairs
                .iter()
                .map(|&pair| index.series_of(pair).count())
                .sum()
        };
        unions.sort_by_cached_key(|pairs| size(index, pairs));
        let mut unions = unions.into_iter();
        let mut series = match unions.next() {
            None => listed(index.sorted_all()),
            Some(pairs) => union(index, &pairs),
        };
        for pairs in unions {
            if series.is_empty() {
                break;
            }
            match pairs[..] {
                [pair] => intersect(&mut series, index.sorted_series_of(pair).pieces()),
                _ => intersect(&mut series, [&union(index, &pairs)[..]]),
            }
        }
        for pairs in drop {
            subtract(&mut series, &union(index, &pairs));
        }
        let filters = self.filters.iter().map(|&matcher| Filter {
            matchers: self.matchers.clone(),
            matcher,
            name: index.find_name(self.matchers[matcher].name()),
            known: HashMap::new(),
        });
        Candidates {
            series,
            filters: filters.collect(),
            sweeps: index.sweeps(),
        }
    }
}

impl Candidates {
    /// Whether a candidate passes what could not be resolved by postings.
    pub(crate) fn passes(&mut self, index: &Index, pairs: &[PairId]) -> bool {
        if self.sweeps != index.sweeps() {
            self.sweeps = index.sweeps();
            self.filters
                .iter_mut()
                .for_each(|filter| filter.known.clear());
        }
        self.filters.iter_mut().all(|filter| {
            let matcher = &filter.matchers[filter.matcher];
            let (pair, value) = match filter.name {
                Some(name) => index.value_of(pairs, name),
                None => (None, ""),
            };
            match pair {
                None => matcher.matches_empty(),
                Some(pair) => *filter
                    .known
                    .entry(pair)
                    .or_insert_with(|| matcher.matches(value)),
            }
        })
    }
}

fn is_lookup(matcher: &Matcher) -> bool {
    !matcher.matches_empty() && matcher.only_values().is_some()
}

fn exact_pairs(index: &Index, secret: &Secret, matcher: &Matcher) -> Vec<PairId> {
    let Some(name) = index.find_name(matcher.name()) else {
        return Vec::new();
    };
    let values = matcher.only_values().unwrap_or_default();
    values
        .iter()
        .filter_map(|value| index.find_pair(secret, name, value))
        .collect()
}

/// The series of any of these pairs, which all have the same name: so no series is in two of the lists.
fn union(index: &mut Index, pairs: &[PairId]) -> Vec<u32> {
    let mut all = Vec::new();
    for &pair in pairs {
        for piece in index.sorted_series_of(pair).pieces() {
            all.extend_from_slice(piece);
        }
    }
    if pairs.len() > 1 {
        all.sort();
    }
    debug_assert!(
        all.is_sorted_by(|a, b| a < b),
        "a series has one value of a name"
    );
    all
}

fn listed(postings: &Postings) -> Vec<u32> {
    let mut list = Vec::with_capacity(postings.count());
    postings
        .pieces()
        .for_each(|piece| list.extend_from_slice(piece));
    list
}
