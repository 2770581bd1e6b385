//! What can go wrong: opening a reactor, and a single operation.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::op::OpKind;

/// Why a reactor could not be opened. Always the world's fault or the operator's wish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `IoMode::Uring` was asked for and the kernel or its seccomp profile refuses it.
    #[error("io_uring is not usable here: {reason}")]
    Uring {
        /// What was tried and what the kernel said.
        reason: String,
    },
    /// An option is outside its bounds.
    #[error("{name} is {value}, must be {bounds}")]
    Option {
        /// Field of [`Options`](crate::Options).
        name: &'static str,
        /// What was given.
        value: usize,
        /// What is allowed.
        bounds: &'static str,
    },
    /// The process could not get a resource every world needs.
    #[error("cannot create {what}")]
    Resource {
        /// The resource.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An operation that failed: which, where, why; and its buffer, given back.
///
/// After a failed write its range is undefined: old, new or torn. After a failed sync the unsynced
/// data may be gone although a second sync would succeed: never retry it.
#[derive(Debug)]
pub struct Failure {
    /// What was tried.
    pub op: OpKind,
    /// The file or directory.
    pub path: Arc<Path>,
    /// Byte offset, where the operation has one.
    pub offset: Option<u64>,
    /// The errno.
    pub source: io::Error,
    /// The buffer of a read or write.
    pub buf: Option<Buffer>,
}

impl Failure {
    /// The errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Whether the disk (or quota) is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOSPC | libc::EDQUOT))
    }

    /// Whether the file does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.op.name(), self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at {offset}")?;
        }
        write!(f, ": {}", self.source)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        io::Error::new(failure.source.kind(), failure.to_string())
    }
}
