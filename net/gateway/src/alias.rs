//! From the bytes of a series' labels to the series on its core, without looking into the bytes.
//!
//! Prometheus sends the same label bytes every scrape. Each gateway thread therefore keeps a table from the keyed hash of
//! those bytes to `(core, SeriesKey)`; the labels themselves are only parsed when the hash is not known. The hash is xxh3-128 with a secret
//! derived from a secret of this process, the tenant, the protocol and the tenant's settings epoch ([`Secret::of_tenant`]). So the aliases
//! of two tenants never meet, nobody outside can aim at a collision (a match of all 128 bits is taken as equality), and
//! a change of a tenant's settings makes all its aliases unreachable at once; they leave as idle ones do.
//!
//! ```text
//! entries  [hash 16 | key 8 | next 3 | source 2 | core 2 | stamp 1]   32 bytes, in pages, never moved
//! by_hash  u32 per slot -> entry, tag   finds an alias        64 open-addressing tables, each grows alone
//! by_key   u32 per slot -> entry, tag   finds the other aliases of a series
//! ```
//!
//! A lookup that hits memory costs 110-340 ns of cache misses; two things take them away. *Prediction*: `next` of an entry is the entry
//! that followed it last time; a sender's order hardly changes, so comparing the predicted entry's hash is nearly always all there is to do, and as entries lie in
//! the order in which they were learned, memory is read forwards. *Stages*: where the prediction fails, the entries of up to [`STAGE`] series
//! are asked for before any is waited for. *Asking ahead*: where the order of a whole block of series is not that of last time, the slot of the next block's
//! series is asked for when one is hashed ([`AliasTable::prefetch`]), its entry some series later, when the slot is there ([`AliasTable::candidate`]),
//! and both are there when the block is looked up ([`AliasTable::resolve_asked`]). Nothing is predicted then, which would be two more misses.
//!
//! A series that was refused, by a rule for labels or a limit of series, has an alias too: it stands for the reason ([`Refused`]), so that
//! a tenant that is over its limit costs a lookup per series and scrape and not a parse and a message. It holds for one to five minutes
//! (spread by hash, so that some are tried again all the time), and only as long as the tenant's epoch of refusals: see `distributor::tenants`.
//!
//! A series of an HA replica has an alias that says in 16 bits which ([`Target::source`]): the replica label is gone from the labels, and who is elected
//! is decided on every push. A series of a replica that is not elected has an alias for just that.
//!
//! Bounds: at most [`ALIASES_PER_SERIES_MAX`] aliases of a series (a sender that pads varints only pushes out its own), at most `count_max` in the table
//! (the one unused longest among some neighbours goes), refused ones are at most an eighth of that, of which a tenant has at most twice what the others left free, and what was not used for [`IDLE_STAMPS`] stamps is swept out step
//! by step, so that churn does not leak. Memory is 43 to 54 bytes an alias; [`AliasTable::bytes`] tells.

mod entries;
mod index;

use std::hash::{BuildHasher, RandomState};

use model::{CoreId, Generation, SeriesKey, SeriesRef, TenantId};
use wire::remote_write::Protocol;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_secret};

use entries::{Entries, Entry, NONE, PASSIVE, REFUSED};
use index::Index;

/// Aliases that one table can hold.
pub const ALIASES_MAX: u32 = index::ENTRIES_MAX;

/// Further encodings of a series push out the one unused longest.
pub const ALIASES_PER_SERIES_MAX: usize = 4;

/// Lookups in flight together where predictions fail. More than the line fill buffers of a core (10-16) bring nothing.
pub const STAGE: usize = 16;

/// Age at which an unused alias is swept out, in steps of [`AliasTable::advance`]: an hour of minutes, longer than any
/// usual scrape interval.
pub const IDLE_STAMPS: u16 = 60;

/// Entries that one call of [`AliasTable::sweep`] looks at: 2 KiB of memory read forwards.
const SWEEP_ENTRIES: u32 = 64;

/// Refused series are tried again after this many stamps, and up to as many more as follow.
const REFUSED_STAMPS_MIN: u16 = 2;
const REFUSED_STAMPS_SPREAD: u16 = 4;

/// One in so many aliases may be that of a refused series: whoever sends nonsense must not push out what is good.
const REFUSED_SHARE: u32 = 8;

/// Values of [`Refuser::share`].
const SHARES: usize = 1 << u8::BITS;

/// Entries from which the one to push out is chosen when the table is full.
const EVICTION_CANDIDATES: u32 = 16;

const SECRET_BYTES: usize = 192;

/// Hash of a series' label bytes under a tenant's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AliasHash(pub u128);

/// Keys the alias hash; never leaves the process, never printed.
#[derive(Clone)]
pub struct Secret(Box<[u8; SECRET_BYTES]>);

impl Secret {
    /// A secret of this process, from the randomness that the operating system gives to hash maps.
    pub fn random() -> Secret {
        let (a, b) = (RandomState::new(), RandomState::new());
        Secret::expand(|word| a.hash_one(word) ^ b.hash_one(!word).rotate_left(17))
    }

    /// The same secret every time, for tests and measurements.
    pub fn from_seed(seed: u64) -> Secret {
        Secret::expand(|word| {
            let input = [seed, word].map(u64::to_le_bytes).concat();
            xxh3_64(&input)
        })
    }

    /// The secret under which one tenant's label bytes are hashed.
    pub fn of_tenant(&self, tenant: &TenantId, protocol: Protocol, epoch: u64) -> Secret {
        let mut input = Vec::with_capacity(tenant.as_str().len() + 17);
        input.extend_from_slice(&epoch.to_le_bytes());
        input.push(protocol as u8);
        input.extend_from_slice(tenant.as_str().as_bytes());
        let fixed = input.len();
        Secret::expand(|word| {
            input.truncate(fixed);
            input.extend_from_slice(&word.to_le_bytes());
            xxh3_128_with_secret(&input, &self.0[..]) as u64
        })
    }

    /// Hashes label bytes.
    #[inline]
    pub fn hash(&self, label_bytes: &[u8]) -> AliasHash {
        AliasHash(xxh3_128_with_secret(label_bytes, &self.0[..]))
    }

    fn expand(mut word: impl FnMut(u64) -> u64) -> Secret {
        let mut bytes = Box::new([0; SECRET_BYTES]);
        for (i, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(&word(i as u64).to_le_bytes());
        }
        Secret(bytes)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What an alias stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The core that owns the series.
    pub core: CoreId,
    /// The series there.
    pub key: SeriesKey,
    /// The number of its HA cluster and replica, see `ha::sources`; 0: none.
    pub source: u16,
}

/// Why a series was refused when its labels were last looked at, kept in an alias in place of core and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The caller's number for it.
    pub(crate) reason: u8,
    /// Whose it is.
    pub(crate) refuser: Refuser,
    /// The stamp from which on it is to be tried again.
    until: u16,
}

/// A tenant as far as its refused series are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Refuser {
    /// Its epoch of refusals: aliases of refused series hold in the one in which they were learned.
    pub(crate) epoch: u32,
    /// Which share of the room for them it uses; by chance, so that hardly two tenants use the same.
    pub(crate) share: u8,
}

impl Target {
    /// Whether this is a series on a core.
    #[inline(always)]
    pub(crate) fn is_series(self) -> bool {
        self.core.0 < PASSIVE
    }

    /// What this alias says if it is that of a series that was refused.
    #[inline(always)]
    pub(crate) fn refused(self) -> Option<Refused> {
        (self.core.0 == REFUSED).then_some(Refused {
            reason: self.key.series.0 as u8,
            refuser: Refuser {
                epoch: self.key.generation.0,
                share: (self.key.series.0 >> 8) as u8,
            },
            until: (self.key.series.0 >> 16) as u16,
        })
    }

    fn is_same_series(self, other: Target) -> bool {
        self.core == other.core && self.key == other.key
    }

    fn of_passive(source: u16) -> Target {
        Target {
            core: CoreId(PASSIVE),
            key: SeriesKey {
                series: SeriesRef(0),
                generation: Generation(0),
            },
            source,
        }
    }

    fn of_refused(refused: Refused, source: u16) -> Target {
        let Refuser { epoch, share } = refused.refuser;
        let series = u32::from_le_bytes([
            refused.reason,
            share,
            refused.until as u8,
            (refused.until >> 8) as u8,
        ]);
        Target {
            core: CoreId(REFUSED),
            key: SeriesKey {
                series: SeriesRef(series),
                generation: Generation(epoch),
            },
            source,
        }
    }
}

/// Where the walk over one body is in the order of the sender, so that the next series can be guessed.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    last: u32,
    /// How many lookups go in the next stage; doubles with every prediction that fails in a row.
    stage: usize,
}

impl Default for Cursor {
    fn default() -> Cursor {
        Cursor {
            last: NONE,
            stage: 1,
        }
    }
}

impl Cursor {
    /// Whether the order of this body is not that of the last one. Changes only when series are looked up.
    #[inline(always)]
    pub(crate) fn is_lost(&self) -> bool {
        self.stage > 1
    }
}

/// Counts since the table was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Lookups that the prediction answered.
    pub predicted: u64,
    /// Lookups that the index answered.
    pub found: u64,
    /// Lookups that nothing answered.
    pub missed: u64,
    /// Aliases pushed out by others, because of a bound.
    pub evicted: u64,
}

/// The aliases of one gateway thread; see the module.
#[derive(Debug)]
pub struct AliasTable {
    entries: Entries,
    by_hash: Index,
    by_key: Index,
    count_max: u32,
    /// The current stamp: entries that are used carry it.
    now: u16,
    /// Where the sweep goes on.
    sweep_at: u32,
    /// Where the next eviction looks.
    evict_at: u32,
    /// Entries of refused series, all and by share.
    refused: u32,
    refused_of: Box<[u32; SHARES]>,
    /// Whether the last body ended in another order than the one before it: the next will hardly begin in it.
    lost: bool,
    counts: Counts,
}

impl AliasTable {
    /// An empty table for at most `count_max` aliases.
    pub fn new(count_max: u32) -> AliasTable {
        assert!(
            count_max > 0 && count_max <= ALIASES_MAX,
            "entries are numbered in 24 bits"
        );
        AliasTable {
            entries: Entries::default(),
            by_hash: Index::default(),
            by_key: Index::default(),
            count_max,
            now: 0,
            sweep_at: 0,
            evict_at: 0,
            refused: 0,
            refused_of: Box::new([0; SHARES]),
            lost: false,
            counts: Counts::default(),
        }
    }

    /// A fresh cursor, for a body.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor {
            last: NONE,
            stage: if self.lost { STAGE } else { 1 },
        }
    }

    /// Looks up the series of a body, in its order; `targets[i]` is that of `hashes[i]`. The cursor is fresh for each body.
    ///
    /// Cost: 3-5 ns a series where the order is that of last time, a share of overlapped cache misses where it is not.
    pub fn resolve(
        &mut self,
        cursor: &mut Cursor,
        hashes: &[AliasHash],
        targets: &mut [Option<Target>],
    ) {
        assert_eq!(hashes.len(), targets.len());
        let mut at = 0;
        while at < hashes.len() {
            let predicted = self.follow(cursor, &hashes[at..], &mut targets[at..]);
            at += predicted;
            if predicted > 0 {
                cursor.stage = 1;
            }
            let end = hashes.len().min(at + cursor.stage);
            if at < end {
                self.search(cursor, &hashes[at..end], &mut targets[at..end]);
                cursor.stage = (cursor.stage * 2).min(STAGE);
                at = end;
            }
        }
        self.lost = cursor.is_lost();
    }

    /// Begins to fetch what [`AliasTable::candidate`] will need for this hash.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: AliasHash) {
        self.by_hash.prefetch(hash.0 as u64);
    }

    /// The number of the entry that is likely that of this hash; begins to fetch what [`AliasTable::resolve_asked`] will need of it.
    #[inline(always)]
    pub(crate) fn candidate(&self, hash: AliasHash) -> u32 {
        let candidate = self.by_hash.candidate(hash.0 as u64);
        self.entries.prefetch(candidate);
        candidate
    }

    /// As [`AliasTable::resolve`], of series whose candidates have been asked for, since the cursor is lost. It is found again where
    /// most of them follow one another as they did last time.
    ///
    /// Cost: 5 ns a series if all is there by now.
    pub(crate) fn resolve_asked(
        &mut self,
        cursor: &mut Cursor,
        hashes: &[AliasHash],
        candidates: &mut [u32],
        targets: &mut [Option<Target>],
    ) {
        assert!(hashes.len() == targets.len() && hashes.len() == candidates.len());
        self.confirm(hashes, candidates);
        let followed = self.take_found(cursor, candidates, targets);
        cursor.stage = if followed * 2 > hashes.len() {
            1
        } else {
            STAGE
        };
        self.lost = cursor.is_lost();
    }

    /// Takes predictions as long as they are right; returns how many were.
    fn follow(
        &mut self,
        cursor: &mut Cursor,
        hashes: &[AliasHash],
        targets: &mut [Option<Target>],
    ) -> usize {
        let stamp = self.now as u8;
        let mut right = 0;
        for (hash, target) in hashes.iter().zip(targets) {
            let Some(found) = self.guess(cursor.last, *hash) else {
                break;
            };
            let entry = self.entries.get_mut(found).expect("a right guess is there");
            if entry.stamp != stamp {
                entry.stamp = stamp;
            }
            *target = Some(entry.target());
            cursor.last = found;
            right += 1;
        }
        self.counts.predicted += right as u64;
        right
    }

    /// The entry that followed `last`, or the one after it (then the series between has left), if its hash is the right one.
    #[inline]
    fn guess(&mut self, last: u32, hash: AliasHash) -> Option<u32> {
        let next = self.entries.get(last)?.next();
        let follower = self.entries.get(next)?;
        if follower.hash() == hash {
            return Some(next);
        }
        let second = follower.next();
        if self.entries.get(second)?.hash() != hash {
            return None;
        }
        self.entries.get_mut(last)?.set_next(second);
        Some(second)
    }

    /// Looks up at most [`STAGE`] hashes in the index, and corrects the predictions.
    fn search(
        &mut self,
        cursor: &mut Cursor,
        hashes: &[AliasHash],
        targets: &mut [Option<Target>],
    ) {
        let mut slots = [NONE; STAGE];
        let slots = &mut slots[..hashes.len()];
        for (slot, hash) in slots.iter_mut().zip(hashes) {
            *slot = self.by_hash.candidate(hash.0 as u64);
            self.entries.prefetch(*slot);
        }
        self.confirm(hashes, slots);
        self.take_found(cursor, slots, targets);
    }

    /// Puts the right entry, or [`NONE`], in the place of each candidate that is not the right one.
    #[inline]
    fn confirm(&self, hashes: &[AliasHash], candidates: &mut [u32]) {
        for (candidate, hash) in candidates.iter_mut().zip(hashes) {
            let at_once = self
                .entries
                .get(*candidate)
                .is_some_and(|entry| entry.hash() == *hash);
            if !at_once && *candidate != NONE {
                *candidate = self.find(*hash);
            }
        }
    }

    /// Takes what the index found, and corrects the predictions; returns how many would have been right.
    #[inline]
    fn take_found(
        &mut self,
        cursor: &mut Cursor,
        found: &[u32],
        targets: &mut [Option<Target>],
    ) -> usize {
        let mut followed = 0;
        for (&found, target) in found.iter().zip(targets) {
            let Some(entry) = self.entries.get_mut(found) else {
                *target = None;
                self.counts.missed += 1;
                continue;
            };
            entry.stamp = self.now as u8;
            *target = Some(entry.target());
            self.counts.found += 1;
            if let Some(last) = self.entries.get_mut(cursor.last) {
                followed += usize::from(last.next() == found);
                last.set_next(found);
            }
            cursor.last = found;
        }
        followed
    }

    fn find(&self, hash: AliasHash) -> u32 {
        let is = |at: u32| {
            self.entries
                .get(at)
                .is_some_and(|entry| entry.hash() == hash)
        };
        self.by_hash.find(hash.0 as u64, is)
    }

    /// Remembers what a core told. A known hash is pointed at the new target.
    pub fn learn(&mut self, hash: AliasHash, target: Target) {
        if !self.make_way(hash, target) {
            return;
        }
        let mut others = self.aliases_of(target);
        if others.len() >= ALIASES_PER_SERIES_MAX {
            others.sort_by_key(|&at| self.age(at));
            self.remove(others[others.len() - 1]);
            self.counts.evicted += 1;
        }
        let at = self.insert(hash, target);
        let AliasTable {
            entries, by_key, ..
        } = self;
        by_key.insert(key_hash(target), at, |at| key_hash(entries.at(at).target()));
    }

    /// Remembers that a series was refused, if its tenant has room for more of its kind: it may have twice what is still free of it, so one that
    /// sends nothing but garbage gets two thirds, two such get two fifths each, and somebody else always has some.
    ///
    /// `source` as in [`Target::source`].
    pub(crate) fn learn_refused(
        &mut self,
        hash: AliasHash,
        reason: u8,
        refuser: Refuser,
        source: u16,
    ) {
        let spread = (hash.0 >> 64) as u16 % REFUSED_STAMPS_SPREAD;
        let refused = Refused {
            reason,
            refuser,
            until: self.now.wrapping_add(REFUSED_STAMPS_MIN + spread),
        };
        let target = Target::of_refused(refused, source);
        if self.make_way(hash, target) && self.has_room_for(refuser) {
            self.refused += 1;
            self.refused_of[usize::from(refuser.share)] += 1;
            self.insert(hash, target);
        }
    }

    /// Remembers that a series is that of a replica that is not elected.
    pub(crate) fn learn_passive(&mut self, hash: AliasHash, source: u16) {
        let target = Target::of_passive(source);
        if self.make_way(hash, target) {
            self.insert(hash, target);
        }
    }

    /// Whether a refusal holds still.
    #[inline]
    pub(crate) fn holds(&self, refused: Refused, refuser: Refuser) -> bool {
        let left = refused.until.wrapping_sub(self.now);
        refused.refuser == refuser
            && (1..=REFUSED_STAMPS_MIN + REFUSED_STAMPS_SPREAD).contains(&left)
    }

    /// Aliases of refused series held.
    pub(crate) fn refused_count(&self) -> u32 {
        self.refused
    }

    fn has_room_for(&self, refuser: Refuser) -> bool {
        let free = self.refused_max() - self.refused;
        free > 0 && self.refused_of[usize::from(refuser.share)] < free * 2
    }

    fn refused_max(&self) -> u32 {
        (self.count_max / REFUSED_SHARE).max(1)
    }

    /// Removes what the hash stands for now; false if that is this target.
    fn make_way(&mut self, hash: AliasHash, target: Target) -> bool {
        let known = self.find(hash);
        if known == NONE {
            return true;
        }
        if self.entries.at(known).target() == target {
            return false;
        }
        self.remove(known);
        true
    }

    /// Adds an entry that only its hash leads to yet.
    fn insert(&mut self, hash: AliasHash, target: Target) -> u32 {
        if self.entries.count() == self.count_max {
            self.evict();
        }
        let at = self
            .entries
            .insert(Entry::new(hash, target, self.now as u8));
        let AliasTable {
            entries, by_hash, ..
        } = self;
        by_hash.insert(hash.0 as u64, at, |at| entries.at(at).hash().0 as u64);
        at
    }

    /// Forgets an alias whose series is gone.
    pub fn forget(&mut self, hash: AliasHash) {
        let at = self.find(hash);
        if at != NONE {
            self.remove(at);
        }
    }

    /// Moves the clock of idleness: the caller counts minutes.
    pub fn advance(&mut self, now: u16) {
        self.now = now;
    }

    /// Looks at a few entries for idle ones; called once a body, so that a whole table is seen every so often and no call is long.
    pub fn sweep(&mut self) {
        for _ in 0..SWEEP_ENTRIES.min(self.entries.extent()) {
            let at = self.sweep_at;
            self.sweep_at = (at + 1) % self.entries.extent();
            let Some(entry) = self.entries.get(at) else {
                continue;
            };
            let past = |refused: Refused| !self.holds(refused, refused.refuser);
            if self.age(at) >= IDLE_STAMPS || entry.target().refused().is_some_and(past) {
                self.remove(at);
            }
        }
    }

    /// Aliases held.
    pub fn count(&self) -> u32 {
        self.entries.count()
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.entries.bytes() + self.by_hash.bytes() + self.by_key.bytes()
    }

    /// Counts since the table was made.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn aliases_of(&self, target: Target) -> Vec<u32> {
        let mut found = Vec::new();
        self.by_key.find(key_hash(target), |at| {
            if self
                .entries
                .get(at)
                .is_some_and(|entry| entry.target().is_same_series(target))
            {
                found.push(at);
            }
            false
        });
        found
    }

    /// Stamps since the entry was used, in 8 bits: one that no sweep has come by for four hours looks young again, which costs its place for a while.
    fn age(&self, at: u32) -> u16 {
        self.entries
            .get(at)
            .map_or(0, |entry| (self.now as u8).wrapping_sub(entry.stamp).into())
    }

    fn evict(&mut self) {
        let extent = self.entries.extent();
        assert!(extent > 0, "a full table is not empty");
        let candidates = (0..EVICTION_CANDIDATES.min(extent)).map(|i| (self.evict_at + i) % extent);
        let oldest = candidates.filter(|&at| self.entries.get(at).is_some());
        let oldest = oldest.max_by_key(|&at| self.age(at));
        self.evict_at = (self.evict_at + EVICTION_CANDIDATES) % extent;
        self.remove(oldest.expect("a full table has no vacant entry"));
        self.counts.evicted += 1;
    }

    fn remove(&mut self, at: u32) {
        let entry = *self.entries.at(at);
        let AliasTable {
            entries,
            by_hash,
            by_key,
            ..
        } = self;
        by_hash.remove(entry.hash().0 as u64, at, |at| {
            entries.at(at).hash().0 as u64
        });
        match entry.target().refused() {
            Some(refused) => {
                self.refused -= 1;
                self.refused_of[usize::from(refused.refuser.share)] -= 1;
            }
            None if !entry.target().is_series() => {}
            None => by_key.remove(key_hash(entry.target()), at, |at| {
                key_hash(entries.at(at).target())
            }),
        }
        entries.remove(at);
    }
}

/// Spreads keys over the index. Not keyed: refs are ours, nobody outside chooses them.
fn key_hash(target: Target) -> u64 {
    let key = u64::from(target.key.series.0) << 16 | u64::from(target.core.0);
    let mixed =
        (key ^ u64::from(target.key.generation.0) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests;
