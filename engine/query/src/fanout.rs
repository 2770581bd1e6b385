//! One read, asked of every core at once.
//!
//! Step 4 of the way of a query. A core answers on its own thread by a closure that hands over to a oneshot; here the answers are
//! awaited. The flag of the query is shared with the cores: when the caller goes away, they stop between slices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{CoreId, Matcher, Projection, TenantId};
use shard::{
    LabelQuery, Mailboxes, Message, ReadError, Refusal, Select, SelectedSeries, StatsQuery,
    TenantStats,
};
use tokio::sync::oneshot;

/// Which series, over which time (milliseconds, inclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) matchers: Arc<[Matcher]>,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    /// See [`shard::Select`].
    pub(crate) projection: Projection,
    /// See [`shard::Select`].
    pub(crate) newest: bool,
}

/// What a query may still fetch; 0 is unlimited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    pub(crate) series_max: u64,
    pub(crate) bytes_max: u64,
}

/// Set when the caller does not wait any more; shared with everybody who works for it.
#[derive(Debug, Default)]
pub(crate) struct Canceled(Arc<AtomicBool>);

impl Canceled {
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

impl Drop for Canceled {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Answers that are still to come, one per core.
pub(crate) struct Pending<T>(Vec<oneshot::Receiver<Result<T, ReadError>>>);

impl<T> Pending<T> {
    /// All answers, in the order of the cores, or the first error.
    ///
    /// A core that dropped its reply has ended with the process behind it: told as a stop.
    pub(crate) async fn all(self) -> Result<Vec<T>, ReadError> {
        let mut answers = Vec::with_capacity(self.0.len());
        for receiver in self.0 {
            answers.push(
                receiver
                    .await
                    .unwrap_or(Err(ReadError::Refused(Refusal::Stopping)))?,
            );
        }
        Ok(answers)
    }
}

fn ask<T: Send + 'static>(
    mailboxes: &Mailboxes,
    message: impl Fn(Box<dyn FnOnce(Result<T, ReadError>) + Send>) -> Message,
) -> Pending<T> {
    let ask_one = |core| {
        let (sender, receiver) = oneshot::channel();
        // A receiver that is gone means that nobody wants the answer.
        let reply = Box::new(move |answer| drop(sender.send(answer)));
        mailboxes.send(CoreId(core), message(reply));
        receiver
    };
    Pending((0..mailboxes.count()).map(ask_one).collect())
}

/// Series and, `with_chunks`, their chunks.
pub(crate) fn select(
    mailboxes: &Mailboxes,
    tenant: &TenantId,
    reach: &Reach,
    with_chunks: bool,
    allowance: Allowance,
    canceled: &Canceled,
) -> Pending<Vec<SelectedSeries>> {
    ask(mailboxes, |reply| {
        Message::Select(Select {
            tenant: tenant.clone(),
            matchers: reach.matchers.clone(),
            min_time: reach.min_time,
            max_time: reach.max_time,
            with_chunks,
            projection: reach.projection.clone(),
            newest: reach.newest,
            with_exemplars: false,
            series_max: allowance.series_max,
            bytes_max: allowance.bytes_max,
            canceled: canceled.flag(),
            reply,
        })
    })
}

/// Series that have exemplars in the range, with these.
pub(crate) fn exemplars(
    mailboxes: &Mailboxes,
    tenant: &TenantId,
    reach: &Reach,
    allowance: Allowance,
    canceled: &Canceled,
) -> Pending<Vec<SelectedSeries>> {
    ask(mailboxes, |reply| {
        Message::Select(Select {
            tenant: tenant.clone(),
            matchers: reach.matchers.clone(),
            min_time: reach.min_time,
            max_time: reach.max_time,
            with_chunks: false,
            with_exemplars: true,
            projection: reach.projection.clone(),
            newest: reach.newest,
            series_max: allowance.series_max,
            bytes_max: allowance.bytes_max,
            canceled: canceled.flag(),
            reply,
        })
    })
}

/// Names of labels (`name` is `None`), or values of one.
pub(crate) fn labels(
    mailboxes: &Mailboxes,
    tenant: &TenantId,
    name: Option<&str>,
    reach: &Reach,
    canceled: &Canceled,
) -> Pending<Vec<String>> {
    ask(mailboxes, |reply| {
        Message::Labels(LabelQuery {
            tenant: tenant.clone(),
            name: name.map(str::to_owned),
            matchers: reach.matchers.clone(),
            min_time: reach.min_time,
            max_time: reach.max_time,
            canceled: canceled.flag(),
            reply,
        })
    })
}

/// Counts of one tenant or of all.
pub(crate) fn stats(mailboxes: &Mailboxes, tenant: Option<&TenantId>) -> Pending<Vec<TenantStats>> {
    ask(mailboxes, |reply| {
        Message::Stats(StatsQuery {
            tenant: tenant.cloned(),
            reply: Box::new(move |stats| reply(Ok(stats))),
        })
    })
}
