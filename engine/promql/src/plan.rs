//! A query made ready: times resolved, constants folded, selectors listed.
//!
//! The plan knows everything that does not depend on data. For each selector it says which raw samples can be needed at all
//! ([`Selector::min_time`] to [`Selector::max_time`], lookback, ranges, subqueries, `offset` and `@` included), so that the caller
//! fetches once. Parts whose value is the same at every step (below an `@`) are marked and evaluated once.
//! All arithmetic on times saturates: an absurd offset selects nothing, it does not wrap.

mod build;
mod duration;
mod explain;
mod sharding;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use model::{Matcher, Projection, Windows};

pub(crate) use build::node_type;
pub use build::plan;
pub use explain::Explained;
pub use sharding::{ShardLabels, Whole};

use crate::aggregate::AggregateOp;
use crate::expr::{BinaryOp, Expr, Grouping, Matching, Span};
use crate::functions::{Edges, Function};
use crate::value::{Steps, ValueType};

/// When and how a query is evaluated. All times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// First time.
    pub start: i64,
    /// Last time; equal to `start` for an instant query.
    pub end: i64,
    /// Distance of the steps; 0 for an instant query.
    pub step: i64,
    /// How old a sample may be and still count (Prometheus: 5 minutes).
    pub lookback_ms: i64,
    /// Step of subqueries that name none (Prometheus: the global evaluation interval, 1 minute).
    pub default_subquery_step_ms: i64,
}

impl Params {
    /// An instant query with Prometheus' defaults.
    pub fn instant(time: i64) -> Params {
        Params {
            start: time,
            end: time,
            step: 0,
            lookback_ms: 300_000,
            default_subquery_step_ms: 60_000,
        }
    }

    /// A range query with Prometheus' defaults.
    pub fn range(start: i64, end: i64, step: i64) -> Params {
        Params {
            start,
            end,
            step,
            ..Params::instant(start)
        }
    }

    /// Whether this is an instant query.
    pub fn is_instant(&self) -> bool {
        self.step == 0
    }
}

/// What has to be fetched for one selector of the query.
#[derive(Debug, Clone)]
pub struct Selector {
    /// All must hold.
    pub matchers: Arc<[Matcher]>,
    /// First time a sample can be of use, inclusive; milliseconds.
    pub min_time: i64,
    /// Last time, inclusive. Below `min_time` where nothing can be of use.
    pub max_time: i64,
    /// The selected range, 0 for an instant selector.
    pub range_ms: i64,
    /// Distance of the steps at which it is looked at, 0 for a single one.
    pub step_ms: i64,
    /// The function around it, or empty.
    pub function: &'static str,
    /// The labels of its series that matter. Not all do where an aggregation keeps a few.
    pub projection: Projection,
    /// Whether of each series only the newest sample at or before `max_time` matters.
    pub newest: bool,
    /// Where steps are so far apart that samples between them are looked at by none: those that are. `None`: all may be.
    pub windows: Option<Windows>,
}

/// A query, planned.
#[derive(Debug)]
pub struct Plan {
    pub(crate) root: Node,
    pub(crate) selectors: Vec<Selector>,
    pub(crate) steps: Steps,
    pub(crate) params: Params,
    pub(crate) result: ValueType,
    pub(crate) text: String,
    /// [`Expr::is_sum_of_parts`], and nothing looks ahead of its step.
    pub(crate) local: bool,
}

impl Plan {
    /// What has to be fetched; [`crate::Source`] is asked by index into this list.
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// Type of the expression. The result of a range query is a matrix whatever it is.
    pub fn result_type(&self) -> ValueType {
        self.result
    }

    /// Whether the value of a range query at each step is that of a query of any part of the range (with the same step), and depends
    /// on samples up to that step only.
    pub fn is_sum_of_parts(&self) -> bool {
        self.local
    }

    /// The times of the query.
    pub fn steps(&self) -> Steps {
        self.steps
    }

    /// The parameters it was made with.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Gives it the text that the expression was parsed from, so that warnings name lines and columns in it.
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Plan {
        self.text = text.to_owned();
        self
    }
}

/// A node of the plan.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    /// Same value at every step: evaluated at the first one only.
    pub(crate) once: bool,
    pub(crate) kind: NodeKind,
}

#[derive(Debug)]
pub(crate) enum NodeKind {
    Number(f64),
    Text(String),
    Instant(Instant),
    /// Only as an argument of a function, or as the root of an instant query.
    Range(RangeNode),
    Call(Box<CallNode>),
    Aggregate(Box<AggregateNode>),
    Binary(Box<BinaryNode>),
    Negate(Box<Node>),
}

/// An instant selector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instant {
    pub(crate) selector: usize,
    pub(crate) moment: Moment,
    pub(crate) edges: Edges,
}

/// A range of raw samples, or of the results of an inner query.
#[derive(Debug)]
pub(crate) struct RangeNode {
    pub(crate) range_ms: i64,
    pub(crate) moment: Moment,
    pub(crate) input: RangeInput,
}

#[derive(Debug)]
pub(crate) enum RangeInput {
    Raw { selector: usize, edges: Edges },
    Sub { inner: Box<Node>, step_ms: i64 },
}

/// A function call.
#[derive(Debug)]
pub(crate) struct CallNode {
    pub(crate) function: &'static Function,
    pub(crate) args: Vec<Node>,
    /// As written, for the functions that look at that.
    pub(crate) exprs: Vec<Expr>,
    pub(crate) spans: Vec<Span>,
    /// For `info`: the selector of the info series.
    pub(crate) info: Option<InfoPlan>,
}

/// What `info` joins with.
#[derive(Debug)]
pub(crate) struct InfoPlan {
    pub(crate) selector: usize,
    /// When the info series are looked at: as the argument's samples are.
    pub(crate) moment: Moment,
    /// Matchers of the metric's name.
    pub(crate) names: Vec<Matcher>,
    /// All other matchers: which labels are taken, and which values they must have.
    pub(crate) data: Vec<Matcher>,
}

#[derive(Debug)]
pub(crate) struct AggregateNode {
    pub(crate) op: AggregateOp,
    pub(crate) input: Node,
    pub(crate) parameter: Option<Node>,
    pub(crate) grouping: Grouping,
}

#[derive(Debug)]
pub(crate) struct BinaryNode {
    pub(crate) op: BinaryOp,
    pub(crate) returns_bool: bool,
    pub(crate) left: Node,
    pub(crate) right: Node,
    pub(crate) matching: Matching,
    pub(crate) left_type: ValueType,
    pub(crate) right_type: ValueType,
}

/// `offset` and `@`, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Moment {
    /// Fixed time.
    pub(crate) at: Option<i64>,
    /// Subtracted from it, or from the step's time.
    pub(crate) offset: i64,
}

impl Moment {
    /// The time at which a selector is looked at for the step at `time`. Never decreases with `time`.
    pub(crate) fn of(self, time: i64) -> i64 {
        self.at.unwrap_or(time).saturating_sub(self.offset)
    }
}

/// The steps of a subquery for outer steps between `first` and `last` (the moment applied): all multiples of `step_ms` in
/// `(first - range_ms, last]`, counted from time 0, not from the query.
pub(crate) fn subquery_steps(first: i64, last: i64, range_ms: i64, step_ms: i64) -> Steps {
    debug_assert!(step_ms > 0);
    let open = first.saturating_sub(range_ms);
    let start = open
        .div_euclid(step_ms)
        .saturating_add(1)
        .saturating_mul(step_ms);
    let count = if start > last || start <= open {
        0
    } else {
        (i128::from(last) - i128::from(start)) / i128::from(step_ms) + 1
    };
    Steps {
        start,
        step: step_ms,
        count: usize::try_from(count).unwrap_or(usize::MAX),
    }
}
