//! The engine: admission, deadline, bounds, and the stages of a query in order.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longterm::Tally;
use model::{Class, Projection, QueryValue, TenantId, TenantLimits};
use prometheus::Registry;
use promql::{Budget, Evaluated, Executor, Params, Plan, Profile, Shards};
use shard::{ReadError, TenantStats};
use tokio::time::{Instant, timeout_at};

use crate::blocks::Look;
use crate::error::Error;
use crate::fanout::{self, Allowance, Canceled, Holders, Reach, Wanted};
use crate::federation::Part;
use crate::inflight::{Inflight, Listed, Running, Written};
use crate::judge::Asking;
use crate::memory::{Account, Memory, value_bytes};
use crate::merge::{Answers, Fetched};
use crate::metrics::Metrics;
use crate::options::{
    Options, SELECTORS_AT_ONCE, TEXT_BYTES_MAX, TIGHT_BYTES_MAX, TIGHT_SERIES_MAX,
};
use crate::quarantine::Quarantine;
use crate::results::Results;
use crate::turns::{Lines, OwnBounds, Place, Turns};
use crate::workers::Workers;

/// The read path of a node; shared by all gateway threads.
#[derive(Debug)]
pub struct Engine {
    holders: Arc<dyn Holders>,
    pub(crate) options: Options,
    /// Of range queries; where any are kept.
    pub(crate) results: Option<Arc<Results>>,
    workers: Workers,
    turns: Arc<Turns>,
    memory: Arc<Memory>,
    inflight: Arc<Inflight>,
    quarantine: Quarantine,
    pub(crate) metrics: Metrics,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose data; [joined](TenantId::joined) where it is that of several.
    pub tenant: TenantId,
    /// In force for this request.
    pub limits: Arc<TenantLimits>,
    /// The wall clock, milliseconds.
    pub now_ms: i64,
    /// What its client says of itself.
    pub client: Arc<Client>,
}

/// What a client says of itself in headers; for rules that look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// `User-Agent`.
    pub user_agent: String,
    /// `X-Dashboard-Uid`, from Grafana.
    pub dashboard_uid: String,
    /// `X-Panel-Id`, likewise.
    pub panel_id: String,
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
    /// How much of that it has waited already.
    pub waited: Duration,
    /// Instead of [`Options::lookback`], if given.
    pub lookback: Option<Duration>,
    /// Samples are to be counted for each step.
    pub per_step: bool,
    /// All of it is to be evaluated, whatever is kept of earlier requests; nor is this one kept.
    pub uncached: bool,
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
    /// Samples looked at by step, where [`Query::per_step`] asked for it; with their times, milliseconds.
    pub per_step: Vec<(i64, u64)>,
    /// How long it waited for its turn, and for its stages: parse, fetch, evaluate.
    pub durations: [Duration; 4],
    /// The memory of the result; to be kept until the last byte of it has been sent.
    pub account: Arc<Account>,
}

impl Answer {
    /// Of a range of which the caller may see nothing.
    fn empty(turn: &Turn, planning: Duration) -> Answer {
        Answer {
            value: QueryValue::Matrix(Vec::new()),
            warnings: Vec::new(),
            infos: Vec::new(),
            stats: promql::Stats::default(),
            per_step: Vec::new(),
            durations: [turn.waited, planning, Duration::ZERO, Duration::ZERO],
            account: turn.account.clone(),
        }
    }
}

/// One request at work: its deadline, its flag, and its place among the others.
pub(crate) struct Turn {
    pub(crate) canceled: Canceled,
    pub(crate) account: Arc<Account>,
    pub(crate) deadline: Instant,
    pub(crate) waited: Duration,
    pub(crate) listed: Arc<Listed>,
    /// Its line in the journal, once it has one.
    written: OnceCell<Option<Written>>,
    _place: Place,
}

/// What was fetched for a plan, by its selectors.
pub(crate) struct Catch {
    /// For each distinct selector what the cores gave.
    pub(crate) answers: Vec<Answers>,
    /// Series, chunks and bytes of chunks of each distinct selector.
    pub(crate) sizes: Vec<Size>,
    /// For each selector of the plan the place in `sizes`.
    pub(crate) of_selector: Vec<usize>,
}

/// How much a selector fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Series.
    pub series: u64,
    /// Chunks.
    pub chunks: u64,
    /// Their bytes.
    pub chunk_bytes: u64,
    /// Bytes of labels and chunks.
    pub data_bytes: u64,
}

impl Engine {
    /// Starts the workers. Panics when `registry` holds an engine's metrics already.
    pub fn start(options: Options, holders: impl Holders + 'static, registry: &Registry) -> Engine {
        assert!(options.concurrent_max > 0, "no query could ever run");
        let metrics = Metrics::new(registry);
        let turns = Turns::new(options.concurrent_max, options.waiting_max);
        let lines = Lines::new(turns.clone());
        registry
            .register(Box::new(lines))
            .expect("each metric is registered once");
        metrics
            .concurrent_max
            .set(i64::try_from(options.concurrent_max).unwrap_or(i64::MAX));
        Engine {
            holders: Arc::new(holders),
            workers: Workers::start(&options),
            turns,
            memory: Memory::new(options.memory_bytes_max, metrics.memory_bytes.clone()),
            inflight: Arc::default(),
            quarantine: Quarantine::default(),
            results: (options.results_bytes_max > 0)
                .then(|| Arc::new(Results::new(options.results_bytes_max))),
            metrics,
            options,
        }
    }

    /// Requests in flight of a tenant or of all, oldest first.
    pub fn running(&self, tenant: Option<&TenantId>) -> Vec<Running> {
        self.inflight.list(tenant)
    }

    /// Ends a request in flight; it is answered with [`Error::Killed`]. False where there is none of that number (of that tenant).
    pub fn kill(&self, tenant: Option<&TenantId>, id: u64) -> bool {
        let found = self.inflight.kill(tenant, id);
        if found {
            self.metrics.killed.inc();
        }
        found
    }

    /// Evaluates a query.
    pub async fn query(&self, caller: &Caller, query: Query) -> Result<Answer, Error> {
        self.query_with(caller, query, || ()).await
    }

    /// As [`Engine::query`]; calls `begins` when it has its turn, before it reads anything: what is written later may be missing in the answer.
    pub async fn query_with(
        &self,
        caller: &Caller,
        mut query: Query,
        begins: impl FnOnce(),
    ) -> Result<Answer, Error> {
        if let (true, Times::Range { start, end, step }) = (self.options.align, &mut query.times) {
            *start = start.saturating_sub(start.rem_euclid(*step));
            *end = end.saturating_sub(end.rem_euclid(*step));
        }
        // What the limits are told of is the range that was asked for.
        let asked = query.clone();
        let is_hidden = self.is_moved_out(caller, &mut query.times);
        self.bounded(
            Asking::query(&asked.text, &asked),
            caller,
            async |turn: &Turn| {
                begins();
                let begin = Instant::now();
                let plan = self.plan(caller, &query, turn).await?;
                let planning = begin.elapsed();
                if is_hidden {
                    return Ok(Answer::empty(turn, planning));
                }
                let steps = plan.steps();
                let ran = self.run_plan(caller, &query, plan, turn).await?;
                let evaluated = ran.evaluated;
                // What was fetched is gone; the result is not.
                turn.account.shrink(value_bytes(&evaluated.value));
                let user = [self.metrics.user(&caller.tenant)];
                self.metrics
                    .samples
                    .with_label_values(&user)
                    .inc_by(evaluated.stats.total_samples);
                let fetched = turn.account.fetched();
                let counts = [
                    fetched.series,
                    fetched.chunks,
                    evaluated.stats.total_samples,
                ];
                for (histogram, count) in self.metrics.queried.iter().zip(counts) {
                    histogram.observe(count as f64);
                }
                let stages = [planning, ran.fetching, ran.evaluating];
                let seconds = stages.iter().sum::<Duration>().as_secs_f64();
                self.metrics
                    .seconds
                    .with_label_values(&user)
                    .inc_by(seconds);
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
                    per_step: steps.times().zip(evaluated.per_step).collect(),
                    account: turn.account.clone(),
                    durations: [turn.waited, stages[0], stages[1], stages[2]],
                })
            },
        )
        .await
    }

    /// The query as the formatter of the language prints it.
    pub async fn format(&self, caller: &Caller, text: String) -> Result<String, Error> {
        self.parsed("format_query", caller, text, promql::Expr::pretty)
            .await
    }

    /// The tree of the query as JSON, as Prometheus shows it.
    pub async fn parse(&self, caller: &Caller, text: String) -> Result<String, Error> {
        self.parsed("parse_query", caller, text, promql::Expr::to_json)
            .await
    }

    async fn parsed(
        &self,
        operation: &'static str,
        caller: &Caller,
        text: String,
        show: fn(&promql::Expr) -> String,
    ) -> Result<String, Error> {
        let of = text.clone();
        self.bounded(
            Asking::plain(operation, &of),
            caller,
            async |turn: &Turn| {
                let parse = move || {
                    promql::parse(&text)
                        .map(|expr| show(&expr))
                        .map_err(promql::Error::from)
                };
                Ok(self.begin(turn, parse).await??)
            },
        )
        .await
    }

    /// Counts of one tenant or of all, one entry per tenant and core, and one for the blocks of each tenant that has some here.
    pub async fn stats(&self, tenant: Option<&TenantId>) -> Result<Vec<TenantStats>, Error> {
        let answers = fanout::stats(&*self.holders, tenant).await?;
        let blocks = self.loaded_blocks(tenant).into_iter();
        let of_blocks = |(tenant, blocks)| TenantStats {
            tenant,
            series: 0,
            active: 0,
            blocks,
            samples: 0,
            min_time: i64::MAX,
            max_time: i64::MIN,
        };
        Ok(answers
            .into_iter()
            .flatten()
            .chain(blocks.map(of_blocks))
            .collect())
    }

    /// How many blocks on the disk of this node have something of a tenant, of one tenant or of all that have some.
    pub fn loaded_blocks(&self, tenant: Option<&TenantId>) -> HashMap<TenantId, u64> {
        let mut counts = HashMap::new();
        let list = self.holders.blocks().map(|catalog| catalog.list());
        for block in list.iter().flat_map(|list| list.iter()) {
            // One tenant is looked up, for all each part is looked at.
            let one = tenant.and_then(|tenant| block.part(tenant));
            let all = tenant.is_none().then(|| block.parts());
            for part in one.into_iter().chain(all.into_iter().flatten()) {
                *counts.entry(part.tenant.clone()).or_default() += 1;
            }
        }
        counts
    }

    /// Asks all cores to copy what they hold of some tenants, or of all where none is named, into blocks, at once; the future tells when they have, or why one has not.
    pub fn flush(
        &self,
        tenants: &[TenantId],
    ) -> impl Future<Output = Result<(), String>> + Send + use<> {
        fanout::flush(&*self.holders, tenants)
    }

    pub(crate) fn params(&self, query: &Query) -> Params {
        let (start, end, step) = match query.times {
            Times::Instant(t) => (t, t, 0),
            Times::Range { start, end, step } => (start, end, step),
        };
        Params {
            start,
            end,
            step,
            lookback_ms: millis(query.lookback.unwrap_or(self.options.lookback)),
            default_subquery_step_ms: millis(self.options.subquery_step),
        }
    }

    pub(crate) async fn plan(
        &self,
        caller: &Caller,
        query: &Query,
        turn: &Turn,
    ) -> Result<Plan, Error> {
        let params = self.params(query);
        let text = query.text.clone();
        let experimental = caller.limits.promql_experimental_functions_enabled;
        let plan = move || {
            let expr = promql::parse(&text).map_err(promql::Error::from)?;
            if !experimental && let Some(what) = expr.experimental() {
                return Err(Error::Experimental(what));
            }
            Ok(promql::plan(&expr, &params).map(|plan| plan.with_text(&text))?)
        };
        self.begin(turn, plan).await?
    }

    /// The series of all selectors; identical selectors are asked for once.
    ///
    /// They come as the cores gave them; putting them together is part of the evaluation, on whose thread it is done.
    pub(crate) async fn fetch(
        &self,
        caller: &Caller,
        plan: &Plan,
        turn: &Turn,
    ) -> Result<Catch, Error> {
        let floor = self.floor(caller);
        let mut reaches: Vec<Reach> = Vec::new();
        let mut of_selector = Vec::new();
        for selector in plan.selectors() {
            let min_time = selector.min_time.max(floor);
            let bounds = (floor, self.options.lookback);
            check_selector(plan, selector, bounds, caller.limits.max_query_length)?;
            let reach = Reach {
                matchers: selector.matchers.clone(),
                min_time,
                max_time: selector.max_time,
                projection: selector.projection.clone(),
                newest: selector.newest,
                windows: selector.windows,
            };
            // Selectors of a plan differ in matchers or times: only where the floor moves them two may ask for the same.
            let known = match min_time > floor {
                true => None,
                false => reaches.iter_mut().position(|known| known.join(&reach)),
            };
            of_selector.push(known.unwrap_or(reaches.len()));
            if known.is_none() {
                reaches.push(reach);
            }
        }
        self.gather(caller, reaches, of_selector, turn).await
    }

    /// What a query may fetch: what its tenant may, and less while memory is tight.
    pub(crate) fn allowance(&self, caller: &Caller) -> Allowance {
        self.for_now(Allowance::of(&caller.limits))
    }

    /// Less while memory is tight.
    pub(crate) fn for_now(&self, own: Allowance) -> Allowance {
        if !self.options.memory.is_tight() {
            return own;
        }
        let least = |limit: u64, tight: u64| match limit {
            0 => tight,
            limit => limit.min(tight),
        };
        Allowance {
            series_max: least(own.series_max, TIGHT_SERIES_MAX),
            bytes_max: least(own.bytes_max, TIGHT_BYTES_MAX),
            ..own
        }
    }

    /// Tells a query that is too large for now from one that is too large for its tenant.
    pub(crate) fn for_want_of_memory(&self, error: Error, allowance: Allowance) -> Error {
        let tight = self.options.memory.is_tight();
        match error {
            Error::Read(ReadError::TooManySeries { limit, .. })
                if tight && limit == TIGHT_SERIES_MAX && limit == allowance.series_max =>
            {
                Error::Memory
            }
            Error::Read(ReadError::TooManyBytes { limit, .. })
                if tight && limit == TIGHT_BYTES_MAX && limit == allowance.bytes_max =>
            {
                Error::Memory
            }
            other => other,
        }
    }

    /// The series of some reaches, with their chunks.
    pub(crate) async fn gather(
        &self,
        caller: &Caller,
        reaches: Vec<Reach>,
        of_selector: Vec<usize>,
        turn: &Turn,
    ) -> Result<Catch, Error> {
        self.check_patterns(caller, &reaches, turn).await?;
        let allowance = self.allowance(caller);
        self.gather_within(caller, reaches, of_selector, allowance, turn)
            .await
            .map_err(|error| self.for_want_of_memory(error, allowance))
    }

    pub(crate) async fn gather_within(
        &self,
        caller: &Caller,
        reaches: Vec<Reach>,
        of_selector: Vec<usize>,
        allowance: Allowance,
        turn: &Turn,
    ) -> Result<Catch, Error> {
        let list = |reach: &Reach| Answers {
            series: Vec::new(),
            all_labels: reach.projection == Projection::All,
            windows: reach.windows,
        };
        let mut lists: Vec<Answers> = reaches.iter().map(list).collect();
        let mut sizes = vec![Size::default(); reaches.len()];
        let mut all = Size::default();
        let parts = |(at, reach)| caller.parts(reach).into_iter().map(move |part| (at, part));
        let parts: Vec<(usize, Part)> = reaches.iter().enumerate().flat_map(parts).collect();
        for some in parts.chunks(SELECTORS_AT_ONCE) {
            let select = |(_, Part { caller, reach, .. }): &(usize, Part)| {
                (!reach.is_empty()).then(|| {
                    fanout::select(
                        &*self.holders,
                        caller,
                        reach,
                        Wanted::Chunks,
                        allowance,
                        turn,
                    )
                })
            };
            let pending: Vec<_> = some.iter().map(select).collect();
            for ((at, part), answers) in some.iter().zip(pending) {
                let Some(answers) = answers else {
                    continue;
                };
                let mut answers = answers.all(turn).await?;
                let select = move |look: &Look<'_>| look.select(true, allowance);
                let blocks = self.in_blocks(&part.caller, &part.reach, turn, select);
                answers.extend(blocks.await?);
                let size = Size::of_lists(&answers, self.holders.count());
                all.add(size);
                allowance.check(all)?;
                sizes[*at].add(size);
                part.mark(&mut answers, turn)?;
                lists[*at].series.append(&mut answers);
            }
        }
        turn.account.note_fetched(all);
        let user = [self.metrics.user(&caller.tenant)];
        let metrics = &self.metrics;
        for (counter, value) in [
            (&metrics.fetched_series, all.series),
            (&metrics.fetched_bytes, all.chunk_bytes),
            (&metrics.fetched_data_bytes, all.data_bytes),
        ] {
            counter.with_label_values(&user).inc_by(value);
        }
        Ok(Catch {
            answers: lists,
            sizes,
            of_selector,
        })
    }

    /// Looks into the blocks on a worker, if one of them may have something. The cores have answered before. `take_look` may be called twice.
    pub(crate) async fn in_blocks<T: Default + Send + 'static>(
        &self,
        caller: &Caller,
        reach: &Reach,
        turn: &Turn,
        take_look: impl Fn(&Look<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Error> {
        let Some(catalog) = self.holders.blocks().cloned() else {
            return Ok(T::default());
        };
        let tenant = caller.tenant.clone();
        let store_after = i64::try_from(self.options.store_after.as_millis()).unwrap_or(i64::MAX);
        let is_recent = store_after > 0 && reach.min_time > caller.now_ms - store_after;
        let longterm = self.options.longterm.clone().filter(|_| !is_recent);
        if longterm.is_none()
            && catalog
                .overlapping(&tenant, reach.min_time, reach.max_time)
                .is_empty()
        {
            return Ok(T::default());
        }
        let reach = reach.clone();
        let (canceled, deadline) = (turn.canceled.flag(), turn.deadline);
        let account = turn.account.clone();
        let found = self.run(move || {
            let canceled = || canceled.load(Ordering::Relaxed) || Instant::now() >= deadline;
            let tally = Arc::new(Tally::default());
            let look = Look {
                catalog: &catalog,
                longterm: longterm.as_ref(),
                tally: &tally,
                tenant: &tenant,
                reach: &reach,
                hold: &|bytes| account.take(bytes),
                canceled: &canceled,
            };
            let mut found = take_look(&look);
            if let Some(longterm) = &longterm {
                // Compaction took a block's place while it was read: the index has been told before the block went.
                if tally.take_vanished() && found.is_err() && longterm.refresh(&tenant).is_ok() {
                    found = take_look(&look);
                }
                longterm.note(&tally);
                account.note_bucket(tally.requests(), tally.bytes());
            }
            found
        });
        found.await?.map_err(|error| match error {
            ReadError::NoMemory => turn.account.refusal(),
            error => error.into(),
        })
    }

    /// Puts together what was fetched, on a worker.
    pub(crate) async fn join(
        &self,
        caller: &Caller,
        catch: Catch,
        turn: &Turn,
    ) -> Result<Fetched, Error> {
        let floor = self.floor(caller);
        let pool = self.workers.executor();
        let (canceled, deadline) = (turn.canceled.flag(), turn.deadline);
        let join = move || {
            let given_up = || canceled.load(Ordering::Relaxed) || Instant::now() >= deadline;
            Fetched::new(catch.answers, catch.of_selector, floor, &pool, &given_up)
        };
        Ok(self.run(join).await??)
    }

    pub(crate) fn samples_max(&self, caller: &Caller) -> u64 {
        match caller.limits.max_samples_per_query {
            0 => self.options.samples_max,
            limit => limit.min(self.options.samples_max),
        }
    }

    pub(crate) async fn evaluate(
        &self,
        caller: &Caller,
        plan: Plan,
        (lists, of_selector): (Vec<Answers>, Vec<usize>),
        turn: &Turn,
        per_step: bool,
    ) -> Result<Evaluated, Error> {
        let (samples_max, shards) = (self.samples_max(caller), self.shards(caller));
        let pool = self.workers.executor();
        let (canceled, deadline) = (turn.canceled.flag(), turn.deadline);
        let floor = self.floor(caller);
        let account = turn.account.clone();
        let evaluate = move || -> Result<Evaluated, Error> {
            let expired = || Instant::now() >= deadline;
            let given_up = || canceled.load(Ordering::Relaxed) || expired();
            let source = Fetched::new(lists, of_selector, floor, &pool, &given_up)?;
            let memory = |bytes| account.take(bytes);
            let budget = Budget {
                memory: &memory,
                per_step,
                shards,
                ..Budget::new(samples_max, &expired, &canceled)
            };
            Ok(promql::evaluate(&plan, &source, &pool, &budget)?)
        };
        let evaluated = self.run(evaluate).await?;
        let evaluated = evaluated.map_err(|error| told(error, turn))?;
        self.metrics.count_shards(evaluated.shards);
        Ok(evaluated)
    }

    /// Into how many shards the queries of a tenant may be divided.
    pub(crate) fn shards(&self, caller: &Caller) -> Shards {
        let count = caller.limits.query_vertical_shard_size;
        Shards {
            count: usize::try_from(count).unwrap_or(usize::MAX),
            cells_min: self.options.shard_cells_min,
        }
    }

    /// Threads that evaluate pieces of queries.
    pub(crate) fn width(&self) -> usize {
        self.workers.executor().width()
    }

    /// Evaluates as [`Engine::query`] does and notes what every part cost.
    pub(crate) async fn measure(
        &self,
        caller: &Caller,
        plan: Plan,
        (lists, of_selector): (Vec<Answers>, Vec<usize>),
        turn: &Turn,
        show: impl FnOnce(&Plan, &Profile<'_>, &Evaluated) + Send + 'static,
    ) -> Result<(), Error> {
        let (samples_max, shards) = (self.samples_max(caller), self.shards(caller));
        let pool = self.workers.executor();
        let (canceled, deadline) = (turn.canceled.flag(), turn.deadline);
        let account = turn.account.clone();
        let floor = self.floor(caller);
        let evaluate = move || -> Result<usize, Error> {
            let begun = Instant::now();
            let clock = || begun.elapsed();
            let profile = Profile::new(&clock, plan.selectors().len());
            let expired = || Instant::now() >= deadline;
            let given_up = || canceled.load(Ordering::Relaxed) || expired();
            let source = Fetched::new(lists, of_selector, floor, &pool, &given_up)?;
            let memory = |bytes| account.take(bytes);
            let budget = Budget {
                memory: &memory,
                profile: Some(&profile),
                shards,
                ..Budget::new(samples_max, &expired, &canceled)
            };
            let evaluated = promql::evaluate(&plan, &source, &pool, &budget)?;
            show(&plan, &profile, &evaluated);
            Ok(evaluated.shards)
        };
        let measured = self.run(evaluate).await?;
        let shards = measured.map_err(|error| told(error, turn))?;
        self.metrics.count_shards(shards);
        Ok(())
    }

    /// As [`Engine::run`], for the first job of a request: it is written into the journal before.
    pub(crate) async fn begin<T: Send + 'static>(
        &self,
        turn: &Turn,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let Some(journal) = self.options.journal.clone() else {
            return self.run(job).await;
        };
        let (entry, jobs) = (turn.listed.entry.clone(), self.workers.jobs());
        let noted = move || {
            let written = Written::down(journal, jobs, &entry);
            (written, job())
        };
        let (written, result) = self.run(noted).await?;
        // A second beginning keeps the first line.
        drop(turn.written.set(written));
        Ok(result)
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
    /// `text` is what is refused to the tenant for a while should the work panic.
    pub(crate) async fn bounded<T>(
        &self,
        asking: Asking<'_>,
        caller: &Caller,
        work: impl AsyncFnOnce(&Turn) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let text = asking.text;
        let result = match text.len() > TEXT_BYTES_MAX {
            true => Err(Error::Parameter {
                name: "query",
                reason: format!("{} bytes, more than {TEXT_BYTES_MAX}", text.len()),
            }),
            false => self.listed(&asking, caller, work).await,
        };
        match &result {
            Ok(_) => {}
            Err(Error::Panicked) => {
                tracing::error!(tenant = %caller.tenant, query = text, "panicked on a query");
                self.metrics.panics.inc();
                self.quarantine.add(&caller.tenant, text);
            }
            Err(error) => {
                let shown = text.get(..1000).unwrap_or(text);
                tracing::debug!(tenant = %caller.tenant, query = shown, %error, "query failed");
            }
        }
        if let Err(error) = &result {
            self.metrics
                .failed
                .with_label_values(&[reason(error.class())])
                .inc();
            self.metrics.count_rejected(&caller.tenant, error);
        }
        result
    }

    /// Does the work where others can see it and end it.
    async fn listed<T>(
        &self,
        asking: &Asking<'_>,
        caller: &Caller,
        work: impl AsyncFnOnce(&Turn) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (operation, text) = (asking.operation, asking.text);
        if self.quarantine.holds(&caller.tenant, text) {
            return Err(Error::Quarantined);
        }
        let account = self
            .memory
            .account(caller.limits.max_estimated_memory_consumption_per_query);
        let listed = self
            .inflight
            .enter(&caller.tenant, operation, text, caller.now_ms, account);
        let listed = Arc::new(listed);
        tokio::select! {
            result = self.admitted(asking, caller, &listed, work) => result,
            () = listed.entry.killed() => Err(Error::Killed),
        }
    }

    async fn admitted<T>(
        &self,
        asking: &Asking<'_>,
        caller: &Caller,
        listed: &Arc<Listed>,
        work: impl AsyncFnOnce(&Turn) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let operation = asking.operation;
        let timeout = self.timeout_of(asking.timeout);
        let begin = Instant::now();
        let deadline = begin + timeout.saturating_sub(asking.waited);
        let late = |_| Error::Timeout(timeout);
        let judged = timeout_at(deadline, self.judge(caller, &asking.subject));
        let priority = judged.await.map_err(late)??;
        let own = OwnBounds {
            at_work_max: caller.limits.max_concurrent_queries,
            waiting_max: caller.limits.max_outstanding_requests_per_tenant,
            priority,
        };
        let place = {
            let place = self.turns.place(&caller.tenant, own);
            timeout_at(deadline, place).await.map_err(late)?
        };
        let place = place.inspect_err(|_| {
            let priority = priority.to_string();
            let labels = [self.metrics.user(&caller.tenant), priority.as_str()];
            self.metrics.discarded.with_label_values(&labels).inc();
        })?;
        listed.entry.begin();
        let waited = begin.elapsed() + asking.waited;
        for histogram in &self.metrics.waited {
            histogram.observe(waited.as_secs_f64());
        }
        let labels = [operation, self.metrics.user(&caller.tenant)];
        self.metrics.queries.with_label_values(&labels).inc();
        let _at_work = Counted::new(&self.metrics.at_work);
        let turn = Turn {
            canceled: Canceled::default(),
            account: listed.entry.account.clone(),
            deadline,
            waited,
            listed: listed.clone(),
            written: OnceCell::new(),
            _place: place,
        };
        timeout_at(deadline, work(&turn)).await.map_err(late)?
    }

    /// How long a query may take that asks for so much.
    pub fn timeout_of(&self, asked: Option<Duration>) -> Duration {
        asked.map_or(self.options.timeout, |asked| {
            asked.min(self.options.timeout)
        })
    }

    /// Counts a query that took longer than an operator thinks it should.
    pub fn count_slow(&self, tenant: &TenantId) {
        let user = [self.metrics.user(tenant)];
        self.metrics.slow.with_label_values(&user).inc();
    }

    /// Whether an answer is small enough for its tenant; `is_beyond` counts its bytes, on a worker.
    pub async fn check_response_size(
        &self,
        caller: &Caller,
        is_beyond: impl FnOnce(u64) -> bool + Send + 'static,
    ) -> Result<(), Error> {
        let limit = caller.limits.max_query_response_size;
        if limit == 0 || !self.run(move || is_beyond(limit)).await? {
            return Ok(());
        }
        let error = Error::ResponseTooLarge { limit };
        self.metrics.count_rejected(&caller.tenant, &error);
        Err(error)
    }

    /// Moves the first step of a range to the first one that the caller may see; true where there is none, and the times are as they were.
    pub(crate) fn is_moved_out(&self, caller: &Caller, times: &mut Times) -> bool {
        let floor = self.floor(caller);
        let Times::Range { start, end, step } = times else {
            return false;
        };
        if *start >= floor {
            return false;
        }
        // The others stay where they were: the same dashboard has the same steps with each reload.
        let hidden = floor.abs_diff(*start).div_ceil(step.unsigned_abs());
        let first = i128::from(*start) + i128::from(hidden) * i128::from(*step);
        if first > i128::from(*end) {
            return true;
        }
        *start = first as i64;
        false
    }

    /// The oldest time that the caller may see.
    pub(crate) fn floor(&self, caller: &Caller) -> i64 {
        match caller.limits.max_query_lookback {
            Duration::ZERO => i64::MIN,
            lookback => caller.now_ms.saturating_sub(millis(lookback)),
        }
    }

    pub(crate) fn holders(&self) -> &dyn Holders {
        &*self.holders
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

impl Size {
    pub(crate) fn of<'a>(series: impl Iterator<Item = &'a shard::SelectedSeries>) -> Size {
        let mut size = Size::default();
        for one in series {
            let bytes = one.chunks.iter().map(|c| c.bytes.len() as u64);
            let bytes = bytes.sum::<u64>();
            size.add(Size {
                series: 1,
                chunks: one.chunks.len() as u64,
                chunk_bytes: bytes,
                data_bytes: bytes + one.labels.packed().len() as u64,
            });
        }
        size
    }

    /// Of the answers of so many cores and of blocks: a series that is in several of them counts once.
    pub(crate) fn of_lists(lists: &[Vec<shard::SelectedSeries>], cores: u16) -> Size {
        let mut size = Size::of(lists.iter().flatten());
        if lists.len() > usize::from(cores) {
            let mut known = HashSet::new();
            for one in lists.iter().flatten() {
                if !known.insert(one.id) {
                    size.series -= 1;
                    size.data_bytes -= one.labels.packed().len() as u64;
                }
            }
        }
        size
    }

    pub(crate) fn add(&mut self, more: Size) {
        self.series += more.series;
        self.chunks += more.chunks;
        self.chunk_bytes += more.chunk_bytes;
        self.data_bytes += more.data_bytes;
    }
}

/// Which bound of memory it was is known to the account alone.
fn told(error: Error, turn: &Turn) -> Error {
    match error {
        Error::Promql(promql::Error::TooMuchMemory { .. }) => turn.account.refusal(),
        error => error,
    }
}

/// Whether a selector looks at more time than the tenant may. How far back the newest sample of a series may lie is not counted: nobody has asked for it, and a range query of
/// just the length that is allowed would be refused.
pub(crate) fn check_selector(
    plan: &Plan,
    selector: &promql::Selector,
    (floor, lookback): (i64, Duration),
    limit: Duration,
) -> Result<(), Error> {
    let unasked = match selector.range_ms {
        // What a request asks for beyond the usual counts.
        0 => plan.params().lookback_ms.min(millis(lookback)),
        _ => 0,
    };
    let first = selector.min_time.saturating_add(unasked).max(floor);
    check_length(first, selector.max_time, limit)
}

/// Both ends belong to the range: `m[2h]` reaches over the milliseconds after the one two hours ago.
pub(crate) fn check_length(min: i64, max: i64, limit: Duration) -> Result<(), Error> {
    let length = max.saturating_sub(min).saturating_add(1).max(0);
    let length = Duration::from_millis(length as u64);
    if limit > Duration::ZERO && length > limit {
        return Err(Error::TooLong { length, limit });
    }
    Ok(())
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn reason(class: Class) -> &'static str {
    match class {
        Class::Client => "client",
        Class::Limit => "limit",
        Class::Rate => "rate",
        Class::Execution => "execution",
        Class::Overload => "overload",
        Class::Timeout => "timeout",
        Class::Canceled => "canceled",
        Class::Internal => "internal",
    }
}

#[cfg(test)]
mod tests;
