//! Open files of one reactor, and how an operation begins and ends on them.
//!
//! The same for all worlds; `T` is what a world opens: a descriptor, or an inode of the simulation.
//! Here the contract of operations is asserted: live handle, aligned direct I/O, no close under an
//! operation in flight.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::buffer::Buffer;
use crate::error::Failure;
use crate::limits::DIRECT_ALIGNMENT;
use crate::op::{Done, Entry, File, Op, OpKind, OpResult, Stat};

/// Unique generations over all reactors of the process, so that a handle used on the wrong reactor
/// is found out. After 2^32 opens they repeat, and only this check gets weaker.
static GENERATION: AtomicU32 = AtomicU32::new(1);

pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

struct Slot<T> {
    generation: u32,
    open: Option<OpenFile<T>>,
}

struct OpenFile<T> {
    handle: T,
    path: Arc<Path>,
    direct: bool,
    in_flight: u32,
}

/// An operation as the world needs it.
pub(crate) struct Begun<T> {
    /// What the file's slot holds, for operations on files. For a close the slot is empty now.
    pub(crate) handle: Option<T>,
    /// For failures.
    pub(crate) path: Arc<Path>,
    /// Whether the file is opened with O_DIRECT.
    pub(crate) direct: bool,
}

/// What a world found, before it becomes a [`Done`].
pub(crate) enum Value<T> {
    Unit,
    Count(usize),
    Handle(T),
    Entries(Vec<Entry>),
    Stat(Stat),
}

impl<T: Clone> Table<T> {
    pub(crate) fn new() -> Table<T> {
        Table {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// What an open file's slot holds.
    pub(crate) fn handle(&mut self, file: File) -> T {
        self.open_mut(file).handle.clone()
    }

    /// Checks the contract and takes the file into use. Panics where the caller broke it.
    pub(crate) fn begin(&mut self, op: &Op) -> Begun<T> {
        let Some(file) = op.file() else {
            let path = op.path().expect("an operation has a file or a path");
            return Begun {
                handle: None,
                path: Arc::from(path),
                direct: false,
            };
        };
        let open = self.open_mut(file);
        if let Op::Close { .. } = op {
            assert_eq!(
                open.in_flight,
                0,
                "close of {} with operations in flight",
                open.path.display()
            );
            let open = self.slots[file.index as usize]
                .open
                .take()
                .expect("checked above");
            self.free.push(file.index);
            return Begun {
                handle: Some(open.handle),
                path: open.path,
                direct: open.direct,
            };
        }
        match op {
            Op::Read {
                offset, buf, len, ..
            }
            | Op::Write {
                offset, buf, len, ..
            } => {
                check_transfer(open.direct, *offset, buf, *len);
            }
            Op::Allocate { offset, len, .. } => {
                assert!(*len > 0, "an allocation of nothing");
                assert!(
                    offset
                        .checked_add(*len)
                        .is_some_and(|end| end <= i64::MAX as u64)
                );
            }
            _ => (),
        }
        open.in_flight += 1;
        Begun {
            handle: Some(open.handle.clone()),
            path: Arc::clone(&open.path),
            direct: open.direct,
        }
    }

    /// Turns what the world found into the result, and puts an opened file into the table.
    pub(crate) fn end(&mut self, op: Op, path: Arc<Path>, found: io::Result<Value<T>>) -> OpResult {
        let kind = op.kind();
        if let Some(file) = op.file()
            && kind != OpKind::Close
        {
            let open = self.open_mut(file);
            assert!(open.in_flight > 0);
            open.in_flight -= 1;
        }
        let offset = op.offset();
        let value = match found {
            Ok(value) => value,
            Err(source) => {
                return Err(Failure {
                    op: kind,
                    path,
                    offset,
                    source,
                    buf: op.into_buffer(),
                });
            }
        };
        Ok(match (op, value) {
            (Op::Open { mode, .. }, Value::Handle(handle)) => {
                Done::Opened(self.insert(handle, path, mode.direct))
            }
            (Op::Lock { .. }, Value::Handle(handle)) => {
                Done::Locked(self.insert(handle, path, false))
            }
            (
                Op::Read {
                    buf, len: asked, ..
                },
                Value::Count(len),
            ) => {
                assert!(len <= asked);
                Done::Read { buf, len }
            }
            (
                Op::Write {
                    buf, len: asked, ..
                },
                Value::Count(len),
            ) => {
                assert_eq!(len, asked, "a write is whole or failed");
                Done::Wrote { buf, len }
            }
            (Op::List { .. }, Value::Entries(entries)) => Done::Listed(entries),
            (Op::Stat { .. }, Value::Stat(stat)) => Done::Stat(stat),
            (Op::Close { .. }, Value::Unit) => Done::Closed,
            (Op::Sync { .. } | Op::SyncDir { .. }, Value::Unit) => Done::Synced,
            (Op::Allocate { .. }, Value::Unit) => Done::Allocated,
            (Op::Truncate { .. }, Value::Unit) => Done::Truncated,
            (Op::Rename { .. }, Value::Unit) => Done::Renamed,
            (Op::Link { .. }, Value::Unit) => Done::Linked,
            (Op::Remove { .. } | Op::RemoveDir { .. }, Value::Unit) => Done::Removed,
            (Op::CreateDir { .. }, Value::Unit) => Done::Created,
            _ => unreachable!("a {} ended with a value of another kind", kind.name()),
        })
    }

    fn insert(&mut self, handle: T, path: Arc<Path>, direct: bool) -> File {
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        let open = Some(OpenFile {
            handle,
            path,
            direct,
            in_flight: 0,
        });
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot {
                    generation: 0,
                    open: None,
                });
                u32::try_from(self.slots.len() - 1).expect("fewer files than 2^32")
            }
        };
        let slot = &mut self.slots[index as usize];
        assert!(slot.open.is_none());
        *slot = Slot { generation, open };
        File { index, generation }
    }

    fn open_mut(&mut self, file: File) -> &mut OpenFile<T> {
        self.slots
            .get_mut(file.index as usize)
            .filter(|slot| slot.generation == file.generation)
            .and_then(|slot| slot.open.as_mut())
            .expect("the file is not open on this reactor")
    }

    /// Everything still open, in order of opening slots; empties the table.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.slots
            .iter_mut()
            .filter_map(|slot| slot.open.take())
            .map(|open| open.handle)
    }
}

/// The contract of reads and writes. The lengths are the caller's own, so a breach is a bug.
fn check_transfer(direct: bool, offset: u64, buf: &Buffer, len: usize) {
    assert!(len > 0, "a transfer of nothing");
    assert!(
        len <= buf.len(),
        "a transfer of {len} bytes with a buffer of {}",
        buf.len()
    );
    assert!(
        offset
            .checked_add(len as u64)
            .is_some_and(|end| end <= i64::MAX as u64)
    );
    if direct {
        let aligned = DIRECT_ALIGNMENT as u64;
        assert!(
            offset.is_multiple_of(aligned),
            "direct I/O at the unaligned offset {offset}"
        );
        assert!(
            len.is_multiple_of(DIRECT_ALIGNMENT),
            "direct I/O of the unaligned length {len}"
        );
        assert!(buf.as_ptr().addr().is_multiple_of(DIRECT_ALIGNMENT));
    }
}
