//! Range queries answered in part from what is kept: nobody can tell.

#[path = "harness/node.rs"]
mod node;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache::{Cache, Key, Later, Value};
use model::TenantLimits;
use node::{Node, caller};
use query::{Answer, Caller, Engine, Error, Options, Query, SharedResults, Times};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

fn keeping() -> Options {
    Options {
        results_bytes_max: 1 << 20,
        split_interval: Duration::from_secs(600),
        ..Options::new(2)
    }
}

fn range(text: &str, start: i64, end: i64, step: i64) -> Query {
    node::query(text, Times::Range { start, end, step })
}

fn asking(tenant: &str, now_ms: i64, limits: TenantLimits) -> Caller {
    Caller {
        now_ms,
        limits: std::sync::Arc::new(limits),
        ..caller(tenant)
    }
}

/// The same query with and without what is kept.
async fn both(engine: &Engine, caller: &Caller, query: Query) -> [Result<Answer, Error>; 2] {
    let kept = engine.query(caller, query.clone()).await;
    let uncached = true;
    [
        kept,
        engine.query(caller, Query { uncached, ..query }).await,
    ]
}

async fn assert_same(node: &Node, caller: &Caller, query: Query, story: &str) {
    assert_same_of(&node.engine, caller, query, story).await;
}

async fn assert_same_of(engine: &Engine, caller: &Caller, query: Query, story: &str) {
    let about = format!("{story}: {query:?}");
    match both(engine, caller, query).await {
        [Ok(kept), Ok(fresh)] => {
            assert_eq!(kept.value, fresh.value, "{about}");
            // Their order is that in which they were met.
            assert_eq!(sorted(kept.warnings), sorted(fresh.warnings), "{about}");
            // Those of a part are those of all its steps.
            assert!(
                fresh.infos.iter().all(|info| kept.infos.contains(info)),
                "{about}"
            );
        }
        [Err(kept), Err(fresh)] => assert_eq!(kept.to_string(), fresh.to_string(), "{about}"),
        [kept, fresh] => panic!("{about}: {kept:?} but uncached {fresh:?}"),
    }
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

const TEXTS: [&str; 12] = [
    "m",
    "sum(m)",
    "sum by (i) (rate(m[2m]))",
    "max_over_time(m[5m]) - min_over_time(m[5m] offset 3m)",
    "max_over_time(sum(m)[4m:30s])",
    "sum(m) or vector(1)",
    "topk(2, m)",
    "m offset -2m",
    "m @ 900",
    "m - m @ end()",
    "absent(m{i=\"3\"})",
    // Warns at the steps at which there are series.
    "rate(m[2m]) + histogram_quantile(2, m)",
];

/// Found by this test while it was written: a floor below the beginning of time kept nothing at all.
#[tokio::test]
async fn answers_are_those_of_direct_evaluation_whatever_is_written_meanwhile() {
    let node = Node::start(keeping());
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let tenant = format!("t{seed}");
        let limits = TenantLimits {
            max_query_lookback: *[Duration::ZERO, Duration::from_secs(1500)]
                .choose(&mut rng)
                .unwrap(),
            ..TenantLimits::unlimited()
        };
        // Few, so that they meet what is kept.
        let texts: Vec<_> = TEXTS.choose_multiple(&mut rng, 3).collect();
        let width = *[15_000, 60_000, 70_001].choose(&mut rng).unwrap();
        let mut newest = [0_i64; 5];
        for step in 0..60 {
            let now = newest.iter().copied().max().unwrap() + 1000;
            let caller = asking(&tenant, now, limits.clone());
            if rng.random_bool(0.5) {
                // Each series in order for itself, some far behind the others.
                let series = rng.random_range(0..5);
                if rng.random_bool(0.8) {
                    newest[series] = newest[series].max(now - 90_000);
                }
                let mut samples = Vec::new();
                for _ in 0..rng.random_range(1..20) {
                    newest[series] += rng.random_range(1..60_000);
                    samples.push((newest[series], f64::from(rng.random_range(0..100))));
                }
                let labels = [("__name__", "m"), ("i", &series.to_string())];
                node.push(&caller.tenant, &labels, &samples);
                continue;
            }
            let text = texts.choose(&mut rng).unwrap();
            let phase = *[0, 7_000].choose(&mut rng).unwrap();
            let start = rng.random_range(0..=now / width) * width + phase;
            let end = start + rng.random_range(0..2_000_000);
            let story = format!("seed {seed}, step {step}");
            assert_same(&node, &caller, range(text, start, end, width), &story).await;
        }
    }
    let steps = node.total("myelin_query_steps_total");
    assert!(steps > 10_000.0, "{steps} steps could be kept");
    let kept = node.total_of("myelin_query_steps_total", "cache");
    assert!(
        kept > steps / 20.0,
        "{kept} of {steps} steps from the cache"
    );
    assert!(node.total("myelin_results_cache_bytes") > 0.0);
}

/// A cache that several nodes share, and that does as it likes: it forgets, does not take what it is given, and gives what it was given long ago.
#[derive(Debug, Default)]
struct Capricious {
    kept: Mutex<HashMap<Key, Vec<Value>>>,
    rng: Mutex<Option<SmallRng>>,
    hits: std::sync::atomic::AtomicU64,
}

impl Capricious {
    fn chance(&self, of: f64) -> bool {
        let mut rng = self.rng.lock().unwrap();
        rng.as_mut().is_some_and(|rng| rng.random_bool(of))
    }
}

impl Cache for Capricious {
    fn get(&self, keys: &[Key]) -> Vec<Option<Value>> {
        let kept = self.kept.lock().unwrap();
        let get = |key: &Key| {
            let values = kept.get(key).filter(|_| !self.chance(0.1))?;
            self.hits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            match self.chance(0.2) {
                true => values.choose(self.rng.lock().unwrap().as_mut()?).cloned(),
                false => values.last().cloned(),
            }
        };
        keys.iter().map(get).collect()
    }

    fn get_later(&self, keys: Vec<Key>) -> Later<'_> {
        let found = self.get(&keys);
        Box::pin(std::future::ready(found))
    }

    fn set(&self, entries: Vec<(Key, Value)>, _ttl: Duration) {
        for (key, value) in entries {
            if !self.chance(0.1) {
                let mut kept = self.kept.lock().unwrap();
                kept.entry(key).or_default().push(value);
            }
        }
    }
}

impl Capricious {
    fn shared(self: &Arc<Self>) -> Options {
        let cache: Arc<dyn Cache> = self.clone();
        let ttl = Duration::ZERO;
        Options {
            shared_results: Some(SharedResults { cache, ttl }),
            ..keeping()
        }
    }
}

/// Three that evaluate over the same cores, each with results of its own, and a cache behind them that is also that of another life of the same
/// tenants with other samples.
#[tokio::test]
async fn several_that_share_what_is_kept_answer_as_if_nothing_was() {
    let shared = Arc::new(Capricious::default());
    let mut steps = [0.0; 2];
    for life in 0..2 {
        let node = Node::start(shared.shared());
        let registries = [(); 2].map(|()| prometheus::Registry::new());
        let more = registries.each_ref().map(|registry| {
            Engine::start(shared.shared(), node.cores.mailboxes().clone(), registry)
        });
        let engines = [&node.engine, &more[0], &more[1]];
        for seed in 0..40 {
            let mut rng = SmallRng::seed_from_u64(seed + life * 1000);
            *shared.rng.lock().unwrap() = Some(SmallRng::seed_from_u64(seed));
            let tenant = format!("t{seed}");
            let texts: Vec<_> = TEXTS.choose_multiple(&mut rng, 2).collect();
            let mut newest = [0_i64; 5];
            for step in 0..80 {
                let now = newest.iter().copied().max().unwrap() + 1000;
                let caller = asking(&tenant, now, TenantLimits::unlimited());
                if rng.random_bool(0.05) {
                    let start = rng.random_range(0..=now);
                    let times = (start, start + rng.random_range(0..200_000));
                    let selectors = vec![format!("m{{i=\"{}\"}}", rng.random_range(0..5))];
                    let tenant = &caller.tenant;
                    node.engine
                        .delete_series(tenant, selectors, times)
                        .await
                        .unwrap();
                    continue;
                }
                if rng.random_bool(0.3) {
                    let series = rng.random_range(0..5);
                    if rng.random_bool(0.8) {
                        newest[series] = newest[series].max(now - 90_000);
                    }
                    let mut samples = Vec::new();
                    for _ in 0..rng.random_range(1..20) {
                        newest[series] += rng.random_range(1..60_000);
                        samples.push((newest[series], f64::from(rng.random_range(0..100))));
                    }
                    let labels = [("__name__", "m"), ("i", &series.to_string())];
                    node.push(&caller.tenant, &labels, &samples);
                    continue;
                }
                let text = texts.choose(&mut rng).unwrap();
                let width = *[1_000, 15_000].choose(&mut rng).unwrap();
                let start = rng.random_range(0..=now / width) * width;
                let end = start + rng.random_range(0..1_500 * width);
                let story = format!("life {life}, seed {seed}, step {step}");
                let engine = engines.choose(&mut rng).unwrap();
                assert_same_of(engine, &caller, range(text, start, end, width), &story).await;
            }
        }
        for registry in [&node.registry, &registries[0], &registries[1]] {
            for (sum, from) in steps.iter_mut().zip(["cache", "evaluated"]) {
                *sum += node::total_of(registry, "myelin_query_steps_total", from);
            }
        }
    }
    let hits = shared.hits.load(std::sync::atomic::Ordering::Relaxed);
    assert!(hits > 500, "{hits}");
    assert!(steps[0] > steps[1] / 20.0, "{steps:?}");
}

/// What one has evaluated the other finds, whole; and what has changed meanwhile it does not use.
#[tokio::test]
async fn one_finds_what_another_has_kept_as_far_as_it_is_still_true() {
    let shared = Arc::new(Capricious::default());
    let node = Node::start(shared.shared());
    let registry = prometheus::Registry::new();
    let other = Engine::start(shared.shared(), node.cores.mailboxes().clone(), &registry);
    let tenant = caller("a").tenant;
    let samples: Vec<_> = (0..2000).map(|i| (i * 10_000, i as f64)).collect();
    node.push(&tenant, &[("__name__", "m"), ("i", "0")], &samples);
    let now = 30_000_000;
    let load = async |engine: &Engine, registry: &prometheus::Registry, tenant: &str| {
        let evaluated = || node::total_of(registry, "myelin_query_steps_total", "evaluated");
        let before = evaluated();
        let caller = asking(tenant, now, TenantLimits::unlimited());
        let query = range("rate(m[5m])", 0, 20_000_000, 10_000);
        assert_same_of(engine, &caller, query, "loaded").await;
        evaluated() - before
    };
    assert_eq!(load(&node.engine, &node.registry, "a").await, 2001.0);
    assert_eq!(shared.kept.lock().unwrap().len(), 4, "spans of 512 steps");
    assert_eq!(load(&other, &registry, "a").await, 0.0);
    assert_eq!(
        load(&other, &registry, "a").await,
        0.0,
        "and has it now itself"
    );
    assert_eq!(load(&other, &registry, "b").await, 2001.0, "not another's");
    // A late series: what is before it is still true.
    node.push(
        &tenant,
        &[("__name__", "m"), ("i", "1")],
        &[(19_000_000, 1.0)],
    );
    assert_eq!(load(&other, &registry, "a").await, 101.0);
    assert_eq!(load(&node.engine, &node.registry, "a").await, 0.0);
}

#[tokio::test]
async fn a_dashboard_that_is_loaded_again_evaluates_only_what_is_new() {
    let node = Node::start(keeping());
    let samples: Vec<_> = (0..200).map(|i| (i * 30_000, i as f64)).collect();
    let tenant = caller("a").tenant;
    node.push(&tenant, &[("__name__", "m")], &samples);
    let now = 6_000_000;
    let evaluated = || node.total_of("myelin_query_steps_total", "evaluated");
    let load = async |now: i64| {
        let before = evaluated();
        let caller = asking("a", now, TenantLimits::unlimited());
        let query = range("rate(m[5m])", now - 3_600_000, now, 60_000);
        assert_same(&node, &caller, query, "loaded").await;
        evaluated() - before
    };
    assert_eq!(load(now).await, 61.0);
    assert_eq!(load(now).await, 1.0, "what is younger than a minute");
    assert_eq!(load(now + 60_000).await, 2.0);
    // A sample of a minute ago voids nothing, one of ten minutes ago voids ten minutes.
    node.push(&tenant, &[("__name__", "m"), ("i", "1")], &[(now + 1, 1.0)]);
    assert_eq!(load(now + 60_000).await, 1.0);
    node.push(
        &tenant,
        &[("__name__", "m"), ("i", "2")],
        &[(now - 600_000, 1.0)],
    );
    assert_eq!(load(now + 60_000).await, 12.0);
    assert_eq!(load(now + 60_000).await, 1.0);
    // Another's write voids nothing.
    node.push(&caller("b").tenant, &[("__name__", "m")], &[(1, 1.0)]);
    assert_eq!(load(now + 60_000).await, 1.0);
}

/// A deletion voids what is kept from its first time on, of its tenant alone.
#[tokio::test]
async fn what_is_kept_knows_of_deletions() {
    let node = Node::start(keeping());
    for tenant in ["a", "b"] {
        let samples: Vec<_> = (0..200).map(|i| (i * 30_000, i as f64)).collect();
        node.push(&caller(tenant).tenant, &[("__name__", "m")], &samples);
    }
    let now = 6_000_000;
    let evaluated = || node.total_of("myelin_query_steps_total", "evaluated");
    let load = async |tenant: &str| {
        let before = evaluated();
        let caller = asking(tenant, now, TenantLimits::unlimited());
        let query = range("sum_over_time(m[1m])", now - 3_600_000, now, 60_000);
        assert_same(&node, &caller, query, tenant).await;
        evaluated() - before
    };
    load("a").await;
    load("b").await;
    let times = (now - 600_000, now - 300_000);
    let selectors = vec!["m".to_owned()];
    let tenant = caller("a").tenant;
    let done = node.engine.delete_series(&tenant, selectors, times).await;
    done.unwrap();
    assert_eq!(load("a").await, 11.0);
    assert_eq!(load("a").await, 1.0);
    assert_eq!(load("b").await, 1.0, "another's");
    let listed = node.engine.deletions(&tenant).await.unwrap();
    let [one] = &listed[..] else {
        panic!("{listed:?}");
    };
    assert_eq!((one.start, one.end), times);
    assert_eq!(
        (one.selectors[0].as_str(), one.blocks_pending),
        ("{__name__=\"m\"}", 0)
    );
    assert!(
        node.engine
            .deletions(&caller("b").tenant)
            .await
            .unwrap()
            .is_empty()
    );

    // All is written again at the same times, as new.
    node.engine.delete_tenant(&tenant).await.unwrap();
    assert!(node.engine.is_tenant_deleted(&tenant).await.unwrap());
    node.push(&tenant, &[("__name__", "m")], &[(now - 900_000, 7.0)]);
    load("a").await;
    let error = node
        .engine
        .delete_series(&tenant, vec!["{a=\"\"}".to_owned()], times)
        .await;
    assert!(error.unwrap_err().to_string().contains("non-empty"));
}

#[tokio::test]
async fn tenants_do_not_share_what_is_kept() {
    let node = Node::start(keeping());
    for (tenant, value) in [("a", 1.0), ("b", 2.0)] {
        let tenant = caller(tenant).tenant;
        node.push(&tenant, &[("__name__", "m")], &[(1_000, value)]);
    }
    for _ in 0..2 {
        for tenant in ["a", "b", "c"] {
            let caller = asking(tenant, 1_000_000, TenantLimits::unlimited());
            let query = range("m", 0, 120_000, 1_000);
            assert_same(&node, &caller, query, tenant).await;
        }
    }
}

#[tokio::test]
async fn the_length_of_a_query_is_that_of_the_whole() {
    let node = Node::start(keeping());
    node.push(&caller("a").tenant, &[("__name__", "m")], &[(1_000, 1.0)]);
    let limits = TenantLimits {
        max_query_length: Duration::from_secs(1200),
        ..TenantLimits::unlimited()
    };
    let caller = asking("a", 9_000_000, limits);
    for _ in 0..2 {
        // Of the request itself, and of what the selectors reach over: none of the pieces is that long.
        let [kept, fresh] = both(&node.engine, &caller, range("m", 0, 3_600_000, 60_000)).await;
        for answer in [kept, fresh] {
            assert!(
                matches!(answer, Err(Error::RangeTooLong { .. })),
                "{answer:?}"
            );
        }
        let reaching = range("max_over_time(m[10m])", 0, 1_000_000, 60_000);
        for answer in both(&node.engine, &caller, reaching).await {
            assert!(matches!(answer, Err(Error::TooLong { .. })), "{answer:?}");
        }
        assert_same(&node, &caller, range("m", 0, 600_000, 60_000), "short").await;
    }
}

#[tokio::test]
async fn with_align_the_bounds_are_multiples_of_the_step() {
    let align = true;
    let node = Node::start(Options { align, ..keeping() });
    node.push(&caller("a").tenant, &[("__name__", "m")], &[(1_000, 1.0)]);
    let answer = node
        .engine
        .query(&caller("a"), range("m", 65_000, 185_000, 60_000))
        .await;
    let model::QueryValue::Matrix(series) = answer.unwrap().value else {
        panic!("a range query gives a matrix");
    };
    let times: Vec<i64> = series[0].floats.iter().map(|point| point.t).collect();
    assert_eq!(times, [60_000, 120_000, 180_000]);
}
