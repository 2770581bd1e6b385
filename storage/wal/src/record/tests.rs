//! Every kind of record survives the round trip; no bytes make the decoder panic.

use model::{CUSTOM_BUCKETS_SCHEMA, CounterReset, FloatHistogram, Histogram, Span};
use reactor::Buffer;

use super::*;
use crate::frame::FrameHeader;
use crate::limits::FRAME_HEADER_BYTES;

/// Writes records into one group and gives the bytes of its records.
fn encode(records: &[Record<'_>]) -> Vec<u8> {
    let mut group = Group::new(Buffer::new(1 << 20), 1, 4096, 0, 1 << 20);
    let (mut staged, mut tenants) = (Staged::default(), Tenants::default());
    for record in records {
        if let Record::Samples(samples) = record {
            samples
                .iter()
                .for_each(|s| group.sample(s.series, s.time, s.value, None));
            continue;
        }
        let room = staged.encode(record).expect("small enough");
        let before = group.len();
        staged.append(record, &mut group, &mut tenants);
        assert!(
            group.len() - before <= room + 64,
            "what is announced suffices"
        );
    }
    group.close();
    let header = FrameHeader {
        len: group.len() as u32,
        sequence: 1,
        core: 0,
        epoch: 1,
        number: 1,
        durable: 0,
        lsn: 0,
        relaxed: false,
        last: false,
    };
    let len = group.len();
    let (buf, _) = group.seal(None, &header);
    buf[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len].to_vec()
}

/// What the decoder makes of bytes, as text, since records borrow.
fn decode(bytes: &[u8]) -> Result<Vec<String>, Stop> {
    let mut seen = Vec::new();
    let mut decoder = Decoder::default();
    decoder.frame(bytes, &mut |record| {
        seen.push(format!("{record:?}"));
        Ok(())
    })?;
    Ok(seen)
}

fn assert_round_trip(records: &[Record<'_>]) {
    let expected: Vec<String> = records.iter().map(|record| format!("{record:?}")).collect();
    assert_eq!(decode(&encode(records)).expect("decodes"), expected);
}

fn labels() -> Labels {
    Labels::from_pairs([("__name__", "up"), ("job", "node"), ("zone", "ä")]).unwrap()
}

fn histogram(schema: i32) -> Histogram {
    Histogram {
        counter_reset: CounterReset::No,
        schema,
        zero_threshold: 1e-128,
        zero_count: 3,
        count: u64::MAX,
        sum: -0.0,
        positive_spans: vec![
            Span {
                offset: -7,
                length: 2,
            },
            Span {
                offset: 3,
                length: 1,
            },
        ],
        positive_deltas: vec![i64::MIN, i64::MAX, -1],
        ..Histogram::default()
    }
}

/// One of each kind, and the odd ones.
fn one_of_each(check: impl FnOnce(&[Record<'_>])) {
    let (tenant, other) = (TenantId::fake(), TenantId::new("other").unwrap());
    let (labels, empty) = (labels(), Labels::empty());
    let series = |series, tenant, labels| {
        Record::Series(SeriesRecord {
            series: SeriesRef(series),
            generation: Generation(u32::MAX),
            id: SeriesId(u128::MAX - 5),
            tenant,
            labels,
        })
    };
    let with_negative = Histogram {
        counter_reset: CounterReset::Gauge,
        negative_spans: vec![Span {
            offset: i32::MAX,
            length: u32::MAX,
        }],
        negative_deltas: vec![5],
        ..histogram(8)
    };
    let custom = Histogram {
        counter_reset: CounterReset::Yes,
        custom_values: vec![0.1, 0.5, f64::INFINITY],
        ..histogram(CUSTOM_BUCKETS_SCHEMA)
    };
    let float = FloatHistogram {
        schema: -4,
        zero_count: 0.5,
        count: f64::MAX,
        sum: f64::NEG_INFINITY,
        positive_spans: vec![Span {
            offset: 0,
            length: 2,
        }],
        positive_counts: vec![1.5, 2.5],
        negative_spans: vec![Span {
            offset: 1,
            length: 1,
        }],
        negative_counts: vec![1e-300],
        ..FloatHistogram::default()
    };
    let float_custom = FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        custom_values: vec![-1.0, 1.0],
        ..FloatHistogram::default()
    };
    let histogram = |histogram| Record::Histogram {
        series: SeriesRef(u32::MAX),
        time: TimeMs::MIN,
        histogram: Cow::Owned(histogram),
    };
    let late_histogram = |histogram| Record::LateHistogram {
        series: SeriesRef(u32::MAX),
        time: TimeMs::MAX,
        histogram: Cow::Owned(histogram),
    };
    let exemplar = Exemplar {
        labels: labels.clone(),
        value: 0.25,
        time: TimeMs(-5),
    };
    let metadata = Metadata {
        kind: MetricType::StateSet,
        help: "What?".into(),
        unit: "s".into(),
    };
    let samples = [
        LoggedSample {
            series: SeriesRef(9),
            time: 5,
            value: 1.0,
        },
        LoggedSample {
            series: SeriesRef(8),
            time: -5,
            value: 0.1,
        },
    ];
    let late = [
        (crate::limits::SERIES_REF_MAX - 1, i64::MIN, f64::MIN),
        (8, i64::MAX, -0.0),
        (9, i64::MAX, 1e-300),
        (0, 0, 12.0),
    ]
    .map(|(series, time, value)| LoggedSample {
        series: SeriesRef(series),
        time,
        value,
    });
    check(&[
        series(0, &tenant, labels.packed()),
        series(u32::MAX, &other, empty.packed()),
        series(7, &tenant, labels.packed()),
        Record::Samples(&samples),
        Record::Chunk(ChunkRecord {
            series: SeriesRef(1),
            first: TimeMs::MIN,
            last: TimeMs::MAX,
            sealed: b"sealed",
        }),
        Record::StoredChunk(crate::StoredChunkRecord {
            series: SeriesRef(u32::MAX),
            first: TimeMs::MIN,
            last: TimeMs::MAX,
            count: u16::MAX,
            file: u32::MAX,
            offset: 64,
            len: u32::MAX,
        }),
        histogram(HistogramSample::Int(with_negative)),
        histogram(HistogramSample::Int(custom)),
        histogram(HistogramSample::Int(Histogram::default())),
        histogram(HistogramSample::Float(float)),
        histogram(HistogramSample::Float(float_custom)),
        Record::LateSamples(&late),
        late_histogram(HistogramSample::Int(Histogram::default())),
        late_histogram(HistogramSample::Float(FloatHistogram::default())),
        Record::Exemplar {
            series: SeriesRef(3),
            exemplar: Cow::Borrowed(&exemplar),
        },
        Record::Metadata {
            tenant: &other,
            metric: "up",
            metadata: Cow::Borrowed(&metadata),
        },
        Record::StartTimestamp {
            series: SeriesRef(3),
            time: TimeMs(10),
            start: TimeMs(-10),
        },
        Record::Samples(&samples[..1]),
        Record::Tombstone(TombstoneRecord {
            tenant: &tenant,
            first: TimeMs(1),
            last: TimeMs(2),
            matchers: vec![
                (MatchOp::Equal, "a", "b"),
                (MatchOp::NotEqual, "a", ""),
                (MatchOp::Regex, "c", ".+"),
                (MatchOp::NotRegex, "d", "x|y"),
            ],
        }),
        Record::Purge {
            series: SeriesRef(u32::MAX),
            first: TimeMs::MIN,
            last: TimeMs::MAX,
        },
        Record::PurgeEnd {
            selectors: u64::MAX,
        },
    ]);
}

#[test]
fn every_kind_survives_the_round_trip() {
    one_of_each(assert_round_trip);
}

#[test]
fn a_tenant_is_named_once_per_file() {
    let tenant = TenantId::new("a-rather-long-name-of-a-tenant").unwrap();
    let labels = labels();
    let record = Record::Series(SeriesRecord {
        series: SeriesRef(1),
        generation: Generation(0),
        id: SeriesId(1),
        tenant: &tenant,
        labels: labels.packed(),
    });
    let (one, two) = (
        encode(std::slice::from_ref(&record)).len(),
        encode(&[record.clone(), record]).len(),
    );
    assert_eq!(two - one, 4 + 1 + 24 + labels.packed().len());
}

#[test]
fn samples_build_on_the_last_value_of_their_series_until_the_file_ends() {
    let mut group = Group::new(Buffer::new(8192), 1, 4096, 0, 8192);
    group.sample(SeriesRef(1), 10, 100.0, None);
    group.sample(SeriesRef(1), 20, 101.0, Some(100.0));
    group.close();
    let len = group.len();
    let buf = group.into_buffer();
    let bytes = &buf[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len];
    let mut decoder = Decoder::default();
    let mut values = Vec::new();
    let mut keep = |record: &Record<'_>| {
        let Record::Samples(samples) = record else {
            panic!("{record:?}")
        };
        values.extend(samples.iter().map(|sample| sample.value));
        Ok(())
    };
    decoder.frame(bytes, &mut keep).unwrap();
    assert_eq!(values, [100.0, 101.0]);

    // The second sample alone has nothing to build on.
    let mut group = Group::new(Buffer::new(8192), 1, 4096, 0, 8192);
    group.sample(SeriesRef(1), 20, 101.0, Some(100.0));
    group.close();
    let len = group.len();
    let buf = group.into_buffer();
    let bytes = &buf[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len];
    decoder
        .frame(bytes, &mut |_| Ok(()))
        .expect("known from the frame before");
    decoder.next_file();
    let stop = decoder.frame(bytes, &mut |_| Ok(())).unwrap_err();
    assert!(matches!(stop, Stop::Fault(reason) if reason.contains("no sample to build on")));
}

#[test]
fn a_histogram_of_too_many_parts_is_refused_when_written() {
    let histogram = Histogram {
        positive_deltas: vec![0; 70_000],
        ..Histogram::default()
    };
    let record = Record::Histogram {
        series: SeriesRef(0),
        time: TimeMs(0),
        histogram: Cow::Owned(HistogramSample::Int(histogram)),
    };
    let refused = Staged::default().encode(&record);
    assert!(matches!(
        refused,
        Err(Error::TooLarge { bytes: 70_000, .. })
    ));
}

#[test]
fn unknown_kinds_lengths_beyond_the_frame_and_left_over_bytes_are_faults() {
    let fault = |bytes: &[u8]| match decode(bytes) {
        Err(Stop::Fault(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(fault(&[17, 0, 0, 0]).contains("unknown record kind 17"));
    assert!(fault(&[3, 0, 0]).contains("cut short"));
    assert!(fault(&[3, 0, 0, 1]).contains("65536 bytes where 0 are left"));
    assert!(fault(&[9, 4, 0, 0, 1, 2, 2, 2]).contains("left over"));
    assert!(fault(&[2, 1, 0, 0, 0]).contains("unknown tenant index"));
    let far = encode(&[Record::Samples(&[LoggedSample {
        series: SeriesRef(u32::MAX),
        time: 0,
        value: 0.0,
    }])]);
    assert!(fault(&far).contains("out of bounds"));
    let late = |series| {
        encode(&[Record::LateSamples(&[LoggedSample {
            series: SeriesRef(series),
            time: 0,
            value: 0.0,
        }])])
    };
    assert!(fault(&late(crate::limits::SERIES_REF_MAX)).contains("out of bounds"));
    let mut building = late(1);
    *building.last_mut().unwrap() &= !8;
    assert!(fault(&building).contains("builds on another"));
    assert!(fault(&[12, 12, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).contains("empty"));
}

/// The checksum of the frame catches flips; should it not, decoding still ends, without a panic.
#[test]
fn flipped_and_cut_records_end_in_records_or_a_fault() {
    one_of_each(|records| {
        let mut bytes = encode(records);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = decode(&bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let count = decode(&bytes).unwrap().len();
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).map_or(0, |seen| seen.len()) < count);
        }
    });
}

#[test]
fn arbitrary_bytes_never_make_the_decoder_panic_nor_allocate_without_bound() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let _ = decode(bytes);
        // The same with a plausible header in front, so that bodies are reached.
        if let Some((&kind, body)) = bytes.split_first() {
            let mut framed = vec![1, 5, 0, 0, 0];
            framed.extend_from_slice(b"fake");
            framed.extend_from_slice(
                &((body.len() as u32) << 8 | u32::from(kind % 12)).to_le_bytes(),
            );
            framed.extend_from_slice(body);
            let _ = decode(&framed);
        }
    });
}
