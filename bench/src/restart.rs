//! `myelin-bench restart`: how long a server takes after `kill -9` until it answers, with a load in its log.
//!
//! Each server in turn is started on an empty directory, given the load, and killed; its files are read once, so that none has the advantage of a warm
//! cache; then it is started again, `--rounds` times, each time killed as soon as it has answered. A start is over when a query that counts all series of the load is
//! answered with all of them. The least time counts: what disturbs a start only makes it longer.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::compare::server::{Server, Spec};
use crate::drive::{self, Pace};
use crate::machine::machine;
use crate::process::Usage;
use crate::progress::Progress;
use crate::series::CLUSTER;
use crate::workload::{self, Kind, ShapeOptions};

/// A start may take so long.
const START_MAX: Duration = Duration::from_secs(600);

/// `myelin-bench restart`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Servers, in this order: myelin, prometheus, victoria-metrics.
    #[arg(long, value_delimiter = ',', default_value = "myelin,prometheus")]
    targets: Vec<String>,
    /// The program of the target myelin. Default: beside this one, else the one in PATH.
    #[arg(long, value_name = "PROGRAM")]
    myelin: Option<String>,
    /// Further arguments of myelin.
    #[arg(long, value_name = "ARGUMENTS")]
    myelin_args: Option<String>,
    /// What is pushed before.
    #[arg(long, value_enum, default_value = "steady")]
    workload: Kind,
    #[command(flatten)]
    shape: ShapeOptions,
    /// How often each server is started on its data.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// CPUs of the servers, as 0-3,8. Default: all that this process may use.
    #[arg(long)]
    server_cpus: Option<String>,
    /// Where data directories are made; should be on a real disk. Default: TMPDIR.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// No progress on stderr.
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let base = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = base.join(format!("myelin-restart-{}", std::process::id()));
    let shape = options
        .shape
        .shape(options.workload, crate::write::now_ms()?)?;
    ensure!(shape.tenants == 1, "a restart is measured with one tenant");
    let mut progress = Progress::new(options.quiet);
    let load = workload::build(&shape, &mut progress);
    let pace = Pace {
        timeout: Duration::from_secs(60),
        rate: options.shape.rate(options.workload)?,
    };
    println!("machine                 {}", machine());
    println!(
        "load                    {} series x {} scrapes",
        shape.series, shape.scrapes
    );
    let beside = std::env::current_exe()?.with_file_name("myelin");
    let beside = Some(beside).filter(|path| path.is_file());
    let beside = beside.map_or("myelin".to_owned(), |path| path.display().to_string());
    for name in &options.targets {
        let mut spec = Spec::built_in(name, options.myelin.as_ref().unwrap_or(&beside))?;
        if name == "myelin" {
            let more = options.myelin_args.as_deref().unwrap_or_default();
            let more = more.split_whitespace().map(str::to_owned);
            spec.command.extend(more);
        }
        ensure!(spec.program().is_some(), "{name} is not installed");
        let cpus = options.server_cpus.as_deref();
        let mut server = Server::start(&spec, &folder.join(name), cpus, false)?;
        let tally = drive::push(&server.target, &load, pace, &mut progress)?;
        if tally.refused > 0 {
            let why = tally.first_error.unwrap_or_default();
            bail!("{name}: {} samples were not taken: {why}", tally.refused);
        }
        let count = format!("count(last_over_time({{cluster=\"{CLUSTER}\"}}[1h]))");
        let wanted = (count, shape.end_ms(), shape.series);
        let mut best: Option<(Duration, Usage)> = None;
        for round in 1..=options.rounds {
            let took = server.restart(&wanted, START_MAX);
            let took = took.with_context(|| format!("{name}, start {round}"))?;
            let usage = server.process.context("it was started here")?.usage()?;
            progress.finish(&format!("{name}, start {round}: {took:?}"));
            if best.as_ref().is_none_or(|(least, _)| took < *least) {
                best = Some((took, usage));
            }
        }
        let (took, usage) = best.context("there is a round at least")?;
        println!(
            "{name:<23} {:.2} s, {:.1} CPU-seconds, {:.0} MB resident at most, {:.0} MB of data",
            took.as_secs_f64(),
            usage.cpu_seconds,
            usage.rss_peak_bytes as f64 / 1e6,
            server.disk_bytes() as f64 / 1e6,
        );
        server.stop()?;
    }
    Ok(())
}
