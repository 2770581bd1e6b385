//! The last step: names that are to go are removed, series that became equal are joined or refused, and the answer is made.

use std::collections::HashMap;
use std::sync::Arc;

use model::{
    FloatPoint, HistogramPoint, InstantSample, Labels, METRIC_NAME, QueryValue, RangeSeries,
    SeriesValue,
};

use super::Evaluator;
use super::native::Samples;
use super::select::remove_stale;
use crate::error::Error;
use crate::plan::{NodeKind, RangeInput, RangeNode};
use crate::source::Columns;
use crate::value::{Histograms, Steps, Value, VectorSeries, is_absent, weight};

/// Evaluates the root of the plan.
pub(super) fn evaluate(evaluator: &Evaluator<'_>) -> Result<QueryValue, Error> {
    let plan = evaluator.plan;
    let steps = plan.steps;
    let instant = plan.params.is_instant();
    if let NodeKind::Range(range) = &plan.root.kind {
        return range_vector(evaluator, range, steps.start).map(QueryValue::Matrix);
    }
    Ok(match (evaluator.eval(&plan.root, steps)?, instant) {
        (Value::Scalar(column), true) => QueryValue::Scalar {
            t: steps.start,
            v: column[0],
        },
        (Value::String(s), _) => QueryValue::String { t: steps.start, s },
        (Value::Vector(series), true) => {
            QueryValue::Vector(instant_vector(named(series)?, steps.start))
        }
        (Value::Scalar(column), false) => {
            let series = vec![VectorSeries::new(Labels::empty(), false, column)];
            QueryValue::Matrix(matrix(series, steps))
        }
        (Value::Vector(series), false) => QueryValue::Matrix(range_series(series, steps)?),
    })
}

/// The result of a range query, by labels.
pub(super) fn range_series(
    series: Vec<VectorSeries>,
    steps: Steps,
) -> Result<Vec<RangeSeries>, Error> {
    Ok(matrix(named(series)?, steps))
}

/// Removes names where that was delayed. Two series that become equal are one if they never meet.
fn named(series: Vec<VectorSeries>) -> Result<Vec<VectorSeries>, Error> {
    let mut index: HashMap<Labels, usize> = HashMap::with_capacity(series.len());
    let mut out: Vec<VectorSeries> = Vec::with_capacity(series.len());
    for mut one in series {
        if one.is_empty() {
            continue;
        }
        if one.drop_name {
            one.labels = one.labels.filter(|name| !is_metadata(name));
        }
        match index.get(&one.labels) {
            Some(at) => out[*at].join(one)?,
            None => {
                index.insert(one.labels.clone(), out.len());
                out.push(one);
            }
        }
    }
    Ok(out)
}

/// Whether a label describes the metric: its name, and type and unit where a sender put them into labels.
pub(super) fn is_metadata(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

fn instant_vector(series: Vec<VectorSeries>, time: i64) -> Vec<InstantSample> {
    series
        .into_iter()
        .filter_map(|mut one| {
            let value = match one.histograms.pop() {
                Some((_, histogram)) => {
                    SeriesValue::Histogram(Box::new(Arc::unwrap_or_clone(histogram)))
                }
                None if is_absent(one.values[0]) => return None,
                None => SeriesValue::Float(one.values[0]),
            };
            Some(InstantSample {
                labels: one.labels,
                t: time,
                value,
            })
        })
        .collect()
}

fn matrix(mut series: Vec<VectorSeries>, steps: Steps) -> Vec<RangeSeries> {
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series
        .into_iter()
        .map(|one| RangeSeries {
            labels: one.labels,
            floats: float_points(steps, &one.values),
            histograms: histogram_points(steps, one.histograms),
        })
        .filter(|one| !one.floats.is_empty() || !one.histograms.is_empty())
        .collect()
}

fn histogram_points(steps: Steps, histograms: Histograms) -> Vec<HistogramPoint> {
    histograms
        .into_iter()
        .map(|(step, histogram)| HistogramPoint {
            t: steps.time(step as usize),
            h: Box::new(Arc::unwrap_or_clone(histogram)),
        })
        .collect()
}

fn float_points(steps: Steps, values: &[f64]) -> Vec<FloatPoint> {
    steps
        .times()
        .zip(values)
        .filter(|(_, v)| !is_absent(**v))
        .map(|(t, v)| FloatPoint { t, v: *v })
        .collect()
}

/// An instant query for a range vector gives its samples.
fn range_vector(
    evaluator: &Evaluator<'_>,
    range: &RangeNode,
    time: i64,
) -> Result<Vec<RangeSeries>, Error> {
    let end = range.moment.of(time);
    let start = end.saturating_sub(range.range_ms);
    let within = |t: i64| t > start && t <= end;
    let mut out = Vec::new();
    match &range.input {
        RangeInput::Raw { selector, .. } => {
            let mut columns = Columns::default();
            for series in 0..evaluator.source.count(*selector) {
                evaluator.meter.check()?;
                evaluator.decode(*selector, series, &mut columns)?;
                let samples = Samples::take(&mut columns);
                remove_stale(&mut columns);
                let floats: Vec<FloatPoint> = columns
                    .times
                    .iter()
                    .zip(&columns.values)
                    .filter(|(t, _)| within(**t))
                    .map(|(t, v)| FloatPoint { t: *t, v: *v })
                    .collect();
                let histograms: Vec<HistogramPoint> = samples
                    .points()
                    .filter(|(t, _)| within(*t))
                    .map(|(t, h)| HistogramPoint {
                        t,
                        h: Box::new(h.clone()),
                    })
                    .collect();
                let points = floats.len() as u64
                    + histograms.iter().map(|point| weight(&point.h)).sum::<u64>();
                evaluator.meter.looked_at(points);
                evaluator.meter.looked_at_step(0, points);
                evaluator.meter.charge(points)?;
                out.push(RangeSeries {
                    labels: evaluator.source.labels(*selector, series).clone(),
                    floats,
                    histograms,
                });
            }
        }
        RangeInput::Sub { .. } => {
            let steps = Steps::instant(time);
            if let Some((series, inner)) = evaluator.subquery(range, steps)? {
                for one in named(series)? {
                    let mut floats = float_points(inner, &one.values);
                    floats.retain(|point| within(point.t));
                    let mut histograms = histogram_points(inner, one.histograms);
                    histograms.retain(|point| within(point.t));
                    let weights: u64 = histograms.iter().map(|point| weight(&point.h)).sum();
                    let points = floats.len() as u64 + weights;
                    evaluator.meter.looked_at(points);
                    evaluator.meter.looked_at_step(0, points);
                    out.push(RangeSeries {
                        labels: one.labels,
                        floats,
                        histograms,
                    });
                }
            }
        }
    }
    out.retain(|one| !one.floats.is_empty() || !one.histograms.is_empty());
    out.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(out)
}
