//! How much memory queries hold, each and all together.
//!
//! An [`Account`] goes with a query from the first chunk that a core copies for it to the last byte of its answer. It is asked before
//! memory is taken (by cores once a slice, by evaluation once a megabyte), refuses what is beyond a bound, and gives everything
//! back when the last holder drops it. The numbers are estimates: bytes of chunks, labels, columns and results with a fixed sum for
//! what surrounds them; not what the allocator rounds up.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use model::QueryValue;
use prometheus::IntGauge;

use crate::engine::Size;
use crate::error::Error;

/// Vectors, identity and node of one series beside its labels and chunks.
pub(crate) const SERIES_BYTES: u64 = 160;

/// What all queries hold.
#[derive(Debug)]
pub(crate) struct Memory {
    held: AtomicU64,
    max: u64,
    gauge: IntGauge,
}

/// What one query holds.
#[derive(Debug)]
pub struct Account {
    memory: Arc<Memory>,
    held: AtomicU64,
    /// Bound of one query of this tenant; 0 is unlimited.
    max: u64,
    /// Why memory was refused first.
    refused: OnceLock<Error>,
    /// Requests to the bucket, and bytes that it gave.
    from_bucket: [AtomicU64; 2],
    /// Series, chunks, their bytes, and bytes with labels.
    fetched: [AtomicU64; 4],
}

impl Memory {
    /// `max` is the bound of all together; `gauge` shows what is held.
    pub(crate) fn new(max: u64, gauge: IntGauge) -> Arc<Memory> {
        Arc::new(Memory {
            held: AtomicU64::new(0),
            max,
            gauge,
        })
    }

    /// An empty account.
    pub(crate) fn account(self: &Arc<Memory>, max: u64) -> Arc<Account> {
        Arc::new(Account {
            memory: self.clone(),
            held: AtomicU64::new(0),
            max,
            refused: OnceLock::new(),
            from_bucket: Default::default(),
            fetched: Default::default(),
        })
    }

    /// Adds to what is held, and returns how much that is now. The gauge is moved by the same amount rather than set, so that two threads
    /// at once cannot leave it wrong.
    fn add(&self, bytes: u64) -> u64 {
        self.gauge.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.held.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    fn sub(&self, bytes: u64) {
        self.gauge.sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Account {
    /// Takes so many bytes more. False, and nothing taken, where that is beyond a bound; [`Account::refusal`] then tells which.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.max > 0 && held > self.max {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            let _ = self.refused.set(Error::QueryMemory {
                limit: self.max,
                needed: held,
            });
            return false;
        }
        let all = self.memory.add(bytes);
        if all > self.memory.max {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            self.memory.sub(bytes);
            let _ = self.refused.set(Error::MemoryOfAll {
                limit: self.memory.max,
                held: all - bytes,
                asked: held,
            });
            return false;
        }
        true
    }

    /// All that was held is gone but for `bytes`.
    pub(crate) fn shrink(&self, bytes: u64) {
        let before = self.held.load(Ordering::Relaxed);
        if before > bytes {
            self.held.fetch_sub(before - bytes, Ordering::Relaxed);
            self.memory.sub(before - bytes);
        }
    }

    /// Notes what the query has fetched.
    pub(crate) fn note_fetched(&self, size: Size) {
        let more = [size.series, size.chunks, size.chunk_bytes, size.data_bytes];
        for (sum, more) in self.fetched.iter().zip(more) {
            sum.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// What the query has fetched so far.
    pub fn fetched(&self) -> Size {
        let [series, chunks, chunk_bytes, data_bytes] =
            [0, 1, 2, 3].map(|at: usize| self.fetched[at].load(Ordering::Relaxed));
        Size {
            series,
            chunks,
            chunk_bytes,
            data_bytes,
        }
    }

    /// Notes what the query has cost the bucket.
    pub(crate) fn note_bucket(&self, requests: u64, bytes: u64) {
        for (sum, more) in self.from_bucket.iter().zip([requests, bytes]) {
            sum.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Requests that the query has made to the bucket, and bytes that it got from there.
    pub fn from_bucket(&self) -> (u64, u64) {
        let [requests, bytes] = &self.from_bucket;
        (
            requests.load(Ordering::Relaxed),
            bytes.load(Ordering::Relaxed),
        )
    }

    /// Bytes held now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Why memory was refused.
    pub(crate) fn refusal(&self) -> Error {
        self.refused.get().cloned().unwrap_or(Error::QueryMemory {
            limit: self.max,
            needed: self.held(),
        })
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let held = *self.held.get_mut();
        self.memory.sub(held);
    }
}

/// Bytes of a result, roughly. Cost: linear in its series.
pub(crate) fn value_bytes(value: &QueryValue) -> u64 {
    let labels = |labels: &model::Labels| labels.packed().len() as u64 + SERIES_BYTES;
    match value {
        QueryValue::Scalar { .. } => 0,
        QueryValue::String { s, .. } => s.len() as u64,
        QueryValue::Vector(samples) => samples.iter().map(|s| labels(&s.labels) + 16).sum(),
        QueryValue::Matrix(series) => series
            .iter()
            .map(|s| {
                let histograms = s.histograms.iter().map(|p| {
                    let h = &p.h;
                    let buckets = h.positive_counts.len() + h.negative_counts.len();
                    SERIES_BYTES + 8 * buckets as u64
                });
                labels(&s.labels) + 16 * s.floats.len() as u64 + histograms.sum::<u64>()
            })
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_everything_comes_back() {
        let gauge = IntGauge::new("g", "g").unwrap();
        let memory = Memory::new(100, gauge.clone());
        let (a, b) = (memory.account(60), memory.account(0));
        assert!(a.take(50));
        assert!(!a.take(20));
        let refusal = a.refusal();
        assert!(
            matches!(
                refusal,
                Error::QueryMemory {
                    limit: 60,
                    needed: 70
                }
            ),
            "{refusal}"
        );
        assert!(b.take(50) && !b.take(1));
        let refusal = b.refusal();
        assert!(
            matches!(
                refusal,
                Error::MemoryOfAll {
                    limit: 100,
                    held: 100,
                    asked: 51
                }
            ),
            "{refusal}"
        );
        assert_eq!((a.held(), b.held(), gauge.get()), (50, 50, 100));
        b.shrink(10);
        assert_eq!((b.held(), gauge.get()), (10, 60));
        drop(a);
        assert_eq!(gauge.get(), 10);
        drop(b);
        assert_eq!(gauge.get(), 0);
    }
}
