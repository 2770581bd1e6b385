//! The frame around every page of a block: lengths, kind, compression, and a checksum over all of it.
//!
//! The checksum is seeded with the file's id and the page's offset, so that a page that lies in the wrong place, or in the wrong file, is
//! as wrong as one with a flipped bit. It is written here and checked here, nowhere else.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::Malformed;
use crate::limits::{DIRECTORY_BYTES_MAX, PAGE_BYTES_MAX};

/// Checksum 8, stored length 4, payload length 4, kind 1, compression 1, zero 2.
pub(crate) const FRAME_BYTES: usize = 20;

/// What a page holds. Numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Samples.
    Chunks = 1,
    /// Texts of labels.
    Symbols = 2,
    /// Label sets.
    Series = 3,
    /// Series by label.
    Postings = 4,
    /// Where the pages of a tenant are.
    Directory = 5,
    /// Where the tenants are.
    Footer = 6,
}

impl Kind {
    fn payload_max(self) -> usize {
        match self {
            Kind::Directory | Kind::Footer => DIRECTORY_BYTES_MAX,
            _ => PAGE_BYTES_MAX,
        }
    }

    /// As in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Chunks => "chunks",
            Kind::Symbols => "symbols",
            Kind::Series => "series",
            Kind::Postings => "postings",
            Kind::Directory => "directory",
            Kind::Footer => "footer",
        }
    }
}

/// Payload as it is.
const PLAIN: u8 = 0;
/// Payload compressed by zstd.
const ZSTD: u8 = 1;

/// zstd's level for pages of an index, which are small and read often; higher ones gained less than 2 % (decision 0008).
const INDEX_LEVEL: i32 = 9;
/// zstd's level where it is tried on samples.
const CHUNKS_LEVEL: i32 = 3;

fn seed(id: u128, offset: u64) -> u64 {
    (id as u64) ^ ((id >> 64) as u64) ^ offset
}

/// Appends `payload` as the page that begins at `offset` of the file `id`; gives its length with the frame.
///
/// zstd is kept where it takes away an eighth or more (of an index page: anything), as samples are decompressed for every query.
///
/// Panics if the payload is beyond the bound of its kind: the builder keeps to it.
pub(crate) fn seal(
    kind: Kind,
    payload: &[u8],
    compress: bool,
    id: u128,
    offset: u64,
    out: &mut Vec<u8>,
) -> usize {
    assert!(
        payload.len() <= kind.payload_max(),
        "a {} page of {} bytes",
        kind.name(),
        payload.len()
    );
    let (level, worth) = match kind {
        Kind::Chunks => (CHUNKS_LEVEL, payload.len() / 8 * 7),
        _ => (INDEX_LEVEL, payload.len()),
    };
    let squeezed = if compress && payload.len() >= 64 {
        zstd::bulk::compress(payload, level)
            .ok()
            .filter(|squeezed| squeezed.len() < worth)
    } else {
        None
    };
    let (compression, stored) = match &squeezed {
        Some(squeezed) => (ZSTD, &squeezed[..]),
        None => (PLAIN, payload),
    };
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[kind as u8, compression, 0, 0]);
    out.extend_from_slice(stored);
    let sum = xxh3_64_with_seed(&out[start + 8..], seed(id, offset));
    out[start..start + 8].copy_from_slice(&sum.to_le_bytes());
    out.len() - start
}

/// Checks frame and checksum of a whole page and gives its payload.
pub(crate) fn open(
    page: &[u8],
    kind: Kind,
    id: u128,
    offset: u64,
) -> Result<Cow<'_, [u8]>, Malformed> {
    let (frame, stored) = page
        .split_first_chunk::<FRAME_BYTES>()
        .ok_or_else(|| Malformed::new("frame of a page", FRAME_BYTES, page.len()))?;
    let word = |at: usize| u32::from_le_bytes(*frame[at..].first_chunk().expect("in the frame"));
    let expected = u64::from_le_bytes(*frame.first_chunk().expect("in the frame"));
    let found = xxh3_64_with_seed(&page[8..], seed(id, offset));
    if expected != found {
        let (expected, found) = (format!("{expected:016x}"), format!("{found:016x}"));
        return Err(Malformed::new("checksum of a page", expected, found));
    }
    let (stored_len, len) = (word(8) as usize, word(12) as usize);
    if stored_len != stored.len() {
        return Err(Malformed::new("length of a page", stored.len(), stored_len));
    }
    if frame[16] != kind as u8 {
        let expected = format!("{} ({})", kind as u8, kind.name());
        return Err(Malformed::new("kind of a page", expected, frame[16]));
    }
    if len > kind.payload_max() {
        let expected = format!("at most {}", kind.payload_max());
        return Err(Malformed::new("length of a payload", expected, len));
    }
    if frame[18..20] != [0, 0] {
        return Err(Malformed::new("reserved bytes of a frame", 0, "others"));
    }
    match frame[17] {
        PLAIN if len == stored_len => Ok(Cow::Borrowed(stored)),
        PLAIN => Err(Malformed::new("length of a payload", stored_len, len)),
        ZSTD => {
            let payload = zstd::bulk::decompress(stored, len)
                .map_err(|e| Malformed::new("zstd payload", "sound", e))?;
            if payload.len() != len {
                return Err(Malformed::new("length of a payload", len, payload.len()));
            }
            Ok(Cow::Owned(payload))
        }
        other => Err(Malformed::new("compression of a page", "0 or 1", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_flip_and_every_wrong_place_is_an_error() {
        for payload in [&b"short"[..], &[7; 500][..]] {
            let mut page = Vec::new();
            let len = seal(Kind::Series, payload, true, 5, 1000, &mut page);
            assert_eq!(len, page.len());
            assert_eq!(&*open(&page, Kind::Series, 5, 1000).unwrap(), payload);
            assert!(open(&page, Kind::Series, 5, 1001).is_err());
            assert!(open(&page, Kind::Series, 6, 1000).is_err());
            assert!(open(&page, Kind::Postings, 5, 1000).is_err());
            assert!(open(&page[..len - 1], Kind::Series, 5, 1000).is_err());
            for bit in 0..len * 8 {
                page[bit / 8] ^= 1 << (bit % 8);
                assert!(open(&page, Kind::Series, 5, 1000).is_err(), "bit {bit}");
                page[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
