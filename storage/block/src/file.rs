//! A block on its way to disk: written beside its name, synced, renamed, the directory synced. Before the rename nobody sees it, behind the
//! sync of the directory it stays.
//!
//! Submission and completion with one token, as everything on a core: [`FileWriter::builder`] takes series, [`FileWriter::pump`] submits what is
//! ready, [`FileWriter::on_event`] takes a completion. One operation is in flight; a caller that stops adding while not
//! [`FileWriter::is_ready`] keeps memory to a few writes. Tools and background threads with a reactor of their own use
//! [`FileWriter::settle`] and [`FileWriter::complete`], which wait.
//!
//! Whatever fails, the unfinished file is removed if that is possible, and the first failure is told. What a crash leaves is found by its name:
//! [`remove_unfinished`].

use std::path::{Path, PathBuf};

use reactor::{Buffer, Event, File, Op, OpResult, OpenMode, Reactor};

use crate::builder::{Builder, Built, Options};
use crate::error::Error;
use crate::limits::WRITE_BYTES;
use crate::meta::Info;

/// Behind the name of a file in the making.
const UNFINISHED: &str = ".unfinished";

/// Writes that may wait before [`FileWriter::is_ready`] says no.
const WAITING_MAX: usize = 4;

/// A file in the making.
pub struct FileWriter {
    builder: Builder,
    path: PathBuf,
    token: u64,
    step: Step,
    /// Whether the operation of `step` is still to be submitted.
    due: bool,
    file: Option<File>,
    /// Taken from the builder, not written.
    waiting: Vec<u8>,
    /// Of `waiting`, already copied out.
    copied: usize,
    written: u64,
    spare: Option<Buffer>,
    built: Option<Built>,
    failure: Option<Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    Truncate,
    /// No operation in flight.
    Idle,
    Write,
    Sync,
    Close,
    Rename,
    SyncDir,
    Done,
    DiscardClose,
    DiscardRemove,
    Failed,
}

/// How far a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// More is to be added, or written.
    Writing,
    /// Durable and visible.
    Done(Built),
}

impl FileWriter {
    /// Begins to write `path`, whose directory exists. Completions carry `token`.
    ///
    /// Errors: [`Error::Input`] if info or options are out of bounds.
    pub fn begin(
        reactor: &mut Reactor,
        path: &Path,
        info: Info,
        options: Options,
        token: u64,
    ) -> Result<FileWriter, Error> {
        let builder = Builder::new(info, options)?;
        let mut writer = FileWriter {
            builder,
            path: path.to_owned(),
            token,
            step: Step::Open,
            due: true,
            file: None,
            waiting: Vec::new(),
            copied: 0,
            written: 0,
            spare: None,
            built: None,
            failure: None,
        };
        writer.pump(reactor);
        Ok(writer)
    }

    /// What series are added to. To be followed by [`FileWriter::pump`].
    pub fn builder(&mut self) -> &mut Builder {
        assert!(self.built.is_none(), "nothing comes after finish");
        &mut self.builder
    }

    /// Whether little waits for the disk.
    pub fn is_ready(&self) -> bool {
        self.waiting.len() - self.copied + self.builder.ready() < WAITING_MAX * WRITE_BYTES
    }

    /// All has been added: the file is completed, synced and published as events come in.
    pub fn finish(&mut self, reactor: &mut Reactor) {
        assert!(self.built.is_none(), "finished once");
        self.built = Some(self.builder.finish());
        self.pump(reactor);
    }

    /// Gives the file up: what was written of it is removed as events come in; [`FileWriter::on_event`] ends with an error that says so.
    pub fn abandon(&mut self, reactor: &mut Reactor) {
        self.failure
            .get_or_insert_with(|| Error::Input("the block was abandoned".to_owned()));
        if self.step == Step::Idle {
            self.discard();
        }
        self.pump(reactor);
    }

    /// Whether the event belongs to this file.
    pub fn owns(&self, event: &Event) -> bool {
        matches!(event, Event::Completion { token, .. } if *token == self.token)
    }

    /// Takes an event of this file.
    ///
    /// Errors: the first failure, once nothing is left that could be removed; drop the writer then. If the directory could not be synced the
    /// file is visible and may not be durable.
    pub fn on_event(&mut self, reactor: &mut Reactor, event: Event) -> Result<Progress, Error> {
        assert!(self.owns(&event), "not an event of this file");
        let Event::Completion { result, .. } = event else {
            unreachable!("owned")
        };
        if let Err(error) = self.completed(result) {
            self.failure.get_or_insert(error);
            self.discard();
        } else if self.failure.is_some() && self.step == Step::Idle {
            self.discard();
        }
        if self.step == Step::Failed {
            return Err(self.failure.take().expect("it failed for a reason"));
        }
        self.pump(reactor);
        match self.step {
            Step::Done => Ok(Progress::Done(self.built.take().expect("finished"))),
            _ => Ok(Progress::Writing),
        }
    }

    fn completed(&mut self, result: OpResult) -> Result<(), Error> {
        use reactor::Done;
        let done = result?;
        self.step = match (self.step, done) {
            (Step::Open, Done::Opened(file)) => {
                self.file = Some(file);
                Step::Truncate
            }
            (Step::Truncate, _) => Step::Idle,
            (Step::Write, Done::Wrote { buf, len }) => {
                self.written += len as u64;
                self.spare = Some(buf);
                Step::Idle
            }
            (Step::Sync, _) => Step::Close,
            (Step::Close, _) => Step::Rename,
            (Step::Rename, _) => Step::SyncDir,
            (Step::SyncDir, _) => Step::Done,
            (Step::DiscardClose, _) => Step::DiscardRemove,
            (Step::DiscardRemove, _) => Step::Failed,
            (step, done) => panic!("{step:?} ended with {done:?}"),
        };
        self.due = !matches!(self.step, Step::Idle | Step::Done | Step::Failed);
        Ok(())
    }

    /// The next step towards nothing being left.
    fn discard(&mut self) {
        self.step = match self.step {
            Step::DiscardClose => Step::DiscardRemove,
            // Renamed, or not even made: nothing of ours is there to remove.
            Step::Open | Step::SyncDir | Step::DiscardRemove => Step::Failed,
            _ if self.file.is_some() => Step::DiscardClose,
            _ => Step::DiscardRemove,
        };
        self.due = self.step != Step::Failed;
    }

    /// Submits what is due.
    pub fn pump(&mut self, reactor: &mut Reactor) {
        if self.step == Step::Idle && self.failure.is_none() {
            let ready = self.waiting.len() - self.copied + self.builder.ready();
            if ready >= WRITE_BYTES || self.built.is_some() && ready > 0 {
                self.step = Step::Write;
                self.due = true;
            } else if self.built.is_some() {
                self.step = Step::Sync;
                self.due = true;
            }
        }
        if !std::mem::take(&mut self.due) {
            return;
        }
        let unfinished = unfinished(&self.path);
        let op = match self.step {
            Step::Open => Op::Open {
                path: unfinished,
                mode: OpenMode::create(),
            },
            Step::Truncate => Op::Truncate {
                file: self.file(),
                len: 0,
            },
            Step::Write => self.next_write(),
            Step::Sync => {
                assert_eq!(Some(self.written), self.built.as_ref().map(|b| b.bytes));
                Op::Sync {
                    file: self.file(),
                    data_only: false,
                }
            }
            Step::Close | Step::DiscardClose => Op::Close {
                file: self.file.take().expect("open until here"),
            },
            Step::Rename => Op::Rename {
                from: unfinished,
                to: self.path.clone(),
            },
            Step::SyncDir => Op::SyncDir {
                path: directory(&self.path),
            },
            Step::DiscardRemove => Op::Remove { path: unfinished },
            step => unreachable!("{step:?} has no operation"),
        };
        reactor.submit(op, self.token);
    }

    fn file(&self) -> File {
        self.file.expect("open until it is closed")
    }

    fn next_write(&mut self) -> Op {
        if self.copied == self.waiting.len() {
            self.waiting = self.builder.take();
            self.copied = 0;
        }
        let mut buf = self
            .spare
            .take()
            .unwrap_or_else(|| Buffer::new(WRITE_BYTES));
        let rest = &self.waiting[self.copied..];
        let len = rest.len().min(WRITE_BYTES);
        assert!(len > 0, "a write has bytes");
        buf[..len].copy_from_slice(&rest[..len]);
        self.copied += len;
        Op::Write {
            file: self.file(),
            offset: self.written,
            buf,
            len,
            dsync: false,
        }
    }

    /// Waits until the writer is ready for more. For a reactor on which nothing else happens: other events are lost.
    pub fn settle(&mut self, reactor: &mut Reactor) -> Result<(), Error> {
        self.pump(reactor);
        while !self.is_ready() {
            self.turn(reactor)?;
        }
        Ok(())
    }

    /// Finishes and waits until the file is durable and visible, or failed and removed. As [`FileWriter::settle`].
    pub fn complete(mut self, reactor: &mut Reactor) -> Result<Built, Error> {
        self.finish(reactor);
        loop {
            if let Progress::Done(built) = self.turn(reactor)? {
                return Ok(built);
            }
        }
    }

    /// Gives the file up and waits until nothing of it is left. As [`FileWriter::settle`].
    pub fn discard_now(mut self, reactor: &mut Reactor) {
        self.abandon(reactor);
        // One that has failed already has nothing in flight: a wait would have no end.
        while self.step != Step::Failed && self.turn(reactor).is_ok() {}
    }

    fn turn(&mut self, reactor: &mut Reactor) -> Result<Progress, Error> {
        let mut events = Vec::new();
        reactor.wait(None, &mut events);
        if events.is_empty() {
            return Err(Error::Source {
                file: self.path.display().to_string(),
                reason: "the machine has no power".to_owned(),
            });
        }
        let mut progress = Progress::Writing;
        for event in events {
            if self.owns(&event) {
                progress = self.on_event(reactor, event)?;
            }
        }
        Ok(progress)
    }
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileWriter({:?}, {:?})", self.path, self.step)
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    PathBuf::from(name)
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Removes what crashes left of files in the making in a directory; tells how many. At start, before anything is written there.
pub fn remove_unfinished(reactor: &mut Reactor, dir: &Path) -> Result<usize, Error> {
    let entries = reactor
        .run(Op::List {
            path: dir.to_owned(),
        })?
        .entries();
    let mut removed = 0;
    for entry in entries {
        let left = entry.name.to_str().is_some_and(|n| n.ends_with(UNFINISHED));
        if left && !entry.is_dir {
            let path = dir.join(entry.name);
            reactor.run(Op::Remove { path })?;
            removed += 1;
        }
    }
    if removed > 0 {
        reactor.run(Op::SyncDir {
            path: dir.to_owned(),
        })?;
    }
    Ok(removed)
}
