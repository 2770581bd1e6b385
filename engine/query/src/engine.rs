//! The engine: admission, deadline, and the stages of a query in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::{Class, Projection, QueryValue, TenantId, TenantLimits};
use prometheus::Registry;
use promql::{Budget, Evaluated, Params, Plan};
use shard::{Mailboxes, ReadError, TenantStats};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::fanout::{self, Allowance, Canceled, Reach};
use crate::labels::check_series;
use crate::merge::{Answers, Fetched};
use crate::metrics::Metrics;
use crate::options::{
    Options, SELECTORS_AT_ONCE, TEXT_BYTES_MAX, TIGHT_BYTES_MAX, TIGHT_SERIES_MAX,
};
use crate::quarantine::Quarantine;
use crate::workers::Workers;

/// The read path of a node; shared by all gateway threads.
#[derive(Debug)]
pub struct Engine {
    mailboxes: Mailboxes,
    options: Options,
    workers: Workers,
    places: Semaphore,
    waiting: AtomicUsize,
    quarantine: Quarantine,
    metrics: Metrics,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose data.
    pub tenant: TenantId,
    /// In force for this request.
    pub limits: Arc<TenantLimits>,
    /// The wall clock, milliseconds.
    pub now_ms: i64,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Query {
    /// PromQL.
    pub text: String,
    /// When.
    pub times: Times,
    /// Shorter than [`Options::timeout`], if given.
    pub timeout: Option<Duration>,
    /// Instead of [`Options::lookback`], if given.
    pub lookback: Option<Duration>,
}

/// At which times a query is evaluated; milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Once.
    Instant(i64),
    /// At `start`, `start + step` and so on, up to `end`; `start <= end`, `step > 0`.
    Range {
        /// First.
        start: i64,
        /// Last, where it lies on the grid.
        end: i64,
        /// Distance.
        step: i64,
    },
}

/// What came out.
#[derive(Debug)]
pub struct Answer {
    /// The result.
    pub value: QueryValue,
    /// The result may be wrong.
    pub warnings: Vec<String>,
    /// The query may not mean what its author thinks.
    pub infos: Vec<String>,
    /// How much work it was.
    pub stats: promql::Stats,
    /// How long it waited for its turn, and for its stages: parse, fetch, evaluate.
    pub durations: [Duration; 4],
}

/// One request at work: its deadline, its flag, and its place among the others.
pub(crate) struct Turn<'a> {
    pub(crate) canceled: Canceled,
    deadline: Instant,
    waited: Duration,
    _place: SemaphorePermit<'a>,
}

impl Engine {
    /// Starts the workers. Panics when `registry` holds an engine's metrics already.
    pub fn start(options: Options, mailboxes: Mailboxes, registry: &Registry) -> Engine {
        assert!(options.concurrent_max > 0, "no query could ever run");
        Engine {
            mailboxes,
            workers: Workers::start(&options),
            places: Semaphore::new(options.concurrent_max),
            waiting: AtomicUsize::new(0),
            quarantine: Quarantine::default(),
            metrics: Metrics::new(registry),
            options,
        }
    }

    /// Evaluates a query.
    pub async fn query(&self, caller: &Caller, query: Query) -> Result<Answer, Error> {
        let (operation, text) = match query.times {
            Times::Instant(_) => ("query", query.text.clone()),
            Times::Range { .. } => ("query_range", query.text.clone()),
        };
        self.bounded(
            operation,
            &text,
            query.timeout,
            caller,
            async |turn: &Turn<'_>| {
                let begin = Instant::now();
                let plan = self.plan(&query).await?;
                let planned = Instant::now();
                let answers = self.fetch(caller, &plan, turn).await?;
                let fetched = Instant::now();
                let evaluated = self.evaluate(caller, plan, answers, turn).await?;
                let done = Instant::now();
                let user = [self.metrics.user(&caller.tenant)];
                self.metrics
                    .samples
                    .with_label_values(&user)
                    .inc_by(evaluated.stats.total_samples);
                let stages = [planned - begin, fetched - planned, done - fetched];
                for (stage, duration) in ["parse", "fetch", "evaluate"].iter().zip(stages) {
                    self.metrics
                        .stages
                        .with_label_values(&[*stage])
                        .observe(duration.as_secs_f64());
                }
                Ok(Answer {
                    value: evaluated.value,
                    warnings: evaluated.warnings,
                    infos: evaluated.infos,
                    stats: evaluated.stats,
                    durations: [turn.waited, stages[0], stages[1], stages[2]],
                })
            },
        )
        .await
    }

    /// The query as the formatter of the language prints it.
    pub async fn format(&self, caller: &Caller, text: String) -> Result<String, Error> {
        self.bounded(
            "format_query",
            &text.clone(),
            None,
            caller,
            async |_: &Turn<'_>| {
                let format = move || {
                    promql::parse(&text)
                        .map(|expr| expr.to_string())
                        .map_err(promql::Error::from)
                };
                Ok(self.run(format).await??)
            },
        )
        .await
    }

    /// Counts of one tenant or of all, one entry per tenant and core.
    pub async fn stats(&self, tenant: Option<&TenantId>) -> Result<Vec<TenantStats>, Error> {
        Ok(fanout::stats(&self.mailboxes, tenant)
            .all()
            .await?
            .into_iter()
            .flatten()
            .collect())
    }

    async fn plan(&self, query: &Query) -> Result<Plan, Error> {
        let (start, end, step) = match query.times {
            Times::Instant(t) => (t, t, 0),
            Times::Range { start, end, step } => (start, end, step),
        };
        let params = Params {
            start,
            end,
            step,
            lookback_ms: millis(query.lookback.unwrap_or(self.options.lookback)),
            default_subquery_step_ms: millis(self.options.subquery_step),
        };
        let text = query.text.clone();
        let plan = move || {
            let expr = promql::parse(&text)?;
            promql::plan(&expr, &params).map(|plan| plan.with_text(&text))
        };
        Ok(self.run(plan).await??)
    }

    /// The series of all selectors; identical selectors are asked for once.
    ///
    /// They come as the cores gave them; putting them together is part of the evaluation, on whose thread it is done.
    async fn fetch(
        &self,
        caller: &Caller,
        plan: &Plan,
        turn: &Turn<'_>,
    ) -> Result<(Vec<Answers>, Vec<usize>), Error> {
        let floor = self.floor(caller);
        let mut reaches: Vec<Reach> = Vec::new();
        let mut of_selector = Vec::new();
        for selector in plan.selectors() {
            check_length(
                selector.min_time,
                selector.max_time,
                caller.limits.max_query_length,
            )?;
            let reach = Reach {
                matchers: selector.matchers.clone(),
                min_time: selector.min_time.max(floor),
                max_time: selector.max_time,
                projection: selector.projection.clone(),
                newest: selector.newest,
            };
            let known = reaches.iter().position(|r| *r == reach);
            of_selector.push(known.unwrap_or(reaches.len()));
            if known.is_none() {
                reaches.push(reach);
            }
        }
        let allowance = self.allowance(caller);
        let fetched = self.fetch_within(caller, reaches, allowance, turn).await;
        fetched
            .map(|lists| (lists, of_selector))
            .map_err(|error| self.for_want_of_memory(error, allowance))
    }

    /// What a query may fetch: what its tenant may, and less while memory is tight.
    fn allowance(&self, caller: &Caller) -> Allowance {
        let (series_max, bytes_max) = (
            caller.limits.max_fetched_series_per_query,
            caller.limits.max_fetched_chunk_bytes_per_query,
        );
        if !self.options.memory.is_tight() {
            return Allowance {
                series_max,
                bytes_max,
            };
        }
        let least = |limit: u64, tight: u64| match limit {
            0 => tight,
            limit => limit.min(tight),
        };
        Allowance {
            series_max: least(series_max, TIGHT_SERIES_MAX),
            bytes_max: least(bytes_max, TIGHT_BYTES_MAX),
        }
    }

    /// Tells a query that is too large for now from one that is too large for its tenant.
    fn for_want_of_memory(&self, error: Error, allowance: Allowance) -> Error {
        let tight = self.options.memory.is_tight();
        match error {
            Error::Read(ReadError::TooManySeries { limit })
                if tight && limit == TIGHT_SERIES_MAX && limit == allowance.series_max =>
            {
                Error::Memory
            }
            Error::Read(ReadError::TooManyBytes { limit })
                if tight && limit == TIGHT_BYTES_MAX && limit == allowance.bytes_max =>
            {
                Error::Memory
            }
            other => other,
        }
    }

    async fn fetch_within(
        &self,
        caller: &Caller,
        reaches: Vec<Reach>,
        allowance: Allowance,
        turn: &Turn<'_>,
    ) -> Result<Vec<Answers>, Error> {
        let mut lists = Vec::with_capacity(reaches.len());
        let (mut series, mut bytes) = (0, 0);
        for some in reaches.chunks(SELECTORS_AT_ONCE) {
            let select = |reach: &Reach| {
                let tenant = &caller.tenant;
                // An absurd offset, or data behind the floor: nothing can be of use.
                (reach.min_time <= reach.max_time).then(|| {
                    fanout::select(
                        &self.mailboxes,
                        tenant,
                        reach,
                        true,
                        allowance,
                        &turn.canceled,
                    )
                })
            };
            let pending: Vec<_> = some.iter().map(select).collect();
            for (reach, answers) in some.iter().zip(pending) {
                let answers = match answers {
                    Some(answers) => answers.all().await?,
                    None => Vec::new(),
                };
                series += answers.iter().map(Vec::len).sum::<usize>();
                let chunks = answers.iter().flatten().flat_map(|series| &series.chunks);
                bytes += chunks.map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
                check_series(series, allowance)?;
                check_bytes(bytes, allowance)?;
                lists.push(Answers {
                    series: answers,
                    all_labels: reach.projection == Projection::All,
                });
            }
        }
        let user = [self.metrics.user(&caller.tenant)];
        self.metrics
            .fetched_series
            .with_label_values(&user)
            .inc_by(series as u64);
        self.metrics
            .fetched_bytes
            .with_label_values(&user)
            .inc_by(bytes);
        Ok(lists)
    }

    async fn evaluate(
        &self,
        caller: &Caller,
        plan: Plan,
        (lists, of_selector): (Vec<Answers>, Vec<usize>),
        turn: &Turn<'_>,
    ) -> Result<Evaluated, Error> {
        let samples_max = match caller.limits.max_samples_per_query {
            0 => self.options.samples_max,
            limit => limit.min(self.options.samples_max),
        };
        let pool = self.workers.executor();
        let (canceled, deadline) = (turn.canceled.flag(), turn.deadline);
        let floor = self.floor(caller);
        let evaluate = move || -> Result<Evaluated, Error> {
            let expired = || Instant::now() >= deadline;
            let given_up = || canceled.load(Ordering::Relaxed) || expired();
            let source = Fetched::new(lists, of_selector, floor, &pool, &given_up)?;
            let budget = Budget {
                samples_max,
                expired: &expired,
                canceled: &canceled,
            };
            Ok(promql::evaluate(&plan, &source, &pool, &budget)?)
        };
        self.run(evaluate).await?
    }

    /// Runs `job` on a worker.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.workers.run(job).await.map_err(|_| Error::Panicked)
    }

    /// Admits a request, gives it a deadline, does the work and counts how it ended.
    ///
    /// `text` is what is refused for a while should the work panic.
    pub(crate) async fn bounded<T>(
        &self,
        operation: &str,
        text: &str,
        timeout: Option<Duration>,
        caller: &Caller,
        work: impl AsyncFnOnce(&Turn<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let result = self.admitted(operation, text, timeout, caller, work).await;
        match &result {
            Ok(_) => {}
            Err(Error::Panicked) => {
                tracing::error!(tenant = %caller.tenant, query = text, "panicked on a query");
                self.metrics.panics.inc();
                self.quarantine.add(text);
            }
            Err(error) => {
                tracing::debug!(tenant = %caller.tenant, query = text, %error, "query failed");
            }
        }
        if let Err(error) = &result {
            self.metrics
                .failed
                .with_label_values(&[reason(error.class())])
                .inc();
        }
        result
    }

    async fn admitted<T>(
        &self,
        operation: &str,
        text: &str,
        timeout: Option<Duration>,
        caller: &Caller,
        work: impl AsyncFnOnce(&Turn<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if text.len() > TEXT_BYTES_MAX {
            let reason = format!("longer than {TEXT_BYTES_MAX} bytes");
            return Err(Error::Parameter {
                name: "query",
                reason,
            });
        }
        if self.quarantine.holds(text) {
            return Err(Error::Quarantined);
        }
        let timeout = timeout
            .unwrap_or(self.options.timeout)
            .min(self.options.timeout);
        let begin = Instant::now();
        let deadline = begin + timeout;
        let late = |_| Error::Timeout(timeout);
        let place = timeout_at(deadline, self.place()).await.map_err(late)??;
        let waited = begin.elapsed();
        self.metrics.waited.observe(waited.as_secs_f64());
        let labels = [operation, self.metrics.user(&caller.tenant)];
        self.metrics.queries.with_label_values(&labels).inc();
        let _at_work = Counted::new(&self.metrics.at_work);
        let turn = Turn {
            canceled: Canceled::default(),
            deadline,
            waited,
            _place: place,
        };
        timeout_at(deadline, work(&turn)).await.map_err(late)?
    }

    /// A place among those at work, after a wait if need be and if there is room to wait.
    async fn place(&self) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let _waiting = Counted::new(&self.metrics.waiting);
        let seat = Seat::take(&self.waiting, self.options.waiting_max).ok_or(Error::Busy)?;
        let place = self
            .places
            .acquire()
            .await
            .expect("the semaphore is never closed");
        drop(seat);
        Ok(place)
    }

    /// The oldest time that the caller may see.
    pub(crate) fn floor(&self, caller: &Caller) -> i64 {
        match caller.limits.max_query_lookback {
            Duration::ZERO => i64::MIN,
            lookback => caller.now_ms.saturating_sub(millis(lookback)),
        }
    }

    pub(crate) fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }
}

/// A gauge that is one higher while this lives.
struct Counted<'a>(&'a prometheus::IntGauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a prometheus::IntGauge) -> Counted<'a> {
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One of the seats of those who wait.
struct Seat<'a>(&'a AtomicUsize);

impl<'a> Seat<'a> {
    fn take(taken: &'a AtomicUsize, max: usize) -> Option<Seat<'a>> {
        if taken.fetch_add(1, Ordering::Relaxed) < max {
            return Some(Seat(taken));
        }
        taken.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn check_bytes(bytes: u64, allowance: Allowance) -> Result<(), Error> {
    let limit = allowance.bytes_max;
    if limit > 0 && bytes > limit {
        return Err(shard::ReadError::TooManyBytes { limit }.into());
    }
    Ok(())
}

/// Both ends belong to the range: `m[2h]` reaches over the milliseconds after the one two hours ago.
fn check_length(min: i64, max: i64, limit: Duration) -> Result<(), Error> {
    let length = max.saturating_sub(min).saturating_add(1).max(0);
    let length = Duration::from_millis(length as u64);
    if limit > Duration::ZERO && length > limit {
        return Err(Error::TooLong { length, limit });
    }
    Ok(())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn reason(class: Class) -> &'static str {
    match class {
        Class::Client => "client",
        Class::Limit => "limit",
        Class::Execution => "execution",
        Class::Overload => "overload",
        Class::Timeout => "timeout",
        Class::Canceled => "canceled",
        Class::Internal => "internal",
    }
}

#[cfg(test)]
mod tests;
