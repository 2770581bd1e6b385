//! A gateway in small: it sends pushes and reads, keeps aliases, remembers what it sent and what was acknowledged.
//!
//! The checker is independent of everything it checks: a map from series and time to the values ever sent, and to the value
//! acknowledged. *Acknowledged means readable*, and *nothing that was not sent*. Where the stored value is not in memory any more, another one of its time
//! may be taken: then only what was sent later may stand in place of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use block::{Catalog, FoundRun, Gone, Run};

use ::model::{
    Ack, CoreId, Exemplar, FloatHistogram, Histogram, HistogramSample, Labels, Matcher, SeriesKey,
    Span, TenantId, TenantLimits, TimeMs, TimeRange, identity,
};

use crate::message::*;
use crate::{Mailboxes, Permits};

/// A series as the client names it.
pub(crate) type Name = (TenantId, Labels);

/// Samples of one push, in the order of the body: the same series may come more than once. Values below zero stand for native histograms
/// ([`histogram_of`]), so that everything that is checked of floats is checked of them, and of series that have both.
pub(crate) type Body = Vec<(Labels, i64, f64)>;

/// The histogram that is sent instead of this value, if it stands for one: layout, counts and kind all follow from its bits.
pub(crate) fn histogram_of(value: f64) -> Option<HistogramSample> {
    if value >= 0.0 {
        return None;
    }
    let bits = value.to_bits();
    let bits = bits ^ (bits >> 43);
    let buckets = (bits >> 8) % 6;
    let int = Histogram {
        schema: ((bits >> 4) % 3) as i32,
        zero_threshold: 1e-9,
        zero_count: (bits >> 20) % 9,
        count: bits % 1000,
        // What it stands for.
        sum: value,
        positive_spans: vec![Span {
            offset: ((bits >> 12) % 4) as i32,
            length: buckets as u32,
        }],
        positive_deltas: (0..buckets).map(|b| (bits >> (b + 3)) as i64 % 3).collect(),
        ..Histogram::default()
    };
    let to_float = |h: &Histogram| FloatHistogram {
        positive_counts: h.positive_deltas.iter().map(|d| *d as f64).collect(),
        positive_spans: h.positive_spans.clone(),
        sum: h.sum,
        count: h.count as f64,
        ..FloatHistogram::default()
    };
    Some(match (bits >> 16) % 3 {
        0 => HistogramSample::Float(to_float(&int)),
        _ => HistogramSample::Int(int),
    })
}

/// The exemplar that is sent with a histogram.
pub(crate) fn exemplar_of(time: i64, value: f64) -> Exemplar {
    Exemplar {
        labels: Labels::from_pairs([("trace_id", value.to_string().as_str())]).unwrap(),
        value,
        time: TimeMs(time),
    }
}

/// What the client knows of one sample.
#[derive(Debug, Default, Clone)]
pub(crate) struct Known {
    /// Bits of the values sent, acknowledged or not, with the numbers of the first and the last push that had it.
    sent: BTreeMap<u64, (u64, u64)>,
    /// Bits of the value acknowledged last, and the number of the push.
    acknowledged: Option<(u64, u64)>,
    /// A sample of a later time had been sent before it.
    pub(crate) late: bool,
}

impl Known {
    /// Bits of the value acknowledged.
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        self.acknowledged.map(|(bits, _)| bits)
    }

    /// Whether a value may stand where another one was acknowledged by a push: it may have been logged later.
    fn may_replace(&self, bits: u64, (before, push): (u64, u64)) -> bool {
        bits == before || self.sent.get(&bits).is_some_and(|&(_, last)| last > push)
    }
}

/// What was sent and acknowledged, over all restarts.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) samples: BTreeMap<Name, BTreeMap<i64, Known>>,
    /// Pushes acknowledged without any refused sample.
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// Pushes sent.
    pushes: u64,
    /// Counts what begins and ends.
    clock: u64,
    deletes: Vec<Deleted>,
}

/// A deletion, from the moment in which it was sent.
#[derive(Debug)]
struct Deleted {
    tenant: TenantId,
    matchers: Vec<Matcher>,
    range: (i64, i64),
    /// By the clock of the ledger.
    ended: Option<u64>,
    /// Pushes up to this one may have come before it.
    last_push: u64,
    /// Values that were stored before it, if ever, and the last push that had them.
    victims: Vec<(Name, i64, u64, u64)>,
}

impl Deleted {
    fn means(&self, tenant: &TenantId, labels: &Labels, time: i64) -> bool {
        (self.range.0..=self.range.1).contains(&time) && self.means_series(tenant, labels)
    }

    fn means_series(&self, tenant: &TenantId, labels: &Labels) -> bool {
        let mut matchers = self.matchers.iter();
        self.tenant == *tenant && matchers.all(|m| m.matches(labels.get(m.name()).unwrap_or("")))
    }
}

/// A push on its way, on one core.
pub(crate) struct Sent {
    pub(crate) tenant: TenantId,
    pub(crate) body: Body,
    /// Series of the known part and of the fresh part, as sent.
    known: Vec<Labels>,
    fresh: Vec<Labels>,
    /// Series of what is no float of the known part.
    others: Vec<Labels>,
    /// Its number.
    pub(crate) push: u64,
    /// Per sample of the body: sent by its key.
    is_known: Vec<bool>,
    reply: Receiver<PushOutcome>,
}

impl Sent {
    /// The samples as the core takes them: those of known series, then those of fresh ones.
    pub(crate) fn parts(&self) -> (Body, Body) {
        let all = self.body.iter().zip(&self.is_known);
        let part = |known: bool| all.clone().filter(move |(_, k)| **k == known);
        let body = |known| part(known).map(|(sample, _)| sample.clone()).collect();
        (body(true), body(false))
    }
}

/// What a selection is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Samples,
    Newest,
    Exemplars,
}

/// The client.
pub(crate) struct Client {
    pub(crate) mailboxes: Mailboxes,
    aliases: Mutex<BTreeMap<Name, SeriesKey>>,
    pub(crate) limits: Arc<TenantLimits>,
}

impl Client {
    pub(crate) fn new(mailboxes: Mailboxes) -> Client {
        let limits = Arc::new(TenantLimits::unlimited());
        Client {
            mailboxes,
            aliases: Mutex::default(),
            limits,
        }
    }

    /// A client of tenants who keep everything.
    pub(crate) fn keeping(mut self) -> Client {
        let limits = TenantLimits {
            retention: std::time::Duration::ZERO,
            ..(*self.limits).clone()
        };
        self.limits = Arc::new(limits);
        self
    }

    /// A client of tenants whose samples may be so late.
    pub(crate) fn with_window(mut self, window: std::time::Duration) -> Client {
        let limits = TenantLimits {
            out_of_order_time_window: window,
            ..(*self.limits).clone()
        };
        self.limits = Arc::new(limits);
        self
    }

    pub(crate) fn relaxed(mailboxes: Mailboxes) -> Client {
        let limits = TenantLimits {
            ack: Ack::Written,
            ..TenantLimits::unlimited()
        };
        Client {
            limits: Arc::new(limits),
            ..Client::new(mailboxes)
        }
    }

    pub(crate) fn core_of(&self, tenant: &TenantId, labels: &Labels) -> CoreId {
        let hash = identity::placement(tenant, labels, &mut Vec::new());
        identity::core_of(hash, self.mailboxes.count())
    }

    /// Splits a body over the cores and sends it; nothing is sent when a core is full.
    pub(crate) fn push(&self, tenant: &TenantId, body: &Body, ledger: &mut Ledger) -> Vec<Sent> {
        let mut per_core: BTreeMap<CoreId, Body> = BTreeMap::new();
        ledger.pushes += 1;
        let push = ledger.pushes;
        for (labels, time, value) in body {
            let entry = ledger
                .samples
                .entry((tenant.clone(), labels.clone()))
                .or_default();
            let late = entry.range(time + 1..).next().is_some();
            let known = entry.entry(*time).or_default();
            known.late |= late;
            let sent = known.sent.entry(value.to_bits()).or_insert((push, push));
            sent.1 = push;
            let core = self.core_of(tenant, labels);
            per_core
                .entry(core)
                .or_default()
                .push((labels.clone(), *time, *value));
        }
        let wanted: Vec<(CoreId, u32)> = per_core
            .iter()
            .map(|(&core, body)| (core, 64 * body.len() as u32))
            .collect();
        let Ok(mut permits) = self.mailboxes.reserve(&wanted) else {
            return Vec::new();
        };
        let send = |(core, body)| Sent {
            push,
            ..self.send(core, tenant, body, &mut permits)
        };
        per_core.into_iter().map(send).collect()
    }

    fn send(&self, core: CoreId, tenant: &TenantId, body: Body, permits: &mut Permits) -> Sent {
        let aliases = self.aliases.lock().unwrap();
        let (mut known, mut fresh) = (KnownSamples::default(), FreshSamples::default());
        let (mut known_names, mut fresh_names) = (Vec::new(), Vec::new());
        let mut is_known = Vec::new();
        let (mut others, mut other_names) = (OtherSamples::default(), Vec::new());
        for (labels, time, value) in &body {
            is_known.push(aliases.contains_key(&(tenant.clone(), labels.clone())));
            if let Some(histogram) = histogram_of(*value) {
                let histogram = || OtherValue::Histogram(Box::new(histogram.clone()));
                let exemplar = || OtherValue::Exemplar(Box::new(exemplar_of(*time, *value)));
                match aliases.get(&(tenant.clone(), labels.clone())) {
                    Some(&series) => {
                        let before = known.keys.len() as u32;
                        for value in [histogram(), exemplar()] {
                            others.known.push(OtherSample {
                                series,
                                before,
                                time: *time,
                                value,
                            });
                            other_names.push(labels.clone());
                        }
                    }
                    None => {
                        let (series, before) =
                            (fresh.series.len() as u32, fresh.times.len() as u32);
                        for value in [histogram(), exemplar()] {
                            others.fresh.push(OtherSample {
                                series,
                                before,
                                time: *time,
                                value,
                            });
                        }
                        fresh.labels.extend_from_slice(labels.packed());
                        fresh.series.push(FreshSeries {
                            id: identity::series_id(tenant, labels.packed(), &mut Vec::new()),
                            labels_end: fresh.labels.len() as u32,
                            samples_end: before,
                        });
                        fresh_names.push(labels.clone());
                    }
                }
                continue;
            }
            match aliases.get(&(tenant.clone(), labels.clone())) {
                Some(&key) => {
                    known.keys.push(key);
                    known.times.push(*time);
                    known.values.push(*value);
                    known_names.push(labels.clone());
                }
                None => {
                    fresh.labels.extend_from_slice(labels.packed());
                    fresh.times.push(*time);
                    fresh.values.push(*value);
                    fresh.series.push(FreshSeries {
                        id: identity::series_id(tenant, labels.packed(), &mut Vec::new()),
                        labels_end: fresh.labels.len() as u32,
                        samples_end: fresh.times.len() as u32,
                    });
                    fresh_names.push(labels.clone());
                }
            }
        }
        let (sender, reply) = channel();
        permits.send(
            core,
            Push {
                tenant: tenant.clone(),
                limits: self.limits.clone(),
                known,
                fresh,
                others,
                credits: 0,
                reply: Box::new(move |outcome| {
                    // The client may have gone.
                    let _ = sender.send(outcome);
                }),
            },
        );
        Sent {
            tenant: tenant.clone(),
            body,
            known: known_names,
            fresh: fresh_names,
            others: other_names,
            push: 0,
            is_known,
            reply,
        }
    }

    /// Takes in the reply of a push, if it has come. Dead keys are forgotten.
    pub(crate) fn settle(&self, sent: &Sent, ledger: &mut Ledger) -> Option<PushOutcome> {
        let outcome = sent.reply.try_recv().ok()?;
        if outcome.refused.is_some() {
            ledger.refused += 1;
            return Some(outcome);
        }
        let mut aliases = self.aliases.lock().unwrap();
        for &dead in &outcome.dead {
            aliases.remove(&(sent.tenant.clone(), sent.known[dead as usize].clone()));
        }
        for &dead in &outcome.dead_others {
            aliases.remove(&(sent.tenant.clone(), sent.others[dead as usize].clone()));
        }
        assert_eq!(
            outcome.keys.len(),
            sent.fresh.len(),
            "a key for each fresh series"
        );
        for (labels, key) in sent.fresh.iter().zip(&outcome.keys) {
            if let Some(key) = key {
                aliases.insert((sent.tenant.clone(), labels.clone()), *key);
            }
        }
        let rejected: u32 = outcome.rejected.iter().map(|r| r.count).sum();
        // Of a histogram with a dead key the exemplar beside it is told too.
        let dead = outcome.dead.len() as u32 + outcome.dead_others.len() as u32 / 2;
        let accounted = outcome.stored + outcome.histograms + outcome.repeated + rejected + dead;
        assert_eq!(
            accounted as usize,
            sent.body.len(),
            "every sample is accounted for"
        );
        if rejected == 0 && dead == 0 {
            ledger.acknowledged += 1;
            for (labels, time, value) in &sent.body {
                let series = ledger
                    .samples
                    .get_mut(&(sent.tenant.clone(), labels.clone()));
                let known = series.unwrap().get_mut(time).unwrap();
                let mut deletes = ledger.deletes.iter();
                if !deletes.any(|delete| {
                    sent.push <= delete.last_push && delete.means(&sent.tenant, labels, *time)
                }) {
                    known.acknowledged = Some((value.to_bits(), sent.push));
                }
            }
        }
        Some(outcome)
    }

    /// Sends a selection to every core.
    pub(crate) fn select(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: (i64, i64),
    ) -> Asked {
        self.ask(tenant, matchers, range, Wanted::Samples)
    }

    /// As [`Client::select`], for what matters to a reader of newest samples alone: of each series the newest in the range is there, others may be.
    pub(crate) fn newest(&self, tenant: &TenantId, range: (i64, i64)) -> Asked {
        self.ask(tenant, &[], range, Wanted::Newest)
    }

    /// As [`Client::select`]; what is found are the exemplars, by their values.
    pub(crate) fn exemplars(&self, tenant: &TenantId) -> Asked {
        self.ask(tenant, &[], (i64::MIN, i64::MAX), Wanted::Exemplars)
    }

    fn ask(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        (min_time, max_time): (i64, i64),
        wanted: Wanted,
    ) -> Asked {
        let (sender, replies) = channel();
        for core in 0..self.mailboxes.count() {
            let sender: Sender<_> = sender.clone();
            let select = Select {
                tenant: tenant.clone(),
                matchers: matchers.into(),
                min_time,
                max_time,
                with_chunks: wanted != Wanted::Exemplars,
                with_exemplars: wanted == Wanted::Exemplars,
                with_moved: false,
                with_starts: false,
                projection: ::model::Projection::All,
                newest: wanted == Wanted::Newest,
                windows: None,
                series_max: 0,
                chunks_max: 0,
                bytes_max: 0,
                data_bytes_max: 0,
                hold: Arc::new(|_| true),
                canceled: Arc::default(),
                reply: Box::new(move |result: Result<Vec<SelectedSeries>, ReadError>| {
                    // At once: later the machine may have no power.
                    let loaded = result.and_then(|mut list| {
                        crate::load_chunks(&mut list, &|| false)?;
                        Ok(list)
                    });
                    let _ = sender.send(loaded);
                }),
            };
            self.mailboxes.send(CoreId(core), Message::Select(select));
        }
        // Exemplars are in heads alone.
        let blocks = (wanted != Wanted::Exemplars).then(|| Blocks {
            catalog: self.mailboxes.blocks().clone(),
            tenant: tenant.clone(),
            matchers: matchers.to_vec(),
            range: (min_time, max_time),
        });
        Asked {
            missing: self.mailboxes.count(),
            series: BTreeMap::new(),
            failed: None,
            blocks,
            replies,
        }
    }

    /// Labels of the series that blocks have samples of in a range.
    pub(crate) fn in_blocks(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: (i64, i64),
    ) -> impl Iterator<Item = Labels> {
        self.found_in_blocks(tenant, matchers, range).into_keys()
    }

    /// What blocks have in a range.
    pub(crate) fn found_in_blocks(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: (i64, i64),
    ) -> Found {
        let blocks = Blocks {
            catalog: self.mailboxes.blocks().clone(),
            tenant: tenant.clone(),
            matchers: matchers.to_vec(),
            range,
        };
        let mut found = Found::default();
        blocks.add_to(&mut found).expect("sound blocks");
        found
    }

    /// Asks for a deletion.
    pub(crate) fn delete(
        &self,
        tenant: &TenantId,
        selectors: &[&[Matcher]],
        (min_time, max_time): (i64, i64),
    ) -> Receiver<Result<u128, DeleteError>> {
        let (sender, reply) = channel();
        let selectors: Vec<Arc<[Matcher]>> = selectors.iter().map(|&s| s.into()).collect();
        let delete = Delete {
            tenant: tenant.clone(),
            selectors: selectors.into(),
            min_time,
            max_time,
            whole_tenant: false,
            canceled: Arc::default(),
            reply: Box::new(move |result| {
                let _ = sender.send(result);
            }),
        };
        self.mailboxes.send(CoreId(0), Message::Delete(delete));
        reply
    }

    /// Sends a label query to every core.
    pub(crate) fn labels(
        &self,
        tenant: &TenantId,
        name: Option<&str>,
        matchers: &[Matcher],
        (min_time, max_time): (i64, i64),
    ) -> Receiver<Result<Vec<String>, ReadError>> {
        let (sender, replies) = channel();
        for core in 0..self.mailboxes.count() {
            let sender: Sender<_> = sender.clone();
            let query = LabelQuery {
                tenant: tenant.clone(),
                name: name.map(str::to_owned),
                matchers: matchers.into(),
                min_time,
                max_time,
                hold: Arc::new(|_| true),
                canceled: Arc::default(),
                reply: Box::new(move |result| {
                    let _ = sender.send(result);
                }),
            };
            self.mailboxes.send(CoreId(core), Message::Labels(query));
        }
        replies
    }
}

/// What a read found: per series its samples.
pub(crate) type Found = BTreeMap<Labels, BTreeMap<i64, u64>>;

/// What a read is to find in the blocks.
struct Blocks {
    catalog: Arc<Catalog>,
    tenant: TenantId,
    matchers: Vec<Matcher>,
    range: (i64, i64),
}

impl Blocks {
    /// Adds what cores have not answered: of two blocks the one that was logged later counts.
    fn add_to(&self, found: &mut Found) -> Result<(), block::Error> {
        let (min, max) = self.range;
        let deleted = self.catalog.deletions().tombstones(&self.tenant);
        for block in self
            .catalog
            .overlapping(&self.tenant, min, max)
            .iter()
            .rev()
        {
            let mut file = block.source();
            let slot = self.catalog.index(block, &self.tenant)?.expect("a part");
            let mut index = slot.write().unwrap();
            let index = index.as_mut().expect("loaded");
            let series = index.select(&mut file, &self.matchers)?;
            let labels = index.labels(&mut file, &series)?;
            let mut runs = Vec::new();
            let range = (min, max).into();
            let order = block.meta().info.order;
            let all = index.runs(
                &mut file,
                order,
                &series,
                &range,
                &mut |_| true,
                &mut |run| {
                    runs.push(run);
                },
            )?;
            assert!(all.is_some(), "nobody refused memory");
            for FoundRun {
                series: number,
                run,
                min_time,
                max_time,
            } in runs
            {
                let at = series.binary_search(&number).expect("asked for");
                let gone = Arc::new(Gone::of(&labels[at], order, i64::MIN, &deleted));
                if gone.covers(min_time.max(min), max_time.min(max)) {
                    continue;
                }
                let into = found.entry(labels[at].clone()).or_default();
                run.without(&gone).decode(&TimeRange::ALL, &mut |run| {
                    let samples = match run {
                        Run::Floats { times, values } => {
                            let bits = values.iter().map(|value| value.to_bits());
                            times.iter().copied().zip(bits).collect()
                        }
                        Run::Sealed(sealed) => decode(sealed.bytes),
                    };
                    for (time, bits) in samples {
                        into.entry(time).or_insert(bits);
                    }
                })?;
            }
        }
        Ok(())
    }
}

/// A read on its way.
pub(crate) struct Asked {
    missing: u16,
    blocks: Option<Blocks>,
    series: Found,
    failed: Option<ReadError>,
    replies: Receiver<Result<Vec<SelectedSeries>, ReadError>>,
}

impl Asked {
    /// The result, when all cores have answered.
    pub(crate) fn settle(&mut self) -> Option<Result<Found, ReadError>> {
        while let Ok(reply) = self.replies.try_recv() {
            self.missing -= 1;
            match reply {
                Err(error) => self.failed = Some(error),
                Ok(series) => series.into_iter().for_each(|series| self.take(series)),
            }
        }
        if self.missing > 0 {
            return None;
        }
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let mut found = std::mem::take(&mut self.series);
        let added = self
            .blocks
            .take()
            .map_or(Ok(()), |blocks| blocks.add_to(&mut found));
        Some(match added {
            Ok(()) => Ok(found),
            Err(error) => Err(ReadError::Block(error.to_string())),
        })
    }

    fn take(&mut self, series: SelectedSeries) {
        let mut samples: BTreeMap<i64, u64> = BTreeMap::new();
        let times = series.chunks.iter().map(|chunk| chunk.min_time);
        assert!(times.is_sorted(), "by their first times");
        let in_order = series.chunks.iter().filter(|chunk| !chunk.bytes.is_late());
        let in_order: Vec<_> = in_order.collect();
        assert!(
            in_order.is_sorted_by(|a, b| a.max_time < b.min_time),
            "chunks ascend and do not overlap, but for late ones"
        );
        let mut chunks: Vec<_> = series.chunks.iter().collect();
        // What was logged later counts.
        chunks.sort_by_key(|chunk| chunk.bytes.order());
        for chunk in chunks {
            let bytes = chunk.bytes.read().expect("loaded with the reply");
            let decoded = decode(&bytes);
            assert_eq!(decoded[0].0, chunk.min_time);
            let seen = |sample: &(i64, u64)| sample.0 <= chunk.max_time;
            samples.extend(decoded.into_iter().filter(seen));
        }
        assert!(series.exemplars.is_sorted_by_key(|e| e.time));
        for exemplar in &series.exemplars {
            let (time, value) = (exemplar.time.0, exemplar.value);
            assert_eq!(exemplar, &exemplar_of(time, value));
            samples.insert(time, value.to_bits());
        }
        let before = self.series.insert(series.labels.clone(), samples);
        assert!(
            before.is_none(),
            "{} is on two cores, or twice on one",
            series.labels
        );
    }
}

/// Times and bits of the values that the samples of a chunk stand for.
pub(crate) fn decode(sealed: &[u8]) -> Vec<(i64, u64)> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    if chunk::encoding(sealed).expect("a chunk of a read") == chunk::Encoding::Xor {
        chunk::decode(sealed, &mut times, &mut values).expect("a chunk of a read");
        return times
            .into_iter()
            .zip(values.iter().map(|v| v.to_bits()))
            .collect();
    }
    let mut histograms = Vec::new();
    chunk::decode_histograms(sealed, i64::MIN, i64::MAX, &mut times, &mut histograms)
        .expect("a chunk of a read");
    let bits = |histogram: &HistogramSample| {
        let value = histogram.sum();
        let sent = histogram_of(value).expect("only such values are sent as histograms");
        assert!(sent.same_value(histogram), "{histogram:?}");
        value.to_bits()
    };
    times.into_iter().zip(histograms.iter().map(bits)).collect()
}

impl Ledger {
    /// Nothing that was not sent.
    pub(crate) fn check_sent(&self, tenant: &TenantId, found: &Found) {
        self.check_sent_since(tenant, found, self.clock);
    }

    /// The same of an answer to a question of that time, but for what was deleted since.
    pub(crate) fn check_sent_since(&self, tenant: &TenantId, found: &Found, since: u64) {
        for (labels, samples) in found {
            let sent = self.samples.get(&(tenant.clone(), labels.clone()));
            for (time, bits) in samples {
                if self.is_doubtful(tenant, labels, *time, since) {
                    continue;
                }
                let sent = sent
                    .unwrap_or_else(|| panic!("{labels} of {tenant} was never sent, or deleted"));
                let known = sent
                    .get(time)
                    .is_some_and(|known| known.sent.contains_key(bits));
                assert!(
                    known,
                    "{labels} of {tenant} at {time}: {} was never sent, or was deleted",
                    f64::from_bits(*bits)
                );
            }
        }
    }

    /// Acknowledged means readable: everything as of `self`, in the whole range.
    pub(crate) fn check_acknowledged(&self, tenant: &TenantId, found: &Found) {
        self.check_acknowledged_by(self, tenant, found);
    }

    /// As [`Ledger::check_acknowledged`], where `now` knows what has been sent since.
    pub(crate) fn check_acknowledged_by(&self, now: &Ledger, tenant: &TenantId, found: &Found) {
        let mine = self
            .samples
            .iter()
            .filter(|((owner, _), _)| owner == tenant);
        for ((_, labels), samples) in mine {
            for (time, known) in samples {
                let Some(acknowledged) = known.acknowledged else {
                    continue;
                };
                if now.is_doubtful(tenant, labels, *time, self.clock) {
                    continue;
                }
                let read = found.get(labels).and_then(|found| found.get(time));
                let known = &now.samples[&(tenant.clone(), labels.clone())][time];
                assert!(
                    read.is_some_and(|&bits| known.may_replace(bits, acknowledged)),
                    "{labels} of {tenant} at {time}: {read:?}, and {acknowledged:?} was acknowledged"
                );
            }
        }
    }

    /// What a read has shown must be there after any crash: as good as acknowledged.
    pub(crate) fn note_shown(&mut self, tenant: &TenantId, found: &Found, since: u64) {
        for (labels, samples) in found {
            for (time, bits) in samples {
                if self.is_doubtful(tenant, labels, *time, since) {
                    continue;
                }
                let series = self.samples.get_mut(&(tenant.clone(), labels.clone()));
                let series = series.expect("checked by `check_sent`");
                let known = series.get_mut(time).expect("checked by `check_sent`");
                match known.acknowledged {
                    Some((before, _)) if before == *bits => {}
                    // Logged at some time since it was sent first.
                    _ => known.acknowledged = Some((*bits, known.sent[bits].0)),
                }
            }
        }
    }

    /// Whether a deletion that means a sample was not over at that time: it may be seen or not.
    fn is_doubtful(&self, tenant: &TenantId, labels: &Labels, time: i64, since: u64) -> bool {
        let mut deletes = self.deletes.iter();
        deletes.any(|delete| {
            delete.ended.is_none_or(|ended| ended > since) && delete.means(tenant, labels, time)
        })
    }

    /// Now, for [`Ledger::check_sent_since`].
    pub(crate) fn clock(&self) -> u64 {
        self.clock
    }

    /// Samples that may be deleted from now on; gives the number of the deletion. `unsettled`: the first push that may still be applied.
    pub(crate) fn begin_delete(
        &mut self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: (i64, i64),
        unsettled: Option<u64>,
    ) -> usize {
        self.clock += 1;
        let mut delete = Deleted {
            tenant: tenant.clone(),
            matchers: matchers.to_vec(),
            range,
            ended: None,
            last_push: u64::MAX,
            victims: Vec::new(),
        };
        let before = unsettled.unwrap_or(self.pushes + 1);
        for (name, samples) in &mut self.samples {
            for (&time, known) in samples {
                if !delete.means_series(&name.0, &name.1) {
                    continue;
                }
                // Exemplars go with a series of which nothing is left in memory; and whatever comes again comes behind others.
                known.late = true;
                if !delete.means(&name.0, &name.1, time) {
                    continue;
                }
                known.acknowledged = None;
                let sure = known.sent.iter().filter(|(_, (_, last))| *last < before);
                let victims = sure.map(|(&bits, &(_, last))| (name.clone(), time, bits, last));
                delete.victims.extend(victims);
            }
        }
        self.deletes.push(delete);
        self.deletes.len() - 1
    }

    /// A deletion is over; `done`: it was acknowledged, and from now on nothing is there that was stored before.
    pub(crate) fn end_delete(&mut self, number: usize, done: bool) {
        self.clock += 1;
        let delete = &mut self.deletes[number];
        delete.ended = Some(self.clock);
        delete.last_push = self.pushes;
        for (name, samples) in &mut self.samples {
            let means = delete.means_series(&name.0, &name.1);
            samples.values_mut().for_each(|known| known.late |= means);
        }
        let victims = std::mem::take(&mut delete.victims);
        for (name, time, bits, last) in victims.into_iter().filter(|_| done) {
            let samples = self.samples.get_mut(&name).expect("nobody removes names");
            if let Some(known) = samples.get_mut(&time)
                && known.sent.get(&bits).is_some_and(|sent| sent.1 == last)
            {
                known.sent.remove(&bits);
                if known.sent.is_empty() {
                    samples.remove(&time);
                }
            }
        }
    }

    /// How many acknowledged samples are not among those found.
    pub(crate) fn missing(&self, tenant: &TenantId, found: &Found) -> usize {
        let mine = self
            .samples
            .iter()
            .filter(|((owner, _), _)| owner == tenant);
        let there = |labels, time| {
            found
                .get(labels)
                .is_some_and(|s: &BTreeMap<i64, u64>| s.contains_key(time))
        };
        mine.flat_map(|((_, labels), samples)| {
            samples
                .iter()
                .filter(move |(time, known)| known.acknowledged().is_some() && !there(labels, time))
        })
        .count()
    }

    /// What is not older than `retention` behind the newest acknowledged sample of the tenant.
    pub(crate) fn since(&self, tenant: &TenantId, retention: i64) -> Ledger {
        let mine = || {
            self.samples
                .iter()
                .filter(|((owner, _), _)| owner == tenant)
        };
        let newest = mine()
            .filter_map(|(_, samples)| samples.keys().last())
            .max();
        let from = newest.map_or(i64::MIN, |newest| newest - retention);
        let recent = |samples: &BTreeMap<i64, Known>| {
            samples
                .range(from..)
                .map(|(&time, known)| (time, known.clone()))
                .collect()
        };
        let samples = mine()
            .map(|(name, samples)| (name.clone(), recent(samples)))
            .collect();
        Ledger {
            samples,
            ..Ledger::default()
        }
    }

    /// The acknowledgements as of now.
    pub(crate) fn snapshot(&self) -> Ledger {
        Ledger {
            samples: self.samples.clone(),
            clock: self.clock,
            ..Ledger::default()
        }
    }
}
