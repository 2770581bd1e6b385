//! A deliberately naive evaluator for tests: one step at a time, samples found by scanning, labels in maps, matching by trying all pairs.
//!
//! It shares with the engine the syntax tree and the arithmetic of single functions, nothing else: no plan, no columns, no row programs, no
//! numbering, no partials. What it does not know it says so, and the test skips that query.

use std::collections::BTreeMap;

use model::{Labels, METRIC_NAME, Matcher, is_stale};

use crate::aggregate::AggregateOp;
use crate::annotations::{Annotations, Notes};
use crate::expr::{
    At, Binary, BinaryOp, Cardinality, Duration, Expr, ExprKind, Matching, Selector, Shift,
};
use crate::functions::{Edges, Kind, Window};
use crate::value::is_absent;

/// A series as a test made it.
pub(super) struct Input<'a> {
    pub(super) labels: &'a Labels,
    pub(super) times: &'a [i64],
    pub(super) values: &'a [f64],
}

type Set = BTreeMap<String, String>;

/// A sample of an instant vector. `dropped`: its name is to go in the end.
#[derive(Debug, Clone)]
struct Sample {
    labels: Set,
    dropped: bool,
    value: f64,
}

/// A series of a range vector.
struct Samples {
    labels: Set,
    dropped: bool,
    times: Vec<i64>,
    values: Vec<f64>,
}

enum Value {
    Scalar(f64),
    Vector(Vec<Sample>),
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Prometheus would refuse it too.
    Refused,
    /// Not known here.
    Unknown,
}

const LOOKBACK: i64 = 300_000;

pub(super) struct Reference<'a> {
    pub(super) series: Vec<Input<'a>>,
}

impl Reference<'_> {
    /// The instant vector at `time`: labels as text, in order, and values.
    pub(super) fn evaluate(&self, expr: &Expr, time: i64) -> Result<Vec<(String, f64)>, Failure> {
        let Value::Vector(samples) = self.value(expr, time)? else {
            return Err(Failure::Unknown);
        };
        let mut out = BTreeMap::new();
        for mut sample in samples {
            if sample.dropped {
                sample.labels.remove(METRIC_NAME);
            }
            let text = Labels::from_pairs(&sample.labels).unwrap().to_string();
            if out.insert(text, sample.value).is_some() {
                return Err(Failure::Refused);
            }
        }
        Ok(out.into_iter().collect())
    }

    fn value(&self, expr: &Expr, time: i64) -> Result<Value, Failure> {
        match &expr.kind {
            ExprKind::Number(number) => Ok(Value::Scalar(number.value)),
            ExprKind::Paren(inner) => self.value(inner, time),
            ExprKind::Selector(selector) => Ok(Value::Vector(self.newest(selector, time))),
            ExprKind::Unary { negative, expr } => {
                let mut samples = self.vector(expr, time)?;
                for sample in samples.iter_mut().filter(|_| *negative) {
                    sample.value = -sample.value;
                    sample.dropped = true;
                }
                Ok(Value::Vector(samples))
            }
            ExprKind::Call { .. } => self.call(expr, time),
            ExprKind::Aggregate(aggregate) => {
                let samples = self.vector(&aggregate.expr, time)?;
                if aggregate.op != AggregateOp::Sum {
                    return Err(Failure::Unknown);
                }
                let grouping = aggregate.grouping.as_ref().ok_or(Failure::Unknown)?;
                let mut groups: BTreeMap<Set, (f64, bool)> = BTreeMap::new();
                for sample in samples {
                    let mut key = sample.labels;
                    key.retain(|name, _| {
                        let named = grouping.labels.contains(name);
                        if grouping.without {
                            !named && name != METRIC_NAME
                        } else {
                            named
                        }
                    });
                    let group = groups.entry(key).or_insert((0.0, false));
                    group.0 += sample.value;
                    group.1 |= sample.dropped;
                }
                Ok(Value::Vector(
                    groups
                        .into_iter()
                        .map(|(labels, (value, dropped))| Sample {
                            labels,
                            dropped,
                            value,
                        })
                        .collect(),
                ))
            }
            ExprKind::Binary(binary) => self.binary(binary, time),
            _ => Err(Failure::Unknown),
        }
    }

    fn vector(&self, expr: &Expr, time: i64) -> Result<Vec<Sample>, Failure> {
        match self.value(expr, time)? {
            Value::Vector(samples) => Ok(samples),
            Value::Scalar(_) => Err(Failure::Unknown),
        }
    }

    fn moment(shift: &Shift, time: i64) -> i64 {
        let at = match shift.at {
            Some(At::Time(at)) => at,
            Some(At::Start | At::End) => panic!("replaced by the test"),
            None => time,
        };
        match shift.offset {
            Some(Duration::Plain(offset)) => at - offset,
            Some(Duration::Expr(_)) => panic!("not generated"),
            None => at,
        }
    }

    fn selected(&self, matchers: &[Matcher]) -> impl Iterator<Item = &Input<'_>> {
        self.series.iter().filter(|series| {
            matchers
                .iter()
                .all(|m| m.matches(series.labels.get(m.name()).unwrap_or("")))
        })
    }

    fn newest(&self, selector: &Selector, time: i64) -> Vec<Sample> {
        let at = Self::moment(&selector.shift, time);
        self.selected(&selector.matchers)
            .filter_map(|series| {
                let mut samples = series.times.iter().zip(series.values).rev();
                let (_, value) = samples.find(|(t, _)| **t <= at && **t > at - LOOKBACK)?;
                (!is_stale(*value)).then(|| Sample {
                    labels: set(series.labels),
                    dropped: false,
                    value: *value,
                })
            })
            .collect()
    }

    fn call(&self, expr: &Expr, time: i64) -> Result<Value, Failure> {
        let ExprKind::Call { function, args } = &expr.kind else {
            return Err(Failure::Unknown);
        };
        let mut annotations = Annotations::default();
        let mut notes = Notes {
            annotations: &mut annotations,
            text: "",
            args: &[],
            metric: "",
        };
        let scalars = |args: &[Expr]| -> Vec<f64> {
            let numbers = args.iter().filter_map(|arg| match &arg.kind {
                ExprKind::Number(number) => Some(number.value),
                _ => None,
            });
            numbers.collect()
        };
        match &function.kind {
            Kind::Map(map) => {
                let mut samples = self.vector(&args[0], time)?;
                for sample in &mut samples {
                    sample.value = map(sample.value, &scalars(args), &mut notes);
                    sample.dropped = true;
                }
                Ok(Value::Vector(samples))
            }
            Kind::Range(range) => {
                let matrix = args.last().ok_or(Failure::Unknown)?;
                let (start, end, samples) = self.range(matrix, time)?;
                let mut out = Vec::new();
                for one in samples.into_iter().filter(|one| !one.times.is_empty()) {
                    let window = Window {
                        times: &one.times,
                        values: &one.values,
                        start,
                        end,
                        step_time: time,
                        edges: Edges::Plain,
                    };
                    let value = (range.eval)(&window, &scalars(args), &mut notes);
                    if !is_absent(value) {
                        out.push(Sample {
                            labels: one.labels,
                            dropped: one.dropped || !range.keeps_name,
                            value,
                        });
                    }
                }
                Ok(Value::Vector(out))
            }
            _ => Err(Failure::Unknown),
        }
    }

    /// The range `(start, end]` and the samples of every series in it.
    fn range(&self, expr: &Expr, time: i64) -> Result<(i64, i64, Vec<Samples>), Failure> {
        match &expr.kind {
            ExprKind::Matrix {
                selector,
                range: Duration::Plain(range),
            } => {
                let end = Self::moment(&selector.shift, time);
                let start = end - range;
                let cut = |series: &Input<'_>| {
                    let (times, values) = series
                        .times
                        .iter()
                        .zip(series.values)
                        .filter(|(t, v)| **t > start && **t <= end && !is_stale(**v))
                        .unzip();
                    Samples {
                        labels: set(series.labels),
                        dropped: false,
                        times,
                        values,
                    }
                };
                let samples = self.selected(&selector.matchers).map(cut).collect();
                Ok((start, end, samples))
            }
            ExprKind::Subquery(subquery) => {
                let (Duration::Plain(range), Some(Duration::Plain(step))) =
                    (&subquery.range, &subquery.step)
                else {
                    return Err(Failure::Unknown);
                };
                let end = Self::moment(&subquery.shift, time);
                let start = end - range;
                let mut found: BTreeMap<(Set, bool), (Vec<i64>, Vec<f64>)> = BTreeMap::new();
                let multiples = start.div_euclid(*step) + 1..=end.div_euclid(*step);
                for inner in multiples.map(|k| k * step) {
                    for sample in self.vector(&subquery.expr, inner)? {
                        let (times, values) =
                            found.entry((sample.labels, sample.dropped)).or_default();
                        times.push(inner);
                        values.push(sample.value);
                    }
                }
                let samples = found
                    .into_iter()
                    .map(|((labels, dropped), (times, values))| Samples {
                        labels,
                        dropped,
                        times,
                        values,
                    })
                    .collect();
                Ok((start, end, samples))
            }
            ExprKind::Paren(inner) => self.range(inner, time),
            _ => Err(Failure::Unknown),
        }
    }

    fn binary(&self, binary: &Binary, time: i64) -> Result<Value, Failure> {
        let op = binary.op;
        let bare = op.is_comparison() && !binary.returns_bool;
        let left = self.value(&binary.left, time)?;
        let right = self.value(&binary.right, time)?;
        let (left, right) = match (left, right) {
            (Value::Scalar(a), Value::Scalar(b)) => return Ok(Value::Scalar(compute(op, a, b))),
            (Value::Vector(samples), Value::Scalar(number)) => {
                let kept = samples.into_iter().filter_map(|sample| {
                    let value = compute(op, sample.value, number);
                    (!bare || value == 1.0).then_some(Sample {
                        value: if bare { sample.value } else { value },
                        dropped: sample.dropped || !bare,
                        labels: sample.labels,
                    })
                });
                return Ok(Value::Vector(kept.collect()));
            }
            (Value::Vector(left), Value::Vector(right)) => (left, right),
            _ => return Err(Failure::Unknown),
        };
        let matching = &binary.matching;
        if op.is_set() {
            let has = |side: &[Sample], sample: &Sample| {
                let key = signature(&sample.labels, matching);
                side.iter()
                    .any(|other| signature(&other.labels, matching) == key)
            };
            let kept = match op {
                BinaryOp::And => left.into_iter().filter(|s| has(&right, s)).collect(),
                BinaryOp::Unless => left.into_iter().filter(|s| !has(&right, s)).collect(),
                _ => {
                    let more: Vec<Sample> = right.into_iter().filter(|s| !has(&left, s)).collect();
                    left.into_iter().chain(more).collect()
                }
            };
            return Ok(Value::Vector(kept));
        }
        join(binary, left, right).map(Value::Vector)
    }
}

fn join(binary: &Binary, left: Vec<Sample>, right: Vec<Sample>) -> Result<Vec<Sample>, Failure> {
    let matching = &binary.matching;
    let swapped = matching.cardinality == Cardinality::OneToMany;
    let bare = binary.op.is_comparison() && !binary.returns_bool;
    if left.is_empty() || right.is_empty() {
        return Ok(Vec::new());
    }
    let (many, one) = if swapped {
        (right, left)
    } else {
        (left, right)
    };
    for (i, a) in one.iter().enumerate() {
        let key = signature(&a.labels, matching);
        if one[i + 1..]
            .iter()
            .any(|b| signature(&b.labels, matching) == key)
        {
            return Err(Failure::Refused);
        }
    }
    let mut seen: Vec<(Set, Set)> = Vec::new();
    let mut out = Vec::new();
    for a in &many {
        let key = signature(&a.labels, matching);
        let Some(b) = one.iter().find(|b| signature(&b.labels, matching) == key) else {
            continue;
        };
        let mut labels = a.labels.clone();
        if !binary.op.is_comparison() {
            labels.remove(METRIC_NAME);
        }
        if matching.cardinality == Cardinality::OneToOne {
            labels.retain(|name, _| matching.labels.contains(name) == matching.on);
        }
        for name in &matching.include {
            labels.remove(name);
            if let Some(value) = b.labels.get(name) {
                labels.insert(name.clone(), value.clone());
            }
        }
        let result = match matching.cardinality {
            Cardinality::OneToOne => (key, Set::new()),
            _ => (key, labels.clone()),
        };
        if seen.contains(&result) {
            return Err(Failure::Refused);
        }
        seen.push(result);
        let (l, r) = if swapped {
            (b.value, a.value)
        } else {
            (a.value, b.value)
        };
        let value = compute(binary.op, l, r);
        if bare && value != 1.0 {
            continue;
        }
        out.push(Sample {
            labels,
            value: if bare { l } else { value },
            dropped: binary.returns_bool || (bare && a.dropped),
        });
    }
    Ok(out)
}

fn set(labels: &Labels) -> Set {
    labels
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn signature(labels: &Set, matching: &Matching) -> Set {
    let mut key = labels.clone();
    key.retain(|name, _| {
        let named = matching.labels.contains(name);
        if matching.on {
            named
        } else {
            !named && name != METRIC_NAME
        }
    });
    key
}

fn compute(op: BinaryOp, a: f64, b: f64) -> f64 {
    let holds = |holds: bool| if holds { 1.0 } else { 0.0 };
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        BinaryOp::Eq => holds(a == b),
        BinaryOp::Ne => holds(a != b),
        BinaryOp::Lt => holds(a < b),
        BinaryOp::Le => holds(a <= b),
        BinaryOp::Gt => holds(a > b),
        BinaryOp::Ge => holds(a >= b),
        _ => panic!("no arithmetic: {op:?}"),
    }
}
