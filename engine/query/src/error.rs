//! Why a query has no answer.

use std::time::Duration;

use model::Class;
use shard::ReadError;

/// A query that failed; displays as the API tells it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter is not what it must be.
    #[error("invalid parameter {name:?}: {reason}")]
    Parameter {
        /// The parameter of the API.
        name: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// From the language: parse errors, limits on samples, what cannot be evaluated.
    #[error(transparent)]
    Promql(#[from] promql::Error),
    /// A core could not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A selector reaches over a longer time than `max_query_length`.
    #[error("the query time range exceeds the limit (query length: {}, limit: {})", shown(*length), shown(*limit))]
    TooLong {
        /// From the first to the last sample needed.
        length: Duration,
        /// In force.
        limit: Duration,
    },
    /// More queries wait than may.
    #[error("too many outstanding requests")]
    Busy,
    /// The node is at its memory limit, and the query is a large one.
    #[error(
        "the node is at its memory limit, queries over more than {} series are refused",
        crate::options::TIGHT_SERIES_MAX
    )]
    Memory,
    /// The deadline passed.
    #[error("query timed out after {}", shown(*.0))]
    Timeout(Duration),
    /// We panicked on this query.
    #[error("internal error while evaluating the query; it is refused for a minute")]
    Panicked,
    /// We panicked on the same text less than a minute ago.
    #[error("this query made the server fail less than a minute ago and is refused until then")]
    Quarantined,
}

impl Error {
    /// Whose fault it is.
    pub fn class(&self) -> Class {
        match self {
            Error::Parameter { .. } => Class::Client,
            Error::Promql(e) => e.class(),
            Error::Read(ReadError::TooManySeries { .. } | ReadError::TooManyBytes { .. })
            | Error::TooLong { .. } => Class::Limit,
            Error::Read(ReadError::Canceled) => Class::Canceled,
            Error::Read(ReadError::Chunk(_)) => Class::Internal,
            Error::Read(_) | Error::Busy | Error::Memory => Class::Overload,
            Error::Timeout(_) => Class::Timeout,
            Error::Panicked | Error::Quarantined => Class::Internal,
        }
    }
}

/// A duration in whole seconds or milliseconds.
fn shown(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}
