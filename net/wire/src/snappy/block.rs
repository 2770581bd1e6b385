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
//! The one thing that is left to wait for is where the next element begins, which the tag of this one tells. How far that is from *any*
//! byte, were it a tag, is computed for a piece of 2,048 bytes at once, sixteen a step ([`Piece`]), so that the way from one element to the
//! next is a load and an addition, six cycles in place of the eight of reading a tag and choosing between two distances.
//!
//! What is seldom goes another way ([`element`]), one element at a time and with every check: literals of more than 60 bytes, copies that overlap themselves,
//! offsets of 32 bits, the last bytes of a block, and whatever is wrong. All of it is safe code: an index that were wrong would panic.
//!
//! Of what is moved only bytes that were written in this call count, so nothing of an earlier body in the same memory can come out.
//!
//! Cost: less than half of what `snap` takes for a sample of 285 bytes in 21 elements, two thirds where there are 9 (`docs/performance.md`).

use std::hint::select_unpredictable;

/// Bytes that are moved at once; no element that goes the fast way is longer.
const WIDE: usize = 64;

/// What must be left of a block from the tag of an element that goes the fast way: the tag, and its longest content.
const WINDOW: usize = WIDE + 4;

/// Bytes of a block whose distances are computed together: enough that little is computed in vain, few enough for the first-level cache.
const PIECE: usize = 2048;

/// Bytes of a tag on the fast way.
const TAG_BYTES: usize = 3;

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
    let mut piece = Piece {
        skips: [0; PIECE],
        bytes: [0; PIECE + TAG_BYTES],
    };
    let fast_end = packed.len().saturating_sub(WINDOW);
    while from < fast_end {
        let begin = from;
        let count = PIECE.min(fast_end - begin);
        piece.read(&packed[begin..], count);
        let mut at = 0;
        while at < count {
            (at, to) = run(&piece, at, count, memory, to, base + begin);
            if to > len {
                return Err(Corrupt::Length(to, len));
            }
            from = begin + at;
            if at < count {
                element(packed, &mut from, &mut memory[..len], &mut to)?;
                at = from - begin;
            }
        }
    }
    while from < packed.len() {
        element(packed, &mut from, &mut memory[..len], &mut to)?;
    }
    match to == len {
        true => Ok(len),
        false => Err(Corrupt::Length(to, len)),
    }
}

/// Some bytes of a block, and how far it is from each to the next element, if it is the tag of one that goes the fast way.
struct Piece {
    skips: [u8; PIECE],
    bytes: [u8; PIECE + TAG_BYTES],
}

impl Piece {
    /// Reads the first `count` bytes of what is left of a block, and the rest of the tag that may begin with the last of them.
    fn read(&mut self, rest: &[u8], count: usize) {
        let len = count + TAG_BYTES;
        self.bytes[..len].copy_from_slice(&rest[..len]);
        for (skip, tag) in self.skips.iter_mut().zip(&self.bytes) {
            *skip = match tag & 3 {
                0 => (tag >> 2) + 2,
                kind => kind + 1,
            };
        }
    }
}

/// Unpacks elements from `at` on, to `to`, as long as they begin in the first `count` bytes and go the fast way; returns where the next
/// one is, and where it goes to. A `to` beyond what the header claims is wrong and harmless: the caller looks.
///
/// The piece stands in `memory` at `there` once more.
#[inline(never)]
fn run(
    piece: &Piece,
    mut at: usize,
    count: usize,
    memory: &mut [u8],
    mut to: usize,
    there: usize,
) -> (usize, usize) {
    // It is no more; said for the compiler.
    let count = count.min(PIECE);
    let there = there + 1;
    while at < count {
        let skip = piece.skips[at];
        let [tag, behind @ ..]: [u8; TAG_BYTES] = *piece.bytes[at..]
            .first_chunk()
            .expect("there is room for a tag behind the last");
        let Tag {
            len,
            least,
            offset,
            mask,
        } = TAGS[usize::from(tag)];
        let offset = usize::from(offset | u16::from_le_bytes(behind) & mask);
        if offset < usize::from(least) || offset > to {
            break;
        }
        // No overflow: `at` is within an array, `to` grows by at most 64 and is within a slice below, `offset` is at most `to`.
        // Said in wrapping operations, since the checks would stand on the longest chains of dependent instructions there are here.
        let content = there.wrapping_add(at);
        let source = select_unpredictable(tag & 3 == 0, content, to.wrapping_sub(offset));
        // There is slack behind both places; behind a `to` that is wrong there need not be.
        let wide = memory.get(source..).and_then(|m| m.first_chunk::<WIDE>());
        let Some(wide) = wide.copied() else { break };
        let target = memory.get_mut(to..).and_then(|m| m.first_chunk_mut());
        let Some(target) = target else { break };
        *target = wide;
        at = at.wrapping_add(usize::from(skip));
        to = to.wrapping_add(usize::from(len));
    }
    (at, to)
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
