//! A pass: what the disk has and the bucket lacks is uploaded, verified, and entered into the indexes of its tenants.
//!
//! 1. Once: find out whether the store keeps conditions; list the tenants; learn the greatest order of logging that the bucket has seen.
//! 2. For each block that is due, in the order of logging: upload it unless every tenant of it is settled; look at what arrived; enter it into
//!    the index of each tenant in it, which takes out what it was merged from.
//! 4. Blocks that are settled and old enough leave the disk, after another look at the object.
//! 3. What deletions apply to in the bucket alone is written again (`deletions`).
//! 5. `cleanup`: what has expired leaves the indexes, what left them long enough ago is deleted, what nothing names is found and deleted.
//!
//! Every step can be the last and the next pass goes on: an upload without an entry is done again, an entry that was made is found.
//!
//! The first answer of a bucket that is in trouble ends a pass; a block that cannot be read is passed over.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::{Block, Catalog, SharedFile, Source, StoredBlock};
use model::TenantId;
use objstore::{Body, Bucket, Conditions, Etag, Stat, list_all, probe};
use prometheus::Registry;
use reactor::{Op, Reactor};

use crate::error::Error;
use crate::fetch::Plain;
use crate::index::Entry;
use crate::indexes::Indexes;
use crate::keys;
use crate::lease::Holding;
use crate::metrics::Metrics;
use crate::options::{Options, millis};

/// Milliseconds that are kept of a tenant.
pub(crate) type Retention = Box<dyn Fn(&TenantId) -> i64 + Send>;

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pass {
    /// Blocks uploaded.
    pub uploaded: u64,
    /// Blocks removed from the disk.
    pub removed: u64,
    /// Objects deleted.
    pub deleted: u64,
    /// Whether something is left for the next one.
    pub pending: u64,
}

/// Brings the blocks of a catalog into a bucket.
pub struct Uploader {
    pub(crate) options: Options,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) bucket: Arc<dyn Bucket>,
    pub(crate) indexes: Arc<Indexes>,
    pub(crate) retention: Retention,
    pub(crate) metrics: Metrics,
    lease: Holding,
    /// Of this process alone.
    chance: u64,
    conditions: Option<Conditions>,
    /// All that have an index; known once the bucket has been listed.
    pub(crate) tenants: Option<BTreeSet<TenantId>>,
    /// Blocks that every index knows of, and what the store called them.
    settled: HashMap<u128, Option<Etag>>,
    /// Blocks that could not be read.
    pub(crate) unreadable: HashSet<u128>,
    pub(crate) next_cleanup_ms: i64,
    pub(crate) next_sweep_ms: i64,
    /// Objects without a name in any index, and since when they are known to be.
    pub(crate) orphans: HashMap<String, i64>,
    /// Tenants that have numbers of their own.
    pub(crate) shown: BTreeSet<TenantId>,
}

impl Uploader {
    /// `retention`: milliseconds by tenant. Errors: the registry has such metrics already.
    pub fn new(
        options: Options,
        catalog: Arc<Catalog>,
        bucket: Arc<dyn Bucket>,
        indexes: Arc<Indexes>,
        retention: impl Fn(&TenantId) -> i64 + Send + 'static,
        registry: &Registry,
    ) -> Result<Uploader, prometheus::Error> {
        let chance = RandomState::new().hash_one(&options.node);
        Ok(Uploader {
            lease: Holding::new(&options.node, chance),
            chance,
            options,
            catalog,
            bucket,
            indexes,
            retention: Box::new(retention),
            metrics: Metrics::register(registry)?,
            conditions: None,
            tenants: None,
            settled: HashMap::new(),
            unreadable: HashSet::new(),
            next_cleanup_ms: i64::MIN,
            next_sweep_ms: i64::MIN,
            orphans: HashMap::new(),
            shown: BTreeSet::new(),
        })
    }

    /// Does all that is due, until `stop` is set.
    ///
    /// Errors: the bucket is in trouble, or somebody else's; the next pass goes on.
    pub fn run(&mut self, reactor: &mut Reactor, stop: &AtomicBool) -> Result<Pass, Error> {
        self.metrics.passes.inc();
        let result = self.pass(reactor, stop);
        let now_ms = reactor.wall_ms();
        let due = self.due(now_ms);
        let oldest = due.iter().map(|block| block.meta().info.created_ms).min();
        let age_ms = oldest.map_or(0, |oldest| now_ms.saturating_sub(oldest).max(0));
        self.metrics.oldest_pending.set(age_ms as f64 / 1000.0);
        let oldest_s = oldest.map_or(0.0, |oldest| oldest as f64 / 1000.0);
        self.metrics.oldest_pending_time.set(oldest_s);
        self.metrics.pending.set(due.len() as i64);
        self.metrics.unreadable.set(self.unreadable.len() as i64);
        self.metrics.index_bytes.set(self.indexes.bytes() as i64);
        match result {
            Ok(mut pass) => {
                pass.pending = due.len() as u64;
                if pass.pending == 0 {
                    self.metrics.last_success.set(now_ms as f64 / 1000.0);
                }
                Ok(pass)
            }
            Err(error) => {
                self.metrics.failures.inc();
                Err(error)
            }
        }
    }

    fn pass(&mut self, reactor: &mut Reactor, stop: &AtomicBool) -> Result<Pass, Error> {
        let mut pass = Pass::default();
        let now_ms = reactor.wall_ms();
        self.begin(now_ms)?;
        let list = self.catalog.list();
        let ids: HashSet<u128> = list.iter().map(|block| block.meta().info.id).collect();
        self.settled.retain(|id, _| ids.contains(id));
        self.catalog.keep_settled(&ids);
        if now_ms >= self.next_cleanup_ms {
            // Those of the bucket alone are tried again.
            self.unreadable.retain(|id| ids.contains(id));
        }
        if now_ms >= self.next_cleanup_ms {
            self.try_again(&list, now_ms);
        }
        for block in self.due(now_ms) {
            if stop.load(Ordering::Relaxed) {
                return Ok(pass);
            }
            // A pass takes hours where there is much to upload.
            if self.conditions == Some(Conditions::Ignored) {
                self.lease.ensure(&*self.bucket, reactor.wall_ms())?;
            }
            match self.settle(&block, reactor.wall_ms()) {
                Ok(uploaded) => pass.uploaded += u64::from(uploaded),
                Err(error) if is_of_the_block(&error) => {
                    let path = block.path().display();
                    tracing::error!(%path, %error, "a block cannot be uploaded");
                    self.unreadable.insert(block.meta().info.id);
                    self.metrics.failures.inc();
                }
                Err(error) => return Err(error),
            }
        }
        // When it fails, for want of space perhaps, the rest is done all the same.
        let applied = self.apply_deletions(reactor, stop);
        pass.removed = self.remove_local(reactor)?;
        pass.deleted = self.clean(reactor.wall_ms(), stop)?;
        applied.map(|()| pass)
    }

    /// Blocks that could not be read, or whose index could not, are tried again where all their indexes can be read.
    fn try_again(&mut self, list: &[Arc<StoredBlock>], now_ms: i64) {
        for block in list {
            let id = block.meta().info.id;
            let mut parts = block.meta().parts.iter();
            if self.unreadable.contains(&id)
                && parts.all(|part| self.indexes.load(&part.tenant, now_ms).is_ok())
            {
                self.unreadable.remove(&id);
            }
        }
    }

    /// What has to be known before anything is written.
    fn begin(&mut self, now_ms: i64) -> Result<(), Error> {
        let conditions = match self.conditions {
            Some(conditions) => conditions,
            None => {
                let key = keys::probe(&self.options.node, &self.options.dir);
                let conditions = probe(&*self.bucket, &key, self.chance)?;
                self.indexes.set_conditions(conditions);
                *self.conditions.insert(conditions)
            }
        };
        if conditions == Conditions::Ignored {
            self.lease.ensure(&*self.bucket, now_ms)?;
        }
        if self.tenants.is_none() {
            let mut tenants = BTreeSet::new();
            list_all(&*self.bucket, keys::TENANTS, &mut |object| {
                tenants.extend(keys::tenant_of_index(&object.key));
            })?;
            for tenant in &tenants {
                let known = match self.indexes.load(tenant, now_ms) {
                    Err(error @ Error::Index { .. }) => {
                        // Uploads of this tenant say so again; others go on.
                        tracing::error!(%tenant, %error, "the index of a tenant cannot be read");
                        continue;
                    }
                    known => known?,
                };
                let orders = known.index.blocks.iter().map(|entry| entry.order);
                self.catalog.note_order(orders.max().unwrap_or(0));
            }
            self.tenants = Some(tenants);
            self.catalog.deletions().set_ready();
        }
        Ok(())
    }

    /// Blocks that belong into the bucket and are not settled, by order of logging.
    fn due(&self, now_ms: i64) -> Vec<Arc<StoredBlock>> {
        let list = self.catalog.list();
        let is_due = |block: &&Arc<StoredBlock>| {
            let info = &block.meta().info;
            let age_ms = now_ms.saturating_sub(info.created_ms);
            !block.is_pending()
                && !block.is_spent()
                && !self.settled.contains_key(&info.id)
                && !self.unreadable.contains(&info.id)
                && (info.level > 0 || age_ms >= millis(self.options.unmerged_after))
        };
        list.iter().filter(is_due).cloned().collect()
    }

    /// Makes sure that a block is in the bucket and in every index that it belongs into. Returns whether it was uploaded.
    pub(crate) fn settle(&mut self, block: &Arc<StoredBlock>, now_ms: i64) -> Result<bool, Error> {
        let (meta, key) = (block.meta(), keys::block(block.meta()));
        let mut uploaded = None;
        for part in &meta.parts {
            let tenant = &part.tenant;
            let age_ms = millis(self.options.index_age);
            let known = self.indexes.get(tenant, now_ms, age_ms)?;
            let is_seen = block.part(tenant).is_some();
            // What a later file has taken over is not "nothing left": that file takes the sources out when it is entered.
            if !is_seen && !part.is_empty() {
                continue;
            }
            let is_entered = known.index.has(meta.info.id) || known.index.supersedes(meta.info.id);
            if is_seen && !is_entered && uploaded.is_none() {
                uploaded = Some(self.upload(block, &key)?);
            }
            let entry = is_seen.then(|| Entry::of(meta, part, &key, block.bytes(), now_ms));
            let mut marked = 0;
            let changed = self.indexes.change(tenant, now_ms, &mut |index| {
                let before = index.deletions.len();
                let changed = index.take_in(&meta.info, entry.as_ref(), now_ms);
                marked = index.deletions.len().saturating_sub(before);
                changed
            })?;
            // Also where the entry was found: the answer to the put may have been lost.
            if changed || is_seen {
                let tenants = self.tenants.as_mut().expect("listed at the beginning");
                tenants.insert(tenant.clone());
            }
            if changed {
                self.metrics.index_writes.inc();
                self.metrics.marked.inc_by(marked as u64);
                // What was taken out is to be deleted some time.
                let due = now_ms.saturating_add(millis(self.options.deletion_delay));
                self.next_cleanup_ms = self.next_cleanup_ms.min(due);
            }
        }
        let etag = uploaded.as_ref().and_then(|stat| stat.etag.clone());
        self.settled.insert(meta.info.id, etag);
        self.catalog.set_settled(meta.info.id, true);
        Ok(uploaded.is_some())
    }

    fn upload(&self, block: &StoredBlock, key: &str) -> Result<Stat, Error> {
        let mut body = FileBody(block.source());
        let put = self.bucket.put_large(key, &mut body)?;
        self.check(block, key, put.etag.as_ref())?;
        // Its end, as a reader would see it.
        let mut arrived = Plain::new(&self.bucket, key, put.len);
        let read = Block::open(&mut arrived)?;
        if read.meta() != block.meta() {
            return Err(Error::Bucket(objstore::Error::Corrupt {
                key: key.to_owned(),
                what: "the footer",
                expected: format!("that of {}", block.path().display()),
                found: format!("that of the block {:032x}", read.meta().info.id),
            }));
        }
        self.metrics.uploads.inc();
        self.metrics.uploaded_bytes.inc_by(put.len);
        tracing::info!(key, bytes = put.len, "uploaded");
        Ok(put)
    }

    /// Whether the store has the object as it was put.
    fn check(&self, block: &StoredBlock, key: &str, etag: Option<&Etag>) -> Result<(), Error> {
        let corrupt = |what, expected: String, found: String| {
            let key = key.to_owned();
            Err(Error::Bucket(objstore::Error::Corrupt {
                key,
                what,
                expected,
                found,
            }))
        };
        let Some(stat) = self.bucket.head(key)? else {
            let key = key.to_owned();
            return Err(Error::Bucket(objstore::Error::NotFound { key }));
        };
        if stat.len != block.bytes() {
            let (expected, found) = (block.bytes().to_string(), stat.len.to_string());
            return corrupt("the length", expected, found);
        }
        match (etag, &stat.etag) {
            (Some(put), Some(found)) if put != found => {
                corrupt("the etag", put.to_string(), found.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Removes from the disk what is old enough and in the bucket for all its tenants.
    pub(crate) fn remove_local(&mut self, reactor: &mut Reactor) -> Result<u64, Error> {
        if self.options.local_retention.is_zero() {
            return Ok(0);
        }
        let now_ms = reactor.wall_ms();
        let before_ms = now_ms.saturating_sub(millis(self.options.local_retention));
        let list = self.catalog.list();
        let ids: HashSet<u128> = list.iter().map(|block| block.meta().info.id).collect();
        let mut removed = 0;
        for block in &*list {
            let info = &block.meta().info;
            let Some(etag) = self.settled.get(&info.id) else {
                continue;
            };
            let newest = block.parts().map(|part| part.max_time).max();
            let is_old = newest.is_none_or(|t| t < before_ms) && info.created_ms < before_ms;
            // What it was merged from would be seen again.
            let hides = info.sources.iter().any(|source| ids.contains(source));
            if !is_old || hides || block.is_spent() {
                continue;
            }
            let key = keys::block(block.meta());
            if block.parts().next().is_some()
                && let Err(error) = self.check(block, &key, etag.as_ref())
            {
                use objstore::Error::{Corrupt, NotFound};
                let is_wrong = matches!(error, Error::Bucket(Corrupt { .. } | NotFound { .. }));
                // No answer says nothing of the object. One that no index names was replaced, and may be gone; another is uploaded again.
                if !is_wrong {
                    return Err(error);
                }
                if self.forget(block, now_ms)? {
                    self.unsettle(info.id);
                    return Err(error);
                }
            }
            if !self.is_entered(block, now_ms)? {
                self.unsettle(info.id);
                continue;
            }
            self.catalog.remove(block);
            let path = block.path().to_owned();
            match reactor.run(Op::Remove { path }) {
                Err(failure) if !failure.is_not_found() => {
                    return Err(Error::Block(failure.into()));
                }
                _ => removed += 1,
            }
        }
        if removed > 0 {
            let path = self.options.dir.clone();
            let synced = reactor.run(Op::SyncDir { path });
            synced.map_err(|failure| Error::Block(failure.into()))?;
            self.metrics.removed_local.inc_by(removed);
        }
        Ok(removed)
    }

    fn unsettle(&mut self, id: u128) {
        self.settled.remove(&id);
        self.catalog.set_settled(id, false);
    }

    /// Whether the index of every tenant of a block, as readers have it, names the block or what took its place.
    fn is_entered(&self, block: &StoredBlock, now_ms: i64) -> Result<bool, Error> {
        for part in block.parts() {
            let known = self.indexes.get(&part.tenant, now_ms, i64::MAX)?;
            let id = block.meta().info.id;
            if !known.index.has(id) && !known.index.supersedes(id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes a block whose object is not what it should be out of the indexes, so that the next pass uploads it anew.
    /// Says whether one of them named it.
    fn forget(&self, block: &StoredBlock, now_ms: i64) -> Result<bool, Error> {
        let id = block.meta().info.id;
        let mut forgot = false;
        for part in block.parts() {
            forgot |= self.indexes.change(&part.tenant, now_ms, &mut |index| {
                let before = index.blocks.len();
                index.blocks.retain(|entry| entry.id != id);
                index.blocks.len() < before
            })?;
        }
        Ok(forgot)
    }
}

/// Whether it is no use to wait for the bucket.
fn is_of_the_block(error: &Error) -> bool {
    matches!(
        error,
        Error::Bucket(objstore::Error::Body { .. } | objstore::Error::Input { .. })
            | Error::Index { .. }
    )
}

/// A file of the disk as the bucket takes it.
struct FileBody(SharedFile);

impl Body for FileBody {
    fn len(&self) -> u64 {
        Source::len(&self.0)
    }

    fn read(&mut self, range: Range<u64>) -> Result<Vec<u8>, String> {
        let read = Source::read(&mut self.0, &[range]);
        let mut read = read.map_err(|error| error.to_string())?;
        Ok(read.pop().unwrap_or_default())
    }
}
