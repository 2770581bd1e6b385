//! The bounds of a running query, and what it has used of them.
//!
//! Samples are counted as Prometheus does: every point that is held at a time (selected, in the current window, computed) counts
//! against the bound; every sample that a selector looks at counts for the total.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::Error;

/// How much a query may use, and how it is told to stop.
pub struct Budget<'a> {
    /// Points held at a time.
    pub samples_max: u64,
    /// Whether the deadline has passed; asked at every series.
    pub expired: &'a (dyn Fn() -> bool + Sync),
    /// Set when nobody wants the answer any more.
    pub canceled: &'a AtomicBool,
}

/// What a query used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Samples looked at: `totalQueryableSamples`.
    pub total_samples: u64,
    /// Most points held at a time: `peakSamples`.
    pub peak_samples: u64,
}

#[derive(Default)]
struct Counters {
    held: AtomicU64,
    peak: AtomicU64,
    total: AtomicU64,
}

/// Counts; shared by all pieces of a query.
pub(crate) struct Meter<'a> {
    samples_max: u64,
    expired: &'a (dyn Fn() -> bool + Sync),
    canceled: &'a AtomicBool,
    counters: Arc<Counters>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(budget: &Budget<'a>) -> Meter<'a> {
        Meter {
            samples_max: budget.samples_max,
            expired: budget.expired,
            canceled: budget.canceled,
            counters: Arc::default(),
        }
    }

    /// Another handle on the same counters.
    pub(crate) fn share(&self) -> Meter<'a> {
        Meter {
            samples_max: self.samples_max,
            expired: self.expired,
            canceled: self.canceled,
            counters: Arc::clone(&self.counters),
        }
    }

    pub(crate) fn samples_max(&self) -> u64 {
        self.samples_max
    }

    /// Fails when the query is to stop.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.canceled.load(Ordering::Relaxed) {
            return Err(Error::Canceled);
        }
        if (self.expired)() {
            return Err(Error::Timeout);
        }
        Ok(())
    }

    /// Holds `points` more.
    pub(crate) fn charge(&self, points: u64) -> Result<(), Error> {
        let held = self.counters.held.fetch_add(points, Ordering::Relaxed) + points;
        self.saw(held)
    }

    /// `points` more are held for a moment only: the window of a range function.
    pub(crate) fn peek(&self, points: u64) -> Result<(), Error> {
        self.saw(self.counters.held.load(Ordering::Relaxed) + points)
    }

    fn saw(&self, held: u64) -> Result<(), Error> {
        self.counters.peak.fetch_max(held, Ordering::Relaxed);
        if held > self.samples_max {
            return Err(Error::TooManySamples {
                samples_max: self.samples_max,
            });
        }
        Ok(())
    }

    /// What is held now.
    pub(crate) fn mark(&self) -> u64 {
        self.counters.held.load(Ordering::Relaxed)
    }

    /// Of all that was held since `mark` only `points` are left. Only between pieces, never within.
    pub(crate) fn settle(&self, mark: u64, points: u64) -> Result<(), Error> {
        self.counters.held.store(mark + points, Ordering::Relaxed);
        self.saw(mark + points)
    }

    /// A selector looked at `samples` samples.
    pub(crate) fn looked_at(&self, samples: u64) {
        self.counters.total.fetch_add(samples, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            total_samples: self.counters.total.load(Ordering::Relaxed),
            peak_samples: self.counters.peak.load(Ordering::Relaxed),
        }
    }
}
