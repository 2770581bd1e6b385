//! The texts of labels of one tenant, each once: sorted, front-coded in pages, named by their rank.

use std::collections::HashMap;

use model::varint;

use crate::error::Malformed;
use crate::ints::{take_count, take_slice};
use crate::limits::{INDEX_PAGE_BYTES, SYMBOL_BYTES_MAX};

/// Texts in the order in which they were met, while a part is written.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    numbers: HashMap<Box<str>, u32>,
}

impl Interner {
    pub(crate) fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number =
            u32::try_from(self.numbers.len()).expect("series and their labels are bounded");
        self.numbers.insert(text.into(), number);
        number
    }

    /// The texts sorted, and the rank of each by its number.
    pub(crate) fn sort(&mut self) -> (Vec<Box<str>>, Vec<u32>) {
        let mut texts: Vec<(Box<str>, u32)> = self.numbers.drain().collect();
        texts.sort_unstable();
        let mut ranks = vec![0; texts.len()];
        for (rank, (_, number)) in texts.iter().enumerate() {
            ranks[*number as usize] = rank as u32;
        }
        (texts.into_iter().map(|(text, _)| text).collect(), ranks)
    }
}

/// Takes texts off the front of `texts` and appends a payload of them; gives how many.
pub(crate) fn encode_page(texts: &[Box<str>], out: &mut Vec<u8>) -> usize {
    let mut body = Vec::new();
    let (mut last, mut count) = ("", 0);
    for text in texts {
        if body.len() >= INDEX_PAGE_BYTES {
            break;
        }
        let shared = last
            .bytes()
            .zip(text.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        varint::put_u64(&mut body, shared as u64);
        varint::put_u64(&mut body, (text.len() - shared) as u64);
        body.extend_from_slice(&text.as_bytes()[shared..]);
        (last, count) = (text, count + 1);
    }
    varint::put_u64(out, count as u64);
    out.append(&mut body);
    count
}

/// The texts of a part, in memory.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Symbols {
    /// Adds the texts of the next page, which has `count` of them.
    pub(crate) fn add_page(&mut self, payload: &[u8], count: usize) -> Result<(), Malformed> {
        let mut rest = payload;
        let rest = &mut rest;
        let told = take_count(rest, rest.len(), "symbols of a page")?;
        if told != count {
            return Err(Malformed::new("symbols of a page", count, told));
        }
        let mut text = Vec::new();
        for i in 0..count {
            let shared = take_count(rest, text.len(), "shared bytes of a symbol")?;
            let len = take_count(rest, SYMBOL_BYTES_MAX - shared, "length of a symbol")?;
            text.truncate(shared);
            text.extend_from_slice(take_slice(rest, len, "bytes of a symbol")?);
            let last = self
                .ends
                .len()
                .checked_sub(1)
                .map(|last| self.bytes_of(last));
            if last.is_some_and(|last| last >= &text[..]) {
                return Err(Malformed::new(
                    "symbols",
                    "ascending",
                    format!("others at {i}"),
                ));
            }
            if std::str::from_utf8(&text).is_err() {
                return Err(Malformed::new(
                    "symbol",
                    "UTF-8",
                    format!("other bytes at {i}"),
                ));
            }
            self.bytes.extend_from_slice(&text);
            let end = u32::try_from(self.bytes.len())
                .map_err(|_| Malformed::new("bytes of all symbols", "32 bits", "more"))?;
            self.ends.push(end);
        }
        if !rest.is_empty() {
            return Err(Malformed::new("bytes behind symbols", 0, rest.len()));
        }
        Ok(())
    }

    fn bytes_of(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..self.ends[number] as usize]
    }

    pub(crate) fn count(&self) -> u32 {
        self.ends.len() as u32
    }

    /// The text of a number below [`Symbols::count`].
    pub(crate) fn get(&self, number: u32) -> &str {
        std::str::from_utf8(self.bytes_of(number as usize)).expect("checked when it was added")
    }

    /// Number of the first text not below `text`.
    pub(crate) fn seek(&self, text: &str) -> u32 {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.bytes_of(middle) < text.as_bytes() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low as u32
    }

    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        let at = self.seek(text);
        (at < self.count() && self.bytes_of(at as usize) == text.as_bytes()).then_some(at)
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * 4
    }
}
