//! The tree: lock, manifest, generations.

use reactor::{IoMode, Sim};

use super::*;

const ROOT: &str = "/data/wal";

fn read(sim: &Sim) -> Result<Option<Manifest>, Error> {
    Manifest::read(&mut Reactor::sim(sim), Path::new(ROOT))
}

#[test]
fn a_manifest_is_replaced_whole_or_not_at_all() {
    let mut steps = 0;
    for stop in 0.. {
        let sim = Sim::new(stop);
        let root = Path::new(ROOT);
        let (old, new) = (
            Manifest {
                generation: 1,
                cores: 2,
            },
            Manifest {
                generation: 2,
                cores: 7,
            },
        );
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
    Manifest {
        generation: 3,
        cores: 2,
    }
    .write(&mut reactor, Path::new(ROOT))
    .unwrap();
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
                [(1, 2), (2, 3)].map(|(generation, cores)| Manifest { generation, cores });
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
