//! Whose a directory is: the file that tells a directory of logs from an empty one, and one node's from another's.
//!
//! `<directory>/wal/owner` names the node and the directory by the numbers that stand in the node's manifest ([`crate::Spread`]). It is written before a log begins there, so a
//! directory without it where the manifest wants one is a disk that is not mounted; and it is replaced by every start, which has a number: so an old copy is known.

use std::io::ErrorKind;
use std::path::Path;

use reactor::Reactor;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;
use crate::frame::{u16_at, u64_at};
use crate::limits::BLOCK_BYTES;

const MAGIC: [u8; 8] = *b"MYELNOWN";
const VERSION: u16 = 1;
/// Meaningful bytes at the start of the file.
const BYTES: usize = 64;
const NAME: &str = "owner";

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// As in the manifest of the node.
    pub node: u128,
    /// Of this directory.
    pub directory: u128,
    /// The start of the node at which it was last used; 0: by a program that did not count.
    pub start: u64,
}

impl Owner {
    /// Reads whose the tree is; `None` where nobody's.
    ///
    /// Errors: [`Error::Corrupt`], [`Error::Version`].
    pub fn read(reactor: &mut Reactor, root: &Path) -> Result<Option<Owner>, Error> {
        let path = root.join(NAME);
        let bytes = match reactor.read_whole(&path, BLOCK_BYTES) {
            Ok(bytes) => bytes,
            Err(failure) if failure.is_not_found() => return Ok(None),
            Err(failure) if failure.source.kind() == ErrorKind::FileTooLarge => Vec::new(),
            Err(failure) => return Err(failure.into()),
        };
        let corrupt = |reason: &str| Error::Corrupt {
            path: path.clone(),
            offset: 0,
            reason: reason.to_owned(),
        };
        let bytes = bytes.get(..BYTES);
        let bytes = bytes.ok_or_else(|| corrupt("its length is wrong"))?;
        if bytes[8..16] != MAGIC || u64_at(bytes, 0) != xxh3_64(&bytes[8..]) {
            return Err(corrupt("magic or checksum is wrong"));
        }
        let version = u16_at(bytes, 16);
        if version != VERSION {
            let known = VERSION;
            return Err(Error::Version {
                path,
                version,
                known,
            });
        }
        let number = |at: usize| {
            let bytes = bytes[at..at + 16].try_into();
            u128::from_le_bytes(bytes.expect("sixteen bytes were taken"))
        };
        Ok(Some(Owner {
            node: number(24),
            directory: number(40),
            start: u64_at(bytes, 56),
        }))
    }

    /// Marks a tree, durably. The directory of it is there.
    pub fn write(&self, reactor: &mut Reactor, root: &Path) -> Result<(), Error> {
        let mut bytes = vec![0; BLOCK_BYTES];
        bytes[8..16].copy_from_slice(&MAGIC);
        bytes[16..18].copy_from_slice(&VERSION.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.node.to_le_bytes());
        bytes[40..56].copy_from_slice(&self.directory.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.start.to_le_bytes());
        let checksum = xxh3_64(&bytes[8..BYTES]);
        bytes[..8].copy_from_slice(&checksum.to_le_bytes());
        Ok(reactor.replace_whole(&root.join(NAME), &bytes)?)
    }

    /// Removes the mark, durably. There need not be one.
    pub fn remove(reactor: &mut Reactor, root: &Path) -> Result<(), Error> {
        let path = root.join(NAME);
        match reactor.run(reactor::Op::Remove { path }) {
            Err(failure) if !failure.is_not_found() => return Err(failure.into()),
            _ => {}
        }
        let path = root.to_owned();
        reactor.run(reactor::Op::SyncDir { path })?;
        Ok(())
    }
}
