//! Late samples against a plain model: a map of times. Every push is one sample, so that it is known what has to become of it.
//!
//! What is not known is whether a value is still in memory: if it is, another one of its time is refused, else it is stored and counts from then on. Everything else
//! is compared exactly, behind every push, cut, flush, checkpoint, restart and crash.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::model::{CounterReset, Labels, TenantId};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use reactor::Sim;

use super::client::{Client, Found, Ledger};
use super::node::{TestNode, options};
use super::simulation::seeds;
use crate::limits::CUT_MS;
use crate::message::RejectReason;

/// Samples that replaced one in a block, in all runs.
static REPLACED: AtomicU64 = AtomicU64::new(0);
/// Late samples that were taken.
static LATE: AtomicU64 = AtomicU64::new(0);

struct Run {
    rng: SmallRng,
    sim: Sim,
    options: crate::Options,
    node: Option<TestNode>,
    client: Option<Client>,
    window_ms: i64,
    ledger: Ledger,
    /// Per series, time and bits.
    model: Found,
    /// Time of the newest sample of each series that the head knows: one that has left may come back with any time.
    newest: BTreeMap<Labels, i64>,
    now: i64,
}

impl Run {
    fn start(&mut self) {
        let node = TestNode::start(&self.sim, &self.options).expect("a sound machine");
        let window = Duration::from_millis(self.window_ms as u64);
        let client = Client::new(node.mailboxes.clone());
        self.client = Some(client.keeping().with_window(window));
        self.node = Some(node);
    }

    fn node(&mut self) -> &mut TestNode {
        self.node.as_mut().expect("started")
    }

    /// A sample, mostly late, sometimes of a time that is there.
    fn push(&mut self) {
        let pod = self.rng.random_range(0..3);
        let labels = Labels::from_pairs([("__name__", "up"), ("pod", &format!("p{pod}"))]).unwrap();
        let passed = self.rng.random_range(0..300_000);
        self.now += passed;
        self.sim.advance(Duration::from_millis(passed as u64));
        let mut time = match self.rng.random_range(0..4) {
            0 => self.now,
            1 => self.now - self.rng.random_range(0..600_000),
            _ => self.now - self.rng.random_range(0..self.window_ms * 5 / 4),
        };
        let known = self.model.get(&labels);
        if let Some(samples) = known
            && self.rng.random_bool(0.3)
        {
            let before = samples.range(..=time).next_back();
            time = before.map_or(time, |(time, _)| *time);
        }
        let values = [1.0, 2.0, 3.5, -1.0, -2.0];
        let value = *values.choose(&mut self.rng).unwrap();
        self.push_one(&labels, time, value);
    }

    fn push_one(&mut self, labels: &Labels, time: i64, value: f64) {
        let body = vec![(labels.clone(), time, value)];
        let created_before = self.created();
        let client = self.client.as_ref().expect("started");
        let mut sent = client.push(&TenantId::fake(), &body, &mut self.ledger);
        let sent = sent.pop().expect("room");
        let (node, ledger) = (self.node.as_mut().expect("started"), &mut self.ledger);
        let mut outcome = None;
        node.turn_until(1000, || {
            outcome = outcome.take().or_else(|| client.settle(&sent, ledger));
            outcome.is_some()
        });
        let outcome = outcome.expect("a push is answered");
        assert_eq!(outcome.refused, None);
        if !outcome.dead.is_empty() || !outcome.dead_others.is_empty() {
            return self.push_one(labels, time, value); // With labels.
        }
        let is_new = self.created() > created_before;
        let in_blocks = self.node().mailboxes.blocks().summary().samples;
        let samples = self.model.entry(labels.clone()).or_default();
        let newest = self.newest.entry(labels.clone()).or_insert(i64::MIN);
        if is_new {
            *newest = i64::MIN;
        }
        let before = std::mem::replace(newest, time.max(*newest));
        let newest = before;
        let stored = outcome.stored + outcome.histograms == 1;
        let late = u32::from(stored && time <= newest);
        assert_eq!(outcome.late, late);
        LATE.fetch_add(u64::from(late), Ordering::Relaxed);
        let reason = outcome.rejected.first().map(|rejected| rejected.reason);
        match samples.get(&time) {
            Some(&bits) if bits == value.to_bits() => {
                // One in a block is stored once more, where its window lets it.
                let too_old =
                    reason == Some(RejectReason::TooOld) && newest - time > self.window_ms;
                assert!(stored || outcome.repeated == 1 || too_old, "{outcome:?}");
            }
            Some(_) if stored => {
                assert!(in_blocks > 0, "it was in memory");
                REPLACED.fetch_add(1, Ordering::Relaxed);
                samples.insert(time, value.to_bits());
            }
            Some(_) => {
                let refused = [RejectReason::NewValueForTimestamp, RejectReason::TooOld];
                assert!(refused.contains(&reason.unwrap()), "{outcome:?}");
            }
            None if newest.saturating_sub(time) > self.window_ms => {
                assert_eq!(reason, Some(RejectReason::TooOld));
            }
            None => {
                assert!(stored, "{outcome:?}");
                samples.insert(time, value.to_bits());
            }
        }
    }

    fn created(&mut self) -> u64 {
        let cores = self.node().cores.iter();
        cores.map(|core| core.memtable.totals.created).sum()
    }

    fn check(&mut self) {
        let client = self.client.as_ref().expect("started");
        let mut asked = client.select(&TenantId::fake(), &[], (i64::MIN, i64::MAX));
        let mut found = None;
        let answered = self.node().turn_until(1000, || {
            found = found.take().or_else(|| asked.settle());
            found.is_some()
        });
        assert!(answered, "a read is answered");
        assert_eq!(found.unwrap().unwrap(), self.model);
    }

    fn cut(&mut self) {
        let all = self.rng.random_bool(0.3);
        for core in &mut self.node().cores {
            match all {
                true => core.request_flush(crate::Flush::all(Box::new(drop))),
                false => core.tick_cuts(),
            }
        }
        let rounds = *[3, 10, 300].choose(&mut self.rng).unwrap();
        self.node().turn_until(rounds, || false);
    }
}

fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut options = options(rng.random_range(1..3));
    options.chunk_samples_max = *[3, 120].choose(&mut rng).unwrap();
    options.retention = Duration::from_secs(30 * 24 * 3600);
    let window_ms = *[3_600_000, 3 * CUT_MS, 48 * CUT_MS]
        .choose(&mut rng)
        .unwrap();
    let mut run = Run {
        rng,
        sim: Sim::new(seed),
        options,
        node: None,
        client: None,
        window_ms,
        ledger: Ledger::default(),
        model: BTreeMap::new(),
        newest: BTreeMap::new(),
        now: 1_700_000_000_000,
    };
    for _ in 0..run.rng.random_range(1..4) {
        run.start();
        run.check();
        for _ in 0..run.rng.random_range(20..120) {
            match run.rng.random_range(0..20) {
                0 => run.cut(),
                1 => run.node().checkpoint().unwrap(),
                2 => {
                    // Series that nobody writes leave, or are parked.
                    run.sim.advance(Duration::from_secs(2000));
                    run.node().turn_until(20, || false);
                }
                _ => run.push(),
            }
            run.check();
        }
        let node = run.node.take().expect("started");
        match run.rng.random_bool(0.3) {
            true => node.stop(),
            false => {
                drop(node);
                run.sim.crash();
            }
        }
        run.options.cores = vec![0; run.rng.random_range(1..3)];
    }
    run.start();
    run.check();
}

#[test]
fn late_samples_agree_with_the_model() {
    seeds("late_samples_agree_with_the_model", 20, run);
    let counts = [&LATE, &REPLACED].map(|count| count.load(Ordering::Relaxed));
    assert!(
        !counts.contains(&0) || std::env::var("MYELIN_SEED").is_ok(),
        "nothing came late, or nothing in a block was replaced: {counts:?}"
    );
}

/// A note of the newest sample that a read may see says nothing of late ones, so the read visits their series before they come.
#[test]
fn a_read_sees_a_push_of_late_samples_whole_or_not_at_all() {
    const SERIES: usize = 1500;
    let labels =
        |i: usize| Labels::from_pairs([("__name__", "up"), ("i", &i.to_string())]).unwrap();
    let all: Vec<Labels> = (0..SERIES).map(labels).collect();
    let sim = Sim::new(1);
    let config = crate::Options {
        chunk_samples_max: 4,
        ..options(1)
    };
    let mut node = TestNode::start(&sim, &config).unwrap();
    let client = Client::new(node.mailboxes.clone());
    let (fake, mut ledger) = (TenantId::fake(), Ledger::default());
    let (mut sent, mut asked, mut compared) = (Vec::new(), Vec::new(), 0);
    for round in 0..600i64 {
        if round % 3 == 0 {
            let time = match round % 2 {
                0 => round * 10,
                _ => round * 10 - 45,
            };
            let value = round as f64;
            let body = all.iter().map(|labels| (labels.clone(), time, value));
            sent.extend(client.push(&fake, &body.collect(), &mut ledger));
        }
        if round % 4 == 0 {
            asked.push(client.select(&fake, &[], (i64::MIN, i64::MAX)));
        }
        node.cores[0].turn();
        // A core that has work only polls, for which the clock of the machine stands still.
        sim.advance(Duration::from_micros(100));
        sent.retain(|sent| client.settle(sent, &mut ledger).is_none());
        asked.retain_mut(|asked| {
            let Some(found) = asked.settle() else {
                return true;
            };
            let found = found.unwrap();
            let mut times = found.values().map(|samples| samples.keys());
            if let Some(first) = times.next() {
                assert_eq!(found.len(), SERIES);
                assert!(
                    times.all(|times| times.eq(first.clone())),
                    "a push was seen in part"
                );
                compared += 1;
            }
            false
        });
    }
    let late = node.cores[0].counts.late;
    assert!(
        compared > 50 && late > 50 * SERIES as u64,
        "{compared}, {late}"
    );
}

/// What a sender says of a reset it says of the sample before: of a late histogram, and of the one behind it, it is not kept, wherever they lie.
#[test]
fn hints_of_resets_are_forgotten_where_another_sample_has_got_between() {
    use super::super::memtable::native::{Stored, Value};
    use crate::cut::join;
    use ::model::{Histogram, HistogramSample};

    let histogram = |count, counter_reset| {
        HistogramSample::Int(Histogram {
            count,
            counter_reset,
            ..Histogram::default()
        })
    };
    let mut chunk = chunk::HistogramAppender::for_kind_of(&histogram(0, CounterReset::No));
    for time in [10, 20, 30, 40] {
        chunk.append(time, &histogram(time as u64, CounterReset::No));
    }
    let mut late = chunk::HistogramAppender::for_kind_of(&histogram(0, CounterReset::No));
    late.append(25, &histogram(25, CounterReset::Unknown));
    let slice = |bytes: Vec<u8>, min_time, max_time, rank| crate::ChunkSlice {
        min_time,
        max_time,
        bytes: crate::ChunkBytes::from(bytes).late(rank),
    };
    let chunks = [
        slice(chunk.seal(), 10, 40, 0),
        slice(late.seal(), 25, 25, 1),
    ];
    assert_eq!(join::groups(&chunks), [vec![0, 1]]);
    let mut samples = Vec::new();
    for (number, chunk) in (0..).zip(&chunks) {
        let sealed = chunk.bytes.read().unwrap();
        join::decode(&sealed, chunk.bytes.order(), number, &mut samples).unwrap();
    }
    join::straighten(&mut samples);
    let hints: Vec<_> = samples.iter().map(join::Sample::hint).collect();
    let (no, unknown) = (Some(CounterReset::No), Some(CounterReset::Unknown));
    assert_eq!(hints, [no, no, unknown, unknown, no]);

    let stored = Stored::Histogram(histogram(7, CounterReset::Unknown));
    let again = histogram(7, CounterReset::Yes);
    assert!(stored.is(Value::Histogram(&again)), "a repetition");
}
