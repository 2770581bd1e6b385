//! Open addressing from a hash to the number of an entry: linear probing, removal by shifting back.
//!
//! A slot is a `u32`; whether it is the right one only the entry can tell, so callers pass closures that look at entries. There
//! are 64 tables, chosen by the top bits of the hash, each growing by itself: no growth moves more than a 64th of the whole.

use super::entries::NONE;

const SHARD_BITS: u32 = 6;
const SLOTS_MIN: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    shards: Vec<Shard>,
}

#[derive(Debug, Clone, Default)]
struct Shard {
    /// A power of two of slots, or none. Vacant slots hold [`NONE`].
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

    /// What stands where the hash points to: usually the right entry. One load.
    #[inline]
    pub(super) fn first(&self, hash: u64) -> u32 {
        let slots = &self.shard(hash).slots;
        if slots.is_empty() {
            return NONE;
        }
        slots[hash as usize & (slots.len() - 1)]
    }

    /// The first entry for which `is` says so, [`NONE`] without one.
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> u32 {
        let slots = &self.shard(hash).slots;
        if slots.is_empty() {
            return NONE;
        }
        let mut at = hash as usize & (slots.len() - 1);
        while slots[at] != NONE && !is(slots[at]) {
            at = (at + 1) & (slots.len() - 1);
        }
        slots[at]
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
        while slots[hole] != entry {
            assert!(slots[hole] != NONE, "only what is in the index is removed");
            hole = (hole + 1) & mask;
        }
        // Shift back whatever would not be found any more across the hole.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            if slots[at] == NONE {
                break;
            }
            let home = hash_of(slots[at]) as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                slots[hole] = slots[at];
                hole = at;
            }
        }
        slots[hole] = NONE;
        *used -= 1;
    }
}

impl Shard {
    fn put(&mut self, hash: u64, entry: u32) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != NONE {
            at = (at + 1) & mask;
        }
        self.slots[at] = entry;
    }

    fn grow(&mut self, hash_of: &impl Fn(u32) -> u64) {
        let len = (self.slots.len() * 2).max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![NONE; len].into_boxed_slice());
        for &entry in old.iter().filter(|&&entry| entry != NONE) {
            self.put(hash_of(entry), entry);
        }
    }
}
