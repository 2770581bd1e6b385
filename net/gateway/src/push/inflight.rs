//! Bytes of bodies in work, counted in total and per tenant.
//!
//! A tenant may hold twice what is still free, as in [`super::gate`], and no more than the bound for one tenant: also bodies that never come
//! to an end leave room for those of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{PushError, Shared};
use crate::distributor::tenants::Tenant;

/// Bytes that one push holds; given back when it is dropped, also with its connection.
pub(super) struct Inflight {
    shared: Arc<Shared>,
    tenant: Arc<Tenant>,
    bytes: u64,
}

impl Inflight {
    pub(super) fn new(shared: &Arc<Shared>, tenant: Arc<Tenant>) -> Inflight {
        Inflight {
            shared: shared.clone(),
            tenant,
            bytes: 0,
        }
    }

    /// Takes more bytes, or none.
    pub(super) fn add(&mut self, bytes: u64) -> Result<(), PushError> {
        let options = &self.shared.options;
        let held = self.shared.inflight_bytes.load(Ordering::Relaxed);
        let share = 2 * options.inflight_bytes_max.saturating_sub(held);
        let of_tenant = match options.inflight_bytes_per_tenant_max {
            0 => share,
            max => max.min(share),
        };
        take(
            &self.shared.inflight_bytes,
            bytes,
            options.inflight_bytes_max,
        )
        .ok_or(PushError::Inflight { of_tenant: false })?;
        if take(&self.tenant.inflight_bytes, bytes, of_tenant).is_none() {
            self.shared
                .inflight_bytes
                .fetch_sub(bytes, Ordering::Relaxed);
            return Err(PushError::Inflight { of_tenant: true });
        }
        self.bytes += bytes;
        self.shared.metrics.inflight_bytes.add(bytes as i64);
        Ok(())
    }

    /// Gives some back.
    pub(super) fn sub(&mut self, bytes: u64) {
        assert!(bytes <= self.bytes, "only what was taken is given back");
        self.bytes -= bytes;
        self.shared
            .inflight_bytes
            .fetch_sub(bytes, Ordering::Relaxed);
        self.tenant
            .inflight_bytes
            .fetch_sub(bytes, Ordering::Relaxed);
        self.shared.metrics.inflight_bytes.sub(bytes as i64);
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.sub(self.bytes);
    }
}

fn take(counter: &AtomicU64, bytes: u64, max: u64) -> Option<()> {
    let grown = |held: u64| held.checked_add(bytes).filter(|&held| held <= max);
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
        .ok()
        .map(drop)
}
