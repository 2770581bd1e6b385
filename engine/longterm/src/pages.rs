//! Pages of blocks in caches, so that what was read once need not be read from the bucket again.
//!
//! A block never changes under its name, so a page of it needs no time at which it ends. It is known by bucket, object and place; the object's key names the tenant
//! where a block is one's alone. Who may see which bytes of it is decided above: what is in the cache is what is in the bucket.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cache::{Cache, Key, Value};

/// Where pages are kept.
#[derive(Clone)]
pub struct Pages {
    cache: Arc<dyn Cache>,
    page_bytes: u64,
    requests_max: usize,
    ttl: Duration,
}

/// The caches of a reader.
#[derive(Debug, Clone, Default)]
pub struct Caches {
    /// Of indexes of blocks.
    pub index: Option<Pages>,
    /// Of chunks.
    pub chunks: Option<Pages>,
}

/// Whose pages they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    /// Bytes.
    pub(crate) len: u64,
}

impl Pages {
    /// Pages of so many bytes. What is missing of a range is read in at most so many pieces, with what lies between them; 0: as many as there are.
    /// `ttl`: how long they are kept at most; zero: as long as there is room.
    pub fn new(
        cache: Arc<dyn Cache>,
        page_bytes: u64,
        requests_max: usize,
        ttl: Duration,
    ) -> Pages {
        assert!(page_bytes > 0, "a page has bytes");
        Pages {
            cache,
            page_bytes,
            requests_max,
            ttl,
        }
    }

    fn key(&self, object: Object<'_>, page: u64) -> Key {
        Key::of(&[
            b"pages",
            object.bucket.as_bytes(),
            object.key.as_bytes(),
            &object.len.to_le_bytes(),
            &self.page_bytes.to_le_bytes(),
            &page.to_le_bytes(),
        ])
    }

    /// The bytes of ranges; those of pages that are not kept (with `again`: of all) by `fetch`, whose error is handed on.
    pub(crate) fn read<E>(
        &self,
        object: Object<'_>,
        ranges: &[Range<u64>],
        again: bool,
        fetch: impl FnOnce(&[Range<u64>]) -> Result<Vec<Vec<u8>>, E>,
    ) -> Result<Vec<Vec<u8>>, E> {
        let mut pages: Vec<u64> = ranges
            .iter()
            .filter(|range| range.start < range.end)
            .flat_map(|range| range.start / self.page_bytes..range.end.div_ceil(self.page_bytes))
            .collect();
        pages.sort_unstable();
        pages.dedup();
        let keys: Vec<Key> = pages.iter().map(|page| self.key(object, *page)).collect();
        let mut found = match again {
            true => vec![None; keys.len()],
            false => self.cache.get(&keys),
        };
        for (page, value) in pages.iter().zip(&mut found) {
            let range = self.range(object, *page..*page + 1);
            value.take_if(|value| value.len() as u64 != range.end - range.start);
        }
        let missing = pages
            .iter()
            .zip(&found)
            .filter(|(_, value)| value.is_none());
        let runs = self.runs(missing.map(|(page, _)| *page), ranges.len());
        if !runs.is_empty() {
            let wanted: Vec<Range<u64>> = runs
                .iter()
                .map(|run| self.range(object, run.clone()))
                .collect();
            let read = fetch(&wanted)?;
            let mut fresh = Vec::new();
            for ((at, page), value) in pages.iter().enumerate().zip(&mut found) {
                let Some(run) = runs.iter().position(|run| run.contains(page)) else {
                    continue;
                };
                if value.is_some() {
                    continue;
                }
                let range = self.range(object, *page..*page + 1);
                let from = (range.start - wanted[run].start) as usize;
                let bytes = &read[run][from..from + (range.end - range.start) as usize];
                let page = Value::from(bytes);
                fresh.push((keys[at].clone(), page.clone()));
                *value = Some(page);
            }
            self.cache.set(fresh, self.ttl);
        }
        let cut = |range: &Range<u64>| {
            let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
            let first = pages.partition_point(|page| (page + 1) * self.page_bytes <= range.start);
            for (page, value) in pages[first..].iter().zip(&found[first..]) {
                let start = page * self.page_bytes;
                if start >= range.end {
                    break;
                }
                let value = value.as_deref().unwrap_or_default();
                let from = (range.start.max(start) - start) as usize;
                let until = (range.end - start).min(value.len() as u64) as usize;
                bytes.extend_from_slice(&value[from..until]);
            }
            bytes
        };
        Ok(ranges.iter().map(cut).collect())
    }

    /// The bytes of a run of pages.
    fn range(&self, object: Object<'_>, pages: Range<u64>) -> Range<u64> {
        let start = pages.start * self.page_bytes;
        start..(pages.end * self.page_bytes).min(object.len).max(start)
    }

    /// Runs of pages that are missing, joined over the smallest gaps until there are few enough.
    fn runs(&self, missing: impl Iterator<Item = u64>, ranges: usize) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for page in missing {
            match runs.last_mut() {
                Some(last) if last.end == page => last.end = page + 1,
                _ => runs.push(page..page + 1),
            }
        }
        let most = match self.requests_max {
            0 => usize::MAX,
            most => most.saturating_mul(ranges),
        };
        while runs.len() > most.max(1) {
            let gap = |at: &usize| runs[at + 1].start - runs[*at].end;
            let Some(at) = (0..runs.len() - 1).min_by_key(gap) else {
                break;
            };
            runs[at].end = runs.remove(at + 1).end;
        }
        runs
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({} bytes, {:?})", self.page_bytes, self.cache)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    fn memory() -> Arc<dyn Cache> {
        let metrics = cache::Metrics::unregistered().of("test");
        Arc::new(cache::Memory::new(1 << 20, metrics))
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one range is asked for")]
    fn ranges_come_whole_and_what_was_read_is_not_read_again() {
        let bytes: Vec<u8> = (0..1003_u32).map(|i| (i * 7 % 251) as u8).collect();
        let object = |key| Object {
            bucket: "b",
            key,
            len: bytes.len() as u64,
        };
        let (requests, sum) = (Cell::new(0), Cell::new(0));
        let read = |pages: &Pages, key, ranges: &[Range<u64>], again| {
            let (before, bytes_before) = (requests.get(), sum.get());
            let fetch = |wanted: &[Range<u64>]| {
                requests.set(requests.get() + wanted.len());
                sum.set(sum.get() + wanted.iter().map(|r| r.end - r.start).sum::<u64>());
                let cut = |r: &Range<u64>| bytes[r.start as usize..r.end as usize].to_vec();
                Ok::<_, Infallible>(wanted.iter().map(cut).collect())
            };
            let read = pages.read(object(key), ranges, again, fetch).unwrap();
            for (range, read) in ranges.iter().zip(&read) {
                assert_eq!(*read, bytes[range.start as usize..range.end as usize]);
            }
            assert_eq!(read.len(), ranges.len());
            (requests.get() - before, sum.get() - bytes_before)
        };
        let pages = Pages::new(memory(), 16, 0, Duration::ZERO);
        assert_eq!(read(&pages, "k", &[5..20, 100..101], false), (2, 48));
        assert_eq!(read(&pages, "k", &[0..32, 96..112], false), (0, 0));
        assert_eq!(read(&pages, "k", &[20..100, 300..300], false), (1, 64));
        assert_eq!(
            read(&pages, "other", &[0..32], false),
            (1, 32),
            "another object"
        );
        // The last page is short.
        assert_eq!(read(&pages, "k", &[1000..1003], false), (1, 11));
        assert_eq!(read(&pages, "k", &[993..1003], false), (0, 0));
        assert_eq!(read(&pages, "k", &[993..1003], true), (1, 11));
        assert_eq!(read(&pages, "k", &[0..1003], false).0, 1);
        // Holes are filled with few requests, even if more is read.
        let few = Pages::new(memory(), 16, 2, Duration::ZERO);
        for page in [2, 5, 6, 20] {
            read(&few, "k", &[page * 16..page * 16 + 1], false);
        }
        assert_eq!(read(&few, "k", &[0..1003], false).0, 2);
    }
}
