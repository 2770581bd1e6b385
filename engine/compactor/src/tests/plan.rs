//! What is merged when: windows, sizes, and the order of logging.

use std::time::Duration;

use ::model::{MatchOp, Matcher};
use block::FileKind;
use reactor::{Op, Reactor};

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

/// Small tenants share files.
fn sharing() -> Node {
    let mut node = Node::new(1);
    node.options = Options {
        own_file_bytes: 1 << 20,
        shared_file_bytes: 1 << 20,
        ..node.options.clone()
    };
    node
}

fn joined(all: impl IntoIterator<Item = Content>) -> Content {
    all.into_iter().flatten().collect()
}

fn merge(node: &mut Node) {
    node.sim.advance(Duration::from_secs(4 * 3600));
    node.compact().unwrap();
}

/// The same times as [`samples`], with other values.
fn changed(name: &str, from: i64, count: i64) -> Content {
    let mut all = samples(name, from, count);
    for told in all.values_mut().flat_map(|samples| samples.values_mut()) {
        *told = Told::Float(2.0f64.to_bits());
    }
    all
}

/// Story: the file of a window got the order of the last one that came, which was another tenant's, and so an old part of the first tenant came to lie above a newer
/// block of its own that ends in another window. Values that had been replaced came back, for good.
#[test]
fn nobody_is_lifted_over_its_own_newer_block_by_the_order_of_another() {
    let mut node = sharing();
    node.cut(&samples("a", 0, 60));
    // Replaces them, and ends a day later.
    let mut newer = changed("a", 0, 60);
    for (series, of) in samples("a", 24 * HOUR_MS, 60) {
        newer.entry(series).or_default().extend(of);
    }
    node.cut(&newer);
    node.cut(&samples("b", 0, 60));
    merge(&mut node);
    node.verify("merged with another tenant's old samples, which came last");
    assert!(
        levels(&node).iter().all(|level| *level > 0),
        "it was merged"
    );
}

/// Story: a part of a shared block was written again for itself, the block left the disk, and the next merge, of this tenant and others, named it as something that
/// its sources were made of. To the others it had never been merged: they lost their parts of it, on the disk and in the bucket.
#[test]
fn what_has_left_the_disk_is_hidden_of_those_alone_who_have_it_in_what_names_it() {
    let mut node = sharing();
    node.catalog.deletions().set_bucket("not yet");
    let settle = |node: &Node| {
        for block in node.catalog.list().iter() {
            node.catalog.set_settled(block.meta().info.id, true);
        }
    };
    let with_gone = |name: &str| {
        let gone = samples(name, 0, 60);
        let gone = gone
            .into_iter()
            .map(|((tenant, _), of)| ((tenant, labels("gone", 1)), of));
        joined([samples(name, 0, 60), gone.collect()])
    };
    node.cut(&joined([with_gone("a"), with_gone("b")]));
    merge(&mut node);
    let shared = node.catalog.list()[0].clone();
    settle(&node);
    let matcher = Matcher::new(MatchOp::Equal, "__name__", "gone").unwrap();
    node.delete("a", vec![matcher], (0, HOUR_MS));
    merge(&mut node);
    node.verify("a part was written again");
    // As the uploader does: what the bucket has of the other tenant is not here any more.
    let path = shared.path().to_owned();
    Reactor::sim(&node.sim).run(Op::Remove { path }).unwrap();
    node.catalog.remove(&shared);
    node.expected.retain(|(owner, _), _| *owner == tenant("a"));
    let id = shared.meta().info.id;
    for late in 1..=3 {
        let from = 60_000 * 60 * late;
        node.cut(&joined([
            samples("c", from, 10),
            samples("a", from, 10),
            samples("b", from, 10),
        ]));
        for _ in 0..2 {
            merge(&mut node);
            for block in node.catalog.list().iter() {
                let meta = block.meta();
                let hides = meta.info.sources.contains(&id);
                let of_b = meta.part(&tenant("b")).is_some();
                assert!(!hides || !of_b, "round {late}: {:?}", block.path());
            }
        }
        if late == 2 {
            settle(&node);
        }
    }
    node.verify("late ones were merged");
    assert!(node.files().len() <= 3, "{:?}", node.files());
}

/// Story: of three blocks of a time the middle one had gone to the bucket; the other two were merged, and the oldest one's samples won over those of the middle.
#[test]
fn a_block_in_the_bucket_lies_between_as_one_on_the_disk_does() {
    let node_with = |stored: bool, out: bool| {
        let mut node = sharing();
        node.cut(&samples("a", 0, 60));
        let between = node.catalog.next_order();
        node.cut(&samples("a", 30 * 60_000, 60));
        if stored {
            node.keep.stored = vec![(99, between, (60_000, 120_000))];
        }
        node.keep.out = out;
        merge(&mut node);
        node.verify("merged");
        levels(&node)
    };
    assert_eq!(node_with(false, false), [1]);
    assert_eq!(node_with(true, false), [1, 1], "each for itself");
    assert_eq!(node_with(false, true), [0, 0], "it cannot be told");
}
