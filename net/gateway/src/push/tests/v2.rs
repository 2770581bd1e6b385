//! Remote write 2.0 on the same path: one series with version 1, its own aliases, its own headers.

use http::header::CONTENT_TYPE;
use wire::remote_write::encode::RequestV2;

use super::*;

const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// Status, text, and the three written-counts.
async fn send(rig: &Rig, body: &[u8]) -> (u16, String, [String; 3]) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, V2.parse().unwrap());
    let tenant = TenantId::new("a").unwrap();
    let body = Full::new(Bytes::from(snappy::pack(body)));
    let response = rig.service.handle(&tenant, &headers, body).await;
    let counts = ["samples", "histograms", "exemplars"].map(|what| {
        let header = format!("x-prometheus-remote-write-{what}-written");
        response.headers()[header].to_str().unwrap().to_owned()
    });
    let (status, text) = told(response).await;
    (status, text, counts)
}

fn counts(samples: u64) -> [String; 3] {
    [samples.to_string(), "0".into(), "0".into()]
}

fn request_v2(series: &[(Pairs<'_>, i64, f64)]) -> Vec<u8> {
    let mut request = RequestV2::default();
    for (pairs, time, value) in series {
        request.put_series(pairs.iter().copied(), &[(*time, *value)], None);
    }
    request.finish()
}

fn field(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    padded(out, number << 3 | 2, content, 1);
}

#[tokio::test]
async fn both_versions_and_both_orders_are_one_series() {
    let rig = Rig::new();
    assert_eq!(rig.push(&[(UP, 1, 1.0)]).await.0, 200);
    assert_eq!(
        send(&rig, &request_v2(&[(UP, 2, 2.0)])).await,
        (204, String::new(), counts(1))
    );
    let permuted: Pairs<'_> = &[("job", "a"), ("__name__", "up"), ("instance", "i")];
    assert_eq!(send(&rig, &request_v2(&[(permuted, 3, 3.0)])).await.0, 204);
    assert_eq!(rig.stored("a")[UP_TEXT], [(1, 1.0), (2, 2.0), (3, 3.0)]);
}

#[tokio::test]
async fn a_series_without_references_has_no_name_whatever_symbols_there_are() {
    let rig = Rig::new();
    let mut sample = vec![0x09];
    sample.extend_from_slice(&1f64.to_le_bytes());
    sample.extend_from_slice(&[0x10, 1]);
    let mut series = Vec::new();
    field(&mut series, 2, &sample);
    let mut unnamed = Vec::new();
    field(&mut unnamed, 5, &series);
    let mut with_symbols = Vec::new();
    field(&mut with_symbols, 4, b"");
    with_symbols.extend_from_slice(&unnamed);
    for (body, count) in [(unnamed, 1.0), (with_symbols, 2.0)] {
        let text = "sample missing metric name".to_owned();
        assert_eq!(send(&rig, &body).await, (400, text, counts(0)));
        let metric = "cortex_discarded_samples_total";
        assert_eq!(rig.metric(metric, "missing_metric_name"), count);
    }
    assert!(rig.stored("a").is_empty());
}

#[tokio::test]
async fn histograms_and_exemplars_are_counted_apart() {
    let rig = Rig::new();
    let mut body = Vec::new();
    for symbol in ["", "__name__", "up", "trace_id", "abc"] {
        field(&mut body, 4, symbol.as_bytes());
    }
    let mut series = Vec::new();
    field(&mut series, 1, &[1, 2]);
    field(&mut series, 2, &sample(1, 1.0));
    field(&mut series, 3, &histogram_message(0, 2));
    field(&mut series, 3, &histogram_message(0, 3));
    let mut exemplar = Vec::new();
    field(&mut exemplar, 1, &[3, 4]);
    exemplar.extend([0x18, 2]);
    field(&mut series, 4, &exemplar);
    field(&mut body, 5, &series);
    let counts = ["1", "2", "1"].map(str::to_owned);
    assert_eq!(send(&rig, &body).await, (204, String::new(), counts));
    let others = [
        "histogram 2 before 1",
        "histogram 3 before 1",
        "exemplar 2 before 1",
    ];
    assert_eq!(rig.others(), others);
    // A reference to a symbol that is not there makes the whole body unbelievable.
    let mut bad = Vec::new();
    field(&mut bad, 1, &[3, 9]);
    bad.extend([0x18, 2]);
    field(&mut series, 4, &bad);
    field(&mut body, 5, &series);
    let (status, text, _) = send(&rig, &body).await;
    assert_eq!((status, rig.others().len()), (400, 3));
    assert!(text.contains("symbol reference 9"), "{text}");
}

#[tokio::test]
async fn a_series_is_known_by_its_symbols_whatever_their_numbers() {
    let rig = Rig::new();
    send(&rig, &request_v2(&[(UP, 1, 1.0), (DOWN, 1, 1.0)])).await;
    let before = rig.cores.counts();
    send(&rig, &request_v2(&[(DOWN, 2, 2.0), (UP, 2, 2.0)])).await;
    assert_eq!(rig.cores.counts(), (before.0 + 2, before.1));
    assert_eq!(rig.stored("a")[UP_TEXT], [(1, 1.0), (2, 2.0)]);
    // The same references with other symbols are another series.
    let other: Pairs<'_> = &[("__name__", "up"), ("instance", "i"), ("job", "b")];
    send(&rig, &request_v2(&[(other, 2, 9.0)])).await;
    assert_eq!(rig.stored("a")[UP_TEXT], [(1, 1.0), (2, 2.0)]);
}

#[tokio::test]
async fn a_dead_key_is_sent_again_with_labels_within_the_push() {
    let rig = Rig::new();
    send(&rig, &request_v2(&[(UP, 1, 1.0), (DOWN, 1, 1.0)])).await;
    rig.cores.kill("up");
    let answer = send(&rig, &request_v2(&[(UP, 2, 2.0), (DOWN, 2, 2.0)])).await;
    assert_eq!(answer, (204, String::new(), counts(2)));
    assert_eq!(rig.stored("a")[UP_TEXT], [(2, 2.0)]);
}

#[tokio::test]
async fn headers_tell_what_was_stored_beside_an_error() {
    let rig = Rig::new();
    let nameless: Pairs<'_> = &[("job", "x")];
    let (status, text, written) =
        send(&rig, &request_v2(&[(nameless, 1, 1.0), (UP, 1, 1.0)])).await;
    assert_eq!((status, text.as_str()), (400, "sample missing metric name"));
    assert_eq!(written, counts(1));
    assert_eq!(send(&rig, &request_v2(&[(UP, 1, 5.0)])).await.2, counts(0));
    assert_eq!(
        send(&rig, &request_v2(&[(UP, 1, 1.0)])).await.2,
        counts(1),
        "a repeat is stored"
    );
    (0..3).for_each(|core| rig.cores.fill(core));
    let (status, _, written) = send(&rig, &request_v2(&[(UP, 2, 2.0)])).await;
    assert_eq!((status, written), (503, counts(0)));
}

#[tokio::test]
async fn metadata_comes_with_the_series_once_a_metric() {
    let rig = Rig::new();
    let help = Metadata {
        kind: MetricType::Counter,
        help: "how many".into(),
        unit: "s".into(),
    };
    let mut request = RequestV2::default();
    for i in ["1", "2", "3"] {
        let pairs = [("i", i), ("__name__", "m_total")];
        request.put_series(pairs.into_iter(), &[(1, 1.0)], Some(&help));
    }
    request.put_series(
        [("__name__", "plain")].into_iter(),
        &[(1, 1.0)],
        Some(&Metadata::default()),
    );
    assert_eq!(send(&rig, &request.finish()).await.0, 204);
    let kept = rig.metadata.list(&TenantId::new("a").unwrap(), None, 0, 0);
    assert_eq!(kept, [("m_total".to_owned(), vec![help])]);
    assert_eq!(rig.metric("cortex_distributor_metadata_in_total", "a"), 1.0);
}

#[tokio::test]
async fn rules_of_the_whole_request_store_nothing() {
    let rig = Rig::new();
    let good = request_v2(&[(UP, 1, 1.0)]);
    for broken in [&[1u8, 99][..], &[1], &[]] {
        let mut body = good.clone();
        let mut series = Vec::new();
        field(&mut series, 1, broken);
        if !broken.is_empty() {
            field(&mut series, 2, &sample(1, 1.0));
        }
        field(&mut body, 5, &series);
        let (status, text, written) = send(&rig, &body).await;
        assert_eq!((status, written), (400, counts(0)), "{broken:?}: {text}");
        assert!(
            text.starts_with("cannot decode the write request"),
            "{text}"
        );
    }
    let mut body = Vec::new();
    field(&mut body, 4, b"not empty");
    assert_eq!(send(&rig, &body).await.0, 400);
    assert!(rig.stored("a").is_empty());
    assert_eq!(send(&rig, b"").await.0, 204, "an empty request is fine");
}

#[tokio::test]
async fn references_behind_the_samples_are_not_mistaken_for_the_series_before_them() {
    let rig = Rig::new();
    let short: Pairs<'_> = &[("__name__", "up")];
    assert_eq!(send(&rig, &request_v2(&[(short, 1, 1.0)])).await.0, 204);
    let mut body = Vec::new();
    ["", "__name__", "up", "job", "x"]
        .iter()
        .for_each(|s| field(&mut body, 4, s.as_bytes()));
    let mut series = Vec::new();
    field(&mut series, 1, &[1, 2]);
    field(&mut series, 2, &sample(2, 2.0));
    series.extend([0x08, 3, 0x08, 4]);
    field(&mut body, 5, &series);
    for _ in 0..2 {
        assert_eq!(send(&rig, &body).await.0, 204);
        let stored = rig.stored("a");
        assert_eq!(stored[r#"{__name__="up"}"#], [(1, 1.0)]);
        assert_eq!(stored[r#"{__name__="up", job="x"}"#], [(2, 2.0)]);
    }
}

/// Story: symbols are sent once and referred to by a byte or two, so 800 KB of body (40 KB packed) with 10,000 series of 28
/// labels, all of them the same 2 KB value, was written out to 600 MB of labels before anything was asked for their place,
/// and 20 MB of body to more than the machine had.
#[tokio::test]
async fn a_small_body_cannot_be_written_out_to_a_large_one() {
    let options = PushOptions {
        recv_bytes_max: 100_000,
        ..PushOptions::default()
    };
    let rig = Rig::with(TenantLimits::cortex(), options);
    let long = "v".repeat(2000);
    let many = |count: usize| {
        let mut request = RequestV2::default();
        for n in 0..count {
            let own = n.to_string();
            let pairs = [
                ("__name__", "m"),
                ("a", long.as_str()),
                ("b", &long),
                ("n", &own),
            ];
            request.put_series(pairs.into_iter(), &[(1, 1.0)], None);
        }
        request.finish()
    };
    let body = many(30);
    assert!(body.len() < 4000);
    let (status, text, written) = send(&rig, &body).await;
    assert_eq!((status, written), (400, counts(0)), "{text}");
    assert!(text.contains("more than 100000 bytes"), "{text}");
    assert!(rig.stored("a").is_empty(), "all or nothing");
    assert_eq!(send(&rig, &many(20)).await.0, 204);
    rig.assert_nothing_held();
}

/// A body of one series `up`: its samples, each with a start where it is not 0, and further fields.
fn started(samples: &[(i64, i64)], further: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for symbol in ["", "__name__", "up"] {
        field(&mut body, 4, symbol.as_bytes());
    }
    let mut series = Vec::new();
    field(&mut series, 1, &[1, 2]);
    for &(time, start) in samples {
        let mut message = sample(time, time as f64);
        if start != 0 {
            message.push(3 << 3);
            model::varint::put_u64(&mut message, start as u64);
        }
        field(&mut series, 2, &message);
    }
    series.extend_from_slice(further);
    field(&mut body, 5, &series);
    body
}

#[tokio::test]
async fn a_start_is_sent_to_its_core_until_the_core_knows_it() {
    let rig = Rig::new();
    let push = async |samples: &[(i64, i64)], further: &[u8]| {
        let before = rig.others().len();
        let answer = send(&rig, &started(samples, further)).await;
        assert_eq!(answer, (204, String::new(), counts(samples.len() as u64)));
        rig.others()[before..].to_vec()
    };
    assert_eq!(push(&[(10, 5)], &[]).await, ["start 5 of 10 before 0"]);
    assert_eq!(push(&[(20, 5)], &[]).await, ["start 5 of 20 before 0"]);
    assert!(push(&[(30, 5)], &[]).await.is_empty(), "known by now");
    assert!(push(&[(40, 5), (50, 5)], &[]).await.is_empty());
    // A reset within a body, and one that is told for the whole series, as older senders do it.
    assert_eq!(
        push(&[(60, 5), (70, 65)], &[]).await,
        ["start 65 of 70 before 1"]
    );
    assert_eq!(
        push(&[(80, 0)], &[6 << 3, 75]).await,
        ["start 75 of 80 before 0"]
    );
    assert!(push(&[(90, 75)], &[]).await.is_empty());
    assert!(push(&[(100, 0)], &[]).await.is_empty(), "nothing is said");
    // What the core did not take is asked again.
    for time in [110, 120] {
        let want = format!("start 500 of {time} before 0");
        assert_eq!(push(&[(time, 500)], &[]).await, [want]);
    }
    rig.cores.kill("up");
    assert_eq!(push(&[(130, 75)], &[]).await, ["start 75 of 130 before 0"]);
}

#[tokio::test]
async fn zeros_are_wanted_by_the_tenant_and_for_histograms_are_histograms() {
    let limits = TenantLimits {
        enable_start_timestamp: true,
        ..TenantLimits::cortex()
    };
    let rig = Rig::with(limits, PushOptions::default());
    let mut message = histogram_message(0, 20);
    message.extend([0x88, 1, 15]);
    let mut further = Vec::new();
    field(&mut further, 3, &message);
    assert_eq!(send(&rig, &started(&[(10, 5)], &further)).await.0, 204);
    let others = [
        "start 5 zero of 10 before 0",
        "start 15 zero histogram of 20 before 1",
        "histogram 20 before 1",
    ];
    assert_eq!(rig.others(), others);
}

/// Story: only the first record of a metric in a request was looked at; over version 1 all are kept.
#[tokio::test]
async fn metadata_that_differs_is_all_kept() {
    let rig = Rig::new();
    let say = |kind, help: &str| Metadata {
        kind,
        help: help.into(),
        unit: "s".into(),
    };
    let said = [
        say(MetricType::Counter, "how many"),
        say(MetricType::Gauge, "how many"),
        say(MetricType::Gauge, "other"),
    ];
    let mut request = RequestV2::default();
    for (i, of) in ["1", "2", "3", "4", "5", "6"]
        .into_iter()
        .zip(said.iter().cycle())
    {
        let pairs = [("i", i), ("__name__", "m")];
        request.put_series(pairs.into_iter(), &[(1, 1.0)], Some(of));
    }
    assert_eq!(send(&rig, &request.finish()).await.0, 204);
    let kept = rig.metadata.list(&TenantId::new("a").unwrap(), None, 0, 0);
    assert_eq!(kept, [("m".to_owned(), said.to_vec())]);
    assert_eq!(rig.metric("cortex_distributor_metadata_in_total", "a"), 3.0);
}

/// Story: all that was said of a metric was remembered, also what is refused: 33 bytes for 11 of the body, on nobody's account.
#[tokio::test]
async fn what_is_remembered_of_metadata_has_a_bound() {
    let options = PushOptions {
        recv_bytes_max: 100_000,
        ..PushOptions::default()
    };
    let rig = Rig::with(TenantLimits::cortex(), options);
    let body = |records: u64| {
        let mut body = Vec::new();
        for symbol in ["", "__name__"] {
            field(&mut body, 4, symbol.as_bytes());
        }
        for kind in 1..=records {
            let mut metadata = vec![8];
            model::varint::put_u64(&mut metadata, kind);
            let mut series = Vec::new();
            field(&mut series, 1, &[1, 0]);
            field(&mut series, 2, &[0x10, 1]);
            field(&mut series, 5, &metadata);
            field(&mut body, 5, &series);
        }
        assert!(body.len() < 50_000, "it is not the body that is too long");
        body
    };
    let (status, text, _) = send(&rig, &body(100)).await;
    assert_eq!(status, 400);
    assert!(text.contains("missing metric name"), "{text}");
    let (status, text, _) = send(&rig, &body(2_000)).await;
    assert_eq!(status, 400);
    assert!(text.contains("more than 100000 bytes"), "{text}");
}
