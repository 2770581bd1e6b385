//! Floats as Gorilla does them, with a shorter code for what is common.
//!
//! The idea is that of Facebook's Gorilla (VLDB 2015) and of Prometheus' `tsdb/chunkenc/xor.go`: a time is the change of the
//! distance to its predecessor (delta of delta), a value is the XOR with its predecessor, of which only the bits between the
//! leading and the trailing zeros are kept. The control bits of time and value are joined, since most scrapes come on time:
//!
//! | first bits | time | value | bits here | in Gorilla |
//! | --- | --- | --- | --- | --- |
//! | `0` | on time | the same | 1 | 2 |
//! | `10` | on time | XOR inside the window of the last one | 2 + n | 3 + n |
//! | `110` | on time | XOR with a window of its own | 14 + n | 14 + n |
//! | `111` | width `ww`, delta of delta | `0`, `10`, `11` as above | 5 + 6, 12, 20 or 64 + .. | 2 to 4 + 7 .. 64 + .. |
//!
//! (Bits in the order in which they are written.) A run of ones on time costs a bit each, and the decoder takes the whole run
//! by counting zeros. The byte-by-byte account is in `docs/formats/chunk.md`.

mod append;
mod decode;

pub use append::XorAppender;
pub(crate) use decode::{decode, decode_range, first_time, split, take_value};

/// Bits of a delta of delta, signed, by the two bits `ww`.
///
/// 6 for the jitter of a scrape loop, 12 for a missed beat of a second, 20 for a missed scrape (and the first distance: up to
/// 8 min), 64 for anything.
pub(crate) const TIME_BITS: [u32; 4] = [6, 12, 20, 64];

/// Bits that store the leading zeros of a window, hence at most 31 are used.
pub(crate) const LEADING_BITS: u32 = 5;
/// Bits that store the length of a window, less one.
pub(crate) const LENGTH_BITS: u32 = 6;
pub(crate) const LEADING_MAX: u32 = (1 << LEADING_BITS) - 1;

const _: () = assert!(
    crate::limits::SAMPLE_BITS_MAX == 3 + 2 + TIME_BITS[3] + 2 + LEADING_BITS + LENGTH_BITS + 64
);

/// Where the meaningful bits of XORs lie: `leading` zeros above, `length` bits, zeros below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) leading: u8,
    /// 1 to 64; 0 while no value has needed a window.
    pub(crate) length: u8,
}

impl Window {
    pub(crate) const NONE: Window = Window {
        leading: 0,
        length: 0,
    };

    /// Zeros below.
    #[inline(always)]
    pub(crate) fn trailing(self) -> u32 {
        64 - u32::from(self.leading) - u32::from(self.length)
    }
}

/// All that the next sample's code depends on.
#[derive(Debug, Clone, Copy)]
struct Last {
    time: i64,
    /// Distance to the time before; 0 after the first sample. May be anything up to the whole range of `i64`.
    delta: u64,
    value: u64,
    window: Window,
}

impl Last {
    const NONE: Last = Last {
        time: 0,
        delta: 0,
        value: 0,
        window: Window::NONE,
    };
}

#[cfg(test)]
mod tests;
