//! A range query in parts: what is kept of earlier ones, and pieces that are evaluated one after another.

use std::time::Duration;

use model::QueryValue;
use promql::{AnnotationKind, Evaluated, Plan, Stats};
use tokio::time::Instant;

use crate::engine::{Caller, Engine, Query, Times, Turn, check_selector, millis};
use crate::error::Error;
use crate::memory::value_bytes;
use crate::results::{Asked, Piece, Request, Session, join, split};

/// What evaluating a plan gave, and how long its two stages took.
pub(crate) struct Ran {
    pub(crate) evaluated: Evaluated,
    pub(crate) fetching: Duration,
    pub(crate) evaluating: Duration,
}

impl Engine {
    /// Evaluates a plan, in parts where that is of use and nobody can tell.
    pub(crate) async fn run_plan(
        &self,
        caller: &Caller,
        query: &Query,
        plan: Plan,
        turn: &Turn,
    ) -> Result<Ran, Error> {
        // Who asks what it costs wants to know what all of it costs.
        if !matches!(query.times, Times::Range { .. }) || query.per_step || query.uncached {
            return self.run_whole(caller, plan, turn, query.per_step).await;
        }
        let session = self.session(caller, query, &plan, turn).await;
        let (steps, step) = (plan.steps(), plan.steps().step);
        let interval = interval_of(millis(self.options.split_interval), step);
        let pieces = match &session {
            Some(session) => session.to_evaluate(interval),
            None if plan.is_sum_of_parts() => {
                split(steps.start, steps.time(steps.count - 1), step, interval)
            }
            None => Vec::new(),
        };
        if session.is_none() && pieces.len() < 2 {
            return self.run_whole(caller, plan, turn, false).await;
        }
        self.run_pieces(caller, (query, plan), session, &pieces, turn)
            .await
    }

    /// What is kept of such a query, here and, for what is missing here, where others find it too.
    async fn session(
        &self,
        caller: &Caller,
        query: &Query,
        plan: &Plan,
        turn: &Turn,
    ) -> Option<Session> {
        // Changes are noted by tenant, not by several.
        let results = self
            .results
            .as_ref()
            .filter(|_| !caller.tenant.is_joined())?;
        let freshness = millis(caller.limits.max_cache_freshness);
        let request = Request {
            tenant: &caller.tenant,
            text: &query.text,
            floor: self.floor(caller),
            settled: caller.now_ms.saturating_sub(freshness),
            now_ms: caller.now_ms,
            ttl_ms: millis(caller.limits.results_cache_ttl),
        };
        let asked = Asked::of(&request, plan)?;
        let until = asked.until();
        let histories = self.holders().histories(&caller.tenant, until).await?;
        let mut session = results.open(asked, histories);
        let (Some(shared), spans) = (&self.options.shared_results, session.spans()) else {
            return Some(session);
        };
        if spans.is_empty() {
            return Some(session);
        }
        let (spans, keys): (Vec<_>, Vec<_>) = spans.into_iter().unzip();
        let found = shared.cache.get_later(keys).await;
        if found.iter().all(Option::is_none) {
            return Some(session);
        }
        // What there is no room for is evaluated instead. As points it is twice what it is in planes.
        let held = turn.account.held();
        let bytes: usize = found.iter().flatten().map(|value| value.len()).sum();
        if !turn.account.take(3 * bytes as u64) {
            return Some(session);
        }
        let results = results.clone();
        let add = move || {
            results.add(&mut session, &spans, &found);
            session
        };
        // Without it all is evaluated, or tells that the node goes down.
        let session = self.run(add).await.ok();
        turn.account.shrink(held);
        session
    }

    /// Evaluates what is missing, keeps it, and puts all of it together.
    async fn run_pieces(
        &self,
        caller: &Caller,
        (query, plan): (&Query, Plan),
        session: Option<Session>,
        runs: &[(i64, i64)],
        turn: &Turn,
    ) -> Result<Ran, Error> {
        // Of the whole, as without parts.
        for selector in plan.selectors() {
            let limit = caller.limits.max_query_length;
            let bounds = (self.floor(caller), self.options.lookback);
            check_selector(&plan, selector, bounds, limit)?;
        }
        let known = session.as_ref().map_or(0, Session::steps_known);
        let (from_cache, evaluated) = (known, plan.steps().count as u64 - known);
        self.metrics.count_steps(from_cache, evaluated);
        if runs.len() > 1 {
            self.metrics.split.inc_by(runs.len() as u64);
        }
        if !turn
            .account
            .take(session.as_ref().map_or(0, Session::bytes))
        {
            return Err(turn.account.refusal());
        }
        let mut held = turn.account.held();
        let (mut whole, steps) = (Joined::default(), plan.steps());
        let mut plan = Some(plan);
        for &(first, last) in runs {
            let all = first == steps.start && last == steps.time(steps.count - 1);
            let plan = match plan.take_if(|_| all) {
                Some(plan) => plan,
                None => {
                    let step = steps.step;
                    let times = Times::Range {
                        start: first,
                        end: last,
                        step,
                    };
                    let piece = Query {
                        times,
                        ..query.clone()
                    };
                    self.plan(caller, &piece, turn).await?
                }
            };
            let ran = self.run_whole(caller, plan, turn, false).await?;
            held += value_bytes(&ran.evaluated.value);
            turn.account.shrink(held);
            whole.add(first, last, ran);
        }
        let Joined { pieces, mut ran } = whole;
        let results = self.results.clone();
        let shared = self.options.shared_results.clone();
        // Copies of all that are not made on the thread that serves writes too.
        let put_together = move || {
            let Some(session) = session else {
                let slices = pieces.iter().map(Piece::slice);
                return (join(&slices.collect::<Vec<_>>()), Vec::new(), None);
            };
            let (series, infos) = (session.answer(&pieces), session.infos());
            let results = results.filter(|_| session.is_worth_keeping(&pieces));
            let size = results.map(|results| {
                results.keep(session, &pieces, shared.as_ref());
                results.size()
            });
            (series, infos, size)
        };
        let (series, infos, size) = self.run(put_together).await?;
        AnnotationKind::Info.join(&mut ran.evaluated.infos, infos);
        if let Some(size) = size {
            self.metrics.count_results(size);
        }
        ran.evaluated.value = QueryValue::Matrix(series);
        Ok(ran)
    }

    /// Evaluates a plan as it is.
    async fn run_whole(
        &self,
        caller: &Caller,
        plan: Plan,
        turn: &Turn,
        per_step: bool,
    ) -> Result<Ran, Error> {
        let begin = Instant::now();
        let catch = self.fetch(caller, &plan, turn).await?;
        let fetched = Instant::now();
        let lists = (catch.answers, catch.of_selector);
        let evaluated = self.evaluate(caller, plan, lists, turn, per_step).await?;
        Ok(Ran {
            evaluated,
            fetching: fetched - begin,
            evaluating: fetched.elapsed(),
        })
    }
}

/// Steps of a piece at least: one that has fewer costs more than it spares.
const PIECE_STEPS: i64 = 256;

/// The multiple of the configured interval that holds enough steps; 0 where nothing is split.
fn interval_of(configured: i64, step: i64) -> i64 {
    if configured <= 0 {
        return 0;
    }
    let least = step.saturating_mul(PIECE_STEPS);
    let times = least / configured + i64::from(least % configured > 0);
    configured.saturating_mul(times.max(1))
}

/// Pieces, and what there is to say of all of them.
struct Joined {
    pieces: Vec<Piece>,
    ran: Ran,
}

impl Default for Joined {
    fn default() -> Joined {
        Joined {
            pieces: Vec::new(),
            ran: Ran {
                evaluated: Evaluated {
                    value: QueryValue::Matrix(Vec::new()),
                    warnings: Vec::new(),
                    infos: Vec::new(),
                    stats: Stats::default(),
                    per_step: Vec::new(),
                    shards: 1,
                },
                fetching: Duration::ZERO,
                evaluating: Duration::ZERO,
            },
        }
    }
}

impl Joined {
    fn add(&mut self, first: i64, last: i64, ran: Ran) {
        let QueryValue::Matrix(series) = ran.evaluated.value else {
            unreachable!("the value of a range query is a matrix")
        };
        let (warnings, infos) = (ran.evaluated.warnings, ran.evaluated.infos);
        self.pieces.push(Piece {
            first,
            last,
            series,
            warned: !warnings.is_empty(),
            infos: infos.clone(),
        });
        let so_far = &mut self.ran;
        AnnotationKind::Warning.join(&mut so_far.evaluated.warnings, warnings);
        AnnotationKind::Info.join(&mut so_far.evaluated.infos, infos);
        let (stats, more) = (&mut so_far.evaluated.stats, ran.evaluated.stats);
        stats.total_samples += more.total_samples;
        stats.peak_samples = stats.peak_samples.max(more.peak_samples);
        so_far.evaluated.shards = so_far.evaluated.shards.max(ran.evaluated.shards);
        so_far.fetching += ran.fetching;
        so_far.evaluating += ran.evaluating;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step of more than the interval made a piece of every step: 11,000 evaluations for one query.
    #[test]
    fn pieces_have_steps_enough() {
        const DAY: i64 = 86_400_000;
        assert_eq!(interval_of(DAY, 60_000), DAY);
        assert_eq!(interval_of(DAY, DAY), 256 * DAY);
        assert_eq!(interval_of(DAY, 600_000), 2 * DAY);
        assert_eq!(interval_of(0, 60_000), 0);
        assert_eq!(interval_of(7, i64::MAX), i64::MAX);
    }
}
