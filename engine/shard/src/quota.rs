//! Series counts that must hold for the whole node although every core sees only its share.
//!
//! The limits `max_series_per_user` and `max_series_per_metric` are per node and must be exact: a limit of 3 lets three series in,
//! whatever cores they fall on. So each tenant has one counter shared by all cores, and one per metric name. They are touched
//! when a series is created or leaves, never by a sample of a known series. A core keeps the counter of each metric it holds
//! in its own index, so the map below (the only lock of this crate) is taken for the first and last series of a metric on a
//! core, and for the first push of a tenant.
//!
//! Counters are raised before the limit is looked at and lowered again on refusal. Two cores that race for the last place
//! can therefore never both get it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use model::TenantId;

/// The counters of all tenants; one for all cores.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    tenants: Mutex<HashMap<TenantId, Arc<TenantQuota>>>,
}

/// The counters of one tenant.
#[derive(Debug, Default)]
pub(crate) struct TenantQuota {
    series: Counter,
    /// Sum of what the cores last counted; each adds its differences, which wrap.
    active: AtomicU64,
    metrics: Mutex<HashMap<Arc<str>, Arc<Counter>>>,
}

/// A number of series on this node.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Quotas {
    /// The counters of `tenant`, made on its first use.
    pub(crate) fn tenant(&self, tenant: &TenantId) -> Arc<TenantQuota> {
        let mut tenants = self.tenants.lock().expect("no panic under this lock");
        tenants.entry(tenant.clone()).or_default().clone()
    }

    /// Drops the counters of a tenant that no core holds any more.
    pub(crate) fn forget_unused(&self, tenant: &TenantId) {
        let mut tenants = self.tenants.lock().expect("no panic under this lock");
        if tenants
            .get(tenant)
            .is_some_and(|quota| Arc::strong_count(quota) == 1)
        {
            tenants.remove(tenant);
        }
    }
}

/// Tells how many series tenants have in memory, on all cores; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SeriesCounts(pub(crate) Arc<Quotas>);

impl SeriesCounts {
    /// Of one tenant.
    pub fn of(&self, tenant: &TenantId) -> u64 {
        let tenants = self.0.tenants.lock().expect("no panic under this lock");
        tenants.get(tenant).map_or(0, |quota| quota.series.get())
    }

    /// Series of one tenant that were written lately, as they were counted within the last minute.
    pub fn active_of(&self, tenant: &TenantId) -> u64 {
        let tenants = self.0.tenants.lock().expect("no panic under this lock");
        tenants.get(tenant).map_or(0, |quota| quota.active())
    }

    /// Of all that have some: series, and those of them that are active. Cost: a copy of the table of tenants under its lock.
    pub fn all(&self) -> Vec<(TenantId, u64, u64)> {
        let tenants = self.0.tenants.lock().expect("no panic under this lock");
        let all = tenants
            .iter()
            .map(|(id, quota)| (id.clone(), quota.series.get(), quota.active()));
        all.filter(|(_, series, _)| *series > 0).collect()
    }
}

impl TenantQuota {
    /// Series of the tenant on the whole node.
    pub(crate) fn series(&self) -> &Counter {
        &self.series
    }

    /// A core counts another number of active series than before.
    pub(crate) fn recount_active(&self, before: u64, now: u64) {
        let difference = now.wrapping_sub(before);
        self.active.fetch_add(difference, Ordering::Relaxed);
    }

    /// Never more than there are: what was deleted is counted until the next round.
    pub(crate) fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed).min(self.series.get())
    }

    /// The counter of one metric name.
    pub(crate) fn metric(&self, name: &str) -> Arc<Counter> {
        let mut metrics = self.metrics.lock().expect("no panic under this lock");
        if let Some(counter) = metrics.get(name) {
            return counter.clone();
        }
        let counter = Arc::new(Counter::default());
        metrics.insert(Arc::from(name), counter.clone());
        counter
    }

    /// Drops the counter of a metric that no core holds any more. The caller has dropped its own handle.
    pub(crate) fn forget_metric(&self, name: &str) {
        let mut metrics = self.metrics.lock().expect("no panic under this lock");
        if metrics
            .get(name)
            .is_some_and(|counter| Arc::strong_count(counter) == 1)
        {
            metrics.remove(name);
        }
    }
}

impl Counter {
    /// Counts one more unless that would exceed `limit` (0: no limit). False: refused, nothing counted.
    pub(crate) fn raise(&self, limit: u64) -> bool {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        if limit != 0 && before >= limit {
            self.lower();
            return false;
        }
        true
    }

    /// Counts one less.
    pub(crate) fn lower(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "more series left than came");
    }

    /// How many there are.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_lets_exactly_that_many_in() {
        let counter = Counter::default();
        assert!((0..3).all(|_| counter.raise(3)));
        assert!(!counter.raise(3));
        assert_eq!(counter.get(), 3);
        counter.lower();
        assert!(counter.raise(3));
        assert!(counter.raise(0), "0 is no limit");
    }

    #[test]
    fn counters_are_shared_by_cores_and_forgotten_with_the_last() {
        let quotas = Quotas::default();
        let (a, b) = (
            quotas.tenant(&TenantId::fake()),
            quotas.tenant(&TenantId::fake()),
        );
        let (up_a, up_b) = (a.metric("up"), b.metric("up"));
        assert!(up_a.raise(1) && !up_b.raise(1));
        drop(up_a);
        a.forget_metric("up");
        assert_eq!(b.metric("up").get(), 1, "core b still holds it");
        drop(up_b);
        a.forget_metric("up");
        assert_eq!(b.metric("up").get(), 0, "a new counter");
        drop(a);
        quotas.forget_unused(&TenantId::fake());
        assert!(Arc::ptr_eq(&b, &quotas.tenant(&TenantId::fake())));
    }
}
