//! The bytes of a block in the bucket.
//!
//! A reader asks for the index of a part first: directory, symbols, then pages of postings and series, in many small reads. So the whole index is
//! fetched at once, in pieces side by side, kept on the local disk (*headers*), and read from there. Chunk pages are
//! read as they are asked for: neighbours come joined already, several ranges go side by side.
//!
//! Where there are caches ([`Pages`]), pieces of indexes and chunks go through them.
//!
//! Headers are a bucket of their own, a directory; each ends in a checksum that is looked at when it is first used. They are bounded in bytes; those not used for
//! longest go. Without them everything is read by ranges.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::{Fetch, Source};
use objstore::{Bucket, Condition, Piece, WHOLE_BYTES_MAX, list_all};
use xxhash_rust::xxh3::xxh3_128;

use crate::metrics::Metrics;
use crate::pages::{Caches, Object, Pages};
use crate::reader::Clock;

/// Bytes of a piece of an index.
const HEADER_PIECE_BYTES: u64 = 4 << 20;

/// Behind a header: the xxh3-128 of it.
const SUM_BYTES: usize = 16;

/// A header that is larger is read by ranges.
const HEADER_BYTES_MAX: u64 = (WHOLE_BYTES_MAX - SUM_BYTES) as u64;

/// What one query has cost the bucket, and what it met.
#[derive(Debug, Default)]
pub struct Tally {
    requests: AtomicU64,
    bytes: AtomicU64,
    vanished: AtomicBool,
}

impl Tally {
    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether a block was not there; from now on none was.
    pub fn take_vanished(&self) -> bool {
        self.vanished.swap(false, Ordering::Relaxed)
    }
}

/// Keeps readers off a bucket that has just failed: each try may take as long as its timeouts allow, and a worker with it.
pub(crate) struct Breaker {
    clock: Clock,
    /// When it failed last, and why.
    failed: Mutex<Option<(i64, String)>>,
}

/// How long nobody tries.
const BREAK_MS: i64 = 5_000;

impl Breaker {
    pub(crate) fn new(clock: Clock) -> Breaker {
        let failed = Mutex::default();
        Breaker { clock, failed }
    }

    fn failed(&self) -> MutexGuard<'_, Option<(i64, String)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is not to be tried now.
    pub(crate) fn is_open(&self) -> Option<String> {
        let failed = self.failed();
        let (at, reason) = failed.as_ref()?;
        let is_recent = (0..BREAK_MS).contains(&((self.clock)() - at));
        is_recent.then(|| format!("{reason} (less than {} s ago)", BREAK_MS / 1000))
    }

    /// What came of a try.
    pub(crate) fn note(&self, failure: Option<&objstore::Error>) {
        *self.failed() = match failure {
            Some(error @ objstore::Error::Unavailable { .. }) => {
                Some(((self.clock)(), error.to_string()))
            }
            _ => None,
        };
    }
}

impl std::fmt::Debug for Breaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Breaker({:?})", self.failed())
    }
}

/// Reads pieces and maps what can go wrong.
fn read(
    bucket: &dyn Bucket,
    breaker: Option<&Breaker>,
    key: &str,
    ranges: impl Iterator<Item = Range<u64>>,
    tally: &Tally,
) -> Result<Vec<Vec<u8>>, block::Error> {
    if let Some(reason) = breaker.and_then(Breaker::is_open) {
        let file = key.to_owned();
        return Err(block::Error::Unreachable { file, reason });
    }
    let pieces: Vec<Piece> = ranges
        .map(|range| Piece {
            key: key.to_owned(),
            range,
        })
        .collect();
    let requests = pieces.len() as u64;
    tally.requests.fetch_add(requests, Ordering::Relaxed);
    let read = bucket.read(&pieces);
    if let Some(breaker) = breaker {
        breaker.note(read.as_ref().err());
    }
    let read = read.map_err(|error| {
        let file = key.to_owned();
        if error.is_not_found() {
            tally.vanished.store(true, Ordering::Relaxed);
            return block::Error::Gone { file };
        }
        let reason = error.to_string();
        block::Error::Unreachable { file, reason }
    })?;
    let bytes: usize = read.iter().map(Vec::len).sum();
    tally.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    Ok(read)
}

/// An object, range by range.
pub(crate) struct Plain<'a> {
    bucket: &'a dyn Bucket,
    key: &'a str,
    len: u64,
}

impl<'a> Plain<'a> {
    pub(crate) fn new(bucket: &'a Arc<dyn Bucket>, key: &'a str, len: u64) -> Plain<'a> {
        let bucket = &**bucket;
        Plain { bucket, key, len }
    }
}

impl Source for Plain<'_> {
    fn name(&self) -> &str {
        self.key
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, block::Error> {
        let ranges = ranges.iter().cloned();
        read(self.bucket, None, self.key, ranges, &Tally::default())
    }
}

/// A block of the bucket during one query.
pub(crate) struct Remote {
    pub(crate) bucket: Arc<dyn Bucket>,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) headers: Option<Arc<Headers>>,
    pub(crate) key: String,
    pub(crate) id: u128,
    /// Bytes of the object.
    pub(crate) len: u64,
    pub(crate) caches: Caches,
    /// Where the index of the tenant is.
    pub(crate) index: Range<u64>,
    pub(crate) tally: Arc<Tally>,
}

impl Remote {
    fn fetch_plain(&self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, block::Error> {
        let ranges = ranges.iter().cloned();
        let breaker = Some(&*self.breaker);
        read(&*self.bucket, breaker, &self.key, ranges, &self.tally)
    }

    /// Through a cache, where there is one.
    fn fetch_by(
        &self,
        pages: Option<&Pages>,
        ranges: &[Range<u64>],
        again: bool,
    ) -> Result<Vec<Vec<u8>>, block::Error> {
        let Some(pages) = pages else {
            return self.fetch_plain(ranges);
        };
        let object = Object {
            bucket: self.bucket.name(),
            key: &self.key,
            len: self.len,
        };
        pages.read(object, ranges, again, |missing| self.fetch_plain(missing))
    }

    /// The whole index.
    fn download(&self) -> Result<Vec<u8>, block::Error> {
        let (mut at, mut pieces) = (self.index.start, Vec::new());
        while at < self.index.end {
            let end = self.index.end.min(at + HEADER_PIECE_BYTES);
            pieces.push(at..end);
            at = end;
        }
        Ok(self
            .fetch_by(self.caches.index.as_ref(), &pieces, false)?
            .concat())
    }

    /// Whether all of it is index.
    fn are_index(&self, ranges: &[Range<u64>]) -> bool {
        !ranges.is_empty() && ranges.iter().all(|range| self.is_index(range))
    }

    fn pages(&self, in_index: bool) -> Option<&Pages> {
        match in_index {
            true => self.caches.index.as_ref(),
            false => self.caches.chunks.as_ref(),
        }
    }

    fn is_index(&self, range: &Range<u64>) -> bool {
        self.index.start <= range.start && range.end <= self.index.end
    }
}

impl Fetch for Remote {
    fn fetch(&self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, block::Error> {
        let in_index = self.are_index(ranges);
        let len = self.index.end - self.index.start;
        let headers = match &self.headers {
            Some(headers) if in_index && len <= HEADER_BYTES_MAX => headers,
            _ => return self.fetch_by(self.pages(in_index), ranges, false),
        };
        let within: Vec<Range<u64>> = ranges
            .iter()
            .map(|range| range.start - self.index.start..range.end - self.index.start)
            .collect();
        let name = Headers::name(self.id, self.index.start);
        if let Some(read) = headers.read(&name, &within) {
            return Ok(read);
        }
        let header = self.download()?;
        headers.keep(&name, &header);
        let cut = |range: &Range<u64>| header[range.start as usize..range.end as usize].to_vec();
        Ok(within.iter().map(cut).collect())
    }

    fn fetch_again(&self, ranges: &[Range<u64>]) -> Option<Result<Vec<Vec<u8>>, block::Error>> {
        let in_index = self.are_index(ranges);
        let pages = self.pages(in_index);
        let headers = self.headers.as_ref().filter(|_| in_index);
        if pages.is_none() && headers.is_none() {
            return None;
        }
        if let Some(headers) = headers {
            headers.forget(&Headers::name(self.id, self.index.start));
        }
        Some(self.fetch_by(pages, ranges, true))
    }
}

/// Indexes of blocks on the local disk.
#[derive(Debug)]
pub(crate) struct Headers {
    files: Arc<dyn Bucket>,
    bytes_max: u64,
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    kept: HashMap<String, Kept>,
    /// Counts uses.
    now: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Kept {
    len: u64,
    used: u64,
    /// Whether its checksum has been looked at in this life.
    checked: bool,
}

impl Headers {
    /// Over what former lives have left.
    pub(crate) fn open(
        files: Arc<dyn Bucket>,
        bytes_max: u64,
        metrics: Metrics,
    ) -> Result<Headers, objstore::Error> {
        let mut state = State::default();
        list_all(&*files, "", &mut |object| {
            state.bytes += object.len;
            let kept = Kept {
                len: object.len,
                used: 0,
                checked: false,
            };
            state.kept.insert(object.key, kept);
        })?;
        let headers = Headers {
            files,
            bytes_max,
            state: Mutex::new(state),
            metrics,
        };
        headers.shrink();
        Ok(headers)
    }

    /// Lets go of the header of a block that is in no index any more, whose index began there.
    pub(crate) fn left(&self, id: u128, start: u64) {
        self.forget(&Headers::name(id, start));
    }

    fn name(id: u128, start: u64) -> String {
        format!("{id:032x}-{start:x}")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ranges of a header; `None` if it is not kept, or not sound.
    fn read(&self, name: &str, ranges: &[Range<u64>]) -> Option<Vec<Vec<u8>>> {
        let (len, checked) = {
            let mut state = self.state();
            state.now += 1;
            let now = state.now;
            let kept = state.kept.get_mut(name)?;
            kept.used = now;
            (kept.len, kept.checked)
        };
        if !checked && !self.is_sound(name, len) {
            self.forget(name);
            return None;
        }
        let pieces: Vec<Piece> = ranges
            .iter()
            .map(|range| Piece {
                key: name.to_owned(),
                range: range.clone(),
            })
            .collect();
        match self.files.read(&pieces) {
            Ok(read) => Some(read),
            Err(_) => {
                self.forget(name);
                None
            }
        }
    }

    fn is_sound(&self, name: &str, len: u64) -> bool {
        let whole = Piece {
            key: name.to_owned(),
            range: 0..len,
        };
        let Ok(read) = self.files.read(&[whole]) else {
            return false;
        };
        let bytes = &read[0];
        let Some(at) = bytes.len().checked_sub(SUM_BYTES) else {
            return false;
        };
        let is_sound = xxh3_128(&bytes[..at]).to_le_bytes() == bytes[at..];
        if is_sound {
            self.metrics.header_hits.inc();
            if let Some(kept) = self.state().kept.get_mut(name) {
                kept.checked = true;
            }
        }
        is_sound
    }

    fn forget(&self, name: &str) {
        let gone = {
            let mut state = self.state();
            let gone = state.kept.remove(name);
            state.bytes -= gone.as_ref().map_or(0, |gone| gone.len);
            gone
        };
        if gone.is_some() {
            // What cannot be removed is found by the next start.
            let _ = self.files.delete(name);
        }
    }

    /// Keeps a header. One that cannot be written is fetched again.
    fn keep(&self, name: &str, header: &[u8]) {
        self.metrics.header_misses.inc();
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(&xxh3_128(header).to_le_bytes());
        if self.files.put(name, &bytes, &Condition::Always).is_err() {
            return;
        }
        {
            let mut state = self.state();
            state.now += 1;
            let kept = Kept {
                len: bytes.len() as u64,
                used: state.now,
                checked: true,
            };
            state.bytes += kept.len;
            let before = state.kept.insert(name.to_owned(), kept);
            state.bytes -= before.map_or(0, |before| before.len);
        }
        self.shrink();
    }

    fn shrink(&self) {
        loop {
            let oldest = {
                let state = self.state();
                if state.bytes <= self.bytes_max {
                    return;
                }
                let oldest = state.kept.iter().min_by_key(|(_, kept)| kept.used);
                oldest.map(|(name, _)| name.clone())
            };
            match oldest {
                Some(name) => self.forget(&name),
                None => return,
            }
        }
    }
}
