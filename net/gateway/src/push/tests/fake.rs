//! Cores that are a map: they keep samples, give out keys, let keys die, refuse on demand and can hold a reply back.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use model::{CoreId, Generation, Labels, SeriesId, SeriesKey, SeriesRef, TenantId, same_value};
use shard::{OtherValue, Push, PushOutcome, Refusal, RejectReason, Rejection, Zero};

use super::super::{Cores, Sleepers};
use crate::distributor::texts;
use crate::push::Spread;

#[derive(Default)]
struct Series {
    tenant: String,
    labels: Option<Labels>,
    samples: Vec<(i64, f64)>,
    alive: bool,
}

#[derive(Default)]
struct State {
    /// By core; a key's series is an index into its core's list.
    series: Vec<Vec<Series>>,
    by_id: HashMap<(u16, SeriesId), SeriesKey>,
    full: Vec<u16>,
    refuse_next: Option<Refusal>,
    vanish_next: bool,
    hold_next: bool,
    /// Bytes that the last push came with, on all cores.
    credits: u64,
    held: Vec<Box<dyn FnOnce() + Send>>,
    known_samples: usize,
    fresh_series: usize,
    /// Bytes waiting and allowed, of cores for which a test has said so.
    queues: HashMap<u16, (u64, u64)>,
    woken: Vec<CoreId>,
    series_max: Option<usize>,
    /// Histograms and exemplars as they came, in words.
    others: Vec<String>,
}

pub(super) struct FakeCores {
    count: u16,
    state: Mutex<State>,
}

impl FakeCores {
    pub(super) fn new(count: u16) -> FakeCores {
        let mut state = State::default();
        state.series.resize_with(usize::from(count), Vec::new);
        FakeCores {
            count,
            state: Mutex::new(state),
        }
    }

    /// Samples sent by key, series sent with labels.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.known_samples, state.fresh_series)
    }

    /// Label text to samples, of one tenant, over all cores.
    pub(super) fn contents(&self, tenant: &str) -> BTreeMap<String, Vec<(i64, f64)>> {
        let state = self.lock();
        let alive = state
            .series
            .iter()
            .flatten()
            .filter(|s| s.alive && s.tenant == tenant);
        let text = |s: &Series| texts::label_set(s.labels.as_ref().expect("alive").iter());
        alive.map(|s| (text(s), s.samples.clone())).collect()
    }

    /// Histograms and exemplars as they came, in words.
    pub(super) fn others(&self) -> Vec<String> {
        self.lock().others.clone()
    }

    /// Forgets all series of a metric name; their keys are dead.
    pub(super) fn kill(&self, name: &str) {
        let state = &mut *self.lock();
        for (core, all) in state.series.iter_mut().enumerate() {
            for (i, one) in all.iter_mut().enumerate() {
                if one.alive && one.labels.as_ref().and_then(|l| l.metric_name()) == Some(name) {
                    one.alive = false;
                    state.by_id.retain(|(c, _), key| {
                        usize::from(*c) != core || key.series.0 as usize != i
                    });
                }
            }
        }
    }

    pub(super) fn fill(&self, core: u16) {
        self.lock().full.push(core);
    }

    /// No more than so many living series.
    pub(super) fn limit_series(&self, max: usize) {
        self.lock().series_max = Some(max);
    }

    pub(super) fn set_queue(&self, core: u16, bytes: u64, max: u64) {
        self.lock().queues.insert(core, (bytes, max));
    }

    /// Cores that were woken since this was asked last, in order.
    pub(super) fn woken(&self) -> Vec<CoreId> {
        std::mem::take(&mut self.lock().woken)
    }

    pub(super) fn drain(&self) {
        self.lock().full.clear();
    }

    pub(super) fn refuse_next(&self, refusal: Refusal) {
        self.lock().refuse_next = Some(refusal);
    }

    /// The next push is dropped without a reply.
    pub(super) fn vanish_next(&self) {
        self.lock().vanish_next = true;
    }

    /// The next reply waits for [`FakeCores::release`].
    pub(super) fn hold_next(&self) {
        self.lock().hold_next = true;
    }

    /// Bytes that the last push came with, on all cores.
    pub(super) fn credits(&self) -> u64 {
        self.lock().credits
    }

    pub(super) fn release(&self) {
        let held = std::mem::take(&mut self.lock().held);
        held.into_iter().for_each(|reply| reply());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Cores for FakeCores {
    fn spread(&self) -> Spread {
        Spread::here(self.count)
    }

    fn wake(&self, core: CoreId) {
        self.lock().woken.push(core);
    }

    fn queue(&self, core: CoreId) -> (u64, u64) {
        self.lock()
            .queues
            .get(&core.0)
            .copied()
            .unwrap_or((0, u64::MAX))
    }

    fn push(&self, parts: Vec<(CoreId, u32, Push)>) -> Result<Sleepers, Refusal> {
        let state = &mut *self.lock();
        assert!(
            parts.is_sorted_by_key(|(core, _, _)| *core),
            "one part a core, in order"
        );
        for (core, bytes, _) in &parts {
            assert!(*bytes > 0);
            if state.full.contains(&core.0) {
                return Err(Refusal::QueueFull(core.0));
            }
        }
        state.credits = parts.iter().map(|(_, bytes, _)| u64::from(*bytes)).sum();
        let sleepers = parts.iter().map(|(core, _, _)| *core).collect();
        for (core, _, push) in parts {
            if std::mem::take(&mut state.vanish_next) {
                continue;
            }
            let refused = state.refuse_next.take();
            let outcome = match refused {
                Some(refusal) => PushOutcome {
                    refused: Some(refusal),
                    ..PushOutcome::default()
                },
                None => state.apply(core, &push),
            };
            let reply = push.reply;
            if std::mem::take(&mut state.hold_next) {
                state.held.push(Box::new(move || reply(outcome)));
            } else {
                reply(outcome);
            }
        }
        Ok(sleepers)
    }
}

impl State {
    fn apply(&mut self, core: CoreId, push: &Push) -> PushOutcome {
        let mut outcome = PushOutcome::default();
        let known = &push.known;
        assert_eq!(known.keys.len(), known.times.len());
        assert_eq!(known.keys.len(), known.values.len());
        self.known_samples += known.keys.len();
        for (i, key) in known.keys.iter().enumerate() {
            let at = key.series.0 as usize;
            let there = self.series[usize::from(core.0)].get(at);
            if there.is_none_or(|s| !s.alive || s.tenant != push.tenant.as_str()) {
                outcome.dead.push(i as u32);
                continue;
            }
            self.append(
                core,
                at,
                known.times[i],
                known.values[i],
                i as u32,
                &mut outcome,
            );
        }
        let fresh = &push.fresh;
        self.fresh_series += fresh.series.len();
        let (mut label, mut sample) = (0, 0);
        for (i, one) in fresh.series.iter().enumerate() {
            let packed = &fresh.labels[label..one.labels_end as usize];
            label = one.labels_end as usize;
            let labels = Labels::from_packed(packed).expect("the gateway sends canonical labels");
            let alive = self.series.iter().flatten().filter(|s| s.alive).count();
            if !self.by_id.contains_key(&(core.0, one.id))
                && self.series_max.is_some_and(|max| alive >= max)
            {
                let reason = RejectReason::PerUserSeriesLimit;
                outcome.refused_series.push((i as u32, reason));
                outcome.keys.push(None);
                outcome.rejected.push(Rejection {
                    reason,
                    count: one.samples_end - sample as u32,
                    first: (labels, fresh.times[sample], fresh.values[sample]),
                    limit: self.series_max.unwrap_or(0) as u64,
                    first_index: (known.keys.len() + i) as u32,
                });
                sample = one.samples_end as usize;
                continue;
            }
            let key = self.key(core, &push.tenant, one.id, labels);
            let index = (known.keys.len() + i) as u32;
            for s in sample..one.samples_end as usize {
                let at = key.series.0 as usize;
                self.append(
                    core,
                    at,
                    fresh.times[s],
                    fresh.values[s],
                    index,
                    &mut outcome,
                );
            }
            let others = push.others.fresh.iter().any(|o| o.series as usize == i);
            assert!(
                one.samples_end as usize > sample || others,
                "a series comes with samples"
            );
            sample = one.samples_end as usize;
            outcome.keys.push(Some(key));
        }
        assert_eq!((label, sample), (fresh.labels.len(), fresh.times.len()));
        let known = push
            .others
            .known
            .iter()
            .map(|o| (o.before, o.time, &o.value));
        let fresh = push
            .others
            .fresh
            .iter()
            .map(|o| (o.before, o.time, &o.value));
        for (before, time, value) in known.chain(fresh) {
            let kind = match value {
                OtherValue::Histogram(_) => "histogram",
                OtherValue::Exemplar(_) => "exemplar",
                OtherValue::Start(counter) => {
                    outcome.starts_ignored += u32::from(counter.start > time);
                    let zero = match counter.zero {
                        Zero::None => "",
                        Zero::Float => " zero",
                        Zero::Histogram(_) => " zero histogram",
                    };
                    &format!("start {}{zero} of", counter.start)
                }
            };
            self.others.push(format!("{kind} {time} before {before}"));
            outcome.histograms += u32::from(kind == "histogram");
            outcome.exemplars += u32::from(kind == "exemplar");
        }
        outcome
    }

    fn key(&mut self, core: CoreId, tenant: &TenantId, id: SeriesId, labels: Labels) -> SeriesKey {
        let mut scratch = Vec::new();
        assert_eq!(
            id,
            model::identity::series_id(tenant, labels.packed(), &mut scratch)
        );
        let placement = model::identity::placement(tenant, &labels, &mut scratch);
        assert_eq!(
            core,
            model::identity::core_of(placement, self.series.len() as u16)
        );
        let all = &mut self.series[usize::from(core.0)];
        *self.by_id.entry((core.0, id)).or_insert_with(|| {
            all.push(Series {
                tenant: tenant.as_str().to_owned(),
                labels: Some(labels),
                samples: Vec::new(),
                alive: true,
            });
            SeriesKey {
                series: SeriesRef(all.len() as u32 - 1),
                generation: Generation(1),
            }
        })
    }

    fn append(
        &mut self,
        core: CoreId,
        at: usize,
        time: i64,
        value: f64,
        index: u32,
        outcome: &mut PushOutcome,
    ) {
        let series = &mut self.series[usize::from(core.0)][at];
        let is_there = |&(at, v): &(i64, f64)| at == time && same_value(v, value);
        if series.samples.iter().any(is_there) {
            outcome.repeated += 1;
            return;
        }
        let reason = match series.samples.last() {
            Some(&(last, _)) if last == time => RejectReason::NewValueForTimestamp,
            Some(&(last, _)) if last > time => RejectReason::OutOfOrder,
            _ => {
                series.samples.push((time, value));
                outcome.stored += 1;
                return;
            }
        };
        let first = (series.labels.clone().expect("alive"), time, value);
        outcome.rejected.push(Rejection {
            reason,
            count: 1,
            first,
            limit: 0,
            first_index: index,
        });
    }
}
