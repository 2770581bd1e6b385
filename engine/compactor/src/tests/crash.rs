//! The power goes after every single operation of a compaction, an operation fails, the disk is full: each sample stays where readers find it, once.

use std::collections::BTreeSet;
use std::time::Duration;

use ::model::{MatchOp, Matcher};
use block::FileKind;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use reactor::{Fault, Op, Reactor};

use super::model::some;
use super::{HOUR_MS, Node};

/// Cuts of two windows, so that there are files of one tenant and shared ones, and merges of merges.
fn cuts(seed: u64) -> Node {
    let mut node = Node::new(seed);
    let mut rng = SmallRng::seed_from_u64(seed);
    for hours in [0, 0, 1, 2, 3, 14] {
        let samples = some(&mut rng, (1_000 + hours) * HOUR_MS);
        node.cut(&samples);
    }
    node.sim.advance(Duration::from_secs(7200));
    node
}

/// How many parts are seen, and by how many files.
fn shape(node: &Node) -> (usize, usize) {
    let list = node.catalog.list();
    let parts = list.iter().map(|block| block.parts().count()).sum();
    (parts, list.len())
}

#[test]
fn a_power_cut_after_every_operation_leaves_each_sample_once() {
    let mut shapes = BTreeSet::new();
    for seed in 0..2 {
        let rest = {
            let mut node = cuts(seed);
            let done = node.compact().unwrap();
            assert!(done.files > 4 && done.removed > 4, "{done:?}");
            let list = node.catalog.list();
            for kind in [FileKind::Cut, FileKind::Block] {
                assert!(list.iter().any(|block| block.meta().info.kind == kind));
            }
            shape(&node)
        };
        for stop in 0.. {
            let mut node = cuts(seed);
            node.sim.stop_after(stop);
            let done = node.compact();
            let whole = !node.sim.is_off();
            assert_eq!(done.is_ok(), whole, "{done:?}");
            node.sim.crash();
            node.start();
            let what = format!("seed {seed}, stopped after {stop}");
            node.verify(&what);
            shapes.insert(shape(&node));
            // No part is hidden for nothing: what a merged file has is gone from its sources, whole ones are gone from the disk.
            let list = node.catalog.list();
            assert!(list.iter().all(|block| block.parts().count() > 0), "{what}");
            let path = super::dir();
            let found = Reactor::sim(&node.sim).run(Op::List { path }).unwrap();
            let mut names = found.entries().into_iter().map(|entry| entry.name);
            assert!(
                names.all(|name| !name.to_string_lossy().ends_with(".unfinished")),
                "{what}"
            );
            // It goes on where it ended.
            node.sim.advance(Duration::from_secs(7200));
            node.compact().unwrap();
            node.verify(&what);
            let again = shape(&node);
            assert!(again.0 <= rest.0 + 3, "{what}: {:?}", node.files());
            node.sim.crash();
            node.start();
            node.verify(&what);
            assert_eq!(shape(&node), again, "{what}");
            if whole {
                break;
            }
        }
    }
    assert!(shapes.len() > 6, "{shapes:?}");
}

#[test]
fn a_failing_operation_ends_the_run_and_the_next_one_goes_on() {
    let mut failed = 0;
    for nth in 1..90 {
        for fault in [Fault::EIO, Fault::ENOSPC, Fault::Short { bytes: 100 }] {
            let mut node = cuts(nth);
            node.sim.fail_nth(nth, fault);
            failed += u64::from(node.compact().is_err());
            node.sim.clear_faults();
            let what = format!("operation {nth} failed");
            node.verify(&what);
            // A merged file that is visible may not be durable: whatever comes, all is there.
            node.sim.crash();
            node.start();
            node.verify(&what);
            node.sim.advance(Duration::from_secs(7200));
            node.compact().unwrap();
            node.verify(&what);
            // Files that a run finds apart and one that it makes may belong together: the run after it sees to that.
            let rests = (0..2).any(|_| node.compact().unwrap().files == 0);
            assert!(rests, "{what}: {:?}", node.files());
            node.verify(&what);
        }
    }
    assert!(failed > 100, "{failed} failed");
}

#[test]
fn a_full_disk_ends_the_run_and_space_lets_it_go_on() {
    let mut node = cuts(1);
    let used = node.sim.used();
    node.sim.set_capacity(used + 600);
    let error = node.compact().unwrap_err();
    assert!(!error.to_string().is_empty());
    node.verify("full");
    node.sim.set_capacity(used * 3);
    let done = node.compact().unwrap();
    assert!(done.files > 3 && done.removed > 4, "{done:?}");
    node.verify("space again");
}

/// The power goes after every operation of a compaction that has deletions to apply: nothing of what was deleted comes back, and the deletion ends
/// when nothing is left, not before.
#[test]
fn a_power_cut_after_every_operation_brings_nothing_back_that_was_deleted() {
    let deleted = |seed| {
        let mut node = cuts(seed);
        // Some is merged before, some is not.
        node.compact().unwrap();
        let mut rng = SmallRng::seed_from_u64(seed + 100);
        let samples = some(&mut rng, 1_015 * HOUR_MS);
        node.cut(&samples);
        let tenants: BTreeSet<_> = node.expected.keys().map(|(t, _)| t.clone()).collect();
        let mut tenants = tenants.iter();
        let mut next = || tenants.next().expect("several tenants").as_str().to_owned();
        let some = vec![Matcher::new(MatchOp::Regex, "n", "[0-2]").unwrap()];
        let range = (1_001 * HOUR_MS, 1_002 * HOUR_MS + HOUR_MS / 2);
        node.delete(&next(), some, range);
        node.delete(&next(), Vec::new(), (i64::MIN, i64::MAX));
        node.delete(&next(), vec![Matcher::equal("n", "none")], (0, i64::MAX));
        // Behind them.
        node.cut(&samples);
        node
    };
    let rest = |node: &mut Node, what: &str| {
        for _ in 0..3 {
            node.sim.advance(Duration::from_secs(7200));
            node.compact().unwrap();
            node.verify(what);
        }
        assert_eq!(node.catalog.deletions().live_count(), 0, "{what}");
        let physical = super::seen(&node.catalog.list());
        assert_eq!(physical, node.expected, "{what}");
    };
    let mut ended = BTreeSet::new();
    // Every second one with a history each; and where somebody asks for it, while the last cuts are young.
    for (seed, asked) in [(0, false), (1, false), (0, true), (1, true)] {
        for stop in (seed..).step_by(2) {
            let mut node = deleted(seed);
            if !asked {
                node.sim.advance(Duration::from_secs(7200));
            }
            node.verify("deleted");
            node.sim.stop_after(stop);
            let done = match asked {
                true => node.clean(),
                false => node.compact(),
            };
            let whole = !node.sim.is_off();
            assert_eq!(done.is_ok(), whole, "{done:?}");
            node.sim.crash();
            node.start();
            let what = format!("seed {seed}, asked: {asked}, stopped after {stop}");
            node.verify(&what);
            ended.insert(node.catalog.deletions().live_count());
            rest(&mut node, &what);
            node.sim.crash();
            node.start();
            node.verify(&what);
            if whole {
                break;
            }
        }
    }
    assert!(ended.len() > 2, "{ended:?}");
}
