//! Which directory has the log of which core, where there are several (`docs/decisions/0019-data-directories.md`).
//!
//! ```text
//! <data>/wal/lock, manifest                       the node's; names the directories and says which core is where
//! <directory>/wal/lock, owner, g<generation>/..   a directory of cores: whose it is, and their logs
//! ```
//!
//! A start, in this order, so that nothing is made or changed before all of it is known to fit:
//!
//! 1. every directory that is given exists; the lock and the manifest of the data directory;
//! 2. each directory is held against the manifest by what is in it, not by its path. One that holds cores and is not there, has lost its mark (its disk is not mounted) or is another
//!    node's is an error;
//! 3. the locks of all of them, and a second look, since another node may have looked at the same time;
//! 4. those that hold cores were last used at the start that the manifest was written at: an old copy of a directory, or of the manifest, is an error (a note, with salvage);
//! 5. new ones *join*: the manifest names them, then they are marked. They hold nothing until step 3 of a change (`recovery`);
//! 6. this start gets its number: the manifest with it and a mark that it is being given, then each directory, then the manifest without the mark. With the mark a directory may have
//!    the number before; the next start gives the same one then;
//! 7. where one joins, one that is to be left or is lost holds cores, or the number of cores is another, all cores are placed anew, core `n` in directory `n` modulo their number, by such
//!    a change.
//!
//! Otherwise every core stays where the manifest has it, in whatever order directories are given.
//!
//! One that is *lost* (the operator says so, nothing else does) stays in the manifest as it was until the change, and the mark of 6 stays with it, since it has the number before: so a
//! start that ends before the change has decided nothing, and the directory is taken if it is there again after all. The change leaves of it only what it was called, under a number
//! that no directory has, so that who goes on naming it is understood; when it is not named any more that goes too. The directory itself, should it come back, is then one that holds
//! logs which the manifest does not know of: refused, never read.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use reactor::{Op, Reactor};
use wal::{Directory, Lock, Manifest, Owner, Spread};

use crate::Error;
use crate::options::Options;

/// What a start has found.
pub(crate) struct Layout {
    /// In force.
    pub(crate) manifest: Manifest,
    /// What is to be in force when the cores have moved, if they have to.
    pub(crate) next: Option<Manifest>,
    /// All trees that may hold logs, that of the data directory first.
    pub(crate) trees: Vec<PathBuf>,
    /// Those of them that are nobody's when the cores have moved.
    pub(crate) leaving: Vec<PathBuf>,
    /// Cores whose logs are gone with their directory.
    pub(crate) lost: Vec<u16>,
    /// For the operator.
    pub(crate) notes: Vec<String>,
    /// Held until the reactor is dropped.
    pub(crate) _locks: Vec<Lock>,
}

/// A directory as it is given.
struct Given<'a> {
    path: &'a Path,
    /// Its cores are to go elsewhere.
    leaves: bool,
    owner: Option<Owner>,
}

/// A directory that is gone for good.
struct Lost {
    /// As the manifest has it.
    directory: Directory,
    /// Whose logs went with it; none where the manifest has none there (any more).
    cores: Vec<u16>,
}

impl Lost {
    /// What is left of it when it holds no core.
    fn remembered(&self) -> Directory {
        Directory {
            path: self.directory.path.clone(),
            ..joining(block::fresh_id(0).max(1))
        }
    }

    /// What the manifest in force has of it.
    fn in_force(&self) -> Directory {
        match self.cores.is_empty() {
            true => self.remembered(),
            false => self.directory.clone(),
        }
    }

    fn note(&self) -> String {
        let path = self.directory.path.display();
        match &self.cores[..] {
            [] => {
                format!("{path} holds nothing of this node any more: it need not be named as lost")
            }
            cores => format!(
                "{path} is LOST, as data.core_dirs_lost says: samples of core {} that were not in blocks are gone; the cores are placed anew without it",
                shown(cores)
            ),
        }
    }
}

/// What to do about a directory that is missed.
const IF_GONE: &str = "if it is gone for good, name it in data.core_dirs_lost (-data.core-dir-lost) and nowhere else: what its cores had not in blocks is given up then, and all else is kept";

/// Opens the data directory and the others. See the module.
///
/// Errors: [`Error::Data`] naming the directory that does not fit; a lock is held; a manifest or mark is damaged; the disk.
pub(crate) fn open(reactor: &mut Reactor, options: &Options) -> Result<Layout, Error> {
    let root = wal::tree(&options.data_dir);
    let cores = options.cores.len() as u16;
    let mut given = exist(reactor, options)?;
    let mut locks = vec![Lock::take(reactor, &root)?];
    let found = Manifest::read(reactor, &root);
    let is_first = matches!(found, Ok(None));
    let in_doubt = found.is_err() || is_first && !given.is_empty();
    if in_doubt && matches!(Owner::read(reactor, &root), Ok(Some(_))) {
        let reason = "it belongs to a node as a directory of cores, and is no data directory";
        return Err(unfit(&options.data_dir, reason));
    }
    let mut manifest = found?.unwrap_or(Manifest {
        generation: 1,
        cores,
        spread: None,
    });
    for one in &mut given {
        let owner = look(reactor, one.path);
        one.owner = owner.map_err(|error| failed(reactor, error, one.path, options))?;
    }
    let mut notes = Vec::new();
    let mut before = manifest.spread.clone().unwrap_or_else(|| Spread {
        node: block::fresh_id(0).max(1),
        start: 0,
        numbering: false,
        directories: Vec::new(),
        places: vec![None; usize::from(manifest.cores)],
    });
    let lost = lost(reactor, &before, options)?;
    let mut directories = Vec::new();
    for (one, directory) in given.iter().zip(fit(reactor, &before, &given, &lost)?) {
        directories.extend(directory.map(|directory| (one, directory)));
    }
    for (one, _) in &directories {
        locks.push(Lock::take(reactor, &wal::tree(one.path))?);
        if look(reactor, one.path)? != one.owner {
            return Err(unfit(one.path, "it has just become another node's"));
        }
    }
    for (one, directory) in &directories {
        check_logs(reactor, &manifest, one.path, directory.id)?;
    }
    for (one, directory) in &directories {
        let holds = |place: &Option<u16>| {
            let home = place.and_then(|place| before.directories.get(usize::from(place)));
            home.is_some_and(|home| home.id == directory.id)
        };
        let at = one.owner.map_or(0, |owner| owner.start);
        let Some(error) = old_copy(&before, at, one.path, options) else {
            continue;
        };
        if before.places.iter().any(holds) {
            match options.salvage {
                true => notes.push(format!("salvage took it as it is: {error}")),
                false => return Err(error),
            }
        }
    }
    // A start that did not come to its end has given this number to some, perhaps not durably.
    let resumes = before.numbering;
    before.start = match resumes {
        true => before.start,
        false => before.start.saturating_add(1),
    };
    before.numbering = true;
    // What a former start has left, or one that was to join. The manifest names it until it is empty.
    let is_home = |id: u128| {
        let home = |core| before.home(core).map(|home| home.id);
        (0..manifest.cores).any(|core| home(core) == Some(id))
    };
    let (dismissed, directories): (Vec<_>, Vec<_>) = directories
        .into_iter()
        .partition(|(one, directory)| one.leaves && !is_home(directory.id));
    for (one, _) in dismissed {
        let tree = wal::tree(one.path);
        for generation in wal::generations(reactor, &tree)? {
            wal::remove_generation(reactor, &tree, generation)?;
        }
        Owner::remove(reactor, &tree)?;
    }
    let needed = |one: &&Given<'_>| directories.iter().any(|(other, _)| other.path == one.path);
    for one in given.iter().filter(|one| !needed(one)) {
        notes.push(format!(
            "{} holds nothing of this node any more: it need not be named as leaving",
            one.path.display()
        ));
    }
    notes.extend(lost.iter().map(Lost::note));
    let list = directories.iter().map(|(_, d)| d.clone());
    let list: Vec<Directory> = list.chain(lost.iter().map(Lost::in_force)).collect();
    let spread = placed(&before, list, |core| before.home(core).map(|home| home.id));
    if is_first || spread != manifest.spread {
        manifest.spread = spread;
        manifest.write(reactor, &root)?;
    }
    for (one, directory) in &directories {
        let owner = Owner {
            node: before.node,
            directory: directory.id,
            start: before.start,
        };
        if resumes || one.owner != Some(owner) {
            owner.write(reactor, &wal::tree(one.path))?;
        }
    }
    // One that is lost has the number before. The change ends this.
    let lost_cores: Vec<u16> = lost.iter().flat_map(|one| one.cores.clone()).collect();
    if lost_cores.is_empty()
        && let Some(spread) = &mut manifest.spread
    {
        spread.numbering = false;
        manifest.write(reactor, &root)?;
    }
    before.numbering = false;
    let next = next(&manifest, cores, &before, &directories, &lost);
    let homes = directories.iter().filter(|(one, _)| !one.leaves).count();
    if homes > usize::from(cores) {
        notes.push(format!(
            "{homes} directories are given for {cores} cores: some hold nothing"
        ));
    }
    let tree = |(one, _): &(&Given<'_>, _)| wal::tree(one.path);
    let leaves = directories.iter().filter(|(one, _)| one.leaves);
    let leaving = leaves.map(tree).collect();
    let trees = directories.iter().map(tree);
    Ok(Layout {
        manifest,
        next,
        trees: std::iter::once(root).chain(trees).collect(),
        leaving,
        lost: lost_cores,
        notes,
        _locks: locks,
    })
}

/// All that are given, each of which is there: one that is made by a start would be an empty disk that is not mounted.
fn exist<'a>(reactor: &mut Reactor, options: &'a Options) -> Result<Vec<Given<'a>>, Error> {
    let stay = options.core_dirs.iter().map(|path| (path, false));
    let leave = options.core_dirs_leaving.iter().map(|path| (path, true));
    let mut given = Vec::new();
    for (path, leaves) in stay.chain(leave) {
        let stat = reactor.run(Op::Stat { path: path.clone() });
        match stat.map(|done| done.stat()) {
            Ok(stat) if stat.is_dir => given.push(Given {
                path,
                leaves,
                owner: None,
            }),
            Ok(_) => return Err(unfit(path, "it is no directory")),
            // What it held, if anything, is missed when it is looked for.
            Err(failure) if failure.is_not_found() && leaves => {}
            Err(failure) if failure.is_not_found() => {
                return Err(unfit(path, missing(reactor, path, options)));
            }
            Err(failure) if failure.source.kind() == ErrorKind::NotADirectory => {
                return Err(unfit(path, "it is no directory"));
            }
            Err(failure) => {
                let error = Error::Log(failure.into());
                return Err(failed(reactor, error, path, options));
            }
        }
    }
    Ok(given)
}

/// The cores that the manifest has in what it calls so, if any. The manifest is read without its lock: for the words of an error alone.
fn held_by(reactor: &mut Reactor, path: &Path, options: &Options) -> Option<String> {
    let manifest = Manifest::read(reactor, &wal::tree(&options.data_dir)).ok()??;
    let spread = manifest.spread?;
    let mut known = spread.directories.iter();
    let cores = spread.cores_of(known.position(|directory| directory.path == path)?);
    (!cores.is_empty()).then(|| shown(&cores))
}

/// Why one that does not exist is refused.
fn missing(reactor: &mut Reactor, path: &Path, options: &Options) -> String {
    let reason = "it does not exist (it is not made: its disk may not be mounted)";
    match held_by(reactor, path, options) {
        None => reason.to_owned(),
        Some(cores) => format!("{reason}, and held core {cores}; {IF_GONE}"),
    }
}

/// The error of an operation in one: where the disk fails that has cores, with what can be done about it.
fn failed(reactor: &mut Reactor, error: Error, path: &Path, options: &Options) -> Error {
    match error {
        Error::Log(wal::Error::Io(failure))
            if failure.source.kind() != ErrorKind::PermissionDenied =>
        {
            match held_by(reactor, path, options) {
                None => Error::Log(failure.into()),
                Some(cores) => unfit(path, format!("{failure}; it holds core {cores}; {IF_GONE}")),
            }
        }
        error => error,
    }
}

/// What is named as lost.
///
/// Errors: the manifest calls no directory so; it is there, and this node's.
fn lost(reactor: &mut Reactor, known: &Spread, options: &Options) -> Result<Vec<Lost>, Error> {
    let mut all = Vec::new();
    for path in &options.core_dirs_lost {
        let mut listed = known.directories.iter();
        let Some(at) = listed.position(|directory| directory.path == *path) else {
            let listed = known.directories.iter().filter(|d| !d.joining);
            let listed: Vec<String> = listed.map(|d| d.path.display().to_string()).collect();
            let listed = match listed.is_empty() {
                true => "none".to_owned(),
                false => listed.join(", "),
            };
            let reason = format!(
                "it is named as lost, but the manifest calls no directory of cores so (it knows {listed}; one that was lost is forgotten by the first start that does not name it)"
            );
            return Err(unfit(path, reason));
        };
        let one = Lost {
            directory: known.directories[at].clone(),
            cores: known.cores_of(at),
        };
        // Of what holds nothing that is in force nothing is given up.
        if !one.directory.joining && is_there(reactor, path, known.node)? {
            let reason = "it is named as lost, but it is there: its file wal/owner is this node's. Name it in data.core_dirs or data.core_dirs_leaving; where it can be read but not written, give a whole copy of it in data.core_dirs instead; where neither can be, unmount it or move it away";
            return Err(unfit(path, reason));
        }
        all.push(one);
    }
    Ok(all)
}

/// Whether a directory can be read and is this node's. On a disk that is gone anything may be met instead.
///
/// Errors: it is there, but cannot be looked at for a reason that a lost disk does not give.
fn is_there(reactor: &mut Reactor, path: &Path, node: u128) -> Result<bool, Error> {
    match Owner::read(reactor, &wal::tree(path)) {
        Ok(owner) => Ok(owner.is_some_and(|owner| owner.node == node)),
        Err(error @ wal::Error::Version { .. }) => Err(error.into()),
        Err(wal::Error::Io(failure)) if failure.source.kind() == ErrorKind::PermissionDenied => {
            let reason = format!(
                "it is named as lost, but may be there: {failure}. Let the node look into it, or move away what is in its place"
            );
            Err(unfit(path, reason))
        }
        Err(_) => Ok(false),
    }
}

/// Whose a directory is; `None` where nobody's.
///
/// Errors: it is a data directory; it holds logs and no mark.
fn look(reactor: &mut Reactor, path: &Path) -> Result<Option<Owner>, Error> {
    let tree = wal::tree(path);
    let manifest = tree.join("manifest");
    match reactor.run(Op::Stat { path: manifest }) {
        Ok(_) => return Err(unfit(path, "it is the data directory of a node")),
        Err(failure) if failure.is_not_found() => {}
        Err(failure) => return Err(Error::Log(failure.into())),
    }
    let owner = Owner::read(reactor, &tree)?;
    if owner.is_none() && wal::has_logs(reactor, &tree)? {
        let reason = "it holds logs, but the file wal/owner, which says whose, is missing";
        return Err(unfit(path, reason));
    }
    Ok(owner)
}

/// Holds what is given against what the manifest knows: for each directory what it is to be there, or `None` where it has nothing to do with this node any more.
fn fit(
    reactor: &mut Reactor,
    known: &Spread,
    given: &[Given<'_>],
    lost: &[Lost],
) -> Result<Vec<Option<Directory>>, Error> {
    let mut fitting: Vec<Option<Directory>> = Vec::new();
    for one in given {
        let Some(owner) = one.owner else {
            fitting.push(None);
            continue;
        };
        let mut listed = known.directories.iter();
        let listed = listed.position(|d| d.id == owner.directory);
        let listed = listed.filter(|_| owner.node == known.node);
        // With logs it is not nothing: it may be the data directory that is not mounted.
        let tree = wal::tree(one.path);
        if one.leaves && listed.is_none() && !wal::has_logs(reactor, &tree)? {
            fitting.push(None);
            continue;
        }
        if owner.node != known.node {
            let reason = format!(
                "it belongs to another node ({:032x}); where that is gone, remove {}",
                owner.node,
                wal::tree(one.path).join("owner").display()
            );
            return Err(unfit(one.path, reason));
        }
        let is_same = |(_, other): &(&Given<'_>, &Option<Directory>)| {
            other.as_ref().is_some_and(|d| d.id == owner.directory)
        };
        if let Some((other, _)) = given.iter().zip(&fitting).find(is_same) {
            let reason = format!("it is the same directory as {}", other.path.display());
            return Err(unfit(one.path, reason));
        }
        let directory = match listed {
            Some(at) => known.directories[at].clone(),
            None if wal::has_logs(reactor, &wal::tree(one.path))? => {
                let reason =
                    "it holds logs of this node that its manifest does not know of: move them away";
                return Err(unfit(one.path, reason));
            }
            None => joining(owner.directory),
        };
        fitting.push(Some(Directory {
            path: one.path.to_owned(),
            ..directory
        }));
    }
    for (at, directory) in known.directories.iter().enumerate() {
        let mut fits = given.iter().zip(&fitting);
        let is_it = |fit: &Option<Directory>| fit.as_ref().is_some_and(|d| d.id == directory.id);
        let found = fits.find(|(_, fit)| is_it(fit)).map(|(one, _)| one.path);
        let is_lost = lost.iter().any(|one| one.directory.id == directory.id);
        let cores = known.cores_of(at);
        let held = match cores.len() {
            0 => "nothing".to_owned(),
            _ => format!("core {}", shown(&cores)),
        };
        let unmarked = given.iter().find(|one| one.path == directory.path);
        if let Some(found) = found.filter(|_| is_lost && !directory.joining) {
            let reason = format!(
                "it is named as lost, but it is there: {} is it",
                found.display()
            );
            return Err(unfit(&directory.path, reason));
        }
        if found.is_some() || is_lost || directory.joining {
            continue;
        }
        let if_gone = match cores.len() {
            0 => String::new(),
            _ => format!("; {IF_GONE}"),
        };
        if unmarked.is_some_and(|one| one.owner.is_none() && !one.leaves) {
            let reason = format!(
                "it has no file wal/owner, but was in use and held {held}: its disk may not be mounted{if_gone}"
            );
            return Err(unfit(&directory.path, reason));
        } else if !cores.is_empty() {
            let reason = format!(
                "it holds {held}, and no directory of data.core_dirs is it (what is given instead may be a disk that is not mounted){if_gone}"
            );
            return Err(unfit(&directory.path, reason));
        }
    }
    for (one, directory) in given.iter().zip(&mut fitting) {
        if directory.is_none() && !one.leaves {
            *directory = Some(Directory {
                path: one.path.to_owned(),
                ..joining(block::fresh_id(0).max(1))
            });
        }
    }
    Ok(fitting)
}

/// Every core that the manifest has in a directory has a log there: it came with a checkpoint, and has had one ever since.
///
/// Errors: it has none. Directory or manifest is an old copy, or part of one: the core would begin empty, and what is in force elsewhere would be removed.
fn check_logs(
    reactor: &mut Reactor,
    manifest: &Manifest,
    path: &Path,
    id: u128,
) -> Result<(), Error> {
    let home = |core: u16| manifest.spread.as_ref()?.home(core).map(|home| home.id);
    for core in (0..manifest.cores).filter(|&core| home(core) == Some(id)) {
        let log = wal::core_dir(&wal::tree(path), manifest.generation, core);
        let newest = match wal::newest_checkpoint(reactor, &log) {
            Err(wal::Error::Io(failure)) if failure.is_not_found() => None,
            newest => newest?,
        };
        if newest.is_none() {
            let reason = format!("no log of core {core} is in it: an old copy, or part of one?");
            return Err(unfit(path, reason));
        }
    }
    Ok(())
}

/// Why what was last used at start `at` does not go with the manifest.
fn old_copy(known: &Spread, at: u64, path: &Path, options: &Options) -> Option<Error> {
    let manifest = wal::tree(&options.data_dir).join("manifest");
    let (manifest, start) = (manifest.display(), known.start);
    let is_before = at.checked_add(1) == Some(start);
    if start == 0 || at == start || known.numbering && is_before {
        return None;
    }
    if at < start {
        let reason = format!(
            "it was last used at start {at} of this node, but {manifest} is of start {start}: it is an old copy (-wal.salvage takes it as it is)"
        );
        return Some(unfit(path, reason));
    }
    let reason = format!(
        "{manifest} is of start {start}, but {} was last used at start {at}: the data directory is an old copy (-wal.salvage takes it as it is)",
        path.display()
    );
    Some(unfit(&options.data_dir, reason))
}

fn joining(id: u128) -> Directory {
    Directory {
        id,
        path: PathBuf::new(),
        joining: true,
    }
}

/// The directories with the cores in them; `None` where there are none.
fn placed(
    before: &Spread,
    directories: Vec<Directory>,
    home: impl Fn(u16) -> Option<u128>,
) -> Option<Spread> {
    let place = |core: usize| {
        let home = home(core as u16)?;
        let at = directories.iter().position(|d| d.id == home);
        Some(at.expect("a directory that holds cores is there") as u16)
    };
    let places = (0..before.places.len()).map(place).collect();
    (!directories.is_empty()).then_some(Spread {
        node: before.node,
        start: before.start,
        numbering: before.numbering,
        directories,
        places,
    })
}

/// What the manifest is to become, where cores have to be placed anew.
fn next(
    manifest: &Manifest,
    cores: u16,
    before: &Spread,
    directories: &[(&Given<'_>, Directory)],
    lost: &[Lost],
) -> Option<Manifest> {
    // One that holds nothing has nothing to leave.
    let moves = |(one, directory): &(&Given<'_>, Directory)| one.leaves || directory.joining;
    let is_lost = lost.iter().any(|one| !one.cores.is_empty());
    if manifest.cores == cores && !is_lost && !directories.iter().any(moves) {
        return None;
    }
    let stay = directories.iter().filter(|(one, _)| !one.leaves);
    let ids: Vec<u128> = stay.map(|(_, directory)| directory.id).collect();
    // Those that are left stay named until they are empty, which the next start sees to.
    let list = directories.iter().map(|(one, directory)| Directory {
        joining: one.leaves,
        ..directory.clone()
    });
    let list = list.chain(lost.iter().map(Lost::remembered));
    let home = |core: u16| Some(*ids.get(usize::from(core).checked_rem(ids.len())?)?);
    let all = Spread {
        node: before.node,
        start: before.start,
        numbering: false,
        directories: Vec::new(),
        places: vec![None; usize::from(cores)],
    };
    Some(Manifest {
        generation: manifest.generation + 1,
        cores,
        spread: placed(&all, list.collect(), home),
    })
}

fn shown(cores: &[u16]) -> String {
    let words: Vec<String> = cores.iter().map(u16::to_string).collect();
    words.join(", ")
}

fn unfit(path: &Path, reason: impl Into<String>) -> Error {
    Error::Data {
        path: path.to_owned(),
        reason: reason.into(),
    }
}
