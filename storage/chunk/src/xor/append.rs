//! The open chunk: a cache line of state, and a heap buffer that is touched once per 64 bits.
//!
//! Memory is the point: a node holds one appender for each active series, so the state is 64 bytes, the bits that do not fill
//! a word yet are part of it, and the buffer grows by a quarter (at least 16 bytes) instead of doubling. A series that never
//! changes has no heap buffer before its 40th sample.

use std::mem;

use super::{LEADING_BITS, LEADING_MAX, LENGTH_BITS, Last, TIME_BITS, Window, decode};
use crate::bits::mask;
use crate::limits::FIRST_TIME_LEN_MAX;
use crate::{Encoding, Error, SAMPLES_MAX, sealed};

/// Whether the time of a sample is what the one before predicts; a constant parameter of the value's code.
const ON_TIME: bool = true;
const LATE: bool = false;

/// An open chunk of floats, appended in place.
#[derive(Debug, Clone)]
pub struct XorAppender {
    /// Whole words of the stream; those behind `bits / 64` are spare room.
    words: Box<[u64]>,
    /// The last `bits % 64` bits of the stream, zeros above.
    pending: u64,
    first_time: i64,
    last_time: i64,
    last_delta: u64,
    last_value: u64,
    /// Length of the stream.
    bits: u32,
    count: u16,
    window: Window,
}

// A node with a million series has a million of these.
const _: () = assert!(mem::size_of::<XorAppender>() == 64);

impl Default for XorAppender {
    fn default() -> XorAppender {
        XorAppender::new()
    }
}

impl XorAppender {
    /// An empty chunk; allocates nothing.
    pub fn new() -> XorAppender {
        XorAppender::with_words(Box::default())
    }

    fn with_words(words: Box<[u64]>) -> XorAppender {
        let Last {
            time,
            delta,
            value,
            window,
        } = Last::NONE;
        XorAppender {
            words,
            pending: 0,
            first_time: time,
            last_time: time,
            last_delta: delta,
            last_value: value,
            bits: 0,
            count: 0,
            window,
        }
    }

    /// Goes on where a sealed chunk ended.
    ///
    /// Errors: as [`crate::decode`]. Cost: decodes it once.
    pub fn reopen(sealed: &[u8]) -> Result<XorAppender, Error> {
        let (count, payload) = sealed::reopen(sealed)?;
        let end = decode::end(count, payload)?;
        let bits = u32::try_from(end.bits).map_err(|_| Error::Malformed("too many bits"))?;
        let mut words: Vec<u64> = Vec::with_capacity(end.stream.len() / 8);
        let (whole, rest) = end.stream.as_chunks::<8>();
        words.extend(whole.iter().map(|word| u64::from_le_bytes(*word)));
        let mut pending = [0; 8];
        pending[..rest.len()].copy_from_slice(rest);
        // A stream that ends inside its last byte has its last bits in `pending`, unless that byte completes a word.
        let mut pending = u64::from_le_bytes(pending);
        if words.len() as u32 > bits / 64 {
            assert!(rest.is_empty());
            pending = words.pop().unwrap_or(0);
        }
        assert!(words.len() as u32 == bits / 64);
        Ok(XorAppender {
            words: words.into_boxed_slice(),
            pending,
            first_time: end.first_time,
            last_time: end.last.time,
            last_delta: end.last.delta,
            last_value: end.last.value,
            bits,
            count,
            window: end.last.window,
        })
    }

    /// Appends a sample. The bits of the value are kept whatever they are: NaN payloads, stale markers, -0.
    ///
    /// `time` must be later than that of the sample before, and there must be fewer than [`SAMPLES_MAX`]: both are our fault
    /// otherwise and panic. Cost: 3 to 15 ns; a reallocation once in 16 bytes or more.
    #[inline]
    pub fn append(&mut self, time: i64, value: f64) {
        let value = value.to_bits();
        if self.count == 0 {
            return self.append_first(time, value);
        }
        assert!(time > self.last_time, "times of a chunk ascend");
        assert!(self.count < SAMPLES_MAX, "chunk is full");
        let delta = time.wrapping_sub(self.last_time) as u64;
        let change = delta.wrapping_sub(self.last_delta);
        let xor = value ^ self.last_value;
        self.count += 1;
        self.last_time = time;
        self.last_value = value;
        if change == 0 {
            if xor == 0 {
                self.put(0, 1);
            } else {
                self.put_value::<ON_TIME>(xor);
            }
        } else {
            self.last_delta = delta;
            self.append_late(change as i64, xor);
        }
    }

    #[cold]
    fn append_first(&mut self, time: i64, value: u64) {
        assert!(self.bits == 0 && self.count == 0);
        self.first_time = time;
        self.last_time = time;
        self.last_value = value;
        self.count = 1;
        // The time stands before the stream. The value is the XOR with +0, coded as that of a late sample.
        if value == 0 {
            self.put(0, 1);
        } else {
            self.put_value::<LATE>(value);
        }
    }

    fn append_late(&mut self, change: i64, xor: u64) {
        // Bits that a signed number needs.
        let magnitude = (change ^ (change >> 63)) as u64;
        let needed = 65 - magnitude.leading_zeros();
        let width = match needed {
            0..=6 => 0,
            7..=12 => 1,
            13..=20 => 2,
            _ => 3,
        };
        let bits = TIME_BITS[width];
        let control = 0b111 | (width as u64) << 3;
        self.put_pair(control, 5, change as u64 & mask(bits), bits);
        if xor == 0 {
            self.put(0, 1);
        } else {
            self.put_value::<LATE>(xor);
        }
    }

    /// Writes control bits and a XOR that is not zero: `10` and the bits inside the last window, or a new window and its bits
    /// behind `110` (on time) or `11` (late, where the time was told already).
    #[inline(always)]
    fn put_value<const PUNCTUALITY: bool>(&mut self, xor: u64) {
        debug_assert!(xor != 0);
        let leading = xor.leading_zeros().min(LEADING_MAX);
        let trailing = xor.trailing_zeros();
        let length = 64 - leading - trailing;
        let window = self.window;
        let kept = u32::from(window.length);
        let kept_trailing = window.trailing();
        // A window that is wider than needed is left as soon as describing a new one pays for itself.
        if leading >= u32::from(window.leading)
            && trailing >= kept_trailing
            && kept <= length + LEADING_BITS + LENGTH_BITS
        {
            return self.put_pair(0b01, 2, xor >> kept_trailing, kept);
        }
        self.window = Window {
            leading: leading as u8,
            length: length as u8,
        };
        let (control, control_bits) = if PUNCTUALITY == ON_TIME {
            (0b011, 3)
        } else {
            (0b11, 2)
        };
        let head = control
            | u64::from(leading) << control_bits
            | u64::from(length - 1) << (control_bits + LEADING_BITS);
        self.put_pair(
            head,
            control_bits + LEADING_BITS + LENGTH_BITS,
            xor >> trailing,
            length,
        );
    }

    /// Two codes back to back, as one where they fit into a word.
    #[inline(always)]
    fn put_pair(&mut self, first: u64, first_bits: u32, second: u64, second_bits: u32) {
        if first_bits + second_bits <= 64 {
            self.put(first | second << first_bits, first_bits + second_bits);
        } else {
            self.put(first, first_bits);
            self.put(second, second_bits);
        }
    }

    /// Appends the `n` low bits of `code`, `1 <= n <= 64`; the bits above are zero.
    #[inline(always)]
    fn put(&mut self, code: u64, n: u32) {
        debug_assert!((1..=64).contains(&n) && code & !mask(n) == 0);
        let at = self.bits % 64;
        self.pending |= code << at;
        if at + n >= 64 {
            self.spill((code >> 1) >> (63 - at));
        }
        self.bits += n;
    }

    /// Moves the full pending word to the buffer; `rest` is what did not fit into it.
    #[inline]
    fn spill(&mut self, rest: u64) {
        let index = (self.bits / 64) as usize;
        if index == self.words.len() {
            self.grow();
        }
        self.words[index] = self.pending;
        self.pending = rest;
    }

    #[cold]
    fn grow(&mut self) {
        let len = self.words.len();
        let more = (len / 4).next_multiple_of(2).max(2);
        let mut words = mem::take(&mut self.words).into_vec();
        words.reserve_exact(more);
        words.resize(len + more, 0);
        self.words = words.into_boxed_slice();
    }

    /// Begins to fetch the word of the buffer that the next samples will be written to. Cost: a load of the state, and a hint.
    #[inline(always)]
    pub fn prefetch(&self) {
        if let Some(word) = self.words.get((self.bits / 64) as usize) {
            model::prefetch(word);
        }
    }

    /// Samples so far.
    #[inline]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Time of the first sample; the chunk must not be empty.
    #[inline]
    pub fn first_time(&self) -> i64 {
        debug_assert!(self.count > 0);
        self.first_time
    }

    /// Time of the last sample; the chunk must not be empty.
    #[inline]
    pub fn last_time(&self) -> i64 {
        debug_assert!(self.count > 0);
        self.last_time
    }

    /// Value of the last sample, to the bit; the chunk must not be empty.
    #[inline]
    pub fn last_value(&self) -> f64 {
        debug_assert!(self.count > 0);
        f64::from_bits(self.last_value)
    }

    /// Bytes of the stream so far, the time of the first sample not counted.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.bits.div_ceil(8) as usize
    }

    /// Bytes on the heap, for accounting.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        self.words.len() * 8
    }

    /// The sealed form of the content so far; the appender can go on.
    ///
    /// Cost: an allocation, a copy and a hash of [`XorAppender::len_bytes`].
    pub fn seal(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.seal_into(&mut out);
        out
    }

    /// Appends the sealed form of the content so far to `out`.
    pub fn seal_into(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let stream_len = self.len_bytes();
        // Room for a whole last word, of which the bytes behind the stream are cut off again.
        let room = FIRST_TIME_LEN_MAX + stream_len.next_multiple_of(8) + 8;
        sealed::begin(out, Encoding::Xor, self.count, room);
        if self.count > 0 {
            model::varint::put_i64(out, self.first_time);
        }
        let stream = out.len();
        let words = &self.words[..(self.bits / 64) as usize];
        out.resize(stream + words.len() * 8 + 8, 0);
        let (places, _) = out[stream..].as_chunks_mut::<8>();
        for (place, word) in places.iter_mut().zip(words.iter().chain([&self.pending])) {
            *place = word.to_le_bytes();
        }
        out.truncate(stream + stream_len);
        sealed::finish(out, start);
    }

    /// Forgets the samples and keeps the buffer, for the next chunk of the series.
    pub fn clear(&mut self) {
        *self = XorAppender::with_words(mem::take(&mut self.words));
    }

    /// Gives back the spare room of the buffer.
    pub fn shrink(&mut self) {
        let used = (self.bits / 64) as usize;
        if used < self.words.len() {
            let mut words = mem::take(&mut self.words).into_vec();
            words.truncate(used);
            self.words = words.into_boxed_slice();
        }
    }
}
