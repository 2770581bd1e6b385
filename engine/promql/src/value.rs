//! The values that flow between the nodes of a query: columns with one place per step.
//!
//! A column holds the result of one series at every step of the query; a step without a sample holds [`ABSENT`]. That is the
//! staleness marker of Prometheus, a *signalling* NaN which no arithmetic can produce (every operation on it gives a quiet NaN) and
//! which a selector never yields as a value, so it is told apart from every real NaN by its bits and costs no bitmap.
//! Native histograms will stand in a second, sparse column beside it; until then a selector that meets one is an error.

use model::{Labels, STALE_NAN_BITS};

/// "No sample at this step". Compare with [`is_absent`], never with `==`.
pub(crate) const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// True for [`ABSENT`] only, not for other NaNs.
#[inline]
pub(crate) fn is_absent(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The times at which an expression is evaluated: `start`, `start + step`, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// First time, milliseconds.
    pub start: i64,
    /// Distance in milliseconds; at least 1, also where there is one step only.
    pub step: i64,
    /// How many, at least 1 but for empty subqueries.
    pub count: usize,
}

impl Steps {
    /// A single time.
    pub fn instant(time: i64) -> Steps {
        Steps {
            start: time,
            step: 1,
            count: 1,
        }
    }

    /// The time of a step, milliseconds; saturating.
    #[inline]
    pub fn time(&self, index: usize) -> i64 {
        self.start
            .saturating_add(self.step.saturating_mul(index as i64))
    }

    /// All times.
    pub fn times(&self) -> impl Iterator<Item = i64> + use<> {
        let steps = *self;
        (0..steps.count).map(move |i| steps.time(i))
    }
}

/// One series of an instant vector, over all steps.
#[derive(Debug, Clone)]
pub struct VectorSeries {
    /// Its labels, the name included even where it is to go.
    pub labels: Labels,
    /// The name goes when the query is finished (delayed name removal), unless a label function put it back.
    pub drop_name: bool,
    /// One per step, [`ABSENT`] where there is no sample.
    pub values: Vec<f64>,
}

impl VectorSeries {
    /// A series from its parts.
    pub fn new(labels: Labels, drop_name: bool, values: Vec<f64>) -> VectorSeries {
        VectorSeries {
            labels,
            drop_name,
            values,
        }
    }

    /// Whether any step has a sample.
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(|v| is_absent(*v))
    }
}

/// What an expression evaluates to, over all steps. (Range vectors never become values: the functions that take them are given
/// windows, see [`crate::functions::Window`].)
#[derive(Debug, Clone)]
pub enum Value {
    /// A number per step.
    Scalar(Vec<f64>),
    /// A text, the same at every step.
    String(String),
    /// An instant vector; order matters only for instant queries (`sort`, `topk`).
    Vector(Vec<VectorSeries>),
}

/// The four types of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A number.
    Scalar,
    /// A text.
    String,
    /// An instant vector.
    Vector,
    /// A range vector.
    Matrix,
}

impl ValueType {
    /// As error messages name it.
    pub fn documented(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_cannot_make_an_absent_value() {
        let quiet = [ABSENT + 1.0, ABSENT * 0.0, ABSENT - ABSENT, -(ABSENT + 0.0)];
        assert!(quiet.iter().all(|v| v.is_nan() && !is_absent(*v)));
        assert!(!is_absent(f64::NAN));
    }

    #[test]
    fn times_saturate_instead_of_wrapping() {
        let steps = Steps {
            start: i64::MAX - 1,
            step: i64::MAX / 2,
            count: 3,
        };
        assert_eq!(steps.times().last(), Some(i64::MAX));
    }
}
