//! Aggregations of native histograms, beside the columns of floats: what they add to a group, by step.
//!
//! Sums and means are sums and means of histograms; `count` and `group` count them; the others pass over them with an info. A step at which a
//! group has floats and histograms has no sum and no mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::FloatHistogram;

use crate::aggregate::AggregateOp;
use crate::functions::native::ResetsSeen;
use crate::histogram::mean::Means;
use crate::histogram::sum::Sums;
use crate::value::{ABSENT, Column, Histograms, is_absent};

/// The histograms of one group so far.
#[derive(Debug)]
pub(crate) struct NativePartial {
    op: AggregateOp,
    steps: BTreeMap<u32, Step>,
    remarks: Remarks,
}

/// What is to be said about a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Remarks {
    /// Floats and histograms met.
    pub(crate) mixed: bool,
    /// Exponential histograms and ones with custom bounds met.
    pub(crate) incompatible: bool,
    /// One says that it follows a reset, another that it does not.
    pub(crate) conflicting_resets: bool,
    /// Custom bounds differed.
    pub(crate) reconciled: bool,
    /// The operator knows no histograms.
    pub(crate) ignored: bool,
}

impl Remarks {
    /// Adds those of another group.
    pub(crate) fn merge(&mut self, other: Remarks) {
        self.mixed |= other.mixed;
        self.incompatible |= other.incompatible;
        self.conflicting_resets |= other.conflicting_resets;
        self.reconciled |= other.reconciled;
        self.ignored |= other.ignored;
    }
}

#[derive(Debug)]
struct Step {
    count: u32,
    seen: ResetsSeen,
    total: Total,
}

#[derive(Debug)]
enum Total {
    Sum(Box<Sums>),
    Mean(Box<Means>),
    /// Of histograms that do not go together; nothing comes of them.
    Incompatible,
    /// Only counted.
    None,
}

impl NativePartial {
    /// Nothing yet.
    pub(crate) fn new(op: AggregateOp) -> NativePartial {
        NativePartial {
            op,
            steps: BTreeMap::new(),
            remarks: Remarks::default(),
        }
    }

    /// Adds the histograms of one series.
    pub(crate) fn add(&mut self, histograms: &Histograms) {
        let op = self.op;
        let counted = matches!(
            op,
            AggregateOp::Sum | AggregateOp::Avg | AggregateOp::Count | AggregateOp::Group
        );
        if !counted {
            self.remarks.ignored |= !histograms.is_empty();
            return;
        }
        for (step, histogram) in histograms {
            self.put(*step, Step::of(op, histogram));
        }
    }

    /// Adds what the next partition has contributed.
    pub(crate) fn merge(&mut self, later: NativePartial) {
        assert_eq!(self.op, later.op);
        self.remarks.merge(later.remarks);
        for (step, more) in later.steps {
            self.put(step, more);
        }
    }

    fn put(&mut self, step: u32, more: Step) {
        match self.steps.get_mut(&step) {
            Some(at) => at.merge(more, &mut self.remarks),
            None => {
                self.steps.insert(step, more);
            }
        }
    }

    /// Adds the results to `column`, which has those of the floats.
    pub(crate) fn finish(self, column: &mut Column) -> Remarks {
        let mut remarks = self.remarks;
        for (step, at) in self.steps {
            let value = &mut column.values[step as usize];
            if matches!(self.op, AggregateOp::Count) {
                let floats = if is_absent(*value) { 0.0 } else { *value };
                *value = floats + f64::from(at.count);
                continue;
            }
            if matches!(self.op, AggregateOp::Group) {
                *value = 1.0;
                continue;
            }
            if !is_absent(*value) {
                *value = ABSENT;
                remarks.mixed = true;
                continue;
            }
            let histogram = match at.total {
                Total::Sum(sums) => sums.value(),
                Total::Mean(means) => means.value(),
                Total::Incompatible | Total::None => continue,
            };
            remarks.conflicting_resets |= at.seen.collide();
            column.histograms.push((step, Arc::new(histogram)));
        }
        remarks
    }
}

impl Step {
    fn of(op: AggregateOp, histogram: &FloatHistogram) -> Step {
        let mut seen = ResetsSeen::default();
        seen.add(histogram);
        Step {
            count: 1,
            seen,
            total: match op {
                AggregateOp::Sum => Total::Sum(Box::new(Sums::new(histogram))),
                AggregateOp::Avg => Total::Mean(Box::new(Means::new(histogram))),
                _ => Total::None,
            },
        }
    }

    fn merge(&mut self, more: Step, remarks: &mut Remarks) {
        self.count = self.count.saturating_add(more.count);
        self.seen.merge(more.seen);
        let merged = match (&mut self.total, more.total) {
            (Total::Sum(sums), Total::Sum(more)) => sums.merge(*more),
            (Total::Mean(means), Total::Mean(more)) => means.merge(*more),
            (Total::None, Total::None) => return,
            (total, _) => {
                *total = Total::Incompatible;
                return;
            }
        };
        match merged {
            Ok(notice) => remarks.reconciled |= notice.reconciled_bounds,
            Err(_) => {
                remarks.incompatible = true;
                self.total = Total::Incompatible;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: f64, schema: i32) -> Arc<FloatHistogram> {
        Arc::new(FloatHistogram {
            schema,
            count,
            sum: count,
            ..FloatHistogram::default()
        })
    }

    /// The result of series with one step each, in two partitions.
    fn result(op: AggregateOp, series: &[Arc<FloatHistogram>], cut: usize) -> (Column, Remarks) {
        let part = |series: &[Arc<FloatHistogram>]| {
            let mut partial = NativePartial::new(op);
            for one in series {
                partial.add(&vec![(0, Arc::clone(one))]);
            }
            partial
        };
        let mut partial = part(&series[..cut]);
        partial.merge(part(&series[cut..]));
        let mut column = Column {
            values: vec![ABSENT],
            histograms: Vec::new(),
        };
        let remarks = partial.finish(&mut column);
        (column, remarks)
    }

    #[test]
    fn partitions_do_not_change_a_result() {
        let series: Vec<_> = (1..=5).map(|n| of(f64::from(n), n % 2)).collect();
        for cut in 0..=5 {
            let (sum, remarks) = result(AggregateOp::Sum, &series, cut);
            assert_eq!(
                (sum.histograms[0].1.count, sum.histograms[0].1.schema),
                (15.0, 0)
            );
            assert_eq!(remarks, Remarks::default());
            let (mean, _) = result(AggregateOp::Avg, &series, cut);
            assert_eq!(mean.histograms[0].1.count, 3.0);
            assert_eq!(result(AggregateOp::Count, &series, cut).0.values, [5.0]);
            assert_eq!(result(AggregateOp::Group, &series, cut).0.values, [1.0]);
            let (max, remarks) = result(AggregateOp::Max, &series, cut);
            assert!(is_absent(max.values[0]) && max.histograms.is_empty() && remarks.ignored);
        }
    }

    #[test]
    fn histograms_of_two_kinds_have_no_sum_whatever_comes_after() {
        let mut series = vec![of(1.0, 0), of(2.0, model::CUSTOM_BUCKETS_SCHEMA)];
        series.extend([of(3.0, 0), of(4.0, 0)]);
        for cut in 0..=4 {
            let (sum, remarks) = result(AggregateOp::Sum, &series, cut);
            assert!(
                sum.histograms.is_empty() && remarks.incompatible,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn floats_and_histograms_have_a_count_but_no_sum() {
        for (op, expected) in [(AggregateOp::Count, 8.0), (AggregateOp::Sum, ABSENT)] {
            let mut partial = NativePartial::new(op);
            partial.add(&vec![(0, of(1.0, 0))]);
            let mut column = Column {
                values: vec![7.0],
                histograms: Vec::new(),
            };
            let remarks = partial.finish(&mut column);
            assert_eq!(column.values[0].to_bits(), expected.to_bits());
            assert_eq!(
                (column.histograms.len(), remarks.mixed),
                (0, op == AggregateOp::Sum)
            );
        }
    }
}
