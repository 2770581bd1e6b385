//! The mean of histograms: a compensated sum and a count, until a number overflows; then an incremental mean.

use model::FloatHistogram;

use super::sum::{Notice, Sums};
use crate::histogram::Incompatible;

/// No sum of this many times smaller numbers can overflow; below it nothing has to be tried.
const SAFE: f64 = f64::MAX / 16.0;

/// A mean of histograms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Means {
    /// The sum, or the mean once `incremental`.
    sums: Sums,
    count: f64,
    incremental: bool,
    /// No number in `sums` is further from zero than this.
    bound: f64,
}

impl Means {
    /// The mean of one histogram.
    pub(crate) fn new(histogram: &FloatHistogram) -> Means {
        Means {
            sums: Sums::new(histogram),
            count: 1.0,
            incremental: false,
            bound: largest(histogram),
        }
    }

    /// Adds a histogram. Errors: one of both is exponential, the other custom; then nothing is changed.
    pub(crate) fn add(&mut self, histogram: &FloatHistogram) -> Result<Notice, Incompatible> {
        self.merge(Means::new(histogram))
    }

    /// Adds what another mean has; as [`Means::add`].
    pub(crate) fn merge(&mut self, mut other: Means) -> Result<Notice, Incompatible> {
        let count = self.count + other.count;
        if !self.incremental && !other.incremental {
            let bound = self.bound + other.bound;
            if bound < SAFE {
                let notice = self.sums.merge(other.sums)?;
                (self.count, self.bound) = (count, bound);
                return Ok(notice);
            }
            let mut tried = self.sums.clone();
            let notice = tried.merge(other.sums.clone())?;
            if !tried.overflows() {
                (self.sums, self.count, self.bound) = (tried, count, bound);
                return Ok(notice);
            }
        }
        if self.sums.is_custom() != other.sums.is_custom() {
            return Err(Incompatible);
        }
        self.make_incremental();
        other.make_incremental();
        self.sums.scale(self.count / count);
        other.sums.scale(other.count / count);
        self.count = count;
        self.sums.merge(other.sums)
    }

    fn make_incremental(&mut self) {
        if !self.incremental {
            self.incremental = true;
            self.sums.divide(self.count);
        }
    }

    /// The mean, without empty buckets.
    pub(crate) fn value(&self) -> FloatHistogram {
        if self.incremental {
            return self.sums.value();
        }
        let mut sums = self.sums.clone();
        sums.divide(self.count);
        sums.value()
    }
}

/// The largest distance from zero of a number in it; NaN does not count.
fn largest(histogram: &FloatHistogram) -> f64 {
    [histogram.zero_count, histogram.count, histogram.sum]
        .iter()
        .chain(&histogram.positive_counts)
        .chain(&histogram.negative_counts)
        .fold(0.0, |largest: f64, value| largest.max(value.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: f64, sum: f64) -> FloatHistogram {
        FloatHistogram {
            count,
            sum,
            ..FloatHistogram::default()
        }
    }

    fn mean(histograms: &[FloatHistogram], cut: usize) -> FloatHistogram {
        let part = |histograms: &[FloatHistogram]| {
            let mut means = Means::new(&histograms[0]);
            for histogram in &histograms[1..] {
                means.add(histogram).unwrap();
            }
            means
        };
        let mut means = part(&histograms[..cut]);
        if cut < histograms.len() {
            means.merge(part(&histograms[cut..])).unwrap();
        }
        means.value()
    }

    #[test]
    fn means_survive_an_overflow_of_their_sum_however_partitioned() {
        let large = [
            of(f64::MAX, 1.0),
            of(1e308, 1e100),
            of(1e-6, 1.0),
            of(1e-6, -1e100),
        ];
        for cut in 1..=4 {
            let got = mean(&large, cut);
            let expected = f64::MAX / 4.0 + 1e308 / 4.0;
            assert!((got.count / expected - 1.0).abs() < 1e-15, "{}", got.count);
            assert_eq!(got.sum, 0.5);
        }
    }

    #[test]
    fn a_plain_mean_is_compensated() {
        let values = [of(2.0, 1e100), of(4.0, 1.0), of(6.0, -1e100), of(0.0, 7.0)];
        for cut in 1..=4 {
            assert_eq!(mean(&values, cut), of(3.0, 2.0));
        }
    }

    #[test]
    fn a_term_of_the_other_kind_changes_nothing() {
        let custom = FloatHistogram {
            schema: model::CUSTOM_BUCKETS_SCHEMA,
            ..FloatHistogram::default()
        };
        for first in [of(4.0, 1.0), of(f64::MAX, 1.0)] {
            let mut means = Means::new(&first);
            means.add(&first).unwrap();
            assert_eq!(means.add(&custom), Err(Incompatible));
            assert_eq!(means.value(), first);
        }
    }
}
