//! Aggregation over columns: partial results per partition of series, merged in a fixed order.
//!
//! 1. [`check_parameter`] looks at the parameter of `topk`, `quantile` and the like once.
//! 2. The evaluator gives every series a group, once for all steps.
//! 3. It folds each series' column into the group's [`Partial`] on whatever worker evaluates that series, merges the partials in
//!    the order of the partitions (so a result never depends on timing) and finishes them.
//! 4. Operators that keep series go through [`select`], or through a [`Best`] per partition where not all columns shall be kept;
//!    [`count_values`] makes its own series.

mod count_values;
mod hash;
mod native;
mod partial;
mod select;

pub(crate) use count_values::count_values;
pub(crate) use native::{NativePartial, Remarks};
pub(crate) use partial::Partial;
pub(crate) use select::{Best, check_parameter, select};

/// The aggregation operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    /// Mean.
    Avg,
    /// The k smallest, as they are.
    Bottomk,
    /// Number of samples.
    Count,
    /// Number of samples by value, the value in a label.
    CountValues,
    /// 1 where there is a sample.
    Group,
    /// Any k, the same every time.
    Limitk,
    /// A fraction of the series, the same every time.
    LimitRatio,
    /// Largest.
    Max,
    /// Smallest.
    Min,
    /// Quantile.
    Quantile,
    /// Standard deviation of the population.
    Stddev,
    /// Variance of the population.
    Stdvar,
    /// Sum, compensated.
    Sum,
    /// The k largest, as they are.
    Topk,
}

impl AggregateOp {
    /// All of them, by name.
    pub const ALL: [AggregateOp; 14] = [
        AggregateOp::Avg,
        AggregateOp::Bottomk,
        AggregateOp::Count,
        AggregateOp::CountValues,
        AggregateOp::Group,
        AggregateOp::Limitk,
        AggregateOp::LimitRatio,
        AggregateOp::Max,
        AggregateOp::Min,
        AggregateOp::Quantile,
        AggregateOp::Stddev,
        AggregateOp::Stdvar,
        AggregateOp::Sum,
        AggregateOp::Topk,
    ];

    /// As written in a query.
    pub fn name(self) -> &'static str {
        match self {
            AggregateOp::Avg => "avg",
            AggregateOp::Bottomk => "bottomk",
            AggregateOp::Count => "count",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Group => "group",
            AggregateOp::Limitk => "limitk",
            AggregateOp::LimitRatio => "limit_ratio",
            AggregateOp::Max => "max",
            AggregateOp::Min => "min",
            AggregateOp::Quantile => "quantile",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Sum => "sum",
            AggregateOp::Topk => "topk",
        }
    }

    /// Finds an operator by its name, in any case.
    pub fn by_name(name: &str) -> Option<AggregateOp> {
        AggregateOp::ALL
            .into_iter()
            .find(|op| op.name().eq_ignore_ascii_case(name))
    }

    /// Takes a parameter before the vector.
    pub fn has_parameter(self) -> bool {
        matches!(
            self,
            AggregateOp::Bottomk
                | AggregateOp::CountValues
                | AggregateOp::Limitk
                | AggregateOp::LimitRatio
                | AggregateOp::Quantile
                | AggregateOp::Topk
        )
    }

    /// Folds the series of a group into one, of which nothing but their values matters.
    pub fn folds(self) -> bool {
        !self.keeps_series() && self != AggregateOp::CountValues
    }

    /// Gives a subset of its input series, unchanged, in place of one series per group.
    pub fn keeps_series(self) -> bool {
        matches!(
            self,
            AggregateOp::Bottomk
                | AggregateOp::Limitk
                | AggregateOp::LimitRatio
                | AggregateOp::Topk
        )
    }
}
