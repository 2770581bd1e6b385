//! Reading files of the log: a window over one file, frames verified before they are believed.
//!
//! Memory is one window of `READ_BYTES`, or as much as the largest frame met, whatever a damaged length claims. Reads go through the page cache: replay runs
//! once, and the kernel reads ahead.

use std::path::{Path, PathBuf};

use reactor::{File, Op, OpenMode, Reactor};

use crate::error::Error;
use crate::frame::{FileHeader, FrameHeader, HeaderFault, is_remnant, is_sound};
use crate::limits::{BLOCK_BYTES, FRAME_HEADER_BYTES, READ_BYTES};

/// A file being read.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: File,
    /// Length of the file when it was opened.
    len: u64,
    window: reactor::Buffer,
    /// Where in the file the window begins, and how much of it is filled.
    start: u64,
    filled: usize,
}

/// Whose frames are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) core: u16,
    pub(crate) sequence: u32,
}

/// What stands where a frame is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It; the records are at [`Reader::records`].
    Frame(FrameHeader),
    /// Something of it.
    Remnant,
    /// Nothing of it.
    Nothing,
}

impl Reader {
    pub(crate) fn open(reactor: &mut Reactor, path: &Path, len: u64) -> Result<Reader, Error> {
        let window = READ_BYTES.min((len as usize).max(BLOCK_BYTES));
        Reader::with_window(reactor, path, len, window)
    }

    /// For [`Reader::peek`]: reads no more than it needs.
    pub(crate) fn open_for_headers(
        reactor: &mut Reactor,
        path: &Path,
        len: u64,
    ) -> Result<Reader, Error> {
        Reader::with_window(reactor, path, len, BLOCK_BYTES)
    }

    fn with_window(
        reactor: &mut Reactor,
        path: &Path,
        len: u64,
        window: usize,
    ) -> Result<Reader, Error> {
        let mode = OpenMode::read_only();
        let file = reactor
            .run(Op::Open {
                path: path.to_owned(),
                mode,
            })?
            .file();
        let window = reactor.buffer(window);
        Ok(Reader {
            path: path.to_owned(),
            file,
            len,
            window,
            start: 0,
            filled: 0,
        })
    }

    pub(crate) fn close(self, reactor: &mut Reactor) -> Result<(), Error> {
        reactor.recycle(self.window);
        reactor.run(Op::Close { file: self.file })?;
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes `offset..offset + len` of the file; `None` if it ends before.
    fn bytes(
        &mut self,
        reactor: &mut Reactor,
        offset: u64,
        len: usize,
    ) -> Result<Option<&[u8]>, Error> {
        if offset
            .checked_add(len as u64)
            .is_none_or(|end| end > self.len)
        {
            return Ok(None);
        }
        let inside = |start: u64, filled: usize| {
            offset >= start && offset + len as u64 <= start + filled as u64
        };
        if !inside(self.start, self.filled) {
            self.fill(reactor, offset, len)?;
        }
        if !inside(self.start, self.filled) {
            // It has become shorter since it was listed.
            return Ok(None);
        }
        let at = (offset - self.start) as usize;
        Ok(Some(&self.window[at..at + len]))
    }

    fn fill(&mut self, reactor: &mut Reactor, offset: u64, len: usize) -> Result<(), Error> {
        let size = self.window.len().max(len);
        let buf = std::mem::replace(&mut self.window, reactor::Buffer::new(0));
        let buf = if buf.len() >= size {
            buf
        } else {
            reactor.recycle(buf);
            reactor.buffer(size)
        };
        let want = (buf.len() as u64).min(self.len - offset) as usize;
        let read = Op::Read {
            file: self.file,
            offset,
            buf,
            len: want,
        };
        let (buf, filled) = reactor.run(read)?.buffer();
        (self.window, self.start, self.filled) = (buf, offset, filled);
        Ok(())
    }

    /// The header block.
    pub(crate) fn header(
        &mut self,
        reactor: &mut Reactor,
    ) -> Result<Result<FileHeader, HeaderFault>, Error> {
        let block = self.bytes(reactor, 0, BLOCK_BYTES)?;
        Ok(block.map_or(Err(HeaderFault::Invalid), FileHeader::decode))
    }

    /// The frame at `offset`, if there is a sound one of this owner; else `None`.
    fn sound(
        &mut self,
        reactor: &mut Reactor,
        owner: Owner,
        offset: u64,
    ) -> Result<Option<FrameHeader>, Error> {
        let Some(header) = self.header_at(reactor, owner, offset)? else {
            return Ok(None);
        };
        let frame = self.bytes(reactor, offset, FRAME_HEADER_BYTES + header.len as usize)?;
        Ok(frame.filter(|bytes| is_sound(bytes)).map(|_| header))
    }

    /// What the header of frame `number` of this owner and epoch says, if it stands at `offset`; its checksum is not looked at.
    pub(crate) fn peek(
        &mut self,
        reactor: &mut Reactor,
        owner: Owner,
        epoch: u64,
        number: u64,
        offset: u64,
    ) -> Result<Option<FrameHeader>, Error> {
        let header = self.header_at(reactor, owner, offset)?;
        Ok(header.filter(|h| (h.epoch, h.number) == (epoch, number)))
    }

    /// What stands at `offset` and looks like the header of a frame of this owner.
    fn header_at(
        &mut self,
        reactor: &mut Reactor,
        owner: Owner,
        offset: u64,
    ) -> Result<Option<FrameHeader>, Error> {
        let front = self.bytes(reactor, offset, FRAME_HEADER_BYTES)?;
        let header = front.and_then(|bytes| FrameHeader::peek(bytes.first_chunk()?));
        Ok(header.filter(|h| (h.core, h.sequence) == (owner.core, owner.sequence)))
    }

    /// Looks for frame `number` of this owner and epoch at `offset`.
    pub(crate) fn find(
        &mut self,
        reactor: &mut Reactor,
        owner: Owner,
        epoch: u64,
        number: u64,
        offset: u64,
    ) -> Result<Found, Error> {
        if let Some(header) = self.sound(reactor, owner, offset)?
            && (header.epoch, header.number) == (epoch, number)
        {
            return Ok(Found::Frame(header));
        }
        let front = self.bytes(reactor, offset, FRAME_HEADER_BYTES)?;
        let remnant = front
            .and_then(|bytes| bytes.first_chunk())
            .is_some_and(|bytes| is_remnant(bytes, owner.sequence, epoch, number));
        Ok(if remnant {
            Found::Remnant
        } else {
            Found::Nothing
        })
    }

    /// The records of the frame that [`Reader::find`] found last at this place.
    pub(crate) fn records(&self, offset: u64, header: &FrameHeader) -> &[u8] {
        let at = (offset - self.start) as usize + FRAME_HEADER_BYTES;
        &self.window[at..at + header.len as usize]
    }

    /// Hands every sound frame of this owner from `offset` on to `see`, looking at every block, until `see` returns true or the file ends. Returns whether it did.
    pub(crate) fn scan(
        &mut self,
        reactor: &mut Reactor,
        owner: Owner,
        mut offset: u64,
        see: &mut dyn FnMut(&FrameHeader) -> bool,
    ) -> Result<bool, Error> {
        while offset + BLOCK_BYTES as u64 <= self.len {
            let step = match self.sound(reactor, owner, offset)? {
                Some(header) if see(&header) => return Ok(true),
                Some(header) => header.bytes(),
                None => BLOCK_BYTES,
            };
            offset += step as u64;
        }
        Ok(false)
    }
}
