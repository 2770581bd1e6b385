//! The write-ahead log: one per core, and the moment of truth of a push.
//!
//! Promise: when [`Log::durable`] has reached the position at which a batch ended, the batch survives kill -9 and a power cut; and a replay hands out a
//! prefix of what was appended, in order, nothing else, or refuses to.
//!
//! ```text
//! <data>/wal/                         Lock, Manifest            manifest.rs, manifest/spread.rs
//!     owner                           Owner (of a directory that a manifest elsewhere names)
//!     g0000000001/core-000/           Log                       log.rs, log/commit.rs, log/spare.rs
//!         segment-0000000007          frames of records         frame.rs, group.rs, record.rs, samples.rs
//!         checkpoint-0000000007       Checkpoint                checkpoint.rs
//!                                     replay                    reader.rs, replay.rs, replay/run.rs
//!                                     survey                    replay/survey.rs
//! ```
//!
//! The format is drawn in `docs/formats/wal.md`, why it is one log per core with group commit in `docs/decisions/0003-one-wal-per-core-group-commit.md`.
//!
//! On the way of a sample this is step 8. The core appends a whole batch to the open group, submits, and goes on; what arrives while the disk is busy
//! becomes one commit. A tenant may be acknowledged when its samples are *written* (survives the process) instead of *durable* (survives the
//! machine): [`Log::submit`] takes what is wanted, [`Log::written`] and [`Log::durable`] tell.
//!
//! At start: [`Lock::take`], [`Manifest::read`], per core [`replay`] then [`Log::open`]. All I/O goes through the `reactor` handed in, so all of it runs in the simulation too.
//!
//! Deliberately absent: waiting for a position (the core's), what a checkpoint contains and when one is due (the core's), threads, clocks.

#![forbid(unsafe_code)]

mod checkpoint;
mod error;
mod frame;
mod group;
mod limits;
mod log;
mod manifest;
mod names;
mod options;
mod owner;
mod reader;
mod record;
mod replay;
mod samples;
mod tenants;
#[cfg(test)]
mod testing;

pub use checkpoint::{Checkpoint, CheckpointState};
pub use error::Error;
pub use limits::{
    DIRECTORIES_MAX, DIRECTORY_PATH_BYTES_MAX, GROUP_BYTES, QUEUE_GROUPS_MAX, RELAXED_SYNC_MS,
    SAMPLE_BYTES_MAX, SAMPLE_ROOM, SEGMENT_BYTES, SEGMENT_BYTES_FIRST, SERIES_REF_MAX,
    SPACE_RETRY_MS,
};
pub use log::{Health, Log, Progress, Stats};
pub use manifest::{
    Directory, Lock, Manifest, Spread, core_dir, create_dirs, generations, has_logs,
    newest_checkpoint, remove_generation, tree,
};
pub use options::{Options, TOKENS};
pub use owner::Owner;
pub use record::{
    ChunkRecord, Counts, LoggedSample, Record, SeriesRecord, StoredChunkRecord, TombstoneRecord,
};
pub use replay::{
    Between, CheckpointSeen, Flaw, Place, ReplayOptions, ReplayProgress, Replayed, Salvaged, See,
    SegmentRead, SegmentSeen, Sink, Surveyed, Tear, Use, replay, survey,
};
