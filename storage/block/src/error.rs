//! What can go wrong with a block, and whose fault it is.

use model::Class;
use reactor::Failure;

/// Errors of this crate. Corruption names file, offset, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation on the disk failed.
    #[error("{0}")]
    Io(#[source] Failure),
    /// A source that is no file of ours could not be read.
    #[error("{file} could not be read: {reason}")]
    Source {
        /// Which block.
        file: String,
        /// Words of the source.
        reason: String,
    },
    /// A block that is elsewhere cannot be read now.
    #[error("{file} cannot be reached: {reason}")]
    Unreachable {
        /// Which block.
        file: String,
        /// Why.
        reason: String,
    },
    /// A block that is elsewhere is not there any more.
    #[error("{file} is gone")]
    Gone {
        /// Which block.
        file: String,
    },
    /// Bytes that were once sound are not what was written.
    #[error("{file} is corrupt at offset {offset}: {what}")]
    Corrupt {
        /// The file or object.
        file: String,
        /// Where in it the damaged part begins.
        offset: u64,
        /// What is wrong: expected and found.
        what: Malformed,
    },
    /// Not a block at all, or cut short.
    #[error("{file} is not a block: {reason}")]
    NotABlock {
        /// The file or object.
        file: String,
        /// What is missing.
        reason: String,
    },
    /// Written by a version of the format that this one does not know.
    #[error("{file} has block format version {version}, this program reads {known}", known = crate::meta::VERSION)]
    Version {
        /// The file or object.
        file: String,
        /// What it says.
        version: u16,
    },
    /// A caller's series, samples or tenants are out of order or out of bounds; nothing was added.
    #[error("{0}")]
    Input(String),
}

/// A field that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, found {found}")]
pub struct Malformed {
    /// The field.
    pub what: &'static str,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl Malformed {
    #[cold]
    pub(crate) fn new(
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> Malformed {
        Malformed {
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// Bytes end before `what` does.
    #[cold]
    pub(crate) fn cut_short(what: &'static str) -> Malformed {
        Malformed::new(what, "more bytes", "the end")
    }

    pub(crate) fn at(self, file: &str, offset: u64) -> Error {
        Error::Corrupt {
            file: file.to_owned(),
            offset,
            what: self,
        }
    }
}

impl Error {
    /// What kind of error a client sees.
    pub fn class(&self) -> Class {
        match self {
            Error::Input(_) => Class::Client,
            _ => Class::Internal,
        }
    }

    /// Whether the bytes are damaged, as opposed to unreachable.
    pub fn is_corruption(&self) -> bool {
        matches!(
            self,
            Error::Corrupt { .. } | Error::NotABlock { .. } | Error::Version { .. }
        )
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Io(failure)
    }
}
