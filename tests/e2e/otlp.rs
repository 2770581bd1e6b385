//! OTLP metrics as the real SDK of OpenTelemetry sends them, against what the same program says of its instruments.

use std::process::Command;

use serde_json::{Value, json};
use tests::{Server, ServerOptions, unix_now};
use wire::remote_write::encode;

use super::series::push;

/// A program with instruments of every kind, which exports twice. `argv`: URL, temporality, compression.
const PROGRAM: &str = r#"
import sys
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality, MetricExportResult, PeriodicExportingMetricReader)
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation, ExponentialBucketHistogramAggregation, View)
from opentelemetry.sdk.resources import Resource

url, temporality, compression = sys.argv[1:]
kind = getattr(AggregationTemporality, temporality)
results = []

class Exporter(OTLPMetricExporter):
    def export(self, *args, **kwargs):
        result = super().export(*args, **kwargs)
        results.append(result is MetricExportResult.SUCCESS)
        return result

exporter = Exporter(url, headers={"X-Scope-OrgID": "fake"}, compression=Compression(compression),
    preferred_temporality={Counter: kind, Histogram: kind}, timeout=20)
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3600000)
resource = Resource({"service.name": "cart", "service.namespace": "shop", "service.instance.id": "i-1",
    "cloud.region": "north", "host.cpus": 8})
provider = MeterProvider([reader], resource, views=[
    View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation()),
    View(instrument_name="latency", aggregation=ExplicitBucketHistogramAggregation([0.1, 0.5, 1]))])
meter = provider.get_meter("shop.lib", "1.2")
requests = meter.create_counter("http.requests", unit="{request}", description="Requests so far.")
active = meter.create_up_down_counter("active.sessions")
latency = meter.create_histogram("latency", unit="s")
size = meter.create_histogram("size", unit="By")
meter.create_observable_gauge("temperature", [lambda _: [Observation(21.5, {"room.name": "k"})]], unit="Cel")
for _ in range(2):
    requests.add(3, {"http.method": "GET", "code": 200})
    requests.add(1, {"http.method": "PUT", "code": 500})
    active.add(2)
    active.add(-1)
    for value in (0.05, 0.3, 0.7, 4.0):
        latency.record(value)
    for value in (1, 2, 3, 1000, 0):
        size.record(value)
    provider.force_flush()
print("exported", results)
"#;

/// Runs the program; what it says of its exports, and its log. `None` (a skip) where the SDK is not there.
fn export(server: &Server, temporality: &str, compression: &str) -> Option<String> {
    let import = [
        "-c",
        "import opentelemetry.exporter.otlp.proto.http.metric_exporter",
    ];
    let there = Command::new("python3").args(import).output();
    if !there.is_ok_and(|there| there.status.success()) {
        tests::missing("the SDK of OpenTelemetry");
        return None;
    }
    let url = format!("{}/api/v1/otlp/v1/metrics", server.url());
    let run = Command::new("python3")
        .args(["-c", PROGRAM, &url, temporality, compression])
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let log = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{log}");
    Some(said + &log)
}

/// The value of a selector that has one.
fn value(server: &Server, query: &str) -> String {
    let found = server.api(None).query(query, (unix_now() + 1) as f64);
    let values: Vec<&Value> = found.as_array().into_iter().flatten().collect();
    assert_eq!(values.len(), 1, "{query}: {found}");
    values[0]["value"][1].as_str().expect("a number").to_owned()
}

#[test]
fn the_sdk_of_opentelemetry_is_understood() {
    let config = "limits: {promote_resource_attributes: [cloud.region]}\n".to_owned();
    let Some(mut server) = Server::start(ServerOptions {
        config,
        ..ServerOptions::default()
    }) else {
        return;
    };
    let Some(said) = export(&server, "CUMULATIVE", "gzip") else {
        return;
    };
    assert!(said.contains("exported [True, True"), "{said}");
    for _ in 0..2 {
        let of = r#"job="shop/cart",instance="i-1",cloud_region="north""#;
        for (query, wanted) in [
            (
                format!(r#"http_requests_total{{http_method="GET",code="200",{of}}}"#),
                "6",
            ),
            (
                format!(r#"http_requests_total{{http_method="PUT",code="500",{of}}}"#),
                "2",
            ),
            (format!("active_sessions{{{of}}}"), "2"),
            (
                format!(r#"temperature_celsius{{room_name="k",{of}}}"#),
                "21.5",
            ),
            (format!("latency_seconds_count{{{of}}}"), "8"),
            (format!("latency_seconds_sum{{{of}}}"), "10.1"),
            (format!(r#"latency_seconds_bucket{{le="0.1",{of}}}"#), "2"),
            (format!(r#"latency_seconds_bucket{{le="0.5",{of}}}"#), "4"),
            (format!(r#"latency_seconds_bucket{{le="1",{of}}}"#), "6"),
            (format!(r#"latency_seconds_bucket{{le="+Inf",{of}}}"#), "8"),
            (format!("histogram_count(size_bytes{{{of}}})"), "10"),
            (format!("histogram_sum(size_bytes{{{of}}})"), "2012"),
            // The zero bucket, and (512, 1024], which holds 1000.
            (
                "histogram_fraction(-0.001, 0.001, size_bytes)".to_owned(),
                "0.2",
            ),
            (
                "histogram_fraction(512, 1024, size_bytes)".to_owned(),
                "0.2",
            ),
            (
                r#"target_info{job="shop/cart",cloud_region="north",host_cpus="8"}"#.to_owned(),
                "1",
            ),
        ] {
            assert_eq!(value(&server, &query), wanted, "{query}");
        }
        // And after a crash.
        server.kill();
        server.restart();
    }
}

#[test]
fn metadata_and_refused_deltas_are_told() {
    let Some(server) = Server::plain() else {
        return;
    };
    let Some(said) = export(&server, "DELTA", "none") else {
        return;
    };
    // A partial success is a success, as some points were stored: those of the other kinds of instruments.
    assert!(said.contains("exported [True, True"), "{said}");
    assert_eq!(value(&server, "active_sessions"), "2");
    let api = server.api(None);
    let none = api.query(
        "http_requests_total or latency_seconds_count",
        unix_now() as f64,
    );
    assert_eq!(none, json!([]));
    let metadata = api.data("/api/v1/metadata", &[]);
    let gauge = json!([{"type": "gauge", "help": "", "unit": "celsius"}]);
    assert_eq!(metadata["temperature_celsius"], gauge);
    let refused = r#"cortex_discarded_samples_total{reason="otlp_parse_error",user="fake"} 8"#;
    let metrics = server.admin().get("/metrics", &[]).text();
    assert!(metrics.contains(refused), "{metrics}");
}

/// The same data by OTLP/JSON and by remote write: one series, which both continue.
#[test]
fn otlp_and_remote_write_continue_the_same_series() {
    let Some(server) = Server::plain() else {
        return;
    };
    let now = unix_now();
    let body = json!({"resourceMetrics": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "cart"}}]},
        "scopeMetrics": [{"metrics": [{"name": "jobs.done", "sum": {
            "isMonotonic": true, "aggregationTemporality": 2, "dataPoints": [{
                "timeUnixNano": format!("{}000000000", now - 10), "asInt": "5",
                "attributes": [{"key": "queue", "value": {"intValue": "7"}}],
            }]}}]}],
    }]});
    let headers = [("Content-Type", "application/json")];
    let api = tests::Api::new(&server.url(), None);
    let answer = api.post("/otlp/v1/metrics", &headers, body.to_string().as_bytes());
    let answer = answer.expect("it answers");
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    let mut request = Vec::new();
    let labels = [
        ("__name__", "jobs_done_total"),
        ("job", "cart"),
        ("queue", "7"),
    ];
    encode::put_series(&mut request, labels.into_iter(), &[((now - 5) * 1000, 6.0)]);
    assert_eq!(push(&server, None, &request).status, 200);
    let found = server.api(None).query("jobs_done_total[1m]", now as f64);
    let wanted = json!([[now - 10, "5"], [now - 5, "6"]]);
    assert_eq!(found[0]["values"], wanted, "{found}");
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    let answer = api.post("/otlp/v1/metrics", &headers, b"{\"resourceMetrics\": 7}");
    let answer = answer.expect("it answers");
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .text()
            .starts_with(r#"{"code":3,"message":"cannot decode"#),
        "{}",
        answer.text()
    );
}
