//! The bytes of a chunk as a read gets them: in memory, or a handle on the file that they lie in.
//!
//! Step 5 of the way of a query hands these out, whoever evaluates fetches what is in files first ([`load_chunks`]): sorted by place, neighbours in one
//! positioned read, on the caller's thread. A handle keeps its file readable, also when the core removes it meanwhile.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use block::{HeldRun, Run};
use chunk::XorAppender;
use model::TimeRange;
use reactor::Reader;

use crate::message::{ReadError, SelectedSeries};

/// Bytes between two wanted chunks that are read rather than skipped: a system call costs as much as copying a few pages.
const GAP_BYTES_MAX: u64 = 16 << 10;

/// Bytes of one read.
const RUN_BYTES_MAX: u64 = 1 << 20;

/// A file that chunks are read from.
#[derive(Debug)]
pub(crate) struct StoredFile {
    path: PathBuf,
    reader: Reader,
}

impl StoredFile {
    pub(crate) fn new(path: PathBuf, reader: Reader) -> StoredFile {
        StoredFile { path, reader }
    }
}

/// A sealed chunk as of `chunk`, checksum included, or where it lies. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChunkBytes {
    repr: Repr,
    /// Rank among the chunks of late samples of their series; 0: it is none.
    late: u32,
}

#[derive(Debug, Clone)]
enum Repr {
    /// A part of a block of memory that several chunks may share.
    Held {
        block: Arc<[u8]>,
        from: u32,
        len: u32,
    },
    Stored {
        file: Arc<StoredFile>,
        offset: u32,
        len: u32,
    },
    /// On a page of a block.
    Packed(HeldRun),
    /// From another node, which told its place in the order of logging.
    Told {
        bytes: Arc<[u8]>,
        order: u64,
        late: bool,
    },
}

impl From<HeldRun> for ChunkBytes {
    fn from(run: HeldRun) -> ChunkBytes {
        ChunkBytes::of(Repr::Packed(run))
    }
}

impl From<&[u8]> for ChunkBytes {
    fn from(bytes: &[u8]) -> ChunkBytes {
        ChunkBytes::held(Arc::from(bytes), 0, bytes.len() as u32)
    }
}

impl From<Vec<u8>> for ChunkBytes {
    fn from(bytes: Vec<u8>) -> ChunkBytes {
        let len = bytes.len() as u32;
        ChunkBytes::held(Arc::from(bytes), 0, len)
    }
}

impl ChunkBytes {
    fn of(repr: Repr) -> ChunkBytes {
        ChunkBytes { repr, late: 0 }
    }

    /// The same bytes, of late samples: they were logged later than those of lower ranks and than those in order.
    pub(crate) fn late(self, rank: u32) -> ChunkBytes {
        ChunkBytes { late: rank, ..self }
    }

    /// Sealed bytes that another node has read, with its [`ChunkBytes::order`] and [`ChunkBytes::is_late`].
    pub fn told(bytes: Arc<[u8]>, order: u64, late: bool) -> ChunkBytes {
        ChunkBytes::of(Repr::Told { bytes, order, late })
    }

    /// Whether these are late samples.
    pub fn is_late(&self) -> bool {
        self.late > 0 || matches!(self.repr, Repr::Told { late: true, .. })
    }

    fn held(block: Arc<[u8]>, from: u32, len: u32) -> ChunkBytes {
        ChunkBytes::of(Repr::Held { block, from, len })
    }

    pub(crate) fn stored(file: Arc<StoredFile>, offset: u32, len: u32) -> ChunkBytes {
        ChunkBytes::of(Repr::Stored { file, offset, len })
    }

    /// How many there are, without reading them.
    #[expect(clippy::len_without_is_empty, reason = "a sealed chunk is never empty")]
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Held { len, .. } | Repr::Stored { len, .. } => *len as usize,
            Repr::Packed(run) => run.len(),
            Repr::Told { bytes, .. } => bytes.len(),
        }
    }

    /// Whether the bytes are in memory of their own.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.repr, Repr::Held { .. } | Repr::Told { .. })
    }

    /// The run of a block that this is, if it is one.
    pub fn packed(&self) -> Option<&HeldRun> {
        match &self.repr {
            Repr::Packed(run) => Some(run),
            _ => None,
        }
    }

    /// Place in the order of logging: of two samples of one series and time that of the greater order counts. What comes from a core was
    /// logged later than what lies in blocks, and late samples later than those in order.
    pub fn order(&self) -> u64 {
        match &self.repr {
            Repr::Packed(run) => run.order(),
            Repr::Told { order, .. } => *order,
            Repr::Held { .. } | Repr::Stored { .. } => {
                u64::MAX - u64::from(u32::MAX) + u64::from(self.late)
            }
        }
    }

    /// The bytes; read from their file, with one system call, where they are not in memory.
    ///
    /// Errors: [`ReadError::Chunk`] naming file and offset.
    pub fn read(&self) -> Result<Cow<'_, [u8]>, ReadError> {
        match &self.repr {
            Repr::Held { block, from, len } => Ok(Cow::Borrowed(
                &block[*from as usize..(*from + *len) as usize],
            )),
            Repr::Stored { file, offset, len } => {
                let mut bytes = vec![0; *len as usize];
                fill(file, u64::from(*offset), &mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
            Repr::Packed(run) => {
                let sealed = seal(run, &TimeRange::ALL)?;
                Ok(Cow::Owned(
                    sealed.unwrap_or_else(|| XorAppender::new().seal()),
                ))
            }
            Repr::Told { bytes, .. } => Ok(Cow::Borrowed(bytes)),
        }
    }

    /// As [`ChunkBytes::read`], for whoever looks at a range of times alone: of a run of a block less may come, but never nothing.
    pub fn read_of(&self, range: &TimeRange) -> Result<Cow<'_, [u8]>, ReadError> {
        if let Repr::Packed(run) = &self.repr
            && let Some(sealed) = seal(run, range)?
        {
            return Ok(Cow::Owned(sealed));
        }
        self.read()
    }

    /// Takes the bytes into memory, if they are not there.
    pub(crate) fn load(&mut self) -> Result<(), ReadError> {
        if let Cow::Owned(bytes) = self.read()? {
            *self = ChunkBytes::from(bytes).late(self.late);
        }
        Ok(())
    }

    /// Where it lies, for messages.
    pub(crate) fn damaged(&self, reason: String) -> ReadError {
        match &self.repr {
            Repr::Held { .. } => ReadError::Chunk(format!("a chunk in memory: {reason}")),
            Repr::Stored { file, offset, .. } => damaged(file, u64::from(*offset), &reason),
            Repr::Packed(_) => ReadError::Block(reason),
            Repr::Told { .. } => ReadError::Chunk(format!("a chunk of another node: {reason}")),
        }
    }
}

/// The samples of a run in a range as a chunk, if there are any. Cost: encodes them anew; who wants many had better decode the run.
fn seal(run: &HeldRun, range: &TimeRange) -> Result<Option<Vec<u8>>, ReadError> {
    let mut sealed = None;
    // Floats come in pieces where something between them is deleted.
    let mut chunk = XorAppender::new();
    let decoded = run.decode(range, &mut |run| match run {
        Run::Floats { times, values } => {
            let samples = times.iter().zip(values);
            samples.for_each(|(&time, &value)| chunk.append(time, value));
        }
        Run::Sealed(run) => sealed = Some(run.bytes.to_vec()),
    });
    decoded.map_err(|error| ReadError::Block(error.to_string()))?;
    Ok(sealed.or_else(|| (!chunk.is_empty()).then(|| chunk.seal())))
}

fn damaged(file: &StoredFile, offset: u64, reason: &str) -> ReadError {
    ReadError::Chunk(format!("{} at {offset}: {reason}", file.path.display()))
}

pub(super) fn fill(file: &StoredFile, offset: u64, into: &mut [u8]) -> Result<(), ReadError> {
    let count = file
        .reader
        .read_at(offset, into)
        .map_err(|error| damaged(file, offset, &error.to_string()))?;
    if count < into.len() {
        return Err(damaged(file, offset + count as u64, "the file ends here"));
    }
    Ok(())
}

/// A chunk that is to be fetched.
struct Wanted<'a> {
    bytes: &'a mut ChunkBytes,
    min_time: i64,
    file: Arc<StoredFile>,
    offset: u32,
    len: u32,
}

impl Wanted<'_> {
    fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }
}

/// Fetches into memory what the chunks of these series have in files.
///
/// `canceled` is asked between reads. Each chunk is checked: its checksum, and that its first time is the one it was named with.
/// Errors: [`ReadError::Chunk`] naming file and offset; [`ReadError::Canceled`]. Cost: a system call for each run of neighbours, a copy, a hash.
pub fn load_chunks(
    list: &mut [SelectedSeries],
    canceled: &dyn Fn() -> bool,
) -> Result<(), ReadError> {
    let chunks = list.iter_mut().flat_map(|series| &mut series.chunks);
    let mut wanted: Vec<Wanted<'_>> = chunks
        .filter_map(|chunk| {
            let Repr::Stored { file, offset, len } = &chunk.bytes.repr else {
                return None;
            };
            let (file, offset, len) = (file.clone(), *offset, *len);
            let (bytes, min_time) = (&mut chunk.bytes, chunk.min_time);
            Some(Wanted {
                bytes,
                min_time,
                file,
                offset,
                len,
            })
        })
        .collect();
    wanted.sort_unstable_by_key(|w| (Arc::as_ptr(&w.file) as usize, w.offset));
    let mut buffer = Vec::new();
    let mut rest = &mut wanted[..];
    while let Some(first) = rest.first() {
        if canceled() {
            return Err(ReadError::Canceled);
        }
        let start = u64::from(first.offset);
        let mut count = 1;
        while let Some(next) = rest.get(count)
            && Arc::ptr_eq(&next.file, &first.file)
            && u64::from(next.offset) <= rest[count - 1].end() + GAP_BYTES_MAX
            && next.end() <= start + RUN_BYTES_MAX
        {
            count += 1;
        }
        let (run, others) = rest.split_at_mut(count);
        load_run(run, &mut buffer)?;
        rest = others;
    }
    Ok(())
}

/// One read; what was wanted of it is copied out of `buffer`, so that gaps take no memory.
fn load_run(run: &mut [Wanted<'_>], buffer: &mut Vec<u8>) -> Result<(), ReadError> {
    let start = u64::from(run[0].offset);
    let end = run.iter().map(Wanted::end).max().unwrap_or(start);
    buffer.resize((end - start) as usize, 0);
    fill(&run[0].file, start, buffer)?;
    let mut block = Vec::with_capacity(run.iter().map(|w| w.len as usize).sum());
    for wanted in &*run {
        let from = (u64::from(wanted.offset) - start) as usize;
        let bytes = &buffer[from..from + wanted.len as usize];
        check(bytes, wanted.min_time)
            .map_err(|reason| damaged(&wanted.file, u64::from(wanted.offset), &reason))?;
        block.extend_from_slice(bytes);
    }
    let block: Arc<[u8]> = Arc::from(block);
    let mut from = 0;
    for wanted in run {
        let late = wanted.bytes.late;
        *wanted.bytes = ChunkBytes::held(block.clone(), from, wanted.len).late(late);
        from += wanted.len;
    }
    Ok(())
}

/// Whether these are the bytes of the chunk that begins at that time.
pub(crate) fn check(sealed: &[u8], min_time: i64) -> Result<(), String> {
    match chunk::first_time(sealed).map_err(|error| error.to_string())? {
        Some(first) if first == min_time => Ok(()),
        first => Err(format!(
            "a chunk from {first:?} where one from {min_time} was named"
        )),
    }
}
