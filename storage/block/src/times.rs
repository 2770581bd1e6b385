//! A column of times: regular ones are three numbers, others what is left when the regular part is taken away.
//!
//! | mode | after the count, the first time and the step | for |
//! | --- | --- | --- |
//! | regular | nothing | scrapes on time |
//! | jitter | distance of each time from where it should be | clocks that wander by milliseconds |
//! | steps | distance of each time from the one before | gaps, irregular samples |

use model::varint;

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

/// Reads a column off the front of `bytes` and appends it to `out`.
pub(crate) fn decode(bytes: &mut &[u8], base: i64, out: &mut Vec<i64>) -> Result<(), Malformed> {
    let mode = take_byte(bytes, "mode of times")?;
    let count = take_count(bytes, RUN_SAMPLES_MAX, "count of times")?;
    if count == 0 {
        return Err(Malformed::new("count of times", "at least 1", 0));
    }
    let first = base.wrapping_add(take_signed(bytes, "first time")?);
    let step = match mode {
        REGULAR | JITTER => take(bytes, "step of times")? as i64,
        STEPS => 0,
        other => return Err(Malformed::new("mode of times", "0 to 2", other)),
    };
    let start = out.len();
    out.resize(start + count, first);
    let rest = &mut out[start + 1..];
    let mut due = first;
    match mode {
        REGULAR => {
            for slot in rest {
                due = due.wrapping_add(step);
                *slot = due;
            }
        }
        JITTER => {
            ints::decode(bytes, rest)?;
            for slot in rest {
                due = due.wrapping_add(step);
                *slot = due.wrapping_add(*slot);
            }
        }
        _ => {
            ints::decode(bytes, rest)?;
            for slot in rest {
                due = due.wrapping_add(*slot);
                *slot = due;
            }
        }
    }
    let ascending = out[start..]
        .iter()
        .zip(&out[start + 1..])
        .fold(true, |all, (a, b)| all & (a < b));
    if !ascending {
        return Err(Malformed::new("times", "ascending", "others"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn len(times: &[i64]) -> usize {
        let mut bytes = Vec::new();
        encode(times, 1_700_000_000_000, Effort::Best, &mut bytes);
        let (mut rest, mut out) = (&bytes[..], vec![1]);
        decode(&mut rest, 1_700_000_000_000, &mut out).unwrap();
        assert!(rest.is_empty());
        assert_eq!(&out[1..], times);
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
            let mut out = Vec::new();
            if decode(&mut &bytes[..], 5, &mut out).is_ok() {
                prop_assert!(out.is_sorted_by(|a, b| a < b));
            }
        }
    }
}
