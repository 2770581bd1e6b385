//! Whole translations: requests are written as JSON, which tests show to be the same as protobuf, and read back from the write request.

use model::{CounterReset, HistogramSample, MetricType, is_stale};
use serde_json::{Value, json};

use super::*;
use crate::remote_write::{exemplar, histogram, v1, v2};

/// A series of the translation: labels as text, and what it has.
#[derive(Debug, Clone, PartialEq)]
struct Series {
    labels: String,
    /// Time, value, start.
    samples: Vec<(i64, f64, i64)>,
    histograms: Vec<(i64, HistogramSample, i64)>,
    exemplars: Vec<model::Exemplar>,
}

fn translated(request: &Value, options: &Options) -> Translated {
    let mut body = Vec::new();
    to_protobuf(request.to_string().as_bytes(), 1 << 20, &mut body).unwrap();
    translate(&body, options).unwrap()
}

fn series_of(translated: &Translated) -> Vec<Series> {
    let body = &translated.request;
    let mut symbols = v2::Symbols::default();
    symbols.read(body).unwrap();
    let mut walk = v2::Walk::new(body);
    let mut all = Vec::new();
    while let Some(raw) = walk.next_series().unwrap() {
        let labels: Vec<(String, String)> = v2::labels(raw.reference_bytes(), body, &symbols)
            .map(|label| {
                let (name, value) = label.unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                (text(name), text(value))
            })
            .collect();
        assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "{labels:?}");
        let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
        let mut series = Series {
            labels: labels.collect::<Vec<_>>().join(","),
            samples: Vec::new(),
            histograms: Vec::new(),
            exemplars: Vec::new(),
        };
        let mut parts = raw.parts();
        while let Some(part) = parts.next_part().unwrap() {
            match part {
                v2::Part::Sample { time, value, start } => {
                    series.samples.push((time, value, start))
                }
                v2::Part::Histogram(message) => {
                    let (time, sample) = histogram::decode(message).unwrap();
                    let start = histogram::start(message).unwrap();
                    series.histograms.push((time, sample, start));
                }
                v2::Part::Exemplar(message) => {
                    let exemplar = exemplar::decode_v2(message, body, &symbols).unwrap();
                    series.exemplars.push(exemplar);
                }
                other => panic!("{other:?}"),
            }
        }
        all.push(series);
    }
    all
}

fn metadata_of(translated: &Translated) -> Vec<(String, MetricType, String, String)> {
    let mut walk = v1::Walk::new(&translated.metadata);
    let mut all = Vec::new();
    while let Some(record) = walk.next_record().unwrap() {
        let v1::Record::Metadata(raw) = record else {
            panic!("only metadata");
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let kind = MetricType::from_number(raw.kind);
        all.push((text(raw.metric), kind, text(raw.help), text(raw.unit)));
    }
    all
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// A request of one resource, `shop/cart` on `i-1` with a region, and these metrics.
fn request(metrics: Value) -> Value {
    json!({"resourceMetrics": [{
        "resource": {"attributes": [
            attribute("service.name", "cart"),
            attribute("service.namespace", "shop"),
            attribute("service.instance.id", "i-1"),
            attribute("cloud.region", "north"),
        ]},
        "scopeMetrics": [{
            "scope": {"name": "lib", "version": "1.2", "attributes": [attribute("k", "v")]},
            "schemaUrl": "http://schema",
            "metrics": metrics,
        }],
    }]})
}

const START: &str = "1699999000000000000";
const TIME: &str = "1700000000123456789";
const MS: i64 = 1_700_000_000_123;
const START_MS: i64 = 1_699_999_000_000;

fn quiet() -> Options {
    Options {
        disable_target_info: true,
        ..Options::default()
    }
}

fn labels_of(request: &Value, options: &Options) -> Vec<String> {
    let all = series_of(&translated(request, options));
    all.into_iter().map(|series| series.labels).collect()
}

#[test]
fn sums_and_gauges_are_one_series_each() {
    let point = |value: Value| {
        let mut point = json!({
            "timeUnixNano": TIME, "startTimeUnixNano": START,
            "attributes": [attribute("http.method", "GET")],
        });
        point
            .as_object_mut()
            .unwrap()
            .extend(value.as_object().unwrap().clone());
        json!([point])
    };
    let translated = translated(
        &request(json!([
            {"name": "queue.length", "unit": "{items}", "description": "How long.",
             "gauge": {"dataPoints": point(json!({"asInt": "-7"}))}},
            {"name": "requests", "sum": {"aggregationTemporality": 2, "isMonotonic": true,
             "dataPoints": point(json!({"asDouble": 0.1}))}},
            {"name": "open", "sum": {"aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE",
             "dataPoints": point(json!({"asInt": 3}))}},
            {"name": "gone", "gauge": {"dataPoints": point(json!({"flags": 1}))}},
        ])),
        &Options::default(),
    );
    let all = series_of(&translated);
    let of = |name: &str| format!("__name__={name},http_method=GET,instance=i-1,job=shop/cart");
    assert_eq!(all[0].labels, of("queue_length"));
    assert_eq!(all[0].samples, [(MS, -7.0, 0)], "a gauge begins nowhere");
    assert_eq!(
        (&all[1].labels, &all[1].samples),
        (&of("requests_total"), &vec![(MS, 0.1, START_MS)])
    );
    assert_eq!(
        (&all[2].labels, &all[2].samples),
        (&of("open"), &vec![(MS, 3.0, 0)])
    );
    assert!(is_stale(all[3].samples[0].1));
    assert_eq!(
        (all[4].labels.as_str(), &all[4].samples),
        (
            "__name__=target_info,cloud_region=north,instance=i-1,job=shop/cart",
            &vec![(MS, 1.0, 0)]
        )
    );
    assert_eq!((translated.points, translated.refused), (4, 0));
    let metadata = metadata_of(&translated);
    let record =
        |name: &str, kind, help: &str| (name.to_owned(), kind, help.to_owned(), String::new());
    assert_eq!(
        metadata,
        [
            record("queue_length", MetricType::Gauge, "How long."),
            record("requests_total", MetricType::Counter, ""),
            record("open", MetricType::Gauge, ""),
            record("gone", MetricType::Gauge, ""),
            record("target_info", MetricType::Gauge, "Target metadata"),
        ]
    );
}

fn histogram_request(more: Value) -> Value {
    let mut point = json!({
        "timeUnixNano": TIME, "startTimeUnixNano": START, "count": "10", "sum": 42.5,
        "bucketCounts": ["1", "2", "0", 7], "explicitBounds": [0.5, 1, 2.5],
        "exemplars": [
            {"timeUnixNano": TIME, "asDouble": 0.75, "traceId": "0102030405060708090a0B0c0d0e0f10",
             "spanId": "0102030405060708", "filteredAttributes": [attribute("user", "u")]},
            {"timeUnixNano": TIME, "asInt": "9"},
        ],
    });
    point
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request(json!([{
        "name": "latency", "unit": "s",
        "histogram": {"aggregationTemporality": 2, "dataPoints": [point]},
    }]))
}

#[test]
fn a_histogram_becomes_cumulative_buckets_with_its_exemplars() {
    let translated = translated(&histogram_request(json!({})), &quiet());
    let all = series_of(&translated);
    let shown: Vec<(String, f64)> = all
        .iter()
        .map(|series| (series.labels.clone(), series.samples[0].1))
        .collect();
    let rest = "instance=i-1,job=shop/cart";
    let bucket = |le: &str, value| {
        (
            format!("__name__=latency_seconds_bucket,{rest},le={le}"),
            value,
        )
    };
    assert_eq!(
        shown,
        [
            (format!("__name__=latency_seconds_sum,{rest}"), 42.5),
            (format!("__name__=latency_seconds_count,{rest}"), 10.0),
            bucket("0.5", 1.0),
            bucket("1", 3.0),
            bucket("2.5", 3.0),
            bucket("+Inf", 10.0),
        ]
    );
    assert!(all.iter().all(|series| series.samples[0].2 == START_MS));
    let [exemplar] = all[3].exemplars.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(exemplar.value, 0.75);
    let labels: Vec<_> = exemplar.labels.iter().collect();
    assert_eq!(
        labels,
        [
            ("span_id", "0102030405060708"),
            ("trace_id", "0102030405060708090a0b0c0d0e0f10"),
            ("user", "u")
        ]
    );
    assert_eq!(all[5].exemplars[0].value, 9.0);
    assert_eq!(metadata_of(&translated)[0].1, MetricType::Histogram);
    assert_eq!(metadata_of(&translated)[0].3, "seconds");
    let without = histogram_request(json!({"sum": null}));
    assert!(
        !labels_of(&without, &quiet())
            .iter()
            .any(|labels| labels.contains("_sum"))
    );
    let stale = super::tests::translated(&histogram_request(json!({"flags": 1})), &quiet());
    let stale = series_of(&stale);
    assert_eq!(stale.len(), 6);
    assert!(stale.iter().all(|series| is_stale(series.samples[0].1)));
    let unsorted = histogram_request(json!({"explicitBounds": [1, 1, 2]}));
    let unsorted = super::tests::translated(&unsorted, &quiet());
    assert_eq!((unsorted.points, unsorted.refused), (1, 1));
    assert!(unsorted.refusal.unwrap().contains("ascend"));
}

#[test]
fn a_histogram_may_become_a_native_one_with_its_bounds() {
    let options = Options {
        convert_histograms_to_nhcb: true,
        ..quiet()
    };
    let all = series_of(&translated(&histogram_request(json!({})), &options));
    let (time, HistogramSample::Int(histogram), start) = &all[0].histograms[0] else {
        panic!("{all:?}");
    };
    assert_eq!((*time, *start, histogram.schema), (MS, START_MS, -53));
    assert_eq!(histogram.custom_values, [0.5, 1.0, 2.5]);
    assert_eq!(histogram.positive_deltas, [1, 1, -2, 7]);
    assert_eq!((histogram.count, histogram.sum), (10, 42.5));
    assert_eq!(all[0].exemplars.len(), 2);
}

fn exponential_request(more: Value, temporality: u64) -> Value {
    let mut point = json!({
        "timeUnixNano": TIME, "startTimeUnixNano": START, "count": 12, "sum": 3.5, "scale": 10,
        "zeroCount": "2", "positive": {"offset": -1, "bucketCounts": ["1", "2", "3"]},
        "negative": {"offset": 8, "bucketCounts": [4]},
    });
    point
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request(json!([{
        "name": "size", "unit": "By",
        "exponentialHistogram": {"aggregationTemporality": temporality, "dataPoints": [point]},
    }]))
}

#[test]
fn an_exponential_histogram_becomes_a_native_one() {
    let all = series_of(&translated(&exponential_request(json!({}), 2), &quiet()));
    assert_eq!(
        all[0].labels,
        "__name__=size_bytes,instance=i-1,job=shop/cart"
    );
    let (time, HistogramSample::Int(histogram), start) = &all[0].histograms[0] else {
        panic!("{all:?}");
    };
    assert_eq!((*time, *start, histogram.schema), (MS, START_MS, 8));
    assert_eq!(
        (histogram.count, histogram.sum, histogram.zero_count),
        (12, 3.5, 2)
    );
    assert_eq!(histogram.zero_threshold, 1e-128);
    assert_eq!(histogram.counter_reset, CounterReset::Unknown);
    // Of scale 10, buckets -1, 0, 1 are -1, 0, 0 of scale 8, which Prometheus calls 0, 1.
    let span = |offset, length| model::Span { offset, length };
    assert_eq!(histogram.positive_spans, [span(0, 2)]);
    assert_eq!(histogram.positive_deltas, [1, 4]);
    assert_eq!(histogram.negative_spans, [span(3, 1)]);
    let threshold = exponential_request(json!({"zeroThreshold": 0.25, "scale": -4}), 2);
    let all = series_of(&translated(&threshold, &quiet()));
    assert_eq!(all[0].histograms[0].1.zero_threshold(), 0.25);
    let coarse = translated(&exponential_request(json!({"scale": -5}), 2), &quiet());
    assert_eq!((coarse.points, coarse.refused), (1, 1));
    assert!(
        coarse
            .refusal
            .unwrap()
            .contains("scale must be >= -4, was -5")
    );
    let stale = series_of(&translated(
        &exponential_request(json!({"flags": 1}), 2),
        &quiet(),
    ));
    assert!(is_stale(stale[0].histograms[0].1.sum()));
    assert_eq!(stale[0].histograms[0].1.bucket_count(), 0);
}

#[test]
fn deltas_are_refused_or_stored_as_they_are() {
    let request = exponential_request(json!({}), 1);
    let refused = translated(&request, &quiet());
    assert_eq!((refused.points, refused.refused), (1, 1));
    let text = refused.refusal.clone().unwrap();
    assert!(
        text.contains("\"size\"") && text.contains("delta"),
        "{text}"
    );
    assert!(series_of(&refused).is_empty() && refused.metadata.is_empty());
    let allowed = Options {
        allow_delta_temporality: true,
        ..quiet()
    };
    let stored = translated(&request, &allowed);
    let all = series_of(&stored);
    assert_eq!(all[0].histograms[0].1.counter_reset(), CounterReset::Gauge);
    assert_eq!(all[0].histograms[0].2, 0, "a difference begins nowhere");
    assert_eq!(metadata_of(&stored)[0].1, MetricType::Unknown);
    let unsaid = translated(&exponential_request(json!({}), 0), &allowed);
    assert_eq!((unsaid.points, unsaid.refused), (1, 1));
}

#[test]
fn a_summary_is_its_quantiles_count_and_sum() {
    let request = request(
        json!([{"name": "rpc", "unit": "ms", "summary": {"dataPoints": [{
            "timeUnixNano": TIME, "startTimeUnixNano": START, "count": "4", "sum": 8,
            "quantileValues": [{"quantile": 0.5, "value": 1}, {"quantile": 1, "value": "NaN"}],
        }]}}]),
    );
    let all = series_of(&translated(&request, &quiet()));
    let rest = "instance=i-1,job=shop/cart";
    assert_eq!(
        all[0].labels,
        format!("__name__=rpc_milliseconds_sum,{rest}")
    );
    assert_eq!(all[1].samples, [(MS, 4.0, START_MS)]);
    assert_eq!(
        all[2].labels,
        format!("__name__=rpc_milliseconds,{rest},quantile=0.5")
    );
    assert_eq!(all[2].samples, [(MS, 1.0, 0)]);
    assert!(all[3].labels.ends_with("quantile=1") && all[3].samples[0].1.is_nan());
}

#[test]
fn labels_come_from_the_point_the_resource_and_the_scope_in_that_order() {
    let gauge = |attributes: Value| {
        request(json!([{"name": "g", "gauge": {"dataPoints": [
            {"timeUnixNano": TIME, "asInt": 1, "attributes": attributes}]}}]))
    };
    let plain = gauge(json!([
        attribute("a.b", "1"),
        attribute("a_b", "2"),
        attribute("job", "mine"),
        attribute("cloud.region", "mine"),
        attribute("__name__", "other"),
        attribute("empty", ""),
    ]));
    let rest = "instance=i-1,job=shop/cart";
    assert_eq!(
        labels_of(&plain, &quiet()),
        [format!("__name__=g,a_b=1;2,cloud_region=mine,{rest}")]
    );
    let promoted = Options {
        promote_resource_attributes: vec!["cloud.region".into(), "absent".into()],
        ..quiet()
    };
    assert_eq!(
        labels_of(&gauge(json!([attribute("a", "1")])), &promoted),
        [format!("__name__=g,a=1,cloud_region=north,{rest}")]
    );
    // The point has one of that name.
    assert!(labels_of(&plain, &promoted)[0].contains("cloud_region=mine"));
    let all = Options {
        convert_all_attributes: true,
        ..quiet()
    };
    assert_eq!(
        labels_of(
            &gauge(json!([
                attribute("cloud_region", "mine"),
                attribute("service.name", "x")
            ])),
            &all
        ),
        [format!(
            "__name__=g,cloud_region=mine;north,{rest},service_instance_id=i-1,service_name=cart,service_namespace=shop"
        )]
    );
    let scope = Options {
        promote_scope_metadata: true,
        ..quiet()
    };
    assert_eq!(
        labels_of(
            &gauge(json!([attribute("otel_scope_name", "mine")])),
            &scope
        ),
        [format!(
            "__name__=g,{rest},otel_scope_k=v,otel_scope_name=lib,otel_scope_schema_url=http://schema,otel_scope_version=1.2"
        )]
    );
    let nameless = translated(&gauge(json!([attribute("", "x")])), &quiet());
    assert_eq!((nameless.points, nameless.refused), (1, 1));
}

#[test]
fn a_resource_is_told_over_the_time_of_its_points_and_only_if_there_is_more_than_its_identity() {
    let at = |times: &[i64]| -> Value {
        let point =
            |time: &i64| json!({"timeUnixNano": (time * 1_000_000).to_string(), "asInt": 1});
        times.iter().map(point).collect()
    };
    let times = |request: &Value| -> Vec<i64> {
        let all = series_of(&translated(request, &Options::default()));
        let told = all
            .iter()
            .find(|series| series.labels.contains("target_info"));
        told.map_or_else(Vec::new, |told| {
            told.samples.iter().map(|sample| sample.0).collect()
        })
    };
    let gauge = |times: &[i64]| request(json!([{"name": "g", "gauge": {"dataPoints": at(times)}}]));
    assert_eq!(times(&gauge(&[MS])), [MS]);
    assert_eq!(
        times(&gauge(&[MS, MS + 400_000])),
        [MS, MS + 150_000, MS + 300_000, MS + 400_000]
    );
    assert_eq!(times(&gauge(&[0, MS])), [MS], "no time is no time");
    let long = times(&gauge(&[1, MS]));
    assert_eq!((long.len(), long.last()), (1_200, Some(&MS)));
    let mut bare = gauge(&[MS]);
    let attributes = &mut bare["resourceMetrics"][0]["resource"]["attributes"];
    attributes.as_array_mut().unwrap().truncate(3);
    assert!(times(&bare).is_empty());
    bare["resourceMetrics"][0]["resource"]["attributes"] = json!([attribute("cloud.region", "n")]);
    assert!(times(&bare).is_empty(), "nobody could join it");
}

/// The one place that writes protobuf by hand: the same request in both encodings.
#[test]
fn json_is_the_protobuf_that_it_stands_for() {
    use crate::remote_write::encode::{put_bytes, put_double, put_varint};
    let text = json!({
        "unknown": {"deep": [1, {"x": null}]},
        "resourceMetrics": [{"scopeMetrics": [{"metrics": [{
            "name": "n", "unknownField": 3,
            "sum": {"isMonotonic": true, "aggregationTemporality": 2, "dataPoints": [
                {"asDouble": 0.3, "timeUnixNano": 1_700_000_000_123_456_789u64, "asInt": null},
            ]},
        }]}]}],
    });
    let mut from_json = Vec::new();
    to_protobuf(text.to_string().as_bytes(), 1 << 20, &mut from_json).unwrap();
    let message = |put: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        put(&mut out);
        out
    };
    let fixed = |out: &mut Vec<u8>, field, number| put_double(out, field, f64::from_bits(number));
    let point = message(&|out| {
        put_double(out, 4, 0.3);
        fixed(out, 3, 1_700_000_000_123_456_789);
    });
    let sum = message(&|out| {
        put_bytes(out, 1, &point);
        put_varint(out, 2, 2);
        put_varint(out, 3, 1);
    });
    let metric = message(&|out| {
        put_bytes(out, 1, b"n");
        put_bytes(out, 7, &sum);
    });
    let scope = message(&|out| put_bytes(out, 2, &metric));
    let resource = message(&|out| put_bytes(out, 2, &scope));
    let request = message(&|out| put_bytes(out, 1, &resource));
    let options = Options::default();
    let translated = translate(&request, &options).unwrap();
    assert_eq!(translated, translate(&from_json, &options).unwrap());
    let all = series_of(&translated);
    assert_eq!(
        (all[0].labels.as_str(), &all[0].samples),
        ("__name__=n_total", &vec![(MS, 0.3, 0)])
    );
}

/// Go's pdata takes both, so there are senders of both.
#[test]
fn names_of_fields_may_be_in_snake_case() {
    fn snake(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let mut all = serde_json::Map::new();
                for (name, value) in fields {
                    let mut snake_name = String::new();
                    for c in name.chars() {
                        if c.is_ascii_uppercase() {
                            snake_name.push('_');
                        }
                        snake_name.push(c.to_ascii_lowercase());
                    }
                    all.insert(snake_name, snake(value));
                }
                Value::Object(all)
            }
            Value::Array(items) => items.iter().map(snake).collect(),
            other => other.clone(),
        }
    }
    let read = |request: &Value| {
        let mut body = Vec::new();
        to_protobuf(request.to_string().as_bytes(), 1 << 20, &mut body).unwrap();
        // The order of fields is that of their names, which differs.
        series_of(&translate(&body, &quiet()).unwrap())
    };
    let gauge = request(json!([{"name": "g", "gauge": {"dataPoints": [
        {"timeUnixNano": "1000000000", "startTimeUnixNano": "1", "asDouble": 0.5}
    ]}}]));
    for camel in [
        gauge,
        histogram_request(json!({})),
        exponential_request(json!({}), 2),
    ] {
        let snake = snake(&camel);
        assert!(snake.to_string().contains("time_unix_nano"));
        let all = read(&snake);
        assert!(!all.is_empty());
        assert_eq!(all, read(&camel));
    }
    let unknown = json!({"resource_metric": 1, "resource__metrics": 1, "Resource_metrics": 1, "resource_Metrics": 1});
    let mut body = Vec::new();
    to_protobuf(unknown.to_string().as_bytes(), 1 << 20, &mut body).unwrap();
    assert!(body.is_empty(), "unknown names are passed over");
}

#[test]
fn json_that_is_no_request_is_refused_with_its_place() {
    let of = |text: &str| match to_protobuf(text.as_bytes(), 1000, &mut Vec::new()) {
        Err(Error::Json(text)) => text,
        other => panic!("{other:?}"),
    };
    let point = |content: &str| {
        format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"gauge":{{"dataPoints":[{{{content}}}]}}}}]}}]}}]}}"#
        )
    };
    assert!(of("{").contains("line 1"));
    assert!(of("[]").contains("an object"));
    assert!(of("{} {}").contains("trailing"));
    for (content, wanted) in [
        (r#""timeUnixNano":"-1""#, "timeUnixNano is never negative"),
        (r#""timeUnixNano":"x""#, "no whole number (timeUnixNano)"),
        (r#""asInt":1.5"#, "asInt is a whole number"),
        (r#""asDouble":true"#, "boolean"),
        (r#""flags":4294967296"#, "too large for flags"),
        (
            r#""exemplars":[{"traceId":"xy"}]"#,
            "no hexadecimal text (traceId)",
        ),
        (
            r#""attributes":[{"value":{"bytesValue":"?"}}]"#,
            "no base64 (bytesValue)",
        ),
        (r#""attributes":7"#, "attributes is no number"),
    ] {
        let told = of(&point(content));
        assert!(told.contains(wanted), "{content}: {told}");
    }
    let many = format!(r#"{{"resourceMetrics":[{}{{}}]}}"#, "{},".repeat(1000));
    let large = to_protobuf(many.as_bytes(), 1000, &mut Vec::new());
    assert_eq!(large, Err(Error::TooLarge { max: 1000 }));
}

#[test]
fn what_would_come_out_too_large_is_refused() {
    let points: Vec<Value> = (0..200)
        .map(|n| json!({"asInt": n, "timeUnixNano": TIME, "attributes": [attribute("n", &n.to_string())]}))
        .collect();
    let request = request(json!([{"name": "g", "gauge": {"dataPoints": points}}]));
    let mut body = Vec::new();
    to_protobuf(request.to_string().as_bytes(), 1 << 20, &mut body).unwrap();
    let bounded = |bytes_max| {
        translate(
            &body,
            &Options {
                bytes_max,
                ..quiet()
            },
        )
    };
    assert!(bounded(40_000).is_ok());
    let max = 5_000;
    assert_eq!(
        bounded(max),
        Err(Error::Malformed(Malformed::TooMuchText { max }))
    );
}

/// A resource of many attributes whose names or values come to nothing, and many points: each point would look at all of them.
#[test]
fn work_that_leaves_nothing_behind_is_bounded_too() {
    let attributes: Vec<Value> = (0..2_000)
        .map(|n| attribute(&format!("a{n}"), ""))
        .collect();
    let points: Vec<Value> = (0..2_000)
        .map(|_| json!({"asInt": 1, "timeUnixNano": TIME}))
        .collect();
    let request = json!({"resourceMetrics": [{
        "resource": {"attributes": attributes},
        "scopeMetrics": [{"metrics": [{"name": "g", "gauge": {"dataPoints": points}}]}],
    }]});
    let mut body = Vec::new();
    to_protobuf(request.to_string().as_bytes(), 1 << 20, &mut body).unwrap();
    let options = Options {
        convert_all_attributes: true,
        bytes_max: 1 << 20,
        ..quiet()
    };
    assert!(matches!(
        translate(&body, &options),
        Err(Error::Malformed(Malformed::TooMuchText { .. }))
    ));
}

#[test]
fn answers_are_in_the_encoding_of_the_request() {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let nothing = Outcome::default();
    assert!(success(Encoding::Protobuf, &nothing).is_empty());
    assert_eq!(text(success(Encoding::Json, &nothing)), "{}");
    let partial = Outcome {
        rejected: 3,
        message: "a \"b\"".to_owned(),
    };
    assert_eq!(
        text(success(Encoding::Json, &partial)),
        r#"{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"a \"b\""}}"#
    );
    assert_eq!(
        success(Encoding::Protobuf, &partial),
        [b"\x0a\x09\x08\x03\x12\x05".as_slice(), b"a \"b\""].concat()
    );
    assert_eq!(
        text(error(Encoding::Json, 429, "slow")),
        r#"{"code":8,"message":"slow"}"#
    );
    assert_eq!(error(Encoding::Protobuf, 400, "x"), b"\x08\x03\x12\x01x");
}

/// Two bytes of body for an attribute, of which thirty-two are held.
#[test]
fn what_is_held_of_a_point_is_bounded() {
    use crate::remote_write::encode::put_bytes;
    let wrapped = |fields: &[u32], content: &[u8]| {
        fields.iter().fold(content.to_vec(), |inner, field| {
            let mut out = Vec::new();
            put_bytes(&mut out, *field, &inner);
            out
        })
    };
    for tag in [0x3a, 0x2a] {
        let point = [tag, 0].repeat(70_000);
        let mut metric = wrapped(&[1], b"g");
        metric.extend(wrapped(&[1, 5], &point));
        let request = wrapped(&[2, 2, 1], &metric);
        let refused = translate(&request, &Options::default());
        assert!(
            matches!(refused, Err(Error::Malformed(Malformed::TooMany { .. }))),
            "{refused:?}"
        );
    }
}

/// Story: a histogram with an exemplar that is none left `_sum` and `_count` behind and was told as refused.
#[test]
fn each_point_is_told_by_the_records_of_its_series_and_leaves_nothing_when_it_is_refused() {
    let gauge = json!({"name": "g", "gauge": {"dataPoints": [
        {"asInt": 1, "timeUnixNano": "1000000000"}, {"timeUnixNano": "1000000000"}]}});
    let bad = json!({"exemplars": [{"timeUnixNano": "1"}]});
    let histograms = [histogram_request(bad), histogram_request(json!({}))];
    let mut resources: Vec<Value> = vec![request(json!([gauge]))["resourceMetrics"][0].clone()];
    resources.extend(histograms.map(|request| request["resourceMetrics"][0].clone()));
    resources.rotate_left(1);
    let translated = translated(&json!({"resourceMetrics": resources}), &Options::default());
    assert_eq!((translated.points, translated.refused), (4, 2));
    let mut walk = v2::Walk::new(&translated.request);
    let mut counts = vec![0; translated.taken.len()];
    let (mut at, mut outside) = (walk.offset() as u32, 0);
    while walk.next_series().unwrap().is_some() {
        let within = |(begin, end): &(u32, u32)| (*begin..*end).contains(&at);
        match translated.taken.iter().position(within) {
            Some(point) => counts[point] += 1,
            None => outside += 1,
        }
        at = walk.offset() as u32;
    }
    let labels = labels_of(&json!({"resourceMetrics": resources}), &Options::default());
    let infos = labels
        .iter()
        .filter(|labels| labels.contains("target_info"))
        .count();
    assert_eq!(outside, infos, "{labels:?}");
    assert_eq!(counts.iter().sum::<usize>(), labels.len() - infos);
    let buckets = labels
        .iter()
        .filter(|labels| labels.contains("_bucket"))
        .count();
    assert!(counts.contains(&(buckets + 2)), "{counts:?} {labels:?}");
    assert!(counts.contains(&1));
}
