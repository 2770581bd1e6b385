//! Queries whose series are divided into shards: nobody can tell, while pieces of time, kept results and writes go on as ever.

#[path = "harness/node.rs"]
mod node;

use std::sync::Arc;
use std::time::Duration;

use model::{QueryValue, TenantId, TenantLimits};
use node::{Node, caller};
use query::{Caller, Error, Options, Query, Times};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Results are kept, ranges cut, and anything is worth being divided.
fn dividing() -> Options {
    Options {
        results_bytes_max: 1 << 20,
        split_interval: Duration::from_secs(600),
        shard_cells_min: 0,
        ..Options::new(3)
    }
}

fn asking(tenant: &TenantId, now_ms: i64, shards: u64) -> Caller {
    let limits = TenantLimits {
        query_vertical_shard_size: shards,
        ..TenantLimits::unlimited()
    };
    Caller {
        tenant: tenant.clone(),
        limits: Arc::new(limits),
        now_ms,
        ..caller("x")
    }
}

fn range(text: &str, start: i64, end: i64, step: i64) -> Query {
    node::query(text, Times::Range { start, end, step })
}

/// By series, numbers as their bits, in the order of the answer.
fn exact(value: &QueryValue) -> Vec<(String, Vec<(i64, u64)>)> {
    let QueryValue::Matrix(series) = value else {
        panic!("a range query gives a matrix");
    };
    let points =
        |one: &model::RangeSeries| one.floats.iter().map(|p| (p.t, p.v.to_bits())).collect();
    series
        .iter()
        .map(|one| (one.labels.to_string(), points(one)))
        .collect()
}

const TEXTS: [&str; 16] = [
    "sum by (a) (m)",
    "sum by (a, b) (rate(m[2m]))",
    "avg without (i) (m)",
    "max by (a) (sum by (a, b) (m * 0.1))",
    "m / on (i, a, b) n",
    "m - ignoring (b) n",
    "sum by (a) (m) / on (a) group_right () sum by (a, b) (m)",
    "topk by (a) (2, m)",
    "m unless on (a) (n > 50)",
    "stddev by (b) (max_over_time(m[3m:40s]))",
    "count_values by (a) ('v', m)",
    "label_replace(sum by (a, b) (m), 'c', '$1', 'b', '(.*)') * 2",
    "sum by (a) (m offset 90s) + on (a) count by (a) (n @ 900)",
    "sum by (__tenant_id__, a) (m)",
    // Not divided.
    "sum(m)",
    "sum by (a) (m) or vector(1)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_in_shards_are_those_of_direct_evaluation_whatever_is_written_meanwhile() {
    let node = Node::start(dividing());
    for seed in 0..40 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let tenants = [0, 1].map(|n| TenantId::new(&format!("t{seed}-{n}")).unwrap());
        let both = TenantId::joined(&tenants);
        let texts: Vec<_> = TEXTS.choose_multiple(&mut rng, 3).collect();
        let mut newest = [0_i64; 24];
        for step in 0..60 {
            let now = newest.iter().copied().max().unwrap() + 1000;
            if rng.random_bool(0.5) {
                let series = rng.random_range(0..newest.len());
                if rng.random_bool(0.8) {
                    newest[series] = newest[series].max(now - 90_000);
                }
                let mut samples = Vec::new();
                for _ in 0..rng.random_range(1..20) {
                    newest[series] += rng.random_range(1..60_000);
                    // Tenths: sums depend on how they are put together.
                    samples.push((newest[series], f64::from(rng.random_range(0..1000)) * 0.1));
                }
                let (i, a, b) = (series / 8, series % 3, series % 5);
                let [i, a, b] = [i, a, b].map(|n| n.to_string());
                let name = ["m", "m", "n"].choose(&mut rng).unwrap();
                let labels = [("__name__", *name), ("a", &*a), ("b", &*b), ("i", &*i)];
                node.push(tenants.choose(&mut rng).unwrap(), &labels, &samples);
                continue;
            }
            let text = texts.choose(&mut rng).unwrap();
            let width = *[15_000, 60_000].choose(&mut rng).unwrap();
            let start = rng.random_range(0..=now / width) * width;
            let query = range(text, start, start + rng.random_range(0..2_000_000), width);
            let tenant = [&tenants[0], &tenants[1], &both]
                .choose(&mut rng)
                .copied()
                .unwrap();
            let shards = *[2, 3, 7, 16].choose(&mut rng).unwrap();
            let answer = node
                .engine
                .query(&asking(tenant, now, shards), query.clone())
                .await;
            let direct = Query {
                uncached: true,
                ..query
            };
            let direct = node.engine.query(&asking(tenant, now, 0), direct).await;
            let about = format!("seed {seed}, step {step}: {shards} shards of {text} of {tenant}");
            match (answer, direct) {
                (Ok(answer), Ok(direct)) => {
                    assert_eq!(exact(&answer.value), exact(&direct.value), "{about}");
                }
                (Err(answer), Err(direct)) => {
                    assert_eq!(answer.to_string(), direct.to_string(), "{about}");
                }
                (answer, direct) => panic!("{about}: {answer:?} but in one {direct:?}"),
            }
        }
    }
    let divided = node.total("cortex_frontend_mapped_asts_total");
    let shards = node.total("cortex_frontend_sharded_queries_total");
    assert!(
        divided > 300.0 && shards > 2.2 * divided,
        "{divided} {shards}"
    );
    let kept = node.total_of("myelin_query_steps_total", "cache");
    assert!(kept > 500.0, "{kept} steps from the cache");
    assert!(node.total("cortex_frontend_split_queries_total") > 100.0);
}

/// A tenant with `series` of `m`, one a pod, and samples for an hour.
fn loaded(node: &Node, tenant: &TenantId, series: usize) {
    let samples: Vec<(i64, f64)> = (0..240).map(|n| (n * 15_000, n as f64)).collect();
    for pod in 0..series {
        let pod = pod.to_string();
        node.push(tenant, &[("__name__", "m"), ("pod", &pod)], &samples);
    }
}

/// Threads that help with shards.
fn helpers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
    names
        .filter(|name| {
            name.as_ref()
                .is_ok_and(|name| name.starts_with("query-shard"))
        })
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_is_killed_or_too_late_ends_all_its_shards() {
    let node = Node::start(dividing());
    let tenant = caller("a").tenant;
    loaded(&node, &tenant, 200);
    let sharded = asking(&tenant, 3_600_000, 8);
    // Minutes of work.
    let text = "sum by (pod) (stddev_over_time(m[1h:100ms]))";
    let query = || range(text, 0, 3_600_000, 200);
    let ended = async || {
        while helpers() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let kill = async {
        // Helpers may be those of another test.
        let running = || node.engine.running(Some(&tenant));
        while helpers() < 2 || running().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let running = running();
        assert!(node.engine.kill(Some(&tenant), running[0].id));
    };
    let (killed, ()) = tokio::join!(node.engine.query(&sharded, query()), kill);
    assert!(matches!(killed, Err(Error::Killed)), "{killed:?}");
    ended().await;
    let late = Query {
        timeout: Some(Duration::from_millis(300)),
        ..query()
    };
    let late = node.engine.query(&sharded, late).await;
    assert!(matches!(late, Err(Error::Timeout(_))), "{late:?}");
    ended().await;
    // And all of them are there for the next.
    let answer = node
        .engine
        .query(&sharded, range("sum by (pod) (m)", 0, 60_000, 15_000));
    assert_eq!(exact(&answer.await.unwrap().value).len(), 200);
}

#[tokio::test]
async fn limits_hold_for_all_shards_together_and_what_is_held_does_not_grow_with_them() {
    let node = Node::start(dividing());
    let tenant = caller("a").tenant;
    loaded(&node, &tenant, 300);
    let ask = async |shards: u64, limits: TenantLimits| {
        let limits = TenantLimits {
            query_vertical_shard_size: shards,
            ..limits
        };
        let caller = Caller {
            limits: Arc::new(limits),
            ..asking(&tenant, 3_600_000, 0)
        };
        let query = Query {
            uncached: true,
            ..range(
                "sum by (pod) (m) * on (pod) max by (pod) (m)",
                0,
                3_600_000,
                15_000,
            )
        };
        node.engine.query(&caller, query).await
    };
    let unlimited = TenantLimits::unlimited;
    let samples = |max_samples_per_query| TenantLimits {
        max_samples_per_query,
        ..unlimited()
    };
    let series = |max_fetched_series_per_query| TenantLimits {
        max_fetched_series_per_query,
        ..unlimited()
    };
    let bytes = |max_fetched_chunk_bytes_per_query| TenantLimits {
        max_fetched_chunk_bytes_per_query,
        ..unlimited()
    };
    let memory = |max_estimated_memory_consumption_per_query| TenantLimits {
        max_estimated_memory_consumption_per_query,
        ..unlimited()
    };
    // 241 steps of 300 series are held at least, some 10,000 by each of seven shards.
    for limits in [samples(70_000), series(299), bytes(1_000), memory(600_000)] {
        let reason = async |shards: u64| {
            let error = ask(shards, limits.clone()).await.unwrap_err();
            // How much was needed depends on when it was asked.
            error
                .to_string()
                .split("at least")
                .next()
                .unwrap()
                .to_owned()
        };
        assert_eq!(reason(7).await, reason(0).await);
    }
    let [one, seven] = [
        ask(0, unlimited()).await.unwrap(),
        ask(7, unlimited()).await.unwrap(),
    ];
    assert_eq!(exact(&one.value), exact(&seven.value));
    assert_eq!(one.stats.total_samples, seven.stats.total_samples);
    assert!(seven.stats.peak_samples <= one.stats.peak_samples * 2);
    assert!(seven.account.held() <= one.account.held() + 16 * 300);
}

#[tokio::test]
async fn explain_tells_whether_a_query_is_divided_and_why_not() {
    let node = Node::start(dividing());
    let tenant = caller("a").tenant;
    loaded(&node, &tenant, 50);
    let explain = async |shards: u64, text: &str| {
        let caller = asking(&tenant, 3_600_000, shards);
        let query = range(text, 0, 3_600_000, 15_000);
        node.engine.explain(&caller, query, true).await.unwrap()
    };
    let told = explain(4, "sum by (pod) (m)").await;
    assert_eq!((told.sharding.shards, told.run.unwrap().shards), (4, 4));
    let labels = query::ShardLabels::By(["pod".to_owned()].into());
    assert_eq!(
        (&told.sharding.labels, &told.sharding.reason),
        (&Some(labels.clone()), &None)
    );
    // Nodes and selectors have the costs of all shards.
    assert_eq!(told.selectors[0].decoded.unwrap().series, 50);
    assert_eq!(told.root.cost.unwrap().series, 50);
    let told = explain(0, "sum by (pod) (m)").await;
    assert_eq!((told.sharding.shards, told.run.unwrap().shards), (1, 1));
    assert_eq!(told.sharding.labels, Some(labels));
    assert!(
        told.sharding
            .reason
            .unwrap()
            .contains("query_vertical_shard_size")
    );
    let told = explain(4, "1 + max(sum by (pod) (m))").await.sharding;
    assert_eq!((told.shards, told.labels), (1, None));
    assert!(told.reason.unwrap().starts_with("max keeps no label"));
    assert_eq!(told.text.unwrap(), "max(sum by (pod) (m))");
    let told = explain(4, "sum by (pod) (m{pod='1'})").await;
    assert_eq!(told.run.unwrap().shards, 1);
    assert!(told.sharding.reason.unwrap().contains("one shard"));
}
