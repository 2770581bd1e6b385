//! The value of a duration expression, once the query's parameters are known.

use crate::error::Error;
use crate::expr::{BinaryOp, Duration, DurationExpr};
use crate::parser::to_milliseconds;
use crate::plan::Params;

/// Milliseconds of a range or step: greater than zero.
pub(super) fn positive(duration: &Duration, params: &Params) -> Result<i64, Error> {
    match milliseconds(duration, params)? {
        ms if ms > 0 => Ok(ms),
        _ => Err(Error::Parameters(format!(
            "duration must be greater than 0, but {duration} is not"
        ))),
    }
}

/// Milliseconds of an offset.
pub(super) fn milliseconds(duration: &Duration, params: &Params) -> Result<i64, Error> {
    match duration {
        Duration::Plain(ms) => Ok(*ms),
        Duration::Expr(expr) => {
            let value = seconds(expr, params)?;
            to_milliseconds(value).ok_or_else(|| {
                Error::Parameters(format!("duration out of range: {expr} is {value} seconds"))
            })
        }
    }
}

fn seconds(expr: &DurationExpr, params: &Params) -> Result<f64, Error> {
    Ok(match expr {
        DurationExpr::Number(number) => number.value,
        DurationExpr::Step => params.step as f64 / 1000.0,
        DurationExpr::Range => params.end.saturating_sub(params.start) as f64 / 1000.0,
        DurationExpr::Paren(inner) => seconds(inner, params)?,
        DurationExpr::Unary { negative, expr } => {
            let value = seconds(expr, params)?;
            if *negative { -value } else { value }
        }
        DurationExpr::Pick { max, left, right } => {
            let (left, right) = (seconds(left, params)?, seconds(right, params)?);
            if *max {
                left.max(right)
            } else {
                left.min(right)
            }
        }
        DurationExpr::Binary { op, left, right } => {
            let (a, b) = (seconds(left, params)?, seconds(right, params)?);
            match op {
                BinaryOp::Add => a + b,
                BinaryOp::Sub => a - b,
                BinaryOp::Mul => a * b,
                BinaryOp::Div if b == 0.0 => {
                    return Err(Error::Parameters("division by zero in duration".to_owned()));
                }
                BinaryOp::Div => a / b,
                BinaryOp::Mod if b == 0.0 => {
                    return Err(Error::Parameters("modulo by zero in duration".to_owned()));
                }
                BinaryOp::Mod => a % b,
                _ => a.powf(b),
            }
        }
    })
}
