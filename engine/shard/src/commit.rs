//! The promise on one screen: [`Core::commit`].
//!
//! Everything that has queued up goes into the log's open group and into the memtable in one pass, the group is submitted, and
//! replies go out that the log has caught up with. While a write is in flight the next group fills, so a commit needs no timer:
//! the slower the disk, the larger the groups.
//!
//! A sample of a known series costs its row (two cache lines, asked for some samples ahead), one to ten bytes of log and
//! a few bits of chunk. Nothing is allocated, hashed or looked up.

use model::{Ack, Labels, SeriesId, SeriesKey, SeriesRef, same_value};
use wal::{Error, Log, Record, SeriesRecord};

use crate::core::Core;
use crate::limits::{COMMIT_SAMPLES_MAX, ROWS_AHEAD, WORDS_AHEAD};
use crate::memtable::Memtable;
use crate::memtable::append::{Admission, SeriesLimits, SeriesRefused};
use crate::memtable::gc::seconds;
use crate::message::{Push, PushOutcome, Refusal, RejectReason, Rejection};
use crate::read::Reads;
use crate::release::{NOT_STORED, Reply};

impl Core {
    /// Admits, logs and applies what waits; submits it; releases what has become durable.
    ///
    /// 1. Pushes are taken in the order in which they came, as many as a turn's budget and the log's queue allow.
    /// 2. A log that cannot take writes (poisoned, no space) refuses them whole, before anything is applied.
    /// 3. One pass over the series of each: admit, encode into the open group, append to the memtable. From here on the samples
    ///    are in memory, but nobody outside can know: see 5.
    /// 4. The group is submitted unless a write is in flight; then it goes on filling.
    /// 5. A reply leaves when the log is durable (relaxed tenants: written) up to the tail at its admission. This holds for a push
    ///    that stored nothing, a retry of samples still in flight, and for reads (`core::Core::slice`) alike.
    ///
    /// A write that fails poisons the core (`Core::poison`): what was not durable is hidden and dies with the process.
    pub(crate) fn commit(&mut self) {
        let (mut samples, mut durable) = (0, false);
        while samples < COMMIT_SAMPLES_MAX
            && let Some(push) = self.pushes.front()
        {
            let Some(admitted) = self.admit(push) else {
                break; // The disk is behind: pushes wait here, bounded by the credits of the mailbox.
            };
            let mut push = self.pushes.pop_front().expect("looked at above");
            let new_tenant = || self.memtable.find_tenant(&push.tenant).is_none();
            let admitted = match self.memory.is_tight() && new_tenant() {
                true => admitted.and(Err(Refusal::NoMemory)),
                false => admitted,
            };
            if let Err(refusal) = admitted {
                let reply = Reply::Push(Box::new((push, PushOutcome::default())));
                reply.send(Err(refusal), self.id, &self.mailboxes);
                continue;
            }
            samples += push.known.keys.len() + push.fresh.times.len() + 1;
            let ack = push.limits.ack;
            let outcome = self.store(&mut push);
            let reply = Reply::Push(Box::new((push, outcome)));
            self.release.wait(ack, self.log.tail(), reply);
            durable |= ack == Ack::Durable;
        }
        self.submit(durable);
        self.release_now();
    }

    /// Step 3 for one push.
    fn store(&mut self, push: &mut Push) -> PushOutcome {
        let slot = self.memtable.tenant_slot(&push.tenant);
        self.memtable.tenant_mut(slot).take_over(&push.limits);
        let mut outcome = PushOutcome::default();
        let mut pass = Pass {
            slot,
            watched: self.reads.watch(slot),
            horizon: self.memtable.horizon(slot, self.wall_ms),
            now_s: seconds(self.wall_ms),
            tight: self.memory.is_tight(),
            memtable: &mut self.memtable,
            log: &mut self.log,
            reads: &mut self.reads,
            stored: 0,
            newest: i64::MIN,
            oldest: i64::MAX,
        };
        pass.known(push, &mut outcome);
        pass.fresh(push, &mut outcome);
        let Pass {
            stored,
            oldest,
            newest,
            ..
        } = pass;
        self.memtable.tenant_mut(slot).tail = self.log.tail();
        if stored > 0 {
            self.memtable
                .note_samples(slot, u64::from(stored), oldest, newest);
        }
        outcome.stored = stored;
        for other in std::mem::take(&mut push.others) {
            let (key, time) = other.place();
            let key = key.filter(|&key| self.memtable.is_key_of(slot, key));
            let labels = key.map_or(Labels::empty(), |key| self.memtable.labels(key.series.0));
            reject(&mut outcome, RejectReason::NotBuilt, 0, 0, || {
                (labels, time, f64::NAN)
            });
        }
        for rejection in &outcome.rejected {
            let count = match rejection.reason {
                RejectReason::NoMemory => &mut self.counts.no_memory,
                _ => &mut self.counts.rejected,
            };
            *count += u64::from(rejection.count);
        }
        self.counts.repeated += u64::from(outcome.repeated);
        outcome
    }

    /// Whether the log takes a push now: `None` is later, an error is not.
    pub(crate) fn admit(&self, push: &Push) -> Option<Result<(), Refusal>> {
        if let Some(refusal) = self.is_poisoned_by() {
            return Some(Err(refusal.clone()));
        }
        if self.memtable.chunks.is_behind() {
            let no_space = self.memtable.chunks.no_space();
            return no_space.map(|reason| Err(Refusal::NoSpace(reason.to_owned())));
        }
        match self.log.admit(log_bytes_max(push)) {
            Ok(()) => Some(Ok(())),
            Err(Error::QueueFull { .. }) => None,
            Err(Error::NoSpace { reason }) => Some(Err(Refusal::NoSpace(reason))),
            Err(error) => {
                let (core, reason) = (self.id.0, error.to_string());
                Some(Err(Refusal::Poisoned { core, reason }))
            }
        }
    }
}

/// An upper bound of what a push takes in the log.
fn log_bytes_max(push: &Push) -> usize {
    let samples = push.known.keys.len() + push.fresh.times.len();
    let series = push.fresh.series.len() * (wal::SAMPLE_ROOM + 64);
    samples * wal::SAMPLE_BYTES_MAX + series + push.fresh.labels.len() + wal::SAMPLE_ROOM
}

/// Counts a refused sample; the first of each reason is described.
#[cold]
fn reject(
    outcome: &mut PushOutcome,
    reason: RejectReason,
    limit: u64,
    index: usize,
    first: impl FnOnce() -> (Labels, i64, f64),
) {
    match outcome.rejected.iter_mut().find(|r| r.reason == reason) {
        Some(rejection) => rejection.count += 1,
        None => outcome.rejected.push(Rejection {
            reason,
            count: 1,
            first: first(),
            limit,
            first_index: index as u32,
        }),
    }
}

/// One pass over one push: all that it touches, borrowed apart.
struct Pass<'a> {
    memtable: &'a mut Memtable,
    log: &'a mut Log,
    reads: &'a mut Reads,
    slot: u32,
    /// A read of this tenant is under way and has to see series before they change.
    watched: bool,
    horizon: i64,
    now_s: u32,
    /// No memory for new series.
    tight: bool,
    stored: u32,
    newest: i64,
    oldest: i64,
}

impl Pass<'_> {
    /// Samples of known series. Some samples ahead the row is asked for, a few ahead the place in its chunk's buffer: in an order that
    /// is not that of memory their misses would otherwise be waited for one after another.
    fn known(&mut self, push: &mut Push, outcome: &mut PushOutcome) {
        let known = &mut push.known;
        let count = known.keys.len();
        let (keys, times, values) = (
            &known.keys[..],
            &mut known.times[..count],
            &known.values[..count],
        );
        for key in keys.iter().take(ROWS_AHEAD) {
            self.memtable.rows.prefetch(key.series.0);
        }
        for at in 0..count {
            if let Some(key) = keys.get(at + ROWS_AHEAD) {
                self.memtable.rows.prefetch(key.series.0);
            }
            if let Some(row) = keys
                .get(at + WORDS_AHEAD)
                .and_then(|key| self.memtable.rows.get(key.series.0))
            {
                row.chunk.prefetch();
            }
            let (key, time, value) = (keys[at], times[at], values[at]);
            if !self.is_mine(key) {
                outcome.dead.push(at as u32);
                times[at] = NOT_STORED;
                continue;
            }
            match self.sample(key.series.0, time, value) {
                Admission::Append => {}
                other => {
                    times[at] = NOT_STORED;
                    self.not_stored(outcome, other, key.series.0, (time, value), at);
                }
            }
        }
    }

    /// Series with labels, and their samples.
    fn fresh(&mut self, push: &mut Push, outcome: &mut PushOutcome) {
        let (mut label, mut sample) = (0, 0);
        for at in 0..push.fresh.series.len() {
            let entry = push.fresh.series[at];
            let index = push.known.keys.len() + at;
            let labels = label..entry.labels_end as usize;
            let samples = sample..entry.samples_end as usize;
            (label, sample) = (labels.end, samples.end);
            let packed = &push.fresh.labels[labels];
            let mut rest = samples.clone();
            let series = match self.memtable.find_series(self.slot, entry.id, packed) {
                Some(series) => Some(series),
                // Without a float sample (only histograms, say) there is nothing to create it for.
                None if samples.is_empty() => None,
                None => {
                    let first = (push.fresh.times[rest.start], push.fresh.values[rest.start]);
                    match self.create(push, entry.id, packed, first) {
                        Ok(series) => {
                            rest.start += 1;
                            Some(series)
                        }
                        Err(SeriesRefused { reason, limit }) => {
                            outcome.refused_series.push((at as u32, reason));
                            for _ in samples.clone() {
                                let labels = || Labels::from_packed(packed).unwrap_or_default();
                                let described = || (labels(), first.0, first.1);
                                reject(outcome, reason, limit, index, described);
                            }
                            push.fresh.times[samples].fill(NOT_STORED);
                            None
                        }
                    }
                }
            };
            outcome
                .keys
                .push(series.map(|series| self.memtable.key(series)));
            for at in series.map_or(0..0, |_| rest) {
                let (time, value) = (push.fresh.times[at], push.fresh.values[at]);
                let series = series.expect("the range is empty without a series");
                let admission = match self.memtable.is_parked(series) {
                    false => self.sample(series, time, value),
                    true => self.sample_of_parked(series, time, value),
                };
                match admission {
                    Admission::Append => {}
                    other => {
                        push.fresh.times[at] = NOT_STORED;
                        self.not_stored(outcome, other, series, (time, value), index);
                    }
                }
            }
        }
    }

    /// Whether the key names a live series of this tenant.
    #[inline(always)]
    fn is_mine(&self, key: SeriesKey) -> bool {
        self.memtable.rows.get(key.series.0).is_some_and(|row| {
            (row.generation == key.generation.0)
                & (row.tenant == self.slot)
                & (row.chunk.count() > 0)
        })
    }

    /// A sample of a live series of this tenant: admitted, logged and applied, or not stored.
    #[inline(always)]
    fn sample(&mut self, series: u32, time: i64, value: f64) -> Admission {
        let row = &mut self.memtable.rows[series];
        let (last_time, last_value) = (row.chunk.last_time(), row.chunk.last_value());
        if time <= last_time {
            if time == last_time && same_value(value, last_value) {
                return Admission::Repeated;
            }
            return self.memtable.admit_old(series, time, value, self.horizon);
        }
        let full = (time >= row.cut_time) | (row.chunk.count() >= self.memtable.chunk_samples_max);
        if self.watched | full {
            if time == NOT_STORED {
                return Admission::Rejected(RejectReason::OutOfBounds);
            }
            if self.watched {
                self.reads.before_change(self.memtable, series);
            }
            if full {
                self.memtable.cut(series, time);
            }
        }
        let segment = self.log.reserve_sample();
        let row = &mut self.memtable.rows[series];
        let base = (row.segment == segment).then_some(last_value);
        self.apply(segment, series, time, value, base);
        Admission::Append
    }

    /// Logs and appends what was admitted.
    #[inline(always)]
    fn apply(&mut self, segment: u32, series: u32, time: i64, value: f64, base: Option<f64>) {
        self.log.sample(SeriesRef(series), time, value, base);
        let row = &mut self.memtable.rows[series];
        row.segment = segment;
        row.written_s = self.now_s;
        row.chunk.append(time, value);
        self.stored += 1;
        self.newest = self.newest.max(time);
        self.oldest = self.oldest.min(time);
    }

    /// A sample of a series without an open chunk, which came with its labels.
    #[cold]
    fn sample_of_parked(&mut self, series: u32, time: i64, value: f64) -> Admission {
        if time <= self.memtable.last_time(series) {
            return self.memtable.admit_old(series, time, value, self.horizon);
        }
        if time == NOT_STORED {
            return Admission::Rejected(RejectReason::OutOfBounds);
        }
        if self.watched {
            self.reads.before_change(self.memtable, series);
        }
        self.memtable.unpark(series, time);
        let segment = self.log.reserve_sample();
        self.apply(segment, series, time, value, None);
        Admission::Append
    }

    #[cold]
    fn not_stored(
        &mut self,
        outcome: &mut PushOutcome,
        admission: Admission,
        series: u32,
        (time, value): (i64, f64),
        index: usize,
    ) {
        match admission {
            Admission::Append => unreachable!("it was stored"),
            Admission::Repeated => outcome.repeated += 1,
            Admission::Rejected(reason) => {
                let described = || (self.memtable.labels(series), time, value);
                reject(outcome, reason, 0, index, described);
            }
        }
    }

    /// A series that is not there yet, logged before its first sample.
    fn create(
        &mut self,
        push: &Push,
        id: SeriesId,
        packed: &[u8],
        first: (i64, f64),
    ) -> Result<u32, SeriesRefused> {
        let refuse = |reason| Err(SeriesRefused { reason, limit: 0 });
        if self.tight {
            return refuse(RejectReason::NoMemory);
        }
        if first.0 == NOT_STORED {
            return refuse(RejectReason::OutOfBounds);
        }
        if packed.len() > self.log.record_bytes_max() / 2 {
            return refuse(RejectReason::LabelsTooLarge);
        }
        let limits = SeriesLimits {
            per_user: push.limits.max_series_per_user,
            per_metric: push.limits.max_series_per_metric,
        };
        let series = self
            .memtable
            .create_series(self.slot, id, packed, first, limits)?;
        let key = self.memtable.key(series);
        let logged = self.log.append(&Record::Series(SeriesRecord {
            series: key.series,
            generation: key.generation,
            id,
            tenant: &push.tenant,
            labels: packed,
        }));
        logged.expect("its labels fit twice into a record");
        let segment = self.log.reserve_sample();
        self.log.sample(key.series, first.0, first.1, None);
        let row = &mut self.memtable.rows[series];
        row.segment = segment;
        row.written_s = self.now_s;
        self.stored += 1;
        self.newest = self.newest.max(first.0);
        self.oldest = self.oldest.min(first.0);
        Ok(series)
    }
}
