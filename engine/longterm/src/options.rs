//! What an operator can set.

use std::path::PathBuf;
use std::time::Duration;

use reactor::IoMode;

/// How blocks go to the bucket and come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The directory of the node's blocks.
    pub dir: PathBuf,
    /// How often it is looked for something to upload.
    pub interval: Duration,
    /// What was cut and has not been merged is uploaded all the same when it is as old as this: then nobody merges.
    pub unmerged_after: Duration,
    /// An uploaded block leaves the disk when its samples and its file are as old as this. Zero: only with retention.
    pub local_retention: Duration,
    /// How long an object that no longer counts stays, for readers that began before.
    pub deletion_delay: Duration,
    /// How often it is looked for what has expired or is to be deleted.
    pub cleanup_interval: Duration,
    /// How often all objects are listed, to find those that nothing names.
    pub sweep_interval: Duration,
    /// An index that somebody else may have changed is read again when it is as old as this.
    pub index_age: Duration,
    /// Bytes of tenants' indexes in memory.
    pub index_bytes: usize,
    /// This node, in the lease.
    pub node: String,
    /// How files are reached.
    pub io: IoMode,
}

impl Options {
    /// The defaults, over a directory of blocks.
    pub fn new(dir: PathBuf) -> Options {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Options {
            dir,
            interval: minutes(1),
            unmerged_after: minutes(60),
            local_retention: Duration::ZERO,
            deletion_delay: minutes(12 * 60),
            cleanup_interval: minutes(15),
            sweep_interval: minutes(24 * 60),
            index_age: minutes(15),
            index_bytes: 64 << 20,
            node: "myelin".to_owned(),
            io: IoMode::Auto,
        }
    }
}

/// As a number that arithmetic on times can take.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
