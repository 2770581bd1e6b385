//! Sets of series as ascending lists, the form in which an index hands them out: what two have in common, and what one has alone.
//!
//! Both walk the list that is kept and skip in the other by doubling steps, so that a short list against a long one costs little.

/// Keeps in `list` only what is in the pieces of another; both ascend, the other from piece to piece too.
///
/// Cost: linear in `list`, times the logarithm of the gaps in the other; no allocation.
pub fn intersect<'a>(list: &mut Vec<u32>, other: impl IntoIterator<Item = &'a [u32]>) {
    let (mut pieces, mut rest) = (other.into_iter(), &[][..]);
    list.retain(|&series| {
        while rest.last().is_none_or(|&last| last < series) {
            match pieces.next() {
                Some(piece) => rest = piece,
                None => return false,
            }
        }
        rest = skip_to(rest, series);
        rest.first() == Some(&series)
    });
}

/// Removes from `list` what is in `other`; both ascend. Cost: as [`intersect`].
pub fn subtract(list: &mut Vec<u32>, other: &[u32]) {
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
        fn intersection_and_difference_are_those_of_sets(
            a in prop::collection::btree_set(0u32..500, 0..200),
            b in prop::collection::btree_set(0u32..500, 0..200),
        ) {
            let list = |s: &BTreeSet<u32>| s.iter().copied().collect::<Vec<_>>();
            let both: Vec<u32> = a.intersection(&b).copied().collect();
            for size in [1, 7, 1000] {
                let mut found = list(&a);
                intersect(&mut found, list(&b).chunks(size));
                prop_assert_eq!(&found, &both);
            }
            let mut only = list(&a);
            subtract(&mut only, &list(&b));
            prop_assert_eq!(only, a.difference(&b).copied().collect::<Vec<_>>());
        }
    }
}
