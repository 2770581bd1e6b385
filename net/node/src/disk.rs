//! Whether a disk is nearly full, or slow: numbers that an alarm needs no arithmetic for. Of the data directory, and of each directory of cores.
//!
//! Looked at every ten seconds by the thread that attends the node. Full: less than a twentieth, or less than 2 GiB, is free; what a node does when nothing is
//! left is another matter (it refuses writes and goes on when there is space again). Slow: of the commits of the last look more than one in ten took longer
//! than a tenth of a second, which a sound disk does in a thousandth; or something has waited and none has ended.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use prometheus::proto::{Metric, MetricFamily};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

/// Less than this part of the disk is nearly nothing.
const FREE_PART: u64 = 20;

/// So is less than this: some minutes of a busy log, a checkpoint and a merge.
const FREE_BYTES: u64 = 2 << 30;

/// A commit that takes longer is slow, seconds.
const SLOW_S: f64 = 0.1;

/// The histogram that tells how long commits took.
const COMMITS: &str = "myelin_commit_duration_seconds";

/// Bytes that wait for a commit.
const QUEUE: &str = "myelin_core_queue_bytes";

/// The disk of the data directory, and those of cores.
pub(crate) struct Disk {
    dir: PathBuf,
    bytes: IntGauge,
    free: IntGauge,
    nearly_full: IntGauge,
    slow: IntGauge,
    speed: Speed,
    core_dirs: Vec<CoreDir>,
}

/// A directory of cores beside the data directory.
struct CoreDir {
    dir: PathBuf,
    /// As the labels of metrics have them.
    cores: HashSet<String>,
    bytes: IntGauge,
    free: IntGauge,
    nearly_full: IntGauge,
    slow: IntGauge,
    speed: Speed,
}

/// What the last look at some cores has found.
#[derive(Default)]
struct Speed {
    /// Commits up to then, and the slow ones of them.
    commits: (u64, u64),
    /// Whether something waited for a commit.
    waited: bool,
}

impl Speed {
    /// Whether the disk of these cores is slow.
    fn look(&mut self, families: &[MetricFamily], is_there: &dyn Fn(&Metric) -> bool) -> bool {
        let now = commits(families, is_there);
        let (all, slow) = (
            now.0.saturating_sub(self.commits.0),
            now.1.saturating_sub(self.commits.1),
        );
        self.commits = now;
        // Two looks: something may have come just now.
        let waits = is_queued(families, is_there);
        let hangs = all == 0 && waits && self.waited;
        self.waited = waits;
        slow * 10 > all || hangs
    }
}

impl Disk {
    /// Registers the numbers. `homes`: the directory of each core.
    pub(crate) fn watch(
        dir: &Path,
        homes: &[PathBuf],
        registry: &Registry,
    ) -> Result<Disk, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Disk {
            dir: dir.to_owned(),
            bytes: gauge(
                "myelin_disk_bytes",
                "Size of the file system of the data directory.",
            )?,
            free: gauge(
                "myelin_disk_free_bytes",
                "Bytes that are free there, for us.",
            )?,
            nearly_full: gauge(
                "myelin_disk_nearly_full",
                "1 while less than a twentieth, or less than 2 GiB, of it is free.",
            )?,
            slow: gauge(
                "myelin_disk_slow",
                "1 while more than one commit in ten takes longer than a tenth of a second.",
            )?,
            speed: Speed::default(),
            core_dirs: watch_core_dirs(dir, homes, registry)?,
        })
    }

    /// Looks at the disks, and at the commits since the last look.
    pub(crate) fn look(&mut self, families: &[MetricFamily]) {
        measure(&self.dir, (&self.bytes, &self.free, &self.nearly_full));
        let slow = self.speed.look(families, &|_| true);
        self.slow.set(i64::from(slow));
        for one in &mut self.core_dirs {
            measure(&one.dir, (&one.bytes, &one.free, &one.nearly_full));
            let cores = &one.cores;
            let is_there = |metric: &Metric| {
                let mut labels = metric.get_label().iter();
                labels.any(|label| label.name() == "core" && cores.contains(label.value()))
            };
            let slow = one.speed.look(families, &is_there);
            one.slow.set(i64::from(slow));
        }
    }
}

/// Registers the numbers of the directories of cores; none where all are in the data directory.
fn watch_core_dirs(
    data: &Path,
    homes: &[PathBuf],
    registry: &Registry,
) -> Result<Vec<CoreDir>, prometheus::Error> {
    let gauges = |name: &str, help: &str, labels: &[&str]| {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(gauges.clone()))?;
        Ok::<_, prometheus::Error>(gauges)
    };
    let bytes = gauges(
        "myelin_core_dir_bytes",
        "Size of the file system of a directory of cores beside the data directory.",
        &["dir"],
    )?;
    let free = gauges(
        "myelin_core_dir_free_bytes",
        "Bytes that are free there, for us.",
        &["dir"],
    )?;
    let nearly_full = gauges(
        "myelin_core_dir_nearly_full",
        "1 while less than a twentieth, or less than 2 GiB, of it is free.",
        &["dir"],
    )?;
    let slow = gauges(
        "myelin_core_dir_slow",
        "1 while more than one commit in ten of its cores takes longer than a tenth of a second.",
        &["dir"],
    )?;
    let info = gauges(
        "myelin_core_dir_info",
        "1 for each core in such a directory.",
        &["core", "dir"],
    )?;
    let mut all: Vec<CoreDir> = Vec::new();
    for (core, dir) in homes.iter().enumerate().filter(|(_, dir)| *dir != data) {
        let (core, label) = (core.to_string(), dir.display().to_string());
        info.with_label_values(&[core.as_str(), &label]).set(1);
        match all.iter_mut().find(|one| one.dir == *dir) {
            Some(one) => drop(one.cores.insert(core)),
            None => all.push(CoreDir {
                dir: dir.clone(),
                cores: HashSet::from([core]),
                bytes: bytes.with_label_values(&[&label]),
                free: free.with_label_values(&[&label]),
                nearly_full: nearly_full.with_label_values(&[&label]),
                slow: slow.with_label_values(&[&label]),
                speed: Speed::default(),
            }),
        }
    }
    Ok(all)
}

/// Sets size, free bytes and whether these are few.
fn measure(dir: &Path, (of, free, nearly_full): (&IntGauge, &IntGauge, &IntGauge)) {
    if let Ok(stat) = rustix::fs::statvfs(dir) {
        // A file system may say what it likes: "not known" is all ones.
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let (all, left) = (bytes(stat.f_blocks), bytes(stat.f_bavail));
        of.set(i64::try_from(all).unwrap_or(i64::MAX));
        free.set(i64::try_from(left).unwrap_or(i64::MAX));
        nearly_full.set(i64::from(is_nearly_full(all, left)));
    }
}

/// What a family has of the cores that are asked for.
fn of_cores<'f>(
    families: &'f [MetricFamily],
    name: &str,
    is_there: &'f dyn Fn(&Metric) -> bool,
) -> impl Iterator<Item = &'f Metric> {
    let family = families.iter().find(|family| family.name() == name);
    let cores = family.map(MetricFamily::get_metric).unwrap_or_default();
    cores.iter().filter(move |core| is_there(core))
}

fn is_queued(families: &[MetricFamily], is_there: &dyn Fn(&Metric) -> bool) -> bool {
    of_cores(families, QUEUE, is_there).any(|core| core.get_gauge().get_value() > 0.0)
}

fn is_nearly_full(bytes: u64, free: u64) -> bool {
    free < bytes / FREE_PART || free < FREE_BYTES.min(bytes / 2)
}

/// All commits of the cores that are asked for, and the slow ones.
fn commits(families: &[MetricFamily], is_there: &dyn Fn(&Metric) -> bool) -> (u64, u64) {
    of_cores(families, COMMITS, is_there).fold((0, 0), |(all, slow), core| {
        let histogram = core.get_histogram();
        let count = histogram.get_sample_count();
        let quick = histogram
            .get_bucket()
            .iter()
            .filter(|bucket| bucket.upper_bound() <= SLOW_S)
            .map(|bucket| bucket.cumulative_count())
            .max();
        (all + count, slow + count - quick.unwrap_or(0).min(count))
    })
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec};

    use super::*;

    #[test]
    fn a_disk_is_nearly_full_by_part_and_by_bytes() {
        let gib = 1 << 30;
        assert!(!is_nearly_full(1000 * gib, 60 * gib));
        assert!(is_nearly_full(1000 * gib, 40 * gib));
        assert!(!is_nearly_full(10 * gib, 3 * gib));
        assert!(is_nearly_full(10 * gib, gib));
        // A disk that never had so much.
        assert!(!is_nearly_full(gib, gib * 3 / 4));
        assert!(is_nearly_full(gib, gib / 4));
    }

    #[test]
    fn the_disk_is_slow_while_its_commits_are() {
        let registry = Registry::new();
        let mut disk = Disk::watch(Path::new("/"), &[], &registry).unwrap();
        let options = HistogramOpts::new(COMMITS, "x").buckets(vec![0.01, 0.09, 0.2]);
        let seconds = HistogramVec::new(options, &["core"]).unwrap();
        let cores = Registry::new();
        cores.register(Box::new(seconds.clone())).unwrap();
        let commit = |core: &str, count: usize, took: f64| {
            let seconds = seconds.with_label_values(&[core]);
            (0..count).for_each(|_| seconds.observe(took));
        };
        disk.look(&cores.gather());
        assert_eq!(disk.slow.get(), 0, "nothing was committed");
        assert!(disk.bytes.get() >= disk.free.get() && disk.bytes.get() > 0);
        commit("0", 90, 0.001);
        commit("1", 10, 0.15);
        disk.look(&cores.gather());
        assert_eq!(disk.slow.get(), 0, "one in ten");
        commit("0", 8, 0.001);
        commit("1", 1, 5.0);
        disk.look(&cores.gather());
        assert_eq!(disk.slow.get(), 1);
        commit("0", 8, 0.001);
        disk.look(&cores.gather());
        assert_eq!(disk.slow.get(), 0, "it has passed");
        // Story: a disk on which no commit ended at all was not slow.
        let queue = prometheus::Gauge::new(QUEUE, "x").unwrap();
        cores.register(Box::new(queue.clone())).unwrap();
        queue.set(5.0);
        disk.look(&cores.gather());
        assert_eq!(disk.slow.get(), 0, "it may have come just now");
        disk.look(&cores.gather());
        assert_eq!(disk.slow.get(), 1, "nothing ends");
    }

    #[test]
    fn each_directory_of_cores_has_numbers_of_its_own() {
        let registry = Registry::new();
        let homes = ["/", "/tmp", "/proc", "/tmp"].map(PathBuf::from);
        let mut disk = Disk::watch(Path::new("/"), &homes, &registry).unwrap();
        let options = HistogramOpts::new(COMMITS, "x").buckets(vec![0.01, 0.2]);
        let seconds = HistogramVec::new(options, &["core"]).unwrap();
        let cores = Registry::new();
        cores.register(Box::new(seconds.clone())).unwrap();
        // Of many commits of the node few are slow; of those of one directory all.
        let commit = |core: &str, count: usize, took: f64| {
            let seconds = seconds.with_label_values(&[core]);
            (0..count).for_each(|_| seconds.observe(took));
        };
        commit("0", 100, 0.001);
        commit("1", 4, 0.001);
        commit("2", 4, 5.0);
        commit("3", 4, 0.001);
        disk.look(&cores.gather());
        let text = prometheus::TextEncoder::new();
        let text = text.encode_to_string(&registry.gather()).unwrap();
        for line in [
            "myelin_disk_slow 0",
            "myelin_core_dir_slow{dir=\"/tmp\"} 0",
            "myelin_core_dir_slow{dir=\"/proc\"} 1",
            "myelin_core_dir_info{core=\"2\",dir=\"/proc\"} 1",
            "myelin_core_dir_info{core=\"3\",dir=\"/tmp\"} 1",
            "myelin_core_dir_bytes{dir=\"/proc\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.contains("dir=\"/\""), "{text}");
        assert!(disk.core_dirs[0].bytes.get() >= disk.core_dirs[0].free.get());
        assert!(disk.core_dirs[0].free.get() > 0);
    }
}
