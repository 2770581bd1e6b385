//! How much memory the process may take, and how near it is to that.
//!
//! Whoever measures the process ([`Memory::note`], some twenty times a second) and whoever has to refuse something ([`Memory::is_tight`], one relaxed load) share one
//! level. Above [`HIGH_PERCENT`] of the limit it is *tight*: cores make no new series, large queries are refused, nothing else changes; below [`LOW_PERCENT`] it is
//! not any more. What lies between the high mark and the limit is for what cannot be refused: open chunks of known series that grow, bodies and queries at
//! work, and whatever comes between two measurements (a core makes at most half a million series a second: 10 MB in 50 ms).
//!
//! Replay needs no more than running did: it makes the same series, without aliases, and writes what it closes as it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Of the limit: above, memory is tight.
pub const HIGH_PERCENT: u64 = 90;

/// Of the limit: below, it is not tight any more. The distance keeps senders from being let in and refused from one measurement to the next.
pub const LOW_PERCENT: u64 = 88;

const _: () = assert!(LOW_PERCENT < HIGH_PERCENT && HIGH_PERCENT < 100);

/// See the module. Clones share it; the default has no limit.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Level>);

#[derive(Debug, Default)]
struct Level {
    /// 0: none.
    limit: u64,
    used: AtomicU64,
    tight: AtomicBool,
}

impl Memory {
    /// With a limit in bytes; 0 is none.
    pub fn new(limit: u64) -> Memory {
        Memory(Arc::new(Level {
            limit,
            ..Level::default()
        }))
    }

    /// The limit; 0 is none.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// As last measured.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// A measurement.
    pub fn note(&self, used: u64) {
        let Level { limit, .. } = *self.0;
        self.0.used.store(used, Ordering::Relaxed);
        let percent = match self.is_tight() {
            true => LOW_PERCENT,
            false => HIGH_PERCENT,
        };
        let mark = (u128::from(limit) * u128::from(percent) / 100) as u64;
        self.0
            .tight
            .store(limit > 0 && used > mark, Ordering::Relaxed);
    }

    /// Whether nothing new should be made.
    #[inline]
    pub fn is_tight(&self) -> bool {
        self.0.tight.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tight_from_the_high_mark_down_to_the_low_one() {
        let memory = Memory::new(1000);
        let levels = [
            (900, false),
            (901, true),
            (890, true),
            (880, false),
            (890, false),
        ];
        for (used, tight) in levels {
            memory.note(used);
            assert_eq!((memory.is_tight(), memory.used()), (tight, used), "{used}");
        }
        let unlimited = Memory::default();
        unlimited.note(u64::MAX);
        assert!(!unlimited.is_tight());
    }
}
