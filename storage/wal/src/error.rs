//! What can go wrong with a log, and whose fault it is.

use std::path::PathBuf;

use model::Class;
use reactor::Failure;

/// Errors of this crate. Those of start-up name the file; those of a running log say what to do with writes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation on the disk failed.
    #[error("{0}")]
    Io(#[source] Failure),
    /// Bytes that were once durable are not what was written.
    #[error("{} is corrupt at offset {offset}: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// Expected and found.
        reason: String,
    },
    /// Written by a version of the format that this one does not know.
    #[error("{} has format version {version}, this program reads up to {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u16,
        /// The newest that is known of such files.
        known: u16,
    },
    /// The file belongs to another core: directories were mixed up.
    #[error("{} belongs to core {found}, not to core {expected}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Core in its header.
        found: u16,
        /// Core it was opened for.
        expected: u16,
    },
    /// The sink refused a record during replay.
    #[error("{} at offset {offset}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Where the record's frame begins.
        offset: u64,
        /// The sink's words.
        reason: String,
    },
    /// A file went while a log was looked at, by whoever writes it.
    #[error("{} has gone while the log was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the lock.
    #[error("{} is locked by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A write or sync failed before; nothing more is written.
    #[error("the log is poisoned: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// Space for the next segment cannot be had now.
    #[error("no space for the next segment: {reason}")]
    NoSpace {
        /// The last failure.
        reason: String,
    },
    /// As much as may wait for the disk is waiting.
    #[error("{queued} bytes are waiting for the log")]
    QueueFull {
        /// Bytes encoded and not yet written.
        queued: usize,
    },
    /// A record is larger than a group.
    #[error("a record of {bytes} bytes exceeds the largest, {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What fits.
        max: usize,
    },
    /// An option is outside its bounds.
    #[error("wal option {name} is {value}, must be {bounds}")]
    Option {
        /// Field of [`crate::Options`].
        name: &'static str,
        /// What was given.
        value: u64,
        /// What is allowed.
        bounds: &'static str,
    },
}

impl Error {
    /// What kind of error a client sees.
    pub fn class(&self) -> Class {
        match self {
            Error::Poisoned { .. } | Error::NoSpace { .. } | Error::QueueFull { .. } => {
                Class::Overload
            }
            Error::TooLarge { .. } => Class::Client,
            _ => Class::Internal,
        }
    }

    /// Whether this is damage that `salvage` would step over.
    pub fn is_corruption(&self) -> bool {
        matches!(self, Error::Corrupt { .. })
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Io(failure)
    }
}
