//! A column of times: regular ones are three numbers, others what is left when the regular part is taken away.
//!
//! | mode | after the count, the first time and the step | for |
//! | --- | --- | --- |
//! | regular | nothing | scrapes on time |
//! | jitter | distance of each time from where it should be | clocks that wander by milliseconds |
//! | steps | distance of each time from the one before | gaps, irregular samples |

use std::ops::Range;

use model::{TimeRange, Windows, varint};

use crate::error::Malformed;
use crate::ints::{self, Effort, take, take_byte, take_count, take_signed};
use crate::limits::RUN_SAMPLES_MAX;

const REGULAR: u8 = 0;
const JITTER: u8 = 1;
const STEPS: u8 = 2;

/// Appends a column of 1 to [`RUN_SAMPLES_MAX`] strictly ascending times; the first is told as its distance from `base`.
pub(crate) fn encode(times: &[i64], base: i64, effort: Effort, out: &mut Vec<u8>) {
    assert!(!times.is_empty() && times.len() <= RUN_SAMPLES_MAX);
    let first = times[0];
    let count = times.len() as u64;
    let steps: Vec<i64> = times.windows(2).map(|t| t[1].wrapping_sub(t[0])).collect();
    let step = common_step(&steps);
    let head = |mode: u8, out: &mut Vec<u8>| {
        out.push(mode);
        varint::put_u64(out, count);
        varint::put_i64(out, first.wrapping_sub(base));
        if mode != STEPS {
            varint::put_u64(out, step as u64);
        }
    };
    if steps.iter().all(|&s| s == step) {
        return head(REGULAR, out);
    }
    let due = |i: usize| first.wrapping_add(step.wrapping_mul(i as i64));
    let jitter: Vec<i64> = (1..times.len())
        .map(|i| times[i].wrapping_sub(due(i)))
        .collect();
    let (mode, column) = if ints::estimate(&jitter) < ints::estimate(&steps) {
        (JITTER, jitter)
    } else {
        (STEPS, steps)
    };
    head(mode, out);
    ints::encode(&column, effort, out);
}

/// The middle one of some steps: a few late or missing scrapes do not move it.
fn common_step(steps: &[i64]) -> i64 {
    if steps.is_empty() {
        return 0;
    }
    let mut sample: Vec<i64> = steps
        .iter()
        .step_by(steps.len().div_ceil(33))
        .copied()
        .collect();
    sample.sort_unstable();
    // Of an interval of whole tenths of a second with jitter, the interval itself.
    let middle = sample[sample.len() / 2];
    let round = middle.wrapping_add(50) / 100 * 100;
    if round > 0 && middle.wrapping_sub(round).unsigned_abs() <= 5 {
        round
    } else {
        middle
    }
}

/// A column that has been read. Regular times are not written out: where one lies is computed.
#[derive(Debug, Default)]
pub(crate) struct Times {
    count: usize,
    first: i64,
    /// Between two of them; 0: they are in `list`.
    step: u64,
    list: Vec<i64>,
}

impl Times {
    /// Reads a column of at least one time off the front of `bytes` in place of what was here. On an error this holds anything.
    pub(crate) fn read(&mut self, bytes: &mut &[u8], base: i64) -> Result<(), Malformed> {
        let mode = take_byte(bytes, "mode of times")?;
        let count = take_count(bytes, RUN_SAMPLES_MAX, "count of times")?;
        if count == 0 {
            return Err(Malformed::new("count of times", "at least 1", 0));
        }
        let first = base.wrapping_add(take_signed(bytes, "first time")?);
        let step = match mode {
            REGULAR | JITTER => take(bytes, "step of times")?,
            STEPS => 0,
            other => return Err(Malformed::new("mode of times", "0 to 2", other)),
        };
        (self.count, self.first, self.step) = (count, first, 0);
        self.list.clear();
        let more = count as u64 - 1;
        let ascend = match mode {
            // The only time of a column may have any step.
            REGULAR if more == 0 => {
                self.list.push(first);
                true
            }
            REGULAR => {
                self.step = step;
                let last = i128::from(first) + i128::from(step) * i128::from(more);
                step > 0 && last <= i128::from(i64::MAX)
            }
            _ => {
                self.list.resize(count, first);
                let rest = &mut self.list[1..];
                ints::decode(bytes, rest)?;
                let mut due = first;
                if mode == JITTER {
                    for slot in rest {
                        due = due.wrapping_add(step as i64);
                        *slot = due.wrapping_add(*slot);
                    }
                } else {
                    for slot in rest {
                        due = due.wrapping_add(*slot);
                        *slot = due;
                    }
                }
                let pairs = self.list.iter().zip(&self.list[1..]);
                pairs.fold(true, |all, (a, b)| all & (a < b))
            }
        };
        match ascend {
            true => Ok(()),
            false => Err(Malformed::new("times", "ascending", "others")),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// One of them, by its place.
    #[inline]
    pub(crate) fn at(&self, place: usize) -> i64 {
        debug_assert!(place < self.count);
        match self.step {
            0 => self.list[place],
            step => (self.first).wrapping_add(step.wrapping_mul(place as u64) as i64),
        }
    }

    pub(crate) fn ends(&self) -> (i64, i64) {
        (self.first, self.at(self.count - 1))
    }

    /// The place, `from` or behind it, of the first that is not before `time`; the count where all are.
    fn seek(&self, from: usize, time: i64) -> usize {
        if self.step == 0 {
            // Mostly near.
            let list = &self.list[from..];
            let mut reach = 1;
            while reach < list.len() && list[reach] < time {
                reach *= 2;
            }
            let near = &list[reach / 2..list.len().min(reach + 1)];
            return from + reach / 2 + near.partition_point(|&t| t < time);
        }
        if time <= self.first {
            return from;
        }
        let ahead = time.wrapping_sub(self.first) as u64;
        let place = ahead.div_ceil(self.step).min(self.count as u64);
        (place as usize).max(from)
    }

    /// Whether any lies in `min..=max`.
    pub(crate) fn any_in(&self, min: i64, max: i64) -> bool {
        let first = self.seek(0, min);
        first < self.count && self.at(first) <= max
    }

    /// Which of them are in a range, as ascending ranges of places that are not empty, in place of what `picks` held.
    ///
    /// Where windows follow each other so closely that finding them is more work than they save, what lies between them is in it too.
    pub(crate) fn pick(&self, range: &TimeRange, picks: &mut Vec<Range<usize>>) {
        picks.clear();
        let mut at = self.seek(0, range.min);
        let end = match range.max.checked_add(1) {
            Some(behind) => self.seek(0, behind),
            None => self.count,
        };
        if at >= end {
            return;
        }
        let Some(windows) = range.windows.filter(|windows| self.is_fine_for(windows)) else {
            picks.push(at..end);
            return;
        };
        while at < end {
            let time = self.at(at);
            let Some(first) = windows.first_from(time) else {
                break;
            };
            if first > time {
                at = self.seek(at, first);
                continue;
            }
            let behind = windows.last_of(time).checked_add(1);
            let until = behind.map_or(self.count, |behind| self.seek(at, behind));
            let until = until.min(end);
            picks.push(at..until);
            at = until;
        }
    }

    /// Whether there are some times from window to window.
    fn is_fine_for(&self, windows: &Windows) -> bool {
        let (first, last) = self.ends();
        let spaces = self.count as u64 - 1;
        let step = windows.step() as u64;
        last.wrapping_sub(first) as u64 / spaces.max(1) <= step / TIMES_A_WINDOW_MIN
    }

    /// Appends those at some places.
    pub(crate) fn put(&self, picks: &[Range<usize>], out: &mut Vec<i64>) {
        for pick in picks {
            match self.step {
                0 => out.extend_from_slice(&self.list[pick.clone()]),
                step => {
                    let from = self.at(pick.start);
                    let due =
                        |more: usize| from.wrapping_add(step.wrapping_mul(more as u64) as i64);
                    out.extend((0..pick.len()).map(due));
                }
            }
        }
    }
}

/// Times from one window to the next, from which on what lies between is left out: two divisions and a jump for each window are worth some samples.
const TIMES_A_WINDOW_MIN: u64 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn len(times: &[i64]) -> usize {
        let mut bytes = Vec::new();
        encode(times, 1_700_000_000_000, Effort::Best, &mut bytes);
        let (mut rest, mut read) = (&bytes[..], Times::default());
        read.read(&mut rest, 1_700_000_000_000).unwrap();
        assert!(rest.is_empty());
        let mut out = vec![1];
        read.put(std::slice::from_ref(&(0..times.len())), &mut out);
        assert_eq!(&out[1..], times);
        assert_eq!(read.ends(), (times[0], times[times.len() - 1]));
        bytes.len()
    }

    #[test]
    fn regular_times_are_a_few_bytes_and_jitter_a_few_bits_each() {
        let due = |i: i64| 1_700_000_000_123 + i * 15_000;
        assert!(len(&(0..480).map(due).collect::<Vec<_>>()) <= 8);
        let jitter: Vec<i64> = (0..480).map(|i| due(i) + i * i % 3).collect();
        assert!(len(&jitter) < 480 / 4 + 16);
        let missed: Vec<i64> = (0..480)
            .filter(|i| i % 100 != 50)
            .map(|i| due(i) + i * i % 3)
            .collect();
        assert!(len(&missed) < 480 / 8 * 3 + 40);
        assert_eq!(len(&[i64::MIN]), 1 + 1 + 10 + 1);
    }

    proptest! {
        #[test]
        fn any_ascending_times_come_back(
            times in prop::collection::btree_set(prop_oneof![any::<i64>(), 0i64..1000, Just(i64::MIN), Just(i64::MAX)], 1..200)
        ) {
            len(&times.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn hostile_bytes_are_an_error_or_ascend(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut read = Times::default();
            if read.read(&mut &bytes[..], 5).is_ok() {
                let mut out = Vec::new();
                read.put(std::slice::from_ref(&(0..read.count())), &mut out);
                prop_assert!(out.is_sorted_by(|a, b| a < b));
            }
        }
    }
}
