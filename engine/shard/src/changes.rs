//! What of the past changed, for those who keep results of queries.
//!
//! A result for a time depends on samples up to that time only (who keeps others does so at his own risk), so what a write does to kept results is told
//! by its oldest sample: everything from there on may be different. Almost all writes are newer than anything that is kept; to them this costs one
//! comparison a push. The others are noted by tenant, and a reader asks with the mark that it took before it read.
//!
//! The order that makes it right: a reader says up to which time it will keep ([`Changes::history`]) *before* it asks the first core, and asks for changes
//! after the mark ([`History::since`]) whenever it uses what it kept. A core notes a push when it has applied it, before it does anything else. So
//! a push that a read did not see was noted behind the mark, and one that it saw does no harm.
//!
//! Nothing here is durable. Who keeps results elsewhere than in this process, or in another, keeps the number of the history with the mark
//! ([`History`]): a history begins with its process, and results that were kept under another one are worth nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use model::TenantId;

/// Tenants that are watched at once. With one more all begin anew, which costs their kept results.
const TENANTS_MAX: usize = 16 * 1024;

/// Steps of the history of a tenant; beyond it the oldest two become one.
const STEPS_MAX: usize = 64;

/// The changes of all tenants; shared by cores and readers.
#[derive(Debug)]
pub struct Changes {
    /// Another in each process: 64 bits of chance. It tells histories apart, and decides nothing else.
    life: u64,
    /// The newest time of any tenant up to which somebody keeps results.
    floor: AtomicI64,
    tenants: RwLock<HashMap<TenantId, Arc<Changed>>>,
    watches: AtomicU64,
    noted: AtomicU64,
}

/// The changes of one tenant.
#[derive(Debug)]
struct Changed {
    /// Another for each time that watching began.
    watch: u64,
    history: Mutex<Noted>,
}

#[derive(Debug)]
struct Noted {
    /// Up to this time results may be kept.
    floor: i64,
    /// Changes so far.
    count: u64,
    /// After which change, what is the lowest time that changed from it on: ascending in both, since a later change at or below an earlier one says it all.
    lows: VecDeque<(u64, i64)>,
}

/// A history as it was at some time, for whoever keeps results, wherever.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// No other history has this number: that of a process, and one within it.
    pub id: (u64, u64),
    /// The mark: changes up to this one have been taken into account by what is read from now on.
    pub mark: u64,
    /// After which change, what is the lowest time that changed from it on: ascending in both. A bounded number.
    pub lows: Vec<(u64, i64)>,
}

impl History {
    /// From which time on what was read after a mark of this history may be different by now; `i64::MAX` where nothing is.
    ///
    /// A mark that has not been given out says nothing: all may be different.
    pub fn since(&self, mark: u64) -> i64 {
        if mark > self.mark {
            return i64::MIN;
        }
        let at = self.lows.partition_point(|(change, _)| *change <= mark);
        self.lows.get(at).map_or(i64::MAX, |(_, low)| *low)
    }
}

impl Default for Changes {
    fn default() -> Changes {
        Changes {
            life: RandomState::new().hash_one("changes"),
            floor: AtomicI64::new(i64::MIN),
            tenants: RwLock::default(),
            watches: AtomicU64::new(0),
            noted: AtomicU64::new(0),
        }
    }
}

impl Changes {
    /// The history of a tenant now. Before the first core is asked: results up to `until` will be kept, with the mark.
    pub fn history(&self, tenant: &TenantId, until: i64) -> History {
        let changed = self.of(tenant);
        let mark = changed.mark(self, until);
        // What comes between the two is behind the mark, and among what changed: never too little.
        let lows = changed.history().lows.iter().copied().collect();
        let id = (self.life, changed.watch);
        History { id, mark, lows }
    }

    /// The history of a tenant, which begins now if nobody asked before.
    fn of(&self, tenant: &TenantId) -> Arc<Changed> {
        let known = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(changed) = known.get(tenant) {
            return changed.clone();
        }
        drop(known);
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= TENANTS_MAX && !tenants.contains_key(tenant) {
            tenants.clear();
        }
        let begin = || {
            let watch = self.watches.fetch_add(1, Ordering::Relaxed);
            Arc::new(Changed::new(watch))
        };
        tenants.entry(tenant.clone()).or_insert_with(begin).clone()
    }

    /// Samples of a tenant came, the oldest of them at this time. Cost: a load and a comparison where nobody keeps results that old.
    #[inline]
    pub fn note(&self, tenant: &TenantId, oldest: i64) {
        if oldest <= self.floor.load(Ordering::Relaxed) {
            self.note_past(tenant, oldest);
        }
    }

    #[cold]
    fn note_past(&self, tenant: &TenantId, oldest: i64) {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(changed) = tenants.get(tenant)
            && changed.note(oldest)
        {
            self.noted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often something that may have been kept changed.
    pub fn noted(&self) -> u64 {
        self.noted.load(Ordering::Relaxed)
    }
}

impl Changed {
    fn new(watch: u64) -> Changed {
        Changed {
            watch,
            history: Mutex::new(Noted {
                floor: i64::MIN,
                count: 0,
                lows: VecDeque::new(),
            }),
        }
    }

    /// Before the first core is asked: results up to `until` will be kept. The mark goes with them.
    fn mark(&self, all: &Changes, until: i64) -> u64 {
        let mut history = self.history();
        history.floor = history.floor.max(until);
        all.floor.fetch_max(until, Ordering::Relaxed);
        history.count
    }

    fn note(&self, oldest: i64) -> bool {
        let mut history = self.history();
        if oldest > history.floor {
            return false;
        }
        history.count += 1;
        while history.lows.back().is_some_and(|(_, low)| *low >= oldest) {
            history.lows.pop_back();
        }
        let change = history.count;
        history.lows.push_back((change, oldest));
        if history.lows.len() > STEPS_MAX {
            // For marks before the second of them the first, lower one holds; for those between the two it says too much, never too little.
            let lowest = history.lows.pop_front().map(|(_, low)| low);
            if let (Some(lowest), Some(first)) = (lowest, history.lows.front_mut()) {
                first.1 = lowest;
            }
        }
        true
    }

    fn history(&self) -> MutexGuard<'_, Noted> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
