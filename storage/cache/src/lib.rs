//! Caches of bytes: what can be had again, kept nearer.
//!
//! ```text
//! Cache      keys to bytes: asked for several at once, told what to keep     lib.rs, key.rs
//! Memory     in this process, bounded in bytes                               memory.rs
//! Memcached  in servers that several processes share                         memcached.rs
//! Tiers      one before the other                                            tiers.rs
//! Metrics    what all of them are watched by, under the names of Cortex      metrics.rs
//! ```
//!
//! Promise: what comes out is what somebody put in under the very same key, or nothing. A cache that is dead, slow, empty, full, or that answers
//! something else costs time within the bounds of its options, never an answer: each value says whose it is and carries a checksum
//! ([`sealed`]), and every failure is a miss.
//!
//! So a key must name everything that decides the value, the tenant before all, and a value that can become wrong must say itself until when it
//! is right: a cache forgets when it likes, and does not forget when it is told to.
//!
//! Deliberately absent: deleting, and anything that must be seen by the next reader.

#![forbid(unsafe_code)]

mod key;
mod memcached;
mod memory;
mod metrics;
pub mod sealed;
mod tiers;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use key::Key;
pub use memcached::{Address, Memcached, Options};
pub use memory::Memory;
pub use metrics::{Metrics, Named};
pub use tiers::Tiers;

/// What is kept under a key.
pub type Value = Arc<[u8]>;

/// What was found, in the order of the keys; to be awaited.
pub type Later<'a> = Pin<Box<dyn Future<Output = Vec<Option<Value>>> + Send + 'a>>;

/// See the crate.
pub trait Cache: Send + Sync + fmt::Debug {
    /// What is kept under these keys, in their order. Waits, within the bounds of the cache: not for a thread that serves others meanwhile.
    fn get(&self, keys: &[Key]) -> Vec<Option<Value>>;

    /// The same for a task.
    fn get_later(&self, keys: Vec<Key>) -> Later<'_>;

    /// Keeps values, at most for that long where it is not zero. Never waits; what there is no room for is dropped and counted.
    fn set(&self, entries: Vec<(Key, Value)>, ttl: Duration);
}
