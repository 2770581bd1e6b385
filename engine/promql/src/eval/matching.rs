//! Vector matching: which series of one side goes with which of the other.
//!
//! Signatures are made once per series and numbered; per signature there are the series of the "one" side and those of the "many" side
//! (each has one member in nearly all queries). A pair is evaluated as two columns. Only where a signature has several series on a side
//! does it matter who is present at which step: that is looked at then, and is where the errors of Prometheus come from. Errors depend on
//! the data at a step, as there: two series that are never present together may share a signature.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use model::Labels;

use super::numbering::Numbering;
use super::sets::signature;
use super::{Evaluator, binary, native, without_empty};
use crate::annotations::{Annotations, Notes};
use crate::error::Error;
use crate::expr::{BinaryOp, Cardinality, Matching, Span};
use crate::plan::BinaryNode;
use crate::value::{ABSENT, Column, Steps, VectorSeries, is_absent};

/// The series of one signature, by index.
#[derive(Default)]
struct Group {
    many: Vec<usize>,
    one: Vec<usize>,
}

/// The operation, sides named by their role.
struct Join<'j> {
    op: BinaryOp,
    returns_bool: bool,
    matching: &'j Matching,
    /// The "one" side stands on the left (`group_right`).
    swapped: bool,
    many: Vec<VectorSeries>,
    one: Vec<VectorSeries>,
    fill_many: Option<f64>,
    fill_one: Option<f64>,
    /// Steps at which each side has any sample: where one has none nothing is matched, and nothing is wrong.
    both: Vec<bool>,
    out: Output,
    notes: NotesOf<'j>,
}

/// What makes [`Notes`] for the operation.
struct NotesOf<'j> {
    annotations: Annotations,
    text: &'j str,
    span: [Span; 1],
}

impl NotesOf<'_> {
    fn notes(&mut self) -> Notes<'_> {
        Notes {
            annotations: &mut self.annotations,
            text: self.text,
            args: &self.span,
            metric: "",
        }
    }
}

/// Result series by their labels, and whether their name is to go.
#[derive(Default)]
struct Output {
    index: HashMap<(Labels, bool), usize>,
    series: Vec<VectorSeries>,
}

impl Evaluator<'_> {
    /// An arithmetic operation or comparison between two vectors.
    pub(super) fn match_vectors(
        &self,
        span: Span,
        node: &BinaryNode,
        left: Vec<VectorSeries>,
        right: Vec<VectorSeries>,
        steps: Steps,
    ) -> Result<Vec<VectorSeries>, Error> {
        let matching = &node.matching;
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped {
            (right, left)
        } else {
            (left, right)
        };
        let (fill_many, fill_one) = if swapped {
            (matching.fill_right, matching.fill_left)
        } else {
            (matching.fill_left, matching.fill_right)
        };
        let mut numbering = Numbering::new(signature(matching));
        let mut groups: Vec<Group> = Vec::new();
        let mut group = |series: &VectorSeries, groups: &mut Vec<Group>| {
            let number = numbering.number(&series.labels) as usize;
            if number == groups.len() {
                groups.push(Group::default());
            }
            number
        };
        for (i, series) in many.iter().enumerate() {
            let number = group(series, &mut groups);
            groups[number].many.push(i);
        }
        for (i, series) in one.iter().enumerate() {
            let number = group(series, &mut groups);
            groups[number].one.push(i);
        }
        let mut join = Join {
            op: node.op,
            returns_bool: node.returns_bool,
            matching,
            swapped,
            both: match self.places {
                None => both_present(
                    &many,
                    &one,
                    fill_many.is_some(),
                    fill_one.is_some(),
                    steps.count,
                ),
                // Of the series in other shards nothing is known here. An error that is none in the end is looked at again.
                Some(_) => vec![true; steps.count],
            },
            many,
            one,
            fill_many,
            fill_one,
            out: Output::default(),
            notes: NotesOf {
                annotations: Annotations::default(),
                text: &self.plan.text,
                span: [span],
            },
        };
        for (group, signature) in groups.iter().zip(&numbering.into_sets()) {
            self.meter.check()?;
            join.group(group, signature)?;
        }
        self.keep(join.notes.annotations);
        Ok(without_empty(join.out.series))
    }
}

fn both_present(
    many: &[VectorSeries],
    one: &[VectorSeries],
    many_filled: bool,
    one_filled: bool,
    count: usize,
) -> Vec<bool> {
    let any = |series: &[VectorSeries], filled: bool| {
        let mut seen = vec![filled; count];
        if !filled {
            for one in series {
                one.mark_present(&mut seen);
            }
        }
        seen
    };
    let mut both = any(many, many_filled);
    for (both, one) in both.iter_mut().zip(any(one, one_filled)) {
        *both &= one;
    }
    both
}

impl Join<'_> {
    fn group(&mut self, group: &Group, signature: &Labels) -> Result<(), Error> {
        self.unique_one_side(group, signature)?;
        self.unique_many_side(group)?;
        for &many in &group.many {
            for &one in &group.one {
                self.pair(many, one)?;
            }
        }
        if let Some(fill) = self.fill_one {
            for &many in &group.many {
                let present = presence(&self.one, &group.one, self.both.len());
                self.filled_one(many, signature, fill, &present)?;
            }
        }
        if let Some(fill) = self.fill_many {
            for &one in &group.one {
                let present = self.matched(group, one);
                self.filled_many(one, signature, fill, &present)?;
            }
        }
        Ok(())
    }

    /// Two series of the "one" side with one signature must not be present at the same step.
    fn unique_one_side(&self, group: &Group, signature: &Labels) -> Result<(), Error> {
        let Some((a, b)) = clash(&self.one, &group.one, |_, step| self.both[step]) else {
            return Ok(());
        };
        let side = if self.swapped { "left" } else { "right" };
        let (a, b) = (&self.one[a].labels, &self.one[b].labels);
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        Err(Error::execution(format!(
            "found duplicate series for the match group {signature} on the {side} hand-side of the operation: [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side"
        )))
    }

    /// Two series of the "many" side with one signature and a partner need `group_left` or `group_right`, and then different results.
    fn unique_many_side(&self, group: &Group) -> Result<(), Error> {
        if group.many.len() < 2 {
            return Ok(());
        }
        if self.matching.cardinality == Cardinality::OneToOne {
            let taken = |many, step| self.finds(many, &group.one, step);
            return match clash(&self.many, &group.many, taken) {
                Some(_) => Err(Error::execution(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                )),
                None => Ok(()),
            };
        }
        for &one in &group.one {
            let mut by_result: HashMap<Labels, Vec<usize>> = HashMap::new();
            for &many in &group.many {
                let labels = self.result_labels(&self.many[many].labels, &self.one[one].labels);
                by_result.entry(labels).or_default().push(many);
            }
            for same in by_result.values().filter(|same| same.len() > 1) {
                let taken = |many, step| self.finds(many, &[one], step);
                if clash(&self.many, same, taken).is_some() {
                    return Err(Error::execution(
                        "multiple matches for labels: grouping labels must ensure unique matches",
                    ));
                }
            }
        }
        Ok(())
    }

    /// At which steps a series of the "one" side has any partner that it goes together with.
    fn matched(&self, group: &Group, one: usize) -> Vec<bool> {
        let mut seen = presence(&self.many, &group.many, self.both.len());
        for (step, seen) in seen.iter_mut().enumerate().filter(|(_, seen)| **seen) {
            let mut present = group
                .many
                .iter()
                .filter(|many| self.many[**many].is_present(step));
            *seen = self.one[one].is_present(step)
                && present.any(|many| self.go_together(*many, one, step));
        }
        seen
    }

    /// Whether a "many" series that is present at a step has one of these partners, or a value that stands for one, that it goes together with.
    fn finds(&self, many: usize, ones: &[usize], step: usize) -> bool {
        let partner = ones.iter().find(|one| self.one[**one].is_present(step));
        match partner {
            Some(one) => self.go_together(many, *one, step),
            None => self.fill_one.is_some(),
        }
    }

    fn go_together(&self, many: usize, one: usize, step: usize) -> bool {
        let (many, one) = (&self.many[many], &self.one[one]);
        let (left, right) = if self.swapped {
            (one, many)
        } else {
            (many, one)
        };
        native::go_together(self.op, left, right, step)
    }

    fn pair(&mut self, many: usize, one: usize) -> Result<(), Error> {
        let labels = self.result_labels(&self.many[many].labels, &self.one[one].labels);
        let (left, right) = if self.swapped {
            (&self.one[one], &self.many[many])
        } else {
            (&self.many[many], &self.one[one])
        };
        let mut column = Column {
            values: vec![ABSENT; left.values.len()],
            histograms: Vec::new(),
        };
        binary::columns(
            self.op,
            self.returns_bool,
            &left.values,
            &right.values,
            &mut column.values,
        );
        if native::concerns(self.op, left, right) {
            let mut notes = self.notes.notes();
            native::pair(
                self.op,
                self.returns_bool,
                left,
                right,
                &mut column,
                &mut notes,
            );
        }
        self.out
            .add(labels, self.drops_name(self.many[many].drop_name), column)
    }

    /// The steps at which a "many" series has no partner, with the value given for that.
    fn filled_one(
        &mut self,
        many: usize,
        signature: &Labels,
        fill: f64,
        present: &[bool],
    ) -> Result<(), Error> {
        let series = &self.many[many];
        let labels = self.result_labels(&series.labels, signature);
        let values = series
            .values
            .iter()
            .zip(present)
            .map(|(value, partner)| match *partner || is_absent(*value) {
                true => ABSENT,
                false => self.element(*value, fill),
            })
            .collect();
        let mut column = Column {
            values,
            histograms: Vec::new(),
        };
        if native::concerns(self.op, series, series) {
            let mut notes = self.notes.notes();
            let on_left = !self.swapped;
            native::filled(
                self.op,
                on_left,
                series,
                fill,
                present,
                &mut column,
                &mut notes,
            );
        }
        self.out
            .add(labels, self.drops_name(series.drop_name), column)
    }

    /// The same for a series of the "one" side.
    fn filled_many(
        &mut self,
        one: usize,
        signature: &Labels,
        fill: f64,
        present: &[bool],
    ) -> Result<(), Error> {
        let series = &self.one[one];
        let labels = self.result_labels(signature, &series.labels);
        let values = series
            .values
            .iter()
            .zip(present)
            .map(|(value, partner)| match *partner || is_absent(*value) {
                true => ABSENT,
                false => self.element(fill, *value),
            })
            .collect();
        let mut column = Column {
            values,
            histograms: Vec::new(),
        };
        if native::concerns(self.op, series, series) {
            let mut notes = self.notes.notes();
            let on_left = self.swapped;
            native::filled(
                self.op,
                on_left,
                series,
                fill,
                present,
                &mut column,
                &mut notes,
            );
        }
        self.out.add(labels, self.drops_name(false), column)
    }

    fn element(&self, many: f64, one: f64) -> f64 {
        let (left, right) = if self.swapped {
            (one, many)
        } else {
            (many, one)
        };
        binary::element(self.op, self.returns_bool, left, right, left)
    }

    fn drops_name(&self, dropped: bool) -> bool {
        // Arithmetic has removed the name from the labels already.
        self.returns_bool || (dropped && !binary::drops_name(self.op, false))
    }

    /// The labels of a result: those of the "many" side, less what does not match, plus what `group_*` takes from the other.
    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let matching = self.matching;
        let named = |name: &str| matching.labels.iter().any(|label| label == name);
        let drops = binary::drops_name(self.op, false);
        let one_to_one = matching.cardinality == Cardinality::OneToOne;
        let mut labels = many.filter(|name| {
            if drops && super::result::is_metadata(name) {
                return false;
            }
            !one_to_one || (named(name) == matching.on)
        });
        for label in &matching.include {
            labels = labels.with(label, one.get(label).unwrap_or(""));
        }
        labels
    }
}

impl Output {
    /// Adds a column to the series of these labels.
    fn add(&mut self, labels: Labels, drop_name: bool, mut column: Column) -> Result<(), Error> {
        match self.index.entry((labels, drop_name)) {
            Entry::Vacant(entry) => {
                self.series
                    .push(column.take(entry.key().0.clone(), drop_name));
                entry.insert(self.series.len() - 1);
                Ok(())
            }
            Entry::Occupied(entry) => {
                let more = column.take(Labels::empty(), drop_name);
                self.series[*entry.get()].join(more)
            }
        }
    }
}

/// At which steps any of these series has a sample.
fn presence(series: &[VectorSeries], indices: &[usize], count: usize) -> Vec<bool> {
    let mut seen = vec![false; count];
    for &index in indices {
        series[index].mark_present(&mut seen);
    }
    seen
}

/// Two of these series that are present at one step and matter there.
fn clash(
    series: &[VectorSeries],
    indices: &[usize],
    matters: impl Fn(usize, usize) -> bool,
) -> Option<(usize, usize)> {
    if indices.len() < 2 {
        return None;
    }
    let count = series[indices[0]].values.len();
    for step in 0..count {
        let mut present = indices
            .iter()
            .filter(|index| series[**index].is_present(step) && matters(**index, step));
        if let (Some(first), Some(second)) = (present.next(), present.next()) {
            return Some((*first, *second));
        }
    }
    None
}
