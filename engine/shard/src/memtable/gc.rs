//! Old data leaves memory.
//!
//! The *horizon* of a tenant is its newest sample less what it keeps; but a sample ahead of the wall clock moves it no further
//! than the clock and a grace, so that one sample of the year 3000 does not make all else look old. A tenant whose samples lie
//! in 1970 has its horizon there.
//!
//! A chunk leaves when it ends before the horizon and its series goes on behind it. A series leaves when even its last sample
//! is before the horizon *and* it has not been written for [`OLD_SERIES_LINGER_S`]: a first sample may be of any age, and what
//! was just acknowledged must be readable for a while.
//!
//! A series that has not been written for [`PARK_AFTER_S`] is *parked*: its open chunk goes to the chunk file, and of its memory the row, the cold row
//! and the index remain. Its samples stay readable for as long as they are kept; when blocks hold them, it leaves whole (`cut`).
//!
//! A round also counts the series of each tenant that were written lately: a sample of a known series tells nobody but its own row.
//!
//! A round visits all rows in slices, then sweeps the postings of what has died, tenant by tenant, in slices. The numbers of
//! the dead then wait in `retired` until neither a segment nor a checkpoint names them.

use super::append::hash_of;
use super::{Accounts, Memtable, NO_TENANT, Retired, Sealed, Tenant};
use crate::limits::{
    ACTIVE_S, FUTURE_GRACE_MS, OLD_SERIES_LINGER_S, PARK_AFTER_S, RETIRED_CHECKPOINT,
};

/// How far a round of collection is.
#[derive(Debug)]
pub(crate) struct Collection {
    next_row: u32,
    tenants: Vec<OfTenant>,
    sweeping: Option<u32>,
    now_s: u32,
    accounts: Accounts,
    /// Time of the oldest sample met that is in no block.
    oldest_unflushed: i64,
}

/// What a round has of a tenant, by slot.
#[derive(Debug)]
struct OfTenant {
    /// At the start.
    horizon: i64,
    /// The oldest sample met.
    oldest: i64,
    /// Active series met.
    active: u64,
}

impl Collection {
    /// Whether it removes the dead from postings: until it has, no other series may die.
    pub(crate) fn is_sweeping(&self) -> bool {
        self.sweeping.is_some()
    }
}

impl Memtable {
    /// The time before which a tenant's samples need not be kept.
    pub(crate) fn horizon(&self, tenant: u32, wall_ms: i64) -> i64 {
        let tenant = self.tenant(tenant);
        let newest = tenant.newest.min(wall_ms.saturating_add(FUTURE_GRACE_MS));
        newest.saturating_sub(tenant.retention_ms)
    }

    /// Begins a round.
    pub(crate) fn begin_collection(&mut self, wall_ms: i64) -> Collection {
        for tenant in self.tenants.iter_mut().flatten() {
            tenant.oldest_of_round = i64::MAX;
        }
        let of_slot = |slot: usize| match &self.tenants[slot] {
            Some(_) => self.horizon(slot as u32, wall_ms),
            None => i64::MIN,
        };
        let of_slot = |slot| OfTenant {
            horizon: of_slot(slot),
            oldest: i64::MAX,
            active: 0,
        };
        Collection {
            next_row: 0,
            tenants: (0..self.tenants.len()).map(of_slot).collect(),
            sweeping: None,
            now_s: seconds(wall_ms),
            accounts: Accounts::default(),
            oldest_unflushed: i64::MAX,
        }
    }

    /// Goes on with a round for about `budget` rows. `segment` is the log's current one: nothing later names what dies now.
    /// True when the round is over.
    ///
    /// `read` is the number of the next read: later ones have no candidate that died here.
    pub(crate) fn collect(
        &mut self,
        round: &mut Collection,
        segment: u32,
        read: u64,
        budget: usize,
    ) -> bool {
        if round.sweeping.is_none() {
            let end = round
                .next_row
                .saturating_add(budget as u32)
                .min(self.rows.count());
            for series in round.next_row..end {
                self.collect_series(series, round);
            }
            round.next_row = end;
            if end < self.rows.count() {
                return false;
            }
            self.note_round(round);
            round.sweeping = Some(0);
            return false;
        }
        let slot = round.sweeping.expect("looked at above");
        if slot as usize == self.tenants.len() {
            round.accounts.rows = self.rows.bytes();
            round.accounts.colds = self.colds.bytes();
            round.accounts.ids = self.ids.bytes();
            round.accounts.chunks += self.chunks.pending_bytes();
            self.accounts = round.accounts;
            self.oldest_unflushed_s = match round.oldest_unflushed {
                i64::MAX => 0,
                time => u64::try_from(time / 1000).unwrap_or(0),
            };
            return true;
        }
        if let Some(tenant) = &mut self.tenants[slot as usize] {
            // Postings are looked at much faster than rows.
            let Some(dead) = tenant.index.sweep(&self.secret, budget * 64) else {
                return false;
            };
            self.retired.extend(dead.into_iter().map(|series| Retired {
                series,
                segment,
                read,
            }));
            round.accounts.indexes += tenant.index.bytes() + size_of::<Tenant>();
            round.accounts.exemplars += tenant.exemplars.bytes() + tenant.starts.bytes();
            round.accounts.chunks += tenant.lates.bytes();
            if tenant.series == 0 {
                self.forget_tenant(slot);
            }
        }
        round.sweeping = Some(slot + 1);
        false
    }

    /// Numbers retired in segments before `segment` may be given out again, unless a read older than `read` may hold them.
    pub(crate) fn reuse_numbers_before(&mut self, segment: u32, read: u64) {
        let forgotten = |r: &mut Retired| r.segment < segment && r.read <= read;
        while let Some(retired) = self.retired.pop_front_if(forgotten) {
            debug_assert!(!self.is_live(retired.series));
            self.free.push(retired.series);
        }
    }

    /// Whether a checkpoint would pay, so that the rows of the dead are used again.
    pub(crate) fn numbers_wait(&self) -> bool {
        let live = usize::try_from(self.totals.series).unwrap_or(usize::MAX);
        self.retired.len() > RETIRED_CHECKPOINT.max(live)
    }

    fn collect_series(&mut self, series: u32, round: &mut Collection) {
        let row = &self.rows[series];
        if row.tenant == NO_TENANT {
            return;
        }
        // Tenants that came after the round began have nothing old.
        let Some(&OfTenant { horizon, .. }) = round.tenants.get(row.tenant as usize) else {
            return;
        };
        let idle_s = round.now_s.saturating_sub(row.written_s);
        let is_active = idle_s < ACTIVE_S && row.written_s >= self.written_from_s;
        if self.last_time(series) < horizon {
            if idle_s >= OLD_SERIES_LINGER_S {
                return self.remove_series(series);
            }
        } else if idle_s >= PARK_AFTER_S && self.is_in_blocks(series, idle_s) {
            return self.remove_series(series);
        } else {
            let parked = self.is_parked(series);
            let sealed = &mut self.colds[series].sealed;
            let old = sealed.partition_point(|chunk| chunk.max_time() < horizon);
            // The series was written again, and need not keep what is in a block.
            let moved = sealed.first().is_some_and(Sealed::is_in_block);
            let spare = moved && (sealed.len() > 1 || !parked);
            let old = old.max(usize::from(spare));
            if old > 0 {
                self.totals.sealed_chunks -= old as u64;
                for chunk in sealed.drain(..old) {
                    self.totals.sealed_bytes -= u64::from(chunk.place().len);
                    self.chunks.release(chunk.place());
                }
                if sealed.len() * 2 < sealed.capacity() {
                    sealed.shrink_to_fit();
                }
            }
            self.collect_late(series, horizon);
        }
        if idle_s >= PARK_AFTER_S && !self.is_parked(series) && !self.chunks.is_behind() {
            self.park(series);
        }
        let of_tenant = &mut round.tenants[self.rows[series].tenant as usize];
        of_tenant.oldest = of_tenant.oldest.min(self.first_time(series));
        of_tenant.active += u64::from(is_active);
        let sealed = &self.colds[series].sealed;
        let waits = sealed.iter().find(|chunk| !chunk.is_in_block());
        let waits = match waits {
            Some(chunk) => Some(chunk.min_time()),
            None if self.is_parked(series) => None,
            None => Some(self.open(series).first_time()),
        };
        let oldest = &mut round.oldest_unflushed;
        *oldest = waits.map_or(*oldest, |time| time.min(*oldest));
        self.account_series(series, &mut round.accounts);
    }

    fn account_series(&self, series: u32, accounts: &mut Accounts) {
        let cold = &self.colds[series];
        let native = cold.native.as_ref().map_or(0, |n| n.heap_bytes());
        accounts.chunks += self.rows[series].chunk.heap_bytes()
            + native
            + cold.sealed.capacity() * size_of::<Sealed>()
            + self.late_bytes(series);
        accounts.pairs += size_of_val(&*cold.pairs);
    }

    pub(crate) fn remove_series(&mut self, series: u32) {
        let row = &self.rows[series];
        let slot = row.tenant;
        self.forget_late(series, slot);
        let row = &mut self.rows[series];
        row.tenant = NO_TENANT;
        // A key with this generation must never fit again, whoever gets the number next.
        row.generation = row.generation.wrapping_add(1);
        self.totals.parked -= u64::from(row.chunk.is_empty());
        row.chunk = Default::default();
        let cold = std::mem::take(&mut self.colds[series]);
        self.ids
            .of_mut(hash_of(cold.id))
            .remove(hash_of(cold.id), series);
        let tenant = self.tenants[slot as usize]
            .as_mut()
            .expect("a live row has a tenant");
        tenant.index.bury(series, &cold.pairs);
        tenant.exemplars.forget(series);
        tenant.starts.forget(series);
        tenant.uncount_series(&cold.pairs);
        self.totals.series -= 1;
        self.totals.removed += 1;
        self.totals.sealed_chunks -= cold.sealed.len() as u64;
        for chunk in &cold.sealed {
            self.totals.sealed_bytes -= u64::from(chunk.place().len);
            self.chunks.release(chunk.place());
        }
    }

    fn note_round(&mut self, round: &Collection) {
        for (tenant, met) in self.tenants.iter_mut().zip(&round.tenants) {
            if let Some(tenant) = tenant {
                // What came during the round may stand in rows that it had passed.
                tenant.oldest = met.oldest.min(tenant.oldest_of_round);
                // Of active series that is a few, until the next round.
                tenant.set_active(met.active);
            }
        }
    }

    fn forget_tenant(&mut self, slot: u32) {
        let mut tenant = self.tenants[slot as usize]
            .take()
            .expect("the caller has looked");
        tenant.set_active(0);
        assert_eq!(tenant.index.count(), 0, "a tenant leaves after its series");
        self.tenant_slots.remove(&tenant.id);
        let id = tenant.id.clone();
        drop(tenant);
        self.quotas.forget_unused(&id);
    }
}

/// Whole seconds of a wall clock; times before 1970 count as 1970.
pub(crate) fn seconds(wall_ms: i64) -> u32 {
    u32::try_from(wall_ms.max(0) / 1000).unwrap_or(u32::MAX)
}
