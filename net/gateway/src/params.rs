//! Parameters of the query API, read as Prometheus reads them.
//!
//! Names come from the URL and, for a form that was posted, from the body before it. A parameter that does not parse is told as
//! `invalid parameter "time": cannot parse "x" to a valid timestamp`. Pure functions; fuzzed.
//! Source: Prometheus `web/api/v1/api.go` (`parseTime`, `parseDuration`, `parseLimitParam`).

mod form;
mod time;

use std::time::Duration;

pub use form::{Form, FormError};
pub use time::{parse_duration, parse_time};

use query::Times;

/// Points per series that one range query may have, the first not counted.
pub const POINTS_MAX: i64 = 11_000;

/// A parameter with a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// The value of one parameter.
    #[error("invalid parameter {name:?}: {reason}")]
    Invalid {
        /// The parameter.
        name: &'static str,
        /// In the words of Prometheus.
        reason: String,
    },
    /// Too many points.
    #[error(
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query \
         resolution (?step=XX)"
    )]
    Resolution,
}

fn invalid(name: &'static str, reason: impl Into<String>) -> ParamError {
    ParamError::Invalid {
        name,
        reason: reason.into(),
    }
}

impl Form {
    /// A time in milliseconds; `None` where the parameter is missing or empty. Prometheus names such a parameter twice.
    pub fn time(&self, name: &'static str) -> Result<Option<i64>, ParamError> {
        let twice = |e| format!("Invalid time value for '{name}': {e}");
        let parse = |text| parse_time(text).map_err(|e| invalid(name, twice(e)));
        self.first(name)
            .filter(|text| !text.is_empty())
            .map(parse)
            .transpose()
    }

    /// A duration in milliseconds, negative ones included.
    pub fn duration(&self, name: &'static str) -> Result<Option<i64>, ParamError> {
        let parse = |text| parse_duration(text).map_err(|e| invalid(name, e));
        self.first(name)
            .filter(|text| !text.is_empty())
            .map(parse)
            .transpose()
    }

    /// How long the query may take. One that is not positive is no time at all.
    pub fn timeout(&self) -> Result<Option<Duration>, ParamError> {
        Ok(self
            .duration("timeout")?
            .map(|ms| Duration::from_millis(ms.max(0) as u64)))
    }

    /// How long a sample counts as current; 0 is the default, as in Prometheus.
    pub fn lookback(&self) -> Result<Option<Duration>, ParamError> {
        match self.duration("lookback_delta")? {
            None | Some(0) => Ok(None),
            Some(ms @ 1..) => Ok(Some(Duration::from_millis(ms as u64))),
            Some(_) => Err(invalid("lookback_delta", "must not be negative")),
        }
    }

    /// The parameter `limit`, or another of its kind; 0, also when missing, is unlimited.
    pub fn limit(&self, name: &'static str) -> Result<usize, ParamError> {
        let Some(text) = self.first(name).filter(|text| !text.is_empty()) else {
            return Ok(0);
        };
        match text.parse::<i64>() {
            Ok(limit) if limit >= 0 => Ok(usize::try_from(limit).unwrap_or(usize::MAX)),
            Ok(_) => Err(invalid(name, "limit must be non-negative")),
            Err(_) => Err(invalid(
                name,
                format!("cannot parse {text:?} to a valid limit"),
            )),
        }
    }

    /// The time of an instant query, by default now.
    pub fn instant(&self, now_ms: i64) -> Result<Times, ParamError> {
        Ok(Times::Instant(self.time("time")?.unwrap_or(now_ms)))
    }

    /// The times of a range query. Errors in the order of Prometheus: start, end, their order, step, number of points.
    pub fn range(&self) -> Result<Times, ParamError> {
        let must = |name| {
            let text = self.first(name).unwrap_or_default();
            parse_time(text).map_err(|e| invalid(name, e))
        };
        let (start, end) = (must("start")?, must("end")?);
        if end < start {
            return Err(invalid(
                "end",
                "end timestamp must not be before start time",
            ));
        }
        let text = self.first("step").unwrap_or_default();
        let step = parse_duration(text).map_err(|e| invalid("step", e))?;
        if step <= 0 {
            return Err(invalid(
                "step",
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        if end.saturating_sub(start) / step > POINTS_MAX {
            return Err(ParamError::Resolution);
        }
        Ok(Times::Range { start, end, step })
    }
}

#[cfg(test)]
mod tests;
