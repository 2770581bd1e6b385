//! Series that were refused a moment ago: why, and when that may have changed.
//!
//! An over-limit tenant repeats its surplus series every scrape. The first time a series is refused its alias remembers why
//! ([`crate::alias`]); from then on it costs a lookup, and only the first one of a body is parsed, for the words of the answer. What
//! can end a refusal: other limits of the tenant (its secret changes, so no alias is found), a deletion of the tenant that this process is asked for, time (one to five minutes, spread), and
//! [`Refusals`]: when one of the tenant's series is taken that was tried again, all others of the tenant are tried again too, at most once
//! a minute. So a limit that frees up is noticed within five minutes, and sooner the more series wait for it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use shard::RejectReason;

use super::validate::Reason;
use crate::alias::Refuser;

/// Why a series, not a single sample of it, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its labels break a rule.
    Labels(Reason),
    /// The tenant has too many series.
    PerUser,
    /// The metric has too many series.
    PerMetric,
}

const PER_USER: u8 = 0;
const PER_METRIC: u8 = 1;
const LABELS: u8 = 2;

impl Cause {
    /// The cause of a core, if it is one that lasts.
    pub(crate) fn of_core(reason: RejectReason) -> Option<Cause> {
        match reason {
            RejectReason::PerUserSeriesLimit => Some(Cause::PerUser),
            RejectReason::PerMetricSeriesLimit => Some(Cause::PerMetric),
            _ => None,
        }
    }

    /// As an alias keeps it.
    pub(crate) fn number(self) -> u8 {
        match self {
            Cause::PerUser => PER_USER,
            Cause::PerMetric => PER_METRIC,
            Cause::Labels(reason) => LABELS + reason as u8,
        }
    }

    /// The inverse of [`Cause::number`].
    pub(crate) fn from_number(number: u8) -> Option<Cause> {
        match number {
            PER_USER => Some(Cause::PerUser),
            PER_METRIC => Some(Cause::PerMetric),
            labels => Some(Cause::Labels(
                *Reason::ALL.get(usize::from(labels - LABELS))?,
            )),
        }
    }
}

/// A tenant's epoch of refusals; shared by the gateway threads.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// See [`Refuser::share`].
    share: u8,
    epoch: AtomicU32,
    /// Whether a series was refused by a limit in this epoch.
    any: AtomicBool,
    /// Minute in which the epoch began.
    since: AtomicU64,
}

impl Refusals {
    /// Those of a tenant with that share of the room in the tables of aliases.
    pub(crate) fn new(share: u8) -> Refusals {
        Refusals {
            share,
            ..Refusals::default()
        }
    }

    /// As the tables of aliases know the tenant now.
    pub(crate) fn refuser(&self) -> Refuser {
        Refuser {
            epoch: self.epoch.load(Ordering::Relaxed),
            share: self.share,
        }
    }

    /// A limit has changed, or series were deleted: all refused series are tried again.
    pub(crate) fn forget(&self) {
        self.any.store(false, Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes whether a push had series that a limit refused, and new ones that were taken.
    pub(crate) fn note(&self, refused: bool, taken: bool, minute: u64) {
        if refused {
            self.any.store(true, Ordering::Relaxed);
        } else if taken
            && self.any.load(Ordering::Relaxed)
            && self.since.load(Ordering::Relaxed) < minute
        {
            self.since.store(minute, Ordering::Relaxed);
            self.any.store(false, Ordering::Relaxed);
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_survive_as_numbers() {
        let all = Reason::ALL.map(Cause::Labels);
        for cause in all.into_iter().chain([Cause::PerUser, Cause::PerMetric]) {
            assert_eq!(Cause::from_number(cause.number()), Some(cause));
        }
        assert_eq!(Cause::from_number(200), None);
    }

    #[test]
    fn an_epoch_ends_when_something_is_taken_again_and_at_most_once_a_minute() {
        let refusals = Refusals::default();
        let after = |refused, taken, minute| {
            refusals.note(refused, taken, minute);
            refusals.refuser().epoch
        };
        assert_eq!(after(false, true, 1), 0, "nothing was refused");
        assert_eq!(after(true, true, 2), 0, "both in one push");
        assert_eq!(after(false, true, 2), 1);
        assert_eq!(after(true, false, 2), 1);
        assert_eq!(after(false, true, 2), 1, "twice within a minute");
        assert_eq!(after(false, true, 3), 2);
        assert_eq!(after(false, true, 4), 2, "nothing was refused since");
    }
}
