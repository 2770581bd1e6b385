//! Long-term storage: the blocks of a node in a bucket, whence they can be read when its disk has let them go.
//!
//! ```text
//! TenantIndex  which blocks of a tenant count, and which are to be deleted; an object of the bucket     index.rs
//! Indexes      those, cached; changed by compare-and-swap                                               indexes.rs
//! Uploader     blocks to the bucket, verified; then into the index; then off the disk                   uploader.rs, cleanup.rs
//! Lease        one writer, where a store has no compare-and-swap                                        lease.rs
//! Longterm     what readers see: blocks of the bucket that are not on this node                         reader.rs
//! Pages        pieces of them in caches, in memory and in memcached                                     pages.rs
//! fetch        their bytes: pieces side by side; whole indexes kept on the local disk                   fetch.rs
//! ```
//!
//! The keys and the index are drawn in `docs/formats/bucket.md`; how it works together in `docs/decisions/0012-long-term-storage.md`.
//!
//! Promises: an index names only what was in the bucket whole and verified before; of a sample that is in several blocks none is missing while one
//! of them takes the other's place; the local copy goes only when every tenant's index names the other one, looked at once more; whatever ends the
//! process, whenever, the next pass goes on, and nothing stays in the bucket that no index names for longer than the deletion delay.
//!
//! Deliberately absent: what is merged when (`compactor`), what the bytes of a bucket are (`objstore`), and any clock but the reactor's.

#![forbid(unsafe_code)]

mod cleanup;
mod deletions;
mod error;
mod fetch;
mod index;
mod indexes;
mod keys;
mod lease;
mod metrics;
mod options;
mod pages;
mod reader;
mod thread;
mod uploader;

pub use error::Error;
pub use index::{Deletion, Entry, TenantIndex};
pub use indexes::Indexes;
pub use options::Options;
pub use pages::{Caches, Pages};
pub use reader::{Longterm, Place, Tally};
pub use thread::Uploads;
pub use uploader::{Pass, Uploader};

#[cfg(test)]
mod tests;
