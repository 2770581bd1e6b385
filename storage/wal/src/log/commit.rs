//! The disk's side of the log: what is in flight, which group goes next, and what a completion means.
//!
//! [`Log::pump`] is called after everything that may have made work: it starts at most one operation. The order of its questions is the
//! durability story: poisoned? busy? is a sync needed first? is the segment's file there? then write.

use reactor::{Done, Event, Failure, File, Op, OpKind, OpResult, OpenMode, Reactor};

use super::{Log, Mark, Retired, token};
use crate::error::Error;
use crate::frame::{FileHeader, FileKind, FrameHeader};
use crate::limits::{RELAXED_SYNC_MS, SPACE_RETRY_MS};
use crate::names;
use model::Lsn;

/// The segment being written.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) sequence: u32,
    /// As the options say: direct or not. Writes through it are dsync.
    file: File,
    /// The same file through the page cache, opened when the first relaxed group comes.
    relaxed: Option<File>,
    /// Whether something written through `relaxed` is not synced. Never true of an earlier segment.
    unsynced: bool,
}

/// The one operation in flight.
#[derive(Debug)]
pub(super) enum Flight {
    Write {
        end: Mark,
        relaxed: bool,
        bytes: u64,
    },
    Sync {
        end: Mark,
    },
    OpenRelaxed,
}

/// Where the log stands after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// As [`Log::written`].
    pub written: Lsn,
    /// As [`Log::durable`].
    pub durable: Lsn,
}

impl Log {
    /// Sees to it that all appended so far gets to the disk: at once if nothing is in flight, else behind what is. With `durable`, replies that wait
    /// for [`Log::durable`] will come; without, only those that wait for [`Log::written`].
    ///
    /// Call it once per turn, after the last batch of the turn.
    pub fn submit(&mut self, reactor: &mut Reactor, durable: bool) {
        if durable {
            self.wanted = self.tail().0;
        }
        self.pump(reactor);
    }

    /// Whether the event belongs to this log; those of its checkpoint do not.
    pub fn owns(&self, event: &Event) -> bool {
        let base = self.options.token_base;
        match event {
            Event::Completion { token, .. } => (base..=base + token::CLOSE).contains(token),
            Event::Timer(token) => [token::TIMER_SYNC, token::TIMER_SPACE]
                .iter()
                .any(|timer| base + timer == *token),
            Event::Doorbell => false,
        }
    }

    /// Takes an event of this log and starts what can be started now.
    ///
    /// Errors: [`Error::Poisoned`] when this event poisoned the log; [`Log::health`] says so ever after.
    pub fn on_event(&mut self, reactor: &mut Reactor, event: Event) -> Result<Progress, Error> {
        assert!(self.owns(&event), "not an event of this log");
        let base = self.options.token_base;
        match event {
            Event::Completion { token, result } => match token - base {
                token::COMMIT => self.committed(reactor, result)?,
                token::SPARE => self.spare_advanced(reactor, result)?,
                token::REMOVE => self.removed(reactor, &result),
                token::CLOSE => {}
                other => unreachable!("{other} is none of the log's tokens"),
            },
            Event::Timer(token) if token == base + token::TIMER_SYNC => {
                self.sync_timer_set = false;
                self.wanted = self.wanted.max(self.written.lsn);
            }
            Event::Timer(_) => {
                if let Some(len) = self.spare.waits_for() {
                    let recycled = self.take_retired(len);
                    self.spare.retry(recycled);
                    self.submit_spare(reactor);
                }
            }
            Event::Doorbell => unreachable!("not owned"),
        }
        self.pump(reactor);
        Ok(Progress {
            written: self.written(),
            durable: self.durable(),
        })
    }

    /// Starts the next operation of the commit, if there is one to start.
    pub(super) fn pump(&mut self, reactor: &mut Reactor) {
        if self.poisoned.is_some() || self.flight.is_some() || self.held {
            return;
        }
        if self.queue.is_empty() && self.open.as_ref().is_some_and(|group| !group.is_empty()) {
            self.close_open();
        }
        let unsynced = self
            .current
            .as_ref()
            .is_some_and(|current| current.unsynced);
        let Some(next) = self.queue.front() else {
            if unsynced && self.wanted > self.durable.lsn {
                self.start_sync(reactor);
            }
            return;
        };
        let relaxed = self.wanted <= next.lsn;
        let sequence = next.sequence;
        let rolls = self
            .current
            .as_ref()
            .is_none_or(|current| current.sequence != sequence);
        if unsynced && (rolls || !relaxed) {
            self.start_sync(reactor);
            return;
        }
        if rolls && !self.roll(reactor, sequence) {
            return;
        }
        if relaxed && !self.has_relaxed(reactor) {
            return;
        }
        self.start_write(reactor, relaxed);
    }

    /// Turns to the next segment; false if its file is not ready.
    fn roll(&mut self, reactor: &mut Reactor, sequence: u32) -> bool {
        let Some(ready) = self.spare.take(sequence) else {
            self.stats.space_waits += 1;
            return false;
        };
        assert!(ready.len >= self.planned(sequence));
        let (file, relaxed, unsynced) = (ready.file, None, false);
        let old = self.current.replace(Current {
            sequence,
            file,
            relaxed,
            unsynced,
        });
        if let Some(old) = old {
            assert!(!old.unsynced, "synced before the roll");
            for file in [Some(old.file), old.relaxed].into_iter().flatten() {
                reactor.submit(Op::Close { file }, self.options.token_base + token::CLOSE);
            }
        }
        self.segments.push_back((sequence, ready.len));
        self.stats.segments += 1;
        self.stats.segments_recycled += u64::from(ready.recycled);
        self.plan_spare(sequence + 1, true);
        self.submit_spare(reactor);
        true
    }

    /// Whether the current segment is open through the page cache; if not, opens it.
    fn has_relaxed(&mut self, reactor: &mut Reactor) -> bool {
        let current = self.current.as_ref().expect("rolled before");
        if current.relaxed.is_some() {
            return true;
        }
        let path = names::segment(&self.dir, current.sequence);
        let mode = OpenMode {
            write: true,
            ..OpenMode::read_only()
        };
        self.flight = Some(Flight::OpenRelaxed);
        reactor.submit(
            Op::Open { path, mode },
            self.options.token_base + token::COMMIT,
        );
        false
    }

    fn start_sync(&mut self, reactor: &mut Reactor) {
        let current = self.current.as_ref().expect("something was written");
        let file = current.relaxed.expect("something was written relaxed");
        self.flight = Some(Flight::Sync { end: self.written });
        let op = Op::Sync {
            file,
            data_only: true,
        };
        reactor.submit(op, self.options.token_base + token::COMMIT);
    }

    fn start_write(&mut self, reactor: &mut Reactor, relaxed: bool) {
        let group = self.queue.pop_front().expect("there is one");
        let current = self.current.as_mut().expect("rolled before");
        assert_eq!(current.sequence, group.sequence);
        assert_eq!(
            group.number,
            self.written.commit + 1,
            "no gap in the numbers"
        );
        assert_eq!(group.lsn, self.written.lsn, "no gap in the positions");
        assert!(
            relaxed || self.durable == self.written,
            "all before a durable commit is durable"
        );
        let frame = FrameHeader {
            len: u32::try_from(group.len()).expect("a group is bounded"),
            sequence: group.sequence,
            core: self.core,
            epoch: self.epoch,
            number: group.number,
            durable: self.durable.commit,
            lsn: group.lsn,
            relaxed,
            last: false,
        };
        let header = (group.offset == 0).then_some(FileHeader {
            kind: FileKind::Segment,
            core: self.core,
            sequence: group.sequence,
            epoch: self.epoch,
            first_commit: group.number,
            first_lsn: group.lsn,
        });
        let (end, offset) = (
            Mark {
                lsn: group.end_lsn(),
                commit: group.number,
            },
            group.offset,
        );
        self.stats.record_bytes += group.len() as u64;
        let (buf, len) = group.seal(header.as_ref(), &frame);
        let file = if relaxed {
            current.unsynced = true;
            current.relaxed.expect("opened before")
        } else {
            current.file
        };
        self.flight = Some(Flight::Write {
            end,
            relaxed,
            bytes: len as u64,
        });
        let op = Op::Write {
            file,
            offset,
            buf,
            len,
            dsync: !relaxed,
        };
        reactor.submit(op, self.options.token_base + token::COMMIT);
    }

    /// The operation in flight ended.
    fn committed(&mut self, reactor: &mut Reactor, result: OpResult) -> Result<(), Error> {
        let flight = self.flight.take().expect("one is in flight");
        let done = match result {
            Ok(done) => done,
            Err(mut failure) => {
                // The file has got its name since it was opened.
                if let Some(current) = &self.current {
                    failure.path = names::segment(&self.dir, current.sequence).into();
                }
                return Err(self.poison(&failure));
            }
        };
        match (flight, done) {
            (
                Flight::Write {
                    end,
                    relaxed,
                    bytes,
                },
                Done::Wrote { buf, .. },
            ) => {
                self.keep_buffer(buf);
                self.written = end;
                self.stats.commits += 1;
                self.stats.commit_bytes += bytes;
                if relaxed {
                    self.stats.commits_relaxed += 1;
                    self.arm_sync_timer(reactor);
                } else {
                    self.durable = end;
                }
            }
            (Flight::Sync { end }, Done::Synced) => {
                self.stats.syncs += 1;
                self.durable = end;
                self.current.as_mut().expect("it was synced").unsynced = false;
            }
            (Flight::OpenRelaxed, Done::Opened(file)) => {
                self.current.as_mut().expect("it was opened").relaxed = Some(file);
            }
            (flight, done) => panic!("{flight:?} ended with {done:?}"),
        }
        assert!(self.durable <= self.written);
        if let Some((lsn, token)) = self.wake
            && self.durable.lsn >= lsn
        {
            self.wake = None;
            reactor.submit(
                Op::Stat {
                    path: self.dir.clone(),
                },
                token,
            );
        }
        Ok(())
    }

    /// Nothing is written from here on.
    pub(crate) fn poison(&mut self, failure: &Failure) -> Error {
        let reason = failure.to_string();
        if self.poisoned.is_none() {
            self.poisoned = Some(reason.clone());
        }
        Error::Poisoned { reason }
    }

    fn arm_sync_timer(&mut self, reactor: &mut Reactor) {
        if !self.sync_timer_set {
            self.sync_timer_set = true;
            let at = reactor
                .now()
                .after(std::time::Duration::from_millis(RELAXED_SYNC_MS));
            reactor.set_timer(at, self.options.token_base + token::TIMER_SYNC);
        }
    }

    pub(super) fn arm_space_timer(&mut self, reactor: &mut Reactor) {
        let at = reactor
            .now()
            .after(std::time::Duration::from_millis(SPACE_RETRY_MS));
        reactor.set_timer(at, self.options.token_base + token::TIMER_SPACE);
    }

    /// Decides how the file of a segment is come by: from a retired one that is large enough, else new.
    pub(super) fn plan_spare(&mut self, sequence: u32, fill: bool) {
        let len = self.planned(sequence);
        let recycled = self.take_retired(len);
        self.spare.plan(sequence, len, recycled, fill);
    }

    fn take_retired(&mut self, len: u64) -> Option<Retired> {
        let fits = self.retired.iter().position(|retired| retired.len >= len);
        fits.map(|index| self.retired.swap_remove(index))
    }

    fn submit_spare(&mut self, reactor: &mut Reactor) {
        if let Some(op) = self.spare.next_op() {
            reactor.submit(op, self.options.token_base + token::SPARE);
        }
    }

    fn spare_advanced(&mut self, reactor: &mut Reactor, result: OpResult) -> Result<(), Error> {
        if let Err(failure) = self.spare.complete(result) {
            assert_eq!(failure.op, OpKind::SyncDir);
            return Err(self.poison(&failure));
        }
        if self.spare.waits() {
            self.stats.space_failures += 1;
            self.arm_space_timer(reactor);
        }
        self.submit_spare(reactor);
        Ok(())
    }

    fn removed(&mut self, reactor: &mut Reactor, result: &OpResult) {
        self.removing = false;
        if let Err(failure) = result
            && !failure.is_not_found()
        {
            self.stats.remove_failures += 1;
        }
        self.remove_next(reactor);
    }
}
