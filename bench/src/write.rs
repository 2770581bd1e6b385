//! `write`: pushes a workload as fast as the server takes it, or at a rate, and reports what it cost.
//!
//! `drive` does the sending. A run with errors says so in its report and in the exit code.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::drive::{self, Pace, outcomes_text, wait_quiet};
use crate::latency::Percentiles;
use crate::machine::machine;
use crate::process::{Process, Usage};
use crate::progress::Progress;
use crate::target::{TargetOptions, seconds};
use crate::workload::{self, Kind, ShapeOptions};

/// `myelin-bench write`.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: TargetOptions,
    /// What is pushed.
    #[arg(long, value_enum, default_value = "steady")]
    workload: Kind,
    #[command(flatten)]
    shape: ShapeOptions,
    /// The server's process, for CPU time and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// After the last answer, wait until the server has been quiet (under 5 % of a CPU) for so many seconds,
    /// and count its CPU time until then.
    #[arg(long, default_value_t = 0, requires = "pid")]
    wait_quiet: u64,
    /// Seconds that connecting, or waiting for an answer, may take.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Report as JSON on stdout.
    #[arg(long)]
    json: bool,
    /// No progress on stderr.
    #[arg(long)]
    quiet: bool,
}

/// The result of a run.
#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: String,
    workload: Kind,
    series: u64,
    series_distinct: u64,
    scrapes: u64,
    /// Milliseconds since 1970 at which the last scrape is over: where `query --time-ms` should look.
    end_ms: i64,
    connections: usize,
    requests: u64,
    body_bytes: u64,
    samples_acknowledged: u64,
    samples_not_acknowledged: u64,
    seconds: f64,
    samples_per_second: f64,
    latency: Option<Percentiles>,
    /// Requests by status; those without an answer by the kind of the error.
    outcomes: BTreeMap<String, u64>,
    first_error: Option<String>,
    server: Option<ServerReport>,
}

#[derive(Debug, Serialize)]
struct ServerReport {
    command: String,
    before: Usage,
    after: Usage,
    /// Until the server was quiet, if that was asked for.
    cpu_seconds: f64,
    cpu_seconds_per_million_samples: f64,
    samples_per_cpu_second: f64,
    /// Growth of resident memory for each series that was new.
    rss_growth_per_series: f64,
    seconds_until_quiet: Option<f64>,
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> anyhow::Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(now.context("the clock is before 1970")?.as_millis() as i64)
}

pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    let target = options.target.resolve()?;
    let shape = options.shape.shape(options.workload, now_ms()?)?;
    let pace = Pace {
        timeout: Duration::from_secs(options.timeout),
        rate: options.shape.rate(options.workload)?,
    };
    let mut progress = Progress::new(options.quiet);
    let load = workload::build(&shape, &mut progress);
    let server = options.pid.map(Process::new).transpose()?;
    let before = server.map(|server| server.usage()).transpose()?;
    let tally = drive::push(&target, &load, pace, &mut progress)?;

    let server = match server.zip(before) {
        Some((server, before)) => {
            let quiet = match options.wait_quiet {
                0 => None,
                wait => Some(wait_quiet(
                    &server,
                    Duration::from_secs(wait),
                    &mut progress,
                )?),
            };
            let after = server.usage()?;
            let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
            let samples = tally.acknowledged as f64;
            Some(ServerReport {
                command: server.command()?,
                before,
                after,
                cpu_seconds,
                cpu_seconds_per_million_samples: cpu_seconds / samples * 1e6,
                samples_per_cpu_second: samples / cpu_seconds,
                rss_growth_per_series: (after.rss_bytes as f64 - before.rss_bytes as f64)
                    / shape.series_distinct() as f64,
                seconds_until_quiet: quiet,
            })
        }
        None => None,
    };
    let report = Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: machine(),
        workload: options.workload,
        series: shape.series,
        series_distinct: shape.series_distinct(),
        scrapes: shape.scrapes,
        end_ms: shape.end_ms(),
        connections: load.connections.len(),
        requests: load.requests() as u64,
        body_bytes: load.body_bytes,
        samples_acknowledged: tally.acknowledged,
        samples_not_acknowledged: tally.refused,
        seconds: tally.seconds,
        samples_per_second: tally.acknowledged as f64 / tally.seconds,
        latency: tally.latencies.percentiles(),
        outcomes: tally.outcomes,
        first_error: tally.first_error,
        server,
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    if report.samples_not_acknowledged > 0 {
        bail!(
            "{} samples were not acknowledged",
            report.samples_not_acknowledged
        );
    }
    Ok(())
}

impl Report {
    fn text(&self) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        let mut line = |name: &str, text: String| {
            let _ = writeln!(out, "{name:<24}{text}");
        };
        line("command", self.command.clone());
        line("machine", self.machine.clone());
        line(
            "load",
            format!(
                "{} series ({} different) x {} scrapes, {} requests on {} connections, {:.1} bytes a sample",
                self.series,
                self.series_distinct,
                self.scrapes,
                self.requests,
                self.connections,
                self.body_bytes as f64 / (self.series * self.scrapes) as f64
            ),
        );
        line(
            "sample time",
            format!(
                "ends at {}: query --time-ms {}",
                seconds(self.end_ms),
                self.end_ms
            ),
        );
        line(
            "acknowledged",
            format!(
                "{} samples in {:.2} s: {:.0} a second",
                self.samples_acknowledged, self.seconds, self.samples_per_second
            ),
        );
        if let Some(latency) = self.latency {
            line(
                "latency",
                format!(
                    "p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
                    latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.max_ms
                ),
            );
        }
        line("answers", outcomes_text(&self.outcomes));
        if let Some(error) = &self.first_error {
            line("first error", error.clone());
        }
        if self.samples_not_acknowledged > 0 {
            line(
                "not acknowledged",
                format!("{} samples", self.samples_not_acknowledged),
            );
        }
        if let Some(server) = &self.server {
            line("server", server.command.clone());
            let quiet = server.seconds_until_quiet.map_or(String::new(), |seconds| {
                format!(", quiet {seconds:.0} s after the last answer")
            });
            line(
                "server CPU",
                format!(
                    "{:.2} s: {:.3} s a million samples, {:.0} samples a CPU-second{quiet}",
                    server.cpu_seconds,
                    server.cpu_seconds_per_million_samples,
                    server.samples_per_cpu_second
                ),
            );
            let mb = |bytes: u64| bytes as f64 / 1e6;
            line(
                "server memory",
                format!(
                    "{:.1} MB, was {:.1} MB before, peak {:.1} MB: {:.0} bytes a series",
                    mb(server.after.rss_bytes),
                    mb(server.before.rss_bytes),
                    mb(server.after.rss_peak_bytes),
                    server.rss_growth_per_series
                ),
            );
        }
        out
    }
}
