//! Closed chunks leave the head for blocks: the *cut* (`docs/decisions/0009-cut-block-read-free.md`).
//!
//! A core cuts when the samples of a tenant have got an hour past a multiple of two hours, when a tenant has pushed nothing for an hour by the clock (then all that it has), and when
//! it is asked to. One core of a node cuts at a time
//! (the keeper gives the turns), which staggers them and bounds the memory of it. A cut is a walk in slices between commits:
//!
//! 1. *close*: every open chunk that ends before the *limit* of its tenant, the multiple of two hours, is closed; its series is parked. Then the end of
//!    the chunk files is noted (late samples before the limit have been closed then too): what lies before it and ends before the limit is what this cut moves. Nothing can join that later.
//! 2. *list*: these chunks, a bounded batch of series at a time, go to the keeper (`write`) when the log is durable up to all of it; it encodes
//!    them into a file, which is durable and shown to readers when it answers. The chunks stay where they are: they are seen twice, which readers take out.
//! 3. *name*: a checkpoint is written that leaves these chunks out. When it is durable, a start will find the samples in the blocks and nowhere else.
//! 4. *drop*: the chunks are let go. A series of which nothing else is here keeps its last one in mind, which is not read, and leaves whole when it is not written any more (`memtable::gc`).
//!    Chunk files go when no checkpoint names them, as ever.
//!
//! No checkpoint begins between 1 and 3. A file bears the least sequence of a checkpoint that may rely on it; until 4 is over its name says that it is *pending*. So a start
//! keeps a pending file exactly when the checkpoint that it starts from relies on it ([`is_orphan`]): nothing is lost, and nothing is there twice. Where
//! a checkpoint has been damaged or the log is a new one, the file is kept: twice is better than not at all.
//!
//! Whatever fails, the chunks stay in the head, the files are removed, and a later cut tries again.

pub(crate) mod join;
pub(crate) mod write;

use std::collections::HashSet;
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use model::{CoreId, Lsn, TenantId};
use reactor::Tick;

use self::write::{Batch, Job, Order, Outcome};
use crate::chunkfile::{Place, SyncPoint};
use crate::core::Core;
use crate::limits::{
    CUT_BATCH_BYTES, CUT_BATCH_SERIES, CUT_IDLE_MS, CUT_LAG_MS, CUT_MS, CUT_RETRY_S,
    EXEMPLARS_LINGER_S, FUTURE_GRACE_MS, GC_SLICE_ROWS, LATE_CUT_CHUNKS, READ_SLICE_SERIES,
};
use crate::memtable::late::Late;
use crate::memtable::{Memtable, NO_TENANT, Sealed, Tenant};
use crate::message::{ChunkSlice, Delete, Flush, SelectedSeries};
use crate::snapshot::Snapshot;

/// Answered when what was asked for is in blocks, or why it is not.
pub(crate) type Reply = Box<dyn FnOnce(Result<(), String>) + Send>;

/// The cuts of one core.
pub(crate) struct Cuts {
    orders: Sender<Order>,
    stage: Stage,
    /// From the turn on until it is over.
    cut: Option<Cut>,
    /// Whoever asked for what tenants have to be in blocks.
    requests: Vec<Flush>,
    /// By time.
    due: bool,
    /// After a failure.
    not_before: Option<Tick>,
    generation: u32,
    /// Wall clock when the last one began.
    begun_ms: i64,
    pub(crate) made: u64,
    pub(crate) failed: u64,
    pub(crate) moved_chunks: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    /// Waits for its turn among the cores.
    Asked,
    /// Has its turn and waits for the end of a checkpoint that was begun before.
    Turn,
    /// The next row to look at.
    Close(u32),
    List(u32),
    /// A batch waits for the log; then the list goes on at the row.
    Send(u32),
    /// The keeper writes; then the list goes on at the row.
    Write(u32),
    /// Checkpoints begun before this count of them do not name it.
    Name(u64),
    Drop(u32),
}

/// Of whom a cut copies what it does not move.
enum Copies {
    All,
    /// By slot.
    Of(HashSet<u32>),
}

impl Copies {
    fn has(&self, tenant: u32) -> bool {
        match self {
            Copies::All => true,
            Copies::Of(tenants) => tenants.contains(&tenant),
        }
    }
}

/// What one cut moves.
pub(crate) struct Cut {
    /// By slot of the tenant: chunks that end at or behind the first time, the horizon (what is older leaves by itself), and before the second.
    limits: Vec<(i64, i64)>,
    /// Chunks before this point of the chunk files.
    until: Option<SyncPoint>,
    /// Chunks that cannot be read: they stay, and whoever needs them is told.
    kept: HashSet<(u32, u32)>,
    /// Least sequence of the checkpoints that leave its chunks out.
    sequence: u32,
    /// Of whom everything else is copied too.
    copies: Copies,
    batch: Batch,
    /// Where the log ended when the batch was complete.
    tail: Lsn,
    /// Of the job under way.
    canceled: Arc<AtomicBool>,
    written: Vec<PathBuf>,
    replies: Vec<Reply>,
}

impl Cut {
    /// Whether a chunk is in the blocks of this cut, so that the head need not keep it.
    pub(crate) fn moves(&self, tenant: u32, chunk: &Sealed) -> bool {
        let limit = self.limits.get(tenant as usize);
        let place = chunk.place();
        limit.is_some_and(|&(low, limit)| (low..limit).contains(&chunk.max_time()))
            && !chunk.is_in_block()
            && self.until.is_some_and(|until| until.covers(place))
            && (self.kept.is_empty() || !self.kept.contains(&key(place)))
    }
}

fn key(place: Place) -> (u32, u32) {
    (place.file, place.offset)
}

/// The multiple of two hours before which the chunks of a tenant are complete enough, by its newest sample.
fn limit_of(newest: i64) -> i64 {
    let lagging = newest.saturating_sub(CUT_LAG_MS);
    lagging.div_euclid(CUT_MS).saturating_mul(CUT_MS)
}

impl Tenant {
    /// Whether its own samples will not come past a boundary.
    fn is_idle(&self, wall_ms: i64) -> bool {
        self.pushed_ms != i64::MIN && wall_ms.saturating_sub(self.pushed_ms) >= CUT_IDLE_MS
    }

    /// The time before which its chunks can be cut.
    fn cut_limit(&self, wall_ms: i64) -> i64 {
        match self.is_idle(wall_ms) {
            true => self.newest.saturating_add(1),
            false => limit_of(self.newest.min(wall_ms.saturating_add(FUTURE_GRACE_MS))),
        }
    }
}

impl Cuts {
    pub(crate) fn new(orders: Sender<Order>, generation: u32) -> Cuts {
        Cuts {
            orders,
            stage: Stage::Idle,
            cut: None,
            requests: Vec::new(),
            due: false,
            not_before: None,
            generation,
            begun_ms: i64::MIN,
            made: 0,
            failed: 0,
            moved_chunks: 0,
        }
    }

    /// Whether checkpoints have to wait.
    pub(crate) fn holds_checkpoints(&self) -> bool {
        matches!(
            self.stage,
            Stage::Turn | Stage::Close(_) | Stage::List(_) | Stage::Send(_) | Stage::Write(_)
        )
    }

    /// What a checkpoint that begins now leaves out.
    pub(crate) fn moved(&self) -> Option<&Cut> {
        match self.stage {
            Stage::Name(_) | Stage::Drop(_) => self.cut.as_ref(),
            _ => None,
        }
    }

    /// Whether no cut is under way or waits for its turn.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// A deletion is for the keeper; the answers of the cores come to it as orders too.
    pub(crate) fn order_delete(&self, delete: Delete) {
        let orders = self.orders.clone();
        self.order(Order::Delete(Box::new((delete, orders))));
    }

    /// Likewise.
    pub(crate) fn order_snapshot(&self, snapshot: Snapshot) {
        let orders = self.orders.clone();
        self.order(Order::Snapshot(Box::new((snapshot, orders))));
    }

    fn order(&self, order: Order) {
        // The keeper lives as long as a core can order; if not, the process is ending.
        let _ = self.orders.send(order);
    }
}

impl Core {
    /// Asks for everything, of some or of all, to be in blocks: a cut, and copies of all that it does not move.
    pub(crate) fn request_flush(&mut self, flush: Flush) {
        self.cuts.requests.push(flush);
    }

    /// A minute has passed: looks whether a cut is due, and tells the keeper what its tenants keep.
    pub(crate) fn tick_cuts(&mut self) {
        let wall_ms = self.wall_ms;
        for tenant in self.memtable.tenants.iter_mut().flatten() {
            if tenant.pushed_ms == i64::MIN {
                tenant.pushed_ms = wall_ms;
            }
        }
        // Tenants that stop one by one are cut together.
        let idle_too = wall_ms.saturating_sub(self.cuts.begun_ms) >= CUT_IDLE_MS;
        let is_due = |tenant: &Tenant| {
            let limit = tenant.cut_limit(wall_ms);
            let many = match tenant.is_idle(wall_ms) {
                true => !tenant.lates.is_empty(),
                false => tenant.lates.closed >= LATE_CUT_CHUNKS,
            };
            (limit > tenant.cut_until || many)
                && tenant.oldest < limit
                && (idle_too || !tenant.is_idle(wall_ms))
        };
        self.cuts.due = self.memtable.tenants.iter().flatten().any(is_due);
        let retentions = self.memtable.retentions();
        self.cuts.order(Order::Expire {
            core: self.id,
            retentions,
        });
        // The checkpoint has failed, for want of space perhaps. The samples are in blocks and in the head until one succeeds.
        if matches!(self.cuts.stage, Stage::Name(begun) if self.checkpoints.done() <= begun)
            && self.checkpoints.is_idle()
        {
            self.checkpoints.request(Box::new(|_| {}));
        }
    }

    /// Whether a slice would get further without any event.
    pub(crate) fn cut_has_work(&self) -> bool {
        match self.cuts.stage {
            Stage::Idle => self.cut_is_wanted(),
            Stage::Close(_) => !self.memtable.chunks.is_behind(),
            Stage::List(_) | Stage::Drop(_) => true,
            Stage::Send(_) => self.log.durable() >= self.cut_of().tail,
            Stage::Asked | Stage::Write(_) => false,
            Stage::Turn => !self.checkpoints.is_running(),
            Stage::Name(begun) => self.checkpoints.done() > begun,
        }
    }

    fn cut_is_wanted(&self) -> bool {
        let waits = self
            .cuts
            .not_before
            .is_some_and(|at| self.reactor.now() < at);
        !self.cuts.requests.is_empty() || (self.cuts.due && !waits)
    }

    fn cut_of(&self) -> &Cut {
        self.cuts.cut.as_ref().expect("this stage has a cut")
    }

    fn cut_mut(&mut self) -> &mut Cut {
        self.cuts.cut.as_mut().expect("this stage has a cut")
    }

    /// Does a slice of the cut, if there is something to do.
    pub(crate) fn slice_cut(&mut self) {
        match self.cuts.stage {
            Stage::Idle if self.cut_is_wanted() => {
                self.cuts.stage = Stage::Asked;
                self.cuts.order(Order::Begin { core: self.id });
            }
            Stage::Turn if !self.checkpoints.is_running() => self.begin_cut(),
            Stage::Idle | Stage::Asked | Stage::Turn | Stage::Write(_) => {}
            Stage::Close(row) => self.close_chunks(row),
            Stage::List(row) => self.list_chunks(row),
            Stage::Send(row) => self.send_batch(row),
            Stage::Name(begun) => self.await_name(begun),
            Stage::Drop(row) => self.drop_chunks(row),
        }
    }

    /// What the keeper says.
    pub(crate) fn cut_event(&mut self, outcome: Outcome) {
        match (outcome, self.cuts.stage) {
            (Outcome::Turn, Stage::Asked) if self.is_poisoned_by().is_none() => {
                self.cuts.stage = Stage::Turn;
            }
            (Outcome::Written { path, kept }, Stage::Write(row)) => {
                let cut = self.cut_mut();
                cut.written.push(path);
                cut.kept.extend(kept.into_iter().map(key));
                self.cuts.stage = Stage::List(row);
            }
            (Outcome::Failed(reason), Stage::Write(_)) => self.fail_cut(&reason),
            // Of a cut that was given up.
            (Outcome::Turn, _) => self.cuts.order(Order::End { core: self.id }),
            (Outcome::Written { path, .. }, _) => {
                self.cuts.order(Order::Discard { paths: vec![path] });
            }
            (Outcome::Failed(_), _) => {}
        }
    }

    fn begin_cut(&mut self) {
        self.cuts.begun_ms = self.wall_ms;
        let limit = |slot: usize| match &self.memtable.tenants[slot] {
            Some(tenant) => (
                self.memtable.horizon(slot as u32, self.wall_ms),
                tenant.cut_limit(self.wall_ms),
            ),
            None => (i64::MIN, i64::MIN),
        };
        let requests = take(&mut self.cuts.requests);
        let copies = self.copies(&requests);
        let replies = requests.into_iter().map(|flush| flush.reply).collect();
        self.cuts.due = false;
        self.cuts.cut = Some(Cut {
            limits: (0..self.memtable.tenants.len()).map(limit).collect(),
            until: None,
            kept: HashSet::new(),
            sequence: self.log.next_checkpoint_sequence(),
            copies,
            batch: Batch::default(),
            tail: Lsn(0),
            canceled: Arc::default(),
            written: Vec::new(),
            replies,
        });
        self.cuts.stage = Stage::Close(0);
    }

    /// What those who asked want copied.
    fn copies(&self, requests: &[Flush]) -> Copies {
        if requests.iter().any(|flush| flush.tenants.is_empty()) {
            return Copies::All;
        }
        let named: HashSet<&TenantId> = requests.iter().flat_map(|flush| &flush.tenants).collect();
        let tenants = (0..).zip(&self.memtable.tenants);
        let wanted = tenants.filter(|(_, tenant)| {
            let tenant = tenant.as_ref();
            tenant.is_some_and(|tenant| named.contains(&tenant.id))
        });
        Copies::Of(wanted.map(|(slot, _)| slot).collect())
    }

    fn close_chunks(&mut self, from: u32) {
        let rows = self.memtable.rows.count();
        let end = from.saturating_add(GC_SLICE_ROWS as u32).min(rows);
        for series in from..end {
            if self.memtable.chunks.is_behind() {
                self.cuts.stage = Stage::Close(series);
                return;
            }
            let tenant = self.memtable.rows[series].tenant;
            let limits = &self.cuts.cut.as_ref().expect("this stage has a cut").limits;
            let (true, Some(&(_, limit))) = (tenant != NO_TENANT, limits.get(tenant as usize))
            else {
                continue;
            };
            self.memtable.close_late(series, limit);
            if !self.memtable.is_parked(series) && self.memtable.last_time(series) < limit {
                self.memtable.park(series);
            }
        }
        self.cuts.stage = Stage::Close(end);
        if end == rows {
            let until = self.memtable.chunks.tail();
            self.cut_mut().until = Some(until);
            self.cuts.stage = Stage::List(0);
        }
    }

    fn list_chunks(&mut self, from: u32) {
        let cut = self.cuts.cut.as_mut().expect("this stage has a cut");
        let rows = self.memtable.rows.count();
        let end = from.saturating_add(READ_SLICE_SERIES as u32).min(rows);
        let mut row = from;
        while row < end && cut.batch.has_room(CUT_BATCH_BYTES, CUT_BATCH_SERIES) {
            list_series(&self.memtable, cut, row);
            row += 1;
        }
        let full = !cut.batch.has_room(CUT_BATCH_BYTES, CUT_BATCH_SERIES);
        if !full && row < rows {
            self.cuts.stage = Stage::List(row);
            return;
        }
        if !cut.batch.is_empty() {
            cut.tail = self.log.tail();
            self.cuts.stage = Stage::Send(row);
            // Those of a relaxed tenant may wait for nobody.
            self.submit(true);
            return;
        }
        self.end_list();
    }

    /// Everything that is to be moved is in files.
    fn end_list(&mut self) {
        if self.cut_of().written.is_empty() {
            return self.end_cut();
        }
        self.cuts.stage = Stage::Name(self.checkpoints.begun);
        self.checkpoints.request(Box::new(|_| {}));
    }

    fn send_batch(&mut self, row: u32) {
        if self.log.durable() < self.cut_of().tail {
            return;
        }
        let (core, generation) = (self.id, self.cuts.generation);
        let created_ms = self.wall_ms;
        let cut = self.cut_mut();
        let job = Job {
            core,
            generation,
            sequence: cut.sequence,
            created_ms,
            batch: take(&mut cut.batch),
            canceled: cut.canceled.clone(),
        };
        self.cuts.stage = Stage::Write(row);
        self.cuts.order(Order::Write(Box::new(job)));
    }

    fn await_name(&mut self, begun: u64) {
        if self.checkpoints.done() > begun {
            self.cuts.stage = Stage::Drop(0);
        }
    }

    fn drop_chunks(&mut self, from: u32) {
        let cut = self.cuts.cut.as_ref().expect("this stage has a cut");
        let rows = self.memtable.rows.count();
        let end = from.saturating_add(GC_SLICE_ROWS as u32).min(rows);
        for series in from..end {
            self.cuts.moved_chunks += self.memtable.let_go(series, cut);
        }
        self.cuts.stage = Stage::Drop(end);
        if end == rows {
            let cut = self.cuts.cut.as_mut().expect("this stage has a cut");
            let paths = take(&mut cut.written);
            self.cuts.order(Order::Adopt { paths });
            self.cuts.made += 1;
            self.end_cut();
        }
    }

    fn end_cut(&mut self) {
        let cut = self.cuts.cut.take().expect("this stage has a cut");
        for (tenant, (_, limit)) in self.memtable.tenants.iter_mut().zip(&cut.limits) {
            if let Some(tenant) = tenant {
                tenant.cut_until = tenant.cut_until.max(*limit);
                tenant.lates.closed = 0;
            }
        }
        self.cuts.stage = Stage::Idle;
        self.cuts.order(Order::End { core: self.id });
        cut.replies.into_iter().for_each(|reply| reply(Ok(())));
    }

    fn fail_cut(&mut self, reason: &str) {
        self.cuts.failed += 1;
        let again = std::time::Duration::from_secs(CUT_RETRY_S);
        self.cuts.not_before = Some(self.reactor.now().after(again));
        self.give_up_cut(reason);
    }

    /// The core stops or is poisoned, or the cut has failed: what it wrote is removed, unless checkpoints may rely on it already.
    pub(crate) fn give_up_cut(&mut self, reason: &str) {
        for flush in take(&mut self.cuts.requests) {
            (flush.reply)(Err(reason.to_owned()));
        }
        if matches!(self.cuts.stage, Stage::Name(_) | Stage::Drop(_)) {
            let cut = self.cuts.cut.as_mut().expect("this stage has a cut");
            // The samples are in blocks.
            take(&mut cut.replies)
                .into_iter()
                .for_each(|reply| reply(Ok(())));
            return;
        }
        if let Some(cut) = self.cuts.cut.take() {
            cut.canceled.store(true, Ordering::Relaxed);
            self.cuts.order(Order::Discard { paths: cut.written });
            let replies = cut.replies.into_iter();
            replies.for_each(|reply| reply(Err(reason.to_owned())));
        }
        // Whoever has not got its turn yet gives it back when it comes.
        if !matches!(self.cuts.stage, Stage::Idle | Stage::Asked) {
            self.cuts.stage = Stage::Idle;
            self.cuts.order(Order::End { core: self.id });
        }
    }
}

/// Adds to the batch what the cut takes of a row.
fn list_series(memtable: &Memtable, cut: &mut Cut, series: u32) {
    let tenant = memtable.rows[series].tenant;
    if tenant == NO_TENANT {
        return;
    }
    let copies = cut.copies.has(tenant);
    let sealed = &memtable.colds[series].sealed;
    let taken = sealed
        .iter()
        .filter(|chunk| (copies && !chunk.is_in_block()) || cut.moves(tenant, chunk));
    let mut chunks = Vec::new();
    let mut places = Vec::new();
    for chunk in taken {
        chunks.push(memtable.slice_of(chunk, i64::MAX));
        places.push(chunk.place());
    }
    let late = memtable.late(series);
    for (rank, chunk) in (1..).zip(late.map_or(&[][..], Late::sealed)) {
        if copies || cut.moves(tenant, chunk) {
            let mut slice = memtable.slice_of(chunk, i64::MAX);
            slice.bytes = slice.bytes.late(rank);
            chunks.push(slice);
            places.push(chunk.place());
        }
    }
    if let (true, Some(late)) = (copies, late) {
        late.pieces(&mut |piece| chunks.push(piece.slice(i64::MAX)));
    }
    if copies && !memtable.is_parked(series) {
        let open = memtable.open(series);
        chunks.push(ChunkSlice {
            min_time: open.first_time(),
            max_time: open.last_time(),
            bytes: open.seal().into(),
        });
    }
    if chunks.is_empty() {
        return;
    }
    let selected = SelectedSeries {
        id: memtable.colds[series].id,
        labels: memtable.labels(series),
        chunks,
        exemplars: Vec::new(),
        starts: Vec::new(),
    };
    let tenant = &memtable.tenant(tenant).id;
    cut.batch.add(tenant, selected, places);
}

impl Memtable {
    /// Lets go of the chunks of a series that a cut has moved; returns how many. A series of which nothing else is here keeps its last one, marked,
    /// since a live row has a sample; the collection lets it leave whole when nobody writes it ([`Memtable::is_in_blocks`]).
    fn let_go(&mut self, series: u32, cut: &Cut) -> u64 {
        let row = &self.rows[series];
        let (tenant, parked) = (row.tenant, row.chunk.is_empty());
        if tenant == NO_TENANT {
            return 0;
        }
        let late = self.release_late(series, |chunk| cut.moves(tenant, chunk)) as u64;
        let sealed = &mut self.colds[series].sealed;
        let count = sealed.len();
        let stays = |chunk: &Sealed| !cut.moves(tenant, chunk);
        if sealed.iter().all(stays) {
            return late;
        }
        if parked
            && let Some(last) = sealed.last_mut()
            && cut.moves(tenant, last)
        {
            last.mark_in_block();
        }
        let (totals, chunks) = (&mut self.totals, &mut self.chunks);
        sealed.retain(|chunk| {
            let stays = !cut.moves(tenant, chunk);
            if !stays {
                totals.sealed_chunks -= 1;
                totals.sealed_bytes -= u64::from(chunk.place().len);
                chunks.release(chunk.place());
            }
            stays
        });
        if sealed.len() * 2 < sealed.capacity() {
            sealed.shrink_to_fit();
        }
        late + (count - sealed.len()) as u64
    }

    /// Whether all that is here of a live series is in blocks too, and no exemplar is kept of it; with those where nothing has been written for
    /// `idle_s` seconds, which is long, and its tenant keeps all.
    pub(crate) fn is_in_blocks(&self, series: u32, idle_s: u32) -> bool {
        let last = self.colds[series].sealed.last();
        let moved = self.is_parked(series) && last.is_some_and(Sealed::is_in_block);
        if !moved || self.late(series).is_some() {
            return false;
        }
        let tenant = self.tenant(self.rows[series].tenant);
        let goes_anyway = tenant.retention_ms == i64::MAX && idle_s >= EXEMPLARS_LINGER_S;
        let exemplars = &tenant.exemplars;
        goes_anyway || exemplars.is_empty() || exemplars.of(series).next().is_none()
    }
}

/// The directory of the blocks.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("blocks")
}

/// The directory of what has been deleted.
pub fn deletions_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("deletions")
}

/// Behind the name of a block that a start may have to remove.
const PENDING: &str = "pending";

/// Where a block of a cut is until the head has let go of its chunks.
fn pending_path(dir: &Path, job: &Job, id: u128) -> PathBuf {
    let (generation, core, sequence) = (job.generation, job.core.0, job.sequence);
    dir.join(format!(
        "cut-{generation}-{core}-{sequence}-{id:032x}.{PENDING}.{}",
        block::EXTENSION
    ))
}

/// Where it is from then on.
pub(crate) fn final_path(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = name
        .strip_suffix(block::EXTENSION)?
        .strip_suffix(&format!("{PENDING}."))?;
    Some(path.with_file_name(format!("{stem}{}", block::EXTENSION)))
}

/// What is known of a log after its replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) generation: u32,
    pub(crate) core: CoreId,
    /// The checkpoint that it began with.
    pub(crate) checkpoint: Option<u32>,
    /// Whether a later checkpoint was damaged, or there was no log at all: then it says nothing about blocks.
    pub(crate) doubtful: bool,
}

/// Whether a file is a pending block that no checkpoint relies on: its samples are in the log and in chunk files.
pub(crate) fn is_orphan(name: &str, logs: &[Replayed]) -> bool {
    let fields = || {
        let stem = name.strip_suffix(&format!(".{PENDING}.{}", block::EXTENSION))?;
        let mut fields = stem.strip_prefix("cut-")?.split('-');
        let generation: u32 = fields.next()?.parse().ok()?;
        let core: u16 = fields.next()?.parse().ok()?;
        let sequence: u32 = fields.next()?.parse().ok()?;
        Some((generation, CoreId(core), sequence))
    };
    let Some((generation, core, sequence)) = fields() else {
        return false;
    };
    let mut of_log = logs
        .iter()
        .filter(|log| (log.generation, log.core) == (generation, core));
    of_log.any(|log| !log.doubtful && log.checkpoint.is_none_or(|at| at < sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_block_is_an_orphan_unless_a_checkpoint_relies_on_it() {
        let log = |checkpoint, doubtful| {
            [Replayed {
                generation: 2,
                core: CoreId(1),
                checkpoint,
                doubtful,
            }]
        };
        let name = "cut-2-1-7-00000000000000000000000000000abc.pending.block";
        assert!(is_orphan(name, &log(Some(6), false)));
        assert!(is_orphan(name, &log(None, false)));
        assert!(!is_orphan(name, &log(Some(7), false)));
        assert!(!is_orphan(name, &log(Some(9), false)));
        assert!(!is_orphan(name, &log(Some(6), true)));
        for other in [
            "cut-1-1-7-0abc.pending.block",
            "cut-2-0-7-0abc.pending.block",
            "cut-2-1-7-0abc.block",
            "cut-2-1-x-0abc.pending.block",
            "7.block",
        ] {
            assert!(!is_orphan(other, &log(Some(6), false)), "{other}");
        }
        let adopted = final_path(Path::new("data/cut-2-1-7-0abc.pending.block"));
        assert_eq!(adopted, Some(PathBuf::from("data/cut-2-1-7-0abc.block")));
        assert_eq!(final_path(Path::new("data/7.block")), None);
    }

    #[test]
    fn the_limit_is_the_last_boundary_that_is_an_hour_past() {
        assert_eq!(limit_of(CUT_MS + CUT_LAG_MS - 1), 0);
        assert_eq!(limit_of(CUT_MS + CUT_LAG_MS), CUT_MS);
        assert_eq!(limit_of(-1), -CUT_MS);
        assert!(limit_of(i64::MIN) <= i64::MIN + CUT_MS);
    }
}
