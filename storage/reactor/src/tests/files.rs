//! What the operations on files and directories do.

use std::io::ErrorKind;

use super::*;
use crate::{DIRECT_ALIGNMENT, OpKind, OpenMode, World, for_each_world};

#[test]
fn bytes_written_are_read_back_and_a_read_ends_at_the_end_of_the_file() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let file = open(&mut reactor, &place.dir().join("a"), OpenMode::create_new());
        write(&mut reactor, file, 0, 1, 5000).expect("write");
        write(&mut reactor, file, 3000, 2, 10_000).expect("write");
        let expected = [vec![1; 3000], vec![2; 10_000]].concat();
        assert_eq!(read(&mut reactor, file, 0, 20_000), expected);
        assert_eq!(read(&mut reactor, file, 2999, 3), [1, 2, 2]);
        assert_eq!(read(&mut reactor, file, 12_999, 100), [2]);
        assert_eq!(read(&mut reactor, file, 13_000, 100), []);
        assert_eq!(read(&mut reactor, file, 1 << 40, 100), []);
        write(&mut reactor, file, 20_000, 3, 1).expect("write");
        assert_eq!(
            read(&mut reactor, file, 13_000, 7001),
            [vec![0; 7000], vec![3]].concat()
        );
    });
}

/// A node whose checkpoint named chunks in files did not start again: it opens such a file, makes a reader of it and closes it, and with
/// io_uring the close took for granted that nobody else had the descriptor.
#[test]
fn a_file_with_a_reader_can_be_closed_and_the_reader_goes_on() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let file = open(&mut reactor, &place.dir().join("a"), OpenMode::create_new());
        write(&mut reactor, file, 0, 7, 100).expect("write");
        let reader = reactor.reader(file);
        reactor.run(Op::Close { file }).expect("close");
        let mut bytes = [0; 100];
        assert_eq!(reader.read_at(0, &mut bytes).expect("read"), 100);
        assert_eq!(bytes, [7; 100]);
    });
}

#[test]
fn direct_dsync_writes_are_read_back_where_the_probe_allows_them() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let probe = reactor.probe(place.dir());
        assert_eq!(
            names(&mut reactor, place.dir()),
            [""; 0],
            "the probe cleans up"
        );
        assert_eq!(probe.direct, probe.reason.is_none());
        if !probe.direct {
            println!("skipped: {:?}", probe.reason);
            assert_ne!(place.world(), World::Sim);
            return;
        }
        assert_eq!(probe.alignment as usize, DIRECT_ALIGNMENT);
        let mode = OpenMode::create_new().direct(true).dsync(true);
        let file = open(&mut reactor, &place.dir().join("log"), mode);
        reactor
            .run(Op::Allocate {
                file,
                offset: 0,
                len: 1 << 20,
            })
            .expect("allocate");
        write(&mut reactor, file, 8192, 7, 65_536).expect("write");
        let found = read(&mut reactor, file, 4096, 131_072);
        assert_eq!(found.len(), 131_072);
        assert!(found[..4096].iter().all(|&byte| byte == 0));
        assert!(found[4096..69_632].iter().all(|&byte| byte == 7));
        assert!(found[69_632..].iter().all(|&byte| byte == 0));
        // A file that ends unaligned is read to its end.
        reactor
            .run(Op::Truncate { file, len: 10_000 })
            .expect("truncate");
        assert_eq!(read(&mut reactor, file, 8192, 8192), [7; 1808]);
    });
}

#[test]
fn a_disk_without_direct_io_is_found_out_with_the_reason() {
    let options = crate::SimOptions {
        direct: false,
        ..crate::SimOptions::default()
    };
    let mut reactor = Reactor::sim(&crate::Sim::with(options));
    let probe = reactor.probe(Path::new("/"));
    assert!(!probe.direct);
    assert_eq!(probe.alignment, 1);
    assert!(probe.reason.expect("a reason").contains("Invalid argument"));
    assert_eq!(names(&mut reactor, Path::new("/")), [""; 0]);
}

#[test]
fn a_directory_that_is_missing_is_a_refused_probe_not_a_panic() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let probe = reactor.probe(&place.dir().join("missing"));
        assert!(!probe.direct);
        assert!(probe.reason.expect("a reason").contains("No such file"));
    });
}

#[test]
fn failures_name_operation_path_offset_and_errno_and_give_the_buffer_back() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let path = place.dir().join("a");
        let missing = reactor.run(Op::Open {
            path: path.clone(),
            mode: OpenMode::read_only(),
        });
        let failure = missing.expect_err("it is not there");
        assert!(failure.is_not_found());
        assert_eq!((failure.op, &*failure.path), (OpKind::Open, path.as_path()));
        assert!(
            failure
                .to_string()
                .starts_with(&format!("open {}: ", path.display()))
        );

        let file = open(&mut reactor, &path, OpenMode::create_new());
        let again = reactor.run(Op::Open {
            path: path.clone(),
            mode: OpenMode::create_new(),
        });
        assert_eq!(
            again.expect_err("it is there").source.kind(),
            ErrorKind::AlreadyExists
        );
        reactor.run(Op::Close { file }).expect("close");

        let file = open(&mut reactor, &path, OpenMode::read_only());
        let failure = write(&mut reactor, file, 4096, 5, 512).expect_err("opened for reading");
        assert_eq!(failure.errno(), Some(libc::EBADF));
        assert_eq!(failure.offset, Some(4096));
        assert!(failure.to_string().contains(" at 4096: "), "{failure}");
        let buf = failure.buf.expect("the buffer comes back");
        assert_eq!(buf[..512], [5; 512]);
        assert!(
            !std::io::Error::from(missing_dir(&mut reactor, place.dir()))
                .to_string()
                .is_empty()
        );
    });
}

fn missing_dir(reactor: &mut Reactor, dir: &Path) -> crate::Failure {
    reactor
        .run(Op::SyncDir {
            path: dir.join("missing"),
        })
        .expect_err("not there")
}

#[test]
fn a_full_device_is_told_apart_and_the_buffer_comes_back() {
    for_each_world(|place| {
        if place.world() == World::Sim {
            return;
        }
        let mut reactor = place.reactor();
        let mode = OpenMode {
            write: true,
            ..OpenMode::default()
        };
        let file = open(&mut reactor, Path::new("/dev/full"), mode);
        let failure = write(&mut reactor, file, 0, 7, 4096).expect_err("always full");
        assert!(failure.is_no_space());
        assert_eq!(
            failure.buf.expect("the buffer comes back")[..4096],
            [7; 4096]
        );
        reactor.run(Op::Close { file }).expect("close");
    });
}

/// Regular files are read in one go; procfs gives a page at a time, so it shows that a short read
/// goes on to the end of the file.
#[test]
fn short_reads_are_continued_to_the_end_of_the_file() {
    let path = Path::new("/proc/kallsyms");
    let expected = match std::fs::read(path) {
        Ok(content) if content.len() > 1 << 16 => content,
        _ => {
            println!("skipped: no long file in /proc");
            return;
        }
    };
    for_each_world(|place| {
        if place.world() == World::Sim {
            return;
        }
        let found = place.reactor().read_whole(path, 1 << 26).expect("read");
        assert!(
            found == expected,
            "{} of {} bytes",
            found.len(),
            expected.len()
        );
    });
}

#[test]
fn a_file_with_two_names_lives_until_both_are_gone() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let [a, b, c] = ["a", "b", "c"].map(|name| place.dir().join(name));
        let link = |from: &std::path::Path, to: &std::path::Path| Op::Link {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        let file = open(&mut reactor, &a, OpenMode::create_new());
        write(&mut reactor, file, 0, 7, 100).expect("write");
        reactor.run(link(&a, &b)).expect("link");
        let taken = reactor.run(link(&a, &b)).expect_err("it is there");
        assert_eq!(taken.source.kind(), ErrorKind::AlreadyExists);
        assert!(reactor.run(link(&c, &a)).expect_err("none").is_not_found());
        reactor.run(Op::Remove { path: a.clone() }).expect("remove");
        write(&mut reactor, file, 100, 8, 1).expect("write");
        reactor.run(Op::Close { file }).expect("close");
        let file = open(&mut reactor, &b, OpenMode::read_only());
        assert_eq!(read(&mut reactor, file, 99, 9), [7, 8]);
        reactor.run(Op::Close { file }).expect("close");
        reactor.run(Op::Remove { path: b }).expect("remove");
        assert_eq!(names(&mut reactor, place.dir()), [""; 0]);
    });
}

#[test]
fn names_are_created_listed_renamed_over_each_other_and_removed() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let dir = place.dir().join("d");
        reactor
            .run(Op::CreateDir { path: dir.clone() })
            .expect("create");
        let again = reactor
            .run(Op::CreateDir { path: dir.clone() })
            .expect_err("it is there");
        assert_eq!(again.source.kind(), ErrorKind::AlreadyExists);
        for (index, name) in ["c", "a", "b"].into_iter().enumerate() {
            let file = open(&mut reactor, &dir.join(name), OpenMode::create());
            write(&mut reactor, file, 0, 1, index + 1).expect("write");
            reactor.run(Op::Close { file }).expect("close");
        }
        reactor
            .run(Op::CreateDir {
                path: dir.join("sub"),
            })
            .expect("create");
        let entries = reactor
            .run(Op::List { path: dir.clone() })
            .expect("list")
            .entries();
        let listed: Vec<_> = entries
            .iter()
            .map(|e| (e.name.to_str().expect("plain"), e.len, e.is_dir))
            .collect();
        assert_eq!(
            listed,
            [
                ("a", 2, false),
                ("b", 3, false),
                ("c", 1, false),
                ("sub", 0, true)
            ]
        );

        reactor
            .run(Op::Rename {
                from: dir.join("c"),
                to: dir.join("a"),
            })
            .expect("rename");
        assert_eq!(names(&mut reactor, &dir), ["a", "b", "sub"]);
        let stat = reactor
            .run(Op::Stat {
                path: dir.join("a"),
            })
            .expect("stat")
            .stat();
        assert_eq!((stat.len, stat.is_dir), (1, false));
        assert!(
            reactor
                .run(Op::Stat { path: dir.clone() })
                .expect("stat")
                .stat()
                .is_dir
        );
        // Across directories too.
        reactor
            .run(Op::Rename {
                from: dir.join("b"),
                to: dir.join("sub/b"),
            })
            .expect("rename");
        assert_eq!(names(&mut reactor, &dir.join("sub")), ["b"]);

        let full = reactor
            .run(Op::RemoveDir {
                path: dir.join("sub"),
            })
            .expect_err("not empty");
        assert_eq!(full.errno(), Some(libc::ENOTEMPTY));
        assert!(
            reactor
                .run(Op::Remove {
                    path: dir.join("sub")
                })
                .is_err(),
            "a directory"
        );
        reactor
            .run(Op::Remove {
                path: dir.join("sub/b"),
            })
            .expect("remove");
        reactor
            .run(Op::RemoveDir {
                path: dir.join("sub"),
            })
            .expect("remove");
        let gone = reactor
            .run(Op::Remove {
                path: dir.join("nothing"),
            })
            .expect_err("not there");
        assert!(gone.is_not_found());
        reactor
            .run(Op::SyncDir { path: dir.clone() })
            .expect("sync");
        assert_eq!(names(&mut reactor, &dir), ["a"]);
    });
}

#[test]
fn allocation_extends_with_zeros_and_truncation_cuts() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let path = place.dir().join("a");
        let file = open(&mut reactor, &path, OpenMode::create_new());
        write(&mut reactor, file, 0, 1, 100).expect("write");
        reactor
            .run(Op::Allocate {
                file,
                offset: 0,
                len: 10_000,
            })
            .expect("allocate");
        assert_eq!(
            read(&mut reactor, file, 0, 20_000),
            [vec![1; 100], vec![0; 9900]].concat()
        );
        reactor
            .run(Op::Truncate { file, len: 50 })
            .expect("truncate");
        reactor
            .run(Op::Truncate { file, len: 60 })
            .expect("truncate");
        assert_eq!(
            read(&mut reactor, file, 0, 100),
            [vec![1; 50], vec![0; 10]].concat()
        );
        reactor
            .run(Op::Sync {
                file,
                data_only: true,
            })
            .expect("sync");
        reactor
            .run(Op::Sync {
                file,
                data_only: false,
            })
            .expect("sync");
    });
}

#[test]
fn a_lock_excludes_others_until_it_is_closed_or_its_reactor_is_gone() {
    for_each_world(|place| {
        let (mut first, mut second) = (place.reactor(), place.reactor());
        let lock = || Op::Lock {
            path: place.dir().join("LOCK"),
        };
        let file = first.run(lock()).expect("free").file();
        let refused = second.run(lock()).expect_err("taken");
        assert_eq!(refused.source.kind(), ErrorKind::WouldBlock);
        assert!(first.run(lock()).is_err(), "taken by itself, too");
        first.run(Op::Close { file }).expect("close");
        second.run(lock()).expect("free again");
        assert!(first.run(lock()).is_err());
        drop(second);
        first.run(lock()).expect("free again");
        // So that the ring is used in this test as well.
        first
            .run(Op::SyncDir {
                path: place.dir().to_owned(),
            })
            .expect("sync");
    });
}

#[test]
fn a_handle_is_not_valid_after_its_close_nor_on_another_reactor() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let path = place.dir().join("a");
        let file = open(&mut reactor, &path, OpenMode::create_new());
        let other = open(&mut place.reactor(), &path, OpenMode::read_only());
        reactor.run(Op::Close { file }).expect("close");
        // The slot is used again, the handle is another.
        let again = open(&mut reactor, &path, OpenMode::read_only());
        assert_ne!(file, again);
        for stale in [file, other] {
            let panic = catch(|| {
                reactor.submit(
                    Op::Sync {
                        file: stale,
                        data_only: true,
                    },
                    1,
                )
            });
            assert!(panic.contains("not open on this reactor"), "{panic}");
        }
    });
}

#[test]
fn a_breach_of_the_contract_is_caught_at_submission() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let file = open(&mut reactor, &place.dir().join("a"), OpenMode::create_new());
        reactor.submit(
            Op::Sync {
                file,
                data_only: true,
            },
            1,
        );
        let panic = catch(|| reactor.submit(Op::Close { file }, 2));
        assert!(panic.contains("operations in flight"), "{panic}");
        completions(&mut reactor, 1);
        let buf = reactor.buffer(4096);
        let long = Op::Write {
            file,
            offset: 0,
            buf,
            len: 4097,
            dsync: false,
        };
        let panic = catch(|| reactor.submit(long, 3));
        assert!(
            panic.contains("4097 bytes with a buffer of 4096"),
            "{panic}"
        );
        if !reactor.probe(place.dir()).direct {
            return;
        }
        let mode = OpenMode::create_new().direct(true);
        let file = open(&mut reactor, &place.dir().join("b"), mode);
        for (offset, len) in [(512, 4096), (0, 512)] {
            let buf = reactor.buffer(4096);
            let panic = catch(|| {
                reactor.submit(
                    Op::Read {
                        file,
                        offset,
                        buf,
                        len,
                    },
                    4,
                )
            });
            assert!(panic.contains("unaligned"), "{panic}");
        }
        assert_eq!(reactor.in_flight(), 0);
    });
}

/// The message of the panic in `f`.
fn catch(f: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).expect_err("a panic");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().expect("a text")).to_owned(),
    }
}

#[test]
fn a_file_is_replaced_whole_and_directories_are_made_with_their_parents() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let dir = place.dir().join("x/y/z");
        reactor.create_dirs(&dir).expect("create");
        reactor.create_dirs(&dir).expect("once more");
        let path = dir.join("MANIFEST");
        for content in [&b"first"[..], b"", b"the third, longer than the first"] {
            reactor.replace_whole(&path, content).expect("replace");
            assert_eq!(reactor.read_whole(&path, 100).expect("read"), content);
            assert_eq!(names(&mut reactor, &dir), ["MANIFEST"]);
        }
        assert_eq!(
            reactor
                .read_whole(&path, 32)
                .expect("as long as allowed")
                .len(),
            32
        );
        let long = reactor.read_whole(&path, 31).expect_err("too long");
        assert_eq!(long.source.kind(), ErrorKind::FileTooLarge);
        let blocked = reactor
            .create_dirs(&path.join("below"))
            .expect_err("a file is in the way");
        assert_eq!(blocked.source.kind(), ErrorKind::NotADirectory);
    });
}

#[test]
fn operations_in_flight_when_the_reactor_is_dropped_take_effect() {
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let path = place.dir().join("a");
        let file = open(&mut reactor, &path, OpenMode::create_new());
        for index in 0..100 {
            let buf = filled(&mut reactor, index, 4096);
            let offset = u64::from(index) * 4096;
            reactor.submit(
                Op::Write {
                    file,
                    offset,
                    buf,
                    len: 4096,
                    dsync: false,
                },
                1,
            );
        }
        drop(reactor);
        let content = place.reactor().read_whole(&path, 1 << 20).expect("read");
        assert_eq!(content.len(), 409_600);
        assert!(
            content
                .chunks(4096)
                .zip(0..)
                .all(|(page, index)| page == [index; 4096])
        );
    });
}
