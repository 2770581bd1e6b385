//! The function table: what each function takes, gives and how it is run.
//!
//! The evaluator knows four shapes and no names. A *range* function gets one window of raw samples per step; a *map* function one
//! value; a *columns* function whole columns of all its arguments; and a few are run by the evaluator itself because they need
//! what only it has (sample times, the selector's text, other series). Everything here is pure.

pub(crate) mod buckets;
mod classic;
pub(crate) mod date;
pub(crate) mod kahan;
pub(crate) mod labels;
mod math;
pub(crate) mod native;
mod natural;
mod over_time;
pub(crate) mod quantile;
mod rate;
mod regression;
mod scalars;
mod slide;
mod table;
#[cfg(test)]
mod testing;

pub(crate) use table::lookup;

use crate::annotations::Notes;
use crate::expr::Expr;
use crate::value::{Steps, Value, ValueType};

/// A function of the language.
#[derive(Debug)]
pub struct Function {
    /// As written in a query.
    pub name: &'static str,
    /// Types of the arguments; with `variadic != 0` the last one may repeat or be missing.
    pub args: &'static [ValueType],
    /// As in Prometheus: 0 takes exactly `args`; n > 0 takes `args.len() - 1` to `args.len() - 1 + n`; -1 takes `args.len() - 1` or more.
    pub variadic: i8,
    /// Type of the result.
    pub returns: ValueType,
    /// Marked experimental in Prometheus (on by default here).
    pub experimental: bool,
    /// How it is run.
    pub kind: Kind,
}

/// How a function is run.
#[derive(Debug)]
pub enum Kind {
    /// Once per series and step over the samples of a window. Exactly one argument is a range vector; the others are scalars.
    Range(RangeFunction),
    /// Once per sample. The first argument is an instant vector; the others are scalars.
    Map(MapFn),
    /// Once per evaluation over all columns.
    Columns(ColumnsFn),
    /// By the evaluator.
    Engine(EngineFunction),
}

/// A function of a range vector.
#[derive(Debug)]
pub struct RangeFunction {
    /// The computation.
    pub eval: RangeFn,
    /// The metric's name stays (`last_over_time`, `first_over_time`).
    pub keeps_name: bool,
    /// Expects a counter: a metric whose name does not say so is worth an info.
    pub counter: bool,
    /// May be used with `anchored` selectors.
    pub anchored: bool,
    /// May be used with `smoothed` selectors.
    pub smoothed: bool,
    /// The same for all windows of a column at once, where that is cheaper. Only for [`Edges::Plain`].
    pub(crate) column: Option<ColumnFn>,
    /// Refuses scalar arguments; the evaluator asks at every step that has a window, and the text becomes an execution error.
    pub check: Option<CheckFn>,
}

/// `(grid, values, out)`: pushes one value or ABSENT per window of the grid.
pub(crate) type ColumnFn = fn(&mut Grid, &[f64], &mut Vec<f64>);

/// The times of the samples of a series, and its window at every step. Series that were scraped together have the same times, so a
/// grid, and all that follows from times alone, is kept from one series to the next.
#[derive(Debug, Default)]
pub(crate) struct Grid {
    /// Of the samples, ascending; milliseconds.
    pub(crate) times: Vec<i64>,
    /// One window per step; neither starts nor ends before the one before.
    pub(crate) windows: Vec<Bounds>,
    /// Samples in all windows together.
    pub(crate) total: u64,
    /// Samples in the longest.
    pub(crate) widest: u64,
    /// For `rate` and its like: of each window; empty as long as nobody asked.
    extrapolations: Vec<rate::Extrapolation>,
}

impl Grid {
    /// Of samples at these times, with these windows.
    pub(crate) fn set(&mut self, times: &[i64], windows: impl Iterator<Item = Bounds>) {
        self.times.clear();
        self.times.extend_from_slice(times);
        self.windows.clear();
        self.windows.extend(windows);
        self.extrapolations.clear();
        let lengths = self.windows.iter().map(|w| (w.high - w.low) as u64);
        self.total = lengths.clone().sum();
        self.widest = lengths.max().unwrap_or(0);
    }
}

/// One window: samples `low..high` of a column, for the range `(start, end]` in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// First sample.
    pub(crate) low: usize,
    /// Sample after the last.
    pub(crate) high: usize,
    /// Left, open end of the range.
    pub(crate) start: i64,
    /// Right, closed end of the range.
    pub(crate) end: i64,
}

/// `(scalar arguments at a step) -> why they are refused`.
pub(crate) type CheckFn = fn(&[f64]) -> Result<(), String>;

/// `(window, scalar arguments at this step, notes) -> value or ABSENT`. Called with at least one sample in the window.
pub(crate) type RangeFn = fn(&Window<'_>, &[f64], &mut Notes<'_>) -> f64;

/// `(sample, scalar arguments at this step, notes) -> value or ABSENT`. Never called with an absent sample.
pub(crate) type MapFn = fn(f64, &[f64], &mut Notes<'_>) -> f64;

/// Whole columns in, whole columns out.
pub(crate) type ColumnsFn = fn(Call<'_>) -> Result<Value, crate::Error>;

/// The arguments of a columns function.
pub struct Call<'a> {
    /// The function's own entry, for functions that share code.
    pub function: &'static Function,
    /// When.
    pub steps: Steps,
    /// Evaluated arguments, in order.
    pub args: Vec<Value>,
    /// The arguments as written (`absent` takes labels from a selector).
    pub exprs: &'a [Expr],
    /// The query is an instant query, so the order of series counts (`sort`).
    pub instant: bool,
    /// Warnings and infos; positions are given by the expression.
    pub notes: &'a mut Notes<'a>,
}

/// What the evaluator runs itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineFunction {
    /// `timestamp`: of a selector the times of the raw samples.
    Timestamp,
    /// `absent_over_time`: `absent` over "has a sample in the window".
    AbsentOverTime,
    /// `info`: joins with info metrics that its plan fetches.
    Info,
    /// `start`: the query's first time, in seconds. Like the next three a constant of the plan.
    Start,
    /// `end`: the query's last time.
    End,
    /// `step`: the query's resolution.
    Step,
    /// `range`: from `start` to `end`.
    Range,
}

/// How samples outside of the range are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Edges {
    /// Not at all.
    #[default]
    Plain,
    /// `anchored`: the last sample at or before the start (within the lookback) belongs to the window.
    Anchored,
    /// `smoothed`: one sample on either side (within the lookback) is there to interpolate with.
    Smoothed,
}

/// The floats of one series that a range selector takes at one step.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Milliseconds, ascending. With [`Edges::Plain`] all within `(start, end]`. With `Anchored` all samples in
    /// `(start - lookback, end]`, with `Smoothed` all in `(start - lookback, end + lookback]`: the function picks.
    pub times: &'a [i64],
    /// As many values; no staleness marker among them.
    pub values: &'a [f64],
    /// Left, open end of the range, offset applied, milliseconds.
    pub start: i64,
    /// Right, closed end of the range, offset applied, milliseconds.
    pub end: i64,
    /// Time of the step itself (`predict_linear` counts from it), milliseconds.
    pub step_time: i64,
    /// What lies outside of the range.
    pub edges: Edges,
}
