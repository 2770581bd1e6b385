//! The bytes of a value outside of this process: whose it is, and whether it is whole.
//!
//! ```text
//! 4  magic "MYC" and the version
//! 1  how the body is packed: 0 not, 1 snappy
//! 4  length of the key, little-endian
//! 4  length of the packed body
//!    the key, whole
//!    the body
//! 16 xxh3-128 of all before
//! ```

use xxhash_rust::xxh3::xxh3_128;

use crate::{Key, Value};

const MAGIC: [u8; 4] = *b"MYC\x01";
const HEAD_BYTES: usize = 13;
const SUM_BYTES: usize = 16;

/// A body that unpacks to more is not taken.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Bytes that a value takes beside key and body.
pub const FRAME_BYTES: usize = HEAD_BYTES + SUM_BYTES;

/// Seals a value; packed where that is asked for and helps.
pub fn seal(key: &Key, value: &[u8], pack: bool) -> Vec<u8> {
    let packed = match pack {
        true => snap::raw::Encoder::new().compress_vec(value).ok(),
        false => None,
    };
    let packed = packed.filter(|packed| packed.len() < value.len());
    let (kind, body) = match &packed {
        Some(packed) => (1, &packed[..]),
        None => (0, value),
    };
    let full = key.full();
    let mut bytes = Vec::with_capacity(FRAME_BYTES + full.len() + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.push(kind);
    bytes.extend_from_slice(&(full.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(full);
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&xxh3_128(&bytes).to_le_bytes());
    bytes
}

/// Opens it again; `None` if it is not whole, of another version, or of another key.
pub fn open(key: &Key, bytes: &[u8]) -> Option<Value> {
    let (framed, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM_BYTES)?)?;
    if xxh3_128(framed).to_le_bytes() != sum {
        return None;
    }
    let rest = framed.strip_prefix(&MAGIC)?;
    let (&kind, rest) = rest.split_first()?;
    let (lengths, rest) = rest.split_at_checked(8)?;
    let length = |at: usize| -> Option<usize> {
        let bytes = lengths[at..at + 4].try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (full, body) = rest.split_at_checked(length(0)?)?;
    if full != key.full() || body.len() != length(4)? {
        return None;
    }
    match kind {
        0 => Some(Value::from(body)),
        1 => {
            let len = snap::raw::decompress_len(body).ok()?;
            if len > BODY_BYTES_MAX {
                return None;
            }
            let unpacked = snap::raw::Decoder::new().decompress_vec(body).ok()?;
            Some(Value::from(unpacked))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_or_of_another_key_is_nothing() {
        let (key, other) = (Key::of(&[b"a", b"key"]), Key::of(&[b"b", b"key"]));
        for (value, pack) in [
            (vec![7; 300], true),
            (vec![1, 2, 3], true),
            (vec![7; 300], false),
        ] {
            let sealed = seal(&key, &value, pack);
            assert_eq!(open(&key, &sealed).as_deref(), Some(&value[..]));
            assert_eq!(open(&other, &sealed), None);
            for len in 0..sealed.len() {
                assert_eq!(open(&key, &sealed[..len]), None, "cut to {len}");
            }
            for bit in 0..sealed.len() * 8 {
                let mut wrong = sealed.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open(&key, &wrong), None, "bit {bit}");
            }
            let mut longer = sealed.clone();
            longer.push(0);
            assert_eq!(open(&key, &longer), None);
        }
        assert!(seal(&key, &[7; 300], true).len() < 100);
    }
}
