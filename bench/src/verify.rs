//! `verify`: proves that nothing acknowledged is lost and nothing unsent is found, whatever happened to the server in between.
//!
//! Each connection owns its series and pushes one body after the other, a sample of each of its series at one time (the wall
//! clock, made to ascend). A sample's value follows from run, connection, series and time (`pattern`), so that the state file
//! (`journal`) only has to say which times were sent and which acknowledged. `write` appends to that file before and after each
//! request; the server, or this process, may be killed at any moment. `check` reads it and asks for the raw samples of every
//! series in windows: a time acknowledged by 2xx must be there, one without an acknowledgement may, any other must not.

mod check;
mod journal;
mod pattern;
mod write;

use std::path::PathBuf;
use std::time::Duration;

use crate::target::TargetOptions;

/// `myelin-bench verify`.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    phase: Phase,
}

#[derive(clap::Subcommand)]
enum Phase {
    /// Write the pattern; stops when the time is up or the server goes away.
    Write(WriteOptions),
    /// Ask for every sample; exit code 1 and the first losses by name if anything is wrong.
    Check(CheckOptions),
    /// Both, one after the other.
    Run(RunOptions),
}

#[derive(clap::Args)]
struct WriteOptions {
    #[command(flatten)]
    common: CommonOptions,
    #[command(flatten)]
    load: LoadOptions,
}

#[derive(clap::Args)]
struct CheckOptions {
    #[command(flatten)]
    common: CommonOptions,
    #[command(flatten)]
    patience: PatienceOptions,
}

#[derive(clap::Args)]
struct RunOptions {
    #[command(flatten)]
    common: CommonOptions,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    patience: PatienceOptions,
}

#[derive(clap::Args)]
struct CommonOptions {
    #[command(flatten)]
    target: TargetOptions,
    /// The file that remembers what was sent and acknowledged. `write` goes on with one that exists.
    #[arg(long)]
    state: PathBuf,
    /// Seconds that connecting, or waiting for an answer, may take.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// No progress on stderr.
    #[arg(long)]
    quiet: bool,
}

#[derive(clap::Args)]
struct LoadOptions {
    /// How long to write.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Keep-alive connections, each a thread. A state file that exists has its own number.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Series of each connection, hence samples of a body. A state file that exists has its own number.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    series: u32,
    /// Milliseconds to wait between two bodies of a connection.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// When the server goes away or answers 5xx or 429, send the same body again until it is acknowledged or the
    /// time is up. A 4xx for a body that was sent before is then a failure: it may have been stored.
    #[arg(long)]
    retry: bool,
}

#[derive(clap::Args)]
struct PatienceOptions {
    /// Seconds to wait for a server that does not answer queries yet.
    #[arg(long, default_value_t = 60)]
    wait: u64,
}

impl CommonOptions {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    match options.phase {
        Phase::Write(options) => write::run(&options.common, &options.load),
        Phase::Check(options) => check::run(&options.common, &options.patience),
        Phase::Run(options) => {
            write::run(&options.common, &options.load)?;
            check::run(&options.common, &options.patience)
        }
    }
}

#[cfg(test)]
mod tests;
