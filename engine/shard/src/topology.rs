//! Which CPUs the cores run on.
//!
//! The inherited affinity mask is the law: a supervisor or `taskset` that gave us some CPUs gave us no others. Within it as many
//! cores as the cgroup's CPU quota allows (version 1 or 2, the smallest on the way up), rounded down: a core that is throttled
//! holds up every push it takes part in. `-cores` overrides the number, and may be more than there are CPUs (they then share);
//! `-core-set` overrides the choice.
//!
//! Reads `/proc` and `/sys`: the machine's description, never data, hence not through the reactor.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Error;

/// More cores than this are a mistake: [`model::CoreId`] has 16 bits, and no machine has as many.
pub const CORES_MAX: usize = 1024;

/// The CPU of each core, in order; a CPU occurs more than once only where `-cores` asks for more than there are.
///
/// Errors: a malformed set, a set outside of the mask, a count of zero or above [`CORES_MAX`].
pub fn cores(count: Option<usize>, set: Option<&str>) -> Result<Vec<usize>, Error> {
    choose(
        &mask()?,
        quota(&|path| std::fs::read_to_string(path).ok()),
        count,
        set,
    )
}

/// Binds the calling thread to one CPU.
pub(crate) fn pin(cpu: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|e| Error::Affinity(e.into()))
}

/// The CPUs that this thread may use, ascending.
fn mask() -> Result<Vec<usize>, Error> {
    let set = sched_getaffinity(None).map_err(|e| Error::Affinity(e.into()))?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect())
}

fn choose(
    mask: &[usize],
    quota: Option<usize>,
    count: Option<usize>,
    set: Option<&str>,
) -> Result<Vec<usize>, Error> {
    assert!(!mask.is_empty(), "a running thread has a CPU");
    let cpus = match set {
        None => mask.to_vec(),
        Some(text) => {
            let cpus = parse_set(text)?;
            if let Some(&cpu) = cpus.iter().find(|cpu| !mask.contains(cpu)) {
                let (text, mask) = (text.to_owned(), show_set(mask));
                return Err(Error::OutsideMask { cpu, text, mask });
            }
            cpus
        }
    };
    let count = match (count, set) {
        (Some(count), _) => count,
        (None, Some(_)) => cpus.len(),
        (None, None) => cpus.len().min(quota.unwrap_or(usize::MAX)),
    };
    if count == 0 || count > CORES_MAX {
        let reason = format!("{count} is not between 1 and {CORES_MAX}");
        return Err(Error::Option {
            key: "cores",
            reason,
        });
    }
    Ok((0..count).map(|core| cpus[core % cpus.len()]).collect())
}

/// Parses `0-3,8`: no CPU twice, in the order given.
fn parse_set(text: &str) -> Result<Vec<usize>, Error> {
    let bad = |reason: &str| Error::CoreSet {
        text: text.to_owned(),
        reason: reason.to_owned(),
    };
    let number = |part: &str| match part.trim().parse::<usize>() {
        Ok(cpu) if cpu < CpuSet::MAX_CPU => Ok(cpu),
        _ => Err(bad(&format!("{part:?} is not the number of a CPU"))),
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(bad(&format!("the range {part:?} runs backwards")));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(bad(&format!("CPU {cpu} is named twice")));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

fn show_set(cpus: &[usize]) -> String {
    let mut out = String::new();
    let mut i = 0;
    while i < cpus.len() {
        let mut end = i;
        while end + 1 < cpus.len() && cpus[end + 1] == cpus[end] + 1 {
            end += 1;
        }
        let comma = if i > 0 { "," } else { "" };
        match end - i {
            0 => out.push_str(&format!("{comma}{}", cpus[i])),
            _ => out.push_str(&format!("{comma}{}-{}", cpus[i], cpus[end])),
        }
        i = end + 1;
    }
    out
}

/// Whole CPUs of the cgroup's quota, at least 1; `None` where there is none. `read` gives the content of a file.
fn quota(read: &dyn Fn(&str) -> Option<String>) -> Option<usize> {
    let least = least_of(read, "cpu", &|directory, version_2| {
        if version_2 {
            return read(&format!("{directory}/cpu.max")).and_then(|text| cpus_v2(&text));
        }
        let quota = read(&format!("{directory}/cpu.cfs_quota_us"))?;
        cpus_of(&quota, &read(&format!("{directory}/cpu.cfs_period_us"))?)
    });
    least.map(|cpus| (cpus as usize).max(1))
}

/// Bytes of memory that the process may take: the machine's, or what its cgroup (version 1 or 2, the smallest on the way up) allows. `None` where the
/// system does not tell.
pub fn memory_bytes() -> Option<u64> {
    memory(&|path| std::fs::read_to_string(path).ok())
}

fn memory(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let info = read("/proc/meminfo")?;
    let total = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let total = total.checked_mul(1024)?;
    let least = least_of(read, "memory", &|directory, version_2| {
        let file = match version_2 {
            true => "memory.max",
            false => "memory.limit_in_bytes",
        };
        read(&format!("{directory}/{file}"))?.trim().parse().ok()
    });
    // No limit is `max`, or a number larger than any machine.
    Some(least.map_or(total, |limit| total.min(limit as u64)))
}

/// The least of what `of` finds in the directories of the process' cgroup, from its own up to the root. `of` is told whether they are of version 2.
fn least_of(
    read: &dyn Fn(&str) -> Option<String>,
    controller: &str,
    of: &dyn Fn(&str, bool) -> Option<f64>,
) -> Option<f64> {
    let memberships = read("/proc/self/cgroup")?;
    let mounts = read("/proc/self/mountinfo")?;
    let mut least: Option<f64> = None;
    for line in memberships.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let version_2 = controllers.is_empty();
        if !version_2 && !controllers.split(',').any(|c| c == controller) {
            continue;
        }
        let Some((root, mount)) = mount_of(&mounts, version_2, controller) else {
            continue;
        };
        // Inside a container the path is that of the host and may lie outside of what is mounted here.
        let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
        let mut below = below.trim_end_matches('/');
        loop {
            let found = of(&format!("{mount}{below}"), version_2);
            least = match (least, found) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            match below.rfind('/') {
                Some(end) => below = &below[..end],
                None => break,
            }
        }
    }
    least
}

/// Root and mount point of the hierarchy that holds the controller.
fn mount_of<'a>(mounts: &'a str, version_2: bool, controller: &str) -> Option<(&'a str, &'a str)> {
    mounts.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mut tail = tail.split(' ');
        let (kind, _source, options) = (tail.next()?, tail.next()?, tail.next().unwrap_or(""));
        let found = match version_2 {
            true => kind == "cgroup2",
            false => kind == "cgroup" && options.split(',').any(|o| o == controller),
        };
        let mut head = head.split(' ').skip(3);
        found.then_some((head.next()?, head.next()?))
    })
}

/// `cpu.max`: quota and period in microseconds, or `max`.
fn cpus_v2(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    cpus_of(quota, period)
}

/// A quota of `max` (version 2) or -1 (version 1) is none.
fn cpus_of(quota: &str, period: &str) -> Option<f64> {
    let quota: f64 = quota.trim().parse().ok().filter(|&q| q > 0.0)?;
    let period: f64 = period.trim().parse().ok().filter(|&p| p > 0.0)?;
    Some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_mask_capped_by_the_quota() {
        assert_eq!(choose(&[2, 3, 5], None, None, None).unwrap(), [2, 3, 5]);
        assert_eq!(choose(&[2, 3, 5], Some(2), None, None).unwrap(), [2, 3]);
        assert_eq!(choose(&[7], Some(4), None, None).unwrap(), [7]);
    }

    #[test]
    fn more_cores_than_cpus_share_them() {
        assert_eq!(
            choose(&[0, 1], Some(1), Some(5), None).unwrap(),
            [0, 1, 0, 1, 0]
        );
        assert_eq!(
            choose(&[0, 1, 2], None, Some(2), Some("2,1")).unwrap(),
            [2, 1]
        );
        assert!(choose(&[0], None, Some(0), None).is_err());
    }

    #[test]
    fn a_set_outside_of_the_mask_is_an_error_that_names_both() {
        let error = choose(&[0, 1, 2, 5], None, None, Some("1-3")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "CPU 3 of core set \"1-3\" is outside of the inherited affinity mask 0-2,5"
        );
    }

    #[test]
    fn malformed_sets_are_refused() {
        for text in [
            "", "a", "3-1", "1,1", "1-", "-2", "1,,2", "99999999", "0-99999",
        ] {
            assert!(parse_set(text).is_err(), "{text:?} passed");
        }
        assert_eq!(parse_set("0-3,8").unwrap(), [0, 1, 2, 3, 8]);
        assert_eq!(show_set(&[0, 1, 2, 3, 8]), "0-3,8");
    }

    fn quota_of(files: &[(&str, &str)]) -> Option<usize> {
        quota(&|path| files.iter().find(|f| f.0 == path).map(|f| f.1.to_owned()))
    }

    #[test]
    fn memory_is_that_of_the_machine_or_the_least_limit_on_the_way_up() {
        let mounts = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        let mut files = vec![
            ("/proc/meminfo", "MemTotal:        4096 kB\nMemFree: 1 kB\n"),
            ("/proc/self/cgroup", "0::/a/b\n"),
            ("/proc/self/mountinfo", mounts),
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
        ];
        let of = |files: &[(&str, &str)]| {
            memory(&|path| files.iter().find(|f| f.0 == path).map(|f| f.1.to_owned()))
        };
        assert_eq!(of(&files), Some(4096 << 10));
        files.push(("/sys/fs/cgroup/a/memory.max", "1048576\n"));
        assert_eq!(of(&files), Some(1 << 20));
        files[2].1 = "33 20 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        files[1].1 = "7:memory:/x\n";
        files.push((
            "/sys/fs/cgroup/memory/x/memory.limit_in_bytes",
            "9223372036854771712\n",
        ));
        assert_eq!(of(&files), Some(4096 << 10), "no limit is a large number");
        assert_eq!(of(&files[1..]), None);
    }

    #[test]
    fn the_smallest_quota_on_the_way_up_counts_in_version_2() {
        let mounts = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        let mut files = vec![
            ("/proc/self/cgroup", "0::/a/b\n"),
            ("/proc/self/mountinfo", mounts),
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "250000 100000\n"),
        ];
        assert_eq!(quota_of(&files), Some(2));
        files[3].1 = "50000 100000\n";
        assert_eq!(quota_of(&files), Some(1), "half a CPU still is one core");
        files[3].1 = "max 100000\n";
        assert_eq!(quota_of(&files), None);
    }

    #[test]
    fn version_1_and_paths_of_the_host_are_understood() {
        let mounts =
            "33 20 0:28 /docker/x /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let files = [
            (
                "/proc/self/cgroup",
                "5:cpu,cpuacct:/docker/x\n1:memory:/docker/x\n",
            ),
            ("/proc/self/mountinfo", mounts),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota_of(&files), Some(3));
    }

    #[test]
    fn this_process_has_a_core_and_can_be_pinned_to_it() {
        let cpus = cores(None, None).unwrap();
        assert!(!cpus.is_empty());
        std::thread::spawn(move || {
            pin(cpus[0]).unwrap();
            assert_eq!(mask().unwrap(), [cpus[0]]);
        })
        .join()
        .unwrap();
    }
}
