//! What nodes and selectors of a query really cost, for `explain`.
//!
//! Only when asked for: the clock is handed in and is looked at around every node that is evaluated by itself, and around the
//! decoding of every series. Nodes that are part of another's row program (`rows`) have no cost of their own; theirs is in it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::expr::Span;
use crate::value::{Value, VectorSeries};

/// Collects costs; shared by all pieces of a query.
pub struct Profile<'a> {
    clock: &'a (dyn Fn() -> Duration + Sync),
    nodes: Mutex<BTreeMap<(u32, u32), NodeCost>>,
    selectors: Vec<Decoding>,
}

#[derive(Debug, Default)]
struct Decoding {
    series: AtomicU64,
    samples: AtomicU64,
    nanos: AtomicU64,
}

/// What one node cost, with everything below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeCost {
    /// How often it was evaluated (more than once within subqueries of subqueries).
    pub evaluations: u64,
    /// Wall time, what is below it included.
    pub time: Duration,
    /// Series that came out.
    pub series: u64,
    /// Points that came out, over all steps.
    pub points: u64,
}

/// What decoding the series of one selector cost, over all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SelectorCost {
    /// Series decoded; one that two nodes look at counts twice.
    pub series: u64,
    /// Raw samples that came out.
    pub samples: u64,
    /// Time of all threads together.
    pub time: Duration,
}

impl<'a> Profile<'a> {
    /// For a plan with so many selectors; `clock` never goes back.
    pub fn new(clock: &'a (dyn Fn() -> Duration + Sync), selectors: usize) -> Profile<'a> {
        Profile {
            clock,
            nodes: Mutex::default(),
            selectors: (0..selectors).map(|_| Decoding::default()).collect(),
        }
    }

    /// The cost of the node at `span` of the text; `None` for one that is part of another.
    pub fn node(&self, span: Span) -> Option<NodeCost> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(&(span.start, span.end)).copied()
    }

    /// The cost of a selector of the plan.
    pub fn selector(&self, index: usize) -> SelectorCost {
        let decoding = &self.selectors[index];
        SelectorCost {
            series: decoding.series.load(Ordering::Relaxed),
            samples: decoding.samples.load(Ordering::Relaxed),
            time: Duration::from_nanos(decoding.nanos.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn now(&self) -> Duration {
        (self.clock)()
    }

    pub(super) fn note_node(&self, span: Span, begun: Duration, value: &Value) {
        let time = self.now().saturating_sub(begun);
        let (series, points) = match value {
            Value::Vector(all) => (
                all.len() as u64,
                all.iter().map(VectorSeries::points).sum::<u64>(),
            ),
            Value::Scalar(column) => (1, column.len() as u64),
            Value::String(_) => (0, 0),
        };
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let cost = nodes.entry((span.start, span.end)).or_default();
        cost.evaluations += 1;
        cost.time += time;
        cost.series += series;
        cost.points += points;
    }

    pub(super) fn note_decode(&self, selector: usize, begun: Duration, samples: usize) {
        let decoding = &self.selectors[selector];
        let nanos = self.now().saturating_sub(begun).as_nanos() as u64;
        decoding.series.fetch_add(1, Ordering::Relaxed);
        decoding
            .samples
            .fetch_add(samples as u64, Ordering::Relaxed);
        decoding.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}
