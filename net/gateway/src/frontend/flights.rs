//! Identical queries in flight are evaluated once: same tenant, text, times and parameters.
//!
//! A request may join an evaluation that has not begun to read. One that has begun may miss what was written since, and whoever asks after a write was
//! acknowledged must see it; so those who come while it reads make the next evaluation, which begins when that one has ended and is again one for all of
//! them. A query that a hundred clients repeat thus costs one evaluation at a time, as a group commit costs one write.
//!
//! The evaluation is a task of its own. Clients hold nothing but a receiver: those who leave change nothing for the others, also where it was the first who
//! leaves, and when the last has left the evaluation is given up. A task ends with the thread that runs it, at a stop: its clients are told so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{QueryValue, TenantId};
use prometheus::{IntCounter, Registry};
use query::{Account, Caller, Engine, Query, Times};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;
use wire::json::{Answer, Notes};

/// What queries must have in common to be one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    tenant: TenantId,
    text: Arc<str>,
    times: (i64, Option<(i64, i64)>),
    timeout: Option<Duration>,
    lookback: Option<Duration>,
    per_step: bool,
    uncached: bool,
    shape: Shape,
}

/// How an answer is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Shape {
    /// Series at most; 0: all.
    pub(crate) limit: usize,
    /// With statistics.
    pub(crate) stats: bool,
}

/// An answer that several may send.
#[derive(Debug)]
pub(crate) struct Landed {
    pub(crate) value: Arc<QueryValue>,
    pub(crate) stats: Option<String>,
    pub(crate) notes: Notes,
    /// Waiting, parsing, fetching, evaluating.
    pub(crate) durations: [Duration; 4],
    pub(crate) samples: u64,
    pub(crate) account: Arc<Account>,
}

/// How an evaluation ended, for all who wait for it.
pub(crate) type Outcome = Arc<Result<Landed, query::Error>>;

type Sender = watch::Sender<Option<Outcome>>;

/// All evaluations in flight. The lock is held for a few steps; there are no more entries than requests.
#[derive(Debug, Clone)]
pub(crate) struct Flights {
    lanes: Arc<Mutex<HashMap<Key, Lane>>>,
    shared: IntCounter,
}

/// The evaluations of one query: at most one that reads and one that may be joined.
#[derive(Debug, Default)]
struct Lane {
    reading: Option<Flight>,
    open: Option<Flight>,
}

#[derive(Debug, Clone)]
struct Flight {
    outcome: Sender,
    /// Closed when it has ended.
    ended: watch::Receiver<()>,
}

impl Key {
    pub(crate) fn new(caller: &Caller, query: &Query, shape: Shape) -> Key {
        Key {
            tenant: caller.tenant.clone(),
            text: Arc::from(query.text.as_str()),
            times: match query.times {
                Times::Instant(time) => (time, None),
                Times::Range { start, end, step } => (start, Some((end, step))),
            },
            timeout: query.timeout,
            lookback: query.lookback,
            per_step: query.per_step,
            uncached: query.uncached,
            shape,
        }
    }
}

impl Flights {
    pub(crate) fn new(registry: &Registry) -> Flights {
        let shared = IntCounter::new(
            "myelin_query_frontend_shared_total",
            "Queries that were answered with the evaluation of an identical one in flight.",
        );
        let shared = shared.expect("a valid metric");
        registry
            .register(Box::new(shared.clone()))
            .expect("each metric is registered once");
        Flights {
            lanes: Arc::default(),
            shared,
        }
    }

    /// Evaluates a query, or waits for an identical one that is about to be. `None`: the node stops.
    ///
    /// To be called within a `LocalSet`: what is begun goes on when the caller has gone, while others wait for it.
    pub(crate) async fn query(
        &self,
        engine: &Arc<Engine>,
        caller: &Caller,
        query: Query,
        shape: Shape,
    ) -> Option<Outcome> {
        let key = Key::new(caller, &query, shape);
        let evaluate = {
            let (engine, caller) = (engine.clone(), caller.clone());
            async move |waited: Duration, begins: Begins| {
                let query = Query { waited, ..query };
                land(&engine, &caller, query, shape, move || begins.now()).await
            }
        };
        self.join(key, evaluate).await
    }

    /// The outcome of the open flight of a key; a new one where there is none.
    pub(crate) async fn join<F>(&self, key: Key, evaluate: F) -> Option<Outcome>
    where
        F: AsyncFnOnce(Duration, Begins) -> Result<Landed, query::Error> + 'static,
    {
        let mut outcome = {
            let mut lanes = self.lanes();
            let lane = lanes.entry(key.clone()).or_default();
            match &lane.open {
                Some(flight) => {
                    self.shared.inc();
                    flight.outcome.subscribe()
                }
                None => {
                    let (sender, receiver) = watch::channel(None);
                    let (ends, ended) = watch::channel(());
                    let outcome = sender.clone();
                    lane.open = Some(Flight { outcome, ended });
                    let before = lane.reading.as_ref().map(|flight| flight.ended.clone());
                    let own = Own {
                        flights: self.clone(),
                        key,
                        sender,
                        _ends: ends,
                    };
                    let span = tracing::Span::current();
                    tokio::task::spawn_local(fly(own, before, evaluate).instrument(span));
                    receiver
                }
            }
        };
        let landed = outcome.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Key, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nobody joins it.
    fn begin(&self, key: &Key, sender: &Sender) {
        let mut lanes = self.lanes();
        let lane = lanes.get_mut(key).expect("it has not ended");
        if lane
            .open
            .as_ref()
            .is_some_and(|f| f.outcome.same_channel(sender))
        {
            lane.reading = lane.open.take();
        }
    }

    /// Takes a flight out.
    fn end(lanes: &mut HashMap<Key, Lane>, key: &Key, sender: &Sender) {
        let Some(lane) = lanes.get_mut(key) else {
            return;
        };
        for place in [&mut lane.open, &mut lane.reading] {
            place.take_if(|flight| flight.outcome.same_channel(sender));
        }
        if lane.open.is_none() && lane.reading.is_none() {
            lanes.remove(key);
        }
    }

    /// Ends a flight that nobody waits for. False where somebody has come in the meantime.
    fn end_if_alone(&self, key: &Key, sender: &Sender) -> bool {
        let mut lanes = self.lanes();
        let alone = sender.receiver_count() == 0;
        if alone {
            Flights::end(&mut lanes, key, sender);
        }
        alone
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes().is_empty()
    }
}

/// What the task of a flight has; its end is the flight's, however it comes.
struct Own {
    flights: Flights,
    key: Key,
    sender: Sender,
    /// Its drop tells the next.
    _ends: watch::Sender<()>,
}

impl Drop for Own {
    fn drop(&mut self) {
        Flights::end(&mut self.flights.lanes(), &self.key, &self.sender);
    }
}

/// Tells that an evaluation begins to read.
pub(crate) struct Begins {
    flights: Flights,
    key: Key,
    sender: Sender,
}

impl Begins {
    pub(crate) fn now(self) {
        self.flights.begin(&self.key, &self.sender);
    }
}

async fn fly<F>(own: Own, before: Option<watch::Receiver<()>>, evaluate: F)
where
    F: AsyncFnOnce(Duration, Begins) -> Result<Landed, query::Error>,
{
    let begins = Begins {
        flights: own.flights.clone(),
        key: own.key.clone(),
        sender: own.sender.clone(),
    };
    let work = async {
        let begun = Instant::now();
        if let Some(mut before) = before {
            // It never says anything, it ends.
            let _ = before.changed().await;
        }
        evaluate(begun.elapsed(), begins).await
    };
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            result = work.as_mut() => {
                let outcome = Some(Arc::new(result));
                Flights::end(&mut own.flights.lanes(), &own.key, &own.sender);
                own.sender.send_replace(outcome);
                return;
            }
            () = own.sender.closed() => {
                if own.flights.end_if_alone(&own.key, &own.sender) {
                    return;
                }
            }
        }
    }
}

/// Evaluates, and makes of the result what can be sent many times.
async fn land(
    engine: &Engine,
    caller: &Caller,
    query: Query,
    shape: Shape,
    begins: impl FnOnce(),
) -> Result<Landed, query::Error> {
    let mut answer = engine.query_with(caller, query, begins).await?;
    let stats = shape.stats.then(|| crate::api::stats_json(&answer));
    if crate::api::truncate(&mut answer.value, shape.limit) {
        answer.warnings.push(crate::api::TRUNCATED.to_owned());
    }
    let landed = Landed {
        value: Arc::new(answer.value),
        stats,
        notes: Notes {
            warnings: answer.warnings,
            infos: answer.infos,
        },
        durations: answer.durations,
        samples: answer.stats.total_samples,
        account: answer.account,
    };
    let pieces = landed.pieces();
    let is_beyond = move |limit| {
        let mut bytes = 0;
        for piece in pieces {
            bytes += piece.len() as u64;
            if bytes > limit {
                return true;
            }
        }
        false
    };
    engine.check_response_size(caller, is_beyond).await?;
    Ok(landed)
}

impl Landed {
    /// The answer as JSON.
    pub(crate) fn pieces(&self) -> Answer {
        Answer::new(self.value.clone(), self.stats.clone(), self.notes.clone())
    }
}
