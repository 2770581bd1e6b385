//! Skeleton; the owner replaces it and keeps the exports used by others.
#![forbid(unsafe_code)]
mod source;
pub use source::{Columns, Executor, Inline, Series, Source, SourceError};

/// A query, planned.
pub struct Plan;
