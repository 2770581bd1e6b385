//! From what is on disk to a core that can serve, and the change of the number of cores.
//!
//! ```text
//! <data>/wal/lock, manifest, g<generation>/core-<n>/...     (the files are those of `wal`)
//! ```
//!
//! Logs may be in other directories, see `directories`.
//!
//! One [`Node`] per process holds the lock and decides the [`Plan`]; every core then runs [`recover`], in parallel and without
//! talking to the others; when all are done [`Node::conclude`] makes what they wrote the truth.
//!
//! With the number of cores that the manifest names, a core replays its own log and goes on writing it. With another number, or where cores go to other directories or have lost theirs,
//!
//! 1. what a former attempt left of the next generation is removed;
//! 2. every new core reads *every* old log that there is, keeps what is placed on it, copies the closed chunks of it, and writes a checkpoint into the next generation;
//! 3. the manifest is replaced: the moment of the change;
//! 4. the old generation is removed.
//!
//! A crash before 3 leaves the old logs untouched and in force, a crash after it the new ones; either way the next start finds
//! a whole set and removes the rest.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use model::CoreId;
use reactor::Reactor;
use wal::{Lock, Log, Record, ReplayOptions, Replayed};

use crate::Error;
use crate::checkpoint::Checkpoints;
use crate::chunkfile::ChunkFiles;
use crate::cores::ReplayProgress;
use crate::cut;
use crate::cut::write::{Blocks, Order};
use crate::directories::{self, Layout};
use crate::mailbox::Mailboxes;
use crate::memtable::Memtable;
use crate::memtable::gc::seconds;
use crate::memtable::native::Value;
use crate::memtable::replay::{Keep, Malformed, Replay};
use crate::memtable::starts::Start;
use crate::options::Options;
use crate::quota::Quotas;

/// What every core has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Go on with its own log.
    Continue {
        /// In force.
        generation: u32,
        /// Of each core.
        homes: Vec<Home>,
    },
    /// Take its share out of the logs of another number of cores, or of other directories.
    Replace {
        /// In force until the node concludes.
        generation: u32,
        /// The logs: of which core, and the tree that it is in.
        old: Vec<(u16, PathBuf)>,
        /// The cores whose logs are gone.
        lost: Vec<u16>,
        /// Of each core.
        homes: Vec<Home>,
    },
}

/// Where a core has its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    /// The tree of the directory.
    pub(crate) tree: PathBuf,
    /// Whether the log may be written with O_DIRECT there; else why not.
    pub(crate) direct: Result<(), String>,
}

impl Plan {
    /// Where cores have their logs.
    pub(crate) fn homes(&self) -> &[Home] {
        match self {
            Plan::Continue { homes, .. } | Plan::Replace { homes, .. } => homes,
        }
    }
}

/// The process' hold on the data directory.
pub(crate) struct Node {
    reactor: Reactor,
    layout: Layout,
    plan: Plan,
    blocks: Blocks,
}

/// A core's state after recovery.
pub(crate) struct Recovered {
    pub(crate) memtable: Memtable,
    pub(crate) log: Log,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) corruptions: u64,
    pub(crate) not_direct: Option<String>,
    /// Of the log that it writes from now on.
    pub(crate) generation: u32,
    /// What was found in the logs that it has read.
    pub(crate) logs: Vec<cut::Replayed>,
    /// For the operator.
    pub(crate) notes: Vec<String>,
}

impl Node {
    /// Takes the lock, reads (or begins) the manifest, removes what is not in force.
    ///
    /// Errors: the lock is held, the directory cannot be used, the manifest is damaged.
    pub(crate) fn open(mut reactor: Reactor, options: &Options) -> Result<Node, Error> {
        let layout = directories::open(&mut reactor, options)?;
        let manifest = &layout.manifest;
        for tree in &layout.trees {
            for generation in wal::generations(&mut reactor, tree)? {
                if generation != manifest.generation {
                    wal::remove_generation(&mut reactor, tree, generation)?;
                }
            }
        }
        let root = layout.trees[0].clone();
        let target = layout.next.as_ref().unwrap_or(manifest);
        let mut homes: Vec<Home> = Vec::new();
        for core in 0..target.cores {
            let tree = target.tree_of(&root, core);
            let known = homes.iter().find(|home| home.tree == tree);
            let direct = match known {
                Some(home) => home.direct.clone(),
                None => match reactor.probe(&tree) {
                    probe if probe.direct => Ok(()),
                    probe if tree == root => Err(probe.reason.unwrap_or_default()),
                    probe => {
                        let reason = probe.reason.unwrap_or_default();
                        Err(format!("{}: {reason}", tree.display()))
                    }
                },
            };
            homes.push(Home { tree, direct });
        }
        let generation = manifest.generation;
        let plan = match layout.next {
            None => Plan::Continue { generation, homes },
            Some(_) => Plan::Replace {
                generation,
                old: (0..manifest.cores)
                    .filter(|core| !layout.lost.contains(core))
                    .map(|core| (core, manifest.tree_of(&root, core)))
                    .collect(),
                lost: layout.lost.clone(),
                homes,
            },
        };
        let retention = i64::try_from(options.retention.as_millis()).unwrap_or(i64::MAX);
        let directories = options.directories().cloned().collect();
        let blocks = Blocks::new(cut::directory(&options.data_dir), directories, retention);
        Ok(Node {
            reactor,
            layout,
            plan,
            blocks,
        })
    }

    /// What the cores have to do.
    pub(crate) fn plan(&self) -> Plan {
        self.plan.clone()
    }

    /// All cores have recovered: what they wrote is in force from now on, and so are the blocks that the logs they read rely on. Returns notes
    /// for the operator.
    pub(crate) fn conclude(
        &mut self,
        mailboxes: &Mailboxes,
        logs: &[cut::Replayed],
    ) -> Result<Vec<String>, Error> {
        self.blocks.connect(mailboxes);
        let opened = self.blocks.open(&mut self.reactor, logs);
        let mut notes = std::mem::take(&mut self.layout.notes);
        notes.extend(opened.map_err(|error| Error::Block(error.to_string()))?);
        let Some(next) = self.layout.next.take() else {
            return Ok(notes);
        };
        next.write(&mut self.reactor, &self.layout.trees[0])?;
        // What cannot be removed now is removed by the next start.
        let old = self.layout.manifest.generation;
        for tree in &self.layout.trees {
            let removed = wal::remove_generation(&mut self.reactor, tree, old);
            // What has logs has an owner.
            if removed.is_ok() && self.layout.leaving.contains(tree) {
                let _ = wal::Owner::remove(&mut self.reactor, tree);
            }
        }
        self.layout.manifest = next;
        Ok(notes)
    }

    /// Does what a core has ordered, or concludes.
    pub(crate) fn serve(&mut self, order: Order) {
        match order {
            Order::Conclude {
                logs,
                mailboxes,
                reply,
            } => reply(self.conclude(&mailboxes, &logs)),
            order => self.blocks.serve(&mut self.reactor, order),
        }
    }
}

/// Brings one core to where it can serve. Blocks; runs on the core's own thread.
///
/// Errors: a log that cannot be read, is corrupt, or cannot be continued.
pub(crate) fn recover(
    reactor: &mut Reactor,
    options: &Options,
    plan: &Plan,
    id: CoreId,
    quotas: &Arc<Quotas>,
    progress: &mut dyn FnMut(ReplayProgress),
) -> Result<Recovered, Error> {
    let retention = i64::try_from(options.retention.as_millis()).unwrap_or(i64::MAX);
    let chance = RandomState::new().build_hasher().finish();
    let mut memtable = Memtable::new(quotas.clone(), chance, options.chunk_samples_max, retention);
    memtable.set_retentions(options.retentions.clone());
    let count = options.cores.len() as u16;
    let now_s = seconds(reactor.wall_ms());
    let (mut notes, mut salvaged) = (Vec::new(), 0);
    let Home { tree, direct } = &plan.homes()[usize::from(id.0)];
    let (keep, sources, generation) = match plan {
        Plan::Continue { generation, .. } => {
            let own = (*generation, id.0, tree);
            (Keep::Own, vec![own], *generation)
        }
        Plan::Replace {
            generation,
            old,
            lost,
            ..
        } => {
            // Each is counted once.
            let mine = lost.iter().filter(|&&core| core % count == id.0);
            salvaged += mine.count() as u64;
            let sources = old.iter();
            let sources = sources.map(|(core, tree)| (*generation, *core, tree));
            let keep = Keep::Placed { core: id, count };
            (keep, sources.collect(), generation + 1)
        }
    };
    let dir = wal::core_dir(tree, generation, id.0);
    // What is closed during replay is written at once.
    wal::create_dirs(reactor, &dir)?;
    memtable.chunks = ChunkFiles::open(reactor, &dir, id.0, options.chunk_file_bytes)?;
    let replay = RefCell::new(Replay::new(&mut memtable, keep, now_s));
    let (mut last, mut logs) = (None, Vec::new());
    let (count_of_logs, mut behind) = (sources.len() as u64, (0, 0));
    for (at_log, (generation, core, tree)) in (0..).zip(sources) {
        let dir = wal::core_dir(tree, generation, core);
        if keep != Keep::Own {
            let chunks = &mut *replay.borrow_mut();
            chunks.chunks().find_foreign(reactor, &dir, core)?;
        }
        let malformed = |Malformed(reason)| Error::Data {
            path: dir.clone(),
            reason,
        };
        replay
            .borrow_mut()
            .next_log(&dir, core)
            .map_err(malformed)?;
        let replay_options = ReplayOptions {
            core,
            salvage: options.salvage,
        };
        let mut sink = |record: &Record<'_>, _| replay.borrow_mut().record(record);
        let mut of_this = (0, 0);
        let mut between = |reactor: &mut Reactor, at: wal::ReplayProgress| {
            of_this = (at.bytes_total, at.counts.samples);
            // Logs that are still to be read are taken to be like those that have been.
            let known: u64 = behind.0 + at.bytes_total;
            progress(ReplayProgress {
                core: id,
                bytes_done: behind.0 + at.bytes_done,
                bytes_total: known / (at_log + 1) * count_of_logs + known % (at_log + 1),
                samples: behind.1 + at.counts.samples,
            });
            // What was closed goes to disk as it does when the core serves, so that memory stays bounded.
            replay.borrow_mut().chunks().drain(reactor)
        };
        let replayed = wal::replay(reactor, &dir, &replay_options, &mut sink, &mut between)?;
        behind = (behind.0 + of_this.0, behind.1 + of_this.1);
        describe(&replayed, &mut notes);
        salvaged += replayed.salvaged.len() as u64;
        logs.push(cut::Replayed {
            generation,
            core: CoreId(core),
            checkpoint: replayed.checkpoint,
            doubtful: replayed.is_new()
                || !replayed.damaged_checkpoints.is_empty()
                || !replayed.salvaged.is_empty(),
        });
        last = Some(replayed);
    }
    let replay = replay.into_inner();
    if replay.orphans > 0 {
        notes.push(format!(
            "core {id}: {} samples of unknown series were dropped",
            replay.orphans
        ));
    }
    let replayed = match (keep, last) {
        (Keep::Own, Some(own)) => own,
        _ => {
            let fresh = ReplayOptions {
                core: id.0,
                salvage: false,
            };
            wal::replay(
                reactor,
                &dir,
                &fresh,
                &mut |_, _| Ok(()),
                &mut |_, _| Ok(()),
            )?
        }
    };
    replay
        .finish(replayed.next_sequence)
        .map_err(|Malformed(reason)| Error::Data {
            path: dir.clone(),
            reason,
        })?;
    memtable.bound_exemplars(&options.exemplars_max, count);
    let damaged = memtable.chunks.check(reactor, replayed.next_sequence)?;
    for (file, error) in damaged {
        if !options.salvage {
            return Err(error.into());
        }
        let dropped = memtable.drop_chunks_of(file);
        notes.push(format!(
            "core {id}: salvage dropped {dropped} chunks: {error}"
        ));
        salvaged += 1;
    }
    for file in memtable.chunks.foreign_keys() {
        salvaged += memtable.take_over(reactor, file, options.salvage, &mut notes)?;
    }
    let log_options = wal::Options {
        segment_bytes: options.segment_bytes,
        segment_bytes_first: options.segment_bytes_first(),
        group_bytes: options.group_bytes(),
        direct: direct.is_ok(),
        token_base: 0,
    };
    let mut log = Log::open(reactor, &dir, log_options, &replayed)?;
    let mut checkpoints = Checkpoints::new(&log, options.checkpoint_log_bytes);
    // After a salvage the gap in the log would refuse the next start; after a change this is the new generation's content.
    if keep != Keep::Own || salvaged > 0 {
        checkpoints.write_now(reactor, &mut log, &mut memtable)?;
    }
    let not_direct = direct.clone().err();
    Ok(Recovered {
        memtable,
        log,
        checkpoints,
        corruptions: salvaged,
        not_direct,
        generation,
        logs,
        notes,
    })
}

/// Keeps every node from a data directory, until the reactor goes. For tools that change something in it.
///
/// Errors: a node runs on it; it cannot be made.
pub fn lock_data(reactor: &mut Reactor, data_dir: &std::path::Path) -> Result<(), Error> {
    // Its file stays open as long as the reactor does.
    let _lock = Lock::take(reactor, &wal::tree(data_dir))?;
    Ok(())
}

/// Tells the operator what was odd.
fn describe(replayed: &Replayed, notes: &mut Vec<String>) {
    let core = replayed.core;
    for tear in &replayed.tears {
        notes.push(format!(
            "core {core}: the commit being written at the last end was dropped: {} at {}",
            tear.path.display(),
            tear.offset
        ));
    }
    for path in &replayed.damaged_checkpoints {
        notes.push(format!(
            "core {core}: {} is damaged, an older one was used",
            path.display()
        ));
    }
    for salvaged in &replayed.salvaged {
        notes.push(format!(
            "core {core}: salvage dropped the rest of {} from {}: {}",
            salvaged.path.display(),
            salvaged.offset,
            salvaged.reason
        ));
    }
}

impl Replay<'_> {
    /// Applies a record of the log. Kinds that are not stored yet are passed over: nothing of this version writes them.
    fn record(&mut self, record: &Record<'_>) -> Result<(), String> {
        let applied = match record {
            Record::Series(series) => self.series(
                series.series.0,
                series.generation.0,
                series.tenant,
                series.id,
                series.labels,
            ),
            Record::Chunk(chunk) => {
                self.chunk(chunk.series.0, chunk.first.0, chunk.last.0, chunk.sealed)
            }
            Record::StoredChunk(chunk) => self.stored_chunk(chunk),
            Record::Samples(samples) => samples
                .iter()
                .try_for_each(|sample| self.sample(sample.series.0, sample.time, sample.value)),
            Record::Histogram {
                series,
                time,
                histogram,
            } => self.histogram(series.0, time.0, histogram),
            Record::LateSamples(samples) => samples.iter().try_for_each(|sample| {
                self.late(sample.series.0, sample.time, Value::Float(sample.value))
            }),
            Record::LateHistogram {
                series,
                time,
                histogram,
            } => self.late(series.0, time.0, Value::Histogram(histogram)),
            Record::Exemplar { series, exemplar } => self.exemplar(series.0, exemplar),
            Record::StartTimestamp {
                series,
                time,
                start,
            } => {
                let (from, start) = (*time, *start);
                self.start(series.0, Start { from, start })
            }
            Record::Tombstone(tombstone) => self.begin_purge(tombstone),
            Record::Purge {
                series,
                first,
                last,
            } => self.purge(series.0, first.0, last.0),
            Record::PurgeEnd { selectors } => self.end_purge(*selectors),
            _ => Ok(()),
        };
        applied.map_err(|Malformed(reason)| reason)
    }
}
