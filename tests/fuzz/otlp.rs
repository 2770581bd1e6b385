//! The translation of OTLP. Bytes from anybody; what comes out must be a write request that the next decoder takes.

use bolero::check;
use wire::otlp::{self, Options};
use wire::remote_write::{v1, v2};

use super::INPUTS;

/// What comes out may take this much.
const BYTES_MAX: usize = 64 * 1024;

/// Translates under all options, and reads what came of it to the end.
fn translate(body: &[u8]) {
    for switched in [false, true] {
        let options = Options {
            add_metric_suffixes: !switched,
            disable_target_info: switched,
            allow_delta_temporality: switched,
            convert_all_attributes: switched,
            convert_histograms_to_nhcb: switched,
            promote_scope_metadata: switched,
            promote_resource_attributes: vec!["a".to_owned()],
            bytes_max: BYTES_MAX,
        };
        let Ok(translated) = otlp::translate(body, &options) else {
            continue;
        };
        assert!(translated.refused <= translated.points);
        assert_eq!(translated.refusal.is_some(), translated.refused > 0);
        assert!(translated.request.len() <= BYTES_MAX + 64);
        let request = translated.request.as_slice();
        let mut symbols = v2::Symbols::default();
        symbols.read(request).expect("symbols that can be read");
        let mut walk = v2::Walk::new(request);
        while let Some(series) = walk.next_series().expect("series that can be read") {
            let labels = v2::labels(series.reference_bytes(), request, &symbols)
                .collect::<Result<Vec<_>, _>>()
                .expect("labels that can be read");
            assert!(
                labels.is_sorted_by(|a, b| a.0 < b.0),
                "each name once, in order"
            );
            assert!(labels.iter().all(|label| !label.1.is_empty()));
            let mut parts = series.parts();
            while parts.next_part().expect("parts that can be read").is_some() {}
        }
        let mut walk = v1::Walk::new(&translated.metadata);
        while walk
            .next_record()
            .expect("metadata that can be read")
            .is_some()
        {}
    }
}

#[test]
fn otlp_of_any_bytes() {
    let check = check!().with_iterations(INPUTS).with_max_len(2000);
    check.for_each(|bytes: &[u8]| {
        translate(bytes);
        let mut out = Vec::new();
        if otlp::to_protobuf(bytes, BYTES_MAX, &mut out).is_ok() {
            assert!(out.len() <= BYTES_MAX);
            translate(&out);
        }
    });
}

/// A request with everything in it.
const WHOLE: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[
{"key":"service.name","value":{"stringValue":"s"}},{"key":"a","value":{"arrayValue":{"values":[{"intValue":1},{"doubleValue":2.5}]}}},
{"key":"m","value":{"kvlistValue":{"values":[{"key":"k","value":{"bytesValue":"aGk="}}]}}}]},
"scopeMetrics":[{"scope":{"name":"n","version":"v","attributes":[{"key":"b","value":{"boolValue":true}}]},"metrics":[
{"name":"g","unit":"By","description":"d","gauge":{"dataPoints":[{"asInt":"7","timeUnixNano":"1700000000000000000"}]}},
{"name":"s","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"asDouble":0.5,"flags":1,"startTimeUnixNano":"1","timeUnixNano":"1700000000000000000",
"exemplars":[{"asInt":1,"traceId":"0102","filteredAttributes":[{"key":"x","value":{"stringValue":"y"}}]}]}]}},
{"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[{"count":3,"sum":2,"bucketCounts":[1,0,2],"explicitBounds":[1,2],"timeUnixNano":"1700000000000000000"}]}},
{"name":"e","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"count":6,"scale":12,"zeroCount":1,"positive":{"offset":-3,"bucketCounts":[1,2]},"negative":{"offset":9,"bucketCounts":[2]}}]}},
{"name":"q","summary":{"dataPoints":[{"count":1,"sum":1,"quantileValues":[{"quantile":0.5,"value":1}]}]}}]}]}]}"#;

#[test]
fn otlp_then_damaged() {
    let mut whole = Vec::new();
    otlp::to_protobuf(WHOLE.as_bytes(), BYTES_MAX, &mut whole).expect("it is right");
    let translated = otlp::translate(&whole, &Options::default()).expect("it is right");
    assert_eq!((translated.points, translated.refused), (5, 0));
    check!()
        .with_type::<Vec<(u16, u8)>>()
        .with_iterations(INPUTS)
        .with_max_len(200)
        .for_each(|damage| {
            let mut body = whole.clone();
            let mut text = WHOLE.as_bytes().to_vec();
            for (at, flip) in damage {
                let (in_body, in_text) =
                    (usize::from(*at) % body.len(), usize::from(*at) % text.len());
                body[in_body] ^= flip;
                text[in_text] ^= flip;
            }
            translate(&body);
            translate(&body[..body.len() / 2]);
            let mut out = Vec::new();
            if otlp::to_protobuf(&text, BYTES_MAX, &mut out).is_ok() {
                translate(&out);
            }
        });
}
