//! Tenant names within one file: written once, then referred to by index.

use std::collections::HashMap;

use model::TenantId;

/// Which tenants the file being written knows.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    indexes: HashMap<TenantId, u32>,
    /// The one asked for last: bodies come per tenant, so this is nearly always it.
    last: Option<(TenantId, u32)>,
}

impl Tenants {
    pub(crate) fn clear(&mut self) {
        self.indexes.clear();
        self.last = None;
    }

    /// The index of a tenant, and whether its record must be written first.
    pub(crate) fn index(&mut self, tenant: &TenantId) -> (u32, bool) {
        if let Some((last, index)) = &self.last
            && last == tenant
        {
            return (*index, false);
        }
        let next = u32::try_from(self.indexes.len()).expect("tenants are bounded by bytes logged");
        let index = *self.indexes.entry(tenant.clone()).or_insert(next);
        self.last = Some((tenant.clone(), index));
        (index, index == next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_new_once_per_file() {
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let mut tenants = Tenants::default();
        assert_eq!(tenants.index(&a), (0, true));
        assert_eq!(tenants.index(&a), (0, false));
        assert_eq!(tenants.index(&b), (1, true));
        assert_eq!(tenants.index(&a), (0, false));
        tenants.clear();
        assert_eq!(tenants.index(&b), (0, true));
    }
}
