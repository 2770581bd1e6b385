//! Open addressing from a hash to the number of an entry: linear probing, removal by shifting back.
//!
//! A slot is a `u32`: the number of an entry in 24 bits, and 8 bits of its hash, so that nearly every slot that is not the right one is
//! passed over without looking at its entry, which lies elsewhere and is a cache miss. Whether it is the right one only the entry can tell,
//! so callers pass closures that look at entries. There are 64 tables, chosen by the top bits of the hash, each growing by itself:
//! no growth moves more than a 64th of the whole.

use super::entries::NONE;

const SHARD_BITS: u32 = 6;
const SLOTS_MIN: usize = 16;

/// Bits of a slot that number the entry.
const NUMBER_BITS: u32 = 24;

/// Entries are numbered below this.
pub(super) const ENTRIES_MAX: u32 = (1 << NUMBER_BITS) - 1;

/// An empty slot. No slot in use looks like it: its number would be [`ENTRIES_MAX`].
const EMPTY: u32 = u32::MAX;

/// The part of a hash that stands in its slot: bits that choose neither the table nor, usually, the slot.
#[inline(always)]
fn tag(hash: u64) -> u32 {
    (hash >> 16) as u32 & 0xff << NUMBER_BITS
}

#[inline(always)]
fn number(slot: u32) -> u32 {
    slot & ENTRIES_MAX
}

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    shards: Vec<Shard>,
}

#[derive(Debug, Clone, Default)]
struct Shard {
    /// A power of two of slots, or none.
    slots: Box<[u32]>,
    used: usize,
}

impl Default for Index {
    fn default() -> Index {
        Index {
            shards: vec![Shard::default(); 1 << SHARD_BITS],
        }
    }
}

impl Index {
    #[inline]
    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> (64 - SHARD_BITS)) as usize]
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Shard {
        &mut self.shards[(hash >> (64 - SHARD_BITS)) as usize]
    }

    pub(super) fn bytes(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| size_of_val(&shard.slots[..]))
            .sum()
    }

    /// Begins to fetch the slot where the hash points to.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        let slots = &self.shard(hash).slots;
        if let Some(slot) = slots.get(hash as usize & slots.len().wrapping_sub(1)) {
            model::prefetch(slot);
        }
    }

    /// The first entry that may be the right one: it is, but for one in 256 of those that stand in the way. [`NONE`] where there is none.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> u32 {
        self.find(hash, |_| true)
    }

    /// The first entry for which `is` says so, [`NONE`] without one.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> u32 {
        let slots = &self.shard(hash).slots;
        if slots.is_empty() {
            return NONE;
        }
        let tag = tag(hash);
        let mut at = hash as usize & (slots.len() - 1);
        loop {
            let slot = slots[at];
            if slot == EMPTY {
                return NONE;
            }
            if slot ^ tag <= ENTRIES_MAX && is(number(slot)) {
                return number(slot);
            }
            at = (at + 1) & (slots.len() - 1);
        }
    }

    /// Adds an entry; equal hashes stand side by side. `hash_of` tells the hash of any entry that is in here.
    pub(super) fn insert(&mut self, hash: u64, entry: u32, hash_of: impl Fn(u32) -> u64) {
        let shard = self.shard_mut(hash);
        if (shard.used + 1) * 4 > shard.slots.len() * 3 {
            shard.grow(&hash_of);
        }
        shard.put(hash, entry);
        shard.used += 1;
    }

    /// Takes out an entry that is in here under that hash.
    pub(super) fn remove(&mut self, hash: u64, entry: u32, hash_of: impl Fn(u32) -> u64) {
        let Shard { slots, used } = self.shard_mut(hash);
        let mask = slots.len() - 1;
        let mut hole = hash as usize & mask;
        while number(slots[hole]) != entry || slots[hole] == EMPTY {
            assert!(slots[hole] != EMPTY, "only what is in the index is removed");
            hole = (hole + 1) & mask;
        }
        // Shift back whatever would not be found any more across the hole.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            if slots[at] == EMPTY {
                break;
            }
            let home = hash_of(number(slots[at])) as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                slots[hole] = slots[at];
                hole = at;
            }
        }
        slots[hole] = EMPTY;
        *used -= 1;
    }
}

impl Shard {
    fn put(&mut self, hash: u64, entry: u32) {
        assert!(entry < ENTRIES_MAX, "a slot numbers entries in 24 bits");
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = tag(hash) | entry;
    }

    fn grow(&mut self, hash_of: &impl Fn(u32) -> u64) {
        let len = (self.slots.len() * 2).max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; len].into_boxed_slice());
        for &slot in old.iter().filter(|&&slot| slot != EMPTY) {
            self.put(hash_of(number(slot)), number(slot));
        }
    }
}
