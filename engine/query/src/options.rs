//! Bounds of the read path of a node.

use std::sync::Arc;
use std::time::Duration;

use longterm::Longterm;

use crate::inflight::Journal;
use crate::results::Shared as SharedResults;

/// Longest text of one query, in bytes, and of all selectors of a label or series request together. The parser has its own,
/// tighter bounds; this one keeps what we copy between threads small.
pub(crate) const TEXT_BYTES_MAX: usize = 2 << 20;

/// Selectors that are fetched at the same time; each takes one read in the mailbox of every core.
pub(crate) const SELECTORS_AT_ONCE: usize = 8;

/// How long a query text that made us panic is refused.
pub(crate) const QUARANTINE: Duration = Duration::from_secs(60);

/// Texts under quarantine at once; the oldest leaves first.
pub(crate) const QUARANTINED_MAX: usize = 256;

/// Stack of a thread that evaluates: a chain of a thousand operators is a tree a thousand deep. Virtual until used.
pub(crate) const STACK_BYTES: usize = 16 << 20;

/// How much nicer workers are than cores and gateway threads.
pub(crate) const NICENESS: i32 = 15;

/// Options of an [`crate::Engine`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that evaluate pieces of queries.
    pub workers: usize,
    /// Queries at work at once.
    pub concurrent_max: usize,
    /// Queries that may wait for their turn; further ones are refused.
    pub waiting_max: usize,
    /// Longest time of a query, waiting included.
    pub timeout: Duration,
    /// Samples that one query may hold; a tenant's own bound can only be lower.
    pub samples_max: u64,
    /// How long a sample counts as current.
    pub lookback: Duration,
    /// Step of a subquery that names none.
    pub subquery_step: Duration,
    /// While it is tight, large queries are refused.
    pub memory: shard::Memory,
    /// Bytes that all queries together may hold, answers that are still being sent included.
    pub memory_bytes_max: u64,
    /// Bytes of results of range queries that are kept; 0: none are.
    pub results_bytes_max: u64,
    /// Where these are kept for other processes too, and found when they have kept them.
    pub shared_results: Option<SharedResults>,
    /// Range queries are evaluated in pieces that end before multiples of it; zero: in one.
    pub split_interval: Duration,
    /// Start and end of range queries are moved down to multiples of their step.
    pub align: bool,
    /// Where queries at work are written down, for the case of a crash.
    pub journal: Option<Arc<dyn Journal>>,
    /// Blocks that are in a bucket.
    pub longterm: Option<Longterm>,
    /// A query that begins less than this ago does not look into the bucket; zero: all do.
    pub store_after: Duration,
    /// Series times steps from which on a query is worth being divided into shards, where its tenant has any.
    pub shard_cells_min: u64,
}

impl Options {
    /// The defaults of Cortex, with this many workers.
    pub fn new(workers: usize) -> Options {
        Options {
            workers,
            concurrent_max: 20,
            waiting_max: 100,
            timeout: Duration::from_secs(120),
            samples_max: 50_000_000,
            lookback: Duration::from_secs(300),
            subquery_step: Duration::from_secs(60),
            memory: shard::Memory::default(),
            memory_bytes_max: 1 << 30,
            results_bytes_max: 0,
            shared_results: None,
            split_interval: Duration::ZERO,
            align: false,
            journal: None,
            longterm: None,
            store_after: Duration::ZERO,
            shard_cells_min: SHARD_CELLS_MIN,
        }
    }
}

/// About five milliseconds of work; dividing it, with the threads, is a tenth of one.
const SHARD_CELLS_MIN: u64 = 1 << 18;

/// What a query may fetch while memory is tight: enough for a dashboard's panels, too little to matter (some 10 MB with labels).
pub(crate) const TIGHT_SERIES_MAX: u64 = 10_000;
/// See [`TIGHT_SERIES_MAX`].
pub(crate) const TIGHT_BYTES_MAX: u64 = 8 << 20;

const _: () = assert!(SELECTORS_AT_ONCE > 0 && QUARANTINED_MAX > 0);
