//! Every bound of this crate, with the sum that led to it and what happens when it is met.

/// Bytes of pushes that may wait for or be in a commit on one core; more is answered 503. At 5 M samples a second and 16 bytes
/// a sample a core eats 80 MB/s, so the default is under a second of queue: beyond that a sender had better wait itself.
pub const QUEUE_BYTES_DEFAULT: u64 = 64 << 20;

/// Reads that may wait for or run on one core; more is answered 503. Each costs the core its message only while it waits.
pub const READS_MAX_DEFAULT: u32 = 1024;

/// Reads that gather at the same time; further ones wait in order. More would not finish any of them sooner, and every commit
/// has to look whether its series are still to be gathered by one of them.
pub const GATHERS_MAX: usize = 8;

/// Series that a read visits before the core looks at its mailbox again: at 1-2 us a series (seal a copy of the open chunk,
/// build the labels) a slice stays below a millisecond.
pub const READ_SLICE_SERIES: usize = 256;

/// Label values that a read tests against a regular expression in a slice: at 50-100 ns each a slice stays below half a
/// millisecond.
pub const SCAN_SLICE_VALUES: usize = 4096;

/// Rows that a checkpoint looks at in a slice.
pub const CHECKPOINT_SLICE_ROWS: usize = 512;

/// Bytes that a checkpoint encodes in a slice: a third of a millisecond of copying and checksums.
pub(crate) const CHECKPOINT_SLICE_BYTES: usize = 512 << 10;

/// Rows that the collection of old data looks at in a slice.
pub const GC_SLICE_ROWS: usize = 1024;

/// How far the newest sample of a tenant is behind a multiple of [`CUT_MS`] when the chunks before it are cut. Source: Prometheus, half a chunk range; late samples
/// find their chunks open until then.
pub const CUT_LAG_MS: i64 = CUT_MS / 2;

/// A tenant that has pushed nothing to a core for so long, by the wall clock, is cut there whole: its samples push no boundary any more. Also the least time between two
/// cuts of a core for such tenants alone, since a cut costs a walk over all series and a checkpoint.
pub const CUT_IDLE_MS: i64 = CUT_MS / 2;

/// Series of one file of a cut, and bytes of memory that their labels and places take: two dozen MiB, and as much again while the file's index is made.
/// Larger cores write several files.
pub(crate) const CUT_BATCH_SERIES: usize = 64 << 10;
/// See [`CUT_BATCH_SERIES`].
pub(crate) const CUT_BATCH_BYTES: usize = 24 << 20;

/// Seconds from a failed cut to the next that is not asked for.
pub(crate) const CUT_RETRY_S: u64 = 60;

/// Samples after which an open chunk is sealed. Source: Prometheus; more saves little (the chunk's header is 7 bytes) and
/// makes reads of short ranges decode more.
pub const CHUNK_SAMPLES_DEFAULT: u16 = 120;

/// Bytes of an open chunk of native histograms before it is sealed, unless a single one is larger: histograms take tens of bytes each, and a
/// chunk has to fit into a record of the log, which may be as small as 8 KiB.
pub(crate) const HISTOGRAM_CHUNK_BYTES: usize = 7 << 10;

/// Chunks never cross a multiple of this much sample time, so that blocks of two hours hold whole chunks.
pub const CUT_MS: i64 = 2 * 3600 * 1000;

/// Sample time over which the first ends of chunks are spread (`memtable::first_cut_after`). With [`FIRST_CHUNK_MS`] it is what 120 samples at 15 s take: were it
/// more, those with a later end would be full together. Where series are scraped more often, some are.
pub const CHUNK_SPREAD_MS: i64 = 25 * 60 * 1000;

/// The least time to such an end: a chunk of a few samples is not worth its place in the list.
pub const FIRST_CHUNK_MS: i64 = 5 * 60 * 1000;

/// How far ahead of the wall clock a sample can move the horizon of its tenant: one sample of the year 3000 must not make
/// everything else look old. The same ten minutes as Cortex' `creation_grace_period`.
pub const FUTURE_GRACE_MS: i64 = 10 * 60 * 1000;

/// Series whose newest sample is behind the horizon stay this long after their last write, wall time: a first sample may be of
/// any age, and what was just acknowledged must be readable for a while.
pub const OLD_SERIES_LINGER_S: u32 = 3600;

/// A series that was written within this time, wall time, is active. Source: Cortex `-ingester.active-series-metrics-idle-timeout`.
pub const ACTIVE_S: u32 = 600;

/// Series that were not written for this long, wall time, give their open chunk away: half an hour, longer than any usual scrape interval, for a series that
/// comes back costs its sender's gateway a walk over its labels.
pub const PARK_AFTER_S: u32 = 1800;

/// Series that are in blocks and were not written for this long, wall time, leave with the exemplars that are kept of them, where no retention would
/// ever let them go.
pub(crate) const EXEMPLARS_LINGER_S: u32 = 86_400;

/// Late samples that a series may have in memory before they are closed: as many as in Prometheus. A buffer takes 512 bytes then, and a chunk of
/// as many samples some 80 in the chunk file.
pub(crate) const LATE_SAMPLES_MAX: usize = 32;

/// The same of native histograms, of a kilobyte each.
pub(crate) const LATE_HISTOGRAMS_MAX: usize = 8;

/// Chunks of late samples that a series may have until a cut moves them: 131,072 samples, 112 KB. Senders are asked to come again then.
pub(crate) const LATE_CHUNKS_MAX: usize = 4096;

/// Chunks of late samples of one tenant and core at which a cut is due: two megabytes of lists, half a million samples or more. Else they wait for the next one.
pub(crate) const LATE_CUT_CHUNKS: usize = 64 << 10;

/// What admitting a late sample counts for in the budget of a turn, in samples in order: it is looked for among those of its time.
pub(crate) const LATE_COST: usize = 20;

/// Late samples of one record of the log: it fits into any group.
pub(crate) const LATE_RECORD_SAMPLES: usize = 128;

/// Closed chunks that a slice of a deletion reads and writes anew: 2 to 4 ms where their file is cached.
pub(crate) const PURGE_SLICE_READS: usize = 64;

/// Deletions that may wait for their turn on a node; more is refused.
pub(crate) const DELETES_WAITING_MAX: usize = 16;

/// Snapshots that may be under way or wait for their turn on a node; more is refused.
pub(crate) const SNAPSHOTS_WAITING_MAX: usize = 2;

/// Seconds between two collections of old data.
pub const GC_INTERVAL_S: u64 = 60;

/// Log growth that starts a checkpoint (or the size of the last checkpoint, where that is more: so a checkpoint's bytes are never
/// more than the log's).
pub const CHECKPOINT_LOG_BYTES_DEFAULT: u64 = 256 << 20;

/// Numbers of series that have left, and may not be given out again until two checkpoints have been written without them: where there are more than these, and more
/// than series that live, a collection asks for one. Their rows are memory.
pub(crate) const RETIRED_CHECKPOINT: usize = 1 << 16;

/// Samples that a turn of the loop commits before it looks at the disk and at reads again: 2 to 5 ms. New series count for more (`commit`).
pub(crate) const COMMIT_SAMPLES_MAX: usize = 50_000;

/// A turn of the loop that takes longer than this is counted as a stall.
pub(crate) const STALL_MS: u64 = 20;

/// How many known samples ahead a row is asked for: at 15 to 20 ns a sample some 300 ns, a miss of all caches. More does not
/// help: a core of today has 16 to 24 misses under way at once, and a row is two of them.
pub(crate) const ROWS_AHEAD: usize = 16;

/// How many known samples ahead the buffer of a chunk is asked for; its address is in the row, which has come by then.
pub(crate) const WORDS_AHEAD: usize = 6;

/// Bytes of a chunk file: small enough that a file goes soon after its last chunk, large enough that a day of a million series is 140 of them.
pub const CHUNK_FILE_BYTES_DEFAULT: u32 = 64 << 20;

/// Bytes of a block of closed chunks, the unit of writing: about 800 chunks, so that a write costs each of them some 10 ns.
pub(crate) const CHUNK_BLOCK_BYTES: usize = 128 << 10;

/// Bytes of closed chunks that may wait for the disk; beyond, pushes wait too (or are refused where the disk is full).
pub(crate) const CHUNK_PENDING_BYTES_MAX: usize = 8 << 20;

/// Bytes written to a chunk file before it is synced: what a checkpoint may have to wait for.
pub(crate) const CHUNK_SYNC_BYTES: u64 = 4 << 20;

/// Closed chunks that a core reads itself in a turn, to compare old samples with what is stored: 1 to 2 ms where the file is cached.
pub(crate) const CHUNK_LOOKUPS_MAX: u32 = 256;

const _: () = assert!(GATHERS_MAX < READS_MAX_DEFAULT as usize);
const _: () = assert!(WORDS_AHEAD < ROWS_AHEAD);
const _: () = assert!(LATE_RECORD_SAMPLES * wal::SAMPLE_BYTES_MAX + wal::SAMPLE_ROOM < 4096);
const _: () = assert!(CUT_MS % 1000 == 0 && CUT_MS > 0);
const _: () = assert!(FIRST_CHUNK_MS + CHUNK_SPREAD_MS < CUT_MS && FIRST_CHUNK_MS > 0);
// The span of a chunk is kept in 32 bits.
const _: () = assert!(CUT_MS < u32::MAX as i64);
const _: () = assert!(CHUNK_BLOCK_BYTES * 8 <= CHUNK_FILE_BYTES_DEFAULT as usize);
const _: () = assert!(CHUNK_SAMPLES_DEFAULT > 1);
const _: () = assert!(CUT_LAG_MS > 0 && CUT_BATCH_SERIES <= block::SERIES_MAX as usize);
