//! A source of series in memory, filled by `load`.

use std::collections::BTreeMap;

use model::{Labels, LabelsBuilder, METRIC_NAME};
use promql::{Columns, Plan, Source, SourceError};

use crate::notation::{Buckets, Point};
use crate::script::Load;

/// What the `load`s of a block have put there; a later value for the same time wins.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    series: BTreeMap<Labels, BTreeMap<i64, Point>>,
}

impl Memory {
    /// Adds the series of a `load`.
    pub(crate) fn load(&mut self, load: &Load) {
        for (labels, values) in &load.series {
            self.put(labels, load.gap, values.iter().cloned());
        }
        if load.with_nhcb {
            for (labels, values) in custom_buckets(load) {
                self.put(&labels, load.gap, values.into_iter());
            }
        }
    }

    fn put(&mut self, labels: &Labels, gap: i64, values: impl Iterator<Item = Option<Point>>) {
        let series = self.series.entry(labels.clone()).or_default();
        for (i, value) in values.enumerate() {
            if let Some(value) = value {
                series.insert(i as i64 * gap, value);
            }
        }
    }

    /// The series that a plan asks for.
    pub(crate) fn fetch(&self, plan: &Plan) -> Fetched {
        let selectors = plan
            .selectors()
            .iter()
            .map(|selector| {
                self.series
                    .iter()
                    .filter(|(labels, _)| {
                        selector
                            .matchers
                            .iter()
                            .all(|m| m.matches(labels.get(m.name()).unwrap_or_default()))
                    })
                    .map(|(labels, points)| {
                        // Only what was announced, so that asking for more is noticed.
                        let wanted = selector.min_time..=selector.max_time;
                        let points = points.iter().filter(|(t, _)| wanted.contains(t));
                        let mut points: Vec<_> = points.map(|(t, p)| (*t, p.clone())).collect();
                        if selector.newest {
                            points.drain(..points.len().saturating_sub(1));
                        }
                        MemorySeries {
                            labels: selector.projection.apply(labels),
                            points,
                        }
                    })
                    .collect()
            })
            .collect();
        Fetched { selectors }
    }
}

/// The series of every selector of one plan.
pub(crate) struct Fetched {
    selectors: Vec<Vec<MemorySeries>>,
}

impl Source for Fetched {
    fn count(&self, selector: usize) -> usize {
        self.selectors[selector].len()
    }

    fn labels(&self, selector: usize, series: usize) -> &Labels {
        &self.selectors[selector][series].labels
    }

    fn decode(
        &self,
        selector: usize,
        series: usize,
        min: i64,
        max: i64,
        out: &mut Columns,
    ) -> Result<(), SourceError> {
        out.clear();
        let points = &self.selectors[selector][series].points;
        for (time, point) in points.iter().filter(|(t, _)| (min..=max).contains(t)) {
            match point {
                Point::Float(value) => out.values.push(*value),
                Point::Histogram(buckets) => {
                    let index = out.times.len() as u32;
                    out.histograms.push((index, buckets.to_histogram()));
                    out.values.push(0.0);
                }
            }
            out.times.push(*time);
        }
        Ok(())
    }
}

struct MemorySeries {
    labels: Labels,
    points: Vec<(i64, Point)>,
}

/// The classic histogram series of a `load_with_nhcb` as histograms with custom buckets.
fn custom_buckets(load: &Load) -> Vec<(Labels, Vec<Option<Point>>)> {
    #[derive(Default)]
    struct At {
        buckets: Vec<(f64, f64)>,
        count: Option<f64>,
        sum: f64,
    }
    let mut groups: BTreeMap<Labels, BTreeMap<usize, At>> = BTreeMap::new();
    for (labels, values) in &load.series {
        let name = labels.metric_name().unwrap_or_default();
        let Some((base, suffix)) = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find_map(|suffix| Some((name.strip_suffix(suffix)?, suffix)))
        else {
            continue;
        };
        let bound: Option<f64> = labels.get("le").and_then(|le| le.parse().ok());
        if suffix == "_bucket" && bound.is_none_or(f64::is_nan) {
            continue;
        }
        let mut of_group = LabelsBuilder::default();
        for (name, value) in labels
            .iter()
            .filter(|(name, _)| !["le", METRIC_NAME].contains(name))
        {
            of_group.push(name, value);
        }
        of_group.push(METRIC_NAME, base);
        let group = groups
            .entry(of_group.finish().expect("labels were valid before"))
            .or_default();
        for (i, value) in values.iter().enumerate() {
            let Some(Point::Float(value)) = *value else {
                continue;
            };
            let at = group.entry(i).or_default();
            match (suffix, bound) {
                ("_bucket", Some(bound)) => {
                    if at.buckets.iter().all(|(b, _)| *b != bound) {
                        at.buckets.push((bound, value));
                    }
                }
                ("_count", _) => at.count = Some(value),
                _ => at.sum = value,
            }
        }
    }
    groups
        .into_iter()
        .map(|(labels, group)| {
            let last = group.keys().next_back().map_or(0, |last| last + 1);
            let mut values = vec![None; last];
            for (i, mut at) in group {
                at.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                let largest = at.buckets.last().map_or(0.0, |(_, count)| *count);
                let count = at.count.unwrap_or(largest);
                if at
                    .buckets
                    .last()
                    .is_none_or(|(bound, _)| *bound != f64::INFINITY)
                {
                    at.buckets.push((f64::INFINITY, count));
                }
                let mut buckets = Buckets {
                    schema: model::CUSTOM_BUCKETS_SCHEMA,
                    sum: at.sum,
                    count,
                    ..Buckets::default()
                };
                let mut below = 0.0;
                for (index, (bound, cumulative)) in (0..).zip(&at.buckets) {
                    if *bound != f64::INFINITY {
                        buckets.custom_values.push(*bound);
                    }
                    if cumulative - below != 0.0 {
                        buckets.positive.insert(index, cumulative - below);
                    }
                    below = *cumulative;
                }
                values[i] = Some(Point::Histogram(buckets));
            }
            (labels, values)
        })
        .collect()
}
