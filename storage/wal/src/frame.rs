//! Headers: of a segment (or checkpoint) and of a frame. Encode, decode, verify; no I/O.
//!
//! The layout is drawn in `docs/formats/wal.md`. A frame is believed only if its checksum is right *and* it names the segment, the
//! core and the epoch in which it was found: that is what keeps a recycled file's former content out.

use xxhash_rust::xxh3::xxh3_64;

use crate::limits::{BLOCK_BYTES, FRAME_BYTES_MAX, FRAME_HEADER_BYTES};

/// Version of the format.
pub(crate) const VERSION: u16 = 4;
/// The oldest that is still read. Version 1 knows no stored chunks.
pub(crate) const VERSION_MIN: u16 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"MYELNWAL";
const FRAME_MAGIC: [u8; 4] = *b"MYFR";

/// Flag of a frame written without sync.
const FLAG_RELAXED: u16 = 1;
/// Flag of the last frame of a checkpoint.
const FLAG_LAST: u16 = 2;

/// What a file with a segment header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segment = 0,
    Checkpoint = 1,
}

/// The header block of a segment or checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) kind: FileKind,
    pub(crate) core: u16,
    /// Number of the segment; of a checkpoint, of the first segment it does not contain.
    pub(crate) sequence: u32,
    pub(crate) epoch: u64,
    /// Number of the first commit in the segment; of a checkpoint, of the first it does not contain.
    pub(crate) first_commit: u64,
    /// Log position of that commit.
    pub(crate) first_lsn: u64,
}

/// Why a block is not a header we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Not a header at all, or a damaged one.
    Invalid,
    /// A sound header of another version.
    Version(u16),
}

impl FileHeader {
    /// Writes the block.
    pub(crate) fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_BYTES);
        block.fill(0);
        block[8..16].copy_from_slice(&SEGMENT_MAGIC);
        block[16..18].copy_from_slice(&VERSION.to_le_bytes());
        block[18..20].copy_from_slice(&(self.kind as u16).to_le_bytes());
        block[20..22].copy_from_slice(&self.core.to_le_bytes());
        block[24..28].copy_from_slice(&self.sequence.to_le_bytes());
        block[32..40].copy_from_slice(&self.epoch.to_le_bytes());
        block[40..48].copy_from_slice(&self.first_commit.to_le_bytes());
        block[48..56].copy_from_slice(&self.first_lsn.to_le_bytes());
        let checksum = xxh3_64(&block[8..]);
        block[..8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads a block; every field is checked.
    pub(crate) fn decode(block: &[u8]) -> Result<FileHeader, HeaderFault> {
        let block: &[u8; BLOCK_BYTES] = block.try_into().map_err(|_| HeaderFault::Invalid)?;
        if block[8..16] != SEGMENT_MAGIC || u64_at(block, 0) != xxh3_64(&block[8..]) {
            return Err(HeaderFault::Invalid);
        }
        let version = u16_at(block, 16);
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(HeaderFault::Version(version));
        }
        let kind = match u16_at(block, 18) {
            0 => FileKind::Segment,
            1 => FileKind::Checkpoint,
            _ => return Err(HeaderFault::Invalid),
        };
        Ok(FileHeader {
            kind,
            core: u16_at(block, 20),
            sequence: u32_at(block, 24),
            epoch: u64_at(block, 32),
            first_commit: u64_at(block, 40),
            first_lsn: u64_at(block, 48),
        })
    }
}

/// What stands in front of a frame's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes of records.
    pub(crate) len: u32,
    pub(crate) sequence: u32,
    pub(crate) core: u16,
    pub(crate) epoch: u64,
    /// Commit number.
    pub(crate) number: u64,
    /// Last commit known durable when this one was handed to the disk.
    pub(crate) durable: u64,
    /// Position of the first record byte.
    pub(crate) lsn: u64,
    /// Written without sync.
    pub(crate) relaxed: bool,
    /// Last frame of a checkpoint.
    pub(crate) last: bool,
}

impl FrameHeader {
    /// Writes the header in front of the records at `frame[64..64 + len]` and checksums both.
    pub(crate) fn seal(&self, frame: &mut [u8]) {
        let end = FRAME_HEADER_BYTES + self.len as usize;
        assert!(end <= frame.len() && frame_bytes(self.len as usize) <= FRAME_BYTES_MAX);
        assert!(
            self.durable < self.number || self.number == 0,
            "a commit is not durable yet"
        );
        let flags =
            if self.relaxed { FLAG_RELAXED } else { 0 } | if self.last { FLAG_LAST } else { 0 };
        frame[8..12].copy_from_slice(&FRAME_MAGIC);
        frame[12..16].copy_from_slice(&self.len.to_le_bytes());
        frame[16..20].copy_from_slice(&self.sequence.to_le_bytes());
        frame[20..22].copy_from_slice(&self.core.to_le_bytes());
        frame[22..24].copy_from_slice(&flags.to_le_bytes());
        frame[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        frame[32..40].copy_from_slice(&self.number.to_le_bytes());
        frame[40..48].copy_from_slice(&self.durable.to_le_bytes());
        frame[48..56].copy_from_slice(&self.lsn.to_le_bytes());
        frame[56..64].fill(0);
        let checksum = xxh3_64(&frame[8..end]);
        frame[..8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads a header without knowing yet whether to believe it; `None` if it cannot be one.
    pub(crate) fn peek(header: &[u8; FRAME_HEADER_BYTES]) -> Option<FrameHeader> {
        if header[8..12] != FRAME_MAGIC {
            return None;
        }
        let flags = u16_at(header, 22);
        let frame = FrameHeader {
            len: u32_at(header, 12),
            sequence: u32_at(header, 16),
            core: u16_at(header, 20),
            epoch: u64_at(header, 24),
            number: u64_at(header, 32),
            durable: u64_at(header, 40),
            lsn: u64_at(header, 48),
            relaxed: flags & FLAG_RELAXED != 0,
            last: flags & FLAG_LAST != 0,
        };
        let bounded = frame.len as usize <= FRAME_BYTES_MAX - FRAME_HEADER_BYTES;
        let known = flags & !(FLAG_RELAXED | FLAG_LAST) == 0 && header[56..64] == [0; 8];
        (bounded && known).then_some(frame)
    }

    /// Bytes of the whole frame, padding included.
    pub(crate) fn bytes(&self) -> usize {
        frame_bytes(self.len as usize)
    }
}

/// Whether the checksum of header and records is right; `frame` ends with the records.
pub(crate) fn is_sound(frame: &[u8]) -> bool {
    frame.len() >= FRAME_HEADER_BYTES && u64_at(frame, 0) == xxh3_64(&frame[8..])
}

/// Whether a block that is not the frame expected still shows something of it: two of magic, place and number.
pub(crate) fn is_remnant(
    header: &[u8; FRAME_HEADER_BYTES],
    sequence: u32,
    epoch: u64,
    number: u64,
) -> bool {
    let magic = header[8..12] == FRAME_MAGIC;
    let place = u32_at(header, 16) == sequence && u64_at(header, 24) == epoch;
    let count = u64_at(header, 32) == number;
    u8::from(magic) + u8::from(place) + u8::from(count) >= 2
}

/// Bytes of a frame with that many bytes of records.
pub(crate) fn frame_bytes(len: usize) -> usize {
    (FRAME_HEADER_BYTES + len).next_multiple_of(BLOCK_BYTES)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes were taken"))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were taken"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("eight bytes were taken"),
    )
}

#[cfg(test)]
mod tests;
