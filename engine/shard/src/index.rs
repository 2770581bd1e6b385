//! The head index of one tenant on one core: which labels there are, and which series carry them.
//!
//! The unit is the *pair* (name, value): interned once, numbered, and owner of the list of its series. So a series' label set is
//! a list of pair numbers in the order of their names, and finding or making a pair finds its postings in the same step:
//! creating a series is one look-up and one append a label.
//!
//! | per | bytes |
//! | --- | --- |
//! | pair | 48 (name, place of the text, postings) + its value's bytes + 10.7 (hash slot at 3/4) + 4 (list of the name) |
//! | series and label | 4 (pair number) + 4 to 5 (posting) |
//! | series | 4 to 5 (posting in `all`) |
//!
//! Nothing here is copied as a whole when it grows: pairs and values are pages, the table of pairs is many small ones once it is large, long postings
//! are pieces. So the longest creation of a series among millions takes milliseconds, not hundreds of them (`tests::pauses`).
//!
//! Removal is in two steps, so that it never stops the core: series leave the series table first and are dead for every reader;
//! their postings are swept afterwards, piece by piece ([`Index::sweep`]). Until then a dead series' number is not used again.

pub(crate) mod postings;
pub(crate) mod project;
pub(crate) mod resolve;
pub(crate) mod table;
mod texts;

use std::collections::BTreeMap;

use model::varint;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_secret};

use self::postings::Postings;
use self::table::{Split, Table};
use self::texts::{Text, Texts};
use crate::pages::Pages;

/// A label: number of a row of [`Index::pairs`].
pub(crate) type PairId = u32;
/// A label's name: index into [`Index::names`].
pub(crate) type NameId = u32;

/// A secret for the hashes of label values, so that no tenant can send values that all fall on one slot. Made anew in each
/// process: nothing outlives it.
pub(crate) struct Secret([u8; 192]);

impl Secret {
    /// From 64 bits of chance.
    pub(crate) fn new(seed: u64) -> Secret {
        let mut secret = [0; 192];
        for (i, chunk) in secret.chunks_exact_mut(8).enumerate() {
            let word = xxh3_64(&[&seed.to_le_bytes()[..], &[i as u8]].concat());
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        Secret(secret)
    }

    #[inline]
    fn hash(&self, name: NameId, value: &[u8]) -> u64 {
        let mixed = u64::from(name).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        xxh3_64_with_secret(value, &self.0) ^ mixed ^ (mixed >> 32)
    }
}

#[derive(Debug)]
struct Name {
    text: Box<str>,
    /// Its values, in no order.
    values: Pages<PairId>,
}

#[derive(Debug)]
struct Pair {
    name: NameId,
    /// Where it stands in the values of its name.
    slot: u32,
    value: Text,
    postings: Postings,
}

const _: () = assert!(size_of::<Pair>() == 48);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    names: Vec<Name>,
    name_table: Table,
    /// Names of the labels of the series made last, by position: the next series probably has the same.
    recent: Vec<NameId>,
    pairs: Pages<Pair>,
    pair_table: Split,
    free_pairs: Vec<PairId>,
    texts: Texts,
    /// All series of the tenant.
    all: Postings,
    /// Heap bytes of the lists of all pairs.
    postings_bytes: isize,
    /// How often pairs have been removed; whoever holds pair numbers over a slice looks at it.
    sweeps: u64,
    unswept: Unswept,
}

/// Dead series whose postings are still there.
#[derive(Debug, Default)]
struct Unswept {
    /// Ascending once sweeping has begun.
    dead: Vec<u32>,
    /// How many of them have a pair.
    pairs: BTreeMap<PairId, u32>,
    /// A list that is swept in part, from which series on it is not, and how many dead are in it still.
    half: Option<(PairId, u32, u32)>,
    /// As `half`, of the list of all.
    all_from: u32,
    sweeping: bool,
}

/// The tenant's label texts fill their 4 GiB on this core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexFull;

impl Index {
    /// Interns the labels of a new series and adds it to their lists. `packed` is canonical.
    ///
    /// Errors: [`IndexFull`], with nothing added.
    pub(crate) fn add(
        &mut self,
        secret: &Secret,
        packed: &[u8],
        series: u32,
    ) -> Result<Box<[PairId]>, IndexFull> {
        let mut pairs = Vec::with_capacity(16);
        for (position, (name, value)) in labels(packed).enumerate() {
            let name = self.name_id(name, position);
            pairs.push(self.pair_id(secret, name, value)?);
        }
        for &pair in &pairs {
            self.postings_bytes += self.pairs[pair].postings.add(series);
        }
        self.all.add(series);
        Ok(pairs.into_boxed_slice())
    }

    /// Whether these pairs are that label set.
    pub(crate) fn same_labels(&self, pairs: &[PairId], packed: &[u8]) -> bool {
        let mut rest = labels(packed);
        pairs.iter().all(|&pair| {
            let pair = &self.pairs[pair];
            rest.next().is_some_and(|(name, value)| {
                self.texts.bytes_of(pair.value) == value
                    && self.names[pair.name as usize].text.as_bytes() == name
            })
        }) && rest.next().is_none()
    }

    /// Appends the packed form of a label set.
    pub(crate) fn put_packed(&self, pairs: &[PairId], out: &mut Vec<u8>) {
        for &pair in pairs {
            let pair = &self.pairs[pair];
            let name = self.names[pair.name as usize].text.as_bytes();
            varint::put_u64(out, name.len() as u64);
            out.extend_from_slice(name);
            let value = self.texts.bytes_of(pair.value);
            varint::put_u64(out, value.len() as u64);
            out.extend_from_slice(value);
        }
    }

    /// The value of `name` in that label set; empty where there is none.
    pub(crate) fn value_of(&self, pairs: &[PairId], name: NameId) -> (Option<PairId>, &str) {
        let found = pairs
            .iter()
            .copied()
            .find(|&pair| self.pairs[pair].name == name);
        (found, found.map_or("", |pair| self.value(pair)))
    }

    /// The number of a name that some series has.
    pub(crate) fn find_name(&self, name: &str) -> Option<NameId> {
        self.name_table.find(xxh3_64(name.as_bytes()), |id| {
            *self.names[id as usize].text == *name
        })
    }

    /// The number of a pair that some series has.
    pub(crate) fn find_pair(&self, secret: &Secret, name: NameId, value: &str) -> Option<PairId> {
        self.pair_table
            .find(secret.hash(name, value.as_bytes()), |id| {
                let pair = &self.pairs[id];
                pair.name == name && self.texts.bytes_of(pair.value) == value.as_bytes()
            })
    }

    /// Names in no order; those that have lost their last value are left out.
    pub(crate) fn names(&self) -> impl Iterator<Item = (NameId, &str)> {
        let names = self
            .names
            .iter()
            .enumerate()
            .filter(|(_, name)| name.values.count() > 0);
        names.map(|(id, name)| (id as NameId, &*name.text))
    }

    /// The text of a name.
    pub(crate) fn name(&self, name: NameId) -> &str {
        &self.names[name as usize].text
    }

    /// The values of a name, in no order; new ones come at the end while [`Index::sweeps`] stays the same.
    pub(crate) fn values(&self, name: NameId) -> &Pages<PairId> {
        &self.names[name as usize].values
    }

    /// The name of a pair.
    pub(crate) fn name_of(&self, pair: PairId) -> NameId {
        self.pairs[pair].name
    }

    /// Numbers of pairs are below this.
    pub(crate) fn pairs_end(&self) -> usize {
        self.pairs.count() as usize
    }

    /// The value of a pair.
    pub(crate) fn value(&self, pair: PairId) -> &str {
        self.texts.get(self.pairs[pair].value)
    }

    /// The series of a pair, dead ones not yet swept included.
    pub(crate) fn series_of(&self, pair: PairId) -> &Postings {
        &self.pairs[pair].postings
    }

    /// The series of a pair, sorted ([`Postings::sort`]).
    pub(crate) fn sorted_series_of(&mut self, pair: PairId) -> &Postings {
        let postings = &mut self.pairs[pair].postings;
        postings.sort();
        postings
    }

    /// All series of the tenant, sorted.
    pub(crate) fn sorted_all(&mut self) -> &Postings {
        self.all.sort();
        &self.all
    }

    /// How many series there are, dead ones not yet swept included.
    pub(crate) fn count(&self) -> usize {
        self.all.count()
    }

    /// How many live series have a pair.
    pub(crate) fn live_of(&self, pair: PairId) -> usize {
        let unswept = &self.unswept;
        let dead = match unswept.half {
            Some((half, _, left)) if half == pair => left,
            _ => unswept.pairs.get(&pair).copied().unwrap_or(0),
        };
        self.pairs[pair]
            .postings
            .count()
            .saturating_sub(dead as usize)
    }

    /// See the field.
    pub(crate) fn sweeps(&self) -> u64 {
        self.sweeps
    }

    /// Whether there are pairs and names of which only dead series may be left.
    pub(crate) fn has_dead(&self) -> bool {
        let unswept = &self.unswept;
        !unswept.dead.is_empty() || !unswept.pairs.is_empty() || unswept.sweeping
    }

    /// Notes that a series is dead. Its pairs stay valid until they are swept.
    ///
    /// Must not be called between the first and the last [`Index::sweep`] of a round.
    pub(crate) fn bury(&mut self, series: u32, pairs: &[PairId]) {
        assert!(
            !self.unswept.sweeping,
            "a round of sweeping ends before the next begins"
        );
        self.unswept.dead.push(series);
        for &pair in pairs {
            *self.unswept.pairs.entry(pair).or_default() += 1;
        }
    }

    /// Removes the dead from lists, looking at about `budget` series (but at least a piece of a list). Returns the dead, whose
    /// numbers are now named by no list, when all is done; `None` when there is more to do. Series may be added meanwhile.
    pub(crate) fn sweep(&mut self, secret: &Secret, mut budget: usize) -> Option<Vec<u32>> {
        if self.unswept.dead.is_empty() && self.unswept.pairs.is_empty() {
            return Some(Vec::new());
        }
        if !self.unswept.sweeping {
            self.unswept.dead.sort_unstable();
            self.unswept.sweeping = true;
        }
        let dead = std::mem::take(&mut self.unswept.dead);
        let next = |unswept: &mut Unswept| {
            let half = unswept.half.take();
            half.or_else(|| {
                let (pair, left) = unswept.pairs.pop_first()?;
                Some((pair, 0, left))
            })
        };
        while let Some((pair, from, left)) = next(&mut self.unswept) {
            let postings = &mut self.pairs[pair].postings;
            let before = postings.count();
            let removal = postings.remove(&dead, from, budget);
            self.postings_bytes -= removal.freed;
            let gone = (before - postings.count()) as u32;
            self.unswept.half = removal
                .next
                .map(|next| (pair, next, left.saturating_sub(gone)));
            if removal.next.is_none() && postings.count() == 0 {
                self.remove_pair(secret, pair);
            }
            // A list costs something whatever its length.
            budget = budget.saturating_sub(removal.looked_at + 16);
            if budget == 0 {
                self.unswept.dead = dead;
                return None;
            }
        }
        if let Some(next) = self.all.remove(&dead, self.unswept.all_from, budget).next {
            (self.unswept.all_from, self.unswept.dead) = (next, dead);
            return None;
        }
        self.unswept = Unswept::default();
        Some(dead)
    }

    /// Heap bytes, for the accounts. Cost: linear in pages.
    pub(crate) fn bytes(&self) -> usize {
        let postings =
            usize::try_from(self.postings_bytes).expect("no list owns less than nothing");
        let names = |name: &Name| name.text.len() + name.values.bytes();
        postings
            + self.pairs.bytes()
            + self.free_pairs.capacity() * 4
            + self.names.iter().map(names).sum::<usize>()
            + self.names.capacity() * size_of::<Name>()
            + self.pair_table.bytes()
            + self.name_table.bytes()
            + self.texts.bytes()
            + self.all.bytes()
    }

    fn name_id(&mut self, name: &[u8], position: usize) -> NameId {
        if let Some(&id) = self.recent.get(position)
            && self.names[id as usize].text.as_bytes() == name
        {
            return id;
        }
        let hash = xxh3_64(name);
        let found = self
            .name_table
            .find(hash, |id| self.names[id as usize].text.as_bytes() == name);
        let id = found.unwrap_or_else(|| {
            let id = self.names.len() as NameId;
            let text = String::from_utf8_lossy(name).into_owned().into_boxed_str();
            self.names.push(Name {
                text,
                values: Pages::default(),
            });
            self.name_table.insert(hash, id);
            id
        });
        if position >= self.recent.len() {
            self.recent.resize(position + 1, id);
        }
        self.recent[position] = id;
        id
    }

    fn pair_id(
        &mut self,
        secret: &Secret,
        name: NameId,
        value: &[u8],
    ) -> Result<PairId, IndexFull> {
        let hash = secret.hash(name, value);
        let found = self.pair_table.find(hash, |id| {
            let pair = &self.pairs[id];
            pair.name == name && self.texts.bytes_of(pair.value) == value
        });
        if let Some(pair) = found {
            return Ok(pair);
        }
        let text = std::str::from_utf8(value).map_err(|_| IndexFull)?;
        let value = self.texts.add(text).ok_or(IndexFull)?;
        let values = &mut self.names[name as usize].values;
        let slot = values.count();
        let pair = Pair {
            name,
            slot,
            value,
            postings: Postings::default(),
        };
        let id = match self.free_pairs.pop() {
            Some(id) => {
                self.pairs[id] = pair;
                id
            }
            None => self.pairs.push(pair),
        };
        self.pair_table.insert(hash, id);
        values.push(id);
        Ok(id)
    }

    fn remove_pair(&mut self, secret: &Secret, id: PairId) {
        let Pair {
            name, slot, value, ..
        } = self.pairs[id];
        let hash = secret.hash(name, self.texts.bytes_of(value));
        self.pair_table.remove(hash, id);
        self.texts.remove(value);
        let values = &mut self.names[name as usize].values;
        assert_eq!(values[slot], id, "a pair is in the list of its name");
        values.swap_remove(slot);
        if let Some(&moved) = values.get(slot) {
            self.pairs[moved].slot = slot;
        }
        self.free_pairs.push(id);
        self.sweeps += 1;
    }
}

/// The labels of a packed set, as bytes. The gateway and the log have checked it; a cut end ends the iteration.
pub(crate) fn labels(packed: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = packed;
    std::iter::from_fn(move || Some((take(&mut rest)?, take(&mut rest)?)))
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = varint::take_u64(rest)? as usize;
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests;
