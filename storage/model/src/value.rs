//! What a query returns: the bridge between `promql`, which computes it, and `wire`, which writes it as JSON.

use crate::{FloatHistogram, Labels};

/// A float at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FloatPoint {
    /// Milliseconds since the epoch.
    pub t: i64,
    /// The value; never the staleness marker.
    pub v: f64,
}

/// A native histogram at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramPoint {
    /// Milliseconds since the epoch.
    pub t: i64,
    /// The value.
    pub h: Box<FloatHistogram>,
}

/// One value of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub enum SeriesValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Box<FloatHistogram>),
}

/// A series of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct InstantSample {
    /// Its labels.
    pub labels: Labels,
    /// Time in milliseconds.
    pub t: i64,
    /// Its value.
    pub value: SeriesValue,
}

/// A series of a matrix. Both lists ascend in time and share no time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RangeSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its floats.
    pub floats: Vec<FloatPoint>,
    /// Its histograms.
    pub histograms: Vec<HistogramPoint>,
}

/// The four result types of the HTTP API.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryValue {
    /// A number at a time (milliseconds).
    Scalar {
        /// When.
        t: i64,
        /// What.
        v: f64,
    },
    /// A text at a time (milliseconds).
    String {
        /// When.
        t: i64,
        /// What.
        s: String,
    },
    /// An instant vector, in the order in which the engine left it (`sort` and `topk` matter).
    Vector(Vec<InstantSample>),
    /// A matrix, sorted by labels.
    Matrix(Vec<RangeSeries>),
}
