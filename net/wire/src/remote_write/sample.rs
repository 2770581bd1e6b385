//! Float samples, alike in both versions: `{ 1 double value, 2 int64 timestamp in ms, 3 int64 start timestamp (version 2) }`.

use crate::proto::{self, FIXED64, Malformed, Reader, VARINT};

/// A tag and eight bytes of value, a tag and six bytes of time.
const USUAL_LEN: usize = 16;

/// A sample of the usual length: no loop, no bounds; `None` where it is something else of that length.
#[inline(always)]
fn read_usual_sample(message: &[u8; USUAL_LEN]) -> Option<(i64, f64)> {
    let [value_tag, v0, v1, v2, v3, v4, v5, v6, v7, time_tag, ..] = *message;
    let [.., t0, t1, t2, t3, t4, t5] = *message;
    let time = model::varint::six_bytes(u64::from_le_bytes([t0, t1, t2, t3, t4, t5, 0, 0]))?;
    let usual = (value_tag == (1 << 3 | FIXED64)) & (time_tag == (2 << 3 | VARINT));
    let value = f64::from_le_bytes([v0, v1, v2, v3, v4, v5, v6, v7]);
    usual.then_some((time as i64, value))
}

/// Takes a sample of the usual length, with its tag and its length, off the front; `None`, and nothing taken, where something else stands there.
#[inline(always)]
pub(super) fn take_usual_sample(reader: &mut Reader<'_>, field_tag: u8) -> Option<(i64, f64)> {
    let (field, rest) = reader.rest().split_first_chunk::<{ 2 + USUAL_LEN }>()?;
    let ([tag, len], message) = field.split_first_chunk()?;
    if *tag != field_tag || usize::from(*len) != USUAL_LEN {
        return None;
    }
    let sample = read_usual_sample(message.first_chunk()?)?;
    *reader = Reader::new(rest);
    Some(sample)
}

/// Time in milliseconds, and value, of one that is not usual, or stands behind a field that nobody knows: most are value, then time.
pub(super) fn read_sample(message: &[u8]) -> Result<(i64, f64), Malformed> {
    let mut reader = Reader::new(message);
    if reader.eat(1 << 3 | FIXED64) {
        let value = f64::from_bits(reader.fixed64()?);
        if reader.eat(2 << 3 | VARINT) {
            let time = reader.varint()? as i64;
            if reader.is_empty() {
                return Ok((time, value));
            }
        }
    }
    read_any_sample(message)
}

/// A usual sample, a tag, and six bytes of start.
const STARTED_LEN: usize = USUAL_LEN + 7;

/// As [`read_sample`], and the start timestamp in milliseconds, 0 where there is none. Cost: no loop, with a start of our days too.
#[inline]
pub(super) fn read_started_sample(message: &[u8]) -> Result<(i64, f64, i64), Malformed> {
    if let Ok(usual) = <&[u8; USUAL_LEN]>::try_from(message)
        && let Some((time, value)) = read_usual_sample(usual)
    {
        return Ok((time, value, 0));
    }
    if let Ok(started) = <&[u8; STARTED_LEN]>::try_from(message)
        && let Some((usual, [tag, t0, t1, t2, t3, t4, t5])) = started.split_first_chunk()
        && *tag == 3 << 3 | VARINT
        && let Some((time, value)) = read_usual_sample(usual)
        && let Some(start) =
            model::varint::six_bytes(u64::from_le_bytes([*t0, *t1, *t2, *t3, *t4, *t5, 0, 0]))
    {
        return Ok((time, value, start as i64));
    }
    read_all_fields::<true>(message)
}

#[cold]
fn read_any_sample(message: &[u8]) -> Result<(i64, f64), Malformed> {
    let (time, value, _) = read_all_fields::<false>(message)?;
    Ok((time, value))
}

/// In version 1 field 3 is one of those that nobody knows, whatever its type.
#[cold]
fn read_all_fields<const STARTED: bool>(message: &[u8]) -> Result<(i64, f64, i64), Malformed> {
    let mut reader = Reader::new(message);
    let (mut time, mut value, mut start) = (0, 0.0, 0);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, kind) => {
                proto::expect(1, kind, FIXED64)?;
                value = f64::from_bits(reader.fixed64()?);
            }
            (2, kind) => {
                proto::expect(2, kind, VARINT)?;
                time = reader.varint()? as i64;
            }
            (3, kind) if STARTED => {
                proto::expect(3, kind, VARINT)?;
                start = reader.varint()? as i64;
            }
            (field, kind) => reader.skip(field, kind)?,
        }
    }
    Ok((time, value, start))
}
