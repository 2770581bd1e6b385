//! The stores of this crate against the suite, and what only they can show.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use reactor::{IoMode, Options, Reactor, World, for_each_world};

use crate::contract::{Claims, run};
use crate::{
    Body, Bucket, Condition, Conditions, Error, Faults, Filesystem, Listing, Metered, Object,
    Piece, Sim, Stat, list_all, probe,
};

const CLAIMS: Claims = Claims {
    conditions: true,
    large_bytes: 3_000_000,
    steps: 600,
};

fn filesystem(dir: &Path) -> Result<Filesystem, Error> {
    let options = Options {
        io: IoMode::Threads,
        ..Options::default()
    };
    Filesystem::open(dir, move || Reactor::open(&options))
}

fn on_sim(sim: &reactor::Sim, dir: &Path) -> Result<Filesystem, Error> {
    let sim = sim.clone();
    Filesystem::open(dir, move || Ok(Reactor::sim(&sim)))
}

#[test]
fn a_directory_is_a_bucket() {
    for_each_world(|place| {
        let dir = place.dir().join("bucket");
        let bucket = match (place.sim(), place.world()) {
            (Some(sim), _) => on_sim(sim, &dir).unwrap(),
            (None, World::Uring) => {
                let io = IoMode::Uring;
                let options = Options {
                    io,
                    ..Options::default()
                };
                // Seen by the test that the ring was used.
                drop(place.reactor().create_dirs(&dir));
                Filesystem::open(&dir, move || Reactor::open(&options)).unwrap()
            }
            (None, _) => filesystem(&dir).unwrap(),
        };
        run(&bucket, CLAIMS);
    });
}

#[test]
fn the_simulated_bucket_is_one_with_and_without_conditions() {
    let large_bytes = 20_000;
    let claims = Claims {
        large_bytes,
        ..CLAIMS
    };
    run(&Sim::new(1), claims);
    let lax = Sim::new(2);
    lax.keep_conditions(false);
    let conditions = false;
    run(
        &lax,
        Claims {
            conditions,
            ..claims
        },
    );
}

#[test]
fn what_passes_through_is_counted() {
    let registry = prometheus::Registry::new();
    let bucket = Metered::new(Sim::new(1), &registry).unwrap();
    run(
        &bucket,
        Claims {
            large_bytes: 20_000,
            ..CLAIMS
        },
    );
    bucket.put("a", b"123", &Condition::Always).unwrap();
    let shown = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    assert!(
        shown.contains("myelin_bucket_operations_total{operation=\"read\"} "),
        "{shown}"
    );
    // Eleven odd keys and one that is too large; conditions that do not hold are no failures.
    assert!(
        shown.contains("failures_total{operation=\"put\"} 12"),
        "{shown}"
    );
    assert!(
        shown.contains("failures_total{operation=\"put_large\"} 2"),
        "{shown}"
    );
}

#[expect(clippy::disallowed_methods, reason = "what a crash would leave")]
#[test]
fn a_directory_is_one_process_bucket_and_is_opened_again_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = filesystem(dir.path()).unwrap();
    bucket.put("a/b", b"kept", &Condition::Always).unwrap();
    let error = filesystem(dir.path()).unwrap_err();
    assert!(
        error.to_string().contains("another process has it"),
        "{error}"
    );
    drop(bucket);
    std::fs::write(dir.path().join(".unfinished/7"), "half").unwrap();
    let bucket = reopened(dir.path());
    assert_eq!(bucket.get("a/b").unwrap().unwrap().bytes, b"kept");
    assert!(!dir.path().join(".unfinished/7").exists());
    let mut listed = Vec::new();
    list_all(&bucket, "", &mut |object| listed.push(object.key)).unwrap();
    assert_eq!(listed, ["a/b"]);
    bucket.delete("a/b").unwrap();
    assert!(!dir.path().join("a").exists(), "empty directories go");
}

/// The thread of a dropped bucket lets go of the lock in its own time.
fn reopened(dir: &Path) -> Filesystem {
    loop {
        match filesystem(dir) {
            Ok(bucket) => return bucket,
            Err(error) if error.to_string().contains("another process") => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn long_listings_come_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let (files, sim) = (filesystem(dir.path()).unwrap(), Sim::new(1));
    let buckets: [&dyn Bucket; 2] = [&files, &sim];
    for bucket in buckets {
        let keys: Vec<String> = (0..2345)
            .map(|i| format!("p/{:03}/{i:05}", i / 10))
            .collect();
        for key in &keys {
            bucket.put(key, b"", &Condition::Always).unwrap();
        }
        bucket.put("q", b"", &Condition::Always).unwrap();
        let mut found = Vec::new();
        list_all(bucket, "p/", &mut |object| found.push(object.key)).unwrap();
        assert_eq!(found, keys);
    }
}

/// Puts two objects, replaces one, removes the other; returns how far it came.
fn script(bucket: &dyn Bucket) -> (usize, Result<(), Error>) {
    let mut done = 0;
    let mut step = |result: Result<(), Error>| {
        done += usize::from(result.is_ok());
        result
    };
    let long = vec![7; 5000];
    let result = (|| {
        step(bucket.put("a/x", b"one", &Condition::Absent).map(drop))?;
        step(bucket.put_large("b/y/z", &mut &long[..]).map(drop))?;
        step(bucket.put("a/x", b"two", &Condition::Always).map(drop))?;
        step(bucket.delete("b/y/z"))
    })();
    (done, result)
}

#[test]
fn a_power_cut_after_any_operation_leaves_what_was_told_and_nothing_half() {
    let whole = reactor::Sim::new(0);
    let bucket = on_sim(&whole, Path::new("/bucket")).unwrap();
    assert_eq!(script(&bucket), (4, Ok(())));
    let operations = whole.ops();
    assert!(operations > 40, "{operations}");
    for stop in 0..operations {
        let sim = reactor::Sim::new(stop);
        sim.stop_after(stop);
        let done = match on_sim(&sim, Path::new("/bucket")) {
            Ok(bucket) => script(&bucket).0,
            Err(_) => 0,
        };
        sim.crash();
        let bucket = on_sim(&sim, Path::new("/bucket")).unwrap();
        let x = bucket.get("a/x").unwrap().map(|object| object.bytes);
        let y = bucket.get("b/y/z").unwrap().map(|object| object.bytes);
        let (one, two) = (Some(b"one".to_vec()), Some(b"two".to_vec()));
        let long = Some(vec![7; 5000]);
        // What was told, or the step after it, which may have been durable before it could be told.
        let expected = [
            (None, None),
            (one.clone(), None),
            (one, long.clone()),
            (two.clone(), long),
            (two, None),
        ];
        let possible = &expected[done..(done + 2).min(expected.len())];
        assert!(
            possible.contains(&(x.clone(), y.clone())),
            "stop {stop}, told {done}: {x:?} {y:?}"
        );
        let mut listed = 0;
        list_all(&bucket, "", &mut |_| listed += 1).unwrap();
        assert_eq!(listed, usize::from(x.is_some()) + usize::from(y.is_some()));
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_the_old_object() {
    let sim = reactor::Sim::new(3);
    let bucket = on_sim(&sim, Path::new("/bucket")).unwrap();
    bucket.put("a", &[1; 4096], &Condition::Always).unwrap();
    sim.set_capacity(sim.used() + 8192);
    let error = bucket
        .put_large("a", &mut &vec![2; 1 << 20][..])
        .unwrap_err();
    assert!(error.is_passing(), "{error:?}");
    assert_eq!(bucket.get("a").unwrap().unwrap().bytes, [1; 4096]);
    bucket.put("b", &[3; 4096], &Condition::Always).unwrap();
}

#[test]
fn what_the_disk_changes_on_its_way_is_found_before_the_object_has_a_name() {
    let sim = reactor::Sim::new(3);
    let bucket = on_sim(&sim, Path::new("/bucket")).unwrap();
    let twice = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let seen = Arc::clone(&twice);
    sim.fail_when(move |view| {
        let is_write = view.kind == reactor::OpKind::Write && view.len == 5000;
        let first = is_write && seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        first.then_some(reactor::Fault::Misdirect { by: 512 })
    });
    let error = bucket.put_large("a", &mut &vec![2; 5000][..]).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert_eq!(bucket.head("a").unwrap(), None);
    bucket.put_large("a", &mut &vec![2; 5000][..]).unwrap();
}

#[test]
fn a_store_that_ignores_conditions_is_found_out() {
    let sim = Sim::new(1);
    assert_eq!(probe(&sim, "x/probe", 1), Ok(Conditions::Kept));
    sim.keep_conditions(false);
    assert_eq!(probe(&sim, "x/probe", 1), Ok(Conditions::Ignored));
    assert!(sim.keys().is_empty());
    sim.set_out(true);
    assert!(probe(&sim, "x/probe", 1).unwrap_err().is_passing());
}

/// A store that takes some time for everything.
#[derive(Debug)]
struct Slow<'s>(&'s Sim, std::sync::atomic::AtomicU64);

impl Slow<'_> {
    fn later(&self) -> &Sim {
        // Up to 400 us, other ones each time.
        let last = self.1.load(std::sync::atomic::Ordering::Relaxed);
        let next = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.1.store(next, std::sync::atomic::Ordering::Relaxed);
        std::thread::park_timeout(std::time::Duration::from_micros((next >> 33) % 400));
        self.0
    }
}

impl Bucket for Slow<'_> {
    fn name(&self) -> &str {
        "slow"
    }
    fn head(&self, key: &str) -> Result<Option<Stat>, Error> {
        self.later().head(key)
    }
    fn get(&self, key: &str) -> Result<Option<Object>, Error> {
        self.later().get(key)
    }
    fn read(&self, pieces: &[Piece]) -> Result<Vec<Vec<u8>>, Error> {
        self.later().read(pieces)
    }
    fn put(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Stat, Error> {
        self.later().put(key, bytes, condition)
    }
    fn put_large(&self, key: &str, body: &mut dyn Body) -> Result<Stat, Error> {
        self.later().put_large(key, body)
    }
    fn list(&self, prefix: &str, after: &str) -> Result<Listing, Error> {
        self.later().list(prefix, after)
    }
    fn delete(&self, key: &str) -> Result<(), Error> {
        self.later().delete(key)
    }
    fn sweep(&self, prefix: &str, before_ms: i64) -> Result<u64, Error> {
        self.later().sweep(prefix, before_ms)
    }
}

/// Two nodes of one name that started together each took the store for one that ignores conditions, for the rest of their lives.
#[test]
fn who_tries_at_the_same_time_is_not_taken_for_a_store_without_conditions() {
    let sim = Sim::new(2);
    let found: Vec<_> = std::thread::scope(|scope| {
        let tries = |chance: u64| {
            let slow = Slow(&sim, chance.into());
            move || -> Vec<_> { (0..200).map(|_| probe(&slow, "x", chance)).collect() }
        };
        let all = [1, 2].map(|chance| scope.spawn(tries(chance)));
        all.into_iter()
            .flat_map(|one| one.join().unwrap())
            .collect()
    });
    let kept = found.iter().filter(|one| **one == Ok(Conditions::Kept));
    assert!(kept.count() > 0);
    for one in &found {
        let is_passing = one.as_ref().is_err_and(Error::is_passing);
        assert!(is_passing || *one == Ok(Conditions::Kept), "{one:?}");
    }
    assert!(sim.keys().is_empty());
    // What a process that ended in its second try has left goes with the next one's.
    sim.put("x-00000000000000ff", b"first", &Condition::Always)
        .unwrap();
    sim.keep_conditions(false);
    assert_eq!(probe(&sim, "x", 1), Ok(Conditions::Ignored));
    assert!(sim.keys().is_empty());
}

#[test]
fn faults_come_before_and_after_the_effect_and_a_stopped_client_does_nothing_more() {
    let sim = Sim::new(9);
    sim.set_faults(Faults {
        before: 0.3,
        after: 0.3,
    });
    let (mut effects, mut failures) = (0, 0);
    for i in 0..400 {
        let key = format!("k/{i}");
        let told = sim.put(&key, b"x", &Condition::Always);
        let is_there = sim.keys().contains(&key);
        match told {
            Ok(_) => assert!(is_there),
            Err(error) => {
                assert!(error.is_passing());
                failures += 1;
                effects += usize::from(is_there);
            }
        }
    }
    assert!((180..300).contains(&failures), "{failures}");
    assert!((80..160).contains(&effects), "{effects}");
    sim.set_faults(Faults::default());
    sim.stop_after(2);
    sim.put("l/1", b"x", &Condition::Always).unwrap();
    sim.put("l/2", b"x", &Condition::Always).unwrap_err();
    sim.put("l/3", b"x", &Condition::Always).unwrap_err();
    assert!(!sim.keys().contains(&"l/3".to_owned()));
    sim.revive();
    sim.put("l/3", b"x", &Condition::Always).unwrap();
    // Begun, two parts, then dead: somebody has to sweep.
    sim.set_now_ms(1000);
    sim.stop_after(4);
    let _ = sim.put_large("m", &mut &vec![0; 20_000][..]);
    sim.revive();
    assert_eq!(sim.uploads(), 1);
    assert_eq!(sim.sweep("m", 1000), Ok(0));
    assert_eq!(sim.sweep("m", 1001), Ok(1));
    assert_eq!(sim.uploads(), 0);
}

#[test]
fn handles_go_to_other_threads() {
    let bucket: Arc<dyn Bucket> = Arc::new(Sim::new(1));
    let puts: Vec<JoinHandle<()>> = (0..4)
        .map(|i| {
            let bucket = Arc::clone(&bucket);
            std::thread::spawn(move || {
                drop(bucket.put(&format!("t/{i}"), b"x", &Condition::Always))
            })
        })
        .collect();
    puts.into_iter().for_each(|put| put.join().unwrap());
    assert_eq!(bucket.list("t/", "").unwrap().objects.len(), 4);
}
