//! Buckets as OTLP counts them, in the layout of native histograms.
//!
//! Bucket `i` of an exponential histogram of scale `s` holds what is in `(b^i, b^(i+1)]`, `b = 2^(2^-s)`; Prometheus numbers a bucket by its
//! upper bound, so `i` there is `i + 1` here. Halving the resolution makes one bucket of two: `i` becomes `i >> 1`, before the 1 is added.
//! Buckets without observations are left out where more than two of them stand in a row, as Prometheus' clients do.

use model::Span;

use crate::limits::HISTOGRAM_PARTS_MAX;

/// Empty buckets that are written rather than begin another span.
const GAP_MAX: i64 = 2;

/// One side of a histogram; buckets come in ascending order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) spans: Vec<Span>,
    pub(super) deltas: Vec<i64>,
    /// The bucket that may still grow.
    open: Option<(i64, i64)>,
    /// Number of the bucket after the last one written.
    next: i64,
    /// Count of the last bucket written.
    before: i64,
}

impl Side {
    /// Adds observations to a bucket, by Prometheus' number.
    ///
    /// Errors: words for the sender.
    pub(super) fn add(&mut self, index: i64, count: u64) -> Result<(), &'static str> {
        const TOO_LARGE: &str = "a bucket of it counts too much";
        if count == 0 {
            return Ok(());
        }
        let count = i64::try_from(count).map_err(|_| TOO_LARGE)?;
        match &mut self.open {
            Some((open, sum)) if *open == index => {
                *sum = sum.checked_add(count).ok_or(TOO_LARGE)?;
                Ok(())
            }
            _ => {
                self.write()?;
                self.open = Some((index, count));
                Ok(())
            }
        }
    }

    /// Writes the last bucket.
    pub(super) fn finish(&mut self) -> Result<(), &'static str> {
        self.write()
    }

    fn write(&mut self) -> Result<(), &'static str> {
        let Some((index, count)) = self.open.take() else {
            return Ok(());
        };
        let gap = index - self.next;
        match self.spans.last_mut() {
            Some(span) if gap <= GAP_MAX => {
                for _ in 0..gap {
                    self.deltas.push(-self.before);
                    self.before = 0;
                }
                span.length += gap as u32 + 1;
            }
            _ => {
                let offset = i32::try_from(gap).map_err(|_| "a bucket of it is out of range")?;
                self.spans.push(Span { offset, length: 1 });
            }
        }
        if self.deltas.len() >= HISTOGRAM_PARTS_MAX {
            return Err("it has too many buckets");
        }
        self.deltas.push(count - self.before);
        self.before = count;
        self.next = index + 1;
        Ok(())
    }
}

/// The number that Prometheus gives to a bucket of OTLP, after its resolution was halved so many times.
pub(super) fn exponential_index(index: i64, halvings: u32) -> i64 {
    (index >> halvings.min(63)) + 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Counts by number, as whoever reads the layout sees them.
    fn counts(side: &Side) -> BTreeMap<i64, i64> {
        let mut deltas = side.deltas.iter();
        let (mut index, mut count) = (0, 0);
        let mut counts = BTreeMap::new();
        for span in &side.spans {
            index += i64::from(span.offset);
            for _ in 0..span.length {
                count += deltas.next().expect("as many deltas as the spans say");
                if count != 0 {
                    counts.insert(index, count);
                }
                index += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        counts
    }

    fn side(offset: i64, counts: &[u64], halvings: u32) -> Side {
        let mut side = Side::default();
        for (index, count) in (offset..).zip(counts) {
            side.add(exponential_index(index, halvings), *count)
                .unwrap();
        }
        side.finish().unwrap();
        side
    }

    #[test]
    fn the_layout_is_that_of_prometheus() {
        // The cases of Prometheus' own tests: no gap, small gaps that are filled, a large one, and halving.
        let span = |offset, length| Span { offset, length };
        let whole = side(1, &[4, 3, 2, 1], 0);
        assert_eq!(
            (whole.spans, whole.deltas),
            (vec![span(2, 4)], vec![4, -1, -1, -1])
        );
        let small = side(0, &[4, 3, 2, 0, 0, 1], 0);
        assert_eq!(small.spans, [span(1, 6)]);
        assert_eq!(small.deltas, [4, -1, -1, -2, 0, 1]);
        let large = side(0, &[4, 3, 0, 0, 0, 0, 0, 1], 0);
        assert_eq!(large.spans, [span(1, 2), span(5, 1)]);
        assert_eq!(large.deltas, [4, -1, -2]);
        let halved = side(0, &[4, 3, 2, 1], 1);
        assert_eq!(
            (halved.spans, halved.deltas),
            (vec![span(1, 2)], vec![7, -4])
        );
        // An odd begin: buckets -1, 0, 1 become -1 and 0.
        let odd = side(-1, &[1, 2, 3], 1);
        assert_eq!((odd.spans, odd.deltas), (vec![span(0, 2)], vec![1, 4]));
        assert!(side(5, &[0, 0], 0).spans.is_empty());
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        assert!(Side::default().add(0, u64::MAX).is_err());
        let mut side = Side::default();
        side.add(1, i64::MAX as u64).unwrap();
        assert!(side.add(1, 1).is_err());
        let mut far = Side::default();
        far.add(i64::from(i32::MAX) + 1, 1).unwrap();
        assert!(far.finish().is_err());
    }

    proptest! {
        /// Where an observation belongs is computed from its value, with logarithms: in OTLP's bucket of the fine scale, in Prometheus' of the
        /// coarse schema. The translation must lead from the one to the other.
        #[test]
        fn observations_stay_in_buckets_that_hold_them(
            values in prop::collection::vec(1e-3f64..1e6, 1..60),
            scale in 0i32..12,
        ) {
            let otlp = |value: f64| {
                // Scale s: bucket i holds (2^(i / 2^s), 2^((i + 1) / 2^s)].
                (value.log2() * f64::from(1 << scale)).ceil() as i64 - 1
            };
            let schema = scale.min(8);
            let prometheus = |value: f64| (value.log2() * f64::from(1 << schema)).ceil() as i64;
            let mut fine = BTreeMap::<i64, u64>::new();
            let mut wanted = BTreeMap::<i64, i64>::new();
            for &value in &values {
                *fine.entry(otlp(value)).or_default() += 1;
                *wanted.entry(prometheus(value)).or_default() += 1;
            }
            let first = *fine.keys().next().unwrap();
            let last = *fine.keys().next_back().unwrap();
            let dense: Vec<u64> = (first..=last).map(|i| fine.get(&i).copied().unwrap_or(0)).collect();
            let halvings = (scale - schema) as u32;
            prop_assert_eq!(counts(&side(first, &dense, halvings)), wanted);
        }
    }
}
