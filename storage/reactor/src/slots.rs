//! A file of slots of a fixed size, each one line of text: what a process is doing, to be read after it died of it.
//!
//! Not part of any core's loop and not durable: a line is written to the page cache by whoever calls, which outlives the process but
//! not the machine. Format: `docs/formats/queries-active.md`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Bytes of a slot, its line end included. As much of a query as tells which one it is.
pub const SLOT_BYTES: usize = 1024;

/// Slots of a file at most: a megabyte.
pub const SLOTS_MAX: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct SlotFile {
    file: File,
    free: Mutex<Vec<usize>>,
}

impl SlotFile {
    /// Opens or makes the file with `slots` empty slots, and returns the lines that a process before this one left in it.
    ///
    /// Errors: the file or its directory cannot be made. Panics with more than [`SLOTS_MAX`] slots.
    pub fn open(path: &Path, slots: usize) -> io::Result<(SlotFile, Vec<String>)> {
        assert!(slots <= SLOTS_MAX, "the file is bounded");
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path)?;
        let mut before = Vec::new();
        let most = (SLOTS_MAX * SLOT_BYTES) as u64;
        file.by_ref().take(most).read_to_end(&mut before)?;
        let lines = String::from_utf8_lossy(&before);
        let lines = lines.lines().map(str::trim_end).filter(|l| !l.is_empty());
        let left: Vec<String> = lines.map(str::to_owned).collect();
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        let slot = line("");
        for at in 0..slots {
            file.write_all_at(&slot, (at * SLOT_BYTES) as u64)?;
        }
        let free = Mutex::new((0..slots).rev().collect());
        Ok((SlotFile { file, free }, left))
    }

    /// Writes a line, cut to the size of a slot, and returns its slot; `None` when all are taken or the file cannot be written.
    pub fn enter(&self, text: &str) -> Option<usize> {
        let slot = self.free().pop()?;
        match self.file.write_all_at(&line(text), offset(slot)) {
            Ok(()) => Some(slot),
            Err(_) => {
                self.free().push(slot);
                None
            }
        }
    }

    /// Empties a slot.
    pub fn leave(&self, slot: usize) {
        // A line that stays is told after the next start, with a time that shows how old it is.
        let _ = self.file.write_all_at(&line(""), offset(slot));
        self.free().push(slot);
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offset(slot: usize) -> u64 {
    (slot * SLOT_BYTES) as u64
}

/// The text without line ends, cut at a character, filled up with spaces.
fn line(text: &str) -> [u8; SLOT_BYTES] {
    let mut slot = [b' '; SLOT_BYTES];
    slot[SLOT_BYTES - 1] = b'\n';
    let mut end = text.len().min(SLOT_BYTES - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    slot[..end].copy_from_slice(&text.as_bytes()[..end]);
    for byte in slot[..end].iter_mut().filter(|b| b.is_ascii_control()) {
        *byte = b' ';
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_left_is_told_to_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/queries.active");
        let (file, left) = SlotFile::open(&path, 2).unwrap();
        assert!(left.is_empty());
        let first = file.enter("first\nline").unwrap();
        let second = file.enter(&"\u{e4}".repeat(SLOT_BYTES)).unwrap();
        assert_eq!(file.enter("no room"), None);
        file.leave(first);
        let third = file.enter("third").unwrap();
        assert_ne!(third, second);
        drop(file);
        let size = std::fs::metadata(&path).unwrap().len();
        assert_eq!(size, 2 * SLOT_BYTES as u64);
        let (file, mut left) = SlotFile::open(&path, 3).unwrap();
        left.sort_unstable();
        assert_eq!(left[0], "third");
        assert_eq!(left[1], "\u{e4}".repeat((SLOT_BYTES - 1) / 2));
        file.enter("again").unwrap();
        drop(file);
        let (_, left) = SlotFile::open(&path, 1).unwrap();
        assert_eq!(left, ["again"]);
    }
}
