//! The promise on one screen: [`Core::commit`].
//!
//! Everything that has queued up goes into the log's open group and into the memtable in one pass, the group is submitted, and
//! replies go out that the log has caught up with. While a write is in flight the next group fills, so a commit needs no timer:
//! the slower the disk, the larger the groups.
//!
//! A sample of a known series costs its row (two cache lines, asked for some samples ahead), one to ten bytes of log and
//! a few bits of chunk. Nothing is allocated, hashed or looked up. Native histograms and exemplars (`Pass::other`) cost a record of the log
//! each and what their size asks for, the start of a counter a record when it is news.

use std::borrow::Cow;
use std::ops::Range;

use model::{
    Ack, Exemplar, HistogramSample, Labels, SeriesId, SeriesKey, SeriesRef, TenantId, TenantLimits,
    TimeMs, same_value,
};
use wal::{Error, Log, LoggedSample, Record, SeriesRecord};

use crate::core::Core;
use crate::limits::{COMMIT_SAMPLES_MAX, LATE_COST, LATE_RECORD_SAMPLES, ROWS_AHEAD, WORDS_AHEAD};
use crate::memtable::Memtable;
use crate::memtable::append::{Admission, Bounds, SeriesLimits, SeriesRefused};
use crate::memtable::exemplars::Judgement;
use crate::memtable::gc::seconds;
use crate::memtable::native::Value;
use crate::memtable::starts::Start;
use crate::message::{
    CounterStart, OtherSample, OtherValue, Push, PushOutcome, Refusal, RejectReason, Rejection,
    Zero, exemplars_share,
};
use crate::read::Reads;
use crate::release::{NOT_STORED, Pushed, Reply};

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
                let reply = Reply::Push(Box::new(Pushed {
                    push,
                    outcome: PushOutcome::default(),
                    late: Vec::new(),
                }));
                reply.send(Err(refusal), self.id, &self.mailboxes);
                continue;
            }
            samples += push.known.keys.len() + push.fresh.times.len() + 1;
            samples += push.fresh.series.len() * FRESH_COST;
            samples += (push.others.known.len() + push.others.fresh.len()) * OTHER_COST;
            let ack = push.limits.ack;
            let (outcome, late) = self.store(&mut push);
            samples += late.len() * LATE_COST;
            let reply = Reply::Push(Box::new(Pushed {
                push,
                outcome,
                late,
            }));
            self.release.wait(ack, self.log.tail(), reply);
            durable |= ack == Ack::Durable;
        }
        self.submit(durable);
        self.release_now();
    }

    /// Step 3 for one push. Tells too which samples came late: series and time.
    fn store(&mut self, push: &mut Push) -> (PushOutcome, Vec<(u32, i64)>) {
        let slot = self.memtable.tenant_slot(&push.tenant);
        let tenant = self.memtable.tenant_mut(slot);
        tenant.take_over(&push.limits);
        tenant.pushed_ms = self.wall_ms;
        let mut outcome = PushOutcome::default();
        let mut pass = Pass {
            slot,
            watched: self.reads.watch(slot),
            bounds: Bounds {
                horizon: self.memtable.horizon(slot, self.wall_ms),
                window_ms: window_ms(&push.limits),
                tight: self.memory.is_tight(),
            },
            now_s: seconds(self.wall_ms),
            memtable: &mut self.memtable,
            log: &mut self.log,
            reads: &mut self.reads,
            exemplars_max: exemplars_share(push.limits.max_exemplars, self.mailboxes.count()),
            told: 0,
            stored: 0,
            histograms: 0,
            zeros: 0,
            zero_histograms: 0,
            newest: i64::MIN,
            oldest: i64::MAX,
            late: Vec::new(),
            late_floats: Vec::new(),
        };
        pass.known(push, &mut outcome);
        pass.told = outcome.rejected.len();
        pass.fresh(push, &mut outcome);
        pass.log_late_floats();
        let Pass {
            stored,
            histograms,
            zeros,
            zero_histograms,
            oldest,
            newest,
            late,
            ..
        } = pass;
        self.memtable.tenant_mut(slot).tail = self.log.tail();
        if stored + histograms > 0 {
            self.memtable
                .note_samples(slot, u64::from(stored + histograms), oldest, newest);
            self.mailboxes.changes().note(&push.tenant, oldest);
        }
        // What nobody sent is not told as written.
        outcome.stored = stored - zeros;
        outcome.histograms = histograms - zero_histograms;
        outcome.late = late.len() as u32;
        for rejection in &outcome.rejected {
            let count = match rejection.reason {
                RejectReason::NoMemory => &mut self.counts.no_memory,
                _ => &mut self.counts.rejected,
            };
            *count += u64::from(rejection.count);
        }
        self.counts.repeated += u64::from(outcome.repeated);
        self.counts.late += u64::from(outcome.late);
        (outcome, late)
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

/// What a series with labels counts for in the budget of a turn beside its samples: making one takes about a microsecond, finding it somewhat less. Without it
/// the first scrape of a large sender kept a core busy for 20 to 30 ms at a time.
const FRESH_COST: usize = 16;

/// What a histogram or an exemplar counts for in the budget of a turn, in float samples.
const OTHER_COST: usize = 20;

/// How far behind the newest sample of its series a sample may be.
fn window_ms(limits: &TenantLimits) -> i64 {
    i64::try_from(limits.out_of_order_time_window.as_millis()).unwrap_or(i64::MAX)
}

/// An upper bound of what a push takes in the log.
fn log_bytes_max(push: &Push) -> usize {
    let samples = push.known.keys.len() + push.fresh.times.len();
    let series = push.fresh.series.len() * (wal::SAMPLE_ROOM + 64);
    // Late ones are a record of their own, and the samples behind it begin another.
    let records = 1 + samples / LATE_RECORD_SAMPLES * 2;
    let mut bytes = samples * wal::SAMPLE_BYTES_MAX
        + series
        + push.fresh.labels.len()
        + (records + 1) * wal::SAMPLE_ROOM;
    if !push.others.is_empty() {
        let known = push.others.known.iter().map(|other| &other.value);
        let fresh = push.others.fresh.iter().map(|other| &other.value);
        bytes += known.chain(fresh).map(other_bytes_max).sum::<usize>();
    }
    bytes
}

fn other_bytes_max(value: &OtherValue) -> usize {
    // Header, ref and time of its record, and those of the samples record that begins behind it.
    2 * wal::SAMPLE_ROOM
        + match value {
            OtherValue::Histogram(histogram) => chunk::histogram_bytes_max(histogram),
            OtherValue::Exemplar(exemplar) => exemplar.labels.packed().len() + 8,
            OtherValue::Start(start) => {
                wal::SAMPLE_ROOM
                    + match &start.zero {
                        Zero::None => 0,
                        Zero::Float => wal::SAMPLE_BYTES_MAX,
                        Zero::Histogram(histogram) => chunk::histogram_bytes_max(histogram),
                    }
            }
        }
}

/// Counts a refused sample; the first of each reason is described. `told` are the rejections before those that it may be counted with.
#[cold]
fn reject(
    (outcome, told): (&mut PushOutcome, usize),
    reason: RejectReason,
    limit: u64,
    index: usize,
    first: impl FnOnce() -> (Labels, i64, f64),
) {
    let mut alike = outcome.rejected[told..].iter_mut();
    match alike.find(|r| r.reason == reason) {
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
    bounds: Bounds,
    now_s: u32,
    exemplars_max: usize,
    /// How many rejections of known series there are, once those have had their turn. Series with labels may stand before them in the body, and only
    /// who has the body can compare the two: so the first of each reason is told of either.
    told: usize,
    /// Floats.
    stored: u32,
    histograms: u32,
    /// Of `stored`: zeros at the start of a counter.
    zeros: u32,
    /// Of `histograms`: the same.
    zero_histograms: u32,
    newest: i64,
    oldest: i64,
    /// What came late: series and time.
    late: Vec<(u32, i64)>,
    /// Of these, floats that are not in the log yet.
    late_floats: Vec<LoggedSample>,
}

impl Pass<'_> {
    /// What is of known series, in the order of the body.
    fn known(&mut self, push: &mut Push, outcome: &mut PushOutcome) {
        let count = push.known.keys.len();
        for key in push.known.keys.iter().take(ROWS_AHEAD) {
            self.memtable.rows.prefetch(key.series.0);
        }
        if push.others.known.is_empty() {
            return self.known_floats(push, 0..count, outcome);
        }
        let mut others = std::mem::take(&mut push.others.known);
        let mut from = 0;
        for (at, other) in others.iter_mut().enumerate() {
            let before = (other.before as usize).clamp(from, count);
            self.known_floats(push, from..before, outcome);
            from = before;
            if !self.is_mine(other.series) {
                outcome.dead_others.push(at as u32);
                other.time = NOT_STORED;
                continue;
            }
            let index = count + push.fresh.series.len() + at;
            self.other(other.series.series.0, other, outcome, index);
        }
        self.known_floats(push, from..count, outcome);
        push.others.known = others;
    }

    /// Samples of known series. Some samples ahead the row is asked for, a few ahead the place in its chunk's buffer: in an order that
    /// is not that of memory their misses would otherwise be waited for one after another.
    fn known_floats(&mut self, push: &mut Push, part: Range<usize>, outcome: &mut PushOutcome) {
        let known = &mut push.known;
        let ahead = &known.keys[..];
        let (keys, times, values) = (
            &known.keys[..part.end],
            &mut known.times[..part.end],
            &known.values[..part.end],
        );
        for at in part {
            if let Some(key) = ahead.get(at + ROWS_AHEAD) {
                self.memtable.rows.prefetch(key.series.0);
            }
            if let Some(row) = ahead
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

    /// Series with labels, and what they have.
    fn fresh(&mut self, push: &mut Push, outcome: &mut PushOutcome) {
        let (mut label, mut sample, mut other) = (0, 0, 0);
        let mut others = std::mem::take(&mut push.others.fresh);
        for at in 0..push.fresh.series.len() {
            let entry = push.fresh.series[at];
            let index = push.known.keys.len() + at;
            let packed = &push.fresh.labels[label..entry.labels_end as usize];
            let samples = sample..entry.samples_end as usize;
            (label, sample) = (entry.labels_end as usize, samples.end);
            let found = self.memtable.find_series(self.slot, entry.id, packed);
            let mut series = Fresh {
                entry: (&push.tenant, &push.limits, entry.id, packed),
                series: Ok(found),
                start: None,
                at,
                index,
            };
            let mut next = samples.start;
            while let Some(one) = others.get_mut(other).filter(|o| o.series as usize == at) {
                let before = (one.before as usize).clamp(next, samples.end);
                for time in next..before {
                    let value = push.fresh.values[time];
                    self.fresh_float(&mut series, &mut push.fresh.times[time], value, outcome);
                }
                self.fresh_other(&mut series, one, outcome);
                (next, other) = (before, other + 1);
            }
            for time in next..samples.end {
                let value = push.fresh.values[time];
                self.fresh_float(&mut series, &mut push.fresh.times[time], value, outcome);
            }
            let start = series.start;
            let series = series.series.ok().flatten();
            if let (Some(series), Some(start)) = (series, start) {
                self.keep_start(series, start, outcome);
            }
            outcome
                .keys
                .push(series.map(|series| self.memtable.key(series)));
        }
        push.others.fresh = others;
    }

    /// A float of a series with labels; `time` is set to [`NOT_STORED`] where it is not stored.
    fn fresh_float(
        &mut self,
        fresh: &mut Fresh<'_>,
        time: &mut i64,
        value: f64,
        outcome: &mut PushOutcome,
    ) {
        let at = *time;
        if let Ok(Some(series)) = fresh.series {
            let admission = match self.memtable.is_parked(series) {
                false => self.sample(series, at, value),
                true => self.sample_of_parked(series, at, value),
            };
            match admission {
                Admission::Append => {}
                other => {
                    *time = NOT_STORED;
                    self.not_stored(outcome, other, series, (at, value), fresh.index);
                }
            }
        } else if !self.begin(fresh, (at, Value::Float(value)), outcome) {
            *time = NOT_STORED;
        }
    }

    /// As [`Pass::fresh_float`], of what is no float.
    #[cold]
    fn fresh_other(
        &mut self,
        fresh: &mut Fresh<'_>,
        other: &mut OtherSample<u32>,
        outcome: &mut PushOutcome,
    ) {
        if let Ok(Some(series)) = fresh.series {
            return self.other(series, other, outcome, fresh.index);
        }
        match &other.value {
            OtherValue::Histogram(histogram) => {
                let first = (other.time, Value::Histogram(histogram));
                if !self.begin(fresh, first, outcome) {
                    other.time = NOT_STORED;
                }
            }
            OtherValue::Start(start) => {
                let from = std::mem::replace(&mut other.time, NOT_STORED);
                if self.begin_with_zero(fresh, from, start, outcome) {
                    other.time = start.start;
                }
                fresh.start = Some(started(from, start.start));
            }
            // A series begins with a sample.
            OtherValue::Exemplar(_) => drop_exemplar(outcome, "unknown_series"),
        }
    }

    /// Makes the series with its first sample, unless it was refused before. False: the sample is not stored.
    fn begin(
        &mut self,
        fresh: &mut Fresh<'_>,
        first: (i64, Value<'_>),
        outcome: &mut PushOutcome,
    ) -> bool {
        let too_large = match first.1 {
            Value::Histogram(histogram) => !self.fits(histogram),
            Value::Float(_) => false,
        };
        if let (Ok(None), false) = (fresh.series, too_large) {
            fresh.series = self.create(fresh.entry, first).map(Some);
            if let Err(refused) = &fresh.series {
                outcome
                    .refused_series
                    .push((fresh.at as u32, refused.reason));
            }
        }
        let SeriesRefused { reason, limit } = match fresh.series {
            Ok(Some(_)) => return true,
            Err(refused) => refused,
            // Only this one is refused: the next may begin the series.
            Ok(None) => SeriesRefused {
                reason: RejectReason::HistogramTooLarge,
                limit: 0,
            },
        };
        let packed = fresh.entry.3;
        let described = || {
            let value = match first.1 {
                Value::Float(value) => value,
                Value::Histogram(_) => f64::NAN,
            };
            let labels = Labels::from_packed(packed).unwrap_or_default();
            (labels, first.0, value)
        };
        reject((outcome, self.told), reason, limit, fresh.index, described);
        false
    }

    /// A histogram or an exemplar of a live series of this tenant; its time is set to [`NOT_STORED`] where it is not stored.
    #[cold]
    fn other<S>(
        &mut self,
        series: u32,
        other: &mut OtherSample<S>,
        outcome: &mut PushOutcome,
        index: usize,
    ) {
        match &other.value {
            OtherValue::Histogram(histogram) => {
                match self.histogram(series, other.time, histogram) {
                    Admission::Append => {}
                    admission => {
                        let at = (std::mem::replace(&mut other.time, NOT_STORED), f64::NAN);
                        outcome.histograms_repeated += u32::from(admission == Admission::Repeated);
                        self.not_stored(outcome, admission, series, at, index);
                    }
                }
            }
            OtherValue::Exemplar(exemplar) => {
                // Exemplars say nothing about the samples of a series.
                other.time = NOT_STORED;
                self.exemplar(series, exemplar, outcome);
            }
            OtherValue::Start(counter) => {
                let from = std::mem::replace(&mut other.time, NOT_STORED);
                if self.start(series, from, counter, outcome) {
                    other.time = counter.start;
                }
            }
        }
    }

    /// When the counter of a sample to come began. If that is news it is logged and kept, and a zero is stored at the start where the
    /// tenant wants it and it is in order; false without one.
    fn start(
        &mut self,
        series: u32,
        from: i64,
        counter: &CounterStart,
        outcome: &mut PushOutcome,
    ) -> bool {
        let start = started(from, counter.start);
        let held = &self.memtable.tenant(self.slot).starts;
        // In tight memory nothing is kept, as of exemplars: a repeat may be.
        if !held.is_news(series, start)
            || from < self.memtable.last_time(series)
            || self.bounds.tight
        {
            outcome.starts_ignored += u32::from(!held.is_known(series, start));
            return false;
        }
        let zero =
            self.wants_zero(from, counter) && counter.start > self.memtable.last_time(series);
        let stored = zero && self.zero(series, counter);
        self.keep_start(series, start, outcome);
        stored
    }

    /// Whether a zero belongs at the start of a counter: it must be before the sample, and not older than what the tenant keeps.
    fn wants_zero(&self, from: i64, counter: &CounterStart) -> bool {
        let fits = match &counter.zero {
            Zero::None => false,
            Zero::Float => true,
            Zero::Histogram(histogram) => self.fits(histogram),
        };
        fits && counter.start < from && counter.start >= self.bounds.horizon
    }

    /// Stores a zero behind the last sample of a series.
    fn zero(&mut self, series: u32, counter: &CounterStart) -> bool {
        let admission = match &counter.zero {
            Zero::None => return false,
            Zero::Float if self.memtable.is_parked(series) => {
                self.sample_of_parked(series, counter.start, 0.0)
            }
            Zero::Float => self.sample(series, counter.start, 0.0),
            Zero::Histogram(histogram) => self.histogram(series, counter.start, histogram),
        };
        let stored = admission == Admission::Append;
        self.count_zero(&counter.zero, stored);
        stored
    }

    fn count_zero(&mut self, zero: &Zero, stored: bool) {
        match zero {
            Zero::Float => self.zeros += u32::from(stored),
            Zero::Histogram(_) => self.zero_histograms += u32::from(stored),
            Zero::None => {}
        }
    }

    /// Makes a series with the zero at the start of its counter; false where it is made already, or by its first sample. A refusal is
    /// counted when that comes.
    fn begin_with_zero(
        &mut self,
        fresh: &mut Fresh<'_>,
        from: i64,
        counter: &CounterStart,
        outcome: &mut PushOutcome,
    ) -> bool {
        if !matches!(fresh.series, Ok(None)) || !self.wants_zero(from, counter) {
            return false;
        }
        let value = match &counter.zero {
            Zero::Histogram(histogram) => Value::Histogram(histogram),
            Zero::Float | Zero::None => Value::Float(0.0),
        };
        fresh.series = self.create(fresh.entry, (counter.start, value)).map(Some);
        match &fresh.series {
            Err(refused) => {
                let refused = (fresh.at as u32, refused.reason);
                outcome.refused_series.push(refused);
                false
            }
            Ok(_) => {
                self.count_zero(&counter.zero, true);
                true
            }
        }
    }

    fn keep_start(&mut self, series: u32, start: Start, outcome: &mut PushOutcome) {
        let held = &mut self.memtable.tenant_mut(self.slot).starts;
        if !held.is_news(series, start) {
            outcome.starts_ignored += u32::from(!held.is_known(series, start));
            return;
        }
        let logged = self.log.append(&Record::StartTimestamp {
            series: SeriesRef(series),
            time: start.from,
            start: start.start,
        });
        logged.expect("it is a few bytes");
        held.put(series, start);
    }

    /// As [`Pass::sample`].
    fn histogram(&mut self, series: u32, time: i64, histogram: &HistogramSample) -> Admission {
        if !self.fits(histogram) {
            return Admission::Rejected(RejectReason::HistogramTooLarge);
        }
        let admission = self
            .memtable
            .admit_histogram(series, time, histogram, self.bounds);
        if admission == Admission::Late {
            self.late(series, time, Value::Histogram(histogram));
        }
        if admission != Admission::Append {
            return admission;
        }
        if self.watched {
            self.reads.before_change(self.memtable, series);
        }
        self.log_histogram(series, time, histogram);
        self.memtable.append_histogram(series, time, histogram);
        self.memtable.rows[series].written_s = self.now_s;
        Admission::Append
    }

    /// A record of the log holds it, and so does a chunk of its own.
    fn fits(&self, histogram: &HistogramSample) -> bool {
        chunk::is_codable(histogram)
            && chunk::histogram_bytes_max(histogram) <= self.log.record_bytes_max() / 2
    }

    fn log_histogram(&mut self, series: u32, time: i64, histogram: &HistogramSample) {
        let logged = self.log.append(&Record::Histogram {
            series: SeriesRef(series),
            time: TimeMs(time),
            histogram: Cow::Borrowed(histogram),
        });
        logged.expect("it fits twice into a record");
        self.histograms += 1;
        self.newest = self.newest.max(time);
        self.oldest = self.oldest.min(time);
    }

    fn exemplar(&mut self, series: u32, exemplar: &Exemplar, outcome: &mut PushOutcome) {
        if self.exemplars_max == 0 {
            return drop_exemplar(outcome, "exemplars_disabled");
        }
        if exemplar.labels.packed().len() > self.log.record_bytes_max() / 2 {
            return drop_exemplar(outcome, "exemplar_labels_too_long");
        }
        if self.bounds.tight {
            return drop_exemplar(outcome, "memory_limit");
        }
        let held = &mut self.memtable.tenant_mut(self.slot).exemplars;
        match held.judge(series, exemplar) {
            Judgement::Keep => {}
            Judgement::Repeated => {
                outcome.exemplars += 1;
                return;
            }
            Judgement::OutOfOrder => return drop_exemplar(outcome, "exemplar_out_of_order"),
        }
        let logged = self.log.append(&Record::Exemplar {
            series: SeriesRef(series),
            exemplar: Cow::Borrowed(exemplar),
        });
        logged.expect("its labels fit twice into a record");
        held.put(series, exemplar.clone(), self.exemplars_max);
        outcome.exemplars += 1;
    }

    /// Whether the key names a live series of this tenant that has an open chunk.
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
            return self.old(series, time, value);
        }
        let full = (time >= row.cut_time) | (row.chunk.count() >= self.memtable.chunk_samples_max);
        if self.watched | full {
            if time == NOT_STORED {
                return Admission::Rejected(RejectReason::OutOfBounds);
            }
            if full && self.memtable.holds_histograms(series) {
                let (memtable, bounds) = (&mut *self.memtable, self.bounds);
                let admission =
                    memtable.admit_float_after_histograms(series, (time, value), bounds);
                if admission == Admission::Late {
                    self.late(series, time, Value::Float(value));
                }
                if admission != Admission::Append {
                    return admission;
                }
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

    /// A float that is not after the last sample of its series.
    #[cold]
    fn old(&mut self, series: u32, time: i64, value: f64) -> Admission {
        let value = Value::Float(value);
        let admission = self.memtable.admit_old(series, time, value, self.bounds);
        if admission == Admission::Late {
            self.late(series, time, value);
        }
        admission
    }

    /// Logs and keeps a sample that was admitted as late.
    #[cold]
    fn late(&mut self, series: u32, time: i64, value: Value<'_>) {
        if self.watched {
            self.reads.before_late(self.memtable, series);
        }
        match value {
            Value::Float(value) => {
                let series = SeriesRef(series);
                self.late_floats.push(LoggedSample {
                    series,
                    time,
                    value,
                });
                if self.late_floats.len() == LATE_RECORD_SAMPLES {
                    self.log_late_floats();
                }
                self.stored += 1;
            }
            Value::Histogram(histogram) => {
                let logged = self.log.append(&Record::LateHistogram {
                    series: SeriesRef(series),
                    time: TimeMs(time),
                    histogram: Cow::Borrowed(histogram),
                });
                logged.expect("it fits twice into a record");
                self.histograms += 1;
            }
        }
        self.memtable.put_late(series, time, value);
        self.memtable.rows[series].written_s = self.now_s;
        self.newest = self.newest.max(time);
        self.oldest = self.oldest.min(time);
        self.late.push((series, time));
    }

    fn log_late_floats(&mut self) {
        if self.late_floats.is_empty() {
            return;
        }
        let logged = self.log.append(&Record::LateSamples(&self.late_floats));
        logged.expect("so few fit into any record");
        self.late_floats.clear();
    }

    /// A sample of a series without an open chunk, which came with its labels.
    #[cold]
    fn sample_of_parked(&mut self, series: u32, time: i64, value: f64) -> Admission {
        if time <= self.memtable.last_time(series) {
            return self.old(series, time, value);
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
            Admission::Late => {} // Kept beside the others.
            Admission::Repeated => outcome.repeated += 1,
            Admission::Rejected(reason) => {
                let described = || (self.memtable.labels(series), time, value);
                reject((outcome, self.told), reason, 0, index, described);
            }
        }
    }

    /// A series that is not there yet, logged before its first sample.
    fn create(
        &mut self,
        (tenant, limits, id, packed): (&TenantId, &TenantLimits, SeriesId, &[u8]),
        (time, value): (i64, Value<'_>),
    ) -> Result<u32, SeriesRefused> {
        let refuse = |reason| Err(SeriesRefused { reason, limit: 0 });
        if self.bounds.tight {
            return refuse(RejectReason::NoMemory);
        }
        if time == NOT_STORED {
            return refuse(RejectReason::OutOfBounds);
        }
        if packed.len() > self.log.record_bytes_max() / 2 {
            return refuse(RejectReason::LabelsTooLarge);
        }
        let limits = SeriesLimits {
            per_user: limits.series_per_user(),
            per_metric: limits.series_per_metric(),
        };
        let series = match value {
            Value::Float(value) => {
                let first = (time, value);
                self.memtable
                    .create_series(self.slot, id, packed, first, limits)?
            }
            Value::Histogram(histogram) => {
                let first = (time, histogram);
                self.memtable
                    .create_histogram_series(self.slot, id, packed, first, limits)?
            }
        };
        let key = self.memtable.key(series);
        let logged = self.log.append(&Record::Series(SeriesRecord {
            series: key.series,
            generation: key.generation,
            id,
            tenant,
            labels: packed,
        }));
        logged.expect("its labels fit twice into a record");
        match value {
            Value::Float(value) => {
                let segment = self.log.reserve_sample();
                self.log.sample(key.series, time, value, None);
                self.memtable.rows[series].segment = segment;
                self.stored += 1;
                self.newest = self.newest.max(time);
                self.oldest = self.oldest.min(time);
            }
            Value::Histogram(histogram) => self.log_histogram(series, time, histogram),
        }
        self.memtable.rows[series].written_s = self.now_s;
        self.memtable.tenant_mut(self.slot).count_active();
        Ok(series)
    }
}

/// A series of a push that comes with its labels.
struct Fresh<'a> {
    /// Whose it is, under which limits, its identity and packed labels.
    entry: (&'a TenantId, &'a TenantLimits, SeriesId, &'a [u8]),
    /// Its number, none yet, or why it cannot be made.
    series: Result<Option<u32>, SeriesRefused>,
    /// When its counter began, if the series is not there yet.
    start: Option<Start>,
    /// Its position in `fresh.series`.
    at: usize,
    /// How a rejection names it.
    index: usize,
}

fn started(from: i64, start: i64) -> Start {
    Start {
        from: TimeMs(from),
        start: TimeMs(start),
    }
}

fn drop_exemplar(outcome: &mut PushOutcome, reason: &'static str) {
    let dropped = &mut outcome.exemplars_dropped;
    match dropped.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, count)) => *count += 1,
        None => dropped.push((reason, 1)),
    }
}
