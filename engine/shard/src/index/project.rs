//! From pairs to label sets, as far as a reader wants them.
//!
//! A query that wants all labels gets a set for each series. One that wants a few, because an aggregation keeps only these, gets the
//! same set for all series that are alike in them: it is found by the numbers of the wanted pairs, no text is touched. That is what makes
//! a sum over a hundred thousand series a matter of some milliseconds for the core.

use std::collections::HashMap;

use model::{Labels, Projection};

use super::{Index, NameId, PairId};

/// In place of a pair that a series does not have.
const NONE: PairId = PairId::MAX;

/// Makes label sets; lives as long as one read.
#[derive(Default)]
pub(crate) struct Projector {
    /// Sets met before, by their pairs. Pair numbers are used again after a sweep, so it holds for one number of sweeps.
    known: HashMap<Box<[PairId]>, Labels>,
    sweeps: u64,
    /// The set found last, by its pairs: series that came together are alike.
    last: Option<(Vec<PairId>, Labels)>,
    wanted: Vec<Wanted>,
    pairs: Vec<PairId>,
    packed: Vec<u8>,
}

/// A wanted name.
struct Wanted {
    name: NameId,
    /// Where it stood among the pairs of the series before.
    at: usize,
}

impl Projector {
    /// For one read. Names that no series has now are not looked for later either: series made after a read's snapshot are not part of it.
    pub(crate) fn new(index: &Index, projection: &Projection) -> Projector {
        let wanted = match projection {
            Projection::All => Vec::new(),
            Projection::Only(names) => names
                .iter()
                .filter_map(|name| index.find_name(name))
                .map(|name| Wanted { name, at: 0 })
                .collect(),
        };
        Projector {
            wanted,
            sweeps: index.sweeps(),
            ..Projector::default()
        }
    }

    /// The wanted labels of a series. Cost: a copy of its texts where all are wanted, else a look-up and a reference count.
    pub(crate) fn labels(
        &mut self,
        index: &Index,
        projection: &Projection,
        pairs: &[PairId],
    ) -> Labels {
        if *projection == Projection::All {
            return self.set(index, pairs);
        }
        if self.sweeps != index.sweeps() {
            self.sweeps = index.sweeps();
            self.known.clear();
            self.last = None;
        }
        self.pairs.clear();
        for wanted in &mut self.wanted {
            let is_it = |pair: &PairId| index.name_of(*pair) == wanted.name;
            if !pairs.get(wanted.at).is_some_and(is_it) {
                match pairs.iter().position(is_it) {
                    Some(at) => wanted.at = at,
                    None => {
                        self.pairs.push(NONE);
                        continue;
                    }
                }
            }
            self.pairs.push(pairs[wanted.at]);
        }
        if let Some((pairs, labels)) = &self.last
            && *pairs == self.pairs
        {
            return labels.clone();
        }
        let labels = match self.known.get(&self.pairs[..]) {
            Some(labels) => labels.clone(),
            None => {
                let pairs = std::mem::take(&mut self.pairs);
                let present: Vec<PairId> = pairs.iter().copied().filter(|p| *p != NONE).collect();
                let labels = self.set(index, &present);
                self.pairs = pairs;
                self.known
                    .insert(self.pairs.clone().into_boxed_slice(), labels.clone());
                labels
            }
        };
        let (last, last_labels) = self
            .last
            .get_or_insert_with(|| (Vec::new(), labels.clone()));
        last.clone_from(&self.pairs);
        last_labels.clone_from(&labels);
        labels
    }

    fn set(&mut self, index: &Index, pairs: &[PairId]) -> Labels {
        self.packed.clear();
        index.put_packed(pairs, &mut self.packed);
        Labels::from_canonical(&self.packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Secret;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn a_projection_gives_the_wanted_labels_whatever_others_there_are() {
        let (mut index, secret) = (Index::default(), Secret::new(7));
        let sets = [
            labels(&[("__name__", "m"), ("job", "a"), ("pod", "1")]),
            labels(&[("__name__", "m"), ("job", "a"), ("pod", "2")]),
            labels(&[("__name__", "m"), ("a", "x"), ("job", "b"), ("pod", "3")]),
            labels(&[("__name__", "n"), ("pod", "4")]),
            labels(&[("job", "a"), ("zone", "z")]),
        ];
        let mut pairs = Vec::new();
        for (series, set) in (0..).zip(&sets) {
            pairs.push(index.add(&secret, set.packed(), series).unwrap());
        }
        for projection in [
            Projection::All,
            Projection::only(["__name__", "job"]),
            Projection::only(["zone", "a", "missing"]),
            Projection::only([""; 0]),
        ] {
            let mut projector = Projector::new(&index, &projection);
            // There and back, so that sets are found by look-up too.
            for at in (0..5).chain((0..5).rev()) {
                let found = projector.labels(&index, &projection, &pairs[at]);
                assert_eq!(found, projection.apply(&sets[at]), "{projection:?}");
            }
        }
    }

    #[test]
    fn numbers_of_pairs_that_mean_others_after_a_sweep_are_not_mixed_up() {
        let (mut index, secret) = (Index::default(), Secret::new(7));
        let projection = Projection::only(["job"]);
        let old = index
            .add(&secret, labels(&[("job", "old")]).packed(), 0)
            .unwrap();
        let mut projector = Projector::new(&index, &projection);
        assert_eq!(
            projector.labels(&index, &projection, &old),
            labels(&[("job", "old")])
        );
        index.bury(0, &old);
        assert!(index.sweep(&secret, 1000).is_some());
        let new = index
            .add(&secret, labels(&[("job", "new")]).packed(), 1)
            .unwrap();
        assert_eq!(old, new, "the number is used again");
        assert_eq!(
            projector.labels(&index, &projection, &new),
            labels(&[("job", "new")])
        );
    }
}
