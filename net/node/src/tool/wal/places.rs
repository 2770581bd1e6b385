//! Which logs a directory has: a data directory, one of cores, the `wal` in either, or the directory of one log.
//!
//! Where there is a manifest it says which generation is in force and where its cores are; their directories are looked for among those given by what they are, then where they were at
//! the last start (decision 0019). A directory of cores alone is read whole, as nothing in it says which of its generations is in force.

use std::path::{Path, PathBuf};

use ::wal::{Manifest, Owner};
use reactor::{Op, Reactor};

/// What is to be told of the directories, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A line for whoever reads.
    Heading(String),
    /// What keeps a log from being found.
    Damage(String),
    Log(Log),
}

/// A log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) core: u16,
    pub(super) dir: PathBuf,
    /// It lies in a directory of cores, where a start is refused without one.
    pub(super) is_missed: bool,
}

/// A directory as it was given.
struct Given {
    tree: PathBuf,
    manifest: Result<Option<Manifest>, String>,
    owner: Option<Owner>,
}

/// Finds the logs of all of them, each once.
pub(super) fn find(reactor: &mut Reactor, dirs: &[&Path]) -> Vec<Found> {
    let (mut found, mut given) = (Vec::new(), Vec::new());
    for dir in dirs {
        if !is_dir(reactor, dir) {
            found.push(Found::Damage(format!("{}: no directory", dir.display())));
            continue;
        }
        if let Some(core) = number(dir, "core-", 3) {
            found.push(Found::Log(Log {
                core,
                dir: dir.to_path_buf(),
                is_missed: false,
            }));
            continue;
        }
        let below = ::wal::tree(dir);
        let tree = match is_dir(reactor, &below) {
            true => below,
            false => dir.to_path_buf(),
        };
        let manifest = Manifest::read(reactor, &tree).map_err(|error| error.to_string());
        let owner = match Owner::read(reactor, &tree) {
            Ok(owner) => owner,
            Err(error) => {
                found.push(Found::Damage(error.to_string()));
                None
            }
        };
        given.push(Given {
            tree,
            manifest,
            owner,
        });
    }
    // What has been told of.
    let mut told: Vec<PathBuf> = Vec::new();
    for one in &given {
        if told.contains(&one.tree) {
            continue;
        }
        if let Ok(Some(manifest)) = &one.manifest {
            of_manifest(reactor, one, manifest, &given, &mut told, &mut found);
        }
    }
    for one in &given {
        if told.contains(&one.tree) {
            continue;
        }
        told.push(one.tree.clone());
        if let (Err(reason), None) = (&one.manifest, one.owner) {
            found.push(Found::Damage(reason.clone()));
        }
        without_manifest(reactor, one, &mut found);
    }
    found
}

fn of_manifest(
    reactor: &mut Reactor,
    one: &Given,
    manifest: &Manifest,
    given: &[Given],
    told: &mut Vec<PathBuf>,
    found: &mut Vec<Found>,
) {
    found.push(Found::Heading(format!(
        "{}: generation {}, {} cores",
        one.tree.display(),
        manifest.generation,
        manifest.cores
    )));
    let mut trees = vec![one.tree.clone()];
    for directory in manifest
        .spread
        .iter()
        .flat_map(|spread| &spread.directories)
    {
        let node = manifest.spread.as_ref().map(|spread| spread.node);
        let is_it = |owner: Option<Owner>| {
            owner.is_some_and(|o| (Some(o.node), o.directory) == (node, directory.id))
        };
        let tree = match given.iter().find(|other| is_it(other.owner)) {
            Some(other) => other.tree.clone(),
            None => ::wal::tree(&directory.path),
        };
        let shown = tree.display();
        let joining = if directory.joining { ", joining" } else { "" };
        found.push(Found::Heading(format!("  cores also in {shown}{joining}")));
        match Owner::read(reactor, &tree) {
            Ok(_) if directory.joining => {}
            Ok(Some(owner)) if is_it(Some(owner)) => {
                let spread = manifest
                    .spread
                    .as_ref()
                    .filter(|s| s.start > 0 && !s.numbering);
                let start = spread.map_or(owner.start, |spread| spread.start);
                if owner.start != start {
                    found.push(Found::Damage(format!(
                        "{shown}: it was last used at start {} of the node, the manifest is of start {start}: one of them is an old copy",
                        owner.start
                    )));
                }
            }
            Ok(None) => found.push(Found::Damage(format!(
                "{shown}: there is no file owner in it: is its disk mounted?"
            ))),
            Ok(Some(_)) => found.push(Found::Damage(format!(
                "{shown}: it is another directory than the manifest has there"
            ))),
            Err(error) => found.push(Found::Damage(error.to_string())),
        }
        trees.push(tree);
    }
    for core in 0..manifest.cores {
        let spread = manifest.spread.as_ref();
        let place = spread.and_then(|spread| *spread.places.get(usize::from(core))?);
        let tree = &trees[place.map_or(0, |place| usize::from(place) + 1)];
        found.push(Found::Log(Log {
            core,
            dir: ::wal::core_dir(tree, manifest.generation, core),
            is_missed: place.is_some(),
        }));
    }
    for tree in &trees {
        for generation in ::wal::generations(reactor, tree).unwrap_or_default() {
            if generation != manifest.generation {
                let tree = tree.display();
                let text = format!(
                    "{tree}: generation {generation} is not in force: a rest that a start removes"
                );
                found.push(Found::Heading(text));
            }
        }
    }
    told.extend(trees);
}

/// All generations of a tree.
fn without_manifest(reactor: &mut Reactor, one: &Given, found: &mut Vec<Found>) {
    let tree = one.tree.display();
    let generations = match ::wal::generations(reactor, &one.tree) {
        Ok(generations) => generations,
        Err(error) => return found.push(Found::Damage(error.to_string())),
    };
    if generations.is_empty() {
        return found.push(Found::Damage(format!("{tree}: there is no log in it")));
    }
    for generation in generations {
        let what = match one.owner {
            Some(owner) => format!(", a directory of node {:032x}", owner.node),
            None => String::new(),
        };
        let text = format!("{tree}: generation {generation}{what}");
        found.push(Found::Heading(text));
        // The name of the directory is that of any of its cores.
        let first = ::wal::core_dir(&one.tree, generation, 0);
        let dir = first.parent().unwrap_or(&one.tree).to_path_buf();
        let entries = match reactor.run(Op::List { path: dir.clone() }) {
            Ok(done) => done.entries(),
            Err(failure) => {
                found.push(Found::Damage(failure.to_string()));
                continue;
            }
        };
        for entry in entries.iter().filter(|entry| entry.is_dir) {
            let dir = dir.join(&entry.name);
            if let Some(core) = number(&dir, "core-", 3) {
                found.push(Found::Log(Log {
                    core,
                    dir,
                    is_missed: false,
                }));
            }
        }
    }
}

fn is_dir(reactor: &mut Reactor, path: &Path) -> bool {
    let path = path.to_path_buf();
    let stat = reactor.run(Op::Stat { path });
    stat.is_ok_and(|done| done.stat().is_dir)
}

/// The number in the last name of a path, of at least that many digits behind a word.
fn number(path: &Path, word: &str, digits: usize) -> Option<u16> {
    let rest = path.file_name()?.to_str()?.strip_prefix(word)?;
    let plain = rest.len() >= digits && rest.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| rest.parse().ok())?
}
