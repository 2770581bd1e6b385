//! A deliberately naive evaluator for tests: one step at a time, samples found by scanning, labels in maps, matching by trying all pairs.
//!
//! It shares with the engine the syntax tree and the arithmetic of single functions, nothing else: no plan, no columns, no row programs, no
//! numbering, no partials, and no arithmetic of histograms but its own. What it does not know it says so, and the test skips that query.

mod histogram;
mod ranges;

use std::collections::BTreeMap;

use model::{FloatHistogram, Labels, METRIC_NAME, Matcher, is_stale};

use crate::aggregate::AggregateOp;
use crate::annotations::{Annotations, Notes};
use crate::expr::{
    At, Binary, BinaryOp, Cardinality, Duration, Expr, ExprKind, Matching, Selector, Shift,
};
use crate::functions::{EngineFunction, Kind, Window};

pub(super) use histogram::Hist;

/// A series as a test made it.
pub(super) struct Input<'a> {
    pub(super) labels: &'a Labels,
    pub(super) times: &'a [i64],
    pub(super) values: &'a [f64],
    /// By index into `times`.
    pub(super) histograms: &'a [(u32, FloatHistogram)],
}

impl Input<'_> {
    /// All samples; nothing where one marks staleness.
    fn samples(&self) -> Vec<(i64, Option<Datum>)> {
        let one = |i: usize| {
            let found = self.histograms.iter().find(|(at, _)| *at as usize == i);
            let (stale, datum) = match found {
                Some((_, h)) => (is_stale(h.sum), Datum::Histogram(Hist::of(h))),
                None => (is_stale(self.values[i]), Datum::Float(self.values[i])),
            };
            (self.times[i], (!stale).then_some(datum))
        };
        (0..self.times.len()).map(one).collect()
    }
}

/// The value of a sample.
#[derive(Debug, Clone)]
pub(super) enum Datum {
    Float(f64),
    Histogram(Hist),
}

impl Datum {
    fn float(&self) -> Option<f64> {
        match self {
            Datum::Float(value) => Some(*value),
            Datum::Histogram(_) => None,
        }
    }
}

type Set = BTreeMap<String, String>;

/// A sample of an instant vector. `dropped`: its name is to go in the end.
#[derive(Debug, Clone)]
struct Sample {
    labels: Set,
    dropped: bool,
    value: Datum,
}

/// A series of a range vector.
struct Samples {
    labels: Set,
    dropped: bool,
    samples: Vec<(i64, Datum)>,
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
    pub(super) fn evaluate(&self, expr: &Expr, time: i64) -> Result<Vec<(String, Datum)>, Failure> {
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
                    sample.value = match sample.value.clone() {
                        Datum::Float(value) => Datum::Float(-value),
                        Datum::Histogram(h) => Datum::Histogram(h.scale(-1.0)),
                    };
                    sample.dropped = true;
                }
                Ok(Value::Vector(samples))
            }
            ExprKind::Call { .. } => self.call(expr, time),
            ExprKind::Aggregate(aggregate) => {
                let samples = self.vector(&aggregate.expr, time)?;
                let mut groups: BTreeMap<Set, (Vec<Datum>, bool)> = BTreeMap::new();
                for sample in samples {
                    let mut key = sample.labels;
                    key.retain(|name, _| match &aggregate.grouping {
                        Some(by) if by.without => !by.labels.contains(name) && name != METRIC_NAME,
                        Some(by) => by.labels.contains(name),
                        None => false,
                    });
                    let group = groups.entry(key).or_default();
                    group.0.push(sample.value);
                    group.1 |= sample.dropped;
                }
                let mut out = Vec::new();
                for (labels, (values, dropped)) in groups {
                    if let Some(value) = total(aggregate.op, values)? {
                        out.push(Sample {
                            labels,
                            dropped,
                            value,
                        });
                    }
                }
                Ok(Value::Vector(out))
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
                let mut samples = series.samples().into_iter().rev();
                let (_, value) = samples.find(|(t, _)| *t <= at && *t > at - LOOKBACK)?;
                Some(Sample {
                    labels: set(series.labels),
                    dropped: false,
                    value: value?,
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
                // These functions know nothing of histograms.
                samples.retain(|sample| sample.value.float().is_some());
                for sample in &mut samples {
                    let value = sample.value.float().expect("only floats are left");
                    sample.value = Datum::Float(map(value, &scalars(args), &mut notes));
                    sample.dropped = true;
                }
                Ok(Value::Vector(samples))
            }
            Kind::Range(range) => {
                let matrix = args.last().ok_or(Failure::Unknown)?;
                let (start, end, samples) = self.range(matrix, time)?;
                let mut out = Vec::new();
                for one in samples.into_iter().filter(|one| !one.samples.is_empty()) {
                    let window = ranges::Range {
                        samples: &one.samples,
                        start,
                        end,
                        step_time: time,
                    };
                    let eval =
                        |window: &Window<'_>| (range.eval)(window, &scalars(args), &mut notes);
                    if let Some(value) = ranges::over(function.name, &window, eval) {
                        out.push(Sample {
                            labels: one.labels,
                            dropped: one.dropped || !range.keeps_name,
                            value,
                        });
                    }
                }
                Ok(Value::Vector(out))
            }
            Kind::Engine(EngineFunction::Timestamp) => {
                let ExprKind::Selector(selector) = &args[0].unwrap_parens().kind else {
                    return Err(Failure::Unknown);
                };
                let at = Self::moment(&selector.shift, time);
                let seen = |series: &Input<'_>| {
                    let mut samples = series.samples().into_iter().rev();
                    let newest = samples.find(|(t, _)| *t <= at && *t > at - LOOKBACK)?;
                    newest.1.map(|_| Sample {
                        labels: set(series.labels),
                        dropped: true,
                        value: Datum::Float(newest.0 as f64 / 1000.0),
                    })
                };
                let samples = self.selected(&selector.matchers).filter_map(seen);
                Ok(Value::Vector(samples.collect()))
            }
            Kind::Columns(_) if function.name.starts_with("histogram_") => {
                let samples = self.vector(args.last().ok_or(Failure::Unknown)?, time)?;
                let numbers = scalars(args);
                let number = |h: &Hist| {
                    Ok(match (function.name, &numbers[..]) {
                        ("histogram_count", _) => h.count,
                        ("histogram_sum", _) => h.sum,
                        ("histogram_avg", _) => h.sum / h.count,
                        ("histogram_stdvar", _) => h.variance(),
                        ("histogram_stddev", _) => h.variance().sqrt(),
                        // What estimates make of less than no observations is anybody's guess.
                        ("histogram_quantile" | "histogram_fraction", _) if !h.is_observed() => {
                            return Err(Failure::Unknown);
                        }
                        ("histogram_quantile", [q]) => h.quantile(*q),
                        ("histogram_fraction", [lower, upper]) => h.fraction(*lower, *upper),
                        _ => return Err(Failure::Unknown),
                    })
                };
                let mut out = Vec::new();
                for sample in samples {
                    if let Datum::Histogram(h) = &sample.value {
                        out.push(Sample {
                            value: Datum::Float(number(h)?),
                            dropped: true,
                            labels: sample.labels,
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
                    let within = |(t, datum): (i64, Option<Datum>)| {
                        (t > start && t <= end).then_some((t, datum?))
                    };
                    Samples {
                        labels: set(series.labels),
                        dropped: false,
                        samples: series.samples().into_iter().filter_map(within).collect(),
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
                let mut found: BTreeMap<(Set, bool), Vec<(i64, Datum)>> = BTreeMap::new();
                let multiples = start.div_euclid(*step) + 1..=end.div_euclid(*step);
                for inner in multiples.map(|k| k * step) {
                    for sample in self.vector(&subquery.expr, inner)? {
                        let samples = found.entry((sample.labels, sample.dropped)).or_default();
                        samples.push((inner, sample.value));
                    }
                }
                let samples = found
                    .into_iter()
                    .map(|((labels, dropped), samples)| Samples {
                        labels,
                        dropped,
                        samples,
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
        let left = self.value(&binary.left, time)?;
        let right = self.value(&binary.right, time)?;
        let (left, right) = match (left, right) {
            (Value::Scalar(a), Value::Scalar(b)) => return Ok(Value::Scalar(compute(op, a, b))),
            (Value::Vector(samples), Value::Scalar(number)) => {
                return with_number(binary, samples, number, false).map(Value::Vector);
            }
            (Value::Scalar(number), Value::Vector(samples)) => {
                return with_number(binary, samples, number, true).map(Value::Vector);
            }
            (Value::Vector(left), Value::Vector(right)) => (left, right),
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
        let (l, r) = if swapped {
            (&b.value, &a.value)
        } else {
            (&a.value, &b.value)
        };
        let outcome = outcome(binary.op, l, r)?;
        if matches!(outcome, Outcome::Nothing) {
            continue;
        }
        let mut labels = a.labels.clone();
        if drops_name(binary.op) {
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
        let value = match outcome {
            Outcome::Nothing => unreachable!("left above"),
            Outcome::Holds(false) if bare => continue,
            Outcome::Holds(_) if bare => l.clone(),
            Outcome::Holds(holds) => Datum::Float(f64::from(u8::from(holds))),
            Outcome::Value(value) => value,
        };
        out.push(Sample {
            labels,
            value,
            dropped: binary.returns_bool || (!drops_name(binary.op) && a.dropped),
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

/// What a binary operator makes of two samples.
enum Outcome {
    /// They do not go together; not even `bool` has a value then.
    Nothing,
    /// Of a comparison.
    Holds(bool),
    Value(Datum),
}

fn outcome(op: BinaryOp, a: &Datum, b: &Datum) -> Result<Outcome, Failure> {
    use BinaryOp::{Add, Div, Eq, Mul, Ne, Sub, TrimLower, TrimUpper};
    let sum = |sum: Result<Hist, histogram::Unlike>| match sum {
        Ok(sum) => Outcome::Value(Datum::Histogram(sum)),
        Err(histogram::Unlike) => Outcome::Nothing,
    };
    Ok(match (a, b) {
        (Datum::Float(_), Datum::Float(_)) if matches!(op, TrimLower | TrimUpper) => {
            Outcome::Nothing
        }
        (Datum::Float(a), Datum::Float(b)) if op.is_comparison() => {
            Outcome::Holds(compute(op, *a, *b) == 1.0)
        }
        (Datum::Float(a), Datum::Float(b)) => Outcome::Value(Datum::Float(compute(op, *a, *b))),
        (Datum::Histogram(h), Datum::Float(n)) | (Datum::Float(n), Datum::Histogram(h))
            if op == Mul =>
        {
            Outcome::Value(Datum::Histogram(h.clone().scale(*n)))
        }
        (Datum::Histogram(h), Datum::Float(n)) => match op {
            Div => Outcome::Value(Datum::Histogram(h.clone().divide(*n))),
            TrimUpper | TrimLower => {
                let trimmed = h.trim(*n, op == TrimUpper).ok_or(Failure::Unknown)?;
                Outcome::Value(Datum::Histogram(trimmed))
            }
            _ => Outcome::Nothing,
        },
        (Datum::Float(_), Datum::Histogram(_)) => Outcome::Nothing,
        (Datum::Histogram(a), Datum::Histogram(b)) => match op {
            Add => sum(a.clone().plus(b.clone())),
            Sub => sum(a.clone().minus(b.clone())),
            Eq | Ne => Outcome::Holds(a.same(b, 0.0) == (op == Eq)),
            _ => Outcome::Nothing,
        },
    })
}

/// Comparisons and trims keep it.
fn drops_name(op: BinaryOp) -> bool {
    !op.is_comparison() && !matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper)
}

/// A vector with a number, which is on the left where `swapped`.
fn with_number(
    binary: &Binary,
    samples: Vec<Sample>,
    number: f64,
    swapped: bool,
) -> Result<Vec<Sample>, Failure> {
    let number = Datum::Float(number);
    let mut out = Vec::new();
    for mut sample in samples {
        let (a, b) = if swapped {
            (&number, &sample.value)
        } else {
            (&sample.value, &number)
        };
        sample.dropped |= drops_name(binary.op) || binary.returns_bool;
        match outcome(binary.op, a, b)? {
            Outcome::Nothing => continue,
            Outcome::Holds(holds) if binary.returns_bool => {
                sample.value = Datum::Float(f64::from(u8::from(holds)));
            }
            Outcome::Holds(true) => {}
            Outcome::Holds(false) => continue,
            Outcome::Value(value) => sample.value = value,
        }
        out.push(sample);
    }
    Ok(out)
}

/// An aggregation of a group that has samples.
fn total(op: AggregateOp, values: Vec<Datum>) -> Result<Option<Datum>, Failure> {
    let count = values.len() as f64;
    let floats: Vec<f64> = values.iter().filter_map(Datum::float).collect();
    let float = |value: f64| Ok((!floats.is_empty()).then_some(Datum::Float(value)));
    match op {
        AggregateOp::Count => Ok(Some(Datum::Float(count))),
        AggregateOp::Group => Ok(Some(Datum::Float(1.0))),
        AggregateOp::Sum if floats.len() == values.len() => float(floats.iter().sum()),
        AggregateOp::Avg if floats.len() == values.len() => {
            float(floats.iter().sum::<f64>() / count)
        }
        AggregateOp::Sum | AggregateOp::Avg => {
            let sum = ranges::sum(values);
            Ok(sum.map(|sum| match op {
                AggregateOp::Avg => Datum::Histogram(sum.divide(count)),
                _ => Datum::Histogram(sum),
            }))
        }
        // The order of floats, in which NaN is smaller than any and greater than any.
        AggregateOp::Min => float(floats.iter().copied().fold(f64::NAN, f64::min)),
        AggregateOp::Max => float(floats.iter().copied().fold(f64::NAN, f64::max)),
        AggregateOp::Stdvar | AggregateOp::Stddev => {
            let count = floats.len() as f64;
            let mean = floats.iter().sum::<f64>() / count;
            let variance = floats.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
            float(match op {
                AggregateOp::Stdvar => variance,
                _ => variance.sqrt(),
            })
        }
        _ => Err(Failure::Unknown),
    }
}
