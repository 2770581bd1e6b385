//! A real Prometheus scrapes a node_exporter and itself every second and remote-writes into us; then both answer the same
//! questions about the same times, and must agree. `promtool query` works against us too.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Api, Child, Server, component, free_port, soak, unix_now, wait_until};

/// How long it scrapes before questions are asked.
fn scrape_seconds() -> u64 {
    if soak() { 180 } else { 60 }
}

/// Instant queries; `{{T}}` nothing: the time is that of the request.
const QUERIES: [&str; 22] = [
    "up",
    "rate(node_cpu_seconds_total[20s])",
    "irate(node_cpu_seconds_total{mode!=\"idle\"}[20s])",
    "sum by (mode) (rate(node_cpu_seconds_total[20s]))",
    "histogram_quantile(0.9, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[40s])))",
    "topk(3, node_cpu_seconds_total)",
    "bottomk(2, sum by (cpu, mode) (node_cpu_seconds_total))",
    "node_memory_MemFree_bytes / on (instance) group_left node_memory_MemTotal_bytes",
    "rate(node_cpu_seconds_total[20s]) / on (cpu) group_left sum by (cpu) (rate(node_cpu_seconds_total[20s]))",
    "absent(no_such_metric{job=\"x\"})",
    "absent(up)",
    "node_load1 offset 10s",
    "max_over_time(rate(prometheus_tsdb_head_samples_appended_total[10s])[30s:5s])",
    "avg_over_time(node_load1[30s])",
    "quantile_over_time(0.5, go_goroutines[30s])",
    "count({job=\"node\"})",
    "count by (__name__) ({__name__=~\"node_cpu.*\"})",
    "label_replace(up, \"short\", \"$1\", \"instance\", \"(.*):.*\")",
    "changes(process_start_time_seconds[30s])",
    "predict_linear(node_memory_MemFree_bytes[30s], 60)",
    "stddev by (job) (scrape_duration_seconds)",
    "up == bool 1 unless on (job) up{job=\"node\"}",
];

struct Setup {
    server: Server,
    prometheus: Child,
    node_exporter: Child,
    reference: Api,
}

fn setup() -> Option<Setup> {
    let (prometheus, exporter) = (
        component("prometheus")?,
        component("prometheus-node-exporter")?,
    );
    let server = Server::plain()?;
    let folder = server.folder().to_owned();
    let (port, exporter_port) = (free_port(), free_port());
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         scrape_configs:\n\
         - {{job_name: prometheus, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n\
         - {{job_name: node, static_configs: [{{targets: ['127.0.0.1:{exporter_port}']}}]}}\n\
         remote_write:\n\
         - {{url: '{}', queue_config: {{batch_send_deadline: 500ms}}}}\n",
        server.push_url()
    );
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    let node_exporter = Child::start(
        Command::new(exporter).arg(format!("--web.listen-address=127.0.0.1:{exporter_port}")),
        &folder.join("node_exporter.log"),
    );
    let prometheus = Child::start(
        Command::new(prometheus)
            .arg(format!(
                "--config.file={}",
                folder.join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
        &folder.join("prometheus.log"),
    );
    let reference = Api::new(&format!("http://127.0.0.1:{port}"), None);
    wait_until("Prometheus", Duration::from_secs(30), || {
        reference
            .try_get("/-/ready", &[])
            .is_ok_and(|r| r.status == 200)
    });
    Some(Setup {
        server,
        prometheus,
        node_exporter,
        reference,
    })
}

/// Series by labels; values as numbers. Order does not count here.
fn by_labels(result: &Value) -> BTreeMap<String, Vec<(f64, f64)>> {
    let points = |v: &Value| {
        let list = v.get("values").and_then(Value::as_array).cloned();
        let list = list.unwrap_or_else(|| v.get("value").into_iter().cloned().collect());
        let number = |p: &Value| {
            p.as_str()
                .map(|s| s.replace("Inf", "inf").parse().expect("a number"))
                .unwrap()
        };
        list.iter()
            .map(|p| (p[0].as_f64().unwrap(), number(&p[1])))
            .collect()
    };
    let sorted = |m: &Value| {
        let map: BTreeMap<_, _> = m.as_object().into_iter().flatten().collect();
        format!("{map:?}")
    };
    result
        .as_array()
        .into_iter()
        .flatten()
        .map(|s| (sorted(&s["metric"]), points(s)))
        .collect()
}

pub(crate) fn same(query: &str, ours: &Value, theirs: &Value) {
    let (ours, theirs) = (by_labels(ours), by_labels(theirs));
    assert_eq!(
        ours.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>(),
        "other series for {query}"
    );
    for (labels, points) in &theirs {
        let mine = &ours[labels];
        assert_eq!(
            mine.len(),
            points.len(),
            "{query} {labels}: other number of points"
        );
        for ((t, v), (rt, rv)) in mine.iter().zip(points) {
            let close = v == rv
                || (v.is_nan() && rv.is_nan())
                || (v - rv).abs() <= 1e-9 * v.abs().max(rv.abs());
            assert!(
                t == rt && close,
                "{query} {labels} at {rt}: {v}, Prometheus says {rv}"
            );
        }
    }
}

#[test]
fn a_real_prometheus_writes_a_minute_and_both_answer_alike() {
    let Some(mut s) = setup() else { return };
    let ours = s.server.api(None);
    std::thread::sleep(Duration::from_secs(scrape_seconds()));

    // A time in the past, which both have seen. Not a whole second: steps of subqueries are, and Prometheus before version 3 takes one that lies just where the
    // range begins. Story: half a millisecond was rounded away, and where such a step had the largest rate the two differed.
    let at = unix_now() as f64 - 5.0 + 0.457;
    let arrived = |api: &Api| api.query("count({job=~\".+\"})", at);
    wait_until("remote write to catch up", Duration::from_secs(20), || {
        arrived(&ours) == arrived(&s.reference)
    });
    let mut answered = 0;
    for query in QUERIES {
        let theirs = s.reference.query(query, at);
        same(query, &ours.query(query, at), &theirs);
        // A range ends well before the present, where the last scrapes may still be under way.
        let (start, end) = (at - 30.0, at);
        same(
            query,
            &ours.query_range(query, start, end, 3.0),
            &s.reference.query_range(query, start, end, 3.0),
        );
        answered += usize::from(!theirs.as_array().unwrap().is_empty());
    }
    assert!(answered >= 18, "only {answered} queries had an answer");

    let times = [("start", (at - 60.0).to_string()), ("end", at.to_string())];
    let times: Vec<(&str, &str)> = times.iter().map(|(n, v)| (*n, v.as_str())).collect();
    for path in [
        "/api/v1/labels",
        "/api/v1/label/job/values",
        "/api/v1/label/mode/values",
        "/api/v1/label/__name__/values",
    ] {
        assert_eq!(
            ours.data(path, &times),
            s.reference.data(path, &times),
            "{path}"
        );
    }
    let with_match: Vec<_> = times
        .iter()
        .copied()
        .chain([("match[]", "node_cpu_seconds_total")])
        .collect();
    let count = |api: &Api| {
        api.data("/api/v1/series", &with_match)
            .as_array()
            .map(Vec::len)
    };
    assert_eq!(count(&ours), count(&s.reference));
    wait_until("metadata", Duration::from_secs(90), || {
        let told = ours.data("/api/v1/metadata", &[("metric", "node_cpu_seconds_total")]);
        told["node_cpu_seconds_total"][0]["type"] == "counter"
    });

    promtool(&s.server, at);
    staleness(&mut s, &ours);
    sender_is_content(&s);
}

fn promtool(server: &Server, at: f64) {
    let Some(promtool) = component("promtool") else {
        return;
    };
    let url = format!("{}/prometheus", server.url());
    let run = |args: &[&str]| {
        let output = Command::new(&promtool).args(args).output().unwrap();
        assert!(
            output.status.success(),
            "promtool {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let time = format!("--time={at:.3}");
    assert!(run(&["query", "instant", &url, &time, "count(up)"]).contains("=> 2 @"));
    let (start, end) = (
        format!("--start={:.0}", at - 30.0),
        format!("--end={at:.0}"),
    );
    assert!(run(&["query", "range", &url, &start, &end, "--step=10s", "up"]).contains("node"));
    assert!(run(&["query", "labels", &url, "job"]).contains("prometheus"));
    assert!(run(&["query", "series", &url, "--match=up"]).contains("instance"));
}

/// A target that stops being scraped ends at once, by its staleness markers, not five minutes later.
fn staleness(s: &mut Setup, ours: &Api) {
    let query = "count(node_load1)";
    assert_eq!(
        by_labels(&ours.query(query, unix_now() as f64 - 2.0)).len(),
        1
    );
    s.node_exporter.kill();
    let stopped = unix_now() as f64;
    wait_until("the staleness markers", Duration::from_secs(20), || {
        by_labels(&ours.query(query, unix_now() as f64)).is_empty()
            && unix_now() as f64 > stopped + 6.0
    });
    let end = unix_now() as f64 - 3.0 + 0.0005;
    let range = |api: &Api| api.query_range("node_load1", end - 40.0, end, 1.0);
    wait_until("both to have all of it", Duration::from_secs(10), || {
        range(ours) == range(&s.reference)
    });
    let up = |api: &Api| api.query("up{job=\"node\"}", end);
    assert_eq!(up(ours)[0]["value"][1], "0");
    assert_eq!(up(ours), up(&s.reference));
}

fn sender_is_content(s: &Setup) {
    let metrics = s.reference.get("/metrics", &[]).text();
    for name in [
        "samples_failed_total",
        "samples_dropped_total",
        "samples_retried_total",
        "metadata_failed_total",
    ] {
        let name = format!("prometheus_remote_storage_{name}");
        let sum: f64 = metrics
            .lines()
            .filter(|l| l.starts_with(&name))
            .filter_map(|l| l.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()))
            .sum();
        assert_eq!(sum, 0.0, "{name}");
    }
    let log = s.prometheus.log();
    let complaints: Vec<_> = log
        .lines()
        .filter(|l| l.contains("level=error") || l.contains("remote write"))
        .filter(|l| l.contains("err="))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
