//! The metrics of the cores: names as in Cortex where the meaning is the same, `myelin_` where Cortex has no such thing.
//!
//! A core publishes plain numbers once a turn (`health::Published`); here they become metrics when somebody looks. Only what
//! happens once a commit or more rarely (latencies) is observed directly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{Histogram, HistogramOpts, HistogramVec, Registry};

use crate::health::Published;
use crate::mailbox::Mailboxes;

/// The observers of one core.
#[derive(Debug, Clone)]
pub(crate) struct Observers {
    pub(crate) commit_seconds: Histogram,
    pub(crate) read_seconds: Histogram,
}

impl Observers {
    /// Observers for every core, registered.
    pub(crate) fn register(registry: &Registry, cores: u16) -> Vec<Observers> {
        // From 50 us, below the fastest disk, doubling to 1.6 s.
        let buckets = |start: f64| prometheus::exponential_buckets(start, 2.0, 16);
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(buckets(5e-5).expect("constants"));
            let vec = HistogramVec::new(opts, &["core"]).expect("constant names are valid");
            registry
                .register(Box::new(vec.clone()))
                .expect("registered once");
            vec
        };
        let commit = histogram(
            "myelin_commit_duration_seconds",
            "Time from the submission of a group to the log until it was durable.",
        );
        let read = histogram(
            "myelin_core_read_duration_seconds",
            "Time from the arrival of a read at its core until its answer left.",
        );
        let of = |core: u16| {
            let core = core.to_string();
            Observers {
                commit_seconds: commit.with_label_values(&[&core]),
                read_seconds: read.with_label_values(&[&core]),
            }
        };
        (0..cores).map(of).collect()
    }
}

/// One published number of every core, or the sum of all.
struct Row {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// One series per core, or one for the node.
    per_core: bool,
    value: fn(&Published) -> &AtomicU64,
}

const OLDEST_UNFLUSHED: &str = "cortex_oldest_unflushed_chunk_timestamp_seconds";

const GAUGE: MetricType = MetricType::GAUGE;
const COUNTER: MetricType = MetricType::COUNTER;

fn rows() -> Vec<Row> {
    let row = |name, help, kind, per_core, value| Row {
        name,
        help,
        kind,
        per_core,
        value,
    };
    vec![
        row(
            "cortex_ingester_memory_series",
            "Series in memory.",
            GAUGE,
            false,
            |p| &p.series,
        ),
        row(
            "cortex_ingester_memory_users",
            "Tenants in memory, the most on any core.",
            GAUGE,
            false,
            |p| &p.tenants,
        ),
        row(
            "myelin_memory_series_parked",
            "Series that are not written and hold no open chunk.",
            GAUGE,
            false,
            |p| &p.parked,
        ),
        row(
            OLDEST_UNFLUSHED,
            "Time of the oldest sample in memory that is in no block (it is in the log), late ones apart; 0: there is none. Looked at once a minute.",
            GAUGE,
            false,
            |p| &p.oldest_unflushed_s,
        ),
        row(
            "cortex_ingester_memory_chunks",
            "Closed chunks of the series in memory.",
            GAUGE,
            false,
            |p| &p.chunks,
        ),
        row(
            "myelin_memory_chunk_bytes",
            "Bytes of closed chunks that series have in chunk files.",
            GAUGE,
            false,
            |p| &p.chunk_bytes,
        ),
        row(
            "myelin_chunk_files",
            "Chunk files of each core.",
            GAUGE,
            true,
            |p| &p.chunk_files,
        ),
        row(
            "myelin_chunk_file_written_bytes_total",
            "Bytes written to chunk files.",
            COUNTER,
            true,
            |p| &p.chunk_file_bytes,
        ),
        row(
            "myelin_chunk_file_pending_bytes",
            "Bytes of closed chunks that wait for the disk.",
            GAUGE,
            true,
            |p| &p.chunk_pending_bytes,
        ),
        row(
            "myelin_chunk_lookups_total",
            "Closed chunks that a core read itself, to compare an old sample with what is stored.",
            COUNTER,
            true,
            |p| &p.chunk_lookups,
        ),
        row(
            "myelin_cuts_total",
            "Times that a core has moved closed chunks into blocks.",
            COUNTER,
            true,
            |p| &p.cuts,
        ),
        row(
            "myelin_cuts_failed_total",
            "Cuts that ended with an error; the chunks stay in the head until one succeeds.",
            COUNTER,
            true,
            |p| &p.cuts_failed,
        ),
        row(
            "myelin_cut_chunks_total",
            "Closed chunks that a core has let go of because blocks hold them.",
            COUNTER,
            true,
            |p| &p.cut_chunks,
        ),
        row(
            "myelin_core_memory_bytes",
            "Heap bytes of each core's memtable, as of its last round of collection.",
            GAUGE,
            true,
            |p| &p.memory_bytes,
        ),
        row(
            "cortex_ingester_memory_series_created_total",
            "Series created.",
            COUNTER,
            false,
            |p| &p.series_created,
        ),
        row(
            "cortex_ingester_memory_series_removed_total",
            "Series removed.",
            COUNTER,
            false,
            |p| &p.series_removed,
        ),
        row(
            "cortex_ingester_ingested_samples_total",
            "Samples stored.",
            COUNTER,
            false,
            |p| &p.samples,
        ),
        row(
            "cortex_ingester_ingested_samples_failures_total",
            "Samples refused.",
            COUNTER,
            false,
            |p| &p.samples_rejected,
        ),
        row(
            "myelin_samples_repeated_total",
            "Samples that were there already with the same value.",
            COUNTER,
            false,
            |p| &p.samples_repeated,
        ),
        row(
            "cortex_ingester_tsdb_head_out_of_order_samples_appended_total",
            "Samples stored that were older than the newest of their series.",
            COUNTER,
            false,
            |p| &p.samples_late,
        ),
        row(
            "myelin_samples_refused_no_memory_total",
            "Samples of series that were not made because the process is at its memory limit. Senders are told to repeat them.",
            COUNTER,
            false,
            |p| &p.samples_no_memory,
        ),
        row(
            "cortex_ingester_queries_total",
            "Reads answered.",
            COUNTER,
            false,
            |p| &p.reads,
        ),
        row(
            "myelin_core_series",
            "Series in memory of each core.",
            GAUGE,
            true,
            |p| &p.series,
        ),
        row(
            "myelin_core_samples_total",
            "Samples stored by each core.",
            COUNTER,
            true,
            |p| &p.samples,
        ),
        row(
            "myelin_core_pushes_total",
            "Messages with samples taken by each core.",
            COUNTER,
            true,
            |p| &p.pushes,
        ),
        row(
            "myelin_core_turns_total",
            "Turns of each core's loop.",
            COUNTER,
            true,
            |p| &p.turns,
        ),
        row(
            "myelin_core_busy_microseconds_total",
            "Time that each core spent in its turns, waiting and system calls of the reactor apart.",
            COUNTER,
            true,
            |p| &p.busy_us,
        ),
        row(
            "myelin_core_stalls_total",
            "Turns of a core's loop that took longer than 20 ms.",
            COUNTER,
            true,
            |p| &p.stalls,
        ),
        row(
            "myelin_core_longest_step_microseconds",
            "CPU time of the longest turn of a core's loop since start, to within a millisecond: what it made others wait itself.",
            GAUGE,
            true,
            |p| &p.longest_step_us,
        ),
        row(
            "myelin_commits_total",
            "Frames written to the log by each core.",
            COUNTER,
            true,
            |p| &p.commits,
        ),
        row(
            "myelin_wal_record_bytes_total",
            "Bytes of records written to the log, without frames and padding.",
            COUNTER,
            true,
            |p| &p.log_record_bytes,
        ),
        row(
            "myelin_wal_segments",
            "Segments of the log that a replay would read.",
            GAUGE,
            true,
            |p| &p.segments,
        ),
        row(
            "cortex_ingester_wal_logged_bytes_total",
            "Bytes written to the log.",
            COUNTER,
            false,
            |p| &p.log_bytes,
        ),
        row(
            "cortex_ingester_wal_corruptions_total",
            "Corrupt places of the log met at start; a log that is lost is one.",
            COUNTER,
            false,
            |p| &p.corruptions,
        ),
        row(
            "cortex_ingester_checkpoint_creations_total",
            "Checkpoints begun.",
            COUNTER,
            false,
            |p| &p.checkpoints_begun,
        ),
        row(
            "cortex_ingester_checkpoint_creations_failed_total",
            "Checkpoints failed.",
            COUNTER,
            false,
            |p| &p.checkpoints_failed,
        ),
        row(
            "cortex_ingester_checkpoint_logged_bytes_total",
            "Bytes written to checkpoints.",
            COUNTER,
            false,
            |p| &p.checkpoint_bytes,
        ),
        row(
            "myelin_core_poisoned",
            "1 for each core whose log has failed.",
            GAUGE,
            true,
            |p| &p.poisoned,
        ),
    ]
}

/// Reads what the cores publish.
pub(crate) struct CoreCollector {
    published: Vec<Arc<Published>>,
    mailboxes: Mailboxes,
    rows: Vec<Row>,
    descs: Vec<Desc>,
}

const QUEUE: (&str, &str) = (
    "myelin_core_queue_bytes",
    "Bytes of the messages with samples that wait for a core or its commit.",
);
const REPLAY: (&str, &str) = (
    "cortex_ingester_wal_replay_duration_seconds",
    "Time of the replay at start, the longest of all cores.",
);

impl CoreCollector {
    pub(crate) fn new(published: Vec<Arc<Published>>, mailboxes: Mailboxes) -> CoreCollector {
        let rows = rows();
        let desc = |name: &str, help: &str, per_core: bool| {
            let labels = if per_core {
                vec!["core".to_owned()]
            } else {
                Vec::new()
            };
            Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())
                .expect("constant names are valid")
        };
        let mut descs: Vec<Desc> = rows
            .iter()
            .map(|r| desc(r.name, r.help, r.per_core))
            .collect();
        descs.push(desc(QUEUE.0, QUEUE.1, true));
        descs.push(desc(REPLAY.0, REPLAY.1, false));
        descs.extend(BLOCKS.iter().map(|(name, help, _)| desc(name, help, false)));
        CoreCollector {
            published,
            mailboxes,
            rows,
            descs,
        }
    }
}

/// A gauge of the blocks: name, help, value.
type OfBlocks = (&'static str, &'static str, fn(&block::Summary) -> f64);

/// Of the blocks of the node. Times are 0 where there are no samples.
const BLOCKS: [OfBlocks; 8] = [
    ("myelin_blocks", "Blocks on local disk.", |s| {
        s.blocks as f64
    }),
    ("myelin_block_bytes", "Bytes of all blocks.", |s| {
        s.bytes as f64
    }),
    (
        "myelin_block_samples",
        "Samples in blocks; one that is in two blocks counts twice.",
        |s| s.samples as f64,
    ),
    (
        "myelin_block_oldest_time_seconds",
        "Time of the earliest sample in blocks.",
        |s| s.times.map_or(0.0, |(oldest, _)| oldest as f64 / 1000.0),
    ),
    (
        "myelin_block_newest_time_seconds",
        "Time of the latest sample in blocks.",
        |s| s.times.map_or(0.0, |(_, newest)| newest as f64 / 1000.0),
    ),
    (
        "myelin_blocks_damaged",
        "Files that the last start left out because their end or their begin is damaged.",
        |s| s.damaged as f64,
    ),
    (
        "myelin_block_index_bytes",
        "Bytes of indexes of blocks that are kept in memory.",
        |s| s.index_bytes as f64,
    ),
    (
        "myelin_deletions_pending",
        "Deletions that blocks may still have to be rewritten for; nobody sees what they mean.",
        |s| s.deletions as f64,
    ),
];

impl Collector for CoreCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::with_capacity(self.descs.len());
        for row in &self.rows {
            let values = self
                .published
                .iter()
                .map(|p| (row.value)(p).load(Ordering::Relaxed));
            families.push(match row.per_core {
                true => family(row.name, row.help, row.kind, values.map(|v| v as f64)),
                false => {
                    let all = match row.name {
                        "cortex_ingester_memory_users" => values.max().unwrap_or(0),
                        OLDEST_UNFLUSHED => values.filter(|time| *time > 0).min().unwrap_or(0),
                        _ => values.sum(),
                    };
                    single(row.name, row.help, row.kind, all as f64)
                }
            });
        }
        let queues = (0..self.mailboxes.count())
            .map(|core| self.mailboxes.of(model::CoreId(core)).bytes_queued() as f64);
        families.push(family(QUEUE.0, QUEUE.1, GAUGE, queues));
        let replay = self
            .published
            .iter()
            .map(|p| p.replay_ms.load(Ordering::Relaxed))
            .max();
        families.push(single(
            REPLAY.0,
            REPLAY.1,
            GAUGE,
            replay.unwrap_or(0) as f64 / 1000.0,
        ));
        let summary = self.mailboxes.blocks().summary();
        let of_blocks = BLOCKS.iter();
        families.extend(
            of_blocks.map(|(name, help, value)| single(name, help, GAUGE, value(&summary))),
        );
        families
    }
}

fn metric(kind: MetricType, value: f64, core: Option<usize>) -> Metric {
    let mut metric = Metric::default();
    if let Some(core) = core {
        let mut label = prometheus::proto::LabelPair::default();
        label.set_name("core".to_owned());
        label.set_value(core.to_string());
        metric.set_label(vec![label]);
    }
    if kind == COUNTER {
        let mut counter = prometheus::proto::Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = prometheus::proto::Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    values: impl Iterator<Item = f64>,
) -> MetricFamily {
    let metrics = values
        .enumerate()
        .map(|(core, value)| metric(kind, value, Some(core)));
    named(name, help, kind, metrics.collect())
}

fn single(name: &str, help: &str, kind: MetricType, value: f64) -> MetricFamily {
    named(name, help, kind, vec![metric(kind, value, None)])
}

fn named(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
