//! Bytes of a simulated file: sparse pages, shared between the live and the synced version.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: u64 = 4096;
type Page = [u8; PAGE as usize];

/// A file's bytes. Copying it copies references to pages; writing copies a shared page first.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    len: u64,
    /// Pages that take disk space; None is one of zeros (allocated, never written).
    pages: BTreeMap<u64, Option<Arc<Page>>>,
}

/// A change of a file, as written but perhaps not yet durable.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { offset: u64, data: Arc<[u8]> },
    SetLen { len: u64 },
    Allocate { offset: u64, len: u64 },
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Disk space taken, in bytes.
    pub(super) fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// Space that `change` would take in addition.
    pub(super) fn grows_by(&self, change: &Change) -> u64 {
        let (offset, len) = match change {
            Change::Write { offset, data } => (*offset, data.len() as u64),
            Change::Allocate { offset, len } => (*offset, *len),
            Change::SetLen { .. } => return 0,
        };
        if len == 0 {
            return 0;
        }
        let pages = offset / PAGE..=(offset + len - 1) / PAGE;
        let wanted = pages.end() - pages.start() + 1;
        (wanted - self.pages.range(pages).count() as u64) * PAGE
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, data } => self.write(*offset, data),
            Change::SetLen { len } => self.set_len(*len),
            Change::Allocate { offset, len } => {
                for page in offset / PAGE..=(offset + len - 1) / PAGE {
                    self.pages.entry(page).or_insert(None);
                }
                self.len = self.len.max(offset + len);
            }
        }
    }

    /// Reads into the whole of `into` as far as the file goes; returns how far.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let count = self.len.saturating_sub(offset).min(into.len() as u64) as usize;
        for (at, part) in pieces(offset, count) {
            let target = &mut into[part.clone()];
            match self.pages.get(&(at / PAGE)) {
                Some(Some(page)) => {
                    let from = (at % PAGE) as usize;
                    target.copy_from_slice(&page[from..from + part.len()]);
                }
                Some(None) | None => target.fill(0),
            }
        }
        count
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).expect("simulated files are small")];
        let count = self.read(0, &mut bytes);
        assert_eq!(count, bytes.len());
        bytes
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, part) in pieces(offset, data.len()) {
            let slot = self.pages.entry(at / PAGE).or_insert(None);
            let page = slot.get_or_insert_with(|| Arc::new([0; PAGE as usize]));
            let from = (at % PAGE) as usize;
            Arc::make_mut(page)[from..from + part.len()].copy_from_slice(&data[part]);
        }
        if !data.is_empty() {
            self.len = self.len.max(offset + data.len() as u64);
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            let tail = (len % PAGE) as usize;
            if tail > 0
                && let Some(Some(page)) = self.pages.get_mut(&(len / PAGE))
            {
                Arc::make_mut(page)[tail..].fill(0);
            }
        }
        self.len = len;
    }
}

/// Cuts a range at page boundaries: offset in the file, range in the data.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let room = (PAGE - at % PAGE) as usize;
        let part = done..len.min(done + room);
        done = part.end;
        Some((at, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn content_equals_a_plain_vector_under_random_changes() {
        for seed in 0..50 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut content = Content::default();
            let mut model: Vec<u8> = Vec::new();
            for _ in 0..60 {
                let offset = rng.random_range(0..20_000u64);
                let len = rng.random_range(1..9000usize);
                let end = offset as usize + len;
                match rng.random_range(0..4) {
                    0 | 1 => {
                        let data: Arc<[u8]> = (0..len).map(|_| rng.random::<u8>()).collect();
                        if model.len() < end {
                            model.resize(end, 0);
                        }
                        model[offset as usize..end].copy_from_slice(&data);
                        let change = Change::Write { offset, data };
                        let before = content.allocated();
                        let grows = content.grows_by(&change);
                        content.apply(&change);
                        assert_eq!(content.allocated(), before + grows);
                    }
                    2 => {
                        model.resize(offset as usize, 0);
                        content.apply(&Change::SetLen { len: offset });
                    }
                    _ => {
                        if model.len() < end {
                            model.resize(end, 0);
                        }
                        content.apply(&Change::Allocate {
                            offset,
                            len: len as u64,
                        });
                    }
                }
                assert_eq!(content.bytes(), model, "seed {seed}");
            }
        }
    }
}
