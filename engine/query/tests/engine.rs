//! The engine over real cores, in a temporary directory: bounds, deadlines, limits, label requests.

#[path = "harness/node.rs"]
mod node;

use std::sync::Arc;
use std::time::Duration;

use model::{QueryValue, TenantLimits};
use node::{Node, caller};
use query::{Caller, Error, LabelSets, Lookup, Options, Query, Times};

fn limited(limits: TenantLimits) -> Caller {
    Caller {
        limits: Arc::new(limits),
        ..caller("a")
    }
}

fn at(text: &str, time: i64) -> Query {
    node::query(text, Times::Instant(time))
}

/// Medians over some 3,000 points, 11,000 times for each of 20 series: many seconds of work on little memory.
fn slow(timeout: Option<Duration>) -> Query {
    Query {
        text: "quantile_over_time(0.5, m[6m:100ms])".to_owned(),
        times: Times::Range {
            start: 350_000,
            end: 361_000,
            step: 1,
        },
        timeout,
        lookback: None,
        per_step: false,
        uncached: false,
    }
}

fn lookup(selectors: &[&str]) -> Lookup {
    let selectors = selectors.iter().map(|s| (*s).to_owned()).collect();
    Lookup {
        selectors,
        start: i64::MIN,
        end: i64::MAX,
        limit: 0,
    }
}

/// Twenty series of `m` in tenant `a`, one of `other`, and one of `m` in tenant `b`.
fn seeded(options: Options) -> Node {
    let node = Node::start(options);
    let (a, b) = (caller("a").tenant, caller("b").tenant);
    for i in 0..20 {
        let instance = i.to_string();
        let labels = [("__name__", "m"), ("instance", instance.as_str())];
        node.push(&a, &labels, &[(1_000, 0.0), (60_000, f64::from(i))]);
    }
    node.push(&a, &[("__name__", "other"), ("x", "y")], &[(500_000, 7.0)]);
    node.push(&b, &[("__name__", "m")], &[(60_000, 1e9)]);
    node
}

async fn scalar(node: &Node, caller: &Caller, text: &str, time: i64) -> Vec<f64> {
    match node
        .engine
        .query(caller, at(text, time))
        .await
        .unwrap()
        .value
    {
        QueryValue::Vector(samples) => samples
            .iter()
            .map(|s| match s.value {
                model::SeriesValue::Float(v) => v,
                ref other => panic!("{other:?}"),
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn series_of_all_cores_come_together_and_tenants_stay_apart() {
    let node = seeded(Options::new(2));
    assert_eq!(scalar(&node, &caller("a"), "sum(m)", 60_000).await, [190.0]);
    assert_eq!(
        scalar(
            &node,
            &caller("a"),
            "count(m) + count(m offset 30s)",
            60_000
        )
        .await,
        [40.0]
    );
    assert_eq!(scalar(&node, &caller("b"), "sum(m)", 60_000).await, [1e9]);
    assert!(
        scalar(&node, &caller("c"), "sum(m)", 60_000)
            .await
            .is_empty()
    );
    node.cores.stop();
}

#[tokio::test]
async fn a_query_beyond_a_limit_names_it() {
    let node = seeded(Options::new(1));
    let unlimited = TenantLimits::unlimited;
    for (limits, text, wanted) in [
        (
            TenantLimits {
                max_fetched_series_per_query: 19,
                ..unlimited()
            },
            "m",
            "the query hit the max number of series limit (limit: 19 series, at least",
        ),
        (
            TenantLimits {
                max_fetched_chunk_bytes_per_query: 10,
                ..unlimited()
            },
            "m",
            "the query hit the aggregated chunks size limit (limit: 10 bytes, at least",
        ),
        (
            TenantLimits {
                max_query_length: Duration::from_secs(3600),
                ..unlimited()
            },
            "sum_over_time(m[2h])",
            "the query time range exceeds the limit (query length: 7200s, limit: 3600s)",
        ),
        (
            TenantLimits {
                max_samples_per_query: 5,
                ..unlimited()
            },
            "m",
            "too many samples",
        ),
    ] {
        let error = node
            .engine
            .query(&limited(limits), at(text, 60_000))
            .await
            .unwrap_err();
        assert_eq!(error.class(), model::Class::Limit, "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
    }
    // At the limit it passes; identical selectors are fetched and counted once.
    let limits = TenantLimits {
        max_fetched_series_per_query: 20,
        ..unlimited()
    };
    assert_eq!(
        scalar(&node, &limited(limits), "sum(m + m - m)", 60_000).await,
        [190.0]
    );
    node.cores.stop();
}

#[tokio::test]
async fn data_behind_the_lookback_limit_is_not_seen() {
    let node = seeded(Options::new(1));
    let limits = TenantLimits {
        max_query_lookback: Duration::from_secs(900),
        ..TenantLimits::unlimited()
    };
    let caller = limited(limits); // now is 1,000 s: nothing before 100 s
    assert!(scalar(&node, &caller, "m", 60_000).await.is_empty());
    assert_eq!(scalar(&node, &caller, "other", 500_000).await, [7.0]);
    let names = node
        .engine
        .label_values(&caller, "__name__", lookup(&[]))
        .await
        .unwrap();
    assert_eq!(names.texts, ["other"]);
    node.cores.stop();
}

#[tokio::test]
async fn a_query_ends_at_its_deadline() {
    let node = seeded(Options::new(1));
    let query = slow(Some(Duration::from_millis(100)));
    let begin = tokio::time::Instant::now();
    let error = node.engine.query(&caller("a"), query).await.unwrap_err();
    assert_eq!(error.class(), model::Class::Timeout, "{error}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    node.cores.stop();
}

#[tokio::test]
async fn above_the_maximum_queries_wait_and_above_that_they_are_refused() {
    let options = Options {
        concurrent_max: 1,
        waiting_max: 1,
        ..Options::new(1)
    };
    let node = seeded(options);
    let caller = caller("a");
    let (first, second, third) = tokio::join!(
        node.engine
            .query(&caller, slow(Some(Duration::from_millis(300)))),
        node.engine.query(&caller, at("sum(m)", 60_000)),
        node.engine.query(&caller, at("sum(m)", 60_000)),
    );
    assert_eq!(first.unwrap_err().class(), model::Class::Timeout);
    assert!(second.is_ok(), "{second:?}");
    assert!(matches!(third, Err(Error::Busy { .. })), "{third:?}");
    assert_eq!(node.total("cortex_query_frontend_queue_length"), 0.0);
    assert_eq!(node.total("myelin_query_at_work"), 0.0);
    node.cores.stop();
}

/// Story: a remote read left the list when its chunks were there, however long its stream went on.
#[tokio::test]
async fn a_remote_read_is_listed_to_the_end_of_its_stream_and_can_be_killed() {
    let node = seeded(Options::new(1));
    let caller = caller("a");
    let selector = || query::ReadSelector {
        start: 0,
        end: 100_000,
        matchers: vec![(model::MatchOp::Equal, "__name__".to_owned(), "m".to_owned())],
    };
    let mut cursor = node.engine.read(&caller, vec![selector()]).await.unwrap();
    assert!(cursor.advance().unwrap().is_some());
    let running = node.engine.running(Some(&caller.tenant));
    assert_eq!(running.len(), 1);
    assert_eq!((running[0].operation, running[0].at_work), ("read", true));
    assert!(running[0].memory_bytes > 0);
    assert!(node.engine.kill(Some(&caller.tenant), running[0].id));
    assert!(matches!(cursor.advance(), Err(Error::Killed)));
    drop(cursor);
    assert!(node.engine.running(None).is_empty());
    // One that is read to its end has left as well.
    let mut cursor = node.engine.read(&caller, vec![selector()]).await.unwrap();
    while cursor.advance().unwrap().is_some() {}
    drop(cursor);
    assert!(node.engine.running(None).is_empty());
    node.cores.stop();
}

#[tokio::test]
async fn a_caller_that_leaves_gives_its_place_back() {
    let node = seeded(Options {
        concurrent_max: 1,
        ..Options::new(1)
    });
    let caller = caller("a");
    let slow = node.engine.query(&caller, slow(None));
    assert!(
        tokio::time::timeout(Duration::from_millis(100), slow)
            .await
            .is_err()
    );
    assert_eq!(scalar(&node, &caller, "sum(m)", 60_000).await, [190.0]);
    node.cores.stop();
}

#[tokio::test]
async fn label_requests_are_sorted_limited_and_bounded_in_time() {
    let node = seeded(Options::new(1));
    let (engine, caller) = (&node.engine, caller("a"));
    let names = engine.label_names(&caller, lookup(&[])).await.unwrap();
    assert_eq!(names.texts, ["__name__", "instance", "x"]);
    let names = engine
        .label_names(&caller, lookup(&["other"]))
        .await
        .unwrap();
    assert_eq!(names.texts, ["__name__", "x"]);
    let both = lookup(&["{x=\"y\"}", "m{instance=\"3\"}", "m{instance=~\"3|4\"}"]);
    let LabelSets {
        sets, truncated, ..
    } = engine.series(&caller, both.clone()).await.unwrap();
    assert_eq!((sets.len(), truncated), (3, false));
    let LabelSets {
        sets, truncated, ..
    } = engine
        .series(&caller, Lookup { limit: 2, ..both })
        .await
        .unwrap();
    assert_eq!((sets.len(), truncated), (2, true));
    let early = Lookup {
        end: 60_000,
        ..lookup(&[])
    };
    let values = engine
        .label_values(&caller, "__name__", early)
        .await
        .unwrap();
    assert_eq!(values.texts, ["m"]);
    let limited = Lookup {
        limit: 5,
        ..lookup(&["m"])
    };
    let values = engine
        .label_values(&caller, "instance", limited)
        .await
        .unwrap();
    assert_eq!((values.texts.len(), values.truncated), (5, true));
    for selectors in [&[][..], &["{"], &["{x=~\".*\"}"], &["1"]] {
        let error = engine.series(&caller, lookup(selectors)).await.unwrap_err();
        assert_eq!(error.class(), model::Class::Client, "{error}");
    }
    node.cores.stop();
}

#[tokio::test]
async fn after_a_stop_reads_are_refused_as_overload() {
    let Node {
        cores,
        engine,
        _dir,
        ..
    } = seeded(Options::new(1));
    cores.stop();
    let error = engine
        .query(&caller("a"), at("m", 60_000))
        .await
        .unwrap_err();
    assert_eq!(error.class(), model::Class::Overload, "{error}");
}
