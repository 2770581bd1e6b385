//! Numbers of equal width, packed back to back: bit `i` of the stream is bit `i % 8` of byte `i / 8`.
//!
//! Unpacking loads eight bytes for each number and shifts, so it has no state and no loop over bits.

/// Bytes of `count` numbers of `width` bits.
#[inline]
pub(crate) fn packed_len(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Bits that `value` needs.
#[inline]
pub(crate) fn width_of(value: u64) -> u32 {
    64 - value.leading_zeros()
}

fn mask(width: u32) -> u64 {
    if width == 0 {
        0
    } else {
        u64::MAX >> (64 - width)
    }
}

/// Appends the low `width` bits of every value; the bits above must be zero.
pub(crate) fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    debug_assert!(width <= 64);
    if width == 0 {
        return;
    }
    let (mut pending, mut bits) = (0u128, 0u32);
    for value in values {
        debug_assert!(value & !mask(width) == 0);
        pending |= u128::from(value) << bits;
        bits += width;
        if bits >= 64 {
            out.extend_from_slice(&(pending as u64).to_le_bytes());
            pending >>= 64;
            bits -= 64;
        }
    }
    let rest = (pending as u64).to_le_bytes();
    out.extend_from_slice(&rest[..bits.div_ceil(8) as usize]);
}

/// Fills `out` with `base` plus the numbers packed in `bytes`, which is exactly as long as they need.
pub(crate) fn unpack(bytes: &[u8], width: u32, base: i64, out: &mut [i64]) {
    assert_eq!(bytes.len(), packed_len(out.len(), width));
    assert!(width <= 64);
    if width == 0 {
        return out.fill(base);
    }
    let step = width as usize;
    let mask = mask(width);
    // So many begin where eight bytes can be loaded.
    let whole = match bytes.len() {
        len @ 8.. if width <= 56 => (((len - 7) * 8 - 1) / step + 1).min(out.len()),
        _ => 0,
    };
    let (easy, rest) = out.split_at_mut(whole);
    for (i, slot) in easy.iter_mut().enumerate() {
        let bit = i * step;
        let word = bytes[bit / 8..].first_chunk().expect("counted above");
        let value = (u64::from_le_bytes(*word) >> (bit % 8)) & mask;
        *slot = base.wrapping_add(value as i64);
    }
    for (i, slot) in rest.iter_mut().enumerate() {
        let bit = (whole + i) * step;
        let mut wide = [0u8; 16];
        let from = &bytes[bit / 8..];
        let len = from.len().min(9);
        wide[..len].copy_from_slice(&from[..len]);
        let value = (u128::from_le_bytes(wide) >> (bit % 8)) as u64 & mask;
        *slot = base.wrapping_add(value as i64);
    }
}

/// Whether the bits behind `count` numbers of `width` bits are zero, as [`pack`] leaves them.
pub(crate) fn padding_is_zero(bytes: &[u8], count: usize, width: u32) -> bool {
    let used = count * width as usize % 8;
    used == 0 || bytes.last().is_none_or(|last| last >> used == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_count_comes_back() {
        for width in 0..=64u32 {
            for count in [0usize, 1, 2, 7, 8, 9, 63, 64, 65, 200] {
                let values: Vec<u64> = (0..count as u64)
                    .map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask(width))
                    .collect();
                let mut bytes = Vec::new();
                pack(values.iter().copied(), width, &mut bytes);
                assert_eq!(bytes.len(), packed_len(count, width));
                assert!(padding_is_zero(&bytes, count, width));
                let mut out = vec![0; count];
                unpack(&bytes, width, -3, &mut out);
                let expected: Vec<i64> =
                    values.iter().map(|&v| (v as i64).wrapping_sub(3)).collect();
                assert_eq!(out, expected, "{count} numbers of {width} bits");
            }
        }
    }
}
