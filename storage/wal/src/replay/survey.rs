//! A log for human eyes: what each of its files holds, whether all of it is sound, and what a start would make of it.
//!
//! 1. Every checkpoint is read to its end, also the older one, which a start reads only where the newer is damaged.
//! 2. The segments that are kept for the older one alone are read from its position on, to where the newest begins.
//! 3. Then comes the very replay of a start, with salvage: so it goes on behind damage, and tells of each piece.
//!
//! Nothing is changed and no lock is taken, so a writer may be at work: where a commit seems to be missing it is looked at again once others are seen behind it ([`Run::live`]). A file
//! that is renamed or removed meanwhile is [`Error::Changed`]: begin again.
//! Memory is that of a replay. Deliberately absent: what the sink of a start says to records that are sound (it knows of series), chunk files, the tree above.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use reactor::Reactor;

use super::run::Run;
use super::{Listing, Place, ReplayOptions, Replayed, SegmentRead};
use crate::error::Error;
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::record::Record;

/// What a file is to the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is read.
    Read,
    /// It would be, if the newest checkpoint were damaged.
    Kept,
    /// Not begun: for the commits to come.
    Prepared,
    /// Its content is in checkpoints; the file will be used again.
    Retired,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSeen {
    /// Its number.
    pub number: u32,
    /// The file.
    pub path: PathBuf,
    /// Its length; what it holds ends earlier.
    pub len: u64,
    /// What it is for.
    pub usage: Use,
    /// What was due of it; `None` where nothing was.
    pub read: Option<SegmentRead>,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointSeen {
    /// Number of the first segment that it does not contain.
    pub number: u32,
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub len: u64,
    /// Number of the first commit that it does not contain, and its position; `None` where its header is damaged.
    pub before: Option<(u64, u64)>,
    /// Whether all of it is sound.
    pub is_whole: bool,
    /// What it is for.
    pub usage: Use,
}

/// Something that is not as it was written.
#[derive(Debug)]
pub struct Flaw {
    /// Which file, where in it, and what.
    pub error: Error,
    /// Whether a start is refused for it.
    pub refuses: bool,
}

/// What [`survey`] has found.
#[derive(Debug)]
pub struct Surveyed {
    /// Ascending.
    pub checkpoints: Vec<CheckpointSeen>,
    /// Ascending.
    pub segments: Vec<SegmentSeen>,
    /// What was being made when the log stopped, or is being made.
    pub unfinished: Vec<PathBuf>,
    /// Names of files that are no log's.
    pub others: Vec<OsString>,
    /// All that is damaged, in the order of reading.
    pub flaws: Vec<Flaw>,
    /// What a start with salvage would find; without, it is the same where nothing is damaged.
    pub start: Replayed,
}

/// Takes the records of a survey.
pub type See<'a> = dyn FnMut(&Record<'_>, Place) + 'a;

/// Reads all that a core's log in `dir` holds; each record is shown once.
///
/// Errors: [`Error::Changed`]; what keeps a log from being read at all: [`Error::Foreign`], [`Error::Version`], the disk.
pub fn survey(
    reactor: &mut Reactor,
    dir: &Path,
    core: u16,
    see: &mut See<'_>,
) -> Result<Surveyed, Error> {
    let listing = Listing::read(reactor, dir)?;
    let surveyed = look(reactor, dir, core, &listing, see);
    // What is read of a file that has got another name may be anything.
    let now = Listing::read(reactor, dir)?;
    for &(sequence, _) in &listing.segments {
        if !now.segments.iter().any(|&(s, _)| s == sequence) {
            let path = names::segment(dir, sequence);
            return Err(Error::Changed { path });
        }
    }
    for &(sequence, _) in &listing.checkpoints {
        if !now.checkpoints.iter().any(|&(s, _)| s == sequence) {
            let path = names::checkpoint(dir, sequence);
            return Err(Error::Changed { path });
        }
    }
    surveyed
}

fn look(
    reactor: &mut Reactor,
    dir: &Path,
    core: u16,
    listing: &Listing,
    see: &mut See<'_>,
) -> Result<Surveyed, Error> {
    let (mut checkpoints, mut flaws) = (Vec::new(), Vec::new());
    let options = ReplayOptions {
        core,
        salvage: true,
    };
    for &(number, len) in &listing.checkpoints {
        let (mut sink, mut between) = ignoring();
        let mut run = Run::new(reactor, dir, options, &mut sink, &mut between);
        let place = Place::Checkpoint(number);
        let (header, walked) =
            run.verify_checkpoint(number, len, &mut |record| see(record, place))?;
        let path = names::checkpoint(dir, number);
        checkpoints.push(CheckpointSeen {
            number,
            path: path.clone(),
            len,
            before: header.map(|header| (header.first_commit, header.first_lsn)),
            is_whole: walked.is_ok(),
            usage: Use::Kept,
        });
        if let Err((offset, reason)) = walked {
            flaws.push(corrupt(path, offset, reason, false));
        }
    }
    let newest = checkpoints.iter_mut().rev().find(|seen| seen.is_whole);
    let (from, due) = match newest {
        Some(newest) => {
            newest.usage = Use::Read;
            (newest.number, newest.before.map(|(commit, _)| commit))
        }
        None => (0, None),
    };
    let keep_from = listing.keep_from(from);
    let begin = match checkpoints.iter().find(|seen| seen.number == keep_from) {
        Some(older) => older.before,
        None => None,
    };

    let mut read = Vec::new();
    let mut prepared = Vec::new();
    if listing
        .segments
        .iter()
        .any(|&(s, _)| s >= keep_from && s < from)
    {
        let mut sink = |record: &Record<'_>, place: Place| {
            see(record, place);
            Ok(())
        };
        let (_, mut between) = ignoring();
        let run = Run::new(reactor, dir, options, &mut sink, &mut between).live();
        let kept = run.kept(listing, (keep_from, from), begin, due)?;
        let first = flaws.len();
        flaws.extend(
            kept.salvaged
                .into_iter()
                .map(|salvaged| corrupt(salvaged.path, salvaged.offset, salvaged.reason, false)),
        );
        if let Some(due) = due
            && kept.next_commit < due
            && flaws.len() == first
            && let Some((path, offset)) = end_of(dir, listing, &kept.read, from)
        {
            let reason = format!(
                "commit {} is missing, but checkpoint {from} contains all before {due}",
                kept.next_commit
            );
            flaws.push(corrupt(path, offset, reason, false));
        }
        read.extend(kept.read);
        prepared.extend(kept.reusable);
    }
    let mut sink = |record: &Record<'_>, place: Place| {
        // Those of checkpoints have been shown.
        if matches!(place, Place::Segment(_)) {
            see(record, place);
        }
        Ok(())
    };
    let (_, mut between) = ignoring();
    let run = Run::new(reactor, dir, options, &mut sink, &mut between).live();
    let start = run.all(listing.clone())?;
    flaws.extend(start.salvaged.iter().map(|salvaged| {
        let (path, reason) = (salvaged.path.clone(), salvaged.reason.clone());
        corrupt(path, salvaged.offset, reason, true)
    }));
    read.extend(start.read.iter().cloned());
    prepared.extend(start.reusable.iter().cloned());

    let mut segments = Vec::new();
    for &(number, len) in &listing.segments {
        let path = names::segment(dir, number);
        if len % BLOCK_BYTES as u64 != 0 {
            let reason = "its length is no multiple of 4096: it was cut short".to_owned();
            flaws.push(corrupt(path.clone(), len, reason, false));
        }
        let usage = match number {
            _ if number < keep_from => Use::Retired,
            _ if prepared.iter().any(|file| file.path == path) => Use::Prepared,
            _ if number < from => Use::Kept,
            _ => Use::Read,
        };
        segments.push(SegmentSeen {
            number,
            path,
            len,
            usage,
            read: read.iter().find(|read| read.number == number).cloned(),
        });
    }
    Ok(Surveyed {
        checkpoints,
        segments,
        unfinished: listing.unfinished.clone(),
        others: listing.others.clone(),
        flaws,
        start,
    })
}

type Sink = fn(&Record<'_>, Place) -> Result<(), String>;
type Between = fn(&mut Reactor, super::ReplayProgress) -> Result<(), String>;

/// A sink that takes everything, and nothing to do between frames.
fn ignoring() -> (Sink, Between) {
    (|_, _| Ok(()), |_, _| Ok(()))
}

/// Where what was read of the segments before number `from` ends.
fn end_of(
    dir: &Path,
    listing: &Listing,
    read: &[SegmentRead],
    from: u32,
) -> Option<(PathBuf, u64)> {
    match read.last() {
        Some(last) => Some((names::segment(dir, last.number), last.bytes)),
        None => {
            let mut before = listing.segments.iter().filter(|&&(s, _)| s < from);
            Some((names::segment(dir, before.next()?.0), 0))
        }
    }
}

fn corrupt(path: PathBuf, offset: u64, reason: String, refuses: bool) -> Flaw {
    let error = Error::Corrupt {
        path,
        offset,
        reason,
    };
    Flaw { error, refuses }
}

#[cfg(test)]
mod tests;
