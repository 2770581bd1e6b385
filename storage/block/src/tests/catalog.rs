//! The catalog of a directory: what is opened, left out and removed at a start, what expires, and indexes that come and go.

use std::path::{Path, PathBuf};

use ::model::TenantId;
use reactor::{Op, OpenMode, Reactor, Sim};

use super::{Content, info, labels, options};
use crate::limits::INDEX_IDLE_MINUTES;
use crate::{Catalog, Effort, FileKind, FileWriter};

fn dir() -> PathBuf {
    PathBuf::from("/data/blocks")
}

/// A block of one series of a tenant, with samples at these times.
fn write(reactor: &mut Reactor, name: &str, id: u128, tenant: &str, times: &[i64]) {
    let up = labels(&[("__name__", "up"), ("tenant", tenant)]);
    let mut content = Content::default();
    times.iter().for_each(|&time| content.put(&up, time, 1.0));
    let info = info(id, FileKind::Cut, id as u64);
    let options = options(1000, Effort::Fast);
    let mut writer = FileWriter::begin(reactor, &dir().join(name), info, options, 5).unwrap();
    let tenant = TenantId::new(tenant).unwrap();
    writer.builder().tenant(&tenant).unwrap();
    content.fill(writer.builder()).unwrap();
    writer.complete(reactor).unwrap();
}

fn names(catalog: &Catalog) -> Vec<String> {
    let list = catalog.list();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    list.iter().map(|block| name(block.path())).collect()
}

#[test]
fn a_start_opens_what_is_whole_removes_what_is_left_over_and_names_what_is_damaged() {
    let sim = Sim::new(1);
    let mut reactor = Reactor::sim(&sim);
    let catalog = Catalog::default();
    assert!(
        catalog
            .open(&mut reactor, &dir(), &|_| false)
            .unwrap()
            .is_empty()
    );
    write(&mut reactor, "b.block", 2, "t", &[5, 7]);
    write(&mut reactor, "a.block", 9, "t", &[1, 2]);
    write(&mut reactor, "orphan.block", 3, "t", &[3]);
    write(&mut reactor, "bad.block", 4, "t", &[3]);
    for name in ["half.block.unfinished", "notes.txt"] {
        let open = Op::Open {
            path: dir().join(name),
            mode: OpenMode::create(),
        };
        let file = reactor.run(open).unwrap().file();
        reactor.run(Op::Close { file }).unwrap();
    }
    // The end of a file is gone.
    let path = dir().join("bad.block");
    let mode = OpenMode::create();
    let file = reactor.run(Op::Open { path, mode }).unwrap().file();
    reactor.run(Op::Truncate { file, len: 100 }).unwrap();
    reactor.run(Op::Close { file }).unwrap();

    let catalog = Catalog::default();
    let notes = catalog
        .open(&mut reactor, &dir(), &|name| name == "orphan.block")
        .unwrap();
    assert_eq!(
        names(&catalog),
        ["b.block", "a.block"],
        "by order of logging"
    );
    assert!(
        notes.iter().any(|note| note.contains("bad.block")),
        "{notes:?}"
    );
    assert_eq!(notes.len(), 3, "{notes:?}");
    let summary = catalog.summary();
    assert_eq!(
        (summary.blocks, summary.samples, summary.damaged),
        (2, 4, 1)
    );
    assert_eq!(summary.times, Some((1, 7)));
    assert!(catalog.next_order() > 9, "behind all that were found");
    let left = reactor.run(Op::List { path: dir() }).unwrap().entries();
    let mut left: Vec<_> = left
        .iter()
        .map(|e| e.name.to_str().unwrap().to_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["a.block", "b.block", "bad.block", "notes.txt"]);
    // Readers of a snapshot go on when a block is gone.
    let tenant = TenantId::new("t").unwrap();
    let before = catalog.overlapping(&tenant, 0, 6);
    assert_eq!(before.len(), 2);
    catalog.remove(&before[0]);
    reactor
        .run(Op::Remove {
            path: before[0].path().to_owned(),
        })
        .unwrap();
    assert_eq!(names(&catalog), ["a.block"]);
    let read = Content::read(&mut before[0].source(), &tenant).unwrap();
    assert_eq!(
        read.floats
            .values()
            .map(|samples| samples.len())
            .sum::<usize>(),
        2
    );
}

#[test]
fn a_block_expires_when_nobody_keeps_any_of_it() {
    let sim = Sim::new(1);
    let mut reactor = Reactor::sim(&sim);
    reactor.create_dirs(&dir()).unwrap();
    // Made at 1_700_000_000_000; a day of `keeps` is 100 here.
    let made = 1_700_000_000_000;
    write(&mut reactor, "1.block", 1, "keeps", &[made - 500]);
    write(&mut reactor, "2.block", 2, "keeps", &[made - 50]);
    write(&mut reactor, "3.block", 3, "gone", &[made - 500]);
    write(&mut reactor, "4.block", 4, "forever", &[5]);
    let catalog = Catalog::default();
    catalog.open(&mut reactor, &dir(), &|_| false).unwrap();
    let retention = |tenant: &TenantId| match tenant.as_str() {
        "forever" => i64::MAX,
        _ => 100,
    };
    let expired = |wall_ms| -> Vec<u128> {
        let list = catalog.expired(wall_ms, &retention);
        list.iter().map(|block| block.meta().info.id).collect()
    };
    // What is older than the newest sample by more than is kept; of a tenant with nothing newer only time tells.
    assert_eq!(expired(made), [1]);
    assert_eq!(expired(made + 60), [1]);
    assert_eq!(expired(made + 101), [1, 2, 3]);
    // A clock that is behind takes nothing.
    assert!(expired(made - 1000).is_empty());
}

#[test]
fn an_index_is_shared_and_let_go_with_its_block() {
    let sim = Sim::new(1);
    let mut reactor = Reactor::sim(&sim);
    reactor.create_dirs(&dir()).unwrap();
    write(&mut reactor, "1.block", 1, "t", &[1, 2, 3]);
    let catalog = Catalog::default();
    catalog.open(&mut reactor, &dir(), &|_| false).unwrap();
    let (block, tenant) = (catalog.list()[0].clone(), TenantId::new("t").unwrap());
    let one = catalog.index(&block, &tenant).unwrap().unwrap();
    let two = catalog.index(&block, &tenant).unwrap().unwrap();
    assert!(std::sync::Arc::ptr_eq(&one, &two));
    catalog.settle(&block, &tenant, &one);
    assert!(catalog.summary().index_bytes > 0);
    let stranger = TenantId::new("stranger").unwrap();
    assert!(catalog.index(&block, &stranger).unwrap().is_none());
    catalog.remove(&block);
    assert_eq!(catalog.summary().index_bytes, 0);
    // Whoever has it reads on.
    let index = one.read().unwrap();
    assert_eq!(index.as_ref().unwrap().series_count(), 1);
}

/// A node whose blocks go to the bucket as soon as they are made kept the index of each that a query had ever looked into, up to 128 MiB.
#[test]
fn an_index_that_nobody_asks_for_goes_with_time() {
    let sim = Sim::new(1);
    let mut reactor = Reactor::sim(&sim);
    reactor.create_dirs(&dir()).unwrap();
    write(&mut reactor, "1.block", 1, "t", &[1, 2, 3]);
    write(&mut reactor, "2.block", 2, "t", &[4, 5, 6]);
    let catalog = Catalog::default();
    catalog.open(&mut reactor, &dir(), &|_| false).unwrap();
    let tenant = TenantId::new("t").unwrap();
    let ask = |at: usize| {
        let block = catalog.list()[at].clone();
        let slot = catalog.index(&block, &tenant).unwrap().unwrap();
        catalog.settle(&block, &tenant, &slot);
        catalog.summary().index_bytes
    };
    let (one, both) = (ask(0), ask(1));
    assert!(0 < one && one < both);
    for _ in 0..INDEX_IDLE_MINUTES {
        catalog.let_go_unused();
        assert_eq!(ask(1), both);
    }
    catalog.let_go_unused();
    let left = catalog.summary().index_bytes;
    assert!(0 < left && left < both, "the one that is asked for stays");
    assert_eq!(ask(0), both, "the other is loaded again");
}

/// Story: a link whose target had gone ended every start.
#[test]
fn a_link_to_nothing_is_left_out() {
    let place = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("gone", place.path().join("a.block")).unwrap();
    let threads = reactor::Options {
        io: reactor::IoMode::Threads,
        ..Default::default()
    };
    let mut reactor = Reactor::open(&threads).unwrap();
    let catalog = Catalog::default();
    let notes = catalog
        .open(&mut reactor, place.path(), &|_| false)
        .unwrap();
    assert!(
        notes.len() == 1 && notes[0].contains("a.block"),
        "{notes:?}"
    );
    assert_eq!(catalog.summary().damaged, 1);
}

/// Story: all blocks had left the disk for the bucket, which was out when the node started. What was cut then got a place in the order of logging that the bucket's blocks had
/// had before, and lost against them.
#[test]
fn a_life_gives_out_places_behind_all_of_the_lives_before_it_whatever_is_on_the_disk() {
    let sim = Sim::new(1);
    let place = || {
        let catalog = Catalog::default();
        let mut reactor = Reactor::sim(&sim);
        catalog.open(&mut reactor, &dir(), &|_| false).unwrap();
        catalog.next_order();
        catalog.next_order()
    };
    let before = place();
    sim.advance(std::time::Duration::from_millis(3));
    assert!(place() > before, "nothing was left on the disk");
}
