//! Numbers for label sets: groups of aggregations, signatures of vector matching.
//!
//! Works on packed bytes: the labels that count are copied into one reused buffer, hashed once, and only a set that is met for the
//! first time is allocated. Per series that is one walk over its labels, whatever the number of steps.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use model::{Labels, METRIC_NAME, varint};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

/// Which labels of a series count.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    /// Sorted.
    names: Vec<Box<[u8]>>,
    /// All but these (and the metric's name), rather than only these.
    except: bool,
}

impl Chosen {
    /// Only labels of these names.
    pub(super) fn only<'n>(names: impl IntoIterator<Item = &'n String>) -> Chosen {
        Chosen::new(names, false)
    }

    /// All labels but those of these names and the metric's name.
    pub(super) fn except<'n>(names: impl IntoIterator<Item = &'n String>) -> Chosen {
        Chosen::new(names, true)
    }

    fn new<'n>(names: impl IntoIterator<Item = &'n String>, except: bool) -> Chosen {
        let names = names.into_iter().map(|n| n.as_bytes().into());
        let mut names: Vec<Box<[u8]>> = names.collect();
        if except {
            names.push(METRIC_NAME.as_bytes().into());
        }
        names.sort_unstable();
        names.dedup();
        Chosen { names, except }
    }

    /// Whether the metric's name counts.
    pub(super) fn has_metric_name(&self) -> bool {
        self.contains(METRIC_NAME.as_bytes()) != self.except
    }

    /// Whether nothing counts, so that all series are alike.
    pub(super) fn is_nothing(&self) -> bool {
        self.names.is_empty() && !self.except
    }

    /// The hash of the labels that count, which are left in `packed`. Stable.
    pub(super) fn hash(&self, labels: &Labels, packed: &mut Vec<u8>) -> u64 {
        self.pack(labels, packed);
        xxh3_64(packed)
    }

    fn contains(&self, name: &[u8]) -> bool {
        match self.names.len() {
            0..=8 => self.names.iter().any(|n| **n == *name),
            _ => self.names.binary_search_by(|n| (**n).cmp(name)).is_ok(),
        }
    }

    /// Writes the labels that count, in packed form.
    fn pack(&self, labels: &Labels, out: &mut Vec<u8>) {
        out.clear();
        if self.is_nothing() {
            return;
        }
        let packed = labels.packed();
        let mut rest = packed;
        while !rest.is_empty() {
            let start = rest;
            let name = take(&mut rest);
            take(&mut rest);
            if self.contains(name) != self.except {
                out.extend_from_slice(&start[..start.len() - rest.len()]);
            }
        }
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = varint::take_u64(rest).expect("labels were checked when they were made");
    let (head, tail) = rest.split_at(length as usize);
    *rest = tail;
    head
}

/// Hashes are their own hashes.
#[derive(Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only whole numbers are hashed");
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Numbers label sets from 0 in the order in which they are first met.
pub(super) struct Numbering {
    chosen: Chosen,
    by_hash: HashMap<u64, SmallVec<[u32; 1]>, BuildHasherDefault<Identity>>,
    sets: Vec<Labels>,
    buffer: Vec<u8>,
}

impl Numbering {
    pub(super) fn new(chosen: Chosen) -> Numbering {
        Numbering {
            chosen,
            by_hash: HashMap::default(),
            sets: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// The number of the part of `labels` that counts.
    pub(super) fn number(&mut self, labels: &Labels) -> u32 {
        self.chosen.pack(labels, &mut self.buffer);
        let numbers = self.by_hash.entry(xxh3_64(&self.buffer)).or_default();
        for number in numbers.iter() {
            if self.sets[*number as usize].packed() == self.buffer {
                return *number;
            }
        }
        let number = self.sets.len() as u32;
        numbers.push(number);
        // A part of labels is a set of labels.
        self.sets.push(Labels::from_canonical(&self.buffer));
        number
    }

    /// As [`Numbering::number`] for what was met before; nothing is added.
    pub(super) fn find(&mut self, labels: &Labels) -> Option<u32> {
        self.chosen.pack(labels, &mut self.buffer);
        let numbers = self.by_hash.get(&xxh3_64(&self.buffer))?;
        numbers
            .iter()
            .copied()
            .find(|number| self.sets[*number as usize].packed() == self.buffer)
    }

    /// The sets, by number.
    pub(super) fn into_sets(self) -> Vec<Labels> {
        self.sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn series_alike_in_what_counts_have_one_number() {
        let mut numbering = Numbering::new(Chosen::only(&names(&["b", "a"])));
        let one = numbering.number(&labels(&[("__name__", "x"), ("a", "1"), ("c", "2")]));
        let two = numbering.number(&labels(&[("__name__", "y"), ("a", "1")]));
        let other = numbering.number(&labels(&[("a", "1"), ("b", "1")]));
        assert_eq!((one, two, other), (0, 0, 1));
        assert_eq!(numbering.find(&labels(&[("a", "1")])), Some(0));
        assert_eq!(numbering.find(&labels(&[("a", "2")])), None);
        assert_eq!(numbering.into_sets()[1], labels(&[("a", "1"), ("b", "1")]));
    }

    #[test]
    fn without_leaves_out_the_metric_name_too() {
        let chosen = Chosen::except(&names(&["a"]));
        assert!(!chosen.has_metric_name() && !chosen.is_nothing());
        let mut numbering = Numbering::new(chosen);
        numbering.number(&labels(&[("__name__", "x"), ("a", "1"), ("c", "2")]));
        assert_eq!(numbering.into_sets(), [labels(&[("c", "2")])]);
        assert!(Chosen::only(&names(&["__name__"])).has_metric_name());
        assert!(Chosen::only(&[]).is_nothing());
    }
}
