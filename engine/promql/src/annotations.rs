//! Warnings and infos: what a query could do, but its author should know.
//!
//! Texts are those of Prometheus, position included. Functions add to [`Notes`], which knows the expression that is evaluated; each
//! text is kept once, and at most [`ANNOTATIONS_MAX`] of each kind, so a note per sample costs a look-up.

use std::collections::BTreeSet;

use crate::expr::Span;

/// More texts of one kind than this are counted, not kept: Prometheus answers 10 by default.
pub(crate) const ANNOTATIONS_MAX: usize = 10;

/// The collected texts of one query or of one piece of it.
#[derive(Debug, Default, Clone)]
pub struct Annotations {
    warnings: BTreeSet<String>,
    infos: BTreeSet<String>,
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
    }

    /// The warnings, sorted.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.iter().cloned().collect()
    }

    /// The infos, sorted.
    pub fn infos(&self) -> Vec<String> {
        self.infos.iter().cloned().collect()
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
    if set.len() < ANNOTATIONS_MAX {
        set.insert(text);
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

    fn place(&self, arg: usize) -> String {
        self.args
            .get(arg)
            .map_or_else(|| "1:1".to_owned(), |span| span.place(self.text))
    }
}
