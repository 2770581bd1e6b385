//! Aggregations: groups once per series, columns folded where they are computed.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use model::{Labels, METRIC_NAME};

use super::numbering::{Chosen, Identity, Numbering};
use super::rows::Program;
use super::{Evaluator, PIECE_MIN, piece_size, without_empty};
use crate::aggregate::{
    AggregateOp, Best, NativePartial, Partial, Remarks, check_parameter, count_values, select,
};
use crate::annotations::Annotations;
use crate::error::Error;
use crate::expr::Grouping;
use crate::functions::native::{RECONCILED, RESETS_COLLIDE};
use crate::plan::{AggregateNode, Node, NodeKind};
use crate::value::{Column, Steps, Value, VectorSeries, is_absent};

/// The group of every series, and the labels of every group.
struct Groups {
    of: Vec<u32>,
    labels: Vec<Labels>,
    /// The metric's name is one of the labels, so it matters at which steps it is to go.
    named: bool,
}

/// A group while it is folded.
struct Fold {
    partial: Partial,
    /// Its histograms, where it has any.
    native: Option<NativePartial>,
    /// Steps at which some series has a name that is to go; empty while there is none, and where groups have no name.
    dropped: Vec<bool>,
}

impl Fold {
    fn note_dropped(&mut self, column: &Column) {
        self.dropped.resize(column.values.len(), false);
        for (dropped, value) in self.dropped.iter_mut().zip(&column.values) {
            *dropped |= !is_absent(*value);
        }
        for (step, _) in &column.histograms {
            self.dropped[*step as usize] = true;
        }
    }

    fn merge(&mut self, later: Fold) {
        self.partial.merge(later.partial);
        self.native = match (self.native.take(), later.native) {
            (Some(mut native), Some(later)) => {
                native.merge(later);
                Some(native)
            }
            (native, later) => native.or(later),
        };
        if self.dropped.len() < later.dropped.len() {
            self.dropped.resize(later.dropped.len(), false);
        }
        for (dropped, more) in self.dropped.iter_mut().zip(later.dropped) {
            *dropped |= more;
        }
    }

    /// The result: two series where the name goes at some steps only.
    fn finish(
        self,
        labels: &Labels,
        parameter: &[f64],
        remarks: &mut Remarks,
    ) -> impl Iterator<Item = VectorSeries> + use<> {
        let mut column = Column {
            values: self.partial.finish(parameter),
            histograms: Vec::new(),
        };
        if let Some(native) = self.native {
            remarks.merge(native.finish(&mut column));
        }
        let mut stays = column.take(labels.clone(), false);
        let mut goes = None;
        if !self.dropped.is_empty() {
            let dropped = &self.dropped;
            let mut series = VectorSeries {
                drop_name: true,
                ..stays.clone()
            };
            series.keep_steps(|step| dropped[step]);
            stays.keep_steps(|step| !dropped[step]);
            goes = Some(series);
        }
        [Some(stays), goes].into_iter().flatten()
    }
}

impl Groups {
    fn of<'l>(series: impl Iterator<Item = &'l Labels>, grouping: &Grouping) -> Groups {
        let chosen = if grouping.without {
            Chosen::except(&grouping.labels)
        } else {
            Chosen::only(&grouping.labels)
        };
        let named = chosen.has_metric_name();
        let mut numbering = Numbering::new(chosen);
        let of = series.map(|one| numbering.number(one)).collect();
        Groups {
            of,
            labels: numbering.into_sets(),
            named,
        }
    }
}

/// The series of every group in parts, each of which one piece folds from beginning to end. Where a group is cut depends on it alone.
struct Units {
    /// The unit of every series. Those of a group follow each other.
    of: Vec<u32>,
    group_of: Vec<u32>,
    /// All series, by unit.
    order: Vec<u32>,
}

impl Units {
    fn of(groups: &Groups) -> Units {
        let mut sizes = vec![0usize; groups.labels.len()];
        for group in &groups.of {
            sizes[*group as usize] += 1;
        }
        let mut group_of = Vec::new();
        // Of every group: its first unit, its place in the order, how many series it has met, and how many are a unit.
        let mut met = Vec::with_capacity(sizes.len());
        let mut place = 0;
        for (group, size) in (0u32..).zip(sizes) {
            let unit_size = piece_size(size);
            met.push((group_of.len(), place, 0, unit_size));
            group_of.extend(std::iter::repeat_n(group, size.div_ceil(unit_size)));
            place += size;
        }
        let mut of = Vec::with_capacity(place);
        let mut order = vec![0; place];
        for (index, group) in (0u32..).zip(&groups.of) {
            let (unit, place, count, unit_size) = &mut met[*group as usize];
            of.push((*unit + *count / *unit_size) as u32);
            order[*place + *count] = index;
            *count += 1;
        }
        Units {
            of,
            group_of,
            order,
        }
    }

    /// Whole units with series enough to be worth it.
    fn pieces(&self) -> Vec<impl IntoIterator<Item = usize> + Clone + use<'_>> {
        let size = piece_size(self.order.len());
        let unit = |at: usize| self.of[self.order[at] as usize];
        let mut pieces = Vec::new();
        let mut rest = 0..self.order.len();
        while !rest.is_empty() {
            let mut end = self.order.len().min(rest.start + size);
            while end < self.order.len() && unit(end) == unit(end - 1) {
                end += 1;
            }
            let some = &self.order[rest.start..end];
            pieces.push(some.iter().map(|index| *index as usize));
            rest.start = end;
        }
        pieces
    }
}

/// One of two iterators.
enum Either<L, R> {
    Left(L),
    Right(R),
}

impl<T, L: Iterator<Item = T>, R: Iterator<Item = T>> Iterator for Either<L, R> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            Either::Left(left) => left.next(),
            Either::Right(right) => right.next(),
        }
    }
}

impl Evaluator<'_> {
    pub(super) fn aggregate(
        &self,
        node: &Node,
        aggregate: &AggregateNode,
        steps: Steps,
    ) -> Result<Value, Error> {
        let op = aggregate.op;
        let mark = self.meter.mark();
        let (parameter, label) = match aggregate.parameter.as_ref() {
            None => (Vec::new(), ""),
            Some(parameter) => match &parameter.kind {
                NodeKind::Text(text) => (Vec::new(), text.as_str()),
                _ => (self.scalar_column(parameter, steps)?, ""),
            },
        };
        if let Some(place) = &aggregate.parameter {
            let mut annotations = Annotations::default();
            let spans = [place.span];
            check_parameter(
                op,
                &parameter,
                &mut self.notes(&mut annotations, &spans, ""),
            )?;
            self.keep(annotations);
        }
        let program = self.program(&aggregate.input, steps, false)?;
        let groups = Groups::of(self.program_labels(&program), &aggregate.grouping);
        let series = match op {
            AggregateOp::Topk | AggregateOp::Bottomk => {
                let (series, remarks) = self.best(op, &program, &groups, &parameter, steps)?;
                self.remark(aggregate, remarks);
                series
            }
            AggregateOp::Limitk | AggregateOp::LimitRatio | AggregateOp::CountValues => {
                let (of, series) = self.kept(&program, &groups)?;
                if op == AggregateOp::CountValues {
                    let grouping = &aggregate.grouping;
                    let is_named = |name: &String| name == label;
                    let is_hidden = grouping.without
                        && (label == METRIC_NAME || grouping.labels.iter().any(is_named));
                    let label = (label, is_hidden);
                    count_values(&of, &groups.labels, &series, label, steps.count, |cells| {
                        self.meter.charge_cells(cells)
                    })?
                } else {
                    select(op, &of, series, &parameter, self.plan.params.is_instant())
                }
            }
            _ => {
                let (series, remarks) = self.folded(op, &program, &groups, &parameter, steps)?;
                self.remark(aggregate, remarks);
                series
            }
        };
        debug_assert!(node.span.start <= node.span.end);
        let value = Value::Vector(series);
        self.settle(mark, &value)?;
        Ok(value)
    }

    /// Says what is to be said about histograms.
    fn remark(&self, aggregate: &AggregateNode, remarks: Remarks) {
        let span = aggregate.input.span;
        if remarks.mixed {
            self.warn(
                span,
                "encountered a mix of histograms and floats for aggregation",
            );
        }
        if remarks.incompatible {
            self.warn(
                span,
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name \"\"",
            );
        }
        if remarks.conflicting_resets {
            self.warn(span, &format!("{RESETS_COLLIDE} aggregation"));
        }
        if remarks.reconciled {
            self.inform(span, &format!("{RECONCILED} aggregation"));
        }
        if remarks.ignored {
            let op = aggregate.op.name();
            self.inform(span, &format!("ignored histogram in {op} aggregation"));
        }
    }

    /// The folds of pieces, with their groups, in an order in which those of a group can be merged.
    ///
    /// Raw series are folded in the order they have; the pieces are those of all of them, in a shard too. What comes out of another operation
    /// has no such places, so each group is cut for itself ([`Units`]): a shard has whole groups.
    fn folds(
        &self,
        op: AggregateOp,
        program: &Program<'_>,
        groups: &Groups,
        steps: Steps,
    ) -> Result<impl Iterator<Item = (u32, Fold)> + use<>, Error> {
        let add = |fold: &mut Fold, drop_name: bool, column: &Column| {
            fold.partial.add(&column.values);
            if !column.histograms.is_empty() {
                fold.native
                    .get_or_insert_with(|| NativePartial::new(op))
                    .add(&column.histograms);
            }
            if drop_name && groups.named {
                fold.note_dropped(column);
            }
        };
        let new = || Fold {
            partial: Partial::new(op, steps.count),
            native: None,
            dropped: Vec::new(),
        };
        // No group has more than a unit then.
        let few = self.series_count(program) <= PIECE_MIN;
        if program.selector().is_some() || few {
            let pieces = self.run_indexed(
                program,
                HashMap::<u32, Fold, BuildHasherDefault<Identity>>::default,
                |folds, index, _, drop_name, column| {
                    let fold = folds.entry(groups.of[index]).or_insert_with(new);
                    add(fold, drop_name, column);
                    Ok(())
                },
            )?;
            return Ok(Either::Left(pieces.into_iter().flatten()));
        }
        let units = Units::of(groups);
        let pieces = self.run_pieces(
            program,
            &units.pieces(),
            Vec::<(u32, Fold)>::new,
            |folds, index, _, drop_name, column| {
                let unit = units.of[index];
                if folds.last().is_none_or(|(last, _)| *last != unit) {
                    folds.push((unit, new()));
                }
                let (_, fold) = folds.last_mut().expect("just pushed");
                add(fold, drop_name, column);
                Ok(())
            },
        )?;
        let group_of = units.group_of;
        let folds = pieces.into_iter().flatten();
        Ok(Either::Right(
            folds.map(move |(unit, fold)| (group_of[unit as usize], fold)),
        ))
    }

    /// Operators that fold a group into one series.
    fn folded(
        &self,
        op: AggregateOp,
        program: &Program<'_>,
        groups: &Groups,
        parameter: &[f64],
        steps: Steps,
    ) -> Result<(Vec<VectorSeries>, Remarks), Error> {
        let mut merged: Vec<Option<Fold>> = Vec::new();
        merged.resize_with(groups.labels.len(), || None);
        for (group, fold) in self.folds(op, program, groups, steps)? {
            match &mut merged[group as usize] {
                Some(into) => into.merge(fold),
                empty => *empty = Some(fold),
            }
        }
        let mut remarks = Remarks::default();
        let series = merged
            .into_iter()
            .zip(&groups.labels)
            .filter_map(|(fold, labels)| Some(fold?.finish(labels, parameter, &mut remarks)))
            .flatten()
            .collect();
        Ok((without_empty(series), remarks))
    }

    /// `topk`, `bottomk`: a heap per group and step in every piece; only the chosen series get a column.
    fn best(
        &self,
        op: AggregateOp,
        program: &Program<'_>,
        groups: &Groups,
        parameter: &[f64],
        steps: Steps,
    ) -> Result<(Vec<VectorSeries>, Remarks), Error> {
        let pieces = self.run_indexed(
            program,
            || (Best::new(op, parameter), Vec::<u32>::new(), false),
            |(best, dropped, ignored), index, _, drop_name, column| {
                *ignored |= !column.histograms.is_empty();
                best.add(groups.of[index], index as u32, &column.values);
                if drop_name {
                    dropped.push(index as u32);
                }
                Ok(())
            },
        )?;
        let mut pieces = pieces.into_iter();
        let (mut best, mut dropped, mut ignored) = pieces
            .next()
            .unwrap_or_else(|| (Best::new(op, parameter), Vec::new(), false));
        for (other, more, other_ignored) in pieces {
            best.merge(&other);
            dropped.extend(more);
            ignored |= other_ignored;
        }
        let remarks = Remarks {
            ignored,
            ..Remarks::default()
        };
        let chosen = best.chosen();
        // Few points can be chosen of many series, and each gets a column.
        self.meter
            .charge_cells(chosen.len().saturating_mul(steps.count))?;
        let chosen = chosen
            .into_iter()
            .map(|number| {
                let labels = self.program_label(program, number as usize).clone();
                (number, labels, dropped.binary_search(&number).is_ok())
            })
            .collect();
        let instant = self.plan.params.is_instant();
        Ok((best.keep(chosen, instant), remarks))
    }

    /// The columns of a program, and the group of each.
    fn kept(
        &self,
        program: &Program<'_>,
        groups: &Groups,
    ) -> Result<(Vec<u32>, Vec<VectorSeries>), Error> {
        let pieces = self.run_indexed(
            program,
            Vec::new,
            |kept, index, labels, drop_name, column| {
                kept.push((groups.of[index], column.take(labels.clone(), drop_name)));
                Ok(())
            },
        )?;
        Ok(pieces.into_iter().flatten().unzip())
    }
}
