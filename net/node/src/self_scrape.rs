//! The node watches itself: what `/metrics` shows, but for the limits of tenants, written to the node as a Prometheus would that scrapes it.
//!
//! Series get `job="myelin"` and the address as `instance`; `up` is 1, since a node that is down writes nothing. A round that is refused
//! (the log failed, queues are full) is skipped and told once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::push::PushService;
use gateway::{Gateway, Roles};
use model::{Labels, LabelsBuilder, METRIC_NAME, Metadata, MetricType, TenantId};
use prometheus::proto;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Config;
use crate::node::now_ms;

/// Metadata is repeated with every so many rounds; receivers forget it after ten minutes.
const METADATA_EVERY: u64 = 4;

/// A line for each limit of each tenant that has its own: of some hundred tenants they are more than a tenant may send at once, and then
/// nothing of a round would be stored.
const NOT_STORED: [&str; 2] = ["cortex_overrides", "cortex_limits_overrides"];

/// See the module.
pub(crate) struct SelfScrape {
    interval: Duration,
    tenant: TenantId,
    instance: String,
    gateway: Arc<Gateway>,
}

/// The address, with the name of the host where it says nothing of it: all parts of a node write to one place.
fn told_apart(address: SocketAddr) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        host if address.ip().is_unspecified() && !host.is_empty() => {
            format!("{host}:{}", address.port())
        }
        _ => address.to_string(),
    }
}

/// One sample, and its series.
type Sample = (Labels, i64, f64);

impl SelfScrape {
    pub(crate) fn new(config: &Config, gateway: Arc<Gateway>, address: SocketAddr) -> SelfScrape {
        let tenant = match config.auth_enabled {
            true => {
                TenantId::new(&config.self_scrape.tenant).expect("checked with the configuration")
            }
            false => TenantId::fake(),
        };
        // A querier or a frontend writes nothing: whoever scrapes it does.
        let roles = config.roles();
        let writes = roles.as_ref().is_ok_and(|r| r.distributor || r.ingester);
        SelfScrape {
            interval: match writes {
                true => config.self_scrape.interval,
                false => Duration::ZERO,
            },
            tenant,
            instance: match roles == Ok(Roles::ALL) {
                true => address.to_string(),
                false => told_apart(address),
            },
            gateway,
        }
    }

    /// Writes round after round; without an interval it only waits.
    pub(crate) async fn run(&self, push: &PushService) -> Infallible {
        if self.interval.is_zero() {
            return std::future::pending().await;
        }
        let mut timer = interval(self.interval);
        timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut refused = false;
        for round in 0_u64.. {
            timer.tick().await;
            if !self.gateway.takes_writes() {
                continue;
            }
            let mut families = self.gateway.gather();
            families.retain(|family| !NOT_STORED.contains(&family.name()));
            let samples = samples(&families, &self.instance, now_ms());
            let metadata = match round % METADATA_EVERY {
                0 => metadata(&families),
                _ => Vec::new(),
            };
            match push.push_internal(&self.tenant, &samples, &metadata).await {
                Ok(()) => refused = false,
                Err(error) if !refused => {
                    tracing::warn!(%error, "own metrics are not stored");
                    refused = true;
                }
                Err(_) => {}
            }
        }
        unreachable!("rounds do not run out")
    }
}

/// All samples of the families at one time.
fn samples(families: &[proto::MetricFamily], instance: &str, time_ms: i64) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut put = |name: &str, labels: &[proto::LabelPair], extra: Option<(&str, &str)>, value| {
        let mut builder = LabelsBuilder::default();
        builder.push(METRIC_NAME, name);
        builder.push("job", "myelin");
        builder.push("instance", instance);
        for pair in labels {
            builder.push(pair.name(), pair.value());
        }
        if let Some((name, value)) = extra {
            builder.push(name, value);
        }
        let labels = builder
            .finish()
            .expect("metrics of ours have no label twice");
        samples.push((labels, time_ms, value));
    };
    put("up", &[], None, 1.0);
    for family in families {
        let name = family.name();
        for metric in family.get_metric() {
            let labels = metric.get_label();
            match family.get_field_type() {
                proto::MetricType::COUNTER => {
                    put(name, labels, None, metric.get_counter().get_value())
                }
                proto::MetricType::GAUGE => put(name, labels, None, metric.get_gauge().get_value()),
                proto::MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    let bucket = format!("{name}_bucket");
                    for b in histogram.get_bucket() {
                        let le = b.upper_bound();
                        let le = if le.is_infinite() {
                            "+Inf".to_owned()
                        } else {
                            le.to_string()
                        };
                        put(
                            &bucket,
                            labels,
                            Some(("le", &le)),
                            b.cumulative_count() as f64,
                        );
                    }
                    let count = histogram.get_sample_count() as f64;
                    if histogram
                        .get_bucket()
                        .last()
                        .is_none_or(|b| b.upper_bound().is_finite())
                    {
                        put(&bucket, labels, Some(("le", "+Inf")), count);
                    }
                    put(
                        &format!("{name}_sum"),
                        labels,
                        None,
                        histogram.get_sample_sum(),
                    );
                    put(&format!("{name}_count"), labels, None, count);
                }
                // We make none of these.
                proto::MetricType::SUMMARY | proto::MetricType::UNTYPED => {}
            }
        }
    }
    samples
}

/// Type and help of every family.
fn metadata(families: &[proto::MetricFamily]) -> Vec<(String, Metadata)> {
    let kind = |family: &proto::MetricFamily| match family.get_field_type() {
        proto::MetricType::COUNTER => MetricType::Counter,
        proto::MetricType::GAUGE => MetricType::Gauge,
        proto::MetricType::HISTOGRAM => MetricType::Histogram,
        proto::MetricType::SUMMARY => MetricType::Summary,
        proto::MetricType::UNTYPED => MetricType::Unknown,
    };
    let describe = |family: &proto::MetricFamily| {
        let metadata = Metadata {
            kind: kind(family),
            help: family.help().to_owned(),
            unit: String::new(),
        };
        (family.name().to_owned(), metadata)
    };
    families.iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

    use super::*;

    #[test]
    fn counters_and_histograms_become_series_as_a_scrape_would_store_them() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_total", "help"), &["user"]).unwrap();
        counter.with_label_values(&["x"]).inc_by(3);
        let opts = HistogramOpts::new("h_seconds", "help").buckets(vec![0.5, 2.0]);
        let histogram = Histogram::with_opts(opts).unwrap();
        histogram.observe(1.0);
        histogram.observe(9.0);
        registry.register(Box::new(counter)).unwrap();
        registry.register(Box::new(histogram)).unwrap();
        let families = registry.gather();
        let shown: Vec<String> = samples(&families, "host:1", 7)
            .iter()
            .map(|(labels, t, v)| {
                assert_eq!(
                    (*t, labels.get("job"), labels.get("instance")),
                    (7, Some("myelin"), Some("host:1"))
                );
                let rest = labels.filter(|name| !["job", "instance"].contains(&name));
                format!("{rest} {v}")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "{__name__=\"up\"} 1",
                "{__name__=\"a_total\", user=\"x\"} 3",
                "{__name__=\"h_seconds_bucket\", le=\"0.5\"} 0",
                "{__name__=\"h_seconds_bucket\", le=\"2\"} 1",
                "{__name__=\"h_seconds_bucket\", le=\"+Inf\"} 2",
                "{__name__=\"h_seconds_sum\"} 10",
                "{__name__=\"h_seconds_count\"} 2",
            ]
        );
        let kinds: Vec<_> = metadata(&families)
            .into_iter()
            .map(|(name, m)| (name, m.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                ("a_total".into(), MetricType::Counter),
                ("h_seconds".into(), MetricType::Histogram)
            ]
        );
    }
}
