//! Clients that mean harm or are broken: each gets a clear 4xx or a closed connection, everyone else is served, memory is bounded.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tests::{Server, ServerOptions, encode_form, rss_bytes, unix_now};

use crate::series::{body, push, snappy};

/// What the server may grow by over a whole test of this file.
const GROWTH_MAX: u64 = 700 << 20;

fn raw_push(server: &Server, headers: &[(&str, &str)], bytes: &[u8]) -> Option<u16> {
    server
        .admin()
        .post("/api/v1/push", headers, bytes)
        .ok()
        .map(|r| r.status)
}

const USUAL: [(&str, &str); 2] = [
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
];

fn alive(server: &mut Server) {
    let now = unix_now() * 1000;
    let answer = push(server, None, &body(&[(&[("__name__", "alive")], now, 1.0)]));
    assert!(
        answer.status == 200 || answer.status == 400 && answer.text().contains("timestamp"),
        "{}",
        answer.text()
    );
    assert_eq!(
        server.api(None).query("count(alive)", now as f64 / 1000.0)[0]["value"][1],
        "1"
    );
    assert!(server.child().ended().is_none());
}

#[test]
fn broken_bodies_are_refused_and_store_nothing() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    let before = rss_bytes(server.child().pid());
    let now = unix_now() * 1000;
    let good = body(&[(&[("__name__", "x"), ("pad", &"y".repeat(500))], now, 1.0)]);
    let garbage: Vec<u8> = (0..10_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let status = |bytes: &[u8]| raw_push(&server, &USUAL, bytes);
    for (what, bytes) in [
        ("garbage", garbage.clone()),
        ("garbage in snappy", snappy(&garbage)),
        ("a body cut short", snappy(&good[..good.len() - 7])),
        ("snappy cut short", snappy(&good)[..200].to_vec()),
        ("plain protobuf", good.clone()),
        ("a length of 4 GiB", vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
    ] {
        let got = status(&bytes);
        assert!(
            got.is_some_and(|s| (400..500).contains(&s)),
            "{what}: {got:?}"
        );
    }
    // A snappy bomb: 400 MiB unfold from 20 MB.
    let mut bomb = vec![0x80, 0x80, 0x80, 0xc8, 0x01, 0, 0];
    bomb.extend([0xfe, 1, 0].repeat(400 << 14));
    let got = status(&bomb);
    assert!(got.is_none_or(|s| (400..500).contains(&s)), "bomb: {got:?}");
    let huge = body(&[(
        &[("__name__", "x"), ("big", &"y".repeat(10 << 20))],
        now,
        1.0,
    )]);
    assert_eq!(status(&snappy(&huge)), Some(400), "a label of 10 MB");
    for (name, value, expected) in [
        ("Content-Type", "text/plain", 415),
        ("Content-Encoding", "gzip", 415),
    ] {
        let headers: Vec<_> = USUAL
            .iter()
            .map(|(n, v)| if *n == name { (name, value) } else { (*n, *v) })
            .collect();
        assert_eq!(
            raw_push(&server, &headers, &snappy(&good)),
            Some(expected),
            "{name}: {value}"
        );
    }
    assert_eq!(
        server
            .api(None)
            .query("{__name__=~\".+\"}", now as f64 / 1000.0)
            .as_array()
            .unwrap()
            .len(),
        0
    );
    alive(&mut server);
    let after = rss_bytes(server.child().pid());
    assert!(
        after < before + GROWTH_MAX,
        "grew from {before} to {after} bytes"
    );
}

#[test]
fn a_thousand_slow_connections_keep_nobody_out() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    // Each end of each connection costs this process a descriptor.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    let before = rss_bytes(server.child().pid());
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..1000 {
        if let Ok(stream) = TcpStream::connect(server.address()) {
            slow.push(stream);
        }
    }
    let line = b"POST /api/v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n";
    for second in 0..5usize {
        for (i, stream) in slow.iter_mut().enumerate() {
            // Half of them never finish their headers, half dribble a body.
            let bytes: &[u8] = if i % 2 == 0 {
                &line[second..=second]
            } else if second == 0 {
                line
            } else {
                b"\r\n"
            };
            let _ = stream.write_all(bytes);
        }
        let begun = Instant::now();
        alive(&mut server);
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "others waited {:?}",
            begun.elapsed()
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    let after = rss_bytes(server.child().pid());
    assert!(
        after < before + GROWTH_MAX,
        "grew from {before} to {after} bytes"
    );
}

#[test]
fn a_client_that_leaves_mid_query_leaves_nothing_behind() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    let now = unix_now();
    for i in 0..20 {
        let names: Vec<String> = (0..200).map(|k| format!("{}", i * 200 + k)).collect();
        let labels: Vec<[(&str, &str); 2]> = names
            .iter()
            .map(|n| [("__name__", "many"), ("n", n.as_str())])
            .collect();
        let series: Vec<_> = labels.iter().map(|l| (&l[..], now * 1000, 1.0)).collect();
        assert_eq!(push(&server, None, &body(&series)).status, 200);
    }
    let query = encode_form(&[
        (
            "query",
            "sum(many * on(n) many) + max_over_time(sum(rate(many[1h]))[2h:1s])",
        ),
        ("start", &(now - 10_000).to_string()),
        ("end", &now.to_string()),
        ("step", "1"),
    ]);
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let request =
            format!("GET /prometheus/api/v1/query_range?{query} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let _ = stream.read(&mut [0; 10]);
    }
    alive(&mut server);
    tests::wait_until(
        "the server to be idle again",
        Duration::from_secs(30),
        || {
            let pid = server.child().pid();
            let before = tests::cpu_seconds(pid);
            std::thread::sleep(Duration::from_millis(500));
            tests::cpu_seconds(pid) - before < 0.2
        },
    );
}

#[test]
fn monstrous_queries_end_in_a_clear_error() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    alive(&mut server);
    let before = rss_bytes(server.child().pid());
    let now = unix_now().to_string();
    let queries = [
        (
            "a query of 1 MB of names",
            format!("sum({})", "a".repeat(1 << 20)),
        ),
        ("a query of 1 MB of terms", "1+".repeat(1 << 19) + "1"),
        (
            "300,000 nested parentheses",
            "(".repeat(300_000) + "1" + &")".repeat(300_000),
        ),
        ("300,000 open parentheses", "(".repeat(300_000)),
        ("30,000 operators", "1+".repeat(30_000) + "1"),
        ("30,000 unary minuses", "-".repeat(30_000) + "1"),
        (
            "nested calls",
            "abs(".repeat(5000) + "1" + &")".repeat(5000),
        ),
        (
            "a regex bomb",
            "{a=~\"((a{1000}){1000}){1000}\"}".to_owned(),
        ),
    ];
    for (what, query) in &queries {
        let begun = Instant::now();
        let answer = server
            .api(None)
            .form("/api/v1/query", &[("query", query), ("time", &now)]);
        assert!(
            (400..500).contains(&answer.status),
            "{what}: {} {}",
            answer.status,
            answer.text()
        );
        let json = answer.json();
        assert!(
            json["status"] == "error" && json["error"].as_str().is_some_and(|e| !e.is_empty()),
            "{what}: {json}"
        );
        assert!(
            answer.body.len() < 10_000,
            "{what}: the error repeats the query"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{what} took {:?}",
            begun.elapsed()
        );
    }
    alive(&mut server);
    let after = rss_bytes(server.child().pid());
    assert!(
        after < before + GROWTH_MAX,
        "grew from {before} to {after} bytes"
    );
}

#[test]
fn extreme_numbers_are_answered_or_refused_never_fatal() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    alive(&mut server);
    let api = server.api(None);
    let extremes = [
        "0",
        "-1",
        "1e18",
        "-1e18",
        "1e300",
        "-1e300",
        "9223372036854775807",
        "-9223372036854775808",
        "NaN",
        "Inf",
        "-Inf",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
    ];
    for time in extremes {
        for query in [
            "alive",
            "rate(alive[5m])",
            "time()",
            "timestamp(alive)",
            "alive offset 5m",
            "day_of_month()",
            "alive[5m:1s]",
        ] {
            let status = api
                .get("/api/v1/query", &[("query", query), ("time", time)])
                .status;
            assert!(status < 500, "{query} at {time}: {status}");
        }
        for (start, end) in [(time, time), ("0", time), (time, "0")] {
            for step in ["1", "1e300", "0.001", "9223372036854775807"] {
                let params = [
                    ("query", "sum(rate(alive[5m]))"),
                    ("start", start),
                    ("end", end),
                    ("step", step),
                ];
                let status = api.get("/api/v1/query_range", &params).status;
                assert!(status < 500, "{start} to {end} step {step}: {status}");
            }
        }
    }
    for query in [
        "alive offset 290y",
        "alive offset -290y",
        "alive @ 1e300",
        "alive @ -9223372036854775807",
        "alive[290y]",
        "alive[100y:1ms]",
        "rate(alive[1ms])",
        "alive[1d:1ms]",
        "sum_over_time(alive[5m:290y])",
        "alive @ NaN",
        "alive @ Inf",
        "vector(1e308) * 1e308",
        "predict_linear(alive[5m], 1e308)",
        "round(alive, 0)",
        "round(alive, 1e-320)",
        "topk(1e300, alive)",
        "topk(NaN, alive)",
        "quantile(1e300, alive)",
        "alive % 0",
        "alive ^ 1e308",
        "year(vector(1e300))",
        "days_in_month(vector(-1e300))",
        "limitk(-1, alive)",
        "holt_winters(alive[5m], 2, 2)",
        "histogram_quantile(NaN, alive)",
        "clamp(alive, 5, 1)",
        "label_replace(alive, \"a\", \"$9999\", \"b\", \"(.*)\")",
    ] {
        let answer = api.get("/api/v1/query", &[("query", query)]);
        assert!(
            answer.status < 500,
            "{query}: {} {}",
            answer.status,
            answer.text()
        );
    }
    alive(&mut server);
}

#[test]
fn a_refused_write_has_stored_nothing_and_says_what_to_do() {
    let config = "limits:\n  ingestion_rate: 10\n  ingestion_burst_size: 20\n";
    let Some(server) = Server::start(ServerOptions {
        config: config.into(),
        ..ServerOptions::default()
    }) else {
        return;
    };
    let now = unix_now() * 1000;
    let names: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    let labels: Vec<[(&str, &str); 2]> = names
        .iter()
        .map(|n| [("__name__", "limited"), ("n", n.as_str())])
        .collect();
    let series: Vec<_> = labels.iter().map(|l| (&l[..], now, 1.0)).collect();
    let answer = push(&server, None, &body(&series));
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(
        answer
            .text()
            .contains("ingestion rate limit (10) exceeded while adding 30 samples"),
        "{}",
        answer.text()
    );
    assert!(
        answer.header("retry-after").is_some(),
        "{:?}",
        answer.headers
    );
    assert_eq!(
        server
            .api(None)
            .query("limited", now as f64 / 1000.0)
            .as_array()
            .unwrap()
            .len(),
        0
    );
    assert_eq!(push(&server, None, &body(&series[..10])).status, 200);
}
