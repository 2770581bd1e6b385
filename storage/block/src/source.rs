//! Where the bytes of a block come from: a file of this node, memory, or, above this crate, an object of a bucket.
//!
//! A reader asks for many ranges at once, ascending and already coalesced, so that a source may fetch them side by side.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use reactor::{File, Op, OpenMode, Reactor, Reader};

use crate::error::{Error, Malformed};

/// Bytes of one block.
pub trait Source {
    /// For messages: path or key.
    fn name(&self) -> &str;

    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of each range, whole; ranges ascend and lie within the block.
    fn read(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, Error>;

    /// The same once more, past whatever keeps bytes nearer than the block is: what was read did not check. `None`: there is nothing between.
    fn read_again(&mut self, _ranges: &[Range<u64>]) -> Option<Result<Vec<Vec<u8>>, Error>> {
        None
    }
}

/// A block in memory.
#[derive(Debug, Clone)]
pub struct Memory {
    name: String,
    bytes: Vec<u8>,
}

impl Memory {
    /// Takes over bytes.
    pub fn new(name: &str, bytes: Vec<u8>) -> Memory {
        Memory {
            name: name.to_owned(),
            bytes,
        }
    }
}

impl Source for Memory {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, Error> {
        ranges
            .iter()
            .map(|range| {
                let bytes = self.bytes.get(range.start as usize..range.end as usize);
                let bytes = bytes.ok_or_else(|| cut_short(&self.name, range, self.len()))?;
                Ok(bytes.to_vec())
            })
            .collect()
    }
}

fn cut_short(name: &str, range: &Range<u64>, len: u64) -> Error {
    Malformed::new("end of the file", format!("{} or later", range.end), len).at(name, range.start)
}

/// A file, read through a reactor that waits for each read: of a tool or a background thread, not of a serving core.
pub struct LocalFile {
    reactor: Rc<RefCell<Reactor>>,
    file: File,
    name: String,
    len: u64,
}

impl LocalFile {
    /// Opens a file.
    pub fn open(reactor: &Rc<RefCell<Reactor>>, path: &Path) -> Result<LocalFile, Error> {
        let mut at = reactor.borrow_mut();
        let path = path.to_owned();
        let stat = at.run(Op::Stat { path: path.clone() })?.stat();
        let name = path.display().to_string();
        if stat.is_dir {
            let reason = "it is a directory".to_owned();
            return Err(Error::NotABlock { file: name, reason });
        }
        let mode = OpenMode::read_only();
        let file = at.run(Op::Open { path, mode })?.file();
        drop(at);
        Ok(LocalFile {
            reactor: Rc::clone(reactor),
            file,
            name,
            len: stat.len,
        })
    }
}

impl Source for LocalFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, Error> {
        let mut reactor = self.reactor.borrow_mut();
        let mut read = Vec::with_capacity(ranges.len());
        for range in ranges {
            let len = (range.end - range.start) as usize;
            if len == 0 {
                // The reactor moves nothing less than a byte.
                read.push(Vec::new());
                continue;
            }
            let buf = reactor.buffer(len);
            let op = Op::Read {
                file: self.file,
                offset: range.start,
                buf,
                len,
            };
            let (buf, got) = reactor.run(op)?.buffer();
            if got != len {
                return Err(cut_short(&self.name, range, range.start + got as u64));
            }
            read.push(buf[..len].to_vec());
            reactor.recycle(buf);
        }
        Ok(read)
    }
}

impl std::fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalFile({:?}, {} bytes)", self.name, self.len)
    }
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        // Without power, or in the middle of another call, nobody needs it closed.
        if let Ok(mut reactor) = self.reactor.try_borrow_mut() {
            let _ = reactor.run(Op::Close { file: self.file });
        }
    }
}

/// Ranges of one block from somewhere else than a file of this node.
pub trait Fetch: Send + Sync {
    /// As [`Source::read`].
    fn fetch(&self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, Error>;

    /// As [`Source::read_again`].
    fn fetch_again(&self, _ranges: &[Range<u64>]) -> Option<Result<Vec<Vec<u8>>, Error>> {
        None
    }
}

/// A file that any thread may read, past the loop of whoever opened it; it stays readable when it is removed meanwhile. Or the bytes of a block
/// that is elsewhere. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedFile {
    bytes: Bytes,
    name: Arc<str>,
    len: u64,
}

#[derive(Clone)]
enum Bytes {
    Here(Reader),
    Elsewhere(Arc<dyn Fetch>),
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Bytes::Here(_) => "Here",
            Bytes::Elsewhere(_) => "Elsewhere",
        })
    }
}

impl SharedFile {
    /// Opens a file.
    pub fn open(reactor: &mut Reactor, path: &Path) -> Result<SharedFile, Error> {
        let path = path.to_owned();
        let len = reactor.run(Op::Stat { path: path.clone() })?.stat().len;
        let name = Arc::from(path.display().to_string());
        let mode = OpenMode::read_only();
        let file = reactor.run(Op::Open { path, mode })?.file();
        let reader = reactor.reader(file);
        reactor.run(Op::Close { file })?;
        let bytes = Bytes::Here(reader);
        Ok(SharedFile { bytes, name, len })
    }

    /// A block that is elsewhere; `name` is for messages.
    pub fn elsewhere(name: &str, len: u64, fetch: Arc<dyn Fetch>) -> SharedFile {
        SharedFile {
            bytes: Bytes::Elsewhere(fetch),
            name: Arc::from(name),
            len,
        }
    }

    /// The same file, known under another name.
    pub(crate) fn named(&self, path: &Path) -> SharedFile {
        SharedFile {
            name: Arc::from(path.display().to_string()),
            ..self.clone()
        }
    }
}

impl Source for SharedFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_again(&mut self, ranges: &[Range<u64>]) -> Option<Result<Vec<Vec<u8>>, Error>> {
        match &self.bytes {
            Bytes::Here(_) => None,
            Bytes::Elsewhere(fetch) => fetch.fetch_again(ranges),
        }
    }

    fn read(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, Error> {
        let reader = match &self.bytes {
            Bytes::Here(reader) => reader,
            Bytes::Elsewhere(fetch) => return fetch.fetch(ranges),
        };
        let mut read = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            let got = reader.read_at(range.start, &mut bytes);
            let got = got.map_err(|error| Error::Source {
                file: self.name.to_string(),
                reason: format!("at offset {}: {error}", range.start),
            })?;
            if got != bytes.len() {
                return Err(cut_short(&self.name, range, range.start + got as u64));
            }
            read.push(bytes);
        }
        Ok(read)
    }
}

/// Joins ranges, which ascend, over gaps of at most `gap_max` bytes, to at most `bytes_max` bytes each (a longer one stays alone).
pub fn coalesce(ranges: &[Range<u64>], gap_max: u64, bytes_max: u64) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last)
                if range.start.saturating_sub(last.end) <= gap_max
                    && range.end - last.start <= bytes_max =>
            {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::coalesce;

    #[test]
    fn neighbours_are_read_together_and_strangers_apart() {
        assert_eq!(coalesce(&[0..5, 5..9, 30..40], 10, 100), [0..9, 30..40]);
        assert_eq!(coalesce(&[0..5, 15..20, 90..95], 10, 100), [0..20, 90..95]);
        assert_eq!(
            coalesce(&[0..60, 60..120, 120..130], 10, 100),
            [0..60, 60..130]
        );
        assert_eq!(coalesce(&[0..500, 500..501], 10, 100), [0..500, 500..501]);
    }
}
