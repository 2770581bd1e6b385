//! A float sample, and the one NaN that is not a value.

use crate::TimeMs;

/// A value at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When.
    pub time: TimeMs,
    /// What; [`is_stale`] values mark the end of a series.
    pub value: f64,
}

/// The bits of the staleness marker. Source: Prometheus `model/value`.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The staleness marker.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// True for the staleness marker only, not for other NaNs.
#[inline]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// Whether two samples of the same time carry the same value: by bits, so that NaNs equal themselves and -0 is not 0.
#[inline]
pub fn same_value(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}
