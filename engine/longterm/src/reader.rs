//! What readers see of the bucket: the blocks of a tenant that overlap a range and are not on this node.
//!
//! The list of local blocks is taken first and the index looked at then: what leaves the disk is in the index before it does. A block that is on
//! the disk, or from which one on the disk was merged, is left out here: the disk decides.
//!
//! A block may vanish between the index and the read of it. Then [`Longterm::refresh`] reads the index anew, and the look is repeated, once.

use std::collections::HashSet;
use std::sync::Arc;

use block::{SharedFile, StoredBlock};
use model::TenantId;
use objstore::Bucket;

use crate::error::Error;
use crate::fetch::{Breaker, Headers, Remote};
use crate::indexes::{Indexes, Known};
use crate::keys;
use crate::metrics::Metrics;
use crate::pages::Caches;

pub use crate::fetch::Tally;

/// Id of a block, its place in the order of logging, and the first and last time of a tenant in it.
pub type Place = (u128, u64, (i64, i64));

/// Tells the wall clock, milliseconds since 1970.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The reading side. Cheap to clone.
#[derive(Clone)]
pub struct Longterm {
    bucket: Arc<dyn Bucket>,
    indexes: Arc<Indexes>,
    headers: Option<Arc<Headers>>,
    breaker: Arc<Breaker>,
    metrics: Metrics,
    caches: Caches,
    age_ms: i64,
    clock: Clock,
}

impl Longterm {
    /// Over a bucket. `headers`: where indexes of blocks are kept, up to so many bytes.
    ///
    /// Errors: these cannot be listed.
    pub fn new(
        bucket: Arc<dyn Bucket>,
        indexes: Arc<Indexes>,
        headers: Option<(Arc<dyn Bucket>, u64)>,
        age_ms: i64,
        clock: impl Fn() -> i64 + Send + Sync + 'static,
        metrics: &crate::Uploader,
    ) -> Result<Longterm, Error> {
        let metrics = metrics.metrics.clone();
        let headers = match headers {
            Some((files, bytes_max)) => {
                let headers = Headers::open(files, bytes_max, metrics.clone())?;
                Some(Arc::new(headers))
            }
            None => None,
        };
        if headers.is_some() {
            indexes.note_left();
        }
        let clock: Clock = Arc::new(clock);
        Ok(Longterm {
            bucket,
            indexes,
            headers,
            breaker: Arc::new(Breaker::new(clock.clone())),
            metrics,
            caches: Caches::default(),
            age_ms,
            clock,
        })
    }

    /// With caches between bucket and reader.
    pub fn with_caches(self, caches: Caches) -> Longterm {
        Longterm { caches, ..self }
    }

    /// The blocks of a tenant that may have samples in `min..=max` and are not among `local`, ascending by order of logging. What is read of them
    /// is counted in `tally`.
    ///
    /// Errors: the index of the tenant is not known and cannot be had.
    pub fn blocks(
        &self,
        tenant: &TenantId,
        (min, max): (i64, i64),
        local: &[Arc<StoredBlock>],
        tally: &Arc<Tally>,
    ) -> Result<Vec<Arc<StoredBlock>>, Error> {
        let known = self.known(tenant)?;
        let mut overlapping = known
            .index
            .blocks
            .iter()
            .filter(|entry| entry.min_time <= max && entry.max_time >= min)
            .peekable();
        if overlapping.peek().is_none() {
            return Ok(Vec::new());
        }
        let mut here: HashSet<u128> = HashSet::new();
        for block in local {
            let meta = block.meta();
            if meta.part(tenant).is_some() {
                here.insert(meta.info.id);
                here.extend(&meta.info.sources);
            }
        }
        let blocks = overlapping
            .filter(|entry| !here.contains(&entry.id))
            .map(|entry| {
                let index = entry.start + entry.chunk_bytes;
                let remote = Remote {
                    bucket: Arc::clone(&self.bucket),
                    breaker: Arc::clone(&self.breaker),
                    headers: self.headers.clone(),
                    key: entry.key.clone(),
                    id: entry.id,
                    len: entry.bytes,
                    caches: self.caches.clone(),
                    index: index..index + entry.index_bytes + entry.directory_bytes,
                    tally: Arc::clone(tally),
                };
                let name = format!("{}/{}", self.bucket.name(), entry.key);
                let file = SharedFile::elsewhere(&name, entry.bytes, Arc::new(remote));
                entry.stored(tenant, file)
            });
        Ok(blocks.collect())
    }

    /// Id, place in the order of logging, and first and last time of all that the bucket has of a tenant. Errors: as of [`Longterm::blocks`].
    pub fn entries(&self, tenant: &TenantId) -> Result<Vec<Place>, Error> {
        let known = self.known(tenant)?;
        let entries = known.index.blocks.iter();
        let entries = entries.map(|e| (e.id, e.order, (e.min_time, e.max_time)));
        Ok(entries.collect())
    }

    /// The index of a tenant; one that is known, however old, while the bucket is in trouble.
    fn known(&self, tenant: &TenantId) -> Result<Arc<Known>, Error> {
        let now_ms = (self.clock)();
        if let Some(reason) = self.breaker.is_open() {
            return self.indexes.cached(tenant).ok_or_else(|| {
                let key = keys::index(tenant);
                Error::Bucket(objstore::Error::Unavailable { key, reason })
            });
        }
        let known = self.indexes.get(tenant, now_ms, self.age_ms);
        if let Err(Error::Bucket(error)) = &known {
            self.breaker.note(Some(error));
        }
        if let Some(headers) = &self.headers {
            for (id, start) in self.indexes.take_left() {
                headers.left(id, start);
            }
        }
        known
    }

    /// Reads the index of a tenant anew: a block has vanished.
    pub fn refresh(&self, tenant: &TenantId) -> Result<(), Error> {
        self.metrics.retries.inc();
        self.indexes.load(tenant, (self.clock)()).map(drop)
    }

    /// Notes what a query has cost the bucket.
    pub fn note(&self, tally: &Tally) {
        self.metrics.requests.inc_by(tally.requests());
    }
}

impl std::fmt::Debug for Longterm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Longterm({})", self.bucket.name())
    }
}
