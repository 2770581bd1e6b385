//! Which series is it: encodings differ, the series does not.

use tests::{Response, Server, unix_now};

/// Labels, milliseconds, value.
pub(crate) type One<'a> = (&'a [(&'a str, &'a str)], i64, f64);

/// A remote write 1.0 body, built here by hand so that odd encodings can be made: labels in the order given.
pub(crate) fn body(series: &[One<'_>]) -> Vec<u8> {
    encode(series, false)
}

fn encode(series: &[One<'_>], padded: bool) -> Vec<u8> {
    let mut request = Vec::new();
    for (labels, time, value) in series {
        let mut inner = Vec::new();
        for (name, value) in *labels {
            let mut label = Vec::new();
            field(&mut label, 1, name.as_bytes(), padded);
            field(&mut label, 2, value.as_bytes(), padded);
            field(&mut inner, 1, &label, padded);
        }
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        varint(&mut sample, *time as u64, false);
        field(&mut inner, 2, &sample, padded);
        field(&mut request, 1, &inner, padded);
    }
    request
}

/// A remote write 2.0 body of one series: its symbols in the order of its labels, after one that nobody refers to.
fn encode_v2(labels: &[(&str, &str)], time: i64, value: f64, padded: bool) -> Vec<u8> {
    let mut request = Vec::new();
    let mut refs = Vec::new();
    for symbol in ["", "unused"] {
        field(&mut request, 4, symbol.as_bytes(), padded);
    }
    for (at, symbol) in labels.iter().flat_map(|(n, v)| [n, v]).enumerate() {
        field(&mut request, 4, symbol.as_bytes(), padded);
        varint(&mut refs, 2 + at as u64, padded);
    }
    let mut sample = vec![0x09];
    sample.extend_from_slice(&value.to_le_bytes());
    sample.push(0x10);
    varint(&mut sample, time as u64, false);
    let mut series = Vec::new();
    field(&mut series, 1, &refs, padded);
    field(&mut series, 2, &sample, padded);
    field(&mut request, 5, &series, padded);
    request
}

/// Pushes a sample of each of forty series, of which every core has some.
pub(crate) fn push_forty(server: &Server, time: i64, value: f64) {
    let names: Vec<String> = (0..40).map(|i| format!("p{i}")).collect();
    let labels: Vec<[(&str, &str); 2]> = names
        .iter()
        .map(|pod| [("__name__", "up"), ("pod", pod)])
        .collect();
    let list: Vec<One<'_>> = labels
        .iter()
        .map(|labels| (&labels[..], time, value))
        .collect();
    assert_eq!(push(server, None, &body(&list)).status, 200);
}

/// `padded`: a length in more bytes than it needs, which protobuf allows.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64, padded: bool) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    if padded {
        out.extend([value as u8 | 0x80, 0x80, 0]);
    } else {
        out.push(value as u8);
    }
}

pub(crate) fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8], padded: bool) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64, padded);
    out.extend_from_slice(bytes);
}

/// Snappy block format with literals only.
pub(crate) fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, bytes.len() as u64, false);
    for piece in bytes.chunks(1 << 16) {
        out.push(61 << 2);
        out.extend_from_slice(&((piece.len() - 1) as u16).to_le_bytes());
        out.extend_from_slice(piece);
    }
    out
}

/// Pushes a body as Prometheus does.
pub(crate) fn push(server: &Server, tenant: Option<&str>, body: &[u8]) -> Response {
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let api = tests::Api::new(&server.url(), tenant);
    api.post("/api/v1/push", &headers, &snappy(body))
        .expect("the server answers a push")
}

#[test]
fn both_versions_permuted_labels_padded_varints_and_a_restart_are_one_series_on_one_core() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    let now = unix_now() * 1000;
    let sorted = [
        ("__name__", "one"),
        ("a", "1"),
        ("instance", "x:1"),
        ("job", "j"),
    ];
    let permuted = [
        ("job", "j"),
        ("a", "1"),
        ("__name__", "one"),
        ("instance", "x:1"),
    ];
    let with_empty = [
        ("__name__", "one"),
        ("a", "1"),
        ("b", ""),
        ("instance", "x:1"),
        ("job", "j"),
    ];
    let mut time = now - 60_000;
    let mut send = |server: &Server, labels: &[(&str, &str)], padded: bool| {
        time += 1000;
        let answer = push(server, None, &encode(&[(labels, time, 1.0)], padded));
        assert_eq!(answer.status, 200, "{}", answer.text());
        time += 1000;
        let headers = [
            (
                "Content-Type",
                "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            ),
            ("Content-Encoding", "snappy"),
            ("X-Prometheus-Remote-Write-Version", "2.0.0"),
        ];
        let body = snappy(&encode_v2(labels, time, 1.0, padded));
        let answer = server.admin().post("/api/v1/push", &headers, &body);
        let answer = answer.expect("the server answers a push");
        assert_eq!(answer.status, 204, "{}", answer.text());
        let written = answer.header("x-prometheus-remote-write-samples-written");
        assert_eq!(written, Some("1"));
    };
    for round in 1..=2u32 {
        send(&server, &sorted, false);
        send(&server, &permuted, false);
        send(&server, &sorted, true);
        send(&server, &permuted, true);
        send(&server, &with_empty, false);
        let api = server.api(None);
        let at = now as f64 / 1000.0;
        assert_eq!(api.query("count(one)", at)[0]["value"][1], "1");
        assert_eq!(
            api.query("count_over_time(one[5m])", at)[0]["value"][1],
            (10 * round).to_string()
        );
        let series = api.data("/api/v1/series", &[("match[]", "one")]);
        assert_eq!(series.as_array().map(Vec::len), Some(1), "{series}");
        let in_memory: f64 = server
            .admin()
            .get("/metrics", &[])
            .text()
            .lines()
            .filter(|l| {
                l.starts_with("cortex_ingester_memory_series")
                    && !l.contains("created")
                    && !l.contains("removed")
            })
            .filter_map(|l| l.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()))
            .sum();
        assert_eq!(in_memory, 1.0, "one series on one core");
        server.kill();
        server.restart();
    }
}

#[test]
fn a_partly_bad_body_stores_the_good_and_names_the_first_bad() {
    let Some(server) = Server::plain() else {
        return;
    };
    let now = unix_now() * 1000;
    let good: &[(&str, &str)] = &[("__name__", "good")];
    let nameless: &[(&str, &str)] = &[("a", "b")];
    let answer = push(
        &server,
        None,
        &body(&[
            (good, now, 1.0),
            (nameless, now, 2.0),
            (&[("__name__", "fine")], now, 3.0),
        ]),
    );
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(
        answer.text().contains("missing metric name"),
        "{}",
        answer.text()
    );
    let api = server.api(None);
    assert_eq!(api.query("good", now as f64 / 1000.0)[0]["value"][1], "1");
    assert_eq!(api.query("fine", now as f64 / 1000.0)[0]["value"][1], "3");
    let answer = push(
        &server,
        None,
        &body(&[(good, now, 1.0), (&[("__name__", "fine")], now, 4.0)]),
    );
    assert_eq!(
        answer.status, 400,
        "another value for the same time was taken"
    );
    assert!(
        answer.text().contains("fine"),
        "it does not say which series: {}",
        answer.text()
    );
    assert_eq!(api.query("fine", now as f64 / 1000.0)[0]["value"][1], "3");
}

#[test]
fn tenants_see_their_own_data_only() {
    let options = tests::ServerOptions {
        config: "auth_enabled: true\n".into(),
        ..Default::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let now = unix_now();
    for (tenant, value) in [("a", 1.0), ("b", 2.0)] {
        let answer = push(
            &server,
            Some(tenant),
            &body(&[(&[("__name__", "shared")], now * 1000, value)]),
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for (tenant, value) in [("a", "1"), ("b", "2")] {
        let found = server.api(Some(tenant)).query("shared", now as f64);
        assert_eq!(found.as_array().unwrap().len(), 1);
        assert_eq!(found[0]["value"][1], value);
    }
    assert_eq!(
        server
            .api(Some("c"))
            .query("{__name__=~\".+\"}", now as f64)
            .as_array()
            .unwrap()
            .len(),
        0
    );
    let answer = push(&server, None, &body(&[]));
    assert_eq!((answer.status, answer.text().trim()), (401, "no org id"));
    assert_eq!(push(&server, Some("a/b"), &body(&[])).status, 400);
}
