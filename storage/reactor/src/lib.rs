//! One core's loop: files, timers, a doorbell and aligned buffers, in three worlds.
//!
//! Steps 8 and 9 of the way of a sample go through here: the log hands a write to its [`Reactor`],
//! goes on filling the next group, and finds the completion among the events of a later turn.
//! The style is submission and completion with tokens; there is no async and no callback, so that a
//! core stays one struct whose loop selects an event and applies it.
//!
//! - [`World::Uring`]: the `io-uring` crate directly; about one `io_uring_enter` per turn.
//! - [`World::Threads`]: `pread`/`pwritev2` on helper threads, for containers which block io_uring.
//! - [`World::Sim`]: a seeded machine ([`Sim`]) with disk, clock and chance, shared by the
//!   reactors of all its cores, which can be cut from power after any single operation.
//!
//! All three are always compiled, behind one struct; which one is real is told by
//! [`Reactor::world`] and, where it was not the wish, [`Reactor::fallback_reason`].
//!
//! Invariants: whoever submits a buffer loses it until the result brings it back, so no memory is
//! touched while the kernel uses it. A write is whole or failed. A failed write leaves its range
//! undefined, and a failed sync must never be retried. A file is closed only when none of its
//! operations are in flight.
//!
//! This is the crate with `unsafe`: in `buffer.rs` (aligned memory), `uring.rs` (the ring) and
//! `slice.rs` (two system calls that no safe crate offers).

mod bell;
mod blocking;
mod buffer;
mod error;
mod hub;
mod limits;
mod op;
mod probe;
mod reactor;
mod reader;
mod sim;
mod slice;
mod slots;
mod table;
mod threads;
mod time;
mod uring;
mod whole;
mod worlds;

pub use bell::Doorbell;
pub use buffer::Buffer;
pub use error::{Error, Failure};
pub use limits::{BUFFER_BYTES_MAX, DIRECT_ALIGNMENT, OPERATIONS_MAX, SECTOR_BYTES, TOGETHER};
pub use op::{Done, Entry, Event, File, Op, OpKind, OpResult, OpenMode, Stat};
pub use probe::Probe;
pub use reactor::{IoMode, Options, Reactor, Stats, TOKENS_MAX, World};
pub use reader::Reader;
pub use sim::{Fault, OpView, Sim, SimOptions};
pub use slice::TimeSlice;
pub use slots::{SLOT_BYTES, SLOTS_MAX, SlotFile};
pub use time::Tick;
pub use worlds::{Place, for_each_world};

#[cfg(test)]
mod tests;
