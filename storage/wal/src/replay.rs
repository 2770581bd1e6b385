//! Reading a core's log back: the newest whole checkpoint, then its segments, record by record, in the order in which they were appended.
//!
//! 1. List the directory; take the header block of every segment. A header that is not valid for its name and no frame of that number: not begun.
//! 2. Verify the newest checkpoint as a whole before anything is handed out; where it is damaged, the one before; without one, the log begins with
//!    commit 1.
//! 3. From the checkpoint's segment on, expect one commit number after another. A segment ends where the header of a later one says
//!    that its first commit is the one due. Where the commit due is not there, a sound frame behind it that says it was durable makes it corruption, else
//!    the log ends: the whole rule with its reasons stands in `docs/formats/wal.md`.
//!
//! Replay changes nothing on disk, so several cores may read the same old log (when their number has changed); what is to be cleaned up is told
//! to [`crate::Log::open`] through [`Replayed`]. Memory: a window over one file, and the last value of every series.

mod run;
mod survey;

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use reactor::{Op, Reactor};

use crate::error::Error;
use crate::log::Retired;
use crate::names::Name;
use crate::record::{Counts, Record};
use run::Run;

pub use survey::{CheckpointSeen, Flaw, See, SegmentSeen, Surveyed, Use, survey};

/// How to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplayOptions {
    /// The core whose log it is.
    pub core: u16,
    /// Step over corruption: drop the rest of that segment and count it.
    pub salvage: bool,
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The checkpoint before this segment.
    Checkpoint(u32),
    /// This segment.
    Segment(u32),
}

/// Takes the records of a replay. An error ends it: say what does not fit; but bear with samples known already (a checkpoint
/// overlaps the segments after it) and, after a salvage, with refs never heard of.
pub type Sink<'a> = dyn FnMut(&Record<'_>, Place) -> Result<(), String> + 'a;

/// Called after every frame, with the reactor: what the records have filled may be written out. An error ends the replay.
pub type Between<'a> = dyn FnMut(&mut Reactor, ReplayProgress) -> Result<(), String> + 'a;

/// How far a replay is; told after every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayProgress {
    /// Bytes of records passed so far. Files are longer than what they hold.
    pub bytes_done: u64,
    /// Bytes of records to pass; not less than what has been passed.
    pub bytes_total: u64,
    /// Records so far.
    pub counts: Counts,
}

/// A commit that was being written when the machine stopped; it had not been acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tear {
    /// The file.
    pub path: PathBuf,
    /// Where the frame should begin.
    pub offset: u64,
    /// Number of the commit that is not there.
    pub commit: u64,
}

/// A segment that was read, as far as what it holds was due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRead {
    /// Its number.
    pub number: u32,
    /// In which it was written.
    pub epoch: u64,
    /// Numbers of its commits.
    pub commits: Range<u64>,
    /// From the position of its first record byte to the one behind its last.
    pub positions: Range<u64>,
    /// Where in the file its last frame ends.
    pub bytes: u64,
}

/// A piece of the log that salvage dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// The damaged file.
    pub path: PathBuf,
    /// From where on.
    pub offset: u64,
    /// How many commits are lost; `None` at the end of the log, where it is not known.
    pub commits: Option<u64>,
    /// What was wrong.
    pub reason: String,
}

/// What a replay found, and what the log that goes on behind it needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The core.
    pub core: u16,
    /// Records handed out.
    pub counts: Counts,
    /// Frames handed out, those of the checkpoint apart.
    pub commits: u64,
    /// The checkpoint replay began with.
    pub checkpoint: Option<u32>,
    /// Checkpoints that are damaged and were passed over.
    pub damaged_checkpoints: Vec<PathBuf>,
    /// The first few tears met.
    pub tears: Vec<Tear>,
    /// How many there were.
    pub tear_count: u64,
    /// What salvage dropped; if anything, take a checkpoint soon.
    pub salvaged: Vec<Salvaged>,
    /// The segments that were read, ascending.
    pub read: Vec<SegmentRead>,
    /// Number the next commit gets.
    pub next_commit: u64,
    /// Position of the next record byte.
    pub next_lsn: u64,
    /// Epoch of the next start.
    pub next_epoch: u64,
    /// Number of the next segment.
    pub next_sequence: u32,

    /// The end of the last segment, of which nothing says that it was durable.
    pub(crate) unsettled: Option<Unsettled>,
    /// Rests to be removed.
    pub(crate) unfinished: Vec<PathBuf>,
    /// Segments to be kept, ascending, with the length of their files.
    pub(crate) segments: Vec<(u32, u64)>,
    /// Segments not begun, or not needed any more.
    pub(crate) reusable: Vec<Retired>,
    /// Checkpoints to be kept, ascending.
    pub(crate) checkpoints: Vec<u32>,
}

/// Frames that were found whole, but may be in a cache only: the process was killed after it wrote them and before it synced them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsettled {
    pub(crate) path: PathBuf,
    /// From here, a multiple of 4096 ...
    pub(crate) from: u64,
    /// ... to here, too.
    pub(crate) to: u64,
}

impl Replayed {
    /// Whether there was no log at all.
    pub fn is_new(&self) -> bool {
        self.next_commit == 1 && self.checkpoint.is_none()
    }
}

/// Replays the log in `dir` into `sink`. A directory that does not exist is an empty log.
///
/// Blocks; the events of others wait. Errors: [`Error::Corrupt`] naming file and offset (unless `salvage`), [`Error::Version`],
/// [`Error::Foreign`], [`Error::Refused`] by the sink, and what the disk said.
pub fn replay(
    reactor: &mut Reactor,
    dir: &Path,
    options: &ReplayOptions,
    sink: &mut Sink<'_>,
    between: &mut Between<'_>,
) -> Result<Replayed, Error> {
    let listing = Listing::read(reactor, dir)?;
    Run::new(reactor, dir, *options, sink, between).all(listing)
}

/// The files of a log.
#[derive(Debug, Clone, Default)]
struct Listing {
    /// Ascending, with lengths.
    segments: Vec<(u32, u64)>,
    /// Ascending, with lengths.
    checkpoints: Vec<(u32, u64)>,
    unfinished: Vec<PathBuf>,
    /// Names of files that are no log's.
    others: Vec<OsString>,
}

impl Listing {
    /// The first of the segments that are kept where a start begins with the checkpoint of number `from` (0: with none). The checkpoint before it is kept unread, as are the segments
    /// from that one on; without one, all segments are.
    fn keep_from(&self, from: u32) -> u32 {
        let newest_first = self.checkpoints.iter().rev();
        let mut numbers = newest_first.map(|&(sequence, _)| sequence);
        numbers.find(|&sequence| sequence < from).unwrap_or(0)
    }

    fn read(reactor: &mut Reactor, dir: &Path) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        let entries = match reactor.run(Op::List {
            path: dir.to_owned(),
        }) {
            Ok(done) => done.entries(),
            Err(failure) if failure.is_not_found() => {
                return Ok(listing);
            }
            Err(failure) => return Err(failure.into()),
        };
        for entry in entries.into_iter().filter(|entry| !entry.is_dir) {
            match Name::parse(&entry.name) {
                Name::Segment(sequence) => listing.segments.push((sequence, entry.len)),
                Name::Checkpoint(sequence) => listing.checkpoints.push((sequence, entry.len)),
                Name::Unfinished => listing.unfinished.push(dir.join(&entry.name)),
                Name::Other => listing.others.push(entry.name),
            }
        }
        listing.segments.sort_unstable();
        listing.checkpoints.sort_unstable();
        Ok(listing)
    }
}

#[cfg(test)]
mod tests;
