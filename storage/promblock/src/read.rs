//! Reading: the whole index in memory, series by series; chunks out of the bytes of their segments.

use std::collections::HashMap;

use chunk::{decode_prometheus_histograms, decode_prometheus_xor};
use model::{HistogramSample, Labels, put_label, varint};

use crate::crc::crc32c;

pub(crate) const INDEX_MAGIC: u32 = 0xbaaa_d700;
pub(crate) const INDEX_VERSION: u8 = 2;
pub(crate) const TOC_BYTES: usize = 6 * 8 + 4;
const TOMBSTONES_MAGIC: u32 = 0x0130_ba30;

/// Encodings of chunks.
pub(crate) const XOR: u8 = 1;
pub(crate) const HISTOGRAM: u8 = 2;
pub(crate) const FLOAT_HISTOGRAM: u8 = 3;

/// Labels of a series: as many as a block of ours takes.
const LABELS_MAX: u64 = 1 << 10;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{file} is not what Prometheus writes: {what} (at offset {offset})")]
pub struct Error {
    /// Which file of the block.
    pub file: &'static str,
    /// Where in it, about.
    pub offset: usize,
    /// Expected and found.
    pub what: String,
}

const INDEX: &str = "index";

fn wrong<T>(file: &'static str, offset: usize, what: impl Into<String>) -> Result<T, Error> {
    let what = what.into();
    Err(Error { file, offset, what })
}

/// What `meta.json` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Name of the block.
    pub ulid: String,
    /// First time, and the one behind the last.
    pub times: (i64, i64),
    /// As counted by whoever wrote it.
    pub samples: u64,
    /// See `samples`.
    pub series: u64,
}

impl Meta {
    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> Result<Meta, Error> {
        const FILE: &str = "meta.json";
        let value: serde_json::Value = match serde_json::from_slice(bytes) {
            Ok(value) => value,
            Err(error) => return wrong(FILE, error.column(), error.to_string()),
        };
        if value["version"] != 1 {
            return wrong(FILE, 0, format!("version {}, 1 is known", value["version"]));
        }
        let (min, max) = (value["minTime"].as_i64(), value["maxTime"].as_i64());
        let (Some(ulid), Some(min), Some(max)) = (value["ulid"].as_str(), min, max) else {
            return wrong(FILE, 0, "ulid, minTime or maxTime is missing");
        };
        let stat = |name: &str| value["stats"][name].as_u64().unwrap_or(0);
        Ok(Meta {
            ulid: ulid.to_owned(),
            times: (min, max),
            samples: stat("numSamples"),
            series: stat("numSeries"),
        })
    }
}

/// A chunk of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// Time of the first sample.
    pub min_time: i64,
    /// Time of the last one.
    pub max_time: i64,
    /// Number of the segment, from 0.
    pub segment: u32,
    /// Where in it the chunk begins.
    pub offset: u32,
}

/// The index of a block.
#[derive(Debug)]
pub struct Index {
    bytes: Vec<u8>,
    /// Where each symbol lies.
    symbols: Vec<(u32, u32)>,
    /// Where the list of all series lies.
    all: std::ops::Range<usize>,
}

/// Walks over bytes of the index; what goes beyond their end is an error there.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        match taken {
            Some(taken) => {
                self.at += len;
                Ok(taken)
            }
            None => wrong(INDEX, self.at, format!("{len} bytes are expected, it ends")),
        }
    }

    fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, Error> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        let high = u64::from(self.u32()?);
        Ok(high << 32 | u64::from(self.u32()?))
    }

    fn uvarint(&mut self) -> Result<u64, Error> {
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        let before = rest.len();
        match varint::take_u64(&mut rest) {
            Some(value) => {
                self.at += before - rest.len();
                Ok(value)
            }
            None => wrong(INDEX, self.at, "a number is expected"),
        }
    }

    fn varint(&mut self) -> Result<i64, Error> {
        self.uvarint().map(varint::unzigzag)
    }

    fn text(&mut self) -> Result<&'a [u8], Error> {
        let len = self.uvarint()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// The content of a section that begins with its length and ends with its checksum.
    fn section(bytes: &'a [u8], at: u64, what: &str) -> Result<Cursor<'a>, Error> {
        let mut cursor = Cursor {
            bytes,
            at: usize::try_from(at).unwrap_or(usize::MAX),
        };
        let len = cursor.u32()? as usize;
        cursor.checked(len, what)
    }

    /// The next `len` bytes, whose checksum stands behind them.
    fn checked(&mut self, len: usize, what: &str) -> Result<Cursor<'a>, Error> {
        let start = self.at;
        let content = self.take(len)?;
        let expected = self.u32()?;
        let found = crc32c(content);
        if expected != found {
            let told = format!("checksum of {what}: {expected:08x} is written, {found:08x} found");
            return wrong(INDEX, start, told);
        }
        Ok(Cursor {
            bytes: &self.bytes[..start + len],
            at: start,
        })
    }
}

impl Index {
    /// Takes the bytes of the file: table of contents, symbols, and where the series are.
    pub fn parse(bytes: Vec<u8>) -> Result<Index, Error> {
        let mut head = Cursor {
            bytes: &bytes,
            at: 0,
        };
        let (magic, version) = (head.u32()?, head.u8()?);
        if magic != INDEX_MAGIC {
            return wrong(INDEX, 0, format!("it begins with {magic:08x}"));
        }
        if version != INDEX_VERSION {
            return wrong(INDEX, 4, format!("version {version}, 2 is known"));
        }
        let Some(toc_at) = bytes.len().checked_sub(TOC_BYTES) else {
            return wrong(INDEX, 0, "it is cut short");
        };
        let mut toc = Cursor {
            bytes: &bytes,
            at: toc_at,
        }
        .checked(TOC_BYTES - 4, "the table of contents")?;
        let mut refs = [0; 6];
        for reference in &mut refs {
            *reference = toc.u64()?;
        }
        let [symbols_at, _, _, _, _, offsets_at] = refs;
        let mut section = Cursor::section(&bytes, symbols_at, "the symbols")?;
        let count = section.u32()?;
        let mut symbols = Vec::new();
        for _ in 0..count {
            let len = section.text()?.len();
            symbols.push(((section.at - len) as u32, len as u32));
        }
        if bytes.len() > u32::MAX as usize {
            return wrong(INDEX, 0, "an index of more than 4 GiB is not read");
        }
        let mut section = Cursor::section(&bytes, offsets_at, "the offsets of postings")?;
        let mut all = 0..0;
        for _ in 0..section.u32()? {
            let names = section.u8()?;
            if names != 2 {
                return wrong(INDEX, section.at, format!("postings of {names} names"));
            }
            let (name, value) = (section.text()?, section.text()?);
            let offset = section.uvarint()?;
            // Every series is in the list without a name, the first.
            if name.is_empty() && value.is_empty() {
                let mut list = Cursor::section(&bytes, offset, "the list of all series")?;
                let count = list.u32()? as usize;
                let start = list.at;
                list.take(count.saturating_mul(4))?;
                all = start..list.at;
                break;
            }
        }
        Ok(Index {
            bytes,
            symbols,
            all,
        })
    }

    /// How many series there are.
    pub fn series_count(&self) -> usize {
        self.all.len() / 4
    }

    /// The number of a series in tombstones, its labels and its chunks. `at` counts from 0, in the order of labels.
    pub fn series(&self, at: usize) -> Result<(u64, Labels, Vec<ChunkRef>), Error> {
        let place = self.all.start + at * 4;
        let mut reference = Cursor {
            bytes: &self.bytes,
            at: place,
        };
        let reference = u64::from(reference.u32()?);
        let mut cursor = Cursor {
            bytes: &self.bytes,
            at: reference as usize * 16,
        };
        let start = cursor.at;
        let len = usize::try_from(cursor.uvarint()?).unwrap_or(usize::MAX);
        let mut entry = cursor.checked(len, "a series")?;
        let count = entry.uvarint()?;
        if count > LABELS_MAX {
            return wrong(INDEX, start, format!("a series of {count} labels"));
        }
        let mut packed = Vec::new();
        for _ in 0..count {
            let (name, value) = (entry.uvarint()?, entry.uvarint()?);
            put_label(&mut packed, self.symbol(name)?, self.symbol(value)?);
        }
        let labels = match Labels::from_packed(&packed) {
            Ok(labels) => labels,
            Err(error) => return wrong(INDEX, start, format!("labels of a series: {error}")),
        };
        let mut chunks: Vec<ChunkRef> = Vec::new();
        let (mut max_time, mut data) = (0i64, 0u64);
        for n in 0..entry.uvarint()? {
            let min_time = match n {
                0 => entry.varint()?,
                _ => max_time.wrapping_add(entry.uvarint()? as i64),
            };
            max_time = min_time.wrapping_add(entry.uvarint()? as i64);
            data = match n {
                0 => entry.uvarint()?,
                _ => data.wrapping_add(entry.varint()? as u64),
            };
            chunks.push(ChunkRef {
                min_time,
                max_time,
                segment: (data >> 32) as u32,
                offset: data as u32,
            });
        }
        Ok((reference, labels, chunks))
    }

    fn symbol(&self, number: u64) -> Result<&str, Error> {
        let place = usize::try_from(number).ok();
        let Some(&(at, len)) = place.and_then(|number| self.symbols.get(number)) else {
            let count = self.symbols.len();
            return wrong(INDEX, 0, format!("symbol {number} of {count}"));
        };
        let bytes = &self.bytes[at as usize..(at + len) as usize];
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => wrong(INDEX, at as usize, format!("a label: {error}")),
        }
    }
}

/// Samples of a series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// Of floats.
    pub times: Vec<i64>,
    /// As many.
    pub values: Vec<f64>,
    /// Of histograms.
    pub histogram_times: Vec<i64>,
    /// As many.
    pub histograms: Vec<HistogramSample>,
}

const CHUNKS: &str = "chunks";

/// How many bytes a chunk takes of its segment, told by its first ones; more than these may be wanted.
pub fn framed_len(head: &[u8]) -> Result<usize, Error> {
    let mut rest = head;
    let before = rest.len();
    let len = varint::take_u64(&mut rest).and_then(|len| usize::try_from(len).ok());
    match len.filter(|&len| len <= u32::MAX as usize) {
        Some(len) => Ok(before - rest.len() + 1 + len + 4),
        None => wrong(CHUNKS, 0, "the length of a chunk is expected"),
    }
}

/// Appends the samples of a chunk, which begins where `bytes` do.
///
/// Errors: a checksum that does not fit, an encoding that is not known, bytes that mean nothing.
pub fn decode_chunk(bytes: &[u8], at: ChunkRef, into: &mut Samples) -> Result<(), Error> {
    let offset = at.offset as usize;
    let whole = framed_len(bytes)?;
    let Some(framed) = bytes.get(..whole) else {
        return wrong(CHUNKS, offset, "the segment ends within a chunk");
    };
    // The length is a number of one to five bytes.
    let digits = framed.iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let (content, sum) = framed[digits..].split_at(whole - 4 - digits);
    let expected = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]);
    let found = crc32c(content);
    if expected != found {
        let told = format!("checksum of a chunk: {expected:08x} is written, {found:08x} found");
        return wrong(CHUNKS, offset, told);
    }
    let Some((&encoding, data)) = content.split_first() else {
        return wrong(CHUNKS, offset, "a chunk without encoding");
    };
    let decoded = match encoding {
        XOR => decode_prometheus_xor(data, &mut into.times, &mut into.values),
        HISTOGRAM | FLOAT_HISTOGRAM => decode_prometheus_histograms(
            data,
            encoding == FLOAT_HISTOGRAM,
            &mut into.histogram_times,
            &mut into.histograms,
        ),
        other => return wrong(CHUNKS, offset, format!("a chunk of encoding {other}")),
    };
    decoded.or_else(|error| wrong(CHUNKS, offset, error.to_string()))
}

/// Reads the file of deletions: for each series (by the number that [`Index::series`] gives) the times, ends included, that are gone.
pub fn tombstones(bytes: &[u8]) -> Result<HashMap<u64, Vec<(i64, i64)>>, Error> {
    const FILE: &str = "tombstones";
    let mut gone: HashMap<u64, Vec<(i64, i64)>> = HashMap::new();
    if bytes.len() < 9 {
        return wrong(FILE, 0, "it is cut short");
    }
    let (head, rest) = bytes.split_at(5);
    let (entries, sum) = rest.split_at(rest.len() - 4);
    let magic = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    if magic != TOMBSTONES_MAGIC || head[4] != 1 {
        return wrong(FILE, 0, format!("it begins with {magic:08x}, {}", head[4]));
    }
    let expected = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]);
    if expected != crc32c(entries) {
        return wrong(FILE, 5, "checksum of the deletions");
    }
    let mut rest = entries;
    while !rest.is_empty() {
        let at = bytes.len() - 4 - rest.len();
        let mut take = || varint::take_u64(&mut rest);
        let (Some(series), Some(min), Some(max)) = (take(), take(), take()) else {
            return wrong(FILE, at, "a deletion is cut short");
        };
        let times = (varint::unzigzag(min), varint::unzigzag(max));
        gone.entry(series).or_default().push(times);
    }
    Ok(gone)
}
