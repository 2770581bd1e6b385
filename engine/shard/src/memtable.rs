//! What a core holds in memory: the series table of all its tenants, and an index per tenant.
//!
//! A series is two rows under one number ([`model::SeriesRef`]). The *row* is all that a sample of a known series touches: two
//! cache lines, visited in the order of creation, which is the order of scrapes. The *cold row* is touched when a chunk is cut
//! and by reads, and holds the open chunk of a series of native histograms (`native`). Tables are pages, so that growing them never
//! copies. What is done to them: `append`, `native`, `read`, `replay`, `gc`; exemplars, the starts of counters and late samples are kept apart (`exemplars`,
//! `starts`, `late`), so that a series without them has no byte of them.
//!
//! | bytes per series | held by |
//! | --- | --- |
//! | 88 | [`Row`]: generation, tenant, log segment, time of writing, next cut, and the open chunk's state (64) |
//! | ~1.3 a sample | open chunk's bits, grown by quarters (chunk) |
//! | 64 | [`Cold`]: identity, pair list, sealed list, and where histograms are open |
//! | 200 + 16 a bucket + .. | open chunk of histograms: state, layout, numbers of the last one, bits |
//! | 4 a label | pair numbers (`index`) |
//! | 4 to 5 a label | postings (`index`) |
//! | 4 to 5 | list of all series (`index`) |
//! | 10.7 to 21 | slot of the identity table, 8 bytes at 3/8 to 3/4 full |
//! | shared | pairs: 48 + 15 + the value's bytes, by all series that have the label |
//! | 28 | every closed chunk: times and the place in the chunk file (`chunkfile`), with a quarter of spare room in the list |
//!
//! The open chunks of series scraped together are in all states of being full at any time ([`first_cut_after`]), so the table is about the average.
//! `tests::memory` measures the sum: 282 bytes for a series of ten labels with six samples, 80 series a target. Invariants: a live row has at least one sample, the last one in its open chunk, or, of a *parked* series, in its last closed one
//! (a series that is not written for [`crate::limits::PARK_AFTER_S`] gives its open chunk away; keys of parked series are answered 'send labels', so
//! that the way of a known sample need not know of them); chunks of a series, late ones apart, ascend and do not overlap; a row is live exactly when its tenant is not [`NO_TENANT`], and is then in its tenant's
//! lists; numbers in `free` are named by no list, no log segment and no checkpoint.

pub(crate) mod append;
pub(crate) mod exemplars;
pub(crate) mod gc;
pub(crate) mod late;
pub(crate) mod native;
pub(crate) mod purge;
pub(crate) mod read;
pub(crate) mod replay;
pub(crate) mod starts;
mod takeover;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use chunk::XorAppender;
use model::{Ack, Lsn, SeriesId, TenantId, TenantLimits};

use self::exemplars::Exemplars;
use self::late::Lates;
use self::native::Native;
use self::starts::Starts;
use crate::chunkfile::{ChunkFiles, Place};
use crate::index::table::Sharded;
use crate::index::{Index, PairId, Secret};
use crate::limits::{CHUNK_SPREAD_MS, CUT_MS, FIRST_CHUNK_MS};
use crate::pages::Pages;
use crate::quota::{Counter, Quotas, TenantQuota};
use crate::{ExemplarsMax, Retentions};

/// The tenant of rows that hold no series.
pub(crate) const NO_TENANT: u32 = u32::MAX;

/// No log segment: the next sample is logged absolutely.
pub(crate) const NO_SEGMENT: u32 = u32::MAX;

/// The hot part of a series.
#[derive(Debug)]
pub(crate) struct Row {
    /// Must equal the key's; counts how often this number was given out.
    pub(crate) generation: u32,
    /// Index into [`Memtable::tenants`], or [`NO_TENANT`].
    pub(crate) tenant: u32,
    /// The log segment that holds the sample last appended: only there can the next one be coded as a difference to it.
    pub(crate) segment: u32,
    /// Wall clock, seconds, of the last append.
    pub(crate) written_s: u32,
    /// The open chunk ends before this time.
    pub(crate) cut_time: i64,
    /// The open chunk; its last sample is the series' last sample.
    pub(crate) chunk: XorAppender,
}

const _: () = assert!(size_of::<Row>() == 88);

/// The rest of a series.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    pub(crate) id: SeriesId,
    pub(crate) pairs: Box<[PairId]>,
    /// Ascending.
    pub(crate) sealed: Vec<Sealed>,
    /// The open chunk, if it is one of histograms.
    pub(crate) native: Option<Box<Native>>,
}

const _: () = assert!(size_of::<Cold>() == 64);

/// A closed chunk: its times, and where it lies. Packed, since a series has dozens of them.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed(4))]
pub(crate) struct Sealed {
    min_time: i64,
    /// Last time less first time; chunks do not cross a multiple of [`CUT_MS`].
    span: u32,
    file: u32,
    offset: u32,
    len: u32,
    count: u16,
}

const _: () = assert!(size_of::<Sealed>() == 28);

/// In the count of a chunk: the chunk is in a block too, and stays only because a live row has a sample. Chunks have at most 4096 samples.
const IN_BLOCK: u16 = 1 << 15;

/// In the count of a chunk of a checkpoint: it is one of late samples.
pub(crate) const LATE: u16 = 1 << 14;

impl Sealed {
    /// `None` for times that no chunk can have.
    pub(crate) fn new(min_time: i64, max_time: i64, count: u16, place: Place) -> Option<Sealed> {
        let span = u32::try_from(max_time.checked_sub(min_time)?).ok()?;
        let Place { file, offset, len } = place;
        Some(Sealed {
            min_time,
            span,
            file,
            offset,
            len,
            count,
        })
    }

    pub(crate) fn min_time(&self) -> i64 {
        self.min_time
    }

    pub(crate) fn max_time(&self) -> i64 {
        self.min_time + i64::from(self.span)
    }

    /// Samples in it.
    pub(crate) fn count(&self) -> u16 {
        self.count & !IN_BLOCK
    }

    /// Samples, and [`IN_BLOCK`], as a checkpoint has them.
    pub(crate) fn marked_count(&self) -> u16 {
        self.count
    }

    /// Whether a cut has moved it: no other cut takes it again.
    pub(crate) fn is_in_block(&self) -> bool {
        self.count & IN_BLOCK != 0
    }

    /// See [`Sealed::is_in_block`].
    pub(crate) fn mark_in_block(&mut self) {
        self.count |= IN_BLOCK;
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            file: self.file,
            offset: self.offset,
            len: self.len,
        }
    }

    /// The same chunk, elsewhere.
    pub(crate) fn moved_to(self, place: Place) -> Sealed {
        let Place { file, offset, len } = place;
        Sealed {
            file,
            offset,
            len,
            ..self
        }
    }
}

/// One tenant's share of a core.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) index: Index,
    pub(crate) quota: Arc<TenantQuota>,
    /// Node-wide counters of the metrics that have series here, by the pair of their name.
    metrics: HashMap<Option<PairId>, Metric>,
    /// Newest sample ever stored, `i64::MIN` before the first.
    pub(crate) newest: i64,
    /// Not later than the oldest sample in memory; exact after each collection. `i64::MAX` without samples.
    pub(crate) oldest: i64,
    /// Oldest sample stored since the current round of collection began.
    oldest_of_round: i64,
    /// Live series.
    pub(crate) series: u64,
    /// Of them, those written within [`crate::limits::ACTIVE_S`]: as the last round of collection counted them, and those made since.
    active: u64,
    /// Samples stored since start.
    pub(crate) samples: u64,
    /// As of the last push.
    pub(crate) ack: Ack,
    /// The log's tail after the last push: what a read of this tenant has to wait for.
    pub(crate) tail: Lsn,
    /// As of the last push, or the default.
    pub(crate) retention_ms: i64,
    /// What is before this time has been cut, but for what came later.
    pub(crate) cut_until: i64,
    /// Wall clock of the last push, or of the first look at it after a start; `i64::MIN` before that.
    pub(crate) pushed_ms: i64,
    /// Empty where none were sent.
    pub(crate) exemplars: Exemplars,
    /// Empty where none were sent.
    pub(crate) starts: Starts,
    /// Empty where none came late.
    pub(crate) lates: Lates,
}

#[derive(Debug)]
struct Metric {
    counter: Arc<Counter>,
    /// Series of the metric on this core.
    series: u32,
}

/// A number that had a series once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) series: u32,
    /// Segments up to this one may name it.
    pub(crate) segment: u32,
    /// Reads that began before this one may hold it as a candidate.
    pub(crate) read: u64,
}

/// Sums over all series, for the metrics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) series: u64,
    pub(crate) created: u64,
    pub(crate) removed: u64,
    pub(crate) samples: u64,
    pub(crate) sealed_chunks: u64,
    pub(crate) sealed_bytes: u64,
    /// Series without an open chunk.
    pub(crate) parked: u64,
}

/// See the module.
pub(crate) struct Memtable {
    pub(crate) rows: Pages<Row>,
    pub(crate) colds: Pages<Cold>,
    ids: Sharded,
    pub(crate) tenants: Vec<Option<Tenant>>,
    tenant_slots: HashMap<TenantId, u32>,
    /// Oldest first; used from the front when the log has forgotten them.
    retired: VecDeque<Retired>,
    /// Numbers that may be given out again.
    free: Vec<u32>,
    pub(crate) secret: Secret,
    /// Where closed chunks are.
    pub(crate) chunks: ChunkFiles,
    quotas: Arc<Quotas>,
    pub(crate) chunk_samples_max: u16,
    retention_default_ms: i64,
    /// Of tenants that differ from it, pushing or not.
    retentions: Arc<Retentions>,
    pub(crate) totals: Totals,
    /// Wall clock, seconds: a row that says that it was written before was found in the log by the start, and nobody has written it since.
    pub(crate) written_from_s: u32,
    /// As of the last round of collection.
    pub(crate) accounts: Accounts,
    /// Oldest sample that is in no block, late ones apart, Unix seconds; 0 without one. As of the last round of collection.
    pub(crate) oldest_unflushed_s: u64,
}

impl Memtable {
    /// An empty memtable. `seed` is chance for the secret of the label hashes.
    pub(crate) fn new(
        quotas: Arc<Quotas>,
        seed: u64,
        chunk_samples_max: u16,
        retention_default_ms: i64,
    ) -> Memtable {
        assert!(chunk_samples_max > 1 && retention_default_ms > 0);
        Memtable {
            rows: Pages::default(),
            colds: Pages::default(),
            ids: Sharded::default(),
            tenants: Vec::new(),
            tenant_slots: HashMap::new(),
            retired: VecDeque::new(),
            free: Vec::new(),
            secret: Secret::new(seed),
            chunks: ChunkFiles::new(Path::new(""), 0),
            quotas,
            chunk_samples_max,
            retention_default_ms,
            retentions: Arc::default(),
            totals: Totals::default(),
            written_from_s: 0,
            accounts: Accounts::default(),
            oldest_unflushed_s: 0,
        }
    }

    /// The slot of a tenant that has pushed before.
    pub(crate) fn find_tenant(&self, id: &TenantId) -> Option<u32> {
        self.tenant_slots.get(id).copied()
    }

    /// The slot of a tenant, made when missing.
    pub(crate) fn tenant_slot(&mut self, id: &TenantId) -> u32 {
        if let Some(&slot) = self.tenant_slots.get(id) {
            return slot;
        }
        let tenant = Tenant {
            id: id.clone(),
            index: Index::default(),
            quota: self.quotas.tenant(id),
            metrics: HashMap::new(),
            newest: i64::MIN,
            oldest: i64::MAX,
            oldest_of_round: i64::MAX,
            series: 0,
            active: 0,
            samples: 0,
            ack: Ack::default(),
            tail: Lsn::default(),
            retention_ms: self.retention_of(id),
            cut_until: i64::MIN,
            pushed_ms: i64::MIN,
            exemplars: Exemplars::default(),
            starts: Starts::default(),
            lates: Lates::default(),
        };
        let slot = match self.tenants.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                self.tenants.push(None);
                self.tenants.len() - 1
            }
        };
        self.tenants[slot] = Some(tenant);
        self.tenant_slots.insert(id.clone(), slot as u32);
        slot as u32
    }

    /// The tenant of a slot that is known to be taken.
    #[inline]
    pub(crate) fn tenant(&self, slot: u32) -> &Tenant {
        self.tenants[slot as usize]
            .as_ref()
            .expect("slots in use have a tenant")
    }

    /// As [`Memtable::tenant`].
    #[inline]
    pub(crate) fn tenant_mut(&mut self, slot: u32) -> &mut Tenant {
        self.tenants[slot as usize]
            .as_mut()
            .expect("slots in use have a tenant")
    }

    /// How long tenants keep their samples, milliseconds: those that differ from the default, also those of which only blocks are left.
    pub(crate) fn retentions(&self) -> Retentions {
        let mut all = self.retentions.as_ref().clone();
        let tenants = self.tenants.iter().flatten();
        let own = tenants.filter(|tenant| tenant.retention_ms != self.retention_default_ms);
        all.extend(own.map(|tenant| (tenant.id.clone(), tenant.retention_ms)));
        all
    }

    /// From now on these tenants differ from the default.
    pub(crate) fn set_retentions(&mut self, retentions: Arc<Retentions>) {
        self.retentions = retentions;
        let default = self.retention_default_ms;
        for tenant in self.tenants.iter_mut().flatten() {
            let own = self.retentions.get(&tenant.id);
            tenant.retention_ms = own.copied().unwrap_or(default);
        }
    }

    /// No tenant has more exemplars than this core's share of what it may have: the oldest leave.
    pub(crate) fn bound_exemplars(&mut self, max: &ExemplarsMax, cores: u16) {
        for tenant in self.tenants.iter_mut().flatten() {
            tenant.exemplars.bound(max.of(&tenant.id, cores));
        }
    }

    fn retention_of(&self, id: &TenantId) -> i64 {
        let own = self.retentions.get(id);
        own.copied().unwrap_or(self.retention_default_ms)
    }

    /// Live tenants.
    pub(crate) fn tenant_count(&self) -> usize {
        self.tenant_slots.len()
    }

    /// Whether that number has a series now.
    #[inline]
    pub(crate) fn is_live(&self, series: u32) -> bool {
        self.rows
            .get(series)
            .is_some_and(|row| row.tenant != NO_TENANT)
    }

    /// Time of the oldest sample of a live series.
    pub(crate) fn first_time(&self, series: u32) -> i64 {
        let first = match self.colds[series].sealed.first() {
            Some(first) => first.min_time(),
            None => self.open(series).first_time(),
        };
        first.min(self.late_first_time(series))
    }

    /// Time of the newest sample of a live series.
    pub(crate) fn last_time(&self, series: u32) -> i64 {
        let open = self.open(series);
        match self.colds[series].sealed.last() {
            Some(last) if open.is_empty() => last.max_time(),
            _ => open.last_time(),
        }
    }

    /// Whether a live series has no open chunk: it was not written for a while ([`Memtable::park`]).
    #[inline]
    pub(crate) fn is_parked(&self, series: u32) -> bool {
        self.rows[series].chunk.is_empty()
    }
}

/// What a test weighs.
#[cfg(test)]
pub(crate) struct Parts {
    pub(crate) tenants: Vec<Option<Tenant>>,
    pub(crate) ids: Sharded,
    pub(crate) rows: Pages<Row>,
    pub(crate) colds: Pages<Cold>,
}

#[cfg(test)]
impl Memtable {
    /// Takes it apart.
    pub(crate) fn into_parts(self) -> Parts {
        let Memtable {
            tenants,
            ids,
            rows,
            colds,
            ..
        } = self;
        Parts {
            tenants,
            ids,
            rows,
            colds,
        }
    }
}

/// Heap bytes of a memtable, by what holds them. Brought up to date by each round of collection, which visits all rows anyway.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) rows: usize,
    pub(crate) colds: usize,
    /// Open chunks, lists of closed ones, closed ones that still wait for the disk, and late samples.
    pub(crate) chunks: usize,
    /// Lists of pair numbers.
    pub(crate) pairs: usize,
    /// Exemplars, and starts of counters.
    pub(crate) exemplars: usize,
    pub(crate) ids: usize,
    pub(crate) indexes: usize,
}

impl Accounts {
    pub(crate) fn sum(&self) -> usize {
        self.rows + self.colds + self.chunks + self.pairs + self.exemplars + self.ids + self.indexes
    }
}

impl Tenant {
    /// The limits of a push that matter here. Zero retention is no limit.
    pub(crate) fn take_over(&mut self, limits: &TenantLimits) {
        self.ack = limits.ack;
        self.retention_ms = limits.retention_ms();
    }
}

/// The first time behind the two hours that `time` lies in.
#[inline]
pub(crate) fn cut_after(time: i64) -> i64 {
    time.div_euclid(CUT_MS)
        .saturating_add(1)
        .saturating_mul(CUT_MS)
}

/// Where a chunk that begins two hours, or a series, at `time` ends at the latest: another place for every series.
///
/// Series are scraped together. If their chunks began together they would be full together, too: memory would have to hold all of them full, and one
/// scrape in 120 would close a chunk of every series. Those that follow are full by their count of samples, each series at a time of its own.
#[inline]
pub(crate) fn first_cut_after(series: u32, time: i64) -> i64 {
    let share = i64::from(series.wrapping_mul(0x9e37_79b1) >> 16);
    let spread = FIRST_CHUNK_MS + ((CHUNK_SPREAD_MS * share) >> 16);
    cut_after(time).min(time.saturating_add(spread))
}

#[cfg(test)]
mod tests;
