//! The log's reader: files that a disk may have changed in any way. Files are put onto the simulated disk and replayed.
//!
//! Frames are written here a second time after `docs/formats/wal.md`, so that damage also comes behind right checksums. Of a log that
//! was sound once the law is: what is handed out is a prefix of what was appended; with salvage, pieces of it in order.

use std::path::{Path, PathBuf};

use bolero::check;
use model::{Generation, Labels, SeriesRef, TenantId};
use reactor::{Op, OpenMode, Reactor, Sim};
use wal::{Error, Log, LoggedSample, Options, Record, ReplayOptions, Replayed, SeriesRecord};
use xxhash_rust::xxh3::xxh3_64;

use super::INPUTS;

const BLOCK: usize = 4096;
/// Smaller than usual, so that a short log has several groups and segments.
const GROUP_BYTES: usize = 2 * BLOCK;
const SEGMENT_BYTES: u64 = 6 * BLOCK as u64;

fn dir() -> PathBuf {
    PathBuf::from("/log")
}

/// A machine with these files in the log's directory.
fn machine(files: &[(String, Vec<u8>)]) -> Reactor {
    let mut reactor = Reactor::sim(&Sim::new(1));
    reactor
        .run(Op::CreateDir { path: dir() })
        .expect("an empty disk");
    for (name, bytes) in files {
        let open = Op::Open {
            path: dir().join(name),
            mode: OpenMode::create(),
        };
        let file = reactor.run(open).expect("it can be created").file();
        for (at, piece) in bytes.chunks(16 * BLOCK).enumerate() {
            let mut buf = reactor.buffer(piece.len());
            buf[..piece.len()].copy_from_slice(piece);
            let (offset, len) = ((at * 16 * BLOCK) as u64, piece.len());
            let write = Op::Write {
                file,
                offset,
                buf,
                len,
                dsync: false,
            };
            let (buf, _) = reactor.run(write).expect("there is room").buffer();
            reactor.recycle(buf);
        }
        reactor.run(Op::Close { file }).expect("it is open");
    }
    reactor
}

/// Replays; gives the records as text, one sample each, and the result.
fn replay(files: &[(String, Vec<u8>)], salvage: bool) -> (Vec<String>, Result<Replayed, Error>) {
    let mut reactor = machine(files);
    let mut records = Vec::new();
    let mut done = 0;
    let result = wal::replay(
        &mut reactor,
        &dir(),
        &ReplayOptions { core: 0, salvage },
        &mut |record, _| {
            match record {
                Record::Samples(samples) => records.extend(samples.iter().map(|sample| {
                    let LoggedSample {
                        series,
                        time,
                        value,
                    } = sample;
                    format!("{series:?} {time} {:x}", value.to_bits())
                })),
                other => records.push(format!("{other:?}")),
            }
            Ok(())
        },
        &mut |_, progress| {
            // A file may be cut within the padding of its last frame, which counts all the same.
            let total = progress.bytes_total + BLOCK as u64;
            assert!(
                progress.bytes_done >= done && progress.bytes_done <= total,
                "{progress:?} {done}"
            );
            done = progress.bytes_done;
            Ok(())
        },
    );
    // A sample takes a byte at least, whatever a record claims.
    let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(records.len() <= bytes);
    if let Ok(replayed) = &result {
        // Whatever replay calls sound can be gone on with.
        let options = options();
        Log::open(&mut reactor, &dir(), options, replayed).expect("a log behind what was replayed");
    }
    (records, result)
}

fn options() -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        segment_bytes_first: SEGMENT_BYTES,
        group_bytes: GROUP_BYTES,
        direct: false,
        token_base: 0,
    }
}

/// The files of a log with some series and samples in several segments, and its records.
fn sound_log() -> (Vec<(String, Vec<u8>)>, Vec<String>) {
    let sim = Sim::new(7);
    let mut reactor = Reactor::sim(&sim);
    let nothing = wal::replay(
        &mut reactor,
        &dir(),
        &ReplayOptions::default(),
        &mut |_, _| Ok(()),
        &mut |_, _| Ok(()),
    );
    let mut log = Log::open(
        &mut reactor,
        &dir(),
        options(),
        &nothing.expect("an empty disk"),
    )
    .expect("an empty disk");
    let tenant = TenantId::fake();
    let mut events = Vec::new();
    for commit in 0..12i64 {
        let series = SeriesRef(commit as u32);
        let labels = Labels::from_pairs([("__name__", "fuzzed"), ("n", &commit.to_string())]);
        let labels = labels.expect("good labels");
        let id = model::identity::series_id(&tenant, labels.packed(), &mut Vec::new());
        let record = SeriesRecord {
            series,
            generation: Generation(1),
            id,
            tenant: &tenant,
            labels: labels.packed(),
        };
        log.append(&Record::Series(record)).expect("it fits");
        for i in 0..20 * commit {
            log.reserve_sample();
            log.sample(
                SeriesRef((i % (commit + 1)) as u32),
                commit * 15_000 + i,
                i as f64 / 3.0,
                None,
            );
        }
        log.submit(&mut reactor, true);
        while log.durable() < log.tail() {
            reactor.wait(None, &mut events);
            for event in events
                .drain(..)
                .filter(|event| log.owns(event))
                .collect::<Vec<_>>()
            {
                log.on_event(&mut reactor, event)
                    .expect("the disk is sound");
            }
        }
    }
    let entries = reactor
        .run(Op::List { path: dir() })
        .expect("it is there")
        .entries();
    let files: Vec<(String, Vec<u8>)> = entries
        .into_iter()
        .map(|entry| {
            let bytes = sim.live(dir().join(&entry.name)).expect("it was listed");
            (Path::new(&entry.name).display().to_string(), bytes)
        })
        .collect();
    let (records, result) = replay(&files, false);
    let replayed = result.expect("a sound log");
    assert_eq!((replayed.commits, replayed.tear_count), (12, 0));
    assert!(files.len() >= 3, "several segments: {files:?}");
    (files, records)
}

/// The header block of a file.
fn header(kind: u16, segment: u32, epoch: u64, first_commit: u64, lsn: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[8..16].copy_from_slice(b"MYELNWAL");
    block[16..18].copy_from_slice(&1u16.to_le_bytes());
    block[18..20].copy_from_slice(&kind.to_le_bytes());
    block[24..28].copy_from_slice(&segment.to_le_bytes());
    block[32..40].copy_from_slice(&epoch.to_le_bytes());
    block[40..48].copy_from_slice(&first_commit.to_le_bytes());
    block[48..56].copy_from_slice(&lsn.to_le_bytes());
    let sum = xxh3_64(&block[8..]);
    block[..8].copy_from_slice(&sum.to_le_bytes());
    block
}

/// Appends a frame with these records.
fn put_frame(
    file: &mut Vec<u8>,
    segment: u32,
    flags: u16,
    epoch: u64,
    numbers: [u64; 3],
    records: &[u8],
) {
    let start = file.len();
    let [commit, durable, lsn] = numbers;
    file.extend_from_slice(&[0; 8]);
    file.extend_from_slice(b"MYFR");
    file.extend_from_slice(&(records.len() as u32).to_le_bytes());
    file.extend_from_slice(&segment.to_le_bytes());
    file.extend_from_slice(&0u16.to_le_bytes());
    file.extend_from_slice(&flags.to_le_bytes());
    for number in [epoch, commit, durable, lsn, 0] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(records);
    let sum = xxh3_64(&file[start + 8..]);
    file[start..start + 8].copy_from_slice(&sum.to_le_bytes());
    file.resize(file.len().next_multiple_of(BLOCK), 0);
}

/// Without this the targets below might forge what is refused at the first byte.
#[test]
fn wal_frames_forged_here_are_read() {
    // A tenant, then a tombstone of it from 1 to 2 without matchers.
    let records = b"\x01\x02\0\0\0a\x0a\x04\0\0\0\x02\x04\0";
    for (kind, name) in [(0, "segment-0000000001"), (1, "checkpoint-0000000001")] {
        let mut file = header(kind, 1, 1, 1, 0);
        put_frame(&mut file, 1, 2 * kind, 1, [1, 0, 0], records);
        let (records, result) = replay(&[(name.to_owned(), file)], false);
        assert!(result.is_ok(), "{result:?}");
        assert!(
            records.len() == 1 && records[0].starts_with("Tombstone"),
            "{name}: {records:?}"
        );
    }
}

#[test]
fn wal_of_any_bytes() {
    check!()
        .with_iterations(INPUTS / 5)
        .with_max_len(3 * BLOCK)
        .for_each(|bytes: &[u8]| {
            for name in ["segment-0000000001", "checkpoint-0000000001"] {
                for salvage in [false, true] {
                    let _ = replay(&[(name.to_owned(), bytes.to_vec())], salvage);
                }
            }
        });
}

#[test]
fn wal_of_any_records_in_sound_frames() {
    type Frames = Vec<Vec<(u8, Vec<u8>)>>;
    check!()
        .with_type::<(bool, Frames)>()
        .with_iterations(INPUTS / 2)
        .with_max_len(4000)
        .for_each(|(checkpoint, frames)| {
            let mut file = header(u16::from(*checkpoint), 1, 1, 1, 0);
            let mut lsn = 0;
            for (frame, number) in frames.iter().filter(|frame| !frame.is_empty()).zip(1u64..) {
                let mut records = Vec::new();
                for (kind, body) in frame {
                    // The known kinds more often than others.
                    let kind = if *kind < 200 { 1 + *kind % 10 } else { *kind };
                    let word = u32::from(kind) | (body.len() as u32) << 8;
                    records.extend_from_slice(&word.to_le_bytes());
                    records.extend_from_slice(body);
                }
                let last = *checkpoint && number as usize == frames.len();
                let numbers = if *checkpoint {
                    [number, 0, 0]
                } else {
                    [number, number - 1, lsn]
                };
                put_frame(&mut file, 1, if last { 2 } else { 0 }, 1, numbers, &records);
                lsn += records.len() as u64;
            }
            let name = if *checkpoint {
                "checkpoint-0000000001"
            } else {
                "segment-0000000001"
            };
            let files = [(name.to_owned(), file)];
            let (records, result) = replay(&files, false);
            let (salvaged, result_salvaged) = replay(&files, true);
            if result.is_ok() {
                assert_eq!(records, salvaged, "salvage changes nothing that is sound");
                assert!(result_salvaged.is_ok());
            }
        });
}

#[test]
fn wal_sound_then_damaged() {
    let (files, sound) = sound_log();
    check!()
        .with_type::<Vec<(u8, u16, u8)>>()
        .with_iterations(INPUTS / 5)
        .with_max_len(64)
        .for_each(|damage| {
            let mut files = files.clone();
            for (file, at, flip) in damage {
                let count = files.len();
                let bytes = &mut files[usize::from(*file) % count].1;
                match flip {
                    // A file is cut, or a file is gone.
                    0 => bytes.truncate(usize::from(*at)),
                    1 if count > 1 => drop(files.remove(usize::from(*file) % count)),
                    _ if bytes.is_empty() => {}
                    _ => {
                        let len = bytes.len();
                        bytes[usize::from(*at) % len] ^= flip;
                    }
                }
            }
            let (records, result) = replay(&files, false);
            assert!(
                sound.starts_with(&records),
                "not a prefix of what was appended: {result:?}\n{records:#?}"
            );
            let (salvaged, _) = replay(&files, true);
            let mut rest = sound.iter();
            for record in &salvaged {
                assert!(
                    rest.any(|known| known == record),
                    "never appended, or out of order: {record}"
                );
            }
        });
}
