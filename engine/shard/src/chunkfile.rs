//! Closed chunks leave the heap: the chunk files of one core (`docs/formats/chunkfile.md`, `docs/decisions/0007-chunk-file.md`).
//!
//! 1. [`ChunkFiles::put`] appends a sealed chunk to the open *block*, in memory, and says where it will lie. Nothing else happens: it is called
//!    inside the commit.
//! 2. [`ChunkFiles::next_op`] and [`ChunkFiles::complete`] are a state machine with one operation in flight: full blocks are written, files begun, synced,
//!    closed and removed. The core drives it with events; replay, which has no loop, drives it by waiting ([`ChunkFiles::drain`]).
//! 3. A checkpoint asks for everything up to now ([`ChunkFiles::request_sync`]) and is published when [`ChunkFiles::is_synced`].
//! 4. [`ChunkFiles::read`] gives bytes of what is in memory and a handle on the file of what is not.
//!
//! Invariants: blocks ascend, and all before the first is written; all before `synced` is durable, names included; a file counts the chunks
//! of the memtable that lie in it, and goes when there are none and no kept checkpoint can name one.
//! Files of *another generation* (after a change of the number of cores) are known by numbers from [`FOREIGN`] on, until their chunks are copied.

mod audit;
pub(crate) mod bytes;

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reactor::{File, Op, OpResult, OpenMode, Reactor};
use xxhash_rust::xxh3::xxh3_64;

pub use self::audit::ChunkAudit;
use self::bytes::{ChunkBytes, StoredFile};
use crate::Error;
use crate::limits::{
    CHUNK_BLOCK_BYTES, CHUNK_FILE_BYTES_DEFAULT, CHUNK_PENDING_BYTES_MAX, CHUNK_SYNC_BYTES,
};

/// Bytes in front of the first chunk.
const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"MYELNCHK";
const VERSION: u16 = 1;

/// Numbers from here on stand for files of another generation.
const FOREIGN: u32 = 1 << 31;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// A point in the stream of all files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Position {
    file: u32,
    offset: u32,
}

/// Chunks that are still to be written.
#[derive(Debug)]
struct Block {
    at: Position,
    bytes: Vec<u8>,
    /// Its write has begun: nothing is added any more.
    submitted: bool,
}

#[derive(Debug)]
struct ChunkFile {
    path: PathBuf,
    core: u16,
    number: u32,
    /// Open for reading, once there is something to read.
    stored: Option<Arc<StoredFile>>,
    /// Of a former life, and its length: for replay, until [`ChunkFiles::check`].
    early: Option<(Arc<StoredFile>, u64)>,
    /// Chunks in it that the memtable names.
    live: u64,
    /// End of the last chunk that was named.
    end: u64,
    /// The log's segment when `live` was found to be 0.
    dead_since: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Idle,
    Open,
    SyncDir,
    Write,
    Sync,
    Close,
    Remove,
}

/// Why the files cannot go on.
#[derive(Debug)]
pub(crate) enum Broken {
    /// No space: what waits is tried again by the next [`ChunkFiles::retry`].
    NoSpace,
    /// Anything else: the core is poisoned.
    Failed(String),
}

/// Counters since the start, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) written_bytes: u64,
    pub(crate) syncs: u64,
    pub(crate) removed: u64,
    /// Chunks that the core itself read, to compare an old sample.
    pub(crate) looked_up: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ChunkFiles {
    dir: PathBuf,
    core: u16,
    /// Bytes of a file, and of a block of it.
    file_bytes: u32,
    block_bytes: usize,
    files: BTreeMap<u32, ChunkFile>,
    blocks: VecDeque<Block>,
    pending_bytes: usize,
    /// Where the next chunk goes.
    tail: Position,
    written: Position,
    synced: Position,
    /// Up to here a checkpoint wants it durable.
    wanted: Position,
    unsynced_bytes: u64,
    writing: Option<(u32, File)>,
    /// Not idle: in flight, or (the directory behind an open) due next.
    step: Step,
    in_flight: bool,
    removals: VecDeque<PathBuf>,
    no_space: Option<String>,
    failed: bool,
    /// Chunks that may still be read by the core in this turn.
    lookups_left: u32,
    pub(crate) stats: Stats,
}

impl ChunkFiles {
    /// No files yet.
    pub(crate) fn new(dir: &Path, core: u16) -> ChunkFiles {
        let start = Position { file: 1, offset: 0 };
        ChunkFiles {
            dir: dir.to_owned(),
            core,
            file_bytes: CHUNK_FILE_BYTES_DEFAULT,
            block_bytes: CHUNK_BLOCK_BYTES,
            files: BTreeMap::new(),
            blocks: VecDeque::new(),
            pending_bytes: 0,
            tail: start,
            written: start,
            synced: start,
            wanted: start,
            unsynced_bytes: 0,
            writing: None,
            step: Step::Idle,
            in_flight: false,
            removals: VecDeque::new(),
            no_space: None,
            failed: false,
            lookups_left: u32::MAX,
            stats: Stats::default(),
        }
    }

    /// Finds what former lives have left in the directory. Errors: it cannot be listed.
    pub(crate) fn open(
        reactor: &mut Reactor,
        dir: &Path,
        core: u16,
        file_bytes: u32,
    ) -> Result<ChunkFiles, Error> {
        let mut files = ChunkFiles::new(dir, core);
        files.file_bytes = file_bytes;
        files.block_bytes = CHUNK_BLOCK_BYTES.min(file_bytes as usize / 8);
        for number in list(reactor, dir)? {
            files.add(number, name(dir, number), core, number);
            files.open_early(reactor, number)?;
            files.tail.file = files.tail.file.max(number + 1);
        }
        (files.written, files.synced, files.wanted) = (files.tail, files.tail, files.tail);
        Ok(files)
    }

    fn add(&mut self, key: u32, path: PathBuf, core: u16, number: u32) {
        self.files.insert(key, ChunkFile::new(path, core, number));
    }

    /// Takes a sealed chunk; it will lie where the answer says. Cost: a copy; no system call.
    pub(crate) fn put(&mut self, sealed: &[u8]) -> Place {
        let len = u32::try_from(sealed.len()).expect("a chunk is bounded");
        if self.tail.offset > 0 && self.tail.offset + len > self.file_bytes {
            self.tail = Position {
                file: self.tail.file + 1,
                offset: 0,
            };
            assert!(
                self.tail.file < FOREIGN,
                "2^31 files of 64 MiB are years of writes"
            );
        }
        let (at, begins) = (self.tail, self.tail.offset == 0);
        let fits = |block: &Block| {
            !begins && !block.submitted && block.bytes.len() + sealed.len() <= self.block_bytes
        };
        if !self.blocks.back().is_some_and(fits) {
            let bytes = Vec::new();
            let submitted = false;
            self.blocks.push_back(Block {
                at,
                bytes,
                submitted,
            });
        }
        let block = self.blocks.back_mut().expect("pushed above");
        if begins {
            block.bytes.extend_from_slice(&header(self.core, at.file));
            self.pending_bytes += HEADER_BYTES;
            self.tail.offset = HEADER_BYTES as u32;
        }
        block.bytes.extend_from_slice(sealed);
        self.pending_bytes += sealed.len();
        let place = Place {
            file: self.tail.file,
            offset: self.tail.offset,
            len,
        };
        self.tail.offset += len;
        if begins {
            self.add(at.file, name(&self.dir, at.file), self.core, at.file);
        }
        self.adopt(place);
        place
    }

    /// Counts a chunk that the memtable names from now on.
    pub(crate) fn adopt(&mut self, place: Place) {
        if !self.files.contains_key(&place.file) {
            // To be found missing by `check`.
            self.add(
                place.file,
                name(&self.dir, place.file),
                self.core,
                place.file,
            );
        }
        let file = self.files.get_mut(&place.file).expect("added above");
        file.live += 1;
        file.end = file.end.max(u64::from(place.offset) + u64::from(place.len));
        file.dead_since = None;
    }

    /// The memtable does not name that chunk any more.
    pub(crate) fn release(&mut self, place: Place) {
        let file = self
            .files
            .get_mut(&place.file)
            .expect("named files are known");
        assert!(file.live > 0, "a chunk leaves once");
        file.live -= 1;
    }

    /// The bytes of a chunk that waits for the disk.
    fn held(&self, place: Place) -> Option<&[u8]> {
        let at = Position {
            file: place.file,
            offset: place.offset,
        };
        if self.blocks.front().is_none_or(|front| front.at > at) {
            return None;
        }
        let next = self.blocks.partition_point(|block| block.at <= at);
        let block = &self.blocks[next - 1];
        // Foreign files have higher numbers than any block.
        (block.at.file == at.file).then(|| {
            let from = (at.offset - block.at.offset) as usize;
            &block.bytes[from..from + place.len as usize]
        })
    }

    /// The bytes of a chunk, or the way to them.
    pub(crate) fn read(&self, place: Place) -> ChunkBytes {
        if let Some(bytes) = self.held(place) {
            return ChunkBytes::from(bytes);
        }
        let stored = self.files[&place.file].stored.as_ref();
        let stored = stored.expect("what is not in memory is in a file that was opened");
        ChunkBytes::stored(stored.clone(), place.offset, place.len)
    }

    /// As [`ChunkFiles::read`], also during replay; `None` where the file is missing or too short, of which [`ChunkFiles::check`] tells.
    pub(crate) fn try_read(&self, place: Place) -> Option<ChunkBytes> {
        if let Some(bytes) = self.held(place) {
            return Some(ChunkBytes::from(bytes));
        }
        let file = self.files.get(&place.file)?;
        if let Some(stored) = &file.stored {
            return Some(ChunkBytes::stored(stored.clone(), place.offset, place.len));
        }
        let (stored, len) = file.early.as_ref()?;
        let end = u64::from(place.offset) + u64::from(place.len);
        (end <= *len).then(|| ChunkBytes::stored(stored.clone(), place.offset, place.len))
    }

    /// Opens a file of a former life for what replay has to read of it. One that is missing is found by [`ChunkFiles::check`]. Errors: the disk.
    fn open_early(&mut self, reactor: &mut Reactor, key: u32) -> Result<(), Error> {
        let file = self.files.get_mut(&key).expect("the caller has it");
        let path = file.path.clone();
        let open = Op::Open {
            path: path.clone(),
            mode: OpenMode::read_only(),
        };
        let opened = match reactor.run(open) {
            Ok(done) => done.file(),
            Err(failure) if failure.is_not_found() => return Ok(()),
            Err(failure) => return Err(wal::Error::from(failure).into()),
        };
        let reader = reactor.reader(opened);
        let stat = reactor.run(Op::Stat { path: path.clone() });
        let len = stat.map_err(wal::Error::from)?.stat().len;
        file.early = Some((Arc::new(StoredFile::new(path, reader)), len));
        // It was opened to be read: nothing can be lost.
        let _ = reactor.run(Op::Close { file: opened });
        Ok(())
    }

    /// Makes the files of another generation known before its log is replayed.
    pub(crate) fn find_foreign(
        &mut self,
        reactor: &mut Reactor,
        dir: &Path,
        core: u16,
    ) -> Result<(), Error> {
        for number in list(reactor, dir)? {
            let key = self.foreign(dir, core, number);
            self.open_early(reactor, key)?;
        }
        Ok(())
    }

    /// The bytes of a chunk, read by the core itself; `None` if this turn has read enough, or it cannot be read.
    pub(crate) fn look_up(&mut self, place: Place) -> Option<ChunkBytes> {
        self.lookups_left = self.lookups_left.checked_sub(1)?;
        self.stats.looked_up += 1;
        let mut bytes = self.read(place);
        bytes.load().ok()?;
        Some(bytes)
    }

    /// A turn begins, with so many look-ups.
    pub(crate) fn allow_lookups(&mut self, count: u32) {
        self.lookups_left = count;
    }

    /// Files that hold something, or wait for a checkpoint.
    pub(crate) fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Bytes in memory.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether pushes must wait: the disk is behind.
    pub(crate) fn is_behind(&self) -> bool {
        self.pending_bytes > CHUNK_PENDING_BYTES_MAX
    }

    /// Why nothing can be written now, if it is for want of space.
    pub(crate) fn no_space(&self) -> Option<&str> {
        self.no_space.as_deref()
    }

    /// Where the next chunk goes: all that lie before it are here.
    pub(crate) fn tail(&self) -> SyncPoint {
        SyncPoint(self.tail)
    }

    /// Wants everything up to now durable; returns what to ask [`ChunkFiles::is_synced`] for.
    pub(crate) fn request_sync(&mut self) -> SyncPoint {
        self.wanted = self.tail;
        SyncPoint(self.tail)
    }

    /// Whether all before that point is durable.
    pub(crate) fn is_synced(&self, point: SyncPoint) -> bool {
        self.synced >= point.0
    }

    /// Whether [`ChunkFiles::next_op`] would give one.
    pub(crate) fn has_work(&self) -> bool {
        !self.in_flight && (self.step != Step::Idle || self.next_step() != Step::Idle)
    }

    fn next_step(&self) -> Step {
        if self.no_space.is_some() || self.failed {
            return Step::Idle;
        }
        if let Some(front) = self.blocks.front() {
            let full = self.blocks.len() > 1 || front.bytes.len() >= self.block_bytes / 2;
            if full || self.wanted > self.written {
                return match self.writing {
                    Some((number, _)) if number == front.at.file => Step::Write,
                    Some(_) if self.synced < self.written => Step::Sync,
                    Some(_) => Step::Close,
                    None => Step::Open,
                };
            }
        }
        let due = self.wanted > self.synced || self.unsynced_bytes >= CHUNK_SYNC_BYTES;
        if due && self.synced < self.written {
            return Step::Sync;
        }
        match self.removals.is_empty() {
            true => Step::Idle,
            false => Step::Remove,
        }
    }

    /// The next operation, unless one is in flight or there is nothing to do.
    pub(crate) fn next_op(&mut self, reactor: &mut Reactor) -> Option<Op> {
        if self.in_flight {
            return None;
        }
        if self.step == Step::Idle {
            self.step = self.next_step();
        }
        self.in_flight = self.step != Step::Idle;
        let file = self.writing.map(|(_, file)| file);
        Some(match self.step {
            Step::Idle => return None,
            Step::Open => Op::Open {
                path: name(&self.dir, self.blocks.front()?.at.file),
                // After a failure for want of space it may be there.
                mode: OpenMode::create(),
            },
            Step::SyncDir => Op::SyncDir {
                path: self.dir.clone(),
            },
            Step::Write => {
                let front = self.blocks.front_mut()?;
                front.submitted = true;
                let len = front.bytes.len();
                let mut buf = reactor.buffer(len);
                buf[..len].copy_from_slice(&front.bytes);
                Op::Write {
                    file: file?,
                    offset: u64::from(front.at.offset),
                    buf,
                    len,
                    dsync: false,
                }
            }
            Step::Sync => Op::Sync {
                file: file?,
                data_only: true,
            },
            Step::Close => {
                self.writing = None;
                Op::Close { file: file? }
            }
            Step::Remove => Op::Remove {
                path: self.removals.front()?.clone(),
            },
        })
    }

    /// Takes the result of the operation in flight.
    pub(crate) fn complete(
        &mut self,
        reactor: &mut Reactor,
        result: OpResult,
    ) -> Result<(), Broken> {
        let step = std::mem::replace(&mut self.step, Step::Idle);
        self.in_flight = false;
        let done = match result {
            Ok(done) => done,
            Err(failure) => {
                let full = failure.source.kind() == ErrorKind::StorageFull;
                let reason = failure.to_string();
                if let Some(buf) = failure.buf {
                    reactor.recycle(buf);
                }
                return match step {
                    // What cannot be removed now is found again by the next start.
                    Step::Remove => {
                        self.removals.pop_front();
                        Ok(())
                    }
                    Step::Open | Step::Write if full => {
                        self.no_space = Some(reason);
                        Err(Broken::NoSpace)
                    }
                    _ => {
                        self.failed = true;
                        Err(Broken::Failed(reason))
                    }
                };
            }
        };
        match step {
            Step::Open => {
                let number = self
                    .blocks
                    .front()
                    .expect("it was opened for a block")
                    .at
                    .file;
                let file = done.file();
                let path = name(&self.dir, number);
                let stored = StoredFile::new(path, reactor.reader(file));
                let known = self
                    .files
                    .get_mut(&number)
                    .expect("added with its first chunk");
                known.stored = Some(Arc::new(stored));
                self.writing = Some((number, file));
                self.step = Step::SyncDir;
            }
            Step::Write => {
                let (buf, len) = done.buffer();
                reactor.recycle(buf);
                let block = self.blocks.pop_front().expect("it was written");
                self.pending_bytes -= len;
                self.unsynced_bytes += len as u64;
                self.stats.written_bytes += len as u64;
                self.written = Position {
                    file: block.at.file,
                    offset: block.at.offset + len as u32,
                };
            }
            Step::Sync => {
                self.synced = self.written;
                self.unsynced_bytes = 0;
                self.stats.syncs += 1;
            }
            Step::Remove => {
                self.removals.pop_front();
                self.stats.removed += 1;
            }
            Step::SyncDir | Step::Close => {}
            Step::Idle => unreachable!("nothing was in flight"),
        }
        Ok(())
    }

    /// Space may be there again.
    pub(crate) fn retry(&mut self) {
        self.no_space = None;
    }

    /// Does all that is due, waiting for it: for replay. A full disk ends it without an error.
    pub(crate) fn drain(&mut self, reactor: &mut Reactor) -> Result<(), String> {
        self.retry();
        while let Some(op) = self.next_op(reactor) {
            let result = reactor.run(op);
            match self.complete(reactor, result) {
                Ok(()) => {}
                Err(Broken::NoSpace) => return Ok(()),
                Err(Broken::Failed(reason)) => return Err(reason),
            }
        }
        Ok(())
    }

    /// Lets files go that nothing names: what is found empty now, at the log's segment `now`, is removed when all kept checkpoints are
    /// of later segments (`oldest` is the first segment behind the older of them).
    pub(crate) fn sweep(&mut self, now: u32, oldest: u32) {
        let (tail, writing) = (self.tail.file, self.writing.map(|(number, _)| number));
        let first_block = self.blocks.front().map_or(tail, |block| block.at.file);
        let removals = &mut self.removals;
        self.files.retain(|&number, file| {
            if file.live > 0 || number >= first_block || writing == Some(number) {
                return true;
            }
            let since = *file.dead_since.get_or_insert(now);
            let gone = since < oldest;
            if gone {
                removals.push_back(std::mem::take(&mut file.path));
            }
            !gone
        });
    }

    /// The key of a file of another generation, for the places of its chunks.
    pub(crate) fn foreign(&mut self, dir: &Path, core: u16, number: u32) -> u32 {
        let path = name(dir, number);
        let known = self.files.range(FOREIGN..);
        let mut last = FOREIGN - 1;
        for (&key, file) in known {
            if file.path == path {
                return key;
            }
            last = key;
        }
        self.add(last + 1, path, core, number);
        last + 1
    }

    /// Files of another generation that the memtable names.
    pub(crate) fn foreign_keys(&self) -> Vec<u32> {
        self.files.range(FOREIGN..).map(|(&key, _)| key).collect()
    }

    /// Forgets a file of another generation, whose chunks have been copied.
    pub(crate) fn forget_foreign(&mut self, key: u32) {
        let file = self.files.remove(&key).expect("a known file");
        assert!(key >= FOREIGN && file.live == 0);
    }

    /// Opens every file that the memtable names and checks its header and length. Files that nothing names wait from the log's segment `now` on.
    /// Returns the keys of those that are damaged, with what is wrong. Errors: the disk.
    pub(crate) fn check(
        &mut self,
        reactor: &mut Reactor,
        now: u32,
    ) -> Result<Vec<(u32, wal::Error)>, Error> {
        let mut damaged = Vec::new();
        for (&key, file) in &mut self.files {
            file.early = None;
            if file.stored.is_some()
                || key == self.tail.file
                || self.blocks.iter().any(|b| b.at.file == key)
            {
                continue; // Made by this process.
            }
            if file.live == 0 {
                file.dead_since = Some(now);
                continue;
            }
            if let Err(reason) = file.open(reactor)? {
                let path = file.path.clone();
                let (offset, reason) = reason;
                damaged.push((
                    key,
                    wal::Error::Corrupt {
                        path,
                        offset,
                        reason,
                    },
                ));
            }
        }
        Ok(damaged)
    }
}

/// A point in the stream of all files: that a checkpoint waits for, or before which a cut moves chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncPoint(Position);

impl SyncPoint {
    /// Whether a chunk lies before it.
    pub(crate) fn covers(self, place: Place) -> bool {
        let Place { file, offset, .. } = place;
        Position { file, offset } < self.0
    }
}

/// What is wrong with a file, and where.
type Damage = (u64, String);

impl ChunkFile {
    /// One of which nothing is known yet.
    fn new(path: PathBuf, core: u16, number: u32) -> ChunkFile {
        ChunkFile {
            path,
            core,
            number,
            stored: None,
            early: None,
            live: 0,
            end: HEADER_BYTES as u64,
            dead_since: None,
        }
    }

    fn open(&mut self, reactor: &mut Reactor) -> Result<Result<(), Damage>, Error> {
        let open = Op::Open {
            path: self.path.clone(),
            mode: OpenMode::read_only(),
        };
        let file = match reactor.run(open) {
            Ok(done) => done.file(),
            Err(failure) if failure.is_not_found() => {
                return Ok(Err((
                    0,
                    "it is missing, but a checkpoint names chunks in it".to_owned(),
                )));
            }
            Err(failure) => return Err(wal::Error::from(failure).into()),
        };
        let reader = reactor.reader(file);
        let path = self.path.clone();
        let len = reactor
            .run(Op::Stat { path })
            .map_err(wal::Error::from)?
            .stat()
            .len;
        let buf = reactor.buffer(HEADER_BYTES);
        let read = Op::Read {
            file,
            offset: 0,
            buf,
            len: HEADER_BYTES,
        };
        let (buf, count) = reactor.run(read).map_err(wal::Error::from)?.buffer();
        let sound = count == HEADER_BYTES && buf[..HEADER_BYTES] == header(self.core, self.number);
        reactor.recycle(buf);
        reactor.run(Op::Close { file }).map_err(wal::Error::from)?;
        if !sound {
            return Ok(Err((0, "its header does not fit its name".to_owned())));
        }
        if len < self.end {
            let reason = format!(
                "it ends at {len}, but a chunk that ends at {} is named",
                self.end
            );
            return Ok(Err((len, reason)));
        }
        self.stored = Some(Arc::new(StoredFile::new(self.path.clone(), reader)));
        Ok(Ok(()))
    }
}

fn header(core: u16, number: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[8..16].copy_from_slice(&MAGIC);
    header[16..18].copy_from_slice(&VERSION.to_le_bytes());
    header[18..20].copy_from_slice(&core.to_le_bytes());
    header[20..24].copy_from_slice(&number.to_le_bytes());
    let checksum = xxh3_64(&header[8..]);
    header[..8].copy_from_slice(&checksum.to_le_bytes());
    header
}

pub(crate) fn name(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("chunks-{number:010}"))
}

/// Numbers of the chunk files in a directory; none where it does not exist.
pub(crate) fn list(reactor: &mut Reactor, dir: &Path) -> Result<Vec<u32>, Error> {
    let entries = match reactor.run(Op::List {
        path: dir.to_owned(),
    }) {
        Ok(done) => done.entries(),
        Err(failure) if failure.is_not_found() => return Ok(Vec::new()),
        Err(failure) => return Err(wal::Error::from(failure).into()),
    };
    let number = |entry: &reactor::Entry| {
        let digits = entry.name.to_str()?.strip_prefix("chunks-")?;
        let plain = digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit());
        let number = plain.then(|| digits.parse::<u32>().ok())??;
        (number < FOREIGN - 1).then_some(number)
    };
    Ok(entries.iter().filter_map(number).collect())
}

#[cfg(test)]
mod tests;
