//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction` over the bucket series of classic histograms and over
//! native ones.
//!
//! Series that differ only in `le` are one histogram. Groups and bounds are found once for all steps; at a step the buckets
//! that have a sample then are taken.

use std::collections::{BTreeMap, HashMap};

use model::{FloatHistogram, Labels, quoted};

use crate::Error;
use crate::annotations::{Correction, Notes};
use crate::functions::Call;
use crate::functions::buckets::{self, Bucket, Flattened};
use crate::functions::quantile::{check, go_number};
use crate::histogram::estimate;
use crate::value::{ABSENT, Histograms, Value, VectorSeries, is_absent};

/// Places in the columns that `histogram_quantiles` may make (400 MB). A quantile that changes with the step makes a column for every step.
const CELLS_MAX: u64 = 50_000_000;

/// The bucket series of one histogram, by ascending bound.
struct Group {
    /// Labels without `le`.
    labels: Labels,
    /// Upper bound and column.
    buckets: Vec<(f64, Vec<f64>)>,
    /// Native histograms with the same labels, by step.
    natives: Histograms,
}

/// What a group has at a step.
enum At<'g> {
    Nothing,
    Buckets,
    Native(&'g FloatHistogram),
    /// Both; which one is meant nobody knows.
    Mix,
}

impl Group {
    /// Fills `out` with the buckets that have a sample at a step, and says what there is. Warns of a mix.
    fn at(&self, step: usize, out: &mut Vec<Bucket>, arg: usize, notes: &mut Notes<'_>) -> At<'_> {
        self.buckets_at(step, out);
        if self.natives.is_empty() {
            return if out.is_empty() {
                At::Nothing
            } else {
                At::Buckets
            };
        }
        let key = step as u32;
        let native = self.natives.binary_search_by_key(&key, |(step, _)| *step);
        match (native, out.is_empty()) {
            (Ok(at), true) => At::Native(&self.natives[at].1),
            (Ok(_), false) => {
                let of_metric = for_metric(self.metric());
                notes.warn(
                    arg,
                    &format!("vector contains a mix of classic and native histograms{of_metric}"),
                );
                At::Mix
            }
            (Err(_), true) => At::Nothing,
            (Err(_), false) => At::Buckets,
        }
    }

    fn buckets_at(&self, step: usize, out: &mut Vec<Bucket>) {
        out.clear();
        out.extend(
            self.buckets
                .iter()
                .filter(|(_, counts)| !is_absent(counts[step]))
                .map(|(upper, counts)| Bucket {
                    upper: *upper,
                    count: counts[step],
                }),
        );
    }

    fn metric(&self) -> &str {
        self.labels.metric_name().unwrap_or_default()
    }
}

/// Groups the bucket series, in order of first appearance. Series without a bound are left out with a warning at argument `arg`.
fn group(series: Vec<VectorSeries>, arg: usize, notes: &mut Notes<'_>) -> Vec<Group> {
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    let mut place_of = |labels: Labels, groups: &mut Vec<Group>| {
        *places.entry(labels.clone()).or_insert_with(|| {
            groups.push(Group {
                labels,
                buckets: Vec::new(),
                natives: Vec::new(),
            });
            groups.len() - 1
        })
    };
    for mut one in series {
        if !one.histograms.is_empty() {
            let place = place_of(one.labels.clone(), &mut groups);
            groups[place].natives.append(&mut one.histograms);
            if one.is_empty() {
                continue;
            }
        }
        let le = one.labels.get("le").unwrap_or_default();
        let Some(upper) = parse_bound(le) else {
            if !one.is_empty() {
                let metric = one.labels.metric_name().unwrap_or_default();
                notes.warn(
                    arg,
                    &format!(
                        "bucket label \"le\" is missing or has a malformed value of {}{}",
                        quoted(le),
                        for_metric(metric)
                    ),
                );
            }
            continue;
        };
        let labels = one.labels.filter(|name| name != "le");
        let place = place_of(labels, &mut groups);
        groups[place].buckets.push((upper, one.values));
    }
    for group in &mut groups {
        group.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        group.natives.sort_by_key(|(step, _)| *step);
    }
    groups
}

/// A bound as Go parses floats, hexadecimal ones excepted.
fn parse_bound(text: &str) -> Option<f64> {
    text.parse().ok().map(|bound: f64| bound + 0.0)
}

fn for_metric(metric: &str) -> String {
    if metric.is_empty() {
        String::new()
    } else {
        format!(" for metric name {}", quoted(metric))
    }
}

/// `histogram_quantile(q, buckets)`.
pub(super) fn histogram_quantile(mut call: Call<'_>) -> Result<Value, Error> {
    let series = take_vector(&mut call.args, 1);
    let Value::Scalar(quantiles) = &call.args[0] else {
        unreachable!("types are checked by the parser");
    };
    for q in quantiles {
        check(*q, 0, call.notes);
    }
    let groups = group(series, 1, call.notes);
    let mut corrections = Corrections::default();
    let result = groups
        .iter()
        .map(|group| {
            let corrections = &mut corrections;
            let values = quantile_column(group, quantiles, call.steps, 1, corrections, call.notes);
            VectorSeries::new(group.labels.clone(), true, values)
        })
        .collect();
    corrections.report(1, call.notes);
    Ok(Value::Vector(result))
}

/// `histogram_quantiles(buckets, label, q...)`: several quantiles at once, told apart by a label.
pub(super) fn histogram_quantiles(mut call: Call<'_>) -> Result<Value, Error> {
    let series = take_vector(&mut call.args, 0);
    let Value::String(label) = &call.args[1] else {
        unreachable!("types are checked by the parser");
    };
    if label.is_empty() || label.contains('\u{fffd}') {
        return Err(Error::execution(format!(
            "invalid label name in histogram_quantiles(): {label}"
        )));
    }
    let groups = group(series, 0, call.notes);
    let mut corrections = Corrections::default();
    let mut results: Vec<VectorSeries> = Vec::new();
    for (i, arg) in call.args.iter().enumerate().skip(2) {
        let Value::Scalar(quantiles) = arg else {
            unreachable!("types are checked by the parser");
        };
        for q in quantiles {
            check(*q, i, call.notes);
        }
        for group in &groups {
            let corrections = &mut corrections;
            let column = quantile_column(group, quantiles, call.steps, 0, corrections, call.notes);
            // The quantile may differ from step to step, and with it the label.
            let mut by_quantile: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
            for (step, value) in column.into_iter().enumerate() {
                if !is_absent(value) {
                    by_quantile
                        .entry(quantiles[step].to_bits())
                        .or_insert_with(|| vec![ABSENT; call.steps.count])[step] = value;
                }
            }
            let columns = (results.len() + by_quantile.len()) as u64;
            let needed = columns.saturating_mul(call.steps.count as u64);
            if needed > CELLS_MAX {
                return Err(Error::TooManySamples {
                    samples_max: CELLS_MAX,
                    needed,
                });
            }
            for (q, values) in by_quantile {
                let labels = group.labels.with(label, &open_metrics(f64::from_bits(q)));
                results.push(VectorSeries::new(labels, true, values));
            }
        }
    }
    corrections.report(0, call.notes);
    super::labels::join_equal(results).map(Value::Vector)
}

/// `histogram_fraction(lower, upper, buckets)`.
pub(super) fn histogram_fraction(mut call: Call<'_>) -> Result<Value, Error> {
    let series = take_vector(&mut call.args, 2);
    let (Value::Scalar(lowers), Value::Scalar(uppers)) = (&call.args[0], &call.args[1]) else {
        unreachable!("types are checked by the parser");
    };
    let mut at_step = Vec::new();
    let result = group(series, 2, call.notes)
        .into_iter()
        .map(|group| {
            let values = (0..call.steps.count)
                .map(|step| {
                    let (lower, upper) = (lowers[step], uppers[step]);
                    match group.at(step, &mut at_step, 2, call.notes) {
                        At::Nothing | At::Mix => ABSENT,
                        At::Buckets => buckets::fraction(lower, upper, &mut at_step),
                        At::Native(histogram) => {
                            let estimate = estimate::fraction(lower, upper, histogram);
                            if estimate.nan_observed {
                                call.notes.info(
                                    2,
                                    &format!(
                                        "input to histogram_fraction has NaN observations, which are excluded from all fractions{}",
                                        for_metric(group.metric())
                                    ),
                                );
                            }
                            estimate.value
                        }
                    }
                })
                .collect();
            VectorSeries::new(group.labels, true, values)
        })
        .collect();
    Ok(Value::Vector(result))
}

fn take_vector(args: &mut [Value], index: usize) -> Vec<VectorSeries> {
    match std::mem::replace(&mut args[index], Value::Scalar(Vec::new())) {
        Value::Vector(series) => series,
        _ => unreachable!("types are checked by the parser"),
    }
}

fn quantile_column(
    group: &Group,
    quantiles: &[f64],
    steps: crate::value::Steps,
    arg: usize,
    corrections: &mut Corrections,
    notes: &mut Notes<'_>,
) -> Vec<f64> {
    let mut at_step = Vec::with_capacity(group.buckets.len());
    (0..steps.count)
        .map(|step| {
            match group.at(step, &mut at_step, arg, notes) {
                At::Nothing | At::Mix => return ABSENT,
                At::Buckets => {}
                At::Native(histogram) => {
                    let estimate = estimate::quantile(quantiles[step], histogram);
                    if estimate.nan_observed {
                        let result = if estimate.value.is_nan() {
                            "NaN"
                        } else {
                            "skewed higher"
                        };
                        notes.info(
                            arg,
                            &format!(
                                "input to histogram_quantile has NaN observations, result is {result}{}",
                                for_metric(group.metric())
                            ),
                        );
                    }
                    return estimate.value;
                }
            }
            let (value, flattened) = buckets::quantile(quantiles[step], &mut at_step);
            if let Some(flattened) = flattened {
                corrections.add(group.metric(), steps.time(step), flattened);
            }
            value
        })
        .collect()
}

/// Flattened buckets of one call, by metric.
#[derive(Default)]
struct Corrections(BTreeMap<String, Correction>);

impl Corrections {
    fn add(&mut self, metric: &str, time: i64, flattened: Flattened) {
        let more = Correction::new(flattened, time);
        match self.0.get_mut(metric) {
            Some(known) => *known = known.and(more),
            None => drop(self.0.insert(metric.to_owned(), more)),
        }
    }

    fn report(self, arg: usize, notes: &mut Notes<'_>) {
        for (metric, correction) in self.0 {
            notes.correct(arg, metric, correction);
        }
    }
}

/// A float as the OpenMetrics format writes it in labels: `1.0`, `0.99`, `+Inf`.
fn open_metrics(value: f64) -> String {
    let text = go_number(value);
    if value.is_finite() && !text.contains(['.', 'e']) {
        text + ".0"
    } else {
        text
    }
}

#[cfg(test)]
mod tests;
