//! The writer: the same promises in all three worlds, then what only the simulation can do: fail, fill up, and count operations.

use std::path::Path;

use model::{Lsn, SeriesRef};
use reactor::{Fault, IoMode, OpKind, Reactor, Sim, SimOptions, World};

use super::{Health, Log};
use crate::error::Error;
use crate::limits::{QUEUE_GROUPS_MAX, RELAXED_SYNC_MS};
use crate::options::Options;
use crate::testing::{Bench, DIR, options, read, segment};

/// Runs a test in every world there is here. A ring that was asked for must really have been used.
fn in_every_world(test: impl Fn(&dyn Fn() -> Reactor, &Path, bool)) {
    let sim = Sim::new(11);
    test(&|| Reactor::sim(&sim), Path::new(DIR), true);

    for io in [IoMode::Threads, IoMode::Uring] {
        let open = |io| {
            Reactor::open(&reactor::Options {
                io,
                ..Default::default()
            })
        };
        let mut first = match open(io) {
            Ok(reactor) => reactor,
            Err(reactor::Error::Uring { reason }) => {
                println!("skipped: io_uring is not usable here: {reason}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let wanted = if io == IoMode::Uring {
            World::Uring
        } else {
            World::Threads
        };
        assert_eq!(first.world(), wanted);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let probe = first.probe(dir.path());
        for direct in [false, true] {
            if direct && !probe.direct {
                println!("skipped: no O_DIRECT here: {:?}", probe.reason);
                continue;
            }
            let make = || {
                let reactor = open(io).expect("opened before");
                assert_eq!(reactor.world(), wanted);
                reactor
            };
            test(
                &make,
                &dir.path().join(format!("direct-{direct}/core-000")),
                direct,
            );
        }
    }
}

#[test]
fn what_is_durable_is_replayed_in_every_world() {
    in_every_world(|reactor, dir, direct| {
        let options = Options {
            direct,
            ..options()
        };
        let mut expected = Vec::new();
        for start in 0..3 {
            let mut bench = Bench::open(reactor(), dir, options.clone()).unwrap();
            assert_eq!(bench.replayed.values, expected, "start {start}");
            for value in start * 100..start * 100 + 20 {
                match value % 4 {
                    0 => bench.commit_relaxed(value),
                    1 => bench.append(value),
                    _ => bench.commit(value),
                }
                expected.push(value);
            }
            assert_eq!(bench.log.durable(), bench.log.tail());
            let stats = bench.log.stats();
            assert_eq!(
                (stats.commits, stats.commits_relaxed, stats.syncs),
                (15, 5, 5)
            );
            if bench.reactor.world() == World::Uring {
                assert!(bench.reactor.stats().enters > 0, "the ring was really used");
            }
        }
    });
}

#[test]
fn checkpoints_free_segments_and_recycle_their_files_in_every_world() {
    in_every_world(|reactor, dir, direct| {
        let options = Options {
            direct,
            ..options()
        };
        let mut bench = Bench::open(reactor(), dir, options.clone()).unwrap();
        let mut all = Vec::new();
        for round in 0..4u8 {
            for value in round * 10..round * 10 + 10 {
                bench.commit(u32::from(value));
                all.push(value);
            }
            bench.checkpoint(&all).unwrap();
        }
        bench.commit(99);
        bench.settle();
        assert!(bench.log.stats().segments_recycled > 0);
        assert!(
            bench.log.segment_count() <= 4,
            "{} segments are kept",
            bench.log.segment_count()
        );
        drop(bench);
        let outcome = read(&mut reactor(), dir, false).unwrap();
        let expected: Vec<u32> = all
            .iter()
            .map(|&value| u32::from(value))
            .chain([99])
            .collect();
        assert_eq!(outcome.values, expected);
        assert_eq!(outcome.replayed.checkpoints.len(), 2);
    });
}

#[test]
fn what_comes_while_a_write_is_in_flight_becomes_one_commit() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    bench.append(0);
    bench.log.submit(&mut bench.reactor, true);
    for value in 1..50 {
        bench.append(value);
        bench.log.submit(&mut bench.reactor, true);
    }
    let tail = bench.log.tail();
    bench.until(|log| log.durable() == tail);
    assert_eq!(bench.log.stats().commits, 2);
}

#[test]
fn replies_can_be_released_by_position_in_between() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    let empty = bench.log.tail();
    assert_eq!(
        (empty, bench.log.durable()),
        (Lsn(0), Lsn(0)),
        "nothing to wait for"
    );
    bench.append(1);
    let first = bench.log.tail();
    bench.log.submit(&mut bench.reactor, true);
    bench.append(2);
    let second = bench.log.tail();
    assert!(second > first && bench.log.durable() < first);
    bench.until(|log| log.durable() >= first);
    assert!(bench.log.durable() < second, "it is in the next commit");
    bench.until(|log| log.durable() >= second);
}

#[test]
fn a_full_group_makes_room_by_queueing_and_the_queue_is_bounded() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    let mut value = 0;
    let limit = QUEUE_GROUPS_MAX * options().group_bytes;
    for _ in 0..4 {
        while bench.log.admit(18).is_ok() {
            bench.append(value);
            value += 1;
            bench.log.submit(&mut bench.reactor, true);
        }
        // Either that much waits, or the files that are there are full.
        assert!(matches!(bench.log.admit(1), Err(Error::QueueFull { .. })));
        assert!(bench.log.queued_bytes() < limit + options().group_bytes);
        bench.until(|log| log.durable() == log.tail());
        bench.settle();
        bench.log.admit(1).unwrap();
    }
    assert!(
        bench.log.stats().segments > 1,
        "it went over several segments"
    );
    sim.crash();
    let replayed = Bench::sim(&sim).replayed.values;
    assert_eq!(replayed, (0..value).collect::<Vec<u32>>());
}

#[test]
fn a_record_larger_than_a_group_is_refused_with_nothing_written() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    let sealed = vec![0; options().group_bytes];
    let chunk = crate::ChunkRecord {
        series: SeriesRef(0),
        first: model::TimeMs(0),
        last: model::TimeMs(0),
        sealed: &sealed,
    };
    let tail = bench.log.tail();
    let refused = bench.log.append(&crate::Record::Chunk(chunk));
    assert!(
        matches!(refused, Err(Error::TooLarge { max: 8128, .. })),
        "{refused:?}"
    );
    assert_eq!(bench.log.tail(), tail);
    bench.commit(1);
}

#[test]
fn relaxed_commits_are_synced_after_a_second_or_before_a_durable_one() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    bench.commit_relaxed(1);
    bench.commit_relaxed(2);
    assert!(bench.log.durable() < bench.log.written());
    let before = bench.reactor.now();
    bench.until(|log| log.durable() == log.written());
    let passed = bench.reactor.now().since(before).as_millis() as u64;
    assert!(
        (RELAXED_SYNC_MS - 10..RELAXED_SYNC_MS + 100).contains(&passed),
        "{passed} ms"
    );
    assert_eq!(bench.log.stats().syncs, 1);

    bench.commit_relaxed(3);
    bench.commit(4);
    assert_eq!(bench.log.durable(), bench.log.tail());
    assert_eq!(bench.log.stats().syncs, 2);
    sim.crash();
    assert_eq!(Bench::sim(&sim).replayed.values, [1, 2, 3, 4]);
}

#[test]
fn asking_for_durability_of_what_is_written_relaxed_costs_a_sync_and_no_frame() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    bench.commit_relaxed(1);
    let commits = bench.log.stats().commits;
    bench.log.submit(&mut bench.reactor, true);
    bench.until(|log| log.durable() == log.tail());
    assert_eq!(
        (bench.log.stats().commits, bench.log.stats().syncs),
        (commits, 1)
    );
}

#[test]
fn relaxed_commits_survive_a_kill_and_may_be_lost_by_a_power_cut() {
    let mut lost = 0;
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let mut bench = Bench::sim(&sim);
        bench.commit_relaxed(1);
        drop(bench);
        sim.kill();
        let bench = Bench::sim(&sim);
        assert_eq!(bench.replayed.values, [1]);
        // What was found is durable now, although nothing was written since.
        drop(bench);
        sim.crash();
        let mut bench = Bench::sim(&sim);
        assert_eq!(bench.replayed.values, [1]);
        bench.commit_relaxed(2);
        drop(bench);
        sim.crash();
        lost += u32::from(Bench::sim(&sim).replayed.values == [1]);
    }
    assert!(
        lost > 0,
        "the power cut never lost anything: it cuts nothing"
    );
}

#[test]
fn a_failed_write_poisons_the_log_for_good() {
    for fault in [Fault::EIO, Fault::ENOSPC, Fault::Short { bytes: 4096 }] {
        let sim = Sim::new(1);
        let mut bench = Bench::sim(&sim);
        bench.commit(1);
        bench.settle();
        sim.fail_when(move |op| (op.kind == OpKind::Write && op.dsync).then_some(fault));
        bench.append(2);
        bench.log.submit(&mut bench.reactor, true);
        let error = bench.turn().unwrap_err();
        assert!(
            matches!(&error, Error::Poisoned { reason } if reason.contains("segment-0000000001"))
        );
        assert_eq!(error.class(), model::Class::Overload);
        sim.clear_faults();
        // The disk is good again, the log is not.
        assert!(matches!(bench.log.health(), Health::Poisoned(_)));
        assert!(matches!(bench.log.admit(1), Err(Error::Poisoned { .. })));
        let durable = bench.log.durable();
        bench.log.submit(&mut bench.reactor, true);
        assert_eq!(bench.reactor.in_flight(), 0, "nothing is written any more");
        assert_eq!(bench.log.durable(), durable);
        drop(bench);
        sim.crash();
        assert_eq!(Bench::sim(&sim).replayed.values[0], 1);
    }
}

#[test]
fn a_failed_sync_poisons_and_is_never_repeated() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    bench.commit_relaxed(1);
    bench.settle();
    sim.fail_when(|op| (op.kind == OpKind::Sync).then_some(Fault::EIO));
    bench.log.submit(&mut bench.reactor, true);
    assert!(bench.turn().is_err());
    sim.clear_faults();
    let ops = sim.ops();
    bench.log.submit(&mut bench.reactor, true);
    assert_eq!((bench.reactor.in_flight(), sim.ops()), (0, ops));
    assert!(bench.log.durable() < bench.log.written());
}

#[test]
fn a_full_disk_refuses_what_does_not_fit_and_recovers_by_itself() {
    let capacity = 3 * 6 * 4096;
    let sim = Sim::with(SimOptions {
        seed: 1,
        capacity,
        ..SimOptions::default()
    });
    let mut bench = Bench::sim(&sim);
    let mut value = 0;
    let refused = loop {
        match bench.log.admit(18) {
            Ok(()) => {
                bench.commit(value);
                bench.settle();
                value += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
    assert!(matches!(bench.log.health(), Health::NoSpace(reason) if reason.contains("No space")));
    assert!(
        value >= 8,
        "three segments were filled first, {value} commits"
    );
    assert_eq!(
        bench.log.durable(),
        bench.log.tail(),
        "nothing admitted waits for ever"
    );
    sim.set_capacity(u64::MAX);
    bench.until(|log| log.health() == Health::Good);
    bench.commit(value);
    sim.crash();
    assert_eq!(
        Bench::sim(&sim).replayed.values,
        (0..=value).collect::<Vec<u32>>()
    );
}

/// The disk is full when the next segment is asked for; then a checkpoint (there was room for that) retires segments that would do. Only a new
/// file was asked for again and again, so that writes were refused until somebody made room, beside files that waited for reuse.
#[test]
fn a_segment_retired_while_the_log_waits_for_space_is_taken() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    bench.commit(0);
    bench.settle();
    bench.checkpoint(&[0]).unwrap();
    bench.commit(1);
    bench.settle();
    sim.fail_when(|op| (op.kind == OpKind::Allocate).then_some(Fault::ENOSPC));
    // Into the segment that is ready; the one after it cannot be had.
    let mut value = 2;
    while bench.log.health() == Health::Good {
        bench.commit(value);
        value += 1;
        bench.settle();
    }
    let all: Vec<u8> = (0..value as u8).collect();
    bench.checkpoint(&all).unwrap();
    for _ in 0..3 {
        if bench.log.health() != Health::Good {
            bench.settle_after_a_timer();
        }
    }
    assert_eq!(bench.log.health(), Health::Good);
    bench.commit(value);
    sim.crash();
    assert_eq!(
        Bench::sim(&sim).replayed.values,
        (0..=value).collect::<Vec<u32>>()
    );
}

#[test]
fn a_log_opens_on_a_full_disk_and_waits_for_space() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    bench.commit(1);
    bench.settle();
    sim.kill();
    // Even the file made ahead is gone.
    Reactor::sim(&sim)
        .run(reactor::Op::Remove { path: segment(2) })
        .unwrap();
    sim.set_capacity(sim.used());
    let mut bench = Bench::sim(&sim);
    assert_eq!(bench.replayed.values, [1], "it can be read");
    assert!(matches!(bench.log.health(), Health::NoSpace(_)));
    assert!(matches!(bench.log.admit(1), Err(Error::NoSpace { .. })));
    sim.set_capacity(u64::MAX);
    bench.until(|log| log.health() == Health::Good);
    bench.commit(2);
}

/// A fresh log, as after every start that finds no file to recycle, has one small segment, and the second is made when the first is begun. A
/// batch that might be larger than the first (12,000 new series in one body are) was told to wait for the second: for ever, and all
/// batches behind it too.
#[test]
fn a_batch_larger_than_an_untouched_segment_is_not_told_to_wait_for_ever() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    let segment = options().segment_bytes as usize;
    bench.log.admit(4 * segment).expect("a fresh log");
    bench.commit(1);
    bench.settle();
    // The same behind a checkpoint, which turns to the next segment.
    bench.checkpoint(&[1]).unwrap();
    bench.settle();
    bench.log.admit(4 * segment).expect("behind a checkpoint");
    // What was admitted becomes durable.
    let before = bench.log.tail().0;
    let mut value = 2;
    while bench.log.tail().0 - before < 4 * segment as u64 {
        bench.append(value);
        value += 1;
    }
    bench.log.submit(&mut bench.reactor, true);
    bench.until(|log| log.durable() == log.tail());
    sim.crash();
    assert_eq!(
        Bench::sim(&sim).replayed.values,
        (1..value).collect::<Vec<u32>>()
    );
}

#[test]
fn the_next_segment_is_ready_before_this_one_is_full() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    for value in 0..40 {
        bench.commit(value);
        bench.settle();
    }
    let stats = bench.log.stats();
    assert!(stats.segments >= 8);
    assert_eq!(stats.space_waits, 0);
}

#[test]
fn segments_grow_from_small_to_large() {
    let sim = Sim::new(1);
    let grow = Options {
        segment_bytes: 20 * 4096,
        segment_bytes_first: 4 * 4096,
        ..options()
    };
    let mut bench = Bench::open(Reactor::sim(&sim), Path::new(DIR), grow).unwrap();
    for value in 0..60 {
        bench.commit(value);
        bench.settle();
    }
    let length = |sequence| sim.live(segment(sequence)).unwrap().len() / 4096;
    assert_eq!([1, 2, 3, 4, 5].map(length), [4, 8, 16, 20, 20]);
    sim.crash();
    assert_eq!(Bench::sim(&sim).replayed.values.len(), 60);
}

#[test]
fn a_failed_checkpoint_is_abandoned_and_the_log_goes_on() {
    for (kind, fault) in [
        (OpKind::Truncate, Fault::EIO),
        (OpKind::Sync, Fault::EIO),
        (OpKind::Rename, Fault::EIO),
    ] {
        let sim = Sim::new(1);
        let mut bench = Bench::sim(&sim);
        bench.commit(1);
        bench.settle();
        sim.fail_when(move |op| (op.kind == kind).then_some(fault));
        let failed = bench.checkpoint(&[1]);
        assert!(matches!(failed, Err(Error::Io(_))), "{kind:?}: {failed:?}");
        sim.clear_faults();
        assert_eq!(bench.log.health(), Health::Good);
        bench.settle();
        bench.commit(2);
        bench.checkpoint(&[1, 2]).expect("the next one succeeds");
        bench.commit(3);
        sim.crash();
        assert_eq!(Bench::sim(&sim).replayed.values, [1, 2, 3], "{kind:?}");
    }
}

/// What a failed checkpoint had written stood in its unfinished file until the next start: on a full disk, where checkpoints fail, each attempt took
/// more of the space that the log needs for its next segment.
#[test]
fn a_failed_checkpoint_gives_its_space_back() {
    for kind in [
        OpKind::Open,
        OpKind::Truncate,
        OpKind::Write,
        OpKind::Sync,
        OpKind::Close,
        OpKind::Rename,
    ] {
        let sim = Sim::new(1);
        let mut bench = Bench::sim(&sim);
        bench.commit(1);
        bench.settle();
        let (used, unfinished) = (
            sim.used(),
            crate::names::checkpoint_unfinished(Path::new(DIR), 2),
        );
        sim.fail_when(move |op| (op.kind == kind).then_some(Fault::ENOSPC));
        let failed = bench.checkpoint(&[1]);
        assert!(
            matches!(&failed, Err(Error::Io(failure)) if failure.op == kind),
            "{failed:?}"
        );
        assert_eq!(sim.live(unfinished), None, "{kind:?}");
        assert_eq!(sim.used(), used, "{kind:?}");
        sim.clear_faults();
        bench.checkpoint(&[1]).expect("the next one succeeds");
    }
}

/// The directory is the log's too: the sync that failed may have lost the name of a segment. Found by the simulation of `shard`: a commit
/// acknowledged later stood in a segment that was not there after the power cut.
#[test]
fn a_checkpoint_whose_directory_cannot_be_synced_poisons_the_log() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    bench.commit(1);
    bench.settle();
    sim.fail_when(|op| (op.kind == OpKind::SyncDir).then_some(Fault::EIO));
    assert!(bench.checkpoint(&[1]).is_err());
    assert!(matches!(bench.log.health(), Health::Poisoned(_)));
    assert!(matches!(bench.log.admit(1), Err(Error::Poisoned { .. })));
    sim.clear_faults();
    sim.crash();
    assert_eq!(Bench::sim(&sim).replayed.values, [1]);
}

#[test]
fn a_checkpoint_is_published_only_when_all_before_it_is_durable() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    bench.commit(1);
    bench.settle();
    // Several segments full, of which nothing is submitted when the checkpoint begins: it is written long before they are.
    (2..10_000).for_each(|value| bench.append(value));
    let boundary = bench.log.tail();
    let started = sim.ops();
    bench.checkpoint(&[1]).unwrap();
    assert!(
        bench.log.durable() >= boundary,
        "published at {:?}",
        bench.log.durable()
    );
    assert!(
        sim.ops() - started > 30,
        "the log had more to do than the checkpoint"
    );
}

#[test]
fn a_checkpoint_of_many_groups_comes_back_whole() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    let mut writer = bench.log.begin_checkpoint(&mut bench.reactor);
    let values = [7u8; 1000];
    let chunk = crate::ChunkRecord {
        series: SeriesRef(3),
        first: model::TimeMs(0),
        last: model::TimeMs(1),
        sealed: &values,
    };
    let mut left = 100;
    let mut slices = 0;
    loop {
        while left > 0 && writer.is_ready() {
            writer
                .append(&mut bench.reactor, &crate::Record::Chunk(chunk))
                .unwrap();
            left -= 1;
            if left == 0 {
                writer.finish(&mut bench.reactor).unwrap();
            }
        }
        slices += 1;
        let mut events = Vec::new();
        bench.reactor.wait(None, &mut events);
        let mut done = false;
        for event in events {
            if bench.log.owns(&event) {
                bench.log.on_event(&mut bench.reactor, event).unwrap();
            } else {
                let state = writer
                    .on_event(&mut bench.reactor, &mut bench.log, event)
                    .unwrap();
                done |= matches!(state, crate::CheckpointState::Done { chunks: 100, .. });
            }
        }
        if done {
            break;
        }
    }
    assert!(slices > 10, "it was written in slices");
    sim.crash();
    assert_eq!(Bench::sim(&sim).replayed.values.len(), 100_000);
}

#[test]
fn the_tail_of_a_log_is_the_sum_of_its_records_over_restarts() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    bench.commit(1);
    let tail = bench.log.tail();
    assert_eq!(tail, Lsn(18));
    drop(bench);
    sim.crash();
    let mut bench = Bench::sim(&sim);
    assert_eq!((bench.log.tail(), bench.log.durable()), (tail, tail));
    bench.commit(2);
    assert_eq!(bench.log.tail(), Lsn(36));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "base of series 0")]
fn a_wrong_base_is_caught_in_debug_builds() {
    let sim = Sim::new(1);
    let mut bench = Bench::sim(&sim);
    bench.append(1);
    bench.log.reserve_sample();
    bench.log.sample(SeriesRef(0), 2, 3.0, Some(2.0));
}

/// What makes a log a `Log` and not a handle: it can be handed to the core's thread.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Log>();
};
