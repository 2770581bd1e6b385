//! Whether chunk files hold what checkpoints say: for tools, without a core.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reactor::{Op, Reactor};
use wal::StoredChunkRecord;

use super::bytes::{self, StoredFile, fill};
use super::{ChunkFile, name};
use crate::Error;

/// Files that are open at a time: of one core there are rarely more.
const OPEN_MAX: usize = 256;

/// Reads the chunks that the log of one core names. Changes nothing.
pub struct ChunkAudit {
    reactor: Reactor,
    dir: PathBuf,
    core: u16,
    /// By number, with their length; `None`: the file as a whole cannot be read, which has been told.
    files: HashMap<u32, Option<(Arc<StoredFile>, u64)>>,
    bytes: Vec<u8>,
}

impl ChunkAudit {
    /// Of the core's log in `dir`. The reactor is for this alone.
    pub fn new(reactor: Reactor, dir: &Path, core: u16) -> ChunkAudit {
        ChunkAudit {
            reactor,
            dir: dir.to_owned(),
            core,
            files: HashMap::new(),
            bytes: Vec::new(),
        }
    }

    /// Reads a chunk that is named, and checks it as a query would. What is wrong with a file as a whole is told once.
    ///
    /// Errors: [`wal::Error::Corrupt`] naming file and offset, the disk.
    pub fn check(&mut self, chunk: &StoredChunkRecord) -> Result<(), Error> {
        if !self.files.contains_key(&chunk.file) {
            if self.files.len() == OPEN_MAX {
                self.files.clear();
            }
            let opened = self.open(chunk.file);
            let file = opened.as_ref().ok().cloned();
            self.files.insert(chunk.file, file);
            opened?;
        }
        let Some(Some((file, len))) = self.files.get(&chunk.file) else {
            return Ok(());
        };
        let corrupt = |reason| {
            let path = name(&self.dir, chunk.file);
            let offset = u64::from(chunk.offset);
            Error::Log(wal::Error::Corrupt {
                path,
                offset,
                reason,
            })
        };
        let end = u64::from(chunk.offset) + u64::from(chunk.len);
        if end > *len {
            let reason = format!("the file ends at {len}, but a chunk that ends at {end} is named");
            return Err(corrupt(reason));
        }
        self.bytes.resize(chunk.len as usize, 0);
        fill(file, u64::from(chunk.offset), &mut self.bytes)
            .map_err(|error| corrupt(error.to_string()))?;
        bytes::check(&self.bytes, chunk.first.0).map_err(corrupt)
    }

    fn open(&mut self, number: u32) -> Result<(Arc<StoredFile>, u64), Error> {
        let path = name(&self.dir, number);
        let mut file = ChunkFile::new(path.clone(), self.core, number);
        if let Err((offset, reason)) = file.open(&mut self.reactor)? {
            return Err(Error::Log(wal::Error::Corrupt {
                path,
                offset,
                reason,
            }));
        }
        let stat = self.reactor.run(Op::Stat { path });
        let len = stat.map_err(wal::Error::from)?.stat().len;
        let stored = file.stored.expect("it was opened");
        Ok((stored, len))
    }
}
