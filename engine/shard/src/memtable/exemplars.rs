//! The exemplars of one tenant on one core: a bounded number, the oldest arrival leaves first.
//!
//! Per series they ascend in time. As in Prometheus one that equals the newest of its series is there already, and one that comes
//! before it is dropped: equal times ascend in value. They are logged and replayed like samples, but no sample's fate depends on
//! theirs: nobody gets an error for an exemplar that is dropped here.
//!
//! `order` has a place for each arrival. A series that leaves memory takes its exemplars along; its places stay until their turn
//! comes, and are told from those of a later series of that number by a stamp.

use std::collections::{HashMap, VecDeque};

use model::Exemplar;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Exemplars {
    /// Oldest arrival first.
    order: VecDeque<(u32, u32)>,
    of_series: HashMap<u32, OfSeries>,
    /// Counts series that ever had an exemplar here.
    stamps: u32,
    /// Heap bytes of the labels.
    label_bytes: usize,
}

#[derive(Debug, Default)]
struct OfSeries {
    stamp: u32,
    list: VecDeque<Exemplar>,
}

/// What is to be done with an exemplar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Keep it.
    Keep,
    /// It is the newest of its series already.
    Repeated,
    /// It comes before the newest of its series.
    OutOfOrder,
}

impl Exemplars {
    /// What is to be done with an exemplar of a series.
    pub(crate) fn judge(&self, series: u32, exemplar: &Exemplar) -> Judgement {
        let newest = self.of_series.get(&series).and_then(|of| of.list.back());
        let Some(newest) = newest else {
            return Judgement::Keep;
        };
        let same_value = newest.value.to_bits() == exemplar.value.to_bits();
        if newest.time == exemplar.time && same_value && newest.labels == exemplar.labels {
            return Judgement::Repeated;
        }
        let before = exemplar.time < newest.time
            || (exemplar.time == newest.time && exemplar.value < newest.value);
        match before {
            true => Judgement::OutOfOrder,
            false => Judgement::Keep,
        }
    }

    /// Keeps one, and lets the oldest go where there are more than `count_max`.
    pub(crate) fn put(&mut self, series: u32, exemplar: Exemplar, count_max: usize) {
        self.label_bytes += exemplar.labels.packed().len();
        let of = self.of_series.entry(series).or_insert_with(|| {
            self.stamps = self.stamps.wrapping_add(1);
            OfSeries {
                stamp: self.stamps,
                list: VecDeque::new(),
            }
        });
        of.list.push_back(exemplar);
        self.order.push_back((series, of.stamp));
        while self.order.len() > count_max {
            self.drop_oldest();
        }
    }

    /// Lets the oldest go until there are no more than `count_max`, and gives back the memory of their places.
    pub(crate) fn bound(&mut self, count_max: usize) {
        if self.order.len() <= count_max {
            return;
        }
        while self.order.len() > count_max {
            self.drop_oldest();
        }
        self.order.shrink_to_fit();
        self.of_series.shrink_to_fit();
    }

    fn drop_oldest(&mut self) {
        let Some((series, stamp)) = self.order.pop_front() else {
            return;
        };
        let Some(of) = self
            .of_series
            .get_mut(&series)
            .filter(|of| of.stamp == stamp)
        else {
            return; // The series has left.
        };
        let dropped = of.list.pop_front().expect("a place for each exemplar");
        self.label_bytes -= dropped.labels.packed().len();
        if of.list.is_empty() {
            self.of_series.remove(&series);
        }
    }

    /// Those of a series in a range of times, both ends included, are deleted; says whether there were any. Their places stay until their turn comes, so of
    /// a series that has others these may leave that much earlier.
    pub(crate) fn purge(&mut self, series: u32, min: i64, max: i64) -> bool {
        let Some(of) = self.of_series.get_mut(&series) else {
            return false;
        };
        let before = of.list.len();
        let mut bytes = 0;
        of.list.retain(|exemplar| {
            let goes = (min..=max).contains(&exemplar.time.0);
            bytes += if goes {
                exemplar.labels.packed().len()
            } else {
                0
            };
            !goes
        });
        self.label_bytes -= bytes;
        let gone = of.list.len() < before;
        if of.list.is_empty() {
            self.of_series.remove(&series);
        }
        gone
    }

    /// A series has left.
    pub(crate) fn forget(&mut self, series: u32) {
        if self.of_series.is_empty() {
            return;
        }
        if let Some(of) = self.of_series.remove(&series) {
            let bytes = |exemplar: &Exemplar| exemplar.labels.packed().len();
            self.label_bytes -= of.list.iter().map(bytes).sum::<usize>();
        }
    }

    /// The exemplars of a series, ascending in time.
    pub(crate) fn of(&self, series: u32) -> impl Iterator<Item = &Exemplar> {
        let of = self.of_series.get(&series);
        of.into_iter().flat_map(|of| &of.list)
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.of_series.is_empty()
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.of_series.values().map(|of| of.list.len()).sum()
    }

    /// A replay is over: those that came from a checkpoint came series by series, now the oldest is first again.
    pub(crate) fn sort(&mut self) {
        let mut order: Vec<(i64, u32, u32)> = Vec::with_capacity(self.order.len());
        for (&series, of) in &self.of_series {
            order.extend(of.list.iter().map(|e| (e.time.0, series, of.stamp)));
        }
        order.sort_unstable();
        self.order = order
            .into_iter()
            .map(|(_, series, stamp)| (series, stamp))
            .collect();
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.order.capacity() * size_of::<(u32, u32)>()
            + self.of_series.capacity() * (size_of::<(u32, OfSeries)>() + 1)
            + self.order.len() * size_of::<Exemplar>()
            + self.label_bytes
    }
}

#[cfg(test)]
mod tests {
    use model::{Labels, TimeMs};

    use super::*;

    fn exemplar(time: i64, value: f64, id: &str) -> Exemplar {
        Exemplar {
            labels: Labels::from_pairs([("trace_id", id)]).unwrap(),
            value,
            time: TimeMs(time),
        }
    }

    fn times(exemplars: &Exemplars, series: u32) -> Vec<i64> {
        exemplars.of(series).map(|e| e.time.0).collect()
    }

    #[test]
    fn the_newest_of_a_series_decides() {
        let mut exemplars = Exemplars::default();
        assert_eq!(exemplars.judge(1, &exemplar(5, 1.0, "a")), Judgement::Keep);
        exemplars.put(1, exemplar(5, 1.0, "a"), 10);
        for (other, expected) in [
            (exemplar(5, 1.0, "a"), Judgement::Repeated),
            (exemplar(4, 9.0, "a"), Judgement::OutOfOrder),
            (exemplar(5, 0.5, "a"), Judgement::OutOfOrder),
            (exemplar(5, 1.0, "b"), Judgement::Keep),
            (exemplar(6, 0.0, "a"), Judgement::Keep),
        ] {
            assert_eq!(exemplars.judge(1, &other), expected, "{other:?}");
        }
        assert_eq!(exemplars.judge(2, &exemplar(1, 1.0, "a")), Judgement::Keep);
    }

    #[test]
    fn the_oldest_arrival_leaves_whichever_series_it_is_of() {
        let mut exemplars = Exemplars::default();
        for time in 0..6 {
            exemplars.put((time % 2) as u32, exemplar(time, 1.0, "a"), 3);
        }
        assert_eq!(
            (times(&exemplars, 0), times(&exemplars, 1)),
            (vec![4], vec![3, 5])
        );
        assert_eq!(exemplars.count(), 3);
    }

    #[test]
    fn a_number_that_is_given_out_again_loses_nothing_to_the_series_before() {
        let mut exemplars = Exemplars::default();
        exemplars.put(7, exemplar(1, 1.0, "a"), 3);
        exemplars.put(7, exemplar(2, 1.0, "a"), 3);
        exemplars.forget(7);
        assert!(exemplars.is_empty() && exemplars.label_bytes == 0);
        exemplars.put(7, exemplar(3, 1.0, "a"), 3);
        exemplars.put(7, exemplar(4, 1.0, "a"), 3);
        exemplars.put(7, exemplar(5, 1.0, "a"), 3);
        assert_eq!(
            times(&exemplars, 7),
            [3, 4, 5],
            "places of the former series went first"
        );
    }

    #[test]
    fn a_bound_takes_the_oldest_and_one_that_is_kept_nothing() {
        let mut exemplars = Exemplars::default();
        for time in 0..6 {
            exemplars.put((time % 2) as u32, exemplar(time, 1.0, "a"), 10);
        }
        exemplars.bound(6);
        assert_eq!(exemplars.count(), 6);
        exemplars.bound(2);
        assert_eq!(
            (times(&exemplars, 0), times(&exemplars, 1)),
            (vec![4], vec![5])
        );
        exemplars.bound(0);
        assert!(exemplars.is_empty() && exemplars.bytes() == 0);
    }

    #[test]
    fn after_a_replay_the_oldest_goes_first() {
        let mut exemplars = Exemplars::default();
        for (series, time) in [(1, 5), (1, 9), (2, 3), (2, 7)] {
            exemplars.put(series, exemplar(time, 1.0, "a"), 4);
        }
        exemplars.sort();
        exemplars.put(3, exemplar(10, 1.0, "a"), 4);
        assert_eq!(
            (times(&exemplars, 1), times(&exemplars, 2)),
            (vec![5, 9], vec![7])
        );
    }
}
