//! The bounds of a running query, and what it has used of them.
//!
//! Samples are counted as Prometheus does: every point that is held at a time (selected, in the current window, computed) counts
//! against the bound; every sample that a selector looks at counts for the total. Beside that the places of columns are bounded, present
//! or not: a query with many steps over sparse series would else hold far more memory than its samples say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::profile::Profile;
use crate::error::Error;

/// How much a query may use, and how it is told to stop.
pub struct Budget<'a> {
    /// Points held at a time.
    pub samples_max: u64,
    /// Whether the deadline has passed; asked at every series.
    pub expired: &'a (dyn Fn() -> bool + Sync),
    /// Set when nobody wants the answer any more.
    pub canceled: &'a AtomicBool,
    /// Takes so many bytes more for the query, and is never given any back before its end: asked in steps of [`GRANT_BYTES`], so
    /// rarely. False when there are none: [`Error::TooMuchMemory`].
    pub memory: &'a (dyn Fn(u64) -> bool + Sync),
    /// Samples are counted for each step of the query too. Costs a second look at every column.
    pub per_step: bool,
    /// Where what each node and selector cost is noted, if anywhere.
    pub profile: Option<&'a Profile<'a>>,
    /// Into how many shards its series may be divided.
    pub shards: Shards,
}

/// Into how many shards the series of a query may be divided, which are evaluated side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards {
    /// How many; below 2 there are none.
    pub count: usize,
    /// None where fewer series times steps than this are looked at, and none that has less than half of it, on average.
    pub cells_min: u64,
}

impl Shards {
    /// None.
    pub const NONE: Shards = Shards {
        count: 1,
        cells_min: 0,
    };
}

impl<'a> Budget<'a> {
    /// A bound on samples, and none on anything else but what the caller has in mind.
    pub fn new(
        samples_max: u64,
        expired: &'a (dyn Fn() -> bool + Sync),
        canceled: &'a AtomicBool,
    ) -> Budget<'a> {
        Budget {
            samples_max,
            expired,
            canceled,
            memory: &|_| true,
            per_step: false,
            profile: None,
            shards: Shards::NONE,
        }
    }
}

/// Memory is asked for in steps of this size: small beside what queries hold, so large that asking costs nothing.
pub const GRANT_BYTES: u64 = 1 << 20;

/// A point that is held, or a place in a column.
const CELL_BYTES: u64 = 8;

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
    /// Bytes that were asked for and given.
    granted: AtomicU64,
    /// Samples looked at by step of the query; empty where they are not counted.
    per_step: Vec<AtomicU64>,
    /// One of the shards of the query has failed.
    stopped: AtomicBool,
}

impl Counters {
    fn new(per_step: usize) -> Counters {
        Counters {
            per_step: (0..per_step).map(|_| AtomicU64::new(0)).collect(),
            ..Counters::default()
        }
    }
}

/// Sets a counter, and moves that of all shards by as much. Counters wrap, so a difference may be one below zero.
fn set(own: &AtomicU64, of_all: Option<&AtomicU64>, value: u64) {
    match of_all {
        None => own.store(value, Ordering::Relaxed),
        Some(all) => {
            let more = value.wrapping_sub(own.swap(value, Ordering::Relaxed));
            all.fetch_add(more, Ordering::Relaxed);
        }
    }
}

/// Counts; shared by all pieces of a query.
pub(crate) struct Meter<'a> {
    samples_max: u64,
    expired: &'a (dyn Fn() -> bool + Sync),
    canceled: &'a AtomicBool,
    memory: &'a (dyn Fn(u64) -> bool + Sync),
    profile: Option<&'a Profile<'a>>,
    counters: Arc<Counters>,
    /// Those of the query, where this is of one of its shards. What is held is counted in both, and the bounds are those of the query.
    of_query: Option<Arc<Counters>>,
}

/// Samples looked at before something happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looked {
    total: u64,
    first_step: u64,
}

impl<'a> Meter<'a> {
    /// `steps` is how many the query has.
    pub(crate) fn new(budget: &Budget<'a>, steps: usize) -> Meter<'a> {
        let per_step = if budget.per_step { steps } else { 0 };
        Meter {
            samples_max: budget.samples_max,
            expired: budget.expired,
            canceled: budget.canceled,
            memory: budget.memory,
            profile: budget.profile,
            counters: Arc::new(Counters::new(per_step)),
            of_query: None,
        }
    }

    /// For one of the shards of the query: bounds hold for all of them together, samples looked at are counted for each.
    pub(crate) fn of_shard(&self) -> Meter<'a> {
        Meter {
            counters: Arc::new(Counters::new(self.counters.per_step.len())),
            of_query: Some(Arc::clone(&self.counters)),
            ..self.share()
        }
    }

    /// From the beginning, but for the memory that was given.
    pub(crate) fn again(&self) -> Meter<'a> {
        let counters = Counters::new(self.counters.per_step.len());
        let granted = self.counters.granted.load(Ordering::Relaxed);
        counters.granted.store(granted, Ordering::Relaxed);
        Meter {
            counters: Arc::new(counters),
            ..self.share()
        }
    }

    /// Ends the shards of the query, one of which has failed.
    pub(crate) fn stop(&self) {
        self.counters.stopped.store(true, Ordering::Relaxed);
    }

    /// Adds what a shard has looked at.
    pub(crate) fn add_looked(&self, shard: &Meter<'_>) {
        self.looked_at(shard.stats().total_samples);
        for (step, samples) in shard.per_step().into_iter().enumerate() {
            self.looked_at_step(step, samples);
        }
    }

    /// The counters that the bounds are compared with.
    fn bounded(&self) -> &Counters {
        self.of_query.as_ref().unwrap_or(&self.counters)
    }

    /// Another handle on the same counters.
    pub(crate) fn share(&self) -> Meter<'a> {
        Meter {
            samples_max: self.samples_max,
            expired: self.expired,
            canceled: self.canceled,
            memory: self.memory,
            profile: self.profile,
            counters: Arc::clone(&self.counters),
            of_query: self.of_query.clone(),
        }
    }

    /// Fails when a subquery has more steps than a column may have.
    pub(crate) fn check_steps(&self, steps: usize) -> Result<(), Error> {
        let steps = steps as u64;
        if steps > (self.samples_max / SAMPLES_PER_STEP).max(1) {
            return Err(self.too_many(steps.saturating_mul(SAMPLES_PER_STEP)));
        }
        Ok(())
    }

    fn too_many(&self, needed: u64) -> Error {
        Error::TooManySamples {
            samples_max: self.samples_max,
            needed,
        }
    }

    /// Asks for memory where more is held than was ever asked for.
    fn hold(&self, held: u64, cells: u64) -> Result<(), Error> {
        let needed = held.saturating_add(cells).saturating_mul(CELL_BYTES);
        let counters = self.bounded();
        let mut granted = counters.granted.load(Ordering::Relaxed);
        while needed > granted {
            let next = needed.max(granted + GRANT_BYTES);
            match counters.granted.compare_exchange_weak(
                granted,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) if (self.memory)(next - granted) => return Ok(()),
                Ok(_) => return Err(Error::TooMuchMemory { needed: next }),
                Err(now) => granted = now,
            }
        }
        Ok(())
    }

    /// Holds columns of `cells` places.
    pub(crate) fn charge_cells(&self, cells: usize) -> Result<(), Error> {
        let cells = cells as u64;
        let mut held = self.counters.cells.fetch_add(cells, Ordering::Relaxed) + cells;
        if let Some(all) = &self.of_query {
            held = all.cells.fetch_add(cells, Ordering::Relaxed) + cells;
        }
        if held > self.samples_max.saturating_mul(CELLS_PER_SAMPLE) {
            return Err(self.too_many(held.div_ceil(CELLS_PER_SAMPLE)));
        }
        self.hold(self.bounded().held.load(Ordering::Relaxed), held)
    }

    /// Fails when the query is to stop.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let stopped = |all: &Arc<Counters>| all.stopped.load(Ordering::Relaxed);
        if self.canceled.load(Ordering::Relaxed) || self.of_query.as_ref().is_some_and(stopped) {
            return Err(Error::Canceled);
        }
        if (self.expired)() {
            return Err(Error::Timeout);
        }
        Ok(())
    }

    /// Holds `points` more.
    pub(crate) fn charge(&self, points: u64) -> Result<(), Error> {
        let mut held = self.counters.held.fetch_add(points, Ordering::Relaxed) + points;
        if let Some(all) = &self.of_query {
            held = all.held.fetch_add(points, Ordering::Relaxed) + points;
        }
        self.saw(held)
    }

    /// `points` more are held for a moment only: the window of a range function.
    pub(crate) fn peek(&self, points: u64) -> Result<(), Error> {
        self.saw(self.bounded().held.load(Ordering::Relaxed) + points)
    }

    fn saw(&self, held: u64) -> Result<(), Error> {
        self.bounded().peak.fetch_max(held, Ordering::Relaxed);
        if held > self.samples_max {
            return Err(self.too_many(held));
        }
        self.hold(held, self.bounded().cells.load(Ordering::Relaxed))
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
        let all = self.of_query.as_deref();
        set(&self.counters.cells, all.map(|all| &all.cells), mark.cells);
        self.charge_cells(cells)?;
        let held = mark.held + points;
        set(&self.counters.held, all.map(|all| &all.held), held);
        self.saw(all.map_or(held, |all| all.held.load(Ordering::Relaxed)))
    }

    /// A selector looked at `samples` samples.
    pub(crate) fn looked_at(&self, samples: u64) {
        self.counters.total.fetch_add(samples, Ordering::Relaxed);
    }

    /// Whether samples are counted for each step.
    pub(crate) fn counts_steps(&self) -> bool {
        !self.counters.per_step.is_empty()
    }

    /// Of the samples that a selector looked at, `samples` belong to a step. Only where steps are counted.
    pub(crate) fn looked_at_step(&self, step: usize, samples: u64) {
        if let Some(counter) = self.counters.per_step.get(step) {
            counter.fetch_add(samples, Ordering::Relaxed);
        }
    }

    /// To be handed to [`Meter::repeated`].
    pub(crate) fn looked(&self) -> Looked {
        let first = self.counters.per_step.first();
        Looked {
            total: self.counters.total.load(Ordering::Relaxed),
            first_step: first.map_or(0, |counter| counter.load(Ordering::Relaxed)),
        }
    }

    /// What was looked at since `before`, at the first step, stands for `steps` of them. As Prometheus counts what does not change
    /// from step to step.
    pub(crate) fn repeated(&self, before: Looked, steps: usize) {
        let now = self.looked();
        let more = (now.total - before.total).saturating_mul(steps as u64 - 1);
        self.counters.total.fetch_add(more, Ordering::Relaxed);
        let of_step = now.first_step - before.first_step;
        for step in 1..steps {
            self.looked_at_step(step, of_step);
        }
    }

    /// Samples looked at by step; empty where they are not counted.
    pub(crate) fn per_step(&self) -> Vec<u64> {
        let counters = self.counters.per_step.iter();
        counters.map(|c| c.load(Ordering::Relaxed)).collect()
    }

    /// Where costs are noted.
    pub(crate) fn profile(&self) -> Option<&'a Profile<'a>> {
        self.profile
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            total_samples: self.counters.total.load(Ordering::Relaxed),
            peak_samples: self.counters.peak.load(Ordering::Relaxed),
        }
    }
}
