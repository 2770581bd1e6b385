//! Queries whose series are divided into shards: of a tenant that has asked for it, on one node, over two tenants, and where a querier is a process of its own.

use serde_json::Value;
use tests::{Cluster, Server, ServerOptions, unix_now};

use crate::queries::metric;
use crate::series::{body, push};

/// With a step of a second this is worth being divided.
const SECONDS: i64 = 900;
const PODS: usize = 320;
const ARGS: [&str; 3] = [
    "-querier.workers=3",
    "-querier.split-queries-by-interval=0",
    "-querier.cache-results=false",
];

fn fill(server: &Server, tenant: &str, end: i64) {
    let pods: Vec<String> = (0..PODS).map(|n| format!("pod-{n}")).collect();
    let series = pods.iter().flat_map(|pod| {
        ["requests_total", "limit"].map(|name| [("__name__", name), ("pod", pod.as_str())])
    });
    let series: Vec<[(&str, &str); 2]> = series.collect();
    for tick in (0..6).rev() {
        let time = (end - tick * 150) * 1000;
        let sample = |(n, labels)| {
            let labels: &[(&str, &str); 2] = labels;
            (&labels[..], time, n as f64 * 0.1 - tick as f64)
        };
        let all: Vec<_> = series.iter().enumerate().map(sample).collect();
        let answer = push(server, Some(tenant), &body(&all));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn ask(server: &Server, tenant: &str, path: &str, query: &str, end: i64) -> Value {
    let (start, end) = ((end - SECONDS).to_string(), end.to_string());
    let params = [
        ("query", query),
        ("start", &start),
        ("end", &end),
        ("step", "1"),
        ("analyze", "true"),
    ];
    server.api(Some(tenant)).data(path, &params)
}

const DIVIDED: &str = "sum by (pod) (rate(requests_total[5m])) / on (pod) max by (pod) (limit)";

#[test]
fn a_tenant_that_has_shards_gets_the_same_answers_and_others_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("runtime.yaml");
    let overrides =
        "overrides: {b: {query_vertical_shard_size: 0}, c: {query_vertical_shard_size: 3}}";
    std::fs::write(&runtime, overrides).unwrap();
    let config = format!(
        "auth_enabled: true\ntenant_federation: {{enabled: true}}\nlimits: {{query_vertical_shard_size: 4}}\nruntime_config: {{file: {}}}\n",
        runtime.display()
    );
    let options = ServerOptions {
        config,
        args: ARGS.map(str::to_owned).into(),
        ..ServerOptions::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let end = unix_now();
    for tenant in ["a", "b", "c"] {
        fill(&server, tenant, end);
    }
    let counts = || {
        let of = |name| metric(&server, name);
        [
            of("cortex_frontend_mapped_asts_total"),
            of("cortex_frontend_sharded_queries_total"),
        ]
    };
    let range = |tenant: &str, query: &str| {
        ask(&server, tenant, "/api/v1/query_range", query, end)["result"].clone()
    };
    let whole = range("b", DIVIDED);
    assert_eq!(whole.as_array().unwrap().len(), PODS);
    assert_eq!(counts(), [0.0, 0.0]);
    // In the same order, to the last digit.
    assert_eq!(range("a", DIVIDED), whole);
    assert_eq!(counts(), [1.0, 4.0]);
    assert_eq!(range("c", DIVIDED), whole);
    assert_eq!(counts(), [2.0, 7.0]);
    assert_eq!(
        range("a", "count(requests_total)")
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(counts(), [2.0, 7.0]);
    // Over two tenants the fewer of theirs.
    let both = range("a|c", "sum by (pod) (requests_total)");
    assert_eq!(both.as_array().unwrap().len(), PODS);
    assert_eq!(counts(), [3.0, 10.0]);

    let explain = |tenant: &str, query: &str| ask(&server, tenant, "/api/v1/explain", query, end);
    let told = explain("a", DIVIDED);
    assert_eq!(
        told["sharding"],
        serde_json::json!({"shards": 4, "by": ["pod"]}),
        "{told}"
    );
    assert_eq!(told["run"]["shards"], 4, "{told}");
    let told = explain("b", DIVIDED);
    assert_eq!(
        (&told["sharding"]["shards"], &told["run"]["shards"]),
        (&1.into(), &1.into())
    );
    assert!(
        told["sharding"]["reason"]
            .as_str()
            .unwrap()
            .contains("query_vertical_shard_size")
    );
    let told = explain("a", "1 - max(requests_total)")["sharding"].clone();
    assert_eq!(told["text"], "max(requests_total)", "{told}");
    assert!(
        told["reason"].as_str().unwrap().contains("keeps no label"),
        "{told}"
    );
}

#[test]
fn queriers_that_are_processes_of_their_own_divide_queries_too() {
    let args = ARGS.map(str::to_owned);
    let config = "auth_enabled: true\nlimits: {query_vertical_shard_size: 4}\n";
    let Some(cluster) = Cluster::start_with(config, 1, 1, &args) else {
        return;
    };
    let end = unix_now();
    fill(&cluster.distributor, "a", end);
    let ask = |query| ask(&cluster.frontend, "a", "/api/v1/query_range", query, end);
    let divided = ask(DIVIDED)["result"].clone();
    assert_eq!(divided.as_array().unwrap().len(), PODS);
    let shards = || {
        metric(
            &cluster.queriers[0],
            "cortex_frontend_sharded_queries_total",
        )
    };
    assert_eq!(shards(), 4.0);
    // The same with something that is not divided.
    let whole = ask(&format!("{DIVIDED} or vector(1) > 1"))["result"].clone();
    assert_eq!(shards(), 4.0);
    assert_eq!(divided, whole);
}
