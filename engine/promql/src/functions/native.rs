//! Functions of native histograms: what a range function makes of a window with histograms in it, and `histogram_count` and its kin.
//!
//! A range function is given what a window has, floats and histograms apart. With floats only it is the usual one; what happens else depends on
//! the function ([`Treatment`]): most work on one kind or the other and refuse a mix with a warning, some count both,
//! and those that make no sense of histograms pass over them with an info. Source: Prometheus `promql/functions.go`.

pub(crate) mod edges;

use model::{CounterReset, FloatHistogram, quoted};

use crate::Error;
use crate::annotations::Notes;
use crate::functions::rate::{self, Change};
use crate::functions::{Call, Edges, RangeFn, Window};
use crate::histogram::buckets::{divide, scale};
use crate::histogram::equal;
use crate::histogram::estimate::variance;
use crate::histogram::mean::Means;
use crate::histogram::reset::{change, detect_reset, instant_change};
use crate::histogram::sum::Sums;
use crate::value::{ABSENT, Value, is_absent};

/// Warning: one histogram says that it follows a reset, another that it does not. What was done comes after it.
pub(crate) const RESETS_COLLIDE: &str = "conflicting counter resets during histogram";
/// Info: custom bounds differed. What was done comes after it.
pub(crate) const RECONCILED: &str = "mismatched custom buckets were reconciled during";

/// A window of a series with histograms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mixed<'a> {
    /// Its floats.
    pub(crate) floats: Window<'a>,
    /// Times of its histograms, milliseconds.
    pub(crate) times: &'a [i64],
    /// As many histograms; the number with each is of no meaning here.
    pub(crate) histograms: &'a [(u32, FloatHistogram)],
}

/// What came of a window.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// No sample.
    Absent,
    /// A float.
    Float(f64),
    /// A histogram.
    Histogram(FloatHistogram),
}

/// What a range function does with histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// `rate`, `increase`, `delta`.
    Change(Change),
    /// `irate` (per second) and `idelta`.
    Instant { per_second: bool },
    /// `resets`.
    Resets,
    /// `changes`.
    Changes,
    /// `sum_over_time`.
    Sum,
    /// `avg_over_time`.
    Avg,
    /// `count_over_time`.
    Count,
    /// `present_over_time`.
    Present,
    /// `first_over_time`.
    First,
    /// `last_over_time`.
    Last,
    /// `ts_of_first_over_time`.
    TimeOfFirst,
    /// `ts_of_last_over_time`.
    TimeOfLast,
    /// All others: only floats count.
    Ignore,
}

impl Treatment {
    /// Whether it can use histograms beside the range.
    pub(crate) fn knows_edges(self) -> bool {
        matches!(self, Treatment::Change(_))
    }

    /// That of a function.
    pub(crate) fn of(function: &str) -> Treatment {
        match function {
            "rate" => Treatment::Change(Change::Rate),
            "increase" => Treatment::Change(Change::Increase),
            "delta" => Treatment::Change(Change::Delta),
            "irate" => Treatment::Instant { per_second: true },
            "idelta" => Treatment::Instant { per_second: false },
            "resets" => Treatment::Resets,
            "changes" => Treatment::Changes,
            "sum_over_time" => Treatment::Sum,
            "avg_over_time" => Treatment::Avg,
            "count_over_time" => Treatment::Count,
            "present_over_time" => Treatment::Present,
            "first_over_time" => Treatment::First,
            "last_over_time" => Treatment::Last,
            "ts_of_first_over_time" => Treatment::TimeOfFirst,
            "ts_of_last_over_time" => Treatment::TimeOfLast,
            _ => Treatment::Ignore,
        }
    }
}

/// A range function over a window that is not empty; `arg` is the number of its range, for notes.
pub(crate) fn over_range(
    treatment: Treatment,
    eval: RangeFn,
    window: &Mixed<'_>,
    args: &[f64],
    arg: usize,
    notes: &mut Notes<'_>,
) -> Outcome {
    let Mixed {
        floats,
        times,
        histograms,
    } = *window;
    if histograms.is_empty() {
        return float(eval(&floats, args, notes));
    }
    let mixed = !floats.times.is_empty();
    let first_time = floats.times.first().map_or(i64::MAX, |t| *t).min(times[0]);
    let float_last = floats.times.last().copied();
    let last_time = float_last.unwrap_or(i64::MIN).max(times[times.len() - 1]);
    let seconds = |time: i64| Outcome::Float(time as f64 / 1000.0);
    match treatment {
        Treatment::Change(_) | Treatment::Sum | Treatment::Avg if mixed => {
            warn_of_mix(arg, notes);
            Outcome::Absent
        }
        Treatment::Change(kind) if floats.edges != Edges::Plain => {
            edges::extended(window, kind, arg, notes)
        }
        Treatment::Change(kind) => extrapolated(window, kind, arg, notes),
        Treatment::Instant { per_second } => instant(window, per_second, eval, arg, notes),
        Treatment::Sum => total(histograms, arg, notes, Sums::new, Sums::add, Sums::value),
        Treatment::Avg => total(histograms, arg, notes, Means::new, Means::add, Means::value),
        Treatment::Resets => Outcome::Float(transitions(window, |pair| match pair {
            (Sample::Float(before), Sample::Float(now)) => now < before,
            (Sample::Histogram(before), Sample::Histogram(now)) => detect_reset(now, before),
            _ => true,
        })),
        Treatment::Changes => Outcome::Float(transitions(window, |pair| match pair {
            (Sample::Float(before), Sample::Float(now)) => {
                before != now && !(before.is_nan() && now.is_nan())
            }
            (Sample::Histogram(before), Sample::Histogram(now)) => !equal(before, now),
            _ => true,
        })),
        Treatment::Count => Outcome::Float((floats.times.len() + times.len()) as f64),
        Treatment::Present => Outcome::Float(1.0),
        Treatment::TimeOfFirst => seconds(first_time),
        Treatment::TimeOfLast => seconds(last_time),
        Treatment::First if first_time < times[0] => Outcome::Float(floats.values[0]),
        Treatment::First => Outcome::Histogram(histograms[0].1.clone()),
        Treatment::Last if float_last == Some(last_time) => {
            Outcome::Float(floats.values[floats.values.len() - 1])
        }
        Treatment::Last => Outcome::Histogram(histograms[histograms.len() - 1].1.clone()),
        Treatment::Ignore if mixed => {
            let metric = notes.metric;
            notes.info(
                arg,
                &format!(
                    "ignored histograms in a range containing both floats and histograms for metric name {}",
                    quoted(metric)
                ),
            );
            float(eval(&floats, args, notes))
        }
        Treatment::Ignore => Outcome::Absent,
    }
}

fn float(value: f64) -> Outcome {
    if is_absent(value) {
        Outcome::Absent
    } else {
        Outcome::Float(value)
    }
}

fn warn_of_mix(arg: usize, notes: &mut Notes<'_>) {
    let metric = notes.metric;
    notes.warn(
        arg,
        &format!(
            "encountered a mix of histograms and floats for metric name {}",
            quoted(metric)
        ),
    );
}

fn warn_of_kinds(arg: usize, notes: &mut Notes<'_>) {
    let metric = notes.metric;
    notes.warn(
        arg,
        &format!(
            "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
            quoted(metric)
        ),
    );
}

/// What is to be said about a change between histograms.
fn report(
    change: &crate::histogram::reset::Change,
    is_counter: bool,
    arg: usize,
    notes: &mut Notes<'_>,
) {
    let metric = notes.metric;
    if is_counter && change.gauge {
        notes.warn(
            arg,
            &format!(
                "this native histogram metric is not a counter: {}",
                quoted(metric)
            ),
        );
    }
    if change.mixed {
        return warn_of_kinds(arg, notes);
    }
    if !is_counter && change.counter {
        notes.warn(
            arg,
            &format!(
                "this native histogram metric is not a gauge: {}",
                quoted(metric)
            ),
        );
    }
    if change.reconciled_subtracting {
        notes.info(arg, &format!("{RECONCILED} subtraction"));
    }
    if change.reconciled_adding {
        notes.info(arg, &format!("{RECONCILED} addition"));
    }
}

fn extrapolated(window: &Mixed<'_>, kind: Change, arg: usize, notes: &mut Notes<'_>) -> Outcome {
    if window.histograms.len() < 2 {
        return Outcome::Absent;
    }
    let is_counter = kind != Change::Delta;
    let change = change(window.histograms, is_counter);
    report(&change, is_counter, arg, notes);
    let Some(mut result) = change.value else {
        return Outcome::Absent;
    };
    let range = (window.floats.start, window.floats.end);
    let first = window.histograms[0].1.count;
    let factor = rate::extrapolation(window.times, range, kind, first, result.count);
    scale(&mut result, factor);
    Outcome::Histogram(result)
}

/// The change between the last two samples, whatever is before them.
fn instant(
    window: &Mixed<'_>,
    per_second: bool,
    eval: RangeFn,
    arg: usize,
    notes: &mut Notes<'_>,
) -> Outcome {
    let times = window.times;
    let floats = window.floats.times;
    // Of the last two samples of all: those after the second-to-last time.
    let mut last: Vec<i64> = times.iter().rev().take(2).copied().collect();
    last.extend(floats.iter().rev().take(2));
    last.sort_unstable();
    let Some(second) = last.len().checked_sub(2).map(|at| last[at]) else {
        return Outcome::Absent;
    };
    match times.iter().rev().take_while(|t| **t >= second).count() {
        0 => return float(eval(&window.floats, &[], notes)),
        1 => {
            warn_of_mix(arg, notes);
            return Outcome::Absent;
        }
        _ => {}
    }
    let [.., (_, before), (_, now)] = window.histograms else {
        return Outcome::Absent;
    };
    let change = instant_change(before, now, per_second);
    report(&change, per_second, arg, notes);
    let Some(mut result) = change.value else {
        return Outcome::Absent;
    };
    if per_second {
        let distance = times[times.len() - 1].saturating_sub(second) as f64 / 1000.0;
        divide(&mut result, distance);
    }
    Outcome::Histogram(result)
}

/// Whether two histograms among several contradict each other about resets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ResetsSeen {
    yes: bool,
    no: bool,
}

impl ResetsSeen {
    /// Takes note of one.
    pub(crate) fn add(&mut self, histogram: &FloatHistogram) {
        self.yes |= histogram.counter_reset == CounterReset::Yes;
        self.no |= histogram.counter_reset == CounterReset::No;
    }

    /// Takes note of all that another has seen.
    pub(crate) fn merge(&mut self, other: ResetsSeen) {
        self.yes |= other.yes;
        self.no |= other.no;
    }

    /// Whether they do.
    pub(crate) fn collide(self) -> bool {
        self.yes && self.no
    }
}

type Added = Result<crate::histogram::sum::Notice, crate::histogram::Incompatible>;

fn total<T>(
    histograms: &[(u32, FloatHistogram)],
    arg: usize,
    notes: &mut Notes<'_>,
    start: impl Fn(&FloatHistogram) -> T,
    add: impl Fn(&mut T, &FloatHistogram) -> Added,
    value: impl Fn(&T) -> FloatHistogram,
) -> Outcome {
    let mut total = start(&histograms[0].1);
    let mut seen = ResetsSeen::default();
    let mut reconciled = false;
    seen.add(&histograms[0].1);
    for (_, histogram) in &histograms[1..] {
        seen.add(histogram);
        match add(&mut total, histogram) {
            Ok(notice) => reconciled |= notice.reconciled_bounds,
            Err(_) => {
                warn_of_kinds(arg, notes);
                return Outcome::Absent;
            }
        }
    }
    if seen.collide() {
        notes.warn(arg, &format!("{RESETS_COLLIDE} aggregation"));
    }
    if reconciled {
        notes.info(arg, &format!("{RECONCILED} aggregation"));
    }
    Outcome::Histogram(value(&total))
}

#[derive(Debug, Clone, Copy)]
enum Sample<'a> {
    Float(f64),
    Histogram(&'a FloatHistogram),
}

/// How many pairs of neighbours, floats and histograms in order of time, `counts` is true for.
fn transitions(window: &Mixed<'_>, counts: impl Fn((Sample<'_>, Sample<'_>)) -> bool) -> f64 {
    let Window { times, values, .. } = window.floats;
    let floats = times.iter().zip(values);
    let mut floats = floats.map(|(t, v)| (*t, Sample::Float(*v))).peekable();
    let histograms = window.times.iter().zip(window.histograms);
    let mut histograms = histograms
        .map(|(t, (_, h))| (*t, Sample::Histogram(h)))
        .peekable();
    let mut previous = None;
    let mut count = 0u32;
    loop {
        let next = match (floats.peek(), histograms.peek()) {
            (Some(float), Some(histogram)) if float.0 < histogram.0 => floats.next(),
            (Some(_), None) => floats.next(),
            _ => histograms.next(),
        };
        let Some((_, now)) = next else {
            return f64::from(count);
        };
        if let Some(before) = previous.replace(now) {
            count += u32::from(counts((before, now)));
        }
    }
}

/// `histogram_count`, `histogram_sum`, `histogram_avg`, `histogram_stddev`, `histogram_stdvar`: a number per histogram; floats have no part in
/// the result.
pub(super) fn summary(call: Call<'_>) -> Result<Value, Error> {
    let Some(Value::Vector(mut series)) = call.args.into_iter().next() else {
        unreachable!("types are checked by the parser");
    };
    let number: fn(&FloatHistogram) -> f64 = match call.function.name {
        "histogram_count" => |h| h.count,
        "histogram_sum" => |h| h.sum,
        "histogram_avg" => |h| h.sum / h.count,
        "histogram_stdvar" => variance,
        _ => |h| variance(h).sqrt(),
    };
    series.retain(|one| !one.histograms.is_empty());
    for one in &mut series {
        one.values.fill(ABSENT);
        one.drop_name = true;
        for (step, histogram) in one.histograms.drain(..) {
            // Adding 0 makes a staleness marker, which no histogram's sum is, an ordinary NaN.
            one.values[step as usize] = number(&histogram) + 0.0;
        }
    }
    Ok(Value::Vector(series))
}
