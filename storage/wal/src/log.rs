//! The writer: one core's log. Append, submit, hear of completions, compare positions.
//!
//! Step 8 of the way of a sample. How a group becomes durable:
//!
//! 1. Records are appended to the *open* group, in memory, at a known place of a known segment ([`Log::reserve`]). A full one is closed, numbered
//!    and queued, and the next is opened behind it, in the next segment if this one is full.
//! 2. Whenever nothing is in flight (`commit.rs`), the oldest queued group, else the open one, is sealed and written: one aligned write, with
//!    dsync if anybody wants it durable. So everything that came while the disk was busy is one commit, without a timer.
//! 3. When the write completes, [`Log::written`] and [`Log::durable`] move; the caller releases replies by comparing them with the
//!    [`Log::tail`] it saw when it admitted the batch.
//!
//! Invariants. Order of records = order of frames = order of writes. One write or sync in flight. A durable write starts only when
//! nothing written relaxed is unsynced, so `durable` in its header is true of all before it. Frame numbers have no gap. The file of the next segment is ready (`spare.rs`)
//! before this one is full, else [`Log::admit`] refuses what would not fit. After a failed write or sync nothing is ever written again (poison).
//!
//! Deliberately absent: waiting, locks, and knowledge of who waits for which position.

mod commit;
mod spare;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use model::{Lsn, SeriesRef};
use reactor::{Buffer, Done, Op, OpenMode, Reactor};

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::frame::{FileHeader, FileKind};
use crate::group::Group;
use crate::limits::{
    BLOCK_BYTES, FRAME_HEADER_BYTES, QUEUE_GROUPS_MAX, READ_BYTES, RETIRED_MAX, SAMPLE_ROOM,
};
use crate::names;
use crate::options::Options;
use crate::record::{Record, Staged};
use crate::replay::{Replayed, Unsettled};
use crate::tenants::Tenants;
pub use commit::Progress;
use commit::{Current, Flight};
use spare::Spare;

/// Tokens of the log, from `Options::token_base` on; operations and timers have separate number spaces.
pub(crate) mod token {
    pub(crate) const COMMIT: u64 = 0;
    pub(crate) const SPARE: u64 = 1;
    pub(crate) const REMOVE: u64 = 2;
    pub(crate) const CLOSE: u64 = 3;
    pub(crate) const TIMER_SYNC: u64 = 4;
    pub(crate) const TIMER_SPACE: u64 = 5;
    pub(crate) const CHECKPOINT: u64 = 8;
}

/// A segment that is left to the end of a log needs at least this much for another group; less is left unused.
const OPEN_BYTES_MIN: u64 = 64 << 10;

/// One core's log.
///
/// The loop that uses it (`shard::commit` is the real one):
///
/// ```
/// use model::{Generation, Labels, SeriesId, SeriesRef, TenantId};
/// use reactor::{Reactor, Sim};
/// use wal::{Log, Options, Record, ReplayOptions, SeriesRecord};
///
/// let mut reactor = Reactor::sim(&Sim::new(1));
/// let dir = std::path::Path::new("core-000");
/// let mut apply = |record: &Record<'_>, _at: wal::Place| Ok(println!("{record:?}"));
/// let options = ReplayOptions::default();
/// let replayed = wal::replay(&mut reactor, dir, &options, &mut apply, &mut |_, _| Ok(()))?;
/// let mut log = Log::open(&mut reactor, dir, Options::default(), &replayed)?;
///
/// // Admit a batch, encode it in one pass. The base is the value this series logged last *in this segment*.
/// log.admit(1000)?;
/// let labels = Labels::from_pairs([("__name__", "up")]).unwrap();
/// let (tenant, up) = (TenantId::fake(), SeriesRef(0));
/// let (generation, id) = (Generation(0), SeriesId(7));
/// let series = SeriesRecord { series: up, generation, id, tenant: &tenant, labels: labels.packed() };
/// log.append(&Record::Series(series))?;
/// let mut last: Option<(u32, f64)> = None;
/// for (time, value) in [(1000, 1.0), (2000, 1.0)] {
///     let segment = log.reserve_sample();
///     let base = last.filter(|&(at, _)| at == segment).map(|(_, value)| value);
///     log.sample(up, time, value, base);
///     last = Some((segment, value));
/// }
///
/// // Its reply waits for this position.
/// let reply_at = log.tail();
/// log.submit(&mut reactor, true);
/// let mut events = Vec::new();
/// while log.durable() < reply_at {
///     reactor.wait(None, &mut events);
///     for event in events.drain(..) {
///         if log.owns(&event) {
///             log.on_event(&mut reactor, event)?;
///         }
///     }
/// }
/// # Ok::<(), wal::Error>(())
/// ```
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    core: u16,
    epoch: u64,
    options: Options,

    /// The group being filled.
    open: Option<Group>,
    /// Closed groups, oldest first; numbers are consecutive, the last is `next_commit - 1`.
    queue: VecDeque<Group>,
    /// Where the next group goes: only ever moves forward, into segments whose files need not be there yet.
    cursor: Cursor,
    /// Number of the next group to be closed.
    next_commit: u64,
    /// Position after the last closed group.
    closed_lsn: u64,
    tenants: Tenants,
    staged: Staged,
    buffers: Vec<Buffer>,

    /// The segment being written; `None` before the first write.
    current: Option<Current>,
    flight: Option<Flight>,
    /// Position and number of the last commit written (perhaps relaxed), and of the last one durable.
    written: Mark,
    durable: Mark,
    /// Up to here somebody wants it durable.
    wanted: u64,
    sync_timer_set: bool,
    /// A checkpoint waits for this position, with this token.
    wake: Option<(u64, u64)>,
    poisoned: Option<String>,
    /// Nothing begins by itself: see [`Log::hold`].
    held: bool,

    spare: Spare,
    /// First segment number of this process and its planned length: the later ones follow from them.
    planned_first: (u32, u64),
    /// Segments that replay would need, ascending, with the length of their files.
    segments: VecDeque<(u32, u64)>,
    /// Files of segments not needed any more, for reuse.
    retired: Vec<Retired>,
    /// Whole checkpoints, ascending.
    checkpoints: Vec<u32>,
    /// Damaged checkpoints, kept until a new one exists.
    damaged: Vec<PathBuf>,
    removals: VecDeque<PathBuf>,
    removing: bool,

    stats: Stats,
    #[cfg(debug_assertions)]
    shadow: std::collections::HashMap<u32, (u32, u64)>,
}

/// A commit and the position after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    lsn: u64,
    commit: u64,
}

#[derive(Debug, Clone, Copy)]
struct Cursor {
    sequence: u32,
    offset: u64,
}

/// A file that may become a later segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

/// Whether the log takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// It does.
    Good,
    /// Space for the next segment cannot be had; it is asked for again every second. What fits into the current segment is still taken.
    NoSpace(String),
    /// A write or sync failed; nothing is written any more.
    Poisoned(String),
}

/// Counters since the log was opened, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Frames written.
    pub commits: u64,
    /// Of these, without sync.
    pub commits_relaxed: u64,
    /// Bytes written for them, headers and padding included.
    pub commit_bytes: u64,
    /// Bytes of records.
    pub record_bytes: u64,
    /// Syncs of relaxed frames.
    pub syncs: u64,
    /// Segments begun.
    pub segments: u64,
    /// Of these, in a recycled file.
    pub segments_recycled: u64,
    /// Attempts to get a next segment that failed.
    pub space_failures: u64,
    /// Times a group had to wait for its segment's file.
    pub space_waits: u64,
    /// Files that could not be removed.
    pub remove_failures: u64,
}

impl Log {
    /// Opens the log of a core behind what was replayed: cleans up, begins a new epoch in a new segment.
    ///
    /// Blocks for a few operations. What was replayed is durable when it returns. A full disk is not an error but [`Health::NoSpace`]: reads can be served.
    /// Errors: options out of bounds, the directory cannot be made or synced.
    pub fn open(
        reactor: &mut Reactor,
        dir: &Path,
        options: Options,
        after: &Replayed,
    ) -> Result<Log, Error> {
        options.validate()?;
        crate::manifest::create_dirs(reactor, dir)?;
        for path in &after.unfinished {
            reactor.run(Op::Remove { path: path.clone() })?;
        }
        if let Some(unsettled) = &after.unsettled {
            settle(reactor, unsettled, options.direct)?;
        }
        let reusable = after.reusable.iter().map(|r| r.len).max().unwrap_or(0);
        let planned = reusable.clamp(options.segment_bytes_first, options.segment_bytes);
        let start = Mark {
            lsn: after.next_lsn,
            commit: after.next_commit - 1,
        };
        let mut log = Log {
            dir: dir.to_owned(),
            core: after.core,
            epoch: after.next_epoch,
            open: None,
            queue: VecDeque::new(),
            cursor: Cursor {
                sequence: after.next_sequence,
                offset: 0,
            },
            next_commit: after.next_commit,
            closed_lsn: after.next_lsn,
            tenants: Tenants::default(),
            staged: Staged::default(),
            buffers: Vec::new(),
            current: None,
            flight: None,
            written: start,
            durable: start,
            wanted: start.lsn,
            sync_timer_set: false,
            wake: None,
            poisoned: None,
            held: false,
            spare: Spare::new(dir, options.direct),
            planned_first: (after.next_sequence, planned),
            segments: after.segments.iter().copied().collect(),
            retired: after.reusable.clone(),
            checkpoints: after.checkpoints.clone(),
            damaged: after.damaged_checkpoints.clone(),
            removals: VecDeque::new(),
            removing: false,
            stats: Stats::default(),
            options,
            #[cfg(debug_assertions)]
            shadow: std::collections::HashMap::new(),
        };
        log.plan_spare(after.next_sequence, false);
        while let Some(op) = log.spare.next_op() {
            let result = reactor.run(op);
            log.spare.complete(result)?;
        }
        if log.spare.waits() {
            log.stats.space_failures += 1;
            log.arm_space_timer(reactor);
        }
        log.discard_surplus(reactor);
        Ok(log)
    }

    /// The core it belongs to.
    pub fn core(&self) -> u16 {
        self.core
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Position after all appended so far: what a reply given for the state of now has to wait for.
    #[inline]
    pub fn tail(&self) -> Lsn {
        Lsn(self.open.as_ref().map_or(self.closed_lsn, Group::end_lsn))
    }

    /// All before this survives a power cut.
    #[inline]
    pub fn durable(&self) -> Lsn {
        Lsn(self.durable.lsn)
    }

    /// All before this survives the end of the process; never behind [`Log::durable`].
    #[inline]
    pub fn written(&self) -> Lsn {
        Lsn(self.written.lsn)
    }

    /// Whether writes are taken.
    pub fn health(&self) -> Health {
        match (&self.poisoned, self.spare.no_space()) {
            (Some(reason), _) => Health::Poisoned(reason.clone()),
            (None, Some(reason)) => Health::NoSpace(reason.to_owned()),
            (None, None) => Health::Good,
        }
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Whether an operation of the commit is in flight: its end will be an event.
    pub fn is_writing(&self) -> bool {
        self.flight.is_some()
    }

    /// From now on a write (or sync) of the commit begins only when [`Log::go`] is called, once each: so that logs whose writes share a thread
    /// begin together, and each writes more at a time.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Begins what was held, if there is something.
    pub fn go(&mut self, reactor: &mut Reactor) {
        self.held = false;
        self.pump(reactor);
        self.held = true;
    }

    /// Whether what was written relaxed is to be made durable.
    pub fn wants_sync(&self) -> bool {
        self.wanted > self.durable.lsn
    }

    /// Bytes appended and not yet written.
    pub fn queued_bytes(&self) -> usize {
        (self.tail().0 - self.written.lsn) as usize
    }

    /// Segments that a replay would read, the current one included.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of the files a replay would read, checkpoints apart: the measure for when the next checkpoint is due.
    pub fn segments_bytes(&self) -> u64 {
        self.segments.iter().map(|&(_, len)| len).sum()
    }

    /// Whether a batch of about `bytes` may be appended now. Ask before anything of it is applied: after a yes, appending it cannot fail, and
    /// the files for it are there: nobody waits for a position that needs space which cannot be had.
    ///
    /// Errors: [`Error::Poisoned`]; [`Error::QueueFull`] while the disk is behind, or the next segment's file is still being made: ask again after
    /// the next event; [`Error::NoSpace`] where that file cannot be had.
    pub fn admit(&self, bytes: usize) -> Result<(), Error> {
        if let Some(reason) = &self.poisoned {
            return Err(Error::Poisoned {
                reason: reason.clone(),
            });
        }
        let queued = self.queued_bytes();
        if queued >= QUEUE_GROUPS_MAX * self.options.group_bytes {
            return Err(Error::QueueFull { queued });
        }
        if self.has_files(bytes) {
            return Ok(());
        }
        match self.spare.no_space() {
            Some(reason) => Err(Error::NoSpace {
                reason: reason.to_owned(),
            }),
            None => Err(Error::QueueFull { queued }),
        }
    }

    /// Whether that many record bytes fit into the segments whose files are there, from the one being filled on. A batch larger than a
    /// segment is content with a whole one ahead.
    fn has_files(&self, bytes: usize) -> bool {
        let filling = self.cursor.sequence;
        let ready = self.spare.ready_sequence();
        let written = self.current.as_ref().map(|current| current.sequence);
        if written != Some(filling) && ready != Some(filling) {
            return false;
        }
        if written == Some(filling) && ready == Some(filling + 1) {
            return true;
        }
        if ready == Some(filling) && self.is_untouched() {
            // The next file is made only when this one is begun: waiting for more would be waiting for ever.
            return true;
        }
        let open = self.open.as_ref().map_or(0, |group| group.bytes() as u64);
        let left = (self.planned(filling) - self.cursor.offset).saturating_sub(open);
        // Every group costs a header and padding, and the last one is not opened below a minimum.
        let groups = bytes / self.options.group_bytes + 2;
        let cost = bytes as u64 + groups as u64 * (BLOCK_BYTES + FRAME_HEADER_BYTES) as u64;
        left >= cost + OPEN_BYTES_MIN.min(self.options.group_bytes as u64)
    }

    /// Whether nothing was appended to the segment at hand.
    fn is_untouched(&self) -> bool {
        self.cursor.offset == 0 && self.open.as_ref().is_none_or(Group::is_empty)
    }

    /// Bytes left in the open group; 0 if none is open.
    pub fn room(&self) -> usize {
        self.open.as_ref().map_or(0, Group::room)
    }

    /// The largest record, header included, that can be appended.
    pub fn record_bytes_max(&self) -> usize {
        self.options.group_bytes - FRAME_HEADER_BYTES
    }

    /// Makes room for `bytes` in the open group, closing it and opening the next one if need be, and returns the number of the segment
    /// the open group goes to. It stays the same until the next call that may open a group (`reserve*` and every append but `sample`).
    ///
    /// Errors: [`Error::TooLarge`] beyond [`Log::record_bytes_max`].
    #[inline]
    pub fn reserve(&mut self, bytes: usize) -> Result<u32, Error> {
        if let Some(open) = &self.open
            && open.room() >= bytes
        {
            return Ok(open.sequence);
        }
        self.reserve_slow(bytes)
    }

    /// [`Log::reserve`] for one [`Log::sample`], which cannot fail.
    #[inline]
    pub fn reserve_sample(&mut self) -> u32 {
        self.reserve(SAMPLE_ROOM)
            .expect("a sample fits into any group")
    }

    #[cold]
    fn reserve_slow(&mut self, bytes: usize) -> Result<u32, Error> {
        let max = self.record_bytes_max();
        if bytes > max {
            return Err(Error::TooLarge { bytes, max });
        }
        self.close_open();
        Ok(self.open_group(bytes))
    }

    /// Closes the open group and queues it; an empty one is dropped.
    fn close_open(&mut self) {
        let Some(mut group) = self.open.take() else {
            return;
        };
        if group.is_empty() {
            self.keep_buffer(group.into_buffer());
            return;
        }
        group.close();
        group.number = self.next_commit;
        self.next_commit += 1;
        assert_eq!(
            (group.sequence, group.offset),
            (self.cursor.sequence, self.cursor.offset)
        );
        assert_eq!(group.lsn, self.closed_lsn);
        self.closed_lsn = group.end_lsn();
        self.cursor.offset += group.bytes() as u64;
        assert!(
            self.cursor.offset <= self.planned(self.cursor.sequence),
            "a group fits its segment"
        );
        self.queue.push_back(group);
    }

    fn open_group(&mut self, bytes: usize) -> u32 {
        assert!(self.open.is_none());
        let need = (FRAME_HEADER_BYTES + bytes).next_multiple_of(BLOCK_BYTES) as u64;
        let left = self.planned(self.cursor.sequence) - self.cursor.offset;
        let least = need.max(OPEN_BYTES_MIN.min(self.options.group_bytes as u64));
        if self.cursor.offset > 0 && left < least {
            self.next_segment();
        }
        let first = self.cursor.offset == 0;
        if first {
            self.tenants.clear();
        }
        let header = if first { BLOCK_BYTES } else { 0 };
        let left = self.planned(self.cursor.sequence) - self.cursor.offset;
        let bytes_max = left.min((self.options.group_bytes + header) as u64) as usize;
        let size = self.options.group_bytes + BLOCK_BYTES;
        let buffer = self.buffers.pop().unwrap_or_else(|| Buffer::new(size));
        let Cursor { sequence, offset } = self.cursor;
        let group = Group::new(buffer, sequence, offset, self.closed_lsn, bytes_max);
        assert!(
            group.room() >= bytes,
            "options say that a group fits into any segment"
        );
        self.open = Some(group);
        sequence
    }

    fn next_segment(&mut self) {
        let sequence = self.cursor.sequence.checked_add(1);
        let sequence =
            sequence.expect("2^32 segments of at least a commit each are years of writes");
        self.cursor = Cursor {
            sequence,
            offset: 0,
        };
    }

    /// Length in use of a segment of this process: each is twice as large as the one before, up to the bound.
    fn planned(&self, sequence: u32) -> u64 {
        let (first, len) = self.planned_first;
        assert!(sequence >= first);
        let doublings = (sequence - first).min(63 - len.ilog2());
        (len << doublings).min(self.options.segment_bytes)
    }

    fn keep_buffer(&mut self, buffer: Buffer) {
        // One in flight, one open, one waiting; more only after a jam.
        if self.buffers.len() < 3 {
            self.buffers.push(buffer);
        }
    }

    /// Appends a sample. Room for it must have been made by [`Log::reserve_sample`] (asserted).
    ///
    /// `base` is the value of the last sample of this series appended **in the segment that `reserve_sample` returned**, whatever its time; `None`
    /// if there is none, or it is not known: that costs bytes, a wrong base costs the value (asserted in debug builds).
    /// Cost: some 10 ns, no allocation.
    #[inline]
    pub fn sample(&mut self, series: SeriesRef, time: i64, value: f64, base: Option<f64>) {
        #[cfg(debug_assertions)]
        self.check_base(series, value, base);
        let open = self.open.as_mut().expect("reserve_sample comes first");
        open.sample(series, time, value, base);
    }

    #[cfg(debug_assertions)]
    fn check_base(&mut self, series: SeriesRef, value: f64, base: Option<f64>) {
        let segment = self
            .open
            .as_ref()
            .expect("reserve_sample comes first")
            .sequence;
        let last = self.shadow.insert(series.0, (segment, value.to_bits()));
        if let Some(base) = base {
            assert_eq!(
                last,
                Some((segment, base.to_bits())),
                "base of series {}",
                series.0
            );
        }
    }

    /// Appends a record of any kind and returns the number of its segment. A series' record comes before anything else that names its ref.
    ///
    /// [`Record::Samples`] are coded absolutely, so [`Log::sample`] is the better way. Errors: [`Error::TooLarge`], with nothing written. Cost: two copies.
    pub fn append(&mut self, record: &Record<'_>) -> Result<u32, Error> {
        if let Record::Samples(samples) = record {
            for sample in *samples {
                self.reserve_sample();
                self.sample(sample.series, sample.time, sample.value, None);
            }
            return self.reserve(0);
        }
        let mut staged = std::mem::take(&mut self.staged);
        let reserved = staged.encode(record).and_then(|bytes| self.reserve(bytes));
        if reserved.is_ok() {
            let open = self.open.as_mut().expect("reserved");
            staged.append(record, open, &mut self.tenants);
        }
        self.staged = staged;
        reserved
    }

    /// Whether [`Log::begin_checkpoint`], which turns to the next segment, would keep no batch waiting: its file is ready, or cannot be had anyway,
    /// and then a checkpoint is what makes room.
    pub fn can_turn(&self) -> bool {
        let ready = self.spare.ready_sequence();
        self.is_untouched()
            || ready == self.cursor.sequence.checked_add(1)
            || self.spare.no_space().is_some()
    }

    /// A bound of the sequences of checkpoints: those that begin from now on have this one or a greater, and those that began before have a lesser
    /// one, unless nothing was appended since the last of them began, which then has this one.
    pub fn next_checkpoint_sequence(&self) -> u32 {
        match self.is_untouched() {
            true => self.cursor.sequence,
            false => self.cursor.sequence.saturating_add(1),
        }
    }

    /// Begins a checkpoint: all that was appended so far belongs into it, all that is appended from now on goes to a later segment.
    ///
    /// Only one at a time. Feed it while [`Checkpoint::is_ready`], then finish it; see there.
    pub fn begin_checkpoint(&mut self, reactor: &mut Reactor) -> Checkpoint {
        self.close_open();
        if self.cursor.offset > 0 {
            self.next_segment();
        }
        let header = FileHeader {
            kind: FileKind::Checkpoint,
            core: self.core,
            sequence: self.cursor.sequence,
            epoch: self.epoch,
            first_commit: self.next_commit,
            first_lsn: self.closed_lsn,
        };
        self.wanted = self.wanted.max(self.closed_lsn);
        self.pump(reactor);
        let token = self.options.token_base + token::CHECKPOINT;
        Checkpoint::begin(reactor, &self.dir, header, &self.options, token)
    }

    /// Sends an operation with this token, which does nothing, once all before `lsn` is durable.
    pub(crate) fn wake_when_durable(&mut self, lsn: u64, token: u64) {
        assert!(
            self.wanted >= lsn && self.durable.lsn < lsn,
            "it is on its way"
        );
        self.wake = Some((lsn, token));
    }

    /// A checkpoint is durable: removes all but it and the one before, and retires the segments before that one.
    pub(crate) fn checkpoint_done(&mut self, reactor: &mut Reactor, sequence: u32) {
        self.checkpoints.retain(|&older| older != sequence);
        assert!(
            self.checkpoints.last().is_none_or(|&last| last < sequence),
            "they only grow"
        );
        self.checkpoints.push(sequence);
        self.removals.extend(self.damaged.drain(..));
        while self.checkpoints.len() > 2 {
            let oldest = self.checkpoints.remove(0);
            self.removals
                .push_back(names::checkpoint(&self.dir, oldest));
        }
        if let [previous, _] = self.checkpoints[..] {
            self.retire(previous);
        }
        self.discard_surplus(reactor);
    }

    /// Frees the segments before number `up_to` for reuse.
    fn retire(&mut self, up_to: u32) {
        let current = self
            .current
            .as_ref()
            .map_or(u32::MAX, |current| current.sequence);
        while let Some(&(sequence, len)) = self.segments.front()
            && sequence < up_to.min(current)
        {
            self.segments.pop_front();
            self.retired.push(Retired {
                path: names::segment(&self.dir, sequence),
                len,
            });
        }
    }

    /// Removes retired files beyond those kept for reuse, one after another.
    fn discard_surplus(&mut self, reactor: &mut Reactor) {
        while self.retired.len() > RETIRED_MAX {
            let smallest = (0..self.retired.len()).min_by_key(|&i| self.retired[i].len);
            let retired = self.retired.swap_remove(smallest.expect("there are some"));
            self.removals.push_back(retired.path);
        }
        self.remove_next(reactor);
    }

    fn remove_next(&mut self, reactor: &mut Reactor) {
        if !self.removing
            && let Some(path) = self.removals.pop_front()
        {
            self.removing = true;
            reactor.submit(Op::Remove { path }, self.options.token_base + token::REMOVE);
        }
    }
}

/// Makes durable what replay found but nobody ever knew to be durable.
///
/// The same bytes are written again, to the same place: a sync would not do, since one that failed in a former life has made the kernel forget what
/// it should have written. Torn or not, a sector holds the old bytes or the same new ones.
fn settle(reactor: &mut Reactor, unsettled: &Unsettled, direct: bool) -> Result<(), Error> {
    let open = |reactor: &mut Reactor, mode| {
        reactor
            .run(Op::Open {
                path: unsettled.path.clone(),
                mode,
            })
            .map(Done::file)
    };
    let source = open(reactor, OpenMode::read_only())?;
    let mode = OpenMode {
        write: true,
        ..OpenMode::read_only()
    };
    let target = open(reactor, mode.direct(direct))?;
    let mut offset = unsettled.from;
    while offset < unsettled.to {
        let len = (unsettled.to - offset).min(READ_BYTES as u64) as usize;
        let buf = reactor.buffer(len);
        let (mut buf, read) = reactor
            .run(Op::Read {
                file: source,
                offset,
                buf,
                len,
            })?
            .buffer();
        // A file that somebody cut may end within the padding of its last frame; no record reaches there.
        assert!(read + BLOCK_BYTES > len, "replay has just read it");
        buf[read..len].fill(0);
        let write = Op::Write {
            file: target,
            offset,
            buf,
            len,
            dsync: true,
        };
        let (buf, _) = reactor.run(write)?.buffer();
        reactor.recycle(buf);
        offset += len as u64;
    }
    for file in [source, target] {
        reactor.run(Op::Close { file })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
