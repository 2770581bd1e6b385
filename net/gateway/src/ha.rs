//! HA pairs: of several Prometheus that scrape the same targets, one is elected, and only its samples are taken.
//!
//! A cluster is the value of one external label, a replica that of another (`ha_cluster_label`, `ha_replica_label`). First come, first elected;
//! another replica takes over when the elected one has been silent for the failover timeout. Age is that of the wall clock here, sample times play no role.
//! Elections are kept in a [`Kv`] and remembered in a map beside it, so that of all pushes of a cluster one in an update timeout goes to the former. Which
//! series belongs to which replica the distributor knows ([`sources`]); this module only decides.
//!
//! Not kept over a restart of a node of its own: then whoever comes first is elected, as after any silence. An election that survived could only
//! make the node wait for a replica that is gone.
//!
//! Bounds: [`CLUSTERS_MAX`] of a tenant where its own limit is larger; what nobody has written for [`IDLE_MS`] is marked as deleted, and
//! removed after the same time again.

pub mod kv;
mod metrics;
pub(crate) mod sources;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use model::{TenantId, TenantLimits};
use prometheus::Registry;

use kv::{Change, Entry, Key, Kv};
use metrics::Metrics;

/// Clusters of one tenant, whatever its limit says.
const CLUSTERS_MAX: usize = 10_000;

/// See the module.
const IDLE_MS: u64 = 30 * 60_000;

/// How the tracker works.
#[derive(Debug, Clone)]
pub struct HaOptions {
    /// Age from which on an election is written again.
    pub update_timeout: Duration,
    /// Added to it, by chance of this process; may be negative.
    pub jitter_ms: i64,
}

/// Elects.
#[derive(Debug)]
pub struct Tracker {
    options: HaOptions,
    kv: Arc<dyn Kv>,
    /// What the KV said last.
    elected: RwLock<HashMap<TenantId, HashMap<Arc<str>, Elected>>>,
    metrics: Metrics,
}

#[derive(Debug, Clone)]
struct Elected {
    replica: Arc<str>,
    received_at_ms: i64,
}

/// What becomes of a replica's samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is the elected one.
    Taken,
    /// This one is.
    Passive(Arc<str>),
    /// The tenant has as many clusters as it may.
    TooMany(u64),
}

/// A line of the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) tenant: TenantId,
    pub(crate) cluster: Arc<str>,
    pub(crate) replica: Arc<str>,
    pub(crate) received_at_ms: i64,
    /// Until it is written again, and until another may take over; negative where that is past.
    pub(crate) update_in_ms: i64,
    pub(crate) failover_in_ms: i64,
}

impl Tracker {
    /// Errors: a registry that has these metrics already.
    pub fn new(
        options: HaOptions,
        kv: Arc<dyn Kv>,
        registry: &Registry,
    ) -> Result<Tracker, prometheus::Error> {
        Ok(Tracker {
            options,
            kv,
            elected: RwLock::default(),
            metrics: Metrics::register(registry)?,
        })
    }

    /// What becomes of a replica's samples, as far as that is known without waiting: `None` where [`Tracker::elect`] has to ask.
    pub(crate) fn look(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        [cluster, replica]: [&str; 2],
        now_ms: i64,
    ) -> Option<Fate> {
        let (known, count) = {
            let elected = self.elected.read().unwrap_or_else(PoisonError::into_inner);
            let of_tenant = elected.get(tenant);
            let known = of_tenant.and_then(|clusters| clusters.get(cluster));
            (known.cloned(), of_tenant.map_or(0, HashMap::len))
        };
        match known {
            Some(known) if self.is_fresh(known.received_at_ms, now_ms) => {
                return Some(fate(&known.replica, replica));
            }
            Some(_) => {}
            None => {
                let max = limits.ha_max_clusters;
                let reached = max > 0 && count as u64 >= max || count >= CLUSTERS_MAX;
                if reached {
                    return Some(Fate::TooMany(if max > 0 { max } else { count as u64 }));
                }
            }
        }
        let key = Key::new(tenant, cluster);
        let mut after = None;
        let answered = {
            let mut change = self.change(limits, replica, now_ms, &mut after);
            self.kv.try_cas(&key, &mut change)
        };
        if !answered {
            return None;
        }
        Some(self.learn(tenant, cluster, replica, after, now_ms))
    }

    /// Asks the KV.
    ///
    /// Errors: why it has no answer; the sender has to come back.
    pub(crate) async fn elect(
        &self,
        tenant: &TenantId,
        limits: &TenantLimits,
        [cluster, replica]: [&str; 2],
        now_ms: i64,
    ) -> Result<Fate, String> {
        let key = Key::new(tenant, cluster);
        let mut after = None;
        {
            let mut change = self.change(limits, replica, now_ms, &mut after);
            self.kv.cas(&key, &mut change).await?;
        }
        Ok(self.learn(tenant, cluster, replica, after, now_ms))
    }

    /// The election: what is to become of an entry, which is noted in `after`.
    fn change<'a>(
        &'a self,
        limits: &'a TenantLimits,
        replica: &'a str,
        now_ms: i64,
        after: &'a mut Option<Entry>,
    ) -> impl FnMut(Option<&Entry>) -> Change + Send + 'a {
        let failover = millis(limits.ha_tracker_failover_timeout);
        move |current| {
            let current = current.filter(|entry| entry.deleted_at_ms == 0);
            let stays = current.filter(|entry| {
                let age = now_ms.abs_diff(entry.received_at_ms);
                match *entry.replica == *replica {
                    true => self.is_fresh(entry.received_at_ms, now_ms),
                    false => age < failover,
                }
            });
            if let Some(entry) = stays {
                *after = Some(entry.clone());
                return Change::Keep;
            }
            let entry = Entry {
                replica: Arc::from(replica),
                received_at_ms: now_ms,
                deleted_at_ms: 0,
            };
            *after = Some(entry.clone());
            Change::Put(entry)
        }
    }

    /// Remembers what holds in the KV.
    fn learn(
        &self,
        tenant: &TenantId,
        cluster: &str,
        replica: &str,
        after: Option<Entry>,
        now_ms: i64,
    ) -> Fate {
        let Entry {
            replica: holder,
            received_at_ms,
            ..
        } = after.expect("a KV that answers has called for the change");
        let fate = fate(&holder, replica);
        let now = Elected {
            replica: holder.clone(),
            received_at_ms,
        };
        let mut all = self.elected.write().unwrap_or_else(PoisonError::into_inner);
        let clusters = all.entry(tenant.clone()).or_default();
        let before = match clusters.get_mut(cluster) {
            Some(known) => Some(std::mem::replace(known, now)),
            None => clusters.insert(Arc::from(cluster), now),
        };
        let changed = before.is_none_or(|before| before.replica != holder);
        let metrics = &self.metrics;
        metrics.asked(tenant, cluster, received_at_ms, clusters.len());
        if changed {
            metrics.changed(tenant, cluster, now_ms.abs_diff(received_at_ms));
        }
        fate
    }

    /// Whether an election need not be written again yet.
    fn is_fresh(&self, received_at_ms: i64, now_ms: i64) -> bool {
        let timeout = millis(self.options.update_timeout);
        let timeout = timeout.saturating_add_signed(self.options.jitter_ms);
        now_ms.abs_diff(received_at_ms) < timeout
    }

    /// Samples of a passive replica.
    pub(crate) fn count_deduped(&self, tenant: &TenantId, cluster: &str, samples: u64) {
        self.metrics.deduped(tenant, cluster, samples);
    }

    /// Marks what has been silent for long as deleted, and removes what has been marked for long.
    ///
    /// Errors: why the KV has no answer; the next call tries again.
    pub async fn clean(&self, now_ms: i64) -> Result<(), String> {
        self.metrics.cleanups.inc();
        for (key, entry) in self.kv.list().await? {
            let is_past = |since_ms: i64| now_ms.abs_diff(since_ms) >= IDLE_MS;
            if entry.deleted_at_ms == 0 && !is_past(entry.received_at_ms)
                || entry.deleted_at_ms != 0 && !is_past(entry.deleted_at_ms)
            {
                continue;
            }
            let (mut marked, mut removed) = (false, false);
            let mut change = |current: Option<&Entry>| match current {
                // It has been written meanwhile.
                Some(current) if *current != entry => Change::Keep,
                None => Change::Keep,
                Some(current) if current.deleted_at_ms == 0 => {
                    marked = true;
                    Change::Put(Entry {
                        deleted_at_ms: now_ms,
                        ..current.clone()
                    })
                }
                Some(_) => {
                    removed = true;
                    Change::Remove
                }
            };
            let changed = self.kv.cas(&key, &mut change).await;
            changed.inspect_err(|_| self.metrics.failed.inc())?;
            if marked {
                self.metrics.marked.inc();
                self.forget(&key);
            }
            if removed {
                self.metrics.removed.inc();
            }
        }
        Ok(())
    }

    fn forget(&self, key: &Key) {
        let mut all = self.elected.write().unwrap_or_else(PoisonError::into_inner);
        let left = all.get_mut(&key.tenant).map_or(0, |clusters| {
            clusters.remove(&*key.cluster);
            clusters.len()
        });
        if left == 0 {
            all.remove(&key.tenant);
        }
        self.metrics.forget(&key.tenant, &key.cluster, left);
    }

    /// All elections, by tenant and cluster. `failover` tells the timeout of a tenant.
    pub(crate) fn lines(&self, now_ms: i64, failover: impl Fn(&TenantId) -> Duration) -> Vec<Line> {
        let all = self.elected.read().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Vec::new();
        for (tenant, clusters) in all.iter() {
            let failover = millis(failover(tenant));
            let update = millis(self.options.update_timeout);
            for (cluster, elected) in clusters {
                let left = |timeout: u64| {
                    let until = elected.received_at_ms.saturating_add_unsigned(timeout);
                    until.saturating_sub(now_ms)
                };
                lines.push(Line {
                    tenant: tenant.clone(),
                    cluster: cluster.clone(),
                    replica: elected.replica.clone(),
                    received_at_ms: elected.received_at_ms,
                    update_in_ms: left(update.saturating_add_signed(self.options.jitter_ms)),
                    failover_in_ms: left(failover),
                });
            }
        }
        drop(all);
        lines.sort_by(|a, b| (&a.tenant, &a.cluster).cmp(&(&b.tenant, &b.cluster)));
        lines
    }
}

fn fate(elected: &Arc<str>, replica: &str) -> Fate {
    match **elected == *replica {
        true => Fate::Taken,
        false => Fate::Passive(elected.clone()),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
