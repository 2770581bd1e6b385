//! A checkpoint: the state at one point of the log, written in slices beside it, in its own record format.
//!
//! 1. [`crate::Log::begin_checkpoint`] closes the open group and turns to the next segment, number N: the checkpoint will stand for all segments
//!    before N, so replay begins with it and goes on with N.
//! 2. The caller walks its state while it goes on serving: as long as [`Checkpoint::is_ready`], it appends some series and their chunks, then yields. What changes meanwhile
//!    is in segment N or later anyway; that replay may meet a sample twice is for the one who applies it to bear.
//! 3. [`Checkpoint::finish`]: totals, sync, rename, directory sync. The event that completes the last of these makes it [`CheckpointState::Done`], and the log
//!    then drops the checkpoint before the previous one and frees the segments before the previous one.
//!
//! It is published only when all commits before it are durable: else a start that has to fall back on the one before would find a log that ends too early. It may
//! hold samples of commits *after* it that are still in flight; should such a commit never succeed, the checkpoint shows samples that were sent but not
//! acknowledged, as the log itself may after a crash.
//!
//! A failure abandons the checkpoint and nothing else: the log is untouched, the segments stay. Its file is removed before the failure is told: it failed
//! perhaps because the disk is full, and the log needs the space.
//! Deliberately absent: what a state is, and when a checkpoint is due.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use reactor::{Buffer, Done, Event, File, Op, OpResult, OpenMode, Reactor};

use crate::error::Error;
use crate::frame::{FileHeader, FrameHeader};
use crate::group::Group;
use crate::limits::{BLOCK_BYTES, FRAME_HEADER_BYTES};
use crate::log::Log;
use crate::names;
use crate::options::Options;
use crate::record::{END_BYTES, Record, Staged};
use crate::tenants::Tenants;

/// A checkpoint being written.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    header: FileHeader,
    token: u64,
    group_bytes: usize,
    step: Step,
    /// Whether the operation of `step` is still to be submitted.
    submit_step: bool,
    file: Option<File>,
    open: Option<Group>,
    /// Full groups behind the write in flight: one while the caller keeps to [`Checkpoint::is_ready`], a few when a slice was large.
    queue: VecDeque<Group>,
    /// Where the next group goes.
    offset: u64,
    /// Frames closed so far.
    frames: u64,
    /// Frames whose write was begun; the last of them when `finishing` carries the flag.
    submitted: u64,
    finishing: bool,
    /// What failed, while the file is being removed.
    failure: Option<Error>,
    bytes: u64,
    series: u64,
    chunks: u64,
    tenants: Tenants,
    staged: Staged,
    buffers: Vec<Buffer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Making the file; what is appended meanwhile waits.
    Open,
    Truncate,
    /// No operation in flight.
    Idle,
    Write,
    Sync,
    /// Synced, but a commit before the checkpoint is not durable yet; the log will wake us.
    AwaitLog,
    Close,
    Rename,
    SyncDir,
    Done,
    /// Failed; what is left of it goes.
    DiscardClose,
    DiscardRemove,
    Failed,
}

/// How far a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointState {
    /// More is to be appended, or written.
    Writing,
    /// Durable, and known to the log; drop it.
    Done {
        /// Size of its file.
        bytes: u64,
        /// Series records in it.
        series: u64,
        /// Chunk records in it.
        chunks: u64,
    },
}

impl Checkpoint {
    pub(crate) fn begin(
        reactor: &mut Reactor,
        dir: &Path,
        header: FileHeader,
        options: &Options,
        token: u64,
    ) -> Checkpoint {
        let path = names::checkpoint_unfinished(dir, header.sequence);
        let mode = OpenMode::create().direct(options.direct);
        reactor.submit(Op::Open { path, mode }, token);
        Checkpoint {
            dir: dir.to_owned(),
            header,
            token,
            group_bytes: options.group_bytes,
            step: Step::Open,
            submit_step: false,
            file: None,
            open: None,
            queue: VecDeque::new(),
            offset: 0,
            frames: 0,
            submitted: 0,
            finishing: false,
            failure: None,
            bytes: 0,
            series: 0,
            chunks: 0,
            tenants: Tenants::default(),
            staged: Staged::default(),
            buffers: Vec::new(),
        }
    }

    /// Number of the first segment that is not contained.
    pub fn sequence(&self) -> u32 {
        self.header.sequence
    }

    /// Whether the next slice may be appended: nothing waits behind the write in flight. Not a hard bound but the caller's means to keep memory at a few groups.
    pub fn is_ready(&self) -> bool {
        self.queue.is_empty()
            && !self.finishing
            && self.failure.is_none()
            && self.step != Step::Failed
    }

    /// Appends a record. [`Record::Samples`] do not belong into a checkpoint (asserted): they are in chunks.
    ///
    /// Errors: [`Error::TooLarge`], with nothing written.
    pub fn append(&mut self, reactor: &mut Reactor, record: &Record<'_>) -> Result<(), Error> {
        assert!(!self.finishing, "nothing comes after finish");
        assert!(
            !matches!(record, Record::Samples(_)),
            "samples are kept in chunks"
        );
        let mut staged = std::mem::take(&mut self.staged);
        let reserved = staged
            .encode(record)
            .and_then(|bytes| self.reserve(reactor, bytes));
        if reserved.is_ok() {
            staged.append(
                record,
                self.open.as_mut().expect("reserved"),
                &mut self.tenants,
            );
            self.series += u64::from(matches!(record, Record::Series(_)));
            self.chunks += u64::from(matches!(record, Record::Chunk(_) | Record::StoredChunk(_)));
        }
        self.staged = staged;
        reserved
    }

    fn reserve(&mut self, reactor: &mut Reactor, bytes: usize) -> Result<(), Error> {
        let max = self.group_bytes - FRAME_HEADER_BYTES;
        if bytes > max {
            return Err(Error::TooLarge { bytes, max });
        }
        if self
            .open
            .as_ref()
            .is_some_and(|group| group.room() >= bytes)
        {
            return Ok(());
        }
        self.close_open();
        self.pump(reactor);
        let size = self.group_bytes + BLOCK_BYTES;
        let buffer = self.buffers.pop().unwrap_or_else(|| Buffer::new(size));
        let bytes_max = if self.offset == 0 {
            size
        } else {
            self.group_bytes
        };
        self.open = Some(Group::new(
            buffer,
            self.header.sequence,
            self.offset,
            0,
            bytes_max,
        ));
        Ok(())
    }

    fn close_open(&mut self) {
        if let Some(mut group) = self.open.take() {
            group.close();
            self.frames += 1;
            group.number = self.frames;
            self.offset += group.bytes() as u64;
            self.queue.push_back(group);
        }
    }

    /// All has been appended: completes, syncs and publishes the checkpoint as events come in.
    pub fn finish(&mut self, reactor: &mut Reactor) -> Result<(), Error> {
        assert!(!self.finishing, "finished once");
        self.reserve(reactor, END_BYTES)?;
        let group = self.open.as_mut().expect("reserved");
        self.staged.append_end(self.series, self.chunks, group);
        self.close_open();
        self.finishing = true;
        self.pump(reactor);
        Ok(())
    }

    /// Whether the event belongs to this checkpoint.
    pub fn owns(&self, event: &Event) -> bool {
        matches!(event, Event::Completion { token, .. } if *token == self.token)
    }

    /// Takes an event of this checkpoint.
    ///
    /// Errors: what failed. The checkpoint is abandoned then (drop it); the log is as it was, and another one may be begun later. Only when
    /// the directory cannot be synced is the log poisoned with it: [`Log::health`] tells.
    pub fn on_event(
        &mut self,
        reactor: &mut Reactor,
        log: &mut Log,
        event: Event,
    ) -> Result<CheckpointState, Error> {
        assert!(self.owns(&event), "not an event of this checkpoint");
        let Event::Completion { result, .. } = event else {
            unreachable!("owned")
        };
        if let Err(error) = self.complete(log, result) {
            // The directory is the log's too: a sync of it that fails may have lost, for good, the name of a segment.
            if self.step == Step::SyncDir
                && let Error::Io(failure) = &error
            {
                log.poison(failure);
            }
            self.failed(error);
        }
        if self.step == Step::Failed {
            return Err(self.failure.take().expect("it failed for a reason"));
        }
        self.pump(reactor);
        if self.step != Step::Done {
            return Ok(CheckpointState::Writing);
        }
        log.checkpoint_done(reactor, self.header.sequence);
        let (bytes, series, chunks) = (self.bytes, self.series, self.chunks);
        Ok(CheckpointState::Done {
            bytes,
            series,
            chunks,
        })
    }

    /// An operation has failed. The first failure is told when nothing is left that could be removed.
    fn failed(&mut self, error: Error) {
        self.step = match self.step {
            Step::DiscardClose => Step::DiscardRemove,
            Step::Open | Step::SyncDir | Step::DiscardRemove => Step::Failed,
            _ if self.file.is_some() => Step::DiscardClose,
            _ => Step::DiscardRemove,
        };
        self.submit_step = self.step != Step::Failed;
        self.queue.clear();
        self.failure.get_or_insert(error);
    }

    fn complete(&mut self, log: &mut Log, result: OpResult) -> Result<(), Error> {
        let done = result?;
        self.step = match (self.step, done) {
            (Step::Open, Done::Opened(file)) => {
                self.file = Some(file);
                Step::Truncate
            }
            (Step::Truncate, _) => Step::Idle,
            (Step::Write, Done::Wrote { buf, len }) => {
                self.bytes += len as u64;
                if self.buffers.len() < 2 {
                    self.buffers.push(buf);
                }
                let all = self.finishing && self.queue.is_empty();
                if all { Step::Sync } else { Step::Idle }
            }
            (Step::Sync, _) if log.durable().0 < self.header.first_lsn => {
                log.wake_when_durable(self.header.first_lsn, self.token);
                Step::AwaitLog
            }
            (Step::Sync | Step::AwaitLog, _) => Step::Close,
            (Step::Close, _) => Step::Rename,
            (Step::Rename, _) => Step::SyncDir,
            (Step::SyncDir, _) => Step::Done,
            (Step::DiscardClose, _) => Step::DiscardRemove,
            (Step::DiscardRemove, _) => Step::Failed,
            (step, done) => panic!("{step:?} ended with {done:?}"),
        };
        match self.step {
            Step::Idle | Step::AwaitLog | Step::Done | Step::Failed => {}
            _ => self.submit_step = true,
        }
        Ok(())
    }

    /// Starts the operation of the step, or the next write.
    fn pump(&mut self, reactor: &mut Reactor) {
        if self.step == Step::Idle && !self.queue.is_empty() {
            self.step = Step::Write;
            self.submit_step = true;
        }
        if !std::mem::take(&mut self.submit_step) {
            return;
        }
        let unfinished = names::checkpoint_unfinished(&self.dir, self.header.sequence);
        let op = match self.step {
            Step::Truncate => Op::Truncate {
                file: self.file(),
                len: 0,
            },
            Step::Write => self.next_write(),
            Step::Sync => Op::Sync {
                file: self.file(),
                data_only: false,
            },
            Step::Close | Step::DiscardClose => Op::Close {
                file: self.file.take().expect("open until here"),
            },
            Step::DiscardRemove => Op::Remove { path: unfinished },
            Step::Rename => {
                let to = names::checkpoint(&self.dir, self.header.sequence);
                Op::Rename {
                    from: unfinished,
                    to,
                }
            }
            Step::SyncDir => Op::SyncDir {
                path: self.dir.clone(),
            },
            step => unreachable!("{step:?} has no operation"),
        };
        reactor.submit(op, self.token);
    }

    fn file(&self) -> File {
        self.file.expect("open until it is closed")
    }

    fn next_write(&mut self) -> Op {
        let group = self.queue.pop_front().expect("there is one");
        self.submitted += 1;
        assert_eq!(group.number, self.submitted);
        let frame = FrameHeader {
            len: u32::try_from(group.len()).expect("a group is bounded"),
            sequence: self.header.sequence,
            core: self.header.core,
            epoch: self.header.epoch,
            number: group.number,
            durable: 0,
            lsn: 0,
            relaxed: false,
            last: self.finishing && self.submitted == self.frames,
        };
        let offset = group.offset;
        let header = (offset == 0).then_some(&self.header);
        let (buf, len) = group.seal(header, &frame);
        Op::Write {
            file: self.file(),
            offset,
            buf,
            len,
            dsync: false,
        }
    }
}
