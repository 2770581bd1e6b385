//! The tree above the cores' logs: the lock, the manifest, and the directories of a generation.
//!
//! ```text
//! <data>/wal/lock   <data>/wal/manifest   <data>/wal/g0000000001/core-000/
//! ```
//!
//! A *generation* is the set of logs for one number of cores. When that number changes, all old logs are replayed, each new core keeps what placement
//! gives it and writes a checkpoint in the next generation's directory; then the manifest is replaced. That rename is the moment the change takes effect:
//! before it a crash leaves the old generation in force, after it the new one, and what is not in force is removed by [`remove_generation`].
//!
//! Logs may be spread over further directories, each of which has a tree of its own, `<directory>/wal`, with a lock and the logs of some cores. Which core is where stands in the
//! manifest of the node ([`Spread`]); whose a directory is, in the directory ([`crate::Owner`]).
//!
//! Order at the very first start: lock, manifest, then logs. So a manifest that is missing where there are logs is damage, not a new tree.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use reactor::{Buffer, File, Op, OpenMode, Reactor};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;
use crate::frame::{u16_at, u32_at, u64_at};
use crate::limits::{BLOCK_BYTES, MANIFEST_BYTES_MAX};
use crate::names::{self, Name};

mod spread;

pub use spread::{Directory, Spread};

const MAGIC: [u8; 8] = *b"MYELNMAN";
/// Without a [`Spread`] version 1 is written, as ever.
const VERSION: u16 = 2;
/// Bytes that all versions have in common; nothing of version 1 stands behind them.
const BYTES: usize = 32;

/// Which generation of logs is in force, and where its logs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Counts the changes of the number of cores, or of where they are, from 1.
    pub generation: u32,
    /// Number of cores, i.e. of logs.
    pub cores: u16,
    /// `None`: all logs are in the tree of the manifest.
    pub spread: Option<Spread>,
}

/// The tree in a directory.
pub fn tree(directory: &Path) -> PathBuf {
    directory.join("wal")
}

/// The directory of a core's log.
pub fn core_dir(root: &Path, generation: u32, core: u16) -> PathBuf {
    generation_dir(root, generation).join(format!("core-{core:03}"))
}

fn generation_dir(root: &Path, generation: u32) -> PathBuf {
    root.join(format!("g{generation:010}"))
}

/// The right to use a tree; held until it is released or the reactor that took it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of the tree, making its directory if need be.
    ///
    /// Errors: [`Error::Locked`] if another process (or reactor) holds it.
    pub fn take(reactor: &mut Reactor, root: &Path) -> Result<Lock, Error> {
        create_dirs(reactor, root)?;
        let path = root.join("lock");
        match reactor.run(Op::Lock { path: path.clone() }) {
            Ok(done) => Ok(Lock { file: done.file() }),
            Err(failure) if failure.source.kind() == ErrorKind::WouldBlock => {
                Err(Error::Locked { path })
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Gives it up. `reactor` is the one it was taken with.
    pub fn release(self, reactor: &mut Reactor) -> Result<(), Error> {
        reactor.run(Op::Close { file: self.file })?;
        Ok(())
    }
}

impl Manifest {
    /// Reads the manifest; `None` where there is neither one nor a log. What is read is durable when it returns: others are removed on the strength
    /// of it, and a former start may have ended between renaming it and the sync.
    ///
    /// Errors: [`Error::Corrupt`] if it is damaged, or missing beside logs; [`Error::Version`].
    pub fn read(reactor: &mut Reactor, root: &Path) -> Result<Option<Manifest>, Error> {
        let path = root.join("manifest");
        let file = match reactor.run(Op::Open {
            path: path.clone(),
            mode: OpenMode::read_only(),
        }) {
            Ok(done) => done.file(),
            Err(failure) if failure.is_not_found() => {
                if has_logs(reactor, root)? {
                    let reason = "it is missing, but there are logs".to_owned();
                    return Err(Error::Corrupt {
                        path,
                        offset: 0,
                        reason,
                    });
                }
                return Ok(None);
            }
            Err(failure) => return Err(failure.into()),
        };
        let mut wanted = BLOCK_BYTES;
        let decoded = loop {
            let buf = reactor.buffer(wanted);
            let read = Op::Read {
                file,
                offset: 0,
                buf,
                len: wanted,
            };
            let (buf, len) = reactor.run(read)?.buffer();
            let bytes = &buf[..len.min(wanted)];
            let whole = spread::file_bytes(bytes).min(MANIFEST_BYTES_MAX);
            if whole <= wanted {
                let decoded = Manifest::decode(bytes, path);
                reactor.recycle(buf);
                break decoded;
            }
            reactor.recycle(buf);
            wanted = whole;
        };
        reactor.run(Op::Close { file })?;
        let manifest = decoded?;
        reactor.run(Op::SyncDir {
            path: root.to_owned(),
        })?;
        Ok(Some(manifest))
    }

    /// The tree in which the log of a core is; `root` is that of the manifest.
    pub fn tree_of(&self, root: &Path, core: u16) -> PathBuf {
        match self.spread.as_ref().and_then(|spread| spread.home(core)) {
            None => root.to_owned(),
            Some(directory) => tree(&directory.path),
        }
    }

    fn decode(bytes: &[u8], path: PathBuf) -> Result<Manifest, Error> {
        let corrupt = |reason: &str| {
            Err(Error::Corrupt {
                path: path.clone(),
                offset: 0,
                reason: reason.to_owned(),
            })
        };
        let Some(head) = bytes.get(..BYTES) else {
            return corrupt("it is cut short");
        };
        if head[8..16] != MAGIC || u64_at(head, 0) != xxh3_64(&head[8..]) {
            return corrupt("magic or checksum is wrong");
        }
        let (version, cores) = (u16_at(head, 16), u16_at(head, 18));
        let spread = match version {
            1 => None,
            2 => match spread::decode(u64_at(head, 24), &bytes[BYTES..], cores) {
                Ok(spread) => Some(spread),
                Err(reason) => return corrupt(&reason),
            },
            _ => {
                let known = VERSION;
                return Err(Error::Version {
                    path,
                    version,
                    known,
                });
            }
        };
        let manifest = Manifest {
            cores,
            generation: u32_at(bytes, 20),
            spread,
        };
        if manifest.cores == 0 || manifest.generation == 0 {
            return corrupt("a count is zero");
        }
        Ok(manifest)
    }

    /// The whole file.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        bytes[8..16].copy_from_slice(&MAGIC);
        bytes[16..18].copy_from_slice(&1u16.to_le_bytes());
        bytes[18..20].copy_from_slice(&self.cores.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.generation.to_le_bytes());
        let more = self.spread.as_ref().map(|spread| spread.encode(self.cores));
        if let Some((checksum, _)) = &more {
            bytes[16..18].copy_from_slice(&VERSION.to_le_bytes());
            bytes[24..32].copy_from_slice(&checksum.to_le_bytes());
        }
        let checksum = xxh3_64(&bytes[8..]);
        bytes[..8].copy_from_slice(&checksum.to_le_bytes());
        bytes.extend(more.into_iter().flat_map(|(_, more)| more));
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        bytes
    }

    /// Puts this manifest in force: durable when it returns.
    pub fn write(&self, reactor: &mut Reactor, root: &Path) -> Result<(), Error> {
        assert!(self.cores > 0 && self.generation > 0, "{self:?}");
        let (path, unfinished) = (root.join("manifest"), root.join("manifest.tmp"));
        let file = reactor
            .run(Op::Open {
                path: unfinished.clone(),
                mode: OpenMode::create(),
            })?
            .file();
        let bytes = self.encode();
        let mut buf = Buffer::new(bytes.len());
        buf[..bytes.len()].copy_from_slice(&bytes);
        reactor.run(Op::Write {
            file,
            offset: 0,
            buf,
            len: bytes.len(),
            dsync: false,
        })?;
        reactor.run(Op::Sync {
            file,
            data_only: false,
        })?;
        reactor.run(Op::Close { file })?;
        reactor.run(Op::Rename {
            from: unfinished,
            to: path,
        })?;
        reactor.run(Op::SyncDir {
            path: root.to_owned(),
        })?;
        Ok(())
    }
}

/// Whether a tree holds a file of a log, of whatever generation.
pub fn has_logs(reactor: &mut Reactor, root: &Path) -> Result<bool, Error> {
    for generation in generations(reactor, root)? {
        let dir = generation_dir(root, generation);
        let cores = reactor.run(Op::List { path: dir.clone() })?.entries();
        for core in cores.iter().filter(|entry| entry.is_dir) {
            let path = dir.join(&core.name);
            if !reactor.run(Op::List { path })?.entries().is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The generations that have a directory, ascending; none where the tree does not exist.
pub fn generations(reactor: &mut Reactor, root: &Path) -> Result<Vec<u32>, Error> {
    let entries = match reactor.run(Op::List {
        path: root.to_owned(),
    }) {
        Ok(done) => done.entries(),
        Err(failure) if failure.is_not_found() => return Ok(Vec::new()),
        Err(failure) => return Err(failure.into()),
    };
    let number = |entry: &reactor::Entry| {
        let digits = entry.name.to_str()?.strip_prefix('g')?;
        (entry.is_dir && digits.len() == 10).then(|| digits.parse().ok())?
    };
    Ok(entries.iter().filter_map(number).collect())
}

/// The newest checkpoint in the directory of a core's log that bears its name, and so is whole and durable; never written to again.
pub fn newest_checkpoint(reactor: &mut Reactor, dir: &Path) -> Result<Option<PathBuf>, Error> {
    let path = dir.to_owned();
    let entries = reactor.run(Op::List { path })?.entries();
    let number = |entry: &reactor::Entry| match Name::parse(&entry.name) {
        Name::Checkpoint(number) => Some(number),
        _ => None,
    };
    let newest = entries.iter().filter_map(number).max();
    Ok(newest.map(|number| names::checkpoint(dir, number)))
}

/// Removes the directory of a generation that is not in force, with all its logs.
pub fn remove_generation(reactor: &mut Reactor, root: &Path, generation: u32) -> Result<(), Error> {
    let dir = generation_dir(root, generation);
    for core in reactor.run(Op::List { path: dir.clone() })?.entries() {
        let core_path = dir.join(&core.name);
        if !core.is_dir {
            reactor.run(Op::Remove { path: core_path })?;
            continue;
        }
        for entry in reactor
            .run(Op::List {
                path: core_path.clone(),
            })?
            .entries()
        {
            reactor.run(Op::Remove {
                path: core_path.join(entry.name),
            })?;
        }
        reactor.run(Op::RemoveDir { path: core_path })?;
    }
    reactor.run(Op::RemoveDir { path: dir })?;
    reactor.run(Op::SyncDir {
        path: root.to_owned(),
    })?;
    Ok(())
}

/// Makes a directory with its parents, durably: see [`Reactor::create_dirs`].
pub fn create_dirs(reactor: &mut Reactor, path: &Path) -> Result<(), Error> {
    Ok(reactor.create_dirs(path)?)
}

#[cfg(test)]
mod tests;
