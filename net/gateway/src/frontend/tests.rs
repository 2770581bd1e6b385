//! Who shares an evaluation with whom; over evaluations that end when the test says so.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::{TenantId, TenantLimits};
use prometheus::Registry;
use query::{Caller, Query, Times};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::SlowerThan;
use super::flights::{Begins, Flights, Key, Landed, Outcome, Shape};

fn key(tenant: &str, text: &str, time: i64, limit: usize) -> Key {
    let caller = Caller {
        tenant: TenantId::new(tenant).unwrap(),
        limits: Arc::new(TenantLimits::unlimited()),
        now_ms: 0,
        client: Arc::default(),
    };
    let query = Query {
        text: text.to_owned(),
        times: Times::Instant(time),
        timeout: None,
        waited: Duration::ZERO,
        lookback: None,
        per_step: false,
        uncached: false,
    };
    Key::new(
        &caller,
        &query,
        Shape {
            limit,
            stats: false,
        },
    )
}

/// Evaluations that wait for their words: `begin`, then `end`. What they give is an error that names them.
#[derive(Clone, Default)]
struct Fixture {
    evaluations: Rc<RefCell<Vec<Evaluation>>>,
}

#[derive(Default)]
struct Evaluation {
    begin: Option<oneshot::Sender<()>>,
    end: Option<oneshot::Sender<()>>,
    dropped: bool,
}

/// Notes that an evaluation was given up, or done.
struct Gone(Fixture, usize);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.evaluations.borrow_mut()[self.1].dropped = true;
    }
}

impl Fixture {
    fn evaluate(
        &self,
    ) -> impl AsyncFnOnce(Duration, Begins) -> Result<Landed, query::Error> + use<> {
        let fixture = self.clone();
        async move |_, begins: Begins| {
            let number = fixture.evaluations.borrow().len();
            let ((begin, begun), (end, ended)) = (oneshot::channel(), oneshot::channel());
            fixture.evaluations.borrow_mut().push(Evaluation {
                begin: Some(begin),
                end: Some(end),
                dropped: false,
            });
            let _gone = Gone(fixture, number);
            begun.await.unwrap();
            begins.now();
            ended.await.unwrap();
            Err(query::Error::Busy { waiting: number })
        }
    }

    fn begin(&self, at: usize) {
        self.evaluations.borrow_mut()[at]
            .begin
            .take()
            .unwrap()
            .send(())
            .unwrap();
    }

    fn end(&self, at: usize) {
        self.evaluations.borrow_mut()[at]
            .end
            .take()
            .unwrap()
            .send(())
            .unwrap();
    }

    fn count(&self) -> usize {
        self.evaluations.borrow().len()
    }
}

/// Which evaluation it was.
fn number(outcome: Option<Outcome>) -> usize {
    match &*outcome.expect("nothing stops") {
        Err(query::Error::Busy { waiting }) => *waiting,
        other => panic!("{other:?}"),
    }
}

/// Lets everybody run who can.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn run(test: impl AsyncFnOnce(Rc<Flights>, Fixture)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (flights, fixture) = (Rc::new(Flights::new(&Registry::new())), Fixture::default());
    LocalSet::new().block_on(&runtime, async {
        test(flights.clone(), fixture).await;
        settle().await;
        assert!(flights.is_empty(), "something was left behind");
    });
}

/// A client that asks.
fn ask(
    flights: &Rc<Flights>,
    fixture: &Fixture,
    key: &Key,
) -> tokio::task::JoinHandle<Option<Outcome>> {
    let (flights, key, evaluate) = (flights.clone(), key.clone(), fixture.evaluate());
    tokio::task::spawn_local(async move { flights.join(key, evaluate).await })
}

#[test]
fn those_who_ask_the_same_before_it_is_read_share_one_evaluation() {
    run(async |flights, fixture| {
        let key = key("a", "up", 7, 0);
        let clients: Vec<_> = (0..5).map(|_| ask(&flights, &fixture, &key)).collect();
        settle().await;
        assert_eq!(fixture.count(), 1);
        fixture.begin(0);
        settle().await;
        fixture.end(0);
        for client in clients {
            assert_eq!(number(client.await.unwrap()), 0);
        }
    });
}

#[test]
fn whoever_differs_in_anything_has_an_evaluation_of_his_own() {
    run(async |flights, fixture| {
        let keys = [
            key("a", "up", 7, 0),
            key("b", "up", 7, 0),
            key("a", "up ", 7, 0),
            key("a", "up", 8, 0),
            key("a", "up", 7, 1),
        ];
        let clients: Vec<_> = keys
            .iter()
            .map(|key| ask(&flights, &fixture, key))
            .collect();
        settle().await;
        assert_eq!(fixture.count(), keys.len());
        clients.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

/// Whoever comes while it reads might have written since it began; all of these share the next evaluation, which waits for the end of this one.
#[test]
fn those_who_come_too_late_share_the_next_evaluation() {
    run(async |flights, fixture| {
        let key = key("a", "up", 7, 0);
        let first = ask(&flights, &fixture, &key);
        settle().await;
        fixture.begin(0);
        settle().await;
        let later: Vec<_> = (0..3).map(|_| ask(&flights, &fixture, &key)).collect();
        settle().await;
        assert_eq!(fixture.count(), 1, "the next does not begin beside it");
        fixture.end(0);
        assert_eq!(number(first.await.unwrap()), 0);
        settle().await;
        assert_eq!(fixture.count(), 2);
        fixture.begin(1);
        settle().await;
        fixture.end(1);
        for client in later {
            assert_eq!(number(client.await.unwrap()), 1);
        }
    });
}

#[test]
fn the_first_who_leaves_takes_nothing_from_the_others_and_the_last_ends_it() {
    run(async |flights, fixture| {
        let key = key("a", "up", 7, 0);
        let [first, second, third] = [(); 3].map(|()| ask(&flights, &fixture, &key));
        settle().await;
        first.abort();
        settle().await;
        fixture.begin(0);
        settle().await;
        second.abort();
        settle().await;
        assert!(!fixture.evaluations.borrow()[0].dropped, "one still waits");
        fixture.end(0);
        assert_eq!(number(third.await.unwrap()), 0);

        let alone = ask(&flights, &fixture, &key);
        settle().await;
        assert_eq!(fixture.count(), 2);
        alone.abort();
        settle().await;
        assert!(fixture.evaluations.borrow()[1].dropped, "nobody wants it");
        // And who asks then is not given what was given up.
        let next = ask(&flights, &fixture, &key);
        settle().await;
        assert_eq!(fixture.count(), 3);
        fixture.begin(2);
        settle().await;
        fixture.end(2);
        assert_eq!(number(next.await.unwrap()), 2);
    });
}

#[test]
fn a_threshold_tells_slow_queries_from_others() {
    let second = Duration::from_secs(1);
    let shorter = Duration::from_millis(900);
    for (threshold, long, short) in [
        (SlowerThan::Off, false, false),
        (SlowerThan::Than(shorter), true, false),
        (SlowerThan::All, true, true),
    ] {
        assert_eq!(threshold.is_slow(second), long);
        assert_eq!(threshold.is_slow(shorter), short);
    }
}
