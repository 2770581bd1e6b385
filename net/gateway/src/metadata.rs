//! What senders say about their metrics: type, help, unit.
//!
//! Kept in memory, shared by all gateway threads, read by the metadata API. Senders repeat it every minute, so it is not logged: after a
//! restart it is there again with the next round. Bounds: per tenant `max_metadata_per_user` metrics and `max_metadata_per_metric`
//! records of one metric, [`STORE_BYTES_MAX`] in all; what has not been said for [`RETAIN_MS`] goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::{Metadata, TenantId, TenantLimits};

/// Text of all tenants together; above it new records are dropped and counted. Names, help and units of 100,000 metrics are some 20 MB.
pub const STORE_BYTES_MAX: usize = 256 << 20;

/// Source: Cortex, `-ingester.metadata-retain-period`.
pub const RETAIN_MS: i64 = 10 * 60 * 1000;

/// How often a tenant's records are looked through for old ones.
const PURGE_EVERY_MS: i64 = 60 * 1000;

/// Bookkeeping of a record beside its text: vector entry, map node, three strings.
const RECORD_BYTES: usize = 160;

/// See the module.
#[derive(Debug, Default)]
pub struct MetadataStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<TenantId, Metrics>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Metrics {
    by_name: BTreeMap<String, Vec<Record>>,
    purged_ms: i64,
}

#[derive(Debug)]
struct Record {
    metadata: Metadata,
    seen_ms: i64,
}

/// Records that found no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// The tenant has as many metrics with metadata as it may, or the store is full.
    pub per_user: u64,
    /// The metric has as many records as it may.
    pub per_metric: u64,
}

impl MetadataStore {
    /// Keeps records of a tenant, or notes that they were said again.
    pub fn record(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        now_ms: i64,
        records: impl IntoIterator<Item = (String, Metadata)>,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        let state = &mut *self.lock();
        let State { tenants, bytes } = state;
        let metrics = tenants.entry(tenant.clone()).or_default();
        metrics.purge(now_ms, bytes);
        for (name, metadata) in records {
            metrics.put(name, metadata, limits, now_ms, bytes, &mut dropped);
        }
        if metrics.by_name.is_empty() {
            tenants.remove(tenant);
        }
        dropped
    }

    /// Records of a tenant, ascending by metric; of one metric alone, or at most `limit` metrics, with at most
    /// `limit_per_metric` records each. Zero is no limit.
    pub fn list(
        &self,
        tenant: &TenantId,
        metric: Option<&str>,
        limit: usize,
        limit_per_metric: usize,
    ) -> Vec<(String, Vec<Metadata>)> {
        let most = |limit: usize| if limit == 0 { usize::MAX } else { limit };
        let state = self.lock();
        let Some(metrics) = state.tenants.get(tenant) else {
            return Vec::new();
        };
        let wanted = metrics
            .by_name
            .iter()
            .filter(|(name, _)| metric.is_none_or(|m| m == *name));
        let copy = |(name, records): (&String, &Vec<Record>)| {
            let records = records.iter().take(most(limit_per_metric));
            (
                name.clone(),
                records.map(|record| record.metadata.clone()).collect(),
            )
        };
        wanted.take(most(limit)).map(copy).collect()
    }

    /// Drops old records of all tenants, those included that send nothing any more; called now and then.
    pub fn purge(&self, now_ms: i64) {
        let State { tenants, bytes } = &mut *self.lock();
        tenants.retain(|_, metrics| {
            metrics.purge(now_ms, bytes);
            !metrics.by_name.is_empty()
        });
    }

    /// Metrics with metadata, of all tenants.
    pub fn count(&self) -> usize {
        let state = self.lock();
        state.tenants.values().map(|of| of.by_name.len()).sum()
    }

    /// Drops all records of a tenant.
    pub fn forget(&self, tenant: &TenantId) {
        let State { tenants, bytes } = &mut *self.lock();
        if let Some(mut metrics) = tenants.remove(tenant) {
            // All of them are old by then.
            metrics.purge(i64::MAX, bytes);
        }
    }

    /// Bytes held, estimated.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metrics {
    fn put(
        &mut self,
        name: String,
        metadata: Metadata,
        limits: &TenantLimits,
        now_ms: i64,
        bytes: &mut usize,
        dropped: &mut Dropped,
    ) {
        let cost = cost(&name, &metadata);
        let fits = *bytes + cost <= STORE_BYTES_MAX;
        let count = self.by_name.len();
        match self.by_name.get_mut(&name) {
            Some(records) => {
                if let Some(same) = records
                    .iter_mut()
                    .find(|record| record.metadata == metadata)
                {
                    same.seen_ms = now_ms;
                    return;
                }
                if !fits || reached(records.len(), limits.metadata_per_metric()) {
                    dropped.per_metric += 1;
                    return;
                }
                records.push(Record {
                    metadata,
                    seen_ms: now_ms,
                });
            }
            None => {
                if !fits || reached(count, limits.metadata_per_user()) {
                    dropped.per_user += 1;
                    return;
                }
                self.by_name.insert(
                    name,
                    vec![Record {
                        metadata,
                        seen_ms: now_ms,
                    }],
                );
            }
        }
        *bytes += cost;
    }

    fn purge(&mut self, now_ms: i64, bytes: &mut usize) {
        if now_ms.saturating_sub(self.purged_ms) < PURGE_EVERY_MS {
            return;
        }
        self.purged_ms = now_ms;
        let oldest = now_ms.saturating_sub(RETAIN_MS);
        self.by_name.retain(|name, records| {
            records.retain(|record| {
                let stays = record.seen_ms >= oldest;
                if !stays {
                    *bytes -= cost(name, &record.metadata);
                }
                stays
            });
            !records.is_empty()
        });
    }
}

fn cost(name: &str, metadata: &Metadata) -> usize {
    name.len() + metadata.help.len() + metadata.unit.len() + RECORD_BYTES
}

/// Zero is no limit.
fn reached(count: usize, limit: u32) -> bool {
    limit != 0 && count >= limit as usize
}

#[cfg(test)]
mod tests {
    use model::MetricType;

    use super::*;

    fn record(name: &str, help: &str) -> (String, Metadata) {
        let metadata = Metadata {
            kind: MetricType::Counter,
            help: help.into(),
            unit: String::new(),
        };
        (name.to_owned(), metadata)
    }

    fn names(store: &MetadataStore, tenant: &TenantId) -> Vec<String> {
        store
            .list(tenant, None, 0, 0)
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn tenants_see_their_own_metadata_sorted_and_limited() {
        let store = MetadataStore::default();
        let limits = TenantLimits::cortex();
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        store.record(
            &a,
            &limits,
            0,
            [record("z", "1"), record("y", "1"), record("y", "2")],
        );
        assert_eq!(names(&store, &a), ["y", "z"]);
        assert!(names(&store, &b).is_empty());
        assert_eq!(store.list(&a, Some("y"), 0, 0)[0].1.len(), 2);
        assert_eq!(store.list(&a, None, 1, 1).len(), 1);
        assert_eq!(store.list(&a, None, 1, 1)[0].1.len(), 1);
    }

    #[test]
    fn limits_drop_records_and_count_them() {
        let store = MetadataStore::default();
        let limits = TenantLimits {
            max_metadata_per_user: 2,
            max_metadata_per_metric: 1,
            ..TenantLimits::cortex()
        };
        let tenant = TenantId::fake();
        let dropped = store.record(
            &tenant,
            &limits,
            0,
            [
                record("a", "1"),
                record("a", "1"),
                record("a", "2"),
                record("b", "1"),
                record("c", "1"),
            ],
        );
        assert_eq!(
            dropped,
            Dropped {
                per_user: 1,
                per_metric: 1
            }
        );
        assert_eq!(names(&store, &tenant), ["a", "b"]);
    }

    #[test]
    fn what_is_not_repeated_goes_and_its_bytes_with_it() {
        let store = MetadataStore::default();
        let limits = TenantLimits::cortex();
        let tenant = TenantId::fake();
        store.record(
            &tenant,
            &limits,
            0,
            [record("old", "x"), record("new", "x")],
        );
        store.record(&tenant, &limits, RETAIN_MS, [record("new", "x")]);
        store.record(&tenant, &limits, RETAIN_MS + PURGE_EVERY_MS, []);
        assert_eq!(names(&store, &tenant), ["new"]);
        store.purge(3 * RETAIN_MS);
        assert!(names(&store, &tenant).is_empty());
        assert_eq!(store.bytes(), 0);
    }
}
