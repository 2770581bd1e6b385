//! What is decided about a request before it waits for its turn: whether it may be asked at all, and which priority it has.
//!
//! In this order, once it is a query at all: a range query that asks for a longer time than `max_query_length`, rules of `query_rejection`, `query_priority`. Rules that look at
//! the times of the data have the query parsed and planned for that, on a worker; so has a short one without regular expressions that is refused, since what is no query is told first.

use std::time::Duration;

use model::Asked;

use crate::engine::{Caller, Engine, Query, Times};
use crate::error::Error;
use crate::labels::Lookup;

/// Texts up to this are parsed for the words of a refusal.
const PARSED_BYTES_MAX: usize = 16 << 10;

/// A request on its way to a place.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) operation: &'static str,
    /// What is refused to the tenant for a while should the work panic.
    pub(crate) text: &'a str,
    pub(crate) timeout: Option<Duration>,
    /// How long it has waited before it came here.
    pub(crate) waited: Duration,
    pub(crate) subject: Subject<'a>,
}

/// What rules look at.
#[derive(Debug)]
pub(crate) enum Subject<'a> {
    /// Nothing.
    Other,
    Query(&'a Query),
    /// Series or labels; with the word for it in rules.
    Lookup(&'static str, &'a Lookup),
}

impl<'a> Asking<'a> {
    /// A request that no rules are about.
    pub(crate) fn plain(operation: &'static str, text: &'a str) -> Asking<'a> {
        Asking {
            operation,
            text,
            timeout: None,
            waited: Duration::ZERO,
            subject: Subject::Other,
        }
    }

    pub(crate) fn query(text: &'a str, query: &'a Query) -> Asking<'a> {
        Asking {
            timeout: query.timeout,
            waited: query.waited,
            subject: Subject::Query(query),
            ..Asking::plain(api_type(query), text)
        }
    }

    pub(crate) fn lookup(
        operation: &'static str,
        text: &'a str,
        api_type: &'static str,
        lookup: &'a Lookup,
    ) -> Asking<'a> {
        Asking {
            subject: Subject::Lookup(api_type, lookup),
            ..Asking::plain(operation, text)
        }
    }
}

fn api_type(query: &Query) -> &'static str {
    match query.times {
        Times::Instant(_) => "query",
        Times::Range { .. } => "query_range",
    }
}

impl Engine {
    /// The priority of a request. Errors: it may not be asked.
    pub(crate) async fn judge(&self, caller: &Caller, subject: &Subject<'_>) -> Result<i64, Error> {
        let judged = self.judge_query(caller, subject).await;
        let (Err(refusal), Subject::Query(query)) = (&judged, subject) else {
            return judged;
        };
        // It has no turn, so it has to be little work: an expression of a matcher may take long to compile.
        let is_soon_parsed = query.text.len() <= PARSED_BYTES_MAX && !query.text.contains('~');
        if !is_soon_parsed || !matches!(refusal, Error::RangeTooLong { .. } | Error::Rejected) {
            return judged;
        }
        // What is no query is told so whatever else is wrong with it; who is not refused is parsed later anyway.
        let text = query.text.clone();
        match self.run(move || promql::parse(&text).err()).await? {
            Some(wrong) => Err(promql::Error::from(wrong).into()),
            None => judged,
        }
    }

    async fn judge_query(&self, caller: &Caller, subject: &Subject<'_>) -> Result<i64, Error> {
        if let Subject::Query(query) = subject {
            self.check_range(caller, query)?;
        }
        let limits = &caller.limits;
        let (rejection, priority) = (&limits.query_rejection, &limits.query_priority);
        if !rejection.enabled && !priority.enabled {
            return Ok(0);
        }
        let looks_at_data = rejection.looks_at_data() || priority.looks_at_data();
        let client = &caller.client;
        let mut asked = Asked {
            api_type: "",
            texts: &[],
            data: None,
            step_ms: None,
            user_agent: &client.user_agent,
            dashboard_uid: &client.dashboard_uid,
            panel_id: &client.panel_id,
            now_ms: caller.now_ms,
        };
        match subject {
            Subject::Other => Ok(priority.default_priority * i64::from(priority.enabled)),
            Subject::Query(query) => {
                asked.api_type = api_type(query);
                asked.texts = std::slice::from_ref(&query.text);
                if let Times::Range { step, .. } = query.times {
                    asked.step_ms = Some(step);
                }
                if looks_at_data {
                    asked.data = self.data_of(query).await?;
                }
                decided(caller, &asked)
            }
            Subject::Lookup(api_type, lookup) => {
                asked.api_type = api_type;
                asked.texts = &lookup.selectors;
                let bounded = lookup.start != i64::MIN && lookup.end != i64::MAX;
                asked.data = bounded.then_some((lookup.start, lookup.end));
                decided(caller, &asked)
            }
        }
    }

    /// A start that is moved because of `max_query_lookback` counts from where it is moved to.
    fn check_range(&self, caller: &Caller, query: &Query) -> Result<(), Error> {
        let Times::Range { start, end, .. } = query.times else {
            return Ok(());
        };
        let limit = caller.limits.max_query_length;
        let length = end.saturating_sub(start.max(self.floor(caller))).max(0);
        let length = Duration::from_millis(length.unsigned_abs());
        if limit > Duration::ZERO && length > limit {
            return Err(Error::RangeTooLong { length, limit });
        }
        Ok(())
    }

    /// First and last time that the selectors reach; `None` where there are none, or the text is no query, which its evaluation will tell.
    async fn data_of(&self, query: &Query) -> Result<Option<(i64, i64)>, Error> {
        let (text, params) = (query.text.clone(), self.params(query));
        let plan = move || {
            let expr = promql::parse(&text).ok()?;
            let plan = promql::plan(&expr, &params).ok()?;
            let first = plan.selectors().iter().map(|s| s.min_time).min()?;
            let last = plan.selectors().iter().map(|s| s.max_time).max()?;
            Some((first, last))
        };
        self.run(plan).await
    }
}

fn decided(caller: &Caller, asked: &Asked<'_>) -> Result<i64, Error> {
    match caller.limits.query_rejection.refuses(asked) {
        true => Err(Error::Rejected),
        false => Ok(caller.limits.query_priority.of(asked)),
    }
}
