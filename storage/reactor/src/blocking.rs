//! Operations as plain system calls: what a helper thread of the `Threads` world runs, and what the
//! ring's world runs inline where the ring has no such operation.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::limits::DIRECT_ALIGNMENT;
use crate::op::{Entry, Op, OpenMode, Stat};
use crate::table::Value;

/// Files are for the server's user and, reading, its group; directories alike.
pub(crate) const FILE_MODE: u32 = 0o640;
pub(crate) const DIR_MODE: u32 = 0o750;

/// Runs `op` to its end on this thread. `file` is the open file of operations that have one; the
/// descriptor of a close is dropped by the caller.
pub(crate) fn execute(
    op: &mut Op,
    file: Option<BorrowedFd<'_>>,
    direct: bool,
) -> io::Result<Value<OwnedFd>> {
    let fd = || file.expect("operations on files come with their descriptor");
    match op {
        Op::Open { path, mode } => open(path, *mode).map(Value::Handle),
        Op::Close { .. } => Ok(Value::Unit),
        Op::Read {
            offset, buf, len, ..
        } => read(fd(), *offset, &mut buf[..*len], direct).map(Value::Count),
        Op::Write {
            offset,
            buf,
            len,
            dsync,
            ..
        } => write(fd(), *offset, &buf[..*len], *dsync).map(Value::Count),
        Op::Sync {
            data_only: true, ..
        } => unit(|| rustix::fs::fdatasync(fd())),
        Op::Sync {
            data_only: false, ..
        } => unit(|| rustix::fs::fsync(fd())),
        Op::Allocate { offset, len, .. } => {
            unit(|| rustix::fs::fallocate(fd(), FallocateFlags::empty(), *offset, *len))
        }
        Op::Truncate { len, .. } => unit(|| rustix::fs::ftruncate(fd(), *len)),
        Op::Rename { from, to } => unit(|| rustix::fs::renameat(CWD, &*from, CWD, &*to)),
        Op::Link { from, to } => {
            unit(|| rustix::fs::linkat(CWD, &*from, CWD, &*to, AtFlags::empty()))
        }
        Op::Remove { path } => unit(|| rustix::fs::unlinkat(CWD, &*path, AtFlags::empty())),
        Op::RemoveDir { path } => unit(|| rustix::fs::unlinkat(CWD, &*path, AtFlags::REMOVEDIR)),
        Op::SyncDir { path } => {
            let dir = open_dir(path)?;
            unit(|| rustix::fs::fsync(&dir))
        }
        Op::CreateDir { path } => {
            unit(|| rustix::fs::mkdirat(CWD, &*path, Mode::from_raw_mode(DIR_MODE)))
        }
        Op::List { path } => list(path).map(Value::Entries),
        Op::Stat { path } => {
            let metadata = std::fs::metadata(path)?;
            let is_dir = metadata.is_dir();
            Ok(Value::Stat(Stat {
                len: if is_dir { 0 } else { metadata.len() },
                is_dir,
            }))
        }
        Op::Lock { path } => lock(path).map(Value::Handle),
    }
}

/// The flags of `openat`.
///
/// O_DSYNC comes from libc: rustix' `OFlags::DSYNC` is O_SYNC on Linux, which would also write the
/// inode's times at each commit.
pub(crate) fn open_flags(mode: OpenMode) -> i32 {
    assert!(
        mode.read || mode.write,
        "opened neither for reading nor for writing"
    );
    assert!(mode.write || !(mode.create || mode.create_new || mode.dsync));
    let mut flags = libc::O_CLOEXEC;
    flags |= match (mode.read, mode.write) {
        (true, true) => libc::O_RDWR,
        (false, true) => libc::O_WRONLY,
        _ => libc::O_RDONLY,
    };
    if mode.create {
        flags |= libc::O_CREAT;
    }
    if mode.create_new {
        flags |= libc::O_CREAT | libc::O_EXCL;
    }
    if mode.direct {
        flags |= libc::O_DIRECT;
    }
    if mode.dsync {
        flags |= libc::O_DSYNC;
    }
    flags
}

pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(retry(|| {
        rustix::fs::openat(CWD, path, flags, Mode::empty())
    })?)
}

fn open(path: &Path, mode: OpenMode) -> io::Result<OwnedFd> {
    let flags = OFlags::from_bits_retain(open_flags(mode).cast_unsigned());
    Ok(retry(|| {
        rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(FILE_MODE))
    })?)
}

fn lock(path: &Path) -> io::Result<OwnedFd> {
    let file = open(path, OpenMode::create())?;
    retry(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive))?;
    Ok(file)
}

/// Reads until `into` is full or the file ends.
pub(crate) fn read(
    file: BorrowedFd<'_>,
    offset: u64,
    into: &mut [u8],
    direct: bool,
) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        let count = retry(|| rustix::io::pread(file, &mut into[done..], offset + done as u64))?;
        done += count;
        if !read_goes_on(count, direct) {
            break;
        }
    }
    Ok(done)
}

/// Whether a read that brought `count` bytes may not have reached the end of the file. A direct one
/// that ended unaligned did: the next could not begin there.
pub(crate) fn read_goes_on(count: usize, direct: bool) -> bool {
    count > 0 && (!direct || count.is_multiple_of(DIRECT_ALIGNMENT))
}

fn write(file: BorrowedFd<'_>, offset: u64, from: &[u8], dsync: bool) -> io::Result<usize> {
    let flags = if dsync {
        ReadWriteFlags::DSYNC
    } else {
        ReadWriteFlags::empty()
    };
    let mut done = 0;
    while done < from.len() {
        let rest = [IoSlice::new(&from[done..])];
        let count = retry(|| rustix::io::pwritev2(file, &rest, offset + done as u64, flags))?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        done += count;
    }
    Ok(done)
}

fn list(path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // Removed between the two calls: not there.
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let is_dir = metadata.is_dir();
        let len = if is_dir { 0 } else { metadata.len() };
        entries.push(Entry {
            name: entry.file_name(),
            len,
            is_dir,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// The alignment O_DIRECT wants on an open file, `(memory, offset)`, where the kernel tells (statx
/// DIOALIGN, since Linux 6.1; 0 means direct I/O is not supported).
pub(crate) fn direct_alignment(path: &Path) -> io::Result<Option<(u32, u32)>> {
    use rustix::fs::{StatxFlags, statx};
    let found = retry(|| statx(CWD, path, AtFlags::empty(), StatxFlags::DIOALIGN))?;
    let told = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::DIOALIGN);
    Ok(told.then_some((found.stx_dio_mem_align, found.stx_dio_offset_align)))
}

fn unit(call: impl FnMut() -> Result<(), Errno>) -> io::Result<Value<OwnedFd>> {
    retry(call)?;
    Ok(Value::Unit)
}

fn retry<V>(mut call: impl FnMut() -> Result<V, Errno>) -> Result<V, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => (),
            other => return other,
        }
    }
}

/// The descriptor inside a table's handle, for [`execute`].
pub(crate) fn borrowed(handle: &Option<std::sync::Arc<OwnedFd>>) -> Option<BorrowedFd<'_>> {
    handle.as_ref().map(|fd| fd.as_fd())
}
