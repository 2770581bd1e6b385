//! PromQL: text to tree, tree to plan, plan to columns. Pure: no I/O, no clock, no threads of its own.
//!
//! 1. [`parse`] turns text into an [`Expr`], bounded in length, depth and operators, and checks types.
//! 2. [`plan`] resolves times: which series are needed ([`Plan::selectors`]), over which range each, which parts do not change
//!    from step to step. The caller fetches them.
//! 3. [`evaluate`] runs it over a [`Source`]: every series is decoded once, goes through windows, functions and
//!    arithmetic as one column over all steps, and is folded into its group, in parallel by partition of series through the
//!    caller's [`Executor`].
//!
//! Semantics are those of Prometheus 3 with delayed name removal and experimental functions on.

#![forbid(unsafe_code)]

mod aggregate;
mod annotations;
mod error;
mod eval;
pub mod expr;
mod functions;
mod histogram;
mod limits;
mod parser;
mod plan;
mod source;
mod value;

pub use annotations::{ANNOTATIONS_MAX, AnnotationKind};
pub use error::{Error, ParseError};
pub use eval::{
    Budget, Evaluated, GRANT_BYTES, NodeCost, Profile, SelectorCost, Shards, Stats, evaluate,
};
pub use expr::Expr;
pub use limits::ParseLimits;
pub use parser::{parse, parse_selector, parse_within};
pub use plan::{Explained, Params, Plan, Selector, ShardLabels, Whole, plan};
pub use source::{Columns, Executor, Inline, Shard, Source, SourceError};
pub use value::{Steps, ValueType};
