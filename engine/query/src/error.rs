//! Why a query has no answer.

use std::time::Duration;

use model::Class;
use shard::{DeleteError, ReadError};

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
    /// A range query asks for a longer time than `max_query_length`.
    #[error("the query time range exceeds the limit (query length: {}, limit: {})", shown(*length), shown(*limit))]
    RangeTooLong {
        /// From start to end.
        length: Duration,
        /// In force.
        limit: Duration,
    },
    /// A rule of `query_rejection` fits.
    #[error("This query has been rejected by the service operator (query_rejection).")]
    Rejected,
    /// A regular expression is longer than one may be.
    #[error(
        "a regular expression on the label {label:?} has {length} bytes (limit: {limit}; max_regex_pattern_length)"
    )]
    PatternTooLong {
        /// The label.
        label: String,
        /// Bytes of the expression.
        length: u64,
        /// In force.
        limit: u64,
    },
    /// A regular expression would run over too much.
    #[error(
        "the regular expression {pattern:?} would run over {found} {what} of the label {label:?} (limit: {limit}; {setting})"
    )]
    PatternTooWide {
        /// The label.
        label: String,
        /// The expression.
        pattern: String,
        /// `values` or `bytes of values`.
        what: &'static str,
        /// So many.
        found: u64,
        /// In force.
        limit: u64,
        /// Its name.
        setting: &'static str,
    },
    /// The answer has more bytes than one may have.
    #[error(
        "the query response size exceeds limit (limit: {limit} bytes; max_query_response_size)"
    )]
    ResponseTooLarge {
        /// In force.
        limit: u64,
    },
    /// The node is at its memory limit, and the query is a large one.
    #[error(
        "the node is at its memory limit, queries over more than {} series are refused",
        crate::options::TIGHT_SERIES_MAX
    )]
    Memory,
    /// More queries wait than may, over all tenants.
    #[error(
        "too many outstanding requests: {waiting} wait for their turn on this node (querier.max_waiting)"
    )]
    Busy {
        /// How many wait.
        waiting: usize,
    },
    /// More queries of the tenant wait than may.
    #[error(
        "too many outstanding requests: {waiting} of this tenant wait for their turn \
         (limit: {limit}; max_outstanding_requests_per_tenant)"
    )]
    TooManyOutstanding {
        /// How many wait.
        waiting: usize,
        /// In force.
        limit: usize,
    },
    /// The query would hold more memory than one of its tenant may.
    #[error(
        "the query exceeded the maximum allowed estimated amount of memory consumed by a single query \
         (limit: {limit} bytes, at least {needed} needed; max_estimated_memory_consumption_per_query)"
    )]
    QueryMemory {
        /// In force.
        limit: u64,
        /// What it would hold.
        needed: u64,
    },
    /// All queries together would hold more memory than they may.
    #[error(
        "queries hold {held} of {limit} bytes (querier.max_memory); this one needs at least {asked} in all"
    )]
    MemoryOfAll {
        /// In force.
        limit: u64,
        /// What is held.
        held: u64,
        /// What this one would hold.
        asked: u64,
    },
    /// The query uses what its tenant may not.
    #[error(
        "invalid parameter \"query\": experimental {0} is not enabled for this tenant \
         (promql_experimental_functions_enabled)"
    )]
    Experimental(String),
    /// What was to be deleted is not, or not all of it.
    #[error(transparent)]
    Delete(#[from] DeleteError),
    /// There is no snapshot.
    #[error("no snapshot was made: {0}")]
    Snapshot(String),
    /// Somebody ended it.
    #[error("the query was killed by a request to do so")]
    Killed,
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
            Error::Parameter { .. } | Error::Experimental(_) | Error::RangeTooLong { .. } => {
                Class::Client
            }
            Error::Rejected
            | Error::PatternTooLong { .. }
            | Error::PatternTooWide { .. }
            | Error::ResponseTooLarge { .. } => Class::Limit,
            Error::Promql(e) => e.class(),
            Error::Read(ReadError::Elsewhere { class, .. }) => *class,
            Error::Read(e) if e.is_limit() => Class::Limit,
            Error::TooLong { .. } | Error::QueryMemory { .. } => Class::Limit,
            Error::TooManyOutstanding { .. } => Class::Rate,
            Error::Read(ReadError::Canceled) | Error::Killed => Class::Canceled,
            Error::Read(ReadError::Chunk(_) | ReadError::Block(_)) => Class::Internal,
            Error::Read(_) | Error::Busy { .. } | Error::Memory | Error::MemoryOfAll { .. } => {
                Class::Overload
            }
            Error::Delete(DeleteError::TooMany(_) | DeleteError::Invalid(_)) => Class::Client,
            Error::Delete(_) | Error::Snapshot(_) => Class::Overload,
            Error::Timeout(_) => Class::Timeout,
            Error::Panicked | Error::Quarantined => Class::Internal,
        }
    }
}

impl Error {
    /// Which bound of the tenant it met, by the names of Cortex; `None` for whatever else went wrong.
    pub(crate) fn rejection(&self) -> Option<&'static str> {
        Some(match self {
            Error::TooManyOutstanding { .. } => "too_many_requests",
            Error::RangeTooLong { .. } | Error::TooLong { .. } => "time_range_exceeded",
            Error::ResponseTooLarge { .. } => "response_size_exceeded",
            Error::Rejected => "query_rejected",
            Error::PatternTooLong { .. } | Error::PatternTooWide { .. } => {
                "unoptimized_regex_matcher"
            }
            Error::QueryMemory { .. } => "resource_exhausted",
            Error::Read(ReadError::TooManySeries { .. }) => "series_fetched",
            Error::Read(ReadError::TooManyChunks { .. }) => "chunks_fetched",
            Error::Read(ReadError::TooManyBytes { .. }) => "chunk_bytes_fetched",
            Error::Read(ReadError::TooMuchData { .. }) => "data_bytes_fetched",
            Error::Promql(promql::Error::TooManySamples { .. }) => "too_many_samples",
            _ => return None,
        })
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
