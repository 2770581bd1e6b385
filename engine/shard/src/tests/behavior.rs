//! One claim each: what a core answers to what.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ::model::{
    Ack, CoreId, Exemplar, Generation, Histogram, HistogramSample, Labels, Matcher, SeriesKey,
    Span, TenantId, TenantLimits, TimeMs, identity,
};
use reactor::Sim;

use super::node::{TestNode, options};
use crate::message::*;
#[path = "active.rs"]
mod active;
#[path = "deletes.rs"]
mod deletes;
#[path = "retention.rs"]
mod retention;
#[path = "starts.rs"]
mod starts;

/// A node of one core and the raw messages to it.
struct One {
    sim: Sim,
    node: TestNode,
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

impl One {
    fn new() -> One {
        let sim = Sim::new(3);
        let node = TestNode::start(&sim, &options(1)).unwrap();
        One { sim, node }
    }

    fn with_memory(memory: &crate::Memory) -> One {
        let sim = Sim::new(3);
        let with_memory = crate::Options {
            memory: memory.clone(),
            ..options(1)
        };
        let node = TestNode::start(&sim, &with_memory).unwrap();
        One { sim, node }
    }

    fn restart(self) -> One {
        let One { sim, node } = self;
        drop(node);
        sim.crash();
        let node = TestNode::start(&sim, &options(1)).unwrap();
        One { sim, node }
    }

    fn send(&self, push: Push) {
        let mut permits = self.node.mailboxes.reserve(&[(CoreId(0), 100)]).unwrap();
        permits.send(CoreId(0), push);
    }

    /// Sends and waits for the outcome.
    fn push(&mut self, push: impl FnOnce(Reply) -> Push) -> PushOutcome {
        let (reply, outcome) = channel();
        self.send(push(Box::new(move |o| reply.send(o).unwrap())));
        self.wait(&outcome)
    }

    fn wait<T>(&mut self, receiver: &Receiver<T>) -> T {
        let mut found = None;
        self.node.turn_until(1000, || {
            found = found.take().or_else(|| receiver.try_recv().ok());
            found.is_some()
        });
        let log = &self.node.cores[0].log;
        found.unwrap_or_else(|| {
            panic!(
                "no answer: {:?} tail {:?} written {:?} {:?}",
                log.health(),
                log.tail(),
                log.written(),
                log.stats()
            )
        })
    }

    fn stats(&mut self) -> Vec<TenantStats> {
        let (reply, stats) = channel();
        let query = StatsQuery {
            tenant: None,
            reply: Box::new(move |s| reply.send(s).unwrap()),
        };
        self.node.mailboxes.send(CoreId(0), Message::Stats(query));
        self.wait(&stats).unwrap()
    }

    fn select(
        &mut self,
        change: impl FnOnce(&mut Select),
    ) -> Result<Vec<SelectedSeries>, ReadError> {
        let (reply, result) = channel();
        let mut select = Select {
            tenant: TenantId::fake(),
            matchers: Arc::from([]),
            min_time: i64::MIN,
            max_time: i64::MAX,
            with_chunks: true,
            projection: ::model::Projection::All,
            newest: false,
            windows: None,
            with_exemplars: false,
            with_moved: false,
            with_starts: false,
            series_max: 0,
            chunks_max: 0,
            bytes_max: 0,
            data_bytes_max: 0,
            hold: Arc::new(|_| true),
            canceled: Arc::default(),
            reply: Box::new(move |r| reply.send(r).unwrap()),
        };
        change(&mut select);
        self.node.mailboxes.send(CoreId(0), Message::Select(select));
        self.wait(&result)
    }
}

type Reply = Box<dyn FnOnce(PushOutcome) + Send>;

fn empty(tenant: &str, limits: TenantLimits, reply: Reply) -> Push {
    Push {
        tenant: TenantId::new(tenant).unwrap(),
        limits: Arc::new(limits),
        known: KnownSamples::default(),
        fresh: FreshSamples::default(),
        others: Default::default(),
        credits: 0,
        reply,
    }
}

/// A push of fresh series, one sample each.
fn fresh(tenant: &str, series: &[Labels], time: i64, limits: TenantLimits, reply: Reply) -> Push {
    let mut push = empty(tenant, limits, reply);
    for labels in series {
        push.fresh.labels.extend_from_slice(labels.packed());
        push.fresh.times.push(time);
        push.fresh.values.push(time as f64);
        push.fresh.series.push(FreshSeries {
            id: identity::series_id(&push.tenant, labels.packed(), &mut Vec::new()),
            labels_end: push.fresh.labels.len() as u32,
            samples_end: push.fresh.times.len() as u32,
        });
    }
    push
}

fn known(tenant: &str, keys: &[SeriesKey], time: i64, value: f64, reply: Reply) -> Push {
    let mut push = empty(tenant, TenantLimits::unlimited(), reply);
    push.known.keys = keys.to_vec();
    push.known.times = vec![time; keys.len()];
    push.known.values = vec![value; keys.len()];
    push
}

fn unlimited() -> TenantLimits {
    TenantLimits::unlimited()
}

/// The same, of a tenant whose samples must not come late.
fn in_order_only(mut push: Push) -> Push {
    push.limits = Arc::new(TenantLimits {
        out_of_order_time_window: Duration::ZERO,
        ..(*push.limits).clone()
    });
    push
}

#[test]
fn the_same_labels_are_one_series_in_a_push_in_the_next_and_after_a_restart() {
    let mut one = One::new();
    let up = labels(&[("__name__", "up"), ("job", "a")]);
    // As the gateway makes it of labels in another order: the canonical form is the same.
    let permuted = labels(&[("job", "a"), ("__name__", "up")]);
    let outcome = one.push(|r| fresh("fake", &[up.clone(), permuted], 1, unlimited(), r));
    assert_eq!((outcome.stored, outcome.repeated), (1, 1));
    assert_eq!(outcome.keys[0], outcome.keys[1]);
    let again = one.push(|r| fresh("fake", std::slice::from_ref(&up), 2, unlimited(), r));
    assert_eq!(again.keys[0], outcome.keys[0]);
    let mut one = one.restart();
    let after = one.push(|r| fresh("fake", std::slice::from_ref(&up), 3, unlimited(), r));
    assert_eq!((after.stored, after.keys[0]), (1, outcome.keys[0]));
    let stats = one.stats();
    assert_eq!((stats.len(), stats[0].series, stats[0].samples), (1, 1, 3));
    assert_eq!((stats[0].min_time, stats[0].max_time), (1, 3));
}

#[test]
fn a_key_of_another_tenant_or_generation_is_dead_and_stores_nothing() {
    let mut one = One::new();
    let up = labels(&[("__name__", "up")]);
    let mine = one.push(|r| fresh("a", &[up], 1, unlimited(), r)).keys[0].unwrap();
    one.push(|r| fresh("b", &[labels(&[("__name__", "x")])], 1, unlimited(), r));
    let old = SeriesKey {
        generation: Generation(mine.generation.0 + 1),
        ..mine
    };
    let beyond = SeriesKey {
        series: ::model::SeriesRef(1 << 30),
        ..mine
    };
    let outcome = one.push(|r| known("b", &[mine, old, beyond], 2, 7.0, r));
    assert_eq!((outcome.dead, outcome.stored), (vec![0, 1, 2], 0));
    let outcome = one.push(|r| known("a", &[old, mine], 2, 7.0, r));
    assert_eq!((outcome.dead, outcome.stored), (vec![0], 1));
}

#[test]
fn a_retry_waits_for_the_commit_of_its_original() {
    let mut one = One::new();
    let up = labels(&[("__name__", "up")]);
    let (reply, outcomes) = channel();
    for name in ["original", "retry"] {
        let reply = reply.clone();
        let tell: Reply = Box::new(move |o| reply.send((name, o.stored, o.repeated)).unwrap());
        one.send(fresh(
            "fake",
            std::slice::from_ref(&up),
            1,
            unlimited(),
            tell,
        ));
        // Takes the message; the clock of the machine, and with it the disk, stands still.
        one.node.cores[0].turn_until(Some(reactor::Tick::ZERO));
        assert!(outcomes.try_recv().is_err(), "the {name} is not durable");
    }
    assert_eq!(one.wait(&outcomes), ("original", 1, 0));
    assert_eq!(one.wait(&outcomes), ("retry", 0, 1));
}

/// New series counted as one sample each in what a turn does, and cost fifty times as much: the first scrape of a large sender made the core
/// deaf for 30 ms, to reads and to the disk.
#[test]
fn a_turn_makes_a_bounded_number_of_series() {
    let mut one = One::new();
    for body in 0..4 {
        let series = |i: usize| labels(&[("__name__", "up"), ("pod", &format!("{body}-{i}"))]);
        let body: Vec<Labels> = (0..2000).map(series).collect();
        one.send(fresh("fake", &body, 1, unlimited(), Box::new(drop)));
    }
    let mut left = Vec::new();
    for _ in 0..3 {
        one.node.cores[0].turn_until(Some(reactor::Tick::ZERO));
        left.push(one.node.cores[0].pushes.len());
    }
    assert_eq!(left, [2, 0, 0], "4,000 series a turn");
    assert_eq!(one.node.cores[0].memtable.totals.created, 8000);
}

#[test]
fn a_read_of_what_is_in_a_commit_waits_for_it() {
    let mut one = One::new();
    let (reply, outcome) = channel();
    let tell: Reply = Box::new(move |o| reply.send(o.stored).unwrap());
    one.send(fresh(
        "fake",
        &[labels(&[("__name__", "up")])],
        1,
        unlimited(),
        tell,
    ));
    one.node.cores[0].turn_until(Some(reactor::Tick::ZERO));
    let found = one.select(|_| {}).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(outcome.try_recv(), Ok(1), "what was read is acknowledged");
}

/// What a read of one tenant has to wait for may be the commit of another one, who does not ask for durability; so nobody did, and the read waited
/// for the timer that syncs once a second.
#[test]
fn a_read_does_not_wait_for_the_timer_that_syncs_relaxed_commits() {
    let mut one = One::new();
    let up = [labels(&[("__name__", "up")])];
    one.push(|r| fresh("fake", &up, 1, unlimited(), r));
    let relaxed = TenantLimits {
        ack: Ack::Written,
        ..unlimited()
    };
    one.push(|r| fresh("relaxed", &up, 1, relaxed, r));
    let begun = one.node.cores[0].reactor.now();
    assert_eq!(one.select(|_| {}).unwrap().len(), 1);
    let took = one.node.cores[0].reactor.now().since(begun);
    assert!(took < Duration::from_millis(100), "it took {took:?}");
}

/// A push that is larger than what is left of the segment waits until the file of the next one is made. A smaller one would not have to, and
/// that was taken for work that can be done now: the core turned without sleeping until the file was there.
#[test]
fn a_push_that_waits_for_the_next_segment_does_not_keep_the_core_awake() {
    let mut one = One::new();
    one.push(|r| fresh("fake", &[labels(&[("__name__", "up")])], 1, unlimited(), r));
    let (reply, outcome) = channel();
    let many: Vec<Labels> = (0..3000)
        .map(|i| labels(&[("__name__", "up"), ("i", &i.to_string().repeat(80))]))
        .collect();
    let tell: Reply = Box::new(move |o| reply.send(o.stored).unwrap());
    one.send(fresh("fake", &many, 1, unlimited(), tell));
    one.node.cores[0].turn_until(Some(reactor::Tick::ZERO));
    assert_eq!(one.node.cores[0].pushes.len(), 1, "the file is being made");
    assert!(!one.node.cores[0].has_work());
    assert_eq!(one.wait(&outcome), 3000);
}

/// 12,000 new series in one body need more than the first segment of a fresh log, maybe. The core waited for the file of the second one, which is
/// made when the first is begun.
#[test]
fn a_push_larger_than_the_first_segment_is_stored() {
    let mut one = One::new();
    let many: Vec<Labels> = (0..3000)
        .map(|i| labels(&[("__name__", "up"), ("i", &i.to_string().repeat(80))]))
        .collect();
    let outcome = one.push(|r| fresh("fake", &many, 1, unlimited(), r));
    assert_eq!(outcome.stored, 3000);
    let mut one = one.restart();
    let found = one.select(|select| select.with_chunks = false).unwrap();
    assert_eq!(found.len(), 3000);
}

/// The values of a label in a range of time where nobody has samples: of each value all series have to be looked at. That was done in one go, which
/// with a million series of one job is a pause of a tenth of a second and more for everybody.
#[test]
fn a_label_with_many_series_out_of_range_is_looked_at_in_slices() {
    let mut one = One::new();
    let count = 5 * crate::limits::READ_SLICE_SERIES * 4;
    let series = |i: usize| labels(&[("__name__", "up"), ("i", &i.to_string())]);
    let many: Vec<Labels> = (0..count).map(series).collect();
    one.push(|r| fresh("fake", &many, 1000, unlimited(), r));
    let turns = |one: &One| {
        let turns = &one.node.published[0].turns;
        turns.load(std::sync::atomic::Ordering::Relaxed)
    };
    for (min_time, max_time, expected) in [(2000, 3000, vec![]), (0, 3000, vec!["up"])] {
        let before = turns(&one);
        let (reply, result) = channel();
        let query = LabelQuery {
            tenant: TenantId::fake(),
            name: Some("__name__".to_owned()),
            matchers: Arc::from([]),
            min_time,
            max_time,
            hold: Arc::new(|_| true),
            canceled: Arc::default(),
            reply: Box::new(move |r| reply.send(r).unwrap()),
        };
        one.node.mailboxes.send(CoreId(0), Message::Labels(query));
        assert_eq!(one.wait(&result).unwrap(), expected);
        let took = turns(&one) - before;
        assert!(
            took >= if expected.is_empty() { 5 } else { 1 },
            "{took} turns"
        );
    }
}

/// After a failed write only what is durable is shown. Names of labels over the whole range of time came from the index as it is, with those
/// of series that never became durable.
#[test]
fn labels_of_what_never_became_durable_are_not_told_after_a_failure() {
    let mut one = One::new();
    one.push(|r| fresh("fake", &[labels(&[("__name__", "up")])], 1, unlimited(), r));
    one.sim
        .fail_when(|op| (op.kind == reactor::OpKind::Write).then_some(reactor::Fault::EIO));
    let lost = [labels(&[("__name__", "up"), ("lost", "yes")])];
    let outcome = one.push(|r| fresh("fake", &lost, 1, unlimited(), r));
    assert!(matches!(outcome.refused, Some(Refusal::Poisoned { .. })));
    for (name, expected) in [(None, ["__name__"].as_slice()), (Some("lost"), &[])] {
        let (reply, result) = channel();
        let query = LabelQuery {
            tenant: TenantId::fake(),
            name: name.map(str::to_owned),
            matchers: Arc::from([]),
            min_time: i64::MIN,
            max_time: i64::MAX,
            hold: Arc::new(|_| true),
            canceled: Arc::default(),
            reply: Box::new(move |r| reply.send(r).unwrap()),
        };
        one.node.mailboxes.send(CoreId(0), Message::Labels(query));
        assert_eq!(one.wait(&result).unwrap(), expected);
    }
}

/// A checkpoint turns to the next segment. The log had grown by a whole number of segments when it was due, so it had just begun one, and the file of
/// the next was still in the making: all writes waited for it.
#[test]
fn a_checkpoint_begins_when_nobody_has_to_wait_for_it() {
    let mut one = One::new();
    let series = |i: usize| labels(&[("__name__", "up"), ("i", &i.to_string().repeat(100))]);
    for round in 0..400 {
        let (reply, outcome) = channel();
        let some: Vec<Labels> = (0..50).map(|i| series(round * 50 + i)).collect();
        let tell: Reply = Box::new(move |o| reply.send(o.stored).unwrap());
        one.send(fresh("fake", &some, 1, unlimited(), tell));
        one.node.cores[0].turn_until(Some(reactor::Tick::ZERO));
        assert!(
            one.node.cores[0].pushes.is_empty(),
            "push {round} waits for a segment"
        );
        assert_eq!(one.wait(&outcome), 50);
    }
    assert!(one.node.cores[0].checkpoints.begun >= 2);
}

#[test]
fn limits_refuse_new_series_tell_the_first_and_let_known_ones_go_on() {
    let mut one = One::new();
    let series = |i: usize| labels(&[("__name__", "up"), ("i", &i.to_string())]);
    let limits = || TenantLimits {
        max_series_per_user: 2,
        ..unlimited()
    };
    let all: Vec<Labels> = (0..4).map(series).collect();
    let outcome = one.push(|r| fresh("fake", &all, 5, limits(), r));
    assert_eq!(outcome.stored, 2);
    assert_eq!(
        outcome.keys.iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, true, false, false]
    );
    let [rejection] = &outcome.rejected[..] else {
        panic!("{:?}", outcome.rejected)
    };
    assert_eq!(rejection.reason, RejectReason::PerUserSeriesLimit);
    assert_eq!(
        (rejection.count, rejection.limit, rejection.first_index),
        (2, 2, 2)
    );
    assert_eq!(rejection.first, (series(2), 5, 5.0));
    let keys: Vec<SeriesKey> = outcome.keys.into_iter().flatten().collect();
    let outcome = one.push(|r| known("fake", &keys, 6, 1.0, r));
    assert_eq!((outcome.stored, outcome.rejected.len()), (2, 0));
    // Another tenant has limits of its own.
    assert_eq!(
        one.push(|r| fresh("other", &all[..2], 5, limits(), r))
            .stored,
        2
    );
}

/// A histogram with integer counts, `n` of them in its second bucket.
fn histogram(n: u64) -> HistogramSample {
    HistogramSample::Int(Histogram {
        count: n,
        sum: n as f64,
        positive_spans: vec![Span {
            offset: 0,
            length: 2,
        }],
        positive_deltas: vec![0, n as i64],
        ..Histogram::default()
    })
}

fn put_histogram(push: &mut Push, key: SeriesKey, before: u32, time: i64, n: u64) {
    push.others.known.push(OtherSample {
        series: key,
        before,
        time,
        value: OtherValue::Histogram(Box::new(histogram(n))),
    });
}

/// Times and kinds of all samples of the only series.
fn kinds(one: &mut One) -> Vec<(i64, chunk::Encoding)> {
    let found = one.select(|_| {}).unwrap();
    let mut kinds = Vec::new();
    for slice in &found[0].chunks {
        let sealed = slice.bytes.read().unwrap();
        let encoding = chunk::encoding(&sealed).unwrap();
        let (mut times, mut values, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
        match encoding {
            chunk::Encoding::Xor => chunk::decode(&sealed, &mut times, &mut values).unwrap(),
            _ => chunk::decode_histograms(&sealed, i64::MIN, i64::MAX, &mut times, &mut histograms)
                .unwrap(),
        }
        kinds.extend(times.into_iter().map(|time| (time, encoding)));
    }
    kinds
}

#[test]
fn floats_and_histograms_of_a_series_are_stored_in_the_order_of_their_times() {
    use chunk::Encoding::{Histogram as H, Xor as F};
    let mut one = One::new();
    let up = labels(&[("__name__", "up")]);
    let key = one
        .push(|r| fresh("fake", std::slice::from_ref(&up), 1, unlimited(), r))
        .keys[0]
        .unwrap();
    // Floats at 3 and 6; histograms at 2, 4, 5 and 7 in between.
    let outcome = one.push(|r| {
        let mut push = known("fake", &[key, key], 3, 1.0, r);
        push.known.times[1] = 6;
        for (before, time) in [(0, 2), (1, 4), (1, 5), (2, 7)] {
            put_histogram(&mut push, key, before, time, time as u64);
        }
        push
    });
    assert_eq!(
        (outcome.stored, outcome.histograms, outcome.rejected.len()),
        (2, 4, 0)
    );
    let expected = [(1, F), (2, H), (3, F), (4, H), (5, H), (6, F), (7, H)];
    assert_eq!(kinds(&mut one), expected);
    // Repetitions of either kind are no error; the other kind, another value and an older time are.
    let outcome = one.push(|r| {
        let mut push = known("fake", &[key, key, key], 6, 1.0, r);
        push.known.times[1] = 7;
        push.known.times[2] = 5;
        put_histogram(&mut push, key, 3, 5, 5);
        put_histogram(&mut push, key, 3, 7, 8);
        put_histogram(&mut push, key, 3, 6, 6);
        put_histogram(&mut push, key, 3, 0, 6);
        in_order_only(push)
    });
    assert_eq!((outcome.stored, outcome.histograms), (0, 0));
    assert_eq!((outcome.repeated, outcome.histograms_repeated), (2, 1));
    let reasons: Vec<_> = outcome
        .rejected
        .iter()
        .map(|r| (r.reason, r.count))
        .collect();
    use RejectReason::{NewValueForTimestamp, OutOfOrder};
    assert_eq!(reasons, [(NewValueForTimestamp, 4), (OutOfOrder, 1)]);
    assert_eq!(kinds(&mut one), expected);
}

#[test]
fn a_series_may_begin_with_a_histogram_and_too_large_ones_are_refused_alone() {
    use chunk::Encoding::{Histogram as H, Xor as F};
    let mut one = One::new();
    let up = labels(&[("__name__", "up")]);
    let large = HistogramSample::Int(Histogram {
        schema: -53,
        custom_values: vec![1.0; 60_000],
        ..Histogram::default()
    });
    let outcome = one.push(|r| {
        let mut push = fresh("fake", std::slice::from_ref(&up), 9, unlimited(), r);
        for (time, histogram) in [(7, large), (8, histogram(3))] {
            push.others.fresh.push(OtherSample {
                series: 0,
                before: 0,
                time,
                value: OtherValue::Histogram(Box::new(histogram)),
            });
        }
        push
    });
    assert_eq!(outcome.rejected[0].reason, RejectReason::HistogramTooLarge);
    assert_eq!((outcome.stored, outcome.histograms), (1, 1));
    assert_eq!(kinds(&mut one), [(8, H), (9, F)]);
}

#[test]
fn exemplars_are_found_by_the_matchers_of_their_series_and_bounded() {
    let mut one = One::new();
    let series = [labels(&[("__name__", "a")]), labels(&[("__name__", "b")])];
    let limits = || TenantLimits {
        max_exemplars: 3,
        ..unlimited()
    };
    let keys = one.push(|r| fresh("fake", &series, 1, limits(), r)).keys;
    let mut put = |series: usize, time: i64, value: f64| {
        let outcome = one.push(|r| {
            let mut push = empty("fake", limits(), r);
            push.others.known.push(OtherSample {
                series: keys[series].unwrap(),
                before: 0,
                time,
                value: OtherValue::Exemplar(Box::new(Exemplar {
                    labels: labels(&[("trace_id", "x")]),
                    value,
                    time: TimeMs(time),
                })),
            });
            push
        });
        (outcome.exemplars, outcome.exemplars_dropped)
    };
    assert_eq!(put(0, 10, 1.0), (1, vec![]));
    assert_eq!(put(0, 10, 1.0), (1, vec![]), "a repetition");
    assert_eq!(put(0, 9, 1.0), (0, vec![("exemplar_out_of_order", 1)]));
    for time in [11, 12, 13] {
        assert_eq!(put(1, time, 1.0), (1, vec![]));
    }
    let mut select = |name: &str, min_time| {
        let found = one.select(|select| {
            select.matchers = Arc::from([Matcher::equal("__name__", name)]);
            (select.with_chunks, select.with_exemplars) = (false, true);
            select.min_time = min_time;
        });
        let found = found.unwrap();
        let times = |s: &SelectedSeries| s.exemplars.iter().map(|e| e.time.0).collect::<Vec<_>>();
        found.iter().map(times).collect::<Vec<_>>()
    };
    assert_eq!(select("b", i64::MIN), [[11, 12, 13]]);
    assert_eq!(select("b", 12), [[12, 13]]);
    assert!(select("b", 14).is_empty());
    assert!(select("a", i64::MIN).is_empty(), "the oldest has left");
}

/// Story: only new series were refused in tight memory; exemplars, of which each takes as much as a small series, went on.
#[test]
fn without_memory_exemplars_are_dropped_and_samples_are_not() {
    let memory = crate::Memory::new(1000);
    let mut one = One::with_memory(&memory);
    let series = [labels(&[("__name__", "a")])];
    let key = one.push(|r| fresh("fake", &series, 1, unlimited(), r)).keys[0].unwrap();
    let mut put = |time: i64| {
        let outcome = one.push(|r| {
            let mut push = known("fake", &[key], time, 1.0, r);
            push.limits = Arc::new(TenantLimits {
                max_exemplars: 3,
                ..unlimited()
            });
            push.others.known.push(OtherSample {
                series: key,
                before: 0,
                time,
                value: OtherValue::Exemplar(Box::new(crate::tests::client::exemplar_of(time, 1.0))),
            });
            push
        });
        (outcome.stored, outcome.exemplars, outcome.exemplars_dropped)
    };
    assert_eq!(put(10), (1, 1, vec![]));
    memory.note(901);
    assert_eq!(put(11), (1, 0, vec![("memory_limit", 1)]));
    memory.note(100);
    assert_eq!(put(12), (1, 1, vec![]));
}

#[test]
fn a_time_at_the_end_of_time_is_refused_and_any_other_accepted() {
    let mut one = One::new();
    let series = [labels(&[("__name__", "up")])];
    for (time, stored) in [(i64::MIN, 1), (0, 1), (i64::MAX - 1, 1), (i64::MAX, 0)] {
        let outcome = one.push(|r| fresh("fake", &series, time, unlimited(), r));
        assert_eq!(outcome.stored, stored, "{time}");
    }
    let found = one.select(|_| {}).unwrap();
    assert_eq!(found[0].chunks.len(), 3);
    let mut one = one.restart();
    assert_eq!(one.select(|_| {}).unwrap()[0].chunks.len(), 3);
}

#[test]
fn a_read_that_wants_little_gets_little() {
    let mut one = One::new();
    let all: Vec<Labels> = (0..3)
        .map(|i| labels(&[("__name__", "up"), ("i", &i.to_string()), ("job", "a")]))
        .collect();
    for time in [10, 20, 30] {
        one.push(|r| fresh("fake", &all, time, unlimited(), r));
    }
    let projected =
        one.select(|select| select.projection = ::model::Projection::only(["job", "nope"]));
    let projected = projected.unwrap();
    assert_eq!(projected.len(), 3);
    assert!(
        projected
            .iter()
            .all(|series| series.labels == labels(&[("job", "a")]))
    );
    let mut times_until = |max_time: i64| {
        let found = one.select(|select| (select.newest, select.max_time) = (true, max_time));
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for chunk in &found.unwrap()[0].chunks {
            chunk::decode_range(
                &chunk.bytes.read().unwrap(),
                i64::MIN,
                max_time,
                &mut times,
                &mut values,
            )
            .unwrap();
        }
        (times.last().copied(), values.last().copied(), times.len())
    };
    assert_eq!(times_until(i64::MAX), (Some(30), Some(30.0), 1));
    // Samples behind the newest that is wanted: then they all come, and the reader looks for it.
    assert_eq!(times_until(29), (Some(20), Some(20.0), 2));
}

#[test]
fn reads_keep_to_their_bounds_and_end_when_nobody_waits() {
    let mut one = One::new();
    let all: Vec<Labels> = (0..10)
        .map(|i| labels(&[("__name__", "up"), ("i", &i.to_string())]))
        .collect();
    one.push(|r| fresh("fake", &all, 1, unlimited(), r));
    let error = one.select(|select| select.series_max = 9).unwrap_err();
    assert_eq!(
        error,
        ReadError::TooManySeries {
            limit: 9,
            found: 10
        }
    );
    assert_eq!(
        one.select(|select| select.series_max = 10).unwrap().len(),
        10
    );
    let error = one.select(|select| select.bytes_max = 30).unwrap_err();
    assert!(
        matches!(error, ReadError::TooManyBytes { limit: 30, found } if found > 30),
        "{error}"
    );
    let error = one.select(|select| select.chunks_max = 4).unwrap_err();
    let chunks = ReadError::TooManyChunks { limit: 4, found: 5 };
    assert_eq!(error, chunks);
    let error = one.select(|select| select.data_bytes_max = 50).unwrap_err();
    assert!(matches!(error, ReadError::TooMuchData { limit: 50, .. }));
    let held = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = held.clone();
    let hold: Hold = Arc::new(move |bytes| {
        counter.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes < 100
    });
    let error = one.select(|select| select.hold = hold).unwrap_err();
    assert_eq!(error, ReadError::NoMemory);
    assert!(held.load(std::sync::atomic::Ordering::Relaxed) > 100);
    let gone = Arc::new(AtomicBool::new(true));
    assert_eq!(
        one.select(|select| select.canceled = gone).unwrap_err(),
        ReadError::Canceled
    );
    let only = one.select(|select| {
        select.matchers = Arc::from([Matcher::equal("i", "3")]);
        select.with_chunks = false;
    });
    let only = only.unwrap();
    assert_eq!(
        (only.len(), only[0].chunks.len(), &only[0].labels),
        (1, 0, &all[3])
    );
    let nothing = one.select(|select| select.tenant = TenantId::new("nobody").unwrap());
    assert!(nothing.unwrap().is_empty());
}

#[test]
fn without_space_writes_are_refused_reads_go_on_and_writes_come_back() {
    let mut one = One::new();
    let series = |i: usize| labels(&[("__name__", "up"), ("i", &i.to_string().repeat(300))]);
    let mut stored = 0;
    // The first segments are there; the next one cannot be had.
    one.sim.set_capacity(one.sim.used() + (1 << 20));
    let refusal = loop {
        let batch: Vec<Labels> = (0..50).map(|i| series(stored + i)).collect();
        let outcome = one.push(|r| fresh("fake", &batch, 1, unlimited(), r));
        match outcome.refused {
            Some(refusal) => break refusal,
            None => stored += 50,
        }
        assert!(stored < 100_000, "the disk is never full");
    };
    assert!(matches!(&refusal, Refusal::NoSpace(_)), "{refusal}");
    assert_eq!(
        one.select(|select| select.with_chunks = false)
            .unwrap()
            .len(),
        stored
    );
    one.sim.set_capacity(u64::MAX);
    let mut tries = 0;
    loop {
        one.sim.advance(Duration::from_secs(1));
        let outcome = one.push(|r| fresh("fake", &[series(1_000_000)], 1, unlimited(), r));
        if outcome.refused.is_none() {
            break;
        }
        tries += 1;
        assert!(tries < 100, "writes never come back");
    }
    let mut one = one.restart();
    assert_eq!(
        one.select(|select| select.with_chunks = false)
            .unwrap()
            .len(),
        stored + 1
    );
}

#[test]
fn old_series_leave_numbers_come_back_after_two_checkpoints_and_old_keys_stay_dead() {
    let mut one = One::new();
    let hour = 3_600_000;
    let now = one.node.cores[0].reactor.wall_ms();
    let series = |i: usize| labels(&[("__name__", "up"), ("i", &i.to_string())]);
    let all: Vec<Labels> = (0..100).map(series).collect();
    let outcome = one.push(|r| fresh("fake", &all, now, unlimited(), r));
    let keys: Vec<SeriesKey> = outcome.keys.into_iter().flatten().collect();
    // A day and two hours later only one series is still written.
    one.sim.advance(Duration::from_secs(26 * 3600));
    assert_eq!(
        one.push(|r| known("fake", &keys[..1], now + 26 * hour, 1.0, r))
            .stored,
        1
    );
    one.sim.advance(Duration::from_secs(61));
    one.node.turn_until(200, || false);
    assert_eq!(one.stats()[0].series, 1);
    assert_eq!(
        one.push(|r| known("fake", &keys[1..2], now, 1.0, r)).dead,
        [0]
    );
    // Their numbers may still be named.
    let next = one.push(|r| fresh("fake", &[series(1000)], now + 26 * hour, unlimited(), r));
    assert_eq!(next.keys[0].unwrap().series.0, 100);
    for round in 0..3 {
        one.push(|r| known("fake", &keys[..1], now + 27 * hour + round, 1.0, r));
        one.node.checkpoint().unwrap();
    }
    one.sim.advance(Duration::from_secs(61));
    one.node.turn_until(200, || false);
    let again = one.push(|r| fresh("fake", &[series(1001)], now + 28 * hour, unlimited(), r));
    let again = again.keys[0].unwrap();
    let before = keys
        .iter()
        .find(|key| key.series == again.series)
        .expect("a number of the dead");
    assert_ne!(again.generation, before.generation);
    assert_eq!(
        one.push(|r| known("fake", &[*before], now + 29 * hour, 1.0, r))
            .dead,
        [0]
    );
    // And replay tells the new from the old.
    let mut one = one.restart();
    let found = one.select(|select| select.matchers = Arc::from([Matcher::equal("i", "1001")]));
    assert_eq!(found.unwrap().len(), 1);
    assert_eq!(one.stats()[0].series, 3);
}

/// A series that has left comes back with a first sample older than its last one was: a first sample may be of any age. The log holds both under two
/// numbers. After a change of the number of cores they were taken for one, and the sample for a repetition. Now the later number
/// supersedes the one before: what had left stays away, what came stays.
#[test]
fn a_series_that_left_and_came_back_older_keeps_what_came_when_the_cores_change() {
    let mut one = One::new();
    let hour = 3_600_000;
    let now = one.node.cores[0].reactor.wall_ms();
    let [x, y] = ["x", "y"].map(|name| [labels(&[("__name__", name)])]);
    one.push(|r| fresh("fake", &x, now, unlimited(), r));
    one.sim.advance(Duration::from_secs(26 * 3600));
    one.push(|r| fresh("fake", &y, now + 26 * hour, unlimited(), r));
    one.sim.advance(Duration::from_secs(61));
    one.node.turn_until(200, || false);
    assert_eq!(one.stats()[0].series, 1, "x has left");
    let again = one.push(|r| fresh("fake", &x, now - hour, unlimited(), r));
    assert_eq!(again.stored, 1);
    let One { sim, mut node } = one;
    // Now also a checkpoint, which tells again what the segments tell.
    for cores in [1, 2, 3, 3] {
        drop(node);
        sim.crash();
        node = TestNode::start(&sim, &options(cores)).unwrap();
        let memtables = || node.cores.iter().map(|core| &core.memtable);
        let live: u64 = memtables().map(|memtable| memtable.totals.series).sum();
        assert_eq!(live, 2, "{cores} cores");
        let tenants = memtables().flat_map(|memtable| memtable.tenants.iter().flatten());
        let oldest = tenants.map(|tenant| tenant.oldest).min();
        assert_eq!(
            oldest,
            Some(now - hour),
            "{cores} cores: what came is there"
        );
        node.checkpoint().unwrap();
    }
}

#[test]
fn thousands_of_tenants_cost_little_each() {
    let mut one = One::new();
    let up = [labels(&[("__name__", "up"), ("job", "node")])];
    for tenant in 0..2000 {
        let outcome = one.push(|r| fresh(&format!("t{tenant}"), &up, 1, unlimited(), r));
        assert_eq!(outcome.stored, 1);
    }
    one.sim.advance(Duration::from_secs(61));
    one.node.turn_until(5000, || false);
    let accounts = one.node.cores[0].memtable.accounts;
    println!(
        "bytes per tenant with one series: {}",
        accounts.sum() / 2000
    );
    assert!(accounts.sum() / 2000 < 2048, "{accounts:?}");
    assert_eq!(one.stats().len(), 2000);
}

/// A series that nobody writes gives its open chunk away after half an hour; what it has stays readable, and it goes on when it is written again.
#[test]
fn an_idle_series_is_parked_and_goes_on_where_it_stopped() {
    let mut one = One::new();
    let now = one.node.cores[0].reactor.wall_ms();
    let all = ["idle", "busy"].map(|name| labels(&[("__name__", name)]));
    let outcome = one.push(|r| fresh("fake", &all, now, unlimited(), r));
    let keys: Vec<SeriesKey> = outcome.keys.into_iter().flatten().collect();
    let park = |one: &mut One| {
        for _ in 0..2 {
            one.sim.advance(Duration::from_secs(1000));
            let wall = one.node.cores[0].reactor.wall_ms();
            let outcome = one.push(|r| known("fake", &keys[1..], wall, 7.0, r));
            assert_eq!(outcome.stored, 1);
        }
        one.sim.advance(Duration::from_secs(61));
        // Turns with nothing to do go to the next timer: not so many that the other series becomes idle too.
        one.node.turn_until(12, || false);
        let totals = one.node.cores[0].memtable.totals;
        assert_eq!((totals.parked, totals.series), (1, 2));
    };
    park(&mut one);
    let select_idle = |one: &mut One, from: i64| {
        let found = one.select(|select| {
            select.matchers = Arc::from([Matcher::equal("__name__", "idle")]);
            select.min_time = from;
        });
        found
            .unwrap()
            .first()
            .map_or(0, |series| series.chunks.len())
    };
    assert_eq!(select_idle(&mut one, i64::MIN), 1);
    assert_eq!(select_idle(&mut one, now + 1), 0);
    // Its key is answered 'send labels'. What is there already is a repetition, what is older is refused.
    assert_eq!(
        one.push(|r| known("fake", &keys[..1], now + 1, 1.0, r))
            .dead,
        [0]
    );
    let again =
        |one: &mut One, time: i64| one.push(|r| fresh("fake", &all[..1], time, unlimited(), r));
    let repeated = again(&mut one, now);
    assert_eq!(
        (repeated.stored, repeated.repeated, repeated.keys[0]),
        (0, 1, Some(keys[0]))
    );
    let old = one.push(|r| in_order_only(fresh("fake", &all[..1], now - 1, unlimited(), r)));
    assert_eq!(old.rejected[0].reason, RejectReason::OutOfOrder);
    assert_eq!(
        one.node.cores[0].memtable.totals.parked, 1,
        "nothing was stored"
    );
    // Parked series come back parked, out of a checkpoint and out of segments behind it.
    one.node.checkpoint().unwrap();
    let mut one = one.restart();
    assert_eq!(one.node.cores[0].memtable.totals.parked, 1);
    assert_eq!(select_idle(&mut one, i64::MIN), 1);
    assert_eq!(again(&mut one, now).repeated, 1);
    let next = again(&mut one, now + 4_000_000);
    assert_eq!((next.stored, next.keys[0]), (1, Some(keys[0])));
    assert_eq!(
        one.push(|r| known("fake", &keys[..1], now + 4_001_000, 1.0, r))
            .stored,
        1
    );
    assert_eq!(one.node.cores[0].memtable.totals.parked, 0);
    let mut one = one.restart();
    assert_eq!(one.node.cores[0].memtable.totals.parked, 0);
    assert_eq!(select_idle(&mut one, i64::MIN), 2);
    assert_eq!(select_idle(&mut one, now + 1), 1);
    // And another number of cores.
    park(&mut one);
    let One { sim, mut node } = one;
    for cores in [2, 1] {
        node.checkpoint().unwrap();
        drop(node);
        sim.crash();
        node = TestNode::start(&sim, &options(cores)).unwrap();
        let parked: u64 = node
            .cores
            .iter()
            .map(|core| core.memtable.totals.parked)
            .sum();
        assert_eq!(parked, 1, "{cores} cores");
    }
}

/// A series of histograms is parked as one of floats is, and goes on with either kind.
#[test]
fn an_idle_series_of_histograms_is_parked_and_goes_on_with_either_kind() {
    use chunk::Encoding::{Histogram as H, Xor as F};
    let mut one = One::new();
    let now = one.node.cores[0].reactor.wall_ms();
    let idle = labels(&[("__name__", "idle")]);
    let with_labels = |one: &mut One, time: i64, n: u64| {
        one.push(|r| {
            let mut push = fresh("fake", std::slice::from_ref(&idle), time, unlimited(), r);
            push.fresh.times.clear();
            push.fresh.values.clear();
            push.fresh.series[0].samples_end = 0;
            push.others.fresh.extend([
                OtherSample {
                    series: 0,
                    before: 0,
                    time,
                    value: OtherValue::Histogram(Box::new(histogram(n))),
                },
                OtherSample {
                    series: 0,
                    before: 0,
                    time,
                    value: OtherValue::Exemplar(Box::new(Exemplar {
                        labels: labels(&[("trace_id", "x")]),
                        value: n as f64,
                        time: TimeMs(time),
                    })),
                },
            ]);
            in_order_only(push)
        })
    };
    let parked = |one: &One| one.node.cores[0].memtable.totals.parked;
    let park = |one: &mut One| {
        one.sim.advance(Duration::from_secs(2000));
        one.node.turn_until(50, || false);
        assert_eq!(parked(one), 1);
    };
    let newest = |one: &mut One| {
        let found = one.select(|select| select.newest = true).unwrap();
        let slice = found[0].chunks.last().unwrap();
        let sealed = slice.bytes.read().unwrap();
        (slice.max_time, chunk::encoding(&sealed).unwrap())
    };
    let outcome = with_labels(&mut one, now, 1);
    assert_eq!((outcome.histograms, outcome.exemplars), (1, 1));
    let key = outcome.keys[0].unwrap();
    assert_eq!(newest(&mut one), (now, H));
    park(&mut one);
    assert_eq!(newest(&mut one), (now, H));
    let dead = one.push(|r| {
        let mut push = empty("fake", unlimited(), r);
        put_histogram(&mut push, key, 0, now + 1, 2);
        push
    });
    assert_eq!((dead.histograms, dead.dead_others), (0, vec![0]));
    let again = with_labels(&mut one, now, 1);
    assert_eq!((again.histograms, again.histograms_repeated), (0, 1));
    assert_eq!(parked(&one), 1, "nothing was stored");
    // Parked out of a checkpoint, with its exemplar; a histogram opens it again.
    one.node.checkpoint().unwrap();
    let mut one = one.restart();
    assert_eq!(parked(&one), 1);
    assert_eq!(kinds(&mut one), [(now, H)]);
    let found = one.select(|select| (select.with_chunks, select.with_exemplars) = (false, true));
    assert_eq!(found.unwrap()[0].exemplars.len(), 1);
    let older = with_labels(&mut one, now - 1, 1);
    assert_eq!(older.rejected[0].reason, RejectReason::OutOfOrder);
    assert_eq!(with_labels(&mut one, now + 10, 2).histograms, 1);
    assert_eq!(parked(&one), 0);
    // So does a float; and both come back behind a crash.
    park(&mut one);
    let float = |r| {
        fresh(
            "fake",
            std::slice::from_ref(&idle),
            now + 20,
            unlimited(),
            r,
        )
    };
    assert_eq!(one.push(float).stored, 1);
    assert_eq!(parked(&one), 0);
    assert_eq!(newest(&mut one), (now + 20, F));
    let mut one = one.restart();
    assert_eq!(parked(&one), 0);
    assert_eq!(kinds(&mut one), [(now, H), (now + 10, H), (now + 20, F)]);
}

/// Without memory no series is made; what is known goes on, in the same body too.
#[test]
fn without_memory_new_series_are_refused_and_nothing_else() {
    let memory = crate::Memory::new(1000);
    let mut one = One::with_memory(&memory);
    let [a, b] = ["a", "b"].map(|name| labels(&[("__name__", name)]));
    let first = one.push(|r| fresh("fake", std::slice::from_ref(&a), 1, unlimited(), r));
    memory.note(901);
    let both = one.push(|r| fresh("fake", &[a.clone(), b.clone()], 2, unlimited(), r));
    assert_eq!((both.stored, both.refused.clone()), (1, None));
    assert_eq!(both.keys, [first.keys[0], None]);
    assert_eq!(
        (both.rejected[0].reason, both.rejected[0].count),
        (RejectReason::NoMemory, 1)
    );
    let key = first.keys[0].unwrap();
    assert_eq!(one.push(|r| known("fake", &[key], 3, 1.0, r)).stored, 1);
    // A tenant that is not there costs memory too.
    let other = one.push(|r| fresh("other", &[a], 3, unlimited(), r));
    assert_eq!(other.refused, Some(Refusal::NoMemory));
    assert_eq!(one.stats().len(), 1);
    memory.note(100);
    assert_eq!(
        one.push(|r| fresh("fake", &[b], 4, unlimited(), r)).stored,
        1
    );
}

#[test]
fn cardinality_counts_the_values_of_every_label_and_their_series() {
    let mut one = One::new();
    let all: Vec<Labels> = (0..5000)
        .map(|i| {
            let (i, job) = (i.to_string(), if i % 5 == 0 { "x" } else { "y" });
            labels(&[("__name__", "up"), ("i", &i), ("job", job)])
        })
        .collect();
    one.push(|r| fresh("fake", &all, 7, unlimited(), r));
    let ask = |one: &mut One, names: &[&str]| {
        let (reply, result) = channel();
        let query = CardinalityQuery {
            tenant: TenantId::fake(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            hold: Arc::new(|_| true),
            canceled: Arc::default(),
            reply: Box::new(move |r| reply.send(r).unwrap()),
        };
        let message = Message::Cardinality(query);
        one.node.mailboxes.send(CoreId(0), message);
        one.wait(&result).unwrap()
    };
    let told = ask(&mut one, &[]);
    assert_eq!((told.series, told.chunks), (5000, 5000));
    assert_eq!((told.min_time, told.max_time), (7, 7));
    let mut names: Vec<_> = told
        .names
        .iter()
        .map(|n| (&*n.name, n.values.len()))
        .collect();
    names.sort_unstable();
    assert_eq!(names, [("__name__", 1), ("i", 5000), ("job", 2)]);
    let told = ask(&mut one, &["job", "nobody has this"]);
    assert_eq!(told.names.len(), 1);
    let job = &told.names[0];
    let mut from = 0;
    let mut values = Vec::new();
    for (end, count) in &job.values {
        values.push((&job.text[from..*end], *count));
        from = *end;
    }
    values.sort_unstable();
    assert_eq!(values, [("x", 1000), ("y", 4000)]);

    let (reply, result) = channel();
    let query = EstimateQuery {
        tenant: TenantId::fake(),
        matchers: Arc::from([
            Matcher::equal("job", "x"),
            Matcher::equal("__name__", "up"),
            Matcher::new(::model::MatchOp::Regex, "i", "1.*").unwrap(),
        ]),
        reply: Box::new(move |r| reply.send(r).unwrap()),
    };
    one.node.mailboxes.send(CoreId(0), Message::Estimate(query));
    let wanted = Estimate {
        candidates: 1000,
        scanned_values: 5000,
        series: 5000,
    };
    assert_eq!(one.wait(&result).unwrap(), wanted);
}

/// Story: counts were told at once, with series in them that no log had yet and that a crash would take back.
#[test]
fn counts_wait_for_the_log_as_every_read_does() {
    let mut one = One::new();
    let (reply, pushed) = channel();
    let series = [labels(&[("__name__", "up")])];
    let reply = Box::new(move |outcome| reply.send(outcome).unwrap());
    let push = fresh("fake", &series, 1, unlimited(), reply);
    one.send(push);
    one.node.turn_until(1, || false);
    assert!(pushed.try_recv().is_err(), "its commit is under way");
    assert_eq!(one.stats()[0].series, 1);
    assert!(pushed.try_recv().is_ok(), "told before the log was durable");
}
