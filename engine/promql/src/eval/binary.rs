//! The arithmetic of the operators, on numbers and on columns.
//!
//! Column loops take the operator apart outside of the loop, so that what is left inside is a few instructions without branches.

use super::Evaluator;
use super::native;
use super::rows::Scalars;
use crate::annotations::Annotations;
use crate::error::Error;
use crate::expr::{BinaryOp, Span};
use crate::plan::{BinaryNode, Node, NodeKind};
use crate::value::{ABSENT, Column, Steps, Value, ValueType, VectorSeries, is_absent};

/// `left op right` between two scalars; comparisons give 1 or 0.
pub(crate) fn scalar_operation(op: BinaryOp, left: f64, right: f64) -> f64 {
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        BinaryOp::Atan2 => left.atan2(right),
        _ => f64::from(u8::from(compare(op, left, right))),
    }
}

/// Whether a comparison holds. Other operators never do.
pub(super) fn compare(op: BinaryOp, left: f64, right: f64) -> bool {
    match op {
        BinaryOp::Eq => left == right,
        BinaryOp::Ne => left != right,
        BinaryOp::Lt => left < right,
        BinaryOp::Le => left <= right,
        BinaryOp::Gt => left > right,
        BinaryOp::Ge => left >= right,
        _ => false,
    }
}

/// One sample each side: the result, or [`ABSENT`] where a comparison filters it away.
///
/// `kept` is what a comparison without `bool` leaves: the sample of the vector (of the left one between two).
pub(super) fn element(op: BinaryOp, returns_bool: bool, left: f64, right: f64, kept: f64) -> f64 {
    if !op.is_comparison() {
        // Trimming is for histograms; a float has no buckets to trim.
        return match op {
            BinaryOp::TrimUpper | BinaryOp::TrimLower => ABSENT,
            _ => scalar_operation(op, left, right),
        };
    }
    match (returns_bool, compare(op, left, right)) {
        (true, holds) => f64::from(u8::from(holds)),
        (false, true) => kept,
        (false, false) => ABSENT,
    }
}

/// `out[i] = f(a[i], b[i])` where both are present.
#[inline]
pub(super) fn zip_present(a: &[f64], b: &[f64], out: &mut [f64], f: impl Fn(f64, f64) -> f64) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        if !is_absent(*a) && !is_absent(*b) {
            *out = f(*a, *b);
        }
    }
}

/// A column against another, both present, into `out`; what `out` has elsewhere stays.
pub(super) fn columns(
    op: BinaryOp,
    returns_bool: bool,
    left: &[f64],
    right: &[f64],
    out: &mut [f64],
) {
    match op {
        BinaryOp::Add => zip_present(left, right, out, |a, b| a + b),
        BinaryOp::Sub => zip_present(left, right, out, |a, b| a - b),
        BinaryOp::Mul => zip_present(left, right, out, |a, b| a * b),
        BinaryOp::Div => zip_present(left, right, out, |a, b| a / b),
        _ => zip_present(left, right, out, |a, b| element(op, returns_bool, a, b, a)),
    }
}

#[inline]
fn each_present(values: &mut [f64], scalars: &Scalars, f: impl Fn(f64, f64) -> f64) {
    match scalars {
        Scalars::One(scalar) => {
            for value in values.iter_mut() {
                if !is_absent(*value) {
                    *value = f(*value, *scalar);
                }
            }
        }
        Scalars::Many(column) => {
            for (value, scalar) in values.iter_mut().zip(column) {
                if !is_absent(*value) {
                    *value = f(*value, *scalar);
                }
            }
        }
    }
}

/// A column against scalars, in place. With `swapped` the scalar stands on the left.
pub(super) fn with_scalar(
    op: BinaryOp,
    returns_bool: bool,
    swapped: bool,
    values: &mut [f64],
    scalars: &Scalars,
) {
    match (op, swapped) {
        (BinaryOp::Add, _) => each_present(values, scalars, |v, s| v + s),
        (BinaryOp::Mul, _) => each_present(values, scalars, |v, s| v * s),
        (BinaryOp::Sub, false) => each_present(values, scalars, |v, s| v - s),
        (BinaryOp::Div, false) => each_present(values, scalars, |v, s| v / s),
        (_, false) => each_present(values, scalars, |v, s| element(op, returns_bool, v, s, v)),
        (_, true) => each_present(values, scalars, |v, s| element(op, returns_bool, s, v, v)),
    }
}

impl Evaluator<'_> {
    /// Operators. A long chain leans to the left and is walked in a loop.
    pub(super) fn binary_chain(&self, node: &Node, steps: Steps) -> Result<Value, Error> {
        let mut chain: Vec<(&Node, &BinaryNode)> = Vec::new();
        let mut innermost = node;
        while let NodeKind::Binary(binary) = &innermost.kind
            && (chain.is_empty() || !innermost.once)
        {
            chain.push((innermost, binary));
            innermost = &binary.left;
        }
        // Operations with a scalar at the inner end belong to the row program below them.
        while let Some((at, binary)) = chain.last()
            && (binary.left_type == ValueType::Vector) != (binary.right_type == ValueType::Vector)
        {
            innermost = at;
            chain.pop();
        }
        if chain.is_empty() {
            return self.rows(node, steps);
        }
        let mark = self.meter.mark();
        let mut left = self.eval(innermost, steps)?;
        for (at, binary) in chain.into_iter().rev() {
            self.meter.check()?;
            let right = self.eval(&binary.right, steps)?;
            left = self.operate(at.span, binary, left, right, steps)?;
            self.settle(mark, &left)?;
        }
        Ok(left)
    }

    fn operate(
        &self,
        span: Span,
        binary: &BinaryNode,
        left: Value,
        right: Value,
        steps: Steps,
    ) -> Result<Value, Error> {
        let op = binary.op;
        match (left, right) {
            (Value::Scalar(mut left), Value::Scalar(right)) => {
                for (left, right) in left.iter_mut().zip(&right) {
                    *left = scalar_operation(op, *left, *right);
                }
                Ok(Value::Scalar(left))
            }
            (Value::Vector(series), Value::Scalar(column)) => {
                Ok(self.against_scalar(span, binary, series, column, false))
            }
            (Value::Scalar(column), Value::Vector(series)) => {
                Ok(self.against_scalar(span, binary, series, column, true))
            }
            (Value::Vector(left), Value::Vector(right)) => {
                debug_assert_eq!(binary.left_type, ValueType::Vector);
                debug_assert_eq!(binary.right_type, ValueType::Vector);
                if op.is_set() {
                    return Ok(Value::Vector(super::sets::operate(
                        op,
                        &binary.matching,
                        left,
                        right,
                        steps.count,
                    )));
                }
                Ok(Value::Vector(
                    self.match_vectors(span, binary, left, right, steps)?,
                ))
            }
            _ => Err(Error::execution(
                "binary expression must contain only scalar and instant vector types",
            )),
        }
    }

    fn against_scalar(
        &self,
        span: Span,
        binary: &BinaryNode,
        series: Vec<VectorSeries>,
        column: Vec<f64>,
        swapped: bool,
    ) -> Value {
        let scalars = Scalars::Many(column);
        let mut annotations = Annotations::default();
        let mut out = Vec::with_capacity(series.len());
        for one in series {
            let mut column = Column {
                values: one.values,
                histograms: one.histograms,
            };
            if native::concerns_column(binary.op, &column) {
                let spans = [span];
                let mut notes = self.notes(&mut annotations, &spans, "");
                native::with_scalar(binary.op, swapped, &mut column, &scalars, &mut notes);
            }
            with_scalar(
                binary.op,
                binary.returns_bool,
                swapped,
                &mut column.values,
                &scalars,
            );
            let drop_name = one.drop_name | drops_name(binary.op, binary.returns_bool);
            out.push(column.take(one.labels, drop_name));
        }
        self.keep(annotations);
        Value::Vector(super::without_empty(out))
    }
}

/// Whether the result of an operation is no longer the metric it came from.
pub(super) fn drops_name(op: BinaryOp, returns_bool: bool) -> bool {
    returns_bool
        || matches!(
            op,
            BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Mul
                | BinaryOp::Div
                | BinaryOp::Mod
                | BinaryOp::Pow
                | BinaryOp::Atan2
        )
}
