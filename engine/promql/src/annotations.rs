//! Warnings and infos: what a query could do, but its author should know.
//!
//! Texts are those of Prometheus, position included. Functions add to [`Notes`], which knows the expression that is evaluated; each
//! text is kept once, and the first [`ANNOTATIONS_MAX`] of each kind in their order, so a note per sample costs a look-up. What is kept is the
//! same in whatever order pieces and shards of a query add theirs; so is the one note that counts, of buckets whose counts fell.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::expr::Span;
use crate::functions::buckets::Flattened;
use crate::functions::date;
use crate::functions::quantile::go_number;

/// More texts of one kind than this are not kept: Prometheus answers 10 by default.
pub const ANNOTATIONS_MAX: usize = 10;

/// The collected texts of one query or of one piece of it.
#[derive(Debug, Default, Clone)]
pub struct Annotations {
    warnings: BTreeSet<String>,
    infos: BTreeSet<String>,
    /// By place and metric; one info each.
    corrections: BTreeMap<(String, String), Correction>,
}

/// Flattened buckets of one or more histograms and times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Correction {
    flattened: Flattened,
    samples: u64,
    first: i64,
    last: i64,
}

impl Correction {
    /// At one time, milliseconds.
    pub(crate) fn new(flattened: Flattened, time: i64) -> Correction {
        Correction {
            flattened,
            samples: 1,
            first: time,
            last: time,
        }
    }

    /// Both.
    pub(crate) fn and(self, other: Correction) -> Correction {
        Correction {
            flattened: self.flattened.and(other.flattened),
            samples: self.samples + other.samples,
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }

    fn text(&self, at: &str, metric: &str) -> String {
        let Flattened {
            lowest,
            highest,
            difference_max,
        } = self.flattened;
        let of = match metric {
            "" => String::new(),
            metric => format!(" for metric name {metric:?}"),
        };
        format!(
            "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){of}, \
             from buckets {} to {}, with a max diff of {}, over {} samples from {} to {} ({at})",
            go_number(lowest),
            go_number(highest),
            go_number(two_digits(difference_max)),
            self.samples,
            date::rfc3339(self.first),
            date::rfc3339(self.last),
        )
    }
}

/// Rounded to two significant digits.
fn two_digits(value: f64) -> f64 {
    format!("{value:.1e}").parse().unwrap_or(value)
}

impl Annotations {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: Annotations) {
        other
            .warnings
            .into_iter()
            .for_each(|text| insert(&mut self.warnings, text));
        other
            .infos
            .into_iter()
            .for_each(|text| insert(&mut self.infos, text));
        for (key, correction) in other.corrections {
            self.correct(key, correction);
        }
    }

    /// One that is beyond the bound never comes back, so what is kept has all that was added to it.
    fn correct(&mut self, key: (String, String), more: Correction) {
        let known = self.corrections.entry(key);
        known.and_modify(|c| *c = c.and(more)).or_insert(more);
        if self.corrections.len() > ANNOTATIONS_MAX {
            self.corrections.pop_last();
        }
    }

    /// The warnings, sorted.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.iter().cloned().collect()
    }

    /// The infos, sorted.
    pub fn infos(&self) -> Vec<String> {
        let mut infos = self.infos.clone();
        for ((at, metric), correction) in &self.corrections {
            insert(&mut infos, correction.text(at, metric));
        }
        infos.into_iter().collect()
    }

    /// Adds a warning; `text` comes without the prefix.
    pub fn warn(&mut self, text: &str, at: &str) {
        insert(&mut self.warnings, format!("PromQL warning: {text} ({at})"));
    }

    /// Adds an info; `text` comes without the prefix.
    pub fn info(&mut self, text: &str, at: &str) {
        insert(&mut self.infos, format!("PromQL info: {text} ({at})"));
    }
}

fn insert(set: &mut BTreeSet<String>, text: String) {
    set.insert(text);
    if set.len() > ANNOTATIONS_MAX {
        set.pop_last();
    }
}

/// Where a function leaves its notes: the collection and the places of its arguments in the query.
pub struct Notes<'a> {
    /// The collection.
    pub annotations: &'a mut Annotations,
    /// The query's text, for positions.
    pub text: &'a str,
    /// The arguments' places, in order.
    pub args: &'a [Span],
    /// Name of the metric at hand, empty where it has none.
    pub metric: &'a str,
}

impl Notes<'_> {
    /// A warning at argument `arg`.
    pub fn warn(&mut self, arg: usize, text: &str) {
        let at = self.place(arg);
        self.annotations.warn(text, &at);
    }

    /// An info at argument `arg`.
    pub fn info(&mut self, arg: usize, text: &str) {
        let at = self.place(arg);
        self.annotations.info(text, &at);
    }

    /// The counts of histograms of `metric`, which is argument `arg`, fell from one bucket to the next.
    pub(crate) fn correct(&mut self, arg: usize, metric: String, correction: Correction) {
        let at = self.place(arg);
        self.annotations.correct((at, metric), correction);
    }

    fn place(&self, arg: usize) -> String {
        self.args
            .get(arg)
            .map_or_else(|| "1:1".to_owned(), |span| span.place(self.text))
    }
}
