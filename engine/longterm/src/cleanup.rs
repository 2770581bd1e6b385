//! What has to leave the bucket: by retention, by compaction, and what nobody knows of.
//!
//! 1. *Expire*: what is older than a tenant's retention is taken out of its index.
//! 2. *Delete*: an object that left the index of a tenant the deletion delay ago goes, if no other tenant's index names it; then the index forgets it.
//! 3. *Sweep*, once a day: objects that no index names, neither as a block nor as a deletion, are what an upload left that was never entered. They
//!    go when they are as old as the deletion delay by the store's clock, or have been seen for so long where it has none. Unfinished uploads go too.
//!    A tenant without an index has lost it, for all that can be known, so its blocks are no orphans; nor is then what tenants share.
//!
//! An object goes before the index forgets it: what a crash leaves between the two is deleted again, which is no error.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use block::Block;
use model::TenantId;
use objstore::{Listed, list_all};

use crate::error::Error;
use crate::fetch::Plain;
use crate::index::{Deletion, TenantIndex};
use crate::keys;
use crate::options::millis;
use crate::uploader::Uploader;

impl Uploader {
    /// Does what is due of it; returns how many objects were deleted.
    pub(crate) fn clean(&mut self, now_ms: i64, stop: &AtomicBool) -> Result<u64, Error> {
        let mut deleted = 0;
        if now_ms >= self.next_cleanup_ms {
            self.expire(now_ms)?;
            deleted += self.delete(now_ms, stop)?;
            let interval = millis(self.options.cleanup_interval);
            self.next_cleanup_ms = now_ms.saturating_add(interval);
            self.show_indexes(now_ms, stop)?;
        }
        if now_ms >= self.next_sweep_ms && !stop.load(Ordering::Relaxed) {
            deleted += self.sweep(now_ms)?;
            // What is young today has to be looked at again soon.
            let interval = match self.orphans.is_empty() {
                true => millis(self.options.sweep_interval),
                false => {
                    millis(self.options.deletion_delay).min(millis(self.options.sweep_interval))
                }
            };
            self.next_sweep_ms = now_ms.saturating_add(interval);
        }
        Ok(deleted)
    }

    fn all_tenants(&self) -> Vec<TenantId> {
        let tenants = self.tenants.as_ref().expect("listed at the beginning");
        tenants.iter().cloned().collect()
    }

    fn expire(&mut self, now_ms: i64) -> Result<(), Error> {
        for tenant in self.all_tenants() {
            let retention = (self.retention)(&tenant);
            let marked = self.change_if(&tenant, now_ms, &mut |index| {
                let newest = index.blocks.iter().map(|entry| entry.max_time).max();
                let by_clock = now_ms.saturating_sub(retention);
                let newest = newest.unwrap_or(i64::MIN).min(now_ms);
                let by_samples = newest.saturating_sub(retention);
                index.remove(now_ms, |entry| {
                    let is_old = entry.created_ms < by_clock && entry.max_time < by_clock;
                    entry.max_time < by_samples || is_old
                })
            })?;
            self.metrics.marked.inc_by(u64::from(marked));
        }
        Ok(())
    }

    /// Numbers of the indexes, as they were looked at just now. One that cannot be read keeps the time at which it could, and then nothing has been deleted.
    fn show_indexes(&mut self, now_ms: i64, stop: &AtomicBool) -> Result<(), Error> {
        let mut all = true;
        for tenant in self.all_tenants() {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            match self.indexes.get(&tenant, now_ms, i64::MAX) {
                Ok(known) => {
                    let (metrics, shown) = (&self.metrics, &mut self.shown);
                    metrics.show_index(shown, &tenant, &known.index, now_ms);
                }
                Err(Error::Index { .. }) => all = false,
                Err(error) => return Err(error),
            }
        }
        if all {
            self.metrics.cleaned.set(now_ms as f64 / 1000.0);
        }
        Ok(())
    }

    /// Changes an index where that changes anything; an index that cannot be read is another's concern.
    fn change_if(
        &self,
        tenant: &TenantId,
        now_ms: i64,
        how: &mut dyn FnMut(&mut TenantIndex) -> bool,
    ) -> Result<bool, Error> {
        match self.indexes.change(tenant, now_ms, how) {
            Err(Error::Index { .. }) => Ok(false),
            Ok(true) => {
                self.metrics.index_writes.inc();
                Ok(true)
            }
            result => result,
        }
    }

    fn delete(&mut self, now_ms: i64, stop: &AtomicBool) -> Result<u64, Error> {
        let before_ms = now_ms.saturating_sub(millis(self.options.deletion_delay));
        let is_due = |deletion: &Deletion| deletion.since_ms <= before_ms;
        let mut due: BTreeMap<String, BTreeSet<TenantId>> = BTreeMap::new();
        let mut held: HashSet<String> = HashSet::new();
        for tenant in self.all_tenants() {
            let known = match self.indexes.get(&tenant, now_ms, i64::MAX) {
                // Whatever it names, nothing shared may go.
                Err(Error::Index { .. }) => return Ok(0),
                known => known?,
            };
            held.extend(known.index.blocks.iter().map(|entry| entry.key.clone()));
            for deletion in &known.index.deletions {
                match is_due(deletion) {
                    true => drop(
                        due.entry(deletion.key.clone())
                            .or_default()
                            .insert(tenant.clone()),
                    ),
                    false => drop(held.insert(deletion.key.clone())),
                }
            }
        }
        let mut deleted = 0;
        let mut forgetful: BTreeMap<TenantId, HashSet<String>> = BTreeMap::new();
        for (key, tenants) in due {
            if stop.load(Ordering::Relaxed) {
                return Ok(deleted);
            }
            if !held.contains(&key) {
                self.bucket.delete(&key)?;
                self.metrics.deleted.inc();
                deleted += 1;
            }
            for tenant in tenants {
                forgetful.entry(tenant).or_default().insert(key.clone());
            }
        }
        for (tenant, keys) in forgetful {
            self.change_if(&tenant, now_ms, &mut |index| {
                let before = index.deletions.len();
                index
                    .deletions
                    .retain(|deletion| !is_due(deletion) || !keys.contains(&deletion.key));
                index.deletions.len() < before
            })?;
        }
        Ok(deleted)
    }

    fn sweep(&mut self, now_ms: i64) -> Result<u64, Error> {
        let before_ms = now_ms.saturating_sub(millis(self.options.deletion_delay));
        for prefix in [keys::TENANTS, keys::SHARED] {
            match self.bucket.sweep(prefix, before_ms) {
                Ok(swept) => self.metrics.parts_swept.inc_by(swept),
                Err(error @ objstore::Error::Refused { .. }) => {
                    self.metrics.failures.inc();
                    tracing::warn!(%error, "unfinished uploads are not swept");
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Objects first, indexes then: what is entered meanwhile is not taken for an orphan.
        let mut found: Vec<Listed> = Vec::new();
        for prefix in [keys::TENANTS, keys::SHARED] {
            list_all(&*self.bucket, prefix, &mut |object| {
                if keys::block_id(&object.key).is_some() {
                    found.push(object);
                }
            })?;
        }
        let tenants: BTreeSet<TenantId> = self.all_tenants().into_iter().collect();
        let mut named: HashSet<u128> = HashSet::new();
        let mut indexed: HashSet<&TenantId> = HashSet::new();
        for tenant in &tenants {
            let known = match self.indexes.load(tenant, now_ms) {
                // Whatever it names, nothing may go.
                Err(Error::Index { .. }) => return Ok(0),
                known => known?,
            };
            if known.etag.is_some() {
                indexed.insert(tenant);
            }
            named.extend(known.index.blocks.iter().map(|entry| entry.id));
            named.extend(known.index.deletions.iter().map(|deletion| deletion.id));
        }
        let owner = |object: &Listed| keys::tenant_of(&object.key);
        let lost = |tenant: TenantId| !indexed.contains(&tenant);
        let any_lost = tenants.len() > indexed.len() || found.iter().filter_map(owner).any(lost);
        found.retain(|object| match owner(object) {
            Some(tenant) => !lost(tenant),
            None => !any_lost,
        });
        let mut deleted = 0;
        let mut orphans = std::mem::take(&mut self.orphans);
        orphans.retain(|key, _| found.iter().any(|object| object.key == *key));
        for object in found {
            let id = keys::block_id(&object.key).expect("filtered above");
            if named.contains(&id) {
                orphans.remove(&object.key);
                continue;
            }
            let seen_ms = *orphans.entry(object.key.clone()).or_insert(now_ms);
            let is_due = object.modified_ms.unwrap_or(seen_ms) <= before_ms;
            if is_due && self.is_of(&object, &indexed) {
                tracing::warn!(
                    key = object.key,
                    bytes = object.len,
                    "an object that no index names is deleted"
                );
                self.bucket.delete(&object.key)?;
                orphans.remove(&object.key);
                self.metrics.orphans.inc();
                deleted += 1;
            }
        }
        self.orphans = orphans;
        Ok(deleted)
    }

    /// Whether all tenants of a block have an index: one that does not would be the one that names it. What cannot be read stays.
    fn is_of(&self, object: &Listed, indexed: &HashSet<&TenantId>) -> bool {
        let mut source = Plain::new(&self.bucket, &object.key, object.len);
        match Block::open(&mut source) {
            Ok(block) => block
                .meta()
                .parts
                .iter()
                .all(|part| indexed.contains(&part.tenant)),
            Err(error) => {
                tracing::warn!(key = object.key, %error, "an object that no index names cannot be read, and stays");
                false
            }
        }
    }
}
