//! `myelin tool ..`: looking at files of a node, without a server.
//!
//! A tool reads; it changes nothing, and it may run beside a server. Exit codes: 0 done, 1 the file is damaged or cannot be read, 2 a wrong command
//! line.

mod block;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: myelin tool COMMAND

  block inspect FILE..           what a block says of itself: tenants, times, sizes
  block verify FILE..            read all of it and check it against itself
  block dump FILE [TENANT]       its series and samples as text: labels, value, time
";

/// Runs what stands behind `myelin tool`.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["block", "inspect", ref files @ ..] if !files.is_empty() => block::inspect(files),
        ["block", "verify", ref files @ ..] if !files.is_empty() => block::verify(files),
        ["block", "dump", file] => block::dump(file, None),
        ["block", "dump", file, tenant] => block::dump(file, Some(tenant)),
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
