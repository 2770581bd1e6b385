//! Label names, label values and series: reads that need no evaluation.

use std::sync::Arc;

use model::{Labels, Matcher, Projection};

use crate::blocks::Look;
use crate::engine::{Caller, Engine, Size, Turn};
use crate::error::Error;
use crate::fanout::{self, Allowance, Reach, Wanted};
use crate::federation::Part;
use crate::judge::Asking;
use crate::memory::Account;
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
#[derive(Debug)]
pub struct Texts {
    /// Sorted, no text twice.
    pub texts: Vec<String>,
    /// Whether the limit left some out.
    pub truncated: bool,
    /// Their memory; to be kept until they have been sent.
    pub account: Arc<Account>,
}

/// Label sets of series.
#[derive(Debug)]
pub struct LabelSets {
    /// Sorted, none twice.
    pub sets: Vec<Labels>,
    /// Whether the limit left some out.
    pub truncated: bool,
    /// Their memory; to be kept until they have been sent.
    pub account: Arc<Account>,
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
    pub async fn series(&self, caller: &Caller, lookup: Lookup) -> Result<LabelSets, Error> {
        if lookup.selectors.is_empty() {
            let reason = "no match[] parameter provided".to_owned();
            return Err(Error::Parameter {
                name: "match[]",
                reason,
            });
        }
        let limit = lookup.limit;
        let allowance = Allowance {
            chunks_max: 0,
            bytes_max: 0,
            ..Allowance::of(&caller.limits)
        };
        let text = lookup.selectors.join(" ");
        let asking = Asking::lookup("series", &text, "series", &lookup);
        self.bounded(asking, caller, async |turn: &Turn| {
            let reaches = self.reaches(caller, &lookup, turn).await?;
            let mut all = Vec::new();
            let mut size = Size::default();
            let parts: Vec<Part> = reaches
                .iter()
                .flat_map(|reach| caller.parts(reach))
                .collect();
            for some in parts.chunks(SELECTORS_AT_ONCE) {
                let select = |part: &Part| {
                    let Part { caller, reach, .. } = part;
                    (!reach.is_empty()).then(|| {
                        fanout::select(
                            self.holders(),
                            caller,
                            reach,
                            Wanted::Labels,
                            allowance,
                            turn,
                        )
                    })
                };
                let pending: Vec<_> = some.iter().map(select).collect();
                for (part, answers) in some.iter().zip(pending) {
                    let Some(answers) = answers else {
                        continue;
                    };
                    let mut answers = answers.all(turn).await?;
                    let select = move |look: &Look<'_>| look.select(false, allowance);
                    let blocks = self.in_blocks(&part.caller, &part.reach, turn, select);
                    answers.extend(blocks.await?);
                    size.add(Size::of_lists(&answers, self.holders().count()));
                    allowance.check(size)?;
                    part.mark(&mut answers, turn)?;
                    let series = answers.into_iter().flatten();
                    all.extend(series.map(|series| series.labels));
                }
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
            let (sets, truncated) = self.run(sort).await?;
            Ok(LabelSets {
                sets,
                truncated,
                account: turn.account.clone(),
            })
        })
        .await
    }

    async fn texts(
        &self,
        caller: &Caller,
        name: Option<&str>,
        lookup: Lookup,
    ) -> Result<Texts, Error> {
        let (operation, api_type) = match name {
            Some(_) => ("label_values", "label_values"),
            None => ("label_names", "labels"),
        };
        let limit = lookup.limit;
        let text = lookup.selectors.join(" ");
        let asking = Asking::lookup(operation, &text, api_type, &lookup);
        self.bounded(asking, caller, async |turn: &Turn| {
            let mut reaches = self.reaches(caller, &lookup, turn).await?;
            if reaches.is_empty() {
                reaches.push(reach(self.floor(caller), Arc::from([]), &lookup));
            }
            let mut all = Vec::new();
            let parts: Vec<Part> = reaches
                .iter()
                .flat_map(|reach| caller.parts(reach))
                .collect();
            for some in parts.chunks(SELECTORS_AT_ONCE) {
                let inner = |part: &Part| name.and_then(|name| part.inner_name(name));
                // The tenants that are asked, of whom nothing has to be asked.
                let of_tenant = |part: &Part| name.is_some() && inner(part).is_none();
                let labels = |part: &Part| {
                    let Part { caller, reach, .. } = part;
                    let asked = !reach.is_empty() && !of_tenant(part);
                    asked.then(|| fanout::labels(self.holders(), caller, inner(part), reach, turn))
                };
                let pending: Vec<_> = some.iter().map(labels).collect();
                for (part, answers) in some.iter().zip(pending) {
                    let mut found: Vec<String> = Vec::new();
                    if let Some(answers) = answers {
                        let answers = answers.all(turn).await?;
                        found.extend(answers.into_iter().flatten());
                        let inner = inner(part).map(str::to_owned);
                        let labels = move |look: &Look<'_>| look.labels(inner.as_deref());
                        let blocks = self.in_blocks(&part.caller, &part.reach, turn, labels);
                        found.extend(blocks.await?);
                    }
                    if name.is_none() {
                        part.outer_names(&mut found);
                    } else if of_tenant(part) {
                        found.push(part.caller.tenant.as_str().to_owned());
                    }
                    all.extend(found);
                }
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
            let (texts, truncated) = self.run(sort).await?;
            Ok(Texts {
                texts,
                truncated,
                account: turn.account.clone(),
            })
        })
        .await
    }

    /// The selectors of a lookup, parsed on a worker: a regular expression may take its time to compile.
    async fn reaches(
        &self,
        caller: &Caller,
        lookup: &Lookup,
        turn: &Turn,
    ) -> Result<Vec<Reach>, Error> {
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
        let parsed: Result<Vec<Vec<Matcher>>, Error> = self.begin(turn, parse).await?;
        let floor = self.floor(caller);
        let reaches: Vec<Reach> = (parsed?.into_iter())
            .map(|matchers| reach(floor, matchers.into(), lookup))
            .collect();
        self.check_patterns(caller, &reaches, turn).await?;
        Ok(reaches)
    }
}

fn reach(floor: i64, matchers: Arc<[Matcher]>, lookup: &Lookup) -> Reach {
    Reach {
        matchers,
        min_time: lookup.start.max(floor),
        max_time: lookup.end,
        projection: Projection::All,
        newest: false,
        windows: None,
    }
}

pub(crate) fn parse_selector(text: &str) -> Result<Vec<Matcher>, Error> {
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
