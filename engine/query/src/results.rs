//! Results of range queries, kept so that a dashboard that is loaded again costs what is new.
//!
//! A range query whose steps do not depend on each other ([`promql::Plan::is_sum_of_parts`]) is put together from *parts*: what is kept of earlier
//! requests for the same text, step and phase, and what had to be evaluated. Nobody can tell from an answer where it came from:
//!
//! - A sample that came late or out of order makes everything kept from its time on void ([`shard::Changes`]); what is newer than the
//!   tenant's `max_cache_freshness` is never kept, so that ordinary writes void nothing. What retention takes voids nothing: it may be
//!   answered for as long as it is kept.
//! - What could see further back than the tenant may (`max_query_lookback`) is neither kept nor used.
//! - Parts with warnings are not kept, errors neither. What there is to inform of is kept with a part as a whole: in this alone an answer
//!   may differ, where it uses only those of the part's steps that were no reason for it.
//!
//! Bounded by bytes; what is used least goes first. Nothing survives the process.

mod part;

use std::sync::Arc;

use model::{RangeSeries, TenantId};
use promql::{Plan, Steps};
use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};
use shard::{Changed, Changes};

use part::{Part, View};
pub(crate) use part::{Piece, add_new, join};

/// A part above this share of the cache would push out too much else.
const SHARE_OF_ONE: u64 = 8;

/// Views of one query at most; the oldest is let go.
const VIEWS_MAX: usize = 32;

/// Bytes of an entry beside its parts.
const ENTRY_BYTES: u64 = 256;

/// The results of all tenants.
#[derive(Debug)]
pub(crate) struct Results {
    cache: Cache<Key, Arc<Kept>, Bytes>,
    bytes_max: u64,
}

/// What queries must share to share results.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// The history that the marks are of.
    watch: u64,
    tenant: TenantId,
    text: Arc<str>,
    step: i64,
    /// Start modulo step.
    phase: i64,
    lookback: i64,
    /// Step of subqueries that name none.
    interval: i64,
}

/// What is kept of one query.
#[derive(Debug)]
struct Kept {
    /// Changes up to this one have been taken into account.
    mark: u64,
    /// When the first of it was kept.
    since_ms: i64,
    /// Ascending; none overlaps another.
    views: Vec<View>,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Key, Arc<Kept>> for Bytes {
    fn weight(&self, key: &Key, kept: &Arc<Kept>) -> u64 {
        let views = kept.views.iter().map(|view| view.part.bytes).sum::<u64>();
        ENTRY_BYTES + key.text.len() as u64 + views
    }
}

/// One request: what there is, and what is missing.
#[derive(Debug)]
pub(crate) struct Session {
    key: Key,
    mark: u64,
    since_ms: i64,
    /// First and last step that may be kept.
    keep: (i64, i64),
    step: i64,
    /// Everything that is kept of this query and still true.
    kept: Vec<View>,
    /// The part of it that this request uses.
    used: Vec<View>,
    /// Steps to evaluate: first and last of each run.
    gaps: Vec<(i64, i64)>,
}

/// Who asks, for what.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) text: &'a str,
    /// Samples older than this are not shown to the tenant.
    pub(crate) floor: i64,
    /// Steps after this are not kept.
    pub(crate) settled: i64,
    /// The clock, milliseconds.
    pub(crate) now_ms: i64,
    /// What is kept for longer is void; 0: nothing is for its age.
    pub(crate) ttl_ms: i64,
}

impl Results {
    /// With room for so many bytes.
    pub(crate) fn new(bytes_max: u64) -> Results {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(1000)
            .weight_capacity(bytes_max)
            .shards(1)
            .build()
            .expect("both capacities are given");
        Results {
            cache: Cache::with_options(
                options,
                Bytes,
                quick_cache::DefaultHashBuilder::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
            bytes_max,
        }
    }

    /// Looks what is there for a range query. `None` where nothing of it can ever be kept.
    ///
    /// To be called before the first core is asked: from here on changes are noted for it.
    pub(crate) fn open(
        &self,
        request: &Request<'_>,
        plan: &Plan,
        changes: &Changes,
    ) -> Option<Session> {
        let (params, steps) = (plan.params(), plan.steps());
        if params.is_instant() || !plan.is_sum_of_parts() {
            return None;
        }
        let last = steps.time(steps.count - 1);
        // How far before a step samples matter to it.
        let oldest = plan.selectors().iter().map(|selector| selector.min_time);
        let reach = params.start.saturating_sub(oldest.min()?);
        let least = match request.floor {
            i64::MIN => i64::MIN,
            floor => floor.saturating_add(reach),
        };
        let keep = (
            on_grid_from(&steps, least)?,
            on_grid_until(&steps, request.settled)?,
        );
        if keep.0 > keep.1 {
            return None;
        }
        let changed = changes.of(request.tenant);
        let mark = changed.mark(changes, keep.1);
        let key = Key {
            watch: changed.watch(),
            tenant: request.tenant.clone(),
            text: Arc::from(request.text),
            step: params.step,
            phase: params.start.rem_euclid(params.step),
            lookback: params.lookback_ms,
            interval: params.default_subquery_step_ms,
        };
        let (since_ms, kept) = self.true_of(&key, &changed, request);
        let clip = |view: &View| view.clip(keep.0.max(steps.start), keep.1.min(last), params.step);
        let used: Vec<View> = kept.iter().filter_map(clip).collect();
        let gaps = gaps(&steps, &used);
        Some(Session {
            key,
            mark,
            since_ms,
            keep,
            step: params.step,
            kept,
            used,
            gaps,
        })
    }

    /// What is kept, without what has changed since.
    fn true_of(&self, key: &Key, changed: &Changed, request: &Request<'_>) -> (i64, Vec<View>) {
        let young = |kept: &Arc<Kept>| {
            request.ttl_ms == 0 || request.now_ms.saturating_sub(kept.since_ms) < request.ttl_ms
        };
        let Some(kept) = self.cache.get(key).filter(young) else {
            return (request.now_ms, Vec::new());
        };
        let until = changed.since(kept.mark).saturating_sub(1);
        let clip = |view: &View| view.clip(i64::MIN, until, key.step);
        let views = kept.views.iter().filter_map(clip).collect();
        (kept.since_ms, views)
    }

    /// Keeps what was evaluated for a request.
    pub(crate) fn keep(&self, session: Session, pieces: &[Piece]) {
        let mut views = session.kept;
        for piece in pieces.iter().filter(|piece| !piece.warned) {
            let Some(part) = Part::of(piece, session.keep) else {
                continue;
            };
            if part.bytes <= self.bytes_max / SHARE_OF_ONE {
                views.push(View::whole(part));
            }
        }
        views.sort_by_key(|view| view.first);
        part::settle(&mut views, session.step, self.bytes_max / SHARE_OF_ONE);
        if views.len() > VIEWS_MAX {
            views.drain(..views.len() - VIEWS_MAX);
        }
        let kept = Kept {
            mark: session.mark,
            since_ms: session.since_ms,
            views,
        };
        self.cache.insert(session.key, Arc::new(kept));
    }

    /// Bytes and entries.
    pub(crate) fn size(&self) -> (u64, usize) {
        (self.cache.weight(), self.cache.len())
    }
}

impl Session {
    /// Steps to evaluate, cut where a multiple of `interval` lies between two steps; 0 cuts nowhere.
    pub(crate) fn to_evaluate(&self, interval: i64) -> Vec<(i64, i64)> {
        let mut pieces = Vec::new();
        for &(first, last) in &self.gaps {
            pieces.extend(split(first, last, self.step, interval));
        }
        pieces
    }

    /// Steps that need not be evaluated.
    pub(crate) fn steps_known(&self) -> u64 {
        let steps = |view: &View| (view.last.abs_diff(view.first)) / self.step.unsigned_abs() + 1;
        self.used.iter().map(steps).sum()
    }

    /// Bytes of what is taken from the cache, at most.
    pub(crate) fn bytes(&self) -> u64 {
        self.used.iter().map(|view| view.part.bytes).sum()
    }

    /// What was to be said of what is taken from the cache.
    pub(crate) fn infos(&self) -> Vec<String> {
        let mut infos = Vec::new();
        for view in &self.used {
            add_new(&mut infos, view.infos().iter().cloned());
        }
        infos
    }

    /// The answer.
    pub(crate) fn answer(&self, pieces: &[Piece]) -> Vec<RangeSeries> {
        let mut all: Vec<(i64, i64, &[RangeSeries])> = Vec::new();
        all.extend(self.used.iter().map(View::slice));
        all.extend(pieces.iter().map(Piece::slice));
        all.sort_by_key(|(first, ..)| *first);
        join(&all)
    }
}

/// Runs of steps that no view covers.
fn gaps(steps: &Steps, used: &[View]) -> Vec<(i64, i64)> {
    let last = steps.time(steps.count - 1);
    let mut next = steps.start;
    let mut gaps = Vec::new();
    for view in used {
        if view.first > next {
            gaps.push((next, view.first.saturating_sub(steps.step)));
        }
        next = view.last.saturating_add(steps.step);
    }
    if next <= last {
        gaps.push((next, last));
    }
    gaps
}

/// Runs of steps between multiples of `interval`: each ends with the last step before one.
pub(crate) fn split(first: i64, last: i64, step: i64, interval: i64) -> Vec<(i64, i64)> {
    let mut runs = Vec::new();
    let mut from = first;
    while interval > 0 && from <= last {
        let border = (from.div_euclid(interval).saturating_add(1)).saturating_mul(interval);
        if border <= from {
            break; // The end of time.
        }
        let steps = border.saturating_sub(1).saturating_sub(from) / step;
        let until = from.saturating_add(steps * step);
        if until >= last {
            break;
        }
        runs.push((from, until));
        from = until.saturating_add(step);
    }
    if from <= last {
        runs.push((from, last));
    }
    runs
}

/// The first time on the grid of these steps, before their start too, that is not before `time`.
fn on_grid_from(steps: &Steps, time: i64) -> Option<i64> {
    if time == i64::MIN {
        return Some(i64::MIN);
    }
    let before = on_grid_until(steps, time.checked_sub(1)?)?;
    before.checked_add(steps.step)
}

/// The last time on the grid of these steps, behind their end too, that is not after `time`.
fn on_grid_until(steps: &Steps, time: i64) -> Option<i64> {
    let away = time.checked_sub(steps.start)?.div_euclid(steps.step);
    steps.start.checked_add(away.checked_mul(steps.step)?)
}

#[cfg(test)]
mod tests;
