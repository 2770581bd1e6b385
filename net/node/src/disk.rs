//! Whether the disk is nearly full, or slow: numbers that an alarm needs no arithmetic for.
//!
//! Looked at every ten seconds by the thread that attends the node. Full: less than a twentieth, or less than 2 GiB, is free; what a node does when nothing is
//! left is another matter (it refuses writes and goes on when there is space again). Slow: of the commits of the last look more than one in ten took longer
//! than a tenth of a second, which a sound disk does in a thousandth; or something has waited and none has ended.

use std::path::{Path, PathBuf};

use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Registry};

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

/// The disk of the data directory.
pub(crate) struct Disk {
    dir: PathBuf,
    bytes: IntGauge,
    free: IntGauge,
    nearly_full: IntGauge,
    slow: IntGauge,
    /// Commits up to the last look, and the slow ones of them.
    commits: (u64, u64),
    /// Whether something waited for a commit at the last look.
    waited: bool,
}

impl Disk {
    /// Registers the numbers.
    pub(crate) fn watch(dir: &Path, registry: &Registry) -> Result<Disk, prometheus::Error> {
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
            commits: (0, 0),
            waited: false,
        })
    }

    /// Looks at the disk, and at the commits since the last look.
    pub(crate) fn look(&mut self, families: &[MetricFamily]) {
        if let Ok(stat) = rustix::fs::statvfs(&self.dir) {
            let (bytes, free) = (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize);
            self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            self.free.set(i64::try_from(free).unwrap_or(i64::MAX));
            self.nearly_full.set(i64::from(is_nearly_full(bytes, free)));
        }
        let now = commits(families);
        let (all, slow) = (
            now.0.saturating_sub(self.commits.0),
            now.1.saturating_sub(self.commits.1),
        );
        self.commits = now;
        // Two looks: something may have come just now.
        let waits = is_queued(families);
        let hangs = all == 0 && waits && self.waited;
        self.waited = waits;
        self.slow.set(i64::from(slow * 10 > all || hangs));
    }
}

fn is_queued(families: &[MetricFamily]) -> bool {
    let family = families.iter().find(|family| family.name() == QUEUE);
    let cores = family.map(MetricFamily::get_metric).unwrap_or_default();
    cores.iter().any(|core| core.get_gauge().get_value() > 0.0)
}

fn is_nearly_full(bytes: u64, free: u64) -> bool {
    free < bytes / FREE_PART || free < FREE_BYTES.min(bytes / 2)
}

/// All commits of all cores, and the slow ones.
fn commits(families: &[MetricFamily]) -> (u64, u64) {
    let family = families.iter().find(|family| family.name() == COMMITS);
    let cores = family.map(MetricFamily::get_metric).unwrap_or_default();
    cores.iter().fold((0, 0), |(all, slow), core| {
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
        let mut disk = Disk::watch(Path::new("/"), &registry).unwrap();
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
}
