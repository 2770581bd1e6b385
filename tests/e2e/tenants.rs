//! Limits of single tenants: from a file that changes while the node runs, and what pages and metrics tell of them.

use std::time::Duration;

use tests::{Api, Response, Server, ServerOptions, unix_now, wait_until};

use crate::series::{body, snappy};

fn push(server: &Server, tenant: &str, name: &str, series: u32) -> Response {
    let numbers: Vec<_> = (0..series).map(|i| i.to_string()).collect();
    let labels: Vec<_> = numbers
        .iter()
        .map(|i| [("__name__", name), ("i", i.as_str()), ("pod_uid", "x")])
        .collect();
    let now = unix_now() * 1000;
    let all: Vec<_> = labels.iter().map(|l| (&l[..], now, 1.0)).collect();
    Api::new(&server.url(), Some(tenant))
        .post("/api/v1/push", &[], &snappy(&body(&all)))
        .unwrap()
}

#[test]
fn limits_change_while_the_node_runs_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runtime.yaml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("overrides: {small: {max_global_series_per_user: 2}}");
    let options = ServerOptions {
        config: "auth_enabled: true\n".into(),
        args: vec![
            format!("-runtime-config.file={}", file.display()),
            "-runtime-config.reload-period=50ms".into(),
        ],
        ..Default::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    let refused = push(&server, "small", "a", 3);
    assert_eq!(refused.status, 400);
    let text = refused.text();
    assert!(
        text.contains("global limit: 2 actual local limit: 2"),
        "{text}"
    );
    assert_eq!(push(&server, "other", "a", 3).status, 200);
    let metrics = || server.admin().get("/metrics", &[]).text();
    let metric = |line: &str| metrics().lines().any(|l| l == line);
    assert!(metric("cortex_runtime_config_last_reload_successful 1"));
    assert!(metric(
        "cortex_overrides{limit_name=\"max_global_series_per_user\",user=\"small\"} 2"
    ));
    assert!(metric(
        "cortex_overrides{limit_name=\"max_global_series_per_user\",user=\"\"} 0"
    ));

    write("overrides: {small: {max_global_series_per_user: 3, nonsense: 1}}");
    let patience = Duration::from_secs(20);
    wait_until("the bad file to be told", patience, || {
        metric("cortex_runtime_config_last_reload_successful 0")
    });
    assert_eq!(push(&server, "small", "a", 3).status, 400);

    // The third series is known to be refused; a wider limit has to free it at once.
    write("overrides: {small: {max_global_series_per_user: 3, drop_labels: [pod_uid]}}");
    wait_until("the new limit to hold", patience, || {
        push(&server, "small", "b", 1).status == 200
    });
    let names = server
        .api(Some("small"))
        .data("/api/v1/series", &[("match[]", "b")]);
    assert_eq!(names, serde_json::json!([{"__name__": "b", "i": "0"}]));
    assert_eq!(push(&server, "other", "b", 1).status, 200);

    let admin = server.admin();
    let diff = admin.get("/runtime_config", &[("mode", "diff")]).text();
    assert_eq!(
        diff,
        "overrides:\n  \"small\":\n    max_global_series_per_user: 3\n    drop_labels: pod_uid\n"
    );
    let whole = admin.get("/runtime_config", &[]).text();
    assert!(whole.contains("    ingestion_rate: 25000\n"), "{whole}");
    let diff = admin.get("/config", &[("mode", "diff")]).text();
    assert!(diff.starts_with("auth_enabled: true\n") && !diff.contains("ingestion_rate"));
    assert_eq!(admin.get("/config", &[("mode", "x")]).status, 400);

    let of = |tenant, path: &str| Api::new(&server.url(), Some(tenant)).get(path, &[]);
    let limits = of("small", "/api/v1/user_limits").json();
    assert_eq!(limits["max_global_series_per_user"], 3);
    assert_eq!(limits["drop_labels"], serde_json::json!(["pod_uid"]));
    assert_eq!(
        of("other", "/api/v1/user_limits").json()["ingestion_rate"],
        25_000
    );
    assert_eq!(of("other", "/api/v1/user-overrides").status, 400);
    assert_eq!(
        of("small", "/api/v1/user-overrides").json()["max_global_series_per_user"],
        3
    );
    assert_eq!(
        server.admin().get("/api/v1/user_limits", &[]).status,
        401,
        "whose?"
    );
    let stats = of("other", "/api/v1/user_stats").json();
    for (name, wanted) in [
        ("numSeries", 4),
        ("activeSeries", 4),
        ("loadedBlocks", 0),
        ("queriedIngesters", 1),
    ] {
        assert_eq!(stats[name], wanted, "{name}");
    }
    assert_eq!(of("other", "/api/prom/user_stats").json()["numSeries"], 4);
    let page = admin.get("/distributor/all_user_stats", &[]);
    assert!(page.header("content-type").unwrap().contains("html"));
    let row = "<td>other</td><td>0</td><td>4</td><td>4</td>";
    assert!(page.text().contains(row), "{}", page.text());
    let metrics = admin.get("/metrics", &[]).text();
    for line in [
        "cortex_ingester_active_series{user=\"other\"} 4",
        "cortex_overrides{limit_name=\"max_global_series_per_user\",user=\"small\"} 3",
    ] {
        assert!(
            metrics.lines().any(|l| l == line),
            "{line} is not in\n{metrics}"
        );
    }
    for name in [
        "cortex_labels_per_sample_count",
        "cortex_label_size_bytes_sum",
    ] {
        let line = metrics.lines().find(|l| l.starts_with(name));
        let value = line.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value > 0.0), "{name}: {line:?}");
    }
    server.stop();
}

#[test]
fn a_node_does_not_start_with_a_file_of_overrides_that_is_wrong() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    server.stop();
    let file = server.folder().join("runtime.yaml");
    std::fs::write(&file, "overrides: {a: {ingestion_rat: 5}}").unwrap();
    let program = tests::binary("myelin").unwrap();
    let output = std::process::Command::new(program)
        .arg(format!("-runtime-config.file={}", file.display()))
        .arg(format!("-data.dir={}", server.data().display()))
        .args(["-server.http-listen-port=0", "-server.grpc-listen-port=0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("did you mean limits.ingestion_rate"),
        "{told}"
    );
}

#[test]
fn a_process_has_its_own_bounds() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    assert_eq!(push(&server, "fake", "a", 1).status, 200);
    server.stop();
    server.restart_with(&["-distributor.instance-limits.max-ingestion-rate=0.001"]);
    wait_until("the rate to be noticed", Duration::from_secs(20), || {
        let answer = push(&server, "fake", "a", 1);
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert!(answer.text().contains("samples push rate limit reached"));
        }
        answer.status == 503
    });
    server.stop();
}

/// One query over two tenants of three, of every endpoint that may; none ever sees the third.
#[test]
fn a_query_reads_the_tenants_that_it_names_and_no_other() {
    let options = ServerOptions {
        config: "auth_enabled: true\ntenant_federation: {enabled: true, max_tenant: 2}\n".into(),
        ..Default::default()
    };
    let Some(mut server) = Server::start(options) else {
        return;
    };
    for tenant in ["a", "b", "c"] {
        assert_eq!(push(&server, tenant, "m", 2).status, 200);
        assert_eq!(
            push(&server, tenant, &format!("only_{tenant}"), 1).status,
            200
        );
    }
    // A series that pretends to be another tenant's.
    let fooled = [("__name__", "fooled"), ("__tenant_id__", "c")];
    let body = snappy(&body(&[(&fooled, unix_now() * 1000, 1.0)]));
    let pushed = Api::new(&server.url(), Some("a")).post("/api/v1/push", &[], &body);
    assert_eq!(pushed.unwrap().status, 200);
    let api = server.api(Some("b|a|b"));
    let now = unix_now() as f64 + 1.0;
    let value = |query: &str| {
        let answer = api.query(query, now);
        let samples = answer.as_array().unwrap().iter();
        let one = |sample: &serde_json::Value| {
            let metric = sample["metric"].to_string();
            format!("{metric} {}", sample["value"][1].as_str().unwrap())
        };
        samples.map(one).collect::<Vec<_>>()
    };
    assert_eq!(value("count(m)"), ["{} 4"]);
    assert_eq!(
        value("count by (__tenant_id__) (m)"),
        ["{\"__tenant_id__\":\"a\"} 2", "{\"__tenant_id__\":\"b\"} 2"]
    );
    assert_eq!(value("count(m{__tenant_id__=\"b\"})"), ["{} 2"]);
    assert_eq!(value("count(m{__tenant_id__=~\"c|x\"})"), [] as [&str; 0]);
    assert_eq!(value("only_c"), [] as [&str; 0]);
    assert_eq!(
        value("fooled"),
        ["{\"__name__\":\"fooled\",\"__tenant_id__\":\"a\",\"original___tenant_id__\":\"c\"} 1"]
    );
    assert_eq!(
        value("count(fooled{original___tenant_id__=\"c\"})"),
        ["{} 1"]
    );
    let data = |path: &str, selector: &str| match selector {
        "" => api.data(path, &[]),
        selector => api.data(path, &[("match[]", selector)]),
    };
    let tenants = "/api/v1/label/__tenant_id__/values";
    assert_eq!(data(tenants, ""), serde_json::json!(["a", "b"]));
    // Those that are asked, whatever they have.
    assert_eq!(data(tenants, "only_b"), serde_json::json!(["a", "b"]));
    let second = "{__tenant_id__=\"b\"}";
    assert_eq!(data(tenants, second), serde_json::json!(["b"]));
    let names = data("/api/v1/label/__name__/values", "");
    assert_eq!(
        names,
        serde_json::json!(["fooled", "m", "only_a", "only_b"])
    );
    let originals = data("/api/v1/label/original___tenant_id__/values", "");
    assert_eq!(originals, serde_json::json!(["c"]));
    assert!(
        data("/api/v1/labels", "")
            .to_string()
            .contains("__tenant_id__")
    );
    let series = data("/api/v1/series", "only_a");
    let wanted =
        serde_json::json!([{"__name__": "only_a", "__tenant_id__": "a", "i": "0", "pod_uid": "x"}]);
    assert_eq!(series, wanted);
    // One tenant is as it always was.
    let alone = server.api(Some("a|a")).query("fooled", now);
    assert_eq!(
        alone[0]["metric"],
        serde_json::json!({"__name__": "fooled", "__tenant_id__": "c"})
    );
    let get = |tenant: &str, path: &str| server.api(Some(tenant)).get(path, &[("query", "m")]);
    let many = get("a|b|c", "/api/v1/query");
    assert_eq!(many.status, 400);
    assert!(many.text().contains("too many tenants, max: 2, actual: 3"));
    for (tenant, path) in [("a|b", "/api/v1/status/tsdb"), ("a|", "/api/v1/query")] {
        assert_eq!(get(tenant, path).status, 400, "{tenant} {path}");
    }
    assert_eq!(push(&server, "a|b", "m", 1).status, 400);
    server.stop();
}
