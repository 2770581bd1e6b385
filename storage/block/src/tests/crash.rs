//! Power cuts and failing operations while a block is written, after every single I/O: it is there whole or not at all.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ::model::TenantId;
use reactor::{Fault, Op, Reactor, Sim, for_each_world};

use super::{Content, info, options, sample_content};
use crate::limits::WRITE_BYTES;
use crate::{Built, Effort, Error, FileKind, FileWriter, LocalFile, remove_unfinished, verify};

fn dir() -> PathBuf {
    PathBuf::from("/blocks")
}

fn target() -> PathBuf {
    dir().join("one.block")
}

/// A machine with the directory, durable.
fn machine(seed: u64) -> Sim {
    let sim = Sim::new(seed);
    let mut reactor = Reactor::sim(&sim);
    reactor.create_dirs(&dir()).unwrap();
    sim
}

/// Enough for several writes: some noise beside the sample.
fn content() -> Content {
    let mut content = sample_content();
    let noise = super::labels(&[("__name__", "noise")]);
    let mut state = 1u64;
    for i in 0..(2 * WRITE_BYTES as i64 + WRITE_BYTES as i64 / 2) / 8 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        content.put(&noise, i, f64::from_bits(state >> 1));
    }
    content
}

fn write(reactor: &mut Reactor, path: &Path, content: &Content) -> Result<Built, Error> {
    let written = info(77, FileKind::Block, 1);
    let mut writer = FileWriter::begin(reactor, path, written, options(4000, Effort::Fast), 5)?;
    writer.builder().tenant(&TenantId::fake())?;
    content.fill(writer.builder())?;
    writer.settle(reactor)?;
    writer.complete(reactor)
}

/// What is found at the path after a start; nothing unfinished is left then.
fn found(sim: &Sim) -> Option<Content> {
    let reactor = Rc::new(RefCell::new(Reactor::sim(sim)));
    remove_unfinished(&mut reactor.borrow_mut(), &dir()).unwrap();
    let names = reactor
        .borrow_mut()
        .run(Op::List { path: dir() })
        .unwrap()
        .entries();
    assert!(
        names.iter().all(|entry| entry.name == "one.block"),
        "{names:?}"
    );
    sim.live(target())?;
    let mut source = LocalFile::open(&reactor, &target()).unwrap();
    verify(&mut source).unwrap();
    Some(Content::read(&mut source, &TenantId::fake()).unwrap())
}

#[test]
fn a_power_cut_after_every_operation_leaves_all_or_nothing() {
    let content = content();
    let (mut absent, mut present) = (0, 0);
    for seed in 0..3 {
        let sim = machine(seed);
        let before = sim.ops();
        write(&mut Reactor::sim(&sim), &target(), &content).unwrap();
        let ops = sim.ops() - before;
        assert!(ops > 8, "{ops} operations");
        for stop in 0..=ops {
            let sim = machine(seed);
            sim.stop_after(stop);
            let written = write(&mut Reactor::sim(&sim), &target(), &content);
            assert_eq!(written.is_ok(), stop == ops);
            sim.crash();
            match found(&sim) {
                Some(found) => {
                    assert_eq!(found, content, "seed {seed}, stopped after {stop}");
                    present += 1;
                }
                None => {
                    assert!(written.is_err(), "seed {seed}: durable, and gone");
                    absent += 1;
                }
            }
            // And again, over whatever is there.
            write(&mut Reactor::sim(&sim), &target(), &content).unwrap();
            sim.crash();
            assert_eq!(found(&sim), Some(content.clone()));
        }
    }
    assert!(present > 3 && absent > 3, "{present} {absent}");
}

#[test]
fn a_failing_operation_is_told_and_leaves_nothing_unfinished() {
    let content = content();
    let sim = machine(1);
    let before = sim.ops();
    write(&mut Reactor::sim(&sim), &target(), &content).unwrap();
    let ops = sim.ops() - before;
    for nth in 1..=ops {
        for fault in [Fault::EIO, Fault::ENOSPC, Fault::Short { bytes: 5000 }] {
            let sim = machine(nth);
            sim.fail_nth(nth, fault);
            let error = write(&mut Reactor::sim(&sim), &target(), &content).unwrap_err();
            assert!(matches!(error, Error::Io(_)), "{error}");
            assert!(error.to_string().contains("/blocks"), "{error}");
            let reactor = Rc::new(RefCell::new(Reactor::sim(&sim)));
            let left = remove_unfinished(&mut reactor.borrow_mut(), &dir()).unwrap();
            assert_eq!(left, 0, "operation {nth} failed");
            if let Some(found) = found(&sim) {
                assert_eq!(found, content);
            }
            write(&mut Reactor::sim(&sim), &target(), &content).unwrap();
        }
    }
}

#[test]
fn a_block_that_is_given_up_leaves_nothing() {
    let sim = machine(1);
    let mut reactor = Reactor::sim(&sim);
    for series in [0, 30] {
        let written = info(77, FileKind::Block, 1);
        let options = options(4000, Effort::Fast);
        let mut writer = FileWriter::begin(&mut reactor, &target(), written, options, 5).unwrap();
        if series > 0 {
            writer.builder().tenant(&TenantId::fake()).unwrap();
            content().fill(writer.builder()).unwrap();
            writer.settle(&mut reactor).unwrap();
        }
        writer.discard_now(&mut reactor);
        assert!(
            reactor
                .run(Op::List { path: dir() })
                .unwrap()
                .entries()
                .is_empty()
        );
    }
}

#[test]
fn every_world_writes_and_reads_the_same() {
    let content = sample_content();
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let path = place.dir().join("one.block");
        let built = write(&mut reactor, &path, &content).unwrap();
        let op = Op::Stat { path: path.clone() };
        assert_eq!(reactor.run(op).unwrap().stat().len, built.bytes);
        let bytes = reactor.read_whole(&path, 1 << 20).unwrap();
        let mut source = crate::Memory::new("one.block", bytes);
        let read = Content::read(&mut source, &TenantId::fake()).unwrap();
        assert_eq!(read, content);
    });
}

/// Story: whoever gave up a file that had failed waited for ever for an operation that nobody had submitted, in every world but the simulated one.
#[test]
fn a_file_that_has_failed_is_given_up_at_once() {
    let mut content = Content::default();
    let noise = super::labels(&[("__name__", "noise")]);
    let mut state = 1u64;
    // More than may wait for the disk.
    for i in 0..6 * WRITE_BYTES as i64 / 8 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        content.put(&noise, i, f64::from_bits(state >> 1));
    }
    for_each_world(|place| {
        let mut reactor = place.reactor();
        let path = place.dir().join("nowhere").join("one.block");
        let written = info(77, FileKind::Block, 1);
        let options = options(4000, Effort::Fast);
        let mut writer = FileWriter::begin(&mut reactor, &path, written, options, 5).unwrap();
        writer.builder().tenant(&TenantId::fake()).unwrap();
        content.fill(writer.builder()).unwrap();
        writer.settle(&mut reactor).unwrap_err();
        writer.discard_now(&mut reactor);
    });
}
