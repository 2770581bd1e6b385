//! What a block says of itself: header, footer and trailer.
//!
//! A reader begins at the end: the trailer has a fixed size and tells where the footer is, the footer tells everything else. The header
//! only lets people and `file` see what it is.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Range;

use model::{TENANT_LEN_MAX, TenantId, varint};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Malformed};
use crate::ints::{take, take_byte, take_count, take_signed, take_slice};
use crate::limits::{SOURCES_MAX, TENANTS_MAX};

/// Of header, trailer and everything between.
pub const VERSION: u16 = 1;

pub(crate) const HEADER_BYTES: usize = 40;
pub(crate) const TRAILER_BYTES: usize = 48;
const HEADER_MAGIC: [u8; 8] = *b"MYELNBLK";
const TRAILER_MAGIC: [u8; 8] = *b"KLBNLEYM";

/// Longest name of a node in a footer.
const ORIGIN_BYTES_MAX: usize = 256;

/// A new id: by chance, which `salt` (a place in the order of logging, a time) helps along.
pub fn fresh_id(salt: u64) -> u128 {
    // Chance is in the keys of each hasher.
    let half = || RandomState::new().hash_one(salt);
    (u128::from(half()) << 64) | u128::from(half())
}

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FileKind {
    /// Any number of tenants: what a core has cut, or small ones that were merged.
    Cut = 1,
    /// One tenant.
    Block = 2,
}

impl FileKind {
    fn from_byte(byte: u8) -> Result<FileKind, Malformed> {
        match byte {
            1 => Ok(FileKind::Cut),
            2 => Ok(FileKind::Block),
            other => Err(Malformed::new("kind of the file", "1 or 2", other)),
        }
    }
}

/// What whoever writes a block knows of it beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Unique among all blocks; chosen by the writer. Seeds all checksums.
    pub id: u128,
    /// Cut or block.
    pub kind: FileKind,
    /// How far its samples have been merged: 0 for a cut. In a merged file a tenant without samples stands for its parts in the sources, of which
    /// nothing was to be kept.
    pub level: u8,
    /// Place in the order of logging: where two files hold the same series and time, the one with the greater order wins.
    pub order: u64,
    /// Wall clock when it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// The node that made it, at most 256 bytes.
    pub origin: String,
    /// The core that cut it; 0 for blocks.
    pub core: u16,
    /// Ids of the files it was merged from.
    pub sources: Vec<u128>,
}

impl Info {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.origin.len() > ORIGIN_BYTES_MAX {
            let len = self.origin.len();
            return Err(Error::Input(format!(
                "a node's name of {len} bytes is longer than {ORIGIN_BYTES_MAX}"
            )));
        }
        if self.sources.len() > SOURCES_MAX {
            let count = self.sources.len();
            return Err(Error::Input(format!(
                "a block of {count} sources has more than {SOURCES_MAX}"
            )));
        }
        Ok(())
    }
}

/// One tenant of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Whose.
    pub tenant: TenantId,
    /// Time of the earliest sample.
    pub min_time: i64,
    /// Time of the latest sample.
    pub max_time: i64,
    /// Series.
    pub series: u32,
    /// Samples.
    pub samples: u64,
    /// All of the tenant's bytes in the file, its directory last.
    pub(crate) range: Range<u64>,
    /// Of which index: symbols, series, postings and directory.
    pub(crate) index_start: u64,
    /// Where the directory begins.
    pub(crate) directory_start: u64,
}

/// Where the bytes of a part are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Of the first of them in the file.
    pub start: u64,
    /// Of samples.
    pub chunk_bytes: u64,
    /// Of symbols, series and postings.
    pub index_bytes: u64,
    /// Of the directory.
    pub directory_bytes: u64,
}

impl Placement {
    /// Where the part ends; `None`: nowhere in 64 bits.
    pub fn end(&self) -> Option<u64> {
        let at = self.start.checked_add(self.chunk_bytes)?;
        at.checked_add(self.index_bytes)?
            .checked_add(self.directory_bytes)
    }
}

impl Part {
    /// A part of a file that is elsewhere. `None`: such a place cannot be.
    pub fn placed(
        tenant: TenantId,
        (min_time, max_time): (i64, i64),
        series: u32,
        samples: u64,
        at: Placement,
    ) -> Option<Part> {
        let index_start = at.start.checked_add(at.chunk_bytes)?;
        let directory_start = index_start.checked_add(at.index_bytes)?;
        let end = at.end()?;
        (min_time <= max_time && at.start >= HEADER_BYTES as u64).then_some(Part {
            tenant,
            min_time,
            max_time,
            series,
            samples,
            range: at.start..end,
            index_start,
            directory_start,
        })
    }

    /// Where its bytes are.
    pub fn placement(&self) -> Placement {
        Placement {
            start: self.range.start,
            chunk_bytes: self.index_start - self.range.start,
            index_bytes: self.directory_start - self.index_start,
            directory_bytes: self.range.end - self.directory_start,
        }
    }

    /// Whether nothing is left of the tenant's parts in the sources of the file.
    pub fn is_empty(&self) -> bool {
        self.series == 0
    }

    /// All of its bytes.
    pub fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Bytes of samples, with frames and checksums.
    pub fn chunk_bytes(&self) -> u64 {
        self.index_start - self.range.start
    }

    /// Bytes of symbols, series, postings and directory.
    pub fn index_bytes(&self) -> u64 {
        self.range.end - self.index_start
    }
}

/// All that a footer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// What the writer said.
    pub info: Info,
    /// Tenants, ascending by name.
    pub parts: Vec<Part>,
}

impl Meta {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let info = &self.info;
        out.push(info.level);
        varint::put_u64(out, info.order);
        varint::put_i64(out, info.created_ms);
        varint::put_u64(out, info.origin.len() as u64);
        out.extend_from_slice(info.origin.as_bytes());
        varint::put_u64(out, u64::from(info.core));
        varint::put_u64(out, info.sources.len() as u64);
        for source in &info.sources {
            out.extend_from_slice(&source.to_le_bytes());
        }
        varint::put_u64(out, self.parts.len() as u64);
        for part in &self.parts {
            let tenant = part.tenant.as_str();
            varint::put_u64(out, tenant.len() as u64);
            out.extend_from_slice(tenant.as_bytes());
            varint::put_i64(out, part.min_time);
            varint::put_u64(out, part.max_time.wrapping_sub(part.min_time) as u64);
            varint::put_u64(out, u64::from(part.series));
            varint::put_u64(out, part.samples);
            varint::put_u64(out, part.chunk_bytes());
            varint::put_u64(out, part.directory_start - part.index_start);
            varint::put_u64(out, part.range.end - part.directory_start);
        }
    }

    /// Reads the footer of a file whose pages end at `end`.
    pub(crate) fn decode(
        payload: &[u8],
        kind: FileKind,
        id: u128,
        end: u64,
    ) -> Result<Meta, Malformed> {
        let mut rest = payload;
        let rest = &mut rest;
        let level = take_byte(rest, "level")?;
        let order = take(rest, "order")?;
        let created_ms = take_signed(rest, "time of making")?;
        let len = take_count(rest, ORIGIN_BYTES_MAX, "length of the node's name")?;
        let origin = std::str::from_utf8(take_slice(rest, len, "name of the node")?)
            .map_err(|e| Malformed::new("name of the node", "UTF-8", e))?
            .to_owned();
        let core = take(rest, "core")?;
        let core = u16::try_from(core).map_err(|_| Malformed::new("core", "16 bits", core))?;
        let count = take_count(rest, SOURCES_MAX, "sources")?;
        let sources = take_slice(rest, count * 16, "sources")?.as_chunks().0;
        let sources = sources.iter().map(|s| u128::from_le_bytes(*s)).collect();
        let info = Info {
            id,
            kind,
            level,
            order,
            created_ms,
            origin,
            core,
            sources,
        };
        let tenants_max = if kind == FileKind::Block {
            1
        } else {
            TENANTS_MAX
        };
        let count = take_count(rest, tenants_max, "tenants")?;
        let mut parts: Vec<Part> = Vec::with_capacity(count.min(rest.len()));
        let mut at = HEADER_BYTES as u64;
        for _ in 0..count {
            let part = take_part(rest, level, at, end)?;
            at = part.range.end;
            if let Some(last) = parts.last()
                && last.tenant >= part.tenant
            {
                return Err(Malformed::new(
                    "tenant",
                    format!("behind {}", last.tenant),
                    &part.tenant,
                ));
            }
            parts.push(part);
        }
        if at != end {
            return Err(Malformed::new("end of the tenants", end, at));
        }
        if !rest.is_empty() {
            return Err(Malformed::new("bytes behind the tenants", 0, rest.len()));
        }
        Ok(Meta { info, parts })
    }

    /// The part of a tenant.
    pub fn part(&self, tenant: &TenantId) -> Option<&Part> {
        let at = self.parts.binary_search_by(|p| p.tenant.cmp(tenant)).ok()?;
        Some(&self.parts[at])
    }
}

fn take_part(rest: &mut &[u8], level: u8, start: u64, end: u64) -> Result<Part, Malformed> {
    let len = take_count(rest, TENANT_LEN_MAX, "length of a tenant")?;
    let name = std::str::from_utf8(take_slice(rest, len, "tenant")?)
        .map_err(|e| Malformed::new("tenant", "UTF-8", e))?;
    let tenant = TenantId::new(name).map_err(|e| Malformed::new("tenant", "a valid name", e))?;
    let min_time = take_signed(rest, "earliest time")?;
    let span = take(rest, "span of times")?;
    let max_time = min_time.wrapping_add(span as i64);
    if max_time < min_time {
        return Err(Malformed::new(
            "span of times",
            "not beyond the latest",
            span,
        ));
    }
    let series = take(rest, "series of a tenant")?;
    let series = u32::try_from(series)
        .map_err(|_| Malformed::new("series of a tenant", "32 bits", series))?;
    let samples = take(rest, "samples of a tenant")?;
    let mut at = start;
    let mut bounds = [0u64; 3];
    for (bound, what) in bounds.iter_mut().zip(["chunks", "index", "directory"]) {
        let len = take(rest, what)?;
        at = at
            .checked_add(len)
            .filter(|&at| at <= end)
            .ok_or_else(|| Malformed::new(what, format!("at most {} bytes", end - at), len))?;
        *bound = at;
    }
    let [index_start, directory_start, part_end] = bounds;
    if series == 0 && (part_end != start || samples != 0 || level == 0) {
        let found = format!("{samples} samples in {} bytes", part_end - start);
        return Err(Malformed::new("tenant without series", "nothing", found));
    }
    Ok(Part {
        tenant,
        min_time,
        max_time,
        series,
        samples,
        range: start..part_end,
        index_start,
        directory_start,
    })
}

/// The first bytes of a file.
pub(crate) fn header(info: &Info) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&HEADER_MAGIC);
    out[8..10].copy_from_slice(&VERSION.to_le_bytes());
    out[10] = info.kind as u8;
    out[16..32].copy_from_slice(&info.id.to_le_bytes());
    let sum = xxh3_64(&out[..32]);
    out[32..].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The last bytes of a file.
pub(crate) fn trailer(info: &Info, footer_start: u64, footer_len: usize) -> [u8; TRAILER_BYTES] {
    let mut out = [0; TRAILER_BYTES];
    out[..8].copy_from_slice(&footer_start.to_le_bytes());
    let len = u32::try_from(footer_len).expect("a page is bounded");
    out[8..12].copy_from_slice(&len.to_le_bytes());
    out[12..14].copy_from_slice(&VERSION.to_le_bytes());
    out[14] = info.kind as u8;
    out[16..32].copy_from_slice(&info.id.to_le_bytes());
    let sum = xxh3_64(&out[..32]);
    out[32..40].copy_from_slice(&sum.to_le_bytes());
    out[40..].copy_from_slice(&TRAILER_MAGIC);
    out
}

/// What a trailer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) footer_start: u64,
    pub(crate) footer_len: u32,
    pub(crate) kind: FileKind,
    pub(crate) id: u128,
}

/// Reads the last bytes of a file of `len` bytes.
pub(crate) fn read_trailer(bytes: &[u8], len: u64, file: &str) -> Result<Trailer, Error> {
    let at = len.saturating_sub(TRAILER_BYTES as u64);
    let Some((_, bytes)) = bytes.split_last_chunk::<TRAILER_BYTES>() else {
        return Err(Error::NotABlock {
            file: file.to_owned(),
            reason: format!("it has {len} bytes, the trailer alone has {TRAILER_BYTES}"),
        });
    };
    if bytes[40..] != TRAILER_MAGIC {
        return Err(Error::NotABlock {
            file: file.to_owned(),
            reason: format!(
                "its last 8 bytes are {:02x?}, expected {:?}: cut short, or something else",
                &bytes[40..],
                String::from_utf8_lossy(&TRAILER_MAGIC)
            ),
        });
    }
    let corrupt = |malformed: Malformed| malformed.at(file, at);
    check_sum(&bytes[..40], "checksum of the trailer").map_err(corrupt)?;
    check_version(bytes[12..14].first_chunk().expect("two bytes"), file)?;
    let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("in the trailer"));
    let id = u128::from_le_bytes(*bytes[16..].first_chunk().expect("in the trailer"));
    if bytes[15] != 0 {
        return Err(corrupt(Malformed::new(
            "reserved byte of the trailer",
            0,
            bytes[15],
        )));
    }
    let footer_start = word(0);
    let footer_len = word(8) as u32;
    let end = footer_start.checked_add(u64::from(footer_len));
    if end != Some(at) || footer_start < HEADER_BYTES as u64 {
        let expected = format!("from {HEADER_BYTES} on, ending at {at}");
        let found = format!("{footer_len} bytes at {footer_start}");
        return Err(corrupt(Malformed::new("footer", expected, found)));
    }
    Ok(Trailer {
        footer_start,
        footer_len,
        kind: FileKind::from_byte(bytes[14]).map_err(corrupt)?,
        id,
    })
}

/// Checks the first bytes of a file against its trailer.
pub(crate) fn check_header(bytes: &[u8], trailer: &Trailer, file: &str) -> Result<(), Error> {
    let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(Malformed::cut_short("header").at(file, 0));
    };
    let corrupt = |malformed: Malformed| malformed.at(file, 0);
    if bytes[..8] != HEADER_MAGIC {
        let found = String::from_utf8_lossy(&bytes[..8]).into_owned();
        let expected = String::from_utf8_lossy(&HEADER_MAGIC).into_owned();
        return Err(corrupt(Malformed::new("magic", expected, found)));
    }
    check_sum(bytes, "checksum of the header").map_err(corrupt)?;
    check_version(bytes[8..10].first_chunk().expect("two bytes"), file)?;
    if bytes[10] != trailer.kind as u8 {
        let expected = trailer.kind as u8;
        return Err(corrupt(Malformed::new(
            "kind of the file",
            expected,
            bytes[10],
        )));
    }
    let id = u128::from_le_bytes(*bytes[16..].first_chunk().expect("in the header"));
    if id != trailer.id {
        let (expected, found) = (format!("{:032x}", trailer.id), format!("{id:032x}"));
        return Err(corrupt(Malformed::new("id of the file", expected, found)));
    }
    Ok(())
}

/// The last eight bytes are the checksum of those before.
fn check_sum(bytes: &[u8], what: &'static str) -> Result<(), Malformed> {
    let (content, sum) = bytes
        .split_last_chunk::<8>()
        .expect("longer than a checksum");
    let (expected, found) = (u64::from_le_bytes(*sum), xxh3_64(content));
    if expected != found {
        let (expected, found) = (format!("{expected:016x}"), format!("{found:016x}"));
        return Err(Malformed::new(what, expected, found));
    }
    Ok(())
}

fn check_version(bytes: &[u8; 2], file: &str) -> Result<(), Error> {
    let version = u16::from_le_bytes(*bytes);
    if version != VERSION {
        let file = file.to_owned();
        return Err(Error::Version { file, version });
    }
    Ok(())
}
