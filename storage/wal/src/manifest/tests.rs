//! The tree: lock, manifest, generations.

use reactor::{IoMode, Sim};

use super::*;

const ROOT: &str = "/data/wal";

fn manifest(generation: u32, cores: u16) -> Manifest {
    Manifest {
        generation,
        cores,
        spread: None,
    }
}

/// Three directories, of which one joins; a core beside the manifest, the others in turn in the first two.
fn spread(cores: u16, path_bytes: usize) -> Spread {
    let directory = |id: u128| Directory {
        id,
        path: PathBuf::from(format!("/disk{id}{}", "x".repeat(path_bytes))),
        joining: id == 3,
    };
    Spread {
        node: 0xfeed << 100,
        start: 7 << 40,
        numbering: cores.is_multiple_of(2),
        directories: [1, 2, 3].map(directory).into(),
        places: (0..cores)
            .map(|core| core.checked_sub(1).map(|c| c % 2))
            .collect(),
    }
}

fn read(sim: &Sim) -> Result<Option<Manifest>, Error> {
    Manifest::read(&mut Reactor::sim(sim), Path::new(ROOT))
}

#[test]
fn a_manifest_is_replaced_whole_or_not_at_all() {
    let mut steps = 0;
    for stop in 0.. {
        let sim = Sim::new(stop);
        let root = Path::new(ROOT);
        let (old, new) = (manifest(1, 2), manifest(2, 7));
        let mut reactor = Reactor::sim(&sim);
        create_dirs(&mut reactor, root).unwrap();
        assert_eq!(read(&sim).unwrap(), None);
        old.write(&mut reactor, root).unwrap();
        sim.stop_after(stop);
        let written = new.write(&mut reactor, root);
        sim.crash();
        let found = read(&sim).unwrap().expect("there is one");
        assert!(found == old || found == new, "{found:?}");
        if written.is_ok() {
            assert_eq!(found, new);
            break;
        }
        steps += 1;
    }
    assert!(steps >= 5, "stopped after {steps} operations");
}

#[test]
fn every_bit_flip_in_a_manifest_is_corruption() {
    let sim = Sim::new(1);
    let mut reactor = Reactor::sim(&sim);
    create_dirs(&mut reactor, Path::new(ROOT)).unwrap();
    manifest(3, 2).write(&mut reactor, Path::new(ROOT)).unwrap();
    let path = Path::new(ROOT).join("manifest");
    for bit in 0..BYTES * 8 {
        sim.flip(&path, bit as u64 / 8, 1 << (bit % 8));
        let found = read(&sim);
        assert!(
            matches!(found, Err(Error::Corrupt { .. })),
            "bit {bit}: {found:?}"
        );
        sim.flip(&path, bit as u64 / 8, 1 << (bit % 8));
    }
    assert!(read(&sim).unwrap().is_some());
}

#[test]
fn a_manifest_missing_beside_logs_is_not_a_new_tree() {
    let sim = Sim::new(1);
    let mut reactor = Reactor::sim(&sim);
    let (root, dir) = (Path::new(ROOT), core_dir(Path::new(ROOT), 1, 0));
    create_dirs(&mut reactor, &dir).unwrap();
    assert_eq!(read(&sim).unwrap(), None, "empty directories are no logs");
    let path = dir.join("segment-0000000001");
    let file = reactor
        .run(Op::Open {
            path,
            mode: OpenMode::create(),
        })
        .unwrap()
        .file();
    reactor.run(Op::Close { file }).unwrap();
    let found = read(&sim);
    assert!(
        matches!(&found, Err(error) if error.to_string().contains("there are logs")),
        "{found:?}"
    );

    assert_eq!(generations(&mut reactor, root).unwrap(), [1]);
    remove_generation(&mut reactor, root, 1).unwrap();
    assert_eq!(generations(&mut reactor, root).unwrap(), []);
    sim.crash();
    assert_eq!(read(&sim).unwrap(), None);
}

/// Killed between the rename and the sync of the directory, a change of the number of cores is seen by the next start, which removes the logs of
/// the generation before. A power cut then brought the old manifest back, and its logs were gone.
#[test]
fn a_manifest_that_was_read_survives_a_power_cut() {
    for seed in 0..20 {
        for stop in 0..8 {
            let sim = Sim::new(seed);
            let root = Path::new(ROOT);
            let [old, new] =
                [(1, 2), (2, 3)].map(|(generation, cores)| manifest(generation, cores));
            let mut reactor = Reactor::sim(&sim);
            create_dirs(&mut reactor, root).unwrap();
            old.write(&mut reactor, root).unwrap();
            sim.stop_after(stop);
            let _ = new.write(&mut reactor, root);
            sim.kill();
            let found = read(&sim).unwrap();
            sim.crash();
            assert_eq!(
                read(&sim).unwrap(),
                found,
                "seed {seed}, stopped after {stop}"
            );
        }
    }
}

#[test]
fn a_second_holder_of_the_lock_is_refused_until_the_first_gives_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let real = |io| {
        Reactor::open(&reactor::Options {
            io,
            ..Default::default()
        })
        .unwrap()
    };
    let sim = Sim::new(1);
    for (mut a, mut b, root) in [
        (
            real(IoMode::Threads),
            real(IoMode::Auto),
            dir.path().join("data/wal"),
        ),
        (Reactor::sim(&sim), Reactor::sim(&sim), ROOT.into()),
    ] {
        let lock = Lock::take(&mut a, &root).unwrap();
        let refused = Lock::take(&mut b, &root);
        assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
        lock.release(&mut a).unwrap();
        Lock::take(&mut b, &root).unwrap();
    }
}

#[test]
fn directories_are_durable_wherever_a_former_start_ended() {
    for stop in 0..12 {
        let sim = Sim::new(stop);
        let dir = core_dir(Path::new(ROOT), 1, 0);
        sim.stop_after(stop);
        let _ = create_dirs(&mut Reactor::sim(&sim), &dir);
        sim.kill();
        create_dirs(&mut Reactor::sim(&sim), &dir).unwrap();
        sim.crash();
        assert!(
            Reactor::sim(&sim).run(Op::List { path: dir }).is_ok(),
            "stopped after {stop}"
        );
    }
}

/// What a node wrote before there were directories, byte by byte: it must open for ever, and be written like this where there are none.
#[test]
fn a_manifest_without_directories_is_of_the_first_version_to_the_byte() {
    let sim = Sim::new(1);
    let (mut reactor, root) = (Reactor::sim(&sim), Path::new(ROOT));
    create_dirs(&mut reactor, root).unwrap();
    manifest(258, 7).write(&mut reactor, root).unwrap();
    let written = sim.live(root.join("manifest")).unwrap();
    assert_eq!(
        written[..32],
        [
            231, 145, 174, 59, 75, 165, 86, 126, b'M', b'Y', b'E', b'L', b'N', b'M', b'A', b'N', 1,
            0, 7, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]
    );
    assert!(written.len() == 4096 && written[32..].iter().all(|&byte| byte == 0));
    assert_eq!(read(&sim).unwrap(), Some(manifest(258, 7)));
}

#[test]
fn directories_and_places_come_back_and_every_bit_flip_is_corruption() {
    for (cores, path_bytes) in [(1, 0), (5, 3), (1024, 4000)] {
        let sim = Sim::new(1);
        let (mut reactor, root) = (Reactor::sim(&sim), Path::new(ROOT));
        create_dirs(&mut reactor, root).unwrap();
        let written = Manifest {
            spread: Some(spread(cores, path_bytes)),
            ..manifest(3, cores)
        };
        written.write(&mut reactor, root).unwrap();
        assert_eq!(read(&sim).unwrap().as_ref(), Some(&written));
        let home = |core| written.tree_of(root, core);
        assert_eq!(home(0), root);
        if cores > 4 {
            assert_eq!(
                home(4),
                spread(0, path_bytes).directories[1].path.join("wal")
            );
        }
        let path = root.join("manifest");
        let step = if path_bytes > 100 { 997 } else { 1 };
        let body: usize = spread(cores, path_bytes).encode(cores).1.len();
        for bit in (0..(BYTES + body) * 8).step_by(step) {
            sim.flip(&path, bit as u64 / 8, 1 << (bit % 8));
            let found = read(&sim);
            let corrupt = matches!(found, Err(Error::Corrupt { .. }));
            assert!(corrupt, "bit {bit}: {found:?}");
            sim.flip(&path, bit as u64 / 8, 1 << (bit % 8));
        }
    }
}

/// A program that is older than a manifest has to say so, and not that it is damaged: what all versions have is enough for that.
#[test]
fn a_manifest_of_a_later_version_is_refused_by_its_version() {
    let sim = Sim::new(1);
    let (mut reactor, root) = (Reactor::sim(&sim), Path::new(ROOT));
    create_dirs(&mut reactor, root).unwrap();
    let mut bytes = manifest(1, 1).encode();
    bytes[16] = 3;
    let checksum = xxh3_64(&bytes[8..BYTES]);
    bytes[..8].copy_from_slice(&checksum.to_le_bytes());
    let path = root.join("manifest");
    reactor.replace_whole(&path, &bytes).unwrap();
    let error = read(&sim).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Version {
                version: 3,
                known: 2,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn places_that_cannot_be_are_corruption() {
    let sound = spread(5, 0);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let (_, mut bytes) = sound.encode(5);
        change(&mut bytes);
        spread::decode(xxh3_64(&bytes), &bytes, 5).unwrap_err()
    };
    let places = 32 + 3 * (20 + 6);
    let told = |change: &dyn Fn(&mut Vec<u8>), word: &str| {
        let reason = refused(change);
        assert!(reason.contains(word), "{reason}");
    };
    told(&|b| b[places] = 3, "cannot have it");
    told(&|b| b[places] = 4, "cannot have it");
    told(&|b| b[4] = 0, "0 directories");
    told(&|b| b[16..32].fill(0), "number of the node");
    told(&|b| b[32] = 2, "that of another");
    told(&|b| b[32 + 16] = 2, "flags");
    told(&|b| b[32 + 18] = 0, "flags");
    told(&|b| b[4] = 4, "missing");
    told(
        &|b| {
            b.extend([0, 0]);
            b[0] += 2;
        },
        "too many",
    );
}

#[test]
fn an_owner_comes_back_and_every_bit_flip_is_corruption() {
    let sim = Sim::new(1);
    let (mut reactor, root) = (Reactor::sim(&sim), Path::new(ROOT));
    create_dirs(&mut reactor, root).unwrap();
    let read = |sim: &Sim| crate::Owner::read(&mut Reactor::sim(sim), root);
    assert_eq!(read(&sim).unwrap(), None);
    let owner = crate::Owner {
        node: 7 << 90,
        directory: 9 << 70,
        start: 5 << 50,
    };
    owner.write(&mut reactor, root).unwrap();
    sim.crash();
    assert_eq!(read(&sim).unwrap(), Some(owner));
    for bit in 0..64 * 8 {
        let path = root.join("owner");
        sim.flip(&path, bit / 8, 1 << (bit % 8));
        let found = read(&sim);
        let corrupt = matches!(found, Err(Error::Corrupt { .. }));
        assert!(corrupt, "bit {bit}: {found:?}");
        sim.flip(&path, bit / 8, 1 << (bit % 8));
    }
    crate::Owner::remove(&mut Reactor::sim(&sim), root).unwrap();
    sim.crash();
    assert_eq!(read(&sim).unwrap(), None);
}
