//! What is sent arrives as it was; what could not have been sent is an error.

use model::{Generation, Histogram};
use prost::Message;

use super::*;

fn tenant() -> TenantId {
    TenantId::new("t").unwrap()
}

fn key(series: u32) -> SeriesKey {
    SeriesKey {
        series: SeriesRef(series),
        generation: Generation(7),
    }
}

fn place(_: u64) -> u16 {
    3
}

fn histogram(count: u64) -> Box<HistogramSample> {
    Box::new(HistogramSample::Int(Histogram {
        zero_count: count,
        count,
        sum: 1.5,
        ..Histogram::default()
    }))
}

fn exemplar() -> Exemplar {
    Exemplar {
        labels: Labels::from_pairs([("trace_id", "x")]).unwrap(),
        value: 2.0,
        time: TimeMs(11),
    }
}

/// Two known samples, two fresh series of three samples, and one of everything else.
fn push() -> Push {
    let mut fresh = FreshSamples {
        times: vec![1, 2, 3],
        values: vec![1.0, f64::from_bits(0x7ff0_0000_0000_0002), -0.0],
        ..FreshSamples::default()
    };
    for (name, samples_end) in [("a", 1), ("b", 3)] {
        let labels = Labels::from_pairs([("__name__", name)]).unwrap();
        fresh.labels.extend_from_slice(labels.packed());
        fresh.series.push(FreshSeries {
            id: identity::series_id(&tenant(), labels.packed(), &mut Vec::new()),
            labels_end: fresh.labels.len() as u32,
            samples_end,
        });
    }
    let start = CounterStart {
        start: 5,
        zero: Zero::Histogram(histogram(0)),
    };
    Push {
        tenant: tenant(),
        limits: Arc::new(model::TenantLimits::unlimited()),
        known: KnownSamples {
            keys: vec![key(1), key(u32::MAX - 1)],
            times: vec![-10, i64::MAX],
            values: vec![0.5, f64::NEG_INFINITY],
        },
        fresh,
        others: OtherSamples {
            known: vec![
                OtherSample {
                    series: key(1),
                    before: 1,
                    time: 9,
                    value: OtherValue::Histogram(histogram(4)),
                },
                OtherSample {
                    series: key(1),
                    before: 2,
                    time: 11,
                    value: OtherValue::Exemplar(Box::new(exemplar())),
                },
            ],
            fresh: vec![OtherSample {
                series: 1,
                before: 3,
                time: 12,
                value: OtherValue::Start(start),
            }],
        },
        credits: 0,
        reply: Box::new(|_| ()),
    }
}

fn shown(samples: &Samples) -> String {
    let bits: Vec<u64> = samples.fresh.values.iter().map(|v| v.to_bits()).collect();
    format!("{samples:?} {bits:?}")
}

#[test]
fn a_part_arrives_as_it_was_sent() {
    let sent = push();
    let wanted = Samples {
        known: KnownSamples {
            keys: sent.known.keys.clone(),
            times: sent.known.times.clone(),
            values: sent.known.values.clone(),
        },
        fresh: FreshSamples {
            series: sent.fresh.series.clone(),
            labels: sent.fresh.labels.clone(),
            times: sent.fresh.times.clone(),
            values: sent.fresh.values.clone(),
        },
        others: push().others,
    };
    let part = part_to(3, 100, sent);
    assert_eq!((part.core, part.credits), (3, 100));
    let part = proto::PushPart::decode(&*part.encode_to_vec()).unwrap();
    let arrived = part_of(&tenant(), part.clone(), AS_GIVEN, place).unwrap();
    assert_eq!(shown(&arrived), shown(&wanted));
}

#[test]
fn a_part_that_no_distributor_sends_is_an_error_that_says_why() {
    type Spoil = fn(&mut proto::PushPart);
    let cases: [(Spoil, &str); 9] = [
        (|p| p.times.truncate(1), "different lengths"),
        (|p| p.fresh_values.truncate(1), "different lengths"),
        (|p| p.labels_end[0] = 9999, "labels end"),
        (|p| p.labels_end[0] -= 1, ""),
        (|p| p.samples_end[1] = 2, "of no series"),
        (|p| p.samples_end[0] = 9, "samples end"),
        (|p| p.core = 2, "belongs to core 3"),
        (|p| p.known_others[1].before = 3, "behind the last sample"),
        (|p| p.fresh_others[0].series = 2, "not there"),
    ];
    for (number, (spoil, reason)) in cases.into_iter().enumerate() {
        let mut part = part_to(3, 0, push());
        spoil(&mut part);
        let wrong = part_of(&tenant(), part, AS_GIVEN, place).unwrap_err();
        assert!(wrong.contains(reason), "case {number}: {wrong}");
    }
    let mut part = part_to(3, 0, push());
    part.known_others.swap(0, 1);
    assert!(part_of(&tenant(), part, AS_GIVEN, place).is_err());
}

#[test]
fn bytes_of_any_kind_are_an_error_or_a_part() {
    let bytes = part_to(3, 0, push()).encode_to_vec();
    for at in 0..bytes.len() {
        for flip in [1, 0x10, 0x80] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            if let Ok(part) = proto::PushPart::decode(&*bytes)
                && let Ok(samples) = part_of(&tenant(), part, AS_GIVEN, place)
            {
                let ends = samples.fresh.series.last().map_or(0, |s| s.samples_end);
                assert_eq!(ends as usize, samples.fresh.times.len());
            }
        }
    }
}

fn outcome() -> PushOutcome {
    PushOutcome {
        refused: None,
        stored: 1,
        repeated: 2,
        late: 3,
        histograms: 4,
        histograms_repeated: 5,
        exemplars: 6,
        starts_ignored: 7,
        exemplars_dropped: vec![("exemplar_out_of_order", 8)],
        rejected: vec![Rejection {
            reason: RejectReason::TooOld,
            count: 9,
            first: (Labels::from_pairs([("a", "b")]).unwrap(), -1, 2.5),
            limit: 10,
            first_index: 1,
        }],
        dead: vec![1],
        dead_others: vec![0],
        keys: vec![Some(key(0)), None],
        refused_series: vec![(1, RejectReason::PerUserSeriesLimit)],
    }
}

#[test]
fn an_outcome_arrives_as_it_was() {
    let sent = Sent::of(&push());
    let arrived = outcome_of("n", sent, outcome_to(outcome(), AS_GIVEN)).unwrap();
    assert_eq!(format!("{arrived:?}"), format!("{:?}", outcome()));
    let refused = PushOutcome {
        refused: Some(Refusal::NoMemory),
        ..PushOutcome::default()
    };
    let arrived = outcome_of("n:1", sent, outcome_to(refused, AS_GIVEN)).unwrap();
    let text = arrived.refused.unwrap().to_string();
    assert!(text.starts_with("ingester n:1: the node is at"), "{text}");
    for (reason, _) in REASONS {
        assert_eq!(reason_of(reason_to(reason)), Ok(reason));
    }
}

/// Story: a push named the incarnation whose keys it had, and the next push after a restart had keys of the old one in the name of the new.
#[test]
fn keys_come_back_to_the_process_that_gave_them_and_mean_nothing_to_another() {
    let (mine, other) = (Seal::of(0x1234_5678_9abc_def0), Seal::of(5));
    let given = outcome_to(outcome(), mine);
    let kept = outcome_of("n", Sent::of(&push()), given).unwrap();
    let known = kept.keys[0].unwrap();
    assert_ne!(known.generation, key(0).generation, "it is sealed");
    let push = Push {
        known: KnownSamples {
            keys: vec![known, known],
            ..push().known
        },
        ..push()
    };
    let part = part_to(3, 0, push);
    let back = part_of(&tenant(), part.clone(), mine, place).unwrap();
    assert_eq!(back.known.keys, [key(0), key(0)]);
    let elsewhere = part_of(&tenant(), part, other, place).unwrap();
    assert_eq!(elsewhere.known.keys[0].series, key(0).series);
    assert_ne!(elsewhere.known.keys[0].generation, key(0).generation);
}

#[test]
fn an_outcome_of_something_else_is_an_error() {
    type Spoil = fn(&mut proto::PartOutcome);
    let cases: [Spoil; 5] = [
        |o| o.dead.push(2),
        |o| o.dead_others.push(2),
        |o| o.keys.truncate(1),
        |o| o.refused_series[0] = 2,
        |o| o.rejected[0].reason = 99,
    ];
    for (number, spoil) in cases.into_iter().enumerate() {
        let mut spoiled = outcome_to(outcome(), AS_GIVEN);
        spoil(&mut spoiled);
        let arrived = outcome_of("n", Sent::of(&push()), spoiled);
        assert!(arrived.is_err(), "case {number}: {arrived:?}");
    }
}

#[test]
fn matchers_and_series_arrive_as_they_were() {
    let matchers = [
        Matcher::equal("a", "b"),
        Matcher::new(MatchOp::NotEqual, "a", "").unwrap(),
        Matcher::new(MatchOp::Regex, "a", "x.*").unwrap(),
        Matcher::new(MatchOp::NotRegex, "a", "y|z").unwrap(),
    ];
    assert_eq!(*matchers_of(&matchers_to(&matchers)).unwrap(), matchers);
    let mut wrong = matchers_to(&matchers);
    wrong[2].value = "(".to_owned();
    assert!(matchers_of(&wrong).is_err());
    for projection in [Projection::All, Projection::only(["a", "b"])] {
        let (project, names) = projection_to(&projection);
        assert_eq!(projection_of(project, &names), projection);
    }
    for end in [-1, 0, i64::MAX] {
        let windows = Windows::new(end, 86_400_000, 300_000);
        assert!(windows.is_some());
        assert_eq!(windows_of(windows.map(windows_to)), windows);
    }
    let nonsense = proto::Windows {
        end: 1,
        step: u64::MAX,
        width: 5,
    };
    assert_eq!(windows_of(Some(nonsense)), None);
    let series = SelectedSeries {
        id: SeriesId(u128::MAX - 5),
        labels: Labels::from_pairs([("a", "b")]).unwrap(),
        chunks: vec![
            ChunkSlice {
                min_time: 1,
                max_time: 2,
                bytes: ChunkBytes::told(Arc::from(&b"abc"[..]), 17, true),
            },
            ChunkSlice {
                min_time: 3,
                max_time: 4,
                bytes: ChunkBytes::from(&b"head"[..]),
            },
        ],
        exemplars: vec![exemplar()],
        starts: Vec::new(),
    };
    let arrived = series_of(&series_to(&series).unwrap()).unwrap();
    assert_eq!((arrived.id, &arrived.labels), (series.id, &series.labels));
    assert_eq!(arrived.exemplars, series.exemplars);
    for (arrived, sent) in arrived.chunks.iter().zip(&series.chunks) {
        assert_eq!(arrived.bytes.read().unwrap(), sent.bytes.read().unwrap());
        assert_eq!(arrived.bytes.order(), sent.bytes.order());
        assert_eq!(arrived.bytes.is_late(), sent.bytes.is_late());
        assert_eq!(
            (arrived.min_time, arrived.max_time),
            (sent.min_time, sent.max_time)
        );
    }
}
