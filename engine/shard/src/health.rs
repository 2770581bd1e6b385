//! What a core tells the rest of the process about itself, without being asked.
//!
//! Counters and gauges are plain atomics of their own cache lines, stored once per turn of the loop, never per sample. The
//! reason of a poisoned log is set once and stays.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use model::CoreId;

use crate::message::Refusal;

/// State of the node as its cores see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The first core whose log failed: it refuses writes, still answers reads of durable data, and the node is not ready.
    pub poisoned: Option<Refusal>,
    /// `Options::poison_linger` has passed since: the process should end with an error.
    pub linger_over: bool,
    /// A core cannot take space for its log now: writes are answered 503, it tries again.
    pub no_space: bool,
    /// Every core serves.
    pub ready: bool,
}

/// One core's part of [`Health`], and its published numbers.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Published {
    pub(crate) poison: OnceLock<String>,
    pub(crate) linger_over: AtomicBool,
    pub(crate) no_space: AtomicBool,
    pub(crate) serving: AtomicBool,
    pub(crate) series: AtomicU64,
    pub(crate) series_created: AtomicU64,
    pub(crate) series_removed: AtomicU64,
    pub(crate) tenants: AtomicU64,
    pub(crate) parked: AtomicU64,
    /// Oldest sample that is in no block, Unix seconds; 0 without one.
    pub(crate) oldest_unflushed_s: AtomicU64,
    pub(crate) chunks: AtomicU64,
    pub(crate) chunk_bytes: AtomicU64,
    pub(crate) chunk_files: AtomicU64,
    pub(crate) chunk_file_bytes: AtomicU64,
    pub(crate) chunk_pending_bytes: AtomicU64,
    pub(crate) chunk_lookups: AtomicU64,
    pub(crate) cuts: AtomicU64,
    pub(crate) cuts_failed: AtomicU64,
    pub(crate) cut_chunks: AtomicU64,
    pub(crate) memory_bytes: AtomicU64,
    pub(crate) samples: AtomicU64,
    pub(crate) samples_rejected: AtomicU64,
    pub(crate) samples_repeated: AtomicU64,
    pub(crate) samples_late: AtomicU64,
    pub(crate) samples_no_memory: AtomicU64,
    pub(crate) pushes: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) turns: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) busy_us: AtomicU64,
    pub(crate) longest_step_us: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) log_record_bytes: AtomicU64,
    pub(crate) segments: AtomicU64,
    pub(crate) log_bytes: AtomicU64,
    pub(crate) corruptions: AtomicU64,
    pub(crate) checkpoints_begun: AtomicU64,
    pub(crate) checkpoints_failed: AtomicU64,
    pub(crate) checkpoint_bytes: AtomicU64,
    pub(crate) poisoned: AtomicU64,
    pub(crate) replay_ms: AtomicU64,
}

impl Published {
    pub(crate) fn set(counter: &AtomicU64, value: u64) {
        counter.store(value, Ordering::Relaxed);
    }
}

impl Health {
    pub(crate) fn of(cores: &[std::sync::Arc<Published>]) -> Health {
        let poisoned = cores.iter().enumerate().find_map(|(core, published)| {
            let reason = published.poison.get()?.clone();
            Some(Refusal::Poisoned {
                core: CoreId(core as u16).0,
                reason,
            })
        });
        let any = |flag: fn(&Published) -> &AtomicBool| {
            cores
                .iter()
                .any(|published| flag(published).load(Ordering::Relaxed))
        };
        Health {
            linger_over: any(|p| &p.linger_over),
            no_space: any(|p| &p.no_space),
            ready: poisoned.is_none() && cores.iter().all(|p| p.serving.load(Ordering::Relaxed)),
            poisoned,
        }
    }
}
