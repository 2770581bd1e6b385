//! Credits, bells, closing.

use std::sync::atomic::AtomicUsize;

use model::{TenantId, TenantLimits};

use super::*;

fn push(reply: impl FnOnce(PushOutcome) + Send + 'static) -> Push {
    Push {
        tenant: TenantId::fake(),
        limits: Arc::new(TenantLimits::unlimited()),
        known: Default::default(),
        fresh: Default::default(),
        others: Default::default(),
        credits: 0,
        reply: Box::new(reply),
    }
}

#[test]
fn credits_are_taken_on_all_cores_or_on_none() {
    let boxes = Mailboxes::new(2, 100, 10);
    let held = boxes.reserve(&[(CoreId(1), 80)]).unwrap();
    let refused = boxes.reserve(&[(CoreId(0), 50), (CoreId(1), 50)]);
    assert_eq!(refused.err(), Some(Refusal::QueueFull(1)));
    assert_eq!(boxes.of(CoreId(0)).bytes_queued(), 0);
    drop(held);
    assert_eq!(boxes.of(CoreId(1)).bytes_queued(), 0);
}

#[test]
fn credits_travel_with_the_push_and_the_rest_goes_back() {
    let boxes = Mailboxes::new(2, 100, 10);
    let mut permits = boxes.reserve(&[(CoreId(0), 30), (CoreId(1), 40)]).unwrap();
    permits.send(CoreId(1), push(|_| {}));
    drop(permits);
    assert_eq!(boxes.of(CoreId(0)).bytes_queued(), 0);
    assert_eq!(boxes.of(CoreId(1)).bytes_queued(), 40);
    let Some(Message::Push(push)) = boxes.of(CoreId(1)).take() else {
        panic!("a push")
    };
    assert_eq!(push.credits, 40);
}

#[test]
fn a_push_above_the_bound_passes_when_nothing_else_waits() {
    let boxes = Mailboxes::new(1, 100, 10);
    let permits = boxes.reserve(&[(CoreId(0), 1000)]).unwrap();
    assert!(boxes.reserve(&[(CoreId(0), 1)]).is_err());
    drop(permits);
}

#[test]
fn a_closed_mailbox_answers_what_waits_and_what_comes_later() {
    let answered = Arc::new(AtomicUsize::new(0));
    let boxes = Mailboxes::new(1, 100, 10);
    let count = || {
        let answered = answered.clone();
        push(move |outcome| {
            assert_eq!(outcome.refused, Some(Refusal::Stopping));
            answered.fetch_add(1, Ordering::Relaxed);
        })
    };
    let mut early = boxes.reserve(&[(CoreId(0), 10)]).unwrap();
    let mut late = boxes.reserve(&[(CoreId(0), 10)]).unwrap();
    early.send(CoreId(0), count());
    boxes.of(CoreId(0)).close();
    late.send(CoreId(0), count());
    assert_eq!(answered.load(Ordering::Relaxed), 2);
    assert_eq!(
        boxes.reserve(&[(CoreId(0), 1)]).err(),
        Some(Refusal::Stopping)
    );
    assert_eq!(boxes.of(CoreId(0)).bytes_queued(), 0);
}

#[test]
fn reads_beyond_the_bound_are_answered_at_once() {
    let boxes = Mailboxes::new(1, 100, 1);
    let query = |reply: Box<dyn FnOnce(Result<Vec<String>, ReadError>) + Send>| {
        Message::Labels(crate::LabelQuery {
            tenant: TenantId::fake(),
            name: None,
            matchers: Arc::from([]),
            min_time: 0,
            max_time: 0,
            hold: Arc::new(|_| true),
            canceled: Arc::default(),
            reply,
        })
    };
    boxes.send(CoreId(0), query(Box::new(|_| panic!("still waits"))));
    let (sender, receiver) = std::sync::mpsc::channel();
    boxes.send(CoreId(0), query(Box::new(move |r| sender.send(r).unwrap())));
    let refused = ReadError::Refused(Refusal::QueueFull(0));
    assert_eq!(receiver.recv().unwrap(), Err(refused));
    std::mem::forget(boxes);
}

#[test]
fn every_message_rings_and_what_came_before_the_bell_waits() {
    let rings = Arc::new(AtomicUsize::new(0));
    let boxes = Mailboxes::new(1, 100, 10);
    let mailbox = boxes.of(CoreId(0));
    mailbox.put(Message::Push(push(|_| {})));
    let heard = rings.clone();
    mailbox.post().set_bell(Box::new(move || {
        heard.fetch_add(1, Ordering::Relaxed);
    }));
    mailbox.put(Message::Push(push(|_| {})));
    assert_eq!(rings.load(Ordering::Relaxed), 1);
    assert!(mailbox.take().is_some() && mailbox.take().is_some());
}

fn with_samples(count: usize) -> Push {
    let mut push = push(|_| {});
    push.known.times = vec![0; count];
    push
}

fn rung(rings: &AtomicUsize) -> usize {
    rings.swap(0, Ordering::Relaxed)
}

/// The bell of a core counts; a push of so many samples tells whether its sender has to ring.
fn belled() -> (Mailboxes, Arc<AtomicUsize>, impl Fn(u16, usize) -> Wake) {
    let crews = [vec![CoreId(0), CoreId(2)], vec![CoreId(1)]];
    let boxes = Mailboxes::of_crews(&crews, 1 << 30, 10);
    let rings = Arc::new(AtomicUsize::new(0));
    let heard = rings.clone();
    boxes.of(CoreId(0)).post().set_bell(Box::new(move || {
        heard.fetch_add(1, Ordering::Relaxed);
    }));
    let put = {
        let boxes = boxes.clone();
        move |core, samples| {
            let core = CoreId(core);
            let mut permits = boxes.reserve(&[(core, 1)]).unwrap();
            permits.put(core, with_samples(samples))
        }
    };
    (boxes, rings, put)
}

#[test]
fn small_pushes_may_share_a_ring_and_large_ones_ring_at_once() {
    let (boxes, rings, put) = belled();
    assert_eq!(put(0, 100), Wake::Soon);
    assert_eq!(put(0, 100), Wake::Soon, "when the sender has no more");
    assert_eq!(rung(&rings), 0);
    boxes.ring(CoreId(0));
    assert_eq!(rung(&rings), 1);
    assert_eq!(put(0, 5000), Wake::Now, "enough for a core to begin with");
    assert_eq!(put(0, 100), Wake::No, "that sender rings");
    boxes.of(CoreId(0)).post().wake();
    assert_eq!(put(0, 100), Wake::Soon, "that was before it looked");
}

#[test]
fn a_core_that_dozes_is_only_woken_for_much_or_for_something_else() {
    let (boxes, rings, put) = belled();
    let mailbox = boxes.of(CoreId(0));
    mailbox.post().doze();
    for _ in 0..4 {
        assert_eq!(put(0, 1000), Wake::No, "the write in flight will wake it");
    }
    assert_eq!(put(0, 1000), Wake::Now, "that is worth a wake");
    assert_eq!(put(0, 1000), Wake::No, "once");
    assert_eq!(rung(&rings), 0);
    mailbox.put(Message::Checkpoint(Box::new(|_| {})));
    assert_eq!(rung(&rings), 1);
    mailbox.post().wake();
    assert_eq!(put(0, 1), Wake::Soon, "awake or asleep, but not dozing");
}

#[test]
fn cores_that_share_a_thread_are_woken_together_and_others_are_not() {
    let (boxes, rings, put) = belled();
    assert_eq!(boxes.leader(CoreId(2)), CoreId(0));
    assert_eq!(boxes.leader(CoreId(1)), CoreId(1));
    assert_eq!(put(0, 600), Wake::Soon);
    assert_eq!(put(1, 600), Wake::Soon);
    assert_eq!(put(2, 600), Wake::Now, "1,200 for that thread");
    boxes.ring(CoreId(2));
    assert_eq!(rung(&rings), 1);
    boxes.ring(CoreId(1));
    assert_eq!(rung(&rings), 0, "another thread");
    boxes.of(CoreId(2)).post().doze();
    assert_eq!(put(0, 1), Wake::No, "the write of the other wakes both");
    assert_eq!(put(1, 600), Wake::Now);
}
