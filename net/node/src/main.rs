//! The binary `myelin`: command line, configuration, start, signals, stop.
//!
//! Read on in this order: [`config`] (flags, file, defaults), [`node`] (what is started, in which order, and how it ends),
//! [`runtime_config`] (limits of single tenants, read again and again), [`security`] (credentials and certificates, likewise), [`self_scrape`] (the node watches itself), [`tool`] (`myelin tool ..`, without a node), [`process`] (numbers of process and allocator), [`logging`].
//!
//! Exit codes: 0 after a stop by signal, 1 when the node cannot start (also with a wrong file of overrides) or its log failed, 2 for a wrong command line or
//! configuration file.

#![forbid(unsafe_code)]

mod banner;
mod caches;
mod compaction;
mod config;
mod cpu_profile;
mod disk;
mod logging;
mod memory;
mod node;
mod notify;
mod process;
mod runtime_config;
mod security;
mod self_scrape;
mod series;
mod storage;
mod tool;

use std::io::Write;
use std::process::ExitCode;

use config::Request;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Of the crate, and thereby of everything in this repository.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = args.split_first()
        && first == "tool"
    {
        return tool::run(rest);
    }
    let config = match config::read(args.into_iter()) {
        Ok(Request::Run(config)) => config,
        Ok(Request::Help) => {
            return say(&config::help());
        }
        Ok(Request::Version) => {
            return say(&format!("myelin, version {VERSION}\n"));
        }
        Ok(Request::Modules) => {
            return say(&config::modules());
        }
        Ok(Request::Print(config)) => {
            return say(&config::yaml(&config));
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "myelin: {error}");
            return ExitCode::from(2);
        }
    };
    logging::start(config.server.log_level, config.server.log_format);
    match node::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = told(&error), "the node ends");
            ExitCode::FAILURE
        }
    }
}

/// Prints what was asked for. A reader that has seen enough, as `head`, is no error.
fn say(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// The error and its causes, those left out that the text before has quoted already.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = text + separator + &cause;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    #[test]
    fn a_cause_that_was_quoted_is_not_told_twice() {
        let error = Err::<(), _>(anyhow!("no space"))
            .context("log: no space")
            .context("start");
        assert_eq!(super::told(&error.unwrap_err()), "start: log: no space");
    }
}
