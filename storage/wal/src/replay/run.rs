//! One replay: the state of it, and the decisions between clean end, tear and corruption.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use reactor::Reactor;

use super::{
    Between, Listing, Place, ReplayOptions, ReplayProgress, Replayed, Salvaged, Sink, Tear,
    Unsettled,
};
use crate::error::Error;
use crate::frame::{FileHeader, FileKind, FrameHeader, HeaderFault};
use crate::limits::{BLOCK_BYTES, TEARS_DESCRIBED_MAX};
use crate::log::Retired;
use crate::names;
use crate::reader::{Found, Owner, Reader};
use crate::record::{Decoder, Stop};

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
    bytes_done: u64,
    bytes_total: u64,
    out: Replayed,
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
            bytes_done: 0,
            bytes_total: 0,
            out,
        }
    }

    pub(super) fn all(mut self, listing: Listing) -> Result<Replayed, Error> {
        self.out.unfinished = listing.unfinished;
        let chosen = self.choose_checkpoint(&listing.checkpoints)?;
        let from = chosen.map_or(0, |(header, _)| header.sequence);
        // The checkpoint before the chosen one is kept unread, as are the segments from it on; without one, all segments are.
        let previous = listing
            .checkpoints
            .iter()
            .rev()
            .find(|&&(sequence, _)| sequence < from);
        let keep_from = previous.map_or(0, |&(sequence, _)| sequence);

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
        self.bytes_total = files.iter().map(|file| file.len).sum();
        if let Some((header, len)) = chosen {
            self.bytes_total += len;
            self.read_checkpoint(&header, len)?;
        }
        for index in 0..files.len() {
            self.segment(&files, index)?;
            self.bytes_done += files[index].len;
        }
        self.finish(&listing.checkpoints, &listing.segments)
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
        out.next_commit = self.commit;
        out.next_lsn = self.lsn;
        out.counts = self.decoder.counts;
        Ok(self.out)
    }

    /// The newest checkpoint that is whole, verified, and the length of its file.
    fn choose_checkpoint(
        &mut self,
        files: &[(u32, u64)],
    ) -> Result<Option<(FileHeader, u64)>, Error> {
        for &(sequence, len) in files.iter().rev() {
            let path = names::checkpoint(self.dir, sequence);
            let mut reader = Reader::open(self.reactor, &path, len)?;
            let header = self.header_of(&mut reader, FileKind::Checkpoint, sequence)?;
            let whole = match header {
                Some(header) => {
                    let mut decoder = Decoder::default();
                    let walked = walk_checkpoint(
                        self.reactor,
                        &mut reader,
                        &header,
                        &mut |_, records, _| decoder.frame(records, &mut |_| Ok(())),
                    )?;
                    walked.is_ok().then_some(header)
                }
                None => None,
            };
            reader.close(self.reactor)?;
            match whole {
                Some(header) => {
                    self.out.checkpoint = Some(sequence);
                    (self.commit, self.lsn) = (header.first_commit, header.first_lsn);
                    return Ok(Some((header, len)));
                }
                None => self.out.damaged_checkpoints.push(path),
            }
        }
        Ok(None)
    }

    /// Hands out the records of a checkpoint that has been verified.
    fn read_checkpoint(&mut self, header: &FileHeader, len: u64) -> Result<(), Error> {
        let path = names::checkpoint(self.dir, header.sequence);
        let mut reader = Reader::open(self.reactor, &path, len)?;
        self.decoder.next_file();
        let place = Place::Checkpoint(header.sequence);
        let (decoder, sink, between) = (&mut self.decoder, &mut *self.sink, &mut *self.between);
        let bytes_total = self.bytes_total;
        let walked = walk_checkpoint(
            self.reactor,
            &mut reader,
            header,
            &mut |reactor, records, offset| {
                decoder.frame(records, &mut |record| sink(record, place))?;
                let progress = ReplayProgress {
                    bytes_done: offset,
                    bytes_total,
                    counts: decoder.counts,
                };
                between(reactor, progress).map_err(Stop::Sink)
            },
        )?;
        reader.close(self.reactor)?;
        self.bytes_done += len;
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
                if found {
                    SegmentState::Headless { durable_max }
                } else {
                    SegmentState::NotBegun
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
                return self.ended(files, index, 0, bound, true, "its header is damaged");
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
        let mut reader = Reader::open(self.reactor, &file.path, file.len)?;
        let end = self.frames(&mut reader, &header, bound)?;
        reader.close(self.reactor)?;
        match end {
            End::Void => Ok(()),
            End::Missing { offset, remnant } => {
                let what = if remnant {
                    "a frame is damaged"
                } else {
                    "there is no frame"
                };
                self.ended(files, index, offset, bound, remnant, what)
            }
            End::Undecodable { offset, reason } => self.corrupt(&file.path, offset, bound, reason),
        }
    }

    /// Hands out frame after frame, as long as the one due is there.
    fn frames(
        &mut self,
        reader: &mut Reader,
        header: &FileHeader,
        bound: Option<u64>,
    ) -> Result<End, Error> {
        let owner = Owner {
            core: header.core,
            sequence: header.sequence,
        };
        let place = Place::Segment(header.sequence);
        let mut offset = FIRST;
        // Frames of which no later one says that they were durable: number and place.
        let mut unsettled = VecDeque::new();
        self.decoder.next_file();
        loop {
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
                Found::Remnant => {
                    return Ok(End::Missing {
                        offset,
                        remnant: true,
                    });
                }
                Found::Nothing => {
                    return Ok(End::Missing {
                        offset,
                        remnant: false,
                    });
                }
            };
            if let Some(reason) = implausible(&frame, self.lsn) {
                return Ok(End::Undecodable { offset, reason });
            }
            let records = reader.records(offset, &frame);
            let sink = &mut *self.sink;
            match self
                .decoder
                .frame(records, &mut |record| sink(record, place))
            {
                Ok(()) => {}
                Err(Stop::Fault(reason)) => return Ok(End::Undecodable { offset, reason }),
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
            offset += frame.bytes() as u64;
            let progress = ReplayProgress {
                bytes_done: self.bytes_done + offset,
                bytes_total: self.bytes_total,
                counts: self.decoder.counts,
            };
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

    /// The commit due is not at `offset` of this segment: clean end, tear or corruption?
    fn ended(
        &mut self,
        files: &[SegmentFile],
        index: usize,
        offset: u64,
        bound: Option<u64>,
        remnant: bool,
        what: &str,
    ) -> Result<(), Error> {
        if bound == Some(self.commit) {
            // It is at the start of a later segment.
            return Ok(());
        }
        if let Some(witness) = self.was_durable(files, index, offset + FIRST)? {
            let reason = format!("{what}: commit {} is missing, but {witness}", self.commit);
            return self.corrupt(&files[index].path, offset, bound, reason);
        }
        if remnant {
            self.tear(&files[index].path, offset);
        }
        Ok(())
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
    Missing { offset: u64, remnant: bool },
    /// It is there, but says what cannot be.
    Undecodable { offset: u64, reason: String },
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
