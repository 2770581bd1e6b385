//! Uploads and what follows them, one claim at a time.

use std::collections::BTreeMap;

use block::FileKind;
use objstore::{Bucket, Condition, Faults};

use super::{HOUR_MS, Place, dir, options, tenant};
use crate::{Error, Options, TenantIndex, keys};

#[test]
fn an_outage_leaves_blocks_on_the_disk_raises_the_alarm_and_passes() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    place.write(&mut life, FileKind::Cut, &[("one", 0..10), ("two", 0..10)]);
    place.store.set_out(true);
    place.wait(500 * HOUR_MS);
    let error = life.pass().unwrap_err();
    assert!(error.is_passing(), "{error}");
    assert_eq!(
        life.metric("myelin_uploader_oldest_pending_seconds"),
        500.0 * 3600.0
    );
    let since = "cortex_ingester_shipper_oldest_unshipped_block_timestamp_seconds";
    let begun = (place.now_ms - 500 * HOUR_MS) as f64 / 1000.0;
    assert_eq!(life.metric(since), begun);
    assert_eq!(life.metric("myelin_uploader_pending_blocks"), 1.0);
    assert_eq!(life.metric("myelin_uploader_failures_total"), 1.0);
    assert_eq!(life.catalog.list().len(), 1, "old as it is, it stays");
    place.store.set_out(false);
    let pass = life.pass().unwrap();
    assert_eq!((pass.uploaded, pass.removed, pass.pending), (1, 1, 0));
    assert_eq!(life.metric("myelin_uploader_oldest_pending_seconds"), 0.0);
    assert_eq!(life.metric(since), 0.0);
    place.check_settled(&life, "after the outage");
}

#[test]
fn a_pass_with_nothing_to_do_asks_the_bucket_nothing() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    place.write(&mut life, FileKind::Cut, &[("one", 0..10), ("two", 0..10)]);
    life.pass().unwrap();
    let before = place.store.operations();
    life.pass().unwrap();
    assert_eq!(place.store.operations(), before);
    // Nor does another life upload again what is there.
    let mut life = place.begin();
    let pass = life.pass().unwrap();
    assert_eq!((pass.uploaded, pass.pending), (0, 0));
    assert_eq!(life.metric("myelin_uploader_index_writes_total"), 0.0);
}

/// At most a put of the block and one of each tenant's index.
#[test]
fn a_shared_block_costs_one_put_and_one_for_each_tenant() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    life.pass().unwrap();
    let registry = prometheus::Registry::new();
    let metered = objstore::Metered::new(place.store.clone(), &registry).unwrap();
    life.uploader.bucket = std::sync::Arc::new(metered);
    let (before, parts) = (place.store.operations(), 1);
    place.write(&mut life, FileKind::Cut, &[("one", 0..10), ("two", 0..10)]);
    life.pass().unwrap();
    // Begin, parts, end; looked at; its end read; two indexes read, two written.
    assert_eq!(place.store.operations() - before, 2 + parts + 1 + 1 + 4);
}

#[test]
fn what_has_not_been_merged_waits_and_what_is_pending_stays() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    let cut = place.write_block(
        &mut life,
        FileKind::Cut,
        0,
        Vec::new(),
        &[(
            "one".to_owned(),
            [("a".to_owned(), [(5, 7.5)].into())].into(),
        )]
        .into(),
    );
    assert_eq!(life.pass().unwrap().uploaded, 0);
    place.wait(HOUR_MS);
    assert_eq!(life.pass().unwrap().uploaded, 1);
    let id = format!("{cut:032x}");
    assert!(place.store.keys().iter().any(|key| key.contains(&id)));
    // The head has what is in it still.
    let from = dir().join(format!("{cut}.block"));
    let to = dir().join("9.pending.block");
    life.catalog.renamed(&from, &to);
    let mut other = Place::new(2).begin();
    other.catalog = life.catalog.clone();
    other.uploader.catalog = life.catalog.clone();
    assert_eq!(other.pass().unwrap().uploaded, 0);
}

#[test]
fn an_object_that_is_not_what_was_put_keeps_the_local_copy_and_is_uploaded_again() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    let id = place.write(&mut life, FileKind::Block, &[("one", 0..10)]);
    life.pass().unwrap();
    let key = format!("tenants/one/{id:032x}.block");
    place
        .store
        .put(&key, b"somebody wrote over it", &Condition::Always)
        .unwrap();
    place.wait(300 * HOUR_MS);
    let error = life.pass().unwrap_err();
    assert!(error.to_string().contains("the length"), "{error}");
    assert_eq!(life.catalog.list().len(), 1);
    place.check(&life, "from the disk");
    let pass = life.pass().unwrap();
    assert_eq!((pass.uploaded, pass.removed), (1, 1));
    place.check_settled(&life, "from the bucket");
}

#[test]
fn retention_takes_blocks_out_of_the_index_and_then_out_of_the_bucket() {
    let mut place = Place::new(1);
    place.retention_ms = 2000 * HOUR_MS;
    let mut life = place.begin();
    let now = place.now_ms;
    place.write(
        &mut life,
        FileKind::Cut,
        &[("one", now..now + 10), ("two", now..now + 10)],
    );
    life.pass().unwrap();
    place.wait(400 * HOUR_MS);
    assert_eq!(life.pass().unwrap().removed, 1);
    place.check(&life, "within retention");
    place.wait(1601 * HOUR_MS);
    life.pass().unwrap();
    place.truth.clear();
    assert_eq!(place.seen(&life).unwrap().len(), 0, "expired");
    assert_eq!(place.store.keys().len(), 3, "readers may be at it still");
    place.wait(13 * HOUR_MS);
    life.pass().unwrap();
    assert_eq!(place.store.keys().len(), 2);
    place.check_settled(&life, "in the end");
}

#[test]
fn the_index_of_a_tenant_has_numbers_until_its_blocks_are_gone() {
    let mut place = Place::new(1);
    place.retention_ms = 1000 * HOUR_MS;
    let mut life = place.begin();
    let now = place.now_ms;
    place.write(&mut life, FileKind::Cut, &[("one", now..now + 10)]);
    let updated = "cortex_bucket_index_last_successful_update_timestamp_seconds";
    let cleaned = "cortex_compactor_block_cleanup_last_successful_run_timestamp_seconds";
    let (count, leaving) = (
        "cortex_bucket_blocks_count",
        "cortex_bucket_blocks_marked_for_deletion_count",
    );
    for (hours, blocks) in [(0, [1.0, 0.0]), (400, [1.0, 0.0]), (601, [0.0, 1.0])] {
        place.wait(hours * HOUR_MS);
        life.pass().unwrap();
        assert_eq!([count, leaving].map(|name| life.metric(name)), blocks);
        let seconds = place.now_ms as f64 / 1000.0;
        assert_eq!(
            [updated, cleaned].map(|name| life.metric(name)),
            [seconds; 2]
        );
    }
    place.wait(13 * HOUR_MS);
    life.pass().unwrap();
    let families = life.registry.gather();
    let named = |name| families.iter().any(|family| family.name() == name);
    assert_eq!([count, leaving, updated].map(named), [false; 3]);
    assert!(named(cleaned));
}

/// An index that somebody had removed was taken for one without entries, and half a day later all that it had named for orphans; where tenants
/// share blocks, also when nothing of the tenant alone was left to tell.
#[test]
fn blocks_of_a_tenant_whose_index_is_missing_are_no_orphans() {
    for alone in [true, false] {
        let mut place = Place::new(1);
        let mut life = place.begin();
        let now = place.now_ms;
        if alone {
            place.write(&mut life, FileKind::Block, &[("one", now..now + 10)]);
        }
        let shared = [("one", now + 20..now + 30), ("two", now + 20..now + 30)];
        place.write(&mut life, FileKind::Cut, &shared);
        life.pass().unwrap();
        let blocks = |place: &Place| -> Vec<String> {
            let keys = place.store.keys().into_iter();
            keys.filter(|key| key.ends_with(".block")).collect()
        };
        let before = blocks(&place);
        assert_eq!(before.len(), 1 + usize::from(alone), "{before:?}");
        place.store.delete("tenants/one/index.json").unwrap();
        let mut life = place.begin();
        for _ in 0..3 {
            place.wait(26 * HOUR_MS);
            life.pass().unwrap();
        }
        let after = blocks(&place);
        assert!(before.iter().all(|key| after.contains(key)), "{after:?}");
    }
}

/// The index began anew with the next upload, and what the old one had named was lost to queries at once.
#[test]
fn an_index_that_vanishes_while_the_node_runs_does_not_begin_anew() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    let now = place.now_ms;
    place.write(&mut life, FileKind::Block, &[("one", now..now + 10)]);
    life.pass().unwrap();
    place.store.delete("tenants/one/index.json").unwrap();
    place.write(&mut life, FileKind::Block, &[("one", now + 20..now + 30)]);
    assert_eq!(life.pass().unwrap().uploaded, 0);
    let keys = place.store.keys();
    assert!(
        !keys.iter().any(|key| key.ends_with("index.json")),
        "{keys:?}"
    );
    assert_eq!(life.catalog.list().len(), 2, "both are on the disk still");
}

#[test]
fn a_shared_object_stays_until_the_last_tenant_lets_it_go() {
    let mut place = Place::new(1);
    place.retention_ms = 1000 * HOUR_MS;
    let mut life = place.begin();
    let now = place.now_ms;
    let late = now + 700 * HOUR_MS;
    // One tenant has newer samples in it than the other.
    place.write(
        &mut life,
        FileKind::Cut,
        &[("one", now..now + 10), ("two", late..late + 10)],
    );
    life.pass().unwrap();
    place.wait(1400 * HOUR_MS);
    for _ in 0..3 {
        life.pass().unwrap();
        place.wait(26 * HOUR_MS);
    }
    place.truth.retain(|(tenant, _, _), _| tenant == "two");
    place.check_settled(&life, "one has gone");
    assert_eq!(place.store.keys().len(), 3);
    place.wait(400 * HOUR_MS);
    for _ in 0..3 {
        life.pass().unwrap();
        place.wait(26 * HOUR_MS);
    }
    place.truth.clear();
    place.check_settled(&life, "both have gone");
    assert_eq!(place.store.keys().len(), 2);
}

#[test]
fn the_order_of_logging_goes_on_behind_what_the_bucket_has() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    for i in 0..5 {
        place.write(&mut life, FileKind::Block, &[("one", i * 10..i * 10 + 10)]);
    }
    life.pass().unwrap();
    // The disk is lost.
    place.disk = reactor::Sim::new(7);
    place.set_clocks();
    let mut life = place.begin();
    life.pass().unwrap();
    assert!(life.catalog.next_order() > 5);
    place.check_settled(&life, "all of it is in the bucket");
}

#[test]
fn where_a_store_ignores_conditions_one_process_writes() {
    let mut place = Place::new(1);
    place.store.keep_conditions(false);
    let (mut life, mut other) = (place.begin(), place.begin());
    place.write(&mut life, FileKind::Block, &[("one", 0..10)]);
    assert!(
        matches!(life.pass(), Err(Error::Leased { .. })),
        "it is taken first"
    );
    assert!(matches!(other.pass(), Err(Error::Leased { .. })));
    assert_eq!(life.pass().unwrap().uploaded, 1);
    assert!(matches!(other.pass(), Err(Error::Leased { .. })));
    // Who holds it has gone.
    place.wait(HOUR_MS);
    assert!(matches!(other.pass(), Err(Error::Leased { .. })));
    other.pass().unwrap();
    let error = life.pass().unwrap_err();
    assert!(error.to_string().contains("has the lease"), "{error}");
}

#[test]
fn two_who_enter_blocks_at_the_same_time_undo_nothing() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    let other_disk = reactor::Sim::new(5);
    let mine = std::mem::replace(&mut place.disk, other_disk);
    place.set_clocks();
    let mut other = place.begin();
    place.disk = mine;
    life.pass().unwrap();
    other.pass().unwrap();
    for i in 0..4 {
        place.write(&mut life, FileKind::Block, &[("one", i * 10..i * 10 + 5)]);
        place.write(
            &mut other,
            FileKind::Block,
            &[("one", i * 10 + 5..i * 10 + 10)],
        );
        life.pass().unwrap();
        other.pass().unwrap();
    }
    let known = life
        .uploader
        .indexes
        .load(&tenant("one"), place.now_ms)
        .unwrap();
    assert_eq!(known.index.blocks.len(), 8);
    place.check(&life, "of both");
}

#[test]
fn an_index_is_what_was_written_or_an_error() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    place.write(&mut life, FileKind::Block, &[("one", 0..10)]);
    life.pass().unwrap();
    let tenant = tenant("one");
    let key = keys::index(&tenant);
    let bytes = place.store.get(&key).unwrap().unwrap().bytes;
    let index = TenantIndex::decode(&tenant, &key, &bytes).unwrap();
    assert_eq!(index.encode(), bytes);
    let error = TenantIndex::decode(&super::tenant("two"), &key, &bytes).unwrap_err();
    assert!(error.to_string().contains("index of \"one\""), "{error}");
    let text = String::from_utf8(bytes.clone()).unwrap();
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("\"blocks\"", "\"block\""),
        ("\"start\":40", "\"start\":39"),
        ("\"start\":40", "\"start\":18446744073709551615"),
        ("\"series\":2", "\"series\":0"),
        ("\"key\":\"tenants", "\"key\":\"../tenants"),
    ] {
        assert!(text.contains(from), "{text}");
        let changed = text.replacen(from, to, 1);
        let error = TenantIndex::decode(&tenant, &key, changed.as_bytes());
        assert!(error.is_err(), "{changed}");
    }
    for at in 0..bytes.len() {
        let mut cut = bytes.clone();
        cut.truncate(at);
        assert!(TenantIndex::decode(&tenant, &key, &cut).is_err());
    }
    // Uploads of that tenant stop, loudly; those of others go on, and nothing is deleted meanwhile.
    place.store.put(&key, b"{}", &Condition::Always).unwrap();
    let mut life = place.begin();
    place.write(&mut life, FileKind::Block, &[("two", 0..10)]);
    place.write(&mut life, FileKind::Block, &[("one", 10..20)]);
    let pass = life.pass().unwrap();
    assert_eq!(pass.uploaded, 1);
    assert_eq!(life.metric("myelin_uploader_unreadable_blocks"), 2.0);
    let before = place.store.keys();
    place.wait(400 * HOUR_MS);
    life.pass().unwrap();
    assert_eq!(place.store.keys(), before);
    let here: Vec<_> = life
        .catalog
        .list()
        .iter()
        .map(|b| b.meta().parts[0].tenant.to_string())
        .collect();
    assert_eq!(here, ["one", "one"], "they stay on the disk");
}

/// An index of version 1, as long as there are buckets with such.
const INDEX_V1: &str = r#"{"version":1,"tenant":"one","updated_ms":1700000000000,"blocks":[{"id":"0000000000000000000000000000002a","key":"shared/0000000000000000000000000000002a.block","bytes":4096,"shared":true,"level":1,"order":7,"created_ms":1699999990000,"uploaded_ms":1700000000000,"min_time":-5,"max_time":1699999980000,"series":3,"samples":99,"start":40,"chunk_bytes":1000,"index_bytes":500,"directory_bytes":100,"sources":["00000000000000000000000000000001"]}],"deletions":[{"id":"00000000000000000000000000000001","key":"tenants/one/00000000000000000000000000000001.block","since_ms":1700000000000}]}"#;

#[test]
fn an_index_of_the_first_version_is_read_for_ever() {
    let tenant = tenant("one");
    let index = TenantIndex::decode(&tenant, "k", INDEX_V1.as_bytes()).unwrap();
    assert_eq!(index.blocks[0].id, 42);
    assert_eq!(index.blocks[0].sources, [1]);
    assert_eq!(index.deletions[0].since_ms, 1_700_000_000_000);
    assert_eq!(index.encode(), INDEX_V1.as_bytes());
}

#[test]
fn a_stopped_pass_ends_between_blocks() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    place.write(&mut life, FileKind::Block, &[("one", 0..10)]);
    let stop = std::sync::atomic::AtomicBool::new(true);
    let pass = life.uploader.run(&mut life.reactor, &stop).unwrap();
    assert_eq!((pass.uploaded, pass.pending), (0, 1));
}

#[test]
fn without_a_local_retention_blocks_stay() {
    let mut place = Place::new(1);
    let options = Options {
        local_retention: std::time::Duration::ZERO,
        ..options()
    };
    let mut life = place.begin_with(options, None);
    place.write(&mut life, FileKind::Block, &[("one", 0..10)]);
    place.wait(9999 * HOUR_MS);
    assert_eq!(life.pass().unwrap().removed, 0);
    assert_eq!(life.catalog.list().len(), 1);
}

/// Story: a merged file whose part had been merged on took the sources out of the index before the later file was there.
#[test]
fn what_was_merged_on_leaves_no_index_before_its_successor_is_in() {
    type Content = BTreeMap<String, BTreeMap<String, BTreeMap<i64, f64>>>;
    let of = |names: &[&str]| -> Content {
        let samples: BTreeMap<i64, f64> = (0..10).map(|t| (t, t as f64 * 1.5)).collect();
        let series = |name: &&str| {
            (
                (*name).to_owned(),
                [("a".to_owned(), samples.clone())].into(),
            )
        };
        names.iter().map(series).collect()
    };
    for stop in 1..25 {
        let mut place = Place::new(stop);
        let mut life = place.begin();
        let a = place.write(&mut life, FileKind::Cut, &[("one", 0..10), ("two", 0..10)]);
        life.pass().unwrap();
        let both = of(&["one", "two"]);
        let m = place.write_block(&mut life, FileKind::Cut, 2, vec![a], &both);
        place.write_block(&mut life, FileKind::Block, 3, vec![a, m], &of(&["one"]));
        place.store.stop_after(stop);
        let _ = life.pass();
        place.store.revive();
        let key = keys::index(&tenant("one"));
        let bytes = place.store.get(&key).unwrap().unwrap().bytes;
        let index = TenantIndex::decode(&tenant("one"), &key, &bytes).unwrap();
        assert!(!index.blocks.is_empty(), "stopped at operation {stop}");
    }
}

/// Story: a store that did not answer for a moment made the node take good blocks out of their index.
#[test]
fn an_answer_that_does_not_come_takes_nothing_out_of_an_index() {
    for seed in 0..20 {
        let mut place = Place::new(seed);
        let mut life = place.begin();
        place.write(&mut life, FileKind::Block, &[("one", 0..10)]);
        life.pass().unwrap();
        place.wait(300 * HOUR_MS);
        place.store.set_faults(Faults {
            before: 0.5,
            after: 0.0,
        });
        let _ = life.pass();
        place.store.set_faults(Faults::default());
        let key = keys::index(&tenant("one"));
        let bytes = place.store.get(&key).unwrap().unwrap().bytes;
        let index = TenantIndex::decode(&tenant("one"), &key, &bytes).unwrap();
        assert_eq!(index.blocks.len(), 1, "seed {seed}");
    }
}

/// Story: an index that was put back helped only the next life.
#[test]
fn a_block_is_uploaded_when_the_index_in_its_way_is_back() {
    let mut place = Place::new(1);
    let mut life = place.begin();
    place.write(&mut life, FileKind::Block, &[("one", 0..10)]);
    life.pass().unwrap();
    let key = keys::index(&tenant("one"));
    let index = place.store.get(&key).unwrap().unwrap().bytes;
    place.store.put(&key, b"{}", &Condition::Always).unwrap();
    place.write(&mut life, FileKind::Block, &[("one", 20..30)]);
    assert_eq!(life.pass().unwrap().uploaded, 0);
    place.store.put(&key, &index, &Condition::Always).unwrap();
    place.wait(HOUR_MS);
    assert_eq!(life.pass().unwrap().uploaded, 1);
    place.check_settled(&life, "the index is back");
}

/// Story: nothing of a tenant expired while the node ran, because the answer to the first put of its index had been lost.
#[test]
fn a_tenant_is_known_also_when_the_put_of_its_index_was_not_answered() {
    for (seed, stop) in (0..8).flat_map(|seed| (1..12).map(move |stop| (seed, stop))) {
        let mut place = Place::new(seed);
        let mut life = place.begin();
        life.pass().unwrap();
        place.write(&mut life, FileKind::Block, &[("one", 0..10)]);
        place.store.stop_after(stop);
        let _ = life.pass();
        place.store.revive();
        life.pass().unwrap();
        let tenants = life.uploader.tenants.as_ref().unwrap();
        assert!(tenants.contains(&tenant("one")), "seed {seed}, stop {stop}");
    }
}
