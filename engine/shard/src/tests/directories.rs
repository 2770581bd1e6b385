//! Cores in several directories: where they are, how they get there when the power goes at any moment, and what is refused; what is left when one is lost is in `lost`.

use std::path::{Path, PathBuf};

use ::model::{Labels, TenantId};
use reactor::{Fault, Op, OpKind, OpenMode, Reactor, Sim};
use wal::Lock;

use super::client::{Body, Client, Ledger};
use super::node::{TestNode, options};
use crate::message::Refusal;
use crate::{Error, Options};

#[path = "lost.rs"]
mod lost;

const DISKS: [&str; 3] = ["disk0", "disk1", "disk2"];

/// A machine with some directories that are there, the node on it, and its client.
struct Disks {
    sim: Sim,
    options: Options,
    node: Option<TestNode>,
    ledger: Ledger,
    time: i64,
}

fn paths(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

fn pod(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "up"), ("pod", &format!("p{i}"))]).unwrap()
}

impl Disks {
    fn new(seed: u64, cores: usize) -> Disks {
        let sim = Sim::new(seed);
        let mut reactor = Reactor::sim(&sim);
        for name in DISKS {
            reactor.create_dirs(Path::new(name)).unwrap();
        }
        Disks {
            sim,
            options: Options {
                chunk_samples_max: 4,
                chunk_file_bytes: 4096,
                segment_bytes: 64 << 10,
                checkpoint_log_bytes: 64 << 10,
                ..options(cores)
            },
            node: None,
            ledger: Ledger::default(),
            time: 1_699_999_000_000,
        }
    }

    fn on(mut self, dirs: &[&str]) -> Disks {
        self.options.core_dirs = paths(dirs);
        self
    }

    fn try_start(&mut self) -> Result<(), Error> {
        self.node = None;
        self.node = Some(TestNode::start(&self.sim, &self.options)?);
        Ok(())
    }

    fn start(&mut self) -> &mut TestNode {
        self.try_start().expect("a sound machine starts");
        self.node.as_mut().expect("started")
    }

    /// A sample of each of twenty series, which are on all cores; until they are acknowledged or the power is gone.
    fn push(&mut self) {
        self.time += 15_000;
        let body = (0..20).map(|i| (pod(i), self.time, self.time as f64));
        self.send(&body.collect());
    }

    fn send(&mut self, body: &Body) {
        let node = self.node.as_mut().expect("started");
        let client = Client::new(node.mailboxes.clone());
        let (ledger, sim) = (&mut self.ledger, &self.sim);
        let mut sent = client.push(&TenantId::fake(), body, ledger);
        node.turn_until(5000, || {
            sent.retain(|sent| client.settle(sent, ledger).is_none());
            sent.is_empty() || sim.is_off()
        });
        assert!(sent.is_empty() || sim.is_off(), "a push is answered");
    }

    /// All that was acknowledged is there, and nothing else.
    fn verify(&mut self) {
        let fake = TenantId::fake();
        let node = self.node.as_mut().expect("started");
        let client = Client::new(node.mailboxes.clone());
        let mut asked = client.select(&fake, &[], (i64::MIN, i64::MAX));
        let mut found = None;
        node.turn_until(5000, || {
            found = found.take().or_else(|| asked.settle());
            found.is_some()
        });
        let found = found.expect("a read is answered").expect("a sound node");
        self.ledger.check_sent(&fake, &found);
        self.ledger.check_acknowledged(&fake, &found);
    }

    /// The process or the machine ends.
    fn end(&mut self, power_cut: bool) {
        self.node = None;
        match power_cut {
            true => self.sim.crash(),
            false => self.sim.kill(),
        }
    }

    /// After a stop at some operation: the node starts, has what it had, takes more, and has that too after the machine has ended.
    fn come_back(&mut self, stop: u64) {
        self.end(stop.is_multiple_of(2));
        self.start();
        self.verify();
        self.push();
        self.end(true);
        self.start();
        self.verify();
    }

    /// Files and directories below a directory, with what is in them.
    fn tree(&self, path: &str) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let path = PathBuf::from(path);
        let listed = Reactor::sim(&self.sim).run(Op::List { path: path.clone() });
        let mut found = Vec::new();
        for entry in listed.map(|done| done.entries()).unwrap_or_default() {
            let path = path.join(entry.name);
            found.push((path.clone(), self.sim.live(&path)));
            if entry.is_dir {
                found.extend(self.tree(path.to_str().unwrap()));
            }
        }
        found
    }

    /// Cores of which there is a log in a directory.
    fn cores_in(&self, dir: &str) -> Vec<String> {
        let tree = self.tree(dir);
        let name = |path: &PathBuf| path.file_name()?.to_str().map(str::to_owned);
        let cores = tree.iter().filter_map(|(path, _)| {
            let core = name(path).filter(|name| name.starts_with("core-"))?;
            let in_it = |(file, bytes): &(PathBuf, Option<Vec<u8>>)| {
                file.starts_with(path) && bytes.is_some()
            };
            let generation = path.parent().and_then(|above| name(&above.to_owned()))?;
            let generation = generation.trim_start_matches(['g', '0']).to_owned();
            tree.iter()
                .any(in_it)
                .then(|| format!("{generation}/{}", core.trim_start_matches("core-00")))
        });
        cores.collect()
    }

    fn everything(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        self.tree("")
    }

    fn run(&self, op: Op) {
        Reactor::sim(&self.sim).run(op).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        let (from, to) = (PathBuf::from(from), PathBuf::from(to));
        self.run(Op::Rename { from, to });
    }

    /// The start is refused by a sentence with all of these, and changes nothing.
    fn refused(&mut self, words: &[&str]) {
        self.node = None;
        let before = self.everything();
        let error = self.try_start().expect_err("it does not fit").to_string();
        for word in words {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(self.everything() == before, "{error}: something changed");
    }
}

#[test]
fn every_core_is_in_its_directory_and_is_found_in_whatever_order_they_are_given() {
    let mut run = Disks::new(1, 4).on(&["disk0", "disk1"]);
    run.start();
    run.push();
    let check = |run: &Disks| {
        assert_eq!(run.cores_in("disk0"), ["2/0", "2/2"]);
        assert_eq!(run.cores_in("disk1"), ["2/1", "2/3"]);
        assert!(run.cores_in("data").is_empty());
        assert!(run.cores_in("disk2").is_empty());
    };
    check(&run);
    for dirs in [["disk0", "disk1"], ["disk1", "disk0"], ["disk1", "disk0"]] {
        run.end(dirs[0] == "disk0");
        run.options.core_dirs = paths(&dirs);
        run.start();
        run.verify();
        run.push();
        check(&run);
    }
    // Mounted elsewhere, and called otherwise.
    run.end(false);
    run.rename("disk1", "elsewhere");
    run.options.core_dirs = paths(&["./elsewhere", "disk0"]);
    run.start();
    run.verify();
    assert_eq!(run.cores_in("elsewhere"), ["2/1", "2/3"]);
    // The manifest has been told: it is missed under its new name.
    run.end(true);
    run.options.core_dirs = paths(&["disk0"]);
    run.refused(&["./elsewhere", "core 1, 3"]);
}

/// Without the option everything is where it was before there was one.
#[test]
fn without_directories_all_cores_are_in_the_data_directory_and_the_manifest_is_the_old_one() {
    let mut run = Disks::new(1, 2);
    run.start();
    run.push();
    assert_eq!(run.cores_in("data"), ["1/0", "1/1"]);
    let manifest = run.sim.live("data/wal/manifest").unwrap();
    assert_eq!(
        manifest[16..32],
        [1, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    let names = |run: &Disks| -> Vec<PathBuf> {
        let list = Op::List {
            path: "data/wal".into(),
        };
        let entries = Reactor::sim(&run.sim).run(list).unwrap().entries();
        entries.into_iter().map(|entry| entry.name.into()).collect()
    };
    assert_eq!(names(&run), paths(&["g0000000001", "lock", "manifest"]));
}

#[test]
fn a_directory_that_does_not_fit_is_refused_by_name_and_nothing_is_made_or_lost() {
    // At the very first start.
    let mut run = Disks::new(1, 3).on(&["disk0", "gone"]);
    run.refused(&["gone", "does not exist"]);
    run.options.core_dirs = paths(&["disk0", "disk0/deeper"]);
    run.refused(&["core-dirs", "disk0/deeper"]);
    let create = |run: &Disks, path: &str| {
        let mode = OpenMode::create_new();
        run.run(Op::Open {
            path: path.into(),
            mode,
        });
    };
    create(&run, "file");
    run.options.core_dirs = paths(&["file"]);
    run.refused(&["file", "no directory"]);
    // Of a node that is there.
    run.options.core_dirs = paths(&["disk0", "disk1"]);
    run.start();
    for _ in 0..10 {
        run.push();
    }
    run.end(false);
    // Left out.
    run.options.core_dirs = paths(&["disk0"]);
    run.refused(&["disk1", "core 1"]);
    run.options.core_dirs = Vec::new();
    run.refused(&["disk0", "core 0, 2"]);
    // Left out, and another one given.
    run.options.core_dirs = paths(&["disk0", "disk2"]);
    run.refused(&["disk1", "core 1"]);
    // Not mounted: an empty directory is there, or none.
    run.options.core_dirs = paths(&["disk0", "disk1"]);
    run.rename("disk1", "aside");
    run.refused(&["disk1", "does not exist"]);
    run.run(Op::CreateDir {
        path: "disk1".into(),
    });
    run.refused(&["disk1", "held core 1", "mounted"]);
    run.run(Op::RemoveDir {
        path: "disk1".into(),
    });
    run.rename("aside", "disk1");
    // Its mark is lost, or damaged.
    run.rename("disk1/wal/owner", "owner");
    run.refused(&["disk1", "wal/owner", "missing"]);
    run.rename("owner", "disk1/wal/owner");
    run.sim.flip("disk1/wal/owner", 30, 1);
    run.refused(&["disk1/wal/owner", "checksum"]);
    run.sim.flip("disk1/wal/owner", 30, 1);
    // A copy beside the original.
    let mark = run.sim.live("disk1/wal/owner").unwrap();
    let mut reactor = Reactor::sim(&run.sim);
    reactor.create_dirs(Path::new("disk2/wal")).unwrap();
    reactor
        .replace_whole(Path::new("disk2/wal/owner"), &mark)
        .unwrap();
    drop(reactor);
    run.options.core_dirs = paths(&["disk0", "disk1", "disk2"]);
    run.refused(&["disk2", "same directory as disk1"]);
    run.run(Op::Remove {
        path: "disk2/wal/owner".into(),
    });
    // A directory of cores as a data directory, and the other way round.
    let own = run.options.clone();
    run.options.data_dir = "disk0".into();
    run.options.core_dirs = paths(&["disk2"]);
    run.refused(&["disk0", "no data directory"]);
    run.options.core_dirs.clear();
    run.refused(&["disk0", "no data directory"]);
    run.options = own.clone();
    run.options.data_dir = "disk2".into();
    run.options.core_dirs = paths(&["data"]);
    let stranger = Options {
        data_dir: "stranger".into(),
        core_dirs: paths(&["data"]),
        ..own.clone()
    };
    run.options = stranger;
    let error = run.try_start().expect_err("it does not fit").to_string();
    assert!(error.contains("data: it is the data directory"), "{error}");
    // Another node's.
    run.options.core_dirs = paths(&["disk1"]);
    run.refused(&["disk1", "another node"]);
    // Nor is it nothing where it is to be left.
    let named = std::mem::take(&mut run.options.core_dirs);
    run.options.core_dirs_leaving = paths(&["disk1"]);
    run.refused(&["disk1", "another node"]);
    run.options.core_dirs_leaving.clear();
    run.options.core_dirs = named;
    // All that was refused has lost nothing.
    run.options = own;
    run.options.core_dirs = paths(&["disk0", "disk1"]);
    run.start();
    run.verify();
}

/// Two nodes that look at an empty directory at the same time both find it free; only one gets it.
#[test]
fn a_directory_has_one_node_at_a_time() {
    let mut run = Disks::new(1, 2).on(&["disk0"]);
    let mut other = Reactor::sim(&run.sim);
    let lock = Lock::take(&mut other, Path::new("disk0/wal")).unwrap();
    let error = run.try_start().expect_err("it is held");
    let is_locked = matches!(&error, Error::Log(wal::Error::Locked { path }) if path == Path::new("disk0/wal/lock"));
    assert!(is_locked, "{error}");
    lock.release(&mut other).unwrap();
    run.start();
    assert!(Lock::take(&mut other, Path::new("disk0/wal")).is_err());
}

/// From one set of directories and number of cores to another.
struct Change {
    from: (&'static [&'static str], usize),
    to: (&'static [&'static str], usize),
    leaving: &'static [&'static str],
    /// Where cores are in the end: data, and the disks.
    homes: [&'static [&'static str]; 4],
}

const CHANGES: [Change; 7] = [
    // Added to a node that had none.
    Change {
        from: (&[], 2),
        to: (&["disk0", "disk1"], 2),
        leaving: &[],
        homes: [&[], &["2/0"], &["2/1"], &[]],
    },
    // One more.
    Change {
        from: (&["disk0"], 3),
        to: (&["disk0", "disk2", "disk1"], 3),
        leaving: &[],
        homes: [&[], &["3/0"], &["3/2"], &["3/1"]],
    },
    // More cores, fewer cores.
    Change {
        from: (&["disk0", "disk1"], 2),
        to: (&["disk0", "disk1"], 3),
        leaving: &[],
        homes: [&[], &["3/0", "3/2"], &["3/1"], &[]],
    },
    Change {
        from: (&["disk0", "disk1", "disk2"], 3),
        to: (&["disk2", "disk1", "disk0"], 2),
        leaving: &[],
        homes: [&[], &[], &["3/1"], &["3/0"]],
    },
    // One is left, with another number of cores; all are left; one for another.
    Change {
        from: (&["disk0", "disk1"], 2),
        to: (&["disk0"], 3),
        leaving: &["disk1"],
        homes: [&[], &["3/0", "3/1", "3/2"], &[], &[]],
    },
    Change {
        from: (&["disk0", "disk1"], 2),
        to: (&[], 2),
        leaving: &["disk1", "disk0"],
        homes: [&["3/0", "3/1"], &[], &[], &[]],
    },
    Change {
        from: (&["disk0", "disk1"], 2),
        to: (&["disk0", "disk2"], 2),
        leaving: &["disk1"],
        homes: [&[], &["3/0"], &[], &["3/1"]],
    },
];

impl Change {
    /// A node before it, with samples in memory, in chunk files and in segments that were begun anew.
    fn begin(&self, seed: u64) -> Disks {
        let mut run = Disks::new(seed, self.from.1).on(self.from.0);
        run.start();
        for _ in 0..12 {
            run.push();
        }
        run.node.as_mut().expect("started").checkpoint().unwrap();
        run.push();
        run.end(false);
        run
    }

    fn apply(&self, run: &mut Disks) {
        run.options.core_dirs = paths(self.to.0);
        run.options.core_dirs_leaving = paths(self.leaving);
        run.options.cores = (0..self.to.1).collect();
    }

    fn check(&self, run: &Disks, what: &str) {
        for (dir, cores) in ["data", "disk0", "disk1", "disk2"].iter().zip(self.homes) {
            assert_eq!(run.cores_in(dir), cores, "{what}: {dir}");
        }
    }
}

/// The power goes, or the process ends, behind every single operation of a start that moves cores: the next one finds everything, in the right places.
#[test]
fn a_start_that_moves_cores_may_end_at_any_moment() {
    for (number, change) in CHANGES.iter().enumerate() {
        let mut last = 0;
        // Every operation of the first change; of the others one in three, each begun elsewhere.
        let step = if number == 0 { 1 } else { 3 };
        for stop in (number as u64 % step..).step_by(step as usize) {
            let what = format!("change {number}, stopped after {stop}");
            let mut run = change.begin(stop);
            change.apply(&mut run);
            run.sim.stop_after(stop);
            if run.try_start().is_ok() && !run.sim.is_off() {
                run.push();
            }
            let all_done = !run.sim.is_off();
            run.come_back(stop);
            change.check(&run, &what);
            last = stop;
            if all_done {
                break;
            }
        }
        assert!(last > 40, "change {number}: only {last} operations");
    }
}

/// The first start ever, on directories, ends behind every single operation.
#[test]
fn a_first_start_on_directories_may_end_at_any_moment() {
    let mut last = 0;
    for stop in 0.. {
        let mut run = Disks::new(stop, 3).on(&["disk0", "disk1"]);
        run.sim.stop_after(stop);
        if run.try_start().is_ok() {
            run.push();
        }
        let all_done = !run.sim.is_off();
        run.come_back(stop);
        assert_eq!(run.cores_in("disk0").len(), 2, "stopped after {stop}");
        assert_eq!(run.cores_in("disk1").len(), 1, "stopped after {stop}");
        assert!(run.cores_in("data").is_empty(), "stopped after {stop}");
        last = stop;
        if all_done {
            break;
        }
    }
    assert!(last > 60, "only {last} operations");
}

/// Whoever gives up an addition half done goes back to what there was; and what was left over is not taken for anything.
#[test]
fn an_addition_that_did_not_come_to_its_end_can_be_taken_back() {
    let (mut back, mut forward) = (0, 0);
    for stop in (0..).step_by(5) {
        let change = &CHANGES[0];
        let mut run = change.begin(stop);
        let before = run.options.clone();
        change.apply(&mut run);
        run.sim.stop_after(stop);
        let _ = run.try_start();
        let all_done = !run.sim.is_off();
        run.end(stop % 2 == 0);
        run.options = before;
        match run.try_start() {
            Ok(()) => {
                back += 1;
                run.verify();
                assert_eq!(run.cores_in("data"), ["1/0", "1/1"]);
            }
            Err(error) => {
                forward += 1;
                let error = error.to_string();
                assert!(error.contains("disk0: it holds core 0"), "{error}");
                change.apply(&mut run);
                run.start();
                run.verify();
            }
        }
        if all_done {
            break;
        }
    }
    assert!(back > 5 && forward > 0, "{back} back, {forward} forward");
}

/// A directory that was left is nobody's, and may be gone; where it is named, that is told and does no harm.
#[test]
fn a_directory_that_was_left_may_be_used_again_or_be_gone() {
    let change = &CHANGES[4];
    let mut run = change.begin(3);
    change.apply(&mut run);
    run.start();
    run.verify();
    run.end(false);
    let notes = run.start().notes.clone();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("disk1 holds nothing")),
        "{notes:?}"
    );
    run.end(false);
    run.rename("disk1", "away");
    run.start();
    run.end(false);
    run.rename("away", "disk1");
    run.options.core_dirs_leaving.clear();
    run.options.core_dirs = paths(&["disk1", "disk0"]);
    run.start();
    run.verify();
    assert_eq!(run.cores_in("disk1"), ["4/0", "4/2"]);
}

#[test]
fn directories_without_a_core_are_told() {
    let mut run = Disks::new(1, 1).on(&["disk0", "disk1"]);
    let notes = run.start().notes.clone();
    let told = notes
        .iter()
        .any(|note| note.contains("2 directories are given for 1 cores"));
    assert!(told, "{notes:?}");
    // It may go without a word, since it holds nothing.
    run.push();
    run.end(true);
    run.options.core_dirs = paths(&["disk0"]);
    run.start();
    run.verify();
}

impl Disks {
    /// Twenty series of one core.
    fn body_of(&mut self, core: u16) -> Body {
        self.time += 15_000;
        let node = self.node.as_ref().expect("started");
        let client = Client::new(node.mailboxes.clone());
        let here = |i: &usize| client.core_of(&TenantId::fake(), &pod(*i)).0 == core;
        let series = (0..).filter(here).take(20);
        series.map(|i| (pod(i), self.time, i as f64)).collect()
    }

    /// How the only core that a body is for answers it.
    fn answer(&mut self, body: &Body) -> Option<Refusal> {
        let node = self.node.as_mut().expect("started");
        let client = Client::new(node.mailboxes.clone());
        let ledger = &mut self.ledger;
        let sent = client.push(&TenantId::fake(), body, ledger);
        assert_eq!(sent.len(), 1, "it is for one core");
        let mut outcome = None;
        node.turn_until(5000, || {
            outcome = outcome.take().or_else(|| client.settle(&sent[0], ledger));
            outcome.is_some()
        });
        outcome.expect("a push is answered").refused
    }
}

/// One disk is full: its cores refuse, the others take, all are read; and when there is space again all take.
#[test]
fn of_a_full_disk_only_its_own_cores_refuse() {
    let mut run = Disks::new(5, 2).on(&["disk0", "disk1"]);
    run.start();
    run.sim.fail_when(|op| {
        let takes_space = op.kind == OpKind::Allocate
            || op.kind == OpKind::Write && op.path.to_string_lossy().contains("chunks-");
        (takes_space && op.path.starts_with("disk1")).then_some(Fault::ENOSPC)
    });
    let mut refused = None;
    for _ in 0..2000 {
        let body = run.body_of(1);
        refused = run.answer(&body);
        if refused.is_some() {
            break;
        }
    }
    assert!(matches!(&refused, Some(Refusal::NoSpace(_))), "{refused:?}");
    for _ in 0..200 {
        let body = run.body_of(0);
        assert_eq!(run.answer(&body), None);
    }
    let body = run.body_of(1);
    assert!(run.answer(&body).is_some(), "there is no space yet");
    run.verify();
    let health = crate::Health::of(&run.node.as_ref().unwrap().published);
    assert!(health.no_space && health.poisoned.is_none());
    run.sim.clear_faults();
    let mut again = Some(Refusal::NoSpace(String::new()));
    for _ in 0..50 {
        run.sim.advance(std::time::Duration::from_secs(1));
        let body = run.body_of(1);
        again = run.answer(&body);
        if again.is_none() {
            break;
        }
    }
    assert_eq!(again, None);
    run.end(true);
    run.start();
    run.verify();
}

/// One disk fails: its cores refuse and show what is durable, the others go on until the node ends itself.
#[test]
fn of_a_disk_that_fails_only_its_own_cores_are_poisoned() {
    let mut run = Disks::new(5, 2).on(&["disk0", "disk1"]);
    run.start();
    run.push();
    run.sim.fail_when(|op| {
        let is_write = op.kind == OpKind::Write || op.kind == OpKind::Sync;
        (is_write && op.path.starts_with("disk1")).then_some(Fault::EIO)
    });
    let body = run.body_of(1);
    let refused = run.answer(&body);
    assert!(
        matches!(refused, Some(Refusal::Poisoned { core: 1, .. })),
        "{refused:?}"
    );
    for _ in 0..50 {
        let body = run.body_of(0);
        assert_eq!(run.answer(&body), None);
    }
    run.verify();
    let health = crate::Health::of(&run.node.as_ref().unwrap().published);
    assert!(matches!(
        health.poisoned,
        Some(Refusal::Poisoned { core: 1, .. })
    ));
    run.end(true);
    run.sim.clear_faults();
    run.start();
    run.verify();
}

/// A manifest from before a change of generation: what is in force since then is not taken for a rest of it.
#[test]
fn an_old_manifest_removes_no_newer_log() {
    let mut run = Disks::new(1, 2).on(&["disk0", "disk1"]);
    let path = Path::new("data/wal/manifest");
    run.start();
    run.push();
    run.end(false);
    let old = run.sim.live(path).unwrap();
    run.options.cores = (0..3).collect();
    run.start();
    run.push();
    run.end(false);
    let new = run.sim.live(path).unwrap();
    Reactor::sim(&run.sim).replace_whole(path, &old).unwrap();
    run.options.cores = (0..2).collect();
    run.refused(&["disk0", "no log of core 0"]);
    Reactor::sim(&run.sim).replace_whole(path, &new).unwrap();
    run.options.cores = (0..3).collect();
    run.start();
    run.verify();
    // A copy that is not whole: its mark is there, the log of its core is not.
    run.end(false);
    run.rename("disk1/wal/g0000000003", "aside");
    run.refused(&["disk1", "no log of core 1"]);
    run.rename("aside", "disk1/wal/g0000000003");
    run.start();
    run.verify();
}

impl Disks {
    /// Puts what a directory was in place of what it is.
    fn put_back(&self, path: &str, tree: &[(PathBuf, Option<Vec<u8>>)], aside: &str) {
        self.rename(path, aside);
        let mut reactor = Reactor::sim(&self.sim);
        reactor.create_dirs(Path::new(path)).unwrap();
        for (path, bytes) in tree {
            match bytes {
                // The lock.
                Some(bytes) if bytes.is_empty() => {
                    let (path, mode) = (path.clone(), OpenMode::create());
                    drop(reactor.run(Op::Open { path, mode }).unwrap());
                }
                Some(bytes) => reactor.replace_whole(path, bytes).unwrap(),
                None => reactor.create_dirs(path).unwrap(),
            }
        }
    }
}

/// Story: yesterday's copy of one directory beside today's others was taken for it, and its cores went back to yesterday.
#[test]
fn an_old_copy_of_a_directory_or_of_the_manifest_is_told_from_the_real_one() {
    let mut run = Disks::new(1, 3).on(&["disk0", "disk1"]);
    run.start();
    run.push();
    run.end(false);
    let places = ["data", "disk0", "disk1"];
    let old = places.map(|place| run.tree(place));
    run.start();
    run.push();
    run.end(false);
    for (at, words) in [
        (
            2,
            [
                "disk1: it was last used at start 1 of",
                "manifest is of start 2",
            ],
        ),
        (
            1,
            [
                "disk0: it was last used at start 1 of",
                "manifest is of start 2",
            ],
        ),
        (
            0,
            ["manifest is of start 1", "disk0 was last used at start 2"],
        ),
    ] {
        run.put_back(places[at], &old[at], "aside");
        run.refused(&words);
        run.rename(places[at], &format!("seen{at}"));
        run.rename("aside", places[at]);
    }
    run.start();
    run.verify();
    run.end(true);
    // Who has nothing else takes it as it is.
    run.put_back("disk1", &old[2], "aside");
    run.options.salvage = true;
    let notes = run.start().notes.clone();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("disk1: it was last used")),
        "{notes:?}"
    );
    run.options.salvage = false;
    run.end(false);
    assert!(run.start().notes.is_empty());
    run.end(false);
    // All of them are a node of its own time.
    for (at, place) in places.iter().enumerate() {
        run.put_back(place, &old[at], &format!("today{at}"));
    }
    assert!(run.start().notes.is_empty());
    run.push();
}

/// A start that gives its number to directories ends behind every single operation: the next one takes them, and an old copy is known afterwards.
#[test]
fn a_start_that_is_being_numbered_may_end_at_any_moment() {
    let mut under_way = 0;
    for stop in 0.. {
        let mut run = Disks::new(stop, 2).on(&["disk0", "disk1"]);
        run.start();
        run.push();
        run.end(false);
        let old = run.tree("disk1");
        run.start();
        run.end(false);
        run.sim.stop_after(stop);
        let _ = run.try_start();
        let all_done = !run.sim.is_off();
        run.end(stop.is_multiple_of(2));
        // Twice, so that one that goes on with a number may end too.
        run.sim.stop_after(stop / 2);
        let _ = run.try_start();
        run.end(stop.is_multiple_of(3));
        let manifest = wal::Manifest::read(&mut Reactor::sim(&run.sim), Path::new("data/wal"));
        let spread = manifest.unwrap().unwrap().spread.unwrap();
        under_way += u32::from(spread.numbering);
        assert!((2..5).contains(&spread.start), "{}", spread.start);
        run.come_back(stop);
        run.end(false);
        run.put_back("disk1", &old, "aside");
        run.refused(&["disk1: it was last used at start 1"]);
        if all_done {
            break;
        }
    }
    assert!(under_way > 5, "{under_way}");
}

/// Story: a start was killed between the new name of a mark and the sync of its directory; the next one found its number there, and then the power went.
#[test]
fn a_number_that_is_found_is_as_durable_as_one_that_is_given() {
    for seed in 0..4 {
        for stop in 0.. {
            let mut run = Disks::new(seed, 2).on(&["disk0", "disk1"]);
            run.start();
            run.end(false);
            run.sim.stop_after(stop);
            let _ = run.try_start();
            let all_done = !run.sim.is_off();
            run.end(false);
            run.start();
            run.end(true);
            run.start();
            if all_done {
                break;
            }
        }
    }
}
