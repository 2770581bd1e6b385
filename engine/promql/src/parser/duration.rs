//! Durations: plain ones, and arithmetic on them.
//!
//! Within brackets the whole arithmetic may stand. Behind `offset` only what is in parentheses, a number, or a call, with signs:
//! `x offset 1m + 1m` is `(x offset 1m) + 1m`. Source: `offset_duration_expr` and `duration_expr` of Prometheus' grammar.

use super::lexer::Kind;
use super::{Fault, Parser};
use crate::expr::{BinaryOp, Duration, DurationExpr, Number, Span};

/// Longer than what fits nanoseconds in 64 bit is refused, as in Prometheus (about 292 years).
pub(crate) const DURATION_MS_MAX: f64 = 9_223_372_036_854.0;

/// Seconds to milliseconds; `None` beyond what a duration may be.
pub(crate) fn to_milliseconds(seconds: f64) -> Option<i64> {
    let ms = seconds * 1000.0;
    (ms.abs() <= DURATION_MS_MAX).then_some(ms.round() as i64)
}

impl Parser<'_> {
    /// The range or step of a selector or subquery: greater than zero where that can be seen already.
    pub(super) fn bracket_duration(
        &mut self,
        context: &str,
        expected: &str,
    ) -> Result<Duration, Fault> {
        let span = self.token().span;
        let expr = self.duration_expr(0, context, expected)?;
        let span = self.span_from(span.start as usize);
        let duration = plain(expr, span)?;
        match duration {
            Duration::Plain(ms) if ms <= 0 => {
                Err(Fault::new(span, "duration must be greater than 0"))
            }
            duration => Ok(duration),
        }
    }

    /// What stands behind `offset`.
    pub(super) fn offset_duration(&mut self) -> Result<Duration, Fault> {
        let start = self.token().span.start as usize;
        let expr = self.offset_operand()?;
        let span = self.span_from(start);
        plain(expr, span)
    }

    fn offset_operand(&mut self) -> Result<DurationExpr, Fault> {
        let context = ("offset", "number, duration, step(), or range()");
        let negative = self.peek() == Kind::Sub;
        let signed = negative || self.peek() == Kind::Add;
        if signed {
            self.take();
        }
        let expr = self.duration_operand(context.0, context.1)?;
        Ok(if signed { sign(negative, expr) } else { expr })
    }

    fn duration_expr(
        &mut self,
        precedence: u8,
        context: &str,
        expected: &str,
    ) -> Result<DurationExpr, Fault> {
        self.depth += 1;
        if self.depth > self.limits.nesting_max {
            return Err(Fault::new(
                self.token().span,
                format!(
                    "query is nested deeper than {} levels",
                    self.limits.nesting_max
                ),
            ));
        }
        let mut left = match self.peek() {
            Kind::Sub | Kind::Add => {
                let negative = self.take().kind == Kind::Sub;
                let operand = self.duration_expr(BinaryOp::Pow.precedence(), context, expected)?;
                sign(negative, operand)
            }
            _ => self.duration_operand(context, expected)?,
        };
        loop {
            let op = match self.peek() {
                Kind::Add => BinaryOp::Add,
                Kind::Sub => BinaryOp::Sub,
                Kind::Mul => BinaryOp::Mul,
                Kind::Div => BinaryOp::Div,
                Kind::Mod => BinaryOp::Mod,
                Kind::Pow => BinaryOp::Pow,
                _ => break,
            };
            if op.precedence() < precedence {
                break;
            }
            self.take();
            let next = op.precedence() + u8::from(op != BinaryOp::Pow);
            let right = self.duration_expr(next, context, expected)?;
            left = DurationExpr::Binary {
                op,
                left: Box::new(left),
                right: Box::new(right),
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn duration_operand(&mut self, context: &str, expected: &str) -> Result<DurationExpr, Fault> {
        match self.peek() {
            Kind::Number | Kind::Duration => Ok(DurationExpr::Number(self.number_or_duration()?)),
            Kind::LeftParen => {
                self.take();
                let inner = self.duration_expr(0, context, expected)?;
                self.expect(Kind::RightParen, context, "\")\"")?;
                Ok(DurationExpr::Paren(Box::new(inner)))
            }
            Kind::Word if self.peek_second() == Kind::LeftParen => {
                let word = self.word().unwrap_or_default().to_ascii_lowercase();
                match word.as_str() {
                    "step" | "range" => {
                        self.take();
                        self.take();
                        self.expect(Kind::RightParen, context, "\")\"")?;
                        Ok(if word == "step" {
                            DurationExpr::Step
                        } else {
                            DurationExpr::Range
                        })
                    }
                    "min_of" | "max_of" => {
                        self.take();
                        self.take();
                        let left = self.duration_expr(0, context, expected)?;
                        self.expect(Kind::Comma, context, "\",\"")?;
                        let right = self.duration_expr(0, context, expected)?;
                        self.expect(Kind::RightParen, context, "\")\"")?;
                        Ok(DurationExpr::Pick {
                            max: word == "max_of",
                            left: Box::new(left),
                            right: Box::new(right),
                        })
                    }
                    _ => self.unexpected(context, expected),
                }
            }
            _ => self.unexpected(context, expected),
        }
    }
}

/// A sign before a number belongs to the number.
fn sign(negative: bool, expr: DurationExpr) -> DurationExpr {
    match expr {
        DurationExpr::Number(number) => DurationExpr::Number(Number {
            value: if negative {
                -number.value
            } else {
                number.value
            },
            ..number
        }),
        expr => DurationExpr::Unary {
            negative,
            expr: Box::new(expr),
        },
    }
}

/// A mere number needs no expression; parentheses around one neither.
fn plain(expr: DurationExpr, span: Span) -> Result<Duration, Fault> {
    let mut inner = &expr;
    while let DurationExpr::Paren(within) = inner {
        inner = within;
    }
    match inner {
        DurationExpr::Number(number) => to_milliseconds(number.value)
            .map(Duration::Plain)
            .ok_or_else(|| Fault::new(span, "duration out of range")),
        _ => Ok(Duration::Expr(expr)),
    }
}
