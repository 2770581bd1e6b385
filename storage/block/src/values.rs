//! A column of values: the cheapest of a few ways, every bit kept.
//!
//! | coding | for |
//! | --- | --- |
//! | constant | one value all along |
//! | decimal | what was read from a decimal text: integers over a power of ten, themselves or their first or second differences as a column of `ints`; values that are no such quotient (NaNs, staleness marks, -0) aside as exceptions |
//! | words | a few different values: each once, and numbers of them |
//! | xor | the `chunk` crate's XOR stream |
//! | pco | the `pco` crate on floats: long columns of sums with all their digits |
//! | raw | eight bytes each |
//!
//! Decoding a decimal is one division, which rounds correctly, so that it gives exactly the double that parsing the text gave. Encoding
//! tests each value by doing it, bit by bit: nothing is taken for granted.

use std::ops::Range;

use model::varint;

use crate::error::Malformed;
use crate::ints::{self, Effort, take, take_byte, take_count, take_signed, take_slice};

/// How a column of values is coded. Numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Coding {
    /// One value.
    Constant = 0,
    /// Integers over a power of ten.
    Decimal = 1,
    /// Numbers of distinct values.
    Words = 2,
    /// XOR with the value before.
    Xor = 3,
    /// Floats by pco.
    Pco = 4,
    /// Eight bytes each.
    Raw = 5,
    /// A sealed chunk of the `chunk` crate as it came, with its own times: histograms.
    Sealed = 15,
}

impl Coding {
    pub(crate) fn from_number(number: u8) -> Result<Coding, Malformed> {
        Ok(match number {
            0 => Coding::Constant,
            1 => Coding::Decimal,
            2 => Coding::Words,
            3 => Coding::Xor,
            4 => Coding::Pco,
            5 => Coding::Raw,
            15 => Coding::Sealed,
            other => return Err(Malformed::new("coding of values", "0 to 5 or 15", other)),
        })
    }

    /// As in reports.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Constant => "constant",
            Coding::Decimal => "decimal",
            Coding::Words => "words",
            Coding::Xor => "xor",
            Coding::Pco => "pco",
            Coding::Raw => "raw",
            Coding::Sealed => "sealed",
        }
    }
}

/// Largest power of ten by which integers are divided: 10^22 is the last that is a double exactly, but integers below 2^53 over 10^18 are
/// far below what anybody measures.
const EXPONENT_MAX: usize = 18;
const POWERS: [f64; EXPONENT_MAX + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];
/// Stands for the exponent of a constant that is no decimal.
const NO_DECIMAL: u8 = 31;
/// Integers up to here are doubles.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Bits of the head of a decimal column above the exponent.
const ORDER_SHIFT: u32 = 5;
const EXCEPTIONS: u8 = 1 << 7;

/// Distinct values that are worth a dictionary.
const WORDS_MAX: usize = 255;

/// The integer `i` for which `i / 10^exponent` is this very value.
#[inline]
fn as_decimal(value: f64, exponent: usize) -> Option<i64> {
    let scaled = value * POWERS[exponent];
    // False for NaNs too.
    let sized = scaled.abs() < INTEGER_MAX;
    if !sized {
        return None;
    }
    let integer = if scaled.abs() < INTEGER_MAX / 4.0 {
        (scaled + 0.5f64.copysign(scaled)) as i64
    } else {
        scaled as i64
    };
    (from_decimal(integer, exponent).to_bits() == value.to_bits()).then_some(integer)
}

#[inline]
fn from_decimal(integer: i64, exponent: usize) -> f64 {
    integer as f64 / POWERS[exponent]
}

/// Values as integers over a common power of ten.
struct Decimals {
    exponent: usize,
    integers: Vec<i64>,
    /// Indexes of values that are none; the integer there repeats the one before.
    exceptions: Vec<usize>,
}

impl Decimals {
    /// `None` where too many values are no decimals.
    fn of(values: &[f64]) -> Option<Decimals> {
        let allowed = values.len() / 16 + 1;
        let mut exponent = 0;
        let mut failed = 0;
        for &value in values {
            if as_decimal(value, exponent).is_some() {
                continue;
            }
            let odd = !value.is_finite() || value.to_bits() == (-0.0f64).to_bits();
            let found =
                (exponent + 1..=EXPONENT_MAX).find(|&e| !odd && as_decimal(value, e).is_some());
            match found {
                Some(found) => exponent = found,
                None => failed += 1,
            }
            if failed > allowed {
                return None;
            }
        }
        let mut integers = Vec::with_capacity(values.len());
        let mut exceptions = Vec::new();
        let mut last = 0;
        for (i, &value) in values.iter().enumerate() {
            match as_decimal(value, exponent) {
                Some(integer) => last = integer,
                None => exceptions.push(i),
            }
            integers.push(last);
        }
        // The first values may be exceptions: what follows them is nearer than 0.
        if let Some(first) = (0..values.len()).find(|i| exceptions.get(*i) != Some(i)) {
            let value = integers[first];
            integers[..first].fill(value);
        }
        (exceptions.len() <= allowed).then_some(Decimals {
            exponent,
            integers,
            exceptions,
        })
    }

    fn encode(&self, values: &[f64], effort: Effort, out: &mut Vec<u8>) {
        let first: Vec<i64> = differences(&self.integers);
        let second: Vec<i64> = differences(&first);
        let columns = [&self.integers, &first, &second];
        let lens = columns.map(|column| ints::estimate(column));
        let mut order = 0;
        for tried in 1..3 {
            // What comes before the column: one number for each difference taken.
            if lens[tried] + 1 < lens[order] {
                order = tried;
            }
        }
        let with_exceptions = if self.exceptions.is_empty() {
            0
        } else {
            EXCEPTIONS
        };
        out.push(self.exponent as u8 | (order as u8) << ORDER_SHIFT | with_exceptions);
        if with_exceptions != 0 {
            varint::put_u64(out, self.exceptions.len() as u64);
            ints::put_positions(&self.exceptions, out);
            for &at in &self.exceptions {
                out.extend_from_slice(&values[at].to_bits().to_le_bytes());
            }
        }
        if order >= 1 {
            varint::put_i64(out, self.integers[0]);
        }
        if order >= 2 {
            varint::put_i64(out, first.first().copied().unwrap_or(0));
        }
        ints::encode(columns[order], effort, out);
    }
}

fn differences(column: &[i64]) -> Vec<i64> {
    column
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]))
        .collect()
}

/// Appends the column in the cheapest coding and tells which. `values` is not empty.
pub(crate) fn encode(values: &[f64], effort: Effort, out: &mut Vec<u8>) -> Coding {
    assert!(!values.is_empty());
    let start = out.len();
    if values.iter().all(|v| v.to_bits() == values[0].to_bits()) {
        put_constant(values[0], out);
        return Coding::Constant;
    }
    let mut best = Coding::Raw;
    let mut bytes = Vec::new();
    let mut offer = |coding: Coding, bytes: &mut Vec<u8>, out: &mut Vec<u8>| {
        let shorter = out.len() == start || bytes.len() < out.len() - start;
        if shorter {
            out.truncate(start);
            out.extend_from_slice(bytes);
            best = coding;
        }
        bytes.clear();
    };
    if let Some(decimals) = Decimals::of(values) {
        decimals.encode(values, effort, &mut bytes);
        offer(Coding::Decimal, &mut bytes, out);
        // Nothing else comes near, as measured: not worth trying.
        if out.len() - start <= values.len() * 3 {
            return Coding::Decimal;
        }
    }
    put_raw(values, &mut bytes);
    offer(Coding::Raw, &mut bytes, out);
    put_xor(values, &mut bytes);
    offer(Coding::Xor, &mut bytes, out);
    if put_words(values, effort, &mut bytes) {
        offer(Coding::Words, &mut bytes, out);
    }
    bytes.clear();
    if effort == Effort::Best && out.len() - start > 64 && put_pco(values, &mut bytes) {
        offer(Coding::Pco, &mut bytes, out);
    }
    best
}

fn put_constant(value: f64, out: &mut Vec<u8>) {
    match (0..=EXPONENT_MAX).find_map(|e| Some((e, as_decimal(value, e)?))) {
        Some((exponent, integer)) => {
            out.push(exponent as u8);
            varint::put_i64(out, integer);
        }
        None => {
            out.push(NO_DECIMAL);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
}

fn put_raw(values: &[f64], out: &mut Vec<u8>) {
    for value in values {
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

/// A sealed chunk whose times are 0, 1, 2 ..: they cost next to nothing.
fn put_xor(values: &[f64], out: &mut Vec<u8>) {
    let mut appender = chunk::XorAppender::new();
    for (i, &value) in values.iter().enumerate() {
        appender.append(i as i64, value);
    }
    appender.seal_into(out);
}

fn put_words(values: &[f64], effort: Effort, out: &mut Vec<u8>) -> bool {
    let mut words: Vec<u64> = Vec::with_capacity(values.len());
    words.extend(values.iter().map(|v| v.to_bits()));
    words.sort_unstable();
    words.dedup();
    if words.len() > WORDS_MAX || words.len() * 2 > values.len() {
        return false;
    }
    varint::put_u64(out, words.len() as u64);
    for word in &words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let number = |v: &f64| words.binary_search(&v.to_bits()).expect("collected above") as i64;
    let numbers: Vec<i64> = values.iter().map(number).collect();
    ints::encode(&numbers, effort, out);
    true
}

fn put_pco(values: &[f64], out: &mut Vec<u8>) -> bool {
    let config = pco::ChunkConfig::default();
    let Ok(bytes) = pco::standalone::simple_compress(values, &config) else {
        return false;
    };
    let same = |back: Vec<f64>| {
        back.len() == values.len()
            && back
                .iter()
                .zip(values)
                .all(|(a, b)| a.to_bits() == b.to_bits())
    };
    if !pco::standalone::simple_decompress::<f64>(&bytes).is_ok_and(same) {
        return false;
    }
    out.extend_from_slice(&bytes);
    true
}

/// Appends those of `count` values that are picked (ascending ranges of places) to `out`; `bytes` are the whole of the column. On an error `out` is as long as it was.
///
/// What a coding lets nobody skip is unpacked all the same, into `scratch`; what makes values of that is done for the picked ones alone.
pub(crate) fn decode(
    coding: Coding,
    bytes: &[u8],
    count: usize,
    picks: &[Range<usize>],
    scratch: &mut Scratch,
    out: &mut Vec<f64>,
) -> Result<(), Malformed> {
    #[cfg(test)]
    tests::DECODED.with(|decoded| decoded.set(decoded.get() + 1));
    let start = out.len();
    let result = append(coding, bytes, (count, picks), scratch, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Memory that decoding uses again and again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    integers: Vec<i64>,
    floats: Vec<f64>,
}

/// How many values there are, and which of them are wanted.
type Picked<'a> = (usize, &'a [Range<usize>]);

fn append(
    coding: Coding,
    bytes: &[u8],
    (count, picks): Picked<'_>,
    scratch: &mut Scratch,
    out: &mut Vec<f64>,
) -> Result<(), Malformed> {
    let mut rest = bytes;
    let rest = &mut rest;
    let start = out.len();
    let picked: usize = picks.iter().map(Range::len).sum();
    out.reserve(picked);
    match coding {
        Coding::Constant => {
            let value = match take_byte(rest, "exponent of a constant")? {
                NO_DECIMAL => f64::from_bits(take_word(rest)?),
                exponent => {
                    let integer = take_signed(rest, "integer of a constant")?;
                    from_decimal(integer, known_exponent(exponent)?)
                }
            };
            out.resize(start + picked, value);
        }
        Coding::Decimal => append_decimals(rest, (count, picks), scratch, out)?,
        Coding::Words => {
            let known = take_count(rest, WORDS_MAX, "distinct values")?;
            let words = take_slice(rest, known * 8, "distinct values")?
                .as_chunks()
                .0;
            let numbers = &mut scratch.integers;
            numbers.clear();
            numbers.resize(count, 0);
            let until = picks.last().map_or(0, |last| last.end);
            ints::decode_until(rest, until, numbers)?;
            for &number in picks.iter().flat_map(|pick| &numbers[pick.clone()]) {
                let word = usize::try_from(number).ok().and_then(|n| words.get(n));
                let word = word.ok_or_else(|| {
                    Malformed::new("number of a value", format!("below {known}"), number)
                })?;
                out.push(f64::from_bits(u64::from_le_bytes(*word)));
            }
        }
        Coding::Xor => {
            let Scratch { integers, floats } = scratch;
            integers.clear();
            floats.clear();
            chunk::decode(rest, integers, floats)
                .map_err(|e| Malformed::new("XOR stream", "sound", e))?;
            if floats.len() != count {
                return Err(Malformed::new("values", count, floats.len()));
            }
            put_picked(floats, picks, out);
            *rest = &[];
        }
        Coding::Pco => {
            let all = picked == count;
            let floats = match all {
                true => {
                    out.resize(start + count, 0.0);
                    &mut out[start..]
                }
                false => {
                    scratch.floats.clear();
                    scratch.floats.resize(count, 0.0);
                    &mut scratch.floats[..]
                }
            };
            ints::decode_pco(rest, picks.last().map_or(0, |last| last.end), floats)?;
            if !all {
                put_picked(&scratch.floats, picks, out);
            }
            *rest = &[];
        }
        Coding::Raw => {
            let words = take_slice(rest, count * 8, "raw values")?.as_chunks().0;
            for pick in picks {
                let words = words[pick.clone()].iter();
                out.extend(words.map(|w| f64::from_bits(u64::from_le_bytes(*w))));
            }
        }
        Coding::Sealed => return Err(Malformed::new("coding of values", "floats", "sealed")),
    }
    assert_eq!(out.len() - start, picked, "as many as were picked");
    if !rest.is_empty() {
        return Err(Malformed::new("bytes behind the values", 0, rest.len()));
    }
    Ok(())
}

fn put_picked(values: &[f64], picks: &[Range<usize>], out: &mut Vec<f64>) {
    for pick in picks {
        out.extend_from_slice(&values[pick.clone()]);
    }
}

fn append_decimals(
    rest: &mut &[u8],
    (count, picks): Picked<'_>,
    scratch: &mut Scratch,
    out: &mut Vec<f64>,
) -> Result<(), Malformed> {
    let start = out.len();
    let head = take_byte(rest, "head of decimals")?;
    let exponent = known_exponent(head & 31)?;
    let order = usize::from(head >> ORDER_SHIFT & 3);
    if order > 2 {
        return Err(Malformed::new("order of decimals", "0 to 2", order));
    }
    let mut exceptions = Vec::new();
    let mut words = &[][..];
    if head & EXCEPTIONS != 0 {
        let number = take_count(rest, count, "exceptions")?;
        exceptions = ints::take_positions(rest, number, count)?;
        words = take_slice(rest, number * 8, "exceptions")?.as_chunks().0;
    }
    let first = if order >= 1 {
        take_signed(rest, "first decimal")?
    } else {
        0
    };
    let step = if order >= 2 {
        take_signed(rest, "first difference")?
    } else {
        0
    };
    let integers = &mut scratch.integers;
    integers.clear();
    integers.resize(count, first);
    // A column shorter than its order has no differences at all.
    let column = order.min(count);
    // What stands behind the last one that is wanted is in no sum of those before.
    let until = picks.last().map_or(0, |last| last.end);
    ints::decode_until(rest, until.saturating_sub(column), &mut integers[column..])?;
    let integers = &mut integers[..until];
    match order {
        0 => {}
        1 => {
            let mut sum = first;
            for slot in integers.iter_mut().skip(1) {
                sum = sum.wrapping_add(*slot);
                *slot = sum;
            }
        }
        _ => {
            let (mut difference, mut sum) = (step, first);
            if let Some(second) = integers.get_mut(1) {
                sum = sum.wrapping_add(difference);
                *second = sum;
            }
            for slot in integers.iter_mut().skip(2) {
                difference = difference.wrapping_add(*slot);
                sum = sum.wrapping_add(difference);
                *slot = sum;
            }
        }
    }
    let power = POWERS[exponent];
    for pick in picks {
        let integers = &integers[pick.clone()];
        match exponent {
            0 => out.extend(integers.iter().map(|&i| i as f64)),
            _ => out.extend(integers.iter().map(|&i| i as f64 / power)),
        }
    }
    // Both ascend.
    let (mut rest, mut before) = (picks, 0);
    for (at, word) in exceptions.into_iter().zip(words) {
        while let Some((pick, more)) = rest.split_first()
            && pick.end <= at
        {
            before += pick.len();
            rest = more;
        }
        match rest.first() {
            Some(pick) if pick.start <= at => {
                out[start + before + at - pick.start] = f64::from_bits(u64::from_le_bytes(*word));
            }
            Some(_) => {}
            None => break,
        }
    }
    Ok(())
}

fn known_exponent(exponent: u8) -> Result<usize, Malformed> {
    let exponent = usize::from(exponent);
    if exponent > EXPONENT_MAX {
        let expected = format!("at most {EXPONENT_MAX}");
        return Err(Malformed::new("exponent", expected, exponent));
    }
    Ok(exponent)
}

fn take_word(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let word = take_slice(bytes, 8, "a value")?.first_chunk();
    Ok(u64::from_le_bytes(*word.expect("eight bytes were taken")))
}

/// Reads a varint that fits a `u32`.
pub(crate) fn take_u32(bytes: &mut &[u8], what: &'static str) -> Result<u32, Malformed> {
    let value = take(bytes, what)?;
    u32::try_from(value).map_err(|_| Malformed::new(what, "32 bits", value))
}

#[cfg(test)]
pub(crate) mod tests;
