//! A cursor over protobuf bytes.
//!
//! Only what remote write needs: varints, fixed 64-bit values and length-delimited fields. Unknown fields are skipped whatever
//! their wire type. The cursor is a slice that gets shorter; every step checks what is left, so that no input can make it
//! read past the end, panic or loop.

use model::varint;

use crate::limits::GROUP_DEPTH_MAX;

/// Why bytes are not the protobuf message they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The message ends inside a field, or a length points beyond its end.
    #[error("unexpected end of message")]
    Truncated,
    /// A varint of more than 64 bits, or without an end.
    #[error("bad varint")]
    Varint,
    /// Field number 0, or above 2^29 - 1.
    #[error("illegal field number {0}")]
    FieldNumber(u64),
    /// A wire type that does not exist.
    #[error("illegal wire type {0}")]
    WireType(u8),
    /// A known field with the wire type of another.
    #[error("field {field} has wire type {got}, expected {expected}")]
    UnexpectedType {
        /// Field number.
        field: u32,
        /// Wire type found.
        got: u8,
        /// Wire type of the schema.
        expected: u8,
    },
    /// An end of a group without its begin, or groups too deep.
    #[error("unbalanced groups")]
    Groups,
    /// The first symbol of a version 2 request is not the empty string.
    #[error("the first symbol must be the empty string")]
    FirstSymbol,
    /// A reference to a symbol that is not there.
    #[error("symbol reference {reference} is out of range, there are {count} symbols")]
    SymbolRange {
        /// The reference.
        reference: u64,
        /// Symbols there are.
        count: usize,
    },
    /// References to label symbols come in pairs.
    #[error("odd number of label references")]
    OddReferences,
    /// A version 2 series must have a sample or a histogram.
    #[error("series without a sample or histogram")]
    NoSamples,
    /// A list within a message, whose items take more memory than bytes.
    #[error("more than {max} {what} of one point or resource")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Items allowed.
        max: usize,
    },
    /// References to long symbols, or tiny metadata records without number: a small body that would take much memory.
    #[error("its labels and metadata, written out, take more than {max} bytes")]
    TooMuchText {
        /// Bytes allowed.
        max: usize,
    },
}

/// Wire types.
pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const BYTES: u8 = 2;
const GROUP_START: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

/// The one-byte tag of a length-delimited field.
pub(crate) const fn bytes_tag(field: u8) -> u8 {
    assert!(field < 16, "larger field numbers have longer tags");
    field << 3 | BYTES
}

/// What is left of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        varint::take_u64(&mut self.rest).ok_or(if self.rest.len() < 10 {
            Malformed::Truncated
        } else {
            Malformed::Varint
        })
    }

    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, Malformed> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<8>()
            .ok_or(Malformed::Truncated)?;
        self.rest = tail;
        Ok(u64::from_le_bytes(*head))
    }

    /// Length and content of a length-delimited field.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.varint()?;
        if len > self.rest.len() as u64 {
            return Err(Malformed::Truncated);
        }
        let (head, tail) = self.rest.split_at(len as usize);
        self.rest = tail;
        Ok(head)
    }

    /// Skips the tag if it is that byte.
    #[inline]
    pub(crate) fn eat(&mut self, tag: u8) -> bool {
        match self.rest {
            [first, tail @ ..] if *first == tag => {
                self.rest = tail;
                true
            }
            _ => false,
        }
    }

    /// Field number and wire type.
    #[inline]
    pub(crate) fn tag(&mut self) -> Result<(u32, u8), Malformed> {
        let tag = self.varint()?;
        let field = tag >> 3;
        if field == 0 || field > (1 << 29) - 1 {
            return Err(Malformed::FieldNumber(field));
        }
        Ok((field as u32, (tag & 7) as u8))
    }

    /// Skips the content of a field whose tag has been read.
    pub(crate) fn skip(&mut self, field: u32, wire_type: u8) -> Result<(), Malformed> {
        if wire_type != GROUP_START {
            return self.skip_flat(wire_type);
        }
        let mut open = vec![field];
        while let Some(&innermost) = open.last() {
            match self.tag()? {
                (inner, GROUP_START) if open.len() < GROUP_DEPTH_MAX as usize => open.push(inner),
                (_, GROUP_START) => return Err(Malformed::Groups),
                (inner, GROUP_END) if inner == innermost => {
                    open.pop();
                }
                (_, GROUP_END) => return Err(Malformed::Groups),
                (_, flat) => self.skip_flat(flat)?,
            }
        }
        Ok(())
    }

    fn skip_flat(&mut self, wire_type: u8) -> Result<(), Malformed> {
        match wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            BYTES => self.bytes().map(drop),
            FIXED32 => {
                let (_, tail) = self
                    .rest
                    .split_first_chunk::<4>()
                    .ok_or(Malformed::Truncated)?;
                self.rest = tail;
                Ok(())
            }
            GROUP_END => Err(Malformed::Groups),
            other => Err(Malformed::WireType(other)),
        }
    }
}

/// Refuses a known field that comes with another wire type than the schema's.
#[inline]
pub(crate) fn expect(field: u32, got: u8, expected: u8) -> Result<(), Malformed> {
    if got == expected {
        Ok(())
    } else {
        Err(Malformed::UnexpectedType {
            field,
            got,
            expected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_skipped_to_their_own_end() {
        // field 1: group start, field 2: varint 5, inner group 3 with nothing, end 3, end 1; then field 4: varint 7.
        let bytes = [0x0b, 0x10, 5, 0x1b, 0x1c, 0x0c, 0x20, 7];
        let mut reader = Reader::new(&bytes);
        let (field, kind) = reader.tag().unwrap();
        reader.skip(field, kind).unwrap();
        assert_eq!(reader.tag(), Ok((4, VARINT)));
        assert_eq!(reader.varint(), Ok(7));
        assert!(reader.is_empty());
    }

    #[test]
    fn unbalanced_and_endless_groups_are_refused() {
        let skip = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            let (field, kind) = reader.tag()?;
            reader.skip(field, kind)
        };
        assert_eq!(skip(&[0x0b, 0x14]), Err(Malformed::Groups));
        assert_eq!(skip(&[0x0c]), Err(Malformed::Groups));
        assert_eq!(skip(&[0x0b]), Err(Malformed::Truncated));
        assert_eq!(skip(&[0x0b; 100_000]), Err(Malformed::Groups));
    }

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        assert_eq!(Reader::new(&[5, 1, 2]).bytes(), Err(Malformed::Truncated));
        let huge = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0,
        ];
        assert_eq!(Reader::new(&huge).bytes(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&[0xff; 12]).varint(), Err(Malformed::Varint));
        assert_eq!(Reader::new(&[0]).tag(), Err(Malformed::FieldNumber(0)));
    }
}
