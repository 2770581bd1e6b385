//! What has been deleted leaves the blocks, also where nothing is to be merged.
//!
//! A deletion applies to the blocks before it in the order of logging (`block::Deletions`). A merge leaves out what it means, and says so of the file that it
//! makes. What no merge has come to is looked at here, block by block: where no series of it is meant it is said to be done; else the tenant's part becomes
//! a file of its own, of the same place in the order. When nothing is left that a deletion applies to it is over, unless there is a bucket, whose uploader knows of more.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::{FileKind, StoredBlock, Tombstone};
use model::TenantId;
use reactor::Reactor;

use crate::plan::{Merging, Output};
use crate::run::{Clean, Compactor, Done, Error};

/// What is known of blocks and deletions, in the order in which they are looked at.
pub(crate) struct Seen {
    /// What is deleted behind this may apply to blocks that are not in the list.
    last: u64,
    list: Arc<[Arc<StoredBlock>]>,
}

impl Compactor {
    /// See the module.
    pub(crate) fn apply_deletions(
        &mut self,
        reactor: &mut Reactor,
        stop: &AtomicBool,
        clean: Clean,
        done: &mut Done,
    ) -> Result<(), Error> {
        for tenant in self.catalog.deletions().tenants() {
            let list = self.catalog.list();
            for block in list.iter() {
                if stop.load(Ordering::Relaxed) {
                    done.stopped = true;
                    return Ok(());
                }
                if self.is_to_be_cleaned(reactor.wall_ms(), clean, &tenant, block) {
                    self.clean_block(reactor, &tenant, block, stop, done)?;
                }
                if done.stopped {
                    return Ok(());
                }
            }
            if !self.catalog.deletions().has_bucket() {
                let seen = self.look(&tenant);
                self.retire(reactor, &tenant, &seen)?;
            }
        }
        Ok(())
    }

    fn is_to_be_cleaned(
        &self,
        now_ms: i64,
        clean: Clean,
        tenant: &TenantId,
        block: &StoredBlock,
    ) -> bool {
        let info = &block.meta().info;
        let young = info.created_ms > now_ms.saturating_sub(self.options.interval_ms());
        // A merge of the first stage is about to come to it.
        let waits = info.level == 0 && young && clean == Clean::Settled;
        let damaged = self.damaged.contains(&(info.id, tenant.clone()));
        if block.is_pending() || waits || damaged {
            return false;
        }
        let of = self.catalog.deletions().of(tenant).unwrap_or_default();
        of.live().any(|one| of.applies_to(one, tenant, block))
    }

    fn clean_block(
        &mut self,
        reactor: &mut Reactor,
        tenant: &TenantId,
        block: &Arc<StoredBlock>,
        stop: &AtomicBool,
        done: &mut Done,
    ) -> Result<(), Error> {
        let tombstones = self.catalog.deletions().tombstones(tenant);
        let info = &block.meta().info;
        match self.is_meant(tenant, block, &tombstones) {
            Ok(true) => {}
            Ok(false) => {
                let order = tombstones.iter().map(|t| t.order).max().unwrap_or(0);
                let deletions = self.catalog.deletions();
                return Ok(deletions.note_applied(reactor, tenant, info.id, order)?);
            }
            Err(error) if error.is_corruption() => {
                tracing::warn!(%tenant, %error, "deletions cannot be applied to a part of a block");
                self.damaged.insert((info.id, tenant.clone()));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let output = Output {
            kind: FileKind::Block,
            level: info.level.max(1),
            tenants: vec![Merging {
                tenant: tenant.clone(),
                sources: vec![Arc::clone(block)],
            }],
        };
        self.make(reactor, output, stop, done)
    }

    /// Whether a block has series that deletions mean.
    fn is_meant(
        &self,
        tenant: &TenantId,
        block: &StoredBlock,
        tombstones: &[Tombstone],
    ) -> Result<bool, block::Error> {
        let mut file = block.source();
        let Some(mut index) = block.block().index(&mut file, tenant)? else {
            return Ok(false);
        };
        let (part, order) = (index.part().clone(), block.meta().info.order);
        for one in tombstones {
            let meets = one.min_time <= part.max_time && part.min_time <= one.max_time;
            if order < one.order && meets && !index.select(&mut file, &one.matchers)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn look(&self, tenant: &TenantId) -> Seen {
        Seen {
            last: self.catalog.deletions().last_order(tenant),
            list: self.catalog.list(),
        }
    }

    pub(crate) fn retire(
        &self,
        reactor: &mut Reactor,
        tenant: &TenantId,
        Seen { last, list }: &Seen,
    ) -> Result<(), Error> {
        let ids: HashSet<u128> = list.iter().map(|block| block.meta().info.id).collect();
        let ended = self.catalog.deletions().retire(
            reactor,
            tenant,
            &|of, deletion| {
                let (is_new, mut blocks) = (deletion.order > *last, list.iter());
                is_new || blocks.any(|block| of.applies_to(deletion, tenant, block))
            },
            &|id| ids.contains(&id),
        )?;
        if ended > 0 {
            tracing::info!(%tenant, ended, "deletions have left all blocks");
        }
        Ok(())
    }
}
