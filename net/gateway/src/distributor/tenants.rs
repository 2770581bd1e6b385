//! What the gateway threads share about a tenant: settings, rate, bytes in work, counters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::{TenantId, TenantLimits};
use wire::remote_write::Protocol;

use super::metrics::{Metrics, TenantCounters};
use super::rate::{SmoothRate, TokenBucket};
use super::refused::Refusals;
use crate::alias::Secret;
use crate::ha::sources::Sources;
use crate::overrides::Overrides;
use crate::relabel::Relabel;

/// Tenants below this number are never looked through for idle ones.
const SWEEP_FROM: usize = 1024;

/// A tenant that has sent nothing for this long leaves when room is made.
const IDLE_MINUTES: u64 = 60;

/// Tenants at most, whatever names senders think of: at some 3 KiB each 100 MiB, and six lines each on the page of metrics. Beyond, whoever
/// sent longest ago of a few leaves, with its counters; it is made anew when it comes back.
const TENANTS_MAX: usize = 32_768;

/// How many are looked at for one to leave.
const LEAVERS: usize = 32;

/// All tenants that have sent something lately.
#[derive(Debug)]
pub(crate) struct Tenants {
    overrides: Arc<Overrides>,
    metrics: Metrics,
    secret: Secret,
    core_count: u16,
    /// The next epoch of settings; none is ever used twice, also when a tenant leaves and comes back.
    epoch: AtomicU64,
    map: Mutex<Map>,
}

#[derive(Debug)]
struct Map {
    tenants: HashMap<TenantId, Arc<Tenant>>,
    /// Number of tenants at which idle ones are looked for.
    sweep_at: usize,
}

/// One tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) counters: TenantCounters,
    pub(crate) bucket: Mutex<TokenBucket>,
    /// Of native histograms.
    pub(crate) histogram_bucket: Mutex<TokenBucket>,
    /// Samples within its rate: what a refused push holds is none of them.
    pub(crate) accepted: AtomicU64,
    /// How fast they come, as the pages for operators show it.
    pub(crate) rate: SmoothRate,
    /// Bytes of its bodies, those that are still coming included.
    pub(crate) inflight_bytes: AtomicU64,
    /// Unpacked bytes of its bodies that are whole and not answered.
    pub(crate) work_bytes: AtomicU64,
    /// Bytes in the queue of each core.
    pub(crate) queued: Box<[AtomicU64]>,
    /// Its HA replicas.
    pub(crate) sources: Sources,
    /// Which of its refused series are remembered.
    pub(crate) refusals: Refusals,
    /// Minute of the last push.
    used: AtomicU64,
    settings: Mutex<Arc<Settings>>,
}

/// What a push needs to know of its tenant, as of its begin.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) limits: Arc<TenantLimits>,
    /// Its rules, compiled.
    pub(crate) relabel: Arc<Relabel>,
    /// Hash the name bytes of either version. They change whenever the rules for labels do, so aliases that were checked under other rules
    /// are never found again.
    ///
    secret_v1: Secret,
    secret_v2: Secret,
    /// Of the overrides when this was last compared.
    version: u64,
}

impl Settings {
    /// What hashes the name bytes of that protocol.
    pub(crate) fn secret(&self, protocol: Protocol) -> &Secret {
        match protocol {
            Protocol::V1 => &self.secret_v1,
            Protocol::V2 => &self.secret_v2,
        }
    }
}

impl Tenants {
    pub(crate) fn new(
        overrides: Arc<Overrides>,
        metrics: Metrics,
        secret: Secret,
        core_count: u16,
    ) -> Tenants {
        let map = Mutex::new(Map {
            tenants: HashMap::new(),
            sweep_at: SWEEP_FROM,
        });
        Tenants {
            overrides,
            metrics,
            secret,
            core_count,
            epoch: AtomicU64::new(0),
            map,
        }
    }

    /// The tenant, made when it is new, and its settings now. `minute` is a clock that only grows.
    pub(crate) fn of(&self, id: &TenantId, minute: u64) -> (Arc<Tenant>, Arc<Settings>) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let tenant = match map.tenants.get(id) {
            Some(tenant) => tenant.clone(),
            None => {
                if map.tenants.len() >= map.sweep_at {
                    self.sweep(&mut map, minute);
                }
                if map.tenants.len() >= TENANTS_MAX {
                    self.push_out(&mut map);
                }
                let tenant = Arc::new(self.make(id));
                map.tenants.insert(id.clone(), tenant.clone());
                self.metrics.tenants.set(map.tenants.len() as i64);
                tenant
            }
        };
        drop(map);
        tenant.used.store(minute, Ordering::Relaxed);
        let settings = self.settings(&tenant);
        (tenant, settings)
    }

    fn make(&self, id: &TenantId) -> Tenant {
        let version = self.overrides.version();
        let settings = self.make_settings(id, self.overrides.limits(id), version);
        // Under its secret: nobody can choose a name that has another's share.
        let share = settings.secret_v1.hash(&[]).0 as u8;
        Tenant {
            id: id.clone(),
            counters: self.metrics.of_tenant(id.as_str()),
            bucket: Mutex::default(),
            histogram_bucket: Mutex::default(),
            accepted: AtomicU64::new(0),
            rate: SmoothRate::default(),
            inflight_bytes: AtomicU64::new(0),
            work_bytes: AtomicU64::new(0),
            queued: (0..self.core_count).map(|_| AtomicU64::new(0)).collect(),
            sources: Sources::default(),
            refusals: Refusals::new(share),
            used: AtomicU64::new(0),
            settings: Mutex::new(Arc::new(settings)),
        }
    }

    fn make_settings(&self, id: &TenantId, limits: Arc<TenantLimits>, version: u64) -> Settings {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
        let [secret_v1, secret_v2] =
            [Protocol::V1, Protocol::V2].map(|protocol| self.secret.of_tenant(id, protocol, epoch));
        let relabel = Relabel::compile(&limits.metric_relabel_configs);
        let relabel = Arc::new(relabel.expect("rules are checked when they are configured"));
        Settings {
            limits,
            relabel,
            secret_v1,
            secret_v2,
            version,
        }
    }

    fn settings(&self, tenant: &Tenant) -> Arc<Settings> {
        let version = self.overrides.version();
        let mut current = tenant
            .settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if current.version != version {
            let limits = self.overrides.limits(&tenant.id);
            let per_node = |limits: &TenantLimits| {
                let series = (limits.series_per_user(), limits.series_per_metric());
                (series, limits.ha_max_clusters)
            };
            if per_node(&limits) != per_node(&current.limits) {
                tenant.refusals.forget();
            }
            *current = Arc::new(if limits.same_labels(&current.limits) {
                Settings {
                    limits,
                    relabel: current.relabel.clone(),
                    secret_v1: current.secret_v1.clone(),
                    secret_v2: current.secret_v2.clone(),
                    version,
                }
            } else {
                self.make_settings(&tenant.id, limits, version)
            });
        }
        current.clone()
    }

    /// `seconds` have passed since the last call: follows the rates.
    pub(crate) fn tick(&self, seconds: f64) {
        let tenants: Vec<_> = {
            let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
            map.tenants.values().cloned().collect()
        };
        for tenant in tenants {
            let accepted = tenant.accepted.load(Ordering::Relaxed);
            tenant.rate.tick(accepted, seconds);
        }
    }

    /// The tenant has deleted: series that its limits refused a moment ago may be taken now.
    pub(crate) fn retry_refused(&self, id: &TenantId) {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = map.tenants.get(id) {
            tenant.refusals.forget();
        }
    }

    /// Samples a second of a tenant, lately.
    pub(crate) fn rate_of(&self, id: &TenantId) -> f64 {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.tenants.get(id).map_or(0.0, |tenant| tenant.rate.get())
    }

    /// The same of all that have pushed lately.
    pub(crate) fn rates(&self) -> Vec<(TenantId, f64)> {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let all = map.tenants.iter();
        all.map(|(id, tenant)| (id.clone(), tenant.rate.get()))
            .collect()
    }

    fn sweep(&self, map: &mut Map, minute: u64) {
        map.tenants.retain(|id, tenant| {
            let used = tenant.used.load(Ordering::Relaxed);
            let stays = Arc::strong_count(tenant) > 1 || minute < used.saturating_add(IDLE_MINUTES);
            if !stays {
                self.metrics.forget(id.as_str());
            }
            stays
        });
        map.sweep_at = (map.tenants.len() * 2).max(SWEEP_FROM);
    }

    /// Lets one leave that nobody works for. Those in work are at most as many as there are connections, so among a few there is one.
    fn push_out(&self, map: &mut Map) {
        let free = map
            .tenants
            .iter()
            .filter(|(_, tenant)| Arc::strong_count(tenant) == 1)
            .take(LEAVERS);
        let oldest = free.min_by_key(|(_, tenant)| tenant.used.load(Ordering::Relaxed));
        if let Some(id) = oldest.map(|(id, _)| id.clone()) {
            map.tenants.remove(&id);
            self.metrics.forget(id.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(overrides: &Arc<Overrides>) -> Tenants {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        Tenants::new(overrides.clone(), metrics, Secret::from_seed(1), 2)
    }

    fn hash(settings: &Settings) -> u128 {
        settings.secret_v1.hash(b"labels").0
    }

    #[test]
    fn only_a_change_of_the_tenants_own_limits_changes_its_secret() {
        let overrides = Arc::new(Overrides::new(TenantLimits::cortex()));
        let tenants = tenants(&overrides);
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let before = [&a, &b].map(|id| hash(&tenants.of(id, 0).1));
        assert_eq!([&a, &b].map(|id| hash(&tenants.of(id, 0).1)), before);
        let own = TenantLimits {
            drop_labels: vec!["x".into()],
            ..TenantLimits::cortex()
        };
        overrides.replace(TenantLimits::cortex(), [(a.clone(), own)]);
        let after = [&a, &b].map(|id| hash(&tenants.of(id, 0).1));
        assert_ne!(after[0], before[0]);
        assert_eq!(after[1], before[1]);
        assert_eq!(tenants.of(&a, 0).1.limits.drop_labels, ["x"]);
    }

    /// Story: every change of a limit, of a query say, made all series of the tenant be parsed once more.
    #[test]
    fn limits_that_say_nothing_of_labels_leave_the_aliases_alone() {
        let overrides = Arc::new(Overrides::new(TenantLimits::cortex()));
        let tenants = tenants(&overrides);
        let a = TenantId::new("a").unwrap();
        let (tenant, settings) = tenants.of(&a, 0);
        let refused = tenant.refusals.refuser();
        let own = TenantLimits {
            max_samples_per_query: 7,
            ..TenantLimits::cortex()
        };
        overrides.replace(TenantLimits::cortex(), [(a.clone(), own.clone())]);
        let (tenant, after) = tenants.of(&a, 0);
        assert_eq!(hash(&after), hash(&settings));
        assert_eq!(after.limits.max_samples_per_query, 7);
        assert_eq!(tenant.refusals.refuser(), refused);
        // Series that were refused by a limit are tried again when it moves.
        let wider = TenantLimits {
            max_global_series_per_user: 9,
            ..own
        };
        overrides.replace(TenantLimits::cortex(), [(a.clone(), wider)]);
        let (tenant, after) = tenants.of(&a, 0);
        assert_eq!(hash(&after), hash(&settings));
        assert_ne!(tenant.refusals.refuser(), refused);
    }

    #[test]
    fn made_up_tenants_are_bounded_and_those_at_work_stay() {
        let overrides = Arc::new(Overrides::new(TenantLimits::cortex()));
        let tenants = tenants(&overrides);
        let (busy, _) = tenants.of(&TenantId::new("busy").unwrap(), 0);
        for i in 0..TENANTS_MAX + 1000 {
            tenants.of(&TenantId::new(&format!("t{i}")).unwrap(), 1);
        }
        assert_eq!(tenants.map.lock().unwrap().tenants.len(), TENANTS_MAX);
        let again = tenants.of(&busy.id, 1).0;
        assert!(Arc::ptr_eq(&busy, &again));
    }

    #[test]
    fn idle_tenants_leave_when_room_is_needed_and_never_get_an_old_epoch_back() {
        let overrides = Arc::new(Overrides::new(TenantLimits::cortex()));
        let tenants = tenants(&overrides);
        let first = TenantId::new("first").unwrap();
        let old = hash(&tenants.of(&first, 0).1);
        overrides.replace(TenantLimits::unlimited(), []);
        tenants.of(&first, 0);
        for i in 0..2 * SWEEP_FROM {
            tenants.of(&TenantId::new(&format!("t{i}")).unwrap(), IDLE_MINUTES);
        }
        let held = tenants.map.lock().unwrap().tenants.contains_key(&first);
        assert!(!held, "an idle tenant stayed");
        assert_ne!(hash(&tenants.of(&first, 90).1), old);
    }
}
