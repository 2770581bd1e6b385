//! The keeper's side of a cut: batches of chunks become files, files become part of the node or go.
//!
//! All of it runs on the keeper's thread with its own reactor, at low priority, and waits for its disk; cores only order and are answered through
//! their mailbox. Memory: one batch, a group of its chunks, and what a builder needs for its series.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use block::{Catalog, Deletion, Effort, FileKind, FileWriter, Info, SealedRun};
use chunk::Encoding;
use model::{CoreId, TenantId};
use reactor::{Op, Reactor};

use super::{final_path, join, pending_path};
use crate::chunkfile::Place;
use crate::chunkfile::bytes::{check, load_chunks};
use crate::limits::{DELETES_WAITING_MAX, SNAPSHOTS_WAITING_MAX};
use crate::mailbox::Mailboxes;
use crate::message::{
    BlockNews, ChunkSlice, Delete, DeleteError, Message, PurgeOrder, SelectedSeries,
};
use crate::purge::Purge;
use crate::snapshot::{self, Snapshot};

/// What cores order.
pub(crate) enum Order {
    /// A core wants to cut: [`Outcome::Turn`] when no other does.
    Begin { core: CoreId },
    /// It is done; the turn goes on.
    End { core: CoreId },
    /// Writes a file: [`Outcome::Written`] when it is durable and shown, [`Outcome::Failed`] when nothing of it is left.
    Write(Box<Job>),
    /// The head has let go of what these hold: a start keeps them from now on.
    Adopt { paths: Vec<PathBuf> },
    /// The head still has what these hold: they go.
    Discard { paths: Vec<PathBuf> },
    /// Removes what has expired. `retentions`: milliseconds, of tenants of this core that keep another time than usual.
    Expire {
        core: CoreId,
        retentions: HashMap<TenantId, i64>,
    },
    /// Deletes; and where the answers of the cores go.
    Delete(Box<(Delete, Sender<Order>)>),
    /// A core has deleted, or has not.
    Purged(Result<u64, String>),
    /// Makes a snapshot; and where the answers of the cores go.
    Snapshot(Box<(Snapshot, Sender<Order>)>),
    /// A core has written a checkpoint for it, or has not.
    Checkpointed(Result<(), String>),
    /// The cores have ended.
    Stop,
    /// All cores have recovered (`recovery`); nothing of the above comes before it.
    Conclude {
        logs: Vec<super::Replayed>,
        mailboxes: Mailboxes,
        reply: Box<dyn FnOnce(Result<Vec<String>, crate::Error>) + Send>,
    },
}

/// What the keeper answers.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The core may cut.
    Turn,
    /// A file is durable and shown to readers.
    Written {
        path: PathBuf,
        /// Chunks that could not be read and are not in it.
        kept: Vec<Place>,
    },
    /// Why there is no file.
    Failed(String),
}

/// Chunks that become one file.
#[derive(Default)]
pub(crate) struct Batch {
    tenants: BTreeMap<TenantId, Vec<Entry>>,
    series: usize,
    bytes: usize,
}

/// A series with the places of its first chunks; what has no place is a copy of the open chunk.
struct Entry {
    series: SelectedSeries,
    places: Vec<Place>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.series == 0
    }

    pub(crate) fn has_room(&self, bytes_max: usize, series_max: usize) -> bool {
        self.bytes < bytes_max && self.series < series_max
    }

    /// Adds a series. Its memory is counted, not that of chunks in files.
    pub(crate) fn add(&mut self, tenant: &TenantId, series: SelectedSeries, places: Vec<Place>) {
        self.series += 1;
        self.bytes += size_of::<Entry>() + series.labels.packed().len();
        self.bytes += series.chunks.len() * (size_of::<ChunkSlice>() + size_of::<Place>());
        let held = series.chunks.iter().filter(|chunk| chunk.bytes.is_held());
        self.bytes += held.map(|chunk| chunk.bytes.len()).sum::<usize>();
        let entry = Entry { series, places };
        match self.tenants.get_mut(tenant) {
            Some(list) => list.push(entry),
            None => drop(self.tenants.insert(tenant.clone(), vec![entry])),
        }
    }
}

/// A file to write.
pub(crate) struct Job {
    pub(crate) core: CoreId,
    pub(crate) generation: u32,
    pub(crate) sequence: u32,
    pub(crate) created_ms: i64,
    pub(crate) batch: Batch,
    /// The core does not want it any more.
    pub(crate) canceled: Arc<AtomicBool>,
}

/// Who may change what lies in blocks: a core that cuts, or a deletion. So what a file holds was logged before a deletion or behind it, never both. And a snapshot,
/// so that nobody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Cut(CoreId),
    Delete,
    Snapshot,
}

/// A deletion that waits or is under way.
struct Deleting {
    delete: Delete,
    orders: Sender<Order>,
    /// What it is in the file of its tenant, once it has the turn.
    id: u128,
    /// Cores that have not answered.
    missing: u16,
    /// Why one of them could not.
    failed: Option<String>,
}

/// A snapshot that waits or is under way.
struct Snapping {
    snapshot: Snapshot,
    orders: Sender<Order>,
    /// Cores that have not answered.
    missing: u16,
    /// Why one of them could not.
    failed: Option<String>,
}

/// Series whose chunks are in memory at the same time: a few megabytes.
const GROUP_SERIES: usize = 1024;

/// The keeper's state.
pub(crate) struct Blocks {
    dir: PathBuf,
    /// Directories of cores, where parts of snapshots may be.
    core_dirs: Vec<PathBuf>,
    catalog: Arc<Catalog>,
    mailboxes: Option<Mailboxes>,
    turn: Option<Turn>,
    waiting: VecDeque<Turn>,
    /// The first of them is under way when it has the turn.
    deletes: VecDeque<Deleting>,
    /// Likewise.
    snapshots: VecDeque<Snapping>,
    retention_ms: i64,
    /// By core.
    retentions: HashMap<CoreId, HashMap<TenantId, i64>>,
}

impl Blocks {
    pub(crate) fn new(dir: PathBuf, core_dirs: Vec<PathBuf>, retention_ms: i64) -> Blocks {
        Blocks {
            dir,
            core_dirs,
            catalog: Arc::default(),
            mailboxes: None,
            turn: None,
            waiting: VecDeque::new(),
            deletes: VecDeque::new(),
            snapshots: VecDeque::new(),
            retention_ms,
            retentions: HashMap::new(),
        }
    }

    /// Where answers go, and the blocks of the node.
    pub(crate) fn connect(&mut self, mailboxes: &Mailboxes) {
        self.catalog = mailboxes.blocks().clone();
        self.mailboxes = Some(mailboxes.clone());
    }

    /// Opens what former lives have left. Returns notes for the operator.
    pub(crate) fn open(
        &mut self,
        reactor: &mut Reactor,
        logs: &[super::Replayed],
    ) -> Result<Vec<String>, block::Error> {
        // Places in the order of logging are given out behind them.
        let data_dir = self.data_dir().to_owned();
        snapshot::remove_unfinished(reactor, &data_dir, &self.core_dirs)?;
        let deletions = super::deletions_directory(&data_dir);
        self.catalog.open_deletions(reactor, &deletions)?;
        let is_orphan = |name: &str| super::is_orphan(name, logs);
        let notes = self.catalog.open(reactor, &self.dir, &is_orphan)?;
        let pending = self.catalog.list();
        let pending = pending.iter().map(|block| block.path().to_owned());
        self.adopt(
            reactor,
            pending.filter(|p| final_path(p).is_some()).collect(),
        );
        Ok(notes)
    }

    fn data_dir(&self) -> &Path {
        self.dir.parent().unwrap_or(Path::new(""))
    }

    /// Does what a core has ordered.
    pub(crate) fn serve(&mut self, reactor: &mut Reactor, order: Order) {
        match order {
            Order::Begin { core } => {
                self.waiting.push_back(Turn::Cut(core));
                self.next_turn(reactor);
            }
            Order::End { core } => {
                if self.turn == Some(Turn::Cut(core)) {
                    self.turn = None;
                }
                self.next_turn(reactor);
            }
            Order::Write(job) => {
                let core = job.core;
                let outcome = match self.write(reactor, *job) {
                    Ok((path, kept)) => Outcome::Written { path, kept },
                    Err(reason) => Outcome::Failed(reason),
                };
                self.answer(core, outcome);
            }
            Order::Adopt { paths } => self.adopt(reactor, paths),
            Order::Discard { paths } => {
                for path in paths {
                    self.remove(reactor, &path);
                }
            }
            Order::Expire { core, retentions } => {
                self.retentions.insert(core, retentions);
                self.expire(reactor);
            }
            Order::Delete(delete) => {
                let (delete, orders) = *delete;
                self.delete(reactor, delete, orders);
            }
            Order::Purged(result) => self.purged(reactor, result),
            Order::Snapshot(snapshot) => {
                let (snapshot, orders) = *snapshot;
                self.snapshot(reactor, snapshot, orders);
            }
            Order::Checkpointed(result) => self.checkpointed(reactor, result),
            Order::Stop => self.end_requests(),
            Order::Conclude { .. } => unreachable!("concluded by the node"),
        }
    }

    fn answer(&self, core: CoreId, outcome: Outcome) {
        let mailboxes = self.mailboxes.as_ref().expect("connected before it serves");
        mailboxes.send(core, Message::Blocks(BlockNews(outcome)));
    }

    fn next_turn(&mut self, reactor: &mut Reactor) {
        while self.turn.is_none()
            && let Some(next) = self.waiting.pop_front()
        {
            match next {
                Turn::Cut(core) => {
                    self.turn = Some(next);
                    self.answer(core, Outcome::Turn);
                }
                Turn::Delete => self.begin_delete(reactor),
                Turn::Snapshot => self.begin_snapshot(reactor),
            }
        }
    }

    fn delete(&mut self, reactor: &mut Reactor, delete: Delete, orders: Sender<Order>) {
        if self.deletes.len() >= DELETES_WAITING_MAX {
            let reason = format!("{DELETES_WAITING_MAX} deletions wait already");
            return (delete.reply)(Err(DeleteError::Unavailable(reason)));
        }
        self.deletes.push_back(Deleting {
            delete,
            orders,
            id: 0,
            missing: 0,
            failed: None,
        });
        self.waiting.push_back(Turn::Delete);
        self.next_turn(reactor);
    }

    /// Those that wait hold a way to order, with which the keeper would never end.
    fn end_requests(&mut self) {
        let reason = "the node stops".to_owned();
        for Deleting { delete, .. } in self.deletes.drain(..) {
            (delete.reply)(Err(DeleteError::Unavailable(reason.clone())));
        }
        for Snapping { snapshot, .. } in self.snapshots.drain(..) {
            (snapshot.reply)(Err(reason.clone()));
        }
    }

    fn snapshot(&mut self, reactor: &mut Reactor, snapshot: Snapshot, orders: Sender<Order>) {
        if self.snapshots.len() >= SNAPSHOTS_WAITING_MAX {
            return (snapshot.reply)(Err("another snapshot waits already".to_owned()));
        }
        self.snapshots.push_back(Snapping {
            snapshot,
            orders,
            missing: 0,
            failed: None,
        });
        self.waiting.push_back(Turn::Snapshot);
        self.next_turn(reactor);
    }

    /// The first snapshot has the turn: all cores write checkpoints, where their heads are wanted.
    fn begin_snapshot(&mut self, reactor: &mut Reactor) {
        let Some(first) = self.snapshots.front_mut() else {
            return;
        };
        if first.snapshot.canceled.load(Ordering::Relaxed) {
            let first = self.snapshots.pop_front().expect("looked at above");
            return (first.snapshot.reply)(Err("nobody waits for it".to_owned()));
        }
        self.turn = Some(Turn::Snapshot);
        if first.snapshot.skip_head {
            return self.finish_snapshot(reactor);
        }
        let mailboxes = self.mailboxes.as_ref().expect("connected before it serves");
        first.missing = mailboxes.count();
        for core in 0..mailboxes.count() {
            let orders = first.orders.clone();
            let reply = move |result| {
                // The keeper lives as long as somebody can order.
                let _ = orders.send(Order::Checkpointed(result));
            };
            mailboxes.send(CoreId(core), Message::Checkpoint(Box::new(reply)));
        }
    }

    /// A core has answered.
    fn checkpointed(&mut self, reactor: &mut Reactor, result: Result<(), String>) {
        let Some(first) = self.snapshots.front_mut() else {
            return; // As of a deletion.
        };
        first.missing -= 1;
        if let Err(reason) = result {
            first.failed.get_or_insert(reason);
        }
        if first.missing == 0 {
            self.finish_snapshot(reactor);
            self.next_turn(reactor);
        }
    }

    /// What is wanted is in files: they are linked. Gives the turn back.
    fn finish_snapshot(&mut self, reactor: &mut Reactor) {
        let Snapping {
            snapshot, failed, ..
        } = self.snapshots.pop_front().expect("it has the turn");
        let result = match failed {
            Some(reason) => Err(reason),
            // Who asked does not hear its name: nobody would ever remove it.
            None if snapshot.canceled.load(Ordering::Relaxed) => {
                Err("nobody waits for it".to_owned())
            }
            None => {
                let (logs, chance) = (!snapshot.skip_head, RandomState::new().hash_one(0));
                let dirs = (self.data_dir(), &self.core_dirs[..]);
                snapshot::make(reactor, dirs, &self.catalog, logs, chance)
            }
        };
        self.turn = None;
        (snapshot.reply)(result);
    }

    /// What a deletion is in the file of its tenant.
    fn deletion(&self, delete: &Delete, order: u64, wall_ms: i64) -> Deletion {
        Deletion {
            id: block::fresh_id(order),
            order,
            whole_tenant: delete.whole_tenant,
            selectors: delete.selectors.iter().map(|m| m.to_vec()).collect(),
            min_time: delete.min_time,
            max_time: delete.max_time,
            created_ms: wall_ms,
            over_ms: None,
        }
    }

    /// The first deletion has the turn: blocks have it, durably, and then all cores delete, unless it cannot be kept.
    ///
    /// No file is being written while it has the turn: all that are there are before the place in the order of logging that it gets now, and all that come
    /// are behind it, without what the cores delete. Blocks come first: of a value that memory has and that replaced one of a block the old one would be left
    /// where the process ends in between.
    fn begin_delete(&mut self, reactor: &mut Reactor) {
        let Some(Deleting { delete, .. }) = self.deletes.front() else {
            return;
        };
        let mailboxes = self.mailboxes.clone().expect("connected before it serves");
        let unavailable = |why: &str| Some(DeleteError::Unavailable(why.to_owned()));
        let refused = if delete.canceled.load(Ordering::Relaxed) {
            unavailable("nobody waits for it")
        } else if mailboxes.is_stopping() {
            unavailable("the node stops")
        } else {
            None
        };
        let unready = self.catalog.deletions().unready();
        let refused = refused.or(unready.map(DeleteError::Unavailable));
        let deletion = self.deletion(delete, 0, 0);
        let checked = self.catalog.deletions().check(&delete.tenant, &deletion);
        let refused = refused.or(checked.err().map(|error| match error {
            block::Refused::TooMany => DeleteError::TooMany(block::DELETIONS_MAX),
            error => DeleteError::Invalid(error.to_string()),
        }));
        if let Some(error) = refused {
            let first = self.deletes.pop_front().expect("looked at above");
            return (first.delete.reply)(Err(error));
        }
        let order = self.catalog.next_order();
        let deletion = self.deletion(delete, order, reactor.wall_ms());
        let id = deletion.id;
        let deletions = self.catalog.deletions();
        // Else it could be over, for want of blocks, while cores still delete.
        deletions.set_unfinished(order);
        let added = deletions.add(reactor, &delete.tenant, deletion);
        if let Err(error) = added {
            let Deleting { delete, .. } = self.deletes.pop_front().expect("looked at above");
            // It is in force all the same.
            mailboxes.changes().note(&delete.tenant, delete.min_time);
            return (delete.reply)(Err(DeleteError::Unavailable(format!(
                "a part may have been deleted, ask again: {error}"
            ))));
        }
        let first = self.deletes.front_mut().expect("looked at above");
        (first.id, first.missing) = (id, mailboxes.count());
        self.turn = Some(Turn::Delete);
        for core in 0..mailboxes.count() {
            let orders = first.orders.clone();
            let purge = Purge {
                tenant: first.delete.tenant.clone(),
                selectors: first.delete.selectors.clone(),
                min_time: first.delete.min_time,
                max_time: first.delete.max_time,
                reply: Box::new(move |result| {
                    // The keeper lives as long as somebody can order.
                    let _ = orders.send(Order::Purged(result));
                }),
            };
            mailboxes.send(CoreId(core), Message::Purge(PurgeOrder(purge)));
        }
    }

    /// A core has answered; when all have, the deletion is answered.
    fn purged(&mut self, reactor: &mut Reactor, result: Result<u64, String>) {
        let Some(first) = self.deletes.front_mut() else {
            return; // The node stops, and everybody was told so.
        };
        first.missing -= 1;
        if let Err(reason) = result {
            first.failed.get_or_insert(reason);
        }
        if first.missing > 0 {
            return;
        }
        let Deleting {
            delete, failed, id, ..
        } = self.deletes.pop_front().expect("as above");
        let result = match failed {
            Some(reason) => Err(DeleteError::Unavailable(format!(
                "a part may have been deleted, ask again: {reason}"
            ))),
            None => {
                self.catalog.deletions().set_unfinished(0);
                Ok(id)
            }
        };
        let mailboxes = self.mailboxes.as_ref().expect("connected before it serves");
        // Of what was read from blocks before, results may be kept.
        mailboxes.changes().note(&delete.tenant, delete.min_time);
        self.turn = None;
        (delete.reply)(result);
        self.next_turn(reactor);
    }

    /// Errors: why there is no file; what could be removed of it has been.
    fn write(&mut self, reactor: &mut Reactor, job: Job) -> Result<(PathBuf, Vec<Place>), String> {
        let order = self.catalog.next_order();
        let id = block::fresh_id(order);
        let path = pending_path(&self.dir, &job, id);
        let info = Info {
            id,
            kind: FileKind::Cut,
            level: 0,
            order,
            created_ms: job.created_ms,
            origin: String::new(),
            core: job.core.0,
            sources: Vec::new(),
        };
        let options = block::Options {
            effort: Effort::Fast,
            ..block::Options::default()
        };
        let failed = |error: block::Error| error.to_string();
        let mut writer = FileWriter::begin(reactor, &path, info, options, 0).map_err(failed)?;
        match fill(&mut writer, reactor, job) {
            Ok(kept) => {
                let written = writer.complete(reactor);
                // A file that cannot be read again is not relied on.
                let shown = written.and_then(|_| self.catalog.add(reactor, &path));
                if let Err(error) = shown {
                    // It may be there under its name all the same.
                    self.remove(reactor, &path);
                    return Err(error.to_string());
                }
                Ok((path, kept))
            }
            Err(reason) => {
                writer.discard_now(reactor);
                Err(reason)
            }
        }
    }

    /// Gives blocks the names that say that they stay. What cannot be renamed now is by the next start.
    fn adopt(&self, reactor: &mut Reactor, paths: Vec<PathBuf>) {
        for from in paths {
            let Some(to) = final_path(&from) else {
                continue;
            };
            let renamed = reactor.run(Op::Rename {
                from: from.clone(),
                to: to.clone(),
            });
            if renamed.is_ok() {
                self.catalog.renamed(&from, &to);
            }
        }
        self.sync(reactor);
    }

    fn sync(&self, reactor: &mut Reactor) {
        // Names are a matter of tidiness here: a start finds out by itself what they should be.
        let _ = reactor.run(Op::SyncDir {
            path: self.dir.clone(),
        });
    }

    /// Takes a block from readers and from the disk. What cannot be removed is found again by the next start.
    fn remove(&self, reactor: &mut Reactor, path: &Path) {
        let list = self.catalog.list();
        let known = list.iter().find(|block| block.path() == path);
        if let Some(block) = known {
            self.catalog.remove(block);
        }
        let _ = reactor.run(Op::Remove {
            path: path.to_owned(),
        });
    }

    fn expire(&self, reactor: &mut Reactor) {
        let retention = |tenant: &TenantId| {
            let own = self.retentions.values().filter_map(|of| of.get(tenant));
            own.copied().max().unwrap_or(self.retention_ms)
        };
        let expired = self.catalog.expired(reactor.wall_ms(), &retention);
        for block in &expired {
            self.remove(reactor, block.path());
        }
        if !expired.is_empty() {
            self.sync(reactor);
        }
    }
}

/// Adds all that is in a job; returns the chunks that could not be read.
///
/// Errors: the disk; the job is canceled; more chunks are damaged than a disk with a few bad spots has.
fn fill(writer: &mut FileWriter, reactor: &mut Reactor, job: Job) -> Result<Vec<Place>, String> {
    let failed = |error: block::Error| error.to_string();
    let mut kept = Vec::new();
    let mut scratch = (Vec::new(), Vec::new());
    for (tenant, mut list) in job.batch.tenants {
        writer.builder().tenant(&tenant).map_err(failed)?;
        list.sort_by(|a, b| a.series.labels.cmp(&b.series.labels));
        let mut list = list.into_iter();
        loop {
            if job.canceled.load(Ordering::Relaxed) {
                return Err("the cut was given up".to_owned());
            }
            let (mut group, places): (Vec<SelectedSeries>, Vec<Vec<Place>>) = list
                .by_ref()
                .take(GROUP_SERIES)
                .map(|entry| (entry.series, entry.places))
                .unzip();
            if group.is_empty() {
                break;
            }
            // Neighbours in few reads. What is damaged is found below.
            let _ = load_chunks(&mut group, &|| false);
            for (series, places) in group.iter().zip(places) {
                writer.builder().series(&series.labels).map_err(failed)?;
                let mut unreadable = |at: usize, error: String| {
                    let place = places.get(at).ok_or(error)?;
                    kept.push(*place);
                    Ok::<(), String>(())
                };
                if join::is_needed(&series.chunks) {
                    join_chunks(writer, &series.chunks, &mut scratch, &mut unreadable)?;
                    continue;
                }
                for (at, chunk) in series.chunks.iter().enumerate() {
                    if let Err(error) = add_chunk(writer, chunk, &mut scratch)? {
                        unreadable(at, error)?;
                    }
                }
            }
            if kept.len() > DAMAGED_MAX {
                return Err(format!("{} chunks cannot be read", kept.len()));
            }
            writer.settle(reactor).map_err(failed)?;
        }
    }
    Ok(kept)
}

/// Chunks that a cut leaves where they are because they cannot be read, before it gives up.
const DAMAGED_MAX: usize = 10_000;

/// Adds the chunks of a series that has late samples; `unreadable` is told the index of those that cannot be read. Errors: its own, and the block's.
fn join_chunks(
    writer: &mut FileWriter,
    chunks: &[ChunkSlice],
    scratch: &mut (Vec<i64>, Vec<f64>),
    unreadable: &mut dyn FnMut(usize, String) -> Result<(), String>,
) -> Result<(), String> {
    for group in join::groups(chunks) {
        if let [at] = group[..] {
            if let Err(error) = add_chunk(writer, &chunks[at], scratch)? {
                unreadable(at, error)?;
            }
            continue;
        }
        let mut samples = Vec::new();
        for (number, at) in (0..).zip(group) {
            let chunk = &chunks[at];
            let decoded = chunk.bytes.read().map_err(|error| error.to_string());
            let decoded = decoded.and_then(|sealed| {
                check(&sealed, chunk.min_time)?;
                join::decode(&sealed, chunk.bytes.order(), number, &mut samples)
            });
            if let Err(error) = decoded {
                unreadable(at, error)?;
            }
        }
        join::straighten(&mut samples);
        join::add(writer.builder(), &samples).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Adds a chunk. The inner error is the chunk's: nothing was added; the outer one the block's.
fn add_chunk(
    writer: &mut FileWriter,
    chunk: &ChunkSlice,
    (times, values): &mut (Vec<i64>, Vec<f64>),
) -> Result<Result<(), String>, String> {
    let sealed = match chunk.bytes.read() {
        Ok(sealed) => sealed,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let counted = check(&sealed, chunk.min_time)
        .and_then(|()| chunk::encoding(&sealed).map_err(|e| e.to_string()))
        .and_then(|encoding| Ok((encoding, chunk::count(&sealed).map_err(|e| e.to_string())?)));
    let (encoding, count) = match counted {
        Ok(counted) => counted,
        Err(reason) => return Ok(Err(reason)),
    };
    let builder = writer.builder();
    let added = match encoding {
        Encoding::Xor => {
            times.clear();
            values.clear();
            if let Err(error) = chunk::decode(&sealed, times, values) {
                return Ok(Err(error.to_string()));
            }
            builder.samples(times, values)
        }
        Encoding::Histogram | Encoding::FloatHistogram => builder.sealed(&SealedRun {
            min_time: chunk.min_time,
            max_time: chunk.max_time,
            count: u64::from(count),
            bytes: &sealed,
        }),
    };
    added.map(Ok).map_err(|error| error.to_string())
}
