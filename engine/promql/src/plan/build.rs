//! Expression to plan.

use std::sync::Arc;

use model::{METRIC_NAME, MatchOp, Matcher, Projection, Windows};

use super::{
    AggregateNode, BinaryNode, CallNode, InfoPlan, Instant, Moment, Node, NodeKind, Params, Plan,
    RangeInput, RangeNode, Selector, duration, subquery_steps,
};
use crate::error::Error;
use crate::eval::scalar_operation;
use crate::expr::{self, At, Expr, ExprKind, Grouping, Shift, Span};
use crate::functions::{Edges, EngineFunction, Kind};
use crate::value::{Steps, ValueType};

/// More steps than this are refused whatever the caller allows: a column of them would be 800 MB.
const STEPS_MAX: i128 = 100_000_000;

/// Functions whose value depends on the step's time and not only on their arguments.
const TIME_DEPENDENT: [&str; 11] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
];

/// Plans a query.
///
/// Errors: [`Error::Parameters`] for times that make no sense, durations that are zero or out of range once
/// computed, and types that a range query cannot return. Cost: linear in the expression.
pub fn plan(expr: &Expr, params: &Params) -> Result<Plan, Error> {
    let steps = steps_of(params)?;
    let result = expr.value_type();
    if !params.is_instant() && !matches!(result, ValueType::Scalar | ValueType::Vector) {
        return Err(Error::Parameters(format!(
            "invalid expression type {:?} for range query, must be Scalar or instant Vector",
            result.documented()
        )));
    }
    let mut builder = Builder {
        params: *params,
        selectors: Vec::new(),
        ahead: false,
    };
    let scope = Scope {
        first: params.start,
        last: params.end,
        step: params.step,
        range: 0,
        function: "",
        labels: None,
    };
    let mut root = builder.node(expr, scope)?;
    mark(&mut root, false);
    Ok(Plan {
        root,
        selectors: builder.selectors,
        steps,
        params: *params,
        result,
        text: String::new(),
        local: expr.is_sum_of_parts() && !builder.ahead,
    })
}

fn steps_of(params: &Params) -> Result<Steps, Error> {
    let wrong = |text: String| Err(Error::Parameters(text));
    if params.lookback_ms <= 0 || params.default_subquery_step_ms <= 0 {
        return wrong("lookback and default subquery step must be greater than 0".to_owned());
    }
    if params.step < 0 {
        return wrong("zero or negative query resolution step widths are not accepted".to_owned());
    }
    if params.end < params.start {
        return wrong("end timestamp must not be before start time".to_owned());
    }
    if params.is_instant() {
        return Ok(Steps::instant(params.start));
    }
    let count = (i128::from(params.end) - i128::from(params.start)) / i128::from(params.step) + 1;
    if count > STEPS_MAX {
        return wrong(format!("query has {count} steps, more than {STEPS_MAX}"));
    }
    Ok(Steps {
        start: params.start,
        step: params.step,
        count: count as usize,
    })
}

/// Between which times a node is evaluated, and what is around it.
#[derive(Clone, Copy)]
struct Scope<'a> {
    first: i64,
    last: i64,
    step: i64,
    range: i64,
    function: &'static str,
    /// The labels that an aggregation around it keeps, if nothing in between looks at others.
    labels: Option<&'a [String]>,
}

impl Scope<'_> {
    /// What is around it looks at all labels.
    fn with_all_labels(self) -> Scope<'static> {
        Scope {
            labels: None,
            first: self.first,
            last: self.last,
            step: self.step,
            range: self.range,
            function: self.function,
        }
    }

    /// The scope of one of the operands of something that treats every series of its only vector for itself.
    fn of_operand(self, operand: &Expr) -> Self {
        let keeps = self.labels.is_some()
            && matches!(operand.value_type(), ValueType::Vector | ValueType::Matrix);
        Scope {
            labels: self.labels.filter(|_| keeps),
            ..self
        }
    }
}

struct Builder {
    params: Params,
    selectors: Vec<Selector>,
    /// Something looks at samples behind the step that it is evaluated at.
    ahead: bool,
}

impl Builder {
    fn node(&mut self, expr: &Expr, scope: Scope) -> Result<Node, Error> {
        // Long chains of operators lean to the left; they are walked in a loop, not by recursion.
        let mut chain = Vec::new();
        let mut innermost = expr;
        loop {
            match &innermost.kind {
                ExprKind::Binary(binary) => {
                    chain.push((innermost.span, &**binary));
                    innermost = &binary.left;
                }
                ExprKind::Paren(inner) => innermost = inner,
                _ => break,
            }
        }
        let scope = match scope.labels {
            Some(_) if matches_vectors(innermost, &chain) => scope.with_all_labels(),
            _ => scope,
        };
        let mut node = self.leaf(innermost, scope.of_operand(innermost))?;
        for (span, binary) in chain.into_iter().rev() {
            let right = self.node(&binary.right, scope.of_operand(&binary.right))?;
            node = fold(Node {
                span,
                once: false,
                kind: NodeKind::Binary(Box::new(BinaryNode {
                    op: binary.op,
                    returns_bool: binary.returns_bool,
                    left_type: node_type(&node),
                    right_type: node_type(&right),
                    left: node,
                    right,
                    matching: binary.matching.clone(),
                })),
            });
        }
        Ok(node)
    }

    fn leaf(&mut self, expr: &Expr, scope: Scope) -> Result<Node, Error> {
        let kind = match &expr.kind {
            ExprKind::Number(number) => NodeKind::Number(number.value),
            ExprKind::String(text) => NodeKind::Text(text.clone()),
            ExprKind::Selector(selector) => {
                let moment = self.moment(&selector.shift)?;
                NodeKind::Instant(Instant {
                    selector: self.select(selector, moment, 0, scope),
                    moment,
                    edges: selector.edges,
                })
            }
            ExprKind::Matrix { selector, range } => {
                let range_ms = duration::positive(range, &self.params)?;
                let moment = self.moment(&selector.shift)?;
                NodeKind::Range(RangeNode {
                    range_ms,
                    moment,
                    input: RangeInput::Raw {
                        selector: self.select(selector, moment, range_ms, scope),
                        edges: selector.edges,
                    },
                })
            }
            ExprKind::Subquery(subquery) => NodeKind::Range(self.subquery(subquery, scope)?),
            ExprKind::Call { function, args } => {
                return self.call(expr.span, function, args, scope);
            }
            ExprKind::Aggregate(aggregate) => {
                let mut grouping = aggregate.grouping.clone().unwrap_or(Grouping {
                    without: false,
                    labels: Vec::new(),
                });
                grouping.labels.sort();
                grouping.labels.dedup();
                let outer = Scope {
                    function: aggregate.op.name(),
                    ..scope.with_all_labels()
                };
                // Annotations name the metric.
                let mut kept = grouping.labels.clone();
                kept.push(METRIC_NAME.to_owned());
                let scope = Scope {
                    labels: (aggregate.op.folds() && !grouping.without).then_some(&kept[..]),
                    ..outer
                };
                NodeKind::Aggregate(Box::new(AggregateNode {
                    op: aggregate.op,
                    input: self.node(&aggregate.expr, scope)?,
                    parameter: match &aggregate.parameter {
                        Some(parameter) => Some(self.node(parameter, outer)?),
                        None => None,
                    },
                    grouping,
                }))
            }
            ExprKind::Unary { negative, expr } => {
                let inner = self.node(expr, scope)?;
                if !negative {
                    return Ok(inner);
                }
                match inner.kind {
                    NodeKind::Number(value) => NodeKind::Number(-value),
                    _ => NodeKind::Negate(Box::new(inner)),
                }
            }
            ExprKind::Paren(_) | ExprKind::Binary(_) => return self.node(expr, scope),
        };
        Ok(Node {
            span: expr.span,
            once: false,
            kind,
        })
    }

    fn call(
        &mut self,
        span: Span,
        function: &'static crate::functions::Function,
        args: &[Expr],
        scope: Scope,
    ) -> Result<Node, Error> {
        let constant = |ms: i64| NodeKind::Number(ms as f64 / 1000.0);
        let params = self.params;
        let kind = match function.kind {
            Kind::Engine(EngineFunction::Start) => constant(params.start),
            Kind::Engine(EngineFunction::End) => constant(params.end),
            Kind::Engine(EngineFunction::Step) => constant(params.step),
            Kind::Engine(EngineFunction::Range) => {
                constant(params.end.saturating_sub(params.start))
            }
            _ => {
                let inner = Scope {
                    function: function.name,
                    ..match function.kind {
                        Kind::Map(_) | Kind::Range(_) | Kind::Engine(EngineFunction::Timestamp) => {
                            scope
                        }
                        _ => scope.with_all_labels(),
                    }
                };
                let is_info = matches!(function.kind, Kind::Engine(EngineFunction::Info));
                let planned = if is_info { &args[..1] } else { args };
                let nodes = planned
                    .iter()
                    .map(|arg| self.node(arg, inner.of_operand(arg)))
                    .collect::<Result<Vec<_>, _>>()?;
                let info = if is_info {
                    Some(self.info(&nodes[0], args.get(1), inner))
                } else {
                    None
                };
                NodeKind::Call(Box::new(CallNode {
                    function,
                    args: nodes,
                    exprs: args.to_vec(),
                    spans: args.iter().map(|arg| arg.span).collect(),
                    info,
                }))
            }
        };
        Ok(Node {
            span,
            once: false,
            kind,
        })
    }

    fn moment(&self, shift: &Shift) -> Result<Moment, Error> {
        Ok(Moment {
            at: shift.at.map(|at| match at {
                At::Time(time) => time,
                At::Start => self.params.start,
                At::End => self.params.end,
            }),
            offset: match &shift.offset {
                Some(offset) => duration::milliseconds(offset, &self.params)?,
                None => 0,
            },
        })
    }

    fn subquery(&mut self, subquery: &expr::Subquery, scope: Scope) -> Result<RangeNode, Error> {
        let range_ms = duration::positive(&subquery.range, &self.params)?;
        let step_ms = match &subquery.step {
            Some(step) => duration::positive(step, &self.params)?,
            None => self.params.default_subquery_step_ms,
        };
        let moment = self.moment(&subquery.shift)?;
        self.ahead |= moment.of(scope.last) > scope.last;
        let steps = subquery_steps(
            moment.of(scope.first),
            moment.of(scope.last),
            range_ms,
            step_ms,
        );
        let inner = Scope {
            first: steps.start,
            last: steps.time(steps.count.saturating_sub(1)),
            step: step_ms,
            range: 0,
            function: scope.function,
            labels: None,
        };
        Ok(RangeNode {
            range_ms,
            moment,
            input: RangeInput::Sub {
                inner: Box::new(self.node(&subquery.expr, inner)?),
                step_ms,
            },
        })
    }

    /// Announces a selector and returns its index.
    fn select(
        &mut self,
        selector: &expr::Selector,
        moment: Moment,
        range_ms: i64,
        scope: Scope,
    ) -> usize {
        let scope = Scope {
            range: range_ms,
            ..scope
        };
        self.announce(&selector.matchers, moment, selector.edges, scope)
    }

    fn announce(
        &mut self,
        matchers: &[Matcher],
        moment: Moment,
        edges: Edges,
        scope: Scope,
    ) -> usize {
        let lookback = self.params.lookback_ms;
        let before = match (scope.range, edges) {
            (0, _) => lookback,
            (range, Edges::Plain) => range,
            (range, _) => range.saturating_add(lookback),
        };
        let after = if edges == Edges::Smoothed {
            lookback
        } else {
            0
        };
        let (first, last) = (moment.of(scope.first), moment.of(scope.last));
        self.ahead |= last.saturating_add(after) > scope.last;
        let planned = Selector {
            matchers: Arc::from(matchers),
            // Ranges are open on the left.
            min_time: first.saturating_sub(before).saturating_add(1),
            max_time: last.saturating_add(after),
            range_ms: scope.range,
            step_ms: scope.step,
            function: scope.function,
            projection: match scope.labels {
                Some(names) => Projection::only(names),
                None => Projection::All,
            },
            newest: scope.range == 0 && edges == Edges::Plain && first == last,
            windows: match edges {
                Edges::Plain => windows(moment, scope, before),
                // Whether a series has histograms decides what can be asked of it, wherever they are.
                Edges::Anchored | Edges::Smoothed => None,
            },
        };
        let same = |other: &Selector| {
            other.matchers == planned.matchers
                && (other.min_time, other.max_time) == (planned.min_time, planned.max_time)
        };
        if let Some(index) = self.selectors.iter().position(same) {
            let known = &mut self.selectors[index];
            known.projection = known.projection.union(&planned.projection);
            known.newest &= planned.newest;
            known.windows = known.windows.filter(|w| planned.windows == Some(*w));
            return index;
        }
        self.selectors.push(planned);
        self.selectors.len() - 1
    }

    /// `info`: which series can carry the labels, and when they are looked at.
    fn info(&mut self, argument: &Node, labels: Option<&Expr>, scope: Scope) -> InfoPlan {
        let mut names = Vec::new();
        let mut data = Vec::new();
        if let Some(ExprKind::Selector(selector)) = labels.map(|expr| &expr.kind) {
            for matcher in &selector.matchers {
                if matcher.name() == METRIC_NAME {
                    names.push(matcher.clone());
                } else {
                    data.push(matcher.clone());
                }
            }
        }
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, "target_info"));
        } else if names.iter().all(|matcher| matcher.op().is_negative()) {
            // Only said what it is not: then any metric that is named as an info metric.
            names.push(
                Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info").expect("a valid expression"),
            );
        }
        let mut matchers = names.clone();
        matchers.extend(data.iter().cloned());
        let moment = info_moment(argument).unwrap_or_default();
        let selector = self.announce(&matchers, moment, Edges::Plain, scope);
        InfoPlan {
            selector,
            moment,
            names,
            data,
        }
    }
}

/// The windows of a selector that looks back over `width`, where there are several and they leave something out.
fn windows(moment: Moment, scope: Scope<'_>, width: i64) -> Option<Windows> {
    let (first, last) = (moment.of(scope.first), moment.of(scope.last));
    // One step needs none; and where an offset leads out of what there is of time, steps do not lie where they should.
    let length = last.checked_sub(first);
    let moves = length.is_some() && length == scope.last.checked_sub(scope.first);
    (first < last && moves)
        .then(|| Windows::new(first, scope.step, width))
        .flatten()
}

/// Whether two vectors are matched somewhere in a chain of operators, outermost first.
fn matches_vectors(innermost: &Expr, chain: &[(Span, &expr::Binary)]) -> bool {
    let is_vector = |expr: &Expr| expr.value_type() == ValueType::Vector;
    let mut left = is_vector(innermost);
    chain.iter().rev().any(|(_, binary)| {
        let right = is_vector(&binary.right);
        let both = left && right;
        left |= right;
        both
    })
}

/// The moment of the first selector below, moments of subqueries around it included.
fn info_moment(node: &Node) -> Option<Moment> {
    match &node.kind {
        NodeKind::Number(_) | NodeKind::Text(_) => None,
        NodeKind::Instant(instant) => Some(instant.moment),
        NodeKind::Range(range) => match &range.input {
            RangeInput::Raw { .. } => Some(range.moment),
            RangeInput::Sub { inner, .. } => {
                let within = info_moment(inner)?;
                Some(match within.at {
                    Some(_) => within,
                    None => Moment {
                        at: range.moment.at,
                        offset: range.moment.offset.saturating_add(within.offset),
                    },
                })
            }
        },
        NodeKind::Call(call) => call.args.iter().find_map(info_moment),
        NodeKind::Aggregate(aggregate) => info_moment(&aggregate.input),
        NodeKind::Binary(binary) => {
            info_moment(&binary.left).or_else(|| info_moment(&binary.right))
        }
        NodeKind::Negate(inner) => info_moment(inner),
    }
}

/// Replaces an operation on two numbers by its result.
fn fold(node: Node) -> Node {
    let value = match &node.kind {
        NodeKind::Binary(binary) => match (&binary.left.kind, &binary.right.kind) {
            (NodeKind::Number(left), NodeKind::Number(right)) => {
                Some(scalar_operation(binary.op, *left, *right))
            }
            _ => None,
        },
        _ => None,
    };
    match value {
        Some(value) => Node {
            kind: NodeKind::Number(value),
            ..node
        },
        None => node,
    }
}

pub(crate) fn node_type(node: &Node) -> ValueType {
    match &node.kind {
        NodeKind::Number(_) => ValueType::Scalar,
        NodeKind::Text(_) => ValueType::String,
        NodeKind::Instant(_) | NodeKind::Aggregate(_) => ValueType::Vector,
        NodeKind::Range(_) => ValueType::Matrix,
        NodeKind::Call(call) => call.function.returns,
        NodeKind::Binary(binary) => match (binary.left_type, binary.right_type) {
            (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
            _ => ValueType::Vector,
        },
        NodeKind::Negate(inner) => node_type(inner),
    }
}

/// Marks the largest parts that are the same at every step, and says whether `node` is.
fn mark(node: &mut Node, covered: bool) {
    let invariant = is_invariant(node);
    let trivial = matches!(
        node.kind,
        NodeKind::Number(_) | NodeKind::Text(_) | NodeKind::Range(_)
    );
    node.once = invariant && !covered && !trivial;
    let covered = covered || node.once;
    match &mut node.kind {
        NodeKind::Number(_) | NodeKind::Text(_) | NodeKind::Instant(_) => {}
        NodeKind::Range(range) => {
            if let RangeInput::Sub { inner, .. } = &mut range.input {
                mark(inner, false);
            }
        }
        NodeKind::Call(call) => call.args.iter_mut().for_each(|arg| mark(arg, covered)),
        NodeKind::Aggregate(aggregate) => {
            mark(&mut aggregate.input, covered);
            if let Some(parameter) = &mut aggregate.parameter {
                mark(parameter, covered);
            }
        }
        NodeKind::Binary(binary) => {
            mark(&mut binary.left, covered);
            mark(&mut binary.right, covered);
        }
        NodeKind::Negate(inner) => mark(inner, covered),
    }
}

fn is_invariant(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Number(_) | NodeKind::Text(_) => true,
        NodeKind::Instant(instant) => instant.moment.at.is_some(),
        NodeKind::Range(range) => range.moment.at.is_some(),
        NodeKind::Call(call) => {
            !TIME_DEPENDENT.contains(&call.function.name) && call.args.iter().all(is_invariant)
        }
        NodeKind::Aggregate(aggregate) => {
            is_invariant(&aggregate.input) && aggregate.parameter.as_ref().is_none_or(is_invariant)
        }
        NodeKind::Binary(binary) => is_invariant(&binary.left) && is_invariant(&binary.right),
        NodeKind::Negate(inner) => is_invariant(inner),
    }
}
