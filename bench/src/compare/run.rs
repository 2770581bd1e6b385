//! One run: one load on one server, and what it cost.
//!
//! 1. The server starts on an empty directory, answers a query, and is quiet for two seconds: its memory now is *idle*.
//! 2. The load is pushed. Then the server is left alone until it has been quiet for ten seconds: its memory and disk now count.
//! 3. One query counts all series. Its CPU time until here, less that of step 1, is what the load cost.
//! 4. Queries over the whole of the load count the samples that are there. One that is missing, or one answer that is not 2xx, and the
//!    run has no figure. (In overload answers of 503 are what is asked for: the figures are of what was acknowledged.)
//! 5. The set of queries, where it was asked for.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;

use super::server::{Server, Spec};
use super::watch::{Timeline, Watch};
use crate::drive::{self, Pace, wait_quiet};
use crate::http::Connection;
use crate::machine;
use crate::process::Process;
use crate::progress::Progress;
use crate::query::AskOptions;
use crate::query::measure::{Outcome, measure};
use crate::series::{CLUSTER, metric_names};
use crate::target::Target;
use crate::workload::{Load, Shape};

/// Quiet seconds before the load.
const SETTLE: Duration = Duration::from_secs(2);
/// For a query that counts everything.
const COUNT_MAX: Duration = Duration::from_secs(300);

/// What a run is made of, the same for all servers.
pub(crate) struct Setting<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) load: &'a Load,
    pub(crate) pace: Pace,
    /// Whether the load is more than the server takes: it may answer 503.
    pub(crate) overload: bool,
    /// How long the server has to be quiet after the load.
    pub(crate) quiet: Duration,
    /// CPUs of the server.
    pub(crate) cpus: Option<&'a str>,
    /// Where its directory is made.
    pub(crate) folder: &'a Path,
    pub(crate) ask: Option<&'a AskOptions>,
}

/// What a run cost. Only a run in which nothing was refused and nothing is missing has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) samples_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// From sending; the others are from when a request was due, if there is a rate.
    pub(crate) served_p99_ms: f64,
    /// `None` of a server whose process is unknown, here and below.
    pub(crate) process: Option<ProcessFigures>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ProcessFigures {
    pub(crate) samples_per_cpu_second: f64,
    pub(crate) cpu_seconds: f64,
    /// The same by the CPU time of the whole machine but this tool: kernel threads that work for the server are in it, and
    /// whatever else runs.
    pub(crate) samples_per_machine_cpu_second: f64,
    pub(crate) machine_cpu_seconds: f64,
    pub(crate) seconds_until_quiet: f64,
    pub(crate) rss_idle_bytes: u64,
    pub(crate) rss_bytes: u64,
    pub(crate) rss_peak_bytes: u64,
    /// Memory over idle for each series.
    pub(crate) bytes_per_series: f64,
    pub(crate) disk_bytes: u64,
    pub(crate) disk_bytes_per_sample: f64,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub(crate) struct RunReport {
    pub(crate) target: String,
    pub(crate) round: u32,
    /// Why it has no figure. Empty: it has.
    pub(crate) refused: Vec<String>,
    pub(crate) figures: Option<Figures>,
    pub(crate) acknowledged: u64,
    pub(crate) not_acknowledged: u64,
    /// Acknowledged samples that are not there; negative: more are there than were sent. `None`: nobody counted.
    pub(crate) lost: Option<i64>,
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) first_error: Option<String>,
    pub(crate) timeline: Timeline,
    pub(crate) queries: Vec<QueryFigure>,
}

/// One query of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct QueryFigure {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) concurrency: usize,
    /// `None`: it failed.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) max_ms: Option<f64>,
    pub(crate) cpu_ms: Option<f64>,
    pub(crate) checksum: Option<crate::query::checksum::Checksum>,
    pub(crate) errors: Vec<String>,
}

impl From<Outcome> for QueryFigure {
    fn from(outcome: Outcome) -> QueryFigure {
        QueryFigure {
            kind: outcome.kind.name(),
            p50_ms: outcome.latency.map(|l| l.p50_ms),
            p99_ms: outcome.latency.map(|l| l.p99_ms),
            max_ms: outcome.latency.map(|l| l.max_ms),
            cpu_ms: outcome.cpu_ms,
            checksum: outcome.checksum,
            errors: outcome.errors.into_keys().collect(),
            name: outcome.name,
            concurrency: outcome.concurrency,
        }
    }
}

/// Starts the server, measures, stops it. What goes wrong is in the report: the other servers are measured nevertheless.
pub(crate) fn run(
    spec: &Spec,
    round: u32,
    setting: &Setting<'_>,
    progress: &mut Progress,
) -> RunReport {
    let mut report = RunReport {
        target: spec.name.clone(),
        round,
        ..RunReport::default()
    };
    let folder = setting.folder.join(format!("{}-{round}", spec.name));
    let many = setting.shape.tenants > 1 && spec.tenants;
    let mut server = match Server::start(spec, &folder, setting.cpus, many) {
        Ok(server) => server,
        Err(error) => {
            report.refused.push(format!("did not start: {error:#}"));
            return report;
        }
    };
    if let Err(error) = load(spec, &server, setting, &mut report, progress) {
        report.refused.push(format!("{error:#}"));
    }
    if server.ended() {
        let words = server.last_words();
        report.refused.push(format!("it ended by itself: {words}"));
    } else if let Err(error) = server.stop() {
        report.refused.push(format!("{error:#}"));
    }
    if !report.refused.is_empty() {
        report.figures = None;
    }
    report
}

fn load(
    spec: &Spec,
    server: &Server,
    setting: &Setting<'_>,
    report: &mut RunReport,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let shape = setting.shape;
    if let Some(process) = &server.process {
        wait_quiet(process, SETTLE.min(setting.quiet), progress)?;
    }
    let idle = server.process.map(|p| p.usage()).transpose()?;
    let machine_before = machine::busy_seconds()?;
    let tool = Process::new(std::process::id())?;
    let tool_before = tool.usage()?.cpu_seconds;
    let watch = server.process.map(Watch::start);
    let start = Instant::now();
    let tally = drive::push(&server.target, setting.load, setting.pace, progress)?;
    let pushed = start.elapsed().as_secs_f64();
    let until_quiet = match &server.process {
        Some(process) => wait_quiet(process, setting.quiet, progress),
        None => Ok(0.0),
    };
    let looks = watch.map(Watch::finish).unwrap_or_default();
    let until_quiet = until_quiet?;
    report.timeline = Timeline::new(&tally.events, &looks, pushed + until_quiet);
    report.acknowledged = tally.acknowledged;
    report.not_acknowledged = tally.refused;
    report.outcomes = tally.outcomes;
    report.first_error = tally.first_error;
    let at_rest = server.process.map(|p| p.usage()).transpose()?;
    let disk_bytes = server.disk_bytes();

    let counter = Counter::new(spec, server, shape)?;
    let expression = format!("count({{cluster=\"{CLUSTER}\"}})");
    let series = counter.sum(&[expression])?;
    let after = server.process.map(|p| p.usage()).transpose()?;
    let machine_cpu_seconds =
        (machine::busy_seconds()? - machine_before) - (tool.usage()?.cpu_seconds - tool_before);

    let found = counter.sum(&counter.samples_of_each_metric())?;
    let lost = tally.acknowledged as i64 - found as i64;
    report.lost = Some(lost);
    if tally.refused > 0 && !(setting.overload && only_refused_by_503(&report.outcomes)) {
        report.refused.push(format!(
            "{} samples were not acknowledged ({}): {}",
            tally.refused,
            drive::outcomes_text(&report.outcomes),
            report.first_error.as_deref().unwrap_or("without a word")
        ));
    }
    if lost > 0 {
        report
            .refused
            .push(format!("{lost} acknowledged samples are not there"));
    } else if lost < 0 && tally.refused == 0 {
        let more = -lost;
        report
            .refused
            .push(format!("{more} samples are there that were never sent"));
    }
    if series < shape.series as f64 && tally.refused == 0 {
        report.refused.push(format!(
            "{series} series are there at the end, {} were sent",
            shape.series
        ));
    }
    let latencies = tally.latencies.percentiles();
    let Some((latency, served)) = latencies.zip(tally.served.percentiles()) else {
        return Ok(());
    };
    let samples = tally.acknowledged as f64;
    let process = idle.zip(at_rest).zip(after);
    report.figures = Some(Figures {
        samples_per_second: samples / tally.seconds,
        p50_ms: latency.p50_ms,
        p99_ms: latency.p99_ms,
        max_ms: latency.max_ms,
        served_p99_ms: served.p99_ms,
        process: process.map(|((idle, at_rest), after)| {
            let cpu_seconds = after.cpu_seconds - idle.cpu_seconds;
            let growth = at_rest.rss_bytes as f64 - idle.rss_bytes as f64;
            ProcessFigures {
                samples_per_cpu_second: samples / cpu_seconds,
                cpu_seconds,
                samples_per_machine_cpu_second: samples / machine_cpu_seconds,
                machine_cpu_seconds,
                seconds_until_quiet: until_quiet,
                rss_idle_bytes: idle.rss_bytes,
                rss_bytes: at_rest.rss_bytes,
                rss_peak_bytes: at_rest.rss_peak_bytes,
                bytes_per_series: growth / shape.series_distinct() as f64,
                disk_bytes,
                disk_bytes_per_sample: disk_bytes as f64 / samples,
            }
        }),
    });
    if let Some(ask) = setting.ask {
        ask_all(spec, server, setting, ask, report, progress)?;
    }
    Ok(())
}

/// Whether there were answers to all requests, of 2xx or 503.
fn only_refused_by_503(outcomes: &BTreeMap<String, u64>) -> bool {
    let fine =
        |outcome: &String| outcome == "503" || (outcome.len() == 3 && outcome.starts_with('2'));
    outcomes.keys().all(fine)
}

fn ask_all(
    spec: &Spec,
    server: &Server,
    setting: &Setting<'_>,
    ask: &AskOptions,
    report: &mut RunReport,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let times = ask.times(setting.shape.end_ms(), spec.nocache);
    let address = server.target.query.address()?;
    for concurrency in ask.concurrency() {
        for query in ask.queries()? {
            progress.tick(|| format!("{} asks {} x {concurrency}", spec.name, query.name));
            let outcome = measure(
                &query,
                &server.target,
                address,
                &times,
                usize::from(*concurrency),
                &ask.effort(),
                server.process.as_ref(),
            )?;
            report.queries.push(outcome.into());
        }
    }
    Ok(())
}

/// Asks for sums over everything that was sent, tenant by tenant where they are kept apart.
struct Counter<'a> {
    targets: Vec<Target>,
    address: std::net::SocketAddr,
    shape: &'a Shape,
}

impl<'a> Counter<'a> {
    fn new(spec: &Spec, server: &Server, shape: &'a Shape) -> anyhow::Result<Counter<'a>> {
        let target = &server.target;
        let targets = match shape.tenants > 1 && spec.tenants {
            false => vec![target.clone()],
            true => (0..shape.tenants)
                .map(|number| target.with_tenant(target.tenant_name(Some(number))))
                .collect(),
        };
        Ok(Counter {
            targets,
            address: target.query.address()?,
            shape,
        })
    }

    /// Samples within the time of the load, metric by metric: Prometheus counts no two metrics of the same labels in one go, and
    /// no query reads more samples than servers allow.
    fn samples_of_each_metric(&self) -> Vec<String> {
        let ms = self.shape.end_ms() - self.shape.start_ms;
        let seconds = (ms + 999) / 1000;
        let of = |name: String| {
            format!("sum(count_over_time({name}{{cluster=\"{CLUSTER}\"}}[{seconds}s]))")
        };
        metric_names().into_iter().map(of).collect()
    }

    /// The sum of all answers, which are one number or nothing each. Errors: an answer that is not.
    fn sum(&self, expressions: &[String]) -> anyhow::Result<f64> {
        let mut stream = Connection::new(self.address, COUNT_MAX);
        let mut sum = 0.0;
        for target in &self.targets {
            for expression in expressions {
                let request = target.query_request(expression, self.shape.end_ms());
                let answer = stream
                    .exchange(&request)
                    .with_context(|| format!("asking for {expression}"))?;
                ensure!(
                    answer.status == 200,
                    "asking for {expression}: {} {}",
                    answer.status,
                    answer.excerpt()
                );
                sum += number(&answer.body)
                    .with_context(|| format!("asking for {expression}: {}", answer.excerpt()))?;
            }
        }
        Ok(sum)
    }
}

/// The value of a vector of one element; 0 of an empty one.
fn number(body: &[u8]) -> Option<f64> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let result = answer.get("data")?.get("result")?.as_array()?;
    match result.as_slice() {
        [] => Some(0.0),
        [one] => one.get("value")?.get(1)?.as_str()?.parse().ok(),
        _ => None,
    }
}
