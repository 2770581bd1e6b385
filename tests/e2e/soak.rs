//! A node with everything on, whose sample time runs twelve times as fast as the clock: blocks are cut, merged, uploaded and deleted, series come and go, late samples
//! arrive, series are deleted, queries are asked. Answers stay exact, and under `make soak`, two hours of it, memory, file handles and threads stay flat.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tests::{Api, Server, ServerOptions, rss_bytes, soak, unix_now};

use super::bucket::Store;
use super::queries::metric;
use super::series::{One, body, push};

/// Milliseconds of sample time from scrape to scrape.
const SCRAPE: i64 = 15_000;
const HOUR: i64 = 3_600_000;
const TENANTS: [&str; 4] = ["ha", "pods", "late", "deleted"];
/// Sample time after which a tenth of the pods is replaced.
const GENERATION: i64 = 20 * 60_000;

const CONFIG: &str = "auth_enabled: true
limits:
  out_of_order_time_window: 10m
  ha_max_clusters: 10
  accept_ha_samples: true
distributor:
  ha_tracker: {enable_ha_tracker: true}
";

/// How long it runs, and how much it does.
struct Plan {
    scrapes: i64,
    /// Of the clock, from scrape to scrape.
    pace: Duration,
    series: usize,
    /// From one look at the process to the next.
    look: Duration,
}

impl Plan {
    fn new() -> Plan {
        if soak() {
            return Plan {
                scrapes: 24 * HOUR / SCRAPE,
                pace: Duration::from_millis(SCRAPE as u64 / 12),
                series: 500,
                look: Duration::from_secs(30),
            };
        }
        // Nine hours as fast as they are taken: three cuts.
        Plan {
            scrapes: 9 * HOUR / SCRAPE,
            pace: Duration::ZERO,
            series: 20,
            look: Duration::from_secs(1),
        }
    }
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Look {
    seconds: f64,
    rss: u64,
    files: usize,
    threads: usize,
}

impl Look {
    fn at(pid: u32, since: Instant) -> Look {
        let count = |what: &str| {
            let dir = std::fs::read_dir(format!("/proc/{pid}/{what}"));
            dir.expect("the process runs").count()
        };
        Look {
            seconds: since.elapsed().as_secs_f64(),
            rss: rss_bytes(pid),
            files: count("fd"),
            threads: count("task"),
        }
    }
}

fn args(port: u16) -> Vec<String> {
    let mut args = super::bucket::args(port);
    args.extend(
        [
            "-ingester.retention=8h",
            "-compactor.compaction-interval=5s",
            "-compactor.deletion-delay=30s",
            "-compactor.cleanup-interval=10s",
            "-blocks-storage.s3.http.request-timeout=30s",
            "-blocks-storage.s3.max-retries=10",
            // Full before the hour in which memory is looked at: a day of results, which is two hours here, is more.
            "-frontend.fifocache.max-size-bytes=768KiB",
        ]
        .map(str::to_owned),
    );
    args
}

/// One scrape of a tenant.
fn scrape(server: &Server, plan: &Plan, tenant: &str, start: i64, at: i64) {
    let time = start + at * SCRAPE;
    let texts: Vec<(String, String)> = (0..plan.series)
        .map(|i| {
            let age = match i % 10 {
                0 => at * SCRAPE / GENERATION,
                _ => 0,
            };
            (format!("pod-{i}-{age}"), format!("job-{}", i % 5))
        })
        .collect();
    let mut labels: Vec<Vec<(&str, &str)>> = Vec::new();
    for (pod, job) in &texts {
        let mut one = vec![("__name__", "work_total"), ("job", job), ("pod", pod)];
        if tenant == "ha" {
            one.insert(1, ("__replica__", "a"));
            one.insert(2, ("cluster", "c"));
        }
        labels.push(one);
    }
    let mut all: Vec<One<'_>> = (labels.iter().enumerate())
        .map(|(i, labels)| (&labels[..], time, (at * (i as i64 + 1)) as f64))
        .collect();
    let late = [("__name__", "late"), ("job", "job-0")];
    if tenant == "late" {
        // Every second sample comes five minutes after the one that follows it.
        let time = match at % 2 {
            0 => time,
            _ => time - 5 * 60_000,
        };
        all.push((&late, time, at as f64));
    }
    let answer = push(server, Some(tenant), &body(&all));
    assert!(answer.status < 300, "{tenant}: {}", answer.text());
}

/// Asks until `over`; how many questions were answered.
fn ask(url: &str, now: &AtomicI64, over: &AtomicBool, pause: Duration) -> u64 {
    let mut asked = 0;
    while !over.load(Ordering::Relaxed) {
        let time = now.load(Ordering::Relaxed) / 1000;
        for tenant in TENANTS {
            let api = Api::new(&format!("{url}/prometheus"), Some(tenant));
            let at = time.to_string();
            let exact = "count_over_time(work_total{pod=\"pod-1-0\"}[10m])";
            let answer = api.data("/api/v1/query", &[("query", exact), ("time", &at)]);
            assert_eq!(answer["result"][0]["value"][1], "40", "{tenant}: {answer}");
            let (start, end) = ((time - 7 * 3600).to_string(), at);
            let range = [
                ("query", "sum by (job) (rate(work_total[5m]))"),
                ("start", &start),
                ("end", &end),
                ("step", "120"),
            ];
            let answer = api.data("/api/v1/query_range", &range);
            let jobs = answer["result"].as_array().map(Vec::len);
            assert_eq!(jobs, Some(5), "{tenant}");
            let bounds = [("start", &*start), ("end", &*end)];
            api.data("/api/v1/labels", &bounds);
            api.data("/api/v1/label/pod/values", &bounds);
            asked += 4;
        }
        std::thread::sleep(pause);
    }
    asked
}

/// Part of its mean by which a figure grows in an hour: by least squares.
fn slope(looks: &[Look], of: impl Fn(&Look) -> f64) -> f64 {
    let count = looks.len() as f64;
    let mean = |f: &dyn Fn(&Look) -> f64| looks.iter().map(f).sum::<f64>() / count;
    let (x, y) = (mean(&|l| l.seconds), mean(&|l| of(l)));
    let up: f64 = looks.iter().map(|l| (l.seconds - x) * (of(l) - y)).sum();
    let down: f64 = looks.iter().map(|l| (l.seconds - x).powi(2)).sum();
    up / down * 3600.0 / y
}

/// What is deleted while all goes on, and what is to be seen of it.
fn delete(server: &Server, generation: i64) {
    let matcher = format!("work_total{{pod=~\"pod-.*0-{generation}\"}}");
    let path = "/api/v1/admin/tsdb/delete_series";
    let api = server.api(Some("deleted"));
    let answer = api.form(path, &[("match[]", &matcher)]);
    assert!(answer.status < 300, "{}", answer.text());
}

#[test]
fn a_day_of_samples_with_everything_on_leaves_memory_files_and_threads_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let port = tests::free_port();
    let Some(_store) = Store::start(folder.path(), port) else {
        return;
    };
    let options = ServerOptions {
        config: CONFIG.to_owned(),
        args: args(port),
        ..ServerOptions::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    let plan = Plan::new();
    let start = unix_now() * 1000 / SCRAPE * SCRAPE - plan.scrapes * SCRAPE - 60_000;
    let (began, pid) = (Instant::now(), server.child().pid());
    let (now, over) = (AtomicI64::new(0), AtomicBool::new(false));
    let mut looks = Vec::new();
    let asked = std::thread::scope(|scope| {
        let mut asking = None;
        for at in 0..plan.scrapes {
            for tenant in TENANTS {
                scrape(&server, &plan, tenant, start, at);
            }
            now.store(start + at * SCRAPE, Ordering::Relaxed);
            // From when the ten minutes that are asked for are there.
            if at == 50 {
                let (url, pause) = (server.url(), plan.pace.max(Duration::from_millis(50)));
                let (now, over) = (&now, &over);
                asking = Some(scope.spawn(move || ask(&url, now, over, pause)));
            }
            // A node looks now and then what is to be cut; here two hours are over within seconds.
            if !soak() && at * SCRAPE % (2 * HOUR) == 0 {
                super::bucket::flush(&server);
            }
            // A generation that has gone.
            if at * SCRAPE % GENERATION == 0 && at * SCRAPE / GENERATION >= 2 {
                delete(&server, at * SCRAPE / GENERATION - 2);
            }
            let looked = looks.last().map_or(0.0, |look: &Look| look.seconds);
            if began.elapsed().as_secs_f64() - looked >= plan.look.as_secs_f64() {
                let look = Look::at(pid, began);
                let mut line = String::new();
                let mib = look.rss >> 20;
                let _ = write!(line, "{:.0} s: {mib} MiB, ", look.seconds);
                let _ = write!(line, "{} files, {} threads, ", look.files, look.threads);
                let named = ["myelin_blocks", "cortex_ingester_memory_series"];
                let [blocks, series] = named.map(|name| metric(&server, name));
                println!("{line}{blocks} blocks, {series} series");
                looks.push(look);
            }
            let due = plan.pace * (at + 1) as u32;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let is_lost = asking.as_ref().is_some_and(|asking| asking.is_finished());
            assert!(!is_lost, "a question had no answer, or a wrong one");
        }
        over.store(true, Ordering::Relaxed);
        asking.map_or(0, |asking| asking.join().expect("all were answered"))
    });
    assert!(asked > 100, "{asked} questions");
    // All samples, whether they came in order or late, and whoever has them now. Of the late ones those of five minutes have not come.
    let end = ((start + (plan.scrapes - 1) * SCRAPE) / 1000).to_string();
    let all = 5 * HOUR / SCRAPE;
    for (series, expected) in [
        ("late", all - 5 * 60_000 / SCRAPE / 2),
        ("work_total{pod=\"pod-1-0\"}", all),
    ] {
        let query = format!("count_over_time({series}[5h])");
        let params = [("query", query.as_str()), ("time", &end)];
        let answer = server.api(Some("late")).data("/api/v1/query", &params);
        let count = &answer["result"][0]["value"][1];
        assert_eq!(count, &expected.to_string(), "{series}");
    }
    assert!(metric(&server, "cortex_compactor_runs_completed_total") > 0.0);
    assert!(metric(&server, "cortex_ingester_shipper_uploads_total") > 0.0);
    assert_eq!(metric(&server, "myelin_blocks_damaged"), 0.0);
    if !soak() {
        return;
    }
    // What is kept is all there after eight hours of sample time, which are forty minutes, and series that nobody writes leave after an hour by the clock.
    let from = looks.partition_point(|look| look.seconds < 75.0 * 60.0);
    let steady = &looks[from..];
    // By the least of every five minutes: what a query, a merge or an upload takes and gives back moves single looks by a tenth, and a line through
    // them by several per cent an hour. What stays lifts the least too.
    let least: Vec<Look> = steady
        .chunk_by(|a, b| (a.seconds / 300.0) as u64 == (b.seconds / 300.0) as u64)
        // The last may have just begun: the least of one look is that look.
        .filter(|looks| looks.len() > 4)
        .filter_map(|looks| looks.iter().min_by_key(|look| look.rss).copied())
        .collect();
    let of_memory = slope(&least, |look| look.rss as f64);
    println!("memory grows by {:.2} % an hour", of_memory * 100.0);
    assert!(of_memory < 0.01, "memory grows by {of_memory} an hour");
    let (first, second) = steady.split_at(steady.len() / 2);
    // Threads that wait for files come and go.
    for (what, of) in [
        ("files", (|look| look.files) as fn(&Look) -> usize),
        ("threads", |look| look.threads),
    ] {
        let most = |looks: &[Look]| looks.iter().map(of).max().expect("there are some");
        let (before, after) = (most(first), most(second));
        println!("{what}: at most {before}, then {after}");
        assert!(after <= before + before / 10, "{what}: {before}, {after}");
    }
}
