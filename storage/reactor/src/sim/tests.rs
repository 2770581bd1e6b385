//! What the simulated machine loses, keeps, refuses and repeats. Each law is also shown to bite:
//! where chance decides, both outcomes must occur over the seeds.

use std::collections::BTreeSet;

use super::*;
use crate::tests::{completions, exists, filled, names, open, read, write};
use crate::{DIRECT_ALIGNMENT, Done, Event, File, Op, OpResult, OpenMode, Reactor, SECTOR_BYTES};

const SEEDS: u64 = 200;

/// A machine with one file `/log` whose name is durable.
fn with_log(seed: u64) -> (Sim, Reactor, File) {
    let sim = Sim::new(seed);
    let mut reactor = Reactor::sim(&sim);
    let file = open(&mut reactor, Path::new("/log"), OpenMode::create_new());
    reactor.run(Op::SyncDir { path: "/".into() }).expect("sync");
    (sim, reactor, file)
}

fn dsync(reactor: &mut Reactor, file: File, offset: u64, byte: u8, len: usize) -> OpResult {
    let buf = filled(reactor, byte, len);
    reactor.run(Op::Write {
        file,
        offset,
        buf,
        len,
        dsync: true,
    })
}

fn sync(reactor: &mut Reactor, file: File) -> OpResult {
    reactor.run(Op::Sync {
        file,
        data_only: true,
    })
}

/// `None` if the pages hold mixed sectors, else the byte they are filled with.
fn whole(bytes: &[u8]) -> Option<u8> {
    bytes
        .iter()
        .all(|byte| *byte == bytes[0])
        .then_some(bytes[0])
}

#[test]
fn a_dsync_write_survives_a_crash_and_an_unsynced_one_is_kept_dropped_or_torn_at_sectors() {
    let (mut kept, mut dropped, mut torn) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (sim, mut reactor, file) = with_log(seed);
        dsync(&mut reactor, file, 0, 1, 8192).expect("write");
        write(&mut reactor, file, 4096, 2, 4096).expect("write");
        assert_eq!(
            read(&mut reactor, file, 4096, 4096),
            [2; 4096],
            "live at once"
        );
        sim.crash();
        let content = sim.live("/log").expect("its name was synced");
        assert_eq!(content.len(), 8192);
        assert_eq!(content[..4096], [1; 4096]);
        match whole(&content[4096..]) {
            Some(2) => kept += 1,
            Some(1) => dropped += 1,
            Some(other) => panic!("seed {seed}: bytes {other} from nowhere"),
            None => {
                torn += 1;
                let sectors: BTreeSet<_> =
                    content[4096..].chunks(SECTOR_BYTES).map(whole).collect();
                assert_eq!(sectors, BTreeSet::from([Some(1), Some(2)]), "seed {seed}");
            }
        }
    }
    assert!(
        kept > 20 && dropped > 20 && torn > 20,
        "{kept} kept, {dropped} dropped, {torn} torn"
    );
}

#[test]
fn unsynced_writes_survive_in_any_combination_so_also_reordered() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..SEEDS {
        let (sim, mut reactor, file) = with_log(seed);
        dsync(&mut reactor, file, 0, 9, 2048).expect("write");
        for part in 0..2 {
            write(&mut reactor, file, part * 1024, 1, 512).expect("write");
        }
        sim.crash();
        let content = sim.live("/log").expect("there");
        outcomes.insert((content[0], content[1024]));
    }
    assert_eq!(outcomes, BTreeSet::from([(9, 9), (1, 1), (1, 9), (9, 1)]));
}

#[test]
fn a_sync_makes_durable_what_had_completed_before_its_submission_and_no_more() {
    let mut late_lost = 0;
    for seed in 0..SEEDS {
        let (sim, mut reactor, file) = with_log(seed);
        write(&mut reactor, file, 0, 1, 512).expect("write");
        // The second write is in flight together with the sync.
        reactor.submit(
            Op::Sync {
                file,
                data_only: true,
            },
            1,
        );
        let buf = filled(&mut reactor, 2, 512);
        reactor.submit(
            Op::Write {
                file,
                offset: 512,
                buf,
                len: 512,
                dsync: false,
            },
            2,
        );
        completions(&mut reactor, 2);
        assert_eq!(sim.synced("/log").expect("there"), [1; 512]);
        sim.crash();
        let content = sim.live("/log").expect("there");
        assert_eq!(content[..512], [1; 512], "seed {seed}");
        late_lost += u32::from(content.len() == 512);
    }
    assert!((20..180).contains(&late_lost), "{late_lost}");
}

#[test]
fn a_dsync_write_is_never_undone_by_an_older_unsynced_one_beneath_it() {
    for seed in 0..SEEDS {
        let (sim, mut reactor, file) = with_log(seed);
        write(&mut reactor, file, 0, 1, 8192).expect("write");
        dsync(&mut reactor, file, 1024, 2, 2048).expect("write");
        write(&mut reactor, file, 7168, 3, 512).expect("write");
        sim.crash();
        let content = sim.live("/log").expect("there");
        assert_eq!(content[1024..3072], [2; 2048], "seed {seed}");
    }
}

#[test]
fn length_and_allocation_survive_by_chance_unless_synced_or_followed_by_a_dsync_write() {
    let mut lengths = BTreeSet::new();
    for seed in 0..SEEDS {
        let (sim, mut reactor, file) = with_log(seed);
        dsync(&mut reactor, file, 0, 1, 4096).expect("write");
        reactor
            .run(Op::Allocate {
                file,
                offset: 0,
                len: 65_536,
            })
            .expect("allocate");
        if seed % 3 == 1 {
            sync(&mut reactor, file).expect("sync");
        }
        if seed % 3 == 2 {
            dsync(&mut reactor, file, 8192, 2, 512).expect("write");
        }
        sim.crash();
        let len = sim.live("/log").expect("there").len();
        if seed % 3 == 0 {
            lengths.insert(len);
        } else {
            assert_eq!(len, 65_536, "seed {seed}");
        }
    }
    assert_eq!(lengths, BTreeSet::from([4096, 65_536]));
    // A truncation takes earlier unsynced writes with it for good, once it is durable.
    for seed in 0..SEEDS {
        let (sim, mut reactor, file) = with_log(seed);
        write(&mut reactor, file, 0, 1, 65_536).expect("write");
        reactor
            .run(Op::Truncate { file, len: 0 })
            .expect("truncate");
        dsync(&mut reactor, file, 4096, 2, 4096).expect("write");
        sim.crash();
        let expected = [[0; 4096], [2; 4096]].concat();
        assert_eq!(sim.live("/log").expect("there"), expected, "seed {seed}");
    }
}

#[test]
fn names_survive_by_chance_until_their_directory_is_synced() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..SEEDS {
        let sim = Sim::new(seed);
        let mut reactor = Reactor::sim(&sim);
        reactor
            .run(Op::CreateDir { path: "/d".into() })
            .expect("create");
        reactor.run(Op::SyncDir { path: "/".into() }).expect("sync");
        for name in ["/d/kept", "/d/moved", "/d/removed"] {
            let file = open(&mut reactor, Path::new(name), OpenMode::create_new());
            dsync(&mut reactor, file, 0, 1, 512).expect("write");
            reactor.run(Op::Close { file }).expect("close");
        }
        reactor
            .run(Op::SyncDir { path: "/d".into() })
            .expect("sync");
        open(&mut reactor, Path::new("/d/new"), OpenMode::create_new());
        reactor
            .run(Op::Rename {
                from: "/d/moved".into(),
                to: "/d/renamed".into(),
            })
            .expect("rename");
        reactor
            .run(Op::Remove {
                path: "/d/removed".into(),
            })
            .expect("remove");
        assert_eq!(
            names(&mut reactor, Path::new("/d")),
            ["kept", "new", "renamed"]
        );
        if seed % 2 == 1 {
            reactor
                .run(Op::SyncDir { path: "/d".into() })
                .expect("sync");
        }
        sim.crash();
        let mut reactor = Reactor::sim(&sim);
        let found = names(&mut reactor, Path::new("/d"));
        let has = |name: &str| found.iter().any(|found| found == name);
        assert!(has("kept"), "seed {seed}");
        assert!(
            has("moved") != has("renamed"),
            "seed {seed}: a rename is atomic: {found:?}"
        );
        if seed % 2 == 1 {
            assert_eq!(found, ["kept", "new", "renamed"]);
        } else {
            outcomes.insert((has("new"), has("renamed"), has("removed")));
        }
    }
    assert_eq!(outcomes.len(), 8, "every combination: {outcomes:?}");
}

/// Story: a crash that kept the second of two renames and not the first left the file under both its first and its last name;
/// removing the one and then the other stopped the simulation of the core.
#[test]
fn a_file_renamed_twice_has_one_name_after_a_crash() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..SEEDS {
        let sim = Sim::new(seed);
        let mut reactor = Reactor::sim(&sim);
        let file = open(&mut reactor, Path::new("/a"), OpenMode::create_new());
        reactor.run(Op::Close { file }).expect("close");
        reactor.run(Op::SyncDir { path: "/".into() }).expect("sync");
        for (from, to) in [("/a", "/b"), ("/b", "/c")] {
            let (from, to) = (from.into(), to.into());
            reactor.run(Op::Rename { from, to }).expect("rename");
        }
        sim.crash();
        let mut reactor = Reactor::sim(&sim);
        let found = names(&mut reactor, Path::new("/"));
        assert_eq!(found.len(), 1, "seed {seed}: {found:?}");
        let path = Path::new("/").join(&found[0]);
        reactor.run(Op::Remove { path }).expect("remove");
        outcomes.insert(found[0].clone());
    }
    assert_eq!(outcomes.len(), 3, "every outcome: {outcomes:?}");
}

#[test]
fn a_directory_sync_covers_names_changed_before_its_submission_and_no_more() {
    let mut late = BTreeSet::new();
    for seed in 0..SEEDS {
        let sim = Sim::new(seed);
        let mut reactor = Reactor::sim(&sim);
        open(&mut reactor, Path::new("/early"), OpenMode::create_new());
        reactor.submit(Op::SyncDir { path: "/".into() }, 1);
        reactor.submit(
            Op::Open {
                path: "/late".into(),
                mode: OpenMode::create_new(),
            },
            2,
        );
        let order: Vec<u64> = completions(&mut reactor, 2)
            .iter()
            .map(|done| done.0)
            .collect();
        sim.crash();
        let found = names(&mut Reactor::sim(&sim), Path::new("/"));
        assert_eq!(found[0], "early", "seed {seed}");
        // Even completed before the sync was, the late one is not among what it promises.
        if order == [2, 1] {
            late.insert(found.len());
        }
    }
    assert_eq!(late, BTreeSet::from([1, 2]));
}

#[test]
fn a_directory_not_durable_in_its_parent_may_vanish_with_all_in_it() {
    let mut found = BTreeSet::new();
    for seed in 0..50 {
        let sim = Sim::new(seed);
        let mut reactor = Reactor::sim(&sim);
        reactor
            .run(Op::CreateDir { path: "/d".into() })
            .expect("create");
        let file = open(&mut reactor, Path::new("/d/a"), OpenMode::create_new());
        dsync(&mut reactor, file, 0, 1, 512).expect("write");
        reactor
            .run(Op::SyncDir { path: "/d".into() })
            .expect("sync");
        sim.crash();
        found.insert(exists(&mut Reactor::sim(&sim), Path::new("/d/a")));
        assert_eq!(
            sim.used(),
            if sim.live("/d/a").is_some() { 4096 } else { 0 }
        );

        let sim = Sim::new(seed);
        Reactor::sim(&sim)
            .create_dirs(Path::new("/x/y"))
            .expect("create");
        sim.crash();
        assert!(
            exists(&mut Reactor::sim(&sim), Path::new("/x/y")),
            "create_dirs is durable"
        );
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn replacing_a_file_whole_leaves_the_old_or_the_new_content_after_a_stop_at_any_point() {
    let mut found = BTreeSet::new();
    for seed in 0..20 {
        for stop in 0.. {
            let sim = Sim::new(seed);
            let mut reactor = Reactor::sim(&sim);
            let path = Path::new("/MANIFEST");
            reactor.replace_whole(path, b"old").expect("replace");
            sim.stop_after(stop);
            let replaced = reactor.replace_whole(path, b"new!");
            let finished = replaced.is_ok();
            assert_eq!(finished, !sim.is_off());
            sim.crash();
            let content = Reactor::sim(&sim)
                .read_whole(path, 10)
                .expect("it is there");
            if finished {
                assert_eq!(content, b"new!");
                break;
            }
            assert!(
                content == b"old" || content == b"new!",
                "seed {seed}, stop {stop}: {content:?}"
            );
            found.insert(content);
        }
    }
    assert_eq!(found.len(), 2, "the stops reached both sides");
}

#[test]
fn a_dsync_write_in_flight_at_the_crash_is_whole_torn_or_absent() {
    let (mut kept, mut dropped, mut torn) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (sim, mut reactor, file) = with_log(seed);
        dsync(&mut reactor, file, 0, 1, 4096).expect("write");
        sim.stop_after(0);
        let buf = filled(&mut reactor, 2, 4096);
        reactor.submit(
            Op::Write {
                file,
                offset: 0,
                buf,
                len: 4096,
                dsync: true,
            },
            1,
        );
        let mut events = Vec::new();
        reactor.wait(None, &mut events);
        assert!(events.is_empty() && sim.is_off());
        sim.crash();
        match whole(&sim.live("/log").expect("there")) {
            Some(2) => kept += 1,
            Some(1) => dropped += 1,
            _ => torn += 1,
        }
    }
    assert!(
        kept > 10 && dropped > 10 && torn > 10,
        "{kept} kept, {dropped} dropped, {torn} torn"
    );
}

#[test]
fn after_a_stop_nothing_happens_and_a_crash_brings_a_new_boot() {
    let (sim, mut reactor, file) = with_log(3);
    let before = sim.ops();
    sim.stop_after(2);
    dsync(&mut reactor, file, 0, 1, 512).expect("the first");
    dsync(&mut reactor, file, 512, 1, 512).expect("the second");
    let failure = dsync(&mut reactor, file, 1024, 1, 512).expect_err("no power");
    assert!(failure.to_string().contains("no power"), "{failure}");
    assert_eq!(sim.ops(), before + 2);
    let mut events = Vec::new();
    reactor.set_timer(sim.now(), 1);
    // Closing is not a breach of the contract, though the write never came back.
    reactor.submit(Op::Close { file }, 2);
    let until = sim.now().after(Duration::from_secs(1));
    reactor.wait(Some(until), &mut events);
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(sim.now(), until, "time passes without power, too");
    sim.crash();
    assert!(!sim.is_off());
    reactor.wait(None, &mut events);
    assert!(events.is_empty(), "reactors from before the crash are dead");
    assert!(
        reactor
            .run(Op::Stat {
                path: "/log".into()
            })
            .is_err()
    );
    let mut reactor = Reactor::sim(&sim);
    assert_eq!(
        reactor.read_whole(Path::new("/log"), 4096).expect("read")[..1024],
        [1; 1024]
    );
}

#[test]
fn a_failed_sync_forgets_data_for_good_though_the_next_one_succeeds() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let (sim, mut reactor, file) = with_log(seed);
        dsync(&mut reactor, file, 0, 1, 512).expect("write");
        write(&mut reactor, file, 0, 2, 512).expect("write");
        sim.fail_nth(1, Fault::EIO);
        assert_eq!(
            sync(&mut reactor, file).expect_err("planned").errno(),
            Some(libc::EIO)
        );
        sync(&mut reactor, file).expect("the second says all is well");
        assert_eq!(
            read(&mut reactor, file, 0, 512),
            [2; 512],
            "the cache still has it"
        );
        sim.crash();
        lost += u32::from(sim.live("/log").expect("there") == [1; 512]);
    }
    assert!((20..180).contains(&lost), "{lost}");
}

#[test]
fn a_failed_directory_sync_may_forget_names_for_good() {
    let mut found = BTreeSet::new();
    for seed in 0..50 {
        let sim = Sim::new(seed);
        let mut reactor = Reactor::sim(&sim);
        open(&mut reactor, Path::new("/a"), OpenMode::create_new());
        sim.fail_when(|op| (op.kind == OpKind::SyncDir).then_some(Fault::EIO));
        assert!(reactor.run(Op::SyncDir { path: "/".into() }).is_err());
        sim.clear_faults();
        reactor.run(Op::SyncDir { path: "/".into() }).expect("sync");
        sim.crash();
        found.insert(exists(&mut Reactor::sim(&sim), Path::new("/a")));
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn a_failed_write_leaves_old_new_or_torn_content_and_gives_its_buffer_back() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..SEEDS {
        let (sim, mut reactor, file) = with_log(seed);
        dsync(&mut reactor, file, 0, 1, 4096).expect("write");
        sim.fail_when(|op| {
            (op.kind == OpKind::Write && op.dsync && op.offset == Some(0)).then_some(Fault::EIO)
        });
        let failure = dsync(&mut reactor, file, 0, 2, 4096).expect_err("planned");
        assert_eq!(failure.buf.expect("given back")[..4096], [2; 4096]);
        dsync(&mut reactor, file, 8192, 3, 512).expect("the rule does not match");
        let live = read(&mut reactor, file, 0, 4096);
        outcomes.insert(whole(&live));
        assert!(
            live.chunks(SECTOR_BYTES)
                .all(|sector| matches!(whole(sector), Some(1 | 2)))
        );
    }
    assert_eq!(outcomes, BTreeSet::from([None, Some(1), Some(2)]));
}

#[test]
fn short_and_misdirected_writes_and_flipped_bits_happen_on_demand() {
    let (sim, mut reactor, file) = with_log(1);
    dsync(&mut reactor, file, 0, 1, 8192).expect("write");
    sim.fail_nth(1, Fault::Short { bytes: 700 });
    let failure = write(&mut reactor, file, 0, 2, 4096).expect_err("planned");
    assert!(failure.is_no_space());
    let content = read(&mut reactor, file, 0, 8192);
    assert_eq!(content, [vec![2; 700], vec![1; 7492]].concat());
    sim.fail_nth(2, Fault::Misdirect { by: 4096 });
    write(&mut reactor, file, 0, 3, 512).expect("in its place");
    write(&mut reactor, file, 512, 4, 512).expect("it says so");
    let content = read(&mut reactor, file, 0, 8192);
    assert_eq!((content[0], content[512], content[4608]), (3, 2, 4));
    sim.flip("/log", 10, 0x80);
    assert_eq!(read(&mut reactor, file, 10, 2), [0x83, 3]);
}

#[test]
fn a_full_disk_says_so_and_removing_files_makes_space() {
    let sim = Sim::with(SimOptions {
        capacity: 16_384,
        ..SimOptions::default()
    });
    let mut reactor = Reactor::sim(&sim);
    let first = open(&mut reactor, Path::new("/a"), OpenMode::create_new());
    reactor
        .run(Op::Allocate {
            file: first,
            offset: 0,
            len: 12_288,
        })
        .expect("space");
    let second = open(&mut reactor, Path::new("/b"), OpenMode::create_new());
    write(&mut reactor, second, 0, 1, 4096).expect("space");
    assert_eq!(sim.used(), 16_384);
    let failure = write(&mut reactor, second, 4096, 1, 1).expect_err("full");
    assert!(failure.is_no_space());
    assert!(
        reactor
            .run(Op::Allocate {
                file: second,
                offset: 0,
                len: 8192
            })
            .is_err()
    );
    write(&mut reactor, first, 0, 1, 12_288).expect("what is allocated can be written");
    write(&mut reactor, second, 0, 2, 4096).expect("what is written can be written again");
    reactor
        .run(Op::Remove { path: "/a".into() })
        .expect("remove");
    assert_eq!(sim.used(), 4096);
    write(&mut reactor, second, 4096, 1, 12_288).expect("space again");
    sim.set_capacity(0);
    write(&mut reactor, second, 0, 1, 4096).expect("no new space is needed");
    reactor
        .run(Op::Truncate {
            file: second,
            len: 100,
        })
        .expect("truncate");
    assert_eq!(sim.used(), 4096);
}

#[test]
fn the_same_seed_gives_the_same_history_and_another_one_another() {
    let history = |seed| {
        let (sim, mut reactor, file) = with_log(seed);
        sim.fail_when(|op| (op.number % 7 == 0).then_some(Fault::EIO));
        let mut trace = Vec::new();
        for round in 0..20u64 {
            for part in 0..4 {
                let buf = filled(&mut reactor, round as u8, 1000);
                let write = Op::Write {
                    file,
                    offset: part * 700,
                    buf,
                    len: 1000,
                    dsync: part == 1,
                };
                reactor.submit(write, round * 10 + part);
            }
            for (token, result) in completions(&mut reactor, 4) {
                trace.push((token, result.is_ok(), sim.now()));
            }
        }
        sim.crash();
        (trace, sim.live("/log"), sim.ops())
    };
    for seed in 0..10 {
        assert_eq!(history(seed), history(seed), "seed {seed}");
        assert_ne!(history(seed).0, history(seed + 1).0);
    }
}

#[test]
fn operations_in_flight_together_complete_in_either_order_and_take_effect_in_that_order() {
    let mut firsts = BTreeSet::new();
    for seed in 0..50 {
        let (_sim, mut reactor, file) = with_log(seed);
        for token in [1, 2] {
            let buf = filled(&mut reactor, token as u8, 512);
            reactor.submit(
                Op::Write {
                    file,
                    offset: 0,
                    buf,
                    len: 512,
                    dsync: false,
                },
                token,
            );
        }
        let order: Vec<u64> = completions(&mut reactor, 2)
            .iter()
            .map(|done| done.0)
            .collect();
        assert_eq!(
            read(&mut reactor, file, 0, 1),
            [order[1] as u8],
            "seed {seed}"
        );
        firsts.insert(order[0]);
    }
    assert_eq!(firsts.len(), 2);
}

#[test]
fn kill_9_keeps_what_is_live_as_durable_as_it_was() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..SEEDS {
        let (sim, mut reactor, file) = with_log(seed);
        write(&mut reactor, file, 0, 1, 512).expect("write");
        let lock = || Op::Lock {
            path: "/LOCK".into(),
        };
        reactor.run(lock()).expect("lock");
        let buf = filled(&mut reactor, 2, 1024);
        reactor.submit(
            Op::Write {
                file,
                offset: 512,
                buf,
                len: 1024,
                dsync: true,
            },
            1,
        );
        sim.kill();
        let content = sim.live("/log").expect("there");
        assert_eq!(content[..512], [1; 512], "seed {seed}: it was written");
        let cut = content[512..].iter().filter(|&&byte| byte == 2).count();
        assert!(cut.is_multiple_of(512));
        outcomes.insert(cut);
        let mut second = Reactor::sim(&sim);
        second.run(lock()).expect("the lock died with the process");
        // A dead reactor is silent and takes no lock with it.
        drop(reactor);
        assert!(Reactor::sim(&sim).run(lock()).is_err());
        sim.crash();
        let content = sim.live("/log").expect("there");
        outcomes.insert(10_000 + usize::from(content.first() == Some(&1)));
    }
    assert_eq!(outcomes, BTreeSet::from([0, 512, 1024, 10_000, 10_001]));
}

#[test]
fn reactors_of_one_machine_share_its_disk_and_clock_and_can_be_turned_by_hand() {
    let sim = Sim::new(5);
    let mut cores: Vec<Reactor> = (0..3).map(|_| Reactor::sim(&sim)).collect();
    for (index, core) in cores.iter_mut().enumerate() {
        let path = format!("/core-{index}").into();
        core.submit(
            Op::Open {
                path,
                mode: OpenMode::create_new(),
            },
            index as u64,
        );
    }
    assert_eq!(sim.in_flight(), 3);
    let mut opened = BTreeSet::new();
    let mut events = Vec::new();
    while sim.step() {
        assert!(sim.next_due().expect("in flight") <= sim.now());
        for core in &mut cores {
            core.poll(&mut events);
            for event in events.drain(..) {
                let Event::Completion {
                    token,
                    result: Ok(Done::Opened(_)),
                } = event
                else {
                    panic!("unexpected {event:?}")
                };
                opened.insert(token);
                assert_eq!(core.now(), sim.now());
            }
        }
    }
    assert_eq!(opened.len(), 3);
    assert_eq!(
        names(&mut cores[0], Path::new("/")),
        ["core-0", "core-1", "core-2"]
    );
    let wall = cores[0].wall_ms();
    sim.advance(Duration::from_secs(5));
    assert_eq!(cores[2].wall_ms(), wall + 5000);
    sim.set_wall_ms(1000);
    assert_eq!(cores[1].wall_ms(), 1000);
}

#[test]
fn the_clock_moves_to_the_next_event_and_an_idle_wait_returns() {
    let sim = Sim::new(2);
    let mut reactor = Reactor::sim(&sim);
    let mut events = Vec::new();
    let start = sim.now();
    reactor.wait(None, &mut events);
    assert!(events.is_empty());
    assert_eq!(sim.now(), start, "nothing can happen");
    let hour = start.after(Duration::from_secs(3600));
    reactor.set_timer(hour, 1);
    reactor.submit(Op::Stat { path: "/".into() }, 2);
    reactor.wait(None, &mut events);
    assert!(matches!(events[..], [Event::Completion { token: 2, .. }]));
    assert!(sim.now() < start.after(Duration::from_millis(1)));
    reactor.wait(Some(start.after(Duration::from_secs(5))), &mut events);
    assert_eq!(events.len(), 1);
    assert_eq!(sim.now(), start.after(Duration::from_secs(5)));
    reactor.wait(None, &mut events);
    assert!(matches!(events[1..], [Event::Timer(1)]));
    assert_eq!(sim.now(), hour);
}

#[test]
#[should_panic(expected = "unaligned length")]
fn direct_io_must_be_aligned_in_the_simulation_too() {
    let sim = Sim::new(0);
    let mut reactor = Reactor::sim(&sim);
    let mode = OpenMode::create_new().direct(true).dsync(true);
    let file = open(&mut reactor, Path::new("/log"), mode);
    write(&mut reactor, file, 0, 1, DIRECT_ALIGNMENT).expect("aligned");
    let _ = write(&mut reactor, file, 0, 1, DIRECT_ALIGNMENT + SECTOR_BYTES);
}

/// Deletions that had been answered as done were lost: the sync behind the making of their directory had failed, the next one found the directory there, and a power
/// cut took it.
#[test]
fn a_directory_whose_making_failed_is_durable_when_it_is_made_again() {
    let path = Path::new("/x/y/file");
    for seed in 0..400 {
        let sim = Sim::new(seed);
        let mut reactor = Reactor::sim(&sim);
        sim.fail_nth(1 + seed % 8, Fault::EIO);
        let failed = reactor.create_dirs(path.parent().expect("it has one"));
        sim.clear_faults();
        // The process may end, too.
        if seed % 16 >= 8 {
            sim.kill();
            reactor = Reactor::sim(&sim);
        }
        let made = reactor.create_dirs(path.parent().expect("it has one"));
        made.unwrap_or_else(|failure| panic!("{seed}: {failure}"));
        reactor.replace_whole(path, b"here").expect("written");
        sim.crash();
        let read = Reactor::sim(&sim).read_whole(path, 100);
        let read = read.unwrap_or_else(|failure| panic!("{seed}, after {failed:?}: {failure}"));
        assert_eq!(read, b"here");
    }
}
