//! A stream of bits, least significant first: bit `i` of the stream is bit `i % 8` of byte `i / 8`.
//!
//! That order lets both directions work on 64-bit registers: the writer ORs a code above what is pending, the reader ORs the
//! next eight bytes above what is left, and both shift. Nothing here loops over bits.

/// A mask of the `n` low bits, `n <= 64`.
#[inline(always)]
pub(crate) fn mask(n: u32) -> u64 {
    debug_assert!(n <= 64);
    if n == 0 { 0 } else { u64::MAX >> (64 - n) }
}

/// Writes a stream that grows: for chunks whose state is large anyway (the appender of floats keeps its own, smaller one).
#[derive(Debug, Clone, Default)]
pub(crate) struct Writer {
    /// Whole words.
    words: Vec<u64>,
    /// The last `bits % 64` bits, zeros above.
    pending: u64,
    bits: u32,
}

impl Writer {
    /// Goes on behind the first `bits` bits of a stream, which ends within its last byte.
    pub(crate) fn reopen(stream: &[u8], bits: u32) -> Writer {
        assert!(stream.len() == bits.div_ceil(8) as usize);
        let whole = (bits / 64) as usize;
        let (words, _) = stream.as_chunks::<8>();
        let words = words[..whole].iter().map(|w| u64::from_le_bytes(*w));
        let mut writer = Writer {
            words: words.collect(),
            pending: short_word(&stream[whole * 8..]),
            bits,
        };
        writer.pending &= mask(bits % 64);
        writer
    }

    /// Appends the `n` low bits of `code`, `n <= 64`; the bits above are zero.
    #[inline]
    pub(crate) fn put(&mut self, code: u64, n: u32) {
        debug_assert!(n <= 64 && code & !mask(n) == 0);
        if n == 0 {
            return;
        }
        let at = self.bits % 64;
        self.pending |= code << at;
        if at + n >= 64 {
            if self.words.len() == self.words.capacity() {
                self.words.reserve_exact((self.words.len() / 4).max(4));
            }
            self.words.push(self.pending);
            self.pending = (code >> 1) >> (63 - at);
        }
        self.bits += n;
    }

    /// Bits so far.
    #[cfg(test)]
    pub(crate) fn bits(&self) -> u32 {
        self.bits
    }

    /// Bytes that [`Writer::copy_to`] appends.
    pub(crate) fn len_bytes(&self) -> usize {
        self.bits.div_ceil(8) as usize
    }

    /// Appends the bytes of the stream, the last one filled up with zeros.
    pub(crate) fn copy_to(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.len_bytes();
        for word in &self.words {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.pending.to_le_bytes());
        out.truncate(end);
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.words.capacity() * 8
    }
}

/// Reads a stream from bytes. Behind the end it yields zeros and remembers: see [`Reader::finished`].
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    /// Next byte to load. Runs past the end by what was asked for beyond it.
    at: usize,
    /// Bits loaded, the next one lowest. Above `left` lie bits of `bytes[at]` already, or zeros.
    window: u64,
    /// Bits of `window` that are accounted for, at most 63.
    left: u32,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            bytes,
            at: 0,
            window: 0,
            left: 0,
        }
    }

    /// Makes at least 56 bits available to [`Reader::peek`] and [`Reader::skip`].
    #[inline(always)]
    pub(crate) fn refill(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let word = match rest.first_chunk::<8>() {
            Some(word) => u64::from_le_bytes(*word),
            None => short_word(rest),
        };
        // Whole bytes only are accounted for; the bits above are loaded again next time, to the same place.
        self.window |= word << self.left;
        self.at += ((63 - self.left) >> 3) as usize;
        self.left |= 56;
    }

    /// The next bits, lowest first; only [`Reader::available`] of them mean something.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        self.window
    }

    /// Bits that can be skipped before the next refill.
    #[inline(always)]
    pub(crate) fn available(&self) -> u32 {
        self.left
    }

    /// Goes on by `n` bits, which must be available.
    #[inline(always)]
    pub(crate) fn skip(&mut self, n: u32) {
        debug_assert!(n <= self.left);
        self.window >>= n;
        self.left -= n;
    }

    /// Takes `n <= 64` bits, refilling as needed.
    #[inline(always)]
    pub(crate) fn take(&mut self, n: u32) -> u64 {
        if n > self.left {
            self.refill();
            if n > 56 {
                return self.take_long(n);
            }
        }
        let value = self.window & mask(n);
        // `n` is 64 never here: `left` is at most 63.
        self.skip(n);
        value
    }

    #[inline(never)]
    fn take_long(&mut self, n: u32) -> u64 {
        debug_assert!(n > 56 && n <= 64 && self.left >= 56);
        let low = self.window & mask(32);
        self.skip(32);
        self.refill();
        let high = self.window & mask(n - 32);
        self.skip(n - 32);
        low | high << 32
    }

    /// Bits taken so far, also those behind the end.
    pub(crate) fn position(&self) -> u64 {
        self.at as u64 * 8 - u64::from(self.left)
    }

    /// Whether more was taken than there is.
    pub(crate) fn is_behind_end(&self) -> bool {
        self.position() > self.bytes.len() as u64 * 8
    }

    /// Whether the stream was read to its very end: nothing taken behind it, less than a byte left, and that zero.
    pub(crate) fn finished(&self) -> bool {
        let len = self.bytes.len() as u64 * 8;
        let position = self.position();
        if position > len || len - position >= 8 {
            return false;
        }
        let left = (len - position) as u32;
        left == 0 || self.bytes[self.bytes.len() - 1] >> (8 - left) == 0
    }
}

/// Up to seven bytes as the low ones of a word.
#[cold]
fn short_word(rest: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_was_reopened_anywhere_goes_on_as_if_it_had_not_been() {
        let codes: Vec<(u64, u32)> = (0..200u32)
            .map(|i| {
                let n = (i * 7) % 65;
                (
                    0x9e37_79b9_7f4a_7c15u64.wrapping_mul(u64::from(i) + 1) & mask(n),
                    n,
                )
            })
            .collect();
        let mut whole = Writer::default();
        codes.iter().for_each(|&(code, n)| whole.put(code, n));
        let mut expected = Vec::new();
        whole.copy_to(&mut expected);
        for cut in 0..codes.len() {
            let mut first = Writer::default();
            codes[..cut]
                .iter()
                .for_each(|&(code, n)| first.put(code, n));
            let mut bytes = Vec::new();
            first.copy_to(&mut bytes);
            let mut second = Writer::reopen(&bytes, first.bits());
            codes[cut..]
                .iter()
                .for_each(|&(code, n)| second.put(code, n));
            let mut bytes = Vec::new();
            second.copy_to(&mut bytes);
            assert_eq!(bytes, expected, "cut before code {cut}");
        }
        let mut reader = Reader::new(&expected);
        for (code, n) in codes {
            assert_eq!(reader.take(n), code);
        }
        assert!(reader.finished());
    }

    #[test]
    fn bits_come_lowest_first_and_zeros_behind_the_end() {
        let mut reader = Reader::new(&[0b1010_0110, 0xff]);
        assert_eq!(reader.take(3), 0b110);
        assert_eq!(reader.take(5), 0b10100);
        assert!(!reader.finished());
        assert_eq!(reader.take(8), 0xff);
        assert!(reader.finished());
        assert_eq!(reader.take(64), 0);
        assert!(!reader.finished());
        assert_eq!(reader.position(), 80);
    }

    #[test]
    fn every_width_at_every_offset_reads_what_is_there() {
        let bytes: Vec<u8> = (0..40u8).map(|i| i.wrapping_mul(37) ^ 0x5a).collect();
        let bit = |i: usize| u64::from(bytes[i / 8] >> (i % 8) & 1);
        for offset in 0..64usize {
            for width in 0..=64usize {
                let mut reader = Reader::new(&bytes);
                reader.take(offset as u32);
                let expected = (0..width).fold(0, |word, i| word | bit(offset + i) << i);
                assert_eq!(
                    reader.take(width as u32),
                    expected,
                    "{width} bits at {offset}"
                );
                assert_eq!(reader.position(), (offset + width) as u64);
            }
        }
    }

    #[test]
    fn padding_that_is_not_zero_is_not_an_end() {
        let mut reader = Reader::new(&[0b0001_0001]);
        reader.take(3);
        assert!(!reader.finished());
        reader.take(2);
        assert!(reader.finished());
    }
}
