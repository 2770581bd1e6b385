//! Lists of series: which series carry a label, sorted by reference.
//!
//! References mostly come ascending, so adding is an append; a reference that is used again can be smaller than the last one,
//! and then the list is marked and sorted when it is next read (the standard sort merges the two runs in linear time). A list
//! of one series, the usual case for labels that name an instance of something, owns no memory.

/// The series of one label.
#[derive(Debug, Clone)]
pub(crate) enum Postings {
    /// One series.
    One(u32),
    /// Ascending.
    Sorted(Vec<u32>),
    /// Ascending runs in any order.
    Runs(Vec<u32>),
}

const _: () = assert!(size_of::<Postings>() == 32);

impl Default for Postings {
    fn default() -> Postings {
        Postings::Sorted(Vec::new())
    }
}

impl Postings {
    /// Adds a series that is not in the list.
    pub(crate) fn add(&mut self, series: u32) {
        match self {
            Postings::One(first) => {
                let (low, high) = (series.min(*first), series.max(*first));
                *self = Postings::Sorted(vec![low, high]);
            }
            Postings::Sorted(list) if list.is_empty() => *self = Postings::One(series),
            Postings::Sorted(list) => {
                let ascends = list.last().is_some_and(|&last| last < series);
                grow(list);
                list.push(series);
                if !ascends {
                    *self = Postings::Runs(std::mem::take(list));
                }
            }
            Postings::Runs(list) => {
                grow(list);
                list.push(series);
            }
        }
    }

    /// How many series.
    pub(crate) fn count(&self) -> usize {
        match self {
            Postings::One(_) => 1,
            Postings::Sorted(list) | Postings::Runs(list) => list.len(),
        }
    }

    /// In any order.
    pub(crate) fn as_slice(&self) -> &[u32] {
        match self {
            Postings::One(series) => std::slice::from_ref(series),
            Postings::Sorted(list) | Postings::Runs(list) => list,
        }
    }

    /// Ascending. Cost: linear where references were added out of order since the last call.
    pub(crate) fn sorted(&mut self) -> &[u32] {
        if let Postings::Runs(list) = self {
            list.sort();
            debug_assert!(
                list.is_sorted_by(|a, b| a < b),
                "a series is in a list once"
            );
            *self = Postings::Sorted(std::mem::take(list));
        }
        self.as_slice()
    }

    /// Removes all of `dead`, which ascends.
    pub(crate) fn remove(&mut self, dead: &[u32]) {
        self.sorted();
        let left = match self {
            Postings::One(series) if dead.binary_search(series).is_err() => return,
            Postings::One(_) => Vec::new(),
            Postings::Sorted(list) | Postings::Runs(list) => {
                let mut list = std::mem::take(list);
                let mut dead = dead.iter().copied().peekable();
                list.retain(|&series| {
                    while dead.next_if(|&d| d < series).is_some() {}
                    dead.peek() != Some(&series)
                });
                list
            }
        };
        *self = match left[..] {
            [only] => Postings::One(only),
            _ => {
                let mut left = left;
                if left.len() * 2 < left.capacity() {
                    left.shrink_to_fit();
                }
                Postings::Sorted(left)
            }
        };
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Postings::One(_) => 0,
            Postings::Sorted(list) | Postings::Runs(list) => list.capacity() * 4,
        }
    }
}

/// Long lists grow by a quarter: doubling them would leave a third of all postings memory unused.
fn grow(list: &mut Vec<u32>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 4).max(2));
    }
}

/// Keeps in `list` only what is in `other` too; both ascend. Cost: linear in the shorter, times the logarithm of the gap.
pub(crate) fn intersect(list: &mut Vec<u32>, other: &[u32]) {
    let mut rest = other;
    list.retain(|&series| {
        rest = skip_to(rest, series);
        rest.first() == Some(&series)
    });
}

/// Removes from `list` what is in `other`; both ascend.
pub(crate) fn subtract(list: &mut Vec<u32>, other: &[u32]) {
    let mut rest = other;
    list.retain(|&series| {
        rest = skip_to(rest, series);
        rest.first() != Some(&series)
    });
}

/// The part of `list` from the first element not below `series`: doubling steps, then a binary search.
fn skip_to(list: &[u32], series: u32) -> &[u32] {
    let mut step = 1;
    while step < list.len() && list[step] < series {
        step *= 2;
    }
    let (low, high) = (step / 2, (step + 1).min(list.len()));
    &list[low + list[low..high].partition_point(|&s| s < series)..]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lists_behave_as_sets(
            adds in prop::collection::btree_set(0u32..300, 0..80),
            order in any::<u64>(), dead in prop::collection::btree_set(0u32..300, 0..80),
        ) {
            let mut shuffled: Vec<u32> = adds.iter().copied().collect();
            shuffled.sort_by_key(|&s| u64::from(s).wrapping_mul(order | 1) >> 7);
            let mut postings = Postings::default();
            shuffled.iter().for_each(|&s| postings.add(s));
            prop_assert_eq!(postings.count(), adds.len());
            let sorted: Vec<u32> = adds.iter().copied().collect();
            prop_assert_eq!(postings.sorted(), &sorted[..]);
            let dead: Vec<u32> = dead.into_iter().collect();
            postings.remove(&dead);
            let left: Vec<u32> = adds.into_iter().filter(|s| !dead.contains(s)).collect();
            prop_assert_eq!(postings.sorted(), &left[..]);
        }

        #[test]
        fn intersection_and_difference_are_those_of_sets(
            a in prop::collection::btree_set(0u32..500, 0..200),
            b in prop::collection::btree_set(0u32..500, 0..200),
        ) {
            let list = |s: &BTreeSet<u32>| s.iter().copied().collect::<Vec<_>>();
            let (mut both, mut only) = (list(&a), list(&a));
            intersect(&mut both, &list(&b));
            subtract(&mut only, &list(&b));
            prop_assert_eq!(both, a.intersection(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(only, a.difference(&b).copied().collect::<Vec<_>>());
        }
    }
}
