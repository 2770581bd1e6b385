//! The aggregations that keep some of their series: `topk`, `bottomk`, `limitk`, `limit_ratio`.
//!
//! Series are numbered by their order in the input, and of equal values the lower number wins; so the choice is the same however the
//! series were partitioned. [`Best`] holds a bounded heap per group and step; heaps of partitions merge.

use std::cmp::Ordering;

use model::Labels;

use crate::Error;
use crate::aggregate::AggregateOp;
use crate::annotations::Notes;
use crate::functions::quantile::{self, go_number};
use crate::value::{ABSENT, VectorSeries, is_absent};

/// The least number that is too large for 64 bits with a sign.
const INT64: f64 = 9_223_372_036_854_775_808.0;

/// Checks the parameter of an aggregation once, before its series are looked at; it stands as argument 0 in `notes`.
///
/// Errors: a `k` that is NaN or does not fit 64 bits, a ratio that is NaN. Warns about quantiles and ratios out of range.
pub(crate) fn check_parameter(
    op: AggregateOp,
    parameter: &[f64],
    notes: &mut Notes<'_>,
) -> Result<(), Error> {
    match op {
        AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
            // Nothing is wanted anywhere.
            if parameter.iter().all(|k| *k < 1.0) {
                return Ok(());
            }
            for k in parameter {
                let fault = match *k {
                    k if k.is_nan() => "Parameter value is NaN".to_owned(),
                    k if k <= -INT64 => format!("Scalar value {} underflows int64", go_number(k)),
                    k if k >= INT64 => format!("Scalar value {} overflows int64", go_number(k)),
                    _ => continue,
                };
                return Err(Error::execution(fault));
            }
        }
        AggregateOp::LimitRatio => {
            for ratio in parameter {
                if ratio.is_nan() {
                    return Err(Error::execution("Ratio value is NaN"));
                }
                if ratio.abs() > 1.0 {
                    notes.warn(
                        0,
                        &format!(
                            "ratio value should be between -1 and 1, got {}, capping to {}",
                            go_number(*ratio),
                            go_number(ratio.signum())
                        ),
                    );
                }
            }
        }
        AggregateOp::Quantile => {
            for q in parameter {
                quantile::check(*q, 0, notes);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Keeps what the operator chooses: a value not chosen at its step becomes absent, a series without any chosen one is removed.
///
/// `groups[i]` is the group of `series[i]`, numbered from 0 in order of first appearance; `parameter` has one value per step and
/// has passed [`check_parameter`]. For an instant query `topk` and `bottomk` order by group, then by value.
pub(crate) fn select(
    op: AggregateOp,
    groups: &[u32],
    series: Vec<VectorSeries>,
    parameter: &[f64],
    instant: bool,
) -> Vec<VectorSeries> {
    assert_eq!(groups.len(), series.len());
    match op {
        AggregateOp::Topk | AggregateOp::Bottomk => {
            let mut best = Best::new(op, parameter);
            for (i, (group, one)) in groups.iter().zip(&series).enumerate() {
                best.add(*group, i as u32, &one.values);
            }
            let chosen = best.chosen();
            let mut kept = Vec::with_capacity(chosen.len());
            for (number, one) in (0u32..).zip(series) {
                if chosen.binary_search(&number).is_ok() {
                    kept.push((number, one.labels, one.drop_name));
                }
            }
            best.keep(kept, instant)
        }
        AggregateOp::Limitk => limit_k(groups, series, parameter),
        AggregateOp::LimitRatio => limit_ratio(series, parameter),
        _ => panic!("{} keeps no series", op.name()),
    }
}

/// How many series each group has.
fn sizes(groups: &[u32]) -> Vec<u32> {
    let mut sizes = Vec::new();
    for group in groups {
        let group = *group as usize;
        if group >= sizes.len() {
            sizes.resize(group + 1, 0);
        }
        sizes[group] += 1;
    }
    sizes
}

/// A value and the number of its series.
type Entry = (f64, u32);

/// The best k of every group at every step.
#[derive(Debug, Clone)]
pub(crate) struct Best {
    order: Order,
    /// k per step, at least 0.
    limits: Vec<u32>,
    /// By group; those not met yet are empty or missing.
    groups: Vec<Heaps>,
}

/// The heaps of one group, one per step.
#[derive(Debug, Clone, Default)]
struct Heaps {
    /// Room per heap. Grows with what is offered, so that an absurd k costs nothing.
    room: usize,
    /// `room` places per step, the worst entry of a heap first.
    entries: Vec<Entry>,
    /// Entries per heap.
    lengths: Vec<u32>,
}

impl Heaps {
    fn heap(&self, step: usize) -> &[Entry] {
        let length = self.lengths.get(step).map_or(0, |length| *length as usize);
        &self.entries[step * self.room..][..length]
    }

    /// Doubles the room, for `steps` heaps.
    fn grow(&mut self, steps: usize) {
        let room = (2 * self.room).max(2);
        let mut entries = vec![(ABSENT, 0); room * steps];
        for step in 0..steps {
            let heap = self.heap(step);
            entries[step * room..][..heap.len()].copy_from_slice(heap);
        }
        self.lengths.resize(steps, 0);
        self.entries = entries;
        self.room = room;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    LargestFirst,
    SmallestFirst,
}

impl Order {
    /// `Less` when `a` goes before `b` in the result: by value, NaN last, of equals the lower number.
    #[inline]
    fn compare(self, a: Entry, b: Entry) -> Ordering {
        let by_value = match self {
            Order::LargestFirst => b.0.partial_cmp(&a.0),
            Order::SmallestFirst => a.0.partial_cmp(&b.0),
        };
        by_value
            .unwrap_or_else(|| a.0.is_nan().cmp(&b.0.is_nan()))
            .then(a.1.cmp(&b.1))
    }
}

impl Best {
    /// Nothing chosen yet. `parameter` is k per step. Memory: at most twice what is chosen, per group at its fullest step.
    pub(crate) fn new(op: AggregateOp, parameter: &[f64]) -> Best {
        let order = match op {
            AggregateOp::Topk => Order::LargestFirst,
            AggregateOp::Bottomk => Order::SmallestFirst,
            _ => panic!("{} has no best values", op.name()),
        };
        Best {
            order,
            limits: parameter.iter().map(|k| whole_limit(*k)).collect(),
            groups: Vec::new(),
        }
    }

    /// Offers the column of a series.
    pub(crate) fn add(&mut self, group: u32, number: u32, values: &[f64]) {
        assert_eq!(values.len(), self.limits.len());
        for (step, value) in values.iter().enumerate() {
            if !is_absent(*value) {
                self.offer(group as usize, step, (*value, number));
            }
        }
    }

    /// Offers all that another partition has chosen.
    pub(crate) fn merge(&mut self, other: &Best) {
        assert_eq!((&self.limits, self.order), (&other.limits, other.order));
        for (group, heaps) in other.groups.iter().enumerate() {
            for step in 0..other.limits.len() {
                for entry in heaps.heap(step) {
                    self.offer(group, step, *entry);
                }
            }
        }
    }

    #[inline]
    fn offer(&mut self, group: usize, step: usize, entry: Entry) {
        let (limit, order) = (self.limits[step] as usize, self.order);
        if limit == 0 {
            return;
        }
        if group >= self.groups.len() {
            self.groups.resize_with(group + 1, Heaps::default);
        }
        let heaps = &mut self.groups[group];
        let length = heaps.heap(step).len();
        if length < limit && length == heaps.room {
            heaps.grow(self.limits.len());
        }
        let start = step * heaps.room;
        if length < limit {
            let heap = &mut heaps.entries[start..=start + length];
            heap[length] = entry;
            sift_up(heap, order);
            heaps.lengths[step] += 1;
        } else {
            let heap = &mut heaps.entries[start..start + length];
            if order.compare(entry, heap[0]).is_lt() {
                heap[0] = entry;
                sift_down(heap, order);
            }
        }
    }

    /// All heaps, group by group, step by step.
    fn heaps(&self) -> impl Iterator<Item = (usize, &[Entry])> {
        self.groups
            .iter()
            .flat_map(|heaps| (0..self.limits.len()).map(move |step| (step, heaps.heap(step))))
    }

    /// The numbers of the series chosen at some step, ascending.
    pub(crate) fn chosen(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = self
            .heaps()
            .flat_map(|(_, heap)| heap)
            .map(|entry| entry.1)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// The result. `chosen` has number, labels and whether the name goes of each series in [`Best::chosen`], in that order.
    pub(crate) fn keep(
        &self,
        chosen: Vec<(u32, Labels, bool)>,
        instant: bool,
    ) -> Vec<VectorSeries> {
        let steps = self.limits.len();
        let (numbers, mut kept): (Vec<u32>, Vec<Option<VectorSeries>>) = chosen
            .into_iter()
            .map(|(number, labels, drop_name)| {
                let series = VectorSeries::new(labels, drop_name, vec![ABSENT; steps]);
                (number, Some(series))
            })
            .unzip();
        let mut order: Vec<usize> = Vec::new();
        for (step, heap) in self.heaps() {
            let mut heap = heap.to_vec();
            heap.sort_unstable_by(|a, b| self.order.compare(*a, *b));
            for (value, number) in heap {
                let at = numbers.binary_search(&number).expect("was chosen");
                kept[at].as_mut().expect("not taken yet").values[step] = value;
                order.push(at);
            }
        }
        if !instant {
            order.sort_unstable();
        }
        order.into_iter().filter_map(|at| kept[at].take()).collect()
    }
}

/// k as a number of series: below 1 means none.
fn whole_limit(k: f64) -> u32 {
    // `as` saturates, and no query has 4 billion series.
    k as u32
}

fn sift_up(heap: &mut [Entry], order: Order) {
    let mut child = heap.len() - 1;
    while child > 0 {
        let parent = (child - 1) / 2;
        if order.compare(heap[child], heap[parent]).is_le() {
            break;
        }
        heap.swap(child, parent);
        child = parent;
    }
}

fn sift_down(heap: &mut [Entry], order: Order) {
    let mut parent = 0;
    loop {
        let left = 2 * parent + 1;
        if left >= heap.len() {
            return;
        }
        let right = left + 1;
        let worse = if right < heap.len() && order.compare(heap[right], heap[left]).is_gt() {
            right
        } else {
            left
        };
        if order.compare(heap[worse], heap[parent]).is_le() {
            return;
        }
        heap.swap(worse, parent);
        parent = worse;
    }
}

fn limit_k(groups: &[u32], mut series: Vec<VectorSeries>, parameter: &[f64]) -> Vec<VectorSeries> {
    let steps = parameter.len();
    let limits: Vec<u32> = parameter.iter().map(|k| whole_limit(*k)).collect();
    let mut taken = vec![0u32; sizes(groups).len() * steps];
    for (group, one) in groups.iter().zip(&mut series) {
        let taken = &mut taken[*group as usize * steps..][..steps];
        one.histograms.retain(|(step, _)| {
            let step = *step as usize;
            let take = taken[step] < limits[step];
            taken[step] += u32::from(take);
            take
        });
        for ((value, taken), limit) in one.values.iter_mut().zip(taken).zip(&limits) {
            if is_absent(*value) {
                continue;
            }
            if *taken < *limit {
                *taken += 1;
            } else {
                *value = ABSENT;
            }
        }
    }
    series.retain(|one| !one.is_empty());
    series
}

fn limit_ratio(mut series: Vec<VectorSeries>, parameter: &[f64]) -> Vec<VectorSeries> {
    for one in &mut series {
        let offset = crate::aggregate::hash::label_hash(&one.labels) as f64 / u64::MAX as f64;
        one.keep_steps(|step| within_ratio(parameter[step].clamp(-1.0, 1.0), offset));
    }
    series.retain(|one| !one.is_empty());
    series
}

/// A positive ratio takes that share from the low end, a negative one from the high end; so r and r-1 divide all series.
fn within_ratio(ratio: f64, offset: f64) -> bool {
    if ratio >= 0.0 {
        offset < ratio
    } else {
        offset >= 1.0 + ratio
    }
}

#[cfg(test)]
mod tests;
