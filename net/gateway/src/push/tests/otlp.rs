//! OTLP on the same path: the same series as remote write, the same limits, its own answers.

use std::io::Write;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use wire::otlp::{Encoding, Outcome};

use super::*;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

async fn send(rig: &Rig, content_type: &str, encoding: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
    if !encoding.is_empty() {
        headers.insert(CONTENT_ENCODING, encoding.parse().unwrap());
    }
    let tenant = TenantId::new("a").unwrap();
    let body = Full::new(Bytes::copy_from_slice(body));
    let response = rig.service.handle_otlp(&tenant, &headers, body).await;
    let status = response.status().as_u16();
    let retry = response.headers().contains_key(http::header::RETRY_AFTER);
    assert_eq!(retry, matches!(status, 429 | 503));
    let answered = response.headers()[CONTENT_TYPE].to_str().unwrap();
    let expected = if content_type == PROTOBUF {
        PROTOBUF
    } else {
        JSON
    };
    assert_eq!(answered, expected, "{status}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, body.to_vec())
}

async fn send_json(rig: &Rig, body: &str) -> (u16, String) {
    let (status, body) = send(rig, JSON, "", body.as_bytes()).await;
    (status, String::from_utf8(body).unwrap())
}

fn protobuf(json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    wire::otlp::to_protobuf(json.as_bytes(), 1 << 20, &mut out).unwrap();
    out
}

fn request(metrics: &str) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[
            {{"key":"service.name","value":{{"stringValue":"a"}}}},
            {{"key":"service.instance.id","value":{{"stringValue":"i"}}}},
            {{"key":"zone","value":{{"stringValue":"z1"}}}}
        ]}},"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#
    )
}

fn gauge(name: &str, points: &str) -> String {
    format!(
        r#"{{"name":"{name}","description":"What it is.","gauge":{{"dataPoints":[{points}]}}}}"#
    )
}

fn point(time_ms: i64, value: f64) -> String {
    format!(
        r#"{{"timeUnixNano":"{}","asDouble":{value}}}"#,
        time_ms * 1_000_000
    )
}

const TARGET_INFO: &str = r#"{__name__="target_info", instance="i", job="a", zone="z1"}"#;

/// The same data by remote write and by OTLP is the same series, in either encoding and packing.
#[tokio::test]
async fn what_comes_by_otlp_is_what_comes_by_remote_write() {
    let rig = Rig::new();
    assert_eq!(rig.push(&[(UP, NOW, 1.0)]).await.0, 200);
    let nothing = (200, Vec::new());
    let body = |time| protobuf(&request(&gauge("up", &point(time, 2.0))));
    assert_eq!(send(&rig, PROTOBUF, "", &body(NOW + 1)).await, nothing);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&body(NOW + 2)).unwrap();
    let gzip = gzip.finish().unwrap();
    assert_eq!(send(&rig, PROTOBUF, "gzip", &gzip).await, nothing);
    let zstd = zstd::encode_all(&body(NOW + 3)[..], 3).unwrap();
    assert_eq!(send(&rig, PROTOBUF, "zstd", &zstd).await, nothing);
    let json = request(&gauge("up", &point(NOW + 4, 2.0)));
    assert_eq!(send_json(&rig, &json).await, (200, "{}".into()));
    let stored = rig.stored("a");
    let times: Vec<i64> = stored[UP_TEXT].iter().map(|(time, _)| time - NOW).collect();
    assert_eq!(times, [0, 1, 2, 3, 4]);
    assert_eq!(stored[TARGET_INFO].len(), 4);
    assert_eq!(stored.len(), 2);
    assert_eq!(
        rig.cores.counts().1,
        3,
        "by remote write, by OTLP, and the target"
    );
    assert_eq!(
        rig.metric("cortex_distributor_push_requests_total", "otlp"),
        4.0
    );
    let told = rig.metadata.list(&TenantId::new("a").unwrap(), None, 0, 0);
    assert!(format!("{told:?}").contains("What it is."), "{told:?}");
    rig.assert_nothing_held();
}

#[tokio::test]
async fn points_that_are_refused_are_told_beside_those_that_are_stored() {
    let limits = TenantLimits {
        max_label_value_length: 12,
        ..TenantLimits::cortex()
    };
    let rig = Rig::with(limits, PushOptions::default());
    let long = format!(
        r#"{{"timeUnixNano":"{}","asInt":1,"attributes":[{{"key":"l","value":{{"stringValue":"longer than twelve"}}}}]}}"#,
        NOW * 1_000_000
    );
    let delta = r#"{"name":"d","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{"asInt":1},{"asInt":2}]}}"#;
    let mixed = request(&format!(
        "{},{},{delta}",
        gauge("up", &point(NOW, 1.0)),
        gauge("x", &long)
    ));
    let (status, text) = send_json(&rig, &mixed).await;
    assert_eq!(status, 200);
    assert!(text.contains(r#""rejectedDataPoints":"3""#), "{text}");
    assert!(
        text.contains("invalid temporality and type combination"),
        "{text}"
    );
    assert_eq!(rig.stored("a")[UP_TEXT].len(), 1);
    let discarded = |reason| rig.metric("cortex_discarded_samples_total", reason);
    assert_eq!(discarded("otlp_parse_error"), 2.0);
    assert_eq!(discarded("label_value_too_long"), 1.0);
    let (status, text) = send_json(&rig, &request(delta)).await;
    assert_eq!(
        (status, text.starts_with(r#"{"code":3,"message":"invalid"#)),
        (400, true),
        "{text}"
    );
    let lone = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":["#.to_owned();
    let lone = lone + &gauge("x", &long) + "]}]}]}";
    let (status, text) = send_json(&rig, &lone).await;
    assert_eq!(
        (status, text.contains("longer than twelve")),
        (400, true),
        "{text}"
    );
    rig.assert_nothing_held();
}

#[tokio::test]
async fn each_tenant_promotes_attributes_of_its_own() {
    let limits = TenantLimits {
        promote_resource_attributes: vec!["zone".into()],
        ..TenantLimits::cortex()
    };
    let rig = Rig::with(limits, PushOptions::default());
    let json = request(&gauge("up", &point(NOW, 1.0)));
    assert_eq!(send_json(&rig, &json).await.0, 200);
    let stored = rig.stored("a");
    assert!(stored.contains_key(r#"{__name__="up", instance="i", job="a", zone="z1"}"#));
}

#[tokio::test]
async fn the_rate_of_the_tenant_and_the_state_of_the_node_tell_when_to_come_again() {
    let limits = TenantLimits {
        ingestion_rate: 1.0,
        ingestion_burst_size: 4,
        ..TenantLimits::cortex()
    };
    let rig = Rig::with(limits, PushOptions::default());
    let points: Vec<String> = (0..5).map(|n| point(NOW + n, 1.0)).collect();
    let json = request(&gauge("up", &points.join(",")));
    let (status, text) = send_json(&rig, &json).await;
    assert_eq!(
        (status, text.starts_with(r#"{"code":8,"#)),
        (429, true),
        "{text}"
    );
    assert!(rig.stored("a").is_empty());
    let rig = Rig::new();
    for core in 0..3 {
        rig.cores.fill(core);
    }
    let (status, body) = send(&rig, PROTOBUF, "", &protobuf(&json)).await;
    assert_eq!((status, &body[..2]), (503, b"\x08\x0e".as_slice()));
    rig.assert_nothing_held();
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_the_encoding_of_its_sender() {
    let options = PushOptions {
        otlp_recv_bytes_max: 2_000,
        ..PushOptions::default()
    };
    let rig = Rig::with(TenantLimits::cortex(), options);
    let (status, body) = send(&rig, PROTOBUF, "", b"\xff").await;
    assert_eq!(status, 400);
    assert_eq!(&body[..2], b"\x08\x03");
    for (content_type, encoding, body, wanted, words) in [
        (
            JSON,
            "",
            b"[".to_vec(),
            400,
            "cannot decode the OTLP request",
        ),
        (JSON, "gzip", b"x".to_vec(), 400, "cannot unpack the body"),
        (JSON, "br", b"x".to_vec(), 415, "use gzip or zstd"),
        (
            "text/plain",
            "",
            b"x".to_vec(),
            400,
            "use application/x-protobuf or application/json",
        ),
        (
            JSON,
            "",
            vec![b' '; 2_001],
            400,
            "received message larger than max",
        ),
        (
            JSON,
            "zstd",
            zstd::encode_all(&[b' '; 3_000][..], 1).unwrap(),
            400,
            "larger than max",
        ),
    ] {
        let (status, body) = send(&rig, content_type, encoding, &body).await;
        let text = String::from_utf8(body).unwrap();
        assert!(status == wanted && text.contains(words), "{status} {text}");
    }
    let nothing = wire::otlp::success(Encoding::Json, &Outcome::default());
    assert_eq!(send(&rig, JSON, "", b"{}").await, (200, nothing));
    rig.assert_nothing_held();
}

/// A thread serves many connections: it must not stand still while a large body of one of them is decoded.
#[tokio::test]
async fn others_have_their_turns_while_a_large_body_is_decoded() {
    let rig = Rig::new();
    // Refused when all of it has been decoded: there is no second point of the others to wait for.
    let points: Vec<String> = (0..40_000).map(|n| point(NOW + n, n as f64)).collect();
    let body = request(&gauge("large", &points.join(",")));
    assert!(body.len() > 2 << 20, "{}", body.len());
    let over = std::cell::Cell::new(false);
    let turns = async {
        let mut turns = 0u64;
        while !over.get() {
            turns += 1;
            tokio::task::yield_now().await;
        }
        turns
    };
    let answered = async {
        let answer = send_json(&rig, &body).await;
        over.set(true);
        answer
    };
    let ((status, text), turns) = tokio::join!(answered, turns);
    assert_eq!(status, 200, "{text}");
    // On the thread itself there are a handful, one for each time that something is waited for.
    assert!(turns > 200, "{turns} turns");
}

fn histogram(name: &str, time_ms: i64, value: u8, label: &str) -> String {
    format!(
        r#"{{"name":"{name}","histogram":{{"aggregationTemporality":2,"dataPoints":[{{"count":"{value}","sum":{value},
            "bucketCounts":["{value}","0","0"],"explicitBounds":[1,2],"timeUnixNano":"{}",
            "attributes":[{{"key":"l","value":{{"stringValue":"{label}"}}}}]}}]}}}}"#,
        time_ms * 1_000_000
    )
}

/// Story: samples were counted, those of `target_info` too, and never more than there were points; one point of two was told as two, and the
/// only one as stored because its resource was.
#[tokio::test]
async fn points_are_counted_not_what_was_made_of_them() {
    let limits = TenantLimits {
        max_label_value_length: 12,
        ..TenantLimits::cortex()
    };
    let rig = Rig::with(limits, PushOptions::default());
    let rejected = |text: &str| {
        let (_, rest) = text.split_once(r#""rejectedDataPoints":""#)?;
        rest.split_once('"').map(|(count, _)| count.to_owned())
    };
    let long = "longer than twelve";
    // Refused by the gateway, twice: the second time it remembers that.
    for time in [NOW, NOW + 1] {
        let metrics = [
            histogram("h", time, 1, long),
            gauge("up", &point(time, 1.0)),
        ];
        let (status, text) = send_json(&rig, &request(&metrics.join(","))).await;
        assert_eq!((status, rejected(&text)), (200, Some("1".into())), "{text}");
        let (status, text) = send_json(&rig, &request(&histogram("h", time, 1, long))).await;
        assert_eq!(status, 400, "whatever became of target_info: {text}");
    }
    assert_eq!(rig.stored("a")[TARGET_INFO].len(), 2);
    // Refused by cores: six samples of a point.
    assert_eq!(
        send_json(&rig, &request(&histogram("h", NOW, 1, "l")))
            .await
            .0,
        200
    );
    let metrics = [
        histogram("h", NOW, 2, "l"),
        gauge("up", &point(NOW + 2, 1.0)),
    ];
    let (status, text) = send_json(&rig, &request(&metrics.join(","))).await;
    assert_eq!((status, rejected(&text)), (200, Some("1".into())), "{text}");
    let (status, text) = send_json(&rig, &request(&histogram("h", NOW, 2, "l"))).await;
    assert_eq!(status, 400, "{text}");
    // Only the resource is too late: its newest time is three milliseconds on.
    let (status, text) = send_json(&rig, &request(&gauge("new", &point(NOW - 5, 1.0)))).await;
    assert_eq!((status, rejected(&text)), (200, Some("0".into())), "{text}");
    assert!(text.contains("target_info"), "{text}");
    rig.assert_nothing_held();
}
