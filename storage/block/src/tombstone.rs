//! What has been deleted, and the filter that a reader or a merge puts on samples.

use model::{Labels, Matcher};

/// A deletion: samples of `min_time..=max_time` of the series that pass all matchers, as far as they were logged before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// From, inclusive.
    pub min_time: i64,
    /// Until, inclusive.
    pub max_time: i64,
    /// Order of logging at which it was made: it applies to files of a smaller [`crate::Info::order`]. Samples written after a
    /// deletion stay.
    pub order: u64,
}

impl Tombstone {
    /// Whether nothing is left of a file of this order.
    pub fn takes_all(&self, order: u64) -> bool {
        let times = (self.min_time, self.max_time) == (i64::MIN, i64::MAX);
        order < self.order && self.matchers.is_empty() && times
    }

    fn matches(&self, labels: &Labels) -> bool {
        self.matchers
            .iter()
            .all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or("")))
    }
}

/// Times of a series that are gone: ascending, neither touching nor overlapping.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gone {
    spans: Vec<(i64, i64)>,
}

impl Gone {
    /// What `tombstones` and a retention (nothing before `keep_from`) take away from a series of a file of this order.
    pub fn of(labels: &Labels, order: u64, keep_from: i64, tombstones: &[Tombstone]) -> Gone {
        let mut spans: Vec<(i64, i64)> = tombstones
            .iter()
            .filter(|t| order < t.order && t.min_time <= t.max_time && t.matches(labels))
            .map(|t| (t.min_time, t.max_time))
            .collect();
        if let Some(last) = keep_from.checked_sub(1) {
            spans.push((i64::MIN, last));
        }
        Gone::of_spans(spans)
    }

    /// All of these times, both ends included; they may overlap.
    pub fn of_spans(mut spans: Vec<(i64, i64)>) -> Gone {
        spans.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::with_capacity(spans.len());
        for (min, max) in spans {
            match joined.last_mut() {
                Some(last) if min <= last.1.saturating_add(1) => last.1 = last.1.max(max),
                _ => joined.push((min, max)),
            }
        }
        Gone { spans: joined }
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether a time is.
    pub fn contains(&self, time: i64) -> bool {
        let at = self.spans.partition_point(|span| span.1 < time);
        self.spans.get(at).is_some_and(|span| span.0 <= time)
    }

    /// Whether all of `min..=max` is.
    pub fn covers(&self, min: i64, max: i64) -> bool {
        let at = self.spans.partition_point(|span| span.1 < min);
        self.spans
            .get(at)
            .is_some_and(|span| span.0 <= min && max <= span.1)
    }

    /// Whether any of `min..=max` is.
    pub fn overlaps(&self, min: i64, max: i64) -> bool {
        let at = self.spans.partition_point(|span| span.1 < min);
        self.spans.get(at).is_some_and(|span| span.0 <= max)
    }

    /// Calls `keep` with the stretches of ascending `times` that are not gone.
    pub fn for_each_kept(&self, times: &[i64], keep: &mut dyn FnMut(std::ops::Range<usize>)) {
        let mut from = 0;
        for &(min, max) in &self.spans {
            let to = from + times[from..].partition_point(|&t| t < min);
            if to > from {
                keep(from..to);
            }
            from = to + times[to..].partition_point(|&t| t <= max);
        }
        if from < times.len() {
            keep(from..times.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletions_take_what_was_logged_before_them() {
        let up = Labels::from_pairs([("__name__", "up"), ("job", "a")]).unwrap();
        let tombstone = |name: &str, min_time, max_time, order| Tombstone {
            matchers: vec![Matcher::equal("__name__", name)],
            min_time,
            max_time,
            order,
        };
        let all = [
            tombstone("up", 10, 20, 5),
            tombstone("up", 21, 30, 5),
            tombstone("up", 50, 60, 3),
            tombstone("down", 0, 100, 9),
        ];
        let gone = Gone::of(&up, 4, 5, &all);
        assert_eq!(gone.spans, [(i64::MIN, 4), (10, 30)]);
        assert!(gone.overlaps(30, 31) && gone.overlaps(0, 99) && !gone.overlaps(31, 99));
        assert!(gone.covers(10, 30) && !gone.covers(9, 30) && !gone.covers(10, 31));
        let times = [1, 4, 5, 9, 10, 30, 31, 40];
        let mut kept = Vec::new();
        gone.for_each_kept(&times, &mut |range| kept.extend_from_slice(&times[range]));
        assert_eq!(kept, [5, 9, 31, 40]);
        assert!(times.iter().all(|&t| gone.contains(t) != kept.contains(&t)));
        assert!(Gone::of(&up, 9, i64::MIN, &all).is_empty());
    }
}
