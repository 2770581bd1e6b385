//! What an operator can set, and what the compactor asks of whoever runs it.

use std::path::PathBuf;
use std::time::Duration;

use model::TenantId;
use reactor::IoMode;

/// How blocks are compacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The directory of the blocks.
    pub dir: PathBuf,
    /// Windows of time whose blocks become one, ascending, each a multiple of the one before.
    pub ranges: Vec<Duration>,
    /// How often it is looked for work. A file is left alone until it is as old as that, so that those of all cores are merged together.
    pub interval: Duration,
    /// How files are reached.
    pub io: IoMode,
    /// Bytes from which a tenant has a file of its own.
    pub own_file_bytes: u64,
    /// Bytes of small tenants that share a file, about.
    pub shared_file_bytes: u64,
}

/// From 8 MiB on a file of its own costs a tenant nothing that counts: two syncs and an open descriptor for a tenth of a second of writing. Below it,
/// 5,000 tenants of 200 series share some files a day where they would have had 15,000.
const OWN_FILE_BYTES: u64 = 8 << 20;

/// What a merge has to write again when it is interrupted, and what it needs of free space besides.
const SHARED_FILE_BYTES: u64 = 512 << 20;

impl Options {
    /// The defaults, over a directory of blocks.
    pub fn new(dir: PathBuf) -> Options {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        Options {
            dir,
            ranges: vec![hours(2), hours(12), hours(24)],
            interval: Duration::from_secs(300),
            io: IoMode::Auto,
            own_file_bytes: OWN_FILE_BYTES,
            shared_file_bytes: SHARED_FILE_BYTES,
        }
    }

    /// Checks the bounds; the error says what is wrong.
    pub fn validate(&self) -> Result<(), String> {
        let shown = || format!("{:?}", self.ranges);
        match self.ranges[..] {
            [] => return Err("there must be a block range".to_owned()),
            [first, ..] if first < Duration::from_secs(60) => {
                return Err(format!("block ranges of less than a minute: {}", shown()));
            }
            _ if self.ranges.len() > RANGES_MAX => {
                let count = self.ranges.len();
                return Err(format!("{count} block ranges are more than {RANGES_MAX}"));
            }
            _ => {}
        }
        let fits = |pair: &[Duration]| {
            pair[0] < pair[1] && pair[1].as_millis().is_multiple_of(pair[0].as_millis())
        };
        if !self.ranges.windows(2).all(fits) {
            let ranges = shown();
            return Err(format!(
                "block ranges must ascend, each a multiple of the one before: {ranges}"
            ));
        }
        if self.ranges.last().expect("not empty").as_millis() > i64::MAX as u128 / 4 {
            return Err(format!("a block range is too long: {}", shown()));
        }
        Ok(())
    }

    pub(crate) fn range_ms(&self, stage: usize) -> i64 {
        self.ranges[stage].as_millis() as i64
    }

    pub(crate) fn interval_ms(&self) -> i64 {
        i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Levels are bytes of the format, and nobody needs so many.
const RANGES_MAX: usize = 16;

/// What compaction has to know of tenants and of the machine.
pub trait Policy: Send {
    /// Milliseconds that are kept of a tenant, counted back from its newest sample.
    fn retention_ms(&self, tenant: &TenantId) -> i64;

    /// Bytes that are free where the blocks are, if that is known.
    fn free_bytes(&self) -> Option<u64>;

    /// The blocks of a tenant that a bucket has, whether they are on the disk or not; none where there is no bucket. `None`: it cannot be told now, so nothing of the tenant is merged.
    fn stored(&self, tenant: &TenantId) -> Option<Vec<Place>>;
}

/// Id of a block, its place in the order of logging, and the first and last time of a tenant in it.
pub type Place = (u128, u64, (i64, i64));
