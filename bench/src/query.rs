//! `query`: how fast a server answers, what that costs it, and whether two servers answer the same.
//!
//! Any server with Prometheus' query API can be asked; the built-in set asks for the series that `write` makes. Results are compared
//! by [`checksum`], which stands in the table and in the JSON: a difference between two servers is shown, never hidden, but is not
//! always a fault: servers disagree on purpose about the edges of windows, lookback and what `rate` does there.

pub(crate) mod checksum;
pub(crate) mod measure;
pub(crate) mod set;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use serde::Serialize;

use crate::machine::machine;
use crate::process::Process;
use crate::progress::Progress;
use crate::target::TargetOptions;
use crate::write::now_ms;
use measure::{Effort, Outcome, geometric_mean_ms};
use set::{Query, Times};

/// `myelin-bench query`.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    ask: AskOptions,
    /// Milliseconds since 1970 at which instant queries look and ranges end; `write` says where its samples end.
    /// Default: now.
    #[arg(long)]
    time_ms: Option<i64>,
    /// Only queries whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Send nocache=1, by which Myelin and VictoriaMetrics leave out what they keep of results.
    #[arg(long)]
    nocache: bool,
    /// The server's process, for its CPU time.
    #[arg(long)]
    pid: Option<u32>,
    /// Report as JSON on stdout.
    #[arg(long)]
    json: bool,
    /// No progress on stderr.
    #[arg(long)]
    quiet: bool,
}

/// What is asked and how often, the same for `query` and `compare`.
#[derive(clap::Args, Clone)]
pub(crate) struct AskOptions {
    /// A list of own queries instead of the built-in set: an expression a line, asked at one moment and over the range;
    /// with "instant: " or "range: " before it only one of them; "values: LABEL" and "series: SELECTOR" too.
    #[arg(long, value_name = "FILE")]
    query_file: Option<PathBuf>,
    /// Connections that ask at the same time; each number is a run of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [1u16, 4], value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: Vec<u16>,
    /// How often each connection asks each query, after one answer that is not timed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,
    /// Seconds after which a query is not repeated any more.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    query_seconds: u64,
    /// Seconds that a range reaches back.
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
    range_s: i64,
    /// Seconds between two steps of a range.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(i64).range(1..=1_000_000_000))]
    step_s: i64,
    /// Seconds that connecting, or waiting for an answer, may take.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    query_timeout: u64,
}

impl AskOptions {
    pub(crate) fn queries(&self) -> anyhow::Result<Vec<Query>> {
        match &self.query_file {
            Some(path) => set::read(path),
            None => Ok(set::built_in()),
        }
    }

    pub(crate) fn concurrency(&self) -> &[u16] {
        &self.concurrency
    }

    pub(crate) fn times(&self, end_ms: i64, nocache: bool) -> Times {
        Times {
            end_ms,
            range_ms: self.range_s * 1000,
            step_ms: self.step_s * 1000,
            nocache,
        }
    }

    pub(crate) fn effort(&self) -> Effort {
        Effort {
            repeat: self.repeat,
            time_max: Duration::from_secs(self.query_seconds),
            timeout: Duration::from_secs(self.query_timeout),
        }
    }
}

/// The result of a run.
#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: String,
    server: Option<String>,
    end_ms: i64,
    range_ms: i64,
    step_ms: i64,
    means: Vec<Mean>,
    queries: Vec<Outcome>,
}

/// Over all queries at one concurrency.
#[derive(Debug, Serialize)]
struct Mean {
    concurrency: u16,
    /// `None` if a query failed.
    geometric_mean_of_medians_ms: Option<f64>,
}

pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    let target = options.target.resolve()?;
    let address = target.query.address()?;
    let server = options.pid.map(Process::new).transpose()?;
    let mut queries = options.ask.queries()?;
    if let Some(only) = &options.only {
        queries.retain(|query| query.name.contains(only));
        ensure!(!queries.is_empty(), "no query has {only:?} in its name");
    }
    let end_ms = match options.time_ms {
        Some(time) => time,
        None => now_ms()?,
    };
    let times = options.ask.times(end_ms, options.nocache);
    let effort = options.ask.effort();
    let mut progress = Progress::new(options.quiet);
    let mut outcomes = Vec::new();
    let mut means = Vec::new();
    for concurrency in options.ask.concurrency() {
        let first = outcomes.len();
        for query in &queries {
            progress.tick(|| format!("{} at concurrency {concurrency}", query.name));
            outcomes.push(measure::measure(
                query,
                &target,
                address,
                &times,
                usize::from(*concurrency),
                &effort,
                server.as_ref(),
            )?);
        }
        means.push(Mean {
            concurrency: *concurrency,
            geometric_mean_of_medians_ms: geometric_mean_ms(outcomes[first..].iter()),
        });
    }
    progress.finish(&format!("{} queries", outcomes.len()));
    let report = Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: machine(),
        server: server.map(|server| server.command()).transpose()?,
        end_ms,
        range_ms: times.range_ms,
        step_ms: times.step_ms,
        means,
        queries: outcomes,
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", table::text(&report));
    }
    let failed = report.queries.iter().filter(|q| !q.errors.is_empty());
    match failed.count() {
        0 => Ok(()),
        count => bail!("{count} queries failed"),
    }
}

#[cfg(test)]
mod tests;
