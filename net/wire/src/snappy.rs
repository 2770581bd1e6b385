//! Snappy, the envelope of remote write.
//!
//! Senders use the *block* format; a body that starts with the stream identifier is read as *framed* (old senders).
//! The unpacked bytes land in a [`Buffer`] that is used for one body after another, so that a steady sender costs no allocation
//! and no zeroing. The length header is checked against the limit, and against what the body can possibly hold,
//! before the buffer grows. The block format is read by [`block`], the framed one by the crate `snap`.

mod block;

use std::io::Read;

use crate::limits::SNAPPY_EXPANSION_MAX;

/// What a framed stream begins with.
pub const STREAM_IDENTIFIER: [u8; 10] = *b"\xff\x06\x00\x00sNaPpY";

/// Why a body cannot be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More bytes than allowed, packed or unpacked. The text is Cortex's.
    #[error("received message larger than max ({size} vs {max})")]
    TooLarge {
        /// Bytes there are, or as many as were looked at.
        size: u64,
        /// Bytes allowed.
        max: usize,
    },
    /// Not snappy.
    #[error("cannot decompress snappy: {0}")]
    Corrupt(String),
}

/// Unpacked bytes. The memory is kept from body to body and never shrinks by itself.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Initialised once; only the first `len` bytes mean something.
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// The unpacked bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Bytes of memory held, used or not.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

/// How many bytes a body will unpack to, without unpacking it; for a framed one an upper bound.
///
/// Errors: a body or a length header above `max`, a header that is cut short, or one that claims more than the body can hold.
pub fn unpacked_len(body: &[u8], max: usize) -> Result<usize, Error> {
    if body.len() > max {
        return Err(Error::TooLarge {
            size: body.len() as u64,
            max,
        });
    }
    let most = body.len().saturating_mul(SNAPPY_EXPANSION_MAX);
    if body.starts_with(&STREAM_IDENTIFIER) {
        return Ok(most.min(max));
    }
    if body.is_empty() {
        return Err(Error::Corrupt("the body is empty".to_owned()));
    }
    let (claimed, _) = block::header(body).map_err(corrupt)?;
    if claimed > max {
        return Err(Error::TooLarge {
            size: claimed as u64,
            max,
        });
    }
    if claimed > most {
        return Err(Error::Corrupt(format!(
            "{} bytes cannot unpack to the {claimed} they claim",
            body.len()
        )));
    }
    Ok(claimed)
}

/// Unpacks `body` into `buffer`, replacing what was there.
///
/// Errors: as [`unpacked_len`], and bytes that are not snappy; the buffer is then empty. Cost: one pass; the buffer, which has room for
/// the packed bytes too, grows, and the growth is zeroed, only for a body larger than all before.
pub fn unpack(body: &[u8], max: usize, buffer: &mut Buffer) -> Result<(), Error> {
    buffer.len = 0;
    let len = unpacked_len(body, max)?;
    if body.starts_with(&STREAM_IDENTIFIER) {
        return unpack_framed(body, max, buffer);
    }
    let needed = block::memory_len(body.len(), len);
    if buffer.bytes.len() < needed {
        buffer.bytes.resize(needed, 0);
    }
    buffer.len = block::unpack(body, &mut buffer.bytes).map_err(corrupt)?;
    Ok(())
}

fn unpack_framed(body: &[u8], max: usize, buffer: &mut Buffer) -> Result<(), Error> {
    buffer.bytes.clear();
    let mut source = snap::read::FrameDecoder::new(body).take(max as u64 + 1);
    source.read_to_end(&mut buffer.bytes).map_err(corrupt)?;
    if buffer.bytes.len() > max {
        return Err(Error::TooLarge {
            size: buffer.bytes.len() as u64,
            max,
        });
    }
    buffer.len = buffer.bytes.len();
    Ok(())
}

/// Packs bytes in the block format, for senders: the load tool, tests.
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new()
        .compress_vec(bytes)
        .expect("a vector of the right size cannot be too small")
}

fn corrupt(error: impl std::fmt::Display) -> Error {
    Error::Corrupt(error.to_string())
}

#[cfg(test)]
mod tests;
