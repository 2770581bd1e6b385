//! Native histograms and exemplars, from the wire to the answer, before and after restarts.

use model::{Histogram, HistogramSample, Span};
use serde_json::{Value, json};
use tests::{Server, unix_now};
use wire::remote_write::encode;

use super::series::push;

/// `n` observations in each of two buckets, `n` of zero.
pub(crate) fn histogram(n: u64) -> HistogramSample {
    HistogramSample::Int(Histogram {
        zero_threshold: 0.001,
        zero_count: n,
        count: 3 * n,
        sum: 4.5 * n as f64,
        positive_spans: vec![Span {
            offset: 1,
            length: 2,
        }],
        positive_deltas: vec![n as i64, 0],
        ..Histogram::default()
    })
}

/// What an instant query shows of [`histogram`].
fn shown(n: u64) -> Value {
    let n_text = n.to_string();
    json!({
        "count": (3 * n).to_string(),
        "sum": (4.5 * n as f64).to_string(),
        "buckets": [[3, "-0.001", "0.001", n_text], [0, "1", "2", n_text], [0, "2", "4", n_text]],
    })
}

fn check(server: &Server, first: i64) {
    let api = server.api(None);
    for (minute, n) in [(0, 1), (1, 2), (3, 4)] {
        let found = api.query("mixed", (first + 60 * minute) as f64);
        assert_eq!(
            found[0]["histogram"][1],
            shown(n),
            "minute {minute}: {found}"
        );
    }
    // The float stands between the histograms.
    let found = api.query("mixed", (first + 120) as f64);
    assert_eq!(found[0]["value"][1], "7", "{found}");
    let at = (first + 180) as f64;
    let found = api.query("histogram_quantile(0.5, mixed)", at);
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    let found = api.query("histogram_count(sum(mixed))", at);
    assert_eq!(found[0]["value"][1], "12");
    let params = [("query", "rate(mixed[5m]) or other"), ("start", "0")];
    let exemplars = api.data("/api/v1/query_exemplars", &params);
    let expected = json!([{
        "seriesLabels": {"__name__": "mixed"},
        "exemplars": [{"labels": {"trace_id": "abc"}, "value": "2.5", "timestamp": first}],
    }]);
    assert_eq!(exemplars, expected);
    let before = [("query", "mixed"), ("end", "1")];
    assert_eq!(api.data("/api/v1/query_exemplars", &before), json!([]));
}

#[test]
fn histograms_between_floats_and_exemplars_survive_kills_and_stops() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    let first = unix_now() - 600;
    let at = |minute: i64| (first + 60 * minute) * 1000;
    let mut request = Vec::new();
    let labels = [("__name__", "mixed")];
    let samples = [
        (at(0), histogram(1)),
        (at(1), histogram(2)),
        (at(3), histogram(4)),
    ];
    encode::put_series_with(&mut request, labels.into_iter(), &[(at(2), 7.0)], &samples);
    assert_eq!(push(&server, None, &request).status, 200);
    // An exemplar of a series that is there: { labels { trace_id abc }, value 2.5, time }.
    let mut label = vec![0x0a, 8];
    label.extend(b"trace_id\x12\x03abc");
    let mut exemplar = vec![0x0a, label.len() as u8];
    exemplar.extend(label);
    exemplar.push(0x11);
    exemplar.extend(2.5f64.to_le_bytes());
    exemplar.push(0x18);
    model::varint::put_u64(&mut exemplar, at(0) as u64);
    let mut series = vec![0x0a, 17];
    series.extend(b"\x0a\x08__name__\x12\x05mixed");
    series.extend([0x1a, exemplar.len() as u8]);
    series.extend(exemplar);
    let mut request = vec![0x0a, series.len() as u8];
    request.extend(series);
    let answer = push(&server, None, &request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    check(&server, first);
    server.kill();
    server.restart();
    check(&server, first);
    // A stop writes a checkpoint, from which the next start reads.
    server.stop();
    server.restart();
    check(&server, first);
    // Another number of cores takes everything over.
    server.stop();
    server.restart_with(&["-cores=1"]);
    check(&server, first);
}
