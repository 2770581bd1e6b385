//! A trace that stands for a sample.

use crate::{Labels, TimeMs};

/// An example observation with its own labels (a trace id, usually).
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// Labels of the exemplar, not of its series.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// When it was observed.
    pub time: TimeMs,
}
