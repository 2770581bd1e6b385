//! From the payload of a chunk to columns.
//!
//! One pass. Each turn of the loop makes 56 bits available and looks at the lowest: a run of zeros is a run of samples that came
//! on time with the same value and is taken at once; anything else is one sample. The reader yields zeros behind the end, so
//! that the loop has no bounds to check; afterwards the reader says whether it stood exactly at the end.

use model::varint;

use super::{LEADING_BITS, LENGTH_BITS, Last, TIME_BITS, Window};
use crate::Error;
use crate::bits::{Reader, mask};

/// The time that stands before the stream, and the stream.
pub(crate) fn split(payload: &[u8]) -> Result<(i64, &[u8]), Error> {
    let mut stream = payload;
    let time = varint::take_i64(&mut stream).ok_or(Error::Malformed("no first time"))?;
    Ok((time, stream))
}

/// Time of the first sample, `None` without samples.
pub(crate) fn first_time(count: u16, payload: &[u8]) -> Result<Option<i64>, Error> {
    if count == 0 {
        Ok(None)
    } else {
        Ok(Some(split(payload)?.0))
    }
}

/// Appends all samples. On an error the columns are as they were.
pub(crate) fn decode(
    count: u16,
    payload: &[u8],
    times: &mut Vec<i64>,
    values: &mut Vec<f64>,
) -> Result<(), Error> {
    let (times_len, values_len) = (times.len(), values.len());
    let result = into_columns(count, payload, i64::MAX, times, values);
    if result.is_err() {
        times.truncate(times_len);
        values.truncate(values_len);
    }
    result.map(|_| ())
}

/// Appends the samples of `min..=max`. On an error the columns are as they were.
pub(crate) fn decode_range(
    count: u16,
    payload: &[u8],
    min: i64,
    max: i64,
    times: &mut Vec<i64>,
    values: &mut Vec<f64>,
) -> Result<(), Error> {
    let (times_len, values_len) = (times.len(), values.len());
    let result = into_columns(count, payload, max, times, values);
    if result.is_err() {
        times.truncate(times_len);
        values.truncate(values_len);
        return result.map(|_| ());
    }
    let late = times_len + times[times_len..].partition_point(|time| *time <= max);
    times.truncate(late);
    values.truncate(values_len + late - times_len);
    let early = times[times_len..].partition_point(|time| *time < min);
    times.drain(times_len..times_len + early);
    values.drain(values_len..values_len + early);
    Ok(())
}

/// Where a chunk ends, for going on with it.
pub(super) struct End<'a> {
    pub(super) first_time: i64,
    pub(super) last: Last,
    pub(super) stream: &'a [u8],
    /// Length of the stream.
    pub(super) bits: u64,
}

/// Decodes a whole chunk for its end only.
pub(super) fn end(count: u16, payload: &[u8]) -> Result<End<'_>, Error> {
    if count == 0 {
        into_columns(count, payload, i64::MAX, &mut Vec::new(), &mut Vec::new())?;
        return Ok(End {
            first_time: 0,
            last: Last::NONE,
            stream: &[],
            bits: 0,
        });
    }
    let (first_time, stream) = split(payload)?;
    let (last, bits) = into_columns(count, payload, i64::MAX, &mut Vec::new(), &mut Vec::new())?;
    Ok(End {
        first_time,
        last,
        stream,
        bits,
    })
}

/// Decodes until a time is later than `stop` (which may be appended too) or to the end; gives the state and position there.
fn into_columns(
    count: u16,
    payload: &[u8],
    stop: i64,
    times: &mut Vec<i64>,
    values: &mut Vec<f64>,
) -> Result<(Last, u64), Error> {
    if count == 0 {
        return match payload {
            [] => Ok((Last::NONE, 0)),
            _ => Err(Error::Malformed("payload without samples")),
        };
    }
    let (first_time, stream) = split(payload)?;
    let count = usize::from(count);
    // No sample is shorter than a bit: the bytes there are bound what is allocated.
    if count > stream.len() * 8 {
        return Err(Error::Malformed("more samples than bits"));
    }
    let start = times.len();
    let values_start = values.len();
    times.resize(start + count, 0);
    values.resize(values_start + count, 0.0);
    let decoded = decode_stream(
        first_time,
        stream,
        stop,
        &mut times[start..],
        &mut values[values_start..],
    )?;
    times.truncate(start + decoded.count);
    values.truncate(values_start + decoded.count);
    Ok((decoded.last, decoded.bits))
}

struct Decoded {
    count: usize,
    last: Last,
    bits: u64,
}

/// The loop. `times` and `values` are as long as the chunk has samples, at least one.
fn decode_stream(
    first_time: i64,
    stream: &[u8],
    stop: i64,
    times: &mut [i64],
    values: &mut [f64],
) -> Result<Decoded, Error> {
    let count = times.len();
    assert!(count > 0 && values.len() == count);
    let mut reader = Reader::new(stream);
    let mut window = Window::NONE;
    let mut time = first_time;
    let mut delta = 0u64;
    let mut value = take_value(&mut reader, &mut window)?;
    times[0] = time;
    values[0] = f64::from_bits(value);
    let mut index = 1;
    // Times must ascend; collected here instead of leaving from the middle of the loop.
    let mut ascending = true;
    while index < count && time <= stop {
        reader.refill();
        let bits = reader.peek();
        if bits & 1 == 0 {
            let run = bits.trailing_zeros().min(reader.available());
            let run = (run as usize).min(count - index);
            reader.skip(run as u32);
            for slot in &mut times[index..index + run] {
                let next = time.wrapping_add(delta as i64);
                ascending &= next > time;
                time = next;
                *slot = time;
            }
            values[index..index + run].fill(f64::from_bits(value));
            index += run;
            continue;
        }
        if bits & 0b11 == 0b01 {
            reader.skip(2);
            value ^= reader.take(u32::from(window.length)) << (window.trailing() & 63);
        } else if bits & 0b111 == 0b011 {
            reader.skip(3);
            value ^= take_windowed(&mut reader, &mut window)?;
        } else {
            let width = TIME_BITS[(bits >> 3 & 0b11) as usize];
            reader.skip(5);
            let change = reader.take(width) << (64 - width);
            delta = delta.wrapping_add((change as i64 >> (64 - width)) as u64);
            value ^= take_value(&mut reader, &mut window)?;
        }
        let next = time.wrapping_add(delta as i64);
        ascending &= next > time;
        time = next;
        times[index] = time;
        values[index] = f64::from_bits(value);
        index += 1;
    }
    if !ascending {
        return Err(Error::Malformed("times do not ascend"));
    }
    if index == count && !reader.finished() {
        return Err(Error::Malformed("the samples do not end where the bits do"));
    }
    Ok(Decoded {
        count: index,
        last: Last {
            time,
            delta,
            value,
            window,
        },
        bits: reader.position(),
    })
}

/// `0`: nothing; `10`: bits inside the window; `11`: a new window and its bits.
#[inline(always)]
pub(crate) fn take_value(reader: &mut Reader<'_>, window: &mut Window) -> Result<u64, Error> {
    reader.refill();
    let bits = reader.peek();
    if bits & 1 == 0 {
        reader.skip(1);
        Ok(0)
    } else if bits & 0b10 == 0 {
        reader.skip(2);
        Ok(reader.take(u32::from(window.length)) << (window.trailing() & 63))
    } else {
        reader.skip(2);
        take_windowed(reader, window)
    }
}

/// A description of a window and the bits inside it.
#[inline(always)]
fn take_windowed(reader: &mut Reader<'_>, window: &mut Window) -> Result<u64, Error> {
    let head = reader.take(LEADING_BITS + LENGTH_BITS);
    let leading = (head & mask(LEADING_BITS)) as u8;
    let length = (head >> LEADING_BITS) as u8 + 1;
    if leading + length > 64 {
        return Err(Error::Malformed("window wider than a value"));
    }
    *window = Window { leading, length };
    Ok(reader.take(u32::from(length)) << window.trailing())
}
