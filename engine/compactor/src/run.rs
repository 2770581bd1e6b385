//! A run: what is planned is merged, file by file.
//!
//! 1. What merged files have taken over whole is removed; the directory is synced.
//! 2. For each stage: plan, and for each file of the plan: write beside its name, sync, rename, sync the directory (`block::FileWriter`); read it back and verify; show it to
//!    readers, which hides the parts of the sources; remove the sources of which nothing is left to show.
//!
//! 3. What deletions apply to and no stage has merged is written again for itself, without what was deleted ([`crate::deletions`]).
//!
//! A crash between any two of these leaves a directory from which the next start sees each sample once, and a plan that goes on where this one ended.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::{
    Catalog, Drops, FileKind, FileWriter, Info, Input, Merge, Merged, SharedFile, StoredBlock,
};
use model::TenantId;
use prometheus::Registry;
use reactor::{Op, Reactor};

use crate::metrics::Metrics;
use crate::options::{Options, Policy};
use crate::plan::{self, Damaged, Known, Merging, Output};

/// Free space that a merge leaves to the log, beside what it writes itself.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// Why a run has ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk, or a file that cannot be written.
    #[error("{0}")]
    Block(#[from] block::Error),
    /// There is not enough space to write the merged file beside its sources.
    #[error(
        "merging {bytes} bytes needs as much free space and {FREE_BYTES_MIN} more, there are {free}"
    )]
    NoSpace {
        /// Bytes of the sources.
        bytes: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// What was written reads otherwise: it was removed again, the sources stay.
    #[error("{path} was written and is not what was merged: {reason}")]
    Unsound {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Files written.
    pub files: u64,
    /// Files removed because others have what was in them.
    pub removed: u64,
    /// Samples written, replaced and dropped.
    pub merged: Merged,
    /// Whether it was stopped.
    pub stopped: bool,
}

/// Which blocks are written again for deletions alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clean {
    /// Those that no merge of the first stage is about to come to, which would do it on the way.
    Settled,
    All,
}

/// Why a file was not written.
enum Failure {
    Stopped,
    /// A part of a source cannot be read.
    Damaged {
        source: u128,
        tenant: TenantId,
        error: Box<block::Error>,
    },
    Run(Box<Error>),
}

impl From<block::Error> for Failure {
    fn from(error: block::Error) -> Failure {
        Failure::Run(Box::new(Error::Block(error)))
    }
}

/// Merges the blocks of a catalog. Between runs it knows only which parts are damaged.
pub struct Compactor {
    pub(crate) options: Options,
    pub(crate) catalog: Arc<Catalog>,
    policy: Box<dyn Policy>,
    metrics: Metrics,
    pub(crate) damaged: Damaged,
}

impl Compactor {
    /// Over a catalog that has been opened. Errors: options that cannot be.
    pub fn new(
        options: Options,
        catalog: Arc<Catalog>,
        policy: Box<dyn Policy>,
        registry: &Registry,
    ) -> Result<Compactor, String> {
        options.validate()?;
        Ok(Compactor {
            options,
            catalog,
            policy,
            metrics: Metrics::register(registry),
            damaged: Damaged::new(),
        })
    }

    /// Does all that is due, until `stop` is set. Waits for its disk; nothing else may happen on the reactor.
    pub fn run(&mut self, reactor: &mut Reactor, stop: &AtomicBool) -> Result<Done, Error> {
        self.counted(reactor, stop, Clean::Settled)
    }

    /// As [`Compactor::run`]; what was deleted leaves also the blocks that a merge would soon have come to.
    pub fn clean(&mut self, reactor: &mut Reactor, stop: &AtomicBool) -> Result<Done, Error> {
        self.counted(reactor, stop, Clean::All)
    }

    fn counted(
        &mut self,
        reactor: &mut Reactor,
        stop: &AtomicBool,
        clean: Clean,
    ) -> Result<Done, Error> {
        self.metrics.started.inc();
        self.metrics.at_work.set(1);
        let done = self.try_run(reactor, stop, clean);
        self.metrics.at_work.set(0);
        match &done {
            Ok(done) if done.stopped => {}
            Ok(_) => {
                self.metrics.completed.inc();
                let seconds = reactor.wall_ms() as f64 / 1000.0;
                self.metrics.last_success.set(seconds);
            }
            Err(_) => self.metrics.failed.inc(),
        }
        done
    }

    /// The last run has panicked.
    pub(crate) fn note_panic(&self) {
        self.metrics.at_work.set(0);
        self.metrics.failed.inc();
    }

    fn try_run(
        &mut self,
        reactor: &mut Reactor,
        stop: &AtomicBool,
        clean: Clean,
    ) -> Result<Done, Error> {
        let mut done = Done::default();
        self.remove_spent(reactor, &mut done)?;
        let list = self.catalog.list();
        let ids: HashSet<u128> = list.iter().map(|block| block.meta().info.id).collect();
        self.damaged.retain(|(id, _)| ids.contains(id));
        for stage in 0..self.options.ranges.len() {
            let list = self.catalog.list();
            let now_ms = reactor.wall_ms();
            let known = self.known(stop);
            let outputs = plan::plan(&list, &self.options, stage, now_ms, &known);
            for output in outputs {
                self.make(reactor, output, stop, &mut done)?;
                if done.stopped {
                    return Ok(done);
                }
            }
        }
        self.apply_deletions(reactor, stop, clean, &mut done)?;
        self.metrics.damaged.set(self.damaged.len() as i64);
        Ok(done)
    }

    fn known<'a>(&'a self, stop: &'a AtomicBool) -> Known<'a> {
        Known {
            damaged: &self.damaged,
            catalog: &self.catalog,
            policy: &*self.policy,
            stop,
        }
    }

    fn remove_spent(&self, reactor: &mut Reactor, done: &mut Done) -> Result<(), Error> {
        let removed = self.catalog.remove_spent(reactor, &self.options.dir)? as u64;
        self.metrics.cleaned.inc_by(removed);
        done.removed += removed;
        Ok(())
    }

    /// Writes a file, without the tenants whose sources turn out to be damaged.
    pub(crate) fn make(
        &mut self,
        reactor: &mut Reactor,
        mut output: Output,
        stop: &AtomicBool,
        done: &mut Done,
    ) -> Result<(), Error> {
        while !output.tenants.is_empty() {
            // A source's sources may have left the disk since it was planned.
            let list = self.catalog.list();
            if output.waits(&list, &self.known(stop)) {
                return Ok(());
            }
            match self.write(reactor, &output, &list, stop) {
                Ok(merged) => {
                    done.files += 1;
                    add(&mut done.merged, &merged);
                    return self.remove_spent(reactor, done);
                }
                Err(Failure::Stopped) => {
                    done.stopped = true;
                    return Ok(());
                }
                Err(Failure::Damaged {
                    source,
                    tenant,
                    error,
                }) => {
                    tracing::warn!(%tenant, %error, "a part of a block is left out of compaction");
                    // What else it has is merged by the next plan, apart.
                    output.tenants.retain(|merging| merging.tenant != tenant);
                    self.damaged.insert((source, tenant));
                    self.metrics.damaged.set(self.damaged.len() as i64);
                }
                Err(Failure::Run(error)) => return Err(*error),
            }
        }
        Ok(())
    }

    fn write(
        &self,
        reactor: &mut Reactor,
        output: &Output,
        list: &[Arc<StoredBlock>],
        stop: &AtomicBool,
    ) -> Result<Merged, Failure> {
        let bytes = output.bytes();
        if let Some(free) = self.policy.free_bytes()
            && free < bytes.saturating_add(FREE_BYTES_MIN)
        {
            return Err(Failure::Run(Box::new(Error::NoSpace { bytes, free })));
        }
        let id = block::fresh_id(output.order());
        let info = Info {
            id,
            kind: output.kind,
            level: output.level,
            order: output.order(),
            created_ms: reactor.wall_ms(),
            origin: String::new(),
            core: 0,
            sources: output.sources(list).into_iter().collect(),
        };
        let name = format!("merged-{}-{id:032x}.{}", output.level, block::EXTENSION);
        let path = self.options.dir.join(&name);
        // Under its own name a start takes it for its sources, so it gets that when it has been verified; this one a start removes.
        let written = self.options.dir.join(format!("{name}.unfinished"));
        let options = block::Options::default();
        let mut writer = FileWriter::begin(reactor, &written, info, options, 0)?;
        let mut merged = Merged::default();
        let mut applied = Vec::new();
        for merging in &output.tenants {
            match self.merge(reactor, &mut writer, merging, stop) {
                Ok((one, order)) => {
                    add(&mut merged, &one);
                    applied.push((&merging.tenant, order));
                }
                Err(failure) => {
                    writer.discard_now(reactor);
                    return Err(failure);
                }
            }
        }
        let built = writer.complete(reactor)?;
        if let Err(error) = self.check(reactor, &written, &merged) {
            // The next start removes it too.
            let _ = reactor.run(Op::Remove { path: written });
            return Err(Failure::Run(Box::new(error)));
        }
        let (from, to) = (written, path.clone());
        let renamed = reactor.run(Op::Rename { from, to });
        renamed.map_err(block::Error::from)?;
        let dir = self.options.dir.clone();
        let synced = reactor.run(Op::SyncDir { path: dir });
        synced.map_err(block::Error::from)?;
        self.catalog.add(reactor, &path)?;
        for (tenant, order) in applied {
            let deletions = self.catalog.deletions();
            deletions.note_applied(reactor, tenant, id, order)?;
        }
        let metrics = &self.metrics;
        metrics.files.inc();
        metrics.bytes_read.inc_by(bytes);
        metrics.bytes_written.inc_by(built.bytes);
        metrics.samples.inc_by(merged.samples);
        metrics.replaced.inc_by(merged.replaced);
        metrics.dropped.inc_by(merged.dropped);
        let (path, samples) = (path.display(), merged.samples);
        let (kind, level) = (built.meta.info.kind, built.meta.info.level);
        let shared = kind == FileKind::Cut;
        tracing::debug!(%path, level, shared, bytes = built.bytes, from = bytes, samples, "merged");
        Ok(merged)
    }

    /// Adds a tenant to the file. Tells too up to which place in the order of logging deletions have been left out of it.
    fn merge(
        &self,
        reactor: &mut Reactor,
        writer: &mut FileWriter,
        merging: &Merging,
        stop: &AtomicBool,
    ) -> Result<(Merged, u64), Failure> {
        let Merging { tenant, sources } = merging;
        writer.builder().tenant(tenant)?;
        let drops = self.drops(reactor.wall_ms(), tenant);
        let orders = drops.tombstones.iter().map(|tombstone| tombstone.order);
        let applied = orders.max().unwrap_or(0);
        let damaged = |at: usize, error: block::Error| Failure::Damaged {
            source: sources[at].meta().info.id,
            tenant: tenant.clone(),
            error: Box::new(error),
        };
        let mut files: Vec<SharedFile> = sources.iter().map(|block| block.source()).collect();
        let mut inputs = Vec::with_capacity(sources.len());
        for (at, (file, block)) in files.iter_mut().zip(sources).enumerate() {
            // Of a tenant that was deleted nothing need be read.
            let order = block.meta().info.order;
            if drops.tombstones.iter().any(|t| t.takes_all(order)) {
                continue;
            }
            match Input::of(block.block(), file, tenant) {
                Ok(input) => inputs.extend(input),
                Err(error) => return Err(damaged(at, error)),
            }
        }
        let mut merge = Merge::begin(&mut inputs, &drops);
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Stopped);
            }
            match merge.step(writer.builder()) {
                Ok(true) => writer.settle(reactor)?,
                Ok(false) => return Ok((merge.merged(), applied)),
                Err(error) => {
                    let named = |path: &Path| file_of(&error) == Some(&*path.to_string_lossy());
                    let at = sources.iter().position(|block| named(block.path()));
                    return Err(match at {
                        Some(at) => damaged(at, error),
                        None => Failure::from(error),
                    });
                }
            }
        }
    }

    /// What is left out of a tenant.
    fn drops(&self, wall_ms: i64, tenant: &TenantId) -> Drops {
        let list = self.catalog.list();
        let parts = list.iter().filter_map(|block| block.part(tenant));
        let newest = parts.map(|part| part.max_time).max();
        let retention = self.policy.retention_ms(tenant);
        let keep_from = newest.map(|newest| newest.min(wall_ms).saturating_sub(retention));
        Drops {
            keep_from,
            tombstones: self.catalog.deletions().tombstones(tenant).to_vec(),
        }
    }

    /// Reads a file back; one that is not what it must be is removed.
    fn check(&self, reactor: &mut Reactor, path: &Path, merged: &Merged) -> Result<(), Error> {
        let verified =
            SharedFile::open(reactor, path).and_then(|mut file| block::verify(&mut file));
        let reason = match verified {
            Ok(found) if (found.series, found.samples) == (merged.series, merged.samples) => {
                return Ok(());
            }
            Ok(found) => format!(
                "{} series and {} samples, {} and {} were written",
                found.series, found.samples, merged.series, merged.samples
            ),
            Err(error) => error.to_string(),
        };
        let path = path.to_owned();
        let shown = path.display().to_string();
        // Under its name it would be taken for its sources.
        reactor
            .run(Op::Remove { path })
            .map_err(block::Error::from)?;
        let path = self.options.dir.clone();
        reactor
            .run(Op::SyncDir { path })
            .map_err(block::Error::from)?;
        Err(Error::Unsound {
            path: shown,
            reason,
        })
    }
}

/// The file that an error names, where it is about one.
fn file_of(error: &block::Error) -> Option<&str> {
    match error {
        block::Error::Corrupt { file, .. }
        | block::Error::NotABlock { file, .. }
        | block::Error::Version { file, .. }
        | block::Error::Source { file, .. } => Some(file),
        _ => None,
    }
}

fn add(sum: &mut Merged, more: &Merged) {
    sum.series += more.series;
    sum.samples += more.samples;
    sum.replaced += more.replaced;
    sum.dropped += more.dropped;
}

impl std::fmt::Debug for Compactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compactor({:?})", self.options)
    }
}
