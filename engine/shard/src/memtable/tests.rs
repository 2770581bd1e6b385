//! Claims about the memtable: admission, cuts, reads in range, collection.

use std::sync::Arc;

use model::{Labels, TenantId, identity};

use super::append::{Admission, Bounds, SeriesLimits};
use super::native::Value;
use super::*;
use crate::message::RejectReason;
use crate::seen::Newest;

pub(crate) const HOUR: i64 = 3_600_000;

pub(crate) fn memtable() -> Memtable {
    Memtable::new(Arc::default(), 5, 120, 24 * HOUR)
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// A series with one sample, as a push of a fresh series makes it.
fn create(memtable: &mut Memtable, tenant: &str, labels: &Labels, first: (i64, f64)) -> u32 {
    let tenant = TenantId::new(tenant).unwrap();
    let id = identity::series_id(&tenant, labels.packed(), &mut Vec::new());
    let slot = memtable.tenant_slot(&tenant);
    assert_eq!(memtable.find_series(slot, id, labels.packed()), None);
    let limits = SeriesLimits::default();
    let series = memtable
        .create_series(slot, id, labels.packed(), first, limits)
        .unwrap();
    memtable.note_samples(slot, 1, first.0, first.0);
    series
}

fn append(memtable: &mut Memtable, series: u32, time: i64, value: f64) {
    let row = &memtable.rows[series];
    let tenant = row.tenant;
    if time >= row.cut_time || row.chunk.count() >= memtable.chunk_samples_max {
        memtable.cut(series, time);
    }
    memtable.rows[series].chunk.append(time, value);
    memtable.note_samples(tenant, 1, time, time);
}

fn decode(slices: &[crate::ChunkSlice]) -> Vec<(i64, f64)> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for slice in slices {
        let from = times.len();
        let sealed = slice.bytes.read().unwrap();
        let max = slice.max_time;
        chunk::decode_range(&sealed, i64::MIN, max, &mut times, &mut values).unwrap();
        assert_eq!(times[from], slice.min_time);
    }
    times.into_iter().zip(values).collect()
}

#[test]
fn chunks_are_cut_by_count_and_on_boundaries_of_sample_time() {
    let mut memtable = memtable();
    let series = create(
        &mut memtable,
        "a",
        &labels(&[("__name__", "up")]),
        (-1000, 0.0),
    );
    for i in 0..1000 {
        append(&mut memtable, series, i * 60_000, i as f64);
    }
    let chunks = &memtable.colds[series].sealed;
    assert_eq!((chunks[0].min_time(), chunks[0].max_time()), (-1000, -1000));
    for chunk in chunks {
        assert_eq!(
            chunk.min_time().div_euclid(CUT_MS),
            chunk.max_time().div_euclid(CUT_MS)
        );
        let bytes = memtable.chunks.read(chunk.place());
        let count = chunk::count(&bytes.read().unwrap()).unwrap();
        assert!(count <= 120 && count == chunk.count());
    }
    let all = memtable.slices(series, i64::MIN, i64::MAX);
    assert_eq!(decode(&all).len(), 1001);
    assert_eq!(memtable.totals.sealed_chunks as usize, all.len() - 1);
}

/// A hundred thousand series that are scraped together had full chunks at the same time, and one scrape in 120 closed all of them.
#[test]
fn chunks_of_series_that_are_scraped_together_end_apart() {
    let mut memtable = memtable();
    let begin = 5 * CUT_MS + 60_000;
    let series: Vec<u32> = (0..300)
        .map(|i| {
            let labels = labels(&[("__name__", "up"), ("i", &i.to_string())]);
            create(&mut memtable, "a", &labels, (begin, 0.0))
        })
        .collect();
    let (mut closed, mut most) = (0, 0);
    for scrape in 1..960 {
        let time = begin + scrape * 15_000;
        for &series in &series {
            append(&mut memtable, series, time, 0.0);
        }
        let now = memtable.totals.sealed_chunks;
        // All of them at the end of two hours.
        if time.div_euclid(CUT_MS) == (time - 15_000).div_euclid(CUT_MS) {
            most = most.max(now - closed);
        }
        closed = now;
    }
    assert!(most <= 20, "{most} of 300 chunks closed by one scrape");
    for &series in &series {
        let chunks = &memtable.colds[series].sealed;
        assert!(chunks.len() <= 10, "{} chunks in four hours", chunks.len());
        assert!(chunks[0].count() >= 20 && chunks[1].count() == 120);
    }
}

#[test]
fn slices_hold_only_chunks_that_overlap() {
    let mut memtable = memtable();
    let series = create(&mut memtable, "a", &labels(&[("__name__", "up")]), (0, 0.0));
    (1..480).for_each(|i| append(&mut memtable, series, i * 60_000, i as f64));
    for (min, max, count) in [
        (i64::MIN, i64::MAX, 8),
        (0, 0, 1),
        (119 * 60_000, 120 * 60_000, 2),
        (119 * 60_000 + 1, 120 * 60_000 - 1, 0),
        (480 * 60_000, i64::MAX, 0),
        (479 * 60_000, i64::MAX, 1),
    ] {
        assert_eq!(
            memtable.slices(series, min, max).len(),
            count,
            "{min} to {max}"
        );
        assert_eq!(
            memtable.overlaps(series, min, max),
            count > 0,
            "{min} to {max}"
        );
    }
    let before = memtable.slices(series, 0, 129 * 60_000 + 1);
    assert_eq!(decode(&before).last(), Some(&(129 * 60_000, 129.0)));
    assert!(memtable.starts_before(series, 1) && !memtable.starts_before(series, 0));
    let newest = memtable.newest(series);
    assert_eq!(
        (newest.time, newest.value),
        (479 * 60_000, Some(479.0)),
        "the last one"
    );
    let seen = Some(Newest {
        time: 130 * 60_000,
        value: Some(1.5),
    });
    let alone = memtable.newest_slices(series, 0, 130 * 60_000, seen);
    assert_eq!(decode(&alone), [(130 * 60_000, 1.5)]);
    let earlier = memtable.newest_slices(series, 0, 128 * 60_000, seen);
    assert_eq!(decode(&earlier).last(), Some(&(128 * 60_000, 128.0)));
}

#[test]
fn old_samples_are_told_apart_by_what_memory_holds() {
    use RejectReason::{NewValueForTimestamp, NoMemory, OutOfBounds, OutOfOrder, TooOld};
    let bounds = Bounds {
        horizon: -10,
        window_ms: 0,
        tight: false,
    };
    let mut memtable = memtable();
    let series = create(&mut memtable, "a", &labels(&[("__name__", "up")]), (0, 0.5));
    (1..300).for_each(|i| append(&mut memtable, series, i * 60_000, f64::NAN));
    let mut admit = |time, value| memtable.admit_old(series, time, Value::Float(value), bounds);
    assert_eq!(admit(0, 0.5), Admission::Repeated);
    assert_eq!(admit(0, 0.6), Admission::Rejected(NewValueForTimestamp));
    assert_eq!(admit(60_000, f64::NAN), Admission::Repeated, "by bits");
    assert_eq!(admit(299 * 60_000, f64::NAN), Admission::Repeated);
    assert_eq!(
        admit(298 * 60_000, 1.0),
        Admission::Rejected(NewValueForTimestamp)
    );
    assert_eq!(admit(60_001, 1.0), Admission::Rejected(OutOfOrder));
    assert_eq!(admit(-10, 1.0), Admission::Rejected(OutOfOrder));
    assert_eq!(admit(-11, 1.0), Admission::Rejected(OutOfBounds));
    // What a turn does not look for counts as not there; the open chunk is in memory.
    memtable.chunks.allow_lookups(1);
    let mut admit = |time, value| memtable.admit_old(series, time, Value::Float(value), bounds);
    assert_eq!(admit(0, 0.5), Admission::Repeated);
    assert_eq!(admit(0, 0.5), Admission::Rejected(OutOfOrder));
    assert_eq!(admit(299 * 60_000, f64::NAN), Admission::Repeated);

    // With a window, what is within it may come late; it is relative to the last sample of the series.
    memtable.chunks.allow_lookups(100);
    let hour = Bounds {
        window_ms: 3_600_000,
        ..bounds
    };
    let oldest = 239 * 60_000;
    let admit = |memtable: &mut Memtable, time, value, bounds| {
        memtable.admit_old(series, time, Value::Float(value), bounds)
    };
    let late = |memtable: &mut Memtable, time| admit(memtable, time, 1.0, hour);
    assert_eq!(late(&mut memtable, oldest + 1), Admission::Late);
    assert_eq!(late(&mut memtable, oldest - 1), Admission::Rejected(TooOld));
    let rejected = Admission::Rejected(NewValueForTimestamp);
    assert_eq!(late(&mut memtable, oldest), rejected, "it is there");
    assert_eq!(
        admit(&mut memtable, oldest, f64::NAN, hour),
        Admission::Repeated
    );
    let days = Bounds {
        window_ms: i64::MAX,
        ..bounds
    };
    assert_eq!(admit(&mut memtable, -10, 1.0, days), Admission::Late);
    let old = admit(&mut memtable, -11, 1.0, days);
    assert_eq!(old, Admission::Rejected(OutOfBounds));
    // In tight memory only a series that has late samples gets more.
    let tight = Bounds {
        tight: true,
        ..hour
    };
    let time = oldest + 1;
    let full = admit(&mut memtable, time, 1.0, tight);
    assert_eq!(full, Admission::Rejected(NoMemory));
    memtable.put_late(series, time, Value::Float(1.0));
    assert_eq!(admit(&mut memtable, time + 1, 1.0, tight), Admission::Late);
    // Late samples are compared with as others are, in the buffer and in chunks.
    for _ in 0..2 {
        assert_eq!(admit(&mut memtable, time, 1.0, hour), Admission::Repeated);
        assert_eq!(admit(&mut memtable, time, 2.0, hour), rejected);
        memtable.close_late(series, i64::MAX);
    }
    // Without a window too: they came when there was one.
    assert_eq!(admit(&mut memtable, time, 1.0, bounds), Admission::Repeated);
}

#[test]
fn limits_hold_for_the_node_not_for_the_core() {
    let quotas = Arc::new(Quotas::default());
    let mut cores: Vec<Memtable> = (0..2)
        .map(|seed| Memtable::new(quotas.clone(), seed, 120, HOUR))
        .collect();
    let tenant = TenantId::fake();
    let mut refused = Vec::new();
    for i in 0..6 {
        let core = &mut cores[i % 2];
        let set = labels(&[
            ("__name__", if i < 4 { "a" } else { "b" }),
            ("i", &i.to_string()),
        ]);
        let id = identity::series_id(&tenant, set.packed(), &mut Vec::new());
        let slot = core.tenant_slot(&tenant);
        let limits = SeriesLimits {
            per_user: 4,
            per_metric: 3,
        };
        if let Err(e) = core.create_series(slot, id, set.packed(), (0, 0.0), limits) {
            refused.push((i, e.reason, e.limit));
        }
    }
    let expected = [
        (3, RejectReason::PerMetricSeriesLimit, 3),
        (5, RejectReason::PerUserSeriesLimit, 4),
    ];
    assert_eq!(refused, expected);
    assert_eq!(cores[0].totals.series + cores[1].totals.series, 4);
}

fn collect_all(memtable: &mut Memtable, wall_ms: i64, segment: u32) {
    let mut round = memtable.begin_collection(wall_ms);
    while !memtable.collect(&mut round, segment, 0, 7) {}
}

#[test]
fn old_chunks_and_old_series_leave_and_numbers_come_back_with_another_generation() {
    let mut memtable = memtable();
    let long = create(
        &mut memtable,
        "a",
        &labels(&[("__name__", "long")]),
        (0, 0.0),
    );
    let gone = create(
        &mut memtable,
        "a",
        &labels(&[("__name__", "gone")]),
        (0, 0.0),
    );
    let other = create(
        &mut memtable,
        "b",
        &labels(&[("__name__", "gone")]),
        (0, 0.0),
    );
    (1..1800).for_each(|i| append(&mut memtable, long, i * 60_000, 1.0));
    let key = memtable.key(gone);
    // Just written, by the wall clock: it stays, although its sample is older than what is kept.
    let now = 1800 * 60_000;
    memtable.rows[gone].written_s = gc::seconds(now);
    collect_all(&mut memtable, now, 3);
    assert!(memtable.is_live(gone));
    assert_eq!(memtable.tenant(0).oldest, 0);
    collect_all(&mut memtable, now + 2 * HOUR, 4);
    assert!(memtable.is_live(long) && !memtable.is_live(gone) && memtable.is_live(other));
    let left = decode(&memtable.slices(long, i64::MIN, i64::MAX));
    let horizon = memtable.horizon(0, now);
    assert!(left[0].0 < horizon && left[0].0 > horizon - 2 * HOUR && left[0].0 > 0);
    assert_eq!(memtable.tenant(0).oldest, left[0].0);
    // Segment 4 may name it.
    memtable.reuse_numbers_before(4, 0);
    assert_eq!(
        create(
            &mut memtable,
            "a",
            &labels(&[("__name__", "x")]),
            (now, 0.0)
        ),
        3
    );
    memtable.reuse_numbers_before(5, 0);
    let again = create(
        &mut memtable,
        "a",
        &labels(&[("__name__", "gone")]),
        (now, 0.0),
    );
    assert_eq!(again, gone);
    assert_ne!(memtable.key(again), key);
}

#[test]
fn one_sample_of_the_far_future_does_not_make_all_else_old() {
    let mut memtable = memtable();
    let now = 1_800_000_000_000;
    let up = create(
        &mut memtable,
        "a",
        &labels(&[("__name__", "up")]),
        (now, 0.0),
    );
    create(
        &mut memtable,
        "a",
        &labels(&[("__name__", "mad")]),
        (i64::MAX - 1, 0.0),
    );
    collect_all(&mut memtable, now + 2 * HOUR, 1);
    assert!(memtable.is_live(up));
}

#[test]
fn a_tenant_without_series_leaves_and_can_come_back() {
    let mut memtable = memtable();
    create(&mut memtable, "a", &labels(&[("__name__", "up")]), (0, 0.0));
    create(
        &mut memtable,
        "a",
        &labels(&[("__name__", "up"), ("x", "y")]),
        (30 * HOUR, 0.0),
    );
    collect_all(&mut memtable, 31 * HOUR, 1);
    assert_eq!((memtable.tenant_count(), memtable.totals.series), (1, 1));
    // Everything is old once the tenant keeps less.
    memtable.tenant_mut(0).retention_ms = -HOUR;
    collect_all(&mut memtable, 40 * HOUR, 1);
    assert_eq!((memtable.tenant_count(), memtable.totals.series), (0, 0));
    assert_eq!(memtable.totals.sealed_bytes, 0);
    let again = create(&mut memtable, "a", &labels(&[("__name__", "up")]), (0, 0.0));
    assert_eq!(memtable.rows[again].tenant, 0);
}

#[test]
fn a_replayed_checkpoint_goes_on_in_the_same_chunk() {
    let mut before = memtable();
    let up = labels(&[("__name__", "up")]);
    let series = create(&mut before, "a", &up, (0, 0.0));
    (1..200).for_each(|i| append(&mut before, series, i * 1000, i as f64));
    let mut after = memtable();
    let tenant = TenantId::new("a").unwrap();
    let id = before.colds[series].id;
    let mut replay = replay::Replay::new(&mut after, replay::Keep::Own, 0);
    replay.series(7, 3, &tenant, id, up.packed()).unwrap();
    for chunk in before.slices(series, i64::MIN, i64::MAX) {
        replay
            .chunk(
                7,
                chunk.min_time,
                chunk.max_time,
                &chunk.bytes.read().unwrap(),
            )
            .unwrap();
    }
    replay.sample(7, 199_000, 77.0).unwrap(); // In the checkpoint already.
    replay.sample(7, 200_000, 200.0).unwrap();
    replay.sample(8, 1, 1.0).unwrap();
    assert_eq!((replay.samples, replay.orphans), (201, 1));
    replay.finish(1).unwrap();
    append(&mut before, series, 200_000, 200.0);
    let (a, b) = (
        before.slices(series, 0, i64::MAX),
        after.slices(7, 0, i64::MAX),
    );
    assert_eq!(a.len(), b.len());
    assert!(
        a.iter()
            .zip(&b)
            .all(|(a, b)| a.bytes.read().unwrap() == b.bytes.read().unwrap())
    );
    assert_eq!(after.key(7).generation.0, 3);
    // Numbers 0 to 6 are named by nothing we know of, but the segments before may name them.
    let other = create(&mut after, "a", &labels(&[("__name__", "x")]), (0, 0.0));
    assert_eq!(other, 8);
}

/// Story: a salvage that lost the chunks in order of a series, and not its late ones, left a checkpoint that no later start could read.
#[test]
fn late_chunks_of_a_series_that_a_salvage_left_without_others_do_not_refuse_the_start() {
    let (mut after, up) = (memtable(), labels(&[("__name__", "up")]));
    let tenant = TenantId::new("a").unwrap();
    let id = identity::series_id(&tenant, up.packed(), &mut Vec::new());
    let mut replay = replay::Replay::new(&mut after, replay::Keep::Own, 0);
    replay.series(7, 3, &tenant, id, up.packed()).unwrap();
    let chunk = wal::StoredChunkRecord {
        series: model::SeriesRef(7),
        first: model::TimeMs(0),
        last: model::TimeMs(9),
        count: 3 | LATE,
        file: 1,
        offset: 0,
        len: 40,
    };
    replay.stored_chunk(&chunk).unwrap();
    assert_eq!((replay.samples, replay.orphans), (0, 3));
    replay.finish(1).unwrap();
}
