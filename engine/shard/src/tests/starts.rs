//! Starts of counters: kept once, with a zero where it is wanted, also behind a restart.

use super::*;
use crate::Start;

/// Time and value, or time and start.
type Points<T> = Vec<(i64, T)>;

/// Floats of the only series, and the starts of its counters.
fn floats_and_starts(one: &mut One) -> (Points<f64>, Points<i64>) {
    let found = one.select(|_| {}).unwrap();
    let mut floats = Vec::new();
    for slice in &found[0].chunks {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        chunk::decode(&slice.bytes.read().unwrap(), &mut times, &mut values).unwrap();
        floats.extend(times.into_iter().zip(values));
    }
    let found = one.select(|select| (select.with_chunks, select.with_starts) = (false, true));
    let starts = found.unwrap().first().map_or(Vec::new(), |series| {
        let pair = |start: &Start| (start.from.0, start.start.0);
        series.starts.iter().map(pair).collect()
    });
    (floats, starts)
}

fn counter_start<S>(
    series: S,
    before: u32,
    (time, start): (i64, i64),
    zero: Zero,
) -> OtherSample<S> {
    OtherSample {
        series,
        before,
        time,
        value: OtherValue::Start(CounterStart { start, zero }),
    }
}

#[test]
fn a_start_is_kept_and_a_zero_stored_there_once_also_behind_a_restart() {
    let mut one = One::new();
    let series = [labels(&[("__name__", "requests_total")])];
    // The series begins with its zero.
    let outcome = one.push(|r| {
        let mut push = fresh("fake", &series, 1000, unlimited(), r);
        push.others
            .fresh
            .push(counter_start(0, 0, (1000, 900), Zero::Float));
        push
    });
    assert_eq!((outcome.stored, outcome.starts_ignored), (1, 0));
    let key = outcome.keys[0].unwrap();
    let zeros = vec![(900, 0.0), (1000, 1000.0)];
    assert_eq!(
        floats_and_starts(&mut one),
        (zeros.clone(), vec![(1000, 900)])
    );
    let next = |one: &mut One, time: i64, start: i64, zero: Zero| {
        one.push(|r| {
            let mut push = known("fake", &[key], time, time as f64, r);
            push.others
                .known
                .push(counter_start(key, 0, (time, start), zero));
            push
        })
    };
    // The same start again is no news, nor is a retry; an older one is not kept, and nor is one behind its sample.
    for (time, start, ignored) in [
        (1010, 900, 0),
        (1010, 900, 0),
        (1020, 800, 1),
        (1030, 1031, 1),
    ] {
        let outcome = next(&mut one, time, start, Zero::Float);
        assert_eq!(outcome.stored + outcome.repeated, 1);
        assert_eq!(outcome.starts_ignored, ignored, "{start}");
    }
    // A reset between two samples; then one before the last sample: kept, but a zero would be out of order, which nobody is told.
    assert_eq!(next(&mut one, 1050, 1040, Zero::Float).stored, 1);
    let outcome = next(&mut one, 1060, 1045, Zero::Float);
    assert_eq!((outcome.stored, outcome.rejected.len()), (1, 0));
    // A tenant that wants no zeros.
    assert_eq!(next(&mut one, 1080, 1070, Zero::None).stored, 1);
    let mut all = zeros;
    for time in [1010, 1020, 1030] {
        all.push((time, time as f64));
    }
    all.extend([(1040, 0.0), (1050, 1050.0), (1060, 1060.0), (1080, 1080.0)]);
    let starts = vec![(1000, 900), (1050, 1040), (1060, 1045), (1080, 1070)];
    let want = (all, starts);
    assert_eq!(floats_and_starts(&mut one), want);
    let mut one = one.restart();
    assert_eq!(floats_and_starts(&mut one), want, "from the log");
    one.node.checkpoint().unwrap();
    let mut one = one.restart();
    assert_eq!(floats_and_starts(&mut one), want, "from a checkpoint");
    let outcome = one.push(|r| {
        let mut push = fresh("fake", &series, 1100, unlimited(), r);
        push.others
            .fresh
            .push(counter_start(0, 0, (1100, 1070), Zero::Float));
        push
    });
    assert_eq!((outcome.stored, outcome.starts_ignored), (1, 0));
    let (floats, starts) = floats_and_starts(&mut one);
    assert_eq!(floats.len(), want.0.len() + 1, "no second zero");
    assert_eq!(starts, want.1);
}

#[test]
fn a_start_of_a_series_that_is_refused_is_not_kept_and_refuses_it_once() {
    let mut one = One::new();
    let limits = || TenantLimits {
        max_series_per_user: 1,
        ..unlimited()
    };
    let series = ["a", "b"].map(|name| labels(&[("__name__", name)]));
    let outcome = one.push(|r| {
        let mut push = fresh("fake", &series, 1000, limits(), r);
        for at in 0..2 {
            push.others
                .fresh
                .push(counter_start(at, at, (1000, 900), Zero::Float));
        }
        push
    });
    assert_eq!(outcome.stored, 1);
    assert_eq!((outcome.rejected.len(), outcome.rejected[0].count), (1, 1));
    assert_eq!(outcome.refused_series.len(), 1);
    let (floats, starts) = floats_and_starts(&mut one);
    assert_eq!((floats.len(), starts), (2, vec![(1000, 900)]));
}

#[test]
fn a_histogram_series_begins_with_an_empty_histogram() {
    use chunk::Encoding::Histogram as H;
    let mut one = One::new();
    let up = labels(&[("__name__", "up")]);
    let outcome = one.push(|r| {
        let mut push = fresh("fake", std::slice::from_ref(&up), 1000, unlimited(), r);
        push.fresh.times.clear();
        push.fresh.values.clear();
        push.fresh.series[0].samples_end = 0;
        let zero = Zero::Histogram(Box::new(histogram(0)));
        push.others.fresh.extend([
            counter_start(0, 0, (1000, 900), zero),
            OtherSample {
                series: 0,
                before: 0,
                time: 1000,
                value: OtherValue::Histogram(Box::new(histogram(3))),
            },
        ]);
        push
    });
    assert_eq!((outcome.stored, outcome.histograms), (0, 1));
    assert_eq!(kinds(&mut one), [(900, H), (1000, H)]);
}
