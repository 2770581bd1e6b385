//! Bodies that are no write request, too large, too slow, cut short or of another kind; and that nothing is held afterwards.

use std::convert::Infallible;

use futures_util::stream;
use http_body_util::StreamBody;

use super::*;

#[tokio::test]
async fn what_is_no_write_request_is_400_and_stores_nothing() {
    let rig = Rig::new();
    let good = request(&[(UP, 1, 1.0), (DOWN, 1, 1.0)]);
    assert_eq!(rig.send(vec![]).await.0, 400);
    assert_eq!(rig.send(b"garbage".to_vec()).await.0, 400);
    assert_eq!(
        rig.send(snappy::pack(b"\xff\xff\xff\xffnot protobuf"))
            .await
            .0,
        400
    );
    for cut in [1, 5, 20] {
        let (status, text) = rig.send(snappy::pack(&good[..good.len() - cut])).await;
        assert_eq!(status, 400);
        assert!(
            text.starts_with("cannot decode the write request"),
            "{text}"
        );
    }
    assert!(rig.stored("a").is_empty());
    assert_eq!(
        rig.send(snappy::pack(&[])).await.0,
        200,
        "an empty request is fine"
    );
    let mut bare = Vec::new();
    encode::put_series(&mut bare, std::iter::empty(), &[]);
    let bare = rig.send(snappy::pack(&bare)).await;
    assert_eq!(bare.0, 200, "neither labels nor samples");
    let mut empty = Vec::new();
    encode::put_series(&mut empty, UP.iter().copied(), &[]);
    assert_eq!(rig.send(snappy::pack(&empty)).await.0, 200);
    assert!(rig.stored("a").is_empty());
    rig.assert_nothing_held();
}

/// Story: samples without any label were answered 200 and were nowhere, also in no counter.
#[tokio::test]
async fn a_series_without_any_label_is_refused_and_takes_no_other_with_it() {
    let unvalued: Pairs<'_> = &[("job", "")];
    for (is_enforced, reason, words) in [
        (true, "missing_metric_name", "sample missing metric name"),
        (false, "label_invalid", "empty labelset: invalid sample"),
    ] {
        let limits = TenantLimits {
            enforce_metric_name: is_enforced,
            ..TenantLimits::cortex()
        };
        let rig = Rig::with(limits, PushOptions::default());
        // The second time its alias knows that it is refused.
        for count in [2.0, 4.0] {
            let answer = rig
                .push(&[(&[], 1, 1.0), (UP, 1, 1.0), (unvalued, 1, 1.0)])
                .await;
            assert_eq!(answer, (400, words.to_owned()));
            assert_eq!(rig.metric("cortex_discarded_samples_total", reason), count);
        }
        assert_eq!(rig.stored("a").len(), 1);
        assert_eq!(rig.stored("a")[UP_TEXT], [(1, 1.0)]);
        rig.assert_nothing_held();
    }
}

#[tokio::test]
async fn bodies_above_the_bound_are_400_however_they_come() {
    let options = PushOptions {
        recv_bytes_max: 1000,
        ..PushOptions::default()
    };
    let rig = Rig::with(TenantLimits::cortex(), options);
    let (status, text) = rig.send(vec![0; 1001]).await;
    assert_eq!(
        (status, text.as_str()),
        (400, "received message larger than max (1001 vs 1000)")
    );
    let (status, text) = rig.send(snappy::pack(&[0; 5000])).await;
    assert_eq!(
        (status, text.as_str()),
        (400, "received message larger than max (5000 vs 1000)")
    );
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_LENGTH, "123456".parse().unwrap());
    let never = StreamBody::new(stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>());
    let answer = told(rig.service.handle(&TenantId::fake(), &headers, never).await).await;
    assert_eq!(
        answer.1,
        "received message larger than max (123456 vs 1000)"
    );
    rig.assert_nothing_held();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let rig = Rig::new();
    let slow = stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let frame = http_body::Frame::data(Bytes::from_static(b"x"));
        Some((Ok::<_, Infallible>(frame), ()))
    });
    let tenant = TenantId::fake();
    let answer = rig
        .service
        .handle(&tenant, &HeaderMap::new(), StreamBody::new(slow))
        .await;
    assert_eq!(answer.status(), 503, "Prometheus drops what gets 408");
    assert_eq!(answer.headers()[http::header::RETRY_AFTER], "1");
    rig.assert_nothing_held();
}

#[tokio::test]
async fn a_connection_that_ends_inside_the_body_stores_nothing() {
    let rig = Rig::new();
    let packed = snappy::pack(&request(&[(UP, 1, 1.0)]));
    let half = http_body::Frame::data(Bytes::from(packed[..10].to_vec()));
    let broken = StreamBody::new(stream::iter([Ok(half), Err("connection reset")]));
    let tenant = TenantId::new("a").unwrap();
    let answer = told(rig.service.handle(&tenant, &HeaderMap::new(), broken).await).await;
    assert_eq!(
        answer,
        (400, "cannot read the body: connection reset".into())
    );
    assert!(rig.stored("a").is_empty());
    rig.assert_nothing_held();
}

#[tokio::test]
async fn bytes_in_work_are_bounded_per_tenant_and_in_total() {
    let options = PushOptions {
        recv_bytes_max: 700,
        inflight_bytes_max: 2500,
        inflight_bytes_per_tenant_max: 1500,
        ..PushOptions::default()
    };
    let rig = Rig::with(TenantLimits::cortex(), options);
    let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
    let (tenant, _) = rig.service.tenant(&a);
    let mut held = Inflight::new(&rig.service.shared, tenant);
    held.add(1450).unwrap();
    let (status, text) = rig.send(vec![1; 100]).await;
    assert_eq!(
        (status, text.as_str()),
        (503, "too many bytes of pushes in work for this tenant")
    );
    assert_eq!(
        rig.send_as("b", snappy::pack(&request(&[(UP, 1, 1.0)])))
            .await
            .0,
        200
    );
    let (tenant, _) = rig.service.tenant(&b);
    let mut more = Inflight::new(&rig.service.shared, tenant);
    more.add(1040).unwrap();
    let (status, text) = rig.send_as("c", vec![1; 100]).await;
    assert_eq!(
        (status, text.as_str()),
        (503, "too many bytes of pushes in work")
    );
    drop((held, more));
    assert_eq!(rig.push(&[(UP, 1, 1.0)]).await.0, 200);
    rig.assert_nothing_held();
}

#[tokio::test]
async fn a_client_that_leaves_holds_nothing_back() {
    let rig = Rig::new();
    rig.cores.hold_next();
    let tenant = TenantId::new("a").unwrap();
    let body = Full::new(Bytes::from(snappy::pack(&request(&[(UP, 1, 1.0)]))));
    let headers = HeaderMap::new();
    let waiting = rig.service.handle(&tenant, &headers, body);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), waiting)
            .await
            .is_err()
    );
    rig.assert_nothing_held();
    rig.cores.release();
    assert_eq!(
        rig.stored("a")[UP_TEXT],
        [(1, 1.0)],
        "what was sent is stored all the same"
    );
    assert_eq!(rig.push(&[(UP, 2, 2.0)]).await.0, 200);
}

#[tokio::test]
async fn other_media_types_are_415() {
    let rig = Rig::new();
    let status = async |name: &'static str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let body = Full::new(Bytes::from(snappy::pack(&request(&[(UP, 1, 1.0)]))));
        told(rig.service.handle(&TenantId::fake(), &headers, body).await).await
    };
    assert_eq!(status("content-type", "application/json").await.0, 415);
    assert_eq!(status("content-encoding", "gzip").await.0, 415);
    assert_eq!(
        status("content-type", "application/x-protobuf;proto=x.Y")
            .await
            .0,
        415
    );
    assert_eq!(
        status("content-type", "application/x-protobuf").await.0,
        200
    );
}

/// Story: two bytes are a metadata record without a name, five one with a name. Each cost 16 bytes and a look at a metric, or 160
/// bytes: 20 MB of them (0.9 MB packed) held a gateway thread for two seconds.
#[tokio::test]
async fn metadata_records_are_counted_not_listed_and_have_a_bound() {
    let options = PushOptions {
        recv_bytes_max: 100_000,
        ..PushOptions::default()
    };
    let rig = Rig::with(TenantLimits::cortex(), options);
    let (status, text) = rig.send(snappy::pack(&[0x1a, 0].repeat(40_000))).await;
    assert_eq!(
        (status, text.as_str()),
        (400, "metadata missing metric name")
    );
    let refused = rig.metric("cortex_discarded_metadata_total", "missing_metric_name");
    assert_eq!(refused, 40_000.0);
    let named = [0x1a, 3, 0x12, 1, b'm'];
    let (status, text) = rig.send(snappy::pack(&named.repeat(10_000))).await;
    assert_eq!(status, 400);
    assert!(text.contains("more than 100000 bytes"), "{text}");
    assert_eq!(rig.send(snappy::pack(&named.repeat(500))).await.0, 200);
    rig.assert_nothing_held();
}

/// Story: two uploads that stood still took both places of `max_inflight_push_requests`, and all others got 503.
#[tokio::test]
async fn bodies_that_do_not_come_take_no_place_of_others() {
    let options = PushOptions {
        inflight_pushes_max: 1,
        ..PushOptions::default()
    };
    let rig = Rig::with(TenantLimits::cortex(), options);
    let never =
        || StreamBody::new(stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>());
    let (slow, headers) = (TenantId::new("slow").unwrap(), HeaderMap::new());
    let mut stalled = [
        Box::pin(rig.service.handle(&slow, &headers, never())),
        Box::pin(rig.service.handle(&slow, &headers, never())),
    ];
    for push in &mut stalled {
        let soon = tokio::time::timeout(Duration::from_millis(5), push);
        assert!(soon.await.is_err());
    }
    assert_eq!(rig.service.inflight(), 2, "a drain waits for them");
    assert_eq!(rig.push(&[(UP, 1, 1.0)]).await.0, 200);
    // One that is there takes its place.
    rig.cores.hold_next();
    let body = Full::new(Bytes::from(snappy::pack(&request(&[(UP, 2, 1.0)]))));
    let a = TenantId::new("a").unwrap();
    let mut held = Box::pin(rig.service.handle(&a, &headers, body));
    let soon = tokio::time::timeout(Duration::from_millis(5), &mut held);
    assert!(soon.await.is_err());
    let (status, text) = rig.push(&[(UP, 3, 1.0)]).await;
    assert_eq!(
        (status, text.as_str()),
        (503, "too many inflight push requests in distributor")
    );
    rig.cores.release();
    assert_eq!(held.await.status(), 200);
    assert_eq!(rig.push(&[(UP, 3, 1.0)]).await.0, 200);
    drop(stalled);
    assert_eq!(rig.service.inflight(), 0);
    rig.assert_nothing_held();
}

/// Story: a body that unpacks to a sixth of what it is was counted with the sixth while the cores were at work, though it was all kept.
#[tokio::test]
async fn a_body_that_shrinks_when_it_is_unpacked_counts_as_it_came() {
    let rig = Rig::new();
    let samples: Vec<_> = (1..=20).map(|k| (UP, k, k as f64)).collect();
    let request = request(&samples);
    let mut body = Vec::new();
    varint::put_u64(&mut body, request.len() as u64);
    // Each byte a literal of its own, with a length of four bytes.
    body.extend(request.iter().flat_map(|&byte| [0xfc, 0, 0, 0, 0, byte]));
    for (body, held) in [
        (body.clone(), body.len()),
        (snappy::pack(&request), request.len()),
    ] {
        rig.cores.hold_next();
        let body = Full::new(Bytes::from(body));
        let (a, headers) = (TenantId::new("a").unwrap(), HeaderMap::new());
        let mut push = Box::pin(rig.service.handle(&a, &headers, body));
        let soon = tokio::time::timeout(Duration::from_millis(5), &mut push);
        assert!(soon.await.is_err());
        let counted = rig.metric("myelin_distributor_inflight_bytes", "");
        assert_eq!(counted, held as f64);
        rig.cores.release();
        assert_eq!(push.await.status(), 200);
        rig.assert_nothing_held();
    }
    assert_eq!(rig.stored("a")[UP_TEXT].len(), 20);
}
