//! Exemplars of the series that a query is about.
//!
//! The selectors are taken out of the query wherever they stand; what is computed with them does not matter, nor where `offset` and `@` move
//! them, as in Prometheus. A series that several selectors match is told once.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Exemplar, Labels, Matcher, Projection};

use crate::engine::{Caller, Engine, Size, Turn};
use crate::error::Error;
use crate::fanout::{self, Reach, Wanted};
use crate::federation::Part;
use crate::judge::Asking;
use crate::options::SELECTORS_AT_ONCE;

/// A series and its exemplars, ascending in time.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesExemplars {
    /// Of the series.
    pub labels: Labels,
    /// At least one.
    pub exemplars: Vec<Exemplar>,
}

impl Engine {
    /// The exemplars from `start` to `end` (milliseconds, inclusive), grouped by series, which are sorted by labels.
    ///
    /// Errors: text that is no query; the bounds on series and bytes of a query.
    pub async fn exemplars(
        &self,
        caller: &Caller,
        text: String,
        (start, end): (i64, i64),
    ) -> Result<Vec<SeriesExemplars>, Error> {
        let allowance = self.allowance(caller);
        let query = text.clone();
        self.bounded(
            Asking::plain("query_exemplars", &text),
            caller,
            async |turn: &Turn| {
                let query = query.clone();
                let selectors = move || -> Result<Vec<Arc<[Matcher]>>, Error> {
                    let expr = promql::parse(&query).map_err(promql::Error::from)?;
                    let selectors = expr.selectors().into_iter();
                    Ok(selectors.map(|s| s.matchers.clone().into()).collect())
                };
                let reaches: Vec<Reach> = (self.run(selectors).await??.into_iter())
                    .map(|matchers| Reach {
                        matchers,
                        min_time: start.max(self.floor(caller)),
                        max_time: end,
                        projection: Projection::All,
                        newest: false,
                        windows: None,
                    })
                    .collect();
                self.check_patterns(caller, &reaches, turn).await?;
                let mut found: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
                let mut size = Size::default();
                let parts: Vec<Part> = reaches
                    .iter()
                    .flat_map(|reach| caller.parts(reach))
                    .collect();
                for some in parts.chunks(SELECTORS_AT_ONCE) {
                    let ask = |part: &Part| {
                        let Part { caller, reach, .. } = part;
                        fanout::select(
                            self.holders(),
                            caller,
                            reach,
                            Wanted::Exemplars,
                            allowance,
                            turn,
                        )
                    };
                    let pending: Vec<_> = some.iter().map(ask).collect();
                    for (part, answers) in some.iter().zip(pending) {
                        let mut answers = answers.all(turn).await?;
                        size.add(Size::of(answers.iter().flatten()));
                        allowance.check(size)?;
                        part.mark(&mut answers, turn)?;
                        for series in answers.into_iter().flatten() {
                            found.insert(series.labels, series.exemplars);
                        }
                    }
                }
                let series = found.into_iter();
                Ok(series
                    .map(|(labels, exemplars)| SeriesExemplars { labels, exemplars })
                    .collect())
            },
        )
        .await
        .map_err(|error| self.for_want_of_memory(error, allowance))
    }
}
