//! The indexes of tenants: read, cached, and changed so that of two who change one at the same time neither undoes the other's work.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::TenantId;
use objstore::{Bucket, Condition, Conditions, Etag};

use crate::error::Error;
use crate::index::TenantIndex;
use crate::keys;

/// Times that a change begins anew because others were faster.
const TRIES: u32 = 8;

/// Bytes of an entry in memory, about, its key and sources included.
const ENTRY_BYTES: usize = 400;

/// Blocks that have left and were not taken yet, at most.
const LEFT_MAX: usize = 16 << 10;

/// An index as it was read or written last.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) index: TenantIndex,
    /// `None`: there is no object.
    pub(crate) etag: Option<Etag>,
    loaded_ms: i64,
}

/// Those of all tenants. See the module.
pub struct Indexes {
    bucket: Arc<dyn Bucket>,
    bytes_max: usize,
    /// Whether the store keeps conditions.
    swaps: AtomicBool,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    known: HashMap<TenantId, Cached>,
    /// Counts uses.
    now: u64,
    bytes: usize,
    /// Counts writes: what was read before the last one is not put over it.
    writes: u64,
    /// Blocks that have left the indexes: ids, and where the tenant's part begins. `None`: nobody asks for them.
    left: Option<Vec<(u128, u64)>>,
}

struct Cached {
    known: Arc<Known>,
    used: u64,
    bytes: usize,
}

impl Indexes {
    /// Over a bucket, keeping about so many bytes in memory.
    pub fn new(bucket: Arc<dyn Bucket>, bytes_max: usize) -> Indexes {
        Indexes {
            bucket,
            bytes_max,
            swaps: AtomicBool::new(true),
            cache: Mutex::default(),
        }
    }

    /// What was found out about the store.
    pub(crate) fn set_conditions(&self, conditions: Conditions) {
        let swaps = conditions == Conditions::Kept;
        self.swaps.store(swaps, Ordering::Relaxed);
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has blocks noted that leave the indexes, for [`Indexes::take_left`].
    pub(crate) fn note_left(&self) {
        self.cache().left.get_or_insert_default();
    }

    /// The blocks that have left since the last time: ids, and where the tenant's part begins.
    pub(crate) fn take_left(&self) -> Vec<(u128, u64)> {
        self.cache()
            .left
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.cache().bytes
    }

    /// The index of a tenant if it is in memory, however old.
    pub(crate) fn cached(&self, tenant: &TenantId) -> Option<Arc<Known>> {
        let mut cache = self.cache();
        cache.now += 1;
        let now = cache.now;
        let cached = cache.known.get_mut(tenant)?;
        cached.used = now;
        Some(Arc::clone(&cached.known))
    }

    /// The index of a tenant, at most `age_ms` old; an older one where the bucket cannot be asked.
    pub(crate) fn get(
        &self,
        tenant: &TenantId,
        now_ms: i64,
        age_ms: i64,
    ) -> Result<Arc<Known>, Error> {
        match self.cached(tenant) {
            Some(known) if now_ms.saturating_sub(known.loaded_ms) < age_ms => Ok(known),
            Some(old) => self.load(tenant, now_ms).or(Ok(old)),
            None => self.load(tenant, now_ms),
        }
    }

    /// Reads the index of a tenant.
    pub(crate) fn load(&self, tenant: &TenantId, now_ms: i64) -> Result<Arc<Known>, Error> {
        let writes = self.cache().writes;
        // What was known before the bucket is asked: the first index of the tenant may be written meanwhile.
        let was_there = self
            .cached(tenant)
            .is_some_and(|known| known.etag.is_some());
        let key = keys::index(tenant);
        let (index, etag) = match self.bucket.get(&key)? {
            // Nobody deletes one. To begin anew would make orphans of all that it named.
            None if was_there => {
                let reason = "was there and is gone".to_owned();
                return Err(Error::Index { key, reason });
            }
            None => match self.cached(tenant) {
                Some(written) if written.etag.is_some() => return Ok(written),
                _ => (TenantIndex::new(tenant), None),
            },
            Some(object) => {
                let index = TenantIndex::decode(tenant, &key, &object.bytes)?;
                (index, Some(object.etag))
            }
        };
        let known = Arc::new(Known {
            index,
            etag,
            loaded_ms: now_ms,
        });
        let mut cache = self.cache();
        if cache.writes == writes {
            cache.insert(tenant, &known, self.bytes_max);
        }
        Ok(known)
    }

    /// Changes the index of a tenant with `how`, which says whether it changed anything and may be asked several times. Returns whether it did.
    ///
    /// After an error the change may have been made all the same.
    pub(crate) fn change(
        &self,
        tenant: &TenantId,
        now_ms: i64,
        how: &mut dyn FnMut(&mut TenantIndex) -> bool,
    ) -> Result<bool, Error> {
        let key = keys::index(tenant);
        for attempt in 0..TRIES {
            let known = match attempt {
                0 => self.get(tenant, now_ms, i64::MAX)?,
                _ => self.load(tenant, now_ms)?,
            };
            let mut index = known.index.clone();
            if !how(&mut index) {
                return Ok(false);
            }
            index.updated_ms = now_ms;
            let condition = match (&known.etag, self.swaps.load(Ordering::Relaxed)) {
                (_, false) => Condition::Always,
                (None, true) => Condition::Absent,
                (Some(etag), true) => Condition::Is(etag.clone()),
            };
            let stat = match self.bucket.put(&key, &index.encode(), &condition) {
                Ok(stat) => stat,
                Err(objstore::Error::Condition { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let known = Arc::new(Known {
                index,
                etag: stat.etag,
                loaded_ms: now_ms,
            });
            let mut cache = self.cache();
            cache.writes += 1;
            match known.etag {
                Some(_) => cache.insert(tenant, &known, self.bytes_max),
                // A store that does not tell is asked when it matters.
                None => cache.forget(tenant),
            }
            return Ok(true);
        }
        Err(Error::Contended { key, tries: TRIES })
    }
}

impl Cache {
    fn insert(&mut self, tenant: &TenantId, known: &Arc<Known>, bytes_max: usize) {
        if let (Some(left), Some(before)) = (&mut self.left, self.known.get(tenant)) {
            let here: HashSet<u128> = known.index.blocks.iter().map(|entry| entry.id).collect();
            let blocks = before.known.index.blocks.iter();
            let gone = blocks.filter(|entry| !here.contains(&entry.id));
            left.extend(gone.map(|entry| (entry.id, entry.start + entry.chunk_bytes)));
            // Where nobody reads, nobody takes them: further ones go when their bytes are too many.
            left.truncate(LEFT_MAX);
        }
        self.forget(tenant);
        self.now += 1;
        let entries = known.index.blocks.len() + known.index.deletions.len() + 1;
        let bytes = entries * ENTRY_BYTES;
        let cached = Cached {
            known: Arc::clone(known),
            used: self.now,
            bytes,
        };
        self.bytes += bytes;
        self.known.insert(tenant.clone(), cached);
        while self.bytes > bytes_max && self.known.len() > 1 {
            let oldest = self.known.iter().min_by_key(|(_, cached)| cached.used);
            let oldest = oldest.map(|(tenant, _)| tenant.clone());
            self.forget(&oldest.expect("there are some"));
        }
    }

    fn forget(&mut self, tenant: &TenantId) {
        let gone = self.known.remove(tenant);
        self.bytes -= gone.map_or(0, |gone| gone.bytes);
    }
}

impl std::fmt::Debug for Indexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Indexes")
    }
}
