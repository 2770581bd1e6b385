//! Why a bucket did not do what it was asked.

/// What is wrong; each names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such object (any more).
    #[error("{key}: no such object")]
    NotFound {
        /// Of the object.
        key: String,
    },
    /// The condition of a put does not hold: somebody else was faster, or our own first try had arrived.
    #[error("{key}: it is not what it was expected to be")]
    Condition {
        /// Of the object.
        key: String,
    },
    /// The store or the way to it is in trouble: another try may help. Whether a write had its effect is unknown.
    #[error("{key}: {reason}")]
    Unavailable {
        /// Of the object.
        key: String,
        /// What was seen.
        reason: String,
    },
    /// The store will go on saying no until somebody changes something: credentials, rights, a bucket that does not exist.
    #[error("{key}: refused: {reason}")]
    Refused {
        /// Of the object.
        key: String,
        /// What the store says.
        reason: String,
    },
    /// Not what was written: a length or a checksum is wrong.
    #[error("{key}: {what} is {found}, expected {expected}")]
    Corrupt {
        /// Of the object.
        key: String,
        /// Which property.
        what: &'static str,
        /// As it should be.
        expected: String,
        /// As it is.
        found: String,
    },
    /// Our own input: a key that no store would take, or an object too large.
    #[error("{key:?}: {reason}")]
    Input {
        /// As given.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was to be put could not be read.
    #[error("{key}: what was to be put cannot be read: {reason}")]
    Body {
        /// Of the object.
        key: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Error::Unavailable { .. } | Error::Corrupt { .. })
    }

    /// Whether it is the word of the store that the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }
}
