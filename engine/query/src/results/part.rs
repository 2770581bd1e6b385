//! Parts of results: a run of steps with the series that have something at them.

use std::cmp::Ordering;
use std::sync::Arc;

use model::{QueryValue, RangeSeries};
use promql::AnnotationKind;

use crate::memory::value_bytes;

/// Two neighbours smaller than this together become one.
const SMALL_BYTES: u64 = 64 * 1024;

/// What is kept of a run of steps.
#[derive(Debug)]
pub(super) struct Part {
    first: i64,
    last: i64,
    /// Sorted by labels.
    series: Vec<RangeSeries>,
    /// What was to be said of it.
    infos: Vec<String>,
    /// In memory, roughly.
    pub(super) bytes: u64,
}

/// Some steps of a part.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) part: Arc<Part>,
    /// First step.
    pub(super) first: i64,
    /// Last step.
    pub(super) last: i64,
}

/// What was evaluated: all steps from `first` to `last`.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) series: Vec<RangeSeries>,
    /// What is to be said of it.
    pub(crate) infos: Vec<String>,
    /// It is not certain that it is right.
    pub(crate) warned: bool,
}

impl Piece {
    pub(crate) fn slice(&self) -> (i64, i64, &[RangeSeries]) {
        (self.first, self.last, &self.series)
    }
}

impl Part {
    /// A copy of the steps of a piece that may be kept.
    pub(super) fn of(piece: &Piece, keep: (i64, i64)) -> Option<Part> {
        let (first, last) = (piece.first.max(keep.0), piece.last.min(keep.1));
        (first <= last).then(|| {
            let series = join(&[(first, last, &piece.series)]);
            Part::new(first, last, series, piece.infos.clone())
        })
    }

    pub(super) fn new(first: i64, last: i64, series: Vec<RangeSeries>, infos: Vec<String>) -> Part {
        let value = QueryValue::Matrix(series);
        let texts = infos.iter().map(|text| text.len() as u64).sum::<u64>();
        let bytes = value_bytes(&value) + texts + size_of::<Part>() as u64;
        let QueryValue::Matrix(series) = value else {
            unreachable!("made above")
        };
        Part {
            first,
            last,
            series,
            infos,
            bytes,
        }
    }
}

impl View {
    pub(super) fn whole(part: Part) -> View {
        View {
            first: part.first,
            last: part.last,
            part: Arc::new(part),
        }
    }

    /// What of it lies within these times. Its own bounds are on the grid and stay there.
    pub(super) fn clip(&self, from: i64, until: i64, step: i64) -> Option<View> {
        let (mut first, mut last) = (self.first, self.last);
        if from > first {
            let short = from.abs_diff(first).div_ceil(step.unsigned_abs());
            first = first.checked_add(i64::try_from(short).ok()?.checked_mul(step)?)?;
        }
        if until < last {
            let long = last.abs_diff(until).div_ceil(step.unsigned_abs());
            last = last.checked_sub(i64::try_from(long).ok()?.checked_mul(step)?)?;
        }
        let part = self.part.clone();
        (first <= last).then_some(View { part, first, last })
    }

    pub(super) fn slice(&self) -> (i64, i64, &[RangeSeries]) {
        (self.first, self.last, &self.part.series)
    }

    pub(super) fn infos(&self) -> &[String] {
        &self.part.infos
    }
}

/// Makes one of neighbours where that is cheap: sizes grow towards the past, so a step is copied a logarithm of times.
pub(super) fn settle(views: &mut Vec<View>, step: i64, bytes_max: u64) {
    let mut settled: Vec<View> = Vec::with_capacity(views.len());
    for view in views.drain(..) {
        settled.push(view);
        while let [.., left, right] = &settled[..] {
            let (a, b) = (left.part.bytes, right.part.bytes);
            let touching = left.last.checked_add(step) == Some(right.first);
            if !touching || a + b > bytes_max || (a > 2 * b && a + b > SMALL_BYTES) {
                break;
            }
            let series = join(&[left.slice(), right.slice()]);
            let mut infos = left.part.infos.clone();
            AnnotationKind::Info.join(&mut infos, right.part.infos.iter().cloned());
            let one = Part::new(left.first, right.last, series, infos);
            settled.truncate(settled.len() - 2);
            settled.push(View::whole(one));
        }
    }
    *views = settled;
}

/// Puts runs of steps together; they ascend and do not overlap. Each counts from its first to its last time, both included.
///
/// Cost: linear in series and points.
pub(crate) fn join(runs: &[(i64, i64, &[RangeSeries])]) -> Vec<RangeSeries> {
    let mut out: Vec<RangeSeries> = Vec::new();
    for &(first, last, series) in runs {
        out = append(out, series, first, last);
    }
    out
}

fn append(
    known: Vec<RangeSeries>,
    more: &[RangeSeries],
    first: i64,
    last: i64,
) -> Vec<RangeSeries> {
    let mut out = Vec::with_capacity(known.len().max(more.len()));
    let mut known = known.into_iter().peekable();
    for one in more {
        while let Some(before) = known.next_if(|k| k.labels.cmp(&one.labels) == Ordering::Less) {
            out.push(before);
        }
        let floats = within(&one.floats, first, last, |point| point.t);
        let histograms = within(&one.histograms, first, last, |point| point.t);
        let same = known.next_if(|k| k.labels == one.labels);
        if floats.is_empty() && histograms.is_empty() {
            out.extend(same);
            continue;
        }
        let mut series = same.unwrap_or_else(|| RangeSeries {
            labels: one.labels.clone(),
            ..RangeSeries::default()
        });
        // To the point: it is kept for long, and is counted by what is in it.
        series.floats.reserve_exact(floats.len());
        series.floats.extend_from_slice(floats);
        series.histograms.reserve_exact(histograms.len());
        series.histograms.extend_from_slice(histograms);
        out.push(series);
    }
    out.extend(known);
    out
}

fn within<T>(points: &[T], first: i64, last: i64, time: impl Fn(&T) -> i64) -> &[T] {
    let from = points.partition_point(|point| time(point) < first);
    let until = points.partition_point(|point| time(point) <= last);
    &points[from..until.max(from)]
}
