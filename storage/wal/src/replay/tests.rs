//! Clean end, tear or corruption: the cases of the table in `docs/formats/wal.md`, each made on a simulated disk.

use std::path::Path;

use reactor::{Buffer, Fault, Op, OpKind, OpenMode, Reactor, Sim};

use crate::error::Error;
use crate::testing::{Bench, DIR, Outcome, checkpoint, read, segment};

const BLOCK: u64 = 4096;
/// Bytes of a record with one sample, which is a small whole number; one less if it is zero.
const FRAME_RECORDS: u64 = 4 + 12 + 2;

/// A machine on which these values were committed, one frame each; four fit into a segment.
fn committed(count: u32) -> Sim {
    let sim = Sim::new(7);
    let mut bench = Bench::sim(&sim);
    (0..count).for_each(|value| bench.commit(value));
    bench.settle();
    sim.kill();
    sim
}

fn replayed(sim: &Sim) -> Outcome {
    read(&mut Reactor::sim(sim), Path::new(DIR), false).expect("replays")
}

fn salvaged(sim: &Sim) -> Outcome {
    read(&mut Reactor::sim(sim), Path::new(DIR), true).expect("salvages")
}

/// File name and offset of the corruption a replay finds.
fn corruption(sim: &Sim) -> (String, u64) {
    match read(&mut Reactor::sim(sim), Path::new(DIR), false) {
        Err(Error::Corrupt { path, offset, .. }) => (
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            offset,
        ),
        other => panic!("{other:?}"),
    }
}

/// Writes bytes into a file, as nobody should.
fn overwrite(sim: &Sim, path: &Path, offset: u64, bytes: &[u8]) {
    let mut reactor = Reactor::sim(sim);
    let mode = OpenMode {
        write: true,
        ..OpenMode::read_only()
    };
    let file = reactor
        .run(Op::Open {
            path: path.to_owned(),
            mode,
        })
        .unwrap()
        .file();
    let mut buf = Buffer::new(bytes.len());
    buf[..bytes.len()].copy_from_slice(bytes);
    let len = bytes.len();
    reactor
        .run(Op::Write {
            file,
            offset,
            buf,
            len,
            dsync: true,
        })
        .unwrap();
}

fn range(count: u32) -> Vec<u32> {
    (0..count).collect()
}

#[test]
fn an_empty_directory_is_a_new_log() {
    let outcome = replayed(&Sim::new(0));
    assert!(outcome.replayed.is_new());
    assert_eq!(
        (outcome.replayed.next_commit, outcome.replayed.next_sequence),
        (1, 1)
    );
}

#[test]
fn all_commits_come_back_in_order_over_several_segments() {
    let outcome = replayed(&committed(11));
    assert_eq!(outcome.values, range(11));
    assert_eq!(outcome.replayed.commits, 11);
    assert_eq!(outcome.replayed.tear_count, 0);
    assert_eq!(outcome.replayed.next_commit, 12);
    assert!(outcome.replayed.next_sequence > 3);
}

#[test]
fn every_bit_flip_in_the_last_commit_is_a_tear_that_drops_it_alone_or_changes_nothing() {
    let sim = committed(3);
    let path = segment(1);
    let content = sim.live(&path).unwrap();
    let (frame, end) = (3 * BLOCK, 3 * BLOCK + 64 + FRAME_RECORDS);
    for offset in frame..end {
        for bit in 0..8 {
            sim.flip(&path, offset, 1 << bit);
            let outcome = replayed(&sim);
            assert_eq!(outcome.values, range(2), "byte {offset} bit {bit}");
            assert_eq!(outcome.replayed.tear_count, 1);
            let tear = &outcome.replayed.tears[0];
            assert_eq!(
                (tear.path.as_path(), tear.offset, tear.commit),
                (path.as_path(), frame, 3)
            );
            sim.flip(&path, offset, 1 << bit);
        }
    }
    // Padding, and what was there before.
    for offset in end..content.len() as u64 {
        sim.flip(&path, offset, 1);
        assert_eq!(replayed(&sim).values, range(3), "byte {offset}");
        sim.flip(&path, offset, 1);
    }
}

#[test]
fn every_bit_flip_before_the_last_commit_is_corruption_naming_file_and_offset_or_changes_nothing() {
    let sim = committed(3);
    let path = segment(1);
    for offset in 0..3 * BLOCK {
        let (frame, within) = (offset / BLOCK * BLOCK, offset % BLOCK);
        sim.flip(&path, offset, 1 << (offset % 8));
        if frame == 0 {
            assert_eq!(
                corruption(&sim),
                ("segment-0000000001".to_owned(), 0),
                "byte {offset}"
            );
        } else if within < 64 + FRAME_RECORDS - u64::from(frame == BLOCK) {
            assert_eq!(
                corruption(&sim),
                ("segment-0000000001".to_owned(), frame),
                "byte {offset}"
            );
        } else {
            assert_eq!(replayed(&sim).values, range(3), "byte {offset}");
        }
        sim.flip(&path, offset, 1 << (offset % 8));
    }
}

#[test]
fn damage_in_an_older_segment_is_corruption_at_its_place() {
    let sim = committed(9);
    sim.flip(segment(1), 3 * BLOCK + 70, 1);
    assert_eq!(
        corruption(&sim),
        ("segment-0000000001".to_owned(), 3 * BLOCK)
    );
    let outcome = salvaged(&sim);
    assert_eq!(outcome.values, [0, 1, 4, 5, 6, 7, 8]);
    let salvage = &outcome.replayed.salvaged[0];
    assert_eq!((salvage.offset, salvage.commits), (3 * BLOCK, Some(2)));
}

#[test]
fn a_missing_segment_is_corruption_and_salvage_goes_on_behind_it() {
    let sim = committed(12);
    Reactor::sim(&sim)
        .run(Op::Remove { path: segment(2) })
        .unwrap();
    // Said to be where its first commit should have followed.
    assert_eq!(
        corruption(&sim),
        ("segment-0000000001".to_owned(), 5 * BLOCK)
    );
    let outcome = salvaged(&sim);
    assert_eq!(outcome.values, [0, 1, 2, 3, 8, 9, 10, 11]);
    assert_eq!(outcome.replayed.salvaged[0].commits, Some(4));
}

#[test]
fn salvage_of_the_last_segment_drops_its_rest_and_the_log_goes_on_there() {
    let sim = committed(4);
    sim.flip(segment(1), 2 * BLOCK + 66, 4);
    assert_eq!(corruption(&sim).1, 2 * BLOCK);
    let outcome = salvaged(&sim);
    assert_eq!(outcome.values, [0]);
    assert_eq!(outcome.replayed.salvaged[0].commits, None);
    let mut reactor = Reactor::sim(&sim);
    let log = crate::Log::open(
        &mut reactor,
        Path::new(DIR),
        crate::testing::options(),
        &outcome.replayed,
    );
    let mut bench = Bench {
        reactor,
        log: log.unwrap(),
        replayed: outcome,
    };
    bench.commit(100);
    sim.kill();
    // The new segment says where the damaged one ended, so nobody has to salvage again.
    assert_eq!(replayed(&sim).values, [0, 100]);
}

#[test]
fn an_old_tear_never_looks_like_corruption() {
    let sim = committed(3);
    sim.flip(segment(1), 3 * BLOCK + 66, 1);
    let mut bench = Bench::sim(&sim);
    assert_eq!(bench.replayed.replayed.tear_count, 1);
    bench.commit(100);
    bench.commit(101);
    sim.kill();
    let outcome = replayed(&sim);
    assert_eq!(outcome.values, [0, 1, 100, 101]);
    assert_eq!(outcome.replayed.tear_count, 0, "it is not looked at again");
    // Should the dropped frame turn out readable later, it is void all the same.
    sim.flip(segment(1), 3 * BLOCK + 66, 1);
    assert_eq!(replayed(&sim).values, [0, 1, 100, 101]);
    // Damage before the tear is still corruption.
    sim.flip(segment(1), 2 * BLOCK + 66, 1);
    assert_eq!(corruption(&sim).1, 2 * BLOCK);
}

#[test]
fn a_restart_whose_first_write_is_torn_sees_the_same_end_again() {
    for sectors in [vec![0u64], vec![1], (0..8).collect(), (8..16).collect()] {
        let sim = committed(3);
        let mut bench = Bench::sim(&sim);
        bench.commit(100);
        bench.settle();
        sim.kill();
        // Take some sectors of header and frame back to what they were: zeros.
        let last = (2..9)
            .rev()
            .find(|&s| sim.live(segment(s)).is_some_and(|c| c[0..8] != [0; 8]));
        let path = segment(last.expect("begun"));
        for sector in &sectors {
            overwrite(&sim, &path, sector * 512, &[0; 512]);
        }
        // Sectors that are zeros anyway were not lost.
        let lost = sectors.iter().any(|sector| [0, 8].contains(sector));
        let outcome = replayed(&sim);
        assert_eq!(
            outcome.values,
            if lost {
                vec![0, 1, 2]
            } else {
                vec![0, 1, 2, 100]
            },
            "{sectors:?}"
        );
        let mut bench = Bench::sim(&sim);
        bench.commit(101);
        sim.kill();
        assert_eq!(*replayed(&sim).values.last().unwrap(), 101);
    }
}

#[test]
fn garbage_and_frames_of_a_former_life_are_never_taken_for_current() {
    let sim = committed(3);
    let old = sim.live(segment(1)).unwrap();
    // The next file in line holds the old segment's content, as after recycling; and the place behind the last frame an old frame.
    let next = segment(2);
    assert!(sim.live(&next).is_some(), "made ahead");
    overwrite(&sim, &next, 0, &old);
    let outcome = replayed(&sim);
    assert_eq!((outcome.values, outcome.replayed.tear_count), (range(3), 0));
    overwrite(
        &sim,
        &segment(1),
        4 * BLOCK,
        &old[BLOCK as usize..2 * BLOCK as usize],
    );
    let outcome = replayed(&sim);
    assert_eq!(
        outcome.values,
        range(3),
        "a whole frame of the same segment, but not the one due"
    );
    overwrite(&sim, &segment(1), 4 * BLOCK, &[0xa5; 4096]);
    let outcome = replayed(&sim);
    assert_eq!((outcome.values, outcome.replayed.tear_count), (range(3), 0));
}

#[test]
fn relaxed_frames_behind_a_lost_one_are_dropped_and_stay_dropped() {
    let sim = Sim::new(3);
    let mut bench = Bench::sim(&sim);
    bench.commit(0);
    (1..4).for_each(|value| bench.commit_relaxed(value));
    assert!(bench.log.durable() < bench.log.written());
    sim.kill();
    // The first relaxed one is lost, the others survive.
    sim.flip(segment(1), 2 * BLOCK + 66, 1);
    let outcome = replayed(&sim);
    assert_eq!((outcome.values, outcome.replayed.tear_count), (vec![0], 1));
    let mut bench = Bench::sim(&sim);
    bench.commit(100);
    sim.kill();
    assert_eq!(replayed(&sim).values, [0, 100]);
}

#[test]
fn a_lost_relaxed_frame_that_a_durable_commit_covers_is_corruption() {
    let sim = Sim::new(3);
    let mut bench = Bench::sim(&sim);
    bench.commit(0);
    bench.commit_relaxed(1);
    bench.commit(2);
    sim.kill();
    sim.flip(segment(1), 2 * BLOCK + 66, 1);
    assert_eq!(corruption(&sim).1, 2 * BLOCK);
}

#[test]
fn a_write_that_landed_elsewhere_is_corruption_once_another_followed() {
    for by in [-(BLOCK as i64), BLOCK as i64, 2 * BLOCK as i64] {
        let sim = Sim::new(3);
        let mut bench = Bench::sim(&sim);
        bench.commit(0);
        bench.settle();
        let third = 2 * BLOCK;
        sim.fail_when(move |op| {
            let hit = op.kind == OpKind::Write && op.dsync && op.offset == Some(third);
            hit.then_some(Fault::Misdirect { by })
        });
        bench.commit(1);
        sim.clear_faults();
        bench.commit(2);
        sim.kill();
        // Too early it has replaced the first commit, too late it left a hole.
        let place = if by < 0 { BLOCK } else { 2 * BLOCK };
        assert_eq!(
            corruption(&sim),
            ("segment-0000000001".to_owned(), place),
            "by {by}"
        );
    }
}

#[test]
fn the_log_of_another_core_and_a_later_version_are_refused() {
    let sim = committed(1);
    let options = crate::ReplayOptions {
        core: 4,
        salvage: true,
    };
    let result = crate::replay(
        &mut Reactor::sim(&sim),
        Path::new(DIR),
        &options,
        &mut |_, _| Ok(()),
        &mut |_, _| Ok(()),
    );
    assert!(
        matches!(
            result,
            Err(Error::Foreign {
                found: 0,
                expected: 4,
                ..
            })
        ),
        "{result:?}"
    );

    let mut block = sim.live(segment(1)).unwrap()[..BLOCK as usize].to_vec();
    block[16] = 5;
    let checksum = xxhash_rust::xxh3::xxh3_64(&block[8..]);
    block[..8].copy_from_slice(&checksum.to_le_bytes());
    overwrite(&sim, &segment(1), 0, &block);
    let result = read(&mut Reactor::sim(&sim), Path::new(DIR), true);
    assert!(
        matches!(result, Err(Error::Version { version: 5, .. })),
        "{result:?}"
    );
}

#[test]
fn a_refusal_of_the_sink_ends_the_replay_with_its_words() {
    let sim = committed(2);
    let result = crate::replay(
        &mut Reactor::sim(&sim),
        Path::new(DIR),
        &crate::ReplayOptions::default(),
        &mut |_, _| Err("unknown series".into()),
        &mut |_, _| Ok(()),
    );
    let text = result.unwrap_err().to_string();
    assert!(
        text.contains("segment-0000000001 at offset 4096: unknown series"),
        "{text}"
    );
}

#[test]
fn a_read_error_is_told_not_taken_for_a_tear() {
    let sim = committed(3);
    sim.fail_when(|op| (op.kind == OpKind::Read && op.offset == Some(0)).then_some(Fault::EIO));
    let result = read(&mut Reactor::sim(&sim), Path::new(DIR), true);
    assert!(matches!(result, Err(Error::Io(_))), "{result:?}");
}

#[test]
fn replay_begins_with_the_newest_checkpoint_and_falls_back_to_the_one_before() {
    let sim = Sim::new(5);
    let mut bench = Bench::sim(&sim);
    bench.commit(0);
    bench.checkpoint(&[0]).unwrap();
    bench.commit(1);
    bench.checkpoint(&[0, 1]).unwrap();
    bench.commit(2);
    bench.settle();
    sim.kill();
    let outcome = replayed(&sim);
    assert_eq!(outcome.values, [0, 1, 2]);
    assert_eq!(
        (outcome.replayed.checkpoint, outcome.replayed.commits),
        (Some(3), 1)
    );
    // No segment before the older checkpoint is needed.
    assert_eq!(outcome.replayed.segments.first().unwrap().0, 2);

    let whole = sim.live(checkpoint(3)).unwrap();
    for offset in (0..whole.len() as u64).step_by(13) {
        sim.flip(checkpoint(3), offset, 2);
        let outcome = replayed(&sim);
        assert_eq!(outcome.values, [0, 1, 2], "byte {offset}");
        let damaged = outcome.replayed.checkpoint == Some(2);
        assert_eq!(
            outcome.replayed.damaged_checkpoints.len(),
            usize::from(damaged)
        );
        assert_eq!(damaged, offset < 4096 + 64 + 79, "byte {offset}");
        sim.flip(checkpoint(3), offset, 2);
    }

    // Both damaged: the segments before are gone, so this is corruption.
    sim.flip(checkpoint(3), 100, 1);
    sim.flip(checkpoint(2), 100, 1);
    assert_eq!(corruption(&sim).0, "segment-0000000002");
    assert_eq!(salvaged(&sim).values, [1, 2]);
}

#[test]
fn a_damaged_checkpoint_is_replaced_by_the_next_one() {
    let sim = Sim::new(5);
    let mut bench = Bench::sim(&sim);
    bench.commit(0);
    bench.checkpoint(&[0]).unwrap();
    bench.settle();
    sim.kill();
    sim.flip(checkpoint(2), 5000, 1);
    sim.flip(checkpoint(2), 4100, 1);
    let mut bench = Bench::sim(&sim);
    assert_eq!(bench.replayed.values, [0], "the whole log is still there");
    bench.checkpoint(&[0]).unwrap();
    bench.settle();
    sim.kill();
    let outcome = replayed(&sim);
    assert_eq!(outcome.values, [0]);
    assert!(outcome.replayed.damaged_checkpoints.is_empty());
    assert!(outcome.replayed.checkpoint.is_some());
}

#[test]
fn arbitrary_segments_and_checkpoints_never_make_replay_panic() {
    // Sound headers around arbitrary content, so that the bytes are reached.
    let template = committed(2);
    let segment_bytes = template.live(segment(1)).unwrap();
    bolero::check!()
        .with_iterations(200)
        .for_each(|bytes: &[u8]| {
            let sim = committed(1);
            let mut content = segment_bytes.clone();
            let at = bytes
                .first()
                .map_or(0, |&byte| usize::from(byte) * 97 % content.len());
            for (slot, byte) in content[at..].iter_mut().zip(bytes) {
                *slot ^= byte;
            }
            overwrite(&sim, &segment(1), 0, &content);
            let _ = read(&mut Reactor::sim(&sim), Path::new(DIR), false);
            let _ = read(&mut Reactor::sim(&sim), Path::new(DIR), true);
        });
}

/// Story: segments are made ahead of what they will hold, and a replay of a few commits in a file of 64 MiB was at 0 % to its end.
#[test]
fn progress_is_told_in_bytes_that_hold_records_and_ends_with_all_of_them() {
    let sim = Sim::new(5);
    let mut bench = Bench::sim(&sim);
    (0..5).for_each(|value| bench.commit(value));
    bench.checkpoint(&[0]).unwrap();
    (5..12).for_each(|value| bench.commit(value));
    bench.settle();
    sim.kill();
    let mut told = Vec::new();
    let replayed = crate::replay(
        &mut Reactor::sim(&sim),
        Path::new(DIR),
        &crate::ReplayOptions::default(),
        &mut |_, _| Ok(()),
        &mut |_, progress| {
            told.push((progress.bytes_done, progress.bytes_total));
            Ok(())
        },
    );
    let replayed = replayed.unwrap();
    let file = sim.live(checkpoint(replayed.checkpoint.unwrap())).unwrap();
    let total = file.len() as u64 + 7 * FRAME_RECORDS;
    assert!(told.iter().all(|&(_, of)| of == total), "{told:?} {total}");
    assert!(told.is_sorted(), "{told:?}");
    assert_eq!(told.last(), Some(&(total, total)));
    assert_eq!(
        told.len(),
        8,
        "a frame of the checkpoint and seven of the log"
    );
}
