//! What can go wrong in a query, in the words of Prometheus.

use model::Class;

use crate::source::SourceError;

/// A query that is not PromQL, or not well typed. Displays as Prometheus does: `1:5: parse error: ...`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: parse error: {message}")]
pub struct ParseError {
    /// `line:column`, from 1.
    pub place: String,
    /// What was wrong.
    pub message: String,
}

/// A query that could not be planned or evaluated.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not PromQL.
    #[error("invalid parameter \"query\": {0}")]
    Parse(#[from] ParseError),
    /// The query's parameters make no sense.
    #[error("{0}")]
    Parameters(String),
    /// It cannot be evaluated on this data.
    #[error("{0}")]
    Execution(String),
    /// More samples than allowed.
    #[error(
        "query processing would load too many samples into memory in query execution (limit: {samples_max} samples, \
         at least {needed} needed)"
    )]
    TooManySamples {
        /// The bound.
        samples_max: u64,
        /// What was asked for when the bound was met.
        needed: u64,
    },
    /// There is no memory for it; who gives it knows which bound that is.
    #[error("query processing would hold more than {needed} bytes in query execution")]
    TooMuchMemory {
        /// What was asked for in all.
        needed: u64,
    },
    /// The deadline passed.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// The client has gone.
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// Data could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl Error {
    /// Whose fault it is.
    pub fn class(&self) -> Class {
        match self {
            Error::Parse(_) | Error::Parameters(_) => Class::Client,
            Error::Execution(_) => Class::Execution,
            Error::TooManySamples { .. } | Error::TooMuchMemory { .. } => Class::Limit,
            Error::Timeout => Class::Timeout,
            Error::Canceled => Class::Canceled,
            Error::Source(_) => Class::Internal,
        }
    }

    /// An execution error.
    pub fn execution(text: impl Into<String>) -> Error {
        Error::Execution(text.into())
    }
}
