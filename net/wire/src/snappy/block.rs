//! Unpacks snappy's block format, three ways out of four without a branch that can be guessed wrong.
//!
//! ```text
//! block    { varint unpacked length, elements }
//! literal  { len - 1 (6 bits), 00 }  or, for 60..64 in their place, 1 to 4 bytes of it behind the tag; then the bytes
//! copy     { offset (3 bits), len - 4 (3 bits), 01 } { 8 more bits of the offset }
//! copy     { len - 1 (6 bits), 10 } { offset, 16 bits }     and with 11: 32 bits
//! ```
//!
//! A body whose neighbours have little in common is some twenty short elements a sample, and whether the next one is a literal or a copy
//! is chance: a decoder that branches on it waits for a wrong guess every few elements, and that is what it costs. Here both are
//! the same: 64 bytes from somewhere to the end of what is there already, of which the first `len` count. Where from is selected, not
//! branched to. That needs both places in one slice, so the packed bytes are first copied behind the room for the unpacked ones:
//!
//! ```text
//! memory  [ unpacked, len | 64 of slack | packed | 64 of slack ]
//! ```
//!
//! What is seldom goes another way ([`element`]), one element at a time and with every check: literals of more than 60 bytes, copies that overlap themselves,
//! offsets of 32 bits, the last bytes of a block, and whatever is wrong. All of it is safe code: an index that were wrong would panic.
//!
//! A byte is read only after it was written in this call, so nothing of an earlier body in the same memory can come out.
//!
//! Cost: 75 ns a sample of 300 bytes in 22 elements, where `snap` takes 122; 29 instead of 33 in 9 elements (`docs/performance.md`).

use std::hint::select_unpredictable;

/// Bytes that are moved at once; no element that goes the fast way is longer.
const WIDE: usize = 64;

/// A tag, its longest content on the fast way, and where the next tag may be.
const WINDOW: usize = WIDE + 4;

/// What a tag says, or that it goes the slow way: then `least` is more than any offset of its.
#[derive(Clone, Copy)]
struct Tag {
    /// Bytes that come out.
    len: u8,
    /// The offset must be this at least: a copy must not overlap itself; a literal has the offset 0.
    least: u8,
    /// The top bits of the offset, and which of the 16 bits behind the tag are the others.
    offset: u16,
    mask: u16,
}

const TAGS: [Tag; 256] = {
    let slow = Tag {
        len: 0,
        least: u8::MAX,
        offset: 0,
        mask: 0,
    };
    let mut tags = [slow; 256];
    let mut tag = 0;
    while tag < 256 {
        let bits = tag as u8 >> 2;
        tags[tag] = match tag & 3 {
            0 if bits < 60 => Tag {
                len: bits + 1,
                least: 0,
                offset: 0,
                mask: 0,
            },
            1 => Tag {
                len: (bits & 7) + 4,
                least: (bits & 7) + 4,
                offset: (tag as u16 >> 5) << 8,
                mask: 0xff,
            },
            2 => Tag {
                len: bits + 1,
                least: bits + 1,
                offset: 0,
                mask: 0xffff,
            },
            _ => slow,
        };
        tag += 1;
    }
    tags
};

/// Why a block is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Corrupt {
    #[error("the length header is broken")]
    Header,
    #[error("the element at byte {0} ends behind the body")]
    Truncated(usize),
    #[error(
        "the element at byte {at} needs {len} bytes, {left} are left of the length in the header"
    )]
    TooLong { at: usize, len: usize, left: usize },
    #[error(
        "the copy at byte {at} begins {offset} bytes before byte {unpacked} of what is unpacked"
    )]
    Offset {
        at: usize,
        offset: usize,
        unpacked: usize,
    },
    #[error("it unpacks to {0} bytes, its header says {1}")]
    Length(usize, usize),
}

/// The unpacked length that a block claims, and the bytes this takes.
pub(super) fn header(packed: &[u8]) -> Result<(usize, usize), Corrupt> {
    let mut rest = packed;
    let len = model::varint::take_u64(&mut rest).ok_or(Corrupt::Header)?;
    let len = u32::try_from(len).map_err(|_| Corrupt::Header)?;
    Ok((len as usize, packed.len() - rest.len()))
}

/// Bytes of memory that a block of `packed` bytes needs to unpack to `len`.
pub(super) fn memory_len(packed: usize, len: usize) -> usize {
    len + packed + 2 * WIDE
}

/// Unpacks into the first bytes of `memory`, of [`memory_len`] at least; returns how many they are.
///
/// Errors: bytes that are no block; what `memory` holds then is nothing.
pub(super) fn unpack(packed: &[u8], memory: &mut [u8]) -> Result<usize, Corrupt> {
    let (len, mut from) = header(packed)?;
    let memory = &mut memory[..memory_len(packed.len(), len)];
    let base = len + WIDE;
    memory[base..base + packed.len()].copy_from_slice(packed);
    let mut to = 0;
    while from < packed.len() {
        let mut tag = packed[from];
        while let Some(window) = packed.get(from..).and_then(|p| p.first_chunk::<WINDOW>()) {
            let Tag {
                len: element_len,
                least,
                offset,
                mask,
            } = TAGS[usize::from(tag)];
            let behind = u16::from_le_bytes([window[1], window[2]]);
            let offset = usize::from(offset | behind & mask);
            if (offset < usize::from(least)) | (offset > to) {
                break;
            }
            // No overflow: `from` is within a slice, `to` grows by at most 64 and is within a slice below, `offset` is at most `to`.
            // Said in wrapping operations, since the checks would stand on the longest chain of dependent instructions there is here.
            let (literal, bits) = (tag & 3 == 0, usize::from(tag >> 2));
            let skip = select_unpredictable(
                literal,
                bits.wrapping_add(2),
                usize::from(tag & 3).wrapping_add(1),
            );
            let content = base.wrapping_add(from).wrapping_add(1);
            let source = select_unpredictable(literal, content, to.wrapping_sub(offset));
            tag = window[skip];
            from = from.wrapping_add(skip);
            let wide: [u8; WIDE] = *memory[source..].first_chunk().expect("slack behind both");
            // Beyond `len` it is wrong and harmless: seen below.
            let Some(target) = memory.get_mut(to..).and_then(|m| m.first_chunk_mut()) else {
                break;
            };
            *target = wide;
            to = to.wrapping_add(usize::from(element_len));
        }
        if to > len {
            return Err(Corrupt::Length(to, len));
        }
        if from < packed.len() {
            element(packed, &mut from, &mut memory[..len], &mut to)?;
        }
    }
    match to == len {
        true => Ok(len),
        false => Err(Corrupt::Length(to, len)),
    }
}

/// One element of any kind, at `from`; both positions move behind it.
#[inline(never)]
fn element(
    packed: &[u8],
    from: &mut usize,
    unpacked: &mut [u8],
    to: &mut usize,
) -> Result<(), Corrupt> {
    let at = *from;
    let mut rest = &packed[at + 1..];
    let tag = packed[at];
    let bits = usize::from(tag >> 2);
    let truncated = Corrupt::Truncated(at);
    let mut number = |bytes: usize| {
        let (head, tail) = rest.split_at_checked(bytes).ok_or(truncated)?;
        rest = tail;
        let digits = head.iter().rev();
        Ok(digits.fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (len, offset) = match tag & 3 {
        0 if bits < 60 => (bits + 1, None),
        0 => (number(bits - 59)? + 1, None),
        1 => (4 + (bits & 7), Some((bits >> 3) << 8 | number(1)?)),
        2 => (bits + 1, Some(number(2)?)),
        _ => (bits + 1, Some(number(4)?)),
    };
    let left = unpacked.len() - *to;
    if len > left {
        return Err(Corrupt::TooLong { at, len, left });
    }
    match offset {
        None => {
            let (content, tail) = rest.split_at_checked(len).ok_or(truncated)?;
            unpacked[*to..*to + len].copy_from_slice(content);
            rest = tail;
        }
        Some(offset) if offset == 0 || offset > *to => {
            let unpacked = *to;
            return Err(Corrupt::Offset {
                at,
                offset,
                unpacked,
            });
        }
        Some(offset) => {
            // What is copied repeats every `offset` bytes, and so does what has been copied: each round has twice as much to copy from.
            let (begin, end) = (*to - offset, *to + len);
            let mut done = *to;
            while done < end {
                let piece = (done - begin).min(end - done);
                unpacked.copy_within(begin..begin + piece, done);
                done += piece;
            }
        }
    }
    *to += len;
    *from = packed.len() - rest.len();
    Ok(())
}
