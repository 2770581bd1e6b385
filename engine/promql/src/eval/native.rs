//! Native histograms beside the float columns: selecting, windows, operators.
//!
//! Everything here runs only where a series has histograms; the float columns of `rows`, `binary` and `matching` are computed as ever, with the
//! steps of histograms absent. Windows of such a series see its floats and its histograms as two lists with times of their own.

use std::sync::Arc;

use model::{CounterReset, FloatHistogram};

use super::rows::Scalars;
use super::select::{Take, remove_stale};
use crate::annotations::Notes;
use crate::error::Error;
use crate::expr::BinaryOp;
use crate::functions::native::edges::interpolate;
use crate::functions::native::{RECONCILED, RESETS_COLLIDE};
use crate::histogram::buckets::{compact, divide, scale};
use crate::histogram::sum::{Notice, Sums};
use crate::histogram::trim::{Keep, trim};
use crate::histogram::{Incompatible, compatible, equal};
use crate::plan::Moment;
use crate::source::Columns;
use crate::value::{ABSENT, Column, Steps, VectorSeries, is_absent, weight};

/// The histograms of a series, taken out of its samples; each with its time.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) times: Vec<i64>,
    /// The number is of no meaning here.
    pub(super) histograms: Vec<(u32, FloatHistogram)>,
    /// What the histograms before each index count for together; one more than there are histograms.
    pub(super) weights: Vec<u64>,
}

impl Samples {
    /// Takes the histograms out of the columns, which keep the floats.
    pub(super) fn take(columns: &mut Columns) -> Samples {
        if columns.histograms.is_empty() {
            return Samples::default();
        }
        let histograms = std::mem::take(&mut columns.histograms);
        let times: Vec<i64> = histograms
            .iter()
            .map(|(index, _)| columns.times[*index as usize])
            .collect();
        let mut rest = histograms
            .iter()
            .map(|(index, _)| *index as usize)
            .peekable();
        let mut to = 0;
        for from in 0..columns.times.len() {
            if rest.next_if_eq(&from).is_some() {
                continue;
            }
            columns.times[to] = columns.times[from];
            columns.values[to] = columns.values[from];
            to += 1;
        }
        columns.times.truncate(to);
        columns.values.truncate(to);
        Samples::new(times, histograms)
    }

    /// The results of a subquery.
    pub(super) fn of_series(series: &VectorSeries, steps: Steps) -> Samples {
        let times = series.histograms.iter();
        let times = times.map(|(step, _)| steps.time(*step as usize)).collect();
        let histograms = series.histograms.iter();
        let histograms = histograms.map(|(step, h)| (*step, (**h).clone())).collect();
        Samples::new(times, histograms)
    }

    fn new(times: Vec<i64>, histograms: Vec<(u32, FloatHistogram)>) -> Samples {
        let mut weights = vec![0];
        let mut total = 0;
        for (_, histogram) in &histograms {
            total += weight(histogram);
            weights.push(total);
        }
        Samples {
            times,
            histograms,
            weights,
        }
    }

    /// Times and histograms.
    pub(super) fn points(&self) -> impl Iterator<Item = (i64, &FloatHistogram)> {
        let histograms = self.histograms.iter().map(|(_, histogram)| histogram);
        self.times.iter().copied().zip(histograms)
    }
}

/// Makes staleness markers of the histograms that are some (their sum says so), so that only real histograms are left.
pub(super) fn settle(columns: &mut Columns) {
    let Columns {
        values, histograms, ..
    } = columns;
    histograms.retain(|(index, histogram)| {
        let stale = is_absent(histogram.sum);
        values[*index as usize] = if stale { ABSENT } else { 0.0 };
        !stale
    });
}

/// As [`super::select::newest`], for a series with histograms.
pub(super) fn newest(
    columns: &mut Columns,
    steps: Steps,
    moment: Moment,
    lookback: i64,
    take: Take,
    out: &mut Column,
) -> u64 {
    let histograms: Vec<(u32, Arc<FloatHistogram>)> = std::mem::take(&mut columns.histograms)
        .into_iter()
        .map(|(index, histogram)| (index, Arc::new(histogram)))
        .collect();
    let (times, values) = (&columns.times[..], &columns.values[..]);
    let (mut next, mut next_histogram) = (0, 0);
    let mut count = 0;
    out.values.clear();
    out.histograms.clear();
    for (index, step) in steps.times().enumerate() {
        let time = moment.of(step);
        while next < times.len() && times[next] <= time {
            next += 1;
        }
        while next_histogram < histograms.len() && (histograms[next_histogram].0 as usize) < next {
            next_histogram += 1;
        }
        let at = next
            .checked_sub(1)
            .filter(|at| times[*at] > time.saturating_sub(lookback) && !is_absent(values[*at]));
        let Some(at) = at else {
            out.values.push(ABSENT);
            continue;
        };
        let histogram = next_histogram
            .checked_sub(1)
            .map(|i| &histograms[i])
            .filter(|(index, _)| *index as usize == at);
        count += histogram.map_or(1, |(_, histogram)| weight(histogram));
        out.values.push(match (take, histogram) {
            (Take::Time, _) => times[at] as f64 / 1000.0,
            (Take::Value, None) => values[at],
            (Take::Value, Some((_, histogram))) => {
                out.histograms.push((index as u32, Arc::clone(histogram)));
                ABSENT
            }
        });
    }
    count
}

/// As [`super::select::smoothed`], for a series with histograms.
///
/// Errors: a step lies between a float and a histogram, or between histograms of different kinds; no line leads from one to the other.
pub(super) fn smoothed(
    columns: &mut Columns,
    steps: Steps,
    moment: Moment,
    lookback: i64,
    out: &mut Column,
    notes: &mut Notes<'_>,
) -> Result<u64, Error> {
    let samples = Samples::take(columns);
    remove_stale(columns);
    let floats = columns.times.iter().zip(&columns.values);
    let mut points: Vec<(i64, Result<f64, &FloatHistogram>)> =
        floats.map(|(t, v)| (*t, Ok(*v))).collect();
    points.extend(samples.points().map(|(t, h)| (t, Err(h))));
    points.sort_by_key(|point| point.0);
    let mut next = 0;
    let mut count = 0;
    out.values.clear();
    for (step, time) in steps.times().enumerate() {
        let time = moment.of(time);
        while next < points.len() && points[next].0 <= time {
            next += 1;
        }
        let before = next
            .checked_sub(1)
            .map(|at| points[at])
            .filter(|point| point.0 > time.saturating_sub(lookback));
        let after = points
            .get(next)
            .filter(|point| point.0 <= time.saturating_add(lookback));
        let mut value = ABSENT;
        let histogram = match (before, after) {
            (None, _) => None,
            (Some((t, a)), Some((u, b))) if t < time => match (a, b) {
                (Ok(a), Ok(b)) => {
                    value = a + (b - a) * ((time - t) as f64 / (u - t) as f64);
                    None
                }
                (Err(a), Err(b)) => {
                    let gauge = |h: &FloatHistogram| h.counter_reset == CounterReset::Gauge;
                    let is_counter = !(gauge(a) && gauge(b));
                    let line = interpolate((t, a), (*u, b), time, is_counter, 0, notes);
                    Some(line.map_err(|Incompatible| no_line())?)
                }
                _ => return Err(no_line()),
            },
            (Some((_, Ok(a))), _) => {
                value = a;
                None
            }
            (Some((_, Err(a))), _) => Some(a.clone()),
        };
        count += u64::from(!is_absent(value)) + histogram.as_ref().map_or(0, weight);
        out.values.push(value);
        if let Some(histogram) = histogram {
            out.histograms.push((step as u32, Arc::new(histogram)));
        }
    }
    Ok(count)
}

fn no_line() -> Error {
    Error::execution(
        "a smoothed selector cannot interpolate between floats and native histograms, or between exponential and custom ones",
    )
}

/// `-v`.
pub(super) fn negate(column: &mut Column) {
    for (_, histogram) in &mut column.histograms {
        scale(Arc::make_mut(histogram), -1.0);
    }
}

/// A sample as an operand.
#[derive(Debug, Clone, Copy)]
enum Operand<'a> {
    Float(f64),
    Histogram(&'a Arc<FloatHistogram>),
}

/// A sample as a result.
#[derive(Debug)]
enum Outcome {
    Absent,
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

impl Operand<'_> {
    fn kind(self) -> &'static str {
        match self {
            Operand::Float(_) => "float",
            Operand::Histogram(_) => "histogram",
        }
    }
}

impl Outcome {
    fn put(self, step: usize, column: &mut Column) {
        match self {
            Outcome::Absent => {}
            Outcome::Float(value) => column.values[step] = value,
            Outcome::Histogram(histogram) => column.histograms.push((step as u32, histogram)),
        }
    }
}

fn is_trim(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower)
}

/// Whether an operation between two series has more to it than their floats.
pub(super) fn concerns(op: BinaryOp, left: &VectorSeries, right: &VectorSeries) -> bool {
    is_trim(op) || !left.histograms.is_empty() || !right.histograms.is_empty()
}

/// Whether an operation with a scalar has more to it than the floats.
pub(super) fn concerns_column(op: BinaryOp, column: &Column) -> bool {
    is_trim(op) || !column.histograms.is_empty()
}

/// An operation of two samples of which one is a histogram, or trims.
fn operate(
    op: BinaryOp,
    returns_bool: bool,
    left: Operand<'_>,
    right: Operand<'_>,
    notes: &mut Notes<'_>,
) -> Outcome {
    use Operand::{Float, Histogram};
    let changed = |histogram: &Arc<FloatHistogram>, change: &dyn Fn(&mut FloatHistogram)| {
        let mut result = (**histogram).clone();
        change(&mut result);
        compact(&mut result);
        Outcome::Histogram(Arc::new(result))
    };
    match (op, left, right) {
        (BinaryOp::Mul, Histogram(h), Float(factor))
        | (BinaryOp::Mul, Float(factor), Histogram(h)) => changed(h, &|h| scale(h, factor)),
        (BinaryOp::Div, Histogram(h), Float(divisor)) => changed(h, &|h| divide(h, divisor)),
        (BinaryOp::TrimUpper, Histogram(h), Float(value)) => {
            Outcome::Histogram(Arc::new(trim(h, value, Keep::Below)))
        }
        (BinaryOp::TrimLower, Histogram(h), Float(value)) => {
            Outcome::Histogram(Arc::new(trim(h, value, Keep::Above)))
        }
        (BinaryOp::Add | BinaryOp::Sub, Histogram(a), Histogram(b)) => {
            add_or_subtract(op, a, b, notes)
        }
        (BinaryOp::Eq | BinaryOp::Ne, Histogram(a), Histogram(b)) => {
            let holds = equal(a, b) == (op == BinaryOp::Eq);
            match (returns_bool, holds) {
                (true, _) => Outcome::Float(f64::from(u8::from(holds))),
                (false, true) => Outcome::Histogram(Arc::clone(a)),
                (false, false) => Outcome::Absent,
            }
        }
        _ => {
            let op = op.symbol();
            let (left, right) = (left.kind(), right.kind());
            notes.info(
                0,
                &format!(
                    "incompatible sample types encountered for binary operator {op:?}: {left} {op} {right}"
                ),
            );
            Outcome::Absent
        }
    }
}

fn add_or_subtract(
    op: BinaryOp,
    a: &FloatHistogram,
    b: &FloatHistogram,
    notes: &mut Notes<'_>,
) -> Outcome {
    let mut sums = Sums::new(a);
    let (result, during) = match op {
        BinaryOp::Add => (sums.add(b), "addition"),
        _ => (sums.subtract(b), "subtraction"),
    };
    let Ok(Notice {
        conflicting_resets,
        reconciled_bounds,
    }) = result
    else {
        notes.warn(
            0,
            &format!(
                "incompatible bucket layout encountered for binary operator {}",
                op.symbol()
            ),
        );
        return Outcome::Absent;
    };
    if conflicting_resets {
        notes.warn(0, &format!("{RESETS_COLLIDE} {during}"));
    }
    if reconciled_bounds {
        notes.info(0, &format!("{RECONCILED} {during}"));
    }
    if op == BinaryOp::Sub {
        sums.make_gauge();
    }
    Outcome::Histogram(Arc::new(sums.value()))
}

fn sides<'a>(swapped: bool, sample: Operand<'a>, other: Operand<'a>) -> (Operand<'a>, Operand<'a>) {
    match swapped {
        true => (other, sample),
        false => (sample, other),
    }
}

/// A column with histograms against scalars: replaces the histograms. The floats are not touched.
pub(super) fn with_scalar(
    op: BinaryOp,
    swapped: bool,
    column: &mut Column,
    scalars: &Scalars,
    notes: &mut Notes<'_>,
) {
    if is_trim(op) {
        for (step, value) in column.values.iter().enumerate() {
            if !is_absent(*value) {
                let (sample, scalar) = (Operand::Float(*value), Operand::Float(scalars.at(step)));
                let (left, right) = sides(swapped, sample, scalar);
                operate(op, false, left, right, notes);
            }
        }
    }
    let before = std::mem::take(&mut column.histograms);
    for (step, histogram) in before {
        let scalar = Operand::Float(scalars.at(step as usize));
        let (left, right) = sides(swapped, Operand::Histogram(&histogram), scalar);
        // A comparison of a histogram with a number never holds.
        operate(op, false, left, right, notes).put(step as usize, column);
    }
}

/// One series against another, at the steps at which both have a sample and not both a float. Adds to `column`.
pub(super) fn pair(
    op: BinaryOp,
    returns_bool: bool,
    left: &VectorSeries,
    right: &VectorSeries,
    column: &mut Column,
    notes: &mut Notes<'_>,
) {
    let sample = |series: &'_ VectorSeries, step: usize| !is_absent(series.values[step]);
    for step in 0..column.values.len() {
        let left = match left.histogram(step) {
            Some(histogram) => Operand::Histogram(histogram),
            None if sample(left, step) => Operand::Float(left.values[step]),
            None => continue,
        };
        let right = match right.histogram(step) {
            Some(histogram) => Operand::Histogram(histogram),
            None if sample(right, step) => Operand::Float(right.values[step]),
            None => continue,
        };
        if is_trim(op) || !matches!((left, right), (Operand::Float(_), Operand::Float(_))) {
            operate(op, returns_bool, left, right, notes).put(step, column);
        }
    }
}

/// Whether the samples of two series at a step are of kinds that go together. What does not is no match at all, so it cannot be one too many.
pub(super) fn go_together(
    op: BinaryOp,
    left: &VectorSeries,
    right: &VectorSeries,
    step: usize,
) -> bool {
    match (left.histogram(step), right.histogram(step)) {
        (None, None) => !is_trim(op),
        (None, Some(_)) => op == BinaryOp::Mul,
        (Some(_), None) => op == BinaryOp::Mul || op == BinaryOp::Div || is_trim(op),
        (Some(a), Some(b)) => match op {
            BinaryOp::Add | BinaryOp::Sub => compatible(a, b),
            _ => matches!(op, BinaryOp::Eq | BinaryOp::Ne),
        },
    }
}

/// The histograms of a series without a partner, against the value that stands for one. Adds to `column`.
pub(super) fn filled(
    op: BinaryOp,
    on_left: bool,
    series: &VectorSeries,
    fill: f64,
    partner: &[bool],
    column: &mut Column,
    notes: &mut Notes<'_>,
) {
    for (step, histogram) in &series.histograms {
        let step = *step as usize;
        if partner[step] {
            continue;
        }
        let (histogram, fill) = (Operand::Histogram(histogram), Operand::Float(fill));
        let (left, right) = sides(!on_left, histogram, fill);
        operate(op, false, left, right, notes).put(step, column);
    }
}

#[cfg(test)]
mod tests;
