//! The file of the next segment, made ready in the background before it is needed.
//!
//! Two ways to one. *Recycled*: rename a retired segment, sync the directory, open it; its blocks are written already, so that commits into it cost
//! no metadata. *New*: create under a temporary name, allocate, fill with zeros piece by piece (not for the very first one, which shall be quick),
//! sync, rename, sync the directory.
//!
//! Nothing of ours is in the file yet, so a failure on the way costs nothing: the file is thrown away, [`Spare::no_space`] says why, and
//! the log tries again after a pause. The one exception is a failed sync of the directory: whether the name will be there after a power cut is unknown from then on and
//! not to be found out by syncing again, so it is an error that poisons the log.
//!
//! A state machine of operations: [`Spare::next_op`] says what to do, [`Spare::complete`] takes the result.

use std::path::{Path, PathBuf};

use reactor::{Buffer, Done, Failure, File, Op, OpResult, OpenMode};

use super::Retired;
use crate::limits::FILL_BYTES;
use crate::names;

#[derive(Debug)]
pub(super) struct Spare {
    dir: PathBuf,
    direct: bool,
    state: State,
    no_space: Option<String>,
    /// Zeros for filling, while a new file is being made.
    zeros: Option<Buffer>,
}

#[derive(Debug)]
enum State {
    /// Nothing to do until the log asks for a segment.
    Idle,
    Working(Work),
    /// Failed; begins again when the log says so.
    Waiting(Plan),
    Ready(Ready),
}

/// What is wanted.
#[derive(Debug, Clone)]
struct Plan {
    sequence: u32,
    len: u64,
    fill: bool,
}

#[derive(Debug)]
struct Work {
    plan: Plan,
    step: Step,
    /// Open file, from creation on; of a recycled one only at the end.
    file: Option<File>,
    recycled: Option<Retired>,
    submitted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Recycled: give it its new name.
    RenameOld,
    /// New: remove what a former attempt left.
    Clear,
    Create,
    Allocate,
    Fill {
        offset: u64,
    },
    Sync,
    RenameNew,
    SyncDir,
    /// Recycled: open under the new name.
    Open,
    /// Failed: close the file, then wait.
    Close,
}

/// The next segment's file.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) sequence: u32,
    pub(super) file: File,
    /// Length of the file.
    pub(super) len: u64,
    pub(super) recycled: bool,
}

impl Spare {
    pub(super) fn new(dir: &Path, direct: bool) -> Spare {
        Spare {
            dir: dir.to_owned(),
            direct,
            state: State::Idle,
            no_space: None,
            zeros: None,
        }
    }

    /// Begins to make the file of segment `sequence` with at least `len` bytes.
    pub(super) fn plan(&mut self, sequence: u32, len: u64, recycled: Option<Retired>, fill: bool) {
        assert!(matches!(self.state, State::Idle), "one at a time");
        assert!(recycled.as_ref().is_none_or(|retired| retired.len >= len));
        let step = if recycled.is_some() {
            Step::RenameOld
        } else {
            Step::Clear
        };
        let plan = Plan {
            sequence,
            len,
            fill,
        };
        self.state = State::Working(Work {
            plan,
            step,
            file: None,
            recycled,
            submitted: false,
        });
    }

    /// How long a file it waits for, after a failure.
    pub(super) fn waits_for(&self) -> Option<u64> {
        match &self.state {
            State::Waiting(plan) => Some(plan.len),
            _ => None,
        }
    }

    /// Begins again after a failure, perhaps with a file that has been retired meanwhile.
    pub(super) fn retry(&mut self, recycled: Option<Retired>) {
        if let State::Waiting(plan) = &self.state {
            let Plan {
                sequence,
                len,
                fill,
            } = *plan;
            self.state = State::Idle;
            self.plan(sequence, len, recycled, fill);
        }
    }

    /// Whether it has failed and waits for [`Spare::retry`].
    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    /// The segment whose file is ready.
    pub(super) fn ready_sequence(&self) -> Option<u32> {
        match &self.state {
            State::Ready(ready) => Some(ready.sequence),
            _ => None,
        }
    }

    /// Why no file could be had at the last attempt, until there is one.
    pub(super) fn no_space(&self) -> Option<&str> {
        self.no_space.as_deref()
    }

    /// Takes the file if it is ready; it is that of `sequence` then (asserted).
    pub(super) fn take(&mut self, sequence: u32) -> Option<Ready> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Ready(ready) => {
                assert_eq!(ready.sequence, sequence, "segments follow one another");
                Some(ready)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// The operation to submit now, if there is one; its result goes to [`Spare::complete`].
    pub(super) fn next_op(&mut self) -> Option<Op> {
        let State::Working(work) = &mut self.state else {
            return None;
        };
        if work.submitted {
            return None;
        }
        work.submitted = true;
        let final_path = names::segment(&self.dir, work.plan.sequence);
        let new_path = names::segment_unfinished(&self.dir, work.plan.sequence);
        let file = || work.file.expect("opened in an earlier step");
        Some(match work.step {
            Step::RenameOld => {
                let from = work
                    .recycled
                    .as_ref()
                    .expect("there is one to rename")
                    .path
                    .clone();
                Op::Rename {
                    from,
                    to: final_path,
                }
            }
            Step::Clear => Op::Remove { path: new_path },
            Step::Create => Op::Open {
                path: new_path,
                mode: OpenMode::create_new().direct(self.direct),
            },
            Step::Allocate => Op::Allocate {
                file: file(),
                offset: 0,
                len: work.plan.len,
            },
            Step::Fill { offset } => {
                let zeros = self.zeros.take();
                let buf = zeros.unwrap_or_else(|| Buffer::new(FILL_BYTES));
                let len = (work.plan.len - offset).min(FILL_BYTES as u64) as usize;
                Op::Write {
                    file: file(),
                    offset,
                    buf,
                    len,
                    dsync: false,
                }
            }
            Step::Sync => Op::Sync {
                file: file(),
                data_only: false,
            },
            Step::RenameNew => Op::Rename {
                from: new_path,
                to: final_path,
            },
            Step::SyncDir => Op::SyncDir {
                path: self.dir.clone(),
            },
            Step::Open => {
                let mode = OpenMode {
                    write: true,
                    ..OpenMode::read_only()
                }
                .direct(self.direct);
                Op::Open {
                    path: final_path,
                    mode,
                }
            }
            Step::Close => Op::Close { file: file() },
        })
    }

    /// Takes the result of the operation that [`Spare::next_op`] gave. Errors: only that of the directory sync.
    pub(super) fn complete(&mut self, result: OpResult) -> Result<(), Failure> {
        let State::Working(work) = &mut self.state else {
            panic!("nothing was submitted")
        };
        assert!(work.submitted);
        work.submitted = false;
        let done = match (result, work.step) {
            (Ok(done), _) => done,
            (Err(failure), Step::Clear) if failure.is_not_found() => Done::Removed,
            (Err(failure), Step::SyncDir) => return Err(failure),
            // The file is worthless already; that it stays open is all there is to lose.
            (Err(_), Step::Close) => Done::Closed,
            (Err(failure), Step::RenameOld) => {
                // Perhaps it is gone, perhaps not renamed: a new one replaces whatever stands there.
                self.no_space = Some(failure.to_string());
                work.recycled = None;
                work.step = Step::Clear;
                return Ok(());
            }
            (Err(failure), _) => {
                self.fail(&failure);
                return Ok(());
            }
        };
        work.step = match (work.step, done) {
            (Step::Clear, _) => Step::Create,
            (Step::Create, Done::Opened(file)) => {
                work.file = Some(file);
                Step::Allocate
            }
            (Step::Allocate, _) if work.plan.fill => Step::Fill { offset: 0 },
            (Step::Allocate, _) => Step::Sync,
            (Step::Fill { offset }, Done::Wrote { buf, len }) => {
                let next = offset + len as u64;
                if next < work.plan.len {
                    self.zeros = Some(buf);
                    Step::Fill { offset: next }
                } else {
                    Step::Sync
                }
            }
            (Step::Sync, _) => Step::RenameNew,
            (Step::RenameOld | Step::RenameNew, _) => Step::SyncDir,
            (Step::SyncDir, _) if work.file.is_none() => Step::Open,
            (Step::SyncDir, _) => {
                self.ready();
                return Ok(());
            }
            (Step::Open, Done::Opened(file)) => {
                work.file = Some(file);
                self.ready();
                return Ok(());
            }
            (Step::Close, _) => {
                self.state = State::Waiting(work.plan.clone());
                return Ok(());
            }
            (step, done) => panic!("{step:?} ended with {done:?}"),
        };
        Ok(())
    }

    fn ready(&mut self) {
        let State::Working(work) = &mut self.state else {
            unreachable!("called while working")
        };
        let recycled = work.recycled.as_ref();
        self.state = State::Ready(Ready {
            sequence: work.plan.sequence,
            file: work.file.expect("opened"),
            len: recycled.map_or(work.plan.len, |retired| retired.len),
            recycled: recycled.is_some(),
        });
        self.no_space = None;
    }

    fn fail(&mut self, failure: &Failure) {
        self.no_space = Some(failure.to_string());
        self.zeros = None;
        let State::Working(work) = &mut self.state else {
            unreachable!("called while working")
        };
        work.recycled = None;
        if work.file.is_some() {
            work.step = Step::Close;
        } else {
            self.state = State::Waiting(work.plan.clone());
        }
    }
}
