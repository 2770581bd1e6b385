//! Evaluation: the plan over data, columns at a time.
//!
//! 1. [`Evaluator::eval`] walks the plan. Whatever happens to each series for itself (selecting, windows, element functions, signs,
//!    arithmetic with a scalar) is gathered into one *row program* and run over the series in pieces, in parallel
//!    (`rows`): decode once, one column over all steps, done.
//! 2. An aggregation folds the columns of a row program into partials within the pieces, so they are never kept (`aggregation`).
//! 3. Two vectors are matched by tables built once per pair of sides (`matching`, `sets`), then evaluated column by column.
//! 4. `result` drops names that are to go, joins or refuses series that became equal, sorts, and makes the answer.
//!
//! Every point is charged to `budget` while it is held, as Prometheus counts it. Pieces depend on the series only, so the
//! result does not depend on how many threads there are.
//!
//! Where the plan allows it ([`Plan::shard_labels`]) and it is worth it, all of this is done for disjoint sets of series side by side
//! (`shards`). That gives the same bits: what is folded together, and where it is cut, depends on the series of a group alone (and
//! on the places that they have among all that were fetched), not on what else is evaluated with them.

mod aggregation;
mod binary;
mod budget;
mod info;
mod matching;
mod native;
mod numbering;
mod profile;
mod result;
mod rows;
mod select;
mod sets;
mod shards;

use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

pub(crate) use binary::scalar_operation;
pub use budget::{Budget, GRANT_BYTES, Shards, Stats};
pub use profile::{NodeCost, Profile, SelectorCost};

use self::budget::{Mark, Meter};
use self::rows::Scalars;
use self::shards::Places;
use crate::annotations::{Annotations, Notes};
use crate::error::Error;
use crate::expr::Span;
use crate::functions::{Call, EngineFunction, Kind};
use crate::plan::{CallNode, Node, NodeKind, Plan, RangeInput};
use crate::source::{Executor, Source};
use crate::value::{ABSENT, Steps, Value, ValueType, VectorSeries};

/// What a query gave.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// The answer.
    pub value: model::QueryValue,
    /// What may be wrong with it, worded as in Prometheus.
    pub warnings: Vec<String>,
    /// What its author should know.
    pub infos: Vec<String>,
    /// What it cost.
    pub stats: Stats,
    /// Samples looked at by step, where [`Budget::per_step`] asked for it.
    pub per_step: Vec<u64>,
    /// In how many shards it was evaluated; 1 where it was not divided.
    pub shards: usize,
}

/// Evaluates a plan.
///
/// Errors: bounds ([`Error::TooManySamples`], [`Error::Timeout`], [`Error::Canceled`]), data that does not fit the query
/// ([`Error::Execution`], in Prometheus' words) and data that cannot be read. Cost: every selected series is decoded once per
/// selector and piece of the query that is not repeated.
pub fn evaluate(
    plan: &Plan,
    source: &dyn Source,
    executor: &dyn Executor,
    budget: &Budget<'_>,
) -> Result<Evaluated, Error> {
    let mut meter = Meter::new(budget, plan.steps.count);
    meter.check()?;
    if let Some(division) = shards::divide(plan, source, executor, budget) {
        match shards::evaluate(plan, source, executor, &meter, &division) {
            // What a shard fails with may be no failure of all, or a different one. It is rare.
            Err(error) if !matches!(error, Error::Canceled | Error::Timeout) => {
                meter = meter.again();
            }
            evaluated => return evaluated,
        }
    }
    let evaluator = Evaluator::new(plan, source, executor, meter, None);
    let value = result::evaluate(&evaluator)?;
    let (meter, annotations) = evaluator.into_parts();
    Ok(Evaluated {
        value,
        warnings: annotations.warnings(),
        infos: annotations.infos(),
        stats: meter.stats(),
        per_step: meter.per_step(),
        shards: 1,
    })
}

/// Fewer series than this are one piece.
const PIECE_MIN: usize = 64;
/// More pieces than this only cost merging.
const PIECES_MAX: usize = 64;

pub(crate) struct Evaluator<'a> {
    plan: &'a Plan,
    source: &'a dyn Source,
    executor: &'a dyn Executor,
    meter: Meter<'a>,
    /// Samples looked at count for the statistics; not within subqueries, whose results are counted instead.
    counting: bool,
    annotations: Mutex<Annotations>,
    /// The places of its series among all, where it evaluates a shard of them.
    places: Option<&'a Places>,
}

impl<'a> Evaluator<'a> {
    fn new(
        plan: &'a Plan,
        source: &'a dyn Source,
        executor: &'a dyn Executor,
        meter: Meter<'a>,
        places: Option<&'a Places>,
    ) -> Evaluator<'a> {
        Evaluator {
            plan,
            source,
            executor,
            meter,
            counting: true,
            annotations: Mutex::default(),
            places,
        }
    }

    fn into_parts(self) -> (Meter<'a>, Annotations) {
        let annotations = self.annotations.into_inner();
        (
            self.meter,
            annotations.unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl Evaluator<'_> {
    /// The value of a node that is no range, at all steps.
    pub(crate) fn eval(&self, node: &Node, steps: Steps) -> Result<Value, Error> {
        self.meter.check()?;
        let Some(profile) = self.meter.profile() else {
            return self.eval_steps(node, steps);
        };
        let begun = profile.now();
        let value = self.eval_steps(node, steps)?;
        profile.note_node(node.span, begun, &value);
        Ok(value)
    }

    fn eval_steps(&self, node: &Node, steps: Steps) -> Result<Value, Error> {
        if node.once && steps.count > 1 {
            let looked = self.meter.looked();
            let value = self.eval_here(node, Steps::instant(steps.start))?;
            self.meter.repeated(looked, steps.count);
            return self.repeat(value, steps.count);
        }
        self.eval_here(node, steps)
    }

    fn eval_here(&self, node: &Node, steps: Steps) -> Result<Value, Error> {
        match &node.kind {
            NodeKind::Number(value) => Ok(Value::Scalar(vec![*value; steps.count])),
            NodeKind::Text(text) => Ok(Value::String(text.clone())),
            NodeKind::Binary(_) => self.binary_chain(node, steps),
            NodeKind::Instant(_) => self.rows(node, steps),
            NodeKind::Negate(inner) => match self.scalar_type(inner) {
                true => {
                    let mut column = self.scalar_column(inner, steps)?;
                    column.iter_mut().for_each(|v| *v = -*v);
                    Ok(Value::Scalar(column))
                }
                false => self.rows(node, steps),
            },
            NodeKind::Aggregate(aggregate) => self.aggregate(node, aggregate, steps),
            NodeKind::Call(call) => match &call.function.kind {
                Kind::Range(_) | Kind::Map(_) | Kind::Engine(EngineFunction::Timestamp) => {
                    self.rows(node, steps)
                }
                Kind::Columns(function) => {
                    if call.function.name.starts_with("sort") && !self.plan.params.is_instant() {
                        self.warn(
                            node.span,
                            "sort is ineffective for range queries since results are always ordered by labels",
                        );
                    }
                    self.columns(call, *function, steps)
                }
                Kind::Engine(EngineFunction::AbsentOverTime) => {
                    self.absent_over_time(node, call, steps)
                }
                Kind::Engine(EngineFunction::Info) => self.info(call, steps),
                // `start()` and the like became numbers in the plan.
                Kind::Engine(_) => unreachable!("constants of the plan are folded"),
            },
            NodeKind::Range(_) => Err(Error::execution(
                "a range vector can only be the argument of a function",
            )),
        }
    }

    fn scalar_type(&self, node: &Node) -> bool {
        crate::plan::node_type(node) == ValueType::Scalar
    }

    /// The same value at every step.
    fn repeat(&self, value: Value, count: usize) -> Result<Value, Error> {
        Ok(match value {
            Value::Scalar(column) => Value::Scalar(vec![column[0]; count]),
            Value::Vector(mut series) => {
                for one in &mut series {
                    let value = one.values[0];
                    self.meter.charge(one.points() * (count - 1) as u64)?;
                    self.meter.charge_cells(count - 1)?;
                    one.values = vec![value; count];
                    if let Some((_, histogram)) = one.histograms.pop() {
                        let shared = (0..count as u32).map(|step| (step, Arc::clone(&histogram)));
                        one.histograms = shared.collect();
                    }
                }
                Value::Vector(series)
            }
            text => text,
        })
    }

    /// A scalar node at all steps.
    pub(crate) fn scalar_column(&self, node: &Node, steps: Steps) -> Result<Vec<f64>, Error> {
        match self.eval(node, steps)? {
            Value::Scalar(column) => Ok(column),
            _ => Err(Error::execution("expected a scalar")),
        }
    }

    /// A scalar node, kept as one number where it is one.
    fn scalars(&self, node: &Node, steps: Steps) -> Result<Scalars, Error> {
        match &node.kind {
            NodeKind::Number(value) => Ok(Scalars::One(*value)),
            _ => Ok(Scalars::Many(self.scalar_column(node, steps)?)),
        }
    }

    /// A vector node at all steps.
    pub(crate) fn vector(&self, node: &Node, steps: Steps) -> Result<Vec<VectorSeries>, Error> {
        match self.eval(node, steps)? {
            Value::Vector(series) => Ok(series),
            _ => Err(Error::execution("expected an instant vector")),
        }
    }

    fn columns(
        &self,
        call: &CallNode,
        function: crate::functions::ColumnsFn,
        steps: Steps,
    ) -> Result<Value, Error> {
        let mark = self.meter.mark();
        let args = call
            .args
            .iter()
            .map(|arg| self.eval(arg, steps))
            .collect::<Result<Vec<_>, _>>()?;
        let mut annotations = Annotations::default();
        let value = function(Call {
            function: call.function,
            steps,
            args,
            exprs: &call.exprs,
            instant: self.plan.params.is_instant(),
            notes: &mut self.notes(&mut annotations, &call.spans, ""),
        })?;
        self.keep(annotations);
        self.settle(mark, &value)?;
        Ok(value)
    }

    fn absent_over_time(&self, node: &Node, call: &CallNode, steps: Steps) -> Result<Value, Error> {
        let mark = self.meter.mark();
        let Value::Vector(series) = self.rows(node, steps)? else {
            return Err(Error::execution("expected an instant vector"));
        };
        let mut present = vec![false; steps.count];
        for one in &series {
            one.mark_present(&mut present);
        }
        let values: Vec<f64> = present
            .iter()
            .map(|seen| if *seen { ABSENT } else { 1.0 })
            .collect();
        let labels = crate::functions::labels::absent_labels(&call.exprs[0]);
        let value = Value::Vector(vec![VectorSeries::new(labels, false, values)]);
        self.settle(mark, &value)?;
        Ok(value)
    }

    /// Whatever was held since `mark` is gone but for `value`.
    fn settle(&self, mark: Mark, value: &Value) -> Result<(), Error> {
        let (points, cells) = match value {
            Value::Vector(series) => (
                points(series),
                series.iter().map(|one| one.values.len()).sum(),
            ),
            _ => (0, 0),
        };
        self.meter.settle(mark, points, cells)
    }

    fn notes<'n>(
        &'n self,
        annotations: &'n mut Annotations,
        spans: &'n [Span],
        metric: &'n str,
    ) -> Notes<'n> {
        Notes {
            annotations,
            text: &self.plan.text,
            args: spans,
            metric,
        }
    }

    fn warn(&self, span: Span, text: &str) {
        let mut annotations = Annotations::default();
        self.notes(&mut annotations, &[span], "").warn(0, text);
        self.keep(annotations);
    }

    fn inform(&self, span: Span, text: &str) {
        let mut annotations = Annotations::default();
        self.notes(&mut annotations, &[span], "").info(0, text);
        self.keep(annotations);
    }

    fn keep(&self, annotations: Annotations) {
        self.annotations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .merge(annotations);
    }

    /// The inner steps of a subquery and its evaluator, which does not count samples.
    fn subquery(
        &self,
        range: &crate::plan::RangeNode,
        steps: Steps,
    ) -> Result<Option<(Vec<VectorSeries>, Steps)>, Error> {
        let RangeInput::Sub { inner, step_ms } = &range.input else {
            return Ok(None);
        };
        if steps.count == 0 {
            return Ok(Some((Vec::new(), steps)));
        }
        let inner_steps = crate::plan::subquery_steps(
            range.moment.of(steps.start),
            range.moment.of(steps.time(steps.count - 1)),
            range.range_ms,
            *step_ms,
        );
        self.meter.check_steps(inner_steps.count)?;
        if inner_steps.count == 0 {
            return Ok(Some((Vec::new(), inner_steps)));
        }
        let within = Evaluator {
            counting: false,
            ..Evaluator::new(
                self.plan,
                self.source,
                self.executor,
                self.meter.share(),
                self.places,
            )
        };
        let series = within.vector(inner, inner_steps)?;
        self.keep(within.into_parts().1);
        Ok(Some((series, inner_steps)))
    }

    /// Runs `piece` for each of `pieces` and returns the results in their order.
    pub(crate) fn pieces<P: Sync, T: Send>(
        &self,
        pieces: &[P],
        piece: impl Fn(&P) -> Result<T, Error> + Sync,
    ) -> Result<Vec<T>, Error> {
        if let [one] = pieces {
            return Ok(vec![piece(one)?]);
        }
        let slots = Slots::new(pieces.len());
        self.executor.run(pieces.len(), &|index| {
            slots.put(index, piece(&pieces[index]))
        });
        slots.into_results().collect()
    }
}

/// Places for the results of pieces that run in any order.
struct Slots<T>(Vec<Mutex<Option<T>>>);

impl<T> Slots<T> {
    fn new(count: usize) -> Slots<T> {
        Slots((0..count).map(|_| Mutex::new(None)).collect())
    }

    fn put(&self, index: usize, result: T) {
        *self.0[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }

    /// In order. Panics where one was not put.
    fn into_results(self) -> impl Iterator<Item = T> {
        self.0.into_iter().map(|slot| {
            slot.into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .expect("the executor ran every piece")
        })
    }
}

/// So many series are one piece, where there are `count`.
fn piece_size(count: usize) -> usize {
    PIECE_MIN.max(count.div_ceil(PIECES_MAX))
}

/// Ranges that together are `0..count`; one that is empty for 0.
fn cut(count: usize) -> Vec<Range<usize>> {
    let size = piece_size(count);
    let pieces = count.div_ceil(size).max(1);
    let range = |piece: usize| piece * size..count.min((piece + 1) * size);
    (0..pieces).map(range).collect()
}

/// Samples in a vector.
pub(crate) fn points(series: &[VectorSeries]) -> u64 {
    series.iter().map(VectorSeries::points).sum()
}

/// Removes series without any sample.
pub(crate) fn without_empty(mut series: Vec<VectorSeries>) -> Vec<VectorSeries> {
    series.retain(|one| !one.is_empty());
    series
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
