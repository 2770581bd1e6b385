//! Who is served when there is too much: shares of memory, of the queues, of time. By counting, not by the clock.

use std::future::Future;
use std::task::Poll;

use super::*;

/// Fills what the tenant may have in work with bodies that wait for a core.
async fn flood<'r>(rig: &'r Rig, tenant: &str, bytes: u64) -> Vec<gate::Pass<'r>> {
    let (tenant, _) = rig.service.tenant(&TenantId::new(tenant).unwrap());
    let mut passes = Vec::new();
    while let Some(pass) = rig.service.shared.gate.enter(&tenant, bytes) {
        passes.push(pass);
    }
    passes
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_refused_and_another_tenant_is_served() {
    let rig = Rig::new();
    let held = flood(&rig, "a", 1 << 20).await;
    assert!(held.len() > 100, "it may use what nobody else wants");
    let (status, text) = rig.push(&[(UP, 1, 1.0)]).await;
    assert_eq!((status, text.as_str()), (503, "the node is overloaded"));
    assert_eq!(rig.cores.counts(), (0, 0), "nothing was sent");
    let body = |time| snappy::pack(&request(&[(UP, time, 1.0)]));
    for time in 1..20 {
        assert_eq!(rig.send_as("b", body(time)).await.0, 200);
    }
    assert_eq!(
        rig.metric("myelin_distributor_overload_total", "overload"),
        1.0
    );
    drop(held);
    assert_eq!(rig.push(&[(UP, 2, 1.0)]).await.0, 200);
    rig.assert_nothing_held();
}

/// Refusing at the head of a request must take its body off the connection: else the server hangs up, and the sender of many bodies
/// pays for a new connection each time and may never read why.
#[tokio::test(start_paused = true)]
async fn the_body_of_a_refused_push_is_taken_off_its_connection() {
    let rig = Rig::new();
    let _held = flood(&rig, "a", 1 << 20).await;
    let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = taken.clone();
    let frames = futures_util::stream::iter((0..5).map(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        let frame = http_body::Frame::data(Bytes::from(vec![0; 1000]));
        Ok::<_, std::convert::Infallible>(frame)
    }));
    let tenant = TenantId::new("a").unwrap();
    let body = http_body_util::StreamBody::new(frames);
    let answer = rig.service.handle(&tenant, &HeaderMap::new(), body).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(taken.load(Ordering::Relaxed), 5);
}

/// Found by the end-to-end test: pushes refused for lack of memory in the middle of their body lost their connections.
#[tokio::test]
async fn the_body_of_a_push_that_finds_no_memory_is_taken_off_its_connection_too() {
    let options = PushOptions {
        recv_bytes_max: 10_000,
        inflight_bytes_max: 20_000,
        ..PushOptions::default()
    };
    let rig = Rig::with(TenantLimits::cortex(), options);
    let (b, _) = rig.service.tenant(&TenantId::new("b").unwrap());
    let mut held = Inflight::new(&rig.service.shared, b);
    held.add(12_000).unwrap();
    let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = taken.clone();
    let frames = futures_util::stream::iter((0..9).map(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        let frame = http_body::Frame::data(Bytes::from(vec![0; 1000]));
        Ok::<_, std::convert::Infallible>(frame)
    }));
    let tenant = TenantId::new("a").unwrap();
    let body = http_body_util::StreamBody::new(frames);
    let answer = rig.service.handle(&tenant, &HeaderMap::new(), body).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(taken.load(Ordering::Relaxed), 9);
}

#[tokio::test]
async fn the_queue_of_a_core_is_shared_too() {
    let rig = Rig::new();
    // Of 1000 bytes 700 wait, all of them tenant a's.
    rig.push(&[(UP, 1, 1.0), (DOWN, 1, 1.0)]).await;
    let [a, b] = ["a", "b"].map(|name| rig.service.tenant(&TenantId::new(name).unwrap()).0);
    for core in 0..3 {
        rig.cores.set_queue(core, 700, 1000);
        a.queued[usize::from(core)].store(700, Ordering::Relaxed);
    }
    let (status, text) = rig.push(&[(UP, 2, 1.0)]).await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("is at its queue limit"), "{text}");
    let body = snappy::pack(&request(&[(UP, 2, 1.0)]));
    assert_eq!(rig.send_as("b", body).await.0, 200);
    for tenant in [a, b] {
        let queued = tenant.queued.iter().map(|q| q.load(Ordering::Relaxed));
        let expected = if tenant.id.as_str() == "a" { 2100 } else { 0 };
        assert_eq!(queued.sum::<u64>(), expected, "{}", tenant.id);
    }
}

#[tokio::test]
async fn bytes_of_bodies_that_never_end_leave_room_for_others() {
    let options = PushOptions {
        recv_bytes_max: 1000,
        inflight_bytes_max: 3000,
        ..PushOptions::default()
    };
    let rig = Rig::with(TenantLimits::cortex(), options);
    let (a, _) = rig.service.tenant(&TenantId::new("a").unwrap());
    let mut held = Inflight::new(&rig.service.shared, a.clone());
    while held.add(100).is_ok() {}
    let bytes = rig.service.shared.inflight_bytes.load(Ordering::Relaxed);
    assert_eq!(bytes, 2000, "two thirds");
    let body = snappy::pack(&request(&[(UP, 1, 1.0)]));
    assert_eq!(rig.send_as("b", body).await.0, 200);
    drop(held);
    rig.assert_nothing_held();
}

#[tokio::test]
async fn every_core_that_was_sent_something_is_woken_once() {
    let rig = Rig::new();
    let names: Vec<String> = (0..50).map(|i| format!("m{i}")).collect();
    let jobs: Vec<_> = names
        .iter()
        .map(|name| [("__name__", "m"), ("job", name.as_str())])
        .collect();
    let all: Vec<_> = jobs.iter().map(|pairs| (&pairs[..], 1, 1.0)).collect();
    assert_eq!(rig.push(&all).await.0, 200);
    let mut woken = rig.cores.woken();
    woken.sort();
    assert_eq!(woken, [CoreId(0), CoreId(1), CoreId(2)]);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_cores_are_woken_does_not_keep_them_asleep() {
    let rig = Rig::new();
    rig.cores.hold_next();
    let tenant = TenantId::new("a").unwrap();
    let headers = HeaderMap::new();
    let body = Full::new(Bytes::from(snappy::pack(&request(&[(UP, 1, 1.0)]))));
    {
        let push = rig.service.handle(&tenant, &headers, body);
        let mut push = std::pin::pin!(push);
        let once =
            std::future::poll_fn(|cx| Poll::Ready(push.as_mut().poll(cx).is_pending())).await;
        assert!(once);
        assert!(rig.cores.woken().is_empty(), "other bodies may come first");
    }
    assert_eq!(rig.cores.woken().len(), 1);
    rig.cores.release();
    rig.assert_nothing_held();
}
