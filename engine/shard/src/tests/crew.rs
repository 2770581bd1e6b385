//! Cores that share a thread: they commit together, and each keeps its promise alone.

use ::model::{CoreId, Labels, Matcher, TenantId};
use reactor::{Sim, Tick};

use super::client::{Body, Client, Ledger};
use super::node::{TestNode, cpus, options};
use crate::Options;
use crate::crew::{CREW_MAX, PACE, crews};
use crate::recovery::Home;

fn ids(ids: &[u16]) -> Vec<CoreId> {
    ids.iter().copied().map(CoreId).collect()
}

#[test]
fn cores_of_a_cpu_are_a_crew_of_bounded_size() {
    let homes = |trees: &[&str]| -> Vec<Home> {
        let home = |tree: &&str| Home {
            tree: tree.into(),
            direct: Ok(()),
        };
        trees.iter().map(home).collect()
    };
    let at_one = |cpus: &[usize]| crews(cpus, &homes(&vec!["wal"; cpus.len()]));
    assert_eq!(at_one(&[4, 5]), [ids(&[0]), ids(&[1])]);
    assert_eq!(at_one(&[4, 5, 4, 5, 4]), [ids(&[0, 2, 4]), ids(&[1, 3])]);
    let many = at_one(&[0; CREW_MAX + 1]);
    assert_eq!(many.len(), 2);
    assert_eq!(many[1], ids(&[CREW_MAX as u16]));
    // No disk is waited for by cores of another.
    let of_disks = crews(&[4; 5], &homes(&["a", "b", "a", "b", "c"]));
    assert_eq!(of_disks, [ids(&[0, 2]), ids(&[1, 3]), ids(&[4])]);
}

/// A node whose cores share a CPU, and bodies of which each has series on one core only.
fn node(cores: usize) -> (Sim, TestNode, Vec<Body>) {
    let sim = Sim::new(1);
    let options = Options {
        cores: cpus(cores, true),
        ..options(cores)
    };
    let node = TestNode::start(&sim, &options).unwrap();
    let client = Client::new(node.mailboxes.clone());
    let mut bodies = vec![Body::new(); cores];
    for i in 0..1000 {
        let labels = Labels::from_pairs([("__name__", "up"), ("pod", &format!("p{i}"))]).unwrap();
        let core = client.core_of(&TenantId::fake(), &labels);
        if bodies[usize::from(core.0)].len() < 10 {
            bodies[usize::from(core.0)].push((labels, 1000, i as f64));
        }
    }
    assert!(bodies.iter().all(|body| body.len() == 10));
    (sim, node, bodies)
}

#[test]
fn what_comes_for_any_core_while_one_writes_is_written_together_afterwards() {
    let (_sim, mut node, bodies) = node(3);
    let client = Client::new(node.mailboxes.clone());
    let (fake, mut ledger) = (TenantId::fake(), Ledger::default());
    let before: Vec<u64> = node
        .cores
        .iter()
        .map(|core| core.log.stats().commits)
        .collect();
    let now = Some(Tick::ZERO);
    let mut sent = client.push(&fake, &bodies[0], &mut ledger);
    let began = node.cores[0].reactor.now();
    node.turn_crew(now);
    assert!(
        node.cores[0].log.is_writing(),
        "a lone push waits for nobody"
    );
    sent.extend(client.push(&fake, &bodies[1], &mut ledger));
    node.turn_crew(now);
    sent.extend(client.push(&fake, &bodies[2], &mut ledger));
    sent.extend(client.push(&fake, &later(&bodies[1]), &mut ledger));
    node.turn_crew(now);
    for core in 1..3 {
        let log = &node.cores[core].log;
        assert!(
            !log.is_writing() && log.queued_bytes() > 0,
            "core {core} waits for core 0"
        );
    }
    while node.cores[0].log.is_writing() {
        node.turn_crew(None);
    }
    while !node.cores[1].log.is_writing() {
        node.turn_crew(None);
    }
    assert!(node.cores[2].log.is_writing());
    let waited = node.cores[0].reactor.now().since(began);
    assert!(waited >= PACE, "the second round after {waited:?}");
    let answered = node.turn_until(100, || {
        sent.retain(|sent| client.settle(sent, &mut ledger).is_none());
        sent.is_empty()
    });
    assert!(answered);
    let commits = node
        .cores
        .iter()
        .zip(before)
        .map(|(core, before)| core.log.stats().commits - before);
    assert_eq!(
        commits.collect::<Vec<_>>(),
        [1, 1, 1],
        "two bodies of core 1 are one commit"
    );
    let mut asked = client.select(&fake, &[Matcher::equal("__name__", "up")], (0, i64::MAX));
    let mut found = None;
    node.turn_until(100, || {
        found = found.take().or_else(|| asked.settle());
        found.is_some()
    });
    ledger.check_acknowledged(&fake, &found.unwrap().unwrap());
    assert_eq!(ledger.samples.len(), 30);
    node.stop();
}

#[test]
fn what_fills_the_blocks_of_all_cores_is_not_paced() {
    let (_sim, mut node, bodies) = node(2);
    let client = Client::new(node.mailboxes.clone());
    let (fake, mut ledger) = (TenantId::fake(), Ledger::default());
    let mut sent = client.push(&fake, &bodies[0], &mut ledger);
    let began = node.cores[0].reactor.now();
    node.turn_crew(Some(Tick::ZERO));
    assert!(node.cores[0].log.is_writing());
    let series = |i: usize| Labels::from_pairs([("__name__", "up"), ("pod", &format!("q{i}"))]);
    let many: Body = (0..200).map(|i| (series(i).unwrap(), 1000, 1.0)).collect();
    sent.extend(client.push(&fake, &many, &mut ledger));
    let lsn = node.cores[0].log.written();
    while node.cores[0].log.written() == lsn {
        node.turn_crew(None);
    }
    assert!(node.cores[0].reactor.now().since(began) < PACE);
    assert!(node.cores.iter().any(|core| core.log.is_writing()));
    let answered = node.turn_until(100, || {
        sent.retain(|sent| client.settle(sent, &mut ledger).is_none());
        sent.is_empty()
    });
    assert!(answered);
    node.stop();
}

fn later(body: &Body) -> Body {
    let samples = body.iter().cloned();
    samples
        .map(|(labels, time, value)| (labels, time + 1000, value))
        .collect()
}

/// Cores without anything to do are passed over: a body of one core is a turn of one core.
#[test]
fn a_core_that_has_nothing_to_do_is_not_turned() {
    let (_sim, mut node, bodies) = node(3);
    let turns = |node: &TestNode| {
        let turns = node.published.iter().map(|published| &published.turns);
        turns
            .map(|turns| turns.load(std::sync::atomic::Ordering::Relaxed))
            .collect::<Vec<_>>()
    };
    node.turn_until(50, || false);
    let before = turns(&node);
    let client = Client::new(node.mailboxes.clone());
    let mut ledger = Ledger::default();
    let mut sent = client.push(&TenantId::fake(), &bodies[1], &mut ledger);
    let answered = node.turn_until(100, || {
        sent.retain(|sent| client.settle(sent, &mut ledger).is_none());
        sent.is_empty()
    });
    assert!(answered);
    let after = turns(&node);
    assert!(after[1] > before[1]);
    assert_eq!((after[0], after[2]), (before[0], before[2]));
}
