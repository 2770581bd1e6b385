//! The aggregations that give one series per group: partial results as columns with one place per step.
//!
//! A [`Partial`] holds what its series have contributed so far. Partials of partitions are merged in the partitions' order, so a result
//! depends on where the partitions are cut (in its last digits, and only for sums, means and variances) but never on which was
//! ready first. The loops are branch-free over columns, so that the compiler can vectorise them.

use crate::aggregate::AggregateOp;
use crate::functions::kahan::{self, Mean, Sum};
use crate::functions::quantile;
use crate::value::{ABSENT, is_absent};

/// What the series of one group have contributed so far, at every step.
#[derive(Debug, Clone)]
pub(crate) struct Partial {
    steps: usize,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Sum(Sums),
    Avg(Avg),
    Count(Vec<u32>),
    Group(Vec<u32>),
    /// The smallest so far, [`ABSENT`] at first.
    Min(Vec<f64>),
    /// The largest so far, [`ABSENT`] at first.
    Max(Vec<f64>),
    Moments {
        moments: Moments,
        deviation: bool,
    },
    /// All columns one after the other.
    Quantile(Vec<f64>),
}

/// Compensated sums and how many values they have.
#[derive(Debug, Clone)]
struct Sums {
    /// -0 at first, which leaves every first value as it is.
    sum: Vec<f64>,
    correction: Vec<f64>,
    count: Vec<u32>,
}

/// Sums, until one overflows at some step; from then on a [`Mean`] per step.
#[derive(Debug, Clone)]
enum Avg {
    Sums(Sums),
    Means(Vec<Mean>),
}

/// Number, mean and sum of squared distances to the mean (Welford).
#[derive(Debug, Clone)]
struct Moments {
    count: Vec<f64>,
    mean: Vec<f64>,
    m2: Vec<f64>,
}

impl Partial {
    /// Nothing yet. Panics for operators that keep series and for `count_values`.
    pub(crate) fn new(op: AggregateOp, steps: usize) -> Partial {
        let state = match op {
            AggregateOp::Sum => State::Sum(Sums::new(steps)),
            AggregateOp::Avg => State::Avg(Avg::Sums(Sums::new(steps))),
            AggregateOp::Count => State::Count(vec![0; steps]),
            AggregateOp::Group => State::Group(vec![0; steps]),
            AggregateOp::Min => State::Min(vec![ABSENT; steps]),
            AggregateOp::Max => State::Max(vec![ABSENT; steps]),
            AggregateOp::Stddev | AggregateOp::Stdvar => State::Moments {
                moments: Moments::new(steps),
                deviation: op == AggregateOp::Stddev,
            },
            AggregateOp::Quantile => State::Quantile(Vec::new()),
            AggregateOp::Bottomk
            | AggregateOp::CountValues
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio
            | AggregateOp::Topk => panic!("{} gives more than a column per group", op.name()),
        };
        Partial { steps, state }
    }

    /// Adds the column of one series; absent steps count for nothing.
    pub(crate) fn add(&mut self, values: &[f64]) {
        assert_eq!(values.len(), self.steps);
        match &mut self.state {
            State::Sum(sums) => sums.add(values),
            State::Avg(avg) => avg.add(values),
            State::Count(count) | State::Group(count) => count_in(count, values),
            State::Min(best) => keep_best(best, values, |value, best| value < best),
            State::Max(best) => keep_best(best, values, |value, best| value > best),
            State::Moments { moments, .. } => moments.add(values),
            State::Quantile(columns) => columns.extend_from_slice(values),
        }
    }

    /// Adds what the next partition has contributed.
    pub(crate) fn merge(&mut self, later: Partial) {
        assert_eq!(self.steps, later.steps);
        match (&mut self.state, later.state) {
            (State::Sum(sums), State::Sum(later)) => sums.merge(&later),
            (State::Avg(avg), State::Avg(later)) => avg.merge(later),
            (State::Count(count), State::Count(later))
            | (State::Group(count), State::Group(later)) => {
                for (count, more) in count.iter_mut().zip(later) {
                    *count = count.saturating_add(more);
                }
            }
            (State::Min(best), State::Min(later)) => {
                keep_best(best, &later, |value, best| value < best);
            }
            (State::Max(best), State::Max(later)) => {
                keep_best(best, &later, |value, best| value > best);
            }
            (State::Moments { moments, .. }, State::Moments { moments: later, .. }) => {
                moments.merge(&later);
            }
            (State::Quantile(columns), State::Quantile(later)) => columns.extend(later),
            _ => panic!("partials of different operators cannot be merged"),
        }
    }

    /// The result per step, [`ABSENT`] where there was no sample. `parameter` has one quantile per step for `quantile` and is not looked at
    /// else.
    pub(crate) fn finish(self, parameter: &[f64]) -> Vec<f64> {
        match self.state {
            State::Sum(sums) => sums.finish(),
            State::Avg(avg) => avg.finish(),
            State::Count(count) => count
                .into_iter()
                .map(|count| if count == 0 { ABSENT } else { f64::from(count) })
                .collect(),
            State::Group(count) => count
                .into_iter()
                .map(|count| if count == 0 { ABSENT } else { 1.0 })
                .collect(),
            State::Min(best) | State::Max(best) => best,
            State::Moments { moments, deviation } => moments.finish(deviation),
            State::Quantile(columns) => {
                assert_eq!(parameter.len(), self.steps);
                quantiles(&columns, parameter)
            }
        }
    }
}

fn count_in(count: &mut [u32], values: &[f64]) {
    for (count, value) in count.iter_mut().zip(values) {
        *count += u32::from(!is_absent(*value));
    }
}

/// Takes a value where it is better than the best so far, and any where that is NaN (or there is none).
#[inline]
fn keep_best(best: &mut [f64], values: &[f64], better: impl Fn(f64, f64) -> bool) {
    for (best, value) in best.iter_mut().zip(values) {
        let take = !is_absent(*value) & (better(*value, *best) | best.is_nan());
        *best = if take { *value } else { *best };
    }
}

impl Sums {
    fn new(steps: usize) -> Sums {
        Sums {
            sum: vec![-0.0; steps],
            correction: vec![0.0; steps],
            count: vec![0; steps],
        }
    }

    fn add(&mut self, values: &[f64]) {
        count_in(&mut self.count, values);
        let state = self.sum.iter_mut().zip(&mut self.correction);
        for ((sum, correction), value) in state.zip(values) {
            let (next, lost) = kahan::two_sum(*sum, *value);
            let absent = is_absent(*value);
            *sum = if absent { *sum } else { next };
            *correction += if absent { 0.0 } else { lost };
        }
    }

    fn merge(&mut self, later: &Sums) {
        for i in 0..self.sum.len() {
            let mut sum = self.at(i);
            sum.merge(later.at(i));
            self.sum[i] = sum.sum;
            self.correction[i] = sum.correction;
            self.count[i] += later.count[i];
        }
    }

    fn at(&self, i: usize) -> Sum {
        Sum {
            sum: self.sum[i],
            correction: self.correction[i],
        }
    }

    /// Whether adding this column makes a finite sum infinite, or meets an infinite one.
    fn would_overflow(&self, values: &[f64]) -> bool {
        self.sum
            .iter()
            .zip(values)
            .fold(false, |any, (sum, value)| {
                any | (!is_absent(*value) & (sum + value).is_infinite())
            })
    }

    fn finish(self) -> Vec<f64> {
        (0..self.sum.len())
            .map(|i| {
                if self.count[i] == 0 {
                    ABSENT
                } else {
                    self.at(i).value()
                }
            })
            .collect()
    }
}

impl Avg {
    fn add(&mut self, values: &[f64]) {
        if let Avg::Sums(sums) = self
            && sums.would_overflow(values)
        {
            *self = Avg::Means(sums.means());
        }
        match self {
            Avg::Sums(sums) => sums.add(values),
            Avg::Means(means) => {
                for (mean, value) in means.iter_mut().zip(values) {
                    if !is_absent(*value) {
                        mean.add(*value);
                    }
                }
            }
        }
    }

    fn merge(&mut self, later: Avg) {
        if let (Avg::Sums(sums), Avg::Sums(more)) = (&mut *self, &later)
            && !sums.would_overflow(&more.sum)
        {
            sums.merge(more);
            return;
        }
        let mut means = match std::mem::replace(self, Avg::Means(Vec::new())) {
            Avg::Sums(sums) => sums.means(),
            Avg::Means(means) => means,
        };
        let more = match later {
            Avg::Sums(sums) => sums.means(),
            Avg::Means(means) => means,
        };
        for (mean, more) in means.iter_mut().zip(more) {
            mean.merge(more);
        }
        *self = Avg::Means(means);
    }

    fn finish(self) -> Vec<f64> {
        match self {
            Avg::Sums(sums) => (0..sums.sum.len())
                .map(|i| match sums.count[i] {
                    0 => ABSENT,
                    count => {
                        let count = f64::from(count);
                        sums.sum[i] / count + sums.correction[i] / count
                    }
                })
                .collect(),
            Avg::Means(means) => means
                .into_iter()
                .map(|mean| {
                    if mean.count() == 0.0 {
                        ABSENT
                    } else {
                        mean.value()
                    }
                })
                .collect(),
        }
    }
}

impl Sums {
    fn means(&self) -> Vec<Mean> {
        (0..self.sum.len())
            .map(|i| Mean::of_sum(self.at(i), f64::from(self.count[i])))
            .collect()
    }
}

impl Moments {
    fn new(steps: usize) -> Moments {
        Moments {
            count: vec![0.0; steps],
            mean: vec![0.0; steps],
            m2: vec![0.0; steps],
        }
    }

    fn add(&mut self, values: &[f64]) {
        let state = self.count.iter_mut().zip(&mut self.mean).zip(&mut self.m2);
        for (((count, mean), m2), value) in state.zip(values) {
            let absent = is_absent(*value);
            let new_count = *count + 1.0;
            let delta = value - *mean;
            let new_mean = *mean + delta / new_count;
            let new_m2 = *m2 + delta * (value - new_mean);
            *count = if absent { *count } else { new_count };
            *mean = if absent { *mean } else { new_mean };
            *m2 = if absent { *m2 } else { new_m2 };
        }
    }

    /// Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances".
    fn merge(&mut self, later: &Moments) {
        for i in 0..self.count.len() {
            let (here, there) = (self.count[i], later.count[i]);
            if there == 0.0 {
                continue;
            }
            let count = here + there;
            let delta = later.mean[i] - self.mean[i];
            self.mean[i] += delta * (there / count);
            self.m2[i] += later.m2[i] + delta * delta * (here * there / count);
            self.count[i] = count;
        }
    }

    fn finish(self, deviation: bool) -> Vec<f64> {
        self.count
            .iter()
            .zip(&self.m2)
            .map(|(count, m2)| match (*count == 0.0, deviation) {
                (true, _) => ABSENT,
                (false, true) => (m2 / count).sqrt(),
                (false, false) => m2 / count,
            })
            .collect()
    }
}

fn quantiles(columns: &[f64], parameter: &[f64]) -> Vec<f64> {
    let steps = parameter.len();
    let mut values = Vec::with_capacity(columns.len().checked_div(steps).unwrap_or(0));
    (0..steps)
        .map(|step| {
            values.clear();
            values.extend(
                columns[step..]
                    .iter()
                    .step_by(steps)
                    .filter(|v| !is_absent(**v)),
            );
            if values.is_empty() {
                ABSENT
            } else {
                quantile::quantile(parameter[step], &mut values)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
