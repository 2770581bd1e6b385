//! What a series goes through that no alias knows: parse, drop, sort, check. Off the hot path. The order of all is in `assemble`.
//!
//! Order and texts as in Cortex `pkg/util/validation`: metric name missing, metric name invalid, too many labels; then label by label
//! name invalid, name too long, value too long, name repeated; then the size of all. Names are UTF-8 names, anything but the empty
//! one that is UTF-8, or legacy ones ([`model::NameScheme`]). Labels with an empty value, and those of `drop_labels`, are removed before.

use model::{METRIC_NAME, TenantLimits};
use smallvec::SmallVec;
use wire::Malformed;

use super::names::LabelIter;
use super::texts;

/// Labels of one series; nearly all have fewer than this many, and then nothing is allocated.
pub(crate) type Pairs<'a> = SmallVec<[(&'a str, &'a str); 32]>;

/// Why the gateway itself refuses samples. [`Reason::name`] is the metric's label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    MissingMetricName,
    MetricNameInvalid,
    MaxLabelNamesPerSeries,
    LabelInvalid,
    LabelNameTooLong,
    LabelValueTooLong,
    DuplicateLabelNames,
    LabelsSizeBytes,
    TooOld,
    TooFarInFuture,
    RateLimited,
    HistogramInvalid,
    HistogramSchema,
    HistogramBuckets,
    HistogramSize,
    HistogramsOff,
    HistogramRate,
    TooManyHaClusters,
    Relabelled,
    LabelsRemoved,
}

impl Reason {
    pub(crate) const COUNT: usize = 20;

    pub(crate) const ALL: [Reason; Reason::COUNT] = [
        Reason::MissingMetricName,
        Reason::MetricNameInvalid,
        Reason::MaxLabelNamesPerSeries,
        Reason::LabelInvalid,
        Reason::LabelNameTooLong,
        Reason::LabelValueTooLong,
        Reason::DuplicateLabelNames,
        Reason::LabelsSizeBytes,
        Reason::TooOld,
        Reason::TooFarInFuture,
        Reason::RateLimited,
        Reason::HistogramInvalid,
        Reason::HistogramSchema,
        Reason::HistogramBuckets,
        Reason::HistogramSize,
        Reason::HistogramsOff,
        Reason::HistogramRate,
        Reason::TooManyHaClusters,
        Reason::Relabelled,
        Reason::LabelsRemoved,
    ];

    /// As in `cortex_discarded_samples_total{reason=..}`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::MissingMetricName => "missing_metric_name",
            Reason::MetricNameInvalid => "metric_name_invalid",
            Reason::MaxLabelNamesPerSeries => "max_label_names_per_series",
            Reason::LabelInvalid => "label_invalid",
            Reason::LabelNameTooLong => "label_name_too_long",
            Reason::LabelValueTooLong => "label_value_too_long",
            Reason::DuplicateLabelNames => "duplicate_label_names",
            Reason::LabelsSizeBytes => "labels_size_bytes_exceeded",
            Reason::TooOld => "greater_than_max_sample_age",
            Reason::TooFarInFuture => "too_far_in_future",
            Reason::RateLimited => "rate_limited",
            Reason::HistogramInvalid => "native_histogram_invalid",
            Reason::HistogramSchema => "native_histogram_invalid_schema",
            Reason::HistogramBuckets => "native_histogram_buckets_exceeded",
            Reason::HistogramSize => "native_histogram_sample_size_bytes_exceeded",
            Reason::HistogramsOff => "native-histogram-sample",
            Reason::HistogramRate => "native_histogram_rate_limited",
            Reason::TooManyHaClusters => "too_many_ha_clusters",
            Reason::Relabelled => "relabel_configuration",
            Reason::LabelsRemoved => "user_label_removal_configuration",
        }
    }

    /// Whether the tenant wants it so, and is told nothing.
    pub(crate) fn is_wanted(self) -> bool {
        matches!(self, Reason::Relabelled | Reason::LabelsRemoved)
    }
}

/// A series that is refused, and the words for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

impl Invalid {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Invalid {
        Invalid {
            reason,
            text: text.into(),
        }
    }
}

/// Why label bytes are no labels.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// The bytes are no protobuf: nothing of the body can be believed.
    Malformed(Malformed),
    /// Only this series is bad.
    Invalid(Invalid),
}

impl From<Malformed> for Unusable {
    fn from(malformed: Malformed) -> Unusable {
        Unusable::Malformed(malformed)
    }
}

/// Names of clusters and replicas are kept, also where values of labels may have any length.
const HA_NAME_BYTES_MAX: usize = 4096;

/// Cluster and replica of a series, if it has both, by the labels as they were sent. One whose names would be too long as values is none: it
/// fails the checks that follow, and nothing of it is remembered.
pub(crate) fn ha_pair<'a>(
    pairs: &[(&'a str, &'a str)],
    limits: &TenantLimits,
) -> Option<[&'a str; 2]> {
    let value = |wanted: &str| {
        let found = pairs.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| *value)
    };
    let cluster = value(&limits.ha_cluster_label)?;
    let replica = value(&limits.ha_replica_label)?;
    let fits = |value: &str| {
        value.len() <= HA_NAME_BYTES_MAX && !exceeds(value.len(), limits.max_label_value_length)
    };
    (fits(cluster) && fits(replica)).then_some([cluster, replica])
}

/// Takes out the labels that are not to be kept, `replica` among them.
pub(crate) fn remove(pairs: &mut Pairs<'_>, limits: &TenantLimits, replica: Option<&str>) {
    let dropped = |name: &str| {
        replica == Some(name) || limits.drop_labels.iter().any(|dropped| dropped == name)
    };
    pairs.retain(|(name, _)| !dropped(name));
}

/// Sorts and checks labels.
pub(crate) fn finish(pairs: &mut Pairs<'_>, limits: &TenantLimits) -> Result<(), Invalid> {
    if !pairs.is_sorted_by(|a, b| a.0 <= b.0) {
        pairs.sort_by(|a, b| a.0.cmp(b.0));
    }
    check(pairs, limits)
}

/// The labels as they were sent, those without a value left out.
pub(crate) fn read(sent: LabelIter<'_>) -> Result<Pairs<'_>, Unusable> {
    let mut pairs = Pairs::new();
    for label in sent.clone() {
        let (name, value) = label?;
        if value.is_empty() {
            continue;
        }
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else {
            return Err(Unusable::Invalid(not_utf8(sent, name)));
        };
        pairs.push((name, value));
    }
    Ok(pairs)
}

fn check(pairs: &[(&str, &str)], limits: &TenantLimits) -> Result<(), Invalid> {
    let metric = || texts::quote_short(&texts::metric(pairs.iter().copied()));
    if limits.enforce_metric_name {
        match pairs.iter().find(|(name, _)| *name == METRIC_NAME) {
            None => {
                return Err(Invalid::new(
                    Reason::MissingMetricName,
                    "sample missing metric name",
                ));
            }
            Some((_, name)) if !limits.name_scheme.takes_metric(name) => {
                let name = texts::quote_short(name);
                let text = format!("sample invalid metric name: {name}");
                return Err(Invalid::new(Reason::MetricNameInvalid, text));
            }
            Some(_) => {}
        }
    }
    if pairs.is_empty() {
        // Names need not be there, but a series is its labels. Text as of Prometheus' appender.
        let text = "empty labelset: invalid sample";
        return Err(Invalid::new(Reason::LabelInvalid, text));
    }
    if exceeds(pairs.len(), limits.max_label_names_per_series) {
        let text = format!(
            "series has too many labels (actual: {}, limit: {}) series: '{}'",
            pairs.len(),
            limits.max_label_names_per_series,
            texts::metric(pairs.iter().copied())
        );
        return Err(Invalid::new(Reason::MaxLabelNamesPerSeries, text));
    }
    let mut last = None;
    let mut size = 0usize;
    for &(name, value) in pairs {
        if !limits.name_scheme.takes_label(name) {
            let text = format!(
                "sample invalid label: {} metric {}",
                texts::quote_short(name),
                metric()
            );
            return Err(Invalid::new(Reason::LabelInvalid, text));
        }
        if exceeds(name.len(), limits.max_label_name_length) {
            let name = texts::quote_short(name);
            let text = format!("label name too long: {name} metric {}", metric());
            return Err(Invalid::new(Reason::LabelNameTooLong, text));
        }
        if exceeds(value.len(), limits.max_label_value_length) {
            let value = texts::quote_short(value);
            let text = format!(
                "label value too long for metric: {} label value: {value}",
                metric()
            );
            return Err(Invalid::new(Reason::LabelValueTooLong, text));
        }
        if last == Some(name) {
            let name = texts::quote_short(name);
            let text = format!("duplicate label name: {name} metric {}", metric());
            return Err(Invalid::new(Reason::DuplicateLabelNames, text));
        }
        last = Some(name);
        size += name.len() + value.len();
    }
    if exceeds(size, limits.max_labels_size_bytes) {
        let limit = limits.max_labels_size_bytes;
        let text = format!(
            "labels size bytes exceeded for metric (actual: {size}, limit: {limit}) metric: {}",
            metric()
        );
        return Err(Invalid::new(Reason::LabelsSizeBytes, text));
    }
    Ok(())
}

/// Zero is no limit.
fn exceeds(actual: usize, limit: u32) -> bool {
    limit != 0 && actual > limit as usize
}

fn not_utf8(sent: LabelIter<'_>, bad: &[u8]) -> Invalid {
    if bad == METRIC_NAME.as_bytes() {
        let value = owned(sent)
            .into_iter()
            .find(|(name, _)| name == METRIC_NAME);
        let value = value
            .map(|(_, value)| texts::quote_short(&value))
            .unwrap_or_default();
        return Invalid::new(
            Reason::MetricNameInvalid,
            format!("sample invalid metric name: {value}"),
        );
    }
    let name = texts::quote_short(&String::from_utf8_lossy(bad));
    let metric = texts::quote_short(&lossy_metric(sent));
    Invalid::new(
        Reason::LabelInvalid,
        format!("sample invalid label: {name} metric {metric} (not valid UTF-8)"),
    )
}

/// The series as text, whatever its bytes are; for errors.
pub(crate) fn lossy_metric(sent: LabelIter<'_>) -> String {
    let pairs = owned(sent);
    texts::metric(
        pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    )
}

/// All labels as text, whatever their bytes are; for errors.
pub(crate) fn lossy_set(sent: LabelIter<'_>) -> String {
    let pairs = owned(sent);
    texts::label_set(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())))
}

fn owned(sent: LabelIter<'_>) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    sent.flatten()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// The times a sample may have, milliseconds, both ends included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeBounds {
    pub(crate) min: i64,
    pub(crate) max: i64,
}

impl TimeBounds {
    pub(crate) fn new(limits: &TenantLimits, now_ms: i64) -> TimeBounds {
        let millis = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        let min = match limits.reject_old_samples {
            true => now_ms.saturating_sub(millis(limits.reject_old_samples_max_age)),
            false => i64::MIN,
        };
        TimeBounds {
            min,
            max: now_ms.saturating_add(millis(limits.creation_grace_period)),
        }
    }

    #[inline]
    pub(crate) fn hold(self, time: i64) -> bool {
        self.min <= time && time <= self.max
    }

    /// The words for a time outside.
    pub(crate) fn refuse(self, time: i64, metric_name: &str) -> Invalid {
        let metric = texts::quote_short(metric_name);
        match time < self.min {
            true => Invalid::new(
                Reason::TooOld,
                format!("timestamp too old: {time} metric: {metric}"),
            ),
            false => Invalid::new(
                Reason::TooFarInFuture,
                format!("timestamp too new: {time} metric: {metric}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
