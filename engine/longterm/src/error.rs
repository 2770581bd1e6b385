//! Why something of the long-term store could not be had or done.

/// See the crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bucket.
    #[error("{0}")]
    Bucket(#[from] objstore::Error),
    /// A block.
    #[error("{0}")]
    Block(#[from] block::Error),
    /// An index that is not one.
    #[error("{key}: {reason}")]
    Index {
        /// Of the object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else writes to the bucket.
    #[error("{holder} has the lease of the bucket for {seconds} s more")]
    Leased {
        /// Who.
        holder: String,
        /// How long.
        seconds: i64,
    },
    /// Others change an index again and again.
    #[error("{key}: it was changed by others {tries} times while we tried")]
    Contended {
        /// Of the object.
        key: String,
        /// How often.
        tries: u32,
    },
}

impl Error {
    /// Whether the same may succeed later by itself.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Bucket(error) => error.is_passing(),
            Error::Block(_) | Error::Index { .. } => false,
            Error::Leased { .. } | Error::Contended { .. } => true,
        }
    }
}
