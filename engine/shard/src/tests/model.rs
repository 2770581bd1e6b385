//! Random operations against a plain model, compared exactly after each step: no crashes here, every answer is known.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::model::{Labels, MatchOp, Matcher, TenantId};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use reactor::Sim;

use super::client::{Body, Client, Ledger, Name, histogram_of};
use super::node::{TestNode, cpus, options};
use super::simulation::seeds;
use crate::message::{PushOutcome, RejectReason};

/// The model: what a store of samples is, without any of the things that make it fast.
#[derive(Default)]
struct Store(BTreeMap<Name, BTreeMap<i64, u64>>);

/// How late a sample may be.
const WINDOW_MS: i64 = 600_000;

#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    stored: u32,
    repeated: u32,
    rejected: BTreeMap<&'static str, u32>,
}

impl Store {
    fn put(&mut self, name: Name, time: i64, bits: u64, expected: &mut Expected) {
        let series = self.0.entry(name).or_default();
        let reason = match (series.get(&time), series.last_key_value()) {
            (Some(&stored), _) if stored == bits => {
                expected.repeated += 1;
                return;
            }
            (Some(_), _) => RejectReason::NewValueForTimestamp,
            (None, Some((&last, _))) if last - time > WINDOW_MS => RejectReason::TooOld,
            _ => {
                series.insert(time, bits);
                expected.stored += 1;
                return;
            }
        };
        *expected.rejected.entry(reason.name()).or_default() += 1;
    }
}

fn random_labels(rng: &mut SmallRng) -> Labels {
    let mut labels = Labels::empty().with(
        "__name__",
        ["up", "http_total", "le_bucket"].choose(rng).unwrap(),
    );
    for (name, values) in [
        ("job", &["a", "b", ""][..]),
        ("pod", &["p1", "p2", "p3", "p4", "ä"]),
    ] {
        labels = labels.with(name, values.choose(rng).unwrap());
    }
    labels
}

fn random_matchers(rng: &mut SmallRng) -> Vec<Matcher> {
    let all = [
        (MatchOp::Equal, "__name__", "up"),
        (MatchOp::Equal, "job", ""),
        (MatchOp::NotEqual, "job", "a"),
        (MatchOp::NotEqual, "job", ""),
        (MatchOp::Regex, "pod", "p[12]|ä"),
        (MatchOp::Regex, "pod", "p1|p3"),
        (MatchOp::NotRegex, "pod", "p.*"),
        (MatchOp::Regex, "__name__", ".+_.+"),
        (MatchOp::NotRegex, "none", "x.*"),
        (MatchOp::Equal, "none", "x"),
    ];
    let count = rng.random_range(0..3);
    let chosen: Vec<_> = all.choose_multiple(rng, count).collect();
    chosen
        .into_iter()
        .map(|&(op, name, value)| Matcher::new(op, name, value).unwrap())
        .collect()
}

fn random_time(rng: &mut SmallRng, now: i64) -> i64 {
    match rng.random_range(0..10) {
        0 => now - rng.random_range(0..200_000),
        // What is late is still behind every cut then, and whatever it is compared with in memory.
        1 => now + rng.random_range(0..3_000_000),
        _ => now,
    }
}

fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let sim = Sim::new(seed);
    let mut config = options(rng.random_range(1..4));
    config.chunk_samples_max = *[2, 5, 120].choose(&mut rng).unwrap();
    // Of what a start finds; runs jump over hours.
    config.retention = Duration::from_secs(30 * 24 * 3600);
    let mut node = TestNode::start(&sim, &config).unwrap();
    let client = Client::new(node.mailboxes.clone())
        .keeping()
        .with_window(Duration::from_millis(WINDOW_MS as u64));
    let (mut ledger, mut store) = (Ledger::default(), Store::default());
    let tenants = [TenantId::fake(), TenantId::new("other").unwrap()];
    // A series of which all is in blocks, or nothing is left in memory, is a new one to its core, for which the model has no eyes: so a run has cuts or deletions.
    let deletes = seed.is_multiple_of(2);
    let mut now = 0;
    for step in 0..rng.random_range(20..120) {
        let tenant = tenants.choose(&mut rng).unwrap();
        if rng.random_bool(0.7) {
            now += rng.random_range(0..30_000);
            if rng.random_bool(0.1) {
                now += rng.random_range(0..3 * crate::limits::CUT_MS);
            }
            let body: Body = (0..rng.random_range(1..25))
                .map(|_| {
                    let value = f64::from(rng.random_range(-2..3));
                    (random_labels(&mut rng), random_time(&mut rng, now), value)
                })
                .collect();
            check_push(&mut node, &client, &mut ledger, &mut store, tenant, &body);
        } else {
            let matchers = random_matchers(&mut rng);
            let min = rng.random_range(-10_000..now.max(1));
            let range = match rng.random_bool(0.3) {
                true => (i64::MIN, i64::MAX),
                false => (min, min + rng.random_range(0..1_000_000)),
            };
            check_select(&mut node, &client, &store, tenant, &matchers, range);
            check_labels(&mut node, &client, &store, tenant, &matchers, range);
        }
        if deletes && rng.random_bool(0.1) {
            check_delete(&mut node, &client, &mut store, tenant, &mut rng, now);
        }
        if !deletes && rng.random_bool(0.1) {
            force_cut(&mut node, &mut rng);
        }
        if step % 40 == 39 && rng.random_bool(0.5) {
            if rng.random_bool(0.5) {
                node.checkpoint().unwrap();
            }
            // Restarts must not change an answer, and aliases die with the process.
            match rng.random_bool(0.5) {
                true => node.stop(),
                false => {
                    drop(node);
                    sim.crash();
                }
            }
            config.cores = cpus(rng.random_range(1..4), rng.random_bool(0.4));
            return run_on(seed, rng, sim, config, ledger, store, now);
        }
    }
}

/// Deletes, and has the model do the same.
fn check_delete(
    node: &mut TestNode,
    client: &Client,
    store: &mut Store,
    tenant: &TenantId,
    rng: &mut SmallRng,
    now: i64,
) {
    let selectors = [random_matchers(rng), random_matchers(rng)];
    let selectors = &selectors[..rng.random_range(1..3)];
    let min = now - rng.random_range(0..1_000_000);
    let (min, max) = match rng.random_bool(0.3) {
        true => (i64::MIN, i64::MAX),
        false => (min, min + rng.random_range(0..1_000_000)),
    };
    let lists: Vec<&[Matcher]> = selectors.iter().map(|list| &list[..]).collect();
    let reply = client.delete(tenant, &lists, (min, max));
    let mut result = None;
    let answered = node.turn_until(10_000, || {
        result = result.take().or_else(|| reply.try_recv().ok());
        result.is_some()
    });
    assert!(answered, "a deletion is answered");
    result.unwrap().unwrap();
    for matchers in selectors {
        let mine = store.0.iter_mut().filter(|((owner, labels), _)| {
            let passes = |m: &Matcher| m.matches(labels.get(m.name()).unwrap_or(""));
            owner == tenant && matchers.iter().all(passes)
        });
        for (_, samples) in mine {
            let before = samples.len();
            samples.retain(|time, _| !(min..=max).contains(time));
            DELETED.fetch_add((before - samples.len()) as u64, Ordering::Relaxed);
        }
    }
    check_select(node, client, store, tenant, &[], (i64::MIN, i64::MAX));
}

/// Samples deleted in all runs.
static DELETED: AtomicU64 = AtomicU64::new(0);

/// Cuts what is due, or flushes everything, and goes on before that is over or behind it.
fn force_cut(node: &mut TestNode, rng: &mut SmallRng) {
    for core in &mut node.cores {
        match rng.random_bool(0.7) {
            true => core.tick_cuts(),
            false => core.request_flush(crate::Flush::all(Box::new(drop))),
        }
    }
    let rounds = *[0, 5, 20, 200].choose(rng).unwrap();
    // A tenant that rests for an hour is cut whole and its series leave, and then a sample of any age is a first one: the model knows nothing of that.
    let end = node.cores[0].reactor.now().after(Duration::from_secs(300));
    for _ in 0..rounds {
        if node.cores[0].reactor.now() < end {
            node.turn_until(1, || false);
        }
    }
    let cuts: u64 = node.cores.iter().map(|core| core.cuts.made).sum();
    CUTS.fetch_add(cuts, Ordering::Relaxed);
}

/// Cuts that were over, in all runs.
static CUTS: AtomicU64 = AtomicU64::new(0);

/// The rest of a run, behind a restart.
fn run_on(
    seed: u64,
    mut rng: SmallRng,
    sim: Sim,
    config: crate::Options,
    mut ledger: Ledger,
    mut store: Store,
    mut now: i64,
) {
    let mut node = TestNode::start(&sim, &config).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let client = Client::new(node.mailboxes.clone())
        .keeping()
        .with_window(Duration::from_millis(WINDOW_MS as u64));
    let fake = TenantId::fake();
    for tenant in [&fake, &TenantId::new("other").unwrap()] {
        check_select(
            &mut node,
            &client,
            &store,
            tenant,
            &[],
            (i64::MIN, i64::MAX),
        );
        check_labels(
            &mut node,
            &client,
            &store,
            tenant,
            &[],
            (i64::MIN, i64::MAX),
        );
    }
    for _ in 0..20 {
        now += 10_000;
        let body: Body = (0..10)
            .map(|_| {
                (
                    random_labels(&mut rng),
                    random_time(&mut rng, now),
                    now as f64 * *[1.0, 1.0, -1.0].choose(&mut rng).unwrap(),
                )
            })
            .collect();
        check_push(&mut node, &client, &mut ledger, &mut store, &fake, &body);
    }
    check_select(&mut node, &client, &store, &fake, &[], (i64::MIN, i64::MAX));
}

fn check_push(
    node: &mut TestNode,
    client: &Client,
    ledger: &mut Ledger,
    store: &mut Store,
    tenant: &TenantId,
    body: &Body,
) {
    let sent = client.push(tenant, body, ledger);
    assert!(!sent.is_empty());
    for sent in &sent {
        let mut outcome = None;
        let answered = node.turn_until(1000, || {
            outcome = outcome.take().or_else(|| client.settle(sent, ledger));
            outcome.is_some()
        });
        assert!(answered, "a push is answered");
        let outcome = outcome.unwrap();
        assert_eq!(outcome.refused, None);
        let mut expected = Expected::default();
        let (taken, again) = in_order(sent, &outcome);
        for (labels, time, value) in taken {
            store.put(
                (tenant.clone(), labels),
                time,
                value.to_bits(),
                &mut expected,
            );
        }
        let mut found = Expected {
            stored: outcome.stored + outcome.histograms,
            repeated: outcome.repeated,
            rejected: BTreeMap::new(),
        };
        // Of a reason known series are told apart from those with labels.
        for rejection in &outcome.rejected {
            *found.rejected.entry(rejection.reason.name()).or_default() += rejection.count;
        }
        assert_eq!(found, expected);
        if !again.is_empty() {
            // Its series is parked: with labels it goes on.
            check_push(node, client, ledger, store, tenant, &again);
        }
    }
}

/// The samples of a push in the order in which a core takes them, known ones first; and those of dead keys.
fn in_order(sent: &super::client::Sent, outcome: &PushOutcome) -> (Body, Body) {
    let (known, fresh) = sent.parts();
    let (mut taken, mut again) = (Body::new(), Body::new());
    let (mut floats, mut others) = (0, 0);
    for sample in known {
        let is_dead = match histogram_of(sample.2) {
            None => {
                floats += 1;
                outcome.dead.contains(&(floats - 1))
            }
            // An exemplar stands beside it.
            Some(_) => {
                others += 2;
                outcome.dead_others.contains(&(others - 2))
            }
        };
        match is_dead {
            true => again.push(sample),
            false => taken.push(sample),
        }
    }
    taken.extend(fresh);
    (taken, again)
}

fn check_select(
    node: &mut TestNode,
    client: &Client,
    store: &Store,
    tenant: &TenantId,
    matchers: &[Matcher],
    (min, max): (i64, i64),
) {
    let mut asked = client.select(tenant, matchers, (min, max));
    let mut found = None;
    let answered = node.turn_until(1000, || {
        found = found.take().or_else(|| asked.settle());
        found.is_some()
    });
    assert!(answered, "a read is answered");
    let found = found.unwrap().unwrap();
    let in_range = |samples: &BTreeMap<i64, u64>| -> BTreeMap<i64, u64> {
        samples
            .range(min..=max)
            .map(|(&time, &bits)| (time, bits))
            .collect()
    };
    let expected: BTreeMap<Labels, BTreeMap<i64, u64>> = matching(store, tenant, matchers)
        .map(|(labels, samples)| (labels.clone(), in_range(samples)))
        .filter(|(_, samples)| !samples.is_empty())
        .collect();
    let found: BTreeMap<Labels, BTreeMap<i64, u64>> = found
        .iter()
        .map(|(labels, samples)| (labels.clone(), in_range(samples)))
        .filter(|(_, samples)| !samples.is_empty())
        .collect();
    assert_eq!(found, expected, "{matchers:?} from {min} to {max}");
}

fn check_labels(
    node: &mut TestNode,
    client: &Client,
    store: &Store,
    tenant: &TenantId,
    matchers: &[Matcher],
    (min, max): (i64, i64),
) {
    for name in [None, Some("pod"), Some("job"), Some("none")] {
        let replies = client.labels(tenant, name, matchers, (min, max));
        let mut found = std::collections::BTreeSet::new();
        let mut missing = client.mailboxes.count();
        let answered = node.turn_until(1000, || {
            for reply in replies.try_iter() {
                missing -= 1;
                found.extend(reply.unwrap());
            }
            missing == 0
        });
        assert!(answered, "a label query is answered");
        let in_blocks = client.in_blocks(tenant, matchers, (min, max));
        found.extend(in_blocks.flat_map(|labels| texts_of(&labels, name)));
        let texts = |in_range: bool| -> std::collections::BTreeSet<String> {
            matching(store, tenant, matchers)
                .filter(|(_, samples)| !in_range || samples.range(min..=max).next().is_some())
                .flat_map(|(labels, _)| texts_of(labels, name))
                .collect()
        };
        // A chunk that overlaps the range need not have a sample in it.
        assert!(
            found.is_superset(&texts(true)),
            "{name:?} {matchers:?}: {found:?}"
        );
        assert!(
            found.is_subset(&texts(false)),
            "{name:?} {matchers:?}: {found:?}"
        );
    }
}

fn texts_of(labels: &Labels, name: Option<&str>) -> Vec<String> {
    match name {
        None => labels.iter().map(|(name, _)| name.to_owned()).collect(),
        Some(name) => labels.get(name).map(str::to_owned).into_iter().collect(),
    }
}

fn matching<'a>(
    store: &'a Store,
    tenant: &'a TenantId,
    matchers: &'a [Matcher],
) -> impl Iterator<Item = (&'a Labels, &'a BTreeMap<i64, u64>)> {
    let passes = |labels: &Labels| {
        matchers
            .iter()
            .all(|m| m.matches(labels.get(m.name()).unwrap_or("")))
    };
    let mine = store
        .0
        .iter()
        .filter(move |((owner, labels), _)| owner == tenant && passes(labels));
    mine.map(|((_, labels), samples)| (labels, samples))
        .filter(|(_, samples)| !samples.is_empty())
}

#[test]
fn random_operations_agree_with_the_model() {
    seeds("random_operations_agree_with_the_model", 20, run);
    let cuts = CUTS.load(Ordering::Relaxed);
    let deleted = DELETED.load(Ordering::Relaxed);
    assert!(
        (cuts > 0 && deleted > 100) || std::env::var("MYELIN_SEED").is_ok(),
        "nothing was cut, or deleted: {cuts}, {deleted}"
    );
}
