//! What crosses the mailbox into a core, and what comes back.
//!
//! A gateway thread builds one [`Push`] per body and core. Its columns are flat vectors, so that a message is a handful of
//! allocations however many samples it carries, and the core reads them in order. Native histograms and exemplars travel beside the
//! columns, each with its place among them.
//! Replies are closures: the core knows neither runtimes nor sockets. A reply runs on the core's thread and must only hand over.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::cut::write::Outcome;
use crate::purge::Purge;
use crate::snapshot::Snapshot;
use crate::{ChunkBytes, Start};
use model::{
    Class, Exemplar, HistogramSample, Labels, Matcher, Projection, SeriesId, SeriesKey, TenantId,
    TenantLimits, Windows,
};

/// All that is sent to a core.
pub enum Message {
    /// Samples of one body.
    Push(Push),
    /// Chunks or label sets of the series that match.
    Select(Select),
    /// Names or values of labels.
    Labels(LabelQuery),
    /// Counts for the admin pages.
    Stats(StatsQuery),
    /// What labels there are, and how many series have them.
    Cardinality(CardinalityQuery),
    /// How many series matchers would select, without looking at any.
    Estimate(EstimateQuery),
    /// A checkpoint now, for shutdown and tests; answered when it is durable.
    Checkpoint(Box<dyn FnOnce(Result<(), String>) + Send>),
    /// Writes what the core holds into blocks.
    Flush(Flush),
    /// Deletes on all cores and in the blocks of the node, whichever core it is sent to.
    Delete(Delete),
    /// Makes a snapshot of the node, whichever core it is sent to.
    Snapshot(Snapshot),
    /// What the keeper asks of a core for that.
    #[doc(hidden)]
    Purge(PurgeOrder),
    /// How long tenants keep their samples, from now on, also those that do not push.
    Retentions(Arc<Retentions>),
    /// How many exemplars tenants may have, from now on, also those that do not push.
    ExemplarsMax(Arc<ExemplarsMax>),
    /// What the keeper answers to a core.
    #[doc(hidden)]
    Blocks(BlockNews),
    /// Finish what is queued, sync, stop the loop. Answered last.
    Stop(Box<dyn FnOnce() + Send>),
}

/// See [`Message::Flush`].
pub struct Flush {
    /// Of whom; of all where nobody is named.
    pub tenants: Vec<TenantId>,
    /// Answered when it is done, or why it is not.
    pub reply: Box<dyn FnOnce(Result<(), String>) + Send>,
}

impl Flush {
    /// Of all tenants.
    pub fn all(reply: Box<dyn FnOnce(Result<(), String>) + Send>) -> Flush {
        Flush {
            tenants: Vec::new(),
            reply,
        }
    }
}

/// How long the samples of tenants are kept that differ from [`crate::Options::retention`], milliseconds.
pub type Retentions = HashMap<TenantId, i64>;

/// How many exemplars a tenant may have on all cores of a node together.
#[derive(Debug)]
pub struct ExemplarsMax {
    /// Of whom nothing else is said.
    pub usual: u32,
    /// Tenants that differ.
    pub own: HashMap<TenantId, u32>,
}

impl Default for ExemplarsMax {
    /// As many as they want.
    fn default() -> ExemplarsMax {
        ExemplarsMax {
            usual: u32::MAX,
            own: HashMap::new(),
        }
    }
}

impl ExemplarsMax {
    /// A core's share of them.
    pub(crate) fn of(&self, tenant: &TenantId, cores: u16) -> usize {
        let own = self.own.get(tenant);
        exemplars_share(own.copied().unwrap_or(self.usual), cores)
    }
}

/// A core's share of the exemplars that a tenant may have.
pub(crate) fn exemplars_share(all: u32, cores: u16) -> usize {
    all.div_ceil(u32::from(cores.max(1))) as usize
}

/// Nothing that a gateway could make: answers of the keeper to a core's cut.
pub struct BlockNews(pub(crate) Outcome);

/// Nothing that a gateway could make: a deletion's share of a core.
pub struct PurgeOrder(pub(crate) Purge);

/// Deletes what a tenant has of some series in a range of times, as far as it was stored before.
pub struct Delete {
    /// Whose.
    pub tenant: TenantId,
    /// A series that passes all matchers of one of them is meant. A single selector without matchers: all series, the tenant.
    pub selectors: Arc<[Arc<[Matcher]>]>,
    /// Milliseconds, inclusive.
    pub min_time: i64,
    /// Milliseconds, inclusive.
    pub max_time: i64,
    /// The tenant is deleted, not some of its series.
    pub whole_tenant: bool,
    /// Set when nobody waits any more: it does not begin then.
    pub canceled: Arc<AtomicBool>,
    /// Called once: when all that will be found deleted after any crash is; with the id of the request.
    pub reply: Box<dyn FnOnce(Result<u128, DeleteError>) + Send>,
}

/// Why a deletion is not done. A part of it may be; asking again is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// The tenant has as many deletions as it may that still apply to blocks.
    #[error(
        "there are {0} deletions that are not physical yet, as many as there may be: wait until blocks have been compacted, or ask for fewer with wider selectors"
    )]
    TooMany(usize),
    /// The selectors cannot be kept.
    #[error("{0}")]
    Invalid(String),
    /// The state of the node, or of its disk.
    #[error("{0}")]
    Unavailable(String),
}

/// Samples of one body for one core, all of one tenant.
pub struct Push {
    /// Whose.
    pub tenant: TenantId,
    /// In force when the body came.
    pub limits: Arc<TenantLimits>,
    /// Samples of series that an alias knew.
    pub known: KnownSamples,
    /// Samples of series that come with their labels.
    pub fresh: FreshSamples,
    /// What is not a float.
    pub others: OtherSamples,
    /// Bytes credited for this message; given back to the mailbox with the reply.
    pub credits: u32,
    /// Called once: when the log is durable up to this push (or, in relaxed mode, written), or when it was refused.
    pub reply: Box<dyn FnOnce(PushOutcome) + Send>,
}

/// Columns of equal length, in the order of the body.
#[derive(Debug, Default)]
pub struct KnownSamples {
    /// Which series.
    pub keys: Vec<SeriesKey>,
    /// Milliseconds.
    pub times: Vec<i64>,
    /// Values.
    pub values: Vec<f64>,
}

/// Series with labels, and their samples as columns.
#[derive(Debug, Default)]
pub struct FreshSamples {
    /// One entry per series object of the body.
    pub series: Vec<FreshSeries>,
    /// Packed labels of all series, back to back (canonical, checked by the gateway).
    pub labels: Vec<u8>,
    /// Milliseconds.
    pub times: Vec<i64>,
    /// Values.
    pub values: Vec<f64>,
}

/// One series of [`FreshSamples`].
#[derive(Debug, Clone, Copy)]
pub struct FreshSeries {
    /// Its identity.
    pub id: SeriesId,
    /// End of its packed labels in `labels`; they begin where those of the series before end.
    pub labels_end: u32,
    /// End of its samples in the columns; they begin where those of the series before end.
    pub samples_end: u32,
}

/// What series have beside float samples. Bodies without such things leave both lists empty, and nothing is spent on them.
#[derive(Debug, Default)]
pub struct OtherSamples {
    /// Of series that an alias knew; `before` ascends.
    pub known: Vec<OtherSample<SeriesKey>>,
    /// Of entries of [`FreshSamples::series`], by index; index and `before` ascend.
    pub fresh: Vec<OtherSample<u32>>,
}

impl OtherSamples {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.fresh.is_empty()
    }

    /// Bytes that the lists keep in memory.
    pub fn bytes(&self) -> usize {
        let values = self.known.iter().map(|other| &other.value);
        let values = values.chain(self.fresh.iter().map(|other| &other.value));
        let held: usize = values.map(OtherValue::heap_bytes).sum();
        held + self.known.len() * size_of::<OtherSample<SeriesKey>>()
            + self.fresh.len() * size_of::<OtherSample<u32>>()
    }
}

/// Something of a series that is no float.
#[derive(Debug)]
pub struct OtherSample<S> {
    /// Whose.
    pub series: S,
    /// It comes before the float sample with this index into the columns, so that a series is stored in the order of its times.
    pub before: u32,
    /// Milliseconds.
    pub time: i64,
    /// What.
    pub value: OtherValue,
}

/// What a series has at a time.
#[derive(Debug)]
pub enum OtherValue {
    /// A native histogram, its spans and counts checked against each other.
    Histogram(Box<HistogramSample>),
    /// An exemplar.
    Exemplar(Box<Exemplar>),
    /// When the counter of the sample at this time began.
    Start(CounterStart),
}

/// See [`OtherValue::Start`].
#[derive(Debug)]
pub struct CounterStart {
    /// Milliseconds.
    pub start: i64,
    /// What to store at the start, if that is news and in order.
    pub zero: Zero,
}

/// A sample that stands for a counter that has just begun.
#[derive(Debug)]
pub enum Zero {
    /// None: the start is only kept.
    None,
    /// Of a series of floats.
    Float,
    /// A histogram without observations.
    Histogram(Box<HistogramSample>),
}

impl OtherValue {
    fn heap_bytes(&self) -> usize {
        match self {
            OtherValue::Histogram(histogram) => histogram.heap_bytes(),
            OtherValue::Exemplar(exemplar) => {
                size_of::<Exemplar>() + exemplar.labels.packed().len()
            }
            OtherValue::Start(start) => match &start.zero {
                Zero::Histogram(histogram) => histogram.heap_bytes(),
                Zero::None | Zero::Float => 0,
            },
        }
    }
}

/// What became of a push.
#[derive(Debug, Default)]
pub struct PushOutcome {
    /// Set when the whole push was refused by the state of the node; nothing else is meaningful then.
    pub refused: Option<Refusal>,
    /// Float samples stored.
    pub stored: u32,
    /// Samples of either kind that were there already, with the same value.
    pub repeated: u32,
    /// Of both kinds that were stored: older than the newest of their series.
    pub late: u32,
    /// Native histograms stored.
    pub histograms: u32,
    /// Native histograms among those that were there already.
    pub histograms_repeated: u32,
    /// Exemplars stored, or there already as the newest of their series.
    pub exemplars: u32,
    /// Starts of counters that were not kept: before one that is known, behind their sample, or of an old one. Nobody gets an error for them.
    pub starts_ignored: u32,
    /// Exemplars dropped, per reason. Nobody gets an error for them.
    pub exemplars_dropped: Vec<(&'static str, u32)>,
    /// Samples refused, per reason, those of known series apart from those of series with labels; the first of each is described.
    pub rejected: Vec<Rejection>,
    /// Indexes into `known` whose key is dead: nothing was stored for them, send labels.
    pub dead: Vec<u32>,
    /// Indexes into `others.known` whose key is dead.
    pub dead_others: Vec<u32>,
    /// The key of each entry of `fresh.series`, in order; `None` where the series was refused.
    pub keys: Vec<Option<SeriesKey>>,
    /// Positions in `fresh.series` of those that were refused as series, and why.
    pub refused_series: Vec<(u32, RejectReason)>,
}

/// All samples of a push refused for one reason: of the series that an alias knew, or of those that came with their labels.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// Why.
    pub reason: RejectReason,
    /// How many samples.
    pub count: u32,
    /// The first of them: labels, time and value.
    pub first: (Labels, i64, f64),
    /// For limits: the number in force.
    pub limit: u64,
    /// Index of the first one: position in `known`, or `known.len()` plus position in `fresh`, or both plus position in
    /// `others.known`.
    pub first_index: u32,
}

/// Why a core refuses a sample. [`RejectReason::name`] is the metric's label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// Older than the newest of its series, and not there yet; the tenant has no window for late samples.
    OutOfOrder,
    /// Older than the window of late samples behind the newest of its series.
    TooOld,
    /// Older than what is kept at all.
    OutOfBounds,
    /// Same time, other value.
    NewValueForTimestamp,
    /// The tenant has as many series as it may.
    PerUserSeriesLimit,
    /// The metric has as many series as it may.
    PerMetricSeriesLimit,
    /// The labels of the series are larger than a record of the log.
    LabelsTooLarge,
    /// The process has no memory for a new series, or for late samples of one, now; a repeat may be taken.
    NoMemory,
    /// A histogram that is larger than a record of the log may be.
    HistogramTooLarge,
}

impl RejectReason {
    /// As in `cortex_discarded_samples_total{reason=..}`. Source: Cortex; the mix of dashes and underscores is theirs.
    pub fn name(self) -> &'static str {
        match self {
            RejectReason::OutOfOrder => "sample-out-of-order",
            RejectReason::TooOld => "sample-too-old",
            RejectReason::OutOfBounds => "sample-out-of-bounds",
            RejectReason::NewValueForTimestamp => "new-value-for-timestamp",
            RejectReason::PerUserSeriesLimit => "per_user_series_limit",
            RejectReason::PerMetricSeriesLimit => "per_metric_series_limit",
            RejectReason::LabelsTooLarge => "labels_size_bytes_exceeded",
            RejectReason::NoMemory => "memory_limit",
            RejectReason::HistogramTooLarge => "native_histogram_sample_size_bytes_exceeded",
        }
    }
}

/// The node cannot take a push or a read now. All are 503 with `Retry-After`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The mailbox of a core is full.
    #[error("core {0} is at its queue limit")]
    QueueFull(u16),
    /// The log cannot take space for its next segment.
    #[error("no space for the write-ahead log: {0}")]
    NoSpace(String),
    /// A write or sync failed; the node refuses writes until it is restarted.
    #[error("the write-ahead log of core {core} failed: {reason}")]
    Poisoned {
        /// Which core.
        core: u16,
        /// The error.
        reason: String,
    },
    /// The process is at its memory limit: no new series, no large queries.
    #[error("the node is at its memory limit, new series are refused")]
    NoMemory,
    /// The node is going down.
    #[error("shutting down")]
    Stopping,
    /// The node that holds the series does not take it: which, and why.
    #[error("{0}")]
    Elsewhere(String),
}

/// Takes memory for what a read is about to hand over, in bytes; false when there is none, and the read ends with
/// [`ReadError::NoMemory`]. Called once a slice.
pub type Hold = Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// Reads series.
pub struct Select {
    /// Whose.
    pub tenant: TenantId,
    /// All must match.
    pub matchers: Arc<[Matcher]>,
    /// Milliseconds, inclusive: only series with a chunk that overlaps, and only those chunks.
    pub min_time: i64,
    /// Milliseconds, inclusive.
    pub max_time: i64,
    /// Labels alone, or chunks too.
    pub with_chunks: bool,
    /// Which labels; only [`SelectedSeries::labels`] depends on it.
    pub projection: Projection,
    /// Of each series only the newest sample at or before `max_time` matters; older ones may be missing.
    pub newest: bool,
    /// Of each series only samples in these windows matter; others may be missing.
    pub windows: Option<Windows>,
    /// Instead of chunks: the exemplars within the range; series without any are no part of the result.
    pub with_exemplars: bool,
    /// Also series of which memory only keeps in mind what is in blocks: for who counts those in memory, and asks no block.
    pub with_moved: bool,
    /// The starts of counters too; series without any are no part of the result.
    pub with_starts: bool,
    /// Stop with an error beyond this many series on this core; 0 is unlimited.
    pub series_max: u64,
    /// Stop with an error beyond this many chunks on this core; 0 is unlimited.
    pub chunks_max: u64,
    /// Stop with an error beyond this many chunk bytes on this core; 0 is unlimited.
    pub bytes_max: u64,
    /// Stop with an error beyond this many bytes of labels and chunks on this core; 0 is unlimited.
    pub data_bytes_max: u64,
    /// Where memory comes from.
    pub hold: Hold,
    /// Set when nobody waits any more; looked at between slices.
    pub canceled: Arc<AtomicBool>,
    /// Called once, when the log is durable up to what was seen.
    pub reply: Box<dyn FnOnce(Result<Vec<SelectedSeries>, ReadError>) + Send>,
}

/// One series of a read.
#[derive(Debug, Clone)]
pub struct SelectedSeries {
    /// Its identity.
    pub id: SeriesId,
    /// Those of its labels that were asked for.
    pub labels: Labels,
    /// In the order of their first times; those of late samples may overlap others ([`ChunkBytes::order`]).
    pub chunks: Vec<ChunkSlice>,
    /// In the order of their times.
    pub exemplars: Vec<Exemplar>,
    /// In the order of their times.
    pub starts: Vec<Start>,
}

/// A chunk: of closed ones the place where they lie, of open ones a copy.
#[derive(Debug, Clone)]
pub struct ChunkSlice {
    /// First sample's time.
    pub min_time: i64,
    /// Last sample's time, or the end of what was asked for: later samples of these bytes are not part of the answer.
    pub max_time: i64,
    /// Sealed bytes as of `chunk`, checksum included, for open and closed chunks alike; those of closed ones may lie in a file.
    pub bytes: ChunkBytes,
}

/// Reads names of labels, or values of one; each once, in no order.
pub struct LabelQuery {
    /// Whose.
    pub tenant: TenantId,
    /// `None`: names. `Some`: the values of that label.
    pub name: Option<String>,
    /// Only of series that match all of them; may be empty.
    pub matchers: Arc<[Matcher]>,
    /// Milliseconds, inclusive.
    pub min_time: i64,
    /// Milliseconds, inclusive.
    pub max_time: i64,
    /// Where memory comes from.
    pub hold: Hold,
    /// See [`Select::canceled`].
    pub canceled: Arc<AtomicBool>,
    /// Called once.
    pub reply: Box<dyn FnOnce(Result<Vec<String>, ReadError>) + Send>,
}

/// Asks what labels a tenant has, and how many series each.
///
/// Series that have died since the last collection may still be counted.
pub struct CardinalityQuery {
    /// Whose.
    pub tenant: TenantId,
    /// Only these names; all where there is none.
    pub names: Vec<String>,
    /// Where memory comes from.
    pub hold: Hold,
    /// See [`Select::canceled`].
    pub canceled: Arc<AtomicBool>,
    /// Called once.
    pub reply: Box<dyn FnOnce(Result<Cardinality, ReadError>) + Send>,
}

/// The labels of one tenant on one core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cardinality {
    /// Series in memory.
    pub series: u64,
    /// Their chunks, open ones included.
    pub chunks: u64,
    /// Oldest sample's time, `i64::MAX` without samples.
    pub min_time: i64,
    /// Newest sample's time, `i64::MIN` without samples.
    pub max_time: i64,
    /// In no order.
    pub names: Vec<NameCardinality>,
}

/// The values of one label; all texts in one buffer, since there may be millions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameCardinality {
    /// The label's name.
    pub name: String,
    /// The texts of its values, one behind the other.
    pub text: String,
    /// For each value where its text ends, and how many series have it.
    pub values: Vec<(usize, u32)>,
}

/// Asks how many series matchers would select.
pub struct EstimateQuery {
    /// Whose.
    pub tenant: TenantId,
    /// All must match.
    pub matchers: Arc<[Matcher]>,
    /// Called once.
    pub reply: Box<dyn FnOnce(Result<Estimate, ReadError>) + Send>,
}

/// What the index says without looking at any series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// At most this many series match: those of the rarest label that a matcher asks for.
    pub candidates: u64,
    /// Values of labels that have to be tested against regular expressions.
    pub scanned_values: u64,
    /// All series of the tenant.
    pub series: u64,
}

/// Asks for counts.
pub struct StatsQuery {
    /// One tenant, or all.
    pub tenant: Option<TenantId>,
    /// Called once, when the log is durable up to what is told.
    pub reply: Box<dyn FnOnce(Result<Vec<TenantStats>, ReadError>) + Send>,
}

/// Counts of one tenant on one core.
#[derive(Debug, Clone)]
pub struct TenantStats {
    /// Whose.
    pub tenant: TenantId,
    /// Series in memory.
    pub series: u64,
    /// Series in memory that were written lately.
    pub active: u64,
    /// Blocks on the disk of the node that have something of it. Cores do not know: whoever asks them adds it, to one of them.
    pub blocks: u64,
    /// Samples stored since start.
    pub samples: u64,
    /// Oldest sample's time in memory, `i64::MAX` without samples.
    pub min_time: i64,
    /// Newest sample's time, `i64::MIN` without samples.
    pub max_time: i64,
}

/// Why a read has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// More series than allowed.
    #[error(
        "the query hit the max number of series limit (limit: {limit} series, at least {found} found; \
         max_fetched_series_per_query)"
    )]
    TooManySeries {
        /// In force.
        limit: u64,
        /// When the bound was met.
        found: u64,
    },
    /// More chunks than allowed.
    #[error(
        "the query hit the max number of chunks limit (limit: {limit} chunks, at least {found} found; \
         max_fetched_chunks_per_query)"
    )]
    TooManyChunks {
        /// In force.
        limit: u64,
        /// When the bound was met.
        found: u64,
    },
    /// More bytes of chunks than allowed.
    #[error(
        "the query hit the aggregated chunks size limit (limit: {limit} bytes, at least {found} found; \
         max_fetched_chunk_bytes_per_query)"
    )]
    TooManyBytes {
        /// In force.
        limit: u64,
        /// When the bound was met.
        found: u64,
    },
    /// A chunk cannot be read, or is damaged: file, offset and reason.
    #[error("chunk file {0}")]
    Chunk(String),
    /// Blocks of the bucket cannot be had now.
    #[error("{0}")]
    Bucket(String),
    /// A block could not be read, or is damaged; names it and the place.
    #[error("block {0}")]
    Block(String),
    /// More bytes of labels and chunks than allowed.
    #[error(
        "the query hit the aggregated data size limit (limit: {limit} bytes, at least {found} found; \
         max_fetched_data_bytes_per_query)"
    )]
    TooMuchData {
        /// In force.
        limit: u64,
        /// When the bound was met.
        found: u64,
    },
    /// [`Hold`] had none; whoever gave it knows why.
    #[error("no memory for the result")]
    NoMemory,
    /// Nobody waits.
    #[error("canceled")]
    Canceled,
    /// The node cannot read now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another node, which holds the series, has no answer.
    #[error("{reason}")]
    Elsewhere {
        /// Whose fault it is, as that node said.
        class: Class,
        /// Names the node, and what it said.
        reason: String,
    },
}

impl ReadError {
    /// A bound of the tenant, not the state of the node.
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            ReadError::TooManySeries { .. }
                | ReadError::TooManyChunks { .. }
                | ReadError::TooManyBytes { .. }
                | ReadError::TooMuchData { .. }
        )
    }
}
