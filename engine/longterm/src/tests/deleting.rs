//! What is deleted is not seen in the bucket from then on, and leaves it, wherever the process ends meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use block::{Deletion, FileKind};
use model::{MatchOp, Matcher};
use reactor::OpKind;

use super::{HOUR_MS, Life, Place, tenant};

impl Place {
    /// Deletes of a tenant, and of the truth. `series`: a regular expression; none: the tenant.
    fn delete(&mut self, life: &mut Life, name: &str, series: Option<&str>, times: (i64, i64)) {
        let order = life.catalog.next_order();
        let matcher = |text: &str| Matcher::new(MatchOp::Regex, "series", text).unwrap();
        let (min_time, max_time) = match series {
            Some(_) => times,
            None => (i64::MIN, i64::MAX),
        };
        let deletion = Deletion {
            id: u128::from(order),
            order,
            whole_tenant: series.is_none(),
            selectors: vec![series.map(matcher).into_iter().collect()],
            min_time,
            max_time,
            created_ms: self.now_ms,
            over_ms: None,
        };
        let deletions = life.catalog.deletions();
        let added = deletions.add(&mut life.reactor, &tenant(name), deletion);
        added.unwrap();
        self.truth.retain(|(of, label, time), _| {
            let meant = series.is_none_or(|text| matcher(text).matches(label));
            of != name || !meant || !(min_time..=max_time).contains(time)
        });
    }
}

/// Blocks that are in the bucket alone, and deletions of several kinds behind them.
fn deleted(seed: u64) -> (Place, Life) {
    let mut place = Place::new(seed);
    let mut life = place.begin();
    place.write(&mut life, FileKind::Block, &[("one", 0..20)]);
    place.write(&mut life, FileKind::Cut, &[("one", 20..40), ("two", 0..10)]);
    place.write(&mut life, FileKind::Block, &[("one", 40..60)]);
    place.write(&mut life, FileKind::Block, &[("one", 60..80)]);
    place.write(&mut life, FileKind::Block, &[("two", 50..60)]);
    life.pass().unwrap();
    place.wait(500 * HOUR_MS);
    life.pass().unwrap();
    assert!(life.catalog.list().is_empty(), "all has left the disk");
    place.check_settled(&life, "uploaded");
    place.delete(&mut life, "one", Some("a"), (10, 29));
    place.delete(&mut life, "one", Some("b"), (12, 14));
    place.delete(&mut life, "one", Some("a|b"), (40, 59));
    place.delete(&mut life, "one", Some("none"), (0, 99));
    place.delete(&mut life, "two", None, (0, 0));
    // Behind them, at times that were deleted.
    place.write(&mut life, FileKind::Block, &[("one", 12..15)]);
    place.write(&mut life, FileKind::Block, &[("two", 5..7)]);
    place.check(&life, "deleted");
    (place, life)
}

fn come_to_rest(place: &mut Place, life: &mut Life, what: &str) {
    for _ in 0..3 {
        let passed = life.pass();
        passed.unwrap_or_else(|error| panic!("{what}: {error}"));
        place.check(life, what);
        place.wait(25 * HOUR_MS);
    }
    life.pass().unwrap();
    assert_eq!(life.catalog.deletions().live_count(), 0, "{what}");
    // Without deletions nothing is left out: it is physical.
    place.check_settled(life, what);
}

/// What the compactor does with blocks on the disk of which a crash has taken the note that deletions were applied: here they hold nothing that was deleted.
fn finds_them_clean(life: &mut Life) {
    let list = life.catalog.list();
    let made = list.iter().filter(|b| !b.meta().info.sources.is_empty());
    for block in made {
        for part in &block.meta().parts {
            let deletions = life.catalog.deletions();
            let tombstones = deletions.tombstones(&part.tenant);
            let order = tombstones.iter().map(|t| t.order).max().unwrap_or(0);
            let (reactor, id) = (&mut life.reactor, block.meta().info.id);
            deletions
                .note_applied(reactor, &part.tenant, id, order)
                .unwrap();
        }
    }
}

#[test]
fn a_crash_at_any_operation_brings_nothing_back_that_was_deleted() {
    let operations = {
        let (mut place, mut life) = deleted(1);
        let before = place.store.operations();
        come_to_rest(&mut place, &mut life, "without a crash");
        place.store.operations() - before
    };
    assert!(operations > 30, "{operations}");
    for stop in 1..=operations {
        let what = format!("stopped at operation {stop} of the bucket");
        let (mut place, mut life) = deleted(stop);
        place.store.stop_after(stop);
        for _ in 0..3 {
            let _ = life.pass();
            place.wait(HOUR_MS);
        }
        place.store.revive();
        place.disk.crash();
        life = place.begin();
        place.check(&life, &what);
        come_to_rest(&mut place, &mut life, &what);
    }
    let mut ended = 0;
    for stop in 0.. {
        let what = format!("stopped after operation {stop} of the disk");
        let (mut place, mut life) = deleted(stop);
        place.disk.stop_after(stop);
        let passed = life.pass();
        let whole = !place.disk.is_off();
        assert!(passed.is_ok() || !whole, "{what}: {passed:?}");
        ended += 1;
        place.disk.crash();
        life = place.begin();
        place.check(&life, &what);
        finds_them_clean(&mut life);
        come_to_rest(&mut place, &mut life, &what);
        if whole {
            break;
        }
    }
    assert!(ended > 20, "{ended}");
}

/// A node with a new disk does not know what the bucket has seen: a deletion made then would be before what it is about.
#[test]
fn nothing_is_deleted_before_the_bucket_has_been_looked_into() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    for n in 0..9 {
        place.write(&mut life, FileKind::Block, &[("one", n * 10..n * 10 + 10)]);
    }
    life.pass().unwrap();
    let mut other = Place::new(2);
    other.store = place.store.clone();
    other.truth = place.truth.clone();
    let mut life = other.begin();
    let deletions = life.catalog.deletions();
    deletions.set_bucket("not yet");
    assert_eq!(deletions.unready(), Some("not yet".to_owned()));
    life.pass().unwrap();
    assert_eq!(life.catalog.deletions().unready(), None);
    assert!(life.catalog.next_order() > 9);
    other.delete(&mut life, "one", None, (0, 0));
    other.check(&life, "deleted");
    assert!(other.seen(&life).unwrap().is_empty());
}

/// As in the compactor: a block was cut, and deleted from, behind the look at what there is.
#[test]
fn a_deletion_that_comes_behind_the_look_at_the_blocks_is_not_ended_by_it() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    place.write(&mut life, FileKind::Block, &[("one", 0..20)]);
    life.pass().unwrap();
    place.delete(&mut life, "one", Some("a"), (50, 60));
    let one = tenant("one");
    let seen = life.uploader.look(&life.reactor, &one).unwrap();
    place.write(&mut life, FileKind::Block, &[("one", 20..40)]);
    place.delete(&mut life, "one", Some("b"), (20, 29));
    let retired = life.uploader.retire(&mut life.reactor, &one, &seen);
    retired.unwrap();
    let live = life.catalog.deletions().live_count();
    assert_eq!(
        live, 1,
        "the first one has nothing to do, the second one has"
    );
    place.check(&life, "after a look that was too early");
    let mut life = place.begin();
    place.check(&life, "in another life");
    let seen = life.uploader.look(&life.reactor, &one).unwrap();
    let retired = life.uploader.retire(&mut life.reactor, &one, &seen);
    retired.unwrap();
    assert_eq!(life.catalog.deletions().live_count(), 1);
    finds_them_clean(&mut life);
}

/// What is written again of blocks that the bucket alone has passes through the disk, one after another: it is as old as what it takes the place of, and
/// the disk may be far too small for all of it.
#[test]
fn what_is_written_again_leaves_the_disk_before_the_next_comes_and_keeps_its_age() {
    let (place, mut life) = deleted(1);
    let ages = |life: &Life| {
        let known = life.uploader.indexes.load(&tenant("one"), place.now_ms);
        let known = known.unwrap();
        let entries = known.index.blocks.iter().map(|e| (e.order, e.created_ms));
        entries.collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = ages(&life);
    let (mut here, most) = (0_i64, Arc::new(AtomicI64::new(0)));
    let seen = most.clone();
    place.disk.fail_when(move |op| {
        let name = op.path.file_name().unwrap_or_default().to_string_lossy();
        match op.kind {
            // The name that it had while it was written is another.
            OpKind::Rename if name.ends_with(".block.unfinished") => here += 1,
            OpKind::Remove if name.ends_with(".block") => here -= 1,
            _ => {}
        }
        seen.fetch_max(here, Ordering::Relaxed);
        None
    });
    life.pass().unwrap();
    place.disk.clear_faults();
    assert_eq!(most.load(Ordering::Relaxed), 1, "at a time");
    place.check(&life, "written again");
    let list = life.catalog.list();
    let again = list.iter().filter(|b| !b.meta().info.sources.is_empty());
    assert_eq!(again.count(), 0, "none of it is on the disk");
    let after = ages(&life);
    // Of one nothing is left.
    assert!(after.len() >= 3, "{before:?} became {after:?}");
    for (order, created_ms) in &after {
        if let Some(was) = before.get(order) {
            assert_eq!(created_ms, was, "the block of place {order}");
        }
    }
}
