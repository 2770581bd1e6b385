//! The aliases themselves, numbered, in pages: a growing table never copies them, and neighbours in learning order are neighbours in memory.

use model::{CoreId, Generation, SeriesKey, SeriesRef};

use super::{AliasHash, Target};

/// No entry: the number behind the last that there can be.
pub(super) const NONE: u32 = super::index::ENTRIES_MAX;

/// Bits of [`Entry::packed`] that number an entry.
const NEXT_BITS: u32 = 24;

const _: () = assert!(NONE == (1 << NEXT_BITS) - 1, "numbers fit into their bits");

const PAGE_BITS: u32 = 12;
const PAGE: usize = 1 << PAGE_BITS;

/// Marks a vacant entry; its [`Entry::next`] is then the next vacant one.
const VACANT: u16 = u16::MAX;

/// In place of a core: the series was refused.
pub(super) const REFUSED: u16 = u16::MAX - 1;

/// In place of a core: the series is that of a replica that was not elected when it was last looked at. No core has this number or one above.
pub(super) const PASSIVE: u16 = u16::MAX - 2;

/// One alias.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    hash: [u64; 2],
    key: SeriesKey,
    /// The entry that followed this one in the last body, a guess, checked by hash; above it the upper half of [`Target::source`].
    packed: u32,
    core: u16,
    /// The lower half.
    source: u8,
    /// When it was last used.
    pub(super) stamp: u8,
}

const _: () = assert!(size_of::<Entry>() == 32, "two entries a cache line");

impl Entry {
    pub(super) fn new(hash: AliasHash, target: Target, stamp: u8) -> Entry {
        assert!(
            target.core.0 != VACANT,
            "core numbers end below the mark of a vacant entry"
        );
        Entry {
            hash: [hash.0 as u64, (hash.0 >> 64) as u64],
            key: target.key,
            packed: u32::from(target.source >> 8) << NEXT_BITS | NONE,
            core: target.core.0,
            source: target.source as u8,
            stamp,
        }
    }

    fn vacant(next: u32) -> Entry {
        let key = SeriesKey {
            series: SeriesRef(0),
            generation: Generation(0),
        };
        Entry {
            hash: [0; 2],
            key,
            packed: next,
            core: VACANT,
            source: 0,
            stamp: 0,
        }
    }

    #[inline]
    pub(super) fn hash(&self) -> AliasHash {
        AliasHash(u128::from(self.hash[1]) << 64 | u128::from(self.hash[0]))
    }

    /// The number of the entry that followed this one in the last body.
    #[inline(always)]
    pub(super) fn next(&self) -> u32 {
        self.packed & NONE
    }

    #[inline(always)]
    pub(super) fn set_next(&mut self, next: u32) {
        self.packed = self.packed & !NONE | next;
    }

    #[inline]
    pub(super) fn target(&self) -> Target {
        Target {
            core: CoreId(self.core),
            key: self.key,
            source: (self.packed >> NEXT_BITS << 8) as u16 | u16::from(self.source),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Entries {
    pages: Vec<Box<[Entry]>>,
    /// Entries ever used: all numbers below it exist.
    extent: u32,
    count: u32,
    /// Head of the list of vacant entries below `extent`.
    vacant: u32,
}

impl Default for Entries {
    fn default() -> Entries {
        Entries {
            pages: Vec::new(),
            extent: 0,
            count: 0,
            vacant: NONE,
        }
    }
}

impl Entries {
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn extent(&self) -> u32 {
        self.extent
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages.len() * PAGE * size_of::<Entry>()
    }

    /// The entry of that number; `None` for [`NONE`], numbers never given out, and vacant ones.
    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&Entry> {
        let page = self.pages.get((at >> PAGE_BITS) as usize)?;
        let entry = &page[at as usize & (PAGE - 1)];
        (entry.core != VACANT).then_some(entry)
    }

    /// As [`Entries::get`].
    #[inline]
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Entry> {
        let page = self.pages.get_mut((at >> PAGE_BITS) as usize)?;
        let entry = &mut page[at as usize & (PAGE - 1)];
        (entry.core != VACANT).then_some(entry)
    }

    /// Begins to fetch the entry of that number, if there is one.
    #[inline(always)]
    pub(super) fn prefetch(&self, at: u32) {
        if let Some(page) = self.pages.get((at >> PAGE_BITS) as usize) {
            model::prefetch(&page[at as usize & (PAGE - 1)]);
        }
    }

    /// An entry that must be there.
    pub(super) fn at(&self, at: u32) -> &Entry {
        self.get(at)
            .expect("an index names only entries that are there")
    }

    /// Stores an entry and returns its number. Its first guess is the one behind it: series are learned in the order of a body.
    pub(super) fn insert(&mut self, mut entry: Entry) -> u32 {
        let at = if self.vacant == NONE {
            self.extent
        } else {
            self.vacant
        };
        let (page, place) = ((at >> PAGE_BITS) as usize, at as usize & (PAGE - 1));
        if page == self.pages.len() {
            self.pages
                .push(vec![Entry::vacant(NONE); PAGE].into_boxed_slice());
        }
        let slot = &mut self.pages[page][place];
        assert!(slot.core == VACANT, "an entry in use is never overwritten");
        if at == self.extent {
            self.extent += 1;
        } else {
            self.vacant = slot.next();
        }
        entry.set_next(at + 1);
        *slot = entry;
        self.count += 1;
        at
    }

    pub(super) fn remove(&mut self, at: u32) {
        let slot = self.get_mut(at).expect("only what is there is removed");
        *slot = Entry::vacant(NONE);
        let vacant = self.vacant;
        self.pages[(at >> PAGE_BITS) as usize][at as usize & (PAGE - 1)].set_next(vacant);
        self.vacant = at;
        self.count -= 1;
    }
}
