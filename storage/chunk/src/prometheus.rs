//! Chunks as Prometheus writes them: what remote read streams, and what its blocks hold.
//!
//! Not how we keep samples; an encoder for those who ask, and a decoder for what they hand in. Most significant bit first:
//!
//! ```text
//! XOR:   count u16 big-endian | time varint, value f64 | delta uvarint, value | (delta of delta, value) ...
//! delta of delta: 0 -> 0; 10 + 14 bits; 110 + 17; 1110 + 20; 1111 + 64, two's complement, ranges (-2^(n-1), 2^(n-1)]
//! value: xor with the one before: 0 -> same; 10 -> the bits within the window of the one before;
//!        11 + 5 bits of leading zeros + 6 bits of length (64 is 0) + bits
//! ```
//!
//! Source: Prometheus `tsdb/chunkenc/xor.go`, `tsdb/docs/format/chunks.md`.

mod histogram;

use model::varint;

pub use histogram::{
    PrometheusHistograms, decode_prometheus_histograms, encode_prometheus_histograms,
};

/// Samples that Prometheus puts into a chunk.
pub const PROMETHEUS_CHUNK_SAMPLES: usize = 120;

/// Leading zeros of a window that does not exist.
const NO_WINDOW: u32 = 0xff;

/// Bytes that are no chunk of Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no chunk of Prometheus: it ends within a sample, or its bits mean nothing")]
pub struct NotPrometheus;

/// Appends bits, the highest first.
#[derive(Debug, Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Free low bits of the last byte.
    free: u32,
}

impl BitWriter {
    fn put(&mut self, value: u64, mut bits: u32) {
        debug_assert!(bits <= 64);
        while bits > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let some = bits.min(self.free);
            let part = (value >> (bits - some)) as u8 & (0xff_u16 >> (8 - some)) as u8;
            let last = self.bytes.last_mut().expect("pushed above");
            *last |= part << (self.free - some);
            (self.free, bits) = (self.free - some, bits - some);
        }
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.put(u64::from(byte), 8));
    }
}

/// The window of significant bits that the last value opened.
#[derive(Debug, Clone, Copy)]
struct Window {
    leading: u32,
    trailing: u32,
}

/// Encodes samples, ascending in time, as one XOR chunk. Panics with no samples at all, and with more than a chunk can count.
///
/// Cost: about 20 ns a sample.
pub fn encode_prometheus_xor(times: &[i64], values: &[f64]) -> Vec<u8> {
    assert_eq!(times.len(), values.len(), "a column for each");
    assert!(
        !times.is_empty() && times.len() <= usize::from(u16::MAX),
        "a chunk counts its samples in 16 bits"
    );
    let mut out = BitWriter::default();
    out.bytes.reserve(16 + times.len() * 4);
    out.put_bytes(&(times.len() as u16).to_be_bytes());
    let mut scratch = Vec::with_capacity(10);
    put_signed(&mut scratch, times[0]);
    out.put_bytes(&scratch);
    out.put(values[0].to_bits(), 64);
    let mut window = Window {
        leading: NO_WINDOW,
        trailing: 0,
    };
    let mut delta = 0i64;
    for at in 1..times.len() {
        let now = times[at].wrapping_sub(times[at - 1]);
        if at == 1 {
            scratch.clear();
            varint::put_u64(&mut scratch, now as u64);
            out.put_bytes(&scratch);
        } else {
            put_delta_of_delta(&mut out, now.wrapping_sub(delta));
        }
        delta = now;
        let xor = values[at].to_bits() ^ values[at - 1].to_bits();
        put_xor(&mut out, xor, &mut window);
    }
    out.bytes
}

/// Go's zigzag varint.
fn put_signed(out: &mut Vec<u8>, value: i64) {
    varint::put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn put_delta_of_delta(out: &mut BitWriter, value: i64) {
    let fits = |bits: u32| -(1i64 << (bits - 1)) < value && value <= 1i64 << (bits - 1);
    match value {
        0 => out.put(0, 1),
        v if fits(14) => {
            out.put(0b10, 2);
            out.put(v as u64, 14);
        }
        v if fits(17) => {
            out.put(0b110, 3);
            out.put(v as u64, 17);
        }
        v if fits(20) => {
            out.put(0b1110, 4);
            out.put(v as u64, 20);
        }
        v => {
            out.put(0b1111, 4);
            out.put(v as u64, 64);
        }
    }
}

fn put_xor(out: &mut BitWriter, xor: u64, window: &mut Window) {
    if xor == 0 {
        return out.put(0, 1);
    }
    // Five bits.
    let leading = xor.leading_zeros().min(31);
    let trailing = xor.trailing_zeros();
    out.put(1, 1);
    if window.leading != NO_WINDOW && leading >= window.leading && trailing >= window.trailing {
        out.put(0, 1);
        let bits = 64 - window.leading - window.trailing;
        return out.put(xor >> window.trailing, bits);
    }
    *window = Window { leading, trailing };
    let bits = 64 - leading - trailing;
    out.put(1, 1);
    out.put(u64::from(leading), 5);
    out.put(u64::from(bits & 63), 6);
    out.put(xor >> trailing, bits);
}

/// Takes bits, the highest first.
struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn take(&mut self, bits: u32) -> Result<u64, NotPrometheus> {
        let mut value = 0u64;
        let mut left = bits as usize;
        while left > 0 {
            let byte = *self.bytes.get(self.at / 8).ok_or(NotPrometheus)?;
            let free = 8 - self.at % 8;
            let some = left.min(free);
            let part = (byte >> (free - some)) & (0xff_u16 >> (8 - some)) as u8;
            value = value << some | u64::from(part);
            (self.at, left) = (self.at + some, left - some);
        }
        Ok(value)
    }

    fn varint(&mut self) -> Result<u64, NotPrometheus> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(8)?;
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(NotPrometheus)
    }

    fn delta_of_delta(&mut self) -> Result<i64, NotPrometheus> {
        for bits in [0, 14, 17, 20] {
            if self.take(1)? == 0 {
                let value = self.take(bits)? as i64;
                let negative = bits > 0 && value > 1 << (bits - 1);
                return Ok(if negative { value - (1 << bits) } else { value });
            }
        }
        Ok(self.take(64)? as i64)
    }

    fn xor(&mut self, window: &mut Window) -> Result<u64, NotPrometheus> {
        if self.take(1)? == 0 {
            return Ok(0);
        }
        if self.take(1)? == 1 {
            let leading = self.take(5)? as u32;
            let bits = match self.take(6)? as u32 {
                0 => 64,
                bits => bits,
            };
            let trailing = 64u32.checked_sub(leading + bits).ok_or(NotPrometheus)?;
            *window = Window { leading, trailing };
        } else if window.leading == NO_WINDOW {
            return Err(NotPrometheus);
        }
        let bits = 64 - window.leading - window.trailing;
        Ok(self.take(bits)? << window.trailing)
    }
}

/// Appends the samples of an XOR chunk to the columns.
///
/// Errors: bytes that end within a sample or mean nothing; some samples may have been appended then.
pub fn decode_prometheus_xor(
    bytes: &[u8],
    times: &mut Vec<i64>,
    values: &mut Vec<f64>,
) -> Result<(), NotPrometheus> {
    let mut bits = BitReader { bytes, at: 0 };
    let count = bits.take(16)?;
    let mut window = Window {
        leading: NO_WINDOW,
        trailing: 0,
    };
    let (mut time, mut delta, mut value) = (0i64, 0i64, 0u64);
    for at in 0..count {
        match at {
            0 => {
                let zigzag = bits.varint()?;
                time = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                value = bits.take(64)?;
            }
            _ => {
                delta = match at {
                    1 => bits.varint()? as i64,
                    _ => delta.wrapping_add(bits.delta_of_delta()?),
                };
                time = time.wrapping_add(delta);
                value ^= bits.xor(&mut window)?;
            }
        }
        times.push(time);
        values.push(f64::from_bits(value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(samples: &[(i64, f64)]) {
        let times: Vec<i64> = samples.iter().map(|s| s.0).collect();
        let values: Vec<f64> = samples.iter().map(|s| s.1).collect();
        let bytes = encode_prometheus_xor(&times, &values);
        let (mut t, mut v) = (Vec::new(), Vec::new());
        decode_prometheus_xor(&bytes, &mut t, &mut v).unwrap();
        assert_eq!(t, times);
        let bits = |all: &[f64]| all.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&v), bits(&values));
    }

    /// Worked out by hand from the format: two samples a second apart, then one of the same distance and value.
    #[test]
    fn the_bits_are_those_of_the_format() {
        let bytes = encode_prometheus_xor(&[1, 1001, 2001], &[1.0, 1.0, 1.0]);
        let mut wanted = vec![0, 3, 2];
        wanted.extend_from_slice(&1.0f64.to_be_bytes());
        // 1000 as a varint, then the bits 0 (same value), 0 (same delta), 0 (same value).
        wanted.extend_from_slice(&[0xe8, 0x07, 0b0000_0000]);
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn a_new_window_is_five_bits_of_leading_zeros_and_six_of_length() {
        // 1.0 xor 2.0 is 0x7ff0 << 48: one leading zero, eleven bits.
        let bytes = encode_prometheus_xor(&[0, 1], &[1.0, 2.0]);
        // Delta 1 as a varint; 11, 00001, 001011, 11111111111.
        assert_eq!(bytes[11..], [1, 0b1100_0010, 0b0101_1111, 0b1111_1111]);
    }

    #[test]
    fn the_edges_of_every_range_of_deltas_survive() {
        for bits in [14, 17, 20, 40] {
            for dod in [-1, 0, 1, 2].map(|d| (1i64 << (bits - 1)) + d) {
                let mut samples = vec![(0, 1.0), (1 << 41, 2.0)];
                for sign in [1, -1] {
                    let (a, b) = (samples[samples.len() - 2].0, samples[samples.len() - 1].0);
                    samples.push((b + (b - a) + sign * dod, f64::NAN));
                }
                round_trip(&samples);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            samples in proptest::collection::vec((any::<i64>(), any::<u64>()), 1..200)
        ) {
            let samples: Vec<(i64, f64)> =
                samples.iter().map(|(t, v)| (*t, f64::from_bits(*v))).collect();
            round_trip(&samples);
        }

        #[test]
        fn any_bytes_are_samples_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let (mut t, mut v) = (Vec::new(), Vec::new());
            let _ = decode_prometheus_xor(&bytes, &mut t, &mut v);
            prop_assert_eq!(t.len(), v.len());
        }
    }
}
