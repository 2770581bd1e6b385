//! The one thing that PromQL asks of the world: the series of the selectors which its plan announced.
//!
//! Synchronous and complete: `query` has fetched everything before evaluation begins and is, but for tests, the only
//! implementor. A series hands out raw samples (staleness markers included) by batch decode into columns; so one decode
//! serves all steps of a query, and it runs on the worker that evaluates the series.
//!
//! A series is a number, not an object: a query can go over a million of them.

use model::{Labels, SeriesId};

/// Raw samples of one series as columns: ascending times, no time twice. Reused from series to series.
#[derive(Debug, Default, Clone)]
pub struct Columns {
    /// Milliseconds.
    pub times: Vec<i64>,
    /// Floats, staleness markers included; where a histogram stands at the same index, unused.
    pub values: Vec<f64>,
    /// Native histograms by index into `times`, ascending; empty for the usual float series.
    pub histograms: Vec<(u32, model::FloatHistogram)>,
}

impl Columns {
    /// Empties the columns and keeps their memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.histograms.clear();
    }
}

/// Data that could not be read. Becomes a 500 that names it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot read series {series}: {reason}")]
pub struct SourceError {
    /// Which series.
    pub series: SeriesId,
    /// What was wrong.
    pub reason: String,
}

/// The fetched series of every selector of a plan, each once. `selector` is an index into [`crate::Plan::selectors`], `series` a
/// number below [`Source::count`].
///
/// Sorted by labels; in any order that stays the same where the selector does not want all labels ([`crate::Selector::projection`]).
pub trait Source: Send + Sync {
    /// How many series the selector has.
    fn count(&self, selector: usize) -> usize;
    /// The labels of a series that the selector wants.
    fn labels(&self, selector: usize, series: usize) -> &Labels;
    /// Replaces the content of `out` by the samples with `min <= time <= max` (milliseconds, inclusive). Where the selector wants the
    /// newest sample alone ([`crate::Selector::newest`]), older ones may be missing; where windows are told ([`crate::Selector::windows`]), those outside of them.
    fn decode(
        &self,
        selector: usize,
        series: usize,
        min: i64,
        max: i64,
        out: &mut Columns,
    ) -> Result<(), SourceError>;
}

/// Runs independent pieces of an evaluation side by side; `query` gives its worker pool, tests a plain loop.
pub trait Executor: Sync {
    /// How many pieces are worth making.
    fn width(&self) -> usize;
    /// Calls `piece(0)` .. `piece(count - 1)`, in any order and on any thread, and returns when all are done. A panic of a piece
    /// is passed on to the caller.
    fn run(&self, count: usize, piece: &(dyn Fn(usize) + Sync));
    /// As [`Executor::run`], for a few large pieces, the shards of a query, each of which runs pieces of its own on the executor that it is
    /// given. Where nobody is free to help the calling thread does all of them, one after another.
    fn run_shards(&self, count: usize, shard: &Shard<'_>);
}

/// `(number, executor of its pieces)`.
pub type Shard<'s> = dyn Fn(usize, &dyn Executor) + Sync + 's;

/// Everything on the calling thread.
#[derive(Debug, Default, Clone, Copy)]
pub struct Inline;

impl Executor for Inline {
    fn width(&self) -> usize {
        1
    }

    fn run(&self, count: usize, piece: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(piece);
    }

    fn run_shards(&self, count: usize, shard: &Shard<'_>) {
        (0..count).for_each(|n| shard(n, self));
    }
}
