//! `myelin tool ..`: looking at files of a node, without a server.
//!
//! Tools of files read; they change nothing, and may run beside a server. Import and export hold the data directory, so that no server runs on it meanwhile. Exit codes: 0
//! done, 1 something is damaged or cannot be read or written, 2 a wrong command line.

mod block;
mod export;
mod import;
mod options;
mod secret;
mod wal;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: myelin tool COMMAND

  block inspect FILE..           what a block says of itself: tenants, times, sizes
  block verify FILE..            read all of it and check it against itself
  block dump FILE [TENANT]       its series and samples as text: labels, value, time

  wal inspect DIR..              what the logs of a node hold, file by file, and what a start makes of them
  wal verify DIR..               read all of them, with the chunk files that they name, every checksum: 1 if anything is
                                 damaged, 0 if not; an unfinished last commit is no damage
                                 DIR: a data directory (with those of data.core_dirs), one of cores, or wal in either

  hash-password                  a line of standard input, as the file of credentials has a password
  new-token                      a new token, and what the file of credentials has of it

  import prometheus-block [-tenant=fake] [-data.dir=./data] DIR..
                                 blocks of Prometheus (or directories of such) into the data directory of a node that
                                 does not run; what is there already is passed over, so an interrupted import goes on
  export prometheus-block [-tenant=fake] [-data.dir=./data] [-start=MS] [-end=MS] DIR
                                 what the blocks of a node that does not run hold of a tenant, as blocks of Prometheus
                                 of a day each; what is in its log alone is not in it (/ingester/flush before the stop)
";

/// Whether there are any, and none is meant as a flag.
fn are_paths(words: &[&str]) -> bool {
    !words.is_empty() && !words.iter().any(|word| word.starts_with('-'))
}

/// Runs what stands behind `myelin tool`.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["block", "inspect", ref files @ ..] if !files.is_empty() => block::inspect(files),
        ["block", "verify", ref files @ ..] if !files.is_empty() => block::verify(files),
        ["block", "dump", file] => block::dump(file, None),
        ["block", "dump", file, tenant] => block::dump(file, Some(tenant)),
        ["wal", "inspect", ref dirs @ ..] if are_paths(dirs) => wal::inspect(dirs),
        ["wal", "verify", ref dirs @ ..] if are_paths(dirs) => wal::verify(dirs),
        ["import", "prometheus-block", ref rest @ ..] => import::run(rest),
        ["export", "prometheus-block", ref rest @ ..] => export::run(rest),
        ["hash-password"] => secret::hash_password(),
        ["new-token"] => secret::new_token(),
        [] | ["help" | "-help" | "--help" | "-h"] => crate::say(USAGE),
        _ => {
            eprintln!(
                "myelin tool: no such command: {}\n\n{USAGE}",
                words.join(" ")
            );
            ExitCode::from(2)
        }
    }
}
