//! What all runs of a comparison came to: medians with the least and the most, tables, ratios.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::run::{Figures, ProcessFigures, QueryFigure, RunReport};
use crate::workload::Shape;

/// A whole comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) command: String,
    pub(crate) machine: String,
    pub(crate) server_cpus: Option<String>,
    pub(crate) load_cpus: Option<String>,
    pub(crate) rounds: u32,
    pub(crate) quiet_seconds: u64,
    pub(crate) targets: Vec<TargetReport>,
    pub(crate) workloads: Vec<WorkloadReport>,
}

/// What is known of a target.
#[derive(Debug, Serialize)]
pub(crate) struct TargetReport {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) command: String,
    pub(crate) ack: String,
}

/// One workload on all targets.
#[derive(Debug, Serialize)]
pub(crate) struct WorkloadReport {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) rate: Option<f64>,
    pub(crate) requests: usize,
    pub(crate) body_bytes: u64,
    /// Things to know when reading the figures.
    pub(crate) notes: Vec<String>,
    pub(crate) runs: Vec<RunReport>,
}

/// Several runs of the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` without values. Of an even number the median is the mean of the middle two.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        Some(Spread {
            median: (values[low] + values[high]) / 2.0,
            least,
            most,
        })
    }

    /// `median (least-most)`, in what `unit` makes of numbers.
    fn text(&self, unit: fn(f64) -> String) -> String {
        let (median, least, most) = (unit(self.median), unit(self.least), unit(self.most));
        if least == most {
            median
        } else {
            format!("{median} ({least}–{most})")
        }
    }
}

/// Rows of text under a head; the first column is left-aligned, the others right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    fn text(&self) -> String {
        let rows = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            let cells = rows().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut out = String::new();
        for row in rows() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                // Writing to a string does not fail.
                let _ = match column {
                    0 => write!(line, "{cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Three digits, thousands and millions by their letters.
pub(crate) fn short(value: f64) -> String {
    let (value, letter) = match value.abs() {
        size if size >= 999_500.0 => (value / 1e6, " M"),
        size if size >= 9_995.0 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}{letter}"),
        size if size >= 9.995 => format!("{value:.1}{letter}"),
        _ => format!("{value:.2}{letter}"),
    }
}

fn megabytes(bytes: f64) -> String {
    short(bytes / 1e6)
}

impl WorkloadReport {
    /// Targets in the order of their first run.
    pub(crate) fn targets(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !names.contains(&run.target.as_str()) {
                names.push(&run.target);
            }
        }
        names
    }

    fn runs_of<'a>(&'a self, target: &'a str) -> impl Iterator<Item = &'a RunReport> {
        self.runs.iter().filter(move |run| run.target == target)
    }

    fn spread(&self, target: &str, figure: impl Fn(&Figures) -> f64) -> Option<Spread> {
        Spread::of(
            self.runs_of(target)
                .filter_map(|run| run.figures.as_ref().map(&figure)),
        )
    }

    pub(crate) fn cost(
        &self,
        target: &str,
        figure: impl Fn(&ProcessFigures) -> f64,
    ) -> Option<Spread> {
        let figures = self.runs_of(target).filter_map(|run| run.figures.as_ref());
        Spread::of(figures.filter_map(|f| f.process.as_ref().map(&figure)))
    }

    /// The run that plots show: the one whose cost is the median of those with a figure, else the first.
    pub(crate) fn typical_run<'a>(&'a self, target: &'a str) -> Option<&'a RunReport> {
        let cost = |run: &RunReport| {
            let figures = run.figures.as_ref()?;
            let process = figures.process.as_ref();
            Some(process.map_or(figures.samples_per_second, |p| p.samples_per_cpu_second))
        };
        let mut valid: Vec<(f64, &RunReport)> = self
            .runs_of(target)
            .filter_map(|run| Some((cost(run)?, run)))
            .collect();
        valid.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        match valid.get(valid.len() / 2) {
            Some((_, run)) => Some(run),
            None => self.runs_of(target).next(),
        }
    }

    /// The main table.
    pub(crate) fn table(&self, ack: &dyn Fn(&str) -> String) -> Table {
        let head = [
            "target",
            "acknowledges",
            "runs",
            "samples per CPU-s",
            "per machine CPU-s",
            "samples/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "p99 from sending",
            "RSS over idle MB",
            "B a series",
            "disk MB",
            "B a sample",
            "not 2xx",
            "lost",
        ];
        let mut table = Table {
            head: head.map(str::to_owned).to_vec(),
            rows: Vec::new(),
        };
        for target in self.targets() {
            let text = |spread: Option<Spread>, unit: fn(f64) -> String| {
                spread.map_or("no figure".to_owned(), |spread| spread.text(unit))
            };
            let runs = self.runs_of(target).count();
            let valid = self
                .runs_of(target)
                .filter(|run| run.figures.is_some())
                .count();
            let failures: u64 = self
                .runs_of(target)
                .flat_map(|run| &run.outcomes)
                .filter(|(outcome, _)| !outcome.starts_with('2') || outcome.len() != 3)
                .map(|(_, count)| count)
                .sum();
            let lost: Option<i64> = self.runs_of(target).map(|run| run.lost).sum();
            table.rows.push(vec![
                target.to_owned(),
                ack(target),
                format!("{valid} of {runs}"),
                text(self.cost(target, |p| p.samples_per_cpu_second), short),
                text(
                    self.cost(target, |p| p.samples_per_machine_cpu_second),
                    short,
                ),
                text(self.spread(target, |f| f.samples_per_second), short),
                text(self.spread(target, |f| f.p50_ms), short),
                text(self.spread(target, |f| f.p99_ms), short),
                text(self.spread(target, |f| f.max_ms), short),
                text(self.spread(target, |f| f.served_p99_ms), short),
                text(
                    self.cost(target, |p| p.rss_bytes as f64 - p.rss_idle_bytes as f64),
                    megabytes,
                ),
                text(self.cost(target, |p| p.bytes_per_series), short),
                text(self.cost(target, |p| p.disk_bytes as f64), megabytes),
                text(self.cost(target, |p| p.disk_bytes_per_sample), short),
                failures.to_string(),
                lost.map_or("not counted".to_owned(), |lost| lost.to_string()),
            ]);
        }
        table
    }

    /// Why runs have no figure, a line each.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let runs = self.runs.iter();
        runs.flat_map(|run| {
            let who = format!("{}, round {}", run.target, run.round);
            run.refused.iter().map(move |why| format!("{who}: {why}"))
        })
        .collect()
    }

    /// The first target by each of the others, a line each.
    pub(crate) fn ratios(&self) -> Vec<String> {
        let targets = self.targets();
        let Some((first, others)) = targets.split_first() else {
            return Vec::new();
        };
        let by = |ours: Option<Spread>, theirs: Option<Spread>, what: &str| {
            let (ours, theirs) = ours.zip(theirs)?;
            (theirs.median > 0.0)
                .then(|| format!("{} x {what}", short(ours.median / theirs.median)))
        };
        let mut lines = Vec::new();
        for other in others {
            let cost = |figure: fn(&ProcessFigures) -> f64, what: &str| {
                by(self.cost(first, figure), self.cost(other, figure), what)
            };
            let parts = [
                cost(|p| p.samples_per_cpu_second, "samples per CPU-second"),
                cost(
                    |p| p.samples_per_machine_cpu_second,
                    "per CPU-second of the machine",
                ),
                cost(|p| p.bytes_per_series, "memory a series"),
                cost(|p| p.disk_bytes as f64, "disk"),
                by(
                    self.spread(first, |f| f.p99_ms),
                    self.spread(other, |f| f.p99_ms),
                    "p99",
                ),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            if !parts.is_empty() {
                lines.push(format!("{first} to {other}: {}", parts.join(", ")));
            }
        }
        lines
    }

    /// Latency and cost of the queries; `None` where none were asked.
    pub(crate) fn query_table(&self) -> Option<Table> {
        let targets = self.targets();
        let asked = |run: &&RunReport| !run.queries.is_empty();
        let first = self.runs.iter().find(asked)?;
        let reference = targets
            .iter()
            .find(|t| **t == "prometheus" && self.runs_of(t).any(|run| asked(&run)))
            .unwrap_or(targets.first()?);
        let mut table = Table {
            head: vec!["query".into(), "kind".into(), "at once".into()],
            rows: Vec::new(),
        };
        for target in &targets {
            table.head.push(format!("{target} p50 ms"));
            table.head.push("p99".into());
            table.head.push("CPU ms".into());
            if target != reference {
                table.head.push(format!("as {reference}"));
            }
        }
        let concurrencies: BTreeSet<usize> = first
            .queries
            .iter()
            .map(|query| query.concurrency)
            .collect();
        for concurrency in concurrencies {
            let queries = first.queries.iter();
            let queries: Vec<_> = queries.filter(|q| q.concurrency == concurrency).collect();
            for query in &queries {
                let mut row = vec![
                    query.name.chars().take(40).collect(),
                    query.kind.to_owned(),
                    concurrency.to_string(),
                ];
                for target in &targets {
                    let ms = |figure: fn(&QueryFigure) -> Option<f64>| {
                        let spread = self.query_spread(target, query, figure);
                        spread.map_or("-".to_owned(), |spread| short(spread.median))
                    };
                    row.push(match self.query_error(target, query) {
                        Some(error) => error.chars().take(40).collect(),
                        None => ms(|q| q.p50_ms),
                    });
                    row.extend([ms(|q| q.p99_ms), ms(|q| q.cpu_ms)]);
                    if target != reference {
                        row.push(self.agreement(target, reference, query).to_owned());
                    }
                }
                table.rows.push(row);
            }
            let mut row = vec![
                "geometric mean of medians".to_owned(),
                String::new(),
                concurrency.to_string(),
            ];
            for target in &targets {
                let mean = |figure: fn(&QueryFigure) -> Option<f64>| {
                    let medians = queries.iter().map(|query| {
                        let spread = self.query_spread(target, query, figure);
                        spread.map(|spread| spread.median.max(0.001).ln())
                    });
                    let sum: Option<f64> = medians.sum();
                    let count = queries.len() as f64;
                    sum.map_or("-".to_owned(), |sum| short((sum / count).exp()))
                };
                row.extend([mean(|q| q.p50_ms), mean(|q| q.p99_ms), mean(|q| q.cpu_ms)]);
                if target != reference {
                    row.push(String::new());
                }
            }
            table.rows.push(row);
        }
        Some(table)
    }

    fn same_query<'a>(
        &'a self,
        target: &'a str,
        query: &'a QueryFigure,
    ) -> impl Iterator<Item = &'a QueryFigure> {
        self.runs_of(target)
            .flat_map(|run| &run.queries)
            .filter(|q| {
                q.name == query.name && q.kind == query.kind && q.concurrency == query.concurrency
            })
    }

    /// `None` if it failed in any run.
    fn query_spread(
        &self,
        target: &str,
        query: &QueryFigure,
        figure: impl Fn(&QueryFigure) -> Option<f64>,
    ) -> Option<Spread> {
        let values: Option<Vec<f64>> = self.same_query(target, query).map(figure).collect();
        Spread::of(values?.into_iter())
    }

    fn query_error<'a>(&'a self, target: &'a str, query: &'a QueryFigure) -> Option<&'a str> {
        let mut errors = self.same_query(target, query).flat_map(|q| &q.errors);
        errors.next().map(String::as_str)
    }

    fn agreement(&self, target: &str, reference: &str, query: &QueryFigure) -> &'static str {
        let sums = |target| self.same_query(target, query).map(|q| q.checksum);
        let (Some(ours), Some(theirs)) = (
            sums(target).collect::<Option<Vec<_>>>(),
            sums(reference).collect::<Option<Vec<_>>>(),
        ) else {
            return "-";
        };
        let agree = ours.iter().all(|a| theirs.iter().all(|b| a.agrees(*b)));
        match (ours.is_empty() || theirs.is_empty(), agree) {
            (true, _) => "-",
            (false, true) => "same",
            (false, false) => "differs",
        }
    }

    /// The workload in a line.
    pub(crate) fn size(&self) -> String {
        let shape = &self.shape;
        let rate = self.rate.map_or(String::new(), |rate| {
            format!(", {} samples a second", short(rate))
        });
        format!(
            "{} series ({} different) of {} tenants x {} scrapes, {} requests of {} samples on {} connections, {:.1} bytes a sample{rate}",
            shape.series,
            shape.series_distinct(),
            shape.tenants,
            shape.scrapes,
            self.requests,
            shape.samples_per_body,
            shape.connections,
            self.body_bytes as f64 / shape.samples() as f64
        )
    }
}

impl Report {
    /// What a target's acknowledgement means.
    pub(crate) fn ack(&self, target: &str) -> String {
        let found = self.targets.iter().find(|t| t.name == target);
        found.map_or_else(String::new, |target| target.ack.clone())
    }

    /// Runs without a figure.
    pub(crate) fn refused(&self) -> usize {
        let runs = self.workloads.iter().flat_map(|workload| &workload.runs);
        runs.filter(|run| run.figures.is_none()).count()
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let cpus = |cpus: &Option<String>| cpus.clone().unwrap_or_else(|| "any".to_owned());
        // Writing to a string does not fail.
        let _ = writeln!(out, "command   {}", self.command);
        let _ = writeln!(out, "machine   {}", self.machine);
        let _ = writeln!(
            out,
            "runs      {} rounds; servers on CPUs {}, load on CPUs {}; CPU time until {} quiet seconds after the last answer and one count over all series",
            self.rounds,
            cpus(&self.server_cpus),
            cpus(&self.load_cpus),
            self.quiet_seconds
        );
        for target in &self.targets {
            let _ = writeln!(out, "target    {}: {}", target.name, target.version);
        }
        for workload in &self.workloads {
            let _ = writeln!(out, "\n== {}: {}", workload.name, workload.size());
            for note in &workload.notes {
                let _ = writeln!(out, "note: {note}");
            }
            out.push_str(&workload.table(&|target| self.ack(target)).text());
            for line in workload.ratios() {
                let _ = writeln!(out, "{line}");
            }
            for line in workload.refusals() {
                let _ = writeln!(out, "NO FIGURE: {line}");
            }
            if let Some(table) = workload.query_table() {
                out.push('\n');
                out.push_str(&table.text());
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_and_short_numbers() {
        let spread = Spread::of([3.0, 1.0, 2.0].into_iter()).unwrap();
        assert_eq!((spread.median, spread.least, spread.most), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of([1.0, 2.0].into_iter()).unwrap().median, 1.5);
        assert_eq!(Spread::of(std::iter::empty()), None);
        let shown = [0.123, 9.999, 42.0, 999.9, 12_345.0, 999_700.0, 4_654_321.0];
        let expected = ["0.12", "10.0", "42.0", "1000", "12.3 k", "1.00 M", "4.65 M"];
        assert_eq!(shown.map(short), expected);
        assert_eq!(spread.text(short), "2.00 (1.00–3.00)");
    }
}
