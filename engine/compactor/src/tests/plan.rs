//! What is merged when: windows, sizes, and the order of logging.

use std::time::Duration;

use block::FileKind;

use super::{Content, HOUR_MS, Node, Told, labels, tenant};
use crate::Options;

/// A tenant with so many samples from a time on, a minute apart.
fn samples(name: &str, from: i64, count: i64) -> Content {
    let noise = |i: i64| {
        let mixed = (i as u64 ^ 0x55).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)) >> 1
    };
    let samples = (0..count).map(|i| (from + i * 60_000, Told::Float(noise(i))));
    [((tenant(name), labels("up", 1)), samples.collect())].into()
}

fn levels(node: &Node) -> Vec<u8> {
    let list = node.catalog.list();
    let mut levels: Vec<u8> = list.iter().map(|block| block.meta().info.level).collect();
    levels.sort_unstable();
    levels
}

#[test]
fn small_tenants_share_files_and_large_ones_have_their_own() {
    let mut node = Node::new(1);
    node.options = Options {
        own_file_bytes: 3_000,
        shared_file_bytes: 1 << 20,
        ..node.options.clone()
    };
    for _core in 0..4 {
        let mut all = samples("large", 0, 1000);
        for small in 0..300 {
            all.append(&mut samples(&format!("small-{small:03}"), 900 * 60_000, 3));
        }
        node.cut(&all);
    }
    node.sim.advance(Duration::from_secs(600));
    let done = node.compact().unwrap();
    assert_eq!((done.files, done.removed), (2, 4));
    node.verify("merged");
    let list = node.catalog.list();
    let parts_of = |kind| {
        let of_kind = list.iter().filter(|block| block.meta().info.kind == kind);
        of_kind
            .map(|block| block.parts().count())
            .collect::<Vec<_>>()
    };
    assert_eq!(parts_of(FileKind::Cut), [300]);
    assert_eq!(parts_of(FileKind::Block), [1]);
}

#[test]
fn windows_are_merged_when_they_are_over() {
    let mut node = Node::new(1);
    // Three days, a cut every two hours.
    for cut in 0..36 {
        node.cut(&samples("a", cut * 2 * HOUR_MS, 119));
        node.sim.advance(Duration::from_secs(120));
        node.compact().unwrap();
    }
    node.verify("three days");
    // Two days are whole; of the third half a day and its later cuts, which nothing has gone past.
    assert_eq!(levels(&node), [1, 1, 1, 1, 1, 1, 2, 3, 3]);
    for _ in 0..2 {
        node.sim.advance(Duration::from_secs(2 * 3600));
        node.compact().unwrap();
    }
    assert_eq!(levels(&node), [3, 3, 3], "what is quiet is over too");
    node.verify("quiet");
}

/// Story: the block of a day is made in the same run as its last half day, whose sources leave the disk between the two. A bucket that has these was
/// never told what became of them: it kept them, and readers saw their samples twice, for ever.
#[test]
fn a_block_names_all_that_it_was_made_of_also_what_has_left_the_disk() {
    let mut node = Node::new(1);
    let mut ids = std::collections::BTreeSet::new();
    for cut in 0..12 {
        node.cut(&samples("a", cut * 2 * HOUR_MS, 119));
        node.sim.advance(Duration::from_secs(120));
        node.compact().unwrap();
        ids.extend(node.catalog.list().iter().map(|b| b.meta().info.id));
    }
    for _ in 0..2 {
        node.sim.advance(Duration::from_secs(2 * 3600));
        node.compact().unwrap();
    }
    assert_eq!(levels(&node), [3]);
    let day = node.catalog.list()[0].meta().info.clone();
    ids.remove(&day.id);
    assert!(ids.len() >= 12, "{}", ids.len());
    let unnamed: Vec<_> = ids.iter().filter(|id| !day.sources.contains(id)).collect();
    assert!(unnamed.is_empty(), "{unnamed:?} of {ids:?}");
}

#[test]
fn files_wait_until_those_of_all_cores_are_there() {
    let mut node = Node::new(1);
    node.cut(&samples("a", 0, 5));
    assert_eq!(node.compact().unwrap().files, 0);
    node.sim.advance(Duration::from_secs(50));
    node.cut(&samples("a", HOUR_MS, 5));
    node.sim.advance(Duration::from_secs(50));
    assert_eq!(node.compact().unwrap().files, 0);
    node.sim.advance(Duration::from_secs(50));
    assert_eq!(node.compact().unwrap().files, 1);
    assert_eq!(levels(&node), [1]);
}

#[test]
fn a_little_that_comes_late_does_not_have_a_day_written_again() {
    let mut node = Node::new(1);
    node.cut(&samples("a", 0, 1440));
    node.cut(&samples("a", 2 * 24 * HOUR_MS, 3));
    node.sim.advance(Duration::from_secs(120));
    node.compact().unwrap();
    node.cut(&samples("a", 12 * HOUR_MS, 1));
    node.sim.advance(Duration::from_secs(120));
    node.compact().unwrap();
    let large = |node: &Node| {
        let list = node.catalog.list();
        let largest = list.iter().max_by_key(|block| block.bytes()).unwrap();
        largest.meta().info.id
    };
    let before = large(&node);
    for _ in 0..3 {
        node.cut(&samples("a", 23 * HOUR_MS, 1));
        node.sim.advance(Duration::from_secs(4000));
        node.compact().unwrap();
        assert_eq!(large(&node), before, "a day is not written for a sample");
    }
    // What was late for half a day is one file then, and that waits for a day too.
    for _ in 0..2 {
        node.sim.advance(Duration::from_secs(25 * 3600));
        node.compact().unwrap();
    }
    assert_ne!(large(&node), before, "but after a day");
    node.verify("merged");
    // The late value of a time that was there has won all along.
    assert_eq!(levels(&node).len(), 2, "{:?}", node.files());
}

/// Order 1 and 3 meet in time with 2, which is of a window of its own: merging them would put what 1 has above what 2 has.
#[test]
fn what_lies_between_two_files_in_order_keeps_them_apart() {
    let mut node = Node::new(1);
    let value = |value: u64, times: &[i64]| -> Content {
        let samples = times.iter().map(|&time| (time, Told::Float(value)));
        [((tenant("a"), labels("up", 1)), samples.collect())].into()
    };
    let late = 100 * HOUR_MS;
    node.cut(&value(1, &[0, 10]));
    node.cut(&value(2, &[10, late]));
    node.cut(&value(3, &[0, 20]));
    node.sim.advance(Duration::from_secs(120));
    node.compact().unwrap();
    node.verify("merged");
    let two: Vec<_> = node
        .seen()
        .into_values()
        .next()
        .unwrap()
        .into_iter()
        .collect();
    let float = Told::Float;
    assert_eq!(
        two,
        [
            (0, float(3)),
            (10, float(2)),
            (20, float(3)),
            (late, float(2))
        ]
    );
    assert_eq!(levels(&node).len(), 3, "{:?}", node.files());
}

#[test]
fn ranges_that_do_not_fit_are_refused() {
    let with = |hours: &[u64]| Options {
        ranges: hours
            .iter()
            .map(|h| Duration::from_secs(h * 3600))
            .collect(),
        ..Options::new(super::dir())
    };
    assert!(with(&[2, 12, 24]).validate().is_ok());
    assert!(with(&[2]).validate().is_ok());
    for wrong in [&[][..], &[2, 3], &[12, 2], &[2, 2], &[0, 2]] {
        assert!(with(wrong).validate().is_err(), "{wrong:?}");
    }
}
