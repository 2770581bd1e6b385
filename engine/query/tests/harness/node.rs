//! A node without a gateway: real cores in a temporary directory, and an engine over them.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::Arc;
use std::sync::mpsc::channel;

use model::{Labels, TenantId, TenantLimits, identity};
use prometheus::Registry;
use query::{Caller, Engine, Options, Query, Times};
use shard::{Cores, FreshSamples, FreshSeries, Push, PushOutcome};

/// Cores, an engine over them, and the directory they live in.
pub(crate) struct Node {
    pub(crate) cores: Cores,
    pub(crate) engine: Engine,
    pub(crate) registry: Registry,
    pub(crate) _dir: tempfile::TempDir,
}

impl Node {
    pub(crate) fn start(options: Options) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let cpus = shard::topology::cores(None, None).unwrap();
        let cores = Cores::start(shard::Options::new(dir.path(), cpus), |_| {}).unwrap();
        let registry = Registry::new();
        let engine = Engine::start(options, cores.mailboxes().clone(), &registry);
        Node {
            cores,
            engine,
            registry,
            _dir: dir,
        }
    }

    /// Stores samples of one series, without limits.
    pub(crate) fn push(&self, tenant: &TenantId, labels: &[(&str, &str)], samples: &[(i64, f64)]) {
        let labels = Labels::from_pairs(labels.iter().copied()).unwrap();
        push(
            &self.cores,
            tenant,
            TenantLimits::unlimited(),
            &labels,
            samples,
        );
    }

    /// Of the counters of a name that have this label value.
    pub(crate) fn total_of(&self, name: &str, label: &str) -> f64 {
        total_of(&self.registry, name, label)
    }

    pub(crate) fn total(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|f| f.name() == name).unwrap();
        family
            .get_metric()
            .iter()
            .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
            .sum()
    }
}

/// Of the counters of a name that have this label value.
pub(crate) fn total_of(registry: &Registry, name: &str, label: &str) -> f64 {
    let families = registry.gather();
    let metrics = families.iter().filter(|f| f.name() == name);
    let labeled = |m: &&prometheus::proto::Metric| m.get_label().iter().any(|l| l.value() == label);
    let found = metrics.flat_map(|f| f.get_metric()).filter(labeled);
    found.map(|m| m.get_counter().get_value()).sum()
}

/// Stores samples of one series.
pub(crate) fn push(
    cores: &Cores,
    tenant: &TenantId,
    limits: TenantLimits,
    labels: &Labels,
    samples: &[(i64, f64)],
) {
    let outcome = send(cores, tenant, limits, labels, samples);
    assert_eq!(outcome.stored as usize, samples.len(), "{outcome:?}");
}

/// Sends samples of one series, of which some may be refused.
pub(crate) fn send(
    cores: &Cores,
    tenant: &TenantId,
    limits: TenantLimits,
    labels: &Labels,
    samples: &[(i64, f64)],
) -> PushOutcome {
    let mut scratch = Vec::new();
    let id = identity::series_id(tenant, labels.packed(), &mut scratch);
    let placement = identity::placement(tenant, labels, &mut scratch);
    let core = identity::core_of(placement, cores.count());
    let (sender, receiver) = channel();
    let fresh = FreshSamples {
        series: vec![FreshSeries {
            id,
            labels_end: labels.packed().len() as u32,
            samples_end: samples.len() as u32,
        }],
        labels: labels.packed().to_vec(),
        times: samples.iter().map(|s| s.0).collect(),
        values: samples.iter().map(|s| s.1).collect(),
    };
    let mut permits = cores.mailboxes().reserve(&[(core, 1000)]).unwrap();
    let push = Push {
        tenant: tenant.clone(),
        limits: Arc::new(limits),
        known: Default::default(),
        fresh,
        others: Default::default(),
        credits: 0,
        reply: Box::new(move |outcome| sender.send(outcome).unwrap()),
    };
    permits.send(core, push);
    receiver.recv().unwrap()
}

/// A query with nothing special.
pub(crate) fn query(text: &str, times: Times) -> Query {
    Query {
        text: text.to_owned(),
        times,
        timeout: None,
        lookback: None,
        per_step: false,
        uncached: false,
        waited: std::time::Duration::ZERO,
    }
}

/// Who asks in the name of a tenant, at second 1000.
pub(crate) fn caller(tenant: &str) -> Caller {
    let limits = Arc::new(TenantLimits::unlimited());
    Caller {
        tenant: TenantId::new(tenant).unwrap(),
        limits,
        now_ms: 1_000_000,
        client: Arc::default(),
    }
}
