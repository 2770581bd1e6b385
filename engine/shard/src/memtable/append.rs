//! Series come, samples come.
//!
//! Admission of a sample of a known series, from the usual to the rare:
//!
//! | time | | |
//! | --- | --- | --- |
//! | after the last | | append |
//! | equal to the last | same bits | repeated: no error, nothing stored |
//! | equal to the last | other value | `NewValueForTimestamp` |
//! | before the last | found, same bits | repeated |
//! | before the last | found, other value | `NewValueForTimestamp` |
//! | before the last | not there, older than what the tenant keeps | `OutOfBounds` |
//! | before the last | not there, the tenant has no window for late samples | `OutOfOrder` |
//! | before the last | not there, older than the window behind the last | `TooOld` |
//! | before the last | not there | late: stored beside the others (`late`) |
//!
//! A first sample may be of any age. Closed chunks are read from their file to look for a sample, so many in a turn
//! ([`crate::limits::CHUNK_LOOKUPS_MAX`]); what is not looked for counts as not there. The same holds for histograms, and a float and a
//! histogram are never the same value.

use model::{Generation, Labels, METRIC_NAME, SeriesId, SeriesKey, SeriesRef};

use super::native::Value;
use super::{
    Cold, Memtable, Metric, NO_SEGMENT, NO_TENANT, Row, Sealed, cut_after, first_cut_after,
};
use crate::index::{NameId, PairId, labels};
use crate::message::RejectReason;

/// What is to be done with a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Append it.
    Append,
    /// Keep it with the late samples of the series.
    Late,
    /// It is there already.
    Repeated,
    /// It cannot be stored.
    Rejected(RejectReason),
}

/// What samples that are not after the last one of their series are held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// What is before it is not kept.
    pub(crate) horizon: i64,
    /// How far behind the last sample of its series a sample may be; 0 is not at all.
    pub(crate) window_ms: i64,
    /// No memory for what a series has not had yet.
    pub(crate) tight: bool,
}

/// Why a series cannot be created, with the limit in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeriesRefused {
    pub(crate) reason: RejectReason,
    pub(crate) limit: u64,
}

/// The limits that creating a series is held to; 0 is none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SeriesLimits {
    pub(crate) per_user: u64,
    pub(crate) per_metric: u64,
}

impl Memtable {
    /// The series of this identity *and* these labels.
    pub(crate) fn find_series(&self, tenant: u32, id: SeriesId, packed: &[u8]) -> Option<u32> {
        self.ids.of(hash_of(id)).find(hash_of(id), |series| {
            self.is_series(series, tenant, id, packed)
        })
    }

    /// Whether that number has this tenant's series of this identity *and* these labels.
    pub(super) fn is_series(&self, series: u32, tenant: u32, id: SeriesId, packed: &[u8]) -> bool {
        let cold = &self.colds[series];
        cold.id == id
            && self.rows[series].tenant == tenant
            && self.tenant(tenant).index.same_labels(&cold.pairs, packed)
    }

    /// Makes a series with its first sample, which must be logged after the series itself. The caller accounts for the sample
    /// ([`Memtable::note_samples`]), as for every other.
    ///
    /// Errors: a limit, or no room for its labels; nothing has changed then. Cost: about 100 ns a label.
    pub(crate) fn create_series(
        &mut self,
        tenant: u32,
        id: SeriesId,
        packed: &[u8],
        first: (i64, f64),
        limits: SeriesLimits,
    ) -> Result<u32, SeriesRefused> {
        let series = self.unused_number();
        self.enter_series(tenant, id, packed, series, limits)?;
        self.start_series(
            series,
            tenant,
            self.rows[series].generation.wrapping_add(1),
            first,
        );
        Ok(series)
    }

    /// Counts a series, interns its labels and fills its cold row.
    pub(super) fn enter_series(
        &mut self,
        slot: u32,
        id: SeriesId,
        packed: &[u8],
        series: u32,
        limits: SeriesLimits,
    ) -> Result<(), SeriesRefused> {
        let refuse = |reason, limit| Err(SeriesRefused { reason, limit });
        let tenant = self.tenants[slot as usize]
            .as_mut()
            .expect("slots in use have a tenant");
        if !tenant.quota.series().raise(limits.per_user) {
            self.free.push(series);
            return refuse(RejectReason::PerUserSeriesLimit, limits.per_user);
        }
        let name = metric_of(packed);
        let known = tenant
            .index
            .find_name(METRIC_NAME)
            .and_then(|label: NameId| {
                let pair = tenant.index.find_pair(&self.secret, label, name)?;
                Some((pair, tenant.metrics.get(&Some(pair))?.counter.clone()))
            });
        let counter = match known {
            Some((_, counter)) => counter,
            None => tenant.quota.metric(name),
        };
        if !counter.raise(limits.per_metric) {
            tenant.quota.series().lower();
            self.free.push(series);
            return refuse(RejectReason::PerMetricSeriesLimit, limits.per_metric);
        }
        let Ok(pairs) = tenant.index.add(&self.secret, packed, series) else {
            counter.lower();
            tenant.quota.series().lower();
            self.free.push(series);
            return refuse(RejectReason::PerUserSeriesLimit, limits.per_user);
        };
        let metric = tenant.metric_pair(&pairs);
        tenant
            .metrics
            .entry(metric)
            .or_insert(Metric { counter, series: 0 })
            .series += 1;
        tenant.series += 1;
        self.ids.of_mut(hash_of(id)).insert(hash_of(id), series);
        self.colds[series] = Cold {
            id,
            pairs,
            sealed: Vec::new(),
            native: None,
        };
        self.totals.series += 1;
        self.totals.created += 1;
        Ok(())
    }

    /// Makes a row live with its first sample, for which the caller accounts.
    pub(super) fn start_series(
        &mut self,
        series: u32,
        tenant: u32,
        generation: u32,
        first: (i64, f64),
    ) {
        let row = &mut self.rows[series];
        debug_assert_eq!(row.tenant, NO_TENANT, "a live row is not started again");
        row.generation = generation;
        row.tenant = tenant;
        row.segment = NO_SEGMENT;
        row.cut_time = first_cut_after(series, first.0);
        row.chunk.clear();
        row.chunk.append(first.0, first.1);
    }

    /// A number for a new series: one that the log has forgotten, or the next.
    pub(super) fn unused_number(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| self.push_row())
    }

    pub(super) fn push_row(&mut self) -> u32 {
        let series = self.rows.push(Row {
            generation: 0,
            tenant: NO_TENANT,
            segment: NO_SEGMENT,
            written_s: 0,
            cut_time: i64::MIN,
            chunk: Default::default(),
        });
        let cold = self.colds.push(Cold::default());
        assert_eq!(series, cold, "both tables grow together");
        assert!(series < u32::MAX, "the last number stands for none");
        series
    }

    /// Adds to the counts of a tenant what a push has brought.
    pub(crate) fn note_samples(&mut self, tenant: u32, count: u64, oldest: i64, newest: i64) {
        let tenant = self.tenant_mut(tenant);
        tenant.samples += count;
        tenant.newest = tenant.newest.max(newest);
        tenant.oldest = tenant.oldest.min(oldest);
        tenant.oldest_of_round = tenant.oldest_of_round.min(oldest);
        self.totals.samples += count;
    }

    /// Closes the open chunk, whatever it holds; the caller appends a float to the new one at once, or parks the series.
    #[cold]
    pub(crate) fn cut(&mut self, series: u32, next: i64) {
        debug_assert!(next > self.open(series).last_time() || next == i64::MAX);
        let last = self.open(series).last_time();
        self.seal_open(series);
        self.colds[series].native = None;
        let row = &mut self.rows[series];
        row.chunk.clear();
        row.chunk.shrink();
        row.cut_time = match cut_after(last) == cut_after(next) {
            true => cut_after(next),
            false => first_cut_after(series, next),
        };
    }

    /// Adds the content of the open chunk to the closed ones; the caller opens another.
    pub(super) fn seal_open(&mut self, series: u32) {
        let open = self.open(series);
        let (min, max, count) = (open.first_time(), open.last_time(), open.count());
        let bytes = open.seal();
        let place = self.chunks.put(&bytes);
        let sealed = Sealed::new(min, max, count, place).expect("a chunk is shorter than a cut");
        self.totals.sealed_chunks += 1;
        self.totals.sealed_bytes += u64::from(place.len);
        let list = &mut self.colds[series].sealed;
        if list.len() == list.capacity() {
            list.reserve_exact((list.len() / 4).max(1));
        }
        list.push(sealed);
    }

    /// Closes the open chunk of a series that is idle, and gives its buffer back.
    pub(crate) fn park(&mut self, series: u32) {
        let last = self.open(series).last_time();
        self.cut(series, last.saturating_add(1));
        self.rows[series].chunk = Default::default();
        self.colds[series].sealed.shrink_to_fit();
        self.totals.parked += 1;
    }

    /// Prepares a parked series for a sample, which the caller appends at once.
    pub(crate) fn unpark(&mut self, series: u32, next: i64) {
        debug_assert!(self.is_parked(series) && next > self.last_time(series));
        self.rows[series].cut_time = first_cut_after(series, next);
        self.totals.parked -= 1;
    }

    /// What is to be done with a sample that is not after the last one of its series. See the module.
    #[cold]
    pub(crate) fn admit_old(
        &mut self,
        series: u32,
        time: i64,
        value: Value<'_>,
        bounds: Bounds,
    ) -> Admission {
        match self.value_at(series, time) {
            Some(stored) if stored.is(value) => return Admission::Repeated,
            Some(_) => return Admission::Rejected(RejectReason::NewValueForTimestamp),
            None => {}
        }
        let oldest = self.last_time(series).saturating_sub(bounds.window_ms);
        if time < bounds.horizon {
            Admission::Rejected(RejectReason::OutOfBounds)
        } else if bounds.window_ms == 0 {
            Admission::Rejected(RejectReason::OutOfOrder)
        } else if time < oldest {
            Admission::Rejected(RejectReason::TooOld)
        } else if !self.has_room_for_late(series, bounds.tight) {
            Admission::Rejected(RejectReason::NoMemory)
        } else {
            Admission::Late
        }
    }

    /// The key under which a live series is known outside.
    pub(crate) fn key(&self, series: u32) -> SeriesKey {
        let generation = Generation(self.rows[series].generation);
        SeriesKey {
            series: SeriesRef(series),
            generation,
        }
    }

    /// The labels of a live series.
    pub(crate) fn labels(&self, series: u32) -> Labels {
        let mut packed = Vec::with_capacity(256);
        let tenant = self.tenant(self.rows[series].tenant);
        tenant
            .index
            .put_packed(&self.colds[series].pairs, &mut packed);
        Labels::from_packed(&packed).expect("what was interned is a label set")
    }
}

impl super::Tenant {
    /// The pair of the metric's name.
    fn metric_pair(&self, pairs: &[PairId]) -> Option<PairId> {
        let name = self.index.find_name(METRIC_NAME)?;
        self.index.value_of(pairs, name).0
    }

    /// Active series, of this core.
    pub(crate) fn active(&self) -> u64 {
        self.active.min(self.series)
    }

    /// A series was made by a push.
    pub(crate) fn count_active(&mut self) {
        self.set_active(self.active + 1);
    }

    pub(super) fn set_active(&mut self, active: u64) {
        self.quota.recount_active(self.active, active);
        self.active = active;
    }

    /// Counts a series out. The caller removes it from everything else.
    pub(super) fn uncount_series(&mut self, pairs: &[PairId]) {
        let pair = self.metric_pair(pairs);
        let metric = self
            .metrics
            .get_mut(&pair)
            .expect("series are counted in and out");
        metric.counter.lower();
        metric.series -= 1;
        if metric.series == 0 {
            self.metrics.remove(&pair);
            let name = pair.map_or("", |pair| self.index.value(pair));
            self.quota.forget_metric(name);
        }
        self.quota.series().lower();
        self.series -= 1;
    }
}

/// The value of `__name__` in a packed set; empty where there is none.
fn metric_of(packed: &[u8]) -> &str {
    let found = labels(packed).find(|(name, _)| *name == METRIC_NAME.as_bytes());
    found
        .and_then(|(_, value)| std::str::from_utf8(value).ok())
        .unwrap_or("")
}

/// The identity is a hash already; both halves of it are taken.
#[inline]
pub(super) fn hash_of(id: SeriesId) -> u64 {
    (id.0 as u64) ^ ((id.0 >> 64) as u64)
}
