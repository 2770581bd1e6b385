//! `compare`: the same pre-built load on several servers in turn, over several rounds, and one report.
//!
//! Each run has a fresh server on an empty directory ([`server`]), one CPU for it and another one for this tool, and is measured as
//! [`run`] says. A run that lost one sample, or got one answer that is not 2xx, has no figure, and the exit code says so. Rounds go
//! around the workloads and the targets, so that what drifts on the machine drifts for all, and one workload can be held against another.
//! The result is a table on stdout, a page with plots ([`page`]), and JSON where asked for.

mod page;
mod plot;
mod report;
mod run;
pub(crate) mod server;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::drive::Pace;
use crate::machine::{allowed_cpus, machine, parse_cpus, pin};
use crate::progress::Progress;
use crate::query::AskOptions;
use crate::workload::{self, Kind, Load, Protocol, Shape, ShapeOptions};
use crate::write::now_ms;
use report::{Report, TargetReport, WorkloadReport};
use run::{RunReport, Setting};
use server::{BUILT_IN, Spec};

/// `myelin-bench compare`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Built-in targets, in this order: myelin, victoria-metrics, prometheus. Default: those that are installed.
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// A further target, described as "name=N;push=URL;query=URL;ack=TEXT;command=PROGRAM ARGUMENTS", with {port}, {port2}
    /// and {data} where they belong; "tenants", "v2" and "nocache" say what it knows. Without a command it runs already; pid=N
    /// then names its process. May be repeated.
    #[arg(long, value_name = "DESCRIPTION")]
    target: Vec<String>,
    /// Further arguments of a target, as NAME=ARGUMENTS. May be repeated.
    #[arg(long, value_name = "NAME=ARGUMENTS")]
    server_args: Vec<String>,
    /// The program of the target myelin. Default: beside this one, else the one in PATH.
    #[arg(long, value_name = "PROGRAM")]
    myelin: Option<String>,
    /// What is pushed. Each round has all of several, whose bodies are in memory all the while.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "steady")]
    workload: Vec<Kind>,
    #[command(flatten)]
    shape: ShapeOptions,
    /// How often each target has each load.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// CPUs of the servers, as 0-3,8. Default: the first this process may use; all, where it is the only one.
    #[arg(long)]
    server_cpus: Option<String>,
    /// CPUs of this tool. Default: all others.
    #[arg(long)]
    load_cpus: Option<String>,
    /// How many seconds in a row a server has to be below 5 % of a CPU after the last answer.
    #[arg(long, default_value_t = 10)]
    quiet_seconds: u64,
    /// Seconds that connecting, or waiting for an answer, may take.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// The load is more than a server takes, by `--rate` and many `--connections`: answers of 503 are what is expected of it.
    /// Samples a second, latency and cost are then those of what was acknowledged, none of which may be lost.
    #[arg(long, requires = "rate", conflicts_with = "queries")]
    overload: bool,
    /// Ask the set of queries, too, after each load.
    #[arg(long)]
    queries: bool,
    #[command(flatten)]
    ask: AskOptions,
    /// Where data directories are made; should be on a real disk, since a sync costs nothing on tmpfs. Default: TMPDIR.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Where the page is written.
    #[arg(long, default_value = "compare.html")]
    html: PathBuf,
    /// Everything that was measured as JSON, into a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// No progress on stderr.
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    let report = compare(&options)?;
    print!("{}", report.text());
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    };
    write(&options.html, page::render(&report))?;
    println!("\nplots in {}", options.html.display());
    if let Some(path) = &options.json {
        write(path, serde_json::to_string_pretty(&report)?)?;
    }
    match report.refused() {
        0 => Ok(()),
        refused => bail!("{refused} runs have no figure"),
    }
}

fn compare(options: &Options) -> anyhow::Result<Report> {
    let specs = options.specs()?;
    let allowed = allowed_cpus()?;
    let (server_cpus, load_cpus) = options.cpus(&allowed)?;
    let ours = load_cpus.as_deref().map(parse_cpus).transpose()?;
    let base = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = Folder(base.join(format!("myelin-compare-{}", std::process::id())));
    let mut progress = Progress::new(options.quiet);
    let mut jobs = Vec::new();
    for kind in &options.workload {
        let shape = options.shape.shape(*kind, now_ms()?)?;
        let pace = Pace {
            timeout: Duration::from_secs(options.timeout),
            rate: options.shape.rate(*kind)?,
        };
        // All CPUs build, the tool's own drive.
        pin(&allowed)?;
        let load = workload::build(&shape, &mut progress);
        let many = shape.tenants > 1;
        let mut notes = Vec::new();
        let mut able = Vec::new();
        for spec in &specs {
            if load.protocol == Protocol::V2 && !spec.v2 {
                notes.push(format!(
                    "{} does not take remote write 2.0: left out",
                    spec.name
                ));
                continue;
            }
            if many && !spec.tenants {
                let name = &spec.name;
                notes.push(format!(
                    "{name} has no tenants: to it all series are one's (they differ by their labels, too)"
                ));
            }
            able.push(spec);
        }
        if options.overload {
            notes.push(
                "overload: figures are of what was acknowledged, the rest was answered 503"
                    .to_owned(),
            );
        }
        if many && options.queries {
            notes.push("queries are not asked where there are many tenants".to_owned());
        }
        jobs.push(Job {
            name: kind.name(),
            shape,
            pace,
            load,
            notes,
            able,
            runs: Vec::new(),
        });
    }
    if let Some(ours) = &ours {
        pin(ours)?;
    }
    for round in 1..=options.rounds {
        for job in &mut jobs {
            let many = job.shape.tenants > 1;
            let setting = Setting {
                shape: &job.shape,
                load: &job.load,
                pace: job.pace,
                overload: options.overload,
                quiet: Duration::from_secs(options.quiet_seconds),
                cpus: server_cpus.as_deref(),
                folder: &folder.0,
                ask: (options.queries && !many).then_some(&options.ask),
            };
            for spec in &job.able {
                let (name, rounds) = (job.name, options.rounds);
                let target = &spec.name;
                progress.finish(&format!("{name}, round {round} of {rounds}: {target}"));
                job.runs
                    .push(run::run(spec, round, &setting, &mut progress));
            }
        }
    }
    let workloads = jobs.into_iter().map(|job| WorkloadReport {
        name: job.name.to_owned(),
        rate: job.pace.rate,
        requests: job.load.requests(),
        body_bytes: job.load.body_bytes,
        notes: job.notes,
        runs: job.runs,
        shape: job.shape,
    });
    let workloads = workloads.collect();
    let target = |spec: &Spec| TargetReport {
        name: spec.name.clone(),
        version: spec.version(),
        command: spec.command.join(" "),
        ack: spec.ack.clone(),
    };
    pin(&allowed)?;
    Ok(Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: machine(),
        server_cpus,
        load_cpus,
        rounds: options.rounds,
        quiet_seconds: options.quiet_seconds,
        targets: specs.iter().map(target).collect(),
        workloads,
    })
}

/// A workload, built, for the targets that take it, and its runs so far.
struct Job<'a> {
    name: &'static str,
    shape: Shape,
    pace: Pace,
    load: Load,
    notes: Vec<String>,
    able: Vec<&'a Spec>,
    runs: Vec<RunReport>,
}

/// Holds the directories of the servers; removed at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Options {
    /// The targets in order, each with its further arguments. Errors: one that was named is not installed.
    fn specs(&self) -> anyhow::Result<Vec<Spec>> {
        let myelin = match &self.myelin {
            Some(program) => program.clone(),
            None => {
                let beside = std::env::current_exe()
                    .ok()
                    .map(|p| p.with_file_name("myelin"));
                let beside = beside.filter(|path| path.is_file());
                beside.map_or("myelin".to_owned(), |path| path.display().to_string())
            }
        };
        let mut specs = Vec::new();
        let named = !self.targets.is_empty();
        let default = || BUILT_IN.iter().map(|name| (*name).to_owned()).collect();
        let names = match (named, self.target.is_empty()) {
            (true, _) => self.targets.clone(),
            (false, true) => default(),
            (false, false) => Vec::new(),
        };
        for name in &names {
            let spec = Spec::built_in(name, &myelin)?;
            if spec.program().is_some() {
                specs.push(spec);
            } else if named {
                bail!("{name} is not installed: there is no {}", spec.command[0]);
            } else {
                eprintln!("{name} is not installed: left out");
            }
        }
        for text in &self.target {
            let spec = Spec::parse(text)?;
            let program = spec.command.first().map_or("", String::as_str);
            ensure!(spec.program().is_some(), "there is no program {program}");
            specs.push(spec);
        }
        ensure!(!specs.is_empty(), "there is no target to compare");
        for (number, spec) in specs.iter().enumerate() {
            let twice = specs[..number].iter().any(|other| other.name == spec.name);
            ensure!(!twice, "two targets are called {}", spec.name);
        }
        for text in &self.server_args {
            let (name, arguments) = text
                .split_once('=')
                .with_context(|| format!("{text:?} is not NAME=ARGUMENTS"))?;
            let spec = specs.iter_mut().find(|spec| spec.name == name);
            let spec = spec.with_context(|| format!("no target is called {name:?}"))?;
            let words = arguments.split_whitespace().map(str::to_owned);
            spec.command.extend(words);
        }
        Ok(specs)
    }

    /// CPUs of the servers and of the tool; `None`: any.
    fn cpus(&self, allowed: &[usize]) -> anyhow::Result<(Option<String>, Option<String>)> {
        let text = |cpus: &[usize]| {
            let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
            (!cpus.is_empty()).then(|| cpus.join(","))
        };
        for given in [&self.server_cpus, &self.load_cpus].into_iter().flatten() {
            parse_cpus(given)?;
        }
        let server = match &self.server_cpus {
            Some(cpus) => Some(cpus.clone()),
            None if allowed.len() > 1 => text(&allowed[..1]),
            None => None,
        };
        let taken = server.as_deref().map(parse_cpus).transpose()?;
        let taken = taken.unwrap_or_default();
        let load = match &self.load_cpus {
            Some(cpus) => Some(cpus.clone()),
            None => {
                let free = allowed.iter().filter(|cpu| !taken.contains(cpu));
                text(&free.copied().collect::<Vec<_>>())
            }
        };
        Ok((server, load))
    }
}

#[cfg(test)]
mod tests;
