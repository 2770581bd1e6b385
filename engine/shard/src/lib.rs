//! The pinned cores: each owns a share of the series whole, from the mailbox over the log to the memtable.
//!
//! A core is one struct ([`core::Core`]), its loop is *select an event, apply it*. No locks, no async runtime, nothing shared but
//! the mailbox in front of it, published counters and the node-wide series counts (`quota`). Read on in this order:
//! `message` (what comes in and goes out), `mailbox`, `core`, `commit` (the promise on one screen), `release`, then `memtable`
//! and `index` (what is held), `chunkfile` (what has left memory), `cut` (what has left the head), `read`, `checkpoint`, `recovery`, and `cores` (threads, start, stop, health).
//!
//! Invariants: no reply leaves before the log is durable up to what it shows or acknowledges; a series belongs to one core
//! (`model::identity::core_of`); samples of one push on one core become visible together; a tenant's series are reachable only
//! through that tenant's index, and a key of another tenant is a dead key.

#![forbid(unsafe_code)]

mod changes;
mod checkpoint;
mod chunkfile;
mod commit;
mod core;
mod cores;
mod crew;
mod cut;
mod directories;
mod error;
mod health;
mod index;
pub mod limits;
mod mailbox;
mod memory;
mod memtable;
mod message;
mod metrics;
mod options;
mod pages;
mod purge;
mod quota;
mod read;
mod recovery;
mod release;
mod seen;
mod snapshot;
mod steps;
pub mod topology;

pub use changes::{Changes, History};
pub use chunkfile::ChunkAudit;
pub use chunkfile::bytes::{ChunkBytes, load_chunks};
pub use cores::{Cores, ReplayProgress, Started, Watch};
pub use cut::{deletions_directory, directory as blocks_directory};
pub use error::Error;
pub use health::Health;
pub use mailbox::{Mailboxes, Permits, Wake};
pub use memory::{HIGH_PERCENT, LOW_PERCENT, Memory};
pub use memtable::starts::Start;
pub use message::*;
pub use options::Options;
pub use quota::SeriesCounts;
pub use recovery::lock_data;
pub use snapshot::Snapshot;

#[cfg(test)]
mod tests;
