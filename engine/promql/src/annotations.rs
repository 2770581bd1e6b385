//! Warnings and infos: what a query could do, but its author should know.
//!
//! Texts are those of Prometheus, position included. Functions add to [`Notes`], which knows the expression that is evaluated; each
//! text is kept once, and the first [`ANNOTATIONS_MAX`] of each kind in their order, so a note per sample costs a look-up. How many others there were
//! is told, as by Prometheus. What is kept is the same in whatever order pieces and shards of a query add theirs; so is the one note that counts,
//! of buckets whose counts fell.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use model::quoted;

use crate::expr::Span;
use crate::functions::buckets::Flattened;
use crate::functions::date;
use crate::functions::quantile::go_number;

/// More texts of one kind than this are not kept: Prometheus answers 10 by default.
pub const ANNOTATIONS_MAX: usize = 10;

/// Texts of one kind are counted up to this many: 8 bytes each, and those of a query that has more need nobody's exact number.
const COUNTED_MAX: usize = 4096;

/// The collected texts of one query or of one piece of it.
#[derive(Debug, Default, Clone)]
pub struct Annotations {
    warnings: Texts,
    infos: Texts,
    /// By place and metric; one info each.
    corrections: BTreeMap<(String, String), Correction>,
    /// All of these that there were.
    corrected: Distinct,
}

/// Of one kind: the first ones, and how many there are.
#[derive(Debug, Default, Clone)]
struct Texts {
    first: BTreeSet<String>,
    all: Distinct,
}

impl Texts {
    fn insert(&mut self, text: String) {
        if self.all.insert(&text) {
            self.keep(text);
        }
    }

    fn keep(&mut self, text: String) {
        self.first.insert(text);
        if self.first.len() > ANNOTATIONS_MAX {
            self.first.pop_last();
        }
    }

    fn merge(&mut self, other: Texts) {
        other.first.into_iter().for_each(|text| self.keep(text));
        self.all.merge(other.all);
    }
}

/// Counts what is different by its hash: the smallest [`COUNTED_MAX`] of them, so that it is the same in whatever order they come.
#[derive(Debug, Default, Clone)]
struct Distinct(BTreeSet<u64>);

impl Distinct {
    /// False: it was there already.
    fn insert(&mut self, value: &(impl Hash + ?Sized)) -> bool {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let is_new = self.0.insert(hasher.finish());
        self.bound();
        is_new
    }

    fn merge(&mut self, other: Distinct) {
        self.0.extend(other.0);
        self.bound();
    }

    fn bound(&mut self) {
        while self.0.len() > COUNTED_MAX {
            self.0.pop_last();
        }
    }
}

/// The two kinds, as they are named where some are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationKind {
    /// Something is likely to be wrong.
    Warning,
    /// Something may be.
    Info,
}

impl AnnotationKind {
    /// The text for those that are left out. Source: Prometheus `util/annotations`, `AsStrings`.
    fn omitted(self, count: usize) -> String {
        match self {
            AnnotationKind::Warning => format!("{count} more warning annotations omitted"),
            AnnotationKind::Info => format!("{count} more info annotations omitted"),
        }
    }

    /// How many a text says that are left out.
    fn omitted_of(self, text: &str) -> Option<usize> {
        let count = text.split_once(' ')?.0.parse().ok()?;
        (self.omitted(count) == text).then_some(count)
    }

    /// Adds the texts of another piece of a query to those of one, where each has at most [`ANNOTATIONS_MAX`] and may tell of more.
    ///
    /// Which those are nobody knows any more: they are taken for the same, as they are where the pieces are times of the same series.
    pub fn join(self, known: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
        let told = |texts: &mut Vec<String>| match texts.last().map(|text| self.omitted_of(text)) {
            Some(Some(count)) => {
                texts.pop();
                texts.len() + count
            }
            _ => texts.len(),
        };
        let mut more: Vec<String> = more.into_iter().collect();
        let told = told(known).max(told(&mut more));
        for text in more {
            if !known.contains(&text) {
                known.push(text);
            }
        }
        let all = known.len().max(told);
        known.truncate(ANNOTATIONS_MAX);
        if all > known.len() {
            known.push(self.omitted(all - known.len()));
        }
    }
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
            metric => format!(" for metric name {}", quoted(metric)),
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
        self.warnings.merge(other.warnings);
        self.infos.merge(other.infos);
        for (key, correction) in other.corrections {
            self.correct(key, correction);
        }
        self.corrected.merge(other.corrected);
    }

    /// One that is beyond the bound never comes back, so what is kept has all that was added to it.
    fn correct(&mut self, key: (String, String), more: Correction) {
        self.corrected.insert(&key);
        let known = self.corrections.entry(key);
        known.and_modify(|c| *c = c.and(more)).or_insert(more);
        if self.corrections.len() > ANNOTATIONS_MAX {
            self.corrections.pop_last();
        }
    }

    /// The warnings, sorted; last, where there are more than [`ANNOTATIONS_MAX`], how many are left out.
    pub fn warnings(&self) -> Vec<String> {
        let first = self.warnings.first.clone();
        shown(first, self.warnings.all.0.len(), AnnotationKind::Warning)
    }

    /// The infos, likewise.
    pub fn infos(&self) -> Vec<String> {
        let mut first = self.infos.first.clone();
        let corrections = self.corrections.iter();
        first.extend(corrections.map(|((at, metric), one)| one.text(at, metric)));
        let all = self.infos.all.0.len() + self.corrected.0.len();
        shown(first, all, AnnotationKind::Info)
    }

    /// Adds a warning; `text` comes without the prefix.
    pub fn warn(&mut self, text: &str, at: &str) {
        self.warnings
            .insert(format!("PromQL warning: {text} ({at})"));
    }

    /// Adds an info; `text` comes without the prefix.
    pub fn info(&mut self, text: &str, at: &str) {
        self.infos.insert(format!("PromQL info: {text} ({at})"));
    }
}

fn shown(first: BTreeSet<String>, all: usize, kind: AnnotationKind) -> Vec<String> {
    let mut texts: Vec<String> = first.into_iter().take(ANNOTATIONS_MAX).collect();
    if all > texts.len() {
        texts.push(kind.omitted(all - texts.len()));
    }
    texts
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_ten_how_many_are_left_out_is_told_in_whatever_order_they_come() {
        let of = |range: std::ops::Range<usize>| {
            let mut notes = Annotations::default();
            for n in range {
                notes.warn(&format!("w{n:04}"), "1:1");
                notes.info(&format!("i{n:04}"), "1:1");
                notes.warn(&format!("w{n:04}"), "1:1");
            }
            notes
        };
        let ten = of(0..10);
        assert_eq!((ten.warnings().len(), ten.infos().len()), (10, 10));
        let all = of(0..25);
        for (mut one, other) in [(of(0..18), of(9..25)), (of(9..25), of(0..18))] {
            one.merge(other);
            assert_eq!(one.warnings(), all.warnings());
            assert_eq!(one.infos(), all.infos());
        }
        let warnings = all.warnings();
        assert_eq!(warnings.len(), 11);
        assert_eq!(warnings[9], "PromQL warning: w0009 (1:1)");
        assert_eq!(warnings[10], "15 more warning annotations omitted");
        assert_eq!(all.infos()[10], "15 more info annotations omitted");
        assert_eq!(
            of(0..COUNTED_MAX + 50).warnings()[10],
            "4086 more warning annotations omitted"
        );
    }

    #[test]
    fn pieces_are_joined_with_what_they_left_out() {
        let texts = |range: std::ops::Range<usize>, omitted: usize| {
            let mut texts: Vec<String> = range.map(|n| format!("PromQL info: {n} (1:1)")).collect();
            texts.extend((omitted > 0).then(|| format!("{omitted} more info annotations omitted")));
            texts
        };
        for (mut known, more, joined) in [
            (texts(0..7, 0), texts(5..10, 0), texts(0..10, 0)),
            (texts(0..7, 0), texts(5..15, 0), texts(0..10, 5)),
            (texts(0..10, 3), texts(0..10, 8), texts(0..10, 8)),
            (texts(0..10, 8), texts(0..10, 3), texts(0..10, 8)),
            (texts(0..10, 1), texts(10..13, 0), texts(0..10, 3)),
            (texts(0..0, 0), texts(0..10, 4), texts(0..10, 4)),
        ] {
            AnnotationKind::Info.join(&mut known, more);
            assert_eq!(known, joined);
        }
    }
}
