//! Float samples, alike in both versions: `{ 1 double value, 2 int64 timestamp in ms, 3 int64 start timestamp (version 2) }`.

use crate::proto::{self, FIXED64, Malformed, Reader, VARINT};

/// Time in milliseconds, and value. Nearly every sample is value, then time: 9 bytes, then a tag and a varint.
#[inline]
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

#[cold]
fn read_any_sample(message: &[u8]) -> Result<(i64, f64), Malformed> {
    let mut reader = Reader::new(message);
    let (mut time, mut value) = (0, 0.0);
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
            (field, kind) => reader.skip(field, kind)?,
        }
    }
    Ok((time, value))
}
