//! The blocks of one directory, open for everybody who reads.
//!
//! A block is in the catalog when its file is durable under its own name and its end has been verified. The list is a snapshot: who took it may
//! read all that is in it, also what is removed meanwhile. A file whose header, footer or trailer is damaged is left where it is, told, counted
//! and not read; what is damaged further inside is told to whoever needs it.
//!
//! A merged file names its sources, and from the moment in which it is in the list its tenants' parts in the sources are *hidden*: readers see
//! everything once, before and after. A source all of whose parts are hidden goes; a start that meets it together with the file that was made of it finishes that.
//! So each merged file is a step of its own that is whole or has not been, however many files a merge writes.
//!
//! Indexes (directory and symbols of a tenant in a block, on the disk or elsewhere) are kept up to [`INDEX_CACHE_BYTES`] and [`INDEX_CACHE_ENTRIES`], those used last,
//! and none that was not used for [`INDEX_IDLE_MINUTES`].
//!
//! Deliberately absent: what is written when. Who removes a block takes it out of the catalog before the file goes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use model::TenantId;
use reactor::{Op, Reactor};

use crate::deletions::Deletions;
use crate::error::Error;
use crate::file::remove_unfinished;
use crate::limits::{INDEX_CACHE_BYTES, INDEX_CACHE_ENTRIES, INDEX_IDLE_MINUTES};
use crate::meta::{Meta, Part};
use crate::reader::{Block, Index};
use crate::source::{SharedFile, Source};

/// The end of the name of every block.
pub const EXTENSION: &str = "block";

/// The end of the name of a block that a start may have to remove: the head still has what is in it.
const PENDING: &str = ".pending.block";

/// A block of the catalog.
#[derive(Debug)]
pub struct StoredBlock {
    path: PathBuf,
    file: SharedFile,
    block: Block,
    /// Which of its parts merged files have taken over; empty: none.
    hidden: Vec<bool>,
}

impl StoredBlock {
    /// A block that is elsewhere, as a reader of blocks wants it. It belongs to no catalog.
    pub fn elsewhere(block: Block, file: SharedFile) -> StoredBlock {
        StoredBlock {
            path: PathBuf::from(file.name()),
            file,
            block,
            hidden: Vec::new(),
        }
    }

    /// What its footer tells.
    pub fn meta(&self) -> &Meta {
        self.block.meta()
    }

    /// What has been read of its end.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// What it has of a tenant, unless a merged file has taken that over.
    pub fn part(&self, tenant: &TenantId) -> Option<&Part> {
        let parts = &self.meta().parts;
        let at = parts
            .binary_search_by(|part| part.tenant.cmp(tenant))
            .ok()?;
        (!self.is_hidden(at) && !parts[at].is_empty()).then(|| &parts[at])
    }

    /// Its parts that have samples and that no merged file has taken over.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let parts = self.meta().parts.iter().enumerate();
        let seen = parts.filter(|(at, part)| !self.is_hidden(*at) && !part.is_empty());
        seen.map(|(_, part)| part)
    }

    fn is_hidden(&self, part: usize) -> bool {
        self.hidden.get(part).is_some_and(|hidden| *hidden)
    }

    /// Whether merged files have taken over all that was in it.
    pub fn is_spent(&self) -> bool {
        !self.hidden.is_empty() && self.hidden.iter().all(|hidden| *hidden)
    }

    /// Whether the head still has what is in it, and may give the file another name or take it back.
    pub fn is_pending(&self) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.ends_with(PENDING))
    }

    /// A merged file of these sources has come.
    fn hide(&self, merged: &Meta) -> Option<StoredBlock> {
        if !merged.info.sources.contains(&self.meta().info.id) {
            return None;
        }
        let parts = &self.meta().parts;
        let mut hidden = self.hidden.clone();
        hidden.resize(parts.len(), false);
        for (hidden, part) in hidden.iter_mut().zip(parts) {
            *hidden |= merged.part(&part.tenant).is_some();
        }
        Some(StoredBlock {
            path: self.path.clone(),
            file: self.file.clone(),
            block: self.block.clone(),
            hidden,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// To read from.
    pub fn source(&self) -> SharedFile {
        self.file.clone()
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.block.len()
    }

    /// Whether it has samples of a tenant that may lie in `min..=max`.
    pub fn overlaps(&self, tenant: &TenantId, min: i64, max: i64) -> bool {
        let part = self.part(tenant);
        part.is_some_and(|part| part.min_time <= max && part.max_time >= min)
    }
}

/// What the catalog holds, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Samples in them; one that is in two blocks counts twice.
    pub samples: u64,
    /// Time of the earliest and of the latest sample, milliseconds; `None` without samples.
    pub times: Option<(i64, i64)>,
    /// Files that could not be opened.
    pub damaged: u64,
    /// Bytes of indexes in memory.
    pub index_bytes: u64,
    /// Deletions that may apply to a block.
    pub deletions: u64,
}

/// A shared list.
type List = Arc<[Arc<StoredBlock>]>;

/// See the module.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Ascending by order of logging.
    blocks: RwLock<List>,
    /// The greatest order given out or found.
    order: AtomicU64,
    damaged: AtomicU64,
    cache: Mutex<Cache>,
    deletions: Deletions,
    /// See [`Catalog::is_settled`].
    settled: Mutex<HashSet<u128>>,
}

/// An index that several readers share; empty until one of them has loaded it.
type Slot = Arc<RwLock<Option<Index>>>;

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<(u128, TenantId), Cached>,
    /// Counts uses.
    now: u64,
    /// Counts calls of [`Catalog::let_go_unused`].
    minute: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Cached {
    slot: Slot,
    used: u64,
    used_minute: u64,
    bytes: usize,
}

impl Catalog {
    /// Opens what is in a directory, which is made when missing: what crashes left half written is removed, and so is what `is_orphan` says by
    /// the name of its file, and what is in files that were merged of it. Returns what an operator should know.
    ///
    /// Errors: the directory cannot be made, listed, or removed from. A damaged block is no error.
    pub fn open(
        &self,
        reactor: &mut Reactor,
        dir: &Path,
        is_orphan: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<String>, Error> {
        reactor.create_dirs(dir)?;
        let mut notes = Vec::new();
        let unfinished = remove_unfinished(reactor, dir)?;
        if unfinished > 0 {
            notes.push(format!(
                "{unfinished} unfinished blocks of the last life were removed"
            ));
        }
        let list = Op::List {
            path: dir.to_owned(),
        };
        let (mut found, mut orphans) = (Vec::new(), 0);
        for entry in reactor.run(list)?.entries() {
            let path = dir.join(&entry.name);
            let is_block = path.extension().is_some_and(|end| end == EXTENSION);
            if entry.is_dir || !is_block {
                continue;
            }
            if entry.name.to_str().is_some_and(is_orphan) {
                reactor.run(Op::Remove { path })?;
                orphans += 1;
                continue;
            }
            match open_block(reactor, &path) {
                Ok(block) => found.push(Arc::new(block)),
                // One that is listed and not there is a link to nothing; everything else may be all blocks' trouble.
                Err(Error::Io(failure)) if !failure.is_not_found() => {
                    return Err(Error::Io(failure));
                }
                Err(error) => {
                    self.damaged.fetch_add(1, Ordering::Relaxed);
                    notes.push(format!("a block is left out: {error}"));
                }
            }
        }
        if orphans > 0 {
            reactor.run(Op::SyncDir {
                path: dir.to_owned(),
            })?;
            notes.push(format!(
                "{orphans} blocks that no checkpoint had come to rely on were removed"
            ));
        }
        for block in &found {
            self.note_order(block.meta().info.order);
        }
        // The bucket may have blocks that were given a place in an earlier life and have left the disk, and may not be asked for a while. No life gives out a place each
        // millisecond, so this one is behind all of them.
        self.note_order(u64::try_from(reactor.wall_ms()).unwrap_or(0));
        self.change(|list| {
            list.append(&mut found);
            let all = list.clone();
            all.iter()
                .for_each(|block| hide_sources(list, block.meta()));
        });
        self.remove_spent(reactor, dir)?;
        Ok(notes)
    }

    /// Removes the files all of whose parts are hidden; gives how many. They leave the list when that is durable: until then what was merged of
    /// them has to say so.
    pub fn remove_spent(&self, reactor: &mut Reactor, dir: &Path) -> Result<usize, Error> {
        let list = self.list();
        let spent: Vec<_> = list.iter().filter(|block| block.is_spent()).collect();
        if spent.is_empty() {
            return Ok(0);
        }
        for block in &spent {
            let path = block.path().to_owned();
            match reactor.run(Op::Remove { path }) {
                Err(failure) if !failure.is_not_found() => return Err(Error::Io(failure)),
                _ => {}
            }
        }
        let path = dir.to_owned();
        reactor.run(Op::SyncDir { path })?;
        spent.iter().for_each(|block| self.remove(block));
        Ok(spent.len())
    }

    /// What has been deleted and may still be in blocks. A reader looks there before it takes the list: what a deletion that is over applied to has left the list.
    pub fn deletions(&self) -> &Deletions {
        &self.deletions
    }

    /// Opens the deletions, which is to be done before anybody asks for the next place in the order of logging. Errors: as of [`Deletions::open`].
    pub fn open_deletions(&self, reactor: &mut Reactor, dir: &Path) -> Result<(), Error> {
        let order = self.deletions.open(reactor, dir)?;
        self.note_order(order);
        Ok(())
    }

    /// The next place in the order of logging, behind all that were given out or found.
    pub fn next_order(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Others have given out places up to this one.
    pub fn note_order(&self, order: u64) {
        self.order.fetch_max(order, Ordering::Relaxed);
    }

    /// Whether nothing that a block was made of is in an index of the bucket any more; also where there is no bucket.
    pub fn is_settled(&self, id: u128) -> bool {
        !self.deletions.has_bucket() || self.settled().contains(&id)
    }

    /// Every index of the bucket knows of a block, or does not any more.
    pub fn set_settled(&self, id: u128, is_settled: bool) {
        let mut settled = self.settled();
        match is_settled {
            true => settled.insert(id),
            false => settled.remove(&id),
        };
    }

    /// Of what is not there any more nothing is settled.
    pub fn keep_settled(&self, ids: &HashSet<u128>) {
        self.settled().retain(|id| ids.contains(id));
    }

    fn settled(&self) -> MutexGuard<'_, HashSet<u128>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a block that has been written and shows it to readers, and of its sources only what it has not.
    pub fn add(&self, reactor: &mut Reactor, path: &Path) -> Result<(), Error> {
        let block = Arc::new(open_block(reactor, path)?);
        self.change(|list| {
            hide_sources(list, block.meta());
            list.push(block);
        });
        Ok(())
    }

    /// The file of a block has got another name.
    pub fn renamed(&self, from: &Path, to: &Path) {
        self.change(|list| {
            if let Some(block) = list.iter_mut().find(|block| block.path == from) {
                *block = Arc::new(StoredBlock {
                    path: to.to_owned(),
                    file: block.file.named(to),
                    block: block.block.clone(),
                    hidden: block.hidden.clone(),
                });
            }
        });
    }

    /// Takes a block out of the list; the file stays.
    pub fn remove(&self, block: &StoredBlock) {
        let id = block.meta().info.id;
        self.change(|list| list.retain(|other| other.meta().info.id != id));
        self.set_settled(id, false);
        let mut cache = self.cache();
        let cache = &mut *cache;
        cache.entries.retain(|(other, _), cached| {
            let stays = *other != id;
            cache.bytes -= if stays { 0 } else { cached.bytes };
            stays
        });
    }

    /// All blocks, ascending by the order of logging.
    pub fn list(&self) -> List {
        let list = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&list)
    }

    /// The blocks that may have samples of a tenant in `min..=max`, ascending by the order of logging.
    pub fn overlapping(&self, tenant: &TenantId, min: i64, max: i64) -> Vec<Arc<StoredBlock>> {
        let list = self.list();
        let some = list.iter().filter(|block| block.overlaps(tenant, min, max));
        some.cloned().collect()
    }

    /// The blocks of which nothing need be kept. A part has expired when it ends `retention` (milliseconds, by tenant) before the tenant's newest
    /// sample, that in the catalog or the wall clock, whichever is earlier; and also when both its samples and the file are older than that by the
    /// wall clock, so that tenants who have gone do not keep the disk. A file stays as long as it hides parts of another.
    pub fn expired(
        &self,
        wall_ms: i64,
        retention: &dyn Fn(&TenantId) -> i64,
    ) -> Vec<Arc<StoredBlock>> {
        let list = self.list();
        let mut newest: HashMap<&TenantId, i64> = HashMap::new();
        for part in list.iter().flat_map(|block| block.parts()) {
            let known = newest.entry(&part.tenant).or_insert(i64::MIN);
            *known = part.max_time.max(*known);
        }
        let ids: HashSet<u128> = list.iter().map(|block| block.meta().info.id).collect();
        let has_expired = |block: &&Arc<StoredBlock>| {
            let mut sources = block.meta().info.sources.iter();
            !block.is_spent()
                && !sources.any(|source| ids.contains(source))
                && block.parts().all(|part| {
                    let retention = retention(&part.tenant);
                    let by_clock = wall_ms.saturating_sub(retention);
                    let by_samples = newest[&part.tenant].min(wall_ms).saturating_sub(retention);
                    let is_old = block.meta().info.created_ms < by_clock;
                    part.max_time < by_samples || (is_old && part.max_time < by_clock)
                })
        };
        list.iter().filter(has_expired).cloned().collect()
    }

    /// Numbers of it all.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary {
            damaged: self.damaged.load(Ordering::Relaxed),
            index_bytes: self.cache().bytes as u64,
            deletions: self.deletions.live_count(),
            ..Summary::default()
        };
        for block in &*self.list() {
            summary.blocks += 1;
            summary.bytes += block.bytes();
            for part in block.parts() {
                summary.samples += part.samples;
                let (min, max) = summary.times.unwrap_or((part.min_time, part.max_time));
                summary.times = Some((min.min(part.min_time), max.max(part.max_time)));
            }
        }
        summary
    }

    /// The index of a tenant in a block, loaded unless it is kept; `None` where the block has nothing of the tenant. To be followed by
    /// [`Catalog::settle`] when it has been used.
    pub fn index(&self, block: &StoredBlock, tenant: &TenantId) -> Result<Option<Slot>, Error> {
        if block.part(tenant).is_none() {
            return Ok(None);
        }
        let key = (block.meta().info.id, tenant.clone());
        let slot = {
            let mut cache = self.cache();
            cache.now += 1;
            let (now, minute) = (cache.now, cache.minute);
            let cached = cache.entries.entry(key).or_insert_with(|| Cached {
                slot: Slot::default(),
                used: now,
                used_minute: minute,
                bytes: 0,
            });
            (cached.used, cached.used_minute) = (now, minute);
            Arc::clone(&cached.slot)
        };
        // One loads, others who want the same wait.
        let mut index = slot.write().unwrap_or_else(PoisonError::into_inner);
        if index.is_none() {
            *index = block.block.index(&mut block.source(), tenant)?;
        }
        drop(index);
        Ok(Some(slot))
    }

    /// An index has been used: notes what it takes, and lets others go where all take too much.
    pub fn settle(&self, block: &StoredBlock, tenant: &TenantId, slot: &Slot) {
        let index = slot.read().unwrap_or_else(PoisonError::into_inner);
        let bytes = index.as_ref().map_or(0, Index::heap_bytes);
        drop(index);
        let mut cache = self.cache();
        let cache = &mut *cache;
        let key = (block.meta().info.id, tenant.clone());
        // It may have been let go meanwhile.
        if let Some(cached) = cache.entries.get_mut(&key) {
            cache.bytes = cache.bytes - cached.bytes + bytes;
            cached.bytes = bytes;
        }
        while cache.bytes > INDEX_CACHE_BYTES || cache.entries.len() > INDEX_CACHE_ENTRIES {
            let oldest = cache.entries.iter().min_by_key(|(_, cached)| cached.used);
            let oldest = oldest.map(|(key, _)| key.clone());
            let gone = oldest.and_then(|key| cache.entries.remove(&key));
            cache.bytes -= gone.map_or(cache.bytes, |gone| gone.bytes);
        }
    }

    /// To be called once a minute: indexes that have not been used for long go.
    pub fn let_go_unused(&self) {
        let mut cache = self.cache();
        let cache = &mut *cache;
        cache.minute += 1;
        cache.entries.retain(|_, cached| {
            let stays = cache.minute - cached.used_minute <= INDEX_IDLE_MINUTES;
            cache.bytes -= if stays { 0 } else { cached.bytes };
            stays
        });
    }

    fn change(&self, how: impl FnOnce(&mut Vec<Arc<StoredBlock>>)) {
        let mut list = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = list.to_vec();
        how(&mut new);
        new.sort_by_key(|block| block.meta().info.order);
        *list = new.into();
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hides what a merged file has taken over of its sources.
fn hide_sources(list: &mut [Arc<StoredBlock>], merged: &Meta) {
    if merged.info.sources.is_empty() {
        return;
    }
    for block in list {
        if let Some(less) = block.hide(merged) {
            *block = Arc::new(less);
        }
    }
}

fn open_block(reactor: &mut Reactor, path: &Path) -> Result<StoredBlock, Error> {
    let mut file = SharedFile::open(reactor, path)?;
    let block = Block::open(&mut file as &mut dyn Source)?;
    block.check_header(&mut file)?;
    Ok(StoredBlock {
        path: path.to_owned(),
        file,
        block,
        hidden: Vec::new(),
    })
}
