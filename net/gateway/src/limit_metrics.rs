//! Limits of tenants as metrics, for alerts on how near a tenant is to one of them.
//!
//! Under the names of Cortex (`cortex_overrides`, the defaults as those of the tenant `""`) and of Mimir (`cortex_limits_defaults`,
//! `cortex_limits_overrides`). Only what is a number: switches are 0 and 1, durations seconds. Read from the overrides when somebody looks.

use std::sync::Arc;

use model::TenantLimits;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

use crate::overrides::Overrides;
use crate::state::{LimitValue, LimitValues};

/// See the module.
pub struct LimitMetrics {
    overrides: Arc<Overrides>,
    values: LimitValues,
    descriptions: Vec<Desc>,
}

impl LimitMetrics {
    /// Shows these overrides.
    pub fn new(overrides: Arc<Overrides>, values: LimitValues) -> LimitMetrics {
        let gauges = gauges();
        let descriptions = gauges.iter().flat_map(Collector::desc).cloned().collect();
        LimitMetrics {
            overrides,
            values,
            descriptions,
        }
    }

    fn numbers(&self, limits: &TenantLimits) -> impl Iterator<Item = (&'static str, f64)> {
        (self.values)(limits)
            .into_iter()
            .filter_map(|(name, value)| match value {
                LimitValue::Number(number) | LimitValue::Duration(number, _) => {
                    Some((name, number))
                }
                LimitValue::Flag(flag) => Some((name, f64::from(u8::from(flag)))),
                LimitValue::List(_) | LimitValue::Text(_) => None,
            })
    }
}

/// Overrides of both names, and defaults.
fn gauges() -> [GaugeVec; 3] {
    let gauges = |name: &str, help: &str, labels: &[&str]| {
        GaugeVec::new(Opts::new(name, help), labels).expect("names are well formed")
    };
    let of_tenant = ["limit_name", "user"];
    [
        gauges(
            "cortex_overrides",
            "Limits of tenants that have their own; the defaults under the user \"\".",
            &of_tenant,
        ),
        gauges(
            "cortex_limits_overrides",
            "Limits of tenants that have their own.",
            &of_tenant,
        ),
        gauges(
            "cortex_limits_defaults",
            "Limits of tenants that do not have their own.",
            &["limit_name"],
        ),
    ]
}

impl Collector for LimitMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let [cortex, mimir, defaults] = gauges();
        let (usual, own) = self.overrides.all();
        for (name, number) in self.numbers(&usual) {
            cortex.with_label_values(&[name, ""]).set(number);
            defaults.with_label_values(&[name]).set(number);
        }
        for (tenant, limits) in own {
            for (name, number) in self.numbers(&limits) {
                for gauges in [&cortex, &mimir] {
                    gauges
                        .with_label_values(&[name, tenant.as_str()])
                        .set(number);
                }
            }
        }
        [cortex, mimir, defaults]
            .iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use model::TenantId;

    use super::*;

    #[test]
    fn defaults_and_overrides_are_told_by_name() {
        let own = TenantLimits {
            max_series_per_user: 7,
            ..TenantLimits::cortex()
        };
        let overrides = Arc::new(Overrides::new(TenantLimits::cortex()));
        overrides.replace(TenantLimits::cortex(), [(TenantId::new("a").unwrap(), own)]);
        let values: LimitValues = |limits| {
            vec![
                (
                    "max_series_per_user",
                    LimitValue::Number(limits.max_series_per_user as f64),
                ),
                ("on", LimitValue::Flag(true)),
                ("names", LimitValue::List(Vec::new())),
            ]
        };
        let registry = prometheus::Registry::new();
        registry
            .register(Box::new(LimitMetrics::new(overrides, values)))
            .unwrap();
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "cortex_overrides{limit_name=\"max_series_per_user\",user=\"\"} 5000000",
            "cortex_overrides{limit_name=\"max_series_per_user\",user=\"a\"} 7",
            "cortex_limits_overrides{limit_name=\"max_series_per_user\",user=\"a\"} 7",
            "cortex_limits_defaults{limit_name=\"on\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("names"));
    }
}
