//! Columns of integers: the cheapest of a few ways to pack them, found by computing each one's exact or nearly exact size.
//!
//! | mode | bytes | for |
//! | --- | --- | --- |
//! | packed | distance from a base, in as many bits as the largest needs | noise |
//! | patched | the same in fewer bits, and a list of those that need more | resets, missed beats |
//! | sparse | a bit for each number that is not the common one, and these packed | what rarely moves |
//! | scaled | a divisor, and the quotients packed in any of these ways | bytes in whole pages |
//! | raw | eight bytes each | hashes |
//! | pco | the `pco` crate's bins and entropy coding | long columns |
//!
//! The count is not stored: whoever reads knows it. All arithmetic wraps, so that every `i64` can stand next to every other. The layout
//! is drawn in `docs/formats/block.md`.
//!
//! Cost: about ten passes over the column for writing; reading 1 to 2 ns a number, pco about 3.

use model::varint;

use crate::bits::{pack, packed_len, padding_is_zero, unpack, width_of};
use crate::error::Malformed;

/// Two high bits of the first byte.
const PACKED: u8 = 0;
const PATCHED: u8 = 1;
const SPARSE: u8 = 2;
const EXTENDED: u8 = 3;

/// Six low bits of the first byte of an extended column.
const RAW: u8 = 0;
const SCALED: u8 = 1;
const PCO: u8 = 2;

/// Below this many numbers a pco header outweighs what its entropy coding saves (measured, decision 0008).
const PCO_COUNT_MIN: usize = 128;

/// How much work a writer takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// Bit packing and XOR only: for cuts, which a core makes while it takes in samples.
    Fast,
    /// Everything, entropy coding too: for merges, in the background.
    #[default]
    Best,
}

/// The way a column will be packed.
struct Plan {
    mode: u8,
    width: u32,
    base: i64,
    /// Estimated bytes; exact for packed.
    len: usize,
}

/// Estimated bytes of [`encode`], pco left aside.
pub(crate) fn estimate(values: &[i64]) -> usize {
    plan(values, true).len
}

/// Appends the column in the cheapest form.
pub(crate) fn encode(values: &[i64], effort: Effort, out: &mut Vec<u8>) {
    let start = out.len();
    encode_nested(values, true, out);
    if effort == Effort::Best && values.len() >= PCO_COUNT_MIN && out.len() - start > 32 {
        let config = pco::ChunkConfig::default();
        if let Ok(bytes) = pco::standalone::simple_compress(values, &config)
            && bytes.len() + 4 < out.len() - start
            && pco::standalone::simple_decompress::<i64>(&bytes).is_ok_and(|back| back == values)
        {
            out.truncate(start);
            out.push(EXTENDED << 6 | PCO);
            varint::put_u64(out, bytes.len() as u64);
            out.extend_from_slice(&bytes);
        }
    }
}

fn encode_nested(values: &[i64], may_nest: bool, out: &mut Vec<u8>) {
    let plan = plan(values, may_nest);
    let distance = |v: i64| v.wrapping_sub(plan.base) as u64;
    match plan.mode {
        PACKED => {
            out.push(PACKED << 6 | plan.width as u8);
            varint::put_i64(out, plan.base);
            pack(values.iter().map(|&v| distance(v)), plan.width, out);
        }
        PATCHED => {
            out.push(PATCHED << 6 | plan.width as u8);
            varint::put_i64(out, plan.base);
            let fits = |v: i64| width_of(distance(v)) <= plan.width;
            let exceptions: Vec<usize> = (0..values.len()).filter(|&i| !fits(values[i])).collect();
            varint::put_u64(out, exceptions.len() as u64);
            let kept = values
                .iter()
                .map(|&v| if fits(v) { distance(v) } else { 0 });
            pack(kept, plan.width, out);
            put_positions(&exceptions, out);
            for at in exceptions {
                varint::put_i64(out, values[at].wrapping_sub(plan.base));
            }
        }
        SPARSE => {
            out.push(SPARSE << 6);
            varint::put_i64(out, plan.base);
            pack(values.iter().map(|&v| u64::from(v != plan.base)), 1, out);
            let rest: Vec<i64> = values.iter().copied().filter(|&v| v != plan.base).collect();
            encode_nested(&rest, false, out);
        }
        _ if plan.width == u32::from(SCALED) => {
            out.push(EXTENDED << 6 | SCALED);
            let divisor = divisor(values, plan.base);
            varint::put_i64(out, plan.base);
            varint::put_u64(out, divisor);
            let quotients: Vec<i64> = values
                .iter()
                .map(|&v| (distance(v) / divisor) as i64)
                .collect();
            encode_nested(&quotients, false, out);
        }
        _ => {
            out.push(EXTENDED << 6 | RAW);
            values
                .iter()
                .for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        }
    }
}

/// Distances between ascending positions, the first from -1, less one: mostly a byte each.
pub(crate) fn put_positions(positions: &[usize], out: &mut Vec<u8>) {
    let mut next = 0;
    for &at in positions {
        varint::put_u64(out, (at - next) as u64);
        next = at + 1;
    }
}

/// Reads `count` positions below `end`.
pub(crate) fn take_positions(
    bytes: &mut &[u8],
    count: usize,
    end: usize,
) -> Result<Vec<usize>, Malformed> {
    if count > end {
        return Err(Malformed::new(
            "exceptions",
            format!("at most {end}"),
            count,
        ));
    }
    let mut positions = Vec::with_capacity(count);
    let mut next = 0usize;
    for _ in 0..count {
        let gap = take(bytes, "position of an exception")?;
        let at = usize::try_from(gap).ok().and_then(|g| g.checked_add(next));
        let at = at.filter(|&at| at < end).ok_or_else(|| {
            Malformed::new("position of an exception", format!("below {end}"), gap)
        })?;
        positions.push(at);
        next = at + 1;
    }
    Ok(positions)
}

fn varint_len(value: u64) -> usize {
    (width_of(value).max(1) as usize).div_ceil(7)
}

fn zigzag_len(value: i64) -> usize {
    varint_len(varint::zigzag(value))
}

/// The greatest common divisor of the distances from `base`; 0 where all are 0. Cost: a division or two in the usual case that it is 1.
fn divisor(values: &[i64], base: i64) -> u64 {
    let mut divisor = 0u64;
    for &value in values {
        let mut distance = value.wrapping_sub(base) as u64;
        while distance != 0 {
            (divisor, distance) = (distance, divisor % distance);
        }
        if divisor == 1 {
            break;
        }
    }
    divisor
}

fn plan(values: &[i64], may_nest: bool) -> Plan {
    let count = values.len();
    let (min, max) = values
        .iter()
        .fold((i64::MAX, i64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
    if count == 0 || min == max {
        let base = if count == 0 { 0 } else { min };
        return Plan {
            mode: PACKED,
            width: 0,
            base,
            len: 1 + zigzag_len(base),
        };
    }
    let width = width_of(max.wrapping_sub(min) as u64);
    let mut best = Plan {
        mode: EXTENDED,
        width: u32::from(RAW),
        base: 0,
        len: 1 + count * 8,
    };
    if width <= 63 {
        let len = 1 + zigzag_len(min) + packed_len(count, width);
        if len < best.len {
            best = Plan {
                mode: PACKED,
                width,
                base: min,
                len,
            };
        }
    }
    let sample = Sample::of(values);
    if width > 3 {
        for base in [min, sample.low] {
            best = patched(values, base, width, best);
        }
    }
    if may_nest {
        best = sparse(values, sample.common, width, best);
        let divisor = divisor(values, min);
        if divisor > 1 && width > 1 {
            let quotient = width_of(max.wrapping_sub(min) as u64 / divisor);
            let head = 2 + zigzag_len(min) + varint_len(divisor);
            // Patched may still make it smaller.
            let len = head + packed_len(count, quotient) + 1;
            if len < best.len {
                best = Plan {
                    mode: EXTENDED,
                    width: u32::from(SCALED),
                    base: min,
                    len,
                };
            }
        }
    }
    best
}

/// What a few numbers of a column tell of all.
struct Sample {
    /// The most frequent.
    common: i64,
    /// Few are smaller.
    low: i64,
}

const SAMPLE: usize = 32;

impl Sample {
    fn of(values: &[i64]) -> Sample {
        let step = values.len().div_ceil(SAMPLE);
        let mut sample = [0i64; SAMPLE];
        let mut count = 0;
        for &value in values.iter().step_by(step) {
            sample[count] = value;
            count += 1;
        }
        let sample = &mut sample[..count];
        sample.sort_unstable();
        let (mut common, mut most) = (sample[0], 0);
        for run in sample.chunk_by(|a, b| a == b) {
            if run.len() > most {
                (common, most) = (run[0], run.len());
            }
        }
        Sample {
            common,
            low: sample[count / 16],
        }
    }
}

/// Fewer bits for most, a list of the others: tries every width from one histogram of widths.
fn patched(values: &[i64], base: i64, width: u32, best: Plan) -> Plan {
    let mut widths = [0u32; 65];
    for &value in values {
        widths[width_of(value.wrapping_sub(base) as u64) as usize] += 1;
    }
    let head = 2 + zigzag_len(base);
    let (mut exceptions, mut bytes) = (0usize, 0usize);
    let mut best = best;
    for tried in (0..64u32).rev() {
        let more = widths[tried as usize + 1] as usize;
        exceptions += more;
        // A position (mostly a byte), and the distance as a zigzag varint.
        bytes += more * (1 + (tried as usize + 2).div_ceil(7).min(10));
        if tried >= width {
            continue;
        }
        if exceptions * 4 > values.len() + 8 {
            break;
        }
        let len = head + packed_len(values.len(), tried) + bytes;
        if len < best.len {
            best = Plan {
                mode: PATCHED,
                width: tried,
                base,
                len,
            };
        }
    }
    best
}

/// A bit for each number, and those that are not `common` packed.
fn sparse(values: &[i64], common: i64, width: u32, best: Plan) -> Plan {
    let others = values.iter().filter(|&&v| v != common).count();
    let head = 1 + zigzag_len(common) + values.len().div_ceil(8);
    // Without the common one the others may be nearer to each other, so the width is not used as a bound but as a filter.
    if head + 2 + others * width as usize / 16 >= best.len {
        return best;
    }
    let rest: Vec<i64> = values.iter().copied().filter(|&v| v != common).collect();
    let len = head + plan(&rest, false).len;
    if len < best.len {
        Plan {
            mode: SPARSE,
            width: 0,
            base: common,
            len,
        }
    } else {
        best
    }
}

pub(crate) fn take(bytes: &mut &[u8], what: &'static str) -> Result<u64, Malformed> {
    varint::take_u64(bytes).ok_or_else(|| Malformed::cut_short(what))
}

pub(crate) fn take_signed(bytes: &mut &[u8], what: &'static str) -> Result<i64, Malformed> {
    varint::take_i64(bytes).ok_or_else(|| Malformed::cut_short(what))
}

pub(crate) fn take_slice<'a>(
    bytes: &mut &'a [u8],
    len: usize,
    what: &'static str,
) -> Result<&'a [u8], Malformed> {
    let (head, tail) = bytes
        .split_at_checked(len)
        .ok_or_else(|| Malformed::new(what, format!("{len} bytes"), bytes.len()))?;
    *bytes = tail;
    Ok(head)
}

pub(crate) fn take_byte(bytes: &mut &[u8], what: &'static str) -> Result<u8, Malformed> {
    Ok(take_slice(bytes, 1, what)?[0])
}

/// A varint that counts something of which there are at most `max`.
pub(crate) fn take_count(
    bytes: &mut &[u8],
    max: usize,
    what: &'static str,
) -> Result<usize, Malformed> {
    let count = take(bytes, what)?;
    match usize::try_from(count) {
        Ok(count) if count <= max => Ok(count),
        _ => Err(Malformed::new(what, format!("at most {max}"), count)),
    }
}

/// Reads a column of `out.len()` numbers off the front of `bytes`. On an error `out` holds anything.
pub(crate) fn decode(bytes: &mut &[u8], out: &mut [i64]) -> Result<(), Malformed> {
    decode_nested(bytes, true, out.len(), out)
}

/// As [`decode`], for a reader of the first `until` numbers: what stands behind them in `out` may be anything.
pub(crate) fn decode_until(
    bytes: &mut &[u8],
    until: usize,
    out: &mut [i64],
) -> Result<(), Malformed> {
    decode_nested(bytes, true, until.min(out.len()), out)
}

fn take_packed<'a>(bytes: &mut &'a [u8], count: usize, width: u32) -> Result<&'a [u8], Malformed> {
    let packed = take_slice(bytes, packed_len(count, width), "packed numbers")?;
    if !padding_is_zero(packed, count, width) {
        return Err(Malformed::new("padding of packed numbers", 0, "other bits"));
    }
    Ok(packed)
}

fn decode_nested(
    bytes: &mut &[u8],
    may_nest: bool,
    until: usize,
    out: &mut [i64],
) -> Result<(), Malformed> {
    let head = take_byte(bytes, "head of a column")?;
    let low = head & 63;
    match head >> 6 {
        PACKED => {
            let base = take_signed(bytes, "base of a column")?;
            let packed = take_packed(bytes, out.len(), u32::from(low))?;
            unpack_until(packed, u32::from(low), base, &mut out[..until]);
        }
        PATCHED => {
            let base = take_signed(bytes, "base of a column")?;
            let count = take_count(bytes, out.len(), "exceptions")?;
            let packed = take_packed(bytes, out.len(), u32::from(low))?;
            unpack_until(packed, u32::from(low), base, &mut out[..until]);
            for at in take_positions(bytes, count, out.len())? {
                out[at] = base.wrapping_add(take_signed(bytes, "an exception")?);
            }
        }
        SPARSE if low == 0 && may_nest => {
            let common = take_signed(bytes, "common number of a column")?;
            let map = take_packed(bytes, out.len(), 1)?;
            let others = map.iter().map(|b| b.count_ones() as usize).sum();
            let mut rest = vec![0; others];
            decode_nested(bytes, false, others, &mut rest)?;
            let mut rest = rest.into_iter();
            for (i, slot) in out.iter_mut().enumerate() {
                *slot = if map[i / 8] >> (i % 8) & 1 == 0 {
                    common
                } else {
                    rest.next().expect("as many as bits")
                };
            }
        }
        EXTENDED if low == RAW => {
            let raw = take_slice(bytes, out.len() * 8, "raw numbers")?;
            for (slot, word) in out.iter_mut().zip(raw.as_chunks().0) {
                *slot = i64::from_le_bytes(*word);
            }
        }
        EXTENDED if low == SCALED && may_nest => {
            let base = take_signed(bytes, "base of a column")?;
            let divisor = take(bytes, "divisor of a column")?;
            decode_nested(bytes, false, until, out)?;
            for slot in &mut out[..until] {
                *slot = base.wrapping_add((*slot as u64).wrapping_mul(divisor) as i64);
            }
        }
        EXTENDED if low == PCO => {
            let len = take_count(bytes, bytes.len(), "length of a pco column")?;
            let packed = take_slice(bytes, len, "pco column")?;
            decode_pco(packed, until, out)?;
        }
        _ => return Err(Malformed::new("head of a column", "a known mode", head)),
    }
    Ok(())
}

/// Fills `out` up to `until` at least from a file of the `pco` crate that holds as many numbers as there is room for.
pub(crate) fn decode_pco<T: pco::data_types::Number>(
    packed: &[u8],
    until: usize,
    out: &mut [T],
) -> Result<(), Malformed> {
    // It gives whole batches, or all.
    let wanted = until.next_multiple_of(pco::FULL_BATCH_N).min(out.len());
    let progress = pco::standalone::simple_decompress_into(packed, &mut out[..wanted])
        .map_err(|e| Malformed::new("pco column", "sound", e))?;
    let ends = progress.finished || wanted < out.len();
    if progress.n_processed != wanted || !ends {
        let found = progress.n_processed;
        return Err(Malformed::new("numbers of a pco column", wanted, found));
    }
    Ok(())
}

/// Unpacks as many as there is room for, of those that `packed` holds.
fn unpack_until(packed: &[u8], width: u32, base: i64, out: &mut [i64]) {
    unpack(&packed[..packed_len(out.len(), width)], width, base, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[i64], effort: Effort) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(values, effort, &mut bytes);
        let mut rest = &bytes[..];
        let mut out = vec![7; values.len()];
        decode(&mut rest, &mut out).unwrap();
        assert!(rest.is_empty());
        assert_eq!(out, values);
        for until in [0, 1, 255, 256, 257, values.len() / 2] {
            let (mut rest, until) = (&bytes[..], until.min(values.len()));
            let mut out = vec![7; values.len()];
            decode_until(&mut rest, until, &mut out).unwrap();
            assert!(rest.is_empty());
            assert_eq!(out[..until], values[..until]);
        }
        bytes
    }

    #[test]
    fn shapes_take_the_bytes_that_they_deserve() {
        let len = |values: Vec<i64>| {
            let bytes = round_trip(&values, Effort::Fast).len();
            round_trip(&values, Effort::Best);
            bytes
        };
        assert_eq!(len(vec![5; 1000]), 2);
        assert_eq!(len(vec![]), 2);
        // 3 bits each.
        assert_eq!(len((0..800).map(|i| i * 5 % 7).collect()), 302);
        // A reset costs a few bytes, not all the bits of all others.
        let mut reset: Vec<i64> = (0..800).map(|i| i * 5 % 7).collect();
        reset[400] = -1_000_000_007;
        assert!(len(reset) < 315);
        // What rarely moves: a bit each and the moves.
        let rare: Vec<i64> = (0..800)
            .map(|i| if i % 100 == 3 { 1_000_003 * i } else { 0 })
            .collect();
        assert!(len(rare) < 140);
        // Whole pages.
        let pages: Vec<i64> = (0..800).map(|i| 17 + 4096 * (i * 5 % 7)).collect();
        assert!(len(pages) < 310);
        assert_eq!(len(vec![i64::MIN, i64::MAX]), 17);
    }

    proptest! {
        #[test]
        fn any_column_comes_back(
            values in prop::collection::vec(prop_oneof![any::<i64>(), -5i64..5, Just(i64::MIN), Just(i64::MAX), -9000i64..9000], 0..300)
        ) {
            round_trip(&values, Effort::Fast);
            round_trip(&values, Effort::Best);
        }

        #[test]
        fn hostile_bytes_are_an_error_or_a_column(bytes in prop::collection::vec(any::<u8>(), 0..80), count in 0usize..600) {
            let mut out = vec![0; count];
            let _ = decode(&mut &bytes[..], &mut out);
        }
    }
}
