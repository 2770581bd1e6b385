//! Where the logs are that are not beside the manifest: the part of it that version 2 added (`docs/formats/wal.md`).
//!
//! A directory is known by its number, which stands in the directory itself too ([`crate::Owner`]), never by its path: disks are mounted elsewhere, lists are written in another
//! order. The path is what it was called at the last start, for messages, and for whoever needs to find it while the node runs.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::{BYTES, VERSION};
use crate::frame::{u16_at, u32_at, u64_at};
use crate::limits::{BLOCK_BYTES, DIRECTORIES_MAX, DIRECTORY_PATH_BYTES_MAX};

/// Fixed part of it, behind what all versions have.
const HEAD_BYTES: usize = 32;
/// Fixed part of a directory in it.
const DIRECTORY_BYTES: usize = 20;
/// The flag of a directory.
const JOINING: u16 = 1;
/// The flag of the whole.
const NUMBERING: u16 = 1;

/// Where the logs of a node are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// The number by which its directories know the node; not 0.
    pub node: u128,
    /// Counts the starts of the node; 0: written by a program that did not. Each directory that holds cores has the same ([`crate::Owner::start`]), so that an old copy of one, or of the
    /// manifest, is told from it.
    pub start: u64,
    /// Some directories may have the number before it: a start was under way.
    pub numbering: bool,
    /// At most [`DIRECTORIES_MAX`], at least one.
    pub directories: Vec<Directory>,
    /// For each core the index of its directory; `None`: the log is beside the manifest.
    pub places: Vec<Option<u16>>,
}

/// One of the directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Its number; not 0, and no other's.
    pub id: u128,
    /// Where it was at the last start.
    pub path: PathBuf,
    /// It holds no log in force, and may not be marked yet.
    pub joining: bool,
}

impl Spread {
    /// The directory of a core, if it is not beside the manifest.
    pub fn home(&self, core: u16) -> Option<&Directory> {
        let place = (*self.places.get(usize::from(core))?)?;
        self.directories.get(usize::from(place))
    }

    /// The cores of a directory.
    pub fn cores_of(&self, directory: usize) -> Vec<u16> {
        let here = |(core, place): (u16, &Option<u16>)| {
            (place.map(usize::from) == Some(directory)).then_some(core)
        };
        (0..).zip(&self.places).filter_map(here).collect()
    }

    /// What stands behind the first part of the manifest, and the checksum of it. Panics where it is not what a reader would take.
    pub(super) fn encode(&self, cores: u16) -> (u64, Vec<u8>) {
        assert_eq!(self.places.len(), usize::from(cores));
        let mut bytes = vec![0; HEAD_BYTES];
        for directory in &self.directories {
            let path = directory.path.as_os_str().as_bytes();
            let flags = if directory.joining { JOINING } else { 0 };
            let len = u16::try_from(path.len()).expect("the caller has checked its length");
            bytes.extend_from_slice(&directory.id.to_le_bytes());
            bytes.extend_from_slice(&flags.to_le_bytes());
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(path);
        }
        for place in &self.places {
            let place = place.map_or(0, |place| place + 1);
            bytes.extend_from_slice(&place.to_le_bytes());
        }
        let (body, count) = (bytes.len() - HEAD_BYTES, self.directories.len() as u16);
        bytes[..4].copy_from_slice(&(body as u32).to_le_bytes());
        bytes[4..6].copy_from_slice(&count.to_le_bytes());
        let flags = if self.numbering { NUMBERING } else { 0 };
        bytes[6..8].copy_from_slice(&flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.start.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.node.to_le_bytes());
        let checksum = xxh3_64(&bytes);
        let read = decode(checksum, &bytes, cores);
        assert_eq!(read.as_ref(), Ok(self), "what is written can be read");
        (checksum, bytes)
    }
}

/// Bytes of the manifest that begins like this, as far as can be told.
pub(super) fn file_bytes(bytes: &[u8]) -> usize {
    match bytes.get(..BYTES + HEAD_BYTES) {
        Some(head) if u16_at(head, 16) == VERSION => {
            let body = u32_at(head, BYTES) as usize;
            (BYTES + HEAD_BYTES + body).next_multiple_of(BLOCK_BYTES)
        }
        _ => BLOCK_BYTES,
    }
}

/// Reads what [`Spread::encode`] has made; more may follow. Errors: what is wrong.
pub(super) fn decode(checksum: u64, bytes: &[u8], cores: u16) -> Result<Spread, String> {
    let number = |at: &[u8]| u128::from_le_bytes(at.try_into().expect("sixteen bytes were taken"));
    let cut = "it is cut short, or the length of its second part is wrong";
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(cut)?;
    let body = u32_at(head, 0) as usize;
    let mut rest = rest.get(..body).ok_or(cut)?;
    if xxh3_64(&bytes[..HEAD_BYTES + body]) != checksum {
        return Err("the checksum of its second part is wrong".to_owned());
    }
    let mut take = |count: usize| {
        let taken = rest.split_at_checked(count);
        let (taken, left) = taken.ok_or("a directory or a place is missing")?;
        rest = left;
        Ok::<&[u8], String>(taken)
    };
    let count = usize::from(u16_at(head, 4));
    if !(1..=DIRECTORIES_MAX).contains(&count) {
        return Err(format!("it names {count} directories"));
    }
    let flags = u16_at(head, 6);
    if flags & !NUMBERING != 0 {
        return Err(format!("its flags are {flags:#x}"));
    }
    let mut directories = Vec::new();
    let mut ids = HashSet::from([0]);
    for _ in 0..count {
        let fixed = take(DIRECTORY_BYTES)?;
        let (id, flags) = (number(&fixed[..16]), u16_at(fixed, 16));
        let len = usize::from(u16_at(fixed, 18));
        if !ids.insert(id) {
            return Err("the number of a directory is zero or that of another".to_owned());
        }
        if flags & !JOINING != 0 || !(1..=DIRECTORY_PATH_BYTES_MAX).contains(&len) {
            return Err("flags or the path of a directory cannot be".to_owned());
        }
        let path = Path::new(OsStr::from_bytes(take(len)?)).to_owned();
        let joining = flags & JOINING != 0;
        directories.push(Directory { id, path, joining });
    }
    let mut places = Vec::new();
    for _ in 0..cores {
        let place = u16_at(take(2)?, 0).checked_sub(1);
        let home = place.map(|place| directories.get(usize::from(place)));
        match home {
            None => {}
            Some(Some(home)) if !home.joining => {}
            _ => return Err("a core is in a directory that cannot have it".to_owned()),
        }
        places.push(place);
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes are too many", rest.len()));
    }
    let node = number(&head[16..32]);
    match node {
        0 => Err("the number of the node is zero".to_owned()),
        node => Ok(Spread {
            node,
            start: u64_at(head, 8),
            numbering: flags & NUMBERING != 0,
            directories,
            places,
        }),
    }
}
