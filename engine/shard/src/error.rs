//! Why the cores cannot start or cannot go on. What a push or a read is refused for is in `message`.

use std::path::PathBuf;

use model::Class;

/// Errors of start, topology and stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `-core-set` is not a list of numbers and ranges.
    #[error("core set {text:?}: {reason}")]
    CoreSet {
        /// As given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `-core-set` names a CPU that the process may not use.
    #[error("CPU {cpu} of core set {text:?} is outside of the inherited affinity mask {mask}")]
    OutsideMask {
        /// The first such CPU.
        cpu: usize,
        /// As given.
        text: String,
        /// The mask, in the same notation.
        mask: String,
    },
    /// The affinity mask cannot be read or set.
    #[error("CPU affinity: {0}")]
    Affinity(#[source] std::io::Error),
    /// An option has a value that makes no sense.
    #[error("{key}: {reason}")]
    Option {
        /// The option's name.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// A thread cannot be started.
    #[error("cannot start the thread of core {core}: {source}")]
    Thread {
        /// Which core.
        core: u16,
        /// From the system.
        source: std::io::Error,
    },
    /// Neither io_uring nor helper threads can be had as asked for.
    #[error("cannot open the reactor: {0}")]
    Reactor(#[source] reactor::Error),
    /// The log cannot be read, made or continued; names the file.
    #[error("write-ahead log: {0}")]
    Log(#[from] wal::Error),
    /// A chunk file cannot be read or written; names file and offset.
    #[error(transparent)]
    Chunk(crate::ReadError),
    /// The directory of blocks cannot be read or made; names it.
    #[error("blocks: {0}")]
    Block(String),
    /// The data directory holds something that cannot be used.
    #[error("{}: {reason}", path.display())]
    Data {
        /// Which file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// Client: a wrong option. Internal: the machine.
    pub fn class(&self) -> Class {
        match self {
            Error::CoreSet { .. } | Error::OutsideMask { .. } | Error::Option { .. } => {
                Class::Client
            }
            _ => Class::Internal,
        }
    }
}
