//! One read, asked of every core at once.
//!
//! Step 4 of the way of a query. A core answers on its own thread by a closure that hands over to a oneshot; here the answers are
//! awaited. The flag of the query is shared with the cores: when the caller goes away, they stop between slices.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::Catalog;
use model::{CoreId, Matcher, Projection, TenantId, TenantLimits, TimeRange, Windows};
use shard::{
    Cardinality, CardinalityQuery, Changes, Estimate, EstimateQuery, Flush, History, Hold,
    LabelQuery, Mailboxes, Message, ReadError, Refusal, Select, SelectedSeries, StatsQuery,
    TenantStats,
};
use tokio::sync::oneshot;

use crate::engine::{Caller, Size, Turn};
use crate::error::Error;

/// Who holds the series: the cores of this node, or other nodes.
pub trait Holders: Send + Sync + fmt::Debug {
    /// How many there are; each is asked every question.
    fn count(&self) -> u16;

    /// Sends a read, whose reply is called once, whatever happens.
    fn send(&self, holder: u16, message: Message);

    /// The blocks of this node, which the holders do not look into themselves.
    fn blocks(&self) -> Option<&Arc<Catalog>>;

    /// What of the past changed where this process has the cores.
    fn changes(&self) -> Option<&Arc<Changes>>;

    /// Says that results of a tenant up to `until` will be kept, and tells what of the past changed at each of the holders. `None` where one cannot tell:
    /// then no results are used or kept.
    fn histories<'a>(&'a self, tenant: &'a TenantId, until: i64) -> Told<'a> {
        let changes = self.changes();
        let histories = changes.map(|changes| vec![changes.history(tenant, until)]);
        Box::pin(std::future::ready(histories))
    }
}

/// See [`Holders::histories`].
pub type Told<'a> = Pin<Box<dyn Future<Output = Option<Vec<History>>> + Send + 'a>>;

impl Holders for Mailboxes {
    fn count(&self) -> u16 {
        Mailboxes::count(self)
    }

    fn send(&self, holder: u16, message: Message) {
        Mailboxes::send(self, CoreId(holder), message);
    }

    fn blocks(&self) -> Option<&Arc<Catalog>> {
        Some(Mailboxes::blocks(self))
    }

    fn changes(&self) -> Option<&Arc<Changes>> {
        Some(Mailboxes::changes(self))
    }
}

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
    /// See [`promql::Selector`].
    pub(crate) windows: Option<Windows>,
}

impl Reach {
    pub(crate) fn times(&self) -> TimeRange {
        TimeRange {
            min: self.min_time,
            max: self.max_time,
            windows: self.windows,
        }
    }

    /// Asks for what another asks for too. False where that is another question.
    pub(crate) fn join(&mut self, other: &Reach) -> bool {
        let same = self.matchers == other.matchers
            && (self.min_time, self.max_time) == (other.min_time, other.max_time)
            && self.newest == other.newest
            && self.projection == other.projection;
        if same {
            self.windows = self.windows.filter(|w| other.windows == Some(*w));
        }
        same
    }

    /// Whether nothing can lie in it: an absurd offset, or all of it is older than may be looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.min_time > self.max_time
    }
}

/// What a query may fetch; 0 is unlimited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    pub(crate) series_max: u64,
    pub(crate) chunks_max: u64,
    pub(crate) bytes_max: u64,
    pub(crate) data_bytes_max: u64,
}

impl Allowance {
    /// As the tenant's limits say.
    pub(crate) fn of(limits: &TenantLimits) -> Allowance {
        Allowance {
            series_max: limits.max_fetched_series_per_query,
            chunks_max: limits.max_fetched_chunks_per_query,
            bytes_max: limits.max_fetched_chunk_bytes_per_query,
            data_bytes_max: limits.max_fetched_data_bytes_per_query,
        }
    }

    /// The cores enforce the bounds each for itself; here they are enforced over all cores and selectors.
    pub(crate) fn check(&self, size: Size) -> Result<(), ReadError> {
        let beyond = |limit: u64, found: u64| limit > 0 && found > limit;
        if beyond(self.series_max, size.series) {
            let (limit, found) = (self.series_max, size.series);
            return Err(ReadError::TooManySeries { limit, found });
        }
        if beyond(self.chunks_max, size.chunks) {
            let (limit, found) = (self.chunks_max, size.chunks);
            return Err(ReadError::TooManyChunks { limit, found });
        }
        if beyond(self.bytes_max, size.chunk_bytes) {
            let (limit, found) = (self.bytes_max, size.chunk_bytes);
            return Err(ReadError::TooManyBytes { limit, found });
        }
        if beyond(self.data_bytes_max, size.data_bytes) {
            let (limit, found) = (self.data_bytes_max, size.data_bytes);
            return Err(ReadError::TooMuchData { limit, found });
        }
        Ok(())
    }
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
    pub(crate) async fn all(self, turn: &Turn) -> Result<Vec<T>, Error> {
        let told = |error| match error {
            ReadError::NoMemory => turn.account.refusal(),
            error => error.into(),
        };
        self.collect().await.map_err(told)
    }

    async fn collect(self) -> Result<Vec<T>, ReadError> {
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

/// Takes memory from the account of the query, for a core.
fn hold(turn: &Turn) -> Hold {
    let account = turn.account.clone();
    Arc::new(move |bytes| account.take(bytes))
}

fn ask<T: Send + 'static>(
    holders: &dyn Holders,
    message: impl Fn(Box<dyn FnOnce(Result<T, ReadError>) + Send>) -> Message,
) -> Pending<T> {
    let ask_one = |holder| {
        let (sender, receiver) = oneshot::channel();
        // A receiver that is gone means that nobody wants the answer.
        let reply = Box::new(move |answer| drop(sender.send(answer)));
        holders.send(holder, message(reply));
        receiver
    };
    Pending((0..holders.count()).map(ask_one).collect())
}

/// What is wanted of series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Labels,
    /// Labels of all that memory knows.
    Known,
    Chunks,
    /// Of those that have exemplars in the range.
    Exemplars,
}

/// Series, and of these what is wanted.
pub(crate) fn select(
    holders: &dyn Holders,
    caller: &Caller,
    reach: &Reach,
    wanted: Wanted,
    allowance: Allowance,
    turn: &Turn,
) -> Pending<Vec<SelectedSeries>> {
    ask(holders, |reply| {
        Message::Select(Select {
            tenant: caller.tenant.clone(),
            matchers: reach.matchers.clone(),
            min_time: reach.min_time,
            max_time: reach.max_time,
            with_chunks: wanted == Wanted::Chunks,
            with_exemplars: wanted == Wanted::Exemplars,
            with_moved: wanted == Wanted::Known,
            with_starts: false,
            projection: reach.projection.clone(),
            newest: reach.newest,
            windows: reach.windows,
            series_max: allowance.series_max,
            chunks_max: allowance.chunks_max,
            bytes_max: allowance.bytes_max,
            data_bytes_max: allowance.data_bytes_max,
            hold: hold(turn),
            canceled: turn.canceled.flag(),
            reply,
        })
    })
}

/// Names of labels (`name` is `None`), or values of one; in no order.
pub(crate) fn labels(
    holders: &dyn Holders,
    caller: &Caller,
    name: Option<&str>,
    reach: &Reach,
    turn: &Turn,
) -> Pending<Vec<String>> {
    ask(holders, |reply| {
        Message::Labels(LabelQuery {
            tenant: caller.tenant.clone(),
            name: name.map(str::to_owned),
            matchers: reach.matchers.clone(),
            min_time: reach.min_time,
            max_time: reach.max_time,
            hold: hold(turn),
            canceled: turn.canceled.flag(),
            reply,
        })
    })
}

/// What labels there are: those of `names`, or all.
pub(crate) fn cardinality(
    holders: &dyn Holders,
    caller: &Caller,
    names: &[String],
    turn: &Turn,
) -> Pending<Cardinality> {
    ask(holders, |reply| {
        Message::Cardinality(CardinalityQuery {
            tenant: caller.tenant.clone(),
            names: names.to_vec(),
            hold: hold(turn),
            canceled: turn.canceled.flag(),
            reply,
        })
    })
}

/// How many series a selector would read.
pub(crate) fn estimate(
    holders: &dyn Holders,
    caller: &Caller,
    matchers: &Arc<[Matcher]>,
) -> Pending<Estimate> {
    ask(holders, |reply| {
        Message::Estimate(EstimateQuery {
            tenant: caller.tenant.clone(),
            matchers: matchers.clone(),
            reply,
        })
    })
}

/// Has every core copy what it holds of some tenants, or of all where none is named, into blocks; the messages are sent by the call, not by the future.
pub(crate) fn flush(
    holders: &dyn Holders,
    tenants: &[TenantId],
) -> impl Future<Output = Result<(), String>> + Send + use<> {
    let ask_one = |holder| {
        let (sender, receiver) = oneshot::channel();
        // A receiver that is gone means that nobody wants the answer.
        let reply = Box::new(move |result| drop(sender.send(result)));
        let tenants = tenants.to_vec();
        holders.send(holder, Message::Flush(Flush { tenants, reply }));
        receiver
    };
    let pending: Vec<_> = (0..holders.count()).map(ask_one).collect();
    async move {
        for receiver in pending {
            let ended = |_| Err("a core has ended".to_owned());
            receiver.await.unwrap_or_else(ended)?;
        }
        Ok(())
    }
}

/// Counts of one tenant or of all.
pub(crate) async fn stats(
    holders: &dyn Holders,
    tenant: Option<&TenantId>,
) -> Result<Vec<Vec<TenantStats>>, ReadError> {
    let pending = ask(holders, |reply| {
        Message::Stats(StatsQuery {
            tenant: tenant.cloned(),
            reply,
        })
    });
    pending.collect().await
}
