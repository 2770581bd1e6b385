//! The bounds of a running query, and what it has used of them.
//!
//! Samples are counted as Prometheus does: every point that is held at a time (selected, in the current window, computed) counts
//! against the bound; every sample that a selector looks at counts for the total. Beside that the places of columns are bounded, present
//! or not: a query with many steps over sparse series would else hold far more memory than its samples say.

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

/// Places of columns that may be held for each sample that may be held. Eight bytes each, so with this factor as much memory as Prometheus
/// would use for its points of sixteen bytes.
const CELLS_PER_SAMPLE: u64 = 2;
/// A single column may have one place for this many samples that may be held, since every worker holds one or two.
const SAMPLES_PER_STEP: u64 = 4;

/// What was held at some time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    held: u64,
    cells: u64,
}

#[derive(Default)]
struct Counters {
    held: AtomicU64,
    cells: AtomicU64,
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

    /// Fails when a subquery has more steps than a column may have.
    pub(crate) fn check_steps(&self, steps: usize) -> Result<(), Error> {
        if steps as u64 > (self.samples_max / SAMPLES_PER_STEP).max(1) {
            return Err(self.too_many());
        }
        Ok(())
    }

    fn too_many(&self) -> Error {
        Error::TooManySamples {
            samples_max: self.samples_max,
        }
    }

    /// Holds columns of `cells` places.
    pub(crate) fn charge_cells(&self, cells: usize) -> Result<(), Error> {
        let cells = cells as u64;
        let held = self.counters.cells.fetch_add(cells, Ordering::Relaxed) + cells;
        if held > self.samples_max.saturating_mul(CELLS_PER_SAMPLE) {
            return Err(self.too_many());
        }
        Ok(())
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
            return Err(self.too_many());
        }
        Ok(())
    }

    /// What is held now.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            held: self.counters.held.load(Ordering::Relaxed),
            cells: self.counters.cells.load(Ordering::Relaxed),
        }
    }

    /// Of all that was held since `mark` only `points` in columns of `cells` places are left. Only between pieces, never within.
    pub(crate) fn settle(&self, mark: Mark, points: u64, cells: usize) -> Result<(), Error> {
        self.counters.cells.store(mark.cells, Ordering::Relaxed);
        self.charge_cells(cells)?;
        self.counters
            .held
            .store(mark.held + points, Ordering::Relaxed);
        self.saw(mark.held + points)
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
