//! Bounds on regular expressions: how long they are, and over how many values of a label they run.
//!
//! What is answered from a set of words, by a prefix or by a suffix runs over nothing (`model::Matcher`). For the others, where a bound is configured, the
//! values of the label are counted first, in cores and blocks, each once: as much work as the expression itself would be, and no more. Without
//! a bound nothing is counted.

use std::collections::HashSet;
use std::sync::Arc;

use model::{Matcher, Projection, TenantId};

use crate::blocks::Look;
use crate::engine::{Caller, Engine, Turn};
use crate::error::Error;
use crate::fanout::{self, Reach};

impl Engine {
    /// Errors: a regular expression beyond a bound of the tenant.
    pub(crate) async fn check_patterns(
        &self,
        caller: &Caller,
        reaches: &[Reach],
        turn: &Turn,
    ) -> Result<(), Error> {
        let limits = &caller.limits;
        let regexes = |reach: &Reach| {
            let matchers = reach.matchers.iter().filter(|m| m.is_regex());
            matchers.cloned().collect::<Vec<Matcher>>()
        };
        let limit = limits.max_regex_pattern_length;
        let is_long = |m: &Matcher| limit > 0 && m.value().len() as u64 > limit;
        if let Some(long) = reaches.iter().flat_map(regexes).find(is_long) {
            return Err(Error::PatternTooLong {
                label: long.name().to_owned(),
                length: long.value().len() as u64,
                limit,
            });
        }
        let (values_max, bytes_max) = (
            limits.max_label_cardinality_for_unoptimized_regex,
            limits.max_total_label_value_length_for_unoptimized_regex,
        );
        if values_max == 0 && bytes_max == 0 {
            return Ok(());
        }
        let mut counted: HashSet<(TenantId, String, i64, i64)> = HashSet::new();
        for part in reaches.iter().flat_map(|reach| caller.parts(reach)) {
            for matcher in regexes(&part.reach).iter().filter(|m| m.runs_over_values()) {
                let (min, max) = (part.reach.min_time, part.reach.max_time);
                let name = matcher.name().to_owned();
                if !counted.insert((part.caller.tenant.clone(), name, min, max)) {
                    continue;
                }
                let (values, bytes) = self
                    .values_of(&part.caller, matcher.name(), (min, max), turn)
                    .await?;
                for (what, found, limit, setting) in [
                    (
                        "values",
                        values,
                        values_max,
                        "max_label_cardinality_for_unoptimized_regex",
                    ),
                    (
                        "bytes of values",
                        bytes,
                        bytes_max,
                        "max_total_label_value_length_for_unoptimized_regex",
                    ),
                ] {
                    if limit > 0 && found > limit {
                        return Err(Error::PatternTooWide {
                            label: matcher.name().to_owned(),
                            pattern: matcher.value().to_owned(),
                            what,
                            found,
                            limit,
                            setting,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Number and bytes of the values of a label.
    async fn values_of(
        &self,
        caller: &Caller,
        name: &str,
        (min_time, max_time): (i64, i64),
        turn: &Turn,
    ) -> Result<(u64, u64), Error> {
        let reach = Reach {
            matchers: Arc::from([]),
            min_time,
            max_time,
            projection: Projection::All,
            newest: false,
            windows: None,
        };
        let cores = fanout::labels(self.holders(), caller, Some(name), &reach, turn);
        let cores = cores.all(turn).await?;
        let wanted = name.to_owned();
        let labels = move |look: &Look<'_>| look.labels(Some(&wanted));
        let blocks = self.in_blocks(caller, &reach, turn, labels).await?;
        let count = move || {
            let values: HashSet<&String> = cores.iter().flatten().chain(&blocks).collect();
            let bytes = values.iter().map(|value| value.len() as u64).sum();
            (values.len() as u64, bytes)
        };
        self.run(count).await
    }
}
