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
        waited: std::time::Duration::ZERO,
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
    let wide = [(10_000, 1.0), (600_000, 2.0)];
    node.push(&caller.tenant, &[("__name__", "wide")], &wide);
    assert!(scalar(&node, &caller, "m", 60_000).await.is_empty());
    assert_eq!(scalar(&node, &caller, "other", 500_000).await, [7.0]);
    let names = node
        .engine
        .label_values(&caller, "__name__", lookup(&[]))
        .await
        .unwrap();
    assert_eq!(names.texts, ["other", "wide"]);
    // A time that lies behind it whole has nothing, also where a chunk reaches over it.
    let behind = |selectors: &[&str]| Lookup {
        start: 0,
        end: 60_000,
        ..lookup(selectors)
    };
    let labels = node.engine.label_names(&caller, behind(&[])).await.unwrap();
    assert!(labels.texts.is_empty(), "{labels:?}");
    let series = node.engine.series(&caller, behind(&["{__name__=~\".+\"}"]));
    assert!(series.await.unwrap().sets.is_empty());
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

fn of(api_type: &str, regex: &str) -> model::QueryAttribute {
    model::QueryAttribute {
        api_type: api_type.to_owned(),
        regex: (!regex.is_empty()).then(|| model::Pattern::new(regex).unwrap()),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_the_operator_rejects_is_refused_and_counted_and_nothing_else() {
    let node = seeded(Options::new(1));
    let rejection = |attribute| {
        limited(TenantLimits {
            query_rejection: model::QueryRejection {
                enabled: true,
                query_attributes: vec![attribute],
            },
            ..TenantLimits::unlimited()
        })
    };
    let engine = &node.engine;
    let caller = rejection(of("query", "sum"));
    let refused = engine.query(&caller, at("sum(m)", 60_000)).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("rejected by the service operator"), "{text}");
    assert!(engine.query(&caller, at("max(m)", 60_000)).await.is_ok());
    assert!(engine.series(&caller, lookup(&["m"])).await.is_ok());
    let caller = rejection(of("label_values", "instance"));
    let values = lookup(&["m{instance=~\"1.*\"}"]);
    let refused = engine.label_values(&caller, "instance", values.clone());
    assert!(matches!(refused.await, Err(Error::Rejected)));
    assert!(engine.label_names(&caller, values).await.is_ok());
    // The time that the data reaches over is that of the selectors, not that of the request.
    let caller = rejection(model::QueryAttribute {
        time_range_limit: model::Within {
            least: Duration::from_secs(3600),
            most: Duration::ZERO,
        },
        ..Default::default()
    });
    let long = engine.query(&caller, at("count_over_time(m[2h])", 60_000));
    assert!(matches!(long.await, Err(Error::Rejected)));
    let short = engine.query(&caller, at("count_over_time(m[2m])", 60_000));
    assert!(short.await.is_ok());
    let rejected = node.total_of("cortex_rejected_queries_total", "query_rejected");
    assert_eq!(rejected, 3.0);
    node.cores.stop();
}

/// The only place is taken; when it is free, the one that came last goes first. Told by the order in which they end.
#[tokio::test]
async fn a_query_of_higher_priority_is_evaluated_before_those_that_waited_longer() {
    let node = seeded(Options {
        concurrent_max: 1,
        ..Options::new(1)
    });
    let caller = limited(TenantLimits {
        query_priority: model::QueryPriority {
            enabled: true,
            default_priority: 0,
            priorities: vec![model::Priority {
                priority: 9,
                query_attributes: vec![of("", "alert")],
            }],
        },
        ..TenantLimits::unlimited()
    });
    let order = std::sync::Mutex::new(Vec::new());
    let ask = async |query: Query| {
        let text = query.text.clone();
        drop(node.engine.query(&caller, query).await);
        order.lock().unwrap().push(text);
    };
    tokio::join!(
        ask(slow(Some(Duration::from_millis(300)))),
        ask(at("sum(m)", 60_000)),
        ask(at("max(m)", 60_000)),
        ask(at("count(m{alert=\"\"})", 60_000)),
    );
    let order = order.into_inner().unwrap();
    assert_eq!(order[1..], ["count(m{alert=\"\"})", "sum(m)", "max(m)"]);
    node.cores.stop();
}

#[tokio::test]
async fn a_range_query_that_is_too_long_is_the_clients_fault_and_a_selector_meets_a_limit() {
    let node = seeded(Options::new(1));
    let limits = TenantLimits {
        max_query_length: Duration::from_secs(3600),
        ..TenantLimits::unlimited()
    };
    let caller = limited(limits.clone());
    let range = |start| {
        let (end, step) = (caller.now_ms, 60_000);
        node::query("m", Times::Range { start, end, step })
    };
    let engine = &node.engine;
    let error = engine.query(&caller, range(-3_600_000)).await.unwrap_err();
    assert_eq!(error.class(), model::Class::Client, "{error}");
    assert!(error.to_string().contains("time range exceeds the limit"));
    // Both ends of a remote read belong to it, and those of the limit as well.
    for (start, is_allowed) in [(0, true), (-1, false)] {
        let matchers = vec![(model::MatchOp::Equal, "__name__".to_owned(), "m".to_owned())];
        let end = 3_600_000;
        let selector = query::ReadSelector {
            start,
            end,
            matchers,
        };
        let read = engine.read(&caller, vec![selector]).await;
        assert_eq!(read.is_ok(), is_allowed, "from {start}");
    }
    // Just as long as it may be: that the newest sample before its start is looked for counts for nothing.
    let just = engine
        .query(&caller, range(caller.now_ms - 3_600_000))
        .await;
    assert!(just.is_ok(), "{just:?}");
    // What is no query is told so first.
    let mut no_query = range(-3_600_000);
    no_query.text = "m{".to_owned();
    let error = engine.query(&caller, no_query).await.unwrap_err();
    assert!(error.to_string().contains("parse error"), "{error}");
    let long = engine.query(&caller, at("count_over_time(m[2h])", 60_000));
    let error = long.await.unwrap_err();
    assert_eq!(error.class(), model::Class::Limit, "{error}");
    let mut far = at("m", 60_000);
    far.lookback = Some(Duration::from_secs(7200));
    let error = engine.query(&caller, far).await.unwrap_err();
    assert_eq!(error.class(), model::Class::Limit, "{error}");
    // A start that is moved counts from where it is moved to.
    let moved = limited(TenantLimits {
        max_query_lookback: Duration::from_secs(1800),
        ..limits
    });
    assert!(engine.query(&moved, range(-3_600_000)).await.is_ok());
    let all = engine.query(&moved, at("count_over_time(m[2h])", caller.now_ms));
    assert!(all.await.is_ok());
    node.cores.stop();
}

#[tokio::test]
async fn regular_expressions_are_bounded_by_their_length_and_by_what_they_run_over() {
    let node = seeded(Options::new(1));
    let engine = &node.engine;
    let ask = async |caller: &Caller, text: &str| {
        let answer = engine.query(caller, at(text, 60_000)).await;
        answer.map(drop).map_err(|error| {
            assert_eq!(error.class(), model::Class::Limit, "{text}: {error}");
            error.to_string()
        })
    };
    let short = limited(TenantLimits {
        max_regex_pattern_length: 5,
        ..TenantLimits::unlimited()
    });
    assert_eq!(ask(&short, "m{instance=~\"1.[1]\"}").await, Ok(()));
    assert_eq!(ask(&short, "m{instance=\"1234567\"}").await, Ok(()));
    let error = ask(&short, "m{instance!~\"1.[12]\"}").await.unwrap_err();
    assert!(error.contains("6 bytes (limit: 5; max_regex"), "{error}");
    let series = engine.series(&short, lookup(&["m{instance=~\"[0-9]+\"}"]));
    assert!(matches!(series.await, Err(Error::PatternTooLong { .. })));
    // Twenty values, 0 to 19: thirty bytes.
    for (values, bytes, allowed) in [(20, 30, true), (19, 0, false), (0, 29, false)] {
        let caller = limited(TenantLimits {
            max_label_cardinality_for_unoptimized_regex: values,
            max_total_label_value_length_for_unoptimized_regex: bytes,
            ..TenantLimits::unlimited()
        });
        let asked = ask(&caller, "m{instance=~\"1[0-9]\"}").await;
        assert_eq!(asked.is_ok(), allowed, "{asked:?}");
        // Nothing is run over for words and prefixes.
        assert_eq!(ask(&caller, "m{instance=~\"1|2\"}").await, Ok(()));
        assert_eq!(ask(&caller, "m{instance=~\"1.*\"}").await, Ok(()));
    }
    node.cores.stop();
}
