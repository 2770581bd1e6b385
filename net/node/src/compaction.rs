//! What the compactor asks of the node: limits of tenants, space on the disk, and what the bucket has.

use std::path::PathBuf;
use std::sync::Arc;

use compactor::{Place, Policy};
use gateway::overrides::Overrides;
use longterm::Longterm;
use model::TenantId;

/// See the module.
#[derive(Debug)]
pub(crate) struct TenantPolicy {
    pub(crate) overrides: Arc<Overrides>,
    /// Where the data is.
    pub(crate) dir: PathBuf,
    /// Where there is a bucket.
    pub(crate) longterm: Option<Longterm>,
}

impl Policy for TenantPolicy {
    fn retention_ms(&self, tenant: &TenantId) -> i64 {
        self.overrides.limits(tenant).retention_ms()
    }

    fn free_bytes(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.dir).ok()?;
        found.f_bavail.checked_mul(found.f_frsize)
    }

    fn stored(&self, tenant: &TenantId) -> Option<Vec<Place>> {
        match &self.longterm {
            None => Some(Vec::new()),
            Some(longterm) => longterm.entries(tenant).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::TenantLimits;

    use super::*;

    /// Without a retention nothing is ever left out.
    #[test]
    fn no_retention_is_for_ever() {
        let policy = |retention| TenantPolicy {
            overrides: Arc::new(Overrides::new(TenantLimits {
                retention,
                ..TenantLimits::unlimited()
            })),
            dir: PathBuf::from("."),
            longterm: None,
        };
        let ms = |retention| policy(retention).retention_ms(&TenantId::fake());
        assert_eq!(ms(Duration::ZERO), i64::MAX);
        assert_eq!(ms(Duration::from_secs(5)), 5000);
        assert!(policy(Duration::ZERO).free_bytes().is_some());
    }
}
