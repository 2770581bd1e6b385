//! Unpacking the bodies of OTLP, which come as they are or as gzip or zstd, bounded in bytes and memory.

use std::io::{self, BufRead, Read};

use wire::snappy;

use super::PushError;

/// How a body of OTLP is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
}

/// Unpacked at once, between two looks at the bounds.
const PIECE: u64 = 1 << 20;

/// What a zstd frame may look back, as a power of two: 8 MiB, which RFC 8878 recommends, and what all usual levels need.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Unpacks a body. `room` is told how many bytes came, before more are unpacked.
///
/// Errors: bytes that are not packed so, more than `max` bytes, `room`.
pub(super) fn unpack(
    packing: Packing,
    packed: &[u8],
    max: usize,
    mut room: impl FnMut(u64) -> Result<(), PushError>,
) -> Result<Vec<u8>, PushError> {
    assert_ne!(packing, Packing::None, "nothing is to be unpacked");
    let broken = |error: io::Error| PushError::Packing(error.to_string());
    let mut reader = reader(packing, packed).map_err(broken)?;
    let mut out = Vec::new();
    loop {
        let came = reader
            .by_ref()
            .take(PIECE)
            .read_to_end(&mut out)
            .map_err(broken)?;
        if came == 0 {
            return Ok(out);
        }
        if out.len() > max {
            let size = out.len() as u64;
            return Err(snappy::Error::TooLarge { size, max }.into());
        }
        room(came as u64)?;
    }
}

fn reader<'a>(packing: Packing, packed: &'a [u8]) -> io::Result<Box<dyn Read + 'a>> {
    match packing {
        Packing::None => Ok(Box::new(packed)),
        Packing::Gzip => {
            let mut packed = packed;
            // Nothing is no gzip, but the decoder takes it for none of several members.
            if packed.fill_buf()?.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Box::new(flate2::bufread::MultiGzDecoder::new(packed)))
        }
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Ok(Box::new(decoder))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_packed_comes_out() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
        for (packing, packed) in [
            (Packing::Gzip, gzip(&bytes)),
            (Packing::Zstd, zstd::encode_all(&bytes[..], 3).unwrap()),
        ] {
            let mut counted = 0;
            let room = |came| {
                counted += came;
                Ok(())
            };
            assert_eq!(unpack(packing, &packed, 3_000_000, room), Ok(bytes.clone()));
            assert_eq!(counted, 3_000_000);
            let cut = &packed[..packed.len() / 2];
            let broken = unpack(packing, cut, 3_000_000, |_| Ok(()));
            assert!(matches!(broken, Err(PushError::Packing(_))), "{packing:?}");
            assert!(unpack(packing, b"", 10, |_| Ok(())).is_err() || packing == Packing::Zstd);
            assert!(unpack(packing, b"not packed", 10, |_| Ok(())).is_err());
        }
    }

    /// 64 MiB of zeros are a few kilobytes packed: no more is unpacked than one piece beyond the bound.
    #[test]
    fn a_bomb_is_left_alone_at_the_bound() {
        let zeros = vec![0; 64 << 20];
        for (packing, packed) in [
            (Packing::Gzip, gzip(&zeros)),
            (Packing::Zstd, zstd::encode_all(&zeros[..], 3).unwrap()),
        ] {
            let mut counted = 0;
            let refused = unpack(packing, &packed, 5 << 20, |came| {
                counted += came;
                Ok(())
            });
            let too_large = PushError::Unpack(snappy::Error::TooLarge {
                size: 6 << 20,
                max: 5 << 20,
            });
            assert_eq!(refused, Err(too_large));
            assert_eq!(counted, 5 << 20);
        }
    }

    #[test]
    fn a_frame_that_looks_back_too_far_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        let bytes: Vec<u8> = (0..9u32 << 20)
            .map(|n| (n.wrapping_mul(n) >> 7) as u8)
            .collect();
        encoder.write_all(&bytes).unwrap();
        let packed = encoder.finish().unwrap();
        let refused = unpack(Packing::Zstd, &packed, 100 << 20, |_| Ok(()));
        assert!(matches!(refused, Err(PushError::Packing(_))), "{refused:?}");
    }
}
