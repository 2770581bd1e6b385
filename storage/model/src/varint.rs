//! LEB128 varints and zigzag, shared by the label encoding, the log and the chunk headers.

/// Appends `value` in 1 to 10 bytes.
#[inline]
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` zigzag-coded.
#[inline]
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, zigzag(value));
}

/// Reads a varint off the front of `bytes`; `None` when it is cut short or longer than 64 bits.
#[inline(always)]
pub fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    match **bytes {
        [first, ref rest @ ..] if first < 0x80 => {
            *bytes = rest;
            Some(u64::from(first))
        }
        [first, second, ref rest @ ..] if second < 0x80 => {
            *bytes = rest;
            Some(u64::from(first & 0x7f) | u64::from(second) << 7)
        }
        _ => take_long(bytes),
    }
}

/// Of three bytes or more, or broken.
fn take_long(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = u64::from(*bytes.first()? & 0x7f);
    for i in 1..10 {
        let byte = *bytes.get(i)?;
        if i == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Some(value);
        }
    }
    None
}

/// The value of a varint of exactly six bytes, the low six of `word`; `None` where it is another one. That is what the times of
/// our days take (1971 to 2109 in milliseconds), so readers of samples ask this first. Cost: a dozen instructions, no loop.
#[inline(always)]
pub fn six_bytes(word: u64) -> Option<u64> {
    if word & 0x8080_8080_8080 != 0x0080_8080_8080 {
        return None;
    }
    // Squeeze out the top bit of each byte: of pairs, then of pairs of pairs, then of the two halves.
    let word = (word & 0x007f_007f_007f) | (word & 0x7f00_7f00_7f00) >> 1;
    let word = (word & 0x3fff_0000_3fff) | (word & 0x0000_3fff_0000) >> 2;
    Some((word & 0x0fff_ffff) | (word & 0x3fff_0000_0000) >> 4)
}

/// Reads a zigzag varint off the front of `bytes`.
#[inline]
pub fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    take_u64(bytes).map(unzigzag)
}

/// Maps small magnitudes of either sign to small numbers.
#[inline]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_power_of_two_survives_the_round_trip() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, !(1u64 << shift)] {
                let mut out = Vec::new();
                put_u64(&mut out, value);
                put_i64(&mut out, value as i64);
                let mut rest = &out[..];
                assert_eq!(take_u64(&mut rest), Some(value));
                assert_eq!(take_i64(&mut rest), Some(value as i64));
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn six_bytes_are_read_at_once_and_nothing_else_is() {
        let varint = |value: u64| {
            let mut out = Vec::new();
            put_u64(&mut out, value);
            out.resize(8, 0xff);
            u64::from_le_bytes(out.try_into().unwrap_or_default())
        };
        for shift in 0..42 {
            for value in [1u64 << shift, (2u64 << shift) - 1, 0x2aa_aaaa_aaaa >> shift] {
                let six = (1 << 35..1 << 42).contains(&value);
                assert_eq!(six_bytes(varint(value)), six.then_some(value), "{value}");
            }
        }
        assert_eq!(
            six_bytes(varint(1_700_000_000_123)),
            Some(1_700_000_000_123)
        );
        assert_eq!(six_bytes(varint(1 << 42)), None);
        // Padded: five bytes would do.
        assert_eq!(six_bytes(0x0080_8080_8081), Some(1));
    }

    #[test]
    fn cut_short_or_over_long_varints_are_refused() {
        assert_eq!(take_u64(&mut &[0x80u8][..]), None);
        assert_eq!(take_u64(&mut &[0xffu8; 11][..]), None);
        assert_eq!(take_u64(&mut &[][..]), None);
    }
}
