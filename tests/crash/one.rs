//! One sample, pushed as Prometheus does.

use tests::{Api, Response, Server};
use wire::remote_write::encode;

/// Status, where there is an answer.
pub(crate) fn try_push(url: &str, name: &str, seconds: i64, value: f64) -> Option<u16> {
    send(url, name, seconds, value)
        .ok()
        .map(|answer| answer.status)
}

/// Status, body, and whether a `Retry-After` came with it.
pub(crate) fn push(server: &Server, name: &str, seconds: i64, value: f64) -> (u16, String, bool) {
    let answer = send(&server.url(), name, seconds, value).expect("the server answers a push");
    (
        answer.status,
        answer.text(),
        answer.header("retry-after").is_some(),
    )
}

fn send(url: &str, name: &str, seconds: i64, value: f64) -> Result<Response, ureq::Error> {
    let mut body = Vec::new();
    encode::put_series(
        &mut body,
        [("__name__", name)].into_iter(),
        &[(seconds * 1000, value)],
    );
    let body = wire::snappy::pack(&body);
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    Api::new(url, None).post("/api/v1/push", &headers, &body)
}
