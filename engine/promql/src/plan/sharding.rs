//! Into which shards the series of a query may be divided: by which labels.
//!
//! A query can be evaluated for some of its series alone, and for the others beside that, where everything that looks at several series at
//! once (aggregations, operators between vectors, histograms made of buckets) only ever looks at series that are alike in certain labels, and
//! keeps these labels. The walk over the plan begins with all labels but those that describe the metric, and takes away what a node does
//! not keep: what is left, if anything, decides the shard ([`ShardLabels`]). Then no group is in two shards and no two shards give a series of
//! the same labels, so that the results only have to be put side by side.
//!
//! What looks at all series (`scalar`, `absent`, an aggregation without labels), what is there without any (`vector`), and what is
//! bounded over all of them (`histogram_quantiles`) leaves a query whole, and so does the order of an instant query, which is that of
//! its evaluation.

use std::collections::BTreeSet;

use super::{AggregateNode, BinaryNode, CallNode, Node, NodeKind, Plan, RangeInput};
use crate::aggregate::AggregateOp;
use crate::expr::{Grouping, Span};
use crate::functions::{EngineFunction, Kind};
use crate::value::ValueType;
use model::METRIC_NAME;

/// Labels that operations remove without being asked to.
const METADATA: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

/// The labels whose values decide in which shard a series is. Never those that describe the metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardLabels {
    /// These; at least one.
    By(BTreeSet<String>),
    /// All but these.
    Without(BTreeSet<String>),
}

/// Why a query is evaluated in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// In words.
    pub reason: String,
    /// What it is about.
    pub span: Span,
}

impl Plan {
    /// By which labels its series may be divided into shards, or why they may not. Cost: linear in the plan.
    pub fn shard_labels(&self) -> Result<ShardLabels, Whole> {
        let whole = |reason: &str| Whole {
            reason: reason.to_owned(),
            span: self.root.span,
        };
        if self.params.is_instant() {
            return Err(whole(
                "the order of an instant query is that of its evaluation",
            ));
        }
        let mut walk = Walk {
            labels: ShardLabels::Without(METADATA.map(str::to_owned).into()),
            joins: false,
        };
        walk.node(&self.root)?;
        if self.selectors.is_empty() {
            return Err(whole("it selects nothing"));
        }
        if !walk.joins {
            return Err(whole("nothing in it looks at more than one series"));
        }
        Ok(walk.labels)
    }
}

struct Walk {
    labels: ShardLabels,
    /// Something looks at several series.
    joins: bool,
}

impl Walk {
    /// Chains of operators lean to the left and are walked in a loop; other recursion is as deep as the text was nested.
    fn node(&mut self, node: &Node) -> Result<(), Whole> {
        let mut at = node;
        loop {
            at = match &at.kind {
                NodeKind::Number(_) | NodeKind::Text(_) | NodeKind::Instant(_) => return Ok(()),
                NodeKind::Negate(inner) => inner,
                NodeKind::Range(range) => match &range.input {
                    RangeInput::Raw { .. } => return Ok(()),
                    RangeInput::Sub { inner, .. } => inner,
                },
                NodeKind::Aggregate(aggregate) => {
                    self.aggregate(at.span, aggregate)?;
                    &aggregate.input
                }
                NodeKind::Binary(binary) => {
                    self.binary(at.span, binary)?;
                    &binary.left
                }
                NodeKind::Call(call) => return self.call(at.span, call),
            };
        }
    }

    fn aggregate(&mut self, span: Span, aggregate: &AggregateNode) -> Result<(), Whole> {
        if let Some(parameter) = &aggregate.parameter {
            self.node(parameter)?;
        }
        let op = aggregate.op;
        // It asks every series for itself, whatever its group.
        if op == AggregateOp::LimitRatio {
            return Ok(());
        }
        self.joins = true;
        self.keep(span, op.name(), &aggregate.grouping)?;
        if op == AggregateOp::CountValues
            && let Some(NodeKind::Text(label)) = aggregate.parameter.as_ref().map(|p| &p.kind)
        {
            self.rewrite(span, op.name(), label)?;
        }
        Ok(())
    }

    fn binary(&mut self, span: Span, binary: &BinaryNode) -> Result<(), Whole> {
        self.node(&binary.right)?;
        if (binary.left_type, binary.right_type) != (ValueType::Vector, ValueType::Vector) {
            return Ok(());
        }
        self.joins = true;
        // What `group_left` copies from a partner is another label than those of the match, or has the same value on both sides.
        let matched = Grouping {
            without: !binary.matching.on,
            labels: binary.matching.labels.clone(),
        };
        self.keep(span, binary.op.symbol(), &matched)
    }

    fn call(&mut self, span: Span, call: &CallNode) -> Result<(), Whole> {
        let name = call.function.name;
        let whole = |why: &str| {
            let reason = format!("{name} {why}");
            Err(Whole { reason, span })
        };
        let text = |at: usize| match call.args.get(at).map(|arg| &arg.kind) {
            Some(NodeKind::Text(text)) => text.as_str(),
            _ => "",
        };
        let takes_vector = || {
            let types = call.args.iter().map(super::node_type);
            types.into_iter().any(|t| t == ValueType::Vector)
        };
        match (&call.function.kind, name) {
            (Kind::Engine(EngineFunction::Timestamp) | Kind::Range(_) | Kind::Map(_), _) => {}
            (Kind::Engine(EngineFunction::AbsentOverTime), _) | (_, "absent" | "scalar") => {
                return whole("looks at all series");
            }
            (Kind::Engine(_), _) => return whole("looks at other series"),
            (_, "vector") => return whole("gives a series that no selector has"),
            (_, "histogram_quantiles") => return whole("is bounded over all series"),
            (_, "histogram_quantile" | "histogram_fraction") => {
                self.joins = true;
                self.rewrite(span, name, "le")?;
            }
            (_, "label_replace" | "label_join") => self.rewrite(span, name, text(1))?,
            // Of numbers, of each series for itself, or an order that a range query does not have.
            (_, "max_of" | "min_of" | "pi" | "time") => {}
            (_, "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc") => {}
            (
                _,
                "histogram_avg" | "histogram_count" | "histogram_sum" | "histogram_stddev"
                | "histogram_stdvar",
            ) => {}
            (
                _,
                "day_of_month" | "day_of_week" | "day_of_year" | "days_in_month" | "hour"
                | "minute" | "month" | "year",
            ) if takes_vector() => {}
            _ => return whole("gives a series that no selector has"),
        }
        call.args.iter().try_for_each(|arg| self.node(arg))
    }

    /// Only series that are alike in these labels are looked at together, and the result has them.
    fn keep(&mut self, span: Span, name: &str, grouping: &Grouping) -> Result<(), Whole> {
        let named = |label: &String| grouping.labels.contains(label);
        match (&mut self.labels, grouping.without) {
            (ShardLabels::Without(labels), true) => {
                labels.extend(grouping.labels.iter().cloned());
                return Ok(());
            }
            (ShardLabels::By(labels), true) => labels.retain(|label| !named(label)),
            (ShardLabels::By(labels), false) => labels.retain(named),
            (ShardLabels::Without(gone), false) => {
                let kept = grouping
                    .labels
                    .iter()
                    .filter(|label| !gone.contains(*label));
                self.labels = ShardLabels::By(kept.cloned().collect());
            }
        }
        self.check(span, name)
    }

    /// A label has another value above than below.
    fn rewrite(&mut self, span: Span, name: &str, label: &str) -> Result<(), Whole> {
        match &mut self.labels {
            ShardLabels::Without(labels) => {
                labels.insert(label.to_owned());
            }
            ShardLabels::By(labels) => {
                labels.remove(label);
            }
        }
        self.check(span, name)
    }

    fn check(&self, span: Span, name: &str) -> Result<(), Whole> {
        match &self.labels {
            ShardLabels::By(labels) if labels.is_empty() => Err(Whole {
                reason: format!("{name} keeps no label that everything around it keeps"),
                span,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Params, parse, plan};

    fn labels_of(text: &str, params: Params) -> Result<ShardLabels, Whole> {
        let expr = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        plan(&expr, &params).unwrap().shard_labels()
    }

    fn shown(text: &str) -> String {
        let list = |labels: &BTreeSet<String>| {
            let labels = labels.iter().filter(|l| !METADATA.contains(&l.as_str()));
            labels.cloned().collect::<Vec<_>>().join(",")
        };
        match labels_of(text, Params::range(0, 600_000, 60_000)) {
            Ok(ShardLabels::By(labels)) => format!("by {}", list(&labels)),
            Ok(ShardLabels::Without(labels)) => {
                assert!(METADATA.iter().all(|label| labels.contains(*label)));
                format!("without {}", list(&labels)).trim_end().to_owned()
            }
            Err(whole) => {
                let of = &text[whole.span.start as usize..whole.span.end as usize];
                format!("{} <- {of}", whole.reason)
            }
        }
    }

    #[test]
    fn labels_that_everything_keeps_decide_the_shard() {
        for (text, wanted) in [
            ("sum by (a) (x)", "by a"),
            ("sum by (b, a, __name__) (rate(x[5m]))", "by a,b"),
            ("sum without (a) (x)", "without a"),
            ("sum without (a) (max without (b) (x))", "without a,b"),
            ("sum by (a) (max by (a, b) (x))", "by a"),
            ("max by (a, b) (sum without (b) (x))", "by a"),
            ("sum without (b) (max by (a, b) (x))", "by a"),
            ("x / y", "without"),
            ("x / ignoring(a) y", "without a"),
            ("x * on(a, b) group_left(c) y", "by a,b"),
            ("x * ignoring(a) group_left(c) y", "without a"),
            ("sum by (c, a) (x * on(a, b) group_left(c) y)", "by a"),
            ("x and on(a) y", "by a"),
            ("x or ignoring(b) y", "without b"),
            ("sum by (a, b) (x) unless on(b) y", "by b"),
            ("sum by (a) (x) / on(a) fill(0) sum by (a) (y)", "by a"),
            (
                "histogram_quantile(0.9, sum by (le, job) (rate(x[1m])))",
                "by job",
            ),
            ("histogram_quantile(0.9, rate(x[1m]))", "without le"),
            ("histogram_fraction(0, 1, x)", "without le"),
            ("label_replace(sum by (a, b) (x), 'b', '', 'c', '')", "by a"),
            (
                "sum by (a, b) (label_replace(x, 'a', '$1', 'b', '(.*)'))",
                "by b",
            ),
            ("label_join(x, 'a', '', 'b') + x", "without a"),
            ("count_values by (a, b) ('b', x)", "by a"),
            ("topk by (a) (3, x)", "by a"),
            ("limitk without (a) (3, x)", "without a"),
            ("sum by (a) (limit_ratio(0.5, x))", "by a"),
            ("quantile by (a) (0.5, x)", "by a"),
            (
                "sum by (a) (max_over_time(max by (a, b) (x)[5m:1m] offset 1h))",
                "by a",
            ),
            ("-sum by (a) (x @ 0) * 2 > bool time() - pi()", "by a"),
            ("sort(sum by (a) (hour(timestamp(x))))", "by a"),
            ("sum by (a) (histogram_count(x))", "by a"),
            ("sum by (a) (clamp(x, min_of(1, 2), 3))", "by a"),
        ] {
            assert_eq!(shown(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_has_to_be_evaluated_in_one_says_why() {
        let keeps_none = "keeps no label that everything around it keeps";
        for (text, wanted) in [
            ("sum(x)", format!("sum {keeps_none} <- sum(x)")),
            ("max(sum by (a) (x))", format!("max {keeps_none} <- max(sum by (a) (x))")),
            ("sum by (__name__) (x)", format!("sum {keeps_none} <- sum by (__name__) (x)")),
            ("sum by (a) (max by (b) (x))", format!("max {keeps_none} <- max by (b) (x)")),
            ("sum by (a) (x) > on() y", format!("> {keeps_none} <- sum by (a) (x) > on() y")),
            ("x > on(a) sum by (b) (y)", format!("> {keeps_none} <- x > on(a) sum by (b) (y)")),
            ("topk(3, sum by (a) (x))", format!("topk {keeps_none} <- topk(3, sum by (a) (x))")),
            (
                "sum by (le) (histogram_quantile(1, x))",
                format!("histogram_quantile {keeps_none} <- histogram_quantile(1, x)"),
            ),
            (
                "sum by (a) (label_replace(x, 'a', '', '', ''))",
                format!("label_replace {keeps_none} <- label_replace(x, 'a', '', '', '')"),
            ),
            ("count_values by (a) ('a', x)", format!("count_values {keeps_none} <- count_values by (a) ('a', x)")),
            ("sum by (a) (x) / scalar(y)", "scalar looks at all series <- scalar(y)".to_owned()),
            ("topk by (a) (scalar(y), x)", "scalar looks at all series <- scalar(y)".to_owned()),
            ("sum by (a) (x) or vector(0)", "vector gives a series that no selector has <- vector(0)".to_owned()),
            ("sum by (a) (x) + on(a) hour()", "hour gives a series that no selector has <- hour()".to_owned()),
            ("sum by (a) (x) unless on(a) absent(y)", "absent looks at all series <- absent(y)".to_owned()),
            (
                "sum by (a) (absent_over_time(x[5m]))",
                "absent_over_time looks at all series <- absent_over_time(x[5m])".to_owned(),
            ),
            ("sum by (a) (info(x))", "info looks at other series <- info(x)".to_owned()),
            (
                "histogram_quantiles(x, 'q', 0.5)",
                "histogram_quantiles is bounded over all series <- histogram_quantiles(x, 'q', 0.5)".to_owned(),
            ),
            ("rate(x[5m]) * 2", "nothing in it looks at more than one series <- rate(x[5m]) * 2".to_owned()),
            ("time()", "it selects nothing <- time()".to_owned()),
        ] {
            assert_eq!(shown(text), wanted, "{text}");
        }
        let instant = labels_of("sum by (a) (x)", Params::instant(0)).unwrap_err();
        assert!(instant.reason.contains("instant query"), "{instant:?}");
    }

    #[test]
    fn the_longest_chain_is_walked_in_little_stack() {
        let text = vec!["x"; 1_000].join(" + ");
        let walk = move || labels_of(&text, Params::range(0, 1, 1)).is_ok();
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        assert!(thread.spawn(walk).unwrap().join().unwrap());
    }
}
