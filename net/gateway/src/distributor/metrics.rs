//! Counters of the write path. Names are an interface: Cortex' mixin uses them.
//!
//! Handles are resolved once per tenant ([`TenantCounters`]); a push adds to them a constant number of times, whatever it carries.

use prometheus::{
    Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// All metrics of the write path; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    samples_in: IntCounterVec,
    received_samples: IntCounterVec,
    metadata_in: IntCounterVec,
    received_metadata: IntCounterVec,
    exemplars_in: IntCounterVec,
    latest_seen: GaugeVec,
    pub(crate) discarded_samples: IntCounterVec,
    pub(crate) discarded_metadata: IntCounterVec,
    pub(crate) discarded_exemplars: IntCounterVec,
    /// Pushes in work.
    pub(crate) inflight_pushes: IntGauge,
    /// Bytes of bodies in work.
    pub(crate) inflight_bytes: IntGauge,
    /// By protocol.
    pub(crate) pushes: IntCounterVec,
    /// By what refused them.
    pub(crate) overloads: IntCounterVec,
    /// By result.
    pub(crate) alias_lookups: IntCounterVec,
    /// By thread.
    pub(crate) aliases: IntGaugeVec,
    /// By thread.
    pub(crate) alias_bytes: IntGaugeVec,
    /// Pushed out by a bound.
    pub(crate) aliases_evicted: IntCounter,
    /// Keys that a core did not know any more.
    pub(crate) dead_keys: IntCounter,
}

/// The counters of one tenant.
#[derive(Debug)]
pub(crate) struct TenantCounters {
    pub(crate) samples_in: IntCounter,
    pub(crate) received_samples: IntCounter,
    pub(crate) metadata_in: IntCounter,
    pub(crate) received_metadata: IntCounter,
    pub(crate) exemplars_in: IntCounter,
    pub(crate) latest_seen: Gauge,
}

impl Metrics {
    /// Registers all of them.
    ///
    /// Errors: a name that is registered already.
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauges = |name: &str, help: &str| {
            let vec = IntGaugeVec::new(Opts::new(name, help), &["thread"])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let latest_seen = GaugeVec::new(
            Opts::new(
                "cortex_distributor_latest_seen_sample_timestamp_seconds",
                "Newest sample time accepted, as Unix seconds.",
            ),
            &["user"],
        )?;
        registry.register(Box::new(latest_seen.clone()))?;
        Ok(Metrics {
            samples_in: counters(
                "cortex_distributor_samples_in_total",
                "Samples that came, before validation.",
                &["user"],
            )?,
            received_samples: counters(
                "cortex_distributor_received_samples_total",
                "Samples left after validation.",
                &["user"],
            )?,
            metadata_in: counters(
                "cortex_distributor_metadata_in_total",
                "Metadata records that came, before validation.",
                &["user"],
            )?,
            received_metadata: counters(
                "cortex_distributor_received_metadata_total",
                "Metadata records left after validation.",
                &["user"],
            )?,
            exemplars_in: counters(
                "cortex_distributor_exemplars_in_total",
                "Exemplars that came.",
                &["user"],
            )?,
            latest_seen,
            discarded_samples: counters(
                "cortex_discarded_samples_total",
                "Samples refused, by reason.",
                &["reason", "user"],
            )?,
            discarded_metadata: counters(
                "cortex_discarded_metadata_total",
                "Metadata records refused, by reason.",
                &["reason", "user"],
            )?,
            discarded_exemplars: counters(
                "cortex_discarded_exemplars_total",
                "Exemplars dropped, by reason.",
                &["reason", "user"],
            )?,
            inflight_pushes: gauge(
                "cortex_distributor_inflight_push_requests",
                "Pushes in work.",
            )?,
            inflight_bytes: gauge(
                "myelin_distributor_inflight_bytes",
                "Bytes of push bodies in work, packed and unpacked.",
            )?,
            pushes: counters(
                "cortex_distributor_push_requests_total",
                "Pushes, by protocol.",
                &["type"],
            )?,
            overloads: counters(
                "myelin_distributor_overload_total",
                "Pushes answered 503, by what was full or failed.",
                &["reason"],
            )?,
            alias_lookups: counters(
                "myelin_alias_lookups_total",
                "Series looked up by the hash of their label bytes, by what answered.",
                &["result"],
            )?,
            aliases: gauges("myelin_aliases", "Aliases held, by gateway thread.")?,
            alias_bytes: gauges(
                "myelin_alias_bytes",
                "Memory of the aliases, by gateway thread.",
            )?,
            aliases_evicted: counter(
                "myelin_aliases_evicted_total",
                "Aliases pushed out by a bound.",
            )?,
            dead_keys: counter(
                "myelin_alias_dead_keys_total",
                "Samples sent by a key that the core did not know any more; they were sent again with labels.",
            )?,
        })
    }

    /// Resolves the counters of a tenant.
    pub(crate) fn of_tenant(&self, user: &str) -> TenantCounters {
        TenantCounters {
            samples_in: self.samples_in.with_label_values(&[user]),
            received_samples: self.received_samples.with_label_values(&[user]),
            metadata_in: self.metadata_in.with_label_values(&[user]),
            received_metadata: self.received_metadata.with_label_values(&[user]),
            exemplars_in: self.exemplars_in.with_label_values(&[user]),
            latest_seen: self.latest_seen.with_label_values(&[user]),
        }
    }

    /// Takes the counters of a tenant off the page. Discards stay: their reasons are not known here.
    pub(crate) fn forget(&self, user: &str) {
        for vec in [
            &self.samples_in,
            &self.received_samples,
            &self.metadata_in,
            &self.received_metadata,
            &self.exemplars_in,
        ] {
            // Nothing to remove is fine: the tenant has had no such counter.
            let _ = vec.remove_label_values(&[user]);
        }
        let _ = self.latest_seen.remove_label_values(&[user]);
    }
}
