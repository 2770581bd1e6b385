//! Buckets: where blocks outlive the node's disk. One trait, several stores, none of which is known above it.
//!
//! ```text
//! Bucket      keys to bytes: whole, by ranges, conditionally, in bulk, by prefix        bucket.rs
//! Filesystem  a directory, for one node or a mounted share of it                       filesystem.rs
//! Sim         in memory, with seeded faults, for tests of whoever uses a bucket        sim.rs
//! Metered     counts and times what passes through to another                          metered.rs
//! contract    what every store must do, for their tests                                contract.rs
//! probe       whether a store keeps its word about conditions                          probe.rs
//! ```
//!
//! S3 is a crate of its own (`storage/s3`), because what it needs takes minutes to build.
//!
//! Promise of every store: when a write has returned, the object is durable and the next read of its key, by whomever, sees it or a later one; a
//! reader never sees half an object; a key that was not written is not there. What a failed write left behind is undefined: the old object, or the new one.
//!
//! Calls block. Whoever calls has a thread for it (the uploader) or is a query worker with a deadline; a store bounds each request by its own timeouts.
//!
//! Deliberately absent: what the keys mean (`engine/longterm`).

#![forbid(unsafe_code)]

mod bucket;
pub mod contract;
mod error;
mod filesystem;
mod limits;
mod metered;
mod probe;
mod sim;

pub use bucket::{
    Body, Bucket, Condition, Etag, Listed, Listing, Object, Piece, Stat, check_key, list_all,
};
pub use error::Error;
pub use filesystem::Filesystem;
pub use limits::{KEY_BYTES_MAX, LIST_MAX, PIECES_MAX, WHOLE_BYTES_MAX};
pub use metered::Metered;
pub use probe::{Conditions, probe};
pub use sim::{Faults, Sim};

#[cfg(test)]
mod tests;
