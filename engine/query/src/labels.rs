//! Label names, label values and series: reads that need no evaluation.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Labels, Matcher, Projection};

use crate::engine::{Caller, Engine, Turn};
use crate::error::Error;
use crate::fanout::{self, Allowance, Reach};
use crate::options::{SELECTORS_AT_ONCE, TEXT_BYTES_MAX};

/// Which series a label or series request is about.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The texts of `match[]`; the union of what they select, or everything where there is none.
    pub selectors: Vec<String>,
    /// Milliseconds, inclusive; `i64::MIN` for no bound.
    pub start: i64,
    /// Milliseconds, inclusive; `i64::MAX` for no bound.
    pub end: i64,
    /// At most this many results; 0 is unlimited.
    pub limit: usize,
}

/// A list of names or values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// Sorted, no text twice.
    pub texts: Vec<String>,
    /// Whether the limit left some out.
    pub truncated: bool,
}

impl Engine {
    /// Names of labels; an empty list where no series matches.
    pub async fn label_names(&self, caller: &Caller, lookup: Lookup) -> Result<Texts, Error> {
        self.texts(caller, None, lookup).await
    }

    /// Values of the label `name`.
    pub async fn label_values(
        &self,
        caller: &Caller,
        name: &str,
        lookup: Lookup,
    ) -> Result<Texts, Error> {
        self.texts(caller, Some(name), lookup).await
    }

    /// Label sets of series, sorted, each once, and whether the limit left some out.
    ///
    /// Errors: no selector, or one that is malformed or could match the series without labels.
    pub async fn series(
        &self,
        caller: &Caller,
        lookup: Lookup,
    ) -> Result<(Vec<Labels>, bool), Error> {
        if lookup.selectors.is_empty() {
            let reason = "no match[] parameter provided".to_owned();
            return Err(Error::Parameter {
                name: "match[]",
                reason,
            });
        }
        let limit = lookup.limit;
        let allowance = Allowance {
            series_max: caller.limits.max_fetched_series_per_query,
            bytes_max: 0,
        };
        let text = lookup.selectors.join(" ");
        self.bounded("series", &text, None, caller, async |turn: &Turn<'_>| {
            let reaches = self.reaches(caller, &lookup).await?;
            let mut all = Vec::new();
            for some in reaches.chunks(SELECTORS_AT_ONCE) {
                let pending: Vec<_> = some
                    .iter()
                    .map(|reach| {
                        let (boxes, tenant) = (self.mailboxes(), &caller.tenant);
                        fanout::select(boxes, tenant, reach, false, allowance, &turn.canceled)
                    })
                    .collect();
                for answers in pending {
                    let series = answers.all().await?.into_iter().flatten();
                    all.extend(series.map(|series| series.labels));
                }
                check_series(all.len(), allowance)?;
            }
            let sort = move || {
                all.sort_unstable();
                all.dedup();
                let truncated = limit > 0 && all.len() > limit;
                if truncated {
                    all.truncate(limit);
                }
                (all, truncated)
            };
            self.run(sort).await
        })
        .await
    }

    async fn texts(
        &self,
        caller: &Caller,
        name: Option<&str>,
        lookup: Lookup,
    ) -> Result<Texts, Error> {
        let operation = if name.is_some() {
            "label_values"
        } else {
            "label_names"
        };
        let text = lookup.selectors.join(" ");
        self.bounded(operation, &text, None, caller, async |turn: &Turn<'_>| {
            let mut reaches = self.reaches(caller, &lookup).await?;
            if reaches.is_empty() {
                reaches.push(reach(self.floor(caller), Arc::from([]), &lookup));
            }
            let mut union = BTreeSet::new();
            for some in reaches.chunks(SELECTORS_AT_ONCE) {
                let pending: Vec<_> = some
                    .iter()
                    .map(|reach| {
                        let (boxes, tenant) = (self.mailboxes(), &caller.tenant);
                        fanout::labels(boxes, tenant, name, reach, &turn.canceled)
                    })
                    .collect();
                for answers in pending {
                    union.extend(answers.all().await?.into_iter().flatten());
                }
            }
            let truncated = lookup.limit > 0 && union.len() > lookup.limit;
            let count = if truncated { lookup.limit } else { union.len() };
            Ok(Texts {
                texts: union.into_iter().take(count).collect(),
                truncated,
            })
        })
        .await
    }

    /// The selectors of a lookup, parsed on a worker: a regular expression may take its time to compile.
    async fn reaches(&self, caller: &Caller, lookup: &Lookup) -> Result<Vec<Reach>, Error> {
        if lookup.selectors.is_empty() {
            return Ok(Vec::new());
        }
        if lookup.selectors.iter().map(String::len).sum::<usize>() > TEXT_BYTES_MAX {
            let reason = format!("more than {TEXT_BYTES_MAX} bytes");
            return Err(Error::Parameter {
                name: "match[]",
                reason,
            });
        }
        let texts = lookup.selectors.clone();
        let parse = move || texts.iter().map(|text| parse_selector(text)).collect();
        let parsed: Result<Vec<Vec<Matcher>>, Error> = self.run(parse).await?;
        let floor = self.floor(caller);
        Ok(parsed?
            .into_iter()
            .map(|matchers| reach(floor, matchers.into(), lookup))
            .collect())
    }
}

fn reach(floor: i64, matchers: Arc<[Matcher]>, lookup: &Lookup) -> Reach {
    Reach {
        matchers,
        min_time: lookup.start.max(floor),
        max_time: lookup.end,
        projection: Projection::All,
        newest: false,
    }
}

fn parse_selector(text: &str) -> Result<Vec<Matcher>, Error> {
    let wrong = |reason: String| Error::Parameter {
        name: "match[]",
        reason,
    };
    let matchers = promql::parse_selector(text).map_err(|e| wrong(e.to_string()))?;
    if matchers.iter().all(Matcher::matches_empty) {
        return Err(wrong(
            "match[] must contain at least one non-empty matcher".to_owned(),
        ));
    }
    Ok(matchers)
}

/// The cores enforce the bound each for itself; here it is enforced over all of them.
pub(crate) fn check_series(count: usize, allowance: Allowance) -> Result<(), Error> {
    let limit = allowance.series_max;
    if limit > 0 && count as u64 > limit {
        return Err(shard::ReadError::TooManySeries { limit }.into());
    }
    Ok(())
}
