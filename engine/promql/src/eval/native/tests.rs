//! Claims about histograms among the samples of a series.

use model::STALE_NAN_BITS;

use super::*;

fn of(count: f64) -> FloatHistogram {
    FloatHistogram {
        count,
        sum: count,
        ..FloatHistogram::default()
    }
}

/// A float, a histogram, a stale histogram, a histogram, a stale float, a float; a second apart.
fn samples() -> Columns {
    let mut stale = of(9.0);
    stale.sum = f64::from_bits(STALE_NAN_BITS);
    Columns {
        times: vec![1000, 2000, 3000, 4000, 5000, 6000],
        values: vec![1.0, 77.0, 77.0, 77.0, ABSENT, 6.0],
        histograms: vec![(1, of(2.0)), (2, stale), (3, of(4.0))],
    }
}

fn at_every_second(take: Take) -> Column {
    let mut columns = samples();
    settle(&mut columns);
    let steps = Steps {
        start: 0,
        step: 1000,
        count: 8,
    };
    let moment = Moment::default();
    let mut out = Column::default();
    newest(&mut columns, steps, moment, 10_000, take, &mut out);
    out
}

#[test]
fn the_newest_sample_counts_and_stale_ones_of_either_kind_are_absence() {
    let out = at_every_second(Take::Value);
    let floats: Vec<_> = out
        .values
        .iter()
        .map(|v| (!is_absent(*v)).then_some(*v))
        .collect();
    let expected = [
        None,
        Some(1.0),
        None,
        None,
        None,
        None,
        Some(6.0),
        Some(6.0),
    ];
    assert_eq!(floats, expected);
    let histograms: Vec<_> = out
        .histograms
        .iter()
        .map(|(step, h)| (*step, h.count))
        .collect();
    assert_eq!(histograms, [(2, 2.0), (4, 4.0)]);
}

#[test]
fn histograms_have_times_as_floats_have() {
    let out = at_every_second(Take::Time);
    let times: Vec<_> = out
        .values
        .iter()
        .map(|v| (!is_absent(*v)).then_some(*v))
        .collect();
    let some = |t: f64| Some(t);
    let expected = [
        None,
        some(1.0),
        some(2.0),
        None,
        some(4.0),
        None,
        some(6.0),
        some(6.0),
    ];
    assert_eq!(times, expected);
    assert!(out.histograms.is_empty());
}

#[test]
fn histograms_are_taken_out_of_the_columns_and_leave_the_floats() {
    let mut columns = samples();
    settle(&mut columns);
    let samples = Samples::take(&mut columns);
    assert_eq!(samples.times, [2000, 4000]);
    assert_eq!(samples.weights[2], 2 * weight(&of(0.0)));
    assert_eq!(columns.times, [1000, 3000, 5000, 6000]);
    remove_stale(&mut columns);
    assert_eq!(
        (columns.times, columns.values),
        (vec![1000, 6000], vec![1.0, 6.0])
    );
}
