//! The machine as a whole: what it is, its CPU time, and on which CPUs this process runs.

use std::thread;

use anyhow::{Context, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPU model, CPUs this process may use, kernel.
pub(crate) fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, model)| model.trim());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{model}, {cpus} CPUs for the bench, Linux {}",
        kernel.trim()
    )
}

/// CPU time that all CPUs have spent on anything since the machine started, in seconds.
pub(crate) fn busy_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let ticks = busy_ticks(&stat).with_context(|| format!("unexpected /proc/stat {stat:?}"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// User, nice, system, interrupts and soft interrupts of the line of all CPUs. Not idle, not waiting for a disk, not what other
/// virtual machines took.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    Some(
        [0, 1, 2, 5, 6]
            .iter()
            .map(|at| fields.get(*at).copied().unwrap_or(0))
            .sum(),
    )
}

/// The CPUs that this process may use.
pub(crate) fn allowed_cpus() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("asking for the CPUs of this process")?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect())
}

/// Moves this thread, and those which it starts from now on, to some CPUs.
pub(crate) fn pin(cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).with_context(|| format!("moving to the CPUs {cpus:?}"))
}

/// Reads a list of CPUs as `taskset -c` has it: `0-3,8`.
pub(crate) fn parse_cpus(text: &str) -> anyhow::Result<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |digits: &str| {
            let parsed = digits.trim().parse::<usize>().ok();
            parsed
                .filter(|cpu| *cpu < CpuSet::MAX_CPU)
                .with_context(|| format!("{text:?} is not a list of CPUs such as 0-3,8"))
        };
        let (first, last) = (number(first)?, number(last)?);
        ensure!(first <= last, "{text:?}: {first} is behind {last}");
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_neither_idle_nor_waiting_nor_stolen() {
        let stat = "cpu  10 20 30 4000 500 6 7 80 1 1\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ticks(stat), Some(10 + 20 + 30 + 6 + 7));
        assert_eq!(busy_ticks("cpu0 1 2 3"), None);
        assert!(busy_seconds().unwrap() > 0.0);
    }

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(parse_cpus("0-2,8").unwrap(), [0, 1, 2, 8]);
        for wrong in ["", "a", "3-1", "1-", "99999999"] {
            assert!(parse_cpus(wrong).is_err(), "{wrong}");
        }
        assert!(!allowed_cpus().unwrap().is_empty());
    }
}
