//! What a server process costs, read from `/proc`: CPU time of all its threads, dead ones too, and memory.

use std::fs;

use anyhow::{Context, bail};
use serde::Serialize;

/// A process that is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pid: u32,
}

/// Costs so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// User and system time. The kernel counts it in ticks of 10 ms.
    pub(crate) cpu_seconds: f64,
    /// Resident memory.
    pub(crate) rss_bytes: u64,
    /// The most it ever was.
    pub(crate) rss_peak_bytes: u64,
}

impl Process {
    /// Errors when there is no such process (or its `/proc` cannot be read).
    pub(crate) fn new(pid: u32) -> anyhow::Result<Process> {
        let process = Process { pid };
        process.usage()?;
        Ok(process)
    }

    fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    }

    /// The command line, as it was started.
    pub(crate) fn command(&self) -> anyhow::Result<String> {
        Ok(self.read("cmdline")?.replace('\0', " ").trim().to_owned())
    }

    /// Reads it now.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let stat = self.read("stat")?;
        let ticks = cpu_ticks(&stat).with_context(|| format!("unexpected stat {stat:?}"))?;
        let status = self.read("status")?;
        let Some((rss_bytes, rss_peak_bytes)) =
            status_bytes(&status, "VmRSS").zip(status_bytes(&status, "VmHWM"))
        else {
            bail!("process {} has no memory; has it ended?", self.pid);
        };
        let cpu_seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Usage {
            cpu_seconds,
            rss_bytes,
            rss_peak_bytes,
        })
    }
}

/// `utime` + `stime` of `/proc/PID/stat`: fields 14 and 15, counted behind the name, which may hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// A line `Name:   123 kB` of `/proc/PID/status`.
fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_blanks_and_parentheses_do_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 90 0 0 0 12 30 5 6 20 0 1 0 55";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 (a) S"), None);
    }

    #[test]
    fn this_process_uses_memory_and_burns_time() {
        let process = Process::new(std::process::id()).unwrap();
        let before = process.usage().unwrap();
        let mut sum = 0u64;
        while process.usage().unwrap().cpu_seconds <= before.cpu_seconds {
            sum = (0..1_000_000u64).fold(sum, |sum, i| sum ^ i.wrapping_mul(sum | 1));
        }
        let after = process.usage().unwrap();
        assert!(
            after.rss_bytes > 0 && after.rss_peak_bytes >= after.rss_bytes,
            "{after:?} {sum}"
        );
        assert!(process.command().unwrap().contains("bench"));
    }
}
