//! Blocks of a real `promtool` are imported and answer as the real Prometheus that serves them; what is exported is listed and analysed by `promtool`, served by a real
//! Prometheus, and comes back by another import.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tests::{
    Api, Child, Server, ServerOptions, binary, component, free_port, unix_now, wait_until,
};
use wire::remote_write::encode;

use super::places::{fractional, integer};
use super::prometheus::same;
use super::series::push;

const HOUR: i64 = 3600;

const QUERIES: [&str; 7] = [
    "requests_total",
    "rate(requests_total[20m])",
    "sum by (job) (increase(requests_total[3h]))",
    "temperature",
    "avg_over_time(temperature[1h])",
    "count(temperature) by (job)",
    "max_over_time(temperature{instance=~\"[1-3]\"}[5h:10m])",
];

/// Two days of some series, a minute apart, as OpenMetrics; from a time in seconds.
fn open_metrics(from: i64) -> String {
    let mut text = String::from("# TYPE requests counter\n");
    let labels = |i: i64| format!("instance=\"{i}\",job=\"j{}\"", i % 3);
    for i in 0..6 {
        for minute in 0..2 * 24 * 60 {
            // A reset, and a hole.
            let value = (minute % 2000) * (i + 1);
            if !(500..700).contains(&(minute + i)) {
                let at = from + minute * 60;
                let _ = writeln!(text, "requests_total{{{}}} {value} {at}", labels(i));
            }
        }
    }
    text.push_str("# TYPE temperature gauge\n");
    for i in 0..6 {
        for minute in 0..2 * 24 * 60 {
            let value = f64::from((minute as i32 * 37 + i as i32) % 500) / 8.0;
            let at = from + minute * 60;
            let _ = writeln!(text, "temperature{{{}}} {value} {at}", labels(i));
        }
    }
    text.push_str("# EOF\n");
    text
}

/// Runs a program to its end; its output. Panics unless it succeeds.
fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("it can be started");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    assert!(status.success(), "{command:?}: {text}");
    text
}

fn tool(words: &[&str], data: &Path, more: &[&Path]) -> String {
    let mut command = Command::new(binary("myelin").expect("it is there"));
    command.arg("tool").args(words);
    command.arg(format!("-data.dir={}", data.display()));
    run(command.args(more))
}

/// Serves a copy of these blocks.
fn prometheus(program: &Path, blocks: &Path, folder: &Path) -> (Child, Api) {
    let data = folder.join("tsdb");
    run(Command::new("cp").arg("-r").arg(blocks).arg(&data));
    let config = folder.join("prometheus.yml");
    std::fs::write(&config, "global: {scrape_interval: 1h}\n").unwrap();
    let port = free_port();
    let child = Child::start(
        Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--storage.tsdb.retention.time=10y")
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
        &folder.join("prometheus.log"),
    );
    let api = Api::new(&format!("http://127.0.0.1:{port}"), None);
    wait_until("Prometheus", Duration::from_secs(30), || {
        api.try_get("/-/ready", &[]).is_ok_and(|r| r.status == 200)
    });
    (child, api)
}

fn keeping(data: &Path) -> ServerOptions {
    ServerOptions {
        args: vec![
            "-ingester.retention=10y".to_owned(),
            "-compactor.compaction-interval=1s".to_owned(),
        ],
        data: Some(data.to_owned()),
        ..ServerOptions::default()
    }
}

/// The tools that look at files say of all blocks of a node that they are sound; gives what they tell of them.
fn looked_at(data: &Path) -> String {
    let blocks = std::fs::read_dir(data.join("blocks")).unwrap();
    let blocks: Vec<PathBuf> = blocks.map(|entry| entry.unwrap().path()).collect();
    assert!(!blocks.is_empty());
    let mut told = String::new();
    for word in ["verify", "inspect"] {
        let mut command = Command::new(binary("myelin").expect("it is there"));
        let text = run(command.args(["tool", "block", word]).args(&blocks));
        if word == "verify" {
            assert_eq!(text.matches(": sound: ").count(), blocks.len(), "{text}");
        }
        told.push_str(&text);
    }
    let mut command = Command::new(binary("myelin").expect("it is there"));
    let dumped = run(command.args(["tool", "block", "dump"]).arg(&blocks[0]));
    assert!(dumped.starts_with("# tenant fake"), "{dumped:.100}");
    told
}

/// No edge of a range falls on a sample: which belongs to it then, Prometheus 2 and 3 see differently.
fn compare(ours: &Api, theirs: &Api, queries: &[&str], (start, end): (i64, i64)) {
    for query in queries {
        let ask = |api: &Api| api.query_range(query, start as f64 + 0.5, end as f64, 720.0);
        let (ours, theirs) = (ask(ours), ask(theirs));
        assert!(theirs.as_array().is_some_and(|list| !list.is_empty()));
        same(query, &ours, &theirs);
    }
}

fn folder(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn what_promtool_made_answers_as_prometheus_does_and_goes_back() {
    let (Some(promtool), Some(program), Some(_)) = (
        component("promtool"),
        component("prometheus"),
        binary("myelin"),
    ) else {
        return;
    };
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    // At a fixed hour, for how many blocks are left depends on it: two for the middle day, and those of the last hours, whose window may go on.
    let from = (unix_now() / (24 * HOUR) - 3) * 24 * HOUR + 6 * HOUR;
    let times = (from, from + 48 * HOUR);
    std::fs::write(place.join("metrics.txt"), open_metrics(from)).unwrap();
    let blocks = place.join("blocks");
    run(Command::new(&promtool)
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .arg(place.join("metrics.txt"))
        .arg(&blocks));

    let data = place.join("data");
    let told = tool(&["import", "prometheus-block"], &data, &[&blocks]);
    assert!(told.contains("were imported for tenant fake"), "{told}");
    // Again: nothing is there twice.
    let told = tool(&["import", "prometheus-block"], &data, &[&blocks]);
    assert!(told.contains("0 blocks with 0 samples"), "{told}");
    let (mut child, theirs) = prometheus(&program, &blocks, &folder(place, "one"));
    let Some(mut server) = Server::start(keeping(&data)) else {
        return;
    };
    compare(&server.api(None), &theirs, &QUERIES, times);
    // A node that runs has its directory for itself.
    let refused = Command::new(binary("myelin").unwrap())
        .args(["tool", "import", "prometheus-block"])
        .arg(format!("-data.dir={}", data.display()))
        .arg(&blocks)
        .output()
        .unwrap();
    assert!(!refused.status.success());
    // What promtool makes of two days is two dozen blocks.
    let merged = || super::queries::metric(&server, "myelin_blocks") < 8.0;
    wait_until("the blocks to be merged", Duration::from_secs(60), merged);
    compare(&server.api(None), &theirs, &QUERIES, times);
    server.stop();
    child.kill();
    let told = looked_at(&data);
    assert!(told.contains("block of level"), "{told}");

    let exported = place.join("exported");
    let told = tool(&["export", "prometheus-block"], &data, &[&exported]);
    assert!(told.contains("blocks with"), "{told}");
    let listed = run(Command::new(&promtool)
        .args(["tsdb", "list"])
        .arg(&exported));
    assert_eq!(listed.lines().count(), 1 + 3, "{listed}");
    let analysed = run(Command::new(&promtool)
        .args(["tsdb", "analyze"])
        .arg(&exported));
    assert!(analysed.contains("Series: 12"), "{analysed}");
    let (_child, theirs) = prometheus(&program, &exported, &folder(place, "two"));
    server.restart();
    compare(&server.api(None), &theirs, &QUERIES, times);
    server.stop();
}

#[test]
fn native_histograms_are_exported_served_by_prometheus_and_imported_again() {
    let (Some(program), Some(_)) = (component("prometheus"), binary("myelin")) else {
        return;
    };
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path();
    let data = place.join("data");
    let mut options = keeping(&data);
    // What is flushed stays as it was cut.
    options.args.truncate(1);
    let Some(mut server) = Server::start(options) else {
        return;
    };
    let start = unix_now() - 3 * HOUR;
    let mut body = Vec::new();
    for (name, make) in [
        ("exponential", integer as fn(i64) -> model::HistogramSample),
        ("fractional", fractional),
    ] {
        let samples: Vec<_> = (0..600)
            .map(|n| (start * 1000 + n * 15_000, make(n)))
            .collect();
        let labels = [("__name__", name), ("job", "a")];
        encode::put_series_with(&mut body, labels.into_iter(), &[], &samples);
    }
    assert_eq!(push(&server, None, &body).status, 200);
    let flushed = server.admin().get("/ingester/flush", &[("wait", "true")]);
    assert!((200..300).contains(&flushed.status), "{}", flushed.text());
    server.stop();
    let told = looked_at(&data);
    assert!(told.contains("cut of core"), "{told}");
    let exported = place.join("exported");
    tool(&["export", "prometheus-block"], &data, &[&exported]);
    let other = place.join("other");
    let told = tool(&["import", "prometheus-block"], &other, &[&exported]);
    assert!(told.contains("1200 samples"), "{told}");
    server.restart();
    let Some(again) = Server::start(keeping(&other)) else {
        return;
    };
    let queries = [
        "histogram_count(exponential)",
        "histogram_sum(fractional)",
        "histogram_count(rate(exponential[5m]))",
        // Estimated otherwise in Prometheus 3.
        "histogram_quantile(0.7, rate(exponential[5m]))",
        "rate(exponential[10m])",
        "histogram_avg(fractional)",
    ];
    let ask =
        |api: &Api, query: &str| api.query_range(query, start as f64, (start + 9000) as f64, 97.0);
    for query in queries.iter().chain(&["exponential", "fractional"]) {
        let (one, two) = (ask(&server.api(None), query), ask(&again.api(None), query));
        assert!(
            one.as_array().is_some_and(|list| !list.is_empty()),
            "{query}"
        );
        assert_eq!(one, two, "{query}");
    }
    let (_child, theirs) = prometheus(&program, &exported, &folder(place, "one"));
    let times = (start, start + 9000);
    compare(&server.api(None), &theirs, &queries[..3], times);
}
