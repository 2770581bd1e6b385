//! `info`: adds labels of info metrics (`target_info` by default) to the series of the same `instance` and `job`.
//!
//! Per step, since info series come and go: of each info metric the series with the newest sample is taken. A series keeps what labels it
//! has. Where a label is asked for that cannot be empty, series without an info series are dropped. Info series themselves pass unchanged.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::{Labels, METRIC_NAME};

use super::select::{Take, newest};
use super::{Evaluator, native, without_empty};
use crate::error::Error;
use crate::plan::{CallNode, InfoPlan};
use crate::source::Columns;
use crate::value::{ABSENT, Column, Steps, Value, VectorSeries, is_absent};

/// The labels by which a series finds its info series.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

struct InfoSeries {
    labels: Labels,
    /// Times of the samples in use, per step.
    times: Vec<f64>,
}

impl Evaluator<'_> {
    pub(super) fn info(&self, call: &CallNode, steps: Steps) -> Result<Value, Error> {
        let plan = call
            .info
            .as_ref()
            .ok_or_else(|| Error::execution("info was not planned"))?;
        let mark = self.meter.mark();
        let base = self.vector(&call.args[0], steps)?;
        let by_target = self.info_series(plan, steps)?;
        let mut out = Vec::new();
        for series in base {
            self.meter.check()?;
            let name = series.labels.metric_name().unwrap_or("");
            if plan.names.iter().all(|matcher| matcher.matches(name)) {
                out.push(series);
                continue;
            }
            match by_target.get(&target(&series.labels)) {
                Some(metrics) => enrich(&series, metrics, plan, &mut out)?,
                None if plan.data.iter().all(|m| m.matches_empty()) => out.push(series),
                None => {}
            }
        }
        let value = Value::Vector(without_empty(joined(out)?));
        self.settle(mark, &value)?;
        Ok(value)
    }

    /// The info series by target, then by metric.
    fn info_series(
        &self,
        plan: &InfoPlan,
        steps: Steps,
    ) -> Result<HashMap<Labels, BTreeMap<String, Vec<InfoSeries>>>, Error> {
        let mut by_target: HashMap<Labels, BTreeMap<String, Vec<InfoSeries>>> = HashMap::new();
        let mut columns = Columns::default();
        for series in 0..self.source.count(plan.selector) {
            self.meter.check()?;
            self.decode(plan.selector, series, &mut columns)?;
            let mut times = Vec::new();
            let lookback = self.plan.params.lookback_ms;
            if !columns.histograms.is_empty() {
                let mut used = Column::default();
                let (moment, take) = (plan.moment, Take::Value);
                native::newest(&mut columns, steps, moment, lookback, take, &mut used);
                if !used.histograms.is_empty() {
                    return Err(Error::execution(
                        "this should be an info metric, with float samples",
                    ));
                }
            }
            let count = newest(
                &columns,
                steps,
                plan.moment,
                lookback,
                Take::Time,
                &mut times,
            );
            self.meter.charge(count)?;
            let labels = self.source.labels(plan.selector, series).clone();
            by_target
                .entry(target(&labels))
                .or_default()
                .entry(labels.metric_name().unwrap_or("").to_owned())
                .or_default()
                .push(InfoSeries { labels, times });
        }
        Ok(by_target)
    }
}

fn target(labels: &Labels) -> Labels {
    labels.filter(|name| IDENTIFYING.contains(&name))
}

/// Cuts a series by the info series it has at each step.
fn enrich(
    series: &VectorSeries,
    metrics: &BTreeMap<String, Vec<InfoSeries>>,
    plan: &InfoPlan,
    out: &mut Vec<VectorSeries>,
) -> Result<(), Error> {
    let mut by_choice: HashMap<Vec<usize>, Option<usize>> = HashMap::new();
    let mut choice = Vec::new();
    for (step, value) in series.values.iter().enumerate() {
        if !series.is_present(step) {
            continue;
        }
        choice.clear();
        for candidates in metrics.values() {
            choice.push(current(candidates, step)?);
        }
        let place = match by_choice.get(&choice) {
            Some(place) => *place,
            None => {
                let place = added_labels(series, metrics, &choice, plan)?.map(|labels| {
                    out.push(VectorSeries::new(
                        labels,
                        series.drop_name,
                        vec![ABSENT; series.values.len()],
                    ));
                    out.len() - 1
                });
                by_choice.insert(choice.clone(), place);
                place
            }
        };
        if let Some(place) = place {
            out[place].values[step] = *value;
            if let Some(histogram) = series.histogram(step) {
                out[place]
                    .histograms
                    .push((step as u32, Arc::clone(histogram)));
            }
        }
    }
    Ok(())
}

/// Which of the candidates has the newest sample; their number where none has one. Errors: two of them.
fn current(candidates: &[InfoSeries], step: usize) -> Result<usize, Error> {
    let mut best: Option<(usize, f64)> = None;
    for (i, candidate) in candidates.iter().enumerate() {
        let time = candidate.times[step];
        match best {
            _ if is_absent(time) => {}
            Some((known, at)) if time == at => {
                return Err(Error::execution(format!(
                    "found duplicate series for info metric: existing {} @ {at}, new {} @ {time}",
                    candidates[known].labels, candidate.labels
                )));
            }
            Some((_, at)) if time < at => {}
            _ => best = Some((i, time)),
        }
    }
    Ok(best.map_or(candidates.len(), |(i, _)| i))
}

/// The labels of a series with what the chosen info series add; `None` where it is to be dropped.
fn added_labels(
    series: &VectorSeries,
    metrics: &BTreeMap<String, Vec<InfoSeries>>,
    choice: &[usize],
    plan: &InfoPlan,
) -> Result<Option<Labels>, Error> {
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    let mut found = false;
    for (candidates, chosen) in metrics.values().zip(choice) {
        let Some(info) = candidates.get(*chosen) else {
            continue;
        };
        found = true;
        for (name, value) in info.labels.iter() {
            let wanted = plan.data.is_empty() || plan.data.iter().any(|m| m.name() == name);
            if name == METRIC_NAME || !wanted || series.labels.get(name).is_some() {
                continue;
            }
            if added
                .insert(name, value)
                .is_some_and(|other| other != value)
            {
                return Err(Error::execution(format!("conflicting label: {name}")));
            }
        }
    }
    if !found && !plan.data.iter().all(|m| m.matches_empty()) {
        return Ok(None);
    }
    let mut labels = series.labels.clone();
    for (name, value) in added {
        labels = labels.with(name, value);
    }
    Ok(Some(labels))
}

/// Series of equal labels become one.
fn joined(series: Vec<VectorSeries>) -> Result<Vec<VectorSeries>, Error> {
    let mut index: HashMap<(Labels, bool), usize> = HashMap::new();
    let mut out: Vec<VectorSeries> = Vec::with_capacity(series.len());
    for one in series {
        match index.get(&(one.labels.clone(), one.drop_name)) {
            Some(at) => out[*at].join(one)?,
            None => {
                index.insert((one.labels.clone(), one.drop_name), out.len());
                out.push(one);
            }
        }
    }
    Ok(out)
}
