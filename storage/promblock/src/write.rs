//! Writing: chunks into segments as series come, then the index of them all.
//!
//! The caller appends what [`Writer::take`] gives to the segment of that number, in order. Memory: labels and places of chunks of all series, and the bytes not taken.

use std::collections::BTreeMap;

use chunk::{PROMETHEUS_CHUNK_SAMPLES, encode_prometheus_histograms, encode_prometheus_xor};
use model::{Labels, varint};

use crate::crc::crc32c;
use crate::read::{
    ChunkRef, FLOAT_HISTOGRAM, HISTOGRAM, INDEX_MAGIC, INDEX_VERSION, Samples, TOC_BYTES, XOR,
};

/// Where the next segment begins. Source: Prometheus `DefaultChunkSegmentSize`.
pub const SEGMENT_BYTES_MAX: usize = 512 << 20;

const SEGMENT_HEAD: [u8; 8] = [0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];

/// A block in the making.
#[derive(Debug, Default)]
pub struct Writer {
    series: Vec<(Labels, Vec<ChunkRef>)>,
    /// Not taken yet, of the segments from `taken` on.
    ready: Vec<(u32, Vec<u8>)>,
    segment: u32,
    /// Bytes of the segment so far.
    position: usize,
    samples: u64,
    chunks: u64,
    times: Option<(i64, i64)>,
}

/// What completes a block.
#[derive(Debug)]
pub struct Built {
    /// The file `index`.
    pub index: Vec<u8>,
    /// The file `meta.json`.
    pub meta: Vec<u8>,
    /// Samples in it.
    pub samples: u64,
}

/// The name of the file of a segment, numbered from 0.
pub fn segment_name(number: u32) -> String {
    format!("chunks/{:06}", u64::from(number) + 1)
}

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The name of a block of this number: 26 letters.
pub fn ulid_text(value: u128) -> String {
    let letter = |at: u32| char::from(ALPHABET[(value >> (5 * at)) as usize & 31]);
    (0..26).rev().map(letter).collect()
}

/// The number of a name; `None` if it is not the name of a block.
pub fn ulid_value(text: &str) -> Option<u128> {
    if text.len() != 26 || text.as_bytes()[0] > b'7' {
        return None;
    }
    let digit = |letter: u8| ALPHABET.iter().position(|known| *known == letter);
    text.bytes().try_fold(0u128, |value, letter| {
        Some(value << 5 | digit(letter)? as u128)
    })
}

impl Writer {
    /// Adds a series with its samples, floats and histograms each ascending in time. Series ascend by labels; one without samples is left out.
    pub fn series(&mut self, labels: &Labels, samples: &Samples) {
        if let Some((last, _)) = self.series.last() {
            assert!(last < labels, "{labels} comes behind {last}");
        }
        let mut encoded: Vec<((i64, i64), u8, Vec<u8>)> = Vec::new();
        let floats = samples.times.chunks(PROMETHEUS_CHUNK_SAMPLES);
        for (times, values) in floats.zip(samples.values.chunks(PROMETHEUS_CHUNK_SAMPLES)) {
            let ends = (times[0], times[times.len() - 1]);
            encoded.push((ends, XOR, encode_prometheus_xor(times, values)));
        }
        for chunk in encode_prometheus_histograms(&samples.histogram_times, &samples.histograms) {
            let encoding = if chunk.floats {
                FLOAT_HISTOGRAM
            } else {
                HISTOGRAM
            };
            encoded.push((chunk.times, encoding, chunk.bytes));
        }
        encoded.sort_by_key(|(ends, _, _)| *ends);
        let mut chunks = Vec::with_capacity(encoded.len());
        for ((min_time, max_time), encoding, data) in encoded {
            let (segment, offset) = self.put(encoding, &data);
            chunks.push(ChunkRef {
                min_time,
                max_time,
                segment,
                offset,
            });
            let (min, max) = self.times.unwrap_or((min_time, max_time));
            self.times = Some((min.min(min_time), max.max(max_time)));
        }
        if chunks.is_empty() {
            return;
        }
        self.samples += (samples.times.len() + samples.histogram_times.len()) as u64;
        self.chunks += chunks.len() as u64;
        self.series.push((labels.clone(), chunks));
    }

    fn put(&mut self, encoding: u8, data: &[u8]) -> (u32, u32) {
        let mut framed = Vec::with_capacity(data.len() + 16);
        varint::put_u64(&mut framed, data.len() as u64);
        let start = framed.len();
        framed.push(encoding);
        framed.extend_from_slice(data);
        let sum = crc32c(&framed[start..]);
        framed.extend_from_slice(&sum.to_be_bytes());
        if self.position > 0 && self.position + framed.len() > SEGMENT_BYTES_MAX {
            self.segment += 1;
            self.position = 0;
        }
        if self.position == 0 {
            self.ready.push((self.segment, SEGMENT_HEAD.to_vec()));
            self.position = SEGMENT_HEAD.len();
        }
        let at = (self.segment, self.position as u32);
        let (_, bytes) = match self.ready.last_mut() {
            Some(last) => last,
            None => {
                self.ready.push((self.segment, Vec::new()));
                self.ready.last_mut().expect("pushed above")
            }
        };
        bytes.extend_from_slice(&framed);
        self.position += framed.len();
        at
    }

    /// Bytes that can be taken.
    pub fn ready(&self) -> usize {
        self.ready.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Takes what is to be appended to segments, by number.
    pub fn take(&mut self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.ready)
    }

    /// Completes the block; `None` if there is nothing in it. The last bytes of segments are still to be taken.
    pub fn finish(&mut self, ulid: u128) -> Option<Built> {
        let (min, max) = self.times?;
        let ulid = ulid_text(ulid);
        let meta = serde_json::json!({
            "ulid": ulid,
            "minTime": min,
            "maxTime": max.saturating_add(1),
            "stats": {
                "numSamples": self.samples,
                "numSeries": self.series.len(),
                "numChunks": self.chunks,
            },
            "compaction": { "level": 1, "sources": [ulid] },
            "version": 1,
        });
        Some(Built {
            index: index(&std::mem::take(&mut self.series)),
            meta: format!("{meta:#}\n").into_bytes(),
            samples: self.samples,
        })
    }
}

/// Appends a section: length, content, checksum.
fn put_section(out: &mut Vec<u8>, content: &[u8]) {
    let len = u32::try_from(content.len()).expect("a section is below 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(content);
    out.extend_from_slice(&crc32c(content).to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    varint::put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn index(series: &[(Labels, Vec<ChunkRef>)]) -> Vec<u8> {
    let mut out = INDEX_MAGIC.to_be_bytes().to_vec();
    out.push(INDEX_VERSION);
    let mut symbols: BTreeMap<&str, u32> = BTreeMap::new();
    for text in series.iter().flat_map(|(labels, _)| labels.iter()) {
        symbols.insert(text.0, 0);
        symbols.insert(text.1, 0);
    }
    let symbols_at = out.len() as u64;
    let mut content = (symbols.len() as u32).to_be_bytes().to_vec();
    for (number, (text, place)) in symbols.iter_mut().enumerate() {
        *place = number as u32;
        put_text(&mut content, text);
    }
    put_section(&mut out, &content);
    align(&mut out, 16);
    let series_at = out.len() as u64;
    let mut numbers: Vec<u32> = Vec::with_capacity(series.len());
    let mut postings: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
    for (labels, chunks) in series {
        align(&mut out, 16);
        let number = u32::try_from(out.len() / 16).expect("an index is below 64 GiB");
        numbers.push(number);
        let entry = entry(labels, chunks, &symbols);
        varint::put_u64(&mut out, entry.len() as u64);
        out.extend_from_slice(&entry);
        out.extend_from_slice(&crc32c(&entry).to_be_bytes());
        for pair in labels.iter() {
            postings.entry(pair).or_default().push(number);
        }
    }
    postings.insert(("", ""), numbers);
    // Indexes of label values are not read by anybody any more.
    let label_indices_at = out.len() as u64;
    let mut offsets = (postings.len() as u32).to_be_bytes().to_vec();
    align(&mut out, 4);
    let postings_at = out.len() as u64;
    for ((name, value), list) in &postings {
        align(&mut out, 4);
        offsets.push(2);
        put_text(&mut offsets, name);
        put_text(&mut offsets, value);
        varint::put_u64(&mut offsets, out.len() as u64);
        let mut content = (list.len() as u32).to_be_bytes().to_vec();
        list.iter()
            .for_each(|number| content.extend_from_slice(&number.to_be_bytes()));
        put_section(&mut out, &content);
    }
    let label_offsets_at = out.len() as u64;
    put_section(&mut out, &[0; 4]);
    let postings_offsets_at = out.len() as u64;
    put_section(&mut out, &offsets);
    let mut toc = Vec::with_capacity(TOC_BYTES);
    for at in [
        symbols_at,
        series_at,
        label_indices_at,
        label_offsets_at,
        postings_at,
        postings_offsets_at,
    ] {
        toc.extend_from_slice(&at.to_be_bytes());
    }
    out.extend_from_slice(&toc);
    out.extend_from_slice(&crc32c(&toc).to_be_bytes());
    out
}

fn entry(labels: &Labels, chunks: &[ChunkRef], symbols: &BTreeMap<&str, u32>) -> Vec<u8> {
    let mut entry = Vec::new();
    varint::put_u64(&mut entry, labels.count() as u64);
    for (name, value) in labels.iter() {
        varint::put_u64(&mut entry, u64::from(symbols[name]));
        varint::put_u64(&mut entry, u64::from(symbols[value]));
    }
    varint::put_u64(&mut entry, chunks.len() as u64);
    let (mut last, mut data) = (0i64, 0u64);
    for (n, chunk) in chunks.iter().enumerate() {
        let place = u64::from(chunk.segment) << 32 | u64::from(chunk.offset);
        match n {
            0 => varint::put_i64(&mut entry, chunk.min_time),
            _ => varint::put_u64(&mut entry, chunk.min_time.wrapping_sub(last) as u64),
        }
        varint::put_u64(
            &mut entry,
            chunk.max_time.wrapping_sub(chunk.min_time) as u64,
        );
        match n {
            0 => varint::put_u64(&mut entry, place),
            _ => varint::put_i64(&mut entry, place.wrapping_sub(data) as i64),
        }
        (last, data) = (chunk.max_time, place);
    }
    entry
}
