//! Seeded simulation of a node on a machine that loses its power, is killed, and whose disk fails.
//!
//! Some nodes have their cores on several disks, which change between their lives.
//!
//! A run is a function of its seed. It sends pushes (some of them retries of pushes still in flight, so that the retry overtakes
//! the original's commit) and reads, turns the cores in any order, and ends the machine or the process at any time; then it
//! starts again, perhaps with another number of cores, and compares with the ledger of the client: what was acknowledged is
//! readable, and nothing is there that was not sent. A read that was answered before the end is an acknowledgement too: what it
//! showed must be there after any crash.
//!
//! `MYELIN_SIM_SECONDS` is the time for each of these tests (1 second), `MYELIN_SEED` runs one seed alone.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use ::model::{Labels, MatchOp, Matcher, TenantId, TenantLimits};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use reactor::{Fault, Reactor, Sim, SimOptions};

use super::client::{Asked, Body, Client, Found, Ledger, Sent, histogram_of};
use super::node::{TestNode, cpus, options};
use crate::limits::CUT_MS;
use crate::message::{DeleteError, ReadError, Refusal};
use crate::{Error, Options};

/// Runs at least so many seeds and until the time is over, or the one of `MYELIN_SEED`. A failure prints its seed and the command that repeats it.
#[expect(
    clippy::disallowed_methods,
    reason = "the budget of the test is wall time; the runs know nothing of it"
)]
pub(crate) fn seeds(name: &str, least: u64, run: fn(u64)) {
    let env = |key| {
        std::env::var(key)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let run_one = |seed: u64| {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed} failed; repeat: MYELIN_SEED={seed} cargo test -p shard {name}");
            std::panic::resume_unwind(panic);
        }
    };
    if let Some(seed) = env("MYELIN_SEED") {
        return run_one(seed);
    }
    let budget = Duration::from_secs(env("MYELIN_SIM_SECONDS").unwrap_or(1));
    let begun = Instant::now();
    let mut seed = 0;
    while seed < least || begun.elapsed() < budget {
        run_one(seed);
        seed += 1;
    }
    // Past the capture of the test runner: how many seeds ran is to be seen in every log.
    let _ = writeln!(std::io::stderr(), "{name}: {seed} seeds");
}

/// One run: a machine, the node on it (while it is on), and the client.
struct Run {
    rng: SmallRng,
    sim: Sim,
    options: Options,
    node: Option<TestNode>,
    client: Option<Client>,
    relaxed: bool,
    /// How late samples may be.
    window: Duration,
    ledger: Ledger,
    sent: Vec<Sent>,
    asked: Vec<(TenantId, Ledger, Asked)>,
    deletes: Vec<(usize, Receiver<Result<u128, DeleteError>>)>,
    now: i64,
    /// Disks that the cores may be given.
    disks: Vec<PathBuf>,
    /// Chance of its own for these, so that runs without them are what they were.
    disk_rng: SmallRng,
}

/// A float, or what stands for a histogram.
fn random_value(rng: &mut SmallRng) -> f64 {
    let value: f64 = rng.random();
    match rng.random_bool(0.2) {
        true => -value,
        false => value,
    }
}

/// Directories that are there for cores.
fn disks(sim: &Sim) -> Vec<PathBuf> {
    let mut reactor = Reactor::sim(sim);
    let disks: Vec<PathBuf> = ["disk0", "disk1", "disk2", "disk3"]
        .map(PathBuf::from)
        .into();
    for disk in &disks {
        reactor.create_dirs(disk).expect("a sound machine");
    }
    disks
}

/// Cores with a CPU each, or with one for all.
fn random_cpus(rng: &mut SmallRng) -> Vec<usize> {
    cpus(rng.random_range(1..4), rng.random_bool(0.4))
}

impl Run {
    fn new(seed: u64, relaxed: bool) -> Run {
        let mut rng = SmallRng::seed_from_u64(seed);
        let sim = Sim::with(SimOptions {
            seed,
            direct: rng.random_bool(0.8),
            ..Default::default()
        });
        let mut options = options(1);
        options.cores = random_cpus(&mut rng);
        options.chunk_samples_max = *[3, 120].choose(&mut rng).unwrap();
        // Small enough that runs roll over segments, checkpoint and recycle.
        options.segment_bytes = *[64 << 10, 256 << 10].choose(&mut rng).unwrap();
        options.checkpoint_log_bytes = options.segment_bytes;
        options.chunk_file_bytes = *[4096, 32 << 10, 1 << 20].choose(&mut rng).unwrap();
        // Of what a start finds; runs jump over hours.
        options.retention = Duration::from_secs(30 * 24 * 3600);
        let minutes = *[0, 10, 6 * 60].choose(&mut rng).unwrap();
        let mut disk_rng = SmallRng::seed_from_u64(!seed);
        let disks = match seed % 10 {
            2 | 5 | 9 => disks(&sim),
            _ => Vec::new(),
        };
        let count = disk_rng.random_range(0..3);
        options.core_dirs = disks.iter().take(count).cloned().collect();
        let mut run = Run {
            rng,
            sim,
            options,
            disks,
            disk_rng,
            node: None,
            client: None,
            relaxed,
            window: Duration::from_secs(60 * minutes),
            ledger: Ledger::default(),
            sent: Vec::new(),
            asked: Vec::new(),
            deletes: Vec::new(),
            now: 1_700_000_000_000,
        };
        run.part_crews();
        run
    }

    /// Cores in several directories are not one crew, and the test turns one or none.
    fn part_crews(&mut self) {
        let Options {
            core_dirs,
            core_dirs_leaving,
            cores,
            ..
        } = &mut self.options;
        if core_dirs.len() + core_dirs_leaving.len() > 1 {
            *cores = cpus(cores.len(), false);
        }
    }

    /// Another number of cores, and perhaps other disks: one more, one less, or the same in another order.
    fn change_cores(&mut self) {
        self.options.cores = random_cpus(&mut self.rng);
        if !self.disks.is_empty() {
            let Options {
                core_dirs,
                core_dirs_leaving,
                ..
            } = &mut self.options;
            let at = self.disk_rng.random_range(0..core_dirs.len().max(1));
            match self.disk_rng.random_range(0..5) {
                0 => {
                    let used = |disk: &&PathBuf| {
                        !core_dirs.contains(disk) && !core_dirs_leaving.contains(disk)
                    };
                    let fresh = self.disks.iter().find(used).cloned();
                    core_dirs.extend(fresh);
                }
                1 if at < core_dirs.len() => core_dirs_leaving.push(core_dirs.remove(at)),
                2 if at < core_dirs.len() => core_dirs.rotate_left(at),
                _ => {}
            }
        }
        self.part_crews();
    }

    fn tenant(&mut self) -> TenantId {
        TenantId::new(["a", "b", "c"].choose(&mut self.rng).unwrap()).unwrap()
    }

    /// Starts the node; true if it serves. Corruption is a failure of the test: nothing here damages what was durable.
    fn start(&mut self) -> bool {
        match TestNode::start(&self.sim, &self.options) {
            Ok(node) => {
                let client = match self.relaxed {
                    true => Client::relaxed(node.mailboxes.clone()),
                    false => Client::new(node.mailboxes.clone()),
                };
                self.client = Some(client.keeping().with_window(self.window));
                self.node = Some(node);
                true
            }
            Err(error) => {
                let corrupt = matches!(&error, Error::Log(e) if e.is_corruption());
                assert!(!corrupt, "{error}");
                false
            }
        }
    }

    /// The process or the machine ends; what was in flight is not heard of again.
    fn end(&mut self, power_cut: bool) {
        self.node = None;
        self.client = None;
        // Replies that had left before the end are acknowledgements.
        self.settle();
        self.sent.clear();
        self.asked.clear();
        for (number, _) in self.deletes.drain(..) {
            self.ledger.end_delete(number, false);
        }
        match power_cut {
            true => self.sim.crash(),
            false => self.sim.kill(),
        }
        self.sim.clear_faults();
    }

    fn push(&mut self) {
        let tenant = self.tenant();
        self.now += self.rng.random_range(0..20_000);
        if self.rng.random_bool(0.03) {
            // Behind the next cut, or several.
            let jump = self.rng.random_range(0..2 * CUT_MS);
            self.now += jump;
            self.sim.advance(Duration::from_millis(jump as u64));
        }
        // Mostly one sample of each series, as a scrape; sometimes anything, of which parts are refused.
        let scrape = self.rng.random_bool(0.7);
        let body: Body = (0..self.rng.random_range(1..12))
            .map(|i| {
                let (pod, late) = match scrape {
                    true => (i, 0),
                    false => {
                        let late_max =
                            *[50_000, 900_000, 4 * CUT_MS].choose(&mut self.rng).unwrap();
                        (
                            self.rng.random_range(0..12),
                            self.rng.random_range(0..late_max),
                        )
                    }
                };
                let labels = Labels::from_pairs([("__name__", "up"), ("pod", &format!("p{pod}"))]);
                let labels = labels.unwrap();
                let mut time = self.now - late;
                if late > 0 && self.rng.random_bool(0.2) {
                    // Perhaps with another value for what is there.
                    let name = (tenant.clone(), labels.clone());
                    let sent = self.ledger.samples.get(&name);
                    let before = sent.and_then(|sent| sent.range(..=time).next_back());
                    time = before.map_or(time, |(time, _)| *time);
                }
                // All different, so that a sample names the push it came from.
                (labels, time, random_value(&mut self.rng))
            })
            .collect();
        self.send(&tenant, &body);
    }

    /// Sends again what may be in a commit in flight, or anything sent before.
    fn retry(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.sent.len());
        let (tenant, body) = (self.sent[at].tenant.clone(), self.sent[at].body.clone());
        self.send(&tenant, &body);
    }

    fn send(&mut self, tenant: &TenantId, body: &Body) {
        let client = self.client.as_ref().expect("the node serves");
        let sent = client.push(tenant, body, &mut self.ledger);
        self.sent.extend(sent);
    }

    fn ask(&mut self) {
        let tenant = self.tenant();
        let client = self.client.as_ref().expect("the node serves");
        let asked = client.select(
            &tenant,
            &[Matcher::equal("__name__", "up")],
            (i64::MIN, i64::MAX),
        );
        self.asked.push((tenant, self.ledger.snapshot(), asked));
    }

    /// Deletes something of a tenant, or all of it.
    fn delete(&mut self) {
        let tenant = self.tenant();
        let some = [
            vec![Matcher::equal("pod", "p3")],
            vec![Matcher::new(MatchOp::Regex, "pod", "p[0-5]").unwrap()],
            vec![Matcher::new(MatchOp::NotRegex, "pod", "p[0-9]").unwrap()],
            Vec::new(),
        ];
        let matchers = some.choose(&mut self.rng).unwrap();
        let back = |rng: &mut SmallRng| {
            let most = *[30_000, 600_000, 4 * CUT_MS].choose(rng).unwrap();
            rng.random_range(0..most)
        };
        let (one, other) = (back(&mut self.rng), back(&mut self.rng));
        let range = match self.rng.random_range(0..3) {
            0 => (i64::MIN, i64::MAX),
            1 => (i64::MIN, self.now - one),
            _ => (self.now - one.max(other), self.now - one.min(other)),
        };
        let unsettled = self.sent.iter().map(|sent| sent.push).min();
        let number = self
            .ledger
            .begin_delete(&tenant, matchers, range, unsettled);
        let client = self.client.as_ref().expect("the node serves");
        let reply = client.delete(&tenant, &[matchers], range);
        self.deletes.push((number, reply));
    }

    /// Takes in the replies that have come.
    fn settle(&mut self) {
        let aliases = Client::new(crate::Mailboxes::new(1, 1, 1));
        let client = self.client.as_ref().unwrap_or(&aliases);
        let (sent, ledger) = (&mut self.sent, &mut self.ledger);
        sent.retain(|sent| client.settle(sent, ledger).is_none());
        self.deletes.retain(|(number, reply)| {
            let Ok(result) = reply.try_recv() else {
                return true;
            };
            DELETES.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
            ledger.end_delete(*number, result.is_ok());
            false
        });
        let mut shown: Vec<(TenantId, Found, u64)> = Vec::new();
        self.asked
            .retain_mut(|(tenant, before, asked)| match asked.settle() {
                None => true,
                Some(Ok(found)) => {
                    // All that was acknowledged before the question is in the answer.
                    before.check_acknowledged_by(&self.ledger, tenant, &found);
                    shown.push((tenant.clone(), found, before.clock()));
                    false
                }
                Some(Err(error)) => {
                    let off = matches!(&error, ReadError::Chunk(e) | ReadError::Block(e) if e.contains("no power"));
                    assert!(off || matches!(error, ReadError::Refused(_)), "{error}");
                    false
                }
            });
        for (tenant, found, since) in shown {
            self.ledger.check_sent_since(&tenant, &found, since);
            self.ledger.note_shown(&tenant, &found, since);
        }
    }

    fn turn(&mut self) {
        let node = self.node.as_mut().expect("the node serves");
        let core = self.rng.random_range(0..node.cores.len());
        if self.rng.random_bool(0.3) {
            node.turn_keeper();
        }
        node.turn(core);
        let worked = self.rng.random_range(0..100);
        self.sim.advance(Duration::from_micros(worked));
        self.settle();
    }

    /// Has a core look whether a cut is due, or move or copy all that it holds into blocks.
    fn cut(&mut self) {
        let all = self.rng.random_bool(0.3);
        let node = self.node.as_mut().expect("the node serves");
        let core = self.rng.random_range(0..node.cores.len());
        let core = &mut node.cores[core];
        if core.is_poisoned_by().is_some() {
            return;
        }
        match all {
            true => core.request_flush(crate::Flush::all(Box::new(drop))),
            false => core.tick_cuts(),
        }
        CUTS.fetch_add(core.cuts.made, Ordering::Relaxed);
        CUTS_FAILED.fetch_add(core.cuts.failed, Ordering::Relaxed);
        LATE.fetch_add(core.counts.late, Ordering::Relaxed);
    }

    /// Everything is read and compared.
    fn verify(&mut self) {
        for tenant in ["a", "b", "c"].map(|name| TenantId::new(name).unwrap()) {
            let Some(found) = self.read_all(&tenant) else {
                continue;
            };
            self.ledger.check_sent(&tenant, &found);
            if !self.relaxed {
                self.ledger.check_acknowledged(&tenant, &found);
            }
            self.verify_exemplars(&tenant, &found);
        }
    }

    /// Exemplars came beside histograms, in order of time (those of late ones are dropped) and within their bound; so where the histogram of an acknowledged push is,
    /// an exemplar of that time is (that of a histogram refused for its value may stand beside it), and none is there that was not sent.
    fn verify_exemplars(&mut self, tenant: &TenantId, found: &Found) {
        let client = self.client.as_ref().expect("the node serves");
        let asked = client.exemplars(tenant);
        let exemplars = match self.answer(asked) {
            Err(ReadError::Refused(Refusal::Poisoned { .. })) => return,
            answer => answer.expect("a read of a sound node"),
        };
        self.ledger.check_sent(tenant, &exemplars);
        for (labels, samples) in found {
            for (time, bits) in samples {
                let known = &self.ledger.samples[&(tenant.clone(), labels.clone())][time];
                if known.acknowledged() != Some(*bits) || self.relaxed || known.late {
                    continue;
                }
                if histogram_of(f64::from_bits(*bits)).is_some() {
                    let there = exemplars.get(labels).and_then(|found| found.get(time));
                    assert!(
                        there.is_some(),
                        "exemplar of {labels} of {tenant} at {time}"
                    );
                }
            }
        }
    }

    /// As `verify`, for tenants that keep only so much behind their newest sample.
    fn verify_since(&mut self, retention: i64) {
        for tenant in ["a", "b", "c"].map(|name| TenantId::new(name).unwrap()) {
            let found = self.read_all(&tenant).expect("a sound node");
            self.ledger.check_sent(&tenant, &found);
            let recent = self.ledger.since(&tenant, retention);
            recent.check_acknowledged(&tenant, &found);
        }
    }

    /// `None`: the core that is poisoned has deletions that never became durable, and answers no reads.
    fn read_all(&mut self, tenant: &TenantId) -> Option<Found> {
        let client = self.client.as_ref().expect("the node serves");
        let asked = client.select(tenant, &[], (i64::MIN, i64::MAX));
        match self.answer(asked) {
            Err(ReadError::Refused(Refusal::Poisoned { .. })) => None,
            answer => Some(answer.expect("a read of a sound node")),
        }
    }

    fn answer(&mut self, mut asked: Asked) -> Result<Found, ReadError> {
        let mut found = None;
        let answered = self
            .node
            .as_mut()
            .expect("the node serves")
            .turn_until(10_000, || {
                found = found.take().or_else(|| asked.settle());
                found.is_some()
            });
        assert!(answered, "a read is answered");
        found.expect("answered")
    }

    /// So many random steps, or until the power is gone.
    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            match self.rng.random_range(0..20) {
                0..=4 => self.push(),
                5..=6 => self.retry(),
                7 => self.ask(),
                8 if self.rng.random_bool(0.3) => self.cut(),
                9 if self.rng.random_bool(0.2) => self.delete(),
                _ => self.turn(),
            }
            if self.sim.is_off() {
                return;
            }
        }
    }
}

/// Random work, power cuts, kills, graceful stops, other numbers of cores.
fn crashes(seed: u64) {
    let mut run = Run::new(seed, false);
    for _ in 0..run.rng.random_range(2..6) {
        // Sometimes the power goes during recovery itself.
        if run.rng.random_bool(0.4) {
            let more = run.rng.random_range(0..300);
            run.sim.stop_after(more);
        }
        if !run.start() {
            run.end(true);
            continue;
        }
        let steps = run.rng.random_range(10..300);
        run.steps(steps);
        if !run.sim.is_off() && run.rng.random_bool(0.2) {
            let node = run.node.take().expect("the node serves");
            run.sim.stop_after(1 << 40);
            node.stop();
            run.settle();
        }
        let power_cut = run.sim.is_off() || run.rng.random_bool(0.5);
        run.end(power_cut);
        run.change_cores();
    }
    assert!(run.start(), "a sound machine starts");
    run.verify();
    // Goes on as if nothing had been.
    run.steps(60);
    run.verify();
}

/// Write, sync and space errors, at any operation.
fn faults(seed: u64) {
    let mut run = Run::new(seed, false);
    for _ in 0..3 {
        if !run.start() {
            run.end(true);
            continue;
        }
        run.steps(30);
        let nth = run.rng.random_range(1..60);
        let fault = *[Fault::EIO, Fault::ENOSPC, Fault::Short { bytes: 700 }]
            .choose(&mut run.rng)
            .unwrap();
        run.sim.fail_nth(nth, fault);
        run.steps(200);
        check_poisoned(&mut run);
        let power_cut = run.rng.random_bool(0.5);
        run.end(power_cut);
    }
    assert!(run.start(), "a sound machine starts");
    run.verify();
}

/// A poisoned core refuses pushes and still answers reads, of what is durable alone: the last such answers are kept in the
/// ledger as shown, and the restart has to have them.
fn check_poisoned(run: &mut Run) {
    let node = run.node.as_ref().expect("the node serves");
    let poisoned: Vec<bool> = node
        .published
        .iter()
        .map(|p| p.poison.get().is_some())
        .collect();
    if !poisoned.contains(&true) {
        return;
    }
    for _ in 0..5 {
        run.push();
        run.ask();
    }
    for _ in 0..2000 {
        run.turn();
        if run.sent.is_empty() && run.asked.is_empty() {
            break;
        }
    }
    assert!(
        run.sent.is_empty() && run.asked.is_empty(),
        "a poisoned core answers everything"
    );
    run.verify();
    let health = crate::Health::of(&run.node.as_ref().unwrap().published);
    assert!(matches!(health.poisoned, Some(Refusal::Poisoned { .. })) && !health.ready);
    // The linger ends by the clock of the machine.
    run.sim
        .advance(run.options.poison_linger + Duration::from_secs(1));
    for _ in 0..20 {
        run.turn();
    }
    let over = crate::Health::of(&run.node.as_ref().unwrap().published).linger_over;
    assert!(over, "the process is asked to end");
}

/// The power goes after every single operation of one short history.
fn stop_everywhere(seed: u64) {
    let mut last = 0;
    for stop in 0.. {
        let mut run = Run::new(seed, false);
        let cores = run.options.cores.len();
        run.sim.stop_after(stop);
        if run.start() {
            run.steps(40);
            if !run.sim.is_off() && seed.is_multiple_of(2) {
                run.node.as_mut().unwrap().checkpoint_or_off(&run.sim);
            }
            run.settle();
        }
        // Where the first history was not cut, the second one, of another number of cores, is.
        if !run.sim.is_off() {
            run.end(true);
            run.options.cores = cpus(cores % 3 + 1, run.rng.random_bool(0.4));
            run.part_crews();
            run.sim.stop_after(stop);
            if run.start() {
                run.steps(20);
            }
        }
        let all_done = !run.sim.is_off();
        run.end(true);
        assert!(run.start(), "a sound machine starts");
        run.verify();
        last = stop;
        if all_done {
            break;
        }
    }
    assert!(last > 20, "only {last} operations");
}

/// Series come and go for days of sample time, numbers are given out again, between checkpoints, crashes and restarts.
fn churn(seed: u64) {
    let mut run = Run::new(seed, false);
    let hour = 3_600_000;
    let mut reused = 0;
    for _ in 0..4 {
        if !run.start() {
            run.end(true);
            continue;
        }
        // Longer than any of them stays away: what lies in blocks goes by the clock too.
        let limits = TenantLimits {
            retention: Duration::from_secs(30 * 24 * 3600),
            ..TenantLimits::unlimited()
        };
        run.client.as_mut().expect("the node serves").limits = Arc::new(limits);
        for _ in 0..run.rng.random_range(10..40) {
            let minutes = run.rng.random_range(1..40);
            run.now += minutes * 60_000;
            run.sim.advance(Duration::from_secs(minutes as u64 * 60));
            let tenant = run.tenant();
            let age = run.now / hour;
            let body: Body = (0..run.rng.random_range(1..12))
                .map(|i| {
                    let pod = format!("p{}-{i}", age % 7);
                    let labels = Labels::from_pairs([("__name__", "up"), ("pod", &pod)]);
                    (labels.unwrap(), run.now, random_value(&mut run.rng))
                })
                .collect();
            run.send(&tenant, &body);
            let node = run.node.as_mut().expect("the node serves");
            node.turn_until(12, || false);
            if run.rng.random_bool(0.3) {
                run.node
                    .as_mut()
                    .expect("the node serves")
                    .checkpoint()
                    .expect("a sound disk");
            }
            run.settle();
        }
        let rows = |core: &crate::core::Core| u64::from(core.memtable.rows.count());
        let node = run.node.as_ref().expect("the node serves");
        reused += node
            .cores
            .iter()
            .filter(|core| core.memtable.totals.created > rows(core))
            .count();
        run.verify_since(hour);
        let power_cut = run.rng.random_bool(0.5);
        run.end(power_cut);
        if run.rng.random_bool(0.3) {
            run.change_cores();
        }
        assert!(run.start(), "a sound machine starts");
        run.verify_since(hour);
        run.end(false);
    }
    REUSED.fetch_add(reused, Ordering::Relaxed);
}

/// Cuts of all runs that were over, and that failed, as of later cuts.
static CUTS: AtomicU64 = AtomicU64::new(0);
static CUTS_FAILED: AtomicU64 = AtomicU64::new(0);
/// Deletions that were acknowledged.
static DELETES: AtomicU64 = AtomicU64::new(0);
/// Late samples that were stored, as of later cuts.
static LATE: AtomicU64 = AtomicU64::new(0);

/// How many cores of all runs of `churn` gave a number out again.
static REUSED: AtomicUsize = AtomicUsize::new(0);

/// With `ack: written` a kill loses nothing, and a power cut can lose: else the tests above could not fail.
#[test]
fn relaxed_acknowledgements_survive_a_kill_and_can_be_lost_by_a_power_cut() {
    let (mut lost, mut acknowledged) = (0, 0);
    for seed in 0..40 {
        for power_cut in [false, true] {
            let mut run = Run::new(seed, true);
            assert!(run.start());
            run.steps(150);
            acknowledged += run.ledger.acknowledged;
            run.end(power_cut);
            assert!(run.start(), "seed {seed}");
            run.verify();
            let missing = run.missing();
            assert!(
                power_cut || missing == 0,
                "seed {seed}: a kill lost {missing} samples"
            );
            lost += missing;
        }
    }
    assert!(
        acknowledged > 1000,
        "only {acknowledged} pushes were acknowledged"
    );
    assert!(lost > 0, "no power cut lost anything");
}

impl Run {
    /// How many acknowledged samples cannot be read.
    fn missing(&mut self) -> usize {
        let mut missing = 0;
        for tenant in ["a", "b", "c"].map(|name| TenantId::new(name).unwrap()) {
            let found = self.read_all(&tenant).expect("a sound node");
            missing += self.ledger.missing(&tenant, &found);
        }
        missing
    }
}

/// Samples of one push on one core become visible together, although a read of many series takes many slices.
#[test]
fn a_read_sees_each_push_whole_or_not_at_all() {
    const SERIES: usize = 1500;
    let labels = |i: usize| {
        let fifth = if i.is_multiple_of(5) { "yes" } else { "no" };
        Labels::from_pairs([("__name__", "up"), ("fifth", fifth), ("i", &i.to_string())]).unwrap()
    };
    let all: Vec<Labels> = (0..SERIES).map(labels).collect();
    let sim = Sim::new(1);
    let mut node = TestNode::start(
        &sim,
        &Options {
            chunk_samples_max: 4,
            ..options(1)
        },
    )
    .unwrap();
    let client = Client::new(node.mailboxes.clone());
    let (fake, mut ledger) = (TenantId::fake(), Ledger::default());
    let (mut sent, mut asked, mut compared) = (Vec::new(), Vec::new(), [0; 2]);
    for round in 0..900i64 {
        if round % 3 == 0 {
            let body = all
                .iter()
                .map(|labels| (labels.clone(), round, round as f64))
                .collect();
            sent.extend(client.push(&fake, &body, &mut ledger));
        }
        if round % 8 == 0 {
            // To the end, or to what was the newest sample a while ago.
            let (newest, range) = match round % 32 {
                8 => (true, (0, i64::MAX)),
                16 => (true, (0, round - 9)),
                _ => (false, (0, i64::MAX)),
            };
            let asked_for = match newest {
                true => client.newest(&fake, range),
                false => client.select(&fake, &[Matcher::equal("__name__", "up")], range),
            };
            asked.push((newest, SERIES, asked_for));
        }
        if round % 5 == 0 {
            // Few of those between the first and the last.
            let some = [Matcher::equal("fifth", "yes")];
            asked.push((
                false,
                SERIES / 5,
                client.select(&fake, &some, (0, i64::MAX)),
            ));
        }
        node.cores[0].turn();
        // A core that has work only polls, for which the clock of the machine stands still.
        sim.advance(Duration::from_micros(100));
        sent.retain(|sent| client.settle(sent, &mut ledger).is_none());
        asked.retain_mut(|(newest, wanted, asked): &mut (bool, usize, Asked)| {
            let Some(found) = asked.settle() else {
                return true;
            };
            let found = found.unwrap();
            let mut times = found.values().map(|samples| {
                let times = samples.keys().copied().collect::<Vec<i64>>();
                // Whether earlier ones come along depends on when a series was written.
                times[if *newest { times.len() - 1 } else { 0 }..].to_vec()
            });
            if let Some(first) = times.next() {
                assert_eq!(found.len(), *wanted);
                assert!(times.all(|times| times == first), "a push was seen in part");
                compared[usize::from(*newest)] += 1;
            }
            false
        });
    }
    assert!(
        compared[0] > 60 && compared[1] > 20,
        "only {compared:?} reads had something to compare"
    );
}

#[test]
fn what_was_acknowledged_survives_crashes_and_nothing_else_appears() {
    seeds(
        "what_was_acknowledged_survives_crashes_and_nothing_else_appears",
        20,
        crashes,
    );
    let counts = [&CUTS, &LATE, &DELETES].map(|count| count.load(Ordering::Relaxed));
    assert!(
        !counts.contains(&0) || std::env::var("MYELIN_SEED").is_ok(),
        "nothing was cut, came late, or was deleted: {counts:?}"
    );
}

#[test]
fn series_that_come_and_go_are_never_taken_for_each_other() {
    seeds(
        "series_that_come_and_go_are_never_taken_for_each_other",
        20,
        churn,
    );
    let reused = REUSED.load(Ordering::Relaxed);
    assert!(
        reused > 0 || std::env::var("MYELIN_SEED").is_ok(),
        "no number was given out again"
    );
}

#[test]
fn a_failed_write_poisons_and_hides_what_was_not_durable() {
    seeds(
        "a_failed_write_poisons_and_hides_what_was_not_durable",
        20,
        faults,
    );
}

#[test]
fn a_stop_after_every_single_operation_loses_nothing() {
    seeds(
        "a_stop_after_every_single_operation_loses_nothing",
        2,
        stop_everywhere,
    );
}
