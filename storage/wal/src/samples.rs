//! The samples record: a control byte per sample, and only what the control byte cannot say.
//!
//! Made for the bodies Prometheus sends: refs that go up by one (the series of a target were created in the order in which they
//! are sent), one timestamp per target, values that repeat or grow by small whole steps. Such a sample is one or two bytes.
//! The layout is drawn in `docs/formats/wal.md`. Nothing here allocates; [`Encoder::put`] is called once per sample on a core and
//! writes with unconditional eight-byte stores, whose excess the next sample overwrites.

use crate::limits::{SAMPLE_BYTES_MAX, SAMPLES_PREFIX_BYTES};
use crate::record::LoggedSample;

/// Bit 0 of the control byte: an explicit ref follows.
const REF_EXPLICIT: u8 = 1;
/// Bits 1-2: which time; this value says that an explicit one follows.
const TIME_SHIFT: u32 = 1;
const TIME_EXPLICIT: u8 = 3;
/// Bit 3: the base is 0.0.
const ABSOLUTE: u8 = 1 << 3;
/// Bits 4-7: how the value is coded.
const VALUE_SHIFT: u32 = 4;
const VALUE_SAME: u8 = 0;
const VALUE_STEP_1: u8 = 1;
const VALUE_STEP_2: u8 = 2;
const VALUE_STEP_4: u8 = 3;
/// 4..=11: that many less 3 low bytes.
const VALUE_LOW: u8 = 3;
const VALUE_HIGH_2: u8 = 12;
const VALUE_HIGH_4: u8 = 14;
const VALUE_MIDDLE: u8 = 15;

/// State of the record being written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoder {
    /// The ref that needs no bytes.
    next: u32,
    times: [i64; 3],
}

impl Encoder {
    /// Begins a record: writes its first ref and time to `out`, which must hold [`SAMPLES_PREFIX_BYTES`].
    pub(crate) fn begin(series: u32, time: i64, out: &mut [u8]) -> Encoder {
        out[..4].copy_from_slice(&series.to_le_bytes());
        out[4..SAMPLES_PREFIX_BYTES].copy_from_slice(&time.to_le_bytes());
        Encoder {
            next: series,
            times: [time; 3],
        }
    }

    /// Writes one sample to the start of `out` and returns its length, at most [`SAMPLE_BYTES_MAX`].
    ///
    /// `base` is the value of the series' last sample in this segment; `None` codes absolutely. `out` must be 7 bytes longer than the
    /// longest sample; bytes behind the returned length are undefined. Panics if `out` is too short.
    #[inline]
    pub(crate) fn put(
        &mut self,
        out: &mut [u8],
        series: u32,
        time: i64,
        value: f64,
        base: Option<f64>,
    ) -> usize {
        let out: &mut [u8; SAMPLE_BYTES_MAX + 7] = (&mut out[..SAMPLE_BYTES_MAX + 7])
            .try_into()
            .expect("that many were taken");
        let mut control = 0u8;
        let mut at = 1;
        if series != self.next {
            control |= REF_EXPLICIT;
            let delta = i64::from(series) - i64::from(self.next);
            at = put_varint(out, at, model::varint::zigzag(delta));
        }
        self.next = series.wrapping_add(1);
        if time != self.times[0] {
            let slot = self.slot(time);
            control |= slot << TIME_SHIFT;
            if slot == TIME_EXPLICIT {
                let delta = time.wrapping_sub(self.times[0]);
                at = put_varint(out, at, model::varint::zigzag(delta));
            }
            self.use_time(slot, time);
        }
        if base.is_none() {
            control |= ABSOLUTE;
        }
        let base = base.unwrap_or(0.0);
        let xor = value.to_bits() ^ base.to_bits();
        if xor == 0 {
            out[0] = control;
            return at;
        }
        let (code, bytes, len) = code_value(value, base, xor);
        out[0] = control | code << VALUE_SHIFT;
        if code == VALUE_MIDDLE {
            out[at] = ((xor.trailing_zeros() / 8) as u8) << 4 | (len as u8);
            at += 1;
        }
        out[at..at + 8].copy_from_slice(&bytes.to_le_bytes());
        at + len
    }

    fn slot(&self, time: i64) -> u8 {
        if time == self.times[1] {
            1
        } else if time == self.times[2] {
            2
        } else {
            TIME_EXPLICIT
        }
    }

    fn use_time(&mut self, slot: u8, time: i64) {
        move_to_front(&mut self.times, slot, time);
    }
}

fn move_to_front(times: &mut [i64; 3], slot: u8, time: i64) {
    if slot >= 2 {
        times[2] = times[1];
    }
    if slot >= 1 {
        times[1] = times[0];
        times[0] = time;
    }
}

/// Code, bytes (low end first) and their number, for a value that is not its base.
#[inline]
fn code_value(value: f64, base: f64, xor: u64) -> (u8, u64, usize) {
    let step = value - base;
    // The cast saturates, so a step beyond 32 bits, an infinity or a NaN fails the test for exactness.
    let whole = step as i32;
    if (base + f64::from(whole)).to_bits() == value.to_bits() {
        let bytes = u64::from(whole as u32);
        return if whole == i32::from(whole as i8) {
            (VALUE_STEP_1, bytes, 1)
        } else if whole == i32::from(whole as i16) {
            (VALUE_STEP_2, bytes, 2)
        } else {
            (VALUE_STEP_4, bytes, 4)
        };
    }
    let low = (xor.trailing_zeros() / 8) as usize;
    let high = (xor.leading_zeros() / 8) as usize;
    let len = 8 - low - high;
    if low + len == 8 && (2..=4).contains(&len) {
        (VALUE_HIGH_2 + (len as u8 - 2), xor >> (8 * low), len)
    } else if low >= 2 {
        (VALUE_MIDDLE, xor >> (8 * low), len)
    } else {
        (VALUE_LOW + (len + low) as u8, xor, len + low)
    }
}

#[inline]
fn put_varint(out: &mut [u8; SAMPLE_BYTES_MAX + 7], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// Appends the body of a record of samples that build on nothing; there must be one.
pub(crate) fn put_absolute(out: &mut Vec<u8>, samples: &[LoggedSample]) {
    let first = samples.first().expect("a record has a sample");
    let start = out.len();
    out.resize(start + SAMPLES_PREFIX_BYTES, 0);
    let mut encoder = Encoder::begin(first.series.0, first.time, &mut out[start..]);
    for sample in samples {
        let at = out.len();
        out.resize(at + SAMPLE_BYTES_MAX + 7, 0);
        let len = encoder.put(
            &mut out[at..],
            sample.series.0,
            sample.time,
            sample.value,
            None,
        );
        out.truncate(at + len);
    }
}

/// Reads the samples of one record, in order.
#[derive(Debug, Clone)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
    next: u32,
    times: [i64; 3],
}

/// A sample of which the value still needs its base.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coded {
    pub(crate) series: u32,
    pub(crate) time: i64,
    /// Whether the base is the series' last value; else 0.0.
    pub(crate) relative: bool,
    change: Change,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Step(i32),
    Xor(u64),
}

impl Coded {
    /// The value, given that of the base.
    #[inline]
    pub(crate) fn value(&self, base: f64) -> f64 {
        match self.change {
            Change::Step(step) => base + f64::from(step),
            Change::Xor(xor) => f64::from_bits(base.to_bits() ^ xor),
        }
    }
}

impl<'a> Decoder<'a> {
    /// Begins with the body of a record; `None` if it is too short to be one.
    pub(crate) fn new(body: &'a [u8]) -> Option<Decoder<'a>> {
        let (series, rest) = body.split_first_chunk::<4>()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let time = i64::from_le_bytes(*time);
        Some(Decoder {
            rest,
            next: u32::from_le_bytes(*series),
            times: [time; 3],
        })
    }

    /// Whether all has been read.
    pub(crate) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next sample; `None` if the bytes are not one. Call only while not done.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Coded> {
        let (&control, rest) = self.rest.split_first()?;
        self.rest = rest;
        let mut series = self.next;
        if control & REF_EXPLICIT != 0 {
            let delta = model::varint::take_i64(&mut self.rest)?;
            series = u32::try_from(i64::from(series).checked_add(delta)?).ok()?;
        }
        self.next = series.wrapping_add(1);
        let slot = (control >> TIME_SHIFT) & 3;
        if slot != 0 {
            let time = match slot {
                TIME_EXPLICIT => {
                    self.times[0].wrapping_add(model::varint::take_i64(&mut self.rest)?)
                }
                slot => self.times[usize::from(slot)],
            };
            move_to_front(&mut self.times, slot, time);
        }
        let change = self.take_change(control >> VALUE_SHIFT)?;
        let relative = control & ABSOLUTE == 0;
        Some(Coded {
            series,
            time: self.times[0],
            relative,
            change,
        })
    }

    #[inline]
    fn take_change(&mut self, code: u8) -> Option<Change> {
        Some(match code {
            VALUE_SAME => Change::Xor(0),
            VALUE_STEP_1 => Change::Step(i32::from(self.take_bytes(1)? as i8)),
            VALUE_STEP_2 => Change::Step(i32::from(self.take_bytes(2)? as i16)),
            VALUE_STEP_4 => Change::Step(self.take_bytes(4)? as i32),
            VALUE_HIGH_2..=VALUE_HIGH_4 => {
                let len = usize::from(code - VALUE_HIGH_2) + 2;
                Change::Xor(self.take_bytes(len)? << (64 - 8 * len))
            }
            VALUE_MIDDLE => {
                let shape = self.take_bytes(1)?;
                let (len, shift) = ((shape & 15) as usize, (shape >> 4) as usize);
                if len == 0 || len + shift > 8 {
                    return None;
                }
                Change::Xor(self.take_bytes(len)? << (8 * shift))
            }
            code => Change::Xor(self.take_bytes(usize::from(code - VALUE_LOW))?),
        })
    }

    /// `len` (1 to 8) bytes as a number, low end first.
    #[inline]
    fn take_bytes(&mut self, len: usize) -> Option<u64> {
        if let Some(eight) = self.rest.first_chunk::<8>() {
            self.rest = &self.rest[len..];
            return Some(u64::from_le_bytes(*eight) & (u64::MAX >> (64 - 8 * len)));
        }
        if self.rest.len() < len {
            return None;
        }
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        let mut eight = [0u8; 8];
        eight[..len].copy_from_slice(head);
        Some(u64::from_le_bytes(eight))
    }
}

#[cfg(test)]
mod tests;
