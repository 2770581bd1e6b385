//! The simulated file system: what is live, kept apart from what is synced.
//!
//! A change of a file (write, length, allocation) is applied to its *live* content when the
//! operation completes and is remembered as *pending*; a sync folds what was pending when it was
//! submitted into the *synced* content, a dsync write folds itself. The same for names: a directory
//! entry created, renamed or removed is pending until a sync of the directory. A crash keeps of the
//! pending changes what chance wants (`survive`), and the live version becomes the synced one.
//!
//! More is allowed to happen here than on ext4 or xfs (where, for instance, a directory's changes
//! survive in order): code that holds here holds there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path};
use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;

use super::content::{Change, Content};
use crate::limits::SECTOR_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Inode(u64);

const ROOT: Inode = Inode(0);

/// An errno.
pub(super) type Errno = i32;

#[derive(Debug)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Debug, Default)]
struct FileNode {
    live: Content,
    synced: Content,
    /// In the order of completion.
    pending: Vec<Pending<Change>>,
    /// Live names that lead here; without one its space does not count.
    names: u32,
}

#[derive(Debug, Default)]
struct DirNode {
    live: BTreeMap<OsString, Inode>,
    synced: BTreeMap<OsString, Inode>,
}

/// A change not known to be durable.
#[derive(Debug)]
struct Pending<C> {
    /// When it was made, in the disk's count of changes.
    sequence: u64,
    change: C,
    /// A sync failed on it: the kernel has marked it clean and forgotten it, so no later sync makes
    /// it durable.
    lost: bool,
}

/// A change of names. A rename is one change, in one or two directories.
#[derive(Debug, Clone)]
enum NameChange {
    Link {
        dir: Inode,
        name: OsString,
        inode: Inode,
    },
    Unlink {
        dir: Inode,
        name: OsString,
    },
    Move {
        from: (Inode, OsString),
        to: (Inode, OsString),
        inode: Inode,
    },
}

impl NameChange {
    fn touches(&self, wanted: Inode) -> bool {
        match self {
            NameChange::Link { dir, .. } | NameChange::Unlink { dir, .. } => *dir == wanted,
            NameChange::Move { from, to, .. } => from.0 == wanted || to.0 == wanted,
        }
    }
}

/// How a crash treats what is pending.
#[derive(Debug, Clone, Copy)]
enum Mercy {
    None,
    All,
    Each,
}

#[derive(Debug)]
pub(super) struct Disk {
    nodes: BTreeMap<Inode, Node>,
    names: Vec<Pending<NameChange>>,
    next_inode: u64,
    sequence: u64,
    /// Space taken by live files that have a name.
    used: u64,
    pub(super) capacity: u64,
}

impl Disk {
    pub(super) fn new(capacity: u64) -> Disk {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]);
        Disk {
            nodes,
            names: Vec::new(),
            next_inode: 1,
            sequence: 0,
            used: 0,
            capacity,
        }
    }

    /// The number of changes so far: a sync covers those up to the number at its submission.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    // --- Names ---

    pub(super) fn lookup(&self, path: &Path) -> Result<Inode, Errno> {
        let mut at = ROOT;
        for name in components(path) {
            at = *self.dir(at)?.live.get(name).ok_or(libc::ENOENT)?;
        }
        Ok(at)
    }

    pub(super) fn is_dir(&self, inode: Inode) -> bool {
        matches!(self.nodes[&inode], Node::Dir(_))
    }

    pub(super) fn create_file(&mut self, path: &Path) -> Result<Inode, Errno> {
        self.create(
            path,
            Node::File(FileNode {
                names: 1,
                ..FileNode::default()
            }),
        )
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> Result<Inode, Errno> {
        self.create(path, Node::Dir(DirNode::default()))
    }

    fn create(&mut self, path: &Path, node: Node) -> Result<Inode, Errno> {
        let (dir, name) = self.place(path)?;
        if self.dir(dir)?.live.contains_key(&name) {
            return Err(libc::EEXIST);
        }
        let inode = Inode(self.next_inode);
        self.next_inode += 1;
        self.nodes.insert(inode, node);
        self.change_names(NameChange::Link { dir, name, inode });
        Ok(inode)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        let inode = self.lookup(from)?;
        let (from, to) = (self.place(from)?, self.place(to)?);
        if from == to {
            return Ok(());
        }
        if let Some(&replaced) = self.dir(to.0)?.live.get(&to.1) {
            match (self.is_dir(inode), self.is_dir(replaced)) {
                (false, true) => return Err(libc::EISDIR),
                (true, false) => return Err(libc::ENOTDIR),
                (true, true) if !self.dir(replaced)?.live.is_empty() => {
                    return Err(libc::ENOTEMPTY);
                }
                _ => self.release(replaced),
            }
        }
        self.change_names(NameChange::Move { from, to, inode });
        Ok(())
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        let inode = self.lookup(from)?;
        let (dir, name) = self.place(to)?;
        if self.is_dir(inode) {
            return Err(libc::EPERM);
        }
        if self.dir(dir)?.live.contains_key(&name) {
            return Err(libc::EEXIST);
        }
        self.file_mut(inode).names += 1;
        self.change_names(NameChange::Link { dir, name, inode });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, dir_wanted: bool) -> Result<(), Errno> {
        let inode = self.lookup(path)?;
        let (dir, name) = self.place(path)?;
        match &self.nodes[&inode] {
            Node::Dir(_) if !dir_wanted => return Err(libc::EISDIR),
            Node::File(_) if dir_wanted => return Err(libc::ENOTDIR),
            Node::Dir(found) if !found.live.is_empty() => return Err(libc::ENOTEMPTY),
            _ => (),
        }
        self.release(inode);
        self.change_names(NameChange::Unlink { dir, name });
        Ok(())
    }

    /// Name, length, whether it is a directory; sorted by name.
    pub(super) fn list(&self, path: &Path) -> Result<Vec<(OsString, u64, bool)>, Errno> {
        let dir = self.dir(self.lookup(path)?)?;
        let entry = |(name, &inode): (&OsString, &Inode)| {
            (name.clone(), self.len(inode), self.is_dir(inode))
        };
        Ok(dir.live.iter().map(entry).collect())
    }

    /// Makes the names in a directory durable, as far as they were changed up to `sequence`.
    pub(super) fn sync_dir(&mut self, path: &Path, sequence: u64) -> Result<(), Errno> {
        let dir = self.lookup(path)?;
        self.dir(dir)?;
        let mut kept = Vec::new();
        for pending in std::mem::take(&mut self.names) {
            if pending.sequence > sequence || !pending.change.touches(dir) {
                kept.push(pending);
            } else if !pending.lost {
                self.apply_names(&pending.change, true);
            }
        }
        self.names = kept;
        Ok(())
    }

    /// A sync of a directory that failed.
    pub(super) fn lose_names(&mut self, path: &Path, sequence: u64, rng: &mut SmallRng) {
        let Ok(dir) = self.lookup(path) else { return };
        for pending in &mut self.names {
            if pending.sequence <= sequence && pending.change.touches(dir) {
                pending.lost |= rng.random_bool(0.5);
            }
        }
    }

    fn change_names(&mut self, change: NameChange) {
        self.apply_names(&change, false);
        self.sequence += 1;
        self.names.push(Pending {
            sequence: self.sequence,
            change,
            lost: false,
        });
    }

    fn apply_names(&mut self, change: &NameChange, synced: bool) {
        match change {
            NameChange::Link { dir, name, inode } => {
                self.entries(*dir, synced).insert(name.clone(), *inode);
            }
            NameChange::Unlink { dir, name } => {
                self.entries(*dir, synced).remove(name);
            }
            NameChange::Move { from, to, inode } => {
                // A file has one name in a directory, also where a crash kept a later move of it and not the one before: whatever it
                // is called on the disk, the move takes that name away.
                for dir in [from.0, to.0] {
                    self.entries(dir, synced)
                        .retain(|_, named| *named != *inode);
                }
                self.entries(to.0, synced).insert(to.1.clone(), *inode);
            }
        }
    }

    fn entries(&mut self, dir: Inode, synced: bool) -> &mut BTreeMap<OsString, Inode> {
        match self.nodes.get_mut(&dir) {
            Some(Node::Dir(DirNode {
                live,
                synced: on_disk,
            })) => {
                if synced {
                    on_disk
                } else {
                    live
                }
            }
            _ => unreachable!("names are changed in directories"),
        }
    }

    /// The directory and the name in it.
    fn place(&self, path: &Path) -> Result<(Inode, OsString), Errno> {
        let name = path.file_name().ok_or(libc::EINVAL)?.to_owned();
        let dir = self.lookup(path.parent().unwrap_or(Path::new("")))?;
        Ok((dir, name))
    }

    fn dir(&self, inode: Inode) -> Result<&DirNode, Errno> {
        match &self.nodes[&inode] {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(libc::ENOTDIR),
        }
    }

    /// Gives back the space of a file that lost its name (open handles on it are not counted).
    fn release(&mut self, inode: Inode) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&inode) {
            assert!(file.names > 0);
            file.names -= 1;
            if file.names == 0 {
                self.used -= file.live.allocated();
            }
        }
    }

    // --- Files ---

    pub(super) fn len(&self, inode: Inode) -> u64 {
        match &self.nodes[&inode] {
            Node::File(file) => file.live.len(),
            Node::Dir(_) => 0,
        }
    }

    pub(super) fn read(&self, inode: Inode, offset: u64, into: &mut [u8]) -> usize {
        self.file(inode).live.read(offset, into)
    }

    pub(super) fn live(&self, inode: Inode) -> Vec<u8> {
        self.file(inode).live.bytes()
    }

    pub(super) fn synced(&self, inode: Inode) -> Vec<u8> {
        self.file(inode).synced.bytes()
    }

    /// Applies a change to the live content; durable at once if `durable`.
    pub(super) fn change(
        &mut self,
        inode: Inode,
        change: Change,
        durable: bool,
    ) -> Result<(), Errno> {
        let (used, capacity) = (self.used, self.capacity);
        self.sequence += 1;
        let sequence = self.sequence;
        let file = self.file_mut(inode);
        let grows = file.live.grows_by(&change);
        if grows > 0 && file.names > 0 && used.saturating_add(grows) > capacity {
            return Err(libc::ENOSPC);
        }
        let before = file.live.allocated();
        file.live.apply(&change);
        let after = file.live.allocated();
        if durable {
            file.make_durable(&change);
        } else {
            file.pending.push(Pending {
                sequence,
                change,
                lost: false,
            });
        }
        if file.names > 0 {
            self.used = used + after - before;
        }
        Ok(())
    }

    /// Makes the changes up to `sequence` durable.
    pub(super) fn sync(&mut self, inode: Inode, sequence: u64) {
        let file = self.file_mut(inode);
        let keep_from = file
            .pending
            .partition_point(|pending| pending.sequence <= sequence);
        for pending in file.pending.drain(..keep_from) {
            if !pending.lost {
                file.synced.apply(&pending.change);
            }
        }
    }

    /// A sync of a file that failed: some of what it should have made durable never will be.
    pub(super) fn lose(&mut self, inode: Inode, sequence: u64, rng: &mut SmallRng) {
        for pending in &mut self.file_mut(inode).pending {
            if pending.sequence <= sequence {
                pending.lost |= rng.random_bool(0.5);
            }
        }
    }

    /// Changes bytes both live and on disk, as a decaying medium would.
    pub(super) fn flip(&mut self, inode: Inode, offset: u64, mask: u8) {
        let file = self.file_mut(inode);
        for content in [&mut file.live, &mut file.synced] {
            let mut byte = [0];
            if content.read(offset, &mut byte) == 1 {
                content.apply(&Change::Write {
                    offset,
                    data: Arc::from([byte[0] ^ mask]),
                });
            }
        }
    }

    fn file(&self, inode: Inode) -> &FileNode {
        match &self.nodes[&inode] {
            Node::File(file) => file,
            Node::Dir(_) => unreachable!("only files are opened"),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> &mut FileNode {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => file,
            _ => unreachable!("only files are opened"),
        }
    }

    // --- The power goes ---

    /// What is left after a power cut: of everything pending, what chance wants.
    pub(super) fn crash(&mut self, rng: &mut SmallRng) {
        let mercy = Mercy::draw(rng);
        for pending in std::mem::take(&mut self.names) {
            if !pending.lost && mercy.spares(rng) {
                self.apply_names(&pending.change, true);
            }
        }
        let mercy = Mercy::draw(rng);
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => {
                    for pending in std::mem::take(&mut file.pending) {
                        if pending.lost {
                            continue;
                        }
                        for part in survive(&pending.change, mercy, rng) {
                            file.synced.apply(&part);
                        }
                    }
                    file.live = file.synced.clone();
                    file.names = 0;
                }
                Node::Dir(dir) => dir.live = dir.synced.clone(),
            }
        }
        self.collect_garbage();
    }

    /// Forgets what no name leads to, and counts the space anew.
    fn collect_garbage(&mut self) {
        let mut reached = BTreeSet::new();
        let mut open = vec![ROOT];
        while let Some(inode) = open.pop() {
            if reached.insert(inode)
                && let Some(Node::Dir(dir)) = self.nodes.get(&inode)
            {
                open.extend(dir.live.values());
            }
        }
        self.nodes.retain(|inode, _| reached.contains(inode));
        let dirs = self.nodes.values().filter_map(|node| match node {
            Node::Dir(dir) => Some(dir.live.values().copied()),
            Node::File(_) => None,
        });
        for inode in dirs.flatten().collect::<Vec<_>>() {
            if let Some(Node::File(file)) = self.nodes.get_mut(&inode) {
                file.names += 1;
            }
        }
        self.used = self
            .nodes
            .values()
            .map(|node| match node {
                Node::File(file) => file.live.allocated(),
                Node::Dir(_) => 0,
            })
            .sum();
    }
}

impl FileNode {
    /// A dsync write: it is durable, and so are earlier changes of the length and allocation, which
    /// it needs to be found again. Earlier pending writes keep their chance, but not over this one.
    fn make_durable(&mut self, change: &Change) {
        let Change::Write { offset, data } = change else {
            unreachable!("only writes are dsync");
        };
        let mut kept: Vec<Pending<Change>> = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            match &pending.change {
                Change::Write { .. } => kept.push(pending),
                Change::Allocate { .. } if pending.lost => (),
                Change::Allocate { .. } => self.synced.apply(&pending.change),
                Change::SetLen { len } => {
                    kept = kept
                        .into_iter()
                        .flat_map(|write| write.without(*len, u64::MAX))
                        .collect();
                    self.synced.apply(&pending.change);
                }
            }
        }
        let end = offset + data.len() as u64;
        self.pending = kept
            .into_iter()
            .flat_map(|write| write.without(*offset, end))
            .collect();
        self.synced.apply(change);
    }
}

impl Pending<Change> {
    /// A pending write without the bytes from `start` to `end`.
    fn without(self, start: u64, end: u64) -> Vec<Pending<Change>> {
        let Change::Write { offset, data } = &self.change else {
            unreachable!("called for writes");
        };
        let (offset, stop) = (*offset, *offset + data.len() as u64);
        if stop <= start || end <= offset {
            return vec![self];
        }
        let part = |from: u64, to: u64| Pending {
            sequence: self.sequence,
            change: Change::Write {
                offset: from,
                data: Arc::from(&data[(from - offset) as usize..(to - offset) as usize]),
            },
            lost: self.lost,
        };
        let mut parts = Vec::new();
        if offset < start {
            parts.push(part(offset, start));
        }
        if end < stop {
            parts.push(part(end, stop));
        }
        parts
    }
}

impl Mercy {
    fn draw(rng: &mut SmallRng) -> Mercy {
        match rng.random_range(0..4) {
            0 => Mercy::None,
            1 => Mercy::All,
            _ => Mercy::Each,
        }
    }

    fn spares(self, rng: &mut SmallRng) -> bool {
        match self {
            Mercy::None => false,
            Mercy::All => true,
            Mercy::Each => rng.random_bool(0.5),
        }
    }
}

/// What of a pending change is on disk after a power cut: nothing, all, or of a write some sectors.
fn survive(change: &Change, mercy: Mercy, rng: &mut SmallRng) -> Vec<Change> {
    match (mercy, change) {
        (Mercy::None, _) => Vec::new(),
        (Mercy::All, _) => vec![change.clone()],
        (Mercy::Each, Change::Write { .. }) => match rng.random_range(0..3) {
            0 => Vec::new(),
            1 => vec![change.clone()],
            _ => tear(change, rng),
        },
        (Mercy::Each, _) => {
            if rng.random_bool(0.5) {
                vec![change.clone()]
            } else {
                Vec::new()
            }
        }
    }
}

/// Some sectors of a write: the first ones, the last ones, or any.
pub(super) fn tear(change: &Change, rng: &mut SmallRng) -> Vec<Change> {
    let Change::Write { offset, data } = change else {
        return vec![change.clone()];
    };
    let sectors = sectors(*offset, data.len());
    let cut = rng.random_range(0..=sectors.len());
    let style = rng.random_range(0..3);
    let mut parts = Vec::new();
    for (index, sector) in sectors.into_iter().enumerate() {
        let kept = match style {
            0 => index < cut,
            1 => index >= cut,
            _ => rng.random_bool(0.5),
        };
        if kept {
            let data = Arc::from(&data[sector.clone()]);
            parts.push(Change::Write {
                offset: offset + sector.start as u64,
                data,
            });
        }
    }
    parts
}

/// Cuts the data of a write at the sector boundaries of the disk.
fn sectors(offset: u64, len: usize) -> Vec<std::ops::Range<usize>> {
    let mut parts = Vec::new();
    let mut start = 0;
    while start < len {
        let into = ((offset + start as u64) % SECTOR_BYTES as u64) as usize;
        let end = len.min(start + SECTOR_BYTES - into);
        parts.push(start..end);
        start = end;
    }
    parts
}

/// The names of a path, from the root. The simulation has no working directory and no links.
fn components(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::RootDir | Component::CurDir => None,
        Component::ParentDir | Component::Prefix(_) => {
            panic!("the simulated disk does not know `..`: {}", path.display())
        }
    })
}
