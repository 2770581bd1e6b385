//! Remote read: what is asked, and the two kinds of answers.
//!
//! ```text
//! ReadRequest      { 1 queries [], 2 accepted response types [] }      Query { 1 start ms, 2 end ms, 3 matchers [], 4 hints }
//! LabelMatcher     { 1 type: 0 = 1 != 2 =~ 3 !~, 2 name, 3 value }
//! ReadResponse     { 1 results [] }   QueryResult { 1 series [] }      one snappy block
//! stream of frames: uvarint length, CRC-32C of the message big-endian, ChunkedReadResponse { 1 series [], 2 query index }
//! ChunkedSeries    { 1 labels [], 2 chunks [] }   Chunk { 1 min ms, 2 max ms, 3 type, 4 data }
//! type: 1 XOR, 2 histogram, 3 float histogram
//! ```
//!
//! Hints are skipped: they only allow to send less. Source: Prometheus `prompb/remote.proto`, `storage/remote/chunked.go`.

use model::{Labels, MatchOp, varint};

use crate::proto::{BYTES, Malformed, Reader, VARINT, expect};

/// Largest request, packed and unpacked. Source: Cortex.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Queries of one request. Prometheus sends one.
pub const QUERIES_MAX: usize = 100;

/// A message of a stream is cut when it has this many bytes. Source: Prometheus, `-storage.remote.read-max-bytes-in-frame`.
pub const FRAME_BYTES: usize = 1 << 20;

/// The type of an answer that is a stream.
pub const STREAM_CONTENT_TYPE: &str =
    "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadRequest {
    /// Answered each for itself.
    pub queries: Vec<ReadQuery>,
    /// The answer is a stream of chunks rather than one message of samples: the first of the accepted types that we know.
    pub streamed: bool,
}

/// One selector over one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadQuery {
    /// First time, milliseconds, inclusive.
    pub start: i64,
    /// Last time.
    pub end: i64,
    /// All must match: operator, name, value.
    pub matchers: Vec<(MatchOp, String, String)>,
}

/// A chunk of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadChunk {
    /// The type.
    pub encoding: u8,
    /// First sample's time, milliseconds.
    pub min_time: i64,
    /// Last sample's time.
    pub max_time: i64,
    /// As Prometheus encodes them.
    pub data: Vec<u8>,
}

/// Why a request cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRequest {
    /// Not the message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Text that is none.
    #[error("a matcher is not UTF-8")]
    NotText,
    /// An operator that does not exist.
    #[error("unknown type of a matcher: {0}")]
    Operator(u64),
    /// More queries than are answered at once.
    #[error("{0} queries in one request, more than {QUERIES_MAX}")]
    TooMany(usize),
    /// None of the accepted types is known.
    #[error(
        "none of the accepted response types is supported: SAMPLES and STREAMED_XOR_CHUNKS are"
    )]
    ResponseTypes,
}

const SAMPLES: u64 = 0;
const STREAMED_XOR_CHUNKS: u64 = 1;

impl ReadRequest {
    /// Reads the message.
    pub fn decode(bytes: &[u8]) -> Result<ReadRequest, BadRequest> {
        let mut request = ReadRequest::default();
        let mut accepted = Vec::new();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            match reader.tag()? {
                (1, got) => {
                    expect(1, got, BYTES)?;
                    request.queries.push(query(reader.bytes()?)?);
                    if request.queries.len() > QUERIES_MAX {
                        return Err(BadRequest::TooMany(request.queries.len()));
                    }
                }
                (2, BYTES) => {
                    let mut packed = Reader::new(reader.bytes()?);
                    while !packed.is_empty() {
                        accepted.push(packed.varint()?);
                    }
                }
                (2, got) => {
                    expect(2, got, VARINT)?;
                    accepted.push(reader.varint()?);
                }
                (field, got) => reader.skip(field, got)?,
            }
        }
        let known = |kind: &u64| matches!(*kind, SAMPLES | STREAMED_XOR_CHUNKS);
        request.streamed = match accepted.iter().find(|kind| known(kind)) {
            Some(kind) => *kind == STREAMED_XOR_CHUNKS,
            None if accepted.is_empty() => false,
            None => return Err(BadRequest::ResponseTypes),
        };
        Ok(request)
    }
}

fn query(bytes: &[u8]) -> Result<ReadQuery, BadRequest> {
    let mut query = ReadQuery::default();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, got) => {
                expect(1, got, VARINT)?;
                query.start = reader.varint()? as i64;
            }
            (2, got) => {
                expect(2, got, VARINT)?;
                query.end = reader.varint()? as i64;
            }
            (3, got) => {
                expect(3, got, BYTES)?;
                query.matchers.push(matcher(reader.bytes()?)?);
            }
            (field, got) => reader.skip(field, got)?,
        }
    }
    Ok(query)
}

fn matcher(bytes: &[u8]) -> Result<(MatchOp, String, String), BadRequest> {
    let (mut op, mut name, mut value) = (0, "", "");
    let mut reader = Reader::new(bytes);
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| BadRequest::NotText);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, got) => {
                expect(1, got, VARINT)?;
                op = reader.varint()?;
            }
            (2, got) => {
                expect(2, got, BYTES)?;
                name = text(reader.bytes()?)?;
            }
            (3, got) => {
                expect(3, got, BYTES)?;
                value = text(reader.bytes()?)?;
            }
            (field, got) => reader.skip(field, got)?,
        }
    }
    let op = match op {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regex,
        3 => MatchOp::NotRegex,
        other => return Err(BadRequest::Operator(other)),
    };
    Ok((op, name.to_owned(), value.to_owned()))
}

/// Appends a `QueryResult` whose series are `series`, fields as [`crate::remote_write::put_series`] writes them.
pub fn put_result(out: &mut Vec<u8>, series: &[u8]) {
    put_bytes(out, 1, series);
}

/// Appends a frame of a stream: some chunks of one series of one query.
pub fn put_frame(out: &mut Vec<u8>, query: usize, labels: &Labels, chunks: &[ReadChunk]) {
    let mut series = Vec::new();
    for (name, value) in labels.iter() {
        let mut label = Vec::with_capacity(name.len() + value.len() + 8);
        put_bytes(&mut label, 1, name.as_bytes());
        put_bytes(&mut label, 2, value.as_bytes());
        put_bytes(&mut series, 1, &label);
    }
    for chunk in chunks {
        let mut message = Vec::with_capacity(chunk.data.len() + 32);
        put_number(&mut message, 1, chunk.min_time as u64);
        put_number(&mut message, 2, chunk.max_time as u64);
        put_number(&mut message, 3, u64::from(chunk.encoding));
        put_bytes(&mut message, 4, &chunk.data);
        put_bytes(&mut series, 2, &message);
    }
    let mut message = Vec::with_capacity(series.len() + 16);
    put_bytes(&mut message, 1, &series);
    put_number(&mut message, 2, query as u64);
    varint::put_u64(out, message.len() as u64);
    out.extend_from_slice(&crc32c(&message).to_be_bytes());
    out.extend_from_slice(&message);
}

fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3 | VARINT);
        varint::put_u64(out, value);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | BYTES);
    varint::put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// CRC-32C (Castagnoli), reflected. Cost: some 2 ns a byte; a stream is bound by its encoding.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |crc, &byte| {
        TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(accepted: &[u8]) -> Vec<u8> {
        let mut matcher = Vec::new();
        put_number(&mut matcher, 1, 2);
        put_bytes(&mut matcher, 2, b"job");
        put_bytes(&mut matcher, 3, b"a|b");
        let mut query = Vec::new();
        put_number(&mut query, 1, (-5i64) as u64);
        put_number(&mut query, 2, 1000);
        put_bytes(&mut query, 3, &matcher);
        put_bytes(&mut query, 4, b"\x08\x01");
        let mut request = Vec::new();
        put_bytes(&mut request, 1, &query);
        if !accepted.is_empty() {
            put_bytes(&mut request, 2, accepted);
        }
        request
    }

    #[test]
    fn a_request_is_read_and_the_first_known_type_is_taken() {
        let wanted = ReadQuery {
            start: -5,
            end: 1000,
            matchers: vec![(MatchOp::Regex, "job".into(), "a|b".into())],
        };
        for (accepted, streamed) in [
            (&[][..], false),
            (&[1, 0], true),
            (&[0, 1], false),
            (&[7, 1], true),
        ] {
            let read = ReadRequest::decode(&request(accepted)).unwrap();
            assert_eq!(read.queries, std::slice::from_ref(&wanted));
            assert_eq!(read.streamed, streamed, "{accepted:?}");
        }
        let unknown = ReadRequest::decode(&request(&[9])).unwrap_err();
        assert_eq!(unknown, BadRequest::ResponseTypes);
    }

    #[test]
    fn a_cut_request_is_an_error_wherever_it_is_cut() {
        let whole = request(&[1]);
        let query_len = whole.len() - 3;
        for end in 1..query_len {
            assert!(ReadRequest::decode(&whole[..end]).is_err(), "{end}");
        }
        let many = request(&[]).repeat(QUERIES_MAX + 1);
        let error = ReadRequest::decode(&many).unwrap_err();
        assert_eq!(error, BadRequest::TooMany(QUERIES_MAX + 1));
    }

    /// The check value of the algorithm, as every description of it has it.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_frame_is_length_checksum_and_message() {
        let labels = Labels::from_pairs([("a", "b")]).unwrap();
        let chunk = ReadChunk {
            encoding: 2,
            min_time: 1,
            max_time: 2,
            data: vec![9],
        };
        let mut out = Vec::new();
        put_frame(&mut out, 3, &labels, &[chunk]);
        let message = [
            0x0a, 0x13, 0x0a, 0x06, 0x0a, 0x01, b'a', 0x12, 0x01, b'b', 0x12, 0x09, 0x08, 1, 0x10,
            2, 0x18, 2, 0x22, 1, 9, 0x10, 3,
        ];
        assert_eq!(out[0] as usize, message.len());
        assert_eq!(out[1..5], crc32c(&message).to_be_bytes());
        assert_eq!(out[5..], message);
    }
}
