//! What a server process costs, read from `/proc`: CPU time of all its threads, dead ones too, and memory.

use std::collections::BTreeMap;
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

/// CPU time of each thread, and of all together, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct CpuTime {
    /// Nanoseconds by thread.
    threads: BTreeMap<u32, u64>,
    /// As in [`Usage`], with those threads that have ended.
    total_seconds: f64,
}

impl CpuTime {
    /// Seconds of CPU time since `before`: to the nanosecond, unless a thread of then has ended, whose last share only the
    /// total in ticks of 10 ms has.
    pub(crate) fn since(&self, before: &CpuTime) -> f64 {
        if before
            .threads
            .keys()
            .any(|id| !self.threads.contains_key(id))
        {
            return self.total_seconds - before.total_seconds;
        }
        let spent = self.threads.iter().map(|(id, nanoseconds)| {
            nanoseconds.saturating_sub(before.threads.get(id).copied().unwrap_or(0))
        });
        spent.sum::<u64>() as f64 / 1e9
    }
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

    /// CPU time by thread, finer than [`Process::usage`]'s ticks where the kernel counts it so.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<CpuTime> {
        let mut threads = BTreeMap::new();
        let path = format!("/proc/{}/task", self.pid);
        for entry in fs::read_dir(&path).with_context(|| format!("reading {path}"))? {
            let entry = entry.with_context(|| format!("reading {path}"))?;
            let id = entry.file_name().to_string_lossy().parse::<u32>();
            // A thread may end while its files are being read.
            let Some((id, schedstat)) = id
                .ok()
                .zip(fs::read_to_string(entry.path().join("schedstat")).ok())
            else {
                continue;
            };
            let nanoseconds = schedstat.split_ascii_whitespace().next();
            if let Some(nanoseconds) = nanoseconds.and_then(|text| text.parse().ok()) {
                threads.insert(id, nanoseconds);
            }
        }
        Ok(CpuTime {
            threads,
            total_seconds: self.usage()?.cpu_seconds,
        })
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
    fn cpu_time_falls_back_on_the_total_when_a_thread_has_ended() {
        let time = |threads: &[(u32, u64)], total_seconds| CpuTime {
            threads: threads.iter().copied().collect(),
            total_seconds,
        };
        let before = time(&[(1, 1_000), (2, 5_000)], 1.0);
        let after = time(&[(1, 2_000), (2, 6_000), (3, 500)], 1.5);
        assert_eq!(after.since(&before), 2.5e-6);
        assert_eq!(time(&[(1, 2_000)], 1.5).since(&before), 0.5);
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
