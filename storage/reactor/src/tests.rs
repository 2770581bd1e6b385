//! The same behaviour in every world: `files` (what operations do), `turns` (the loop, timers,
//! stash), `doorbell` (waking, and no lost wake), `seats` (several on one loop), `ring` (that the ring is used, cheap, and
//! replaced where it is blocked).

mod doorbell;
mod files;
mod ring;
mod seats;
mod turns;

use std::path::Path;

use crate::{Buffer, Done, Event, File, Op, OpResult, OpenMode, Reactor};

pub(crate) fn open(reactor: &mut Reactor, path: &Path, mode: OpenMode) -> File {
    reactor
        .run(Op::Open {
            path: path.to_owned(),
            mode,
        })
        .expect("open")
        .file()
}

/// A buffer whose first `len` bytes are `byte`.
pub(crate) fn filled(reactor: &mut Reactor, byte: u8, len: usize) -> Buffer {
    let mut buf = reactor.buffer(len);
    buf[..len].fill(byte);
    buf
}

pub(crate) fn write(
    reactor: &mut Reactor,
    file: File,
    offset: u64,
    byte: u8,
    len: usize,
) -> OpResult {
    let buf = filled(reactor, byte, len);
    reactor.run(Op::Write {
        file,
        offset,
        buf,
        len,
        dsync: false,
    })
}

pub(crate) fn read(reactor: &mut Reactor, file: File, offset: u64, len: usize) -> Vec<u8> {
    let buf = reactor.buffer(len);
    let done = reactor
        .run(Op::Read {
            file,
            offset,
            buf,
            len,
        })
        .expect("read");
    let (buf, len) = done.buffer();
    let content = buf[..len].to_vec();
    reactor.recycle(buf);
    content
}

/// Waits for `count` completions; returns them by token in order of arrival.
pub(crate) fn completions(reactor: &mut Reactor, count: usize) -> Vec<(u64, OpResult)> {
    let mut found = Vec::new();
    let mut events = Vec::new();
    while found.len() < count {
        reactor.wait(None, &mut events);
        assert!(!events.is_empty(), "waiting for ever brought nothing");
        for event in events.drain(..) {
            match event {
                Event::Completion { token, result } => found.push((token, result)),
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    assert_eq!(found.len(), count);
    found
}

pub(crate) fn names(reactor: &mut Reactor, path: &Path) -> Vec<String> {
    let done = reactor
        .run(Op::List {
            path: path.to_owned(),
        })
        .expect("list");
    done.entries()
        .into_iter()
        .map(|entry| entry.name.into_string().expect("a plain name"))
        .collect()
}

pub(crate) fn exists(reactor: &mut Reactor, path: &Path) -> bool {
    match reactor.run(Op::Stat {
        path: path.to_owned(),
    }) {
        Ok(Done::Stat(_)) => true,
        Err(failure) if failure.is_not_found() => false,
        other => panic!("stat brought {other:?}"),
    }
}
