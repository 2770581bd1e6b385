//! Row programs: everything that happens to each series for itself, in one pass per series.
//!
//! `rate(x[5m]) * 100 > 3` is one program: a window over raw samples, then two operations with a scalar. Programs run over pieces
//! of the series in parallel; the columns either are kept (`collect`) or folded at once by an aggregation (`for_each`).

use std::sync::Arc;

use model::{Labels, quoted};

use super::native::Samples;
use super::select::{Take, Windows, newest, remove_stale, smoothed};
use super::{Evaluator, binary, cut, native};
use crate::annotations::{Annotations, Notes};
use crate::error::Error;
use crate::expr::{BinaryOp, Span};
use crate::functions::native::{Mixed, Outcome, Treatment, over_range};
use crate::functions::{Edges, EngineFunction, Grid, Kind, MapFn, RangeFunction, Window};
use crate::plan::{CallNode, Instant, Moment, Node, NodeKind, RangeInput, RangeNode};
use crate::source::Columns;
use crate::value::{ABSENT, Column, Steps, Value, ValueType, VectorSeries, is_absent, weight};

/// A scalar at all steps.
#[derive(Debug, Clone)]
pub(crate) enum Scalars {
    One(f64),
    Many(Vec<f64>),
}

impl Scalars {
    #[inline]
    pub(crate) fn at(&self, step: usize) -> f64 {
        match self {
            Scalars::One(value) => *value,
            Scalars::Many(column) => column[step],
        }
    }
}

/// Where the columns of a program come from.
enum Base<'p> {
    /// An instant selector.
    Instant {
        instant: Instant,
        take: Take,
        spans: [Span; 1],
    },
    /// A range function over raw samples.
    Raw {
        selector: usize,
        window: WindowProgram<'p>,
    },
    /// A range function over the results of a subquery.
    Sub {
        series: Vec<VectorSeries>,
        steps: Steps,
        window: WindowProgram<'p>,
    },
    /// Columns that are there already.
    Columns(Vec<VectorSeries>),
}

/// A range function with its scalar arguments.
struct WindowProgram<'p> {
    /// Missing: whether there is a sample (`absent_over_time`).
    function: Option<&'p RangeFunction>,
    /// What it does where there are histograms.
    treatment: Treatment,
    range_ms: i64,
    moment: Moment,
    edges: Edges,
    scalars: Vec<Scalars>,
    spans: &'p [Span],
    /// Which argument is the range, for notes.
    range_arg: usize,
}

/// What is done to a column after the base.
enum Stage<'p> {
    Negate,
    Map {
        function: MapFn,
        scalars: Vec<Scalars>,
        spans: &'p [Span],
    },
    Scalar {
        op: BinaryOp,
        returns_bool: bool,
        swapped: bool,
        scalars: Scalars,
        span: Span,
    },
}

/// A program, ready to run.
pub(super) struct Program<'p> {
    base: Base<'p>,
    stages: Vec<Stage<'p>>,
    drop_name: bool,
    steps: Steps,
}

impl Program<'_> {
    /// The selector whose series it goes over, where it goes over raw samples.
    pub(super) fn selector(&self) -> Option<usize> {
        match &self.base {
            Base::Instant { instant, .. } => Some(instant.selector),
            Base::Raw { selector, .. } => Some(*selector),
            Base::Sub { .. } | Base::Columns(_) => None,
        }
    }
}

/// What a piece needs for one series after the other.
struct Scratch {
    columns: Columns,
    /// Of the series before.
    grid: Grid,
    args: Vec<f64>,
    annotations: Annotations,
}

impl Evaluator<'_> {
    /// A node that is a row program, evaluated and kept.
    pub(super) fn rows(&self, node: &Node, steps: Steps) -> Result<Value, Error> {
        let program = self.program(node, steps, true)?;
        Ok(Value::Vector(self.collect(program)?))
    }

    /// Puts a program together: from the outermost operation inwards to what has to be evaluated by itself.
    ///
    /// With `here` the node itself is not to be looked at as something that is evaluated once.
    pub(super) fn program<'p>(
        &self,
        node: &'p Node,
        steps: Steps,
        here: bool,
    ) -> Result<Program<'p>, Error> {
        let mut stages = Vec::new();
        let mut drop_name = false;
        let mut at = node;
        let mut outermost = here;
        let base = loop {
            if at.once && steps.count > 1 && !outermost {
                break Base::Columns(self.vector(at, steps)?);
            }
            let itself = std::mem::take(&mut outermost);
            match &at.kind {
                NodeKind::Instant(instant) => {
                    break Base::Instant {
                        instant: *instant,
                        take: Take::Value,
                        spans: [at.span],
                    };
                }
                NodeKind::Negate(inner) => {
                    stages.push(Stage::Negate);
                    drop_name = true;
                    at = inner;
                }
                NodeKind::Call(call) => match &call.function.kind {
                    Kind::Map(function) => {
                        drop_name = true;
                        stages.push(Stage::Map {
                            function: *function,
                            scalars: call.args[1..]
                                .iter()
                                .map(|arg| self.scalars(arg, steps))
                                .collect::<Result<_, _>>()?,
                            spans: &call.spans,
                        });
                        at = &call.args[0];
                    }
                    Kind::Range(function) => {
                        drop_name |= !function.keeps_name;
                        break self.window_base(call, Some(function), steps)?;
                    }
                    // Presence over time; what is made of it is no row program.
                    Kind::Engine(EngineFunction::AbsentOverTime) if itself => {
                        break self.window_base(call, None, steps)?;
                    }
                    Kind::Engine(EngineFunction::Timestamp) => {
                        drop_name = true;
                        match &call.args[0].kind {
                            NodeKind::Instant(instant) => {
                                break Base::Instant {
                                    instant: *instant,
                                    take: Take::Time,
                                    spans: [at.span],
                                };
                            }
                            _ => break self.step_times(&call.args[0], steps)?,
                        }
                    }
                    _ => break Base::Columns(self.vector(at, steps)?),
                },
                NodeKind::Binary(binary)
                    if binary.right_type == ValueType::Scalar
                        && binary.left_type == ValueType::Vector =>
                {
                    drop_name |= binary::drops_name(binary.op, binary.returns_bool);
                    stages.push(Stage::Scalar {
                        op: binary.op,
                        returns_bool: binary.returns_bool,
                        swapped: false,
                        scalars: self.scalars(&binary.right, steps)?,
                        span: at.span,
                    });
                    at = &binary.left;
                }
                NodeKind::Binary(binary)
                    if binary.left_type == ValueType::Scalar
                        && binary.right_type == ValueType::Vector =>
                {
                    drop_name |= binary::drops_name(binary.op, binary.returns_bool);
                    stages.push(Stage::Scalar {
                        op: binary.op,
                        returns_bool: binary.returns_bool,
                        swapped: true,
                        scalars: self.scalars(&binary.left, steps)?,
                        span: at.span,
                    });
                    at = &binary.right;
                }
                _ => break Base::Columns(self.vector(at, steps)?),
            }
        };
        stages.reverse();
        Ok(Program {
            base,
            stages,
            drop_name,
            steps,
        })
    }

    /// `timestamp` of what is no selector: the step's own time wherever there is a sample.
    fn step_times<'p>(&self, arg: &Node, steps: Steps) -> Result<Base<'p>, Error> {
        let mut series = self.vector(arg, steps)?;
        for one in &mut series {
            for (value, time) in one.values.iter_mut().zip(steps.times()) {
                if !is_absent(*value) {
                    *value = time as f64 / 1000.0;
                }
            }
            for (step, _) in one.histograms.drain(..) {
                one.values[step as usize] = steps.time(step as usize) as f64 / 1000.0;
            }
        }
        Ok(Base::Columns(series))
    }

    fn window_base<'p>(
        &self,
        call: &'p CallNode,
        function: Option<&'p RangeFunction>,
        steps: Steps,
    ) -> Result<Base<'p>, Error> {
        let mut range: Option<(usize, &RangeNode)> = None;
        let mut scalars = Vec::new();
        for (i, arg) in call.args.iter().enumerate() {
            match &arg.kind {
                NodeKind::Range(node) => range = Some((i, node)),
                _ => scalars.push(self.scalars(arg, steps)?),
            }
        }
        let (range_arg, range) =
            range.ok_or_else(|| Error::execution("expected a range vector"))?;
        let window = WindowProgram {
            function,
            treatment: Treatment::of(call.function.name),
            range_ms: range.range_ms,
            moment: range.moment,
            edges: match range.input {
                RangeInput::Raw { edges, .. } => edges,
                RangeInput::Sub { .. } => Edges::Plain,
            },
            scalars,
            spans: &call.spans,
            range_arg,
        };
        Ok(match &range.input {
            RangeInput::Raw { selector, .. } => Base::Raw {
                selector: *selector,
                window,
            },
            RangeInput::Sub { .. } => {
                let (series, steps) = self
                    .subquery(range, steps)?
                    .expect("the input is a subquery");
                Base::Sub {
                    series,
                    steps,
                    window,
                }
            }
        })
    }

    /// Runs a program and keeps every column that has a sample.
    pub(super) fn collect(&self, program: Program<'_>) -> Result<Vec<VectorSeries>, Error> {
        let pieces = self.run(&program, Vec::new, |kept, labels, drop_name, column| {
            kept.push(column.take(labels.clone(), drop_name));
            Ok(())
        })?;
        Ok(pieces.into_iter().flatten().collect())
    }

    /// Number of series that a program goes over.
    pub(super) fn series_count(&self, program: &Program<'_>) -> usize {
        match &program.base {
            Base::Instant { instant, .. } => self.source.count(instant.selector),
            Base::Raw { selector, .. } => self.source.count(*selector),
            Base::Sub { series, .. } | Base::Columns(series) => series.len(),
        }
    }

    /// The labels of the series that a program goes over, in its order.
    pub(super) fn program_labels<'l>(
        &'l self,
        program: &'l Program<'_>,
    ) -> impl Iterator<Item = &'l Labels> {
        (0..self.series_count(program)).map(|index| self.program_label(program, index))
    }

    /// The labels of one of them.
    pub(super) fn program_label<'l>(
        &'l self,
        program: &'l Program<'_>,
        index: usize,
    ) -> &'l Labels {
        match &program.base {
            Base::Instant { instant, .. } => self.source.labels(instant.selector, index),
            Base::Raw { selector, .. } => self.source.labels(*selector, index),
            Base::Sub { series, .. } | Base::Columns(series) => &series[index].labels,
        }
    }

    /// Runs a program over all series in pieces. `each` gets the index-ordered columns of a piece and may take them.
    pub(super) fn run<T: Send>(
        &self,
        program: &Program<'_>,
        start: impl Fn() -> T + Sync,
        each: impl Fn(&mut T, &Labels, bool, &mut Column) -> Result<(), Error> + Sync,
    ) -> Result<Vec<T>, Error> {
        self.run_indexed(program, start, |state, _, labels, drop_name, column| {
            each(state, labels, drop_name, column)
        })
    }

    /// As [`Evaluator::run`]; `each` is told the number of the series too.
    pub(super) fn run_indexed<T: Send>(
        &self,
        program: &Program<'_>,
        start: impl Fn() -> T + Sync,
        each: impl Fn(&mut T, usize, &Labels, bool, &mut Column) -> Result<(), Error> + Sync,
    ) -> Result<Vec<T>, Error> {
        let pieces = match (self.places, program.selector()) {
            // As it is cut where all series are evaluated, so that partials are of the same series.
            (Some(places), Some(selector)) => places.cut(selector),
            _ => cut(self.series_count(program)),
        };
        self.run_pieces(program, &pieces, start, each)
    }

    /// As [`Evaluator::run_indexed`], the pieces being these numbers of series.
    pub(super) fn run_pieces<T: Send, P: IntoIterator<Item = usize> + Clone + Sync>(
        &self,
        program: &Program<'_>,
        pieces: &[P],
        start: impl Fn() -> T + Sync,
        each: impl Fn(&mut T, usize, &Labels, bool, &mut Column) -> Result<(), Error> + Sync,
    ) -> Result<Vec<T>, Error> {
        self.pieces(pieces, |piece| {
            let mut state = start();
            let mut scratch = Scratch {
                columns: Columns::default(),
                grid: Grid::default(),
                args: Vec::new(),
                annotations: Annotations::default(),
            };
            let mut column = Column::default();
            /// Series after which the clock and the flag are looked at again.
            const CHECKED: usize = 16;
            for (nth, index) in piece.clone().into_iter().enumerate() {
                if nth % CHECKED == 0 {
                    self.meter.check()?;
                }
                let (labels, drop_name) =
                    self.base_column(program, index, &mut scratch, &mut column)?;
                let drop_name = drop_name | program.drop_name;
                self.apply(program, labels, &mut scratch, &mut column);
                let points = column.points();
                if points > 0 {
                    self.meter.charge(points)?;
                    each(&mut state, index, labels, drop_name, &mut column)?;
                    if column.values.is_empty() {
                        // The column was taken, so it stays.
                        self.meter.charge_cells(program.steps.count)?;
                    }
                }
            }
            self.keep(scratch.annotations);
            Ok(state)
        })
    }

    /// The column of series `index` before any stage, into `out`.
    fn base_column<'l>(
        &'l self,
        program: &'l Program<'_>,
        index: usize,
        scratch: &mut Scratch,
        out: &mut Column,
    ) -> Result<(&'l Labels, bool), Error> {
        let steps = program.steps;
        out.histograms.clear();
        match &program.base {
            Base::Columns(series) => {
                let one = &series[index];
                out.values.clear();
                out.values.extend_from_slice(&one.values);
                out.histograms.extend_from_slice(&one.histograms);
                Ok((&one.labels, one.drop_name))
            }
            Base::Instant {
                instant,
                take,
                spans,
            } => {
                self.decode(instant.selector, index, &mut scratch.columns)?;
                let labels = self.source.labels(instant.selector, index);
                let lookback = self.plan.params.lookback_ms;
                let smooth = instant.edges == Edges::Smoothed && *take == Take::Value;
                let columns = &mut scratch.columns;
                let moment = instant.moment;
                let count = if !columns.histograms.is_empty() && smooth {
                    let metric = labels.metric_name().unwrap_or("");
                    let mut notes = self.notes(&mut scratch.annotations, spans, metric);
                    native::smoothed(columns, steps, moment, lookback, out, &mut notes)?
                } else if !columns.histograms.is_empty() {
                    native::newest(columns, steps, moment, lookback, *take, out)
                } else if smooth {
                    remove_stale(&mut scratch.columns);
                    smoothed(
                        &scratch.columns,
                        steps,
                        instant.moment,
                        lookback,
                        &mut out.values,
                    )
                } else {
                    newest(
                        &scratch.columns,
                        steps,
                        instant.moment,
                        lookback,
                        *take,
                        &mut out.values,
                    )
                };
                self.looked_at(count);
                if self.counts_steps() {
                    self.looked_at_column(out);
                }
                Ok((labels, false))
            }
            Base::Raw {
                selector, window, ..
            } => {
                self.decode(*selector, index, &mut scratch.columns)?;
                let samples = Samples::take(&mut scratch.columns);
                remove_stale(&mut scratch.columns);
                let labels = self.source.labels(*selector, index);
                if samples.times.is_empty() {
                    self.windows(window, steps, labels, scratch, &mut out.values)?;
                } else {
                    self.mixed_windows(window, &samples, steps, labels, scratch, out)?;
                }
                Ok((labels, false))
            }
            Base::Sub {
                series,
                steps: inner,
                window,
            } => {
                let one = &series[index];
                scratch.columns.clear();
                for (time, value) in inner.times().zip(&one.values) {
                    if !is_absent(*value) {
                        scratch.columns.times.push(time);
                        scratch.columns.values.push(*value);
                    }
                }
                if one.histograms.is_empty() {
                    let values = &mut out.values;
                    self.windows(window, steps, &one.labels, scratch, values)?;
                } else {
                    let samples = Samples::of_series(one, *inner);
                    self.mixed_windows(window, &samples, steps, &one.labels, scratch, out)?;
                }
                Ok((&one.labels, one.drop_name))
            }
        }
    }

    pub(super) fn decode(
        &self,
        selector: usize,
        series: usize,
        columns: &mut Columns,
    ) -> Result<(), Error> {
        let planned = &self.plan.selectors[selector];
        columns.clear();
        let profile = self.meter.profile();
        let begun = profile.map(|profile| profile.now());
        if planned.min_time <= planned.max_time {
            let (min, max) = (planned.min_time, planned.max_time);
            self.source.decode(selector, series, min, max, columns)?;
        }
        if let (Some(profile), Some(begun)) = (profile, begun) {
            profile.note_decode(selector, begun, columns.times.len());
        }
        debug_assert_eq!(columns.times.len(), columns.values.len());
        if !columns.histograms.is_empty() {
            native::settle(columns);
        }
        Ok(())
    }

    fn looked_at(&self, samples: u64) {
        if self.counting {
            self.meter.looked_at(samples);
        }
    }

    fn counts_steps(&self) -> bool {
        self.counting && self.meter.counts_steps()
    }

    /// Counts the samples of a selector's column for their steps.
    fn looked_at_column(&self, column: &Column) {
        for (step, value) in column.values.iter().enumerate() {
            if !is_absent(*value) {
                self.meter.looked_at_step(step, 1);
            }
        }
        for (step, histogram) in &column.histograms {
            self.meter.looked_at_step(*step as usize, weight(histogram));
        }
    }

    /// A range function over all steps of one series.
    fn windows(
        &self,
        program: &WindowProgram<'_>,
        steps: Steps,
        labels: &Labels,
        scratch: &mut Scratch,
        out: &mut Vec<f64>,
    ) -> Result<(), Error> {
        /// Samples that may be looked at before the deadline is asked for again.
        const WORK: u64 = 1 << 20;
        let Scratch {
            columns,
            grid,
            args,
            annotations,
        } = scratch;
        let metric = labels.metric_name().unwrap_or("");
        let edges = program.edges;
        let mut windows = Windows::new(
            &columns.times,
            program.range_ms,
            program.moment,
            edges,
            self.plan.params.lookback_ms,
        );
        out.clear();
        out.reserve(steps.count);
        let (mut total, mut checked, mut widest) = (0u64, 0u64, 0);
        let mut notes = self.notes(annotations, program.spans, metric);
        let column = program
            .function
            .and_then(|function| function.column)
            .filter(|_| edges == Edges::Plain);
        let counts_steps = self.counts_steps();
        if let Some(column) = column {
            if grid.windows.is_empty() || grid.times != columns.times {
                grid.set(&columns.times, steps.times().map(|time| windows.at(time)));
            }
            column(grid, &columns.values, out);
            debug_assert_eq!(out.len(), steps.count);
            program.doubt_counter(out, &mut notes);
            self.looked_at(grid.total);
            if counts_steps {
                for (step, window) in grid.windows.iter().enumerate() {
                    let length = window.high - window.low;
                    self.meter.looked_at_step(step, length as u64);
                }
            }
            return self.meter.peek(grid.widest);
        }
        for (step, time) in steps.times().enumerate() {
            let bounds = windows.at(time);
            let length = (bounds.high - bounds.low) as u64;
            total += length;
            if counts_steps {
                self.meter.looked_at_step(step, length);
            }
            widest = widest.max(length);
            if length == 0 {
                out.push(ABSENT);
                continue;
            }
            if total - checked > WORK {
                checked = total;
                self.meter.check()?;
            }
            let Some(function) = program.function else {
                out.push(1.0);
                continue;
            };
            args.clear();
            args.extend(program.scalars.iter().map(|scalars| scalars.at(step)));
            if let Some(check) = function.check {
                check(args).map_err(Error::Execution)?;
            }
            let window = Window {
                times: &columns.times[bounds.low..bounds.high],
                values: &columns.values[bounds.low..bounds.high],
                start: bounds.start,
                end: bounds.end,
                step_time: time,
                edges,
            };
            out.push((function.eval)(&window, args, &mut notes));
        }
        program.doubt_counter(out, &mut notes);
        self.looked_at(total);
        self.meter.peek(widest)
    }

    /// A range function over all steps of one series that has histograms: `samples`, beside the floats in `scratch`.
    fn mixed_windows(
        &self,
        program: &WindowProgram<'_>,
        samples: &Samples,
        steps: Steps,
        labels: &Labels,
        scratch: &mut Scratch,
        out: &mut Column,
    ) -> Result<(), Error> {
        let Scratch {
            columns,
            args,
            annotations,
            ..
        } = scratch;
        let edges = program.edges;
        if edges != Edges::Plain && !program.treatment.knows_edges() {
            // Better no answer than half of one.
            return Err(Error::execution(
                "smoothed and anchored modifiers do not work with native histograms in this function",
            ));
        }
        let metric = labels.metric_name().unwrap_or("");
        let windows = |times| {
            let lookback = self.plan.params.lookback_ms;
            Windows::new(times, program.range_ms, program.moment, edges, lookback)
        };
        let (mut floats, mut histograms) = (windows(&columns.times), windows(&samples.times));
        let mut notes = self.notes(annotations, program.spans, metric);
        let (mut total, mut widest) = (0u64, 0u64);
        let counts_steps = self.counts_steps();
        out.values.clear();
        for (step, time) in steps.times().enumerate() {
            self.meter.check()?;
            let (of_floats, bounds) = (floats.at(time), histograms.at(time));
            let length = (of_floats.high - of_floats.low) as u64 + samples.weights[bounds.high]
                - samples.weights[bounds.low];
            total += length;
            if counts_steps {
                self.meter.looked_at_step(step, length);
            }
            widest = widest.max(length);
            if length == 0 {
                out.values.push(ABSENT);
                continue;
            }
            let Some(function) = program.function else {
                out.values.push(1.0);
                continue;
            };
            args.clear();
            args.extend(program.scalars.iter().map(|scalars| scalars.at(step)));
            if let Some(check) = function.check {
                check(args).map_err(Error::Execution)?;
            }
            let window = Mixed {
                floats: Window {
                    times: &columns.times[of_floats.low..of_floats.high],
                    values: &columns.values[of_floats.low..of_floats.high],
                    start: bounds.start,
                    end: bounds.end,
                    step_time: time,
                    edges,
                },
                times: &samples.times[bounds.low..bounds.high],
                histograms: &samples.histograms[bounds.low..bounds.high],
            };
            let (treatment, arg) = (program.treatment, program.range_arg);
            out.values.push(
                match over_range(treatment, function.eval, &window, args, arg, &mut notes) {
                    Outcome::Absent => ABSENT,
                    Outcome::Float(value) => value,
                    Outcome::Histogram(histogram) => {
                        out.histograms.push((step as u32, Arc::new(histogram)));
                        ABSENT
                    }
                },
            );
        }
        program.doubt_counter(&out.values, &mut notes);
        self.looked_at(total);
        self.meter.peek(widest)
    }

    fn apply(
        &self,
        program: &Program<'_>,
        labels: &Labels,
        scratch: &mut Scratch,
        column: &mut Column,
    ) {
        for stage in &program.stages {
            match stage {
                Stage::Negate => {
                    native::negate(column);
                    let values = &mut column.values;
                    for value in values.iter_mut().filter(|v| !is_absent(**v)) {
                        *value = -*value;
                    }
                }
                Stage::Scalar {
                    op,
                    returns_bool,
                    swapped,
                    scalars,
                    span,
                } => {
                    if native::concerns_column(*op, column) {
                        let spans = [*span];
                        let mut notes = self.notes(&mut scratch.annotations, &spans, "");
                        native::with_scalar(*op, *swapped, column, scalars, &mut notes);
                    }
                    let values = &mut column.values;
                    binary::with_scalar(*op, *returns_bool, *swapped, values, scalars);
                }
                Stage::Map {
                    function,
                    scalars,
                    spans,
                } => {
                    // Functions of numbers leave histograms out.
                    column.histograms.clear();
                    let values = &mut column.values;
                    let metric = labels.metric_name().unwrap_or("");
                    let args = &mut scratch.args;
                    let mut notes = self.notes(&mut scratch.annotations, spans, metric);
                    for (step, value) in values.iter_mut().enumerate() {
                        if !is_absent(*value) {
                            args.clear();
                            args.extend(scalars.iter().map(|s| s.at(step)));
                            *value = function(*value, args, &mut notes);
                        }
                    }
                }
            }
        }
    }
}

impl WindowProgram<'_> {
    /// An info where floats were taken for a counter whose name does not say that they are one.
    fn doubt_counter(&self, floats: &[f64], notes: &mut Notes<'_>) {
        let metric = notes.metric;
        if self.function.is_some_and(|function| function.counter)
            && !metric.is_empty()
            && floats.iter().any(|value| !is_absent(*value))
            && !["_total", "_sum", "_count", "_bucket"]
                .iter()
                .any(|suffix| metric.ends_with(suffix))
        {
            notes.info(
                self.range_arg,
                &format!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                    quoted(metric)
                ),
            );
        }
    }
}
