//! Cuts in particular: the power goes after every single operation of one, the disk fails in one, what becomes of series, files and memory.

use std::collections::BTreeMap;
use std::time::Duration;

use ::model::{Labels, TenantId, TenantLimits};
use reactor::{Fault, Sim};

use super::client::{Body, Client, Found, Ledger};
use super::node::{TestNode, options};
use crate::limits::{CUT_MS, PARK_AFTER_S};
use crate::{Flush, Options};

/// A multiple of two hours near the clock of the simulated machine.
pub(super) fn boundary(node: &TestNode) -> i64 {
    node.cores[0].reactor.wall_ms().div_euclid(CUT_MS) * CUT_MS
}

pub(super) fn labels(pod: usize) -> Labels {
    Labels::from_pairs([("__name__", "up"), ("pod", &format!("p{pod}"))]).unwrap()
}

/// A node, and what was sent to it.
pub(super) struct Cutting {
    pub(super) sim: Sim,
    pub(super) options: Options,
    node: Option<TestNode>,
    client: Option<Client>,
    /// Whether a history has late samples.
    late: bool,
    ledger: Ledger,
}

impl Cutting {
    pub(super) fn new(seed: u64, cores: usize) -> Cutting {
        let options = Options {
            chunk_samples_max: 5,
            chunk_file_bytes: 4096,
            retention: Duration::from_secs(30 * 24 * 3600),
            ..options(cores)
        };
        Cutting {
            sim: Sim::new(seed),
            options,
            node: None,
            client: None,
            late: false,
            ledger: Ledger::default(),
        }
    }

    /// Histories with samples that come 25 minutes late: floats and histograms of two series.
    fn late(mut self) -> Cutting {
        self.late = true;
        self
    }

    /// False: the machine has no power.
    pub(super) fn start(&mut self) -> bool {
        let node = TestNode::start(&self.sim, &self.options);
        if let Err(error) = &node {
            assert!(self.sim.is_off(), "{error}");
            return false;
        }
        let node = node.ok();
        self.client = node
            .as_ref()
            .map(|node| Client::new(node.mailboxes.clone()).with_window(LATE_MAX));
        self.node = node;
        true
    }

    pub(super) fn node(&mut self) -> &mut TestNode {
        self.node.as_mut().expect("started")
    }

    pub(super) fn push(&mut self, tenant: &TenantId, body: &Body) {
        let client = self.client.as_ref().expect("started");
        let mut sent = client.push(tenant, body, &mut self.ledger);
        let (node, ledger) = (self.node.as_mut().expect("started"), &mut self.ledger);
        node.turn_until(1000, || {
            sent.retain(|sent| client.settle(sent, ledger).is_none());
            sent.is_empty()
        });
    }

    /// Three series for hours, two of them of histograms now and then, and one that ends early.
    pub(super) fn history(&mut self, tenant: &TenantId, from: i64, minutes: i64) {
        for minute in (0..minutes).step_by(10) {
            let time = from + minute * 60_000;
            let pods = if minute < 40 { 0..4 } else { 0..3 };
            let value = |pod: usize| match (1..3).contains(&pod) && minute % 30 == 0 {
                true => -(minute as f64) - 1.0,
                false => minute as f64,
            };
            let body = pods.map(|pod| (labels(pod), time, value(pod))).collect();
            self.push(tenant, &body);
            if self.sim.is_off() {
                return;
            }
            if self.late && minute >= 30 {
                let time = time - 25 * 60_000 + 3;
                let value = minute as f64 + 0.5;
                let late = vec![(labels(0), time, value), (labels(1), time, -value)];
                self.push(tenant, &late);
            }
        }
    }

    /// Lets every core look whether it has to cut, and turns until all is over or the power is gone.
    pub(super) fn cut(&mut self) {
        self.node()
            .cores
            .iter_mut()
            .for_each(|core| core.tick_cuts());
        // No longer than it takes: the clock goes on where nothing else happens, and tells who is idle.
        let sim = self.sim.clone();
        let mut rests = 0;
        for _ in 0..300 {
            let node = self.node();
            node.turn_until(1, || sim.is_off());
            let rest = node.cores.iter().all(|core| core.cuts.is_idle());
            rests = if rest { rests + 1 } else { 0 };
            if rests > 4 || sim.is_off() {
                break;
            }
        }
    }

    pub(super) fn read(&mut self, tenant: &TenantId) -> Found {
        let client = self.client.as_ref().expect("started");
        let mut asked = client.select(tenant, &[], (i64::MIN, i64::MAX));
        let mut found = None;
        let answered = self.node().turn_until(1000, || {
            found = found.take().or_else(|| asked.settle());
            found.is_some()
        });
        assert!(answered, "a read is answered");
        found.expect("answered").expect("a sound node")
    }

    fn verify(&mut self, tenant: &TenantId) {
        let found = self.read(tenant);
        self.ledger.check_sent(tenant, &found);
        self.ledger.check_acknowledged(tenant, &found);
    }

    /// What was sent so far: the ledger knows no two values of a sample.
    pub(super) fn forget(&mut self) {
        self.ledger = Ledger::default();
    }

    fn in_blocks(&mut self) -> u64 {
        self.node().mailboxes.blocks().summary().samples
    }

    pub(super) fn into_node(mut self) -> TestNode {
        self.client = None;
        self.node.take().expect("started")
    }

    pub(super) fn end(&mut self) {
        self.node = None;
        self.client = None;
        self.sim.crash();
    }
}

/// How late samples may be.
const LATE_MAX: Duration = Duration::from_secs(3600);

/// The late ones of [`expected_in_blocks`]: they come from the thirtieth minute on, 25 minutes late.
const LATE_IN_BLOCKS: u64 = 2 * 24;

/// Samples that are cut when the newest one is five hours behind the boundary where they begin: those of four hours.
fn expected_in_blocks() -> u64 {
    // Ten minutes apart; the fourth series has only four.
    3 * 24 + 4
}

#[test]
fn a_power_cut_after_every_operation_of_a_cut_loses_nothing_and_leaves_nothing_twice() {
    cut_power_everywhere(&|stop| Cutting::new(stop, 1), expected_in_blocks());
}

/// Late samples are joined with those that they overlap on their way into a block.
#[test]
fn so_does_a_power_cut_with_late_samples_in_the_cut() {
    let expected = expected_in_blocks() + LATE_IN_BLOCKS;
    cut_power_everywhere(&|stop| Cutting::new(stop, 1).late(), expected);
}

fn cut_power_everywhere(new: &dyn Fn(u64) -> Cutting, expected: u64) {
    let tenant = TenantId::fake();
    let mut states: BTreeMap<u64, u64> = BTreeMap::new();
    for stop in 0.. {
        let mut run = new(stop);
        assert!(run.start());
        let from = boundary(run.node()) - 3 * CUT_MS;
        run.history(&tenant, from, 310);
        run.sim.stop_after(stop);
        run.cut();
        let whole = !run.sim.is_off();
        run.end();
        assert!(run.start(), "a sound machine starts");
        run.verify(&tenant);
        let samples = run.in_blocks();
        *states.entry(samples).or_default() += 1;
        if whole {
            assert_eq!(samples, expected, "stopped after {stop}");
            let head = run.node().cores[0].memtable.totals.samples;
            assert!(head < 40, "{head} samples are in the head too");
        }
        // Goes on: what is in blocks is not cut again.
        run.cut();
        assert_eq!(run.in_blocks(), expected, "stopped after {stop}");
        run.verify(&tenant);
        run.end();
        assert!(run.start(), "a sound machine starts");
        run.verify(&tenant);
        assert_eq!(run.in_blocks(), expected, "stopped after {stop}");
        if whole {
            break;
        }
    }
    let known = [0, expected];
    assert!(
        states.keys().all(|samples| known.contains(samples)),
        "{states:?}"
    );
    assert!(
        states.len() == 2 && states.values().all(|&n| n > 2),
        "{states:?}"
    );
}

#[test]
fn a_failing_operation_of_a_cut_loses_nothing_and_a_later_cut_succeeds() {
    let tenant = TenantId::fake();
    let mut failed = 0;
    for nth in 1..60 {
        for fault in [Fault::EIO, Fault::ENOSPC] {
            let mut run = Cutting::new(nth, 1);
            assert!(run.start());
            let from = boundary(run.node()) - 3 * CUT_MS;
            run.history(&tenant, from, 310);
            run.sim.fail_nth(nth, fault);
            run.cut();
            run.sim.clear_faults();
            let core = &run.node().cores[0];
            failed += core.cuts.failed;
            if core.is_poisoned_by().is_none() {
                run.verify(&tenant);
            } else {
                run.end();
                assert!(run.start());
            }
            // Space is there again, the time after a failure over.
            run.sim.advance(Duration::from_secs(300));
            run.cut();
            run.cut();
            run.verify(&tenant);
            assert_eq!(
                run.in_blocks(),
                expected_in_blocks(),
                "{nth} failed: {fault:?}"
            );
            run.end();
            assert!(run.start());
            run.verify(&tenant);
            assert_eq!(
                run.in_blocks(),
                expected_in_blocks(),
                "{nth} failed: {fault:?}"
            );
        }
    }
    assert!(failed > 5, "only {failed} cuts failed");
}

#[test]
fn a_cut_frees_memory_files_and_log_and_series_that_ended_leave_whole() {
    let tenant = TenantId::fake();
    let mut run = Cutting::new(1, 2);
    assert!(run.start());
    let from = boundary(run.node()) - 3 * CUT_MS;
    run.history(&tenant, from, 310);
    let sealed = |run: &mut Cutting| -> u64 {
        let cores = run.node().cores.iter();
        cores.map(|core| core.memtable.totals.sealed_chunks).sum()
    };
    let series = |run: &mut Cutting| -> u64 {
        let cores = run.node().cores.iter();
        cores.map(|core| core.memtable.totals.series).sum()
    };
    let before = sealed(&mut run);
    assert_eq!(series(&mut run), 4);
    run.sim
        .advance(Duration::from_secs(u64::from(PARK_AFTER_S) + 60));
    run.cut();
    run.verify(&tenant);
    assert_eq!(run.in_blocks(), expected_in_blocks());
    assert!(sealed(&mut run) * 3 < before, "{before} chunks before");
    assert_eq!(
        series(&mut run),
        3,
        "the series that ended is in blocks alone"
    );
    // Two checkpoints later nothing names the files.
    for minute in 0..4 {
        run.push(
            &tenant,
            &vec![(labels(0), from + (320 + minute) * 60_000, 1.0)],
        );
        run.node().checkpoint().unwrap();
        run.sim.advance(Duration::from_secs(120));
        run.node().turn_until(50, || false);
    }
    let files = run
        .node()
        .cores
        .iter()
        .map(|c| c.memtable.chunks.file_count());
    let files: usize = files.sum();
    assert!(files <= 4, "{files} chunk files are left");
    run.verify(&tenant);
    // It comes back, with a sample older than its last one even: a first sample may be of any age. The key is dead, so it takes two pushes.
    run.push(&tenant, &vec![(labels(3), from + 5, 7.0)]);
    run.push(&tenant, &vec![(labels(3), from + 5, 7.0)]);
    run.verify(&tenant);
    run.end();
    assert!(run.start());
    run.verify(&tenant);
}

/// Another value for a sample that is in a block: it was logged later and counts, before and behind the next cut, and behind a restart.
#[test]
fn what_was_logged_later_counts_wherever_it_lies() {
    let tenant = TenantId::fake();
    let mut run = Cutting::new(1, 1);
    assert!(run.start());
    let from = boundary(run.node()) - 4 * CUT_MS;
    run.history(&tenant, from, 190);
    run.sim
        .advance(Duration::from_secs(u64::from(PARK_AFTER_S) + 60));
    run.cut();
    assert!(run.in_blocks() > 0);
    let again = (labels(3), from + 10 * 60_000, 77.0);
    // The key is dead.
    run.forget();
    run.push(&tenant, &vec![again.clone()]);
    run.push(&tenant, &vec![again.clone()]);
    let is_later = |run: &mut Cutting, samples: usize| {
        let found = run.read(&tenant);
        assert_eq!(found[&again.0][&again.1], again.2.to_bits());
        assert_eq!(found[&again.0].len(), samples, "the others are there");
    };
    is_later(&mut run, 4);
    run.history(&tenant, from + CUT_MS * 2, 190);
    is_later(&mut run, 8);
    let before = run.in_blocks();
    run.cut();
    assert!(run.in_blocks() > before);
    is_later(&mut run, 8);
    run.end();
    assert!(run.start());
    is_later(&mut run, 8);
}

/// Story: the boundary followed the samples of the tenant, so who stopped kept its last one to three hours in memory, in the log and in chunk files for as long as the
/// process ran.
#[test]
fn a_tenant_that_pushes_no_more_is_cut_whole_by_the_clock() {
    let (stops, goes_on) = (
        TenantId::new("stops").unwrap(),
        TenantId::new("on").unwrap(),
    );
    let mut run = Cutting::new(1, 1);
    assert!(run.start());
    let from = boundary(run.node()) - 3 * CUT_MS;
    run.history(&stops, from, 100);
    run.cut();
    assert_eq!(run.in_blocks(), 0, "no boundary has been passed");
    let pushes = |run: &mut Cutting, minute: i64| {
        let ledger = std::mem::take(&mut run.ledger);
        run.push(&goes_on, &vec![(labels(0), from + minute * 60_000, 1.0)]);
        run.ledger = ledger;
    };
    run.sim.advance(Duration::from_secs(2700));
    pushes(&mut run, 1);
    run.cut();
    assert_eq!(run.in_blocks(), 0, "not yet an hour");
    run.sim.advance(Duration::from_secs(1200));
    pushes(&mut run, 2);
    run.cut();
    let all = 3 * 10 + 4;
    assert_eq!(run.in_blocks(), all, "and of the other nothing");
    run.verify(&stops);
    // Once is enough.
    let made = run.node().cores[0].cuts.made;
    for minute in 3..7 {
        run.sim.advance(Duration::from_secs(1800));
        pushes(&mut run, minute);
    }
    run.cut();
    assert_eq!(run.node().cores[0].cuts.made, made);
    run.end();
    assert!(run.start());
    run.verify(&stops);
    assert_eq!(run.in_blocks(), all);
    // It comes back where it stopped.
    run.history(&stops, from + 100 * 60_000, 50);
    run.verify(&stops);
}

#[test]
fn a_flush_copies_everything_and_changes_nothing() {
    let tenant = TenantId::fake();
    let mut run = Cutting::new(3, 2);
    assert!(run.start());
    let from = boundary(run.node()) - CUT_MS;
    run.history(&tenant, from, 100);
    let (sender, receiver) = std::sync::mpsc::channel();
    for core in &mut run.node().cores {
        let sender = sender.clone();
        core.request_flush(Flush::all(Box::new(move |result| {
            sender.send(result).unwrap()
        })));
    }
    let mut results = Vec::new();
    run.node().turn_until(1000, || {
        results.extend(receiver.try_iter());
        results.len() == 2
    });
    assert_eq!(results, [Ok(()), Ok(())]);
    assert_eq!(run.in_blocks(), 3 * 10 + 4);
    run.verify(&tenant);
    // Memory goes on where it was.
    run.history(&tenant, from + 100 * 60_000, 50);
    run.verify(&tenant);
    run.end();
    assert!(run.start());
    run.verify(&tenant);
}

#[test]
fn a_flush_of_some_tenants_copies_nothing_of_others() {
    let [a, b, c] = ["a", "b", "c"].map(|name| TenantId::new(name).unwrap());
    let mut run = Cutting::new(3, 2);
    assert!(run.start());
    let from = boundary(run.node()) - CUT_MS;
    for tenant in [&a, &b, &c] {
        run.history(tenant, from, 20);
    }
    let flush = |run: &mut Cutting, names: &[&[&TenantId]]| {
        let (sender, receiver) = std::sync::mpsc::channel();
        for core in &mut run.node().cores {
            for &tenants in names {
                let sender = sender.clone();
                core.request_flush(Flush {
                    tenants: tenants.iter().map(|&tenant| tenant.clone()).collect(),
                    reply: Box::new(move |result| sender.send(result).unwrap()),
                });
            }
        }
        let mut results = Vec::new();
        run.node().turn_until(1000, || {
            results.extend(receiver.try_iter());
            results.len() == 2 * names.len()
        });
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        let list = run.node().mailboxes.blocks().list();
        let parts = list.iter().flat_map(|block| block.parts());
        let mut found: Vec<String> = parts.map(|part| part.tenant.as_str().to_owned()).collect();
        found.sort();
        found.dedup();
        found
    };
    let stranger = TenantId::new("nobody").unwrap();
    assert!(flush(&mut run, &[&[&stranger]]).is_empty());
    assert_eq!(flush(&mut run, &[&[&b]]), ["b"]);
    // Two who asked at once, for some each; then one of them for all.
    assert_eq!(flush(&mut run, &[&[&a], &[&b, &stranger]]), ["a", "b"]);
    assert_eq!(flush(&mut run, &[&[&a], &[]]), ["a", "b", "c"]);
    for tenant in [&a, &b, &c] {
        run.verify(tenant);
    }
}

#[test]
fn blocks_go_when_their_tenants_keep_nothing_of_them() {
    let tenant = TenantId::fake();
    let mut run = Cutting::new(1, 1);
    assert!(run.start());
    let limits = TenantLimits {
        retention: Duration::from_secs(6 * 3600),
        ..TenantLimits::unlimited()
    };
    run.client.as_mut().expect("started").limits = limits.into();
    let from = boundary(run.node()) - 3 * CUT_MS;
    run.history(&tenant, from, 310);
    run.cut();
    let first = run.in_blocks();
    assert!(first > 0);
    for hours in [6, 12, 18] {
        run.history(&tenant, from + hours * 3_600_000, 310);
        run.sim.advance(Duration::from_secs(6 * 3600));
        run.cut();
    }
    let left = run.in_blocks();
    let list = run.node().mailboxes.blocks().list();
    assert!(
        list.iter()
            .all(|block| block.meta().parts[0].max_time > from + CUT_MS * 3)
    );
    assert!(left < 3 * first, "{left} samples are left");
    run.end();
    assert!(run.start());
    assert_eq!(run.in_blocks(), left, "removed is removed");
}
