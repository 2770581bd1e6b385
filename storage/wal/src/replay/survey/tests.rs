//! What a survey says of whole logs, of damaged ones, and of one that is being written.

use std::path::Path;

use reactor::{Op, OpenMode, Reactor, Sim};

use super::*;
use crate::testing::{Bench, DIR, checkpoint, read, segment};

const BLOCK: u64 = 4096;

/// Two checkpoints, a segment between them, one behind them that ends with three commits, one that is prepared.
fn log() -> Sim {
    let sim = Sim::new(5);
    let mut bench = Bench::sim(&sim);
    bench.commit(1);
    bench.checkpoint(&[1]).unwrap();
    bench.commit(2);
    bench.commit(3);
    bench.checkpoint(&[1, 2, 3]).unwrap();
    (4..7).for_each(|value| bench.commit(value));
    bench.settle();
    sim.kill();
    sim
}

/// The survey, and the values shown by place.
fn surveyed(sim: &Sim) -> (Surveyed, Vec<(Place, u32)>) {
    let mut values = Vec::new();
    let mut see = |record: &Record<'_>, place: Place| match record {
        Record::Samples(samples) => values.extend(samples.iter().map(|s| (place, s.value as u32))),
        Record::Chunk(chunk) => {
            values.extend(chunk.sealed.iter().map(|&byte| (place, u32::from(byte))));
        }
        _ => {}
    };
    let surveyed = survey(&mut Reactor::sim(sim), Path::new(DIR), 0, &mut see);
    (surveyed.expect("it can be read"), values)
}

#[test]
fn each_file_is_told_and_each_record_shown_once() {
    let sim = log();
    let (seen, values) = surveyed(&sim);
    assert!(seen.flaws.is_empty(), "{:?}", seen.flaws);
    let (first, second) = (Place::Checkpoint(2), Place::Checkpoint(3));
    let (kept, last) = (Place::Segment(2), Place::Segment(3));
    let expected = [
        vec![(first, 1), (second, 1), (second, 2), (second, 3)],
        vec![(kept, 2), (kept, 3)],
        vec![(last, 4), (last, 5), (last, 6)],
    ];
    assert_eq!(values, expected.concat());
    let uses: Vec<_> = seen
        .checkpoints
        .iter()
        .map(|c| (c.number, c.usage))
        .collect();
    assert_eq!(uses, [(2, Use::Kept), (3, Use::Read)]);
    let uses: Vec<_> = seen.segments.iter().map(|s| (s.number, s.usage)).collect();
    let expected = [(2, Use::Kept), (3, Use::Read), (4, Use::Prepared)];
    assert_eq!(uses, expected);
    let read = seen.segments[1].read.clone().expect("it was read");
    assert_eq!((read.commits, read.bytes), (4..7, 4 * BLOCK));
    assert_eq!(seen.segments[0].read.as_ref().unwrap().commits, 2..4);
    assert_eq!(read.positions.end, seen.start.next_lsn);
    assert_eq!(seen.checkpoints[1].before, Some((4, read.positions.start)));
}

/// Whatever a bit makes of a log: a survey names the damage that a start would name, and what a start would not see of it.
#[test]
fn every_bit_flip_is_named_with_file_and_offset_or_changes_nothing() {
    let sim = log();
    let (mut refused, mut passed, mut torn) = (0, 0, 0);
    for path in [checkpoint(2), checkpoint(3), segment(2), segment(3)] {
        let content = sim.live(&path).unwrap();
        for offset in (0..content.len() as u64).filter(|offset| offset % BLOCK < 100) {
            sim.flip(&path, offset, 1 << (offset % 8));
            let (seen, values) = surveyed(&sim);
            let start = read(&mut Reactor::sim(&sim), Path::new(DIR), false);
            let refusal = seen.flaws.iter().find(|flaw| flaw.refuses);
            match (&start, refusal) {
                (Err(start), Some(flaw)) => {
                    assert_eq!(start.to_string(), flaw.error.to_string());
                    refused += 1;
                }
                (Ok(_), None) => {}
                other => panic!("{} at {offset}: {other:?}", path.display()),
            }
            let at = offset / BLOCK * BLOCK;
            match &seen.flaws[..] {
                [] if seen.start.tear_count > 0 => {
                    assert_eq!((path.clone(), at), (segment(3), 3 * BLOCK));
                    torn += 1;
                }
                // What is behind the records of a frame is never read.
                [] => assert_eq!(values.len(), 9, "{} at {offset}", path.display()),
                [flaw] => {
                    let Error::Corrupt {
                        path: named,
                        offset: place,
                        ..
                    } = &flaw.error
                    else {
                        panic!("{flaw:?}")
                    };
                    assert_eq!((named, *place), (&path, at));
                    passed += u32::from(!flaw.refuses);
                }
                more => panic!("{more:?}"),
            }
            sim.flip(&path, offset, 1 << (offset % 8));
        }
    }
    assert!(
        refused > 100 && passed > 300 && torn > 50,
        "{refused} {passed} {torn}"
    );
}

fn truncate(sim: &Sim, path: &Path, len: u64) {
    let mut reactor = Reactor::sim(sim);
    let mode = OpenMode {
        write: true,
        ..OpenMode::read_only()
    };
    let path = path.to_owned();
    let file = reactor.run(Op::Open { path, mode }).unwrap().file();
    reactor.run(Op::Truncate { file, len }).unwrap();
}

#[test]
fn a_segment_that_was_cut_short_is_damage_where_something_says_that_there_was_more() {
    for (number, len, refuses) in [
        (2, 2 * BLOCK, Some(false)),
        (2, 0, Some(false)),
        (3, 3 * BLOCK, None),
        (3, 3 * BLOCK + 5, Some(false)),
    ] {
        let sim = log();
        truncate(&sim, &segment(number), len);
        let (seen, _) = surveyed(&sim);
        let flaw = seen.flaws.first();
        assert_eq!(flaw.map(|flaw| flaw.refuses), refuses, "{number} {len}");
        if let Some(flaw) = flaw {
            let text = flaw.error.to_string();
            assert!(text.contains(&format!("segment-{number:010}")), "{text}");
            assert!(text.contains(&format!("at offset {len}")), "{text}");
        }
    }
    // Nothing behind the checkpoint says so, but the checkpoint does.
    let sim = Sim::new(5);
    let mut bench = Bench::sim(&sim);
    (1..4).for_each(|value| bench.commit(value));
    bench.checkpoint(&[1, 2, 3]).unwrap();
    bench.settle();
    sim.kill();
    assert!(surveyed(&sim).0.flaws.is_empty());
    truncate(&sim, &segment(1), 3 * BLOCK);
    let (seen, _) = surveyed(&sim);
    let text = seen.flaws[0].error.to_string();
    assert!(
        text.contains("corrupt at offset 12288: commit 3 is missing"),
        "{text}"
    );
}

#[test]
fn what_is_written_while_a_log_is_read_is_no_damage() {
    let sim = log();
    let mut bench = Bench::sim(&sim);
    let mut more = 100..103;
    let mut values = Vec::new();
    bench.commit(99);
    let mut see = |record: &Record<'_>, place: Place| {
        if let (Record::Samples(samples), Place::Segment(4..)) = (record, place) {
            values.push(samples[0].value as u32);
            // The survey has read this file as it was before these.
            more.by_ref().take(2).for_each(|value| bench.commit(value));
        }
    };
    let seen = survey(&mut Reactor::sim(&sim), Path::new(DIR), 0, &mut see).unwrap();
    assert!(seen.flaws.is_empty(), "{:?}", seen.flaws);
    // What nothing is behind has been missed, as if it came later.
    assert_eq!(values, [99, 100, 101]);
}

#[test]
fn a_file_that_goes_meanwhile_is_told_as_that() {
    let sim = log();
    let mut bench = Bench::sim(&sim);
    let mut moved = false;
    let mut see = |_: &Record<'_>, place: Place| {
        if place == Place::Checkpoint(2) && !std::mem::replace(&mut moved, true) {
            for value in 50..54 {
                bench.commit(u32::from(value));
                bench.checkpoint(&[value]).unwrap();
            }
            bench.settle();
        }
    };
    let result = survey(&mut Reactor::sim(&sim), Path::new(DIR), 0, &mut see);
    assert!(matches!(result, Err(Error::Changed { .. })), "{result:?}");
    assert!(surveyed(&sim).0.flaws.is_empty());
}

#[test]
fn files_that_are_no_logs_are_named_and_those_of_another_core_refused() {
    let sim = log();
    let mut reactor = Reactor::sim(&sim);
    for name in ["chunks-0000000001", "notes.txt"] {
        let path = Path::new(DIR).join(name);
        let mode = OpenMode::create();
        reactor.run(Op::Open { path, mode }).unwrap();
    }
    let (seen, _) = surveyed(&sim);
    assert_eq!(seen.others, ["chunks-0000000001", "notes.txt"]);
    assert!(seen.flaws.is_empty());
    let result = survey(&mut reactor, Path::new(DIR), 1, &mut |_, _| {});
    assert!(matches!(result, Err(Error::Foreign { .. })), "{result:?}");
}
