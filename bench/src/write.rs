//! `write`: pushes a workload as fast as the server takes it, or at a rate, and reports what it cost.
//!
//! Every connection is a thread that sends its own queue of ready requests. At a rate, a request has a time at which it is due,
//! and its latency counts from then: a server that stalls is charged for the requests that had to wait.
//! Nothing is retried: an error is counted, and a run with errors says so in its report and in the exit code.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::http::Connection;
use crate::latency::{Latencies, Percentiles};
use crate::machine::machine;
use crate::process::{Process, Usage};
use crate::progress::Progress;
use crate::target::{Target, TargetOptions};
use crate::workload::{self, Kind, Request, Shape};

/// `myelin-bench write`.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: TargetOptions,
    /// What is pushed.
    #[arg(long, value_enum, default_value = "steady")]
    workload: Kind,
    /// Series at every scrape. Default: 100000; 1000000 for cardinality.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    series: Option<u64>,
    /// Samples of each series. Default: 60; 6 for cardinality.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    scrapes: Option<u64>,
    /// Samples (and series) of one request.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    samples_per_body: u64,
    /// Keep-alive connections, each a thread.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Milliseconds of sample time between two scrapes.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(i64).range(1..))]
    interval_ms: i64,
    /// Sample time of the first scrape in milliseconds since 1970. Default: so that the last one is over now.
    /// The targets of a scrape are spread over the interval, as Prometheus does it.
    #[arg(long)]
    start_ms: Option<i64>,
    /// Samples a second over all connections. Default: as fast as the server takes them.
    #[arg(long)]
    rate: Option<f64>,
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

/// A server that never becomes quiet is measured until here.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(600);

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

/// What a connection has seen.
#[derive(Default)]
struct Tally {
    latencies: Latencies,
    outcomes: BTreeMap<String, u64>,
    first_error: Option<String>,
    acknowledged: u64,
    lost: u64,
}

impl Tally {
    fn merge(&mut self, other: Tally) {
        self.latencies.merge(other.latencies);
        for (outcome, count) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        self.first_error = self.first_error.take().or(other.first_error);
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
    }

    fn record(&mut self, request: &Request, answer: io::Result<crate::http::Response>) {
        let samples = u64::from(request.samples);
        let outcome = match answer {
            Ok(response) if (200..300).contains(&response.status) => {
                self.acknowledged += samples;
                response.status.to_string()
            }
            Ok(response) => {
                self.lost += samples;
                self.first_error
                    .get_or_insert_with(|| format!("{}: {}", response.status, response.excerpt()));
                response.status.to_string()
            }
            Err(error) => {
                self.lost += samples;
                self.first_error.get_or_insert_with(|| error.to_string());
                format!("{:?}", error.kind())
            }
        };
        *self.outcomes.entry(outcome).or_default() += 1;
    }
}

/// What all connections share.
struct Run<'a> {
    address: std::net::SocketAddr,
    timeout: Duration,
    rate: Option<f64>,
    start: Instant,
    samples_sent: AtomicU64,
    samples_done: &'a AtomicU64,
    connections_running: &'a AtomicU64,
}

pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    if let Some(rate) = options.rate
        && !(rate.is_finite() && rate > 0.0)
    {
        bail!("--rate must be a positive number of samples a second");
    }
    let target = options.target.resolve()?;
    let shape = options.shape()?;
    let mut progress = Progress::new(options.quiet);
    let load = workload::build(
        &shape,
        usize::from(options.connections),
        &target,
        &mut progress,
    );
    let server = options.pid.map(Process::new).transpose()?;
    let before = server.map(|server| server.usage()).transpose()?;
    let started = Instant::now();
    let tally = push(&options, &target, &shape, &load, &mut progress)?;
    let seconds = started.elapsed().as_secs_f64();

    let server = match server.zip(before) {
        Some((server, before)) => {
            let quiet = if options.wait_quiet > 0 {
                Some(wait_quiet(
                    &server,
                    Duration::from_secs(options.wait_quiet),
                    &mut progress,
                )?)
            } else {
                None
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
        samples_not_acknowledged: tally.lost,
        seconds,
        samples_per_second: tally.acknowledged as f64 / seconds,
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

impl Options {
    fn shape(&self) -> anyhow::Result<Shape> {
        let (series, scrapes) = match self.workload {
            Kind::Steady | Kind::Churn => (100_000, 60),
            Kind::Cardinality => (1_000_000, 6),
        };
        let scrapes = self.scrapes.unwrap_or(scrapes);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock is before 1970")?;
        let span = i64::try_from(scrapes)
            .ok()
            .and_then(|steps| steps.checked_mul(self.interval_ms))
            .context("scrapes times interval is more than time has")?;
        let start_ms = self.start_ms.unwrap_or(now.as_millis() as i64 - span);
        start_ms
            .checked_add(span)
            .context("the last scrape is after the end of time")?;
        Ok(Shape {
            kind: self.workload,
            series: self.series.unwrap_or(series),
            scrapes,
            samples_per_body: self.samples_per_body,
            interval_ms: self.interval_ms,
            start_ms,
        })
    }
}

/// Sends everything; shows progress meanwhile.
fn push(
    options: &Options,
    target: &Target,
    shape: &Shape,
    load: &workload::Load,
    progress: &mut Progress,
) -> anyhow::Result<Tally> {
    let samples_done = AtomicU64::new(0);
    let connections_running = AtomicU64::new(load.connections.len() as u64);
    let run = Run {
        address: target.push.address()?,
        timeout: Duration::from_secs(options.timeout),
        rate: options.rate,
        start: Instant::now(),
        samples_sent: AtomicU64::new(0),
        samples_done: &samples_done,
        connections_running: &connections_running,
    };
    let total = shape.samples();
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let connections: Vec<_> = load
            .connections
            .iter()
            .map(|queue| scope.spawn(|| run.connection(queue)))
            .collect();
        while connections_running.load(Relaxed) > 0 {
            thread::sleep(Duration::from_millis(50));
            progress.tick(|| {
                let done = samples_done.load(Relaxed);
                let seconds = run.start.elapsed().as_secs_f64();
                format!(
                    "{:>3} %  {done} of {total} samples answered, {:.0} a second",
                    done * 100 / total,
                    done as f64 / seconds
                )
            });
        }
        for connection in connections {
            match connection.join() {
                Ok(seen) => tally.merge(seen),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    progress.finish(&format!("{total} samples answered"));
    Ok(tally)
}

impl Run<'_> {
    fn connection(&self, queue: &[Request]) -> Tally {
        let mut tally = Tally::default();
        let mut connection = Connection::new(self.address, self.timeout);
        for request in queue {
            let begin = match self.rate {
                Some(rate) => {
                    let ahead = self
                        .samples_sent
                        .fetch_add(u64::from(request.samples), Relaxed);
                    let due = self.start + Duration::from_secs_f64(ahead as f64 / rate);
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    due
                }
                None => Instant::now(),
            };
            let answer = connection.exchange(&request.bytes);
            if answer.is_ok() {
                tally.latencies.record(begin.elapsed());
            }
            tally.record(request, answer);
            self.samples_done
                .fetch_add(u64::from(request.samples), Relaxed);
        }
        self.connections_running.fetch_sub(1, Relaxed);
        tally
    }
}

/// Waits for `quiet` seconds in a row under 5 % of a CPU; gives the seconds that passed before them.
fn wait_quiet(server: &Process, quiet: Duration, progress: &mut Progress) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut quiet_since = start;
    let mut cpu = server.usage()?.cpu_seconds;
    while quiet_since.elapsed() < quiet && start.elapsed() < QUIET_WAIT_MAX {
        let second = Instant::now();
        thread::sleep(Duration::from_secs(1));
        let now = server.usage()?.cpu_seconds;
        let share = (now - cpu) / second.elapsed().as_secs_f64();
        if share >= 0.05 {
            quiet_since = Instant::now();
        }
        cpu = now;
        progress.tick(|| {
            format!(
                "waiting for the server to be quiet: {:.0} % of a CPU",
                share * 100.0
            )
        });
    }
    let busy = quiet_since.duration_since(start).as_secs_f64();
    progress.finish(&format!("the server was busy for {busy:.0} s more"));
    Ok(busy)
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
                crate::target::seconds(self.end_ms),
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
        let outcomes: Vec<String> = self
            .outcomes
            .iter()
            .map(|(outcome, count)| format!("{outcome}: {count}"))
            .collect();
        line("answers", outcomes.join(", "));
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
