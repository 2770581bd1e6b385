//! Requests as people and other programs write them, where Cortex and Prometheus have an answer that one would not guess.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use tests::{Server, ServerOptions, unix_now};

use super::series::{One, body, push};

/// The status and the rest of what a request is answered that is sent as it stands here.
fn raw(server: &Server, line: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.address()).expect("the server listens");
    let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), answer)
}

fn sample(server: &Server, name: &str, time: i64) {
    let labels = [("__name__", name), ("job", "x")];
    let one: One<'_> = (&labels, time, 1.0);
    let answer = push(server, None, &body(&[one]));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_query_may_hold_quotes_and_signs_of_comparison_as_they_are() {
    let Some(server) = Server::plain() else {
        return;
    };
    sample(&server, "up", unix_now() * 1000);
    let path = "/prometheus/api/v1/query?query";
    for (query, count) in [
        ("up{job=\"x\"}", 1),
        ("up{job=\"x\"}>0", 1),
        ("up{job=\"x\"}<1", 0),
        ("up{job='x'}%3C2", 1),
    ] {
        let (status, answer) = raw(&server, &format!("GET {path}={query}"));
        assert_eq!(status, 200, "{query}: {answer}");
        let found = answer.matches("\"metric\"").count();
        assert_eq!(found, count, "{query}: {answer}");
    }
    // What is wrong within such a query is told as ever.
    let (status, answer) = raw(&server, &format!("GET {path}=up{{job=\"x\""));
    assert!(status == 400 && answer.contains("parse error"), "{answer}");
}

#[test]
fn label_requests_without_a_start_look_at_the_last_day() {
    let Some(server) = Server::plain() else {
        return;
    };
    let now = unix_now() * 1000;
    sample(&server, "old", now - 3 * 86_400_000);
    sample(&server, "new", now - 60_000);
    let api = server.api(None);
    let names = |params: &[(&str, &str)]| api.data("/api/v1/label/__name__/values", params);
    assert_eq!(names(&[]), Value::from(vec!["new"]));
    let all = [("start", "0")];
    assert_eq!(names(&all), Value::from(vec!["new", "old"]));
    let then = ((now - 2 * 86_400_000 - 3_600_000) / 1000).to_string();
    assert_eq!(names(&[("end", &then)]), Value::from(vec!["old"]));
    let of = |start: &[(&str, &str)]| {
        let params = [&[("match[]", "{job=\"x\"}")], start].concat();
        let series = api.data("/api/v1/series", &params);
        series.as_array().map(Vec::len)
    };
    assert_eq!((of(&[]), of(&all)), (Some(1), Some(2)));
    // Nothing lies between an end and a later start; for queries and exemplars it is an error.
    let turned = [("start", "200"), ("end", "100")];
    assert_eq!(names(&turned), Value::from(Vec::<String>::new()));
    assert_eq!(of(&turned), Some(0));
    for path in [
        "label/U__/values",
        "label/%FF/values",
        "query_exemplars?query=new&start=200&end=100",
        "series?start=200&end=100",
        "labels?start=200&end=100&match[]=%7B",
    ] {
        let (status, answer) = raw(&server, &format!("GET /prometheus/api/v1/{path}"));
        assert!(
            status == 400 && answer.contains("bad_data"),
            "{path}: {answer}"
        );
    }
}

#[test]
fn methods_and_parameters_are_answered_as_elsewhere() {
    let Some(server) = Server::plain() else {
        return;
    };
    let (status, answer) = raw(&server, "DELETE /prometheus/api/v1/series?match[]=up");
    assert_eq!(status, 500, "{answer}");
    let told = "\"errorType\":\"internal\",\"error\":\"not implemented\"";
    assert!(answer.contains(told), "{answer}");
    // Without a body there is nothing to read; the method is no fault.
    let (status, answer) = raw(&server, "GET /prometheus/api/v1/read");
    assert_eq!(status, 400, "{answer}");
    let rules = |kind: &str| {
        let params = [("type", kind)];
        server.api(None).get("/api/v1/rules", &params).status
    };
    assert_eq!(
        [rules("alert"), rules("record"), rules("x")],
        [200, 200, 400]
    );
    for (path, what) in [("/ingester/ring", "ring"), ("/ruler/ring", "ruler")] {
        let (status, answer) = raw(&server, &format!("GET {path}"));
        assert!(status == 404 && answer.contains(what), "{path}: {answer}");
    }
    let form = |wait: &str| server.admin().form("/ingester/flush", &[("wait", wait)]);
    assert_eq!([form("maybe").status, form("true").status], [400, 204]);
}

#[test]
fn version_two_tells_what_was_written_also_where_it_cannot_be_read() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    let headers = [
        (
            "Content-Type",
            "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        ),
        ("Content-Encoding", "gzip"),
        ("X-Prometheus-Remote-Write-Version", "2.0.0"),
    ];
    let answer = server.admin().post("/api/v1/push", &headers, b"x").unwrap();
    assert_eq!(answer.status, 415, "{}", answer.text());
    for what in ["samples", "histograms", "exemplars"] {
        let header = format!("x-prometheus-remote-write-{what}-written");
        assert_eq!(answer.header(&header), Some("0"), "{what}");
    }
    server.stop();
    server.restart_with(&["-distributor.remote-writev2-enabled=false"]);
    let answer = server
        .admin()
        .post("/api/v1/push", &headers[..1], b"")
        .unwrap();
    let told = answer.text();
    assert_eq!(answer.status, 415, "{told}");
    assert!(told.contains("remote_writev2_enabled"), "{told}");
}

#[test]
fn what_is_old_is_kept_where_nothing_else_is_said() {
    let options = ServerOptions {
        args: vec!["-cores=1".to_owned()],
        ..ServerOptions::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let (now, week) = (unix_now() * 1000, 7 * 86_400_000);
    sample(&server, "kept", now - week);
    sample(&server, "kept", now);
    super::bucket::flush(&server);
    let count = server
        .api(None)
        .query("count_over_time(kept[8d])", now as f64 / 1000.0);
    assert_eq!(count[0]["value"][1], "2", "{count}");
}
