//! The operations a core can ask for, and what comes back.
//!
//! One [`Op`] is one completion. Paths are resolved by the kernel relative to the working
//! directory; the simulation takes them from its root.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::buffer::Buffer;
use crate::error::Failure;

/// Handle of an open file: an index into the table of the reactor that opened it, and of that one
/// only. Its generation is unique in the process, so a stale or foreign handle is caught by an
/// assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct File {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenMode {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Create it if it is missing.
    pub create: bool,
    /// Create it; `EEXIST` if it is there.
    pub create_new: bool,
    /// O_DIRECT: offsets, lengths and buffers are multiples of `DIRECT_ALIGNMENT` (asserted).
    pub direct: bool,
    /// O_DSYNC: each write is durable when it completes.
    pub dsync: bool,
}

impl OpenMode {
    /// An existing file, for reading.
    pub fn read_only() -> OpenMode {
        OpenMode {
            read: true,
            ..OpenMode::default()
        }
    }

    /// A file that must not exist yet, for reading and writing.
    pub fn create_new() -> OpenMode {
        OpenMode {
            read: true,
            write: true,
            create_new: true,
            ..OpenMode::default()
        }
    }

    /// An existing or new file, for reading and writing.
    pub fn create() -> OpenMode {
        OpenMode {
            read: true,
            write: true,
            create: true,
            ..OpenMode::default()
        }
    }

    /// The same, with O_DIRECT as given.
    pub fn direct(self, direct: bool) -> OpenMode {
        OpenMode { direct, ..self }
    }

    /// The same, with O_DSYNC as given.
    pub fn dsync(self, dsync: bool) -> OpenMode {
        OpenMode { dsync, ..self }
    }
}

/// One operation. What it does is durable only where that is said.
#[derive(Debug)]
pub enum Op {
    /// Opens a file. A created one is durable after [`Op::SyncDir`] on its directory.
    Open {
        /// The file.
        path: PathBuf,
        /// How.
        mode: OpenMode,
    },
    /// Closes a file; none of its operations may be in flight (asserted). Releases a lock.
    Close {
        /// The file.
        file: File,
    },
    /// Reads up to `len` bytes into the start of `buf`; fewer only at the end of the file.
    Read {
        /// The file.
        file: File,
        /// Where in the file.
        offset: u64,
        /// Given back with the result.
        buf: Buffer,
        /// How much, at most `buf.len()`.
        len: usize,
    },
    /// Writes the first `len` bytes of `buf`: all of them, or the operation fails.
    Write {
        /// The file.
        file: File,
        /// Where in the file.
        offset: u64,
        /// Given back with the result.
        buf: Buffer,
        /// How much, at most `buf.len()`.
        len: usize,
        /// RWF_DSYNC: durable when it completes, as if the file were opened `dsync`.
        dsync: bool,
    },
    /// Makes everything written to the file before this was submitted *and completed* durable.
    Sync {
        /// The file.
        file: File,
        /// fdatasync: without times and other metadata that reading does not need.
        data_only: bool,
    },
    /// Takes disk space for a range (`fallocate`), extending the file with zeros where it ends
    /// before. Durable after [`Op::Sync`].
    Allocate {
        /// The file.
        file: File,
        /// Start of the range.
        offset: u64,
        /// Its length, not zero.
        len: u64,
    },
    /// Sets the length of a file. Durable after [`Op::Sync`].
    Truncate {
        /// The file.
        file: File,
        /// The new length.
        len: u64,
    },
    /// Renames a file, replacing what is there. Durable after [`Op::SyncDir`].
    Rename {
        /// Old path.
        from: PathBuf,
        /// New path, on the same file system.
        to: PathBuf,
    },
    /// Gives a file another name (a hard link); `EEXIST` if that is taken. Durable after [`Op::SyncDir`].
    Link {
        /// A name it has.
        from: PathBuf,
        /// The other one, on the same file system.
        to: PathBuf,
    },
    /// Removes a file. Durable after [`Op::SyncDir`].
    Remove {
        /// The file.
        path: PathBuf,
    },
    /// Removes an empty directory. Durable after [`Op::SyncDir`] on its parent.
    RemoveDir {
        /// The directory.
        path: PathBuf,
    },
    /// Makes creations, renames and removals in a directory durable, as far as they had completed
    /// when this was submitted.
    SyncDir {
        /// The directory.
        path: PathBuf,
    },
    /// Creates a directory; `EEXIST` if it is there. Durable after [`Op::SyncDir`] on its parent.
    CreateDir {
        /// The directory.
        path: PathBuf,
    },
    /// Lists a directory, sorted by name.
    List {
        /// The directory.
        path: PathBuf,
    },
    /// Length and kind of a file.
    Stat {
        /// The file or directory.
        path: PathBuf,
    },
    /// Opens (creates) a file and takes an exclusive lock on it, which ends with [`Op::Close`], the
    /// reactor or the process. `ErrorKind::WouldBlock` if another holds it.
    Lock {
        /// The lock file.
        path: PathBuf,
    },
}

/// The kinds of [`Op`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as the operations")]
pub enum OpKind {
    Open,
    Close,
    Read,
    Write,
    Sync,
    Allocate,
    Truncate,
    Rename,
    Link,
    Remove,
    RemoveDir,
    SyncDir,
    CreateDir,
    List,
    Stat,
    Lock,
}

impl OpKind {
    /// A verb for messages.
    pub fn name(self) -> &'static str {
        match self {
            OpKind::Open => "open",
            OpKind::Close => "close",
            OpKind::Read => "read",
            OpKind::Write => "write",
            OpKind::Sync => "sync",
            OpKind::Allocate => "allocate",
            OpKind::Truncate => "truncate",
            OpKind::Rename => "rename",
            OpKind::Link => "link",
            OpKind::Remove => "remove",
            OpKind::RemoveDir => "remove directory",
            OpKind::SyncDir => "sync directory",
            OpKind::CreateDir => "create directory",
            OpKind::List => "list",
            OpKind::Stat => "stat",
            OpKind::Lock => "lock",
        }
    }
}

impl Op {
    /// Which of them it is.
    pub fn kind(&self) -> OpKind {
        match self {
            Op::Open { .. } => OpKind::Open,
            Op::Close { .. } => OpKind::Close,
            Op::Read { .. } => OpKind::Read,
            Op::Write { .. } => OpKind::Write,
            Op::Sync { .. } => OpKind::Sync,
            Op::Allocate { .. } => OpKind::Allocate,
            Op::Truncate { .. } => OpKind::Truncate,
            Op::Rename { .. } => OpKind::Rename,
            Op::Link { .. } => OpKind::Link,
            Op::Remove { .. } => OpKind::Remove,
            Op::RemoveDir { .. } => OpKind::RemoveDir,
            Op::SyncDir { .. } => OpKind::SyncDir,
            Op::CreateDir { .. } => OpKind::CreateDir,
            Op::List { .. } => OpKind::List,
            Op::Stat { .. } => OpKind::Stat,
            Op::Lock { .. } => OpKind::Lock,
        }
    }

    pub(crate) fn file(&self) -> Option<File> {
        match *self {
            Op::Close { file }
            | Op::Read { file, .. }
            | Op::Write { file, .. }
            | Op::Sync { file, .. }
            | Op::Allocate { file, .. }
            | Op::Truncate { file, .. } => Some(file),
            _ => None,
        }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Op::Open { path, .. }
            | Op::Rename { from: path, .. }
            | Op::Link { from: path, .. }
            | Op::Remove { path }
            | Op::RemoveDir { path }
            | Op::SyncDir { path }
            | Op::CreateDir { path }
            | Op::List { path }
            | Op::Stat { path }
            | Op::Lock { path } => Some(path),
            _ => None,
        }
    }

    pub(crate) fn offset(&self) -> Option<u64> {
        match *self {
            Op::Read { offset, .. } | Op::Write { offset, .. } | Op::Allocate { offset, .. } => {
                Some(offset)
            }
            Op::Truncate { len, .. } => Some(len),
            _ => None,
        }
    }

    /// Bytes of a read, write or allocation; 0 for others.
    pub(crate) fn len(&self) -> u64 {
        match *self {
            Op::Read { len, .. } | Op::Write { len, .. } => len as u64,
            Op::Allocate { len, .. } => len,
            _ => 0,
        }
    }

    pub(crate) fn into_buffer(self) -> Option<Buffer> {
        match self {
            Op::Read { buf, .. } | Op::Write { buf, .. } => Some(buf),
            _ => None,
        }
    }
}

/// What an operation brought.
#[derive(Debug)]
pub enum Done {
    /// [`Op::Open`].
    Opened(File),
    /// [`Op::Close`].
    Closed,
    /// [`Op::Read`]: the first `len` bytes of `buf` are from the file.
    Read {
        /// The buffer given.
        buf: Buffer,
        /// Less than asked for only at the end of the file.
        len: usize,
    },
    /// [`Op::Write`].
    Wrote {
        /// The buffer given.
        buf: Buffer,
        /// As asked for.
        len: usize,
    },
    /// [`Op::Sync`], [`Op::SyncDir`].
    Synced,
    /// [`Op::Allocate`].
    Allocated,
    /// [`Op::Truncate`].
    Truncated,
    /// [`Op::Rename`].
    Renamed,
    /// [`Op::Link`].
    Linked,
    /// [`Op::Remove`], [`Op::RemoveDir`].
    Removed,
    /// [`Op::CreateDir`].
    Created,
    /// [`Op::List`].
    Listed(Vec<Entry>),
    /// [`Op::Stat`].
    Stat(Stat),
    /// [`Op::Lock`].
    Locked(File),
}

impl Done {
    /// The file of `Opened` or `Locked`; panics on others.
    pub fn file(self) -> File {
        match self {
            Done::Opened(file) | Done::Locked(file) => file,
            other => panic!("expected an opened file, found {other:?}"),
        }
    }

    /// Buffer and length of `Read` or `Wrote`; panics on others.
    pub fn buffer(self) -> (Buffer, usize) {
        match self {
            Done::Read { buf, len } | Done::Wrote { buf, len } => (buf, len),
            other => panic!("expected a read or write, found {other:?}"),
        }
    }

    /// The entries of `Listed`; panics on others.
    pub fn entries(self) -> Vec<Entry> {
        match self {
            Done::Listed(entries) => entries,
            other => panic!("expected a listing, found {other:?}"),
        }
    }

    /// The content of `Stat`; panics on others.
    pub fn stat(self) -> Stat {
        match self {
            Done::Stat(stat) => stat,
            other => panic!("expected a stat, found {other:?}"),
        }
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Without the directory.
    pub name: OsString,
    /// Bytes; 0 for a directory.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Length and kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Bytes; 0 for a directory.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// How an operation ended.
pub type OpResult = Result<Done, Failure>;

/// What a turn of the loop found.
#[derive(Debug)]
pub enum Event {
    /// An operation ended.
    Completion {
        /// As given to `submit`.
        token: u64,
        /// How.
        result: OpResult,
    },
    /// Somebody rang; look at the mailbox.
    Doorbell,
    /// A timer is due; its token.
    Timer(u64),
}
