//! Snapshots: a copy of the node's data beside it, `<data>/snapshots/<name>`, on which a node starts (`docs/decisions/0018-snapshots.md`).
//!
//! 1. The keeper takes the *turn* that a core needs for a cut (`cut::write`): meanwhile nothing moves between heads and blocks, and nothing is deleted.
//! 2. Every core writes a checkpoint that begins behind the request. With the chunk files that it names it holds all that was acknowledged before: a log that ends at
//!    a checkpoint is whole without segments, which are written over in place when they are recycled and so cannot be linked.
//! 3. The keeper links ([`make`]): deletions, then blocks, then checkpoints and chunk files. A chunk file that may still grow is copied.
//!
//! Links do not cross file systems. So of cores in other directories (`directories`) the files are linked within these, into `<directory>/snapshots/<name>`: *parts*, each with a mark by
//! which the manifest of the snapshot, and no other, knows it. The snapshot is a node of its own, to which it does not matter where its parts are.
//!
//! Everything goes into `<name>.tmp`, which gets its name when all of it is durable, parts first. Until then there is no manifest beside its logs, so that no node starts on it; a
//! start, and the next snapshot, remove it.
//!
//! While files are linked others come and go: merges replace blocks, uploads take them from the disk, checkpoints follow one another. What a list names and is gone is
//! looked for in a new list: a merged file hides its sources also where some of these have been linked before. Deletions are linked first: those that are over by
//! then are not missed by the blocks that come after; one that ends later only costs another merge.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use block::Catalog;
use reactor::{Failure, Op, OpenMode, Reactor};
use wal::{Directory, Manifest, Owner, Spread};

use crate::chunkfile;

/// A snapshot of the node, whichever core it is sent to.
pub struct Snapshot {
    /// Without what is in heads: blocks and deletions alone.
    pub skip_head: bool,
    /// Set when nobody waits any more: it does not begin then.
    pub canceled: Arc<AtomicBool>,
    /// Called once: with its name when it is durable, or why there is none.
    pub reply: Box<dyn FnOnce(Result<String, String>) + Send>,
}

/// End of the name of one that is being made.
const UNFINISHED: &str = ".tmp";

/// Lists that may change under our hands until it is given up. Each costs a merge or two checkpoints that end within moments.
const TRIES: usize = 16;

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// Where the snapshots of a data directory are.
pub(crate) fn directory(data: &Path) -> PathBuf {
    data.join("snapshots")
}

/// Makes a snapshot and returns its name. `dirs`: the data directory, and those of cores. `logs`: checkpoints have just been written that hold the heads.
///
/// Errors: why there is none; what could be removed of it has been.
pub(crate) fn make(
    reactor: &mut Reactor,
    (data, core_dirs): (&Path, &[PathBuf]),
    catalog: &Catalog,
    logs: bool,
    chance: u64,
) -> Result<String, String> {
    let name = format!("{}-{chance:016x}", shown(reactor.wall_ms()));
    let all = directory(data);
    let unfinished = all.join(format!("{name}{UNFINISHED}"));
    let made = (|| {
        reactor.create_dirs(&all).map_err(text)?;
        remove_unfinished(reactor, data, core_dirs).map_err(text)?;
        let parts = fill(reactor, data, catalog, logs, &name, &unfinished)?;
        for part in parts {
            let (from, to) = (part.join(format!("{name}{UNFINISHED}")), part.join(&name));
            reactor.run(Op::Rename { from, to }).map_err(text)?;
            sync_dir(reactor, &part)?;
        }
        let (from, to) = (unfinished.clone(), all.join(&name));
        reactor.run(Op::Rename { from, to }).map_err(text)?;
        reactor.run(Op::SyncDir { path: all.clone() }).map_err(text)
    })();
    match made {
        Ok(_) => Ok(name),
        Err(reason) => {
            // It may have its name already, which only a whole one has.
            let (from, to) = (all.join(&name), unfinished.clone());
            let _ = reactor.run(Op::Rename { from, to });
            let _ = sync_dir(reactor, &all);
            let _ = remove_unfinished(reactor, data, core_dirs);
            Err(reason)
        }
    }
}

/// Removes what was not finished. There need not be a directory.
///
/// Parts may have their names before the whole has its own, which goes last: what is left is always found by it.
pub(crate) fn remove_unfinished(
    reactor: &mut Reactor,
    data: &Path,
    core_dirs: &[PathBuf],
) -> Result<(), Failure> {
    let all = directory(data);
    for (file, _) in list(reactor, &all)? {
        let Some(name) = unfinished_name(&file) else {
            continue;
        };
        for dir in core_dirs {
            let path = directory(dir);
            remove_tree(reactor, &path.join(&file))?;
            remove_tree(reactor, &path.join(&name))?;
            // On another disk: it must not come back when that by which it is found has gone.
            match reactor.run(Op::SyncDir { path }) {
                Err(failure) if !failure.is_not_found() => return Err(failure),
                _ => {}
            }
        }
        remove_tree(reactor, &all.join(&file))?;
    }
    // Those whose whole was lost with the power.
    for dir in core_dirs {
        for (file, _) in list(reactor, &directory(dir))? {
            if unfinished_name(&file).is_some() {
                remove_tree(reactor, &directory(dir).join(file))?;
            }
        }
    }
    Ok(())
}

/// The name of one that is not finished.
pub(crate) fn unfinished_name(file: &OsString) -> Option<String> {
    let name = file.to_str()?.strip_suffix(UNFINISHED)?;
    // Without one it would be the directory of all.
    (!name.is_empty()).then(|| name.to_owned())
}

/// Fills the snapshot and its parts, and makes them durable. Returns the directories of the parts.
fn fill(
    reactor: &mut Reactor,
    data: &Path,
    catalog: &Catalog,
    logs: bool,
    name: &str,
    into: &Path,
) -> Result<Vec<PathBuf>, String> {
    let root = wal::tree(data);
    let manifest = Manifest::read(reactor, &root).map_err(text)?;
    let manifest = manifest.ok_or("there is no manifest")?;
    let to_root = wal::tree(into);
    // Something that looks like a log comes first, and its manifest last: a node does not start on that.
    let first = wal::core_dir(&to_root, manifest.generation, 0);
    reactor.create_dirs(&first).map_err(text)?;
    let guard = first.join("unfinished");
    let mode = OpenMode::create_new();
    let path = guard.clone();
    let file = reactor.run(Op::Open { path, mode }).map_err(text)?.file();
    reactor.run(Op::Close { file }).map_err(text)?;
    sync_dir(reactor, &first)?;
    link_deletions(reactor, data, into)?;
    link_blocks(reactor, data, catalog, into)?;
    let mut all = Vec::new();
    if logs {
        let spread = manifest.spread.as_ref();
        let (spread, parts) = spread.map_or((None, Vec::new()), |spread| in_parts(spread, name));
        let target = Manifest {
            spread,
            ..manifest.clone()
        };
        for core in 0..manifest.cores {
            let home = |manifest: &Manifest, root: &Path| {
                let tree = manifest.tree_of(root, core);
                wal::core_dir(&tree, manifest.generation, core)
            };
            let (from, to) = (home(&manifest, &root), home(&target, &to_root));
            // Parts have their names later.
            let to = parts.iter().fold(to, |to, part| {
                let rest = to.strip_prefix(&part.path).map(Path::to_owned);
                rest.map_or(to, |rest| part.unfinished.join(rest))
            });
            reactor.create_dirs(&to).map_err(text)?;
            link_log(reactor, &from, &to)?;
        }
        for part in parts {
            let tree = wal::tree(&part.unfinished);
            part.owner.write(reactor, &tree).map_err(text)?;
            sync_dir(reactor, &part.unfinished)?;
            let above = part.path.parent().expect("it lies in a directory");
            all.push(above.to_owned());
        }
        let has_first = target.tree_of(&to_root, 0) == to_root;
        if !has_first {
            // Its core is elsewhere: without the manifest it would be an empty node.
            target.write(reactor, &to_root).map_err(text)?;
        }
        reactor.run(Op::Remove { path: guard }).map_err(text)?;
        sync_dir(reactor, &first)?;
        if has_first {
            target.write(reactor, &to_root).map_err(text)?;
        }
    } else {
        remove_tree(reactor, &to_root).map_err(text)?;
    }
    sync_dir(reactor, into)?;
    Ok(all)
}

/// A part of a snapshot.
struct Part {
    /// What it is called when the snapshot is whole, and until then.
    path: PathBuf,
    unfinished: PathBuf,
    owner: Owner,
}

/// The same cores in parts of a snapshot, under numbers that no node has.
fn in_parts(spread: &Spread, name: &str) -> (Option<Spread>, Vec<Part>) {
    let node = block::fresh_id(0).max(1);
    let mut of_parts = Spread {
        node,
        start: 1,
        numbering: false,
        directories: Vec::new(),
        places: Vec::new(),
    };
    let mut parts = Vec::new();
    let mut new_places: HashMap<u16, u16> = HashMap::new();
    for place in &spread.places {
        let new = place.map(|place| {
            *new_places.entry(place).or_insert_with(|| {
                let all = directory(&spread.directories[usize::from(place)].path);
                let id = block::fresh_id(0).max(1);
                parts.push(Part {
                    path: all.join(name),
                    unfinished: all.join(format!("{name}{UNFINISHED}")),
                    owner: Owner {
                        node,
                        directory: id,
                        start: 1,
                    },
                });
                of_parts.directories.push(Directory {
                    id,
                    path: all.join(name),
                    joining: false,
                });
                parts.len() as u16 - 1
            })
        });
        of_parts.places.push(new);
    }
    ((!parts.is_empty()).then_some(of_parts), parts)
}

fn link_deletions(reactor: &mut Reactor, data: &Path, into: &Path) -> Result<(), String> {
    let (from, to) = (
        crate::deletions_directory(data),
        crate::deletions_directory(into),
    );
    reactor.create_dirs(&to).map_err(text)?;
    for (name, is_dir) in list(reactor, &from).map_err(text)? {
        // What is replaced has its name all the time; what it is replaced with has another.
        if !is_dir && name.to_string_lossy().ends_with(".deletions") {
            link(reactor, &from.join(&name), &to.join(&name)).map_err(text)?;
        }
    }
    sync_dir(reactor, &to)
}

fn link_blocks(
    reactor: &mut Reactor,
    data: &Path,
    catalog: &Catalog,
    into: &Path,
) -> Result<(), String> {
    let to = crate::blocks_directory(into);
    debug_assert!(crate::blocks_directory(data) != to);
    reactor.create_dirs(&to).map_err(text)?;
    let mut linked: HashSet<u128> = HashSet::new();
    for _ in 0..TRIES {
        let mut whole = true;
        for block in catalog.list().iter() {
            let id = block.meta().info.id;
            // All of a spent one is in others of this list; its file goes before it leaves the list.
            if linked.contains(&id) || block.is_spent() {
                continue;
            }
            let path = block.path();
            let name = path.file_name().ok_or("a block without a name")?;
            match link(reactor, path, &to.join(name)) {
                Ok(()) => drop(linked.insert(id)),
                Err(failure) if failure.is_not_found() => whole = false,
                Err(failure) => return Err(text(failure)),
            }
        }
        if whole {
            return sync_dir(reactor, &to);
        }
    }
    Err("blocks are merged or removed all the time".to_owned())
}

/// Links the newest checkpoint of a core, and the chunk files.
fn link_log(reactor: &mut Reactor, from: &Path, to: &Path) -> Result<(), String> {
    for _ in 0..TRIES {
        let newest = wal::newest_checkpoint(reactor, from).map_err(text)?;
        let newest = newest.ok_or_else(|| format!("no checkpoint in {}", from.display()))?;
        let name = newest.file_name().expect("it was listed");
        let files = chunkfile::list(reactor, from).map_err(text)?;
        let mut made = vec![to.join(name)];
        let mut linked = link(reactor, &newest, &made[0]);
        for (at, &number) in files.iter().enumerate() {
            let (path, other) = (chunkfile::name(from, number), chunkfile::name(to, number));
            made.push(other.clone());
            let one = match at + 1 == files.len() {
                true => copy(reactor, &path, &other),
                false => link(reactor, &path, &other),
            };
            match one {
                // No kept checkpoint names it.
                Err(failure) if failure.is_not_found() => {}
                one => linked = linked.and(one),
            }
        }
        match linked {
            Err(failure) if failure.is_not_found() => {}
            linked => linked.map_err(text)?,
        }
        // As long as the checkpoint is kept, so is what it names.
        let stat = reactor.run(Op::Stat { path: newest });
        if stat.is_ok() {
            return sync_dir(reactor, to);
        }
        for path in made {
            match reactor.run(Op::Remove { path }) {
                Err(failure) if !failure.is_not_found() => return Err(text(failure)),
                _ => {}
            }
        }
    }
    Err("checkpoints follow one another too fast".to_owned())
}

fn link(reactor: &mut Reactor, from: &Path, to: &Path) -> Result<(), Failure> {
    let (from, to) = (from.to_owned(), to.to_owned());
    reactor.run(Op::Link { from, to }).map(drop)
}

/// Copies a file as long as it is now, durably.
fn copy(reactor: &mut Reactor, from: &Path, to: &Path) -> Result<(), Failure> {
    let mut open = |path: &Path, mode| {
        let path = path.to_owned();
        reactor.run(Op::Open { path, mode }).map(|done| done.file())
    };
    let source = open(from, OpenMode::read_only())?;
    let target = open(to, OpenMode::create_new());
    let copied = target.and_then(|target| {
        let copied = copy_bytes(reactor, source, target);
        let closed = reactor.run(Op::Close { file: target });
        copied.and(closed.map(drop))
    });
    let closed = reactor.run(Op::Close { file: source });
    copied.and(closed.map(drop))
}

fn copy_bytes(
    reactor: &mut Reactor,
    source: reactor::File,
    target: reactor::File,
) -> Result<(), Failure> {
    let mut offset = 0;
    loop {
        let buf = reactor.buffer(COPY_BYTES);
        let read = Op::Read {
            file: source,
            offset,
            buf,
            len: COPY_BYTES,
        };
        let (buf, len) = reactor.run(read)?.buffer();
        if len == 0 {
            reactor.recycle(buf);
            break;
        }
        let write = Op::Write {
            file: target,
            offset,
            buf,
            len,
            dsync: false,
        };
        let (buf, _) = reactor.run(write)?.buffer();
        reactor.recycle(buf);
        offset += len as u64;
    }
    let sync = Op::Sync {
        file: target,
        data_only: false,
    };
    reactor.run(sync).map(drop)
}

fn sync_dir(reactor: &mut Reactor, path: &Path) -> Result<(), String> {
    let path = path.to_owned();
    reactor.run(Op::SyncDir { path }).map(drop).map_err(text)
}

/// Names in a directory, and whether they are directories; none where there is no such.
fn list(reactor: &mut Reactor, path: &Path) -> Result<Vec<(OsString, bool)>, Failure> {
    let path = path.to_owned();
    match reactor.run(Op::List { path }) {
        Ok(done) => {
            let entries = done.entries().into_iter();
            Ok(entries.map(|entry| (entry.name, entry.is_dir)).collect())
        }
        Err(failure) if failure.is_not_found() => Ok(Vec::new()),
        Err(failure) => Err(failure),
    }
}

fn remove_tree(reactor: &mut Reactor, path: &Path) -> Result<(), Failure> {
    for (name, is_dir) in list(reactor, path)? {
        let path = path.join(name);
        match is_dir {
            true => remove_tree(reactor, &path)?,
            false => drop(reactor.run(Op::Remove { path })?),
        }
    }
    let path = path.to_owned();
    match reactor.run(Op::RemoveDir { path }) {
        Err(failure) if !failure.is_not_found() => Err(failure),
        _ => Ok(()),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// As Prometheus writes it in such names: `20060102T150405Z`.
fn shown(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years begin in March here, so that the day that not every year has is their last.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = match month < 10 {
        true => (month + 3, 0),
        false => (month - 9, 1),
    };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_prometheus_makes_them() {
        for (seconds, name) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_512_940_944, "20171210T212224Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(shown(seconds * 1000), name);
        }
    }
}
