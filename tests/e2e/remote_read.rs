//! Remote read: by hand in both kinds of answers, and by a real Prometheus that has no samples of its own.

use std::process::Command;
use std::time::Duration;

use tests::{Child, Response, Server, component, free_port, unix_now, wait_until};

use crate::histograms::histogram;
use crate::prometheus::same;
use crate::series::{body, field, push, snappy, varint};

/// A request for one selector of equalities.
fn request(matchers: &[(&str, &str)], start: i64, end: i64, accepted: &[u8]) -> Vec<u8> {
    let mut query = vec![0x08];
    varint(&mut query, start as u64, false);
    query.push(0x10);
    varint(&mut query, end as u64, false);
    for (name, value) in matchers {
        let mut matcher = Vec::new();
        field(&mut matcher, 2, name.as_bytes(), false);
        field(&mut matcher, 3, value.as_bytes(), false);
        field(&mut query, 3, &matcher, false);
    }
    let mut request = Vec::new();
    field(&mut request, 1, &query, false);
    if !accepted.is_empty() {
        field(&mut request, 2, accepted, false);
    }
    request
}

fn read(server: &Server, body: &[u8]) -> Response {
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Read-Version", "0.1.0"),
    ];
    let api = server.api(None);
    api.post("/api/v1/read", &headers, body).expect("an answer")
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn samples_and_streams_of_chunks_hold_what_was_written() {
    let Some(server) = Server::plain() else {
        return;
    };
    let now = unix_now() * 1000;
    let times: Vec<i64> = (0..500).map(|n| now - 500_000 + n * 1000).collect();
    for (n, &time) in times.iter().enumerate() {
        for job in ["a", "b"] {
            let labels = [("__name__", "read_me"), ("job", job)];
            let one = [(&labels[..], time, n as f64 * 1.5)];
            assert_eq!(push(&server, None, &body(&one)).status, 200);
        }
    }
    let matchers = [("__name__", "read_me"), ("job", "a")];
    let (start, end) = (times[100], times[399]);
    let answer = read(&server, &snappy(&request(&matchers, start, end, &[])));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-encoding"), Some("snappy"));
    let mut unpacked = wire::snappy::Buffer::default();
    wire::snappy::unpack(&answer.body, 1 << 20, &mut unpacked).unwrap();
    let mut sample = vec![0x09];
    sample.extend_from_slice(&150.0f64.to_le_bytes());
    sample.push(0x10);
    varint(&mut sample, start as u64, false);
    assert!(contains(unpacked.as_slice(), &sample));
    assert!(!contains(unpacked.as_slice(), b"job\x12\x01b"));

    let answer = read(&server, &snappy(&request(&matchers, start, end, &[1, 0])));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let media = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    assert_eq!(answer.header("content-type"), Some(media));
    assert!(contains(&answer.body, b"read_me"));

    for (what, bytes, status) in [
        ("no snappy", b"garbage!".to_vec(), 400),
        ("no protobuf", snappy(b"\xff\xff\xff"), 400),
        (
            "a type that nobody knows",
            snappy(&request(&matchers, 0, 1, &[9])),
            400,
        ),
    ] {
        let answer = read(&server, &bytes);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert_eq!(answer.json()["status"], "error", "{what}");
    }
    // The method is no fault; there is nothing to read.
    let get = server.api(None).get("/api/v1/read", &[]);
    assert_eq!(get.status, 400, "{}", get.text());
}

/// Integer histograms used to come with float counts, and never in chunks.
#[test]
fn histograms_are_read_as_they_were_written_as_samples_and_in_chunks() {
    let Some(server) = Server::plain() else {
        return;
    };
    let now = unix_now() * 1000;
    let mut series = Vec::new();
    let labels = [("__name__", "hist")];
    let samples = [(now, histogram(5))];
    wire::remote_write::encode::put_series_with(&mut series, labels.into_iter(), &[], &samples);
    assert_eq!(push(&server, None, &series).status, 200);
    let asked = |accepted: &[u8]| {
        let asked = request(&labels, now - 1000, now + 1000, accepted);
        let answer = read(&server, &snappy(&asked));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    };
    let answer = asked(&[0]);
    assert_eq!(
        answer.header("content-type"),
        Some("application/x-protobuf")
    );
    let mut unpacked = wire::snappy::Buffer::default();
    wire::snappy::unpack(&answer.body, 1 << 20, &mut unpacked).unwrap();
    let message = wire::remote_write::encode::histogram_message(now, &histogram(5));
    assert!(contains(unpacked.as_slice(), &message));

    let answer = asked(&[1, 0]);
    let media = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    assert_eq!(answer.header("content-type"), Some(media));
    let chunks = chunk::encode_prometheus_histograms(&[now], &[histogram(5)]);
    // Type 2, histograms with integer counts; then their bytes.
    let mut message = vec![0x18, 2];
    field(&mut message, 4, &chunks[0].bytes, false);
    assert!(contains(&answer.body, &message));
}

#[test]
fn a_prometheus_without_samples_answers_through_us() {
    let Some(program) = component("prometheus") else {
        return;
    };
    let Some(server) = Server::plain() else {
        return;
    };
    // Off the grid of the queries, so that the left edge of a range, which Prometheus 3 moved, never meets a sample.
    let now = unix_now() / 60 * 60;
    let names: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    for tick in 0..240 {
        let time = (now - 3600 + tick * 15) * 1000 + 7;
        let labels: Vec<[(&str, &str); 3]> = names
            .iter()
            .map(|n| {
                let job = if n.len() == 1 { "small" } else { "large" };
                [
                    ("__name__", "through_total"),
                    ("job", job),
                    ("n", n.as_str()),
                ]
            })
            .collect();
        let value = |n: usize| (tick * (n as i64 + 1)) as f64 / 3.0;
        let numbered = labels.iter().enumerate();
        let all: Vec<_> = numbered.map(|(n, l)| (&l[..], time, value(n))).collect();
        let answer = push(&server, None, &body(&all));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let port = free_port();
    let config = format!(
        "remote_read:\n- {{url: '{}/prometheus/api/v1/read', read_recent: true}}\n",
        server.url()
    );
    let folder = server.folder();
    std::fs::write(folder.join("reader.yml"), config).unwrap();
    let data = folder.join("reader");
    let _prometheus = Child::start(
        Command::new(program)
            .arg(format!(
                "--config.file={}",
                folder.join("reader.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
        &folder.join("reader.log"),
    );
    let reader = tests::Api::new(&format!("http://127.0.0.1:{port}"), None);
    wait_until("Prometheus", Duration::from_secs(30), || {
        reader
            .try_get("/-/ready", &[])
            .is_ok_and(|r| r.status == 200)
    });
    let ours = server.api(None);
    for query in [
        "through_total",
        "sum by (job) (rate(through_total[5m]))",
        "through_total{n=~\"1.*\",job!=\"small\"} offset 10m",
        "topk(3, increase(through_total[1h]))",
        "count_over_time(through_total{n=\"7\"}[50m])",
        "count({__name__=~\"through.*\"})",
        "absent(nothing_here)",
        "max_over_time(sum(through_total)[30m:1m])",
    ] {
        let at = (now - 60) as f64;
        same(query, &reader.query(query, at), &ours.query(query, at));
        let (from, step) = ((now - 3000) as f64, 60.0);
        same(
            query,
            &reader.query_range(query, from, at, step),
            &ours.query_range(query, from, at, step),
        );
    }
}
