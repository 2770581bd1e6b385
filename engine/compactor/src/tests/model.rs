//! Random cuts, copies, late samples and restarts against a map: nothing changes by any number of compactions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::model::{Matcher, stale_nan};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Content, HOUR_MS, Keep, Node, Told, labels, seen, tenant};

/// Some of three tenants, one of them large, in the hour before `now`.
pub(super) fn some(rng: &mut SmallRng, now: i64) -> Content {
    let mut content = Content::new();
    for (name, series, samples) in [("a", 3, 8), ("large", 20, 40), ("z", 2, 5)] {
        for n in 0..series {
            if rng.random_bool(0.3) {
                continue;
            }
            let samples = (0..rng.random_range(1..samples)).map(|_| {
                let late = if rng.random_bool(0.1) { 30 } else { 2 };
                let time = now - rng.random_range(0..late * HOUR_MS / 60_000) * 60_000;
                (time, value(rng, n))
            });
            let samples = samples.collect();
            content.insert((tenant(name), labels("up", n)), samples);
        }
    }
    content
}

fn value(rng: &mut SmallRng, n: usize) -> Told {
    match (n, rng.random_range(0..9)) {
        // A series of both kinds.
        (1, 0..4) => Told::Histogram(rng.random_range(0..1000)),
        (_, 0) => Told::Float(stale_nan().to_bits()),
        (_, 1) => Told::Float(rng.random::<u64>()),
        _ => Told::Float(f64::from(rng.random_range(0..1000)).to_bits()),
    }
}

#[test]
fn no_answer_changes_by_a_compaction() {
    let (mut files, mut removed, mut replaced, mut most) = (0, 0, 0, 0);
    for seed in 0..30 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut node = Node::new(seed);
        let mut now = 1_000 * HOUR_MS;
        for step in 0..rng.random_range(5..40) {
            now += rng.random_range(0..3 * HOUR_MS);
            let mut samples = some(&mut rng, now);
            if rng.random_bool(0.3) {
                // A copy: the same again, in a file of its own.
                node.cut(&samples);
            }
            if rng.random_bool(0.2) {
                // Other values for the same times.
                for (series, samples) in &mut samples {
                    for told in samples.values_mut() {
                        *told = value(&mut rng, usize::from(series.0 == tenant("large")));
                    }
                }
            }
            node.cut(&samples);
            most = most.max(node.files().len());
            node.sim
                .advance(Duration::from_secs(rng.random_range(0..9000)));
            if rng.random_bool(0.5) {
                // Whoever has begun to read goes on with what there was.
                let before = node.catalog.list();
                let held = seen(&before);
                let done = node.compact().unwrap();
                files += done.files;
                removed += done.removed;
                replaced += done.merged.replaced;
                assert_eq!(seen(&before), held);
            }
            if rng.random_bool(0.1) {
                let stop = AtomicBool::new(true);
                let done = node.compact_until(&stop).unwrap();
                assert_eq!(done.files, 0);
                stop.store(false, Ordering::Relaxed);
            }
            if rng.random_bool(0.2) {
                node.sim.crash();
                node.start();
            }
            node.verify(&format!("seed {seed}, step {step}"));
        }
        // When nobody cuts any more, little is left, and another run does nothing.
        for _ in 0..8 {
            node.sim.advance(Duration::from_secs(8 * 3600));
            node.compact().unwrap();
        }
        assert_eq!(node.compact().unwrap().files, 0, "seed {seed}");
        node.verify(&format!("seed {seed}, at rest"));
        let days = (now / HOUR_MS / 24 + 1 - (1_000 - 30) / 24) as usize;
        let left = node.files();
        assert!(left.len() <= days * 4 + 2, "seed {seed}: {left:?}");
    }
    assert!(files > 100 && removed > files && replaced > 1000);
    assert!(most > 6, "{most} files");
}

#[test]
fn what_is_deleted_or_too_old_is_left_out_and_a_tenant_of_whom_nothing_is_left_goes() {
    let mut node = Node::new(1);
    let now = 1_000 * HOUR_MS;
    node.sim.set_wall_ms(now);
    let samples = |name: &str, from: i64| -> Content {
        let samples = (0..20).map(|i| (from + i * 60_000, Told::Float(i as u64)));
        [((tenant(name), labels("up", 1)), samples.collect())].into()
    };
    for name in ["deleted", "kept"] {
        node.cut(&samples(name, now));
        node.cut(&samples(name, now - 30 * HOUR_MS));
        node.cut(&samples(name, now + HOUR_MS));
    }
    node.sim.advance(Duration::from_secs(7200));
    let up = || vec![Matcher::equal("__name__", "up")];
    for name in ["deleted", "kept"] {
        node.delete(name, up(), (now + 5 * 60_000, i64::MAX));
    }
    node.keep = Keep {
        retention_ms: Some(24 * HOUR_MS),
        free: None,
        ..Keep::default()
    };
    node.sim.set_wall_ms(now + 3 * HOUR_MS);
    // Written behind the deletion.
    let later: Content = samples("kept", now + 2 * HOUR_MS);
    node.cut(&later);
    node.sim.set_wall_ms(now + 5 * HOUR_MS);
    let done = node.compact().unwrap();
    assert!(done.merged.dropped > 0);
    node.expected.clear();
    for name in ["deleted", "kept"] {
        let mut left = samples(name, now);
        let series = left.values_mut().next().unwrap();
        series.retain(|time, _| *time < now + 5 * 60_000);
        node.expected.extend(left);
    }
    let (series, samples) = later.into_iter().next().unwrap();
    node.expected.entry(series).or_default().extend(samples);
    node.verify("compacted");
    node.sim.crash();
    node.start();
    node.verify("started again");
    // All of it.
    node.sim.advance(Duration::from_secs(30 * 3600));
    node.cut(&Content::from([(
        (tenant("deleted"), labels("up", 1)),
        [(now, Told::Float(1))].into(),
    )]));
    node.delete("deleted", Vec::new(), (i64::MIN, i64::MAX));
    node.delete("kept", up(), (i64::MIN, i64::MAX));
    assert!(node.expected.is_empty());
    node.verify("nothing, at once");
    node.sim.advance(Duration::from_secs(7200));
    node.compact().unwrap();
    node.verify("nothing");
    assert_eq!(node.catalog.deletions().live_count(), 0, "all is physical");
    let gone = node.catalog.expired(node_wall(&node), &|_| 1);
    assert_eq!(gone.len(), node.files().len(), "empty files expire");
}

fn node_wall(node: &Node) -> i64 {
    reactor::Reactor::sim(&node.sim).wall_ms()
}

#[test]
fn a_merge_that_would_fill_the_disk_is_not_begun() {
    let mut node = Node::new(1);
    let mut rng = SmallRng::seed_from_u64(1);
    (0..3).for_each(|_| drop(node.cut(&some(&mut rng, 1_000 * HOUR_MS))));
    node.sim.advance(Duration::from_secs(600));
    node.keep.free = Some(200 << 20);
    let error = node.compact().unwrap_err();
    assert!(error.to_string().contains("free space"), "{error}");
    node.verify("refused");
    node.keep.free = Some(300 << 20);
    assert!(node.compact().unwrap().files > 0);
    node.verify("done");
}

/// A block was cut, and deleted from, between the look at the blocks and the end of those deletions that none of them needs: it is not among those that were looked at.
#[test]
fn a_deletion_that_comes_behind_the_look_at_the_blocks_is_not_ended_by_it() {
    let mut node = Node::new(1);
    let up = || vec![Matcher::equal("__name__", "up")];
    let samples = |from: i64| -> Content {
        let samples = (0..20).map(|i| (from + i * 60_000, Told::Float(i as u64)));
        [((tenant("a"), labels("up", 1)), samples.collect())].into()
    };
    let now = 1_000 * HOUR_MS;
    node.cut(&samples(now));
    node.delete("a", up(), (0, now - 1));
    let (name, compactor) = (tenant("a"), node.compactor());
    let seen = compactor.look(&name);
    node.cut(&samples(now + HOUR_MS));
    node.delete("a", up(), (now + HOUR_MS, i64::MAX));
    let reactor = &mut reactor::Reactor::sim(&node.sim);
    compactor.retire(reactor, &name, &seen).unwrap();
    let live = node.catalog.deletions().live_count();
    assert_eq!(
        live, 1,
        "the first one has nothing to do, the second one has"
    );
    node.verify("after a look that was too early");
    let seen = compactor.look(&name);
    compactor.retire(reactor, &name, &seen).unwrap();
    assert_eq!(
        node.catalog.deletions().live_count(),
        1,
        "its block is there"
    );
    node.verify("after another look");
}

/// Story: without a bucket what was deleted stayed in the youngest blocks until the first merge of them, however often it was asked for.
#[test]
fn a_run_that_is_asked_for_takes_what_was_deleted_out_of_blocks_that_were_just_cut() {
    let mut node = Node::new(1);
    let now = 1_000 * HOUR_MS;
    let mut samples = Content::new();
    for (name, n) in [("a", 1), ("a", 2), ("b", 1)] {
        let times = (0..20).map(|i| (now + i * 60_000, Told::Float(i as u64)));
        samples.insert((tenant(name), labels("up", n)), times.collect());
    }
    node.cut(&samples);
    node.cut(&samples);
    let some = vec![Matcher::equal("n", "1")];
    node.delete("a", some.clone(), (now, now + 5 * 60_000));
    let done = node.compact().unwrap();
    assert_eq!(done.files, 0, "a merge will come to them");
    assert_ne!(seen(&node.catalog.list()), node.expected);
    let done = node.clean().unwrap();
    assert_eq!(done.files, 2, "one for each, of the one tenant");
    assert_eq!(seen(&node.catalog.list()), node.expected, "on the disk");
    assert_eq!(node.catalog.deletions().live_count(), 0);
    assert_eq!(node.clean().unwrap().files, 0, "there is nothing to do");
    // What is written behind that is not meant, and merges go on.
    node.cut(&samples);
    node.sim.advance(Duration::from_secs(7200));
    node.compact().unwrap();
    node.verify("merged");
}
