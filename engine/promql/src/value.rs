//! The values that flow between the nodes of a query: columns with one place per step.
//!
//! A column holds the result of one series at every step of the query; a step without a sample holds [`ABSENT`]. That is the
//! staleness marker of Prometheus, a *signalling* NaN which no arithmetic can produce (every operation on it gives a quiet NaN) and
//! which a selector never yields as a value, so it is told apart from every real NaN by its bits and costs no bitmap.
//!
//! Native histograms stand in a second, sparse column beside it, by step; at their steps the floats are [`ABSENT`]. So what only knows floats
//! passes over histograms, as Prometheus has it nearly everywhere, and series without histograms pay nothing.

use std::sync::Arc;

use model::{FloatHistogram, Labels, STALE_NAN_BITS};

use crate::error::Error;

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
    /// One per step, [`ABSENT`] where there is no float.
    pub values: Vec<f64>,
    /// Native histograms.
    pub histograms: Histograms,
}

/// Native histograms by number of the step, ascending; shared where a selector yields one for many steps.
pub(crate) type Histograms = Vec<(u32, Arc<FloatHistogram>)>;

/// The samples of one series over all steps, on its way through a program.
#[derive(Debug, Default)]
pub(crate) struct Column {
    /// One per step, [`ABSENT`] where there is no float.
    pub(crate) values: Vec<f64>,
    /// Native histograms.
    pub(crate) histograms: Histograms,
}

impl Column {
    /// Samples as the budget counts them.
    pub(crate) fn points(&self) -> u64 {
        float_count(&self.values) + weights(&self.histograms)
    }

    /// Makes a series of it and leaves it empty.
    pub(crate) fn take(&mut self, labels: Labels, drop_name: bool) -> VectorSeries {
        VectorSeries {
            labels,
            drop_name,
            values: std::mem::take(&mut self.values),
            histograms: std::mem::take(&mut self.histograms),
        }
    }
}

fn float_count(values: &[f64]) -> u64 {
    values.iter().filter(|v| !is_absent(**v)).count() as u64
}

fn weights(histograms: &Histograms) -> u64 {
    histograms.iter().map(|(_, h)| weight(h)).sum()
}

/// How many floats a histogram counts for: by its memory, a float with its time being 16 bytes.
pub(crate) fn weight(histogram: &FloatHistogram) -> u64 {
    let counts = histogram.positive_counts.len() + histogram.negative_counts.len();
    let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
    let bytes = size_of::<FloatHistogram>() + 8 * (counts + spans + histogram.custom_values.len());
    (bytes as u64).div_ceil(16)
}

impl VectorSeries {
    /// A series from its parts.
    pub fn new(labels: Labels, drop_name: bool, values: Vec<f64>) -> VectorSeries {
        VectorSeries {
            labels,
            drop_name,
            values,
            histograms: Vec::new(),
        }
    }

    /// Whether no step has a sample.
    pub fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.values.iter().all(|v| is_absent(*v))
    }

    /// Samples as the budget counts them.
    pub(crate) fn points(&self) -> u64 {
        float_count(&self.values) + weights(&self.histograms)
    }

    /// The histogram at a step.
    pub(crate) fn histogram(&self, step: usize) -> Option<&Arc<FloatHistogram>> {
        if self.histograms.is_empty() {
            return None;
        }
        let at = self
            .histograms
            .binary_search_by_key(&(step as u32), |(step, _)| *step);
        at.ok().map(|at| &self.histograms[at].1)
    }

    /// Whether there is a sample at a step.
    pub(crate) fn is_present(&self, step: usize) -> bool {
        !is_absent(self.values[step]) || self.histogram(step).is_some()
    }

    /// Sets `seen` at the steps that have a sample.
    pub(crate) fn mark_present(&self, seen: &mut [bool]) {
        for (seen, value) in seen.iter_mut().zip(&self.values) {
            *seen |= !is_absent(*value);
        }
        for (step, _) in &self.histograms {
            seen[*step as usize] = true;
        }
    }

    /// Removes the samples of other steps.
    pub(crate) fn keep_steps(&mut self, kept: impl Fn(usize) -> bool) {
        for (step, value) in self.values.iter_mut().enumerate() {
            if !kept(step) {
                *value = ABSENT;
            }
        }
        self.histograms.retain(|(step, _)| kept(*step as usize));
    }

    /// Adds the samples of `more`; both at one step is an error.
    pub(crate) fn join(&mut self, more: VectorSeries) -> Result<(), Error> {
        let clash = || Error::execution("vector cannot contain metrics with the same labelset");
        for (step, histogram) in more.histograms {
            if !is_absent(self.values[step as usize]) {
                return Err(clash());
            }
            match self
                .histograms
                .binary_search_by_key(&step, |(step, _)| *step)
            {
                Ok(_) => return Err(clash()),
                Err(at) => self.histograms.insert(at, (step, histogram)),
            }
        }
        for (step, more) in more.values.iter().enumerate() {
            if is_absent(*more) {
                continue;
            }
            if self.is_present(step) {
                return Err(clash());
            }
            self.values[step] = *more;
        }
        Ok(())
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
