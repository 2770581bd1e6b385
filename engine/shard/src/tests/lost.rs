//! A directory is lost with its disk, and the operator says so: all that was elsewhere stays, wherever such a start ends; and the directory, should it come back, is merged with nothing.

use std::collections::BTreeSet;

use ::model::{MatchOp, Matcher};

use super::super::cuts::boundary;
use super::*;
use crate::cut;
use crate::limits::CUT_MS;

const ALL: (i64, i64) = (i64::MIN, i64::MAX);

/// Samples by series and time.
type Samples = BTreeSet<(Labels, i64)>;

impl Disks {
    /// A push every half an hour, from six hours before a boundary; the cut takes two hours each time that another one is behind them.
    fn push_hours(&mut self, rounds: std::ops::Range<i64>) {
        let from = boundary(self.node.as_ref().expect("started")) - 3 * CUT_MS;
        for round in rounds {
            self.time = from + round * 30 * 60_000 - 15_000;
            self.push();
        }
    }

    /// Lets every core cut, until all is over or the power is gone.
    fn cut(&mut self) {
        let node = self.node.as_mut().expect("started");
        let sim = self.sim.clone();
        node.cores.iter_mut().for_each(|core| core.tick_cuts());
        let mut rests = 0;
        for _ in 0..500 {
            node.turn_until(1, || sim.is_off());
            let rest = node.cores.iter().all(|core| core.cuts.is_idle());
            rests = if rest { rests + 1 } else { 0 };
            if rests > 4 || sim.is_off() {
                break;
            }
        }
    }

    fn delete(&mut self, matchers: &[Matcher]) {
        let fake = TenantId::fake();
        let number = self.ledger.begin_delete(&fake, matchers, ALL, None);
        let node = self.node.as_mut().expect("started");
        let reply = Client::new(node.mailboxes.clone()).delete(&fake, &[matchers], ALL);
        let mut result = None;
        node.turn_until(5000, || {
            result = result.take().or_else(|| reply.try_recv().ok());
            result.is_some()
        });
        result
            .expect("a deletion is answered")
            .expect("a sound node");
        self.ledger.end_delete(number, true);
    }

    /// What was sent of series of these cores, and of that what is in no block.
    fn at_stake(&self, cores: &[u16]) -> (Samples, Samples) {
        let fake = TenantId::fake();
        let node = self.node.as_ref().expect("started");
        let client = Client::new(node.mailboxes.clone());
        let in_blocks = client.found_in_blocks(&fake, &[], ALL);
        let of_cores = |labels: &Labels| cores.contains(&client.core_of(&fake, labels).0);
        let all = self.ledger.samples.iter();
        let all = all.filter(|((_, labels), _)| of_cores(labels));
        let all = all.flat_map(|((_, labels), samples)| {
            let times = samples.keys();
            times.map(|&time| (labels.clone(), time))
        });
        let all: Samples = all.collect();
        let is_there = |(labels, time): &&(Labels, i64)| {
            let found = in_blocks.get(labels);
            found.is_some_and(|found| found.contains_key(time))
        };
        let gone = all.iter().filter(|one| !is_there(one)).cloned().collect();
        (all, gone)
    }

    /// From now on these may not be found.
    fn give_up(&mut self, gone: &Samples) {
        for ((_, labels), samples) in &mut self.ledger.samples {
            samples.retain(|&time, _| !gone.contains(&(labels.clone(), time)));
        }
    }

    /// Durably, so that what the power takes is of the node alone.
    fn rename_for_good(&self, from: &str, to: &str) {
        self.rename(from, to);
        self.run(Op::SyncDir { path: "".into() });
    }

    /// The generation in force.
    fn generation(&self) -> u32 {
        let manifest = wal::Manifest::read(&mut Reactor::sim(&self.sim), Path::new("data/wal"));
        manifest.unwrap().expect("it was started").generation
    }

    fn notes_of(&self, words: &str) -> usize {
        let notes = &self.node.as_ref().expect("started").notes;
        notes.iter().filter(|note| note.contains(words)).count()
    }

    /// What holds of a node whose lost directories are not named any more.
    fn go_on_without_the_option(&mut self) {
        self.verify();
        self.push();
        self.end(true);
        self.options.core_dirs_lost.clear();
        self.start();
        assert_eq!(self.notes_of("lost"), 0);
        self.verify();
        self.push();
        self.end(false);
        self.start();
        self.verify();
    }
}

/// A change with which directories are lost.
struct Loss {
    change: Change,
    lost: &'static [&'static str],
}

const LOSSES: [Loss; 4] = [
    Loss {
        change: Change {
            from: (&["disk0", "disk1"], 3),
            to: (&["disk0"], 3),
            leaving: &[],
            homes: [&[], &["3/0", "3/1", "3/2"], &[], &[]],
        },
        lost: &["disk1"],
    },
    // All of them: into the data directory, onto a new one.
    Loss {
        change: Change {
            from: (&["disk0", "disk1"], 2),
            to: (&[], 2),
            leaving: &[],
            homes: [&["3/0", "3/1"], &[], &[], &[]],
        },
        lost: &["disk0", "disk1"],
    },
    Loss {
        change: Change {
            from: (&["disk0", "disk1"], 3),
            to: (&["disk2"], 2),
            leaving: &[],
            homes: [&[], &[], &[], &["3/0", "3/1"]],
        },
        lost: &["disk0", "disk1"],
    },
    // Beside one that is left, with another number of cores.
    Loss {
        change: Change {
            from: (&["disk0", "disk1", "disk2"], 3),
            to: (&["disk0"], 4),
            leaving: &["disk2"],
            homes: [&[], &["3/0", "3/1", "3/2", "3/3"], &[], &[]],
        },
        lost: &["disk1"],
    },
];

impl Loss {
    /// Cores whose logs go.
    fn cores(&self) -> Vec<u16> {
        let (dirs, count) = self.change.from;
        let is_lost = |core: &usize| self.lost.contains(&dirs[core % dirs.len()]);
        (0..count).filter(is_lost).map(|core| core as u16).collect()
    }

    /// A node before it, with hours in blocks, more in chunk files, checkpoints and logs, and a deletion of everywhere. Gives what is lost with the directories.
    fn begin(&self, seed: u64) -> (Disks, Samples) {
        let mut run = Disks::new(seed, self.change.from.1).on(self.change.from.0);
        run.start();
        run.push_hours(0..12);
        run.cut();
        run.push();
        run.delete(&[Matcher::new(MatchOp::Regex, "pod", "p[0-3]").unwrap()]);
        run.node.as_mut().expect("started").checkpoint().unwrap();
        run.push();
        let (all, gone) = run.at_stake(&self.cores());
        assert!(!gone.is_empty() && gone.len() < all.len(), "some of it");
        run.end(false);
        (run, gone)
    }

    /// The directories are gone, and the operator says so.
    fn apply(&self, run: &mut Disks) {
        for dir in self.lost {
            run.rename_for_good(dir, &format!("gone-{dir}"));
        }
        self.change.apply(run);
        run.options.core_dirs_lost = paths(self.lost);
    }

    /// They are there again, and are given as if nothing had been.
    fn undo(&self, run: &mut Disks) {
        for dir in self.lost {
            run.rename_for_good(&format!("gone-{dir}"), dir);
        }
        run.options.core_dirs.extend(paths(self.lost));
        run.options.core_dirs_lost.clear();
    }
}

/// Goes through the ends of the starts of a loss, each `step`-th of them: what is then, and whether the change had been made.
fn end_everywhere(
    loss: &Loss,
    (from, step): (u64, usize),
    then: &dyn Fn(&mut Disks, &Samples, u64, bool),
) {
    let (mut before, mut after) = (0, 0);
    for stop in (from..).step_by(step) {
        let (mut run, gone) = loss.begin(stop);
        loss.apply(&mut run);
        run.sim.stop_after(stop);
        let _ = run.try_start();
        let all_done = !run.sim.is_off();
        run.end(stop.is_multiple_of(2));
        let is_decided = run.generation() == 3;
        match is_decided {
            false => before += 1,
            true => after += 1,
        }
        then(&mut run, &gone, stop, is_decided);
        if all_done {
            assert!(is_decided, "a start that serves has concluded");
            break;
        }
    }
    let enough = before * step > 60 && after > 0;
    assert!(enough, "{before} ended before the change, {after} after it");
}

/// Every operation of the first loss, and one in three of the others.
fn steps(number: usize) -> (u64, usize) {
    match number {
        0 => (0, 1),
        _ => (number as u64 % 3, 3),
    }
}

/// The same start again, and again, and then without the option.
#[test]
fn a_start_without_a_lost_directory_may_end_at_any_moment() {
    for (number, loss) in LOSSES.iter().enumerate() {
        end_everywhere(loss, steps(number), &|run, gone, stop, is_decided| {
            let what = format!("loss {number}, stopped after {stop}");
            let lost = loss.cores();
            run.start();
            let (told, forgotten) = (run.notes_of("is LOST"), run.notes_of("named as lost"));
            let counted = run.node.as_ref().unwrap().corruptions;
            let expected = match is_decided {
                false => (loss.lost.len(), 0, lost.len() as u64),
                true => (0, loss.lost.len(), 0),
            };
            assert_eq!((told, forgotten, counted), expected, "{what}");
            if !is_decided {
                let named = "disk1 is LOST, as data.core_dirs_lost says: samples of core 1 that";
                assert_eq!(run.notes_of(named), 1, "{what}");
            }
            run.give_up(gone);
            run.verify();
            run.push();
            run.end(stop.is_multiple_of(3));
            run.start();
            assert_eq!(run.notes_of("named as lost"), loss.lost.len(), "{what}");
            run.go_on_without_the_option();
            loss.change.check(run, &what);
        });
    }
}

/// Before the change a start without the option is refused as ever, and nothing has been decided; behind it there is nothing to be refused.
#[test]
fn until_its_end_a_start_without_a_lost_directory_decides_nothing() {
    for (number, loss) in LOSSES.iter().enumerate() {
        end_everywhere(loss, steps(number), &|run, gone, stop, is_decided| {
            run.options.core_dirs_lost.clear();
            if !is_decided {
                let core = format!("core {}", loss.cores()[0]);
                run.refused(&[loss.lost[0], &core, "data.core_dirs_lost"]);
                run.options.core_dirs_lost = paths(loss.lost);
            }
            run.start();
            run.give_up(gone);
            run.go_on_without_the_option();
            loss.change
                .check(run, &format!("loss {number}, stopped after {stop}"));
        });
    }
}

/// The disk is found again: before the change all is there, behind it what it holds is refused.
#[test]
fn a_lost_directory_that_comes_back_is_taken_until_the_change_and_refused_behind_it() {
    for (number, loss) in LOSSES.iter().enumerate() {
        end_everywhere(loss, steps(number), &|run, gone, stop, mut is_decided| {
            if !is_decided {
                // Twice: its number is that of both.
                run.sim.stop_after(stop / 2);
                let _ = run.try_start();
                run.end(stop.is_multiple_of(3));
                is_decided = run.generation() == 3;
            }
            loss.undo(run);
            if is_decided {
                run.refused(&[
                    loss.lost[0],
                    "holds logs of this node that its manifest does not know",
                ]);
                loss.change.apply(run);
                run.give_up(gone);
            }
            run.start();
            assert_eq!(run.notes_of("LOST"), 0);
            run.go_on_without_the_option();
        });
    }
}

#[test]
fn a_directory_is_not_lost_that_is_there_or_that_nobody_knows() {
    let loss = &LOSSES[0];
    let (mut run, gone) = loss.begin(1);
    let lost = |run: &mut Disks, dirs: &[&str], lost: &[&str]| {
        run.options.core_dirs = paths(dirs);
        run.options.core_dirs_lost = paths(lost);
    };
    // It is there; so is another one that is called so, and it itself under another name.
    lost(&mut run, &["disk0"], &["disk1"]);
    run.refused(&["disk1: it is named as lost, but it is there", "wal/owner"]);
    run.rename_for_good("disk1", "elsewhere");
    lost(&mut run, &["disk0", "elsewhere"], &["disk1"]);
    run.refused(&["disk1: it is named as lost", "there: elsewhere is it"]);
    run.rename_for_good("disk0", "disk1");
    lost(&mut run, &["elsewhere"], &["disk1"]);
    run.refused(&["disk1: it is named as lost, but it is there"]);
    run.rename_for_good("disk1", "disk0");
    run.rename_for_good("elsewhere", "disk1");
    // Named twice.
    lost(&mut run, &["disk0", "disk1"], &["disk1"]);
    run.refused(&["core-dirs", "disk1 is"]);
    lost(&mut run, &["disk0"], &["disk1"]);
    run.options.core_dirs_leaving = paths(&["disk1"]);
    run.refused(&["core-dirs", "disk1 is"]);
    run.options.core_dirs_leaving.clear();
    lost(&mut run, &["disk0", "disk1"], &["data"]);
    run.refused(&["core-dirs", "data is"]);
    // Unknown, beside one that is missed too.
    lost(&mut run, &["disk0", "disk1"], &["disk2"]);
    run.refused(&["disk2", "the manifest calls no directory", "disk0, disk1"]);
    run.rename_for_good("disk1", "gone");
    lost(&mut run, &["disk0"], &["./disk1"]);
    run.refused(&["./disk1", "the manifest calls no directory", "disk0, disk1"]);
    // Another one is lost than that which is missed.
    lost(&mut run, &["disk0", "disk1"], &[]);
    run.refused(&["disk1", "does not exist", "core 1", "data.core_dirs_lost"]);
    run.run(Op::CreateDir {
        path: "disk1".into(),
    });
    run.refused(&["disk1", "held core 1", "mounted", "data.core_dirs_lost"]);
    lost(&mut run, &["disk0", "disk2"], &[]);
    run.refused(&["disk1", "core 1", "not mounted", "data.core_dirs_lost"]);
    // Its disk fails, as a whole or when it is looked into.
    lost(&mut run, &["disk0", "disk1"], &[]);
    for below in ["disk1", "disk1/wal/owner"] {
        run.sim
            .fail_when(move |op| op.path.starts_with(below).then_some(Fault::EIO));
        let failure = format!("{below}: Input/output error");
        run.refused(&["disk1: ", &failure, "core 1", "data.core_dirs_lost"]);
        run.sim.clear_faults();
    }
    // What cannot be looked at may be there.
    lost(&mut run, &["disk0"], &["disk1"]);
    const EACCES: Fault = Fault::Errno(13);
    run.sim
        .fail_when(|op| op.path.starts_with("disk1").then_some(EACCES));
    run.refused(&[
        "disk1: it is named as lost, but may be there",
        "disk1/wal/owner",
    ]);
    run.sim.clear_faults();
    // A disk that answers nothing is not there, and is not asked again.
    run.run(Op::RemoveDir {
        path: "disk1".into(),
    });
    run.rename_for_good("gone", "disk1");
    let before = run.tree("disk1");
    run.sim
        .fail_when(|op| op.path.starts_with("disk1").then_some(Fault::EIO));
    run.start();
    run.give_up(&gone);
    run.verify();
    run.sim.clear_faults();
    assert!(run.tree("disk1") == before, "it was touched");
    // A node of its own data directory, or none yet, has lost nothing.
    for data in ["data2", "data3"] {
        let mut other = Disks::new(1, 2);
        other.options.data_dir = data.into();
        if data == "data2" {
            other.start();
            other.end(true);
        }
        other.options.core_dirs_lost = paths(&["disk1"]);
        let error = other.try_start().expect_err("it knows none").to_string();
        assert!(error.contains("disk1: it is named as lost"), "{error}");
        assert!(error.contains("it knows none"), "{error}");
        other.options.core_dirs_lost.clear();
        other.start();
    }
}

/// A node that has given up a directory and gone on, has ended, and finds it at its place again.
fn given_up_and_back_again(seed: u64) -> Disks {
    let loss = &LOSSES[0];
    let (mut run, gone) = loss.begin(seed);
    loss.apply(&mut run);
    run.start();
    run.give_up(&gone);
    run.push();
    run.end(true);
    run.rename_for_good("gone-disk1", "disk1");
    run
}

/// What comes back when the others have gone on is in nobody's way, and never read.
#[test]
fn a_directory_that_comes_back_later_is_refused_until_its_logs_are_away() {
    let mut run = given_up_and_back_again(2);
    let old = run.tree("disk1");
    let unknown = "it holds logs of this node that its manifest does not know of";
    // Still named as lost: that is understood, and it is let alone.
    run.start();
    assert_eq!(run.notes_of("disk1 holds nothing"), 1);
    run.verify();
    run.end(false);
    for _ in 0..2 {
        run.options.core_dirs_lost.clear();
        run.options.core_dirs = paths(&["disk0", "disk1"]);
        run.refused(&["disk1", unknown]);
        run.options.core_dirs = paths(&["disk0"]);
        run.options.core_dirs_leaving = paths(&["disk1"]);
        run.refused(&["disk1", unknown]);
        run.options.core_dirs_leaving.clear();
        // The second time it is not even known that there was one.
        run.start();
        run.verify();
        run.end(true);
    }
    run.options.core_dirs_lost = paths(&["disk1"]);
    run.refused(&["disk1", "the manifest calls no directory", "forgotten"]);
    assert!(run.tree("disk1") == old, "it was touched");
    // Nor when the node has no directories any more, and then again some.
    run.options.core_dirs_lost.clear();
    run.options.core_dirs.clear();
    run.options.core_dirs_leaving = paths(&["disk0"]);
    run.start();
    run.push();
    run.end(false);
    run.options.core_dirs = paths(&["disk1"]);
    run.refused(&["disk1", unknown]);
    run.options.core_dirs = Vec::new();
    run.start();
    run.end(false);
    run.options.core_dirs = paths(&["disk1"]);
    run.options.core_dirs_leaving.clear();
    run.refused(&["disk1", "another node"]);
    run.options.core_dirs = paths(&["disk0"]);
    run.start();
    run.verify();
    run.end(false);
    // An empty one in its place is a new one.
    run.rename_for_good("disk1", "gone-disk1");
    run.run(Op::CreateDir {
        path: "disk1".into(),
    });
    run.options.core_dirs = paths(&["disk0", "disk1"]);
    run.start();
    run.verify();
    assert_eq!(run.cores_in("disk1").len(), 1);
}

/// With its logs moved away a directory that was lost joins again, mark and all.
#[test]
fn a_lost_directory_without_its_logs_joins_again() {
    let mut run = given_up_and_back_again(3);
    run.rename_for_good("disk1/wal/g0000000002", "old-logs");
    run.options.core_dirs_lost.clear();
    run.options.core_dirs = paths(&["disk0", "disk1"]);
    run.start();
    run.verify();
    assert_eq!(run.cores_in("disk1"), ["4/1"]);
    run.push();
    run.end(true);
    run.start();
    run.verify();
}

/// The power goes within a cut, and takes the disk with it: a block that only the lost log could say of whether it is needed is kept.
#[test]
fn blocks_of_an_unfinished_cut_of_a_lost_core_are_kept() {
    let (mut relied_on, mut alone) = (0, 0);
    for stop in 0.. {
        let mut run = Disks::new(stop, 3).on(&["disk0", "disk1"]);
        run.start();
        let until = boundary(run.node.as_ref().unwrap()) - 2 * CUT_MS;
        run.push_hours(0..6);
        run.node.as_mut().unwrap().checkpoint().unwrap();
        let (all, none) = run.at_stake(&[1]);
        assert_eq!(all, none, "nothing has been cut");
        run.sim.stop_after(stop);
        run.push_hours(7..8);
        if !run.sim.is_off() {
            run.cut();
        }
        let all_done = !run.sim.is_off();
        run.end(stop.is_multiple_of(2));
        let blocks = run.tree("data/blocks");
        let pending = blocks.iter().find_map(|(path, _)| {
            let name = path.file_name()?.to_str()?;
            let rest = name.strip_prefix("cut-2-1-")?;
            cut::final_path(path)?;
            rest.split('-').next()?.parse::<u32>().ok()
        });
        if let Some(sequence) = pending {
            let log = wal::core_dir(Path::new("disk1/wal"), 2, 1);
            let newest = wal::newest_checkpoint(&mut Reactor::sim(&run.sim), &log);
            let newest = newest.unwrap().expect("it has one");
            let newest = newest.to_str().unwrap().rsplit('-').next().unwrap();
            match newest.parse::<u32>().unwrap() >= sequence {
                true => relied_on += 1,
                false => alone += 1,
            }
            LOSSES[0].apply(&mut run);
            run.start();
            // Whatever the last push has come to.
            for ((_, labels), samples) in &mut run.ledger.samples {
                if all.iter().any(|(other, _)| other == labels) {
                    samples.retain(|&time, _| time < until);
                }
            }
            run.go_on_without_the_option();
        }
        if all_done {
            break;
        }
    }
    let both = relied_on > 0 && alone > 0;
    assert!(both, "{relied_on} relied on, {alone} not");
}
