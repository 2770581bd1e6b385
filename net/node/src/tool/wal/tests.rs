//! Logs in real directories, whole and damaged.

use std::fs;
use std::path::PathBuf;

use ::wal::{Log as Writer, LoggedSample, Options as LogOptions, ReplayOptions, SeriesRecord};
use model::{Generation, Labels, SeriesId, SeriesRef, TenantId};

use super::*;

/// A data directory whose cores have a log of some commits.
fn data(dir: &Path, cores: u16) -> PathBuf {
    let tree = ::wal::tree(dir);
    let mut reactor = open().unwrap();
    fs::create_dir_all(&tree).unwrap();
    let manifest = ::wal::Manifest {
        generation: 1,
        cores,
        spread: None,
    };
    manifest.write(&mut reactor, &tree).unwrap();
    for core in 0..cores {
        write(&mut reactor, &::wal::core_dir(&tree, 1, core), core, 5);
    }
    tree
}

/// Commits of a sample each, the first with a series.
fn write(reactor: &mut Reactor, dir: &Path, core: u16, commits: i64) {
    let options = ReplayOptions {
        core,
        salvage: false,
    };
    let replayed = ::wal::replay(reactor, dir, &options, &mut |_, _| Ok(()), &mut |_, _| {
        Ok(())
    });
    let options = LogOptions {
        segment_bytes: 1 << 20,
        segment_bytes_first: 1 << 20,
        group_bytes: 8192,
        direct: false,
        // What a log of another core still has under way is not ours.
        token_base: u64::from(core) << 8,
    };
    let mut log = Writer::open(reactor, dir, options, &replayed.unwrap()).unwrap();
    let labels = Labels::from_pairs([("__name__", "up")]).unwrap();
    let (tenant, series) = (TenantId::new("a").unwrap(), SeriesRef(0));
    let record = SeriesRecord {
        series,
        generation: Generation(0),
        id: SeriesId(7),
        tenant: &tenant,
        labels: labels.packed(),
    };
    log.append(&Record::Series(record)).unwrap();
    for time in 0..commits {
        let value = 1.0;
        let sample = LoggedSample {
            series,
            time,
            value,
        };
        log.append(&Record::Samples(&[sample])).unwrap();
        let tail = log.tail();
        log.submit(reactor, true);
        let mut events = Vec::new();
        while log.durable() < tail {
            reactor.wait(None, &mut events);
            for event in events.drain(..) {
                if log.owns(&event) {
                    log.on_event(reactor, event).unwrap();
                }
            }
        }
    }
}

/// Whether all is sound, what is printed, and what is said to be damaged.
fn told(want: Want, dirs: &[&Path]) -> (bool, String, Vec<String>) {
    let (mut out, mut damage) = (Vec::new(), Vec::new());
    let dirs: Vec<&str> = dirs.iter().map(|dir| dir.to_str().unwrap()).collect();
    let sound = all(want, &dirs, &mut out, &mut |text| {
        damage.push(text.to_owned())
    });
    let text = String::from_utf8(out).unwrap();
    (sound.unwrap(), text, damage)
}

#[test]
fn a_data_directory_is_inspected_and_verified() {
    let place = tempfile::tempdir().unwrap();
    let tree = data(place.path(), 2);
    let dir = ::wal::core_dir(&tree, 1, 1);
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    let before = fs::read(dir.join("segment-0000000001")).unwrap();
    for given in [place.path(), &tree] {
        let (sound, text, damage) = told(Want::Inspect, &[given]);
        assert!(sound && damage.is_empty(), "{damage:?}");
        for part in [
            "generation 1, 2 cores",
            "core 0: ",
            "core 1: ",
            "  segment-0000000001: 1048576 bytes, 24576 of them with commits 1 to 5, positions 0 to ",
            ", epoch 1; a start reads it\n",
            "    5 samples from 0 to 4 ms, 1 series, 1 tenants named\n    records: samples 5, series 1\n",
            "  notes.txt: no file of a log",
            "  a start replays 5 commits with ",
            " in 1 segments, and goes on with commit 6:",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let (sound, text, damage) = told(Want::Verify, &[given]);
        assert!(sound && damage.is_empty(), "{damage:?}");
        let line = "core 1: sound: 0 checkpoints, 1 segments, 5 commits, 6 records";
        assert!(text.contains(line), "{text}");
    }
    // One log alone, and all of it twice.
    let (_, text, _) = told(Want::Verify, &[&dir]);
    assert_eq!(text.lines().count(), 1, "{text}");
    let (_, text, _) = told(Want::Verify, &[place.path(), &tree]);
    assert_eq!(text.matches("core 1: sound").count(), 1, "{text}");
    assert_eq!(fs::read(dir.join("segment-0000000001")).unwrap(), before);
}

#[test]
fn damage_is_named_and_a_torn_end_is_none() {
    let place = tempfile::tempdir().unwrap();
    let tree = data(place.path(), 1);
    let segment = ::wal::core_dir(&tree, 1, 0).join("segment-0000000001");
    let whole = fs::read(&segment).unwrap();
    let flip = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&segment, &bytes).unwrap();
    };
    // The third of five commits; the last.
    flip(3 * 4096 + 70);
    for want in [Want::Inspect, Want::Verify] {
        let (sound, text, damage) = told(want, &[place.path()]);
        assert!(!sound);
        let expected = format!("{} is corrupt at offset 12288: ", segment.display());
        assert!(damage[0].starts_with(&expected), "{damage:?}");
        assert!(
            damage[0].ends_with("drops the rest of the segment)"),
            "{damage:?}"
        );
        assert_eq!(text.contains("DAMAGED"), want == Want::Verify, "{text}");
    }
    flip(5 * 4096 + 70);
    for want in [Want::Inspect, Want::Verify] {
        let (sound, text, damage) = told(want, &[place.path()]);
        assert!(sound, "{damage:?}");
        let expected = format!(
            "commit 5 is unfinished: {} at offset 20480",
            segment.display()
        );
        assert!(text.contains(&expected), "{text}");
    }
    // Cut short before two commits that were durable, which nothing says any more; and within a block.
    fs::write(&segment, &whole[..4 * 4096]).unwrap();
    assert!(told(Want::Verify, &[place.path()]).0);
    fs::write(&segment, &whole[..4 * 4096 + 10]).unwrap();
    let (sound, _, damage) = told(Want::Verify, &[place.path()]);
    assert!(!sound && damage[0].contains("cut short"), "{damage:?}");
}

#[test]
fn what_is_no_log_or_of_another_core_is_told() {
    let place = tempfile::tempdir().unwrap();
    let tree = data(place.path(), 2);
    for nothing in [
        place.path().join("gone"),
        tree.join("lock"),
        place.path().join("empty"),
    ] {
        if nothing.ends_with("empty") {
            fs::create_dir(&nothing).unwrap();
        }
        let (sound, _, damage) = told(Want::Verify, &[&nothing]);
        assert!(!sound && damage.len() == 1, "{damage:?}");
        assert!(damage[0].contains(nothing.to_str().unwrap()), "{damage:?}");
    }
    let [first, second] = [0, 1].map(|core| ::wal::core_dir(&tree, 1, core));
    fs::copy(
        first.join("segment-0000000001"),
        second.join("segment-0000000001"),
    )
    .unwrap();
    let (sound, text, damage) = told(Want::Verify, &[place.path()]);
    assert!(!sound && text.contains("core 0: sound"), "{text}");
    let expected = "segment-0000000001 belongs to core 0, not to core 1";
    assert!(damage[0].contains(expected), "{damage:?}");
    // Logs without their manifest are shown, and are damage.
    fs::remove_file(tree.join("manifest")).unwrap();
    let (sound, text, damage) = told(Want::Inspect, &[place.path()]);
    assert!(
        !sound && damage[0].contains("it is missing, but there are logs"),
        "{damage:?}"
    );
    assert!(
        text.contains("generation 1") && text.contains("core 0: "),
        "{text}"
    );
}

#[test]
fn cores_in_other_directories_are_found_and_missed() {
    let place = tempfile::tempdir().unwrap();
    let (main, other) = (place.path().join("main"), place.path().join("other"));
    let tree = data(&main, 1);
    let away = ::wal::tree(&other);
    fs::create_dir_all(&away).unwrap();
    let mut reactor = open().unwrap();
    write(&mut reactor, &::wal::core_dir(&away, 1, 1), 1, 3);
    let owner = ::wal::Owner {
        node: 5,
        directory: 6,
        start: 3,
    };
    owner.write(&mut reactor, &away).unwrap();
    let manifest = ::wal::Manifest {
        generation: 1,
        cores: 2,
        spread: Some(::wal::Spread {
            node: 5,
            start: 3,
            numbering: false,
            directories: vec![::wal::Directory {
                id: 6,
                path: other.clone(),
                joining: false,
            }],
            places: vec![None, Some(0)],
        }),
    };
    manifest.write(&mut reactor, &tree).unwrap();
    // Without a checkpoint a start takes a log there for an old copy.
    let (sound, text, damage) = told(Want::Verify, &[&main]);
    assert!(
        !sound && text.contains("core 1: sound: 0 checkpoints"),
        "{text}"
    );
    assert!(
        damage[0].contains("no log of core 1 is in it"),
        "{damage:?}"
    );
    // An old copy of it.
    ::wal::Owner { start: 2, ..owner }
        .write(&mut reactor, &away)
        .unwrap();
    let (_, _, damage) = told(Want::Verify, &[&main]);
    assert!(
        damage[0].contains("last used at start 2 of the node, the manifest is of start 3"),
        "{damage:?}"
    );
    owner.write(&mut reactor, &away).unwrap();
    // Mounted elsewhere, and given.
    let moved = place.path().join("moved");
    fs::rename(&other, &moved).unwrap();
    let (_, text, _) = told(Want::Verify, &[&main, &moved]);
    assert_eq!(
        text.matches("core 1: sound: 0 checkpoints, 1 seg").count(),
        1,
        "{text}"
    );
    let (_, text, damage) = told(Want::Verify, &[&main]);
    assert!(
        damage[0].contains("is its disk mounted?"),
        "{damage:?} {text}"
    );
    // Alone.
    let (sound, text, _) = told(Want::Inspect, &[&moved]);
    assert!(sound && text.contains("a directory of node"), "{text}");
    assert!(text.contains("core 1: "), "{text}");
}
