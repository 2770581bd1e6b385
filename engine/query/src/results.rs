//! Results of range queries, kept so that a dashboard that is loaded again costs what is new.
//!
//! A range query whose steps do not depend on each other ([`promql::Plan::is_sum_of_parts`]) is put together from *parts*: what is kept of earlier
//! requests for the same text, step and phase, and what had to be evaluated. Nobody can tell from an answer where it came from:
//!
//! - A sample that came late or out of order makes everything kept from its time on void, and so does a deletion ([`shard::Changes`]); what is newer than the
//!   tenant's `max_cache_freshness` is never kept, so that ordinary writes void nothing. What retention takes voids nothing: it may be
//!   answered for as long as it is kept.
//! - What is kept says of which histories it is, those of all who hold series, and at which marks. Where one of them is another now (its process is
//!   another, or there is one more or less), it is void.
//! - What could see further back than the tenant may (`max_query_lookback`) is neither kept nor used.
//! - Parts with warnings are not kept, errors neither. What there is to inform of is kept with a part as a whole: in this alone an answer
//!   may differ, where it uses only those of the part's steps that were no reason for it.
//!
//! Bounded by bytes; what is used least goes first. Behind it there may be a cache that other processes share (`shared.rs`), to which the same applies, since it is
//! asked with the histories of now.

mod codec;
mod part;
mod shared;

use std::sync::Arc;

use model::{RangeSeries, TenantId};
use promql::{AnnotationKind, Plan, Steps};
use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};
use shard::History;

use part::{Part, View};
pub(crate) use part::{Piece, join};
pub use shared::Shared;

/// A part above this share of the cache would push out too much else.
const SHARE_OF_ONE: u64 = 8;

/// Views of one query at most; the oldest is let go.
const VIEWS_MAX: usize = 32;

/// Bytes of an entry beside its parts.
const ENTRY_BYTES: u64 = 256;

/// Bytes of the mark of one holder.
const MARK_BYTES: u64 = 24;

/// The results of all tenants.
#[derive(Debug)]
pub(crate) struct Results {
    cache: Cache<Key, Arc<Kept>, Bytes>,
    bytes_max: u64,
}

/// What queries must share to share results.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
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
    /// Changes up to these have been taken into account.
    marks: Marks,
    /// When the first of it was kept.
    since_ms: i64,
    /// Ascending; none overlaps another.
    views: Vec<View>,
}

/// Of each holder's history its number and the mark, ascending.
type Marks = Vec<((u64, u64), u64)>;

/// From which time on what was read at these marks may be different by now; `None`: of other histories, so all of it.
fn changed_since(marks: &Marks, now: &[History]) -> Option<i64> {
    let same = marks.len() == now.len();
    let pairs = marks.iter().zip(now);
    let mut times = pairs.map(|((id, mark), history)| {
        let is_same = *id == history.id;
        is_same.then(|| history.since(*mark))
    });
    let nothing = same.then_some(i64::MAX)?;
    times.try_fold(nothing, |least, time| Some(least.min(time?)))
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Key, Arc<Kept>> for Bytes {
    fn weight(&self, key: &Key, kept: &Arc<Kept>) -> u64 {
        let views = kept.views.iter().map(|view| view.part.bytes).sum::<u64>();
        ENTRY_BYTES + key.text.len() as u64 + MARK_BYTES * kept.marks.len() as u64 + views
    }
}

/// One request: what there is, and what is missing.
#[derive(Debug)]
pub(crate) struct Session {
    asked: Asked,
    /// Of all holders now, ascending by number.
    histories: Vec<History>,
    since_ms: i64,
    /// Everything that is kept of this query and still true.
    kept: Vec<View>,
    /// The part of it that this request uses.
    used: Vec<View>,
    /// Steps to evaluate: first and last of each run.
    gaps: Vec<(i64, i64)>,
    /// Some of it was found elsewhere.
    is_fetched: bool,
}

/// A request of which something may be kept.
#[derive(Debug)]
pub(crate) struct Asked {
    key: Key,
    /// First and last step that may be kept.
    keep: (i64, i64),
    start: i64,
    last: i64,
    step: i64,
    now_ms: i64,
    ttl_ms: i64,
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

    /// Looks what is there for a range query.
    ///
    /// The histories are those from before the first core is asked: from there on changes are noted for it.
    pub(crate) fn open(&self, asked: Asked, mut histories: Vec<History>) -> Session {
        histories.sort_by_key(|history| history.id);
        let kept = self.cache.get(&asked.key);
        let kept = kept.filter(|kept| asked.is_young(kept.since_ms));
        let (since_ms, kept) = match kept {
            Some(kept) => (
                kept.since_ms,
                asked.true_of(&kept.marks, &histories, &kept.views),
            ),
            None => (asked.now_ms, Vec::new()),
        };
        let mut session = Session {
            asked,
            histories,
            since_ms,
            kept,
            used: Vec::new(),
            gaps: Vec::new(),
            is_fetched: false,
        };
        session.look();
        session
    }

    /// Keeps what was evaluated for a request.
    pub(crate) fn keep(&self, session: Session, pieces: &[Piece], shared: Option<&Shared>) {
        let Session {
            asked, histories, ..
        } = session;
        let mut views = session.kept;
        let mut fresh = Vec::new();
        for piece in pieces.iter().filter(|piece| !piece.warned) {
            let Some(part) = Part::of(piece, asked.keep) else {
                continue;
            };
            if part.bytes <= self.bytes_max / SHARE_OF_ONE {
                let view = View::whole(part);
                fresh.push((view.first, view.last));
                views.push(view);
            }
        }
        views.sort_by_key(|view| view.first);
        part::settle(&mut views, asked.step, self.bytes_max / SHARE_OF_ONE);
        if views.len() > VIEWS_MAX {
            views.drain(..views.len() - VIEWS_MAX);
        }
        let kept = Kept {
            marks: histories.iter().map(|h| (h.id, h.mark)).collect(),
            since_ms: session.since_ms,
            views,
        };
        if let Some(shared) = shared {
            shared.keep(&asked, &kept, &fresh);
        }
        self.cache.insert(asked.key, Arc::new(kept));
    }

    /// Bytes and entries.
    pub(crate) fn size(&self) -> (u64, usize) {
        (self.cache.weight(), self.cache.len())
    }
}

impl Asked {
    /// What of a request may be kept, at which steps; `None`: nothing.
    pub(crate) fn of(request: &Request<'_>, plan: &Plan) -> Option<Asked> {
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
        let key = Key {
            tenant: request.tenant.clone(),
            text: Arc::from(request.text),
            step: params.step,
            phase: params.start.rem_euclid(params.step),
            lookback: params.lookback_ms,
            interval: params.default_subquery_step_ms,
        };
        (keep.0 <= keep.1).then_some(Asked {
            key,
            keep,
            start: steps.start,
            last,
            step: params.step,
            now_ms: request.now_ms,
            ttl_ms: request.ttl_ms,
        })
    }

    /// Steps after this are not kept.
    pub(crate) fn until(&self) -> i64 {
        self.keep.1
    }

    fn is_young(&self, since_ms: i64) -> bool {
        self.ttl_ms == 0 || self.now_ms.saturating_sub(since_ms) < self.ttl_ms
    }

    /// What was kept at these marks, without what has changed since.
    fn true_of(&self, marks: &Marks, now: &[History], views: &[View]) -> Vec<View> {
        let Some(changed) = changed_since(marks, now) else {
            return Vec::new();
        };
        let until = changed.saturating_sub(1);
        let clip = |view: &View| view.clip(i64::MIN, until, self.step);
        views.iter().filter_map(clip).collect()
    }
}

impl Session {
    /// Finds out what of what is kept is of use, and what is missing.
    fn look(&mut self) {
        let asked = &self.asked;
        let (from, until) = (asked.keep.0.max(asked.start), asked.keep.1.min(asked.last));
        let clip = |view: &View| view.clip(from, until, asked.step);
        self.used = self.kept.iter().filter_map(clip).collect();
        self.gaps = gaps((asked.start, asked.last, asked.step), &self.used);
    }

    /// Whether there is anything new to keep when so many pieces have been evaluated.
    pub(crate) fn is_worth_keeping(&self, pieces: &[Piece]) -> bool {
        self.is_fetched || !pieces.is_empty()
    }

    /// Steps to evaluate, cut where a multiple of `interval` lies between two steps; 0 cuts nowhere.
    pub(crate) fn to_evaluate(&self, interval: i64) -> Vec<(i64, i64)> {
        let mut pieces = Vec::new();
        for &(first, last) in &self.gaps {
            pieces.extend(split(first, last, self.asked.step, interval));
        }
        pieces
    }

    /// Steps that need not be evaluated.
    pub(crate) fn steps_known(&self) -> u64 {
        let steps =
            |view: &View| view.last.abs_diff(view.first) / self.asked.step.unsigned_abs() + 1;
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
            AnnotationKind::Info.join(&mut infos, view.infos().iter().cloned());
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
fn gaps((start, last, step): (i64, i64, i64), used: &[View]) -> Vec<(i64, i64)> {
    let mut next = start;
    let mut gaps = Vec::new();
    for view in used {
        if view.first > next {
            gaps.push((next, view.first.saturating_sub(step)));
        }
        next = view.last.saturating_add(step);
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
