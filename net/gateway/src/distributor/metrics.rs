//! Counters of the write path. Names are an interface: Cortex' mixin uses them.
//!
//! Handles are resolved once, those of a tenant ([`TenantCounters`]) and of a thread ([`Metrics::of_thread`]) when they come: a label costs a hash and
//! a lock. A push adds to them a constant number of times, whatever it carries.

use std::sync::OnceLock;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};
use wire::remote_write::Protocol;

use crate::push::PushOptions;
use crate::push::gate::Gauges;

/// All metrics of the write path; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    samples_in: IntCounterVec,
    received_samples: IntCounterVec,
    metadata_in: IntCounterVec,
    received_metadata: IntCounterVec,
    exemplars_in: IntCounterVec,
    received_exemplars: IntCounterVec,
    non_ha_samples: IntCounterVec,
    latest_seen: GaugeVec,
    pub(crate) discarded_samples: IntCounterVec,
    pub(crate) discarded_metadata: IntCounterVec,
    pub(crate) discarded_exemplars: IntCounterVec,
    /// Pushes in work.
    pub(crate) inflight_pushes: IntGauge,
    /// Bytes of bodies in work.
    pub(crate) inflight_bytes: IntGauge,
    /// By protocol: version 1, version 2.
    pushes: [IntCounter; 2],
    pub(crate) pushes_otlp: IntCounter,
    /// By what refused them.
    pub(crate) overloads: IntCounterVec,
    /// By result: predicted, found, missed.
    pub(crate) alias_lookups_by: [IntCounter; 3],
    /// Aliases, those of refused series among them, and their bytes, by thread.
    of_thread: [IntGaugeVec; 3],
    /// Series refused because they were refused before.
    pub(crate) refused_again: IntCounter,
    /// Tenants with counters.
    pub(crate) tenants: IntGauge,
    /// Overload and rate of work.
    pub(crate) gate: Gauges,
    /// Pushed out by a bound.
    pub(crate) aliases_evicted: IntCounter,
    /// Samples a second, of all tenants.
    pub(crate) ingestion_rate: Gauge,
    /// By limit.
    instance_limits: GaugeVec,
    /// Keys that a core did not know any more.
    pub(crate) dead_keys: IntCounter,
    /// Of series that were looked at with their labels: how many labels, and their bytes.
    shapes: [Histogram; 2],
}

/// The counters of one tenant.
#[derive(Debug)]
pub(crate) struct TenantCounters {
    pub(crate) samples_in: IntCounter,
    pub(crate) received_samples: IntCounter,
    pub(crate) metadata_in: IntCounter,
    pub(crate) received_metadata: IntCounter,
    pub(crate) exemplars_in: IntCounter,
    pub(crate) received_exemplars: IntCounter,
    /// Only of tenants whose replicas are told apart.
    pub(crate) non_ha_samples: OnceLock<IntCounter>,
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
        let pushes = counters(
            "cortex_distributor_push_requests_total",
            "Pushes, by protocol.",
            &["type"],
        )?;
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
                "Exemplars that came, before validation.",
                &["user"],
            )?,
            received_exemplars: counters(
                "cortex_distributor_received_exemplars_total",
                "Exemplars left after validation.",
                &["user"],
            )?,
            non_ha_samples: counters(
                "cortex_distributor_non_ha_samples_received_total",
                "Samples of no replica, of tenants whose replicas are told apart.",
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
            pushes: ["prw1", "prw2"].map(|protocol| pushes.with_label_values(&[protocol])),
            pushes_otlp: pushes.with_label_values(&["otlp"]),
            overloads: counters(
                "myelin_distributor_overload_total",
                "Pushes answered 503, by what was full or failed.",
                &["reason"],
            )?,
            alias_lookups_by: {
                let lookups = counters(
                    "myelin_alias_lookups_total",
                    "Series looked up by the hash of their label bytes, by what answered.",
                    &["result"],
                )?;
                ["predicted", "found", "missed"].map(|result| lookups.with_label_values(&[result]))
            },
            of_thread: [
                gauges("myelin_aliases", "Aliases held, by gateway thread.")?,
                gauges(
                    "myelin_aliases_refused",
                    "Aliases of series that were refused, by gateway thread.",
                )?,
                gauges(
                    "myelin_alias_bytes",
                    "Memory of the aliases, by gateway thread.",
                )?,
            ],
            refused_again: counter(
                "myelin_series_refused_again_total",
                "Series refused without being looked at, because they were refused not long ago.",
            )?,
            gate: Gauges {
                overloaded: gauge(
                    "myelin_distributor_overloaded",
                    "1 while pushes are refused because a queue stands.",
                )?,
                rate: gauge(
                    "myelin_distributor_work_bytes_per_second",
                    "Unpacked bytes of pushes finished a second, lately and when busy: what may wait follows from it.",
                )?,
            },
            tenants: gauge(
                "myelin_distributor_tenants",
                "Tenants that pushed lately and have counters.",
            )?,
            aliases_evicted: counter(
                "myelin_aliases_evicted_total",
                "Aliases pushed out by a bound.",
            )?,
            ingestion_rate: {
                let gauge = Gauge::new(
                    "cortex_distributor_ingestion_rate_samples_per_second",
                    "Samples taken a second, smoothed.",
                )?;
                registry.register(Box::new(gauge.clone()))?;
                gauge
            },
            instance_limits: {
                let limits = GaugeVec::new(
                    Opts::new(
                        "cortex_distributor_instance_limits",
                        "Limits of this process; 0 is no limit.",
                    ),
                    &["limit"],
                )?;
                registry.register(Box::new(limits.clone()))?;
                limits
            },
            dead_keys: counter(
                "myelin_alias_dead_keys_total",
                "Samples sent by a key that the core did not know any more; they were sent again with labels.",
            )?,
            shapes: {
                let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
                    let opts = HistogramOpts::new(name, help).buckets(buckets);
                    let histogram = Histogram::with_opts(opts)?;
                    registry.register(Box::new(histogram.clone()))?;
                    Ok::<_, prometheus::Error>(histogram)
                };
                [
                    histogram(
                        "cortex_labels_per_sample",
                        "Labels of a series, once for each that was looked at with its labels: when it is new to a gateway thread, not for every sample.",
                        vec![5.0, 10.0, 15.0, 20.0, 25.0, 30.0],
                    )?,
                    histogram(
                        "cortex_label_size_bytes",
                        "Bytes of all names and values of the labels of a series, counted as cortex_labels_per_sample is.",
                        prometheus::exponential_buckets(64.0, 2.0, 8)?,
                    )?,
                ]
            },
        })
    }

    /// Notes how many labels series have, and their bytes.
    pub(crate) fn observe_shapes(&self, shapes: &[(u32, u32)]) {
        if shapes.is_empty() {
            return;
        }
        let [labels, bytes] = self.shapes.each_ref().map(Histogram::local);
        for shape in shapes {
            labels.observe(shape.0.into());
            bytes.observe(shape.1.into());
        }
        labels.flush();
        bytes.flush();
    }

    /// Shows the bounds of this process.
    pub(crate) fn show_limits(&self, options: &PushOptions) {
        for (limit, value) in [
            (
                "max_inflight_push_requests",
                options.inflight_pushes_max as f64,
            ),
            ("max_ingestion_rate", options.samples_per_second_max),
        ] {
            self.instance_limits.with_label_values(&[limit]).set(value);
        }
    }

    /// The counter of a protocol's pushes.
    pub(crate) fn pushes_by(&self, protocol: Protocol) -> &IntCounter {
        match protocol {
            Protocol::V1 => &self.pushes[0],
            Protocol::V2 => &self.pushes[1],
        }
    }

    /// Resolves the gauges of a gateway thread: aliases, refused ones among them, bytes.
    pub(crate) fn of_thread(&self, thread: &str) -> [IntGauge; 3] {
        self.of_thread
            .each_ref()
            .map(|gauges| gauges.with_label_values(&[thread]))
    }

    /// Resolves the counters of a tenant.
    pub(crate) fn of_tenant(&self, user: &str) -> TenantCounters {
        TenantCounters {
            samples_in: self.samples_in.with_label_values(&[user]),
            received_samples: self.received_samples.with_label_values(&[user]),
            metadata_in: self.metadata_in.with_label_values(&[user]),
            received_metadata: self.received_metadata.with_label_values(&[user]),
            exemplars_in: self.exemplars_in.with_label_values(&[user]),
            received_exemplars: self.received_exemplars.with_label_values(&[user]),
            non_ha_samples: OnceLock::new(),
            latest_seen: self.latest_seen.with_label_values(&[user]),
        }
    }

    /// Counts samples of no replica.
    pub(crate) fn count_non_ha(&self, user: &str, counters: &TenantCounters, samples: u64) {
        let resolve = || self.non_ha_samples.with_label_values(&[user]);
        counters.non_ha_samples.get_or_init(resolve).inc_by(samples);
    }

    /// Takes the counters of a tenant off the page. Discards stay: their reasons are not known here.
    pub(crate) fn forget(&self, user: &str) {
        for vec in [
            &self.samples_in,
            &self.received_samples,
            &self.metadata_in,
            &self.received_metadata,
            &self.exemplars_in,
            &self.received_exemplars,
            &self.non_ha_samples,
        ] {
            // Nothing to remove is fine: the tenant has had no such counter.
            let _ = vec.remove_label_values(&[user]);
        }
        let _ = self.latest_seen.remove_label_values(&[user]);
    }
}
