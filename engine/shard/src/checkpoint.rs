//! When a checkpoint is due, and writing it in slices while the core goes on serving.
//!
//! A checkpoint is due when the log has grown by more than the threshold and by more than the last checkpoint was long, so
//! that checkpoints never write more than the log itself; when more numbers wait for one to be given out again than series live; on request; and at a graceful stop, so that the next start reads one
//! file. It walks the series table in order of numbers: a series record, the places of its closed chunks (but for those that a cut has moved into blocks), its
//! open chunk sealed in a copy, its late samples, its exemplars and starts. When all rows are written the chunk files are synced as far as they are named, and only then the checkpoint is completed.
//! It is fuzzy: what changes behind the walk is in the segments behind the checkpoint too, and replay skips what it knows.

use std::borrow::Cow;
use std::sync::mpsc::channel;

use model::{Generation, SeriesRef, TimeMs};
use reactor::{Event, Reactor};
use wal::{
    Checkpoint, CheckpointState, ChunkRecord, Log, LoggedSample, Record, SeriesRecord,
    StoredChunkRecord,
};

use crate::Error;
use crate::chunkfile::{Broken, SyncPoint};
use crate::core::{Core, TOKEN_CHUNKS};
use crate::cut::Cut;
use crate::limits::{CHECKPOINT_SLICE_BYTES, CHECKPOINT_SLICE_ROWS, LATE_RECORD_SAMPLES};
use crate::memtable::late::Late;
use crate::memtable::{LATE, Memtable, NO_TENANT, Sealed};

/// About what naming a closed chunk takes.
const STORED_CHUNK_BYTES: usize = 32;

/// About what a start of a counter takes.
const START_BYTES: usize = 20;

/// Answered when the checkpoint is durable, or has failed.
pub(crate) type Reply = Box<dyn FnOnce(Result<(), String>) + Send>;

/// The checkpoints of one core.
pub(crate) struct Checkpoints {
    running: Option<Running>,
    /// Asked for while another one was running: they want the state as of their asking.
    requests: Vec<Reply>,
    /// Without anybody who waits for it.
    wanted: bool,
    /// Sequences of the last two of this process, older first. Those before name all numbers that were there at the start.
    kept: Vec<u32>,
    log_bytes_max: u64,
    /// Log that was there when this process began.
    log_bytes_found: u64,
    /// Bytes of log at the begin of the last checkpoint.
    log_bytes_then: u64,
    last_bytes: u64,
    pub(crate) begun: u64,
    /// The number, by order of beginning, of the last one that is durable.
    done: u64,
    pub(crate) failed: u64,
    pub(crate) bytes: u64,
}

struct Running {
    writer: Checkpoint,
    walk: Walk,
    replies: Vec<Reply>,
}

/// How far a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// The next row to write.
    Row(u32),
    /// All rows are written; the chunks that they name are to be durable.
    Chunks(SyncPoint),
    /// The rest is the writer's.
    Over,
}

impl Checkpoints {
    /// `log_bytes_max` is the threshold.
    pub(crate) fn new(log: &Log, log_bytes_max: u64) -> Checkpoints {
        Checkpoints {
            running: None,
            requests: Vec::new(),
            wanted: false,
            kept: Vec::new(),
            log_bytes_max,
            log_bytes_found: log.segments_bytes(),
            log_bytes_then: 0,
            last_bytes: 0,
            begun: 0,
            done: 0,
            failed: 0,
            bytes: 0,
        }
    }

    /// Asks for one that contains everything up to now.
    pub(crate) fn request(&mut self, reply: Reply) {
        self.requests.push(reply);
    }

    /// One is due soon, if it would tell anything that the last one does not.
    pub(crate) fn want(&mut self, log: &Log) {
        let last = self.kept.last();
        self.wanted = last.is_none_or(|last| log.next_checkpoint_sequence() > *last);
    }

    /// Whether a turn would get further without any event.
    ///
    /// `held`: none may begin.
    pub(crate) fn has_work(&self, memtable: &Memtable, held: bool) -> bool {
        match &self.running {
            Some(running) => match running.walk {
                Walk::Row(_) => running.writer.is_ready(),
                Walk::Chunks(point) => memtable.chunks.is_synced(point),
                Walk::Over => false,
            },
            None => !self.requests.is_empty() && !held,
        }
    }

    /// Whether none is running or asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_none() && self.requests.is_empty()
    }

    /// Whether one is being written.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether one has rows to write: what it says of them may have been logged behind its begin, so nothing may be deleted now.
    pub(crate) fn is_walking(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| matches!(running.walk, Walk::Row(_)))
    }

    /// How many had begun when the last one began that is durable, itself included.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Numbers of series that died in segments before this one are named by no checkpoint and no segment that is kept.
    pub(crate) fn oldest_segment(&self) -> u32 {
        match self.kept[..] {
            [older, _] => older,
            _ => 0,
        }
    }

    /// Ends all with an error; the log has failed.
    pub(crate) fn abort(&mut self, reason: &str) {
        let running = self.running.take().map(|running| running.replies);
        let replies = running.into_iter().flatten().chain(self.requests.drain(..));
        replies.for_each(|reply| reply(Err(reason.to_owned())));
    }

    /// Bytes written to the log since the last checkpoint began.
    pub(crate) fn log_bytes_since(&self, log: &Log) -> u64 {
        self.log_bytes_found + log.stats().commit_bytes - self.log_bytes_then
    }

    fn is_due(&self, log: &Log) -> bool {
        let since = self.log_bytes_since(log);
        let grown = since > self.log_bytes_max.max(self.last_bytes);
        !self.requests.is_empty() || ((grown || self.wanted) && log.can_turn())
    }

    /// Begins one if it is due, and writes a slice of the one that runs. It leaves out what `cut` has moved.
    pub(crate) fn advance(
        &mut self,
        reactor: &mut Reactor,
        log: &mut Log,
        memtable: &mut Memtable,
        cut: Option<&Cut>,
    ) {
        if self.running.is_none() && self.is_due(log) {
            self.log_bytes_then = self.log_bytes_found + log.stats().commit_bytes;
            self.begun += 1;
            self.wanted = false;
            let writer = log.begin_checkpoint(reactor);
            let replies = std::mem::take(&mut self.requests);
            self.running = Some(Running {
                writer,
                walk: Walk::Row(0),
                replies,
            });
        }
        let Some(running) = &mut self.running else {
            return;
        };
        if let Err(error) = running.slice(reactor, memtable, cut) {
            self.fail(&error.to_string());
        }
    }

    /// Takes an event, if it is of the one that runs.
    pub(crate) fn on_event(&mut self, reactor: &mut Reactor, log: &mut Log, event: Event) {
        let Some(running) = self
            .running
            .as_mut()
            .filter(|running| running.writer.owns(&event))
        else {
            return; // Of one that was abandoned when the log failed.
        };
        match running.writer.on_event(reactor, log, event) {
            Ok(CheckpointState::Done { bytes, .. }) => {
                let Running {
                    writer, replies, ..
                } = self.running.take().expect("looked at above");
                self.last_bytes = bytes;
                self.bytes += bytes;
                // One runs at a time.
                self.done = self.begun;
                self.kept.push(writer.sequence());
                if self.kept.len() > 2 {
                    self.kept.remove(0);
                }
                replies.into_iter().for_each(|reply| reply(Ok(())));
            }
            Ok(_) => {}
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// Writes one before the core serves: after the number of cores has changed, and after a salvage.
    ///
    /// Errors: what failed; the caller does not go on.
    pub(crate) fn write_now(
        &mut self,
        reactor: &mut Reactor,
        log: &mut Log,
        memtable: &mut Memtable,
    ) -> Result<(), Error> {
        let failed = |log: &Log, reason| Error::Data {
            path: log.dir().to_owned(),
            reason,
        };
        let (done, result) = channel();
        self.request(Box::new(move |result| {
            done.send(result).unwrap_or_default()
        }));
        let mut events = Vec::new();
        loop {
            self.advance(reactor, log, memtable, None);
            if let Ok(result) = result.try_recv() {
                return result.map_err(|reason| failed(log, reason));
            }
            if let Some(reason) = memtable.chunks.no_space() {
                return Err(failed(log, reason.to_owned()));
            }
            if let Some(op) = memtable.chunks.next_op(reactor) {
                reactor.submit(op, TOKEN_CHUNKS);
            }
            if self.has_work(memtable, false) {
                continue;
            }
            reactor.wait(None, &mut events);
            if events.is_empty() {
                let reason = "the simulated machine has no power".to_owned();
                return Err(failed(log, reason));
            }
            for event in events.drain(..) {
                match event {
                    Event::Completion {
                        token: TOKEN_CHUNKS,
                        result,
                    } => match memtable.chunks.complete(reactor, result) {
                        Ok(()) | Err(Broken::NoSpace) => {}
                        Err(Broken::Failed(reason)) => return Err(failed(log, reason)),
                    },
                    event if log.owns(&event) => drop(log.on_event(reactor, event)?),
                    event => self.on_event(reactor, log, event),
                }
            }
        }
    }

    /// The log keeps its segments; the next one comes when it has grown as much again.
    fn fail(&mut self, reason: &str) {
        self.failed += 1;
        let replies = self.running.take().map(|running| running.replies);
        replies
            .into_iter()
            .flatten()
            .for_each(|reply| reply(Err(reason.to_owned())));
    }
}

impl Running {
    fn slice(
        &mut self,
        reactor: &mut Reactor,
        memtable: &mut Memtable,
        cut: Option<&Cut>,
    ) -> Result<(), wal::Error> {
        if let Walk::Chunks(point) = self.walk
            && memtable.chunks.is_synced(point)
        {
            self.walk = Walk::Over;
            return self.writer.finish(reactor);
        }
        let (mut rows, mut bytes) = (0, 0);
        while let Walk::Row(series) = self.walk
            && self.writer.is_ready()
            && rows < CHECKPOINT_SLICE_ROWS
            && bytes < CHECKPOINT_SLICE_BYTES
        {
            if series == memtable.rows.count() {
                self.walk = Walk::Chunks(memtable.chunks.request_sync());
                return Ok(());
            }
            bytes += put_series(&mut self.writer, reactor, memtable, series, cut)?;
            rows += 1;
            self.walk = Walk::Row(series + 1);
        }
        Ok(())
    }
}

/// Appends one row, its open chunk and the places of the closed ones; returns about how many bytes that took.
fn put_series(
    writer: &mut Checkpoint,
    reactor: &mut Reactor,
    memtable: &Memtable,
    series: u32,
    cut: Option<&Cut>,
) -> Result<usize, wal::Error> {
    let row = &memtable.rows[series];
    if row.tenant == NO_TENANT {
        return Ok(0);
    }
    let (tenant, cold) = (memtable.tenant(row.tenant), &memtable.colds[series]);
    let mut packed = Vec::with_capacity(256);
    tenant.index.put_packed(&cold.pairs, &mut packed);
    let record = SeriesRecord {
        series: SeriesRef(series),
        generation: Generation(row.generation),
        id: cold.id,
        tenant: &tenant.id,
        labels: &packed,
    };
    writer.append(reactor, &Record::Series(record))?;
    let mut bytes = packed.len();
    let parked = memtable.is_parked(series);
    for (at, &chunk) in cold.sealed.iter().enumerate() {
        let mut chunk = chunk;
        if cut.is_some_and(|cut| cut.moves(row.tenant, &chunk)) {
            // As the cut leaves it: a live row has a sample.
            if !parked || at + 1 < cold.sealed.len() {
                continue;
            }
            chunk.mark_in_block();
        }
        let record = stored_chunk(series, &chunk, 0);
        writer.append(reactor, &Record::StoredChunk(record))?;
        bytes += STORED_CHUNK_BYTES;
    }
    // Of a parked series all chunks are closed.
    if !parked {
        let open = memtable.open(series);
        let sealed = open.seal();
        let record = ChunkRecord {
            series: SeriesRef(series),
            first: TimeMs(open.first_time()),
            last: TimeMs(open.last_time()),
            sealed: &sealed,
        };
        writer.append(reactor, &Record::Chunk(record))?;
        bytes += sealed.len();
    }
    if let Some(late) = tenant.lates.of(series) {
        let moved = |chunk: &Sealed| cut.is_some_and(|cut| cut.moves(row.tenant, chunk));
        bytes += put_late(writer, reactor, series, late, &moved)?;
    }
    if !tenant.exemplars.is_empty() {
        for exemplar in tenant.exemplars.of(series) {
            let record = Record::Exemplar {
                series: SeriesRef(series),
                exemplar: Cow::Borrowed(exemplar),
            };
            writer.append(reactor, &record)?;
            bytes += exemplar.labels.packed().len() + 32;
        }
    }
    if !tenant.starts.is_empty() {
        for start in tenant.starts.of(series) {
            let record = Record::StartTimestamp {
                series: SeriesRef(series),
                time: start.from,
                start: start.start,
            };
            writer.append(reactor, &record)?;
            bytes += START_BYTES;
        }
    }
    Ok(bytes)
}

/// `mark` is added to the count.
fn stored_chunk(series: u32, chunk: &Sealed, mark: u16) -> StoredChunkRecord {
    let place = chunk.place();
    StoredChunkRecord {
        series: SeriesRef(series),
        first: TimeMs(chunk.min_time()),
        last: TimeMs(chunk.max_time()),
        count: chunk.marked_count() | mark,
        file: place.file,
        offset: place.offset,
        len: place.len,
    }
}

/// Appends the late samples of a series, but for the chunks that a cut has moved: the places of the others in their order, and what is in the buffer.
fn put_late(
    writer: &mut Checkpoint,
    reactor: &mut Reactor,
    series: u32,
    late: &Late,
    moved: &dyn Fn(&Sealed) -> bool,
) -> Result<usize, wal::Error> {
    let mut bytes = 0;
    for chunk in late.sealed().iter().filter(|chunk| !moved(chunk)) {
        let record = stored_chunk(series, chunk, LATE);
        writer.append(reactor, &Record::StoredChunk(record))?;
        bytes += STORED_CHUNK_BYTES;
    }
    let logged = |&(time, value): &(i64, f64)| LoggedSample {
        series: SeriesRef(series),
        time,
        value,
    };
    let floats: Vec<LoggedSample> = late.floats().iter().map(logged).collect();
    for some in floats.chunks(LATE_RECORD_SAMPLES) {
        writer.append(reactor, &Record::LateSamples(some))?;
        bytes += some.len() * wal::SAMPLE_BYTES_MAX;
    }
    for (time, histogram) in late.histograms() {
        let record = Record::LateHistogram {
            series: SeriesRef(series),
            time: TimeMs(*time),
            histogram: Cow::Borrowed(histogram),
        };
        writer.append(reactor, &record)?;
        bytes += chunk::histogram_bytes_max(histogram);
    }
    Ok(bytes)
}

impl Core {
    pub(crate) fn slice_checkpoint(&mut self) {
        if self.cuts.holds_checkpoints() && !self.checkpoints.is_running() {
            return;
        }
        let cut = self.cuts.moved();
        self.checkpoints
            .advance(&mut self.reactor, &mut self.log, &mut self.memtable, cut);
    }

    pub(crate) fn checkpoint_event(&mut self, event: Event) {
        self.checkpoints
            .on_event(&mut self.reactor, &mut self.log, event);
        // The sync of the directory, which they share, may have failed.
        if let wal::Health::Poisoned(reason) = self.log.health() {
            self.poison(reason);
        }
    }
}
