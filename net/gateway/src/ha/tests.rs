//! Elections by a clock that is handed in: who is taken, when another takes over, what is forgotten.

use super::kv::{Changing, InMemory};
use super::*;

const FAILOVER_MS: i64 = 30_000;

fn tracker(kv: Arc<dyn Kv>, jitter_ms: i64) -> Tracker {
    let options = HaOptions {
        update_timeout: Duration::from_secs(15),
        jitter_ms,
    };
    Tracker::new(options, kv, &Registry::new()).unwrap()
}

fn id(tenant: &str) -> TenantId {
    TenantId::new(tenant).unwrap()
}

fn limits() -> TenantLimits {
    TenantLimits {
        accept_ha_samples: true,
        ..TenantLimits::cortex()
    }
}

/// Whether the replica is taken.
fn taken(tracker: &Tracker, replica: &str, now_ms: i64) -> bool {
    let fate = tracker.look(&id("t"), &limits(), ["c", replica], now_ms);
    fate.unwrap() == Fate::Taken
}

#[test]
fn the_first_comer_stays_until_it_has_been_silent_for_the_failover_timeout() {
    let tracker = tracker(Arc::new(InMemory::default()), 0);
    assert!(taken(&tracker, "a", 0));
    assert!(!taken(&tracker, "b", 1));
    // Heard of at 16 s, and so written then.
    assert!(taken(&tracker, "a", 16_000));
    assert!(!taken(&tracker, "b", 16_000 + FAILOVER_MS - 1));
    assert!(taken(&tracker, "b", 16_000 + FAILOVER_MS));
    assert!(
        !taken(&tracker, "a", 16_000 + FAILOVER_MS + 1),
        "no way back"
    );
}

/// What the elected one sends within the update timeout is not written: the silence is counted from the last time that was.
#[test]
fn silence_is_counted_from_what_was_written() {
    let tracker = tracker(Arc::new(InMemory::default()), -5000);
    assert!(taken(&tracker, "a", 0));
    assert!(taken(&tracker, "a", 9_999), "not written again yet");
    assert!(!taken(&tracker, "b", FAILOVER_MS - 1));
    assert!(taken(&tracker, "b", FAILOVER_MS));
    let asked = |now_ms, wanted: i64| {
        assert!(taken(&tracker, "b", now_ms));
        let lines = tracker.lines(now_ms, |_| Duration::from_secs(30));
        assert_eq!(lines[0].received_at_ms, wanted);
    };
    asked(FAILOVER_MS + 9_999, FAILOVER_MS);
    asked(FAILOVER_MS + 10_000, FAILOVER_MS + 10_000);
}

#[test]
fn clusters_and_tenants_elect_for_themselves_and_clusters_are_bounded() {
    let tracker = tracker(Arc::new(InMemory::default()), 0);
    let limits = TenantLimits {
        ha_max_clusters: 2,
        ..limits()
    };
    let fate = |tenant: &str, pair| tracker.look(&id(tenant), &limits, pair, 0).unwrap();
    assert_eq!(fate("t", ["c", "a"]), Fate::Taken);
    assert_eq!(fate("t", ["d", "b"]), Fate::Taken);
    assert_eq!(fate("u", ["c", "b"]), Fate::Taken);
    assert_eq!(fate("t", ["c", "b"]), Fate::Passive("a".into()));
    assert_eq!(fate("t", ["e", "a"]), Fate::TooMany(2));
    assert_eq!(fate("t", ["d", "b"]), Fate::Taken);
}

/// Story: a clock that was ahead when a replica was heard of, and then put right, kept that replica elected for as long as it had been ahead.
#[test]
fn a_clock_that_is_put_back_does_not_make_a_silent_replica_fresh() {
    let tracker = tracker(Arc::new(InMemory::default()), 0);
    let ahead = 3_600_000;
    assert!(taken(&tracker, "a", ahead));
    assert!(taken(&tracker, "b", 0));
}

/// A store that can be read and not changed, once told so.
#[derive(Debug, Default)]
struct ReadOnly {
    entries: InMemory,
    is_stuck: std::sync::atomic::AtomicBool,
}

impl Kv for ReadOnly {
    fn try_cas(&self, key: &Key, change: &mut Changing<'_>) -> bool {
        self.entries.try_cas(key, change)
    }

    fn cas<'a>(&'a self, key: &'a Key, change: &'a mut Changing<'_>) -> kv::Waiting<'a, ()> {
        match self.is_stuck.load(std::sync::atomic::Ordering::Relaxed) {
            true => Box::pin(std::future::ready(Err("stuck".to_owned()))),
            false => self.entries.cas(key, change),
        }
    }

    fn list(&self) -> kv::Waiting<'_, Vec<(Key, Entry)>> {
        self.entries.list()
    }
}

#[tokio::test]
async fn an_election_that_cannot_be_given_up_or_removed_is_counted() {
    let kv = Arc::new(ReadOnly::default());
    let tracker = tracker(kv.clone(), 0);
    let idle = IDLE_MS as i64;
    assert!(taken(&tracker, "a", 0));
    let stuck = |is_stuck| {
        kv.is_stuck
            .store(is_stuck, std::sync::atomic::Ordering::Relaxed);
    };
    let counts = || {
        let metrics = &tracker.metrics;
        [&metrics.failed, &metrics.marked, &metrics.removed].map(|counter| counter.get())
    };
    for (is_stuck, now_ms, wanted) in [
        (true, idle, [1, 0, 0]),
        (false, idle, [1, 1, 0]),
        (true, 2 * idle, [2, 1, 0]),
        (false, 2 * idle, [2, 1, 1]),
    ] {
        stuck(is_stuck);
        assert_eq!(tracker.clean(now_ms).await.is_err(), is_stuck);
        assert_eq!(counts(), wanted);
    }
}

#[tokio::test]
async fn what_is_silent_for_long_is_given_up_and_its_place_is_free() {
    let kv = Arc::new(InMemory::default());
    let tracker = tracker(kv.clone(), 0);
    let limits = TenantLimits {
        ha_max_clusters: 1,
        ..limits()
    };
    let fate = |pair, now_ms| tracker.look(&id("t"), &limits, pair, now_ms).unwrap();
    let idle = IDLE_MS as i64;
    assert_eq!(fate(["c", "a"], 0), Fate::Taken);
    tracker.clean(idle - 1).await.unwrap();
    assert_eq!(fate(["d", "a"], idle - 1), Fate::TooMany(1));
    tracker.clean(idle).await.unwrap();
    assert_eq!(kv.list().await.unwrap().len(), 1, "marked, not removed");
    assert_eq!(fate(["d", "b"], idle), Fate::Taken);
    tracker.clean(2 * idle).await.unwrap();
    let left = kv.list().await.unwrap();
    let left: Vec<_> = left.iter().map(|(key, _)| &*key.cluster).collect();
    assert_eq!(left, ["d"]);
    // Given up is as good as not there.
    tracker.clean(3 * idle).await.unwrap();
    assert_eq!(fate(["d", "a"], 3 * idle), Fate::Taken);
}

/// A KV that has to be waited for, and may fail.
#[derive(Debug, Default)]
struct Slow {
    store: InMemory,
    failing: std::sync::atomic::AtomicBool,
}

impl Kv for Slow {
    fn try_cas(&self, _: &Key, _: &mut kv::Changing<'_>) -> bool {
        false
    }

    fn cas<'a>(&'a self, key: &'a Key, change: &'a mut kv::Changing<'_>) -> kv::Waiting<'a, ()> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            match self.failing.load(std::sync::atomic::Ordering::Relaxed) {
                true => Err("etcd is away".to_owned()),
                false => self.store.cas(key, change).await,
            }
        })
    }

    fn list(&self) -> kv::Waiting<'_, Vec<(Key, Entry)>> {
        self.store.list()
    }
}

#[tokio::test]
async fn a_store_that_has_to_be_waited_for_is_asked_once_in_an_update_timeout() {
    let kv = Arc::new(Slow::default());
    let (one, other) = (tracker(kv.clone(), 0), tracker(kv.clone(), 0));
    let tenant = id("t");
    let pair = ["c", "a"];
    assert_eq!(one.look(&tenant, &limits(), pair, 0), None);
    let elected = one.elect(&tenant, &limits(), pair, 0).await;
    assert_eq!(elected, Ok(Fate::Taken));
    assert_eq!(
        one.look(&tenant, &limits(), pair, 14_999),
        Some(Fate::Taken)
    );
    assert_eq!(one.look(&tenant, &limits(), pair, 15_000), None);
    // Another distributor hears of it from the store.
    let passive = other.elect(&tenant, &limits(), ["c", "b"], 20_000).await;
    assert_eq!(passive, Ok(Fate::Passive("a".into())));
    kv.failing.store(true, std::sync::atomic::Ordering::Relaxed);
    let failed = one.elect(&tenant, &limits(), pair, 20_000).await;
    assert_eq!(failed, Err("etcd is away".to_owned()));
}
