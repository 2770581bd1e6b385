//! One replay: the state of it, and the decisions between clean end, tear and corruption.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use reactor::Reactor;

use super::{
    Between, Listing, Place, ReplayOptions, ReplayProgress, Replayed, Salvaged, SegmentRead, Sink,
    Tear, Unsettled,
};
use crate::error::Error;
use crate::frame::{FileHeader, FileKind, FrameHeader, HeaderFault, frame_bytes};
use crate::limits::{BLOCK_BYTES, TEARS_DESCRIBED_MAX};
use crate::log::Retired;
use crate::names;
use crate::reader::{Found, Owner, Reader};
use crate::record::{Counts, Decoder, Record, Stop};

pub(super) struct Run<'a, 's> {
    reactor: &'a mut Reactor,
    dir: &'a Path,
    options: ReplayOptions,
    sink: &'a mut Sink<'s>,
    between: &'a mut Between<'s>,
    decoder: Decoder,
    /// The commit due, and its position.
    commit: u64,
    lsn: u64,
    epoch_max: u64,
    progress: Progress,
    /// A writer may be at work: what looks like damage is looked at again.
    live: bool,
    /// The commit before which reading is to end.
    until: Option<u64>,
    out: Replayed,
}

/// How far it is, in bytes that hold records: files are longer.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Of the checkpoint, as far as it has been read, and all of it.
    checkpoint: u64,
    checkpoint_total: u64,
    /// Positions in the log at which the segments begin, and at which they end.
    from: u64,
    to: u64,
}

impl Progress {
    /// What is told of it at a position of the log.
    fn at(&self, lsn: u64, counts: Counts) -> ReplayProgress {
        let log = self.to.saturating_sub(self.from);
        ReplayProgress {
            bytes_done: self.checkpoint + lsn.saturating_sub(self.from).min(log),
            bytes_total: self.checkpoint_total + log,
            counts,
        }
    }
}

/// A segment's file and what its header block says.
#[derive(Debug)]
struct SegmentFile {
    sequence: u32,
    len: u64,
    path: PathBuf,
    state: SegmentState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SegmentState {
    Begun(FileHeader),
    /// No valid header, no frame.
    NotBegun,
    /// No valid header, but frames; the highest commit that one of them says is durable.
    Headless {
        durable_max: u64,
    },
}

impl SegmentFile {
    fn first_commit(&self) -> Option<u64> {
        match self.state {
            SegmentState::Begun(header) => Some(header.first_commit),
            _ => None,
        }
    }
}

/// The first block a frame can stand at.
const FIRST: u64 = BLOCK_BYTES as u64;

impl<'a, 's> Run<'a, 's> {
    pub(super) fn new(
        reactor: &'a mut Reactor,
        dir: &'a Path,
        options: ReplayOptions,
        sink: &'a mut Sink<'s>,
        between: &'a mut Between<'s>,
    ) -> Run<'a, 's> {
        let out = Replayed {
            core: options.core,
            counts: Default::default(),
            commits: 0,
            checkpoint: None,
            damaged_checkpoints: Vec::new(),
            tears: Vec::new(),
            tear_count: 0,
            salvaged: Vec::new(),
            next_commit: 1,
            next_lsn: 0,
            next_epoch: 1,
            next_sequence: 1,
            unsettled: None,
            unfinished: Vec::new(),
            segments: Vec::new(),
            reusable: Vec::new(),
            checkpoints: Vec::new(),
            read: Vec::new(),
        };
        Run {
            reactor,
            dir,
            options,
            sink,
            between,
            decoder: Decoder::default(),
            commit: 1,
            lsn: 0,
            epoch_max: 0,
            progress: Progress::default(),
            live: false,
            until: None,
            out,
        }
    }

    pub(super) fn all(mut self, listing: Listing) -> Result<Replayed, Error> {
        self.out.unfinished = listing.unfinished.clone();
        let chosen = self.choose_checkpoint(&listing.checkpoints)?;
        let from = chosen.map_or(0, |(header, _)| header.sequence);
        let keep_from = listing.keep_from(from);
        let mut files = Vec::new();
        for &(sequence, len) in &listing.segments {
            let path = names::segment(self.dir, sequence);
            if sequence < keep_from {
                self.out.reusable.push(Retired { path, len });
            } else if sequence < from {
                self.out.segments.push((sequence, len));
            } else {
                files.push(self.inspect(sequence, len, path)?);
            }
        }
        (self.progress.from, self.progress.to) = self.extent(&files)?;
        if let Some((header, len)) = chosen {
            self.progress.checkpoint_total = len;
            self.read_checkpoint(&header, len)?;
        }
        for index in 0..files.len() {
            self.segment(&files, index)?;
        }
        self.finish(&listing.checkpoints, &listing.segments)
    }

    /// As of a log that a writer may be at work on.
    pub(super) fn live(self) -> Self {
        Run { live: true, ..self }
    }

    /// Hands out what a start keeps without reading it: the segments from number `keep_from` to before `from`, which the checkpoint before the one of number `from` builds on.
    /// The first of them begins with commit `begin.0`, at that position, and the last ends before commit `until`, where that is known.
    pub(super) fn kept(
        mut self,
        listing: &Listing,
        (keep_from, from): (u32, u32),
        begin: Option<(u64, u64)>,
        until: Option<u64>,
    ) -> Result<Replayed, Error> {
        self.until = until;
        let mut files = Vec::new();
        for &(sequence, len) in &listing.segments {
            if sequence >= keep_from {
                let path = names::segment(self.dir, sequence);
                files.push(self.inspect(sequence, len, path)?);
            }
        }
        let first = files.iter().find_map(|file| match file.state {
            SegmentState::Begun(header) => Some((header.first_commit, header.first_lsn)),
            _ => None,
        });
        (self.commit, self.lsn) = begin.or(first).unwrap_or((1, 0));
        for index in 0..files.len() {
            if files[index].sequence < from {
                self.segment(&files, index)?;
            }
        }
        self.close()
    }

    /// Positions of the log between which these segments have records: from where replay begins to where the last one ends. Headers of its frames tell that, with checksums
    /// unread: enough to say how far a replay is.
    fn extent(&mut self, files: &[SegmentFile]) -> Result<(u64, u64), Error> {
        let begun = files.iter().rev().find_map(|file| match file.state {
            SegmentState::Begun(header) => Some((file, header)),
            _ => None,
        });
        let Some((file, header)) = begun else {
            return Ok((self.lsn, self.lsn));
        };
        let mut reader = Reader::open_for_headers(self.reactor, &file.path, file.len)?;
        let owner = Owner {
            core: header.core,
            sequence: header.sequence,
        };
        let (mut offset, mut end) = (FIRST, header.first_lsn);
        for number in header.first_commit.. {
            let frame = reader.peek(self.reactor, owner, header.epoch, number, offset)?;
            // Positions follow each other; another one is damage, which the replay tells.
            let Some(frame) = frame.filter(|frame| frame.lsn == end) else {
                break;
            };
            offset += frame.bytes() as u64;
            end = end.saturating_add(u64::from(frame.len));
        }
        reader.close(self.reactor)?;
        Ok((self.lsn, end))
    }

    fn finish(
        mut self,
        checkpoints: &[(u32, u64)],
        segments: &[(u32, u64)],
    ) -> Result<Replayed, Error> {
        let out = &mut self.out;
        if let Some(chosen) = out.checkpoint {
            let kept = checkpoints
                .iter()
                .map(|&(sequence, _)| sequence)
                .filter(|&s| s <= chosen);
            out.checkpoints = kept.collect();
            let surplus = out.checkpoints.len().saturating_sub(2);
            let obsolete = out.checkpoints.drain(..surplus);
            out.unfinished
                .extend(obsolete.map(|sequence| names::checkpoint(self.dir, sequence)));
        }
        let after_segments = segments
            .last()
            .map_or(1, |&(sequence, _)| sequence.saturating_add(1));
        // A number that a checkpoint stands for is still free, unless the checkpoint is damaged and will be replaced.
        let after_checkpoints = checkpoints.last().map_or(1, |&(sequence, _)| {
            let damaged = Some(sequence) != out.checkpoint;
            sequence.saturating_add(u32::from(damaged))
        });
        out.next_sequence = after_segments.max(after_checkpoints);
        out.next_epoch = self.epoch_max + 1;
        self.close()
    }

    /// The report of what has been read.
    fn close(mut self) -> Result<Replayed, Error> {
        self.out.next_commit = self.commit;
        self.out.next_lsn = self.lsn;
        self.out.counts = self.decoder.counts;
        Ok(self.out)
    }

    /// The newest checkpoint that is whole, verified, and the length of its file.
    fn choose_checkpoint(
        &mut self,
        files: &[(u32, u64)],
    ) -> Result<Option<(FileHeader, u64)>, Error> {
        for &(sequence, len) in files.iter().rev() {
            let (header, walked) = self.verify_checkpoint(sequence, len, &mut |_| {})?;
            match header.filter(|_| walked.is_ok()) {
                Some(header) => {
                    self.out.checkpoint = Some(sequence);
                    (self.commit, self.lsn) = (header.first_commit, header.first_lsn);
                    return Ok(Some((header, len)));
                }
                None => {
                    let path = names::checkpoint(self.dir, sequence);
                    self.out.damaged_checkpoints.push(path);
                }
            }
        }
        Ok(None)
    }

    /// Reads a checkpoint to its end, showing its records: its header, where that is sound, and whether it is whole.
    pub(super) fn verify_checkpoint(
        &mut self,
        sequence: u32,
        len: u64,
        see: &mut dyn FnMut(&Record<'_>),
    ) -> Result<(Option<FileHeader>, Walked), Error> {
        let path = names::checkpoint(self.dir, sequence);
        let mut reader = Reader::open(self.reactor, &path, len)?;
        let header = self.header_of(&mut reader, FileKind::Checkpoint, sequence)?;
        let walked = match header {
            None => Err((0, "its header is damaged, or of another file".to_owned())),
            Some(header) => {
                let mut decoder = Decoder::default();
                let mut sink = |record: &Record<'_>| {
                    see(record);
                    Ok(())
                };
                let mut frame =
                    |_: &mut Reactor, records: &[u8], _| decoder.frame(records, &mut sink);
                let walked = walk_checkpoint(self.reactor, &mut reader, &header, &mut frame)?;
                walked.map_err(|broken| (broken.offset, broken.stop.into_reason()))
            }
        };
        reader.close(self.reactor)?;
        Ok((header, walked))
    }

    /// Hands out the records of a checkpoint that has been verified.
    fn read_checkpoint(&mut self, header: &FileHeader, len: u64) -> Result<(), Error> {
        let path = names::checkpoint(self.dir, header.sequence);
        let mut reader = Reader::open(self.reactor, &path, len)?;
        self.decoder.next_file();
        let place = Place::Checkpoint(header.sequence);
        let (decoder, sink, between) = (&mut self.decoder, &mut *self.sink, &mut *self.between);
        let (mut progress, lsn) = (self.progress, self.lsn);
        let walked = walk_checkpoint(
            self.reactor,
            &mut reader,
            header,
            &mut |reactor, records, offset| {
                decoder.frame(records, &mut |record| sink(record, place))?;
                progress.checkpoint = offset + frame_bytes(records.len()) as u64;
                between(reactor, progress.at(lsn, decoder.counts)).map_err(Stop::Sink)
            },
        )?;
        reader.close(self.reactor)?;
        self.progress.checkpoint = len;
        walked.map_err(|broken| broken.into_error(path))
    }

    /// The header of a file, if it is valid for its name.
    fn header_of(
        &mut self,
        reader: &mut Reader,
        kind: FileKind,
        sequence: u32,
    ) -> Result<Option<FileHeader>, Error> {
        let header = match reader.header(self.reactor)? {
            Ok(header) => header,
            Err(HeaderFault::Invalid) => return Ok(None),
            Err(HeaderFault::Version(version)) => {
                return Err(Error::Version {
                    path: reader.path().to_owned(),
                    version,
                    known: crate::frame::VERSION,
                });
            }
        };
        self.epoch_max = self.epoch_max.max(header.epoch);
        if (header.kind, header.sequence) != (kind, sequence) {
            return Ok(None);
        }
        if header.core != self.options.core {
            let (path, expected) = (reader.path().to_owned(), self.options.core);
            return Err(Error::Foreign {
                path,
                found: header.core,
                expected,
            });
        }
        Ok(Some(header))
    }

    fn inspect(&mut self, sequence: u32, len: u64, path: PathBuf) -> Result<SegmentFile, Error> {
        let mut reader = Reader::open(self.reactor, &path, len)?;
        let header = self.header_of(&mut reader, FileKind::Segment, sequence)?;
        let state = match header {
            Some(header) => SegmentState::Begun(header),
            None => {
                let owner = Owner {
                    core: self.options.core,
                    sequence,
                };
                let (mut found, mut durable_max) = (false, 0);
                reader.scan(self.reactor, owner, FIRST, &mut |frame| {
                    (found, durable_max) = (true, durable_max.max(frame.durable));
                    false
                })?;
                // Begun since we looked.
                let mut header = None;
                if found && self.live {
                    let mut reader = Reader::open(self.reactor, &path, len)?;
                    header = self.header_of(&mut reader, FileKind::Segment, sequence)?;
                    reader.close(self.reactor)?;
                }
                match header {
                    Some(header) => SegmentState::Begun(header),
                    None if found => SegmentState::Headless { durable_max },
                    None => SegmentState::NotBegun,
                }
            }
        };
        reader.close(self.reactor)?;
        Ok(SegmentFile {
            sequence,
            len,
            path,
            state,
        })
    }

    /// Replays what is due of one segment.
    fn segment(&mut self, files: &[SegmentFile], index: usize) -> Result<(), Error> {
        let file = &files[index];
        // Where a later segment begins, this one has ended: what stands behind is void.
        let bound = files[index + 1..]
            .iter()
            .filter_map(SegmentFile::first_commit)
            .chain(self.until)
            .min();
        let header = match file.state {
            SegmentState::NotBegun => {
                self.out.reusable.push(Retired {
                    path: file.path.clone(),
                    len: file.len,
                });
                return Ok(());
            }
            SegmentState::Headless { .. } => {
                self.out.segments.push((file.sequence, file.len));
                self.ended(files, index, 0, bound, true, "its header is damaged")?;
                return Ok(());
            }
            SegmentState::Begun(header) => header,
        };
        self.out.segments.push((file.sequence, file.len));
        if header.first_commit != self.commit {
            self.gap(files, index, &header)?;
            if header.first_commit != self.commit {
                return Ok(());
            }
        }
        self.lsn = self.lsn.max(header.first_lsn);
        self.decoder.next_file();
        let (first_commit, first_lsn, mut offset) = (self.commit, self.lsn, FIRST);
        let end = loop {
            let mut reader = Reader::open(self.reactor, &file.path, file.len)?;
            let end = self.frames(&mut reader, &header, bound, &mut offset)?;
            reader.close(self.reactor)?;
            if let End::Missing { remnant } = end {
                let what = if remnant {
                    "a frame is damaged"
                } else {
                    "there is no frame"
                };
                if self.ended(files, index, offset, bound, remnant, what)? {
                    continue;
                }
            }
            break end;
        };
        self.out.read.push(SegmentRead {
            number: header.sequence,
            epoch: header.epoch,
            commits: first_commit..first_commit.max(self.commit),
            positions: first_lsn..self.lsn,
            bytes: offset,
        });
        match end {
            End::Undecodable { reason } => self.corrupt(&file.path, offset, bound, reason),
            End::Void | End::Missing { .. } => Ok(()),
        }
    }

    /// Hands out frame after frame from `at` on, which moves on, as long as the one due is there.
    fn frames(
        &mut self,
        reader: &mut Reader,
        header: &FileHeader,
        bound: Option<u64>,
        at: &mut u64,
    ) -> Result<End, Error> {
        let owner = Owner {
            core: header.core,
            sequence: header.sequence,
        };
        let place = Place::Segment(header.sequence);
        // Frames of which no later one says that they were durable: number and place.
        let mut unsettled = VecDeque::new();
        loop {
            let offset = *at;
            self.out.unsettled = unsettled.front().map(|&(_, from)| Unsettled {
                path: reader.path().to_owned(),
                // The header block came with the first frame.
                from: if from == FIRST { 0 } else { from },
                to: offset,
            });
            if bound.is_some_and(|bound| self.commit >= bound) {
                return Ok(End::Void);
            }
            let found = reader.find(self.reactor, owner, header.epoch, self.commit, offset)?;
            let frame = match found {
                Found::Frame(frame) => frame,
                Found::Remnant => return Ok(End::Missing { remnant: true }),
                Found::Nothing => return Ok(End::Missing { remnant: false }),
            };
            if let Some(reason) = implausible(&frame, self.lsn) {
                return Ok(End::Undecodable { reason });
            }
            let records = reader.records(offset, &frame);
            let sink = &mut *self.sink;
            match self
                .decoder
                .frame(records, &mut |record| sink(record, place))
            {
                Ok(()) => {}
                Err(Stop::Fault(reason)) => return Ok(End::Undecodable { reason }),
                Err(Stop::Sink(reason)) => {
                    let path = reader.path().to_owned();
                    return Err(Error::Refused {
                        path,
                        offset,
                        reason,
                    });
                }
            }
            while unsettled
                .front()
                .is_some_and(|&(number, _)| number <= frame.durable)
            {
                unsettled.pop_front();
            }
            unsettled.push_back((frame.number, offset));
            self.commit += 1;
            self.lsn = frame.lsn + u64::from(frame.len);
            self.out.commits += 1;
            *at = offset + frame.bytes() as u64;
            let progress = self.progress.at(self.lsn, self.decoder.counts);
            if let Err(reason) = (self.between)(self.reactor, progress) {
                let path = reader.path().to_owned();
                return Err(Error::Refused {
                    path,
                    offset,
                    reason,
                });
            }
        }
    }

    /// The commit due is not at `offset` of this segment: clean end, tear or corruption? True where it is there by now.
    fn ended(
        &mut self,
        files: &[SegmentFile],
        index: usize,
        offset: u64,
        bound: Option<u64>,
        remnant: bool,
        what: &str,
    ) -> Result<bool, Error> {
        if bound == Some(self.commit) {
            // It is at the start of a later segment.
            return Ok(false);
        }
        if let Some(witness) = self.was_durable(files, index, offset + FIRST)? {
            // Written since we looked, and others behind it.
            if self.live && self.is_there(&files[index], offset)? {
                return Ok(true);
            }
            let reason = format!("{what}: commit {} is missing, but {witness}", self.commit);
            self.corrupt(&files[index].path, offset, bound, reason)?;
        } else if remnant {
            self.tear(&files[index].path, offset);
        }
        Ok(false)
    }

    /// Whether the commit due is at `offset` of a segment now.
    fn is_there(&mut self, file: &SegmentFile, offset: u64) -> Result<bool, Error> {
        let SegmentState::Begun(header) = file.state else {
            return Ok(false);
        };
        let owner = Owner {
            core: header.core,
            sequence: header.sequence,
        };
        let mut reader = Reader::open(self.reactor, &file.path, file.len)?;
        let found = reader.find(self.reactor, owner, header.epoch, self.commit, offset)?;
        reader.close(self.reactor)?;
        Ok(matches!(found, Found::Frame(_)))
    }

    /// A segment begins behind the commit due.
    fn gap(
        &mut self,
        files: &[SegmentFile],
        index: usize,
        header: &FileHeader,
    ) -> Result<(), Error> {
        let (path, first) = (&files[index].path, header.first_commit);
        let witness = if first < self.commit {
            // Only possible if the file is from elsewhere: segments before it end where it begins.
            Some(format!("it begins with commit {first}"))
        } else {
            self.was_durable(files, index, 0)?
        };
        match witness {
            Some(witness) => {
                let reason = format!("commit {} is due, but {witness}", self.commit);
                self.corrupt(path, 0, Some(first.max(self.commit)), reason)
            }
            None => {
                self.tear(path, 0);
                Ok(())
            }
        }
    }

    fn tear(&mut self, path: &Path, offset: u64) {
        self.out.tear_count += 1;
        if self.out.tears.len() < TEARS_DESCRIBED_MAX {
            self.out.tears.push(Tear {
                path: path.to_owned(),
                offset,
                commit: self.commit,
            });
        }
    }

    /// Refuses, or with salvage goes on with the commit `resume` at which a later segment begins.
    fn corrupt(
        &mut self,
        path: &Path,
        offset: u64,
        resume: Option<u64>,
        reason: String,
    ) -> Result<(), Error> {
        let path = path.to_owned();
        if !self.options.salvage {
            return Err(Error::Corrupt {
                path,
                offset,
                reason,
            });
        }
        let commits = resume.map(|resume| resume - self.commit);
        self.out.salvaged.push(Salvaged {
            path,
            offset,
            commits,
            reason,
        });
        self.commit = resume.unwrap_or(self.commit);
        Ok(())
    }

    /// Looks for a frame, from `offset` of a segment on and in all later ones, which proves that the commit due was durable once; tells where it is.
    fn was_durable(
        &mut self,
        files: &[SegmentFile],
        index: usize,
        offset: u64,
    ) -> Result<Option<String>, Error> {
        let due = self.commit;
        for (at, file) in files.iter().enumerate().skip(index) {
            let from = if at == index {
                offset.max(FIRST)
            } else {
                FIRST
            };
            match file.state {
                SegmentState::NotBegun => continue,
                SegmentState::Headless { durable_max } if durable_max < due => continue,
                _ => {}
            }
            let owner = Owner {
                core: self.options.core,
                sequence: file.sequence,
            };
            let mut reader = Reader::open(self.reactor, &file.path, file.len)?;
            let mut witness = None;
            reader.scan(self.reactor, owner, from, &mut |frame| {
                if frame.durable >= due {
                    witness = Some(frame.number);
                }
                witness.is_some()
            })?;
            reader.close(self.reactor)?;
            if let Some(number) = witness {
                let name = file.path.display();
                return Ok(Some(format!(
                    "commit {number} in {name} says that it was durable"
                )));
            }
        }
        Ok(None)
    }
}

/// How the frames of a segment ended.
enum End {
    /// A later segment begins here.
    Void,
    /// The frame due is not there.
    Missing { remnant: bool },
    /// It is there, but says what cannot be.
    Undecodable { reason: String },
}

/// What a sound frame says that no writer writes.
fn implausible(frame: &FrameHeader, lsn: u64) -> Option<String> {
    if frame.lsn != lsn {
        return Some(format!("position {} where {lsn} is due", frame.lsn));
    }
    if frame.durable >= frame.number {
        return Some(format!(
            "commit {} says that {} is durable",
            frame.number, frame.durable
        ));
    }
    if frame.len == 0 || frame.last {
        return Some(format!("{} bytes, last: {}", frame.len, frame.last));
    }
    None
}

/// Whether a checkpoint is whole; else from which offset on it is not, and why.
pub(super) type Walked = Result<(), (u64, String)>;

/// Why a checkpoint is not whole.
struct Broken {
    offset: u64,
    stop: Stop,
}

impl Broken {
    fn into_error(self, path: PathBuf) -> Error {
        let offset = self.offset;
        match self.stop {
            Stop::Fault(reason) => Error::Corrupt {
                path,
                offset,
                reason,
            },
            Stop::Sink(reason) => Error::Refused {
                path,
                offset,
                reason,
            },
        }
    }
}

/// Takes the records of a frame and its offset.
type See<'a> = dyn FnMut(&mut Reactor, &[u8], u64) -> Result<(), Stop> + 'a;

/// Hands the records of a checkpoint's frames, with the offset of the frame, to `see`, to the end; the outer error is that of the disk.
fn walk_checkpoint(
    reactor: &mut Reactor,
    reader: &mut Reader,
    header: &FileHeader,
    see: &mut See<'_>,
) -> Result<Result<(), Broken>, Error> {
    let owner = Owner {
        core: header.core,
        sequence: header.sequence,
    };
    let mut offset = FIRST;
    for number in 1.. {
        let Found::Frame(frame) = reader.find(reactor, owner, header.epoch, number, offset)? else {
            let stop = Stop::Fault(format!("frame {number} of the checkpoint is damaged"));
            return Ok(Err(Broken { offset, stop }));
        };
        if let Err(stop) = see(reactor, reader.records(offset, &frame), offset) {
            return Ok(Err(Broken { offset, stop }));
        }
        if frame.last {
            break;
        }
        offset += frame.bytes() as u64;
    }
    Ok(Ok(()))
}
