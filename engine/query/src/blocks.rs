//! What lies in the blocks of this node: what the cores have written and let go; and in the bucket, what has left this node.
//!
//! The cores are asked first and the list of blocks is taken when they have answered ([`shard::Mailboxes::blocks`]); so what moves from a core into a
//! block meanwhile is seen twice, which merging takes out again, and never not at all.
//!
//! What has been deleted is asked for before the list is taken, and left out by the order of logging of each block; a series that a block has nothing else of in the
//! range is not in it.
//!
//! All of this reads files and is done on a worker. A block that is damaged fails the queries that need what is damaged in it, by name and place;
//! queries over other times and tenants do not notice.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use block::{Catalog, FoundRun, Gone, Index, SharedFile, StoredBlock, Tombstone};
use longterm::{Longterm, Tally};
use model::{Labels, TenantId, identity};
use shard::{ChunkSlice, ReadError, SelectedSeries};

use crate::fanout::{Allowance, Reach};

/// Bytes of a series in a result beside its labels and chunks, and of a chunk beside its bytes.
const SERIES_BYTES: u64 = 128;
const CHUNK_BYTES: u64 = 64;

/// What a look into the blocks works for.
pub(crate) struct Look<'a> {
    pub(crate) catalog: &'a Catalog,
    /// Where there is one, blocks that are not on this node.
    pub(crate) longterm: Option<&'a Longterm>,
    /// Counts what is read of these.
    pub(crate) tally: &'a Arc<Tally>,
    pub(crate) tenant: &'a TenantId,
    pub(crate) reach: &'a Reach,
    /// Takes memory for what is found.
    pub(crate) hold: &'a (dyn Fn(u64) -> bool + Sync),
    /// Asked between two blocks.
    pub(crate) canceled: &'a (dyn Fn() -> bool + Sync),
}

/// The series of a block that a question is about.
struct Picked<'a> {
    /// Ascending.
    series: &'a [u32],
    /// Series that deletions mean, ascending, and the times that are gone.
    deleted: &'a Deleted,
}

impl Picked<'_> {
    /// What is gone of a series; `None`: nothing.
    fn gone(&self, series: u32) -> Option<Arc<Gone>> {
        let of = |(list, span): &(Vec<u32>, (i64, i64))| {
            list.binary_search(&series).is_ok().then_some(*span)
        };
        let spans: Vec<(i64, i64)> = self.deleted.iter().filter_map(of).collect();
        (!spans.is_empty()).then(|| Arc::new(Gone::of_spans(spans)))
    }
}

impl Look<'_> {
    /// Calls `work` with each block that may have something: those of this node one after the other, then those of the bucket,
    /// several side by side, since each of them waits for an answer.
    fn each<T: Send>(
        &self,
        work: impl Fn(&StoredBlock, &[Tombstone]) -> Result<T, ReadError> + Sync,
    ) -> Result<Vec<T>, ReadError> {
        let Reach {
            min_time, max_time, ..
        } = *self.reach;
        let tombstones = self.catalog.deletions().tombstones(self.tenant);
        let work = |block: &StoredBlock| match tombstones.is_empty() {
            true => work(block, &[]),
            false => work(block, &self.applying(block, &tombstones)),
        };
        let list = self.catalog.list();
        let here = list
            .iter()
            .filter(|block| block.overlaps(self.tenant, min_time, max_time));
        let mut results = here
            .map(|block| work(block))
            .collect::<Result<Vec<T>, _>>()?;
        let Some(longterm) = self.longterm else {
            return Ok(results);
        };
        let range = (min_time, max_time);
        let there = longterm.blocks(self.tenant, range, &list, self.tally);
        let there = there.map_err(|error| ReadError::Bucket(error.to_string()))?;
        if let [one] = &there[..] {
            results.push(work(one)?);
            return Ok(results);
        }
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let some = || {
            let mut some = Vec::new();
            while let Some(block) = there.get(next.fetch_add(1, Ordering::Relaxed)) {
                if failed.load(Ordering::Relaxed) {
                    break;
                }
                let result = work(block);
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                some.push(result);
            }
            some
        };
        let found: Vec<Result<T, ReadError>> = std::thread::scope(|scope| {
            let count = there.len().min(BLOCKS_SIDE_BY_SIDE);
            // This thread is one of them; where the system refuses others they are fewer.
            let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, some).ok();
            let threads: Vec<_> = (1..count).filter_map(spawn).collect();
            let mut found = some();
            for thread in threads {
                let joined = thread.join();
                found.extend(joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            found
        });
        for result in found {
            results.push(result?);
        }
        Ok(results)
    }

    /// The series, `with_chunks` with their runs; a list for each block.
    ///
    /// Errors: a block that cannot be read; the bounds of `allowance`, by block; no memory; canceled.
    pub(crate) fn select(
        &self,
        with_chunks: bool,
        allowance: Allowance,
    ) -> Result<Vec<Vec<SelectedSeries>>, ReadError> {
        self.each(|block, deleted| {
            self.with_index(block, deleted, |index, file, picked| {
                self.select_in(block, (index, file), picked, with_chunks, allowance)
            })
        })
    }

    /// Names of labels (`name` is `None`) or values of one, each once.
    ///
    /// Errors: as [`Look::select`].
    pub(crate) fn labels(&self, name: Option<&str>) -> Result<BTreeSet<String>, ReadError> {
        let mut texts = BTreeSet::new();
        let lists = self.each(|block, deleted| {
            let all = self.reach.matchers.is_empty() && deleted.is_empty();
            match all && self.covers(block) {
                true => self.all_labels(block, name),
                false => self.with_index(block, deleted, |index, file, picked| {
                    self.labels_in(block, (index, file), picked, name)
                }),
            }
        })?;
        for found in lists {
            let before = texts.len();
            texts.extend(found);
            let fresh = texts.len() - before;
            self.take((fresh * size_of::<String>()) as u64)?;
        }
        Ok(texts)
    }

    /// The deletions that may take something from what the block has in the range.
    fn applying(&self, block: &StoredBlock, tombstones: &[Tombstone]) -> Vec<Tombstone> {
        let Some(part) = block.part(self.tenant) else {
            return Vec::new();
        };
        let min = part.min_time.max(self.reach.min_time);
        let max = part.max_time.min(self.reach.max_time);
        let order = block.meta().info.order;
        let applies = |t: &&Tombstone| order < t.order && t.min_time <= max && t.max_time >= min;
        tombstones.iter().filter(applies).cloned().collect()
    }

    /// Whether all that the block has of the tenant lies in the range.
    fn covers(&self, block: &StoredBlock) -> bool {
        let part = block.part(self.tenant);
        part.is_some_and(|part| {
            self.reach.min_time <= part.min_time && part.max_time <= self.reach.max_time
        })
    }

    /// Resolves the matchers and calls `work` with index, file and series.
    fn with_index<T: Default>(
        &self,
        block: &StoredBlock,
        deleted: &[Tombstone],
        work: impl FnOnce(&Index, &mut SharedFile, &Picked<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let Some(slot) = self.index(block)? else {
            return Ok(T::default());
        };
        let mut file = block.source();
        // Resolving keeps pages of postings in the index; all else leaves it as it is, and others may use it.
        let (series, deleted) = self.resolve(&slot, &mut file, deleted)?;
        let picked = Picked {
            series: &series,
            deleted: &deleted,
        };
        let result = {
            let index = slot.read().unwrap_or_else(PoisonError::into_inner);
            match (&*index, series.is_empty()) {
                (Some(index), false) => work(index, &mut file, &picked),
                _ => Ok(T::default()),
            }
        };
        self.catalog.settle(block, self.tenant, &slot);
        result
    }

    fn resolve(
        &self,
        slot: &Slot,
        file: &mut SharedFile,
        deleted: &[Tombstone],
    ) -> Result<(Vec<u32>, Deleted), ReadError> {
        let mut index = slot.write().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = &mut *index else {
            return Ok(Default::default());
        };
        let series = index.select(file, &self.reach.matchers).map_err(failed)?;
        let mut meant = Vec::new();
        if !series.is_empty() {
            for one in deleted {
                let list = index.select(file, &one.matchers).map_err(failed)?;
                meant.push((list, (one.min_time, one.max_time)));
            }
        }
        Ok((series, meant))
    }

    fn index(&self, block: &StoredBlock) -> Result<Option<Slot>, ReadError> {
        if (self.canceled)() {
            return Err(ReadError::Canceled);
        }
        self.catalog.index(block, self.tenant).map_err(failed)
    }

    fn take(&self, bytes: u64) -> Result<(), ReadError> {
        (self.hold)(bytes).then_some(()).ok_or(ReadError::NoMemory)
    }

    fn select_in(
        &self,
        block: &StoredBlock,
        (index, file): (&Index, &mut SharedFile),
        picked: &Picked<'_>,
        with_chunks: bool,
        allowance: Allowance,
    ) -> Result<Vec<SelectedSeries>, ReadError> {
        let mut chunks: HashMap<u32, Vec<ChunkSlice>> = HashMap::new();
        let all = !with_chunks && picked.deleted.is_empty() && self.covers(block);
        let within = match all {
            true => picked.series.to_vec(),
            false => {
                // Whoever wants no samples holds no pages.
                let mut hold = |bytes| !with_chunks || (self.hold)(bytes as u64);
                let mut within = Vec::new();
                self.runs(block, (index, file), picked, &mut hold, &mut |found| {
                    if within.last() != Some(&found.series) {
                        within.push(found.series);
                    }
                    if with_chunks {
                        chunks.entry(found.series).or_default().push(ChunkSlice {
                            min_time: found.min_time,
                            max_time: found.max_time,
                            bytes: found.run.into(),
                        });
                    }
                })?;
                within
            }
        };
        let count = within.len() as u64;
        if allowance.series_max > 0 && count > allowance.series_max {
            return Err(ReadError::TooManySeries {
                limit: allowance.series_max,
                found: count,
            });
        }
        let (mut scratch, mut selected) = (Vec::new(), Vec::with_capacity(within.len()));
        for some in within.chunks(LABELS_AT_ONCE) {
            let mut bytes = 0;
            for (number, labels) in some.iter().zip(index.labels(file, some).map_err(failed)?) {
                let id = identity::series_id(self.tenant, labels.packed(), &mut scratch);
                let labels = self.reach.projection.apply(&labels);
                let mut chunks = chunks.remove(number).unwrap_or_default();
                // Histograms lie behind floats.
                chunks.sort_by_key(|chunk| chunk.min_time);
                bytes += SERIES_BYTES + labels.packed().len() as u64;
                bytes += CHUNK_BYTES * chunks.len() as u64;
                selected.push(SelectedSeries {
                    id,
                    labels,
                    chunks,
                    exemplars: Vec::new(),
                    starts: Vec::new(),
                });
            }
            self.take(bytes)?;
        }
        Ok(selected)
    }

    fn runs(
        &self,
        block: &StoredBlock,
        (index, file): (&Index, &mut SharedFile),
        picked: &Picked<'_>,
        hold: &mut dyn FnMut(usize) -> bool,
        each: &mut dyn FnMut(FoundRun),
    ) -> Result<(), ReadError> {
        let (series, range) = (picked.series, self.reach.times());
        let mut last: (Option<u32>, Option<Arc<Gone>>) = (None, None);
        let each = &mut |mut found: FoundRun| {
            if picked.deleted.is_empty() {
                return each(found);
            }
            if last.0 != Some(found.series) {
                last = (Some(found.series), picked.gone(found.series));
            }
            if let Some(gone) = &last.1 {
                let (min, max) = (found.min_time.max(range.min), found.max_time.min(range.max));
                if gone.covers(min, max) {
                    return;
                }
                found.run = found.run.without(gone);
            }
            each(found);
        };
        let order = block.meta().info.order;
        match index.runs(file, order, series, &range, hold, each) {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(ReadError::NoMemory),
            Err(error) => Err(failed(error)),
        }
    }

    /// All names or values of a block, without a look at series.
    fn all_labels(
        &self,
        block: &StoredBlock,
        name: Option<&str>,
    ) -> Result<Vec<String>, ReadError> {
        let Some(slot) = self.index(block)? else {
            return Ok(Vec::new());
        };
        let mut file = block.source();
        let texts = {
            let mut index = slot.write().unwrap_or_else(PoisonError::into_inner);
            match (&mut *index, name) {
                (None, _) => Ok(Vec::new()),
                (Some(index), None) => index.label_names(&mut file),
                (Some(index), Some(name)) => index.label_values(&mut file, name),
            }
        };
        self.catalog.settle(block, self.tenant, &slot);
        texts.map_err(failed)
    }

    fn labels_in(
        &self,
        block: &StoredBlock,
        (index, file): (&Index, &mut SharedFile),
        picked: &Picked<'_>,
        name: Option<&str>,
    ) -> Result<Vec<String>, ReadError> {
        let mut within = Vec::new();
        match self.covers(block) && picked.deleted.is_empty() {
            true => within.extend_from_slice(picked.series),
            false => self.runs(block, (index, file), picked, &mut |_| true, &mut |found| {
                if within.last() != Some(&found.series) {
                    within.push(found.series);
                }
            })?,
        }
        let mut texts = BTreeSet::new();
        for some in within.chunks(LABELS_AT_ONCE) {
            for labels in index.labels(file, some).map_err(failed)? {
                let wanted = |labels: &Labels| match name {
                    Some(name) => labels.get(name).map(str::to_owned).into_iter().collect(),
                    None => labels.iter().map(|(name, _)| name.to_owned()).collect(),
                };
                let found: Vec<String> = wanted(&labels);
                texts.extend(found);
            }
        }
        Ok(texts.into_iter().collect())
    }
}

/// An index that several readers share.
type Slot = Arc<RwLock<Option<Index>>>;

/// Series that deletions mean, and the times that are gone.
type Deleted = Vec<(Vec<u32>, (i64, i64))>;

/// Series whose labels are decoded before their memory is taken.
const LABELS_AT_ONCE: usize = 4096;

/// Blocks of the bucket that are read at the same time, for one selector.
const BLOCKS_SIDE_BY_SIDE: usize = 8;

fn failed(error: block::Error) -> ReadError {
    match error {
        block::Error::Gone { .. } | block::Error::Unreachable { .. } => {
            ReadError::Bucket(error.to_string())
        }
        error => ReadError::Block(error.to_string()),
    }
}
