//! Numbers against Rust's own formatting and Go's known output; documents against a real JSON parser.

use model::{
    CUSTOM_BUCKETS_SCHEMA, Exemplar, FloatHistogram, FloatPoint, HistogramPoint, InstantSample,
    Labels, Metadata, MetricType, QueryValue, RangeSeries, SeriesValue, Span, TimeMs,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    put(&mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn float(value: f64) -> String {
    text(|out| put_float(out, value))
}

fn answer(value: QueryValue) -> Value {
    let bytes: Vec<u8> = Answer::new(value, None, Notes::default())
        .flat_map(|piece| piece.to_vec())
        .collect();
    serde_json::from_slice(&bytes).expect("the pieces make one document")
}

#[test]
fn floats_are_written_as_go_writes_them() {
    let cases = [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (0.1, "0.1"),
        (1.0 / 3.0, "0.3333333333333333"),
        (123456.789, "123456.789"),
        // As a real Prometheus: an exponent outside of [1e-6, 1e21), which was spelled out here once.
        (1e21, "1e+21"),
        (-1.5e300, "-1.5e+300"),
        (1e20, "100000000000000000000"),
        (1e-6, "0.000001"),
        (1.5e16, "15000000000000000"),
        (1e-7, "1e-07"),
        (-1.25e-9, "-1.25e-09"),
        (9007199254740991.0, "9007199254740991"),
        (9007199254740992.0, "9007199254740992"),
        (9007199254740994.0, "9007199254740994"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::NAN, "NaN"),
        (model::stale_nan(), "NaN"),
    ];
    for (value, want) in cases {
        assert_eq!(float(value), want);
    }
    assert_eq!(float(f64::MAX), "1.7976931348623157e+308");
    assert_eq!(float(5e-324), "5e-324");
    // Of scalars Prometheus spells exponents out.
    let scalar = |value| text(|out| number::put_scalar(out, value));
    assert_eq!(scalar(1e21), "1000000000000000000000");
    assert_eq!(scalar(-1.25e-9), "-0.00000000125");
    assert_eq!((scalar(2.0), scalar(f64::NAN)), ("2".into(), "NaN".into()));
    let large = answer(QueryValue::Scalar { t: 0, v: 1e22 });
    assert_eq!(large["data"]["result"][1], "10000000000000000000000");
}

#[test]
fn times_are_seconds_with_all_three_digits_or_none() {
    for (ms, want) in [
        (0, "0"),
        (1_500, "1.500"),
        (1_000, "1"),
        (7, "0.007"),
        (-1, "-0.001"),
        (-2_050, "-2.050"),
        (1_700_000_000_123, "1700000000.123"),
        (i64::MIN, "-9223372036854775.808"),
    ] {
        assert_eq!(text(|out| put_time(out, ms)), want);
    }
}

#[test]
fn strings_are_escaped_where_json_or_javascript_needs_it() {
    let odd = "a\"b\\c\nd\te\r\u{0}\u{1f}\u{7f}\u{2028}\u{2029}\u{2027}€😀</script>";
    let written = text(|out| put_string(out, odd));
    assert_eq!(serde_json::from_str::<String>(&written).unwrap(), odd);
    assert!(!written.contains('\u{2028}') && written.contains("\\u2028\\u2029"));
    assert!(written.contains("\\u0000\\u001f"));
}

#[test]
fn every_kind_of_result_has_its_shape() {
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]).unwrap();
    let metric = json!({"__name__": "up", "job": "a"});
    assert_eq!(
        answer(QueryValue::Scalar { t: 1500, v: 2.5 }),
        json!({"status": "success", "data": {"resultType": "scalar", "result": [1.5, "2.5"]}})
    );
    assert_eq!(
        answer(QueryValue::String {
            t: 0,
            s: "x\"".into()
        })["data"]["result"],
        json!([0, "x\""])
    );
    assert_eq!(
        answer(QueryValue::Vector(vec![InstantSample {
            labels: labels.clone(),
            t: 1000,
            value: SeriesValue::Float(f64::INFINITY),
        }])),
        json!({"status": "success", "data": {"resultType": "vector", "result": [
            {"metric": metric, "value": [1, "+Inf"]}]}})
    );
    assert_eq!(
        answer(QueryValue::Matrix(vec![RangeSeries {
            labels,
            floats: vec![
                FloatPoint { t: 0, v: 1.0 },
                FloatPoint { t: 60_000, v: -0.0 }
            ],
            histograms: vec![],
        }]))["data"]["result"],
        json!([{"metric": metric, "values": [[0, "1"], [60, "-0"]]}])
    );
}

#[test]
fn nothing_is_an_empty_list_and_never_null() {
    assert_eq!(
        answer(QueryValue::Vector(vec![]))["data"]["result"],
        json!([])
    );
    assert_eq!(
        answer(QueryValue::Matrix(vec![]))["data"]["result"],
        json!([])
    );
    assert_eq!(text(|out| put_strings(out, Vec::<String>::new())), "[]");
    assert_eq!(text(|out| put_label_sets(out, &[])), "[]");
}

#[test]
fn notes_and_stats_stand_where_grafana_looks_for_them() {
    let notes = Notes {
        warnings: vec!["w".into()],
        infos: vec!["i".into(), "j".into()],
    };
    let stats = Some("{\"samples\":{}}".to_owned());
    let pieces: Vec<u8> = Answer::new(QueryValue::Scalar { t: 0, v: 0.0 }, stats, notes.clone())
        .flat_map(|piece| piece.to_vec())
        .collect();
    let document: Value = serde_json::from_slice(&pieces).unwrap();
    assert_eq!(document["warnings"], json!(["w"]));
    assert_eq!(document["infos"], json!(["i", "j"]));
    assert_eq!(document["data"]["stats"], json!({"samples": {}}));
    let plain = text(|out| put_success(out, &notes, |out| put_strings(out, ["a", "b"])));
    assert_eq!(
        serde_json::from_str::<Value>(&plain).unwrap(),
        json!({"status": "success", "data": ["a", "b"], "warnings": ["w"], "infos": ["i", "j"]})
    );
    let error = text(|out| put_error(out, "bad_data", "it's \"bad\""));
    assert_eq!(
        serde_json::from_str::<Value>(&error).unwrap(),
        json!({"status": "error", "errorType": "bad_data", "error": "it's \"bad\""})
    );
}

#[test]
fn a_large_matrix_comes_in_pieces_of_bounded_size() {
    let series = |i: usize| RangeSeries {
        labels: Labels::from_pairs([("i", i.to_string())]).unwrap(),
        floats: (0..100)
            .map(|k| FloatPoint {
                t: k * 1000,
                v: i as f64,
            })
            .collect(),
        histograms: vec![],
    };
    let value = QueryValue::Matrix((0..1000).map(series).collect());
    let mut whole = Vec::new();
    let mut count = 0;
    for piece in Answer::new(value, None, Notes::default()) {
        assert!(piece.len() < crate::limits::JSON_PIECE_BYTES + 4096);
        whole.extend_from_slice(&piece);
        count += 1;
    }
    assert!(count > 10, "{count} pieces");
    let document: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(document["data"]["result"].as_array().unwrap().len(), 1000);
    assert_eq!(
        document["data"]["result"][999]["values"][99],
        json!([99, "999"])
    );
}

#[test]
fn metadata_has_the_words_of_prometheus() {
    let help = Metadata {
        kind: MetricType::Counter,
        help: "how many".into(),
        unit: "s".into(),
    };
    let written = text(|out| put_metadata_map(out, [("m", [&help])]));
    assert_eq!(
        serde_json::from_str::<Value>(&written).unwrap(),
        json!({"m": [{"type": "counter", "help": "how many", "unit": "s"}]})
    );
}

#[test]
fn histograms_list_their_buckets_from_low_to_high() {
    let h = FloatHistogram {
        schema: 0,
        zero_threshold: 0.001,
        zero_count: 2.0,
        count: 9.0,
        sum: 18.5,
        positive_spans: vec![
            Span {
                offset: 0,
                length: 2,
            },
            Span {
                offset: 1,
                length: 1,
            },
        ],
        positive_counts: vec![1.0, 0.0, 3.0],
        negative_spans: vec![Span {
            offset: 1,
            length: 2,
        }],
        negative_counts: vec![1.0, 2.0],
        ..FloatHistogram::default()
    };
    let value = QueryValue::Matrix(vec![RangeSeries {
        labels: Labels::empty(),
        floats: vec![],
        histograms: vec![HistogramPoint {
            t: 0,
            h: Box::new(h),
        }],
    }]);
    assert_eq!(
        answer(value)["data"]["result"],
        json!([{"metric": {}, "histograms": [[0, {"count": "9", "sum": "18.5", "buckets": [
            [1, "-4", "-2", "2"], [1, "-2", "-1", "1"], [3, "-0.001", "0.001", "2"],
            [0, "0.5", "1", "1"], [0, "4", "8", "3"]]}]]}])
    );
}

/// Differences of histograms have counts below zero, and a division by zero makes counts that are no numbers. Prometheus lists such buckets
/// but for the zero bucket, and says of the only bucket of a histogram without custom bounds that both its (infinite) bounds belong to it.
#[test]
fn odd_buckets_are_listed_as_prometheus_lists_them() {
    let written = |h: &FloatHistogram| {
        let value = QueryValue::Vector(vec![InstantSample {
            labels: Labels::empty(),
            t: 0,
            value: SeriesValue::Histogram(Box::new(h.clone())),
        }]);
        answer(value)["data"]["result"][0]["histogram"][1]["buckets"].clone()
    };
    let one = |length| vec![Span { offset: 0, length }];
    let mut h = FloatHistogram {
        zero_threshold: 0.75,
        zero_count: -2.0,
        positive_spans: one(1),
        positive_counts: vec![-1.0],
        negative_spans: one(1),
        negative_counts: vec![f64::NAN],
        ..FloatHistogram::default()
    };
    // The buckets next to the zero bucket are cut where it ends.
    let sides = json!([[1, "-1", "-0.75", "NaN"], [0, "0.75", "1", "-1"]]);
    assert_eq!(written(&h), sides);
    h.zero_count = f64::NAN;
    assert_eq!(written(&h), sides);
    let unbounded = FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        positive_spans: one(1),
        positive_counts: vec![100.0],
        ..FloatHistogram::default()
    };
    assert_eq!(written(&unbounded), json!([[3, "-Inf", "+Inf", "100"]]));
}

#[test]
fn custom_buckets_use_their_own_bounds() {
    let h = FloatHistogram {
        schema: model::CUSTOM_BUCKETS_SCHEMA,
        count: 6.0,
        positive_spans: vec![Span {
            offset: 0,
            length: 3,
        }],
        positive_counts: vec![1.0, 2.0, 3.0],
        custom_values: vec![5.0, 10.0],
        ..FloatHistogram::default()
    };
    let sample = InstantSample {
        labels: Labels::empty(),
        t: 0,
        value: SeriesValue::Histogram(Box::new(h)),
    };
    assert_eq!(
        answer(QueryValue::Vector(vec![sample]))["data"]["result"][0]["histogram"][1]["buckets"],
        json!([
            [3, "-Inf", "5", "1"],
            [0, "5", "10", "2"],
            [0, "10", "+Inf", "3"]
        ])
    );
}

/// The fewest digits that read back the same, ties to even as in Go, found by trying, and written without an exponent from 1e-6 up to 1e21. (Rust's own
/// `Display` breaks such ties upwards: -1722279240543294.25 becomes ..3 there and ..2 in Go.)
fn slow_reference(value: f64) -> String {
    let scientific = (0..17)
        .map(|digits| format!("{value:.digits$e}"))
        .find(|text| text.parse::<f64>().unwrap().to_bits() == value.to_bits())
        .expect("17 digits are enough for every float");
    let (mantissa, exponent) = scientific.split_once('e').unwrap();
    let exponent: i32 = exponent.parse().unwrap();
    if !(-6..21).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let sign = if mantissa.starts_with('-') { "-" } else { "" };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let (whole, fraction) = if exponent < 0 {
        (
            "0".to_owned(),
            "0".repeat((-exponent - 1) as usize) + &digits,
        )
    } else {
        let places = exponent as usize + 1;
        let padded = format!("{digits:0<places$}");
        (padded[..places].to_owned(), padded[places..].to_owned())
    };
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

#[test]
fn ties_between_two_shortest_texts_go_to_the_even_digit_as_in_go() {
    let halfway = -(6_889_116_962_173_177_f64 / 4.0);
    assert_eq!(float(halfway), "-1722279240543294.2");
}

#[test]
fn exemplars_are_grouped_below_their_series() {
    let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
    let exemplar = Exemplar {
        labels: labels(&[("trace_id", "abc")]),
        value: 0.5,
        time: TimeMs(1_500),
    };
    let up = labels(&[("__name__", "up")]);
    let list = [exemplar];
    assert_eq!(
        text(|out| put_exemplars(out, [(&up, &list[..])])),
        r#"[{"seriesLabels":{"__name__":"up"},"exemplars":[{"labels":{"trace_id":"abc"},"value":"0.5","timestamp":1.500}]}]"#
    );
    assert_eq!(text(|out| put_exemplars(out, [])), "[]");
}

proptest! {
    #[test]
    fn any_float_is_written_like_the_slow_reference(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        prop_assert_eq!(float(value), slow_reference(value));
    }

    #[test]
    fn common_floats_are_written_like_the_slow_reference(cents in any::<i32>(), scale in -12i32..20) {
        let value = f64::from(cents) * 10f64.powi(scale);
        prop_assert_eq!(float(value), slow_reference(value));
    }

    #[test]
    fn any_string_is_read_back_the_same(s in any::<String>()) {
        let written = text(|out| put_string(out, &s));
        prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), s);
    }
}

#[test]
fn a_long_list_comes_in_pieces_that_are_one_document() {
    let texts: Vec<String> = (0..50_000).map(|n| format!("value \"{n}\"")).collect();
    let notes = Notes {
        warnings: vec!["cut".to_owned()],
        infos: Vec::new(),
    };
    let put = |out: &mut Vec<u8>, text: &String| put_string(out, text);
    let pieces: Vec<_> = ListAnswer::new(texts.clone(), put, notes).collect();
    assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.len() < 70_000));
    let whole: Vec<u8> = pieces.into_iter().flatten().collect();
    let json: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(json["data"], serde_json::json!(texts));
    assert_eq!(json["warnings"][0], "cut");
    let empty: Vec<_> = ListAnswer::new(Vec::new(), put, Notes::default()).collect();
    assert_eq!(empty.concat(), b"{\"status\":\"success\",\"data\":[]}");
}
