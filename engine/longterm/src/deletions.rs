//! What has been deleted leaves the bucket.
//!
//! Blocks that are on this node too are the compactor's: what it makes of them takes their place in the index. The others are looked at here, entry by entry: where no series
//! is meant that is said (`block::Deletions::note_applied`); else the tenant's part is read from the bucket, written without what was deleted to the disk, as a
//! merged file of the same place in the order of logging, and entered like any other. The object that it takes the place of goes after the deletion delay. What belongs to a tenant that was
//! deleted leaves its index without being read, and its objects go at once.
//!
//! A deletion is over when neither the disk nor the index of its tenant has a block that it applies to. Until then it is kept, and nobody sees what it means.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::{
    Block, Drops, FileKind, FileWriter, Info, Input, Merge, SharedFile, StoredBlock, Tombstone,
};
use model::TenantId;
use reactor::{Op, Reactor};

use crate::error::Error;
use crate::fetch::Plain;
use crate::index::Entry;
use crate::indexes::Known;
use crate::uploader::Uploader;

/// What is known of blocks and deletions, in the order in which they are looked at.
pub(crate) struct Seen {
    /// What is deleted behind this may apply to blocks that are not in the list.
    last: u64,
    list: Arc<[Arc<StoredBlock>]>,
    known: Arc<Known>,
}

impl Uploader {
    /// See the module.
    pub(crate) fn apply_deletions(
        &mut self,
        reactor: &mut Reactor,
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        for tenant in self.catalog.deletions().tenants() {
            let now_ms = reactor.wall_ms();
            let known = match self.indexes.load(&tenant, now_ms) {
                // Another's concern; nothing of it is forgotten.
                Err(Error::Index { .. }) => continue,
                known => known?,
            };
            self.forget_deleted(&tenant, now_ms)?;
            for entry in &known.index.blocks {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                self.clean_entry(reactor, &tenant, entry)?;
            }
            let seen = self.look(reactor, &tenant)?;
            self.retire(reactor, &tenant, &seen)?;
        }
        Ok(())
    }

    /// Ids of what the disk has of a tenant, and of what that was made of.
    fn here(&self, tenant: &TenantId) -> HashSet<u128> {
        let mut here = HashSet::new();
        for block in self.catalog.list().iter() {
            let meta = block.meta();
            if meta.part(tenant).is_some() {
                here.insert(meta.info.id);
                here.extend(&meta.info.sources);
            }
        }
        here
    }

    /// Takes out of the index what a tenant had when it was deleted.
    fn forget_deleted(&mut self, tenant: &TenantId, now_ms: i64) -> Result<(), Error> {
        let of = self.catalog.deletions().of(tenant).unwrap_or_default();
        let whole = of.live().filter(|one| one.whole_tenant);
        let Some(order) = whole.map(|one| one.order).max() else {
            return Ok(());
        };
        let here = self.here(tenant);
        let mut marked = 0;
        let changed = self.indexes.change(tenant, now_ms, &mut |index| {
            let before = index.deletions.len();
            // Since the beginning of time: their objects need not wait.
            let changed = index.remove(0, |entry| entry.order < order && !here.contains(&entry.id));
            marked = index.deletions.len() - before;
            changed
        })?;
        if changed {
            self.metrics.index_writes.inc();
            self.metrics.marked.inc_by(marked as u64);
            self.next_cleanup_ms = now_ms;
        }
        Ok(())
    }

    fn clean_entry(
        &mut self,
        reactor: &mut Reactor,
        tenant: &TenantId,
        entry: &Entry,
    ) -> Result<(), Error> {
        let of = self.catalog.deletions().of(tenant).unwrap_or_default();
        let times = (entry.min_time, entry.max_time);
        let mut live = of.live();
        let applies = live.any(|one| of.applies(one, (entry.id, entry.order), times));
        let tombstones = self.catalog.deletions().tombstones(tenant);
        if !applies
            || tombstones.iter().any(|one| one.takes_all(entry.order))
            || self.unreadable.contains(&entry.id)
            || self.here(tenant).contains(&entry.id)
        {
            return Ok(());
        }
        match self.rewrite(reactor, tenant, entry, &tombstones) {
            Err(Error::Block(error)) if error.is_corruption() => {
                let key = &entry.key;
                tracing::error!(key, %error, "what was deleted cannot leave a block");
                self.unreadable.insert(entry.id);
                self.metrics.failures.inc();
                Ok(())
            }
            result => result,
        }
    }

    fn rewrite(
        &mut self,
        reactor: &mut Reactor,
        tenant: &TenantId,
        entry: &Entry,
        tombstones: &[Tombstone],
    ) -> Result<(), Error> {
        let applied = tombstones.iter().map(|one| one.order).max().unwrap_or(0);
        let mut source = Plain::new(&self.bucket, &entry.key, entry.bytes);
        let block = Block::open(&mut source)?;
        let mut meant = false;
        if let Some(mut index) = block.index(&mut source, tenant)? {
            for one in tombstones.iter().filter(|one| entry.order < one.order) {
                meant |= !index.select(&mut source, &one.matchers)?.is_empty();
            }
        }
        if !meant {
            let deletions = self.catalog.deletions();
            return Ok(deletions.note_applied(reactor, tenant, entry.id, applied)?);
        }
        let mut sources = vec![entry.id];
        let room = block::SOURCES_MAX - 1;
        sources.extend(entry.sources.iter().copied().take(room));
        let info = Info {
            id: block::fresh_id(entry.order),
            kind: FileKind::Block,
            level: entry.level.max(1),
            order: entry.order,
            // It is as old as what it takes the place of, also for whoever asks whether it may leave the disk.
            created_ms: entry.created_ms,
            origin: String::new(),
            core: 0,
            sources,
        };
        let id = info.id;
        let name = format!("merged-{}-{id:032x}.{}", info.level, block::EXTENSION);
        let path = self.options.dir.join(&name);
        // Under its own name a start takes it for its source, so it gets that when it has been verified; this one a start removes.
        let written = self.options.dir.join(format!("{name}.unfinished"));
        let options = block::Options::default();
        let mut writer = FileWriter::begin(reactor, &written, info, options, 0)?;
        let drops = Drops {
            keep_from: None,
            tombstones: tombstones.to_vec(),
        };
        let filled = (|| -> Result<_, block::Error> {
            writer.builder().tenant(tenant)?;
            let mut inputs = Vec::new();
            inputs.extend(Input::of(&block, &mut source, tenant)?);
            let mut merge = Merge::begin(&mut inputs, &drops);
            while merge.step(writer.builder())? {
                writer.settle(reactor)?;
            }
            Ok(merge.merged())
        })();
        let merged = match filled {
            Ok(merged) => merged,
            Err(error) => {
                writer.discard_now(reactor);
                return Err(error.into());
            }
        };
        writer.complete(reactor)?;
        let mut file = SharedFile::open(reactor, &written)?;
        let found = block::verify(&mut file)?;
        if (found.series, found.samples) != (merged.series, merged.samples) {
            let reason = format!(
                "{} series and {} samples, {} and {} were written",
                found.series, found.samples, merged.series, merged.samples
            );
            // The next start removes it.
            let file = written.display().to_string();
            return Err(block::Error::Source { file, reason }.into());
        }
        let from = written;
        let to = path.clone();
        let renamed = reactor.run(Op::Rename { from, to });
        renamed.map_err(block::Error::from)?;
        let dir = self.options.dir.clone();
        let synced = reactor.run(Op::SyncDir { path: dir });
        synced.map_err(block::Error::from)?;
        self.catalog.add(reactor, &path)?;
        let deletions = self.catalog.deletions();
        deletions.note_applied(reactor, tenant, id, applied)?;
        let key = &entry.key;
        tracing::info!(
            key,
            dropped = merged.dropped,
            "a block of the bucket is written again"
        );
        // Entered at once: one of which nothing is left would leave the disk, and nobody would tell the index.
        let list = self.catalog.list();
        let made = list.iter().find(|block| block.meta().info.id == id);
        let made: Arc<_> = Arc::clone(made.expect("added above"));
        self.settle(&made, reactor.wall_ms())?;
        // Else all that a tenant has in the bucket would come to the disk.
        self.remove_local(reactor).map(drop)
    }

    pub(crate) fn look(&self, reactor: &Reactor, tenant: &TenantId) -> Result<Seen, Error> {
        let last = self.catalog.deletions().last_order(tenant);
        // The disk first: what leaves it meanwhile is in the index.
        let list = self.catalog.list();
        let known = self.indexes.load(tenant, reactor.wall_ms())?;
        Ok(Seen { last, list, known })
    }

    pub(crate) fn retire(
        &self,
        reactor: &mut Reactor,
        tenant: &TenantId,
        Seen { last, list, known }: &Seen,
    ) -> Result<(), Error> {
        let mut ids: HashSet<u128> = list.iter().map(|block| block.meta().info.id).collect();
        ids.extend(known.index.blocks.iter().map(|entry| entry.id));
        let ended = self.catalog.deletions().retire(
            reactor,
            tenant,
            &|of, deletion| {
                if deletion.order > *last {
                    return true;
                }
                let mut there = known.index.blocks.iter();
                list.iter()
                    .any(|block| of.applies_to(deletion, tenant, block))
                    || there.any(|entry| {
                        let times = (entry.min_time, entry.max_time);
                        of.applies(deletion, (entry.id, entry.order), times)
                    })
            },
            &|id| ids.contains(&id),
        )?;
        if ended > 0 {
            tracing::info!(%tenant, ended, "deletions have left the disk and the bucket");
        }
        Ok(())
    }
}
