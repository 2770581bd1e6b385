//! When the counters of one tenant's series began, as their senders said (remote write 2.0).
//!
//! Per series a short list of (time of a sample, start): from that sample on the counter is the one that began then. A start only changes when
//! a counter begins anew, so a list has as many entries as the series had resets, and at most [`STARTS_MAX`]: the oldest leaves. A series
//! without any costs nothing. They are logged, checkpointed and replayed; a series that leaves memory takes its own along.

use std::collections::HashMap;

use model::TimeMs;

/// Starts kept of one series.
pub(crate) const STARTS_MAX: usize = 16;

/// From a sample on, the counter is the one that began at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Of the first sample of this counter that was seen.
    pub from: TimeMs,
    /// When the counter began, not after that.
    pub start: TimeMs,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    of_series: HashMap<u32, Vec<Start>>,
}

impl Starts {
    /// Whether this start says something that is not known: the counter began anew. One that is before what is known does not.
    pub(crate) fn is_news(&self, series: u32, start: Start) -> bool {
        let newest = self.of_series.get(&series).and_then(|list| list.last());
        start.start <= start.from
            && newest.is_none_or(|newest| start.start > newest.start && start.from >= newest.from)
    }

    /// Whether this start is the one that is known.
    pub(crate) fn is_known(&self, series: u32, start: Start) -> bool {
        let newest = self.of_series.get(&series).and_then(|list| list.last());
        newest.is_some_and(|newest| newest.start == start.start)
    }

    /// Keeps a start that is news.
    pub(crate) fn put(&mut self, series: u32, start: Start) {
        let list = self.of_series.entry(series).or_default();
        if list.len() == STARTS_MAX {
            list.remove(0);
        }
        if list.len() == list.capacity() {
            list.reserve_exact((list.len() / 2).max(1));
        }
        list.push(start);
    }

    /// A series has left.
    pub(crate) fn forget(&mut self, series: u32) {
        if !self.of_series.is_empty() {
            self.of_series.remove(&series);
        }
    }

    /// Those of samples in a range of times, both ends included, are deleted; says whether there were any.
    pub(crate) fn purge(&mut self, series: u32, min: i64, max: i64) -> bool {
        let Some(list) = self.of_series.get_mut(&series) else {
            return false;
        };
        let before = list.len();
        list.retain(|start| !(min..=max).contains(&start.from.0));
        let gone = list.len() < before;
        if list.is_empty() {
            self.of_series.remove(&series);
        }
        gone
    }

    /// Those of a series, ascending.
    pub(crate) fn of(&self, series: u32) -> &[Start] {
        self.of_series.get(&series).map_or(&[], |list| &list[..])
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.of_series.is_empty()
    }

    /// Heap bytes: of the table, and about one entry and a half a series.
    pub(crate) fn bytes(&self) -> usize {
        self.of_series.capacity() * (size_of::<(u32, Vec<Start>)>() + 1)
            + self.of_series.len() * size_of::<Start>() * 3 / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(from: i64, start: i64) -> Start {
        Start {
            from: TimeMs(from),
            start: TimeMs(start),
        }
    }

    #[test]
    fn only_a_later_start_is_news_and_the_oldest_leaves() {
        let mut starts = Starts::default();
        assert!(!starts.is_news(7, start(10, 11)), "began after its sample");
        for n in 1..=STARTS_MAX as i64 + 2 {
            assert!(starts.is_news(7, start(n * 10, n * 10 - 5)));
            starts.put(7, start(n * 10, n * 10 - 5));
            assert!(!starts.is_news(7, start(n * 10 + 1, n * 10 - 5)), "known");
            assert!(!starts.is_news(7, start(n * 10 + 1, n * 10 - 6)), "older");
        }
        assert_eq!(starts.of(7).len(), STARTS_MAX);
        assert_eq!(starts.of(7)[0], start(30, 25));
        assert!(starts.of(8).is_empty());
        starts.forget(7);
        assert!(starts.is_empty());
    }
}
