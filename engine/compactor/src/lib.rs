//! Compaction: the blocks of a node become fewer, larger and smaller in sum, on one thread of low priority.
//!
//! 1. *Local merge*: the files that cores have cut become one file for each large tenant and shared ones for the small.
//! 2. *Over time*: what lies in the same window of 12 hours, then of a day, becomes one ([`Options::ranges`]).
//!
//! On the way pages are recoded with all effort, samples that are there twice (of copies, of cuts that overlap) are kept once, those logged later
//! winning, and what retention and deletions take away is left out. No answer changes by it.
//!
//! Promises: whatever ends the process, whenever, the next start finds each sample once, in the sources or in what was made of them
//! (`block::Catalog` has the rule); a reader finishes with the files it has begun with; memory is that of one series of all inputs and of the index of one tenant;
//! a source that is damaged keeps its own tenant's part where it is and nothing else from being merged; a full disk ends a run, not the node.
//!
//! Which files are shared and why: `docs/decisions/0010-compaction.md`.
//!
//! Deliberately absent: cutting and expiring whole files (`shard`'s keeper), buckets, and any knowledge of cores.

#![forbid(unsafe_code)]

mod deletions;
mod metrics;
mod options;
mod plan;
mod run;
mod thread;

pub use options::{Options, Place, Policy};
pub use run::{Compactor, Done, Error};
pub use thread::Compaction;

#[cfg(test)]
mod tests;
