//! `myelin-bench`: the load tool. But for `floor`, it sees a server only as users do, over HTTP and in `/proc`.
//!
//! - `write` pushes a pre-built load over keep-alive connections and says what it cost the server: samples a second, latency
//!   percentiles, errors, CPU-seconds, memory. It works on anything that takes Prometheus remote write 1.0, so that peers can be
//!   measured by the same load.
//! - `compare` starts several servers in turn, gives all the same load, and writes one report with plots.
//! - `query` asks a set of queries, or those of a file, and says how long they take, what they cost the server, and by a checksum
//!   whether two servers answer the same.
//! - `floor` runs the stages of a write alone on one core: the practical ceiling.
//! - `restart` kills servers with a load in their logs and says how long they take until they answer again.
//! - `verify` writes a known pattern, remembers exactly what was acknowledged, and later asks for every single sample: what was
//!   acknowledged must be there, what was never sent must not. The server may be killed in between; that is what it is for.
//!
//! Place on the way of a sample: before its first step. Threads and blocking sockets on purpose: a connection is a thread, its
//! requests are ready bytes, and one core of this drives many of the server's. Read `main`, then `write`, `compare`,
//! `query`, `floor`, `restart` or `verify`.

#![forbid(unsafe_code)]

mod compare;
mod drive;
mod floor;
mod http;
mod latency;
mod machine;
#[cfg(test)]
mod mock;
mod process;
mod progress;
mod query;
mod restart;
mod series;
mod target;
mod verify;
mod workload;
mod write;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Load for metric stores that take Prometheus remote write.
#[derive(Parser)]
#[command(name = "myelin-bench", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Push a pre-built load and measure what it costs the server.
    Write(write::Options),
    /// Give several servers the same load in turn, and write one report.
    Compare(Box<compare::Options>),
    /// Ask queries, and measure how long they take and what they cost the server.
    Query(query::Options),
    /// Run the stages of a write alone on one core: the practical ceiling of any server.
    Floor(floor::Options),
    /// Give servers a load, kill them, and measure how long they take until they answer again.
    Restart(restart::Options),
    /// Write a known pattern and check that what was acknowledged is there.
    Verify(verify::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Write(options) => write::run(options),
        Command::Compare(options) => compare::run(*options),
        Command::Query(options) => query::run(options),
        Command::Floor(options) => floor::run(&options),
        Command::Restart(options) => restart::run(&options),
        Command::Verify(options) => verify::run(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("myelin-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
