//! Results that other processes have kept, and will find: the tier behind those of this process.
//!
//! What is kept of a query lies there in *spans* of so many steps each, so that a request gets and writes what it is about, and a value stays small. A span says when
//! it was kept, and at which marks of which histories, as what is kept here does. So whoever finds one, and whenever, whichever of several was written last, knows what
//! of it is still true; and one of a node that is no more, or of another cluster, is of no use to anybody.

use std::sync::Arc;
use std::time::Duration;

use cache::{Cache, Value};

use super::codec;
use super::part::View;
use super::{Asked, Kept, Results, Session, VIEWS_MAX};

/// Steps of a span.
const SPAN_STEPS: i128 = 512;

/// Spans that are got for one request; the API allows 11,000 steps.
const SPANS_MAX: usize = 24;

/// What decides the answer beside the key, and is the same in every process of this version: the language, and how a value is written. To be raised with
/// each change of what a query answers.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "/3");

/// See the module.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Where they are kept.
    pub cache: Arc<dyn Cache>,
    /// For how long at most, counted from when they were written; zero: as long as there is room.
    pub ttl: Duration,
}

/// A run of steps: number, first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    number: i128,
    first: i64,
    last: i64,
}

impl Asked {
    /// The spans that a run of steps touches, ascending.
    fn spans(&self, (first, last): (i64, i64)) -> impl Iterator<Item = Span> + use<> {
        let (step, phase) = (i128::from(self.step), i128::from(self.key.phase));
        let number = move |time: i64| (i128::from(time) - phase).div_euclid(step * SPAN_STEPS);
        let span = move |number: i128| {
            let first = phase + number * step * SPAN_STEPS;
            let last = first + step * (SPAN_STEPS - 1);
            // At the ends of time a span is cut.
            Some(Span {
                number,
                first: i64::try_from(first).ok()?,
                last: i64::try_from(last).ok()?,
            })
        };
        (number(first)..=number(last)).filter_map(span)
    }

    fn name(&self, span: Span) -> cache::Key {
        let key = &self.key;
        cache::Key::of(&[
            b"results",
            VERSION.as_bytes(),
            key.tenant.as_str().as_bytes(),
            key.text.as_bytes(),
            &key.step.to_le_bytes(),
            &key.phase.to_le_bytes(),
            &key.lookback.to_le_bytes(),
            &key.interval.to_le_bytes(),
            &span.number.to_le_bytes(),
        ])
    }
}

impl Session {
    /// The spans in which something may be that is missing here, the latest.
    pub(crate) fn spans(&self) -> Vec<(Span, cache::Key)> {
        let asked = &self.asked;
        let mut spans: Vec<Span> = Vec::new();
        for &(first, last) in self.gaps.iter().rev() {
            let (first, last) = (first.max(asked.keep.0), last.min(asked.keep.1));
            if first > last {
                continue;
            }
            // A request may have more steps than this is made for.
            let width = i128::from(asked.step) * SPAN_STEPS * SPANS_MAX as i128;
            let first = i128::from(first).max(i128::from(last) - width);
            let first = i64::try_from(first).unwrap_or(last);
            let mut of_gap: Vec<Span> = asked.spans((first, last)).collect();
            of_gap.reverse();
            spans.extend(of_gap);
            spans.dedup();
            spans.truncate(SPANS_MAX);
        }
        let named = spans.into_iter().map(|span| (span, asked.name(span)));
        named.collect()
    }
}

impl Results {
    /// Takes what was found under these spans, as far as it is still true and not known here.
    pub(crate) fn add(&self, session: &mut Session, spans: &[Span], found: &[Option<Value>]) {
        let asked = &session.asked;
        let mut since_ms = session.since_ms;
        let mut known = std::mem::take(&mut session.kept);
        for (span, value) in spans.iter().zip(found) {
            let stored = value
                .as_ref()
                .and_then(|value| codec::decode(value, asked.step));
            let Some(kept) = stored.filter(|kept| asked.is_young(kept.since_ms)) else {
                continue;
            };
            let views = asked.true_of(&kept.marks, &session.histories, &kept.views);
            let before = known.len();
            for view in &views {
                let view = view.clip(span.first, span.last, asked.step);
                let more = view.map(|view| without(&view, &known, asked.step));
                known.extend(more.into_iter().flatten());
                known.sort_by_key(|view| view.first);
            }
            if known.len() > before {
                since_ms = since_ms.min(kept.since_ms);
                session.is_fetched = true;
            }
        }
        if known.len() > VIEWS_MAX {
            let step = session.asked.step;
            super::part::settle(&mut known, step, self.bytes_max / super::SHARE_OF_ONE);
        }
        session.since_ms = since_ms;
        session.kept = known;
        session.look();
    }
}

/// What of a view no other has; those ascend.
fn without(view: &View, known: &[View], step: i64) -> Vec<View> {
    let mut rest = Vec::new();
    let mut from = view.first;
    for known in known {
        if known.last < from || known.first > view.last {
            continue;
        }
        if known.first > from {
            rest.extend(view.clip(from, known.first.saturating_sub(step), step));
        }
        let Some(next) = known.last.checked_add(step) else {
            return rest;
        };
        from = next;
    }
    if from <= view.last {
        rest.extend(view.clip(from, view.last, step));
    }
    rest
}

impl Shared {
    /// Writes the spans in which something new is, whole.
    pub(super) fn keep(&self, asked: &Asked, kept: &Kept, fresh: &[(i64, i64)]) {
        let mut spans: Vec<Span> = fresh.iter().flat_map(|run| asked.spans(*run)).collect();
        spans.dedup();
        let mut entries = Vec::new();
        for span in spans {
            let clip = |view: &View| view.clip(span.first, span.last, asked.step);
            let views: Vec<View> = kept.views.iter().filter_map(clip).collect();
            if views.is_empty() {
                continue;
            }
            let bytes = codec::encode(&kept.marks, kept.since_ms, &views, asked.step);
            entries.push((asked.name(span), Value::from(bytes)));
        }
        let own = Duration::from_millis(u64::try_from(asked.ttl_ms).unwrap_or(0));
        let ttl = match (own.is_zero(), self.ttl.is_zero()) {
            (true, _) => self.ttl,
            (_, true) => own,
            _ => own.min(self.ttl),
        };
        self.cache.set(entries, ttl);
    }
}
