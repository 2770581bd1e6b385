//! Limits in force, per tenant.
//!
//! One value shared by all threads: defaults, and the tenants that have their own. [`Overrides::replace`] swaps all of it at
//! once; whoever keeps limits of a tenant compares [`Overrides::version`] (one atomic load) and asks again when it moved.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use model::{TenantId, TenantLimits};

/// See the module.
#[derive(Debug)]
pub struct Overrides {
    version: AtomicU64,
    table: RwLock<Table>,
}

#[derive(Debug)]
struct Table {
    defaults: Arc<TenantLimits>,
    tenants: HashMap<TenantId, Arc<TenantLimits>>,
}

impl Overrides {
    /// The same limits for everybody.
    pub fn new(defaults: TenantLimits) -> Overrides {
        let table = Table {
            defaults: Arc::new(defaults),
            tenants: HashMap::new(),
        };
        Overrides {
            version: AtomicU64::new(1),
            table: RwLock::new(table),
        }
    }

    /// New defaults, and new limits for the tenants that have their own. Pushes that have begun keep the old ones.
    pub fn replace(
        &self,
        defaults: TenantLimits,
        tenants: impl IntoIterator<Item = (TenantId, TenantLimits)>,
    ) {
        let tenants = tenants
            .into_iter()
            .map(|(tenant, limits)| (tenant, Arc::new(limits)));
        let table = Table {
            defaults: Arc::new(defaults),
            tenants: tenants.collect(),
        };
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Moves with every [`Overrides::replace`].
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The defaults, and the tenants that have their own limits, by name.
    pub fn all(&self) -> (Arc<TenantLimits>, Vec<(TenantId, Arc<TenantLimits>)>) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let own = table.tenants.iter();
        let mut own: Vec<_> = own
            .map(|(id, limits)| (id.clone(), limits.clone()))
            .collect();
        own.sort_by(|a, b| a.0.cmp(&b.0));
        (table.defaults.clone(), own)
    }

    /// The limits of a tenant, if it has its own.
    pub fn own(&self, tenant: &TenantId) -> Option<Arc<TenantLimits>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.tenants.get(tenant).cloned()
    }

    /// The limits of a tenant now.
    pub fn limits(&self, tenant: &TenantId) -> Arc<TenantLimits> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.tenants.get(tenant).unwrap_or(&table.defaults).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_without_their_own_limits_have_the_defaults() {
        let overrides = Overrides::new(TenantLimits::cortex());
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let before = overrides.version();
        let own = TenantLimits {
            max_series_per_user: 7,
            ..TenantLimits::cortex()
        };
        overrides.replace(TenantLimits::unlimited(), [(a.clone(), own)]);
        assert_eq!(overrides.limits(&a).max_series_per_user, 7);
        assert_eq!(overrides.limits(&b).max_series_per_user, 0);
        assert!(overrides.version() > before);
    }
}
