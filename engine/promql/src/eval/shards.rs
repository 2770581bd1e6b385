//! A query in shards: its series divided by labels that everything in it keeps, each part evaluated by itself, the results put side by side.
//!
//! 1. [`divide`] asks the plan for these labels and hashes their values for every fetched series. Nothing is fetched or copied: a
//!    shard is a list of numbers of series (4 bytes each).
//! 2. [`evaluate`] runs an evaluator over each shard, on as many threads as the executor has free, or one after another. Bounds are those of
//!    the query: what all shards hold counts together. The first failure stops the others.
//! 3. No two shards give series of the same labels, so the result is theirs, sorted.
//!
//! The result is that of an evaluation in one, bit for bit: whole groups are in one shard, series keep their order, and partials of raw series are cut
//! where they are cut in the evaluation of all ([`Places::cut`]). A failure is not: a limit may be met in another moment, an error be found at
//! another series first, and a clash in a match is one only where the other side has any series at all. So after a failure that was not
//! asked for the query is evaluated in one, whose word is the last.

use std::ops::Range;

use model::{Labels, RangeSeries};

use super::budget::{Budget, Meter};
use super::numbering::Chosen;
use super::{Evaluated, Evaluator, Slots, cut, piece_size, result};
use crate::annotations::Annotations;
use crate::error::Error;
use crate::plan::{Plan, ShardLabels};
use crate::source::{Columns, Executor, Source, SourceError};
use crate::value::Value;

/// More than this only cost: a shard has about as much to do beside its series as for a hundred of them.
const SHARDS_MAX: usize = 256;

/// The series of one shard: for every selector their numbers among all, ascending.
pub(super) struct Places {
    members: Vec<Vec<u32>>,
    /// How many series each selector has in all shards together.
    counts: Vec<usize>,
}

impl Places {
    /// The pieces of all series, less those that are in other shards.
    pub(super) fn cut(&self, selector: usize) -> Vec<Range<usize>> {
        let members = &self.members[selector];
        let size = piece_size(self.counts[selector]) as u32;
        let mut start = 0;
        let pieces = members.chunk_by(|a, b| a / size == b / size).map(|piece| {
            let end = start + piece.len();
            std::mem::replace(&mut start, end)..end
        });
        let pieces: Vec<Range<usize>> = pieces.collect();
        match pieces.is_empty() {
            true => cut(0),
            false => pieces,
        }
    }
}

/// The series of one shard, as if there were no others.
struct Part<'s> {
    source: &'s dyn Source,
    places: &'s Places,
}

impl Part<'_> {
    fn place(&self, selector: usize, series: usize) -> usize {
        self.places.members[selector][series] as usize
    }
}

impl Source for Part<'_> {
    fn count(&self, selector: usize) -> usize {
        self.places.members[selector].len()
    }

    fn labels(&self, selector: usize, series: usize) -> &Labels {
        self.source.labels(selector, self.place(selector, series))
    }

    fn decode(
        &self,
        selector: usize,
        series: usize,
        min: i64,
        max: i64,
        out: &mut Columns,
    ) -> Result<(), SourceError> {
        let place = self.place(selector, series);
        self.source.decode(selector, place, min, max, out)
    }
}

/// The shards that have any series; `None` where the query is to be evaluated in one, which it is also where there is no memory for the lists.
///
/// Cost: a walk over the labels of every series.
pub(super) fn divide(
    plan: &Plan,
    source: &dyn Source,
    executor: &dyn Executor,
    budget: &Budget<'_>,
) -> Option<Vec<Places>> {
    let shards = budget.shards.count.min(SHARDS_MAX);
    // With one worker nobody could help.
    if shards < 2 || executor.width() < 2 {
        return None;
    }
    let counts = (0..plan.selectors.len()).map(|selector| source.count(selector));
    let counts: Vec<usize> = counts.collect();
    let series = counts.iter().sum::<usize>() as u64;
    let cells = series.saturating_mul(plan.steps.count as u64);
    // Numbers of series are 32 bit.
    let is_small = cells < budget.shards.cells_min || series > u64::from(u32::MAX);
    let (false, Ok(labels)) = (is_small, plan.shard_labels()) else {
        return None;
    };
    let worth = cells / (budget.shards.cells_min / 2).max(1);
    let shards = shards
        .min(usize::try_from(worth).unwrap_or(usize::MAX))
        .max(2);
    // Lists grow by doubling, and each shard has one for every selector.
    let lists = (shards * counts.len() * 32) as u64;
    if !(budget.memory)(8 * series + lists) {
        return None;
    }
    let chosen = match &labels {
        ShardLabels::By(labels) => Chosen::only(labels),
        ShardLabels::Without(labels) => Chosen::except(labels),
    };
    let mut parts: Vec<Vec<Vec<u32>>> = vec![vec![Vec::new(); counts.len()]; shards];
    for (selector, count) in counts.iter().enumerate() {
        let pieces = cut(*count);
        let slots = Slots::new(pieces.len());
        executor.run(pieces.len(), &|piece| {
            let mut packed = Vec::new();
            let labels = pieces[piece].clone().map(|n| source.labels(selector, n));
            let shard = |labels: &Labels| shard_of(chosen.hash(labels, &mut packed), shards);
            slots.put(piece, labels.map(shard).collect::<Vec<u16>>());
        });
        for (number, shard) in (0u32..).zip(slots.into_results().flatten()) {
            parts[usize::from(shard)][selector].push(number);
        }
    }
    parts.retain(|members| members.iter().any(|series| !series.is_empty()));
    if parts.len() < 2 {
        return None;
    }
    let places = parts.into_iter().map(|members| Places {
        members,
        counts: counts.clone(),
    });
    Some(places.collect())
}

/// By the high bits of the hash. It is stable: a group is in the same shard in every process.
fn shard_of(hash: u64, shards: usize) -> u16 {
    ((u128::from(hash) * shards as u128) >> 64) as u16
}

/// Evaluates all shards. Errors: those of the shard that failed first.
pub(super) fn evaluate(
    plan: &Plan,
    source: &dyn Source,
    executor: &dyn Executor,
    meter: &Meter<'_>,
    division: &[Places],
) -> Result<Evaluated, Error> {
    let slots = Slots::new(division.len());
    let failed = std::sync::Mutex::new(None);
    executor.run_shards(division.len(), &|shard, executor| {
        let places = &division[shard];
        let part = Part { source, places };
        let evaluator = Evaluator::new(plan, &part, executor, meter.of_shard(), Some(places));
        let series = evaluator.meter.check().and_then(|()| one(&evaluator));
        let (of_shard, annotations) = evaluator.into_parts();
        meter.add_looked(&of_shard);
        let (series, error) = match series {
            Ok(series) => (series, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        if let Some(error) = error {
            let mut failed = failed.lock().unwrap_or_else(|e| e.into_inner());
            failed.get_or_insert(error);
            meter.stop();
        }
        slots.put(shard, (series, annotations));
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(error);
    }
    let mut all = Annotations::default();
    let mut series = Vec::new();
    for (mut more, annotations) in slots.into_results() {
        series.append(&mut more);
        all.merge(annotations);
    }
    // Sorted runs.
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    debug_assert!(
        series.is_sorted_by(|a, b| a.labels < b.labels),
        "no labels in two shards"
    );
    Ok(Evaluated {
        value: model::QueryValue::Matrix(series),
        warnings: all.warnings(),
        infos: all.infos(),
        stats: meter.stats(),
        per_step: meter.per_step(),
        shards: division.len(),
    })
}

fn one(evaluator: &Evaluator<'_>) -> Result<Vec<RangeSeries>, Error> {
    let plan = evaluator.plan;
    match evaluator.eval(&plan.root, plan.steps)? {
        Value::Vector(series) => result::range_series(series, plan.steps),
        _ => Err(Error::execution("expected an instant vector")),
    }
}
