//! Claims about the chunk files alone, on a simulated disk.

use std::path::Path;

use model::{FloatHistogram, Histogram, HistogramSample, Labels, SeriesId};
use reactor::{Fault, OpKind, Reactor, Sim};

use super::*;
use crate::message::{ChunkSlice, SelectedSeries};

const DIR: &str = "core";

fn open(sim: &Sim) -> (Reactor, ChunkFiles) {
    let mut reactor = Reactor::sim(sim);
    wal::create_dirs(&mut reactor, Path::new(DIR)).unwrap();
    let files = ChunkFiles::open(&mut reactor, Path::new(DIR), 3, 4096).unwrap();
    (reactor, files)
}

/// Some bytes that are told apart; whether they are a chunk is nobody's business here.
fn content(i: usize) -> Vec<u8> {
    vec![i as u8; 40 + i % 60]
}

fn check(files: &ChunkFiles, places: &[Place]) {
    for (i, &place) in places.iter().enumerate() {
        assert_eq!(*files.read(place).read().unwrap(), content(i), "chunk {i}");
    }
}

#[test]
fn chunks_are_read_before_and_after_they_are_written_and_after_a_restart() {
    let sim = Sim::new(1);
    let (mut reactor, mut files) = open(&sim);
    let mut places = Vec::new();
    for i in 0..500 {
        places.push(files.put(&content(i)));
        if i % 17 == 0 {
            files.drain(&mut reactor).unwrap();
            check(&files, &places);
        }
    }
    let point = files.request_sync();
    assert!(!files.is_synced(point));
    files.drain(&mut reactor).unwrap();
    assert!(files.is_synced(point) && files.pending_bytes() == 0);
    assert!(files.file_count() >= 8, "files are bounded");
    drop((reactor, files));
    sim.crash();
    let (mut reactor, mut files) = open(&sim);
    places.iter().for_each(|&place| files.adopt(place));
    assert!(files.check(&mut reactor, 1).unwrap().is_empty());
    check(&files, &places);
    assert!(
        files.put(b"next").file > places[499].file,
        "never appended to"
    );
}

#[test]
fn a_file_goes_when_it_is_empty_and_no_checkpoint_names_it_and_is_readable_meanwhile() {
    let sim = Sim::new(2);
    let (mut reactor, mut files) = open(&sim);
    let places: Vec<Place> = (0..200).map(|i| files.put(&content(i))).collect();
    files.request_sync();
    files.drain(&mut reactor).unwrap();
    let held = files.read(places[0]);
    let count = files.file_count();
    let (old, rest) = places.split_at(100);
    old.iter().for_each(|&place| files.release(place));
    files.sweep(7, 5);
    files.sweep(8, 7);
    assert_eq!(
        files.file_count(),
        count,
        "the checkpoint before segment 7 may name it"
    );
    files.sweep(9, 8);
    let left = files.file_count();
    assert!(
        left < count && left >= count / 2,
        "{count} files, {left} left"
    );
    files.drain(&mut reactor).unwrap();
    assert!(sim.live("core/chunks-0000000001").is_none());
    assert_eq!(*held.read().unwrap(), content(0));
    assert_eq!(*files.read(rest[99]).read().unwrap(), content(199));
}

#[test]
fn damage_is_named_with_file_and_place() {
    let sim = Sim::new(3);
    let (mut reactor, mut files) = open(&sim);
    let places: Vec<Place> = (0..200).map(|i| files.put(&content(i))).collect();
    files.request_sync();
    files.drain(&mut reactor).unwrap();
    drop((reactor, files));
    sim.crash();
    sim.flip("core/chunks-0000000001", 20, 1);
    let (mut reactor, mut files) = open(&sim);
    let beyond = Place {
        offset: 1 << 20,
        ..places[199]
    };
    let missing = Place { file: 99, ..beyond };
    for place in [places[0], beyond, missing] {
        files.adopt(place);
    }
    let damaged = files.check(&mut reactor, 1).unwrap();
    let text: Vec<String> = damaged.iter().map(|(_, error)| error.to_string()).collect();
    assert_eq!(text.len(), 3, "{text:?}");
    assert!(text[0].contains("chunks-0000000001") && text[0].contains("header"));
    assert!(text[1].contains("it ends at"));
    assert!(text[2].contains("chunks-0000000099") && text[2].contains("missing"));
}

#[test]
fn a_full_disk_is_waited_for_and_another_error_is_the_end() {
    let sim = Sim::new(4);
    let (mut reactor, mut files) = open(&sim);
    let places: Vec<Place> = (0..100).map(|i| files.put(&content(i))).collect();
    // Open, sync of the directory, and the first write.
    sim.fail_nth(3, Fault::ENOSPC);
    files.drain(&mut reactor).unwrap();
    assert!(files.no_space().is_some() && files.pending_bytes() > 0 && !files.has_work());
    check(&files, &places);
    files.request_sync();
    files.drain(&mut reactor).unwrap();
    assert!(files.no_space().is_none() && files.pending_bytes() == 0);
    check(&files, &places);
    files.put(&content(0));
    sim.fail_when(|op| (op.kind == OpKind::Sync).then_some(Fault::ENOSPC));
    files.request_sync();
    files.drain(&mut reactor).unwrap_err();
    assert!(!files.has_work(), "a failed sync is not tried again");
}

/// What checks a chunk on its way from a file looks at its first time, which histograms keep elsewhere than floats.
#[test]
fn a_chunk_of_histograms_is_loaded_and_one_named_with_another_time_is_not() {
    let sim = Sim::new(6);
    let (mut reactor, mut files) = open(&sim);
    let int = HistogramSample::Int(Histogram::default());
    let float = HistogramSample::Float(FloatHistogram::default());
    for (min_time, sample) in [(-7, int), (1_700_000_000_000, float)] {
        let mut open = chunk::HistogramAppender::for_kind_of(&sample);
        open.append(min_time, &sample);
        open.append(min_time + 15_000, &sample);
        let sealed = open.seal();
        let place = files.put(&sealed);
        files.request_sync();
        files.drain(&mut reactor).unwrap();
        let list = |min_time| {
            vec![SelectedSeries {
                id: SeriesId::default(),
                labels: Labels::empty(),
                chunks: vec![ChunkSlice {
                    min_time,
                    max_time: min_time + 15_000,
                    bytes: files.read(place),
                }],
                exemplars: Vec::new(),
                starts: Vec::new(),
            }]
        };
        let mut good = list(min_time);
        crate::load_chunks(&mut good, &|| false).unwrap();
        assert_eq!(*good[0].chunks[0].bytes.read().unwrap(), sealed);
        let refused = crate::load_chunks(&mut list(min_time + 1), &|| false).unwrap_err();
        assert!(refused.to_string().contains("was named"), "{refused}");
    }
}

#[test]
fn an_audit_reads_each_chunk_that_is_named_and_tells_of_a_file_once() {
    let sim = Sim::new(1);
    let (mut reactor, mut files) = open(&sim);
    let sealed: Vec<Vec<u8>> = (0..400)
        .map(|i| {
            let mut chunk = chunk::XorAppender::new();
            (0..20).for_each(|k| chunk.append(i * 1000 + k, k as f64));
            chunk.seal()
        })
        .collect();
    let places: Vec<Place> = sealed.iter().map(|chunk| files.put(chunk)).collect();
    files.drain(&mut reactor).unwrap();
    let named = |i: usize| wal::StoredChunkRecord {
        series: model::SeriesRef(0),
        first: model::TimeMs(i as i64 * 1000),
        last: model::TimeMs(i as i64 * 1000 + 19),
        count: 20,
        file: places[i].file,
        offset: places[i].offset,
        len: places[i].len,
    };
    let audit = || ChunkAudit::new(Reactor::sim(&sim), Path::new(DIR), 3);
    let flaws = |mut audit: ChunkAudit| -> Vec<String> {
        let results = (0..400).filter_map(|i| audit.check(&named(i)).err());
        results.map(|error| error.to_string()).collect()
    };
    assert!(flaws(audit()).is_empty());
    // A bit of one chunk; another time than it was named with; the end of the last file; the header of the first.
    let path = name(Path::new(DIR), places[7].file);
    sim.flip(&path, u64::from(places[7].offset) + 9, 1);
    let told = flaws(audit());
    assert_eq!(told.len(), 1, "{told:?}");
    let expected = format!(
        "{} is corrupt at offset {}",
        path.display(),
        places[7].offset
    );
    assert!(told[0].contains(&expected), "{told:?}");
    sim.flip(&path, u64::from(places[7].offset) + 9, 1);
    let other = wal::StoredChunkRecord {
        first: model::TimeMs(7001),
        ..named(7)
    };
    assert!(audit().check(&other).is_err());
    let beyond = wal::StoredChunkRecord {
        len: u32::MAX,
        ..named(7)
    };
    let told = audit().check(&beyond).unwrap_err().to_string();
    assert!(told.contains("the file ends at"), "{told}");
    sim.flip(&path, 20, 1);
    let told = flaws(audit());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("its header does not fit its name"),
        "{told:?}"
    );
}
