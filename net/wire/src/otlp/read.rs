//! The messages of OTLP metrics, as far as they are looked at. Numbers of fields as in `opentelemetry/proto/metrics/v1/metrics.proto`.
//!
//! [`Field`] is one field of any message, and [`fields`] walks them; what a message means is read by whoever visits it.

use crate::proto::{BYTES, FIXED64, Malformed, Reader, VARINT};

/// A field: its number, and what it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    value: Value<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Other(u8),
}

impl<'a> Field<'a> {
    fn wrong(&self, expected: u8) -> Malformed {
        let got = match self.value {
            Value::Varint(_) => VARINT,
            Value::Fixed64(_) => FIXED64,
            Value::Bytes(_) => BYTES,
            Value::Other(kind) => kind,
        };
        Malformed::UnexpectedType {
            field: self.number,
            got,
            expected,
        }
    }

    pub(super) fn bytes(&self) -> Result<&'a [u8], Malformed> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong(BYTES)),
        }
    }

    pub(super) fn varint(&self) -> Result<u64, Malformed> {
        match self.value {
            Value::Varint(number) => Ok(number),
            _ => Err(self.wrong(VARINT)),
        }
    }

    pub(super) fn fixed64(&self) -> Result<u64, Malformed> {
        match self.value {
            Value::Fixed64(number) => Ok(number),
            _ => Err(self.wrong(FIXED64)),
        }
    }

    pub(super) fn double(&self) -> Result<f64, Malformed> {
        self.fixed64().map(f64::from_bits)
    }

    /// The numbers of a repeated `fixed64` or `double`, packed or one of them.
    pub(super) fn fixed64s(&self, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
        let mut reader = match self.value {
            Value::Fixed64(number) => {
                each(number);
                return Ok(());
            }
            _ => Reader::new(self.bytes()?),
        };
        while !reader.is_empty() {
            each(reader.fixed64()?);
        }
        Ok(())
    }
}

/// Calls `each` with every field.
pub(super) fn fields<'a, E: From<Malformed>>(
    message: &'a [u8],
    mut each: impl FnMut(Field<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        let (number, kind) = reader.tag()?;
        let value = match kind {
            VARINT => Value::Varint(reader.varint()?),
            FIXED64 => Value::Fixed64(reader.fixed64()?),
            BYTES => Value::Bytes(reader.bytes()?),
            other => {
                reader.skip(number, other)?;
                Value::Other(other)
            }
        };
        each(Field { number, value })?;
    }
    Ok(())
}

/// Calls `each` with the content of every field of that number, which is length-delimited.
pub(super) fn children<'a, E: From<Malformed>>(
    message: &'a [u8],
    number: u32,
    mut each: impl FnMut(&'a [u8]) -> Result<(), E>,
) -> Result<(), E> {
    fields(message, |field| match field.number == number {
        true => each(field.bytes()?),
        false => Ok(()),
    })
}

/// Key and value of an attribute; the value is an `AnyValue`.
pub(super) fn attribute(message: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    fields(message, |field| {
        match field.number {
            1 => key = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
        Ok::<_, Malformed>(())
    })?;
    Ok((key, value))
}

/// Calls `each` with the numbers of a repeated `uint64`, packed or one of them.
pub(super) fn varints(
    field: &Field<'_>,
    mut each: impl FnMut(u64) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    if let Value::Varint(number) = field.value {
        return each(number);
    }
    let mut reader = Reader::new(field.bytes()?);
    while !reader.is_empty() {
        each(reader.varint()?)?;
    }
    Ok(())
}

/// Items of a list that is held while its message is at work: many more than a point of anybody has.
const HELD_MAX: usize = 1 << 16;

/// Appends to a list, whose items may take much more memory than bytes of the body.
pub(super) fn hold<T>(list: &mut Vec<T>, item: T, what: &'static str) -> Result<(), Malformed> {
    if list.len() >= HELD_MAX {
        let max = HELD_MAX;
        return Err(Malformed::TooMany { what, max });
    }
    list.push(item);
    Ok(())
}

/// Appends an attribute to a list.
pub(super) fn hold_attribute<'a>(
    list: &mut Vec<(&'a [u8], &'a [u8])>,
    message: &'a [u8],
) -> Result<(), Malformed> {
    hold(list, attribute(message)?, "attributes")
}
