//! What functions of a range make of samples of both kinds, function by function, after the description of Prometheus' language.

use super::{Datum, Hist};
use crate::functions::{Edges, Window};
use crate::value::is_absent;
use model::CounterReset;

/// The samples of a series in a range, of which there is at least one.
pub(super) struct Range<'a> {
    pub(super) samples: &'a [(i64, Datum)],
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step_time: i64,
}

/// `eval` is the function of floats.
pub(super) fn over(
    name: &str,
    range: &Range<'_>,
    eval: impl FnMut(&Window<'_>) -> f64,
) -> Option<Datum> {
    let samples = range.samples;
    let floats: Vec<(i64, f64)> = samples
        .iter()
        .filter_map(|(t, datum)| Some((*t, datum.float()?)))
        .collect();
    let (all_floats, no_floats) = (floats.len() == samples.len(), floats.is_empty());
    let seconds = |at: usize| Some(Datum::Float(samples[at].0 as f64 / 1000.0));
    let pairs = || samples.windows(2).map(|pair| (&pair[0].1, &pair[1].1));
    let how_many = |count: usize| Some(Datum::Float(count as f64));
    match name {
        "count_over_time" => how_many(samples.len()),
        "present_over_time" => Some(Datum::Float(1.0)),
        "first_over_time" => Some(samples[0].1.clone()),
        "last_over_time" => Some(samples[samples.len() - 1].1.clone()),
        "ts_of_first_over_time" => seconds(0),
        "ts_of_last_over_time" => seconds(samples.len() - 1),
        "resets" => how_many(
            pairs()
                .filter(|pair| match pair {
                    (Datum::Float(a), Datum::Float(b)) => b < a,
                    (Datum::Histogram(a), Datum::Histogram(b)) => b.was_reset(a),
                    _ => true,
                })
                .count(),
        ),
        "changes" => how_many(
            pairs()
                .filter(|pair| match pair {
                    (Datum::Float(a), Datum::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
                    (Datum::Histogram(a), Datum::Histogram(b)) => !a.same(b, 0.0),
                    _ => true,
                })
                .count(),
        ),
        "irate" | "idelta" => {
            let [.., (before_at, before), (at, now)] = samples else {
                return None;
            };
            let (before, now) = match (before, now) {
                (Datum::Float(_), Datum::Float(_)) => return of_floats(&floats, range, eval),
                (Datum::Histogram(before), Datum::Histogram(now)) => (before.clone(), now.clone()),
                _ => return None,
            };
            if name == "idelta" {
                return now.minus(before).ok().map(Datum::Histogram);
            }
            let mut change = if now.was_reset(&before) {
                now
            } else {
                now.minus(before).ok()?
            };
            change.reset = CounterReset::Gauge;
            let seconds = (at - before_at) as f64 / 1000.0;
            Some(Datum::Histogram(change.divide(seconds)))
        }
        "rate" | "increase" | "delta" | "sum_over_time" | "avg_over_time" if all_floats => {
            of_floats(&floats, range, eval)
        }
        "rate" | "increase" | "delta" | "sum_over_time" | "avg_over_time" if !no_floats => None,
        "sum_over_time" => sum(values(samples)).map(Datum::Histogram),
        "avg_over_time" => {
            let sum = sum(values(samples))?;
            Some(Datum::Histogram(sum.divide(samples.len() as f64)))
        }
        "rate" | "increase" | "delta" => change(name, range).map(Datum::Histogram),
        _ if no_floats => None,
        _ => of_floats(&floats, range, eval),
    }
}

fn values(samples: &[(i64, Datum)]) -> Vec<Datum> {
    samples.iter().map(|(_, datum)| datum.clone()).collect()
}

fn of_floats(
    floats: &[(i64, f64)],
    range: &Range<'_>,
    mut eval: impl FnMut(&Window<'_>) -> f64,
) -> Option<Datum> {
    let (times, values): (Vec<i64>, Vec<f64>) = floats.iter().copied().unzip();
    let value = eval(&Window {
        times: &times,
        values: &values,
        start: range.start,
        end: range.end,
        step_time: range.step_time,
        edges: Edges::Plain,
    });
    (!is_absent(value)).then_some(Datum::Float(value))
}

/// The sum of histograms of one kind; of anything else there is none.
pub(super) fn sum(values: Vec<Datum>) -> Option<Hist> {
    let mut total: Option<Hist> = None;
    for value in values {
        let Datum::Histogram(next) = value else {
            return None;
        };
        total = Some(match total {
            Some(total) => total.plus(next).ok()?,
            None => next,
        });
    }
    total
}

fn change(name: &str, range: &Range<'_>) -> Option<Hist> {
    let points: Vec<(i64, &Hist)> = range
        .samples
        .iter()
        .filter_map(|(t, datum)| match datum {
            Datum::Histogram(h) => Some((*t, h)),
            Datum::Float(_) => None,
        })
        .collect();
    let counter = name != "delta";
    let [(first_time, first), .., (last_time, last)] = points[..] else {
        return None;
    };
    // Of a first one that was reset right after it only the time counts.
    let base = if counter && points[1].1.was_reset(first) {
        points[1].1.emptied()
    } else {
        first.clone()
    };
    let custom = |h: &Hist| h.bounds.is_some();
    if custom(last) != custom(&base)
        || counter && points[1..].iter().any(|(_, h)| custom(h) != custom(&base))
    {
        return None;
    }
    let mut result = last.clone().minus(base.clone()).ok()?;
    if counter {
        result = result.coarsest(points[1..].iter().map(|(_, h)| *h));
        let mut before = &base;
        for (_, now) in &points[1..] {
            if now.was_reset(before) {
                result = result.plus(before.clone()).ok()?;
            }
            before = now;
        }
    }
    let sampled = (last_time - first_time) as f64 / 1000.0;
    let average = sampled / (points.len() - 1) as f64;
    let side = |gap: i64| {
        let gap = gap as f64 / 1000.0;
        if gap >= average * 1.1 {
            average / 2.0
        } else {
            gap
        }
    };
    let mut left = side(first_time - range.start);
    if counter && result.count > 0.0 && first.count >= 0.0 {
        left = left.min(sampled * first.count / result.count);
    }
    let mut factor = (sampled + left + side(range.end - last_time)) / sampled;
    if name == "rate" {
        factor /= (range.end - range.start) as f64 / 1000.0;
    }
    result.reset = CounterReset::Gauge;
    Some(result.scale(factor))
}
