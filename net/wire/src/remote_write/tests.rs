//! The walk against a slow reference that copies everything; hostile bytes; hand-made messages in unusual order.

use model::{
    CounterReset, FloatHistogram, Histogram, HistogramError, HistogramSample, Metadata, MetricType,
    Span, varint,
};
use proptest::prelude::*;

use super::histogram;
use super::v1::{Part, RawSeries, Record, Walk, labels};
use super::{encode, exemplar};
use crate::Malformed;

/// A series with everything owned.
#[derive(Debug, Clone, PartialEq, Default)]
struct Series {
    labels: Vec<(Vec<u8>, Vec<u8>)>,
    samples: Vec<(i64, u64)>,
    histograms: usize,
    exemplars: usize,
}

/// What the walk makes of a body; labels that are not one run are gathered.
fn walk(body: &[u8]) -> Result<(Vec<Series>, usize), String> {
    let mut walk = Walk::new(body);
    let (mut series, mut metadata) = (Vec::new(), 0);
    while let Some(record) = walk.next_record().map_err(|e| e.to_string())? {
        match record {
            Record::Series(raw) => series.push(own(&raw).map_err(|e| e.to_string())?),
            Record::Metadata(_) => metadata += 1,
        }
    }
    Ok((series, metadata))
}

fn own(raw: &RawSeries<'_>) -> Result<Series, Malformed> {
    let mut series = Series::default();
    let mut scattered = false;
    let mut parts = raw.parts();
    while let Some(part) = parts.next_part()? {
        match part {
            Part::Sample { time, value } => series.samples.push((time, value.to_bits())),
            Part::Histogram(_) => series.histograms += 1,
            Part::Exemplar(_) => series.exemplars += 1,
            Part::Label(_) => scattered = true,
        }
    }
    let mut gathered = raw.label_bytes().to_vec();
    if scattered {
        raw.gather_labels(&mut gathered)?;
    }
    for label in labels(&gathered) {
        let (name, value) = label?;
        series.labels.push((name.to_vec(), value.to_vec()));
    }
    Ok(series)
}

/// The same by a parser that knows no shortcuts: every message becomes a list of fields first.
mod reference {
    use super::Series;

    #[derive(Debug)]
    pub(super) enum Value {
        Varint(u64),
        Fixed(u64),
        Fixed32,
        Bytes(Vec<u8>),
    }

    pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value)>> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            if tag >> 3 == 0 || tag >> 3 >= 1 << 29 {
                return None;
            }
            let value = match tag & 7 {
                0 => Value::Varint(varint(&mut bytes)?),
                1 => Value::Fixed(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
                2 => {
                    let len = varint(&mut bytes)?;
                    Value::Bytes(take(&mut bytes, usize::try_from(len).ok()?)?.to_vec())
                }
                5 => {
                    take(&mut bytes, 4)?;
                    Value::Fixed32
                }
                _ => return None,
            };
            all.push((tag >> 3, value));
        }
        Some(all)
    }

    fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (head, tail) = bytes.split_at_checked(len)?;
        *bytes = tail;
        Some(head)
    }

    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0u128;
        for shift in 0..10 {
            let byte = take(bytes, 1)?[0];
            value |= u128::from(byte & 0x7f) << (7 * shift);
            if byte < 0x80 {
                return u64::try_from(value).ok();
            }
        }
        None
    }

    pub(super) fn series(message: &[u8]) -> Option<Series> {
        let mut series = Series::default();
        for (field, value) in fields(message)? {
            match (field, value) {
                (1, Value::Bytes(label)) => {
                    let (mut name, mut text) = (Vec::new(), Vec::new());
                    for (field, value) in fields(&label)? {
                        match (field, value) {
                            (1, Value::Bytes(bytes)) => name = bytes,
                            (2, Value::Bytes(bytes)) => text = bytes,
                            (1 | 2, _) => return None,
                            _ => {}
                        }
                    }
                    series.labels.push((name, text));
                }
                (2, Value::Bytes(sample)) => {
                    let (mut time, mut bits) = (0, 0);
                    for (field, value) in fields(&sample)? {
                        match (field, value) {
                            (1, Value::Fixed(fixed)) => bits = fixed,
                            (2, Value::Varint(varint)) => time = varint as i64,
                            (1 | 2, _) => return None,
                            _ => {}
                        }
                    }
                    series.samples.push((time, bits));
                }
                (3, Value::Bytes(_)) => series.exemplars += 1,
                (4, Value::Bytes(_)) => series.histograms += 1,
                (1..=4, _) => return None,
                _ => {}
            }
        }
        Some(series)
    }
}

fn field(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    varint::put_u64(out, u64::from(number) << 3 | 2);
    varint::put_u64(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn label(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, 1, name);
    field(&mut out, 2, value);
    out
}

fn sample(time: i64, value: f64) -> Vec<u8> {
    let mut out = vec![9];
    out.extend(value.to_bits().to_le_bytes());
    out.push(16);
    varint::put_u64(&mut out, time as u64);
    out
}

fn request(series: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, 1, series);
    out
}

#[test]
fn what_the_encoder_writes_is_what_the_walk_reads() {
    let mut body = Vec::new();
    let pairs = [("__name__", "up"), ("job", "node"), ("empty", "")];
    encode::put_series(
        &mut body,
        pairs.into_iter(),
        &[
            (1, 1.5),
            (-5, f64::NAN),
            (1_700_000_000_000, 2.5),
            (i64::MAX, -0.0),
        ],
    );
    let help = Metadata {
        kind: MetricType::Gauge,
        help: "h".into(),
        unit: "".into(),
    };
    encode::put_metadata(&mut body, "up", &help);
    let (series, metadata) = walk(&body).unwrap();
    assert_eq!(metadata, 1);
    assert_eq!(
        series,
        [Series {
            labels: pairs.map(|(n, v)| (n.into(), v.into())).to_vec(),
            samples: vec![
                (1, 1.5f64.to_bits()),
                (-5, f64::NAN.to_bits()),
                (1_700_000_000_000, 2.5f64.to_bits()),
                (i64::MAX, (-0.0f64).to_bits())
            ],
            ..Series::default()
        }]
    );
}

#[test]
fn metadata_is_read_field_by_field() {
    let mut body = Vec::new();
    let help = Metadata {
        kind: MetricType::Counter,
        help: "help".into(),
        unit: "s".into(),
    };
    encode::put_metadata(&mut body, "m_total", &help);
    let Ok(Some(Record::Metadata(raw))) = Walk::new(&body).next_record() else {
        panic!("no metadata");
    };
    assert_eq!(
        (raw.kind, raw.metric, raw.help, raw.unit),
        (1, &b"m_total"[..], &b"help"[..], &b"s"[..])
    );
}

#[test]
fn the_label_bytes_are_the_run_of_labels_and_nothing_else() {
    let mut message = Vec::new();
    field(&mut message, 1, &label(b"__name__", b"x"));
    field(&mut message, 1, &label(b"a", b"b"));
    let labels_len = message.len();
    field(&mut message, 2, &sample(7, 1.0));
    let body = request(&message);
    let Ok(Some(Record::Series(series))) = Walk::new(&body).next_record() else {
        panic!("no series");
    };
    assert_eq!(series.label_bytes(), &message[..labels_len]);
}

#[test]
fn labels_behind_samples_are_gathered_to_the_same_bytes() {
    let (mut in_order, mut scattered) = (Vec::new(), Vec::new());
    field(&mut in_order, 1, &label(b"__name__", b"x"));
    field(&mut in_order, 1, &label(b"a", b"b"));
    let wanted = in_order.clone();
    field(&mut in_order, 2, &sample(7, 1.0));
    field(&mut scattered, 1, &label(b"__name__", b"x"));
    field(&mut scattered, 2, &sample(7, 1.0));
    field(&mut scattered, 77, b"unknown");
    field(&mut scattered, 1, &label(b"a", b"b"));
    let body = request(&scattered);
    let Ok(Some(Record::Series(series))) = Walk::new(&body).next_record() else {
        panic!("no series");
    };
    let mut gathered = Vec::new();
    series.gather_labels(&mut gathered).unwrap();
    assert_eq!(gathered, wanted);
    assert_eq!(walk(&body), walk(&request(&in_order)));
}

#[test]
fn fields_in_any_order_defaults_and_unknown_fields_are_understood() {
    let mut message = Vec::new();
    field(&mut message, 2, &[]);
    field(&mut message, 2, &[0x10, 5]);
    field(&mut message, 2, &[0x10, 1, 0x10, 6, 0x18, 9]);
    field(&mut message, 1, &[0x12, 1, b'v', 0x0a, 1, b'n', 0x18, 3]);
    let mut body = request(&message);
    field(&mut body, 100, b"skipped");
    let series = walk(&body).unwrap().0;
    assert_eq!(series[0].samples, [(0, 0), (5, 0), (6, 0)]);
    assert_eq!(series[0].labels, [(b"n".to_vec(), b"v".to_vec())]);
}

#[test]
fn every_cut_of_a_body_is_refused_or_ends_between_records() {
    let mut body = Vec::new();
    let mut ends = vec![0];
    for i in 0..3 {
        let value = "v".repeat(200);
        let pairs = [("__name__", "up"), ("long", value.as_str())];
        let time = 1_700_000_000_000 + i;
        encode::put_series(&mut body, pairs.into_iter(), &[(time, 1.0), (i, 2.0)]);
        ends.push(body.len());
    }
    for cut in 0..body.len() {
        let result = walk(&body[..cut]);
        assert_eq!(
            result.is_ok(),
            ends.contains(&cut),
            "cut at {cut}: {result:?}"
        );
    }
}

#[test]
fn an_error_names_the_record_it_is_in() {
    let mut body = request(&[]);
    let begin = body.len();
    body.extend([0x0a, 5, 1]);
    let error = walk(&body).unwrap_err();
    assert!(error.contains(&format!("byte {begin}")), "{error}");
}

#[test]
fn a_series_with_the_wire_type_of_another_field_is_refused() {
    assert!(walk(&[0x08, 1]).unwrap_err().contains("wire type"));
    assert!(
        walk(&request(&[0x08, 1]))
            .unwrap_err()
            .contains("wire type")
    );
    assert!(
        walk(&request(&[0x12, 2, 0x08, 1]))
            .unwrap_err()
            .contains("wire type")
    );
}

#[test]
fn exemplars_decode_with_their_labels() {
    let mut message = Vec::new();
    field(&mut message, 1, &label(b"trace_id", b"abc"));
    message.push(0x11);
    message.extend(0.5f64.to_bits().to_le_bytes());
    message.extend([0x18, 7]);
    let exemplar = exemplar::decode(&message).unwrap();
    assert_eq!(exemplar.labels.get("trace_id"), Some("abc"));
    assert_eq!((exemplar.value, exemplar.time.0), (0.5, 7));
    let mut bad = Vec::new();
    field(&mut bad, 1, &label(b"trace_id", b"\xff"));
    assert!(exemplar::decode(&bad).is_err());
}

fn int_histogram() -> Histogram {
    Histogram {
        counter_reset: CounterReset::No,
        schema: -2,
        zero_threshold: 1e-9,
        zero_count: 3,
        count: 22,
        sum: -7.5,
        positive_spans: vec![
            Span {
                offset: -3,
                length: 2,
            },
            Span {
                offset: 4,
                length: 1,
            },
        ],
        positive_deltas: vec![5, -2, 7],
        negative_spans: vec![Span {
            offset: 0,
            length: 1,
        }],
        negative_deltas: vec![1],
        custom_values: vec![],
    }
}

fn histogram_round_trip(
    sample: HistogramSample,
) -> Result<(i64, HistogramSample), histogram::Error> {
    let mut body = Vec::new();
    let pairs = [("__name__", "h")];
    encode::put_series_with(&mut body, pairs.into_iter(), &[], &[(-9, sample)]);
    let Ok(Some(Record::Series(series))) = Walk::new(&body).next_record() else {
        panic!("no series");
    };
    let Ok(Some(Part::Histogram(message))) = series.parts().next_part() else {
        panic!("no histogram");
    };
    histogram::decode(message)
}

#[test]
fn both_kinds_of_histograms_survive_the_round_trip() {
    let int = HistogramSample::Int(int_histogram());
    assert_eq!(histogram_round_trip(int.clone()), Ok((-9, int)));
    let float = HistogramSample::Float(int_histogram().to_float().unwrap());
    assert_eq!(histogram_round_trip(float.clone()), Ok((-9, float)));
    let custom = HistogramSample::Float(FloatHistogram {
        schema: model::CUSTOM_BUCKETS_SCHEMA,
        positive_spans: vec![Span {
            offset: 0,
            length: 2,
        }],
        positive_counts: vec![1.0, 2.0],
        custom_values: vec![0.5, 1.0],
        ..FloatHistogram::default()
    });
    assert_eq!(histogram_round_trip(custom.clone()), Ok((-9, custom)));
}

#[test]
fn inconsistent_histograms_are_refused_with_their_reason() {
    let refused = |change: fn(&mut Histogram)| {
        let mut h = int_histogram();
        change(&mut h);
        histogram_round_trip(HistogramSample::Int(h)).unwrap_err()
    };
    assert_eq!(refused(|h| h.schema = 9), HistogramError::Schema(9).into());
    assert_eq!(
        refused(|h| h.positive_spans[0].length = u32::MAX),
        HistogramError::SpanMismatch {
            buckets: 3,
            spanned: u64::from(u32::MAX) + 1
        }
        .into()
    );
    assert_eq!(
        refused(|h| h.positive_deltas[1] = -6),
        HistogramError::NegativeCount.into()
    );
    // Observations of NaN are in no bucket, and make the sum NaN.
    let count = |found, count| histogram::Error::Count { found, count };
    assert_eq!(refused(|h| h.count = 23), count(22, 23));
    assert_eq!(refused(|h| h.count = 21), count(22, 21));
    let with_nan = |count| {
        let mut h = int_histogram();
        (h.sum, h.count) = (f64::NAN, count);
        histogram_round_trip(HistogramSample::Int(h)).map(drop)
    };
    assert_eq!(with_nan(23), Ok(()));
    assert_eq!(with_nan(21), Err(count(22, 21)));
    for change in [(|h| h.count = -1.0) as fn(&mut FloatHistogram), |h| {
        h.zero_count = -1.0
    }] {
        let mut h = int_histogram().to_float().unwrap();
        change(&mut h);
        assert_eq!(
            histogram_round_trip(HistogramSample::Float(h)).unwrap_err(),
            HistogramError::NegativeCount.into()
        );
    }
    assert_eq!(
        refused(|h| h.positive_spans[1].offset = -1),
        histogram::Error::SpanOffset
    );
    assert_eq!(
        refused(|h| h.custom_values = vec![1.0]),
        histogram::Error::CustomBounds
    );
    let unsorted = |h: &mut Histogram| {
        h.schema = model::CUSTOM_BUCKETS_SCHEMA;
        h.custom_values = vec![2.0, 1.0];
    };
    assert_eq!(refused(unsorted), histogram::Error::CustomBounds);
    let custom = |h: &mut Histogram| {
        *h = Histogram {
            schema: model::CUSTOM_BUCKETS_SCHEMA,
            custom_values: vec![1.0, 2.0],
            positive_spans: vec![Span {
                offset: 1,
                length: 3,
            }],
            positive_deltas: vec![0; 3],
            ..Histogram::default()
        };
    };
    let custom_refused = |change: fn(&mut Histogram)| {
        let mut h = int_histogram();
        custom(&mut h);
        change(&mut h);
        histogram_round_trip(HistogramSample::Int(h)).unwrap_err()
    };
    let beyond = histogram::Error::BeyondBounds { bounds: 2 };
    assert_eq!(custom_refused(|_| {}), beyond);
    assert_eq!(custom_refused(|h| h.positive_spans[0].offset = -1), beyond);
    assert_eq!(
        custom_refused(|h| (h.positive_spans[0].offset, h.zero_threshold) = (0, 0.5)),
        histogram::Error::CustomSides
    );
    let many = vec![0; 70_000];
    let mut h = int_histogram();
    (h.negative_spans, h.negative_deltas) = (
        vec![Span {
            offset: 0,
            length: 70_000,
        }],
        many,
    );
    assert_eq!(
        histogram_round_trip(HistogramSample::Int(h)).unwrap_err(),
        histogram::Error::TooManyParts { max: 65_536 }
    );
}

/// Messages of plausible fields in any order, some of them broken.
/// Any time, half of them of our days, which are read another way.
fn time() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), 1i64 << 35..1 << 42]
}

fn message(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let leaf = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..12),
        2 => (time(), any::<f64>()).prop_map(|(t, v)| sample(t, v)),
        2 => ("[a-c]{0,3}", "[a-c]{0,3}").prop_map(|(n, v)| label(n.as_bytes(), v.as_bytes())),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let fields = prop::collection::vec((1u8..6, any::<bool>(), message(depth - 1)), 0..5);
    let nested = fields.prop_map(|fields| {
        let mut out = Vec::new();
        for (number, raw, content) in fields {
            match raw && content.len() < 3 {
                true => out.extend(content),
                false => field(&mut out, number, &content),
            }
        }
        out
    });
    prop_oneof![1 => leaf, 4 => nested].boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_walk_reads_a_series_exactly_as_the_slow_reference(series in message(2)) {
        let got = walk(&request(&series)).ok().map(|(all, _)| all);
        let want = reference::series(&series).map(|one| vec![one]);
        // The reference knows no groups; a body that has some may be read by the walk alone.
        if want.is_some() || reference::fields(&series).is_some() {
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = walk(&bytes);
        let _ = walk(&request(&bytes));
        let _ = histogram::decode(&bytes);
        let _ = exemplar::decode(&bytes);
        let _: Vec<_> = labels(&bytes).collect();
    }

    #[test]
    fn labels_in_any_encoding_are_read_as_sent(
        pairs in prop::collection::vec((".{0,9}", ".{0,200}"), 0..12),
        samples in prop::collection::vec((time(), any::<f64>()), 0..4),
    ) {
        let mut body = Vec::new();
        let iter = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        encode::put_series(&mut body, iter, &samples);
        let (series, _) = walk(&body).unwrap();
        let want: Vec<_> =
            pairs.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        prop_assert_eq!(&series[0].labels, &want);
        let bits = samples.iter().map(|(time, value)| (*time, value.to_bits()));
        prop_assert_eq!(&series[0].samples, &bits.collect::<Vec<_>>());
    }
}
