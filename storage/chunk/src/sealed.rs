//! The envelope of a sealed chunk: `[encoding u8][count u16][checksum u32][payload]`, little-endian.
//!
//! The checksum is the low half of xxh3-64 over the payload, seeded with encoding and count, so that it covers every byte
//! before and after itself without copying them together. It is written here and checked here, nowhere else.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use model::{FloatHistogram, HistogramSample};

use crate::histogram::Kind;
use crate::{Error, HEADER_LEN, SEALED_LEN_MAX, histogram, xor};

/// The byte that says how a chunk is coded. Numbers are part of the log's and the block's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Gorilla XOR floats, delta-of-delta times.
    Xor = 1,
    /// Native histograms, integer counts.
    Histogram = 2,
    /// Native histograms, float counts.
    FloatHistogram = 3,
}

impl Encoding {
    fn from_byte(byte: u8) -> Result<Encoding, Error> {
        match byte {
            1 => Ok(Encoding::Xor),
            2 => Ok(Encoding::Histogram),
            3 => Ok(Encoding::FloatHistogram),
            other => Err(Error::UnknownEncoding(other)),
        }
    }
}

fn checksum(encoding: u8, count: u16, payload: &[u8]) -> u32 {
    let seed = u64::from(encoding) | u64::from(count) << 8;
    xxh3_64_with_seed(payload, seed) as u32
}

/// Starts a sealed chunk: room for `payload_len` bytes after a header whose checksum is still to be set by [`finish`].
pub(crate) fn begin(out: &mut Vec<u8>, encoding: Encoding, count: u16, payload_len: usize) {
    out.reserve_exact(HEADER_LEN + payload_len);
    out.push(encoding as u8);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
}

/// Sets the checksum of the sealed chunk that begins at `start` and ends with `out`.
pub(crate) fn finish(out: &mut [u8], start: usize) {
    let sealed = &mut out[start..];
    assert!(sealed.len() >= HEADER_LEN && sealed.len() <= SEALED_LEN_MAX);
    let count = u16::from_le_bytes([sealed[1], sealed[2]]);
    let sum = checksum(sealed[0], count, &sealed[HEADER_LEN..]);
    sealed[3..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
}

struct Header {
    encoding: Encoding,
    count: u16,
}

/// Checks lengths, encoding and checksum; gives the header and the payload.
fn open(sealed: &[u8]) -> Result<(Header, &[u8]), Error> {
    let Some((head, payload)) = sealed.split_first_chunk::<HEADER_LEN>() else {
        return Err(Error::Short { len: sealed.len() });
    };
    if sealed.len() > SEALED_LEN_MAX {
        return Err(Error::Long { len: sealed.len() });
    }
    let [encoding, c0, c1, s0, s1, s2, s3] = *head;
    let count = u16::from_le_bytes([c0, c1]);
    let expected = u32::from_le_bytes([s0, s1, s2, s3]);
    let found = checksum(encoding, count, payload);
    if found != expected {
        return Err(Error::Checksum { expected, found });
    }
    let encoding = Encoding::from_byte(encoding)?;
    Ok((Header { encoding, count }, payload))
}

fn open_floats(sealed: &[u8]) -> Result<(u16, &[u8]), Error> {
    let (header, payload) = open(sealed)?;
    match header.encoding {
        Encoding::Xor => Ok((header.count, payload)),
        other => Err(Error::NotFloats(other)),
    }
}

/// Kind, count and payload of a chunk of histograms whose checksum is right.
pub(crate) fn open_histograms(sealed: &[u8]) -> Result<(Kind, u16, &[u8]), Error> {
    let (header, payload) = open(sealed)?;
    match header.encoding {
        Encoding::Histogram => Ok((Kind::Int, header.count, payload)),
        Encoding::FloatHistogram => Ok((Kind::Float, header.count, payload)),
        Encoding::Xor => Err(Error::NotHistograms(header.encoding)),
    }
}

/// Whether the first byte says that a chunk holds histograms. Verifies nothing: decoding does.
#[inline]
pub fn holds_histograms(sealed: &[u8]) -> bool {
    matches!(sealed.first(), Some(2 | 3))
}

/// How a sealed chunk is coded. Verifies the checksum.
pub fn encoding(sealed: &[u8]) -> Result<Encoding, Error> {
    Ok(open(sealed)?.0.encoding)
}

/// Samples in a sealed chunk. Verifies the checksum, so that the answer can be trusted for sizing.
pub fn count(sealed: &[u8]) -> Result<u16, Error> {
    Ok(open(sealed)?.0.count)
}

/// Time of the first sample, `None` of an empty chunk. Verifies the checksum; does not decode the samples.
pub fn first_time(sealed: &[u8]) -> Result<Option<i64>, Error> {
    let (header, payload) = open(sealed)?;
    match header.encoding {
        Encoding::Xor => xor::first_time(header.count, payload),
        Encoding::Histogram | Encoding::FloatHistogram => {
            histogram::first_time(header.count, payload)
        }
    }
}

/// Appends all samples of a sealed chunk to the two columns, times ascending.
///
/// Errors: whatever is wrong with the bytes; the columns are then as they were. Allocates at most what the columns need for
/// the samples. Cost: 2 to 8 ns a sample, constant series far less.
pub fn decode(sealed: &[u8], times: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<(), Error> {
    let (count, payload) = open_floats(sealed)?;
    xor::decode(count, payload, times, values)
}

/// As [`decode`], but only samples with `min <= time <= max` (milliseconds, inclusive).
///
/// Decodes from the start of the chunk and stops behind `max`: a chunk has no index.
pub fn decode_range(
    sealed: &[u8],
    min: i64,
    max: i64,
    times: &mut Vec<i64>,
    values: &mut Vec<f64>,
) -> Result<(), Error> {
    let (count, payload) = open_floats(sealed)?;
    xor::decode_range(count, payload, min, max, times, values)
}

/// Appends the histograms with `min <= time <= max` of a sealed chunk, as they were written.
///
/// Errors: as [`decode`], and both lists are then as they were; a chunk of floats. Allocates what the histograms need, at most about 16 MiB.
pub fn decode_histograms(
    sealed: &[u8],
    min: i64,
    max: i64,
    times: &mut Vec<i64>,
    histograms: &mut Vec<HistogramSample>,
) -> Result<(), Error> {
    histogram::decode(open_histograms(sealed)?, (min, max), times, histograms)
}

/// As [`decode_histograms`], with float counts: what evaluation works on. Cost: 5 to 10 ns a bucket.
pub fn decode_float_histograms(
    sealed: &[u8],
    min: i64,
    max: i64,
    times: &mut Vec<i64>,
    histograms: &mut Vec<FloatHistogram>,
) -> Result<(), Error> {
    histogram::decode_floats(open_histograms(sealed)?, (min, max), times, histograms)
}

/// Opens a sealed chunk for going on: count and payload of a float chunk whose checksum is right.
pub(crate) fn reopen(sealed: &[u8]) -> Result<(u16, &[u8]), Error> {
    open_floats(sealed)
}
