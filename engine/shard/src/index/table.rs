//! An open-addressing table from hashes to 32-bit numbers; what the numbers mean is the caller's.
//!
//! A slot is 8 bytes: 32 bits of the hash and the number. Growing reads the slots alone, never what they point to, and removal
//! shifts back, so there are no tombstones that churn could pile up. Equal hash bits are not equality: every look-up
//! compares through the closure it is given.

/// No number: a free slot.
const FREE: u32 = u32::MAX;

/// Slots of the smallest table that holds anything.
const SLOTS_MIN: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Slot {
    tag: u32,
    number: u32,
}

/// The table; empty ones own no memory.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// A power of two, or none; at most 3/4 are taken.
    slots: Box<[Slot]>,
    count: usize,
}

impl Table {
    /// The number under `hash` for which `same` is true. Cost: one cache miss, and what `same` touches.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let (tag, mask) = (hash as u32, self.slots.len() - 1);
        let mut at = tag as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.number == FREE {
                return None;
            }
            if slot.tag == tag && same(slot.number) {
                return Some(slot.number);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a number that is not there. Cost: amortised one cache miss; growing moves all slots.
    pub(crate) fn insert(&mut self, hash: u64, number: u32) {
        assert_ne!(number, FREE, "the last number marks free slots");
        if (self.count + 1) * 4 > self.slots.len() * 3 {
            self.resize((self.slots.len() * 2).max(SLOTS_MIN));
        }
        self.place(Slot {
            tag: hash as u32,
            number,
        });
        self.count += 1;
    }

    /// Removes a number that is there.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        let mask = self.slots.len() - 1;
        let mut hole = hash as u32 as usize & mask;
        while self.slots[hole].number != number {
            assert_ne!(
                self.slots[hole].number, FREE,
                "what is removed was inserted"
            );
            hole = (hole + 1) & mask;
        }
        // Whatever follows moves into the hole unless that would put it before its home.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot.number == FREE {
                break;
            }
            let home = slot.tag as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole].number = FREE;
        self.count -= 1;
        if self.count * 8 < self.slots.len() && self.slots.len() > SLOTS_MIN {
            self.resize(self.slots.len() / 2);
        }
    }

    /// How many numbers it holds.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    fn resize(&mut self, len: usize) {
        debug_assert!(len.is_power_of_two() && len * 3 >= self.count * 4);
        let free = Slot {
            tag: 0,
            number: FREE,
        };
        let old = std::mem::replace(&mut self.slots, vec![free; len].into_boxed_slice());
        for slot in old.iter().filter(|slot| slot.number != FREE) {
            self.place(*slot);
        }
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.tag as usize & mask;
        while self.slots[at].number != FREE {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }
}

/// Numbers from which a [`Split`] is many tables: few enough that taking the one apart is a pause of a millisecond.
const SPLIT_COUNT: usize = 1 << 14;

/// One table while it is small, then [`SHARDS`] of them, so that growing is a short pause even with millions of entries and little memory with few.
#[derive(Debug)]
pub(crate) enum Split {
    One(Table),
    Many(Box<[Table]>),
}

impl Default for Split {
    fn default() -> Split {
        Split::One(Table::default())
    }
}

impl Split {
    /// The table that a hash belongs to: by the highest bits of its tag, of which tables use the lowest.
    #[inline]
    fn of(&self, hash: u64) -> &Table {
        match self {
            Split::One(table) => table,
            Split::Many(tables) => &tables[shard_of(hash as u32)],
        }
    }

    fn of_mut(&mut self, hash: u64) -> &mut Table {
        match self {
            Split::One(table) => table,
            Split::Many(tables) => &mut tables[shard_of(hash as u32)],
        }
    }

    /// As [`Table::find`].
    #[inline]
    pub(crate) fn find(&self, hash: u64, same: impl FnMut(u32) -> bool) -> Option<u32> {
        self.of(hash).find(hash, same)
    }

    /// As [`Table::insert`].
    pub(crate) fn insert(&mut self, hash: u64, number: u32) {
        if let Split::One(table) = self
            && table.count >= SPLIT_COUNT
        {
            let mut tables: Box<[Table]> = (0..SHARDS).map(|_| Table::default()).collect();
            for slot in table.slots.iter().filter(|slot| slot.number != FREE) {
                // The tag is all of a hash that a table looks at.
                tables[shard_of(slot.tag)].insert(u64::from(slot.tag), slot.number);
            }
            *self = Split::Many(tables);
        }
        self.of_mut(hash).insert(hash, number);
    }

    /// As [`Table::remove`]. Many tables never become one again: those that are empty own no memory.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        self.of_mut(hash).remove(hash, number);
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Split::One(table) => table.bytes(),
            Split::Many(tables) => {
                tables.iter().map(Table::bytes).sum::<usize>() + size_of_val(&**tables)
            }
        }
    }
}

#[inline]
fn shard_of(tag: u32) -> usize {
    (tag >> 26) as usize
}

const _: () = assert!(SHARDS == 1 << (32 - 26));

/// How many tables a [`Sharded`] is made of.
const SHARDS: usize = 64;

/// Many small tables instead of a large one: growing one of them is a short pause even with millions of series.
#[derive(Debug)]
pub(crate) struct Sharded(Box<[Table]>);

impl Default for Sharded {
    fn default() -> Sharded {
        Sharded((0..SHARDS).map(|_| Table::default()).collect())
    }
}

impl Sharded {
    /// The table for a hash: chosen by its highest bits, of which the table itself uses none.
    #[inline]
    pub(crate) fn of(&self, hash: u64) -> &Table {
        &self.0[(hash >> 58) as usize]
    }

    /// As [`Sharded::of`].
    pub(crate) fn of_mut(&mut self, hash: u64) -> &mut Table {
        &mut self.0[(hash >> 58) as usize]
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(Table::bytes).sum::<usize>() + size_of_val(&*self.0)
    }
}

const _: () = assert!(SHARDS == 1 << (64 - 58));

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Few distinct hashes, so that runs are long and wrap around.
    #[test]
    fn random_inserts_and_removals_agree_with_a_set() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut table = Table::default();
        let mut model = BTreeSet::new();
        let hash = |n: u32| u64::from(n % 13).wrapping_mul(0xffff_fff1);
        for _ in 0..20_000 {
            let number = rng.random_range(0..200u32);
            if model.remove(&number) {
                table.remove(hash(number), number);
            } else {
                model.insert(number);
                table.insert(hash(number), number);
            }
            let probe = rng.random_range(0..200u32);
            let found = table.find(hash(probe), |n| n == probe);
            assert_eq!(found.is_some(), model.contains(&probe));
            assert_eq!(table.count(), model.len());
        }
    }

    #[test]
    fn a_table_that_is_taken_apart_holds_what_it_held() {
        let mut split = Split::default();
        let hash = |n: u32| u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
        let count = 3 * SPLIT_COUNT as u32;
        for n in 0..count {
            split.insert(hash(n), n);
        }
        assert!(matches!(split, Split::Many(_)));
        let found = |split: &Split, n: u32| split.find(hash(n), |other| other == n);
        assert!((0..count).all(|n| found(&split, n) == Some(n)));
        (0..count).step_by(2).for_each(|n| split.remove(hash(n), n));
        assert!((0..count).all(|n| found(&split, n).is_some() == (n % 2 == 1)));
        let largest = match &split {
            Split::Many(tables) => tables.iter().map(Table::bytes).max(),
            Split::One(_) => None,
        };
        assert!(
            largest < Some(split.bytes() / 16),
            "{largest:?} of {}",
            split.bytes()
        );
    }

    #[test]
    fn an_emptied_table_gives_its_memory_back() {
        let mut table = Table::default();
        assert_eq!(table.bytes(), 0);
        (0..10_000).for_each(|n| table.insert(u64::from(n), n));
        assert!(table.bytes() >= 80_000);
        (0..10_000).for_each(|n| table.remove(u64::from(n), n));
        assert!(table.bytes() <= 128);
    }
}
