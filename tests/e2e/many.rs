//! Many small tenants: what a cut of all of them costs in files, in requests to the bucket and in waiting of commits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::{Server, ServerOptions, soak, unix_now, wait_until};

use super::queries::metric;
use super::series::{One, body, push};

/// Series of a tenant.
const SERIES: usize = 200;

/// All series of a tenant, a sample each.
fn scrape(server: &Server, tenant: usize, time: i64) {
    let names: Vec<String> = (0..SERIES).map(|i| i.to_string()).collect();
    let labels = names.iter().map(|i| [("__name__", "m"), ("i", i.as_str())]);
    let labels: Vec<_> = labels.collect();
    let series: Vec<One<'_>> = labels.iter().map(|l| (&l[..], time, 1.0)).collect();
    let name = format!("tenant-{tenant}");
    let answer = push(server, Some(&name), &body(&series));
    assert!(answer.status < 300, "{name}: {}", answer.text());
}

/// Commits of all cores by the bound of their duration in seconds, as the histogram has them.
fn commits(server: &Server) -> BTreeMap<String, f64> {
    let text = server.admin().get("/metrics", &[]).text();
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let bucket = line.strip_prefix("myelin_commit_duration_seconds_bucket{");
        let found = bucket.and_then(|rest| {
            let bound = rest.split("le=\"").nth(1)?.split('"').next()?;
            let count: f64 = rest.rsplit(' ').next()?.parse().ok()?;
            Some((bound.to_owned(), count))
        });
        if let Some((bound, count)) = found {
            *sums.entry(bound).or_default() += count;
        }
    }
    sums
}

fn puts(server: &Server) -> f64 {
    let of = |name| {
        metric(
            server,
            &format!("myelin_bucket_operations_total{{operation=\"{name}\"}}"),
        )
    };
    of("put") + of("put_large")
}

#[test]
fn a_cut_of_many_small_tenants_costs_few_files_and_few_puts() {
    let tenants = if soak() { 5000 } else { 200 };
    let folder = tempfile::tempdir().unwrap();
    let bucket = folder.path().join("bucket");
    let args = [
        "-cores=16",
        "-blocks-storage.backend=filesystem",
        &format!("-blocks-storage.filesystem.dir={}", bucket.display()),
        "-blocks-storage.tsdb.ship-interval=200ms",
        "-compactor.compaction-interval=2s",
        "-ingester.retention=1000h",
        "-ingester.max-series-per-user=0",
        "-ingester.max-series-per-metric=0",
        "-distributor.ingestion-rate-limit=0",
    ];
    let options = ServerOptions {
        args: args.map(str::to_owned).to_vec(),
        config: "auth_enabled: true".into(),
        ..Default::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    // Two hours that are complete long ago, so that nothing else belongs into their blocks.
    let start = (unix_now() - 86_400) * 1000 / 7_200_000 * 7_200_000;
    for n in 0..3 {
        for tenant in 0..tenants {
            scrape(&server, tenant, start + n * 1_800_000);
        }
    }
    let (before, commits_before) = (puts(&server), commits(&server));
    let over = AtomicBool::new(false);
    let longest = AtomicU64::new(0);
    let begun = Instant::now();
    let files = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                // The last hour of a day later, which is no matter of this cut.
                scrape(&server, n % tenants, start + 80_000_000 + n as i64);
                longest.fetch_max(asked.elapsed().as_millis() as u64, Ordering::Relaxed);
                n += 1;
            }
        });
        let flushed = server.admin().get("/ingester/flush", &[("wait", "true")]);
        assert!(flushed.status < 300, "{}", flushed.text());
        let files = metric(&server, "myelin_blocks");
        wait_until(
            "all to be merged and uploaded",
            Duration::from_secs(300),
            || {
                let text = server.admin().get("/metrics", &[]).text();
                assert!(text.contains("myelin_uploader_pending_blocks"));
                indexes(&bucket) == tenants
                    && metric(&server, "myelin_uploader_pending_blocks") == 0.0
            },
        );
        over.store(true, Ordering::Relaxed);
        files
    });
    let puts = puts(&server) - before;
    let after = commits(&server);
    let slow: Vec<String> = (after.iter())
        .map(|(bound, count)| (bound, count - commits_before.get(bound).unwrap_or(&0.0)))
        .map(|(bound, count)| format!("{bound}: {count}"))
        .collect();
    println!(
        "{tenants} tenants of {SERIES} series, 16 cores: {files} files of a flush, {} when merged, each with two syncs; {puts} PUTs, {:.2} a tenant; in {:?}",
        metric(&server, "myelin_blocks"),
        puts / tenants as f64,
        begun.elapsed(),
    );
    println!("commits meanwhile, by seconds at most: {}", slow.join(", "));
    println!("the longest push: {} ms", longest.load(Ordering::Relaxed));
    assert!(files <= 64.0, "{files} files of a flush of 16 cores");
    assert!(puts <= 4.0 * tenants as f64, "{puts} PUTs");
}

/// Tenants that have an index.
fn indexes(bucket: &std::path::Path) -> usize {
    let dirs = std::fs::read_dir(bucket.join("tenants"));
    let dirs = dirs.into_iter().flatten().flatten();
    dirs.filter(|dir| dir.path().join("index.json").is_file())
        .count()
}
