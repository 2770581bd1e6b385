//! From the replies of the cores to aliases, counters and the first error.

use model::{TenantId, TenantLimits};
use shard::{PushOutcome, RejectReason, Rejection};

use super::assemble::Origins;
use super::refused::Cause;
use super::texts;
use crate::alias::{AliasTable, Refuser, Target};
use crate::ha::sources::UNNUMBERED;
use model::CoreId;

/// What the replies to one round of messages amount to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Floats.
    pub(crate) stored: u64,
    /// Samples of either kind that were there already.
    pub(crate) repeated: u64,
    pub(crate) histograms: u64,
    /// Of `repeated`.
    pub(crate) histograms_repeated: u64,
    pub(crate) exemplars: u64,
    /// Exemplars dropped by cores, by reason.
    pub(crate) exemplars_dropped: Vec<(&'static str, u64)>,
    /// Samples refused by cores, by reason.
    pub(crate) rejected: Vec<(RejectReason, u64)>,
    /// The first error in the order of the body: offset of its record, and its words.
    pub(crate) error: Option<(u32, String)>,
    /// Records whose keys were dead, ascending, each once: nothing of them was stored.
    pub(crate) dead: Vec<u32>,
    /// Samples of dead keys.
    pub(crate) dead_samples: u64,
    /// Whether a limit refused a series.
    pub(crate) refused_series: bool,
    /// Whether a series that was sent with its labels was taken.
    pub(crate) taken_series: bool,
    /// Samples of series that a core had no memory for.
    pub(crate) no_memory: u64,
    /// Offsets of the records of which samples were refused, where that is asked for: as far as cores tell, see [`note`].
    pub(crate) refused_at: Option<Vec<u32>>,
}

impl Verdict {
    /// Adds the reply of a core, and learns the keys it told, and which series it refused, where there is memory for that.
    ///
    /// Panics: a reply that does not fit what was sent.
    pub(crate) fn add(
        &mut self,
        (tenant, limits): (&TenantId, &TenantLimits),
        core: CoreId,
        origins: &Origins,
        outcome: &PushOutcome,
        mut aliases: Option<&mut AliasTable>,
        refuser: Refuser,
    ) {
        assert!(outcome.refused.is_none(), "a refused push has no verdict");
        assert_eq!(
            outcome.keys.len(),
            origins.fresh.len(),
            "a key, or none, for each fresh series"
        );
        for (key, &(_, hash, source)) in outcome.keys.iter().zip(&origins.fresh) {
            if let Some(key) = *key {
                if let Some(aliases) = &mut aliases
                    && source != UNNUMBERED
                {
                    aliases.learn(hash, Target { core, key, source });
                }
                self.taken_series = true;
            }
        }
        for &(index, reason) in &outcome.refused_series {
            if let Some(cause) = Cause::of_core(reason) {
                let (_, hash, source) = origins.fresh[index as usize];
                if let Some(aliases) = &mut aliases
                    && source != UNNUMBERED
                {
                    aliases.learn_refused(hash, cause.number(), refuser, source);
                }
                self.refused_series = true;
            }
        }
        self.stored += u64::from(outcome.stored);
        self.repeated += u64::from(outcome.repeated);
        self.histograms += u64::from(outcome.histograms);
        self.histograms_repeated += u64::from(outcome.histograms_repeated);
        self.exemplars += u64::from(outcome.exemplars);
        let dropped = outcome.exemplars_dropped.iter();
        self.exemplars_dropped
            .extend(dropped.map(|&(reason, count)| (reason, u64::from(count))));
        for rejection in &outcome.rejected {
            if rejection.reason == RejectReason::NoMemory {
                self.no_memory += u64::from(rejection.count);
                continue;
            }
            self.rejected
                .push((rejection.reason, u64::from(rejection.count)));
            let at = origins.offset(rejection.first_index as usize);
            if self.error.as_ref().is_none_or(|(first, _)| at < *first) {
                self.error = Some((at, text(tenant, limits, rejection)));
            }
            if let Some(records) = &mut self.refused_at {
                note(records, origins, outcome, rejection);
            }
        }
        self.dead_samples += (outcome.dead.len() + outcome.dead_others.len()) as u64;
        for &index in &outcome.dead {
            self.dead.push(origins.known[index as usize]);
        }
        for &index in &outcome.dead_others {
            self.dead.push(origins.others[index as usize]);
        }
    }

    /// The dead records in body order, each once.
    pub(crate) fn take_dead(&mut self) -> Vec<u32> {
        self.dead.sort_unstable();
        self.dead.dedup();
        std::mem::take(&mut self.dead)
    }
}

impl Origins {
    /// The record that an index of a rejection means: first the known samples are counted, then the fresh series, then the
    /// histograms and exemplars of known series.
    fn offset(&self, index: usize) -> u32 {
        let fresh = |index: usize| self.fresh.get(index).map(|(at, ..)| *at);
        let found = match index.checked_sub(self.known.len()) {
            None => self.known.get(index).copied(),
            Some(index) => match index.checked_sub(self.fresh.len()) {
                None => fresh(index),
                Some(index) => self.others.get(index).copied(),
            },
        };
        found.unwrap_or(u32::MAX)
    }
}

/// Notes the records that a rejection means. Series that are refused as such are told one by one. Of samples that are refused for their times
/// a core tells the first and how many, since more would cost it something for each that it takes: the others are taken for those that follow,
/// of series that came with their labels among these, of known ones among those.
#[cold]
fn note(records: &mut Vec<u32>, origins: &Origins, outcome: &PushOutcome, rejection: &Rejection) {
    let first = rejection.first_index as usize;
    let known = origins.known.len();
    let fresh = known..known + origins.fresh.len();
    let mut left = rejection.count as usize;
    if fresh.contains(&first) {
        let series = outcome.refused_series.iter();
        let series = series.filter(|(_, reason)| *reason == rejection.reason);
        let before = records.len();
        records.extend(series.map(|(index, _)| origins.fresh[*index as usize].0));
        left = left.saturating_sub(records.len() - before);
        if Cause::of_core(rejection.reason).is_none() {
            let following = origins.fresh[first - known..].iter().map(|(at, ..)| *at);
            records.extend(following.take(left));
        }
        return;
    }
    let mut others = origins.others.clone();
    others.dedup();
    // Of what is no float a record may have several entries.
    let skipped = match first.checked_sub(fresh.end) {
        Some(_) => {
            let at = origins.offset(first);
            let place = others.iter().position(|other| *other == at);
            known + place.unwrap_or(others.len())
        }
        None => first,
    };
    let all = origins.known.iter().copied().chain(others);
    records.extend(all.skip(skipped).take(left));
}

/// The words of a core's refusal, as Cortex' ingesters say them.
fn text(tenant: &TenantId, limits: &TenantLimits, rejection: &Rejection) -> String {
    let (labels, time, _) = &rejection.first;
    let series = texts::label_set(labels.iter());
    let cause = match rejection.reason {
        RejectReason::OutOfOrder => "out of order sample",
        RejectReason::TooOld => "too old sample",
        RejectReason::OutOfBounds => "out of bounds",
        RejectReason::NewValueForTimestamp => {
            "duplicate sample for timestamp (new value for existing timestamp)"
        }
        RejectReason::LabelsTooLarge => "labels too large for a record of the log",
        RejectReason::NoMemory => "no memory for a new series, or for late samples of one",
        RejectReason::HistogramTooLarge => "native histogram too large for a record of the log",
        RejectReason::PerUserSeriesLimit | RejectReason::PerMetricSeriesLimit => {
            return over_limit(tenant, rejection.reason, limits, &series);
        }
    };
    format!(
        "user={tenant}: err: {cause}. timestamp={}, series={series}",
        texts::rfc3339(*time)
    )
}

/// The words for a series beyond a limit of the tenant or of its metric.
pub(crate) fn over_limit(
    tenant: &TenantId,
    reason: RejectReason,
    limits: &TenantLimits,
    series: &str,
) -> String {
    let (what, of, [limit, local, global]) = match reason {
        RejectReason::PerUserSeriesLimit => {
            let (local, global) = (
                limits.max_series_per_user,
                limits.max_global_series_per_user,
            );
            let limit = limits.series_per_user();
            ("per-user", String::new(), [limit, local, global])
        }
        _ => {
            let of = format!(" for series {series}");
            let (local, global) = (
                limits.max_series_per_metric,
                limits.max_global_series_per_metric,
            );
            let limit = limits.series_per_metric();
            ("per-metric", of, [limit, local, global])
        }
    };
    format!(
        "user={tenant}: {what} series limit of {limit} exceeded, please contact administrator to raise it \
         (local limit: {local} global limit: {global} actual local limit: {limit}){of}"
    )
}

#[cfg(test)]
mod tests {
    use model::{Labels, SeriesKey};

    use super::*;
    use crate::alias::AliasHash;

    fn rejection(reason: RejectReason, first_index: u32) -> Rejection {
        let up = Labels::from_pairs([("__name__", "up"), ("job", "a")]).unwrap();
        Rejection {
            reason,
            count: 2,
            first: (up, 1_500, 1.0),
            limit: 7,
            first_index,
        }
    }

    #[test]
    fn the_words_are_those_of_cortex() {
        let limits = TenantLimits {
            max_series_per_user: 8,
            max_global_series_per_user: 7,
            max_series_per_metric: 7,
            ..TenantLimits::cortex()
        };
        let of = |reason| text(&TenantId::fake(), &limits, &rejection(reason, 0));
        assert_eq!(
            of(RejectReason::OutOfOrder),
            "user=fake: err: out of order sample. timestamp=1970-01-01T00:00:01.5Z, \
             series={__name__=\"up\", job=\"a\"}"
        );
        assert_eq!(
            of(RejectReason::PerUserSeriesLimit),
            "user=fake: per-user series limit of 7 exceeded, please contact administrator to raise it \
             (local limit: 8 global limit: 7 actual local limit: 7)"
        );
        assert!(of(RejectReason::PerMetricSeriesLimit).contains("per-metric series limit of 7"));
        assert!(of(RejectReason::TooOld).contains("err: too old sample. timestamp="));
        assert!(
            of(RejectReason::NewValueForTimestamp).contains("new value for existing timestamp")
        );
    }

    #[test]
    fn the_first_error_is_the_first_in_the_body_not_the_first_reply() {
        let mut aliases = AliasTable::new(10);
        let mut verdict = Verdict::default();
        let (tenant, limits) = (TenantId::fake(), TenantLimits::cortex());
        let late = Origins {
            known: vec![50, 90],
            ..Origins::default()
        };
        let outcome = |rejected| PushOutcome {
            rejected,
            ..PushOutcome::default()
        };
        let far = outcome(vec![rejection(RejectReason::OutOfOrder, 1)]);
        verdict.add(
            (&tenant, &limits),
            CoreId(0),
            &late,
            &far,
            Some(&mut aliases),
            Refuser::default(),
        );
        let early = Origins {
            known: vec![60],
            fresh: vec![(10, AliasHash(1), 0), (70, AliasHash(2), 0)],
            others: vec![80],
            starts: Vec::new(),
        };
        let near = PushOutcome {
            keys: vec![None, Some(SeriesKey::default())],
            dead: vec![0],
            dead_others: vec![0],
            ..outcome(vec![rejection(RejectReason::PerUserSeriesLimit, 1)])
        };
        verdict.add(
            (&tenant, &limits),
            CoreId(1),
            &early,
            &near,
            Some(&mut aliases),
            Refuser::default(),
        );
        let (at, text) = verdict.error.clone().unwrap();
        assert_eq!(at, 10);
        assert!(text.contains("series limit"));
        assert_eq!(verdict.take_dead(), [60, 80]);
        assert_eq!(aliases.count(), 1);
    }

    #[test]
    fn records_that_are_refused_for_their_times_follow_the_first() {
        let origins = Origins {
            known: vec![10, 20, 30],
            fresh: vec![(5, AliasHash(1), 0), (40, AliasHash(2), 0)],
            others: vec![50, 50, 60],
            starts: Vec::new(),
        };
        let noted = |reason, count, first_index, refused_series: &[(u32, RejectReason)]| {
            let rejection = Rejection {
                count,
                ..rejection(reason, first_index)
            };
            let outcome = PushOutcome {
                refused_series: refused_series.to_vec(),
                ..PushOutcome::default()
            };
            let mut records = Vec::new();
            note(&mut records, &origins, &outcome, &rejection);
            records
        };
        let late = RejectReason::OutOfOrder;
        assert_eq!(noted(late, 2, 1, &[]), [20, 30]);
        assert_eq!(noted(late, 7, 0, &[]), [10, 20, 30, 50, 60]);
        assert_eq!(noted(late, 1, 7, &[]), [60]);
        // Of series with labels the core tells apart.
        assert_eq!(noted(late, 7, 3, &[]), [5, 40]);
        assert_eq!(noted(late, 1, 4, &[]), [40]);
        let limit = RejectReason::PerUserSeriesLimit;
        assert_eq!(noted(limit, 3, 4, &[(1, limit), (0, late)]), [40]);
        // A series can be refused for its first time, and a known one for a later one: each is noted once.
        let bounds = RejectReason::OutOfBounds;
        assert_eq!(noted(bounds, 1, 1, &[(0, bounds)]), [20]);
        assert_eq!(noted(bounds, 2, 3, &[(0, bounds)]), [5, 5]);
    }
}
