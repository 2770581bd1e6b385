//! Which labels a tenant has, and how many series each: `/status/tsdb` and the cardinality API.
//!
//! Without a selector the head index answers: no series is visited for the counts of labels. With one, the label sets of what it
//! selects are counted, within the bounds of any other query.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Labels, METRIC_NAME, Projection};
use shard::{Cardinality, NameCardinality};

use crate::engine::{Caller, Engine, Size, Turn};
use crate::error::Error;
use crate::fanout::{self, Allowance, Reach, Wanted};
use crate::judge::Asking;
use crate::labels::parse_selector;

/// A name and a number.
pub type Count = (String, u64);

/// The labels of one tenant, counted over all cores.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// Series in memory.
    pub series: u64,
    /// Distinct pairs of name and value.
    pub label_pairs: u64,
    /// Chunks in memory.
    pub chunks: u64,
    /// Oldest sample, milliseconds; `None` without samples.
    pub min_time: Option<i64>,
    /// Newest sample.
    pub max_time: Option<i64>,
    /// Metric names with the most series, as many as asked for; ties by name.
    pub series_by_metric: Vec<Count>,
    /// Label names with the most values.
    pub values_by_label: Vec<Count>,
    /// Label names whose values have the most bytes, each counted once for every series that has it.
    pub bytes_by_label: Vec<Count>,
    /// Pairs `name=value` with the most series.
    pub series_by_pair: Vec<Count>,
}

/// One label.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelCounts {
    /// Its name.
    pub name: String,
    /// How many values it has.
    pub values_count: u64,
    /// How many series have it.
    pub series_count: u64,
    /// Values with the most series, as many as asked for; ties by value.
    pub values: Vec<Count>,
}

/// Labels by cardinality.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labeled {
    /// Series looked at.
    pub series_count: u64,
    /// Names of labels there are.
    pub names_count: u64,
    /// Values of all of them together.
    pub values_count: u64,
    /// Labels: those asked for in the order of their names, or those with the most values.
    pub labels: Vec<LabelCounts>,
}

impl Engine {
    /// What the head holds of a tenant; lists of at most `limit`.
    pub async fn head(&self, caller: &Caller, limit: usize) -> Result<Head, Error> {
        self.bounded(
            Asking::plain("status_tsdb", ""),
            caller,
            async |turn: &Turn| {
                let answers = fanout::cardinality(self.holders(), caller, &[], turn);
                let answers = answers.all(turn).await?;
                self.run(move || head(&answers, limit)).await
            },
        )
        .await
    }

    /// The label names with the most values, at most `limit`, among the series of a selector or all.
    pub async fn cardinality_of_names(
        &self,
        caller: &Caller,
        selector: Option<String>,
        limit: usize,
    ) -> Result<Labeled, Error> {
        let text = selector.clone().unwrap_or_default();
        let operation = "cardinality_label_names";
        self.bounded(
            Asking::plain(operation, &text),
            caller,
            async |turn: &Turn| {
                let (series_count, merged) = self.counted(caller, selector, &[], turn).await?;
                let rank = move || {
                    let mut labels: Vec<LabelCounts> = merged
                        .into_iter()
                        .map(|(name, values)| label_counts(name, values, 0))
                        .collect();
                    let names_count = labels.len() as u64;
                    let values_count = labels.iter().map(|label| label.values_count).sum();
                    labels
                        .sort_by(|a, b| (b.values_count, &a.name).cmp(&(a.values_count, &b.name)));
                    labels.truncate(limit);
                    Labeled {
                        series_count,
                        names_count,
                        values_count,
                        labels,
                    }
                };
                self.run(rank).await
            },
        )
        .await
    }

    /// The values of some labels, at most `limit` of each, by how many series have them.
    pub async fn cardinality_of_values(
        &self,
        caller: &Caller,
        names: Vec<String>,
        selector: Option<String>,
        limit: usize,
    ) -> Result<Labeled, Error> {
        let text = selector.clone().unwrap_or_default();
        let operation = "cardinality_label_values";
        self.bounded(
            Asking::plain(operation, &text),
            caller,
            async |turn: &Turn| {
                let (series_count, mut merged) =
                    self.counted(caller, selector, &names, turn).await?;
                let rank = move || {
                    let labels: Vec<LabelCounts> = names
                        .into_iter()
                        .map(|name| {
                            let values = merged.remove(&name).unwrap_or_default();
                            label_counts(name, values, limit)
                        })
                        .collect();
                    Labeled {
                        series_count,
                        names_count: labels.len() as u64,
                        values_count: labels.iter().map(|label| label.values_count).sum(),
                        labels,
                    }
                };
                self.run(rank).await
            },
        )
        .await
    }

    /// How many series there are, and how many have each value of each name (of `names`, if there are any).
    async fn counted(
        &self,
        caller: &Caller,
        selector: Option<String>,
        names: &[String],
        turn: &Turn,
    ) -> Result<(u64, Merged), Error> {
        let Some(selector) = selector else {
            let answers = fanout::cardinality(self.holders(), caller, names, turn);
            let answers = answers.all(turn).await?;
            let merge = move || {
                let series = answers.iter().map(|answer| answer.series).sum();
                (series, merge(&answers))
            };
            return self.run(merge).await;
        };
        let parse = move || parse_selector(&selector);
        let matchers = self.begin(turn, parse).await??;
        let reach = Reach {
            matchers: Arc::from(matchers),
            min_time: self.floor(caller),
            max_time: i64::MAX,
            projection: Projection::All,
            newest: false,
            windows: None,
        };
        let allowance = Allowance {
            chunks_max: 0,
            bytes_max: 0,
            ..Allowance::of(&caller.limits)
        };
        let answers = fanout::select(
            self.holders(),
            caller,
            &reach,
            Wanted::Known,
            allowance,
            turn,
        );
        let answers = answers.all(turn).await?;
        allowance.check(Size::of(answers.iter().flatten()))?;
        let names = names.to_vec();
        let count = move || {
            let sets: Vec<Labels> = answers
                .into_iter()
                .flatten()
                .map(|one| one.labels)
                .collect();
            (sets.len() as u64, count(&sets, &names))
        };
        self.run(count).await
    }
}

/// By name, by value: how many series.
type Merged = BTreeMap<String, BTreeMap<String, u64>>;

fn merge(answers: &[Cardinality]) -> Merged {
    let mut merged = Merged::new();
    for name in answers.iter().flat_map(|answer| &answer.names) {
        let values = merged.entry(name.name.clone()).or_default();
        for (value, count) in each(name) {
            match values.get_mut(value) {
                Some(sum) => *sum += count,
                None => _ = values.insert(value.to_owned(), count),
            }
        }
    }
    merged
}

fn count(sets: &[Labels], names: &[String]) -> Merged {
    let mut merged = Merged::new();
    for (name, value) in sets.iter().flat_map(|labels| labels.iter()) {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        if !merged.contains_key(name) {
            merged.insert(name.to_owned(), BTreeMap::new());
        }
        let values = merged.get_mut(name).expect("inserted above");
        match values.get_mut(value) {
            Some(sum) => *sum += 1,
            None => _ = values.insert(value.to_owned(), 1),
        }
    }
    merged
}

/// The values of a name on one core.
fn each(name: &NameCardinality) -> impl Iterator<Item = (&str, u64)> {
    let mut from = 0;
    name.values.iter().map(move |&(end, count)| {
        let value = &name.text[from..end];
        from = end;
        (value, u64::from(count))
    })
}

fn label_counts(name: String, values: BTreeMap<String, u64>, limit: usize) -> LabelCounts {
    LabelCounts {
        name,
        values_count: values.len() as u64,
        series_count: values.values().sum(),
        values: top(values.into_iter(), limit),
    }
}

/// The largest, at most `limit`, ties in the order of the names. Cost: a sort of what is kept, for every `limit` candidates.
fn top(counts: impl Iterator<Item = Count>, limit: usize) -> Vec<Count> {
    let mut best: Vec<Count> = Vec::new();
    let cut = |best: &mut Vec<Count>| {
        best.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        best.truncate(limit);
    };
    for count in counts {
        best.push(count);
        if best.len() > 2 * limit + 64 {
            cut(&mut best);
        }
    }
    cut(&mut best);
    best
}

fn head(answers: &[Cardinality], limit: usize) -> Head {
    let merged = merge(answers);
    let of = |name: &str| merged.get(name).cloned().unwrap_or_default();
    let values = merged
        .iter()
        .map(|(name, v)| (name.clone(), v.len() as u64));
    let bytes = merged.iter().map(|(name, values)| {
        let bytes = values.iter().map(|(value, n)| value.len() as u64 * n);
        (name.clone(), bytes.sum())
    });
    let pairs = merged.iter().flat_map(|(name, values)| {
        let pair = move |(value, n): (&String, &u64)| (format!("{name}={value}"), *n);
        values.iter().map(pair)
    });
    let min = answers.iter().map(|answer| answer.min_time).min();
    let max = answers.iter().map(|answer| answer.max_time).max();
    Head {
        series: answers.iter().map(|answer| answer.series).sum(),
        label_pairs: merged.values().map(|values| values.len() as u64).sum(),
        chunks: answers.iter().map(|answer| answer.chunks).sum(),
        min_time: min.filter(|&time| time < i64::MAX),
        max_time: max.filter(|&time| time > i64::MIN),
        series_by_metric: top(of(METRIC_NAME).into_iter(), limit),
        values_by_label: top(values, limit),
        bytes_by_label: top(bytes, limit),
        series_by_pair: top(pairs, limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(names: &[(&str, &[(&str, u32)])]) -> Cardinality {
        let name = |(name, values): &(&str, &[(&str, u32)])| {
            let mut one = NameCardinality {
                name: (*name).to_owned(),
                ..NameCardinality::default()
            };
            for (value, count) in *values {
                one.text.push_str(value);
                one.values.push((one.text.len(), *count));
            }
            one
        };
        Cardinality {
            series: 3,
            chunks: 4,
            min_time: 10,
            max_time: 20,
            names: names.iter().map(name).collect(),
        }
    }

    #[test]
    fn values_of_several_cores_are_counted_once_and_their_series_added() {
        let answers = [
            core(&[("__name__", &[("up", 3)]), ("job", &[("a", 2), ("bb", 1)])]),
            core(&[("__name__", &[("up", 2), ("x", 1)]), ("job", &[("bb", 3)])]),
        ];
        let head = head(&answers, 1);
        let one = |name: &str, count| vec![(name.to_owned(), count)];
        assert_eq!((head.series, head.chunks, head.label_pairs), (6, 8, 4));
        assert_eq!((head.min_time, head.max_time), (Some(10), Some(20)));
        assert_eq!(head.series_by_metric, one("up", 5));
        assert_eq!(head.values_by_label, one("__name__", 2));
        assert_eq!(head.bytes_by_label, one("__name__", 11));
        assert_eq!(head.series_by_pair, one("__name__=up", 5));
        let empty = super::head(&[], 10);
        assert_eq!((empty.min_time, empty.series), (None, 0));
    }

    #[test]
    fn the_largest_are_kept_whatever_the_order() {
        let counts = (0..1000u64).map(|n| (format!("v{n:04}"), n * 7919 % 1000));
        let best = top(counts, 3);
        assert_eq!(
            best.iter().map(|c| c.1).collect::<Vec<_>>(),
            [999, 998, 997]
        );
        let ties = ["c", "a", "b"].map(|name| (name.to_owned(), 1));
        assert_eq!(top(ties.into_iter(), 2)[1].0, "b");
    }
}
