//! Reading an open file past the loop, from any thread.
//!
//! A core writes files that query workers read. They get a [`Reader`]: the open descriptor, shared, so a file that is closed by its
//! reactor or removed meanwhile stays readable for as long as a reader of it exists. Reads are plain positioned reads on the caller's thread;
//! they block it, so a core uses them for rare and small things only. In the simulation they see what is live, take no time, and are no
//! operations (nothing can be stopped or fail there): they change nothing on disk.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::blocking;
use crate::sim::SimReader;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Reader(pub(crate) Source);

#[derive(Clone)]
pub(crate) enum Source {
    Fd(Arc<OwnedFd>),
    Sim(SimReader),
}

impl Reader {
    /// Fills `into` from `offset` on; returns how much, less only at the end of the file. The file must not be opened `direct`.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Source::Fd(fd) => blocking::read(fd.as_fd(), offset, into, false),
            Source::Sim(reader) => reader.read_at(offset, into),
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}
